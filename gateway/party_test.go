package gateway

import (
	"errors"
	"testing"

	"github.com/caddy-polar/caddy-polar/entitlement"
	"github.com/caddy-polar/caddy-polar/polar/box"
)

// Of a paying party of several people everything is shared but seats, which are
// one person's.
func TestSeatsOfAPartyArePersons(t *testing.T) {
	const acme = "org_acme"
	s := newShop(t, box.Options{AllowMultiple: true}, linkingEmail, func(c *Config) { c.Sales.Several = true }).connect()
	team := s.box.AddProduct(box.Product{Name: "Team", Interval: "month", Price: box.Price{
		Currency: "usd", Tiers: []box.SeatTier{{Min: 1, PerSeat: 1000}},
	}})
	s.g.plans[1].Products = append(s.g.plans[1].Products, team.ID)
	shared, seats := s.g.plans[0].Name, s.g.plans[1].Name
	if _, err := s.box.Buy(acme, "boss@example.com", s.pro.ID); err != nil {
		t.Fatal(err)
	}
	p := s.purchase(team.ID)
	p.Seats = 4
	c, err := s.g.OpenCheckout(t.Context(), Visitor{User: acme, Person: "boss"}, p)
	if err != nil {
		t.Fatal(err)
	}
	held, _ := s.box.Checkout(c.ID)
	s.pays(held, "boss@example.com")
	buyer, _ := s.box.CustomerByExternalID(acme)
	var sub box.Subscription
	for _, x := range s.box.Subscriptions(buyer.ID) {
		if x.ProductID == team.ID {
			sub = x
		}
	}
	assign := func(a box.SeatAssignment) {
		t.Helper()
		a.SubscriptionID, a.Immediate = sub.ID, true
		if _, err := s.box.AssignSeat(a); err != nil {
			t.Fatal(err)
		}
	}
	assign(box.SeatAssignment{Email: "ann@example.com", ExternalMemberID: "ann"})
	assign(box.SeatAssignment{Email: "eve@example.com"})
	assign(box.SeatAssignment{Email: "boss@example.com"}) // the owner, whose id is the party's
	s.box.Settle()

	if _, err := s.g.Link(t.Context(), "boss", s.box.Members(buyer.ID)[0].ID, LinkOptions{}); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		v            Visitor
		shares, sits bool
	}{
		"a member by id":           {v: Visitor{User: acme, Person: "ann"}, shares: true, sits: true},
		"a member by e-mail":       {v: Visitor{User: acme, Person: "usr_eve", Email: "eve@example.com", EmailVerified: true}, shares: true, sits: true},
		"the owner, by a link":     {v: Visitor{User: acme, Person: "boss"}, shares: true, sits: true},
		"no member":                {v: Visitor{User: acme, Person: "bob"}, shares: true},
		"no member, of that name":  {v: Visitor{User: acme, Person: acme + "x"}, shares: true},
		"a member without a party": {v: Visitor{Person: "ann"}, sits: true},
		"a member of elsewhere":    {v: Visitor{User: "org_other", Person: "ann"}, sits: true},
		"a stranger":               {v: Visitor{User: "org_other", Person: "bob"}},
		"a person of the same id":  {v: Visitor{User: "org_other", Person: acme}},
		"an unproven e-mail":       {v: Visitor{User: acme, Person: "usr_mal", Email: "eve@example.com"}, shares: true},
	} {
		t.Run(name, func(t *testing.T) {
			a, err := s.g.AccountOf(tt.v)
			if err != nil {
				t.Fatal(err)
			}
			for plan, want := range map[string]bool{shared: tt.shares, seats: tt.sits} {
				q, err := s.g.Rules().Require(plan)
				if err != nil {
					t.Fatal(err)
				}
				d := entitlement.Decide(a, q, s.g.Rules(), s.g.Now())
				s.seen.agree(t, s.g, tt.v, q, d)
				if d.Allowed != want {
					t.Errorf("%s: %+v, want %v", plan, d, want)
				}
			}
			if tt.v.User != acme && a.OwnCustomer() != "" {
				t.Error("a customer of their own")
			}
		})
	}
}

// A person is asked about, and linked, whoever pays for the rest.
func TestSeatsOfAPersonAreConfirmed(t *testing.T) {
	for name, v := range map[string]Visitor{
		"for themselves":        {User: grace},
		"for an organization":   {User: "org_other", Person: grace},
		"with nobody who pays":  {Person: grace},
		"for one that has more": {User: ada, Person: grace},
	} {
		t.Run(name, func(t *testing.T) {
			x := newTeams(t, box.Options{})
			x.sync()
			x.deaf = true
			x.seats(x.buysSeats(adaVisits(), x.team, 2), grace)
			x.later(40 * day) // Polar has renewed it, and nobody has told
			if d := x.comes(v, "team"); !d.Allowed {
				t.Errorf("%+v", d)
			}
		})
	}
}

// The second team that invites somebody by e-mail counts, too, while a seat of the
// first is open.
func TestSecondTeamByEmail(t *testing.T) {
	for _, v := range []Visitor{
		{User: "usr_eve", Email: "eve@example.com", EmailVerified: true},
		{User: "org_eve", Person: "usr_eve", Email: "eve@example.com", EmailVerified: true},
	} {
		x := newTeams(t, box.Options{AllowMultiple: true})
		x.connect()
		x.sync()
		other := x.box.AddProduct(box.Product{Name: "Other", Interval: "month", Price: box.Price{
			Currency: "usd", Tiers: []box.SeatTier{{Min: 1, PerSeat: 1000}},
		}})
		x.g.plans[0].Products = append(x.g.plans[0].Products, other.ID)
		x.claims(x.invites(x.buysSeats(adaVisits(), x.team, 2), "eve@example.com"))
		if d := x.comes(v, "team"); !d.Allowed {
			t.Errorf("%+v: the first team: %+v", v, d)
		}
		x.claims(x.invites(x.buysSeats(Visitor{User: grace}, other, 2), "eve@example.com"))
		if d := x.comes(v, x.g.plans[0].Name); !d.Allowed {
			t.Errorf("%+v: the second team: %+v", v, d)
		}
	}
}

// What an organization buys must not end up with the person whose e-mail it was
// bought with.
func TestPartyBuysWithAnEmailOfItsOwn(t *testing.T) {
	s := newShop(t, box.Options{}).connect()
	if _, err := s.box.Buy(ada, "ada@example.com", s.pro.ID); err != nil {
		t.Fatal(err)
	}
	v := Visitor{User: "org_acme", Person: ada, Email: "ada@example.com", EmailVerified: true}
	if _, err := s.g.OpenCheckout(t.Context(), v, s.purchase(s.max.ID)); !errors.Is(err, ErrEmailTaken) {
		t.Errorf("the person's e-mail: %v", err)
	}
	p := s.purchase(s.max.ID)
	p.Email = "Ada@example.com"
	if _, err := s.g.OpenCheckout(t.Context(), v, p); !errors.Is(err, ErrEmailTaken) {
		t.Errorf("the person's e-mail, typed: %v", err)
	}
	p.Email = "billing@acme.example"
	c, err := s.g.OpenCheckout(t.Context(), v, p)
	if err != nil {
		t.Fatal(err)
	}
	held, _ := s.box.Checkout(c.ID)
	s.pays(held, p.Email)
	s.box.Settle()
	for user, plan := range map[string]string{"org_acme": "max", ada: "pro"} {
		s.is(user, plan, true, entitlement.ReasonActive)
		if a, err := s.g.Account(user); err != nil || a.OwnCustomer() == "" {
			t.Errorf("%s has lost control: %v", user, err)
		}
	}
}

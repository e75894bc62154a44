package gateway

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap/zaptest/observer"

	"github.com/caddy-polar/caddy-polar/cache"
	"github.com/caddy-polar/caddy-polar/entitlement"
	"github.com/caddy-polar/caddy-polar/polar"
	"github.com/caddy-polar/caddy-polar/polar/box"
	"github.com/caddy-polar/caddy-polar/polar/box/boxtest"
)

// teamShop is a shop that sells seats: by subscription for the plan team, and
// once for all for the plan crew.
type teamShop struct {
	*shop
	team, crew box.Product
}

func newTeamShop(t *testing.T, o box.Options, change ...func(*Config)) *teamShop {
	t.Helper()
	at := boxtest.Start(t, o)
	s := &teamShop{}
	perSeat := box.Price{Currency: "usd", Tiers: []box.SeatTier{{Min: 1, PerSeat: 1000}}}
	s.team = at.AddProduct(box.Product{Name: "Team", Interval: "month", Price: perSeat})
	s.crew = at.AddProduct(box.Product{Name: "Crew", Price: perSeat})
	sell := func(c *Config) {
		c.Plans = append(c.Plans,
			entitlement.Plan{Name: "team", Products: []string{s.team.ID}, Grace: entitlement.DefaultGrace()},
			entitlement.Plan{Name: "crew", Products: []string{s.crew.ID}, Grace: entitlement.DefaultGrace()})
	}
	s.shop = newShopAt(t, at, append([]func(*Config){sell}, change...)...)
	return s
}

// buys is a whole purchase of seats, up to where the buyer comes back. The
// e-mail is what they type at Polar.
func (s *teamShop) buys(v Visitor, product box.Product, seats int, email string) (c box.Checkout, purchase string) {
	s.t.Helper()
	p := s.purchase(product.ID)
	p.Seats = seats
	opened, err := s.g.OpenCheckout(s.t.Context(), v, p)
	if err != nil {
		s.t.Fatal(err)
	}
	c, _ = s.box.Checkout(opened.ID)
	s.pays(c, email)
	paid, _ := s.box.Checkout(opened.ID)
	for _, o := range s.box.Orders(paid.CustomerID) {
		if o.CheckoutID == c.ID {
			purchase = o.SubscriptionID
			if purchase == "" {
				purchase = o.ID
			}
		}
	}
	if purchase == "" {
		s.t.Fatal("nothing was bought")
	}
	return c, purchase
}

// ours is a team of Ada's, with Grace in it by her own id.
func (s *teamShop) ours(seats int) (purchase string, member box.Member) {
	s.t.Helper()
	c, purchase := s.buys(adaVisits(), s.team, seats, "")
	s.arrives(c, ArrivedOpen)
	customer, _ := s.box.CustomerByExternalID(ada)
	member, err := s.box.AddMember(box.Member{CustomerID: customer.ID, Email: "grace@example.com", ExternalID: grace, Name: "Grace"})
	if err != nil {
		s.t.Fatal(err)
	}
	s.box.Settle()
	return purchase, member
}

func (s *teamShop) invites(v Visitor, email, id string) *polar.Seat {
	s.t.Helper()
	seat, err := s.g.InviteToSeat(s.t.Context(), v, email, id)
	if err != nil {
		s.t.Fatal(err)
	}
	return seat
}

func (s *teamShop) claims(seat string) {
	s.t.Helper()
	token, ok := s.box.Invitation(seat)
	if !ok {
		s.t.Fatal("the seat is no invitation")
	}
	if _, err := s.box.ClaimSeat(token); err != nil {
		s.t.Fatal(err)
	}
	s.box.Settle()
}

func (s *teamShop) promotes(member box.Member, role string) {
	s.t.Helper()
	if _, err := s.box.UpdateMember(member.ID, box.MemberUpdate{Role: &role}); err != nil {
		s.t.Fatal(err)
	}
	s.box.Settle()
}

// holds describes the seats of a purchase at Polar.
func (s *teamShop) holds(purchase string) string {
	var seats []string
	for _, seat := range s.box.Seats(purchase) {
		seats = append(seats, strings.TrimSpace(seat.Status+" "+seat.Email))
	}
	return strings.Join(seats, ", ")
}

func (s *teamShop) refuses(err, want error) {
	s.t.Helper()
	if !errors.Is(err, want) {
		s.t.Errorf("%v, want %v", err, want)
	}
}

func graceVisits() Visitor { return Visitor{User: grace} }

func TestLifeOfATeam(t *testing.T) {
	s := newTeamShop(t, box.Options{})
	s.connect()
	ctx := t.Context()
	purchase, member := s.ours(3)
	s.is(ada, "team", true, entitlement.ReasonActive)
	s.is(grace, "team", false, entitlement.ReasonNoSubscription)
	if got := s.holds(purchase); got != "claimed ada@example.com" {
		t.Fatal(got)
	}

	for name, tt := range map[string]struct {
		v         Visitor
		email, id string
		want      error
	}{
		"oneself, as Polar knows them":     {Visitor{User: ada}, "ada@example.com", "", ErrSelfInvited},
		"oneself, as the token knows them": {Visitor{User: ada, Email: "ada@home.example"}, "Ada@Home.example", "", ErrSelfInvited},
		"no e-mail":                        {adaVisits(), "nonsense", "", ErrBadEmail},
		"an e-mail with a name":            {adaVisits(), "Ada <ada@example.com>", "", ErrBadEmail},
		"an e-mail with blanks":            {adaVisits(), " ada@example.com", "", ErrBadEmail},
		"another purchase":                 {adaVisits(), "x@example.com", s.pro.ID, ErrNoSeats},
		"a stranger":                       {Visitor{User: "usr_stranger"}, "x@example.com", "", ErrNoSeats},
		"a stranger who knows the id":      {Visitor{User: "usr_stranger"}, "x@example.com", purchase, ErrNoSeats},
		"a member without a seat":          {graceVisits(), "x@example.com", "", ErrNotManager},
	} {
		_, err := s.g.InviteToSeat(ctx, tt.v, tt.email, tt.id)
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := s.holds(purchase); got != "claimed ada@example.com" {
		t.Errorf("something was changed: %s", got)
	}

	s.box.Advance(time.Minute)
	seat := s.invites(adaVisits(), "grace@example.com", "")
	if seat.Status != "pending" || seat.Email != "grace@example.com" || seat.SubscriptionID != purchase || seat.ExpiresAt == nil {
		t.Errorf("%+v", seat)
	}
	_, err := s.g.InviteToSeat(ctx, adaVisits(), "Grace@example.com", purchase)
	s.refuses(err, polar.ErrSeatTaken)
	s.is(grace, "team", false, entitlement.ReasonNoSubscription)
	if _, err := s.g.ResendInvitation(ctx, ada, seat.ID); err != nil {
		t.Error(err)
	}
	s.claims(seat.ID)
	s.is(grace, "team", true, entitlement.ReasonActive)
	_, err = s.g.ResendInvitation(ctx, ada, seat.ID)
	s.refuses(err, polar.ErrConflict)
	_, err = s.g.InviteToSeat(ctx, adaVisits(), "grace@example.com", "")
	s.refuses(err, polar.ErrSeatTaken)

	list, err := s.g.Seats(ctx, ada, "")
	if err != nil || list.Total != 3 || list.Available != 1 || len(list.Seats.Seats) != 2 || list.Of.ID() != purchase || len(list.All) != 1 {
		t.Fatalf("%+v %v", list, err)
	}
	s.invites(adaVisits(), "linus@example.com", "")
	_, err = s.g.InviteToSeat(ctx, adaVisits(), "one@example.com", "")
	s.refuses(err, polar.ErrNoSeat)

	// Who only sits there has no say, of others' seats or their own.
	s.box.Advance(time.Minute)
	_, err = s.g.Seats(ctx, grace, "")
	s.refuses(err, ErrNotManager)
	_, err = s.g.Seats(ctx, grace, purchase)
	s.refuses(err, ErrNotManager)
	_, err = s.g.RevokeSeat(ctx, grace, seat.ID)
	s.refuses(err, ErrNotManager)

	// A billing manager has.
	s.promotes(member, "billing_manager")
	if list, err := s.g.Seats(ctx, grace, ""); err != nil || list.Available != 0 || len(list.Seats.Seats) != 3 {
		t.Errorf("%+v %v", list, err)
	}
	_, err = s.g.InviteToSeat(ctx, graceVisits(), "grace@example.com", "")
	s.refuses(err, ErrSelfInvited)

	// Nobody is told by webhook, and who is revoked is out at once.
	s.box.SetNetwork(box.Network{Lose: true})
	if gone, err := s.g.RevokeSeat(ctx, ada, seat.ID); err != nil || gone.Status != "revoked" {
		t.Errorf("%+v %v", gone, err)
	}
	s.is(grace, "team", false, entitlement.ReasonSeatRevoked)
	s.is(ada, "team", true, entitlement.ReasonActive)
	s.box.Advance(time.Minute)
	for _, id := range []string{"", "nonsense", strings.ToUpper(seat.ID), "../customers", strings.Repeat("-", 36), purchase} {
		_, err := s.g.RevokeSeat(ctx, ada, id)
		s.refuses(err, ErrUnknownSeat)
	}
	if again := s.invites(graceVisits(), "one@example.com", purchase); again.ID != seat.ID {
		t.Error("the free place was not given")
	}
}

// What the store believes of roles is old: Polar says no.
func TestFormerManagers(t *testing.T) {
	s := newTeamShop(t, box.Options{})
	s.connect()
	ctx := t.Context()
	purchase, member := s.ours(3)
	s.promotes(member, "billing_manager")
	if _, err := s.g.Seats(ctx, grace, ""); err != nil {
		t.Fatal(err)
	}
	s.box.SetNetwork(box.Network{Lose: true})
	before := s.holds(purchase)
	tries := func() {
		t.Helper()
		_, err := s.g.Seats(ctx, grace, "")
		s.refuses(err, ErrNotManager)
		_, err = s.g.InviteToSeat(ctx, graceVisits(), "x@example.com", "")
		s.refuses(err, ErrNotManager)
		_, err = s.g.RevokeSeat(ctx, grace, s.box.Seats(purchase)[0].ID)
		s.refuses(err, ErrNotManager)
	}
	s.promotes(member, "member")
	tries()
	if err := s.box.RemoveMember(member.ID); err != nil {
		t.Fatal(err)
	}
	tries()
	_, err := s.g.OpenPortal(ctx, grace, "")
	s.refuses(err, ErrNoCustomer)
	if got := s.holds(purchase); got != before {
		t.Errorf("%s, before %s", got, before)
	}
}

// Two teams know nothing of each other's seats.
func TestForeignSeats(t *testing.T) {
	s := newTeamShop(t, box.Options{})
	s.connect()
	ctx := t.Context()
	s.ours(2)
	c, theirs := s.buys(Visitor{User: "usr_eve", Email: "eve@example.com", EmailVerified: true}, s.team, 2, "")
	s.arrives(c, ArrivedOpen)
	_, err := s.g.RevokeSeat(ctx, ada, s.box.Seats(theirs)[0].ID)
	s.refuses(err, ErrUnknownSeat)
	_, err = s.g.ResendInvitation(ctx, ada, s.box.Seats(theirs)[0].ID)
	s.refuses(err, ErrUnknownSeat)
	_, err = s.g.RevokeSeat(ctx, "usr_stranger", s.box.Seats(theirs)[0].ID)
	s.refuses(err, ErrUnknownSeat)
	_, err = s.g.Seats(ctx, ada, theirs)
	s.refuses(err, ErrNoSeats)
	_, err = s.g.InviteToSeat(ctx, adaVisits(), "x@example.com", theirs)
	s.refuses(err, ErrNoSeats)
	if got := s.holds(theirs); got != "claimed eve@example.com" {
		t.Error(got)
	}
}

// Of several purchases, one must be named to change it. What others have made the
// user a manager of does not stand in the way of their own.
func TestSeveralPurchasesWithSeats(t *testing.T) {
	s := newTeamShop(t, box.Options{AllowMultiple: true})
	s.connect()
	ctx := t.Context()
	c, subscription := s.buys(adaVisits(), s.team, 2, "")
	s.arrives(c, ArrivedOpen)
	eve := Visitor{User: "usr_eve", Email: "eve@example.com", EmailVerified: true}
	_, theirs := s.buys(eve, s.team, 2, "")
	customer, _ := s.box.CustomerByExternalID(eve.User)
	member, err := s.box.AddMember(box.Member{CustomerID: customer.ID, Email: "ada@work.example", ExternalID: ada})
	if err != nil {
		t.Fatal(err)
	}
	s.promotes(member, "billing_manager")
	list, err := s.g.Seats(ctx, ada, "")
	if err != nil || list.Of.ID() != subscription || len(list.All) != 2 {
		t.Errorf("%+v %v", list, err)
	}
	if list, err = s.g.Seats(ctx, ada, theirs); err != nil || list.Of.ID() != theirs {
		t.Errorf("%+v %v", list, err)
	}
	if seat := s.invites(adaVisits(), "x@example.com", ""); seat.SubscriptionID != subscription {
		t.Error("the wrong purchase")
	}
	if seat := s.invites(adaVisits(), "x@example.com", theirs); seat.SubscriptionID != theirs {
		t.Error("the wrong purchase")
	} else if _, err := s.g.RevokeSeat(ctx, ada, seat.ID); err != nil {
		t.Error(err)
	}

	c, order := s.buys(adaVisits(), s.crew, 2, "")
	s.arrives(c, ArrivedOpen)
	s.is(ada, "crew", true, entitlement.ReasonPurchased)
	_, err = s.g.InviteToSeat(ctx, adaVisits(), "y@example.com", "")
	s.refuses(err, ErrSeveral)
	customer, _ = s.box.CustomerByExternalID(ada)
	if _, err := s.box.AddMember(box.Member{CustomerID: customer.ID, Email: "y@example.com", ExternalID: grace}); err != nil {
		t.Fatal(err)
	}
	s.box.Settle()
	seat := s.invites(adaVisits(), "y@example.com", order)
	if seat.OrderID != order {
		t.Error("the wrong purchase")
	}
	s.claims(seat.ID)
	s.is(grace, "crew", true, entitlement.ReasonPurchased)
	_, err = s.g.Seats(ctx, grace, order)
	s.refuses(err, ErrNotManager)
	if list, err := s.g.Seats(ctx, ada, order); err != nil || list.Available != 0 || list.Of.ProductID != s.crew.ID {
		t.Errorf("%+v %v", list, err)
	}
}

// Somebody typed Ada's e-mail: the seats are theirs, and nobody has control.
func TestSeatsUnderAnothersCustomer(t *testing.T) {
	s := newTeamShop(t, box.Options{AllowMultiple: true})
	ctx := t.Context()
	s.pays(s.opens(adaVisits(), s.pro.ID), "")
	const mallory = "usr_mallory"
	c, purchase := s.buys(Visitor{User: mallory}, s.team, 2, "ada@example.com")
	s.arrives(c, ArrivedOpen)
	s.is(mallory, "team", true, entitlement.ReasonActive)
	s.is(ada, "team", false, entitlement.ReasonNoSubscription)
	s.connect()
	s.box.Settle()
	s.is(mallory, "team", true, entitlement.ReasonActive)
	_, err := s.g.Seats(ctx, mallory, "")
	s.refuses(err, ErrNotLinked)
	_, err = s.g.InviteToSeat(ctx, Visitor{User: mallory}, "x@example.com", purchase)
	s.refuses(err, ErrNotLinked)
	_, err = s.g.RevokeSeat(ctx, mallory, s.box.Seats(purchase)[0].ID)
	s.refuses(err, ErrNotLinked)
	_, err = s.g.Seats(ctx, ada, "") // hers is shared now, and what is there she did not buy
	s.refuses(err, ErrNoSeats)
	if got := s.holds(purchase); got != "claimed ada@example.com" {
		t.Error(got)
	}
}

// Each customer has an owner among its members: that is no team yet.
func TestSeatsOfWhoHasNone(t *testing.T) {
	s := newTeamShop(t, box.Options{})
	s.connect()
	s.pays(s.opens(adaVisits(), s.pro.ID), "")
	s.box.Settle()
	customer, _ := s.box.CustomerByExternalID(ada)
	if err := s.g.learnMembers(t.Context(), polar.MemberFilter{CustomerID: customer.ID}); err != nil {
		t.Fatal(err)
	}
	if a, err := s.g.Account(ada); err != nil || len(a.Members) != 1 {
		t.Fatalf("%+v %v", a, err)
	}
	_, err := s.g.Seats(t.Context(), ada, "")
	s.refuses(err, ErrNoSeats)
}

func TestPaceOfSeats(t *testing.T) {
	s := newTeamShop(t, box.Options{})
	var tooMany *TooManyError
	for range looksPerMinute {
		if _, err := s.g.Seats(t.Context(), ada, ""); !errors.Is(err, ErrNoSeats) {
			t.Fatal(err)
		}
	}
	if _, err := s.g.Seats(t.Context(), ada, ""); !errors.As(err, &tooMany) {
		t.Error(err)
	}
	for range startsPerMinute {
		if _, err := s.g.InviteToSeat(t.Context(), adaVisits(), "x@example.com", ""); !errors.Is(err, ErrNoSeats) {
			t.Fatal(err)
		}
	}
	if _, err := s.g.RevokeSeat(t.Context(), ada, s.pro.ID); !errors.As(err, &tooMany) {
		t.Error(err)
	}
}

// The buyer's seat is given once, whatever happens to it.
func TestBuyersSeat(t *testing.T) {
	for _, webhooks := range []bool{true, false} {
		t.Run(fmt.Sprint("webhooks ", webhooks), func(t *testing.T) {
			s := newTeamShop(t, box.Options{})
			if webhooks {
				s.connect()
			}
			c, purchase := s.buys(adaVisits(), s.team, 2, "")
			s.arrives(c, ArrivedOpen)
			s.box.Settle()
			s.arrives(c, ArrivedOpen)
			if got := s.holds(purchase); got != "claimed ada@example.com" {
				t.Fatal(got)
			}
			if _, err := s.g.RevokeSeat(t.Context(), ada, s.box.Seats(purchase)[0].ID); err != nil {
				t.Fatal(err)
			}
			s.arrives(c, ArrivedNothing)
			s.is(ada, "team", false, entitlement.ReasonSeatRevoked)
			// Not even when the place is somebody else's, so that nothing tells of it.
			s.claims(s.invites(adaVisits(), "linus@example.com", "").ID)
			s.arrives(c, ArrivedNothing)
			if got := s.holds(purchase); got != "claimed linus@example.com" {
				t.Error(got)
			}
		})
	}
}

func TestBuyersSeatIsNotGiven(t *testing.T) {
	noRead := []string{"checkouts:write", "subscriptions:read", "orders:read", "customers:read", "customers:write", "products:read"}
	for name, tt := range map[string]struct {
		scopes []string
		off    bool
		meddle func(s *teamShop, purchase string)
		seats  string
	}{
		"switched off":     {off: true},
		"no scope at all":  {scopes: noRead},
		"scope to read":    {scopes: append([]string{"customer_seats:read", "members:read"}, noRead...)},
		"no scope: member": {scopes: append([]string{"customer_seats:write"}, noRead...), seats: "claimed ada@example.com"},
		"taken back before": {meddle: func(s *teamShop, purchase string) {
			seat, err := s.box.AssignSeat(box.SeatAssignment{SubscriptionID: purchase, ExternalMemberID: ada, Immediate: true})
			if err == nil {
				_, err = s.box.RevokeSeat(seat.ID)
			}
			if err != nil {
				s.t.Fatal(err)
			}
		}, seats: "revoked"},
		"invited before": {meddle: func(s *teamShop, purchase string) {
			if _, err := s.box.AssignSeat(box.SeatAssignment{SubscriptionID: purchase, Email: "ada@example.com"}); err != nil {
				s.t.Fatal(err)
			}
		}, seats: "pending ada@example.com"},
		"had before, and no other is free": {meddle: func(s *teamShop, purchase string) {
			for _, who := range []box.SeatAssignment{{ExternalMemberID: ada, Immediate: true}, {Email: "linus@example.com"}} {
				who.SubscriptionID = purchase
				if _, err := s.box.AssignSeat(who); err != nil {
					s.t.Fatal(err)
				}
			}
		}, seats: "claimed ada@example.com, pending linus@example.com"},
		"all given away": {meddle: func(s *teamShop, purchase string) {
			for i := range 2 {
				if _, err := s.box.AssignSeat(box.SeatAssignment{SubscriptionID: purchase, Email: fmt.Sprintf("%d@example.com", i)}); err != nil {
					s.t.Fatal(err)
				}
			}
		}, seats: "pending 0@example.com, pending 1@example.com"},
		"others invited before": {meddle: func(s *teamShop, purchase string) {
			if _, err := s.box.AssignSeat(box.SeatAssignment{SubscriptionID: purchase, Email: "linus@example.com"}); err != nil {
				s.t.Fatal(err)
			}
		}, seats: "pending linus@example.com, claimed ada@example.com"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newTeamShop(t, box.Options{}, func(c *Config) {
				if tt.off {
					c.Sales.NoBuyerSeat = []string{"team"}
				}
			})
			if tt.scopes != nil {
				c := s.config
				c.AccessToken, c.Store = s.box.NewToken(tt.scopes...), cache.New(filepath.Join(t.TempDir(), "other.db"))
				g, err := New(c)
				if err != nil {
					t.Fatal(err)
				}
				s.g.Close()
				s.g = g
				t.Cleanup(func() { _ = c.Store.Close() })
			}
			c, purchase := s.buys(adaVisits(), s.team, 2, "")
			if tt.meddle != nil {
				tt.meddle(s, purchase)
			}
			want := ArrivedNothing
			if strings.Contains(tt.seats, "claimed ada") {
				want = ArrivedOpen
			}
			s.sleeps = func(time.Duration) error { return nil }
			s.arrives(c, want)
			s.arrives(c, want)
			if got := s.holds(purchase); got != tt.seats {
				t.Errorf("%q, want %q", got, tt.seats)
			}
			lacks := s.logs.FilterMessageSnippet("lacks a scope").Filter(func(e observer.LoggedEntry) bool {
				return strings.Contains(fmt.Sprint(e.ContextMap()["what"]), "customer_seats:write")
			}).Len()
			if warned := s.logs.FilterMessageSnippet("was given none").Len(); (warned == 1) != (name == "all given away") {
				t.Errorf("%d warnings of no seat", warned)
			}
			if (lacks == 1) != (tt.scopes != nil && tt.seats == "") {
				t.Errorf("%d warnings", lacks)
			}
		})
	}
}

// Polar's replica is behind: nothing of it is there yet, or the seat is not.
func TestBuyersSeatBehindTheReplica(t *testing.T) {
	s := newTeamShop(t, box.Options{})
	p := s.purchase(s.team.ID)
	p.Seats = 2
	opened, err := s.g.OpenCheckout(t.Context(), adaVisits(), p)
	if err != nil {
		t.Fatal(err)
	}
	c, _ := s.box.Checkout(opened.ID)
	s.box.Advance(2 * time.Minute)
	s.box.SetTrouble(box.Trouble{Lag: time.Minute})
	s.pays(c, "")
	waited := 0
	s.sleeps = func(time.Duration) error {
		if waited++; waited == 3 {
			s.box.SetTrouble(box.Trouble{})
		}
		return nil
	}
	s.arrives(c, ArrivedOpen)
	if waited != 3 {
		t.Errorf("waited %d times", waited)
	}
}

// Tabs of two processes at once: one of them gives the seat.
func TestBuyersSeatAtOnce(t *testing.T) {
	s := newTeamShop(t, box.Options{})
	c, bought := s.buys(adaVisits(), s.team, 5, "")
	back, id := s.arrival(c)
	paid, err := s.g.client.GetCheckout(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	var tabs sync.WaitGroup
	for range 8 {
		tabs.Go(func() { // as if each had a flight of its own
			p := &purchase{user: back.User, checkout: id, paid: &paid.Item}
			p.addTeam(polar.SeatFilter{SubscriptionID: bought})
			if done, err := s.g.seatBuyer(context.WithoutCancel(t.Context()), p); !done || err != nil {
				t.Error(done, err)
			}
		})
		tabs.Go(func() { s.g.Arrive(t.Context(), back, id) })
	}
	tabs.Wait()
	if got := s.holds(bought); got != "claimed ada@example.com" {
		t.Error(got)
	}
	s.arrives(c, ArrivedOpen)
}

// The plan was open by somebody else's team: the seat is owed all the same.
func TestBuyersSeatBesidesAnothers(t *testing.T) {
	s := newTeamShop(t, box.Options{})
	s.connect()
	s.ours(3)
	p := s.purchase(s.team.ID)
	p.Seats = 2
	opened, err := s.g.OpenCheckout(t.Context(), Visitor{User: grace, Email: "grace@example.com", EmailVerified: true}, p)
	if err != nil {
		t.Fatal(err)
	}
	c, _ := s.box.Checkout(opened.ID)
	s.claims(s.invites(adaVisits(), "grace@example.com", "").ID)
	s.is(grace, "team", true, entitlement.ReasonActive)
	s.pays(c, "")
	paid, _ := s.box.Checkout(c.ID)
	purchase := s.box.Subscriptions(paid.CustomerID)[0].ID
	s.arrives(c, ArrivedOpen)
	if got := s.holds(purchase); got != "claimed grace@example.com" {
		t.Error(got)
	}
}

func TestPortalOfATeam(t *testing.T) {
	s := newTeamShop(t, box.Options{})
	s.connect()
	ctx := t.Context()
	_, member := s.ours(3)
	portalOf := func(user string) string {
		t.Helper()
		s.box.Advance(time.Minute) // the pace
		address, err := s.g.OpenPortal(ctx, user, "")
		if err != nil {
			t.Fatal(err)
		}
		_, token, _ := strings.Cut(string(address), "customer_session_token=")
		who, err := s.g.client.Portal(polar.Secret(token)).GetUser(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return who.Item.Email + " " + who.Item.Role
	}
	if got := portalOf(ada); got != "ada@example.com owner" {
		t.Error(got)
	}
	if got := portalOf(grace); got != "grace@example.com member" {
		t.Error(got)
	}
	// In a second team, which one is not known; the one that she manages counts.
	eve := Visitor{User: "usr_eve", Email: "eve@example.com", EmailVerified: true}
	s.buys(eve, s.team, 2, "")
	customer, _ := s.box.CustomerByExternalID(eve.User)
	if _, err := s.box.AddMember(box.Member{CustomerID: customer.ID, Email: "grace@work.example", ExternalID: grace}); err != nil {
		t.Fatal(err)
	}
	s.box.Settle()
	_, err := s.g.OpenPortal(ctx, grace, "")
	s.refuses(err, ErrSeveralTeams)
	s.promotes(member, "billing_manager")
	if got := portalOf(grace); got != "grace@example.com billing_manager" {
		t.Error(got)
	}
	if _, err := s.g.OpenPortal(ctx, "usr_stranger", ""); !errors.Is(err, ErrNoCustomer) {
		t.Error(err)
	}
}

// A team whose customer is the user's by a link: Polar has no external id for it,
// so the owner is found by asking who there is.
func TestLinkedTeam(t *testing.T) {
	for _, webhooks := range []bool{true, false} {
		s := newTeamShop(t, box.Options{})
		if webhooks {
			s.connect()
		}
		c, err := s.box.CreateCheckout(box.Checkout{ProductIDs: []string{s.team.ID}, CustomerEmail: "ada@example.com", Seats: 2, AllowTrial: true})
		if err != nil {
			t.Fatal(err)
		}
		s.pays(c, "")
		s.box.Settle()
		paid, _ := s.box.Checkout(c.ID)
		if err := s.g.apply(t.Context(), &cache.Facts{Links: []cache.Link{{Customer: paid.CustomerID, User: ada}}}); err != nil {
			t.Fatal(err)
		}
		if err := s.g.LookUp(t.Context(), ada); err != nil {
			t.Fatal(err)
		}
		if webhooks == false { // nothing was heard of the customer but the link
			found, err := s.g.client.GetCustomer(t.Context(), paid.CustomerID)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.g.learnCustomer(t.Context(), found); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := s.g.OpenPortal(t.Context(), ada, ""); err != nil {
			t.Errorf("webhooks %v: %v", webhooks, err)
		}
		if list, err := s.g.Seats(t.Context(), ada, ""); err != nil || list.Total != 2 {
			t.Errorf("webhooks %v: %+v %v", webhooks, list, err)
		}
	}
}

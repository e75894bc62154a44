package gateway

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/caddy-polar/caddy-polar/entitlement"
	"github.com/caddy-polar/caddy-polar/polar/box"
	"github.com/caddy-polar/caddy-polar/polar/box/boxtest"
)

// teams is a shop that sells seats: by the month, with a trial, and once for
// ever. It sells a few things without seats as well.
type teams struct {
	*shop
	team, trialTeam, onceTeam box.Product
	benefit                   box.Benefit
	deaf                      bool // no webhook arrives: whatever happens is read by a sync
}

const (
	linus = "usr_linus"
	mary  = "usr_mary"
)

func newTeams(t testing.TB, o box.Options, change ...func(*Config)) *teams {
	t.Helper()
	at := boxtest.Start(t, o)
	x := &teams{}
	x.benefit = at.AddBenefit(box.Benefit{Type: "feature_flag", Description: "suite"})
	product := func(p box.Product) box.Product {
		p.Price, p.BenefitIDs = box.Price{Currency: "usd", Tiers: []box.SeatTier{{Min: 1, PerSeat: 1000}}}, []string{x.benefit.ID}
		return at.AddProduct(p)
	}
	x.team = product(box.Product{Name: "Team", Interval: "month"})
	x.trialTeam = product(box.Product{Name: "Trial team", Interval: "month", TrialInterval: "day", TrialCount: 14})
	x.onceTeam = product(box.Product{Name: "Team for ever"})
	x.shop = newShopAt(t, at, append([]func(*Config){func(c *Config) {
		c.LinkEmail, c.Sales.Several = true, o.AllowMultiple
		c.Plans = append(c.Plans,
			entitlement.Plan{Name: "team", Products: []string{x.team.ID, x.trialTeam.ID, x.onceTeam.ID}, Grace: entitlement.DefaultGrace()},
			entitlement.Plan{Name: "suite", Benefits: []string{x.benefit.ID}, Grace: entitlement.DefaultGrace()})
	}}, change...)...)
	return x
}

// teamLives lets a life be heard in three ways, which must come to the same: by
// webhooks, by webhooks that come twice, late and in any order, and by nothing
// but syncs.
func teamLives(t *testing.T, o box.Options, live func(*teams), change ...func(*Config)) {
	t.Helper()
	t.Run("webhooks", func(t *testing.T) {
		x := newTeams(t, o, change...)
		x.connect()
		x.sync() // until then strangers can be members
		live(x)
	})
	t.Run("shuffled webhooks", func(t *testing.T) {
		x := newTeams(t, o, change...)
		x.connect()
		x.sync()
		x.box.SetNetwork(box.Network{Double: true, Shuffle: true, Delay: 10 * time.Second})
		live(x)
	})
	t.Run("syncs", func(t *testing.T) {
		x := newTeams(t, o, change...)
		x.deaf = true
		live(x)
	})
}

// heard lets the gateway hear what has happened.
func (x *teams) heard() {
	x.t.Helper()
	x.box.Settle()
	if x.deaf {
		x.sync()
	}
}

func (x *teams) later(d time.Duration) {
	x.t.Helper()
	x.box.Advance(d)
	x.heard()
}

// buysSeats is a purchase by our checkout, whose buyer gets no seat with it.
func (x *teams) buysSeats(v Visitor, p box.Product, seats int) (parent string) {
	x.t.Helper()
	purchase := x.purchase(p.ID)
	purchase.Seats = seats
	c, err := x.g.OpenCheckout(x.t.Context(), v, purchase)
	if err != nil {
		x.t.Fatal(err)
	}
	paid := must(x.box.Confirm(c.ID, box.Payment{Email: v.User + "@example.com"}))
	x.heard()
	if paid.SubscriptionID != "" {
		return paid.SubscriptionID
	}
	orders := x.box.Orders(paid.CustomerID)
	return orders[len(orders)-1].ID
}

func (x *teams) seatOf(parent string) (a box.SeatAssignment, customer string) {
	x.t.Helper()
	if s, ok := x.box.Subscription(parent); ok {
		return box.SeatAssignment{SubscriptionID: parent}, s.CustomerID
	}
	for _, c := range x.box.AllCustomers() {
		for _, o := range x.box.Orders(c.ID) {
			if o.ID == parent {
				return box.SeatAssignment{OrderID: parent}, c.ID
			}
		}
	}
	x.t.Fatalf("no purchase %s", parent)
	return a, ""
}

// member is a user in a team, made if need be.
func (x *teams) member(customer, user string) box.Member {
	x.t.Helper()
	for _, m := range x.box.Members(customer) {
		if m.ExternalID == user {
			return m
		}
	}
	return must(x.box.AddMember(box.Member{CustomerID: customer, Email: user + "@example.com", ExternalID: user}))
}

// seats gives a user a seat, which is claimed at once.
func (x *teams) seats(parent, user string) box.Seat {
	x.t.Helper()
	a, customer := x.seatOf(parent)
	a.MemberID, a.Immediate = x.member(customer, user).ID, true
	seat := must(x.box.AssignSeat(a))
	x.heard()
	return seat
}

// invites sends an invitation to an address.
func (x *teams) invites(parent, email string) box.Seat {
	x.t.Helper()
	a, _ := x.seatOf(parent)
	a.Email = email
	seat := must(x.box.AssignSeat(a))
	x.heard()
	return seat
}

func (x *teams) claims(s box.Seat) {
	x.t.Helper()
	token, ok := x.box.Invitation(s.ID)
	if !ok {
		x.t.Fatal("no invitation")
	}
	must(x.box.ClaimSeat(token))
	x.heard()
}

func (x *teams) unseats(s box.Seat) {
	x.t.Helper()
	must(x.box.RevokeSeat(s.ID))
	x.heard()
}

// all wants one answer for several users.
func (x *teams) all(plan string, allowed bool, reason entitlement.Reason, users ...string) {
	x.t.Helper()
	for _, user := range users {
		x.is(user, plan, allowed, reason)
	}
}

// refusedWith wants a refusal with its status code.
func (x *teams) refusedWith(user, plan string, reason entitlement.Reason, status int, next entitlement.NextStep) {
	x.t.Helper()
	if d := x.decide(user, plan); d.Allowed || d.Reason != reason || d.HTTPStatus != status || d.NextStep != next {
		x.t.Errorf("%s on %s: %v %s %d %s, want %s %d %s", user, plan, d.Allowed, d.Reason, d.HTTPStatus, d.NextStep, reason, status, next)
	}
}

// failsToPay lets the next renewal fail.
func (x *teams) failsToPay(sub string) {
	x.t.Helper()
	s, _ := x.box.Subscription(sub)
	if err := x.box.SetCard(s.CustomerID, false); err != nil {
		x.t.Fatal(err)
	}
	x.box.AdvanceTo(s.CurrentPeriodEnd.Add(time.Hour))
	x.heard()
	if s, _ = x.box.Subscription(sub); s.Status != "past_due" {
		x.t.Fatalf("status %s", s.Status)
	}
}

func (x *teams) paysAgain(sub string) {
	x.t.Helper()
	s, _ := x.box.Subscription(sub)
	if err := x.box.UpdateCard(s.CustomerID, true); err != nil {
		x.t.Fatal(err)
	}
	x.heard()
	if s, _ = x.box.Subscription(sub); s.Status != "active" {
		x.t.Fatalf("status %s", s.Status)
	}
}

// noneSeated makes sure that Polar has taken all seats back.
func (x *teams) noneSeated(parent string) {
	x.t.Helper()
	for _, s := range x.box.Seats(parent) {
		if s.Status != "revoked" {
			x.t.Fatalf("a seat is %s", s.Status)
		}
	}
}

func TestTeamLife(t *testing.T) {
	teamLives(t, box.Options{}, func(x *teams) {
		sub := x.buysSeats(adaVisits(), x.team, 5)
		x.all("team", false, entitlement.ReasonNoSubscription, ada, grace) // who buys gets nothing by that
		// By the id of the member.
		invited := must(x.box.AssignSeat(box.SeatAssignment{
			SubscriptionID: sub, MemberID: x.member(x.customer(ada).ID, grace).ID,
		}))
		x.heard()
		x.is(grace, "team", false, entitlement.ReasonNoSubscription)
		x.claims(invited)
		x.is(grace, "team", true, entitlement.ReasonActive)
		x.is(ada, "team", false, entitlement.ReasonNoSubscription)
		x.seats(sub, ada)
		x.is(ada, "team", true, entitlement.ReasonActive)

		// By an address.
		seat := x.invites(sub, "Linus@Acme.example")
		x.lets(verified(linus, "linus@acme.example"), "team", false)
		x.claims(seat)
		x.lets(Visitor{User: "usr_mallory", Email: "linus@acme.example"}, "team", false)
		x.lets(verified(linus, "linus@acme.example"), "team", true)
		x.lets(verified("usr_mallory", "linus@acme.example"), "team", false)

		x.unseats(seat)
		x.refusedWith(linus, "team", entitlement.ReasonSeatRevoked, http.StatusForbidden, entitlement.StepContact)
		x.all("team", true, entitlement.ReasonActive, ada, grace)
		if again := x.seats(sub, mary); again.ID != seat.ID {
			x.t.Errorf("seat %s, not %s", again.ID, seat.ID)
		}
		x.is(mary, "team", true, entitlement.ReasonActive)
		x.is(linus, "team", false, entitlement.ReasonNoSubscription) // the seat is another's

		x.failsToPay(sub)
		x.noneSeated(sub)
		x.all("team", true, entitlement.ReasonPastDueGrace, ada, grace, mary)
		x.is(linus, "team", false, entitlement.ReasonNoSubscription)
		x.later(7 * day)
		x.refusedWith(grace, "team", entitlement.ReasonPastDue, http.StatusPaymentRequired, entitlement.StepContact)
		x.refusedWith(ada, "team", entitlement.ReasonPastDue, http.StatusPaymentRequired, entitlement.StepPortal)
		x.paysAgain(sub)
		x.noneSeated(sub)
		x.refusedWith(grace, "team", entitlement.ReasonSeatRevoked, http.StatusForbidden, entitlement.StepContact)
		x.advised(grace, "assign again")
		x.seats(sub, grace)
		x.is(grace, "team", true, entitlement.ReasonActive)
		x.refusedWith(mary, "team", entitlement.ReasonSeatRevoked, http.StatusForbidden, entitlement.StepContact)

		must(x.box.Cancel(sub, "", ""))
		x.heard()
		x.is(grace, "team", true, entitlement.ReasonCanceling)
		x.later(40 * day)
		x.is(grace, "team", false, entitlement.ReasonCanceled)
	})
}

// advised wants the explanation of a refusal to say what to do.
func (x *teams) advised(user, want string) {
	x.t.Helper()
	e, err := x.g.Explain(user, time.Time{}, "team")
	if err != nil {
		x.t.Fatal(err)
	}
	for _, w := range e.Plans[0].Facts {
		if w.Decides && len(w.Advice) >= len(want) && w.Advice[:len(want)] == want {
			return
		}
	}
	x.t.Errorf("%s is not advised to %s: %+v", user, want, e.Plans[0].Facts)
}

// Polar's own grace decides, where the operator says so.
func TestTeamWithPolarsGrace(t *testing.T) {
	byPolar := func(c *Config) {
		for i := range c.Plans {
			c.Plans[i].Grace.PastDue = entitlement.PastDueGrace{Polar: true}
		}
	}
	for days, in := range map[int]bool{0: false, 7: true} {
		t.Run(fmt.Sprint(days, " days"), func(t *testing.T) {
			teamLives(t, box.Options{GraceDays: days}, func(x *teams) {
				sub := x.buysSeats(adaVisits(), x.team, 2)
				x.seats(sub, grace)
				x.later(time.Minute)
				x.is(grace, "suite", true, entitlement.ReasonActive)
				x.failsToPay(sub)
				if in {
					x.all("team", true, entitlement.ReasonPastDueGrace, grace)
					x.all("suite", true, entitlement.ReasonPastDueGrace, grace)
					x.later(8 * day) // the attempt of the seventh
				}
				x.noneSeated(sub)
				for _, plan := range []string{"team", "suite"} {
					if d := x.decide(grace, plan); d.Allowed {
						x.t.Errorf("%s is open: %s", plan, d.Reason)
					}
				}
				x.paysAgain(sub)
				x.refusedWith(grace, "team", entitlement.ReasonSeatRevoked, http.StatusForbidden, entitlement.StepContact)
				x.is(grace, "suite", false, entitlement.ReasonBenefitRevoked)
				x.seats(sub, grace)
				x.later(time.Minute)
				x.all("team", true, entitlement.ReasonActive, grace)
				x.all("suite", true, entitlement.ReasonActive, grace)
			}, byPolar)
		})
	}
}

func TestTeamPauses(t *testing.T) {
	teamLives(t, box.Options{}, func(x *teams) {
		sub := x.buysSeats(adaVisits(), x.team, 2)
		x.seats(sub, grace)
		must(x.box.Pause(sub, nil))
		x.heard()
		x.is(grace, "team", true, entitlement.ReasonPausing)
		x.later(32 * day)
		x.noneSeated(sub)
		x.refusedWith(grace, "team", entitlement.ReasonPaused, http.StatusPaymentRequired, entitlement.StepContact)
		must(x.box.Resume(sub))
		x.heard()
		x.refusedWith(grace, "team", entitlement.ReasonSeatRevoked, http.StatusForbidden, entitlement.StepContact)
		x.seats(sub, grace)
		x.is(grace, "team", true, entitlement.ReasonActive)
		must(x.box.Revoke(sub))
		x.heard()
		x.is(grace, "team", false, entitlement.ReasonCanceled)
	})
}

func TestTeamTrial(t *testing.T) {
	teamLives(t, box.Options{}, func(x *teams) {
		sub := x.buysSeats(adaVisits(), x.trialTeam, 2)
		x.seats(sub, grace)
		x.all("team", true, entitlement.ReasonTrialing, grace)
		x.is(ada, "team", false, entitlement.ReasonNoSubscription) // also not by the order of 0
		x.failsToPay(sub)
		x.is(grace, "team", true, entitlement.ReasonPastDueGrace)
		x.later(2 * day)
		x.is(grace, "team", false, entitlement.ReasonPastDue)
		x.paysAgain(sub)
		x.is(grace, "team", false, entitlement.ReasonSeatRevoked)
	}, func(c *Config) {
		for i := range c.Plans {
			c.Plans[i].Grace.TrialPastDue.For = 2 * day
		}
	})
}

func TestNumberOfSeatsChanges(t *testing.T) {
	teamLives(t, box.Options{}, func(x *teams) {
		sub := x.buysSeats(adaVisits(), x.team, 2)
		first := x.seats(sub, grace)
		x.seats(sub, mary)
		if _, err := x.box.AssignSeat(box.SeatAssignment{SubscriptionID: sub, Email: "linus@acme.example"}); err == nil {
			x.t.Error("a third of two seats")
		}
		must(x.box.ChangeSeats(sub, 3, "prorate"))
		x.heard()
		x.claims(x.invites(sub, "linus@acme.example"))
		x.lets(verified(linus, "linus@acme.example"), "team", true)
		x.unseats(first)
		must(x.box.ChangeSeats(sub, 2, "prorate"))
		x.heard()
		x.is(grace, "team", false, entitlement.ReasonSeatRevoked)
		x.all("team", true, entitlement.ReasonActive, mary, linus)
		must(x.box.ChangeSeats(sub, 9, "next_period"))
		x.later(32 * day)
		x.all("team", true, entitlement.ReasonActive, mary, linus)
	})
}

// A seat of what was bought once is open for as long as that is paid.
func TestSeatsOfOrder(t *testing.T) {
	for name, tt := range map[string]struct {
		happens func(x *teams, order string)
		reason  entitlement.Reason
	}{
		"nothing":         {func(*teams, string) {}, entitlement.ReasonPurchased},
		"a little back":   {func(x *teams, o string) { must(x.box.Refund(box.Refund{OrderID: o, Amount: 100})) }, entitlement.ReasonPurchased},
		"all back":        {func(x *teams, o string) { must(x.box.Refund(box.Refund{OrderID: o})) }, entitlement.ReasonRefunded},
		"all and revoked": {func(x *teams, o string) { must(x.box.Refund(box.Refund{OrderID: o, RevokeBenefits: true})) }, entitlement.ReasonRefunded},
		"a little and revoked": {func(x *teams, o string) {
			must(x.box.Refund(box.Refund{OrderID: o, Amount: 100, RevokeBenefits: true}))
		}, entitlement.ReasonRefunded},
		"prevented dispute": {func(x *teams, o string) { must(x.box.PreventDispute(o)) }, entitlement.ReasonRefunded},
		"customer deleted":  {func(x *teams, _ string) { mustDo(x.box.DeleteCustomer(x.customer(ada).ID)) }, entitlement.ReasonCustomerDeleted},
	} {
		t.Run(name, func(t *testing.T) {
			teamLives(t, box.Options{}, func(x *teams) {
				order := x.buysSeats(adaVisits(), x.onceTeam, 2)
				x.all("team", false, entitlement.ReasonNoSubscription, ada, grace)
				x.seats(order, grace)
				x.is(grace, "team", true, entitlement.ReasonPurchased)
				x.later(time.Minute)
				x.is(grace, "suite", true, entitlement.ReasonPurchased)
				tt.happens(x, order)
				x.later(2 * time.Hour)
				for _, plan := range []string{"team", "suite"} {
					x.is(grace, plan, tt.reason == entitlement.ReasonPurchased, tt.reason)
				}
			})
		})
	}
}

func mustDo(err error) {
	if err != nil {
		panic(err)
	}
}

// A dispute has no event: a sync or a glance tells of it.
func TestDisputedSeatsOfOrder(t *testing.T) {
	for name, read := range map[string]func(*teams){
		"sync": func(x *teams) { x.sync() }, "glance": func(x *teams) { x.g.glance(x.t.Context()) },
	} {
		t.Run(name, func(t *testing.T) {
			x := newTeams(t, box.Options{})
			x.connect()
			order := x.buysSeats(adaVisits(), x.onceTeam, 2)
			x.seats(order, grace)
			x.sync()
			for i, won := range []bool{true, false} {
				d := must(x.box.OpenDispute(order))
				read(x)
				x.is(grace, "team", true, entitlement.ReasonPurchased)
				mustDo(x.box.SettleDispute(d.ID, won))
				read(x)
				x.is(grace, "team", i == 0, []entitlement.Reason{entitlement.ReasonPurchased, entitlement.ReasonDisputed}[i])
			}
			x.refusedWith(grace, "team", entitlement.ReasonDisputed, http.StatusForbidden, entitlement.StepContact)
		})
	}
}

func TestMemberLeaves(t *testing.T) {
	teamLives(t, box.Options{}, func(x *teams) {
		sub := x.buysSeats(adaVisits(), x.team, 3)
		x.seats(sub, grace)
		x.seats(sub, mary)
		mustDo(x.box.RemoveMember(x.member(x.customer(ada).ID, grace).ID))
		x.later(2 * time.Hour)
		x.is(grace, "team", false, entitlement.ReasonSeatRevoked)
		x.is(grace, "suite", false, entitlement.ReasonBenefitRevoked)
		x.all("team", true, entitlement.ReasonActive, mary)
		x.failsToPay(sub) // does not bring back who has left
		x.is(mary, "team", true, entitlement.ReasonPastDueGrace)
		for _, plan := range []string{"team", "suite"} {
			if d := x.decide(grace, plan); d.Allowed {
				x.t.Errorf("who has left is let into %s: %s", plan, d.Reason)
			}
		}
		x.paysAgain(sub)
		x.seats(sub, grace) // as a new member
		x.is(grace, "team", true, entitlement.ReasonActive)
	})
}

// A deleted customer's seats open nothing, also once there is a new customer
// with the same external id; what that one buys does.
func TestTeamIsDeleted(t *testing.T) {
	teamLives(t, box.Options{}, func(x *teams) {
		old := x.buysSeats(adaVisits(), x.team, 3)
		x.seats(old, grace)
		x.seats(old, ada)
		mustDo(x.box.DeleteCustomer(x.customer(ada).ID))
		x.later(2 * time.Hour)
		x.all("team", false, entitlement.ReasonCustomerDeleted, ada, grace)
		x.all("suite", false, entitlement.ReasonCustomerDeleted, ada, grace)
		sub := x.buysSeats(adaVisits(), x.team, 3)
		x.all("team", false, entitlement.ReasonCustomerDeleted, ada, grace)
		x.seats(sub, grace)
		x.is(grace, "team", true, entitlement.ReasonActive)
		x.is(ada, "team", false, entitlement.ReasonCustomerDeleted)
		x.seats(sub, ada)
		x.is(ada, "team", true, entitlement.ReasonActive)
	})
}

// Whoever runs a team, each seat stays its holder's.
func TestTeamIsHandedOver(t *testing.T) {
	teamLives(t, box.Options{}, func(x *teams) {
		sub := x.buysSeats(adaVisits(), x.team, 4)
		x.seats(sub, ada)
		x.seats(sub, grace)
		x.claims(x.invites(sub, "linus@acme.example"))
		x.lets(verified(linus, "linus@acme.example"), "team", true)
		customer := x.customer(ada).ID
		for _, m := range x.box.Members(customer) {
			if m.ExternalID == ada {
				continue
			}
			must(x.box.UpdateMember(m.ID, box.MemberUpdate{Role: new("owner")}))
			x.later(time.Minute)
			for _, plan := range []string{"team", "suite"} {
				x.all(plan, true, entitlement.ReasonActive, ada, grace, linus)
			}
		}
		x.unseats(x.box.Seats(sub)[0])
		x.later(time.Minute)
		x.is(ada, "team", false, entitlement.ReasonSeatRevoked)
		x.is(ada, "suite", false, entitlement.ReasonBenefitRevoked)
		for _, plan := range []string{"team", "suite"} {
			x.all(plan, true, entitlement.ReasonActive, grace, linus)
		}
	})
}

func TestTwoTeamsOfOnePerson(t *testing.T) {
	teamLives(t, box.Options{}, func(x *teams) {
		first := x.buysSeats(adaVisits(), x.team, 2)
		second := x.buysSeats(verified(mary, "mary@example.com"), x.trialTeam, 2)
		one := x.seats(first, grace)
		x.seats(second, grace)
		x.later(time.Minute)
		x.is(grace, "team", true, entitlement.ReasonActive) // the longer one
		x.unseats(one)
		x.is(grace, "team", true, entitlement.ReasonTrialing)
		x.is(grace, "suite", true, entitlement.ReasonTrialing)
		must(x.box.Revoke(second))
		x.heard()
		x.is(grace, "team", false, entitlement.ReasonCanceled) // which ended last
		x.seats(first, grace)
		x.is(grace, "team", true, entitlement.ReasonActive)
	})
}

// Somebody buys by our checkout and types another's e-mail: Polar takes the other
// for the buyer. The seat of the team's owner is the real buyer's.
func TestTeamUnderAnothersCustomer(t *testing.T) {
	teamLives(t, box.Options{AllowMultiple: true}, func(x *teams) {
		x.pays(x.opens(adaVisits(), x.pro.ID), "")
		x.heard()
		purchase := x.purchase(x.team.ID)
		purchase.Seats = 3
		c, err := x.g.OpenCheckout(x.t.Context(), Visitor{User: grace}, purchase)
		if err != nil {
			x.t.Fatal(err)
		}
		paid := must(x.box.Confirm(c.ID, box.Payment{Email: "ada@example.com"}))
		x.heard()
		if paid.CustomerID != x.customer(ada).ID {
			x.t.Fatal("not under Ada's customer")
		}
		x.seats(paid.SubscriptionID, ada) // her customer's owner, says Polar
		x.seats(paid.SubscriptionID, mary)
		x.all("team", true, entitlement.ReasonActive, grace, mary)
		x.is(ada, "team", false, entitlement.ReasonPlanRequired)
		x.is(ada, "pro", true, entitlement.ReasonActive)

		// Mary runs the team from now on. Her seat is hers.
		must(x.box.UpdateMember(x.member(paid.CustomerID, mary).ID, box.MemberUpdate{Role: new("owner")}))
		x.heard()
		x.is(mary, "team", true, entitlement.ReasonActive)
	})
}

// An invitation takes a seat from who had it before: when a payment fails, which
// revokes invitations too, they do not come back.
func TestInvitationEndsTheSeatBefore(t *testing.T) {
	teamLives(t, box.Options{}, func(x *teams) {
		sub := x.buysSeats(adaVisits(), x.team, 1)
		seat := x.seats(sub, grace)
		x.unseats(seat)
		x.invites(sub, "mary@example.com")
		x.failsToPay(sub)
		x.noneSeated(sub)
		if d := x.decide(grace, "team"); d.Allowed {
			x.t.Errorf("let in again: %s", d.Reason)
		}
	})
}

// Polar's event of a revoked seat can lack the member, and can carry them: the
// seat is known by its own id.
func TestRevokedSeatIsKnownByItsID(t *testing.T) {
	x := newTeams(t, box.Options{})
	x.connect()
	sub := x.buysSeats(adaVisits(), x.team, 2)
	alone, withMember := x.seats(sub, grace), x.seats(sub, mary)
	mustDo(x.box.RemoveMember(x.member(x.customer(ada).ID, grace).ID)) // its event names nobody
	x.unseats(withMember)                                              // and this one does
	bare := map[string]bool{}
	for _, e := range x.box.Events() {
		if e.Type == "customer_seat.revoked" {
			bare[string(e.Data)] = true
		}
	}
	if len(bare) != 2 || alone.ID == withMember.ID {
		t.Fatalf("%d events", len(bare))
	}
	x.all("team", false, entitlement.ReasonSeatRevoked, grace, mary)
}

// What a team's customer buys without seats is its buyer's, also when Polar gives
// the benefits to a member to whom the team was handed over.
func TestBenefitsOfBuyerOfTeam(t *testing.T) {
	teamLives(t, box.Options{AllowMultiple: true}, func(x *teams) {
		sub := x.buysSeats(adaVisits(), x.team, 2)
		x.seats(sub, grace)
		before := must(x.box.SetProductBenefits(x.lifetime.ID, x.benefit.ID))
		plain := must(x.box.SetProductBenefits(x.pro.ID, x.benefit.ID))
		x.pays(x.opens(adaVisits(), before.ID), "")
		x.later(time.Minute)
		must(x.box.UpdateMember(x.member(x.customer(ada).ID, grace).ID, box.MemberUpdate{Role: new("owner")}))
		x.heard()
		x.is(ada, "suite", true, entitlement.ReasonPurchased)
		mustDo(x.box.RemoveMember(x.member(x.customer(ada).ID, ada).ID))
		x.later(time.Minute)
		x.is(ada, "suite", true, entitlement.ReasonPurchased)
		for _, o := range x.box.Orders(x.customer(ada).ID) {
			if o.SubscriptionID == "" {
				must(x.box.Refund(box.Refund{OrderID: o.ID, RevokeBenefits: true}))
			}
		}
		x.later(time.Minute)
		x.is(ada, "suite", false, entitlement.ReasonRefunded)
		x.pays(x.opens(adaVisits(), plain.ID), "")
		x.later(time.Minute)
		x.is(ada, "suite", true, entitlement.ReasonActive)
		x.is(grace, "suite", true, entitlement.ReasonActive) // by her seat
		x.unseats(x.box.Seats(sub)[0])
		x.later(time.Minute)
		x.is(ada, "suite", true, entitlement.ReasonActive)
		x.is(grace, "suite", false, entitlement.ReasonBenefitRevoked)
		for _, s := range x.box.Subscriptions(x.customer(ada).ID) {
			if s.ID != sub {
				must(x.box.Revoke(s.ID))
			}
		}
		x.later(time.Minute)
		x.is(ada, "suite", false, entitlement.ReasonCanceled)
	})
}

// A payment that is never made ends a team's subscription: then that is what
// everybody is told, and not that a seat was taken back.
func TestTeamWhosePaymentIsNeverMade(t *testing.T) {
	teamLives(t, box.Options{}, func(x *teams) {
		sub := x.buysSeats(adaVisits(), x.team, 2)
		x.seats(sub, grace)
		x.seats(sub, ada)
		x.failsToPay(sub)
		x.later(23 * day)
		for _, user := range []string{ada, grace} {
			x.is(user, "team", false, entitlement.ReasonCanceled)
		}
	})
}

// The buyer's seat is found by a look-up, if nobody has told of it.
func TestLookUpFindsTheBuyersSeat(t *testing.T) {
	x := newTeams(t, box.Options{})
	x.sync() // and no webhooks
	p := x.purchase(x.team.ID)
	p.Seats = 2
	c, err := x.g.OpenCheckout(t.Context(), adaVisits(), p)
	if err != nil {
		t.Fatal(err)
	}
	paid := must(x.box.Confirm(c.ID, box.Payment{Email: ada + "@example.com"}))
	must(x.box.AssignSeat(box.SeatAssignment{
		SubscriptionID: paid.SubscriptionID, MemberID: x.box.Members(paid.CustomerID)[0].ID, Immediate: true,
	}))
	x.box.Advance(time.Minute)
	if d := x.confirm(ada, "team"); !d.Allowed {
		t.Errorf("%+v", d)
	}
}

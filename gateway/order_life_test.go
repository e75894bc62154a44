package gateway

import (
	"net/http"
	"testing"
	"time"

	"github.com/caddy-polar/caddy-polar/entitlement"
	"github.com/caddy-polar/caddy-polar/polar/box"
)

// buysOnce is a purchase for ever by our checkout. The product has the benefit
// of the plan suite.
func (x *teams) buysOnce() (order string) {
	x.t.Helper()
	must(x.box.SetProductBenefits(x.lifetime.ID, x.benefit.ID))
	x.pays(x.opens(adaVisits(), x.lifetime.ID), "")
	x.later(time.Minute)
	orders := x.box.Orders(x.customer(ada).ID)
	return orders[len(orders)-1].ID
}

func TestOrderLives(t *testing.T) {
	open, refunded := entitlement.ReasonPurchased, entitlement.ReasonRefunded
	type step struct {
		happens func(x *teams, order string)
		reason  entitlement.Reason
	}
	refund := func(amount int, revoke bool) func(*teams, string) {
		return func(x *teams, o string) {
			must(x.box.Refund(box.Refund{OrderID: o, Amount: amount, RevokeBenefits: revoke}))
		}
	}
	begin := func(revoke bool) func(*teams, string) {
		return func(x *teams, o string) {
			must(x.box.Refund(box.Refund{OrderID: o, Status: "pending", RevokeBenefits: revoke}))
		}
	}
	settle := func(succeeded bool) func(*teams, string) {
		return func(x *teams, _ string) {
			for _, r := range x.box.Refunds(x.customer(ada).ID) {
				if r.Status == "pending" {
					must(x.box.SettleRefund(r.ID, succeeded))
				}
			}
		}
	}
	for name, steps := range map[string][]step{
		"in full":              {{refund(0, false), refunded}},
		"in full, revoked":     {{refund(0, true), refunded}},
		"in part":              {{refund(100, false), open}},
		"in part, revoked":     {{refund(100, true), refunded}},
		"in parts that add up": {{refund(100, false), open}, {refund(1000, false), open}, {refund(8800, false), refunded}},
		"the last part revokes": {
			{refund(100, false), open}, {refund(100, true), refunded}, {refund(0, false), refunded},
		},
		"pending, succeeds":          {{begin(false), open}, {settle(true), refunded}},
		"pending, fails":             {{begin(false), open}, {settle(false), open}},
		"pending, revokes, succeeds": {{begin(true), open}, {settle(true), refunded}},
		"pending, revokes, fails":    {{begin(true), open}, {settle(false), open}, {refund(1, false), open}},
		"a dispute is prevented":     {{func(x *teams, o string) { must(x.box.PreventDispute(o)) }, refunded}},
		"the customer is deleted": {{
			func(x *teams, _ string) { mustDo(x.box.DeleteCustomer(x.customer(ada).ID)) }, entitlement.ReasonCustomerDeleted,
		}},
	} {
		t.Run(name, func(t *testing.T) {
			teamLives(t, box.Options{}, func(x *teams) {
				order := x.buysOnce()
				for _, plan := range []string{"lifetime", "suite"} {
					x.is(ada, plan, true, open)
				}
				for _, s := range steps {
					s.happens(x, order)
					x.later(2 * time.Hour)
					for _, plan := range []string{"lifetime", "suite"} {
						x.is(ada, plan, s.reason == open, s.reason)
					}
				}
			})
		})
	}
}

// The order of a dispute that was lost stays paid, and no event tells of it.
func TestDisputeOfOrder(t *testing.T) {
	for name, read := range map[string]func(*teams){
		"sync": func(x *teams) { x.sync() }, "glance": func(x *teams) { x.g.glance(x.t.Context()) },
	} {
		t.Run(name, func(t *testing.T) {
			x := newTeams(t, box.Options{})
			x.connect()
			order := x.buysOnce()
			x.sync()
			for _, won := range []bool{true, false} {
				d := must(x.box.OpenDispute(order))
				read(x)
				x.is(ada, "lifetime", true, entitlement.ReasonPurchased)
				mustDo(x.box.SettleDispute(d.ID, won))
				read(x)
				if won {
					x.is(ada, "lifetime", true, entitlement.ReasonPurchased)
				}
			}
			if o := x.order(ada); o.Status != "paid" {
				t.Fatalf("the order is %s", o.Status)
			}
			x.refusedWith(ada, "lifetime", entitlement.ReasonDisputed, http.StatusForbidden, entitlement.StepContact)
			x.refusedWith(ada, "suite", entitlement.ReasonDisputed, http.StatusForbidden, entitlement.StepContact)
			// What is bought after it opens.
			c := must(x.box.Buy(ada, "ada@example.com", x.lifetime.ID))
			x.later(time.Minute)
			x.is(ada, "lifetime", true, entitlement.ReasonPurchased)
			if c.CustomerID != x.customer(ada).ID {
				t.Error("another customer")
			}
		})
	}
}

// What cost nothing by a discount is bought; the order with which a trial begins
// is not what opens.
func TestOrdersOfNothing(t *testing.T) {
	teamLives(t, box.Options{AllowMultiple: true}, func(x *teams) {
		gift := x.box.AddDiscount(box.Discount{Name: "Gift", BasisPoints: 10000, Duration: "once"})
		for _, p := range []box.Product{x.lifetime, x.onceTeam} {
			c := must(x.box.CreateCheckout(box.Checkout{
				ProductIDs: []string{p.ID}, ExternalCustomerID: ada, CustomerEmail: "ada@example.com", DiscountID: gift.ID,
				SuccessURL: siteSuccess, Seats: map[string]int{x.onceTeam.ID: 2}[p.ID],
			}))
			must(x.box.Confirm(c.ID, box.Payment{}))
		}
		x.heard()
		orders := x.box.Orders(x.customer(ada).ID)
		for _, o := range orders {
			if o.Net() != 0 || o.Status != "paid" {
				x.t.Fatalf("order %+v", o)
			}
		}
		x.is(ada, "lifetime", true, entitlement.ReasonPurchased)
		x.is(ada, "team", false, entitlement.ReasonPlanRequired)
		x.seats(orders[1].ID, grace)
		x.is(grace, "team", true, entitlement.ReasonPurchased)

		x.mustBuy(mary, x.trial)
		x.heard()
		if o := x.order(mary); o.Net() != 0 || o.Status != "paid" {
			x.t.Fatalf("order %+v", o)
		}
		x.is(mary, "pro", true, entitlement.ReasonTrialing)
		must(x.box.Revoke(x.subscription(mary).ID))
		x.heard()
		x.is(mary, "pro", false, entitlement.ReasonCanceled)
	})
}

// An order that Polar made and nobody has paid opens nothing, nor once it is void.
func TestUnpaidOrders(t *testing.T) {
	teamLives(t, box.Options{}, func(x *teams) {
		x.mustBuy(ada, x.pro)
		x.heard()
		mustDo(x.box.SetCard(x.customer(ada).ID, false))
		x.later(33 * day)
		x.is(ada, "pro", true, entitlement.ReasonPastDueGrace) // by its grace, and by no order
		x.later(30 * day)
		statuses := map[string]bool{}
		for _, o := range x.box.Orders(x.customer(ada).ID) {
			statuses[o.Status] = true
		}
		if !statuses["void"] {
			x.t.Fatalf("orders are %v", statuses)
		}
		x.is(ada, "pro", false, entitlement.ReasonCanceled)
	})
}

// A deleted customer's purchases are closed for good. A new customer with the
// same external id starts with nothing, and what that one buys opens.
func TestCustomerBeginsAnew(t *testing.T) {
	teamLives(t, box.Options{AllowMultiple: true}, func(x *teams) {
		x.buysOnce()
		x.pays(x.opens(adaVisits(), x.pro.ID), "")
		x.heard()
		x.is(ada, "pro", true, entitlement.ReasonActive)
		old := x.customer(ada)
		mustDo(x.box.DeleteCustomer(old.ID))
		x.later(2 * time.Hour)
		for _, plan := range []string{"pro", "lifetime", "suite"} {
			x.refusedWith(ada, plan, entitlement.ReasonCustomerDeleted, http.StatusForbidden, entitlement.StepContact)
		}
		x.pays(x.opens(adaVisits(), x.pro.ID), "")
		x.later(time.Minute)
		if x.customer(ada).ID == old.ID {
			x.t.Fatal("the same customer")
		}
		x.is(ada, "pro", true, entitlement.ReasonActive)
		for _, plan := range []string{"lifetime", "suite"} {
			x.is(ada, plan, false, entitlement.ReasonPlanRequired)
		}
		x.buysOnce()
		x.is(ada, "lifetime", true, entitlement.ReasonPurchased)
		x.is(ada, "suite", true, entitlement.ReasonPurchased)
	})
}

// The first plan of the configuration that opens is the one that is told,
// whatever it is by; a product can be in two plans with graces of their own.
func TestPlansInOrder(t *testing.T) {
	twoPlans := func(c *Config) {
		c.Plans[1].Products = append(c.Plans[1].Products, c.Plans[0].Products[0]) // max has pro's product, too
		c.Plans[0].Grace.PastDue = entitlement.PastDueGrace{}
		c.Plans[1].Grace.PastDue.For = 3 * day
	}
	teamLives(t, box.Options{AllowMultiple: true}, func(x *teams) {
		is := func(plan string, reason entitlement.Reason) {
			x.t.Helper()
			if d := x.decide(ada, "any"); d.Plan != plan || d.Reason != reason {
				x.t.Errorf("%q %s, want %q %s", d.Plan, d.Reason, plan, reason)
			}
		}
		is("", entitlement.ReasonNoSubscription)
		x.buysOnce()
		is("lifetime", entitlement.ReasonPurchased) // before suite, which is open as well
		x.is(ada, "suite", true, entitlement.ReasonPurchased)
		x.pays(x.opens(adaVisits(), x.pro.ID), "")
		x.heard()
		is("pro", entitlement.ReasonActive)
		x.is(ada, "max", true, entitlement.ReasonActive)

		var sub string
		for _, s := range x.box.Subscriptions(x.customer(ada).ID) {
			sub = s.ID
		}
		x.failsToPay(sub)
		x.is(ada, "pro", false, entitlement.ReasonPastDue) // grace off
		is("max", entitlement.ReasonPastDueGrace)
		x.later(3 * day)
		x.is(ada, "max", false, entitlement.ReasonPastDue)
		is("lifetime", entitlement.ReasonPurchased)
		x.paysAgain(sub)
		is("pro", entitlement.ReasonActive)
	}, twoPlans)
}

// With grace past_due polar a product is open until Polar gives up, and a benefit
// or one with benefits until Polar takes those back.
func TestPolarsGraceOfProducts(t *testing.T) {
	byPolar := func(c *Config) {
		for i := range c.Plans {
			c.Plans[i].Grace.PastDue = entitlement.PastDueGrace{Polar: true}
		}
	}
	teamLives(t, box.Options{}, func(x *teams) {
		must(x.box.SetProductBenefits(x.max.ID, x.benefit.ID))
		x.mustBuy(ada, x.pro)
		x.mustBuy(grace, x.max)
		x.later(time.Minute)
		x.is(grace, "suite", true, entitlement.ReasonActive)
		mustDo(x.box.SetCard(x.customer(ada).ID, false))
		x.failsToPay(x.subscription(grace).ID)
		x.is(ada, "pro", true, entitlement.ReasonPastDueGrace)
		x.is(grace, "max", false, entitlement.ReasonPastDue)
		if d := x.decide(grace, "suite"); d.Allowed {
			x.t.Errorf("suite is open: %s", d.Reason)
		}
		x.paysAgain(x.subscription(grace).ID)
		x.later(time.Minute)
		x.is(grace, "max", true, entitlement.ReasonActive)
		x.is(grace, "suite", true, entitlement.ReasonActive) // these Polar gives back
		x.later(30 * day)
		x.is(ada, "pro", false, entitlement.ReasonCanceled)
	}, byPolar)
}

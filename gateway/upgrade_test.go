package gateway

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/caddy-polar/caddy-polar/entitlement"
	"github.com/caddy-polar/caddy-polar/polar/box"
)

// A free tier whose product stands in the paid plan, or in a tier that the paid
// one has, too, is in nobody's way.
func TestFreeTierOfThePlan(t *testing.T) {
	for name, tt := range map[string]struct {
		plans  func(*Config, string, string)
		plan   string
		before entitlement.Reason
	}{
		"the same plan": {
			func(c *Config, free, pro string) { c.Plans[0].Products = []string{free, pro} },
			"pro", entitlement.ReasonActive,
		},
		"a tier below": {
			func(c *Config, free, pro string) { c.Plans[2].Products = []string{free, pro} },
			"pro", entitlement.ReasonPlanRequired,
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newShop(t, box.Options{}, func(c *Config) {
				free, pro := c.Plans[2].Products[0], c.Plans[0].Products[0]
				c.Plans[2].Products = []string{free}
				tt.plans(c, free, pro)
			})
			s.pays(s.opens(adaVisits(), s.free.ID), "")
			s.blocked(adaVisits(), entitlement.ObstacleSubscribed, entitlement.StepPortal, s.free.ID)
			sub := s.sub()
			products, err := s.g.PlanProducts(tt.plan)
			if err != nil {
				t.Fatal(err)
			}
			s.is(ada, tt.plan, tt.before == entitlement.ReasonActive, tt.before)
			a, err := s.g.Account(ada)
			if err != nil {
				t.Fatal(err)
			}
			if step, blocked := s.g.Blocked(a, products); blocked {
				t.Errorf("no checkout, but %s", step)
			}
			c := s.opens(adaVisits(), products...)
			if c.Upgrades != sub.ID || slices.Contains(c.ProductIDs, s.free.ID) || c.ProductIDs[0] != s.pro.ID {
				t.Errorf("%v upgrades %q", c.ProductIDs, c.Upgrades)
			}
			if tt.before != entitlement.ReasonActive {
				s.arrives(c, ArrivedPending) // what was open before is not what was bought
			}
			s.pays(c, "")
			s.arrives(c, ArrivedOpen)
			s.is(ada, tt.plan, true, entitlement.ReasonActive)
			if now := s.sub(); now.ID != sub.ID || now.Amount != 1000 {
				t.Errorf("%+v", now)
			}
		})
	}
}

// One that is canceled is upgraded once the cancellation is taken back.
func TestFreeAndCanceledIsUpgradedLater(t *testing.T) {
	s := newShop(t, box.Options{})
	s.pays(s.opens(adaVisits(), s.free.ID), "")
	s.changes(Change{Cancel: new(true)})
	s.blocked(adaVisits(), entitlement.ObstacleSubscribed, entitlement.StepPortal, s.pro.ID)
	s.wantsRefused(Change{ProductID: s.pro.ID}, "AlreadyCanceledSubscription") // so that is no way either
	s.changes(Change{Cancel: new(false)})
	c := s.opens(adaVisits(), s.pro.ID)
	if c.Upgrades != s.sub().ID {
		t.Errorf("upgrades %q", c.Upgrades)
	}
	s.pays(c, "")
	s.arrives(c, ArrivedOpen)
}

// One that is canceled and over is in nobody's way.
func TestFreeThatIsOver(t *testing.T) {
	s := newShop(t, box.Options{})
	s.pays(s.opens(adaVisits(), s.free.ID), "")
	s.changes(Change{Cancel: new(true)})
	s.box.AdvanceTo(s.sub().CurrentPeriodEnd.Add(time.Hour))
	if c := s.opens(adaVisits(), s.pro.ID); c.Upgrades != "" {
		t.Errorf("upgrades %q", c.Upgrades)
	}
}

// Polar sells nothing beside a subscription that is billed, be it free, paid or
// one that cannot be upgraded: it is said before somebody fills a checkout in.
func TestFreeAndAnother(t *testing.T) {
	for name, other := range map[string]func(*shop) string{
		"paid": func(s *shop) string { return s.pro.ID },
		"free": func(s *shop) string { return s.free.ID },
	} {
		t.Run(name, func(t *testing.T) {
			s := newShop(t, box.Options{AllowMultiple: true})
			for _, product := range []string{s.free.ID, other(s)} {
				if _, err := s.box.Buy(ada, "ada@example.com", product); err != nil {
					t.Fatal(err)
				}
			}
			s.box.UpdateOrganization(box.OrganizationUpdate{AllowMultiple: new(false)})
			s.blocked(adaVisits(), entitlement.ObstacleSubscribed, entitlement.StepChange, s.max.ID)
			// Without one of them, the other is upgraded, or there is none.
			all := s.box.Subscriptions(s.sub().CustomerID)
			if _, err := s.box.Revoke(all[1].ID); err != nil {
				t.Fatal(err)
			}
			c := s.opens(adaVisits(), s.max.ID)
			if c.Upgrades != all[0].ID {
				t.Errorf("upgrades %q", c.Upgrades)
			}
			s.pays(c, "")
		})
	}
}

// Seats that cost nothing are others' by now: what they have is not upgraded
// away.
func TestFreeSeatsAreNotUpgraded(t *testing.T) {
	s := newTailor(t, box.Options{})
	s.buysSeats(s.crew.ID, 3)
	if sub := s.sub(); sub.Amount != 0 || sub.Seats != 3 {
		t.Fatalf("%+v", sub)
	}
	s.blocked(adaVisits(), entitlement.ObstacleSubscribed, entitlement.StepChange, s.pro.ID)
}

// Mallory's free subscription stands under Ada's customer, where it is not
// hers to upgrade; the one under her own is.
func TestFreeUnderAnothersCustomer(t *testing.T) {
	s := newShop(t, box.Options{})
	if _, err := s.box.CreateCustomer(box.Customer{Email: "ada@example.com", ExternalID: ada}); err != nil {
		t.Fatal(err)
	}
	mallory := Visitor{User: "usr_mallory", Email: "mallory@example.com", EmailVerified: true}
	first := s.opens(Visitor{User: "usr_mallory"}, s.free.ID)
	s.pays(first, "ada@example.com")
	s.arrives(first, ArrivedOpen)
	s.is("usr_mallory", "basic", true, entitlement.ReasonActive)
	if c := s.opens(mallory, s.pro.ID); c.Upgrades != "" {
		t.Errorf("upgrades %q, under Ada's customer", c.Upgrades)
	}
	if _, err := s.g.OpenCheckout(t.Context(), adaVisits(), s.purchase(s.pro.ID)); !errors.Is(err, ErrNotLinked) {
		t.Errorf("Ada buys: %v", err)
	}
	own, err := s.box.Buy("usr_mallory", "mallory@example.com", s.free.ID)
	if err != nil {
		t.Fatal(err)
	}
	c := s.opens(mallory, s.pro.ID)
	if c.Upgrades != own.SubscriptionID {
		t.Errorf("upgrades %q, want %q", c.Upgrades, own.SubscriptionID)
	}
	s.pays(c, "")
	s.arrives(c, ArrivedOpen)
	s.is("usr_mallory", "pro", true, entitlement.ReasonActive)
}

func (s *shop) passes(plan string, until time.Time) {
	s.t.Helper()
	if _, err := s.g.GivePass(s.t.Context(), ada, plan, until, "a gift"); err != nil {
		s.t.Fatal(err)
	}
}

// Who has a pass is told before they pay, and can pay all the same.
func TestPassWarns(t *testing.T) {
	s := newShop(t, box.Options{})
	until := s.box.Now().Add(10 * day)
	s.passes("pro", until)
	s.is(ada, "pro", true, entitlement.ReasonPass)
	for _, product := range []string{s.pro.ID, s.trial.ID} {
		_, err := s.g.OpenCheckout(t.Context(), adaVisits(), s.purchase(product))
		var got *ObstacleError
		if !errors.As(err, &got) || got.Obstacle != entitlement.ObstaclePass || !got.Until.Equal(until) {
			t.Errorf("%v %+v", err, got)
		}
	}
	s.opens(adaVisits(), s.max.ID) // the pass is for another plan
	a, err := s.g.Account(ada)
	if err != nil {
		t.Fatal(err)
	}
	if step, blocked := s.g.Blocked(a, []string{s.pro.ID}); blocked {
		t.Errorf("a refusal leads to %s", step)
	}
	anyway := s.purchase(s.pro.ID)
	anyway.Anyway = true
	c, err := s.g.OpenCheckout(t.Context(), adaVisits(), anyway)
	if err != nil {
		t.Fatal(err)
	}
	held, _ := s.box.Checkout(c.ID)
	s.pays(held, "")
	// What stands against it for Polar is told first, and no word is enough.
	s.blocked(adaVisits(), entitlement.ObstacleSubscribed, entitlement.StepPortal, s.pro.ID)
	if _, err := s.g.OpenCheckout(t.Context(), adaVisits(), anyway); err == nil {
		t.Error("sold twice")
	}
	if err := s.box.SetCard(s.sub().CustomerID, false); err != nil {
		t.Fatal(err)
	}
	s.box.AdvanceTo(s.sub().CurrentPeriodEnd.Add(time.Hour))
	s.passes("max", time.Time{})
	s.blocked(adaVisits(), entitlement.ObstaclePaymentDue, entitlement.StepPortal, s.max.ID)
}

func TestPassThatIsOverWarnsNobody(t *testing.T) {
	s := newShop(t, box.Options{})
	s.passes("pro", s.box.Now().Add(day))
	s.passes("lifetime", time.Time{})
	s.blocked(adaVisits(), entitlement.ObstaclePass, entitlement.StepCheckout, s.pro.ID)
	s.blocked(adaVisits(), entitlement.ObstaclePass, entitlement.StepCheckout, s.lifetime.ID)
	s.box.Advance(day)
	s.is(ada, "pro", false, entitlement.ReasonPlanRequired) // the other pass
	s.opens(adaVisits(), s.pro.ID)
}

package gateway

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-polar/caddy-polar/entitlement"
	"github.com/caddy-polar/caddy-polar/polar"
	"github.com/caddy-polar/caddy-polar/polar/box"
	"github.com/caddy-polar/caddy-polar/polar/box/boxtest"
)

// tailor is a shop with more products: another price of pro, and teams.
type tailor struct {
	*shop
	yearly, team, crew box.Product
}

func newTailor(t *testing.T, o box.Options, change ...func(*Config)) *tailor {
	t.Helper()
	at := boxtest.Start(t, o)
	seats := box.Price{Currency: "usd", Tiers: []box.SeatTier{{Min: 2, Max: 9, PerSeat: 1000}}}
	s := &tailor{
		yearly: at.AddProduct(box.Product{Name: "Pro, yearly", Interval: "year", Price: box.Price{Amount: 9000, Currency: "usd"}}),
		team:   at.AddProduct(box.Product{Name: "Team", Interval: "month", Price: seats}),
		crew: at.AddProduct(box.Product{Name: "Crew", Interval: "month", Price: box.Price{
			Currency: "usd", Tiers: []box.SeatTier{{Min: 1, PerSeat: 0}},
		}}),
	}
	s.shop = newShopAt(t, at, append(change, func(c *Config) {
		c.Plans[0].Products = append(c.Plans[0].Products, s.yearly.ID)
		c.Plans = append(c.Plans, entitlement.Plan{
			Name: "team", Products: []string{s.team.ID, s.crew.ID}, Grace: entitlement.DefaultGrace(),
		})
	})...)
	return s
}

// sub is what Ada has first bought.
func (s *shop) sub() box.Subscription {
	s.t.Helper()
	customer, _ := s.box.CustomerByExternalID(ada)
	subs := s.box.Subscriptions(customer.ID)
	if len(subs) == 0 {
		s.t.Fatal("Ada has nothing")
	}
	return subs[0]
}

func (s *tailor) buysSeats(product string, seats int) {
	s.t.Helper()
	p := s.purchase(product)
	p.Seats = seats
	c, err := s.g.OpenCheckout(s.t.Context(), adaVisits(), p)
	if err != nil {
		s.t.Fatal(err)
	}
	held, _ := s.box.Checkout(c.ID)
	s.pays(held, "")
}

// changes makes a change that must succeed, and returns what the user is told.
func (s *shop) changes(c Change) *entitlement.Subscription {
	s.t.Helper()
	a, id, err := s.g.ChangeSubscription(s.t.Context(), ada, c)
	if err != nil {
		s.t.Fatal(err)
	}
	sub, _, ok := a.CurrentByID(id, s.g.Rules(), s.g.Now())
	if !ok {
		s.t.Fatal("the subscription is not current")
	}
	return sub
}

// diary notes after each event what Ada has.
type diary struct {
	mu    sync.Mutex
	lines []string
}

// keep lets the box's webhooks reach the gateway, and notes what each has made.
func (s *shop) keep(plans ...string) *diary {
	s.t.Helper()
	d := &diary{}
	endpoint := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		delivery, err := s.g.ReadDelivery(r.Header)
		if err != nil {
			s.t.Error(err)
			return
		}
		body, _ := io.ReadAll(r.Body)
		receipt, err := s.g.TakeWebhook(r.Context(), delivery, body)
		if err != nil {
			s.t.Error(err)
		}
		if !strings.HasPrefix(receipt.Type, "subscription.") {
			return // the order of the others is not fixed
		}
		line := receipt.Type
		for _, plan := range plans {
			line += " " + plan + "=" + string(s.decide(ada, plan).Reason)
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		d.lines = append(d.lines, line)
	}))
	s.t.Cleanup(endpoint.Close)
	s.box.AddEndpoint(box.Endpoint{URL: endpoint.URL, Secret: testSecret, Enabled: true})
	return d
}

// reads compares what was noted since the last time.
func (s *shop) reads(d *diary, want ...string) {
	s.t.Helper()
	s.box.Settle()
	d.mu.Lock()
	defer d.mu.Unlock()
	if !slices.Equal(d.lines, want) {
		s.t.Errorf("events\n got %q\nwant %q", d.lines, want)
	}
	d.lines = nil
}

// The seller lets changes apply at once: they open and close at once, too, and
// the webhooks that follow change nothing any more.
func TestChangeNow(t *testing.T) {
	for _, proration := range []string{"prorate", "invoice"} {
		t.Run(proration, func(t *testing.T) {
			s := newTailor(t, box.Options{Proration: proration})
			s.pays(s.opens(adaVisits(), s.pro.ID), "")
			d := s.keep("pro", "max")
			before := len(s.box.Orders(s.sub().CustomerID))
			if got := s.changes(Change{ProductID: s.max.ID}); got.ProductID != s.max.ID || !got.PendingAt.IsZero() {
				t.Errorf("told %+v", got)
			}
			s.is(ada, "max", true, entitlement.ReasonActive)
			s.is(ada, "pro", false, entitlement.ReasonPlanRequired)
			if charged := len(s.box.Orders(s.sub().CustomerID)) > before; charged != (proration == "invoice") {
				t.Errorf("charged: %t", charged)
			}
			s.reads(d, "subscription.updated pro=plan_required max=active")
		})
	}
}

// The seller lets changes apply with the next period.
func TestChangeAtNextPeriod(t *testing.T) {
	s := newTailor(t, box.Options{Proration: "next_period"})
	s.pays(s.opens(adaVisits(), s.pro.ID), "")
	s.box.Settle()
	d := s.keep("pro", "max")
	end := s.sub().CurrentPeriodEnd
	got := s.changes(Change{ProductID: s.max.ID})
	if got.ProductID != s.pro.ID || got.PendingProductID != s.max.ID || !got.PendingAt.Equal(end) {
		t.Errorf("told %+v", got)
	}
	s.reads(d, "subscription.updated pro=active max=plan_required")
	s.box.AdvanceTo(end.Add(-time.Minute))
	s.reads(d)
	s.is(ada, "pro", true, entitlement.ReasonActive)
	s.is(ada, "max", false, entitlement.ReasonPlanRequired)
	s.box.AdvanceTo(end.Add(time.Hour))
	s.reads(d, "subscription.cycled pro=plan_required max=active", "subscription.updated pro=plan_required max=active")
	if a, _ := s.g.Account(ada); a.Subscriptions[0].PendingProductID != "" {
		t.Error("the change is still to come")
	}
}

func TestScheduledChangeIsTakenBack(t *testing.T) {
	s := newTailor(t, box.Options{Proration: "next_period"}).shop
	s.pays(s.opens(adaVisits(), s.pro.ID), "")
	s.box.Settle()
	d := s.keep("pro", "max")
	s.changes(Change{ProductID: s.max.ID})
	if got := s.changes(Change{ClearPending: true}); got.PendingProductID != "" || !got.PendingAt.IsZero() {
		t.Errorf("told %+v", got)
	}
	// The same product again says the same.
	s.changes(Change{ProductID: s.max.ID})
	s.changes(Change{ProductID: s.pro.ID})
	s.box.AdvanceTo(s.sub().CurrentPeriodEnd.Add(time.Hour))
	s.box.Settle()
	s.is(ada, "pro", true, entitlement.ReasonActive)
	for _, line := range d.lines {
		if !strings.HasSuffix(line, " pro=active max=plan_required") {
			t.Error(line)
		}
	}
}

// A cancellation can be taken back until it has taken effect.
func TestCancellationIsTakenBack(t *testing.T) {
	s := newTailor(t, box.Options{}).shop
	s.pays(s.opens(adaVisits(), s.pro.ID), "")
	s.box.Settle()
	d := s.keep("pro")
	s.changes(Change{Cancel: new(true)})
	s.reads(d, "subscription.updated pro=canceling", "subscription.canceled pro=canceling")
	s.box.AdvanceTo(s.sub().CurrentPeriodEnd.Add(-time.Minute))
	if got := s.changes(Change{Cancel: new(false)}); got.CancelAtPeriodEnd {
		t.Errorf("told %+v", got)
	}
	s.reads(d, "subscription.updated pro=active", "subscription.uncanceled pro=active")
	s.changes(Change{Cancel: new(true)})
	s.box.AdvanceTo(s.sub().CurrentPeriodEnd.Add(time.Minute))
	s.box.Settle()
	s.is(ada, "pro", false, entitlement.ReasonCanceled)
	if _, _, err := s.g.ChangeSubscription(t.Context(), ada, Change{Cancel: new(false)}); !errors.Is(err, ErrNoSubscription) {
		t.Errorf("taken back after the end: %v", err)
	}
}

// Another product of the same plan: it stays open.
func TestChangeWithinAPlan(t *testing.T) {
	s := newTailor(t, box.Options{Proration: "invoice"})
	s.pays(s.opens(adaVisits(), s.pro.ID), "")
	s.box.Settle()
	d := s.keep("pro")
	if got := s.changes(Change{ProductID: s.yearly.ID}); got.ProductID != s.yearly.ID || got.PeriodEnd.Sub(s.box.Now()) < 360*day {
		t.Errorf("told %+v", got)
	}
	s.reads(d, "subscription.updated pro=active")
}

// The same product again is there already: Polar is not told to charge for it.
func TestChangeToTheSame(t *testing.T) {
	var changes int
	s := newTailor(t, box.Options{Proration: "invoice"}, func(c *Config) {
		c.OnCall = func(c polar.Call) {
			if c.Method == http.MethodPatch {
				changes++
			}
		}
	})
	s.pays(s.opens(adaVisits(), s.pro.ID), "")
	if got := s.changes(Change{ProductID: s.pro.ID}); got.ProductID != s.pro.ID || changes != 0 {
		t.Errorf("told %+v after %d changes", got, changes)
	}
	s.changes(Change{Cancel: new(true)})
	s.wantsRefused(Change{ProductID: s.pro.ID}, "AlreadyCanceledSubscription")
}

func TestChangeOfSeats(t *testing.T) {
	s := newTailor(t, box.Options{Proration: "invoice"})
	s.buysSeats(s.team.ID, 3)
	told := s.changes(Change{Seats: new(5)})
	if got := s.sub(); got.Seats != 5 || got.Amount != 5000 || told.SeatCount != 5 {
		t.Errorf("told %+v, there is %+v", told, got)
	}
	s.box.UpdateOrganization(box.OrganizationUpdate{Proration: new("next_period")})
	got := s.changes(Change{Seats: new(4)})
	if now := s.sub(); now.Seats != 5 || got.SeatCount != 5 || got.PendingSeats != 4 || got.PendingProductID != "" || !got.PendingAt.Equal(now.CurrentPeriodEnd) {
		t.Errorf("told %+v, there is %+v", got, now)
	}
	s.box.AdvanceTo(s.sub().CurrentPeriodEnd.Add(time.Hour))
	if now := s.sub(); now.Seats != 4 {
		t.Errorf("%+v", now)
	}
}

// wantsRefused tries a change that Polar refuses with an error of that class,
// and that must leave everything as it was.
func (s *shop) wantsRefused(c Change, class string) {
	s.t.Helper()
	state := func() string {
		orders, held := s.box.Orders(s.sub().CustomerID), s.sub()
		held.Row = box.Row{}
		return fmt.Sprintf("%+v %d orders %+v %+v", held, len(orders), s.decide(ada, "pro"), s.decide(ada, "max"))
	}
	before := state()
	_, _, err := s.g.ChangeSubscription(s.t.Context(), ada, c)
	var failure *polar.APIError
	if !errors.As(err, &failure) || failure.Code != class {
		s.t.Errorf("%+v: %v, want %s", c, err, class)
	}
	s.box.Settle()
	if after := state(); after != before {
		s.t.Errorf("%+v: refused, and all the same\nfrom %s\n  to %s", c, before, after)
	}
}

// What Polar refuses has changed nothing: neither there nor here.
func TestRefusedChanges(t *testing.T) {
	for name, tt := range map[string]struct {
		options box.Options
		start   func(*tailor)
		change  func(*tailor) Change
		class   string
	}{
		"the charge fails": {
			options: box.Options{Proration: "invoice"},
			start:   func(s *tailor) { _ = s.box.SetCard(s.sub().CustomerID, false) },
			class:   "PaymentFailed",
		},
		"canceled": {
			start: func(s *tailor) { s.changes(Change{Cancel: new(true)}) },
			class: "AlreadyCanceledSubscription",
		},
		"canceled twice": {
			start:  func(s *tailor) { s.changes(Change{Cancel: new(true)}) },
			change: func(*tailor) Change { return Change{Cancel: new(true)} },
			class:  "AlreadyCanceledSubscription",
		},
		"locked":       {start: func(s *tailor) { s.box.LockSubscription(s.sub().ID, true) }, class: "SubscriptionLocked"},
		"not canceled": {change: func(*tailor) Change { return Change{Cancel: new(false)} }, class: "BadRequest"},
		"nothing scheduled": {
			change: func(*tailor) Change { return Change{ClearPending: true} },
			class:  "PolarRequestValidationError",
		},
		"once": {
			change: func(s *tailor) Change { return Change{ProductID: s.lifetime.ID} },
			class:  "PolarRequestValidationError",
		},
		"archived": {
			start: func(s *tailor) { _, _ = s.box.UpdateProduct(s.max.ID, box.ProductUpdate{Archived: new(true)}) },
			class: "PolarRequestValidationError",
		},
		"not public": {
			start: func(s *tailor) { _, _ = s.box.UpdateProduct(s.max.ID, box.ProductUpdate{Visibility: new("private")}) },
			class: "PolarRequestValidationError",
		},
		"the seller forbids": {options: box.Options{NoPlanChanges: true}, class: "UpdateSubscriptionPlanNotAllowed"},
		"the seller forbids seats": {
			options: box.Options{NoSeatChanges: true},
			change:  func(*tailor) Change { return Change{Seats: new(3)} },
			class:   "UpdateSubscriptionSeatsNotAllowed",
		},
		"no seats": {change: func(*tailor) Change { return Change{Seats: new(3)} }, class: "NotASeatBasedSubscription"},
		"it has ended, which the replica does not know": {
			start: func(s *tailor) {
				s.box.Advance(time.Hour)
				s.box.SetTrouble(box.Trouble{Lag: time.Minute})
				_, _ = s.box.Revoke(s.sub().ID)
			},
			change: func(*tailor) Change { return Change{Cancel: new(false)} },
			class:  "ResourceUnavailable",
		},
		"the replica does not know it": {
			start: func(s *tailor) { s.box.SetTrouble(box.Trouble{Lag: time.Hour}) },
			class: "ResourceNotFound",
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newTailor(t, tt.options)
			c := s.opens(adaVisits(), s.pro.ID)
			s.pays(c, "")
			s.arrives(c, ArrivedOpen)
			s.is(ada, "pro", true, entitlement.ReasonActive)
			if tt.start != nil {
				tt.start(s)
			}
			change := Change{ProductID: s.max.ID}
			if tt.change != nil {
				change = tt.change(s)
			}
			s.wantsRefused(change, tt.class)
		})
	}
}

func TestRefusedChangeOfSeats(t *testing.T) {
	s := newTailor(t, box.Options{})
	s.buysSeats(s.team.ID, 4)
	for _, email := range []string{"a@example.com", "b@example.com", "c@example.com"} {
		if _, err := s.box.AssignSeat(box.SeatAssignment{SubscriptionID: s.sub().ID, Email: email, Immediate: true}); err != nil {
			t.Fatal(err)
		}
	}
	s.wantsRefused(Change{Seats: new(2)}, "SeatsAlreadyAssigned")
	s.wantsRefused(Change{Seats: new(1)}, "BelowMinimumSeats")
	s.wantsRefused(Change{Seats: new(10)}, "AboveMaximumSeats")
	s.wantsRefused(Change{ProductID: s.pro.ID}, "PolarRequestValidationError")

	// Somebody else has become the owner: Ada no longer pays.
	members := s.box.Members(s.sub().CustomerID)
	boss := slices.IndexFunc(members, func(m box.Member) bool { return m.Email == "a@example.com" })
	adas := slices.IndexFunc(members, func(m box.Member) bool { return m.ExternalID == ada })
	for _, to := range []struct {
		member int
		role   string
	}{{boss, "owner"}, {adas, "member"}} {
		if _, err := s.box.UpdateMember(members[to.member].ID, box.MemberUpdate{Role: &to.role}); err != nil {
			t.Fatal(err)
		}
	}
	s.wantsRefused(Change{Seats: new(5)}, "NotPermitted")
	s.wantsRefused(Change{Cancel: new(true)}, "NotPermitted")
	// And then she leaves.
	if err := s.box.RemoveMember(members[adas].ID); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.g.ChangeSubscription(t.Context(), ada, Change{Seats: new(5)}); !errors.Is(err, ErrNotLinked) {
		t.Errorf("a change: %v", err)
	}
	if _, err := s.g.OpenPortal(t.Context(), ada, ""); !errors.Is(err, ErrNotLinked) {
		t.Errorf("the portal: %v", err)
	}
}

// Who came without paying has no card.
func TestChangeWithoutACard(t *testing.T) {
	s := newTailor(t, box.Options{})
	customer, err := s.box.CreateCustomer(box.Customer{Email: "ada@example.com", ExternalID: ada})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.box.CreateSubscription(customer.ID, s.free.ID, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := s.g.OpenPortal(t.Context(), ada, ""); err != nil {
		t.Fatal(err)
	}
	s.wantsRefused(Change{ProductID: s.pro.ID}, "PaymentMethodRequired")
	if err := s.box.UpdateCard(customer.ID, true); err != nil {
		t.Fatal(err)
	}
	s.changes(Change{ProductID: s.pro.ID})
	s.is(ada, "pro", true, entitlement.ReasonActive)
}

// The bodies of the changes are Polar's.
func TestPortalChanges(t *testing.T) {
	s := newTailor(t, box.Options{})
	for _, tt := range []struct {
		c    Change
		want polar.PortalChange
	}{
		{Change{ProductID: s.max.ID}, polar.PortalChangeProduct{ProductID: s.max.ID}},
		{Change{Cancel: new(true)}, polar.PortalChangeCancel{AtPeriodEnd: true}},
		{Change{Cancel: new(false)}, polar.PortalChangeCancel{}},
		{Change{Seats: new(0)}, polar.PortalChangeSeats{}},
		{Change{ClearPending: true}, polar.ChangeClearPending{}},
	} {
		if got, err := s.g.portalChange(&tt.c); err != nil || !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%+v: %#v %v", tt.c, got, err)
		}
	}
}

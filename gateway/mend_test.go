package gateway

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/caddy-polar/caddy-polar/cache"
	"github.com/caddy-polar/caddy-polar/entitlement"
	"github.com/caddy-polar/caddy-polar/polar/box"
	"github.com/caddy-polar/caddy-polar/polar/box/boxtest"
)

// mustBuy buys without the gateway, as through a link of the merchant's.
func (s *shop) mustBuy(user string, p box.Product) {
	s.t.Helper()
	if _, err := s.box.Buy(user, user+"@example.com", p.ID); err != nil {
		s.t.Fatal(err)
	}
	s.box.Settle()
}

// must takes what the box answers to a change.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func (s *shop) customer(user string) box.Customer {
	s.t.Helper()
	c, ok := s.box.CustomerByExternalID(user)
	if !ok {
		s.t.Fatalf("the box does not know %s", user)
	}
	return c
}

// subscription is the only one of a user.
func (s *shop) subscription(user string) box.Subscription {
	s.t.Helper()
	return s.box.Subscriptions(s.customer(user).ID)[0]
}

// order is the first one of a user.
func (s *shop) order(user string) box.Order {
	s.t.Helper()
	return s.box.Orders(s.customer(user).ID)[0]
}

// newCrowd is a shop in which a hundred people have a subscription that began
// later and lasts for longer than those of the few others: a page of them.
func newCrowd(t *testing.T) (_ *shop, yearly box.Product) {
	t.Helper()
	at := boxtest.Start(t, box.Options{})
	yearly = at.AddProduct(box.Product{Name: "Yearly", Interval: "year", Price: box.Price{Amount: 9000, Currency: "usd"}})
	s := newShopAt(t, at, func(c *Config) {
		c.Plans = append(c.Plans, entitlement.Plan{Name: "yearly", Products: []string{yearly.ID}, Grace: entitlement.DefaultGrace()})
	})
	for _, user := range []string{ada, "usr_ends", "usr_leaves"} {
		s.mustBuy(user, s.pro)
	}
	s.mustBuy(grace, s.lifetime)
	s.mustBuy("usr_disputes", s.lifetime)
	s.box.Advance(2 * day)
	s.mustBuy("usr_late", s.pro)
	if err := s.box.Populate(pageSize, yearly.ID); err != nil {
		t.Fatal(err)
	}
	return s, yearly
}

// Each kind of change whose webhooks were lost is mended by one glance, also
// when there are so many that only one of its looks has it on its page.
func TestGlanceMends(t *testing.T) {
	s, yearly := newCrowd(t)
	s.sync()
	var told SyncReport
	s.g.onGlance = func(r SyncReport) { told = r }
	for _, tt := range []struct {
		name       string
		happens    func()
		user, plan string
		allowed    bool
		reason     entitlement.Reason
	}{
		{"bought", func() { s.mustBuy("usr_new", yearly) }, "usr_new", "yearly", true, entitlement.ReasonActive},
		{"ended", func() { must(s.box.Revoke(s.subscription("usr_ends").ID)) }, "usr_ends", "pro", false, entitlement.ReasonCanceled},
		{"about to end", func() { must(s.box.Cancel(s.subscription("usr_leaves").ID, "", "")) }, "usr_leaves", "pro", true, entitlement.ReasonCanceling},
		{"bought once", func() { s.mustBuy("usr_once", s.lifetime) }, "usr_once", "lifetime", true, entitlement.ReasonPurchased},
		{"given back", func() { // in part, of which the order does not tell
			must(s.box.Refund(box.Refund{OrderID: s.order(grace).ID, Amount: 1, RevokeBenefits: true}))
		}, grace, "lifetime", false, entitlement.ReasonRefunded},
		{"disputed", func() {
			if err := s.box.LoseDispute(s.order("usr_disputes").ID); err != nil {
				t.Fatal(err)
			}
		}, "usr_disputes", "lifetime", false, entitlement.ReasonDisputed},
		{"renewed", func() {
			s.box.AdvanceTo(s.subscription(ada).CurrentPeriodEnd.Add(time.Hour))
		}, ada, "pro", true, entitlement.ReasonActive},
		{"past due", func() {
			if err := s.box.SetCard(s.customer("usr_late").ID, false); err != nil {
				t.Fatal(err)
			}
			s.box.AdvanceTo(s.subscription("usr_late").CurrentPeriodEnd.Add(time.Hour))
		}, "usr_late", "pro", true, entitlement.ReasonPastDueGrace},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.happens()
			s.box.Settle()
			if d := s.decide(tt.user, tt.plan); d.Reason == tt.reason {
				t.Fatalf("%s is known already", d.Reason)
			}
			s.g.glance(s.t.Context())
			if d := s.decide(tt.user, tt.plan); d.Allowed != tt.allowed || d.Reason != tt.reason {
				t.Errorf("%v %s, want %v %s", d.Allowed, d.Reason, tt.allowed, tt.reason)
			}
			if told.Missing+told.Wrong == 0 {
				t.Errorf("told of %+v", told)
			}
		})
	}
	s.g.glance(t.Context())
	if told.Missing+told.Wrong != 0 {
		t.Errorf("mended once more: %+v", told)
	}
}

// readsBySteps is a sync in which something can happen after each page, told by
// the name of its list and how many of its pages were read.
func (s *shop) readsBySteps(happens func(list string, pages int)) SyncReport {
	s.t.Helper()
	ctx := s.t.Context()
	run, err := s.g.newRun(ctx)
	pages := 0
	for err == nil && run.step < len(syncSteps) {
		step := &syncSteps[run.step]
		var facts *cache.Facts
		var next syncCursor
		var done bool
		if facts, next, done, err = step.read(s.g, ctx, run); err != nil {
			break
		}
		err = s.g.takePage(ctx, run, facts, next, done)
		pages++
		happens(step.name, pages)
		if done {
			pages = 0
		}
	}
	if err == nil {
		err = s.g.runSync(ctx, run) // what is gone, and the end
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return run.report
}

// customers are the ids of those of whom the store has more than a name.
func (s *shop) customers() map[string]bool {
	s.t.Helper()
	held := map[string]bool{}
	err := s.g.store.EachCustomer(s.t.Context(), func(c *entitlement.Customer) error {
		held[c.ID] = !c.Version.Row.IsZero()
		return nil
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return held
}

// Customers who are deleted between two pages let others move up a page, or
// several, and none of them is lost. New ones come at the end.
func TestCustomersMoveBetweenPages(t *testing.T) {
	const people = 450
	for name, tt := range map[string]struct {
		after   int // this page
		deleted int // the first ones
		created int
	}{
		"some at once":     {after: 1, deleted: 60},
		"some, later":      {after: 3, deleted: 60},
		"a page of them":   {after: 2, deleted: 100},
		"pages of them":    {after: 3, deleted: 250},
		"before the last":  {after: 4, deleted: 60},
		"the last page is": {after: 4, deleted: 50},
		"none, and new":    {after: 2, created: 30},
	} {
		t.Run(name, func(t *testing.T) {
			s := newShop(t, box.Options{})
			create := func(n int) {
				must(s.box.CreateCustomer(box.Customer{Email: fmt.Sprintf("u%d@example.com", n), ExternalID: fmt.Sprint("usr_", n)}))
			}
			for i := range people {
				create(i)
			}
			s.readsBySteps(func(list string, pages int) {
				if list != "customers" || pages != tt.after {
					return
				}
				for i := range tt.deleted {
					if err := s.box.DeleteCustomer(s.customer(fmt.Sprint("usr_", i)).ID); err != nil {
						t.Fatal(err)
					}
				}
				for i := range tt.created {
					create(people + i)
				}
			})
			held := s.customers()
			lost := 0
			for _, c := range s.box.Customers() {
				if !held[c.ID] {
					lost++
				}
			}
			if lost > 0 {
				t.Errorf("%d of %d are lost", lost, len(s.box.Customers()))
			}
		})
	}
}

// Subscriptions that end between two pages leave the list, and new ones come to
// it: of everybody the gateway says what is so.
func TestSubscriptionsMoveBetweenPages(t *testing.T) {
	s := newShop(t, box.Options{})
	const people = 250
	if err := s.box.Populate(people, s.pro.ID); err != nil {
		t.Fatal(err)
	}
	ended := map[string]bool{}
	s.readsBySteps(func(list string, pages int) {
		if list != "subscriptions" {
			return
		}
		for i := range 40 { // of each page that was read, and of those that come
			user := fmt.Sprint("usr_", (pages-1)*pageSize+i)
			if c, ok := s.box.CustomerByExternalID(user); ok && !ended[user] {
				must(s.box.Revoke(s.box.Subscriptions(c.ID)[0].ID))
				ended[user] = true
			}
		}
		if pages < 3 {
			s.mustBuy(fmt.Sprint("usr_new_", pages), s.pro)
		}
	})
	for i := range people {
		user := fmt.Sprint("usr_", i)
		if ended[user] {
			s.is(user, "pro", false, entitlement.ReasonCanceled)
		} else {
			s.is(user, "pro", true, entitlement.ReasonActive)
		}
	}
	s.is("usr_new_1", "pro", true, entitlement.ReasonActive)
	s.is("usr_new_2", "pro", true, entitlement.ReasonActive)
	if len(ended) == 0 {
		t.Error("none has ended")
	}
}

// Orders that are paid while others are read come at the end, and their buyers
// are known although the customers were read before.
func TestOrdersMoveBetweenPages(t *testing.T) {
	s := newShop(t, box.Options{})
	const people = 120
	for i := range people {
		s.mustBuy(fmt.Sprint("usr_", i), s.lifetime)
	}
	s.readsBySteps(func(list string, pages int) {
		if list == "orders" && pages == 1 {
			s.mustBuy("usr_new", s.lifetime)
			must(s.box.Refund(box.Refund{OrderID: s.order("usr_0").ID, RevokeBenefits: true}))
			if err := s.box.DeleteCustomer(s.customer("usr_1").ID); err != nil {
				t.Fatal(err)
			}
		}
	})
	s.is("usr_new", "lifetime", true, entitlement.ReasonPurchased)
	s.is("usr_0", "lifetime", false, entitlement.ReasonRefunded)
	for i := 2; i < people; i++ {
		s.is(fmt.Sprint("usr_", i), "lifetime", true, entitlement.ReasonPurchased)
	}
}

// A sync confirms what was so when it began: of a period that ends while it is
// under way it may have read before.
func TestPeriodEndsDuringASync(t *testing.T) {
	s := newShop(t, box.Options{})
	s.mustBuy(ada, s.pro)
	s.sync()
	s.box.HoldRenewals(true)
	s.box.AdvanceTo(s.subscription(ada).CurrentPeriodEnd.Add(-time.Minute))
	s.readsBySteps(func(list string, _ int) {
		if list == "subscriptions" {
			s.box.Advance(time.Hour)
		}
	})
	s.is(ada, "pro", true, entitlement.ReasonRenewalGrace)
	s.box.Advance(3 * day)
	s.is(ada, "pro", false, entitlement.ReasonUnavailable)
	s.sync()
	s.is(ada, "pro", false, entitlement.ReasonPeriodEnded)
}

// held are the ids of all subscriptions and orders of the store.
func (s *shop) held() map[string]bool {
	s.t.Helper()
	all := map[string]bool{}
	err := s.g.store.EachSubscription(s.t.Context(), func(x *entitlement.Subscription) error { all[x.ID] = true; return nil })
	if err == nil {
		err = s.g.store.EachOrder(s.t.Context(), func(x *entitlement.Order) error { all[x.ID] = true; return nil })
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return all
}

// At the end of a sync what is long over goes away, with all that hangs on it.
// What can matter stays: what is current, was bought once or ended lately, and
// with a longer grace what is still in it.
func TestSyncForgetsWhatIsLongOver(t *testing.T) {
	for name, grace := range map[string]time.Duration{"no grace": 0, "a long grace": 200 * day} {
		t.Run(name, func(t *testing.T) {
			s := newShop(t, box.Options{}, func(c *Config) { c.Plans[0].Grace.Canceled = grace }).connect()
			ends := func(user string) box.Subscription {
				s.mustBuy(user, s.pro)
				sub := s.subscription(user)
				must(s.box.Revoke(sub.ID))
				s.box.Settle()
				return sub
			}
			s.mustBuy("usr_current", s.pro)
			s.mustBuy("usr_once", s.lifetime)
			old := ends("usr_old")
			s.sync()
			s.box.Advance(60 * day)
			s.box.Settle()
			late := ends("usr_late")
			s.box.Advance(60 * day)
			s.box.Settle()
			s.sync()
			held := s.held()
			for id, want := range map[string]bool{
				old.ID: grace > 0, late.ID: true,
				s.subscription("usr_current").ID: true, s.order("usr_once").ID: true,
			} {
				if held[id] != want {
					t.Errorf("%s is held: %v", id, held[id])
				}
			}
			s.is("usr_current", "pro", true, entitlement.ReasonActive)
			s.is("usr_once", "lifetime", true, entitlement.ReasonPurchased)
			if grace > 0 {
				s.is("usr_old", "pro", true, entitlement.ReasonCanceledGrace)
				s.is("usr_late", "pro", true, entitlement.ReasonCanceledGrace)
			} else {
				s.is("usr_old", "pro", false, entitlement.ReasonNoSubscription)
				s.is("usr_late", "pro", false, entitlement.ReasonCanceled)
			}
		})
	}
}

// answers are the decisions of everybody on every plan.
func (s *shop) answers(users ...string) map[string]entitlement.Decision {
	s.t.Helper()
	all := map[string]entitlement.Decision{}
	for _, user := range users {
		for i := range s.g.plans {
			all[user+" on "+s.g.plans[i].Name] = s.decide(user, s.g.plans[i].Name)
		}
	}
	return all
}

// reopens lets a new gateway go on with the store of another file.
func (s *shop) reopens(path string) {
	s.t.Helper()
	s.g.Close()
	if err := s.g.store.Close(); err != nil {
		s.t.Fatal(err)
	}
	c := s.config
	c.Store = openStore(s.t, path)
	g, err := New(c)
	if err != nil {
		s.t.Fatal(err)
	}
	s.g = g
	if err := g.recallSync(); err != nil {
		s.t.Fatal(err)
	}
}

// A store that was lost is replaced by a backup of it and one sync, passes and
// links included; without a backup one sync decides the same of all that
// Polar knows.
func TestRebuild(t *testing.T) {
	s := newShop(t, box.Options{AllowMultiple: true}, func(c *Config) { c.Sales.Several = true }).connect()
	s.mustBuy(ada, s.pro)
	s.mustBuy("usr_trial", s.trial)
	s.mustBuy("usr_once", s.lifetime)
	s.mustBuy("usr_paid_for_lin", s.max)
	s.pays(s.opens(Visitor{User: "usr_marked"}, s.max.ID), ada+"@example.com") // under Ada's customer
	s.box.Settle()
	s.sync()
	if _, err := s.g.Link(t.Context(), "usr_lin", s.customer("usr_paid_for_lin").ID, LinkOptions{}); err != nil {
		t.Fatal(err)
	}
	must(s.g.GivePass(t.Context(), "usr_press", "pro", s.g.Now().Add(90*day), "press"))
	copied := filepath.Join(t.TempDir(), "backup.db")
	file := must(os.Create(copied))
	if err := s.g.store.Backup(file); err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}

	// Life goes on, and then the store is lost.
	must(s.box.Revoke(s.subscription(ada).ID))
	s.mustBuy("usr_new", s.pro)
	must(s.box.Refund(box.Refund{OrderID: s.order("usr_once").ID}))
	s.box.Advance(20 * day)
	s.box.Settle()
	s.sync()
	everybody := []string{ada, "usr_trial", "usr_once", "usr_paid_for_lin", "usr_lin", "usr_marked", "usr_press", "usr_new", "usr_nobody"}
	want := s.answers(everybody...)
	for answer, reason := range map[string]entitlement.Reason{
		ada + " on pro": entitlement.ReasonCanceled, "usr_marked on max": entitlement.ReasonActive, "usr_press on pro": entitlement.ReasonPass,
		"usr_lin on max": entitlement.ReasonActive, "usr_paid_for_lin on max": entitlement.ReasonNoSubscription,
	} {
		if want[answer].Reason != reason {
			t.Fatalf("%s: %s", answer, want[answer].Reason)
		}
	}
	differ := func(got map[string]entitlement.Decision) []string {
		var all []string
		for answer := range got {
			if got[answer] != want[answer] {
				all = append(all, fmt.Sprintf("%s: %v %s", answer, got[answer].Allowed, got[answer].Reason))
			}
		}
		return slices.Sorted(slices.Values(all))
	}

	s.reopens(copied)
	s.is("usr_lin", "max", true, entitlement.ReasonActive) // at once
	s.is("usr_press", "pro", true, entitlement.ReasonPass)
	s.is("usr_marked", "max", true, entitlement.ReasonActive)
	s.sync()
	if got := differ(s.answers(everybody...)); len(got) > 0 {
		t.Errorf("from a backup: %q", got)
	}

	s.reopens(filepath.Join(t.TempDir(), "polar.db"))
	s.sync()
	got := s.answers("usr_press", "usr_lin", "usr_paid_for_lin")
	for _, known := range []string{"usr_press on pro", "usr_lin on max", "usr_paid_for_lin on max"} { // only here
		if got[known] == want[known] {
			t.Errorf("from nothing: %s is known", known)
		}
	}
	if got := differ(s.answers(ada, "usr_trial", "usr_once", "usr_marked", "usr_new", "usr_nobody")); len(got) > 0 {
		t.Errorf("from nothing: %q", got)
	}
}

package gateway

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/caddy-polar/caddy-polar/entitlement"
	"github.com/caddy-polar/caddy-polar/polar/box"
)

// walk is a shop in which people live at random.
type walk struct {
	*shop
	rng     *rand.Rand
	benefit box.Benefit
	users   []string
	people
	steps   []string       // what has happened, for whoever has to find out why
	done    map[string]int // how often a step was possible
	refuses bool           // webhooks fail at the first attempt
	// syncs says that what no webhook tells is read, and that some are lost.
	syncs bool
	watch func() // what has just happened; nil: nobody does
}

// TestWalk lets people buy, cancel, pause, change their minds and be deleted
// while webhooks come late, twice, in any order, or only at the second attempt.
// After each quiet moment the gateway says of everybody what the box knows.
// What only a sync can tell, lost webhooks and disputes, is not here.
func TestWalk(t *testing.T) {
	const walks = 12
	steps := 55
	if testing.Short() {
		steps = 20
	}
	total := map[string]int{}
	for seed := range uint64(walks) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			w := newWalk(t, seed)
			for range steps {
				w.step()
				if t.Failed() {
					t.Fatalf("after %v", w.steps)
				}
			}
			for name, n := range w.done {
				total[name] += n
			}
		})
	}
	t.Log(total)
	if t.Failed() || testing.Short() {
		return
	}
	wantAll(t, total, false)
}

// wantAll wants every action to have been possible.
func wantAll(t *testing.T, total map[string]int, syncs bool) {
	t.Helper()
	for _, action := range actions {
		if total[action.name] == 0 && (syncs || !action.untold) {
			t.Errorf("%s was never possible: the walk does not test it", action.name)
		}
	}
}

func newWalk(t *testing.T, seed uint64, change ...func(*Config)) *walk {
	w := &walk{rng: rand.New(rand.NewPCG(seed, 7)), done: map[string]int{}}
	w.shop = newShop(t, box.Options{Seed: seed, AllowMultiple: seed%2 == 0, GraceDays: int(seed%3) * 7}, append(change, func(c *Config) {
		c.Sales.Several = seed%2 == 0
		// Polar's own revocation of the grants must not matter.
		c.Plans[4].Benefits = nil
		c.Plans = c.Plans[:4]
	})...)
	w.benefit = w.box.AddBenefit(box.Benefit{Type: "feature_flag", Description: "feature"})
	flagged := w.box.AddProduct(box.Product{
		Name: "Flagged", Interval: "month", Price: box.Price{Amount: 700, Currency: "usd"}, BenefitIDs: []string{w.benefit.ID},
	})
	w.people = newPeople(w.box)
	w.g.plans = append(w.g.plans,
		entitlement.Plan{Name: "team", Products: []string{w.team.ID, w.onceTeam.ID}, Grace: entitlement.DefaultGrace()},
		entitlement.Plan{Name: "suite", Benefits: []string{w.suite.ID}, Grace: entitlement.DefaultGrace()},
		entitlement.Plan{Name: "feature", Benefits: []string{w.benefit.ID}, Grace: entitlement.DefaultGrace()},
		entitlement.Plan{Name: "flagged", Products: []string{flagged.ID}, Grace: entitlement.DefaultGrace()})
	w.g.rules.Store(&entitlement.Rules{Plans: w.g.plans, CanConfirm: true})
	w.connect()
	for i := range 3 {
		w.users = append(w.users, fmt.Sprint("usr_", i))
	}
	return w
}

// actions are what can happen. Each says whether it was possible.
var actions = append([]action{
	{name: "buy", do: (*walk).buy},
	{name: "buy again", do: (*walk).buy},
	{name: "buy still more", do: (*walk).buy},
	{name: "cancel", do: onSubscription(func(w *walk, id string) error { _, err := w.box.Cancel(id, "", ""); return err })},
	{name: "uncancel soon", do: onSubscription(func(w *walk, id string) error { _, err := w.box.Uncancel(id); return err })},
	{name: "uncancel", do: onSubscription(func(w *walk, id string) error { _, err := w.box.Uncancel(id); return err })},
	{name: "revoke", do: onSubscription(func(w *walk, id string) error {
		return w.rarely(func() error { _, err := w.box.Revoke(id); return err })
	})},
	{name: "change now", do: onSubscription(func(w *walk, id string) error {
		// A benefit that was taken back while a payment is due counts until the
		// grace is over, also when the cause was another: nothing tells them apart.
		if s, _ := w.box.Subscription(id); s.Status == "past_due" {
			return errNotNow
		}
		_, err := w.box.ChangePlan(id, w.recurring(), "prorate")
		return err
	})},
	{name: "change later", do: onSubscription(func(w *walk, id string) error {
		_, err := w.box.ChangePlan(id, w.recurring(), "next_period")
		return err
	})},
	{name: "drop the change", do: onSubscription(func(w *walk, id string) error { _, err := w.box.DropPending(id); return err })},
	{name: "pause again", do: onSubscription(func(w *walk, id string) error { _, err := w.box.Pause(id, nil); return err })},
	{name: "pause", do: onSubscription(func(w *walk, id string) error { _, err := w.box.Pause(id, nil); return err })},
	{name: "unpause", do: onSubscription(func(w *walk, id string) error { _, err := w.box.Unpause(id); return err })},
	{name: "resume soon", do: onSubscription(func(w *walk, id string) error { _, err := w.box.Resume(id); return err })},
	{name: "resume", do: onSubscription(func(w *walk, id string) error { _, err := w.box.Resume(id); return err })},
	{name: "end sooner", do: onSubscription(func(w *walk, id string) error {
		_, err := w.box.EndPeriodAt(id, w.box.Now().Add(time.Hour))
		return err
	})},
	{name: "card fails", do: onCustomer(func(w *walk, id string) error { return w.box.SetCard(id, false) })},
	{name: "new card", do: onCustomer(func(w *walk, id string) error { return w.box.UpdateCard(id, true) })},
	{name: "delete", do: onCustomer(func(w *walk, id string) error {
		return w.rarely(func() error { return w.box.DeleteCustomer(id) })
	})},
	{name: "refund", do: onOrder(func(w *walk, o box.Order) error {
		_, err := w.box.Refund(box.Refund{OrderID: o.ID, RevokeBenefits: o.SubscriptionID == "" && w.rng.IntN(2) == 0})
		return err
	})},
	{name: "refund a little", do: onOrder(func(w *walk, o box.Order) error {
		_, err := w.box.Refund(box.Refund{OrderID: o.ID, Amount: 1, RevokeBenefits: o.SubscriptionID == "" && w.rng.IntN(2) == 0})
		return err
	})},
	{name: "prevent a dispute", do: onOrder(func(w *walk, o box.Order) error {
		if o.SubscriptionID != "" {
			return errNotNow
		}
		_, err := w.box.PreventDispute(o.ID)
		return err
	})},
	{name: "hours", do: func(w *walk, _ string) bool { w.box.Advance(time.Duration(w.rng.IntN(30)) * time.Hour); return true }},
	{name: "days", do: func(w *walk, _ string) bool { w.box.Advance(time.Duration(w.rng.IntN(20)) * day); return true }},
}, moreActions...)

// action is something that can happen. untold: no webhook tells of it.
type action struct {
	name   string
	do     func(*walk, string) bool
	untold bool
}

func (w *walk) step() {
	w.refuses = w.rng.IntN(6) == 0
	w.box.SetNetwork(box.Network{
		Double: w.rng.IntN(2) == 0, Shuffle: w.rng.IntN(2) == 0, Delay: time.Duration(w.rng.IntN(3)) * 20 * time.Second,
		Refuse: w.refuses,
	})
	if w.rng.IntN(3) == 0 {
		w.box.CommitLate(time.Duration(w.rng.IntN(90)) * time.Second)
	} else {
		w.box.CommitLate(0)
	}
	w.act()
	// Quiet: what was refused is sent again.
	w.box.Settle()
	w.box.SetNetwork(box.Network{})
	w.box.Advance(3 * time.Minute)
	w.box.Settle()
	w.checkAll("a quiet moment")
}

// act lets something happen.
func (w *walk) act() {
	// Much happens to one person at once, so that old news can come after new.
	focus := w.users[w.rng.IntN(len(w.users))]
	most := 12
	if w.syncs {
		most = 9 // there are more walks, and a sync mends many things at once
	}
	for range 1 + w.rng.IntN(most) {
		action := actions[w.rng.IntN(len(actions))]
		if w.refuses && (action.name == "days" || action.name == "hours") {
			continue // ten attempts, and the event is lost
		}
		if action.untold && !w.syncs {
			continue
		}
		user := focus
		if w.rng.IntN(4) == 0 {
			user = w.users[w.rng.IntN(len(w.users))]
		}
		if action.do(w, user) {
			w.done[action.name]++
			w.steps = append(w.steps, action.name+" "+user)
			if w.watch != nil {
				w.watch()
			}
		}
	}
}

// live lets people live, with webhooks that may come late.
func (w *walk) live(steps int) {
	for range steps {
		w.act()
	}
	w.box.Settle()
}

func (w *walk) checkAll(when string) {
	w.t.Helper()
	for _, user := range w.everybody() {
		w.check(user, when)
	}
}

var errNotNow = errors.New("not now")

// rarely keeps what ends things from ending all of them.
func (w *walk) rarely(do func() error) error {
	if w.rng.IntN(5) > 0 {
		return errNotNow
	}
	return do()
}

func (w *walk) buy(user string) bool {
	p := []box.Product{w.pro, w.max, w.trial, w.lifetime, w.flagged()}[w.rng.IntN(5)]
	v := Visitor{User: user}
	if w.rng.IntN(2) == 0 {
		v.Email, v.EmailVerified = user+"@example.com", true
	}
	c, err := w.g.OpenCheckout(w.t.Context(), v, w.purchase(p.ID))
	if err != nil {
		return false
	}
	_, err = w.box.Confirm(c.ID, box.Payment{Email: user + "@example.com", Declined: w.rng.IntN(8) == 0})
	return err == nil
}

func (w *walk) flagged() box.Product {
	all := w.box.Products()
	return all[slices.IndexFunc(all, func(p box.Product) bool { return p.Name == "Flagged" })]
}

func (w *walk) recurring() string {
	return []string{w.pro.ID, w.max.ID, w.flagged().ID}[w.rng.IntN(3)]
}

// customersOf are all that ever had the user's external id: deleted ones too.
func (w *walk) customersOf(user string) (all []box.Customer) {
	for _, c := range w.box.AllCustomers() {
		if c.ExternalID == user {
			all = append(all, c)
		}
	}
	return all
}

func onCustomer(do func(*walk, string) error) func(*walk, string) bool {
	return func(w *walk, user string) bool {
		for _, c := range w.customersOf(user) {
			if c.DeletedAt == nil {
				return do(w, c.ID) == nil
			}
		}
		return false
	}
}

func onSubscription(do func(*walk, string) error) func(*walk, string) bool {
	return onCustomer(func(w *walk, id string) error {
		subs := w.box.Subscriptions(id)
		if len(subs) == 0 {
			return errNotNow
		}
		return do(w, subs[w.rng.IntN(len(subs))].ID)
	})
}

func onOrder(do func(*walk, box.Order) error) func(*walk, string) bool {
	return onCustomer(func(w *walk, id string) error {
		orders := w.box.Orders(id)
		if len(orders) == 0 {
			return errNotNow
		}
		return do(w, orders[w.rng.IntN(len(orders))])
	})
}

func (w *walk) check(user, when string) {
	w.t.Helper()
	for i := range w.g.plans {
		p := &w.g.plans[i]
		got := w.decide(user, p.Name)
		if want, why := w.truth(user, p); got.Allowed != want && !w.untellable(p) {
			w.t.Errorf("after %s, %s: %s on %s: the gateway says %v %s, the box %v: %s",
				when, w.box.Now().Format(time.RFC3339), user, p.Name, got.Allowed, got.Reason, want, why)
		}
	}
}

// truth is what the box's own objects say about a plan, told by simple rules
// that were written down apart from the ones under test.
func (w *walk) truth(user string, p *entitlement.Plan) (open bool, why string) {
	for _, c := range w.customersOf(user) {
		if c.DeletedAt != nil {
			why += " customer deleted;"
			continue
		}
		for _, s := range w.box.Subscriptions(c.ID) {
			product := w.product(s.ProductID)
			sold := slices.Contains(p.Products, s.ProductID)
			granted := len(p.Benefits) > 0 && slices.Contains(product.BenefitIDs, p.Benefits[0])
			if !sold && !granted || s.Seats > 0 {
				continue
			}
			why += fmt.Sprintf(" %s %s until %s;", product.Name, s.Status, s.CurrentPeriodEnd.Format(time.RFC3339))
			open = open || w.alive(&s)
		}
		for _, o := range w.box.Orders(c.ID) {
			if o.SubscriptionID == "" && o.Seats == 0 && slices.Contains(p.Products, o.ProductID) {
				why += " bought once, " + o.Status + ";"
				open = open || w.kept(&o)
			}
		}
	}
	seated, whySeat := w.seated(user, p)
	passed, whyPass := w.passed(user, p)
	return open || seated || passed, cmp.Or(why+whySeat+whyPass, "nothing")
}

func (w *walk) alive(s *box.Subscription) bool {
	now := w.box.Now()
	switch s.Status {
	case "trialing", "active":
		return true // the box is never late
	case "past_due":
		return now.Before(s.PastDueAt.Add(7*day)) && (s.EndsAt == nil || now.Before(*s.EndsAt))
	}
	return false
}

// kept says that an order was paid, and that nothing has taken it back.
func (w *walk) kept(o *box.Order) bool {
	lost := slices.ContainsFunc(w.box.Disputes(o.ID), func(d box.Dispute) bool { return d.Status == "lost" })
	return (o.Status == "paid" || o.Status == "partially_refunded") && !w.takenBack(o) && !lost
}

func (w *walk) takenBack(o *box.Order) bool {
	return slices.ContainsFunc(w.box.Refunds(o.CustomerID), func(r box.Refund) bool {
		return r.OrderID == o.ID && r.Status == "succeeded" && r.RevokeBenefits
	})
}

func (w *walk) product(id string) box.Product {
	all := w.box.Products()
	return all[slices.IndexFunc(all, func(p box.Product) bool { return p.ID == id })]
}

package gateway

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddy-polar/caddy-polar/cache"
	"github.com/caddy-polar/caddy-polar/entitlement"
	"github.com/caddy-polar/caddy-polar/polar"
	"github.com/caddy-polar/caddy-polar/polar/box"
)

// A pass and a link open at once, and outlive a whole sync and a restart.
func TestPassesAndLinksStay(t *testing.T) {
	path := filepath.Join(t.TempDir(), "polar.db")
	var config Config
	s := newShop(t, box.Options{}, func(c *Config) {
		_ = c.Store.Close()
		c.Store = cache.New(path)
		config = *c
	})
	s.pays(s.opens(Visitor{User: "other"}, s.pro.ID), "lin@example.com")
	s.box.Settle()
	s.sync()
	bought, _ := s.box.CustomerByExternalID("other")
	s.is("lin", "pro", false, entitlement.ReasonNoSubscription)
	if became, err := s.g.Link(t.Context(), "lin", bought.ID, LinkOptions{}); err != nil || became != ExternalOther {
		t.Fatal(became, err)
	}
	until := s.g.Now().Add(30 * day)
	p, err := s.g.GivePass(t.Context(), ada, "max", until, "press")
	if err != nil || !strings.HasPrefix(p.ID, "pass_") || p.Reason != "press" {
		t.Fatal(p, err)
	}
	check := func(when string) {
		t.Helper()
		s.is("lin", "pro", true, entitlement.ReasonActive)
		s.is("other", "pro", false, entitlement.ReasonNoSubscription)
		s.is(ada, "max", true, entitlement.ReasonPass)
		if d := s.decide(ada, "max"); !d.Until.Equal(until) {
			t.Errorf("%s: until %s, want %s", when, d.Until, until)
		}
		if h, err := s.g.Show("lin"); err != nil || len(h.Links) != 1 || h.Links[0] != bought.ID {
			t.Errorf("%s: links %v %v", when, h.Links, err)
		}
	}
	check("at once")
	s.box.Advance(day)
	s.box.Settle()
	s.sync()
	check("after a sync")

	s.g.Close()
	if err := config.Store.Close(); err != nil {
		t.Fatal(err)
	}
	config.Store = openStore(t, path)
	if s.g, err = New(config); err != nil {
		t.Fatal(err)
	}
	check("after a restart")
	s.sync()
	check("after a restart and a sync")
	s.box.Advance(30 * day)
	s.is(ada, "max", false, entitlement.ReasonPassExpired)
}

func TestPassesAreTakenBack(t *testing.T) {
	b := newBench(t)
	first, err := b.g.GivePass(t.Context(), ada, "pro", time.Time{}, "")
	if err != nil {
		t.Fatal(err)
	}
	second, err := b.g.GivePass(t.Context(), ada, "pro", time.Time{}, "")
	if err != nil || second.ID == first.ID {
		t.Fatal(first.ID, second.ID, err)
	}
	if err := b.g.RevokePass(t.Context(), "another", first.ID); !errors.Is(err, ErrNoPass) {
		t.Error("somebody else's pass:", err)
	}
	b.open("pro", entitlement.ReasonPass)
	if err := b.g.RevokePass(t.Context(), ada, first.ID); err != nil {
		t.Fatal(err)
	}
	b.open("pro", entitlement.ReasonPass)
	if err := b.g.RevokePass(t.Context(), ada, second.ID); err != nil {
		t.Fatal(err)
	}
	b.closed("pro", entitlement.ReasonNoSubscription)
	if err := b.g.RevokePass(t.Context(), ada, second.ID); !errors.Is(err, ErrNoPass) {
		t.Error("twice:", err)
	}
}

func TestBadPasses(t *testing.T) {
	b := newBench(t)
	for name, give := range map[string]struct {
		user, plan, reason string
		until              time.Time
		says               string
	}{
		"nobody":          {"", "pro", "", time.Time{}, "user"},
		"control":         {"a\nb", "pro", "", time.Time{}, "user"},
		"long user":       {strings.Repeat("a", 256), "pro", "", time.Time{}, "255"},
		"no plan":         {ada, "", "", time.Time{}, "pro, team"},
		"any":             {ada, "any", "", time.Time{}, "pro, team"},
		"unknown plan":    {ada, "gold", "", time.Time{}, `"gold"`},
		"over":            {ada, "pro", "", b.now.Add(-time.Second), "is over"},
		"now":             {ada, "pro", "", b.now, "is over"},
		"far":             {ada, "pro", "", b.now.AddDate(8000, 0, 0), "without end"},
		"reason in lines": {ada, "pro", "a\nb", time.Time{}, "reason"},
		"long reason":     {ada, "pro", strings.Repeat("a", 201), time.Time{}, "200"},
		"broken reason":   {ada, "pro", "\xff", time.Time{}, "reason"},
	} {
		_, err := b.g.GivePass(t.Context(), give.user, give.plan, give.until, give.reason)
		if _, ok := errors.AsType[InputError](err); !ok || !strings.Contains(err.Error(), give.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if a := b.account(ada); a.Known() {
		t.Errorf("something was written: %+v", a.Passes)
	}
}

// A link tells Polar where nobody else has said anything, and only there.
func TestLinkAtPolar(t *testing.T) {
	s := newShop(t, box.Options{})
	make := func(email, external string) string {
		c, err := s.box.CreateCustomer(box.Customer{Email: email, ExternalID: external})
		if err != nil {
			t.Fatal(err)
		}
		return c.ID
	}
	external := func(id string) string {
		a, err := s.g.client.GetCustomer(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		return a.Item.ExternalID
	}
	fresh, second, theirs := make("a@example.com", ""), make("b@example.com", ""), make("c@example.com", "grace")
	for _, step := range []struct {
		customer string
		o        LinkOptions
		became   ExternalID
		external string
	}{
		{fresh, LinkOptions{DryRun: true}, ExternalWritten, ""},
		{fresh, LinkOptions{NoPolar: true}, ExternalNotAsked, ""},
		{fresh, LinkOptions{}, ExternalWritten, ada},
		{fresh, LinkOptions{}, ExternalPresent, ada},
		{second, LinkOptions{DryRun: true}, ExternalTaken, ""},
		{second, LinkOptions{}, ExternalTaken, ""},
		{theirs, LinkOptions{}, ExternalOther, "grace"},
	} {
		became, err := s.g.Link(t.Context(), ada, step.customer, step.o)
		if err != nil || became != step.became || external(step.customer) != step.external {
			t.Errorf("%+v: %s %q %v", step, became, external(step.customer), err)
		}
		h, err := s.g.Show(ada)
		if err != nil || step.o.DryRun && len(h.Links) > 0 && step.customer == fresh {
			t.Errorf("%+v: %v %v", step, h.Links, err)
		}
	}
	if h, _ := s.g.Show(ada); len(h.Links) != 3 {
		t.Error(h.Links)
	}
	for _, id := range []string{"0f4a2c0e-93b7-4f0e-8a51-6a2d0d5f9c11", "no-id"} {
		if _, err := s.g.Link(t.Context(), ada, id, LinkOptions{}); !errors.Is(err, ErrNotCustomer) {
			t.Errorf("%s: %v", id, err)
		}
	}
	if _, err := s.g.Link(t.Context(), ada, "a b", LinkOptions{NoPolar: true}); err == nil {
		t.Error("an id with a blank is taken")
	}
	if h, _ := s.g.Show(ada); len(h.Links) != 3 {
		t.Error("a bad link was kept:", h.Links)
	}
}

// What a customer has bought before is read with the link.
func TestLinkReadsPurchases(t *testing.T) {
	s := newShop(t, box.Options{})
	s.pays(s.opens(Visitor{User: "other"}, s.pro.ID), "lin@example.com")
	s.pays(s.opens(Visitor{User: "third"}, s.lifetime.ID), "third@example.com")
	s.box.Settle()
	for user, plan := range map[string]string{"other": "pro", "third": "lifetime"} {
		c, _ := s.box.CustomerByExternalID(user)
		if _, err := s.g.Link(t.Context(), ada, c.ID, LinkOptions{}); err != nil {
			t.Fatal(err)
		}
		if d := s.decide(ada, plan); !d.Allowed {
			t.Errorf("%s: %+v", plan, d)
		}
	}
}

func TestUsers(t *testing.T) {
	b := newBench(t)
	b.take(sample(t, "subscription.active.json"))
	for _, user := range []string{"zoe", "a/b", "bob"} {
		if _, err := b.g.GivePass(t.Context(), user, "team", time.Time{}, ""); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		f    UserFilter
		want string
		more bool
	}{
		{UserFilter{Limit: 10}, "a/b bob " + ada + " zoe", false},
		{UserFilter{Limit: 2}, "a/b bob", true},
		{UserFilter{Limit: 2, After: "bob"}, ada + " zoe", false},
		{UserFilter{Limit: 10, Plan: "pro"}, ada, false},
		{UserFilter{Limit: 10, Status: "pass"}, "a/b bob zoe", false},
		{UserFilter{Limit: 1, Status: "pass", After: "bob"}, "zoe", false},
		{UserFilter{Limit: 10, Plan: "team", Status: "active"}, "", false},
	} {
		list, more, err := b.g.Users(t.Context(), tt.f)
		var users []string
		for _, l := range list {
			users = append(users, l.User)
		}
		if got := strings.Join(users, " "); err != nil || got != tt.want || more != tt.more {
			t.Errorf("%+v: %q %t %v", tt.f, got, more, err)
		}
	}
	if _, _, err := b.g.Users(t.Context(), UserFilter{Plan: "gold"}); !errors.Is(err, entitlement.ErrUnknownPlan) {
		t.Error(err)
	}
}

func TestForgetAUser(t *testing.T) {
	b := newBench(t)
	b.take(sample(t, "subscription.active.json"))
	b.open("pro", entitlement.ReasonActive)
	if n, err := b.g.Forget(t.Context(), ada); err != nil || n == 0 {
		t.Fatal(n, err)
	}
	b.closed("pro", entitlement.ReasonNoSubscription)
	for _, line := range b.logs.All() {
		if line.Level >= 0 && strings.Contains(line.Message+strings.Join(values(line.ContextMap()), " "), ada) {
			t.Errorf("the user is in the log: %+v", line)
		}
	}
}

func values(m map[string]any) (all []string) {
	for _, v := range m {
		if s, ok := v.(string); ok {
			all = append(all, s)
		}
	}
	return all
}

func TestExplainAtTheGateway(t *testing.T) {
	s := newShop(t, box.Options{}).connect()
	s.pays(s.opens(adaVisits(), s.pro.ID), "")
	s.box.Settle()
	e, err := s.g.Explain("stranger", time.Time{})
	if err != nil || e.Known || e.Decision.Allowed || !e.AsksPolar {
		t.Errorf("before the first sync: %+v %v", e, err)
	}
	s.sync()
	if e, err = s.g.Explain("stranger", time.Time{}); err != nil || e.AsksPolar {
		t.Errorf("after it: %+v %v", e, err)
	}
	e, err = s.g.Explain(ada, time.Time{}, "pro")
	if err != nil || !e.Known || e.Decision != s.decide(ada, "pro") || len(e.Plans) != 1 {
		t.Fatalf("%+v %v", e, err)
	}
	f := e.Plans[0].Facts[0]
	if !f.Decides || f.Item != s.pro.ID || f.Version.Row.IsZero() || f.Version.AsOf.IsZero() || f.Course[0].Boundary != "current_period_end" {
		t.Errorf("%+v", f)
	}
	later, err := s.g.Explain(ada, e.Decision.Until, "pro")
	if err != nil || later.Decision != e.Plans[0].Next.Decision || later.Decision.Reason != entitlement.ReasonRenewalGrace {
		t.Errorf("%+v %v", later, err)
	}
	if _, err := s.g.Explain(ada, time.Time{}, "gold"); !errors.Is(err, entitlement.ErrUnknownPlan) {
		t.Error(err)
	}
}

func TestStatus(t *testing.T) {
	s := newShop(t, box.Options{}).connect()
	before := s.g.Status()
	if !before.CanAsk || !before.Reachable || !before.TakesWebhooks || len(before.Webhooks) != 0 || before.StoreError != nil ||
		!before.Sync.Last.Began.IsZero() || !before.Sync.NextDue.IsZero() || before.Server != s.box.URL || len(before.Plans) != 5 {
		t.Errorf("%+v", before)
	}
	s.pays(s.opens(adaVisits(), s.pro.ID), "")
	s.box.Settle()
	r := s.sync()
	after := s.g.Status()
	if after.Sync.Last != r || !after.Sync.NextDue.Equal(r.Ended.Add(after.Sync.Every)) || after.Sync.Step != "" || after.Store.FileSize == 0 {
		t.Errorf("%+v", after)
	}
	if at := after.Webhooks["subscription.created"]; at.IsZero() || at.After(s.g.Now()) {
		t.Errorf("webhooks %v", after.Webhooks)
	}
	if after.Plans[0] != (PlanStatus{"pro", 2, 0, false}) || after.Plans[4] != (PlanStatus{"feature", 0, 1, false}) {
		t.Errorf("%+v", after.Plans)
	}
	s.box.SetTrouble(box.Trouble{HTML: true})
	for range breakAfter {
		if _, err := s.g.Sync(t.Context()); err == nil {
			t.Fatal("Polar is down, and the sync does not mind")
		}
	}
	for range breakAfter { // the test's client does not wait for its tries
		s.g.breaker.note(polar.ErrUnavailable, s.g.local())
	}
	down := s.g.Status()
	if down.Reachable || down.Sync.Error == nil || down.Sync.Failures != breakAfter || down.Sync.Last != r || !down.Sync.NextDue.IsZero() {
		t.Errorf("%+v", down)
	}
}

// A member of a team is linked here alone: Polar is asked about customers.
func TestLinkMember(t *testing.T) {
	s := newShop(t, box.Options{}).connect()
	team := s.box.AddProduct(box.Product{Name: "Team", Interval: "month", Price: box.Price{
		Currency: "usd", Tiers: []box.SeatTier{{Min: 1, PerSeat: 1000}},
	}})
	s.g.plans[0].Products = append(s.g.plans[0].Products, team.ID)
	p := s.purchase(team.ID)
	p.Seats = 2
	c, err := s.g.OpenCheckout(t.Context(), Visitor{User: ada}, p)
	if err != nil {
		t.Fatal(err)
	}
	held, _ := s.box.Checkout(c.ID)
	s.pays(held, "ada@example.com")
	owner, _ := s.box.CustomerByExternalID(ada)
	seat, err := s.box.AssignSeat(box.SeatAssignment{
		SubscriptionID: s.box.Subscriptions(owner.ID)[0].ID, Email: "grace@example.com", Immediate: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	s.box.Settle()
	plan := s.g.plans[0].Name
	s.is("grace", plan, false, entitlement.ReasonNoSubscription)
	if became, err := s.g.Link(t.Context(), "grace", seat.MemberID, LinkOptions{}); err != nil || became != ExternalNotAsked {
		t.Fatal(became, err)
	}
	s.is("grace", plan, true, entitlement.ReasonActive)
	if h, err := s.g.Show("grace"); err != nil || len(h.Links) != 1 || len(h.Seats) != 1 || h.OwnCustomer() != "" {
		t.Errorf("%+v, %v", h, err)
	}
}

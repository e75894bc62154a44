package entitlement

import (
	"slices"
	"testing"
	"time"
)

func TestObstacle(t *testing.T) {
	now := time.Date(2026, 11, 2, 9, 0, 0, 0, time.UTC)
	day := 24 * time.Hour
	rules := &Rules{CanConfirm: true, Plans: []Plan{
		{Name: "pro", Products: []string{"pro", "pro_yearly", "pro_forever"}, Grace: Grace{Renewal: 3 * day, Canceled: 5 * day, PastDue: PastDueGrace{For: 7 * day}}},
		{Name: "max", Products: []string{"max"}, Grace: DefaultGrace()},
		{Name: "flag", Products: []string{"flag"}, Benefits: []string{"b"}, Grace: DefaultGrace()},
		// Each tier has what the one below it has.
		{Name: "basic", Products: []string{"free", "plus", "top"}, Grace: DefaultGrace()},
		{Name: "plus", Products: []string{"plus", "top"}, Grace: DefaultGrace()},
		{Name: "top", Products: []string{"top"}, Grace: DefaultGrace()},
	}}
	both := func(all ...Facts) (f Facts) {
		for _, one := range all {
			f.Subscriptions = append(f.Subscriptions, one.Subscriptions...)
			f.Orders = append(f.Orders, one.Orders...)
			f.Grants = append(f.Grants, one.Grants...)
			f.Passes = append(f.Passes, one.Passes...)
		}
		return f
	}
	pass := func(plan string, until time.Time) Facts {
		return Facts{Passes: []Pass{{ID: "p", User: "u", Plan: plan, Until: until}}}
	}
	forever := Facts{Orders: []Order{{ID: "o", CustomerID: "c", ProductID: "pro_forever", Status: OrderPaid}}}
	seats := func(s *Subscription) { s.Seats = true }
	elsewhere := func(s *Subscription) { s.CustomerID = "d" }
	anyway := Sale{Anyway: true}
	sub := func(product string, status Status, change ...func(*Subscription)) Facts {
		s := Subscription{
			ID: "s-" + product, CustomerID: "c", ProductID: product, Status: status,
			PeriodStart: now.Add(-day), PeriodEnd: now.Add(29 * day), TrialEnd: now.Add(29 * day), PastDueAt: now.Add(-day),
		}
		for _, do := range change {
			do(&s)
		}
		return Facts{Subscriptions: []Subscription{s}}
	}
	canceling := func(s *Subscription) { s.CancelAtPeriodEnd, s.EndsAt = true, s.PeriodEnd }
	late := func(s *Subscription) { s.PeriodEnd = now.Add(-day) }
	ended := func(s *Subscription) { s.EndedAt = now.Add(-day) }
	several := Sale{Several: true}
	oneTime := Sale{OneTime: true}
	free := func(s *Subscription) { s.Free = true }
	for _, tt := range []struct {
		name  string
		facts Facts
		want  string // the product
		sale  Sale
		is    Obstacle
		step  NextStep
	}{
		{name: "nothing yet", want: "pro"},
		{"the same", sub("pro", StatusActive), "pro", Sale{}, ObstacleSubscribed, StepPortal},
		{"the same plan", sub("pro", StatusActive), "pro_yearly", Sale{}, ObstacleSubscribed, StepPortal},
		{"the same plan for ever", sub("pro", StatusActive), "pro_forever", oneTime, ObstacleSubscribed, StepPortal},
		{"the same, several", sub("pro", StatusActive), "pro", several, ObstacleSubscribed, StepPortal},
		{"another", sub("pro", StatusActive), "max", Sale{}, ObstacleSubscribed, StepChange},
		{"another, several", sub("pro", StatusActive), "max", several, "", ""},
		{"another, once", sub("pro", StatusActive), "max", oneTime, "", ""},
		{"trialing", sub("pro", StatusTrialing), "max", Sale{}, ObstacleSubscribed, StepChange},
		{"canceling", sub("pro", StatusActive, canceling), "pro", Sale{}, ObstacleSubscribed, StepPortal},
		{"late", sub("pro", StatusActive, late), "pro", Sale{}, ObstacleSubscribed, StepPortal},
		{"of no plan", sub("elsewhere", StatusActive), "pro", Sale{}, ObstacleSubscribed, StepChange},
		{"past due", sub("pro", StatusPastDue), "pro", Sale{}, ObstaclePaymentDue, StepPortal},
		{"past due, another", sub("pro", StatusPastDue), "max", several, ObstaclePaymentDue, StepPortal},
		{"past due, once", sub("pro", StatusPastDue), "max", oneTime, ObstaclePaymentDue, StepPortal},
		{"paused", sub("pro", StatusPaused), "pro", Sale{}, ObstaclePaused, StepPortal},
		{"paused, another", sub("pro", StatusPaused), "max", Sale{}, ObstaclePaused, StepPortal},
		{"paused, once", sub("pro", StatusPaused), "max", oneTime, "", ""},
		{"canceled", sub("pro", StatusCanceled, late), "pro", Sale{}, "", ""},
		{"canceled, grace goes on", sub("pro", StatusCanceled, ended), "pro", Sale{}, "", ""},
		{"incomplete", sub("pro", StatusIncomplete), "pro", Sale{}, "", ""},
		{"free", sub("pro", StatusActive, free), "max", Sale{}, "", ""},
		{"free and canceling", sub("pro", StatusActive, free, canceling), "max", Sale{}, ObstacleSubscribed, StepPortal},
		{"canceling, another", sub("pro", StatusActive, canceling), "max", Sale{}, ObstacleSubscribed, StepPortal},
		{"free trial", sub("pro", StatusTrialing, free), "max", Sale{}, ObstacleSubscribed, StepChange},
		{"free, the same product", sub("pro", StatusActive, free), "pro", Sale{}, ObstacleSubscribed, StepPortal},
		{"free, the same plan", sub("pro", StatusActive, free), "pro_yearly", Sale{}, "", ""},
		{"free, the same plan for ever", sub("pro", StatusActive, free), "pro_forever", oneTime, "", ""},
		{"free seats", sub("pro", StatusActive, free, seats), "max", Sale{}, ObstacleSubscribed, StepChange},
		{"free and paid", both(sub("pro", StatusActive, free), sub("max", StatusActive)), "flag", Sale{}, ObstacleSubscribed, StepChange},
		{"two free ones", both(sub("pro", StatusActive, free), sub("max", StatusActive, free)), "flag", Sale{}, ObstacleSubscribed, StepChange},
		{"two free ones of two customers", both(sub("pro", StatusActive, free), sub("max", StatusActive, free, elsewhere)), "flag", Sale{}, "", ""},
		{"a free tier below", sub("free", StatusActive, free), "plus", Sale{}, "", ""},
		{"a paid tier below", sub("plus", StatusActive), "top", Sale{}, ObstacleSubscribed, StepChange},
		{"a paid tier below, several", sub("plus", StatusActive), "top", several, "", ""},
		{"a paid tier above", sub("top", StatusActive), "plus", several, ObstacleSubscribed, StepPortal},
		{
			"a benefit of the free one",
			both(sub("pro", StatusActive, free), Facts{Grants: []Grant{{ID: "g", CustomerID: "c", SubscriptionID: "s-pro", BenefitID: "b", Granted: true}}}),
			"flag",
			Sale{},
			"", "",
		},
		{
			"bought for ever", forever, "pro",
			Sale{},
			ObstacleSubscribed, StepPortal,
		},
		{
			"bought for ever and refunded",
			Facts{Orders: []Order{{ID: "o", CustomerID: "c", ProductID: "pro_forever", Status: OrderRefunded}}},
			"pro",
			Sale{},
			"", "",
		},
		{"a pass", pass("pro", now.Add(day)), "pro", Sale{}, ObstaclePass, StepCheckout},
		{"a pass for ever", pass("pro", time.Time{}), "pro", Sale{}, ObstaclePass, StepCheckout},
		{"a pass, once", pass("pro", time.Time{}), "pro_forever", oneTime, ObstaclePass, StepCheckout},
		{"a pass, several", pass("pro", time.Time{}), "pro", several, ObstaclePass, StepCheckout},
		{"a pass, anyway", pass("pro", time.Time{}), "pro", anyway, "", ""},
		{"a pass of another plan", pass("max", time.Time{}), "pro", Sale{}, "", ""},
		{"a pass of a tier below", pass("plus", time.Time{}), "top", Sale{}, "", ""},
		{"a pass that ends now", pass("pro", now), "pro", Sale{}, "", ""},
		{"a pass and grace", both(sub("pro", StatusCanceled, ended), pass("pro", now.Add(30*day))), "pro", Sale{}, ObstaclePass, StepCheckout},
		{"a pass that grace outlasts", both(sub("pro", StatusCanceled, ended), pass("pro", now.Add(day))), "pro", Sale{}, "", ""},
		{"a pass and the same", both(sub("pro", StatusActive), pass("pro", time.Time{})), "pro", Sale{}, ObstacleSubscribed, StepPortal},
		{"a pass and the same, anyway", both(sub("pro", StatusActive), pass("pro", time.Time{})), "pro", anyway, ObstacleSubscribed, StepPortal},
		{"a pass and another", both(sub("max", StatusActive), pass("pro", time.Time{})), "pro", Sale{}, ObstacleSubscribed, StepChange},
		{"a pass and past due", both(sub("max", StatusPastDue), pass("pro", time.Time{})), "pro", Sale{}, ObstaclePaymentDue, StepPortal},
		{"a pass and paused", both(sub("pro", StatusPaused), pass("pro", time.Time{})), "pro", Sale{}, ObstaclePaused, StepPortal},
		{"a pass and for ever", both(forever, pass("pro", time.Time{})), "pro", Sale{}, ObstacleSubscribed, StepPortal},
		{"a pass and free", both(sub("pro", StatusActive, free), pass("pro", time.Time{})), "pro_yearly", Sale{}, ObstaclePass, StepCheckout},
		{
			"a benefit",
			Facts{Grants: []Grant{{ID: "g", CustomerID: "c", BenefitID: "b", Granted: true}}},
			"flag",
			Sale{},
			ObstacleSubscribed, StepPortal,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := NewAccount("u", tt.facts)
			tt.sale.Products = []string{tt.want}
			is, step, until := a.Obstacle(&tt.sale, rules, now)
			if is != tt.is || step != tt.step {
				t.Errorf("%q, next %q; want %q, next %q", is, step, tt.is, tt.step)
			}
			want := time.Time{}
			if is == ObstaclePass {
				want = tt.facts.Passes[0].Until
			}
			if !until.Equal(want) {
				t.Errorf("until %s, want %s", until, want)
			}
		})
	}
}

// A deleted customer's subscriptions stand in nobody's way.
func TestNoObstacleOfDeleted(t *testing.T) {
	now := time.Date(2026, 11, 2, 9, 0, 0, 0, time.UTC)
	rules := &Rules{Plans: []Plan{{Name: "pro", Products: []string{"pro"}, Grace: DefaultGrace()}}}
	a := NewAccount("u", Facts{
		Customers:     []HeldCustomer{{Customer: Customer{ID: "c", DeletedAt: now.Add(-time.Hour)}, Own: true}},
		Subscriptions: []Subscription{{ID: "s", CustomerID: "c", ProductID: "pro", Status: StatusPastDue}},
	})
	if is, _, _ := a.Obstacle(&Sale{Products: []string{"pro"}}, rules, now); is != "" {
		t.Error(is)
	}
	for range a.CurrentSubscriptions() {
		t.Error("a deleted customer's subscription is current")
	}
}

// A plan can sell what its free tier is: that is not sold to who has it.
func TestUpgradable(t *testing.T) {
	sub := func(id, product string, change ...func(*Subscription)) Subscription {
		s := Subscription{ID: id, CustomerID: "c", ProductID: product, Status: StatusActive, Free: true}
		for _, do := range change {
			do(&s)
		}
		return s
	}
	a := NewAccount("u", Facts{Subscriptions: []Subscription{
		sub("theirs", "a"), sub("own", "b"), sub("paid", "c", func(s *Subscription) { s.Free = false }),
		sub("seats", "d", func(s *Subscription) { s.Seats = true }),
		sub("ends", "e", func(s *Subscription) { s.CancelAtPeriodEnd = true }),
	}})
	for _, tt := range []struct {
		billed []string
		want   string
	}{
		{nil, ""}, {[]string{"own"}, "own"}, {[]string{"paid", "seats", "ends"}, ""}, {[]string{"paid", "own"}, "own"}, {[]string{"theirs"}, "theirs"},
	} {
		got := a.Upgradable(tt.billed)
		if got == nil != (tt.want == "") || got != nil && got.ID != tt.want {
			t.Errorf("%v: %+v", tt.billed, got)
		}
	}
	for _, tt := range []struct{ products, want []string }{
		{[]string{"b"}, []string{"b"}},
		{[]string{"b", "c"}, []string{"c"}},
		{[]string{"x", "a", "b", "d", "e"}, []string{"x", "d", "e"}},
		{[]string{"a", "b"}, []string{"a", "b"}},
	} {
		if got := a.WithoutFree(tt.products); !slices.Equal(got, tt.want) {
			t.Errorf("%v: %v", tt.products, got)
		}
	}
}

// Somebody else's seat is worth a word before paying, and stands in no way.
func TestSeatBeforeASale(t *testing.T) {
	now := time.Date(2026, 11, 2, 9, 0, 0, 0, time.UTC)
	rules := &Rules{Plans: []Plan{{Name: "pro", Products: []string{"pro", "team"}, Grace: DefaultGrace()}}}
	team := Subscription{ID: "s", CustomerID: "c", ProductID: "team", Status: StatusActive, Seats: true, PeriodEnd: now.Add(time.Hour)}
	seat := Seat{ID: "t", SubscriptionID: "s", MemberID: "m", Claimed: true}
	seated := func(foreign bool, change func(*Subscription, *Seat)) *Account {
		team, seat := team, seat
		change(&team, &seat)
		f := Facts{Subscriptions: []Subscription{team}, Seats: []Seat{seat}}
		if foreign {
			f.Foreign = []string{"s", "c"}
		}
		return NewAccount("u", f)
	}
	as := func(*Subscription, *Seat) {}
	for name, tt := range map[string]struct {
		a    *Account
		sale Sale
		is   Obstacle
		step NextStep
	}{
		"somebody else's":           {seated(true, as), Sale{}, ObstacleSeat, StepCheckout},
		"somebody else's, told":     {seated(true, as), Sale{Anyway: true}, "", ""},
		"somebody else's, past due": {seated(true, func(s *Subscription, _ *Seat) { s.Status, s.PastDueAt = StatusPastDue, now.Add(-time.Hour) }), Sale{}, "", ""},
		"somebody else's, revoked":  {seated(true, func(_ *Subscription, s *Seat) { s.Claimed, s.Revoked = false, true }), Sale{}, "", ""},
		"their own":                 {seated(false, as), Sale{}, ObstacleSubscribed, StepPortal},
		"their own, nobody in it":   {seated(false, func(_ *Subscription, s *Seat) { s.Claimed = false }), Sale{}, ObstacleSubscribed, StepChange},
	} {
		t.Run(name, func(t *testing.T) {
			tt.sale.Products = []string{"pro"}
			if is, step, _ := tt.a.Obstacle(&tt.sale, rules, now); is != tt.is || step != tt.step {
				t.Errorf("%q, next %q; want %q, next %q", is, step, tt.is, tt.step)
			}
		})
	}
}

package entitlement

import (
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
	}}
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
		{"free and canceling", sub("pro", StatusActive, free, canceling), "max", Sale{}, ObstacleSubscribed, StepChange},
		{"free trial", sub("pro", StatusTrialing, free), "max", Sale{}, ObstacleSubscribed, StepChange},
		{"free, the same plan", sub("pro", StatusActive, free), "pro", Sale{}, ObstacleSubscribed, StepPortal},
		{
			"bought for ever",
			Facts{Orders: []Order{{ID: "o", CustomerID: "c", ProductID: "pro_forever", Status: OrderPaid}}},
			"pro",
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
		{"a pass", Facts{Passes: []Pass{{ID: "p", User: "u", Plan: "pro"}}}, "pro", Sale{}, "", ""},
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
			is, step := a.Obstacle(&tt.sale, rules, now)
			if is != tt.is || step != tt.step {
				t.Errorf("%q, next %q; want %q, next %q", is, step, tt.is, tt.step)
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
	if is, _ := a.Obstacle(&Sale{Products: []string{"pro"}}, rules, now); is != "" {
		t.Error(is)
	}
	for range a.CurrentSubscriptions() {
		t.Error("a deleted customer's subscription is current")
	}
}

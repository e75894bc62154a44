package gateway

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/caddy-polar/caddy-polar/cache"
	"github.com/caddy-polar/caddy-polar/entitlement"
)

// stageAt is the stage of a plan at a moment.
func stageAt(stages []cache.Stage, plan string, now time.Time) (cache.Stage, bool) {
	for _, s := range stages {
		if s.Plan == plan && !now.Before(s.From) && (s.Until.IsZero() || now.Before(s.Until)) {
			return s, true
		}
	}
	return cache.Stage{}, false
}

// TestStagesTellWhatIsDecided: whatever somebody has, the stages tell for each moment from
// now on what would be decided at it, if nothing changes.
func TestStagesTellWhatIsDecided(t *testing.T) {
	b := newBench(t)
	rules := b.g.Rules()
	var products []string
	for _, p := range rules.Plans {
		products = append(products, p.Products...)
	}
	moment := func(t *rapid.T, label string) time.Time {
		if rapid.IntRange(0, 3).Draw(t, label+" is set") == 0 {
			return time.Time{}
		}
		return b.now.Add(time.Duration(rapid.IntRange(-40*24, 40*24).Draw(t, label)) * time.Hour)
	}
	rapid.Check(t, func(t *rapid.T) {
		facts := entitlement.Facts{Customers: []entitlement.HeldCustomer{{Customer: entitlement.Customer{ID: "c", ExternalID: "ada"}, Own: true}}}
		for i := range rapid.IntRange(0, 3).Draw(t, "subscriptions") {
			status := rapid.SampledFrom([]entitlement.Status{
				entitlement.StatusActive, entitlement.StatusTrialing, entitlement.StatusPastDue, entitlement.StatusUnpaid,
				entitlement.StatusCanceled, entitlement.StatusPaused, entitlement.StatusIncomplete, "frozen",
			}).Draw(t, "status")
			product := rapid.SampledFrom(products).Draw(t, "product")
			facts.Subscriptions = append(facts.Subscriptions, entitlement.Subscription{
				ID: string(rune('a' + i)), CustomerID: "c", ProductID: product, Status: status,
				PeriodStart: moment(t, "start"), PeriodEnd: moment(t, "end"), TrialEnd: moment(t, "trial"), EndsAt: moment(t, "ends"),
				EndedAt: moment(t, "ended"), PastDueAt: moment(t, "past due"),
				CancelAtPeriodEnd: rapid.Bool().Draw(t, "cancels"), PauseAtPeriodEnd: rapid.Bool().Draw(t, "pauses"),
			})
		}
		if rapid.Bool().Draw(t, "a pass") {
			facts.Passes = []entitlement.Pass{{ID: "p", User: "ada", Plan: rules.Plans[0].Name, Until: moment(t, "pass")}}
		}
		account := entitlement.NewAccount("ada", facts)
		stages := b.g.stages(account)
		for _, plan := range rules.Plans {
			q, err := rules.Require(plan.Name)
			if err != nil {
				t.Fatal(err)
			}
			open := true // those who come back are told when they do
			for hours := 0; hours < 60*24; hours += 3 {
				now := b.now.Add(time.Duration(hours) * time.Hour)
				d := entitlement.Decide(account, q, rules, now)
				stage, told := stageAt(stages, plan.Name, now)
				if open = open && d.Allowed; told != open || told && stage.Reason != string(d.Reason) {
					t.Fatalf("after %d hours %s is told %+v, %v, and decided %+v\n%+v", hours, plan.Name, stage, told, d, stages)
				}
			}
		}
	})
}

package entitlement_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	ent "github.com/caddy-polar/caddy-polar/entitlement"
)

const (
	day  = 24 * time.Hour
	tick = time.Microsecond // what Polar's database resolves

	prodPro   = "prod_pro"
	prodYear  = "prod_pro_year"
	prodTeam  = "prod_team"
	prodOther = "prod_other" // of no plan
	benPro    = "ben_pro"
	benExtra  = "ben_extra" // of the plan that sells nothing
	benOther  = "ben_other" // of no plan
)

var (
	start = time.Date(2026, 10, 1, 12, 0, 0, 0, time.UTC) // of the period
	end   = start.Add(30 * day)                           // of the period
)

// rules has three plans: pro with products and a benefit, team with a product
// only, extra with a benefit only.
func rules(grace ...func(*ent.Grace)) *ent.Rules {
	g := ent.DefaultGrace()
	for _, set := range grace {
		set(&g)
	}
	return &ent.Rules{Plans: []ent.Plan{
		{Name: "pro", Products: []string{prodPro, prodYear}, Benefits: []string{benPro}, Grace: g},
		{Name: "team", Products: []string{prodTeam}, Grace: g},
		{Name: "extra", Benefits: []string{benExtra}, Grace: g},
	}}
}

func require(t testing.TB, r *ent.Rules, names ...string) ent.Requirement {
	t.Helper()
	q, err := r.Require(names...)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

type subMod = func(*ent.Subscription)

// sub is a subscription to pro whose period goes from start to end.
func sub(status ent.Status, mods ...subMod) ent.Subscription {
	s := ent.Subscription{
		Version: ent.Version{Row: start, AsOf: start}, ID: "sub", CustomerID: "cus", ProductID: prodPro,
		Status: status, PeriodStart: start, PeriodEnd: end,
	}
	for _, m := range mods {
		m(&s)
	}
	return s
}

func subID(id string) subMod        { return func(s *ent.Subscription) { s.ID = id } }
func product(id string) subMod      { return func(s *ent.Subscription) { s.ProductID = id } }
func customer(id string) subMod     { return func(s *ent.Subscription) { s.CustomerID = id } }
func periodEnd(t time.Time) subMod  { return func(s *ent.Subscription) { s.PeriodEnd = t } }
func trialEnd(t time.Time) subMod   { return func(s *ent.Subscription) { s.TrialEnd = t } }
func pastDueAt(t time.Time) subMod  { return func(s *ent.Subscription) { s.PastDueAt = t } }
func pausedAt(t time.Time) subMod   { return func(s *ent.Subscription) { s.PausedAt = t } }
func endsAt(t time.Time) subMod     { return func(s *ent.Subscription) { s.EndsAt = t } }
func endedAt(t time.Time) subMod    { return func(s *ent.Subscription) { s.EndedAt = t } }
func canceledAt(t time.Time) subMod { return func(s *ent.Subscription) { s.CanceledAt = t } }
func told(t time.Time) subMod       { return func(s *ent.Subscription) { s.Version.AsOf = t } }
func cancels(t time.Time) subMod {
	return func(s *ent.Subscription) { s.CancelAtPeriodEnd, s.EndsAt, s.CanceledAt = true, t, start.Add(day) }
}
func pauses(s *ent.Subscription)   { s.PauseAtPeriodEnd = true }
func subSeats(s *ent.Subscription) { s.Seats = true }

func order(status ent.OrderStatus, mods ...func(*ent.Order)) ent.Order {
	o := ent.Order{
		Version: ent.Version{Row: start, AsOf: start}, ID: "ord", CustomerID: "cus", ProductID: prodPro, Status: status,
	}
	for _, m := range mods {
		m(&o)
	}
	return o
}

func orderChanged(t time.Time) func(*ent.Order) { return func(o *ent.Order) { o.Version.Row = t } }

type grantMod = func(*ent.Grant)

// grant is a live grant of pro's benefit.
func grant(mods ...grantMod) ent.Grant {
	g := ent.Grant{
		Version: ent.Version{Row: start, AsOf: start}, ID: "gr", CustomerID: "cus", BenefitID: benPro, Granted: true,
	}
	for _, m := range mods {
		m(&g)
	}
	return g
}

func grantID(id string) grantMod { return func(g *ent.Grant) { g.ID = id } }
func benefit(id string) grantMod { return func(g *ent.Grant) { g.BenefitID = id } }
func ofSub(id string) grantMod   { return func(g *ent.Grant) { g.SubscriptionID = id } }
func ofOrder(id string) grantMod { return func(g *ent.Grant) { g.OrderID = id } }
func revoked(t time.Time) grantMod {
	return func(g *ent.Grant) { g.Granted, g.Revoked, g.RevokedAt = false, true, t }
}
func actionRequired(g *ent.Grant) { g.Granted, g.Revoked = false, false }

func refund(t time.Time, mods ...func(*ent.Refund)) ent.Refund {
	r := ent.Refund{Version: ent.Version{Row: t, AsOf: t}, ID: "ref", CustomerID: "cus", OrderID: "ord", Succeeded: true}
	for _, m := range mods {
		m(&r)
	}
	return r
}

func revoking(r *ent.Refund) { r.RevokeBenefits = true }
func pending(r *ent.Refund)  { r.Succeeded = false }
func lost(r *ent.Refund)     { r.Disputed, r.DisputeLost = true, true }
func disputed(r *ent.Refund) { r.Disputed = true }

func pass(until time.Time) ent.Pass {
	return ent.Pass{ID: "pass", User: "ann", Plan: "pro", Until: until}
}

// facts puts objects together, with the customer they are under.
func facts(things ...any) ent.Facts {
	var f ent.Facts
	for _, thing := range things {
		switch x := thing.(type) {
		case ent.Subscription:
			f.Subscriptions = append(f.Subscriptions, x)
		case ent.Order:
			f.Orders = append(f.Orders, x)
		case ent.Grant:
			f.Grants = append(f.Grants, x)
		case ent.Refund:
			f.Refunds = append(f.Refunds, x)
		case ent.Seat:
			f.Seats = append(f.Seats, x)
		case ent.Pass:
			f.Passes = append(f.Passes, x)
		case ent.HeldCustomer:
			f.Customers = append(f.Customers, x)
		case []any:
			g := facts(x...)
			f.Subscriptions = append(f.Subscriptions, g.Subscriptions...)
			f.Orders = append(f.Orders, g.Orders...)
			f.Grants = append(f.Grants, g.Grants...)
			f.Refunds = append(f.Refunds, g.Refunds...)
			f.Passes = append(f.Passes, g.Passes...)
			for _, c := range g.Customers {
				if c.ID != "cus" {
					f.Customers = append(f.Customers, c)
				}
			}
		default:
			panic(fmt.Sprintf("%T", thing))
		}
	}
	if !slices.ContainsFunc(f.Customers, func(c ent.HeldCustomer) bool { return c.ID == "cus" }) {
		f.Customers = append(f.Customers, held("cus", time.Time{}))
	}
	return f
}

func held(id string, deleted time.Time) ent.HeldCustomer {
	return ent.HeldCustomer{Customer: ent.Customer{ID: id, ExternalID: "ann", DeletedAt: deleted}, Own: true}
}

// answers is the specification's status code and the step for each refusal.
var answers = map[ent.Reason]struct {
	http int
	step ent.NextStep
}{
	ent.ReasonPeriodEnded:     {402, ent.StepCheckout},
	ent.ReasonTrialEnded:      {402, ent.StepCheckout},
	ent.ReasonCanceled:        {402, ent.StepCheckout},
	ent.ReasonPaused:          {402, ent.StepPortal},
	ent.ReasonPastDue:         {402, ent.StepPortal},
	ent.ReasonUnpaid:          {402, ent.StepPortal},
	ent.ReasonIncomplete:      {402, ent.StepCheckout},
	ent.ReasonUnknownStatus:   {503, ent.StepWait},
	ent.ReasonRefunded:        {402, ent.StepCheckout},
	ent.ReasonDisputed:        {403, ent.StepContact},
	ent.ReasonBenefitRevoked:  {402, ent.StepCheckout},
	ent.ReasonSeatRevoked:     {403, ent.StepContact},
	ent.ReasonPassExpired:     {402, ent.StepCheckout},
	ent.ReasonCustomerDeleted: {403, ent.StepContact},
	ent.ReasonNoSubscription:  {402, ent.StepCheckout},
	ent.ReasonPlanRequired:    {402, ent.StepCheckout},
	ent.ReasonUnavailable:     {503, ent.StepWait},
}

var never time.Time // no end, or nothing that ended

func yes(reason ent.Reason, status string, until time.Time) ent.Decision {
	return ent.Decision{Allowed: true, Reason: reason, Plan: "pro", Status: status, Until: until, HTTPStatus: 200}
}

func grace(reason ent.Reason, status string, until time.Time) ent.Decision {
	d := yes(reason, status, until)
	d.Grace = true
	return d
}

func no(reason ent.Reason, status string, ended time.Time) ent.Decision {
	return ent.Decision{
		Reason: reason, Plan: "pro", Status: status, Until: ended,
		HTTPStatus: answers[reason].http, NextStep: answers[reason].step,
	}
}

// nothing is the refusal of those who hold nothing that counts.
func nothing() ent.Decision {
	d := no(ent.ReasonNoSubscription, "none", never)
	d.Plan = ""
	return d
}

type moment struct {
	at   time.Time
	want ent.Decision
}

type row struct {
	name  string
	facts ent.Facts
	rules *ent.Rules // nil: rules()
	when  []moment
}

func (c *row) run(t *testing.T) {
	t.Helper()
	r := c.rules
	if r == nil {
		r = rules()
	}
	a := ent.NewAccount("ann", c.facts)
	q := require(t, r, "pro")
	for _, m := range c.when {
		if got := ent.Decide(a, q, r, m.at); got != m.want {
			t.Errorf("at %s\n got %+v\nwant %+v", m.at.Format(time.RFC3339Nano), got, m.want)
		}
	}
}

func pastDueFor(d time.Duration) func(*ent.Grace) {
	return func(g *ent.Grace) { g.PastDue, g.TrialPastDue = ent.PastDueGrace{For: d}, ent.PastDueGrace{For: d} }
}

func pastDuePolar(g *ent.Grace) {
	g.PastDue, g.TrialPastDue = ent.PastDueGrace{Polar: true}, ent.PastDueGrace{Polar: true}
}

func trialPastDueFor(d time.Duration) func(*ent.Grace) {
	return func(g *ent.Grace) { g.TrialPastDue = ent.PastDueGrace{For: d} }
}
func renewalFor(d time.Duration) func(*ent.Grace)  { return func(g *ent.Grace) { g.Renewal = d } }
func unpaidFor(d time.Duration) func(*ent.Grace)   { return func(g *ent.Grace) { g.Unpaid = d } }
func canceledFor(d time.Duration) func(*ent.Grace) { return func(g *ent.Grace) { g.Canceled = d } }

func TestDecideActive(t *testing.T) {
	late := end.Add(3 * day)
	rows := []row{
		{"default grace", facts(sub("active")), nil, []moment{
			{start, yes("active", "active", end)},
			{end.Add(-tick), yes("active", "active", end)},
			{end, grace("renewal_grace", "active", late)},
			{end.Add(tick), grace("renewal_grace", "active", late)},
			{late.Add(-tick), grace("renewal_grace", "active", late)},
			{late, no("period_ended", "active", late)},
			{late.Add(365 * day), no("period_ended", "active", late)},
		}},
		{"configured grace", facts(sub("active")), rules(renewalFor(time.Hour)), []moment{
			{end.Add(-tick), yes("active", "active", end)},
			{end, grace("renewal_grace", "active", end.Add(time.Hour))},
			{end.Add(time.Hour - tick), grace("renewal_grace", "active", end.Add(time.Hour))},
			{end.Add(time.Hour), no("period_ended", "active", end.Add(time.Hour))},
		}},
		{"no grace", facts(sub("active")), rules(renewalFor(0)), []moment{
			{end.Add(-tick), yes("active", "active", end)},
			{end, no("period_ended", "active", end)},
		}},
		{"a trial that is over does not matter", facts(sub("active", trialEnd(start))), nil, []moment{
			{end.Add(-tick), yes("active", "active", end)},
			{late, no("period_ended", "active", late)},
		}},
		{"a scheduled plan change does not matter", facts(sub("active", func(s *ent.Subscription) {
			s.PendingProductID, s.PendingAt = prodTeam, start.Add(day)
		})), nil, []moment{
			{start.Add(2 * day), yes("active", "active", end)},
		}},
		{"a scheduled plan change does not open", facts(sub("active", product(prodTeam), func(s *ent.Subscription) {
			s.PendingProductID, s.PendingAt = prodPro, start.Add(day)
		})), nil, []moment{
			{start.Add(2 * day), elsewhere("active", ent.StepChange)},
		}},
		{"cancel scheduled", facts(sub("active", cancels(end))), nil, []moment{
			{end.Add(-tick), yes("canceling", "active", end)},
			{end, no("canceled", "active", end)},
			{end.Add(tick), no("canceled", "active", end)},
		}},
		{"cancel scheduled for another time than the period's", facts(sub("active", cancels(end.Add(-day)))), nil, []moment{
			{end.Add(-day - tick), yes("canceling", "active", end.Add(-day))},
			{end.Add(-day), no("canceled", "active", end.Add(-day))},
		}},
		{
			"cancel scheduled has neither renewal nor canceled grace", facts(sub("active", cancels(end))),
			rules(renewalFor(9*day), canceledFor(9*day)),
			[]moment{
				{end, no("canceled", "active", end)},
			},
		},
		{"cancel scheduled needs no confirmation", facts(sub("active", cancels(end))), confirming(rules(), never), []moment{
			{end.Add(10 * day), no("canceled", "active", end)},
		}},
		{"pause scheduled", facts(sub("active", pauses)), nil, []moment{
			{end.Add(-tick), yes("pausing", "active", end)},
			{end, no("paused", "active", end)},
		}},
		{
			"pause scheduled has no renewal grace and needs no confirmation", facts(sub("active", pauses)),
			confirming(rules(renewalFor(9*day)), never),
			[]moment{
				{end, no("paused", "active", end)},
				{end.Add(20 * day), no("paused", "active", end)},
			},
		},
	}
	for _, c := range rows {
		t.Run(c.name, c.run)
	}
}

func TestDecideTrialing(t *testing.T) {
	trial := start.Add(14 * day)
	late := trial.Add(3 * day)
	rows := []row{
		{"default grace", facts(sub("trialing", trialEnd(trial))), nil, []moment{
			{trial.Add(-tick), yes("trialing", "trialing", trial)},
			{trial, grace("renewal_grace", "trialing", late)},
			{late.Add(-tick), grace("renewal_grace", "trialing", late)},
			{late, no("trial_ended", "trialing", late)},
			{late.Add(tick), no("trial_ended", "trialing", late)},
		}},
		{"configured grace", facts(sub("trialing", trialEnd(trial))), rules(renewalFor(time.Hour)), []moment{
			{trial.Add(time.Hour - tick), grace("renewal_grace", "trialing", trial.Add(time.Hour))},
			{trial.Add(time.Hour), no("trial_ended", "trialing", trial.Add(time.Hour))},
		}},
		{"cancel scheduled", facts(sub("trialing", trialEnd(trial), periodEnd(trial), cancels(trial))), nil, []moment{
			{trial.Add(-tick), yes("canceling", "trialing", trial)},
			{trial, no("canceled", "trialing", trial)},
		}},
		{"pause scheduled", facts(sub("trialing", trialEnd(trial), periodEnd(trial), pauses)), nil, []moment{
			{trial.Add(-tick), yes("pausing", "trialing", trial)},
			{trial, no("paused", "trialing", trial)},
		}},
	}
	for _, c := range rows {
		t.Run(c.name, c.run)
	}
}

func TestDecidePastDue(t *testing.T) {
	failed := start.Add(2 * time.Hour)
	week := failed.Add(7 * day)
	dunning := failed.Add(21*day + time.Minute)
	dued := pastDueAt(failed)
	trial := []subMod{dued, trialEnd(start)} // the period is the first after the trial
	rows := []row{
		{"default grace", facts(sub("past_due", dued)), nil, []moment{
			{failed, grace("past_due_grace", "past_due", week)},
			{week.Add(-tick), grace("past_due_grace", "past_due", week)},
			{week, no("past_due", "past_due", week)},
			{week.Add(tick), no("past_due", "past_due", week)},
			{end.Add(60 * day), no("past_due", "past_due", week)},
		}},
		{"configured grace", facts(sub("past_due", dued)), rules(pastDueFor(time.Hour)), []moment{
			{failed.Add(time.Hour - tick), grace("past_due_grace", "past_due", failed.Add(time.Hour))},
			{failed.Add(time.Hour), no("past_due", "past_due", failed.Add(time.Hour))},
		}},
		{"off", facts(sub("past_due", dued)), rules(pastDueFor(0)), []moment{
			{failed, no("past_due", "past_due", failed)},
			{failed.Add(tick), no("past_due", "past_due", failed)},
		}},
		{"past_due_at missing: from the period's start", facts(sub("past_due")), nil, []moment{
			{start.Add(7*day - tick), grace("past_due_grace", "past_due", start.Add(7*day))},
			{start.Add(7 * day), no("past_due", "past_due", start.Add(7*day))},
		}},
		{"capped by ends_at", facts(sub("past_due", dued, endsAt(failed.Add(day)))), nil, []moment{
			{failed.Add(day - tick), grace("past_due_grace", "past_due", failed.Add(day))},
			{failed.Add(day), no("past_due", "past_due", failed.Add(day))},
		}},
		{"ends_at after the grace does not matter", facts(sub("past_due", dued, endsAt(end))), nil, []moment{
			{week.Add(-tick), grace("past_due_grace", "past_due", week)},
			{week, no("past_due", "past_due", week)},
		}},
		{"first after a trial: as past_due by default", facts(sub("past_due", trial...)), nil, []moment{
			{week.Add(-tick), grace("past_due_grace", "past_due", week)},
			{week, no("past_due", "past_due", week)},
		}},
		{"first after a trial: trial_past_due", facts(sub("past_due", trial...)), rules(trialPastDueFor(day)), []moment{
			{failed.Add(day - tick), grace("past_due_grace", "past_due", failed.Add(day))},
			{failed.Add(day), no("past_due", "past_due", failed.Add(day))},
		}},
		{"first after a trial: off", facts(sub("past_due", trial...)), rules(trialPastDueFor(0)), []moment{
			{failed, no("past_due", "past_due", failed)},
		}},
		{"first after a trial, past_due_at missing", facts(sub("past_due", trialEnd(start))), rules(trialPastDueFor(day)), []moment{
			{start.Add(day - tick), grace("past_due_grace", "past_due", start.Add(day))},
			{start.Add(day), no("past_due", "past_due", start.Add(day))},
		}},
		{"second period after a trial: past_due", facts(sub("past_due", dued, trialEnd(start.Add(-30*day)))), rules(trialPastDueFor(0)), []moment{
			{week.Add(-tick), grace("past_due_grace", "past_due", week)},
			{week, no("past_due", "past_due", week)},
		}},
		{
			"past due longer than a period, first after the trial (contract 20)",
			facts(sub("past_due", pastDueAt(start.Add(-7*day+time.Hour)), trialEnd(start.Add(-7*day)), periodEnd(start.Add(7*day)))),
			rules(pastDueFor(9*day), trialPastDueFor(8*day)),
			[]moment{
				{start.Add(day + time.Hour - tick), grace("past_due_grace", "past_due", start.Add(day+time.Hour))},
				{start.Add(day + time.Hour), no("past_due", "past_due", start.Add(day+time.Hour))},
			},
		},
		{
			"past due longer than a period, later than the trial",
			facts(sub("past_due", pastDueAt(start.Add(-7*day+time.Hour)), trialEnd(start.Add(-14*day)), periodEnd(start.Add(7*day)))),
			rules(pastDueFor(9*day), trialPastDueFor(8*day)),
			[]moment{
				{start.Add(2*day + time.Hour - tick), grace("past_due_grace", "past_due", start.Add(2*day+time.Hour))},
				{start.Add(2*day + time.Hour), no("past_due", "past_due", start.Add(2*day+time.Hour))},
			},
		},
		{"polar, without grants: until dunning ends", facts(sub("past_due", dued)), rules(pastDuePolar), []moment{
			{failed, grace("past_due_grace", "past_due", dunning)},
			{dunning.Add(-tick), grace("past_due_grace", "past_due", dunning)},
			{dunning, no("past_due", "past_due", dunning)},
		}},
		{"polar, grants live", facts(sub("past_due", dued), grant(ofSub("sub"), benefit(benOther))), rules(pastDuePolar), []moment{
			{dunning.Add(-tick), grace("past_due_grace", "past_due", dunning)},
			{dunning, no("past_due", "past_due", dunning)},
		}},
		{"polar, all revoked at past_due_at", facts(sub("past_due", dued), grant(ofSub("sub"), benefit(benOther), revoked(failed))), rules(pastDuePolar), []moment{
			{failed, no("past_due", "past_due", failed)},
		}},
		{"polar, all revoked later, the last one counts", facts(sub("past_due", dued),
			grant(ofSub("sub"), benefit(benOther), grantID("a"), revoked(failed.Add(3*day))),
			grant(ofSub("sub"), benefit("ben_x"), grantID("b"), revoked(failed.Add(2*day)))), rules(pastDuePolar), []moment{
			{failed.Add(3*day - tick), grace("past_due_grace", "past_due", failed.Add(3*day))},
			{failed.Add(3 * day), no("past_due", "past_due", failed.Add(3*day))},
		}},
		{"polar, some revoked", facts(sub("past_due", dued),
			grant(ofSub("sub"), benefit(benOther), grantID("a"), revoked(failed.Add(day))),
			grant(ofSub("sub"), benefit("ben_x"), grantID("b"))), rules(pastDuePolar), []moment{
			{failed.Add(2 * day), grace("past_due_grace", "past_due", dunning)},
		}},
		{"polar, revoked before past_due_at does not count", facts(sub("past_due", dued),
			grant(ofSub("sub"), benefit(benOther), revoked(failed.Add(-tick)))), rules(pastDuePolar), []moment{
			{failed.Add(day), grace("past_due_grace", "past_due", dunning)},
		}},
		{"polar, another subscription's grants do not count", facts(sub("past_due", dued),
			sub("active", subID("else"), product(prodOther)),
			grant(ofSub("else"), benefit(benOther), revoked(failed.Add(day)))), rules(pastDuePolar), []moment{
			{failed.Add(2 * day), grace("past_due_grace", "past_due", dunning)},
		}},
		{"polar, capped by ends_at", facts(sub("past_due", dued, endsAt(failed.Add(day)))), rules(pastDuePolar), []moment{
			{failed.Add(day - tick), grace("past_due_grace", "past_due", failed.Add(day))},
			{failed.Add(day), no("past_due", "past_due", failed.Add(day))},
		}},
		{"polar only after a trial", facts(sub("past_due", trial...)), rules(func(g *ent.Grace) {
			g.PastDue, g.TrialPastDue = ent.PastDueGrace{}, ent.PastDueGrace{Polar: true}
		}), []moment{
			{dunning.Add(-tick), grace("past_due_grace", "past_due", dunning)},
			{dunning, no("past_due", "past_due", dunning)},
		}},
	}
	for _, c := range rows {
		t.Run(c.name, c.run)
	}
}

func TestDecideEndedAndOther(t *testing.T) {
	over := start.Add(10 * day)
	rows := []row{
		{"unpaid", facts(sub("unpaid", endedAt(over))), nil, []moment{
			{over, no("unpaid", "unpaid", over)},
			{over.Add(day), no("unpaid", "unpaid", over)},
		}},
		{"unpaid with grace", facts(sub("unpaid", endedAt(over))), rules(unpaidFor(day), canceledFor(5*day)), []moment{
			{over, grace("unpaid_grace", "unpaid", over.Add(day))},
			{over.Add(day - tick), grace("unpaid_grace", "unpaid", over.Add(day))},
			{over.Add(day), no("unpaid", "unpaid", over.Add(day))},
			{over.Add(day + tick), no("unpaid", "unpaid", over.Add(day))},
		}},
		{"canceled", facts(sub("canceled", endedAt(over))), nil, []moment{
			{over, no("canceled", "canceled", over)},
			{over.Add(day), no("canceled", "canceled", over)},
		}},
		{"canceled with grace", facts(sub("canceled", endedAt(over))), rules(canceledFor(day), unpaidFor(5*day)), []moment{
			{over, grace("canceled_grace", "canceled", over.Add(day))},
			{over.Add(day - tick), grace("canceled_grace", "canceled", over.Add(day))},
			{over.Add(day), no("canceled", "canceled", over.Add(day))},
			{over.Add(day + tick), no("canceled", "canceled", over.Add(day))},
		}},
		{"cancel_at_period_end stays true after the end", facts(sub("canceled", cancels(end), endedAt(end))), nil, []moment{
			{end, no("canceled", "canceled", end)},
		}},
		// Taken literally: until the end is until the end, also for a status
		// that came too early (a clock that is behind).
		{"canceled before its end", facts(sub("canceled", endedAt(end))), nil, []moment{
			{end.Add(-tick), grace("canceled_grace", "canceled", end)},
		}},
		{"end: ended_at first", facts(sub("canceled", endedAt(over), endsAt(over.Add(day)), canceledAt(over.Add(2*day)))), nil, []moment{
			{end, no("canceled", "canceled", over)},
		}},
		{"end: else ends_at", facts(sub("canceled", endsAt(over.Add(day)), canceledAt(over.Add(2*day)))), nil, []moment{
			{end, no("canceled", "canceled", over.Add(day))},
		}},
		{"end: else canceled_at", facts(sub("canceled", canceledAt(over.Add(2*day)))), nil, []moment{
			{end, no("canceled", "canceled", over.Add(2*day))},
		}},
		{"end: else the period's end", facts(sub("unpaid")), nil, []moment{
			{end.Add(day), no("unpaid", "unpaid", end)},
		}},
		{"canceled after a dispute: no grace", facts(sub("canceled", endedAt(over)),
			order("refunded", func(o *ent.Order) { o.SubscriptionID = "sub" }),
			refund(over, lost, func(r *ent.Refund) { r.SubscriptionID = "sub" })), rules(canceledFor(day)), []moment{
			{over, no("canceled", "canceled", over)},
		}},
		{"canceled with a dispute that is open: no grace", facts(sub("canceled", endedAt(over)),
			order("refunded", func(o *ent.Order) { o.SubscriptionID = "sub" }),
			refund(over, pending, disputed, func(r *ent.Refund) { r.SubscriptionID = "sub" })), rules(canceledFor(day)), []moment{
			{over, no("canceled", "canceled", over)},
		}},
		// Contract 2.2 (16): such a refund has subscription_id null. What it
		// is about is known from its order.
		{"canceled after a prevented dispute: no grace", facts(sub("canceled", endedAt(over)),
			order("refunded", func(o *ent.Order) { o.SubscriptionID = "sub" }),
			refund(over, revoking, disputed)), rules(canceledFor(day)), []moment{
			{over, no("canceled", "canceled", over)},
		}},
		{"canceled with a dispute of something else keeps its grace", facts(sub("canceled", endedAt(over)),
			sub("canceled", subID("else"), product(prodOther), endedAt(over)),
			refund(over, lost, func(r *ent.Refund) { r.SubscriptionID, r.OrderID = "else", "unknown" })), rules(canceledFor(day)), []moment{
			{over, grace("canceled_grace", "canceled", over.Add(day))},
		}},
		{"canceled with a refund keeps its grace", facts(sub("canceled", endedAt(over)),
			order("refunded", func(o *ent.Order) { o.SubscriptionID = "sub" }),
			refund(over, func(r *ent.Refund) { r.SubscriptionID = "sub" })), rules(canceledFor(day)), []moment{
			{over, grace("canceled_grace", "canceled", over.Add(day))},
		}},
		{"a dispute does not end an active subscription", facts(sub("active"),
			order("refunded", func(o *ent.Order) { o.SubscriptionID = "sub" }),
			refund(over, lost, func(r *ent.Refund) { r.SubscriptionID = "sub" })), nil, []moment{
			{over, yes("active", "active", end)},
		}},
		{"paused", facts(sub("paused", pausedAt(over))), nil, []moment{
			{over.Add(-tick), no("paused", "paused", over)},
			{over, no("paused", "paused", over)},
			{end.Add(day), no("paused", "paused", over)},
		}},
		{"incomplete", facts(sub("incomplete")), nil, []moment{
			{start, no("incomplete", "incomplete", never)},
			{end, no("incomplete", "incomplete", never)},
		}},
		{"incomplete_expired", facts(sub("incomplete_expired", endedAt(over))), rules(canceledFor(9*day), unpaidFor(9*day)), []moment{
			{start, no("incomplete", "incomplete_expired", never)},
		}},
		{"unknown status", facts(sub("hibernating")), nil, []moment{
			{start, no("unknown_status", "hibernating", never)},
			{end, no("unknown_status", "hibernating", never)},
		}},
		{"no status", facts(sub("")), nil, []moment{
			{start, no("unknown_status", "", never)},
		}},
		{"nothing", facts(), nil, []moment{{start, nothing()}}},
		{"a product of no plan", facts(sub("active", product(prodOther))), nil, []moment{{start, nothing()}}},
		{"seats give the buyer nothing", facts(sub("active", subSeats)), nil, []moment{{start, nothing()}}},
		{"past due seats tell the buyer nothing", facts(sub("past_due", subSeats)), nil, []moment{{end, nothing()}}},
	}
	for _, c := range rows {
		t.Run(c.name, c.run)
	}
}

// elsewhere is the refusal of those who have something open, but not pro.
func elsewhere(status string, step ent.NextStep) ent.Decision {
	d := no(ent.ReasonPlanRequired, status, never)
	d.Plan, d.NextStep = "", step
	return d
}

func TestDecideOrders(t *testing.T) {
	ofTime := start.Add(2 * day)
	bought := yes("purchased", "order", never)
	rows := []row{
		{"paid", facts(order("paid")), nil, []moment{{start, bought}, {start.Add(9999 * day), bought}}},
		{"partially refunded", facts(order("partially_refunded"), refund(ofTime)), nil, []moment{{ofTime, bought}}},
		{"partially refunded with revoke_benefits", facts(order("partially_refunded"), refund(ofTime, revoking)), nil, []moment{
			{end, no("refunded", "order", ofTime)},
		}},
		{"refunded in full", facts(order("refunded", orderChanged(ofTime)), refund(ofTime)), nil, []moment{
			{end, no("refunded", "order", ofTime)},
		}},
		{"refunded in full, the refund is not held", facts(order("refunded", orderChanged(ofTime))), nil, []moment{
			{end, no("refunded", "order", ofTime)},
		}},
		{"paid with a succeeded refund that revokes", facts(order("paid"), refund(ofTime, revoking)), nil, []moment{
			{end, no("refunded", "order", ofTime)},
		}},
		{"paid with a pending refund that revokes", facts(order("paid"), refund(ofTime, revoking, pending)), nil, []moment{{end, bought}}},
		{"paid with a succeeded refund that does not revoke", facts(order("paid"), refund(ofTime)), nil, []moment{{end, bought}}},
		{"a refund of another order", facts(order("paid"), refund(ofTime, revoking, lost, func(r *ent.Refund) { r.OrderID = "else" })), nil, []moment{{end, bought}}},
		{"dispute lost", facts(order("paid"), refund(ofTime, lost)), nil, []moment{{end, no("disputed", "order", ofTime)}}},
		{"dispute lost, refund pending", facts(order("paid"), refund(ofTime, lost, pending)), nil, []moment{{end, no("disputed", "order", ofTime)}}},
		{"dispute lost, order refunded", facts(order("refunded"), refund(ofTime, lost, revoking)), nil, []moment{{end, no("disputed", "order", ofTime)}}},
		{"dispute open", facts(order("paid"), refund(ofTime, disputed, pending)), nil, []moment{{end, bought}}},
		{"dispute prevented", facts(order("paid"), refund(ofTime, disputed, revoking)), nil, []moment{{end, no("refunded", "order", ofTime)}}},
		{"draft", facts(order("draft")), nil, []moment{{start, nothing()}}},
		{"pending", facts(order("pending")), nil, []moment{{start, nothing()}}},
		{"void", facts(order("void")), nil, []moment{{start, nothing()}}},
		{"unknown status", facts(order("packed")), nil, []moment{{start, nothing()}}},
		{"of a subscription", facts(order("paid", func(o *ent.Order) { o.SubscriptionID = "sub" })), nil, []moment{{start, nothing()}}},
		{"seats", facts(order("paid", func(o *ent.Order) { o.Seats = true })), nil, []moment{{start, nothing()}}},
		{"of a product of no plan", facts(order("paid", func(o *ent.Order) { o.ProductID = prodOther })), nil, []moment{{start, nothing()}}},
		{"a refund of a subscription's order does not end it", facts(sub("active"),
			order("refunded", func(o *ent.Order) { o.SubscriptionID = "sub" }),
			refund(ofTime, func(r *ent.Refund) { r.SubscriptionID = "sub" })), nil, []moment{
			{ofTime, yes("active", "active", end)},
		}},
	}
	for _, c := range rows {
		t.Run(c.name, c.run)
	}
}

func TestDecideGrants(t *testing.T) {
	// The parent's product is of no plan: only the benefit can open.
	parent := func(status ent.Status, mods ...subMod) ent.Subscription {
		return sub(status, append([]subMod{product(prodOther)}, mods...)...)
	}
	one := func(o *ent.Order) { o.ProductID = prodOther }
	failed := start.Add(2 * time.Hour)
	week := failed.Add(7 * day)
	dunning := failed.Add(21*day + time.Minute)
	over := start.Add(10 * day)
	child := ofSub("sub")
	late := end.Add(3 * day)
	rows := []row{
		{"parent active", facts(parent("active"), grant(child)), nil, []moment{
			{end.Add(-tick), yes("active", "active", end)},
			{end, grace("renewal_grace", "active", late)},
			{late, no("period_ended", "active", late)},
		}},
		{"parent active, revoked", facts(parent("active"), grant(child, revoked(over))), nil, []moment{
			{end.Add(-tick), no("benefit_revoked", "active", over)},
		}},
		{"parent active, action required", facts(parent("active"), grant(child, actionRequired)), nil, []moment{{start, nothing()}}},
		{"parent trialing", facts(parent("trialing", trialEnd(over)), grant(child)), nil, []moment{
			{over.Add(-tick), yes("trialing", "trialing", over)},
			{over, grace("renewal_grace", "trialing", over.Add(3*day))},
			{over.Add(3 * day), no("trial_ended", "trialing", over.Add(3*day))},
		}},
		{"parent canceling", facts(parent("active", cancels(end)), grant(child)), nil, []moment{
			{end.Add(-tick), yes("canceling", "active", end)},
			{end, no("canceled", "active", end)},
		}},
		{"parent pausing", facts(parent("active", pauses), grant(child)), nil, []moment{
			{end.Add(-tick), yes("pausing", "active", end)},
			{end, no("paused", "active", end)},
		}},
		{"parent paused, still granted", facts(parent("paused", pausedAt(over)), grant(child)), nil, []moment{{end, no("paused", "paused", over)}}},
		{"parent incomplete, still granted", facts(parent("incomplete"), grant(child)), nil, []moment{{end, no("incomplete", "incomplete", never)}}},
		{"parent incomplete_expired, still granted", facts(parent("incomplete_expired"), grant(child)), nil, []moment{{end, no("incomplete", "incomplete_expired", never)}}},
		{"parent of unknown status", facts(parent("hibernating"), grant(child)), nil, []moment{{end, no("unknown_status", "hibernating", never)}}},
		{"parent canceled, still granted", facts(parent("canceled", endedAt(over)), grant(child)), nil, []moment{{over, no("canceled", "canceled", over)}}},
		{"parent canceled, grace does not extend to children", facts(parent("canceled", endedAt(over)), grant(child)), rules(canceledFor(day)), []moment{
			{over.Add(tick), no("canceled", "canceled", over)},
		}},
		{"parent unpaid, grace does not extend to children", facts(parent("unpaid", endedAt(over)), grant(child)), rules(unpaidFor(day)), []moment{
			{over.Add(tick), no("unpaid", "unpaid", over)},
		}},
		{"parent past due, live", facts(parent("past_due", pastDueAt(failed)), grant(child)), nil, []moment{
			{week.Add(-tick), grace("past_due_grace", "past_due", week)},
			{week, no("past_due", "past_due", week)},
		}},
		{"parent past due, revoked at past_due_at", facts(parent("past_due", pastDueAt(failed)), grant(child, revoked(failed))), nil, []moment{
			{failed, grace("past_due_grace", "past_due", week)},
			{week.Add(-tick), grace("past_due_grace", "past_due", week)},
			{week, no("past_due", "past_due", week)},
		}},
		{"parent past due, revoked after past_due_at", facts(parent("past_due", pastDueAt(failed)), grant(child, revoked(failed.Add(day)))), nil, []moment{
			{week.Add(-tick), grace("past_due_grace", "past_due", week)},
			{week, no("past_due", "past_due", week)},
		}},
		{"parent past due, revoked before past_due_at", facts(parent("past_due", pastDueAt(failed)), grant(child, revoked(failed.Add(-tick)))), nil, []moment{
			{failed.Add(day), no("benefit_revoked", "past_due", failed.Add(-tick))},
		}},
		{"parent past due, grace off, revoked", facts(parent("past_due", pastDueAt(failed)), grant(child, revoked(failed))), rules(pastDueFor(0)), []moment{
			{failed, no("past_due", "past_due", failed)},
		}},
		{"parent past due, action required", facts(parent("past_due", pastDueAt(failed)), grant(child, actionRequired)), nil, []moment{
			{failed, nothing()},
		}},
		{
			"parent past due first after a trial, revoked", facts(parent("past_due", pastDueAt(failed), trialEnd(start)), grant(child, revoked(failed))),
			rules(trialPastDueFor(day)),
			[]moment{
				{failed.Add(day - tick), grace("past_due_grace", "past_due", failed.Add(day))},
				{failed.Add(day), no("past_due", "past_due", failed.Add(day))},
			},
		},
		{"recovered: revoked and parent active again", facts(parent("active"), grant(child, revoked(failed))), nil, []moment{
			{failed.Add(day), no("benefit_revoked", "active", failed)},
		}},
		{
			"dunning exhausted: revoked and parent canceled", facts(parent("canceled", pastDueAt(failed), endedAt(over)), grant(child, revoked(failed))),
			rules(canceledFor(9 * day)),
			[]moment{
				{over, no("canceled", "canceled", over)},
			},
		},
		{"polar, live", facts(parent("past_due", pastDueAt(failed)), grant(child)), rules(pastDuePolar), []moment{
			{week.Add(day), grace("past_due_grace", "past_due", dunning)},
			{dunning.Add(-tick), grace("past_due_grace", "past_due", dunning)},
			{dunning, no("past_due", "past_due", dunning)},
		}},
		{"polar, the only grant revoked", facts(parent("past_due", pastDueAt(failed)), grant(child, revoked(failed.Add(day)))), rules(pastDuePolar), []moment{
			{failed.Add(day), no("past_due", "past_due", failed.Add(day))},
		}},
		{"polar, revoked while another lives", facts(parent("past_due", pastDueAt(failed)),
			grant(child, revoked(failed.Add(day))), grant(child, grantID("other"), benefit(benOther))), rules(pastDuePolar), []moment{
			{failed.Add(2 * day), no("benefit_revoked", "past_due", failed.Add(day))},
		}},
		{
			"polar for trials only, second period, revoked", facts(parent("past_due", pastDueAt(failed), trialEnd(start.Add(-60*day))), grant(child, revoked(failed))),
			rules(func(g *ent.Grace) { g.TrialPastDue = ent.PastDueGrace{Polar: true} }),
			[]moment{
				{week.Add(-tick), grace("past_due_grace", "past_due", week)},
			},
		},
		{
			"polar for trials only, first period, revoked", facts(parent("past_due", pastDueAt(failed), trialEnd(start)),
				grant(child, revoked(failed)), grant(child, grantID("other"), benefit(benOther))),
			rules(func(g *ent.Grace) { g.TrialPastDue = ent.PastDueGrace{Polar: true} }),
			[]moment{
				{failed, no("benefit_revoked", "past_due", failed)},
			},
		},
		{
			"polar except for trials, first period, revoked", facts(parent("past_due", pastDueAt(failed), trialEnd(start)), grant(child, revoked(failed))),
			rules(func(g *ent.Grace) { g.PastDue = ent.PastDueGrace{Polar: true} }),
			[]moment{
				{week.Add(-tick), grace("past_due_grace", "past_due", week)},
				{week, no("past_due", "past_due", week)},
			},
		},
		{"polar, a revoked grant is not live whatever else it says", facts(parent("past_due", pastDueAt(failed)),
			grant(child, revoked(failed.Add(day)), func(g *ent.Grant) { g.Granted = true })), rules(pastDuePolar), []moment{
			{failed.Add(day), no("past_due", "past_due", failed.Add(day))},
		}},
		{"parent seats", facts(parent("active", subSeats), grant(child)), nil, []moment{{start, nothing()}}},
		{"parent not held", facts(grant(ofSub("unheard"))), nil, []moment{
			{start, yes("benefit", "none", never)}, {end.Add(999 * day), yes("benefit", "none", never)},
		}},
		{"no parent at all", facts(grant()), nil, []moment{{start, yes("benefit", "none", never)}}},
		{"parent order not held", facts(grant(ofOrder("unheard"))), nil, []moment{{start, yes("benefit", "none", never)}}},
		{"parent not held, revoked", facts(grant(ofSub("unheard"), revoked(over))), nil, []moment{{end, no("benefit_revoked", "none", over)}}},
		{"parent not held, action required", facts(grant(ofSub("unheard"), actionRequired)), nil, []moment{{end, nothing()}}},
		{"benefit of no plan", facts(parent("active"), grant(child, benefit(benOther))), nil, []moment{{start, nothing()}}},
		{"several, the last one lives", facts(parent("active"), sub("active", subID("old"), product(prodOther)),
			grant(grantID("a"), ofSub("old"), revoked(over)), grant(grantID("b"), child)), nil, []moment{
			{over, yes("active", "active", end)},
		}},
		{"several, the first one lives", facts(parent("active"), sub("active", subID("old"), product(prodOther)),
			grant(grantID("b"), ofSub("old"), revoked(over)), grant(grantID("a"), child)), nil, []moment{
			{over, yes("active", "active", end)},
		}},
		{"order paid", facts(order("paid", one), grant(ofOrder("ord"))), nil, []moment{{end, yes("purchased", "order", never)}}},
		{"order paid, revoked", facts(order("paid", one), grant(ofOrder("ord"), revoked(over))), nil, []moment{{end, no("benefit_revoked", "order", over)}}},
		{"order refunded, still granted", facts(order("refunded", one, orderChanged(over)), grant(ofOrder("ord"))), nil, []moment{{end, no("refunded", "order", over)}}},
		{"order refunded with revoke_benefits", facts(order("partially_refunded", one), refund(over, revoking), grant(ofOrder("ord"), revoked(over.Add(tick)))), nil, []moment{
			{end, no("refunded", "order", over)},
		}},
		{"order disputed, still granted", facts(order("paid", one), refund(over, lost), grant(ofOrder("ord"))), nil, []moment{{end, no("disputed", "order", over)}}},
		{"order pending, still granted", facts(order("pending", one), grant(ofOrder("ord"))), nil, []moment{{end, nothing()}}},
		{"order with seats", facts(order("paid", one, func(o *ent.Order) { o.Seats = true }), grant(ofOrder("ord"))), nil, []moment{{end, nothing()}}},
	}
	for _, c := range rows {
		t.Run(c.name, c.run)
	}
}

func TestDecidePasses(t *testing.T) {
	rows := []row{
		{"with an end", facts(pass(end)), nil, []moment{
			{end.Add(-tick), yes("pass", "pass", end)},
			{end, no("pass_expired", "pass", end)},
			{end.Add(tick), no("pass_expired", "pass", end)},
		}},
		{"without an end", facts(pass(never)), nil, []moment{{end.Add(9999 * day), yes("pass", "pass", never)}}},
		{"no customer at all", ent.Facts{Passes: []ent.Pass{pass(end)}}, nil, []moment{{start, yes("pass", "pass", end)}}},
		{"of a plan that is not configured", facts(ent.Pass{ID: "p", User: "ann", Plan: "gone"}), nil, []moment{{start, nothing()}}},
		{"of another plan", facts(ent.Pass{ID: "p", User: "ann", Plan: "team"}), nil, []moment{{start, elsewhere("pass", ent.StepCheckout)}}},
	}
	for _, c := range rows {
		t.Run(c.name, c.run)
	}

	t.Run("expired, the plan has no product", func(t *testing.T) {
		r := rules()
		a := ent.NewAccount("ann", facts(ent.Pass{ID: "p", User: "ann", Plan: "extra", Until: end}))
		want := no("pass_expired", "pass", end)
		want.Plan, want.HTTPStatus, want.NextStep = "extra", 403, ent.StepContact
		if got := ent.Decide(a, require(t, r, "extra"), r, end); got != want {
			t.Errorf("\n got %+v\nwant %+v", got, want)
		}
	})
}

func TestDecideDeletedCustomer(t *testing.T) {
	gone := start.Add(10 * day)
	deleted := held("cus", gone)
	later := held("cus2", never)
	rows := []row{
		{"subscription", facts(deleted, sub("active")), nil, []moment{{gone, no("customer_deleted", "active", gone)}}},
		{"subscription past due", facts(deleted, sub("past_due", pastDueAt(gone.Add(-day)))), nil, []moment{{gone, no("customer_deleted", "past_due", gone)}}},
		{"subscription in canceled grace", facts(deleted, sub("canceled", endedAt(gone))), rules(canceledFor(9 * day)), []moment{{gone, no("customer_deleted", "canceled", gone)}}},
		{"order", facts(deleted, order("paid")), nil, []moment{{gone, no("customer_deleted", "order", gone)}}},
		{"grant", facts(deleted, sub("active", product(prodOther)), grant(ofSub("sub"))), nil, []moment{{gone, no("customer_deleted", "none", gone)}}},
		{"grant without parent", facts(deleted, grant()), nil, []moment{{gone, no("customer_deleted", "none", gone)}}},
		{"a pass stays", facts(deleted, sub("active"), pass(end)), nil, []moment{{gone, yes("pass", "pass", end)}}},
		{"opens nothing for a later customer", facts(deleted, later, sub("active")), nil, []moment{{gone, no("customer_deleted", "active", gone)}}},
		{"a later customer's subscription opens", facts(deleted, later, sub("active"), sub("active", subID("new"), customer("cus2"), periodEnd(end.Add(-day)))), nil, []moment{
			{gone, yes("active", "active", end.Add(-day))},
		}},
		{"a later customer's subscription that ended", facts(deleted, later, sub("active"),
			sub("canceled", subID("new"), customer("cus2"), endedAt(gone.Add(day)))), nil, []moment{
			{gone.Add(2 * day), no("canceled", "canceled", gone.Add(day))},
		}},
		{"seats tell nothing", facts(deleted, sub("active", subSeats)), nil, []moment{{gone, nothing()}}},
	}
	for _, c := range rows {
		t.Run(c.name, c.run)
	}
}

// confirming is rules of a gateway with an access token and its last sync.
func confirming(r *ent.Rules, sync time.Time) *ent.Rules {
	r.CanConfirm, r.ConfirmedAt = true, sync
	return r
}

func TestDecideNotConfirmed(t *testing.T) {
	late := end.Add(3 * day)
	rows := []row{
		{"nothing heard since", facts(sub("active")), confirming(rules(), never), []moment{
			{end.Add(-tick), yes("active", "active", end)},
			{end, grace("renewal_grace", "active", late)},
			{late.Add(-tick), grace("renewal_grace", "active", late)},
			{late, no("unavailable", "active", never)},
			{late.Add(100 * day), no("unavailable", "active", never)},
		}},
		{"the fact is from before", facts(sub("active", told(end.Add(-tick)))), confirming(rules(), end.Add(-tick)), []moment{
			{late, no("unavailable", "active", never)},
		}},
		{"the fact is from after", facts(sub("active", told(end.Add(tick)))), confirming(rules(), never), []moment{
			{late, no("period_ended", "active", late)},
		}},
		{"a whole sync is from after", facts(sub("active")), confirming(rules(), end.Add(tick)), []moment{
			{late, no("period_ended", "active", late)},
		}},
		{"after the boundary is enough, the grace need not be over", facts(sub("active", told(end.Add(day)))), confirming(rules(), never), []moment{
			{late, no("period_ended", "active", late)},
		}},
		{"only Row is from after", facts(sub("active", func(s *ent.Subscription) { s.Version.Row = end.Add(day) })), confirming(rules(), never), []moment{
			{late, no("unavailable", "active", never)},
		}},
		{"no access token", facts(sub("active")), rules(), []moment{{late, no("period_ended", "active", late)}}},
		{"trial, nothing heard since", facts(sub("trialing", trialEnd(start.Add(day)))), confirming(rules(), never), []moment{
			{start.Add(4*day - tick), grace("renewal_grace", "trialing", start.Add(4*day))},
			{start.Add(4 * day), no("unavailable", "trialing", never)},
		}},
		{"trial, confirmed by a fact", facts(sub("trialing", trialEnd(start.Add(day)), told(start.Add(day+tick)))), confirming(rules(), never), []moment{
			{start.Add(4 * day), no("trial_ended", "trialing", start.Add(4*day))},
		}},
		{"trial, confirmed by a sync", facts(sub("trialing", trialEnd(start.Add(day)))), confirming(rules(), start.Add(2*day)), []moment{
			{start.Add(4 * day), no("trial_ended", "trialing", start.Add(4*day))},
		}},
		{"a grant's parent, nothing heard since", facts(sub("active", product(prodOther)), grant(ofSub("sub"))), confirming(rules(), never), []moment{
			{late, no("unavailable", "active", never)},
		}},
		{"past due needs no confirmation", facts(sub("past_due")), confirming(rules(), never), []moment{
			{end, no("past_due", "past_due", start.Add(7*day))},
		}},
		{"nor does canceled", facts(sub("canceled", endedAt(start))), confirming(rules(), never), []moment{
			{end, no("canceled", "canceled", start)},
		}},
		{"something else open beats it", facts(sub("active"), order("paid")), confirming(rules(), never), []moment{
			{late, yes("purchased", "order", never)},
		}},
	}
	for _, c := range rows {
		t.Run(c.name, c.run)
	}
}

// TestWhichRefusal puts each two troubles together: the earlier of the list is
// told, whatever the order of their ids.
func TestWhichRefusal(t *testing.T) {
	now := end.Add(100 * day)
	yesterday, lastWeek := now.Add(-day), now.Add(-7*day)
	list := []struct {
		reason ent.Reason
		make   func(id string) any
	}{
		{"unavailable", func(id string) any { return sub("active", subID(id)) }},
		{"past_due", func(id string) any { return sub("past_due", subID(id)) }},
		{"paused", func(id string) any { return sub("paused", subID(id), pausedAt(lastWeek)) }},
		{"unpaid", func(id string) any { return sub("unpaid", subID(id), endedAt(start)) }},
		{"plan_required", func(id string) any {
			return sub("active", subID(id), product(prodTeam), periodEnd(now.Add(day)))
		}},
		{"canceled", func(id string) any { return sub("canceled", subID(id), endedAt(yesterday)) }},
		{"refunded", func(id string) any { o := order("refunded", orderChanged(lastWeek)); o.ID = id; return o }},
		{"incomplete", func(id string) any { return sub("incomplete", subID(id)) }},
		{"unknown_status", func(id string) any { return sub("hibernating", subID(id)) }},
		{"no_subscription", func(id string) any { return sub("active", subID(id), product(prodOther)) }},
	}
	r := confirming(rules(), never)
	for i, x := range list {
		for _, y := range list[i+1:] {
			for _, ids := range [][2]string{{"a", "b"}, {"b", "a"}} {
				a := ent.NewAccount("ann", facts(x.make(ids[0]), y.make(ids[1])))
				d := ent.Decide(a, require(t, r, "pro"), r, now)
				if d.Allowed || d.Reason != x.reason || d.HTTPStatus != answers[x.reason].http {
					t.Errorf("%s and %s: got %s %d", x.reason, y.reason, d.Reason, d.HTTPStatus)
				}
			}
		}
	}
	t.Run("a pause whose event has not come yet", func(t *testing.T) {
		a := ent.NewAccount("ann", facts(sub("active", subID("a"), pauses), sub("active", subID("b"), product(prodTeam), periodEnd(now.Add(day)))))
		if got, want := ent.Decide(a, require(t, r, "pro"), r, now), no("paused", "active", end); got != want {
			t.Errorf("\n got %+v\nwant %+v", got, want)
		}
	})
	t.Run("across plans", func(t *testing.T) {
		// The second plan's trouble is told when it comes first in the list.
		a := ent.NewAccount("ann", facts(
			sub("canceled", subID("a"), endedAt(yesterday)),
			sub("past_due", subID("b"), product(prodTeam))))
		want := no("past_due", "past_due", start.Add(7*day))
		want.Plan = "team"
		if got := ent.Decide(a, require(t, r, "pro", "team"), r, now); got != want {
			t.Errorf("\n got %+v\nwant %+v", got, want)
		}
		a = ent.NewAccount("ann", facts(
			sub("canceled", subID("a"), endedAt(lastWeek)),
			sub("canceled", subID("b"), product(prodTeam), endedAt(yesterday))))
		want = no("canceled", "canceled", yesterday)
		want.Plan = "team"
		if got := ent.Decide(a, require(t, r, "pro", "team"), r, now); got != want {
			t.Errorf("\n got %+v\nwant %+v", got, want)
		}
	})
}

func TestEndedMostRecently(t *testing.T) {
	now := end.Add(100 * day)
	kinds := []struct {
		reason ent.Reason
		make   func(id string, at time.Time) []any
	}{
		{"period_ended", func(id string, at time.Time) []any { return []any{sub("active", subID(id), periodEnd(at.Add(-3*day)))} }},
		{"trial_ended", func(id string, at time.Time) []any {
			return []any{sub("trialing", subID(id), trialEnd(at.Add(-3*day)))}
		}},
		{"canceled", func(id string, at time.Time) []any { return []any{sub("canceled", subID(id), endedAt(at))} }},
		{"refunded", func(id string, at time.Time) []any {
			o := order("refunded", orderChanged(at))
			o.ID = id
			return []any{o}
		}},
		{"disputed", func(id string, at time.Time) []any {
			o, f := order("paid"), refund(at, lost)
			o.ID, f.ID, f.OrderID = id, id, id
			return []any{o, f}
		}},
		{"benefit_revoked", func(id string, at time.Time) []any { return []any{grant(grantID(id), revoked(at))} }},
		{"pass_expired", func(id string, at time.Time) []any {
			p := pass(at)
			p.ID = id
			return []any{p}
		}},
		{"customer_deleted", func(id string, at time.Time) []any {
			return []any{held("cus_"+id, at), sub("active", subID(id), customer("cus_"+id))}
		}},
	}
	r := rules()
	earlier, recent := now.Add(-2*day), now.Add(-day)
	for _, x := range kinds {
		for _, y := range kinds {
			for _, ids := range [][2]string{{"a", "b"}, {"b", "a"}} {
				a := ent.NewAccount("ann", facts(x.make(ids[0], earlier), y.make(ids[1], recent)))
				d := ent.Decide(a, require(t, r, "pro"), r, now)
				if d.Allowed || d.Reason != y.reason || !d.Until.Equal(recent) {
					t.Errorf("%s and then %s: got %s, %s", x.reason, y.reason, d.Reason, d.Until)
				}
			}
		}
	}
}

func TestPlanRequired(t *testing.T) {
	r := rules()
	for _, c := range []struct {
		name   string
		things []any
		status string
		step   ent.NextStep
	}{
		{"a subscription", []any{sub("active", product(prodTeam))}, "active", ent.StepChange},
		{"a subscription in grace", []any{sub("past_due", product(prodTeam))}, "past_due", ent.StepChange},
		{"an order", []any{order("paid", func(o *ent.Order) { o.ProductID = prodTeam })}, "order", ent.StepCheckout},
		{"a benefit", []any{grant(benefit(benExtra))}, "none", ent.StepCheckout},
		{"a pass", []any{ent.Pass{ID: "p", User: "ann", Plan: "team"}}, "pass", ent.StepCheckout},
		{"besides something that ended", []any{sub("active", product(prodTeam)), order("refunded")}, "active", ent.StepChange},
	} {
		a := ent.NewAccount("ann", facts(c.things...))
		if got, want := ent.Decide(a, require(t, r, "pro"), r, start.Add(day)), elsewhere(c.status, c.step); got != want {
			t.Errorf("%s:\n got %+v\nwant %+v", c.name, got, want)
		}
	}
	// What is not open elsewhere either does not count.
	a := ent.NewAccount("ann", facts(sub("canceled", product(prodTeam), endedAt(start))))
	if got := ent.Decide(a, require(t, r, "pro"), r, end); got != nothing() {
		t.Errorf("ended elsewhere: %+v", got)
	}
}

// TestEveryReason reaches each reason of the interface and checks its code.
func TestEveryReason(t *testing.T) {
	reached := map[ent.Reason]bool{}
	r := confirming(rules(canceledFor(day), unpaidFor(day)), never)
	over := start.Add(20 * day)
	for _, c := range []struct {
		want   ent.Reason
		now    time.Time
		things []any
	}{
		{"active", start, []any{sub("active")}},
		{"canceling", start, []any{sub("active", cancels(end))}},
		{"pausing", start, []any{sub("active", pauses)}},
		{"trialing", start, []any{sub("trialing", trialEnd(end))}},
		{"renewal_grace", end, []any{sub("active")}},
		{"past_due_grace", start, []any{sub("past_due")}},
		{"unpaid_grace", over, []any{sub("unpaid", endedAt(over))}},
		{"canceled_grace", over, []any{sub("canceled", endedAt(over))}},
		{"purchased", start, []any{order("paid")}},
		{"benefit", start, []any{grant()}},
		{"pass", start, []any{pass(end)}},
		{"period_ended", end.Add(9 * day), []any{sub("active", told(end.Add(day)))}},
		{"trial_ended", end.Add(9 * day), []any{sub("trialing", trialEnd(end), told(end.Add(day)))}},
		{"canceled", end, []any{sub("canceled", endedAt(over))}},
		{"paused", end, []any{sub("paused")}},
		{"past_due", end, []any{sub("past_due")}},
		{"unpaid", end, []any{sub("unpaid", endedAt(over))}},
		{"incomplete", start, []any{sub("incomplete")}},
		{"unknown_status", start, []any{sub("new")}},
		{"refunded", start, []any{order("refunded")}},
		{"disputed", end, []any{order("paid"), refund(over, lost)}},
		{"benefit_revoked", end, []any{grant(revoked(over))}},
		{"pass_expired", end, []any{pass(over)}},
		{"customer_deleted", end, []any{held("cus", over), sub("active")}},
		{"no_subscription", start, nil},
		{"plan_required", start, []any{order("paid", func(o *ent.Order) { o.ProductID = prodTeam })}},
		{"unavailable", end.Add(9 * day), []any{sub("active")}},
		{"seat_revoked", end.Add(-day), []any{sub("active", subSeats), seat(seatRevoked(start))}},
	} {
		d := ent.Decide(ent.NewAccount("ann", facts(c.things...)), require(t, r, "pro"), r, c.now)
		answer, refused := answers[c.want]
		if d.Reason != c.want || d.Allowed == refused {
			t.Errorf("want %s, got %+v", c.want, d)
			continue
		}
		wantHTTP, wantStep := 200, ent.NextStep("")
		if refused {
			wantHTTP, wantStep = answer.http, answer.step
		}
		if d.HTTPStatus != wantHTTP || d.NextStep != wantStep {
			t.Errorf("%s: %d %q, want %d %q", c.want, d.HTTPStatus, d.NextStep, wantHTTP, wantStep)
		}
		reached[c.want] = true
	}
	for reason := range answers {
		if !reached[reason] {
			t.Errorf("%s was not reached", reason)
		}
	}
}

func TestFirstOpenPlanWins(t *testing.T) {
	r := rules()
	both := facts(sub("active", subID("a"), product(prodTeam), periodEnd(end.Add(300*day))), sub("active", subID("b")))
	a := ent.NewAccount("ann", both)
	for _, names := range [][]string{{"pro", "team"}, {"team", "pro"}, {"team", "pro", "team"}, {"any"}, nil} {
		if d := ent.Decide(a, require(t, r, names...), r, start); d.Plan != "pro" || !d.Allowed || !d.Until.Equal(end) {
			t.Errorf("%v: %+v", names, d)
		}
	}
	if d := ent.Decide(a, require(t, r, "team"), r, start); d.Plan != "team" || !d.Allowed {
		t.Errorf("team: %+v", d)
	}
	// The zero requirement demands any plan.
	if d := ent.Decide(a, ent.Requirement{}, r, start); d.Plan != "pro" || !d.Allowed {
		t.Errorf("zero: %+v", d)
	}
	// A plan that is closed does not win.
	closed := ent.NewAccount("ann", facts(sub("active", product(prodTeam), subID("a")), sub("paused", subID("b"))))
	if d := ent.Decide(closed, require(t, r), r, start); d.Plan != "team" || d.Reason != "active" {
		t.Errorf("closed: %+v", d)
	}
	// Another order of the configuration, another plan.
	slices.Reverse(r.Plans)
	if d := ent.Decide(a, require(t, r, "pro", "team"), r, start); d.Plan != "team" {
		t.Errorf("reversed: %+v", d)
	}
}

// TestGraceOfPlan: each plan has its own grace.
func TestGraceOfPlan(t *testing.T) {
	r := rules()
	r.Plans[0].Grace.PastDue, r.Plans[0].Grace.TrialPastDue = ent.PastDueGrace{}, ent.PastDueGrace{}
	r.Plans[1].Products = append(r.Plans[1].Products, prodPro)
	a := ent.NewAccount("ann", facts(sub("past_due")))
	if d := ent.Decide(a, require(t, r), r, start.Add(day)); d.Plan != "team" || d.Reason != "past_due_grace" {
		t.Errorf("any: %+v", d)
	}
	// past_due is told before plan_required.
	if got, want := ent.Decide(a, require(t, r, "pro"), r, start.Add(day)), no("past_due", "past_due", start); got != want {
		t.Errorf("pro:\n got %+v\nwant %+v", got, want)
	}
}

func TestRequire(t *testing.T) {
	r := rules()
	if _, err := r.Require("pro", "typo"); err == nil {
		t.Error("an unknown plan is no error")
	}
	for _, c := range []struct{ names, want []string }{
		{nil, []string{"pro", "team", "extra"}},
		{[]string{"any"}, []string{"pro", "team", "extra"}},
		{[]string{"team", "any"}, []string{"pro", "team", "extra"}},
		{[]string{"extra", "pro", "extra"}, []string{"pro", "extra"}},
		{[]string{"team"}, []string{"team"}},
	} {
		if got := r.Names(require(t, r, c.names...)); !slices.Equal(got, c.want) {
			t.Errorf("%v: %v, want %v", c.names, got, c.want)
		}
	}
}

// lasting makes, for each row of the design's table, something that lasts
// until T and is open a day before it.
var lasting = []struct {
	reason, status string
	make           func(id string, T time.Time) []any
}{
	{"renewal_grace", "active", func(id string, T time.Time) []any { return []any{sub("active", subID(id), periodEnd(T.Add(-3*day)))} }},
	{"canceling", "active", func(id string, T time.Time) []any { return []any{sub("active", subID(id), cancels(T))} }},
	{"pausing", "active", func(id string, T time.Time) []any { return []any{sub("active", subID(id), pauses, periodEnd(T))} }},
	{"renewal_grace", "trialing", func(id string, T time.Time) []any {
		return []any{sub("trialing", subID(id), trialEnd(T.Add(-3*day)))}
	}},
	{"past_due_grace", "past_due", func(id string, T time.Time) []any {
		return []any{sub("past_due", subID(id), pastDueAt(T.Add(-7*day)))}
	}},
	{"unpaid_grace", "unpaid", func(id string, T time.Time) []any {
		return []any{sub("unpaid", subID(id), endedAt(T.Add(-5*day)))}
	}},
	{"canceled_grace", "canceled", func(id string, T time.Time) []any {
		return []any{sub("canceled", subID(id), endedAt(T.Add(-5*day)))}
	}},
	{"canceling", "active", func(id string, T time.Time) []any {
		return []any{sub("active", subID("p"+id), product(prodOther), cancels(T)), grant(grantID(id), ofSub("p"+id))}
	}},
	{"pass", "pass", func(id string, T time.Time) []any { p := pass(T); p.ID = id; return []any{p} }},
}

func TestTiesFallToTheEarlierRow(t *testing.T) {
	r := rules(unpaidFor(5*day), canceledFor(5*day))
	T := start.Add(20 * day)
	for i, x := range lasting {
		for _, y := range lasting[i:] {
			for _, ids := range [][2]string{{"a", "b"}, {"b", "a"}} {
				a := ent.NewAccount("ann", facts(x.make(ids[0], T), y.make(ids[1], T)))
				d := ent.Decide(a, require(t, r, "pro"), r, T.Add(-day))
				if !d.Allowed || string(d.Reason) != x.reason || d.Status != x.status || !d.Until.Equal(T) {
					t.Errorf("%s %s and %s %s: %+v", x.status, x.reason, y.status, y.reason, d)
				}
			}
		}
	}
	t.Run("without end", func(t *testing.T) {
		a := ent.NewAccount("ann", facts(order("paid"), grant(), pass(never)))
		if d := ent.Decide(a, require(t, r), r, start); d.Reason != "purchased" {
			t.Errorf("%+v", d)
		}
		a = ent.NewAccount("ann", facts(grant(), pass(never)))
		if d := ent.Decide(a, require(t, r), r, start); d.Reason != "benefit" {
			t.Errorf("%+v", d)
		}
	})
}

func TestLongestWayWins(t *testing.T) {
	r := rules(unpaidFor(5*day), canceledFor(5*day))
	T := start.Add(20 * day)
	for _, x := range lasting {
		for _, y := range lasting {
			for _, ids := range [][2]string{{"a", "b"}, {"b", "a"}} {
				a := ent.NewAccount("ann", facts(x.make(ids[0], T), y.make(ids[1], T.Add(tick))))
				d := ent.Decide(a, require(t, r, "pro"), r, T.Add(-day))
				if !d.Allowed || string(d.Reason) != y.reason || d.Status != y.status || !d.Until.Equal(T.Add(tick)) {
					t.Errorf("%s %s and longer %s %s: %+v", x.status, x.reason, y.status, y.reason, d)
				}
			}
		}
		// What never ends is longest.
		for _, forever := range []struct {
			reason ent.Reason
			thing  any
		}{{"purchased", order("paid")}, {"benefit", grant()}, {"pass", pass(never)}} {
			a := ent.NewAccount("ann", facts(x.make("a", T), forever.thing))
			if d := ent.Decide(a, require(t, r, "pro"), r, T.Add(-day)); d.Reason != forever.reason || !d.Until.IsZero() {
				t.Errorf("%s and %s: %+v", x.reason, forever.reason, d)
			}
		}
	}
	t.Run("the grace that follows counts", func(t *testing.T) {
		// Not said by the design: what lasts longest is access, not the reason.
		a := ent.NewAccount("ann", facts(sub("active", subID("a")), pass(end.Add(day))))
		if d := ent.Decide(a, require(t, r), r, start); d.Reason != "active" || !d.Until.Equal(end) {
			t.Errorf("%+v", d)
		}
	})
	t.Run("open before closed", func(t *testing.T) {
		a := ent.NewAccount("ann", facts(sub("past_due"), pass(end.Add(day))))
		if d := ent.Decide(a, require(t, r), r, end); d.Reason != "pass" {
			t.Errorf("%+v", d)
		}
	})
}

// TestEqualGrantsInAnyOrder: what only the parents' statuses tell apart is
// still told the same way each time.
func TestEqualGrantsInAnyOrder(t *testing.T) {
	r := rules()
	first := facts(
		sub("active", subID("a"), product(prodOther), cancels(end)),
		sub("trialing", subID("b"), product(prodOther), cancels(end)),
		grant(grantID("1"), ofSub("b")), grant(grantID("2"), ofSub("a")))
	second := clone(first)
	slices.Reverse(second.Grants)
	x := ent.Decide(ent.NewAccount("ann", first), require(t, r), r, start)
	y := ent.Decide(ent.NewAccount("ann", second), require(t, r), r, start)
	if x != y || x.Reason != "canceling" {
		t.Errorf("\n%+v\n%+v", x, y)
	}
}

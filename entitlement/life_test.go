package entitlement_test

import (
	"slices"
	"testing"
	"time"

	ent "github.com/caddy-polar/caddy-polar/entitlement"
)

// life is one of Polar's life cycles (polar/contract.md 2.2): what the store
// holds after each event. Every event versions what it changes.
type life struct {
	t     *testing.T
	rules *ent.Rules
	facts ent.Facts
	now   time.Time
}

// newLife begins one under rules that can ask Polar but have not synced, so
// that only webhooks confirm.
func newLife(t *testing.T, grace ...func(*ent.Grace)) *life {
	return &life{t: t, rules: confirming(rules(grace...), never), facts: facts(), now: start}
}

func (l *life) clone() ent.Facts {
	f := l.facts
	f.Customers = slices.Clone(f.Customers)
	f.Subscriptions = slices.Clone(f.Subscriptions)
	f.Orders = slices.Clone(f.Orders)
	f.Grants = slices.Clone(f.Grants)
	f.Refunds = slices.Clone(f.Refunds)
	return f
}

// is asserts the decision about plan at a moment.
func (l *life) is(plan string, at time.Time, allowed bool, reason ent.Reason) {
	l.t.Helper()
	d := ent.Decide(ent.NewAccount("ann", l.clone()), require(l.t, l.rules, plan), l.rules, at)
	if d.Allowed != allowed || d.Reason != reason {
		l.t.Errorf("%s at start+%s: %v %s, want %v %s", plan, at.Sub(start), d.Allowed, d.Reason, allowed, reason)
	}
}

func (l *life) open(at time.Time, reason ent.Reason) { l.t.Helper(); l.is("pro", at, true, reason) }

func (l *life) closed(at time.Time, reason ent.Reason) { l.t.Helper(); l.is("pro", at, false, reason) }

// sub is an event of the subscription, after which it is as change leaves it.
func (l *life) sub(at time.Time, change subMod) {
	if len(l.facts.Subscriptions) == 0 {
		l.facts.Subscriptions = []ent.Subscription{sub("active")}
	}
	s := &l.facts.Subscriptions[0]
	change(s)
	s.Version = ent.Version{Row: at, AsOf: at}
	l.now = at
}

func (l *life) order(at time.Time, id string, change func(*ent.Order)) {
	i := slices.IndexFunc(l.facts.Orders, func(o ent.Order) bool { return o.ID == id })
	if i < 0 {
		o := order("pending")
		o.ID, o.SubscriptionID = id, "sub"
		l.facts.Orders = append(l.facts.Orders, o)
		i = len(l.facts.Orders) - 1
	}
	change(&l.facts.Orders[i])
	l.facts.Orders[i].Version = ent.Version{Row: at, AsOf: at}
	l.now = at
}

func (l *life) grant(at time.Time, id string, change grantMod) {
	i := slices.IndexFunc(l.facts.Grants, func(g ent.Grant) bool { return g.ID == id })
	if i < 0 {
		l.facts.Grants = append(l.facts.Grants, grant(grantID(id), ofSub("sub")))
		i = len(l.facts.Grants) - 1
	}
	change(&l.facts.Grants[i])
	l.facts.Grants[i].Version = ent.Version{Row: at, AsOf: at}
	l.now = at
}

func asItIs[T any](*T) {}

func paid(o *ent.Order)    { o.Status = "paid" }
func granted(g *ent.Grant) { g.Granted, g.Revoked, g.RevokedAt = true, false, never }
func status(s ent.Status) subMod {
	return func(x *ent.Subscription) { x.Status = s }
}

// bought is life cycle 1. The product opens pro, the grant's benefit opens
// extra, so that both ways are seen.
func bought(t *testing.T, grace ...func(*ent.Grace)) *life {
	l := newLife(t, grace...)
	l.closed(start, "no_subscription")
	l.sub(start, status("active"))
	l.open(start, "active")
	l.is("extra", start, false, "plan_required")
	l.order(start.Add(time.Second), "ord1", paid)
	l.open(l.now, "active")
	l.grant(start.Add(2*time.Second), "gr", benefit(benExtra))
	l.open(l.now, "active")
	l.is("extra", l.now, true, "active")
	return l
}

func cycled(s *ent.Subscription) {
	s.Status, s.PeriodStart, s.PeriodEnd = "active", s.PeriodEnd, s.PeriodEnd.Add(30*day)
}

// failing is life cycle 5 up to subscription.past_due, with Polar's grace 0.
func failing(t *testing.T, grace ...func(*ent.Grace)) (l *life, failed time.Time) {
	l = bought(t, grace...)
	l.sub(end.Add(time.Minute), cycled)
	l.open(l.now, "active")
	l.order(end.Add(2*time.Minute), "ord2", asItIs)
	l.open(l.now, "active")
	failed = end.Add(time.Hour)
	l.sub(failed, func(s *ent.Subscription) { s.Status, s.PastDueAt = "past_due", failed })
	return l, failed
}

func TestLife01Purchase(t *testing.T) {
	l := bought(t)
	l.open(end.Add(-tick), "active")
	l.open(end, "renewal_grace")
	l.is("extra", end, true, "renewal_grace")
	l.closed(end.Add(3*day), "unavailable")
	l.is("extra", end.Add(3*day), false, "unavailable")
	// The webhooks were lost; a whole sync told that nothing changed.
	l.rules.ConfirmedAt = end.Add(2 * day)
	l.closed(end.Add(3*day), "period_ended")
}

func onTrial(t *testing.T, grace ...func(*ent.Grace)) (*life, time.Time) {
	l := newLife(t, grace...)
	trial := start.Add(14 * day)
	l.sub(start, func(s *ent.Subscription) { s.Status, s.TrialEnd, s.PeriodEnd = "trialing", trial, trial })
	l.open(l.now, "trialing")
	l.order(start.Add(time.Second), "ord1", paid)
	l.grant(start.Add(time.Second), "gr", benefit(benExtra))
	l.open(l.now, "trialing")
	l.is("extra", l.now, true, "trialing")
	return l, trial
}

func TestLife02Trial(t *testing.T) {
	l, trial := onTrial(t)
	l.open(trial.Add(-tick), "trialing")
	l.open(trial, "renewal_grace")
	l.open(trial.Add(3*day-tick), "renewal_grace")
	l.closed(trial.Add(3*day), "unavailable")
	l.rules.CanConfirm = false
	l.closed(trial.Add(3*day), "trial_ended")
}

func TestLife03TrialConverts(t *testing.T) {
	t.Run("paid", func(t *testing.T) {
		l, trial := onTrial(t)
		l.sub(trial.Add(time.Minute), cycled)
		l.open(l.now, "active")
		l.order(trial.Add(time.Hour), "ord2", asItIs)
		l.open(l.now, "active")
		l.order(trial.Add(2*time.Hour), "ord2", paid)
		l.grant(trial.Add(2*time.Hour), "gr", asItIs)
		l.open(trial.Add(30*day-tick), "active")
		l.is("extra", trial.Add(30*day-tick), true, "active")
		l.open(trial.Add(30*day), "renewal_grace")
	})
	t.Run("fails", func(t *testing.T) {
		l, trial := onTrial(t, trialPastDueFor(day))
		failed := trial.Add(time.Hour)
		l.sub(trial.Add(time.Minute), cycled)
		l.sub(failed, func(s *ent.Subscription) { s.Status, s.PastDueAt = "past_due", failed })
		l.grant(failed.Add(tick), "gr", revoked(failed.Add(tick)))
		l.open(failed.Add(day-tick), "past_due_grace")
		l.is("extra", failed.Add(day-tick), true, "past_due_grace")
		l.closed(failed.Add(day), "past_due")
		l.is("extra", failed.Add(day), false, "past_due")
	})
	t.Run("canceled", func(t *testing.T) {
		l, trial := onTrial(t)
		l.sub(start.Add(day), cancels(trial))
		l.open(trial.Add(-tick), "canceling")
		l.closed(trial, "canceled")
		l.sub(trial.Add(time.Minute), func(s *ent.Subscription) { s.Status, s.EndedAt = "canceled", trial.Add(time.Minute) })
		l.closed(l.now, "canceled")
	})
}

func TestLife04Renewal(t *testing.T) {
	l := bought(t)
	l.sub(end.Add(time.Minute), cycled)
	l.open(l.now, "active")
	l.order(end.Add(2*time.Minute), "ord2", asItIs)
	l.open(l.now, "active")
	l.order(end.Add(time.Hour), "ord2", paid)
	l.grant(end.Add(time.Hour), "gr", asItIs)
	l.open(end.Add(30*day-tick), "active")
	l.is("extra", end.Add(30*day-tick), true, "active")
	l.open(end.Add(30*day), "renewal_grace")
	l.closed(end.Add(33*day), "unavailable")
}

func TestLife05RenewalFails(t *testing.T) {
	t.Run("our grace outlasts Polar's", func(t *testing.T) {
		l, failed := failing(t)
		l.open(l.now, "past_due_grace")
		l.is("extra", l.now, true, "past_due_grace")
		l.grant(failed.Add(time.Second), "gr", revoked(failed.Add(time.Second)))
		for _, plan := range []string{"pro", "extra"} {
			l.is(plan, l.now, true, "past_due_grace")
			l.is(plan, failed.Add(7*day-tick), true, "past_due_grace")
			l.is(plan, failed.Add(7*day), false, "past_due")
		}
	})
	t.Run("off", func(t *testing.T) {
		l, failed := failing(t, pastDueFor(0))
		l.closed(failed, "past_due")
		l.is("extra", failed, false, "past_due")
	})
	t.Run("polar with its grace 0", func(t *testing.T) {
		l, failed := failing(t, pastDuePolar)
		l.open(l.now, "past_due_grace")
		l.is("extra", l.now, true, "past_due_grace")
		at := failed.Add(time.Second)
		l.grant(at, "gr", revoked(at))
		l.closed(at, "past_due")
		l.is("extra", at, false, "past_due")
	})
	t.Run("polar with a grace of 7 days", func(t *testing.T) {
		l, failed := failing(t, pastDuePolar)
		l.open(failed.Add(7*day), "past_due_grace")
		at := failed.Add(7*day + time.Hour)
		l.grant(at, "gr", revoked(at))
		l.open(at.Add(-tick), "past_due_grace")
		l.closed(at, "past_due")
	})
}

func TestLife06Recovered(t *testing.T) {
	for _, name := range []string{"within our grace", "after it"} {
		t.Run(name, func(t *testing.T) {
			l, failed := failing(t)
			l.grant(failed.Add(time.Second), "gr", revoked(failed.Add(time.Second)))
			back := failed.Add(2 * day)
			if name == "after it" {
				back = failed.Add(14 * day)
				l.closed(back, "past_due")
			}
			l.order(back, "ord2", paid)
			l.sub(back.Add(time.Second), func(s *ent.Subscription) { s.Status, s.PastDueAt = "active", never })
			l.open(l.now, "active")
			l.is("extra", l.now, false, "plan_required") // until the grant is back
			l.grant(back.Add(2*time.Second), "gr", granted)
			l.is("extra", l.now, true, "active")
			l.open(end.Add(30*day-tick), "active")
		})
	}
	t.Run("our own plan alone, grant not back yet", func(t *testing.T) {
		l, failed := failing(t)
		l.grant(failed.Add(time.Second), "gr", revoked(failed.Add(time.Second)))
		l.sub(failed.Add(day), func(s *ent.Subscription) {
			s.Status, s.PastDueAt, s.ProductID = "active", never, prodOther
		})
		l.is("extra", l.now, false, "benefit_revoked")
	})
}

func TestLife07DunningExhausted(t *testing.T) {
	for name, grace := range map[string]func(*ent.Grace){
		"default":                asItIs[ent.Grace],
		"grace longer than that": pastDueFor(60 * day),
		"polar":                  pastDuePolar,
	} {
		t.Run(name, func(t *testing.T) {
			l, failed := failing(t, grace)
			over := failed.Add(21*day + time.Minute)
			l.sub(over, func(s *ent.Subscription) {
				s.Status, s.CanceledAt, s.EndsAt, s.EndedAt = "canceled", over, over, over
			})
			l.closed(l.now, "canceled")
			l.is("extra", l.now, false, "canceled") // although still granted
			l.order(over.Add(time.Second), "ord2", func(o *ent.Order) { o.Status = "void" })
			l.grant(over.Add(time.Second), "gr", revoked(over.Add(time.Second)))
			l.closed(l.now, "canceled")
			l.is("extra", l.now, false, "canceled")
		})
	}
}

func TestLife08CancelAtPeriodEnd(t *testing.T) {
	l := bought(t)
	l.sub(start.Add(day), cancels(end))
	for _, plan := range []string{"pro", "extra"} {
		l.is(plan, l.now, true, "canceling")
		l.is(plan, end.Add(-tick), true, "canceling")
		l.is(plan, end, false, "canceled")
	}
	l.sub(end.Add(time.Minute), func(s *ent.Subscription) { s.Status, s.EndedAt = "canceled", end.Add(time.Minute) })
	l.closed(l.now, "canceled")
	l.is("extra", l.now, false, "canceled")
	l.grant(end.Add(2*time.Minute), "gr", revoked(end.Add(2*time.Minute)))
	l.closed(l.now, "canceled")
	l.is("extra", l.now, false, "canceled")
}

func TestLife09Uncancel(t *testing.T) {
	l := bought(t)
	l.sub(start.Add(day), cancels(end))
	l.open(l.now, "canceling")
	l.sub(start.Add(2*day), func(s *ent.Subscription) { s.CancelAtPeriodEnd, s.CanceledAt, s.EndsAt = false, never, never })
	l.open(l.now, "active")
	l.is("extra", l.now, true, "active")
	l.open(end, "renewal_grace")
}

func TestLife10RevokeNow(t *testing.T) {
	l := bought(t)
	at := start.Add(day)
	l.sub(at, func(s *ent.Subscription) { s.Status, s.CanceledAt, s.EndsAt, s.EndedAt = "canceled", at, at, at })
	l.closed(at, "canceled")
	l.is("extra", at, false, "canceled")
	l.closed(end, "canceled")
}

func TestLife11PlanChangeNow(t *testing.T) {
	l := bought(t)
	l.order(start.Add(day), "ord2", func(o *ent.Order) { o.Status, o.ProductID = "paid", prodTeam })
	l.open(l.now, "active")
	l.is("team", l.now, false, "plan_required")
	l.sub(start.Add(day+time.Second), product(prodTeam))
	l.closed(l.now, "plan_required")
	l.is("team", l.now, true, "active")
	l.is("extra", l.now, true, "active")
	l.grant(start.Add(day+2*time.Second), "gr", revoked(start.Add(day+2*time.Second)))
	l.is("extra", l.now, false, "plan_required")
	l.grant(start.Add(day+3*time.Second), "gr2", asItIs) // the new product's benefit is pro's
	l.open(l.now, "active")
}

func TestLife12PlanChangeLater(t *testing.T) {
	l := bought(t)
	l.sub(start.Add(day), func(s *ent.Subscription) { s.PendingProductID, s.PendingAt = prodTeam, end })
	l.open(l.now, "active")
	l.is("team", l.now, false, "plan_required")
	l.open(end, "renewal_grace")
	l.is("team", end, false, "plan_required")
	l.sub(end.Add(time.Minute), func(s *ent.Subscription) {
		cycled(s)
		s.ProductID, s.PendingProductID, s.PendingAt = prodTeam, "", never
	})
	l.closed(l.now, "plan_required")
	l.is("team", l.now, true, "active")
}

func TestLife13PauseAndResume(t *testing.T) {
	l := bought(t)
	l.sub(start.Add(day), func(s *ent.Subscription) { s.PauseAtPeriodEnd, s.ResumesAt = true, end.Add(60*day) })
	for _, plan := range []string{"pro", "extra"} {
		l.is(plan, l.now, true, "pausing")
		l.is(plan, end.Add(-tick), true, "pausing")
		l.is(plan, end, false, "paused")
	}
	at := end.Add(time.Minute)
	l.sub(at, func(s *ent.Subscription) { s.Status, s.PauseAtPeriodEnd, s.PausedAt = "paused", false, at })
	l.closed(at, "paused")
	l.is("extra", at, false, "paused") // although still granted
	l.grant(at.Add(time.Second), "gr", revoked(at.Add(time.Second)))
	l.is("extra", l.now, false, "paused")
	l.closed(end.Add(60*day), "paused") // resumes_at opens nothing by itself
	back := end.Add(60*day + time.Minute)
	l.sub(back, func(s *ent.Subscription) {
		s.Status, s.PausedAt, s.ResumesAt, s.PeriodStart, s.PeriodEnd = "active", never, never, back, back.Add(30*day)
	})
	l.open(back, "active")
	l.order(back.Add(time.Second), "ord2", asItIs)
	l.grant(back.Add(time.Second), "gr", granted)
	l.is("extra", l.now, true, "active")
	l.open(back.Add(30*day), "renewal_grace")
}

func TestLife14RefundOfSubscriptionOrder(t *testing.T) {
	l := bought(t)
	at := start.Add(day)
	l.facts.Refunds = []ent.Refund{refund(at, pending, func(r *ent.Refund) { r.OrderID, r.SubscriptionID = "ord1", "sub" })}
	l.open(at, "active")
	l.facts.Refunds[0].Succeeded = true
	l.order(at.Add(time.Second), "ord1", func(o *ent.Order) { o.Status = "refunded" })
	l.open(l.now, "active")
	l.is("extra", l.now, true, "active")
	l.open(end.Add(-tick), "active")
	l.sub(start.Add(2*day), func(s *ent.Subscription) {
		s.Status, s.CanceledAt, s.EndsAt, s.EndedAt = "canceled", start.Add(2*day), start.Add(2*day), start.Add(2*day)
	})
	l.closed(l.now, "canceled")
}

// boughtOnce is the first half of life cycle 15.
func boughtOnce(t *testing.T) *life {
	l := newLife(t)
	l.order(start, "ord", func(o *ent.Order) { o.SubscriptionID, o.Status = "", "paid" })
	l.open(l.now, "purchased")
	l.is("extra", l.now, false, "plan_required")
	l.grant(start.Add(time.Second), "gr", func(g *ent.Grant) { g.SubscriptionID, g.OrderID, g.BenefitID = "", "ord", benExtra })
	l.is("extra", l.now, true, "purchased")
	l.open(end.Add(999*day), "purchased")
	return l
}

func TestLife15OneTimePurchase(t *testing.T) {
	at := start.Add(5 * day)
	t.Run("partial refund that keeps the benefits", func(t *testing.T) {
		l := boughtOnce(t)
		l.facts.Refunds = []ent.Refund{refund(at)}
		l.order(at, "ord", func(o *ent.Order) { o.Status = "partially_refunded" })
		l.open(at, "purchased")
		l.is("extra", at, true, "purchased")
	})
	t.Run("partial refund that revokes", func(t *testing.T) {
		l := boughtOnce(t)
		l.facts.Refunds = []ent.Refund{refund(at, revoking, pending)}
		l.open(at, "purchased")
		l.facts.Refunds = []ent.Refund{refund(at, revoking)}
		l.closed(at, "refunded")
		l.order(at, "ord", func(o *ent.Order) { o.Status = "partially_refunded" })
		l.closed(at, "refunded")
		l.grant(at.Add(time.Second), "gr", revoked(at.Add(time.Second)))
		l.is("extra", l.now, false, "refunded")
	})
	t.Run("full refund without revoke_benefits", func(t *testing.T) {
		l := boughtOnce(t)
		l.facts.Refunds = []ent.Refund{refund(at)}
		l.open(at, "purchased")
		l.order(at, "ord", func(o *ent.Order) { o.Status = "refunded" })
		l.closed(at, "refunded")
		l.is("extra", at, false, "refunded")
	})
}

func TestLife16ChargebackPrevented(t *testing.T) {
	at := start.Add(5 * day)
	t.Run("of a one-time purchase", func(t *testing.T) {
		l := boughtOnce(t)
		l.facts.Refunds = []ent.Refund{refund(at, revoking, disputed)}
		l.closed(at, "refunded")
		l.order(at, "ord", func(o *ent.Order) { o.Status = "refunded" })
		l.grant(at, "gr", revoked(at))
		l.closed(at, "refunded")
		l.is("extra", at, false, "refunded")
	})
	t.Run("of a subscription's order", func(t *testing.T) {
		// The refund's subscription_id is null; only a cancel ends access,
		// and then without grace.
		l := bought(t, canceledFor(5*day))
		l.facts.Refunds = []ent.Refund{refund(at, revoking, disputed, func(r *ent.Refund) { r.OrderID = "ord1" })}
		l.open(at, "active")
		l.order(at, "ord1", func(o *ent.Order) { o.Status = "refunded" })
		l.open(at, "active")
		over := at.Add(day)
		l.sub(over, func(s *ent.Subscription) { s.Status, s.CanceledAt, s.EndsAt, s.EndedAt = "canceled", over, over, over })
		l.closed(over, "canceled")
	})
}

func TestLife17CustomerDeleted(t *testing.T) {
	l := bought(t)
	at := start.Add(day)
	l.facts.Customers = []ent.HeldCustomer{held("cus", at)}
	l.closed(at, "customer_deleted")
	l.is("extra", at, false, "customer_deleted")
	l.sub(at.Add(time.Second), func(s *ent.Subscription) { s.Status, s.CanceledAt, s.EndsAt, s.EndedAt = "canceled", at, at, at })
	l.grant(at.Add(2*time.Second), "gr", revoked(at.Add(2*time.Second)))
	l.closed(l.now, "customer_deleted")
	// The external id is free: a new customer with a purchase of its own.
	l.facts.Customers = append(l.facts.Customers, held("cus2", never))
	l.closed(l.now, "customer_deleted")
	l.facts.Subscriptions = append(l.facts.Subscriptions, sub("active", subID("sub2"), customer("cus2")))
	l.open(l.now, "active")
}

func TestLife18OrganizationShutDown(t *testing.T) {
	l := bought(t)
	l.open(end.Add(3*day-tick), "renewal_grace")
	l.closed(end.Add(3*day), "unavailable")
	l.rules.ConfirmedAt = end.Add(3 * day)
	l.closed(end.Add(3*day), "period_ended")
	over := end.Add(7 * day)
	l.sub(over, func(s *ent.Subscription) { s.Status, s.CanceledAt, s.EndsAt, s.EndedAt = "canceled", over, over, over })
	l.closed(over, "canceled")
}

package gateway

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/caddy-polar/caddy-polar/cache"
	"github.com/caddy-polar/caddy-polar/entitlement"
)

var (
	periodEnd = mustTime("2026-11-03T14:21:07.318204Z")
	nextEnd   = mustTime("2026-12-03T14:21:07.318204Z")
)

// life is one of Polar's life cycles (polar/contract.md 2.2), sent as Polar
// sends it: signed bodies, one after the other.
type life struct {
	*bench
	sub    object
	others map[string]object // orders, grants, refunds by id
	wanted map[string]entitlement.Reason
	sent   [][]byte
	named  []string
}

func newLife(t testing.TB, change ...func(*Config)) *life {
	l := &life{bench: newBench(t, change...), others: map[string]object{}, wanted: map[string]entitlement.Reason{}}
	l.want("pro", "no_subscription", "feature", "no_subscription", "any", "no_subscription")
	l.check()
	return l
}

func graceOf(change func(*entitlement.Grace)) func(*Config) { return withPlans(plans(change)) }

// want says what holds after the next event and each that follows: plan and
// reason in turn.
func (l *life) want(pairs ...string) {
	if len(pairs) > 1 && pairs[0] == "pro" && !slices.Contains(pairs, "team") {
		// What a plan that was never bought says depends on the one that was.
		l.wanted["team"] = "no_subscription"
		if slices.Contains(allowedReasons, entitlement.Reason(pairs[1])) {
			l.wanted["team"] = "plan_required"
		}
	}
	for i := 0; i < len(pairs); i += 2 {
		l.wanted[pairs[i]] = entitlement.Reason(pairs[i+1])
	}
}

var allowedReasons = []entitlement.Reason{
	"active", "canceling", "pausing", "trialing", "renewal_grace", "past_due_grace", "unpaid_grace", "canceled_grace", "purchased", "benefit", "pass",
}

func (l *life) check() {
	l.t.Helper()
	for plan, reason := range l.wanted {
		l.is(ada, plan, slices.Contains(allowedReasons, reason), reason)
	}
}

// at asserts a moment between events.
func (l *life) at(now time.Time, pairs ...string) {
	l.t.Helper()
	l.now = now
	for i := 0; i < len(pairs); i += 2 {
		reason := entitlement.Reason(pairs[i+1])
		l.is(ada, pairs[i], slices.Contains(allowedReasons, reason), reason)
	}
}

// send delivers an event as of a moment, and asserts what is wanted.
func (l *life) send(typ string, at time.Time, data object) {
	l.t.Helper()
	raw := body(l.t, object{"type": typ, "timestamp": stamp(at), "api_version": "2026-10", "data": data})
	l.sent, l.named = append(l.sent, raw), append(l.named, typ)
	l.now = at
	if r := l.take(raw); r.Result == ResultUndecodable || r.Result == ResultForeign || r.Type != typ {
		l.t.Errorf("%s: %+v", typ, r)
	}
	failed := l.t.Failed()
	l.check()
	if l.t.Failed() && !failed {
		l.t.Logf("after event %d, %s", len(l.sent), typ)
	}
}

// update is one change of the subscription, and the events that tell of it, a
// millisecond apart.
func (l *life) update(at time.Time, types string, edits ...any) {
	l.t.Helper()
	if l.sub == nil {
		l.sub = event(l.t, "subscription.active.json")["data"].(object)
		edit(l.t, l.sub, "modified_at", nil, "created_at", at)
	} else {
		edit(l.t, l.sub, "modified_at", at)
	}
	edit(l.t, l.sub, edits...)
	for i, typ := range strings.Fields(types) {
		l.send("subscription."+typ, at.Add(time.Duration(i+1)*time.Millisecond), l.sub)
	}
}

// other is an event of an object other than the subscription.
func (l *life) other(at time.Time, typ, template, id string, edits ...any) {
	l.t.Helper()
	o := l.others[id]
	if o == nil {
		o = event(l.t, template)["data"].(object)
		edit(l.t, o, "id", id, "created_at", at, "modified_at", nil)
		l.others[id] = o
	} else {
		edit(l.t, o, "modified_at", at)
	}
	edit(l.t, o, edits...)
	l.send(typ, at.Add(time.Millisecond), o)
}

func (l *life) order(at time.Time, event, id string, edits ...any) {
	l.t.Helper()
	l.other(at, "order."+event, "order.paid.json", id, edits...)
}

func (l *life) grant(at time.Time, id string, edits ...any) {
	l.t.Helper()
	l.other(at, "benefit_grant.created", "benefit_grant.created.json", id, append([]any{
		"is_granted", true, "granted_at", at, "is_revoked", false, "revoked_at", nil,
	}, edits...)...)
}

func (l *life) revoke(at time.Time, id string) {
	l.t.Helper()
	l.other(at, "benefit_grant.revoked", "", id, "is_granted", false, "granted_at", nil, "is_revoked", true, "revoked_at", at)
}

func (l *life) state(at time.Time) {
	l.t.Helper()
	d := event(l.t, "customer.state_changed.json")["data"].(object)
	l.send("customer.state_changed", at, d)
}

func (l *life) beforeBuying() {
	l.t.Helper()
	at := bought.Add(-4 * time.Minute)
	l.other(at, "customer.created", "customer.created.json", customer)
	l.send("member.created", at.Add(time.Second), event(l.t, "member.created.json")["data"].(object))
	l.other(at.Add(time.Minute), "checkout.updated", "checkout.updated.json", "990d3cd8-381d-422f-850c-86bd84e0164b", "status", "confirmed")
}

func (l *life) afterBuying() {
	l.t.Helper()
	l.order(bought.Add(time.Second), "created", "ord1")
	l.order(bought.Add(2*time.Second), "updated", "ord1")
	l.order(bought.Add(3*time.Second), "paid", "ord1")
	l.other(bought.Add(4*time.Second), "checkout.updated", "", "990d3cd8-381d-422f-850c-86bd84e0164b", "status", "succeeded")
	l.want("feature", string(l.wanted["pro"]))
	l.grant(bought.Add(5*time.Second), "gr1")
	l.state(bought.Add(6 * time.Second))
	l.owns(ada, customer)
}

// buy is life cycle 1.
func (l *life) buy() {
	l.t.Helper()
	l.beforeBuying()
	l.want("pro", "active", "any", "active", "feature", "plan_required")
	l.update(bought, "created active updated")
	l.afterBuying()
}

// try is life cycle 2: a trial of two weeks.
func (l *life) tryOut() (trial time.Time) {
	l.t.Helper()
	trial = bought.Add(14 * day)
	l.beforeBuying()
	l.want("pro", "trialing", "any", "trialing", "feature", "plan_required")
	l.update(bought, "created active updated", "status", "trialing", "trial_start", bought, "trial_end", trial, "current_period_end", trial)
	l.afterBuying()
	return trial
}

// all wants the same of the product's plan and the benefit's.
func (l *life) both(reason string) { l.want("pro", reason, "feature", reason, "any", reason) }

func (l *life) bothAt(now time.Time, reason string) {
	l.t.Helper()
	l.at(now, "pro", reason, "feature", reason, "any", reason)
}

func (l *life) cycle(at time.Time, from, to time.Time) {
	l.t.Helper()
	l.update(at, "cycled updated", "status", "active", "current_period_start", from, "current_period_end", to)
}

// failPayment is life cycle 5 up to past_due, with a new period before.
func (l *life) failPayment() (failed time.Time) {
	l.t.Helper()
	l.cycle(periodEnd.Add(time.Second), periodEnd, nextEnd)
	l.order(periodEnd.Add(3*time.Second), "created", "ord2", "status", "pending", "billing_reason", "subscription_cycle")
	failed = periodEnd.Add(time.Hour)
	l.both("past_due_grace")
	l.update(failed, "updated past_due", "status", "past_due", "past_due_at", failed)
	l.state(failed.Add(time.Second))
	return failed
}

func (l *life) recover(at time.Time) {
	l.t.Helper()
	l.order(at, "updated", "ord2", "status", "paid")
	l.order(at.Add(time.Millisecond), "paid", "ord2")
	l.want("pro", "active", "any", "active", "feature", "plan_required")
	l.update(at.Add(time.Second), "updated active", "status", "active", "past_due_at", nil)
	l.want("feature", "active")
	l.grant(at.Add(2*time.Second), "gr1")
}

func (l *life) over(at time.Time, types string) {
	l.t.Helper()
	l.both("canceled")
	l.update(at, types, "status", "canceled", "canceled_at", at, "ends_at", at, "ended_at", at)
}

// setUp makes one plan for each way to treat a failed payment.
func pastDue(g entitlement.PastDueGrace) func(*Config) {
	return graceOf(func(x *entitlement.Grace) { x.PastDue = g })
}

const µs = time.Microsecond

var lives = []struct {
	name  string
	setup []func(*Config)
	run   func(l *life)
}{
	{"01 purchase", nil, func(l *life) {
		l.buy()
		l.bothAt(periodEnd.Add(-µs), "active")
		l.bothAt(periodEnd, "renewal_grace")
		l.bothAt(periodEnd.Add(3*day-µs), "renewal_grace")
		l.bothAt(periodEnd.Add(3*day), "unavailable")
	}},
	{"02 trial", nil, func(l *life) {
		trial := l.tryOut()
		l.bothAt(trial.Add(-µs), "trialing")
		l.bothAt(trial, "renewal_grace")
		l.bothAt(trial.Add(3*day), "unavailable")
	}},
	{"02 trial, no token", []func(*Config){withToken("")}, func(l *life) {
		trial := l.tryOut()
		l.bothAt(trial.Add(3*day-µs), "renewal_grace")
		l.bothAt(trial.Add(3*day), "trial_ended")
	}},
	{"03 trial converts", nil, func(l *life) {
		trial := l.tryOut()
		l.both("active")
		l.cycle(trial.Add(time.Second), trial, trial.Add(31*day))
		l.order(trial.Add(time.Hour), "created", "ord2", "status", "pending")
		l.order(trial.Add(2*time.Hour), "paid", "ord2", "status", "paid")
		l.other(trial.Add(3*time.Hour), "benefit_grant.cycled", "", "gr1")
		l.bothAt(trial.Add(31*day-µs), "active")
		l.bothAt(trial.Add(31*day), "renewal_grace")
	}},
	{"03 trial, payment fails", []func(*Config){graceOf(func(g *entitlement.Grace) { g.TrialPastDue.For = day })}, func(l *life) {
		trial := l.tryOut()
		l.both("active")
		l.cycle(trial.Add(time.Second), trial, trial.Add(31*day))
		failed := trial.Add(time.Hour)
		l.both("past_due_grace")
		l.update(failed, "updated past_due", "status", "past_due", "past_due_at", failed)
		l.revoke(failed.Add(time.Second), "gr1")
		l.bothAt(failed.Add(day-µs), "past_due_grace")
		l.bothAt(failed.Add(day), "past_due")
	}},
	{"03 trial canceled", nil, func(l *life) {
		trial := l.tryOut()
		l.both("canceling")
		l.update(bought.Add(day), "updated canceled", "cancel_at_period_end", true, "canceled_at", bought.Add(day), "ends_at", trial)
		l.bothAt(trial.Add(-µs), "canceling")
		l.bothAt(trial, "canceled")
		l.both("canceled")
		l.update(trial.Add(time.Second), "updated canceled revoked", "status", "canceled", "ended_at", trial.Add(time.Second))
		l.revoke(trial.Add(2*time.Second), "gr1")
	}},
	{"04 renewal", nil, func(l *life) {
		l.buy()
		l.cycle(periodEnd.Add(time.Second), periodEnd, nextEnd)
		l.order(periodEnd.Add(2*time.Second), "created", "ord2", "status", "pending")
		l.order(periodEnd.Add(3*time.Second), "updated", "ord2", "status", "paid")
		l.order(periodEnd.Add(4*time.Second), "paid", "ord2")
		l.other(periodEnd.Add(5*time.Second), "benefit_grant.cycled", "", "gr1")
		l.state(periodEnd.Add(6 * time.Second))
		l.bothAt(nextEnd.Add(-µs), "active")
		l.bothAt(nextEnd, "renewal_grace")
	}},
	{"05 renewal fails, grants revoked, our grace", nil, func(l *life) {
		l.buy()
		failed := l.failPayment()
		l.revoke(failed.Add(2*time.Second), "gr1") // Polar's own grace is 0
		l.bothAt(failed.Add(7*day-µs), "past_due_grace")
		l.bothAt(failed.Add(7*day), "past_due")
	}},
	{"05 renewal fails, grace off", []func(*Config){pastDue(entitlement.PastDueGrace{})}, func(l *life) {
		l.buy()
		l.cycle(periodEnd.Add(time.Second), periodEnd, nextEnd)
		l.both("past_due")
		l.update(periodEnd.Add(time.Hour), "updated past_due", "status", "past_due", "past_due_at", periodEnd.Add(time.Hour))
	}},
	{"05 renewal fails, Polar decides, its grace 0", []func(*Config){pastDue(entitlement.PastDueGrace{Polar: true})}, func(l *life) {
		l.buy()
		failed := l.failPayment()
		l.both("past_due")
		l.revoke(failed.Add(2*time.Second), "gr1")
	}},
	{"05 renewal fails, Polar decides, its grace 7", []func(*Config){pastDue(entitlement.PastDueGrace{Polar: true})}, func(l *life) {
		l.buy()
		failed := l.failPayment()
		l.bothAt(failed.Add(7*day), "past_due_grace")
		l.both("past_due")
		l.revoke(failed.Add(7*day+time.Hour), "gr1")
		l.bothAt(failed.Add(8*day), "past_due")
	}},
	{"06 recovered in grace", nil, func(l *life) {
		l.buy()
		failed := l.failPayment()
		l.revoke(failed.Add(2*time.Second), "gr1")
		l.recover(failed.Add(2 * day))
		l.bothAt(nextEnd.Add(-µs), "active")
	}},
	{"06 recovered after grace", nil, func(l *life) {
		l.buy()
		failed := l.failPayment()
		l.revoke(failed.Add(2*time.Second), "gr1")
		l.bothAt(failed.Add(14*day), "past_due")
		l.both("past_due")
		l.recover(failed.Add(14 * day))
		l.bothAt(nextEnd.Add(-µs), "active")
	}},
	{"06 recovered, grants kept", []func(*Config){pastDue(entitlement.PastDueGrace{Polar: true})}, func(l *life) {
		l.buy()
		failed := l.failPayment()
		l.both("active")
		l.update(failed.Add(2*day), "updated active", "status", "active", "past_due_at", nil)
	}},
	{"07 dunning exhausted", nil, func(l *life) {
		l.buy()
		failed := l.failPayment()
		l.revoke(failed.Add(2*time.Second), "gr1")
		l.bothAt(failed.Add(21*day), "past_due")
		end := failed.Add(21*day + time.Minute)
		l.over(end, "updated canceled revoked")
		l.order(end.Add(time.Second), "updated", "ord2", "status", "void")
		l.state(end.Add(2 * time.Second))
	}},
	{"07 dunning exhausted in a long grace", []func(*Config){pastDue(entitlement.PastDueGrace{For: 60 * day})}, func(l *life) {
		l.buy()
		failed := l.failPayment()
		l.bothAt(failed.Add(21*day), "past_due_grace")
		l.over(failed.Add(21*day+time.Minute), "updated canceled revoked")
		l.revoke(failed.Add(21*day+2*time.Minute), "gr1")
	}},
	{"08 cancel at period end", nil, func(l *life) {
		l.buy()
		l.both("canceling")
		l.update(bought.Add(9*day), "updated canceled", "cancel_at_period_end", true, "canceled_at", bought.Add(9*day), "ends_at", periodEnd)
		l.bothAt(periodEnd.Add(-µs), "canceling")
		l.bothAt(periodEnd, "canceled") // no renewal grace: it does not renew
		l.both("canceled")
		l.update(periodEnd.Add(time.Second), "updated canceled revoked", "status", "canceled", "ended_at", periodEnd.Add(time.Second))
		l.revoke(periodEnd.Add(2*time.Second), "gr1")
		l.state(periodEnd.Add(3 * time.Second))
	}},
	{"09 uncancel", nil, func(l *life) {
		l.buy()
		l.both("canceling")
		l.update(bought.Add(9*day), "updated canceled", "cancel_at_period_end", true, "canceled_at", bought.Add(9*day), "ends_at", periodEnd)
		l.both("active")
		l.update(bought.Add(10*day), "updated uncanceled", "cancel_at_period_end", false, "canceled_at", nil, "ends_at", nil)
		l.bothAt(periodEnd, "renewal_grace")
	}},
	{"10 revoke now", nil, func(l *life) {
		l.buy()
		l.over(bought.Add(9*day), "updated canceled revoked")
		l.revoke(bought.Add(9*day+time.Second), "gr1")
		l.bothAt(periodEnd, "canceled")
	}},
	{"11 plan change now", nil, func(l *life) {
		l.buy()
		at := bought.Add(12 * day)
		l.order(at, "created", "ord2", "product_id", teamProduct, "billing_reason", "subscription_update")
		l.order(at.Add(time.Second), "paid", "ord2")
		l.want("pro", "plan_required", "team", "active")
		l.update(at.Add(2*time.Second), "updated", "product_id", teamProduct)
		l.want("feature", "plan_required")
		l.revoke(at.Add(3*time.Second), "gr1")
		l.want("licence", "active")
		l.grant(at.Add(4*time.Second), "gr2", "benefit_id", licenceBenefit)
		l.at(periodEnd, "team", "renewal_grace", "licence", "renewal_grace", "pro", "plan_required")
	}},
	{"12 plan change at next period", nil, func(l *life) {
		l.buy()
		l.update(bought.Add(12*day), "updated", "pending_update", object{"id": "p", "applies_at": stamp(periodEnd), "product_id": teamProduct, "seats": nil})
		l.at(periodEnd.Add(-µs), "pro", "active", "team", "plan_required")
		l.at(periodEnd, "pro", "renewal_grace", "team", "plan_required")
		l.want("pro", "plan_required", "team", "active")
		l.update(periodEnd.Add(time.Second), "cycled updated", "product_id", teamProduct, "pending_update", nil,
			"current_period_start", periodEnd, "current_period_end", nextEnd)
		l.want("feature", "plan_required")
		l.revoke(periodEnd.Add(2*time.Second), "gr1")
	}},
	{"13 pause and resume", nil, func(l *life) {
		l.buy()
		l.both("pausing")
		l.update(bought.Add(9*day), "updated", "pause_at_period_end", true, "resumes_at", nextEnd)
		l.bothAt(periodEnd.Add(-µs), "pausing")
		l.bothAt(periodEnd, "paused")
		l.both("paused")
		l.update(periodEnd.Add(time.Second), "updated paused", "status", "paused", "pause_at_period_end", false, "paused_at", periodEnd.Add(time.Second))
		l.revoke(periodEnd.Add(2*time.Second), "gr1")
		l.bothAt(nextEnd, "paused") // the date alone opens nothing
		back := nextEnd.Add(time.Second)
		l.want("pro", "active", "any", "active", "feature", "plan_required")
		l.update(back, "updated resumed", "status", "active", "paused_at", nil, "resumes_at", nil, "current_period_start", back, "current_period_end", back.Add(31*day))
		l.order(back.Add(time.Second), "created", "ord2", "status", "pending")
		l.want("feature", "active")
		l.grant(back.Add(2*time.Second), "gr1")
		l.bothAt(back.Add(31*day), "renewal_grace")
	}},
	{"14 refund of a subscription's order", nil, func(l *life) {
		l.buy()
		at := bought.Add(5 * day)
		l.other(at, "refund.created", "refund.created.json", "ref1", "status", "pending", "revoke_benefits", false, "order_id", "ord1", "subscription_id", subID)
		l.other(at.Add(time.Second), "refund.updated", "", "ref1", "status", "succeeded")
		l.order(at.Add(2*time.Second), "updated", "ord1", "status", "refunded")
		l.order(at.Add(3*time.Second), "refunded", "ord1")
		l.bothAt(periodEnd.Add(-µs), "active")
		l.over(bought.Add(9*day), "updated canceled revoked")
	}},
	{"15 one-time purchase", nil, func(l *life) {
		l.buyOnce()
		l.at(bought.Add(5000*day), "lifetime", "purchased", "licence", "purchased")
	}},
	{"15 one-time, refunded with benefits", nil, func(l *life) {
		l.buyOnce()
		at := bought.Add(6 * day)
		l.want("lifetime", "refunded", "licence", "refunded")
		l.other(at, "refund.created", "refund.created.json", "ref1", "order_id", "once")
		l.other(at.Add(time.Second), "order.updated", "", "once", "status", "refunded")
		l.other(at.Add(2*time.Second), "order.refunded", "", "once")
		l.revoke(at.Add(3*time.Second), "gr2")
	}},
	{"15 one-time, part refunded with benefits", nil, func(l *life) {
		l.buyOnce()
		at := bought.Add(6 * day)
		l.other(at, "refund.created", "refund.created.json", "ref1", "order_id", "once", "status", "pending")
		l.want("lifetime", "refunded", "licence", "refunded")
		l.other(at.Add(time.Second), "refund.updated", "", "ref1", "status", "succeeded")
		l.other(at.Add(2*time.Second), "order.refunded", "", "once", "status", "partially_refunded")
		l.revoke(at.Add(3*time.Second), "gr2")
	}},
	{"15 one-time, part refunded, benefits kept", nil, func(l *life) {
		l.buyOnce()
		at := bought.Add(6 * day)
		l.other(at, "refund.created", "refund.created.json", "ref1", "order_id", "once", "revoke_benefits", false)
		l.other(at.Add(time.Second), "order.updated", "", "once", "status", "partially_refunded")
		l.other(at.Add(2*time.Second), "order.refunded", "", "once")
	}},
	{"16 chargeback prevented", nil, func(l *life) {
		l.buyOnce()
		at := bought.Add(6 * day)
		l.want("lifetime", "refunded", "licence", "refunded")
		l.other(at, "refund.created", "refund.created.json", "ref1", "order_id", "once", "reason", "dispute_prevention")
		l.other(at.Add(time.Second), "order.refunded", "", "once", "status", "refunded")
		l.revoke(at.Add(2*time.Second), "gr2")
	}},
	{"16 dispute lost", nil, func(l *life) {
		l.buyOnce()
		at := bought.Add(6 * day)
		l.want("lifetime", "disputed", "licence", "disputed")
		l.other(at, "refund.created", "refund.created.json", "ref1", "order_id", "once", "dispute", object{"id": "d", "status": "lost"})
		l.other(at.Add(time.Second), "order.refunded", "", "once", "status", "refunded")
		if d := l.decide(ada, "lifetime"); d.HTTPStatus != 403 {
			l.t.Errorf("status %d", d.HTTPStatus)
		}
	}},
	{"16 chargeback of a subscription, then no grace", []func(*Config){graceOf(func(g *entitlement.Grace) { g.Canceled = 2 * day })}, func(l *life) {
		l.buy()
		at := bought.Add(6 * day)
		l.other(at, "refund.created", "refund.created.json", "ref1", "order_id", "ord1", "subscription_id", nil, "reason", "dispute_prevention")
		l.order(at.Add(time.Second), "refunded", "ord1", "status", "refunded")
		l.over(at.Add(time.Minute), "updated canceled revoked")
	}},
	{"10 revoke now, grace", []func(*Config){graceOf(func(g *entitlement.Grace) { g.Canceled = 2 * day })}, func(l *life) {
		l.buy()
		at := bought.Add(6 * day)
		l.want("pro", "canceled_grace", "any", "canceled_grace", "feature", "plan_required")
		l.update(at, "updated canceled revoked", "status", "canceled", "canceled_at", at, "ends_at", at, "ended_at", at)
		l.bothAt(at.Add(2*day), "canceled")
	}},
	{"17 customer deleted and made again", nil, func(l *life) {
		l.buy()
		at := bought.Add(9 * day)
		l.both("customer_deleted")
		l.other(at, "customer.deleted", "", customer, "deleted_at", at)
		state := event(l.t, "customer.state_changed.no_access.json")["data"].(object)
		edit(l.t, state, "modified_at", at, "deleted_at", at)
		l.send("customer.state_changed", at.Add(time.Second), state)
		edit(l.t, l.sub, "customer.deleted_at", at)
		l.update(at.Add(2*time.Second), "updated canceled revoked", "status", "canceled", "canceled_at", at, "ends_at", at, "ended_at", at)
		edit(l.t, l.others["gr1"], "customer.deleted_at", at)
		l.revoke(at.Add(3*time.Second), "gr1")
		if d := l.decide(ada, "pro"); d.HTTPStatus != 403 {
			l.t.Errorf("status %d", d.HTTPStatus)
		}
		l.owns(ada, "")

		const again = "c0000000-9bf1-4331-8a11-8783593942a4"
		at = bought.Add(10 * day)
		l.other(at, "customer.created", "customer.created.json", again)
		l.owns(ada, again)
		l.sub = nil
		l.want("pro", "active", "any", "active", "feature", "plan_required")
		l.update(at.Add(time.Minute), "created active updated", "id", "sub2", "customer_id", again, "customer.id", again,
			"current_period_start", at, "current_period_end", at.Add(31*day), "checkout_id", nil)
		l.want("feature", "active")
		l.grant(at.Add(2*time.Minute), "gr3", "subscription_id", "sub2", "customer_id", again, "customer.id", again)
		l.owns(ada, again)
		l.bothAt(at.Add(31*day), "renewal_grace")
	}},
	{"17 customer deleted, subscription told first", nil, func(l *life) {
		l.buy()
		at := bought.Add(9 * day)
		l.over(at, "updated canceled revoked")
		l.revoke(at.Add(time.Second), "gr1")
		l.both("customer_deleted")
		l.other(at.Add(2*time.Second), "customer.deleted", "", customer, "deleted_at", at)
	}},
	{"18 organization shut down", nil, func(l *life) {
		l.buy()
		l.bothAt(periodEnd.Add(day), "renewal_grace")
		l.bothAt(periodEnd.Add(3*day), "unavailable")
		if d := l.decide(ada, "pro"); d.HTTPStatus != 503 {
			l.t.Errorf("status %d", d.HTTPStatus)
		}
		l.over(periodEnd.Add(7*day), "updated canceled revoked")
	}},
	{"18 organization shut down, no token", []func(*Config){withToken("")}, func(l *life) {
		l.buy()
		l.bothAt(periodEnd.Add(3*day-µs), "renewal_grace")
		l.bothAt(periodEnd.Add(3*day), "period_ended")
		if d := l.decide(ada, "pro"); d.HTTPStatus != 402 {
			l.t.Errorf("status %d", d.HTTPStatus)
		}
		l.over(periodEnd.Add(7*day), "updated canceled revoked")
	}},
	{"20 past due longer than a period", nil, func(l *life) {
		l.buy()
		failed := l.failPayment()
		l.bothAt(failed.Add(8*day), "past_due")
		l.both("past_due")
		l.update(nextEnd, "cycled updated", "status", "past_due", "current_period_start", nextEnd, "current_period_end", nextEnd.Add(31*day))
	}},
}

// buyOnce is the first half of life cycle 15.
func (l *life) buyOnce() {
	l.t.Helper()
	l.other(bought.Add(-time.Minute), "customer.created", "customer.created.json", customer)
	l.want("lifetime", "purchased", "any", "purchased", "team", "plan_required", "pro", "plan_required", "feature", "plan_required", "licence", "plan_required")
	l.other(bought, "order.created", "order.paid.one_time.json", "once")
	l.other(bought.Add(time.Second), "order.updated", "", "once")
	l.other(bought.Add(2*time.Second), "order.paid", "", "once")
	l.want("licence", "purchased")
	l.grant(bought.Add(3*time.Second), "gr2", "benefit_id", licenceBenefit, "subscription_id", nil, "order_id", "once")
	l.state(bought.Add(4 * time.Second))
	for _, plan := range []string{"any", "pro", "team", "feature"} {
		delete(l.wanted, plan)
	}
}

func TestLives(t *testing.T) {
	for _, c := range lives {
		t.Run(c.name, func(t *testing.T) {
			l := newLife(t, c.setup...)
			c.run(l)
			if len(l.sent) < 6 {
				t.Errorf("only %d events", len(l.sent))
			}
			l.sameAs(t, c.setup, reversed(l.sent))
			l.sameAs(t, c.setup, append(slices.Clone(l.sent), l.sent...))
		})
	}
}

func reversed(s [][]byte) [][]byte {
	s = slices.Clone(s)
	slices.Reverse(s)
	return s
}

// decisions are all that can be asked about, at the end and later.
func (b *bench) decisions() []string {
	now := b.now
	defer func() { b.now = now }()
	var all []string
	for _, after := range []time.Duration{0, time.Second, 3 * day, 8 * day, 40 * day} {
		b.now = now.Add(after)
		for _, plan := range []string{"any", "pro", "team", "lifetime", "feature", "licence"} {
			all = append(all, fmt.Sprintf("%s %+v", plan, b.decide(ada, plan)))
		}
	}
	return append(all, b.account(ada).OwnCustomer())
}

// fastStore is a store on a disk of memory where there is one: the shuffles
// wait for many thousand commits otherwise.
func fastStore(t testing.TB) (*cache.Store, func()) {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "polar")
	if err != nil {
		dir, err = os.MkdirTemp("", "polar")
	}
	if err != nil {
		t.Fatal(err)
	}
	s := cache.New(filepath.Join(dir, "polar.db"))
	return s, func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		_ = os.RemoveAll(dir)
	}
}

// sameAs sends bodies to a new gateway and asserts that it ends up as this one.
func (l *life) sameAs(t testing.TB, setup []func(*Config), bodies [][]byte) {
	t.Helper()
	s, done := fastStore(t)
	defer done()
	b := newBench(t, append(slices.Clone(setup), withStore(s))...)
	b.now = l.now
	for _, raw := range bodies {
		b.take(raw)
	}
	if got, want := b.decisions(), l.decisions(); !slices.Equal(got, want) {
		t.Errorf("decisions differ:\ngot  %v\nwant %v", got, want)
	}
	if got, want := b.account(ada).Facts, l.account(ada).Facts; !reflect.DeepEqual(got, want) {
		t.Errorf("facts differ:\ngot  %+v\nwant %+v", got, want)
	}
}

// TestShuffledLives: in any order and any repetition the same comes out.
func TestShuffledLives(t *testing.T) {
	var all []*life
	for _, c := range lives {
		s, done := fastStore(t)
		t.Cleanup(done)
		l := newLife(t, append(slices.Clone(c.setup), withStore(s))...)
		c.run(l)
		all = append(all, l)
	}
	rapid.Check(t, func(rt *rapid.T) {
		i := rapid.IntRange(0, len(lives)-1).Draw(rt, "life")
		seed := rapid.Uint64().Draw(rt, "seed")
		twice := append(slices.Clone(all[i].sent), all[i].sent...)
		r := rand.New(rand.NewPCG(seed, 1))
		r.Shuffle(len(twice), func(a, b int) { twice[a], twice[b] = twice[b], twice[a] })
		all[i].sameAs(t, lives[i].setup, twice)
		if t.Failed() {
			rt.Fatalf("%s", lives[i].name)
		}
	})
}

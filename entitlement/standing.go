package entitlement

import (
	"slices"
	"strings"
	"time"
)

// benefitLooks is how often it is looked anew at what a benefit alone opens: it says
// nothing of when it ends, and what it belongs to may have ended unheard.
const benefitLooks = time.Minute

// Standing is what an account comes to from one moment to another. Nothing opens
// by time alone, and what is open says until when it is so: in between, the
// answers to a user's requests need not be worked out again. What a sync confirms
// opens nothing either, and closes nothing that is open.
type Standing struct {
	// Open are the names of the plans that are open, comma separated, in the
	// configuration's order.
	Open string
	// Customer is the account's OwnCustomer.
	Customer string
	// Known is the account's.
	Known bool

	rules    *Rules
	from, to time.Time // to: zero if it is for ever
	plans    []OpenPlan
}

// OpenPlan is the decision that one plan alone is open.
type OpenPlan struct {
	Decision
	// UntilText is Until in RFC 3339, UTC with seconds, empty if it is zero.
	UntilText string

	plan int // index into the rules
}

// Standing is the account's at a moment. It is remembered with the account, which
// never changes, until it is over.
func (a *Account) Standing(r *Rules, now time.Time) *Standing {
	if s := a.standing.Load(); s != nil && s.Holds(r, now) {
		return s
	}
	s := &Standing{Customer: a.OwnCustomer(), Known: a.Known(), rules: r, from: now}
	for i := range r.Plans {
		if w := a.best(&r.Plans[i], r, now); w.open {
			s.add(i, w.decision(&r.Plans[i], true))
		}
	}
	s.name()
	a.standing.Store(s)
	return s
}

// add takes an open plan.
func (s *Standing) add(plan int, d Decision) {
	p := OpenPlan{Decision: d, plan: plan}
	if !p.Until.IsZero() {
		p.UntilText = p.Until.UTC().Format(time.RFC3339)
		s.endBy(p.Until)
	}
	if p.Reason == ReasonBenefit {
		s.endBy(s.from.Add(benefitLooks))
	}
	s.plans = append(s.plans, p)
}

func (s *Standing) endBy(t time.Time) {
	if s.to.IsZero() || t.Before(s.to) {
		s.to = t
	}
}

// name lists the open plans.
func (s *Standing) name() {
	if len(s.plans) == 1 {
		s.Open = s.plans[0].Plan
		return
	}
	names := make([]string, len(s.plans))
	for i := range s.plans {
		names[i] = s.plans[i].Plan
	}
	s.Open = strings.Join(names, ",")
}

// Holds says whether the standing is still that of its account, by these rules: those
// it was made with, or what a sync has made of them.
func (s *Standing) Holds(r *Rules, now time.Time) bool {
	return s.rules.samePlans(r) && !now.Before(s.from) && (s.to.IsZero() || now.Before(s.to))
}

func (r *Rules) samePlans(o *Rules) bool {
	return len(r.Plans) == len(o.Plans) && (len(r.Plans) == 0 || &r.Plans[0] == &o.Plans[0])
}

// Count is how many plans are open.
func (s *Standing) Count() int { return len(s.plans) }

// Meets is the answer of Decide if it allows, else nil. Do not change it.
func (s *Standing) Meets(q Requirement) *OpenPlan {
	i := slices.IndexFunc(s.plans, func(p OpenPlan) bool { return q.includes(p.plan) })
	if i < 0 {
		return nil
	}
	return &s.plans[i]
}

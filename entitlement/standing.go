package entitlement

import (
	"slices"
	"strings"
	"time"
)

// Standing is what an account comes to from one moment to another. Nothing opens
// by time alone, and what is open says until when it is so: in between, the
// answers to a user's requests need not be worked out again.
type Standing struct {
	// Open are the names of the plans that are open, comma separated, in the
	// configuration's order.
	Open string
	// Customer is the account's OwnCustomer.
	Customer string

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
	if s := a.standing.Load(); s != nil && s.rules == r && s.holds(now) {
		return s
	}
	s := &Standing{Customer: a.OwnCustomer(), rules: r, from: now}
	var names []string
	for i := range r.Plans {
		w := a.best(&r.Plans[i], r, now)
		if !w.open {
			continue
		}
		p := OpenPlan{Decision: w.decision(&r.Plans[i], true), plan: i}
		if !p.Until.IsZero() {
			p.UntilText = p.Until.UTC().Format(time.RFC3339)
			if s.to.IsZero() || p.Until.Before(s.to) {
				s.to = p.Until
			}
		}
		names, s.plans = append(names, p.Plan), append(s.plans, p)
	}
	s.Open = strings.Join(names, ",")
	a.standing.Store(s)
	return s
}

func (s *Standing) holds(now time.Time) bool {
	return !now.Before(s.from) && (s.to.IsZero() || now.Before(s.to))
}

// Meets is the answer of Decide if it allows, else nil. Do not change it.
func (s *Standing) Meets(q Requirement) *OpenPlan {
	i := slices.IndexFunc(s.plans, func(p OpenPlan) bool { return q.includes(p.plan) })
	if i < 0 {
		return nil
	}
	return &s.plans[i]
}

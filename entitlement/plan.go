package entitlement

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// ErrUnknownPlan says that a requirement names a plan that is not configured.
var ErrUnknownPlan = errors.New("no such plan")

// Plan is the operator's name for products and benefits.
type Plan struct {
	Name     string
	Products []string
	Benefits []string
	Grace    Grace
}

// Grace is for how long access goes on although the payment or the
// confirmation is missing.
type Grace struct {
	PastDue PastDueGrace
	// TrialPastDue holds when the unpaid period is the first after a trial.
	TrialPastDue PastDueGrace
	// Renewal is how late Polar's scheduler and webhooks may be at the end of
	// a period or trial.
	Renewal  time.Duration
	Unpaid   time.Duration
	Canceled time.Duration
}

// PastDueGrace is a duration, or Polar's own revocation of the benefits.
type PastDueGrace struct {
	For   time.Duration // zero: refused at once
	Polar bool          // Polar decides, For does not count
}

// DefaultGrace is what holds when the operator says nothing.
func DefaultGrace() Grace {
	week := PastDueGrace{For: 7 * 24 * time.Hour}
	return Grace{PastDue: week, TrialPastDue: week, Renewal: 3 * 24 * time.Hour}
}

// Rules turn an account into a decision.
type Rules struct {
	// Plans in the order of the configuration: the first that opens wins.
	Plans []Plan
	// CanConfirm says that the gateway can ask Polar. Without, what the
	// webhooks said is all there is, and a period that is over is over.
	CanConfirm bool
	// ConfirmedAt is the start of the last whole sync, zero before the first.
	ConfirmedAt time.Time
}

// Requirement is what a route demands: one of some plans of the rules it was
// made from. The zero value demands any plan.
type Requirement struct {
	plans []int // indexes into Rules.Plans; nil: all
	one   int   // index of the only one, plus one; 0: see plans
}

// Require makes the requirement of one of the named plans. No name at all, and
// the name "any", mean every plan of the rules.
func (r *Rules) Require(names ...string) (Requirement, error) {
	var q Requirement
	for _, name := range names {
		i := slices.IndexFunc(r.Plans, func(p Plan) bool { return p.Name == name })
		if i < 0 && name != "any" {
			return Requirement{}, fmt.Errorf("%w: %q is none of %s", ErrUnknownPlan, name, strings.Join(r.AllNames(), ", "))
		}
		q.plans = append(q.plans, i)
	}
	if slices.Contains(names, "any") {
		return Requirement{}, nil
	}
	return q, nil
}

// AllNames lists all plans in the order of the configuration.
func (r *Rules) AllNames() []string {
	names := make([]string, len(r.Plans))
	for i := range r.Plans {
		names[i] = r.Plans[i].Name
	}
	return names
}

func (q Requirement) includes(plan int) bool {
	if q.one > 0 {
		return plan == q.one-1
	}
	return q.plans == nil || slices.Contains(q.plans, plan)
}

// Names lists the required plans in the order of the configuration.
func (r *Rules) Names(q Requirement) []string {
	var names []string
	for i := range r.Plans {
		if q.includes(i) {
			names = append(names, r.Plans[i].Name)
		}
	}
	return names
}

// Only is the requirement of the plan at one index of the rules.
func (r *Rules) Only(plan int) Requirement { return Requirement{one: plan + 1} }

package entitlement

import (
	"net/http"
	"slices"
	"time"
)

// Decision is the answer to one account, requirement and moment.
type Decision struct {
	Allowed bool
	Reason  Reason
	// Plan is the plan that opened. Of a refusal: the plan that was looked at
	// when its reason was found, or empty.
	Plan string
	// Status is Polar's subscription status, or "order", "pass", "none".
	Status string
	// Until is when the reason ends, zero if it does not. Of a refusal: when
	// access ended, zero if there never was any.
	Until time.Time
	// Grace says that access rests on grace, which then ends at Until.
	Grace bool
	// HTTPStatus is 200, 402, 403 or 503.
	HTTPStatus int
	// NextStep is what a refused user can do.
	NextStep NextStep
}

// Decide says whether the account meets the requirement now. Boundaries are
// half-open: access at t < end, none at t >= end.
//
// The first plan that opens wins, in the configuration's order, and within it
// the way that lasts longest.
func Decide(a *Account, q Requirement, r *Rules, now time.Time) Decision {
	told := way{reason: ReasonNoSubscription, status: statusNone}
	toldPlan := -1
	sells := false // something that would open a required plan
	for i := range r.Plans {
		if !q.includes(i) {
			continue
		}
		best := a.best(&r.Plans[i], r, now)
		if best.open {
			return best.decision(&r.Plans[i], true)
		}
		sells = sells || len(r.Plans[i].Products) > 0
		if best.tellsMoreThan(&told) {
			told, toldPlan = best, i
		}
	}
	if told.class() < classOther {
		if other, ok := a.openElsewhere(q, r, now); ok {
			told, toldPlan = other, -1
		}
	}
	if toldPlan < 0 {
		return told.decision(nil, sells)
	}
	return told.decision(&r.Plans[toldPlan], sells)
}

// openElsewhere looks for something open that is not of a required plan.
func (a *Account) openElsewhere(q Requirement, r *Rules, now time.Time) (way, bool) {
	for i := range r.Plans {
		if q.includes(i) {
			continue
		}
		if w := a.best(&r.Plans[i], r, now); w.open {
			return way{reason: ReasonPlanRequired, status: w.status, subscribed: w.subscribed}, true
		}
	}
	return way{}, false
}

// Opens says whether the account opens the plan at one index of the rules now.
func (a *Account) Opens(plan int, r *Rules, now time.Time) bool {
	w := a.best(&r.Plans[plan], r, now)
	return w.open
}

// best is the way that opens the plan for longest, or if none does, the one
// whose refusal tells most. Equal ways fall to the earlier row of the table in
// the design: subscriptions by status, then orders, grants, seats and passes.
func (a *Account) best(p *Plan, r *Rules, now time.Time) way {
	return a.compare(p, r, now, nil)
}

// contest is a comparison of ways.
type contest struct {
	best way
	// told of each way, and whether it is the best so far. nil: nobody.
	told func(k Kind, i int, w way, leads bool)
}

func (c *contest) enter(k Kind, i int, w *way) {
	leads := w.beats(&c.best)
	if leads {
		c.best = *w
	}
	if c.told != nil {
		c.told(k, i, *w, leads)
	}
}

// compare finds the best way, and tells what it compares.
func (a *Account) compare(p *Plan, r *Rules, now time.Time, told func(k Kind, i int, w way, leads bool)) way {
	c := contest{best: way{reason: ReasonNoSubscription, status: statusNone}, told: told}
	for i := range a.Subscriptions {
		if slices.Contains(p.Products, a.Subscriptions[i].ProductID) {
			w := a.subscriptionWay(i, &p.Grace, r, now)
			c.enter(KindSubscription, i, &w)
		}
	}
	for i := range a.Orders {
		if slices.Contains(p.Products, a.Orders[i].ProductID) {
			w := a.orderWay(i)
			c.enter(KindOrder, i, &w)
		}
	}
	for i := range a.Grants {
		if slices.Contains(p.Benefits, a.Grants[i].BenefitID) {
			w := a.grantWay(i, &p.Grace, r, now)
			c.enter(KindGrant, i, &w)
		}
	}
	for i := range a.Seats {
		if slices.Contains(p.Products, a.seatProduct(i)) {
			w := a.seatWay(i, &p.Grace, r, now)
			c.enter(KindSeat, i, &w)
		}
	}
	for i := range a.Passes {
		if a.Passes[i].Plan == p.Name {
			w := passWay(&a.Passes[i], now)
			c.enter(KindPass, i, &w)
		}
	}
	return c.best
}

// seatProduct is the product that a seat is of, empty if nobody knows.
func (a *Account) seatProduct(i int) string {
	switch n := &a.seats[i]; {
	case n.subscription >= 0:
		return a.Subscriptions[n.subscription].ProductID
	case n.order >= 0:
		return a.Orders[n.order].ProductID
	}
	return ""
}

// decision turns the way that decided into the answer. p is the plan it was
// found in, nil when there is none; sells says whether anything is for sale
// that would open what is required.
func (w *way) decision(p *Plan, sells bool) Decision {
	d := Decision{
		Allowed: w.open, Reason: w.reason, Status: w.status, Until: w.until, Grace: w.grace,
		HTTPStatus: http.StatusOK,
	}
	if p != nil {
		d.Plan = p.Name
	}
	if w.open {
		return d
	}
	told := refusals[w.reason]
	d.HTTPStatus, d.NextStep = told.status, told.step
	if !sells && d.NextStep == StepCheckout {
		d.NextStep = StepContact
		if w.reason == ReasonPassExpired {
			d.HTTPStatus = http.StatusForbidden
		}
	}
	if w.reason == ReasonPlanRequired && w.subscribed {
		d.NextStep = StepChange
	}
	if w.lent && d.NextStep == StepPortal {
		d.NextStep = StepContact // whoever has bought it can do something
	}
	return d
}

// Unavailable is the decision when the account cannot be had. That is not the
// same as an account that opens nothing.
func Unavailable() Decision {
	w := way{reason: ReasonUnavailable, status: statusNone}
	return w.decision(nil, true)
}

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
	c := newContest()
	var told *Plan
	sells := false // something that would open a required plan
	for i := range r.Plans {
		if !q.includes(i) {
			continue
		}
		p := &r.Plans[i]
		if a.compete(&c, p, r, now) {
			told = p
		}
		if c.best.open {
			return c.best.decision(p, true)
		}
		sells = sells || len(p.Products) > 0
	}
	if c.best.yields() {
		for i := range r.Plans {
			if q.includes(i) {
				continue
			}
			if other := a.best(&r.Plans[i], r, now); other.open {
				return other.elsewhere(sells)
			}
		}
	}
	return c.best.decision(told, sells)
}

// DecideEach is Decide for each plan of the rules alone.
func DecideEach(a *Account, r *Rules, now time.Time) []Decision {
	best := make([]way, len(r.Plans))
	for i := range best {
		best[i] = a.best(&r.Plans[i], r, now)
	}
	// What is open in the first plan that opens is open elsewhere for all others.
	open := slices.IndexFunc(best, func(w way) bool { return w.open })
	all := make([]Decision, len(best))
	for i := range all {
		w, p := &best[i], &r.Plans[i]
		sells := len(p.Products) > 0
		switch {
		case !w.open && open >= 0 && w.yields():
			all[i] = best[open].elsewhere(sells)
		case !w.held:
			all[i] = w.decision(nil, sells)
		default:
			all[i] = w.decision(p, sells)
		}
	}
	return all
}

// yields says whether something that is open elsewhere is told instead of w.
func (w *way) yields() bool { return w.class() < classOther }

// elsewhere is the refusal of those who have w open, but nothing that is
// required.
func (w *way) elsewhere(sells bool) Decision {
	other := way{reason: ReasonPlanRequired, status: w.status, subscribed: w.subscribed}
	return other.decision(nil, sells)
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
	c := newContest()
	a.compete(&c, p, r, now)
	return c.best
}

// contest is a comparison of ways.
type contest struct {
	best  way
	class class // of the best
	// told of each way, and whether it is the best so far. nil: nobody, and what
	// cannot lead is left out.
	told func(k Kind, i int, w way, leads bool)
}

func newContest() contest {
	return contest{best: way{reason: ReasonNoSubscription, status: statusNone}}
}

func (c *contest) enter(k Kind, i int, w *way) (leads bool) {
	class := classNone
	if !w.open {
		class = w.class()
	}
	leads = w.beats(&c.best, class, c.class)
	if leads {
		c.best, c.class = *w, class
	}
	if c.told != nil {
		c.told(k, i, *w, leads)
	}
	return leads
}

// compete enters all ways into one plan, and says whether one of them has come
// to lead.
func (a *Account) compete(c *contest, p *Plan, r *Rules, now time.Time) (led bool) {
	var w way
	for k := range a.listed {
		if len(a.listed[k]) == 0 {
			continue
		}
		items := p.Products
		if k == listGrants {
			items = p.Benefits
		}
		for _, item := range items {
			list := of(a.listed[k], item)
			for n := 0; n < len(list); n++ {
				f := &list[n]
				if c.best.held && c.told == nil && !f.bound.canBeat(&c.best, c.class, &p.Grace, r, now) {
					n += f.less
					continue
				}
				a.way(&w, k, f.index, &p.Grace, r, now)
				led = c.enter(listKinds[k], f.index, &w) || led
			}
		}
	}
	for i := range a.Passes {
		if a.Passes[i].Plan == p.Name {
			passWay(&w, &a.Passes[i], now)
			led = c.enter(KindPass, i, &w) || led
		}
	}
	return led
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

package entitlement

import "time"

// Statuses told for what has none at Polar.
const (
	statusNone  = "none"
	statusOrder = "order"
	statusPass  = "pass"
)

// dunningEnds is when Polar gives a failed payment up and revokes the
// subscription: 21 days and a minute after past_due_at
// (https://polar.sh/docs/features/subscriptions, "failed payments").
const dunningEnds = 21*24*time.Hour + time.Minute

// way is one way in which an account could open a plan, as it stands now.
type way struct {
	open   bool
	reason Reason
	status string
	// until is when the reason ends; of a closed way, when access ended.
	until time.Time
	// lasts is when access ends, grace that follows included. Zero with
	// forever set: never.
	lasts      time.Time
	forever    bool
	grace      bool
	subscribed bool // a subscription of the user's stands behind it
	lent       bool // it rests on what somebody else has bought
	held       bool // there is such a thing at all
	live       bool // closed, but by trouble that its owner can end
	rank       int8 // row of the design's table, for ties
}

// class orders what a refusal tells: the higher, the sooner told.
type class int8

const (
	classNone class = iota
	classUnknown
	classIncomplete
	classEnded
	classOther // above this, nothing that is open elsewhere is told
	classUnpaid
	classPaused
	classPastDue
	classUnavailable
)

func (w *way) class() class {
	switch w.reason {
	case ReasonUnavailable:
		return classUnavailable
	case ReasonPastDue:
		return classPastDue
	case ReasonPaused:
		if w.live {
			return classPaused
		}
		return classEnded
	case ReasonUnpaid:
		return classUnpaid
	case ReasonIncomplete:
		return classIncomplete
	case ReasonUnknownStatus:
		return classUnknown
	case ReasonNoSubscription:
		return classNone
	}
	return classEnded
}

// beats says whether w decides rather than v: open before closed, the longer
// before the shorter, and among closed ways the one that tells more.
func (w *way) beats(v *way) bool {
	switch {
	case !w.held:
		return false
	case !v.held:
		return true
	case w.open != v.open:
		return w.open
	case !w.open:
		return w.tellsMoreThan(v)
	case w.forever != v.forever:
		return w.forever
	case !w.forever && !w.lasts.Equal(v.lasts):
		return w.lasts.After(v.lasts)
	}
	return w.rank < v.rank
}

func (w *way) tellsMoreThan(v *way) bool {
	if c, d := w.class(), v.class(); c != d {
		return c > d
	}
	if !w.until.Equal(v.until) {
		return w.until.After(v.until)
	}
	return w.held && v.held && w.rank < v.rank
}

// Rows of the design's table, for ties.
const (
	rankActive int8 = iota
	rankCanceling
	rankPausing
	rankTrialing
	rankPastDue
	rankUnpaid
	rankCanceled
	rankClosed
	rankOrder
	rankGrant
	rankSeat
	rankPass
)

// ending is a way that is open until end and refused with the second reason
// from then on.
func ending(status Status, rank int8, end, now time.Time, while, after Reason) way {
	w := way{held: true, subscribed: true, status: string(status), rank: rank, until: end, lasts: end}
	if now.Before(end) {
		w.open, w.reason = true, while
	} else {
		w.reason = after
	}
	return w
}

// inGrace is an ending that is nothing but grace.
func inGrace(status Status, rank int8, end, now time.Time, while, after Reason) way {
	w := ending(status, rank, end, now, while, after)
	w.grace = w.open
	return w
}

// subscriptionWay is what a subscription gives to its buyer. Seats open by being
// claimed.
func (a *Account) subscriptionWay(i int, g *Grace, r *Rules, now time.Time) way {
	if a.Subscriptions[i].Seats || a.subscriptions[i].foreign {
		return way{}
	}
	return a.subscriptionGives(i, g, r, now)
}

// subscriptionGives is what a subscription gives to whoever it is for.
func (a *Account) subscriptionGives(i int, g *Grace, r *Rules, now time.Time) way {
	s, notes := &a.Subscriptions[i], &a.subscriptions[i]
	if !notes.customerDeleted.IsZero() {
		return closed(string(s.Status), ReasonCustomerDeleted, notes.customerDeleted)
	}
	switch s.Status {
	case StatusActive, StatusTrialing:
		return runningWay(s, g, r, now)
	case StatusPastDue:
		return pastDueWay(s, notes, g, now)
	case StatusUnpaid:
		return inGrace(s.Status, rankUnpaid, s.End().Add(g.Unpaid), now, ReasonUnpaidGrace, ReasonUnpaid)
	case StatusCanceled:
		grace := g.Canceled
		if notes.disputed {
			grace = 0
		}
		return inGrace(s.Status, rankCanceled, s.End().Add(grace), now, ReasonCanceledGrace, ReasonCanceled)
	case StatusPaused:
		w := closed(string(s.Status), ReasonPaused, s.PausedAt)
		w.subscribed, w.live = true, true
		return w
	case StatusIncomplete, StatusIncompleteExpired:
		return closed(string(s.Status), ReasonIncomplete, time.Time{})
	}
	return closed(string(s.Status), ReasonUnknownStatus, time.Time{})
}

func closed(status string, reason Reason, at time.Time) way {
	return way{held: true, status: status, reason: reason, until: at, rank: rankClosed}
}

// runningWay is that of a subscription that Polar counts as active.
func runningWay(s *Subscription, g *Grace, r *Rules, now time.Time) way {
	switch {
	case s.CancelAtPeriodEnd:
		return ending(s.Status, rankCanceling, first(s.EndsAt, s.PeriodEnd), now, ReasonCanceling, ReasonCanceled)
	case s.PauseAtPeriodEnd:
		w := ending(s.Status, rankPausing, s.PeriodEnd, now, ReasonPausing, ReasonPaused)
		w.live = !w.open
		return w
	}
	boundary, rank, while, after := s.PeriodEnd, rankActive, ReasonActive, ReasonPeriodEnded
	if s.Status == StatusTrialing {
		boundary, rank, while, after = first(s.TrialEnd, s.PeriodEnd), rankTrialing, ReasonTrialing, ReasonTrialEnded
	}
	graceEnd := boundary.Add(g.Renewal)
	if !now.Before(boundary) {
		w := inGrace(s.Status, rank, graceEnd, now, ReasonRenewalGrace, after)
		if !w.open && r.CanConfirm && !s.Version.AsOf.After(boundary) && !r.ConfirmedAt.After(boundary) {
			// Nobody has heard from Polar since: not confirmed is not ended.
			w.reason, w.until = ReasonUnavailable, time.Time{}
		}
		return w
	}
	w := ending(s.Status, rank, boundary, now, while, after)
	w.lasts = graceEnd
	return w
}

// pastDueWay is that of a subscription whose payment failed.
func pastDueWay(s *Subscription, notes *subscriptionNotes, g *Grace, now time.Time) way {
	start := first(s.PastDueAt, s.PeriodStart)
	grace := g.PastDue
	if firstAfterTrial(s, start) {
		grace = g.TrialPastDue
	}
	end := start.Add(grace.For)
	if grace == (PastDueGrace{}) && now.Before(end) {
		end = now // off: refused at once, whatever the clocks say
	}
	if grace.Polar {
		end = start.Add(dunningEnds)
		if at := notes.grantsRevokedAt; !notes.grantsLive && !at.Before(start) && at.Before(end) {
			end = at
		}
	}
	if !s.EndsAt.IsZero() && s.EndsAt.Before(end) {
		end = s.EndsAt
	}
	w := inGrace(s.Status, rankPastDue, end, now, ReasonPastDueGrace, ReasonPastDue)
	w.live = !w.open
	return w
}

// firstAfterTrial says whether the unpaid period is the first one after a
// trial. A subscription that is past due longer than a period cycles on, and
// its period then no longer is the one that failed: a charge fails within
// hours of its period's start, so half a period tells them apart.
func firstAfterTrial(s *Subscription, failed time.Time) bool {
	if s.TrialEnd.IsZero() {
		return false
	}
	if !failed.Before(s.PeriodStart) {
		return !s.PeriodStart.After(s.TrialEnd)
	}
	return failed.Before(s.TrialEnd.Add(s.PeriodEnd.Sub(s.PeriodStart) / 2))
}

// orderWay is what an order gives to its buyer.
func (a *Account) orderWay(i int) way {
	if a.Orders[i].Seats || a.orders[i].foreign {
		return way{}
	}
	return a.orderGives(i)
}

// orderGives is what an order gives to whoever it is for.
func (a *Account) orderGives(i int) way {
	o, notes := &a.Orders[i], &a.orders[i]
	switch {
	case o.SubscriptionID != "":
		return way{}
	case !notes.customerDeleted.IsZero():
		return closed(statusOrder, ReasonCustomerDeleted, notes.customerDeleted)
	case !notes.disputedAt.IsZero():
		return closed(statusOrder, ReasonDisputed, notes.disputedAt)
	case !notes.refundedAt.IsZero():
		return closed(statusOrder, ReasonRefunded, notes.refundedAt)
	case o.Status == OrderRefunded:
		return closed(statusOrder, ReasonRefunded, o.Version.Row)
	case o.Status == OrderPaid, o.Status == OrderPartiallyRefunded:
		return way{held: true, open: true, forever: true, reason: ReasonPurchased, status: statusOrder, rank: rankOrder}
	}
	return way{} // draft, pending, void: nothing was bought
}

// parentGives is what the parent of a grant or seat gives, ok if it is held.
func (a *Account) parentGives(n *childNotes, g *Grace, r *Rules, now time.Time) (w way, ok bool) {
	switch {
	case n.subscription >= 0:
		s := &a.Subscriptions[n.subscription]
		w = a.subscriptionGives(n.subscription, g, r, now)
		if w.open && s.Status.Ended() {
			// Grace after the end is for the subscription, not for children.
			w = closed(w.status, endedReason(s.Status), s.End())
		}
		w.lent = a.subscriptions[n.subscription].foreign
	case n.order >= 0:
		w = a.orderGives(n.order)
		w.lent = a.orders[n.order].foreign
	default:
		return way{}, false
	}
	w.subscribed = w.subscribed && !w.lent
	return w, true
}

func (a *Account) sellsSeats(n *childNotes) bool {
	return n.subscription >= 0 && a.Subscriptions[n.subscription].Seats || n.order >= 0 && a.Orders[n.order].Seats
}

// grantWay is that of a benefit: open as its parent is, while it is live.
func (a *Account) grantWay(i int, g *Grace, r *Rules, now time.Time) way {
	grant, notes := &a.Grants[i], &a.grants[i]
	if !notes.customerDeleted.IsZero() {
		return closed(statusNone, ReasonCustomerDeleted, notes.customerDeleted)
	}
	parent, held := a.parentGives(notes, g, r, now)
	if !held {
		parent = way{held: true, open: true, forever: true, reason: ReasonBenefit, status: statusNone}
	}
	live := grant.Granted && !grant.Revoked || grant.Revoked && a.revokedByFailedPayment(notes, grant.RevokedAt, g)
	switch {
	case !parent.held, grant.MemberID == "" && a.sellsSeats(notes):
		return way{} // what is bought by seats gives the buyer nothing
	case !parent.open:
		return parent
	case live && !(notes.memberDeleted && a.sellsSeats(notes)): // without seats it is the buyer's, member or not
		parent.rank = rankGrant
		return parent
	case grant.Revoked:
		w := closed(parent.status, ReasonBenefitRevoked, grant.RevokedAt)
		w.lent = parent.lent
		return w
	}
	return way{} // Polar waits for the customer to do something first
}

// seatWay is that of a seat: open as its parent is, while it is claimed. Of a
// seat without its parent nothing is known.
func (a *Account) seatWay(i int, g *Grace, r *Rules, now time.Time) way {
	seat, notes := &a.Seats[i], &a.seats[i]
	parent, held := a.parentGives(notes, g, r, now)
	live := seat.Claimed || seat.Revoked && a.revokedByFailedPayment(notes, seat.RevokedAt, g)
	switch {
	case !held, !parent.held:
		return way{}
	case !parent.open:
		return parent
	case live && !notes.memberDeleted:
		parent.rank = rankSeat
		return parent
	case seat.Revoked || notes.memberDeleted:
		return closed(parent.status, ReasonSeatRevoked, seat.RevokedAt)
	}
	return way{} // an invitation
}

// revokedByFailedPayment says whether Polar took a grant or seat back only
// because the parent is past due: with its own grace at 0, the default, it does
// so at once, which our grace outlasts.
func (a *Account) revokedByFailedPayment(n *childNotes, revokedAt time.Time, g *Grace) bool {
	if n.subscription < 0 {
		return false
	}
	s := &a.Subscriptions[n.subscription]
	failed := first(s.PastDueAt, s.PeriodStart)
	grace := g.PastDue
	if firstAfterTrial(s, failed) {
		grace = g.TrialPastDue
	}
	return s.Status == StatusPastDue && !grace.Polar && !revokedAt.Before(failed)
}

func endedReason(s Status) Reason {
	if s == StatusUnpaid {
		return ReasonUnpaid
	}
	return ReasonCanceled
}

func passWay(p *Pass, now time.Time) way {
	w := way{held: true, status: statusPass, rank: rankPass, until: p.Until, lasts: p.Until}
	switch {
	case p.Until.IsZero():
		w.open, w.forever, w.reason = true, true, ReasonPass
	case now.Before(p.Until):
		w.open, w.reason = true, ReasonPass
	default:
		w.reason = ReasonPassExpired
	}
	return w
}

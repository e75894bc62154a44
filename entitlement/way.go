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
// before the shorter, and among closed ways the one that tells more. wc and vc
// are their classes.
func (w *way) beats(v *way, wc, vc class) bool {
	switch {
	case !w.held:
		return false
	case !v.held:
		return true
	case w.open != v.open:
		return w.open
	case !w.open:
		return w.tellsMoreThan(v, wc, vc)
	case w.forever != v.forever:
		return w.forever
	case !w.forever && !w.lasts.Equal(v.lasts):
		return w.lasts.After(v.lasts)
	}
	return w.rank < v.rank
}

func (w *way) tellsMoreThan(v *way, wc, vc class) bool {
	if wc != vc {
		return wc > vc
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

// ending makes a way that is open until end and refused with the second reason
// from then on.
func (w *way) ending(status Status, rank int8, end, now time.Time, while, after Reason) {
	*w = way{held: true, subscribed: true, status: string(status), rank: rank, until: end, lasts: end}
	if now.Before(end) {
		w.open, w.reason = true, while
	} else {
		w.reason = after
	}
}

// inGrace is an ending that is nothing but grace.
func (w *way) inGrace(status Status, rank int8, end, now time.Time, while, after Reason) {
	w.ending(status, rank, end, now, while, after)
	w.grace = w.open
}

func (w *way) closed(status string, reason Reason, at time.Time) {
	*w = way{held: true, status: status, reason: reason, until: at, rank: rankClosed}
}

// way is what a listed fact opens in a plan with the given grace. Like all that make
// a way it fills one that is there: a big account has hundreds to compare.
func (a *Account) way(w *way, list, i int, g *Grace, r *Rules, now time.Time) {
	switch list {
	case listSubscriptions:
		a.subscriptionWay(w, i, g, r, now)
	case listOrders:
		a.orderWay(w, i)
	case listGrants:
		a.grantWay(w, i, g, r, now)
	case listSeats:
		a.seatWay(w, i, g, r, now)
	}
}

// subscriptionWay is what a subscription gives to its buyer. Seats open by being
// claimed.
func (a *Account) subscriptionWay(w *way, i int, g *Grace, r *Rules, now time.Time) {
	if a.Subscriptions[i].Seats || a.subscriptions[i].foreign {
		*w = way{}
		return
	}
	a.subscriptionGives(w, i, g, r, now)
}

// subscriptionGives is what a subscription gives to whoever it is for.
func (a *Account) subscriptionGives(w *way, i int, g *Grace, r *Rules, now time.Time) {
	s, notes := &a.Subscriptions[i], &a.subscriptions[i]
	if !notes.customerDeleted.IsZero() {
		w.closed(string(s.Status), ReasonCustomerDeleted, notes.customerDeleted)
		return
	}
	switch s.Status {
	case StatusActive, StatusTrialing:
		w.running(s, g, r, now)
	case StatusPastDue:
		w.pastDue(s, notes, g, now)
	case StatusUnpaid:
		w.inGrace(s.Status, rankUnpaid, s.End().Add(g.Unpaid), now, ReasonUnpaidGrace, ReasonUnpaid)
	case StatusCanceled:
		grace := g.Canceled
		if notes.disputed {
			grace = 0
		}
		w.inGrace(s.Status, rankCanceled, s.End().Add(grace), now, ReasonCanceledGrace, ReasonCanceled)
	case StatusPaused:
		w.closed(string(s.Status), ReasonPaused, s.PausedAt)
		w.subscribed, w.live = true, true
	case StatusIncomplete, StatusIncompleteExpired:
		w.closed(string(s.Status), ReasonIncomplete, time.Time{})
	default:
		w.closed(string(s.Status), ReasonUnknownStatus, time.Time{})
	}
}

// running is the way of a subscription that Polar counts as active.
func (w *way) running(s *Subscription, g *Grace, r *Rules, now time.Time) {
	switch {
	case s.CancelAtPeriodEnd:
		w.ending(s.Status, rankCanceling, first(s.EndsAt, s.PeriodEnd), now, ReasonCanceling, ReasonCanceled)
		return
	case s.PauseAtPeriodEnd:
		w.ending(s.Status, rankPausing, s.PeriodEnd, now, ReasonPausing, ReasonPaused)
		w.live = !w.open
		return
	}
	boundary, rank, while, after := s.boundary(), rankActive, ReasonActive, ReasonPeriodEnded
	if s.Status == StatusTrialing {
		rank, while, after = rankTrialing, ReasonTrialing, ReasonTrialEnded
	}
	graceEnd := boundary.Add(g.Renewal)
	if now.Before(boundary) {
		w.ending(s.Status, rank, boundary, now, while, after)
		w.lasts = graceEnd
		return
	}
	w.inGrace(s.Status, rank, graceEnd, now, ReasonRenewalGrace, after)
	if !w.open && r.CanConfirm && !s.Version.AsOf.After(boundary) && !r.ConfirmedAt.After(boundary) {
		// Nobody has heard from Polar since: not confirmed is not ended.
		w.reason, w.until = ReasonUnavailable, time.Time{}
	}
}

// boundary is when Polar renews a subscription.
func (s *Subscription) boundary() time.Time {
	if s.Status == StatusTrialing && !s.TrialEnd.IsZero() {
		return s.TrialEnd
	}
	return s.PeriodEnd
}

// pastDue is the way of a subscription whose payment failed.
func (w *way) pastDue(s *Subscription, notes *subscriptionNotes, g *Grace, now time.Time) {
	start := first(s.PastDueAt, s.PeriodStart)
	grace := g.pastDue(s, start)
	end := start.Add(grace.For)
	if grace == (PastDueGrace{}) && now.Before(end) {
		end = now // off: refused at once, whatever the clocks say
	}
	if grace.Polar {
		end = start.Add(dunningEnds)
		if at := notes.revokedAt; !notes.givesLive && !at.Before(start) && at.Before(end) {
			end = at
		}
	}
	if !s.EndsAt.IsZero() && s.EndsAt.Before(end) {
		end = s.EndsAt
	}
	w.inGrace(s.Status, rankPastDue, end, now, ReasonPastDueGrace, ReasonPastDue)
	w.live = !w.open
}

// pastDue is the grace after a payment that failed at a moment.
func (g *Grace) pastDue(s *Subscription, failed time.Time) PastDueGrace {
	if firstAfterTrial(s, failed) {
		return g.TrialPastDue
	}
	return g.PastDue
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
func (a *Account) orderWay(w *way, i int) {
	if a.Orders[i].Seats || a.orders[i].foreign {
		*w = way{}
		return
	}
	a.orderGives(w, i)
}

// orderGives is what an order gives to whoever it is for.
func (a *Account) orderGives(w *way, i int) {
	o, notes := &a.Orders[i], &a.orders[i]
	switch {
	case o.SubscriptionID != "":
		*w = way{}
	case !notes.customerDeleted.IsZero():
		w.closed(statusOrder, ReasonCustomerDeleted, notes.customerDeleted)
	case !notes.disputedAt.IsZero():
		w.closed(statusOrder, ReasonDisputed, notes.disputedAt)
	case !notes.refundedAt.IsZero():
		w.closed(statusOrder, ReasonRefunded, notes.refundedAt)
	case o.Status == OrderRefunded:
		w.closed(statusOrder, ReasonRefunded, o.Version.Row)
	case o.Status == OrderPaid, o.Status == OrderPartiallyRefunded:
		*w = way{held: true, open: true, forever: true, reason: ReasonPurchased, status: statusOrder, rank: rankOrder}
	default:
		*w = way{} // draft, pending, void: nothing was bought
	}
}

// parentGives is what the parent of a grant or seat gives, if it is held.
func (a *Account) parentGives(w *way, n *childNotes, g *Grace, r *Rules, now time.Time) (held bool) {
	switch {
	case n.subscription >= 0:
		s, notes := &a.Subscriptions[n.subscription], &a.subscriptions[n.subscription]
		if end, reason := s.childrenDie(); reason != "" && notes.customerDeleted.IsZero() {
			w.closed(string(s.Status), reason, end)
		} else {
			a.subscriptionGives(w, n.subscription, g, r, now)
		}
		w.lent = notes.foreign
	case n.order >= 0:
		a.orderGives(w, n.order)
		w.lent = a.orders[n.order].foreign
	default:
		return false
	}
	w.subscribed = w.subscribed && !w.lent
	return true
}

// childrenDie says when and why the children of a subscription that has ended
// were over. The grace that can follow is for the subscription alone.
func (s *Subscription) childrenDie() (at time.Time, reason Reason) {
	switch s.Status {
	case StatusUnpaid:
		return s.End(), ReasonUnpaid
	case StatusCanceled:
		return s.End(), ReasonCanceled
	}
	return time.Time{}, ""
}

func (a *Account) sellsSeats(n *childNotes) bool {
	return n.subscription >= 0 && a.Subscriptions[n.subscription].Seats || n.order >= 0 && a.Orders[n.order].Seats
}

// grantWay is that of a benefit: open as its parent is, while it is live.
func (a *Account) grantWay(w *way, i int, g *Grace, r *Rules, now time.Time) {
	grant, notes := &a.Grants[i], &a.grants[i]
	if !notes.customerDeleted.IsZero() {
		w.closed(statusNone, ReasonCustomerDeleted, notes.customerDeleted)
		return
	}
	if !a.parentGives(w, notes, g, r, now) {
		*w = way{held: true, open: true, forever: true, reason: ReasonBenefit, status: statusNone}
	}
	live := grant.Granted && !grant.Revoked || grant.Revoked && a.revokedByFailedPayment(notes, grant.RevokedAt, g)
	switch {
	case !w.held || grant.MemberID == "" && a.sellsSeats(notes):
		*w = way{} // what is bought by seats gives the buyer nothing
	case !w.open:
	case live && !(notes.memberDeleted && a.sellsSeats(notes)): // without seats it is the buyer's, member or not
		w.rank = rankGrant
	case grant.Revoked:
		lent := w.lent
		w.closed(w.status, ReasonBenefitRevoked, grant.RevokedAt)
		w.lent = lent
	default:
		*w = way{} // Polar waits for the customer to do something first
	}
}

// seatWay is that of a seat: open as its parent is, while it is claimed. Of a
// seat without its parent nothing is known.
func (a *Account) seatWay(w *way, i int, g *Grace, r *Rules, now time.Time) {
	seat, notes := &a.Seats[i], &a.seats[i]
	if !a.parentGives(w, notes, g, r, now) || !w.held {
		*w = way{}
		return
	}
	live := seat.Claimed || seat.Revoked && a.revokedByFailedPayment(notes, seat.RevokedAt, g)
	switch {
	case !seat.Claimed && !seat.Revoked:
		*w = way{} // an invitation
	case live && !notes.memberDeleted:
		if w.open {
			w.rank = rankSeat
		}
	case w.open || !live && seat.RevokedAt.Before(w.until) && !a.endedUnpaid(notes, seat.RevokedAt):
		// It was taken back while what it is of went on.
		w.closed(w.status, ReasonSeatRevoked, seat.RevokedAt)
	}
}

// endedUnpaid says whether what a seat is of has ended for a payment that failed,
// and Polar took the seat back with that: then the end is what is told.
func (a *Account) endedUnpaid(n *childNotes, revokedAt time.Time) bool {
	if n.subscription < 0 {
		return false
	}
	s := &a.Subscriptions[n.subscription]
	return s.Status.Ended() && !s.PastDueAt.IsZero() && !revokedAt.Before(s.PastDueAt)
}

// revokedByFailedPayment says whether Polar took a grant or seat back only
// because the parent is past due: with its own grace at 0, the default, it does
// so at once, which our grace outlasts.
func (a *Account) revokedByFailedPayment(n *childNotes, revokedAt time.Time, g *Grace) bool {
	if n.subscription < 0 {
		return false
	}
	s := &a.Subscriptions[n.subscription]
	if s.Status != StatusPastDue {
		return false
	}
	failed := first(s.PastDueAt, s.PeriodStart)
	return !revokedAt.Before(failed) && !g.pastDue(s, failed).Polar
}

func passWay(w *way, p *Pass, now time.Time) {
	*w = way{held: true, status: statusPass, rank: rankPass, until: p.Until, lasts: p.Until}
	switch {
	case p.Until.IsZero():
		w.open, w.forever, w.reason = true, true, ReasonPass
	case now.Before(p.Until):
		w.open, w.reason = true, ReasonPass
	default:
		w.reason = ReasonPassExpired
	}
}

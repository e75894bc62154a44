package entitlement

import (
	"cmp"
	"slices"
	"time"
)

// listed is the place of a fact under the product or benefit that it can open,
// with what is known beforehand of its way. A decision about a big account
// looks at little more than this.
type listed struct {
	item  string
	index int
	bound bound
	// same is how many of the item there are from here on, and less how many of
	// those that follow are bounded by less in every respect.
	same, less int
}

// bound says how much a way can come to, whenever it is looked at and under
// whatever rules: open no longer than until at and the grace that follows, and
// when it is closed, telling no more than the class and no later end than that.
type bound struct {
	known bool
	at    time.Time
	grace graceKind
	tells class
}

func (b *bound) alike(o *bound) bool {
	return b.known && o.known && b.grace == o.grace && b.tells == o.tells
}

type graceKind int8

const (
	noGrace graceKind = iota
	graceRenewal
	graceUnpaid
	graceCanceled
	gracePastDue
)

// atMost is the longest grace of a kind.
func (g *Grace) atMost(k graceKind) time.Duration {
	switch k {
	case graceRenewal:
		return g.Renewal
	case graceUnpaid:
		return g.Unpaid
	case graceCanceled:
		return g.Canceled
	case gracePastDue:
		if g.PastDue.Polar || g.TrialPastDue.Polar {
			return max(dunningEnds, g.PastDue.For, g.TrialPastDue.For)
		}
		return max(g.PastDue.For, g.TrialPastDue.For)
	}
	return 0
}

// canBeat says whether a way within the bound could decide rather than v, which
// is there and of class c.
func (b *bound) canBeat(v *way, c class, g *Grace, r *Rules, now time.Time) bool {
	if !b.known {
		return true
	}
	end := b.at.Add(g.atMost(b.grace))
	if v.open {
		return !v.forever && !end.Before(v.lasts)
	}
	if now.Before(end) {
		return true
	}
	tells := b.tells
	if tells == classUnavailable && (!r.CanConfirm || r.ConfirmedAt.After(b.at)) {
		tells = classEnded
	}
	if tells != c {
		return tells > c
	}
	return !end.Before(v.until)
}

// The lists of an account, in the order in which they are compared.
const (
	listSubscriptions = iota
	listOrders
	listGrants
	listSeats
	lists
)

// listKinds are the kinds of the facts that are listed.
var listKinds = [lists]Kind{KindSubscription, KindOrder, KindGrant, KindSeat}

// list notes under which item each fact stands. What others have bought opens
// nothing by itself, and is not listed.
func (a *Account) list() {
	l := make([]listed, 0, len(a.Subscriptions)+len(a.Orders)+len(a.Grants)+len(a.Seats))
	for i := range a.Subscriptions {
		if s := &a.Subscriptions[i]; !a.subscriptions[i].foreign {
			l = append(l, listed{item: s.ProductID, index: i, bound: a.bound(i)})
		}
	}
	l = a.listAs(listSubscriptions, l)
	for i := range a.Orders {
		if o := &a.Orders[i]; !a.orders[i].foreign {
			l = append(l, listed{item: o.ProductID, index: i})
		}
	}
	l = a.listAs(listOrders, l)
	for i := range a.Grants {
		l = append(l, listed{item: a.Grants[i].BenefitID, index: i, bound: a.childBound(&a.grants[i])})
	}
	l = a.listAs(listGrants, l)
	for i := range a.Seats {
		l = append(l, listed{item: a.seatProduct(i), index: i, bound: a.childBound(&a.seats[i])})
	}
	a.listAs(listSeats, l)
}

// listAs keeps one of the lists: what is of one item together, what is
// bounded alike together within that, and then first what lasts longest. It gives
// back the room that is left.
func (a *Account) listAs(list int, l []listed) []listed {
	slices.SortFunc(l, func(x, y listed) int {
		if c := cmp.Compare(x.item, y.item); c != 0 {
			return c
		}
		return cmp.Or(
			cmp.Compare(y.bound.tells, x.bound.tells), cmp.Compare(x.bound.grace, y.bound.grace),
			y.bound.at.Compare(x.bound.at), cmp.Compare(x.index, y.index),
		)
	})
	for i := len(l) - 1; i >= 0; i-- {
		l[i].same = 1
		if i == len(l)-1 || l[i].item != l[i+1].item {
			continue
		}
		l[i].same += l[i+1].same
		if l[i].bound.alike(&l[i+1].bound) {
			l[i].less = l[i+1].less + 1
		}
	}
	a.listed[list] = l
	return l[len(l):]
}

// of are those of one item.
func of(l []listed, item string) []listed {
	from, to := 0, len(l)
	for from < to {
		mid := (from + to) / 2
		if l[mid].item < item {
			from = mid + 1
		} else {
			to = mid
		}
	}
	if from == len(l) || l[from].item != item {
		return nil
	}
	return l[from : from+l[from].same]
}

// bound is that of what a subscription gives, to its buyer or by its children.
func (a *Account) bound(i int) bound {
	s := &a.Subscriptions[i]
	if !a.subscriptions[i].customerDeleted.IsZero() {
		return bound{}
	}
	switch s.Status {
	case StatusActive, StatusTrialing:
		switch {
		case s.CancelAtPeriodEnd:
			return bound{true, first(s.EndsAt, s.PeriodEnd), noGrace, classEnded}
		case s.PauseAtPeriodEnd:
			return bound{true, s.PeriodEnd, noGrace, classPaused}
		}
		b := bound{true, s.boundary(), graceRenewal, classUnavailable}
		if s.Version.AsOf.After(b.at) {
			b.tells = classEnded
		}
		return b
	case StatusPastDue:
		return bound{true, first(s.PastDueAt, s.PeriodStart), gracePastDue, classPastDue}
	case StatusUnpaid:
		return bound{true, s.End(), graceUnpaid, classUnpaid}
	case StatusCanceled:
		return bound{true, s.End(), graceCanceled, classEnded}
	case StatusPaused:
		return bound{true, s.PausedAt, noGrace, classPaused}
	case StatusIncomplete, StatusIncompleteExpired:
		return bound{true, time.Time{}, noGrace, classIncomplete}
	}
	return bound{true, time.Time{}, noGrace, classUnknown}
}

// childBound is that of a grant or seat, which opens as its parent does.
func (a *Account) childBound(n *childNotes) bound {
	if n.subscription < 0 || !n.customerDeleted.IsZero() {
		return bound{}
	}
	return a.bound(n.subscription)
}

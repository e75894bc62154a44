package entitlement

import (
	"cmp"
	"slices"
	"sync/atomic"
	"time"
)

// Facts is what concerns one user, as a store gathers it.
type Facts struct {
	Customers     []HeldCustomer
	Subscriptions []Subscription
	Orders        []Order
	Grants        []Grant
	Refunds       []Refund
	Passes        []Pass
	// Seats are those that the user has or had, Members the user as a member of
	// customers.
	Seats   []Seat
	Members []Member
	// Foreign are the ids of those subscriptions, orders and customers that
	// stand behind the user's seats and belong to others.
	Foreign []string
	// CheckoutAt is when the user last opened a checkout here. Zero: never, or
	// long ago.
	CheckoutAt time.Time
}

// HeldCustomer is a customer with what the store knows about its user.
type HeldCustomer struct {
	Customer
	// Own says that the customer is the user's by a link or external id. A
	// purchase can be the user's while its customer is not.
	Own bool
	// ByEmail says that it is so by a verified e-mail alone.
	ByEmail bool
	// Shared says that a purchase under this customer belongs to someone else.
	Shared bool
}

// Account is all that concerns one user. It is never changed once made, but for
// what it remembers of its own standing.
type Account struct {
	User string
	Facts

	// What NewAccount found out about each subscription, order and grant, at
	// the same index as the fact.
	subscriptions []subscriptionNotes
	orders        []orderNotes
	grants        []childNotes
	seats         []childNotes
	listed        [lists][]listed

	standing atomic.Pointer[Standing]
}

type subscriptionNotes struct {
	foreign         bool // somebody else's, behind a seat
	customerDeleted time.Time
	disputed        bool      // a refund under it belongs to a dispute
	givesLive       bool      // something that it gave is live at Polar
	revokedAt       time.Time // the last time that Polar took something back
}

type orderNotes struct {
	foreign         bool
	customerDeleted time.Time
	refundedAt      time.Time // benefits were taken back with a refund
	disputedAt      time.Time // a dispute of it was lost
}

// childNotes are those of a grant or seat.
type childNotes struct {
	customerDeleted time.Time
	memberDeleted   bool
	subscription    int // index of the parent, or -1
	order           int
}

// NewAccount gathers facts into an account. The order in which they come does
// not matter. It takes the slices over.
func NewAccount(user string, f Facts) *Account {
	a := &Account{User: user, Facts: f}
	slices.SortFunc(a.Customers, func(x, y HeldCustomer) int { return cmp.Compare(x.ID, y.ID) })
	slices.SortFunc(a.Subscriptions, func(x, y Subscription) int { return cmp.Compare(x.ID, y.ID) })
	slices.SortFunc(a.Orders, func(x, y Order) int { return cmp.Compare(x.ID, y.ID) })
	slices.SortFunc(a.Grants, func(x, y Grant) int { return cmp.Compare(x.ID, y.ID) })
	slices.SortFunc(a.Refunds, func(x, y Refund) int { return cmp.Compare(x.ID, y.ID) })
	slices.SortFunc(a.Passes, func(x, y Pass) int { return cmp.Compare(x.ID, y.ID) })
	slices.SortFunc(a.Seats, func(x, y Seat) int { return cmp.Compare(x.ID, y.ID) })
	slices.SortFunc(a.Members, func(x, y Member) int { return cmp.Compare(x.ID, y.ID) })
	slices.Sort(a.Foreign)
	a.noteSubscriptions()
	a.noteOrders()
	a.noteGrants()
	a.noteSeats()
	a.noteRefunds()
	a.list()
	return a
}

// Known says whether the store holds anything of Polar's about the user, or a
// pass. That they have opened a checkout does not make them known.
func (a *Account) Known() bool {
	return len(a.Customers)+len(a.Subscriptions)+len(a.Orders)+len(a.Grants)+len(a.Passes)+len(a.Seats)+len(a.Members) > 0
}

// OwnCustomer is the id of the Polar customer that is this user and nobody
// else, or empty. Only such a customer may be shown or acted upon.
func (a *Account) OwnCustomer() string {
	for i := range a.Customers {
		c := &a.Customers[i]
		if c.Own && !c.Shared && c.DeletedAt.IsZero() {
			return c.ID
		}
	}
	return ""
}

// BuysElsewhere says whether a living customer is held under which the user has
// bought something, be it their own or not.
func (a *Account) BuysElsewhere() bool {
	for i := range a.Customers {
		if c := &a.Customers[i]; c.DeletedAt.IsZero() && !a.IsForeign(c.ID) {
			return true
		}
	}
	return false
}

func (a *Account) noteSubscriptions() {
	a.subscriptions = make([]subscriptionNotes, len(a.Subscriptions))
	for i := range a.Subscriptions {
		s := &a.Subscriptions[i]
		a.subscriptions[i].customerDeleted, a.subscriptions[i].foreign = a.deletedAt(s.CustomerID), a.IsForeign(s.ID)
	}
}

func (a *Account) noteOrders() {
	a.orders = make([]orderNotes, len(a.Orders))
	for i := range a.Orders {
		o := &a.Orders[i]
		a.orders[i].customerDeleted, a.orders[i].foreign = a.deletedAt(o.CustomerID), a.IsForeign(o.ID)
	}
}

// noteGrants links each grant to its parent.
func (a *Account) noteGrants() {
	a.grants = make([]childNotes, len(a.Grants))
	for i := range a.Grants {
		g := &a.Grants[i]
		a.grants[i] = a.child(g.CustomerID, g.MemberID, g.SubscriptionID, g.OrderID)
		a.noteGiven(&a.grants[i], g.Granted && !g.Revoked, g.Revoked, g.RevokedAt)
	}
}

func (a *Account) noteSeats() {
	a.seats = make([]childNotes, len(a.Seats))
	for i := range a.Seats {
		s := &a.Seats[i]
		a.seats[i] = a.child("", s.MemberID, s.SubscriptionID, s.OrderID)
		a.noteGiven(&a.seats[i], s.Claimed, s.Revoked, s.RevokedAt)
	}
}

// noteGiven tells a subscription what Polar has done with a grant or seat.
func (a *Account) noteGiven(n *childNotes, live, revoked bool, at time.Time) {
	if n.subscription < 0 {
		return
	}
	parent := &a.subscriptions[n.subscription]
	parent.givesLive = parent.givesLive || live
	if revoked && later(at, parent.revokedAt) {
		parent.revokedAt = at
	}
}

// child links a grant or seat to its parent.
func (a *Account) child(customer, member, subscription, order string) childNotes {
	n := childNotes{subscription: a.subscriptionIndex(subscription), order: a.orderIndex(order)}
	if customer != "" {
		n.customerDeleted = a.deletedAt(customer)
	}
	for i := range a.Members {
		if m := &a.Members[i]; member != "" && m.ID == member {
			n.memberDeleted = m.Deleted
		}
	}
	return n
}

// IsForeign says whether a subscription, order or customer is somebody else's and
// stands behind a seat of the user's.
func (a *Account) IsForeign(id string) bool {
	_, ok := slices.BinarySearch(a.Foreign, id)
	return ok
}

func (a *Account) noteRefunds() {
	for i := range a.Refunds {
		r := &a.Refunds[i]
		subscription := r.SubscriptionID
		if n := a.orderIndex(r.OrderID); n >= 0 {
			at := r.Version.Row
			if r.Succeeded && r.RevokeBenefits && later(at, a.orders[n].refundedAt) {
				a.orders[n].refundedAt = at
			}
			if r.DisputeLost && later(at, a.orders[n].disputedAt) {
				a.orders[n].disputedAt = at
			}
			if subscription == "" { // Polar leaves it out of prevented disputes
				subscription = a.Orders[n].SubscriptionID
			}
		}
		if n := a.subscriptionIndex(subscription); n >= 0 && r.Disputed {
			a.subscriptions[n].disputed = true
		}
	}
}

func (a *Account) deletedAt(customer string) time.Time {
	i, ok := slices.BinarySearchFunc(a.Customers, customer, func(c HeldCustomer, id string) int { return cmp.Compare(c.ID, id) })
	if !ok {
		return time.Time{}
	}
	return a.Customers[i].DeletedAt
}

func (a *Account) subscriptionIndex(id string) int {
	if i, ok := slices.BinarySearchFunc(a.Subscriptions, id, func(s Subscription, id string) int { return cmp.Compare(s.ID, id) }); ok && id != "" {
		return i
	}
	return -1
}

func (a *Account) orderIndex(id string) int {
	if i, ok := slices.BinarySearchFunc(a.Orders, id, func(o Order, id string) int { return cmp.Compare(o.ID, id) }); ok && id != "" {
		return i
	}
	return -1
}

// running says whether the subscription at i is neither over nor a deleted
// customer's.
func (a *Account) running(i int) bool {
	return !a.Subscriptions[i].Status.Ended() && a.subscriptions[i].customerDeleted.IsZero()
}

// current says that it is the user's own, too.
func (a *Account) current(i int) bool { return a.running(i) && !a.subscriptions[i].foreign }

func later(t, than time.Time) bool { return than.IsZero() || t.After(than) }

// Package box is a Polar in a box: an http.Handler with in-memory state that
// obeys Polar's contract, and whose clock can be moved. Tests and demos use it
// in place of an account, a tunnel and real time.
package box

import (
	"cmp"
	"math/rand/v2"
	"strings"
	"sync"
	"time"
)

// Options say how a box starts. The zero value is useful.
type Options struct {
	// Start is the first time on the clock; the default is 2026-11-02 09:00 UTC.
	Start time.Time
	// Realtime lets the clock run with real time; Run must then be running.
	Realtime bool
	// Seed makes ids and secrets repeatable.
	Seed uint64
	// GraceDays is the organization's benefit_revocation_grace_period.
	GraceDays int
	// AllowMultiple lets a customer have several billable subscriptions.
	AllowMultiple bool
	// Proration is the organization's proration_behavior: prorate, the default,
	// invoice or next_period.
	Proration string
	// NoPlanChanges and NoSeatChanges switch update_plan and update_seats of the
	// portal's settings off.
	NoPlanChanges, NoSeatChanges bool
	// SigningClock dates the signatures of webhooks. The default is the box's
	// clock; a receiver that lives in real time needs time.Now.
	SigningClock func() time.Time
	// RateLimits switches Polar's rate limits on. They count by the box's clock.
	RateLimits bool
	// DeliveryTimeout bounds one attempt, in real time. Polar's is 10 s.
	DeliveryTimeout time.Duration
}

// Box is a Polar. All of its methods can be called concurrently.
type Box struct {
	options Options

	drive sync.Mutex // held by whoever runs what is due; never taken under mu
	mu    sync.Mutex // guards all that follows, never held while posting
	clock *clock
	tasks agenda
	rng   *rand.ChaCha8

	org       Organization
	products  table[Product]
	benefits  table[Benefit]
	customers table[Customer]
	members   table[Member]
	subs      table[Subscription]
	orders    table[Order]
	refunds   table[Refund]
	disputes  table[Dispute]
	grants    table[Grant]
	seats     table[Seat]
	discounts table[Discount]
	checkouts table[Checkout]

	journal   []Event
	renewals  bool
	late      time.Duration // how late the next transactions become visible
	states    map[string]*stateJob
	externals map[string]string // external id to customer
	secrets   map[string]string // client secret to checkout
	invoices  int

	base     string // where the box is reached, for the URLs that it makes
	delivery delivery
	access   access
	trouble  Trouble
	locked   map[string]bool   // subscriptions with an update in progress
	invites  map[string]string // invitation token to seat
	actions  map[string]string // benefit to what its customers must do first
}

// New makes a box with an organization and nothing else.
func New(o Options) *Box {
	if o.Start.IsZero() {
		o.Start = time.Date(2026, 11, 2, 9, 0, 0, 318204000, time.UTC)
	}
	if o.DeliveryTimeout == 0 {
		o.DeliveryTimeout = 10 * time.Second
	}
	o.Proration = cmp.Or(o.Proration, "prorate")
	w := &writes{}
	b := &Box{
		options: o, clock: newClock(o.Start.UTC(), o.Realtime), rng: newRandom(o.Seed),
		renewals: true, states: map[string]*stateJob{}, externals: map[string]string{}, secrets: map[string]string{},
		products: newTable(w, func(*Product) string { return "" }),
		benefits: newTable(w, func(*Benefit) string { return "" }),
		// The e-mail, in place of an owner, so that collisions are found fast.
		customers: newTable(w, func(c *Customer) string { return foldEmail(c.Email) }),
		members:   newTable(w, func(m *Member) string { return m.CustomerID }),
		subs:      newTable(w, func(s *Subscription) string { return s.CustomerID }),
		orders:    newTable(w, func(o *Order) string { return o.CustomerID }),
		refunds:   newTable(w, func(r *Refund) string { return r.CustomerID }),
		disputes:  newTable(w, func(d *Dispute) string { return d.OrderID }),
		grants:    newTable(w, func(g *Grant) string { return g.CustomerID }),
		checkouts: newTable(w, func(c *Checkout) string { return c.ExternalCustomerID }),
		seats:     newTable(w, func(s *Seat) string { return s.SubscriptionID + s.OrderID }), // one of them
		discounts: newTable(w, func(*Discount) string { return "" }),
	}
	b.org = Organization{Row: b.newRow(), Name: "Acme", Slug: "acme"}
	b.delivery = newDelivery(o)
	b.access = newAccess()
	b.locked, b.invites, b.actions = map[string]bool{}, map[string]string{}, map[string]string{}
	return b
}

// SetBaseURL tells the box where it is reached, for the URLs of checkouts and
// portals.
func (b *Box) SetBaseURL(url string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.base = strings.TrimSuffix(url, "/")
}

// Organization returns the box's only organization.
func (b *Box) Organization() Organization {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.org
}

// HoldRenewals makes the organization one that Polar has blocked: nothing is
// renewed and periods end in the past, without events.
func (b *Box) HoldRenewals(hold bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.renewals = !hold
	if !hold {
		for _, s := range b.subs.all() {
			b.scheduleDue(&s)
		}
	}
}

// CommitLate makes the transactions that follow visible, to reads and to the
// delivery of webhooks, only when so much time has passed after their events
// were stamped. Zero ends it.
func (b *Box) CommitLate(d time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.late = d
}

// Package entitlement decides: who owns what Polar has sold, and whether that
// opens a plan now. It is pure. It does no I/O, reads no clock and logs
// nothing, so everything in it can be tested as a table.
package entitlement

import (
	"cmp"
	"time"
)

// Version orders the states of one Polar object. The row's own time decides;
// AsOf, the moment at which the state was told, only breaks ties.
//
// Polar stamps webhooks inside transactions that become visible later, and its
// lists come from a lagging replica. The row's time is right in both cases.
type Version struct {
	// Row is modified_at, or created_at while that is null.
	Row time.Time
	// AsOf is the webhook envelope's timestamp, or the start of the read.
	AsOf time.Time
}

// Newer says whether v replaces w. An equal version does not.
func (v Version) Newer(w Version) bool {
	if c := v.Row.Compare(w.Row); c != 0 {
		return c > 0
	}
	return v.AsOf.After(w.AsOf)
}

// Status is the status of a Polar subscription. Values that are not among the
// constants are possible: Polar adds statuses.
type Status string

// The statuses that Polar documents.
const (
	StatusActive            Status = "active"
	StatusTrialing          Status = "trialing"
	StatusPastDue           Status = "past_due"
	StatusUnpaid            Status = "unpaid"
	StatusCanceled          Status = "canceled"
	StatusPaused            Status = "paused"
	StatusIncomplete        Status = "incomplete"
	StatusIncompleteExpired Status = "incomplete_expired"
)

// Ended says whether a subscription in this status is over for good.
func (s Status) Ended() bool {
	return s == StatusCanceled || s == StatusUnpaid || s == StatusIncompleteExpired
}

// Billed says whether Polar renews a subscription in this status. It sells a
// customer no second one then.
func (s Status) Billed() bool {
	return s == StatusActive || s == StatusTrialing || s == StatusPastDue
}

// Known says whether this version of the gateway has a rule for the status.
func (s Status) Known() bool {
	switch s {
	case StatusActive, StatusTrialing, StatusPastDue, StatusUnpaid, StatusCanceled,
		StatusPaused, StatusIncomplete, StatusIncompleteExpired:
		return true
	}
	return false
}

// Subscription is a Polar subscription as it was at one version. Times that
// are null at Polar are zero.
type Subscription struct {
	Version    Version
	ID         string
	CustomerID string
	ProductID  string
	CheckoutID string
	Status     Status
	// MetadataUser is the user named by authentic metadata, or for whom this
	// gateway opened the checkout; else empty.
	MetadataUser string

	PeriodStart time.Time
	PeriodEnd   time.Time
	TrialEnd    time.Time
	CanceledAt  time.Time
	EndsAt      time.Time
	EndedAt     time.Time
	PastDueAt   time.Time
	PausedAt    time.Time
	ResumesAt   time.Time

	CancelAtPeriodEnd bool
	PauseAtPeriodEnd  bool
	// Seats says that seats were bought: they open by being claimed, and give
	// the buyer nothing by themselves.
	Seats bool

	// Free says that it costs nothing. A checkout turns it into a paid one.
	Free bool

	// SeatCount is how many seats there are, zero if it has none.
	SeatCount int

	// PendingProductID, PendingSeats and PendingAt tell of a change that is only
	// scheduled.
	PendingProductID string
	PendingSeats     int
	PendingAt        time.Time
}

// End is when an ended subscription ended.
func (s *Subscription) End() time.Time {
	return first(s.EndedAt, s.EndsAt, s.CanceledAt, s.PeriodEnd)
}

// dunning is for how long Polar tries to be paid after a payment has failed. Then it
// ends the subscription.
//
// Source: https://polar.sh/docs/features/subscriptions (after 2, 7, 14 and 21 days)
const dunning = 21 * 24 * time.Hour

// LastChance is when Polar ends a subscription that stays past_due. Zero: it is not,
// or it is not known since when.
func (s *Subscription) LastChance() time.Time {
	if s.Status != StatusPastDue || s.PastDueAt.IsZero() {
		return time.Time{}
	}
	end := s.PastDueAt.Add(dunning)
	if !s.EndsAt.IsZero() && s.EndsAt.Before(end) {
		return s.EndsAt
	}
	return end
}

// OrderStatus is the status of a Polar order.
type OrderStatus string

// The order statuses that matter here.
const (
	OrderPaid              OrderStatus = "paid"
	OrderRefunded          OrderStatus = "refunded"
	OrderPartiallyRefunded OrderStatus = "partially_refunded"
)

// Order is a Polar order. Only one without a subscription, a one-time
// purchase, opens anything.
type Order struct {
	Version        Version
	ID             string
	CustomerID     string
	ProductID      string
	SubscriptionID string
	CheckoutID     string
	Status         OrderStatus
	MetadataUser   string // as in Subscription
	Seats          bool   // as in Subscription
}

// Grant is Polar's grant of one benefit, the child of a subscription or order.
type Grant struct {
	Version        Version
	ID             string
	CustomerID     string
	BenefitID      string
	SubscriptionID string
	OrderID        string
	// MemberID is the member of the customer who has it. ForMember says that
	// this is somebody else than the buyer, as far as the grant tells.
	MemberID  string
	ForMember bool
	Granted   bool
	Revoked   bool
	RevokedAt time.Time
}

// Seat is a place in a subscription or order that is sold by seats. It opens
// for the member who has claimed it.
type Seat struct {
	Version        Version
	ID             string
	SubscriptionID string
	OrderID        string
	Claimed        bool
	Revoked        bool
	RevokedAt      time.Time

	// CustomerID and MemberID say who has claimed it last: the member, or, where
	// Polar knows no members, the customer itself; nobody, once somebody else was
	// invited. Polar takes them off a seat that it revokes; ClaimedIn is the
	// version of the state that told them.
	CustomerID string
	MemberID   string
	ClaimedIn  Version
}

// Roles of members. Each customer has one owner, who is the buyer.
const (
	RoleOwner          = "owner"
	RoleBillingManager = "billing_manager"
)

// Member is a person of a customer.
type Member struct {
	Version    Version
	ID         string
	CustomerID string
	// ExternalID is the person's user id, unique only within the customer. An
	// owner's is that of the customer.
	ExternalID string
	Role       string
	Deleted    bool
}

// Manages says whether the member may act for the customer: with seats and
// billing.
//
// Source: https://polar.sh/docs/features/seat-based-pricing
func (m *Member) Manages() bool {
	return !m.Deleted && (m.Role == RoleOwner || m.Role == RoleBillingManager)
}

// Refund is a refund of an order.
type Refund struct {
	Version        Version
	ID             string
	CustomerID     string
	OrderID        string
	SubscriptionID string
	Succeeded      bool
	RevokeBenefits bool
	// Disputed says that the refund belongs to a dispute that the seller has
	// not won, one that was prevented by refunding included.
	Disputed bool
	// DisputeLost says that the dispute was lost.
	DisputeLost bool
}

// Customer is Polar's customer.
type Customer struct {
	Version Version
	ID      string
	// ExternalID is the user's id. Polar never changes it once it is set.
	ExternalID string
	DeletedAt  time.Time
}

// Pass is access that the operator gave, outside Polar.
type Pass struct {
	ID     string
	User   string
	Plan   string
	Until  time.Time // zero: without end
	Reason string
}

// Owner answers whose a purchase is, in the order of what proves most: the
// operator's link of the customer, authentic metadata of the purchase, the
// customer's external id, a link of the customer by a verified e-mail. Empty when
// nobody owns it yet.
func Owner(link, metadata, external, byEmail string) string {
	return cmp.Or(link, metadata, external, byEmail)
}

func first(times ...time.Time) time.Time {
	for _, t := range times {
		if !t.IsZero() {
			return t
		}
	}
	return time.Time{}
}

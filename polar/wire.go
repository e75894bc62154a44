package polar

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// ErrDecode says that a body is not what Polar's contract promises.
var ErrDecode = errors.New("cannot decode")

// Event is the envelope of a webhook.
type Event struct {
	Type string `json:"type"`
	// Timestamp is when Polar made the event, the same on every retry. Zero in
	// events from before September 2025.
	Timestamp time.Time       `json:"timestamp"`
	Data      json.RawMessage `json:"data"`
}

// DecodeEvent reads the envelope of a verified body. Unknown fields and types
// are fine.
func DecodeEvent(body []byte) (Event, error) {
	var e Event
	if err := json.Unmarshal(body, &e); err != nil {
		return Event{}, decodeError("the envelope", err)
	}
	if e.Type == "" || len(e.Data) == 0 || string(e.Data) == "null" {
		return Event{}, fmt.Errorf("%w the envelope: type or data is missing", ErrDecode)
	}
	return e, nil
}

// NoOrganization is an organization's id that none has. Webhooks that are made
// up for trying carry it.
const NoOrganization = "00000000-0000-4000-8000-000000000000"

// Row is what all of Polar's objects have.
type Row struct {
	ID         string     `json:"id"`
	CreatedAt  time.Time  `json:"created_at"`
	ModifiedAt *time.Time `json:"modified_at"` // null until the first change
}

// Subscription is Polar's subscription, as far as it decides anything.
type Subscription struct {
	Row
	Status             string         `json:"status"`
	CurrentPeriodStart time.Time      `json:"current_period_start"`
	CurrentPeriodEnd   time.Time      `json:"current_period_end"` // never null
	TrialEnd           *time.Time     `json:"trial_end"`
	CancelAtPeriodEnd  bool           `json:"cancel_at_period_end"`
	CanceledAt         *time.Time     `json:"canceled_at"`
	StartedAt          *time.Time     `json:"started_at"`
	EndsAt             *time.Time     `json:"ends_at"`
	EndedAt            *time.Time     `json:"ended_at"`
	PastDueAt          *time.Time     `json:"past_due_at"`
	PauseAtPeriodEnd   bool           `json:"pause_at_period_end"`
	PausedAt           *time.Time     `json:"paused_at"`
	ResumesAt          *time.Time     `json:"resumes_at"`
	CustomerID         string         `json:"customer_id"`
	ProductID          string         `json:"product_id"`
	CheckoutID         string         `json:"checkout_id"`
	Seats              *int           `json:"seats"`
	Metadata           Metadata       `json:"metadata"`
	PendingUpdate      *PendingUpdate `json:"pending_update"`
	Customer           *Nested        `json:"customer"`
	Amount             *int           `json:"amount"`
}

// Free says that the subscription costs nothing.
func (s *Subscription) Free() bool { return s.Amount != nil && *s.Amount == 0 }

// PendingUpdate is a change that is scheduled and has not been applied.
type PendingUpdate struct {
	AppliesAt time.Time `json:"applies_at"`
	ProductID string    `json:"product_id"`
	Seats     *int      `json:"seats"` // null: they stay as many
}

// Order is Polar's order.
type Order struct {
	Row
	Status         string   `json:"status"`
	CustomerID     string   `json:"customer_id"`
	ProductID      string   `json:"product_id"`
	SubscriptionID string   `json:"subscription_id"`
	CheckoutID     string   `json:"checkout_id"`
	Seats          *int     `json:"seats"`
	Metadata       Metadata `json:"metadata"`
	Customer       *Nested  `json:"customer"`
}

// BenefitGrant is Polar's grant of a benefit.
type BenefitGrant struct {
	Row
	IsGranted      bool       `json:"is_granted"`
	IsRevoked      bool       `json:"is_revoked"`
	RevokedAt      *time.Time `json:"revoked_at"`
	CustomerID     string     `json:"customer_id"`
	MemberID       string     `json:"member_id"`
	BenefitID      string     `json:"benefit_id"`
	SubscriptionID string     `json:"subscription_id"`
	OrderID        string     `json:"order_id"`
	Customer       *Nested    `json:"customer"`
	Member         *Member    `json:"member"`
}

// Seat is one place in a subscription or order.
type Seat struct {
	Row
	SubscriptionID string     `json:"subscription_id"`
	OrderID        string     `json:"order_id"`
	Status         string     `json:"status"`      // pending, claimed, revoked
	CustomerID     string     `json:"customer_id"` // the buyer, or without members the holder
	MemberID       string     `json:"member_id"`
	Member         *Member    `json:"member"`
	Email          string     `json:"email"`
	ExpiresAt      *time.Time `json:"invitation_token_expires_at"` // of an invitation
	ClaimedAt      *time.Time `json:"claimed_at"`
	RevokedAt      *time.Time `json:"revoked_at"`
}

// Refund is Polar's refund.
type Refund struct {
	Row
	Status         string   `json:"status"`
	Reason         string   `json:"reason"`
	OrganizationID string   `json:"organization_id"`
	CustomerID     string   `json:"customer_id"`
	OrderID        string   `json:"order_id"`
	SubscriptionID string   `json:"subscription_id"`
	RevokeBenefits bool     `json:"revoke_benefits"`
	Dispute        *Dispute `json:"dispute"`
}

// Dispute is the dispute that a refund belongs to.
type Dispute struct {
	Status string `json:"status"`
}

// Customer is Polar's customer, also the head of a customer's state.
type Customer struct {
	Row
	ExternalID     string     `json:"external_id"`
	Email          string     `json:"email"` // null for teams
	OrganizationID string     `json:"organization_id"`
	DeletedAt      *time.Time `json:"deleted_at"`
}

// Nested is a customer inside another object. It can be old: nothing may be
// taken from it but the pair of ids, and the e-mail as that of its row's time.
type Nested struct {
	Row
	ExternalID     string     `json:"external_id"`
	Email          string     `json:"email"`
	OrganizationID string     `json:"organization_id"`
	DeletedAt      *time.Time `json:"deleted_at"`
}

// Member is a person of a customer.
type Member struct {
	Row
	CustomerID string `json:"customer_id"`
	ExternalID string `json:"external_id"`
	Email      string `json:"email"`
	Name       string `json:"name"`
	Role       string `json:"role"` // owner, billing_manager, member
}

// Checkout is Polar's checkout session.
type Checkout struct {
	Row
	CustomerID     string `json:"customer_id"`
	OrganizationID string `json:"organization_id"`
}

// Metadata is the merchant's metadata of an object. Only strings are kept: the
// gateway reads nothing else. Whatever else stands there does no harm.
type Metadata map[string]string

// UnmarshalJSON implements json.Unmarshaler.
func (m *Metadata) UnmarshalJSON(b []byte) error {
	var raw map[string]json.RawMessage
	if json.Unmarshal(b, &raw) != nil {
		return nil
	}
	*m = make(Metadata, len(raw))
	for k, v := range raw {
		var s string
		if json.Unmarshal(v, &s) == nil {
			(*m)[k] = s
		}
	}
	return nil
}

// Decode reads the data of an event, or an item read from the API, into one of
// the types above.
func Decode[T any](data json.RawMessage) (T, error) {
	var v T
	if err := json.Unmarshal(data, &v); err != nil {
		return v, decodeError("data", err)
	}
	return v, nil
}

// decodeError keeps what is useful of a JSON error and nothing of the body:
// bodies hold names, addresses and e-mails.
func decodeError(what string, err error) error {
	var wrongType *json.UnmarshalTypeError
	var syntax *json.SyntaxError
	switch {
	case errors.As(err, &wrongType):
		return fmt.Errorf("%w %s: field %q has the wrong type", ErrDecode, what, wrongType.Field)
	case errors.As(err, &syntax):
		return fmt.Errorf("%w %s: no JSON, at byte %d", ErrDecode, what, syntax.Offset)
	}
	return fmt.Errorf("%w %s: a time or value is malformed", ErrDecode, what)
}

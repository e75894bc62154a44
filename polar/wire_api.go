package polar

import (
	"encoding/json"
	"net/url"
	"time"
)

// Answer is an object with the moment, in Polar's time, at which the request
// for it began: the object is at least as new as that, but for the lag of
// Polar's replica.
type Answer[T any] struct {
	Item T
	AsOf time.Time
}

// Paging asks for one page of a list. Zero is Polar's default: the first page,
// ten items. Polar cuts Limit to 100.
type Paging struct {
	Page, Limit int
	Sorting     []string // e.g. -started_at
}

// Page is one page of a list. Pages are offsets: while objects come and go
// between two pages, items can repeat or be missed.
type Page[T any] struct {
	Items      []T
	TotalCount int
	MaxPage    int
	AsOf       time.Time
}

// list is a page on the wire.
type list[T any] struct {
	Items      []T `json:"items"`
	Pagination struct {
		TotalCount int `json:"total_count"`
		MaxPage    int `json:"max_page"`
	} `json:"pagination"`
}

func (l *list[T]) whole() bool {
	for i := range l.Items {
		if w, ok := any(&l.Items[i]).(interface{ whole() bool }); ok && !w.whole() {
			return false
		}
	}
	return l.Items != nil
}

// whole says whether an answer is what was asked for. All objects have an id.
func (r *Row) whole() bool { return r.ID != "" }

// Secret is a string that opens something. It does not show in logs or JSON;
// string(s) is the value.
type Secret string

const redacted = "[secret]"

// String implements fmt.Stringer.
func (Secret) String() string { return redacted }

// GoString implements fmt.GoStringer.
func (Secret) GoString() string { return redacted }

// MarshalJSON implements json.Marshaler.
func (Secret) MarshalJSON() ([]byte, error) { return json.Marshal(redacted) }

// CheckoutCreate opens a checkout.
//
// Source: https://polar.sh/docs/api-reference/2026-10/checkouts/create-checkout-session
type CheckoutCreate struct {
	Products           []string `json:"products"` // the first one is preselected
	CustomerID         string   `json:"customer_id,omitempty"`
	ExternalCustomerID string   `json:"external_customer_id,omitempty"`
	CustomerEmail      string   `json:"customer_email,omitempty"`
	CustomerName       string   `json:"customer_name,omitempty"`
	CustomerIPAddress  string   `json:"customer_ip_address,omitempty"`
	Metadata           Metadata `json:"metadata,omitempty"`
	Seats              int      `json:"seats,omitempty"`
	SubscriptionID     string   `json:"subscription_id,omitempty"` // upgrades a free one
	SuccessURL         string   `json:"success_url,omitempty"`
	ReturnURL          string   `json:"return_url,omitempty"`
	EmbedOrigin        string   `json:"embed_origin,omitempty"`
	Locale             string   `json:"locale,omitempty"`
}

// CheckoutSession is a checkout as its buyer and its seller see it. Only the
// status succeeded is paid.
type CheckoutSession struct {
	Checkout
	Status             string    `json:"status"`
	URL                Secret    `json:"url"` // holds the client secret
	ExpiresAt          time.Time `json:"expires_at"`
	ProductID          string    `json:"product_id"`
	SubscriptionID     string    `json:"subscription_id"` // of upgrades only
	ExternalCustomerID string    `json:"external_customer_id"`
	Metadata           Metadata  `json:"metadata"`
}

// SubscriptionFilter selects subscriptions.
type SubscriptionFilter struct {
	Status             []string
	CustomerID         string
	ExternalCustomerID string
	ProductID          []string
	StartedAfter       time.Time
	Metadata           map[string]string
}

// OrderFilter selects orders.
type OrderFilter struct {
	Status             []string
	CustomerID         string
	ExternalCustomerID string
	ProductID          []string
	CheckoutID         string
	SubscriptionID     string
	BillingType        string // recurring or one_time
	CreatedAfter       time.Time
	Metadata           map[string]string
}

// RefundFilter selects refunds.
type RefundFilter struct {
	OrderID            string
	SubscriptionID     string
	CustomerID         string
	ExternalCustomerID string
	Succeeded          *bool
}

// DisputeFilter selects disputes.
type DisputeFilter struct {
	OrderID string
	Status  []string
}

// OrderDispute is a dispute of an order.
type OrderDispute struct {
	Row
	Dispute
	OrderID  string  `json:"order_id"`
	Customer *Nested `json:"customer"`
}

// BenefitGrantFilter selects grants.
type BenefitGrantFilter struct {
	CustomerID         string
	ExternalCustomerID string
	IsGranted          *bool
}

// CustomerFilter selects customers. Query looks into name, e-mail and external
// id.
type CustomerFilter struct {
	Email string
	Query string
}

// CustomerProfile is a customer with what the gateway needs to complete it.
type CustomerProfile struct {
	Customer
	EmailVerified bool   `json:"email_verified"`
	Name          string `json:"name"`
	Type          string `json:"type"` // individual or team
}

// CustomerCreate makes a customer.
type CustomerCreate struct {
	Email      string   `json:"email"`
	ExternalID string   `json:"external_id,omitempty"`
	Name       string   `json:"name,omitempty"`
	Metadata   Metadata `json:"metadata,omitempty"`
}

// CustomerUpdate completes a customer. The external id can be set once, and
// never changed.
type CustomerUpdate struct {
	Email      string `json:"email,omitempty"`
	ExternalID string `json:"external_id,omitempty"`
	Name       string `json:"name,omitempty"`
}

// CustomerSessionCreate opens a session for exactly one of the two ids. A team
// customer's session needs a member.
type CustomerSessionCreate struct {
	CustomerID         string `json:"customer_id,omitempty"`
	ExternalCustomerID string `json:"external_customer_id,omitempty"`
	MemberID           string `json:"member_id,omitempty"`
	ExternalMemberID   string `json:"external_member_id,omitempty"`
	ReturnURL          string `json:"return_url,omitempty"`
}

// CustomerSession lets somebody act as a customer for an hour.
type CustomerSession struct {
	Row
	Token      Secret    `json:"token"`
	PortalURL  Secret    `json:"customer_portal_url"` // holds the token
	ExpiresAt  time.Time `json:"expires_at"`
	CustomerID string    `json:"customer_id"`
}

// PortalFilter selects a customer's own subscriptions.
type PortalFilter struct {
	ProductID []string
	Active    *bool
}

// PortalSubscription is a subscription as the customer sees it. It lacks the
// merchant's metadata and the customer, so it is no whole fact and must not
// overwrite one.
type PortalSubscription struct {
	Row
	Status            string         `json:"status"`
	CustomerID        string         `json:"customer_id"`
	ProductID         string         `json:"product_id"`
	CurrentPeriodEnd  time.Time      `json:"current_period_end"`
	CancelAtPeriodEnd bool           `json:"cancel_at_period_end"`
	EndsAt            *time.Time     `json:"ends_at"`
	Seats             *int           `json:"seats"`
	PendingUpdate     *PendingUpdate `json:"pending_update"`
}

// ProductFilter selects products.
type ProductFilter struct {
	ID         []string
	IsArchived *bool
}

// Product is what can be bought.
type Product struct {
	Row
	Name                   string    `json:"name"`
	Description            string    `json:"description"`
	Visibility             string    `json:"visibility"`
	IsRecurring            bool      `json:"is_recurring"`
	IsArchived             bool      `json:"is_archived"`
	RecurringInterval      string    `json:"recurring_interval"`
	RecurringIntervalCount int       `json:"recurring_interval_count"`
	TrialInterval          string    `json:"trial_interval"`
	TrialIntervalCount     int       `json:"trial_interval_count"`
	OrganizationID         string    `json:"organization_id"`
	Metadata               Metadata  `json:"metadata"`
	Prices                 []Price   `json:"prices"`
	Benefits               []Benefit `json:"benefits"`
}

// Price is one price of a product, in integer minor units.
type Price struct {
	ID            string     `json:"id"`
	AmountType    string     `json:"amount_type"` // fixed, custom, seat_based, metered_unit
	Currency      string     `json:"price_currency"`
	IsArchived    bool       `json:"is_archived"`
	Amount        *int64     `json:"price_amount"`   // fixed
	MinimumAmount *int64     `json:"minimum_amount"` // custom
	MaximumAmount *int64     `json:"maximum_amount"`
	PresetAmount  *int64     `json:"preset_amount"`
	UnitAmount    string     `json:"unit_amount"` // metered_unit: a decimal, in minor units
	SeatTiers     *SeatTiers `json:"seat_tiers"`
}

// SeatTiers are the prices of seats.
type SeatTiers struct {
	Tiers []SeatTier `json:"tiers"`
}

// SeatTier is the price of each seat in a range.
type SeatTier struct {
	MinSeats     int   `json:"min_seats"`
	MaxSeats     *int  `json:"max_seats"`
	PricePerSeat int64 `json:"price_per_seat"`
}

// Benefit is a benefit of a product.
type Benefit struct {
	ID          string `json:"id"`
	Type        string `json:"type"`
	Description string `json:"description"`
}

// BenefitFilter selects benefits.
type BenefitFilter struct {
	ID []string
}

// WebhookEndpoint is where Polar sends webhooks.
type WebhookEndpoint struct {
	Row
	URL            string   `json:"url"`
	Name           string   `json:"name"`
	Format         string   `json:"format"`
	Secret         Secret   `json:"secret"`
	OrganizationID string   `json:"organization_id"`
	Events         []string `json:"events"`
	Enabled        bool     `json:"enabled"`
	APIVersion     string   `json:"api_version"` // since September 2026
}

// WebhookEndpointCreate makes an endpoint. Format is raw for the gateway.
type WebhookEndpointCreate struct {
	URL        string   `json:"url"`
	Name       string   `json:"name,omitempty"`
	Format     string   `json:"format"`
	Events     []string `json:"events"`
	APIVersion string   `json:"api_version,omitempty"`
}

// WebhookEndpointUpdate changes what is set.
type WebhookEndpointUpdate struct {
	URL        string   `json:"url,omitempty"`
	Name       string   `json:"name,omitempty"`
	Format     string   `json:"format,omitempty"`
	Events     []string `json:"events,omitempty"`
	Enabled    *bool    `json:"enabled,omitempty"`
	APIVersion string   `json:"api_version,omitempty"`
}

// DeliveryFilter selects deliveries.
type DeliveryFilter struct {
	EndpointID string
	Start, End time.Time
	Succeeded  *bool
	EventType  []string
}

// WebhookDelivery is one attempt to deliver one event.
type WebhookDelivery struct {
	Row
	Succeeded bool         `json:"succeeded"`
	HTTPCode  int          `json:"http_code"` // zero: no answer
	Response  string       `json:"response"`  // the answer's beginning, or why there was none: a stranger's words
	Event     WebhookEvent `json:"webhook_event"`
}

// WebhookEvent is a stored event. Payload is the body as it was sent, empty
// once it is archived.
type WebhookEvent struct {
	Row
	Type       string `json:"type"`
	Payload    string `json:"payload"`
	Succeeded  *bool  `json:"succeeded"`
	Skipped    bool   `json:"skipped"`
	IsArchived bool   `json:"is_archived"`
}

// SeatFilter names what the seats belong to: one of the two.
type SeatFilter struct {
	SubscriptionID string
	OrderID        string
}

func (f SeatFilter) query() url.Values {
	return url.Values(params{}.set("subscription_id", f.SubscriptionID).set("order_id", f.OrderID))
}

// Seats are all seats of a subscription or order, those that were taken away
// included.
type Seats struct {
	Seats     []Seat `json:"seats"`
	Available int    `json:"available_seats"`
	Total     int    `json:"total_seats"`
}

func (s *Seats) whole() bool { return s.Seats != nil }

// SeatAssign gives a seat to somebody, named in one way.
type SeatAssign struct {
	SubscriptionID     string `json:"subscription_id,omitempty"`
	OrderID            string `json:"order_id,omitempty"`
	Email              string `json:"email,omitempty"`
	ExternalCustomerID string `json:"external_customer_id,omitempty"`
	CustomerID         string `json:"customer_id,omitempty"`
	ExternalMemberID   string `json:"external_member_id,omitempty"`
	MemberID           string `json:"member_id,omitempty"`
	ImmediateClaim     bool   `json:"immediate_claim,omitempty"`
}

// SeatInvite invites an e-mail to a seat in one of the two, as the customer.
type SeatInvite struct {
	SubscriptionID string `json:"subscription_id,omitempty"`
	OrderID        string `json:"order_id,omitempty"`
	Email          string `json:"email"`
}

// PortalUser is whose session it is: a customer, or a member of one.
type PortalUser struct {
	Email      string `json:"email"`
	CustomerID string `json:"customer_id"`
	MemberID   string `json:"member_id"`
	Role       string `json:"role"` // of a member
}

func (u *PortalUser) whole() bool { return u.CustomerID != "" }

// MemberFilter selects the members of a customer.
type MemberFilter struct {
	CustomerID         string
	ExternalCustomerID string
	Role               string
}

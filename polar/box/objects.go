package box

import (
	"strings"
	"time"
)

// Row is what all of Polar's objects have.
type Row struct {
	ID         string
	CreatedAt  time.Time
	ModifiedAt *time.Time // null until the first update
}

func (r *Row) meta() *Row { return r }

// Organization is the merchant.
type Organization struct {
	Row
	Name, Slug string
}

// Product is a product with its price and its benefits.
type Product struct {
	Row
	Name          string
	Interval      string // day, week, month or year; empty for a one-time product
	IntervalCount int
	TrialInterval string
	TrialCount    int
	Metadata      map[string]any
	Archived      bool
	Visibility    string // draft, private or public
	Description   string
	Price         Price
	BenefitIDs    []string
}

// Price is a fixed price, of which an amount of 0 is a free one; or with tiers,
// a price per seat.
type Price struct {
	Row
	Amount    int
	Currency  string
	Tiers     []SeatTier
	Graduated bool // each tier prices its own seats; without, one prices them all
}

// Benefit is something that a product grants.
type Benefit struct {
	Row
	Type        string
	Description string
	Metadata    map[string]any
	Properties  map[string]any
}

// Address is a billing address.
type Address struct {
	Line1      *string `json:"line1"`
	Line2      *string `json:"line2"`
	PostalCode *string `json:"postal_code"`
	City       *string `json:"city"`
	State      *string `json:"state"`
	Country    string  `json:"country"`
}

// Customer is a customer. Its ExternalID is empty when it has none.
type Customer struct {
	Row
	ExternalID      string
	Email           string
	Name            string
	Type            string
	Metadata        map[string]any
	Address         *Address
	PaymentMethodID string
	DeletedAt       *time.Time
	Owner           Member // what the owner has of its own, when it is created
	declines        bool   // the card
}

// Member is a person of a customer.
type Member struct {
	Row
	CustomerID, Email, Name, ExternalID, Role string
	deleted                                   bool
}

// PendingUpdate is a change of plan or of seats that is scheduled.
type PendingUpdate struct {
	Row
	AppliesAt time.Time
	ProductID string
	Seats     int
}

// Subscription is a subscription.
type Subscription struct {
	Row
	Status                               string
	Amount                               int
	Currency                             string
	Interval                             string
	IntervalCount                        int
	CurrentPeriodStart, CurrentPeriodEnd time.Time
	TrialStart, TrialEnd                 *time.Time
	CancelAtPeriodEnd                    bool
	CanceledAt, EndsAt, EndedAt          *time.Time
	StartedAt                            *time.Time
	PastDueAt                            *time.Time
	PauseAtPeriodEnd                     bool
	PausedAt, ResumesAt                  *time.Time
	CustomerID, ProductID, CheckoutID    string
	DiscountID                           string
	Seats                                int // none: it is not sold by seats
	CancellationReason                   string
	CancellationComment                  string
	Metadata                             map[string]any
	Pending                              *PendingUpdate
}

// Billable says whether it is renewed, and blocks a second one.
func (s *Subscription) Billable() bool {
	return s.Status == "active" || s.Status == "trialing" || s.Status == "past_due"
}

// Active says whether it grants its benefits and is in the customer's state.
func (s *Subscription) Active() bool {
	return s.Status == "active" || s.Status == "trialing"
}

// Order is an order.
type Order struct {
	Row
	Status                         string
	Amount, Discount, Tax          int // the amount is before the discount
	Seats                          int
	Refunded, RefundedTax          int
	Currency                       string
	BillingReason                  string
	InvoiceNumber                  string
	ItemID                         string
	CustomerID, ProductID, PriceID string
	SubscriptionID, CheckoutID     string
	DiscountID                     string
	NextPaymentAttemptAt           *time.Time
	Metadata                       map[string]any
	failedAt                       *time.Time // the first failure
	attempts                       int
}

// Net is what the order costs, without tax.
func (o *Order) Net() int { return o.Amount - o.Discount }

func (o *Order) paid() bool {
	return o.Status == "paid" || o.Status == "refunded" || o.Status == "partially_refunded"
}

// Refund is a refund.
type Refund struct {
	Row
	Status, Reason                      string
	Amount, Tax                         int
	Currency                            string
	OrderID, SubscriptionID, CustomerID string
	RevokeBenefits                      bool
	Metadata                            map[string]any
	DisputeID                           string
}

// Dispute is a chargeback.
type Dispute struct {
	Row
	Status                         string
	Amount, Tax                    int
	Currency                       string
	OrderID, CustomerID, PaymentID string
}

// Grant is a benefit that a customer has, had, or could not be given.
type Grant struct {
	Row
	GrantedAt, RevokedAt                                     *time.Time
	SubscriptionID, OrderID, CustomerID, MemberID, BenefitID string
	Error                                                    *GrantError
}

// GrantError is why a benefit could not be granted.
type GrantError struct {
	Message string
	At      time.Time
}

// Checkout is a checkout session.
type Checkout struct {
	Row
	Status                         string
	ClientSecret                   string
	ExpiresAt                      time.Time
	SuccessURL, ReturnURL          string
	ProductIDs                     []string
	CustomerID, ExternalCustomerID string
	CustomerEmail, CustomerName    string
	CustomerIP                     string
	Seats, MinSeats, MaxSeats      int
	DiscountID                     string
	Metadata, CustomerMetadata     map[string]any
	AllowTrial                     bool
	TrialEnd                       *time.Time
	SubscriptionID                 string // what came of it; not rendered
	Upgrades                       string // the free subscription that becomes a paid one
	URL                            string
	ownSuccessPage                 bool // the merchant gave no success URL
	customerAddress                *Address
	paymentMethod                  string
}

func foldEmail(s string) string { return strings.ToLower(strings.TrimSpace(s)) }

package polar

import "time"

// A change of a subscription is exactly one of Polar's bodies, which must not
// be mixed, so each is a type of its own.
//
// Source: https://polar.sh/docs/api-reference/2026-10/subscriptions/update-subscription
type (
	// SubscriptionChange is a change that the merchant makes.
	SubscriptionChange interface{ subscriptionChange() }
	// PortalChange is a change that the customer makes.
	PortalChange interface{ portalChange() }
)

// ChangeProduct changes the product, and whatever else is set. Proration is
// invoice, prorate, next_period or reset; empty is the organization's setting.
type ChangeProduct struct {
	ProductID  string   `json:"product_id,omitempty"`
	Proration  string   `json:"proration_behavior,omitempty"`
	DiscountID string   `json:"discount_id,omitempty"`
	TrialEnd   string   `json:"trial_end,omitempty"` // RFC 3339 or "now"
	Metadata   Metadata `json:"metadata,omitempty"`
}

// ChangeSeats changes the number of seats.
type ChangeSeats struct {
	Seats     int    `json:"seats"`
	Proration string `json:"proration_behavior,omitempty"`
}

// ChangeUnits changes the number of units.
type ChangeUnits struct {
	Units     int    `json:"units"`
	Proration string `json:"proration_behavior,omitempty"`
}

// ChangePeriodEnd moves the end of the current period.
type ChangePeriodEnd struct {
	CurrentPeriodEnd time.Time `json:"current_billing_period_end"`
}

// ChangeCancel cancels at the end of the period, or takes that back.
type ChangeCancel struct {
	AtPeriodEnd bool   `json:"cancel_at_period_end"`
	Reason      string `json:"customer_cancellation_reason,omitempty"`
	Comment     string `json:"customer_cancellation_comment,omitempty"`
}

// ChangeRevoke ends the subscription now.
type ChangeRevoke struct {
	Revoke  always `json:"revoke"`
	Reason  string `json:"customer_cancellation_reason,omitempty"`
	Comment string `json:"customer_cancellation_comment,omitempty"`
}

// ChangePause pauses at the end of the period, or takes that back.
type ChangePause struct {
	AtPeriodEnd bool       `json:"pause_at_period_end"`
	ResumesAt   *time.Time `json:"resumes_at,omitempty"`
}

// ChangeResume resumes a paused subscription now, and charges for it.
type ChangeResume struct {
	Resume always `json:"resume"`
}

// ChangeClearPending takes a scheduled change back.
type ChangeClearPending struct {
	PendingUpdate *struct{} `json:"pending_update"` // always null
}

// PortalChangeProduct changes to another product. How it is charged is the
// organization's setting.
type PortalChangeProduct struct {
	ProductID string `json:"product_id"`
}

// PortalChangeSeats changes the number of seats.
type PortalChangeSeats struct {
	Seats int `json:"seats"`
}

// PortalChangeCancel cancels at the end of the period, or takes that back.
type PortalChangeCancel struct {
	AtPeriodEnd bool   `json:"cancel_at_period_end"`
	Reason      string `json:"cancellation_reason,omitempty"`
	Comment     string `json:"cancellation_comment,omitempty"`
}

// always is a field that can only be true.
type always struct{}

// MarshalJSON implements json.Marshaler.
func (always) MarshalJSON() ([]byte, error) { return []byte("true"), nil }

func (ChangeProduct) subscriptionChange()      {}
func (ChangeSeats) subscriptionChange()        {}
func (ChangeUnits) subscriptionChange()        {}
func (ChangePeriodEnd) subscriptionChange()    {}
func (ChangeCancel) subscriptionChange()       {}
func (ChangeRevoke) subscriptionChange()       {}
func (ChangePause) subscriptionChange()        {}
func (ChangeResume) subscriptionChange()       {}
func (ChangeClearPending) subscriptionChange() {}

func (PortalChangeProduct) portalChange() {}
func (PortalChangeSeats) portalChange()   {}
func (PortalChangeCancel) portalChange()  {}
func (ChangePause) portalChange()         {}
func (ChangeResume) portalChange()        {}
func (ChangeClearPending) portalChange()  {}

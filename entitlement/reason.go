package entitlement

import (
	"maps"
	"net/http"
	"slices"
)

// Reason is the stable code of why a request was let through or refused.
type Reason string

// The reasons of allowed requests.
const (
	ReasonActive        Reason = "active"
	ReasonCanceling     Reason = "canceling"
	ReasonPausing       Reason = "pausing"
	ReasonTrialing      Reason = "trialing"
	ReasonRenewalGrace  Reason = "renewal_grace"
	ReasonPastDueGrace  Reason = "past_due_grace"
	ReasonUnpaidGrace   Reason = "unpaid_grace"
	ReasonCanceledGrace Reason = "canceled_grace"
	ReasonPurchased     Reason = "purchased"
	ReasonBenefit       Reason = "benefit"
	ReasonPass          Reason = "pass"
)

// The reasons of refused requests.
const (
	ReasonPeriodEnded     Reason = "period_ended"
	ReasonTrialEnded      Reason = "trial_ended"
	ReasonCanceled        Reason = "canceled"
	ReasonPaused          Reason = "paused"
	ReasonPastDue         Reason = "past_due"
	ReasonUnpaid          Reason = "unpaid"
	ReasonIncomplete      Reason = "incomplete"
	ReasonUnknownStatus   Reason = "unknown_status"
	ReasonRefunded        Reason = "refunded"
	ReasonDisputed        Reason = "disputed"
	ReasonBenefitRevoked  Reason = "benefit_revoked"
	ReasonSeatRevoked     Reason = "seat_revoked"
	ReasonPassExpired     Reason = "pass_expired"
	ReasonCustomerDeleted Reason = "customer_deleted"
	ReasonNoSubscription  Reason = "no_subscription"
	ReasonPlanRequired    Reason = "plan_required"
	ReasonUnavailable     Reason = "unavailable"
)

// NextStep is what a refused user can do.
type NextStep string

// The next steps.
const (
	StepLogin    NextStep = "login"
	StepCheckout NextStep = "checkout"
	StepChange   NextStep = "change"
	StepPortal   NextStep = "portal"
	StepWait     NextStep = "wait"
	StepContact  NextStep = "contact"
)

// refusals says for each reason of a refusal which HTTP status it has and what
// the user can do.
var refusals = map[Reason]struct {
	status int
	step   NextStep
}{
	ReasonPeriodEnded:     {http.StatusPaymentRequired, StepCheckout},
	ReasonTrialEnded:      {http.StatusPaymentRequired, StepCheckout},
	ReasonCanceled:        {http.StatusPaymentRequired, StepCheckout},
	ReasonPaused:          {http.StatusPaymentRequired, StepPortal},
	ReasonPastDue:         {http.StatusPaymentRequired, StepPortal},
	ReasonUnpaid:          {http.StatusPaymentRequired, StepPortal},
	ReasonIncomplete:      {http.StatusPaymentRequired, StepCheckout},
	ReasonUnknownStatus:   {http.StatusServiceUnavailable, StepWait},
	ReasonRefunded:        {http.StatusPaymentRequired, StepCheckout},
	ReasonDisputed:        {http.StatusForbidden, StepContact},
	ReasonBenefitRevoked:  {http.StatusPaymentRequired, StepCheckout},
	ReasonSeatRevoked:     {http.StatusForbidden, StepContact},
	ReasonPassExpired:     {http.StatusPaymentRequired, StepCheckout},
	ReasonCustomerDeleted: {http.StatusForbidden, StepContact},
	ReasonNoSubscription:  {http.StatusPaymentRequired, StepCheckout},
	ReasonPlanRequired:    {http.StatusPaymentRequired, StepCheckout},
	ReasonUnavailable:     {http.StatusServiceUnavailable, StepWait},
}

// AllowedReasons and RefusedReasons are all reasons that a decision can have.
var (
	AllowedReasons = []Reason{
		ReasonActive, ReasonCanceling, ReasonPausing, ReasonTrialing, ReasonRenewalGrace, ReasonPastDueGrace,
		ReasonUnpaidGrace, ReasonCanceledGrace, ReasonPurchased, ReasonBenefit, ReasonPass,
	}
	RefusedReasons = slices.Sorted(maps.Keys(refusals))
)

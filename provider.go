package caddypolar

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"go.uber.org/zap"

	"github.com/caddy-polar/caddy-polar/entitlement"
	"github.com/caddy-polar/caddy-polar/gateway"
	"github.com/caddy-polar/caddy-polar/polar"
)

// providerProblem says why a use case has failed: because of what was asked
// for, or because of Polar. Nothing of Polar's own words gets out, but for what
// it says about the input.
func (g *Gateway) providerProblem(r *http.Request, v *visit, err error) *problem {
	if p := g.requestProblem(r, v, err); p != nil {
		return p
	}
	var failure *polar.APIError
	switch {
	case errors.Is(err, context.Canceled): // nobody is there to read this
		return newProblem(http.StatusServiceUnavailable, codeProviderUnavailable)
	case errors.Is(err, polar.ErrTimeout), errors.Is(err, context.DeadlineExceeded):
		return newProblem(http.StatusGatewayTimeout, codeProviderTimeout)
	case errors.Is(err, polar.ErrUnexpected):
		g.logger.Error("Polar gave an answer that makes no sense: check server and api_version", zap.Error(err))
		return newProblem(http.StatusBadGateway, codeProviderRejected)
	}
	if !errors.As(err, &failure) {
		g.logger.Error("the store cannot be used", zap.Error(err))
		return newProblem(http.StatusServiceUnavailable, string(entitlement.ReasonUnavailable))
	}
	asCustomer := strings.HasPrefix(failure.Path, "/v1/customer-portal/")
	if told, ok := changeRefusals[failure.Code]; ok && asCustomer {
		return told.problem(v.base(r)+"/portal", failure)
	}
	switch {
	case errors.Is(err, polar.ErrInvalid):
		p := newProblem(http.StatusUnprocessableEntity, codeInvalidInput)
		for _, f := range failure.Fields {
			p.Fields = append(p.Fields, fieldView{ourField(f.Field), f.Message})
		}
		return p
	case errors.Is(err, polar.ErrPayment):
		return newProblem(http.StatusPaymentRequired, codePaymentFailed)
	case errors.Is(err, polar.ErrConflict):
		return newProblem(http.StatusConflict, codeConflict)
	case asCustomer && errors.Is(err, polar.ErrForbidden) && failure.Code != "" && !errors.Is(err, polar.ErrScope):
		return newProblem(http.StatusForbidden, codeChangeRefused) // the seller's policy, not our token's
	case errors.Is(err, polar.ErrRateLimited), errors.Is(err, polar.ErrUnavailable):
		return newProblem(http.StatusServiceUnavailable, codeProviderUnavailable).after(failure.RetryAfter)
	}
	g.logger.Error("Polar refused: check access_token, its scopes, server and api_version", zap.Error(err))
	return newProblem(http.StatusBadGateway, codeProviderRejected)
}

// changeRefusal is what we say of a change that Polar does not let a customer make.
type changeRefusal struct {
	status int
	code   string
	step   entitlement.NextStep
	field  string // Polar's sentence is about this one
}

// changeRefusals has them by the class of Polar's error.
//
// Source: https://polar.sh/docs/api-reference/2026-10/customer-portal/subscriptions/update-subscription
// and, for what that does not list (the 400s, the 410 and the settings), Polar's
// server, subscription/service.py and customer_portal/service/subscription.py.
var changeRefusals = map[string]changeRefusal{
	"PaymentFailed":               {http.StatusPaymentRequired, codePaymentFailed, entitlement.StepPortal, ""},
	"PaymentActionRequired":       {http.StatusPaymentRequired, codePaymentFailed, entitlement.StepPortal, ""}, // by the bank
	"PaymentMethodRequired":       {http.StatusConflict, codePaymentMethod, entitlement.StepPortal, ""},
	"SubscriptionLocked":          {http.StatusConflict, codeLocked, entitlement.StepWait, ""},
	"AlreadyCanceledSubscription": {http.StatusConflict, codeAlreadyCanceled, entitlement.StepPortal, ""},
	// Only taking a cancellation back is a bad request: there is none.
	"BadRequest":                        {http.StatusConflict, codeNotCanceled, "", ""},
	"SubscriptionNotScheduledToCancel":  {http.StatusConflict, codeNotCanceled, "", ""},
	"ResourceNotFound":                  {http.StatusNotFound, codeUnknownSubscription, "", ""},
	"ResourceUnavailable":               {http.StatusNotFound, codeUnknownSubscription, "", ""}, // it has ended
	"NotPermitted":                      {http.StatusForbidden, codeNotManager, entitlement.StepContact, ""},
	"UpdateSubscriptionPlanNotAllowed":  {http.StatusForbidden, codeChangeRefused, entitlement.StepContact, ""},
	"UpdateSubscriptionSeatsNotAllowed": {http.StatusForbidden, codeChangeRefused, entitlement.StepContact, ""},
	"NotASeatBasedSubscription":         {http.StatusConflict, codeNotBySeats, "", ""},
	"SeatsAlreadyAssigned":              {http.StatusConflict, codeSeatsAssigned, entitlement.StepPortal, "seats"},
	"BelowMinimumSeats":                 {http.StatusUnprocessableEntity, codeSeatsRange, "", "seats"},
	"AboveMaximumSeats":                 {http.StatusUnprocessableEntity, codeSeatsRange, "", "seats"},
}

func (c changeRefusal) problem(portal string, failure *polar.APIError) *problem {
	p := newProblem(c.status, c.code)
	if p.NextStep = c.step; c.step == entitlement.StepPortal {
		p.PortalURL = portal
	}
	if c.field != "" {
		p.Fields = []fieldView{{c.field, failure.Detail}}
	}
	return p
}

// requestProblem is what is wrong with a request, or nil.
func (g *Gateway) requestProblem(r *http.Request, v *visit, err error) *problem {
	var obstacle *gateway.ObstacleError
	var tooMany *gateway.TooManyError
	switch {
	case errors.As(err, &obstacle):
		p := newProblem(http.StatusConflict, string(obstacle.Obstacle))
		p.NextStep = obstacle.NextStep
		if !obstacle.Obstacle.Warning() {
			p.PortalURL = v.base(r) + "/portal"
		}
		if end := obstacle.Until; obstacle.Obstacle == entitlement.ObstaclePass && !end.IsZero() {
			p.Until = viewTime(end)
			p.Detail = "A pass gives you this until " + end.UTC().Format("2 January 2006, 15:04 MST") + ". You can buy it all the same."
		}
		return p
	case errors.As(err, &tooMany):
		return newProblem(http.StatusTooManyRequests, codeTooMany).after(tooMany.RetryAfter)
	case errors.Is(err, gateway.ErrNotConfigured):
		return newProblem(http.StatusServiceUnavailable, codeNotConfigured).with("The gateway has no access_token.")
	case errors.Is(err, gateway.ErrUnknownProduct):
		return newProblem(http.StatusNotFound, codeUnknownProduct)
	case errors.Is(err, gateway.ErrUnknownPlan):
		return newProblem(http.StatusNotFound, codeUnknownPlan)
	case errors.Is(err, gateway.ErrNoSubscription):
		return newProblem(http.StatusNotFound, codeUnknownSubscription)
	case errors.Is(err, gateway.ErrSeveral):
		return newProblem(http.StatusBadRequest, codeSeveral)
	case errors.Is(err, gateway.ErrSeveralTeams):
		return newProblem(http.StatusConflict, codeSeveralTeams)
	case errors.Is(err, gateway.ErrNoCustomer):
		return newProblem(http.StatusNotFound, codeNoCustomer)
	case errors.Is(err, gateway.ErrEmailTaken):
		return newProblem(http.StatusConflict, codeEmailTaken)
	case errors.Is(err, gateway.ErrNotLinked):
		return newProblem(http.StatusConflict, codeNotLinked)
	}
	return seatProblem(err)
}

// ourField is a field of Polar's input by the name that our clients know:
// customerEmail for body.customer_email.
func ourField(theirs string) string {
	words := strings.Split(strings.TrimPrefix(theirs, "body."), "_")
	for i, word := range words[1:] {
		if word != "" {
			words[i+1] = strings.ToUpper(word[:1]) + word[1:]
		}
	}
	return strings.Join(words, "")
}

package caddypolar

import (
	"net/http"
	"net/url"

	"github.com/caddy-polar/caddy-polar/entitlement"
)

// guide adds the address of the next step to a refusal, if that step can
// succeed: the routes are served on this site, Polar can be asked, and nothing
// stands in the way. Who may not take it is to ask somebody who may.
func (v *visit) guide(r *http.Request, plans []string, p *problem) {
	if !v.identity.Manages {
		switch p.NextStep {
		case entitlement.StepCheckout, entitlement.StepChange, entitlement.StepPortal:
			p.NextStep = entitlement.StepContact
		}
		return
	}
	if v.routes() == "" || !v.gateway.core.CanAsk() || v.account == nil {
		return
	}
	base, back := v.base(r), ""
	if isNavigation(r) {
		back = originalURL(r)
	}
	if p.NextStep == entitlement.StepCheckout || p.NextStep == entitlement.StepChange {
		p.CheckoutURL = v.checkoutFor(base, back, plans, p)
	}
	if v.account.OwnCustomer() == "" {
		return
	}
	switch p.NextStep {
	case entitlement.StepPortal:
		p.PortalURL = withReturn(base+"/portal", back)
	case entitlement.StepChange:
		p.ChangeURL, p.changes = withReturn(base+"/portal", back), true
	}
}

// base is the absolute address of the routes.
func (v *visit) base(r *http.Request) string { return originOf(r) + v.routes() }

// checkoutFor is the address of a checkout for the first of the plans that
// sells something, unless the user has something that stands in its way.
func (v *visit) checkoutFor(base, back string, plans []string, p *problem) string {
	core := v.gateway.core
	for _, plan := range plans {
		products, err := core.PlanProducts(plan)
		if err != nil {
			continue
		}
		if step, blocked := core.Blocked(v.account, products); blocked {
			p.NextStep = step
			return ""
		}
		p.NextStep, p.offered = entitlement.StepCheckout, plan // a subscription need not be in the way of it
		address := base + "/checkout?plan=" + plan
		if back != "" {
			address += "&return_to=" + url.QueryEscape(back)
		}
		return address
	}
	return ""
}

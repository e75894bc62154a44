package caddypolar

import (
	"net/http"
	"net/url"

	"github.com/caddy-polar/caddy-polar/entitlement"
)

// guide adds the address of the next step to a refusal, if that step can
// succeed: the routes are served on this site, Polar can be asked, and nothing
// stands in the way.
func (v *visit) guide(r *http.Request, plans []string, p *problem) {
	site := v.state.site
	if site == nil || site.gateway != v.gateway || !v.gateway.core.CanAsk() || v.account == nil {
		return
	}
	base := originOf(r) + v.state.sitePath
	back := ""
	if isNavigation(r) {
		back = originalURL(r)
	}
	switch p.NextStep {
	case entitlement.StepCheckout:
		p.CheckoutURL = v.checkoutFor(base, back, plans, p)
		v.checkout = p.CheckoutURL
	case entitlement.StepChange:
		if v.account.OwnCustomer() != "" {
			p.ChangeURL = withReturn(base+"/portal", back)
		}
	}
	if p.NextStep == entitlement.StepPortal && v.account.OwnCustomer() != "" {
		p.PortalURL = withReturn(base+"/portal", back)
	}
}

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
		address := base + "/checkout?plan=" + plan
		if back != "" {
			address += "&return_to=" + url.QueryEscape(back)
		}
		return address
	}
	return ""
}

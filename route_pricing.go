package caddypolar

import (
	"context"
	"net/http"
	"net/url"
	"slices"

	"github.com/caddy-polar/caddy-polar/entitlement"
	"github.com/caddy-polar/caddy-polar/gateway"
	"github.com/caddy-polar/caddy-polar/pages"
)

// servePricing shows what the plans sell, and what of it the visitor has.
func (g *Gateway) servePricing(w http.ResponseWriter, r *http.Request, v *visit) error {
	back, ok := g.returnAddress(r, r.URL.Query().Get("return_to"))
	if !ok {
		return badReturn("return_to").page(w, r, v)
	}
	ctx, cancel := context.WithTimeout(r.Context(), providerTime)
	defer cancel()
	offers, err := g.core.Products(ctx)
	if err != nil {
		return g.providerProblem(r, v, err).page(w, r, v)
	}
	addVary(w.Header(), g.vary)
	known := v.notice(r) == nil && v.gather() && v.load()
	page := new(pages.Pricing)
	var mine []string
	if known {
		page.Account = v.routes() + "/account"
		mine = v.products()
		if v.isDue() && v.account.OwnCustomer() != "" && v.identity.Manages {
			page.Due = &pages.Link{Label: "payment", URL: withReturn(v.routes()+"/portal", v.routes()+"/account")}
		}
	}
	for i := range offers {
		o := &offers[i]
		offer := offerPage(o)
		offer.Plan = soleName(offers, o)
		offer.Yours = slices.Contains(mine, o.ID)
		if !offer.Yours && !o.Public() {
			continue
		}
		offer.Next = v.buyLink(o, &offer, known, back)
		page.Offers = append(page.Offers, offer)
	}
	return v.show(w, r, http.StatusOK, page)
}

// isDue says whether a subscription waits for its payment.
func (v *visit) isDue() bool {
	for s := range v.account.CurrentSubscriptions() {
		if s.Status == entitlement.StatusPastDue {
			return true
		}
	}
	return false
}

// products are those that the visitor has.
func (v *visit) products() []string {
	mine, _ := v.account.Open(v.gateway.core.Rules(), v.now)
	for s := range v.account.CurrentSubscriptions() {
		if s.Status != entitlement.StatusIncomplete {
			mine = append(mine, s.ProductID)
		}
	}
	return mine
}

// soleName is the plan by whose name a product can go: one that nothing else sells.
func soleName(offers []gateway.Offer, o *gateway.Offer) string {
	if len(o.Plans) == 0 {
		return ""
	}
	plan := o.Plans[0]
	for i := range offers {
		if offers[i].ID != o.ID && slices.Contains(offers[i].Plans, plan) {
			return ""
		}
	}
	return plan
}

// buyLink is where a product can be had by this visitor, or nil.
func (v *visit) buyLink(o *gateway.Offer, offer *pages.Offer, known bool, back string) *pages.Link {
	account := &pages.Link{Label: "account", URL: v.routes() + "/account"}
	switch {
	case offer.Yours:
		return account
	case !v.mayBuy():
		return nil
	}
	if known {
		switch step, blocked := v.gateway.core.Blocked(v.account, []string{o.ID}); {
		case !blocked:
		case step == entitlement.StepChange && v.account.OwnCustomer() != "":
			return v.changeLink(back)
		default:
			return account
		}
	}
	address := v.routes() + "/checkout?products=" + url.QueryEscape(o.ID)
	if back != "" {
		address += "&return_to=" + url.QueryEscape(back)
	}
	return &pages.Link{Label: "buy", Name: offer.Name, Plan: offer.Plan, URL: address}
}

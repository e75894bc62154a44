package caddypolar

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/caddy-polar/caddy-polar/entitlement"
	"github.com/caddy-polar/caddy-polar/gateway"
	"github.com/caddy-polar/caddy-polar/pages"
	"github.com/caddy-polar/caddy-polar/polar"
)

// Page is how the gateway's own pages look.
type Page struct {
	// Name of the site. Default: the host that the visitor asked.
	Name string `json:"name,omitempty"`

	// Logo is the path of an SVG, PNG, JPEG, GIF or WebP file of at most 6 KiB: it
	// stands in each page, as pages load nothing.
	Logo string `json:"logo,omitempty"`

	// Color is that of buttons, as rgb or rrggbb, with or without #. Their text is black
	// or white, whichever is read better. Default: 1f4fd8.
	Color string `json:"color,omitempty"`

	// Texts is the path of a JSON file with words of your own, by language:
	// {"en": {"account.title": "Your account"}, "de": {…}}.
	Texts string `json:"texts,omitempty"`
}

// resolvePages makes the pages.
func (g *Gateway) resolvePages(*gateway.Config) error {
	var b pages.Brand
	if p := g.Page; p != nil {
		for _, word := range []struct {
			what, from string
			to         *string
		}{{"page: name", p.Name, &b.Name}, {"page: logo", p.Logo, &b.Logo}, {"page: color", p.Color, &b.Color}, {"page: texts", p.Texts, &b.Texts}} {
			if word.from == "" {
				continue
			}
			var err error
			if *word.to, err = expand(word.what, word.from); err != nil {
				return err
			}
		}
	}
	var err error
	if g.pages, err = pages.New(b); err != nil {
		return fmt.Errorf("page: %w", err)
	}
	return nil
}

// show answers with one of the pages.
func (v *visit) show(w http.ResponseWriter, r *http.Request, status int, p pages.Page) error {
	addVary(w.Header(), "Accept-Language")
	return v.gateway.pages.Write(w, r, status, v.now, p)
}

// page answers a browser with a page about a problem.
func (p *problem) page(w http.ResponseWriter, r *http.Request, v *visit) error {
	p.head(w.Header())
	p.RequestID = requestID(r)
	return v.show(w, r, p.Status, v.refusalPage(r, p))
}

// refusalPage is what somebody reads who does not get what they asked for.
func (v *visit) refusalPage(r *http.Request, p *problem) *pages.Refusal {
	page := &pages.Refusal{
		Code: p.Code, Text: p.text, Title: p.Title, Detail: p.Detail, Until: p.ended, LastChance: v.lastChance(p), RequestID: p.RequestID,
		Next: v.nextLink(r, p),
	}
	for _, f := range p.Fields {
		page.Fields = append(page.Fields, pages.Field{Name: f.Field, Message: f.Message})
	}
	switch entitlement.Reason(p.Code) {
	case entitlement.ReasonPastDue, entitlement.ReasonUnpaid, entitlement.ReasonPaused:
		page.Elsewhere = page.Next == nil && v.account != nil && (!v.identity.Manages || v.account.OwnCustomer() == "")
	}
	if p.offered != "" {
		page.Offers = v.offersOf(p.offered)
		if len(page.Offers) == 1 && page.Next != nil && page.Next.Label == "checkout" {
			page.Next.Label, page.Next.Name = "buy", page.Offers[0].Name
		}
	}
	if v.routes() != "" && v.gateway.core.CanAsk() && p.Status < http.StatusInternalServerError {
		if known := v.identified && v.anonymous == nil; known && v.account != nil && v.account.Known() {
			page.Others = append(page.Others, pages.Link{Label: "account", URL: v.routes() + "/account"})
		}
		if v.mayBuy() {
			page.Others = append(page.Others, pages.Link{Label: "plans", URL: withReturn(v.routes()+"/pricing", v.wayBack(r))})
		}
	}
	return page
}

// mayBuy says whether plans are of any use to who asks.
func (v *visit) mayBuy() bool { return v.anonymous != nil || !v.identified || v.identity.Manages }

// wayBack is the address that a visitor comes back to after they have bought, or
// empty: our own routes are no place to come back to.
func (v *visit) wayBack(r *http.Request) string {
	if !isNavigation(r) || v.routes() != "" && strings.HasPrefix(r.URL.Path, v.routes()+"/") {
		return ""
	}
	return originalURL(r)
}

// here is an address of this site without its scheme and host: behind a proxy that
// nobody trusts we know neither for certain, and a browser does.
func here(r *http.Request, address string) string {
	if path, ok := strings.CutPrefix(address, originOf(r)); ok && strings.HasPrefix(path, "/") && !strings.HasPrefix(path, "//") {
		return path
	}
	return address
}

// nextLink is the way on from a problem.
func (v *visit) nextLink(r *http.Request, p *problem) *pages.Link {
	switch p.NextStep {
	case entitlement.StepLogin:
		if login := v.gateway.loginURL; login != "" {
			return &pages.Link{Label: "login", URL: fillAddress(login, r, p)}
		}
	case entitlement.StepWait:
		if isNavigation(r) {
			return &pages.Link{Label: "retry"} // this page itself
		}
	case entitlement.StepCheckout:
		switch {
		case p.CheckoutURL == "":
		case entitlement.Obstacle(p.Code).Warning():
			return &pages.Link{Label: "anyway", URL: here(r, p.CheckoutURL)}
		default:
			return &pages.Link{Label: "checkout", URL: here(r, p.CheckoutURL)}
		}
	case entitlement.StepPortal:
		if p.PortalURL != "" {
			return &pages.Link{Label: portalLabel(p.Code), URL: here(r, p.PortalURL)}
		}
	case entitlement.StepChange:
		if p.changes {
			return v.changeLink(v.wayBack(r))
		}
	}
	return nil
}

// changeLink leads to where a plan is changed, and back.
func (v *visit) changeLink(back string) *pages.Link {
	address := v.routes() + "/account?change=1"
	if back != "" {
		address += "&return_to=" + url.QueryEscape(back)
	}
	return &pages.Link{Label: "change", URL: address + "#change"}
}

// portalLabel is what somebody goes to the portal for.
func portalLabel(code string) string {
	switch code {
	case string(entitlement.ReasonPastDue), string(entitlement.ReasonUnpaid), codePaymentDue, codePaymentFailed, codePaymentMethod:
		return "payment"
	case string(entitlement.ReasonPaused):
		return "resume"
	}
	return "portal"
}

// lastChance is when Polar no longer tries to be paid, if that is what is wrong.
func (v *visit) lastChance(p *problem) (t time.Time) {
	if p.Code != string(entitlement.ReasonPastDue) && p.Code != codePaymentDue || v.account == nil {
		return t
	}
	for s := range v.account.CurrentSubscriptions() {
		if end := s.LastChance(); s.Status == entitlement.StatusPastDue && (t.IsZero() || end.Before(t)) {
			t = end
		}
	}
	return t
}

// offersOf are what the catalog, as it was last read, has for a plan. Nobody waits
// for Polar to be refused.
func (v *visit) offersOf(plan string) (list []pages.Offer) {
	for _, o := range v.gateway.core.Shelf() {
		if o.Public() && slices.Contains(o.Plans, plan) {
			list = append(list, offerPage(&o))
		}
	}
	return list
}

func offerPage(o *gateway.Offer) pages.Offer {
	p := pages.Offer{
		Name: o.Name, Description: o.Description,
		Every: pages.Interval{Unit: o.RecurringInterval, Count: o.RecurringIntervalCount},
		Trial: pages.Interval{Unit: o.TrialInterval, Count: o.TrialIntervalCount},
	}
	for i := range o.Prices {
		if price := &o.Prices[i]; !price.IsArchived {
			p.Prices = append(p.Prices, pricePage(price))
		}
	}
	for _, b := range o.Benefits {
		p.Benefits = append(p.Benefits, b.Description)
	}
	return p
}

func pricePage(p *polar.Price) pages.Price {
	view := pages.Price{Kind: p.AmountType, Currency: p.Currency, Unit: p.UnitAmount}
	switch {
	case p.Amount != nil:
		view.Amount = *p.Amount
	case p.MinimumAmount != nil:
		view.Amount = *p.MinimumAmount
	}
	if p.SeatTiers != nil {
		for _, t := range p.SeatTiers.Tiers {
			view.Seats = append(view.Seats, t.PricePerSeat)
		}
	}
	return view
}

// fillAddress puts the request into an address that the operator has given.
func fillAddress(address string, r *http.Request, p *problem) string {
	return strings.NewReplacer(returnTo, url.QueryEscape(originalURL(r)), reasonHole, url.QueryEscape(p.Code)).Replace(address)
}

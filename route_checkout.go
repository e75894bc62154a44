package caddypolar

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/caddy-polar/caddy-polar/entitlement"
	"github.com/caddy-polar/caddy-polar/gateway"
	"github.com/caddy-polar/caddy-polar/pages"
)

// checkoutBody is what POST /checkout takes. Anything else in it is ignored:
// discounts, prices and metadata are not for the client to choose.
type checkoutBody struct {
	ProductID     string   `json:"productId"`
	Products      []string `json:"products"`
	Plan          string   `json:"plan"`
	SuccessURL    string   `json:"successUrl"`
	ReturnURL     string   `json:"returnUrl"`
	CustomerEmail string   `json:"customerEmail"`
	Locale        string   `json:"locale"`
	Seats         int      `json:"seats"`
}

// serveCheckout opens a checkout: POST answers with its address, GET goes
// there.
func (g *Gateway) serveCheckout(w http.ResponseWriter, r *http.Request, v *visit) error {
	body, p := readCheckout(w, r)
	if p != nil {
		return p.answer(w, r, v)
	}
	purchase, p := g.purchase(r, v, body)
	if p != nil {
		return p.answer(w, r, v)
	}
	ctx, cancel := context.WithTimeout(r.Context(), providerTime)
	defer cancel()
	checkout, err := g.core.OpenCheckout(ctx, v.visitor(r), purchase)
	if err != nil {
		p := g.providerProblem(r, v, err)
		if entitlement.Obstacle(p.Code).Warning() {
			p.CheckoutURL = v.base(r) + "/checkout?" + body.anyway()
		}
		if next := p.PortalURL; next != "" && r.Method == http.MethodGet {
			return redirect(w, r, withReturn(next, purchase.ReturnTo))
		}
		return p.answer(w, r, v)
	}
	if r.Method == http.MethodGet {
		return redirect(w, r, string(checkout.URL))
	}
	return writeJSON(w, http.StatusOK, "application/json",
		map[string]string{"url": string(checkout.URL), "id": checkout.ID})
}

func readCheckout(w http.ResponseWriter, r *http.Request) (body checkoutBody, p *problem) {
	if r.Method == http.MethodPost {
		p = readBody(w, r, &body)
		return body, p
	}
	q := r.URL.Query()
	body = checkoutBody{
		ProductID: q.Get("productId"), Plan: q.Get("plan"), SuccessURL: q.Get("return_to"), Locale: q.Get("locale"),
		CustomerEmail: q.Get("customerEmail"),
	}
	for _, list := range q["products"] {
		body.Products = append(body.Products, strings.Split(list, ",")...)
	}
	if seats := q.Get("seats"); seats != "" {
		n, err := strconv.Atoi(seats)
		if err != nil {
			return body, newProblem(http.StatusBadRequest, codeBadBody).with("seats must be a number.")
		}
		body.Seats = n
	}
	return body, nil
}

// anyway is the query of a checkout for the same, by somebody who has been told
// of their pass or seat. An e-mail has no place in an address.
func (b *checkoutBody) anyway() string {
	q := url.Values{"anyway": {"1"}}
	for name, value := range map[string]string{
		"productId": b.ProductID, "products": strings.Join(b.Products, ","), "plan": b.Plan, "return_to": b.SuccessURL, "locale": b.Locale,
	} {
		if value != "" {
			q.Set(name, value)
		}
	}
	if b.Seats != 0 {
		q.Set("seats", strconv.Itoa(b.Seats))
	}
	return q.Encode()
}

// purchase checks what the client wants to buy and where they want to go.
func (g *Gateway) purchase(r *http.Request, v *visit, body checkoutBody) (gateway.Purchase, *problem) {
	purchase := gateway.Purchase{
		Products: body.Products, Email: body.CustomerEmail, Locale: body.Locale, Seats: body.Seats,
		Success: v.base(r) + "/success", Anyway: r.URL.Query().Get("anyway") == "1",
	}
	named := 0
	for _, given := range []bool{body.ProductID != "", len(body.Products) > 0, body.Plan != ""} {
		if given {
			named++
		}
	}
	switch {
	case named == 0:
		return purchase, newProblem(http.StatusBadRequest, codeBadBody).
			with("Say what to buy: productId, products or plan.").naming("productId is required")
	case named > 1:
		return purchase, newProblem(http.StatusBadRequest, codeBadBody).
			with("Say what to buy in one way: productId, products or plan.")
	case body.ProductID != "":
		purchase.Products = []string{body.ProductID}
	case body.Plan != "":
		var err error
		if purchase.Products, err = g.core.PlanProducts(body.Plan); err != nil {
			return purchase, g.providerProblem(r, v, err)
		}
	}
	var ok bool
	if purchase.ReturnTo, ok = g.returnAddress(r, body.SuccessURL); !ok {
		return purchase, badReturn("successUrl")
	}
	if purchase.Back, ok = g.returnAddress(r, body.ReturnURL); !ok {
		return purchase, badReturn("returnUrl")
	}
	if purchase.Back == "" {
		purchase.Back = purchase.ReturnTo
	}
	return purchase, nil
}

func badReturn(field string) *problem {
	if field == "successUrl" {
		field = "successUrl (return_to)"
	}
	return newProblem(http.StatusBadRequest, codeBadReturn).
		with(field + " must lead to this site or to a host that return_to allows.")
}

// visitor is what the token and the connection say about who asks.
func (v *visit) visitor(r *http.Request) gateway.Visitor {
	visitor := v.claims()
	visitor.IP = clientIP(r)
	return visitor
}

// redirect sends a visitor on.
func redirect(w http.ResponseWriter, r *http.Request, to string) error {
	http.Redirect(w, r, to, http.StatusSeeOther)
	return nil
}

// withReturn adds where to come back to.
func withReturn(address, back string) string {
	if back == "" {
		return address
	}
	return address + "?return_to=" + url.QueryEscape(back)
}

// maxTries is how often the page of a buyer who waits asks again by itself.
const maxTries = 30

// serveSuccess is where Polar sends a buyer back. The request comes from
// Polar's site, so cookies that are strict are not with it: the state says who
// it is, and the page goes on by itself, from here, so that they come along.
func (g *Gateway) serveSuccess(w http.ResponseWriter, r *http.Request, v *visit) error {
	q := r.URL.Query()
	back, err := g.core.ReadState(q.Get("state"))
	if err != nil {
		return redirect(w, r, "/")
	}
	checkout := q.Get("checkout_id")
	page := &pages.Waiting{To: orDefault(back.To, "/"), Events: v.routes() + "/events"}
	if g.core.Arrive(r.Context(), back, checkout) == gateway.ArrivedPending {
		tries, _ := strconv.Atoi(q.Get("try"))
		page.Pending = true
		if tries < maxTries {
			again := func(try int) string {
				query := url.Values{"state": {q.Get("state")}, "checkout_id": {checkout}, "try": {strconv.Itoa(try)}}
				return v.routes() + "/success?" + query.Encode()
			}
			page.Again, page.Last = again(max(tries, 0)+1), again(maxTries)
		}
	}
	return v.show(w, r, http.StatusOK, page)
}

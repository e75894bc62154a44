package box

import (
	"embed"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

//go:embed pages/*.html
var pageFiles embed.FS

var pageTemplates = template.Must(template.New("").Funcs(template.FuncMap{
	"money": func(amount int, currency string) string {
		return fmt.Sprintf("%d.%02d %s", amount/100, amount%100, strings.ToUpper(currency))
	},
	"day": func(t time.Time) string { return t.Format("2 January 2006 15:04 MST") },
}).ParseFS(pageFiles, "pages/*.html"))

// servePage serves the hosted checkout and the portal.
func (b *Box) servePage(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Referrer-Policy", "no-referrer") // the URLs hold secrets
	h.Set("Cache-Control", "no-store")
	// No form-action: browsers apply it to the redirect to the success URL too.
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'")
	path := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	switch {
	case r.Method != http.MethodGet && r.Method != http.MethodHead && r.Method != http.MethodPost:
		w.WriteHeader(http.StatusMethodNotAllowed)
	case len(path) == 2 && path[0] == "checkout":
		b.checkoutPage(w, r, path[1])
	case len(path) == 3 && path[0] == "checkout" && path[2] == "confirmation":
		b.confirmationPage(w, path[1])
	case len(path) == 2 && path[0] == b.org.Slug && path[1] == "portal":
		b.portalPage(w, r)
	default:
		http.NotFound(w, r)
	}
}

func show(w http.ResponseWriter, status int, name string, data any) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_ = pageTemplates.ExecuteTemplate(w, name, data)
}

func sorry(w http.ResponseWriter, status int, text string) {
	show(w, status, "message.html", map[string]any{"Title": "Polar in a box", "Text": text})
}

func (b *Box) checkoutBySecret(secret string) (Checkout, Product, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	c, ok := b.checkouts.get(b.secrets[secret])
	if !ok {
		return c, Product{}, false
	}
	p, _ := b.products.get(c.ProductIDs[0])
	return c, p, true
}

func (b *Box) checkoutPage(w http.ResponseWriter, r *http.Request, secret string) {
	c, p, ok := b.checkoutBySecret(secret)
	switch {
	case !ok:
		sorry(w, http.StatusNotFound, "There is no such checkout.")
		return
	case c.Status == "expired":
		sorry(w, http.StatusGone, "This checkout has expired.")
		return
	case c.Status == "succeeded":
		b.confirmationPage(w, secret)
		return
	}
	status, problem := http.StatusOK, ""
	if r.Method == http.MethodPost {
		r.Body = http.MaxBytesReader(w, r.Body, 1<<16)
		seats, _ := strconv.Atoi(r.PostFormValue("seats"))
		paid, err := b.Confirm(c.ID, Payment{
			Email: strings.TrimSpace(r.PostFormValue("email")), Name: strings.TrimSpace(r.PostFormValue("name")), Declined: r.PostFormValue("card") == "declined",
			Seats: seats,
		})
		if err == nil {
			b.afterPayment(w, r, &paid)
			return
		}
		status, problem = refusalText(err)
	}
	b.mu.Lock()
	net, organization := b.checkoutNet(&c, &p), b.org.Name
	b.mu.Unlock()
	show(w, status, "checkout.html", map[string]any{
		"Checkout": c, "Product": p, "Problem": problem, "Trial": c.AllowTrial && p.TrialInterval != "", "Organization": organization,
		"Net": net, "Tax": taxOf(net), "Total": net + taxOf(net),
	})
}

func refusalText(err error) (int, string) {
	var e *Error
	if !errors.As(err, &e) {
		return http.StatusInternalServerError, "Something went wrong."
	}
	if len(e.Issues) > 0 {
		return e.Status, e.Issues[0].Msg
	}
	return e.Status, e.Detail
}

// How long Polar's page waits for the delivery of checkout.updated.
const (
	confirmWait = 15 * time.Second
	confirmStep = 300 * time.Millisecond
)

// afterPayment waits until checkout.updated was answered with 2xx, and then
// sends the buyer to the success URL. If it takes too long, or the merchant
// wants no redirect, the box has a confirmation page.
func (b *Box) afterPayment(w http.ResponseWriter, r *http.Request, c *Checkout) {
	if !b.waitDelivered(r, c.ID) {
		http.Redirect(w, r, "/checkout/"+c.ClientSecret+"/confirmation", http.StatusSeeOther)
		return
	}
	to, err := url.Parse(c.SuccessURL)
	if err != nil {
		sorry(w, http.StatusInternalServerError, "The success URL is malformed.")
		return
	}
	b.mu.Lock()
	token := b.newSession(c.CustomerID, "").token
	b.mu.Unlock()
	if to.RawQuery != "" {
		to.RawQuery += "&"
	}
	to.RawQuery += "customer_session_token=" + token
	http.Redirect(w, r, to.String(), http.StatusSeeOther)
}

// waitDelivered waits by the box's clock: it moves a clock that stands still.
func (b *Box) waitDelivered(r *http.Request, checkoutID string) bool {
	for end := b.Now().Add(confirmWait); b.Now().Before(end); {
		if b.delivered(checkoutID) {
			return true
		}
		if !b.options.Realtime {
			b.Advance(confirmStep)
			continue
		}
		select {
		case <-r.Context().Done():
			return false
		case <-time.After(confirmStep / 30):
		}
	}
	return b.delivered(checkoutID)
}

// delivered says whether every event about a checkout has been answered with
// 2xx by the endpoints that want it.
func (b *Box) delivered(checkoutID string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range b.delivery.checkouts[checkoutID] {
		if e.endpoint.Enabled && !e.endpoint.deleted && (e.lastCode < 200 || e.lastCode > 299) {
			return false
		}
	}
	return true
}

func (b *Box) confirmationPage(w http.ResponseWriter, secret string) {
	c, p, ok := b.checkoutBySecret(secret)
	if !ok || c.Status != "succeeded" {
		sorry(w, http.StatusNotFound, "There is no such order.")
		return
	}
	sorry(w, http.StatusOK, "Thank you for buying "+p.Name+". Your order is confirmed.")
}

package caddypolar

import (
	"crypto/rand"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"html/template"
	"net/http"

	"github.com/caddy-polar/caddy-polar/entitlement"
)

//go:embed pages
var pageFiles embed.FS

// style is the one style sheet of all pages. It stands in the page, and the
// policy names it by its digest.
var style, styleDigest = readStyle()

var pages = template.Must(template.New("").Funcs(template.FuncMap{
	"style": func() template.CSS { return style },
}).ParseFS(pageFiles, "pages/*.html"))

func readStyle() (template.CSS, string) {
	raw, err := pageFiles.ReadFile("pages/style.css")
	if err != nil {
		panic(err) // it is embedded
	}
	sum := sha256.Sum256(raw)
	return template.CSS(raw), "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

// writePage answers with one of our pages, under a policy that lets in nothing
// but what stands in it.
func writePage(w http.ResponseWriter, r *http.Request, status int, name, policy string, data any) error {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src "+styleDigest+
		"; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"+policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	w.WriteHeader(status)
	if r.Method == http.MethodHead {
		return nil
	}
	return pages.ExecuteTemplate(w, name, data)
}

// nextLabels are what the links of the next steps say.
var nextLabels = map[entitlement.NextStep]string{
	entitlement.StepCheckout: "Go to the checkout",
	entitlement.StepChange:   "Change your plan",
	entitlement.StepPortal:   "Manage your subscription",
}

// NextURL is the next step's address, for the page.
func (p *problem) NextURL() string {
	switch p.NextStep {
	case entitlement.StepCheckout:
		return p.CheckoutURL
	case entitlement.StepPortal:
		return p.PortalURL
	case entitlement.StepChange:
		return p.ChangeURL
	}
	return ""
}

// NextLabel is what the link to it says.
func (p *problem) NextLabel() string {
	if entitlement.Obstacle(p.Code).Warning() {
		return "Buy it all the same"
	}
	return nextLabels[p.NextStep]
}

// page answers a browser with a short page.
func (p *problem) page(w http.ResponseWriter, r *http.Request) error {
	p.head(w.Header())
	p.RequestID = requestID(r)
	return writePage(w, r, p.Status, "refusal.html", "", p)
}

// waitingPage is what a buyer sees who comes back from the checkout.
type waitingPage struct {
	To      string // where they want to go
	Waiting bool   // what was bought is not open yet
	Again   string // where the page asks once more; empty: it has given up
	Events  string
	Nonce   string
}

func (p *waitingPage) write(w http.ResponseWriter, r *http.Request) error {
	p.Nonce = rand.Text()
	return writePage(w, r, http.StatusOK, "waiting.html",
		"; script-src 'nonce-"+p.Nonce+"'; connect-src 'self'", p)
}

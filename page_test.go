package caddypolar

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/caddy-polar/caddy-polar/entitlement"
)

const hostile = `"><script>alert(1)</script>`

func TestPagesEscape(t *testing.T) {
	r := httptest.NewRequest(http.MethodGet, "http://localhost/pro/", nil)
	p := newProblem(http.StatusPaymentRequired, string(entitlement.ReasonNoSubscription)).with(hostile)
	p.NextStep, p.CheckoutURL = entitlement.StepCheckout, "http://localhost/auth/polar/checkout?plan=pro&return_to="+hostile
	waiting := waitingPage{To: "http://localhost/" + hostile, Waiting: true, Again: "/again?x=" + hostile, Events: "/events" + hostile}
	done := waitingPage{To: "javascript:alert(1)//" + hostile}
	for name, write := range map[string]func(http.ResponseWriter) error{
		"refusal": func(w http.ResponseWriter) error { return p.page(w, r) },
		"waiting": func(w http.ResponseWriter) error { return waiting.write(w, r) },
		"done":    func(w http.ResponseWriter) error { return done.write(w, r) },
	} {
		w := newRecorder()
		if err := write(w); err != nil {
			t.Fatal(err)
		}
		body := w.Body.String()
		if strings.Contains(body, "<script>alert") || strings.Contains(body, `"javascript:`) || strings.Contains(body, "url=javascript:") {
			t.Errorf("%s: %s", name, body)
		}
		policy := w.Header().Get("Content-Security-Policy")
		if !strings.Contains(policy, "default-src 'none'") || strings.Contains(policy, "unsafe") {
			t.Errorf("%s: %s", name, policy)
		}
		if strings.Contains(body, "<style>") && !strings.Contains(policy, styleDigest) {
			t.Errorf("%s: the policy does not let the style in", name)
		}
	}
}

// Scripts run by a nonce that is never the same.
func TestNonces(t *testing.T) {
	seen := map[string]bool{}
	for range 3 {
		w := newRecorder()
		page := waitingPage{To: "/", Waiting: true, Again: "/a", Events: "/e"}
		if err := page.write(w, httptest.NewRequest(http.MethodGet, "http://localhost/", nil)); err != nil {
			t.Fatal(err)
		}
		if len(page.Nonce) < 20 || seen[page.Nonce] || !strings.Contains(w.Body.String(), `nonce="`+page.Nonce+`"`) ||
			!strings.Contains(w.Header().Get("Content-Security-Policy"), "'nonce-"+page.Nonce+"'") {
			t.Errorf("nonce %q: %s", page.Nonce, w.Header().Get("Content-Security-Policy"))
		}
		seen[page.Nonce] = true
	}
}

func TestNextLink(t *testing.T) {
	for _, test := range []struct {
		step entitlement.NextStep
		want string
	}{
		{entitlement.StepCheckout, "/checkout"},
		{entitlement.StepPortal, "/portal"},
		{entitlement.StepChange, "/change"},
		{entitlement.StepWait, ""},
		{entitlement.StepLogin, ""},
	} {
		p := &problem{NextStep: test.step, CheckoutURL: "/checkout", PortalURL: "/portal", ChangeURL: "/change"}
		if got := p.NextURL(); got != test.want {
			t.Errorf("%s: %q", test.step, got)
		}
		if test.want != "" && p.NextLabel() == "" {
			t.Errorf("%s has no words", test.step)
		}
	}
}

package caddypolar

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// newKeyPEM is a key as `openssl genpkey -algorithm ed25519` writes it.
func newKeyPEM(t testing.TB) string {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

const asserting = "\nassertion {\naudience app\n}\n"

// askRoute asks a route of the site.
func askRoute(t *testing.T, h *Handler, method, path string, header http.Header) *httptest.ResponseRecorder {
	t.Helper()
	r := mustRequest(t, "http://localhost"+path)
	r.Method = method
	for name, values := range header {
		r.Header[name] = values
	}
	w := newRecorder()
	if err := h.ServeHTTP(w, prepared(r, w), handlerFunc(noop)); err != nil {
		t.Fatal(err)
	}
	return w
}

// site is a `polar` of the configuration.
func siteOf(t testing.TB, ctx caddy.Context) *Handler {
	t.Helper()
	h := new(Handler)
	if err := h.Provision(ctx); err != nil {
		t.Fatal(err)
	}
	return h
}

// keysOf are the keys as an app fetches them.
func keysOf(t *testing.T, h *Handler) (set jose.JSONWebKeySet) {
	t.Helper()
	w := askRoute(t, h, http.MethodGet, "/auth/polar/jwks.json", nil)
	if err := json.Unmarshal(w.Body.Bytes(), &set); w.Code != http.StatusOK || err != nil {
		t.Fatal(w.Code, err, w.Body)
	}
	return set
}

// asserted are the claims of a request's assertion, verified as an app does.
func asserted(t *testing.T, set jose.JSONWebKeySet, h http.Header, name string) map[string]any {
	t.Helper()
	values := h[name]
	if len(values) != 1 {
		t.Fatalf("%d assertions", len(values))
	}
	token, err := jwt.ParseSigned(values[0], []jose.SignatureAlgorithm{jose.EdDSA})
	if err != nil {
		t.Fatal(err)
	}
	var registered jwt.Claims
	var all map[string]any
	if err := token.Claims(set, &registered, &all); err != nil {
		t.Fatal(err)
	}
	if err := registered.ValidateWithLeeway(jwt.Expected{Issuer: "caddy-polar", AnyAudience: jwt.Audience{"app"}, Time: time.Now()}, 0); err != nil {
		t.Fatal(err)
	}
	return all
}

// told is what the upstream gets of a request by a user, nil if none.
func toldBy(t *testing.T, ctx caddy.Context, user string, handlers ...caddyhttp.MiddlewareHandler) http.Header {
	t.Helper()
	r := mustRequest(t, "http://localhost/x")
	r.Header.Set("X-Polar-Assertion", "forged")
	r.Header["X_polar_assertion"] = []string{"forged"}
	if user != "" {
		r.Header.Set("Authorization", "Bearer "+token(t, user, nil))
	}
	seen, _, err := chain(t, ctx, r, handlers...)
	if err != nil || seen == nil {
		t.Fatal("no request has come through", err)
	}
	return seen.Header
}

// TestAssertion: whoever has a valid token is told of in signed words too, which say
// what the headers do; nobody else is, whatever they send.
func TestAssertion(t *testing.T) {
	app, ctx := provisioned(t, "plan pro "+testProduct+"\nplan other p9"+asserting)
	take(t, app.Gateways["default"], activeNow(t))
	site, gate := siteOf(t, ctx), &Gate{Plans: []string{"pro"}}
	if err := gate.Provision(ctx); err != nil {
		t.Fatal(err)
	}
	set := keysOf(t, site)
	for name, c := range map[string]struct {
		user     string
		handlers []caddyhttp.MiddlewareHandler
	}{
		"no gate":          {testUser, []caddyhttp.MiddlewareHandler{site}},
		"a gate":           {testUser, []caddyhttp.MiddlewareHandler{site, gate}},
		"a gate alone":     {testUser, []caddyhttp.MiddlewareHandler{gate}},
		"a stranger":       {"stranger", []caddyhttp.MiddlewareHandler{site}},
		"a name of blanks": {" zoë 100% ", []caddyhttp.MiddlewareHandler{site}},
	} {
		h := toldBy(t, ctx, c.user, c.handlers...)
		got := asserted(t, set, h, "X-Polar-Assertion")
		if got["sub"] != c.user || got["gateway"] != "default" {
			t.Errorf("%s: %v", name, got)
		}
		for claim, header := range map[string]string{
			"plan": "Plan", "status": "Status", "reason": "Reason", "until": "Until", "customer": "Customer", "external_customer": "External-Customer",
		} {
			if value, _ := got[claim].(string); value != h.Get("X-Polar-"+header) {
				t.Errorf("%s: %s is %q, and the header %q", name, claim, value, h.Get("X-Polar-"+header))
			}
		}
		plans := []any{}
		if all := h.Get("X-Polar-Plans"); all != "" {
			plans = append(plans, all)
		}
		if !slices.Equal(got["plans"].([]any), plans) {
			t.Errorf("%s: plans %v, and the header %v", name, got["plans"], plans)
		}
		if h["X_polar_assertion"] != nil {
			t.Errorf("%s: what the client says has gone through", name)
		}
	}
	if h := toldBy(t, ctx, "", site); h["X-Polar-Assertion"] != nil || h["X_polar_assertion"] != nil {
		t.Error("an anonymous request is told of", h)
	}

	_, without := provisioned(t, "plan pro "+testProduct)
	if h := toldBy(t, without, testUser, siteOf(t, without)); h["X-Polar-Assertion"] != nil {
		t.Error("without an assertion block there is one", h)
	}
}

// TestAssertionOfPayers: who pays stands in it where that can be another.
func TestAssertionOfPayers(t *testing.T) {
	_, ctx := provisionedFrom(t, strings.Replace(globals(t, "plan pro "+testProduct+asserting),
		"jwt secret "+testJWTSecret, "jwt {\nsecret "+testJWTSecret+"\ncustomer_claim org\n}", 1))
	site := siteOf(t, ctx)
	r := mustRequest(t, "http://localhost/x")
	r.Header.Set("Authorization", "Bearer "+token(t, testUser, map[string]any{"org": "acme"}))
	seen, _, err := chain(t, ctx, r, site)
	if err != nil {
		t.Fatal(err)
	}
	if got := asserted(t, keysOf(t, site), seen.Header, "X-Polar-Assertion"); got["external_customer"] != "acme" || got["sub"] != testUser {
		t.Error(got)
	}
}

// TestAssertionFollowsDecisions: no request is told with words that were signed before
// something changed, and none outlives the access that it tells of.
func TestAssertionFollowsDecisions(t *testing.T) {
	bubble(t, func(t *testing.T) {
		app, ctx := provisioned(t, "grace {\nrenewal 0s\n}\nplan pro "+testProduct+asserting)
		g, site := app.Gateways["default"], siteOf(t, ctx)
		set := keysOf(t, site)
		reason := func() any { return asserted(t, set, toldBy(t, ctx, testUser, site), "X-Polar-Assertion")["reason"] }
		if got := reason(); got != "no_subscription" {
			t.Error(got)
		}
		end := time.Now().Add(100 * time.Second)
		take(t, g, subscribed(t, "subscription.active", end))
		for time.Now().Before(end) {
			claims := asserted(t, set, toldBy(t, ctx, testUser, site), "X-Polar-Assertion")
			exp := time.Unix(int64(claims["exp"].(float64)), 0)
			if claims["reason"] != "active" || exp.After(end) || time.Until(exp) <= 30*time.Second && !exp.Equal(end) {
				t.Errorf("%v before the end: %v, and it lives for %v", time.Until(end), claims["reason"], time.Until(exp))
			}
			time.Sleep(7 * time.Second)
		}
		if got := reason(); got == "active" {
			t.Error("after the end it is still told")
		}
		take(t, g, subscribed(t, "subscription.active", time.Now().Add(time.Hour)))
		if got := reason(); got != "active" {
			t.Error(got)
		}
		time.Sleep(time.Second)
		take(t, g, subscribed(t, "subscription.revoked", time.Now().Add(time.Hour)))
		if got := reason(); got == "active" {
			t.Error("who was revoked a moment ago is told of as active")
		}
	})
}

func TestJWKSRoute(t *testing.T) {
	_, ctx := provisioned(t, "plan pro "+testProduct+asserting)
	site := siteOf(t, ctx)
	for method, want := range map[string]int{
		http.MethodGet: http.StatusOK, http.MethodHead: http.StatusOK, http.MethodOptions: http.StatusNoContent,
		http.MethodPost: http.StatusMethodNotAllowed, http.MethodDelete: http.StatusMethodNotAllowed,
	} {
		w := askRoute(t, site, method, "/auth/polar/jwks.json", nil)
		if w.Code != want {
			t.Errorf("%s: %d, want %d", method, w.Code, want)
		}
		cached := w.Header().Get("Cache-Control") == "public, max-age=300"
		if cached != (want == http.StatusOK) {
			t.Errorf("%s: Cache-Control is %q", method, w.Header().Get("Cache-Control"))
		}
		if want == http.StatusOK && (w.Header().Get("Content-Type") != "application/json" || w.Header().Get("Vary") != "") {
			t.Errorf("%s: %v", method, w.Header())
		}
	}
	_, without := provisioned(t, "plan pro "+testProduct)
	if w := askRoute(t, siteOf(t, without), http.MethodGet, "/auth/polar/jwks.json", nil); w.Code != http.StatusNotFound {
		t.Error("without an assertion block:", w.Code)
	}
}

// TestAssertionKeyFiles: the first key signs and all are published, and other names for
// issuer, prefix and header hold.
func TestAssertionKeyFiles(t *testing.T) {
	file := filepath.Join(t.TempDir(), "assertion.pem")
	if err := os.WriteFile(file, []byte(newKeyPEM(t)), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("NEXT", newKeyPEM(t))
	kids := func(keys string) (signs string, all []string) {
		_, ctx := provisioned(t, "plan pro "+testProduct+"\nheaders X-Gate- Assertion\nassertion {\naudience app\nkey "+keys+"\n}")
		site := siteOf(t, ctx)
		set := keysOf(t, site)
		for _, k := range set.Keys {
			all = append(all, k.KeyID)
		}
		h := toldBy(t, ctx, testUser, site)
		if asserted(t, set, h, "X-Gate-Assertion")["sub"] != testUser || h["X-Gate-User"] != nil {
			t.Error(h)
		}
		token, err := jwt.ParseSigned(h.Get("X-Gate-Assertion"), []jose.SignatureAlgorithm{jose.EdDSA})
		if err != nil {
			t.Fatal(err)
		}
		return token.Headers[0].KeyID, all
	}
	first, all := kids(file)
	if len(all) != 1 || all[0] != first {
		t.Fatal(first, all)
	}
	if signs, all := kids(file + " {env.NEXT}"); signs != first || len(all) != 2 || all[0] != first {
		t.Error("the next key is published, and does not sign:", signs, all)
	}
	if signs, all := kids("{env.NEXT}\nkey " + file); signs == first || len(all) != 2 || all[1] != first {
		t.Error("it signs, and the one before is published:", signs, all)
	}
}

// TestOpenKeyFile: a key that everybody can read is warned about, and taken.
func TestOpenKeyFile(t *testing.T) {
	for mode, warned := range map[os.FileMode]bool{0o600: false, 0o640: false, 0o644: true} {
		file := filepath.Join(t.TempDir(), "assertion.pem")
		if err := os.WriteFile(file, []byte(newKeyPEM(t)), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(file, mode); err != nil {
			t.Fatal(err)
		}
		core, logs := observer.New(zap.WarnLevel)
		g := &Gateway{logger: zap.New(core), Assertion: &Assertion{Audience: "app", Key: []string{file}}}
		if err := g.resolveAssertion(nil); err != nil {
			t.Fatal(err)
		}
		g.assertion.Close()
		if got := logs.FilterMessageSnippet("can read the assertion key").Len() == 1; got != warned {
			t.Errorf("mode %o: warned %v", mode, got)
		}
	}
}

// TestAssertionStandsInNoPlaceholder: it is for the app alone, not for logs or answers.
func TestAssertionStandsInNoPlaceholder(t *testing.T) {
	_, ctx := provisioned(t, "plan pro "+testProduct+asserting)
	r := mustRequest(t, "http://localhost/x")
	r.Header.Set("Authorization", "Bearer "+token(t, testUser, nil))
	seen, _, err := chain(t, ctx, r, siteOf(t, ctx))
	if err != nil {
		t.Fatal(err)
	}
	repl := seen.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	if got := repl.ReplaceAll("{http.polar.assertion}", ""); got != "" {
		t.Error(got)
	}
}

// TestAssertionWithoutASite: doctor tells that nobody can fetch the keys.
func TestAssertionWithoutASite(t *testing.T) {
	app, ctx := provisioned(t, "plan pro "+testProduct+asserting)
	g := app.Gateways["default"]
	told := func() bool {
		return slices.ContainsFunc(g.risks(), func(risk string) bool { return strings.Contains(risk, "no site has polar") })
	}
	if !told() {
		t.Error("it does not tell")
	}
	siteOf(t, ctx)
	if told() {
		t.Error("it tells although there is a site")
	}
}

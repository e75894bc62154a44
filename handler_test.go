package caddypolar

import (
	"net/http"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// chain runs a request through handlers, and returns what the last one saw.
func chain(t *testing.T, ctx caddy.Context, r *http.Request, handlers ...caddyhttp.MiddlewareHandler) (seen *http.Request, w http.ResponseWriter, err error) {
	t.Helper()
	var next caddyhttp.Handler = handlerFunc(func(_ http.ResponseWriter, r *http.Request) error {
		seen = r
		return nil
	})
	for i := len(handlers) - 1; i >= 0; i-- {
		h, inner := handlers[i], next
		if err := h.(caddy.Provisioner).Provision(ctx); err != nil {
			t.Fatal(err)
		}
		next = handlerFunc(func(w http.ResponseWriter, r *http.Request) error { return h.ServeHTTP(w, r, inner) })
	}
	w = newRecorder()
	err = next.ServeHTTP(w, prepared(r, w))
	return seen, w, err
}

// TestSeveralGates: one request, several gates: each must be met, identity and
// account are found once, and X-Polar-Plan is that of the last gate.
func TestSeveralGates(t *testing.T) {
	app, ctx := provisioned(t, "plan pro "+testProduct+"\nplan basic "+testProduct+"\nplan other p9")
	take(t, app.Gateways["default"], activeNow(t))
	request := func() *http.Request {
		r := mustRequest(t, "http://localhost/x")
		r.Header.Set("Authorization", "Bearer "+token(t, testUser, nil))
		return r
	}
	seen, _, err := chain(t, ctx, request(), &Handler{}, &Gate{Plans: []string{"pro"}}, &Gate{Plans: []string{"basic"}})
	if err != nil || seen == nil {
		t.Fatal(err)
	}
	if plan, plans := seen.Header.Get("X-Polar-Plan"), seen.Header.Get("X-Polar-Plans"); plan != "basic" || plans != "pro,basic" {
		t.Errorf("plan %q, plans %q", plan, plans)
	}
	seen, w, err := chain(t, ctx, request(), &Gate{Plans: []string{"pro"}}, &Gate{Plans: []string{"other"}})
	if err != nil || seen != nil {
		t.Fatal("let through by one gate of two", err)
	}
	if body := w.(interface{ Result() *http.Response }).Result(); body.StatusCode != http.StatusPaymentRequired {
		t.Error(body.StatusCode)
	}
}

// TestGateElsewhere: a gate that does not stand before a path takes nothing away
// from what one before it has told.
func TestGateElsewhere(t *testing.T) {
	app, ctx := provisioned(t, "plan pro "+testProduct+"\nplan other p9")
	take(t, app.Gateways["default"], activeNow(t))
	for _, site := range [][]caddyhttp.MiddlewareHandler{{}, {&Handler{}}} {
		r := mustRequest(t, "http://localhost/pro/x")
		r.Header.Set("Authorization", "Bearer "+token(t, testUser, nil))
		gates := append(site, &Gate{Paths: []string{"/pro/*"}, Plans: []string{"pro"}}, &Gate{Paths: []string{"/other/*"}, Plans: []string{"other"}})
		seen, _, err := chain(t, ctx, r, gates...)
		if err != nil || seen == nil {
			t.Fatal(err)
		}
		if plan := seen.Header.Get("X-Polar-Plan"); plan != "pro" {
			t.Errorf("plan %q", plan)
		}
	}
}

// TestStripToken: a token that is kept from the app is not kept from another
// gateway of the same request.
func TestStripToken(t *testing.T) {
	block := "jwt {\nsecret " + testJWTSecret + "\nfrom cookie session\nstrip_token\n}\nplan pro " + testProduct
	app, ctx := provisioned(t, "}\npolar one {\n"+block+"\n}\npolar two {\nheaders X-Two-\nwebhook_secret "+testWebhookSecret+"\n"+block)
	take(t, app.Gateways["two"], activeNow(t))
	r := mustRequest(t, "http://localhost/x")
	r.AddCookie(&http.Cookie{Name: "session", Value: token(t, testUser, nil)})
	r.AddCookie(&http.Cookie{Name: "theme", Value: "dark"})
	seen, w, err := chain(t, ctx, r, &Handler{Gateway: "one"}, &Gate{Gateway: "two", Plans: []string{"pro"}})
	if err != nil || seen == nil {
		t.Fatal(w, err)
	}
	if got := seen.Header.Get("Cookie"); got != "theme=dark" {
		t.Errorf("the app gets the cookies %q", got)
	}
	if seen.Header.Get("X-Two-User") != testUser || seen.Header.Get("X-Polar-User") != testUser {
		t.Error(seen.Header)
	}
}

// bearer is a handler of the site that logs the visitor in.
type bearer string

func (bearer) Provision(caddy.Context) error { return nil }

func (b bearer) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	r.Header.Set("Authorization", "Bearer "+string(b))
	return next.ServeHTTP(w, r)
}

// TestTokenOfTheSite: a token that the site's own authentication puts into the
// request, as forward_auth can, counts like a client's.
func TestTokenOfTheSite(t *testing.T) {
	app, ctx := provisioned(t, "plan pro "+testProduct)
	take(t, app.Gateways["default"], activeNow(t))
	seen, w, err := chain(t, ctx, mustRequest(t, "http://localhost/x"), &Handler{}, bearer(token(t, testUser, nil)), &Gate{Plans: []string{"pro"}})
	if err != nil || seen == nil {
		t.Fatal(w, err)
	}
	if seen.Header.Get("X-Polar-User") != testUser {
		t.Error(seen.Header)
	}
}

// TestAnswersOfNobody: what answers without a word of its own, or leaves the
// answer to Caddy's error routes, is private all the same.
func TestAnswersOfNobody(t *testing.T) {
	app, ctx := provisioned(t, "plan pro "+testProduct)
	take(t, app.Gateways["default"], activeNow(t))
	gate := &Gate{Plans: []string{"pro"}}
	if err := gate.Provision(ctx); err != nil {
		t.Fatal(err)
	}
	for name, failure := range map[string]error{
		"nothing":  nil,
		"an error": caddyhttp.Error(http.StatusTeapot, nil),
	} {
		r := mustRequest(t, "http://localhost/x")
		r.Header.Set("Authorization", "Bearer "+token(t, testUser, nil))
		w := newRecorder()
		err := gate.ServeHTTP(w, prepared(r, w), handlerFunc(func(http.ResponseWriter, *http.Request) error { return failure }))
		if (err == nil) != (failure == nil) {
			t.Fatal(err)
		}
		if cache, vary := w.Header().Get("Cache-Control"), w.Header().Get("Vary"); cache != "private" || vary != "Authorization" {
			t.Errorf("%s: Cache-Control %q, Vary %q", name, cache, vary)
		}
	}
}

func TestTwoGatewaysAtOnePath(t *testing.T) {
	config, err := adapt(in("jwt secret "+testJWTSecret+"\n}\npolar other {\njwt secret "+testJWTSecret, "polar\npolar other"))
	if err != nil {
		t.Fatal(err)
	}
	if err := validate(t, config); err != nil {
		t.Fatal(err)
	}
	_, ctx := provisioned(t, "}\npolar other {\njwt secret "+testJWTSecret)
	_, _, err = chain(t, ctx, mustRequest(t, "http://localhost/x"), &Handler{}, &Handler{Gateway: "other"})
	if err == nil || !strings.Contains(err.Error(), "give one another path") {
		t.Error(err)
	}
	seen, _, err := chain(t, ctx, mustRequest(t, "http://localhost/x"), &Handler{}, &Handler{Gateway: "other", Path: "/other"})
	if err != nil || seen == nil {
		t.Error(err)
	}
}

// TestPlaceholders: what a request has found out can be read by the site.
func TestPlaceholders(t *testing.T) {
	app, ctx := provisioned(t, "plan pro "+testProduct)
	take(t, app.Gateways["default"], activeNow(t))
	r := mustRequest(t, "http://localhost/x")
	r.Header.Set("Authorization", "Bearer "+token(t, testUser, nil))
	seen, _, err := chain(t, ctx, r, &Handler{}, &Gate{Plans: []string{"pro"}})
	if err != nil || seen == nil {
		t.Fatal(err)
	}
	repl := seen.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	for key, want := range map[string]string{
		"http.polar.user": testUser, "http.auth.user.id": testUser, "http.polar.plan": "pro", "http.polar.plans": "pro",
		"http.polar.status": "active", "http.polar.reason": "active", "http.polar.allowed": "true",
		"http.polar.customer": "1509bb0a-9bf1-4331-8a11-8783593942a4", "http.polar.checkout_url": "",
	} {
		if got, ok := repl.GetString(key); !ok || got != want {
			t.Errorf("{%s} is %q, want %q", key, got, want)
		}
	}
	if until, _ := repl.GetString("http.polar.until"); until != seen.Header.Get("X-Polar-Until") || until == "" {
		t.Errorf("until: %q", until)
	}
	if state := repl.ReplaceAll("{http.vars.polar_request}", ""); strings.Contains(state, testUser) {
		t.Errorf("the state shows itself: %s", state)
	}
}

// TestGateNeedsItsGateway: a gate whose site belongs to a gateway without its
// plan lets nobody through.
func TestGateNeedsItsGateway(t *testing.T) {
	_, ctx := provisioned(t, "plan pro p1\n}\npolar other {\njwt secret "+testJWTSecret+"\nplan gold p2")
	seen, _, err := chain(t, ctx, mustRequest(t, "http://localhost/x"), &Handler{Gateway: "other"}, &Gate{Plans: []string{"pro"}})
	if err == nil || seen != nil {
		t.Error("let through", err)
	}
	if err := (&Gate{Plans: []string{"nope"}}).Provision(ctx); err == nil {
		t.Error("a plan that no gateway has was taken")
	}
	if err := (&Gate{Gateway: "none"}).Provision(ctx); err == nil {
		t.Error("an unknown gateway was taken")
	}
}

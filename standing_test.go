package caddypolar

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-polar/caddy-polar/cache"
	"github.com/caddy-polar/caddy-polar/entitlement"
)

// answerOf is what a request with the token comes to: what the upstream is told, or what
// the visitor is.
func answerOf(t *testing.T, ctx caddy.Context, bearer string, handlers ...caddyhttp.MiddlewareHandler) string {
	t.Helper()
	r := mustRequest(t, "http://localhost/x")
	r.Header.Set("Authorization", "Bearer "+bearer)
	seen, w, err := chain(t, ctx, r, handlers...)
	if err != nil {
		t.Fatal(err)
	}
	if seen != nil {
		told := http.Header{}
		maps.Copy(told, seen.Header)
		told.Del("Authorization")
		raw, err := json.Marshal(told)
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
	res := w.(interface{ Result() *http.Response }).Result()
	body, _ := io.ReadAll(res.Body)
	return res.Status + " " + requestIDs.ReplaceAllString(string(body), "")
}

var requestIDs = regexp.MustCompile(`"requestId":"[^"]*"`)

// TestSameAnswerAgain: what is remembered with a token answers as what it was made of,
// whatever that was, and a fact counts at once.
func TestSameAnswerAgain(t *testing.T) {
	now := time.Now()
	for name, events := range map[string][]string{
		"a stranger":    nil,
		"a payer":       {"subscription.active"},
		"who canceled":  {"subscription.active", "subscription.canceled"},
		"who was ended": {"subscription.active", "subscription.revoked"},
		"who owes":      {"subscription.past_due"},
		"who pauses":    {"subscription.paused"},
	} {
		app, ctx := provisioned(t, "plan pro "+testProduct+"\nplan other p9")
		g := app.Gateways["default"]
		bearer := token(t, testUser, nil)
		answers := map[string]bool{}
		for i := range len(events) + 1 {
			if i > 0 {
				take(t, g, subscribed(t, events[i-1], now.Add(time.Hour)))
			}
			for site, handlers := range map[string]func() []caddyhttp.MiddlewareHandler{
				"open": func() []caddyhttp.MiddlewareHandler { return []caddyhttp.MiddlewareHandler{&Handler{}} },
				"gated": func() []caddyhttp.MiddlewareHandler {
					return []caddyhttp.MiddlewareHandler{&Gate{Plans: []string{"pro"}}}
				},
				"both": func() []caddyhttp.MiddlewareHandler {
					return []caddyhttp.MiddlewareHandler{&Handler{}, &Gate{Plans: []string{"pro"}}}
				},
				"other": func() []caddyhttp.MiddlewareHandler {
					return []caddyhttp.MiddlewareHandler{&Gate{Plans: []string{"other"}}}
				},
			} {
				// A new token and no notes: its first answer is from the account.
				g.mirror.SetMemory(cache.DefaultMemory + 1 + i)
				g.mirror.SetMemory(cache.DefaultMemory)
				fresh := answerOf(t, ctx, token(t, testUser, map[string]any{"jti": i, "site": site}), handlers()...)
				for range 2 {
					if got := answerOf(t, ctx, bearer, handlers()...); got != fresh {
						t.Errorf("%s, %s, after %d events: %s\nthe account says: %s", name, site, i, got, fresh)
					}
				}
				answers[fresh] = true
			}
		}
		if len(answers) < 2+len(events)/2 {
			t.Errorf("%s: all answers are the same", name)
		}
	}
}

// tells is a handler of the site that sets headers of the request.
type tells http.Header

func (tells) Provision(caddy.Context) error { return nil }

func (h tells) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	maps.Copy(r.Header, http.Header(h))
	return next.ServeHTTP(w, r)
}

// TestOnlyOurWord: what others have set of our headers before a gate tells of somebody is
// not told along with it.
func TestOnlyOurWord(t *testing.T) {
	app, ctx := provisioned(t, "plan pro "+testProduct)
	take(t, app.Gateways["default"], activeNow(t))
	login := tells{"Authorization": {"Bearer " + token(t, testUser, nil)}, "X-Polar-Grace-Until": {"2099-01-01T00:00:00Z"}}
	seen, _, err := chain(t, ctx, mustRequest(t, "http://localhost/x"), &Handler{}, login, &Gate{Plans: []string{"pro"}})
	if err != nil || seen == nil {
		t.Fatal(err)
	}
	if got, told := seen.Header["X-Polar-Grace-Until"]; told || seen.Header.Get("X-Polar-User") != testUser {
		t.Error(got, seen.Header)
	}
}

// TestTwoGatewaysOnePrefix: the last gate tells its own, and nothing is left of what the
// first one told.
func TestTwoGatewaysOnePrefix(t *testing.T) {
	block := "webhook_secret " + testWebhookSecret + "\njwt {\nsecret " + testJWTSecret + "\n}\nplan pro " + testProduct
	app, ctx := provisioned(t, "}\npolar one {\n"+block+"\n}\npolar two {\n"+block)
	take(t, app.Gateways["one"], activeNow(t))
	if _, err := app.Gateways["two"].core.GivePass(t.Context(), testUser, "pro", time.Time{}, "a friend"); err != nil {
		t.Fatal(err)
	}
	r := mustRequest(t, "http://localhost/x")
	r.Header.Set("Authorization", "Bearer "+token(t, testUser, nil))
	seen, _, err := chain(t, ctx, r, &Gate{Gateway: "one", Plans: []string{"pro"}}, &Gate{Gateway: "two", Plans: []string{"pro"}})
	if err != nil || seen == nil {
		t.Fatal(err)
	}
	if seen.Header.Get("X-Polar-Reason") != "pass" || seen.Header.Get("X-Polar-Until") != "" || seen.Header.Get("X-Polar-Customer") != "" {
		t.Error(seen.Header)
	}
}

// TestSecondGatewayLeavesTheSitesHeaders: what clients must not say is taken away once.
// What the site says after that is its own.
func TestSecondGatewayLeavesTheSitesHeaders(t *testing.T) {
	block := "webhook_secret " + testWebhookSecret + "\njwt {\nsecret " + testJWTSecret + "\n}\nplan pro " + testProduct
	app, ctx := provisioned(t, "}\npolar one {\n"+block+"\n}\npolar two {\nheaders X-Two-\n"+block)
	for _, name := range []string{"one", "two"} {
		if _, err := app.Gateways[name].core.GivePass(t.Context(), testUser, "pro", time.Time{}, "a friend"); err != nil {
			t.Fatal(err)
		}
	}
	r := mustRequest(t, "http://localhost/x")
	r.Header.Set("Authorization", "Bearer "+token(t, testUser, nil))
	r.Header.Set("X-Rewrite-Url", "/forged")
	r.Header.Set("X-Two-Plan", "forged")
	site := tells{"X-Rewrite-Url": {"/index.php"}, "X-Two-Status": {"forged"}, "Connection": {"X-Two-User"}}
	seen, _, err := chain(t, ctx, r, &Gate{Gateway: "one"}, site, &Gate{Gateway: "two"})
	if err != nil || seen == nil {
		t.Fatal(err)
	}
	if seen.Header.Get("X-Rewrite-Url") != "/index.php" || seen.Header.Get("X-Two-Status") != "pass" || seen.Header.Get("Connection") != "" ||
		seen.Header.Get("X-Two-Plan") != "pro" {
		t.Error(seen.Header)
	}
}

// matching is a handler of the site behind a matcher: it asks who somebody is before
// the gate does.
type matching struct {
	*MatchPolar
	tells
}

func (m matching) Provision(ctx caddy.Context) error { return m.MatchPolar.Provision(ctx) }

func (m matching) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if _, err := m.MatchWithError(r); err != nil {
		return err
	}
	return m.tells.ServeHTTP(w, r, next)
}

// TestOnlyOurWordAfterAMatcher: nor when a matcher was the first to ask.
func TestOnlyOurWordAfterAMatcher(t *testing.T) {
	app, ctx := provisioned(t, "plan pro "+testProduct)
	take(t, app.Gateways["default"], activeNow(t))
	r := mustRequest(t, "http://localhost/x")
	r.Header.Set("Authorization", "Bearer "+token(t, testUser, nil))
	site := matching{&MatchPolar{Plans: []string{"pro"}}, tells{"X-Polar-Grace-Until": {"2099-01-01T00:00:00Z"}}}
	seen, _, err := chain(t, ctx, r, site, &Gate{Plans: []string{"pro"}})
	if err != nil || seen == nil {
		t.Fatal(err)
	}
	if _, told := seen.Header["X-Polar-Grace-Until"]; told {
		t.Error(seen.Header)
	}
}

// TestWhoIsRememberedIsNotRead: who comes again with a token is answered without their
// account, if something is open for them or nothing is known.
func TestWhoIsRememberedIsNotRead(t *testing.T) {
	row := entitlement.Version{Row: time.Now(), AsOf: time.Now()}
	customer := entitlement.Customer{Version: row, ID: "c", ExternalID: testUser}
	grant := entitlement.Grant{Version: row, ID: "g", CustomerID: "c", BenefitID: "b", SubscriptionID: "not held", Granted: true}
	for name, facts := range map[string]*cache.Facts{
		"a stranger":                {},
		"a customer with a benefit": {Customers: []entitlement.Customer{customer}, Grants: []entitlement.Grant{grant}},
	} {
		app, ctx := provisioned(t, "plan pro {\nproducts "+testProduct+"\nbenefits b\n}")
		g := app.Gateways["default"]
		if _, err := g.core.Account(testUser); err != nil {
			t.Fatal(err)
		}
		if _, err := g.mirror.Apply(t.Context(), facts); err != nil {
			t.Fatal(err)
		}
		sites := [][]caddyhttp.MiddlewareHandler{{&Handler{}}}
		if facts.Grants != nil {
			sites = append(sites, []caddyhttp.MiddlewareHandler{&Gate{Plans: []string{"pro"}}})
		}
		bearer := token(t, testUser, nil)
		var before []string
		for _, site := range sites {
			before = append(before, answerOf(t, ctx, bearer, site...))
		}
		if err := g.mirror.Close(); err != nil {
			t.Fatal(err)
		}
		for i, site := range sites {
			if again := answerOf(t, ctx, bearer, site...); again != before[i] {
				t.Errorf("%s: %s\nwas %s", name, again, before[i])
			}
		}
	}
}

// TestManyPlans: who has more plans than there is room for with a token gets the same
// answer, from a note.
func TestManyPlans(t *testing.T) {
	var config string
	for i := range maxKept + 2 {
		config += fmt.Sprintf("plan p%d %s\n", i, testProduct)
	}
	app, ctx := provisioned(t, config)
	take(t, app.Gateways["default"], activeNow(t))
	bearer := token(t, testUser, nil)
	first := answerOf(t, ctx, bearer, &Handler{}, &Gate{Plans: []string{"p5"}})
	if !strings.Contains(first, `"X-Polar-Plans":["p0,p1,p2,p3,p4,p5"]`) || !strings.Contains(first, `"X-Polar-Plan":["p5"]`) {
		t.Fatal(first)
	}
	if again := answerOf(t, ctx, bearer, &Handler{}, &Gate{Plans: []string{"p5"}}); again != first {
		t.Errorf("%s\nwas %s", again, first)
	}
}

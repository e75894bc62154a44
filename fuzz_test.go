package caddypolar

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/caddyserver/caddy/v2"
	whatwg "github.com/nlnwa/whatwg-url/url"
	"golang.org/x/net/http/httpguts"

	"github.com/caddy-polar/caddy-polar/cache"
)

// leadsTo says where a browser goes that is given an address, by the rules of browsers,
// which are not those of net/url.
func leadsTo(t testing.TB, here, address string) string {
	t.Helper()
	u, err := whatwg.ParseRef(here, address)
	if err != nil {
		t.Fatalf("no browser can go to %q: %v", address, err)
	}
	if u.Username() != "" || u.Password() != "" {
		t.Fatalf("%q names a user", address)
	}
	return u.Protocol() + "//" + u.Host()
}

// FuzzReturnAddress: wherever a visitor may be sent is this site or a return_to host, as
// their browser reads it.
func FuzzReturnAddress(f *testing.F) {
	for _, raw := range []string{
		"", "/", "/pro/?a=b#c", "https://app.example.com/x", "HTTPS://WWW.example.com:443", "https://www.example.com:8443/",
		"//evil.example", `/\evil.example`, "https:evil.example", "https://www.example.com@evil.example", "https://evil.example#@www.example.com",
		"https://www.example.com%2eevil.example", "https://www.example.com:@evil.example", "/%09/evil.example", "https://[www.example.com]/", "javascript:1",
		"https://www\u3002example.com", "https://www.example.com::443", "/.//evil.example", "///evil.example",
	} {
		f.Add(raw, true)
	}
	trusted, err := makeOrigins([]string{"www.example.com", "shop.example.com:8443", "localhost:3000", "[::1]:3000"})
	if err != nil {
		f.Fatal(err)
	}
	g := &Gateway{origins: trusted}
	allowed := []string{
		"https://app.example.com", "https://www.example.com", "https://shop.example.com:8443",
		"https://localhost:3000", "http://localhost:3000", "https://[::1]:3000", "http://[::1]:3000",
	}
	f.Fuzz(func(t *testing.T, raw string, secure bool) {
		own, may := "https://app.example.com", allowed
		if !secure {
			own, may = "http://app.example.com", append([]string{"http://app.example.com"}, allowed...)
		}
		r := prepared(httptest.NewRequest(http.MethodGet, own+"/auth/polar/checkout", nil), newRecorder())
		address, ok := g.returnAddress(r, raw)
		if !ok || address == "" {
			return
		}
		if !slices.Contains(may, leadsTo(t, own+"/x", address)) {
			t.Fatalf("%q leads to %q", raw, address)
		}
		if again, ok := g.returnAddress(r, address); !ok || again != address {
			t.Fatalf("%q became %q, and that %q", raw, address, again)
		}
	})
}

// FuzzAway: whatever is asked for, a browser is sent to the operator's address, which is
// told of a page of this site.
func FuzzAway(f *testing.F) {
	for _, target := range []string{"/pro/x?a=b&next=//evil.example#c", "//evil.example/", `/\evil.example`, "http://evil.example/x", "foo:.evil.example/", "*", "/%0d%0aa:b", "/a?{reason}"} {
		f.Add(target)
	}
	const own = "http://app.example.com"
	f.Fuzz(func(t *testing.T, target string) {
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader("GET " + target + " HTTP/1.1\r\nHost: app.example.com\r\n\r\n")))
		if err != nil || r.Host != "app.example.com" { // the server lets no other site's host come here
			return
		}
		r = prepared(r, newRecorder())
		for to, origin := range map[string]string{"https://id.example.com/in?to={return_to}&why={reason}": "https://id.example.com", "/login?to={return_to}": own} {
			address := fillAddress(to, r, newProblem(http.StatusUnauthorized, codeTokenMissing))
			if got := leadsTo(t, own, address); got != origin {
				t.Fatalf("%q leads to %s", target, got)
			}
			u, err := url.Parse(address)
			if err != nil {
				t.Fatal(err)
			}
			if back := u.Query().Get("to"); leadsTo(t, own, back) != own {
				t.Fatalf("%q comes back to %q", target, back)
			}
			_ = isHere(r, address)
		}
	})
}

// FuzzHeaderNames: no spelling of ours is left, whatever else stands there stays, and
// what we say of a user arrives as it was said.
func FuzzHeaderNames(f *testing.F) {
	f.Add("X-Polar-User", "ada@example.com")
	f.Add("x_pOlar.plan", " 100%\r\n ")
	f.Add("X~polar!plan", "")
	f.Add("X-Polar", "\x00é\xff")
	names := makeHeaderNames("X-Polar-")
	f.Add("x,pOlar.", "")
	f.Fuzz(func(t *testing.T, name, user string) {
		if !httpguts.ValidHeaderFieldName(name) { // no server hands it on
			name = "X_Polar-"
		}
		folded := []byte(name)
		for i, c := range folded {
			if r := rune(c); c < 0x80 && (unicode.IsLetter(r) || unicode.IsDigit(r)) {
				folded[i] = byte(unicode.ToLower(r))
			} else {
				folded[i] = '-'
			}
		}
		h := http.Header{name: {"a"}, "Accept": {"b"}, "Connection": {"close, " + name}}
		forged := bytes.HasPrefix(folded, []byte("x-polar-"))
		names.stripFrom(h)
		names.stripConnection(h)
		if _, left := h[name]; name != "Connection" && (left == forged || h.Get("Accept") == "") {
			t.Fatalf("%q became %v", name, h)
		}
		if forged && strings.Contains(h.Get("Connection"), name) {
			t.Fatalf("Connection still has %q", name)
		}
		value := encodeHeader(user)
		if !httpguts.ValidHeaderFieldValue(value) || strings.TrimSpace(value) != value {
			t.Fatalf("%q became %q, which no header can hold", user, value)
		}
		if back, err := url.PathUnescape(value); err != nil || back != user {
			t.Fatalf("%q arrives as %q, %v", user, back, err)
		}
	})
}

// FuzzLinks: what a file of links says is valid and gives no customer to two users, or
// is marked as wrong.
func FuzzLinks(f *testing.F) {
	f.Add("user,customer\nada,c1\n# nothing\n bob , c2 \nbob,c1\n")
	f.Add("\"a\nb\",c\n,\nx\na,b,c\n\ufeffuser,customer")
	f.Fuzz(func(t *testing.T, file string) {
		lines, err := readLinks(strings.NewReader(file))
		if err != nil {
			return
		}
		users := make(map[string]string)
		for _, l := range lines {
			if l.Line < 1 || l.Line > strings.Count(file, "\n")+1 {
				t.Fatalf("line %d of %q", l.Line, file)
			}
			if l.Error != "" {
				continue
			}
			if other, given := users[l.Customer]; !cache.ValidUser(l.User) || l.Customer == "" || given && other != l.User {
				t.Fatalf("%+v of %q", l, file)
			}
			users[l.Customer] = l.User
		}
	})
}

// FuzzUnformula: nothing in a cell begins as a formula does, and nothing is lost.
func FuzzUnformula(f *testing.F) {
	for _, cell := range []string{"", "usr_1", "=1+1", ";=1", " \u00a0@x", "\ufeff-1", "a;b;+c", "'=x", "\t=x", "\v+", "\u0085=1", "\u3000=1"} {
		f.Add(cell)
	}
	f.Fuzz(func(t *testing.T, cell string) {
		safe := unformula(cell)
		for part := range strings.SplitSeq(safe, ";") {
			part = strings.TrimLeftFunc(part, func(r rune) bool { return unicode.IsSpace(r) || r == '\ufeff' })
			if part != "" && strings.ContainsAny(part[:1], "=+-@") {
				t.Fatalf("%q became %q", cell, safe)
			}
		}
		if strings.ReplaceAll(safe, "'", "") != strings.ReplaceAll(cell, "'", "") {
			t.Fatalf("%q became %q", cell, safe)
		}
	})
}

// FuzzPurchase: whatever a client says, one thing is bought, or changed, and the way
// back is this site's.
func FuzzPurchase(f *testing.F) {
	for _, body := range []string{
		"", "{}", `{"productId":"p","successUrl":"/pro/","seats":2}`, `{"plan":"pro","returnUrl":"https://evil.example"}`, `{"products":["a","b"]}`,
		`{"cancelAtPeriodEnd":true}`, `{"pendingUpdate":null}`, `{"seats":1e99}`, `{"PRODUCTID":"x","productId":null}`, `[]`, `"x"`, `{"products":[`,
	} {
		f.Add("plan=pro&return_to=/pro/&seats=2&products=a,b", body)
		f.Add("productId=p&return_to=//evil.example", body)
	}
	app, _ := provisioned(f, "plan pro "+testProduct)
	g := app.Gateways["default"]
	f.Fuzz(func(t *testing.T, query, body string) {
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			w := newRecorder()
			r := prepared(httptest.NewRequest(method, "https://app.example.com/auth/polar/checkout", strings.NewReader(body)), w)
			r.URL.RawQuery = query
			bought, p := readCheckout(w, r)
			if p != nil {
				wantsProblem(t, p)
				continue
			}
			purchase, p := g.purchase(r, &visit{gateway: g, handler: &Handler{path: "/auth/polar"}}, bought)
			if p != nil {
				wantsProblem(t, p)
				continue
			}
			if len(purchase.Products) == 0 {
				t.Fatalf("%s ?%s %s buys nothing", method, query, body)
			}
			for _, to := range []string{purchase.ReturnTo, purchase.Back} {
				if to != "" && leadsTo(t, "https://app.example.com", to) != "https://app.example.com" {
					t.Fatalf("%s ?%s %s leads to %s", method, query, body, to)
				}
			}
		}
		w := newRecorder()
		change, p := readChange(w, httptest.NewRequest(http.MethodPatch, "/auth/polar/subscription", strings.NewReader(body)))
		if p != nil {
			wantsProblem(t, p)
			return
		}
		named := 0
		for _, is := range []bool{change.ProductID != "", change.Cancel != nil, change.Seats != nil, change.ClearPending} {
			if is {
				named++
			}
		}
		if named != 1 {
			t.Fatalf("%s changes %+v", body, change)
		}
	})
}

// wantsProblem checks that the client is told that it is their mistake.
func wantsProblem(t testing.TB, p *problem) {
	t.Helper()
	if p.Status < 400 || p.Status > 499 || p.Code == "" {
		t.Fatalf("%+v", p)
	}
}

// FuzzRequest sends a gated site whatever can be parsed as a request: nobody comes in
// without a token, nothing breaks, no secret is told, and nobody is sent elsewhere.
func FuzzRequest(f *testing.F) {
	for _, head := range []string{
		"GET /pro/x", "GET /auth/polar/entitlements", "GET /auth/polar/account", "GET /auth/polar/checkout?plan=pro", "PATCH /auth/polar/subscription",
		"GET /auth/polar/success?state=x&checkout_id=y&try=-1", "GET /auth/polar/pricing?return_to=//evil.example", "POST /auth/polar/account", "DELETE /auth/polar/seats/x",
		"OPTIONS *", "GET http://app.example.com/x", "HEAD //auth/polar/portal", "POST /auth/polar/webhook", "CONNECT app.example.com:443",
	} {
		f.Add([]byte(head+" HTTP/1.1\r\nHost: app.example.com\r\nAccept: text/html\r\nSec-Fetch-Mode: navigate\r\nAuthorization: Bearer a.b.c\r\nCookie: session=x; polar_redirects=3; polar_done=cancel\r\n"+
			"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 26\r\n\r\ndo=cancel&id=1&return_to=/"), true)
		f.Add([]byte(head+" HTTP/1.1\r\nHost: app.example.com\r\nX-Polar-User: ada\r\nx_polar_plan: pro\r\nConnection: X-Polar-User\r\nOrigin: null\r\nAccept-Language: de,*;q=0\r\n"+
			"Content-Type: application/json\r\nWebhook-Id: 1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nX-Polar-User: x\r\n\r\n"), false)
	}
	app, ctx := provisioned(f, "login_url /login?next={return_to}\nplan pro "+testProduct)
	take(f, app.Gateways["default"], activeNow(f))
	paid := "Bearer " + token(f, testUser, nil)
	site, gate := new(Handler), &Gate{Plans: []string{"pro"}}
	for _, h := range []caddy.Provisioner{site, gate} {
		if err := h.Provision(ctx); err != nil {
			f.Fatal(err)
		}
	}
	f.Fuzz(func(t *testing.T, raw []byte, signed bool) {
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(raw)))
		if err != nil || strings.Contains(r.URL.Path, "/events") { // which does not end
			return
		}
		r.Host = "app.example.com"
		if signed {
			r.Header.Set("Authorization", paid)
		}
		life, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		w := newRecorder()
		r = prepared(r.WithContext(life), w)
		var seen *http.Request
		err = site.ServeHTTP(w, r, handlerFunc(func(w http.ResponseWriter, r *http.Request) error {
			return gate.ServeHTTP(w, r, handlerFunc(func(_ http.ResponseWriter, r *http.Request) error {
				seen = r
				_, _ = io.Copy(io.Discard, r.Body)
				return nil
			}))
		}))
		if err != nil {
			t.Fatal(err)
		}
		checkAnswer(t, w)
		if seen == nil {
			return
		}
		preflight := r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != ""
		if !signed && !preflight {
			t.Fatalf("%q came in", raw)
		}
		if user := seen.Header.Get("X-Polar-User"); signed && user != testUser || !signed && user != "" {
			t.Fatalf("%q is %q to the app", raw, user)
		}
		for name := range seen.Trailer {
			if site.gateway.names.ours(name) {
				t.Fatalf("%q sends the app a trailer %s", raw, name)
			}
		}
	})
}

// checkAnswer checks what is true of every answer of ours.
func checkAnswer(t testing.TB, w *httptest.ResponseRecorder) {
	t.Helper()
	switch {
	case w.Code == http.StatusInternalServerError || w.Code < 200 || w.Code > 599:
		t.Fatalf("status %d: %s", w.Code, w.Body)
	case w.Header().Get("Content-Type") == "application/problem+json" && w.Body.Len() > 0 && !json.Valid(w.Body.Bytes()):
		t.Fatalf("no JSON: %s", w.Body)
	case strings.Contains(w.Body.String(), testJWTSecret) || strings.Contains(w.Body.String(), testWebhookSecret):
		t.Fatal("a secret is told")
	}
	if to := w.Header().Get("Location"); to != "" && leadsTo(t, "http://app.example.com/x", to) != "http://app.example.com" {
		t.Fatalf("sent to %q", to)
	}
	for name, values := range w.Header() {
		for _, value := range values {
			if !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(value) {
				t.Fatalf("%q: %q is no header", name, value)
			}
		}
	}
}

// FuzzAdmin: whatever an operator asks, there is an answer, wrong input is told to be
// that, and who is named in an address is the very user who was meant.
func FuzzAdmin(f *testing.F) {
	for _, target := range []string{
		"/polar/status", "/polar/users?plan=pro&status=active&limit=1&after=a", "/polar/users?limit=-1", "/polar/users/a%2Fb", "/polar/explain?user=a&at=2027-01-31T00:00:00Z",
		"/polar/explain?request=x", "/polar/users/a/passes", "/polar/users/a/passes/b", "/polar/users/a/links/b?polar=false", "/polar/export?after=%00", "/polar/revenue?from=2026-01-01",
		"/polar/health/ready", "/polar/status?gateway=default&gateway=x", "/polar/users//passes", "/polar/%75sers", "/polar/notify/resend", "/polar/?;&%zz",
	} {
		f.Add("GET", target, "ada@example.com", "")
		f.Add("POST", target, "a/../b c?#%2F+\u00fc", `{"plan":"pro","until":"2099-01-01T00:00:00Z","reason":"press"}`)
	}
	app, _ := provisioned(f, "plan pro "+testProduct)
	admin := &Admin{app: func() (*App, error) { return app, nil }}
	f.Fuzz(func(t *testing.T, method, target, user, body string) {
		r := httptest.NewRequest(http.MethodGet, "/polar/", strings.NewReader(body))
		r.Method = method
		if u, err := url.Parse(target); err == nil && strings.HasPrefix(u.Path, adminPath) && !slow(u) {
			r.URL = u
			var failure caddy.APIError
			err := admin.serve(newRecorder(), r)
			if err != nil && (!errors.As(err, &failure) || failure.HTTPStatus < 400 || failure.HTTPStatus == http.StatusInternalServerError) {
				t.Fatalf("%s %s %s: %v", method, target, body, err)
			}
		}
		if user == "" {
			return
		}
		u, err := url.Parse(adminPath + "users/" + url.PathEscape(user) + "/passes/x")
		if err != nil {
			t.Fatal(err)
		}
		r.Method, r.URL = http.MethodDelete, u
		if _, args, err := findVerb(http.Header{}, r); err != nil || args[0] != user {
			t.Fatalf("%q is taken for %q, %v", user, args, err)
		}
	})
}

// slow says that asking takes longer than a fuzz target has, or writes where it is told to.
func slow(u *url.URL) bool {
	return slices.ContainsFunc([]string{"doctor", "backup", "sync", "migrate"}, func(word string) bool { return strings.Contains(u.Path, word) })
}

package integration

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"
)

// The attacks of this file are other people's: docs/security.md tells of each.

// TestHeadersOfAuthServers lets an auth server speak in our headers, or keep
// silent where the site copies them: what the client or it has put there is not
// what an app behind a gate is told.
func TestHeadersOfAuthServers(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	auth := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Says") != "" {
			w.Header().Set("X-Polar-User", "root")
			w.Header().Set("X-Polar-Plans", "pro,basic")
		}
	}))
	t.Cleanup(auth.Close)
	s.start(t, s.caddyfile(usual, s.site(t, "app", `
		polar
		forward_auth `+strings.TrimPrefix(auth.URL, "http://")+` {
			uri /
			copy_headers X-Polar-User X-Polar-Plans
		}
		polar_require pro {
			public /open/*
		}
		reverse_proxy {upstream}`)))
	u := s.subscribe(t, "app", productPro)
	says := header("Says", "yes")
	lie := func(r *http.Request) {
		r.Header.Set("X-Polar-User", "root")
		r.Header.Set("X-Polar-Plans", "pro,basic")
		r.Header.Set("X-Polar-Plan", "pro")
	}
	for name, options := range map[string][]option{"silent": {lie}, "talking": {lie, says}} {
		got := s.get(t, "app", "/x", append(options, as(u.user))...).seen(t).ours()
		if got["user"] != u.user || got["plans"] != "pro" {
			t.Errorf("%s: the upstream was told %v", name, got)
		}
		s.get(t, "app", "/x", options...).problem(t, http.StatusUnauthorized, "token_missing")
	}
	// Where the gate does not stand either.
	if got := s.get(t, "app", "/open/x", lie).seen(t).ours(); len(got) != 0 {
		t.Errorf("on a public path: the upstream was told %v", got)
	}
	preflight := []option{header("Origin", "https://a.example"), header("Access-Control-Request-Method", "PUT"), lie}
	if got := s.do(t, http.MethodOptions, "app", "/x", preflight...).seen(t).ours(); len(got) != 0 {
		t.Errorf("on a preflight: the upstream was told %v", got)
	}
}

// TestExemptionLooksAtThePathAlone puts a public path wherever in a request it
// is not the path.
func TestExemptionLooksAtThePathAlone(t *testing.T) {
	t.Parallel()
	s := startServer(t, `
		polar
		polar_require pro {
			public /public/* /health
		}
		reverse_proxy {upstream}`)
	for _, target := range []string{
		"/x?/public/", "/x?next=/public/a", "/x#/public/a", "/x%23/public/a", "/x%3f/public/a", "/x?#/public/a", "/x;/public/a",
		"/x/public/a", "/public#/../x", "/public%23/../x", "/public%3f/../../x", "/public/..%23/x", "/healthx", "/health/x", "/x/health",
		"http://{host}/x?/public/", "//public/x", "/public:80/x",
	} {
		if n := s.upstream.reached(func() {
			if r := s.raw(t, "app", "GET "+target+" HTTP/1.1\r\nHost: {host}\r\n\r\n"); r.status != http.StatusUnauthorized {
				t.Errorf("%s: got %v", target, r)
			}
		}); n != 0 {
			t.Errorf("%s has reached the upstream", target)
		}
	}
	// The method is no part of it either way.
	for _, method := range []string{"GET", "HEAD", "POST", "OPTIONS", "TRACE", "PURGE"} {
		s.raw(t, "app", method+" /public/a HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n").wants(t, http.StatusOK)
		s.raw(t, "app", method+" /x HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n").wants(t, http.StatusUnauthorized)
	}
}

// TestForwardedHeadersAreNotBelieved says with every header that proxies
// have for it that the request is another one.
func TestForwardedHeadersAreNotBelieved(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.start(t, s.caddyfile(usual, s.site(t, "app", `
		polar
		polar_require pro {
			public /free
		}
		reverse_proxy {upstream}`), s.site(t, "away", `
		polar
		polar_require pro {
			refuse redirect https://shop.example/?next={return_to}
		}`)))
	for _, name := range []string{
		"X-Forwarded-Uri", "X-Forwarded-Path", "X-Forwarded-Prefix", "X-Original-Uri", "X-Replaced-Path", "X-Envoy-Original-Path", "X-Accel-Redirect",
	} {
		if n := s.upstream.reached(func() {
			s.get(t, "app", "/x", header(name, "/free")).problem(t, http.StatusUnauthorized, "token_missing")
		}); n != 0 {
			t.Errorf("%s opens the gate", name)
		}
	}
	for _, name := range []string{"X-Forwarded-For", "X-Real-IP", "X-Client-IP", "True-Client-IP", "CF-Connecting-IP", "Forwarded"} {
		for _, value := range []string{"127.0.0.1", "::1", "10.0.0.1", "for=127.0.0.1", "localhost"} {
			s.get(t, "app", "/x", header(name, value)).problem(t, http.StatusUnauthorized, "token_missing")
		}
	}
	s.get(t, "app", "/x", header("X-Forwarded-Method", "OPTIONS")).problem(t, http.StatusUnauthorized, "token_missing")
	// Nor do they, or the Referer, get into where a visitor is sent.
	evil := func(r *http.Request) {
		for _, name := range []string{"X-Forwarded-Host", "X-Forwarded-Server", "X-Host", "Forwarded", "Referer", "Origin"} {
			r.Header.Set(name, `https://evil.example/"><script>alert(1)</script>`)
		}
		r.Header.Set("X-Forwarded-Proto", "https")
	}
	want := "https://shop.example/?next=" + url.QueryEscape("http://"+s.sites["away"]+"/x")
	if r := s.get(t, "away", "/x", browser, evil); r.header.Get("Location") != want {
		t.Errorf("got %v, Location %s, want %s", r, r.header.Get("Location"), want)
	}
	if r := s.get(t, "app", "/x", browser, evil).wants(t, http.StatusUnauthorized); strings.Contains(r.body, "evil.example") {
		t.Errorf("the page is %s", r.body)
	}
}

// TestBuyersAddressIsCaddys tells Polar where a buyer is by Caddy's word.
func TestBuyersAddressIsCaddys(t *testing.T) {
	t.Parallel()
	s := startShop(t)
	spoof := func(r *http.Request) {
		for _, name := range []string{"X-Forwarded-For", "X-Real-IP", "CF-Connecting-IP", "True-Client-IP"} {
			r.Header.Set(name, "203.0.113.66")
		}
		r.Header.Set("Forwarded", "for=203.0.113.66")
	}
	id, _ := s.post(t, "/auth/polar/checkout", `{"plan":"pro"}`, as("ada"), spoof).wants(t, http.StatusOK).json(t)["id"].(string)
	if got, ok := s.box.Checkout(id); !ok || got.CustomerIP != "127.0.0.1" {
		t.Errorf("the buyer is at %q", got.CustomerIP)
	}
}

// TestNoTunnel: a wish for clear-text HTTP/2 does not reach the app, as what came
// through it would pass no gate. WebSockets do.
func TestNoTunnel(t *testing.T) {
	t.Parallel()
	s := startPaywall(t)
	for upgrade, want := range map[string]string{"h2c": "", "websocket, H2C": "", "websocket": "websocket"} {
		seen := s.get(t, "app", "/free", header("Upgrade", upgrade), header("HTTP2-Settings", "AAMAAABkAAQCAAAAAAIAAAAA"),
			header("Connection", "Upgrade, HTTP2-Settings")).seen(t)
		if got := seen.Header.Get("Upgrade"); got != want || want == "" && seen.Header.Get("Http2-Settings") != "" {
			t.Errorf("%s: the app sees %v", upgrade, seen.Header)
		}
	}
}

// TestNoBackDoor knocks as those do for whom other gates have had a door.
func TestNoBackDoor(t *testing.T) {
	t.Parallel()
	s := startPaywall(t)
	u := s.subscribe(t, "app", productPro)
	good := userToken(u.user)
	for what, o := range map[string]option{
		"a load balancer's check": header("User-Agent", "GoogleHC/1.0"),
		"a cluster's probe":       header("User-Agent", "kube-probe/1.30"),
		"Polar":                   header("User-Agent", "polar.sh webhooks"),
		"a crawler":               header("User-Agent", "Googlebot/2.1"),
		"no user agent":           header("User-Agent", ""),
		"a framework's inside":    header("X-Middleware-Subrequest", "middleware:middleware:middleware"),
		"an inner request":        header("X-Internal-Request", "true"),
		"a proxy's user":          header("X-Forwarded-User", u.user),
		"a proxy's e-mail":        header("X-Forwarded-Email", "ada@example.org@evil.example"),
		"an auth server's user":   header("Remote-User", u.user),
		"our session's question":  header("Polar-Gateway", "yes"),
		"a trailing method":       header("X-HTTP-Method-Override", "OPTIONS"),
		"a webhook's headers":     signed(s.key, nil),
		"a cookie of no source":   header("Cookie", "session="+good),
		"the token elsewhere":     header("X-Access-Token", good),
	} {
		if n := s.upstream.reached(func() { s.get(t, "app", "/pro/x", o).problem(t, http.StatusUnauthorized, "token_missing") }); n != 0 {
			t.Errorf("%s has reached the upstream", what)
		}
	}
	for _, query := range []string{"token=", "access_token=", "jwt=", "auth=", "Authorization=Bearer%20"} {
		s.get(t, "app", "/pro/x?"+query+good).problem(t, http.StatusUnauthorized, "token_missing")
	}
	// An address is no name: whoever has a customer's e-mail is not that customer.
	for _, email := range []string{"ada@example.org", "ada@example.org@evil.example", "ADA@EXAMPLE.ORG"} {
		token := sign(jwt.SigningMethodHS256, []byte(jwtSecret), claims("mallory", object{"email": email, "email_verified": true}))
		s.get(t, "app", "/pro/x", bearer(token)).problem(t, http.StatusPaymentRequired, "no_subscription")
		s.get(t, "app", "/pro/x", as(email)).problem(t, http.StatusPaymentRequired, "no_subscription")
	}
	s.get(t, "app", "/pro/x", bearer(good)).wants(t, http.StatusOK)
}

// TestClientTextIsNotExpanded sends placeholders of Caddy's in all that a client
// can say and we repeat.
func TestClientTextIsNotExpanded(t *testing.T) {
	t.Parallel()
	s := startServer(t, `
		polar
		polar_require /page/* /json/* pro
		polar_require /away/* pro {
			refuse redirect https://shop.example/?next={return_to}
		}
		polar_require /error/* pro {
			refuse error
		}
		reverse_proxy {upstream} {
			header_up Says "{http.polar.user} {http.auth.user.id} {header.X-Polar-User}"
		}
		handle_errors {
			header Says "{http.polar.user} {http.polar.reason}"
			respond "{http.polar.user} {http.polar.reason} {err.message} {uri}"
		}`)
	// The process knows the first, and Caddy the second of every request.
	const evil = "{env.JWT_SECRET}{http.request.uuid}"
	leaks := func(what string, r *reply, says string) {
		t.Helper()
		all := r.body + fmt.Sprint(r.header)
		if strings.Contains(all, jwtSecret) {
			t.Errorf("%s: the answer holds the secret: %v", what, r)
		}
		if !strings.Contains(all, says) {
			t.Errorf("%s: the text is not repeated as it came, and nothing was tested: %v %v", what, r, r.header)
		}
	}
	hostile := []option{as(evil), header("Referer", "http://x/"+evil), header("User-Agent", evil), header("X-Request-Id", evil)}
	asBrowser := append([]option{browser}, hostile...)
	escaped := url.PathEscape(evil)
	r := s.get(t, "app", "/free/"+escaped+"?"+escaped, hostile...)
	leaks("the app", r, evil)
	if got := r.seen(t).Header.Get("Says"); got != evil+" "+evil+" "+evil {
		t.Errorf("the app was told %q", got)
	}
	leaks("a redirect", s.get(t, "app", "/away/"+escaped+"?"+escaped, asBrowser...).wants(t, http.StatusSeeOther), url.QueryEscape(escaped))
	r = s.get(t, "app", "/error/"+escaped, hostile...).wants(t, http.StatusPaymentRequired)
	leaks("an error page", r, evil+" no_subscription")
	leaks("a page", s.get(t, "app", "/page/"+escaped, asBrowser...).wants(t, http.StatusPaymentRequired), "no_subscription")
	leaks("JSON", s.get(t, "app", "/json/"+escaped, hostile...).wants(t, http.StatusPaymentRequired), "no_subscription")
	leaks("a route", s.get(t, "app", whoami, hostile...).wants(t, http.StatusOK), evil)
	leaks("no route", s.get(t, "app", "/auth/polar/"+escaped, hostile...).wants(t, http.StatusNotFound), "not_found")
	if strings.Contains(s.logs(), jwtSecret) {
		t.Error("the secret stands in the log")
	}
}

// TestWeSetNoCookies: what we know of a visitor is theirs to send or ours to
// keep, and no cookie grows too big or goes too far.
func TestWeSetNoCookies(t *testing.T) {
	t.Parallel()
	s := startShop(t)
	success := s.buy(t, "ada", "pro")
	answers := []*reply{
		s.get(t, "app", strings.TrimPrefix(success, s.origin()), browser).wants(t, http.StatusOK),
		s.get(t, "app", "/pro/x", browser).wants(t, http.StatusUnauthorized),
		s.get(t, "app", "/pro/x", cookie("eve")).wants(t, http.StatusPaymentRequired),
		s.get(t, "app", whoami, cookie("ada")).wants(t, http.StatusOK),
		s.get(t, "app", "/auth/polar/portal", cookie("ada"), browser).wants(t, http.StatusSeeOther),
		s.get(t, "app", "/auth/polar/checkout?plan=pro", cookie("eve"), browser).wants(t, http.StatusSeeOther),
	}
	for _, r := range answers {
		if got := r.header.Values("Set-Cookie"); len(got) != 0 {
			t.Errorf("%v sets %q", r, got)
		}
	}
}

// TestMetricsOverReload reads the metrics before and after reloads that add and
// take away a gateway: nothing panics, is lost or stands there twice, and what is
// gone is gone.
func TestMetricsOverReload(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	second := strings.Replace(usual, "polar {", "polar second {", 1)
	one := s.caddyfile("metrics\n"+usual, s.paywall(t, "app"))
	two := s.caddyfile("metrics\n"+usual+second, s.paywall(t, "app"), s.site(t, "second", "polar second\nrespond hello"))
	s.start(t, one)
	u := s.subscribe(t, "app", productPro)
	for i, config := range []string{two, one, two, two + "\n# the same", one} {
		s.load(t, config).wants(t, http.StatusOK)
		waitFor(t, "an answer over connections that the reload has closed", func() bool {
			r, err := s.try(http.MethodGet, "http://"+s.sites["app"]+"/pro/x", as(u.user))
			return err == nil && r.status == http.StatusOK
		})
		body := s.ask(t, http.MethodGet, "/metrics").wants(t, http.StatusOK).body
		for _, name := range []string{"caddy_polar_decisions_total", "caddy_polar_tokens_total", "caddy_polar_webhooks_total"} {
			if n := strings.Count(body, "# TYPE "+name+" "); n != 1 {
				t.Errorf("reload %d: %s stands there %d times", i, name, n)
			}
		}
		if got := `caddy_polar_decisions_total{allowed="true",gateway="default",reason="active"} `; !strings.Contains(body, got) {
			t.Errorf("reload %d: there is no %s", i, got)
		}
		if got := strings.Contains(body, `gateway="second"`); got != (config != one) {
			t.Errorf("reload %d: that the second gateway is in the metrics is %t", i, got)
		}
		for _, series := range []string{
			`caddy_polar_accounts{gateway="default",status="active"} 1`,
			`caddy_polar_decision_seconds_count{gateway="default"} `, `caddy_polar_store_seconds_count{op="commit"} `,
		} {
			if !strings.Contains(body, series) {
				t.Errorf("reload %d: there is no %s", i, series)
			}
		}
	}
}

// TestRefusalsKeepCORSHeaders: what a site sets before the gate goes out with a
// refusal, so that the page of another origin can read why.
func TestRefusalsKeepCORSHeaders(t *testing.T) {
	t.Parallel()
	s := startServer(t, `
		header Access-Control-Allow-Origin https://app.example
		header Vary Origin
		polar
		polar_require /pro/* pro
		polar_require /error/* pro {
			refuse error
		}
		reverse_proxy {upstream}
		handle_errors {
			respond "{http.polar.reason}"
		}`)
	origin := header("Origin", "https://app.example")
	for path, statuses := range map[string][2]int{"/pro/x": {401, 402}, "/error/x": {401, 402}} {
		for i, options := range [][]option{{origin}, {origin, as("stranger")}} {
			r := s.get(t, "app", path, options...).wants(t, statuses[i])
			if got := r.header.Values("Access-Control-Allow-Origin"); len(got) != 1 || got[0] != "https://app.example" {
				t.Errorf("%s: Access-Control-Allow-Origin is %q", path, got)
			}
			if !varies(r, "Origin") || !varies(r, "Authorization") {
				t.Errorf("%s: Vary is %q", path, r.header.Values("Vary"))
			}
		}
	}
}

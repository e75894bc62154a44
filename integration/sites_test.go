package integration

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"
)

// TestTwoSites checks the least of all: two sites, each with its paywall.
func TestTwoSites(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.start(t, s.caddyfile(usual, s.paywall(t, "app"), s.paywall(t, "other")))
	u := s.subscribe(t, "app", productPro)
	s.get(t, "other", "/pro/x", as(u.user)).wants(t, http.StatusOK)
	s.get(t, "other", "/pro/x").wants(t, http.StatusUnauthorized)
}

// TestTwoGateways checks that two gateways know nothing of each other.
func TestTwoGateways(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.env["JWT_SECRET_2"], s.env["WEBHOOK_SECRET_2"] = "2"+jwtSecret, "2"+webhookSecret
	second := strings.NewReplacer("polar {", "polar second {", "{env.JWT_SECRET}", "{env.JWT_SECRET_2}",
		"{env.POLAR_WEBHOOK_SECRET}", "{env.WEBHOOK_SECRET_2}", "plan basic", "plan only_second").Replace(usual)
	s.start(t, s.caddyfile(usual+second, s.paywall(t, "first"), s.site(t, "second", `
		polar second
		polar_require /pro/* pro
		polar_require /only/* only_second
		reverse_proxy {upstream}`), s.site(t, "gates", `
		polar_require /first/* pro
		polar_require /second/* pro {
			gateway second
		}
		reverse_proxy {upstream}`), s.site(t, "both", `
		polar
		polar second {
			path /auth/second
		}
		reverse_proxy {upstream}`)))
	second2 := func(user string) option {
		return bearer(sign(jwt.SigningMethodHS256, []byte(s.env["JWT_SECRET_2"]), claims(user, nil)))
	}

	u := newSubscriber(productPro)
	s.webhook(t, "second", u.active(t)).problem(t, http.StatusBadRequest, "bad_signature")
	s.deliver(t, "first", u.active(t))
	s.get(t, "first", "/pro/x", as(u.user)).wants(t, http.StatusOK)
	s.get(t, "second", "/pro/x", as(u.user)).problem(t, http.StatusUnauthorized, "token_invalid")
	s.get(t, "second", "/pro/x", second2(u.user)).problem(t, http.StatusPaymentRequired, "no_subscription")
	s.get(t, "gates", "/first/x", as(u.user)).wants(t, http.StatusOK)
	s.get(t, "gates", "/second/x", second2(u.user)).problem(t, http.StatusPaymentRequired, "no_subscription")
	// Both gates at once: no token is good for both.
	s.get(t, "gates", "/second/..;/first/x", as(u.user)).problem(t, http.StatusUnauthorized, "token_invalid")

	s.key = []byte(s.env["WEBHOOK_SECRET_2"])
	v := newSubscriber(productBasic)
	s.webhook(t, "first", v.active(t)).problem(t, http.StatusBadRequest, "bad_signature")
	s.deliver(t, "second", v.active(t))
	s.get(t, "second", "/only/x", second2(v.user)).wants(t, http.StatusOK)
	s.get(t, "first", "/basic/x", as(v.user)).problem(t, http.StatusPaymentRequired, "no_subscription")

	// Both on one site, under two paths.
	s.get(t, "both", "/auth/polar/subscription", as(u.user)).wants(t, http.StatusOK)
	s.get(t, "both", "/auth/second/subscription", second2(v.user)).wants(t, http.StatusOK)
	s.get(t, "both", "/auth/second/subscription", as(u.user)).problem(t, http.StatusUnauthorized, "token_invalid")
	s.do(t, http.MethodPost, "both", webhookPath, signed(s.key, v.active(t))).problem(t, http.StatusBadRequest, "bad_signature")
	s.do(t, http.MethodPost, "both", "/auth/second/webhook", signed(s.key, v.active(t))).wants(t, http.StatusOK)
}

// TestNothingStandsBeforeTheWebhook sends webhooks to sites that would do
// something else with every request.
func TestNothingStandsBeforeTheWebhook(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	refuses := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusForbidden)
	}))
	t.Cleanup(refuses.Close)
	s.write(t, "index.html", "a page")
	password, err := s.command("hash-password", "--plaintext", "x", "--bcrypt-cost", "4")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, directives string
		status           int    // of other requests
		uri              string // that the upstream sees of them
	}{
		{"basic_auth", "basic_auth {\nada " + strings.TrimSpace(password) + "\n}", 401, ""},
		{"forward_auth", "forward_auth " + refuses.URL + " {\nuri /check\n}", 403, ""},
		{"rewrite", "rewrite * /x", 200, "/x"},
		{"redir", "redir https://elsewhere.example{uri}", 302, ""},
		{"try_files", "root * " + s.dir + "\ntry_files {path} /index.html\nfile_server", 200, ""},
		{"uri strip_prefix", "uri strip_prefix /auth", 200, "/thing"},
		{"respond", "respond gone 410", 410, ""},
		{"a gate before all", "polar_require pro", 401, ""},
		{"method", "method DELETE", 200, "/auth/thing"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t)
			s.start(t, s.caddyfile(usual, s.site(t, "app", "polar\n"+c.directives+"\nreverse_proxy {upstream}")))
			u := s.subscribe(t, "app", productPro)
			got := s.get(t, "app", whoami, as(u.user)).wants(t, http.StatusOK).json(t)
			if fmt.Sprint(got["products"]) != fmt.Sprint([]string{productPro}) {
				t.Errorf("the webhook has not arrived: %v", got)
			}
			r := s.get(t, "app", "/auth/thing").wants(t, c.status)
			if c.uri != "" && r.seen(t).URI != c.uri {
				t.Errorf("the directive does nothing: %s", r)
			}
		})
	}
}

// TestRewrites checks that the gate judges both the path that came and the one
// that Caddy made of it.
func TestRewrites(t *testing.T) {
	t.Parallel()
	s := startServer(t, `
		polar
		polar_require /pro/* pro
		rewrite /open/* /pro{uri}
		rewrite /pro/renamed/* /free{uri}
		rewrite /query /pro/x?{query}
		uri strip_prefix /api
		uri replace /shortcut/ /pro/
		reverse_proxy {upstream}`)
	u := s.subscribe(t, "app", productPro)
	for _, path := range []string{
		"/open/x", "/pro/renamed/x", "/query", "/query?x", "/api/pro/x", "/shortcut/x", "/api/shortcut/x",
		"/OPEN/x", "/open/../open/x",
	} {
		if n := s.upstream.reached(func() {
			s.raw(t, "app", "GET "+path+" HTTP/1.1\r\nHost: {host}\r\n\r\n").problem(t, 401, "token_missing")
			s.raw(t, "app", "GET "+path+" HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer "+userToken("stranger")+"\r\n\r\n").
				problem(t, 402, "no_subscription")
		}); n != 0 {
			t.Errorf("%s has reached the upstream", path)
		}
		s.get(t, "app", path, as(u.user)).wants(t, http.StatusOK)
	}
	if got := s.get(t, "app", "/open/x", as(u.user)).seen(t).URI; got != "/pro/open/x" {
		t.Errorf("/open/x arrives as %s", got)
	}
	s.get(t, "app", "/free").wants(t, http.StatusOK)
}

func TestDefaultDeny(t *testing.T) {
	t.Parallel()
	s := startServer(t, `
		polar
		polar_require pro {
			public / /pricing /assets/*
		}
		reverse_proxy {upstream}`)
	u := s.subscribe(t, "app", productPro)
	raw := func(path string) *reply {
		return s.raw(t, "app", "GET "+path+" HTTP/1.1\r\nHost: {host}\r\n\r\n")
	}
	for _, path := range []string{
		"/", "/?a=b", "/pricing", "/pricing/", "/pricing?/../x", "/assets", "/assets/", "/assets/a.css", "/assets/b/c.js", "/assets/my%20file.css", "/assets/caf%C3%A9.css",
		"/assets/a%2Fb.css", "/assets/100%25.css",
	} {
		if r := raw(path); r.status != http.StatusOK {
			t.Errorf("%s is public, but got %v", path, r)
		}
	}
	for _, path := range []string{
		"/x", "/pricing/x", "/pricingx", "/assetsx", "/assets/../x", "/assets/..%2fx", "/assets/%2e%2e/x", "/assets/%252e%252e/x",
		"/assets/..;/x", `/assets/..\x`, "/assets/..%5cx", "/assets%2f../x", "/x/../assets/a", "/x/..;/assets/a", "/index.html", "//x", "/.x", "/assets/.../x",
	} {
		if n := s.upstream.reached(func() {
			if r := raw(path); r.status != http.StatusUnauthorized {
				t.Errorf("%s is not public, but got %v", path, r)
			}
		}); n != 0 {
			t.Errorf("%s has reached the upstream", path)
		}
	}
	s.get(t, "app", "/x", as("stranger")).problem(t, http.StatusPaymentRequired, "no_subscription")
	s.get(t, "app", "/x", as(u.user)).wants(t, http.StatusOK)
}

func TestRefusalKinds(t *testing.T) {
	t.Parallel()
	s := startServer(t, `
		polar
		polar_require /json/* pro {
			refuse json
		}
		polar_require /error/* pro {
			refuse error
		}
		polar_require /away/* pro {
			refuse redirect https://shop.example/login?next={return_to}
		}
		@matched path /matched/*
		polar_require @matched pro
		polar_require /anything/* any
		polar_require /both/* basic pro
		reverse_proxy {upstream}
		handle_errors {
			header Test-Reason {http.polar.reason}
			respond "an error page: {http.polar.reason} {err.status_code}"
		}`)
	u, basic := s.subscribe(t, "app", productPro), s.subscribe(t, "app", productBasic)

	t.Run("json", func(t *testing.T) {
		s.get(t, "app", "/json/x", browser).problem(t, http.StatusUnauthorized, "token_missing")
		s.get(t, "app", "/json/x", browser, as("stranger")).problem(t, http.StatusPaymentRequired, "no_subscription")
	})
	t.Run("error", func(t *testing.T) {
		r := s.get(t, "app", "/error/x").wants(t, http.StatusUnauthorized)
		if r.body != "an error page: token_missing 401" || r.header.Get("Test-Reason") != "token_missing" {
			t.Errorf("got %v, %v", r, r.header)
		}
		if !strings.HasPrefix(r.header.Get("WWW-Authenticate"), "Bearer") {
			t.Errorf("WWW-Authenticate is %q", r.header.Get("WWW-Authenticate"))
		}
		r = s.get(t, "app", "/error/x", as("stranger")).wants(t, http.StatusPaymentRequired)
		if r.body != "an error page: no_subscription 402" {
			t.Errorf("got %v", r)
		}
		if !strings.Contains(r.header.Get("Cache-Control"), "private") || !varies(r, "Authorization") {
			t.Errorf("Cache-Control %q, Vary %q", r.header.Get("Cache-Control"), r.header.Values("Vary"))
		}
	})
	t.Run("redirect", func(t *testing.T) {
		want := "https://shop.example/login?next=" + url.QueryEscape("http://"+s.sites["app"]+"/away/x?a=b&c=%2F")
		for _, options := range [][]option{{browser}, {browser, as("stranger")}} {
			r := s.get(t, "app", "/away/x?a=b&c=%2F", options...)
			if r.status < 300 || r.status > 399 || r.header.Get("Location") != want {
				t.Errorf("got %v, Location %s, want %s", r, r.header.Get("Location"), want)
			}
			if !strings.Contains(r.header.Get("Cache-Control"), "private") && !strings.Contains(r.header.Get("Cache-Control"), "no-store") {
				t.Errorf("Cache-Control is %q", r.header.Get("Cache-Control"))
			}
		}
		s.get(t, "app", "/away/x").problem(t, http.StatusUnauthorized, "token_missing")
		s.do(t, http.MethodPost, "app", "/away/x", browser).problem(t, http.StatusUnauthorized, "token_missing")
		s.get(t, "app", "/away/x", browser, as(u.user)).wants(t, http.StatusOK)
	})
	t.Run("plans and matchers", func(t *testing.T) {
		s.get(t, "app", "/matched/x").problem(t, http.StatusUnauthorized, "token_missing")
		s.get(t, "app", "/matched/x", as(basic.user)).problem(t, http.StatusPaymentRequired, "plan_required")
		s.get(t, "app", "/matched/x", as(u.user)).wants(t, http.StatusOK)
		for path, plans := range map[string][]any{"/anything/x": {"pro", "basic"}, "/both/x": {"pro", "basic"}} {
			s.get(t, "app", path, as(u.user)).wants(t, http.StatusOK)
			s.get(t, "app", path, as(basic.user)).wants(t, http.StatusOK)
			got, _ := s.get(t, "app", path, as("stranger")).problem(t, http.StatusPaymentRequired, "no_subscription")["plans"].([]any)
			if len(got) != len(plans) || !slices.Contains(got, plans[0]) || !slices.Contains(got, plans[1]) {
				t.Errorf("%s: plans are %v", path, got)
			}
		}
	})
}

func TestPreflight(t *testing.T) {
	t.Parallel()
	s := startServer(t, `
		polar
		polar_require /pro/* pro
		polar_require /strict/* pro {
			preflight refuse
		}
		reverse_proxy {upstream}`)
	preflight := []option{header("Origin", "https://app.example"), header("Access-Control-Request-Method", "POST")}
	forgery := header("X-Polar-User", "forged")
	v := s.do(t, http.MethodOptions, "app", "/pro/x", append(preflight, forgery)...).seen(t)
	if len(v.ours()) != 0 {
		t.Errorf("the upstream was told %v", v.ours())
	}
	if n := s.upstream.reached(func() {
		s.do(t, http.MethodOptions, "app", "/strict/x", preflight...).problem(t, http.StatusUnauthorized, "token_missing")
		// What lacks one of the two is no preflight.
		s.do(t, http.MethodOptions, "app", "/pro/x", preflight[0]).problem(t, http.StatusUnauthorized, "token_missing")
		s.do(t, http.MethodOptions, "app", "/pro/x", preflight[1]).problem(t, http.StatusUnauthorized, "token_missing")
		s.get(t, "app", "/pro/x", preflight...).problem(t, http.StatusUnauthorized, "token_missing")
	}); n != 0 {
		t.Errorf("%d requests have reached the upstream", n)
	}
}

// TestPlaceholders checks what the site itself can say about the user.
func TestPlaceholders(t *testing.T) {
	t.Parallel()
	s := startServer(t, `
		polar
		polar_require /pro/* pro
		respond "{http.polar.user}|{http.polar.customer}|{http.polar.plan}|{http.polar.plans}|{http.polar.status}|{http.polar.reason}|{http.polar.until}|{http.polar.allowed}|{http.auth.user.id}"`)
	u := s.subscribe(t, "app", productPro)
	want := strings.Join([]string{
		u.user, u.customer, "pro", "pro", "active", "active", told(now.Add(29 * day)), "true", u.user,
	}, "|")
	if r := s.get(t, "app", "/pro/x", as(u.user)); r.body != want {
		t.Errorf("got %s, want %s", r.body, want)
	}
	// What a client says is never expanded again.
	evil := "{env.JWT_SECRET}"
	if r := s.get(t, "app", "/free", as(evil)); !strings.HasPrefix(r.body, evil+"|") || strings.Contains(r.body, jwtSecret) {
		t.Errorf("got %s", r.body)
	}
}

package integration

import (
	"fmt"
	"net/http"
	"testing"
)

// TestPathSpellings sends paths as no well-behaved client would write them. The
// upstream takes everything: what reaches it has got past the gate.
func TestPathSpellings(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	blunt, hits := bluntUpstream(t)
	s.upstream.address = blunt
	s.start(t, s.caddyfile(usual, s.site(t, "app", `
		polar
		polar_require /premium/* pro
		reverse_proxy {upstream}`), s.site(t, "gate", `
		polar_require /premium/* pro
		reverse_proxy {upstream}`)))
	u, other := s.subscribe(t, "app", productPro), s.subscribe(t, "app", productBasic)

	get := func(t *testing.T, site, target, token string) (r *reply, reached bool) {
		t.Helper()
		before := hits.Load()
		authorization := ""
		if token != "" {
			authorization = "Authorization: Bearer " + token + "\r\n"
		}
		r = s.raw(t, site, fmt.Sprintf("GET %s HTTP/1.1\r\nHost: {host}\r\n%s\r\n", target, authorization))
		return r, hits.Load() > before
	}

	for _, target := range []string{
		"/premium", "/premium/", "/premium/a", "/premium?a", "/premium/a?b#c",
		"/PREMIUM/a", "/%70remium/a", "/premium%2Fa", "/x/../premium/a", "/x/..%2fpremium/a", "/.%2fpremium/a",
		"//premium/a", "///premium//a", "http://{host}/premium/a", "HTTP://{host}//premium/a", "http://{host}/x/../premium/a",
		"/premium;v=1/a", "/premium./a", "/public/..;/premium/a", "/premium%20/a", "/premium%252Fa", `/\premium/a`,
		"/./premium/a", "/premium/.", "/premium/..;/premium/a", "/premium%2f", "/premium%3bv=1/a", "/premium%3Fx", "/premium%23x",
		`/x\..\premium\a`, "/%5cpremium/a", "/x/%2e%2e/premium/a", "/x/%252e%252e/premium/a", "/%2570remium/a",
		"/prem%69um", "/PrEmIuM%2e/a", "/premium%2e%20/a", "/%20premium/a", "/x/.%2e/premium", "/x;/../premium/a",
		"//x/../premium/a", "//host/premium/a", "/premium%c0%afa", "/%ef%bd%90remium/a",
	} {
		for _, site := range []string{"app", "gate"} {
			for _, c := range []struct {
				token  string
				status int
			}{
				{"", http.StatusUnauthorized},
				{userToken("stranger"), http.StatusPaymentRequired},
				{userToken(other.user), http.StatusPaymentRequired},
			} {
				if r, reached := get(t, site, target, c.token); reached || r.status != c.status {
					t.Errorf("%s on %s: reached the upstream: %v, got %v, want %d", target, site, reached, r, c.status)
				}
			}
			if r, reached := get(t, site, target, userToken(u.user)); !reached || r.status != http.StatusOK {
				t.Errorf("%s on %s for a subscriber: reached the upstream: %v, got %v", target, site, reached, r)
			}
		}
	}

	for _, target := range []string{
		"/", "/premiumX", "/premiumX/a", "/premium-plus", "/pre/mium", "/x/premium", "/x?/premium/a", "/x/?next=/premium/a", "/apremium/a",
	} {
		if r, reached := get(t, "app", target, ""); !reached || r.status != http.StatusOK {
			t.Errorf("%s is free: reached the upstream: %v, got %v", target, reached, r)
		}
	}

	for _, target := range []string{
		"/premium%00/a", "/x%00", "/premium%0a", "/x%0d%0aX-Polar-User:root", "/x%7f", "/x%1f/premium", "/x%2500", "/x/%2e%2e%00/premium",
	} {
		for _, token := range []string{"", userToken(u.user)} {
			r, reached := get(t, "app", target, token)
			if reached {
				t.Errorf("%s has reached the upstream", target)
			}
			r.problem(t, http.StatusBadRequest, "bad_path")
		}
	}

	// What Caddy itself may refuse, in whatever way.
	for _, target := range []string{
		"premium/a", "/premium%zz/a", "/x%", "/premium/\x01", "/premium\x00/a", "/premium\x7f", "/x /premium/a", "",
		"http://elsewhere.example/premium/a", "/premium\t/a",
	} {
		if r, reached := get(t, "app", target, ""); reached {
			t.Errorf("%q has reached the upstream, got %v", target, r)
		}
	}

	if r := s.raw(t, "app", "CONNECT {host}/premium/a HTTP/1.1\r\nHost: {host}\r\n\r\n"); r.status == http.StatusOK {
		t.Errorf("CONNECT: got %v", r)
	}

	for _, method := range []string{"HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND", "NONSENSE"} {
		before := hits.Load()
		s.raw(t, "app", method+" /premium/a HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n").wants(t, http.StatusUnauthorized)
		if hits.Load() != before {
			t.Errorf("%s has reached the upstream", method)
		}
	}
}

// TestReadingsUnderTwoGates checks that a path that can be read as two things
// needs both plans.
func TestReadingsUnderTwoGates(t *testing.T) {
	t.Parallel()
	s := startPaywall(t)
	pro, basic := s.subscribe(t, "app", productPro), s.subscribe(t, "app", productBasic)
	both, second := s.subscribe(t, "app", productPro), newSubscriber(productBasic)
	second.user, second.customer = both.user, both.customer
	s.deliver(t, "app", second.active(t))
	for _, path := range []string{"/basic/..;/pro/x", "/pro/..;/basic/x", "/basic/..%252f/pro/x"} {
		if n := s.upstream.reached(func() {
			for user, code := range map[string]string{pro.user: "plan_required", basic.user: "plan_required", "stranger": "no_subscription"} {
				s.get(t, "app", path, as(user)).problem(t, http.StatusPaymentRequired, code)
			}
			s.get(t, "app", path).problem(t, http.StatusUnauthorized, "token_missing")
		}); n != 0 {
			t.Errorf("%s has reached the upstream", path)
		}
		s.get(t, "app", path, as(both.user)).wants(t, http.StatusOK)
	}
	s.get(t, "app", "/pro").wants(t, http.StatusUnauthorized)
	s.get(t, "app", "/pro", as(pro.user)).wants(t, http.StatusOK)
}

// TestOpaqueTargets sends request targets with a scheme and no slash. Go keeps
// them apart from the path, and Caddy sends them on without the scheme: as
// "GET premium/a", which an upstream may resolve against its own address, as
// JavaScript's new URL(target, base) does.
func TestOpaqueTargets(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	blunt, hits := bluntUpstream(t)
	s.upstream.address = blunt
	s.start(t, s.caddyfile(usual, s.site(t, "rules", `
		polar
		polar_require /premium/* pro
		reverse_proxy {upstream}`), s.site(t, "deny", `
		polar
		polar_require pro {
			public / /pricing
		}
		reverse_proxy {upstream}`)))
	for _, site := range []string{"rules", "deny"} {
		for _, target := range []string{"http:premium/a", "x:premium/a", "http:%2fpremium/a", `http:\premium\a`, "http:./premium/a", "http:pricing/../premium"} {
			before := hits.Load()
			r := s.raw(t, site, "GET "+target+" HTTP/1.1\r\nHost: {host}\r\n\r\n")
			if hits.Load() > before {
				t.Errorf("%s on %s has reached the upstream, which saw %s", target, site, r.body)
			}
		}
	}
	before := hits.Load()
	if r := s.raw(t, "deny", "GET * HTTP/1.1\r\nHost: {host}\r\n\r\n"); hits.Load() > before {
		t.Errorf("* has reached the upstream, which saw %s", r.body)
	}
}

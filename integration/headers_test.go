package integration

import (
	"fmt"
	"maps"
	"strings"
	"testing"
)

// forgeries are our headers in the spellings that some upstream takes for them.
var forgeries = []string{
	"X-Polar-User: root", "x-polar-user: root", "X-POLAR-USER: root", "X_Polar_User: root", "X.Polar.User: root",
	"X-Polar_User: root", "x_polar-user: root", "X-Polar.User: root", "X.POLAR_USER: root",
	"X-Polar-Plan: pro", "X-Polar-Plans: pro,basic", "X-Polar-Status: active", "X-Polar-Reason: active",
	"X-Polar-Until: 2999-01-01T00:00:00Z", "X-Polar-Grace-Until: 2999-01-01T00:00:00Z",
	"X-Polar-Customer: forged", "X-Polar-Assertion: forged", "X-Polar-Anything: forged",
	"X!Polar~User: root", "x+polar|plan: pro", "X-Polar^Plans: pro", "X`Polar'Status: active", "X#Polar&Customer: forged", "X%Polar$Reason: active", "X*Polar*User: root",
	"X_Polar_Plan: pro", "X_POLAR_PLANS: pro", "x.polar.customer: forged", "X_Polar.Assertion: forged",
}

// forged is a raw request with all forgeries as headers and as trailers, and
// with our headers named as belonging to the connection.
func forged(path, token string, announce bool) string {
	var b strings.Builder
	fmt.Fprintf(&b, "POST %s HTTP/1.1\r\nHost: {host}\r\n", path)
	if token != "" {
		fmt.Fprintf(&b, "Authorization: Bearer %s\r\n", token)
	}
	b.WriteString("Connection: X-Polar-User, x-polar-plan,X_Polar_Plans\r\n")
	b.WriteString("Connection: X-Polar-Customer, X-Polar-Status, X-Polar-Reason, X-Polar-Until, close\r\n")
	b.WriteString("Transfer-Encoding: chunked\r\nX-Benign: stays\r\n")
	for _, line := range forgeries {
		b.WriteString(line + "\r\n")
	}
	if announce {
		b.WriteString("Trailer: X-Benign-Trailer\r\n")
		for _, line := range forgeries {
			name, _, _ := strings.Cut(line, ":")
			b.WriteString("Trailer: " + name + "\r\n")
		}
	}
	b.WriteString("\r\n5\r\nhello\r\n0\r\nX-Benign-Trailer: stays\r\n")
	for _, line := range forgeries {
		b.WriteString(line + "\r\n")
	}
	b.WriteString("\r\n")
	return b.String()
}

// TestForgedHeaders checks that the upstream hears of the user from us alone.
func TestForgedHeaders(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, options, sign string }{
		{"as Caddy comes", "", ""},
		// These options make Caddy itself let the spellings through.
		{"with underscores", "expected_underscore_headers X_Polar_User X_Polar_Plan", "x_polar_plan"},
		{"with dots", "expected_dot_headers X.Polar.User X.Polar.Customer", "x.polar.customer"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t)
			s.start(t, s.caddyfile(usual+"\nservers {\n"+c.options+"\n}", s.site(t, "app", `
				polar
				polar_require /pro/* pro
				polar_require /mine/* pro {
					refuse error
				}
				reverse_proxy {upstream}
				handle_errors {
					rewrite * /errors
					reverse_proxy {upstream} {
						@all status 200
						handle_response @all {
							copy_response 200
						}
					}
				}`), s.site(t, "gate", `
				polar_require /pro/* pro
				reverse_proxy {upstream}`), s.site(t, "bare", `reverse_proxy {upstream}`)))

			// Without us the forgeries arrive.
			bare := s.raw(t, "bare", forged("/x", "", true)).seen(t)
			if bare.ours()["assertion"] == "" || bare.Trailer.Get("X-Polar-Assertion") == "" ||
				c.sign != "" && !strings.Contains(strings.ToLower(fmt.Sprint(bare.Header)), c.sign) {
				t.Fatalf("the forgeries do not arrive without us either: %v %v", bare.Header, bare.Trailer)
			}

			u := s.subscribe(t, "app", productPro)
			identity := map[string]string{
				"user": u.user, "customer": u.customer, "plans": "pro", "status": "active", "reason": "active", "until": told(now.Add(29 * day)),
			}
			gated := maps.Clone(identity)
			gated["plan"] = "pro"
			for _, c := range []struct {
				site, path, token string
				want              map[string]string
			}{
				{"app", "/pro/x", userToken(u.user), gated},
				{"app", "/free", userToken(u.user), identity},
				{"app", "/free", "", nil},
				{"app", "/free", "broken.token.here", nil},
				{"app", "/free", userToken("stranger"), map[string]string{"user": "stranger", "status": "none", "reason": "no_subscription"}},
				{"gate", "/pro/x", userToken(u.user), gated},
				{"gate", "/free", userToken(u.user), identity},
				{"gate", "/free", "", nil},
				// Refused, and answered by an upstream on Caddy's error routes.
				{"app", "/mine/x", "", nil},
				{"app", "/mine/x", userToken("stranger"), map[string]string{"user": "stranger", "status": "none", "reason": "no_subscription"}},
			} {
				for _, announce := range []bool{true, false} {
					r := s.raw(t, c.site, forged(c.path, c.token, announce))
					what := fmt.Sprintf("%s%s, token %q, trailers announced %v", c.site, c.path, c.token, announce)
					if r.status != 200 {
						t.Errorf("%s: got %v", what, r)
						continue
					}
					v := r.seen(t)
					if got := v.ours(); !maps.Equal(got, c.want) {
						t.Errorf("%s: the upstream was told %v, want %v", what, got, c.want)
					}
					if c.path != "/mine/x" && (v.Header.Get("X-Benign") != "stays" || v.Body != "hello") {
						t.Errorf("%s: what is not ours was harmed: %+v", what, v)
					}
					if announce && c.path != "/mine/x" && v.Trailer.Get("X-Benign-Trailer") != "stays" {
						t.Errorf("%s: the client's own trailer was lost: %v", what, v.Trailer)
					}
				}
			}
			for _, site := range []string{"app", "gate"} {
				if n := s.upstream.reached(func() {
					s.raw(t, site, forged("/pro/x", "", true)).wants(t, 401)
					s.raw(t, site, forged("/pro/x", userToken("stranger"), true)).wants(t, 402)
				}); n != 0 {
					t.Errorf("%s: %d refused requests have reached the upstream", site, n)
				}
			}
		})
	}
}

// TestHeaderValues checks how odd user ids arrive, and another prefix.
func TestHeaderValues(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	other := strings.Replace(usual, "polar {", "polar {\n\t\theaders X-Member-", 1)
	s.start(t, s.caddyfile(other, s.paywall(t, "app")))
	for user, want := range map[any]string{
		"zoë@example.org": "zo%C3%AB@example.org", "50%": "50%25", " padded ": "%20padded%20", 1234567890123: "1234567890123",
	} {
		v := s.get(t, "app", "/free", bearer(userToken(user)), header("X-Member-User", "forged"), header("X-Polar-User", "not ours")).seen(t)
		if got := v.Header["X-Member-User"]; len(got) != 1 || got[0] != want {
			t.Errorf("user %v arrives as %q, want %q", user, got, want)
		}
		if v.Header.Get("X-Polar-User") != "not ours" {
			t.Error("a header outside the namespace was removed")
		}
	}
}

// TestOverrideHeaders checks the headers that make some upstreams serve
// another path or method than the request's own.
func TestOverrideHeaders(t *testing.T) {
	t.Parallel()
	s := startPaywall(t)
	u := s.subscribe(t, "app", productPro)
	for _, name := range []string{"X-Original-URL", "X-Rewrite-URL", "X~Original~URL", "x+rewrite!url"} {
		for _, value := range []string{
			"/pro/x", "/PRO/x", "/%70ro/x", "//pro/x", "/free/../pro/x", "http://elsewhere.example/pro/x", "/pro/x?a=b", "pro/x", "http:pro/x",
		} {
			if n := s.upstream.reached(func() {
				s.get(t, "app", "/free", header(name, value)).problem(t, 401, "token_missing")
				s.get(t, "app", "/free", header(name, "/free", value)).problem(t, 401, "token_missing")
				s.get(t, "app", "/free", header(name, value), as("stranger")).problem(t, 402, "no_subscription")
			}); n != 0 {
				t.Errorf("%s: %s has reached the upstream", name, value)
			}
			s.get(t, "app", "/free", header(name, value), as(u.user)).wants(t, 200)
		}
		s.get(t, "app", "/free", header(name, "/pro%00")).problem(t, 400, "bad_path")
		// Both gates at once.
		s.get(t, "app", "/pro/x", header(name, "/basic/x"), as(u.user)).wants(t, 402)
	}
	for _, path := range []string{"/free", "/pro/x"} {
		v := s.get(t, "app", path, as(u.user), header("X-Original-URL", "/also/free"), header("X-Rewrite-URL", "/also/free"),
			header("X-HTTP-Method-Override", "DELETE"), header("X-HTTP-Method", "DELETE"), header("X-Method-Override", "DELETE"),
			header("X~Original|URL", "/also/free"), header("X~HTTP~Method~Override", "DELETE")).seen(t)
		for _, name := range []string{
			"X-Original-Url", "X-Rewrite-Url", "X-Http-Method-Override", "X-Http-Method", "X-Method-Override", "X~original|url", "X~http~method~override",
		} {
			if v.Header[name] != nil {
				t.Errorf("%s: %s has reached the upstream", path, name)
			}
		}
	}
}

package integration

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// TestMatcher asks what a user has, wherever that stands.
func TestMatcher(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.env["JWT_SECRET_2"], s.env["WEBHOOK_SECRET_2"] = "2"+jwtSecret, "2"+webhookSecret
	second := strings.NewReplacer("polar {", "polar second {", "{env.JWT_SECRET}", "{env.JWT_SECRET_2}",
		"{env.POLAR_WEBHOOK_SECRET}", "{env.WEBHOOK_SECRET_2}").Replace(usual)
	s.start(t, s.caddyfile(usual+second, s.site(t, "app", `
		polar
		@pro polar pro
		@either polar basic pro
		@any expression polar('any')
		@cel expression polar('pro', 'basic') && path('/cel/*')
		@none not polar any
		@second polar second:pro
		respond /pro/* "pro"
		handle /is/* {
			handle @second {
				respond "second"
			}
			handle @pro {
				respond "pro {http.polar.user} {http.polar.plan}"
			}
			handle @either {
				respond "either"
			}
			handle @none {
				respond "none"
			}
			respond "else"
		}
		handle /cel/* {
			respond @cel "cel"
			respond "else"
		}
		handle /any/* {
			respond @any "any"
			respond "else"
		}
		handle /gated/* {
			route {
				@gated polar pro
				vars @gated matched yes
				polar_require pro
				reverse_proxy {upstream}
			}
		}`), s.site(t, "alone", `
		@pro polar pro
		handle @pro {
			reverse_proxy {upstream}
		}
		respond "else"`)))
	pro, basic := s.subscribe(t, "app", productPro), s.subscribe(t, "app", productBasic)
	s.key = []byte(s.env["WEBHOOK_SECRET_2"])
	for _, c := range []struct {
		path, user, want string
	}{
		{"/is/x", pro.user, "pro " + pro.user + " pro"},
		{"/is/x", basic.user, "either"},
		{"/is/x", "nobody", "none"},
		{"/is/x", "", "none"},
		{"/cel/x", pro.user, "cel"},
		{"/cel/x", basic.user, "cel"},
		{"/cel/x", "nobody", "else"},
		{"/any/x", basic.user, "any"},
		{"/any/x", "", "else"},
	} {
		var by []option
		if c.user != "" {
			by = append(by, as(c.user))
		}
		if got := s.get(t, "app", c.path, by...).wants(t, http.StatusOK).body; got != c.want {
			t.Errorf("%s as %q: %q, want %q", c.path, c.user, got, c.want)
		}
	}
	if got := s.get(t, "app", "/is/x", bearer("nonsense")).body; got != "none" {
		t.Errorf("a broken token: %q", got)
	}
	// A site with nothing but the matcher takes our headers off, too.
	seen := s.get(t, "alone", "/", as(pro.user), header("X-Polar-User", "someone"), header("X_Polar_Plan", "pro")).seen(t)
	if got := seen.ours(); len(got) != 0 {
		t.Errorf("%v", got)
	}
	if got := s.get(t, "alone", "/", as("nobody")).body; got != "else" {
		t.Errorf("%q", got)
	}
	// A matcher, the site's polar and a gate look at one token once.
	before := s.metric(t, `caddy_polar_tokens_total{result="valid"}`)
	s.get(t, "app", "/gated/x", as(pro.user)).wants(t, http.StatusOK)
	if n := s.metric(t, `caddy_polar_tokens_total{result="valid"}`) - before; n != 1 {
		t.Errorf("the token was looked at %v times", n)
	}
	s.get(t, "app", "/gated/x", as(basic.user)).problem(t, http.StatusPaymentRequired, "plan_required")
}

// metric is the value of one of Caddy's metrics, zero if there is none.
func (s *server) metric(t *testing.T, name string) (value float64) {
	t.Helper()
	for line := range strings.Lines(s.ask(t, http.MethodGet, "/metrics").wants(t, http.StatusOK).body) {
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			if _, err := fmt.Sscan(rest, &value); err != nil {
				t.Fatal(err)
			}
		}
	}
	return value
}

func TestMatcherErrors(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	for name, c := range map[string]struct{ matcher, want string }{
		"no plan":         {"polar", "one or more plans"},
		"unknown plan":    {"polar gold", "gold"},
		"unknown gateway": {"polar other:pro", "no gateway"},
		"a block":         {"polar pro {\nx\n}", "block"},
		"expression":      {"expression polar('gold')", "gold"},
	} {
		config := s.caddyfile(usual, s.site(t, "app", "@m "+c.matcher+"\nrespond @m ok"))
		out, err := s.command("validate", "--config", s.write(t, "wrong.caddyfile", config), "--adapter", "caddyfile")
		if err == nil || !strings.Contains(out, c.want) {
			t.Errorf("%s: %v: %s", name, err, tail(out, 3))
		}
	}
}

// TestMatcherWithoutStore checks that what cannot be known is no mismatch.
func TestMatcherWithoutStore(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.env["POLAR_ACCESS_TOKEN"] = "polar_oat_of_the_test"
	down := freeAddress(t) // nobody answers for Polar, so that nobody is known
	polar := strings.Replace(usual, "polar {", "polar {\n\t\taccess_token {env.POLAR_ACCESS_TOKEN}\n\t\tserver http://"+down, 1)
	s.start(t, s.caddyfile(polar, s.site(t, "app", `
		polar
		@pro polar pro
		respond @pro "pro"
		respond "else"`)))
	s.get(t, "app", "/", as("stranger")).wants(t, http.StatusServiceUnavailable)
	if got := s.get(t, "app", "/").wants(t, http.StatusOK).body; got != "else" {
		t.Errorf("%q", got)
	}
}

package integration

import (
	"encoding/json"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
)

// example is the README's first configuration.
const example = `{
	polar {
		access_token {env.POLAR_ACCESS_TOKEN}
		webhook_secret {env.POLAR_WEBHOOK_SECRET}
		jwt secret {env.JWT_SECRET}
		plan pro {env.POLAR_PRO_PRODUCT}
	}
}

app.example.com {
	polar
	polar_require /pro/* pro
	reverse_proxy localhost:3000
}
`

func TestRestart(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	config := s.caddyfile(usual, s.paywall(t, "app"))
	s.start(t, config)
	paid := s.subscribe(t, "app", productPro)
	late, gone := newSubscriber(productPro), newSubscriber(productPro)
	s.deliver(t, "app", late.event(t, "subscription.past_due", object{"past_due_at": wire(now.Add(-day))}))
	s.deliver(t, "app", gone.event(t, "subscription.revoked", object{
		"canceled_at": wire(now.Add(-day)), "ends_at": wire(now.Add(-day)), "ended_at": wire(now.Add(-day)),
	}))
	answers := func() []string {
		var all []string
		for _, user := range []string{paid.user, late.user, gone.user, "stranger"} {
			for _, path := range []string{"/auth/polar/subscription", "/auth/polar/entitlements"} {
				all = append(all, s.get(t, "app", path, as(user)).String())
			}
			r := s.get(t, "app", "/pro/x", as(user))
			if r.status == http.StatusOK {
				told, err := json.Marshal(r.seen(t).ours())
				if err != nil {
					t.Fatal(err)
				}
				all = append(all, string(told))
				continue
			}
			p := r.json(t)
			delete(p, "requestId")
			b, err := json.Marshal(p)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, string(b))
		}
		return all
	}
	before := answers()
	s.stop(t)
	if code := s.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("Caddy ended with %d on SIGTERM", code)
	}
	s.start(t, config)
	for i, after := range answers() {
		if after != before[i] {
			t.Errorf("before the restart: %s\nand after: %s", before[i], after)
		}
	}
}

// TestCrash checks that what was answered with 200 is never lost.
func TestCrash(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	config := s.caddyfile(usual, s.paywall(t, "app"))
	s.start(t, config)
	var users []*subscriber
	for range 10 {
		u := newSubscriber(productPro)
		users = append(users, u)
		body := u.active(t)
		r := s.webhook(t, "app", body)
		s.kill()
		r.wants(t, http.StatusOK)
		s.start(t, config)
		for _, u := range users {
			s.get(t, "app", "/pro/x", as(u.user)).wants(t, http.StatusOK)
		}
	}
}

// TestBesideARunningServer runs other commands while a server has the store.
func TestBesideARunningServer(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	config := s.caddyfile(usual, s.paywall(t, "app"))
	s.start(t, config)
	u := s.subscribe(t, "app", productPro)

	t.Run("a second server", func(t *testing.T) {
		second := newServer(t)
		second.dir, second.env = s.dir, s.env
		other := second.caddyfile(usual, second.paywall(t, "app"))
		file := second.write(t, "second.caddyfile", other)
		out, err := second.command("run", "--config", file, "--adapter", "caddyfile")
		if err == nil {
			t.Fatal("a second server runs on the same store")
		}
		if !strings.Contains(out, s.store()) || !strings.Contains(out, "another process") || !strings.Contains(out, "caddy reload") {
			t.Errorf("the second server says: %s", tail(notable(out), 3))
		}
	})
	t.Run("caddy validate", func(t *testing.T) {
		file := s.write(t, "valid.caddyfile", config)
		if out, err := s.command("validate", "--config", file, "--adapter", "caddyfile"); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	})
	t.Run("caddy reload", func(t *testing.T) {
		file := s.write(t, "valid.caddyfile", config)
		if out, err := s.command("reload", "--force", "--address", s.admin, "--config", file, "--adapter", "caddyfile"); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	})
	s.get(t, "app", "/pro/x", as(u.user)).wants(t, http.StatusOK)
	s.deliver(t, "app", newSubscriber(productPro).active(t))
}

func TestCommands(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.env["POLAR_ACCESS_TOKEN"], s.env["POLAR_PRO_PRODUCT"] = "polar_oat_CANARY", productPro
	file := s.write(t, "example.caddyfile", example)

	for _, file := range []string{file, shipped(t)} {
		if out, err := s.command("fmt", "--diff", file); err != nil {
			t.Errorf("caddy fmt: %v: %s", err, out)
		}
		if out, err := s.command("adapt", "--config", file, "--adapter", "caddyfile"); err != nil {
			t.Errorf("caddy adapt: %v: %s", err, out)
		}
	}
	out, err := s.command("adapt", "--config", file, "--adapter", "caddyfile")
	if err != nil {
		t.Fatalf("caddy adapt: %v: %s", err, out)
	}
	start := strings.Index(out, "{\"apps\"")
	if start < 0 {
		t.Fatalf("caddy adapt: no JSON: %s", out)
	}
	var adapted struct {
		Apps struct {
			Polar struct {
				Gateways map[string]object
			}
		}
	}
	if err := json.Unmarshal([]byte(firstLine(out[start:])), &adapted); err != nil {
		t.Fatalf("caddy adapt: %v", err)
	}
	if got := adapted.Apps.Polar.Gateways["default"]["access_token"]; got != "{env.POLAR_ACCESS_TOKEN}" {
		t.Errorf("caddy adapt: the access token is %v", got)
	}
	if strings.Contains(out, "CANARY") || strings.Contains(out, webhookSecret) {
		t.Error("caddy adapt shows a secret")
	}
	if out, err := s.command("validate", "--config", file, "--adapter", "caddyfile"); err != nil {
		t.Errorf("caddy validate: %v: %s", err, out)
	}
	out, err = s.command("list-modules")
	if err != nil {
		t.Fatal(err)
	}
	for _, module := range []string{"polar", "polar.stores.bolt", "http.handlers.polar", "http.handlers.polar_require"} {
		if !strings.Contains("\n"+out, "\n"+module+"\n") {
			t.Errorf("caddy list-modules has no %s", module)
		}
	}
}

// shipped is the example that comes with the program.
func shipped(t *testing.T) string {
	t.Helper()
	file, err := filepath.Abs("../Caddyfile.example")
	if err != nil {
		t.Fatal(err)
	}
	return file
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

// TestBadConfigurations checks that mistakes end in a sentence that names what
// is wrong, and shows no secret.
func TestBadConfigurations(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.env["SHORT"], s.env["CUSTOMER_TOKEN"], s.env["EMPTY"] = "CANARY-short", "polar_cst_CANARY", ""
	s.env["PEM"] = "-----BEGIN PUBLIC KEY-----\nCANARY\n-----END PUBLIC KEY-----"
	gateway := func(lines string) string { return "polar {\n" + lines + "\nplan pro {env.PRODUCT_PRO}\n}" }
	for name, c := range map[string]struct {
		global, site string
		says         []string
	}{
		"an empty secret":      {gateway("webhook_secret {env.EMPTY}"), "polar", []string{"gateway default", "webhook_secret", "{env.EMPTY}", "empty"}},
		"an unset secret":      {gateway("webhook_secret {env.NOT_SET}"), "polar", []string{"gateway default", "webhook_secret", "{env.NOT_SET}", "empty"}},
		"a short key":          {gateway("jwt secret {env.SHORT}"), "polar", []string{"gateway default", "jwt", "{env.SHORT}", "32"}},
		"a broken PEM":         {gateway("jwt public_key {env.PEM}"), "polar", []string{"gateway default", "jwt", "{env.PEM}"}},
		"a customer's token":   {gateway("access_token {env.CUSTOMER_TOKEN}"), "polar", []string{"gateway default", "access_token", "polar_oat_"}},
		"an unknown word":      {gateway("webhook_sceret {env.SHORT}"), "polar", []string{"Caddyfile", "webhook_sceret"}},
		"a word of the future": {gateway("notify http://127.0.0.1/ {env.SHORT}"), "polar", []string{"Caddyfile", "notify"}},
		"a scalar twice":       {gateway("server sandbox\nserver sandbox"), "polar", []string{"Caddyfile", "server", "twice"}},
		"a second block":       {gateway("") + "\n" + gateway(""), "polar", []string{"Caddyfile", "default"}},
		"an unknown plan":      {gateway(""), "polar\npolar_require /x/* gold", []string{"Caddyfile", "gold"}},
		"an ambiguous path":    {gateway(""), "polar\npolar_require /pro* pro", []string{"Caddyfile", "/pro*", "/pro/*"}},
		"no gateway":           {"", "polar", []string{"Caddyfile", "polar"}},
		"a matcher":            {gateway(""), "polar /auth/*", []string{"Caddyfile", "matcher"}},
	} {
		t.Run(name, func(t *testing.T) {
			file := s.write(t, "bad.Caddyfile", s.caddyfile(c.global, s.site(t, "app", c.site)))
			out, err := s.command("validate", "--config", file, "--adapter", "caddyfile")
			if err == nil {
				t.Fatal("it is taken")
			}
			for _, word := range c.says {
				if !strings.Contains(out, word) {
					t.Errorf("%q is missing in: %s", word, tail(notable(out), 2))
				}
			}
			if strings.Contains(out, "CANARY") {
				t.Errorf("a secret is in: %s", out)
			}
		})
	}
}

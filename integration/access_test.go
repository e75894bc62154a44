package integration

import (
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestRefusals(t *testing.T) {
	t.Parallel()
	s := startPaywall(t)

	t.Run("without a token", func(t *testing.T) {
		var r *reply
		if n := s.upstream.reached(func() { r = s.get(t, "app", "/pro/x") }); n != 0 {
			t.Error("the request has reached the upstream")
		}
		p := r.problem(t, http.StatusUnauthorized, "token_missing")
		if p["error"] != "Authentication required" {
			t.Errorf("error is %q", p["error"])
		}
		if got := r.header.Get("WWW-Authenticate"); got != "Bearer" && !strings.HasPrefix(got, "Bearer ") {
			t.Errorf("WWW-Authenticate is %q", got)
		}
		if p["nextStep"] != "login" {
			t.Errorf("nextStep is %v", p["nextStep"])
		}
	})

	t.Run("without a subscription", func(t *testing.T) {
		var r *reply
		if n := s.upstream.reached(func() { r = s.get(t, "app", "/pro/x", as("stranger")) }); n != 0 {
			t.Error("the request has reached the upstream")
		}
		p := r.problem(t, http.StatusPaymentRequired, "no_subscription")
		if p["reason"] != "no_subscription" || p["nextStep"] != "checkout" || !reflect.DeepEqual(p["plans"], []any{"pro"}) {
			t.Errorf("got %s", r.body)
		}
		if id, _ := p["requestId"].(string); len(id) != 36 {
			t.Errorf("requestId is %v", p["requestId"])
		}
		if !strings.Contains(r.header.Get("Cache-Control"), "private") {
			t.Errorf("Cache-Control is %q", r.header.Get("Cache-Control"))
		}
		if !varies(r, "Authorization") {
			t.Errorf("Vary is %q", r.header.Values("Vary"))
		}
	})

	t.Run("browsers get a page", func(t *testing.T) {
		for _, c := range []struct {
			status  int
			code    string
			options []option
		}{
			{http.StatusUnauthorized, "token_missing", []option{browser}},
			{http.StatusPaymentRequired, "no_subscription", []option{browser, as("stranger")}},
		} {
			r := s.get(t, "app", "/pro/x", c.options...).wants(t, c.status)
			if got := r.header.Get("Content-Type"); !strings.HasPrefix(got, "text/html") {
				t.Errorf("Content-Type is %q", got)
			}
			if !strings.Contains(r.body, "<h1>") || !strings.Contains(r.body, c.code) {
				t.Errorf("the page is %s", r.body)
			}
			if !strings.Contains(r.header.Get("Cache-Control"), "private") {
				t.Errorf("Cache-Control is %q", r.header.Get("Cache-Control"))
			}
		}
	})

	t.Run("scripts get JSON though they accept pages", func(t *testing.T) {
		s.get(t, "app", "/pro/x", browser, header("Sec-Fetch-Mode", "cors")).problem(t, http.StatusUnauthorized, "token_missing")
		s.do(t, http.MethodPost, "app", "/pro/x", browser).problem(t, http.StatusUnauthorized, "token_missing")
	})
}

// varies says whether Vary names the header.
func varies(r *reply, name string) bool {
	for _, field := range strings.Split(strings.Join(r.header.Values("Vary"), ","), ",") {
		if strings.EqualFold(strings.TrimSpace(field), name) {
			return true
		}
	}
	return false
}

// TestWebhookSecrets takes each kind of secret that Polar has ever made.
func TestWebhookSecrets(t *testing.T) {
	t.Parallel()
	for _, v := range secretVectors(t) {
		t.Run(v.Name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t)
			s.env["POLAR_WEBHOOK_SECRET"], s.key = v.Secret, v.key(t)
			global, listen := usual, strings.HasPrefix(v.Name, "polar listen")
			if listen {
				global = strings.Replace(usual, "polar {", "polar {\n\t\tserver sandbox", 1)
			}
			s.start(t, s.caddyfile(global, s.paywall(t, "app")))

			u := newSubscriber(productPro)
			s.get(t, "app", "/pro/x", as(u.user)).wants(t, http.StatusPaymentRequired)
			s.deliver(t, "app", u.active(t))
			s.get(t, "app", "/pro/x", as(u.user)).wants(t, http.StatusOK)

			if listen { // the secret is public
				s.stop(t)
				if err := s.tryStart(t, s.caddyfile(usual, s.paywall(t, "app"))); err == nil {
					t.Error("the secret of polar listen is taken in production")
				}
			}
		})
	}
}

// TestSecretRotation takes webhooks of either of two secrets.
func TestSecretRotation(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.env["SECOND_SECRET"] = "another-secret-of-at-least-32-characters"
	global := strings.Replace(usual, "SECRET}", "SECRET} {env.SECOND_SECRET}", 1)
	s.start(t, s.caddyfile(global, s.paywall(t, "app")))
	for _, secret := range []string{webhookSecret, s.env["SECOND_SECRET"]} {
		s.key = []byte(secret)
		u := s.subscribe(t, "app", productPro)
		s.get(t, "app", "/pro/x", as(u.user)).wants(t, http.StatusOK)
	}
}

// TestStates walks through what can happen to a subscription: what the visitor
// gets and what the upstream is told.
func TestStates(t *testing.T) {
	t.Parallel()
	s := startPaywall(t)
	periodEnd := now.Add(29 * day)
	for _, c := range []struct {
		name, template string
		edits          object
		status         int
		reason         string
		nextStep       string
		until          string
		told           map[string]string // besides user, customer and reason
	}{
		{
			name: "active", template: "subscription.active", status: 200, reason: "active",
			told: map[string]string{"plan": "pro", "plans": "pro", "status": "active", "until": told(periodEnd)},
		},
		{
			name: "trialing", template: "subscription.active.trialing", status: 200, reason: "trialing",
			edits: object{"trial_start": wire(now.Add(-day)), "trial_end": wire(now.Add(5 * day)), "current_period_end": wire(now.Add(5 * day))},
			told:  map[string]string{"plan": "pro", "plans": "pro", "status": "trialing", "until": told(now.Add(5 * day))},
		},
		{
			name: "the renewal is late", template: "subscription.active", status: 200, reason: "renewal_grace",
			edits: object{"current_period_start": wire(now.Add(-31 * day)), "current_period_end": wire(now.Add(-day))},
			told: map[string]string{
				"plan": "pro", "plans": "pro", "status": "active", "until": told(now.Add(2 * day)), "grace-until": told(now.Add(2 * day)),
			},
		},
		{
			name: "the renewal has not come", template: "subscription.active", status: 402, reason: "period_ended",
			edits: object{"current_period_start": wire(now.Add(-34 * day)), "current_period_end": wire(now.Add(-4 * day))},
		},
		{
			name: "past due, in grace", template: "subscription.past_due", status: 200, reason: "past_due_grace",
			edits: object{"past_due_at": wire(now.Add(-day))},
			told: map[string]string{
				"plan": "pro", "plans": "pro", "status": "past_due", "until": told(now.Add(6 * day)), "grace-until": told(now.Add(6 * day)),
			},
		},
		{
			name: "past due, grace is over", template: "subscription.past_due", status: 402, reason: "past_due",
			nextStep: "portal", until: told(now.Add(-day)),
			edits: object{"past_due_at": wire(now.Add(-8 * day)), "current_period_start": wire(now.Add(-8 * day))},
		},
		{
			name: "canceled at the period's end", template: "subscription.canceled", status: 200, reason: "canceling",
			edits: object{"canceled_at": wire(now.Add(-day)), "ends_at": wire(periodEnd)},
			told:  map[string]string{"plan": "pro", "plans": "pro", "status": "active", "until": told(periodEnd)},
		},
		{
			name: "canceled at a period's end that has come", template: "subscription.canceled", status: 402, reason: "canceled",
			until: told(now.Add(-day)),
			edits: object{"canceled_at": wire(now.Add(-9 * day)), "ends_at": wire(now.Add(-day)), "current_period_end": wire(now.Add(-day))},
		},
		{
			name: "revoked", template: "subscription.revoked", status: 402, reason: "canceled", until: told(now.Add(-day)),
			edits: object{"canceled_at": wire(now.Add(-9 * day)), "ends_at": wire(now.Add(-day)), "ended_at": wire(now.Add(-day))},
		},
		{
			name: "paused", template: "subscription.paused", status: 402, reason: "paused", nextStep: "portal",
			edits: object{"paused_at": wire(now.Add(-day))},
		},
		{
			name: "in a status of the future", template: "subscription.active", status: 503, reason: "unknown_status",
			edits: object{"status": "hibernating"},
		},
		{
			name: "of another plan", template: "subscription.active", status: 402, reason: "plan_required",
			edits: object{"product_id": productBasic},
		},
		{
			name: "of a product outside every plan", template: "subscription.active", status: 402, reason: "no_subscription",
			edits: object{"product_id": productOther},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := newSubscriber(productPro)
			s.deliver(t, "app", u.event(t, c.template, c.edits))
			var r *reply
			reached := s.upstream.reached(func() { r = s.get(t, "app", "/pro/x", as(u.user)) })
			if c.status != http.StatusOK {
				p := r.problem(t, c.status, c.reason)
				if reached != 0 {
					t.Error("the request has reached the upstream")
				}
				if c.nextStep != "" && p["nextStep"] != c.nextStep {
					t.Errorf("nextStep is %v, want %s", p["nextStep"], c.nextStep)
				}
				if c.until != "" && p["until"] != c.until {
					t.Errorf("until is %v, want %s", p["until"], c.until)
				}
				if c.status == http.StatusServiceUnavailable && r.header.Get("Retry-After") == "" {
					t.Error("no Retry-After")
				}
				return
			}
			want := maps.Clone(c.told)
			want["user"], want["customer"], want["reason"] = u.user, u.customer, c.reason
			if got := r.seen(t).ours(); !maps.Equal(got, want) {
				t.Errorf("the upstream was told %v, want %v", got, want)
			}
			if !strings.Contains(r.header.Get("Cache-Control"), "private") || !varies(r, "Authorization") {
				t.Errorf("Cache-Control %q, Vary %q", r.header.Get("Cache-Control"), r.header.Values("Vary"))
			}
		})
	}

	t.Run("one subscription's life", func(t *testing.T) {
		u := newSubscriber(productPro)
		for i, step := range []struct {
			body   []byte
			status int
		}{
			{u.active(t), 200},
			{u.event(t, "subscription.past_due", object{"past_due_at": wire(now.Add(-8 * time.Hour))}), 200},
			{u.event(t, "subscription.active.recovered", nil), 200},
			{u.event(t, "subscription.canceled", object{"canceled_at": wire(now), "ends_at": wire(periodEnd)}), 200},
			{u.event(t, "subscription.uncanceled", nil), 200},
			{u.event(t, "subscription.revoked", object{
				"canceled_at": wire(now), "ends_at": wire(now), "ended_at": wire(now), "current_period_end": wire(now),
			}), 402},
		} {
			s.deliver(t, "app", step.body)
			s.deliver(t, "app", step.body) // Polar repeats itself
			if r := s.get(t, "app", "/pro/x", as(u.user)); r.status != step.status {
				t.Errorf("step %d: got %v, want %d", i, r, step.status)
			}
		}
	})

	t.Run("late webhooks change nothing", func(t *testing.T) {
		u := newSubscriber(productPro)
		opened, revoked := u.active(t), u.event(t, "subscription.revoked", object{
			"canceled_at": wire(now.Add(-day)), "ends_at": wire(now.Add(-day)), "ended_at": wire(now.Add(-day)),
		})
		s.deliver(t, "app", revoked)
		s.deliver(t, "app", opened)
		s.get(t, "app", "/pro/x", as(u.user)).problem(t, http.StatusPaymentRequired, "canceled")
	})

	t.Run("two plans", func(t *testing.T) {
		u, second := newSubscriber(productPro), newSubscriber(productBasic)
		second.user, second.customer = u.user, u.customer
		s.deliver(t, "app", u.active(t))
		s.deliver(t, "app", second.active(t))
		for path, plan := range map[string]string{"/pro/x": "pro", "/basic/x": "basic"} {
			got := s.get(t, "app", path, as(u.user)).seen(t).ours()
			plans := strings.Split(got["plans"], ",")
			slices.Sort(plans)
			if got["plan"] != plan || !slices.Equal(plans, []string{"basic", "pro"}) {
				t.Errorf("%s: the upstream was told %v", path, got)
			}
		}
	})
}

// TestCachePolicy checks that gated answers stay out of shared caches.
func TestCachePolicy(t *testing.T) {
	t.Parallel()
	s := startPaywall(t)
	u := s.subscribe(t, "app", productPro)
	for _, c := range []struct {
		path, from string
		want       []string
		never      []string
	}{
		{"/pro/x", "public, max-age=60", []string{"private", "max-age=60"}, []string{"public"}},
		{"/pro/x", "s-maxage=60", []string{"private"}, []string{"s-maxage"}},
		{"/pro/x", "no-store", []string{"no-store"}, []string{"public"}},
		{"/free", "public, max-age=60", []string{"public", "max-age=60"}, nil},
	} {
		r := s.get(t, "app", c.path, as(u.user), header("Test-Cache-Control", c.from)).wants(t, http.StatusOK)
		got := strings.Join(r.header.Values("Cache-Control"), ",")
		for _, word := range c.want {
			if !strings.Contains(got, word) {
				t.Errorf("%s with %q: Cache-Control is %q", c.path, c.from, got)
			}
		}
		for _, word := range c.never {
			if strings.Contains(got, word) {
				t.Errorf("%s with %q: Cache-Control is %q", c.path, c.from, got)
			}
		}
	}
}

// TestUnavailable checks what on_unavailable opens: those who are known and
// cannot be confirmed, and nobody else.
func TestUnavailable(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	down := freeAddress(t) // nobody answers for Polar
	s.env["POLAR_ACCESS_TOKEN"] = "polar_oat_of_the_test"
	polar := strings.Replace(usual, "polar {", "polar {\n\t\taccess_token {env.POLAR_ACCESS_TOKEN}\n\t\tserver http://"+down, 1)
	s.start(t, s.caddyfile(polar,
		s.paywall(t, "refuse"),
		s.site(t, "allow", `
			polar
			polar_require /pro/* pro {
				on_unavailable allow
			}
			reverse_proxy {upstream}`)))

	unconfirmed, odd, revoked := newSubscriber(productPro), newSubscriber(productPro), newSubscriber(productPro)
	s.deliver(t, "refuse", unconfirmed.event(t, "subscription.active", object{
		"current_period_start": wire(now.Add(-40 * day)), "current_period_end": wire(now.Add(-10 * day)),
		"created_at": wire(now.Add(-40 * day)), "modified_at": wire(now.Add(-40 * day)), "timestamp": wire(now.Add(-40 * day)),
	}))
	s.deliver(t, "refuse", odd.event(t, "subscription.active", object{"status": "hibernating"}))
	s.deliver(t, "refuse", revoked.event(t, "subscription.revoked", object{
		"canceled_at": wire(now.Add(-day)), "ends_at": wire(now.Add(-day)), "ended_at": wire(now.Add(-day)),
	}))

	for _, c := range []struct {
		user, reason string
	}{{unconfirmed.user, "unavailable"}, {odd.user, "unknown_status"}} {
		r := s.get(t, "refuse", "/pro/x", as(c.user))
		r.problem(t, http.StatusServiceUnavailable, c.reason)
		if r.header.Get("Retry-After") == "" {
			t.Error("no Retry-After")
		}
		got := s.get(t, "allow", "/pro/x", as(c.user)).seen(t).ours()
		if got["reason"] != c.reason || got["user"] != c.user {
			t.Errorf("let through without a mark: %v", got)
		}
	}
	if n := s.upstream.reached(func() {
		s.get(t, "allow", "/pro/x").wants(t, http.StatusUnauthorized)
		// Nothing was ever read from Polar: these could have paid, or not.
		s.get(t, "allow", "/pro/x", as("stranger")).problem(t, http.StatusServiceUnavailable, "unavailable")
		s.get(t, "allow", "/pro/x", as(revoked.user)).problem(t, http.StatusServiceUnavailable, "unavailable")
	}); n != 0 {
		t.Errorf("%d requests were let through that should not be", n)
	}
}

// TestDryRun sees what a gate would do: it refuses nobody, ends no answer, and
// tells of each it would have refused.
func TestDryRun(t *testing.T) {
	t.Parallel()
	s := startServer(t, `
		polar
		polar_require /pro/* pro {
			dry_run
		}
		reverse_proxy {upstream}`)
	paid := s.subscribe(t, "app", productPro)
	s.deliver(t, "app", newSubscriber(productBasic).active(t))
	s.get(t, "app", "/pro/x").seen(t)
	s.get(t, "app", "/pro/x", bearer("nonsense")).seen(t)
	s.get(t, "app", "/pro/%00").wants(t, http.StatusOK)
	seen := s.get(t, "app", "/pro/x", as("free"), header("X-Polar-Plan", "pro")).seen(t).ours()
	if seen["user"] != "free" || seen["reason"] != "no_subscription" || seen["plan"] != "" {
		t.Errorf("%v", seen)
	}
	if seen := s.get(t, "app", "/pro/x", as(paid.user)).seen(t).ours(); seen["plan"] != "pro" {
		t.Errorf("%v", seen)
	}
	for reason, want := range map[string]float64{
		"token_missing": 1, "token_invalid": 1, "bad_path": 1, "no_subscription": 1, "active": 0,
	} {
		if n := s.metric(t, `caddy_polar_dry_run_total{gateway="default",reason="`+reason+`",rule="/pro/* pro"}`); n != want {
			t.Errorf("%s: %v", reason, n)
		}
	}
	if n := s.metric(t, `caddy_polar_decisions_total{allowed="false",gateway="default",reason="no_subscription"}`); n != 0 {
		t.Errorf("%v refusals are counted", n)
	}
	if !strings.Contains(s.logs(), "dry run: would be refused") {
		t.Error("the log says nothing")
	}
}

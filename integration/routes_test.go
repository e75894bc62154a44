package integration

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestSubscriptionRoute(t *testing.T) {
	t.Parallel()
	s := startPaywall(t)
	const path = "/auth/polar/subscription"

	r := s.get(t, "app", path, as("stranger")).wants(t, http.StatusOK)
	if v, ok := r.json(t)["subscription"]; !ok || v != nil {
		t.Errorf("a stranger's subscription is %s", r.body)
	}
	if r.header.Get("Cache-Control") != "no-store" || r.header.Get("Referrer-Policy") != "no-referrer" {
		t.Errorf("the answer's headers are %v", r.header)
	}

	u := newSubscriber(productPro)
	s.deliver(t, "app", u.active(t))
	end := told(now.Add(29 * day))
	wantJSON(t, s.get(t, "app", path, as(u.user)), object{"subscription": object{
		"id": u.subscription, "status": "active", "productId": productPro, "plan": "pro",
		"currentPeriodEnd": end, "cancelAtPeriodEnd": false, "trialEnd": nil, "endsAt": nil, "pastDueAt": nil,
		"pausedAt": nil, "resumesAt": nil, "pendingUpdate": nil,
		"access": object{"allowed": true, "reason": "active", "until": end},
	}})

	s.deliver(t, "app", u.event(t, "subscription.canceled", object{"canceled_at": wire(now), "ends_at": wire(now.Add(29 * day))}))
	wantJSON(t, s.get(t, "app", path, as(u.user)), object{"subscription": object{
		"id": u.subscription, "status": "active", "productId": productPro, "plan": "pro",
		"currentPeriodEnd": end, "cancelAtPeriodEnd": true, "trialEnd": nil, "endsAt": end, "pastDueAt": nil,
		"pausedAt": nil, "resumesAt": nil, "pendingUpdate": nil,
		"access": object{"allowed": true, "reason": "canceling", "until": end},
	}})

	s.deliver(t, "app", u.event(t, "subscription.past_due", object{"past_due_at": wire(now.Add(-day))}))
	sub := s.get(t, "app", path, as(u.user)).wants(t, http.StatusOK).json(t)["subscription"].(object)
	if sub["pastDueAt"] != told(now.Add(-day)) || sub["status"] != "past_due" ||
		fmt.Sprint(sub["access"]) != fmt.Sprint(object{"allowed": true, "reason": "past_due_grace", "until": told(now.Add(6 * day))}) {
		t.Errorf("past due: %v", sub)
	}

	s.deliver(t, "app", u.event(t, "subscription.revoked", object{
		"canceled_at": wire(now.Add(-day)), "ends_at": wire(now.Add(-day)), "ended_at": wire(now.Add(-day)),
	}))
	wantJSON(t, s.get(t, "app", path, as(u.user)), object{"subscription": nil})
}

func TestEntitlementsRoute(t *testing.T) {
	t.Parallel()
	s := startPaywall(t)
	const path = "/auth/polar/entitlements"
	none := object{"allowed": false, "reason": "no_subscription", "until": nil}
	wantJSON(t, s.get(t, "app", path, as("stranger")), object{
		"user": "stranger", "plans": object{"pro": none, "basic": none}, "products": []any{}, "benefits": []any{},
	})
	u := s.subscribe(t, "app", productPro)
	wantJSON(t, s.get(t, "app", path, as(u.user)), object{
		"user": u.user,
		"plans": object{
			"pro":   object{"allowed": true, "reason": "active", "until": told(now.Add(29 * day))},
			"basic": object{"allowed": false, "reason": "plan_required", "until": nil},
		},
		"products": []any{productPro}, "benefits": []any{},
	})
}

// wantJSON checks an answer to the last key.
func wantJSON(t *testing.T, r *reply, want object) {
	t.Helper()
	if got := r.wants(t, http.StatusOK).header.Get("Content-Type"); got != "application/json" {
		t.Errorf("Content-Type is %q", got)
	}
	got, err := json.Marshal(r.json(t))
	if err != nil {
		t.Fatal(err)
	}
	expected, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(expected) {
		t.Errorf("got  %s\nwant %s", got, expected)
	}
}

func TestRouting(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.start(t, s.caddyfile(usual, s.paywall(t, "app"), s.site(t, "moved", `
		polar {
			path /billing
		}
		reverse_proxy {upstream}`)))
	for path, method := range map[string]string{"/webhook": "POST", "/subscription": "GET", "/entitlements": "GET"} {
		full := "/auth/polar" + path
		r := s.do(t, http.MethodOptions, "app", full).wants(t, http.StatusNoContent)
		if !strings.Contains(r.header.Get("Allow"), method) {
			t.Errorf("%s: Allow is %q", path, r.header.Get("Allow"))
		}
		wrong := map[string]string{"POST": "GET", "GET": "POST"}[method]
		for _, m := range []string{wrong, http.MethodDelete} {
			r = s.do(t, m, "app", full, as("u"))
			r.problem(t, http.StatusMethodNotAllowed, "method_not_allowed")
			if !strings.Contains(r.header.Get("Allow"), method) {
				t.Errorf("%s: Allow is %q", path, r.header.Get("Allow"))
			}
		}
		if path != "/webhook" {
			p := s.get(t, "app", full).problem(t, http.StatusUnauthorized, "token_missing")
			if p["error"] != "Authentication required" {
				t.Errorf("%s: error is %v", path, p["error"])
			}
			s.get(t, "app", full, bearer("bad.token.really")).problem(t, http.StatusUnauthorized, "token_invalid")
		}
	}
	if n := s.upstream.reached(func() {
		for _, path := range []string{"/auth/polar", "/auth/polar/", "/auth/polar/nothing", "/auth/polar/webhook/x", "/auth/polar/subscription/"} {
			s.get(t, "app", path, as("u")).problem(t, http.StatusNotFound, "not_found")
		}
	}); n != 0 {
		t.Error("the gateway's routes have reached the upstream")
	}
	s.get(t, "app", "/auth/polarbear").seen(t)
	s.get(t, "moved", "/billing/entitlements", as("u")).wants(t, http.StatusOK)
	s.get(t, "moved", "/auth/polar/entitlements", as("u")).seen(t)
}

func TestWebhookRoute(t *testing.T) {
	t.Parallel()
	s := startPaywall(t)
	u := newSubscriber(productPro)
	body := u.active(t)
	post := func(t *testing.T, options ...option) *reply {
		t.Helper()
		return s.do(t, http.MethodPost, "app", webhookPath, options...)
	}
	without := func(name string) option { return func(r *http.Request) { r.Header.Del(name) } }
	good := signed(s.key, body)

	refused := map[string][]option{
		"no headers at all":   {text(string(body))},
		"another secret":      {signed([]byte("whsec_another secret, which is wrong"), body)},
		"another body":        {good, text(string(body) + " ")},
		"too old":             {signedAt(s.key, body, time.Now().Add(-400*time.Second))},
		"too new":             {signedAt(s.key, body, time.Now().Add(400*time.Second))},
		"no id":               {good, without("Webhook-Id")},
		"no timestamp":        {good, without("Webhook-Timestamp")},
		"no signature":        {good, without("Webhook-Signature")},
		"another id":          {good, header("Webhook-Id", "another")},
		"another timestamp":   {good, header("Webhook-Timestamp", fmt.Sprint(time.Now().Unix()+7))},
		"malformed timestamp": {good, header("Webhook-Timestamp", "yesterday")},
		"malformed signature": {good, header("Webhook-Signature", "v1,not base64")},
		"unknown scheme":      {good, header("Webhook-Signature", "v2,"+strings.Repeat("A", 43)+"=")},
		"empty signature":     {good, header("Webhook-Signature", "v1,")},
		"empty body":          {good, text("")},
	}
	for _, name := range slices.Sorted(maps.Keys(refused)) {
		t.Run(name, func(t *testing.T) {
			r := post(t, refused[name]...).wants(t, http.StatusBadRequest)
			if e, _ := r.json(t)["error"].(string); !strings.Contains(e, "signature") {
				t.Errorf("error is %q", e)
			}
		})
	}
	s.get(t, "app", "/pro/x", as(u.user)).wants(t, http.StatusPaymentRequired)

	received := func(t *testing.T, r *reply) {
		t.Helper()
		if strings.TrimSpace(r.wants(t, http.StatusOK).body) != `{"received":true}` {
			t.Errorf("got %v", r)
		}
	}
	t.Run("verified", func(t *testing.T) {
		for name, body := range map[string]string{
			"no JSON":             "this is no JSON",
			"empty":               "",
			"an array":            "[]",
			"null":                "null",
			"no type":             `{"data":{}}`,
			"no data":             `{"type":"subscription.active"}`,
			"data is a string":    `{"type":"subscription.active","data":"x"}`,
			"malformed data":      `{"type":"subscription.active","data":{"id":7}}`,
			"empty data":          `{"type":"subscription.active","data":{}}`,
			"unknown, small":      `{"type":"nobody.knows","data":{"id":"x"}}`,
			"not even UTF-8":      "{\"type\":\"\xff\xfe\",\"data\":{}}",
			"nested deeply":       strings.Repeat("[", 200_000),
			"of 16 MiB precisely": `{"type":"nobody.knows","data":{}}` + strings.Repeat(" ", 16<<20-33),
		} {
			t.Run(name, func(t *testing.T) { received(t, s.webhook(t, "app", []byte(body))) })
		}
		t.Run("unknown event", func(t *testing.T) {
			received(t, s.webhook(t, "app", newSubscriber(productPro).event(t, "subscription.active", object{"type": "subscription.some_future_event"})))
		})
		t.Run("almost five minutes old, and several signatures", func(t *testing.T) {
			received(t, post(t, signedAt(s.key, body, time.Now().Add(-290*time.Second)), func(r *http.Request) {
				r.Header.Set("Webhook-Signature", "v1,"+strings.Repeat("A", 43)+"= v2,x "+r.Header.Get("Webhook-Signature"))
			}))
		})
	})
	s.get(t, "app", "/pro/x", as(u.user)).wants(t, http.StatusOK)

	t.Run("over 16 MiB", func(t *testing.T) {
		large := []byte(`{"type":"nobody.knows","data":{}}` + strings.Repeat(" ", 16<<20-32))
		post(t, signed(s.key, large)).problem(t, http.StatusRequestEntityTooLarge, "body_too_large")
	})
	t.Run("all that Polar sends", func(t *testing.T) {
		for _, name := range templates(t) {
			received(t, s.webhook(t, "app", readTemplate(t, name)))
		}
	})
	t.Run("of another organization", func(t *testing.T) {
		other := newSubscriber(productPro)
		foreign := strings.ReplaceAll(string(other.active(t)), organization, newID())
		received(t, s.webhook(t, "app", []byte(foreign)))
		s.get(t, "app", "/pro/x", as(other.user)).wants(t, http.StatusPaymentRequired)
	})
}

func TestWebhookNotConfigured(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.start(t, s.caddyfile("polar {\njwt secret {env.JWT_SECRET}\nplan pro {env.PRODUCT_PRO}\n}", s.site(t, "app", `
		polar
		polar_require /pro/* pro
		reverse_proxy {upstream}`)))
	r := s.webhook(t, "app", newSubscriber(productPro).active(t))
	r.problem(t, http.StatusServiceUnavailable, "not_configured")
	if r.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	s.get(t, "app", "/pro/x", as("u")).problem(t, http.StatusPaymentRequired, "no_subscription")
}

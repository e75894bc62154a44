package integration

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/caddy-polar/caddy-polar/polar/box"
	"github.com/caddy-polar/caddy-polar/polar/box/boxtest"
)

// TestSandboxBesideLive runs two organizations in one process, each on a host of
// its own, and with the same users: what is bought in one opens nothing in the
// other, by webhook, sync or look-up, and each sells its own.
func TestSandboxBesideLive(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	sandbox := boxtest.Start(t, box.Options{Start: time.Now(), SigningClock: time.Now, Seed: 7})
	pro := sandbox.AddProduct(box.Product{Name: "Pro", Interval: "month", Price: box.Price{Amount: 1, Currency: "usd"}})
	s.env["SANDBOX_SERVER"], s.env["SANDBOX_TOKEN"], s.env["SANDBOX_PRO"] = sandbox.URL, sandbox.NewToken(), pro.ID
	second := `
	polar sandbox {
		access_token {env.SANDBOX_TOKEN}
		server {env.SANDBOX_SERVER}
		jwt secret {env.JWT_SECRET}
		plan pro {env.SANDBOX_PRO}
	}`
	if _, err := s.box.Buy("live", "live@example.com", s.pro.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := sandbox.Buy("tester", "tester@example.com", pro.ID); err != nil {
		t.Fatal(err)
	}
	gated := func(gateway string) string {
		return "polar " + gateway + "\npolar_require /pro/* pro\nreverse_proxy {upstream}"
	}
	s.start(t, s.caddyfile(syncing+second, s.site(t, "app", gated("")), s.site(t, "sandbox", gated("sandbox"))))
	waitFor(t, "both first syncs", func() bool { return strings.Count(s.logs(), "the first sync is done") == 2 })
	for _, c := range []struct {
		site, user string
		status     int
	}{
		{"app", "live", http.StatusOK},
		{"app", "tester", http.StatusPaymentRequired},
		{"sandbox", "tester", http.StatusOK},
		{"sandbox", "live", http.StatusPaymentRequired},
	} {
		s.get(t, c.site, "/pro/", as(c.user)).wants(t, c.status)
	}
	for site, server := range map[string]string{"app": s.box.URL, "sandbox": sandbox.URL} {
		to := s.get(t, site, "/auth/polar/checkout?plan=pro", as("buyer"), browser).wants(t, http.StatusSeeOther).header.Get("Location")
		if !strings.HasPrefix(to, server+"/checkout/") {
			t.Errorf("%s sells at %s", site, to)
		}
		if site == "app" {
			continue
		}
		resp, err := s.client.PostForm(to, url.Values{"card": {"good"}, "email": {"buyer@example.com"}})
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
	}
	// The same user, who was at both checkouts and has paid at one, is looked up
	// at each.
	s.get(t, "sandbox", "/pro/", as("buyer")).wants(t, http.StatusOK)
	s.get(t, "app", "/pro/", as("buyer")).wants(t, http.StatusPaymentRequired)
}

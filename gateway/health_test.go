package gateway

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"github.com/caddy-polar/caddy-polar/polar/box"
)

func TestEndpointHealth(t *testing.T) {
	var told []EndpointProblem
	failing := true
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if failing {
			w.WriteHeader(http.StatusInternalServerError)
		}
	}))
	t.Cleanup(receiver.Close)
	s := newShop(t, box.Options{}, func(c *Config) {
		c.OnEndpoint = func(h EndpointHealth) { told = append(told, h.Problem) }
	})
	check := func(want EndpointProblem) EndpointHealth {
		t.Helper()
		if err := s.g.checkEndpoint(t.Context()); err != nil {
			t.Fatal(err)
		}
		h := s.g.Endpoint()
		if h.Problem != want {
			t.Errorf("%+v, want %q", h, want)
		}
		return h
	}
	check(EndpointMissing)
	check(EndpointMissing) // said once
	var all []string
	for kind, read := range eventKinds {
		if read != nil {
			all = append(all, kind)
		}
	}
	s.box.AddEndpoint(box.Endpoint{
		URL: receiver.URL + "/other", Secret: "another-secret-of-at-least-32-characters", Enabled: true, Events: []string{"product.created"},
	})
	ours := s.box.AddEndpoint(box.Endpoint{URL: receiver.URL + "/auth/polar/webhook", Secret: testSecret, Enabled: true, Events: []string{"order.paid"}})
	if h := check(EndpointEvents); !slices.Contains(h.Lacking, "subscription.revoked") || slices.Contains(h.Lacking, "order.paid") ||
		slices.Contains(h.Lacking, "product.updated") || h.URL != ours.URL {
		t.Errorf("%+v", h)
	}
	update := func(u box.EndpointUpdate) {
		t.Helper()
		if _, err := s.box.UpdateEndpoint(ours.ID, u); err != nil {
			t.Fatal(err)
		}
	}
	update(box.EndpointUpdate{Events: all})
	check(EndpointFine)
	if _, err := s.box.Buy(ada, "ada@example.com", s.pro.ID); err != nil {
		t.Fatal(err)
	}
	s.box.Settle()
	if h := check(EndpointFailing); h.Failed == 0 {
		t.Errorf("%+v", h)
	}
	failing = false
	off := false
	update(box.EndpointUpdate{Enabled: &off})
	check(EndpointDisabled)
	on := true
	update(box.EndpointUpdate{Enabled: &on})
	s.box.Advance(2 * time.Hour)
	check(EndpointFine)
	want := []EndpointProblem{EndpointMissing, EndpointEvents, EndpointFine, EndpointFailing, EndpointDisabled, EndpointFine}
	if !slices.Equal(told, want) {
		t.Errorf("told %q, want %q", told, want)
	}
}

// A token that may not read webhooks is no alarm.
func TestEndpointHealthWithoutScope(t *testing.T) {
	s := newShop(t, box.Options{}, func(c *Config) { c.AccessToken = "" })
	g, err := New(Config{
		Name: "default", Server: s.box.URL, AccessToken: s.box.NewToken("subscriptions:read"), WebhookSecrets: []string{testSecret},
		Plans: s.g.plans, Store: s.g.store, Now: s.box.Now, Logger: s.config.Logger,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
	if err := g.checkEndpoint(t.Context()); err != nil || !g.Endpoint().Checked.IsZero() {
		t.Errorf("%+v %v", g.Endpoint(), err)
	}
}

package caddypolar

import (
	"bufio"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/caddy-polar/caddy-polar/entitlement"
)

// siteServer serves the routes of a gateway from a real HTTP server.
func siteServer(t *testing.T, polar string) (*Gateway, *httptest.Server) {
	t.Helper()
	app, ctx := provisioned(t, polar)
	h := new(Handler)
	if err := h.Provision(ctx); err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := h.ServeHTTP(w, prepared(r, w), handlerFunc(noop)); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(s.Close)
	return app.Gateways["default"], s
}

func streamOf(t *testing.T, s *httptest.Server, token string) *bufio.Scanner {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+"/auth/polar/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resp.Body.Close() })
	if resp.StatusCode != http.StatusOK {
		t.Fatal(resp.Status)
	}
	return bufio.NewScanner(resp.Body)
}

func nextEvent(t *testing.T, lines *bufio.Scanner) string {
	t.Helper()
	for lines.Scan() {
		if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
			return data
		}
	}
	return ""
}

// Time alone changes an entitlement: nobody sends a webhook for the end of a
// grace.
func TestStreamTellsOfTime(t *testing.T) {
	g, s := siteServer(t, "plan pro "+testProduct)
	now := time.Now().UTC()
	take(t, g, payload(t, "subscription.active", map[string]any{
		"created_at": now.Add(-time.Hour), "current_period_start": now.Add(-time.Hour), "current_period_end": now.Add(300 * time.Millisecond),
	}))
	lines := streamOf(t, s, token(t, testUser, nil))
	for _, reason := range []entitlement.Reason{entitlement.ReasonActive, entitlement.ReasonRenewalGrace} {
		if got := nextEvent(t, lines); !strings.Contains(got, `"reason":"`+string(reason)+`"`) {
			t.Errorf("%s, want %s", got, reason)
		}
	}
}

// A stream is not held longer than its token.
func TestStreamEndsWithTheToken(t *testing.T) {
	_, s := siteServer(t, "jwt {\nsecret "+testJWTSecret+"\nleeway 0s\nfrom header X-Short\n}\nplan pro "+testProduct)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+"/auth/polar/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-Short", token(t, testUser, map[string]any{"exp": time.Now().Add(2 * time.Second).Unix()}))
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusOK {
		t.Error(resp.Status, err)
	}
}

func TestStreamsAreCounted(t *testing.T) {
	var s streams
	for i := range maxStreams {
		if !s.enter("ada") {
			t.Fatal(i)
		}
	}
	if s.enter("ada") || !s.enter("grace") {
		t.Error("the eleventh of a user, or the first of another")
	}
	s.leave("ada")
	if !s.enter("ada") {
		t.Error("after one has left")
	}
	for range maxStreams {
		s.leave("ada")
	}
	s.leave("grace")
	if len(s.users) != 0 {
		t.Errorf("remembered: %v", s.users)
	}
}

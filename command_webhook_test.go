package caddypolar

import (
	"bytes"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-polar/caddy-polar/polar/box"
	"github.com/caddy-polar/caddy-polar/polar/box/boxtest"
)

// setupSite is a gateway with a Polar in a box: its routes listen, and its admin
// API does on a socket.
type setupSite struct {
	t             *testing.T
	box           *boxtest.Server
	url, socket   string
	before, after http.Handler // what stands before the routes, and the routes
}

func newSetupSite(t *testing.T, token func(*boxtest.Server) string) *setupSite {
	t.Helper()
	s := &setupSite{t: t, box: boxtest.Start(t, box.Options{Start: time.Now(), SigningClock: time.Now})}
	app, ctx := provisioned(t, "server "+s.box.URL+"\naccess_token "+token(s.box)+"\nsync off\nplan pro "+testProduct)
	h := &Handler{}
	if err := h.Provision(ctx); err != nil {
		t.Fatal(err)
	}
	s.after = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := h.ServeHTTP(w, prepared(r, w), handlerFunc(noop)); err != nil {
			t.Error(err)
		}
	})
	s.before = s.after
	routes := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.before.ServeHTTP(w, r) }))
	t.Cleanup(routes.Close)
	s.url, s.socket = routes.URL, filepath.Join(t.TempDir(), "a.sock")
	listener, err := net.Listen("unix", s.socket)
	if err != nil {
		t.Fatal(err)
	}
	a := newAdminAPI(t, app)
	admin := httptest.NewUnstartedServer(a.http)
	admin.Listener = listener
	admin.Start()
	t.Cleanup(admin.Close)
	return s
}

// setUp runs `caddy polar webhook setup`.
func (s *setupSite) setUp(args ...string) (said string, err error) {
	s.t.Helper()
	var out bytes.Buffer
	cmd := webhookCommand()
	cmd.SetArgs(append([]string{"setup", "--address", "unix/" + s.socket}, args...))
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	err = cmd.ExecuteContext(s.t.Context())
	return out.String(), err
}

func wantSaid(t *testing.T, said string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(said, part) {
			t.Errorf("%q is not in:\n%s", part, said)
		}
	}
}

func anyToken(b *boxtest.Server) string { return b.NewToken() }

// TestWebhookSetup: the secret of a new endpoint is told, once, with what to do.
func TestWebhookSetup(t *testing.T) {
	s := newSetupSite(t, anyToken)
	said, err := s.setUp("--url", s.url)
	if err != nil {
		t.Fatal(err, said)
	}
	var made struct{ ID, Secret string }
	raw, err := s.setUp("--url", s.url, "--json")
	if err != nil {
		t.Fatal(err, raw)
	}
	if err := json.Unmarshal([]byte(raw), &made); err != nil {
		t.Fatal(err)
	}
	if e, ok := s.box.Endpoint(made.ID); !ok || e.Secret != made.Secret || e.URL != s.url+"/auth/polar/webhook" {
		t.Errorf("%s: %+v", raw, e)
	}
	wantSaid(t, said, "created: "+made.ID, s.url+"/auth/polar/webhook (the path was added)", "has reached this gateway",
		"webhook_secret {env.POLAR_WEBHOOK_SECRET}", "restart Caddy")
	for _, out := range []string{said, raw} {
		if strings.Count(out, made.Secret) != 1 || strings.Contains(out, testWebhookSecret) {
			t.Errorf("the secret stands there not once:\n%s", out)
		}
	}
}

// TestWebhookSetupMends what the owner, or Polar, has changed.
func TestWebhookSetupMends(t *testing.T) {
	s := newSetupSite(t, anyToken)
	e := s.box.AddEndpoint(box.Endpoint{URL: "https://old.example.com/hook", Secret: testWebhookSecret, Format: "slack", Events: []string{"order.paid"}})
	if _, err := s.box.UpdateEndpoint(e.ID, box.EndpointUpdate{Enabled: new(bool)}); err != nil {
		t.Fatal(err)
	}
	said, err := s.setUp("--url", s.url+"/auth/polar/webhook")
	if err != nil {
		t.Fatal(err, said)
	}
	wantSaid(t, said, "mended: "+e.ID, "  at https://old.example.com/hook", "of another format than raw",
		"  without benefit.created, benefit.updated, benefit_grant.created, benefit_grant.cycled and 32 more", "  disabled")
	if now, _ := s.box.Endpoint(e.ID); !now.Enabled || now.Format != "raw" || !slices.Contains(now.Events, "subscription.revoked") {
		t.Errorf("%+v", now)
	}
	said, err = s.setUp("--url", s.url+"/auth/polar/webhook")
	if err != nil || strings.Contains(said, "was") || strings.Contains(said, "POLAR_WEBHOOK_SECRET") {
		t.Error(err, said)
	}
	wantSaid(t, said, "as it should be: "+e.ID, "has reached this gateway")
}

func TestWebhookSetupFails(t *testing.T) {
	s := newSetupSite(t, anyToken)
	s.before = http.RedirectHandler("https://login.example.com/", http.StatusFound)
	said, err := s.setUp("--url", s.url)
	if err == nil || !strings.Contains(err.Error(), "do not arrive: it is redirected to https://login.example.com/") {
		t.Error(err)
	}
	wantSaid(t, said, "created", "redirected")
	for _, tt := range []struct {
		says string
		args []string
	}{
		{`"url" not set`, nil},
		{"https://", []string{"--url", "http://app.example.com"}},
		{"unknown command", []string{"nonsense", "--url", s.url}},
		{"there is no gateway", []string{"--url", s.url, "--gateway", "nope"}},
	} {
		if _, err := s.setUp(tt.args...); err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%q: %v", tt.args, err)
		}
	}

	s = newSetupSite(t, func(b *boxtest.Server) string { return b.NewToken("webhooks:read") })
	e := s.box.AddEndpoint(box.Endpoint{URL: s.url, Secret: testWebhookSecret, Events: []string{"order.paid"}})
	said, err = s.setUp("--url", s.url)
	if err == nil || !strings.Contains(err.Error(), "lacks webhooks:write") {
		t.Error(err)
	}
	wantSaid(t, said, "not mended: "+e.ID, "\n  is  ", "  without benefit.created", "has reached this gateway")
}

package caddypolar

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/caddy-polar/caddy-polar/gateway"
	"github.com/caddy-polar/caddy-polar/polar/box"
)

// doctor runs `caddy polar doctor`.
func (s *setupSite) doctor(args ...string) (said string, err error) {
	s.t.Helper()
	var out bytes.Buffer
	cmd := doctorCommand()
	cmd.SetArgs(append([]string{"--address", "unix/" + s.socket}, args...))
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	err = cmd.ExecuteContext(s.t.Context())
	return out.String(), err
}

// TestDoctorTable: the worst comes first, what is fine has one line, and nothing that a
// stranger wrote moves the terminal.
func TestDoctorTable(t *testing.T) {
	finding := func(id string, severity gateway.Severity, what, do string, details map[string]string) gateway.Finding {
		return gateway.Finding{ID: id, Severity: severity, What: what, Why: "It matters.", Do: do, Details: details}
	}
	v := viewDiagnosis("default", &gateway.Diagnosis{
		At: time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC), Took: 1200 * time.Millisecond,
		Findings: []gateway.Finding{
			finding("webhook_enabled", gateway.SeverityError, "Polar has disabled the endpoint", "enable it", nil),
			finding("webhook_deliveries", gateway.SeverityError, "events have not arrived: 3", "mend it",
				map[string]string{"status": "403", "answer": "no\x1b[31m\tway"}),
			finding("secrets", gateway.SeverityWarning, "secrets stand literally in the configuration: access_token", "write {env.NAME}", nil),
			finding("write_scopes", gateway.SeverityUnknown, "not known", "see the token", nil),
			finding("clock", gateway.SeverityOK, "this machine's clock goes with Polar's", "", map[string]string{"offBy": "1s"}),
			finding("plans", gateway.SeverityOK, "Polar has all", "", nil),
		},
	})
	var out strings.Builder
	w := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	v.table(w)
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	const want = `gateway default at 2026-11-22T09:00:00Z: error 2, warning 1, unknown 1, ok 2

ERROR
  webhook_enabled     Polar has disabled the endpoint
    why               It matters.
    do                enable it
  webhook_deliveries  events have not arrived: 3
    why               It matters.
    do                mend it
    answer            no[31mway
    status            403

WARNING
  secrets  secrets stand literally in the configuration: access_token
    why    It matters.
    do     write {env.NAME}

UNKNOWN
  write_scopes  not known
    why         It matters.
    do          see the token

OK
  clock  this machine's clock goes with Polar's (offBy 1s)
  plans  Polar has all
`
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
	if err := v.failure(); err == nil || !strings.HasSuffix(err.Error(), "webhook_enabled, webhook_deliveries") {
		t.Error(err)
	}
}

// TestDoctorCommand: errors make it fail, warnings do not, and no secret is told.
func TestDoctorCommand(t *testing.T) {
	s := newSetupSite(t, anyToken)
	s.box.AddEndpoint(box.Endpoint{URL: s.url + "/auth/polar/webhook", Secret: testWebhookSecret})
	said, err := s.doctor()
	if err == nil || !strings.HasSuffix(err.Error(), "mended: plans") { // the test's product is none of the box
		t.Errorf("%v\n%s", err, said)
	}
	wantSaid(t, said, "ERROR\n  plans", "Polar does not know product "+testProduct, "secrets stand literally in the configuration: ",
		"access_token, webhook_secret, jwt: secret", "sync is off", "a signed webhook to the address has reached this gateway")

	s.box.AddProduct(box.Product{Row: box.Row{ID: testProduct}, Name: "Pro", Interval: "month", Price: box.Price{Amount: 1000}})
	said, err = s.doctor()
	if err != nil || strings.Contains(said, "ERROR") {
		t.Errorf("%v\n%s", err, said)
	}
	raw, err := s.doctor("--json")
	if err != nil {
		t.Fatal(err)
	}
	var d diagnosisView
	if err := json.Unmarshal([]byte(raw), &d); err != nil || d.Gateway != "default" || len(d.Findings) < 25 || d.Took <= 0 {
		t.Errorf("%v: %s", err, raw)
	}
	var bad []string
	for _, f := range d.Findings {
		if f.Severity != "ok" && !strings.HasPrefix(f.ID, "disk_") { // whatever it is like here
			bad = append(bad, f.Severity+" "+f.ID)
		}
	}
	if want := []string{"warning sync", "warning secrets", "unknown write_scopes"}; !slices.Equal(bad, want) {
		t.Errorf("%q, want %q", bad, want)
	}
	for _, out := range []string{said, raw} {
		for _, secret := range []string{testWebhookSecret, testJWTSecret, "polar_oat_"} {
			if strings.Contains(out, secret) {
				t.Errorf("%q is told:\n%s", secret, out)
			}
		}
	}

	s.before = http.RedirectHandler("https://login.example.com/?next=secret", http.StatusFound)
	if said, err = s.doctor(); err == nil || !strings.HasSuffix(err.Error(), ": webhook_url") {
		t.Errorf("%v\n%s", err, said)
	}
	wantSaid(t, said, "redirected to https://login.example.com/, and Polar follows no redirect", "problem    redirect")
	if _, err := s.doctor("--gateway", "other"); err == nil || !strings.Contains(err.Error(), "there is no gateway") {
		t.Error(err)
	}
	if _, err := s.doctor("nonsense"); err == nil {
		t.Error("it takes no arguments")
	}
}

// TestSurroundings: what Caddy's side knows, and finds out, is handed over.
func TestSurroundings(t *testing.T) {
	keys := newKeyServer(t)
	keys.publish(t, "a", "b")
	app, _ := sessionEndpoint(t)
	t.Setenv("DOCTOR_SECRET", testWebhookSecret)
	a, ctx, end := loaded(t, strings.Replace(jwksGlobals(keys.URL, t.TempDir()), "audience app\n			max_stale 2d\n", fmt.Sprintf(`audience any
			user_prefix id:
		}
		jwt {
			jwks %s/jwks?apikey=hidden
			issuer id
			audience app
			algorithms RS256
			user_prefix id:
		}
		session %s/session?k=hidden {
			cookies s
			user_prefix app:
		}
		on_unavailable allow
		webhook_secret {env.DOCTOR_SECRET}
		notify http://127.0.0.1:1/hook %s
		grace {
`, keys.URL, app, fakeNotifySecret), 1))
	t.Cleanup(end)
	g := a.Gateways["default"]
	gate := &Gate{Plans: []string{"pro"}, DryRun: true}
	if err := gate.Provision(ctx); err != nil {
		t.Fatal(err)
	}
	s := g.surroundings(t.Context())
	if len(s.KeySets) != 2 || s.KeySets[0].Err != nil || s.KeySets[0].Fitting != 2 || s.KeySets[1].Keys != 2 || s.KeySets[1].Fitting != 0 {
		t.Errorf("keys: %+v", s.KeySets)
	}
	if s.Session == nil || s.Session.Err != nil || s.Session.Place != app+"/session" {
		t.Errorf("session: %+v", s.Session)
	}
	if want := []string{"notify"}; !slices.Equal(s.Literal, want) {
		t.Errorf("literal: %q, want %q", s.Literal, want)
	}
	if s.Nobody || !s.AllowUnavailable || len(s.Risks) != 2 || !strings.Contains(s.Risks[0], "audience any") || !strings.Contains(s.Risks[1], "pro has dry_run") {
		t.Errorf("%+v", s)
	}
	if said := fmt.Sprintf("%+v", s); strings.Contains(said, "hidden") || strings.Contains(said, testWebhookSecret) {
		t.Error(said)
	}
	keys.is(true)
	if s := g.surroundings(t.Context()); s.KeySets[0].Err == nil {
		t.Errorf("keys of an issuer that is down: %+v", s.KeySets)
	}
}

// TestSurroundingsOfSites: a gate can let in whom the gateway would not, and routes can
// have other paths.
func TestSurroundingsOfSites(t *testing.T) {
	a, ctx := provisioned(t, "plan pro "+testProduct)
	g := a.Gateways["default"]
	if s := g.surroundings(t.Context()); s.AllowUnavailable || s.Nobody || len(s.Risks) > 0 || s.Session != nil || len(s.KeySets) > 0 {
		t.Errorf("%+v", s)
	}
	for _, path := range []string{"", "/billing"} {
		if err := (&Handler{Path: path}).Provision(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if want := []string{"/auth/polar/webhook", "/billing/webhook"}; !slices.Equal(g.sites.routes, want) {
		t.Errorf("webhook routes %q, want %q", g.sites.routes, want)
	}
	if err := (&Gate{Plans: []string{"pro"}, OnUnavailable: policyAllow}).Provision(ctx); err != nil {
		t.Fatal(err)
	}
	if !g.surroundings(t.Context()).AllowUnavailable {
		t.Error("a gate with on_unavailable allow is not told of")
	}
}

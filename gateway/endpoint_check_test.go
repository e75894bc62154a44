package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/caddy-polar/caddy-polar/cache"
	"github.com/caddy-polar/caddy-polar/polar"
	"github.com/caddy-polar/caddy-polar/polar/box"
)

func mustURL(t *testing.T, address string) *url.URL {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// TestCheckFindings: each way in which webhooks do not arrive is told apart.
func TestCheckFindings(t *testing.T) {
	s := newSite(t)
	answers := func(status int, header, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			if name, value, ok := strings.Cut(header, ": "); ok {
				w.Header().Set(name, value)
			}
			w.WriteHeader(status)
			fmt.Fprint(w, body)
		}
	}
	var elsewhere atomic.Int32
	aside := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere.Add(1) }))
	t.Cleanup(aside.Close)
	for _, tt := range []struct {
		name    string
		handle  http.HandlerFunc
		problem CheckProblem
		status  int
		says    string
	}{
		{"an app", answers(200, "", "ok"), CheckUnheard, 200, "something else"},
		{"a page", answers(200, "Content-Type: text/html; charset=utf-8", "<h1>Log in"), CheckUnheard, 200, "a web page"},
		{"no content", answers(204, "", ""), CheckUnheard, 204, "something else"},
		{"another gateway of ours", answers(200, "", "{\"received\":true}\n"), CheckUnheard, 200, "load balancer"},
		{"moved", answers(301, "Location: "+aside.URL+"/x?token=1#a", ""), CheckRedirect, 301, aside.URL + "/x, and"},
		{"a login", answers(302, "Location: /login?next=/auth", ""), CheckRedirect, 302, "/login, and"},
		{"see other", answers(303, "Location: "+aside.URL, ""), CheckRedirect, 303, "follows no redirect"},
		{"temporarily", answers(307, "Location: "+aside.URL, ""), CheckRedirect, 307, "follows no redirect"},
		{"for good", answers(308, "Location: "+aside.URL, ""), CheckRedirect, 308, "follows no redirect"},
		{"nowhere", answers(308, "", ""), CheckRedirect, 308, "nowhere"},
		{"not modified", answers(304, "", ""), CheckStatus, 304, "wants 200"},
		{"basic auth", answers(401, "WWW-Authenticate: Basic", ""), CheckForbidden, 401, "POST " + WebhookPath},
		{"a firewall", answers(403, "", ""), CheckForbidden, 403, "POST " + WebhookPath},
		{"no route", answers(404, "", ""), CheckPath, 404, WebhookPath},
		{"files", answers(405, "", ""), CheckPath, 405, WebhookPath},
		{"a foreign gateway", answers(400, "", ""), CheckSignature, 400, "another gateway"},
		{"a limit", answers(413, "", ""), CheckTooLarge, 413, "one megabyte"},
		{"not ready", answers(503, "", ""), CheckNotReady, 503, "what answers there is not ready"},
		{"a gateway's upstream", answers(502, "", ""), CheckStatus, 502, "502"},
		{"a break", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, CheckUnreachable, 0, "breaks the connection"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			server := httptest.NewServer(tt.handle)
			t.Cleanup(server.Close)
			got, err := s.g.checkWebhook(t.Context(), mustURL(t, server.URL+WebhookPath))
			if err != nil || got.Problem != tt.problem || got.Status != tt.status || !strings.Contains(got.Says, tt.says) {
				t.Errorf("%+v %v", got, err)
			}
			if strings.Contains(got.Says, "token=1") || strings.Contains(got.Says, testSecret) {
				t.Error(got.Says)
			}
		})
	}
	if n := elsewhere.Load(); n > 0 {
		t.Errorf("%d redirects were followed", n)
	}
	if len(s.g.setup.checks.heard) > 0 {
		t.Errorf("left behind: %v", s.g.setup.checks.heard)
	}
}

func TestCheckWithoutAnswer(t *testing.T) {
	s := newSite(t)
	quiet := func(server *httptest.Server) *httptest.Server {
		server.Config.ErrorLog = log.New(io.Discard, "", 0)
		t.Cleanup(server.Close)
		return server
	}
	ok := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	untrusted := quiet(httptest.NewUnstartedServer(ok))
	untrusted.StartTLS()
	nameless := quiet(httptest.NewUnstartedServer(ok))
	nameless.TLS = &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		return nil, errors.New("no certificate for this name")
	}}
	nameless.StartTLS()
	plain := quiet(httptest.NewUnstartedServer(ok))
	plain.Start()
	closed := httptest.NewServer(ok)
	closed.Close()
	for address, want := range map[string]CheckProblem{
		untrusted.URL: CheckTLS,
		nameless.URL:  CheckTLS,
		strings.Replace(plain.URL, "http:", "https:", 1): CheckTLS,
		closed.URL: CheckRefused,
	} {
		if got, err := s.g.checkWebhook(t.Context(), mustURL(t, address+WebhookPath)); err != nil || got.Problem != want || got.Says == "" || got.Status != 0 {
			t.Errorf("%s: %+v %v", address, got, err)
		}
	}
	late, cancel := context.WithDeadline(t.Context(), time.Unix(1, 0))
	defer cancel()
	if got, err := s.g.checkWebhook(late, mustURL(t, s.url)); err != nil || got.Problem != CheckTimeout {
		t.Errorf("%+v %v", got, err)
	}
	given, giveUp := context.WithCancel(t.Context())
	giveUp()
	if _, err := s.g.checkWebhook(given, mustURL(t, s.url)); !errors.Is(err, context.Canceled) {
		t.Errorf("given up: %v", err)
	}
	for _, tt := range []struct {
		err  error
		want CheckProblem
	}{
		{&net.DNSError{Err: "no such host", IsNotFound: true}, CheckDNS},
		{&net.DNSError{Err: "i/o timeout", IsTimeout: true}, CheckDNS},
		{&net.OpError{Op: "dial", Err: &net.DNSError{IsNotFound: true}}, CheckDNS},
		{&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}, CheckRefused},
		{&net.OpError{Op: "dial", Err: syscall.ENETUNREACH}, CheckUnreachable},
		{&url.Error{Err: context.DeadlineExceeded}, CheckTimeout},
		{&net.OpError{Op: "read", Err: syscall.ETIMEDOUT}, CheckTimeout},
		{tls.RecordHeaderError{Msg: "not TLS"}, CheckTLS},
	} {
		if got := unanswered(mustURL(t, "https://app.example.com"+WebhookPath), tt.err); got.Problem != tt.want {
			t.Errorf("%v: %+v", tt.err, got)
		}
	}
	if len(s.g.setup.checks.heard) > 0 {
		t.Errorf("left behind: %v", s.g.setup.checks.heard)
	}
}

// What stands between can take the answer away.
func TestCheckAltered(t *testing.T) {
	s := newSite(t)
	t.Cleanup(http.DefaultTransport.(*http.Transport).CloseIdleConnections)
	for status, want := range map[int]CheckProblem{202: CheckFine, 404: CheckAltered, 302: CheckAltered} {
		between := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			on, _ := http.NewRequestWithContext(r.Context(), r.Method, s.url, r.Body)
			on.Header = r.Header
			if res, err := http.DefaultTransport.RoundTrip(on); err != nil {
				t.Error(err)
			} else {
				res.Body.Close()
			}
			w.WriteHeader(status)
		}))
		t.Cleanup(between.Close)
		if got, err := s.g.checkWebhook(t.Context(), mustURL(t, between.URL)); err != nil || got.Problem != want || got.Status != status {
			t.Errorf("%d: %+v %v", status, got, err)
		}
	}
}

// A gateway that cannot take webhooks yet says which of its own it lacks.
func TestCheckOfWhatIsNotReady(t *testing.T) {
	s := newSite(t, func(c *Config) { c.WebhookSecrets = nil })
	if got := s.setUp(s.url); got.State != SetupCreated || got.Secret == "" || got.Check.Problem != CheckNoSecret || got.Check.Status != 503 {
		t.Errorf("%+v", got)
	}
	foreign := cache.New(filepath.Join(t.TempDir(), "foreign.db"))
	if _, err := foreign.Claim(cache.Owner{Gateway: "another", Server: server}); err != nil {
		t.Fatal(err)
	}
	s = newSite(t, func(c *Config) { c.Store = foreign })
	if got, err := s.g.checkWebhook(t.Context(), mustURL(t, s.url)); err != nil || got.Problem != CheckNotReady || !strings.Contains(got.Says, "store") {
		t.Errorf("%+v %v", got, err)
	}
}

// The check is signed by the clock that webhooks are held against.
func TestCheckGoesByPolarsClock(t *testing.T) {
	s := newSite(t, func(c *Config) { c.Now = func() time.Time { return mustTime("2020-01-01T00:00:00Z") } })
	s.add(box.Endpoint{URL: s.url, Secret: testSecret})
	if got := s.setUp(s.url); got.Check.Problem != CheckFine {
		t.Errorf("%+v", got)
	}
}

// A check that nobody has sent is nothing, and is not remembered.
func TestTakeForeignCheck(t *testing.T) {
	s := newSite(t)
	signer, err := polar.NewWebhookVerifier(testSecret)
	if err != nil {
		t.Fatal(err)
	}
	for _, data := range []string{`{"nonce":"x"}`, `{"nonce":7}`, `[]`, `{}`} {
		body := []byte(`{"type":"` + checkEvent + `","timestamp":"2026-11-02T09:00:00Z","data":` + data + `}`)
		d, err := s.g.ReadDelivery(signer.Sign("check_1", s.g.Now(), body))
		if err != nil {
			t.Fatal(err)
		}
		r, err := s.g.TakeWebhook(t.Context(), d, body)
		if err != nil || r != (Receipt{Type: UnknownType, Result: ResultIgnored}) {
			t.Errorf("%s: %+v %v", data, r, err)
		}
	}
	if status := s.g.Status(); len(status.Webhooks) > 0 || len(s.g.setup.checks.heard) > 0 {
		t.Errorf("%v %v", status.Webhooks, s.g.setup.checks.heard)
	}
	if s.logs.FilterMessageSnippet("unknown type").Len() > 0 {
		t.Error("a check is no unknown type")
	}
	forged, err := polar.NewWebhookVerifier("another-secret-of-at-least-32-characters")
	if err != nil {
		t.Fatal(err)
	}
	s.g.setup.checks.begin("n")
	body := []byte(`{"type":"` + checkEvent + `","timestamp":"2026-11-02T09:00:00Z","data":{"nonce":"n"}}`)
	d, err := s.g.ReadDelivery(forged.Sign("check_1", s.g.Now(), body))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.g.TakeWebhook(t.Context(), d, body); !errors.Is(err, polar.ErrSignature) || s.g.setup.checks.end("n") {
		t.Errorf("a forged check was heard: %v", err)
	}
}

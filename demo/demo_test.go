package demo

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// patience is how long anything may take before a test gives up on it.
const patience = 10 * time.Second

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// site stands in for the gateway: it takes webhooks, and tells of each person
// what the test wants.
type site struct {
	*httptest.Server
	mu       sync.Mutex
	webhooks map[string]int // deliveries by webhook-id
	status   int            // of what it answers to webhooks
	says     map[string]string
	asked    map[string]int
	streams  chan string   // who has called for events
	events   chan string   // what they are sent
	hangUp   chan struct{} // ends streams
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{
		webhooks: map[string]int{}, status: http.StatusOK, says: map[string]string{}, asked: map[string]int{},
		streams: make(chan string, 100), events: make(chan string), hangUp: make(chan struct{}, 10),
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /auth/polar/webhook", s.webhook)
	mux.HandleFunc("GET /auth/polar/entitlements", s.entitlements)
	mux.HandleFunc("GET /auth/polar/events", s.stream)
	s.Server = httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s
}

func (s *site) webhook(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.webhooks[r.Header.Get("Webhook-Id")]++
	w.WriteHeader(s.status)
	_, _ = io.WriteString(w, `{"received":true}`)
}

// userOf reads the subject of a token without looking at its signature.
func userOf(r *http.Request) string {
	_, token, _ := strings.Cut(r.Header.Get("Authorization"), "Bearer ")
	return claimsOf(token)["sub"].(string)
}

func (s *site) entitlements(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	user := userOf(r)
	s.asked[user]++
	if s.says[user] == "" {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	_, _ = io.WriteString(w, s.says[user])
}

// stream sends the same events to whoever has called.
func (s *site) stream(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	_, _ = io.WriteString(w, ": hello\n\n")
	w.(http.Flusher).Flush()
	user := userOf(r)
	s.streams <- user
	events := s.events
	if user != "ada" {
		events = nil
	}
	for {
		select {
		case e := <-events:
			_, _ = io.WriteString(w, e)
			w.(http.Flusher).Flush()
		case <-s.hangUp:
			return
		case <-r.Context().Done():
			return
		}
	}
}

func (s *site) received() (events, deliveries int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range s.webhooks {
		events++
		deliveries += n
	}
	return events, deliveries
}

// start runs a demo around a site.
func start(t *testing.T, site string) *Demo {
	t.Helper()
	d, err := Start(site)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// waitFor waits until ok says so.
func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

type reply struct {
	*http.Response
	body string
}

// send makes a request as it is, without following redirects.
func send(t *testing.T, method, address string, form url.Values, headers ...string) reply {
	t.Helper()
	r, err := http.NewRequest(method, address, strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	r.Host = r.Header.Get("Host")
	c := http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	res, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply{res, string(body)}
}

func get(t *testing.T, address string, headers ...string) reply {
	t.Helper()
	return send(t, http.MethodGet, address, nil, headers...)
}

func (r reply) wants(t *testing.T, status int, texts ...string) reply {
	t.Helper()
	if r.StatusCode != status {
		t.Fatalf("%s %s: %d, want %d: %s", r.Request.Method, r.Request.URL, r.StatusCode, status, r.body)
	}
	for _, text := range texts {
		if !strings.Contains(r.body, text) {
			t.Errorf("%s lacks %q:\n%s", r.Request.URL, text, r.body)
		}
	}
	return r
}

func (r reply) lacks(t *testing.T, texts ...string) reply {
	t.Helper()
	for _, text := range texts {
		if strings.Contains(r.body, text) {
			t.Errorf("%s has %q:\n%s", r.Request.URL, text, r.body)
		}
	}
	return r
}

func TestEachDemoHasItsOwnSecrets(t *testing.T) {
	a, b := start(t, "http://localhost:1"), start(t, "http://localhost:1")
	for what, pair := range map[string][2]string{
		"access token": {a.AccessToken, b.AccessToken}, "webhook secret": {a.WebhookSecret, b.WebhookSecret},
		"JWT secret": {a.JWTSecret, b.JWTSecret}, "product": {a.Products["pro"][0], b.Products["pro"][0]},
	} {
		if pair[0] == "" || pair[0] == pair[1] {
			t.Errorf("%s: %q twice", what, pair[0])
		}
	}
}

// TestPolarIsAnotherSite: for a browser, host names make sites and ports do not.
func TestPolarIsAnotherSite(t *testing.T) {
	for site, want := range map[string]string{
		"http://localhost:1": "http://127.0.0.1:", "http://127.0.0.1:1": "http://localhost:", "http://[::1]:1": "http://127.0.0.1:",
	} {
		d := start(t, site)
		if !strings.HasPrefix(d.Polar, want) || !strings.HasPrefix(d.Panel, want) {
			t.Errorf("%s: Polar is at %s", site, d.Polar)
		}
		get(t, d.Panel).wants(t, http.StatusOK)
	}
}

func TestClockRuns(t *testing.T) {
	d := start(t, "http://localhost:1")
	if off := time.Since(d.Now()).Abs(); off > time.Minute {
		t.Errorf("it starts %s off", off)
	}
	before := d.Now()
	waitFor(t, "the clock", func() bool { return d.Now().After(before) })
}

func TestCloseLeavesNothing(t *testing.T) {
	s := newSite(t)
	d, err := Start(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	end := d.Watch()
	for range people {
		<-s.streams
	}
	feed, err := http.Get(d.Panel + "feed") // a browser that looks on
	if err != nil {
		t.Fatal(err)
	}
	defer feed.Body.Close()
	end()
	before := time.Now()
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if took := time.Since(before); took > 3*time.Second {
		t.Errorf("closing took %s", took)
	}
	for _, address := range []string{d.Upstream, strings.TrimPrefix(d.Polar, "http://")} {
		if c, err := net.Dial("tcp", address); err == nil {
			c.Close()
			t.Errorf("%s still listens", address)
		}
	}
	http.DefaultClient.CloseIdleConnections()
}

func TestStartRefusesNonsense(t *testing.T) {
	if _, err := Start("http://local host:1"); err == nil {
		t.Error("no error")
	}
}

// says is an answer of /entitlements.
func says(pro, team access) string {
	body, _ := json.Marshal(map[string]any{"user": "x", "plans": map[string]access{"pro": pro, "team": team}})
	return string(body)
}

func event(pro, team access) string {
	return fmt.Sprintf("event: entitlements\ndata: %s\n\n", says(pro, team))
}

package gateway

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/caddy-polar/caddy-polar/polar"
	"github.com/caddy-polar/caddy-polar/polar/box"
)

// site is a shop whose webhook route listens, and which counts what it asks
// Polar to change.
type site struct {
	*shop
	url string

	mu     sync.Mutex
	writes []string
}

func newSite(t *testing.T, change ...func(*Config)) *site {
	t.Helper()
	s := &site{}
	s.shop = newShop(t, box.Options{}, append(change, func(c *Config) {
		c.OnCall = func(call polar.Call) {
			if call.Method != http.MethodGet {
				s.mu.Lock()
				defer s.mu.Unlock()
				s.writes = append(s.writes, call.Method)
			}
		}
	})...)
	s.url = s.listen().URL + WebhookPath
	return s
}

// listen serves the webhook route as the module does.
func (s *site) listen() *httptest.Server {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+WebhookPath, func(w http.ResponseWriter, r *http.Request) {
		d, err := s.g.ReadDelivery(r.Header)
		if err == nil {
			body, _ := io.ReadAll(r.Body)
			_, err = s.g.TakeWebhook(r.Context(), d, body)
		}
		switch {
		case errors.Is(err, polar.ErrHeaders), errors.Is(err, polar.ErrTimestamp), errors.Is(err, polar.ErrSignature):
			w.WriteHeader(http.StatusBadRequest)
		case err != nil:
			w.WriteHeader(http.StatusServiceUnavailable)
		default:
			fmt.Fprintln(w, `{"received":true}`)
		}
	})
	server := httptest.NewServer(mux)
	s.t.Cleanup(server.Close)
	return server
}

func (s *site) add(e box.Endpoint) box.Endpoint {
	s.t.Helper()
	return s.box.AddEndpoint(e)
}

func (s *site) endpoint(id string) box.Endpoint {
	s.t.Helper()
	e, ok := s.box.Endpoint(id)
	if !ok {
		s.t.Fatalf("there is no endpoint %q", id)
	}
	return e
}

// setUp also sees to it that no secret is told.
func (s *site) setUp(address string) EndpointSetup {
	s.t.Helper()
	got, err := s.g.SetUpEndpoint(s.t.Context(), address)
	if err != nil {
		s.t.Fatal(err)
	}
	s.silent(string(got.Secret), testSecret)
	if said := fmt.Sprintf("%v %+v %#v", got, got, got); got.Secret != "" && strings.Contains(said, string(got.Secret)) {
		s.t.Errorf("the secret shows: %s", said)
	}
	return got
}

func (s *site) silent(secrets ...string) {
	s.t.Helper()
	for _, entry := range s.logs.All() {
		line := fmt.Sprint(entry.Message, entry.ContextMap())
		for _, secret := range secrets {
			if secret != "" && strings.Contains(line, secret) {
				s.t.Errorf("a secret is in the log: %s", line)
			}
		}
	}
}

// changed says what was asked to change since the last time.
func (s *site) changed() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	writes := s.writes
	s.writes = nil
	return writes
}

func TestSetUpCreates(t *testing.T) {
	s := newSite(t)
	s.add(box.Endpoint{URL: "https://other.example.com/hook", Events: []string{"order.paid"}})
	got := s.setUp(strings.TrimSuffix(s.url, WebhookPath))
	if got.State != SetupCreated || !got.PathAdded || got.URL != s.url || len(got.Wrong) > 0 {
		t.Errorf("%+v", got)
	}
	made := s.endpoint(got.ID)
	if made.Secret != string(got.Secret) || made.URL != s.url || !made.Enabled || made.Format != "raw" || made.Kind != box.SecretStandard ||
		made.Name != "caddy-polar default" {
		t.Errorf("%+v", made)
	}
	for kind, read := range eventKinds {
		wants := read != nil || slices.Contains([]string{"product.updated"}, kind)
		if wants && !slices.Contains(made.Events, kind) {
			t.Errorf("%s is missing", kind)
		}
	}
	if slices.Contains(made.Events, "discount.created") || slices.Contains(made.Events, "organization.updated") {
		t.Errorf("not needed: %q", made.Events)
	}
	if s.g.Endpoint().Problem != EndpointMissing {
		t.Errorf("without its secret: %+v", s.g.Endpoint())
	}
	if s.logs.FilterMessage("a webhook endpoint was created at Polar").Len() != 1 {
		t.Error("the log does not tell")
	}

	// The operator sets the secret, and asks again.
	s.config.WebhookSecrets = []string{string(got.Secret)}
	s.config.Store = s.g.store
	again, err := New(s.config)
	if err != nil {
		t.Fatal(err)
	}
	s.g.Close()
	s.g = again
	s.changed()
	got = s.setUp(s.url)
	if got.State != SetupFine || got.PathAdded || got.Secret != "" || got.ID != made.ID || got.Check != (EndpointCheck{Status: 200}) {
		t.Errorf("%+v", got)
	}
	if writes := s.changed(); len(writes) > 0 {
		t.Errorf("it asked for %q", writes)
	}
	if h := s.g.Endpoint(); h.Problem != EndpointFine || h.Checked.IsZero() {
		t.Errorf("%+v", h)
	}
}

func TestSetUpMends(t *testing.T) {
	all := slices.DeleteFunc(wantedEvents(), func(kind string) bool { return kind == newestEvent })
	off := false
	for _, tt := range []struct {
		name   string
		e      box.Endpoint
		update box.EndpointUpdate
		wrong  string
		lacked []string
	}{
		{name: "nothing", e: box.Endpoint{Secret: testSecret, Events: all}},
		{name: "spelling", e: box.Endpoint{Secret: testSecret, Events: all, URL: "HTTP"}},
		{name: "address", e: box.Endpoint{Secret: testSecret, Events: all, URL: "https://old.example.com/hook"}, wrong: "url"},
		{name: "format", e: box.Endpoint{Secret: testSecret, Events: all, Format: "discord"}, wrong: "format"},
		{name: "events", e: box.Endpoint{Secret: testSecret, Events: append([]string{"discount.created"}, all[:len(all)-2]...)}, wrong: "events", lacked: all[len(all)-2:]},
		{name: "disabled", e: box.Endpoint{Secret: testSecret, Events: all}, update: box.EndpointUpdate{Enabled: &off}, wrong: "enabled"},
		{name: "another's secret", e: box.Endpoint{Events: all}},
		{
			name: "all of it", e: box.Endpoint{Secret: testSecret, Events: []string{"order.paid"}, URL: "https://old.example.com/", Format: "slack"},
			update: box.EndpointUpdate{Enabled: &off}, wrong: "url format events enabled",
			lacked: slices.DeleteFunc(slices.Clone(all), func(kind string) bool { return kind == "order.paid" }),
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSite(t)
			s.add(box.Endpoint{URL: "https://other.example.com/hook", Events: []string{"order.paid"}})
			before := tt.e
			switch before.Name = "the owner's name"; before.URL {
			case "":
				before.URL = s.url
			case "HTTP":
				before.URL = strings.Replace(s.url, "http:", "HTTP:", 1)
			}
			before = s.add(before)
			if _, err := s.box.UpdateEndpoint(before.ID, tt.update); err != nil {
				t.Fatal(err)
			}
			got := s.setUp(s.url)
			if tt.wrong == "" {
				if got.State != SetupFine || len(s.changed()) > 0 {
					t.Errorf("%+v", got)
				}
			} else if writes := s.changed(); got.State != SetupMended || !slices.Equal(writes, []string{"PATCH"}) {
				t.Errorf("%q, %+v", writes, got)
			}
			if got.ID != before.ID || strings.Join(got.Wrong, " ") != tt.wrong || !slices.Equal(got.Lacked, tt.lacked) || got.Check.Problem != CheckFine {
				t.Errorf("%+v", got)
			}
			if strings.Contains(tt.wrong, "url") != (got.URLBefore == before.URL) {
				t.Errorf("before: %q", got.URLBefore)
			}
			if (tt.e.Secret == "") != (string(got.Secret) == before.Secret) {
				t.Error("the secret is told exactly if it is not ours")
			}
			after := s.endpoint(before.ID)
			if !sameURL(after.URL, s.url) || after.Format != "raw" || !after.Enabled || after.Name != before.Name || after.Secret != before.Secret {
				t.Errorf("%+v", after)
			}
			for _, kind := range slices.Concat(all, before.Events) {
				if !slices.Contains(after.Events, kind) {
					t.Errorf("%s is missing", kind)
				}
			}
			if tt.e.Secret != "" && s.g.Endpoint().Problem != EndpointFine {
				t.Errorf("%+v", s.g.Endpoint())
			}
			s.changed()
			if again := s.setUp(s.url); again.State != SetupFine || len(s.changed()) > 0 {
				t.Errorf("not at rest: %+v", again)
			}
		})
	}
}

// Of several endpoints the one is ours that has our secret and the address,
// then our secret, then the address.
func TestSetUpFindsTheBest(t *testing.T) {
	const elsewhere = "https://old.example.com/hook"
	for _, tt := range []struct {
		name   string
		others []func(*box.Endpoint, string)
	}{
		{"both before one", []func(*box.Endpoint, string){
			func(e *box.Endpoint, url string) { e.URL = url },
			func(e *box.Endpoint, _ string) { e.Secret = testSecret },
			func(e *box.Endpoint, url string) { e.URL, e.Secret = url, testSecret },
		}},
		{"the secret before the address", []func(*box.Endpoint, string){
			func(e *box.Endpoint, url string) { e.URL = url },
			func(e *box.Endpoint, _ string) { e.Secret = testSecret },
		}},
		{"the address before none", []func(*box.Endpoint, string){
			func(*box.Endpoint, string) {},
			func(e *box.Endpoint, url string) { e.URL = url },
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, turned := range []bool{false, true} {
				s := newSite(t)
				ids := make([]string, len(tt.others))
				for i := range tt.others {
					if turned {
						i = len(tt.others) - 1 - i
					}
					e := box.Endpoint{URL: elsewhere, Events: []string{"order.paid"}}
					tt.others[i](&e, s.url)
					ids[i] = s.add(e).ID
				}
				if got := s.setUp(s.url); got.ID != ids[len(ids)-1] {
					t.Errorf("turned %v: %q of %q", turned, got.ID, ids)
				}
			}
		})
	}
}

// Of two that are alike it is the one that the health goes by: Polar's first,
// which is the newest.
func TestSetUpTakesTheFirst(t *testing.T) {
	s := newSite(t)
	s.add(box.Endpoint{URL: s.url, Secret: testSecret})
	second := s.add(box.Endpoint{URL: s.url, Secret: testSecret})
	if got := s.setUp(s.url); got.ID != second.ID || got.State != SetupFine {
		t.Errorf("%+v, want %s", got, second.ID)
	}
}

// Polar does not take the newest type for each endpoint.
func TestSetUpWithoutTheNewestEvent(t *testing.T) {
	var s *site
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if bytes.Contains(body, []byte(newestEvent)) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusUnprocessableEntity)
			fmt.Fprint(w, `{"error":"RequestValidationError","detail":[{"type":"enum","loc":["body","events",3],"msg":"Input should be …"}]}`)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		s.box.ServeHTTP(w, r)
	}))
	t.Cleanup(front.Close)
	s = newSite(t, func(c *Config) { c.Server = front.URL })
	got := s.setUp(s.url)
	if made := s.endpoint(got.ID); got.State != SetupCreated || len(made.Events) != len(wantedEvents())-1 {
		t.Errorf("%+v", got)
	}
	if _, err := s.box.UpdateEndpoint(got.ID, box.EndpointUpdate{Events: []string{"order.paid"}}); err != nil {
		t.Fatal(err)
	}
	if got := s.setUp(s.url); got.State != SetupMended {
		t.Errorf("%+v", got)
	}
	s.changed()
	if got := s.setUp(s.url); got.State != SetupFine || len(s.changed()) > 0 {
		t.Errorf("it asks for the newest type each time: %+v", got)
	}
}

// Without a scope the way can be checked all the same.
func TestSetUpWithoutScopes(t *testing.T) {
	for _, tt := range []struct {
		name, scope string
		there       bool
		state       SetupState
		scopes      string
	}{
		{"none", "subscriptions:read", true, SetupUnread, "webhooks:read webhooks:write"},
		{"read, and nothing there", "webhooks:read", false, SetupMissing, "webhooks:write"},
		{"read, and something wrong", "webhooks:read", true, SetupWrong, "webhooks:write"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSite(t)
			s.g.Close()
			s.config.AccessToken = s.box.NewToken(tt.scope)
			g, err := New(s.config)
			if err != nil {
				t.Fatal(err)
			}
			s.g = g
			if tt.there {
				s.add(box.Endpoint{URL: s.url, Secret: testSecret, Events: []string{"order.paid"}})
			}
			got := s.setUp(s.url)
			if got.State != tt.state || strings.Join(got.Scopes, " ") != tt.scopes || got.Check.Problem != CheckFine || got.Secret != "" {
				t.Errorf("%+v", got)
			}
			if wrong := strings.Join(got.Wrong, " "); (tt.state == SetupWrong) != (wrong == "events") {
				t.Errorf("wrong: %q", wrong)
			}
		})
	}
}

func TestSetUpRefuses(t *testing.T) {
	const password = "a-password-in-an-address"
	s := newSite(t)
	for address, says := range map[string]string{
		"":                            "whole address",
		"app.example.com":             "whole address",
		"/auth/polar/webhook":         "whole address",
		"https://":                    "whole address",
		"https:///auth/polar/webhook": "whole address",
		"https:app.example.com":       "whole address",
		"https://a b/":                "whole address",
		"https://me:" + password + "@b.example/%":        "whole address",
		"https://me:" + password + "@b.example":          "password",
		"https://app.example.com/#x":                     "#",
		"https://app.example.com/#":                      "#",
		"http://app.example.com/":                        "https://",
		"http://localhost.example.com/":                  "https://",
		"http://192.168.1.7/":                            "https://",
		"ftp://localhost/":                               "https://",
		"https://a.example/" + strings.Repeat("a", 2000): "too long",
	} {
		_, err := s.g.SetUpEndpoint(t.Context(), address)
		if _, input := errors.AsType[InputError](err); !input || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), password) {
			t.Errorf("%q: %v", address, err)
		}
	}
	if writes := s.changed(); len(writes) > 0 {
		t.Errorf("Polar was asked for %q", writes)
	}
	s = newSite(t, func(c *Config) { c.AccessToken = "" })
	if _, err := s.g.SetUpEndpoint(t.Context(), s.url); !errors.Is(err, ErrNotConfigured) {
		t.Error(err)
	}
}

func TestEndpointURL(t *testing.T) {
	for address, want := range map[string]string{
		"https://App.Example.com:443/x?y=1": "https://app.example.com/x?y=1",
		"https://app.example.com:8443/x":    "https://app.example.com:8443/x",
		"https://app.example.com:/x":        "https://app.example.com/x",
		"HTTP://LOCALHOST:80/x":             "http://localhost/x",
		"http://127.0.0.1:8080/x":           "http://127.0.0.1:8080/x",
		"http://[::1]:80/x":                 "http://[::1]/x",
		"https://[::1]/x":                   "https://[::1]/x",
	} {
		if u, err := endpointURL(address); err != nil || u.String() != want {
			t.Errorf("%s: %v %v, want %s", address, u, err, want)
		}
	}
}

// What Polar says about an address is told. Other trouble is not made one.
func TestSetUpRefusedByPolar(t *testing.T) {
	var answer string
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if r.Method == http.MethodGet {
			fmt.Fprint(w, `{"items":[],"pagination":{"total_count":0,"max_page":0}}`)
			return
		}
		w.WriteHeader(http.StatusUnprocessableEntity)
		fmt.Fprint(w, answer)
	}))
	t.Cleanup(front.Close)
	s := newSite(t, func(c *Config) { c.Server = front.URL })
	for loc, input := range map[string]bool{"url": true, "name": false} {
		answer = `{"error":"RequestValidationError","detail":[{"type":"value_error","loc":["body","` + loc + `"],"msg":"Value error, no private hosts","input":"x"}]}`
		_, err := s.g.SetUpEndpoint(t.Context(), s.url)
		_, is := errors.AsType[InputError](err)
		if err == nil || is != input || input != strings.Contains(err.Error(), "no private hosts") {
			t.Errorf("%s: %v", loc, err)
		}
		if writes := s.changed(); len(writes) != 1 {
			t.Errorf("%s: tried %d times", loc, len(writes))
		}
	}
}

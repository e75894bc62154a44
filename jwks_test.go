package caddypolar

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/go-jose/go-jose/v4"
	"github.com/golang-jwt/jwt/v5"
)

// keyServer publishes keys.
type keyServer struct {
	*httptest.Server
	mu    sync.Mutex
	keys  map[string]crypto.Signer
	down  bool
	asked int
}

func newKeyServer(t *testing.T) *keyServer {
	s := &keyServer{keys: make(map[string]crypto.Signer)}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

func (s *keyServer) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	if s.down {
		http.Error(w, "<h1>down</h1>", http.StatusBadGateway)
		return
	}
	var set jose.JSONWebKeySet
	for kid, key := range s.keys {
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: key.Public(), KeyID: kid})
	}
	_ = json.NewEncoder(w).Encode(set)
}

// publish makes keys of those names the only ones.
func (s *keyServer) publish(t *testing.T, kids ...string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.keys
	s.keys = make(map[string]crypto.Signer)
	for _, kid := range kids {
		if s.keys[kid] = old[kid]; s.keys[kid] == nil {
			key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			s.keys[kid] = key
		}
	}
}

func (s *keyServer) is(down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = down
}

func (s *keyServer) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

// token makes a token that a key has signed, good for 100 days.
func (s *keyServer) token(t *testing.T, kid string) string {
	t.Helper()
	token := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.MapClaims{
		"sub": testUser, "iss": "id", "aud": "app", "exp": time.Now().Add(2400 * time.Hour).Unix(),
	})
	token.Header["kid"] = kid
	signed, err := token.SignedString(s.keys[kid])
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

// jwksGlobals is a configuration whose users come from the server, with a store.
func jwksGlobals(url, dir string) string {
	return fmt.Sprintf(`{
	admin off
	auto_https off
	persist_config off
	storage file_system %s
	polar {
		jwt {
			jwks %s/jwks?apikey=hidden
			issuer id
			audience app
			max_stale 2d
		}
		store bolt {
			path %s
		}
		plan pro %s
	}
}
`, dir, url, filepath.Join(dir, "polar.db"), testProduct)
}

// loaded is the app of a configuration, started. end is what Caddy does when another
// one has taken its place.
func loaded(t *testing.T, config string) (app *App, ctx caddy.Context, end func()) {
	t.Helper()
	body, err := adapt(config)
	if err != nil {
		t.Fatal(err)
	}
	cfg := new(caddy.Config)
	if err := json.Unmarshal(body, cfg); err != nil {
		t.Fatal(err)
	}
	if ctx, err = caddy.ProvisionContext(cfg); err != nil {
		t.Fatal(err)
	}
	if app, err = loadApp(ctx); err != nil {
		t.Fatal(err)
	}
	if err := app.Start(); err != nil {
		t.Fatal(err)
	}
	return app, ctx, func() {
		if err := app.Stop(); err != nil {
			t.Error(err)
		}
		if err := app.Cleanup(); err != nil {
			t.Error(err)
		}
	}
}

// status is the gate's answer to a token.
func status(t *testing.T, ctx caddy.Context, token string) int {
	t.Helper()
	r := mustRequest(t, "http://localhost/x")
	r.Header.Set("Authorization", "Bearer "+token)
	seen, w, err := chain(t, ctx, r, &Gate{Plans: []string{"pro"}})
	if err != nil {
		t.Fatal(err)
	}
	if seen != nil {
		return http.StatusOK
	}
	answer := w.(*httptest.ResponseRecorder)
	if answer.Code == http.StatusServiceUnavailable {
		if body := answer.Body.String(); answer.Header().Get("Retry-After") == "" || !strings.Contains(body, "signed in") {
			t.Errorf("%v %s", answer.Header(), body)
		}
	}
	return answer.Code
}

// TestJWKS: rotation, outage and restart, with a real gate, store and server of keys.
func TestJWKS(t *testing.T) {
	const paid, refused, unavailable = http.StatusPaymentRequired, http.StatusUnauthorized, http.StatusServiceUnavailable
	server, dir := newKeyServer(t), t.TempDir()
	t.Setenv("XDG_DATA_HOME", dir)
	server.publish(t, "old")
	config := jwksGlobals(server.URL, dir)
	synctest.Test(t, func(t *testing.T) {
		wants := func(ctx caddy.Context, kid string, want int) {
			t.Helper()
			for range 2 { // the second time a good one is remembered
				if got := status(t, ctx, server.token(t, kid)); got != want {
					t.Fatalf("%d for a token of key %s, want %d", got, kid, want)
				}
			}
		}
		// The endpoint is down, and the store empty: Caddy starts.
		server.is(true)
		_, ctx, end := loaded(t, config)
		wants(ctx, "old", unavailable)
		server.is(false)
		time.Sleep(time.Minute)
		wants(ctx, "old", paid)
		remembered := server.token(t, "old")
		if got := status(t, ctx, remembered); got != paid {
			t.Fatal(got)
		}

		// The issuer rotates.
		time.Sleep(time.Minute)
		server.publish(t, "old", "new")
		wants(ctx, "new", paid)
		wants(ctx, "old", paid)
		server.mu.Lock()
		gone := server.keys["old"]
		server.mu.Unlock()
		server.publish(t, "new")
		time.Sleep(time.Minute)
		if got := status(t, ctx, remembered); got != paid {
			t.Fatalf("%d before anybody knows that the key is gone", got)
		}
		time.Sleep(15 * time.Minute)
		synctest.Wait()
		if got := status(t, ctx, remembered); got != refused {
			t.Fatalf("%d for the remembered token of a removed key", got)
		}
		server.mu.Lock()
		server.keys["old"] = gone // nobody fetches it: this only signs
		server.mu.Unlock()
		fetches := server.count()
		for range 100 {
			wants(ctx, "old", refused)
		}
		if n := server.count() - fetches; n > 1 {
			t.Errorf("%d fetches for an unknown key id", n)
		}
		server.publish(t, "new")

		// Another configuration goes on without asking.
		time.Sleep(time.Minute)
		fetches = server.count()
		_, after, endAfter := loaded(t, config)
		wants(after, "new", paid)
		end()
		wants(after, "new", paid)
		synctest.Wait()
		if server.count() != fetches {
			t.Error("a reload has fetched the keys again")
		}
		ctx, end = after, endAfter

		// A restart while the endpoint is down, until the keys are too old.
		time.Sleep(20 * time.Minute) // they are fetched by the new configuration
		synctest.Wait()
		if server.count() == fetches {
			t.Error("the new configuration does not keep the keys current")
		}
		server.is(true)
		last := time.Now()
		wants(ctx, "new", paid)
		end()
		_, ctx, end = loaded(t, config)
		wants(ctx, "new", paid)
		time.Sleep(time.Until(last.Add(46 * time.Hour)))
		wants(ctx, "new", paid)
		time.Sleep(2 * time.Hour)
		wants(ctx, "new", unavailable)
		server.is(false)
		time.Sleep(6 * time.Minute)
		wants(ctx, "new", paid)
		for _, result := range []string{"ok", "refused"} {
			if sample(t, jwksFetchesTotal, `caddy_polar_jwks_fetches_total{gateway="default",result="`+result+`"}`) == 0 {
				t.Errorf("no fetch was counted as %s", result)
			}
		}
		end()
	})
	feeds.Range(func(key, _ any) bool {
		t.Errorf("the feed %v was left", key)
		return true
	})
}

// TestJWKSIsNotFetchedToValidate: checking a configuration, good or bad, asks nobody
// and leaves nothing.
func TestJWKSIsNotFetchedToValidate(t *testing.T) {
	server, dir := newKeyServer(t), t.TempDir()
	good := jwksGlobals(server.URL, dir)
	for _, config := range []string{good, strings.Replace(good, "plan pro", "plan any", 1), strings.Replace(good, "audience app", "", 1)} {
		body, err := adapt(config)
		if err == nil {
			err = validate(t, body)
		}
		if (err == nil) != (config == good) || err != nil && strings.Contains(err.Error(), "hidden") {
			t.Error(err)
		}
	}
	feeds.Range(func(key, _ any) bool {
		t.Errorf("the feed %v was left", key)
		return true
	})
	if server.count() != 0 {
		t.Errorf("%d requests", server.count())
	}
}

package integration

import (
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// wary is an app that believes assertions alone, by the keys that it fetched last. It
// answers with the claims.
type wary struct {
	*httptest.Server
	keys     atomic.Pointer[jose.JSONWebKeySet]
	verified atomic.Int64
	refused  atomic.Value // why the last one was
}

func newWary(t *testing.T) *wary {
	t.Helper()
	app := new(wary)
	app.keys.Store(new(jose.JSONWebKeySet))
	app.Server = httptest.NewServer(app)
	t.Cleanup(app.Close)
	return app
}

func (app *wary) address() string { return app.Listener.Addr().String() }

func (app *wary) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	claims, err := app.verify(r.Header.Values("X-Polar-Assertion"))
	if err != nil {
		app.refused.Store(err.Error())
		http.Error(w, err.Error(), http.StatusUnauthorized)
		return
	}
	app.verified.Add(1)
	_ = json.NewEncoder(w).Encode(claims)
}

func (app *wary) verify(values []string) (object, error) {
	if len(values) != 1 {
		return nil, fmt.Errorf("%d assertions", len(values))
	}
	token, err := jwt.ParseSigned(values[0], []jose.SignatureAlgorithm{jose.EdDSA})
	if err != nil {
		return nil, err
	}
	var registered jwt.Claims
	var all object
	if err := token.Claims(*app.keys.Load(), &registered, &all); err != nil {
		return nil, err
	}
	if registered.Expiry == nil {
		return nil, errors.New("it lives for ever")
	}
	return all, registered.ValidateWithLeeway(jwt.Expected{Issuer: "caddy-polar", AnyAudience: jwt.Audience{"app"}, Time: time.Now()}, 0)
}

// fetch fetches the keys as any app does, and names them.
func (app *wary) fetch(t *testing.T, s *server) []string {
	t.Helper()
	var r *reply
	waitFor(t, "the keys", func() (ok bool) { // a reload may break a connection
		var err error
		r, err = s.try(http.MethodGet, "http://"+s.sites["app"]+"/auth/polar/jwks.json")
		return err == nil
	})
	r.wants(t, http.StatusOK)
	set := new(jose.JSONWebKeySet)
	if err := json.Unmarshal([]byte(r.body), set); err != nil {
		t.Fatal(err)
	}
	app.keys.Store(set)
	var ids []string
	for _, k := range set.Keys {
		ids = append(ids, k.KeyID)
	}
	return ids
}

// asserting is the usual polar block with assertions by such keys.
func asserting(keys string) string {
	return strings.Replace(usual, "polar {", "polar {\n\t\tassertion {\n\t\t\taudience app\n\t\t\tkey "+keys+"\n\t\t}", 1)
}

// TestAssertions has an app that believes nobody but the gateway, however it is reached.
func TestAssertions(t *testing.T) {
	t.Parallel()
	s, app := newServer(t), newWary(t)
	config := s.caddyfile(asserting("auto"), s.site(t, "app", "polar\npolar_require /pro/* pro\nreverse_proxy "+app.address()))
	s.start(t, config)
	u := s.subscribe(t, "app", productPro)
	ids := app.fetch(t, s)
	if len(ids) != 1 {
		t.Errorf("%d keys at first", len(ids))
	}
	claims := func(path string, options ...option) object {
		t.Helper()
		c := s.get(t, "app", path, options...).wants(t, http.StatusOK).json(t)
		delete(c, "iat")
		delete(c, "exp")
		return c
	}
	want := object{
		"iss": "caddy-polar", "aud": "app", "sub": u.user, "gateway": "default", "plans": []any{"pro"},
		"status": "active", "reason": "active", "until": told(now.Add(29 * day)), "customer": u.customer,
	}
	same := func(got, want object) bool { return fmt.Sprint(got) == fmt.Sprint(want) }
	if got := claims("/free", as(u.user)); !same(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	gated := maps.Clone(want)
	gated["plan"] = "pro"
	forged := []option{as(u.user), header("X-Polar-Assertion", "forged"), header("Connection", "X-Polar-Assertion")}
	if got := claims("/pro/x", forged...); !same(got, gated) {
		t.Errorf("%v, want %v", got, gated)
	}
	if got := claims("/free", as("stranger")); got["sub"] != "stranger" || got["reason"] != "no_subscription" || len(got["plans"].([]any)) != 0 {
		t.Error(got)
	}

	// An anonymous visitor has none, and around the gateway nobody has.
	s.get(t, "app", "/free").wants(t, http.StatusUnauthorized)
	for _, how := range []option{
		header("X-Polar-User", u.user), header("X-Polar-Assertion", userToken(u.user)), header("X-Polar-Assertion", "a.b.c"),
	} {
		s.send(t, http.MethodGet, app.URL+"/pro/x", how).wants(t, http.StatusUnauthorized)
	}

	// Neither a reload nor a crash changes a key under the app, which fetches none again.
	s.load(t, s.caddyfile(asserting("auto\nissuer caddy-polar"), s.site(t, "app", "polar\nreverse_proxy "+app.address()))).wants(t, http.StatusOK)
	claims("/free", as(u.user))
	for range 3 {
		s.kill()
		s.start(t, config)
		if got := claims("/pro/x", as(u.user)); !same(got, gated) {
			t.Errorf("after a crash: %v", got)
		}
	}
	if got := app.fetch(t, s); !slices.Equal(got, ids) {
		t.Errorf("the keys were %v and are %v", ids, got)
	}
	s.kill()
}

// TestAssertionKeyLostAtOnce kills servers as soon as they have published their first
// key: an app that has fetched it goes on with it.
func TestAssertionKeyLostAtOnce(t *testing.T) {
	t.Parallel()
	for range 5 {
		s, app := newServer(t), newWary(t)
		config := s.caddyfile(asserting("auto"), s.site(t, "app", "polar\nreverse_proxy "+app.address()))
		s.start(t, config)
		app.fetch(t, s)
		s.kill()
		s.start(t, config)
		s.get(t, "app", "/free", as("ada")).wants(t, http.StatusOK)
		s.kill()
	}
}

// newKeyFile is a key as `openssl genpkey -algorithm ed25519` writes it.
func (s *server) newKeyFile(t *testing.T, name string) string {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return s.write(t, name, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))
}

// TestAssertionKeyRotation changes an operator's key under load as the documentation
// says, and the app refuses nothing.
func TestAssertionKeyRotation(t *testing.T) {
	t.Parallel()
	s, app := newServer(t), newWary(t)
	with := func(keys ...string) string {
		return s.caddyfile(asserting(strings.Join(keys, " ")), s.site(t, "app", `
			polar
			reverse_proxy `+app.address()+` {
				transport http {
					keepalive off
				}
			}`))
	}
	key := s.newKeyFile(t, "key0.pem")
	s.start(t, with(key))
	app.fetch(t, s)

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var load sync.WaitGroup
	for i := range 3 {
		load.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				// New visitors, for whom nothing is signed yet, and old ones. A connection
				// may break at a reload; what the app refuses it counts itself.
				_, _ = s.try(http.MethodGet, "http://"+s.sites["app"]+"/free", as(fmt.Sprintf("usr_%d_%d", i, n%7)))
				pause()
			}
		})
	}
	settle := func() {
		t.Helper()
		before := app.verified.Load()
		waitFor(t, "requests between reloads", func() bool { return app.verified.Load() >= before+20 })
	}
	for i := range 4 {
		next := s.newKeyFile(t, fmt.Sprintf("key%d.pem", i+1))
		for _, keys := range [][]string{{key, next}, {next, key}, {next}} {
			settle()
			s.load(t, with(keys...)).wants(t, http.StatusOK)
			settle()
			if got := app.fetch(t, s); len(got) != len(keys) {
				t.Errorf("%d keys are published, want %d", len(got), len(keys))
			}
		}
		key = next
	}
	settle()
	cancel()
	load.Wait()
	if why := app.refused.Load(); why != nil {
		t.Errorf("the app has refused one: %v", why)
	}
	s.kill()
}

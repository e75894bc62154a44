package gateway

import (
	"context"
	"encoding/json"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/caddy-polar/caddy-polar/assertion"
	"github.com/caddy-polar/caddy-polar/cache"
)

// keyIDs names the keys of a moment, the one that signs first.
func keyIDs(t *testing.T, g *Gateway, now time.Time) []string {
	t.Helper()
	keys, err := g.AssertionKeys(now)
	if err != nil {
		t.Fatal(err)
	}
	ids := []string{keys.Signing.ID()}
	for _, k := range keys.Published {
		ids = append(ids, k.ID())
	}
	return ids
}

// TestAssertionKeysStay: they outlive reloads, and a process that ends at any time; two
// configurations of one store have the same.
func TestAssertionKeysStay(t *testing.T) {
	path := filepath.Join(t.TempDir(), "polar.db")
	store := cache.New(path)
	with := func(s *cache.Store) func(*Config) { return func(c *Config) { c.Store = s } }
	old, new := newBench(t, with(store)), newBench(t, with(store))
	first := keyIDs(t, old.g, bought)
	if got := keyIDs(t, new.g, bought); !slices.Equal(got, first) {
		t.Errorf("two configurations: %v and %v", first, got)
	}
	later := bought.Add(40 * day) // there are two by then
	turned := keyIDs(t, new.g, later)
	if got := keyIDs(t, old.g, later); !slices.Equal(got, turned) || len(got) != 3 {
		t.Errorf("after a turn: %v and %v", turned, got)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	again := cache.New(path)
	defer again.Close()
	if got := keyIDs(t, newBench(t, with(again)).g, later); !slices.Equal(got, turned) {
		t.Errorf("after a restart: %v, before: %v", got, turned)
	}
}

// TestAssertionKeysNeedTheStore: what may not be kept is not used; what is held goes on.
func TestAssertionKeysNeedTheStore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "polar.db")
	store := cache.New(path)
	b := newBench(t, func(c *Config) { c.Store = store })
	first := keyIDs(t, b.g, bought)
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	later := bought.Add(31 * day)
	for range 3 {
		if got := keyIDs(t, b.g, later); !slices.Equal(got, first) {
			t.Errorf("without a store: %v, want %v", got, first)
		}
	}
	if n := b.logs.FilterMessageSnippet("assertion keys").Len(); n != 1 {
		t.Errorf("it is logged %d times within ten seconds", n)
	}
	if got := keyIDs(t, b.g, later.Add(-365*day)); !slices.Equal(got, first) {
		t.Errorf("with a clock set back: %v", got)
	}
	none := newBench(t, func(c *Config) { c.Store = cache.New(t.TempDir()) }) // a directory is no store
	if _, err := none.g.AssertionKeys(bought); err == nil {
		t.Error("keys that nobody keeps")
	}
	if _, err := none.g.AssertionKeys(bought.Add(time.Second)); err == nil {
		t.Error("keys that nobody keeps, at once after")
	}
}

// TestAssertionKeysComeBack: who could not write them tries again, soon.
func TestAssertionKeysComeBack(t *testing.T) {
	b := newBench(t)
	if _, err := b.g.claim(); err != nil {
		t.Fatal(err)
	}
	b.g.keyring.failed, b.g.keyring.again = context.DeadlineExceeded, bought.Add(turnAgain)
	if _, err := b.g.AssertionKeys(bought.Add(turnAgain - 1)); err == nil {
		t.Error("it is tried again at once")
	}
	if got := keyIDs(t, b.g, bought.Add(turnAgain)); len(got) != 2 {
		t.Error(got)
	}
}

// TestDamagedAssertionKeys: keys that cannot be read are replaced, and told.
func TestDamagedAssertionKeys(t *testing.T) {
	b := newBench(t)
	if err := b.g.Keep(noteKeyring, []byte("damaged")); err != nil {
		t.Fatal(err)
	}
	ids := keyIDs(t, b.g, bought)
	if b.logs.FilterMessageSnippet("new ones are made").Len() != 1 {
		t.Error("nothing is told of it")
	}
	raw, err := b.g.Note(noteKeyring)
	if err != nil {
		t.Fatal(err)
	}
	if ring, err := assertion.ReadRing(raw); err != nil || ring.Keys(bought).Signing.ID() != ids[0] {
		t.Error("they are not kept", err)
	}
}

// TestRotationUnderLoad lets a year go by in a moment while many are told assertions by
// two configurations of one store, and apps verify each by keys that they have for up to
// two weeks. None may fail.
func TestRotationUnderLoad(t *testing.T) {
	store := cache.New(filepath.Join(t.TempDir(), "polar.db"))
	defer store.Close()
	var moved atomic.Int64 // of the clock
	now := func() time.Time { return bought.Add(time.Duration(moved.Load())) }
	var signers []*assertion.Signer
	var newest *Gateway
	for range 2 {
		b := newBench(t, func(c *Config) { c.Store = store })
		newest = b.g
		s, err := assertion.NewSigner("iss", "app", "default", b.g.AssertionKeys)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		signers = append(signers, s)
	}
	var seen sync.Map // key ids
	var verified atomic.Int64
	var working sync.WaitGroup
	year, end := context.WithCancel(t.Context())
	for i := range 8 {
		working.Go(func() {
			app := &cachingApp{fetch: signers[(i+1)%2].Keys}
			for year.Err() == nil {
				at := now()
				token, err := signers[i%2].Sign(&assertion.Claims{User: ada}, time.Time{}, at)
				kid := ""
				if err == nil {
					kid, err = app.verify(token, at)
				}
				if err != nil {
					t.Errorf("on day %d: %v", at.Sub(bought)/day, err)
					return
				}
				seen.Store(kid, true)
				verified.Add(1)
				runtime.Gosched()
			}
		})
	}
	for now().Before(bought.Add(365*day)) && !t.Failed() {
		moved.Add(int64(12 * time.Hour))
		keyIDs(t, newest, now()) // turning takes no days
		for seen := verified.Load(); verified.Load() < seen+4 && !t.Failed(); {
			runtime.Gosched()
		}
	}
	end()
	working.Wait()
	n := 0
	seen.Range(func(any, any) bool { n++; return true })
	if n != 12 { // one from the start for 45 days, and then each for 30
		t.Errorf("%d keys have signed", n)
	}
}

// cachingApp verifies by keys that it fetches each two weeks, and by no others.
type cachingApp struct {
	fetch   func(time.Time) (assertion.Keys, error)
	fetched time.Time
	set     jose.JSONWebKeySet
}

func (a *cachingApp) verify(token string, at time.Time) (kid string, err error) {
	if at.Sub(a.fetched) > 14*day {
		keys, err := a.fetch(at)
		if err != nil {
			return "", err
		}
		raw, err := json.Marshal(keys)
		if err != nil {
			return "", err
		}
		if err := json.Unmarshal(raw, &a.set); err != nil {
			return "", err
		}
		a.fetched = at
	}
	parsed, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.EdDSA})
	if err != nil {
		return "", err
	}
	var claims jwt.Claims
	if err := parsed.Claims(a.set, &claims); err != nil {
		return "", err
	}
	return parsed.Headers[0].KeyID, claims.ValidateWithLeeway(jwt.Expected{Issuer: "iss", AnyAudience: jwt.Audience{"app"}, Time: at}, 0)
}

// TestAssertionKeysAreSecret: neither what is logged nor what is published has a seed.
func TestAssertionKeysAreSecret(t *testing.T) {
	b := newBench(t)
	keys, err := b.g.AssertionKeys(bought)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(keys)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(raw), `"d"`) {
		t.Error("a private half is published")
	}
	for _, entry := range b.logs.All() {
		if len(entry.Context) > 0 && strings.Contains(entry.Message, "assertion") {
			t.Errorf("%s: %v", entry.Message, entry.Context)
		}
	}
}

package jwks

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddy-polar/caddy-polar/identity"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const address = "https://id.example/keys?apikey=hidden"

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

var (
	rsaKey = sync.OnceValue(func() *rsa.PrivateKey { return must(rsa.GenerateKey(rand.Reader, 2048)) })
	ecKey  = sync.OnceValue(func() *ecdsa.PrivateKey { return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)) })
	// edKeys are some keys, to rotate.
	edKeys = sync.OnceValue(func() []ed25519.PrivateKey {
		keys := make([]ed25519.PrivateKey, 8)
		for i := range keys {
			_, keys[i], _ = ed25519.GenerateKey(rand.Reader)
		}
		return keys
	})
)

type object = map[string]any

// jwk is a public key as JSON, with members changed or removed (nil).
func jwk(private crypto.Signer, kid string, change object) object {
	raw := must(json.Marshal(jose.JSONWebKey{Key: private.Public(), KeyID: kid}))
	var o object
	if err := json.Unmarshal(raw, &o); err != nil {
		panic(err)
	}
	for name, value := range change {
		o[name] = value
		if value == nil {
			delete(o, name)
		}
	}
	return o
}

func set(keys ...object) string { return string(must(json.Marshal(object{"keys": keys}))) }

// ids is a set of the n-th Ed25519 keys, with ids of their number.
func ids(numbers ...int) string {
	var keys []object
	for _, n := range numbers {
		keys = append(keys, jwk(edKeys()[n], fmt.Sprint(n), nil))
	}
	return set(keys...)
}

// issuer answers for a URL, after a delay.
type issuer struct {
	mu      sync.Mutex
	body    string
	status  int
	control string
	delay   time.Duration
	asked   int
	at      []time.Duration // when it was asked
	began   time.Time
}

func newIssuer(body string) *issuer {
	return &issuer{body: body, status: http.StatusOK, began: time.Now()}
}

func (i *issuer) answers(status int, body string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.status, i.body = status, body
}

func (i *issuer) count() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.asked
}

func (i *issuer) RoundTrip(r *http.Request) (*http.Response, error) {
	i.mu.Lock()
	i.asked++
	i.at = append(i.at, time.Since(i.began))
	delay := i.delay
	i.mu.Unlock()
	select {
	case <-time.After(delay):
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.status == 0 {
		return nil, errors.New("connection refused")
	}
	h := make(http.Header)
	if i.control != "" {
		h.Set("Cache-Control", i.control)
	}
	return &http.Response{StatusCode: i.status, Header: h, Body: io.NopCloser(strings.NewReader(i.body)), Request: r}, nil
}

// store is what is written down.
type store struct {
	mu     sync.Mutex
	raw    []byte
	writes int
	fail   error
}

func (s *store) load() ([]byte, error) { return s.raw, s.fail }

func (s *store) save(raw []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writes++
	s.raw = raw
	return s.fail
}

// started is a set of the issuer's keys, and its log. It is stopped by the test's end.
func started(t *testing.T, from *issuer, c Config) (*Set, *observer.ObservedLogs) {
	t.Helper()
	core, logs := observer.New(zapcore.InfoLevel)
	c.Logger = zap.New(core)
	feed := must(NewFeed(address, Options{Transport: from}))
	s := must(New(feed, c))
	t.Cleanup(func() { s.Stop(); feed.Close() })
	s.Start()
	return s, logs
}

// ask asks for a key id and returns how many keys there are and how long that took.
func ask(t *testing.T, s *Set, kid string) (int, time.Duration, error) {
	t.Helper()
	began := time.Now()
	keys, _, err := s.Keys(t.Context(), kid, began)
	if err != nil && (!errors.Is(err, identity.ErrUnavailable) || len(keys) > 0) {
		t.Fatalf("%d keys and %v", len(keys), err)
	}
	return len(keys), time.Since(began), err
}

// wants asks for a key id, of which there must be so many keys at once.
func wants(t *testing.T, s *Set, kid string, n int) {
	t.Helper()
	if got, took, err := ask(t, s, kid); got != n || took != 0 || err != nil {
		t.Fatalf("%d keys for %q after %v, %v, want %d at once", got, kid, took, err, n)
	}
}

func generation(t *testing.T, s *Set) uint64 {
	t.Helper()
	g, ok := s.Generation(time.Now())
	if !ok {
		t.Fatal("the keys are not current")
	}
	return g
}

// sleep lets time pass and everything come to rest.
func sleep(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// TestFirstFetch: neither starting nor a request waits for an issuer that is slow;
// without keys nobody can tell.
func TestFirstFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		from := newIssuer(ids(1))
		from.delay = 5 * time.Second
		began := time.Now()
		s, _ := started(t, from, Config{})
		if took := time.Since(began); took != 0 {
			t.Errorf("Start took %v", took)
		}
		if _, ok := s.Generation(time.Now()); ok {
			t.Error("there is a generation before there are keys")
		}
		time.Sleep(500 * time.Millisecond)
		if _, took, err := ask(t, s, "1"); err == nil || took != 1500*time.Millisecond {
			t.Errorf("%v after %v, want to wait until two seconds after the fetch began", err, took)
		}
		if _, took, err := ask(t, s, "1"); err == nil || took != 0 {
			t.Errorf("%v after %v, want no second wait", err, took)
		}
		sleep(4 * time.Second)
		wants(t, s, "1", 1)
		if from.count() != 1 {
			t.Errorf("%d fetches, want 1", from.count())
		}
	})
}

// TestFirstKeysInTime: who asks while the first fetch is under way gets its keys.
func TestFirstKeysInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		from := newIssuer(ids(1))
		from.delay = time.Second
		s, _ := started(t, from, Config{})
		if n, took, err := ask(t, s, "1"); n != 1 || took != time.Second || err != nil {
			t.Errorf("%d keys after %v, %v", n, took, err)
		}
	})
}

// TestUnknownIDs: 10,000 unknown key ids cause one fetch for each cooldown, few wait,
// and inside the cooldown nobody does.
func TestUnknownIDs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		from := newIssuer(ids(1))
		s, _ := started(t, from, Config{})
		sleep(cooldown)
		from.mu.Lock()
		from.delay = 5 * time.Second
		from.mu.Unlock()
		flood := func() (waited int) {
			var wg sync.WaitGroup
			var mu sync.Mutex
			for i := range 10_000 {
				wg.Go(func() {
					n, took, err := ask(t, s, fmt.Sprint("unknown", i))
					mu.Lock()
					defer mu.Unlock()
					if took > 0 {
						waited++
					}
					// Until the fetch is over nobody can tell.
					if n != 0 || err != nil && !errors.Is(err, identity.ErrUnavailable) || took > patience {
						t.Errorf("%d keys after %v, %v", n, took, err)
					}
				})
			}
			wg.Wait()
			return waited
		}
		for round := range 3 {
			before := from.count()
			if waited := flood(); waited == 0 || waited > maxWaiting {
				t.Errorf("round %d: %d requests waited, want at most %d", round, waited, maxWaiting)
			}
			for range 3 {
				sleep(patience) // still under way, or over
				if waited := flood(); waited != 0 {
					t.Errorf("round %d: %d requests waited inside the cooldown", round, waited)
				}
			}
			wants(t, s, "1", 1)
			if n := from.count() - before; n != 1 {
				t.Errorf("round %d: %d fetches, want 1", round, n)
			}
			sleep(cooldown)
		}
	})
}

// TestNewKey: a key that was published after the last fetch is found by the first
// request that needs it, and those that come with it.
func TestNewKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		from := newIssuer(ids(1))
		s, _ := started(t, from, Config{})
		sleep(cooldown)
		from.answers(200, ids(1, 2))
		from.delay = time.Second
		before := generation(t, s)
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				if n, took, err := ask(t, s, "2"); n != 1 || took != time.Second || err != nil {
					t.Errorf("%d keys after %v, %v", n, took, err)
				}
			})
		}
		wg.Wait()
		if generation(t, s) != before {
			t.Error("a key that was added has changed the generation")
		}
		if from.count() != 2 {
			t.Errorf("%d fetches, want 2", from.count())
		}
	})
}

// TestNobodyWaitsLongerThanTheRequest: a client that goes away does not wait.
func TestNobodyWaitsLongerThanTheRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		from := newIssuer(ids(1))
		from.delay = time.Minute
		s, _ := started(t, from, Config{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		_, _, err := s.Keys(ctx, "1", began)
		if took := time.Since(began); took != time.Second || !errors.Is(err, identity.ErrUnavailable) {
			t.Errorf("%v after %v", err, took)
		}
	})
}

// TestCooldownWithoutKeys: an issuer that is down from the start is asked once for
// each cooldown too, beside the retries in the background.
func TestCooldownWithoutKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		from := newIssuer("")
		from.status = 0
		s, logs := started(t, from, Config{})
		synctest.Wait()
		for range 1000 {
			if _, took, err := ask(t, s, "1"); err == nil || took != 0 {
				t.Fatalf("%v after %v", err, took)
			}
		}
		if from.count() != 1 {
			t.Errorf("%d fetches, want 1", from.count())
		}
		sleep(time.Hour)
		first, last := from.at[1]-from.at[0], from.at[len(from.at)-1]-from.at[len(from.at)-2]
		if first < 3*time.Second || first > 7*time.Second || last < 3*time.Minute || last > 7*time.Minute || from.count() > 30 {
			t.Errorf("%d retries, the first after %v, the last after %v", from.count(), first, last)
		}
		if logs.Len() != 1 || logs.All()[0].Message != saidNone {
			t.Errorf("the log has %v", logs.All())
		}
		from.answers(200, ids(1))
		sleep(7 * time.Minute)
		wants(t, s, "1", 1)
		if logs.FilterMessageSnippet("again").Len() != 1 {
			t.Errorf("the log has %v", logs.All())
		}
		// Another outage begins with short pauses again.
		from.answers(0, "")
		sleep(defaultAge + time.Minute)
		failed := slices.IndexFunc(from.at, func(at time.Duration) bool { return at > time.Hour+7*time.Minute+cooldown })
		if pause := from.at[failed+1] - from.at[failed]; pause > 7*time.Second {
			t.Errorf("the first retry of another outage is after %v", pause)
		}
	})
}

// TestRefresh: max-age counts inside its bounds, and max_stale is never reached
// while the issuer answers.
func TestRefresh(t *testing.T) {
	for _, test := range []struct {
		control  string
		maxStale time.Duration
		want     time.Duration
	}{
		{"", 0, defaultAge},
		{"public, max-age=600", 0, 10 * time.Minute},
		{"max-age=0", 0, time.Minute},
		{"no-store", 0, time.Minute},
		{"max-age=864000", 72 * time.Hour, 24 * time.Hour},
		{"max-age=86400", 24 * time.Hour, 12 * time.Hour},
		{"max-age=86400", 10 * time.Minute, 5 * time.Minute},
	} {
		synctest.Test(t, func(t *testing.T) {
			from := newIssuer(ids(1))
			from.control = test.control
			s, _ := started(t, from, Config{MaxStale: test.maxStale})
			sleep(5*test.want + time.Second)
			if len(from.at) != 6 {
				t.Fatalf("%q: %d fetches, want 6", test.control, len(from.at))
			}
			for i, at := range from.at {
				if late := at - time.Duration(i)*test.want; late < 0 || late > time.Second {
					t.Errorf("%q: fetch %d at %v", test.control, i, at)
				}
			}
			wants(t, s, "1", 1)
		})
	}
}

// TestOutage: the last keys are kept until max_stale, to the second, and come back.
func TestOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		from := newIssuer(ids(1))
		s, logs := started(t, from, Config{MaxStale: time.Hour})
		synctest.Wait()
		from.answers(0, "")
		before := generation(t, s)
		sleep(time.Hour - time.Second)
		wants(t, s, "1", 1)
		if generation(t, s) != before {
			t.Error("an outage has changed the generation")
		}
		if n := logs.FilterMessage(saidKept).Len(); n != 1 {
			t.Errorf("said %d times that keys are kept", n)
		}
		sleep(time.Second)
		if _, ok := s.Generation(time.Now()); ok {
			t.Error("remembered tokens count although the keys are too old")
		}
		if _, _, err := ask(t, s, "1"); err == nil {
			t.Error("a known key counts although it is too old")
		}
		sleep(2 * time.Hour)
		if n := logs.FilterMessage(saidNone).Len(); n != 1 {
			t.Errorf("said %d times that keys are too old", n)
		}
		from.answers(200, ids(1))
		sleep(cooldown)
		if n, _, err := ask(t, s, "1"); n != 1 || err != nil {
			t.Errorf("%d keys, %v: the issuer is back", n, err)
		}
	})
}

// TestSameID: a key that takes the place of another one under its id, or without one,
// is found by who needs it, once in a cooldown.
func TestSameID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		from := newIssuer(ids(1))
		from.control = "max-age=86400"
		s, _ := started(t, from, Config{})
		sleep(time.Minute)
		from.answers(200, ids(2))
		if !s.Refresh(t.Context(), time.Now()) {
			t.Error("nothing was fetched")
		}
		wants(t, s, "1", 0)
		wants(t, s, "2", 1)
		before := from.count()
		for range 100 {
			if s.Refresh(t.Context(), time.Now()) {
				t.Fatal("fetched inside the cooldown")
			}
		}
		if n := from.count() - before; n != 0 {
			t.Errorf("%d fetches", n)
		}
		sleep(cooldown)
		if s.Refresh(t.Context(), time.Now()); from.count() != before+1 {
			t.Error("not fetched after the cooldown")
		}
	})
}

// TestBrokenSets: nothing broken ever replaces a good set.
func TestBrokenSets(t *testing.T) {
	for name, test := range map[string]struct {
		status int
		body   string
		want   Result
	}{
		"down":        {0, "", ResultUnreachable},
		"error":       {500, ids(2), ResultRefused},
		"not found":   {404, ids(2), ResultRefused},
		"no content":  {204, "", ResultRefused},
		"redirect":    {302, ids(2), ResultRefused}, // without a Location
		"HTML":        {200, "<!doctype html><title>Sign in</title>", ResultUnusable},
		"nothing":     {200, "", ResultUnusable},
		"empty":       {200, `{"keys":[]}`, ResultUnusable},
		"null":        {200, `null`, ResultUnusable},
		"array":       {200, `[]`, ResultUnusable},
		"error text":  {200, `{"error":"rate limited"}`, ResultUnusable},
		"cut":         {200, ids(2)[:40], ResultUnusable},
		"huge":        {200, ids(2) + strings.Repeat(" ", maxBody), ResultUnusable},
		"deep":        {200, `{"keys":` + strings.Repeat("[", 500_000), ResultUnusable},
		"garbage":     {200, "\x00\xff\xfe", ResultUnusable},
		"all private": {200, set(jwk(edKeys()[2], "2", object{"d": "AAAA"})), ResultUnusable},
		"all of enc":  {200, set(jwk(edKeys()[2], "2", object{"use": "enc"})), ResultUnusable},
		"symmetric":   {200, `{"keys":[{"kty":"oct","kid":"2","k":"AAAA"}]}`, ResultUnusable},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var results []Result
				from := newIssuer(ids(1))
				s, logs := started(t, from, Config{OnFetch: func(r Result) { results = append(results, r) }})
				synctest.Wait()
				before := generation(t, s)
				from.answers(test.status, test.body)
				sleep(defaultAge)
				wants(t, s, "1", 1)
				if _, took, err := ask(t, s, "2"); !errors.Is(err, identity.ErrUnavailable) || took != 0 {
					t.Errorf("a new key may be there, and cannot be had: %v after %v", err, took)
				}
				if generation(t, s) != before {
					t.Error("the generation has changed")
				}
				if results[0] != ResultOK || results[1] != test.want {
					t.Errorf("results are %v, want %v", results, test.want)
				}
				for _, entry := range logs.All() {
					if text := fmt.Sprint(entry.Message, entry.ContextMap()); strings.Contains(text, "hidden") {
						t.Errorf("the log shows the query: %s", text)
					}
				}
			})
		})
	}
}

// TestGeneration: it changes when a key goes or is replaced, and only then.
func TestGeneration(t *testing.T) {
	replaced := set(jwk(edKeys()[3], "1", nil), jwk(edKeys()[2], "2", nil))
	for _, step := range []struct {
		name, before, after string
		changes             bool
	}{
		{"the same", ids(1, 2), ids(1, 2), false},
		{"another order", ids(1, 2), ids(2, 1), false},
		{"added", ids(1), ids(1, 2), false},
		{"removed", ids(1, 2), ids(2), true},
		{"rotated", ids(1), ids(2), true},
		{"replaced under its id", ids(1, 2), replaced, true},
		{"narrowed", set(jwk(rsaKey(), "1", nil)), set(jwk(rsaKey(), "1", object{"alg": "RS256"})), true},
		{"no longer for signatures", ids(1, 2), set(jwk(edKeys()[1], "1", object{"use": "enc"}), jwk(edKeys()[2], "2", nil)), true},
	} {
		t.Run(step.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				from := newIssuer(step.before)
				s, logs := started(t, from, Config{})
				synctest.Wait()
				before, said := generation(t, s), logs.Len()
				from.answers(200, step.after)
				sleep(defaultAge)
				if changed := generation(t, s) != before; changed != step.changes {
					t.Errorf("the generation has changed: %v, want %v", changed, step.changes)
				}
				if quiet := logs.Len() == said; quiet != (step.before == step.after || step.name == "another order") {
					t.Errorf("the log has %v", logs.All()[said:])
				}
			})
		})
	}
}

// TestRestart: what was written down is used while the issuer is down, for as long as
// it would have been without the restart.
func TestRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var kept store
		c := Config{MaxStale: 2 * time.Hour, Load: kept.load, Save: kept.save}
		from := newIssuer(set(jwk(rsaKey(), "rsa", object{"alg": "RS256"}), jwk(ecKey(), "ec", nil), jwk(edKeys()[1], "1", nil)))
		s, _ := started(t, from, c)
		synctest.Wait()
		s.Stop()
		if kept.writes != 1 || strings.Contains(string(kept.raw), `"d"`) {
			t.Fatalf("%d writes: %s", kept.writes, kept.raw)
		}
		sleep(time.Hour)

		down := newIssuer("")
		down.status = 0
		s, _ = started(t, down, c)
		for _, kid := range []string{"rsa", "ec", "1"} {
			wants(t, s, kid, 1)
		}
		wants(t, s, "", 3)
		sleep(time.Hour - time.Second)
		wants(t, s, "ec", 1)
		sleep(time.Second)
		if _, _, err := ask(t, s, "ec"); err == nil {
			t.Error("a restart has made the keys younger")
		}
		if kept.writes != 1 {
			t.Error("an outage was written down")
		}
	})
}

// TestRestartAfterRotation: what was written down never comes back over what was fetched.
func TestRestartAfterRotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		doc := must(parse([]byte(ids(1))))
		kept := store{raw: must((&snapshot{keys: doc.keys, fetched: time.Now()}).record())}
		from := newIssuer(ids(2))
		s, _ := started(t, from, Config{Load: kept.load, Save: kept.save})
		synctest.Wait()
		wants(t, s, "1", 0)
		wants(t, s, "2", 1)
		if strings.Contains(string(kept.raw), `"1"`) {
			t.Errorf("the old key is still written down: %s", kept.raw)
		}
	})
}

// TestDamagedRecord: what cannot be read counts as nothing.
func TestDamagedRecord(t *testing.T) {
	for name, kept := range map[string]*store{
		"failure": {fail: errors.New("disk")},
		"garbage": {raw: []byte("x")},
		"empty":   {raw: []byte(`{"fetched":"2026-01-01T00:00:00Z","keys":[]}`)},
		"no time": {raw: []byte(ids(1))},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				down := newIssuer("")
				down.status = 0
				s, _ := started(t, down, Config{Load: kept.load, Save: kept.save})
				if _, _, err := ask(t, s, "1"); err == nil {
					t.Error("there is a key")
				}
				down.answers(200, ids(2))
				sleep(time.Minute)
				wants(t, s, "2", 1)
			})
		})
	}
}

// TestClockSetBack: keys from the future are no younger than those of now.
func TestClockSetBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		doc := must(parse([]byte(ids(1))))
		raw := must((&snapshot{keys: doc.keys, fetched: time.Now().Add(1000 * time.Hour)}).record())
		down := newIssuer("")
		down.status = 0
		s, _ := started(t, down, Config{Load: func() ([]byte, error) { return raw, nil }})
		wants(t, s, "1", 1)
		sleep(DefaultMaxStale)
		if _, _, err := ask(t, s, "1"); err == nil {
			t.Error("keys from the future last longer")
		}
	})
}

// TestWrites: the keys are written down when they change, else once an hour.
func TestWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var kept store
		from := newIssuer(ids(1))
		from.control = "max-age=60"
		started(t, from, Config{Load: kept.load, Save: kept.save})
		sleep(3*time.Hour + time.Minute)
		if kept.writes != 4 {
			t.Errorf("%d writes in three hours, want 4", kept.writes)
		}
		from.answers(200, ids(1, 2))
		sleep(time.Minute)
		if kept.writes != 5 || !strings.Contains(string(kept.raw), `"2"`) {
			t.Errorf("%d writes, want the new key: %s", kept.writes, kept.raw)
		}
	})
}

// TestReload: a new configuration goes on with what the old one knew, with its own
// max_stale, and the keys stay current when the old one has gone.
func TestReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		from := newIssuer(ids(1))
		old, _ := started(t, from, Config{})
		synctest.Wait()
		fresh := must(New(old.feed, Config{MaxStale: time.Hour}))
		defer fresh.Stop()
		fresh.Start()
		synctest.Wait()
		old.Stop()
		wants(t, fresh, "1", 1)
		if from.count() != 1 {
			t.Fatalf("%d fetches, want 1: a reload does not fetch", from.count())
		}
		from.answers(200, ids(2))
		sleep(defaultAge)
		wants(t, fresh, "2", 1)
		wants(t, old, "2", 1) // for requests in flight
		from.answers(0, "")
		sleep(time.Hour)
		if _, _, err := ask(t, fresh, "2"); err == nil {
			t.Error("the new max_stale does not count")
		}
		wants(t, old, "2", 1)
	})
}

// TestClose ends a fetch under way, and nothing begins after it.
func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		from := newIssuer(ids(1))
		from.delay = time.Hour
		s, logs := started(t, from, Config{})
		synctest.Wait()
		began := time.Now()
		s.Stop()
		s.feed.Close()
		if took := time.Since(began); took != 0 {
			t.Errorf("closing took %v", took)
		}
		sleep(time.Hour)
		if _, took, err := ask(t, s, "1"); err == nil || took != 0 || from.count() != 1 || logs.Len() != 0 {
			t.Errorf("%v after %v, %d fetches, %v", err, took, from.count(), logs.All())
		}
	})
}

// TestConcurrentUse is for the race detector: keys rotate while they are asked for.
func TestConcurrentUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		from := newIssuer(ids(1, 2))
		from.control = "max-age=60"
		s, _ := started(t, from, Config{})
		synctest.Wait()
		var wg sync.WaitGroup
		for i := range 4 {
			wg.Go(func() {
				for j := range 200 {
					now := time.Now()
					s.Generation(now)
					_, _, _ = s.Keys(t.Context(), fmt.Sprint((i+j)%5), now)
					time.Sleep(7 * time.Second)
				}
			})
		}
		for n := range 20 {
			from.answers(200, ids(n%4, 2))
			time.Sleep(time.Minute)
		}
		wg.Wait()
	})
}

func TestMaxStale(t *testing.T) {
	feed := must(NewFeed(address, Options{}))
	defer feed.Close()
	for d, ok := range map[time.Duration]bool{0: true, MinMaxStale: true, MinMaxStale - 1: false, -time.Hour: false} {
		if _, err := New(feed, Config{MaxStale: d}); errors.Is(err, ErrMaxStale) == ok {
			t.Errorf("%v: %v", d, err)
		}
	}
}

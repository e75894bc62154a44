package postgres_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/caddy-polar/caddy-polar/cache"
	"github.com/caddy-polar/caddy-polar/cache/kv/postgres"
	"github.com/caddy-polar/caddy-polar/cache/kv/postgres/pgtest"
	"github.com/caddy-polar/caddy-polar/entitlement"
)

// server is the tests'. Those that stop or change one start their own.
var server *pgtest.Server

func TestMain(m *testing.M) {
	os.Exit(func() int {
		var err error
		server, err = pgtest.Start()
		if errors.Is(err, pgtest.ErrNone) && os.Getenv("CI") == "" {
			fmt.Println("nothing is tested:", err)
			return 0
		}
		if err != nil {
			fmt.Println(err)
			return 1
		}
		code := m.Run()
		if err := goleak.Find(); err != nil && code == 0 {
			fmt.Println(err)
			code = 1
		}
		if err := server.Stop(); err != nil {
			fmt.Println(err)
			code = 1
		}
		return code
	}())
}

var owner = cache.Owner{Gateway: "default", Server: "https://api.polar.sh", Organization: "org"}

var schemas atomic.Int64

// newSchema is one that nobody else uses.
func newSchema() string { return fmt.Sprintf("s%d", schemas.Add(1)) }

func newEngine(t *testing.T, dsn, schema string) *postgres.Engine {
	t.Helper()
	e, err := postgres.New(postgres.Options{DSN: dsn, Schema: schema, Buckets: cache.Buckets()})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// open is a gateway's store, as in a process of its own.
func open(t *testing.T, dsn, schema string) *cache.Store {
	t.Helper()
	s := cache.NewStore(newEngine(t, dsn, schema))
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	if _, err := s.Claim(owner); err != nil {
		t.Fatal(err)
	}
	return s
}

var began = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

// purchase is a subscription of a user's at one of its versions.
func purchase(user string, version int, status entitlement.Status) *cache.Facts {
	at := began.Add(time.Duration(version) * time.Second)
	v := entitlement.Version{Row: at, AsOf: at}
	return &cache.Facts{
		Organization:  "org",
		Customers:     []entitlement.Customer{{Version: entitlement.Version{Row: began, AsOf: began}, ID: "c-" + user, ExternalID: user}},
		Subscriptions: []entitlement.Subscription{{Version: v, ID: "s-" + user, CustomerID: "c-" + user, ProductID: "p", Status: status, PeriodEnd: began.AddDate(1, 0, 0)}},
	}
}

func apply(t *testing.T, s *cache.Store, f *cache.Facts) {
	t.Helper()
	if _, err := s.Apply(t.Context(), f); err != nil {
		t.Fatal(err)
	}
}

// status is that of a user's subscription as a store tells it, or empty.
func status(t *testing.T, s *cache.Store, user string) string {
	t.Helper()
	a, err := s.Account(user)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range a.Subscriptions {
		return string(v.Status)
	}
	return ""
}

// until waits for what other processes bring about.
func until(t *testing.T, within time.Duration, what string, is func() bool) (took time.Duration) {
	t.Helper()
	for from := time.Now(); ; time.Sleep(time.Millisecond) {
		if took = time.Since(from); is() {
			return took
		}
		if took > within {
			t.Fatalf("after %s: not %s", took, what)
		}
	}
}

// TestCoherence: what one has written is in force with all, also for whom they hold in
// memory.
func TestCoherence(t *testing.T) {
	t.Parallel()
	schema := newSchema()
	a, b := open(t, server.DSN(), schema), open(t, server.DSN(), schema)
	if got := status(t, b, "ada"); got != "" {
		t.Fatalf("ada has %q", got)
	}
	news, stop := b.Watch("ada")
	defer stop()
	apply(t, a, purchase("ada", 1, entitlement.StatusActive))
	until(t, 5*time.Second, "known to the other", func() bool { return status(t, b, "ada") == "active" })
	<-news
	revision := b.Revision("ada")
	b.Remember("ada", revision, []byte("note"))
	apply(t, a, purchase("ada", 2, entitlement.StatusCanceled))
	until(t, 5*time.Second, "the note gone", func() bool { return !revision.Holds() })
	if _, _, ok := b.Recall(nil, "ada"); ok || status(t, b, "ada") != "canceled" {
		t.Error("what b holds is old")
	}
	apply(t, b, purchase("ada", 3, entitlement.StatusActive))
	if got := status(t, b, "ada"); got != "active" {
		t.Errorf("who has written it tells %q", got)
	}
	until(t, 5*time.Second, "known to the first", func() bool { return status(t, a, "ada") == "active" })
}

// bounced is the server behind a pooler in transaction mode.
func bounced(t *testing.T) (dsn string) {
	t.Helper()
	b, err := server.Bounce()
	if errors.Is(err, pgtest.ErrNoBouncer) && os.Getenv("CI") == "" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Stop(); err != nil {
			t.Error(err)
		}
	})
	return b.DSN()
}

// TestMemoryEqualsStore: whoever writes and reads where and when, in the end all tell
// what is written, and no reader ever sees a state go back.
func TestMemoryEqualsStore(t *testing.T) {
	t.Parallel()
	memoryEqualsStore(t, server.DSN(), server.DSN(), server.DSN())
}

// TestThroughPgBouncer is the same for those who come through a pooler, or not.
func TestThroughPgBouncer(t *testing.T) {
	t.Parallel()
	pooler := bounced(t)
	memoryEqualsStore(t, pooler, pooler, server.DSN())
}

func memoryEqualsStore(t *testing.T, dsns ...string) {
	t.Helper()
	schema := newSchema()
	var stores []*cache.Store
	for _, dsn := range dsns {
		stores = append(stores, open(t, dsn, schema))
	}
	const users, writes = 5, 40
	var versions [users]atomic.Int64
	var all sync.WaitGroup
	done := make(chan struct{})
	for _, s := range stores {
		for range 3 {
			all.Go(func() {
				for range writes {
					u := rand.IntN(users)
					v := int(versions[u].Add(1))
					apply(t, s, purchase(fmt.Sprint("u", u), v, entitlement.Status(fmt.Sprint("v", v))))
				}
			})
		}
	}
	var readers sync.WaitGroup
	for _, s := range stores {
		readers.Go(func() {
			var seen [users]int
			for {
				select {
				case <-done:
					return
				default:
				}
				u := rand.IntN(users)
				v := 0
				_, _ = fmt.Sscanf(status(t, s, fmt.Sprint("u", u)), "v%d", &v)
				if v < seen[u] {
					t.Errorf("u%d had %d and has %d", u, seen[u], v)
				}
				seen[u] = v
			}
		})
	}
	all.Wait()
	for u := range users {
		want := fmt.Sprint("v", versions[u].Load())
		for i, s := range stores {
			until(t, 5*time.Second, fmt.Sprintf("u%d as it is, at %d", u, i), func() bool { return status(t, s, fmt.Sprint("u", u)) == want })
		}
	}
	close(done)
	readers.Wait()
}

// TestOneLeads: one of several does what is to be done once; who stops hands it over at
// once.
func TestOneLeads(t *testing.T) {
	t.Parallel()
	schema := newSchema()
	a := open(t, server.DSN(), schema)
	until(t, 5*time.Second, "a leader", a.Leads)
	b, c := open(t, server.DSN(), schema), open(t, server.DSN(), schema)
	apply(t, b, purchase("ada", 1, entitlement.StatusActive))
	for _, s := range []*cache.Store{a, b, c} {
		until(t, 10*time.Second, "all counted", func() bool { return s.Sharers() == 3 })
	}
	if b.Leads() || c.Leads() || !a.Leads() {
		t.Error("there are several, or it was taken away")
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	took := until(t, 10*time.Second, "another leader", func() bool { return b.Leads() || c.Leads() })
	if b.Leads() && c.Leads() || a.Leads() {
		t.Error("there are several")
	}
	until(t, 10*time.Second, "one less", func() bool { return b.Sharers() == 2 && c.Sharers() == 2 })
	t.Logf("after %s", took)
}

func behind(s *cache.Store) time.Duration {
	d, _ := s.Behind()
	return d
}

// TestDatabaseGone: who is held goes on being decided for, what is to be written fails,
// and all is as before once the database is back.
func TestDatabaseGone(t *testing.T) {
	t.Parallel()
	own, err := pgtest.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := own.Stop(); err != nil {
			t.Error(err)
		}
	})
	a, b := open(t, own.DSN(), "polar"), open(t, own.DSN(), "polar")
	apply(t, a, purchase("ada", 1, entitlement.StatusActive))
	for _, s := range []*cache.Store{a, b} {
		until(t, 5*time.Second, "known", func() bool { return status(t, s, "ada") == "active" })
	}
	own.Crash()
	for _, s := range []*cache.Store{a, b} {
		if got := status(t, s, "ada"); got != "active" {
			t.Errorf("ada is told %q", got)
		}
	}
	if _, err := a.Claim(owner); err != nil {
		t.Errorf("a configuration that is loaded anew cannot go on: %v", err)
	}
	if _, err := a.Claim(cache.Owner{Gateway: "another", Server: owner.Server}); err == nil {
		t.Error("another gateway has it")
	}
	_, err = a.Apply(t.Context(), purchase("ada", 2, entitlement.StatusCanceled))
	if err == nil || !strings.Contains(err.Error(), own.Port) {
		t.Errorf("it was written: %v", err)
	}
	if got := status(t, a, "ada"); got != "active" {
		t.Errorf("after a write that failed ada is told %q", got)
	}
	until(t, 5*time.Second, "noticed", func() bool { return behind(b) > 0 })
	if _, err := b.Account("bob"); err == nil {
		t.Error("bob is known to be nobody")
	}
	if err := own.Run(); err != nil {
		t.Fatal(err)
	}
	until(t, 10*time.Second, "written", func() bool {
		_, err := a.Apply(t.Context(), purchase("ada", 3, entitlement.StatusPaused))
		return err == nil
	})
	until(t, 10*time.Second, "caught up", func() bool { return behind(b) == 0 && status(t, b, "ada") == "paused" })
}

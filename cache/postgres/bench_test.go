package postgres

import (
	"crypto/md5"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/caddy-polar/caddy-polar/cache"
	"github.com/caddy-polar/caddy-polar/cache/kv/postgres"
	"github.com/caddy-polar/caddy-polar/cache/kv/postgres/pgtest"
	"github.com/caddy-polar/caddy-polar/entitlement"
)

var (
	// benchUsers is how many users there are: POSTGRES_USERS, or few.
	benchUsers = benchNumber("POSTGRES_USERS", 2000)
	// benchSeats is how many a team has: POSTGRES_SEATS, or few.
	benchSeats = benchNumber("POSTGRES_SEATS", 100)
	// benchServer is the server of all benchmarks, unless POSTGRES_DSN names one, which
	// keeps what it was filled with. It does not sync to disk: what is measured is the
	// gateway's part, and the way there.
	benchServer = sync.OnceValues(pgtest.Start)
	filled      sync.Once
)

func benchNumber(name string, otherwise int) int {
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil && n > 0 {
		return n
	}
	return otherwise
}

func TestMain(m *testing.M) {
	code := m.Run()
	if used.Load() {
		if s, err := benchServer(); err == nil {
			_ = s.Stop()
		}
	}
	os.Exit(code)
}

var used atomic.Bool

func benchDSN(b *testing.B) string {
	b.Helper()
	if dsn := os.Getenv("POSTGRES_DSN"); dsn != "" {
		return dsn
	}
	used.Store(true)
	s, err := benchServer()
	if err != nil {
		b.Fatal(err)
	}
	return s.DSN()
}

// benchOpen is a gateway's store, as in a process of its own.
func benchOpen(b *testing.B) *cache.Store {
	b.Helper()
	e, err := postgres.New(postgres.Options{DSN: benchDSN(b), Buckets: cache.Buckets(), Columns: columns, Views: views})
	if err != nil {
		b.Fatal(err)
	}
	return benchClaim(b, cache.NewStore(e))
}

func benchClaim(b *testing.B, s *cache.Store) *cache.Store {
	b.Helper()
	b.Cleanup(func() { _ = s.Close() })
	if _, err := s.Claim(cache.Owner{Gateway: "default", Server: "https://api.polar.sh", Organization: "org"}); err != nil {
		b.Fatal(err)
	}
	return s
}

// benchStore has all users.
func benchStore(b *testing.B) *cache.Store {
	b.Helper()
	s := benchOpen(b)
	filled.Do(func() { fill(b, s) })
	return s
}

// fill has all users bought, by pages of a hundred as a first sync reads them.
func fill(b *testing.B, s *cache.Store) {
	b.Helper()
	if known, err := s.Account(benchUser(benchUsers - 1)); err != nil || len(known.Subscriptions) > 0 {
		return // it was kept
	}
	from := time.Now()
	for n := 0; n < benchUsers; {
		page := &cache.Facts{Organization: "org"}
		for range min(100, benchUsers-n) {
			f := benchPurchase(n, benchBegan)
			page.Customers, page.Subscriptions = append(page.Customers, f.Customers...), append(page.Subscriptions, f.Subscriptions...)
			n++
		}
		if _, err := s.Apply(b.Context(), page); err != nil {
			b.Fatal(err)
		}
	}
	took := time.Since(from)
	stats, err := s.Stats()
	if err != nil {
		b.Fatal(err)
	}
	b.Logf("%d users in %s, %.0f a second, %d bytes each", benchUsers, took.Round(time.Second), float64(benchUsers)/took.Seconds(), int(stats.FileSize)/benchUsers)
}

func benchUser(n int) string { return fmt.Sprint("usr_", n) }

// benchID is a random one, as Polar's are, and always the same.
func benchID(kind string, n int) string {
	return uuid.UUID(md5.Sum(fmt.Append(nil, kind, n))).String()
}

var benchBegan = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

// benchPurchase is what somebody has bought, as it was at a time.
func benchPurchase(n int, at time.Time) *cache.Facts {
	v := entitlement.Version{Row: at, AsOf: at}
	return &cache.Facts{
		Organization: "org",
		Customers:    []entitlement.Customer{{Version: entitlement.Version{Row: benchBegan, AsOf: benchBegan}, ID: benchID("customer", n), ExternalID: benchUser(n)}},
		Subscriptions: []entitlement.Subscription{{
			Version: v, ID: benchID("subscription", n), CustomerID: benchID("customer", n), ProductID: benchID("product", 0), Status: entitlement.StatusActive,
			PeriodStart: benchBegan, PeriodEnd: benchBegan.AddDate(1, 0, 0),
		}},
	}
}

// benchEvent is a webhook about somebody, of now.
func benchEvent() (user int, f *cache.Facts) {
	user = rand.IntN(benchUsers)
	return user, benchPurchase(user, time.Now())
}

// BenchmarkHit is who is in memory, of a database and of a file.
func BenchmarkHit(b *testing.B) {
	for name, open := range map[string]func(*testing.B) *cache.Store{
		"postgres": benchOpen,
		"file": func(b *testing.B) *cache.Store {
			return benchClaim(b, cache.New(filepath.Join(b.TempDir(), "polar.db")))
		},
	} {
		b.Run(name, func(b *testing.B) {
			s := open(b)
			users := make([]string, min(1000, benchUsers))
			for n := range users {
				users[n] = benchUser(n)
				if _, err := s.Apply(b.Context(), benchPurchase(n, benchBegan)); err != nil {
					b.Fatal(err)
				}
				if _, err := s.Account(users[n]); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if _, err := s.Account(users[i%len(users)]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkMiss(b *testing.B) {
	s := benchStore(b)
	for b.Loop() {
		if _, err := s.ReadAccounts([]string{benchUser(rand.IntN(benchUsers))}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkApply1 is one webhook after the other, BenchmarkApply64 as many at a time.
func BenchmarkApply1(b *testing.B) {
	s := benchStore(b)
	for b.Loop() {
		_, f := benchEvent()
		if _, err := s.Apply(b.Context(), f); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkApply64(b *testing.B) {
	s := benchStore(b)
	b.SetParallelism(32)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			_, f := benchEvent()
			if _, err := s.Apply(b.Context(), f); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

// BenchmarkPropagation is how long it takes until two other gateways know of a change,
// at 500 changes a second.
func BenchmarkPropagation(b *testing.B) {
	writer := benchStore(b)
	others := []*cache.Store{benchOpen(b), benchOpen(b)}
	var mu sync.Mutex
	var took []time.Duration
	var all sync.WaitGroup
	ticker := time.NewTicker(2 * time.Millisecond)
	defer ticker.Stop()
	for b.Loop() {
		<-ticker.C
		all.Go(func() {
			n, change := benchEvent()
			var news []<-chan struct{}
			for _, s := range others {
				if _, err := s.Account(benchUser(n)); err != nil {
					b.Error(err)
				}
				heard, stop := s.Watch(benchUser(n))
				defer stop()
				news = append(news, heard)
			}
			applied, err := writer.Apply(b.Context(), change)
			if err != nil {
				b.Error(err)
			}
			if applied.New == 0 {
				return // a later change of the same user was faster
			}
			from := time.Now()
			for _, heard := range news {
				<-heard
			}
			mu.Lock()
			defer mu.Unlock()
			took = append(took, time.Since(from))
		})
	}
	all.Wait()
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Milliseconds()), "p50-ms")
	b.ReportMetric(float64(took[len(took)*99/100].Milliseconds()), "p99-ms")
}

// BenchmarkTeam is a webhook about a subscription by seats, whose members all have to be
// told of it.
func BenchmarkTeam(b *testing.B) {
	s := benchStore(b)
	const buyer = -1
	bought := func(at time.Time) *cache.Facts {
		f := benchPurchase(buyer, at)
		f.Subscriptions[0].Seats = true
		return f
	}
	f := bought(time.Now())
	customer, subscription, v := f.Customers[0].ID, f.Subscriptions[0].ID, f.Subscriptions[0].Version
	for n := range benchSeats {
		member := benchID("member", n)
		f.Members = append(f.Members, entitlement.Member{Version: v, ID: member, CustomerID: customer, ExternalID: fmt.Sprint("mate", n), Role: "member"})
		f.Seats = append(f.Seats, entitlement.Seat{Version: v, ID: benchID("seat", n), SubscriptionID: subscription, CustomerID: customer, MemberID: member, Claimed: true, ClaimedIn: v})
		if len(f.Seats) == 100 || n == benchSeats-1 { // a page
			if _, err := s.Apply(b.Context(), f); err != nil {
				b.Fatal(err)
			}
			f.Members, f.Seats = nil, nil
		}
	}
	for b.Loop() {
		if applied, err := s.Apply(b.Context(), bought(time.Now())); err != nil || applied.New != 1 {
			b.Fatal(applied, err)
		}
	}
}

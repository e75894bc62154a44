package cache

import (
	"cmp"
	"crypto/md5"
	"encoding/hex"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/caddy-polar/caddy-polar/entitlement"
)

// benchStore is on a real disk, with fsync, and has as many users as CACHE_USERS
// says, each with a customer and a subscription. CACHE_FILE names a file that is
// kept for the next run: a million users take minutes to write.
func benchStore(b *testing.B) (s *Store, users int) {
	b.Helper()
	users = envInt(b, "CACHE_USERS", 5000)
	s = claimed(b, cmp.Or(os.Getenv("CACHE_FILE"), filepath.Join(b.TempDir(), "polar.db")))
	b.Cleanup(func() { _ = s.Close() })
	if must(s.Stats()).Objects["customers"] == users {
		return s, users
	}
	db := s.file().db.Load()
	db.NoSync = true
	for i := 0; i < users; {
		var some []*change
		for ; i < users && len(some) < maxBatch; i++ {
			some = append(some, &change{facts: benchPurchase(i, testOrigin)})
		}
		s.commit(some)
		if some[0].err != nil {
			b.Fatal(some[0].err)
		}
	}
	db.NoSync = false
	if err := db.Sync(); err != nil {
		b.Fatal(err)
	}
	return s, users
}

// benchPurchase is a customer and a subscription as Polar tells of them.
func benchPurchase(i int, at time.Time) *Facts {
	v := entitlement.Version{Row: at, AsOf: at}
	customer := benchID("customer", i)
	return &Facts{
		Organization: testOwner.Organization,
		Source:       Source{SourceWebhook, benchID("webhook", rand.Int())}, At: at, Audit: 30 * 24 * time.Hour,
		Customers: []entitlement.Customer{{Version: v, ID: customer, ExternalID: "usr_" + strconv.Itoa(i)}},
		Subscriptions: []entitlement.Subscription{{
			Version: v, ID: benchID("subscription", i), CustomerID: customer,
			ProductID: benchID("product", 0), CheckoutID: benchID("checkout", i),
			Status: entitlement.StatusActive, PeriodStart: at, PeriodEnd: at.AddDate(0, 1, 0),
		}},
	}
}

// benchID is a UUID that looks random, and is the same for the same thing.
func benchID(kind string, i int) string {
	id := md5.Sum(strconv.AppendInt([]byte(kind), int64(i), 10))
	id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80
	x := hex.EncodeToString(id[:])
	return x[:8] + "-" + x[8:12] + "-" + x[12:16] + "-" + x[16:20] + "-" + x[20:]
}

// benchEvent is one webhook: a newer version of a user's subscription.
func benchEvent(i int) *Facts {
	f := benchPurchase(i, time.Now().UTC().Truncate(time.Microsecond))
	customer := f.Customers[0]
	f.Customers, f.Names = nil, []Name{{Customer: customer.ID, ExternalID: customer.ExternalID}}
	return f
}

// envInt is a size that can be set from outside.
func envInt(b *testing.B, name string, size int) int {
	b.Helper()
	if s := os.Getenv(name); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			b.Fatalf("%s=%q is no size", name, s)
		}
		return n
	}
	return size
}

// written counts what is handed to the disk from here on, for each event.
func written(b *testing.B, s *Store) (report func()) {
	b.Helper()
	stats := func() (pages, bytes, commits float64) {
		v := s.file().db.Load().Stats().TxStats
		return float64(v.GetWrite()), float64(v.GetPageAlloc()), float64(lastCommit(s))
	}
	pages, bytes, commits := stats()
	return func() {
		b.Helper()
		p, y, c := stats()
		n := float64(b.N)
		b.ReportMetric((p-pages)/n, "pages/event")
		b.ReportMetric((y-bytes)/1024/n, "KiB/event")
		b.ReportMetric(n/(c-commits), "events/commit")
		b.ReportMetric(n/b.Elapsed().Seconds(), "events/s")
	}
}

func BenchmarkApply1(b *testing.B) {
	s, users := benchStore(b)
	b.ReportAllocs()
	report := written(b, s)
	for b.Loop() {
		if _, err := s.Apply(b.Context(), benchEvent(rand.IntN(users))); err != nil {
			b.Fatal(err)
		}
	}
	report()
}

// parallel runs b.N events on 64 goroutines.
func parallel(b *testing.B, s *Store, one func() error) {
	b.Helper()
	b.ReportAllocs()
	report := written(b, s)
	b.SetParallelism((64 + runtime.GOMAXPROCS(0) - 1) / runtime.GOMAXPROCS(0))
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := one(); err != nil {
				b.Error(err)
				return
			}
		}
	})
	report()
}

// BenchmarkApply64 is 64 webhooks at a time, which share commits.
func BenchmarkApply64(b *testing.B) {
	s, users := benchStore(b)
	parallel(b, s, func() error {
		_, err := s.Apply(b.Context(), benchEvent(rand.IntN(users)))
		return err
	})
}

// BenchmarkApply64OneEach is the same with a commit for each.
func BenchmarkApply64OneEach(b *testing.B) {
	s, users := benchStore(b)
	var mu sync.Mutex
	parallel(b, s, func() error {
		c := &change{facts: benchEvent(rand.IntN(users))}
		mu.Lock()
		defer mu.Unlock()
		s.commit([]*change{c})
		return c.err
	})
}

func BenchmarkAccountHit(b *testing.B) {
	s, _ := benchStore(b)
	users := make([]string, 1024)
	for i := range users {
		users[i] = "usr_" + strconv.Itoa(i)
		_ = account(b, s, users[i])
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, err := s.Account(users[i%len(users)]); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAccountHitParallel(b *testing.B) {
	s, _ := benchStore(b)
	_ = account(b, s, "usr_1")
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := s.Account("usr_1"); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

func BenchmarkAccountMiss(b *testing.B) {
	s, _ := benchStore(b)
	users := make([]string, 1024)
	for i := range users {
		users[i] = "usr_" + strconv.Itoa(i)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		s.memory.accounts.Invalidate(users[i%len(users)])
		if _, err := s.Account(users[i%len(users)]); err != nil {
			b.Fatal(err)
		}
	}
}

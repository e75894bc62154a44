package postgres_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-polar/caddy-polar/cache"
	"github.com/caddy-polar/caddy-polar/cache/kv/postgres"
	"github.com/caddy-polar/caddy-polar/entitlement"
)

// benchUsers is how many users there are: POSTGRES_USERS, or few.
var benchUsers = func() int {
	if n, err := strconv.Atoi(os.Getenv("POSTGRES_USERS")); err == nil && n > 0 {
		return n
	}
	return 2000
}()

// benchStore has some users, each with a subscription. The server of the tests does not
// sync to disk: what is measured is the gateway's part and the way there.
func benchStore(b *testing.B) *cache.Store {
	b.Helper()
	filled.Do(func() { fill(b) })
	return benchOpen(b)
}

// filled is the schema of the benchmarks, which is filled once.
var filled sync.Once

const filledSchema = "bench"

func benchOpen(b *testing.B) *cache.Store {
	b.Helper()
	e, err := postgres.New(postgres.Options{DSN: server.DSN(), Schema: filledSchema, Buckets: cache.Buckets()})
	if err != nil {
		b.Fatal(err)
	}
	s := cache.NewStore(e)
	b.Cleanup(func() { _ = s.Close() })
	if _, err := s.Claim(owner); err != nil {
		b.Fatal(err)
	}
	return s
}

func fill(b *testing.B) {
	b.Helper()
	s := benchOpen(b)
	from := time.Now()
	const atOnce = 1000
	for n := 0; n < benchUsers; n += atOnce {
		all := new(cache.Facts)
		for i := range min(atOnce, benchUsers-n) {
			f := purchase(fmt.Sprint("u", n+i), 1, entitlement.StatusActive)
			all.Customers, all.Subscriptions = append(all.Customers, f.Customers...), append(all.Subscriptions, f.Subscriptions...)
		}
		if _, err := s.Apply(b.Context(), all); err != nil {
			b.Fatal(err)
		}
	}
	stats, err := s.Stats()
	if err != nil {
		b.Fatal(err)
	}
	b.Logf("%d users in %s, %d bytes each", benchUsers, time.Since(from).Round(time.Second), int(stats.FileSize)/benchUsers)
}

var benchVersion atomic.Int64

func benchEvent() *cache.Facts {
	return purchase(fmt.Sprint("u", rand.IntN(benchUsers)), int(benchVersion.Add(1))+1, entitlement.StatusActive)
}

func BenchmarkMiss(b *testing.B) {
	s := benchStore(b)
	for b.Loop() {
		if _, err := s.ReadAccounts([]string{fmt.Sprint("u", rand.IntN(benchUsers))}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkApply1 is one webhook after the other, BenchmarkApply64 as many at a time.
func BenchmarkApply1(b *testing.B) {
	s := benchStore(b)
	for b.Loop() {
		if _, err := s.Apply(b.Context(), benchEvent()); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkApply64(b *testing.B) {
	s := benchStore(b)
	b.SetParallelism(32)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := s.Apply(b.Context(), benchEvent()); err != nil {
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
			user := fmt.Sprint("u", rand.IntN(benchUsers))
			var news []<-chan struct{}
			for _, s := range others {
				if _, err := s.Account(user); err != nil {
					b.Error(err)
				}
				heard, stop := s.Watch(user)
				defer stop()
				news = append(news, heard)
			}
			if _, err := writer.Apply(b.Context(), purchase(user, int(benchVersion.Add(1))+1, entitlement.StatusActive)); err != nil {
				b.Error(err)
				return
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

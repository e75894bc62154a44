package cache

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
)

const benchUsers = 5000

// benchStore is on a real disk, with fsync, and has some users.
func benchStore(b *testing.B) *Store {
	b.Helper()
	s := claimed(b, filepath.Join(b.TempDir(), "polar.db"))
	b.Cleanup(func() { _ = s.Close() })
	var all []*change
	for i := range benchUsers {
		all = append(all, &change{facts: purchase(fmt.Sprint(i), 0)})
	}
	s.commit(all)
	if all[0].err != nil {
		b.Fatal(all[0].err)
	}
	return s
}

var benchClock atomic.Int64

// benchEvent is one webhook: a newer version of some user's subscription.
func benchEvent() *Facts {
	f := purchase(fmt.Sprint(rand.IntN(benchUsers)), int(benchClock.Add(1)))
	f.Customers = nil
	return f
}

func perSecond(b *testing.B) {
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}

func BenchmarkApply1(b *testing.B) {
	s := benchStore(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Apply(b.Context(), benchEvent()); err != nil {
			b.Fatal(err)
		}
	}
	perSecond(b)
}

// parallel runs b.N events on 64 goroutines.
func parallel(b *testing.B, one func() error) {
	b.Helper()
	b.ReportAllocs()
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
	perSecond(b)
}

// BenchmarkApply64 is 64 webhooks at a time, which share commits.
func BenchmarkApply64(b *testing.B) {
	s := benchStore(b)
	parallel(b, func() error {
		_, err := s.Apply(b.Context(), benchEvent())
		return err
	})
}

// BenchmarkApply64OneEach is the same with a commit for each.
func BenchmarkApply64OneEach(b *testing.B) {
	s := benchStore(b)
	var mu sync.Mutex
	parallel(b, func() error {
		c := &change{facts: benchEvent()}
		mu.Lock()
		defer mu.Unlock()
		s.commit([]*change{c})
		return c.err
	})
}

func BenchmarkAccountHit(b *testing.B) {
	s := benchStore(b)
	users := make([]string, 1024)
	for i := range users {
		users[i] = fmt.Sprint(i)
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
	s := benchStore(b)
	_ = account(b, s, "1")
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := s.Account("1"); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

func BenchmarkAccountMiss(b *testing.B) {
	s := benchStore(b)
	users := make([]string, 1024)
	for i := range users {
		users[i] = fmt.Sprint(i)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		s.memory.accounts.Invalidate(users[i%len(users)])
		if _, err := s.Account(users[i%len(users)]); err != nil {
			b.Fatal(err)
		}
	}
}

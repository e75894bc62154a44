package postgres_test

import (
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"

	"github.com/caddy-polar/caddy-polar/cache"
	"github.com/caddy-polar/caddy-polar/cache/kv/postgres"
	"github.com/caddy-polar/caddy-polar/entitlement"
)

const benchUsers = 2000

// benchStore has some users, each with a subscription. The server of the tests does not
// sync to disk: what is measured is the gateway's part and the way there.
func benchStore(b *testing.B) *cache.Store {
	b.Helper()
	e, err := postgres.New(postgres.Options{DSN: server.DSN(), Schema: newSchema(), Buckets: cache.Buckets()})
	if err != nil {
		b.Fatal(err)
	}
	s := cache.NewStore(e)
	b.Cleanup(func() { _ = s.Close() })
	if _, err := s.Claim(owner); err != nil {
		b.Fatal(err)
	}
	all := new(cache.Facts)
	for i := range benchUsers {
		f := purchase(fmt.Sprint("u", i), 1, entitlement.StatusActive)
		all.Customers, all.Subscriptions = append(all.Customers, f.Customers...), append(all.Subscriptions, f.Subscriptions...)
	}
	if _, err := s.Apply(b.Context(), all); err != nil {
		b.Fatal(err)
	}
	return s
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

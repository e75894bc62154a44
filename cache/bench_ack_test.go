package cache

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/caddy-polar/caddy-polar/entitlement"
)

// BenchmarkAcknowledge is how long a webhook waits until it is durable and in
// force. They come at a steady pace, 1,000 in a second, whether those before are
// done or not, for CACHE_SECONDS.
func BenchmarkAcknowledge(b *testing.B) {
	s, users := benchStore(b)
	n := 1000 * envInt(b, "CACHE_SECONDS", 1)
	for b.Loop() {
		took := steadily(b, n, time.Millisecond, func() error {
			_, err := s.Apply(b.Context(), benchEvent(rand.IntN(users)))
			return err
		})
		percentiles(b, took)
	}
}

// BenchmarkAcknowledgeWhileExpiring is the same for as long as Expire needs for
// a fifth of the users, whose subscriptions have ended long ago.
func BenchmarkAcknowledgeWhileExpiring(b *testing.B) {
	s, users := benchStore(b)
	for b.Loop() {
		b.StopTimer()
		ended := time.Now().UTC().Truncate(time.Microsecond)
		for i := 0; i < users/5; {
			f := &Facts{}
			for ; i < users/5 && len(f.Subscriptions) < maxBatch; i++ {
				over := benchPurchase(i, ended).Subscriptions[0]
				over.Status, over.EndedAt = entitlement.StatusCanceled, ended
				f.Subscriptions = append(f.Subscriptions, over)
			}
			if _, err := s.Apply(b.Context(), f); err != nil {
				b.Fatal(err)
			}
		}
		b.StartTimer()
		began, expired := time.Now(), make(chan time.Duration, 1)
		go func() {
			if n, err := s.Expire(b.Context(), ended.AddDate(0, 0, 101)); err != nil || n < users/5 {
				b.Errorf("%d expired, %v", n, err)
			}
			expired <- time.Since(began)
		}()
		var took []time.Duration
		for len(expired) == 0 {
			took = append(took, steadily(b, 1000, time.Millisecond, func() error {
				_, err := s.Apply(b.Context(), benchEvent(users/5+rand.IntN(users-users/5)))
				return err
			})...)
		}
		percentiles(b, took)
		b.ReportMetric((<-expired).Seconds(), "expire-s")
	}
}

// steadily does something n times, and returns how long each took.
func steadily(b *testing.B, n int, every time.Duration, do func() error) []time.Duration {
	b.Helper()
	took := make([]time.Duration, n)
	pace := time.NewTicker(every)
	defer pace.Stop()
	began := time.Now()
	var under sync.WaitGroup
	for i := 0; i < n; {
		<-pace.C // a tick that was missed is made up for
		for ; i < n && time.Since(began) >= time.Duration(i)*every; i++ {
			at := i
			under.Go(func() {
				if err := do(); err != nil {
					b.Error(err)
				}
				took[at] = time.Since(began.Add(time.Duration(at) * every))
			})
		}
	}
	under.Wait()
	return took
}

func percentiles(b *testing.B, took []time.Duration) {
	b.Helper()
	slices.Sort(took)
	for _, p := range []int{50, 99, 100} {
		at := took[min(len(took)*p/100, len(took)-1)]
		b.ReportMetric(float64(at.Microseconds())/1000, fmt.Sprintf("p%d-ms", p))
	}
}

// BenchmarkOpen is how long it takes to open a file, and how much a user takes
// of it.
func BenchmarkOpen(b *testing.B) {
	s, users := benchStore(b)
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		again := claimed(b, s.Path())
		if err := again.Close(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(must(os.Stat(s.Path())).Size())/float64(users), "bytes/user")
}

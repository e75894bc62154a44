package gateway

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/caddy-polar/caddy-polar/entitlement"
	"github.com/caddy-polar/caddy-polar/polar/box"
)

// BenchmarkPaidToUnlocked is the time from the buyer's return to the open door,
// with webhooks switched off: over HTTP to a Polar that does not let it wait.
func BenchmarkPaidToUnlocked(b *testing.B) {
	s := newShop(b, box.Options{})
	var took []time.Duration
	for i := 0; b.Loop(); i++ {
		b.StopTimer()
		v := Visitor{User: fmt.Sprint("usr_", i), Email: fmt.Sprintf("u%d@example.com", i), EmailVerified: true}
		c := s.opens(v, s.pro.ID)
		s.pays(c, "")
		s.is(v.User, "pro", false, entitlement.ReasonNoSubscription)
		b.StartTimer()
		began := time.Now()
		s.arrives(c, ArrivedOpen)
		took = append(took, time.Since(began))
		s.is(v.User, "pro", true, entitlement.ReasonActive)
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)*95/100].Microseconds())/1000, "p95-ms")
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
}

// BenchmarkTenThousandCustomers buy, with one webhook each that is delivered
// and in force.
func BenchmarkTenThousandCustomers(b *testing.B) {
	const customers = 10_000
	for b.Loop() {
		s := newShop(b, box.Options{})
		s.connect("subscription.active")
		for i := range customers {
			if _, err := s.box.Buy(fmt.Sprint("usr_", i), fmt.Sprintf("u%d@example.com", i), s.pro.ID); err != nil {
				b.Fatal(err)
			}
		}
		s.box.Settle()
		for i := range customers {
			s.is(fmt.Sprint("usr_", i), "pro", true, entitlement.ReasonActive)
		}
	}
	b.ReportMetric(customers*float64(b.N)/b.Elapsed().Seconds(), "customers/s")
}

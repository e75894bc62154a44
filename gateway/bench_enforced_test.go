package gateway

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/caddy-polar/caddy-polar/entitlement"
)

// BenchmarkWebhookToEnforced is the time from the moment at which Polar begins
// to send a webhook over HTTP until its user is let in, with a store on disk that
// syncs each commit. Webhooks come at a steady pace, whether the ones before are
// done or not. WEBHOOK_SECONDS=30 is longer than the second that is the default.
func BenchmarkWebhookToEnforced(b *testing.B) {
	const perSecond = 100
	n := perSecond * envInt(b, "WEBHOOK_SECONDS", 1)
	var took []time.Duration
	for b.Loop() {
		took = append(took, deliverSteadily(b, n, time.Second/perSecond)...)
	}
	slices.Sort(took)
	for _, p := range []int{50, 95, 99, 100} {
		at := took[min(len(took)*p/100, len(took)-1)]
		b.ReportMetric(float64(at.Microseconds())/1000, fmt.Sprintf("p%d-ms", p))
	}
}

// deliverSteadily lets n users subscribe, and returns how long each had to wait.
func deliverSteadily(b *testing.B, n int, every time.Duration) []time.Duration {
	x := newBench(b)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		raw, _ := io.ReadAll(r.Body)
		d, err := x.g.ReadDelivery(r.Header)
		if err == nil {
			_, err = x.g.TakeWebhook(r.Context(), d, raw)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	}))
	defer server.Close()
	pro, err := x.g.Rules().Require("pro")
	if err != nil {
		b.Fatal(err)
	}
	requests := make([]*http.Request, n)
	for i := range requests {
		requests[i] = subscribes(b, i, server.URL)
		x.is(fmt.Sprint("usr_", i), "pro", false, entitlement.ReasonNoSubscription)
	}
	deliver := func(i int) error {
		answer, err := server.Client().Do(requests[i])
		if err != nil {
			return err
		}
		answer.Body.Close()
		a, err := x.g.Account(fmt.Sprint("usr_", i))
		if err == nil && !entitlement.Decide(a, pro, x.g.Rules(), x.now).Allowed {
			err = errors.New("the webhook is taken, and its user is not let in")
		}
		return err
	}
	took := make([]time.Duration, n)
	pace := time.NewTicker(every)
	defer pace.Stop()
	var under sync.WaitGroup
	for i := range n {
		<-pace.C
		under.Go(func() {
			began := time.Now()
			if err := deliver(i); err != nil {
				b.Error(err)
			}
			took[i] = time.Since(began)
		})
	}
	under.Wait()
	return took
}

// subscribes is the webhook that makes somebody new a subscriber.
func subscribes(b *testing.B, i int, url string) *http.Request {
	buyer := fmt.Sprintf("1509bb0a-9bf1-4331-8a11-%012x", i)
	raw := edited(b, "subscription.active.json",
		"data.id", fmt.Sprintf("627bf322-5fac-4cb6-a34a-%012x", i), "data.customer_id", buyer,
		"data.customer.id", buyer, "data.customer.external_id", fmt.Sprint("usr_", i))
	r, err := http.NewRequestWithContext(b.Context(), http.MethodPost, url, bytes.NewReader(raw))
	if err != nil {
		b.Fatal(err)
	}
	r.Header = signed(fmt.Sprint("msg-", i), bought, raw)
	return r
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

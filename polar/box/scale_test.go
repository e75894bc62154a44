package box

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/caddy-polar/caddy-polar/polar/box/internal/contract"
)

// crowd is a box with very many customers, and what has arrived of its events.
type crowd struct {
	*Box
	pro Product

	mu      sync.Mutex
	arrived []string // the ids of subscriptions, in order
	sample  []byte
}

func gather(t testing.TB) *crowd {
	t.Helper()
	c := &crowd{Box: New(Options{})}
	c.pro = c.AddProduct(Product{Name: "Pro", Interval: "month", Price: Price{Amount: 1900}, BenefitIDs: []string{c.AddBenefit(Benefit{Description: "Pro"}).ID}})
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		var e struct{ Data struct{ ID string } }
		_ = json.Unmarshal(body, &e)
		c.mu.Lock()
		defer c.mu.Unlock()
		c.arrived, c.sample = append(c.arrived, e.Data.ID), body
	}))
	t.Cleanup(srv.Close)
	c.AddEndpoint(Endpoint{URL: srv.URL, Events: []string{"subscription.active"}})
	return c
}

// buy lets so many more people buy, and returns their subscriptions.
func (c *crowd) buy(t testing.TB, n int) []string {
	t.Helper()
	var out []string
	for range n {
		i := len(c.subs.ids)
		x, err := c.Buy(fmt.Sprint("usr_", i), fmt.Sprintf("u%d@example.org", i), c.pro.ID)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, x.SubscriptionID)
	}
	return out
}

// sell lets n people buy, and checks that each is told of once and in order.
// It returns the time that it took until all had arrived.
func (c *crowd) sell(t testing.TB, n int) time.Duration {
	t.Helper()
	began := time.Now()
	want := c.buy(t, n)
	c.Settle()
	took := time.Since(began)
	if !slices.Equal(c.arrived, want) {
		t.Fatalf("%d arrived of %d, or not in order", len(c.arrived), n)
	}
	contract.New(t).Webhook(c.sample)
	return took
}

// list reads all active subscriptions over the API.
func (c *crowd) list(t testing.TB, n int) {
	t.Helper()
	seen := map[string]bool{}
	token := c.NewToken()
	for page := 1; page <= (n+99)/100; page++ {
		req := httptest.NewRequest("GET", fmt.Sprintf("/v1/subscriptions/?status=active&limit=100&page=%d", page), nil)
		req.Header.Set("Authorization", "Bearer "+token)
		rec := httptest.NewRecorder()
		c.ServeHTTP(rec, req)
		var list struct{ Items []struct{ ID string } }
		if err := json.Unmarshal(rec.Body.Bytes(), &list); err != nil {
			t.Fatal(err)
		}
		for _, x := range list.Items {
			seen[x.ID] = true
		}
	}
	if len(seen) != n {
		t.Fatal(len(seen), "listed of", n)
	}
}

// Very many people buy, are told of, and are listed.
func TestManyCustomers(t *testing.T) {
	n := 1000
	if testing.Short() || raceDetector {
		n = 300
	}
	c := gather(t)
	c.sell(t, n)
	c.list(t, n)
}

// BenchmarkTenThousandCustomers buys, delivers and lists ten thousand, which
// must not take long on two cores.
func BenchmarkTenThousandCustomers(b *testing.B) {
	const n, goal = 10_000, time.Minute // of a busy machine; alone it takes less than ten seconds
	var delivered, listed time.Duration
	for b.Loop() {
		c := gather(b)
		took := c.sell(b, n)
		if took > goal {
			b.Errorf("took %s, want less than %s", took, goal)
		}
		began := time.Now()
		c.list(b, n)
		delivered, listed = delivered+took, listed+time.Since(began)
	}
	b.ReportMetric(float64(b.N*n)/delivered.Seconds(), "events/s")
	b.ReportMetric(float64(b.N*n)/listed.Seconds(), "listed/s")
}

// BenchmarkEvents is the rate of events from the purchase to the receiver.
func BenchmarkEvents(b *testing.B) {
	const batch = 100
	c := gather(b)
	for b.Loop() {
		c.buy(b, batch)
		c.Settle()
	}
	if len(c.arrived) != b.N*batch {
		b.Error(len(c.arrived), "arrived")
	}
	b.ReportMetric(float64(b.N*batch)/b.Elapsed().Seconds(), "events/s")
}

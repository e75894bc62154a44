package gateway

import (
	"fmt"
	"net/http/httptest"
	"testing"

	"github.com/caddy-polar/caddy-polar/polar/box"
	"github.com/caddy-polar/caddy-polar/polar/box/boxtest"
)

// BenchmarkSync reads a whole Polar over HTTP, without its request limit: the
// first time, into an empty store, and again, when all of it is known. For more
// customers: SYNC_CUSTOMERS=100000 go test -bench BenchmarkSync ./gateway
func BenchmarkSync(b *testing.B) {
	customers := envInt(b, "SYNC_CUSTOMERS", 2000)
	at := populated(b, customers)
	measure := func(b *testing.B, known bool) {
		objects := 0
		for b.Loop() {
			b.StopTimer()
			s := newShopAt(b, at)
			if known {
				s.sync()
			}
			b.StartTimer()
			r := s.sync()
			if r.Objects < 2*customers || r.Missing+r.Wrong+r.Extra > 0 {
				b.Fatalf("%+v", r)
			}
			objects += r.Objects
		}
		b.ReportMetric(float64(objects)/b.Elapsed().Seconds(), "objects/s")
	}
	b.Run(fmt.Sprintf("first/customers=%d", customers), func(b *testing.B) { measure(b, false) })
	b.Run(fmt.Sprintf("again/customers=%d", customers), func(b *testing.B) { measure(b, true) })
}

// populated is a Polar with so many subscribers, without boxtest's check of
// every answer, which takes longer than all else.
func populated(b *testing.B, customers int) *boxtest.Server {
	b.Helper()
	bare := box.New(box.Options{})
	server := httptest.NewServer(bare)
	b.Cleanup(server.Close)
	bare.SetBaseURL(server.URL)
	pro := bare.AddProduct(box.Product{Name: "Pro", Interval: "month", Price: box.Price{Amount: 1000, Currency: "usd"}})
	if err := bare.Populate(customers, pro.ID); err != nil {
		b.Fatal(err)
	}
	return &boxtest.Server{Box: bare, URL: server.URL}
}

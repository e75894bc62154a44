package box

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"
)

// Two thousand people buy, every webhook is delivered, everybody is listed.
func TestManyCustomers(t *testing.T) {
	n := 2000
	if testing.Short() || raceDetector {
		n = 300
	}
	s := newShop(t, Options{})
	var arrived atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { arrived.Add(1) }))
	defer srv.Close()
	s.AddEndpoint(Endpoint{URL: srv.URL, Events: []string{"subscription.active"}})
	began := time.Now()
	for i := range n {
		if _, err := s.Buy(fmt.Sprint("usr_", i), fmt.Sprintf("u%d@example.org", i), s.pro.ID); err != nil {
			t.Fatal(err)
		}
	}
	bought := time.Since(began)
	s.Settle()
	if int(arrived.Load()) != n {
		t.Fatal(arrived.Load(), "arrived")
	}
	settled := time.Since(began)
	c := s.client()
	seen := map[any]bool{}
	for page := 1; page <= (n+99)/100; page++ {
		for _, x := range c.get(fmt.Sprintf("/v1/subscriptions/?status=active&limit=100&page=%d", page))["items"].([]any) {
			seen[x.(map[string]any)["id"]] = true
		}
	}
	if len(seen) != n {
		t.Error(len(seen), "listed")
	}
	t.Logf("%d customers: bought %s, delivered %s, listed %s", n, bought, settled-bought, time.Since(began)-settled)
}

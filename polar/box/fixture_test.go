package box

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-polar/caddy-polar/polar/box/internal/contract"
)

const day = 24 * time.Hour

// shop is a box with a catalogue.
type shop struct {
	*Box
	t                      *testing.T
	contract               *contract.Checker // of every answer and every event
	pro, maxi, trial, once Product
	seen                   int
}

// newShop opens a shop all of whose events are checked at the end of the test.
func newShop(t *testing.T, o Options) *shop {
	t.Helper()
	s := openShop(t, contract.New(t), o)
	t.Cleanup(func() {
		events := s.Events()
		s.contract.Webhooks(len(events), func(i int) string { return events[i].Envelope(Version) })
	})
	return s
}

func openShop(t *testing.T, c *contract.Checker, o Options) *shop {
	b := New(o)
	proBenefit := b.AddBenefit(Benefit{Description: "Pro features", Metadata: map[string]any{"feature": "pro"}})
	maxBenefit := b.AddBenefit(Benefit{Description: "Max features"})
	onceBenefit := b.AddBenefit(Benefit{Description: "Lifetime"})
	s := &shop{Box: b, t: t, contract: c}
	s.pro = b.AddProduct(Product{Name: "Pro", Interval: "month", Price: Price{Amount: 1900}, BenefitIDs: []string{proBenefit.ID}, Metadata: map[string]any{"tier": "pro"}})
	s.maxi = b.AddProduct(Product{Name: "Max", Interval: "month", Price: Price{Amount: 4900}, BenefitIDs: []string{maxBenefit.ID}})
	s.trial = b.AddProduct(Product{Name: "Try", Interval: "month", TrialInterval: "day", TrialCount: 14, Price: Price{Amount: 1900}, BenefitIDs: []string{proBenefit.ID}})
	s.once = b.AddProduct(Product{Name: "Lifetime", Price: Price{Amount: 14900}, BenefitIDs: []string{onceBenefit.ID}})
	s.news()
	return s
}

// news returns the events since the last call.
func (s *shop) news() []Event {
	all := s.Events()
	out := all[s.seen:]
	s.seen = len(all)
	return out
}

// expect compares the types of the events since the last call, without those
// of background jobs about customers, whose order is not fixed.
func (s *shop) expect(want ...string) []Event {
	s.t.Helper()
	var got []string
	var events []Event
	for _, e := range s.news() {
		if !strings.HasPrefix(e.Type, "customer.") {
			got = append(got, e.Type)
			events = append(events, e)
		}
	}
	if !slices.Equal(got, want) {
		s.t.Fatalf("events\n got %q\nwant %q", got, want)
	}
	return events
}

func (s *shop) buy(p Product) (Subscription, Customer) {
	s.t.Helper()
	c, err := s.Buy("usr_1", "ada@example.org", p.ID)
	if err != nil {
		s.t.Fatal(err)
	}
	s.Settle()
	customer, _ := s.Customer(c.CustomerID)
	sub, _ := s.Subscription(c.SubscriptionID)
	return sub, customer
}

func (s *shop) sub(id string) Subscription {
	s.t.Helper()
	sub, ok := s.Subscription(id)
	if !ok {
		s.t.Fatal("no subscription")
	}
	return sub
}

func (s *shop) granted(customerID string) int {
	n := 0
	for _, g := range s.Grants(customerID) {
		if g.GrantedAt != nil {
			n++
		}
	}
	return n
}

func fields(t *testing.T, e Event) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal(e.Data, &m); err != nil {
		t.Fatal(err)
	}
	return m
}

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

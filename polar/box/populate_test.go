package box

import (
	"testing"
	"time"
)

func TestPopulate(t *testing.T) {
	s := newShop(t, Options{})
	c := s.client()
	const n = 120 // more than a page
	if err := s.Populate(n, s.pro.ID); err != nil {
		t.Fatal(err)
	}
	s.Settle()
	s.expect() // nobody is told
	for _, query := range []string{
		"customers/?active=true", "members/?role=owner", "subscriptions/?status=active", "orders/?status=paid", "benefit-grants/?is_granted=true",
	} {
		if got := total(c.get("/v1/" + query)); got != n {
			t.Errorf("%s: %d, want %d", query, got, n)
		}
	}
	state := c.get("/v1/customers/external/usr_7/state")
	if active := state["active_subscriptions"].([]any); len(active) != 1 || state["email"] != "u7@example.com" {
		t.Error(state)
	}
	for _, p := range []Product{s.pro, s.once, {}} {
		if err := s.Populate(1, p.ID); err == nil {
			t.Errorf("usr_0 has bought %s too", p.Name)
		}
	}
	s.Advance(32 * 24 * time.Hour) // they are renewed as all others are
	if got := total(c.get("/v1/orders/?status=paid")); got != 2*n {
		t.Error(got, "orders")
	}
}

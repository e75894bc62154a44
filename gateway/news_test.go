package gateway

import (
	"fmt"
	"testing"
	"time"

	"github.com/caddy-polar/caddy-polar/polar/box"
)

// Each change of a subscription is told once, with what its user has then; what
// fills an empty store is not, and what a sync mends is.
func TestNews(t *testing.T) {
	news := make(chan News, 100)
	s := newShop(t, box.Options{}, func(c *Config) {
		c.Syncing.Off = true
		c.OnNews = func(n News) { news <- n }
	}).connect()
	if err := s.g.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.box.Buy("usr_early", "early@example.com", s.max.ID); err != nil {
		t.Fatal(err)
	}
	s.box.Settle()
	told := func(want string) {
		t.Helper()
		n := <-news
		if got := fmt.Sprintf("%s %s->%s %v %s", n.User, n.Before, n.Status, n.Decision.Allowed, n.Decision.Reason); got != want {
			t.Errorf("told %q, want %q", got, want)
		}
	}
	told("usr_early ->active true active")
	s.pays(s.opens(Visitor{User: grace}, s.pro.ID), "grace@example.com")
	s.box.Settle()
	told(grace + " ->active true active")
	customer, _ := s.box.CustomerByExternalID(grace)
	sub := s.box.Subscriptions(customer.ID)[0]
	if _, err := s.box.Cancel(sub.ID, "", ""); err != nil {
		t.Fatal(err)
	}
	s.box.Settle()
	told(grace + " active->active true canceling")
	s.sync() // fills, and is no news
	s.box.SetNetwork(box.Network{Lose: true})
	s.box.Advance(time.Minute)
	if _, err := s.box.Revoke(sub.ID); err != nil {
		t.Fatal(err)
	}
	s.box.Settle()
	s.sync()
	told(grace + " active->canceled false canceled")
	s.sync()
	s.g.Stop()
	if len(news) != 0 {
		t.Errorf("more news: %+v", <-news)
	}
}

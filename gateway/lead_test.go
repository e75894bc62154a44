package gateway

import (
	"testing"

	"github.com/caddy-polar/caddy-polar/polar/box"
)

// TestWishForASyncIsPassed: a webhook that one gateway cannot read has another one sync,
// once.
func TestWishForASyncIsPassed(t *testing.T) {
	t.Parallel()
	leader := newShop(t, box.Options{})
	other := newShopAt(t, leader.box, func(c *Config) { c.Store = leader.config.Store })
	wanted := func(g *Gateway) bool {
		select {
		case <-g.sync.wanted:
			return true
		default:
			return false
		}
	}
	if leader.g.hearWish(); wanted(leader.g) {
		t.Error("a sync that nobody wants")
	}
	if other.g.passWish(); wanted(other.g) {
		t.Error("a wish that nobody had")
	}
	body := []byte(`{"type":"subscription.active","timestamp":"2026-11-01T00:00:00Z","data":{"id":7}}`)
	d, err := other.g.ReadDelivery(signed("msg_odd", other.g.Now(), body))
	if err != nil {
		t.Fatal(err)
	}
	if r, err := other.g.TakeWebhook(t.Context(), d, body); err != nil || r.Result != ResultUndecodable {
		t.Fatal(r, err)
	}
	other.g.passWish()
	if leader.g.hearWish(); !wanted(leader.g) || wanted(other.g) {
		t.Error("the wish was not passed")
	}
	if leader.g.hearWish(); wanted(leader.g) {
		t.Error("the wish was granted twice")
	}
}

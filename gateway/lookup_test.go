package gateway

import (
	"bytes"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-polar/caddy-polar/entitlement"
	"github.com/caddy-polar/caddy-polar/polar"
	"github.com/caddy-polar/caddy-polar/polar/box"
	"github.com/caddy-polar/caddy-polar/polar/box/boxtest"
)

// newEditedShop is a shop to which somebody tells Polar's answers otherwise.
func newEditedShop(t *testing.T, edit func(path string, body []byte) []byte) *shop {
	b := boxtest.Start(t, box.Options{})
	proxy := proxyTo(t, b.URL)
	proxy.ErrorLog = log.New(io.Discard, "", 0)
	proxy.ModifyResponse = func(r *http.Response) error {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return err
		}
		body = edit(r.Request.URL.Path, body)
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		r.Header.Set("Content-Length", fmt.Sprint(len(body)))
		return nil
	}
	server := httptest.NewServer(proxy)
	t.Cleanup(server.Close)
	return newShopAt(t, b, func(c *Config) { c.Server = server.URL })
}

// Of an object that cannot be read nothing is known: the others count, nobody's
// end is confirmed by such a sync, and whom it concerns is not told to pay.
func TestUnreadableObjects(t *testing.T) {
	var broken atomic.Bool
	s := newEditedShop(t, func(path string, body []byte) []byte {
		if broken.Load() && path == "/v1/subscriptions/" {
			return bytes.ReplaceAll(body, []byte(`"status":"canceled"`), []byte(`"status":""`))
		}
		return body
	})
	s.pays(s.opens(adaVisits(), s.pro.ID), "")
	s.pays(s.opens(Visitor{User: grace}, s.pro.ID), "grace@example.com")
	s.box.Settle()
	s.sync()
	customer, _ := s.box.CustomerByExternalID(ada)
	sub := s.box.Subscriptions(customer.ID)[0]
	if _, err := s.box.Cancel(sub.ID, "", ""); err != nil {
		t.Fatal(err)
	}
	s.box.Advance(35 * day) // Ada's is over, and no webhook has told
	before := s.g.Rules().ConfirmedAt
	broken.Store(true)
	if r := s.sync(); r.Unreadable != 1 || r.Wrong == 0 {
		t.Errorf("%+v", r)
	}
	if !s.g.Rules().ConfirmedAt.Equal(before) || !s.g.synced() {
		t.Error("confirmed by a sync that could not read all")
	}
	s.confirms(grace, "pro", true, entitlement.ReasonActive)
	s.confirms("usr_nobody", "pro", false, entitlement.ReasonNoSubscription)
	s.confirms(ada, "pro", false, entitlement.ReasonUnknownStatus)
	s.box.Advance(time.Minute)
	broken.Store(false)
	if r := s.sync(); r.Unreadable != 0 || r.Wrong == 0 {
		t.Errorf("%+v", r)
	}
	s.confirms(ada, "pro", false, entitlement.ReasonCanceled)
	if s.logs.FilterMessageSnippet("cannot be read").Len() == 0 {
		t.Error("nothing is said")
	}
}

// Our own limits are no failure of Polar's: they let nobody in, and bar nobody
// from being looked up when there is a place again.
func TestOwnLimits(t *testing.T) {
	limiter := polar.NewLimiter(500, 100)
	s := newShop(t, box.Options{}, func(c *Config) { c.Limiter = limiter })
	s.sleeps = func(d time.Duration) error { s.box.Advance(d); return nil }
	s.pays(s.opens(adaVisits(), s.pro.ID), "")
	s.sync()
	s.box.HoldRenewals(true)
	s.box.Advance(35 * day)
	confirm := func(user string) (entitlement.Decision, bool) {
		t.Helper()
		a, err := s.g.Account(user)
		if err != nil {
			t.Fatal(err)
		}
		q, err := s.g.Rules().Require("pro")
		if err != nil {
			t.Fatal(err)
		}
		_, d, limits := s.g.Confirm(t.Context(), a, q, entitlement.Decide(a, q, s.g.Rules(), s.g.Now()))
		return d, limits
	}
	usedUp := func(perMinute int) {
		limiter.SetBackground(perMinute)
		if _, err := s.g.client.Prompt().GetProduct(t.Context(), s.pro.ID); err != nil {
			t.Fatal(err)
		}
	}
	usedUp(1) // a look-up would take minutes
	if d, limits := confirm(ada); d.Reason != entitlement.ReasonUnavailable || !limits {
		t.Errorf("%+v, limits %v", d, limits)
	}
	s.box.Advance(time.Minute)
	usedUp(20) // it takes longer than a request waits
	place := make(chan struct{})
	s.sleeps = func(d time.Duration) error { <-place; s.box.Advance(d); return nil }
	if d, limits := confirm(ada); d.Reason != entitlement.ReasonUnavailable || !limits {
		t.Errorf("%+v, limits %v", d, limits)
	}
	close(place)
	if d, limits := confirm(ada); d.Reason != entitlement.ReasonPeriodEnded || limits { // the same look-up has gone on
		t.Errorf("%+v, limits %v", d, limits)
	}
	s.opens(Visitor{User: grace}, s.pro.ID)
	s.box.SetTrouble(box.Trouble{HTML: true})
	s.sleeps = nil
	limiter.SetBackground(100)
	if d, limits := confirm(grace); d.Reason != entitlement.ReasonUnavailable || limits {
		t.Errorf("Polar is down: %+v, limits %v", d, limits)
	}
}

// A webhook that cannot be decoded brings a sync, but not one each.
func TestUndecodableBringsASync(t *testing.T) {
	synced := make(chan SyncReport, 100)
	s := newShop(t, box.Options{}, func(c *Config) { c.OnSync = func(r SyncReport) { synced <- r } })
	if err := s.g.Start(); err != nil {
		t.Fatal(err)
	}
	<-synced
	s.pays(s.opens(adaVisits(), s.pro.ID), "")
	odd := func() {
		t.Helper()
		body := []byte(`{"type":"subscription.active","timestamp":"2026-11-01T12:00:00Z","data":{"id":7}}`)
		d, err := s.g.ReadDelivery(signed("msg_odd", s.g.Now(), body))
		if err != nil {
			t.Fatal(err)
		}
		if r, err := s.g.TakeWebhook(t.Context(), d, body); err != nil || r.Result != ResultUndecodable {
			t.Fatalf("%+v, %v", r, err)
		}
	}
	odd()
	if r := <-synced; r.Missing == 0 {
		t.Errorf("%+v", r)
	}
	s.is(ada, "pro", true, entitlement.ReasonActive)
	if s.g.mayHurry() {
		t.Error("a second one within the time between two syncs")
	}
	s.box.Advance(s.g.SyncPeriod(0))
	if !s.g.mayHurry() {
		t.Error("none after the time between two syncs")
	}
}

// A plan that nobody can have is told, once.
func TestDeadPlans(t *testing.T) {
	var told [][]string
	s := newShop(t, box.Options{}, func(c *Config) {
		c.Plans = append(c.Plans,
			entitlement.Plan{Name: "gone", Products: []string{"00000000-0000-4000-8000-000000000000"}},
			entitlement.Plan{Name: "misspelt", Products: []string{"prod_pro"}})
		c.OnDeadPlans = func(plans []string) { told = append(told, plans) }
	})
	s.sync()
	s.sync()
	if len(told) != 1 || !slices.Equal(told[0], []string{"gone", "misspelt"}) {
		t.Errorf("told %v", told)
	}
	if n := s.logs.FilterMessageSnippet("knows none of the products").Len(); n != 2 {
		t.Errorf("%d lines", n)
	}
	for _, p := range s.g.Status().Plans {
		if dead := p.Name == "gone" || p.Name == "misspelt"; p.Dead != dead {
			t.Errorf("%+v", p)
		}
	}
}

// A defect in the background does not end the server, and is tried again.
func TestPanicsInTheBackground(t *testing.T) {
	s := newShop(t, box.Options{}, func(c *Config) { c.OnSync = func(SyncReport) { panic("a defect") } })
	if _, err := s.g.Sync(t.Context()); err == nil {
		t.Error("a sync that panicked is said to be whole")
	}
	if s.g.Status().Sync.Failures != 1 || s.logs.FilterMessageSnippet("a defect of this gateway").Len() != 1 {
		t.Error("nothing is said")
	}
}

// Where only subscriptions are sold, nobody asks for orders.
func TestLookUpsOfSubscriptionsOnly(t *testing.T) {
	for _, sells := range []string{"pro", "lifetime", "feature"} {
		var orders atomic.Int64
		s := newShop(t, box.Options{}, func(c *Config) {
			c.OnCall = func(call polar.Call) {
				if call.Path == "/v1/orders/" {
					orders.Add(1)
				}
			}
			c.Plans = slices.DeleteFunc(c.Plans, func(p entitlement.Plan) bool { return p.Name != "pro" && p.Name != sells })
		})
		s.sync()
		s.opens(adaVisits(), s.pro.ID)
		orders.Store(0)
		s.confirms(ada, "pro", false, entitlement.ReasonNoSubscription)
		if asked := orders.Load() > 0; asked != (sells != "pro") {
			t.Errorf("beside pro it sells %s: asked for orders: %v", sells, asked)
		}
	}
}

package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-polar/caddy-polar/entitlement"
	"github.com/caddy-polar/caddy-polar/polar"
	"github.com/caddy-polar/caddy-polar/polar/box"
)

// dialer is a way from a gateway to Polar.
type dialer func(ctx context.Context, network, address string) (net.Conn, error)

// through makes the gateway call Polar on a way of its own, and give each call
// up after a while.
func (s *shop) through(dial dialer, patience time.Duration) {
	s.t.Helper()
	c, err := polar.NewClient(polar.ClientConfig{
		BaseURL: s.config.Server, Token: s.config.AccessToken, Logger: s.g.logger, Now: s.g.local, Sleep: s.g.sleep,
		Timeout: patience, Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true},
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.g.client.Close()
	s.g.client = c
}

// elsewhere is a way that ends at another address.
func elsewhere(address string, dial dialer) dialer {
	return func(ctx context.Context, network, _ string) (net.Conn, error) { return dial(ctx, network, address) }
}

// outages are the ways in which Polar can be gone.
var outages = []struct {
	name     string
	trouble  box.Trouble               // of Polar's own
	patience time.Duration             // of a call, if not the usual one
	way      func(t *testing.T) dialer // to Polar, if not the usual one
}{
	{name: "500 in HTML", trouble: box.Trouble{HTML: true}},
	{name: "hangs", trouble: box.Trouble{Hang: true}, patience: 10 * time.Millisecond},
	{name: "refused", way: func(t *testing.T) dialer {
		nobody, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		nobody.Close()
		return elsewhere(nobody.Addr().String(), (&net.Dialer{}).DialContext)
	}},
	{name: "DNS gone", way: func(*testing.T) dialer {
		// A resolver that is real but for the way to its servers.
		deaf := &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
			return nil, errors.New("network is unreachable")
		}}
		return elsewhere("api.polar.test:443", (&net.Dialer{Resolver: deaf}).DialContext)
	}},
	{name: "TLS error", way: func(t *testing.T) dialer {
		stranger := httptest.NewUnstartedServer(http.NotFoundHandler())
		stranger.Config.ErrorLog = log.New(io.Discard, "", 0)
		stranger.StartTLS() // nobody whom we trust has signed its certificate
		t.Cleanup(stranger.Close)
		return elsewhere(stranger.Listener.Addr().String(), (&tls.Dialer{}).DialContext)
	}},
}

// inEachOutage runs a test with a shop of its own for each way in which Polar
// can be gone: begin takes it away, also from a gateway that has begun again,
// and end gives it back.
func inEachOutage(t *testing.T, test func(t *testing.T, s *shop, begin, end func())) {
	t.Helper()
	for _, o := range outages {
		t.Run(o.name, func(t *testing.T) {
			s := newShop(t, box.Options{})
			s.sleeps = func(time.Duration) error { return nil }
			begin := func() {
				s.box.SetTrouble(o.trouble)
				way := dialer((&net.Dialer{}).DialContext)
				if o.way != nil {
					way = o.way(t)
				}
				s.through(way, o.patience)
			}
			end := func() {
				s.box.SetTrouble(box.Trouble{})
				s.through((&net.Dialer{}).DialContext, 0)
				s.box.Advance(breakMost) // for so long it is left alone
			}
			test(t, s, begin, end)
		})
	}
}

// asks is a request at a gate.
func (s *shop) asks(user, plan string, allowed bool, reason entitlement.Reason) {
	s.t.Helper()
	s.confirms(user, plan, allowed, reason)
	s.g.Unconfirmed(user, allowed, reason)
}

// tries needs Polar, which is not there: each of these fails.
func (s *shop) tries() {
	s.t.Helper()
	if _, err := s.g.Sync(s.t.Context()); err == nil {
		s.t.Error("synced without Polar")
	}
	s.g.glance(s.t.Context())
}

// For a day Polar cannot be reached, with a restart in the middle. Nothing
// changes for whoever is within a paid period or a grace; past both nobody is
// told that it is over, at no attempt, until Polar has said so.
func TestADayWithoutPolar(t *testing.T) {
	inEachOutage(t, func(t *testing.T, s *shop, begin, end func()) {
		s.connect()
		s.mustBuy("usr_late", s.pro)
		if err := s.box.SetCard(s.customer("usr_late").ID, false); err != nil {
			t.Fatal(err)
		}
		s.box.Advance(day)
		s.mustBuy("usr_over", s.pro)
		s.box.Advance(2*day + 18*time.Hour)
		s.mustBuy("usr_edge", s.pro)
		s.mustBuy("usr_gone", s.pro)
		over, edge := s.subscription("usr_over").CurrentPeriodEnd.Add(3*day), s.subscription("usr_edge").CurrentPeriodEnd
		s.box.AdvanceTo(over.Add(-3*day - time.Hour)) // the late one's renewal has failed
		s.box.HoldRenewals(true)
		for user, p := range map[string]box.Product{ada: s.pro, grace: s.lifetime, "usr_trial": s.trial, "usr_leaves": s.max} {
			s.mustBuy(user, p)
		}
		must(s.box.Cancel(s.subscription("usr_leaves").ID, "", ""))
		must(s.box.Revoke(s.subscription("usr_gone").ID))
		must(s.g.GivePass(t.Context(), "usr_press", "max", time.Time{}, ""))
		s.box.AdvanceTo(over.Add(-12 * time.Hour))
		s.box.Settle()
		s.sync()

		begin()
		s.box.SetNetwork(box.Network{Lose: true})
		for hour := 1; hour <= 24; hour++ {
			s.box.Advance(time.Hour)
			if hour%4 == 0 {
				s.tries()
			}
			if hour == 12 {
				s.g.rememberSync() // as Stop does
				s.reopens(s.g.store.Path())
				begin()
			}
			s.asks(ada, "pro", true, entitlement.ReasonActive)
			s.asks(grace, "lifetime", true, entitlement.ReasonPurchased)
			s.asks("usr_trial", "pro", true, entitlement.ReasonTrialing)
			s.asks("usr_leaves", "max", true, entitlement.ReasonCanceling)
			s.asks("usr_late", "pro", true, entitlement.ReasonPastDueGrace)
			s.asks("usr_press", "max", true, entitlement.ReasonPass)
			s.asks("usr_gone", "pro", false, entitlement.ReasonCanceled)
			s.asks("usr_nobody", "pro", false, entitlement.ReasonNoSubscription)
			if s.g.Now().Before(edge) {
				s.asks("usr_edge", "pro", true, entitlement.ReasonActive)
			} else {
				s.asks("usr_edge", "pro", true, entitlement.ReasonRenewalGrace)
			}
			for _, later := range []time.Duration{0, 0, 30 * time.Second, 31 * time.Second, lookUpPause} {
				s.box.Advance(later)
				if s.g.Now().Before(over) {
					s.asks("usr_over", "pro", true, entitlement.ReasonRenewalGrace)
				} else {
					s.asks("usr_over", "pro", false, entitlement.ReasonUnavailable)
				}
			}
			s.box.AdvanceTo(over.Add(time.Duration(hour-12) * time.Hour))
		}
		s.toldOf(map[string]int{"usr_over": 2 + 1, "usr_edge": 1 + 1}) // days, and one after the restart

		end()
		s.asks("usr_over", "pro", false, entitlement.ReasonPeriodEnded) // Polar has been asked
		s.asks("usr_edge", "pro", true, entitlement.ReasonRenewalGrace)
		s.box.HoldRenewals(false)
		s.box.Advance(time.Hour)
		s.sync()
		s.asks("usr_over", "pro", true, entitlement.ReasonActive)
		s.asks("usr_edge", "pro", true, entitlement.ReasonActive)
	})
}

// toldOf checks how many lines of the log tell of each user that an answer
// rests on what is not confirmed, and of nobody else.
func (s *shop) toldOf(want map[string]int) {
	s.t.Helper()
	got := map[any]int{}
	for _, line := range s.logs.FilterMessageSnippet("rests on what Polar has not confirmed").All() {
		got[line.ContextMap()["user_hash"]]++
	}
	for user, n := range want {
		if hash := s.g.HashUser(user); got[hash] != n {
			s.t.Errorf("%d lines about %s, want %d", got[hash], user, n)
		}
	}
	if len(got) != len(want) {
		s.t.Errorf("lines about %d users, want %d", len(got), len(want))
	}
}

// A gateway that starts for the first time while Polar is down takes nobody for
// one who has not paid; those of whom webhooks tell it lets in.
func TestColdStartWithoutPolar(t *testing.T) {
	inEachOutage(t, func(t *testing.T, s *shop, begin, end func()) {
		s.mustBuy("usr_before", s.pro)
		s.connect()
		begin()
		s.mustBuy(ada, s.pro)
		for hour := range 24 {
			if hour%6 == 0 {
				s.tries()
			}
			s.asks(ada, "pro", true, entitlement.ReasonActive)
			s.asks(ada, "max", false, entitlement.ReasonUnavailable) // who knows?
			for _, later := range []time.Duration{0, 30 * time.Second, 31 * time.Second} {
				s.box.Advance(later)
				s.asks("usr_before", "pro", false, entitlement.ReasonUnavailable)
				s.asks("usr_nobody", "pro", false, entitlement.ReasonUnavailable)
			}
			if hour == 12 {
				s.reopens(s.g.store.Path())
				begin()
			}
			s.box.Advance(time.Hour)
		}
		for i := range 2 * strangersPerMinute {
			s.asks(fmt.Sprint("usr_", i), "pro", false, entitlement.ReasonUnavailable)
		}
		end()
		s.asks("usr_before", "pro", true, entitlement.ReasonActive)
		s.asks("usr_nobody", "pro", false, entitlement.ReasonNoSubscription)
		s.sync()
		s.asks("usr_0", "pro", false, entitlement.ReasonNoSubscription)
	})
}

// A Polar that hangs keeps no request for longer than its patience, however
// many come.
func TestPatience(t *testing.T) {
	s := newShop(t, box.Options{})
	s.box.SetTrouble(box.Trouble{Hang: true})
	var asking sync.WaitGroup
	for i := range 40 {
		asking.Go(func() {
			began := time.Now()
			s.asks(fmt.Sprint("usr_", i/2), "pro", false, entitlement.ReasonUnavailable)
			if took := time.Since(began); took > lookUpPatience+time.Second {
				t.Errorf("a request took %s", took)
			}
		})
	}
	asking.Wait()
}

// This machine's clock is hours off, and nothing was heard of Polar's yet, be
// the gateway new or begun again: Polar's time counts for its webhooks and for
// what ends, and the log says once that the clock is off.
func TestClockBeforePolarIsHeard(t *testing.T) {
	for _, off := range []time.Duration{5 * time.Hour, -5 * time.Hour} {
		t.Run(off.String(), func(t *testing.T) {
			s := newShop(t, box.Options{}, func(c *Config) {
				c.Syncing.Off = true // else Polar is soon heard anyway
				right := c.Now
				c.Now = func() time.Time { return right().Add(off) }
			}).connect()
			s.mustBuy(ada, s.pro)
			s.is(ada, "pro", true, entitlement.ReasonActive)
			must(s.box.Cancel(s.subscription(ada).ID, "", ""))
			s.box.AdvanceTo(s.subscription(ada).CurrentPeriodEnd.Add(-time.Hour))
			s.is(ada, "pro", true, entitlement.ReasonCanceling)
			if n := s.logs.FilterMessageSnippet("clock is off").Len(); n != 1 {
				t.Errorf("%d lines about the clock", n)
			}
			s.reopens(s.g.store.Path())
			s.asks(ada, "pro", true, entitlement.ReasonCanceling) // by our clock it may be over: Polar was asked
			s.reopens(s.g.store.Path())
			s.mustBuy(grace, s.pro) // its webhooks are the first to be heard
			s.is(grace, "pro", true, entitlement.ReasonActive)
			s.is(ada, "pro", true, entitlement.ReasonCanceling)
			s.box.HoldRenewals(true)
			s.box.Advance(2 * time.Hour)
			s.is(ada, "pro", false, entitlement.ReasonCanceled)
		})
	}
}

// Strangers with old timestamps make the gateway ask Polar for its time once a
// minute at most, and not at all once it is known; old they stay.
func TestOldDeliveriesAskForTheTime(t *testing.T) {
	var calls atomic.Int64
	s := newShop(t, box.Options{}, func(c *Config) { c.OnCall = func(polar.Call) { calls.Add(1) } })
	refused := func(wantCalls int64) {
		t.Helper()
		calls.Store(0)
		for range 20 {
			if _, err := s.g.ReadDelivery(signed("id", s.box.Now().Add(-time.Hour), nil)); !errors.Is(err, polar.ErrTimestamp) {
				t.Error(err)
			}
		}
		if calls.Load() != wantCalls {
			t.Errorf("%d calls, want %d", calls.Load(), wantCalls)
		}
	}
	s.box.SetTrouble(box.Trouble{HTML: true})
	for range 3 {
		refused(1)
		s.box.Advance(time.Minute)
	}
	s.box.SetTrouble(box.Trouble{})
	refused(1)
	s.box.Advance(time.Minute)
	refused(0)
}

// This machine's clock jumps while the gateway runs, either way, and nothing else asks
// Polar: its webhooks are taken all the same, and whoever asks where the answer hangs on
// the time gets the right one.
func TestClockJumps(t *testing.T) {
	for _, jump := range []time.Duration{5 * time.Hour, -5 * time.Hour, 40 * day, -40 * day} {
		t.Run(jump.String(), func(t *testing.T) {
			off := time.Duration(0)
			s := newShop(t, box.Options{}, func(c *Config) {
				c.Syncing.Off = true
				right := c.Now
				c.Now = func() time.Time { return right().Add(off) }
			}).connect()
			s.mustBuy(ada, s.pro)
			s.mustBuy("usr_gone", s.pro)
			must(s.box.Cancel(s.subscription(ada).ID, "", ""))
			must(s.box.Cancel(s.subscription("usr_gone").ID, "", ""))
			s.box.AdvanceTo(s.subscription(ada).CurrentPeriodEnd.Add(-time.Hour))
			must(s.box.Revoke(s.subscription("usr_gone").ID))
			s.box.Settle()
			s.is(ada, "pro", true, entitlement.ReasonCanceling)
			if _, err := s.g.findCustomer(t.Context(), ada); err != nil { // Polar was heard a while ago
				t.Fatal(err)
			}
			s.box.Advance(10 * time.Minute)

			off = jump
			s.asks("usr_gone", "pro", false, entitlement.ReasonCanceled)
			s.asks(ada, "pro", true, entitlement.ReasonCanceling)
			s.box.Advance(time.Minute) // a stranger may have made it ask lately
			s.mustBuy(grace, s.pro)
			s.is(grace, "pro", true, entitlement.ReasonActive)
			s.is(ada, "pro", true, entitlement.ReasonCanceling)
			if now := s.g.Now(); now.Sub(s.box.Now()).Abs() > 3*time.Second {
				t.Errorf("it is %s, not %s", now, s.box.Now())
			}
			s.box.HoldRenewals(true)
			s.box.Advance(2 * time.Hour)
			s.is(ada, "pro", false, entitlement.ReasonCanceled)
			off = 0 // and back
			s.mustBuy("usr_next", s.pro)
			s.is("usr_next", "pro", true, entitlement.ReasonActive)
			s.is(ada, "pro", false, entitlement.ReasonCanceled)
		})
	}
}

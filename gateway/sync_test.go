package gateway

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-polar/caddy-polar/entitlement"
	"github.com/caddy-polar/caddy-polar/polar"
	"github.com/caddy-polar/caddy-polar/polar/box"
)

func (s *shop) sync() SyncReport {
	s.t.Helper()
	r, err := s.g.Sync(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

func TestFirstSync(t *testing.T) {
	s := newShop(t, box.Options{})
	const people = 130 // more than a page
	for i := range people {
		product := []string{s.pro.ID, s.lifetime.ID, s.trial.ID}[i%3]
		if _, err := s.box.Buy(fmt.Sprint("usr_", i), fmt.Sprintf("u%d@example.com", i), product); err != nil {
			t.Fatal(err)
		}
	}
	s.box.Settle()
	s.is("usr_0", "pro", false, entitlement.ReasonNoSubscription)
	if s.g.synced() {
		t.Error("synced before the first sync")
	}
	r := s.sync()
	if r.Missing != 0 || r.Objects < 2*people || !s.g.synced() {
		t.Errorf("%+v", r)
	}
	for i := range people {
		want := []struct {
			plan   string
			reason entitlement.Reason
		}{{"pro", entitlement.ReasonActive}, {"lifetime", entitlement.ReasonPurchased}, {"pro", entitlement.ReasonTrialing}}[i%3]
		s.is(fmt.Sprint("usr_", i), want.plan, true, want.reason)
	}
}

// A sync without drift writes nothing to disk.
func TestSyncWithoutDrift(t *testing.T) {
	s := newShop(t, box.Options{}).connect()
	s.pays(s.opens(adaVisits(), s.pro.ID), "")
	s.pays(s.opens(Visitor{User: grace}, s.lifetime.ID), "grace@example.com")
	s.box.Settle()
	s.sync()
	s.box.Advance(time.Hour)
	s.box.Settle()
	if r := s.sync(); r.Missing+r.Wrong+r.Extra != 0 { // bookkeeping, of which no webhook tells, is no drift
		t.Errorf("%+v", r)
	}
	before, err := os.Stat(s.g.store.Path())
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(s.g.store.Path())
	if err != nil {
		t.Fatal(err)
	}
	s.box.Advance(time.Hour)
	if r := s.sync(); r.Missing+r.Wrong+r.Extra != 0 {
		t.Errorf("%+v", r)
	}
	after, err := os.Stat(s.g.store.Path())
	if err != nil {
		t.Fatal(err)
	}
	now, err := os.ReadFile(s.g.store.Path())
	if err != nil {
		t.Fatal(err)
	}
	if !before.ModTime().Equal(after.ModTime()) || !slices.Equal(raw, now) {
		t.Error("the file was written")
	}
}

// All webhooks of a day of lives are lost; then one sync.
func TestSyncMendsALostDay(t *testing.T) {
	for seed := range seeds(6) {
		w := newWalk(t, seed)
		for range 15 {
			w.live(10)
		}
		w.sync()
		w.checkAll("the first sync")
		w.box.SetNetwork(box.Network{Lose: true})
		for range 6 {
			w.act()
			w.box.Advance(4 * time.Hour)
		}
		w.box.Settle()
		r := w.sync()
		w.checkAll("one sync after a lost day")
		if t.Failed() {
			t.Fatalf("seed %d after %v: %+v", seed, w.steps, r)
		}
	}
}

// A webhook that arrives while a sync is under way is not overwritten by what
// the sync has read before.
func TestSyncKeepsWhatIsNewer(t *testing.T) {
	s := newShop(t, box.Options{})
	s.pays(s.opens(adaVisits(), s.pro.ID), "")
	s.box.Settle()
	s.sync()
	customer, _ := s.box.CustomerByExternalID(ada)
	sub := s.box.Subscriptions(customer.ID)[0]
	s.box.Advance(time.Hour)
	s.box.SetTrouble(box.Trouble{Lag: 30 * time.Minute})
	s.connect()
	if _, err := s.box.Cancel(sub.ID, "", ""); err != nil {
		t.Fatal(err)
	}
	s.box.Settle()
	s.is(ada, "pro", true, entitlement.ReasonCanceling)
	s.sync() // from a replica that has not heard of it
	s.is(ada, "pro", true, entitlement.ReasonCanceling)
}

// What a lagging replica does not list is not gone.
func TestReplicaLagClosesNothing(t *testing.T) {
	s := newShop(t, box.Options{}).connect()
	s.sync()
	s.box.Advance(time.Hour)
	s.pays(s.opens(adaVisits(), s.pro.ID), "")
	s.pays(s.opens(Visitor{User: grace}, s.lifetime.ID), "grace@example.com")
	s.box.Settle()
	s.box.SetTrouble(box.Trouble{Lag: 30 * time.Minute})
	if r := s.sync(); r.Extra != 0 {
		t.Errorf("%+v", r)
	}
	s.is(ada, "pro", true, entitlement.ReasonActive)
	s.is(grace, "lifetime", true, entitlement.ReasonPurchased)
}

// A first sync that is interrupted goes on where it was.
func TestFirstSyncGoesOn(t *testing.T) {
	s := newShop(t, box.Options{})
	if err := s.box.Populate(250, s.pro.ID); err != nil {
		t.Fatal(err)
	}
	first, err := s.g.beginSync(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for range 5 { // products, three pages of customers, one of subscriptions
		facts, next, done, err := syncSteps[first.step].read(s.g, t.Context(), first)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.g.takePage(t.Context(), first, facts, next, done); err != nil {
			t.Fatal(err)
		}
	}
	again, err := s.g.beginSync(t.Context()) // as after a crash
	if err != nil {
		t.Fatal(err)
	}
	if again.step != 2 || again.Cursor != first.Cursor || again.Objects != first.Objects || !again.Began.Equal(first.Began) {
		t.Errorf("begins at %+v, was at %+v", again, first)
	}
	if err := s.g.runSync(t.Context(), again); err != nil {
		t.Fatal(err)
	}
	for i := range 250 {
		s.is(fmt.Sprint("usr_", i), "pro", true, entitlement.ReasonActive)
	}
}

// A Polar that is down changes no decision, and is not hammered.
func TestOutage(t *testing.T) {
	for name, trouble := range map[string]box.Trouble{
		"500 in HTML": {HTML: true}, "refuses": {Refuse: true}, "limits": {Limit: 30},
	} {
		t.Run(name, func(t *testing.T) {
			var calls atomic.Int64
			s := newShop(t, box.Options{}, func(c *Config) { c.OnCall = func(polar.Call) { calls.Add(1) } }).connect()
			s.pays(s.opens(adaVisits(), s.pro.ID), "")
			s.box.Settle()
			s.sync()
			s.opens(Visitor{User: "usr_buyer"}, s.pro.ID)
			s.sleeps = func(time.Duration) error { return nil }
			s.box.SetTrouble(trouble)
			// Each asks Polar, in vain.
			s.confirms("usr_buyer", "pro", false, entitlement.ReasonUnavailable)
			for range breakAfter {
				if _, err := s.g.Sync(t.Context()); err == nil {
					t.Error("synced with a Polar that is down")
				}
			}
			if s.g.breaker.allows(s.box.Now()) {
				t.Error("a dead Polar is asked on")
			}
			s.g.breaker.due = s.box.Now().Add(2 * day) // that is how long it is left alone
			calls.Store(0)
			s.box.Advance(day)
			s.confirms(ada, "pro", true, entitlement.ReasonActive)
			s.confirms("usr_nobody", "pro", false, entitlement.ReasonNoSubscription) // synced: nobody is nobody
			if calls.Load() != 0 {
				t.Errorf("%d calls", calls.Load())
			}
		})
	}
}

// confirms wants a decision as a gate makes it.
func (s *shop) confirms(user, plan string, allowed bool, reason entitlement.Reason) {
	s.t.Helper()
	d := s.confirm(user, plan)
	if d.Allowed != allowed || d.Reason != reason {
		s.t.Errorf("%s on %s: %v %s, want %v %s", user, plan, d.Allowed, d.Reason, allowed, reason)
	}
	unknown := reason == entitlement.ReasonUnavailable || reason == entitlement.ReasonUnknownStatus
	if !d.Allowed && unknown != (d.HTTPStatus == http.StatusServiceUnavailable) {
		s.t.Errorf("%s is %d", d.Reason, d.HTTPStatus)
	}
}

// Past a boundary plus renewal grace, nobody is told that it ended unless Polar
// has said so.
func TestUnconfirmedPeriod(t *testing.T) {
	s := newShop(t, box.Options{}).connect()
	s.pays(s.opens(adaVisits(), s.pro.ID), "")
	s.box.Settle()
	s.sync()
	s.box.HoldRenewals(true) // and so no webhook
	s.box.Advance(31*day + 3*day + time.Hour)
	s.g.breaker = breaker{failures: breakAfter, due: s.box.Now().Add(time.Hour)} // Polar is down
	s.confirms(ada, "pro", false, entitlement.ReasonUnavailable)
	s.box.Advance(time.Hour)
	s.confirms(ada, "pro", false, entitlement.ReasonPeriodEnded) // Polar was asked
	s.box.HoldRenewals(false)
	s.box.SetNetwork(box.Network{Lose: true})
	s.box.Advance(time.Hour)
	s.box.Settle()
	s.is(ada, "pro", false, entitlement.ReasonPeriodEnded)
	s.sync()
	s.is(ada, "pro", true, entitlement.ReasonActive)
}

// Before the first sync a stranger may have paid.
func TestColdStart(t *testing.T) {
	s := newShop(t, box.Options{})
	if _, err := s.box.Buy(ada, "ada@example.com", s.pro.ID); err != nil {
		t.Fatal(err)
	}
	s.confirms(ada, "pro", true, entitlement.ReasonActive)
	s.confirms(grace, "pro", false, entitlement.ReasonNoSubscription)
	s.box.SetTrouble(box.Trouble{HTML: true})
	s.confirms("usr_other", "pro", false, entitlement.ReasonUnavailable)
	s.box.SetTrouble(box.Trouble{})
	for i := range strangersPerMinute {
		s.confirms(fmt.Sprint("usr_", i), "pro", false, map[bool]entitlement.Reason{
			true: entitlement.ReasonNoSubscription, false: entitlement.ReasonUnavailable,
		}[i < strangersPerMinute-3])
	}
}

// Free users who hammer a paid page cost nothing; buyers are looked up, once.
func TestLookUpsAreFew(t *testing.T) {
	var calls atomic.Int64
	s := newShop(t, box.Options{}, func(c *Config) { c.OnCall = func(polar.Call) { calls.Add(1) } })
	s.sync()
	calls.Store(0)
	for range 50 {
		s.confirms("usr_free", "pro", false, entitlement.ReasonNoSubscription)
	}
	if calls.Load() != 0 {
		t.Errorf("%d calls for a free user", calls.Load())
	}
	c := s.opens(adaVisits(), s.pro.ID)
	calls.Store(0)
	for range 50 {
		s.confirms(ada, "pro", false, entitlement.ReasonNoSubscription)
	}
	if calls.Load() == 0 || calls.Load() > 6 {
		t.Errorf("%d calls for a buyer", calls.Load())
	}
	s.pays(c, "")
	s.confirms(ada, "pro", false, entitlement.ReasonNoSubscription) // asked a moment ago
	s.box.Advance(time.Minute)
	s.confirms(ada, "pro", true, entitlement.ReasonActive)
}

func TestSyncPeriod(t *testing.T) {
	s := newShop(t, box.Options{})
	for objects, want := range map[int]time.Duration{
		0: 15 * time.Minute, 100_000: 15 * time.Minute, 1_200_000: 100 * time.Minute, 12_000_000: 1000 * time.Minute,
	} {
		if got := s.g.SyncPeriod(objects); got != want {
			t.Errorf("%d objects: %s, want %s", objects, got, want)
		}
	}
}

func TestBreaker(t *testing.T) {
	var b breaker
	now := bought
	down := fmt.Errorf("x: %w", polar.ErrUnavailable)
	for range breakAfter - 1 {
		b.note(down, now)
	}
	if !b.allows(now) {
		t.Error("open too early")
	}
	b.note(errors.New("something else"), now)
	b.note(down, now)
	if b.allows(now) || b.wait(now) == 0 {
		t.Error("not open")
	}
	now = now.Add(breakFirst)
	if !b.allows(now) || b.allows(now) {
		t.Error("one probe, and not two")
	}
	for range 20 {
		b.note(down, now)
	}
	if w := b.wait(now); w < breakMost/2 || w > breakMost {
		t.Errorf("waits %s", w)
	}
	b.note(nil, now)
	if !b.allows(now) || b.wait(now) != 0 {
		t.Error("not closed again")
	}
}

// A reload does not sync anew, and a restart knows when the last one was.
func TestSyncIsRemembered(t *testing.T) {
	s := newShop(t, box.Options{})
	s.pays(s.opens(adaVisits(), s.pro.ID), "")
	s.sync()
	s.box.Advance(10 * time.Minute)
	s.sync()
	s.box.Advance(10 * time.Minute)
	last := s.sync() // without drift: not on disk
	again := func() *Gateway {
		g, err := New(Config{
			Name: "default", Server: s.box.URL, AccessToken: "polar_oat_other", Plans: s.g.plans, Store: s.g.store, Now: s.box.Now,
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(g.Close)
		if err := g.recallSync(); err != nil {
			t.Fatal(err)
		}
		return g
	}
	if g := again(); !g.Rules().ConfirmedAt.Equal(last.Began) || g.untilSync() <= 0 {
		t.Errorf("after a reload: %s, next in %s", g.Rules().ConfirmedAt, g.untilSync())
	}
	s.g.store.Keep(noteSynced, nil) // as a new process
	if g := again(); g.Rules().ConfirmedAt.IsZero() || !g.Rules().ConfirmedAt.Before(last.Began) {
		t.Errorf("after a crash: %s", g.Rules().ConfirmedAt)
	}
	s.g.rememberSync()
	if g := again(); !g.Rules().ConfirmedAt.Equal(last.Began) {
		t.Errorf("after a restart: %s", g.Rules().ConfirmedAt)
	}
}

// What has ended is in its grace, or tells why somebody is refused.
func TestFirstSyncReadsWhatHasEnded(t *testing.T) {
	s := newShop(t, box.Options{}, func(c *Config) { c.Plans[0].Grace.Canceled = 10 * day })
	s.pays(s.opens(adaVisits(), s.pro.ID), "")
	s.box.Settle()
	customer, _ := s.box.CustomerByExternalID(ada)
	if _, err := s.box.Revoke(s.box.Subscriptions(customer.ID)[0].ID); err != nil {
		t.Fatal(err)
	}
	s.box.Advance(5 * day)
	s.sync()
	s.is(ada, "pro", true, entitlement.ReasonCanceledGrace)
	s.box.Advance(5 * day)
	s.is(ada, "pro", false, entitlement.ReasonCanceled)
}

func TestSyncCursor(t *testing.T) {
	at := mustTime("2026-11-02T09:00:00.000010Z")
	for _, tt := range []struct {
		from syncCursor
		last time.Time
		want syncCursor
	}{
		{syncCursor{}, at, syncCursor{After: at.Add(-time.Microsecond)}},
		{syncCursor{After: at.Add(-time.Hour)}, at, syncCursor{After: at.Add(-time.Microsecond)}},
		// A whole page has one moment: the next one is asked for by its number.
		{syncCursor{After: at.Add(-time.Microsecond)}, at, syncCursor{After: at.Add(-time.Microsecond), Page: 2}},
		{syncCursor{After: at.Add(-time.Microsecond), Page: 2}, at, syncCursor{After: at.Add(-time.Microsecond), Page: 3}},
		{syncCursor{After: at, Page: 1}, time.Time{}, syncCursor{After: at, Page: 2}},
	} {
		if got := tt.from.after(tt.last); got != tt.want {
			t.Errorf("%+v after %s: %+v, want %+v", tt.from, tt.last, got, tt.want)
		}
	}
}

// A token without every scope still syncs what it may read.
func TestSyncWithoutScopes(t *testing.T) {
	s := newShop(t, box.Options{}, func(c *Config) { c.AccessToken = "" })
	g, err := New(Config{
		Name: "default", Server: s.box.URL, AccessToken: s.box.NewToken("subscriptions:read", "customers:read"),
		Plans: s.g.plans, Store: s.g.store, Now: s.box.Now, Logger: s.config.Logger,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
	if _, err := s.box.Buy(ada, "ada@example.com", s.pro.ID); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := g.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	s.is(ada, "pro", true, entitlement.ReasonActive)
	if n := s.logs.FilterMessageSnippet("lacks a scope").Len(); n != 5 {
		t.Errorf("%d lines about scopes", n)
	}
}

// After a failure the next attempt comes, however many there were before.
func TestSyncIsTriedAgain(t *testing.T) {
	s := newShop(t, box.Options{})
	s.box.SetTrouble(box.Trouble{HTML: true})
	for range 20 {
		if _, err := s.g.Sync(t.Context()); err == nil {
			t.Fatal("synced with a Polar that is down")
		}
	}
	due := s.g.untilSync()
	if due <= 0 || due > 5*time.Minute {
		t.Errorf("again in %s", due)
	}
	s.box.Advance(due / 2)
	if left := s.g.untilSync(); left > due/2+time.Second {
		t.Errorf("half of the time later: %s, of %s", left, due)
	}
	s.box.SetTrouble(box.Trouble{})
	s.sync()
	if due := s.g.untilSync(); due < 10*time.Minute {
		t.Errorf("after a success: %s", due)
	}
}

// A token of another, empty organization proves nothing about what is held.
func TestForeignTokenClosesNothing(t *testing.T) {
	s := newShop(t, box.Options{}).connect()
	s.pays(s.opens(adaVisits(), s.pro.ID), "")
	s.pays(s.opens(Visitor{User: grace}, s.lifetime.ID), "grace@example.com")
	s.box.Settle()
	s.sync()
	other := newShop(t, box.Options{Seed: 7})
	g, err := New(Config{
		Name: "default", Server: other.box.URL, AccessToken: other.box.NewToken(), Plans: s.g.plans, Store: s.g.store,
		Now: func() time.Time { return s.box.Now().Add(40 * day) }, // long past every replica
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
	if r, err := g.Sync(t.Context()); err == nil && r.Extra != 0 {
		t.Errorf("%+v", r)
	}
	s.is(ada, "pro", true, entitlement.ReasonActive)
	s.is(grace, "lifetime", true, entitlement.ReasonPurchased)
}

// This machine's clock is five hours off, either way: Polar's counts, from the
// first sync on.
func TestSyncByPolarsClock(t *testing.T) {
	for _, off := range []time.Duration{5 * time.Hour, -5 * time.Hour} {
		s := newShop(t, box.Options{})
		s.config.Now = func() time.Time { return s.box.Now().Add(off) }
		s.pays(s.opens(adaVisits(), s.pro.ID), "")
		s.box.Settle()
		s.sync()
		s.box.Advance(5 * time.Minute)
		s.box.SetTrouble(box.Trouble{Lag: 30 * time.Minute}) // does not know the purchase
		g, err := New(s.config)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(g.Close)
		r, err := g.Sync(t.Context())
		if err != nil || r.Extra != 0 {
			t.Errorf("%s off: %+v %v", off, r, err)
		}
		if d := r.Began.Sub(s.box.Now()); d < -time.Minute || d > time.Minute {
			t.Errorf("%s off: began %s from Polar's time", off, d)
		}
		if due := g.untilSync(); due < 10*time.Minute && err == nil || due > 20*time.Minute {
			t.Errorf("%s off: the next in %s", off, due)
		}
		s.is(ada, "pro", true, entitlement.ReasonActive)
		next, err := New(s.config) // as a reload makes it
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(next.Close)
		if d := next.Now().Sub(s.box.Now()); d < -3*time.Second || d > 3*time.Second {
			t.Errorf("%s off: after a reload it is %s off", off, d)
		}
	}
}

// What ended long ago is not drift, sync after sync.
func TestOldEndsAreNoDrift(t *testing.T) {
	s := newShop(t, box.Options{}).connect()
	s.pays(s.opens(adaVisits(), s.pro.ID), "")
	s.box.Settle()
	customer, _ := s.box.CustomerByExternalID(ada)
	if _, err := s.box.Revoke(s.box.Subscriptions(customer.ID)[0].ID); err != nil {
		t.Fatal(err)
	}
	s.box.Settle()
	s.sync()
	s.box.Advance(150 * day)
	s.sync()
	for range 2 {
		s.box.Advance(time.Hour)
		if r := s.sync(); r.Missing+r.Wrong+r.Extra != 0 {
			t.Errorf("%+v", r)
		}
		s.g.glance(t.Context())
	}
}

// A sync that an operator has asked for keeps nobody from stopping.
func TestStopDuringASync(t *testing.T) {
	s := newShop(t, box.Options{})
	s.g.sync.running <- struct{}{} // it goes on
	if err := s.g.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { s.g.Stop(); close(done) }()
	select {
	case <-done:
	case <-time.After(5 * time.Second):
		t.Error("it does not stop")
	}
	<-s.g.sync.running
}

// Without a scope, what webhooks told of stays, and the others are looked up.
func TestHeldWithoutScopes(t *testing.T) {
	s := newShop(t, box.Options{}).connect()
	s.pays(s.opens(adaVisits(), s.lifetime.ID), "")
	s.box.Settle()
	s.config.AccessToken = s.box.NewToken("subscriptions:read", "customers:read")
	g, err := New(s.config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
	for range 3 {
		if _, err := g.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.box.Advance(2 * time.Hour)
	}
	s.is(ada, "lifetime", true, entitlement.ReasonPurchased)
	if err := g.LookUp(t.Context(), grace); err != nil {
		t.Error(err)
	}
}

// A configuration that needs more than was read is not in sync.
func TestReloadThatNeedsMore(t *testing.T) {
	s := newShop(t, box.Options{})
	s.sync()
	for name, change := range map[string]func(*Config){
		"longer grace": func(c *Config) { c.Plans[0].Grace.Canceled = 60 * day },
		"nothing":      func(*Config) {},
	} {
		c := s.config
		c.Plans = slices.Clone(c.Plans)
		change(&c)
		g, err := New(c)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(g.Close)
		if err := g.recallSync(); err != nil {
			t.Fatal(err)
		}
		if g.synced() != (name == "nothing") {
			t.Errorf("%s: %v", name, g.synced())
		}
	}
}

package gateway

import (
	"context"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-polar/caddy-polar/cache"
	"github.com/caddy-polar/caddy-polar/entitlement"
	"github.com/caddy-polar/caddy-polar/polar"
	"github.com/caddy-polar/caddy-polar/polar/box"
	"github.com/caddy-polar/caddy-polar/polar/box/boxtest"
)

// restarted is a new process with the same store, and perhaps another
// configuration.
func (s *shop) restarted(change ...func(*Config)) *Gateway {
	s.t.Helper()
	c := s.config
	c.Store.Keep(noteSynced, nil) // a process forgets
	for _, do := range change {
		do(&c)
	}
	g, err := New(c)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(g.Close)
	if err := g.recallSync(); err != nil {
		s.t.Fatal(err)
	}
	return g
}

// Who has bought while the gateway was away for longer than Polar sends webhooks
// again is looked up until the next sync is whole; after a short while away
// nobody is.
func TestAway(t *testing.T) {
	for away, reason := range map[time.Duration]entitlement.Reason{
		3 * day: entitlement.ReasonActive, 10 * time.Minute: entitlement.ReasonNoSubscription,
	} {
		s := newShop(t, box.Options{})
		s.sync()
		s.g.rememberSync()
		if _, err := s.box.Buy(ada, "ada@example.com", s.pro.ID); err != nil {
			t.Fatal(err)
		}
		s.box.Advance(away)
		s.g = s.restarted()
		s.confirms(ada, "pro", reason == entitlement.ReasonActive, reason)
		if away > maxDeaf && s.g.untilSync() != 0 {
			t.Error("the sync waits")
		}
		s.sync()
		s.confirms(ada, "pro", true, entitlement.ReasonActive)
	}
}

// A reload is not away.
func TestReloadIsNotAway(t *testing.T) {
	s := newShop(t, box.Options{})
	s.sync()
	s.box.Advance(3 * day)
	g, err := New(s.config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
	if err := g.recallSync(); err != nil || !g.synced() {
		t.Errorf("synced %v, %v", g.synced(), err)
	}
}

// An organization that knows nothing of what is held confirms nothing.
func TestEmptyOrganizationConfirmsNothing(t *testing.T) {
	ours, theirs := boxtest.Start(t, box.Options{}), boxtest.Start(t, box.Options{Seed: 7})
	var other atomic.Bool
	toOurs, toTheirs := proxyTo(t, ours.URL), proxyTo(t, theirs.URL)
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if other.Load() {
			toTheirs.ServeHTTP(w, r)
		} else {
			toOurs.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(proxy.Close)
	s := newShopAt(t, ours, func(c *Config) { c.Server = proxy.URL })
	s.pays(s.opens(adaVisits(), s.pro.ID), "")
	s.pays(s.opens(Visitor{User: grace}, s.lifetime.ID), "grace@example.com")
	s.box.Settle()
	s.sync()
	s.box.HoldRenewals(true)
	ours.Advance(40 * day)
	theirs.Advance(40 * day)
	other.Store(true)
	token := theirs.NewToken()
	s.g = s.restarted(func(c *Config) { c.AccessToken = token })
	before := s.g.Rules().ConfirmedAt
	if r, err := s.g.Sync(t.Context()); err == nil {
		t.Errorf("synced with another organization: %+v", r)
	}
	if !s.g.Rules().ConfirmedAt.Equal(before) {
		t.Error("confirmed by another organization")
	}
	s.is(ada, "pro", false, entitlement.ReasonUnavailable)
	s.is(grace, "lifetime", true, entitlement.ReasonPurchased)
	other.Store(false)
	s.g = s.restarted()
	s.sync()
	s.is(ada, "pro", false, entitlement.ReasonPeriodEnded)
}

// A first sync that is interrupted again and again ends all the same, and then
// strangers are strangers.
func TestFirstSyncEndsUnderRestarts(t *testing.T) {
	s := newShop(t, box.Options{})
	if err := s.box.Populate(350, s.pro.ID); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		ctx, cancel := context.WithCancel(t.Context())
		calls := 0
		s.g = s.restarted(func(c *Config) {
			c.OnCall = func(polar.Call) {
				if calls++; calls == 5 {
					cancel()
				}
			}
		})
		_, _ = s.g.Sync(ctx)
		cancel()
		s.g.rememberSync()
		if s.g.synced() {
			break
		}
	}
	if !s.g.synced() || !s.g.Rules().ConfirmedAt.IsZero() {
		t.Fatalf("synced %v, confirmed %s", s.g.synced(), s.g.Rules().ConfirmedAt)
	}
	s.confirms("usr_349", "pro", true, entitlement.ReasonActive)
	s.confirms("usr_nobody", "pro", false, entitlement.ReasonNoSubscription)
	s.g = s.restarted()
	if !s.g.synced() || s.g.untilSync() != 0 {
		t.Error("a restart forgets that all was read, or that a whole sync is due")
	}
	s.sync()
	if s.g.Rules().ConfirmedAt.IsZero() || s.g.filling() {
		t.Error("a whole sync does not confirm")
	}
}

// flagged adds a product with a benefit, which is the only plan from the next
// start on.
func (s *shop) flagged() box.Product {
	x := s.box.AddBenefit(box.Benefit{Description: "feature"})
	p := s.box.AddProduct(box.Product{
		Name: "P", Interval: "month", Price: box.Price{Amount: 1000, Currency: "usd"}, BenefitIDs: []string{x.ID},
	})
	s.config.Plans = []entitlement.Plan{{Name: "feature", Benefits: []string{x.ID}, Grace: entitlement.DefaultGrace()}}
	return p
}

// What went with age does not come back, as drift or otherwise.
func TestExpiredIsNoDrift(t *testing.T) {
	s := newShop(t, box.Options{})
	p := s.flagged()
	s.g = s.restarted()
	s.connect()
	if _, err := s.box.Buy(ada, "ada@example.com", p.ID); err != nil {
		t.Fatal(err)
	}
	s.box.Settle()
	customer, _ := s.box.CustomerByExternalID(ada)
	order := s.box.Orders(customer.ID)[0]
	if _, err := s.box.Refund(box.Refund{OrderID: order.ID, Reason: "customer_request", Amount: 500}); err != nil {
		t.Fatal(err)
	}
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
	}
	if h, err := s.g.Show(ada); err != nil || len(h.Subscriptions)+len(h.Grants)+len(h.Refunds) != 0 {
		t.Errorf("%+v, %v", h, err)
	}
}

var (
	notRevoked = regexp.MustCompile(`"is_revoked":true`)
	granted    = regexp.MustCompile(`"is_granted":false`)
	revokedAt  = regexp.MustCompile(`"revoked_at":"[^"]*"`)
)

// A grant that Polar has not taken back, although its subscription ended long
// ago, does not open for ever: what it belongs to is asked for.
func TestLiveGrantOfWhatEnded(t *testing.T) {
	s := newEditedShop(t, func(path string, body []byte) []byte {
		if path == "/v1/benefit-grants/" {
			body = notRevoked.ReplaceAll(body, []byte(`"is_revoked":false`))
			body = granted.ReplaceAll(body, []byte(`"is_granted":true`))
			body = revokedAt.ReplaceAll(body, []byte(`"revoked_at":null`))
		}
		return body
	})
	p := s.flagged()
	if _, err := s.box.Buy(ada, "ada@example.com", p.ID); err != nil {
		t.Fatal(err)
	}
	s.box.Settle()
	customer, _ := s.box.CustomerByExternalID(ada)
	if _, err := s.box.Revoke(s.box.Subscriptions(customer.ID)[0].ID); err != nil {
		t.Fatal(err)
	}
	s.box.Settle()
	s.box.Advance(65 * day)
	s.g = s.restarted()
	s.sync()
	s.confirms(ada, "feature", false, entitlement.ReasonCanceled)
	s.box.Advance(150 * day) // and it stays so when what has ended goes with age
	s.sync()
	s.confirms(ada, "feature", false, entitlement.ReasonCanceled)
	if r := s.sync(); r.Missing+r.Wrong+r.Extra != 0 {
		t.Errorf("%+v", r)
	}
}

// A grant whose parent is not known opens by itself, and causes a look-up.
func TestOrphanGrantIsLookedUp(t *testing.T) {
	s := newShop(t, box.Options{})
	p := s.flagged()
	s.g = s.restarted()
	s.sync()
	s.connect("benefit_grant.created") // nothing else arrives
	if _, err := s.box.Buy(ada, "ada@example.com", p.ID); err != nil {
		t.Fatal(err)
	}
	s.box.Settle()
	news, stop := s.g.store.Watch(ada)
	defer stop()
	for len(news) > 0 {
		<-news
	}
	s.confirms(ada, "feature", true, entitlement.ReasonBenefit)
	for s.decide(ada, "feature").Reason != entitlement.ReasonActive {
		<-news // nobody waits for it but this test
	}
}

// Of several endpoints with our secrets, the one that works counts.
func TestSeveralEndpoints(t *testing.T) {
	s := newShop(t, box.Options{})
	s.box.AddEndpoint(box.Endpoint{URL: "https://app.example.com/auth/polar/webhook", Secret: testSecret, Enabled: true})
	old := s.box.AddEndpoint(box.Endpoint{URL: "https://old.example.com/x", Secret: testSecret})
	if _, err := s.box.UpdateEndpoint(old.ID, box.EndpointUpdate{Enabled: new(false)}); err != nil {
		t.Fatal(err)
	}
	if err := s.g.checkEndpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	if e := s.g.Endpoint(); e.Problem != EndpointFine || e.URL != "https://app.example.com/auth/polar/webhook" {
		t.Errorf("%+v", e)
	}
}

// A new access token while somebody is at the checkout: what they buy is theirs.
func TestNewTokenDuringACheckout(t *testing.T) {
	s := newShop(t, box.Options{}, func(c *Config) { c.Syncing.Off = true })
	if _, err := s.box.CreateCustomer(box.Customer{Email: "ada@example.com"}); err != nil {
		t.Fatal(err)
	}
	c := s.opens(Visitor{User: ada}, s.pro.ID)
	token := s.box.NewToken()
	s.g = s.restarted(func(c *Config) { c.AccessToken = token })
	s.pays(c, "ada@example.com")
	s.box.Settle()
	s.confirms(ada, "pro", true, entitlement.ReasonActive)
}

// However many ask for a sync, and hang up, there is one.
func TestSyncNowIsShared(t *testing.T) {
	var calls atomic.Int64
	s := newShop(t, box.Options{}, func(c *Config) { c.OnCall = func(polar.Call) { calls.Add(1) } })
	s.sync()
	calls.Store(0)
	s.sync()
	one := calls.Swap(0)
	s.g.sync.running <- struct{}{} // it waits for another one
	ctx, cancel := context.WithCancel(t.Context())
	var callers sync.WaitGroup
	for range 10 {
		callers.Go(func() { _, _ = s.g.SyncNow(ctx) })
	}
	cancel()
	callers.Wait()
	<-s.g.sync.running
	if _, err := s.g.SyncNow(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := calls.Load(); n > 2*one {
		t.Errorf("%d calls, of which one sync needs %d", n, one)
	}
}

// Who waits for a place among the look-ups waits for us and not for Polar.
func TestPlacesAreOurLimit(t *testing.T) {
	s := newShop(t, box.Options{})
	for range lookUpsAtOnce {
		s.g.lookUps.places <- struct{}{}
	}
	a, err := s.g.Account(ada)
	if err != nil {
		t.Fatal(err)
	}
	q, err := s.g.Rules().Require("pro")
	if err != nil {
		t.Fatal(err)
	}
	_, d, limits := s.g.Confirm(t.Context(), a, q, entitlement.Decide(a, q, s.g.Rules(), s.g.Now()))
	if d.Reason != entitlement.ReasonUnavailable || !limits {
		t.Errorf("%+v, limits %v", d, limits)
	}
	for range lookUpsAtOnce {
		<-s.g.lookUps.places
	}
}

// Periods that are over for ever do not hide the others from the glances.
func TestOverduePeriods(t *testing.T) {
	s := newShop(t, box.Options{})
	page := func(n, max int, last time.Duration) *polar.Page[polar.Subscription] {
		p := &polar.Page[polar.Subscription]{MaxPage: max, Items: make([]polar.Subscription, n)}
		p.Items[n-1].CurrentPeriodEnd = s.g.Now().Add(last)
		return p
	}
	for _, step := range []struct {
		page *polar.Page[polar.Subscription]
		next int
	}{
		{page(100, 3, -time.Hour), 2},
		{page(100, 3, -time.Minute), 3},
		{page(100, 3, -time.Minute), 1},
		{page(100, 3, time.Hour), 1},
		{page(40, 1, -time.Hour), 1},
	} {
		s.g.overdueFrom(s.g.overduePage(), step.page)
		if got := s.g.overduePage(); got != step.next {
			t.Errorf("page %d is next, want %d", got, step.next)
		}
	}
}

// A store that was read by nobody is no proof of anything.
func TestNewStoreNeedsNoProof(t *testing.T) {
	s := newShop(t, box.Options{})
	s.config.Store = cache.New(filepath.Join(t.TempDir(), "new.db"))
	t.Cleanup(func() { _ = s.config.Store.Close() })
	s.g = s.restarted()
	if _, err := s.g.Sync(t.Context()); err != nil || !s.g.synced() {
		t.Error(err)
	}
}

// A sync of many pages does not keep glances waiting: who has just bought stands at
// the end of its lists.
func TestGlancesDuringALongSync(t *testing.T) {
	glances := 0
	s := newShop(t, box.Options{}, func(c *Config) {
		c.Limiter = polar.NewLimiter(500, 10)
		c.OnGlance = func(SyncReport) { glances++ }
	})
	s.sleeps = func(d time.Duration) error { s.box.Advance(d); return nil }
	if err := s.box.Populate(450, s.pro.ID); err != nil {
		t.Fatal(err)
	}
	s.sync()
	if glances != 0 {
		t.Error("filling is told as mending")
	}
	if s.sync(); glances == 0 {
		t.Error("nothing was glanced at for minutes")
	}
}

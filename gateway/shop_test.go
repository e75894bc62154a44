package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddy-polar/caddy-polar/cache"
	"github.com/caddy-polar/caddy-polar/entitlement"
	"github.com/caddy-polar/caddy-polar/polar"
	"github.com/caddy-polar/caddy-polar/polar/box"
	"github.com/caddy-polar/caddy-polar/polar/box/boxtest"
)

// shop is a gateway with a Polar in a box before it, and webhooks between them.
type shop struct {
	t   testing.TB
	box *boxtest.Server
	g   *Gateway

	pro, max, trial, free, lifetime, other box.Product // other is of no plan

	logs   *observer.ObservedLogs
	config Config
	seen   recollections

	// sleeps is what happens while the gateway waits to ask Polar again. Nil:
	// its time is up.
	sleeps func(time.Duration) error
}

func newShop(t testing.TB, o box.Options, change ...func(*Config)) *shop {
	t.Helper()
	return newShopAt(t, boxtest.Start(t, o), change...)
}

// newShopAt is one more gateway before a box.
func newShopAt(t testing.TB, at *boxtest.Server, change ...func(*Config)) *shop {
	t.Helper()
	s := &shop{t: t, box: at}
	product := func(name, interval string, amount int) box.Product {
		return s.box.AddProduct(box.Product{Name: name, Interval: interval, Price: box.Price{Amount: amount, Currency: "usd"}})
	}
	s.pro, s.max = product("Pro", "month", 1000), product("Max", "month", 3000)
	s.trial = s.box.AddProduct(box.Product{
		Name: "Trial", Interval: "month", TrialInterval: "day", TrialCount: 14, Price: box.Price{Amount: 1000, Currency: "usd"},
	})
	s.free, s.lifetime = product("Free", "month", 0), product("Lifetime", "", 9900)
	s.other = product("Other", "month", 500)
	grace := entitlement.DefaultGrace()
	var logs zapcore.Core
	logs, s.logs = observer.New(zapcore.DebugLevel)
	c := Config{
		Name: "default", Server: s.box.URL, AccessToken: s.box.NewToken(), WebhookSecrets: []string{testSecret},
		Plans: []entitlement.Plan{
			{Name: "pro", Products: []string{s.pro.ID, s.trial.ID}, Grace: grace},
			{Name: "max", Products: []string{s.max.ID}, Grace: grace},
			{Name: "basic", Products: []string{s.free.ID}, Grace: grace},
			{Name: "lifetime", Products: []string{s.lifetime.ID}, Grace: grace},
			{Name: "feature", Benefits: []string{featureBenefit}, Grace: grace},
		},
		Logger: zap.New(logs), Now: s.box.Now, Store: cache.New(filepath.Join(t.TempDir(), "polar.db")),
		Sleep: func(_ context.Context, d time.Duration) error {
			if s.sleeps == nil {
				return context.DeadlineExceeded
			}
			return s.sleeps(d)
		},
	}
	for _, do := range change {
		do(&c)
	}
	g, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	s.g, s.config = g, c
	t.Cleanup(func() {
		s.g.Close()
		if err := c.Store.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// connect lets the box's webhooks reach the gateway: those of some types, or all.
func (s *shop) connect(events ...string) *shop {
	s.t.Helper()
	endpoint := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		d, err := s.g.ReadDelivery(r.Header)
		if err != nil {
			s.t.Error(err)
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		body, _ := io.ReadAll(r.Body)
		if _, err := s.g.TakeWebhook(r.Context(), d, body); err != nil {
			s.t.Error(err)
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	}))
	s.t.Cleanup(endpoint.Close)
	s.box.AddEndpoint(box.Endpoint{URL: endpoint.URL, Secret: testSecret, Enabled: true, Events: events})
	return s
}

const (
	siteSuccess = "https://app.example.com/auth/polar/success"
	grace       = "usr_grace"
)

func adaVisits() Visitor {
	return Visitor{User: ada, Email: "ada@example.com", EmailVerified: true, IP: "203.0.113.7"}
}

func (s *shop) purchase(products ...string) Purchase {
	return Purchase{Products: products, Success: siteSuccess, ReturnTo: "https://app.example.com/pro/"}
}

// opens opens a checkout, which must succeed.
func (s *shop) opens(v Visitor, products ...string) box.Checkout {
	s.t.Helper()
	c, err := s.g.OpenCheckout(s.t.Context(), v, s.purchase(products...))
	if err != nil {
		s.t.Fatal(err)
	}
	held, ok := s.box.Checkout(c.ID)
	if !ok || string(c.URL) != held.URL {
		s.t.Fatalf("checkout %s is not the box's", c.ID)
	}
	return held
}

func (s *shop) pays(c box.Checkout, email string) {
	s.t.Helper()
	if _, err := s.box.Confirm(c.ID, box.Payment{Email: email}); err != nil {
		s.t.Fatal(err)
	}
}

func (s *shop) blocked(v Visitor, obstacle entitlement.Obstacle, step entitlement.NextStep, products ...string) {
	s.t.Helper()
	_, err := s.g.OpenCheckout(s.t.Context(), v, s.purchase(products...))
	var got *ObstacleError
	if !errors.As(err, &got) || got.Obstacle != obstacle || got.NextStep != step {
		s.t.Errorf("%v, want %s, next %s", err, obstacle, step)
	}
}

func (s *shop) decide(user, plan string) entitlement.Decision {
	s.t.Helper()
	a, err := s.g.Account(user)
	if err != nil {
		s.t.Fatal(err)
	}
	q, err := s.g.Rules().Require(plan)
	if err != nil {
		s.t.Fatal(err)
	}
	d := entitlement.Decide(a, q, s.g.Rules(), s.g.Now())
	s.seen.agree(s.t, s.g, Visitor{User: user}, q, d)
	return d
}

func (s *shop) is(user, plan string, allowed bool, reason entitlement.Reason) {
	s.t.Helper()
	if d := s.decide(user, plan); d.Allowed != allowed || d.Reason != reason {
		s.t.Errorf("%s on %s: %v %s, want %v %s", user, plan, d.Allowed, d.Reason, allowed, reason)
	}
}

// arrival is the state and id with which Polar sends the buyer back.
func (s *shop) arrival(c box.Checkout) (Return, string) {
	s.t.Helper()
	u, err := url.Parse(c.SuccessURL)
	if err != nil {
		s.t.Fatal(err)
	}
	if !strings.HasPrefix(c.SuccessURL, siteSuccess+"?") || u.Query().Get("checkout_id") != c.ID {
		s.t.Fatalf("success URL %s", c.SuccessURL)
	}
	back, err := s.g.ReadState(u.Query().Get("state"))
	if err != nil {
		s.t.Fatal(err)
	}
	return back, c.ID
}

func (s *shop) arrives(c box.Checkout, want Arrival) {
	s.t.Helper()
	back, id := s.arrival(c)
	if got := s.g.Arrive(s.t.Context(), back, id); got != want {
		s.t.Errorf("arrival %d, want %d", got, want)
	}
}

func TestCheckoutNamesItsBuyer(t *testing.T) {
	s := newShop(t, box.Options{})
	c := s.opens(adaVisits(), s.pro.ID)
	customer, ok := s.box.CustomerByExternalID(ada)
	if !ok || customer.Email != "ada@example.com" || c.CustomerID != customer.ID {
		t.Errorf("the customer was not made first: %+v", customer)
	}
	if c.CustomerIP != "203.0.113.7" {
		t.Errorf("the buyer's address is %q", c.CustomerIP)
	}
	keys, err := s.g.claim()
	if err != nil {
		t.Fatal(err)
	}
	if value, _ := c.Metadata[MarkField].(string); markedUser(keys.Marks, value) != ada {
		t.Errorf("metadata %v", c.Metadata)
	}
	if back, _ := s.arrival(c); back.User != ada || back.To != "https://app.example.com/pro/" {
		t.Errorf("state %+v", back)
	}
	if held, err := s.g.store.Checkout(c.ID); err != nil || held.User != ada {
		t.Errorf("not remembered: %+v %v", held, err)
	}
}

// A buyer whose e-mail nobody vouches for is named by the external id.
func TestCheckoutWithoutVerifiedEmail(t *testing.T) {
	for _, tt := range []struct {
		name  string
		v     Visitor
		body  string
		noted string
		off   bool
	}{
		{name: "unverified", v: Visitor{User: ada, Email: "ada@example.com"}, body: "typed@example.com", noted: "typed@example.com"},
		{name: "none", v: Visitor{User: ada}, body: "typed@example.com", noted: "typed@example.com"},
		{name: "switched off", v: Visitor{User: ada}, body: "typed@example.com", off: true},
		{name: "nothing", v: Visitor{User: ada}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newShop(t, box.Options{}, func(c *Config) { c.Sales.NoBodyEmail = tt.off })
			p := s.purchase(s.pro.ID)
			p.Email = tt.body
			c, err := s.g.OpenCheckout(t.Context(), tt.v, p)
			if err != nil {
				t.Fatal(err)
			}
			held, _ := s.box.Checkout(c.ID)
			if held.CustomerID != "" || held.ExternalCustomerID != ada || held.CustomerEmail != tt.noted {
				t.Errorf("customer %q, external %q, e-mail %q", held.CustomerID, held.ExternalCustomerID, held.CustomerEmail)
			}
			if len(s.box.Customers()) != 0 {
				t.Error("a customer was made for an e-mail that nobody vouches for")
			}
		})
	}
}

// The token's verified e-mail goes before the one in the body.
func TestVerifiedEmailWins(t *testing.T) {
	s := newShop(t, box.Options{})
	p := s.purchase(s.pro.ID)
	p.Email = "other@example.com"
	c, err := s.g.OpenCheckout(t.Context(), adaVisits(), p)
	if err != nil {
		t.Fatal(err)
	}
	if held, _ := s.box.Checkout(c.ID); held.CustomerEmail != "ada@example.com" {
		t.Errorf("e-mail %q", held.CustomerEmail)
	}
}

func TestCustomerIsCompleted(t *testing.T) {
	s := newShop(t, box.Options{}).connect()
	known, err := s.box.CreateCustomer(box.Customer{Email: "Ada@Example.com"})
	if err != nil {
		t.Fatal(err)
	}
	if c := s.opens(adaVisits(), s.pro.ID); c.CustomerID != known.ID {
		t.Errorf("sold to %q", c.CustomerID)
	}
	if now, _ := s.box.Customer(known.ID); now.ExternalID != ada {
		t.Errorf("external id %q", now.ExternalID)
	}
}

// The e-mail is another user's: the purchase may end up under their customer,
// and is the buyer's all the same, without giving any control.
func TestOnePersonTypesAnothersEmail(t *testing.T) {
	s := newShop(t, box.Options{AllowMultiple: true}).connect()
	c := s.opens(adaVisits(), s.pro.ID)
	s.pays(c, "")
	s.box.Settle()
	s.is(ada, "pro", true, entitlement.ReasonActive)

	for _, v := range []Visitor{
		{User: "usr_mallory"}, // types Ada's address at Polar
		{User: "usr_eve", Email: "ada@example.com", EmailVerified: true}, // has the same address
	} {
		c := s.opens(v, s.max.ID)
		if c.CustomerID != "" {
			t.Errorf("%s was sold to as customer %s", v.User, c.CustomerID)
		}
		s.pays(c, "ada@example.com")
		s.box.Settle()
		s.is(v.User, "max", true, entitlement.ReasonActive)
		s.is(v.User, "pro", false, entitlement.ReasonPlanRequired)
		s.is(ada, "max", false, entitlement.ReasonPlanRequired)
		s.is(ada, "pro", true, entitlement.ReasonActive)
		for _, user := range []string{v.User, ada} {
			if _, err := s.g.OpenPortal(t.Context(), user, ""); !errors.Is(err, ErrNotLinked) {
				t.Errorf("portal of %s: %v", user, err)
			}
			a, err := s.g.Account(user)
			if err != nil {
				t.Fatal(err)
			}
			if own := a.OwnCustomer(); own != "" {
				t.Errorf("%s is told customer %s", user, own)
			}
			if _, _, err := s.g.ChangeSubscription(t.Context(), user, Change{Cancel: new(true)}); !errors.Is(err, ErrNotLinked) {
				t.Errorf("change by %s: %v", user, err)
			}
		}
	}
}

// The same with webhooks lost: what stands under a customer is read before
// anybody gets control of it.
func TestControlDoesNotTrustTheStore(t *testing.T) {
	s := newShop(t, box.Options{AllowMultiple: true}).connect()
	s.pays(s.opens(adaVisits(), s.pro.ID), "")
	s.box.Settle()
	if _, err := s.g.OpenPortal(t.Context(), ada, ""); err != nil {
		t.Fatal(err)
	}
	s.box.SetNetwork(box.Network{Lose: true})
	s.pays(s.opens(Visitor{User: "usr_mallory"}, s.max.ID), "ada@example.com")
	s.box.Settle()
	if _, err := s.g.OpenPortal(t.Context(), ada, ""); !errors.Is(err, ErrNotLinked) {
		t.Errorf("portal: %v", err)
	}
	s.is("usr_mallory", "max", true, entitlement.ReasonActive)
}

func TestUnknownProducts(t *testing.T) {
	s := newShop(t, box.Options{})
	for _, products := range [][]string{{s.other.ID}, {s.pro.ID, s.other.ID}, {"nonsense"}, {}} {
		if _, err := s.g.OpenCheckout(t.Context(), adaVisits(), s.purchase(products...)); !errors.Is(err, ErrUnknownProduct) {
			t.Errorf("%v: %v", products, err)
		}
	}
	if _, err := s.g.PlanProducts("nonsense"); !errors.Is(err, ErrUnknownPlan) {
		t.Error(err)
	}
	if _, err := s.g.PlanProducts("feature"); !errors.Is(err, ErrUnknownProduct) {
		t.Error(err)
	}
	if n := len(s.box.Customers()); n != 0 {
		t.Errorf("%d customers were made", n)
	}
}

func TestObstacles(t *testing.T) {
	s := newShop(t, box.Options{}).connect()
	s.pays(s.opens(adaVisits(), s.pro.ID), "")
	s.box.Settle()
	customer, _ := s.box.CustomerByExternalID(ada)
	sub := s.box.Subscriptions(customer.ID)[0]

	s.blocked(adaVisits(), entitlement.ObstacleSubscribed, entitlement.StepPortal, s.pro.ID)
	s.blocked(adaVisits(), entitlement.ObstacleSubscribed, entitlement.StepPortal, s.trial.ID) // the same plan
	s.blocked(adaVisits(), entitlement.ObstacleSubscribed, entitlement.StepChange, s.max.ID)
	s.opens(adaVisits(), s.lifetime.ID) // no subscription

	if err := s.box.SetCard(customer.ID, false); err != nil {
		t.Fatal(err)
	}
	s.box.AdvanceTo(sub.CurrentPeriodEnd.Add(time.Hour))
	s.is(ada, "pro", true, entitlement.ReasonPastDueGrace)
	s.blocked(adaVisits(), entitlement.ObstaclePaymentDue, entitlement.StepPortal, s.max.ID)
	s.blocked(adaVisits(), entitlement.ObstaclePaymentDue, entitlement.StepPortal, s.lifetime.ID)

	s.box.Advance(30 * day) // dunning is over
	s.is(ada, "pro", false, entitlement.ReasonCanceled)
	s.opens(adaVisits(), s.pro.ID)
}

func TestPausedIsToBeResumed(t *testing.T) {
	s := newShop(t, box.Options{}).connect()
	s.pays(s.opens(adaVisits(), s.pro.ID), "")
	s.box.Settle()
	customer, _ := s.box.CustomerByExternalID(ada)
	sub := s.box.Subscriptions(customer.ID)[0]
	if _, err := s.box.Pause(sub.ID, nil); err != nil {
		t.Fatal(err)
	}
	s.box.AdvanceTo(sub.CurrentPeriodEnd.Add(time.Hour))
	s.is(ada, "pro", false, entitlement.ReasonPaused)
	s.blocked(adaVisits(), entitlement.ObstaclePaused, entitlement.StepPortal, s.pro.ID)
	s.blocked(adaVisits(), entitlement.ObstaclePaused, entitlement.StepPortal, s.max.ID)
}

// Webhooks were lost: Polar is asked before somebody pays twice.
func TestObstacleThatNoWebhookTold(t *testing.T) {
	s := newShop(t, box.Options{})
	s.pays(s.opens(adaVisits(), s.pro.ID), "")
	s.box.Settle()
	s.is(ada, "pro", false, entitlement.ReasonNoSubscription)
	s.blocked(adaVisits(), entitlement.ObstacleSubscribed, entitlement.StepPortal, s.pro.ID)
	s.is(ada, "pro", true, entitlement.ReasonActive)
}

func TestFreeIsUpgraded(t *testing.T) {
	s := newShop(t, box.Options{}).connect()
	s.pays(s.opens(adaVisits(), s.free.ID), "")
	s.box.Settle()
	s.is(ada, "basic", true, entitlement.ReasonActive)
	customer, _ := s.box.CustomerByExternalID(ada)
	sub := s.box.Subscriptions(customer.ID)[0]
	c := s.opens(adaVisits(), s.pro.ID)
	if c.Upgrades != sub.ID {
		t.Errorf("upgrades %q, want %q", c.Upgrades, sub.ID)
	}
	if c := s.opens(adaVisits(), s.lifetime.ID); c.Upgrades != "" {
		t.Error("a one-time purchase upgrades a subscription")
	}
	s.pays(c, "")
	s.box.Settle()
	s.is(ada, "pro", true, entitlement.ReasonActive)
	if n := len(s.box.Subscriptions(customer.ID)); n != 1 {
		t.Errorf("%d subscriptions", n)
	}
}

func TestSeveralSubscriptions(t *testing.T) {
	s := newShop(t, box.Options{AllowMultiple: true}, func(c *Config) { c.Sales.Several = true }).connect()
	s.pays(s.opens(adaVisits(), s.pro.ID), "")
	s.box.Settle()
	s.pays(s.opens(adaVisits(), s.max.ID), "")
	s.box.Settle()
	s.is(ada, "pro", true, entitlement.ReasonActive)
	s.is(ada, "max", true, entitlement.ReasonActive)
	s.blocked(adaVisits(), entitlement.ObstacleSubscribed, entitlement.StepPortal, s.max.ID)
	if _, _, err := s.g.ChangeSubscription(t.Context(), ada, Change{Cancel: new(true)}); !errors.Is(err, ErrSeveral) {
		t.Error(err)
	}
}

func TestArriveWithoutWebhooks(t *testing.T) {
	s := newShop(t, box.Options{})
	for _, p := range []struct {
		product, plan string
		reason        entitlement.Reason
	}{
		{s.pro.ID, "pro", entitlement.ReasonActive},
		{s.trial.ID, "pro", entitlement.ReasonTrialing},
		{s.lifetime.ID, "lifetime", entitlement.ReasonPurchased},
	} {
		v := Visitor{User: "usr_" + p.product[:8], Email: p.product[:8] + "@example.com", EmailVerified: true}
		c := s.opens(v, p.product)
		s.arrives(c, ArrivedPending) // nobody is sent back who has not paid
		s.pays(c, "")
		s.is(v.User, p.plan, false, entitlement.ReasonNoSubscription)
		s.arrives(c, ArrivedOpen)
		s.is(v.User, p.plan, true, p.reason)
	}
}

// The buyer typed somebody else's e-mail: only the remembered checkout and the
// mark say whose it is.
func TestArriveUnderAnothersCustomer(t *testing.T) {
	s := newShop(t, box.Options{AllowMultiple: true})
	s.pays(s.opens(adaVisits(), s.pro.ID), "")
	c := s.opens(Visitor{User: "usr_mallory"}, s.max.ID)
	s.pays(c, "ada@example.com")
	s.arrives(c, ArrivedOpen)
	s.is("usr_mallory", "max", true, entitlement.ReasonActive)
	s.is(ada, "max", false, entitlement.ReasonNoSubscription)
}

// Polar's replica is behind in each of the ways that it can be: it does not know
// the checkout, has it unpaid, lacks its order, or its subscription.
func TestArriveBehindTheReplica(t *testing.T) {
	for _, behind := range []time.Duration{time.Hour, time.Minute, 0} {
		s := newShop(t, box.Options{})
		c := s.opens(adaVisits(), s.pro.ID)
		s.box.Advance(2 * time.Minute)
		s.box.SetTrouble(box.Trouble{Lag: behind})
		s.pays(c, "")
		var waited []time.Duration
		s.sleeps = func(d time.Duration) error {
			if waited = append(waited, d); len(waited) == 3 {
				s.box.SetTrouble(box.Trouble{})
			}
			return nil
		}
		s.arrives(c, ArrivedOpen)
		s.is(ada, "pro", true, entitlement.ReasonActive)
		if behind == 0 && len(waited) != 0 || behind > 0 && fmt.Sprint(waited) != "[150ms 300ms 600ms]" {
			t.Errorf("%s behind: waited %s", behind, waited)
		}
	}
}

// What is known is not asked again, and what was over before is not waited for.
func TestArriveCosts(t *testing.T) {
	var calls atomic.Int64
	s := newShop(t, box.Options{}, func(c *Config) { c.OnCall = func(polar.Call) { calls.Add(1) } })
	c := s.opens(adaVisits(), s.pro.ID)
	s.pays(c, "")
	customer, _ := s.box.CustomerByExternalID(ada)
	if _, err := s.box.Revoke(s.box.Subscriptions(customer.ID)[0].ID); err != nil {
		t.Fatal(err)
	}
	s.sleeps = func(time.Duration) error { return nil }
	calls.Store(0)
	s.arrives(c, ArrivedNothing)
	if calls.Load() != 3 {
		t.Errorf("%d calls", calls.Load())
	}
	// The webhook was faster: nobody is asked.
	other := s.opens(Visitor{User: grace}, s.pro.ID)
	s.pays(other, "grace@example.com")
	s.arrives(other, ArrivedOpen)
	calls.Store(0)
	s.arrives(other, ArrivedOpen)
	if calls.Load() != 0 {
		t.Errorf("%d calls for what is open", calls.Load())
	}
}

// A page that is reloaded for ever costs nothing more.
func TestPaceOfArrivals(t *testing.T) {
	var calls atomic.Int64
	s := newShop(t, box.Options{}, func(c *Config) { c.OnCall = func(polar.Call) { calls.Add(1) } })
	c := s.opens(adaVisits(), s.pro.ID)
	for range arrivalsPerMinute {
		s.arrives(c, ArrivedPending)
	}
	calls.Store(0)
	s.arrives(c, ArrivedPending)
	if calls.Load() != 0 {
		t.Errorf("%d calls at the thirty-first time", calls.Load())
	}
}

// However long Polar takes, the buyer waits for two seconds; what it tells
// later counts when they ask again.
func TestArriveInTime(t *testing.T) {
	s := newShop(t, box.Options{})
	c := s.opens(adaVisits(), s.pro.ID)
	s.pays(c, "")
	s.box.SetTrouble(box.Trouble{Hang: true})
	began := time.Now()
	s.arrives(c, ArrivedPending)
	if took := time.Since(began); took < arrivalWait || took > arrivalWait+3*time.Second {
		t.Errorf("took %s", took)
	}
}

func TestArrivals(t *testing.T) {
	s := newShop(t, box.Options{})
	c := s.opens(adaVisits(), s.pro.ID)
	s.pays(c, "")
	back, id := s.arrival(c)
	for name, tt := range map[string]struct {
		back Return
		id   string
	}{
		"another user":  {Return{User: "usr_mallory"}, id},
		"no checkout":   {back, ""},
		"nonsense":      {back, "nonsense/../x"},
		"unknown":       {back, "0f4a2c0e-93b7-4f0e-8a51-6a2d0d5f9c11"},
		"of no gateway": {back, stranger(t, s)},
	} {
		if got := s.g.Arrive(t.Context(), tt.back, tt.id); got != ArrivedNothing {
			t.Errorf("%s: %d", name, got)
		}
	}
	s.is("usr_mallory", "pro", false, entitlement.ReasonNoSubscription)
	s.is(ada, "pro", false, entitlement.ReasonNoSubscription)
}

// stranger is a paid checkout of somebody else, opened elsewhere.
func stranger(t *testing.T, s *shop) string {
	c, err := s.box.Buy("usr_stranger", "stranger@example.com", s.pro.ID)
	if err != nil {
		t.Fatal(err)
	}
	return c.ID
}

func TestStates(t *testing.T) {
	s := newShop(t, box.Options{})
	keys, err := s.g.claim()
	if err != nil {
		t.Fatal(err)
	}
	state, err := sealState(keys, Return{User: ada, To: "https://app.example.com/pro/"}, s.g.Now())
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(state, ada) {
		t.Error("the state can be read")
	}
	if r, err := s.g.ReadState(state); err != nil || r.User != ada || r.To != "https://app.example.com/pro/" {
		t.Errorf("%+v %v", r, err)
	}
	other := newShop(t, box.Options{})
	foreign, err := other.g.claim()
	if err != nil {
		t.Fatal(err)
	}
	forged, err := sealState(foreign, Return{User: ada}, s.g.Now())
	if err != nil {
		t.Fatal(err)
	}
	for i := range state {
		if _, err := s.g.ReadState(state[:i]); !errors.Is(err, ErrState) {
			t.Fatalf("cut at %d: %v", i, err)
		}
		if flipped := state[:i] + string(state[i]^1) + state[i+1:]; i < len(state)-1 {
			if _, err := s.g.ReadState(flipped); !errors.Is(err, ErrState) {
				t.Fatalf("flipped at %d: %v", i, err)
			}
		}
	}
	for _, bad := range []string{forged, "", "x", state + "A", mark(keys.Random, ada)} {
		if _, err := s.g.ReadState(bad); !errors.Is(err, ErrState) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	s.box.Advance(24*time.Hour - time.Minute)
	if _, err := s.g.ReadState(state); err != nil {
		t.Error(err)
	}
	s.box.Advance(time.Minute)
	if _, err := s.g.ReadState(state); !errors.Is(err, ErrState) {
		t.Errorf("expired: %v", err)
	}
}

func TestPortal(t *testing.T) {
	s := newShop(t, box.Options{}).connect()
	if _, err := s.g.OpenPortal(t.Context(), ada, ""); !errors.Is(err, ErrNoCustomer) {
		t.Errorf("a stranger: %v", err)
	}
	s.pays(s.opens(adaVisits(), s.pro.ID), "")
	s.box.Settle()
	portal, err := s.g.OpenPortal(t.Context(), ada, "https://app.example.com/")
	if err != nil || !strings.HasPrefix(string(portal), s.box.URL+"/") {
		t.Errorf("%v", err)
	}
	customer, _ := s.box.CustomerByExternalID(ada)
	if err := s.box.DeleteCustomer(customer.ID); err != nil {
		t.Fatal(err)
	}
	s.box.Settle()
	if _, err := s.g.OpenPortal(t.Context(), ada, ""); !errors.Is(err, ErrNoCustomer) {
		t.Errorf("deleted: %v", err)
	}
}

// Nobody told the gateway of the customer, nor of its end.
func TestPortalWithoutWebhooks(t *testing.T) {
	s := newShop(t, box.Options{})
	if _, err := s.box.Buy(ada, "ada@example.com", s.pro.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := s.g.OpenPortal(t.Context(), ada, ""); err != nil {
		t.Error(err)
	}
	customer, _ := s.box.CustomerByExternalID(ada)
	if err := s.box.DeleteCustomer(customer.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := s.g.OpenPortal(t.Context(), ada, ""); !errors.Is(err, ErrNoCustomer) {
		t.Errorf("deleted: %v", err)
	}
}

func TestChangeSubscription(t *testing.T) {
	s := newShop(t, box.Options{})
	change := func(user string, c Change) error {
		_, _, err := s.g.ChangeSubscription(t.Context(), user, c)
		return err
	}
	if err := change(ada, Change{Cancel: new(true)}); !errors.Is(err, ErrNoSubscription) {
		t.Errorf("nothing to change: %v", err)
	}
	s.pays(s.opens(adaVisits(), s.pro.ID), "")
	customer, _ := s.box.CustomerByExternalID(ada)
	sub := s.box.Subscriptions(customer.ID)[0]
	theirs, err := s.box.Buy(grace, "grace@example.com", s.pro.ID)
	if err != nil {
		t.Fatal(err)
	}
	foreign := s.box.Subscriptions(theirs.CustomerID)[0]

	for name, tt := range map[string]struct {
		c    Change
		want error
	}{
		"a foreign one":   {Change{Subscription: foreign.ID, Cancel: new(true)}, ErrNoSubscription},
		"an unknown one":  {Change{Subscription: "nonsense", Cancel: new(true)}, ErrNoSubscription},
		"to no plan":      {Change{ProductID: s.other.ID}, ErrUnknownProduct},
		"to an empty one": {Change{}, ErrUnknownProduct},
	} {
		if err := change(ada, tt.c); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if now, _ := s.box.Subscription(foreign.ID); now.CancelAtPeriodEnd {
		t.Fatal("a foreign subscription was canceled")
	}

	if err := change(ada, Change{Cancel: new(true)}); err != nil {
		t.Fatal(err)
	}
	s.is(ada, "pro", true, entitlement.ReasonCanceling)
	if err := change(ada, Change{Subscription: sub.ID, Cancel: new(false)}); err != nil {
		t.Fatal(err)
	}
	s.is(ada, "pro", true, entitlement.ReasonActive)
	if err := change(ada, Change{ProductID: s.max.ID}); err != nil {
		t.Fatal(err)
	}
	s.is(ada, "max", true, entitlement.ReasonActive)
	s.is(ada, "pro", false, entitlement.ReasonPlanRequired)
}

func TestPaceOfStarts(t *testing.T) {
	s := newShop(t, box.Options{})
	for range startsPerMinute {
		s.opens(adaVisits(), s.pro.ID)
	}
	_, err := s.g.OpenCheckout(t.Context(), adaVisits(), s.purchase(s.pro.ID))
	var tooMany *TooManyError
	if !errors.As(err, &tooMany) || tooMany.RetryAfter <= 0 || tooMany.RetryAfter > time.Minute {
		t.Errorf("the eleventh: %v", err)
	}
	if _, err := s.g.OpenPortal(t.Context(), ada, ""); !errors.As(err, &tooMany) {
		t.Errorf("a portal: %v", err)
	}
	s.opens(Visitor{User: grace}, s.pro.ID) // others go on
	s.box.Advance(time.Minute)
	s.opens(adaVisits(), s.pro.ID)
}

func TestPaceSlides(t *testing.T) {
	p := pace{most: 3, span: time.Minute}
	start := bought
	for i, tt := range []struct {
		at   time.Duration
		wait time.Duration
	}{
		{0, 0},
		{20 * time.Second, 0},
		{40 * time.Second, 0},
		{50 * time.Second, 10 * time.Second},
		{60 * time.Second, 0},
		{61 * time.Second, 19 * time.Second},
		{80 * time.Second, 0},
		{-time.Hour, 0}, // the clock was set back
	} {
		err := p.take(ada, start.Add(tt.at))
		var tooMany *TooManyError
		if errors.As(err, &tooMany) != (tt.wait > 0) || tt.wait > 0 && tooMany.RetryAfter != tt.wait {
			t.Errorf("%d: %v, want a wait of %s", i, err, tt.wait)
		}
	}
	for i := range 1000 {
		_ = p.take(strings.Repeat("x", i+1), start.Add(time.Hour))
	}
	_ = p.take(ada, start.Add(2*time.Hour))
	if n := len(p.users); n != 1 {
		t.Errorf("%d users are remembered", n)
	}
}

func TestProducts(t *testing.T) {
	s := newShop(t, box.Options{}).connect()
	names := func() (all []string) {
		t.Helper()
		offers, err := s.g.Products(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range offers {
			all = append(all, o.Name+"="+strings.Join(o.Plans, ","))
		}
		return all
	}
	const want = "Pro=pro Trial=pro Max=max Free=basic Lifetime=lifetime"
	if got := strings.Join(names(), " "); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	s.box.SetTrouble(box.Trouble{HTML: true})
	if got := strings.Join(names(), " "); got != want {
		t.Errorf("the copy is gone: %s", got)
	}
	s.box.Advance(time.Hour)
	if got := strings.Join(names(), " "); got != want {
		t.Errorf("with Polar down: %s", got)
	}
}

func TestNotConfigured(t *testing.T) {
	s := newShop(t, box.Options{}, func(c *Config) { c.AccessToken = "" })
	for name, try := range map[string]func() error{
		"checkout": func() error {
			_, err := s.g.OpenCheckout(t.Context(), adaVisits(), s.purchase(s.pro.ID))
			return err
		},
		"portal":   func() error { _, err := s.g.OpenPortal(t.Context(), ada, ""); return err },
		"products": func() error { _, err := s.g.Products(t.Context()); return err },
		"change": func() error {
			_, _, err := s.g.ChangeSubscription(t.Context(), ada, Change{Cancel: new(true)})
			return err
		},
	} {
		if err := try(); !errors.Is(err, ErrNotConfigured) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if s.g.Arrive(t.Context(), Return{User: ada}, "0f4a2c0e-93b7-4f0e-8a51-6a2d0d5f9c11") != ArrivedNothing {
		t.Error("somebody arrived")
	}
}

// Polar's clock counts for periods, as its answers tell it.
func TestPolarsClock(t *testing.T) {
	local := mustTime("2026-11-02T09:00:00Z")
	s := newShop(t, box.Options{}, func(c *Config) { c.Now = func() time.Time { return local } })
	if !s.g.Now().Equal(local) {
		t.Error("before Polar was heard, the clock is ours")
	}
	ask := func() {
		t.Helper()
		if _, err := s.g.findCustomer(t.Context(), "nobody"); err == nil {
			t.Fatal("there is nobody")
		}
	}
	ask()
	if !s.g.Now().Equal(local) {
		t.Errorf("a clock that is right was moved by %s", s.g.Now().Sub(local))
	}
	s.box.Advance(40 * day)
	ask()
	if off := s.g.Now().Sub(local) - 40*day; off < -2*time.Second || off > 2*time.Second {
		t.Errorf("Polar's clock is off by %s", off)
	}
	if !s.g.Local().Equal(local) {
		t.Error("tokens go by another clock")
	}
	if s.logs.FilterMessageSnippet("clock is off").Len() != 1 {
		t.Error("nobody was told")
	}
}

func TestWatch(t *testing.T) {
	s := newShop(t, box.Options{}, func(c *Config) { c.Syncing.Off = true }).connect()
	if err := s.g.Start(); err != nil {
		t.Fatal(err)
	}
	news, stop := s.g.Watch(ada)
	others, stopOthers := s.g.Watch(grace)
	defer stopOthers()
	if _, err := s.box.Buy(ada, "ada@example.com", s.pro.ID); err != nil {
		t.Fatal(err)
	}
	s.box.Settle()
	select {
	case <-news:
		s.is(ada, "pro", true, entitlement.ReasonActive)
	default:
		t.Error("no news of a purchase")
	}
	select {
	case <-others:
		t.Error("news of somebody else")
	default:
	}
	stop()
	s.box.Advance(31 * day)
	select {
	case <-news:
		t.Error("news after the end")
	default:
	}
}

// Mallory's free subscription, under Ada's customer, is not upgraded with Ada's
// money; nor is anybody sold what Polar then refuses.
func TestForeignSubscriptionUnderTheCustomer(t *testing.T) {
	for _, product := range []string{"free", "pro"} {
		s := newShop(t, box.Options{})
		if _, err := s.box.CreateCustomer(box.Customer{Email: "ada@example.com", ExternalID: ada}); err != nil {
			t.Fatal(err)
		}
		id := s.free.ID
		if product == "pro" {
			id = s.max.ID
		}
		s.pays(s.opens(Visitor{User: "usr_mallory"}, id), "ada@example.com")
		if _, err := s.g.OpenCheckout(t.Context(), adaVisits(), s.purchase(s.pro.ID)); !errors.Is(err, ErrNotLinked) {
			t.Errorf("%s: %v", product, err)
		}
		s.opens(adaVisits(), s.lifetime.ID) // besides a subscription, Polar sells these
	}
}

func TestFreeAndCancelingIsNotUpgraded(t *testing.T) {
	s := newShop(t, box.Options{})
	s.pays(s.opens(adaVisits(), s.free.ID), "")
	customer, _ := s.box.CustomerByExternalID(ada)
	if _, err := s.box.Cancel(s.box.Subscriptions(customer.ID)[0].ID, "", ""); err != nil {
		t.Fatal(err)
	}
	s.blocked(adaVisits(), entitlement.ObstacleSubscribed, entitlement.StepPortal, s.pro.ID)
}

func TestOneTimeAmongOthersIsNoUpgrade(t *testing.T) {
	s := newShop(t, box.Options{})
	s.pays(s.opens(adaVisits(), s.free.ID), "")
	for _, products := range [][]string{{s.pro.ID, s.lifetime.ID}, {s.lifetime.ID, s.pro.ID}} {
		if c := s.opens(adaVisits(), products...); c.Upgrades != "" {
			t.Errorf("%v upgrades", products)
		}
	}
}

// The customer was deleted, or made again, and no webhook told.
func TestCustomerIsGone(t *testing.T) {
	for _, again := range []bool{false, true} {
		s := newShop(t, box.Options{})
		s.pays(s.opens(adaVisits(), s.pro.ID), "")
		if _, err := s.g.OpenPortal(t.Context(), ada, ""); err != nil {
			t.Fatal(err)
		}
		customer, _ := s.box.CustomerByExternalID(ada)
		if err := s.box.DeleteCustomer(customer.ID); err != nil {
			t.Fatal(err)
		}
		if again {
			if _, err := s.box.CreateCustomer(box.Customer{Email: "ada@example.com", ExternalID: ada}); err != nil {
				t.Fatal(err)
			}
			if _, err := s.g.OpenPortal(t.Context(), ada, ""); err != nil {
				t.Errorf("made again: %v", err)
			}
		}
		c := s.opens(adaVisits(), s.pro.ID)
		s.pays(c, "")
		s.arrives(c, ArrivedOpen)
		s.is(ada, "pro", true, entitlement.ReasonActive)
	}
}

// Control is not given over more purchases than can be looked at.
func TestForeignPurchaseAmongMany(t *testing.T) {
	s := newShop(t, box.Options{AllowMultiple: true})
	if _, err := s.box.CreateCustomer(box.Customer{Email: "ada@example.com", ExternalID: ada}); err != nil {
		t.Fatal(err)
	}
	s.pays(s.opens(Visitor{User: "usr_mallory"}, s.lifetime.ID), "ada@example.com")
	s.box.Advance(time.Hour)
	for range 100 {
		if _, err := s.box.Buy(ada, "ada@example.com", s.other.ID); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.g.OpenPortal(t.Context(), ada, ""); !errors.Is(err, ErrNotLinked) {
		t.Error(err)
	}
}

// A subscription of the user's under a customer that is not theirs is not
// changed through one that is.
func TestChangeUnderAnothersCustomer(t *testing.T) {
	s := newShop(t, box.Options{AllowMultiple: true}, func(c *Config) { c.Sales.Several = true })
	mallory := Visitor{User: "usr_mallory", Email: "mallory@example.com", EmailVerified: true}
	theirs, err := s.box.CreateCustomer(box.Customer{Email: "ada@example.com"})
	if err != nil {
		t.Fatal(err)
	}
	c := s.opens(Visitor{User: "usr_mallory"}, s.max.ID)
	s.pays(c, "ada@example.com")
	s.arrives(c, ArrivedOpen)
	s.pays(s.opens(mallory, s.pro.ID), "")
	foreign := s.box.Subscriptions(theirs.ID)[0]
	if _, _, err := s.g.ChangeSubscription(t.Context(), "usr_mallory", Change{Subscription: foreign.ID, Cancel: new(true)}); !errors.Is(err, ErrNotLinked) {
		t.Error(err)
	}
}

// Polar's replica is behind: the user is told what the change has made.
func TestChangeBehindTheReplica(t *testing.T) {
	s := newShop(t, box.Options{})
	s.pays(s.opens(adaVisits(), s.pro.ID), "")
	if _, err := s.g.OpenPortal(t.Context(), ada, ""); err != nil {
		t.Fatal(err)
	}
	s.box.Advance(time.Hour)
	s.box.SetTrouble(box.Trouble{Lag: time.Minute})
	a, id, err := s.g.ChangeSubscription(t.Context(), ada, Change{Cancel: new(true)})
	if err != nil {
		t.Fatal(err)
	}
	if sub, d, ok := a.CurrentByID(id, s.g.Rules(), s.g.Now()); !ok || !sub.CancelAtPeriodEnd || d.Reason != entitlement.ReasonCanceling {
		t.Errorf("%+v %s", sub, d.Reason)
	}
	s.is(ada, "pro", true, entitlement.ReasonActive) // no whole fact: not kept
	s.box.SetTrouble(box.Trouble{})
	if _, _, err := s.g.ChangeSubscription(t.Context(), ada, Change{Cancel: new(false)}); err != nil {
		t.Fatal(err)
	}
}

func TestSameEmail(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want bool
	}{
		{"ada@example.com", "Ada@Example.COM", true},
		{"kim@example.com", "\u212aim@example.com", false}, // the Kelvin sign
		{"stra\u00dfe@example.com", "stra\u00dfe@example.com", true},
		{"stra\u00dfe@example.com", "STRASSE@example.com", false},
		{"ada@example.com", "ada@example.org", false},
	} {
		if got := sameEmail(tt.a, tt.b); got != tt.want {
			t.Errorf("%q and %q: %v", tt.a, tt.b, got)
		}
	}
}

// The webhook of a product ends the copy of the catalog.
func TestCatalogChanges(t *testing.T) {
	s := newShop(t, box.Options{}).connect()
	before, err := s.g.Products(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	name := "Pro, renamed"
	if _, err := s.box.UpdateProduct(s.pro.ID, box.ProductUpdate{Name: &name}); err != nil {
		t.Fatal(err)
	}
	s.box.Settle()
	after, err := s.g.Products(t.Context())
	if err != nil || before[0].Name != "Pro" || after[0].Name != name {
		t.Errorf("%s, then %s: %v", before[0].Name, after[0].Name, err)
	}
}

// An upgrade that Polar does not take is an obstacle, and no mistake in the
// request.
func TestRefusedUpgrade(t *testing.T) {
	s := newShop(t, box.Options{})
	paid, err := s.box.Buy(ada, "ada@example.com", s.pro.ID)
	if err != nil {
		t.Fatal(err)
	}
	body := polar.CheckoutCreate{Products: []string{s.max.ID}, SubscriptionID: paid.SubscriptionID}
	_, err = s.g.client.CreateCheckout(t.Context(), body)
	var obstacle *ObstacleError
	if got := refusedUpgrade(err, &body); !errors.As(got, &obstacle) || obstacle.Obstacle != entitlement.ObstacleSubscribed {
		t.Errorf("%v", got)
	}
	body = polar.CheckoutCreate{Products: []string{"0f4a2c0e-93b7-4f0e-8a51-6a2d0d5f9c11"}}
	_, err = s.g.client.CreateCheckout(t.Context(), body)
	if got := refusedUpgrade(err, &body); !errors.Is(got, polar.ErrInvalid) {
		t.Errorf("%v", got)
	}
}

func TestWayBack(t *testing.T) {
	s := newShop(t, box.Options{})
	p := s.purchase(s.pro.ID)
	p.Back = "https://app.example.com/pricing"
	c, err := s.g.OpenCheckout(t.Context(), adaVisits(), p)
	if err != nil {
		t.Fatal(err)
	}
	if held, _ := s.box.Checkout(c.ID); held.ReturnURL != p.Back {
		t.Errorf("back to %q", held.ReturnURL)
	}
}

// What was bought under another's customer, in an earlier checkout of which
// nobody has told, is not sold again.
func TestNotSoldTwice(t *testing.T) {
	s := newShop(t, box.Options{})
	if _, err := s.box.CreateCustomer(box.Customer{Email: "ada@example.com", ExternalID: ada}); err != nil {
		t.Fatal(err)
	}
	v := Visitor{User: "usr_mallory"}
	s.pays(s.opens(v, s.lifetime.ID), "ada@example.com")
	s.blocked(v, entitlement.ObstacleSubscribed, entitlement.StepPortal, s.lifetime.ID)
}

// A token with the least that the gateway needs sells, opens and manages.
func TestLeastScopes(t *testing.T) {
	s := newShop(t, box.Options{}, func(c *Config) { c.AccessToken = "" })
	s.config.AccessToken = s.box.NewToken("checkouts:write", "subscriptions:read", "customers:read", "customer_sessions:write", "products:read")
	g, err := New(s.config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
	s.g = g
	c := s.opens(adaVisits(), s.pro.ID)
	if c.CustomerID != "" || c.ExternalCustomerID != ada {
		t.Errorf("sold to %q, %q", c.CustomerID, c.ExternalCustomerID)
	}
	s.pays(c, "ada@example.com")
	s.arrives(c, ArrivedOpen)
	s.is(ada, "pro", true, entitlement.ReasonActive)
	s.blocked(adaVisits(), entitlement.ObstacleSubscribed, entitlement.StepPortal, s.pro.ID)
	if _, err := g.OpenPortal(t.Context(), ada, ""); err != nil {
		t.Error(err)
	}
	if _, _, err := g.ChangeSubscription(t.Context(), ada, Change{Cancel: new(true)}); err != nil {
		t.Error(err)
	}
	if s.logs.FilterMessageSnippet("lacks a scope").Len() == 0 {
		t.Error("nobody was told of the scopes that are missing")
	}
}

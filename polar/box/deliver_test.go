package box

import (
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-polar/caddy-polar/polar"
)

// receiver is a webhook endpoint that verifies as the gateway does.
type receiver struct {
	*httptest.Server
	mu     sync.Mutex
	status int
	got    []hook
}

type hook struct {
	id, kind, body string
	at             time.Time
	stamped        string
}

func (s *shop) receive(e Endpoint) (*receiver, Endpoint) {
	s.t.Helper()
	r := &receiver{status: 200}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body)
		s.contract.Webhook(body)
		now, _ := s.Endpoint(e.ID)
		v, err := polar.NewWebhookVerifier(now.Secret)
		if err != nil {
			s.t.Error(err)
			return
		}
		d, err := polar.ReadDelivery(req.Header, s.Now())
		if err == nil {
			err = v.Verify(d, body)
		}
		if err != nil {
			s.t.Error(err)
		}
		event, _ := polar.DecodeEvent(body)
		r.mu.Lock()
		defer r.mu.Unlock()
		r.got = append(r.got, hook{d.ID, event.Type, string(body), s.Now(), d.APIVersion})
		w.WriteHeader(r.status)
		io.WriteString(w, "thanks")
	}))
	s.t.Cleanup(r.Close)
	e.URL = r.URL
	e = s.AddEndpoint(e)
	return r, e
}

func (r *receiver) answer(status int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status = status
}

func (r *receiver) take() []hook {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := r.got
	r.got = nil
	return out
}

func kinds(hooks []hook) []string {
	var out []string
	for _, h := range hooks {
		out = append(out, h.kind)
	}
	return out
}

func TestEverySecretKindVerifies(t *testing.T) {
	for kind, secret := range []string{"", "", "", "whsec_Hx4dHBsaGRgXFhUUExIREA8ODQwLCgkIBwYFBAMCAQA=", ""} {
		s := newShop(t, Options{})
		r, e := s.receive(Endpoint{Kind: SecretKind(kind), Secret: secret})
		s.buy(s.pro)
		if len(r.take()) < 10 {
			t.Error("kind", kind, "too few")
		}
		if SecretKind(kind) == SecretListen && !polar.IsListenSecret(e.Secret) {
			t.Error(e.Secret)
		}
		if raw, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(e.Secret, "whsec_")); SecretKind(kind) == SecretStandard && (err != nil || len(raw) != 32) {
			t.Error(e.Secret)
		}
	}
}

func TestDeliveryKeepsOrderAndFilters(t *testing.T) {
	s := newShop(t, Options{})
	all, _ := s.receive(Endpoint{})
	few, e := s.receive(Endpoint{Events: []string{"order.paid"}, APIVersion: "2027-01"})
	s.buy(s.pro)
	var want []string
	for _, e := range s.news() {
		want = append(want, e.Type)
	}
	if got := kinds(all.take()); !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
	got := few.take()
	if len(got) != 1 || got[0].kind != "order.paid" || got[0].stamped != "2027-01" || !strings.Contains(got[0].body, `"api_version":"2027-01"`) {
		t.Error(e.ID, kinds(got))
	}
}

func TestBackoffThenAutoDisable(t *testing.T) {
	s := newShop(t, Options{})
	r, e := s.receive(Endpoint{Events: []string{"customer.created"}})
	r.answer(503)
	create := func(email string) {
		t.Helper()
		must[Customer](t)(s.CreateCustomer(Customer{Email: email}))
		s.Advance(40 * time.Minute)
	}
	create("a@example.org")
	hooks := r.take()
	if len(hooks) != 10 {
		t.Fatal(len(hooks), "attempts")
	}
	for i := 1; i < len(hooks); i++ {
		full := 2 * time.Second << i
		wait := hooks[i].at.Sub(hooks[i-1].at)
		if wait < full/2 || wait > full+10*time.Millisecond {
			t.Errorf("wait %d is %s, want %s to %s", i, wait, full/2, full)
		}
		if hooks[i].id != hooks[0].id || hooks[i].body != hooks[0].body {
			t.Error("a retry must repeat the id and the body")
		}
	}
	for i := range 8 {
		create(string(rune('b'+i)) + "@example.org")
	}
	if now, _ := s.Endpoint(e.ID); !now.Enabled {
		t.Fatal("disabled after nine")
	}
	create("z@example.org")
	if now, _ := s.Endpoint(e.ID); now.Enabled {
		t.Fatal("still enabled after ten")
	}
	r.take()
	r.answer(200)
	create("lost@example.org")
	yes := true
	if _, err := s.UpdateEndpoint(e.ID, EndpointUpdate{Enabled: &yes}); err != nil {
		t.Fatal(err)
	}
	s.Advance(time.Hour)
	if got := r.take(); len(got) != 0 {
		t.Error("replayed", kinds(got))
	}
	create("new@example.org")
	if got := r.take(); len(got) != 1 {
		t.Error(kinds(got))
	}
}

func TestPendingEventsAreSkippedOnDisable(t *testing.T) {
	s := newShop(t, Options{})
	r, e := s.receive(Endpoint{Events: []string{"customer.created"}})
	r.answer(500)
	for i := range 12 {
		must[Customer](t)(s.CreateCustomer(Customer{Email: string(rune('a'+i)) + "@example.org"}))
	}
	s.Advance(time.Hour)
	skipped := 0
	for _, x := range s.delivery.events {
		if x.skipped {
			skipped++
		}
	}
	if now, _ := s.Endpoint(e.ID); now.Enabled || skipped == 0 || skipped > 2 {
		t.Error(now.Enabled, skipped)
	}
}

func TestFailedEventIsOvertaken(t *testing.T) {
	s := newShop(t, Options{})
	r, _ := s.receive(Endpoint{Events: []string{"customer.created"}})
	r.answer(500)
	must[Customer](t)(s.CreateCustomer(Customer{Email: "a@example.org"}))
	s.Settle()
	first := r.take()
	r.answer(200)
	must[Customer](t)(s.CreateCustomer(Customer{Email: "b@example.org"}))
	s.Settle()
	if got := r.take(); len(got) != 1 || got[0].id == first[0].id {
		t.Fatal("the younger event must not wait for the success of the older")
	}
	s.Advance(time.Minute)
	if got := r.take(); len(got) != 1 || got[0].id != first[0].id {
		t.Error("no retry")
	}
}

func TestRedelivery(t *testing.T) {
	s := newShop(t, Options{})
	r, e := s.receive(Endpoint{Events: []string{"subscription.active"}})
	sub, _ := s.buy(s.pro)
	first := r.take()[0]
	s.Cancel(sub.ID, "", "")
	s.Advance(10 * day)
	if err := s.Redeliver(first.id); err != nil {
		t.Fatal(err)
	}
	s.Settle()
	got := r.take()
	if len(got) != 1 || got[0].id != first.id || got[0].body != first.body {
		t.Fatal(kinds(got))
	}
	if _, err := s.ResetSecret(e.ID); err != nil {
		t.Fatal(err)
	}
	s.Redeliver(first.id)
	s.Settle()
	if len(r.take()) != 1 {
		t.Error("the new secret must sign old events")
	}
	no := false
	s.UpdateEndpoint(e.ID, EndpointUpdate{Enabled: &no})
	s.Redeliver(first.id)
	s.Settle()
	if len(r.take()) != 0 {
		t.Error("sent to a disabled endpoint")
	}
	refusal(t, s.Redeliver("nonsense"), 404, "ResourceNotFound")
}

func TestNetworkFaults(t *testing.T) {
	s := newShop(t, Options{Seed: 3})
	r, _ := s.receive(Endpoint{Events: []string{"customer.created"}})
	send := func() []hook {
		for i := range 8 {
			s.CreateCustomer(Customer{Email: string(rune('a'+i)) + s.newToken("") + "@example.org"})
		}
		s.Settle()
		return r.take()
	}
	s.SetNetwork(Network{Lose: true})
	if n := len(send()); n != 0 {
		t.Error("lost, but", n, "arrived")
	}
	s.SetNetwork(Network{Double: true})
	if n := len(send()); n != 16 {
		t.Error(n, "instead of 16")
	}
	ordered := func(hooks []hook) bool {
		return slices.IsSortedFunc(hooks, func(a, b hook) int { return strings.Compare(stampOf(a.body), stampOf(b.body)) })
	}
	s.SetNetwork(Network{})
	if got := send(); len(got) != 8 || !ordered(got) {
		t.Error("out of order without a fault")
	}
	s.SetNetwork(Network{Shuffle: true})
	if got := send(); len(got) != 8 || ordered(got) {
		t.Error("not shuffled", len(got))
	}
	s.SetNetwork(Network{Delay: time.Hour})
	s.CreateCustomer(Customer{Email: "late@example.org"})
	s.Advance(59 * time.Minute)
	if len(r.take()) != 0 {
		t.Error("not delayed")
	}
	s.Settle()
	if len(r.take()) != 1 {
		t.Error("never came")
	}
	s.SetNetwork(Network{Refuse: true})
	s.CreateCustomer(Customer{Email: "refused@example.org"})
	s.Settle()
	s.SetNetwork(Network{})
	s.Advance(time.Minute)
	if len(r.take()) != 1 {
		t.Error("not retried")
	}
}

func stampOf(body string) string {
	var e struct{ Timestamp string }
	json.Unmarshal([]byte(body), &e)
	return e.Timestamp
}

func TestTransactionsThatCommitLate(t *testing.T) {
	s := newShop(t, Options{})
	r, _ := s.receive(Endpoint{Events: []string{"subscription.updated", "subscription.canceled", "customer.created"}})
	sub, _ := s.buy(s.pro)
	r.take()
	s.CommitLate(30 * time.Second)
	s.Cancel(sub.ID, "", "")
	s.CommitLate(0)
	before, _ := s.subs.seen(sub.ID, s.Now())
	if before.CancelAtPeriodEnd {
		t.Error("visible at once")
	}
	s.Advance(time.Second)
	s.CreateCustomer(Customer{Email: "young@example.org"})
	s.Advance(5 * time.Second)
	if got := kinds(r.take()); !slices.Equal(got, []string{"customer.created"}) {
		t.Error("a younger event must overtake what is not committed:", got)
	}
	s.Advance(30 * time.Second)
	if got := kinds(r.take()); !slices.Equal(got, []string{"subscription.updated", "subscription.canceled"}) {
		t.Error(got)
	}
	if after, _ := s.subs.seen(sub.ID, s.Now()); !after.CancelAtPeriodEnd {
		t.Error("never visible")
	}
}

func TestReceiverMayReadTheBox(t *testing.T) {
	s := newShop(t, Options{})
	called := 0
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		s.Customers()
		s.CreateCustomer(Customer{Email: "from@webhook.example"})
		called++
	}))
	defer srv.Close()
	s.AddEndpoint(Endpoint{URL: srv.URL, Events: []string{"subscription.active"}})
	s.buy(s.pro)
	if called != 1 {
		t.Error(called)
	}
}

func TestConcurrentUse(t *testing.T) {
	s := newShop(t, Options{})
	r, _ := s.receive(Endpoint{})
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			id := string(rune('a' + i))
			c, err := s.Buy(id, id+"@example.org", s.pro.ID)
			if err != nil {
				t.Error(err)
				return
			}
			s.Settle()
			s.Cancel(c.SubscriptionID, "", "")
			s.Advance(day)
			s.Uncancel(c.SubscriptionID)
			s.Events()
		})
	}
	wg.Wait()
	s.Advance(40 * day)
	s.Settle()
	if got := len(r.take()); got != len(s.Events())-s.seen {
		t.Error(got, "of", len(s.Events())-s.seen, "arrived")
	}
}

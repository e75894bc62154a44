package box

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

// submit posts a form as a browser does, and does not follow redirects.
func submit(t *testing.T, address string, form url.Values) (*http.Response, string) {
	t.Helper()
	c := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	var res *http.Response
	var err error
	if form == nil {
		res, err = c.Get(address)
	} else {
		res, err = c.PostForm(address, form)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, _ := io.ReadAll(res.Body)
	return res, string(body)
}

func (s *shop) checkout(p Product, email string) Checkout {
	s.t.Helper()
	return must[Checkout](s.t)(s.CreateCheckout(Checkout{
		ProductIDs: []string{p.ID}, CustomerEmail: email, ExternalCustomerID: "usr_1", AllowTrial: true,
		SuccessURL: "https://app.example/ok?checkout_id={CHECKOUT_ID}#done", ReturnURL: "https://app.example/pricing",
	}))
}

func TestHostedCheckout(t *testing.T) {
	s := newShop(t, Options{})
	s.client()
	r, _ := s.receive(Endpoint{Events: []string{"checkout.updated", "subscription.created"}})
	c := s.checkout(s.trial, "")
	res, page := submit(t, c.URL, nil)
	for _, want := range []string{"Start trial", "19.00 USD", `type="email"`, "https://app.example/pricing"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if res.Header.Get("Referrer-Policy") != "no-referrer" {
		t.Error(res.Header)
	}
	res, page = submit(t, c.URL, url.Values{"card": {"declined"}, "email": {"ada@example.org"}})
	if res.StatusCode != 402 || !strings.Contains(page, "payment failed") {
		t.Fatal(res.StatusCode, page)
	}
	res, _ = submit(t, c.URL, url.Values{"card": {"ok"}, "email": {"ada@example.org"}})
	to := res.Header.Get("Location")
	if res.StatusCode != 303 || !strings.HasPrefix(to, "https://app.example/ok?checkout_id="+c.ID+"&customer_session_token=polar_cst_") || !strings.HasSuffix(to, "#done") {
		t.Fatal(res.StatusCode, to)
	}
	got := kinds(r.take())
	if len(got) != 5 || got[3] != "subscription.created" || got[4] != "checkout.updated" {
		t.Error("redirected before the delivery:", got)
	}
	if res, page = submit(t, c.URL, nil); res.StatusCode != 200 || !strings.Contains(page, "confirmed") {
		t.Error(res.StatusCode)
	}
}

func TestHostedCheckoutDoesNotWaitForever(t *testing.T) {
	s := newShop(t, Options{})
	s.client()
	r, _ := s.receive(Endpoint{Events: []string{"checkout.updated"}})
	r.answer(500)
	c := s.checkout(s.pro, "ada@example.org")
	before := s.Now()
	res, _ := submit(t, c.URL, url.Values{"card": {"ok"}})
	if to := res.Header.Get("Location"); to != "/checkout/"+c.ClientSecret+"/confirmation" {
		t.Error(to)
	}
	if waited := s.Now().Sub(before); waited < confirmWait || waited > 2*confirmWait {
		t.Error(waited)
	}
}

func TestHostedCheckoutRefusesASecondSubscription(t *testing.T) {
	s := newShop(t, Options{})
	s.client()
	s.buy(s.pro)
	c := s.checkout(s.maxi, "ada@example.org")
	res, page := submit(t, c.URL, url.Values{"card": {"ok"}})
	if res.StatusCode != 403 || !strings.Contains(page, "already have an active subscription") {
		t.Error(res.StatusCode, page)
	}
	s.Advance(25 * checkoutTTL / 24)
	if res, _ := submit(t, c.URL, nil); res.StatusCode != 410 {
		t.Error("expired:", res.StatusCode)
	}
	if res, _ := submit(t, c.URL+"x", nil); res.StatusCode != 404 {
		t.Error("unknown:", res.StatusCode)
	}
}

func TestHostedCheckoutEscapes(t *testing.T) {
	s := newShop(t, Options{})
	s.client()
	evil := s.AddProduct(Product{Name: `<script>alert(1)</script>`, Price: Price{Amount: 100}})
	_, page := submit(t, s.checkout(evil, `"><b>@example.org`).URL, nil)
	if strings.Contains(page, "<script>") || strings.Contains(page, "<b>") {
		t.Error(page)
	}
}

func TestPortalPage(t *testing.T) {
	s := newShop(t, Options{})
	c := s.client()
	sub, customer := s.buy(s.pro)
	other := must[Checkout](t)(s.Buy("usr_2", "grace@example.org", s.pro.ID))
	address := c.do(201, "POST", "/v1/customer-sessions/", `{"customer_id":"`+customer.ID+`","return_url":"https://app.example/account"}`)["customer_portal_url"].(string)
	_, page := submit(t, address, nil)
	for _, want := range []string{"Pro", "active", "Cancel", "https://app.example/account", "ada@example.org"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	act := func(id, action, product string) int {
		t.Helper()
		res, _ := submit(t, address, url.Values{"subscription": {id}, "action": {action}, "product": {product}})
		return res.StatusCode
	}
	if act(sub.ID, "cancel", "") != 303 || !s.sub(sub.ID).CancelAtPeriodEnd {
		t.Error("not cancelled")
	}
	if act(sub.ID, "cancel", "") != 403 {
		t.Error("cancelled twice")
	}
	if act(sub.ID, "uncancel", "") != 303 || s.sub(sub.ID).CancelAtPeriodEnd {
		t.Error("not taken back")
	}
	if act(sub.ID, "change", s.maxi.ID) != 303 || s.sub(sub.ID).ProductID != s.maxi.ID {
		t.Error("not changed")
	}
	if act("", "bad_card", "") != 303 {
		t.Error("card")
	}
	if got, _ := s.Customer(customer.ID); !got.declines {
		t.Error("the card still pays")
	}
	if act(other.SubscriptionID, "cancel", "") != 404 || s.sub(other.SubscriptionID).CancelAtPeriodEnd {
		t.Error("cancelled what is another's")
	}
	if act(sub.ID, "nonsense", "") != 404 {
		t.Error("nonsense")
	}
	s.Advance(2 * sessionTTL)
	if res, _ := submit(t, address, nil); res.StatusCode != 401 {
		t.Error(res.StatusCode)
	}
}

func TestRealtimeBoxRunsByItself(t *testing.T) {
	s := newShop(t, Options{Realtime: true})
	s.client()
	arrived := make(chan string, 16)
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { arrived <- r.Header.Get("Webhook-Id") }))
	defer srv.Close()
	s.AddEndpoint(Endpoint{URL: srv.URL, Events: []string{"checkout.updated"}})
	ctx := t.Context()
	go s.Run(ctx)
	c := s.checkout(s.pro, "ada@example.org")
	res, _ := submit(t, c.URL, url.Values{"card": {"ok"}})
	if !strings.HasPrefix(res.Header.Get("Location"), "https://app.example/ok") {
		t.Error(res.StatusCode, res.Header.Get("Location"))
	}
	<-arrived
	<-arrived
}

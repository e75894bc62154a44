package box

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"
)

// direct asks the box without a network in between, and checks the answer.
func (s *shop) direct(r *http.Request) *httptest.ResponseRecorder {
	rec := httptest.NewRecorder()
	s.contract.Handler(s).ServeHTTP(rec, r)
	return rec
}

// A version that is gone is gone on every path, whoever asks for what.
func TestUnknownVersionIsNotFoundEverywhere(t *testing.T) {
	s := newShop(t, Options{})
	token := s.NewToken()
	for _, version := range []string{"2025-10", "2026-07", "latest", "2026-10 ", "v1"} {
		for _, r := range routes {
			for _, auth := range []string{"", "Bearer " + token, "Bearer nonsense"} {
				req := httptest.NewRequest(r.method, strings.Join(r.pattern, "/"), strings.NewReader("nonsense"))
				req.Header.Set("Polar-Version", version)
				req.Header.Set("Authorization", auth)
				rec := s.direct(req)
				if rec.Code != 404 || strings.TrimSpace(rec.Body.String()) != `{"detail":"Not Found"}` || rec.Header().Get("Polar-Version") != "" {
					t.Fatalf("%s %v: %d %s", version, r.pattern, rec.Code, rec.Body)
				}
			}
		}
	}
	for _, version := range []string{"2026-04", "2026-10", "2027-01"} {
		req := httptest.NewRequest("GET", "/v1/products/", nil)
		req.Header.Set("Polar-Version", version)
		req.Header.Set("Authorization", "Bearer "+token)
		if rec := s.direct(req); rec.Code != 200 || rec.Header().Get("Polar-Version") != version {
			t.Error(version, rec.Code, rec.Header())
		}
	}
}

// All answers are dated by the box's clock, also those that fail.
func TestDatesAreTheBoxs(t *testing.T) {
	s := newShop(t, Options{RateLimits: true})
	s.Advance(400 * day)
	date := func(req *http.Request) string { return s.direct(req).Header().Get("Date") }
	wrong := httptest.NewRequest("GET", "/v1/products/", nil)
	wrong.Header.Set("Polar-Version", "2025-10")
	requests := []*http.Request{
		wrong, httptest.NewRequest("GET", "/v1/products/", nil), httptest.NewRequest("GET", "/v1/nothing", nil),
		httptest.NewRequest("GET", "/v1/products", nil), httptest.NewRequest("GET", "/nothing", nil),
	}
	for _, trouble := range []Trouble{{}, {HTML: true}, {Limit: 3}} {
		s.SetTrouble(trouble)
		for _, r := range requests {
			if got, want := date(r), s.Now().Format(http.TimeFormat); got != want {
				t.Errorf("%s %+v: %q, want %q", r.URL, trouble, got, want)
			}
		}
	}
}

func TestLengthsOfBodies(t *testing.T) {
	s := newShop(t, Options{})
	auth := "Bearer " + s.NewToken()
	for _, method := range []string{"POST", "PATCH", "PUT"} {
		for length, want := range map[int64]int{-1: 411, maxBody + 1: 413, maxBody: 0} {
			req := httptest.NewRequest(method, "/v1/customers/", bytes.NewReader(nil))
			req.ContentLength = length
			req.Header.Set("Authorization", auth)
			if got := s.direct(req).Code; got != want && (want > 0 || got == 411 || got == 413) {
				t.Errorf("%s with %d bytes: %d, want %d", method, length, got, want)
			}
		}
	}
	for _, method := range []string{"GET", "DELETE"} {
		req := httptest.NewRequest(method, "/v1/customers/", nil)
		req.ContentLength = -1
		if got := s.direct(req).Code; got == 411 {
			t.Error(method, "wants a length")
		}
	}
	// Over the wire, a reader of unknown length is sent in chunks.
	c := s.client()
	res, body := c.raw("PATCH", "/v1/customers/"+s.org.ID, struct{ *strings.Reader }{strings.NewReader(`{}`)})
	if res.StatusCode != 411 || !strings.Contains(string(body), `"error":"LengthRequired"`) {
		t.Error(res.StatusCode, string(body))
	}
}

// passes counts how many calls pass until one is refused, and when to go on.
func (s *shop) passes(token string) (n int, retry time.Duration) {
	s.t.Helper()
	for ; n < 2*limitDefault; n++ {
		req := httptest.NewRequest("GET", "/v1/products/?limit=1", nil)
		req.Header.Set("Authorization", "Bearer "+token)
		rec := s.direct(req)
		if rec.Code != 429 {
			continue
		}
		seconds, err := strconv.Atoi(rec.Header().Get("Retry-After"))
		if rec.Body.Len() > 0 || err != nil || seconds < 1 || seconds > 60 {
			s.t.Fatal(rec.Body, rec.Header())
		}
		return n, time.Duration(seconds) * time.Second
	}
	s.t.Fatal("there is no limit")
	return n, 0
}

func TestRateLimitsInDetail(t *testing.T) {
	s := newShop(t, Options{RateLimits: true})
	want := func(what, token string, want int) (retry time.Duration) {
		t.Helper()
		n, retry := s.passes(token)
		if n != want {
			t.Errorf("%s: %d pass, want %d", what, n, want)
		}
		return retry
	}
	token, other := s.NewToken(), s.NewToken()
	want("a new token", token, 60)
	want("another new token", other, 60)
	s.Advance(time.Minute)
	retry := want("a token seen lately", token, 500)
	want("another token of the same organization", other, 0)
	s.Advance(retry - time.Second)
	want("before Retry-After is over", token, 0)
	s.Advance(time.Second)
	want("after it", token, 500)
	s.Advance(299 * time.Second)
	want("a token idle for less than five minutes", token, 500)
	s.Advance(300 * time.Second)
	want("a token idle for five minutes", token, 60)
	want("a token that nobody made", "polar_oat_nonsense", 60)
	s.Advance(time.Minute)
	want("a token that nobody made, later", "polar_oat_nonsense", 60)
	must[Customer](t)(s.CreateCustomer(Customer{Email: "ada@example.org", ExternalID: "usr_1"}))
	c, _ := s.CustomerByExternalID("usr_1")
	want("a customer's session", s.ownerToken(c.ID), 60)
}

// Polar's refusals have the names of its classes.
func TestNamesOfRefusals(t *testing.T) {
	s := newShop(t, Options{})
	c := s.client()
	sub, customer := s.buy(s.pro)
	paused := s.sub(must[Checkout](t)(s.Buy("usr_2", "grace@example.org", s.pro.ID)).SubscriptionID)
	must[Subscription](t)(s.Pause(paused.ID, nil))
	s.AdvanceTo(paused.CurrentPeriodEnd.Add(time.Minute))
	s.Settle()
	order := s.Orders(customer.ID)[0].ID
	path, gone := "/v1/subscriptions/"+sub.ID, "/v1/subscriptions/"+paused.ID
	s.SetCard(customer.ID, false)
	for _, x := range []struct {
		status                   int
		code, method, path, body string
	}{
		{402, "PaymentFailed", "PATCH", path, `{"product_id":"` + s.maxi.ID + `","proration_behavior":"invoice"}`},
		{404, "ResourceNotFound", "PATCH", "/v1/subscriptions/" + s.org.ID, `{"resume":true}`},
		{409, "NotPausedSubscription", "PATCH", path, `{"resume":true}`},
		{409, "NoScheduledPause", "PATCH", path, `{"pause_at_period_end":false}`},
		{409, "CannotPauseSubscription", "PATCH", gone, `{"pause_at_period_end":true}`},
		{403, "InactiveSubscription", "PATCH", gone, `{"current_billing_period_end":"2027-06-01T00:00:00Z"}`},
		{400, "BadRequest", "PATCH", path, `{"cancel_at_period_end":false}`},
		{400, "RevokeSubscriptionBenefitsProhibited", "POST", "/v1/refunds/", `{"order_id":"` + order + `","reason":"other","amount":1,"revoke_benefits":true}`},
		{400, "RefundAmountTooHigh", "POST", "/v1/refunds/", `{"order_id":"` + order + `","reason":"other","amount":1900000}`},
		{201, "", "POST", "/v1/refunds/", `{"order_id":"` + order + `","reason":"other","amount":1900}`},
		{403, "RefundedAlready", "POST", "/v1/refunds/", `{"order_id":"` + order + `","reason":"other","amount":1}`},
		{422, "RequestValidationError", "PATCH", path, `{"cancel_at_period_end":null}`},
		{422, "PolarRequestValidationError", "PATCH", path, `{"product_id":"` + s.org.ID + `"}`},
		{422, "RequestValidationError", "PATCH", path, `nonsense`},
		{200, "", "DELETE", path, ""},
		{403, "AlreadyCanceledSubscription", "DELETE", path, ""},
		{403, "AlreadyCanceledSubscription", "PATCH", path, `{"current_billing_period_end":"2027-06-01T00:00:00Z"}`},
		{410, "ResourceUnavailable", "PATCH", path, `{"cancel_at_period_end":false}`},
	} {
		got := c.do(x.status, x.method, x.path, x.body)
		if code, _ := got["error"].(string); code != x.code {
			t.Errorf("%s %s: %v, want %s", x.method, x.body, got, x.code)
		}
	}
}

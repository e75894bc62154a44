package polar_test

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddy-polar/caddy-polar/polar"
)

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// FuzzAnswer: whatever answers in Polar's place, there is either an object with an id or
// an error of ours, which tells nothing that was sent or came, and nobody waits long.
func FuzzAnswer(f *testing.F) {
	for _, name := range payloads(f) {
		f.Add(200, "application/json", "", "Fri, 20 Nov 2026 12:00:00 GMT", mustFile(f, name))
	}
	for _, body := range []string{
		`{}`, `null`, `[]`, `{"items":null}`, `{"id":"1","items":[],"pagination":{"max_page":-1}}`, `{"error":"X","detail":[{"loc":["body",1,{}],"msg":"CANARY"}]}`,
		`{"error":"CANARY x","detail":"CANARY"}`, "<html>CANARY", `{"id":` + strings.Repeat("[", 20000),
	} {
		for _, status := range []int{200, 204, 302, 401, 404, 409, 422, 429, 503} {
			f.Add(status, "application/json; charset=utf-8", "99999999999", "Sat, 31 Dec 9999 23:59:59 GMT", []byte(body))
		}
	}
	f.Add(429, "text/html", "Sat, 31 Dec 9999 23:59:59 GMT", "x", []byte(nil))
	f.Add(200, "", "-1", "", []byte("CANARY"))
	f.Fuzz(func(t *testing.T, status int, contentType, retryAfter, date string, body []byte) {
		if status < 200 || status > 599 { // the transport takes no other
			return
		}
		clock, requests := newClock(), 0
		c := newClient(t, polar.ClientConfig{
			Now: clock.now, Sleep: clock.sleep,
			Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
				requests++
				return &http.Response{
					StatusCode: status, Request: r, Body: io.NopCloser(bytes.NewReader(body)),
					Header: http.Header{"Content-Type": {contentType}, "Retry-After": {retryAfter}, "Date": {date}},
				}, nil
			}),
		})
		customer, errs := new(polar.Answer[polar.CustomerProfile]), make([]error, 4)
		*customer, errs[0] = c.GetCustomer(t.Context(), anID)
		_, errs[1] = c.ListSubscriptions(t.Context(), polar.SubscriptionFilter{}, polar.Paging{})
		_, errs[2] = c.CreateCheckout(t.Context(), polar.CheckoutCreate{})
		_, errs[3] = c.GetMetrics(t.Context(), polar.MetricsQuery{})
		if errs[0] == nil && (status/100 != 2 || customer.Item.ID == "") {
			t.Fatalf("%d %q is a customer: %+v", status, body, customer.Item)
		}
		for _, err := range errs {
			if err == nil {
				continue
			}
			e := new(polar.APIError)
			if !errors.As(err, &e) || e.RetryAfter < 0 || strings.Contains(err.Error(), canary) || strings.Contains(err.Error(), anID) {
				t.Fatalf("%d %q: %v", status, body, err)
			}
			// Of what came, names of Polar's alone: a class and fields, none of them long.
			if len(err.Error()) > 4000 {
				t.Fatalf("%d bytes: %v", len(err.Error()), err)
			}
		}
		if requests > 16 {
			t.Fatalf("asked %d times", requests)
		}
		for _, wait := range clock.waits() {
			if wait < 0 || wait > time.Hour {
				t.Fatalf("%d, Retry-After %q: waited %s", status, retryAfter, wait)
			}
		}
	})
}

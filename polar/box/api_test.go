package box

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
)

type client struct {
	t     *testing.T
	url   string
	token string
	head  http.Header
}

func (s *shop) client(scopes ...string) *client {
	s.t.Helper()
	srv := httptest.NewServer(s.contract.Handler(s))
	s.t.Cleanup(srv.Close)
	s.SetBaseURL(srv.URL)
	return &client{t: s.t, url: srv.URL, token: s.NewToken(scopes...), head: http.Header{}}
}

func (c *client) raw(method, path string, body io.Reader) (*http.Response, []byte) {
	c.t.Helper()
	req, err := http.NewRequest(method, c.url+path, body)
	if err != nil {
		c.t.Fatal(err)
	}
	for k, v := range c.head {
		req.Header[k] = v
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	res, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		c.t.Fatal(err)
	}
	defer res.Body.Close()
	got, _ := io.ReadAll(res.Body)
	return res, got
}

// do makes a call, wants a status, and returns the JSON body.
func (c *client) do(status int, method, path, body string) map[string]any {
	c.t.Helper()
	var r io.Reader
	if body != "" {
		r = strings.NewReader(body)
	}
	res, got := c.raw(method, path, r)
	if res.StatusCode != status {
		c.t.Fatalf("%s %s: %d, want %d: %s", method, path, res.StatusCode, status, got)
	}
	var m map[string]any
	if len(got) > 0 && json.Unmarshal(got, &m) != nil {
		c.t.Fatalf("%s %s: %s", method, path, got)
	}
	return m
}

func (c *client) get(path string) map[string]any { c.t.Helper(); return c.do(200, "GET", path, "") }

func (c *client) refused(status int, code, method, path, body string) {
	c.t.Helper()
	if got := c.do(status, method, path, body); got["error"] != code {
		c.t.Errorf("%s %s: %v, want %s", method, path, got, code)
	}
}

func total(list map[string]any) int {
	return int(list["pagination"].(map[string]any)["total_count"].(float64))
}

func TestVersionsSlashesAndLengths(t *testing.T) {
	s := newShop(t, Options{})
	c := s.client()
	res, _ := c.raw("GET", "/v1/products/", nil)
	if res.StatusCode != 200 || res.Header.Get("Polar-Version") != Version || res.Header.Get("Date") != s.Now().Format(http.TimeFormat) {
		t.Error(res.StatusCode, res.Header)
	}
	c.head.Set("Polar-Version", "2025-01")
	if got := c.do(404, "GET", "/v1/products/", ""); got["detail"] != "Not Found" || got["error"] != nil {
		t.Error(got)
	}
	c.head.Set("Polar-Version", "2027-01")
	c.get("/v1/products/")
	c.head.Del("Polar-Version")
	for from, to := range map[string]string{"/v1/products?limit=3": "/v1/products/?limit=3", "/v1/webhooks/endpoints/": "/v1/webhooks/endpoints"} {
		res, _ := c.raw("GET", from, nil)
		if res.StatusCode != 307 || res.Header.Get("Location") != c.url+to {
			t.Error(from, res.StatusCode, res.Header.Get("Location"))
		}
	}
	if got := c.do(404, "GET", "/v1/nothing", ""); got["detail"] != "Not Found" || got["error"] != nil {
		t.Error(got)
	}
	c.do(405, "PUT", "/v1/products/", "")
	res, body := c.raw("POST", "/v1/checkouts/", io.MultiReader(strings.NewReader(`{}`)))
	if res.StatusCode != 411 || !strings.Contains(string(body), `"LengthRequired"`) {
		t.Error(res.StatusCode, string(body))
	}
}

func TestAuthentication(t *testing.T) {
	s := newShop(t, Options{})
	c := s.client("products:read")
	c.get("/v1/products/")
	got := c.do(403, "GET", "/v1/customers/", "")
	if got["error"] != "insufficient_scope" || got["error_description"] == nil || got["detail"] != nil {
		t.Error(got)
	}
	s.RevokeToken(c.token)
	if got := c.do(401, "GET", "/v1/products/", ""); got["error"] != "invalid_token" || got["detail"] != nil {
		t.Error(got)
	}
	c.token = ""
	res, body := c.raw("GET", "/v1/products/", nil)
	if res.StatusCode != 401 || res.Header.Get("WWW-Authenticate") == "" || !strings.Contains(string(body), `"Unauthorized"`) {
		t.Error(res.StatusCode, string(body))
	}
}

func TestRateLimits(t *testing.T) {
	s := newShop(t, Options{RateLimits: true})
	c := s.client()
	calls := func() int {
		for n := 0; ; n++ {
			res, body := c.raw("GET", "/v1/products/", nil)
			if res.StatusCode == 200 {
				continue
			}
			if res.StatusCode != 429 || len(body) != 0 || res.Header.Get("Retry-After") == "" {
				t.Fatal(res.StatusCode, string(body), res.Header)
			}
			return n
		}
	}
	if n := calls(); n != 60 {
		t.Error("the first burst had", n)
	}
	s.Advance(time.Minute)
	if n := calls(); n != 500 {
		t.Error("a known token had", n)
	}
	s.Advance(6 * time.Minute)
	if n := calls(); n != 60 {
		t.Error("after idle minutes", n)
	}
}

func TestCatalogueAndPages(t *testing.T) {
	s := newShop(t, Options{})
	c := s.client()
	list := c.get("/v1/products/?limit=3&sorting=name")
	if total(list) != 4 || len(list["items"].([]any)) != 3 || list["pagination"].(map[string]any)["max_page"] != 2.0 {
		t.Error(list["pagination"])
	}
	if rest := c.get("/v1/products/?limit=3&page=2&sorting=name")["items"].([]any); rest[0].(map[string]any)["name"] != "Try" {
		t.Error("sorted wrongly")
	}
	if n := total(c.get("/v1/products/?metadata[tier]=pro&is_recurring=true")); n != 1 {
		t.Error(n)
	}
	if n := total(c.get("/v1/products/?limit=1000")); n != 4 {
		t.Error(n)
	}
	c.refused(422, "RequestValidationError", "GET", "/v1/products/?page=0", "")
	c.refused(422, "RequestValidationError", "GET", "/v1/products/?sorting=nonsense", "")
	c.refused(422, "RequestValidationError", "GET", "/v1/products/nonsense", "")
	c.refused(404, "ResourceNotFound", "GET", "/v1/products/"+s.org.ID, "")
	c.get("/v1/products/" + s.pro.ID)
	if n := total(c.get("/v1/benefits/")); n != 3 {
		t.Error(n)
	}
}

func TestCustomersOverTheAPI(t *testing.T) {
	s := newShop(t, Options{})
	c := s.client()
	made := c.do(201, "POST", "/v1/customers/", `{"email":"ada@example.org","external_id":"a b+c","metadata":{"k":"v"}}`)
	id := made["id"].(string)
	c.refused(422, "PolarRequestValidationError", "POST", "/v1/customers/", `{"email":"ADA@example.org"}`)
	c.refused(422, "RequestValidationError", "POST", "/v1/customers/", `{"name":"x"}`)
	c.refused(422, "RequestValidationError", "POST", "/v1/customers/", `{"email":"nonsense"}`)
	if got := c.get("/v1/customers/external/" + url.PathEscape("a b+c")); got["id"] != id {
		t.Error(got)
	}
	if n := total(c.get("/v1/customers/?email=ada@example.org")); n != 1 {
		t.Error(n)
	}
	c.refused(404, "ResourceNotFound", "GET", "/v1/customers/external/nobody", "")
	if got := c.do(404, "GET", "/v1/customers/external/a%2Fb", ""); got["error"] != nil {
		t.Error("an id with a slash cannot be addressed:", got)
	}
	if got := c.do(200, "PATCH", "/v1/customers/"+id, `{"name":"Ada"}`); got["name"] != "Ada" || got["modified_at"] == nil {
		t.Error(got)
	}
	c.refused(422, "PolarRequestValidationError", "PATCH", "/v1/customers/"+id, `{"external_id":"other"}`)
	if n := total(c.get("/v1/members/?customer_id=" + id)); n != 1 {
		t.Error(n)
	}
	c.do(204, "DELETE", "/v1/customers/"+id, "")
	c.refused(404, "ResourceNotFound", "GET", "/v1/customers/"+id, "")
	c.do(201, "POST", "/v1/customers/", `{"email":"ada@example.org","external_id":"a b+c"}`)
}

func TestStateLagsBehind(t *testing.T) {
	s := newShop(t, Options{})
	c := s.client()
	s.CreateCustomer(Customer{Email: "ada@example.org", ExternalID: "usr_1"})
	s.Settle()
	state := func() int { return len(c.get("/v1/customers/external/usr_1/state")["active_subscriptions"].([]any)) }
	if state() != 0 {
		t.Fatal("at the start")
	}
	if _, err := s.Buy("usr_1", "ada@example.org", s.pro.ID); err != nil {
		t.Fatal(err)
	}
	if state() != 0 {
		t.Error("the cache must not know yet")
	}
	s.Settle()
	if state() != 1 {
		t.Error("the job must refresh the cache")
	}
}

func TestCheckoutOverTheAPI(t *testing.T) {
	s := newShop(t, Options{})
	c := s.client()
	made := c.do(201, "POST", "/v1/checkouts/", `{"products":["`+s.pro.ID+`"],"external_customer_id":"usr_1","customer_email":"ada@example.org",
		"metadata":{"user_id":"usr_1"},"success_url":"https://app.example/ok?checkout_id={CHECKOUT_ID}"}`)
	id := made["id"].(string)
	if made["status"] != "open" || made["success_url"] != "https://app.example/ok?checkout_id="+id || !strings.HasPrefix(made["url"].(string), c.url+"/checkout/polar_c_") {
		t.Error(made["success_url"], made["url"])
	}
	must[Checkout](t)(s.Confirm(id, Payment{}))
	got := c.get("/v1/checkouts/" + id)
	if got["status"] != "succeeded" || got["customer_id"] == nil {
		t.Error(got["status"])
	}
	subs := c.get("/v1/subscriptions/?external_customer_id=usr_1&status=active&status=trialing")
	if total(subs) != 1 || subs["items"].([]any)[0].(map[string]any)["metadata"].(map[string]any)["user_id"] != "usr_1" {
		t.Error(subs)
	}
	for body, code := range map[string]string{
		`{}`:                                "RequestValidationError",
		`{"products":[]}`:                   "PolarRequestValidationError",
		`{"products":["x"]}`:                "RequestValidationError",
		`{"products":["` + s.org.ID + `"]}`: "PolarRequestValidationError",
		`{"products":"` + s.pro.ID + `"}`:   "RequestValidationError",
		`{"products":["` + s.pro.ID + `"],"success_url":"/rel"}`:             "RequestValidationError",
		`{"products":["` + s.pro.ID + `"],"customer_id":"` + s.org.ID + `"}`: "PolarRequestValidationError",
	} {
		c.refused(422, code, "POST", "/v1/checkouts/", body)
	}
}

func TestSubscriptionBodies(t *testing.T) {
	s := newShop(t, Options{})
	c := s.client()
	sub, _ := s.buy(s.trial)
	path := "/v1/subscriptions/" + sub.ID
	patch := func(body string) map[string]any { t.Helper(); return c.do(200, "PATCH", path, body) }
	for body, check := range map[string]func(map[string]any) bool{
		`{"metadata":{"a":"b"}}`: func(m map[string]any) bool { return m["metadata"].(map[string]any)["a"] == "b" },
	} {
		if m := patch(body); !check(m) {
			t.Error(body, m)
		}
	}
	if m := patch(`{"trial_end":"now"}`); m["status"] != "active" {
		t.Error(m["status"])
	}
	s.Settle()
	if m := patch(`{"product_id":"` + s.maxi.ID + `","proration_behavior":"next_period"}`); m["pending_update"] == nil {
		t.Error("no pending update")
	}
	if m := patch(`{"pending_update":null}`); m["pending_update"] != nil {
		t.Error("pending update")
	}
	if m := patch(`{"product_id":"` + s.maxi.ID + `","proration_behavior":"invoice"}`); m["product_id"] != s.maxi.ID {
		t.Error(m["product_id"])
	}
	if m := patch(`{"pause_at_period_end":true}`); m["pause_at_period_end"] != true {
		t.Error("no pause")
	}
	patch(`{"pause_at_period_end":false}`)
	if m := patch(`{"cancel_at_period_end":true,"customer_cancellation_reason":"unused"}`); m["customer_cancellation_reason"] != "unused" {
		t.Error("no reason")
	}
	c.refused(403, "AlreadyCanceledSubscription", "PATCH", path, `{"cancel_at_period_end":true}`)
	patch(`{"cancel_at_period_end":false}`)
	end := stamp(s.Now().Add(40 * day))
	if m := patch(`{"current_billing_period_end":"` + end + `"}`); m["current_period_end"] != end {
		t.Error(m["current_period_end"])
	}
	for _, body := range []string{
		`{"revoke":true,"extra":1}`, `{"revoke":false}`, `{"cancel_at_period_end":true,"product_id":"x"}`, `{"nonsense":1}`, `{"pending_update":{}}`,
		`{"product_id":"` + s.maxi.ID + `","proration_behavior":"sometimes"}`, `{"cancel_at_period_end":"perhaps"}`, `[]`,
	} {
		c.refused(422, "RequestValidationError", "PATCH", path, body)
	}
	s.LockSubscription(sub.ID, true)
	c.refused(409, "SubscriptionLocked", "PATCH", path, `{"revoke":true}`)
	s.LockSubscription(sub.ID, false)
	if m := c.do(200, "DELETE", path, ""); m["status"] != "canceled" {
		t.Error(m["status"])
	}
	c.refused(403, "AlreadyCanceledSubscription", "DELETE", path, "")
}

func TestPortalBelongsToOneCustomer(t *testing.T) {
	s := newShop(t, Options{})
	c := s.client()
	sub, _ := s.buy(s.pro)
	other := must[Checkout](t)(s.Buy("usr_2", "grace@example.org", s.pro.ID))
	c.refused(422, "PolarRequestValidationError", "POST", "/v1/customer-sessions/", `{"external_customer_id":"nobody"}`)
	made := c.do(201, "POST", "/v1/customer-sessions/", `{"external_customer_id":"usr_1","return_url":"https://app.example/"}`)
	c.refused(401, "Unauthorized", "GET", "/v1/customer-portal/subscriptions/", "")
	c.token = made["token"].(string)
	if n := total(c.get("/v1/customer-portal/subscriptions/")); n != 1 {
		t.Error(n)
	}
	c.refused(404, "ResourceNotFound", "GET", "/v1/customer-portal/subscriptions/"+other.SubscriptionID, "")
	c.refused(404, "ResourceNotFound", "DELETE", "/v1/customer-portal/subscriptions/"+other.SubscriptionID, "")
	path := "/v1/customer-portal/subscriptions/" + sub.ID
	if m := c.do(200, "PATCH", path, `{"cancel_at_period_end":true,"cancellation_reason":"unused"}`); m["cancel_at_period_end"] != true {
		t.Error(m)
	}
	c.do(200, "PATCH", path, `{"cancel_at_period_end":false}`)
	c.do(200, "PATCH", path, `{"product_id":"`+s.maxi.ID+`"}`)
	c.do(200, "DELETE", path, "")
	c.refused(401, "Unauthorized", "GET", "/v1/subscriptions/", "")
	s.Advance(61 * time.Minute)
	c.refused(401, "invalid_token", "GET", "/v1/customer-portal/subscriptions/", "")
}

func TestWebhooksOverTheAPI(t *testing.T) {
	s := newShop(t, Options{})
	r, _ := s.receive(Endpoint{Events: []string{"order.refunded"}})
	c := s.client()
	made := c.do(201, "POST", "/v1/webhooks/endpoints", `{"url":"`+r.URL+`","format":"raw","events":["order.paid"]}`)
	id := made["id"].(string)
	if made["uses_standard_webhook_signature"] != true || made["api_version"] != Version || made["enabled"] != true {
		t.Error(made)
	}
	c.refused(422, "RequestValidationError", "POST", "/v1/webhooks/endpoints", `{"url":"`+r.URL+`","format":"raw","events":["nonsense"]}`)
	legacy := c.do(201, "POST", "/v1/webhooks/endpoints", `{"url":"`+r.URL+`","format":"raw","events":["order.created"],"secret":"my-own-secret-of-at-least-32-characters"}`)
	if legacy["uses_standard_webhook_signature"] != false {
		t.Error(legacy)
	}
	c.do(204, "DELETE", "/v1/webhooks/endpoints/"+legacy["id"].(string), "")
	if n := total(c.get("/v1/webhooks/endpoints")); n != 2 {
		t.Error(n)
	}
	reset := c.do(200, "PATCH", "/v1/webhooks/endpoints/"+id+"/secret", `{}`)
	if reset["secret"] == made["secret"] {
		t.Error("same secret")
	}
	c.refused(422, "RequestValidationError", "PATCH", "/v1/webhooks/endpoints/"+id, `{"format":"nonsense"}`)
	for format, sends := range map[string]bool{"slack": false, "raw": true} {
		c.do(200, "PATCH", "/v1/webhooks/endpoints/"+id, `{"format":"`+format+`"}`)
		if e, _ := s.Endpoint(id); e.Format != format || e.wants("order.paid") != sends {
			t.Errorf("%+v", e)
		}
	}
	c.do(200, "PATCH", "/v1/webhooks/endpoints/"+id, `{"enabled":false}`)
	if got := c.get("/v1/webhooks/endpoints/" + id); got["enabled"] != false {
		t.Error(got)
	}
}

func TestDeliveriesOverTheAPI(t *testing.T) {
	s := newShop(t, Options{})
	down := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) }))
	defer down.Close()
	s.AddEndpoint(Endpoint{URL: down.URL, Events: []string{"order.paid"}})
	c := s.client()
	s.buy(s.pro)
	list := c.get("/v1/webhooks/deliveries?succeeded=false&http_code_class=5xx&event_type=order.paid")
	if total(list) != 1 {
		t.Fatal(list)
	}
	event := list["items"].([]any)[0].(map[string]any)["webhook_event"].(map[string]any)
	var payload Event
	if json.Unmarshal([]byte(event["payload"].(string)), &payload) != nil || payload.Type != "order.paid" {
		t.Error(event["payload"])
	}
	if n := total(c.get("/v1/webhooks/deliveries?succeeded=true")); n != 0 {
		t.Error(n)
	}
	c.do(202, "POST", "/v1/webhooks/events/"+event["id"].(string)+"/redeliver", "")
	s.Settle()
	if n := total(c.get("/v1/webhooks/deliveries")); n != 2 {
		t.Error(n)
	}
	s.Advance(91 * day)
	items := c.get("/v1/webhooks/deliveries?limit=100")["items"].([]any) // newest first
	item := items[len(items)-1].(map[string]any)["webhook_event"].(map[string]any)
	if item["is_archived"] != true || item["payload"] != nil {
		t.Error(item)
	}
}

func TestRefundsDisputesOrdersAndMetrics(t *testing.T) {
	s := newShop(t, Options{})
	c := s.client()
	_, customer := s.buy(s.once)
	order := s.Orders(customer.ID)[0]
	c.refused(422, "RequestValidationError", "POST", "/v1/refunds/", `{"order_id":"`+order.ID+`"}`)
	got := c.do(201, "POST", "/v1/refunds/", `{"order_id":"`+order.ID+`","reason":"customer_request","amount":1000,"revoke_benefits":true}`)
	if got["status"] != "succeeded" || got["amount"] != 1000.0 {
		t.Error(got)
	}
	c.refused(400, "RefundAmountTooHigh", "POST", "/v1/refunds/", `{"order_id":"`+order.ID+`","reason":"other","amount":99999}`)
	if n := total(c.get("/v1/refunds/?order_id=" + order.ID)); n != 1 {
		t.Error(n)
	}
	if err := s.LoseDispute(order.ID); err != nil {
		t.Fatal(err)
	}
	won, lost := must[Dispute](t)(s.OpenDispute(order.ID)), must[Dispute](t)(s.OpenDispute(order.ID))
	if n := total(c.get("/v1/disputes/?status=needs_response")); n != 2 {
		t.Error(n)
	}
	if err := errors.Join(s.SettleDispute(won.ID, true), s.SettleDispute(lost.ID, false)); err != nil {
		t.Fatal(err)
	}
	refusal(t, s.SettleDispute(won.ID, false), 403, "DisputeNotOpenError")
	refusal(t, s.SettleDispute(order.ID, true), 404, "ResourceNotFound")
	for status, want := range map[string]int{"lost": 2, "won": 1} {
		if n := total(c.get("/v1/disputes/?status=" + status)); n != want {
			t.Errorf("%d %s", n, status)
		}
	}
	if n := total(c.get("/v1/orders/?product_billing_type=one_time&external_customer_id=usr_1")); n != 1 {
		t.Error(n)
	}
	m := c.get("/v1/metrics/?interval=month&start_date=2026-10-01&end_date=2026-11-30")
	if periods := m["periods"].([]any); len(periods) != 2 || m["totals"].(map[string]any)["revenue"] != 14900.0 {
		t.Error(m["totals"], len(periods))
	}
	for _, query := range []string{
		"interval=month", "interval=day&start_date=2026-11-02&end_date=2026-11-01", "interval=day&start_date=2025-01-01&end_date=2026-02-01",
	} {
		c.refused(422, "RequestValidationError", "GET", "/v1/metrics/?"+query, "")
	}
}

func TestChurnIsMeasured(t *testing.T) {
	s := newShop(t, Options{Start: time.Date(2026, 9, 15, 0, 0, 0, 0, time.UTC)})
	c := s.client()
	first, _ := s.buy(s.pro)
	if _, err := s.Buy("usr_2", "grace@example.org", s.pro.ID); err != nil {
		t.Fatal(err)
	}
	s.Advance(20 * day)
	must[Subscription](t)(s.Revoke(first.ID))
	m := c.get("/v1/metrics/?interval=month&start_date=2026-09-01&end_date=2026-10-31&metrics=churn_rate&metrics=churned_subscriptions&metrics=active_subscriptions")
	last := m["periods"].([]any)[1].(map[string]any)
	if last["churn_rate"] != 0.5 || last["churned_subscriptions"] != 1.0 || last["active_subscriptions"] != 1.0 || last["revenue"] != nil {
		t.Error(last)
	}
	if totals := m["totals"].(map[string]any); totals["churn_rate"] != 0.5 || totals["active_subscriptions"] != 1.0 {
		t.Error(totals)
	}
}

func TestTroubles(t *testing.T) {
	s := newShop(t, Options{})
	sub, _ := s.buy(s.pro)
	c := s.client()
	s.Advance(time.Minute)
	s.SetTrouble(Trouble{Lag: 30 * time.Second})
	s.Cancel(sub.ID, "", "")
	if c.get("/v1/subscriptions/" + sub.ID)["cancel_at_period_end"] != false {
		t.Error("the replica must not know yet")
	}
	s.Advance(time.Minute)
	if c.get("/v1/subscriptions/" + sub.ID)["cancel_at_period_end"] != true {
		t.Error("the replica must know by now")
	}
	s.SetTrouble(Trouble{HTML: true})
	if res, body := c.raw("GET", "/v1/products/", nil); res.StatusCode != 500 || !strings.Contains(string(body), "<h1>") {
		t.Error(res.StatusCode)
	}
	s.SetTrouble(Trouble{Limit: 7})
	if res, _ := c.raw("GET", "/v1/products/", nil); res.StatusCode != 429 || res.Header.Get("Retry-After") != "7" {
		t.Error(res.StatusCode)
	}
	s.SetTrouble(Trouble{Refuse: true})
	if _, err := http.Get(c.url + "/v1/products/"); err == nil {
		t.Error("not refused")
	}
	s.SetTrouble(Trouble{Hang: true})
	if _, err := (&http.Client{Timeout: 20 * time.Millisecond}).Get(c.url + "/v1/products/"); err == nil {
		t.Error("not hung")
	}
	s.SetTrouble(Trouble{})
	c.get("/v1/products/")
}

func TestSubscriptionFiltersAndSorting(t *testing.T) {
	s := newShop(t, Options{})
	c := s.client()
	first, _ := s.buy(s.pro)
	s.Advance(day)
	mid := s.Now()
	second := must[Checkout](t)(s.Buy("usr_2", "grace@example.org", s.maxi.ID))
	s.Settle()
	s.Cancel(second.SubscriptionID, "unused", "")
	ids := func(query string) []string {
		t.Helper()
		var out []string
		for _, x := range c.get("/v1/subscriptions/?" + query)["items"].([]any) {
			out = append(out, x.(map[string]any)["id"].(string))
		}
		return out
	}
	both := []string{second.SubscriptionID, first.ID}
	for query, want := range map[string][]string{
		"":                                    both,
		"sorting=started_at":                  {first.ID, second.SubscriptionID},
		"sorting=-amount":                     both,
		"product_id=" + s.pro.ID:              {first.ID},
		"cancel_at_period_end=true":           {second.SubscriptionID},
		"customer_cancellation_reason=unused": {second.SubscriptionID},
		"started_after=" + url.QueryEscape(stamp(mid)):        {second.SubscriptionID},
		"started_before=" + url.QueryEscape(stamp(mid)):       {first.ID},
		"canceled_at_after=" + url.QueryEscape(stamp(mid)):    {second.SubscriptionID},
		"product_id=" + s.pro.ID + "&product_id=" + s.maxi.ID: both,
		"status=past_due": nil,
	} {
		if got := ids(query); !slices.Equal(got, want) {
			t.Errorf("%s: %v", query, got)
		}
	}
	c.refused(422, "RequestValidationError", "GET", "/v1/subscriptions/?customer_id=nonsense", "")
	c.refused(422, "RequestValidationError", "GET", "/v1/subscriptions/?started_after=nonsense", "")
}

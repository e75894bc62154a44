package contract

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// deaf is a checker that counts its complaints, in place of failing.
func deaf(t *testing.T) (*Checker, *[]string) {
	t.Helper()
	c := New(t)
	var heard []string
	c.complain = func(format string, args ...any) { heard = append(heard, fmt.Sprintf(format, args...)) }
	return c, &heard
}

func samples(t *testing.T) map[string][]byte {
	t.Helper()
	files, _ := filepath.Glob("../../../../testdata/polar/*.json")
	out := map[string][]byte{}
	for _, file := range files {
		if strings.Contains(file, "vectors") || strings.Contains(file, "unknown") {
			continue
		}
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		out[filepath.Base(file)] = raw
	}
	if len(out) < 40 {
		t.Fatal("only", len(out), "samples")
	}
	return out
}

// The samples have all that Polar sends. If one does not pass, a gap is missing.
func TestSamplesSatisfyTheDocument(t *testing.T) {
	for name, raw := range samples(t) {
		c, heard := deaf(t)
		if c.Webhook(raw); len(*heard) > 0 {
			t.Errorf("%s:\n%s", name, strings.Join(*heard, "\n"))
		}
	}
}

// Whatever is broken in a sample must be noticed.
func TestWebhookNotices(t *testing.T) {
	raw := samples(t)["subscription.active.json"]
	data := func(change func(m map[string]any)) func(m map[string]any) {
		return func(m map[string]any) { change(m["data"].(map[string]any)) }
	}
	price := func(change func(m map[string]any)) func(m map[string]any) {
		return data(func(m map[string]any) { change(m["prices"].([]any)[0].(map[string]any)) })
	}
	for name, change := range map[string]func(m map[string]any){
		"unknown type":      func(m map[string]any) { m["type"] = "subscription.lost" },
		"other type":        func(m map[string]any) { m["type"] = "order.paid" },
		"no timestamp":      func(m map[string]any) { delete(m, "timestamp") },
		"bad timestamp":     func(m map[string]any) { m["timestamp"] = "yesterday" },
		"bad version":       func(m map[string]any) { m["api_version"] = "v1" },
		"extra":             func(m map[string]any) { m["event_id"] = "x" },
		"missing":           data(func(m map[string]any) { delete(m, "current_period_end") }),
		"extra below":       data(func(m map[string]any) { m["paused"] = false }),
		"null":              data(func(m map[string]any) { m["current_period_end"] = nil }),
		"enum":              data(func(m map[string]any) { m["status"] = "cancelled" }),
		"type":              data(func(m map[string]any) { m["amount"] = "1900" }),
		"fraction":          data(func(m map[string]any) { m["amount"] = 19.5 }),
		"id":                data(func(m map[string]any) { m["id"] = "sub_1" }),
		"gap of wrong type": data(func(m map[string]any) { m["units"] = "3" }),
		"deep extra":        data(func(m map[string]any) { m["customer"].(map[string]any)["phone"] = "1" }),
		"variant":           price(func(m map[string]any) { m["amount_type"] = "free" }),
		"const":             price(func(m map[string]any) { m["type"] = "sometimes" }),
	} {
		var m map[string]any
		if err := json.Unmarshal(raw, &m); err != nil {
			t.Fatal(err)
		}
		change(m)
		broken, _ := json.Marshal(m)
		c, heard := deaf(t)
		if c.Webhook(broken); len(*heard) == 0 {
			t.Error("not noticed:", name)
		}
	}
	c, heard := deaf(t)
	if c.Webhook([]byte(`[]`)); len(*heard) == 0 {
		t.Error("not noticed: no object")
	}
}

const product = "/v1/products/0f4a2c0e-93b7-4f0e-8a51-6a2d0d5f9c11"

type said struct {
	method, path, version string
	status                int
	header                http.Header
	body                  string
}

func (s said) heard(t *testing.T) []string {
	t.Helper()
	c, heard := deaf(t)
	h := c.Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Polar-Version", "2026-10")
		for k, v := range s.header {
			w.Header()[k] = v
		}
		w.WriteHeader(s.status)
		_, _ = w.Write([]byte(s.body))
	}))
	r := httptest.NewRequest(s.method, s.path, nil)
	if s.version != "" {
		r.Header.Set("Polar-Version", s.version)
	}
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, r)
	if rec.Code != s.status || rec.Body.String() != s.body {
		t.Errorf("%s was changed on the way to %d %s", s.body, rec.Code, rec.Body)
	}
	return *heard
}

const (
	issue    = `{"type":"missing","loc":["body","email"],"msg":"Field required","input":null}`
	detailed = `{"error":"%s","detail":"Something."}`
	oauth    = `{"error":"%s","error_description":"Something."}`
	notFound = `{"detail":"Not Found"}`
)

var (
	bearer = http.Header{"Www-Authenticate": {"Bearer"}}
	wait   = http.Header{"Retry-After": {"7"}}
)

func TestHandlerKnowsTheShapesOfRefusals(t *testing.T) {
	list := "/v1/customers/"
	for name, s := range map[string]said{
		"404":         {"GET", product, "", 404, nil, fmt.Sprintf(detailed, "ResourceNotFound")},
		"404 route":   {"GET", "/v1/nothing", "", 404, nil, notFound},
		"404 version": {"GET", product, "2025-01", 404, nil, notFound},
		"401":         {"GET", list, "", 401, bearer, fmt.Sprintf(detailed, "Unauthorized")},
		"401 token":   {"GET", list, "", 401, bearer, fmt.Sprintf(oauth, "invalid_token")},
		"403 scope":   {"GET", list, "", 403, nil, fmt.Sprintf(oauth, "insufficient_scope")},
		"403":         {"DELETE", "/v1/subscriptions/x", "", 403, nil, fmt.Sprintf(detailed, "AlreadyCanceledSubscription")},
		"405":         {"PUT", list, "", 405, nil, `{"detail":"Method Not Allowed"}`},
		"409":         {"PATCH", "/v1/subscriptions/x", "", 409, nil, fmt.Sprintf(detailed, "SubscriptionLocked")},
		"411":         {"POST", list, "", 411, nil, fmt.Sprintf(detailed, "LengthRequired")},
		"413":         {"POST", list, "", 413, nil, fmt.Sprintf(detailed, "RequestEntityTooLarge")},
		"422":         {"POST", list, "", 422, nil, `{"error":"RequestValidationError","detail":[` + issue + `]}`},
		"429":         {"GET", list, "", 429, wait, ""},
		"500":         {"GET", list, "", 500, nil, "<h1>"},
		"307":         {"GET", "/v1/customers", "", 307, http.Header{"Location": {"/v1/customers/"}}, ""},
		"204":         {"DELETE", "/v1/customers/x", "", 204, nil, ""},
		"a page":      {"GET", "/checkout/x", "", 200, nil, "<h1>"},
	} {
		if heard := s.heard(t); len(heard) > 0 {
			t.Error(name, heard)
		}
	}
}

func TestHandlerNotices(t *testing.T) {
	list := "/v1/customers/"
	for name, s := range map[string]said{
		"error in a version's 404":  {"GET", product, "2025-01", 404, nil, fmt.Sprintf(detailed, "ResourceNotFound")},
		"version answered":          {"GET", list, "2025-01", 200, nil, `{"items":[],"pagination":{"total_count":0,"max_page":0}}`},
		"version not repeated":      {"GET", list, "2027-01", 200, nil, `{"items":[],"pagination":{"total_count":0,"max_page":0}}`},
		"lacking operation":         {"GET", product, "", 404, nil, notFound},
		"error of a lost route":     {"GET", "/v1/nothing", "", 404, nil, fmt.Sprintf(detailed, "ResourceNotFound")},
		"401 without header":        {"GET", list, "", 401, nil, fmt.Sprintf(detailed, "Unauthorized")},
		"detail of a bad token":     {"GET", list, "", 401, bearer, fmt.Sprintf(detailed, "invalid_token")},
		"class in OAuth's shape":    {"GET", list, "", 401, bearer, fmt.Sprintf(oauth, "Unauthorized")},
		"scope's status":            {"GET", list, "", 401, bearer, fmt.Sprintf(oauth, "insufficient_scope")},
		"detail of a scope":         {"GET", list, "", 403, nil, fmt.Sprintf(detailed, "insufficient_scope")},
		"unknown class":             {"PATCH", "/v1/subscriptions/x", "", 409, nil, fmt.Sprintf(detailed, "SubscriptionNotPaused")},
		"status of a class":         {"PATCH", "/v1/subscriptions/x", "", 403, nil, fmt.Sprintf(detailed, "NotPausedSubscription")},
		"other operation's class":   {"DELETE", "/v1/subscriptions/x", "", 403, nil, fmt.Sprintf(detailed, "RefundedAlready")},
		"411 without error":         {"POST", list, "", 411, nil, `{"detail":"x"}`},
		"422 without error":         {"POST", list, "", 422, nil, `{"detail":[` + issue + `]}`},
		"422 with a text":           {"POST", list, "", 422, nil, fmt.Sprintf(detailed, "RequestValidationError")},
		"422 of another name":       {"POST", list, "", 422, nil, `{"error":"ValidationError","detail":[` + issue + `]}`},
		"422 without a place":       {"POST", list, "", 422, nil, `{"error":"RequestValidationError","detail":[{"type":"missing","msg":"x","input":null}]}`},
		"429 with a body":           {"GET", list, "", 429, wait, `{}`},
		"429 without Retry-After":   {"GET", list, "", 429, nil, ""},
		"429 with a date":           {"GET", list, "", 429, http.Header{"Retry-After": {"Mon, 02 Nov 2026 09:00:00 GMT"}}, ""},
		"429 with limits":           {"GET", list, "", 429, http.Header{"Retry-After": {"7"}, "X-Ratelimit-Limit": {"500"}}, ""},
		"undocumented success":      {"GET", list, "", 202, nil, ""},
		"no JSON":                   {"GET", list, "", 200, nil, "<h1>"},
		"Content-Type":              {"GET", list, "", 200, http.Header{"Content-Type": {"text/plain"}}, `{"items":[],"pagination":{"total_count":0,"max_page":0}}`},
		"no pagination":             {"GET", list, "", 200, nil, `{"items":[]}`},
		"body of nothing":           {"DELETE", "/v1/customers/x", "", 204, nil, `{}`},
		"redirect of what is there": {"GET", list, "", 307, http.Header{"Location": {"/"}}, ""},
		"redirect to nowhere":       {"GET", "/v1/customers", "", 307, nil, ""},
		"empty refusal":             {"GET", list, "", 401, bearer, `{}`},
	} {
		if len(s.heard(t)) == 0 {
			t.Error("not noticed:", name)
		}
	}
}

func TestWebhooksAreBounded(t *testing.T) {
	for n, want := range map[int]int{0: 0, 1: 1, most: most, 10 * most: most, 2*most - 1: 2*most - 1} {
		c, heard := deaf(t)
		c.Webhooks(n, func(int) string { return `{}` })
		if c.Checked() != want || len(*heard) != want {
			t.Errorf("%d of %d were checked, want %d", c.Checked(), n, want)
		}
	}
}

func BenchmarkWebhook(b *testing.B) {
	raw, err := os.ReadFile("../../../../testdata/polar/subscription.active.json")
	if err != nil {
		b.Fatal(err)
	}
	c := New(b)
	for b.Loop() {
		c.Webhook(raw)
	}
}

func TestEveryAnswerIsCounted(t *testing.T) {
	c, _ := deaf(t)
	h := c.Handler(http.NotFoundHandler())
	for _, path := range []string{"/v1/a", "/v1/b", "/page"} {
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", path, nil))
	}
	c.Webhook([]byte(`{}`))
	if c.Checked() != 3 {
		t.Error(c.Checked())
	}
}

package box

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// document is Polar's OpenAPI document, as far as the test reads it.
type document map[string]any

func at(v any, path ...string) any {
	for _, k := range path {
		m, _ := v.(map[string]any)
		v = m[k]
	}
	return v
}

// mismatch says where a value is not what a schema wants, or nothing.
func (d document) mismatch(schema any, v any, where string) string {
	s, _ := schema.(map[string]any)
	if ref, ok := s["$ref"].(string); ok {
		return d.mismatch(at(map[string]any(d), strings.Split(strings.TrimPrefix(ref, "#/"), "/")...), v, where)
	}
	for _, key := range []string{"anyOf", "oneOf"} {
		options, ok := s[key].([]any)
		if !ok {
			continue
		}
		var why []string
		for _, o := range options {
			m := d.mismatch(o, v, where)
			if m == "" {
				return ""
			}
			why = append(why, m)
		}
		return where + ": none of " + strings.Join(why, " | ")
	}
	if enum, ok := s["enum"].([]any); ok && !slices.Contains(enum, v) {
		return fmt.Sprintf("%s: %v is none of %v", where, v, enum)
	}
	if c, ok := s["const"]; ok && c != v {
		return fmt.Sprintf("%s: %v is not %v", where, v, c)
	}
	return d.typed(s, v, where)
}

func (d document) typed(s map[string]any, v any, where string) string {
	ok := true
	switch s["type"] {
	case "null":
		ok = v == nil
	case "string":
		_, ok = v.(string)
	case "boolean":
		_, ok = v.(bool)
	case "integer", "number":
		_, ok = v.(float64)
	case "array":
		var list []any
		if list, ok = v.([]any); ok {
			for i, x := range list {
				if m := d.mismatch(s["items"], x, fmt.Sprintf("%s[%d]", where, i)); m != "" {
					return m
				}
			}
		}
	case "object":
		return d.object(s, v, where)
	}
	if !ok {
		return fmt.Sprintf("%s: %T is no %v", where, v, s["type"])
	}
	return ""
}

func (d document) object(s map[string]any, v any, where string) string {
	m, ok := v.(map[string]any)
	if !ok {
		return fmt.Sprintf("%s: %T is no object", where, v)
	}
	required, _ := s["required"].([]any)
	for _, k := range required {
		if _, ok := m[k.(string)]; !ok {
			return where + ": lacks " + k.(string)
		}
	}
	properties, _ := s["properties"].(map[string]any)
	for k, x := range m {
		if p, ok := properties[k]; ok {
			if why := d.mismatch(p, x, where+"."+k); why != "" {
				return why
			}
		}
	}
	return ""
}

func loadDocument(t *testing.T) document {
	t.Helper()
	raw, err := os.ReadFile("../../testdata/openapi-2026-10.json")
	if err != nil {
		t.Fatal(err)
	}
	var d document
	if err := json.Unmarshal(raw, &d); err != nil {
		t.Fatal(err)
	}
	return d
}

func TestAnswersSatisfyPolarsDocument(t *testing.T) {
	d := loadDocument(t)
	s := newShop(t, Options{})
	s.AddEndpoint(Endpoint{URL: "http://127.0.0.1:1", Events: []string{"order.paid"}}) // the copy lacks subscription.migrated
	sub, customer := s.buy(s.trial)
	s.Advance(15 * day)
	order := s.Orders(customer.ID)[1]
	s.PreventDispute(order.ID)
	s.Settle()
	c := s.client()
	dispute := s.disputes.ids[0]
	member := s.members.of(customer.ID)[0].ID
	checked := 0
	check := func(method, pattern, path, body, status string) map[string]any {
		t.Helper()
		var want int
		fmt.Sscan(status, &want)
		got := c.do(want, method, path, body)
		schema := at(map[string]any(d), "paths", pattern, strings.ToLower(method), "responses", status, "content", "application/json", "schema")
		if schema == nil {
			t.Fatal("no schema for", method, pattern)
		}
		if why := d.mismatch(schema, any(got), ""); why != "" {
			t.Errorf("%s %s: %s", method, pattern, why)
		}
		checked++
		return got
	}
	for pattern, path := range map[string]string{
		"/v1/organizations/{id}": s.org.ID, "/v1/products/": "", "/v1/products/{id}": s.pro.ID, "/v1/benefits/": "",
		"/v1/benefit-grants/": "", "/v1/customers/": "", "/v1/customers/{id}": customer.ID, "/v1/customers/{id}/state": customer.ID,
		"/v1/members/": "", "/v1/subscriptions/": "", "/v1/subscriptions/{id}": sub.ID, "/v1/orders/": "", "/v1/orders/{id}": order.ID,
		"/v1/refunds/": "", "/v1/disputes/": "", "/v1/disputes/{id}": dispute, "/v1/webhooks/endpoints": "", "/v1/webhooks/deliveries": "",
		"/v1/checkouts/{id}": sub.CheckoutID, "/v1/customers/external/{external_id}": "usr_1",
		"/v1/customers/{id}/members/{member_id}": customer.ID,
	} {
		full := strings.NewReplacer("{id}", path, "{external_id}", path, "{member_id}", member).Replace(pattern)
		check("GET", pattern, full, "", "200")
	}
	check("GET", "/v1/metrics/", "/v1/metrics/?interval=week&start_date=2026-10-01&end_date=2026-11-30", "", "200")
	check("POST", "/v1/checkouts/", "/v1/checkouts/", `{"products":["`+s.maxi.ID+`"]}`, "201")
	check("POST", "/v1/customers/", "/v1/customers/", `{"email":"new@example.org"}`, "201")
	check("POST", "/v1/refunds/", "/v1/refunds/", `{"order_id":"`+buyOnce(s)+`","reason":"other","amount":5}`, "201")
	check("PATCH", "/v1/subscriptions/{id}", "/v1/subscriptions/"+sub.ID, `{"product_id":"`+s.maxi.ID+`","proration_behavior":"next_period"}`, "200")
	session := check("POST", "/v1/customer-sessions/", "/v1/customer-sessions/", `{"customer_id":"`+customer.ID+`"}`, "201")
	c.do(422, "GET", "/v1/products/?page=0", "")
	c.token = session["token"].(string)
	check("GET", "/v1/customer-portal/subscriptions/", "/v1/customer-portal/subscriptions/", "", "200")
	check("GET", "/v1/customer-portal/subscriptions/{id}", "/v1/customer-portal/subscriptions/"+sub.ID, "", "200")
	if checked < 29 {
		t.Error("only", checked)
	}
}

func buyOnce(s *shop) string {
	c, err := s.Buy("usr_9", "nine@example.org", s.once.ID)
	if err != nil {
		s.t.Fatal(err)
	}
	return s.Orders(c.CustomerID)[0].ID
}

func TestEventsSatisfyPolarsDocument(t *testing.T) {
	d := loadDocument(t)
	for kind, e := range everything(t) {
		schema := at(map[string]any(d), "webhooks", kind, "post", "requestBody", "content", "application/json", "schema")
		if schema == nil {
			t.Error("no schema for", kind)
			continue
		}
		body := map[string]any{"type": kind, "timestamp": stamp(e.Timestamp), "data": fields(t, e)}
		if why := d.mismatch(schema, body, ""); why != "" {
			t.Errorf("%s: %s", kind, why)
		}
	}
}

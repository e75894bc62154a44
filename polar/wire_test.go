package polar_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-polar/caddy-polar/polar"
)

// object is some JSON, read without knowing what it is.
type object = map[string]any

func generic(t testing.TB, body []byte) object {
	t.Helper()
	var o object
	if err := json.Unmarshal(body, &o); err != nil {
		t.Fatal(err)
	}
	return o
}

func data(t testing.TB, name string) object {
	t.Helper()
	d, ok := generic(t, mustFile(t, name))["data"].(object)
	if !ok {
		t.Fatalf("%s has no data", name)
	}
	return d
}

func mustJSON(t testing.TB, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func decodeAs[T any](raw json.RawMessage) (any, error) { return polar.Decode[T](raw) }

// kinds says which type an event's data has. Seats and members have none yet.
var kinds = []struct {
	prefix   string
	template string
	decode   func(json.RawMessage) (any, error)
}{
	{"subscription.", "subscription.active.json", decodeAs[polar.Subscription]},
	{"order.", "order.paid.one_time.json", decodeAs[polar.Order]},
	{"benefit_grant.", "benefit_grant.revoked.json", decodeAs[polar.BenefitGrant]},
	{"refund.", "refund.created.json", decodeAs[polar.Refund]},
	{"customer.", "customer.deleted.json", decodeAs[polar.Customer]},
	{"checkout.", "checkout.updated.json", decodeAs[polar.Checkout]},
}

// same compares every field of a decoded value with the JSON it comes from. It
// finds misspelt tags, too: each tag must be in the JSON.
func same(t *testing.T, path string, v reflect.Value, raw any) {
	t.Helper()
	switch x := v.Interface().(type) {
	case time.Time:
		want, err := time.Parse(time.RFC3339Nano, fmt.Sprint(raw))
		if err != nil || !x.Equal(want) {
			t.Errorf("%s is %v, want %v (%v)", path, x, raw, err)
		}
		return
	case polar.Metadata:
		want := polar.Metadata{}
		for k, v := range raw.(object) {
			if s, ok := v.(string); ok {
				want[k] = s
			}
		}
		if !maps.Equal(x, want) {
			t.Errorf("%s is %v, want %v", path, x, want)
		}
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() != (raw == nil) {
			t.Errorf("%s is %v, want %v", path, v, raw)
		} else if raw != nil {
			same(t, path, v.Elem(), raw)
		}
	case reflect.Struct:
		o, ok := raw.(object)
		if !ok {
			t.Errorf("%s is no object", path)
			return
		}
		for i := range v.NumField() {
			field := v.Type().Field(i)
			if field.Anonymous {
				same(t, path, v.Field(i), raw)
				continue
			}
			name := field.Tag.Get("json")
			value, there := o[name]
			if !there {
				t.Errorf("%s has no %q", path, name)
				continue
			}
			same(t, path+"."+name, v.Field(i), value)
		}
	case reflect.String:
		want, _ := raw.(string) // null: ""
		if v.String() != want {
			t.Errorf("%s is %q, want %v", path, v, raw)
		}
	case reflect.Bool:
		if v.Bool() != raw {
			t.Errorf("%s is %v, want %v", path, v, raw)
		}
	case reflect.Int:
		if float64(v.Int()) != raw {
			t.Errorf("%s is %v, want %v", path, v, raw)
		}
	default:
		t.Errorf("%s: no way to compare a %s", path, v.Type())
	}
}

func payloads(t testing.TB) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dataDir, "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range files {
		if name := filepath.Base(f); name != "signature_vectors.json" {
			names = append(names, name)
		}
	}
	if len(names) != 50 {
		t.Fatalf("%d payloads, want 50", len(names))
	}
	return names
}

func TestPayloads(t *testing.T) {
	decoded := map[string]int{}
	for _, name := range payloads(t) {
		t.Run(name, func(t *testing.T) {
			body := mustFile(t, name)
			e, err := polar.DecodeEvent(body)
			if err != nil {
				t.Fatal(err)
			}
			raw := generic(t, body)
			if e.Type != raw["type"] {
				t.Errorf("type %q, want %v", e.Type, raw["type"])
			}
			if want, err := time.Parse(time.RFC3339Nano, raw["timestamp"].(string)); err != nil || !e.Timestamp.Equal(want) {
				t.Errorf("timestamp %v, want %v", e.Timestamp, raw["timestamp"])
			}
			var again any
			if err := json.Unmarshal(e.Data, &again); err != nil || !reflect.DeepEqual(again, raw["data"]) {
				t.Errorf("data is not what stands in the body (%v)", err)
			}
			if name == "unknown.event.json" {
				return
			}
			for _, k := range kinds {
				if strings.HasPrefix(e.Type, k.prefix) {
					v, err := k.decode(e.Data)
					if err != nil {
						t.Fatal(err)
					}
					same(t, "data", reflect.ValueOf(v), raw["data"])
					decoded[k.prefix]++
				}
			}
		})
	}
	want := map[string]int{"subscription.": 23, "order.": 5, "benefit_grant.": 7, "refund.": 1, "customer.": 6, "checkout.": 1}
	if !maps.Equal(decoded, want) {
		t.Errorf("decoded %v, want %v", decoded, want)
	}
}

// What the comparison above cannot show: that null and odd values are in the
// samples at all, and what they become.
func TestSpotChecks(t *testing.T) {
	decode := func(name string) any {
		t.Helper()
		e, err := polar.DecodeEvent(mustFile(t, name))
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range kinds {
			if strings.HasPrefix(e.Type, k.prefix) {
				v, err := k.decode(e.Data)
				if err != nil {
					t.Fatal(err)
				}
				return v
			}
		}
		t.Fatalf("%s: no kind", name)
		return nil
	}
	at := func(s string) time.Time {
		v, err := time.Parse(time.RFC3339Nano, s)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	s := decode("subscription.active.json").(polar.Subscription)
	if s.ID != "627bf322-5fac-4cb6-a34a-cb115ee347dd" || s.Status != "active" || s.ModifiedAt != nil || s.Seats != nil ||
		s.ProductID != "59ba1b0d-5c90-4158-a909-406c2e416788" || s.CustomerID != "1509bb0a-9bf1-4331-8a11-8783593942a4" ||
		!s.CurrentPeriodEnd.Equal(at("2026-11-03T14:21:07.318204Z")) || s.Customer.ExternalID != "usr_7f3c1a9e" ||
		s.Customer.OrganizationID != "47eaa099-2cb6-416d-86dc-283cf0480ff9" || s.Metadata["user_id"] != "usr_7f3c1a9e" {
		t.Errorf("%+v", s)
	}
	if s := decode("subscription.active.external_id_null.json").(polar.Subscription); s.Customer == nil || s.Customer.ExternalID != "" {
		t.Errorf("%+v", s.Customer)
	}
	if s := decode("subscription.active.seats.json").(polar.Subscription); s.Seats == nil || *s.Seats != 5 {
		t.Errorf("seats %v", s.Seats)
	}
	if s := decode("subscription.past_due.json").(polar.Subscription); s.PastDueAt == nil || !s.PastDueAt.Equal(at("2026-11-03T14:21:16.318341Z")) || s.Status != "past_due" {
		t.Errorf("%+v", s)
	}
	if s := decode("subscription.updated.plan_scheduled.json").(polar.Subscription); s.PendingUpdate == nil ||
		s.PendingUpdate.ProductID != "59ba1b0d-5c90-4158-a909-406c2e416788" || !s.PendingUpdate.AppliesAt.Equal(at("2026-11-03T14:21:07.318204Z")) {
		t.Errorf("%+v", s.PendingUpdate)
	}
	if s := decode("subscription.canceled.json").(polar.Subscription); !s.CancelAtPeriodEnd || s.EndsAt == nil || s.EndedAt != nil {
		t.Errorf("%+v", s)
	}
	if o := decode("order.paid.one_time.json").(polar.Order); o.SubscriptionID != "" || o.Status != "paid" || o.ProductID != "9a1e40b4-5815-4a99-99e2-d15364c7a500" {
		t.Errorf("%+v", o)
	}
	if g := decode("benefit_grant.created.seat_member.json").(polar.BenefitGrant); g.Member == nil || g.Member.Role != "member" || !g.IsGranted || g.IsRevoked {
		t.Errorf("%+v", g)
	}
	if c := decode("customer.deleted.json").(polar.Customer); c.DeletedAt == nil || c.ExternalID != "usr_7f3c1a9e" {
		t.Errorf("%+v", c)
	}
	if r := decode("refund.created.json").(polar.Refund); !r.RevokeBenefits || r.Dispute != nil || r.OrderID == "" || r.SubscriptionID != "" {
		t.Errorf("%+v", r)
	}
	if c := decode("checkout.updated.json").(polar.Checkout); c.ID != "990d3cd8-381d-422f-850c-86bd84e0164b" || c.CustomerID != "1509bb0a-9bf1-4331-8a11-8783593942a4" {
		t.Errorf("%+v", c)
	}
}

var nullable = map[string][]string{
	"subscription.":  {"modified_at", "trial_end", "canceled_at", "ends_at", "ended_at", "past_due_at", "paused_at", "resumes_at", "checkout_id", "seats", "pending_update", "customer.external_id", "customer.deleted_at", "pending_update.product_id"},
	"order.":         {"modified_at", "product_id", "subscription_id", "checkout_id", "seats", "customer.external_id"},
	"benefit_grant.": {"modified_at", "revoked_at", "member_id", "subscription_id", "order_id", "member"},
	"refund.":        {"modified_at", "subscription_id", "dispute"},
	"customer.":      {"modified_at", "external_id", "deleted_at"},
	"checkout.":      {"modified_at", "customer_id"},
}

// at finds the field of a decoded value that a path of JSON names means.
func at(v reflect.Value, path string) reflect.Value {
	for name := range strings.SplitSeq(path, ".") {
		v = reflect.Indirect(v)
		v = v.FieldByNameFunc(func(field string) bool {
			f, _ := v.Type().FieldByName(field)
			return f.Tag.Get("json") == name
		})
	}
	return v
}

// put sets what a path means; drop takes it away.
func put(o object, path string, value any, drop bool) {
	names := strings.Split(path, ".")
	for _, name := range names[:len(names)-1] {
		o = o[name].(object)
	}
	if drop {
		delete(o, names[len(names)-1])
		return
	}
	o[names[len(names)-1]] = value
}

// full is a template in which nothing that is nullable is null.
func full(t testing.TB, prefix, template string) object {
	o := data(t, template)
	const when = "2026-10-20T00:00:00Z"
	for _, path := range nullable[prefix] {
		switch {
		case strings.HasSuffix(path, "_at") || path == "trial_end":
			put(o, path, when, false)
		case path == "seats":
			put(o, path, 3, false)
		case path == "pending_update":
			put(o, path, object{"applies_at": when, "product_id": "p"}, false)
		case path == "member":
			put(o, path, object{"id": "m", "role": "owner"}, false)
		case path == "dispute":
			put(o, path, object{"status": "lost"}, false)
		default:
			put(o, path, "some-id", false)
		}
	}
	return o
}

func TestNullAndMissing(t *testing.T) {
	for _, k := range kinds {
		for _, path := range nullable[k.prefix] {
			for _, drop := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s%s drop=%v", k.prefix, path, drop), func(t *testing.T) {
					o := full(t, k.prefix, k.template)
					v, err := k.decode(mustJSON(t, o))
					if err != nil {
						t.Fatal(err)
					}
					if at(reflect.ValueOf(v), path).IsZero() {
						t.Fatal("not set in the first place")
					}
					put(o, path, nil, drop)
					if v, err = k.decode(mustJSON(t, o)); err != nil {
						t.Fatal(err)
					}
					if got := at(reflect.ValueOf(v), path); !got.IsZero() {
						t.Errorf("is %v", got)
					}
				})
			}
		}
	}
}

const sentinel = "SENTINEL-ada@example.org"

// fields lists the paths of a type's scalars and objects.
func fields(t reflect.Type, prefix string) map[string]reflect.Type {
	out := map[string]reflect.Type{}
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Anonymous {
			maps.Copy(out, fields(f.Type, prefix))
			continue
		}
		ft := f.Type
		if ft.Kind() == reflect.Pointer {
			ft = ft.Elem()
		}
		path := prefix + f.Tag.Get("json")
		out[path] = ft
		if ft.Kind() == reflect.Struct && ft != reflect.TypeFor[time.Time]() {
			maps.Copy(out, fields(ft, path+"."))
		}
	}
	return out
}

var errorForm = regexp.MustCompile(`^cannot decode (the envelope|data): (field "([A-Za-z_.]*)" has the wrong type|no JSON, at byte \d+|a time or value is malformed|type or data is missing)$`)

// knownNames are the words that a decode error may repeat: all are ours.
var knownNames = func() map[string]bool {
	names := map[string]bool{"": true, "Row": true, "type": true, "timestamp": true, "data": true}
	for _, t := range []reflect.Type{
		reflect.TypeFor[polar.Subscription](), reflect.TypeFor[polar.Order](), reflect.TypeFor[polar.BenefitGrant](),
		reflect.TypeFor[polar.Refund](), reflect.TypeFor[polar.Customer](), reflect.TypeFor[polar.Checkout](),
	} {
		for path := range fields(t, "") {
			for part := range strings.SplitSeq(path, ".") {
				names[part] = true
			}
		}
	}
	return names
}()

// checkDecodeError asserts that an error says nothing of the body.
func checkDecodeError(t testing.TB, err error) {
	t.Helper()
	if !errors.Is(err, polar.ErrDecode) {
		t.Errorf("not ErrDecode: %v", err)
	}
	m := errorForm.FindStringSubmatch(err.Error())
	if m == nil {
		t.Errorf("unexpected form: %v", err)
		return
	}
	for part := range strings.SplitSeq(m[3], ".") {
		if !knownNames[part] {
			t.Errorf("%q comes from the body: %v", part, err)
		}
	}
}

func TestWrongTypes(t *testing.T) {
	for _, k := range kinds {
		template := full(t, k.prefix, k.template)
		v, err := k.decode(mustJSON(t, template))
		if err != nil {
			t.Fatal(err)
		}
		all := fields(reflect.TypeOf(v), "")
		if len(all) < 5 {
			t.Fatalf("%d fields", len(all))
		}
		for path, typ := range all {
			if strings.HasPrefix(path, "customer.") && template["customer"] == nil {
				continue
			}
			wrong := []any{7.5, true, []any{sentinel}, object{sentinel: sentinel}, sentinel}
			switch {
			case typ == reflect.TypeFor[time.Time]():
				wrong = append(wrong, "", "yesterday", "2026-10-03", "2026-13-01T00:00:00Z", "2026-02-30T00:00:00Z",
					"2026-10-03T25:00:00Z", "2026-10-03 14:21:07Z", "2026-10-03T14:21:07", "10000-01-01T00:00:00Z", "-0001-01-01T00:00:00Z", "99999999999")
			case typ == reflect.TypeFor[polar.Metadata]():
				wrong = nil // whatever stands there does no harm
			case typ.Kind() == reflect.Bool:
				wrong = append(wrong[2:], 7.5, 1, "true")
			case typ.Kind() == reflect.String:
				wrong = wrong[:4]
			case typ.Kind() == reflect.Int:
				wrong = append(wrong, json.Number("1e999"), json.Number("99999999999999999999"))
			case typ.Kind() == reflect.Struct:
				wrong = append(wrong[:3:3], sentinel)
			}
			for i, w := range wrong {
				t.Run(fmt.Sprintf("%s%s %d", k.prefix, path, i), func(t *testing.T) {
					o := full(t, k.prefix, k.template)
					put(o, path, w, false)
					_, err := k.decode(mustJSON(t, o))
					if err == nil {
						t.Fatalf("takes %v", w)
					}
					checkDecodeError(t, err)
					if last := path[strings.LastIndex(path, ".")+1:]; typ.Kind() != reflect.Struct && strings.Contains(err.Error(), "field") && !strings.Contains(err.Error(), last) {
						t.Errorf("does not name %s: %v", path, err)
					}
				})
			}
		}
	}
	for _, raw := range []string{`[]`, `"` + sentinel + `"`, `7`, `true`, `{"id"`, `{"` + sentinel + `"`, sentinel, ``, `{} {}`} {
		for _, k := range kinds {
			if _, err := k.decode(json.RawMessage(raw)); err == nil {
				t.Errorf("%s: takes %s", k.prefix, raw)
			} else {
				checkDecodeError(t, err)
			}
		}
	}
}

func TestDates(t *testing.T) {
	for raw, want := range map[string]time.Time{
		"2026-10-03T14:21:07Z":            time.Date(2026, 10, 3, 14, 21, 7, 0, time.UTC), // no fraction when it is 0
		"2026-10-03T14:21:07.5Z":          time.Date(2026, 10, 3, 14, 21, 7, 5e8, time.UTC),
		"2026-10-03T14:21:07.000001Z":     time.Date(2026, 10, 3, 14, 21, 7, 1000, time.UTC),
		"2026-10-03T16:21:07+02:00":       time.Date(2026, 10, 3, 14, 21, 7, 0, time.UTC),
		"2024-02-29T00:00:00Z":            time.Date(2024, 2, 29, 0, 0, 0, 0, time.UTC),
		"0000-01-01T00:00:00Z":            time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC), // for others to judge
		"9999-12-31T23:59:59.999999Z":     time.Date(9999, 12, 31, 23, 59, 59, 999999000, time.UTC),
		"2026-10-03T14:21:07.1234567891Z": time.Date(2026, 10, 3, 14, 21, 7, 123456789, time.UTC),
	} {
		o := data(t, "subscription.active.json")
		put(o, "modified_at", raw, false)
		put(o, "current_period_end", raw, false)
		s, err := polar.Decode[polar.Subscription](mustJSON(t, o))
		if err != nil || s.ModifiedAt == nil || !s.ModifiedAt.Equal(want) || !s.CurrentPeriodEnd.Equal(want) {
			t.Errorf("%s: %v %v", raw, s.ModifiedAt, err)
		}
	}
}

func TestEnvelope(t *testing.T) {
	for name, body := range map[string]string{
		"empty":              ``,
		"spaces":             `  `,
		"no JSON":            sentinel,
		"cut off":            `{"type":"order.paid","data":{"id":"` + sentinel,
		"two":                `{"type":"a","data":{}}{"type":"a","data":{}}`,
		"array":              `[{"type":"a","data":{}}]`,
		"string":             `"` + sentinel + `"`,
		"number":             `7`,
		"null":               `null`,
		"nothing":            `{}`,
		"no type":            `{"data":{}}`,
		"empty type":         `{"type":"","data":{}}`,
		"null type":          `{"type":null,"data":{}}`,
		"type a number":      `{"type":7,"data":{}}`,
		"type an object":     `{"type":{"` + sentinel + `":1},"data":{}}`,
		"no data":            `{"type":"a"}`,
		"null data":          `{"type":"a","data":null}`,
		"timestamp a number": `{"type":"a","data":{},"timestamp":1795000000}`,
		"timestamp no date":  `{"type":"a","data":{},"timestamp":"` + sentinel + `"}`,
		"timestamp no day":   `{"type":"a","data":{},"timestamp":"2026-02-30T00:00:00Z"}`,
		"too deep":           `{"type":"a","data":` + strings.Repeat("[", 20000) + strings.Repeat("]", 20000) + `}`,
		"a zero byte":        "{\"type\":\"a\",\"data\":{}}\x00",
	} {
		t.Run(name, func(t *testing.T) {
			e, err := polar.DecodeEvent([]byte(body))
			if err == nil {
				t.Fatalf("takes it: %+v", e)
			}
			checkDecodeError(t, err)
			if strings.Contains(err.Error(), sentinel) {
				t.Errorf("tells the body: %v", err)
			}
			if !reflect.DeepEqual(e, polar.Event{}) {
				t.Errorf("an error and an event: %+v", e)
			}
		})
	}
	for name, body := range map[string]string{
		"no timestamp":      `{"type":"a","data":{"x":1}}`,
		"null timestamp":    `{"type":"a","data":{"x":1},"timestamp":null}`,
		"fields to come":    `{"type":"a","data":{"x":1},"api_version":"2027-01","provider":{"y":[1]}}`,
		"api_version wrong": `{"type":"a","data":{"x":1},"api_version":7}`,
		"spaces":            " \n{ \"type\" : \"a\" , \"data\" : {\"x\":1} }\n",
	} {
		e, err := polar.DecodeEvent([]byte(body))
		if err != nil || e.Type != "a" || string(e.Data) != `{"x":1}` || !e.Timestamp.IsZero() {
			t.Errorf("%s: %+v %v", name, e, err)
		}
	}
}

func TestMetadata(t *testing.T) {
	for raw, want := range map[string]polar.Metadata{
		`{}`:              {},
		`null`:            {},
		`[]`:              {},
		`["a","b"]`:       {},
		`7`:               {},
		`"polar"`:         {},
		`true`:            {},
		`{"a":"x"}`:       {"a": "x"},
		`{"a":1}`:         {},
		`{"a":["x"]}`:     {},
		`{"a":{"b":"c"}}`: {},
		`{"a":1,"b":2.5,"c":true,"d":[],"e":{"f":"g"},"h":"x","i":""}`: {"h": "x", "i": ""},
		`{"a":"x","a":"y"}`: {"a": "y"},
	} {
		for _, k := range kinds[:2] {
			o := data(t, k.template)
			o["metadata"] = json.RawMessage(raw)
			v, err := k.decode(mustJSON(t, o))
			if err != nil {
				t.Errorf("%s%s: %v", k.prefix, raw, err)
				continue
			}
			if got := at(reflect.ValueOf(v), "metadata").Interface().(polar.Metadata); !maps.Equal(got, want) {
				t.Errorf("%s%s: %v, want %v", k.prefix, raw, got, want)
			}
		}
	}
	s, err := polar.Decode[polar.Subscription](json.RawMessage(`{"metadata":{"polar_gateway":null}}`))
	if err != nil || s.Metadata["polar_gateway"] != "" {
		t.Errorf("null: %v %v", s.Metadata, err)
	}
}

func FuzzDecode(f *testing.F) {
	for _, name := range payloads(f) {
		f.Add(mustFile(f, name))
	}
	for _, s := range []string{``, `{}`, `null`, `{"type":1,"data":null}`, `{"type":"a","data":{"id":{},"Created_At":"x"}}`, `{"type":"a","data":[1e999]}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		inputs := []json.RawMessage{body}
		if e, err := polar.DecodeEvent(body); err != nil {
			checkDecodeError(t, err)
		} else {
			if e.Type == "" || len(e.Data) == 0 {
				t.Fatalf("an event without type or data: %+v", e)
			}
			inputs = append(inputs, e.Data)
		}
		for _, raw := range inputs {
			for _, k := range kinds {
				before := slices.Clone(raw)
				if _, err := k.decode(raw); err != nil {
					checkDecodeError(t, err)
				}
				if !slices.Equal(before, raw) {
					t.Fatal("decoding changes the body")
				}
			}
		}
	})
}

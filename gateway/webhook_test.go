package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap/zapcore"

	"github.com/caddy-polar/caddy-polar/cache"
	"github.com/caddy-polar/caddy-polar/entitlement"
	"github.com/caddy-polar/caddy-polar/polar"
)

// samples says of each of Polar's bodies, taken by an empty store a second
// after it was made, what becomes of it and what one plan then says.
var samples = map[string]struct {
	result Result
	user   string
	plan   string
	opens  bool
	reason entitlement.Reason
	own    string
}{
	"subscription.active.json":                    {ResultApplied, ada, "pro", true, "active", customer},
	"subscription.active.legacy_envelope.json":    {ResultApplied, ada, "pro", true, "active", customer},
	"subscription.active.external_id_null.json":   {ResultApplied, ada, "pro", false, "no_subscription", ""},
	"subscription.active.recovered.json":          {ResultApplied, ada, "pro", true, "active", customer},
	"subscription.active.seats.json":              {ResultApplied, "org_acme", "seats", false, "no_subscription", "f5ec52ed-0108-4475-92e1-bc7656670b14"},
	"subscription.active.trialing.json":           {ResultApplied, ada, "pro", true, "trialing", customer},
	"subscription.canceled.json":                  {ResultApplied, ada, "pro", true, "canceling", customer},
	"subscription.canceled.period_ended.json":     {ResultApplied, ada, "pro", false, "canceled", customer},
	"subscription.created.json":                   {ResultApplied, ada, "pro", true, "active", customer},
	"subscription.cycled.json":                    {ResultApplied, ada, "pro", true, "active", customer},
	"subscription.cycled.trial_converted.json":    {ResultApplied, ada, "pro", true, "active", customer},
	"subscription.migrated.json":                  {ResultApplied, ada, "pro", true, "active", customer},
	"subscription.past_due.json":                  {ResultApplied, ada, "pro", true, "past_due_grace", customer},
	"subscription.paused.json":                    {ResultApplied, ada, "pro", false, "paused", customer},
	"subscription.resumed.json":                   {ResultApplied, ada, "pro", true, "active", customer},
	"subscription.revoked.dunning_exhausted.json": {ResultApplied, ada, "pro", false, "canceled", customer},
	"subscription.revoked.json":                   {ResultApplied, ada, "pro", false, "canceled", customer},
	"subscription.uncanceled.json":                {ResultApplied, ada, "pro", true, "active", customer},
	"subscription.updated.json":                   {ResultApplied, ada, "pro", true, "active", customer},
	"subscription.updated.past_due.json":          {ResultApplied, ada, "pro", true, "past_due_grace", customer},
	"subscription.updated.pause_scheduled.json":   {ResultApplied, ada, "pro", true, "pausing", customer},
	"subscription.updated.plan_changed.json":      {ResultApplied, ada, "team", true, "active", customer},
	"subscription.updated.plan_scheduled.json":    {ResultApplied, ada, "team", true, "active", customer},

	"order.created.json":       {ResultApplied, ada, "pro", false, "no_subscription", customer},
	"order.paid.json":          {ResultApplied, ada, "pro", false, "no_subscription", customer},
	"order.paid.one_time.json": {ResultApplied, ada, "lifetime", true, "purchased", customer},
	"order.refunded.json":      {ResultApplied, ada, "lifetime", false, "refunded", customer},
	"order.updated.json":       {ResultApplied, ada, "pro", false, "no_subscription", customer},
	"refund.created.json":      {ResultApplied, ada, "lifetime", false, "no_subscription", ""},

	"benefit_grant.created.json":                 {ResultApplied, ada, "feature", true, "benefit", customer},
	"benefit_grant.created.action_required.json": {ResultApplied, ada, "feature", false, "no_subscription", customer},
	"benefit_grant.created.seat_member.json":     {ResultApplied, "org_acme", "feature", false, "no_subscription", "f5ec52ed-0108-4475-92e1-bc7656670b14"},
	"benefit_grant.cycled.json":                  {ResultApplied, ada, "feature", true, "benefit", customer},
	"benefit_grant.updated.json":                 {ResultApplied, ada, "feature", true, "benefit", customer},
	"benefit_grant.revoked.json":                 {ResultApplied, ada, "feature", false, "benefit_revoked", customer},
	"benefit_grant.revoked.one_time.json":        {ResultApplied, ada, "licence", false, "benefit_revoked", customer},

	"customer.created.json":                         {ResultApplied, ada, "pro", false, "no_subscription", customer},
	"customer.updated.json":                         {ResultApplied, ada, "pro", false, "no_subscription", customer},
	"customer.deleted.json":                         {ResultApplied, ada, "pro", false, "no_subscription", ""},
	"customer.state_changed.json":                   {ResultApplied, ada, "pro", false, "no_subscription", customer},
	"customer.state_changed.no_access.json":         {ResultApplied, ada, "pro", false, "no_subscription", customer},
	"customer.state_changed.past_due_in_grace.json": {ResultApplied, ada, "pro", false, "no_subscription", customer},
	"checkout.updated.json":                         {ResultApplied, ada, "pro", false, "no_subscription", ""},

	"customer_seat.assigned.json":          {ResultApplied, "org_acme", "seats", false, "no_subscription", ""},
	"customer_seat.claimed.json":           {ResultApplied, "org_acme", "seats", false, "no_subscription", ""},
	"customer_seat.revoked.json":           {ResultApplied, "org_acme", "seats", false, "no_subscription", ""},
	"customer_seat.revoked.no_member.json": {ResultApplied, "org_acme", "seats", false, "no_subscription", ""},
	"member.created.json":                  {ResultApplied, "org_acme", "seats", false, "no_subscription", ""},
	"member.deleted.json":                  {ResultApplied, "org_acme", "seats", false, "no_subscription", ""},
	"unknown.event.json":                   {ResultUnknown, ada, "pro", false, "no_subscription", ""},
}

func sampleNames(t testing.TB) []string {
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
		t.Fatalf("%d samples, want 50", len(names))
	}
	return names
}

func TestSamples(t *testing.T) {
	names := sampleNames(t)
	if len(samples) != len(names) {
		t.Errorf("%d expectations for %d samples", len(samples), len(names))
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			want, there := samples[name]
			if !there {
				t.Fatal("nothing is expected of it")
			}
			b, e := newBench(t), event(t, name)
			b.now = mustTime(e["timestamp"].(string)).Add(time.Second)
			r := b.takes(sample(t, name), want.result)

			typ := e["type"].(string)
			if want.result == ResultUnknown {
				typ = UnknownType
			}
			if r.Type != typ {
				t.Errorf("type %q, want %q", r.Type, typ)
			}
			if wantAge := time.Second; want.result == ResultApplied && r.Age != wantAge {
				t.Errorf("age %s, want %s", r.Age, wantAge)
			} else if want.result != ResultApplied && r.Age != 0 {
				t.Errorf("age %s of what is not in force", r.Age)
			}

			again := want.result
			if again == ResultApplied {
				again = ResultKnown
			}
			check := func() {
				b.is(want.user, want.plan, want.opens, want.reason)
				b.owns(want.user, want.own)
				if !b.decide(want.user, "any").Allowed == want.opens {
					t.Errorf("any plan: want %v", want.opens)
				}
				for _, nobody := range []string{"", customer, "ada@example.org", acme, "nobody"} {
					if b.account(nobody).Known() {
						t.Errorf("an account of %q", nobody)
					}
				}
			}
			check()
			b.unchanged(func() { b.takes(sample(t, name), again) })
			check()
		})
	}
}

func TestExternalIDNullIsNobody(t *testing.T) {
	b := newBench(t)
	b.takes(sample(t, "subscription.active.external_id_null.json"), ResultApplied)
	if a := b.account(ada); a.Known() {
		t.Errorf("metadata user_id proves something: %+v", a.Facts)
	}
	// Once the customer is known, so is whose it is.
	b.takes(sample(t, "customer.created.json"), ResultApplied)
	b.open("pro", "active")
	b.owns(ada, customer)
}

func TestRedelivery(t *testing.T) {
	// What is older than what is known changes nothing, however often it comes.
	b := newBench(t)
	b.now = mustTime("2026-11-24T16:00:00Z")
	b.takes(sample(t, "subscription.revoked.dunning_exhausted.json"), ResultApplied)
	b.unchanged(func() {
		for _, name := range sampleNames(t) {
			if strings.HasPrefix(name, "subscription.") && event(t, name)["data"].(object)["id"] == subID && samples[name].result == ResultApplied && name != "subscription.resumed.json" {
				b.takes(sample(t, name), ResultKnown)
			}
		}
	})
	b.closed("pro", "canceled")
}

func TestReadDelivery(t *testing.T) {
	b := newBench(t, withToken("")) // else Polar is asked for its time
	raw := sample(t, "subscription.active.json")
	for off, want := range map[time.Duration]error{
		5 * time.Minute: nil, -5 * time.Minute: nil,
		5*time.Minute + 2*time.Second: polar.ErrTimestamp, -5*time.Minute - 2*time.Second: polar.ErrTimestamp,
	} {
		if _, err := b.g.ReadDelivery(signed("id", b.now.Truncate(time.Second).Add(off), raw)); off < 0 && want == nil {
			_ = err // the clock has a fraction: just outside
		} else if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", off, err, want)
		}
	}
	g, err := New(Config{Name: "default", Store: b.store, Now: func() time.Time { return bought }})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := g.ReadDelivery(signed("id", bought, raw)); !errors.Is(err, ErrNotConfigured) || !strings.Contains(err.Error(), "webhook_secret") {
		t.Errorf("without a secret: %v", err)
	}
}

func TestWrongSignature(t *testing.T) {
	b := newBench(t)
	raw := sample(t, "subscription.active.json")
	d, err := b.g.ReadDelivery(signed("id", b.now, raw))
	if err != nil {
		t.Fatal(err)
	}
	b.unchanged(func() {
		for _, wrong := range [][]byte{sample(t, "subscription.paused.json"), raw[1:], append([]byte(" "), raw...), nil} {
			r, err := b.g.TakeWebhook(context.Background(), d, wrong)
			if !errors.Is(err, polar.ErrSignature) || r.Result != "" {
				t.Errorf("%v %+v", err, r)
			}
		}
	})
	b.closed("pro", "no_subscription")
	if n := b.logs.Len(); n != 0 {
		t.Errorf("anybody can make %d log lines", n)
	}
}

// spoilt is a verified body that makes no sense, and what of it must not be
// told.
type spoilt struct {
	name string
	body []byte
}

const sentinel = "SENTINEL-ada@example.org"

// objects are the kinds of objects, each with a sample and the fields that it
// cannot do without.
var objects = []struct {
	sample   string
	ids      []string // needed
	optional []string // ids that can be null
	needed   []string
	dates    []string // other than created_at and modified_at
	wrong    []string // a wrong type of these cannot be borne
}{
	{
		"subscription.canceled.json",
		[]string{"id", "customer_id", "product_id"},
		[]string{"checkout_id"},
		[]string{"status", "created_at", "current_period_end"},
		[]string{"current_period_start", "current_period_end", "trial_end", "canceled_at", "ends_at", "ended_at", "past_due_at", "paused_at", "resumes_at"},
		[]string{"id", "status", "customer_id", "cancel_at_period_end", "pause_at_period_end", "seats", "customer", "pending_update"},
	},
	{
		"order.paid.one_time.json",
		[]string{"id", "customer_id"},
		[]string{"product_id", "subscription_id", "checkout_id"},
		[]string{"status", "created_at"},
		nil,
		[]string{"id", "status", "customer_id", "subscription_id", "seats", "customer"},
	},
	{
		"benefit_grant.created.json",
		[]string{"id", "customer_id", "benefit_id"},
		[]string{"subscription_id", "order_id"},
		[]string{"created_at"},
		[]string{"revoked_at"},
		[]string{"id", "is_granted", "is_revoked", "customer", "member"},
	},
	{
		"refund.created.json",
		[]string{"id", "order_id"},
		[]string{"subscription_id"},
		[]string{"created_at"},
		nil,
		[]string{"id", "status", "reason", "revoke_benefits", "dispute"},
	},
	{
		"customer.created.json",
		[]string{"id"},
		nil,
		[]string{"created_at"},
		nil,
		[]string{"id", "external_id", "deleted_at"},
	},
	{"checkout.updated.json", []string{"id"}, nil, nil, nil, []string{"id", "customer_id", "organization_id"}},
}

func spoiltBodies(t testing.TB) []spoilt {
	list := []spoilt{
		{"empty", nil},
		{"no JSON", []byte(sentinel)},
		{"null", []byte(`null`)},
		{"array", []byte(`["` + sentinel + `"]`)},
		{"object", []byte(`{}`)},
		{"form", []byte("type=order.paid&email=" + sentinel)},
		{"too deep", []byte(`{"type":"order.paid","data":` + strings.Repeat("[", 20000))},
	}
	add := func(name string, raw []byte) { list = append(list, spoilt{name, raw}) }
	for _, o := range objects {
		e := event(t, o.sample)
		add(o.sample+" cut off", body(t, e)[:400])
		for what, value := range map[string]any{"array": []any{sentinel}, "number": 7, "string": sentinel, "null": nil, "gone": gone{}, "empty": object{}} {
			add(o.sample+" data "+what, edited(t, o.sample, "data", value))
		}
		add(o.sample+" type null", edited(t, o.sample, "type", nil))
		add(o.sample+" timestamp", edited(t, o.sample, "timestamp", sentinel))
		add(o.sample+" timestamp number", edited(t, o.sample, "timestamp", 1795000000))
		add(o.sample+" timestamp 2999", edited(t, o.sample, "timestamp", "2999-01-01T00:00:00Z"))

		for _, id := range o.ids {
			for what, value := range map[string]any{"gone": gone{}, "null": nil, "empty": ""} {
				add(o.sample+" "+id+" "+what, edited(t, o.sample, "data."+id, value))
			}
		}
		for _, id := range o.ids {
			for what, value := range map[string]any{
				"huge": sentinel + strings.Repeat("x", 40_000), "long": sentinel + strings.Repeat("x", 65),
				"control": "a\x00b", "newline": "a\nb", "space": "a b", "umlaut": "ü", "number": 7, "object": object{sentinel: 1},
			} {
				add(o.sample+" "+id+" "+what, edited(t, o.sample, "data."+id, value))
			}
		}
		for _, field := range o.needed {
			// Without modified_at: created_at is only needed then.
			add(o.sample+" "+field+" gone", edited(t, o.sample, "data.modified_at", nil, "data."+field, gone{}))
			add(o.sample+" "+field+" null", edited(t, o.sample, "data.modified_at", nil, "data."+field, nil))
			add(o.sample+" "+field+" wrong", edited(t, o.sample, "data."+field, []any{sentinel}))
		}
		for _, field := range o.wrong {
			add(o.sample+" "+field+" wrong", edited(t, o.sample, "data."+field, []any{sentinel}))
		}
		dates := o.dates
		if len(o.needed) > 0 {
			dates = append(dates[:len(dates):len(dates)], "modified_at")
			add(o.sample+" created_at in 2999", edited(t, o.sample, "data.modified_at", nil, "data.created_at", "2999-01-01T00:00:00Z"))
			add(o.sample+" created_at in 1970", edited(t, o.sample, "data.modified_at", nil, "data.created_at", "1970-01-01T00:00:00Z"))
			add(o.sample+" modified_at in 2999", edited(t, o.sample, "data.modified_at", "2999-01-01T00:00:00Z"))
			add(o.sample+" modified_at the day after tomorrow", edited(t, o.sample, "data.modified_at", bought.Add(60*day)))
			add(o.sample+" modified_at in year 1", edited(t, o.sample, "data.modified_at", "0001-01-01T00:00:00Z"))
		}
		for _, field := range dates {
			for _, value := range []any{"1500-01-01T00:00:00Z", "1999-12-31T23:59:59Z", "9999-12-31T23:59:59Z", "10000-01-01T00:00:00Z", sentinel, "2026-02-30T00:00:00Z", 7} {
				add(fmt.Sprintf("%s %s %v", o.sample, field, value), edited(t, o.sample, "data."+field, value))
			}
		}
	}
	pending := object{"applies_at": "1999-01-01T00:00:00Z", "product_id": sentinel}
	add("pending_update", edited(t, "subscription.active.json", "data.pending_update", pending))
	return list
}

// TestUndecodable: a verified body that makes no sense is no failure, changes
// nothing, and is logged without what stands in it.
func TestUndecodable(t *testing.T) {
	b := newBench(t)
	b.now = bought.Add(30 * day)
	b.takes(sample(t, "subscription.active.json"), ResultApplied)
	b.now = b.now.Add(-time.Second)
	before := b.account(ada)
	all := spoiltBodies(t)
	if len(all) < 250 {
		t.Fatalf("only %d bodies", len(all))
	}
	for _, s := range all {
		t.Run(s.name, func(t *testing.T) {
			b.t = t
			b.logs.TakeAll()
			b.unchanged(func() {
				r, err := b.try(s.body)
				if err != nil {
					t.Fatalf("Polar would count a failure: %v", err)
				}
				if r.Result != ResultUndecodable || r.Age != 0 {
					t.Errorf("receipt %+v", r)
				}
			})
			logged := b.logs.TakeAll()
			if len(logged) != 1 {
				t.Fatalf("%d log lines", len(logged))
			}
			line := logged[0]
			if line.ContextMap()["webhook_id"] != fmt.Sprintf("msg-%d", b.taken) || line.Level < zapcore.WarnLevel {
				t.Errorf("%s %v", line.Level, line.ContextMap())
			}
			text, err := json.Marshal(line.ContextMap())
			if err != nil {
				t.Fatal(err)
			}
			for _, private := range []string{"SENTINEL", "ada@", "Ada", "Rue", ada, customer, subID, testSecret} {
				if strings.Contains(line.Message+string(text), private) {
					t.Errorf("the log line tells %q: %s", private, text)
				}
			}
		})
	}
	b.t = t
	if !reflect.DeepEqual(b.account(ada).Facts, before.Facts) {
		t.Error("the account has changed")
	}
	b.open("pro", "active")
}

// TestOddReferences: ids that can be null may point nowhere, but they are no
// failure either, open nothing and keep nothing out that comes later.
func TestOddReferences(t *testing.T) {
	for _, o := range objects {
		for _, id := range o.optional {
			for what, value := range map[string]string{
				"huge": strings.Repeat("x", 40_000), "longest key": strings.Repeat("x", 32_768), "long": strings.Repeat("x", 65),
				"control": "a\x00gb", "zero": "\x00", "newline": "a\nb", "space": "a b", "umlaut": "ü", "empty": "",
			} {
				t.Run(o.sample+" "+id+" "+what, func(t *testing.T) {
					b := newBench(t)
					b.now = bought.Add(60 * day)
					raw := edited(t, o.sample, "data."+id, value)
					r, err := b.try(raw)
					if err != nil {
						t.Errorf("Polar would count a failure: %.200v", err)
					}
					if err == nil && r.Result != ResultApplied && r.Result != ResultUndecodable {
						t.Errorf("result %s", r.Result)
					}
					right := edited(t, o.sample, "data.modified_at", bought.Add(50*day))
					b.takes(right, ResultApplied)
					b.unchanged(func() { b.takes(right, ResultKnown) })
				})
			}
		}
	}
}

func TestFarFutureDoesNotWedge(t *testing.T) {
	for _, field := range []string{"modified_at", "created_at"} {
		b := newBench(t)
		b.takes(edited(t, "subscription.active.json", "data."+field, "2999-01-01T00:00:00Z"), ResultUndecodable)
		b.closed("pro", "no_subscription")
		b.takes(sample(t, "subscription.active.json"), ResultApplied)
		b.open("pro", "active")
		b.takes(edited(t, "subscription.active.json", "data.modified_at", "2999-01-01T00:00:00Z", "data.status", "active"), ResultUndecodable)
		b.now = bought.Add(30 * day)
		b.takes(sample(t, "subscription.revoked.json"), ResultUndecodable) // not made yet
		b.now = bought.Add(32 * day)
		b.takes(sample(t, "subscription.revoked.json"), ResultApplied)
		b.closed("pro", "canceled")
	}
}

// One that a skewed clock has made wedges for a day at most.
func TestNearFuture(t *testing.T) {
	b := newBench(t)
	b.takes(edited(t, "subscription.active.json", "data.modified_at", bought.Add(day)), ResultApplied)
	b.takes(edited(t, "subscription.active.json", "data.modified_at", bought.Add(day+time.Microsecond)), ResultUndecodable)
	b.open("pro", "active")
}

// What Polar may send one day does no harm.
func TestLenient(t *testing.T) {
	for name, edits := range map[string][]any{
		"metadata array":    {"data.metadata", []any{1, "x"}},
		"metadata number":   {"data.metadata", 7},
		"metadata null":     {"data.metadata", nil},
		"metadata nested":   {"data.metadata", object{"a": object{"b": []any{1}}, MarkField: object{"x": 1}}},
		"metadata of types": {"data.metadata", object{MarkField: 7, "b": true}},
		"no timestamp":      {"timestamp", gone{}},
		"null timestamp":    {"timestamp", nil},
		"api_version":       {"api_version", object{"year": 2030}},
		"product array":     {"data.product", []any{}},
		"no product":        {"data.product", gone{}},
		"seats null":        {"data.seats", nil},
		"seats gone":        {"data.seats", gone{}},
		"user gone":         {"data.user", gone{}},
		"new currency":      {"data.currency", 7},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.takes(edited(t, "subscription.active.json", edits...), ResultApplied)
			b.open("pro", "active")
		})
	}
	t.Run("a field to come", func(t *testing.T) {
		b, e := newBench(t), event(t, "subscription.active.json")
		e["data"].(object)["units_v2"] = object{"a": 1}
		e["provider"] = object{"a": 1}
		b.takes(body(t, e), ResultApplied)
		b.open("pro", "active")
	})
	t.Run("a status to come", func(t *testing.T) {
		b := newBench(t)
		b.takes(edited(t, "subscription.active.json", "data.status", "hibernating"), ResultApplied)
		b.closed("pro", "unknown_status")
		if d := b.decide(ada, "pro"); d.HTTPStatus != 503 {
			t.Errorf("status %d", d.HTTPStatus)
		}
	})
}

func TestUnknownTypes(t *testing.T) {
	b := newBench(t)
	long := strings.Repeat("x", 5000)
	for _, typ := range []string{"subscription.some_future_event", "SUBSCRIPTION.ACTIVE", "subscription.active ", "x", long, "a\nb"} {
		b.logs.TakeAll()
		b.unchanged(func() {
			r := b.takes(edited(t, "subscription.active.json", "type", typ), ResultUnknown)
			if r.Type != UnknownType {
				t.Errorf("type %q", r.Type) // it becomes a metric's label
			}
		})
		logged := b.logs.TakeAll()
		if len(logged) != 1 || logged[0].ContextMap()["webhook_id"] != fmt.Sprintf("msg-%d", b.taken) {
			t.Fatalf("logged %v", logged)
		}
		if s, ok := logged[0].ContextMap()["type"].(string); !ok || len(s) > 64 {
			t.Errorf("logged type %q", s)
		}
	}
	b.unchanged(func() { b.takes([]byte(`{"type":"x","data":7}`), ResultUnknown) })
	b.closed("pro", "no_subscription")
}

// All 42 documented types are known by name, and only they.
func TestEventKinds(t *testing.T) {
	const documented = "checkout.created checkout.updated checkout.expired customer.created customer.updated customer.deleted " +
		"customer.state_changed customer_seat.assigned customer_seat.claimed customer_seat.revoked member.created member.updated " +
		"member.deleted order.created order.updated order.paid order.refunded subscription.created subscription.updated " +
		"subscription.active subscription.canceled subscription.uncanceled subscription.cycled subscription.revoked " +
		"subscription.past_due subscription.paused subscription.resumed subscription.migrated refund.created refund.updated " +
		"product.created product.updated discount.created discount.updated discount.deleted benefit.created benefit.updated " +
		"benefit_grant.created benefit_grant.cycled benefit_grant.updated benefit_grant.revoked organization.updated"
	types := strings.Fields(documented)
	if len(types) != 42 || len(eventKinds) != 42 {
		t.Errorf("%d documented, %d known", len(types), len(eventKinds))
	}
	b := newBench(t)
	for _, typ := range types {
		r := b.take([]byte(`{"type":"` + typ + `","data":{"id":7}}`))
		if want := map[bool]Result{true: ResultIgnored, false: ResultUndecodable}[eventKinds[typ] == nil]; r.Type != typ || r.Result != want {
			t.Errorf("%s: %+v, want %s", typ, r, want)
		}
	}
	// Each type is read as what its prefix says.
	for _, o := range objects {
		prefix, _, _ := strings.Cut(o.sample, ".")
		for _, typ := range types {
			if p, _, _ := strings.Cut(typ, "."); p == prefix && prefix != "checkout" {
				b := newBench(t)
				b.now = bought.Add(30 * day)
				b.takes(edited(t, o.sample, "type", typ), ResultApplied)
			}
		}
	}
}

func TestClosedStore(t *testing.T) {
	store := cache.New(filepath.Join(t.TempDir(), "polar.db"))
	b := newBench(t, withStore(store))
	b.takes(sample(t, "customer.created.json"), ResultApplied)
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	for _, o := range objects {
		b.now = bought.Add(30 * day)
		if r, err := b.try(sample(t, o.sample)); !errors.Is(err, cache.ErrClosed) || r.Result != "" {
			t.Errorf("%s: %v %+v", o.sample, err, r)
		}
	}
	if r, err := b.try([]byte("{}")); err != nil || r.Result != ResultUndecodable {
		t.Errorf("nothing to write, still: %v %+v", err, r)
	}
	if _, err := b.g.Account("somebody"); !errors.Is(err, cache.ErrClosed) {
		t.Errorf("account: %v", err)
	}

	// And if it was closed before it was ever used.
	store = cache.New(filepath.Join(t.TempDir(), "polar.db"))
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	b = newBench(t, withStore(store))
	if _, err := b.try(sample(t, "customer.created.json")); !errors.Is(err, cache.ErrClosed) {
		t.Error(err)
	}
	if err := b.g.Start(); !errors.Is(err, cache.ErrClosed) || !strings.Contains(err.Error(), "gateway default") {
		t.Error(err)
	}
	if b.g.HashUser(ada) != "" {
		t.Error("a hash without a key")
	}
}

func TestCanceledContext(t *testing.T) {
	b := newBench(t)
	raw := sample(t, "subscription.active.json")
	d, err := b.g.ReadDelivery(signed("id", b.now, raw))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	// It may or may not be written; what counts is that it is not lost.
	if r, err := b.g.TakeWebhook(ctx, d, raw); err == nil && r.Result != ResultApplied || err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("%v %+v", err, r)
	}
	b.take(raw)
	b.open("pro", "active")
}

func TestForeignOrganization(t *testing.T) {
	const other = "0f0f0f0f-2cb6-416d-86dc-283cf0480ff9"
	paths := map[string]string{
		"subscription.active.json": "data.customer.organization_id", "order.paid.one_time.json": "data.customer.organization_id",
		"benefit_grant.created.json": "data.customer.organization_id", "refund.created.json": "data.organization_id",
		"customer.created.json": "data.organization_id", "customer.deleted.json": "data.organization_id",
		"customer.state_changed.json": "data.organization_id", "checkout.updated.json": "data.organization_id",
	}
	foreign := func(t *testing.T, b *bench, raw []byte) {
		t.Helper()
		b.logs.TakeAll()
		b.unchanged(func() {
			if r := b.takes(raw, ResultForeign); r.Type == UnknownType {
				t.Errorf("receipt %+v", r)
			}
		})
		if l := b.logs.TakeAll(); len(l) != 1 || l[0].ContextMap()["webhook_id"] != fmt.Sprintf("msg-%d", b.taken) {
			t.Errorf("logged %v", l)
		}
	}
	for name, path := range paths {
		t.Run(name, func(t *testing.T) {
			configured := newBench(t, withOrganization(other))
			configured.now = bought.Add(30 * day)
			foreign(t, configured, sample(t, name))
			if configured.account(ada).Known() {
				t.Error("a foreign account")
			}
			configured.take(edited(t, name, path, other))

			learned := newBench(t)
			learned.now = bought.Add(30 * day)
			learned.takes(sample(t, "customer.created.json"), ResultApplied)
			foreign(t, learned, edited(t, name, path, other))
			for _, plan := range []string{"pro", "lifetime", "feature"} {
				learned.closed(plan, "no_subscription")
			}
			learned.owns(ada, customer)
			if r := learned.take(sample(t, name)); r.Result == ResultForeign {
				t.Error("our own is foreign")
			}
		})
	}
	t.Run("remembered", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "polar.db")
		store := openStore(t, path)
		newBench(t, withStore(store)).takes(sample(t, "subscription.active.json"), ResultApplied)
		if err := store.Close(); err != nil {
			t.Fatal(err)
		}
		b := newBench(t, withStore(openStore(t, path)))
		b.now = bought.Add(10 * day)
		foreign(t, b, edited(t, "subscription.canceled.json", "data.customer.organization_id", other, "data.modified_at", bought.Add(time.Hour)))
		b.open("pro", "active")
	})
	t.Run("a deleted customer's organization counts, too", func(t *testing.T) {
		b := newBench(t, withOrganization(other))
		foreign(t, b, edited(t, "subscription.active.json", "data.customer.deleted_at", bought))
	})
}

func BenchmarkTakeWebhook(b *testing.B) {
	const placeholder = "2026-10-03T14:21:08.000000Z"
	template := string(edited(b, "subscription.active.json", "data.modified_at", placeholder))
	head, tail, ok := strings.Cut(template, placeholder)
	if !ok {
		b.Fatal("no placeholder")
	}
	version := bought.Add(time.Second)
	b.Run("news", func(b *testing.B) {
		x := newBench(b, func(c *Config) { c.Logger = nil })
		x.now = bought.Add(time.Hour)
		for b.Loop() {
			version = version.Add(time.Microsecond)
			x.takes([]byte(head+version.Format("2006-01-02T15:04:05.000000Z")+tail), ResultApplied)
		}
	})
	b.Run("known", func(b *testing.B) {
		x := newBench(b, func(c *Config) { c.Logger = nil })
		x.takes([]byte(template), ResultApplied)
		for b.Loop() {
			x.takes([]byte(template), ResultKnown)
		}
	})
}

// TestOddExternalIDs: an external id that can be no user's is nobody's.
func TestOddExternalIDs(t *testing.T) {
	for _, id := range []string{strings.Repeat("x", cache.MaxUser+1), strings.Repeat("x", 40_000), "a\x00b", "a\nb", "\x7f", "\u0085", ""} {
		for name, path := range map[string]string{"subscription.active.json": "data.customer.external_id", "customer.created.json": "data.external_id"} {
			b := newBench(t)
			b.takes(edited(t, name, path, id), ResultApplied)
			if b.account(id).Known() || b.account(ada).Known() {
				t.Errorf("%s: %.20q is a user", name, id)
			}
		}
	}
	for _, id := range []string{strings.Repeat("x", cache.MaxUser), "ada@example.org", "a b", "用户", "🙂", "a/b"} {
		b := newBench(t)
		b.takes(edited(t, "subscription.active.json", "data.customer.external_id", id), ResultApplied)
		b.is(id, "pro", true, "active")
		b.owns(id, customer)
	}
}

// TestOddDeletion: a deletion whose date makes no sense is not a customer that
// lives.
func TestOddDeletion(t *testing.T) {
	for _, at := range []string{"1970-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "1500-01-01T00:00:00Z", "9999-12-31T23:59:59Z"} {
		b := newBench(t)
		b.takes(sample(t, "subscription.active.json"), ResultApplied)
		b.now = bought.Add(26 * day)
		r := b.take(edited(t, "customer.deleted.json", "data.deleted_at", at))
		if d := b.decide(ada, "pro"); r.Result != ResultUndecodable && d.Allowed {
			t.Errorf("deleted_at %s: %s, and still %s", at, r.Result, d.Reason)
		}
	}
}

// TestConcurrent: webhooks that come at once, and requests meanwhile.
func TestConcurrent(t *testing.T) {
	l := newLife(t)
	l.buy()
	failed := l.failPayment()
	l.revoke(failed.Add(time.Second), "gr1")
	l.recover(failed.Add(2 * day))

	b := newBench(t)
	b.now = l.now
	q, err := b.g.Rules().Require("pro")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for n := range l.sent {
				raw := l.sent[(n*7+i*5)%len(l.sent)]
				d, err := b.g.ReadDelivery(signed(fmt.Sprint(i, n), b.now, raw))
				if err != nil {
					t.Error(err)
					return
				}
				if r, err := b.g.TakeWebhook(context.Background(), d, raw); err != nil || r.Result == ResultUndecodable {
					t.Errorf("%+v %v", r, err)
				}
			}
		})
		wg.Go(func() {
			for range 200 {
				a, err := b.g.Account(ada)
				if err != nil {
					t.Error(err)
					return
				}
				_ = entitlement.Decide(a, q, b.g.Rules(), b.now)
			}
		})
	}
	wg.Wait()
	for _, raw := range l.sent { // whatever the strides have left out
		b.take(raw)
	}
	if !reflect.DeepEqual(b.account(ada).Facts, l.account(ada).Facts) {
		t.Error("another account")
	}
	b.open("pro", "active")
}

package box

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-polar/caddy-polar/polar"
	"github.com/caddy-polar/caddy-polar/polar/box/internal/contract"
)

const sampleProduct = "59ba1b0d-5c90-4158-a909-406c2e416788"

// sampled is the data of a sample, and its envelope.
func sampled(t *testing.T, event string, o SampleOptions) (e *SampleEvent, data, envelope map[string]any) {
	t.Helper()
	e, err := Sample(event, o)
	if err != nil {
		t.Fatal(event, err)
	}
	if err := json.Unmarshal([]byte(e.Body), &envelope); err != nil {
		t.Fatal(event, err)
	}
	return e, envelope["data"].(map[string]any), envelope
}

// at finds a value in JSON.
func at(v any, path string) any {
	for _, key := range strings.Split(path, ".") {
		m, _ := v.(map[string]any)
		v = m[key]
	}
	return v
}

// dates are days on which calendars are odd, and an ordinary one.
var dates = []string{
	"2026-11-21T23:09:53.5Z", "2027-03-31T12:00:00Z", "2027-03-01T00:00:01Z", "2028-02-29T23:59:59.999999Z", "2026-12-31T23:59:58Z", "2027-01-31T00:00:00Z",
}

var sold = []string{"subscription.active", "order.paid", "customer_seat.claimed", "benefit_grant.created", "checkout.created"}

func TestSampleOfEachEvent(t *testing.T) {
	c := contract.New(t)
	for _, event := range EventTypes() {
		for _, date := range dates {
			now, _ := time.Parse(time.RFC3339Nano, date)
			e, data, envelope := sampled(t, event, SampleOptions{Now: now, User: "ada", Email: "ada@lovelace.example", ProductID: sampleProduct})
			c.Webhook([]byte(e.Body))
			if envelope["type"] != event || envelope["api_version"] != Version || e.Type != event || e.APIVersion != Version {
				t.Error(event, envelope["type"], envelope["api_version"])
			}
			stamped, err := time.Parse(time.RFC3339Nano, envelope["timestamp"].(string))
			if err != nil || stamped.After(now) || now.Sub(stamped) > time.Millisecond {
				t.Errorf("%s on %s happens at %s", event, date, envelope["timestamp"])
			}
			for _, key := range []string{"created_at", "modified_at"} {
				if at, ok := data[key].(string); ok && at > envelope["timestamp"].(string) {
					t.Errorf("%s on %s: %s is %s", event, date, key, at)
				}
			}
			// What is newer is told by this alone, so it has to be now.
			version, _ := data["modified_at"].(string)
			if version == "" {
				version = data["created_at"].(string)
			}
			v, _ := time.Parse(time.RFC3339Nano, version)
			if now.Sub(v) > time.Second && event != "customer.state_changed" && event != "checkout.expired" {
				t.Errorf("%s on %s: the row is of %s", event, date, version)
			}
			if e.ObjectID != data["id"] || e.ProductID != sampleProduct && slices.Contains(sold, event) {
				t.Error(event, e.ObjectID, e.ProductID)
			}
		}
	}
	if n := c.Checked(); n != 42*len(dates) {
		t.Error(n, "were checked")
	}
}

// where each object names the user, the e-mail and the product.
var named = map[string]struct{ user, email, product string }{
	"checkout":      {"external_customer_id", "customer_email", "product_id"},
	"customer":      {"external_id", "email", ""},
	"customer_seat": {"member.external_id", "email", ""},
	"member":        {"external_id", "email", ""},
	"order":         {"customer.external_id", "customer.email", "product_id"},
	"subscription":  {"customer.external_id", "customer.email", "product_id"},
	"product":       {"", "", "id"},
	"benefit_grant": {"customer.external_id", "customer.email", ""},
}

func TestSampleNamesWhomItIsToldTo(t *testing.T) {
	o := SampleOptions{User: "ada", Email: "ada@lovelace.example", ProductID: sampleProduct, OrganizationID: "6f0c3a51-0d8e-4a5e-9d43-0b6a1c2d3e4f"}
	for _, event := range EventTypes() {
		e, data, _ := sampled(t, event, o)
		object, _, _ := strings.Cut(event, ".")
		want := named[object]
		switch event {
		case "customer_seat.assigned":
			want.user = "" // Polar says who it is when they have claimed it
		case "customer_seat.revoked":
			want.user, want.email = "", ""
		}
		for path, value := range map[string]string{want.user: o.User, want.email: o.Email, want.product: o.ProductID} {
			if path != "" && at(data, path) != value {
				t.Errorf("%s: %s is %v, want %s", event, path, at(data, path), value)
			}
		}
		if n := len(regexp.MustCompile(`"organization_id":"`).FindAllString(e.Body, -1)); n != strings.Count(e.Body, `"organization_id":"`+o.OrganizationID) {
			t.Error(event, "is of another organization")
		}
	}
}

// TestSampleTellsOfNow looks at what decides.
func TestSampleTellsOfNow(t *testing.T) {
	now := time.Now()
	for event, status := range map[string]string{
		"subscription.created": "active", "subscription.active": "active", "subscription.updated": "active", "subscription.canceled": "active",
		"subscription.uncanceled": "active", "subscription.cycled": "active", "subscription.migrated": "active", "subscription.resumed": "active",
		"subscription.past_due": "past_due", "subscription.paused": "paused", "subscription.revoked": "canceled",
	} {
		_, data, _ := sampled(t, event, SampleOptions{Now: now})
		start, _ := time.Parse(time.RFC3339Nano, data["current_period_start"].(string))
		end, _ := time.Parse(time.RFC3339Nano, data["current_period_end"].(string))
		days := end.Sub(start).Hours() / 24
		if status != "paused" && !(start.Before(now) && end.After(now.Add(day)) && days > 27 && days < 33) {
			t.Errorf("%s: from %s to %s", event, start, end)
		}
		if data["status"] != status || (data["cancel_at_period_end"] == true) != (event == "subscription.canceled") {
			t.Errorf("%s: %s", event, data["status"])
		}
		if old := now.Sub(start) > time.Minute; old == (event == "subscription.cycled") && event != "subscription.created" && event != "subscription.active" &&
			event != "subscription.past_due" && event != "subscription.resumed" {
			t.Errorf("%s: the period began at %s", event, start)
		}
	}
	_, order, _ := sampled(t, "order.paid", SampleOptions{Now: now})
	if order["status"] != "paid" || order["subscription_id"] != nil {
		t.Error(order["status"], order["subscription_id"])
	}
}

func TestSamplesAreOfDifferentObjects(t *testing.T) {
	uuid := regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}`)
	a, first, _ := sampled(t, "subscription.active", SampleOptions{})
	b, second, _ := sampled(t, "subscription.active", SampleOptions{})
	ids := uuid.FindAllString(b.Body, -1)
	for _, id := range uuid.FindAllString(a.Body, -1) {
		if id != SampleOrganization && slices.Contains(ids, id) {
			t.Error(id, "is in both")
		}
	}
	if a.ID == b.ID || !uuid.MatchString(a.ID) || strings.Contains(a.Body, a.ID) {
		t.Error(a.ID, b.ID)
	}
	if at(first, "customer.external_id") != "usr_demo" || at(second, "customer.email") != "usr_demo@example.com" {
		t.Error(first["customer"], second["customer"])
	}
}

func TestSampleOfOddUsers(t *testing.T) {
	for user, email := range map[string]string{
		"ada@example.org": "ada@example.org", "Überall Ω": "berall@example.com", "Ω": "demo@example.com", "<b>\"x\"\\": "bx@example.com",
		strings.Repeat("x", 200): strings.Repeat("x", 64) + "@example.com", "billing": "billing@example.com",
	} {
		for _, event := range []string{"subscription.active", "customer_seat.claimed", "member.created"} {
			_, data, _ := sampled(t, event, SampleOptions{User: user})
			object, _, _ := strings.Cut(event, ".")
			if got := at(data, named[object].user); got != user {
				t.Errorf("%s: %q is %q", event, user, got)
			}
			if got := at(data, named[object].email); got != email {
				t.Errorf("%s: %q has %q", event, user, got)
			}
		}
	}
}

func TestSampleWithSettings(t *testing.T) {
	set := func(texts ...string) (out []Setting) {
		for _, text := range texts {
			s, err := ParseSetting(text)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, s)
		}
		return out
	}
	e, data, _ := sampled(t, "subscription.updated", SampleOptions{Set: set(
		"id=2b0f5c1e-7d0e-4f6a-9a3c-1f0d2e3c4b5a", "status=past_due", "seats=3", "amount=12345678901234567890", "past_due_at=2026-11-21T10:00:00Z",
		"customer.name=Ada & Co", `metadata.a.b=true`, "data.metadata.c=", "product.benefits.0.description=first",
		`customer.billing_address={"country":"DE"}`, "customer.billing_address.country=AT", `customer.metadata={"x":"y=z"}`, "discount_id=null",
	)})
	for path, want := range map[string]any{
		"id": e.ObjectID, "status": "past_due", "seats": 3.0, "customer.name": "Ada & Co", "customer.billing_address.country": "AT",
		"customer.metadata.x": "y=z", "metadata.c": "", "discount_id": nil, "past_due_at": "2026-11-21T10:00:00Z",
	} {
		if got := at(data, path); got != want {
			t.Errorf("%s is %v, want %v", path, got, want)
		}
	}
	if data["metadata"].(map[string]any)["a.b"] != true || !strings.Contains(e.Body, `"amount":12345678901234567890`) {
		t.Error(data["metadata"], data["amount"])
	}
	if got := at(data["product"].(map[string]any)["benefits"].([]any)[0], "description"); got != "first" {
		t.Error(got)
	}
	if e.ObjectID != "2b0f5c1e-7d0e-4f6a-9a3c-1f0d2e3c4b5a" {
		t.Error(e.ObjectID)
	}
}

func TestSampleThatCannotBe(t *testing.T) {
	for text, want := range map[string]string{
		"status": "not key=value", "=x": "not key=value", "a..b=1": "not key=value", ".=1": "not key=value", "": "not key=value",
	} {
		if _, err := ParseSetting(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
	for path, want := range map[string]string{
		"statsu": "did you mean status?", "customer.externalid": "did you mean external_id?", "nothing_like_it": "but amount,",
		"product.benefits.1.id": "a list of 1", "product.benefits.x": "a list of 1", "status.x": "no object", "pending_update.product_id": "null",
		"id": "string", // of a number
	} {
		if _, err := Sample("subscription.active", SampleOptions{Set: []Setting{{path, json.Number("1")}}}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", path, err)
		}
	}
	for event, want := range map[string]string{
		"subscription.activ": "did you mean subscription.active?", "subscription.cancelled": "did you mean subscription.canceled?",
		"order_paid": "did you mean order.paid?", "refund.bounced_back": "there are refund.created, refund.updated", "": "subscription.active",
		"quite something else": "subscription.active", strings.Repeat("x", 1<<20): "subscription.active",
	} {
		_, err := Sample(event, SampleOptions{})
		if err == nil || !strings.Contains(err.Error(), want) || len(err.Error()) > 300 {
			t.Errorf("%.64s: %v", event, err)
		}
	}
}

// TestKindOfSecret signs a sample with secrets of all kinds.
func TestKindOfSecret(t *testing.T) {
	b := New(Options{})
	e, _, _ := sampled(t, "subscription.active", SampleOptions{})
	for kind, want := range map[SecretKind]SecretKind{
		SecretStandard: SecretStandard, SecretWhsec: SecretMerchant, SecretPolarWHS: SecretMerchant, SecretMerchant: SecretMerchant, SecretListen: SecretMerchant,
	} {
		secret := b.newSecret(kind)
		got := KindOf(secret)
		if got != want {
			t.Errorf("%s is of kind %d", secret, got)
		}
		v, err := polar.NewWebhookVerifier(secret)
		if err != nil {
			t.Fatal(err)
		}
		d, err := polar.ReadDelivery(e.Signed(secret, got, time.Now()), time.Now())
		if err != nil || d.ID != e.ID || d.APIVersion != Version {
			t.Fatal(d, err)
		}
		if err := v.Verify(d, []byte(e.Body)); err != nil {
			t.Error(secret, err)
		}
		if err := v.Verify(d, []byte(e.Body+" ")); err == nil {
			t.Error("any body will do")
		}
	}
	for _, secret := range []string{"", "whsec_", "whsec_" + strings.Repeat("A", 44), "whsec_" + strings.Repeat("-", 43) + "=", strings.Repeat("A", 43) + "="} {
		if KindOf(secret) != SecretMerchant {
			t.Error(secret)
		}
	}
}

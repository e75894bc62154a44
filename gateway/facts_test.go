package gateway

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"github.com/caddy-polar/caddy-polar/cache"
	"github.com/caddy-polar/caddy-polar/entitlement"
	"github.com/caddy-polar/caddy-polar/polar"
)

// facts reads one body as the gateway does.
func facts(t *testing.T, raw []byte) *cache.Facts {
	t.Helper()
	e, err := polar.DecodeEvent(raw)
	if err != nil {
		t.Fatal(err)
	}
	f := &cache.Facts{}
	r := reader{asOf: e.Timestamp, latest: mustTime("2027-06-01T00:00:00Z"), facts: f, user: func(m polar.Metadata) string { return m[MarkField] }}
	if err := eventKinds[e.Type](&r, e); err != nil {
		t.Fatal(err)
	}
	return f
}

func wantFacts(t *testing.T, got, want *cache.Facts) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestFactsOfSubscription(t *testing.T) {
	raw := edited(t, "subscription.paused.json",
		"data.trial_end", "2026-10-01T00:00:00Z", "data.canceled_at", "2026-10-02T00:00:00Z", "data.ends_at", "2026-10-04T00:00:00Z",
		"data.ended_at", "2026-10-05T00:00:00Z", "data.past_due_at", "2026-10-06T00:00:00Z", "data.paused_at", "2026-10-07T00:00:00Z",
		"data.resumes_at", "2026-10-08T02:00:00+02:00", "data.cancel_at_period_end", true, "data.pause_at_period_end", true,
		"data.seats", 0, "data.metadata", object{MarkField: "u", "user_id": "v"}, "data.status", "paused",
		"data.pending_update", object{"applies_at": "2026-10-09T00:00:00.1234567Z", "product_id": teamProduct})
	at := func(day int) time.Time { return time.Date(2026, 10, day, 0, 0, 0, 0, time.UTC) }
	wantFacts(t, facts(t, raw), &cache.Facts{
		Organization: acme,
		Names:        []cache.Name{{Customer: customer, ExternalID: ada}},
		Subscriptions: []entitlement.Subscription{{
			Version: entitlement.Version{Row: mustTime("2026-11-03T14:21:08.519341Z"), AsOf: mustTime("2026-11-03T14:21:08.618341Z")},
			ID:      subID, CustomerID: customer, ProductID: proProduct, CheckoutID: "990d3cd8-381d-422f-850c-86bd84e0164b",
			Status: "paused", MetadataUser: "u", PeriodStart: bought, PeriodEnd: mustTime("2026-11-03T14:21:07.318204Z"),
			TrialEnd: at(1), CanceledAt: at(2), EndsAt: at(4), EndedAt: at(5), PastDueAt: at(6), PausedAt: at(7), ResumesAt: at(8),
			CancelAtPeriodEnd: true, PauseAtPeriodEnd: true, Seats: true,
			PendingProductID: teamProduct, PendingAt: at(9).Add(123456 * time.Microsecond),
		}},
	})
	// Until the first change the row's time is created_at.
	f := facts(t, sample(t, "subscription.active.json"))
	if got, want := f.Subscriptions[0].Version, (entitlement.Version{Row: bought, AsOf: mustTime("2026-10-03T14:21:07.413341Z")}); got != want {
		t.Errorf("version %v, want %v", got, want)
	}
	if f.Subscriptions[0].Seats {
		t.Error("seats null are seats")
	}
}

func TestFactsOfTheOthers(t *testing.T) {
	names := []cache.Name{{Customer: customer, ExternalID: ada}}
	wantFacts(t, facts(t, edited(t, "order.refunded.json", "data.seats", 2, "data.metadata", object{MarkField: "u"}, "data.subscription_id", subID)), &cache.Facts{
		Organization: acme, Names: names,
		Orders: []entitlement.Order{{
			Version: entitlement.Version{Row: mustTime("2026-10-09T14:21:07.318204Z"), AsOf: mustTime("2026-10-09T14:21:08.118341Z")},
			ID:      "8a9e1df7-e771-476e-ad78-3715ee6f7a8f", CustomerID: customer, ProductID: lifetimeProduct, SubscriptionID: subID,
			CheckoutID: "e07cb579-3e7f-497b-bcc1-c0c8b0cdf20a", Status: "refunded", MetadataUser: "u", Seats: true,
		}},
	})
	wantFacts(t, facts(t, edited(t, "benefit_grant.revoked.json", "data.order_id", "ord")), &cache.Facts{
		Organization: acme, Names: names,
		Grants: []entitlement.Grant{{
			Version: entitlement.Version{Row: mustTime("2026-11-03T14:21:09.618341Z"), AsOf: mustTime("2026-11-03T14:21:09.718341Z")},
			ID:      "4350cc17-21e5-4f21-acd5-52a09ddbef12", CustomerID: customer, BenefitID: featureBenefit, SubscriptionID: subID,
			OrderID: "ord", MemberID: "1dcd327f-761e-47cb-bb7e-8913655c1d15", Revoked: true, RevokedAt: mustTime("2026-11-03T14:21:09.617341Z"),
		}},
	})
	if g := facts(t, sample(t, "benefit_grant.created.seat_member.json")).Grants[0]; !g.ForMember || !g.Granted {
		t.Errorf("%+v", g)
	}
	wantFacts(t, facts(t, sample(t, "customer.deleted.json")), &cache.Facts{
		Organization: acme,
		Customers: []entitlement.Customer{{
			Version: entitlement.Version{Row: mustTime("2026-10-28T14:21:07.318204Z"), AsOf: mustTime("2026-10-28T14:21:07.718341Z")},
			ID:      customer, ExternalID: ada, DeletedAt: mustTime("2026-10-28T14:21:07.318204Z"),
		}},
	})
	// Of a checkout nothing but whose customer it made: not the user that
	// the one who opened it claims to be.
	wantFacts(t, facts(t, edited(t, "checkout.updated.json", "data.metadata", object{MarkField: "u"})), &cache.Facts{
		Organization: acme,
		Checkouts:    []cache.Checkout{{ID: "990d3cd8-381d-422f-850c-86bd84e0164b", CustomerID: customer}},
	})
	wantFacts(t, facts(t, edited(t, "checkout.updated.json", "data.customer_id", nil)), &cache.Facts{Organization: acme})
}

func TestFactsOfState(t *testing.T) {
	wantFacts(t, facts(t, sample(t, "customer.state_changed.json")), &cache.Facts{
		Organization: acme,
		Customers: []entitlement.Customer{{
			Version: entitlement.Version{Row: bought, AsOf: mustTime("2026-10-03T14:21:09.918341Z")}, ID: customer, ExternalID: ada,
		}},
	})
}

func TestFactsOfRefund(t *testing.T) {
	for _, tc := range []struct {
		edits                             []any
		succeeded, revoke, disputed, lost bool
	}{
		{nil, true, true, false, false},
		{[]any{"data.status", "pending"}, false, true, false, false},
		{[]any{"data.status", "failed"}, false, true, false, false},
		{[]any{"data.status", "canceled"}, false, true, false, false},
		{[]any{"data.revoke_benefits", false}, true, false, false, false},
		{[]any{"data.reason", "dispute_prevention"}, true, true, true, false},
		{[]any{"data.dispute", object{"status": "needs_response"}}, true, true, true, false},
		{[]any{"data.dispute", object{"status": "lost"}}, true, true, true, true},
		{[]any{"data.dispute", object{"status": "won"}}, true, true, false, false},
		{[]any{"data.dispute", object{}}, true, true, true, false},
	} {
		wantFacts(t, facts(t, edited(t, "refund.created.json", tc.edits...)), &cache.Facts{
			Organization: acme,
			Refunds: []entitlement.Refund{{
				Version: entitlement.Version{Row: mustTime("2026-10-09T14:21:07.318204Z"), AsOf: mustTime("2026-10-09T14:21:07.818341Z")},
				ID:      "61796ac4-1055-4b62-9804-abbec2b8c1c5", CustomerID: customer, OrderID: "8a9e1df7-e771-476e-ad78-3715ee6f7a8f",
				Succeeded: tc.succeeded, RevokeBenefits: tc.revoke, Disputed: tc.disputed, DisputeLost: tc.lost,
			}},
		})
	}
}

// nestedIn are the samples that carry a customer.
var nestedIn = []struct{ name, plan string }{
	{"subscription.active.json", "pro"}, {"order.paid.one_time.json", "lifetime"}, {"benefit_grant.created.json", "feature"},
}

func TestNestedCustomerIsWriteOnce(t *testing.T) {
	for _, n := range nestedIn {
		t.Run(n.name, func(t *testing.T) {
			b := newBench(t)
			b.now = bought.Add(10 * day)
			later := func(days int, edits ...any) []byte {
				return edited(t, n.name, append([]any{"data.modified_at", bought.Add(time.Duration(days) * day)}, edits...)...)
			}
			b.takes(later(1, "data.customer.external_id", nil), ResultApplied)
			if b.decide(ada, n.plan).Allowed {
				t.Error("open to nobody's")
			}
			// A deleted customer's id is free for another one.
			b.takes(later(2, "data.customer.deleted_at", bought), ResultApplied)
			if b.decide(ada, n.plan).Allowed || b.account(ada).Known() {
				t.Error("an external id was taken from a deleted customer")
			}
			b.takes(later(3), ResultApplied)
			check := func(what string) {
				t.Helper()
				if !b.decide(ada, n.plan).Allowed {
					t.Errorf("%s: closed", what)
				}
				if b.account("mallory").Known() {
					t.Errorf("%s: an account of mallory", what)
				}
				b.owns(ada, customer)
			}
			check("set")
			b.takes(later(4, "data.customer.external_id", "mallory"), ResultApplied)
			check("another value")
			b.takes(later(5, "data.customer.external_id", nil), ResultApplied)
			check("null")
			b.takes(later(6, "data.customer.deleted_at", bought), ResultApplied)
			check("deleted_at: a nested customer deletes nothing")
			b.takes(later(7, "data.customer", nil), ResultApplied)
			check("no customer")
		})
	}
}

func TestNestedCustomerDoesNotRevive(t *testing.T) {
	for _, n := range nestedIn {
		b := newBench(t)
		b.now = bought.Add(30 * day)
		b.takes(sample(t, n.name), ResultApplied)
		b.takes(sample(t, "customer.deleted.json"), ResultApplied)
		b.closed(n.plan, "customer_deleted")
		b.takes(edited(t, n.name, "data.modified_at", bought.Add(29*day), "data.customer.deleted_at", nil), ResultApplied)
		b.closed(n.plan, "customer_deleted")
		b.owns(ada, "")
	}
}

// An older webhook may still tell the external id that a newer one lacked.
func TestStaleObjectTellsTheName(t *testing.T) {
	b := newBench(t)
	b.takes(edited(t, "subscription.active.json", "data.customer.external_id", nil, "data.modified_at", bought.Add(time.Hour)), ResultApplied)
	b.closed("pro", "no_subscription")
	b.take(sample(t, "subscription.created.json"))
	b.open("pro", "active")
}

func TestNewsThatIsNoObjectIsApplied(t *testing.T) {
	b := newBench(t)
	b.takes(edited(t, "subscription.active.json", "data.customer.external_id", nil, "data.modified_at", bought.Add(time.Hour)), ResultApplied)
	// It opens a door, so it is no old news.
	b.takes(sample(t, "subscription.created.json"), ResultApplied)
}

func TestCustomerNullNeverOverwrites(t *testing.T) {
	b := newBench(t)
	b.now = bought.Add(2 * day)
	b.takes(sample(t, "subscription.active.json"), ResultApplied)
	b.takes(edited(t, "customer.updated.json", "data.external_id", nil), ResultApplied)
	b.open("pro", "active")
	b.owns(ada, customer)
}

func TestNestedObjectsChangeNothing(t *testing.T) {
	b := newBench(t)
	b.now = bought.Add(20 * day)
	// An order tells of an active subscription and a product of a plan.
	b.takes(sample(t, "order.paid.json"), ResultApplied)
	b.closed("any", "no_subscription")
	b.takes(edited(t, "order.paid.one_time.json", "data.product.id", proProduct), ResultApplied)
	b.closed("pro", "plan_required")
	b.open("lifetime", "purchased")

	b = newBench(t)
	b.now = bought.Add(20 * day)
	b.takes(sample(t, "subscription.active.json"), ResultApplied)
	b.closed("feature", "plan_required") // the product has the benefit, nobody has granted it
	canceled := edited(t, "subscription.active.json", "data.modified_at", bought.Add(5*day), "data.status", "canceled", "data.ended_at", bought.Add(5*day))
	b.takes(canceled, ResultApplied)
	b.closed("pro", "canceled")
	b.takes(edited(t, "order.paid.json", "data.modified_at", bought.Add(6*day),
		"data.subscription.status", "active", "data.subscription.modified_at", bought.Add(6*day)), ResultApplied)
	b.closed("pro", "canceled")
	b.takes(edited(t, "order.paid.json", "data.modified_at", bought.Add(7*day), "data.subscription.product_id", teamProduct), ResultApplied)
	b.closed("team", "no_subscription")

	b = newBench(t)
	b.now = bought.Add(20 * day)
	b.takes(edited(t, "subscription.active.json", "data.product_id", "other", "data.product.id", proProduct), ResultApplied)
	b.closed("pro", "no_subscription")
	b.takes(edited(t, "subscription.active.json", "data.modified_at", bought.Add(day), "data.product.id", teamProduct), ResultApplied)
	b.open("pro", "active")
	b.closed("team", "plan_required")

	b = newBench(t)
	b.takes(edited(t, "benefit_grant.created.json", "data.benefit.id", licenceBenefit), ResultApplied)
	b.open("feature", "benefit")
	b.closed("licence", "plan_required")
}

func TestStateOpensAndClosesNothing(t *testing.T) {
	b := newBench(t)
	b.takes(sample(t, "customer.state_changed.json"), ResultApplied)
	for _, plan := range []string{"any", "pro", "feature"} {
		b.closed(plan, "no_subscription")
	}
	b.owns(ada, customer)

	// Its own fields do count: the external id opens what was nobody's.
	b = newBench(t)
	b.takes(sample(t, "subscription.active.external_id_null.json"), ResultApplied)
	b.takes(sample(t, "customer.state_changed.json"), ResultApplied)
	b.open("pro", "active")

	// What vanished from it is still there: past_due does so at once.
	b = newBench(t)
	b.takes(sample(t, "subscription.active.json"), ResultApplied)
	b.takes(sample(t, "benefit_grant.created.json"), ResultApplied)
	b.takes(edited(t, "customer.state_changed.no_access.json", "timestamp", bought.Add(time.Minute)), ResultApplied)
	b.open("pro", "active")
	b.open("feature", "active")

	// A state tells of a deletion.
	b.now = bought.Add(day)
	b.takes(edited(t, "customer.state_changed.json", "data.modified_at", bought.Add(day), "data.deleted_at", bought.Add(day)), ResultApplied)
	b.closed("pro", "customer_deleted")
	b.owns(ada, "")
}

func TestCheckoutProvesNothing(t *testing.T) {
	b := newBench(t)
	b.take(edited(t, "checkout.updated.json", "data.external_customer_id", "mallory", "data.customer_external_id", "mallory"))
	b.takes(sample(t, "subscription.active.external_id_null.json"), ResultApplied) // of that checkout
	for _, user := range []string{"mallory", ada} {
		if b.account(user).Known() {
			t.Errorf("%s has an account", user)
		}
	}
}

// Webhooks that are made up name an organization that nobody has: it is neither
// learned nor foreign.
func TestNoOrganization(t *testing.T) {
	b := newBench(t)
	for _, change := range []any{polar.NoOrganization, acme, polar.NoOrganization} {
		b.now = b.now.Add(time.Minute)
		b.takes(edited(t, "subscription.active.json", "data.modified_at", b.now, "data.customer.organization_id", change), ResultApplied)
	}
	b.takes(edited(t, "subscription.active.json", "data.modified_at", b.now.Add(time.Minute), "data.customer.organization_id", "0f4a2c0e-93b7-4f0e-8a51-6a2d0d5f9c11"), ResultForeign)
}

// A checkout that this gateway opened keeps its user, whatever Polar says of
// it, and what it sold is that user's.
func TestOwnCheckoutKeepsItsUser(t *testing.T) {
	b := newBench(t)
	if err := b.g.Start(); err != nil {
		t.Fatal(err)
	}
	_, err := b.store.Apply(t.Context(), &cache.Facts{Checkouts: []cache.Checkout{{ID: "990d3cd8-381d-422f-850c-86bd84e0164b", User: "opener"}}})
	if err != nil {
		t.Fatal(err)
	}
	b.take(sample(t, "checkout.updated.json"))
	b.takes(sample(t, "subscription.active.json"), ResultApplied)
	b.is("opener", "pro", true, "active")
	b.closed("pro", "no_subscription")
	b.owns("opener", "")
	b.owns(ada, "")
}

func TestSeatsGiveTheBuyerNothing(t *testing.T) {
	const buyer = "org_acme"
	bodies := []string{"subscription.active.seats.json", "benefit_grant.created.seat_member.json"}
	for _, order := range [][]int{{0, 1}, {1, 0}, {1}, {0}} {
		b := newBench(t)
		b.now = bought.Add(4 * time.Hour)
		for _, i := range order {
			b.takes(sample(t, bodies[i]), ResultApplied)
			for _, plan := range []string{"any", "seats", "feature"} {
				b.is(buyer, plan, false, "no_subscription")
			}
		}
	}
	b := newBench(t)
	b.now = bought.Add(3 * day)
	b.takes(edited(t, "order.paid.one_time.json", "data.seats", 3), ResultApplied)
	b.closed("lifetime", "no_subscription")
}

func TestActionRequiredIsNotGranted(t *testing.T) {
	b := newBench(t)
	b.takes(sample(t, "subscription.active.json"), ResultApplied)
	b.takes(sample(t, "benefit_grant.created.action_required.json"), ResultApplied)
	b.closed("feature", "plan_required")
	b.takes(edited(t, "benefit_grant.created.json", "data.modified_at", bought.Add(time.Minute)), ResultApplied)
	b.open("feature", "active")
}

// Of two states with the same modified_at the one told later counts.
func TestTies(t *testing.T) {
	active := edited(t, "subscription.active.json", "data.modified_at", bought.Add(time.Minute), "timestamp", bought.Add(time.Minute))
	paused := edited(t, "subscription.active.json", "data.modified_at", bought.Add(time.Minute), "timestamp", bought.Add(time.Minute+time.Microsecond), "data.status", "paused")
	for _, bodies := range [][][]byte{{active, paused}, {paused, active}} {
		b := newBench(t)
		b.now = bought.Add(time.Hour)
		for _, raw := range bodies {
			b.take(raw)
		}
		b.closed("pro", "paused")
	}
	// modified_at counts before the timestamp: a transaction may be slow.
	b := newBench(t)
	b.now = bought.Add(time.Hour)
	b.takes(edited(t, "subscription.active.json", "data.modified_at", bought.Add(2*time.Minute), "timestamp", bought.Add(2*time.Minute), "data.status", "paused"), ResultApplied)
	b.takes(edited(t, "subscription.active.json", "data.modified_at", bought.Add(time.Minute), "timestamp", bought.Add(3*time.Minute)), ResultKnown)
	b.closed("pro", "paused")
}

// FuzzTakeWebhook: whatever a verified body holds, taking it is no failure.
func FuzzTakeWebhook(f *testing.F) {
	for _, name := range sampleNames(f) {
		f.Add(sample(f, name))
	}
	b := newBench(f, func(c *Config) { c.Logger = nil })
	b.now = mustTime("2026-12-04T00:00:00Z")
	f.Fuzz(func(t *testing.T, raw []byte) {
		b.t = t
		r, err := b.try(raw)
		if err != nil {
			t.Fatal(err)
		}
		if _, known := eventKinds[r.Type]; !known && r.Type != UnknownType {
			t.Fatalf("label %q", r.Type)
		}
		if !json.Valid(raw) && r.Result != ResultUndecodable {
			t.Fatalf("%s", r.Result)
		}
	})
}

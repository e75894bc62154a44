package box

import (
	"encoding/json"
	"slices"
	"testing"
	"time"
)

// team is a product that is sold by seats.
func (s *shop) team(tiers ...SeatTier) Product {
	s.t.Helper()
	if len(tiers) == 0 {
		tiers = []SeatTier{{Min: 1, PerSeat: 1200}}
	}
	x := s.AddBenefit(Benefit{Description: "Team features"})
	return s.AddProduct(Product{Name: "Team", Interval: "month", Price: Price{Tiers: tiers}, BenefitIDs: []string{x.ID}})
}

// buySeats buys as a merchant's checkout does, which has its own success URL.
func (s *shop) buySeats(p Product, seats int) (Subscription, Customer) {
	s.t.Helper()
	c := must[Checkout](s.t)(s.CreateCheckout(Checkout{
		ProductIDs: []string{p.ID}, ExternalCustomerID: "org_acme", CustomerEmail: "ops@acme.example", CustomerName: "Acme Corp",
		Seats: seats, SuccessURL: "https://app.example/ok",
	}))
	c = must[Checkout](s.t)(s.Confirm(c.ID, Payment{}))
	s.Settle()
	customer, _ := s.Customer(c.CustomerID)
	sub, _ := s.Subscription(c.SubscriptionID)
	return sub, customer
}

// claimed assigns a seat, and claims it.
func (s *shop) claimed(a SeatAssignment) Seat {
	s.t.Helper()
	seat := must[Seat](s.t)(s.AssignSeat(a))
	token, ok := s.Invitation(seat.ID)
	if !ok {
		s.t.Fatal("no invitation")
	}
	seat = must[Seat](s.t)(s.ClaimSeat(token))
	s.Settle()
	return seat
}

// rarely lives through what few customers do, so that all types of events come.
func (s *shop) rarely() {
	s.t.Helper()
	sub, acme := s.buySeats(s.team(), 3)
	seat := s.claimed(SeatAssignment{SubscriptionID: sub.ID, Email: "grace@acme.example", Metadata: map[string]any{"team": "research"}})
	must[Seat](s.t)(s.RevokeSeat(seat.ID))
	m := must[Member](s.t)(s.AddMember(Member{CustomerID: acme.ID, Email: "alan@acme.example", ExternalID: "usr_a"}))
	name := "Alan"
	must[Member](s.t)(s.UpdateMember(m.ID, MemberUpdate{Name: &name}))
	if err := s.RemoveMember(m.ID); err != nil {
		s.t.Fatal(err)
	}

	note := s.AddBenefit(Benefit{Type: "custom", Description: "A note"})
	noted := s.AddProduct(Product{Name: "Noted", Interval: "month", Price: Price{Amount: 500}, BenefitIDs: []string{note.ID}})
	mover := must[Customer](s.t)(s.CreateCustomer(Customer{Email: "joan@example.org", ExternalID: "usr_m"}))
	must[Subscription](s.t)(s.MigrateSubscription(Migration{
		CustomerID: mover.ID, ProductID: noted.ID, Provider: "stripe", ProviderSubscriptionID: "sub_1QInvented",
	}))
	s.Settle()
	must[Benefit](s.t)(s.UpdateBenefit(note.ID, BenefitUpdate{Properties: map[string]any{"note": "Hello"}}))
	must[Product](s.t)(s.UpdateProduct(noted.ID, ProductUpdate{Name: &name}))
	s.UpdateOrganization(OrganizationUpdate{Name: &name})

	d := s.AddDiscount(Discount{Name: "All of it", Code: "ALL", BasisPoints: 10000})
	must[Discount](s.t)(s.UpdateDiscount(d.ID, DiscountUpdate{Name: &name}))
	if err := s.DeleteDiscount(d.ID); err != nil {
		s.t.Fatal(err)
	}
	bought := must[Checkout](s.t)(s.Buy("usr_r", "rita@example.org", s.once.ID))
	r := must[Refund](s.t)(s.Refund(Refund{OrderID: s.Orders(bought.CustomerID)[0].ID, Status: "pending"}))
	must[Refund](s.t)(s.SettleRefund(r.ID, true))
	must[Checkout](s.t)(s.CreateCheckout(Checkout{ProductIDs: []string{s.pro.ID}}))
	s.Advance(checkoutTTL + time.Minute)
	s.Settle()
}

// allTypes are Polar's, in the order of its own list.
var allTypes = []string{
	"checkout.created", "checkout.updated", "checkout.expired",
	"customer.created", "customer.updated", "customer.deleted", "customer.state_changed",
	"customer_seat.assigned", "customer_seat.claimed", "customer_seat.revoked",
	"member.created", "member.updated", "member.deleted",
	"order.created", "order.updated", "order.paid", "order.refunded",
	"subscription.created", "subscription.updated", "subscription.active", "subscription.canceled", "subscription.uncanceled",
	"subscription.cycled", "subscription.revoked", "subscription.past_due", "subscription.paused", "subscription.resumed",
	"subscription.migrated",
	"refund.created", "refund.updated",
	"product.created", "product.updated",
	"discount.created", "discount.updated", "discount.deleted",
	"benefit.created", "benefit.updated",
	"benefit_grant.created", "benefit_grant.cycled", "benefit_grant.updated", "benefit_grant.revoked",
	"organization.updated",
}

func TestAllTypesOfEventsAreTold(t *testing.T) {
	if len(allTypes) != 42 {
		t.Fatal(len(allTypes), "types")
	}
	if !slices.Equal(slices.Sorted(slices.Values(allTypes)), slices.Sorted(slices.Values(eventTypes))) {
		t.Error("endpoints can want other types")
	}
	last := everything(t)
	for _, kind := range allTypes {
		if _, ok := last[kind]; !ok {
			t.Error("no life tells of", kind)
		}
	}
	for kind := range last {
		if !slices.Contains(allTypes, kind) {
			t.Error("Polar has no", kind)
		}
	}
}

func TestMigratedSubscription(t *testing.T) {
	s := newShop(t, Options{})
	r, _ := s.receive(Endpoint{Events: []string{"subscription.migrated", "subscription.updated"}})
	c := must[Customer](t)(s.CreateCustomer(Customer{Email: "ada@example.org", ExternalID: "usr_1"}))
	s.Settle()
	s.news()
	start := s.Now().Add(-10 * day)
	sub := must[Subscription](t)(s.MigrateSubscription(Migration{
		CustomerID: c.ID, ProductID: s.pro.ID, Provider: "stripe", ProviderSubscriptionID: `sub_"1"`, PeriodStart: start,
	}))
	s.Settle()
	events := s.expect("subscription.migrated", "subscription.updated", "benefit_grant.created")
	f := fields(t, events[0])
	if f["modified_at"] == nil || f["status"] != "active" || f["checkout_id"] != nil || f["metadata"].(map[string]any)["provider"] != "stripe" {
		t.Error(string(events[0].Data))
	}
	hooks := r.take()
	for i, want := range []any{"stripe", nil} {
		var body map[string]any
		if err := json.Unmarshal([]byte(hooks[i].body), &body); err != nil {
			t.Fatal(err, hooks[i].body)
		}
		if body["provider"] != want || (body["provider_subscription_id"] == `sub_"1"`) != (want != nil) {
			t.Error(hooks[i].kind, body["provider"], body["provider_subscription_id"])
		}
	}
	if !sub.CurrentPeriodEnd.Equal(start.AddDate(0, 1, 0)) {
		t.Error(sub.CurrentPeriodEnd)
	}
	s.AdvanceTo(sub.CurrentPeriodEnd.Add(time.Minute))
	s.expect("subscription.cycled", "subscription.updated", "order.created", "order.updated", "order.paid", "benefit_grant.cycled")
	_, err := s.MigrateSubscription(Migration{CustomerID: c.ID, ProductID: s.once.ID})
	refusal(t, err, 422, "PolarRequestValidationError")
	_, err = s.MigrateSubscription(Migration{CustomerID: c.ID, ProductID: s.pro.ID, PeriodStart: start.Add(-60 * day)})
	refusal(t, err, 422, "PolarRequestValidationError")
}

func TestGrantThatNeedsTheCustomer(t *testing.T) {
	s := newShop(t, Options{})
	c := s.client()
	benefit := s.pro.BenefitIDs[0]
	s.RequireAction(benefit, "Customer must connect an account")
	sub, customer := s.buy(s.pro)
	events := s.expect(purchase...)
	f := fields(t, events[len(events)-1])
	if f["is_granted"] != false || f["is_revoked"] != false || f["granted_at"] != nil {
		t.Error(f["is_granted"], f["is_revoked"])
	}
	if e := f["error"].(map[string]any); e["type"] != "BenefitActionRequiredError" || e["message"] != "Customer must connect an account" || e["timestamp"] == "" {
		t.Error(e)
	}
	if state := c.get("/v1/customers/" + customer.ID + "/state"); len(state["granted_benefits"].([]any)) != 0 {
		t.Error("what is not granted is not in the state")
	}
	for _, want := range []string{"true", "false"} {
		if n := total(c.get("/v1/benefit-grants/?is_granted=" + want)); n != 0 {
			t.Error(want, n)
		}
	}
	s.RequireAction(benefit, "")
	must[Grant](t)(s.RetryGrant(s.Grants(customer.ID)[0].ID))
	if f := fields(t, s.expect("benefit_grant.updated")[0]); f["is_granted"] != true || f["error"] != nil {
		t.Error(f["is_granted"], f["error"])
	}
	s.Revoke(sub.ID)
	s.Settle()
	s.expect("subscription.updated", "subscription.canceled", "subscription.revoked", "benefit_grant.revoked")
	_, err := s.RetryGrant(s.Grants(customer.ID)[0].ID)
	refusal(t, err, 404, "ResourceNotFound")
}

func TestEditedBenefitIsGrantedAnew(t *testing.T) {
	s := newShop(t, Options{})
	sub, customer := s.buy(s.pro)
	s.news()
	before := *s.Grants(customer.ID)[0].GrantedAt
	words := "Pro, and more"
	must[Benefit](t)(s.UpdateBenefit(s.pro.BenefitIDs[0], BenefitUpdate{Description: &words}))
	s.Settle()
	s.expect("benefit.updated")
	must[Benefit](t)(s.UpdateBenefit(s.pro.BenefitIDs[0], BenefitUpdate{Properties: map[string]any{}}))
	s.Settle()
	events := s.expect("benefit.updated", "benefit_grant.updated")
	f := fields(t, events[1])
	if f["is_granted"] != true || f["subscription_id"] != sub.ID || f["granted_at"] == stamp(before) {
		t.Error(string(events[1].Data))
	}
}

func TestRefundThatSucceedsLater(t *testing.T) {
	for _, succeeds := range []bool{true, false} {
		s := newShop(t, Options{})
		c := s.client()
		_, customer := s.buy(s.once)
		s.news()
		order := s.Orders(customer.ID)[0]
		r := must[Refund](t)(s.Refund(Refund{OrderID: order.ID, Status: "pending", RevokeBenefits: true}))
		s.Settle()
		if f := fields(t, s.expect("refund.created")[0]); f["status"] != "pending" {
			t.Error(f["status"])
		}
		_, err := s.Refund(Refund{OrderID: order.ID, Amount: 1})
		refusal(t, err, 403, "RefundedAlready") // what is on its way cannot be given back twice
		if n := total(c.get("/v1/refunds/?succeeded=true")); n != 0 {
			t.Error(n)
		}
		must[Refund](t)(s.SettleRefund(r.ID, succeeds))
		s.Settle()
		if succeeds {
			if f := fields(t, s.expect("refund.updated", "order.updated", "order.refunded", "benefit_grant.revoked")[2]); f["status"] != "refunded" {
				t.Error(f["status"])
			}
		} else if f := fields(t, s.expect("refund.updated")[0]); f["status"] != "failed" || s.granted(customer.ID) != 1 {
			t.Error(f["status"])
		}
		_, err = s.SettleRefund(r.ID, true)
		refusal(t, err, 403, "RefundNotPending")
	}
}

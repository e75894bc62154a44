package box

import (
	"errors"
	"slices"
	"testing"
	"time"
)

var purchase = []string{
	"checkout.created", "member.created", "checkout.updated", "subscription.created", "subscription.active", "subscription.updated",
	"order.created", "order.updated", "order.paid", "checkout.updated", "benefit_grant.created",
}

func TestPurchase(t *testing.T) {
	s := newShop(t, Options{})
	sub, customer := s.buy(s.pro)
	events := s.expect(purchase...)
	if got := fields(t, events[2])["status"]; got != "confirmed" {
		t.Error("first checkout.updated:", got)
	}
	for _, e := range events[3:6] {
		f := fields(t, e)
		if f["status"] != "active" || f["modified_at"] != nil {
			t.Error(e.Type, f["status"], f["modified_at"])
		}
	}
	for _, e := range events[6:9] {
		f := fields(t, e)
		if f["status"] != "paid" || f["billing_reason"] != "subscription_create" {
			t.Error(e.Type, f["status"], f["billing_reason"])
		}
	}
	if got := fields(t, events[9])["status"]; got != "succeeded" {
		t.Error("last checkout.updated:", got)
	}
	if sub.ModifiedAt == nil {
		t.Error("no bookkeeping update has come")
	}
	if customer.ExternalID != "usr_1" || s.granted(customer.ID) != 1 {
		t.Errorf("customer %+v", customer)
	}
	if !sub.CurrentPeriodEnd.Equal(sub.CurrentPeriodStart.AddDate(0, 1, 0)) {
		t.Error("period", sub.CurrentPeriodStart, sub.CurrentPeriodEnd)
	}
}

func TestStateChangedIsDebouncedAndComplete(t *testing.T) {
	s := newShop(t, Options{})
	s.buy(s.pro)
	var states []Event
	var kinds []string
	for _, e := range s.news() {
		if e.Type == "customer.state_changed" {
			states = append(states, e)
		}
		if e.Type == "customer.created" {
			kinds = append(kinds, e.Type)
		}
	}
	if len(states) != 1 || len(kinds) != 1 {
		t.Fatal(len(states), "states,", len(kinds), "created")
	}
	f := fields(t, states[0])
	if len(f["active_subscriptions"].([]any)) != 1 || len(f["granted_benefits"].([]any)) != 1 {
		t.Error(string(states[0].Data))
	}
}

func TestDeclinedCard(t *testing.T) {
	s := newShop(t, Options{})
	c := must[Checkout](t)(s.CreateCheckout(Checkout{ProductIDs: []string{s.pro.ID}, CustomerEmail: "ada@example.org"}))
	_, err := s.Confirm(c.ID, Payment{Declined: true})
	refusal(t, err, 402, "PaymentFailed")
	events := s.expect("checkout.created", "member.created", "checkout.updated", "checkout.updated")
	if a, b := fields(t, events[2])["status"], fields(t, events[3])["status"]; a != "confirmed" || b != "open" {
		t.Error(a, b)
	}
	must[Checkout](t)(s.Confirm(c.ID, Payment{}))
	_, err = s.Confirm(c.ID, Payment{})
	refusal(t, err, 403, "NotOpenCheckout")
}

func refusal(t *testing.T, err error, status int, code string) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) || e.Status != status || e.Code != code {
		t.Fatalf("got %v, want %d %s", err, status, code)
	}
}

func TestTrialAndConversion(t *testing.T) {
	s := newShop(t, Options{})
	sub, _ := s.buy(s.trial)
	events := s.expect(purchase...)
	f := fields(t, events[4])
	if f["status"] != "trialing" || f["trial_end"] != f["current_period_end"] || f["trial_end"] == nil {
		t.Error(f["status"], f["trial_end"])
	}
	if o := fields(t, events[8]); o["total_amount"] != 0.0 || o["status"] != "paid" {
		t.Error("trial order", o["total_amount"], o["status"])
	}
	s.Advance(14 * day)
	s.Settle()
	events = s.expect("subscription.cycled", "subscription.updated", "order.created", "order.updated", "order.paid", "benefit_grant.cycled")
	if f := fields(t, events[0]); f["status"] != "active" || f["modified_at"] != fields(t, events[1])["modified_at"] || f["modified_at"] == nil {
		t.Error(f["status"], f["modified_at"])
	}
	if a, b := fields(t, events[2]), fields(t, events[4]); a["status"] != "pending" || a["modified_at"] != nil || b["status"] != "paid" || b["modified_at"] == nil {
		t.Error("order", a["status"], b["status"])
	}
	if got := s.sub(sub.ID); !got.CurrentPeriodStart.Equal(*got.TrialEnd) {
		t.Error("period starts", got.CurrentPeriodStart)
	}
}

func TestRenewal(t *testing.T) {
	s := newShop(t, Options{})
	sub, _ := s.buy(s.pro)
	s.news()
	s.Advance(31 * day)
	s.expect("subscription.cycled", "subscription.updated", "order.created", "order.updated", "order.paid", "benefit_grant.cycled")
	if got := s.sub(sub.ID); !got.CurrentPeriodStart.Equal(sub.CurrentPeriodEnd) || got.Status != "active" {
		t.Error(got.CurrentPeriodStart, got.Status)
	}
}

func TestFailedPaymentAndRecovery(t *testing.T) {
	for _, grace := range []int{0, 3} {
		s := newShop(t, Options{GraceDays: grace})
		sub, customer := s.buy(s.pro)
		s.SetCard(customer.ID, false)
		s.news()
		s.AdvanceTo(sub.CurrentPeriodEnd.Add(time.Minute))
		want := []string{"subscription.cycled", "subscription.updated", "order.created", "subscription.updated", "subscription.past_due"}
		if grace == 0 {
			want = append(want, "benefit_grant.revoked")
		}
		events := s.expect(want...)
		if f := fields(t, events[4]); f["status"] != "past_due" || f["past_due_at"] == nil {
			t.Error(f["status"])
		}
		s.Advance(2 * day)
		s.expect() // a failed retry is silent, and grace is not over
		s.SetCard(customer.ID, true)
		s.Advance(5 * day)
		want = []string{"order.updated", "order.paid", "subscription.updated", "subscription.active"}
		if grace == 0 {
			want = append(want, "benefit_grant.created")
		}
		events = s.expect(append(want, "benefit_grant.cycled")...)
		if f := fields(t, events[3]); f["status"] != "active" || f["past_due_at"] != nil {
			t.Error(f["status"], f["past_due_at"])
		}
		if s.granted(customer.ID) != 1 || len(s.Grants(customer.ID)) != 1 {
			t.Error("the grant must come back with its id")
		}
	}
}

func TestGraceEndsAtAFailedAttempt(t *testing.T) {
	s := newShop(t, Options{GraceDays: 3})
	sub, customer := s.buy(s.pro)
	s.SetCard(customer.ID, false)
	s.AdvanceTo(sub.CurrentPeriodEnd.Add(time.Minute))
	s.news()
	s.Advance(6 * day)
	s.expect()
	s.Advance(day)
	s.expect("benefit_grant.revoked")
}

func TestDunningIsExhausted(t *testing.T) {
	s := newShop(t, Options{})
	sub, customer := s.buy(s.pro)
	s.SetCard(customer.ID, false)
	s.AdvanceTo(sub.CurrentPeriodEnd.Add(time.Minute))
	s.news()
	s.Advance(20 * day)
	s.expect()
	s.Advance(day)
	events := s.expect("subscription.updated", "subscription.canceled", "subscription.revoked", "order.updated")
	f := fields(t, events[2])
	if f["status"] != "canceled" || f["past_due_at"] == nil || f["canceled_at"] != f["ends_at"] || f["ends_at"] != f["ended_at"] {
		t.Error(string(events[2].Data))
	}
	if o := fields(t, events[3]); o["status"] != "void" {
		t.Error(o["status"])
	}
	s.Advance(60 * day)
	s.expect()
}

func TestCardChangeChargesAtOnce(t *testing.T) {
	s := newShop(t, Options{})
	sub, customer := s.buy(s.pro)
	s.SetCard(customer.ID, false)
	s.AdvanceTo(sub.CurrentPeriodEnd.Add(time.Minute))
	s.news()
	if err := s.UpdateCard(customer.ID, true); err != nil {
		t.Fatal(err)
	}
	s.Settle()
	s.expect("order.updated", "order.paid", "subscription.updated", "subscription.active", "benefit_grant.created", "benefit_grant.cycled")
	s.Advance(22 * day)
	s.expect()
}

func TestCancelAndEnd(t *testing.T) {
	s := newShop(t, Options{})
	sub, customer := s.buy(s.pro)
	s.news()
	got := must[Subscription](t)(s.Cancel(sub.ID, "too_expensive", "Not this month"))
	if got.Status != "active" || !got.CancelAtPeriodEnd || !got.EndsAt.Equal(sub.CurrentPeriodEnd) {
		t.Errorf("%+v", got)
	}
	s.expect("subscription.updated", "subscription.canceled")
	_, err := s.Cancel(sub.ID, "", "")
	refusal(t, err, 403, "AlreadyCanceledSubscription")
	s.Advance(31 * day)
	events := s.expect("subscription.updated", "subscription.canceled", "subscription.revoked", "benefit_grant.revoked")
	f := fields(t, events[1])
	if f["status"] != "canceled" || f["cancel_at_period_end"] != true || f["current_period_end"] != stamp(sub.CurrentPeriodEnd) || f["canceled_at"] != stamp(*got.CanceledAt) {
		t.Error(string(events[1].Data))
	}
	if s.granted(customer.ID) != 0 {
		t.Error("still granted")
	}
}

func TestUncancel(t *testing.T) {
	s := newShop(t, Options{})
	sub, _ := s.buy(s.pro)
	s.Cancel(sub.ID, "", "")
	s.news()
	got := must[Subscription](t)(s.Uncancel(sub.ID))
	if got.CanceledAt != nil || got.EndsAt != nil {
		t.Errorf("%+v", got)
	}
	s.expect("subscription.updated", "subscription.uncanceled")
	_, err := s.Uncancel(sub.ID)
	refusal(t, err, 400, "BadRequest")
	s.Revoke(sub.ID)
	_, err = s.Uncancel(sub.ID)
	refusal(t, err, 410, "ResourceUnavailable")
}

func TestRevoke(t *testing.T) {
	s := newShop(t, Options{})
	sub, _ := s.buy(s.pro)
	s.news()
	must[Subscription](t)(s.Revoke(sub.ID))
	s.Settle()
	events := s.expect("subscription.updated", "subscription.canceled", "subscription.revoked", "benefit_grant.revoked")
	if string(events[0].Data) != string(events[2].Data) {
		t.Error("the three events must carry the same data")
	}
	_, err := s.Revoke(sub.ID)
	refusal(t, err, 403, "AlreadyCanceledSubscription")
}

func TestPlanChangeNow(t *testing.T) {
	s := newShop(t, Options{})
	sub, customer := s.buy(s.pro)
	s.news()
	s.SetCard(customer.ID, false)
	_, err := s.ChangePlan(sub.ID, s.maxi.ID, "invoice")
	refusal(t, err, 402, "PaymentFailed")
	s.expect()
	s.SetCard(customer.ID, true)
	got := must[Subscription](t)(s.ChangePlan(sub.ID, s.maxi.ID, "invoice"))
	s.Settle()
	s.expect("order.created", "order.updated", "order.paid", "subscription.updated", "benefit_grant.revoked", "benefit_grant.created")
	if got.ProductID != s.maxi.ID || got.Amount != 4900 || !got.CurrentPeriodEnd.Equal(sub.CurrentPeriodEnd) {
		t.Errorf("%+v", got)
	}
}

func TestPlanChangeAtNextPeriod(t *testing.T) {
	s := newShop(t, Options{})
	sub, _ := s.buy(s.pro)
	s.news()
	must[Subscription](t)(s.ChangePlan(sub.ID, s.maxi.ID, "next_period"))
	f := fields(t, s.expect("subscription.updated")[0])
	if f["product_id"] != s.pro.ID || f["pending_update"].(map[string]any)["product_id"] != s.maxi.ID {
		t.Error(f["product_id"], f["pending_update"])
	}
	s.Advance(31 * day)
	events := s.expect("subscription.cycled", "subscription.updated", "benefit_grant.revoked", "benefit_grant.created", "order.created", "order.updated", "order.paid")
	f = fields(t, events[1])
	if f["product_id"] != s.maxi.ID || f["pending_update"] != nil || f["amount"] != 4900.0 {
		t.Error(f["product_id"], f["pending_update"])
	}
}

func TestPauseAndResume(t *testing.T) {
	s := newShop(t, Options{})
	sub, customer := s.buy(s.pro)
	s.news()
	resumes := sub.CurrentPeriodEnd.Add(10 * day)
	must[Subscription](t)(s.Pause(sub.ID, &resumes))
	f := fields(t, s.expect("subscription.updated")[0])
	if f["pause_at_period_end"] != true || f["resumes_at"] != stamp(resumes) || f["status"] != "active" {
		t.Error(f["resumes_at"])
	}
	s.AdvanceTo(sub.CurrentPeriodEnd.Add(time.Minute))
	f = fields(t, s.expect("subscription.updated", "subscription.paused", "benefit_grant.revoked")[1])
	if f["status"] != "paused" || f["paused_at"] == nil || f["pause_at_period_end"] != false {
		t.Error(f["status"], f["paused_at"])
	}
	s.Advance(10 * day)
	s.expect("subscription.updated", "subscription.resumed", "benefit_grant.created", "order.created", "order.updated", "order.paid", "benefit_grant.cycled")
	if got := s.sub(sub.ID); got.Status != "active" || got.CurrentPeriodStart.Before(resumes) || s.granted(customer.ID) != 1 {
		t.Errorf("%+v", got)
	}
}

func TestOneTimePurchaseAndRefund(t *testing.T) {
	for _, revoke := range []bool{false, true} {
		s := newShop(t, Options{})
		_, customer := s.buy(s.once)
		s.expect("checkout.created", "member.created", "checkout.updated", "order.created", "order.updated", "order.paid", "checkout.updated", "benefit_grant.created")
		order := s.Orders(customer.ID)[0]
		must[Refund](t)(s.Refund(Refund{OrderID: order.ID, RevokeBenefits: revoke}))
		s.Settle()
		want := []string{"refund.created", "order.updated", "order.refunded"}
		if revoke {
			want = append(want, "benefit_grant.revoked")
		}
		events := s.expect(want...)
		if f := fields(t, events[2]); f["status"] != "refunded" || f["refundable_amount"] != 0.0 {
			t.Error(f["status"], f["refundable_amount"])
		}
		_, err := s.Refund(Refund{OrderID: order.ID})
		refusal(t, err, 403, "RefundedAlready")
	}
}

func TestRefundOfASubscriptionOrder(t *testing.T) {
	s := newShop(t, Options{})
	_, customer := s.buy(s.pro)
	s.news()
	order := s.Orders(customer.ID)[0]
	_, err := s.Refund(Refund{OrderID: order.ID, RevokeBenefits: true})
	refusal(t, err, 400, "RevokeSubscriptionBenefitsProhibited")
	must[Refund](t)(s.Refund(Refund{OrderID: order.ID, Amount: 900}))
	s.Settle()
	events := s.expect("refund.created", "order.updated", "order.refunded")
	if f := fields(t, events[2]); f["status"] != "partially_refunded" {
		t.Error(f["status"])
	}
	must[Refund](t)(s.PreventDispute(order.ID))
	s.Settle()
	f := fields(t, s.expect("refund.created", "order.updated", "order.refunded")[0])
	if f["reason"] != "dispute_prevention" || f["subscription_id"] != nil || f["revoke_benefits"] != true || f["dispute"] == nil {
		t.Error(f)
	}
	if s.granted(customer.ID) != 1 {
		t.Error("a subscription's grant must stay")
	}
}

func TestCustomerDeletedAndCreatedAgain(t *testing.T) {
	s := newShop(t, Options{})
	sub, customer := s.buy(s.pro)
	s.news()
	if err := s.DeleteCustomer(customer.ID); err != nil {
		t.Fatal(err)
	}
	s.Settle()
	var kinds []string
	for _, e := range s.news() {
		kinds = append(kinds, e.Type)
		if f := fields(t, e); e.Type == "customer.deleted" && (f["external_id"] != "usr_1" || f["deleted_at"] == nil) {
			t.Error(string(e.Data))
		}
	}
	want := []string{"member.deleted", "subscription.updated", "subscription.canceled", "subscription.revoked", "customer.deleted", "benefit_grant.revoked", "customer.state_changed"}
	if !slices.Equal(kinds, want) {
		t.Fatalf("got %q", kinds)
	}
	if s.sub(sub.ID).Status != "canceled" {
		t.Error("still there")
	}
	_, again := s.buy(s.pro)
	if again.ID == customer.ID || again.ExternalID != "usr_1" {
		t.Errorf("%+v", again)
	}
}

func TestEmailCollisionDropsTheExternalID(t *testing.T) {
	s := newShop(t, Options{})
	first := must[Customer](t)(s.CreateCustomer(Customer{Email: "ada@example.org"}))
	_, customer := s.buy(s.pro)
	if customer.ID != first.ID || customer.ExternalID != "" {
		t.Errorf("%+v", customer)
	}
	other := must[Customer](t)(s.CreateCustomer(Customer{Email: "grace@example.org", ExternalID: "usr_2"}))
	c := must[Checkout](t)(s.CreateCheckout(Checkout{ProductIDs: []string{s.pro.ID}, ExternalCustomerID: other.ExternalID, CustomerEmail: "else@example.org"}))
	_, err := s.Confirm(c.ID, Payment{})
	refusal(t, err, 422, "CheckoutCustomerExternalIdMismatch")
}

func TestSecondSubscriptionIsRefusedAtConfirmation(t *testing.T) {
	s := newShop(t, Options{})
	s.buy(s.pro)
	_, err := s.Buy("usr_1", "ada@example.org", s.maxi.ID)
	refusal(t, err, 403, "AlreadyActiveSubscriptionError")
}

func TestExternalIDIsSetOnce(t *testing.T) {
	s := newShop(t, Options{})
	c := must[Customer](t)(s.CreateCustomer(Customer{Email: "ada@example.org"}))
	one, two := "one", "two"
	must[Customer](t)(s.UpdateCustomer(c.ID, CustomerUpdate{ExternalID: &one}))
	_, err := s.UpdateCustomer(c.ID, CustomerUpdate{ExternalID: &two})
	refusal(t, err, 422, "PolarRequestValidationError")
}

func TestBlockedOrganizationRenewsNothing(t *testing.T) {
	s := newShop(t, Options{})
	sub, _ := s.buy(s.pro)
	s.news()
	s.HoldRenewals(true)
	s.Advance(40 * day)
	s.expect()
	if got := s.sub(sub.ID); got.Status != "active" || got.CurrentPeriodEnd.After(s.Now()) {
		t.Errorf("%+v", got)
	}
	s.HoldRenewals(false)
	s.Settle()
	s.Advance(time.Minute)
	if got := s.sub(sub.ID); !got.CurrentPeriodEnd.After(s.Now()) {
		t.Error("not renewed", got.CurrentPeriodEnd)
	}
}

func TestPastDueLongerThanAPeriod(t *testing.T) {
	s := newShop(t, Options{})
	weekly := s.AddProduct(Product{Name: "Weekly", Interval: "week", Price: Price{Amount: 500}})
	sub, customer := s.buy(weekly)
	s.SetCard(customer.ID, false)
	s.AdvanceTo(sub.CurrentPeriodEnd.Add(time.Minute))
	s.news()
	s.Advance(7 * day)
	events := s.expect("subscription.cycled", "subscription.updated", "order.created")
	if f := fields(t, events[0]); f["status"] != "past_due" {
		t.Error(f["status"])
	}
	s.SetCard(customer.ID, true)
	s.UpdateCard(customer.ID, true)
	s.Settle()
	s.expect("order.updated", "order.paid", "order.updated", "order.paid", "subscription.updated", "subscription.active")
}

// One long step and many short ones must tell the same story.
func TestAdvanceInStepsIsTheSameStory(t *testing.T) {
	story := func(step time.Duration) []string {
		s := newShop(t, Options{})
		_, customer := s.buy(s.pro)
		s.SetCard(customer.ID, false)
		s.Buy("usr_2", "grace@example.org", s.trial.ID)
		for range int(90 * day / step) {
			s.Advance(step)
		}
		var out []string
		last := time.Time{}
		for _, e := range s.Events() {
			if e.Timestamp.Before(last) {
				t.Fatal("time went back at", e.Type)
			}
			last = e.Timestamp
			out = append(out, e.Type)
		}
		return out
	}
	long := story(90 * day)
	for _, step := range []time.Duration{day, 6 * time.Hour} {
		if short := story(step); !slices.Equal(long, short) {
			t.Errorf("steps of %s: %d events, want %d", step, len(short), len(long))
		}
	}
}

func TestIntervalKeepsTheDayOfTheMonth(t *testing.T) {
	s := newShop(t, Options{Start: time.Date(2027, 1, 31, 12, 0, 0, 0, time.UTC)})
	sub, _ := s.buy(s.pro)
	var days []int
	for range 4 {
		s.AdvanceTo(s.sub(sub.ID).CurrentPeriodEnd.Add(time.Second))
		days = append(days, s.sub(sub.ID).CurrentPeriodStart.Day())
	}
	if !slices.Equal(days, []int{28, 31, 30, 31}) {
		t.Error(days)
	}
}

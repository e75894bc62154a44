package box

import "net/http"

// Refund gives money back, as POST /v1/refunds/ does. An amount of zero is
// all that is left. A subscription and its benefits are untouched.
func (b *Box) Refund(r Refund) (Refund, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	o, ok := b.orders.get(r.OrderID)
	if !ok {
		return r, invalid("Order not found.", r.OrderID, "order_id")
	}
	if r.RevokeBenefits && o.SubscriptionID != "" {
		return r, &Error{Status: http.StatusBadRequest, Code: "RevokeSubscriptionBenefitsProhibited", Detail: "Subscription benefits are not revoked by a refund. Cancel the subscription."}
	}
	if r.Status != "pending" {
		r.Status = "" // a caller cannot make it end otherwise
	}
	r.SubscriptionID = o.SubscriptionID
	return b.refund(r, &o)
}

func (b *Box) refund(r Refund, o *Order) (Refund, error) {
	left := o.Net() - o.Refunded - b.refunding(o)
	if !o.paid() || left <= 0 {
		return r, forbidden("RefundedAlready", "Order is already fully refunded.")
	}
	if r.Amount == 0 {
		r.Amount = left
	}
	if r.Amount < 0 || r.Amount > left {
		return r, &Error{Status: http.StatusBadRequest, Code: "RefundAmountTooHigh", Detail: "Refund amount exceeds the remaining order balance."}
	}
	if r.Reason == "" {
		r.Reason = "customer_request"
	}
	if r.Status == "" {
		r.Status = "succeeded"
	}
	r.Currency, r.CustomerID, r.Tax = o.Currency, o.CustomerID, taxOf(r.Amount)
	b.transact(func(t *tx) {
		insert(t, &b.refunds, &r)
		t.emit("refund.created", b.refundJSON(&r))
		if r.Status == "succeeded" {
			t.refunded(&r, o)
		}
	})
	return r, nil
}

// refunded books a refund that has succeeded.
func (t *tx) refunded(r *Refund, o *Order) {
	o.Refunded += r.Amount
	o.RefundedTax += r.Tax
	o.Status = "partially_refunded"
	if o.Refunded >= o.Net() {
		o.Status = "refunded"
	}
	update(t, &t.b.orders, o)
	t.emitOrder(o, "updated", "refunded")
	if r.RevokeBenefits {
		t.b.revokeOrderJob(o.ID, o.CustomerID)
	}
}

// refunding is what pending refunds of an order will give back.
func (b *Box) refunding(o *Order) int {
	n := 0
	for _, r := range b.refunds.of(o.CustomerID) {
		if r.OrderID == o.ID && r.Status == "pending" {
			n += r.Amount
		}
	}
	return n
}

// SettleRefund ends a pending refund: the money went back, or did not. To begin
// one, give Refund the status pending.
func (b *Box) SettleRefund(id string, succeeded bool) (Refund, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	r, ok := b.refunds.get(id)
	if !ok {
		return r, notFound()
	}
	if r.Status != "pending" {
		return r, forbidden("RefundNotPending", "This refund is not pending.")
	}
	r.Status = "failed"
	if succeeded {
		r.Status = "succeeded"
	}
	b.transact(func(t *tx) {
		update(t, &b.refunds, &r)
		t.emit("refund.updated", b.refundJSON(&r))
		if o, _ := b.orders.get(r.OrderID); succeeded {
			t.refunded(&r, &o)
		}
	})
	return r, nil
}

// PreventDispute is a chargeback that Polar prevents by a refund. The refund
// names no subscription and wants the benefits revoked; only grants of the
// order itself go.
func (b *Box) PreventDispute(orderID string) (Refund, error) {
	return b.dispute(orderID, "prevented")
}

// LoseDispute is a chargeback that the merchant has lost. There is no event
// for a dispute; the money goes back in no refund.
func (b *Box) LoseDispute(orderID string) error {
	_, err := b.dispute(orderID, "lost")
	return err
}

// OpenDispute is a chargeback that waits for the merchant's answer.
func (b *Box) OpenDispute(orderID string) (Dispute, error) {
	if _, err := b.dispute(orderID, "needs_response"); err != nil {
		return Dispute{}, err
	}
	all := b.Disputes(orderID)
	return all[len(all)-1], nil
}

// SettleDispute ends a dispute that is open.
func (b *Box) SettleDispute(id string, won bool) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	d, ok := b.disputes.get(id)
	if !ok {
		return notFound()
	}
	if d.Status != "needs_response" {
		return forbidden("DisputeNotOpenError", "This dispute is not open.")
	}
	d.Status = "lost"
	if won {
		d.Status = "won"
	}
	b.transact(func(t *tx) { update(t, &b.disputes, &d) })
	return nil
}

// Disputes returns an order's disputes, oldest first.
func (b *Box) Disputes(orderID string) []Dispute {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.disputes.of(orderID)
}

func (b *Box) dispute(orderID, status string) (Refund, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	o, ok := b.orders.get(orderID)
	if !ok || !o.paid() {
		return Refund{}, notFound()
	}
	d := Dispute{Row: b.newRow(), Status: status, Amount: o.Net(), Tax: o.Tax, Currency: o.Currency, OrderID: o.ID, CustomerID: o.CustomerID, PaymentID: b.newID()}
	b.disputes.put(d.ID, b.Now(), d)
	if status != "prevented" {
		return Refund{}, nil
	}
	return b.refund(Refund{OrderID: o.ID, Reason: "dispute_prevention", RevokeBenefits: true, DisputeID: d.ID}, &o)
}

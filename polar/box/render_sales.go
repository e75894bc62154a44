package box

// platformFee is 4 % + 40 cents, or nothing when nothing was paid.
func platformFee(o *Order) (int, any) {
	if !o.paid() {
		return 0, nil
	}
	if o.Net() == 0 {
		return 0, o.Currency
	}
	return o.Net()*4/100 + 40, o.Currency
}

func (b *Box) orderJSON(o *Order) obj {
	c, _ := b.customers.get(o.CustomerID)
	p, _ := b.products.get(o.ProductID)
	subscription := any(nil)
	if s, ok := b.subs.get(o.SubscriptionID); ok {
		sp, _ := b.products.get(s.ProductID)
		subscription = b.subscriptionHead(&s, &sp)
	}
	due, receipt := o.Net()+o.Tax, any(nil)
	if o.Status == "paid" || o.Status == "void" {
		due = 0
	}
	if o.paid() {
		receipt = "RCPT" + o.InvoiceNumber[4:]
	}
	refundable, refundableTax := 0, 0
	if o.paid() {
		refundable, refundableTax = o.Net()-o.Refunded, o.Tax-o.RefundedTax
	}
	fee, feeCurrency := platformFee(o)
	address := any(nil)
	if c.Address != nil {
		address = c.Address
	}
	item := obj{
		"created_at": stamp(o.CreatedAt), "modified_at": nil, "id": o.ItemID, "label": p.Name, "amount": o.Amount,
		"tax_amount": o.Tax, "proration": o.BillingReason == "subscription_update", "product_price_id": text(o.PriceID),
	}
	return with(o.Row.json(), obj{
		"status": o.Status, "paid": o.paid(), "subtotal_amount": o.Amount, "discount_amount": o.Discount, "net_amount": o.Net(),
		"tax_amount": o.Tax, "total_amount": o.Net() + o.Tax, "applied_balance_amount": 0, "due_amount": due,
		"refunded_amount": o.Refunded, "refunded_tax_amount": o.RefundedTax, "currency": o.Currency, "billing_reason": o.BillingReason,
		"billing_name": text(c.Name), "billing_address": address, "invoice_number": o.InvoiceNumber, "is_invoice_generated": false,
		"receipt_number": receipt, "seats": count(o.Seats), "units": nil, "customer_id": o.CustomerID, "product_id": text(o.ProductID),
		"product_price_id": text(o.PriceID), "discount_id": text(o.DiscountID), "subscription_id": text(o.SubscriptionID), "checkout_id": text(o.CheckoutID),
		"next_payment_attempt_at": maybe(o.NextPaymentAttemptAt), "metadata": object(o.Metadata), "custom_field_data": obj{},
		"platform_fee_amount": fee, "platform_fee_currency": feeCurrency, "customer": b.customerJSON(&c), "user_id": c.ID, "user": userJSON(&c),
		"product": b.productHead(&p), "product_price": p.Price.json(&p), "discount": b.discountFor(o.DiscountID), "subscription": subscription, "items": []any{item},
		"description": p.Name, "amount": o.Net(), "from_balance_amount": 0, "refundable_amount": refundable, "refundable_tax_amount": refundableTax,
	})
}

func (b *Box) disputeHead(d *Dispute) obj {
	return with(d.Row.json(), obj{
		"status": d.Status, "resolved": d.Status != "needs_response" && d.Status != "under_review", "closed": d.Status != "needs_response" && d.Status != "under_review",
		"amount": d.Amount, "tax_amount": d.Tax, "currency": d.Currency, "reason": "fraudulent", "evidence_due_by": nil, "past_due": false,
		"order_id": d.OrderID, "payment_id": d.PaymentID,
	})
}

func (b *Box) refundJSON(r *Refund) obj {
	dispute := any(nil)
	if d, ok := b.disputes.get(r.DisputeID); ok {
		dispute = b.disputeHead(&d)
	}
	return with(r.Row.json(), obj{
		"metadata": object(r.Metadata), "status": r.Status, "reason": r.Reason, "amount": r.Amount, "tax_amount": r.Tax, "currency": r.Currency,
		"organization_id": b.org.ID, "order_id": r.OrderID, "subscription_id": text(r.SubscriptionID), "customer_id": r.CustomerID,
		"revoke_benefits": r.RevokeBenefits, "dispute": dispute,
	})
}

func (b *Box) checkoutJSON(c *Checkout) obj {
	var list []any
	prices := obj{}
	for _, id := range c.ProductIDs {
		p, _ := b.products.get(id)
		list = append(list, b.checkoutProduct(&p))
		prices[id] = []any{p.Price.json(&p)}
	}
	p, _ := b.products.get(c.ProductIDs[0])
	amount, net := p.Price.amount(c.Seats), b.checkoutNet(c, &p)
	tax := taxOf(net)
	discount := any(nil)
	if d, ok := b.discounts.get(c.DiscountID); ok {
		discount = d.publicJSON()
	}
	trial, trialCount := any(nil), any(nil)
	if c.AllowTrial && p.TrialInterval != "" {
		trial, trialCount = p.TrialInterval, p.TrialCount
	}
	free := p.Price.free()
	address := any(nil)
	if c.customerAddress != nil {
		address = c.customerAddress
	}
	out := with(c.Row.json(), obj{
		"custom_field_data": obj{}, "payment_processor": "stripe", "status": c.Status, "client_secret": c.ClientSecret, "url": c.URL,
		"expires_at": stamp(c.ExpiresAt), "success_url": c.SuccessURL, "return_url": text(c.ReturnURL), "embed_origin": nil,
		"amount": amount, "seats": count(c.Seats), "min_seats": count(c.MinSeats), "max_seats": count(c.MaxSeats), "units": nil, "min_units": nil, "max_units": nil,
		"discount_amount": amount - net, "net_amount": net, "tax_amount": tax, "tax_behavior": "exclusive", "total_amount": net + tax,
		"currency": p.Price.Currency, "allow_trial": c.AllowTrial, "active_trial_interval": trial, "active_trial_interval_count": trialCount,
		"trial_end": maybe(c.TrialEnd), "organization_id": b.org.ID, "product_id": p.ID, "product_price_id": p.Price.ID, "discount_id": text(c.DiscountID),
		"allow_discount_codes": true, "require_billing_address": false, "is_discount_applicable": !free, "is_free_product_price": free,
		"is_payment_required": net > 0 && trial == nil, "is_payment_setup_required": !free && p.Interval != "", "is_payment_form_required": !free,
		"customer_id": text(c.CustomerID), "is_business_customer": false, "customer_name": text(c.CustomerName), "customer_email": text(c.CustomerEmail),
		"customer_ip_address": text(c.CustomerIP), "customer_billing_name": nil, "customer_billing_address": address, "customer_tax_id": nil,
		"locale": "en", "payment_method_type": text(c.paymentMethod),
		"payment_processor_metadata": obj{"publishable_key": "pk_test_box"},
		"trial_interval":             nil, "trial_interval_count": nil, "metadata": object(c.Metadata),
		"external_customer_id": text(c.ExternalCustomerID), "customer_external_id": text(c.ExternalCustomerID),
		"products": list, "product": b.checkoutProduct(&p), "product_price": p.Price.json(&p), "prices": prices, "discount": discount,
		"subscription_id": text(c.Upgrades), "attached_custom_fields": []any{}, "customer_metadata": object(c.CustomerMetadata), "subtotal_amount": amount,
	})
	if c.Status == "succeeded" {
		out["payment_processor_metadata"].(obj)["intent_status"] = "succeeded"
	}
	shown, required := obj{}, obj{}
	for _, f := range []string{"country", "state", "city", "postal_code", "line1", "line2"} {
		shown[f], required[f] = f == "country", "disabled"
	}
	required["country"] = "required"
	return with(out, obj{"customer_billing_address_fields": shown, "billing_address_fields": required})
}

func (b *Box) disputeJSON(d *Dispute) obj {
	c, _ := b.customers.get(d.CustomerID)
	return with(b.disputeHead(d), obj{"customer": b.customerJSON(&c), "case_id": nil})
}

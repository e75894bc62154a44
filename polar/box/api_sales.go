package box

import (
	"net/http"
	"net/url"
	"strconv"
	"time"
)

func createCheckout(c *call) (int, any, error) {
	x := Checkout{AllowTrial: true}
	err := c.needs("products")
	if err != nil {
		return 0, nil, err
	}
	if x.ProductIDs, err = field[[]string](c, "products"); err != nil {
		return 0, nil, err
	}
	if err = readFields(c, map[string]*string{
		"customer_id": &x.CustomerID, "customer_email": &x.CustomerEmail, "customer_name": &x.CustomerName,
		"customer_ip_address": &x.CustomerIP, "success_url": &x.SuccessURL, "return_url": &x.ReturnURL,
		"customer_external_id": &x.ExternalCustomerID, "subscription_id": &x.Upgrades,
	}); err != nil {
		return 0, nil, err
	}
	if _, ok := c.body["external_customer_id"]; ok { // the other name is its alias
		if x.ExternalCustomerID, err = field[string](c, "external_customer_id"); err != nil {
			return 0, nil, err
		}
	}
	if err = readFields(c, map[string]*map[string]any{"metadata": &x.Metadata, "customer_metadata": &x.CustomerMetadata}); err != nil {
		return 0, nil, err
	}
	if _, ok := c.body["allow_trial"]; ok {
		if x.AllowTrial, err = field[bool](c, "allow_trial"); err != nil {
			return 0, nil, err
		}
	}
	if err = readFields(c, map[string]*int{"seats": &x.Seats, "min_seats": &x.MinSeats, "max_seats": &x.MaxSeats}); err != nil {
		return 0, nil, err
	}
	if x.DiscountID, err = field[string](c, "discount_id"); err != nil {
		return 0, nil, err
	}
	if err = c.checkCheckout(&x); err != nil {
		return 0, nil, err
	}
	c.b.mu.Lock()
	defer c.b.mu.Unlock()
	if x, err = c.b.createCheckout(x); err != nil {
		return 0, nil, err
	}
	return created(c.b.checkoutJSON(&x), nil)
}

func (c *call) checkCheckout(x *Checkout) error {
	seen := map[string]bool{}
	for i, id := range x.ProductIDs {
		if !isUUID(id) {
			return requestError("uuid_parsing", "Input should be a valid UUID", id, "body", "products", i)
		}
		if seen[id] {
			return requestError("value_error", "Products must be unique.", x.ProductIDs, "body", "products")
		}
		seen[id] = true
	}
	if x.CustomerEmail != "" {
		if err := checkEmail(x.CustomerEmail, "customer_email"); err != nil {
			return err
		}
	}
	for name, n := range map[string]int{"seats": x.Seats, "min_seats": x.MinSeats, "max_seats": x.MaxSeats} {
		if raw, ok := c.body[name]; ok && string(raw) != "null" && (n < 1 || n > mostSeats) {
			return requestError("value_error", "Input should be from 1 to 10000", n, "body", name)
		}
	}
	for name, raw := range map[string]string{"success_url": x.SuccessURL, "return_url": x.ReturnURL} {
		if raw == "" {
			continue
		}
		if u, err := url.Parse(raw); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return requestError("url_parsing", "Input should be a valid URL", raw, "body", name)
		}
	}
	return nil
}

func getCheckout(c *call) (int, any, error) {
	return one(c, func(b *Box) *table[Checkout] { return &b.checkouts }, (*Box).checkoutJSON)
}

func listOrders(c *call) (int, any, error) {
	return c.read(func(b *Box) (any, error) {
		return list(c, listing[Order]{
			of: &b.orders, order: "-created_at",
			after:  map[string]func(*Order) *time.Time{"created_after": byCreated[Order]},
			before: map[string]func(*Order) *time.Time{"created_before": byCreated[Order]},
			filters: map[string]func(*Order) string{
				"product_id":           func(o *Order) string { return o.ProductID },
				"customer_id":          func(o *Order) string { return o.CustomerID },
				"external_customer_id": func(o *Order) string { return b.externalOf(o.CustomerID) },
				"checkout_id":          func(o *Order) string { return o.CheckoutID },
				"discount_id":          func(o *Order) string { return o.DiscountID },
				"subscription_id":      func(o *Order) string { return o.SubscriptionID },
				"status":               func(o *Order) string { return o.Status },
				"product_billing_type": func(o *Order) string {
					if o.SubscriptionID == "" {
						return "one_time"
					}
					return "recurring"
				},
			},
			sorts: b.orderSorts(),
			meta:  func(o *Order) map[string]any { return o.Metadata }, render: b.orderJSON,
		})
	})
}

func (b *Box) orderSorts() map[string]func(*Order) string {
	return map[string]func(*Order) string{
		"created_at":     byCreation[Order],
		"status":         func(o *Order) string { return o.Status },
		"invoice_number": func(o *Order) string { return o.InvoiceNumber },
		"amount":         func(o *Order) string { return money(o.Amount) },
		"net_amount":     func(o *Order) string { return money(o.Net()) },
		"subscription":   func(o *Order) string { return o.SubscriptionID },
		"customer": func(o *Order) string {
			x, _ := b.customers.get(o.CustomerID)
			return x.Email
		},
		"product": func(o *Order) string {
			p, _ := b.products.get(o.ProductID)
			return p.Name
		},
		"discount": func(o *Order) string {
			d, _ := b.discounts.get(o.DiscountID)
			return d.Name
		},
	}
}

func getOrder(c *call) (int, any, error) {
	return one(c, func(b *Box) *table[Order] { return &b.orders }, (*Box).orderJSON)
}

func listRefunds(c *call) (int, any, error) {
	return c.read(func(b *Box) (any, error) {
		return list(c, listing[Refund]{
			of: &b.refunds, order: "-created_at",
			filters: map[string]func(*Refund) string{
				"id":                   func(r *Refund) string { return r.ID },
				"order_id":             func(r *Refund) string { return r.OrderID },
				"subscription_id":      func(r *Refund) string { return r.SubscriptionID },
				"customer_id":          func(r *Refund) string { return r.CustomerID },
				"external_customer_id": func(r *Refund) string { return b.externalOf(r.CustomerID) },
				"succeeded":            func(r *Refund) string { return strconv.FormatBool(r.Status == "succeeded") },
			},
			sorts:  map[string]func(*Refund) string{"created_at": byCreation[Refund], "amount": func(r *Refund) string { return money(r.Amount) }},
			render: b.refundJSON,
		})
	})
}

func createRefund(c *call) (int, any, error) {
	var r Refund
	err := c.needs("order_id", "reason", "amount")
	if err != nil {
		return 0, nil, err
	}
	if err = readFields(c, map[string]*string{"order_id": &r.OrderID, "reason": &r.Reason}); err != nil {
		return 0, nil, err
	}
	if r.Amount, err = field[int](c, "amount"); err != nil {
		return 0, nil, err
	}
	if r.RevokeBenefits, err = field[bool](c, "revoke_benefits"); err != nil {
		return 0, nil, err
	}
	if r.Amount < 1 {
		return 0, nil, requestError("greater_than", "Input should be greater than 0", r.Amount, "body", "amount")
	}
	if r, err = c.b.Refund(r); err != nil {
		return 0, nil, err
	}
	_, v, err := c.read(func(b *Box) (any, error) { return b.refundJSON(&r), nil })
	return http.StatusCreated, v, err
}

func listDisputes(c *call) (int, any, error) {
	return c.read(func(b *Box) (any, error) {
		return list(c, listing[Dispute]{
			of: &b.disputes, order: "-created_at",
			filters: map[string]func(*Dispute) string{
				"order_id": func(d *Dispute) string { return d.OrderID },
				"status":   func(d *Dispute) string { return d.Status },
			},
			sorts:  map[string]func(*Dispute) string{"created_at": byCreation[Dispute], "amount": func(d *Dispute) string { return money(d.Amount) }},
			render: b.disputeJSON,
		})
	})
}

func getDispute(c *call) (int, any, error) {
	return one(c, func(b *Box) *table[Dispute] { return &b.disputes }, (*Box).disputeJSON)
}

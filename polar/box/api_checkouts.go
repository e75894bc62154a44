package box

import "net/http"

func listCheckouts(c *call) (int, any, error) {
	return c.read(func(b *Box) (any, error) {
		return list(c, listing[Checkout]{
			of: &b.checkouts, order: "-created_at",
			filters: map[string]func(*Checkout) string{
				"product_id":           func(x *Checkout) string { return x.ProductIDs[0] },
				"customer_id":          func(x *Checkout) string { return x.CustomerID },
				"external_customer_id": func(x *Checkout) string { return x.ExternalCustomerID },
				"status":               func(x *Checkout) string { return x.Status },
			},
			matches: map[string]func(*Checkout, string) bool{
				"query": func(x *Checkout, q string) bool { return contains(q, x.CustomerEmail) },
			},
			sorts: map[string]func(*Checkout) string{
				"created_at": byCreation[Checkout], "status": func(x *Checkout) string { return x.Status },
				"expires_at": func(x *Checkout) string { return sortable(&x.ExpiresAt) },
			},
			render: b.checkoutJSON,
		})
	})
}

func updateCheckout(c *call) (int, any, error) {
	var u CheckoutUpdate
	err := all(
		func() error {
			return c.only("custom_field_data", "product_id", "product_price_id", "amount", "seats", "is_business_customer", "customer_name",
				"customer_email", "customer_billing_name", "customer_billing_address", "customer_tax_id", "locale", "trial_interval",
				"trial_interval_count", "metadata", "currency", "discount_id", "allow_discount_codes", "require_billing_address", "allow_trial",
				"customer_ip_address", "customer_metadata", "success_url", "return_url", "embed_origin")
		},
		func() error {
			return c.refuseUnknown("custom_field_data", "product_price_id", "amount", "customer_billing_name", "customer_billing_address",
				"customer_tax_id", "trial_interval", "trial_interval_count", "currency", "customer_metadata", "embed_origin")
		},
		func() error { return present(c, "product_id", &u.ProductID) },
		func() error { return present(c, "seats", &u.Seats) },
		func() error { return present(c, "customer_email", &u.CustomerEmail) },
		func() error { return present(c, "customer_name", &u.CustomerName) },
		func() error { return present(c, "success_url", &u.SuccessURL) },
		func() error { return present(c, "return_url", &u.ReturnURL) },
		func() error { return present(c, "allow_trial", &u.AllowTrial) },
		func() (err error) { u.Metadata, err = field[map[string]any](c, "metadata"); return },
	)
	if err == nil {
		err = c.checkCheckout(u.asCheckout())
	}
	if _, ok := c.body["discount_id"]; ok && err == nil { // null takes it away
		var id string
		id, err = field[string](c, "discount_id")
		u.DiscountID = &id
	}
	if err != nil {
		return 0, nil, err
	}
	x, err := c.b.UpdateCheckout(c.params["id"], u)
	if err != nil {
		return 0, nil, err
	}
	_, v, err := c.read(func(b *Box) (any, error) { return b.checkoutJSON(&x), nil })
	return http.StatusOK, v, err
}

// asCheckout is a checkout with what changes, to be checked like a new one.
func (u *CheckoutUpdate) asCheckout() *Checkout {
	var x Checkout
	set(&x.CustomerEmail, u.CustomerEmail)
	set(&x.SuccessURL, u.SuccessURL)
	set(&x.ReturnURL, u.ReturnURL)
	set(&x.Seats, u.Seats)
	if u.ProductID != nil {
		x.ProductIDs = []string{*u.ProductID}
	}
	return &x
}

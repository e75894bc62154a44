package box

import (
	"net/http"
	"time"
)

const scopeDiscounts = "discounts:read discounts:write"

func discountRoutes() []route {
	return []route{
		on(http.MethodGet, "/v1/discounts/", scopeDiscounts, listDiscounts),
		on(http.MethodPost, "/v1/discounts/", "discounts:write", createDiscount),
		on(http.MethodGet, "/v1/discounts/{id}", scopeDiscounts, getDiscount),
		on(http.MethodPatch, "/v1/discounts/{id}", "discounts:write", updateDiscount),
		on(http.MethodDelete, "/v1/discounts/{id}", "discounts:write", deleteDiscount),
	}
}

func listDiscounts(c *call) (int, any, error) {
	return c.read(func(b *Box) (any, error) {
		return list(c, listing[Discount]{
			of: &b.discounts, order: "-created_at",
			where: func(d *Discount) bool { return !d.deleted },
			matches: map[string]func(*Discount, string) bool{
				"query": func(d *Discount, q string) bool { return contains(q, d.Name, d.Code) },
			},
			sorts: map[string]func(*Discount) string{
				"created_at": byCreation[Discount], "name": func(d *Discount) string { return d.Name }, "code": func(d *Discount) string { return d.Code },
				"redemptions_count": func(d *Discount) string { return money(d.redemptions) }, "ends_at": func(*Discount) string { return "" },
			},
			render: b.discountJSON,
		})
	})
}

func getDiscount(c *call) (int, any, error) {
	return c.read(func(b *Box) (any, error) {
		d, ok := b.discounts.seen(c.params["id"], c.at)
		if !ok || d.deleted {
			return nil, notFound()
		}
		return b.discountJSON(&d), nil
	})
}

// createDiscount takes percentages and amounts; amounts in several currencies
// are one to the box.
func createDiscount(c *call) (int, any, error) {
	var d Discount
	var kind string
	var amounts map[string]int
	err := all(
		func() error {
			return c.only("metadata", "name", "code", "starts_at", "ends_at", "max_redemptions", "max_redemptions_per_customer", "products",
				"organization_id", "type", "duration", "duration_in_months", "amount", "currency", "amounts", "basis_points")
		},
		func() error { return c.needs("name", "duration") },
		func() error {
			return readFields(c, map[string]*string{"name": &d.Name, "code": &d.Code, "type": &kind, "duration": &d.Duration, "currency": &d.Currency})
		},
		func() error {
			return readFields(c, map[string]*int{
				"amount": &d.Amount, "basis_points": &d.BasisPoints, "duration_in_months": &d.Months, "max_redemptions": &d.Most,
				"max_redemptions_per_customer": &d.MostEach,
			})
		},
		func() error {
			return readFields(c, map[string]**time.Time{"starts_at": &d.StartsAt, "ends_at": &d.EndsAt})
		},
		func() (err error) { d.ProductIDs, err = field[[]string](c, "products"); return },
		func() (err error) { d.Metadata, err = field[map[string]any](c, "metadata"); return },
		func() (err error) { amounts, err = field[map[string]int](c, "amounts"); return },
		func() error { return d.check(kind) },
	)
	if err != nil {
		return 0, nil, err
	}
	for currency, amount := range amounts {
		d.Currency, d.Amount = currency, amount
	}
	d = c.b.AddDiscount(d)
	_, v, err := c.read(func(b *Box) (any, error) { return b.discountJSON(&d), nil })
	return http.StatusCreated, v, err
}

func (d *Discount) check(kind string) error {
	percent := kind == "percentage" || kind == "" && d.BasisPoints > 0
	switch {
	case d.Name == "":
		return requestError("string_too_short", "String should have at least 1 character", d.Name, "body", "name")
	case kind != "" && kind != "percentage" && kind != "fixed":
		return requestError("literal_error", "Input should be 'fixed' or 'percentage'", kind, "body", "type")
	case percent && (d.BasisPoints < 1 || d.BasisPoints > 10000):
		return requestError("value_error", "Input should be from 1 to 10000", d.BasisPoints, "body", "basis_points")
	case !percent && (d.Amount < 0 || d.BasisPoints != 0):
		return requestError("value_error", "A fixed discount has an amount, and no basis points", d.Amount, "body", "amount")
	case d.Duration == "repeating" && d.Months < 1:
		return invalid("A repeating discount says for how many months.", d.Months, "duration_in_months")
	}
	return oneOf("duration", d.Duration, "once", "forever", "repeating")
}

func updateDiscount(c *call) (int, any, error) {
	var u DiscountUpdate
	var kind *string
	err := all(
		func() error {
			return c.only("metadata", "name", "code", "starts_at", "ends_at", "max_redemptions", "max_redemptions_per_customer", "duration",
				"duration_in_months", "type", "amount", "currency", "amounts", "basis_points", "products")
		},
		func() error {
			return readFields(c, map[string]**string{"name": &u.Name, "code": &u.Code, "duration": &u.Duration, "type": &kind})
		},
		func() error {
			return readFields(c, map[string]**int{
				"amount": &u.Amount, "basis_points": &u.BasisPoints, "duration_in_months": &u.Months, "max_redemptions": &u.Most,
				"max_redemptions_per_customer": &u.MostEach,
			})
		},
		func() error {
			return readFields(c, map[string]**time.Time{"starts_at": &u.StartsAt, "ends_at": &u.EndsAt})
		},
		func() (err error) { u.ProductIDs, err = field[[]string](c, "products"); return },
		func() (err error) { u.Metadata, err = field[map[string]any](c, "metadata"); return },
	)
	if err == nil && u.Duration != nil {
		err = oneOf("duration", *u.Duration, "once", "forever", "repeating")
	}
	if err != nil {
		return 0, nil, err
	}
	now, err := c.b.discount(c.params["id"])
	if err == nil {
		err = now.accepts(&u, kind)
	}
	if err != nil {
		return 0, nil, err
	}
	d, err := c.b.UpdateDiscount(c.params["id"], u)
	if err != nil {
		return 0, nil, err
	}
	return c.read(func(b *Box) (any, error) { return b.discountJSON(&d), nil })
}

func (b *Box) discount(id string) (Discount, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	d, ok := b.discounts.get(id)
	if !ok || d.deleted {
		return d, notFound()
	}
	return d, nil
}

// accepts says whether a change makes sense for the discount as it is.
func (d *Discount) accepts(u *DiscountUpdate, kind *string) error {
	is := "fixed"
	if d.BasisPoints > 0 {
		is = "percentage"
	}
	months := d.Months
	set(&months, u.Months)
	switch {
	case kind != nil && *kind != is:
		return invalid("The type of a discount cannot be changed.", *kind, "type")
	case u.Duration != nil && *u.Duration == "repeating" && months < 1:
		return invalid("A repeating discount says for how many months.", months, "duration_in_months")
	case u.BasisPoints != nil && (*u.BasisPoints < 1 || *u.BasisPoints > 10000):
		return requestError("value_error", "Input should be from 1 to 10000", *u.BasisPoints, "body", "basis_points")
	}
	return nil
}

func deleteDiscount(c *call) (int, any, error) {
	return http.StatusNoContent, nil, c.b.DeleteDiscount(c.params["id"])
}

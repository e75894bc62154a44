package box

import (
	"slices"
	"time"
)

// Discount is a discount, in hundredths of a percent or as an amount.
type Discount struct {
	Row
	Name, Code  string
	BasisPoints int // 10000 is all of it; 0 is a fixed amount
	Amount      int
	Currency    string
	Duration    string // once, forever or repeating
	Months      int    // of a repeating one
	StartsAt    *time.Time
	EndsAt      *time.Time
	Most        int // redemptions
	MostEach    int // redemptions of one customer
	ProductIDs  []string
	Metadata    map[string]any
	redemptions int
	deleted     bool
}

// AddDiscount adds a discount that holds for one payment, unless it says more.
func (b *Box) AddDiscount(d Discount) Discount {
	b.mu.Lock()
	defer b.mu.Unlock()
	if d.Duration == "" {
		d.Duration = "once"
	}
	if d.Currency == "" {
		d.Currency = "usd"
	}
	b.transact(func(t *tx) {
		insert(t, &b.discounts, &d)
		t.emit("discount.created", b.discountJSON(&d))
	})
	return d
}

// DiscountUpdate is what can change of a discount; nil leaves a field alone.
type DiscountUpdate struct {
	Name, Code, Duration        *string
	BasisPoints, Amount, Months *int // of those two, only what the discount is in
	StartsAt, EndsAt            *time.Time
	Most, MostEach              *int
	ProductIDs                  []string
	Metadata                    map[string]any
}

// UpdateDiscount changes a discount.
func (b *Box) UpdateDiscount(id string, u DiscountUpdate) (Discount, error) {
	return b.changeDiscount(id, "updated", func(d *Discount) {
		set(&d.Name, u.Name)
		set(&d.Code, u.Code)
		set(&d.Duration, u.Duration)
		set(&d.Months, u.Months)
		set(&d.Most, u.Most)
		set(&d.MostEach, u.MostEach)
		if d.BasisPoints > 0 {
			set(&d.BasisPoints, u.BasisPoints)
		} else {
			set(&d.Amount, u.Amount)
		}
		if u.StartsAt != nil {
			d.StartsAt = u.StartsAt
		}
		if u.EndsAt != nil {
			d.EndsAt = u.EndsAt
		}
		if u.ProductIDs != nil {
			d.ProductIDs = u.ProductIDs
		}
		if u.Metadata != nil {
			d.Metadata = u.Metadata
		}
	})
}

// DeleteDiscount deletes a discount. Who has it keeps it.
func (b *Box) DeleteDiscount(id string) error {
	_, err := b.changeDiscount(id, "deleted", func(d *Discount) { d.deleted = true })
	return err
}

func (b *Box) changeDiscount(id, kind string, do func(*Discount)) (Discount, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	d, ok := b.discounts.get(id)
	if !ok || d.deleted {
		return d, notFound()
	}
	do(&d)
	b.transact(func(t *tx) {
		update(t, &b.discounts, &d)
		t.emit("discount."+kind, b.discountJSON(&d))
	})
	return d, nil
}

// checkDiscount says whether a discount can be used for a product. None can.
func (b *Box) checkDiscount(id, productID string) error {
	if id == "" {
		return nil
	}
	d, ok := b.discounts.get(id)
	now := b.Now()
	switch {
	case !ok, d.deleted,
		len(d.ProductIDs) > 0 && !slices.Contains(d.ProductIDs, productID),
		d.StartsAt != nil && d.StartsAt.After(now),
		d.EndsAt != nil && !d.EndsAt.After(now),
		d.Most > 0 && d.redemptions >= d.Most:
		return invalid("Discount does not exist.", id, "discount_id")
	}
	return nil
}

// spent says that a customer has had a discount as often as it may be.
func (b *Box) spent(discountID, customerID string) bool {
	d, _ := b.discounts.get(discountID)
	n := 0
	for _, o := range b.orders.of(customerID) {
		if o.CheckoutID != "" && o.DiscountID == discountID {
			n++
		}
	}
	return d.MostEach > 0 && n >= d.MostEach
}

// discountOf is what a discount takes off an amount.
func (b *Box) discountOf(id string, amount int) int {
	d, ok := b.discounts.get(id)
	if !ok {
		return 0
	}
	if d.BasisPoints > 0 {
		return amount * d.BasisPoints / 10000
	}
	return min(amount, d.Amount)
}

func (t *tx) redeem(o *Order) int { return t.b.discountOf(o.DiscountID, o.Amount) }

// countRedemption is bookkeeping: nobody is told.
func (t *tx) countRedemption(id string) {
	if d, ok := t.b.discounts.get(id); ok {
		d.redemptions++
		update(t, &t.b.discounts, &d)
	}
}

// stillOff returns the discount that holds for the next payment of a
// subscription, if one does.
func (b *Box) stillOff(s *Subscription) string {
	d, ok := b.discounts.get(s.DiscountID)
	switch {
	case !ok:
		return ""
	case d.Duration == "forever":
		return d.ID
	}
	first := time.Time{} // the first payment with it
	for _, o := range b.orders.of(s.CustomerID) {
		if o.SubscriptionID == s.ID && o.DiscountID == d.ID && o.Discount > 0 && first.IsZero() {
			first = o.CreatedAt
		}
	}
	if first.IsZero() || d.Duration == "repeating" && b.Now().Before(interval(first, "month", d.Months)) {
		return d.ID
	}
	return ""
}

// SetDiscount gives a subscription a discount, or with no id takes it away.
func (b *Box) SetDiscount(subscriptionID, discountID string) (Subscription, error) {
	return b.change(subscriptionID, func(t *tx, s *Subscription) error {
		if err := b.checkDiscount(discountID, s.ProductID); err != nil {
			return err
		}
		s.DiscountID = discountID
		t.save(s)
		return nil
	})
}

// discountBase is a discount as subscriptions and orders carry it.
func (b *Box) discountBase(d *Discount) obj {
	return with(with(d.Row.json(), d.publicJSON()), obj{
		"metadata": object(d.Metadata), "starts_at": maybe(d.StartsAt), "ends_at": maybe(d.EndsAt), "max_redemptions": count(d.Most),
		"max_redemptions_per_customer": count(d.MostEach), "redemptions_count": d.redemptions, "organization_id": b.org.ID,
	})
}

// publicJSON is a discount as a checkout carries it.
func (d *Discount) publicJSON() obj {
	out := obj{"id": d.ID, "name": d.Name, "code": text(d.Code), "duration": d.Duration, "type": "percentage", "basis_points": d.BasisPoints}
	if d.BasisPoints == 0 {
		delete(out, "basis_points")
		out["type"], out["amount"], out["currency"], out["amounts"] = "fixed", d.Amount, d.Currency, obj{d.Currency: d.Amount}
	}
	if d.Duration == "repeating" {
		out["duration_in_months"] = d.Months
	}
	return out
}

func (b *Box) discountJSON(d *Discount) obj {
	products := []any{}
	for _, id := range d.ProductIDs {
		if p, ok := b.products.get(id); ok {
			products = append(products, b.productHead(&p))
		}
	}
	return with(b.discountBase(d), obj{"products": products})
}

// discountFor is the discount of an id, or null.
func (b *Box) discountFor(id string) any {
	if d, ok := b.discounts.get(id); ok {
		return b.discountBase(&d)
	}
	return nil
}

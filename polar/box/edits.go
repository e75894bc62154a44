package box

import "maps"

// ProductUpdate is what can change of a product; nil leaves a field alone. A
// new price is for who buys from now on.
type ProductUpdate struct {
	Name, Description, Visibility *string
	Archived                      *bool
	Price                         *Price
	Metadata                      map[string]any
}

// UpdateProduct changes a product.
func (b *Box) UpdateProduct(id string, u ProductUpdate) (Product, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p, ok := b.products.get(id)
	if !ok {
		return p, notFound()
	}
	set(&p.Name, u.Name)
	set(&p.Description, u.Description)
	set(&p.Visibility, u.Visibility)
	set(&p.Archived, u.Archived)
	if u.Metadata != nil {
		p.Metadata = u.Metadata
	}
	if u.Price != nil {
		price := *u.Price
		price.Row = b.newRow()
		if price.Currency == "" {
			price.Currency = p.Price.Currency
		}
		p.Price = price
	}
	b.transact(func(t *tx) { t.saveProduct(&p) })
	return p, nil
}

func (t *tx) saveProduct(p *Product) {
	update(t, &t.b.products, p)
	t.emit("product.updated", t.b.productJSON(p))
}

// SetProductBenefits says what a product grants from now on. Who has it already
// gets and loses the difference.
func (b *Box) SetProductBenefits(id string, benefits ...string) (Product, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p, ok := b.products.get(id)
	if !ok {
		return p, notFound()
	}
	for i, benefit := range benefits {
		if _, ok := b.benefits.get(benefit); !ok {
			return p, invalid("Benefit does not exist.", benefit, "benefits", i)
		}
	}
	p.BenefitIDs = benefits
	b.transact(func(t *tx) { t.saveProduct(&p) })
	for _, s := range b.subs.all() {
		if s.ProductID != id || !s.Active() {
			continue
		}
		b.grantJob(s.ID)
		b.regrantSeats(s.ID)
	}
	for _, o := range b.orders.all() {
		if o.ProductID != id || o.SubscriptionID != "" || !o.paid() || o.Status == "refunded" {
			continue
		}
		if o.Seats == 0 {
			b.orderGrantJob(o.ID)
		}
		b.regrantSeats(o.ID)
	}
	return p, nil
}

func (b *Box) regrantSeats(parent string) {
	for _, seat := range b.seats.of(parent) {
		if seat.Status == "claimed" {
			b.seatGrantJob(seat.ID)
		}
	}
}

// BenefitUpdate is what can change of a benefit; nil leaves a field alone.
type BenefitUpdate struct {
	Description *string
	Properties  map[string]any
	Metadata    map[string]any
}

// UpdateBenefit changes a benefit. New properties are granted anew to all who
// have it.
func (b *Box) UpdateBenefit(id string, u BenefitUpdate) (Benefit, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	x, ok := b.benefits.get(id)
	if !ok {
		return x, notFound()
	}
	set(&x.Description, u.Description)
	if u.Properties != nil {
		x.Properties = maps.Clone(object(x.Properties))
		maps.Copy(x.Properties, u.Properties)
	}
	if u.Metadata != nil {
		x.Metadata = u.Metadata
	}
	b.transact(func(t *tx) {
		update(t, &b.benefits, &x)
		t.emit("benefit.updated", b.benefitJSON(&x))
		if u.Properties != nil {
			b.job(b.Now().Add(grantDelay), true, func(t *tx) {
				for _, g := range b.grants.all() {
					if g.BenefitID == id && g.RevokedAt == nil {
						t.regrant(&g)
					}
				}
			})
		}
	})
	return x, nil
}

// OrganizationUpdate is what can change of the organization; nil leaves a field
// alone.
type OrganizationUpdate struct {
	Name          *string
	GraceDays     *int
	AllowMultiple *bool
	Proration     *string
	NoPlanChanges *bool
	NoSeatChanges *bool
}

// UpdateOrganization changes the organization and its settings.
func (b *Box) UpdateOrganization(u OrganizationUpdate) Organization {
	b.mu.Lock()
	defer b.mu.Unlock()
	set(&b.org.Name, u.Name)
	set(&b.options.GraceDays, u.GraceDays)
	set(&b.options.AllowMultiple, u.AllowMultiple)
	set(&b.options.Proration, u.Proration)
	set(&b.options.NoPlanChanges, u.NoPlanChanges)
	set(&b.options.NoSeatChanges, u.NoSeatChanges)
	b.transact(func(t *tx) {
		at := t.flush()
		b.org.ModifiedAt = &at
		t.emit("organization.updated", b.organizationJSON())
	})
	return b.org
}

// CreateSubscription subscribes a customer to a free product without a
// checkout, as POST /v1/subscriptions/ does. There is no order.
func (b *Box) CreateSubscription(customerID, productID string, metadata map[string]any) (Subscription, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	c, ok := b.customers.get(customerID)
	if !ok || c.DeletedAt != nil {
		return Subscription{}, invalid("Customer does not exist.", customerID, "customer_id")
	}
	p, ok := b.products.get(productID)
	switch {
	case !ok || p.Archived:
		return Subscription{}, invalid("Product does not exist.", productID, "product_id")
	case p.Interval == "":
		return Subscription{}, invalid("Product is not a recurring product.", productID, "product_id")
	case !p.Price.free() || p.Price.seated():
		return Subscription{}, invalid("Product is not free. The customer should go through a checkout to create a paid subscription.", productID, "product_id")
	}
	var s *Subscription
	b.transact(func(t *tx) {
		s = t.subscribe(c.ID, &p, &Checkout{Metadata: metadata})
		b.bookkeep(s.ID)
		b.grantJob(s.ID)
	})
	return *s, nil
}

// CheckoutUpdate is what can change of an open checkout; nil leaves a field
// alone.
type CheckoutUpdate struct {
	ProductID                   *string // one of the checkout's
	Seats                       *int
	DiscountID                  *string
	CustomerEmail, CustomerName *string
	SuccessURL, ReturnURL       *string
	AllowTrial                  *bool
	Metadata                    map[string]any
}

// UpdateCheckout changes an open checkout, as PATCH /v1/checkouts/{id} does.
func (b *Box) UpdateCheckout(id string, u CheckoutUpdate) (Checkout, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	c, ok := b.checkouts.get(id)
	if !ok {
		return c, notFound()
	}
	if c.Status != "open" {
		return c, forbidden("NotOpenCheckout", "Checkout is not open.")
	}
	if u.ProductID != nil && !c.choose(*u.ProductID) {
		return c, invalid("Product is not available in this checkout.", *u.ProductID, "product_id")
	}
	set(&c.Seats, u.Seats)
	set(&c.DiscountID, u.DiscountID)
	set(&c.CustomerName, u.CustomerName)
	set(&c.ReturnURL, u.ReturnURL)
	set(&c.AllowTrial, u.AllowTrial)
	if c.CustomerID == "" { // a customer that is known has an e-mail
		set(&c.CustomerEmail, u.CustomerEmail)
	}
	if u.SuccessURL != nil {
		c.SuccessURL, c.ownSuccessPage = replaceCheckoutID(*u.SuccessURL, c.ID), false
	}
	if u.Metadata != nil {
		c.Metadata = u.Metadata
	}
	if err := b.checkDiscount(c.DiscountID, c.ProductIDs[0]); err != nil {
		return c, err
	}
	if err := b.seatCheckout(&c); err != nil {
		return c, err
	}
	if err := b.secondSubscription(&c); err != nil {
		return c, err
	}
	b.transact(func(t *tx) {
		update(t, &b.checkouts, &c)
		t.emitCheckout(&c)
	})
	return c, nil
}

// choose puts a product of the checkout first, where the chosen one is.
func (c *Checkout) choose(id string) bool {
	ids := []string{id}
	for _, other := range c.ProductIDs {
		if other != id {
			ids = append(ids, other)
		}
	}
	if len(ids) != len(c.ProductIDs) {
		return false
	}
	c.ProductIDs = ids
	return true
}

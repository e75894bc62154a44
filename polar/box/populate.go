package box

import "fmt"

// Populate makes a shop with so many customers in no time: each has bought a
// subscription of the product, and nobody is told. The users are usr_0, usr_1
// and so on, with the e-mails u0@example.com, u1@example.com.
func (b *Box) Populate(customers int, productID string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	p, ok := b.products.get(productID)
	if !ok || p.Interval == "" || p.Price.seated() {
		return invalid("Product does not exist, or is no subscription of one person.", productID, "product_id")
	}
	for i := range customers {
		c := Customer{ExternalID: fmt.Sprint("usr_", i), Email: fmt.Sprintf("u%d@example.com", i), Address: &Address{Country: "FR"}}
		if _, taken := b.customerByExternal(c.ExternalID); taken {
			return invalid("A customer with this external ID already exists.", c.ExternalID, "external_id")
		}
		if _, taken := b.customerByEmail(c.Email); taken {
			return invalid("A customer with this email address already exists.", c.Email, "email")
		}
		b.transact(func(t *tx) { t.populate(&c, &p) })
	}
	return nil
}

// populate writes what a customer has after buying.
func (t *tx) populate(c *Customer, p *Product) {
	c.PaymentMethodID = t.b.newID()
	t.newCustomer(c)
	owner := Member{CustomerID: c.ID, Email: c.Email, ExternalID: c.ExternalID, Role: "owner"}
	insert(t, &t.b.members, &owner)
	s := t.newSubscription(c.ID, p, &Checkout{})
	t.addOrder(&Order{
		Status: "paid", Amount: s.Amount, BillingReason: "subscription_create", CustomerID: c.ID, ProductID: p.ID, PriceID: p.Price.ID,
		SubscriptionID: s.ID,
	})
	for _, id := range p.BenefitIDs {
		g := Grant{Row: t.b.newRow(), SubscriptionID: s.ID, CustomerID: c.ID, MemberID: owner.ID, BenefitID: id}
		g.GrantedAt = &g.CreatedAt
		insert(t, &t.b.grants, &g)
	}
}

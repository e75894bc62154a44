package box

// Subscription returns the truth about a subscription, however late reads are.
func (b *Box) Subscription(id string) (Subscription, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.subs.get(id)
}

// Subscriptions returns a customer's subscriptions, oldest first.
func (b *Box) Subscriptions(customerID string) []Subscription {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.subs.of(customerID)
}

// Orders returns a customer's orders, oldest first.
func (b *Box) Orders(customerID string) []Order {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.orders.of(customerID)
}

// Grants returns a customer's grants, oldest first, revoked ones too.
func (b *Box) Grants(customerID string) []Grant {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.grants.of(customerID)
}

// Customer returns a customer, also a deleted one.
func (b *Box) Customer(id string) (Customer, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.customers.get(id)
}

// Customers returns the customers that are not deleted, oldest first.
func (b *Box) Customers() []Customer {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []Customer
	for _, c := range b.customers.all() {
		if c.DeletedAt == nil {
			out = append(out, c)
		}
	}
	return out
}

// AllCustomers returns the customers, deleted ones too, oldest first.
func (b *Box) AllCustomers() []Customer {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.customers.all()
}

// Refunds returns a customer's refunds, oldest first.
func (b *Box) Refunds(customerID string) []Refund {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.refunds.of(customerID)
}

// CustomerByExternalID returns the living customer with an external id.
func (b *Box) CustomerByExternalID(id string) (Customer, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.customerByExternal(id)
}

// Products returns the products, oldest first.
func (b *Box) Products() []Product {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.products.all()
}

// Checkout returns a checkout.
func (b *Box) Checkout(id string) (Checkout, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.checkouts.get(id)
}

package box

import (
	"maps"
	"net/http"
)

// CreateCustomer creates a customer and its owner, as POST /v1/customers/ does.
func (b *Box) CreateCustomer(c Customer) (Customer, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if c.Email == "" && c.Type != "team" {
		return c, invalid("Field required", nil, "email")
	}
	if _, taken := b.customerByEmail(c.Email); taken {
		return c, invalid("A customer with this email address already exists.", c.Email, "email")
	}
	if _, taken := b.customerByExternal(c.ExternalID); taken {
		return c, invalid("A customer with this external ID already exists.", c.ExternalID, "external_id")
	}
	b.transact(func(t *tx) { t.addCustomer(&c) })
	return c, nil
}

func (t *tx) newCustomer(c *Customer) {
	if c.Type == "" {
		c.Type = "individual"
	}
	insert(t, &t.b.customers, c)
	if c.ExternalID != "" {
		t.b.externals[c.ExternalID] = c.ID
	}
}

func (t *tx) addCustomer(c *Customer) {
	t.newCustomer(c)
	owner := Member{CustomerID: c.ID, Email: c.Email, Name: c.Name, ExternalID: c.ExternalID, Role: "owner"}
	for to, own := range map[*string]string{&owner.Email: c.Owner.Email, &owner.Name: c.Owner.Name, &owner.ExternalID: c.Owner.ExternalID} {
		if own != "" {
			*to = own
		}
	}
	if owner.Email != "" { // a team may begin with nobody
		t.addMember(&owner)
	}
	t.b.customerJob(c.ID, "created")
}

func (b *Box) customerByEmail(email string) (Customer, bool) {
	if email == "" {
		return Customer{}, false // some teams have none
	}
	for _, c := range b.customers.of(foldEmail(email)) {
		if c.DeletedAt == nil {
			return c, true
		}
	}
	return Customer{}, false
}

func (b *Box) customerByExternal(id string) (Customer, bool) {
	if id == "" {
		return Customer{}, false
	}
	c, ok := b.customers.get(b.externals[id])
	return c, ok
}

// CustomerUpdate is what can change of a customer; nil leaves a field alone.
type CustomerUpdate struct {
	Email, Name, ExternalID *string
	Type                    *string // from individual to team, and not back
	Metadata                map[string]any
}

// UpdateCustomer changes a customer. An external id can be set once.
func (b *Box) UpdateCustomer(id string, u CustomerUpdate) (Customer, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	c, ok := b.customers.get(id)
	if !ok || c.DeletedAt != nil {
		return c, notFound()
	}
	external := c.ExternalID
	if u.ExternalID != nil && *u.ExternalID != c.ExternalID {
		if c.ExternalID != "" {
			return c, invalid("Customer external ID cannot be updated.", *u.ExternalID, "external_id")
		}
		if _, taken := b.customerByExternal(*u.ExternalID); taken {
			return c, invalid("A customer with this external ID already exists.", *u.ExternalID, "external_id")
		}
		external = *u.ExternalID
	}
	if u.Email != nil && foldEmail(*u.Email) != foldEmail(c.Email) {
		if _, taken := b.customerByEmail(*u.Email); taken {
			return c, invalid("A customer with this email address already exists.", *u.Email, "email")
		}
		c.Email = *u.Email
	}
	if u.Type != nil && *u.Type != c.Type {
		if *u.Type != "team" {
			return c, invalid("Customer type cannot be changed from team to individual.", *u.Type, "type")
		}
		c.Type = "team"
	}
	if external != "" {
		c.ExternalID = external
		b.externals[external] = c.ID
	}
	if u.Name != nil {
		c.Name = *u.Name
	}
	if u.Metadata != nil {
		c.Metadata = u.Metadata
	}
	b.transact(func(t *tx) {
		update(t, &b.customers, &c)
		b.customerJob(c.ID, "updated")
	})
	return c, nil
}

// DeleteCustomer deletes a customer: its external id is free again, and what it
// pays for ends at once. Paused subscriptions stay as they are.
func (b *Box) DeleteCustomer(id string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	c, ok := b.customers.get(id)
	if !ok || c.DeletedAt != nil {
		return notFound()
	}
	b.transact(func(t *tx) {
		now := t.flush()
		c.DeletedAt = &now
		c.Metadata = maps.Clone(object(c.Metadata))
		if c.ExternalID != "" {
			c.Metadata["__external_id"] = c.ExternalID
			delete(b.externals, c.ExternalID)
			c.ExternalID = ""
		}
		update(t, &b.customers, &c)
		for _, m := range b.members.of(id) {
			if !m.deleted {
				t.dropMember(&m)
			}
		}
		b.customerJob(id, "deleted")
		for _, s := range b.subs.of(id) {
			if s.Billable() {
				t.end(&s)
			}
		}
		b.grantCustomerJob(id)
	})
	return nil
}

// SetCard says whether the customer's card pays from now on. It is the
// test's knob: nobody is told, and nothing is charged.
func (b *Box) SetCard(customerID string, pays bool) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	c, ok := b.customers.get(customerID)
	if !ok {
		return notFound()
	}
	c.declines = !pays
	b.customers.put(c.ID, b.Now(), c)
	return nil
}

// UpdateCard is the customer who changes the card in the portal. What is due
// is charged at once.
func (b *Box) UpdateCard(customerID string, pays bool) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	c, ok := b.customers.get(customerID)
	if !ok || c.DeletedAt != nil {
		return notFound()
	}
	b.transact(func(t *tx) {
		c.declines, c.PaymentMethodID = !pays, b.newID()
		update(t, &b.customers, &c)
		b.customerJob(c.ID, "updated")
	})
	if !pays {
		return nil
	}
	for _, o := range b.orders.of(customerID) {
		if o.Status == "pending" && o.failedAt != nil {
			b.transact(func(t *tx) { t.collect(&o) })
		}
	}
	return nil
}

func mismatch(external string) *Error {
	e := invalid("The customer with this external ID has another email address.", external, "customer_external_id")
	e.Code, e.Status = "CheckoutCustomerExternalIdMismatch", http.StatusUnprocessableEntity
	return e
}

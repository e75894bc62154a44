package box

import (
	"maps"
	"strings"
	"time"
)

// checkoutTTL is how long a checkout can be paid.
const checkoutTTL = 24 * time.Hour

// CreateCheckout opens a checkout session, as POST /v1/checkouts/ does.
func (b *Box) CreateCheckout(c Checkout) (Checkout, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.createCheckout(c)
}

func (b *Box) createCheckout(c Checkout) (Checkout, error) {
	if len(c.ProductIDs) == 0 {
		return c, invalid("List should have at least 1 item after validation, not 0", []string{}, "products")
	}
	for i, id := range c.ProductIDs {
		if p, ok := b.products.get(id); !ok || p.Archived {
			return c, invalid("Product does not exist.", id, "products", i)
		}
	}
	if err := b.checkDiscount(c.DiscountID, c.ProductIDs[0]); err != nil {
		return c, err
	}
	if err := b.seatCheckout(&c); err != nil {
		return c, err
	}
	if err := b.checkUpgrade(&c); err != nil {
		return c, err
	}
	if c.CustomerID != "" {
		known, ok := b.customers.get(c.CustomerID)
		if !ok || known.DeletedAt != nil {
			return c, invalid("Customer does not exist.", c.CustomerID, "customer_id")
		}
		c.CustomerEmail, c.CustomerName = known.Email, known.Name
	} else if known, ok := b.customerByExternal(c.ExternalCustomerID); ok {
		c.CustomerID = known.ID
		if c.CustomerEmail == "" {
			c.CustomerEmail, c.CustomerName = known.Email, known.Name
		}
	}
	c.Row, c.Status = b.newRow(), "open"
	c.ClientSecret = b.newToken("polar_c_")
	b.secrets[c.ClientSecret] = c.ID
	c.ExpiresAt = c.CreatedAt.Add(checkoutTTL)
	c.URL = b.base + "/checkout/" + c.ClientSecret
	if c.ownSuccessPage = c.SuccessURL == ""; c.ownSuccessPage {
		c.SuccessURL = c.URL + "/confirmation"
	}
	c.SuccessURL = replaceCheckoutID(c.SuccessURL, c.ID)
	b.transact(func(t *tx) {
		insert(t, &b.checkouts, &c)
		t.emit("checkout.created", b.checkoutJSON(&c))
	})
	b.job(c.ExpiresAt, false, func(t *tx) {
		if now, _ := b.checkouts.get(c.ID); now.Status == "open" {
			now.Status = "expired"
			update(t, &b.checkouts, &now)
			t.emitCheckout(&now)
		}
	})
	return c, nil
}

func replaceCheckoutID(url, id string) string {
	return strings.NewReplacer("{CHECKOUT_ID}", id, "%7BCHECKOUT_ID%7D", id, "%7bCHECKOUT_ID%7d", id).Replace(url)
}

// Payment is what the buyer enters on the checkout page.
type Payment struct {
	Email, Name string
	Seats       int  // none leaves what the checkout says
	Declined    bool // the card
}

// Confirm is the buyer who presses the button of a checkout.
func (b *Box) Confirm(checkoutID string, p Payment) (Checkout, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	c, ok := b.checkouts.get(checkoutID)
	if !ok {
		return c, notFound()
	}
	if c.Status != "open" {
		return c, forbidden("NotOpenCheckout", "Checkout is not open.")
	}
	if c.CustomerEmail == "" {
		c.CustomerEmail = p.Email
	}
	if p.Name != "" {
		c.CustomerName = p.Name
	}
	if c.CustomerEmail == "" {
		return c, invalid("Field required", nil, "customer_email")
	}
	if p.Seats > 0 {
		c.Seats = p.Seats
	}
	if err := b.seatCheckout(&c); err != nil {
		return c, err
	}
	product, _ := b.products.get(c.ProductIDs[0])
	buyer, known, err := b.buyerOf(&c)
	if err != nil {
		return c, err
	}
	if err := b.secondSubscription(&c); err != nil {
		return c, err
	}
	if err := b.checkDiscount(c.DiscountID, product.ID); err != nil || known && b.spent(c.DiscountID, buyer.ID) {
		return c, forbidden("DiscountRedemptionLimitReached", "This discount cannot be used any more.")
	}
	b.transact(func(t *tx) { t.confirm(&c, &buyer, known) })
	if p.Declined && b.checkoutNet(&c, &product) > 0 {
		b.transact(func(t *tx) {
			c.Status = "open"
			update(t, &b.checkouts, &c)
			t.emitCheckout(&c)
		})
		return c, paymentFailed()
	}
	b.transact(func(t *tx) { t.succeed(&c, &buyer, &product) })
	return c, nil
}

// secondSubscription refuses a checkout of somebody who is subscribed already.
func (b *Box) secondSubscription(c *Checkout) error {
	product, _ := b.products.get(c.ProductIDs[0])
	buyer, known, _ := b.buyerOf(c)
	if !known || product.Interval == "" || b.options.AllowMultiple {
		return nil
	}
	for _, s := range b.subs.of(buyer.ID) {
		if s.Billable() && s.ID != c.Upgrades {
			return forbidden("AlreadyActiveSubscriptionError", "You already have an active subscription.")
		}
	}
	return nil
}

// buyerOf finds the customer of a checkout. A customer with the same e-mail
// gets the order, and then the external id is dropped: that is Polar's way.
func (b *Box) buyerOf(c *Checkout) (Customer, bool, error) {
	if known, ok := b.customers.get(c.CustomerID); ok && known.DeletedAt == nil {
		if c.ExternalCustomerID != "" && foldEmail(known.Email) != foldEmail(c.CustomerEmail) {
			return known, true, mismatch(c.ExternalCustomerID)
		}
		return known, true, nil
	}
	if known, ok := b.customerByExternal(c.ExternalCustomerID); ok {
		if foldEmail(known.Email) != foldEmail(c.CustomerEmail) {
			return known, true, mismatch(c.ExternalCustomerID)
		}
		return known, true, nil
	}
	if known, ok := b.customerByEmail(c.CustomerEmail); ok {
		return known, true, nil
	}
	return Customer{ExternalID: c.ExternalCustomerID, Email: c.CustomerEmail, Name: c.CustomerName, Metadata: c.CustomerMetadata}, false, nil
}

func (t *tx) confirm(c *Checkout, buyer *Customer, known bool) {
	c.customerAddress = &Address{Country: "FR"}
	buyer.Address, buyer.PaymentMethodID, buyer.declines = c.customerAddress, t.b.newID(), false
	if known {
		update(t, &t.b.customers, buyer)
		t.b.customerJob(buyer.ID, "updated")
	} else {
		t.addCustomer(buyer)
	}
	c.CustomerID, c.Status, c.paymentMethod = buyer.ID, "confirmed", "card"
	update(t, &t.b.checkouts, c)
	t.emitCheckout(c)
}

func (t *tx) succeed(c *Checkout, buyer *Customer, p *Product) {
	order := Order{
		Amount: p.Price.amount(c.Seats), BillingReason: "purchase", CustomerID: buyer.ID, ProductID: p.ID, PriceID: p.Price.ID, CheckoutID: c.ID,
		Metadata: c.Metadata, Seats: c.Seats, DiscountID: c.DiscountID,
	}
	if c.Seats > 0 {
		t.makeTeam(buyer)
	}
	t.countRedemption(c.DiscountID)
	var s *Subscription
	if p.Interval != "" {
		if c.Upgrades != "" {
			s, order.BillingReason = t.upgrade(p, c), "subscription_update"
		} else {
			s, order.BillingReason = t.subscribe(buyer.ID, p, c), "subscription_create"
		}
		order.SubscriptionID = s.ID
		c.SubscriptionID = s.ID
		if s.TrialEnd != nil {
			order.Amount = 0
			c.TrialEnd = s.TrialEnd
		}
	}
	order.Status = "paid"
	t.addOrder(&order)
	t.emitOrder(&order, "created", "updated", "paid")
	if c.Seats > 0 && c.ownSuccessPage {
		t.claimForBuyer(buyer, &order)
	}
	c.Status = "succeeded"
	update(t, &t.b.checkouts, c)
	t.emitCheckout(c)
	if s != nil {
		t.b.bookkeep(s.ID)
		t.b.grantJob(s.ID)
	} else if c.Seats == 0 {
		t.b.orderGrantJob(order.ID)
	}
}

// checkUpgrade wants a free subscription that goes on.
func (b *Box) checkUpgrade(c *Checkout) error {
	if c.Upgrades == "" {
		return nil
	}
	s, ok := b.subs.get(c.Upgrades)
	switch {
	case !ok || !s.Billable() || c.CustomerID != "" && c.CustomerID != s.CustomerID:
		return invalid("Subscription does not exist.", c.Upgrades, "subscription_id")
	case s.Amount > 0:
		return invalid("Only free subscriptions can be upgraded.", c.Upgrades, "subscription_id")
	}
	c.CustomerID = s.CustomerID
	return nil
}

// upgrade makes a free subscription a paid one. Its period begins anew.
func (t *tx) upgrade(p *Product, c *Checkout) *Subscription {
	s, _ := t.b.subs.get(c.Upgrades)
	s.CheckoutID, s.DiscountID = c.ID, c.DiscountID
	s.Metadata = maps.Clone(object(s.Metadata))
	maps.Copy(s.Metadata, c.Metadata)
	s.setPlan(p, c.Seats)
	s.CurrentPeriodStart = t.flush()
	s.CurrentPeriodEnd = interval(s.CurrentPeriodStart, p.Interval, p.IntervalCount)
	t.b.scheduleDue(&s)
	t.save(&s)
	return &s
}

func (t *tx) subscribe(customerID string, p *Product, c *Checkout) *Subscription {
	s := t.newSubscription(customerID, p, c)
	t.emitSubscription(s, "created", "active", "updated")
	return s
}

func (t *tx) newSubscription(customerID string, p *Product, c *Checkout) *Subscription {
	s := Subscription{Row: t.b.newRow(), CustomerID: customerID, ProductID: p.ID, CheckoutID: c.ID, Metadata: maps.Clone(c.Metadata), Status: "active"}
	s.DiscountID = c.DiscountID
	s.setPlan(p, c.Seats)
	s.StartedAt, s.CurrentPeriodStart = &s.CreatedAt, s.CreatedAt
	s.CurrentPeriodEnd = interval(s.CreatedAt, p.Interval, p.IntervalCount)
	if p.TrialInterval != "" && c.AllowTrial {
		end := interval(s.CreatedAt, p.TrialInterval, p.TrialCount)
		s.Status, s.TrialStart, s.TrialEnd, s.CurrentPeriodEnd = "trialing", &s.CreatedAt, &end, end
	}
	insert(t, &t.b.subs, &s)
	t.b.scheduleDue(&s)
	return &s
}

func (s *Subscription) setPlan(p *Product, seats int) {
	s.ProductID, s.Amount, s.Currency, s.Seats = p.ID, p.Price.amount(seats), p.Price.Currency, seats
	s.Interval, s.IntervalCount = p.Interval, p.IntervalCount
}

// bookkeep is a change of the row that nobody is told of, as Polar's scheduler
// makes after each purchase and renewal.
func (b *Box) bookkeep(subscriptionID string) {
	b.job(b.Now().Add(jobDelay/2), true, func(t *tx) {
		if s, ok := b.subs.get(subscriptionID); ok {
			update(t, &b.subs, &s)
		}
	})
}

// Buy is a whole purchase: a checkout for the person, paid at once.
func (b *Box) Buy(externalID, email, productID string) (Checkout, error) {
	c, err := b.CreateCheckout(Checkout{ProductIDs: []string{productID}, ExternalCustomerID: externalID, CustomerEmail: email, AllowTrial: true})
	if err != nil {
		return c, err
	}
	return b.Confirm(c.ID, Payment{})
}

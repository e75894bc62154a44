package box

import (
	"fmt"
	"time"
)

func (t *tx) addOrder(o *Order) {
	t.b.invoices++
	o.Row, o.ItemID = t.b.newRow(), t.b.newID()
	o.InvoiceNumber = fmt.Sprintf("ACME-7H2K9QW-%04d", t.b.invoices)
	if o.Currency == "" {
		o.Currency = "usd"
	}
	o.Discount = t.redeem(o)
	o.Tax = taxOf(o.Net())
	insert(t, &t.b.orders, o)
}

// The time that background jobs take.
const (
	orderDelay   = time.Second     // from the rollover to the order
	paymentDelay = 6 * time.Second // from the order to the card's answer
)

// billJob makes the order of a new period, and then collects it.
func (b *Box) billJob(subscriptionID string) {
	b.job(b.Now().Add(orderDelay), true, func(t *tx) {
		s, _ := b.subs.get(subscriptionID)
		p, _ := b.products.get(s.ProductID)
		if !s.Billable() {
			return
		}
		o := Order{
			Status: "pending", Amount: s.Amount, Currency: s.Currency, BillingReason: "subscription_cycle",
			CustomerID: s.CustomerID, ProductID: s.ProductID, PriceID: p.Price.ID, SubscriptionID: s.ID, Metadata: s.Metadata,
			Seats: s.Seats, DiscountID: b.stillOff(&s),
		}
		t.addOrder(&o)
		t.emitOrder(&o, "created")
		b.job(b.Now().Add(paymentDelay), true, func(t *tx) {
			if now, _ := b.orders.get(o.ID); now.Status == "pending" && now.attempts == 0 {
				t.collect(&now)
			}
		})
	})
}

// collect charges the card for a pending order.
func (t *tx) collect(o *Order) {
	c, _ := t.b.customers.get(o.CustomerID)
	if c.declines && o.Net() > 0 {
		t.fail(o)
		return
	}
	o.Status, o.NextPaymentAttemptAt = "paid", nil
	update(t, &t.b.orders, o)
	t.emitOrder(o, "updated", "paid")
	s, ok := t.b.subs.get(o.SubscriptionID)
	if !ok {
		return
	}
	if s.Status == "past_due" && !t.b.owes(&s) {
		s.Status, s.PastDueAt = "active", nil
		update(t, &t.b.subs, &s)
		t.emitSubscription(&s, "updated", "active")
		t.b.grantJob(s.ID)
	}
	t.b.cycleGrantsJob(s.ID)
}

// owes says whether an order of the subscription has failed and is not paid.
func (b *Box) owes(s *Subscription) bool {
	for _, o := range b.orders.of(s.CustomerID) {
		if o.SubscriptionID == s.ID && o.Status == "pending" && o.failedAt != nil {
			return true
		}
	}
	return false
}

// dunning is when a failed payment is tried again, after the first failure.
var dunning = []int{2, 7, 14, 21}

// fail records a declined charge. There is no order event for it.
func (t *tx) fail(o *Order) {
	b, now := t.b, t.flush()
	o.attempts++
	if o.failedAt == nil {
		o.failedAt = &now
	}
	s, ok := b.subs.get(o.SubscriptionID)
	if ok && s.PastDueAt != nil && o.attempts > len(dunning) {
		t.exhaust(o, &s)
		return
	}
	next := o.failedAt.AddDate(0, 0, dunning[min(o.attempts, len(dunning))-1])
	o.NextPaymentAttemptAt = &next
	update(t, &b.orders, o)
	b.dunJob(o.ID, o.attempts, next)
	if !ok {
		return
	}
	if s.Status == "active" || s.Status == "trialing" {
		s.Status, s.PastDueAt = "past_due", &now
		update(t, &b.subs, &s)
		t.emitSubscription(&s, "updated", "past_due")
	}
	// The grace period is looked at now and at each failed attempt, by no timer.
	b.grantJob(s.ID)
}

func (b *Box) dunJob(orderID string, attempt int, at time.Time) {
	b.job(at, false, func(t *tx) {
		o, _ := b.orders.get(orderID)
		s, _ := b.subs.get(o.SubscriptionID)
		// A card that was changed in between has counted an attempt, or has paid.
		if o.Status == "pending" && o.attempts == attempt && s.Status == "past_due" {
			t.collect(&o)
		}
	})
}

// exhaust is the end of dunning.
func (t *tx) exhaust(o *Order, s *Subscription) {
	t.end(s)
	for _, other := range t.b.orders.of(s.CustomerID) {
		if other.SubscriptionID == s.ID && other.Status == "pending" {
			if other.ID == o.ID {
				other = *o
			}
			other.Status, other.NextPaymentAttemptAt = "void", nil
			update(t, &t.b.orders, &other)
			t.emitOrder(&other, "updated")
		}
	}
}

package box

import (
	"encoding/json"
	"maps"
	"time"
)

// Migration is a subscription that Polar takes over from another provider.
type Migration struct {
	CustomerID, ProductID  string
	Provider               string // stripe, say
	ProviderSubscriptionID string
	PeriodStart, PeriodEnd time.Time // the period that was paid there; the default began now
	Seats                  int
	Metadata               map[string]any
}

// MigrateSubscription takes the billing of a subscription over. The row is
// there before, and nobody is told that it was created or is active.
func (b *Box) MigrateSubscription(m Migration) (Subscription, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var s Subscription
	if c, ok := b.customers.get(m.CustomerID); !ok || c.DeletedAt != nil {
		return s, invalid("Customer does not exist.", m.CustomerID, "customer_id")
	}
	p, ok := b.products.get(m.ProductID)
	if !ok || p.Interval == "" {
		return s, invalid("Product does not exist.", m.ProductID, "product_id")
	}
	if p.Price.seated() != (m.Seats > 0) {
		return s, invalid("Seats and the product's price do not fit.", m.Seats, "seats")
	}
	s = Subscription{CustomerID: m.CustomerID, ProductID: p.ID, Status: "active", Metadata: maps.Clone(object(m.Metadata))}
	s.Metadata["provider"], s.Metadata["provider_subscription_id"] = m.Provider, m.ProviderSubscriptionID
	s.setPlan(&p, m.Seats)
	s.CurrentPeriodStart, s.CurrentPeriodEnd = m.PeriodStart.UTC(), m.PeriodEnd.UTC()
	if m.PeriodStart.IsZero() {
		s.CurrentPeriodStart = b.Now()
	}
	if m.PeriodEnd.IsZero() {
		s.CurrentPeriodEnd = interval(s.CurrentPeriodStart, p.Interval, p.IntervalCount)
	}
	if !s.CurrentPeriodEnd.After(b.Now()) {
		return s, invalid("The period must end in the future.", stamp(s.CurrentPeriodEnd), "current_period_end")
	}
	started := s.CurrentPeriodStart
	s.StartedAt = &started
	b.transact(func(t *tx) { insert(t, &b.subs, &s) })
	b.transact(func(t *tx) {
		update(t, &b.subs, &s)
		t.emitMigrated(&s, m)
		t.emitSubscription(&s, "updated")
		b.scheduleDue(&s)
		b.grantJob(s.ID)
		if c, _ := b.customers.get(s.CustomerID); s.Seats > 0 {
			t.makeTeam(&c)
		}
	})
	return s, nil
}

// emitMigrated sends the only event whose envelope has fields of its own.
func (t *tx) emitMigrated(s *Subscription, m Migration) {
	t.emitSubscription(s, "migrated")
	more, _ := json.Marshal(map[string]string{"provider": m.Provider, "provider_subscription_id": m.ProviderSubscriptionID})
	t.events[len(t.events)-1].extra = "," + string(more[1:len(more)-1])
}

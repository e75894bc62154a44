package box

import (
	"cmp"
	"net/http"
	"time"
)

// change runs a change of a subscription that exists. The change validates
// before it writes.
func (b *Box) change(id string, do func(*tx, *Subscription) error) (Subscription, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s, ok := b.subs.get(id)
	if !ok {
		return s, notFound()
	}
	if b.locked[id] {
		return s, conflict("SubscriptionLocked", "This subscription is pending an update.")
	}
	var err error
	b.transact(func(t *tx) { err = do(t, &s) })
	if err != nil {
		s, _ = b.subs.get(id)
	}
	return s, err
}

// LockSubscription makes changes answer 409, as while an update is running.
func (b *Box) LockSubscription(id string, locked bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.locked[id] = locked
}

func alreadyCanceled() *Error {
	return forbidden("AlreadyCanceledSubscription", "This subscription is already canceled or will be at the end of the period.")
}

func (t *tx) save(s *Subscription, kinds ...string) {
	update(t, &t.b.subs, s)
	t.emitSubscription(s, append([]string{"updated"}, kinds...)...)
}

// Cancel ends the subscription with its current period.
func (b *Box) Cancel(id, reason, comment string) (Subscription, error) {
	return b.change(id, func(t *tx, s *Subscription) error {
		if !s.Billable() || s.CancelAtPeriodEnd {
			return alreadyCanceled()
		}
		now := t.flush()
		end := s.CurrentPeriodEnd
		s.CancelAtPeriodEnd, s.CanceledAt, s.EndsAt = true, &now, &end
		s.CancellationReason, s.CancellationComment = reason, comment
		s.PauseAtPeriodEnd, s.ResumesAt = false, nil
		t.save(s, "canceled")
		return nil
	})
}

// Uncancel takes a cancellation back before it takes effect.
func (b *Box) Uncancel(id string) (Subscription, error) {
	return b.change(id, func(t *tx, s *Subscription) error {
		if s.EndedAt != nil {
			return &Error{Status: http.StatusGone, Code: "ResourceUnavailable", Detail: "Resource unavailable"}
		}
		if !s.Billable() || !s.CancelAtPeriodEnd {
			return &Error{Status: http.StatusBadRequest, Code: "BadRequest", Detail: "Bad request"}
		}
		s.CancelAtPeriodEnd, s.CanceledAt, s.EndsAt = false, nil, nil
		s.CancellationReason, s.CancellationComment = "", ""
		t.save(s, "uncanceled")
		return nil
	})
}

// Revoke ends a subscription now.
func (b *Box) Revoke(id string) (Subscription, error) {
	return b.change(id, func(t *tx, s *Subscription) error {
		if s.Status == "canceled" || s.Status == "unpaid" {
			return alreadyCanceled()
		}
		t.end(s)
		return nil
	})
}

// ChangePlan moves a subscription to another product: at once with a charge
// (invoice), at once with a credit on the next invoice (prorate), or with the
// next period (next_period). Empty is what the organization has set.
func (b *Box) ChangePlan(id, productID, proration string) (Subscription, error) {
	return b.change(id, func(t *tx, s *Subscription) error {
		if !s.Billable() || s.CancelAtPeriodEnd {
			return alreadyCanceled()
		}
		p, ok := b.products.get(productID)
		switch {
		case !ok:
			return invalid("Product does not exist.", productID, "product_id")
		case p.Archived:
			return invalid("Product is archived.", productID, "product_id")
		case p.Interval == "":
			return invalid("Product is not recurring.", productID, "product_id")
		}
		if p.Price.seated() != (s.Seats > 0) {
			return invalid("The box does not move subscriptions between prices per seat and others.", productID, "product_id")
		}
		if err := b.checkSeats(s, &p, s.Seats); p.Price.seated() && err != nil {
			return err
		}
		proration := cmp.Or(proration, b.options.Proration)
		if proration == "next_period" {
			s.Pending = &PendingUpdate{Row: b.newRow(), AppliesAt: s.CurrentPeriodEnd, ProductID: productID}
			t.save(s)
			return nil
		}
		return t.changeNow(s, &p, s.Seats, proration)
	})
}

// changeNow moves to a product and a number of seats, of which one is new.
func (t *tx) changeNow(s *Subscription, p *Product, seats int, proration string) error {
	b := t.b
	c, _ := b.customers.get(s.CustomerID)
	o := Order{
		Status: "paid", Currency: s.Currency, BillingReason: "subscription_update", CustomerID: s.CustomerID,
		ProductID: p.ID, PriceID: p.Price.ID, SubscriptionID: s.ID, Metadata: s.Metadata, Seats: seats,
	}
	reset := p.Interval != s.Interval || p.IntervalCount != s.IntervalCount || proration == "reset"
	if s.Status != "trialing" && (proration == "invoice" || reset) {
		o.Amount = max(0, b.proration(s, p.Price.amount(seats), reset))
	}
	if o.Amount > 0 {
		if c.declines {
			return paymentFailed()
		}
		t.addOrder(&o)
		t.emitOrder(&o, "created", "updated", "paid")
	}
	s.setPlan(p, seats)
	s.Pending = nil
	if reset && s.Status != "trialing" {
		s.CurrentPeriodStart = t.flush()
		s.CurrentPeriodEnd = interval(s.CurrentPeriodStart, p.Interval, p.IntervalCount)
		b.scheduleDue(s)
	}
	t.save(s)
	b.grantJob(s.ID)
	return nil
}

// proration is the price of the rest of the period on the new plan, minus what
// the old plan's rest was worth.
func (b *Box) proration(s *Subscription, amount int, reset bool) int {
	period := s.CurrentPeriodEnd.Sub(s.CurrentPeriodStart)
	rest := max(0, s.CurrentPeriodEnd.Sub(b.Now()))
	share := float64(rest) / float64(max(1, period))
	if reset {
		return amount - int(float64(s.Amount)*share)
	}
	return int(float64(amount-s.Amount) * share)
}

// DropPending takes a scheduled change back.
func (b *Box) DropPending(id string) (Subscription, error) {
	return b.change(id, func(t *tx, s *Subscription) error {
		if s.Pending == nil {
			return invalid("This subscription has no pending update to clear.", nil, "pending_update")
		}
		s.Pending = nil
		t.save(s)
		return nil
	})
}

// Pause lets the subscription pause at the end of its period, until a time or
// until it is resumed.
func (b *Box) Pause(id string, resumes *time.Time) (Subscription, error) {
	return b.change(id, func(t *tx, s *Subscription) error {
		if !s.Billable() || s.CancelAtPeriodEnd {
			return conflict("CannotPauseSubscription", "This subscription cannot be paused.")
		}
		if resumes != nil && !resumes.After(s.CurrentPeriodEnd) {
			return invalid("The resume date must be after the end of the current period.", stamp(*resumes), "resumes_at")
		}
		s.PauseAtPeriodEnd, s.ResumesAt = true, resumes
		t.save(s)
		return nil
	})
}

// Unpause takes a scheduled pause back.
func (b *Box) Unpause(id string) (Subscription, error) {
	return b.change(id, func(t *tx, s *Subscription) error {
		if !s.Billable() || !s.PauseAtPeriodEnd {
			return conflict("NoScheduledPause", "This subscription is not scheduled to be paused.")
		}
		s.PauseAtPeriodEnd, s.ResumesAt = false, nil
		t.save(s)
		return nil
	})
}

// Resume ends a pause now.
func (b *Box) Resume(id string) (Subscription, error) {
	return b.change(id, func(t *tx, s *Subscription) error {
		if s.Status != "paused" {
			return conflict("NotPausedSubscription", "This subscription is not paused.")
		}
		t.resume(s)
		return nil
	})
}

// EndPeriodAt moves the end of the current period, which is the end of a trial
// too. Customers of the API say current_billing_period_end and trial_end.
func (b *Box) EndPeriodAt(id string, end time.Time) (Subscription, error) {
	return b.change(id, func(t *tx, s *Subscription) error {
		if s.EndedAt != nil || s.CancelAtPeriodEnd {
			return alreadyCanceled()
		}
		if !s.Active() {
			return forbidden("InactiveSubscription", "Subscription "+s.ID+" is not active.")
		}
		if end.Before(b.Now()) {
			return invalid("The date must be in the future.", stamp(end), "current_billing_period_end")
		}
		s.CurrentPeriodEnd = end
		if s.Status == "trialing" {
			s.TrialEnd = &end
		}
		b.scheduleDue(s)
		t.save(s)
		return nil
	})
}

// EndTrialAt moves the end of a trial; a time that is not in the future ends
// the trial now.
func (b *Box) EndTrialAt(id string, end time.Time) (Subscription, error) {
	return b.change(id, func(t *tx, s *Subscription) error {
		if !s.Billable() {
			return alreadyCanceled()
		}
		now := b.Now()
		if s.Status != "trialing" {
			return invalid("The subscription is not in a trial.", stamp(end), "trial_end")
		}
		if !end.After(now) {
			end = now
		}
		s.TrialEnd, s.CurrentPeriodEnd = &end, end
		if s.CancelAtPeriodEnd {
			s.EndsAt = &end
		}
		if end.After(now) {
			b.scheduleDue(s)
			t.save(s)
			return nil
		}
		t.cycle(s)
		return nil
	})
}

// SetMetadata replaces the metadata.
func (b *Box) SetMetadata(id string, metadata map[string]any) (Subscription, error) {
	return b.change(id, func(t *tx, s *Subscription) error {
		s.Metadata = metadata
		t.save(s)
		return nil
	})
}

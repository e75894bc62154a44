package box

import "time"

// scheduleDue plans the end of the current period, or the end of a pause.
func (b *Box) scheduleDue(s *Subscription) {
	at := s.CurrentPeriodEnd
	if s.Status == "paused" {
		if s.ResumesAt == nil {
			return
		}
		at = *s.ResumesAt
	}
	id := s.ID
	b.job(at, false, func(t *tx) {
		s, _ := b.subs.get(id)
		switch {
		case !b.renewals:
			return // as for an organization that Polar has blocked
		case s.Status == "paused" && s.ResumesAt != nil && !s.ResumesAt.After(b.Now()):
			t.resume(&s)
		case !s.Billable() || s.CurrentPeriodEnd.After(b.Now()):
			return // it was ended or moved meanwhile
		case s.CancelAtPeriodEnd:
			t.end(&s)
		case s.PauseAtPeriodEnd:
			t.pause(&s)
		default:
			t.cycle(&s)
		}
	})
}

// cycle rolls the billing period over, before the money arrives.
func (t *tx) cycle(s *Subscription) {
	b := t.b
	if s.Status == "trialing" {
		s.Status = "active"
	}
	changed := s.applyPending(b)
	s.CurrentPeriodStart = s.CurrentPeriodEnd
	s.CurrentPeriodEnd = b.periodEnd(s)
	update(t, &b.subs, s)
	t.emitSubscription(s, "cycled", "updated")
	b.scheduleDue(s)
	b.bookkeep(s.ID)
	b.billJob(s.ID)
	if changed {
		b.grantJob(s.ID)
	}
}

// periodEnd keeps the day of the month on which the subscription started, or
// its trial ended, where months are long enough.
func (b *Box) periodEnd(s *Subscription) time.Time {
	end := interval(s.CurrentPeriodStart, s.Interval, s.IntervalCount)
	if s.StartedAt == nil || (s.Interval != "month" && s.Interval != "year") {
		return end
	}
	anchor := s.StartedAt.Day()
	if s.TrialEnd != nil {
		anchor = s.TrialEnd.Day()
	}
	if last := time.Date(end.Year(), end.Month()+1, 0, 0, 0, 0, 0, time.UTC).Day(); end.Day() < anchor && end.Day() == s.CurrentPeriodStart.Day() {
		end = end.AddDate(0, 0, min(anchor, last)-end.Day())
	}
	return end
}

func (s *Subscription) applyPending(b *Box) bool {
	if s.Pending == nil {
		return false
	}
	id, seats := s.ProductID, s.Seats
	if s.Pending.ProductID != "" {
		id = s.Pending.ProductID
	}
	if s.Pending.Seats > 0 {
		seats = s.Pending.Seats
	}
	p, _ := b.products.get(id)
	s.Pending = nil
	s.setPlan(&p, seats)
	return true
}

// end revokes a subscription now.
func (t *tx) end(s *Subscription) {
	now := t.flush()
	s.Status, s.EndedAt = "canceled", &now
	if !s.CancelAtPeriodEnd || s.CanceledAt == nil {
		s.CanceledAt, s.EndsAt = &now, &now
	} else if s.EndsAt == nil || s.EndsAt.After(now) {
		s.EndsAt = &now
	}
	update(t, &t.b.subs, s)
	t.emitSubscription(s, "updated", "canceled", "revoked")
	t.b.grantJob(s.ID)
}

func (t *tx) pause(s *Subscription) {
	now := t.flush()
	s.Status, s.PausedAt, s.PauseAtPeriodEnd = "paused", &now, false
	update(t, &t.b.subs, s)
	t.emitSubscription(s, "updated", "paused")
	t.b.scheduleDue(s)
	t.b.grantJob(s.ID)
}

// resume starts a fresh period now.
func (t *tx) resume(s *Subscription) {
	now := t.flush()
	s.Status, s.PausedAt, s.ResumesAt = "active", nil, nil
	s.CurrentPeriodStart, s.CurrentPeriodEnd = now, interval(now, s.Interval, s.IntervalCount)
	update(t, &t.b.subs, s)
	t.emitSubscription(s, "updated", "resumed")
	t.b.scheduleDue(s)
	t.b.billJob(s.ID)
	t.b.grantJob(s.ID)
}

package entitlement

import "time"

// Unconfirmed says whether a refusal may rest on what is no longer so: a
// period, trial, grace or pause of the account is over by the clock, and Polar
// has not been heard since; or there is something that this version cannot
// judge by itself. It is worth asking Polar then.
func (a *Account) Unconfirmed(r *Rules, heard, now time.Time) bool {
	heard = latest(heard, r.ConfirmedAt)
	for i := range a.Subscriptions {
		s := &a.Subscriptions[i]
		if !a.running(i) {
			continue
		}
		since := latest(heard, s.Version.AsOf)
		if !s.Status.Known() && now.Sub(since) > time.Minute {
			return true
		}
		for _, boundary := range a.boundaries(i, r) {
			if !boundary.IsZero() && !now.Before(boundary) && !since.After(boundary) {
				return true
			}
		}
	}
	return a.hasOrphan(heard)
}

// boundaries are the moments at which time alone ends what a subscription
// gives.
func (a *Account) boundaries(i int, r *Rules) []time.Time {
	s := &a.Subscriptions[i]
	all := []time.Time{s.PeriodEnd, s.TrialEnd, s.EndsAt, s.ResumesAt}
	for n := range r.Plans {
		renewal := r.Plans[n].Grace.Renewal
		all = append(all, s.PeriodEnd.Add(renewal))
		if !s.TrialEnd.IsZero() {
			all = append(all, s.TrialEnd.Add(renewal))
		}
		if s.Status == StatusPastDue {
			var w way
			w.pastDue(s, &a.subscriptions[i], &r.Plans[n].Grace, s.PeriodStart)
			all = append(all, w.until)
		}
	}
	return all
}

// hasOrphan says whether there is a live grant or a claimed seat whose parent is
// not held.
func (a *Account) hasOrphan(heard time.Time) bool {
	for i := range a.Grants {
		if a.Orphan(i) && !heard.After(a.Grants[i].Version.AsOf) {
			return true
		}
	}
	for i := range a.Seats {
		if a.OrphanSeat(i) && !heard.After(a.Seats[i].Version.AsOf) {
			return true
		}
	}
	return false
}

// OrphanSeat says whether the seat at i is claimed and its parent is not held.
func (a *Account) OrphanSeat(i int) bool {
	n := &a.seats[i]
	return a.Seats[i].Claimed && n.subscription < 0 && n.order < 0
}

// Orphan says whether the grant at i is live and its parent is not held.
func (a *Account) Orphan(i int) bool {
	g, n := &a.Grants[i], &a.grants[i]
	return g.Granted && !g.Revoked && n.subscription < 0 && n.order < 0 && g.SubscriptionID+g.OrderID != ""
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

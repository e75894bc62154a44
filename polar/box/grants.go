package box

import (
	"slices"
	"time"
)

// grantDelay is how long the job takes that grants and revokes.
const grantDelay = 800 * time.Millisecond

// grantJob brings the grants of a subscription to what its status says.
func (b *Box) grantJob(subscriptionID string) {
	b.job(b.Now().Add(grantDelay), true, func(t *tx) {
		if s, ok := b.subs.get(subscriptionID); ok {
			t.reconcileGrants(&s)
		}
	})
}

func (t *tx) reconcileGrants(s *Subscription) {
	if s.Status == "past_due" && s.PastDueAt != nil {
		if grace := s.PastDueAt.AddDate(0, 0, t.b.options.GraceDays); t.b.Now().Before(grace) {
			return
		}
	}
	if s.Seats > 0 {
		if !s.Active() {
			t.revokeSeats(s.ID, "")
		}
		return // what is granted hangs on the seats, which do not come back
	}
	var wanted []string
	if c, _ := t.b.customers.get(s.CustomerID); s.Active() && c.DeletedAt == nil {
		p, _ := t.b.products.get(s.ProductID)
		wanted = p.BenefitIDs
	}
	t.setGrants(Grant{SubscriptionID: s.ID, CustomerID: s.CustomerID}, wanted)
}

// json is null for no error, with a time as Python writes it.
func (e *GrantError) json() any {
	if e == nil {
		return nil
	}
	return obj{"message": e.Message, "type": "BenefitActionRequiredError", "timestamp": e.At.UTC().Format("2006-01-02T15:04:05.000000-07:00")}
}

// orderGrantJob grants what a one-time purchase has bought.
func (b *Box) orderGrantJob(orderID string) {
	b.job(b.Now().Add(grantDelay), true, func(t *tx) {
		o, _ := b.orders.get(orderID)
		p, _ := b.products.get(o.ProductID)
		t.setGrants(Grant{OrderID: o.ID, CustomerID: o.CustomerID}, p.BenefitIDs)
	})
}

func (b *Box) revokeOrderJob(orderID, customerID string) {
	b.job(b.Now().Add(grantDelay), true, func(t *tx) {
		t.revokeSeats(orderID, "")
		t.setGrants(Grant{OrderID: orderID, CustomerID: customerID}, nil)
	})
}

// grantCustomerJob revokes what a deleted customer has left.
func (b *Box) grantCustomerJob(customerID string) {
	b.job(b.Now().Add(grantDelay), true, func(t *tx) {
		for _, g := range b.grants.of(customerID) {
			if g.RevokedAt == nil {
				t.revokeGrant(&g)
			}
		}
	})
}

// setGrants revokes first what is not wanted, and then grants what is missing.
// A grant that existed is granted again, with its id. With a member, only that
// member's grants are looked at.
func (t *tx) setGrants(like Grant, wanted []string) {
	have := map[string]Grant{}
	for _, g := range t.b.grants.of(like.CustomerID) {
		if g.SubscriptionID != like.SubscriptionID || g.OrderID != like.OrderID || like.MemberID != "" && g.MemberID != like.MemberID {
			continue
		}
		have[g.BenefitID] = g
		if g.RevokedAt == nil && !slices.Contains(wanted, g.BenefitID) {
			t.revokeGrant(&g)
		}
	}
	for _, id := range wanted {
		g, existed := have[id]
		if existed && g.RevokedAt == nil {
			continue
		}
		if !existed {
			g = like
			g.Row, g.BenefitID = t.b.newRow(), id
			if owner, ok := t.b.owner(like.CustomerID); ok && g.MemberID == "" {
				g.MemberID = owner.ID
			}
		}
		t.attempt(&g)
		if existed {
			update(t, &t.b.grants, &g)
		} else {
			insert(t, &t.b.grants, &g)
		}
		t.emit("benefit_grant.created", t.b.grantJSON(&g))
		t.b.stateChanged(like.CustomerID)
	}
}

// attempt grants, or notes what its customer must do first.
func (t *tx) attempt(g *Grant) {
	now := t.b.clock.tick()
	g.GrantedAt, g.RevokedAt, g.Error = &now, nil, nil
	if action := t.b.actions[g.BenefitID]; action != "" {
		g.GrantedAt, g.Error = nil, &GrantError{Message: action, At: now}
	}
}

// RequireAction lets a benefit's grants fail from now on, as those do for which
// a customer must first connect an account; the message says what to do. An
// empty one ends it.
func (b *Box) RequireAction(benefitID, message string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.actions[benefitID] = message
}

// RetryGrant tries to grant again what has failed or was granted, as after the
// customer has connected the account.
func (b *Box) RetryGrant(id string) (Grant, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	g, ok := b.grants.get(id)
	if !ok || g.RevokedAt != nil {
		return g, notFound()
	}
	b.transact(func(t *tx) { t.regrant(&g) })
	return g, nil
}

func (t *tx) regrant(g *Grant) {
	t.attempt(g)
	update(t, &t.b.grants, g)
	t.emit("benefit_grant.updated", t.b.grantJSON(g))
	t.b.stateChanged(g.CustomerID)
}

func (t *tx) revokeGrant(g *Grant) {
	now := t.flush()
	g.GrantedAt, g.RevokedAt, g.Error = nil, &now, nil
	update(t, &t.b.grants, g)
	t.emit("benefit_grant.revoked", t.b.grantJSON(g))
	t.b.stateChanged(g.CustomerID)
}

// cycleGrantsJob tells of each live grant that a renewal was paid.
func (b *Box) cycleGrantsJob(subscriptionID string) {
	b.job(b.Now().Add(grantDelay), true, func(t *tx) {
		s, _ := b.subs.get(subscriptionID)
		for _, g := range b.grants.of(s.CustomerID) {
			if g.SubscriptionID == s.ID && g.GrantedAt != nil && g.CreatedAt.Before(s.CurrentPeriodStart) {
				update(t, &b.grants, &g)
				t.emit("benefit_grant.cycled", b.grantJSON(&g))
				b.stateChanged(g.CustomerID)
			}
		}
	})
}

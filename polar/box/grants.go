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
	var wanted []string
	if c, _ := t.b.customers.get(s.CustomerID); s.Active() && c.DeletedAt == nil {
		p, _ := t.b.products.get(s.ProductID)
		wanted = p.BenefitIDs
	}
	t.setGrants(Grant{SubscriptionID: s.ID, CustomerID: s.CustomerID}, wanted)
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
// A grant that existed is granted again, with its id.
func (t *tx) setGrants(like Grant, wanted []string) {
	have := map[string]Grant{}
	for _, g := range t.b.grants.of(like.CustomerID) {
		if g.SubscriptionID != like.SubscriptionID || g.OrderID != like.OrderID {
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
		now := t.b.clock.tick()
		if existed {
			g.GrantedAt, g.RevokedAt = &now, nil
			update(t, &t.b.grants, &g)
		} else {
			g = like
			g.BenefitID, g.GrantedAt = id, &now
			if members := t.b.members.of(like.CustomerID); len(members) > 0 {
				g.MemberID = members[0].ID
			}
			insert(t, &t.b.grants, &g)
		}
		t.emit("benefit_grant.created", t.b.grantJSON(&g))
		t.b.stateChanged(like.CustomerID)
	}
}

func (t *tx) revokeGrant(g *Grant) {
	now := t.flush()
	g.GrantedAt, g.RevokedAt = nil, &now
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

package cache

import (
	"context"
	"time"

	"github.com/caddy-polar/caddy-polar/cache/kv"
	"github.com/caddy-polar/caddy-polar/entitlement"
)

const (
	// keepEnded is how long what has ended is held. Polar can redeliver events
	// of the last 90 days: those of a grant whose subscription was removed
	// would make it a grant without a parent, which opens by itself.
	keepEnded = 100 * 24 * time.Hour
	// keepOpened is how long an opened checkout stands in its user's account.
	keepOpened = 48 * time.Hour
	// dropAtOnce is how many records one transaction removes at most, if they
	// do not belong together: webhooks wait for it. Of a million, each is on
	// pages of its own in three trees.
	dropAtOnce = 64
)

// Expire removes what nobody needs any more, and says how many records that
// were:
//
//   - subscriptions that ended more than 100 days ago, with their orders,
//     grants, seats and refunds, if none of these has changed since and no grant
//     or seat is still live;
//   - checkouts that were opened here more than 100 days ago, unless a purchase
//     is its user's by that alone.
//
// After 48 hours an opened checkout is gone from its user's account. What has
// not ended is never removed, nor is what keeps a customer from being one
// user's alone. Give a now that much earlier to keep all longer: a gateway
// whose grace is longer than 100 days must.
func (s *Store) Expire(ctx context.Context, now time.Time) (removed int, err error) {
	e := expiry{ended: now.Add(-keepEnded), opened: now.Add(-keepOpened)}
	err = walk(ctx, s, bucketSubscriptions, subscriptionFields, func(held []entitlement.Subscription) error {
		var due []string
		for i := range held {
			if e.subscription(&held[i]) {
				due = append(due, held[i].ID)
			}
		}
		n, err := s.inBatches(ctx, due, e.dropSubscription)
		removed += n
		return err
	})
	if err != nil {
		return removed, err
	}
	err = walk(ctx, s, bucketCheckouts, checkoutFields, func(held []Checkout) error {
		due, err := s.dueCheckouts(held, e)
		if err != nil {
			return err
		}
		n, err := s.inBatches(ctx, due, e.dropCheckout)
		removed += n
		return err
	})
	return removed, err
}

// inBatches gives ids to drop, in transactions that remove no more than
// dropAtOnce records each. With less room than that drop may say that it needs
// more, and do nothing yet.
func (s *Store) inBatches(ctx context.Context, ids []string, drop func(f *fold, id string, room int) (done bool, err error)) (removed int, err error) {
	for len(ids) > 0 {
		var done, gone int
		err := s.submit(ctx, &change{run: func(f *fold) error {
			before := f.removed
			for done, gone = 0, 0; done < min(len(ids), dropAtOnce) && gone < dropAtOnce; done++ {
				ok, err := drop(f, ids[done], dropAtOnce-gone)
				if err != nil {
					return err
				}
				if !ok {
					return nil
				}
				gone = f.removed - before
			}
			return nil
		}})
		if err != nil {
			return removed, err
		}
		ids, removed = ids[done:], removed+gone
	}
	return removed, nil
}

// expiry says what is due: what ended or was opened before then.
type expiry struct{ ended, opened time.Time }

func (e expiry) subscription(s *entitlement.Subscription) bool {
	end := s.End()
	return s.Status.Ended() && !end.IsZero() && end.Before(e.ended) && s.Version.Row.Before(e.ended)
}

func (e expiry) checkout(c *Checkout) bool {
	return !c.Used && !c.OpenedAt.IsZero() && c.OpenedAt.Before(e.ended)
}

// dropSubscription looks again whether a subscription is due, now that nobody
// else writes.
func (e expiry) dropSubscription(f *fold, id string, room int) (bool, error) {
	s, held, err := get(f.tx, bucketSubscriptions, id, subscriptionFields)
	if err != nil || !held || !e.subscription(&s) {
		return true, err
	}
	m, err := subscriptionFamily(f.tx, &s)
	if err != nil || !e.settled(m) {
		return true, err
	}
	if needed, err := f.needed(m); err != nil || needed {
		return true, err
	}
	if n := m.size(); n > room && room < dropAtOnce {
		return false, nil
	}
	return true, f.drop(m)
}

// settled says that nothing in a family has changed since.
func (e expiry) settled(m *family) bool {
	for _, o := range m.orders {
		if !o.Version.Row.Before(e.ended) {
			return false
		}
	}
	for _, g := range m.grants {
		// A live one would be without its parent, and open by itself.
		if !g.Version.Row.Before(e.ended) || g.Granted && !g.Revoked {
			return false
		}
	}
	for _, r := range m.refunds {
		if !r.Version.Row.Before(e.ended) {
			return false
		}
	}
	for _, s := range m.seats {
		// A claimed one without its parent opens nothing.
		if !s.Version.Row.Before(e.ended) {
			return false
		}
	}
	return true
}

// needed says that an ended subscription matters for more than itself: its
// customer is someone else's, who must not be told that it is theirs alone, or
// another purchase has one of its children.
func (f *fold) needed(m *family) (bool, error) {
	s := m.subscription
	customers, err := customerOwner(f.tx, s.CustomerID)
	if err != nil {
		return false, err
	}
	user, err := subscriptionOwner(f.tx, s)
	if err != nil || customers != "" && customers != user {
		return true, err
	}
	for _, o := range m.orders {
		user, err := orderOwner(f.tx, &o)
		if err != nil || customers != "" && customers != user {
			return true, err
		}
	}
	for _, g := range m.grants {
		if f.elsewhere(m, g.SubscriptionID, g.OrderID) {
			return true, nil
		}
	}
	for _, r := range m.refunds {
		if f.elsewhere(m, r.SubscriptionID, r.OrderID) {
			return true, nil
		}
	}
	return false, nil
}

// elsewhere says that a child has a parent outside of the family.
func (f *fold) elsewhere(m *family, subscription, order string) bool {
	if subscription != m.subscription.ID && f.tx.Bucket(bucketSubscriptions).Get(subscription) != nil {
		return true
	}
	_, ours := m.orders[order]
	return !ours && f.tx.Bucket(bucketOrders).Get(order) != nil
}

// dueCheckouts are those of which the record or the index entry is due.
func (s *Store) dueCheckouts(held []Checkout, e expiry) (due []string, err error) {
	err = s.read(func(tx kv.Tx) error {
		due = nil
		index := tx.Bucket(bucketByUser)
		for i := range held {
			c := &held[i]
			user := c.opener()
			listed := user != "" && c.OpenedAt.Before(e.opened) && index.Get(indexKey(user, kindCheckout, c.ID)) != nil
			if listed || e.checkout(c) {
				due = append(due, c.ID)
			}
		}
		return nil
	})
	return due, err
}

// dropCheckout always has room: it is one record.
func (e expiry) dropCheckout(f *fold, id string, _ int) (bool, error) {
	c, held, err := get(f.tx, bucketCheckouts, id, checkoutFields)
	switch {
	case err != nil || !held:
		return true, err
	case e.checkout(&c):
		return true, f.dropCheckout(&c)
	case c.opener() != "" && c.OpenedAt.Before(e.opened):
		return true, f.move(kindCheckout, id, c.opener(), "")
	}
	return true, nil
}

package cache

import (
	"github.com/caddy-polar/caddy-polar/cache/kv"
	"github.com/caddy-polar/caddy-polar/entitlement"
)

// family is a purchase with all that hangs on it: a subscription with its
// orders, or a one-time order, and the grants, refunds and seats of these.
type family struct {
	subscription *entitlement.Subscription // nil: a one-time order
	orders       map[string]entitlement.Order
	grants       map[string]entitlement.Grant
	refunds      map[string]entitlement.Refund
	seats        map[string]entitlement.Seat
}

func (m *family) size() int {
	n := len(m.orders) + len(m.grants) + len(m.refunds) + len(m.seats)
	if m.subscription != nil {
		n++
	}
	return n
}

func subscriptionFamily(tx kv.Tx, s *entitlement.Subscription) (*family, error) {
	m := newFamily()
	m.subscription = s
	err := scan(tx.Bucket(bucketByCustomer), s.CustomerID, func(k kind, id string) error {
		if k != kindOrder {
			return nil
		}
		o, held, err := get(tx, bucketOrders, id, orderFields)
		if err != nil || !held || o.SubscriptionID != s.ID {
			return err
		}
		m.orders[id] = o
		return m.children(tx, id)
	})
	if err != nil {
		return nil, err
	}
	return m, m.children(tx, s.ID)
}

func orderFamily(tx kv.Tx, o *entitlement.Order) (*family, error) {
	m := newFamily()
	m.orders[o.ID] = *o
	return m, m.children(tx, o.ID)
}

func newFamily() *family {
	return &family{
		orders:  make(map[string]entitlement.Order),
		grants:  make(map[string]entitlement.Grant),
		refunds: make(map[string]entitlement.Refund),
		seats:   make(map[string]entitlement.Seat),
	}
}

func (m *family) children(tx kv.Tx, parent string) error {
	return scan(tx.Bucket(bucketByParent), parent, func(k kind, id string) error {
		switch k {
		case kindGrant:
			g, held, err := get(tx, bucketGrants, id, grantFields)
			if err == nil && held {
				m.grants[id] = g
			}
			return err
		case kindRefund:
			r, held, err := get(tx, bucketRefunds, id, refundFields)
			if err == nil && held {
				m.refunds[id] = r
			}
			return err
		case kindSeat:
			s, held, err := get(tx, bucketSeats, id, seatFields)
			if err == nil && held {
				m.seats[id] = s
			}
			return err
		}
		return nil
	})
}

// drop removes a family, children first: who is concerned is found out through
// their parents.
func (f *fold) drop(m *family) error {
	for _, r := range m.refunds {
		if err := f.dropRefund(&r); err != nil {
			return err
		}
	}
	for _, g := range m.grants {
		if err := f.dropGrant(&g); err != nil {
			return err
		}
	}
	for _, s := range m.seats {
		if err := f.dropSeat(&s); err != nil {
			return err
		}
	}
	for _, o := range m.orders {
		if err := f.dropOrder(&o); err != nil {
			return err
		}
	}
	if s := m.subscription; s != nil {
		return f.dropSubscription(s)
	}
	return nil
}

func (f *fold) dropRefund(r *entitlement.Refund) error {
	subscription := r.SubscriptionID
	if subscription == "" { // it stands under that of its order
		o, _, err := get(f.tx, bucketOrders, r.OrderID, orderFields)
		if err != nil {
			return err
		}
		subscription = o.SubscriptionID
	}
	if err := f.touchRefunded(subscription, r.OrderID); err != nil {
		return err
	}
	if err := f.unindex(bucketByParent, kindRefund, r.ID, subscription, r.OrderID); err != nil {
		return err
	}
	return f.removeObject(kindRefund, r.ID)
}

func (f *fold) dropGrant(g *entitlement.Grant) error {
	if err := f.touchParents(g.SubscriptionID, g.OrderID); err != nil {
		return err
	}
	user, err := grantOwner(f.tx, g)
	if err != nil {
		return err
	}
	if err := f.move(kindGrant, g.ID, user, ""); err != nil {
		return err
	}
	if err := f.unindex(bucketByMember, kindGrant, g.ID, memberOf(g)); err != nil {
		return err
	}
	if err := f.unindex(bucketByParent, kindGrant, g.ID, g.SubscriptionID, g.OrderID); err != nil {
		return err
	}
	if err := f.underCustomer(kindGrant, g.ID, buyerOf(g), ""); err != nil {
		return err
	}
	return f.removeObject(kindGrant, g.ID)
}

func (f *fold) dropOrder(o *entitlement.Order) error {
	if o.SubscriptionID == "" {
		user, err := orderOwner(f.tx, o)
		if err != nil {
			return err
		}
		if err := f.move(kindOrder, o.ID, user, ""); err != nil {
			return err
		}
	}
	if err := f.underCustomer(kindOrder, o.ID, o.CustomerID, ""); err != nil {
		return err
	}
	return f.removeObject(kindOrder, o.ID)
}

func (f *fold) dropSubscription(s *entitlement.Subscription) error {
	user, err := subscriptionOwner(f.tx, s)
	if err != nil {
		return err
	}
	if err := f.move(kindSubscription, s.ID, user, ""); err != nil {
		return err
	}
	if err := f.underCustomer(kindSubscription, s.ID, s.CustomerID, ""); err != nil {
		return err
	}
	return f.removeObject(kindSubscription, s.ID)
}

func (f *fold) unindex(bucket []byte, k kind, id string, holders ...string) error {
	for _, holder := range holders {
		if holder == "" {
			continue
		}
		if err := f.delete(f.tx.Bucket(bucket), indexKey(holder, k, id)); err != nil {
			return err
		}
	}
	return nil
}

// dropCheckout removes a checkout, also from its user's index.
func (f *fold) dropCheckout(c *Checkout) error {
	if err := f.move(kindCheckout, c.ID, c.opener(), ""); err != nil {
		return err
	}
	return f.remove(bucketCheckouts, c.ID)
}

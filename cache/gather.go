package cache

import (
	"bytes"

	bolt "go.etcd.io/bbolt"

	"github.com/caddy-polar/caddy-polar/entitlement"
)

// gatherer collects what concerns one user from one transaction.
type gatherer struct {
	tx        *bolt.Tx
	user      string
	facts     entitlement.Facts
	customers map[string]int // id → index into facts.Customers
}

// gather reads the account of a user. One that nobody knows is empty.
func gather(tx *bolt.Tx, user string) (*entitlement.Account, error) {
	g := gatherer{tx: tx, user: user}
	err := scan(tx.Bucket(bucketByUser), user, func(k kind, id string) error {
		switch k {
		case kindCustomer:
			return g.ownCustomer(id)
		case kindSubscription:
			return g.subscription(id)
		case kindOrder:
			return g.order(id)
		case kindCheckout:
			return g.checkout(id)
		}
		return nil
	})
	if err == nil {
		err = g.passes()
	}
	if err != nil {
		return nil, err
	}
	return entitlement.NewAccount(user, g.facts), nil
}

// customer adds the customer behind a purchase, once.
func (g *gatherer) customer(id string) (*entitlement.HeldCustomer, error) {
	if i, ok := g.customers[id]; ok {
		return &g.facts.Customers[i], nil
	}
	c, held, err := get(g.tx, bucketCustomers, id, customerFields)
	if err != nil {
		return nil, err
	}
	if !held {
		c.ID = id
	}
	if g.customers == nil {
		g.customers = make(map[string]int, 1)
	}
	g.customers[id] = len(g.facts.Customers)
	g.facts.Customers = append(g.facts.Customers, entitlement.HeldCustomer{Customer: c})
	return &g.facts.Customers[len(g.facts.Customers)-1], nil
}

// ownCustomer adds a customer that is the user's by a link or external id, and
// the grants that come with it because their parent is not held.
func (g *gatherer) ownCustomer(id string) error {
	c, err := g.customer(id)
	if err != nil {
		return err
	}
	c.Own = true
	c.ByEmail = emailUser(g.tx, id) != "" // then it is nobody's by anything else
	shared := false
	err = scan(g.tx.Bucket(bucketByCustomer), id, func(k kind, id string) error {
		var whose string
		switch k {
		case kindGrant:
			return g.orphan(id)
		case kindSubscription:
			s, _, err := get(g.tx, bucketSubscriptions, id, subscriptionFields)
			if err != nil {
				return err
			}
			if whose, err = subscriptionOwner(g.tx, &s); err != nil {
				return err
			}
		case kindOrder:
			o, _, err := get(g.tx, bucketOrders, id, orderFields)
			if err != nil {
				return err
			}
			if whose, err = orderOwner(g.tx, &o); err != nil {
				return err
			}
		default:
			return nil
		}
		shared = shared || whose != g.user
		return nil
	})
	g.facts.Customers[g.customers[id]].Shared = shared
	return err
}

func (g *gatherer) orphan(id string) error {
	grant, held, err := get(g.tx, bucketGrants, id, grantFields)
	if err != nil || !held {
		return err
	}
	if !parentHeld(g.tx, &grant) {
		g.facts.Grants = append(g.facts.Grants, grant)
	}
	return nil
}

func parentHeld(tx *bolt.Tx, g *entitlement.Grant) bool {
	return tx.Bucket(bucketSubscriptions).Get([]byte(g.SubscriptionID)) != nil ||
		tx.Bucket(bucketOrders).Get([]byte(g.OrderID)) != nil
}

func (g *gatherer) subscription(id string) error {
	s, held, err := get(g.tx, bucketSubscriptions, id, subscriptionFields)
	if err != nil || !held {
		return err
	}
	g.facts.Subscriptions = append(g.facts.Subscriptions, s)
	return g.children(id, s.CustomerID, true)
}

func (g *gatherer) order(id string) error {
	o, held, err := get(g.tx, bucketOrders, id, orderFields)
	if err != nil || !held {
		return err
	}
	g.facts.Orders = append(g.facts.Orders, o)
	return g.children(id, o.CustomerID, false)
}

// children adds the grants and refunds of a purchase, and its customer.
func (g *gatherer) children(parent, customer string, ofSubscription bool) error {
	if _, err := g.customer(customer); err != nil {
		return err
	}
	return scan(g.tx.Bucket(bucketByParent), parent, func(k kind, id string) error {
		switch k {
		case kindGrant:
			grant, held, err := get(g.tx, bucketGrants, id, grantFields)
			if err != nil || !held {
				return err
			}
			g.facts.Grants = append(g.facts.Grants, grant)
		case kindRefund:
			refund, held, err := get(g.tx, bucketRefunds, id, refundFields)
			if err != nil || !held {
				return err
			}
			if ofSubscription {
				// Polar leaves it out of some refunds; the index knows it.
				refund.SubscriptionID = parent
			}
			g.facts.Refunds = append(g.facts.Refunds, refund)
		}
		return nil
	})
}

func (g *gatherer) checkout(id string) error {
	c, _, err := get(g.tx, bucketCheckouts, id, checkoutFields)
	if c.OpenedAt.After(g.facts.CheckoutAt) {
		g.facts.CheckoutAt = c.OpenedAt
	}
	return err
}

func (g *gatherer) passes() error {
	prefix := append([]byte(g.user), 0)
	c := g.tx.Bucket(bucketPasses).Cursor()
	for key, raw := c.Seek(prefix); key != nil && bytes.HasPrefix(key, prefix); key, raw = c.Next() {
		p, err := decode(passFields, raw)
		if err != nil {
			return err
		}
		g.facts.Passes = append(g.facts.Passes, p)
	}
	return nil
}

package cache

import (
	"slices"

	"github.com/caddy-polar/caddy-polar/cache/kv"
	"github.com/caddy-polar/caddy-polar/entitlement"
)

// gatherer collects what concerns one user from one transaction.
type gatherer struct {
	tx        kv.Tx
	user      string
	facts     entitlement.Facts
	customers map[string]int // id → index into facts.Customers
	lent      [][2]string    // subscription and order of what the user has as a member
	orphans   []string       // customers of such grants of which neither is held
}

// gather reads the account of a user. One that nobody knows is empty.
func gather(tx kv.Tx, user string) (*entitlement.Account, error) {
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
		case kindMember:
			return g.member(id)
		case kindSeat:
			return g.seat(id)
		case kindGrant:
			return g.memberGrant(id)
		}
		return nil
	})
	if err == nil {
		err = g.lenders()
	}
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
	who, err := identify(g.tx, id)
	if err != nil {
		return err
	}
	c.Own = true
	c.ByEmail = who.byEmail != "" // then it is nobody's by anything else
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
			whose = who.owner(s.MetadataUser)
		case kindOrder:
			o, _, err := get(g.tx, bucketOrders, id, orderFields)
			if err != nil {
				return err
			}
			whose = who.owner(o.MetadataUser)
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
	if err != nil || !held || grant.ForMember {
		return err
	}
	if !parentHeld(g.tx, &grant) {
		g.facts.Grants = append(g.facts.Grants, grant)
	}
	return nil
}

func parentHeld(tx kv.Tx, g *entitlement.Grant) bool {
	return tx.Bucket(bucketSubscriptions).Get(g.SubscriptionID) != nil ||
		tx.Bucket(bucketOrders).Get(g.OrderID) != nil
}

func (g *gatherer) subscription(id string) error {
	under := g.entriesUnder(id)
	s, held, err := get(g.tx, bucketSubscriptions, id, subscriptionFields)
	if err != nil || !held {
		return err
	}
	g.facts.Subscriptions = append(g.facts.Subscriptions, s)
	return g.children(under, s.CustomerID, true, s.Seats)
}

func (g *gatherer) order(id string) error {
	under := g.entriesUnder(id)
	o, held, err := get(g.tx, bucketOrders, id, orderFields)
	if err != nil || !held {
		return err
	}
	g.facts.Orders = append(g.facts.Orders, o)
	return g.children(under, o.CustomerID, false, o.Seats)
}

// purchaseEntries are what an index has under a purchase.
type purchaseEntries struct {
	purchase        string
	grants, refunds entries
}

// entriesUnder comes before the purchase is looked at: a server is asked for both at once.
func (g *gatherer) entriesUnder(purchase string) purchaseEntries {
	index := g.tx.Bucket(bucketByParent)
	return purchaseEntries{purchase, entriesOf(index, purchase, kindGrant), entriesOf(index, purchase, kindRefund)}
}

// children adds the grants and refunds of a purchase, and its customer. What
// Polar grants to members is theirs alone where seats were bought.
func (g *gatherer) children(under purchaseEntries, customer string, ofSubscription, seats bool) error {
	if _, err := g.customer(customer); err != nil {
		return err
	}
	err := under.grants.scan(func(id string, value []byte) error {
		if len(value) > 0 && seats {
			return nil // a member's
		}
		grant, held, err := get(g.tx, bucketGrants, id, grantFields)
		if err != nil || !held || grant.ForMember && seats {
			return err
		}
		g.facts.Grants = append(g.facts.Grants, grant)
		return nil
	})
	if err != nil {
		return err
	}
	return under.refunds.scan(func(id string, _ []byte) error {
		return g.refund(id, under.purchase, ofSubscription)
	})
}

func (g *gatherer) refund(id, parent string, ofSubscription bool) error {
	refund, held, err := get(g.tx, bucketRefunds, id, refundFields)
	if err != nil || !held {
		return err
	}
	if ofSubscription {
		// Polar leaves it out of some refunds; the index knows it.
		refund.SubscriptionID = parent
	}
	g.facts.Refunds = append(g.facts.Refunds, refund)
	return nil
}

func (g *gatherer) member(id string) error {
	m, held, err := get(g.tx, bucketMembers, id, memberFields)
	if err == nil && held {
		g.facts.Members = append(g.facts.Members, m)
	}
	return err
}

func (g *gatherer) seat(id string) error {
	s, held, err := get(g.tx, bucketSeats, id, seatFields)
	if err == nil && held {
		g.facts.Seats = append(g.facts.Seats, s)
		g.lent = append(g.lent, [2]string{s.SubscriptionID, s.OrderID})
	}
	return err
}

// memberGrant adds a grant that the user has as a member. Of what was bought
// without seats it is the buyer's, whichever member has it at Polar.
func (g *gatherer) memberGrant(id string) error {
	grant, held, err := get(g.tx, bucketGrants, id, grantFields)
	if err != nil || !held {
		return err
	}
	s, held, err := get(g.tx, bucketSubscriptions, grant.SubscriptionID, subscriptionFields)
	if err != nil || held && !s.Seats {
		return err
	}
	o, held, err := get(g.tx, bucketOrders, grant.OrderID, orderFields)
	if err != nil || held && !o.Seats {
		return err
	}
	g.facts.Grants = append(g.facts.Grants, grant)
	g.lent = append(g.lent, [2]string{grant.SubscriptionID, grant.OrderID})
	if !parentHeld(g.tx, &grant) {
		g.orphans = append(g.orphans, grant.CustomerID)
	}
	return nil
}

// foreignCustomer adds what counts of somebody else's customer.
func (g *gatherer) foreignCustomer(id string) error {
	if _, ok := g.customers[id]; ok {
		return nil
	}
	c, err := g.customer(id)
	if err != nil {
		return err
	}
	*c = entitlement.HeldCustomer{Customer: entitlement.Customer{ID: id, DeletedAt: c.DeletedAt}}
	g.facts.Foreign = append(g.facts.Foreign, id)
	return nil
}

// lenders adds what the user's seats are of, unless the user has bought it.
func (g *gatherer) lenders() error {
	for _, lent := range g.lent {
		subscription, order := lent[0], lent[1]
		known := func(id string) bool {
			return slices.ContainsFunc(g.facts.Subscriptions, func(s entitlement.Subscription) bool { return s.ID == id }) ||
				slices.ContainsFunc(g.facts.Orders, func(o entitlement.Order) bool { return o.ID == id })
		}
		if subscription != "" && !known(subscription) {
			s, held, err := get(g.tx, bucketSubscriptions, subscription, subscriptionFields)
			if err != nil {
				return err
			}
			if held {
				s.MetadataUser = "" // who that is is none of this user's business
				g.facts.Subscriptions = append(g.facts.Subscriptions, s)
				if err := g.lender(s.ID, s.CustomerID, true); err != nil {
					return err
				}
			}
		}
		if order != "" && !known(order) {
			o, held, err := get(g.tx, bucketOrders, order, orderFields)
			if err != nil {
				return err
			}
			if held {
				o.MetadataUser = ""
				g.facts.Orders = append(g.facts.Orders, o)
				if err := g.lender(o.ID, o.CustomerID, false); err != nil {
					return err
				}
			}
		}
	}
	for _, customer := range g.orphans { // if that is deleted they open nothing
		if err := g.foreignCustomer(customer); err != nil {
			return err
		}
	}
	return nil
}

// lender adds what counts of a purchase of somebody else: that it was refunded,
// and that its customer was deleted.
func (g *gatherer) lender(purchase, customer string, ofSubscription bool) error {
	g.facts.Foreign = append(g.facts.Foreign, purchase)
	if err := g.foreignCustomer(customer); err != nil {
		return err
	}
	return scanKind(g.tx.Bucket(bucketByParent), purchase, kindRefund, func(id string, _ []byte) error {
		return g.refund(id, purchase, ofSubscription)
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
	prefix := g.user + "\x00"
	for _, raw := range g.tx.Bucket(bucketPasses).Range(prefix, prefix, 0) {
		p, err := decode(passFields, raw)
		if err != nil {
			return err
		}
		g.facts.Passes = append(g.facts.Passes, p)
	}
	return nil
}

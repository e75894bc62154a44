package cache

import (
	"context"
	"math"

	"github.com/caddy-polar/caddy-polar/cache/kv"
	"github.com/caddy-polar/caddy-polar/entitlement"
)

// Forget removes all that is held about a user, in one transaction: their
// purchases with all that hangs on these, customers that are theirs, passes,
// links and checkouts. Where their id stands in what is someone else's, it is
// blanked. It says how many records were removed.
//
// Polar's next word of what it still has comes in as ever: forget a user there
// first. Notes are not searched. Pages that became free can keep the bytes
// until they are used again. It reads most of the file once.
func (s *Store) Forget(ctx context.Context, user string) (removed int, err error) {
	if !ValidUser(user) {
		return 0, ErrUser
	}
	t, err := s.traces(ctx, user)
	if err != nil {
		return 0, err
	}
	err = s.submit(ctx, &change{run: func(f *fold) error {
		before := f.removed
		err := f.forget(user, t)
		removed = f.removed - before
		return err
	}})
	if err != nil {
		return 0, err
	}
	return removed, nil
}

// traces are the records that name a user, whoever has them by the index.
type traces struct {
	customers, subscriptions, orders, checkouts, members []string

	entries []uint64 // of the journal, of what was once theirs
	read    uint64   // the last entry that was looked at
}

func (s *Store) traces(ctx context.Context, user string) (t traces, err error) {
	err = s.EachCustomer(ctx, func(c *entitlement.Customer) error {
		if c.ExternalID == user {
			t.customers = append(t.customers, c.ID)
		}
		return nil
	})
	if err != nil {
		return t, err
	}
	err = s.EachSubscription(ctx, func(v *entitlement.Subscription) error {
		if v.MetadataUser == user {
			t.subscriptions = append(t.subscriptions, v.ID)
		}
		return nil
	})
	if err != nil {
		return t, err
	}
	err = s.EachOrder(ctx, func(o *entitlement.Order) error {
		if o.MetadataUser == user {
			t.orders = append(t.orders, o.ID)
		}
		return nil
	})
	if err != nil {
		return t, err
	}
	err = s.EachMember(ctx, func(m *entitlement.Member) error {
		if m.ExternalID == user {
			t.members = append(t.members, m.ID)
		}
		return nil
	})
	if err != nil {
		return t, err
	}
	err = walk(ctx, s, bucketCheckouts, checkoutFields, singly(ctx, func(c *Checkout) error {
		if c.User == user {
			t.checkouts = append(t.checkouts, c.ID)
		}
		return nil
	}))
	if err != nil {
		return t, err
	}
	for list := []Entry{{}}; len(list) > 0; t.look(user, list) {
		if err := context.Cause(ctx); err != nil {
			return t, err
		}
		if list, err = s.Journal(t.read, entriesAtOnce); err != nil {
			return t, err
		}
	}
	return t, nil
}

// entriesAtOnce is how many entries of the journal are looked at in one transaction.
const entriesAtOnce = 1000

// look takes note of the entries that name a user.
func (t *traces) look(user string, list []Entry) {
	for i := range list {
		if t.read = list[i].Number; list[i].names(user) {
			t.entries = append(t.entries, t.read)
		}
	}
}

func (f *fold) forget(user string, t traces) error {
	f.touch(user)
	var customers []string
	var subscriptions, orders []string
	err := scan(f.tx.Bucket(bucketByUser), user, func(k kind, id string) error {
		switch k {
		case kindCustomer:
			customers = append(customers, id)
		case kindSubscription:
			subscriptions = append(subscriptions, id)
		case kindOrder:
			orders = append(orders, id)
		case kindCheckout: // opened since the traces were looked for
			t.checkouts = append(t.checkouts, id)
		case kindMember:
			t.members = append(t.members, id)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, step := range []struct {
		ids    []string
		forget func(id string) error
	}{
		{t.members, func(id string) error { return f.forgetMember(user, id) }},
		{subscriptions, f.forgetSubscription},
		{orders, f.forgetOrder},
		{customers, func(id string) error { return f.forgetCustomer(user, id) }},
		{t.customers, func(id string) error { return f.forgetCustomer(user, id) }},
		{t.subscriptions, func(id string) error { return f.blankSubscription(user, id) }},
		{t.orders, func(id string) error { return f.blankOrder(user, id) }},
		{t.checkouts, func(id string) error { return f.forgetCheckout(user, id) }},
	} {
		for _, id := range step.ids {
			if err := step.forget(id); err != nil {
				return err
			}
		}
	}
	late, err := entriesAfter(f.tx.Bucket(bucketJournal), t.read, math.MaxInt)
	if err != nil {
		return err
	}
	t.look(user, late)
	for _, number := range t.entries {
		if err := f.blankEntry(user, number); err != nil {
			return err
		}
	}
	if f.tx.Bucket(bucketStages) != nil {
		if err := f.setStages(user, nil); err != nil {
			return err
		}
	}
	return f.forgetPasses(user)
}

func (f *fold) forgetSubscription(id string) error {
	s, held, err := get(f.tx, bucketSubscriptions, id, subscriptionFields)
	if err != nil || !held {
		return err
	}
	m, err := subscriptionFamily(f.tx, &s)
	if err != nil {
		return err
	}
	return f.drop(m)
}

func (f *fold) forgetOrder(id string) error {
	o, held, err := get(f.tx, bucketOrders, id, orderFields)
	if err != nil || !held {
		return err
	}
	m, err := orderFamily(f.tx, &o)
	if err != nil {
		return err
	}
	return f.drop(m)
}

// forgetCustomer takes a customer from a user, with what came to the user by
// it. The record stays, nameless, while something of others hangs on it: that
// it was deleted matters to them.
func (f *fold) forgetCustomer(user, id string) error {
	if err := f.forgetChildren(user, id); err != nil {
		return err
	}
	return f.ownership(id, func() error {
		if err := f.dropEmail(kindCustomer, id); err != nil {
			return err
		}
		if string(f.tx.Bucket(bucketLinks).Get(id)) == user {
			if err := f.remove(bucketLinks, id); err != nil {
				return err
			}
		}
		c, held, err := get(f.tx, bucketCustomers, id, customerFields)
		if err != nil || !held || c.ExternalID != "" && c.ExternalID != user {
			return err
		}
		linked := f.tx.Bucket(bucketLinks).Get(id) != nil
		if !linked && !isHolder(f.tx.Bucket(bucketByCustomer), id) {
			return f.removeObject(kindCustomer, id)
		}
		c.ExternalID = ""
		if err := f.forgetHistory(kindCustomer, id); err != nil {
			return err
		}
		return rewrite(f, kindCustomer, id, customerFields, c)
	})
}

// forgetChildren drops what a customer's user has by the customer alone: grants
// and orders whose subscription or order is not held.
func (f *fold) forgetChildren(user, customer string) error {
	owner, err := customerOwner(f.tx, customer)
	if err != nil || owner != user {
		return err
	}
	m := newFamily()
	err = scan(f.tx.Bucket(bucketByCustomer), customer, func(k kind, id string) error {
		switch k {
		case kindGrant:
			g, held, err := get(f.tx, bucketGrants, id, grantFields)
			if err == nil && held && !parentHeld(f.tx, &g) {
				m.grants[id] = g
			}
			return err
		case kindOrder:
			o, held, err := get(f.tx, bucketOrders, id, orderFields)
			if err != nil || !held {
				return err
			}
			if whose, err := orderOwner(f.tx, &o); err != nil || whose != user {
				return err
			}
			m.orders[id] = o
			return m.children(f.tx, id)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return f.drop(m)
}

// blankSubscription takes a user's name off a subscription that is someone
// else's, by a link.
func (f *fold) blankSubscription(user, id string) error {
	s, held, err := get(f.tx, bucketSubscriptions, id, subscriptionFields)
	if err != nil || !held || s.MetadataUser != user {
		return err
	}
	from, err := subscriptionOwner(f.tx, &s)
	if err != nil {
		return err
	}
	s.MetadataUser = ""
	to, err := subscriptionOwner(f.tx, &s)
	if err != nil {
		return err
	}
	if err := rewrite(f, kindSubscription, id, subscriptionFields, s); err != nil {
		return err
	}
	if err := f.reassignChildren(id); err != nil {
		return err
	}
	return f.move(kindSubscription, id, from, to)
}

// blankOrder is blankSubscription for an order.
func (f *fold) blankOrder(user, id string) error {
	o, held, err := get(f.tx, bucketOrders, id, orderFields)
	if err != nil || !held || o.MetadataUser != user {
		return err
	}
	from, err := orderOwner(f.tx, &o)
	if err != nil {
		return err
	}
	o.MetadataUser = ""
	to, err := orderOwner(f.tx, &o)
	if err != nil {
		return err
	}
	if err := rewrite(f, kindOrder, id, orderFields, o); err != nil {
		return err
	}
	if err := f.reassignChildren(id); err != nil {
		return err
	}
	if o.SubscriptionID != "" { // nobody's index has it
		return f.touchCustomer(o.CustomerID)
	}
	return f.move(kindOrder, id, from, to)
}

func (f *fold) forgetCheckout(user, id string) error {
	c, held, err := get(f.tx, bucketCheckouts, id, checkoutFields)
	if err != nil || !held || c.User != user {
		return err
	}
	return f.dropCheckout(&c)
}

func (f *fold) forgetPasses(user string) error {
	prefix := user + "\x00"
	var keys []string
	for key := range f.tx.Bucket(bucketPasses).Range(prefix, prefix, 0) {
		keys = append(keys, string(key))
	}
	for _, key := range keys {
		if err := f.remove(bucketPasses, key); err != nil {
			return err
		}
	}
	return nil
}

// Links are the customers and members that the operator has linked to a user.
func (s *Store) Links(user string) (customers []string, err error) {
	err = s.read(func(tx kv.Tx) error {
		customers = nil
		links := tx.Bucket(bucketLinks)
		return scan(tx.Bucket(bucketByUser), user, func(k kind, id string) error {
			if (k == kindCustomer || k == kindMember) && string(links.Get(id)) == user {
				customers = append(customers, id)
			}
			return nil
		})
	})
	return customers, err
}

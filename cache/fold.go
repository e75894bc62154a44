package cache

import (
	bolt "go.etcd.io/bbolt"

	"github.com/caddy-polar/caddy-polar/entitlement"
)

// Facts is what one webhook or read carries, and what the gateway itself has
// to remember. All of it is written, or nothing.
type Facts struct {
	// Organization is the organization the facts are of, if they say so.
	Organization string

	Customers     []entitlement.Customer
	Names         []Name
	Subscriptions []entitlement.Subscription
	Orders        []entitlement.Order
	Grants        []entitlement.Grant
	Refunds       []entitlement.Refund
	Checkouts     []Checkout

	Links  []Link
	Passes []entitlement.Pass
}

// Name is the external id of a customer, as another object tells it. It fills
// a gap and changes nothing that is known.
type Name struct {
	Customer   string
	ExternalID string
}

// Checkout is a checkout session. User is set when this gateway opened it, and
// then whatever it sold is that user's.
type Checkout struct {
	ID         string
	CustomerID string
	User       string
}

// Link is the operator's word that a customer belongs to a user. An empty user
// takes it back.
type Link struct {
	Customer string
	User     string
}

// Applied says what has become of some facts.
type Applied struct {
	// New counts what was news: objects whose newest state this is, names and
	// checkouts that nobody knew. Stale counts the objects that were known in
	// this state or a newer one.
	New, Stale int
	// Foreign says that the facts are of another organization, and were
	// dropped.
	Foreign bool
}

// fold writes facts into one transaction and remembers whom they concern.
type fold struct {
	tx      *bolt.Tx
	dirty   bool
	touched map[string]struct{}
}

func (f *fold) facts(in *Facts) (Applied, error) {
	var out Applied
	if in.Organization != "" {
		meta := f.tx.Bucket(bucketMeta)
		switch known := string(meta.Get(keyOrganization)); known {
		case in.Organization:
		case "":
			if err := f.put(meta, keyOrganization, []byte(in.Organization)); err != nil {
				return out, err
			}
		default:
			return Applied{Foreign: true}, nil
		}
	}
	steps := []func() error{
		func() error { return each(in.Checkouts, noticed(&out, f.checkout)) },
		func() error { return each(in.Customers, counted(&out, f.customer)) },
		func() error { return each(in.Names, noticed(&out, f.name)) },
		func() error { return each(in.Subscriptions, counted(&out, f.subscription)) },
		func() error { return each(in.Orders, counted(&out, f.order)) },
		func() error { return each(in.Grants, counted(&out, f.grant)) },
		func() error { return each(in.Refunds, counted(&out, f.refund)) },
		func() error { return each(in.Links, f.link) },
		func() error { return each(in.Passes, f.pass) },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return Applied{}, err
		}
	}
	return out, nil
}

func each[T any](items []T, do func(*T) error) error {
	for i := range items {
		if err := do(&items[i]); err != nil {
			return err
		}
	}
	return nil
}

func counted[T any](out *Applied, do func(*T) (bool, error)) func(*T) error {
	return func(v *T) error {
		isNew, err := do(v)
		if isNew {
			out.New++
		} else {
			out.Stale++
		}
		return err
	}
}

// noticed counts what is news, and not what was known.
func noticed[T any](out *Applied, do func(*T) (bool, error)) func(*T) error {
	return func(v *T) error {
		isNew, err := do(v)
		if isNew {
			out.New++
		}
		return err
	}
}

func (f *fold) put(b *bolt.Bucket, key, value []byte) error {
	f.dirty = true
	return b.Put(key, value)
}

func (f *fold) delete(b *bolt.Bucket, key []byte) error {
	f.dirty = true
	return b.Delete(key)
}

func (f *fold) index(bucket []byte, holder string, k kind, id string) error {
	if holder == "" {
		return nil
	}
	b, key := f.tx.Bucket(bucket), indexKey(holder, k, id)
	if b.Get(key) != nil {
		return nil
	}
	return f.put(b, key, []byte{})
}

func (f *fold) touch(user string) {
	if user != "" {
		f.touched[user] = struct{}{}
	}
}

// move brings the entry of an object from one user's index to another's.
func (f *fold) move(k kind, id, from, to string) error {
	f.touch(from)
	f.touch(to)
	if from == to {
		return f.index(bucketByUser, to, k, id)
	}
	if from != "" {
		if err := f.delete(f.tx.Bucket(bucketByUser), indexKey(from, k, id)); err != nil {
			return err
		}
	}
	return f.index(bucketByUser, to, k, id)
}

func (f *fold) customer(c *entitlement.Customer) (bool, error) {
	old, held, err := get(f.tx, bucketCustomers, c.ID, customerFields)
	if err != nil {
		return false, err
	}
	if held && !c.Version.Newer(old.Version) {
		return f.name(&Name{Customer: c.ID, ExternalID: c.ExternalID})
	}
	next := *c
	if next.ExternalID == "" {
		next.ExternalID = old.ExternalID // Polar never takes one away
	}
	return true, f.ownership(c.ID, func() error {
		return f.put(f.tx.Bucket(bucketCustomers), []byte(c.ID), encode(customerFields, next))
	})
}

func (f *fold) name(n *Name) (bool, error) {
	if n.ExternalID == "" || n.Customer == "" {
		return false, nil
	}
	c, _, err := get(f.tx, bucketCustomers, n.Customer, customerFields)
	if err != nil || c.ExternalID != "" {
		return false, err
	}
	c.ID, c.ExternalID = n.Customer, n.ExternalID
	return true, f.ownership(c.ID, func() error {
		return f.put(f.tx.Bucket(bucketCustomers), []byte(c.ID), encode(customerFields, c))
	})
}

func (f *fold) link(l *Link) error {
	return f.ownership(l.Customer, func() error {
		if l.User == "" {
			return f.delete(f.tx.Bucket(bucketLinks), []byte(l.Customer))
		}
		return f.put(f.tx.Bucket(bucketLinks), []byte(l.Customer), []byte(l.User))
	})
}

// owned is an object with its owner at one moment.
type owned struct {
	kind kind
	id   string
	user string
}

// ownership runs a change of a customer that can change whose its objects are,
// and brings the users' indexes along.
func (f *fold) ownership(customer string, change func() error) error {
	before, err := f.owners(customer)
	if err != nil {
		return err
	}
	if err := change(); err != nil {
		return err
	}
	after, err := f.owners(customer)
	if err != nil {
		return err
	}
	for i := range after {
		if err := f.move(after[i].kind, after[i].id, before[i].user, after[i].user); err != nil {
			return err
		}
	}
	return nil
}

// owners lists a customer and its purchases with their owners. The list is the
// same before and after a change of the customer, but for the owners.
func (f *fold) owners(customer string) ([]owned, error) {
	user, err := customerOwner(f.tx, customer)
	if err != nil {
		return nil, err
	}
	list := []owned{{kindCustomer, customer, user}}
	err = scan(f.tx.Bucket(bucketByCustomer), customer, func(k kind, id string) error {
		switch k {
		case kindSubscription:
			s, _, err := get(f.tx, bucketSubscriptions, id, subscriptionFields)
			if err != nil {
				return err
			}
			user, err := subscriptionOwner(f.tx, &s)
			list = append(list, owned{k, id, user})
			return err
		case kindOrder:
			o, _, err := get(f.tx, bucketOrders, id, orderFields)
			if err != nil || o.SubscriptionID != "" {
				return err
			}
			user, err := orderOwner(f.tx, &o)
			list = append(list, owned{k, id, user})
			return err
		}
		return nil
	})
	return list, err
}

// opener is the user that a purchase names: by its metadata, or because this
// gateway opened its checkout for them, which it remembers before anybody can
// buy.
func (f *fold) opener(metadataUser, checkout string) (string, error) {
	if metadataUser != "" || checkout == "" {
		return metadataUser, nil
	}
	c, _, err := get(f.tx, bucketCheckouts, checkout, checkoutFields)
	return c.User, err
}

func (f *fold) subscription(in *entitlement.Subscription) (bool, error) {
	s := new(*in)
	old, held, err := get(f.tx, bucketSubscriptions, s.ID, subscriptionFields)
	if err != nil || held && !s.Version.Newer(old.Version) {
		return false, err
	}
	if s.MetadataUser, err = f.opener(s.MetadataUser, s.CheckoutID); err != nil {
		return false, err
	}
	var from string
	if held {
		if from, err = subscriptionOwner(f.tx, &old); err != nil {
			return false, err
		}
	}
	to, err := subscriptionOwner(f.tx, s)
	if err != nil {
		return false, err
	}
	if err := f.put(f.tx.Bucket(bucketSubscriptions), []byte(s.ID), encode(subscriptionFields, *s)); err != nil {
		return false, err
	}
	if err := f.underCustomer(kindSubscription, s.ID, old.CustomerID, s.CustomerID); err != nil {
		return false, err
	}
	if err := f.adopt(held, s.ID); err != nil {
		return false, err
	}
	return true, f.move(kindSubscription, s.ID, from, to)
}

func (f *fold) order(in *entitlement.Order) (bool, error) {
	o := new(*in)
	old, held, err := get(f.tx, bucketOrders, o.ID, orderFields)
	if err != nil || held && !o.Version.Newer(old.Version) {
		return false, err
	}
	if o.MetadataUser, err = f.opener(o.MetadataUser, o.CheckoutID); err != nil {
		return false, err
	}
	var from string
	if held && old.SubscriptionID == "" {
		if from, err = orderOwner(f.tx, &old); err != nil {
			return false, err
		}
	}
	var to string
	if o.SubscriptionID == "" { // the others open nothing
		if to, err = orderOwner(f.tx, o); err != nil {
			return false, err
		}
	}
	if err := f.put(f.tx.Bucket(bucketOrders), []byte(o.ID), encode(orderFields, *o)); err != nil {
		return false, err
	}
	if err := f.underCustomer(kindOrder, o.ID, old.CustomerID, o.CustomerID); err != nil {
		return false, err
	}
	if err := f.adopt(held, o.ID); err != nil {
		return false, err
	}
	if err := f.refundsOfSubscription(o); err != nil {
		return false, err
	}
	return true, f.move(kindOrder, o.ID, from, to)
}

// adopt touches those who had the grants of a purchase while it was not held.
func (f *fold) adopt(held bool, purchase string) error {
	if held {
		return nil
	}
	return scan(f.tx.Bucket(bucketByParent), purchase, func(k kind, id string) error {
		if k != kindGrant {
			return nil
		}
		g, _, err := get(f.tx, bucketGrants, id, grantFields)
		if err != nil {
			return err
		}
		return f.touchCustomer(g.CustomerID)
	})
}

// refundsOfSubscription puts the refunds of a subscription's order under the
// subscription too: some refunds do not name it.
func (f *fold) refundsOfSubscription(o *entitlement.Order) error {
	if o.SubscriptionID == "" {
		return nil
	}
	var refunds []string
	err := scan(f.tx.Bucket(bucketByParent), o.ID, func(k kind, id string) error {
		if k == kindRefund {
			refunds = append(refunds, id)
		}
		return nil
	})
	if err != nil || len(refunds) == 0 {
		return err
	}
	for _, id := range refunds {
		if err := f.index(bucketByParent, o.SubscriptionID, kindRefund, id); err != nil {
			return err
		}
	}
	return f.touchParents(o.SubscriptionID, "")
}

// underCustomer keeps the customer's index, and touches the customer's user:
// whether the customer is that user's alone can depend on the object.
func (f *fold) underCustomer(k kind, id, from, to string) error {
	if from != "" && from != to {
		if err := f.delete(f.tx.Bucket(bucketByCustomer), indexKey(from, k, id)); err != nil {
			return err
		}
		if err := f.touchCustomer(from); err != nil {
			return err
		}
	}
	if err := f.index(bucketByCustomer, to, k, id); err != nil {
		return err
	}
	return f.touchCustomer(to)
}

func (f *fold) touchCustomer(customer string) error {
	user, err := customerOwner(f.tx, customer)
	f.touch(user)
	return err
}

// touchParents touches the owners of a subscription and of an order.
func (f *fold) touchParents(subscription, order string) error {
	s, held, err := get(f.tx, bucketSubscriptions, subscription, subscriptionFields)
	if err != nil {
		return err
	}
	if held {
		user, err := subscriptionOwner(f.tx, &s)
		if err != nil {
			return err
		}
		f.touch(user)
	}
	o, held, err := get(f.tx, bucketOrders, order, orderFields)
	if err != nil || !held {
		return err
	}
	user, err := orderOwner(f.tx, &o)
	f.touch(user)
	return err
}

func (f *fold) grant(g *entitlement.Grant) (bool, error) {
	old, held, err := get(f.tx, bucketGrants, g.ID, grantFields)
	if err != nil || held && !g.Version.Newer(old.Version) {
		return false, err
	}
	if err := f.put(f.tx.Bucket(bucketGrants), []byte(g.ID), encode(grantFields, *g)); err != nil {
		return false, err
	}
	for _, parent := range []string{g.SubscriptionID, g.OrderID} {
		if err := f.index(bucketByParent, parent, kindGrant, g.ID); err != nil {
			return false, err
		}
	}
	if err := f.underCustomer(kindGrant, g.ID, old.CustomerID, g.CustomerID); err != nil {
		return false, err
	}
	return true, f.touchParents(g.SubscriptionID, g.OrderID)
}

func (f *fold) refund(r *entitlement.Refund) (bool, error) {
	old, held, err := get(f.tx, bucketRefunds, r.ID, refundFields)
	if err != nil || held && !r.Version.Newer(old.Version) {
		return false, err
	}
	if err := f.put(f.tx.Bucket(bucketRefunds), []byte(r.ID), encode(refundFields, *r)); err != nil {
		return false, err
	}
	subscription := r.SubscriptionID
	if subscription == "" {
		o, _, err := get(f.tx, bucketOrders, r.OrderID, orderFields)
		if err != nil {
			return false, err
		}
		subscription = o.SubscriptionID
	}
	for _, parent := range []string{subscription, r.OrderID} {
		if err := f.index(bucketByParent, parent, kindRefund, r.ID); err != nil {
			return false, err
		}
	}
	return true, f.touchParents(subscription, r.OrderID)
}

// checkout keeps the user of a checkout that this gateway opened: what Polar
// says of it later does not know them.
func (f *fold) checkout(c *Checkout) (bool, error) {
	old, _, err := get(f.tx, bucketCheckouts, c.ID, checkoutFields)
	if err != nil {
		return false, err
	}
	next := *c
	if next.User == "" {
		next.User = old.User
	}
	if next.CustomerID == "" {
		next.CustomerID = old.CustomerID
	}
	if next == old {
		return false, nil
	}
	return true, f.put(f.tx.Bucket(bucketCheckouts), []byte(c.ID), encode(checkoutFields, next))
}

func (f *fold) pass(p *entitlement.Pass) error {
	if !ValidUser(p.User) || p.ID == "" {
		return ErrUser
	}
	f.touch(p.User)
	key := append(append([]byte(p.User), 0), p.ID...)
	return f.put(f.tx.Bucket(bucketPasses), key, encode(passFields, *p))
}

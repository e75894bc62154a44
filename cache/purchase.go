package cache

import (
	"github.com/caddy-polar/caddy-polar/entitlement"
)

// Subscriptions and orders, and whom a change of them concerns.

// opener is the user that a purchase names: by its metadata, or because this
// gateway opened its checkout for them, which it remembers before anybody can
// buy. byCheckout says that it is the latter.
func (f *fold) opener(metadataUser, checkout string) (user string, byCheckout bool, err error) {
	if metadataUser != "" || checkout == "" {
		return metadataUser, false, nil
	}
	c, _, err := get(f.tx, bucketCheckouts, checkout, checkoutFields)
	return c.User, c.User != "", err
}

// use makes a checkout stay, because a purchase is its user's by it alone.
func (f *fold) use(checkout string) error {
	c, _, err := get(f.tx, bucketCheckouts, checkout, checkoutFields)
	if err != nil || c.Used {
		return err
	}
	c.Used = true
	return f.put(f.tx.Bucket(bucketCheckouts), checkout, encode(checkoutFields, c))
}

func (f *fold) subscription(in *entitlement.Subscription) (verdict, error) {
	s := new(*in)
	old, held, err := get(f.tx, bucketSubscriptions, s.ID, subscriptionFields)
	if err != nil {
		return stale, err
	}
	var byCheckout bool
	if s.MetadataUser, byCheckout, err = f.opener(s.MetadataUser, s.CheckoutID); err != nil {
		return stale, err
	}
	v := judge(f, subscriptionFields, held, &old, s, old.Version, s.Version)
	if !v.isNews() {
		return v, nil
	}
	if byCheckout {
		if err := f.use(s.CheckoutID); err != nil {
			return stale, err
		}
	}
	is, err := f.position(s.CustomerID, s.MetadataUser)
	if err != nil {
		return stale, err
	}
	var was position
	if held {
		if was, err = f.formerPosition(is, s.MetadataUser, old.CustomerID, old.MetadataUser); err != nil {
			return stale, err
		}
	}
	if err := keep(f, kindSubscription, s.ID, subscriptionFields, subscriptionDiff, &old, s); err != nil {
		return stale, err
	}
	if err := f.adopt(held, s.ID); err != nil {
		return stale, err
	}
	if err := f.parentChanged(s.ID, !held || old.MetadataUser != s.MetadataUser); err != nil {
		return stale, err
	}
	if !held || !sameContent(subscriptionFields, old, *s) {
		f.changes = append(f.changes, SubscriptionChange{*s, old.Status, is.user})
	}
	return v, f.place(kindSubscription, s.ID, was, is)
}

func (f *fold) order(in *entitlement.Order) (verdict, error) {
	o := new(*in)
	old, held, err := get(f.tx, bucketOrders, o.ID, orderFields)
	if err != nil {
		return stale, err
	}
	var byCheckout bool
	if o.MetadataUser, byCheckout, err = f.opener(o.MetadataUser, o.CheckoutID); err != nil {
		return stale, err
	}
	v := judge(f, orderFields, held, &old, o, old.Version, o.Version)
	if !v.isNews() {
		return v, nil
	}
	if byCheckout {
		if err := f.use(o.CheckoutID); err != nil {
			return stale, err
		}
	}
	is, err := f.position(o.CustomerID, o.MetadataUser)
	if err != nil {
		return stale, err
	}
	var was position
	if held {
		if was, err = f.formerPosition(is, o.MetadataUser, old.CustomerID, old.MetadataUser); err != nil {
			return stale, err
		}
	}
	if old.SubscriptionID != "" { // such an order opens nothing
		was.user = ""
	}
	if o.SubscriptionID != "" {
		is.user = ""
	}
	if err := keep(f, kindOrder, o.ID, orderFields, orderDiff, &old, o); err != nil {
		return stale, err
	}
	if err := f.adopt(held, o.ID); err != nil {
		return stale, err
	}
	if err := f.parentChanged(o.ID, !held || old.MetadataUser != o.MetadataUser); err != nil {
		return stale, err
	}
	if err := f.refundsOfSubscription(o); err != nil {
		return stale, err
	}
	return v, f.place(kindOrder, o.ID, was, is)
}

// position is where a purchase stands in the indexes: under its customer and its
// owner. The zero position is that of one that is not held.
type position struct{ customer, user, buyer string } // buyer is who the customer is

func (f *fold) position(customer, metadataUser string) (position, error) {
	c, err := identify(f.tx, customer)
	return position{customer, c.owner(metadataUser), c.owner("")}, err
}

// formerPosition is that of a held purchase, which is mostly what it is told to
// be.
func (f *fold) formerPosition(is position, metadataUser, oldCustomer, oldMetadataUser string) (position, error) {
	if oldCustomer == is.customer && oldMetadataUser == metadataUser {
		return is, nil
	}
	return f.position(oldCustomer, oldMetadataUser)
}

// place brings a purchase to where it stands, and touches the customers' users:
// whether a customer is that user's alone can depend on it. A purchase that stays
// where it was has its entries.
func (f *fold) place(k kind, id string, was, is position) error {
	f.touch(was.buyer)
	f.touch(is.buyer)
	if was.customer != is.customer {
		if err := f.reindex(bucketByCustomer, k, id, was.customer, is.customer); err != nil {
			return err
		}
	}
	if was.user != is.user {
		return f.move(k, id, was.user, is.user)
	}
	f.touch(is.user)
	return nil
}

// parentChanged is for those who have seats in a purchase. renamed says that it
// may name another buyer than before.
func (f *fold) parentChanged(purchase string, renamed bool) error {
	if renamed {
		if err := f.reassignChildren(purchase); err != nil {
			return err
		}
	}
	return f.touchHolders(purchase)
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
	return f.touchRefunded(o.SubscriptionID, "")
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

// touchRefunded touches all for whom a refund counts.
func (f *fold) touchRefunded(subscription, order string) error {
	for _, purchase := range []string{subscription, order} {
		if err := f.touchHolders(purchase); err != nil {
			return err
		}
	}
	return f.touchParents(subscription, order)
}

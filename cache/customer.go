package cache

import (
	"github.com/caddy-polar/caddy-polar/entitlement"
)

// Customers, and whose what stands under them is.

func (f *fold) customer(c *entitlement.Customer) (verdict, error) {
	old, held, err := get(f.tx, bucketCustomers, c.ID, customerFields)
	if err != nil {
		return stale, err
	}
	next := *c
	if next.ExternalID == "" {
		next.ExternalID = old.ExternalID // Polar never takes one away
	}
	v := judge(f, customerFields, held, &old, &next, old.Version, c.Version)
	if v == stale {
		return f.name(&Name{Customer: c.ID, ExternalID: c.ExternalID})
	}
	if !v.isNews() {
		return v, nil
	}
	return v, f.putCustomer(&old, &next)
}

func (f *fold) putCustomer(old, c *entitlement.Customer) error {
	err := f.ownership(c.ID, func() error {
		if !emailCounts(c.ExternalID, !c.DeletedAt.IsZero()) {
			if err := f.dropEmail(kindCustomer, c.ID); err != nil {
				return err
			}
		}
		return keep(f, kindCustomer, c.ID, customerFields, customerDiff, old, c)
	})
	if err != nil || c.DeletedAt.Equal(old.DeletedAt) {
		return err
	}
	// That it is deleted counts for those who have a seat, too, and for members
	// whose grants came before what they are of.
	return scan(f.tx.Bucket(bucketByCustomer), c.ID, func(k kind, id string) error {
		switch k {
		case kindSubscription, kindOrder:
			return f.touchHolders(id)
		case kindMember:
			user, err := memberOwner(f.tx, id, "", "")
			f.touch(user)
			return err
		}
		return nil
	})
}

func (f *fold) name(n *Name) (verdict, error) {
	if n.ExternalID == "" || n.Customer == "" {
		return stale, nil
	}
	c, held, err := get(f.tx, bucketCustomers, n.Customer, customerFields)
	if err != nil || c.ExternalID != "" {
		return stale, err
	}
	v := missing
	if held {
		v = wrong
	}
	old := c
	c.ID, c.ExternalID = n.Customer, n.ExternalID
	return v, f.putCustomer(&old, &c)
}

func (f *fold) link(l *Link) error {
	return f.reowned(l.Customer, func() error {
		if l.User == "" {
			return f.delete(f.tx.Bucket(bucketLinks), l.Customer)
		}
		// One link is enough: taken back, it leaves nothing behind.
		if err := f.remove(bucketEmailLinks, l.Customer); err != nil {
			return err
		}
		return f.put(f.tx.Bucket(bucketLinks), l.Customer, []byte(l.User))
	})
}

// owned is an object with its owner at one moment. A seat, or a member's grant,
// has parents.
type owned struct {
	kind    kind
	id      string
	user    string
	parents [2]string
}

// reowned runs a change of a customer or member that can change who that is.
func (f *fold) reowned(id string, change func() error) error {
	if f.tx.Bucket(bucketMembers).Get(id) != nil {
		return f.membership(id, change)
	}
	return f.ownership(id, change)
}

// ownership runs a change of a customer that can change whose its objects are,
// and brings the users' indexes along.
func (f *fold) ownership(customer string, change func() error) error {
	return f.reassign(func() ([]owned, error) { return f.owners(customer) }, change)
}

// reassign runs a change that can change whose the listed objects are. The list
// is the same before and after it, but for the owners.
func (f *fold) reassign(list func() ([]owned, error), change func() error) error {
	before, err := list()
	if err != nil {
		return err
	}
	if err := change(); err != nil {
		return err
	}
	after, err := list()
	if err != nil {
		return err
	}
	for i := range after {
		if after[i].parents == ([2]string{}) {
			err = f.move(after[i].kind, after[i].id, before[i].user, after[i].user)
		} else {
			err = f.moveChild(after[i], before[i].user)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// owners lists a customer and its purchases with their owners, and what its
// owner member has.
func (f *fold) owners(customer string) ([]owned, error) {
	user, err := customerOwner(f.tx, customer)
	if err != nil {
		return nil, err
	}
	list := []owned{{kind: kindCustomer, id: customer, user: user}}
	err = scan(f.tx.Bucket(bucketByCustomer), customer, func(k kind, id string) error {
		switch k {
		case kindSubscription:
			s, _, err := get(f.tx, bucketSubscriptions, id, subscriptionFields)
			if err != nil {
				return err
			}
			user, err := subscriptionOwner(f.tx, &s)
			list = append(list, owned{kind: k, id: id, user: user})
			return err
		case kindOrder:
			o, _, err := get(f.tx, bucketOrders, id, orderFields)
			if err != nil || o.SubscriptionID != "" {
				return err
			}
			user, err := orderOwner(f.tx, &o)
			list = append(list, owned{kind: k, id: id, user: user})
			return err
		case kindMember:
			m, _, err := get(f.tx, bucketMembers, id, memberFields)
			if err == nil && m.Role == entitlement.RoleOwner {
				list, err = f.memberOwns(list, id)
			}
			return err
		case kindSeat:
			list, err = f.childOwned(list, k, id)
			return err
		}
		return nil
	})
	return list, err
}

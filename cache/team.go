package cache

import (
	"cmp"

	"github.com/caddy-polar/caddy-polar/cache/kv"
	"github.com/caddy-polar/caddy-polar/entitlement"
)

// Teams: customers that are several people. A member is a person of a customer.
// A seat that a member has claimed, and a grant that Polar has given to a member,
// are that person's, whoever has bought what they are of.

var (
	bucketMembers  = []byte("members")
	bucketSeats    = []byte("seats")
	bucketByMember = []byte("by_member") // → seats, grants
)

const (
	kindMember kind = 'm'
	kindSeat   kind = 'p' // a place
)

func memberFields(c *codec, v *entitlement.Member) {
	c.version(&v.Version)
	c.id(&v.ID)
	for _, s := range []*string{&v.CustomerID, &v.ExternalID, &v.Role} {
		c.string(s)
	}
	c.bool(&v.Deleted)
}

func seatFields(c *codec, v *entitlement.Seat) {
	c.version(&v.Version)
	c.id(&v.ID)
	for _, s := range []*string{&v.SubscriptionID, &v.OrderID, &v.CustomerID, &v.MemberID} {
		c.string(s)
	}
	c.bool(&v.Claimed)
	c.bool(&v.Revoked)
	c.time(&v.RevokedAt)
	c.version(&v.ClaimedIn)
}

// memberOwner computes who a member is, for what hangs on a purchase, or for
// none. An owner is the buyer, unless known as somebody else.
func memberOwner(tx kv.Tx, member, subscription, order string) (string, error) {
	m, held, err := get(tx, bucketMembers, member, memberFields)
	if err != nil || !held {
		return "", err
	}
	links := tx.Bucket(bucketLinks)
	link, metadata, external, byEmail := string(links.Get(m.ID)), "", m.ExternalID, emailUser(tx, m.ID)
	if m.Role == entitlement.RoleOwner {
		c, _, err := get(tx, bucketCustomers, m.CustomerID, customerFields)
		if err != nil {
			return "", err
		}
		if byEmail == "" && (external == "" || external == c.ExternalID) { // else the team was handed over to them
			if metadata, err = namedBuyer(tx, subscription, order); err != nil {
				return "", err
			}
			link = cmp.Or(link, string(links.Get(m.CustomerID)))
			external, byEmail = c.ExternalID, emailUser(tx, m.CustomerID)
		}
	}
	if user := entitlement.Owner(link, metadata, external, byEmail); ValidUser(user) {
		return user, nil
	}
	return "", nil
}

// namedBuyer is the user that a purchase itself names.
func namedBuyer(tx kv.Tx, subscription, order string) (string, error) {
	s, held, err := get(tx, bucketSubscriptions, subscription, subscriptionFields)
	if err != nil || held {
		return s.MetadataUser, err
	}
	o, _, err := get(tx, bucketOrders, order, orderFields)
	return o.MetadataUser, err
}

// seatOwner computes whose a seat is or was. An invitation is nobody's.
func seatOwner(tx kv.Tx, s *entitlement.Seat) (string, error) {
	switch {
	case !s.Claimed && !s.Revoked:
		return "", nil
	case s.MemberID == "" && s.CustomerID == "":
		return "", nil
	case s.MemberID == "":
		return customerOwner(tx, s.CustomerID)
	}
	return memberOwner(tx, s.MemberID, s.SubscriptionID, s.OrderID)
}

// grantOwner computes whose a grant is that a member has. The others are whose
// their purchase is.
func grantOwner(tx kv.Tx, g *entitlement.Grant) (string, error) {
	if !g.ForMember {
		return "", nil
	}
	return memberOwner(tx, g.MemberID, g.SubscriptionID, g.OrderID)
}

// member folds a member.
func (f *fold) member(in *entitlement.Member) (verdict, error) {
	old, held, err := get(f.tx, bucketMembers, in.ID, memberFields)
	if err != nil {
		return stale, err
	}
	next := *in
	next.ExternalID = cmp.Or(next.ExternalID, old.ExternalID) // as with customers
	v := judge(f, memberFields, held, &old, &next, old.Version, in.Version)
	switch {
	case v == stale && next.ExternalID != old.ExternalID && old.ExternalID == "":
		external := next.ExternalID // an old state that fills a gap
		next, v = old, wrong
		next.ExternalID = external
	case !v.isNews():
		return v, nil
	case !held:
		if err := f.noCustomer(in.ID); err != nil {
			return stale, err
		}
	}
	return v, f.putMember(&old, &next)
}

// noCustomer is for an id that turns out to be a member's. A link can come before
// what it is of, and then looks like that of a customer.
func (f *fold) noCustomer(id string) error {
	user, err := customerOwner(f.tx, id)
	if err != nil || user == "" {
		return err
	}
	return f.move(kindCustomer, id, user, "")
}

func (f *fold) putMember(old, next *entitlement.Member) error {
	return f.membership(next.ID, func() error {
		if !emailCounts(next.ExternalID, next.Deleted) {
			if err := f.dropEmail(kindMember, next.ID); err != nil {
				return err
			}
		}
		if err := f.underCustomer(kindMember, next.ID, old.CustomerID, next.CustomerID); err != nil {
			return err
		}
		return keep(f, kindMember, next.ID, memberFields, memberDiff, old, next)
	})
}

// ownerMember folds a member if it is held.
func (f *fold) ownerMember(in *entitlement.Member) (verdict, error) {
	if f.tx.Bucket(bucketMembers).Get(in.ID) == nil {
		return gone, nil
	}
	return f.member(in)
}

// membership runs a change of a member that can change who that is.
func (f *fold) membership(member string, change func() error) error {
	return f.reassign(func() ([]owned, error) { return f.memberOwns(nil, member) }, change)
}

// memberOwns adds to a list a member, and the seats and grants that the member
// has, with their owners.
func (f *fold) memberOwns(list []owned, member string) ([]owned, error) {
	user, err := memberOwner(f.tx, member, "", "")
	if err != nil {
		return nil, err
	}
	list = append(list, owned{kind: kindMember, id: member, user: user})
	err = scan(f.tx.Bucket(bucketByMember), member, func(k kind, id string) error {
		list, err = f.childOwned(list, k, id)
		return err
	})
	return list, err
}

// childOwned adds a seat or a member's grant to a list.
func (f *fold) childOwned(list []owned, k kind, id string) ([]owned, error) {
	var user string
	var parents [2]string
	switch k {
	case kindSeat:
		s, _, err := get(f.tx, bucketSeats, id, seatFields)
		if err == nil {
			user, err = seatOwner(f.tx, &s)
		}
		if err != nil {
			return list, err
		}
		parents = [2]string{s.SubscriptionID, s.OrderID}
	case kindGrant:
		g, _, err := get(f.tx, bucketGrants, id, grantFields)
		if err == nil {
			user, err = grantOwner(f.tx, &g)
		}
		if err != nil || !g.ForMember {
			return list, err
		}
		parents = [2]string{g.SubscriptionID, g.OrderID}
	}
	return append(list, owned{k, id, user, parents}), nil
}

// seat folds a seat. Who has claimed it goes by a version of its own, since a
// later state can lack it.
func (f *fold) seat(in *entitlement.Seat) (verdict, error) {
	old, held, err := get(f.tx, bucketSeats, in.ID, seatFields)
	if err != nil {
		return stale, err
	}
	if !held && in.Revoked && f.gone(in.Version, in.SubscriptionID, in.OrderID) {
		return gone, nil
	}
	next := *in
	names := in.ClaimedIn.Newer(old.ClaimedIn)
	if !names {
		next.CustomerID, next.MemberID, next.ClaimedIn = old.CustomerID, old.MemberID, old.ClaimedIn
	}
	v := judge(f, seatFields, held, &old, &next, old.Version, in.Version)
	if !v.isNews() {
		if !names || v == same {
			return v, nil
		}
		// An old state that comes late, and tells whose the seat was.
		late := old
		late.CustomerID, late.MemberID, late.ClaimedIn = next.CustomerID, next.MemberID, next.ClaimedIn
		if next = late; !sameContent(seatFields, old, late) {
			v = wrong
		}
	}
	return v, f.putSeat(&old, &next)
}

func (f *fold) putSeat(old, next *entitlement.Seat) error {
	from, err := seatOwner(f.tx, old)
	if err != nil {
		return err
	}
	if err := keep(f, kindSeat, next.ID, seatFields, seatDiff, old, next); err != nil {
		return err
	}
	if err := f.reindex(bucketByMember, kindSeat, next.ID, old.MemberID, next.MemberID); err != nil {
		return err
	}
	if err := f.reindex(bucketByCustomer, kindSeat, next.ID, soleHolder(old), soleHolder(next)); err != nil {
		return err
	}
	to, err := seatOwner(f.tx, next)
	if err != nil {
		return err
	}
	return f.moveChild(owned{kindSeat, next.ID, to, [2]string{next.SubscriptionID, next.OrderID}}, from)
}

// soleHolder is the customer who has a seat without being a member of anything.
func soleHolder(s *entitlement.Seat) string {
	if s.MemberID == "" {
		return s.CustomerID
	}
	return ""
}

// reindex brings the entry of an object from one holder to another.
func (f *fold) reindex(bucket []byte, k kind, id, from, to string) error {
	if from != to {
		if err := f.unindex(bucket, k, id, from); err != nil {
			return err
		}
	}
	return f.index(bucket, to, k, id)
}

// moveChild brings a seat, or a member's grant, to its owner's index, and notes
// the owner under its parents: so that a change of these finds all whom it
// concerns in one scan.
func (f *fold) moveChild(o owned, from string) error {
	note := append([]byte{heldApart}, o.user...)
	for _, parent := range o.parents {
		if parent == "" {
			continue
		}
		b, key := f.tx.Bucket(bucketByParent), indexKey(parent, o.kind, o.id)
		if string(b.Get(key)) == string(note) {
			continue
		}
		if err := f.put(b, key, note); err != nil {
			return err
		}
	}
	return f.move(o.kind, o.id, from, o.user)
}

// heldApart begins the value of an entry under a parent whose object is not
// simply the parent's owner's. The owner follows.
const heldApart = 1

// touchHolders touches those who have seats in a purchase.
func (f *fold) touchHolders(purchase string) error {
	if purchase == "" {
		return nil
	}
	return scanValues(f.tx.Bucket(bucketByParent), purchase, func(_ kind, _ string, value []byte) error {
		if len(value) > 1 {
			f.touch(string(value[1:]))
		}
		return nil
	})
}

// reassignChildren is for a purchase that names another buyer than before: the
// seat of its owner is whose it is.
func (f *fold) reassignChildren(purchase string) error {
	var children []owned
	err := scanValues(f.tx.Bucket(bucketByParent), purchase, func(k kind, id string, value []byte) error {
		if len(value) == 0 {
			return nil
		}
		list, err := f.childOwned(nil, k, id)
		for i := range list {
			if string(value[1:]) != list[i].user {
				children = append(children, list[i], owned{user: string(value[1:])})
			}
		}
		return err
	})
	if err != nil {
		return err
	}
	for i := 0; i < len(children); i += 2 {
		if err := f.moveChild(children[i], children[i+1].user); err != nil {
			return err
		}
	}
	return nil
}

func (f *fold) dropSeat(s *entitlement.Seat) error {
	user, err := seatOwner(f.tx, s)
	if err != nil {
		return err
	}
	if err := f.move(kindSeat, s.ID, user, ""); err != nil {
		return err
	}
	if err := f.unindex(bucketByMember, kindSeat, s.ID, s.MemberID); err != nil {
		return err
	}
	if err := f.unindex(bucketByCustomer, kindSeat, s.ID, soleHolder(s)); err != nil {
		return err
	}
	if err := f.unindex(bucketByParent, kindSeat, s.ID, s.SubscriptionID, s.OrderID); err != nil {
		return err
	}
	return f.removeObject(kindSeat, s.ID)
}

// forgetMember removes what is known of a member, whose seats are nobody's then.
// Off a member who is linked to somebody else it takes the person's name.
func (f *fold) forgetMember(user, id string) error {
	m, held, err := get(f.tx, bucketMembers, id, memberFields)
	if err != nil || !held {
		return err
	}
	whose, err := memberOwner(f.tx, id, "", "")
	switch {
	case err != nil || whose != user && m.ExternalID != user:
		return err
	case whose != user:
		m.ExternalID = ""
		f.touch(whose)
		if err := f.forgetHistory(kindMember, id); err != nil {
			return err
		}
		return rewrite(f, kindMember, id, memberFields, m)
	}
	return f.membership(id, func() error {
		if err := f.dropEmail(kindMember, id); err != nil {
			return err
		}
		if string(f.tx.Bucket(bucketLinks).Get(id)) == user {
			if err := f.remove(bucketLinks, id); err != nil {
				return err
			}
		}
		if err := f.unindex(bucketByCustomer, kindMember, id, m.CustomerID); err != nil {
			return err
		}
		return f.removeObject(kindMember, id)
	})
}

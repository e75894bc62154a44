package cache

import (
	"bytes"
	"time"

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
	Members       []entitlement.Member
	Owners        []entitlement.Member // members too, but only news of those that are held
	Seats         []entitlement.Seat
	Checkouts     []Checkout

	Emails     []Email
	EmailLinks []EmailLink

	Links  []Link
	Passes []entitlement.Pass
	// RemovePasses are passes to take back. User and id name them.
	RemovePasses []entitlement.Pass

	// Notes are kept with the facts, so that how far a sync has come is never
	// ahead of what it has brought. A nil value takes a note away.
	Notes map[string][]byte

	// Sweep says that a sync has read the facts: an object that differs from
	// what is held in AsOf alone is not written, so that a sync that finds
	// nothing to mend writes nothing to disk. Nor does it bring back what Expire,
	// given the moment Expired, has removed: lists have all that ever was.
	Sweep   bool
	Expired time.Time

	// Changes, if set, gets the subscriptions that are new, or other than they
	// were. Look at it only if Apply succeeds.
	Changes *[]SubscriptionChange
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
	// OpenedAt is when it was opened, zero if that is not known.
	OpenedAt time.Time
	// Used says that a purchase is the user's by this record alone. The store
	// finds it out; what a caller says of it does not count.
	Used bool
}

// Link is the operator's word that a customer, or a member of one, is a user. An
// empty user takes it back.
type Link struct {
	Customer string // or member
	User     string
}

// Applied says what has become of some facts.
type Applied struct {
	// New counts what was news: objects whose newest state this is, names and
	// checkouts that nobody knew. It is the sum of Missing and Wrong.
	New int
	// Missing counts the news of what was not held at all, Wrong the news of
	// what was held in an older state.
	Missing, Wrong int
	// Stale counts the objects that were known in this state or a newer one.
	Stale int
	// Same counts the objects of a sweep that were held as they are. Unless the
	// row is a newer one they were not written again.
	Same int
	// Foreign says that the facts are of another organization, and were
	// dropped.
	Foreign bool
}

// SubscriptionChange is what has become of a subscription.
type SubscriptionChange struct {
	entitlement.Subscription
	Before entitlement.Status // empty: it was not held
	User   string             // whose it is, empty if nobody's yet
}

// fold writes facts into one transaction and remembers whom they concern.
type fold struct {
	tx      *bolt.Tx
	dirty   bool
	touched map[string]struct{}
	changes []SubscriptionChange
	sweep   bool // the facts at hand are a sync's
	expired time.Time
	removed int // records taken away
}

func (f *fold) facts(in *Facts) (Applied, error) {
	var out Applied
	f.changes = nil
	f.sweep, f.expired = in.Sweep, in.Expired.Add(-keepEnded)
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
		func() error { return each(in.Members, counted(&out, f.member)) },
		func() error { return each(in.Owners, counted(&out, f.ownerMember)) },
		func() error { return each(in.Seats, counted(&out, f.seat)) },
		func() error { return each(in.Links, f.link) },
		func() error { return each(in.Emails, f.email) },
		func() error { return each(in.EmailLinks, f.emailLink) },
		func() error { return each(in.RemovePasses, f.removePass) },
		func() error { return each(in.Passes, f.pass) },
		func() error { return f.notes(in.Notes) },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return Applied{}, err
		}
	}
	if in.Changes != nil {
		*in.Changes = f.changes
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

// verdict is what a told state of an object is to the one that is held.
type verdict int

const (
	stale   verdict = iota // known, or older than what is known
	same                   // known, and told by a sweep
	touched                // the same, by a sweep, of a row that was written since
	missing                // of something that is not held
	wrong                  // newer than what is held
	gone                   // of what ended so long ago that it is not held
)

// gone says whether a sweep tells of a child whose parents went with age.
func (f *fold) gone(v entitlement.Version, subscription, order string) bool {
	return f.sweep && v.Row.Before(f.expired) &&
		f.tx.Bucket(bucketSubscriptions).Get([]byte(subscription)) == nil && f.tx.Bucket(bucketOrders).Get([]byte(order)) == nil
}

// isNews says whether the state is to be written.
func (v verdict) isNews() bool { return v == missing || v == wrong || v == touched }

func (a *Applied) news(v verdict) {
	switch v {
	case missing:
		a.Missing++
		a.New++
	case wrong:
		a.Wrong++
		a.New++
	}
}

func counted[T any](out *Applied, do func(*T) (verdict, error)) func(*T) error {
	return func(v *T) error {
		verdict, err := do(v)
		switch verdict {
		case stale:
			out.Stale++
		case same, touched:
			out.Same++
		case gone:
		default:
			out.news(verdict)
		}
		return err
	}
}

// noticed counts what is news, and not what was known.
func noticed[T any](out *Applied, do func(*T) (verdict, error)) func(*T) error {
	return func(v *T) error {
		verdict, err := do(v)
		out.news(verdict)
		return err
	}
}

// judge compares a told state with the one that is held. was and is are their
// versions.
func judge[T any](f *fold, fields func(*codec, *T), held bool, old, next *T, was, is entitlement.Version) verdict {
	switch {
	case !held:
		return missing
	case f.sweep && is.Row.Equal(was.Row) && sameContent(fields, *old, *next):
		return same
	case !is.Newer(was):
		return stale
	case was == entitlement.Version{}: // only its name was held
		return missing
	case f.sweep && sameContent(fields, *old, *next):
		return touched // Polar keeps books in the row, and tells nobody
	}
	return wrong
}

func (f *fold) put(b *bolt.Bucket, key, value []byte) error {
	f.dirty = true
	return b.Put(key, value)
}

func (f *fold) delete(b *bolt.Bucket, key []byte) error {
	f.dirty = true
	return b.Delete(key)
}

// remove takes a record away, if there is one.
func (f *fold) remove(bucket []byte, key string) error {
	b := f.tx.Bucket(bucket)
	if b.Get([]byte(key)) == nil {
		return nil
	}
	f.removed++
	return f.delete(b, []byte(key))
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
		return f.put(f.tx.Bucket(bucketCustomers), []byte(c.ID), encode(customerFields, *c))
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
			return f.delete(f.tx.Bucket(bucketLinks), []byte(l.Customer))
		}
		// One link is enough: taken back, it leaves nothing behind.
		if err := f.remove(bucketEmailLinks, l.Customer); err != nil {
			return err
		}
		return f.put(f.tx.Bucket(bucketLinks), []byte(l.Customer), []byte(l.User))
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
	if f.tx.Bucket(bucketMembers).Get([]byte(id)) != nil {
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
	return f.put(f.tx.Bucket(bucketCheckouts), []byte(checkout), encode(checkoutFields, c))
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
	var from string
	if held {
		if from, err = subscriptionOwner(f.tx, &old); err != nil {
			return stale, err
		}
	}
	to, err := subscriptionOwner(f.tx, s)
	if err != nil {
		return stale, err
	}
	if err := f.put(f.tx.Bucket(bucketSubscriptions), []byte(s.ID), encode(subscriptionFields, *s)); err != nil {
		return stale, err
	}
	if err := f.underCustomer(kindSubscription, s.ID, old.CustomerID, s.CustomerID); err != nil {
		return stale, err
	}
	if err := f.adopt(held, s.ID); err != nil {
		return stale, err
	}
	if err := f.parentChanged(s.ID, !held || old.MetadataUser != s.MetadataUser); err != nil {
		return stale, err
	}
	if !held || !sameContent(subscriptionFields, old, *s) {
		f.changes = append(f.changes, SubscriptionChange{*s, old.Status, to})
	}
	return v, f.move(kindSubscription, s.ID, from, to)
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
	var from string
	if held && old.SubscriptionID == "" {
		if from, err = orderOwner(f.tx, &old); err != nil {
			return stale, err
		}
	}
	var to string
	if o.SubscriptionID == "" { // the others open nothing
		if to, err = orderOwner(f.tx, o); err != nil {
			return stale, err
		}
	}
	if err := f.put(f.tx.Bucket(bucketOrders), []byte(o.ID), encode(orderFields, *o)); err != nil {
		return stale, err
	}
	if err := f.underCustomer(kindOrder, o.ID, old.CustomerID, o.CustomerID); err != nil {
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
	return v, f.move(kindOrder, o.ID, from, to)
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

func (f *fold) grant(g *entitlement.Grant) (verdict, error) {
	old, held, err := get(f.tx, bucketGrants, g.ID, grantFields)
	if err != nil {
		return stale, err
	}
	if !held && !(g.Granted && !g.Revoked) && f.gone(g.Version, g.SubscriptionID, g.OrderID) {
		return gone, nil
	}
	v := judge(f, grantFields, held, &old, g, old.Version, g.Version)
	if !v.isNews() {
		return v, nil
	}
	return v, f.putGrant(&old, g)
}

func (f *fold) putGrant(old, g *entitlement.Grant) error {
	from, err := grantOwner(f.tx, old)
	if err != nil {
		return err
	}
	if err := f.put(f.tx.Bucket(bucketGrants), []byte(g.ID), encode(grantFields, *g)); err != nil {
		return err
	}
	if err := f.reindex(bucketByMember, kindGrant, g.ID, memberOf(old), memberOf(g)); err != nil {
		return err
	}
	if err := f.underCustomer(kindGrant, g.ID, buyerOf(old), buyerOf(g)); err != nil {
		return err
	}
	if !g.ForMember {
		if err := f.buyersGrant(old.ForMember, g, from); err != nil {
			return err
		}
		return f.touchParents(g.SubscriptionID, g.OrderID)
	}
	// Before there were members, theirs stood under the customer.
	if err := f.unindex(bucketByCustomer, kindGrant, g.ID, old.CustomerID, g.CustomerID); err != nil {
		return err
	}
	to, err := grantOwner(f.tx, g)
	if err != nil {
		return err
	}
	if err := f.moveChild(owned{kindGrant, g.ID, to, [2]string{g.SubscriptionID, g.OrderID}}, from); err != nil {
		return err
	}
	return f.touchParents(g.SubscriptionID, g.OrderID) // without seats it is the buyer's too
}

// buyersGrant puts a grant under its parents. Perhaps it was a member's before.
func (f *fold) buyersGrant(wasMembers bool, g *entitlement.Grant, from string) error {
	if wasMembers {
		if err := f.unindex(bucketByParent, kindGrant, g.ID, g.SubscriptionID, g.OrderID); err != nil {
			return err
		}
		if err := f.move(kindGrant, g.ID, from, ""); err != nil {
			return err
		}
	}
	for _, parent := range []string{g.SubscriptionID, g.OrderID} {
		if err := f.index(bucketByParent, parent, kindGrant, g.ID); err != nil {
			return err
		}
	}
	return nil
}

// buyerOf is the customer who has a grant, if that is not a member.
func buyerOf(g *entitlement.Grant) string {
	if g.ForMember {
		return ""
	}
	return g.CustomerID
}

// memberOf is the member who has a grant, if that is not the buyer.
func memberOf(g *entitlement.Grant) string {
	if g.ForMember {
		return g.MemberID
	}
	return ""
}

func (f *fold) refund(r *entitlement.Refund) (verdict, error) {
	old, held, err := get(f.tx, bucketRefunds, r.ID, refundFields)
	if err != nil {
		return stale, err
	}
	if !held && f.gone(r.Version, r.SubscriptionID, r.OrderID) {
		return gone, nil
	}
	v := judge(f, refundFields, held, &old, r, old.Version, r.Version)
	if !v.isNews() {
		return v, nil
	}
	if err := f.put(f.tx.Bucket(bucketRefunds), []byte(r.ID), encode(refundFields, *r)); err != nil {
		return stale, err
	}
	subscription := r.SubscriptionID
	if subscription == "" {
		o, _, err := get(f.tx, bucketOrders, r.OrderID, orderFields)
		if err != nil {
			return stale, err
		}
		subscription = o.SubscriptionID
	}
	for _, parent := range []string{subscription, r.OrderID} {
		if err := f.index(bucketByParent, parent, kindRefund, r.ID); err != nil {
			return stale, err
		}
	}
	return v, f.touchRefunded(subscription, r.OrderID)
}

// checkout keeps the user of a checkout that this gateway opened: what Polar
// says of it later does not know them.
func (f *fold) checkout(c *Checkout) (verdict, error) {
	old, held, err := get(f.tx, bucketCheckouts, c.ID, checkoutFields)
	if err != nil {
		return stale, err
	}
	next := *c
	next.Used = old.Used
	if next.User == "" {
		next.User = old.User
	}
	if next.CustomerID == "" {
		next.CustomerID = old.CustomerID
	}
	if next.OpenedAt.Before(old.OpenedAt) {
		next.OpenedAt = old.OpenedAt
	}
	if sameContent(checkoutFields, old, next) {
		return stale, nil
	}
	if err := f.put(f.tx.Bucket(bucketCheckouts), []byte(c.ID), encode(checkoutFields, next)); err != nil {
		return stale, err
	}
	v := missing
	if held {
		v = wrong
	}
	// Only then: an entry that has expired does not come back with Polar's word
	// of the checkout.
	if opened := old.OpenedAt; next.User == old.User && opened.UnixMicro() == next.OpenedAt.UnixMicro() {
		return v, nil
	}
	return v, f.move(kindCheckout, c.ID, old.opener(), next.opener())
}

// opener is the user under whom an opened checkout stands, or empty.
func (c *Checkout) opener() string {
	if c.OpenedAt.IsZero() || !ValidUser(c.User) {
		return ""
	}
	return c.User
}

func (f *fold) pass(p *entitlement.Pass) error {
	if !ValidUser(p.User) || p.ID == "" {
		return ErrUser
	}
	f.touch(p.User)
	return f.put(f.tx.Bucket(bucketPasses), passKey(p), encode(passFields, *p))
}

func (f *fold) removePass(p *entitlement.Pass) error {
	if !ValidUser(p.User) || p.ID == "" {
		return ErrUser
	}
	f.touch(p.User)
	return f.remove(bucketPasses, string(passKey(p)))
}

func passKey(p *entitlement.Pass) []byte {
	return append(append([]byte(p.User), 0), p.ID...)
}

func (f *fold) notes(notes map[string][]byte) error {
	if len(notes) == 0 {
		return nil
	}
	b := f.tx.Bucket(bucketNotes)
	if b == nil {
		return errUnclaimed // a file from before there were notes
	}
	for key, value := range notes {
		old := b.Get([]byte(key))
		switch {
		case (old == nil) == (value == nil) && bytes.Equal(old, value):
		case value == nil:
			if err := f.delete(b, []byte(key)); err != nil {
				return err
			}
		default:
			if err := f.put(b, []byte(key), value); err != nil {
				return err
			}
		}
	}
	return nil
}

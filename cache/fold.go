package cache

import (
	"bytes"
	"time"

	"github.com/caddy-polar/caddy-polar/cache/kv"
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

	// Source is where the facts come from, and At when, by Polar's clock. Audit is
	// how long the journal tells of what they change. Zero: it does not, and what
	// stands in it goes.
	Source Source
	At     time.Time
	Audit  time.Duration
	// Filling says that the store is being filled: what is missing is no change.
	Filling bool
	// Unread is the first entry of the journal that has to stay, however old it
	// is. Zero: none has to.
	Unread uint64

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
	tx      kv.Tx
	dirty   bool
	touched map[string]struct{}
	changes []SubscriptionChange
	sweep   bool // the facts at hand are a sync's
	expired time.Time
	source  Source
	at      time.Time
	audited bool // the journal tells of what changes
	filling bool // and not of what is missing
	entered int  // entries of the journal, of the facts at hand
	removed int  // records taken away
}

func (f *fold) facts(in *Facts) (Applied, error) {
	var out Applied
	f.changes, f.entered = nil, 0
	f.sweep, f.expired = in.Sweep, in.Expired.Add(-keepEnded)
	f.source, f.at, f.audited, f.filling = in.Source, in.At, in.Audit > 0 && !in.At.IsZero(), in.Filling
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
	if f.dirty && !in.At.IsZero() {
		return out, f.trim(in.At, in.At.Add(-in.Audit), in.Unread)
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
		f.tx.Bucket(bucketSubscriptions).Get(subscription) == nil && f.tx.Bucket(bucketOrders).Get(order) == nil
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

func (f *fold) put(b kv.Bucket, key string, value []byte) error {
	f.dirty = true
	return b.Put(key, value)
}

func (f *fold) delete(b kv.Bucket, key string) error {
	f.dirty = true
	return b.Delete(key)
}

// remove takes a record away, if there is one.
func (f *fold) remove(bucket []byte, key string) error {
	b := f.tx.Bucket(bucket)
	if b.Get(key) == nil {
		return nil
	}
	f.removed++
	return f.delete(b, key)
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

func (f *fold) notes(notes map[string][]byte) error {
	if len(notes) == 0 {
		return nil
	}
	b := f.tx.Bucket(bucketNotes)
	if b == nil {
		return errUnclaimed // a file from before there were notes
	}
	for key, value := range notes {
		old := b.Get(key)
		switch {
		case (old == nil) == (value == nil) && bytes.Equal(old, value):
		case value == nil:
			if err := f.delete(b, key); err != nil {
				return err
			}
		default:
			if err := f.put(b, key, value); err != nil {
				return err
			}
		}
	}
	return nil
}

package cache

import (
	"bytes"
	"fmt"
	"iter"
	"unicode"
	"unicode/utf8"

	"github.com/caddy-polar/caddy-polar/cache/kv"
	"github.com/caddy-polar/caddy-polar/entitlement"
)

// The objects, by id.
var (
	bucketCustomers     = []byte("customers")
	bucketSubscriptions = []byte("subscriptions")
	bucketOrders        = []byte("orders")
	bucketGrants        = []byte("grants")
	bucketRefunds       = []byte("refunds")
	bucketCheckouts     = []byte("checkouts")
	bucketLinks         = []byte("links")  // customer → user
	bucketPasses        = []byte("passes") // user, pass → pass
	bucketNotes         = []byte("notes")  // whatever the gateway wants to keep
	bucketNews          = []byte("news")   // commit, user → nothing: whom a commit concerns, in shared stores

	// The indexes. A key is the holder's id, a zero byte, the kind of the
	// object and its id; the value is empty, but where it is said.
	bucketByUser     = []byte("by_user")     // → customers, subscriptions, one-time orders, checkouts opened lately, members, seats, members' grants
	bucketByCustomer = []byte("by_customer") // → subscriptions, orders, buyers' grants, members
	bucketByParent   = []byte("by_parent")   // subscription or order → grants, refunds, seats; see heldApart
)

var objectBuckets = [][]byte{
	bucketCustomers, bucketSubscriptions, bucketOrders, bucketGrants, bucketRefunds,
	bucketCheckouts, bucketLinks, bucketPasses, bucketNotes, bucketByUser, bucketByCustomer, bucketByParent,
	bucketEmails, bucketByEmail, bucketEmailLinks, bucketMembers, bucketSeats, bucketByMember, bucketJournal,
}

// Buckets are the names of all buckets, for an engine that has to know them.
func Buckets() []string {
	names := []string{string(bucketMeta), string(bucketKeys), string(bucketNews), string(bucketStages)}
	for _, name := range objectBuckets {
		names = append(names, string(name))
	}
	return names
}

// kind is the kind of an object inside an index key.
type kind byte

const (
	kindCustomer     kind = 'c'
	kindGrant        kind = 'g'
	kindCheckout     kind = 'k'
	kindOrder        kind = 'o'
	kindRefund       kind = 'r'
	kindSubscription kind = 's'
)

// MaxUser is the longest user id, in bytes.
const MaxUser = 255

// ValidUser says whether an id can be a user's: header values and index keys
// are made of it.
func ValidUser(id string) bool {
	if id == "" || len(id) > MaxUser || !utf8.ValidString(id) {
		return false
	}
	for _, r := range id {
		if unicode.IsControl(r) {
			return false
		}
	}
	return true
}

func indexKey(holder string, k kind, id string) string {
	return holder + string([]byte{0, byte(k)}) + id
}

// isHolder says whether an index has anything under the holder.
func isHolder(index kv.Bucket, holder string) bool {
	prefix := holder + "\x00"
	for range index.Range(prefix, prefix, 1) {
		return true
	}
	return false
}

// scan calls visit with each object that an index has under the holder.
func scan(index kv.Bucket, holder string, visit func(k kind, id string) error) error {
	return scanValues(index, holder, func(k kind, id string, _ []byte) error { return visit(k, id) })
}

// scanKind is scan for the objects of one kind: what else a holder has can be
// much.
func scanKind(index kv.Bucket, holder string, k kind, visit func(id string, value []byte) error) error {
	return entriesOf(index, holder, k).scan(visit)
}

// entries are those of one kind that an index has under a holder. They are read when they
// are scanned, but a server is asked for them before.
type entries struct {
	list iter.Seq2[[]byte, []byte]
	skip int // bytes of the holder
}

func entriesOf(index kv.Bucket, holder string, k kind) entries {
	prefix := indexKey(holder, k, "")
	return entries{index.Range(prefix, prefix, 0), len(holder) + 1}
}

func (e entries) scan(visit func(id string, value []byte) error) error {
	return scanEntries(e.list, e.skip, func(_ kind, id string, value []byte) error { return visit(id, value) })
}

// scanValues is scan with the values of the entries.
func scanValues(index kv.Bucket, holder string, visit func(k kind, id string, value []byte) error) error {
	prefix := holder + "\x00"
	return scanEntries(index.Range(prefix, prefix, 0), len(prefix), visit)
}

// scanEntries visits entries. After n bytes of a key comes what it is of.
func scanEntries(list iter.Seq2[[]byte, []byte], n int, visit func(k kind, id string, value []byte) error) error {
	var last []byte
	for key, value := range list {
		if last != nil && bytes.Compare(key, last) <= 0 {
			return fmt.Errorf("%w: an index is out of order", ErrCorrupt) // or it would never end
		}
		last = key
		rest := key[n:]
		if len(rest) < 2 {
			continue
		}
		if err := visit(kind(rest[0]), string(rest[1:]), value); err != nil {
			return err
		}
	}
	return nil
}

// get reads one record. held is false when there is none.
func get[T any](tx kv.Tx, bucket []byte, id string, fields func(*codec, *T)) (v T, held bool, err error) {
	raw := tx.Bucket(bucket).Get(id)
	if raw == nil {
		return v, false, nil
	}
	v, err = readRecord(id, fields, raw)
	return v, err == nil, err
}

// identity is what says who a customer is.
type identity struct{ link, externalID, byEmail string }

func identify(tx kv.Tx, customer string) (identity, error) {
	c, _, err := get(tx, bucketCustomers, customer, customerFields)
	if err != nil {
		return identity{}, err
	}
	link := string(tx.Bucket(bucketLinks).Get(customer))
	return identity{link, c.ExternalID, emailUser(tx, customer)}, nil
}

// owner computes whose a purchase of the customer is. Empty when nobody owns it
// yet.
func (i identity) owner(metadataUser string) string {
	if user := entitlement.Owner(i.link, metadataUser, i.externalID, i.byEmail); ValidUser(user) {
		return user
	}
	return ""
}

func owner(tx kv.Tx, customer, metadataUser string) (string, error) {
	c, err := identify(tx, customer)
	return c.owner(metadataUser), err
}

func customerOwner(tx kv.Tx, customer string) (string, error) {
	return owner(tx, customer, "")
}

func subscriptionOwner(tx kv.Tx, s *entitlement.Subscription) (string, error) {
	return owner(tx, s.CustomerID, s.MetadataUser)
}

func orderOwner(tx kv.Tx, o *entitlement.Order) (string, error) {
	return owner(tx, o.CustomerID, o.MetadataUser)
}

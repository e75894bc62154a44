package cache

import (
	"bytes"

	"github.com/caddy-polar/caddy-polar/cache/kv"
	"github.com/caddy-polar/caddy-polar/entitlement"
)

// SourceKind is by which way a fact came.
type SourceKind byte

// The ways. They stand in files: new ones go to the end.
const (
	SourceUnknown SourceKind = iota // of a file from before this was kept
	SourceWebhook                   // a webhook of Polar's, which has an id
	SourceSync                      // a sync
	SourceRead                      // read from Polar for somebody who waited
)

// Source is where a fact comes from.
type Source struct {
	Kind SourceKind
	ID   string // the webhook's
}

// origin is what is kept with an object besides its state: where that comes from,
// and the last entry of the journal that tells of the object, or zero.
type origin struct {
	Source
	entry uint64
}

// originFollows begins a record that has an origin: neither a moment nor a string,
// by which all others begin, is ever written like that.
var originFollows = []byte{0x80, 0x80, 0}

func originFields(c *codec, o *origin) {
	c.source(&o.Source)
	c.number(&o.entry)
}

// record is an object as it is written under its id, with its origin.
func record[T any](o origin, id string, fields func(*codec, *T), v T) []byte {
	c := codec{buf: append(make([]byte, 0, 320), originFollows...), key: id}
	originFields(&c, &o)
	fields(&c, &v)
	return c.buf
}

// readRecord reads an object that was written under its id, with an origin or without.
func readRecord[T any](id string, fields func(*codec, *T), raw []byte) (v T, err error) {
	_, rest, err := cutOrigin(raw)
	if err != nil {
		return v, err
	}
	c := codec{buf: rest, reading: true, key: id}
	fields(&c, &v)
	return v, c.err
}

// cutOrigin takes the origin off a record that has one.
func cutOrigin(raw []byte) (o origin, rest []byte, err error) {
	rest, ok := bytes.CutPrefix(raw, originFollows)
	if !ok {
		return origin{}, raw, nil
	}
	c := codec{buf: rest, reading: true}
	originFields(&c, &o)
	return o, c.buf, c.err
}

// keep writes a new state of an object, with where it comes from, and tells the
// journal what is other than it was.
func keep[T any](f *fold, k kind, id string, fields func(*codec, *T), differ func(*diff, *T, *T), old, next *T) error {
	b := f.tx.Bucket(bucketOf(k))
	raw := b.Get(id)
	was, _, err := cutOrigin(raw)
	if err != nil {
		return err
	}
	is := origin{f.source, was.entry}
	if f.audited && (raw != nil || !f.filling && f.matters(k, id)) {
		d := diff{}
		differ(&d, old, next)
		if raw == nil {
			d.changes = nil // all is new: what is held tells it
		}
		if raw == nil || len(d.changes) > 0 {
			is.entry, err = f.enter(&Entry{
				At: f.at, Source: f.source, Kind: k.String(), ID: id, New: raw == nil, Status: statusOf(next), Changes: d.changes, before: was.entry,
			})
			if err != nil {
				return err
			}
		}
	}
	return f.put(b, id, record(is, id, fields, *next))
}

// matters says whether the journal tells that an object is new. Of a customer or member
// what is held tells it, unless something was there before that is somebody's now.
func (f *fold) matters(k kind, id string) bool {
	switch k {
	case kindCustomer:
		return isHolder(f.tx.Bucket(bucketByCustomer), id)
	case kindMember:
		return isHolder(f.tx.Bucket(bucketByMember), id)
	}
	return true
}

// statusOf is the status of what has one.
func statusOf(object any) string {
	switch v := object.(type) {
	case *entitlement.Subscription:
		return string(v.Status)
	case *entitlement.Order:
		return string(v.Status)
	}
	return ""
}

// rewrite writes an object of which Polar has told nothing new.
func rewrite[T any](f *fold, k kind, id string, fields func(*codec, *T), v T) error {
	o, err := originOf(f.tx, k, id)
	if err != nil {
		return err
	}
	return f.put(f.tx.Bucket(bucketOf(k)), id, record(o, id, fields, v))
}

// bucketOf is where the objects of a kind are, by id.
func bucketOf(k kind) []byte {
	switch k {
	case kindCustomer:
		return bucketCustomers
	case kindSubscription:
		return bucketSubscriptions
	case kindOrder:
		return bucketOrders
	case kindGrant:
		return bucketGrants
	case kindRefund:
		return bucketRefunds
	case kindMember:
		return bucketMembers
	case kindSeat:
		return bucketSeats
	}
	return nil
}

// String is the kind's name.
func (k kind) String() string {
	switch k {
	case kindCustomer:
		return "customer"
	case kindSubscription:
		return "subscription"
	case kindOrder:
		return "order"
	case kindGrant:
		return "grant"
	case kindRefund:
		return "refund"
	case kindMember:
		return "member"
	case kindSeat:
		return "seat"
	case kindCheckout:
		return "checkout"
	}
	return "unknown"
}

// originOf is that of an object, empty if it is not held.
func originOf(tx kv.Tx, k kind, id string) (origin, error) {
	o, _, err := cutOrigin(tx.Bucket(bucketOf(k)).Get(id))
	return o, err
}

package cache

import (
	"bytes"
	"context"
	"fmt"

	bolt "go.etcd.io/bbolt"

	"github.com/caddy-polar/caddy-polar/entitlement"
)

// chunk is how many records one transaction of a walk reads or removes at
// most. A long read keeps pages from being used again, and so lets the file
// grow; a long write keeps webhooks waiting.
const chunk = 500

// EachSubscription calls visit with every subscription that is held, by id.
// What appears or goes meanwhile may be seen or not; what stays is. The first
// error of visit ends it. visit runs outside of any transaction, so it may take
// its time and use the store.
func (s *Store) EachSubscription(ctx context.Context, visit func(*entitlement.Subscription) error) error {
	return walk(ctx, s, bucketSubscriptions, subscriptionFields, singly(ctx, visit))
}

// EachOrder is like EachSubscription.
func (s *Store) EachOrder(ctx context.Context, visit func(*entitlement.Order) error) error {
	return walk(ctx, s, bucketOrders, orderFields, singly(ctx, visit))
}

// EachGrant is like EachSubscription.
func (s *Store) EachGrant(ctx context.Context, visit func(*entitlement.Grant) error) error {
	return walk(ctx, s, bucketGrants, grantFields, singly(ctx, visit))
}

// EachMember is like EachSubscription.
func (s *Store) EachMember(ctx context.Context, visit func(*entitlement.Member) error) error {
	return walk(ctx, s, bucketMembers, memberFields, singly(ctx, visit))
}

// EachCustomer is like EachSubscription. A customer of whom only the name is
// known has no version.
func (s *Store) EachCustomer(ctx context.Context, visit func(*entitlement.Customer) error) error {
	return walk(ctx, s, bucketCustomers, customerFields, singly(ctx, visit))
}

// singly gives the items of a chunk to visit, one after the other.
func singly[T any](ctx context.Context, visit func(*T) error) func([]T) error {
	return func(items []T) error {
		for i := range items {
			if err := context.Cause(ctx); err != nil {
				return err
			}
			if err := visit(&items[i]); err != nil {
				return err
			}
		}
		return nil
	}
}

// walk reads a bucket chunk by chunk and gives each chunk to visit, outside of
// any transaction.
func walk[T any](ctx context.Context, s *Store, bucket []byte, fields func(*codec, *T), visit func([]T) error) error {
	var last []byte
	for {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		var items []T
		if err := s.read(func(tx *bolt.Tx) (err error) {
			items, last, err = readChunk(tx.Bucket(bucket), last, fields)
			return err
		}); err != nil {
			return err
		}
		if len(items) == 0 {
			return nil
		}
		if err := visit(items); err != nil {
			return err
		}
	}
}

// readChunk reads the records that come after a key, and says which was the
// last.
func readChunk[T any](b *bolt.Bucket, after []byte, fields func(*codec, *T)) (items []T, last []byte, err error) {
	c := b.Cursor()
	key, raw := c.First()
	if after != nil {
		if key, raw = c.Seek(after); bytes.Equal(key, after) {
			key, raw = c.Next()
		}
	}
	last = after
	for ; key != nil && len(items) < chunk; key, raw = c.Next() {
		if last != nil && bytes.Compare(key, last) <= 0 {
			return nil, nil, fmt.Errorf("%w: a bucket is out of order", ErrCorrupt) // or it would never end
		}
		v, err := readRecord(string(key), fields, raw)
		if err != nil {
			return nil, nil, err
		}
		items, last = append(items, v), key
	}
	return items, bytes.Clone(last), nil // the key is the transaction's
}

// EachUser calls visit with every user about whom something of Polar's is held,
// or who has a pass or a checkout opened lately: in the order of their ids, and
// only those after the one given. It is else like EachSubscription.
func (s *Store) EachUser(ctx context.Context, after string, visit func(user string) error) error {
	for {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		var users []string
		if err := s.read(func(tx *bolt.Tx) (err error) {
			users, err = readUsers(tx, after)
			return err
		}); err != nil {
			return err
		}
		if len(users) == 0 {
			return nil
		}
		after = users[len(users)-1]
		if err := singly(ctx, func(user *string) error { return visit(*user) })(users); err != nil {
			return err
		}
	}
}

// EachAccount is like EachUser, with all that concerns the user. It is read anew,
// and takes nobody's room in memory.
func (s *Store) EachAccount(ctx context.Context, after string, visit func(*entitlement.Account) error) error {
	for {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		var accounts []*entitlement.Account
		if err := s.readFor(OpCount, func(tx *bolt.Tx) error {
			users, err := readUsers(tx, after)
			for _, user := range users {
				a, err := gather(tx, user)
				if err != nil {
					return err
				}
				accounts, after = append(accounts, a), user
			}
			return err
		}); err != nil {
			return err
		}
		if len(accounts) == 0 {
			return nil
		}
		if err := singly(ctx, func(a **entitlement.Account) error { return visit(*a) })(accounts); err != nil {
			return err
		}
	}
}

func readUsers(tx *bolt.Tx, after string) (users []string, err error) {
	index, passes := tx.Bucket(bucketByUser).Cursor(), tx.Bucket(bucketPasses).Cursor()
	for len(users) < chunk {
		user := min(nextHolder(index, after), nextHolder(passes, after))
		if user == noHolder {
			break
		}
		if user <= after {
			return nil, fmt.Errorf("%w: an index is out of order", ErrCorrupt)
		}
		users, after = append(users, user), user
	}
	return users, nil
}

// noHolder comes after every user: it is no valid text.
const noHolder = "\xff"

// nextHolder is the first holder after another in an index. Its keys go on with
// a zero byte after the holder, and no holder has a control character.
func nextHolder(index *bolt.Cursor, after string) string {
	key, _ := index.Seek([]byte(after + "\x01"))
	holder, _, ok := bytes.Cut(key, []byte{0})
	if !ok {
		return noHolder
	}
	return string(holder)
}

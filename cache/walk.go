package cache

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"github.com/caddy-polar/caddy-polar/cache/kv"
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
		var next []byte
		if err := s.read(func(tx kv.Tx) (err error) {
			items, next, err = readChunk(tx.Bucket(bucket), last, fields)
			return err
		}); err != nil {
			return err
		}
		last = next
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
func readChunk[T any](b kv.Bucket, after []byte, fields func(*codec, *T)) (items []T, last []byte, err error) {
	from := ""
	if after != nil {
		from = string(after) + "\x00" // what comes next
	}
	last = after
	for key, raw := range b.Range(from, "", chunk) {
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
		if err := s.read(func(tx kv.Tx) (err error) {
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
		var users []string
		var accounts []*entitlement.Account
		if err := s.readFor(OpCount, func(tx kv.Tx) (err error) {
			accounts = nil
			users, err = readUsers(tx, after)
			for _, user := range users {
				a, err := gather(tx, user)
				if err != nil {
					return err
				}
				accounts = append(accounts, a)
			}
			return err
		}); err != nil {
			return err
		}
		if len(accounts) == 0 {
			return nil
		}
		after = users[len(users)-1]
		if err := singly(ctx, func(a **entitlement.Account) error { return visit(*a) })(accounts); err != nil {
			return err
		}
	}
}

// ReadAccounts reads all that concerns some users anew, and takes nobody's room in memory.
func (s *Store) ReadAccounts(users []string) (accounts []*entitlement.Account, err error) {
	err = s.read(func(tx kv.Tx) error {
		accounts = make([]*entitlement.Account, len(users))
		for i, user := range users {
			if accounts[i], err = gather(tx, user); err != nil {
				return err
			}
		}
		return nil
	})
	return accounts, err
}

// readUsers reads the next users after another, in order. None are left if there are none.
func readUsers(tx kv.Tx, after string) ([]string, error) {
	indexed, most, err := holders(tx.Bucket(bucketByUser), after)
	if err != nil {
		return nil, err
	}
	passed, mostPassed, err := holders(tx.Bucket(bucketPasses), after)
	if err != nil {
		return nil, err
	}
	users := slices.Compact(slices.Sorted(slices.Values(append(indexed, passed...))))
	// Behind the last of either there may be more.
	end, _ := slices.BinarySearch(users, min(most, mostPassed)+"\x00")
	return users[:min(end, chunk)], nil
}

// holders are those whose entries come next in an index after a holder's. After most
// there may be others.
func holders(index kv.Bucket, after string) (list []string, most string, err error) {
	entries := 0
	for key := range index.Range(after+"\x01", "", entriesOfUsers) {
		entries++
		holder, _, ok := bytes.Cut(key, []byte{0})
		switch {
		case !ok:
			continue
		case string(holder) <= after:
			return nil, "", fmt.Errorf("%w: an index is out of order", ErrCorrupt) // or it would never end
		}
		if n := len(list); n == 0 || list[n-1] != string(holder) {
			list = append(list, string(holder))
		}
	}
	if entries < entriesOfUsers || len(list) == 0 {
		return list, noHolder, nil
	}
	return list, list[len(list)-1], nil
}

// entriesOfUsers is how many entries are read to find the next users.
const entriesOfUsers = 3 * chunk

// noHolder comes after every user: it is no valid text.
const noHolder = "\xff"

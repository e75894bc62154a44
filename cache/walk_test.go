package cache

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	bolt "go.etcd.io/bbolt"

	"github.com/caddy-polar/caddy-polar/cache/kv"
	"github.com/caddy-polar/caddy-polar/entitlement"
)

// crowd is n users, each with one object of each kind.
func crowd(t *testing.T, s *Store, n int) {
	t.Helper()
	var f Facts
	for i := range n {
		id := fmt.Sprintf("%05d", i)
		merge(&f, purchase(id, 1))
		merge(&f, ordered(1, "o-"+id, "c-"+id, "", "", ""))
		merge(&f, granted(1, "g-"+id, "c-"+id, "s-"+id, ""))
	}
	apply(t, s, &f)
}

// walks are all ways to walk a store, each by the number inside the ids.
func walks(s *Store) map[string]func(ctx context.Context, visit func(id string) error) error {
	return map[string]func(context.Context, func(string) error) error{
		"subscriptions": func(ctx context.Context, visit func(string) error) error {
			return s.EachSubscription(ctx, func(v *entitlement.Subscription) error { return visit(v.ID[2:]) })
		},
		"orders": func(ctx context.Context, visit func(string) error) error {
			return s.EachOrder(ctx, func(v *entitlement.Order) error { return visit(v.ID[2:]) })
		},
		"grants": func(ctx context.Context, visit func(string) error) error {
			return s.EachGrant(ctx, func(v *entitlement.Grant) error { return visit(v.ID[2:]) })
		},
		"customers": func(ctx context.Context, visit func(string) error) error {
			return s.EachCustomer(ctx, func(v *entitlement.Customer) error { return visit(v.ID[2:]) })
		},
		"users": func(ctx context.Context, visit func(string) error) error { return s.EachUser(ctx, "", visit) },
	}
}

// TestWalk: each is seen once, in order, whatever the number is to a chunk.
func TestWalk(t *testing.T) {
	for _, n := range []int{0, 1, chunk - 1, chunk, chunk + 1, 2*chunk + 7} {
		s := testStore(t)
		crowd(t, s, n)
		var want []string
		for i := range n {
			want = append(want, fmt.Sprintf("%05d", i))
		}
		for name, walk := range walks(s) {
			var got []string
			if err := walk(t.Context(), func(id string) error { got = append(got, id); return nil }); err != nil || !slices.Equal(got, want) {
				t.Errorf("%s: %d seen of %d, %v", name, len(got), n, err)
			}
		}
	}
}

// TestChunks: one transaction reads no more than a chunk.
func TestChunks(t *testing.T) {
	s := testStore(t)
	crowd(t, s, 2*chunk+7)
	var sizes []int
	err := walk(t.Context(), s, bucketOrders, orderFields, func(items []entitlement.Order) error {
		sizes = append(sizes, len(items))
		return nil
	})
	if err != nil || !slices.Equal(sizes, []int{chunk, chunk, 7}) {
		t.Errorf("chunks of %v, %v", sizes, err)
	}
	if err := s.read(func(tx kv.Tx) error {
		if users, err := readUsers(tx, ""); err != nil || len(users) != chunk {
			t.Errorf("%d users, %v", len(users), err)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// TestWalkStops: at an error of visit, at the end of the context, and when it
// can read no more.
func TestWalkStops(t *testing.T) {
	s := testStore(t)
	crowd(t, s, chunk+10)
	enough, canceled := errors.New("enough"), errors.New("canceled")
	for name, walk := range walks(s) {
		n := 0
		if err := walk(t.Context(), func(string) error { n++; return enough }); !errors.Is(err, enough) || n != 1 {
			t.Errorf("%s: %v after %d", name, err, n)
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		n = 0
		err := walk(ctx, func(string) error {
			if n++; n == 3 {
				cancel(canceled)
			}
			return nil
		})
		if !errors.Is(err, canceled) || n != 3 {
			t.Errorf("%s: %v after %d", name, err, n)
		}
	}
	if err := s.file().db.Load().Update(func(tx *bolt.Tx) error {
		return tx.Bucket(bucketOrders).Put([]byte("p"), []byte("\xff\xff"))
	}); err != nil {
		t.Fatal(err)
	}
	if err := s.EachOrder(t.Context(), func(*entitlement.Order) error { return nil }); !errors.Is(err, errShortRecord) {
		t.Errorf("over a bad record: %v", err)
	}
}

// TestWalkWhileWriting: visit runs outside of any transaction, may write, and
// sees all that stays, whatever comes and goes around it.
func TestWalkWhileWriting(t *testing.T) {
	for name := range walks(New("")) {
		t.Run(name, func(t *testing.T) {
			s := testStore(t)
			const n = 2*chunk + 100
			crowd(t, s, n)
			seen, last := make(map[string]int), ""
			err := walks(s)[name](t.Context(), func(id string) error {
				if id <= last {
					t.Errorf("%s after %s", id, last)
				}
				last = id
				seen[id]++
				if open := s.file().db.Load().Stats().OpenTxN; open != 0 {
					t.Fatalf("%d transactions are open", open)
				}
				var i int
				_, _ = fmt.Sscan(id, &i)
				if i%chunk > 2 && i%chunk < chunk-3 || strings.HasSuffix(id, "x") {
					return nil // only around the ends of chunks
				}
				apply(t, s, purchase(id+"x", 1))
				if i%2 == 0 { // odd ones stay
					_, err := s.Forget(t.Context(), id)
					return err
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			for i := 1; i < n; i += 2 {
				if id := fmt.Sprintf("%05d", i); seen[id] != 1 {
					t.Errorf("%s was seen %d times", id, seen[id])
				}
			}
		})
	}
}

// TestEachUser: users are those in the index and those with passes, each once,
// though one's id begins another's.
func TestEachUser(t *testing.T) {
	s := testStore(t)
	apply(t, s, &Facts{
		Customers: []entitlement.Customer{{Version: rev(1), ID: "c1", ExternalID: "a"}, {Version: rev(1), ID: "c2", ExternalID: "a b"}, {Version: rev(1), ID: "c3"}},
		Links:     []Link{{"c9", "ab"}},
		Passes:    []entitlement.Pass{{ID: "p", User: "aa"}, {ID: "q", User: "aa"}, {ID: "p", User: "a"}, {ID: "p", User: "é"}},
		Checkouts: []Checkout{{ID: "k", User: "b", OpenedAt: at(1)}, {ID: "l", User: "nobody"}},
	})
	for after, want := range map[string][]string{
		"": {"a", "a b", "aa", "ab", "b", "é"}, "a": {"a b", "aa", "ab", "b", "é"}, "a b": {"aa", "ab", "b", "é"},
		"aaa": {"ab", "b", "é"}, "é": nil,
	} {
		var got []string
		if err := s.EachUser(t.Context(), after, func(u string) error { got = append(got, u); return nil }); err != nil || !slices.Equal(got, want) {
			t.Errorf("after %q: %q, %v, want %q", after, got, err, want)
		}
	}
}

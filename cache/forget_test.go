package cache

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	bolt "go.etcd.io/bbolt"
	"pgregory.net/rapid"

	"github.com/caddy-polar/caddy-polar/entitlement"
)

// testContext is for tests that rapid runs.
var testContext = context.Background()

// compacted is what a fresh copy of a store consists of.
func compacted(t *testing.T, s *Store) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "copy.db")
	to := must(bolt.Open(path, 0o600, nil))
	if err := bolt.Compact(to, s.file().db.Load().DB, 0); err != nil {
		t.Fatal(err)
	}
	if err := to.Close(); err != nil {
		t.Fatal(err)
	}
	return must(os.ReadFile(path))
}

func TestForgetUser(t *testing.T) {
	const user = "ada@example.com"
	s := testStore(t)
	for _, f := range []*Facts{
		{Checkouts: []Checkout{{ID: "k1", User: user, OpenedAt: at(1)}, {ID: "k2", User: user}, {ID: "k3", User: "bob", OpenedAt: at(1)}}},
		customer(1, "c1", user), subscribed(1, "s1", "c1", "", ""), ordered(1, "o1", "c1", "s1", "", ""),
		granted(1, "g1", "c1", "s1", ""), granted(1, "g2", "c1", "gone", ""), refunded(1, "r1", "o1", ""),
		ordered(1, "o2", "c1", "gone", user, ""),
		customer(1, "c2", ""), linked("c2", user), ordered(1, "o3", "c2", "", "", ""), refunded(1, "r2", "o3", ""),
		customer(1, "c3", "bob"), subscribed(1, "s3", "c3", user, ""), subscribed(1, "s4", "c3", "", "k1"), ordered(1, "o4", "c3", "", "", ""),
		customer(1, "c4", user), linked("c4", "bob"), subscribed(1, "s5", "c4", user, ""), ordered(1, "o5", "c4", "", user, ""), ordered(1, "o6", "c4", "s5", user, ""),
		deleted(1, "c5", user), subscribed(1, "s6", "c5", "bob", ""), granted(1, "g6", "c5", "s6", ""),
		customer(1, "c6", "bob"), linked("c6", user),
		{Passes: []entitlement.Pass{{ID: "p", User: user}, {ID: "q", User: user}, {ID: "p", User: "bob"}}},
	} {
		apply(t, s, f)
	}
	users := []string{user, "bob"}
	for _, u := range users {
		_ = account(t, s, u)
	}
	if got := must(s.Links(user)); !slices.Equal(got, []string{"c2", "c6"}) {
		t.Errorf("links %q", got)
	}
	if !bytes.Contains(compacted(t, s), []byte(user)) {
		t.Fatal("the test looks at the wrong place")
	}
	before := dump(t, s)
	n, err := s.Forget(t.Context(), user)
	if err != nil {
		t.Fatal(err)
	}
	after := dump(t, s)
	gone := 0
	for k := range before {
		if _, held := after[k]; !held && !strings.HasPrefix(k, "by_") {
			gone++
		}
	}
	// c1 with s1 o1 g1 g2 r1 o2; c2, its link, o3 r2; s3 s4; c6's link; 2 checkouts, 2 passes
	if n != gone || n != 7+4+2+1+4 {
		t.Errorf("%d are gone, %d were told:\n%s", gone, n, differences(before, after))
	}
	if bytes.Contains(compacted(t, s), []byte(user)) {
		t.Error("the file still names the user")
	}
	if a := account(t, s, user); a.Known() || !a.CheckoutAt.IsZero() {
		t.Errorf("the user still holds %q", holds(a))
	}
	if links := must(s.Links(user)); len(links) != 0 {
		t.Errorf("links %q", links)
	}
	if a := account(t, s, "bob"); len(a.Subscriptions) != 2 || len(a.Orders) != 2 || len(a.Customers) != 4 || len(a.Grants) != 1 || len(a.Passes) != 1 || a.CheckoutAt.IsZero() {
		t.Errorf("bob holds %q", holds(a))
	}
	if c := account(t, s, "bob").Customers; c[2].ID != "c5" || c[2].DeletedAt.IsZero() {
		t.Errorf("bob's customers are %+v", c)
	}
	consistent(t, s, users...)
	if n := must(s.Forget(t.Context(), user)); n != 0 {
		t.Errorf("again: %d", n)
	}
	if _, err := s.Forget(t.Context(), "a\x00b"); !errors.Is(err, ErrUser) {
		t.Errorf("what cannot be a user: %v", err)
	}
	consistent(t, s, users...)
}

// TestForgetLaw: whatever is held, nothing names the user afterwards, and the
// others have what they had.
func TestForgetLaw(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		s := fastStore(t, dir)
		defer s.Close()
		deliver(t, s, w.own)
		heard := slices.DeleteFunc(w.said, func(*Facts) bool { return w.chance(25) })
		deliver(t, s, append(heard, w.linksSaid()...))
		user := rapid.SampledFrom(lawUsers).Draw(t, "user")
		before := make(map[string]*entitlement.Account)
		for _, u := range lawUsers {
			before[u] = account(t, s, u)
		}
		_ = must(s.Forget(testContext, user))
		for k, v := range dump(t, s) {
			if strings.Contains(k, user) || strings.Contains(v, user) {
				t.Errorf("%s = %s names %s", k, v, user)
			}
		}
		consistent(t, s, lawUsers...)
		for _, u := range lawUsers {
			if u == user {
				continue
			}
			a := account(t, s, u)
			lent := func(id string) bool { return slices.Contains(before[u].Foreign, id) } // it went with its buyer, perhaps
			for _, had := range before[u].Subscriptions {
				if !lent(had.ID) && !slices.ContainsFunc(a.Subscriptions, func(v entitlement.Subscription) bool { return v.ID == had.ID && v.Status == had.Status }) {
					t.Errorf("%s has lost subscription %s", u, had.ID)
				}
			}
			for _, had := range before[u].Orders {
				if !lent(had.ID) && !slices.ContainsFunc(a.Orders, func(v entitlement.Order) bool { return v.ID == had.ID }) {
					t.Errorf("%s has lost order %s", u, had.ID)
				}
			}
			for _, had := range before[u].Customers {
				i := slices.IndexFunc(a.Customers, func(v entitlement.HeldCustomer) bool { return v.ID == had.ID })
				if !lent(had.ID) && (i < 0 || !a.Customers[i].DeletedAt.Equal(had.DeletedAt) || a.Customers[i].Own != had.Own) {
					t.Errorf("%s has lost customer %s", u, had.ID)
				}
			}
			if !a.CheckoutAt.Equal(before[u].CheckoutAt) {
				t.Errorf("%s opened a checkout at %s, was %s", u, a.CheckoutAt, before[u].CheckoutAt)
			}
		}
	})
}

func TestRemovePass(t *testing.T) {
	s := testStore(t)
	p := entitlement.Pass{ID: "p", User: "u", Plan: "pro"}
	apply(t, s, &Facts{Passes: []entitlement.Pass{p, {ID: "q", User: "u"}, {ID: "p", User: "v"}}})
	_ = account(t, s, "u")
	apply(t, s, &Facts{RemovePasses: []entitlement.Pass{{ID: "p", User: "u"}}})
	if a := account(t, s, "u"); len(a.Passes) != 1 || a.Passes[0].ID != "q" || len(account(t, s, "v").Passes) != 1 {
		t.Errorf("passes %+v", a.Passes)
	}
	id := lastCommit(s)
	apply(t, s, &Facts{RemovePasses: []entitlement.Pass{{ID: "p", User: "u"}, {ID: "x", User: "nobody"}}})
	if lastCommit(s) != id {
		t.Error("there was nothing to take back, and yet something was written")
	}
	for _, bad := range []entitlement.Pass{{ID: "p", User: "a\x00b"}, {ID: "p"}, {User: "u"}} {
		if _, err := s.Apply(t.Context(), &Facts{RemovePasses: []entitlement.Pass{bad}}); !errors.Is(err, ErrUser) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	apply(t, s, &Facts{RemovePasses: []entitlement.Pass{p}, Passes: []entitlement.Pass{p}}) // given anew
	if len(account(t, s, "u").Passes) != 2 {
		t.Error("the pass was not given")
	}
	consistent(t, s, "u", "v")
}

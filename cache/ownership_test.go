package cache

import (
	"bytes"
	"crypto/md5"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/caddy-polar/caddy-polar/cache/kv"
	"github.com/caddy-polar/caddy-polar/entitlement"
)

// What the tables below are made of.
func customer(n int, id, external string) *Facts {
	return &Facts{Customers: []entitlement.Customer{{Version: rev(n), ID: id, ExternalID: external}}}
}

func deleted(n int, id, external string) *Facts {
	return &Facts{Customers: []entitlement.Customer{{Version: rev(n), ID: id, ExternalID: external, DeletedAt: at(n)}}}
}

func subscribed(n int, id, customer, metadata, checkout string) *Facts {
	return &Facts{Subscriptions: []entitlement.Subscription{{
		Version: rev(n), ID: id, CustomerID: customer, MetadataUser: metadata, CheckoutID: checkout,
		ProductID: "p", Status: entitlement.StatusActive,
	}}}
}

func ordered(n int, id, customer, subscription, metadata, checkout string) *Facts {
	return &Facts{Orders: []entitlement.Order{{
		Version: rev(n), ID: id, CustomerID: customer, SubscriptionID: subscription, MetadataUser: metadata, CheckoutID: checkout,
		Status: entitlement.OrderPaid,
	}}}
}

func granted(n int, id, customer, subscription, order string) *Facts {
	return &Facts{Grants: []entitlement.Grant{{
		Version: rev(n), ID: id, CustomerID: customer, SubscriptionID: subscription, OrderID: order, Granted: true,
	}}}
}

// returned is a grant that was taken back.
func returned(n int, id, customer, subscription, order string) *Facts {
	f := granted(n, id, customer, subscription, order)
	f.Grants[0].Granted, f.Grants[0].Revoked = false, true
	return f
}

func refunded(n int, id, order, subscription string) *Facts {
	return &Facts{Refunds: []entitlement.Refund{{Version: rev(n), ID: id, OrderID: order, SubscriptionID: subscription, Disputed: true}}}
}

func named(customer, external string) *Facts { return &Facts{Names: []Name{{customer, external}}} }
func linked(customer, user string) *Facts    { return &Facts{Links: []Link{{customer, user}}} }

// digested stands for an e-mail in the tests.
func digested(email string) (d EmailDigest) {
	if email != "" {
		d = md5.Sum([]byte(email))
	}
	return d
}

func emailed(n int, customer, email string) *Facts {
	return &Facts{Emails: []Email{{ID: customer, Digest: digested(email), Row: at(n)}}}
}

func proven(user, email string) *Facts {
	return &Facts{EmailLinks: []EmailLink{{User: user, Digest: digested(email)}}}
}

func opened(id, user string) *Facts { return &Facts{Checkouts: []Checkout{{ID: id, User: user}}} }

// holds says in short what an account has.
func holds(a *entitlement.Account) string {
	var out []string
	for _, c := range a.Customers {
		s := c.ID
		if c.ByEmail {
			s += "+email"
		}
		if c.Own {
			s += "+own"
		}
		if c.Shared {
			s += "+shared"
		}
		if !c.DeletedAt.IsZero() {
			s += "+deleted"
		}
		out = append(out, s)
	}
	for _, s := range a.Subscriptions {
		out = append(out, s.ID)
	}
	for _, o := range a.Orders {
		out = append(out, o.ID)
	}
	for _, g := range a.Grants {
		out = append(out, g.ID)
	}
	for _, r := range a.Refunds {
		out = append(out, r.ID+"/"+r.SubscriptionID)
	}
	for _, p := range a.Passes {
		out = append(out, p.ID)
	}
	for _, m := range a.Members {
		out = append(out, m.ID)
	}
	for _, s := range a.Seats {
		out = append(out, s.ID)
	}
	for _, id := range a.Foreign {
		out = append(out, "-"+id)
	}
	if own := a.OwnCustomer(); own != "" {
		out = append(out, "="+own)
	}
	return strings.Join(out, " ")
}

func TestOwnership(t *testing.T) {
	type want map[string]string
	long, control := strings.Repeat("u", 256), "a\nb"
	for _, c := range []struct {
		name  string
		facts []*Facts
		want  want
		// anyOrder says that every order of the facts must end the same.
		anyOrder bool
	}{
		{"nobody", nil, want{"a": ""}, false},
		{
			"external id",
			[]*Facts{customer(1, "c1", "a"), subscribed(1, "s1", "c1", "", ""), ordered(1, "o1", "c1", "", "", "")},
			want{"a": "c1+own s1 o1 =c1", "b": ""},
			true,
		},
		{"a customer without external id", []*Facts{customer(1, "c1", ""), subscribed(1, "s1", "c1", "", "")}, want{"": "", "c1": ""}, true},
		{
			"remembered checkout over external id",
			[]*Facts{opened("k", "b"), customer(1, "c1", "a"), subscribed(1, "s1", "c1", "", "k"), ordered(1, "o1", "c1", "", "", "k")},
			want{"a": "c1+own+shared", "b": "c1 s1 o1"},
			false,
		},
		{
			"a checkout of others means nothing",
			[]*Facts{opened("k", ""), customer(1, "c1", "a"), subscribed(1, "s1", "c1", "", "k")},
			want{"a": "c1+own s1 =c1"},
			true,
		},
		{
			"metadata over remembered checkout",
			[]*Facts{opened("k", "b"), customer(1, "c1", "a"), subscribed(1, "s1", "c1", "m", "k"), ordered(1, "o1", "c1", "", "m", "k")},
			want{"a": "c1+own+shared", "b": "", "m": "c1 s1 o1"},
			false,
		},
		{
			"link over all",
			[]*Facts{
				opened("k", "b"), customer(1, "c1", "a"), subscribed(1, "s1", "c1", "m", ""), ordered(1, "o1", "c1", "", "", "k"),
				subscribed(1, "s2", "c1", "", ""), linked("c1", "l"),
			},
			want{"a": "", "b": "", "m": "", "l": "c1+own s1 s2 o1 =c1"},
			false,
		},
		{
			"link in any order",
			[]*Facts{customer(1, "c1", "a"), subscribed(1, "s1", "c1", "m", ""), linked("c1", "l")},
			want{"a": "", "m": "", "l": "c1+own s1 =c1"},
			true,
		},
		{
			"link taken back",
			[]*Facts{
				opened("k", "b"), customer(1, "c1", "a"), linked("c1", "l"), subscribed(1, "s1", "c1", "m", ""),
				ordered(1, "o1", "c1", "", "", "k"), linked("c1", ""),
			},
			want{"a": "c1+own+shared", "b": "c1 o1", "m": "c1 s1", "l": ""},
			false,
		},
		{
			"link of one user, then of another",
			[]*Facts{customer(1, "c1", "a"), subscribed(1, "s1", "c1", "", ""), linked("c1", "l"), linked("c1", "k")},
			want{"a": "", "l": "", "k": "c1+own s1 =c1"},
			false,
		},
		{"link of an unknown customer", []*Facts{linked("c1", "l")}, want{"l": "c1+own =c1"}, false},
		{
			"external id from another object",
			[]*Facts{subscribed(1, "s1", "c1", "", ""), named("c1", "a"), named("c1", ""), customer(1, "c1", "")},
			want{"a": "c1+own s1 =c1"},
			true,
		},
		{
			"a name fills a gap and changes nothing",
			[]*Facts{customer(1, "c1", "a"), named("c1", "b"), named("c1", ""), named("", "b")},
			want{"a": "c1+own =c1", "b": ""},
			false,
		},
		{
			"an older customer's external id fills a gap",
			[]*Facts{customer(2, "c1", ""), customer(1, "c1", "a")},
			want{"a": "c1+own =c1"},
			true,
		},
		{
			"null takes no external id away",
			[]*Facts{customer(1, "c1", "a"), customer(2, "c1", ""), subscribed(1, "s1", "c1", "", "")},
			want{"a": "c1+own s1 =c1"},
			true,
		},
		{
			"shared: metadata's user does not own the customer",
			[]*Facts{customer(1, "c1", "a"), subscribed(1, "s1", "c1", "", ""), subscribed(1, "s2", "c1", "b", "")},
			want{"a": "c1+own+shared s1", "b": "c1 s2"},
			true,
		},
		{
			"shared by an order",
			[]*Facts{customer(1, "c1", "a"), subscribed(1, "s1", "c1", "", ""), ordered(1, "o1", "c1", "", "b", "")},
			want{"a": "c1+own+shared s1", "b": "c1 o1"},
			true,
		},
		{
			"not shared: the own metadata",
			[]*Facts{customer(1, "c1", "a"), subscribed(1, "s1", "c1", "a", "")},
			want{"a": "c1+own s1 =c1"},
			true,
		},
		{
			"metadata alone does not own the customer",
			[]*Facts{customer(1, "c1", ""), subscribed(1, "s1", "c1", "b", "")},
			want{"b": "c1 s1"},
			true,
		},
		{
			"grants are their parent's owner's",
			[]*Facts{
				customer(1, "c1", "a"), subscribed(1, "s1", "c1", "b", ""), ordered(1, "o1", "c1", "", "", ""),
				granted(1, "g1", "c1", "s1", ""), granted(1, "g2", "c1", "", "o1"),
			},
			want{"a": "c1+own+shared o1 g2", "b": "c1 s1 g1"},
			true,
		},
		{
			"a grant without its parent is its customer's",
			[]*Facts{customer(1, "c1", "a"), granted(1, "g1", "c1", "s1", ""), granted(1, "g2", "c1", "", "")},
			want{"a": "c1+own g1 g2 =c1", "b": ""},
			true,
		},
		{
			"orders of a subscription open nothing",
			[]*Facts{customer(1, "c1", "a"), subscribed(1, "s1", "c1", "", ""), ordered(1, "o1", "c1", "s1", "", "")},
			want{"a": "c1+own s1 =c1"},
			true,
		},
		{
			"a refund finds its subscription through the order",
			[]*Facts{customer(1, "c1", "a"), subscribed(1, "s1", "c1", "", ""), ordered(1, "o1", "c1", "s1", "", ""), refunded(1, "r1", "o1", "")},
			want{"a": "c1+own s1 r1/s1 =c1"},
			true,
		},
		{
			"a refund that names its subscription",
			[]*Facts{customer(1, "c1", "a"), subscribed(1, "s1", "c1", "", ""), refunded(1, "r1", "o1", "s1")},
			want{"a": "c1+own s1 r1/s1 =c1"},
			true,
		},
		{
			"a refund of a one-time order",
			[]*Facts{customer(1, "c1", "a"), ordered(1, "o1", "c1", "", "", ""), refunded(1, "r1", "o1", "")},
			want{"a": "c1+own o1 r1/ =c1"},
			true,
		},
		{"a refund whose order nobody knows", []*Facts{customer(1, "c1", "a"), refunded(1, "r1", "o1", "")}, want{"a": "c1+own =c1"}, true},
		{
			"passes",
			[]*Facts{{Passes: []entitlement.Pass{{ID: "p2", User: "a"}, {ID: "p1", User: "a"}, {ID: "p1", User: "b"}, {ID: "p3", User: "ab"}}}},
			want{"a": "p1 p2", "b": "p1", "ab": "p3", "c": ""},
			true,
		},
		{
			"deleted and created again with the same external id",
			[]*Facts{customer(1, "c1", "a"), subscribed(1, "s1", "c1", "", ""), deleted(2, "c1", "a"), customer(3, "c2", "a"), subscribed(3, "s2", "c2", "", "")},
			want{"a": "c1+own+deleted c2+own s1 s2 =c2"},
			true,
		},
		{"deleted without external id", []*Facts{customer(1, "c1", "a"), deleted(2, "c1", "")}, want{"a": "c1+own+deleted"}, true},
		{
			"ids that begin alike",
			[]*Facts{customer(1, "c1", "a"), customer(1, "c11", "ab"), subscribed(1, "s1", "c1", "", ""), subscribed(1, "s11", "c11", "", ""), granted(1, "g1", "c1", "s1", ""), granted(1, "g11", "c11", "s11", "")},
			want{"a": "c1+own s1 g1 =c1", "ab": "c11+own s11 g11 =c11"},
			true,
		},
		{
			"255 bytes are a user",
			[]*Facts{customer(1, "c1", long[1:]), subscribed(1, "s1", "c1", "", "")},
			want{long[1:]: "c1+own s1 =c1"},
			true,
		},
		{
			"256 bytes are none",
			[]*Facts{customer(1, "c1", long), subscribed(1, "s1", "c1", "", ""), subscribed(1, "s2", "c2", long, "")},
			want{long: "", long[1:]: ""},
			true,
		},
		{
			"control characters are no user's",
			[]*Facts{customer(1, "c1", control), subscribed(1, "s1", "c1", "", ""), customer(1, "c2", "a\x00sx"), customer(1, "c3", "a\u0085"), customer(1, "c4", "a\xff")},
			want{control: "", "a": "", "a\x00sx": "", "a\u0085": "", "a\xff": ""},
			true,
		},
		{
			"metadata changes",
			[]*Facts{customer(1, "c1", "a"), subscribed(1, "s1", "c1", "m", ""), subscribed(2, "s1", "c1", "n", "")},
			want{"a": "c1+own+shared", "m": "", "n": "c1 s1"},
			true,
		},
		{
			"a purchase changes its customer",
			[]*Facts{customer(1, "c1", "a"), customer(1, "c2", "b"), subscribed(1, "s1", "c1", "", ""), subscribed(2, "s1", "c2", "", ""), ordered(1, "o1", "c1", "", "", ""), ordered(2, "o1", "c2", "", "", "")},
			want{"a": "c1+own =c1", "b": "c2+own s1 o1 =c2"},
			true,
		},
		{
			"a proven e-mail",
			[]*Facts{customer(1, "c1", ""), emailed(1, "c1", "x"), subscribed(1, "s1", "c1", "", ""), ordered(1, "o1", "c1", "", "", ""), proven("a", "x"), proven("b", "y")},
			want{"a": "c1+email+own s1 o1 =c1", "b": ""},
			false,
		},
		{
			"a proven e-mail, and what is bought later",
			[]*Facts{emailed(1, "c1", "x"), proven("a", "x"), customer(1, "c1", ""), subscribed(1, "s1", "c1", "", ""), granted(1, "g1", "c1", "s1", "")},
			want{"a": "c1+email+own s1 g1 =c1"},
			false,
		},
		{"no e-mail proves nothing", []*Facts{customer(1, "c1", ""), emailed(1, "c1", ""), proven("a", "")}, want{"a": ""}, true},
		{
			"an e-mail proven before anybody had it",
			[]*Facts{proven("a", "x"), customer(1, "c1", ""), emailed(1, "c1", "x")},
			want{"a": ""},
			false,
		},
		{
			"two users of one e-mail: the first link stands",
			[]*Facts{emailed(1, "c1", "x"), subscribed(1, "s1", "c1", "", ""), proven("a", "x"), proven("b", "x")},
			want{"a": "c1+email+own s1 =c1", "b": ""},
			false,
		},
		{
			"several customers of one e-mail",
			[]*Facts{emailed(1, "c1", "x"), emailed(1, "c2", "x"), customer(1, "c3", "e"), emailed(1, "c3", "x"), emailed(1, "c4", "xx"), proven("a", "x")},
			want{"a": "c1+email+own c2+email+own =c1", "e": "c3+own =c3"},
			false,
		},
		{
			"external id over e-mail, whichever comes first",
			[]*Facts{customer(1, "c1", ""), emailed(1, "c1", "x"), proven("a", "x"), customer(2, "c1", "e"), subscribed(1, "s1", "c1", "", "")},
			want{"a": "", "e": "c1+own s1 =c1"},
			true,
		},
		{
			"external id by name over e-mail",
			[]*Facts{emailed(1, "c1", "x"), proven("a", "x"), subscribed(1, "s1", "c1", "", ""), named("c1", "e")},
			want{"a": "", "e": "c1+own s1 =c1"},
			true,
		},
		{
			"an external id that cannot be a user's is one all the same",
			[]*Facts{emailed(1, "c1", "x"), customer(1, "c1", control), proven("a", "x")},
			want{"a": ""},
			true,
		},
		{
			"the operator's link over e-mail",
			[]*Facts{emailed(1, "c1", "x"), proven("a", "x"), linked("c1", "l"), subscribed(1, "s1", "c1", "", "")},
			want{"a": "", "l": "c1+own s1 =c1"},
			true,
		},
		{
			"the operator's link taken back: proven anew",
			[]*Facts{emailed(1, "c1", "x"), proven("a", "x"), linked("c1", "l"), linked("c1", ""), proven("b", "x")},
			want{"a": "", "l": "", "b": "c1+email+own =c1"},
			false,
		},
		{
			"metadata over e-mail: no control then",
			[]*Facts{emailed(1, "c1", "x"), subscribed(1, "s1", "c1", "m", ""), subscribed(1, "s2", "c1", "", ""), proven("a", "x")},
			want{"a": "c1+email+own+shared s2", "m": "c1 s1"},
			false,
		},
		{
			"the e-mail changes afterwards",
			[]*Facts{customer(1, "c1", ""), emailed(1, "c1", "x"), proven("a", "x"), emailed(2, "c1", "y"), proven("b", "y"), emailed(1, "c1", "x")},
			want{"a": "c1+email+own =c1", "b": ""},
			false,
		},
		{
			"the e-mail has changed before",
			[]*Facts{emailed(2, "c1", "y"), emailed(1, "c1", "x"), proven("a", "x"), proven("b", "y")},
			want{"a": "", "b": "c1+email+own =c1"},
			false,
		},
		{
			"the e-mail was taken away before",
			[]*Facts{emailed(2, "c1", ""), emailed(1, "c1", "x"), proven("a", "x")},
			want{"a": ""},
			false,
		},
		{
			"deleted: the link dies",
			[]*Facts{customer(1, "c1", ""), emailed(1, "c1", "x"), proven("a", "x"), deleted(2, "c1", ""), subscribed(1, "s1", "c1", "", "")},
			want{"a": ""},
			true,
		},
		{
			"deleted and created again with the same e-mail",
			[]*Facts{emailed(1, "c1", "x"), proven("a", "x"), deleted(2, "c1", ""), customer(3, "c2", ""), emailed(3, "c2", "x"), subscribed(3, "s2", "c2", "", ""), proven("b", "x")},
			want{"a": "", "b": "c2+email+own s2 =c2"},
			false,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			orders := [][]*Facts{c.facts}
			if c.anyOrder {
				orders = permutations(c.facts)
			}
			s := testStore(t)
			for _, facts := range orders {
				empty(t, s)
				for user := range c.want {
					_ = account(t, s, user) // memory holds what was before
				}
				for _, f := range facts {
					apply(t, s, f)
				}
				for user, want := range c.want {
					if got := holds(account(t, s, user)); got != want {
						t.Errorf("%.20q holds %q, want %q, after %s", user, got, want, told(facts))
					}
				}
				consistent(t, s, keys(c.want)...)
				if t.Failed() {
					return
				}
			}
		})
	}
}

// empty takes all out of a store, and its memory with it.
func empty(t *testing.T, s *Store) {
	t.Helper()
	var seq uint64
	if err := s.engine.Transact(true, func(tx kv.Tx) (bool, error) {
		seq = tx.Sequence()
		for _, name := range objectBuckets {
			b := tx.Bucket(name)
			var keys [][]byte
			for key := range b.Range("", "", 0) {
				keys = append(keys, bytes.Clone(key))
			}
			for _, key := range keys {
				if err := b.Delete(string(key)); err != nil {
					return false, err
				}
			}
		}
		return true, nil
	}); err != nil {
		t.Fatal(err)
	}
	s.memory.forget(seq)
}

func told(facts []*Facts) string {
	var out []string
	for _, f := range facts {
		out = append(out, fmt.Sprintf("%+v", *f))
	}
	return strings.Join(out, "\n")
}

// permutations are all orders of up to five facts, and a few of more.
func permutations(facts []*Facts) [][]*Facts {
	if len(facts) > 5 {
		back := slices.Clone(facts)
		slices.Reverse(back)
		out := [][]*Facts{facts, back}
		for i := 1; i < len(facts); i++ {
			out = append(out, slices.Concat(facts[i:], facts[:i]), slices.Concat(back[i:], back[:i]))
		}
		return out
	}
	if len(facts) == 0 {
		return [][]*Facts{nil}
	}
	var out [][]*Facts
	for i, f := range facts {
		for _, rest := range permutations(slices.Concat(facts[:i], facts[i+1:])) {
			out = append(out, append([]*Facts{f}, rest...))
		}
	}
	return out
}

// TestMemoryFollowsOwnership: whom a change concerns sees it at once, though
// memory holds their account.
func TestMemoryFollowsOwnership(t *testing.T) {
	s := testStore(t)
	users := []string{"a", "b", "l", "m"}
	apply(t, s, opened("k", "b"))
	for _, step := range []struct {
		facts *Facts
		want  []string // of the users
	}{
		{subscribed(1, "s1", "c1", "", ""), []string{"", "", "", ""}},
		{granted(1, "g1", "c1", "s1", ""), []string{"", "", "", ""}},
		{granted(1, "g2", "c1", "", "o1"), []string{"", "", "", ""}},
		{customer(1, "c1", ""), []string{"", "", "", ""}},
		{named("c1", "a"), []string{"c1+own s1 g1 g2 =c1", "", "", ""}},
		{ordered(1, "o1", "c1", "", "", "k"), []string{"c1+own+shared s1 g1", "c1 o1 g2", "", ""}},
		{refunded(1, "r1", "o1", ""), []string{"c1+own+shared s1 g1", "c1 o1 g2 r1/", "", ""}},
		{refunded(1, "r2", "o2", ""), []string{"c1+own+shared s1 g1", "c1 o1 g2 r1/", "", ""}},
		{ordered(1, "o2", "c1", "s1", "", ""), []string{"c1+own+shared s1 g1 r2/s1", "c1 o1 g2 r1/", "", ""}},
		{linked("c1", "l"), []string{"", "", "c1+own s1 o1 g1 g2 r1/ r2/s1 =c1", ""}},
		{subscribed(2, "s1", "c1", "m", ""), []string{"", "", "c1+own s1 o1 g1 g2 r1/ r2/s1 =c1", ""}},
		{linked("c1", ""), []string{"c1+own+shared", "c1 o1 g2 r1/", "", "c1 s1 g1 r2/s1"}},
		{refunded(1, "r3", "o3", ""), []string{"c1+own+shared", "c1 o1 g2 r1/", "", "c1 s1 g1 r2/s1"}},
		{ordered(1, "o3", "c1", "s1", "", ""), []string{"c1+own+shared", "c1 o1 g2 r1/", "", "c1 s1 g1 r2/s1 r3/s1"}},
		{deleted(2, "c1", ""), []string{"c1+own+shared+deleted", "c1+deleted o1 g2 r1/", "", "c1+deleted s1 g1 r2/s1 r3/s1"}},
	} {
		for _, user := range users {
			_ = account(t, s, user)
			if _, ok := s.memory.get(user); !ok {
				t.Fatalf("%s is not in memory", user)
			}
		}
		apply(t, s, step.facts)
		for i, user := range users {
			held, ok := s.memory.get(user)
			if !ok || holds(held) != step.want[i] {
				t.Errorf("after %+v %s holds %q in memory, want %q", *step.facts, user, holds(account(t, s, user)), step.want[i])
			}
		}
		consistent(t, s, users...)
	}
}

// TestOrphanGrantOfAnotherCustomer: a grant can name another customer than the
// subscription under which it hangs. When that arrives, the first customer's
// user has it no longer, in memory as in the file.
func TestOrphanGrantOfAnotherCustomer(t *testing.T) {
	for name, parent := range map[string]*Facts{
		"subscription": subscribed(1, "s1", "c2", "", ""),
		"order":        ordered(1, "o1", "c2", "", "", ""),
	} {
		t.Run(name, func(t *testing.T) {
			s := testStore(t)
			apply(t, s, customer(1, "c1", "a"))
			apply(t, s, customer(1, "c2", "b"))
			if name == "subscription" {
				apply(t, s, granted(1, "g1", "c1", "s1", ""))
			} else {
				apply(t, s, granted(1, "g1", "c1", "", "o1"))
			}
			if got := holds(account(t, s, "a")); got != "c1+own g1 =c1" {
				t.Errorf("before its parent came, a holds %q", got)
			}
			apply(t, s, parent)
			consistent(t, s, "a", "b")
		})
	}
}

// TestPassOfNoUser: a pass for what cannot be a user is refused, and leaves
// no trace; neither does what came with it.
func TestPassOfNoUser(t *testing.T) {
	for name, facts := range map[string]*Facts{
		"pass, control character": {Passes: []entitlement.Pass{{ID: "p", User: "a\x00b", Plan: "pro"}}},
		"pass, 256 bytes":         {Passes: []entitlement.Pass{{ID: "p", User: strings.Repeat("a", 256)}}},
		"pass of nobody":          {Passes: []entitlement.Pass{{ID: "p"}}},
		"pass without id":         {Passes: []entitlement.Pass{{User: "a"}}},
	} {
		t.Run(name, func(t *testing.T) {
			s := testStore(t)
			before := dump(t, s)
			facts.Customers = customer(1, "c9", "a").Customers
			if _, err := s.Apply(t.Context(), facts); !errors.Is(err, ErrUser) {
				t.Errorf("applied: %v", err)
			}
			if diff := differences(before, dump(t, s)); diff != "" {
				t.Errorf("traces:\n%s", diff)
			}
			if got := holds(account(t, s, "a")); got != "" {
				t.Errorf("a holds %q", got)
			}
		})
	}
}

// TestIndexesAreOfTheObjects: whatever happens in whatever order, the indexes
// and accounts are those that the objects alone give.
func TestIndexesAreOfTheObjects(t *testing.T) {
	dir := t.TempDir()
	users := []string{"a", "ab", "b", "", "bad\n", strings.Repeat("u", 256)}
	rapid.Check(t, func(t *rapid.T) {
		s := fastStore(t, dir)
		defer s.Close()
		draw := func(name string, from ...string) string { return rapid.SampledFrom(from).Draw(t, name) }
		user := func() string { return draw("user", users...) }
		of := func() string { return draw("customer", "c", "c1", "c11", "d") }
		checkout := func() string { return draw("checkout", "", "k1", "k2", "k3") }
		for _, f := range []*Facts{opened("k1", "a"), opened("k2", "b"), opened("k3", "")} {
			deliver(t, s, []*Facts{f})
		}
		n := 0
		// Grants and refunds name their parents for good, and so do orders:
		// which subscription o1 is of never changes.
		orderOf := map[string]string{"o1": "", "o2": "s1", "o3": ""}
		op := func() *Facts {
			n = rapid.IntRange(0, 20).Draw(t, "version")
			switch rapid.IntRange(0, 13).Draw(t, "op") {
			case 9, 10:
				return drawMember(t, n, users)
			case 11, 12:
				return drawSeat(t, n)
			case 13:
				return drawMembersGrant(t, n)
			case 7:
				if rapid.Bool().Draw(t, "of a member") {
					return memberEmailed(n, draw("member", "m1", "m2", "m3"), draw("e-mail", "", "x", "y"))
				}
				return emailed(n, of(), draw("e-mail", "", "x", "y"))
			case 8:
				return proven(draw("user", "a", "ab", "b"), draw("e-mail", "", "x", "y"))
			case 0:
				c := customer(n, of(), user())
				if rapid.Bool().Draw(t, "deleted") {
					c.Customers[0].DeletedAt = at(n)
				}
				return c
			case 1:
				return named(of(), user())
			case 2:
				return linked(draw("linked", "c", "c1", "c11", "d", "m1", "m2"), user())
			case 3:
				return subscribed(n, draw("subscription", "s1", "s11", "s2"), of(), user(), checkout())
			case 4:
				id := draw("order", "o1", "o2", "o3")
				return ordered(n, id, of(), orderOf[id], user(), checkout())
			case 5:
				parent := draw("parent", "s1", "s2", "o1", "o3", "")
				id := "g-" + parent + draw("grant", "1", "2")
				// Its customer is its parent's as long as that is not known.
				if strings.HasPrefix(parent, "o") {
					return granted(n, id, "c", "", parent)
				}
				return granted(n, id, "c", parent, "")
			default:
				order := draw("order", "o1", "o2", "o3")
				return refunded(n, "r-"+order, order, "")
			}
		}
		for range rapid.IntRange(1, 40).Draw(t, "ops") {
			var batch []*Facts
			for range rapid.IntRange(1, 3).Draw(t, "facts") {
				batch = append(batch, op())
			}
			deliver(t, s, batch)
			for _, user := range []string{"a", "b"} { // some accounts are held in memory, some not
				if rapid.Bool().Draw(t, "read") {
					_ = account(t, s, user)
				}
			}
		}
		have := dump(t, s)
		m := readMirror(t, s)
		m.onlyWhatCounts(t)
		for k := range have {
			if !strings.HasPrefix(k, "by_") {
				delete(have, k)
			}
		}
		if diff := differences(have, m.indexes()); diff != "" {
			t.Errorf("indexes:\n%s", diff)
		}
		for _, user := range []string{"a", "ab", "b", "bad\n", users[5]} {
			if got, want := view(stored(t, s, user)), view(m.account(user)); got != want {
				t.Errorf("%q in the file:\n%s\nby the objects:\n%s", user, got, want)
			}
			// Grants have a test of their own: TestOrphanGrantOfAnotherCustomer.
			if got, want := view(withoutGrants(account(t, s, user))), view(withoutGrants(m.account(user))); got != want {
				t.Errorf("%q in memory:\n%s\nby the objects:\n%s", user, got, want)
			}
		}
	})
}

func withoutGrants(a *entitlement.Account) *entitlement.Account {
	f := a.Facts
	f.Grants = nil
	return &entitlement.Account{User: a.User, Facts: f}
}

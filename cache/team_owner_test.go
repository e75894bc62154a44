package cache

import (
	"testing"

	"github.com/caddy-polar/caddy-polar/entitlement"
)

// TestTeams is TestOwnership for members, their seats and grants. Every order
// of the facts ends the same.
func TestTeams(t *testing.T) {
	type want map[string]string
	for _, c := range []struct {
		name  string
		facts []*Facts
		want  want
	}{
		{
			"a claimed seat is its member's",
			[]*Facts{customer(1, "c1", "a"), subscribed(1, "s1", "c1", "", ""), membered(1, "m1", "c1", "b", "member"), seated(1, "p1", "s1", "", "c1", "m1")},
			want{"a": "c1+own s1 =c1", "b": "c1 s1 m1 p1 -c1 -s1"},
		},
		{"its parent is not held", []*Facts{membered(1, "m1", "c1", "b", "member"), seated(1, "p1", "s1", "", "c1", "m1")}, want{"b": "m1 p1"}},
		{
			"a seat of an order, refunded",
			[]*Facts{ordered(1, "o1", "c1", "", "", ""), refunded(1, "r1", "o1", ""), membered(1, "m1", "c1", "b", "member"), seated(1, "p1", "", "o1", "c1", "m1")},
			want{"b": "c1 o1 r1/ m1 p1 -c1 -o1"},
		},
		{"an invitation is nobody's", []*Facts{membered(1, "m1", "c1", "b", "member"), offered(1, "p1", "s1", "")}, want{"b": "m1"}},
		{
			"revoked: whose it was stays",
			[]*Facts{membered(1, "m1", "c1", "b", "member"), seated(1, "p1", "s1", "", "c1", "m1"), unseated(2, "p1", "s1", "")},
			want{"b": "m1 p1"},
		},
		{
			"revoked and claimed by another",
			[]*Facts{
				membered(1, "m1", "c1", "b", "member"), membered(1, "m2", "c1", "d", "member"),
				seated(1, "p1", "s1", "", "c1", "m1"), unseated(2, "p1", "s1", ""), seated(3, "p1", "s1", "", "c1", "m2"),
			},
			want{"b": "m1", "d": "m2 p1"},
		},
		{
			// The last claim before the revocation counts, not the last to come.
			"there and back, then revoked",
			[]*Facts{
				{Members: []entitlement.Member{{Version: rev(1), ID: "m1", ExternalID: "b"}, {Version: rev(1), ID: "m2", ExternalID: "d"}}},
				seated(1, "p1", "s1", "", "c1", "m1"), seated(2, "p1", "s1", "", "c1", "m2"), seated(3, "p1", "s1", "", "c1", "m1"), unseated(4, "p1", "s1", ""),
			},
			want{"b": "m1 p1", "d": "m2"},
		},
		{
			"an older state of a member knows the name",
			[]*Facts{membered(2, "m1", "c1", "", "member"), membered(1, "m1", "c1", "b", "member"), seated(1, "p1", "s1", "", "c1", "m1")},
			want{"b": "m1 p1"},
		},
		{
			"an owner is the customer",
			[]*Facts{customer(1, "c1", "a"), membered(1, "m1", "c1", "", "owner"), subscribed(1, "s1", "c1", "", ""), seated(1, "p1", "s1", "", "c1", "m1")},
			want{"a": "c1+own s1 m1 p1 =c1"},
		},
		{
			"an owner is whom the purchase names",
			[]*Facts{customer(1, "c1", "a"), membered(1, "m1", "c1", "", "owner"), subscribed(1, "s1", "c1", "b", ""), seated(1, "p1", "s1", "", "c1", "m1")},
			want{"a": "c1+own+shared m1", "b": "c1 s1 p1"},
		},
		{
			"the customer's owner changes",
			[]*Facts{
				{Members: []entitlement.Member{{Version: rev(1), ID: "m1", CustomerID: "c1", Role: "owner"}, {Version: rev(1), ID: "m2", CustomerID: "c1", ExternalID: "b"}}},
				{Members: []entitlement.Member{{Version: rev(2), ID: "m1", CustomerID: "c1"}, {Version: rev(2), ID: "m2", CustomerID: "c1", ExternalID: "b", Role: "owner"}}},
				customer(1, "c1", "a"), seated(1, "p1", "s1", "", "c1", "m1"), seated(1, "p2", "s1", "", "c1", "m2"),
			},
			want{"a": "c1+own =c1", "b": "m2 p2"},
		},
		{
			"the operator's link of a member, before it or after",
			[]*Facts{linked("m1", "l"), membered(1, "m1", "c1", "b", "member"), seated(1, "p1", "s1", "", "c1", "m1"), memberGranted(1, "g1", "c1", "s1", "", "m1")},
			want{"b": "", "l": "c1 g1 m1 p1 -c1"},
		},
		{
			"the operator's link of an owner's customer",
			[]*Facts{linked("c1", "l"), customer(1, "c1", "a"), membered(1, "m1", "c1", "", "owner"), seated(1, "p1", "s1", "", "c1", "m1")},
			want{"a": "", "l": "c1+own m1 p1 =c1"},
		},
		{
			"a member's grant without seats is the buyer's",
			[]*Facts{customer(1, "c1", "a"), subscribed(1, "s1", "c1", "", ""), membered(1, "m1", "c1", "b", "member"), memberGranted(1, "g1", "c1", "s1", "", "m1"), granted(1, "g2", "c1", "s1", "")},
			want{"a": "c1+own s1 g1 g2 =c1", "b": "m1"},
		},
		{
			"a member's grant is not the buyer's",
			[]*Facts{customer(1, "c1", "a"), bySeats(1, "s1", "c1"), membered(1, "m1", "c1", "b", "member"), memberGranted(1, "g1", "c1", "s1", "", "m1"), granted(1, "g2", "c1", "s1", "")},
			want{"a": "c1+own s1 g2 =c1", "b": "c1 s1 g1 m1 -c1 -s1"},
		},
		{"a member's grant without its parent", []*Facts{customer(1, "c1", "a"), memberGranted(1, "g1", "c1", "s1", "", "m1")}, want{"a": "c1+own =c1"}},
		{"the customer alone has the seat", []*Facts{customer(1, "c2", "b"), seated(1, "p1", "s1", "", "c2", "")}, want{"b": "c2+own p1 =c2"}},
		{
			"the buyer's customer is deleted",
			[]*Facts{deleted(2, "c1", "a"), subscribed(1, "s1", "c1", "", ""), membered(1, "m1", "c1", "b", "member"), seated(1, "p1", "s1", "", "c1", "m1")},
			want{"a": "c1+own+deleted s1", "b": "c1+deleted s1 m1 p1 -c1 -s1"},
		},
		{
			"a holder with a purchase of the same customer",
			[]*Facts{subscribed(1, "s1", "c1", "", ""), subscribed(1, "s2", "c1", "b", ""), membered(1, "m1", "c1", "b", "member"), seated(1, "p1", "s1", "", "c1", "m1")},
			want{"b": "c1 s1 s2 m1 p1 -s1"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := testStore(t)
			for _, facts := range permutations(c.facts) {
				empty(t, s)
				for user := range c.want {
					_ = account(t, s, user) // memory holds what was before
				}
				for _, f := range facts {
					apply(t, s, f)
				}
				for user, want := range c.want {
					if got := holds(account(t, s, user)); got != want {
						t.Errorf("%q holds %q, want %q, after %s", user, got, want, told(facts))
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

// TestForgetLinkedMember: who is linked to somebody else keeps all but the name.
func TestForgetLinkedMember(t *testing.T) {
	s := testStore(t)
	for _, f := range []*Facts{membered(1, "m1", "c1", "b", "member"), linked("m1", "l"), seated(1, "p1", "s1", "", "c1", "m1")} {
		apply(t, s, f)
	}
	_ = account(t, s, "l")
	_ = must(s.Forget(t.Context(), "b"))
	a := account(t, s, "l")
	if holds(a) != "m1 p1" || a.Members[0].ExternalID != "" {
		t.Errorf("holds %q, %+v", holds(a), a.Members)
	}
	consistent(t, s, "b", "l")
	_ = must(s.Forget(t.Context(), "l"))
	if a := account(t, s, "l"); holds(a) != "" {
		t.Errorf("holds %q", holds(a))
	}
	consistent(t, s, "b", "l")
}

// TestCustomerComesBack: that a customer is no longer deleted reaches those who
// have a seat, though memory holds their accounts.
func TestCustomerComesBack(t *testing.T) {
	s := testStore(t)
	for _, f := range []*Facts{deleted(2, "c1", "a"), subscribed(1, "s1", "c1", "", ""), membered(1, "m1", "c1", "b", "member"), seated(1, "p1", "s1", "", "c1", "m1")} {
		apply(t, s, f)
	}
	_ = account(t, s, "b")
	apply(t, s, customer(3, "c1", "a"))
	sameAsStore(t, s, "a", "b")
}

// TestUpgradeOfMembersGrants: a store from before there were members has their
// grants under the customer, without the member. They are not the buyer's, and
// one sweep makes them the member's.
func TestUpgradeOfMembersGrants(t *testing.T) {
	path := t.TempDir() + "/old.db"
	s := claimed(t, path)
	for _, f := range []*Facts{customer(1, "c1", "a"), bySeats(1, "s1", "c1")} {
		apply(t, s, f)
	}
	old := entitlement.Grant{Version: rev(1), ID: "g1", CustomerID: "c1", SubscriptionID: "s1", Granted: true, ForMember: true}
	write := must(must(s.file().open()).Begin(true))
	for _, b := range [][]byte{bucketMembers, bucketSeats, bucketByMember} {
		if err := write.DeleteBucket(b); err != nil {
			t.Fatal(err)
		}
	}
	record := encode(grantFields, old)
	for _, put := range []struct{ bucket, key, value []byte }{
		{bucketGrants, []byte("g1"), record[:len(record)-1]}, // without a member's length
		{bucketByCustomer, []byte(indexKey("c1", kindGrant, "g1")), nil},
		{bucketByParent, []byte(indexKey("s1", kindGrant, "g1")), nil},
	} {
		if err := write.Bucket(put.bucket).Put(put.key, put.value); err != nil {
			t.Fatal(err)
		}
	}
	if err := write.Commit(); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	s = claimed(t, path)
	defer s.Close()
	if got := holds(account(t, s, "a")); got != "c1+own s1 =c1" {
		t.Errorf("before a sweep the buyer holds %q", got)
	}
	sweep := memberGranted(1, "g1", "c1", "s1", "", "m1")
	sweep.Sweep, sweep.Grants[0].Version.AsOf = true, at(50)
	sweep.Members = membered(1, "m1", "c1", "b", "member").Members
	apply(t, s, sweep)
	for user, want := range map[string]string{"a": "c1+own s1 =c1", "b": "c1 s1 g1 m1 -c1 -s1"} {
		if got := holds(account(t, s, user)); got != want {
			t.Errorf("%s holds %q, want %q", user, got, want)
		}
	}
	consistent(t, s, "a", "b")
}

// TestExpireTeam: what is over goes with its seats and members' grants, also when
// nobody has told that a seat was taken back.
func TestExpireTeam(t *testing.T) {
	s := testStore(t)
	over := subscribed(1, "s1", "c1", "", "")
	over.Subscriptions[0].Status, over.Subscriptions[0].EndedAt = entitlement.StatusCanceled, at(1)
	back := memberGranted(1, "g1", "c1", "s1", "", "m1")
	back.Grants[0].Granted, back.Grants[0].Revoked = false, true
	for _, f := range []*Facts{over, membered(1, "m1", "c1", "b", "member"), seated(1, "p1", "s1", "", "c1", "m1"), back} {
		apply(t, s, f)
	}
	_ = account(t, s, "b")
	if n := must(s.Expire(t.Context(), at(1).Add(101*24*3600e9))); n != 3 {
		t.Errorf("%d went", n)
	}
	if got := holds(account(t, s, "b")); got != "m1" {
		t.Errorf("holds %q", got)
	}
	consistent(t, s, "b")
}

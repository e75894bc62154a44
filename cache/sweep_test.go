package cache

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/caddy-polar/caddy-polar/entitlement"
)

// page has an object of each kind, as read at n seconds.
func page(n int) *Facts {
	v := entitlement.Version{Row: at(1), AsOf: at(n)}
	return &Facts{
		Organization:  testOwner.Organization,
		Names:         []Name{{"c", "u"}},
		Checkouts:     []Checkout{{ID: "k", CustomerID: "c"}},
		Customers:     []entitlement.Customer{{Version: v, ID: "c"}},
		Subscriptions: []entitlement.Subscription{{Version: v, ID: "s", CustomerID: "c", CheckoutID: "k", Status: entitlement.StatusActive, PeriodEnd: at(1000)}},
		Orders:        []entitlement.Order{{Version: v, ID: "o", CustomerID: "c", CheckoutID: "k"}},
		Grants:        []entitlement.Grant{{Version: v, ID: "g", CustomerID: "c", SubscriptionID: "s", Granted: true}},
		Refunds:       []entitlement.Refund{{Version: v, ID: "r", OrderID: "o"}},
	}
}

// TestSweepWithoutDrift: a whole page that is held as it is costs no commit,
// though the store has put in what a page does not say: users by checkouts, the
// customer's external id.
func TestSweepWithoutDrift(t *testing.T) {
	path := filepath.Join(t.TempDir(), "polar.db")
	s := claimed(t, path)
	defer s.Close()
	apply(t, s, &Facts{Checkouts: []Checkout{{ID: "k", User: "opener", OpenedAt: at(0)}}})
	if a := apply(t, s, page(2)); a != (Applied{New: 7, Missing: 5, Wrong: 2}) { // the checkout has a customer, the name's customer is held
		t.Errorf("the first page: %+v", a)
	}
	if got := holds(account(t, s, "opener")); got != "c o1 s1" && len(account(t, s, "opener").Subscriptions) != 1 {
		t.Fatalf("the opener holds %q", got)
	}
	before, content, stat := lastCommit(s), must(os.ReadFile(path)), must(os.Stat(path))
	writes := func() int64 { stats := s.file().db.Load().Stats(); return stats.TxStats.GetWrite() }
	written, held := writes(), account(t, s, "opener")
	for _, n := range []int{1, 2, 3, 99} { // told before, at the same time, after
		f := page(n)
		f.Sweep = true
		f.Subscriptions[0].PeriodEnd = f.Subscriptions[0].PeriodEnd.In(time.FixedZone("", 3600))
		if a := apply(t, s, f); a != (Applied{Same: 5}) {
			t.Errorf("swept at %d: %+v", n, a)
		}
	}
	if now := must(os.Stat(path)); !now.ModTime().Equal(stat.ModTime()) || !bytes.Equal(content, must(os.ReadFile(path))) {
		t.Error("the file was written")
	}
	if after := lastCommit(s); after != before || writes() != written {
		t.Errorf("commit %d, before %d", after, before)
	}
	if account(t, s, "opener") != held {
		t.Error("memory was replaced")
	}
	if a := apply(t, s, page(99)); a != (Applied{New: 5, Wrong: 5}) {
		t.Errorf("the same, but not of a sweep: %+v", a)
	}
	if got := account(t, s, "opener").Subscriptions[0].Version.AsOf; !got.Equal(at(99)) {
		t.Errorf("it was told at %s", got)
	}
}

// TestSweepMends: a sweep writes whatever differs, and nothing else.
func TestSweepMends(t *testing.T) {
	for name, c := range map[string]struct {
		edit func(*Facts)
		want Applied
	}{
		"customer":     {func(f *Facts) { f.Customers[0].DeletedAt = at(1) }, Applied{New: 1, Wrong: 1, Same: 4}},
		"subscription": {func(f *Facts) { f.Subscriptions[0].CancelAtPeriodEnd = true }, Applied{New: 1, Wrong: 1, Same: 4}},
		"order":        {func(f *Facts) { f.Orders[0].Status = entitlement.OrderPaid }, Applied{New: 1, Wrong: 1, Same: 4}},
		"grant":        {func(f *Facts) { f.Grants[0].Granted = false }, Applied{New: 1, Wrong: 1, Same: 4}},
		"refund":       {func(f *Facts) { f.Refunds[0].Succeeded = true }, Applied{New: 1, Wrong: 1, Same: 4}},
		"name":         {func(f *Facts) { f.Names = []Name{{"c2", "v"}} }, Applied{New: 1, Missing: 1, Same: 5}},
		"checkout":     {func(f *Facts) { f.Checkouts[0].CustomerID = "c2" }, Applied{New: 1, Wrong: 1, Same: 5}},
		"row alone":    {func(f *Facts) { f.Orders[0].Version.Row = at(2) }, Applied{Same: 5}},
		"missing": {func(f *Facts) {
			f.Grants[0].ID = "g2"
			f.Subscriptions[0].ID = "s2"
		}, Applied{New: 2, Missing: 2, Same: 3}},
		"older row":            {func(f *Facts) { f.Orders[0].Version.Row = at(0) }, Applied{Stale: 1, Same: 4}},
		"other, but told then": {func(f *Facts) { f.Orders[0].Status, f.Orders[0].Version.AsOf = "paid", at(2) }, Applied{Stale: 1, Same: 4}},
	} {
		t.Run(name, func(t *testing.T) {
			s := testStore(t)
			apply(t, s, &Facts{Checkouts: []Checkout{{ID: "k", User: "opener"}}})
			apply(t, s, page(2))
			f := page(3)
			f.Sweep = true
			c.edit(f)
			if a := apply(t, s, f); a != c.want {
				t.Errorf("%+v, want %+v", a, c.want)
			}
			if a := apply(t, s, f); a.New != 0 {
				t.Errorf("again: %+v", a)
			}
			consistent(t, s, "opener", "u", "v")
		})
	}
}

// TestSweepKeepsTheNewestRow: Polar writes rows without telling anybody. That is
// no news, yet what was between the two is old by then.
func TestSweepKeepsTheNewestRow(t *testing.T) {
	s := testStore(t)
	apply(t, s, page(2))
	f := page(9)
	f.Sweep = true
	f.Subscriptions[0].Version.Row = at(5)
	if a := apply(t, s, f); a != (Applied{Same: 5}) {
		t.Errorf("%+v", a)
	}
	between := page(4)
	between.Subscriptions[0].Version.Row = at(3)
	between.Subscriptions[0].Status = entitlement.StatusCanceled
	if a := apply(t, s, &Facts{Subscriptions: between.Subscriptions}); a != (Applied{Stale: 1}) {
		t.Errorf("%+v", a)
	}
}

// TestSweepSeesAnOpenerLater: when a checkout turns out to be a user's, the
// purchase is no longer as it is held.
func TestSweepSeesAnOpenerLater(t *testing.T) {
	s := testStore(t)
	apply(t, s, page(2))
	apply(t, s, &Facts{Checkouts: []Checkout{{ID: "k", User: "opener"}}})
	f := page(3)
	f.Sweep = true
	if a := apply(t, s, f); a != (Applied{New: 2, Wrong: 2, Same: 3}) {
		t.Errorf("%+v", a)
	}
	if len(account(t, s, "opener").Subscriptions) != 1 {
		t.Error("the opener has nothing")
	}
}

// TestNotes: notes are written with the facts or not at all, and only if they
// are news.
func TestNotes(t *testing.T) {
	s := testStore(t)
	note := func(key string) []byte { return must(s.Note(key)) }
	if got := note("page"); got != nil {
		t.Errorf("nothing was noted, and yet %q", got)
	}
	f := purchase("u", 1)
	f.Notes = map[string][]byte{"page": []byte("7"), "empty": {}}
	apply(t, s, f)
	if got := note("page"); string(got) != "7" {
		t.Errorf("page %q", got)
	}
	if got := note("empty"); got == nil || len(got) != 0 {
		t.Errorf("the empty note is %#v", got)
	}
	before := lastCommit(s)
	apply(t, s, &Facts{Notes: map[string][]byte{"page": []byte("7"), "empty": {}, "never": nil}})
	if lastCommit(s) != before {
		t.Error("notes that were known were written")
	}
	bad := &Facts{Notes: map[string][]byte{"page": []byte("8")}, Refunds: []entitlement.Refund{{Version: rev(1)}}}
	if _, err := s.Apply(t.Context(), bad); err == nil {
		t.Error("a refund without id was written")
	}
	foreign := &Facts{Organization: "other", Notes: map[string][]byte{"page": []byte("9")}}
	if a := apply(t, s, foreign); !a.Foreign || string(note("page")) != "7" {
		t.Errorf("%+v, page %q", a, note("page"))
	}
	path := s.Path()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = fastPath(t, path)
	defer s.Close()
	if got := note("page"); string(got) != "7" {
		t.Errorf("page %q in the file", got)
	}
	apply(t, s, &Facts{Notes: map[string][]byte{"page": nil}})
	if got := note("page"); got != nil {
		t.Errorf("taken away, and yet %q", got)
	}
}

// TestFileFromBeforeNotes: a file of an earlier version of this schema gets
// what it lacks when it is claimed.
func TestFileFromBeforeNotes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "polar.db")
	filled(t, path)
	db := must(bolt.Open(path, 0o600, nil))
	if err := db.Update(func(tx *bolt.Tx) error { return tx.DeleteBucket(bucketNotes) }); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	s := New(path)
	defer s.Close()
	noted := &Facts{Notes: map[string][]byte{"a": []byte("b")}}
	if _, err := s.Note("a"); !errors.Is(err, errUnclaimed) {
		t.Errorf("reading a note: %v", err)
	}
	if _, err := s.Apply(t.Context(), noted); !errors.Is(err, errUnclaimed) {
		t.Errorf("writing a note: %v", err)
	}
	if _, err := s.Claim(testOwner); err != nil {
		t.Fatal(err)
	}
	apply(t, s, noted)
	if got := must(s.Note("a")); string(got) != "b" || !account(t, s, "u1-1").Known() {
		t.Errorf("note %q", got)
	}
}

// TestCheckoutAt: the account tells when its user last opened a checkout, at
// once and from the file, and is no more known for it.
func TestCheckoutAt(t *testing.T) {
	s := testStore(t)
	check := func(user string, want time.Time) {
		t.Helper()
		a := account(t, s, user)
		if !a.CheckoutAt.Equal(want) || a.Known() {
			t.Errorf("%s: %s, want %s; known %v", user, a.CheckoutAt, want, a.Known())
		}
		consistent(t, s, user)
	}
	open := func(id, user string, when time.Time) Applied {
		return apply(t, s, &Facts{Checkouts: []Checkout{{ID: id, User: user, OpenedAt: when}}})
	}
	check("u", time.Time{}) // memory holds what was before
	open("k1", "u", at(10).Add(300*time.Nanosecond).In(time.FixedZone("", 60)))
	check("u", at(10))
	open("k2", "u", at(5))
	check("u", at(10))
	open("k3", "u", at(20))
	check("u", at(20))
	open("k4", "", at(30))
	open("k5", "u", time.Time{})
	open("k6", "bad\x00", at(30))
	check("u", at(20))
	id := lastCommit(s)
	for _, again := range []Checkout{
		{ID: "k1", User: "u", OpenedAt: at(10)}, {ID: "k1"}, {ID: "k1", User: "u", OpenedAt: at(9)}, {ID: "k1", Used: true},
	} {
		if a := apply(t, s, &Facts{Checkouts: []Checkout{again}}); a != (Applied{}) || lastCommit(s) != id {
			t.Errorf("known, and yet %+v", a)
		}
	}
	open("k4", "u", time.Time{}) // Polar's word of it came first
	check("u", at(30))
	open("k4", "v", time.Time{})
	check("u", at(20))
	check("v", at(30))
	open("k1", "u", at(40))
	check("u", at(40))
	if held := must(s.Checkout("k1")); held != (Checkout{ID: "k1", User: "u", OpenedAt: at(40)}) {
		t.Errorf("%+v is held", held)
	}
}

// TestSweepIsOfItsFactsAlone: what shares a commit with a sweep is no sweep.
func TestSweepIsOfItsFactsAlone(t *testing.T) {
	s := testStore(t)
	apply(t, s, customer(1, "c", "u"))
	apply(t, s, named("c2", "v"))
	again := func(sweep bool, n int) *change {
		f := customer(1, "c", "u")
		f.Customers[0].Version.AsOf, f.Sweep = at(n), sweep
		return &change{facts: f}
	}
	placeholder := &change{facts: customer(1, "c2", "v")}
	batch := []*change{again(true, 2), again(false, 3), placeholder}
	s.commit(batch)
	for i, want := range []Applied{{Same: 1}, {New: 1, Wrong: 1}, {New: 1, Missing: 1}} { // of the last, only the name was held
		if batch[i].err != nil || batch[i].applied != want {
			t.Errorf("%d: %+v, %v, want %+v", i, batch[i].applied, batch[i].err, want)
		}
	}
}

package cache

import (
	"fmt"
	"maps"
	"reflect"
	"testing"
	"time"

	"github.com/caddy-polar/caddy-polar/cache/kv"
	"github.com/caddy-polar/caddy-polar/entitlement"
)

const monthOfAudit = 30 * 24 * time.Hour

// toldBy makes facts that a webhook brings at a moment, and the journal tells of.
func toldBy(f *Facts, webhook string, n int) *Facts {
	f.Source, f.At, f.Audit = Source{SourceWebhook, webhook}, at(n), monthOfAudit
	return f
}

func subscriptionIs(status entitlement.Status, n int) *Facts {
	f := purchase("ada", n)
	f.Customers = nil
	f.Subscriptions[0].Status = status
	f.Subscriptions[0].PeriodEnd = at(5000)
	return f
}

var adasSubscription = Object{"subscription", "s-ada"}

// lines is a history as texts.
func lines(list []Entry) (out []string) {
	for _, e := range list {
		text := fmt.Sprintf("%s %s/%d:", timeText(e.At), e.Source.ID, e.Source.Kind)
		if e.New {
			text += " new " + e.Status
		}
		for _, c := range e.Changes {
			text += fmt.Sprintf(" %s %s>%s", c.Field, c.Before, c.After)
		}
		out = append(out, text)
	}
	return out
}

func (s *Store) historyOf(t *testing.T, o Object) []string {
	t.Helper()
	all, err := s.Told([]Object{o}, 100)
	if err != nil {
		t.Fatal(err)
	}
	return lines(all[o].History)
}

// TestJournal: each change of an object is told once, with what was other, and by
// which webhook it came.
func TestJournal(t *testing.T) {
	s := testStore(t)
	const id = "2d0f7c11-6d0b-4f39-a6a5-9d5a0e3f1c55"
	apply(t, s, toldBy(subscriptionIs(entitlement.StatusActive, 1), "first", 1))
	apply(t, s, toldBy(subscriptionIs(entitlement.StatusPastDue, 2), id, 2))
	apply(t, s, toldBy(subscriptionIs(entitlement.StatusPastDue, 2), "again", 3))
	apply(t, s, toldBy(subscriptionIs(entitlement.StatusActive, 1), "late", 4))
	same := subscriptionIs(entitlement.StatusPastDue, 5) // another row with nothing other in it
	apply(t, s, toldBy(same, "same", 5))
	mended := toldBy(subscriptionIs(entitlement.StatusCanceled, 6), "", 6)
	mended.Source, mended.Sweep = Source{Kind: SourceSync}, true
	apply(t, s, mended)

	want := []string{
		"2026-05-01T12:00:06Z /2: status past_due>canceled",
		"2026-05-01T12:00:02Z " + id + "/1: status active>past_due",
		"2026-05-01T12:00:01Z first/1: new active",
	}
	if got := s.historyOf(t, adasSubscription); !reflect.DeepEqual(got, want) {
		t.Errorf("%q", got)
	}
	all, err := s.Told([]Object{adasSubscription, {"order", "none"}, {"nonsense", "s-ada"}}, 1)
	if err != nil || len(all) != 1 || len(all[adasSubscription].History) != 1 || all[adasSubscription].Source != (Source{Kind: SourceSync}) {
		t.Error(all, err)
	}
	if v, err := s.Subscription("s-ada"); err != nil || v.Status != entitlement.StatusCanceled {
		t.Error(v, err)
	}
	// The whole in order, and from the middle on.
	list, err := s.Journal(0, 100)
	if err != nil || len(list) != 3 || list[0].Number != 1 || list[2].Number != 3 {
		t.Error(list, err)
	}
	if list, err = s.Journal(1, 1); err != nil || len(list) != 1 || list[0].Source.ID != id {
		t.Error(list, err)
	}
	if last, err := s.LastEntry(); err != nil || last != 3 {
		t.Error(last, err)
	}
}

// TestJournalOfEachKind: whatever is held has its source and its history. That a
// customer or member is new is not told.
func TestJournalOfEachKind(t *testing.T) {
	s := testStore(t)
	f := purchase("ada", 1)
	f.Orders = []entitlement.Order{{Version: rev(1), ID: "o", CustomerID: "c-ada", ProductID: "p", Status: entitlement.OrderPaid}}
	f.Grants = []entitlement.Grant{{Version: rev(1), ID: "g", CustomerID: "c-ada", BenefitID: "b", SubscriptionID: "s-ada", Granted: true}}
	f.Refunds = []entitlement.Refund{{Version: rev(1), ID: "r", CustomerID: "c-ada", OrderID: "o", Succeeded: true}}
	f.Members = []entitlement.Member{{Version: rev(1), ID: "m", CustomerID: "c-ada", ExternalID: "bob", Role: "member"}}
	f.Seats = []entitlement.Seat{{Version: rev(1), ID: "t", SubscriptionID: "s-ada", CustomerID: "c-ada", MemberID: "m", Claimed: true, ClaimedIn: rev(1)}}
	apply(t, s, toldBy(f, "w", 1))
	objects := []Object{
		{"customer", "c-ada"}, adasSubscription, {"order", "o"}, {"grant", "g"}, {"refund", "r"}, {"member", "m"}, {"seat", "t"},
	}
	all, err := s.Told(objects, 10)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objects {
		if all[o].Source != (Source{SourceWebhook, "w"}) {
			t.Error(o, all[o])
		}
		h := all[o].History
		if o.Kind == "customer" || o.Kind == "member" {
			if len(h) > 0 {
				t.Error(o, h)
			}
		} else if len(h) != 1 || !h[0].New || h[0].Kind != o.Kind || h[0].ID != o.ID {
			t.Error(o, h)
		}
	}
}

// TestJournalOfWhoComesLater: who a customer or member is that was not held is told if
// it makes something theirs.
func TestJournalOfWhoComesLater(t *testing.T) {
	s := testStore(t)
	person := entitlement.Member{Version: rev(2), ID: "m", CustomerID: "c-ada", ExternalID: "bob", Role: "member"}
	apply(t, s, toldBy(subscriptionIs(entitlement.StatusActive, 1), "first", 1))
	apply(t, s, toldBy(&Facts{Seats: []entitlement.Seat{{
		Version: rev(1), ID: "t", SubscriptionID: "s-ada", CustomerID: "c-ada", MemberID: "m", Claimed: true, ClaimedIn: rev(1),
	}}}, "first", 1))
	apply(t, s, toldBy(&Facts{Names: []Name{{"c-ada", "ada"}}, Members: []entitlement.Member{person}}, "later", 2))
	for _, o := range []Object{{"customer", "c-ada"}, {"member", "m"}} {
		if got := s.historyOf(t, o); !reflect.DeepEqual(got, []string{"2026-05-01T12:00:02Z later/1: new "}) {
			t.Errorf("%s: %q", o, got)
		}
	}
	person.Version, person.Role = rev(3), entitlement.RoleOwner
	apply(t, s, toldBy(&Facts{Members: []entitlement.Member{person}}, "role", 3))
	if got := s.historyOf(t, Object{"member", "m"}); len(got) != 2 || got[0] != "2026-05-01T12:00:03Z role/1: role member>owner" {
		t.Errorf("%q", got)
	}
}

// TestNoJournal: without audit, and for what fills a store, nothing is told but the
// source.
func TestNoJournal(t *testing.T) {
	s := testStore(t)
	off := toldBy(subscriptionIs(entitlement.StatusActive, 1), "w", 1)
	off.Audit = 0
	apply(t, s, off)
	filling := toldBy(purchase("bob", 1), "", 1)
	filling.Source, filling.Sweep, filling.Filling = Source{Kind: SourceSync}, true, true
	apply(t, s, filling)
	for o, source := range map[Object]Source{adasSubscription: {SourceWebhook, "w"}, {"subscription", "s-bob"}: {Kind: SourceSync}} {
		all, err := s.Told([]Object{o}, 10)
		if err != nil || all[o].Source != source || len(all[o].History) != 0 {
			t.Error(o, all, err)
		}
	}
	if list, err := s.Journal(0, 10); err != nil || len(list) != 0 {
		t.Error(list, err)
	}
}

// TestJournalIsTrimmed: entries go when they are old, the oldest first, faster than new
// ones come, and not before they were read.
func TestJournalIsTrimmed(t *testing.T) {
	s := testStore(t)
	sale := func(user string, n int) *Facts { // two entries
		f := purchase(user, 1)
		f.Orders = []entitlement.Order{{Version: rev(1), ID: "o-" + user, CustomerID: "c-" + user, SubscriptionID: "s-" + user, Status: entitlement.OrderPaid}}
		return toldBy(f, "w", n)
	}
	for i := range 10 {
		apply(t, s, sale(fmt.Sprint("u", i), i))
	}
	left := func() (first uint64, n int) {
		list, err := s.Journal(0, 1000)
		if err != nil || len(list) == 0 {
			t.Fatal(list, err)
		}
		return list[0].Number, len(list)
	}
	month := int(monthOfAudit / time.Second)
	unread := sale("v", month+5)
	unread.Unread = 4
	apply(t, s, unread)
	if first, n := left(); first != 4 || n != 22-3 {
		t.Errorf("%d entries from %d", n, first)
	}
	apply(t, s, sale("w", month+5)) // 5 users are old enough: 10 entries
	if first, _ := left(); first != 10 {
		t.Errorf("they begin at %d", first)
	}
	for range 3 {
		apply(t, s, sale("w", month+5)) // says nothing new, and writes nothing
	}
	if first, _ := left(); first != 10 {
		t.Errorf("they begin at %d", first)
	}
	apply(t, s, sale("x", month+5))
	if first, _ := left(); first != 11 {
		t.Errorf("they begin at %d: some are not old yet", first)
	}
	if got := s.historyOf(t, Object{"subscription", "s-u0"}); len(got) != 0 {
		t.Errorf("%q", got)
	}
	off := sale("y", month+5)
	off.Audit = 0
	apply(t, s, off)
	if first, _ := left(); first != 15 {
		t.Errorf("they begin at %d", first)
	}
}

// TestJournalOfAWrongClock: what was written by a clock that was ahead does not keep the
// rest from going.
func TestJournalOfAWrongClock(t *testing.T) {
	s := testStore(t)
	const month = int(monthOfAudit / time.Second)
	apply(t, s, toldBy(purchase("ahead", 1), "w", 3*month))
	apply(t, s, toldBy(purchase("old", 1), "w", 1))
	apply(t, s, toldBy(purchase("new", 1), "w", month+2))
	if list, err := s.Journal(0, 100); err != nil || len(list) != 1 || list[0].ID != "s-new" {
		t.Errorf("%q %v", lines(list), err)
	}
}

// TestForgetTakesTheJournalAlong: what is told of a user's objects goes with them, and
// nothing of others.
func TestForgetTakesTheJournalAlong(t *testing.T) {
	s := testStore(t)
	for i, user := range []string{"ada", "bob", "ada", "bob"} {
		f := purchase(user, i+1)
		f.Customers[0].DeletedAt = at(i)
		f.Subscriptions[0].SeatCount = i
		f.Members = []entitlement.Member{{Version: rev(i + 1), ID: "m-" + user, CustomerID: "c-bob", ExternalID: user, Role: fmt.Sprint(i)}}
		apply(t, s, toldBy(f, "w", i+1))
	}
	told := func() map[string]int {
		list, err := s.Journal(0, 100)
		if err != nil {
			t.Fatal(err)
		}
		entries := make(map[string]int)
		for _, e := range list {
			entries[e.ID]++
		}
		return entries
	}
	all := told()
	for _, id := range []string{"c-ada", "s-ada", "m-ada", "c-bob", "s-bob", "m-bob"} {
		if all[id] == 0 {
			t.Errorf("nothing is told of %s", id)
		}
	}
	if _, err := s.Forget(t.Context(), "ada"); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"c-ada", "s-ada", "m-ada"} {
		delete(all, id)
	}
	if left := told(); !maps.Equal(left, all) {
		t.Errorf("%v is left, not %v", left, all)
	}
}

// TestRecordsWithoutOrigin: a file of an older version says of nothing where it comes
// from, and everything else as ever.
func TestRecordsWithoutOrigin(t *testing.T) {
	s := testStore(t)
	apply(t, s, purchase("ada", 1))
	err := s.engine.Transact(true, func(tx kv.Tx) (bool, error) {
		v, _, err := get(tx, bucketSubscriptions, "s-ada", subscriptionFields)
		if err != nil {
			return false, err
		}
		return true, tx.Bucket(bucketSubscriptions).Put("s-ada", encode(subscriptionFields, v))
	})
	if err != nil {
		t.Fatal(err)
	}
	all, err := s.Told([]Object{adasSubscription}, 10)
	if err != nil || all[adasSubscription].Source != (Source{}) || len(all[adasSubscription].History) != 0 {
		t.Error(all, err)
	}
	apply(t, s, toldBy(subscriptionIs(entitlement.StatusCanceled, 2), "w", 2))
	if got := s.historyOf(t, adasSubscription); len(got) != 1 {
		t.Errorf("%q", got)
	}
}

// TestSubscriptionUser: whose it is goes by all that says so.
func TestSubscriptionUser(t *testing.T) {
	s := testStore(t)
	apply(t, s, purchase("ada", 1))
	for id, want := range map[string]string{"s-ada": "ada", "none": ""} {
		if user, err := s.SubscriptionUser(id); err != nil || user != want {
			t.Error(id, user, err)
		}
	}
	apply(t, s, &Facts{Links: []Link{{Customer: "c-ada", User: "eve"}}})
	if user, err := s.SubscriptionUser("s-ada"); err != nil || user != "eve" {
		t.Error(user, err)
	}
}

func TestNotesThatBeginAlike(t *testing.T) {
	s := testStore(t)
	apply(t, s, &Facts{Notes: map[string][]byte{"a": {1}, "a/1": {2}, "a/2": {3}, "b/1": {4}}})
	for prefix, want := range map[string]map[string][]byte{
		"a/": {"a/1": {2}, "a/2": {3}}, "a": {"a/1": {2}, "a/2": {3}}, "c": {},
	} {
		if got, err := s.Notes(prefix); err != nil || !reflect.DeepEqual(got, want) {
			t.Error(prefix, got, err)
		}
	}
}

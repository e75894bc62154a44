package cache

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/caddy-polar/caddy-polar/entitlement"
)

const day = 24 * time.Hour

// expire removes what is due, d after the tests' origin.
func expire(t tester, s *Store, d time.Duration) int {
	t.Helper()
	n, err := s.Expire(testContext, testOrigin.Add(d))
	if err != nil {
		t.Fatalf("expiring: %v", err)
	}
	return n
}

// over is a subscription of user u that ended at the tests' origin.
func over(id string) *Facts {
	f := subscribed(-1, id, "c", "", "")
	f.Customers = []entitlement.Customer{{Version: rev(-9), ID: "c", ExternalID: "u"}}
	f.Subscriptions[0].Status, f.Subscriptions[0].EndedAt = entitlement.StatusCanceled, testOrigin
	return f
}

func with(f *Facts, more ...*Facts) *Facts {
	for _, m := range more {
		merge(f, m)
	}
	return f
}

// TestExpireSubscriptions: what ended long ago goes with all that hangs on it,
// unless something of it still matters.
func TestExpireSubscriptions(t *testing.T) {
	const late = 200 * 24 * 3600
	edited := func(edit func(*entitlement.Subscription)) *Facts {
		f := over("s1")
		edit(&f.Subscriptions[0])
		return f
	}
	for name, c := range map[string]struct {
		facts   *Facts
		after   time.Duration
		removed int
	}{
		"one hundred days": {over("s1"), 100 * day, 0},
		"and a moment":     {over("s1"), 100*day + time.Microsecond, 1},
		"with children": {with(over("s1"), ordered(0, "o1", "c", "s1", "", ""), returned(0, "g1", "c", "s1", ""), returned(0, "g2", "c", "s1", "o1"),
			refunded(0, "r1", "o1", ""), refunded(0, "r2", "o1", "s1"), refunded(0, "r3", "o9", "s1")), 101 * day, 7},
		"with a live grant": {with(over("s1"), granted(0, "g1", "c", "s1", "")), 999 * day, 0},
		"of nobody":         {&Facts{Subscriptions: over("s1").Subscriptions}, 101 * day, 1},
		"unpaid":            {edited(func(s *entitlement.Subscription) { s.Status = entitlement.StatusUnpaid }), 101 * day, 1},
		"not ended":         {edited(func(s *entitlement.Subscription) { s.Status = entitlement.StatusPastDue }), 999 * day, 0},
		"paused":            {edited(func(s *entitlement.Subscription) { s.Status = entitlement.StatusPaused }), 999 * day, 0},
		"no status we know": {edited(func(s *entitlement.Subscription) {
			s.Status = "frozen"
		}), 999 * day, 0},
		"without an end":             {edited(func(s *entitlement.Subscription) { s.EndedAt = time.Time{} }), 999 * day, 0},
		"ends later":                 {edited(func(s *entitlement.Subscription) { s.EndedAt = at(late) }), 101 * day, 0},
		"changed since":              {edited(func(s *entitlement.Subscription) { s.Version = rev(late) }), 101 * day, 0},
		"order changed since":        {with(over("s1"), ordered(late, "o1", "c", "s1", "", "")), 101 * day, 0},
		"grant changed since":        {with(over("s1"), granted(late, "g1", "c", "s1", "")), 101 * day, 0},
		"refund changed since":       {with(over("s1"), refunded(late, "r1", "o1", "s1")), 101 * day, 0},
		"of a one-time order":        {with(over("s1"), ordered(0, "o1", "c2", "", "", ""), granted(0, "g1", "c", "s1", "o1")), 101 * day, 0},
		"refund of another's order":  {with(over("s1"), ordered(0, "o1", "c", "s2", "", ""), refunded(0, "r1", "o1", "s1")), 101 * day, 0},
		"grant of another":           {with(over("s1"), subscribed(0, "s2", "c", "", ""), granted(0, "g1", "c", "s2", "")), 101 * day, 1},
		"of someone else's customer": {with(over("s1"), subscribed(0, "s1", "c", "v", ""), edited(func(s *entitlement.Subscription) { s.MetadataUser, s.Version = "v", rev(2) })), 101 * day, 0},
		"of nobody's customer": {&Facts{Subscriptions: edited(func(s *entitlement.Subscription) {
			s.MetadataUser, s.CustomerID = "v", "c2"
		}).Subscriptions}, 101 * day, 1},
		"order of someone else": {with(over("s1"), ordered(0, "o1", "c", "s1", "v", "")), 101 * day, 0},
	} {
		t.Run(name, func(t *testing.T) {
			s := testStore(t)
			apply(t, s, c.facts)
			users := []string{"u", "v"}
			for _, user := range users {
				_ = account(t, s, user) // memory holds what was before
			}
			before := dump(t, s)
			if n := expire(t, s, c.after); n != c.removed {
				t.Errorf("%d records were removed, want %d", n, c.removed)
			}
			if diff := differences(before, dump(t, s)); (diff != "") != (c.removed > 0) {
				t.Errorf("%d should be removed:\n%s", c.removed, diff)
			}
			consistent(t, s, users...)
			id := lastCommit(s)
			if n := expire(t, s, c.after); n != 0 || c.removed == 0 && lastCommit(s) != id {
				t.Errorf("again: %d", n)
			}
		})
	}
}

// TestExpireCheckouts: an opened checkout leaves the account after two days, and
// the store after a hundred, but for one that somebody's purchase hangs on.
func TestExpireCheckouts(t *testing.T) {
	s := testStore(t)
	open := func(id, user string, when time.Time) {
		apply(t, s, &Facts{Checkouts: []Checkout{{ID: id, User: user, OpenedAt: when}}})
	}
	open("k1", "u", testOrigin)
	open("k2", "u", testOrigin.Add(-time.Hour))
	open("k3", "", testOrigin)
	open("k4", "u", time.Time{})
	late := subscribed(1, "s1", "c", "", "k2")
	late.Subscriptions[0].PeriodEnd = at(1)
	apply(t, s, late)
	for _, step := range []struct {
		after      time.Duration
		removed    int
		checkoutAt time.Time
		held       []bool // k1 to k4
	}{
		{47*time.Hour + 30*time.Minute, 0, testOrigin, []bool{true, true, true, true}}, // k2 is no longer listed
		{48 * time.Hour, 0, testOrigin, []bool{true, true, true, true}},
		{48*time.Hour + time.Microsecond, 0, time.Time{}, []bool{true, true, true, true}},
		{100 * day, 0, time.Time{}, []bool{true, true, true, true}},
		{101 * day, 2, time.Time{}, []bool{false, true, false, true}},
	} {
		if n := expire(t, s, step.after); n != step.removed {
			t.Errorf("after %s %d were removed, want %d", step.after, n, step.removed)
		}
		if got := account(t, s, "u").CheckoutAt; !got.Equal(step.checkoutAt) {
			t.Errorf("after %s the last checkout is of %s, want %s", step.after, got, step.checkoutAt)
		}
		for i, want := range step.held {
			if c := must(s.Checkout(fmt.Sprintf("k%d", i+1))); (c.ID != "") != want {
				t.Errorf("after %s: %+v", step.after, c)
			}
		}
		consistentSince(t, s, testOrigin.Add(step.after-keepOpened), "u")
		// Polar's late word of a checkout does not bring it back.
		if step.after < 100*day {
			apply(t, s, &Facts{Checkouts: []Checkout{{ID: "k1", CustomerID: fmt.Sprint(step.after)}, {ID: "k1", User: "u", OpenedAt: testOrigin}}})
			consistentSince(t, s, testOrigin.Add(step.after-keepOpened), "u")
		}
	}
	// The purchase is still its opener's, whatever Polar tells of it.
	late.Subscriptions[0].Version = rev(9)
	apply(t, s, late)
	if got := holds(account(t, s, "u")); got != "c s1" {
		t.Errorf("the opener holds %q", got)
	}
}

// TestExpireInBatches: no transaction removes more than a few, but for what
// belongs together, and none much less.
func TestExpireInBatches(t *testing.T) {
	s := testStore(t)
	const n = 400
	var f Facts
	for i := range n {
		id := fmt.Sprintf("s%d", i)
		merge(&f, over(id))
		merge(&f, returned(0, "g"+id, "c", id, ""))
		merge(&f, returned(0, "h"+id, "c", id, ""))
	}
	for i := range n { // one that is too much by itself
		merge(&f, ordered(0, fmt.Sprintf("o%d", i), "c", "s0", "", ""))
		merge(&f, returned(0, fmt.Sprintf("i%d", i), "c", "s0", ""))
	}
	for i := range 2*chunk + 1 {
		f.Checkouts = append(f.Checkouts, Checkout{ID: fmt.Sprint(i), User: fmt.Sprint(i), OpenedAt: at(0)})
	}
	apply(t, s, &f)
	id, total := lastCommit(s), len(dump(t, s))
	if got, want := expire(t, s, 101*day), n*3+2*n+2*chunk+1; got != want {
		t.Errorf("%d were removed, want %d", got, want)
	}
	commits := int(lastCommit(s) - id)
	if least := 1 + (3*n+2*chunk)/dropAtOnce; commits < least || commits > least*5/4 {
		t.Errorf("%d commits for %d entries", commits, total)
	}
	consistent(t, s, "u")
}

// TestExpireLaw: whatever has happened, only what is over is removed, and a
// sweep of all that Polar has makes everything right.
func TestExpireLaw(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		s := fastStore(t, dir)
		defer s.Close()
		deliver(t, s, w.own)
		deliver(t, s, rapid.Permutation(append(twice(t, w.said), w.linksSaid()...)).Draw(t, "order"))
		deliver(t, s, w.proofs())
		before := readMirror(t, s)
		for _, user := range lawUsers {
			_ = account(t, s, user)
		}
		now := testOrigin.Add(time.Duration(rapid.SampledFrom([]int{0, 1, 3, 100, 101, 130, 131, 400}).Draw(t, "days")) * day)
		removed := must(s.Expire(testContext, now))
		after := readMirror(t, s)
		gone := len(before.customers) - len(after.customers) + len(before.subscriptions) - len(after.subscriptions) +
			len(before.orders) - len(after.orders) + len(before.grants) - len(after.grants) +
			len(before.refunds) - len(after.refunds) + len(before.seats) - len(after.seats) + len(before.opened) - len(after.opened)
		if gone != removed {
			t.Errorf("%d are gone, %d were told", gone, removed)
		}
		stays := func(subscription string) bool {
			s, held := before.subscriptions[subscription]
			return !held || !s.Status.Ended() || !s.End().Add(100*day).Before(now)
		}
		for id := range before.subscriptions {
			if _, held := after.subscriptions[id]; !held && stays(id) {
				t.Errorf("subscription %s is gone", id)
			}
		}
		for id, o := range before.orders {
			if _, held := after.orders[id]; !held && stays(o.SubscriptionID) {
				t.Errorf("order %s is gone", id)
			}
		}
		for id, g := range before.grants {
			if _, held := after.grants[id]; !held && stays(g.SubscriptionID) {
				t.Errorf("grant %s is gone", id)
			}
		}
		for id, r := range before.refunds {
			if _, held := after.refunds[id]; !held && stays(before.subscriptionOf(r)) {
				t.Errorf("refund %s is gone", id)
			}
		}
		for id, seat := range before.seats {
			if _, held := after.seats[id]; !held && stays(seat.SubscriptionID) {
				t.Errorf("seat %s is gone", id)
			}
		}
		if len(after.customers) != len(before.customers) || len(after.members) != len(before.members) || len(after.links) != len(before.links) ||
			len(after.emails) != len(before.emails) || len(after.emailLinks) != len(before.emailLinks) {
			t.Error("customers or links are gone")
		}
		since := now.Add(-48 * time.Hour)
		consistentSince(t, s, since, lawUsers...)

		deliver(t, s, rapid.Permutation(append(w.sweep(), w.claims()...)).Draw(t, "sweep"))
		deliver(t, s, w.proofs())
		w.truth.since = since
		for _, user := range lawUsers {
			if got, want := viewWithoutAsOf(account(t, s, user)), viewWithoutAsOf(w.truth.account(user)); got != want {
				t.Errorf("after a sweep:\n%s\nthe truth:\n%s", got, want)
			}
		}
	})
}

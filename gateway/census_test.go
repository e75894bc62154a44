package gateway

import (
	"sync/atomic"
	"testing"
	"time"
)

func TestCensus(t *testing.T) {
	b := newBench(t)
	b.take(sample(t, "subscription.active.json"))
	b.take(edited(t, "subscription.active.json", "data.status", "past_due", "data.id", "s2", "data.customer_id", "c2", "data.customer.id", "c2",
		"data.customer.external_id", "grace"))
	if _, err := b.g.GivePass(t.Context(), "bob", "team", time.Time{}, ""); err != nil {
		t.Fatal(err)
	}
	defer b.g.Close()
	is := func(want map[string]int) {
		t.Helper()
		b.g.Census()
		b.g.census.wait() // however slow the machine is
		users := b.g.Census()
		for _, status := range Statuses {
			if n, ok := users[status]; !ok || n != want[status] {
				t.Errorf("%d are %s, want %d: %v", n, status, want[status], users)
			}
		}
	}
	is(map[string]int{"active": 1, "past_due": 1, "pass": 1})
	b.take(edited(t, "subscription.active.json", "data.id", "s3", "data.customer_id", "c3", "data.customer.id", "c3",
		"data.customer.external_id", "lin", "data.status", "dreaming"))
	is(map[string]int{"active": 1, "past_due": 1, "pass": 1, StatusOther: 1})
	b.g.Close()
	b.take(edited(t, "subscription.active.json", "data.id", "s4", "data.customer.external_id", "joan"))
	is(map[string]int{"active": 1, "past_due": 1, "pass": 1, StatusOther: 1}) // nobody counts any more
}

// TestCensusTakesItsTime: who asks often has nobody counted anew.
func TestCensusTakesItsTime(t *testing.T) {
	b := newBench(t)
	defer b.g.Close()
	b.take(sample(t, "subscription.active.json"))
	var looks atomic.Int64
	b.g.local = func() time.Time { // each look at the clock takes a second
		return b.now.Add(time.Duration(looks.Add(1)) * time.Second)
	}
	count := func() map[string]int {
		b.g.Census()
		b.g.census.wait() // however slow the machine is
		return b.g.Census()
	}
	if first := count(); first["active"] != 1 {
		t.Fatal(first)
	}
	if _, err := b.g.GivePass(t.Context(), "bob", "team", time.Time{}, ""); err != nil {
		t.Fatal(err)
	}
	if again := count(); again["pass"] != 0 {
		t.Errorf("counted again at once: %v", again)
	}
	looks.Add(10 * censusShare)
	if later := count(); later["pass"] != 1 {
		t.Errorf("not counted again: %v", later)
	}
}

package cache

import (
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/caddy-polar/caddy-polar/entitlement"
)

// uses counts what is told of a store.
type uses struct {
	mu             sync.Mutex
	number, failed map[Op]int
}

func (u *uses) told(op Op, took time.Duration, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if took < 0 {
		panic("it ended before it began")
	}
	u.number[op]++
	if err != nil {
		u.failed[op]++
	}
}

func TestObserve(t *testing.T) {
	s := New(t.TempDir() + "/polar.db")
	defer s.Close()
	u := &uses{number: make(map[Op]int), failed: make(map[Op]int)}
	s.Observe(u.told)
	if _, err := s.Account("ada"); !errors.Is(err, errUnclaimed) {
		t.Fatal(err)
	}
	if _, err := s.Claim(testOwner); err != nil {
		t.Fatal(err)
	}
	apply(t, s, purchase("ada", 1))
	apply(t, s, purchase("ada", 1)) // known: nothing is written
	account(t, s, "ada")
	account(t, s, "ada") // from memory
	if err := s.Backup(io.Discard); err != nil {
		t.Fatal(err)
	}
	if err := s.Backup(writerFunc(func([]byte) (int, error) { return 0, io.ErrShortWrite })); err == nil {
		t.Error("a backup that failed did not")
	}
	must(s.Stats())
	must(s.Stats()) // counted a moment ago
	want := map[Op]int{OpOpen: 1, OpRead: 4, OpCommit: 1, OpCount: 1, OpBackup: 2, OpFollow: 0}
	failed := map[Op]int{OpRead: 1, OpBackup: 1}
	for _, op := range Ops {
		if u.number[op] != want[op] || u.failed[op] != failed[op] {
			t.Errorf("%s: %d, of which %d failed, want %d and %d", op, u.number[op], u.failed[op], want[op], failed[op])
		}
	}
	if len(Ops) != len(want) {
		t.Error("an operation was not tried")
	}
}

func TestEachAccount(t *testing.T) {
	s := testStore(t)
	crowd(t, s, 2*chunk+1)
	seen := make(map[string]bool)
	before := s.memory.accounts.EstimatedSize()
	if err := s.EachAccount(t.Context(), "", func(a *entitlement.Account) error {
		if seen[a.User] || len(a.Subscriptions) != 1 {
			t.Errorf("%s: again, or with %d subscriptions", a.User, len(a.Subscriptions))
		}
		seen[a.User] = true
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if len(seen) != 2*chunk+1 || s.memory.accounts.EstimatedSize() != before {
		t.Errorf("%d accounts, and %d in memory, which were %d", len(seen), s.memory.accounts.EstimatedSize(), before)
	}
	enough := errors.New("enough")
	if err := s.EachAccount(t.Context(), "", func(*entitlement.Account) error { return enough }); !errors.Is(err, enough) {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.EachAccount(ctx, "", func(*entitlement.Account) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

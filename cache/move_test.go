package cache

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-polar/caddy-polar/cache/kv"
	"github.com/caddy-polar/caddy-polar/entitlement"
)

// unclaimedStore is a place where there is no store yet.
func unclaimedStore(t *testing.T) *Store {
	t.Helper()
	s := New(filepath.Join(t.TempDir(), "other.db"))
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// moved is the content of a store but for what is about its place.
func moved(t *testing.T, s *Store) map[string]string {
	t.Helper()
	all := dump(t, s)
	maps.DeleteFunc(all, func(key, _ string) bool {
		for _, own := range ours {
			if strings.HasPrefix(key, fmt.Sprintf("meta/%q", own)) {
				return true
			}
		}
		return false
	})
	return all
}

// TestMove: while it is written to, a store moves with all that it has; what is
// acknowledged is in the other one, and what comes later is not acknowledged.
func TestMove(t *testing.T) {
	s, to := testStore(t), unclaimedStore(t)
	filling := new(Facts)
	for i := range 3 * moveAtOnce {
		merge(filling, purchase(fmt.Sprint("u", i), 1))
	}
	apply(t, s, filling)
	apply(t, s, &Facts{
		Passes: []entitlement.Pass{{ID: "p1", User: "ada", Plan: "pro"}}, Links: []Link{{Customer: "c-u1", User: "bob"}},
		Notes: map[string][]byte{"x": []byte("y")},
	})
	apply(t, s, toldBy(subscriptionIs(entitlement.StatusActive, 1), "w", 1))
	apply(t, s, toldBy(subscriptionIs(entitlement.StatusCanceled, 2), "w", 2)) // the journal has it

	var mu sync.Mutex
	acknowledged := make(map[string]bool)
	var writers sync.WaitGroup
	for w := range 4 {
		writers.Go(func() {
			for i := 0; ; i++ {
				user := fmt.Sprintf("w%d_%d", w, i)
				if _, err := s.Apply(t.Context(), purchase(user, 1)); err != nil {
					if !errors.Is(err, ErrSealed) {
						t.Error(err)
					}
					return
				}
				mu.Lock()
				acknowledged[user] = true
				mu.Unlock()
			}
		})
	}
	m, err := s.MoveTo(t.Context(), to, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	writers.Wait()
	if diff := differences(moved(t, s), moved(t, to)); diff != "" {
		t.Fatal(diff)
	}
	keys, err := to.Claim(testOwner)
	if err != nil {
		t.Fatal(err)
	}
	if mine := must(s.Claim(testOwner)); string(keys.Random) != string(mine.Random) {
		t.Error("marks of before would not be believed")
	}
	if len(acknowledged) == 0 {
		t.Error("nothing was written meanwhile")
	}
	for user := range acknowledged {
		if a := account(t, to, user); !a.Known() {
			t.Fatalf("%s is lost", user)
		}
	}
	if n := len(acknowledged) + 3*moveAtOnce; m.Objects["customers"] < n {
		t.Errorf("%d customers, of %d", m.Objects["customers"], n)
	}
	if last, now := must(s.LastEntry()), must(to.LastEntry()); last != now || last == 0 {
		t.Errorf("the journal's last entry is %d, was %d", now, last)
	}
	apply(t, to, purchase("late", 1))
	if a := account(t, s, "ada"); !a.Known() {
		t.Error("the old one does not answer any more")
	}
}

// TestMoveAgain: an earlier copy is brought up to date, whatever is in it.
func TestMoveAgain(t *testing.T) {
	s, to := testStore(t), unclaimedStore(t)
	apply(t, s, purchase("ada", 1))
	move := func() {
		t.Helper()
		if _, err := s.MoveTo(t.Context(), to, -time.Second); err != nil { // it is over at once
			t.Fatal(err)
		}
		if diff := differences(moved(t, s), moved(t, to)); diff != "" {
			t.Fatal(diff)
		}
	}
	move()
	apply(t, s, purchase("bob", 1))
	must(s.Forget(t.Context(), "ada"))
	if _, err := to.Claim(testOwner); err != nil {
		t.Fatal(err)
	}
	for i := range 3 * moveAtOnce {
		if i%1000 == 0 {
			apply(t, to, purchase(fmt.Sprint("x", i), 1))
		}
	}
	many := new(Facts)
	for i := range 3 * moveAtOnce {
		merge(many, purchase(fmt.Sprint("y", i), 1))
	}
	apply(t, to, many)
	move()
}

// TestMoveRefused: to where another store is, or nothing can be written, and then all
// goes on as before.
func TestMoveRefused(t *testing.T) {
	s, other := testStore(t), unclaimedStore(t)
	apply(t, s, purchase("ada", 1))
	if _, err := other.Claim(testOwner); err != nil {
		t.Fatal(err)
	}
	before := dump(t, other)
	if _, err := s.MoveTo(t.Context(), other, time.Hour); !errors.Is(err, ErrOccupied) || !strings.Contains(err.Error(), other.Path()) {
		t.Error(err)
	}
	if diff := differences(before, dump(t, other)); diff != "" {
		t.Error(diff)
	}
	nowhere := New(t.TempDir()) // a directory
	defer nowhere.Close()
	if _, err := s.MoveTo(t.Context(), nowhere, time.Hour); err == nil {
		t.Error("it was moved to nowhere")
	}
	for _, after := range []int{12, 50} { // before and after it is sealed
		failing := NewStore(&failsLater{Engine: newFile(filepath.Join(t.TempDir(), "x.db")), after: after})
		if _, err := s.MoveTo(t.Context(), failing, time.Hour); !errors.Is(err, errLater) {
			t.Error(err)
		}
		if err := failing.Close(); err != nil {
			t.Error(err)
		}
	}
	apply(t, s, purchase("bob", 1))
}

var errLater = errors.New("later")

// failsLater is an engine that takes some commits and no more.
type failsLater struct {
	kv.Engine
	after int
}

func (e *failsLater) Transact(write bool, body func(kv.Tx) (bool, error)) error {
	if write {
		if e.after--; e.after < 0 {
			return errLater
		}
	}
	return e.Engine.Transact(write, body)
}

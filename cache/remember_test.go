package cache

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/caddy-polar/caddy-polar/entitlement"
)

// noted is the note about a user, "" if there is none.
func noted(s *Store, user string) string {
	note, r, ok := s.Recall([]byte("dst:"), user)
	if string(note[:4]) != "dst:" || ok && !r.Holds() || !ok && len(note) > 4 {
		return fmt.Sprintf("malformed: %q %v", note, ok)
	}
	return string(note[4:])
}

// A note lasts until something is written about its user, and no other user has it.
func TestAccountNotes(t *testing.T) {
	s := testStore(t)
	for name, write := range map[string]func(){
		"a fact":            func() { apply(t, s, purchase("u", 2)) },
		"a link to another": func() { apply(t, s, linked("c-u", "v")) },
		"nothing is sure":   func() { s.memory.forget(lastCommit(s)) },
		"another bound":     func() { s.SetMemory(200) },
	} {
		s = testStore(t)
		apply(t, s, purchase("u", 1))
		r := s.Revision("u")
		s.Remember("u", r, []byte("note"))
		if got := noted(s, "u"); got != "note" || !r.Holds() {
			t.Fatalf("%s: %q", name, got)
		}
		for _, other := range []string{"", "v", "u ", "U", "uu"} {
			if got := noted(s, other); got != "" {
				t.Errorf("%q has the note %q", other, got)
			}
		}
		apply(t, s, purchase("u", 1)) // known already
		s.SetMemory(DefaultMemory)    // as it was
		if noted(s, "u") != "note" {
			t.Errorf("%s: the note is gone before it", name)
		}
		write()
		if got := noted(s, "u"); got != "" {
			t.Errorf("%s: the note is still %q", name, got)
		}
		// What was read before it is not remembered after it.
		if name != "another bound" {
			s.Remember("u", r, []byte("late"))
			if got := noted(s, "u"); got != "" || r.Holds() {
				t.Errorf("%s: %q came late", name, got)
			}
		}
	}
	_ = s.Close()
	s.Remember("u", s.Revision("u"), []byte("late"))
	if got := noted(s, "u"); got != "" {
		t.Errorf("after the end: %q", got)
	}
	if (Revision{}).Holds() {
		t.Error("no revision holds")
	}
}

// When a change is acknowledged, nothing that was remembered from before it holds.
func TestAccountNotesUnderRace(t *testing.T) {
	s := testStore(t)
	var acknowledged atomic.Int64
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				least := acknowledged.Load()
				note, _, ok := s.Recall(nil, "u")
				if ok {
					var n int64
					if _, err := fmt.Sscan(string(note), &n); err != nil || n < least {
						t.Errorf("the note is of %s, acknowledged is %d", note, least)
						return
					}
					continue
				}
				r := s.Revision("u")
				a, err := s.Account("u")
				if err != nil {
					t.Error(err)
					return
				}
				n := 0
				for v := row(a); v != (entitlement.Version{}) && v != rev(n); n++ {
				}
				s.Remember("u", r, fmt.Append(nil, n))
			}
		})
	}
	for n := 1; n <= 200; n++ {
		apply(t, s, purchase("u", n))
		acknowledged.Store(int64(n))
	}
	close(stop)
	readers.Wait()
}

// The memory for notes is bounded, whatever comes.
func TestAccountNotesAreBounded(t *testing.T) {
	s := testStore(t)
	s.SetMemory(1000)
	note := make([]byte, 4<<10)
	for i := range 50_000 {
		user := fmt.Sprint("u", i)
		s.Remember(user, s.Revision(user), note)
	}
	if n := s.memory.notes.count(); n == 0 || n > 2*(32<<20)/len(note) {
		t.Errorf("%d notes of 4 kB are in the index of 32 MiB", n)
	}
	if noted(s, "u49999") == "" {
		t.Error("the last note is gone")
	}
}

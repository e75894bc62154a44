package cache

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/caddy-polar/caddy-polar/cache/kv"
	"github.com/caddy-polar/caddy-polar/entitlement"
)

// smallStore holds only a few accounts in memory.
func smallStore(t *testing.T, limit int) *Store {
	t.Helper()
	s := New(filepath.Join(t.TempDir(), "polar.db"))
	s.memory.close()
	s.memory = newMemory(limit)
	t.Cleanup(func() { _ = s.Close() })
	if _, err := s.Claim(testOwner); err != nil {
		t.Fatal(err)
	}
	s.file().db.Load().NoSync = true
	return s
}

// readAt reads an account as of now, the way Account does, and stops before
// memory has it.
func readAt(t *testing.T, s *Store, user string) (*entitlement.Account, uint64) {
	t.Helper()
	var a *entitlement.Account
	var seq uint64
	if err := s.view(func(tx kv.Tx) (err error) {
		seq = tx.Sequence()
		a, err = gather(tx, user)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return a, seq
}

func row(a *entitlement.Account) entitlement.Version {
	if len(a.Subscriptions) == 0 {
		return entitlement.Version{}
	}
	return a.Subscriptions[0].Version
}

// TestSlowReader: who read at commit n and installs after commit n+1 must not
// win.
func TestSlowReader(t *testing.T) {
	for name, c := range map[string]struct {
		before  func(s *Store) // what memory knows when the reader reads
		between func(s *Store) // what happens between commit n+1 and the install
	}{
		"nothing held":        {func(*Store) {}, func(*Store) {}},
		"held":                {func(s *Store) { _ = must(s.Account("u")) }, func(*Store) {}},
		"evicted in between":  {func(*Store) {}, func(s *Store) { s.memory.accounts.Invalidate("u") }},
		"all evicted":         {func(s *Store) { _ = must(s.Account("u")) }, func(s *Store) { s.memory.accounts.InvalidateAll() }},
		"read in between":     {func(*Store) {}, func(s *Store) { s.memory.accounts.Invalidate("u"); _ = must(s.Account("u")) }},
		"forgotten":           {func(*Store) {}, func(s *Store) { s.memory.forget(lastCommit(s)) }},
		"others were written": {func(*Store) {}, func(s *Store) { s.memory.accounts.Invalidate("u"); writeOthers(s) }},
	} {
		for _, sweep := range []bool{false, true} {
			s := testStore(t)
			apply(t, s, purchase("u", 1))
			s.memory.accounts.InvalidateAll()
			c.before(s)
			old, seq := readAt(t, s, "u")
			newer := purchase("u", 2)
			newer.Sweep = sweep
			apply(t, s, newer)
			c.between(s)
			s.memory.install("u", old, seq)
			if held, ok := s.memory.get("u"); ok && row(held) != rev(2) {
				t.Errorf("%s, sweep %v: memory has gone back to %+v", name, sweep, row(held))
			}
			if got := row(account(t, s, "u")); got != rev(2) {
				t.Errorf("%s, sweep %v: the account is of %+v", name, sweep, got)
			}
			sameAsStore(t, s, "u")
		}
	}
}

// TestCommitFillsNoMemory: only those who are here are brought up to date; the
// others are read when they come.
func TestCommitFillsNoMemory(t *testing.T) {
	for _, sweep := range []bool{false, true} {
		s := testStore(t)
		at := func(n int) *Facts {
			f := purchase("u", n)
			f.Sweep = sweep
			return f
		}
		apply(t, s, at(1))
		if _, ok := s.memory.get("u"); ok {
			t.Errorf("sweep %v: somebody who is not here is in memory", sweep)
		}
		_ = account(t, s, "u")
		apply(t, s, at(2))
		if held, ok := s.memory.get("u"); !ok || row(held) != rev(2) {
			t.Errorf("sweep %v: somebody who is here is not up to date", sweep)
		}
		// Read before the commit, installed before memory is told of it.
		s.memory.accounts.InvalidateAll()
		old, seq := readAt(t, s, "u")
		w, err := s.write([]*change{{facts: at(3)}})
		if err != nil {
			t.Fatal(err)
		}
		s.memory.install("u", old, seq)
		s.memory.replace(w.accounts, w.cursor.Commit)
		if got := row(account(t, s, "u")); got != rev(3) {
			t.Errorf("sweep %v: the account is of %+v", sweep, got)
		}
	}
}

func lastCommit(s *Store) (seq uint64) {
	_ = s.view(func(tx kv.Tx) error { seq = tx.Sequence(); return nil })
	return seq
}

func writeOthers(s *Store) {
	s.commit([]*change{{facts: purchase("v", 1)}, {facts: purchase("w", 1)}})
}

// TestReaderInstalls: a reader that nobody has overtaken is remembered, also
// if it is behind commits that do not concern it.
func TestReaderInstalls(t *testing.T) {
	s := testStore(t)
	apply(t, s, purchase("u", 1))
	s.memory.accounts.InvalidateAll()
	a, seq := readAt(t, s, "u")
	// Not in u's group, whichever the seed has made that.
	other := ""
	for i := 0; other == "" || s.memory.group(other) == s.memory.group("u"); i++ {
		other = fmt.Sprint(i)
	}
	apply(t, s, purchase(other, 1))
	s.memory.install("u", a, seq)
	if held, ok := s.memory.get("u"); !ok || held != a {
		t.Error("the reader's account is not held")
	}
	// A later reader does not take its place unless it saw a later commit.
	again, _ := readAt(t, s, "u")
	s.memory.install("u", again, seq)
	if held, _ := s.memory.get("u"); held != a {
		t.Error("an equal reading took the place of the one held")
	}
	if account(t, s, "u") != a {
		t.Error("a held account was read again")
	}
}

// TestForget: after a failed commit nothing from before it comes back; what is
// read after the next one is remembered.
func TestForget(t *testing.T) {
	s := testStore(t)
	apply(t, s, purchase("u", 1))
	old, seq := readAt(t, s, "u")
	s.memory.forget(seq + 1) // commit seq+1 failed, but may be on the disk
	if _, ok := s.memory.get("u"); ok {
		t.Error("memory was not forgotten")
	}
	s.memory.install("u", old, seq)
	if _, ok := s.memory.get("u"); ok {
		t.Error("a reading from before the failed commit was installed")
	}
	apply(t, s, purchase("u", 2)) // is commit seq+1 now
	_ = account(t, s, "u")
	if held, ok := s.memory.get("u"); !ok || row(held) != rev(2) {
		t.Error("what was read after the next commit is not held")
	}
}

// TestMemoryIsBounded: what was evicted is read again.
func TestMemoryIsBounded(t *testing.T) {
	s := smallStore(t, 8)
	for i := range 200 {
		apply(t, s, purchase(fmt.Sprint(i), 1))
	}
	s.memory.accounts.CleanUp()
	if n := s.memory.accounts.EstimatedSize(); n > 8 {
		t.Errorf("%d accounts are held, want 8 at most", n)
	}
	for i := range 200 {
		if row(account(t, s, fmt.Sprint(i))) != rev(1) {
			t.Errorf("user %d is gone", i)
		}
	}
}

// TestMemoryUnderRace: writers, readers and evictions at once. What was
// acknowledged is seen by everyone from then on, and whenever nobody writes a
// user's facts, memory is what the file has.
func TestMemoryUnderRace(t *testing.T) {
	const users, writers, readers, each = 24, 8, 8, 150
	s := smallStore(t, 6)
	var (
		writing      [users]sync.Mutex // a user's facts are being written
		acknowledged [users]atomic.Int64
		clock        atomic.Int64
		wg, reading  sync.WaitGroup
		stop         = make(chan struct{})
	)
	name := func(i int) string { return fmt.Sprintf("u%d", i) }
	seen := func(user int) int64 {
		a := account(t, s, name(user))
		newest := int64(0)
		for _, p := range a.Subscriptions {
			if n := int64(p.Version.Row.Sub(testOrigin).Seconds()); p.ID == "s-"+name(user) {
				newest = max(newest, n)
			}
		}
		return newest
	}
	for w := range writers {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(w)))
			for n := range each {
				pair := []int{random.IntN(users), random.IntN(users)}
				slices.Sort(pair)
				pair = slices.Compact(pair)
				for _, u := range pair {
					writing[u].Lock()
				}
				told := clock.Add(1)
				var f Facts
				for _, u := range pair {
					merge(&f, purchase(name(u), int(told)))
				}
				if n%3 == 0 { // a customer that goes to and fro between users
					first := name(pair[0])
					f.Orders = []entitlement.Order{{
						Version: rev(int(told)), ID: "o-" + first, CustomerID: "c-" + first, MetadataUser: name(pair[len(pair)-1]),
					}}
				}
				f.Sweep = n%5 == 0
				if _, err := s.Apply(t.Context(), &f); err != nil {
					t.Errorf("applying: %v", err)
				}
				for _, u := range pair {
					acknowledged[u].Store(told)
				}
				other := make(chan struct{})
				go func() { // someone else reads what was just written
					defer close(other)
					for _, u := range pair {
						if got := seen(u); got != told {
							t.Errorf("%s is of %d, %d was acknowledged", name(u), got, told)
						}
					}
				}()
				<-other
				if n%3 == 0 || random.IntN(4) == 0 {
					// The order's earlier user may be written by someone else:
					// look only at what concerns this pair's subscriptions.
					for _, u := range pair {
						if mem, file := account(t, s, name(u)).Subscriptions, stored(t, s, name(u)).Subscriptions; !slices.Equal(mem, file) {
							t.Errorf("%s in memory %+v, in the file %+v", name(u), mem, file)
						}
					}
				}
				for _, u := range slices.Backward(pair) {
					writing[u].Unlock()
				}
			}
		})
	}
	for r := range readers {
		reading.Go(func() {
			random := rand.New(rand.NewPCG(2, uint64(r)))
			for {
				select {
				case <-stop:
					return
				default:
				}
				u := random.IntN(users)
				floor := acknowledged[u].Load()
				if got := seen(u); got < floor {
					t.Errorf("%s is of %d, %d was acknowledged before", name(u), got, floor)
				}
			}
		})
	}
	// At times nobody writes at all: then every account must be right.
	for range 20 {
		for u := range writing {
			writing[u].Lock()
		}
		for u := range users {
			sameAsStore(t, s, name(u))
		}
		for u := range writing {
			writing[u].Unlock()
		}
	}
	wg.Wait()
	close(stop)
	reading.Wait()
	for u := range users {
		consistent(t, s, name(u))
	}
}

// TestOneWriterManyReadersOfOneUser is the narrowest race: one account, that is
// thrown out of memory all the time.
func TestOneWriterManyReadersOfOneUser(t *testing.T) {
	s := testStore(t)
	apply(t, s, purchase("u", 0))
	var acknowledged atomic.Int64
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				floor := acknowledged.Load()
				if got := row(account(t, s, "u")); got.Row.Before(at(int(floor))) {
					t.Errorf("row %s, %s was acknowledged", got.Row, at(int(floor)))
				}
				s.memory.accounts.Invalidate("u")
			}
		})
	}
	for n := 1; n <= 500; n++ {
		apply(t, s, purchase("u", n))
		acknowledged.Store(int64(n))
	}
	close(stop)
	wg.Wait()
	consistent(t, s, "u")
}

// What is held can be bounded anew while the store is in use, and counts at once.
func TestSetMemory(t *testing.T) {
	s := testStore(t)
	crowd(t, s, 300)
	held := func() int {
		for i := range 300 {
			_ = account(t, s, fmt.Sprintf("u%d", i))
		}
		s.memory.accounts.CleanUp()
		return s.memory.accounts.EstimatedSize()
	}
	if n := held(); n < 300 {
		t.Errorf("%d are held by default", n)
	}
	s.SetMemory(100)
	if n := held(); n > 100 || n == 0 {
		t.Errorf("%d are held of 100 at most", n)
	}
	s.SetMemory(DefaultMemory)
	if n := held(); n < 300 {
		t.Errorf("%d are held once there is room again", n)
	}
}

package session

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2"

	"github.com/caddy-polar/caddy-polar/identity"
)

const (
	// Both memories are bounded, in bytes. A flood of random cookies fills the second
	// only, and can push nobody out of the first.
	maxKnown  = 48 << 20
	maxNobody = 4 << 20
	// entryOverhead is about what an entry costs beside its strings, knownOverhead with
	// a note.
	entryOverhead, knownOverhead = 408, 1064
)

// memory remembers what the app has answered. It never holds a cookie. It belongs to
// one Asker; a reload starts afresh.
type memory struct {
	known  *otter.Cache[digest, *known]
	nobody *otter.Cache[digest, nobody]
}

// known is that somebody is signed in.
type known struct {
	identity identity.Identity
	asked    time.Time
	next     atomic.Int64 // when the app may be asked again in the background
}

// nobody is that nobody is, or nobody who can be named, or that there was no answer.
type nobody struct {
	err   error
	asked time.Time
	fresh time.Duration // for how long after that it counts
}

// answer is what a question led to: somebody, or an error.
type answer struct {
	identity identity.Identity
	err      error
	asked    time.Time
	took     time.Duration
}

func newMemory(maxKnown, maxNobody uint64) (*memory, error) {
	// No expiry here: otter's would follow the wall clock, ours follows the given now.
	k, err := otter.New(&otter.Options[digest, *known]{
		MaximumWeight: maxKnown,
		Weigher: func(_ digest, k *known) uint32 {
			return uint32(knownOverhead + len(k.identity.User) + len(k.identity.Customer) + len(k.identity.Email))
		},
	})
	if err != nil {
		return nil, fmt.Errorf("make the memory of sessions: %w", err)
	}
	n, err := otter.New(&otter.Options[digest, nobody]{
		MaximumWeight: maxNobody,
		Weigher:       func(digest, nobody) uint32 { return entryOverhead },
	})
	if err != nil {
		k.StopAllGoroutines()
		return nil, fmt.Errorf("make the memory of strangers: %w", err)
	}
	return &memory{k, n}, nil
}

// recall returns what is known, however old, or nil.
func (m *memory) recall(key digest) *known {
	k, _ := m.known.GetIfPresent(key)
	return k
}

// refusal returns why nobody was known, while that can be believed. Whoever would
// refuse because of it believes nothing from before the request.
func (m *memory) refusal(key digest, r *Request) error {
	n, ok := m.nobody.GetIfPresent(key)
	if !ok {
		return nil
	}
	age := r.Now.Sub(n.asked)
	if age >= n.fresh || age <= -n.fresh || r.Sure && age > 0 {
		return nil
	}
	if age != 0 && errors.Is(n.err, identity.ErrUnavailable) {
		return ErrEarlier
	}
	return n.err
}

// remember keeps an answer. Where somebody is known, that there was none changes
// nothing, and neither does 403: the last one goes on counting inside its bound.
func (m *memory) remember(key digest, a answer, cache time.Duration) {
	fresh := nobodyCache
	switch {
	case a.err == nil:
		k := &known{identity: a.identity, asked: a.asked}
		k.identity.Note = new(identity.Note)
		k.next.Store(a.asked.Add(cache).UnixNano())
		m.known.Set(key, k)
		m.nobody.Invalidate(key)
		return
	case errors.Is(a.err, identity.ErrUnavailable):
		// It counts from its end: what took long is what must not be waited for again.
		fresh = a.took + failedCache
	case !errors.Is(a.err, errForbidden):
		m.known.Invalidate(key)
	}
	m.nobody.Set(key, nobody{a.err, a.asked, fresh})
}

// claim reports whether it is the caller's turn to ask in the background. It is not
// anybody's again before pause is over.
func (k *known) claim(now time.Time, pause time.Duration) bool {
	next := k.next.Load()
	return now.UnixNano() >= next && k.next.CompareAndSwap(next, now.Add(pause).UnixNano())
}

func (m *memory) close() {
	m.known.InvalidateAll()
	m.known.StopAllGoroutines()
	m.nobody.InvalidateAll()
	m.nobody.StopAllGoroutines()
}

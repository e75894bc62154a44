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
	maxKnown  = 16 << 20
	maxNobody = 4 << 20
	// entryOverhead is about what an entry costs beside its strings.
	entryOverhead = 384
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

// nobody is that nobody is, or nobody who can be named.
type nobody struct {
	err   error
	asked time.Time
}

func newMemory(maxKnown, maxNobody uint64) (*memory, error) {
	// No expiry here: otter's would follow the wall clock, ours follows the given now.
	k, err := otter.New(&otter.Options[digest, *known]{
		MaximumWeight: maxKnown,
		Weigher: func(_ digest, k *known) uint32 {
			return uint32(entryOverhead + len(k.identity.User) + len(k.identity.Email))
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

// refusal returns why nobody was known, while that can be believed.
func (m *memory) refusal(key digest, r *Request) error {
	n, ok := m.nobody.GetIfPresent(key)
	if !ok {
		return nil
	}
	age := r.Now.Sub(n.asked)
	if age >= nobodyCache || age <= -nobodyCache || r.Sure && age > 0 {
		return nil
	}
	return n.err
}

// remember keeps an answer. That there was none changes nothing: the last one goes
// on counting inside its bound.
func (m *memory) remember(key digest, id identity.Identity, err error, asked time.Time, cache time.Duration) {
	switch {
	case err == nil:
		k := &known{identity: id, asked: asked}
		k.next.Store(asked.Add(cache).UnixNano())
		m.known.Set(key, k)
	case errors.Is(err, identity.ErrMissing), errors.Is(err, identity.ErrInvalid):
		m.known.Invalidate(key)
		m.nobody.Set(key, nobody{err, asked})
	}
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

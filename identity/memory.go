package identity

import (
	"fmt"
	"strings"
	"time"

	"github.com/maypok86/otter/v2"
)

const (
	// maxMemory bounds the memory, in bytes: some 40,000 tokens of usual size.
	maxMemory = 64 << 20
	// entryOverhead is about what an entry costs beside its strings, with a note.
	entryOverhead = 1024
)

// memory remembers verified tokens, so that a signature is checked once and not with
// every request. Only successes are remembered: nobody can fill it without a key.
// It belongs to one source of one Verifier and thereby to one set of blocks; a reload
// starts afresh. The key is the token itself and not a hash: nothing but the very
// token that was verified can be equal to it.
type memory struct {
	cache *otter.Cache[string, *verified]
}

// verified is whom a good token speaks for, and what that rests on.
type verified struct {
	Identity
	// source is where the key is from, nil for a key that does not change, and
	// generation that of its keys when this one was among them.
	source     KeySource
	generation uint64
}

// holds reports whether the token is still good. Past exp the full verification
// decides, which knows the leeway; and it decides when keys have gone, or are too old.
func (v *verified) holds(now time.Time) bool {
	if !now.Before(v.Expires) {
		return false
	}
	if v.source == nil {
		return true
	}
	generation, current := v.source.Generation(now)
	return current && generation == v.generation
}

func newMemory(weight uint64) (*memory, error) {
	// No expiry here: otter's would follow the wall clock, ours follows the given now.
	// What has expired is not served and gives way to what is in use.
	cache, err := otter.New(&otter.Options[string, *verified]{
		MaximumWeight: weight,
		Weigher: func(token string, v *verified) uint32 {
			return uint32(entryOverhead + len(token) + len(v.User) + len(v.Customer) + len(v.Email))
		},
	})
	if err != nil {
		return nil, fmt.Errorf("make the memory of verified tokens: %w", err)
	}
	return &memory{cache: cache}, nil
}

// recall returns the identity of a remembered token that still holds, or nil.
func (m *memory) recall(token string, now time.Time) *Identity {
	v, ok := m.cache.GetIfPresent(token)
	if !ok || !v.holds(now) {
		return nil
	}
	return &v.Identity
}

// remember keeps a verified token, unless it lives on its leeway alone. The token is
// copied because it is a part of a header that would be kept alive with it.
func (m *memory) remember(token string, v *verified, now time.Time) {
	if now.Before(v.Expires) {
		v.Note = new(Note)
		m.cache.Set(strings.Clone(token), v)
	}
}

func (m *memory) close() {
	m.cache.InvalidateAll()
	m.cache.StopAllGoroutines()
}

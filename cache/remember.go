package cache

import (
	"encoding/binary"
	"hash/maphash"
	"math"
	"sync/atomic"

	"github.com/VictoriaMetrics/fastcache"
)

// Revision tells whether anything that concerns a user was written since it was
// taken: as long as it holds, what was read after it is how things are. The zero
// value never holds. It can end early, as several users share one.
type Revision struct {
	current *atomic.Uint64
	at      uint64
}

// Holds says whether nothing was written since.
func (r Revision) Holds() bool { return r.current != nil && r.current.Load() == r.at }

// revisions are counted for each of many groups of users. Commits come one by one
// and touch few of them.
type revisions struct {
	seed   maphash.Seed
	groups [1 << 16]atomic.Uint64
}

func (r *revisions) of(user string) *atomic.Uint64 {
	return &r.groups[maphash.String(r.seed, user)%uint64(len(r.groups))]
}

// Revision is that of a user's now. Take it before reading.
func (s *Store) Revision(user string) Revision {
	current := s.memory.revisions.of(user)
	return Revision{current, current.Load()}
}

// noteSize is what a note takes, with the user's id and its place in the index.
const noteSize = 200

// notes are what the gateway keeps of many accounts, a few bytes each, in memory
// that the garbage collector never looks at: a million accounts as Go values cost
// a tenth of what the whole server can do.
type notes struct {
	cache atomic.Pointer[fastcache.Cache]
	size  atomic.Int64 // in bytes
}

// resize bounds the notes. What was held is forgotten, unless the bound stays.
func (n *notes) resize(accounts int) {
	size := min(accounts, math.MaxInt/noteSize) * noteSize
	if n.size.Swap(int64(size)) == int64(size) {
		return
	}
	if old := n.cache.Swap(fastcache.New(size)); old != nil {
		old.Reset()
	}
}

// close gives the memory back: it is not the collector's.
func (n *notes) close() {
	if old := n.cache.Swap(nil); old != nil {
		old.Reset()
	}
}

// count is how many are held, about: some may be of earlier revisions.
func (n *notes) count() int {
	var stats fastcache.Stats
	if c := n.cache.Load(); c != nil {
		c.UpdateStats(&stats)
	}
	return int(stats.EntriesCount)
}

// Remember keeps a note about a user for as long as the revision holds, if there
// is room: newer notes take the place of older ones. An id of a user is compared in
// full, so that nobody gets another's. Their whole account makes room for those of
// whom there is no note.
func (s *Store) Remember(user string, r Revision, note []byte) {
	if c := s.memory.notes.cache.Load(); c != nil {
		b := binary.LittleEndian.AppendUint64(make([]byte, 0, 8+len(note)), r.at)
		c.Set([]byte(user), append(b, note...))
		s.memory.accounts.Invalidate(user)
	}
}

// Recall appends the note about a user to dst. ok is false if there is none that
// holds.
func (s *Store) Recall(dst []byte, user string) (note []byte, r Revision, ok bool) {
	c := s.memory.notes.cache.Load()
	if c == nil {
		return dst, Revision{}, false
	}
	var key [MaxUser]byte
	n := len(dst)
	r = s.Revision(user)
	note, ok = c.HasGet(dst, append(key[:0], user...))
	if !ok || len(note) < n+8 || binary.LittleEndian.Uint64(note[n:]) != r.at {
		return dst, Revision{}, false
	}
	return append(note[:n], note[n+8:]...), r, true
}

// Package cache remembers: a durable mirror of Polar's objects in one bbolt
// file, its indexes, the loop that commits to it, and the accounts held in
// memory. Polar is the truth; what stands here is a copy of it, with a few
// things of our own (passes, links, opened checkouts).
package cache

import (
	"crypto/rand"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddy-polar/caddy-polar/cache/kv"
)

// Why a store cannot be used. Each error that wraps one of these names the
// file and says what to do.
var (
	ErrLocked      = errors.New("another process has the store open")
	ErrNotWritable = errors.New("the store cannot be written")
	ErrCorrupt     = errors.New("the store is damaged or no store at all")
	ErrNewerSchema = errors.New("the store was written by a newer version")
	ErrOtherOwner  = errors.New("the store belongs to another gateway")
	ErrReplaced    = errors.New("the store's file was moved away, replaced or cut while it was open")
	ErrClosed      = kv.ErrClosed
	ErrUnreachable = kv.ErrUnreachable
	ErrUser        = errors.New("a user must have 1 to 255 bytes and no control characters")
)

// schema is the version of the file's layout. A file of an older one gets this
// when it is claimed: what stands in it is read as ever. Since the second there
// are UUIDs in 16 bytes, since the third records say where they come from, and
// leave their id to the key.
const schema = 3

// DefaultMemory is how many accounts are held in memory, unless SetMemory says
// otherwise.
const DefaultMemory = 100_000

// Store is what is kept durably, in an engine, and what is held in memory of it. It is
// opened on first use, so that a configuration can be checked beside a running server,
// and it is shared by every configuration of the process that names the same.
type Store struct {
	engine  kv.Engine
	memory  *memory
	changes chan *change
	stop    chan struct{}
	stopped chan struct{} // closed when the commit loop has ended
	leaving chan struct{} // closed when the store is about to stop

	news     news
	claimed  atomic.Pointer[Owner] // by whom, with the store's own key; nil: it is not looked at again
	watchers watchers
	kept     sync.Map // see Keep
	counts   counts
	observer func(Op, time.Duration, error) // see Observe; may be nil

	mu        sync.Mutex    // closing, and the loop's start
	on        bool          // the commit loop runs
	following chan struct{} // closed when the news are no longer followed; nil: they never were
	closed    bool          // for good
	lastClaim atomic.Pointer[claim]
	// unwritten is the failure of the last commit, nil if it went well.
	unwritten atomic.Pointer[failure]
}

// New makes a store in a file, which it will open on first use. Close it.
func New(path string) *Store { return NewStore(newFile(path)) }

// closeTime is how long a server may take with what is under way at Close.
const closeTime = 2 * time.Second

// NewStore makes a store of an engine. Close it: that closes the engine.
func NewStore(engine kv.Engine) *Store {
	s := &Store{
		engine:  engine,
		memory:  newMemory(DefaultMemory),
		changes: make(chan *change),
		stop:    make(chan struct{}),
		stopped: make(chan struct{}),
		leaving: make(chan struct{}),
		news:    news{start: time.Now(), here: make(map[string]seenHere)},
	}
	if f, ok := engine.(*file); ok {
		f.observe = s.observe
	}
	return s
}

// Path is where it is: the file, or what else the engine calls its place.
func (s *Store) Path() string { return s.engine.Path() }

// Close waits for what is being written or read, and lets the engine go. What comes
// later gets ErrClosed.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	close(s.leaving)
	running, following := s.on, s.following
	s.mu.Unlock()
	hurry := time.AfterFunc(closeTime, s.engine.Hurry)
	defer hurry.Stop()
	if following != nil {
		<-following
		s.resign()
	}
	close(s.stop)
	if running {
		<-s.stopped
	}
	s.memory.close()
	return s.engine.Close()
}

// start has the commit loop run.
func (s *Store) start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return ErrClosed
	case !s.on:
		s.on = true
		go s.commitLoop()
	}
	return nil
}

// newKey makes a random key.
func newKey() []byte {
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails (crypto/rand)
	return key
}

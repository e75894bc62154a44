// Package cache remembers: a durable mirror of Polar's objects in one bbolt
// file, its indexes, the loop that commits to it, and the accounts held in
// memory. Polar is the truth; what stands here is a copy of it, with a few
// things of our own (passes, links, opened checkouts).
package cache

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
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
	ErrClosed      = errors.New("the store is closed")
	ErrUser        = errors.New("a user must have 1 to 255 bytes and no control characters")
)

// schema is the version of the file's layout. A file of an older one gets this
// when it is claimed: what stands in it is read as ever. Since the second there
// are UUIDs in 16 bytes, since the third records say where they come from, and
// leave their id to the key.
const schema = 3

// lockTimeout is how long a new process waits for an old one to let go.
const lockTimeout = time.Second

// DefaultMemory is how many accounts are held in memory, unless SetMemory says
// otherwise.
const DefaultMemory = 100_000

// Store is one file and what is held in memory of it. It is opened on first
// use, so that a configuration can be checked beside a running server, and it
// is shared by every configuration of the process that names the file.
type Store struct {
	path    string
	memory  *memory
	changes chan *change
	stop    chan struct{}
	stopped chan struct{} // closed when the commit loop has ended

	watchers watchers
	kept     sync.Map // see Keep
	counts   counts
	copying  sync.Mutex                     // held while there is a Copy
	observer func(Op, time.Duration, error) // see Observe; may be nil

	db atomic.Pointer[dbFile]
	mu sync.Mutex // opening, closing, and the loop's start
	// verified says that this process has begun to look through the whole file.
	verified bool
	atOnce   int64 // up to how many bytes before it is used: checkedAtOnce
	on       bool  // the commit loop runs
	// closed says that the store was closed for good.
	closed bool
	owner  *Owner // who has claimed it, nil before
	// failed is why the file could not be opened at failedAt.
	failed   error
	failedAt time.Time
	life     context.Context // ends with the store
	end      context.CancelFunc
	// unwritten is the failure of the last commit, nil if it went well.
	unwritten atomic.Pointer[writeFailure]
}

// New makes a store that will open path on first use. Close it.
func New(path string) *Store {
	s := &Store{
		path:    path,
		memory:  newMemory(DefaultMemory),
		changes: make(chan *change),
		stop:    make(chan struct{}),
		stopped: make(chan struct{}),
		atOnce:  checkedAtOnce,
	}
	s.life, s.end = context.WithCancel(context.Background())
	return s
}

// Path is the file.
func (s *Store) Path() string { return s.path }

// Close waits for what is being written or read, and lets the file go. What
// comes later gets ErrClosed.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	close(s.stop)
	s.end()
	running := s.on
	s.mu.Unlock() // the loop may be about to open the file again
	if running {
		<-s.stopped
	}
	s.memory.close()
	return s.letGo()
}

// letGo closes the file. The next use opens it again, and waits for that.
func (s *Store) letGo() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	db := s.db.Swap(nil)
	if db == nil {
		return nil
	}
	if err := db.Close(); err != nil {
		return fmt.Errorf("closing store %s: %w", s.path, err)
	}
	return nil
}

// openAgain is how long a file that cannot be opened is left alone: requests
// must not queue up to learn the same again.
const openAgain = time.Second

// open returns the open file, opening it if need be.
func (s *Store) open() (*dbFile, error) {
	if db := s.db.Load(); db != nil {
		return db, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed && s.failed != nil && time.Since(s.failedAt) < openAgain {
		return nil, s.failed
	}
	return s.openLocked()
}

// openNow is open for those who want to know how things are now.
func (s *Store) openNow() (*dbFile, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.openLocked()
}

func (s *Store) openLocked() (*dbFile, error) {
	if s.closed {
		return nil, ErrClosed
	}
	if db := s.db.Load(); db != nil {
		return db, nil
	}
	if errors.Is(s.failed, errBroken) {
		return nil, s.failed
	}
	began := time.Now()
	db, err := openFile(s.path)
	if err == nil {
		err = s.checkOpened(db)
	}
	s.observe(OpOpen, began, err)
	if s.failed, s.failedAt = err, time.Now(); err != nil {
		return nil, err
	}
	s.db.Store(db)
	if !s.on {
		s.on = true
		go s.commitLoop()
	}
	return db, nil
}

// newKey makes a random key.
func newKey() []byte {
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails (crypto/rand)
	return key
}

// Package cache remembers: a durable mirror of Polar's objects in one bbolt
// file, its indexes, the loop that commits to it, and the accounts held in
// memory. Polar is the truth; what stands here is a copy of it, with a few
// things of our own (passes, links, opened checkouts).
package cache

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// Why a store cannot be used. Each error that wraps one of these names the
// file and says what to do.
var (
	ErrLocked      = errors.New("another process has the store open")
	ErrNotWritable = errors.New("the store cannot be written")
	ErrCorrupt     = errors.New("the store is damaged or no store at all")
	ErrNewerSchema = errors.New("the store was written by a newer version")
	ErrOtherOwner  = errors.New("the store belongs to another gateway")
	ErrClosed      = errors.New("the store is closed")
	ErrUser        = errors.New("a user must have 1 to 255 bytes and no control characters")
)

// schema is the version of the file's layout.
const schema = 1

// lockTimeout is how long a new process waits for an old one to let go.
const lockTimeout = time.Second

// DefaultMemory is how many accounts are held in memory.
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

	db atomic.Pointer[bolt.DB]
	mu sync.Mutex // opening, closing, and the loop's start
	on bool       // the commit loop runs
	// closed says that the store was closed for good.
	closed bool
	// failed is why the file could not be opened at failedAt.
	failed   error
	failedAt time.Time
}

// New makes a store that will open path on first use. Close it.
func New(path string) *Store {
	return &Store{
		path:    path,
		memory:  newMemory(DefaultMemory),
		changes: make(chan *change),
		stop:    make(chan struct{}),
		stopped: make(chan struct{}),
	}
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
func (s *Store) open() (*bolt.DB, error) {
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
func (s *Store) openNow() (*bolt.DB, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.openLocked()
}

func (s *Store) openLocked() (*bolt.DB, error) {
	if s.closed {
		return nil, ErrClosed
	}
	if db := s.db.Load(); db != nil {
		return db, nil
	}
	if errors.Is(s.failed, errPanic) {
		return nil, s.failed // bbolt still holds the file's lock
	}
	db, err := openFile(s.path)
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

func openFile(path string) (*bolt.DB, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, explain(path, err)
	}
	if err := inspect(path); err != nil {
		return nil, err
	}
	options := &bolt.Options{
		Timeout:      lockTimeout,
		FreelistType: bolt.FreelistMapType,
	}
	if runtime.GOOS != "windows" && bits64 {
		// A growing file is mapped anew, which waits for every reader and
		// makes new ones wait: reserve addresses, not memory, for growth.
		options.InitialMmapSize = 1 << 30
	}
	var db *bolt.DB
	err := guard(func() (err error) {
		db, err = bolt.Open(path, 0o600, options)
		return err
	})
	if err != nil {
		return nil, explain(path, err)
	}
	return db, nil
}

// guard turns a panic into ErrCorrupt: that is how bbolt tells of a damaged
// page, and it must not end the server. Nor must a read beyond the file's end.
func guard(use func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %w: %v", ErrCorrupt, errPanic, r)
		}
	}()
	return use()
}

var errPanic = errors.New("bbolt gave up")

const bits64 = ^uint(0)>>63 == 1

// inspect looks at an existing file without writing to it, and before anything
// reads a page that a truncated file no longer has: that would end the process.
func inspect(path string) error {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) || (err == nil && info.Size() == 0) {
		return nil
	}
	if err != nil {
		return explain(path, err)
	}
	db, err := bolt.Open(path, 0o600, &bolt.Options{Timeout: lockTimeout, ReadOnly: true})
	var system syscall.Errno
	switch {
	case err == nil:
	case errors.Is(err, bolterrors.ErrTimeout), errors.As(err, &system):
		return explain(path, err)
	default: // bbolt has no sentinel for all that can be wrong inside
		return explain(path, fmt.Errorf("%w: %w", ErrCorrupt, err))
	}
	defer db.Close()
	return explain(path, guard(func() error { return db.View(func(tx *bolt.Tx) error { return inspectPages(tx, info.Size()) }) }))
}

func inspectPages(tx *bolt.Tx, size int64) error {
	if tx.Size() > size {
		return fmt.Errorf("%w: it has %d of %d bytes", ErrCorrupt, size, tx.Size())
	}
	h := readHeader(tx)
	if h.schema > schema {
		return fmt.Errorf("%w: schema %d, this version knows %d", ErrNewerSchema, h.schema, schema)
	}
	if h.schema == 0 {
		if name, _ := tx.Cursor().First(); name != nil {
			return fmt.Errorf("%w: it is a bbolt file of something else", ErrCorrupt)
		}
	}
	return nil
}

// explain puts an error of the file into a sentence that says what to do.
func explain(path string, err error) error {
	var advice string
	switch {
	case err == nil:
		return nil
	case errors.Is(err, bolterrors.ErrTimeout):
		err = ErrLocked
		advice = "stop the other one, or use `caddy reload` to change a running Caddy"
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		err = fmt.Errorf("%w: %w", ErrNotWritable, err)
		advice = "let Caddy's user write the file and its directory"
	case errors.Is(err, ErrCorrupt):
		advice = "move it away or restore a backup; a new one is filled from Polar"
	case errors.Is(err, ErrNewerSchema):
		advice = "run the newer version, or move the file away"
	case errors.Is(err, ErrOtherOwner):
		advice = "give each gateway a store of its own"
	}
	if advice == "" {
		return fmt.Errorf("store %s: %w", path, err)
	}
	return fmt.Errorf("store %s: %w: %s", path, err, advice)
}

// newKey makes a random key.
func newKey() []byte {
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails (crypto/rand)
	return key
}

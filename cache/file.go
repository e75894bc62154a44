package cache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/caddy-polar/caddy-polar/cache/kv"
)

// file is the engine of one bbolt file.
type file struct {
	path    string
	observe func(op Op, began time.Time, err error)
	life    context.Context // ends with the store
	end     context.CancelFunc
	copying sync.Mutex // held while there is a Copy

	db atomic.Pointer[dbFile]
	mu sync.Mutex // opening and closing
	// verified says that this process has begun to look through the whole file.
	verified bool
	atOnce   int64             // up to how many bytes before it is used: checkedAtOnce
	closed   bool              // for good
	check    func(kv.Tx) error // see Reopened, nil before
	// failed is why the file could not be opened at failedAt.
	failed   error
	failedAt time.Time
}

func newFile(path string) *file {
	f := &file{path: path, atOnce: checkedAtOnce, observe: func(Op, time.Time, error) {}}
	f.life, f.end = context.WithCancel(context.Background())
	return f
}

// Path implements kv.Engine.
func (f *file) Path() string { return f.path }

// Hurry implements kv.Engine: a disk cannot be hurried.
func (f *file) Hurry() {}

// Shared implements kv.Engine: bbolt locks the file.
func (f *file) Shared() bool { return false }

// Reopened implements kv.Engine.
func (f *file) Reopened(check func(kv.Tx) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.check = check
}

// Close implements kv.Engine.
func (f *file) Close() error {
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	f.end()
	return f.Reset()
}

// Reset implements kv.Engine. The next use opens the file again, and waits for that.
func (f *file) Reset() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	db := f.db.Swap(nil)
	if db == nil {
		return nil
	}
	if err := db.Close(); err != nil {
		return fmt.Errorf("closing store %s: %w", f.path, err)
	}
	return nil
}

// openAgain is how long a file that cannot be opened is left alone: requests
// must not queue up to learn the same again.
const openAgain = time.Second

// open returns the open file, opening it if need be.
func (f *file) open() (*dbFile, error) {
	if db := f.db.Load(); db != nil {
		return db, nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.closed && f.failed != nil && time.Since(f.failedAt) < openAgain {
		return nil, f.failed
	}
	return f.openLocked()
}

// Retry implements kv.Engine.
func (f *file) Retry() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failedAt = time.Time{}
}

func (f *file) openLocked() (*dbFile, error) {
	if f.closed {
		return nil, ErrClosed
	}
	if db := f.db.Load(); db != nil {
		return db, nil
	}
	if errors.Is(f.failed, errBroken) {
		return nil, f.failed
	}
	began := time.Now()
	db, err := openFile(f.path)
	if err == nil {
		err = f.checkOpened(db)
	}
	f.observe(OpOpen, began, err)
	if f.failed, f.failedAt = err, time.Now(); err != nil {
		return nil, err
	}
	f.db.Store(db)
	return db, nil
}

// lockTimeout is how long a new process waits for an old one to let go.
const lockTimeout = time.Second

// dbFile is a store's file while it is open.
type dbFile struct {
	*bolt.DB
	file *os.File // bbolt's own: closing another one of it could drop the lock
	info os.FileInfo
	last atomic.Uint64 // the number of the last commit, 0: unknown
}

func openFile(path string) (*dbFile, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, explain(path, err)
	}
	if err := inspect(path); err != nil {
		return nil, err
	}
	options := &bolt.Options{
		Timeout: lockTimeout,
		// It is written with each commit. Bolt's map of it would be sorted anew
		// each time, which costs more than a commit when a sync or Expire has
		// left some thousand pages free.
		FreelistType: bolt.FreelistArrayType,
	}
	if runtime.GOOS != "windows" && bits64 {
		// A growing file is mapped anew, which waits for every reader and
		// makes new ones wait: reserve addresses, not memory, for growth.
		options.InitialMmapSize = 1 << 30
	}
	db := new(dbFile)
	options.OpenFile = func(name string, flag int, mode os.FileMode) (file *os.File, err error) {
		if file, err = os.OpenFile(name, flag, mode); err == nil {
			db.file = file
			db.info, err = file.Stat()
		}
		return file, err
	}
	err := guard(func() (err error) {
		db.DB, err = bolt.Open(path, 0o600, options)
		return err
	})
	if err != nil {
		if written, ok := errors.AsType[*fs.PathError](err); ok && written.Op == "write" && db.info.Size() == 0 {
			_ = os.Truncate(path, 0) // a file that was only begun would be taken for a damaged one
		}
		return nil, explain(path, broken(err))
	}
	return db, nil
}

// intact says ErrReplaced if the file is no longer the one that was opened. What was
// written to it then would be gone with the process, or make nonsense of another file.
func (db *dbFile) intact(tx *bolt.Tx, path string, last uint64) error {
	if uint64(tx.ID()) < last {
		return fmt.Errorf("%w: it is older than the last commit", ErrReplaced)
	}
	if !tx.Writable() {
		return nil
	}
	switch info, err := os.Stat(path); {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: it is gone", ErrReplaced)
	case err != nil: // which says nothing about the file that is open
		return nil
	case !os.SameFile(info, db.info):
		return fmt.Errorf("%w: it is another one", ErrReplaced)
	case info.Size() < tx.Size():
		return fmt.Errorf("%w: it has %d of %d bytes", ErrReplaced, info.Size(), tx.Size())
	}
	return nil
}

// checkedAtOnce is up to how many bytes a file is looked through before it is used. A
// larger one, which may take seconds to come from the disk, is while it is used.
const checkedAtOnce = 64 << 20

// checkOpened looks at a file that was just opened: at whose it is, and if this process
// has not done so yet, at all of it.
func (f *file) checkOpened(db *dbFile) error {
	large := false
	var err error
	if f.check != nil {
		err = transact(db.DB, false, func(tx *bolt.Tx) (bool, error) { return false, f.check(fileTx{tx}) })
	}
	if err == nil && !f.verified {
		err = transact(db.DB, false, func(tx *bolt.Tx) (_ bool, err error) {
			if large = tx.Size() > f.atOnce; !large {
				_, err = countTree(f.life, tx, db.file)
			}
			return false, err
		})
	}
	if err != nil {
		if !errors.Is(err, errBroken) {
			_ = db.Close()
		}
		return explain(f.path, err)
	}
	if large && !f.verified {
		go f.verify(db)
	}
	f.verified = true
	return nil
}

// verify looks through an open file, and gives it up if it is damaged.
func (f *file) verify(db *dbFile) {
	err := transact(db.DB, false, func(tx *bolt.Tx) (bool, error) {
		_, err := countTree(f.life, tx, db.file)
		return false, err
	})
	if errors.Is(err, ErrCorrupt) {
		f.giveUp(db, fmt.Errorf("%w: %w", err, errBroken))
	}
}

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
	return explain(path, look(path, func(tx *bolt.Tx) error { return inspectPages(tx, info.Size()) }))
}

// look reads a file that is there, without writing to it.
func look(path string, body func(*bolt.Tx) error) error {
	db, err := bolt.Open(path, 0o600, &bolt.Options{Timeout: lockTimeout, ReadOnly: true})
	var system syscall.Errno
	switch {
	case err == nil:
	case errors.Is(err, bolterrors.ErrTimeout), errors.As(err, &system):
		return err
	default: // bbolt has no sentinel for all that can be wrong inside
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	err = transact(db, false, func(tx *bolt.Tx) (bool, error) { return false, body(tx) })
	if !errors.Is(err, errBroken) {
		_ = db.Close()
	}
	return err
}

func inspectPages(tx *bolt.Tx, size int64) error {
	if tx.Size() > size {
		return fmt.Errorf("%w: it has %d of %d bytes", ErrCorrupt, size, tx.Size())
	}
	h := readHeader(fileTx{tx})
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
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		advice = "make room on the disk"
	case errors.Is(err, errBroken):
		advice = "move the file away or restore a backup; a new one is filled from Polar"
	case errors.Is(err, ErrCorrupt):
		advice = "move it away or restore a backup; a new one is filled from Polar"
	case errors.Is(err, ErrReplaced):
		advice = "put it back, or restart Caddy"
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

// Count implements kv.Engine. It goes by the file's pages, not by bbolt, which would go
// round for ever in a file that was damaged meanwhile.
func (f *file) Count() (records map[string]int, err error) {
	db, err := f.open()
	if err != nil {
		return nil, err
	}
	err = transact(db.DB, false, func(tx *bolt.Tx) (_ bool, err error) {
		records, err = countTree(f.life, tx, db.file)
		return false, err
	})
	return records, err
}

// Size implements kv.Engine. The free pages are as of the last write of this process.
func (f *file) Size() (bytes int64, freePages int, err error) {
	db, err := f.open()
	if err != nil {
		return 0, 0, err
	}
	info, err := os.Stat(f.path)
	if err != nil {
		return 0, 0, fmt.Errorf("reading store %s: %w", f.path, err)
	}
	pages := db.Stats()
	return info.Size(), pages.FreePageN + pages.PendingPageN, nil
}

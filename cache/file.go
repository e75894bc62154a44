package cache

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"syscall"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

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
	if sequence(tx) < last {
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
func (s *Store) checkOpened(db *dbFile) error {
	large := false
	err := s.checkOwner(db.DB)
	if err == nil && !s.verified {
		err = transact(db.DB, false, func(tx *bolt.Tx) (_ bool, err error) {
			if large = tx.Size() > s.atOnce; !large {
				_, err = countTree(s.life, tx, db.file)
			}
			return false, err
		})
	}
	if err != nil {
		if !errors.Is(err, errBroken) {
			_ = db.Close()
		}
		return explain(s.path, err)
	}
	if large && !s.verified {
		go s.verify(db)
	}
	s.verified = true
	return nil
}

// verify looks through an open file, and gives it up if it is damaged.
func (s *Store) verify(db *dbFile) {
	err := transact(db.DB, false, func(tx *bolt.Tx) (bool, error) {
		_, err := countTree(s.life, tx, db.file)
		return false, err
	})
	if errors.Is(err, ErrCorrupt) {
		s.giveUp(db, fmt.Errorf("%w: %w", err, errBroken))
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

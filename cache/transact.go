package cache

import (
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	bolt "go.etcd.io/bbolt"
)

// errBroken says that bbolt gave up while it held locks of its own. Such a file
// can neither be used nor closed any more by this process.
var errBroken = errors.New("it can be used again once Caddy is restarted")

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

// transact runs a transaction that a damaged file can neither crash nor hang.
// body says whether there is something to commit. An error of the body is a
// bodyError; one of the disk is not.
func transact(db *bolt.DB, write bool, body func(*bolt.Tx) (commit bool, err error)) error {
	var tx *bolt.Tx
	err := guard(func() (err error) {
		tx, err = db.Begin(write)
		return err
	})
	if err != nil {
		return broken(err)
	}
	var commit bool
	failed := guard(func() (err error) {
		commit, err = body(tx)
		return err
	})
	if failed == nil && commit {
		return broken(guard(tx.Commit))
	}
	if err := broken(guard(tx.Rollback)); err != nil {
		return err
	}
	if failed != nil {
		return &bodyError{failed}
	}
	return nil
}

// broken marks a panic outside of a transaction's body: it leaves locks behind.
func broken(err error) error {
	if errors.Is(err, errPanic) {
		return fmt.Errorf("%w: %w", err, errBroken)
	}
	return err
}

// bodyError is a failure before anything was handed to the disk.
type bodyError struct{ error }

func (e *bodyError) Unwrap() error { return e.error }

// transact is that of the open file. A broken one is given up.
func (s *Store) transact(write bool, body func(*bolt.Tx) (commit bool, err error)) error {
	db, err := s.open()
	if err != nil {
		return err
	}
	return s.transactOn(db, write, body)
}

func (s *Store) transactOn(db *dbFile, write bool, body func(*bolt.Tx) (commit bool, err error)) error {
	last := db.last.Load()
	var seq uint64
	err := transact(db.DB, write, func(tx *bolt.Tx) (commit bool, err error) {
		if err := db.intact(tx, s.path, last); err != nil {
			return false, explain(s.path, err)
		}
		if commit, err = body(tx); commit {
			seq = sequence(tx)
		}
		return commit, err
	})
	if err == nil && seq > 0 {
		db.last.Store(seq)
	}
	if errors.Is(err, errBroken) {
		s.giveUp(db, err)
	}
	return err
}

// giveUp goes on without a file that this process can no longer use.
func (s *Store) giveUp(db *dbFile, err error) {
	if s.db.CompareAndSwap(db, nil) {
		s.mu.Lock()
		s.failed, s.failedAt = explain(s.path, err), time.Now()
		s.mu.Unlock()
	}
}

package cache

import (
	"errors"
	"fmt"
	"iter"
	"runtime/debug"
	"strings"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/caddy-polar/caddy-polar/cache/kv"
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
// BodyError; one of the disk is not.
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
		return &kv.BodyError{Err: failed}
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

// Transact implements kv.Engine. A broken file is given up.
func (f *file) Transact(write bool, body func(kv.Tx) (commit bool, err error)) error {
	db, err := f.open()
	if err != nil {
		return err
	}
	last := db.last.Load()
	var seq uint64
	err = transact(db.DB, write, func(tx *bolt.Tx) (commit bool, err error) {
		if err := db.intact(tx, f.path, last); err != nil {
			return false, explain(f.path, err)
		}
		if commit, err = body(fileTx{tx}); commit {
			seq = uint64(tx.ID())
		}
		return commit, err
	})
	if err == nil && seq > 0 {
		db.last.Store(seq)
	}
	if errors.Is(err, errBroken) {
		f.giveUp(db, err)
	}
	return err
}

// giveUp goes on without a file that this process can no longer use.
func (f *file) giveUp(db *dbFile, err error) {
	if f.db.CompareAndSwap(db, nil) {
		f.mu.Lock()
		f.failed, f.failedAt = explain(f.path, err), time.Now()
		f.mu.Unlock()
	}
}

// fileTx is a transaction of a file.
type fileTx struct{ *bolt.Tx }

func (tx fileTx) Sequence() uint64 { return uint64(tx.ID()) }

func (tx fileTx) Bucket(name []byte) kv.Bucket {
	if b := tx.Tx.Bucket(name); b != nil {
		return fileBucket{b}
	}
	return nil
}

func (tx fileTx) Create(name []byte) (kv.Bucket, error) {
	b, err := tx.CreateBucketIfNotExists(name)
	return fileBucket{b}, err
}

type fileBucket struct{ *bolt.Bucket }

func (b fileBucket) Get(key string) []byte { return b.Bucket.Get([]byte(key)) }

func (b fileBucket) Put(key string, value []byte) error { return b.Bucket.Put([]byte(key), value) }

func (b fileBucket) Delete(key string) error { return b.Bucket.Delete([]byte(key)) }

func (b fileBucket) Range(from, prefix string, limit int) iter.Seq2[[]byte, []byte] {
	return func(yield func(key, value []byte) bool) {
		c := b.Cursor()
		key, value := c.Seek([]byte(from))
		for n := 0; key != nil && strings.HasPrefix(string(key), prefix) && (limit == 0 || n < limit); n++ {
			if !yield(key, value) {
				return
			}
			key, value = c.Next()
		}
	}
}

func (b fileBucket) NextNumber() (uint64, error) {
	b.FillPercent = 1 // nothing will come in between
	return b.NextSequence()
}

func (b fileBucket) SetNumber(n uint64) error { return b.SetSequence(n) }

func (b fileBucket) Number() uint64 { return b.Sequence() }

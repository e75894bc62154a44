package cache

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"syscall"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

func openFile(path string) (*bolt.DB, error) {
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
	var db *bolt.DB
	err := guard(func() (err error) {
		db, err = bolt.Open(path, 0o600, options)
		return err
	})
	if err != nil {
		return nil, explain(path, broken(err))
	}
	return db, nil
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
	case errors.Is(err, errBroken):
		advice = "move the file away or restore a backup; a new one is filled from Polar"
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

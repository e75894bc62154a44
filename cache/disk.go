package cache

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/caddy-polar/caddy-polar/cache/kv"
)

// ErrReadOnly says that nothing can be written on the store's disk.
var ErrReadOnly = errors.New("the store's disk is read-only")

// Disk is how the disk under a store is doing.
type Disk struct {
	// Sync is how long a small write takes to be safe: each webhook waits for one.
	Sync time.Duration
	// WriteError is why nothing could be written beside the store: ErrReadOnly,
	// fs.ErrPermission, which says nothing about the store itself, or what is wrong
	// with the disk.
	WriteError error
	// Free of Total bytes are left. Both are zero where that cannot be asked.
	Free, Total uint64
}

// diskTries is how often a write is timed. The quickest counts, as others may
// write at the same time.
const diskTries = 3

// Disk tries the disk under the store with a small file, which it removes.
func (s *Store) Disk() Disk {
	var d Disk
	at, ok := s.engine.(*file)
	if !ok {
		return d
	}
	dir := filepath.Dir(at.path)
	d.Free, d.Total = diskSpace(dir)
	f, err := os.CreateTemp(dir, ".polar-doctor-*")
	if err != nil {
		d.WriteError = unwritable(err)
		return d
	}
	defer os.Remove(f.Name())
	defer f.Close()
	page := make([]byte, os.Getpagesize())
	for range diskTries {
		began := time.Now()
		if _, err = f.WriteAt(page, 0); err == nil {
			err = f.Sync()
		}
		if err != nil {
			d.WriteError = unwritable(err)
			return d
		}
		if took := time.Since(began); d.Sync == 0 || took < d.Sync {
			d.Sync = took
		}
	}
	return d
}

// unwritable leaves out the name of a file that nobody knows.
func unwritable(err error) error {
	if path, ok := errors.AsType[*fs.PathError](err); ok {
		err = path.Err
	}
	if errors.Is(err, syscall.EROFS) {
		return ErrReadOnly
	}
	return fmt.Errorf("writing beside the store: %w", err)
}

// Organization is whose facts the store holds, empty if that is not known yet.
func (s *Store) Organization() (id string, err error) {
	err = s.read(func(tx kv.Tx) error {
		id = readHeader(tx).organization
		return nil
	})
	return id, err
}

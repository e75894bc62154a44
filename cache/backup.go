package cache

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/caddy-polar/caddy-polar/cache/kv"
)

// Backup writes a consistent copy of the file, which can be opened like it. The
// file grows while it is written to, so write to a disk, not to a slow network.
func (s *Store) Backup(w io.Writer) error {
	return s.readFor(OpBackup, func(tx kv.Tx) error {
		of, ok := tx.(fileTx)
		if !ok {
			return ErrNoFile
		}
		_, err := of.WriteTo(w)
		return err
	})
}

// Copy is a copy of a store, in a temporary file that is its owner's alone.
// Close removes it.
type Copy struct {
	io.Reader
	Size   int64
	SHA256 []byte

	file *os.File
	done func() // lets others copy; it is called once
}

// What a copy needs.
var (
	// ErrCopying says that another copy of the store is there: each takes its room.
	ErrCopying = errors.New("another copy of the store is under way: wait for it")
	// ErrNoFile says that the store is not in a file of its own.
	ErrNoFile = errors.New("the store is no file: its database has tools of its own for copies")
	// ErrNoRoom says that a copy would not leave the store enough room.
	ErrNoRoom = errors.New("there is not enough room on the disk for a copy of the store: make some")
)

// roomLeft is how much a copy leaves free on the store's disk, at least.
const roomLeft = 64 << 20

// Copy makes a copy of the store as it is now, beside it: whoever then reads the
// copy can take their time, while nobody else gets one.
func (s *Store) Copy(ctx context.Context) (_ *Copy, err error) {
	f, ok := s.engine.(*file)
	if !ok {
		return nil, ErrNoFile
	}
	if _, err := f.open(); err != nil {
		return nil, err
	}
	if !f.copying.TryLock() {
		return nil, ErrCopying
	}
	defer func() {
		if err != nil {
			f.copying.Unlock()
		}
	}()
	info, err := os.Stat(f.path)
	if err != nil {
		return nil, explain(f.path, err)
	}
	if free, total := diskSpace(filepath.Dir(f.path)); total > 0 && free < uint64(info.Size())+roomLeft {
		return nil, fmt.Errorf("%w: it needs %d MiB", ErrNoRoom, (info.Size()+roomLeft)>>20)
	}
	file, err := os.CreateTemp(filepath.Dir(f.path), filepath.Base(f.path)+".copy-*") // with mode 0600
	if err != nil {
		return nil, explain(f.path, err)
	}
	c := &Copy{Reader: file, file: file, done: func() {}}
	_ = os.Remove(file.Name()) // where the system allows it, not even a crash leaves it behind
	defer func() {
		if err != nil {
			_ = c.Close()
		}
	}()
	sum := sha256.New()
	if err := s.Backup(io.MultiWriter(untilDone{ctx}, file, sum)); err != nil {
		if ended := context.Cause(ctx); ended != nil {
			return nil, ended // bbolt does not wrap it
		}
		return nil, fmt.Errorf("a copy beside the store: %w", err)
	}
	c.SHA256 = sum.Sum(nil)
	if c.Size, err = file.Seek(0, io.SeekCurrent); err == nil {
		_, err = file.Seek(0, io.SeekStart)
	}
	if err == nil {
		c.done = sync.OnceFunc(f.copying.Unlock)
	}
	return c, err
}

// Close removes the copy.
func (c *Copy) Close() error {
	defer c.done()
	err := c.file.Close()
	if gone := os.Remove(c.file.Name()); !errors.Is(gone, fs.ErrNotExist) {
		err = errors.Join(err, gone)
	}
	return err
}

// untilDone takes nothing any more once its context has ended.
type untilDone struct{ context.Context }

func (d untilDone) Write(b []byte) (int, error) { return len(b), context.Cause(d) }

// Summary is what a store's file tells of itself.
type Summary struct {
	Owner   Owner // without its key
	Schema  uint64
	Bytes   int64
	Objects map[string]int // records of each kind
}

// Inspect looks through the whole of a store's file that nobody has open, and
// changes nothing. With an owner it must be that one's.
func Inspect(path string, want *Owner) (Summary, error) {
	sum, err := summarize(path, want)
	if err != nil {
		return Summary{}, fmt.Errorf("%s: %w", path, err)
	}
	return sum, nil
}

func summarize(path string, want *Owner) (Summary, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Summary{}, fs.ErrNotExist
	case err != nil:
		return Summary{}, err
	case !info.Mode().IsRegular():
		return Summary{}, fmt.Errorf("%w: it is no file", ErrCorrupt)
	case info.Size() == 0:
		return Summary{}, fmt.Errorf("%w: it is empty", ErrCorrupt)
	}
	file, err := os.Open(path)
	if err != nil {
		return Summary{}, err
	}
	defer file.Close()
	sum := Summary{Bytes: info.Size(), Objects: make(map[string]int, len(countedBuckets))}
	err = look(path, func(tx *bolt.Tx) error {
		if err := inspectPages(tx, info.Size()); err != nil {
			return err
		}
		records, err := countTree(context.Background(), tx, file)
		if err != nil {
			return err
		}
		h := readHeader(fileTx{tx})
		if h.schema == 0 {
			return fmt.Errorf("%w: nothing was ever written to it", ErrCorrupt)
		}
		if want != nil {
			if _, err := claimedBy(fileTx{tx}, *want); err != nil {
				return err
			}
		}
		sum.Schema, sum.Owner = h.schema, Owner{Gateway: h.gateway, Server: h.server, Organization: h.organization}
		for _, name := range countedBuckets {
			sum.Objects[string(name)] = records[string(name)]
		}
		return nil
	})
	if errors.Is(err, bolterrors.ErrTimeout) {
		err = ErrLocked
	}
	return sum, err
}

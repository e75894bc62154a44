package cache

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/caddy-polar/caddy-polar/cache/kv"
)

// What moving needs.
var (
	// ErrSealed says that a store takes no changes because it was moved a moment ago.
	ErrSealed = errors.New("the store was moved to another place and takes no changes: let the configuration name that, and reload")
	// ErrOccupied says that there is another store where one is to be moved.
	ErrOccupied = errors.New("there is another store already: choose another place, or remove it")
)

const (
	// moveAtOnce is how many records are compared in one transaction.
	moveAtOnce = 1000
	// movePasses is how often what has changed meanwhile is copied before the store is
	// sealed, and afterwards until nothing is left.
	movePasses = 3

	keySealed = "sealed" // until when, in seconds since 1970
)

// ours are the keys of the header that are about one place.
var ours = []string{keyLease, keyNewsGone, keyMark, keySealed}

// Moved says what has been moved: how many records of each kind, each of which was
// compared, and until when the old store takes no changes.
type Moved struct {
	Objects map[string]int
	Sealed  time.Time
}

// MoveTo copies all that the store has to another one, while it is used. Then the store
// takes no changes for some time, so that nothing is lost between the last comparison and
// the first use of the other one. If anything fails it goes on as before.
func (s *Store) MoveTo(ctx context.Context, to *Store, seal time.Duration) (m Moved, err error) {
	if err := s.movable(to); err != nil {
		return Moved{}, err
	}
	for range movePasses {
		changed, _, err := s.copyTo(ctx, to)
		if err != nil || changed == 0 {
			if err != nil {
				return Moved{}, err
			}
			break
		}
	}
	m.Sealed = time.Now().Add(seal)
	if err := s.seal(ctx, m.Sealed); err != nil {
		return Moved{}, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.seal(context.WithoutCancel(ctx), time.Time{}))
		}
	}()
	for range movePasses {
		changed, records, err := s.copyTo(ctx, to)
		if err != nil {
			return Moved{}, err
		}
		if m.Objects = records; changed == 0 {
			return m, to.unseal()
		}
	}
	return Moved{}, fmt.Errorf("%w: it differs from its copy again and again: does somebody else write there?", ErrOccupied)
}

// movable says whether the other place is free, or has an earlier copy of this store.
func (s *Store) movable(to *Store) error {
	var key []byte
	if err := s.read(func(tx kv.Tx) error {
		key = bytes.Clone(tx.Bucket(bucketMeta).Get(keyRandom))
		return nil
	}); err != nil {
		return err
	}
	to.engine.Retry()
	return to.explained(to.engine.Transact(false, func(tx kv.Tx) (bool, error) {
		switch meta := tx.Bucket(bucketMeta); {
		case readHeader(tx).schema == 0:
			return false, nil
		case !bytes.Equal(meta.Get(keyRandom), key):
			return false, ErrOccupied
		case meta.Get(keyLease) != nil:
			return false, fmt.Errorf("%w: a gateway uses it: stop that first, or let this one use it too", ErrOccupied)
		}
		return false, nil
	}))
}

// explained says of which place an error is.
func (s *Store) explained(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("store %s: %w", s.Path(), err)
}

// seal keeps the store from taking changes until a moment, or no longer.
func (s *Store) seal(ctx context.Context, until time.Time) error {
	return s.submit(ctx, &change{seals: true, run: func(f *fold) error {
		meta := f.tx.Bucket(bucketMeta)
		if until.IsZero() {
			return f.delete(meta, keySealed)
		}
		return f.put(meta, keySealed, binary.BigEndian.AppendUint64(nil, uint64(until.Unix())))
	}})
}

// unseal lets a store take changes to which another one was moved.
func (s *Store) unseal() error {
	return s.explained(s.engine.Transact(true, func(tx kv.Tx) (bool, error) {
		meta := tx.Bucket(bucketMeta)
		return meta.Get(keySealed) != nil, meta.Delete(keySealed)
	}))
}

// sealed says whether the store takes no changes now.
func sealed(tx kv.Tx) bool {
	until := tx.Bucket(bucketMeta).Get(keySealed)
	return len(until) == 8 && time.Now().Unix() < int64(binary.BigEndian.Uint64(until))
}

// copyTo makes the other store like this one. It says how much was different, and how
// many records of each kind there are.
func (s *Store) copyTo(ctx context.Context, to *Store) (changed int, records map[string]int, err error) {
	records = make(map[string]int, len(countedBuckets))
	// The header comes last: before it is there nobody takes the other place for a store.
	names := append(append([][]byte{bucketKeys, bucketStages}, objectBuckets...), bucketMeta)
	for _, name := range names {
		of, n, err := s.copyBucket(ctx, to, name)
		if err != nil {
			return 0, nil, err
		}
		changed += of
		if slices.ContainsFunc(countedBuckets, func(counted []byte) bool { return bytes.Equal(counted, name) }) {
			records[string(name)] = n
		}
	}
	return changed, records, nil
}

// copyBucket is copyTo for one bucket.
func (s *Store) copyBucket(ctx context.Context, to *Store, name []byte) (changed, records int, err error) {
	c := piece{bucket: name}
	for !c.last {
		if err := context.Cause(ctx); err != nil {
			return 0, 0, err
		}
		if err := s.read(c.read); err != nil {
			return 0, 0, err
		}
		for again := true; again; {
			var different int
			err := to.engine.Transact(true, func(tx kv.Tx) (_ bool, err error) {
				different, again, err = c.write(tx)
				return different > 0, err
			})
			if err != nil {
				return 0, 0, to.explained(err)
			}
			changed += different
		}
		records += len(c.entries)
		c.after = c.end
	}
	return changed, records, nil
}

// piece is a part of a bucket: what comes after a key, up to its end, or all.
type piece struct {
	bucket     []byte
	after, end string
	last       bool
	entries    map[string][]byte
	number     uint64
}

// read reads a piece of the store that is moved.
func (c *piece) read(tx kv.Tx) error {
	c.entries, c.last, c.number = make(map[string][]byte), true, 0
	b := tx.Bucket(c.bucket)
	if b == nil || bytes.Equal(c.bucket, bucketStages) {
		return nil // stages are made anew
	}
	n := 0
	for key, value := range b.Range(c.after+"\x00", "", moveAtOnce) {
		c.end, n = string(key), n+1
		if !c.isOurs(c.end) && (c.end != NoteStages || !bytes.Equal(c.bucket, bucketNotes)) {
			c.entries[c.end] = bytes.Clone(value)
		}
	}
	c.last, c.number = n < moveAtOnce, b.Number()
	return nil
}

// isOurs says that a record is about one place, and does not move.
func (c *piece) isOurs(key string) bool {
	if !bytes.Equal(c.bucket, bucketMeta) {
		return false
	}
	return slices.Contains(ours, key) || strings.HasPrefix(key, keyHere)
}

// write makes a piece of the other store like it. more says that there was more to take
// away than fits into one transaction.
func (c *piece) write(tx kv.Tx) (changed int, more bool, err error) {
	b, err := tx.Create(c.bucket)
	if err != nil {
		return 0, false, err
	}
	missing := make(map[string]bool, len(c.entries))
	for key := range c.entries {
		missing[key] = true
	}
	var gone []string
	n := 0
	for key, value := range b.Range(c.after+"\x00", "", 2*moveAtOnce) {
		if n++; !c.last && string(key) > c.end {
			break
		}
		switch want, held := c.entries[string(key)]; {
		case held:
			missing[string(key)] = !bytes.Equal(want, value)
		case !c.isOurs(string(key)):
			gone = append(gone, string(key))
		}
		more = n == 2*moveAtOnce
	}
	for _, key := range gone {
		if err := b.Delete(key); err != nil {
			return 0, false, err
		}
	}
	for key, is := range missing {
		if !is {
			continue
		}
		changed++
		if err := b.Put(key, c.entries[key]); err != nil {
			return 0, false, err
		}
	}
	if changed += len(gone); b.Number() < c.number {
		changed++
		err = b.SetNumber(c.number)
	}
	return changed, more && len(gone) > 0, err
}

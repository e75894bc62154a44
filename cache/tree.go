package cache

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"

	bolt "go.etcd.io/bbolt"
)

// The layout of bbolt's pages, which it does not tell: a header of id, flags, count and
// overflow; then elements of 16 bytes each, of a branch position, size and page, of a
// leaf flags, position and two sizes.
//
// Source: https://github.com/etcd-io/bbolt/blob/main/internal/common/page.go
const (
	pageHeader  = 16
	pageElement = 16

	branchPage   = 0x01
	leafPage     = 0x02
	bucketInLeaf = 0x01

	// bucketHeader stands before a bucket that is small enough to lie in a leaf.
	bucketHeader = 16
)

// tree looks at each page of a store once, in the order of its keys, and at nothing
// else than the file: a page that is reached twice would keep bbolt going round until
// the process ends, and keys out of order would make it say that somebody is unknown.
type tree struct {
	ctx   context.Context
	file  io.ReaderAt
	size  int64 // of a page
	seen  []bool
	depth int
	pages [][]byte // one for each depth
}

// countTree counts the records of each bucket as a transaction sees them, and says
// ErrCorrupt if a page is not what it has to be.
func countTree(ctx context.Context, tx *bolt.Tx, file io.ReaderAt) (records map[string]int, err error) {
	if err := checkFreelist(tx, file); err != nil {
		return nil, err
	}
	size := int64(tx.DB().Info().PageSize)
	t := &tree{ctx: ctx, file: file, size: size, seen: make([]bool, tx.Size()/size)}
	records = make(map[string]int)
	buckets := ascending{tree: t, flags: bucketInLeaf, each: func(name, value []byte) (err error) {
		records[string(name)], err = t.countBucket(value)
		return err
	}}
	err = buckets.page(uint64(tx.Cursor().Bucket().Root()))
	return records, err
}

// countBucket counts what is in a bucket, of which the value in its leaf is given.
func (t *tree) countBucket(value []byte) (n int, err error) {
	if len(value) < bucketHeader {
		return 0, fmt.Errorf("%w: a bucket lies outside of its page", ErrCorrupt)
	}
	records := ascending{tree: t, each: func(_, _ []byte) error { n++; return nil }}
	if root := binary.NativeEndian.Uint64(value); root != 0 {
		err = records.page(root)
	} else {
		err = records.elements(value[bucketHeader:])
	}
	return n, err
}

// read is a page with what flows over from it. It is good until another one of its
// depth is read.
func (t *tree) read(id uint64) ([]byte, error) {
	if err := context.Cause(t.ctx); err != nil {
		return nil, err
	}
	if t.depth == len(t.pages) {
		t.pages = append(t.pages, make([]byte, t.size))
	}
	page := t.pages[t.depth][:t.size]
	if id < 2 || id >= uint64(len(t.seen)) {
		return nil, fmt.Errorf("%w: a page lies outside of it", ErrCorrupt)
	}
	if _, err := t.file.ReadAt(page, int64(id)*t.size); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	end := id + 1 + uint64(binary.NativeEndian.Uint32(page[12:]))
	if binary.NativeEndian.Uint64(page) != id || end > uint64(len(t.seen)) {
		return nil, fmt.Errorf("%w: a page is not what belongs there", ErrCorrupt)
	}
	for i := id; i < end; i++ {
		if t.seen[i] {
			return nil, fmt.Errorf("%w: its pages go round", ErrCorrupt)
		}
		t.seen[i] = true
	}
	if end == id+1 {
		return page, nil
	}
	page = make([]byte, int64(end-id)*t.size)
	t.pages[t.depth] = page
	if _, err := t.file.ReadAt(page, int64(id)*t.size); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return page, nil
}

// ascending goes through a bucket, whose keys have to ascend.
type ascending struct {
	*tree
	flags uint32 // of its elements
	each  func(key, value []byte) error

	least []byte // no key that follows is less,
	above bool   // nor this one itself
}

func (a *ascending) page(id uint64) error {
	page, err := a.read(id)
	if err != nil {
		return err
	}
	a.depth++
	defer func() { a.depth-- }()
	return a.elements(page)
}

// elements goes through those of a page, and the pages that it leads to.
func (a *ascending) elements(page []byte) error {
	if len(page) < pageHeader {
		return errNoPage
	}
	flags, count := binary.NativeEndian.Uint16(page[8:]), int(binary.NativeEndian.Uint16(page[10:]))
	if flags != branchPage && flags != leafPage || pageHeader+count*pageElement > len(page) {
		return errNoPage
	}
	number := func(at int) int { return int(binary.NativeEndian.Uint32(page[at:])) }
	for i := range count {
		at := pageHeader + i*pageElement
		if flags == branchPage {
			begin := at + number(at)
			if err := a.ascend(page, begin, begin+number(at+4), false); err != nil {
				return err
			}
			if err := a.page(binary.NativeEndian.Uint64(page[at+8:])); err != nil {
				return err
			}
			continue
		}
		key := at + number(at+4)
		value := key + number(at+8)
		end := value + number(at+12)
		if end > len(page) || uint32(number(at)) != a.flags {
			return errNoPage
		}
		if err := a.ascend(page, key, value, true); err != nil {
			return err
		}
		if err := a.each(page[key:value], page[value:end]); err != nil {
			return err
		}
	}
	return nil
}

var errNoPage = fmt.Errorf("%w: a page is none", ErrCorrupt)

// ascend takes the next key, that of a record or the least below a branch.
func (a *ascending) ascend(page []byte, begin, end int, record bool) error {
	if end > len(page) {
		return errNoPage
	}
	key := page[begin:end]
	if order := bytes.Compare(key, a.least); order < 0 || order == 0 && a.above {
		return fmt.Errorf("%w: its keys are out of order", ErrCorrupt)
	}
	a.least, a.above = append(a.least[:0], key...), record
	return nil
}

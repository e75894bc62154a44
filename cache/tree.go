package cache

import (
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
)

// checkTree looks at each page of the trees once. A file in which a page is reached
// twice would keep bbolt going round until the process ends.
func checkTree(tx *bolt.Tx, file io.ReaderAt) error {
	size := int64(tx.DB().Info().PageSize)
	pages := tx.Size() / size
	meta := make([]byte, 80)
	root := uint64(0)
	for id := range int64(2) {
		if _, err := file.ReadAt(meta, id*size+pageHeader); err != nil {
			return err
		}
		if binary.NativeEndian.Uint64(meta[48:]) == uint64(tx.ID()) {
			root = binary.NativeEndian.Uint64(meta[16:])
		}
	}
	seen := make([]bool, pages)
	for todo := []uint64{root}; len(todo) > 0; {
		id := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if id < 2 || id >= uint64(pages) || seen[id] {
			return fmt.Errorf("%w: its pages go round", ErrCorrupt)
		}
		seen[id] = true
		below, err := childPages(file, id, size, pages)
		if err != nil {
			return err
		}
		todo = append(todo, below...)
	}
	return nil
}

// childPages are the pages that one leads to: those of a branch, or the roots of the
// buckets in a leaf.
func childPages(file io.ReaderAt, id uint64, size, pages int64) (below []uint64, err error) {
	page := make([]byte, size)
	if _, err := file.ReadAt(page, int64(id)*size); err != nil {
		return nil, err
	}
	flags, count := binary.NativeEndian.Uint16(page[8:]), int(binary.NativeEndian.Uint16(page[10:]))
	if more := int64(binary.NativeEndian.Uint32(page[12:])); more > 0 {
		if int64(id)+more >= pages {
			return nil, fmt.Errorf("%w: a page goes over its end", ErrCorrupt)
		}
		page = append(page, make([]byte, more*size)...)
		if _, err := file.ReadAt(page, int64(id)*size); err != nil {
			return nil, err
		}
	}
	if flags != branchPage && flags != leafPage || pageHeader+count*pageElement > len(page) {
		return nil, fmt.Errorf("%w: a page is none", ErrCorrupt)
	}
	for i := range count {
		at := pageHeader + i*pageElement
		element := page[at : at+pageElement]
		if flags == branchPage {
			below = append(below, binary.NativeEndian.Uint64(element[8:]))
			continue
		}
		if binary.NativeEndian.Uint32(element)&bucketInLeaf == 0 {
			continue
		}
		value := at + int(binary.NativeEndian.Uint32(element[4:])) + int(binary.NativeEndian.Uint32(element[8:]))
		if value < 0 || value+8 > len(page) {
			return nil, fmt.Errorf("%w: a bucket lies outside of its page", ErrCorrupt)
		}
		if bucket := binary.NativeEndian.Uint64(page[value:]); bucket != 0 { // else it stands in the leaf itself
			below = append(below, bucket)
		}
	}
	return below, nil
}

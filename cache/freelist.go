package cache

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"

	bolt "go.etcd.io/bbolt"
)

const (
	freelistPage = 0x10
	// noFreelist stands for its page where none was written.
	noFreelist = math.MaxUint64
	// manyFree says that the number of free pages did not fit, and comes first.
	manyFree = math.MaxUint16
)

// checkFreelist looks at the page that lists the free ones. bbolt believes it: a commit
// would free as many pages behind it as it says, or write over some that are in use.
func checkFreelist(tx *bolt.Tx, file io.ReaderAt) error {
	size := int64(tx.DB().Info().PageSize)
	pages := uint64(tx.Size() / size)
	for meta := range int64(2) {
		head := make([]byte, 56)
		if _, err := file.ReadAt(head, meta*size+pageHeader); err != nil {
			return err
		}
		id := binary.NativeEndian.Uint64(head[32:])
		if binary.NativeEndian.Uint64(head[48:]) != uint64(tx.ID()) || id == noFreelist {
			continue
		}
		if id < 2 || id >= pages {
			return errFreelist
		}
		if err := checkFree(file, id, size, pages); err != nil {
			return err
		}
	}
	return nil
}

var errFreelist = fmt.Errorf("%w: the list of its free pages is none", ErrCorrupt)

func checkFree(file io.ReaderAt, id uint64, size int64, pages uint64) error {
	head := make([]byte, pageHeader)
	if _, err := file.ReadAt(head, int64(id)*size); err != nil {
		return err
	}
	more := uint64(binary.NativeEndian.Uint32(head[12:]))
	if binary.NativeEndian.Uint64(head) != id || binary.NativeEndian.Uint16(head[8:]) != freelistPage || id+1+more > pages {
		return errFreelist
	}
	list := make([]byte, (int64(more)+1)*size-pageHeader)
	if _, err := file.ReadAt(list, int64(id)*size+pageHeader); err != nil {
		return err
	}
	n := uint64(binary.NativeEndian.Uint16(head[10:]))
	if n == manyFree {
		n, list = binary.NativeEndian.Uint64(list), list[8:]
	}
	if n > uint64(len(list)/8) {
		return errFreelist
	}
	last := uint64(1)
	for ; n > 0; n, list = n-1, list[8:] {
		free := binary.NativeEndian.Uint64(list)
		if free <= last || free >= pages { // they ascend
			return errFreelist
		}
		last = free
	}
	return nil
}

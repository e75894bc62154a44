package cache

import (
	"fmt"
	"os"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"
)

// Stats is how much there is.
type Stats struct {
	// Accounts is how many are in memory, about.
	Accounts int
	// Objects is how many records the file has of each kind, at CountedAt.
	Objects   map[string]int
	CountedAt time.Time
	// FileSize is in bytes. FreePages of it wait to be used again, as of the
	// last write of this process: zero before it.
	FileSize  int64
	FreePages int
}

// countAgain is how old the counts of records may get: counting reads every page of the
// file, which takes half a second for each GiB once it is in the system's memory.
const countAgain = time.Minute

// counts are the last counts of records.
type counts struct {
	mu      sync.Mutex
	objects map[string]int
	at      time.Time
}

// countedBuckets are those of which Stats tells.
var countedBuckets = [][]byte{
	bucketCustomers, bucketSubscriptions, bucketOrders, bucketGrants, bucketRefunds,
	bucketMembers, bucketSeats, bucketCheckouts, bucketLinks, bucketEmailLinks, bucketPasses,
}

// Stats says how much there is. Records are counted once a minute at most.
func (s *Store) Stats() (Stats, error) {
	db, err := s.open()
	if err != nil {
		return Stats{}, err
	}
	info, err := os.Stat(s.path)
	if err != nil {
		return Stats{}, fmt.Errorf("reading store %s: %w", s.path, err)
	}
	pages := db.Stats()
	out := Stats{
		Accounts: max(s.memory.accounts.EstimatedSize(), s.memory.notes.count()),
		FileSize: info.Size(), FreePages: pages.FreePageN + pages.PendingPageN,
	}
	c := &s.counts
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.objects == nil || time.Since(c.at) >= countAgain {
		objects, err := s.countAll()
		if err != nil {
			return Stats{}, err
		}
		c.objects, c.at = objects, time.Now()
	}
	out.Objects, out.CountedAt = c.objects, c.at // a map that is never changed
	return out, nil
}

// countAll counts the records by the file's pages, not by bbolt, which would go round
// for ever in a file that was damaged meanwhile.
func (s *Store) countAll() (objects map[string]int, err error) {
	db, err := s.open()
	if err != nil {
		return nil, err
	}
	began := time.Now()
	var records map[string]int
	err = s.transactOn(db, false, func(tx *bolt.Tx) (_ bool, err error) {
		if readHeader(tx).schema == 0 {
			return false, errUnclaimed
		}
		records, err = countTree(s.life, tx, db.file)
		return false, err
	})
	if s.observe(OpCount, began, err); err != nil {
		return nil, fmt.Errorf("reading store %s: %w", s.path, err)
	}
	objects = make(map[string]int, len(countedBuckets))
	for _, name := range countedBuckets {
		objects[string(name)] = records[string(name)]
	}
	return objects, nil
}

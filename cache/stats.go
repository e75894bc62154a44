package cache

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/caddy-polar/caddy-polar/cache/kv"
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

// Stats says how much there is, with an error as much as is known. Records are counted
// once a minute at most.
func (s *Store) Stats() (Stats, error) {
	out := Stats{Accounts: max(s.memory.accounts.EstimatedSize(), s.memory.notes.count())}
	if err := s.fit(); err != nil {
		return out, err
	}
	var err error
	if out.FileSize, out.FreePages, err = s.engine.Size(); err != nil {
		return out, err
	}
	c := &s.counts
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.objects == nil || time.Since(c.at) >= countAgain {
		objects, err := s.countAll()
		if err != nil {
			return out, err
		}
		c.objects, c.at = objects, time.Now()
	}
	out.Objects, out.CountedAt = c.objects, c.at // a map that is never changed
	return out, nil
}

// fit says why the store is not as it should be, of which counts that are kept and a size
// tell nothing.
func (s *Store) fit() error {
	err := s.read(func(tx kv.Tx) error {
		if sealed(tx) {
			return ErrSealed
		}
		return nil
	})
	if err != nil || !s.engine.Shared() {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), fitTime)
	defer cancel()
	return s.Check(ctx)
}

// fitTime bounds the question whether a database can be written.
const fitTime = 5 * time.Second

// countAll counts the records of a claimed store.
func (s *Store) countAll() (objects map[string]int, err error) {
	began := time.Now()
	err = s.engine.Transact(false, func(tx kv.Tx) (bool, error) { return false, unclaimed(tx) })
	var records map[string]int
	if err == nil {
		records, err = s.engine.Count()
	}
	if s.observe(OpCount, began, err); err != nil {
		return nil, fmt.Errorf("reading store %s: %w", s.Path(), err)
	}
	objects = make(map[string]int, len(countedBuckets))
	for _, name := range countedBuckets {
		objects[string(name)] = records[string(name)]
	}
	return objects, nil
}

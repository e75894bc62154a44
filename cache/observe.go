package cache

import "time"

// Op is one way to use the file.
type Op string

// The ways to use the file.
const (
	OpOpen   Op = "open"
	OpRead   Op = "read"   // one reading transaction
	OpCommit Op = "commit" // one writing transaction with its sync to disk, of all changes that waited
	OpCount  Op = "count"  // of all records, for Stats
	OpBackup Op = "backup"
	OpFollow Op = "follow" // of what other processes have written, in shared stores
)

// Ops are all of them.
var Ops = []Op{OpOpen, OpRead, OpCommit, OpCount, OpBackup, OpFollow}

// Observe has each use of the file told, with how long it took and why it failed,
// if it did. Call it before the store is used; told must be quick.
func (s *Store) Observe(told func(op Op, took time.Duration, err error)) { s.observer = told }

func (s *Store) observe(op Op, began time.Time, err error) {
	if s.observer != nil {
		s.observer(op, time.Since(began), err)
	}
}

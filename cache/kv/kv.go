// Package kv is what a store needs of whatever keeps it: transactions over buckets of
// keys in order. It knows nothing of what stands in them.
package kv

import (
	"errors"
	"iter"
)

var (
	// ErrClosed says that an engine was closed.
	ErrClosed = errors.New("the store is closed")
	// ErrUnreachable says that an engine's server does not answer, which can end.
	ErrUnreachable = errors.New("the database cannot be reached")
)

// Engine keeps buckets: in a file, or in a server's database. It opens on first use, and
// again after Reset. Its errors name its place and say what to do.
type Engine interface {
	// Path is its place, as errors call it.
	Path() string
	// Shared says that other processes can have it open, too.
	Shared() bool
	// Transact runs a transaction, which sees all that was committed before it; the
	// writing ones come one after the other, of whatever process they are. body says
	// whether there is something to commit. It may run more than once, and all but the
	// last time on less than there is. Its error is a *BodyError; others are the engine's.
	Transact(write bool, body func(Tx) (commit bool, err error)) error
	// Count counts the records of each bucket.
	Count() (records map[string]int, err error)
	// Size is in bytes, with what of it is free to be used again, in pages.
	Size() (bytes int64, freePages int, err error)
	// Reopened has check look at what is opened again from here on.
	Reopened(check func(Tx) error)
	// Retry makes the next use try at once what has just failed.
	Retry()
	// Reset lets go of what is open: nobody knows what a failed commit has left.
	Reset() error
	// Hurry gives up what is under way, if that can take long: it is about to be closed.
	Hurry()
	Close() error
}

// Tx is one transaction of a store: buckets of keys in order, as they are at one
// moment. What is read from it is not to be changed, and good until it ends.
type Tx interface {
	// Bucket is nil in a store from before there was such a bucket.
	Bucket(name []byte) Bucket
	// Create is Bucket, which is made where there is none.
	Create(name []byte) (Bucket, error)
	// Sequence numbers the transactions that write. That of one that reads is the last
	// one that it sees.
	Sequence() uint64
}

// Bucket is a part of a store, with keys of its own.
type Bucket interface {
	// Get is nil if there is no such key.
	Get(key string) []byte
	// Put refuses an empty key.
	Put(key string, value []byte) error
	Delete(key string) error
	// Range goes through the keys in order that begin with a prefix, and are not before
	// from: at most so many, or all if limit is 0. Nothing may be written meanwhile.
	Range(from, prefix string, limit int) iter.Seq2[[]byte, []byte]
	// NextNumber is a number that was never given before, Number the last one given.
	NextNumber() (uint64, error)
	Number() uint64
	// SetNumber makes a number the last one given.
	SetNumber(uint64) error
}

// BodyError is a failure of what ran in a transaction, before anything was handed to
// the engine.
type BodyError struct{ Err error }

func (e *BodyError) Error() string { return e.Err.Error() }

func (e *BodyError) Unwrap() error { return e.Err }

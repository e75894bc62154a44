package cache

import (
	"runtime"
	"testing"
)

// TestBatchFills: changes whose senders are about to run, as those are whom a
// commit has just released, are in one batch with the change that came first.
func TestBatchFills(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	s := New("") // nothing opens it, so nobody else takes its changes
	for range 32 {
		go func() { s.changes <- new(change) }()
	}
	if batch := s.more([]*change{new(change)}); len(batch) != 33 {
		t.Errorf("%d of 33 changes are in the batch", len(batch))
	}
}

// TestBatchIsBounded: the first of a batch does not wait for ever more.
func TestBatchIsBounded(t *testing.T) {
	s := New("")
	for range maxBatch + 1 {
		go func() { s.changes <- new(change) }()
	}
	parked(maxBatch+1, "TestBatchIsBounded.func1", "chan send")
	if batch := s.more([]*change{new(change)}); len(batch) != maxBatch {
		t.Errorf("a batch of %d, of at most %d", len(batch), maxBatch)
	}
	<-s.changes
	<-s.changes
}

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
	t.Cleanup(func() { _ = s.Close() })
	full := 0
	for range 100 {
		for range 32 {
			go func() { s.changes <- new(change) }()
		}
		batch := s.more([]*change{new(change)})
		if len(batch) == 33 {
			full++
		}
		for range 33 - len(batch) {
			<-s.changes
		}
	}
	if full < 80 { // every 61st turn is another's: the scheduler is fair
		t.Errorf("%d of 100 batches are full", full)
	}
}

// TestBatchIsBounded: the first of a batch does not wait for ever more.
func TestBatchIsBounded(t *testing.T) {
	s := New("")
	t.Cleanup(func() { _ = s.Close() })
	for range maxBatch + 1 {
		go func() { s.changes <- new(change) }()
	}
	parked(maxBatch+1, "TestBatchIsBounded.func2", "chan send")
	if batch := s.more([]*change{new(change)}); len(batch) != maxBatch {
		t.Errorf("a batch of %d, of at most %d", len(batch), maxBatch)
	}
	<-s.changes
	<-s.changes
}

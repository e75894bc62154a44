package gateway

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Unready is why a gateway is not ready to be asked.
type Unready string

// Why a gateway is not ready.
const (
	// UnreadyStore: the store cannot be read or written.
	UnreadyStore Unready = "store"
	// UnreadyFilling: not all that Polar has was read into the store yet.
	UnreadyFilling Unready = "first_sync"
	// UnreadyOld: the store is from long ago, and the sync that mends it is on its way.
	UnreadyOld Unready = "old_store"
)

const (
	// readyTime bounds the question whether the store can be written.
	readyTime = 5 * time.Second
	// oldAfter is how many times the time between two syncs a store may be left
	// alone and is still good to begin with.
	oldAfter = 24
)

// Readiness says whether a gateway is ready: the zero Reason says so.
type Readiness struct {
	Reason Unready
	Error  error // in words
}

// Ready says whether the gateway can decide. Without Polar it can, from its store: so
// what has failed at Polar makes nobody unready who once was filled.
func (g *Gateway) Ready(ctx context.Context) Readiness {
	ctx, cancel := context.WithTimeout(ctx, readyTime)
	defer cancel()
	_, err := g.claim()
	if err == nil {
		err = g.store.Check(ctx)
	}
	s := &g.sync
	s.mu.Lock()
	defer s.mu.Unlock()
	var r Readiness
	_, here := g.store.Kept(noteSynced).(SyncReport)
	switch {
	case err != nil:
		r.Reason, r.Error = UnreadyStore, err
	case g.client == nil || g.syncing.Off:
	case s.filled.IsZero():
		r.Reason, r.Error = UnreadyFilling, errors.New("the first sync is not done")
		if s.failed != nil {
			r.Error = fmt.Errorf("%w: %w", r.Error, s.failed)
		}
	case !here && s.failures == 0 && g.Now().Sub(s.filled) > oldAfter*g.SyncPeriod(s.last.weight()):
		r.Reason = UnreadyOld
		r.Error = fmt.Errorf("the store is of %s: the sync that mends it is under way", s.filled.UTC().Format(time.RFC3339))
	}
	return r
}

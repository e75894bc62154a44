package gateway

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-polar/caddy-polar/assertion"
)

// keyring is the ring of assertion keys in one store. All configurations that have the
// store share it, so that they sign alike.
type keyring struct {
	ring atomic.Pointer[assertion.Ring] // nil until it is read
	mu   sync.Mutex                     // held by who turns it
	// failed is why it could not be turned, which is not tried before again.
	failed error
	again  time.Time
}

const (
	keptKeyring = "assertion keys"
	noteKeyring = "assertion keys"
	// turnAgain is how long a store that did not take the keys is left alone.
	turnAgain = 10 * time.Second
)

// sharedKeyring is the store's.
func (g *Gateway) sharedKeyring() *keyring {
	return g.store.KeepFirst(keptKeyring, new(keyring)).(*keyring)
}

// AssertionKeys are the keys that the gateway makes itself, by which assertions are
// signed and verified at a moment of this machine's clock. They are in the store before
// anybody goes by them: a key that was lost in a crash would have signed for nothing.
func (g *Gateway) AssertionKeys(now time.Time) (assertion.Keys, error) {
	k := g.keyring
	ring := k.ring.Load()
	switch {
	case ring == nil:
		k.mu.Lock() // there is nothing to go by: wait
	case !ring.Due(now) || !k.mu.TryLock():
		return ring.Keys(now), nil
	}
	defer k.mu.Unlock()
	if held := k.ring.Load(); held != ring { // while this one has waited
		return held.Keys(now), nil
	}
	turned, err := g.turn(k, now)
	switch {
	case err == nil:
		ring = &turned
		k.ring.Store(ring)
	case ring == nil:
		return assertion.Keys{}, err
	}
	return ring.Keys(now), nil
}

// turn reads the ring and keeps it as it should be now.
func (g *Gateway) turn(k *keyring, now time.Time) (assertion.Ring, error) {
	if wait := k.again.Sub(now); wait > 0 && wait <= turnAgain { // a clock that was set back must not keep it
		return nil, k.failed
	}
	turned, err := g.turnKept(now)
	if k.failed = err; err != nil {
		k.again = now.Add(turnAgain)
		g.logger.Error("assertion keys are neither made nor changed, as the store cannot be used", zap.Error(err))
		return nil, err
	}
	return turned, nil
}

func (g *Gateway) turnKept(now time.Time) (assertion.Ring, error) {
	raw, err := g.Note(noteKeyring)
	if err != nil {
		return nil, fmt.Errorf("assertion keys: %w", err)
	}
	ring, err := assertion.ReadRing(raw)
	if errors.Is(err, assertion.ErrRing) {
		g.logger.Error("new ones are made, which apps fetch when they see them", zap.Error(err))
	}
	if !ring.Due(now) {
		return ring, nil
	}
	ring = ring.Turn(now)
	if err := g.Keep(noteKeyring, ring.Bytes()); err != nil {
		return nil, fmt.Errorf("assertion keys: %w", err)
	}
	g.logger.Info("an assertion key was made")
	return ring, nil
}

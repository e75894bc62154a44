package gateway

import (
	"context"
	"time"

	"github.com/caddy-polar/caddy-polar/cache"
)

// noteTimeout bounds how long writing a note may take.
const noteTimeout = 5 * time.Second

// Note is a small value that Keep was given under a key, nil if there is none.
func (g *Gateway) Note(key string) ([]byte, error) {
	if _, err := g.claim(); err != nil {
		return nil, err
	}
	return g.store.Note(key)
}

// Keep writes a small value into the store, to outlive a restart.
func (g *Gateway) Keep(key string, note []byte) error {
	if _, err := g.claim(); err != nil {
		return err
	}
	// Not of the gateway's life: another configuration may go on with what this one has begun.
	ctx, cancel := context.WithTimeout(context.Background(), noteTimeout)
	defer cancel()
	_, err := g.store.Apply(ctx, &cache.Facts{Notes: map[string][]byte{key: note}})
	return err
}

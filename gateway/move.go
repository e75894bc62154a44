package gateway

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-polar/caddy-polar/cache"
)

// sealedFor is how long a store that was moved takes no changes: Polar sends a webhook
// again for at least 17 minutes.
const sealedFor = 10 * time.Minute

// MovedStore tells of a store that was moved.
type MovedStore struct {
	cache.Moved
	From string
}

// MoveStore moves all that the store has to another one, which the configuration has to
// name from then on. Until then, and for ten minutes at most, webhooks are answered 503.
func (g *Gateway) MoveStore(ctx context.Context, to *cache.Store) (MovedStore, error) {
	if _, err := g.claim(); err != nil {
		return MovedStore{}, err
	}
	if to == g.store {
		return MovedStore{}, badInput("store: it is the one that the gateway has")
	}
	moved, err := g.store.MoveTo(ctx, to, sealedFor)
	if err != nil {
		return MovedStore{}, err
	}
	g.logger.Warn("the store was moved: let the configuration name the new one, and reload. Until then webhooks are told to come again",
		zap.String("from", g.store.Path()), zap.String("to", to.Path()), zap.Time("at_the_latest", moved.Sealed))
	return MovedStore{moved, g.store.Path()}, nil
}

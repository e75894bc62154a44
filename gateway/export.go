package gateway

import (
	"context"
	"errors"

	"github.com/caddy-polar/caddy-polar/cache"
	"github.com/caddy-polar/caddy-polar/entitlement"
)

// Backup makes a copy of the store as it is now. The caller closes it.
func (g *Gateway) Backup(ctx context.Context) (*cache.Copy, error) {
	if _, err := g.claim(); err != nil {
		return nil, err
	}
	return g.store.Copy(ctx)
}

// Export is Show for many: for users with later ids than after, in their order, as
// many as limit at most. more says that there are more.
func (g *Gateway) Export(ctx context.Context, after string, limit int) (list []Holding, more bool, err error) {
	if _, err := g.claim(); err != nil {
		return nil, false, err
	}
	err = g.store.EachAccount(ctx, after, func(a *entitlement.Account) error {
		switch {
		case !a.Known():
			return nil
		case len(list) == limit:
			more = true
			return errEnough
		}
		h, err := g.holding(a)
		list = append(list, h)
		return err
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	return list, more, err
}

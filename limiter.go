package caddypolar

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-polar/caddy-polar/gateway"
	"github.com/caddy-polar/caddy-polar/polar"
)

// limiters are shared by all gateways with the same access token, over
// reloads: Polar counts them together.
var limiters = caddy.NewUsagePool()

// Requests a minute that Polar allows an organization
// (https://polar.sh/docs/api-reference/2026-10/introduction).
const (
	limitProduction = 500
	limitSandbox    = 100
)

// pooledLimiter is a limiter as the pool wants it.
type pooledLimiter struct{ *polar.Limiter }

// Destruct implements caddy.Destructor.
func (pooledLimiter) Destruct() error { return nil }

// takeLimiter gives the gateway its share of the token's limiter.
func (g *Gateway) takeLimiter(c *gateway.Config) error {
	if c.AccessToken == "" {
		return nil
	}
	sum := sha256.Sum256([]byte(c.Server + " " + c.AccessToken))
	g.limiter = hex.EncodeToString(sum[:])
	limit, background := limitProduction, cmp.Or(c.Syncing.Budget, gateway.DefaultSyncBudget)
	if c.Server == serverSandbox {
		limit = limitSandbox
	}
	v, _, err := limiters.LoadOrNew(g.limiter, func() (caddy.Destructor, error) {
		return pooledLimiter{polar.NewLimiter(limit, background)}, nil
	})
	if err != nil {
		return err
	}
	c.Limiter = v.(pooledLimiter).Limiter
	c.Limiter.SetBackground(min(background, limit)) // a reload may have changed it
	return nil
}

func (g *Gateway) dropLimiter() {
	if g.limiter != "" {
		_, _ = limiters.Delete(g.limiter) // Destruct does not fail
		g.limiter = ""
	}
}

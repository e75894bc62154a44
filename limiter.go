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
	g.shared = c.Limiter
	c.Syncing.Budget = min(background, limit)
	g.budget = c.Syncing.Budget
	return nil
}

// setBudgets makes the budgets of this configuration count, now that it runs.
// Of several for one access token the smallest does.
func (a *App) setBudgets() {
	least := make(map[string]*Gateway)
	for _, g := range a.Gateways {
		if g.limiter != "" && (least[g.limiter] == nil || g.budget < least[g.limiter].budget) {
			least[g.limiter] = g
		}
	}
	for _, g := range least {
		g.shared.SetBackground(g.budget)
	}
}

func (g *Gateway) dropLimiter() {
	if g.limiter != "" {
		_, _ = limiters.Delete(g.limiter) // Destruct does not fail
		g.limiter = ""
	}
}

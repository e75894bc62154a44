// Package caddypolar turns Caddy into an entitlement gateway for Polar
// (https://polar.sh): it stands in front of existing apps and lets a request
// through to a protected path only if the user named by its JWT has paid.
package caddypolar

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/caddyserver/caddy/v2"
)

func init() {
	caddy.RegisterModule(App{})
}

// appName is the name of the app and of its global option.
const appName = "polar"

// App is the `polar` app: the gateways that the site handlers `polar` and
// `polar_require` refer to by name.
//
// A gateway is one Polar organization in one environment, with its
// credentials, keys, plans, rules and store.
type App struct {
	// Gateways by name. The name of the only one is usually "default".
	Gateways map[string]*Gateway `json:"gateways,omitempty"`

	matched bool // some matcher of the configuration asks what users have
}

// CaddyModule returns the Caddy module information.
func (App) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  appName,
		New: func() caddy.Module { return new(App) },
	}
}

// Provision sets up the gateways. It opens no file and talks to nobody, so
// that a configuration can be checked beside a running server.
func (a *App) Provision(ctx caddy.Context) error {
	if err := registerMetrics(ctx.GetMetricsRegistry()); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(a.Gateways)) {
		g := a.Gateways[name]
		if g == nil {
			return fmt.Errorf("gateway %s: it is null: remove it or configure it", name)
		}
		if err := g.provision(ctx, name); err != nil {
			return fmt.Errorf("gateway %s: %w", name, err)
		}
	}
	return a.checkPrefixes()
}

// checkPrefixes wants that no gateway strips what another one has set.
func (a *App) checkPrefixes() error {
	for name, g := range a.Gateways {
		for other, o := range a.Gateways {
			if g.names.folded != o.names.folded && o.names.ours(g.names.folded) {
				return fmt.Errorf("gateway %s: headers: its prefix begins with that of gateway %s, which would take its headers away: choose another", name, other)
			}
		}
	}
	return nil
}

// Start claims the stores, so that a second server on the same file fails with
// a sentence and not at the first request, and has the keys of issuers fetched.
func (a *App) Start() error {
	a.setBudgets()
	for _, name := range slices.Sorted(maps.Keys(a.Gateways)) {
		g := a.Gateways[name]
		if err := g.core.Start(); err != nil {
			return err
		}
		if last := g.core.LastSync(); g.core.Syncs() && !last.IsZero() {
			g.metrics.syncedLast(last)
		} else if g.core.Syncs() {
			g.metrics.syncedLast(g.core.Now())
		}
		g.startKeys()
		g.startAssertion()
	}
	return nil
}

// Stop ends the syncs and fetches. Requests in flight go on, and Cleanup lets go of the
// stores.
func (a *App) Stop() error {
	for _, g := range a.Gateways {
		g.stopKeys()
		g.core.Stop()
	}
	return nil
}

// Cleanup lets go of what Provision took, also of a half of it.
func (a *App) Cleanup() error {
	var errs []error
	for _, g := range a.Gateways {
		if g != nil {
			errs = append(errs, g.cleanup())
		}
	}
	return errors.Join(errs...)
}

// follow makes all gateways go by a clock that can be moved: the demo's.
func (a *App) follow(clock func() time.Time) {
	for _, g := range a.Gateways {
		g.core.Follow(clock)
	}
}

// gateway finds a gateway by name, "" being the default one.
func (a *App) gateway(name string) (*Gateway, error) {
	if name == "" {
		name = defaultGateway
	}
	if g, ok := a.Gateways[name]; ok {
		return g, nil
	}
	return nil, fmt.Errorf("there is no gateway %q: add it as `polar %s { … }` to the global options", name, name)
}

// loadApp finds the app of this configuration for a site handler.
func loadApp(ctx caddy.Context) (*App, error) {
	v, err := ctx.AppIfConfigured(appName)
	if err != nil {
		if errors.Is(err, caddy.ErrNotConfigured) {
			return nil, fmt.Errorf("polar is not configured: add a `polar { … }` block to the global options: %w", err)
		}
		return nil, err
	}
	return v.(*App), nil
}

// Interface guards
var (
	_ caddy.App          = (*App)(nil)
	_ caddy.Provisioner  = (*App)(nil)
	_ caddy.CleanerUpper = (*App)(nil)
)

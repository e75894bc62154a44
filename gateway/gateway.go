// Package gateway is what the product does, without Caddy: it takes Polar's
// webhooks and decides for users.
package gateway

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-polar/caddy-polar/cache"
	"github.com/caddy-polar/caddy-polar/entitlement"
	"github.com/caddy-polar/caddy-polar/polar"
)

// ErrNotConfigured says that the gateway lacks what the call needs.
var ErrNotConfigured = errors.New("not configured")

// Config is what one gateway is made of. Secrets in it are resolved.
type Config struct {
	Name           string
	Server         string // Polar's base URL
	Organization   string // empty: learned from the first fact
	AccessToken    string
	WebhookSecrets []string
	Plans          []entitlement.Plan
	Store          *cache.Store
	Logger         *zap.Logger
	// Now is the clock, time.Now if nil.
	Now func() time.Time
}

// Gateway is one Polar organization in one environment.
type Gateway struct {
	name     string
	owner    cache.Owner
	store    *cache.Store
	rules    entitlement.Rules
	verifier *polar.WebhookVerifier // nil: no webhook secret
	logger   *zap.Logger
	now      func() time.Time

	keys atomic.Pointer[cache.Keys] // nil until the store is claimed
}

// New makes a gateway. It opens nothing: the store is claimed by Start, or by
// whatever needs it first.
func New(c Config) (*Gateway, error) {
	g := &Gateway{
		name: c.Name,
		owner: cache.Owner{
			Gateway: c.Name, Server: c.Server, Organization: c.Organization,
			MarkKey: markKey(c.Name, c.AccessToken),
		},
		store:  c.Store,
		rules:  entitlement.Rules{Plans: c.Plans, CanConfirm: c.AccessToken != ""},
		logger: c.Logger,
		now:    c.Now,
	}
	if g.now == nil {
		g.now = time.Now
	}
	if g.logger == nil {
		g.logger = zap.NewNop()
	}
	if len(c.WebhookSecrets) > 0 {
		v, err := polar.NewWebhookVerifier(c.WebhookSecrets...)
		if err != nil {
			return nil, fmt.Errorf("webhook_secret: %w", err)
		}
		g.verifier = v
	}
	return g, nil
}

// Start claims the store, so that a server that cannot use it fails loudly.
func (g *Gateway) Start() error {
	_, err := g.claim()
	return err
}

func (g *Gateway) claim() (*cache.Keys, error) {
	if k := g.keys.Load(); k != nil {
		return k, nil
	}
	k, err := g.store.Claim(g.owner)
	if err != nil {
		return nil, fmt.Errorf("gateway %s: %w", g.name, err)
	}
	g.keys.Store(&k)
	return &k, nil
}

// Name is the gateway's name.
func (g *Gateway) Name() string { return g.name }

// Now is the current time, by the gateway's clock.
func (g *Gateway) Now() time.Time { return g.now() }

// Rules are the plans and what decides about them. Do not change them.
func (g *Gateway) Rules() *entitlement.Rules { return &g.rules }

// Account is all that is known about a user. An error means that the store
// cannot be read, which says nothing about the user.
func (g *Gateway) Account(user string) (*entitlement.Account, error) {
	if _, err := g.claim(); err != nil {
		return nil, err
	}
	return g.store.Account(user)
}

// HashUser stands for a user where an id must not stand: user ids can be
// e-mail addresses. It is the same as long as the store is.
func (g *Gateway) HashUser(user string) string {
	keys, err := g.claim()
	if err != nil {
		return ""
	}
	mac := hmac.New(sha256.New, keys.Random)
	mac.Write([]byte(user))
	return hex.EncodeToString(mac.Sum(nil)[:8])
}

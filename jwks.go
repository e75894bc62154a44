package caddypolar

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-polar/caddy-polar/cache"
	"github.com/caddy-polar/caddy-polar/identity/jwks"
)

// feeds hold the keys that issuers publish, over reloads: a new configuration goes on
// with what the old one knew, and asks nobody.
var feeds = caddy.NewUsagePool()

// feedKey is whose keys a feed holds, and where they are written down.
type feedKey struct {
	gateway, url string
	store        *cache.Store
}

// pooledFeed is a feed as the pool wants it.
type pooledFeed struct{ *jwks.Feed }

// Destruct implements caddy.Destructor.
func (p pooledFeed) Destruct() error {
	p.Close()
	return nil
}

// keySet is the use that a configuration makes of a feed.
type keySet struct {
	*jwks.Set
	key      feedKey
	maxStale time.Duration
}

// checkJWKS checks the URL of a set.
func checkJWKS(address string) error {
	_, err := jwks.ParseURL(address)
	if err != nil {
		return fmt.Errorf("jwks: %w", err)
	}
	return nil
}

// checkMaxStale checks for how long keys are believed.
func checkMaxStale(d time.Duration) error {
	if d < jwks.MinMaxStale {
		return fmt.Errorf("max_stale: at least %v", jwks.MinMaxStale)
	}
	return nil
}

// takeKeys gives a jwt block the keys of its URL. Nothing is fetched before Start.
func (g *Gateway) takeKeys(j *JWT) (*jwks.Set, error) {
	address, err := expand("jwt: jwks", j.JWKS)
	if err != nil {
		return nil, err
	}
	config := jwks.Config{MaxStale: jwks.DefaultMaxStale, Logger: g.logger, OnFetch: g.metrics.fetchedKeys}
	if j.MaxStale != nil {
		config.MaxStale = time.Duration(*j.MaxStale)
	}
	if err := checkMaxStale(config.MaxStale); err != nil {
		return nil, fmt.Errorf("jwt: %w", err)
	}
	sum := sha256.Sum256([]byte(address)) // a URL can hold a secret
	note := "jwks " + hex.EncodeToString(sum[:])
	config.Load = func() ([]byte, error) { return g.core.Note(note) }
	config.Save = func(raw []byte) error { return g.core.Keep(note, raw) }

	key := feedKey{g.name, address, g.mirror}
	for _, s := range g.keySets { // of another block
		if s.key == key && s.maxStale == config.MaxStale {
			return s.Set, nil
		}
	}
	v, _, err := feeds.LoadOrNew(key, func() (caddy.Destructor, error) {
		feed, err := jwks.NewFeed(address, jwks.Options{})
		return pooledFeed{feed}, err
	})
	if err != nil {
		return nil, fmt.Errorf("jwt: jwks: %s%w", shown(j.JWKS), err)
	}
	set, err := jwks.New(v.(pooledFeed).Feed, config)
	if err != nil {
		_, _ = feeds.Delete(key) // Destruct does not fail
		return nil, fmt.Errorf("jwt: %w", err)
	}
	g.keySets = append(g.keySets, keySet{set, key, config.MaxStale})
	return set, nil
}

func (g *Gateway) startKeys() {
	for _, s := range g.keySets {
		s.Start()
	}
}

func (g *Gateway) stopKeys() {
	for _, s := range g.keySets {
		s.Stop()
	}
}

func (g *Gateway) dropKeys() {
	for _, s := range g.keySets {
		s.Stop()
		_, _ = feeds.Delete(s.key) // Destruct does not fail
	}
	g.keySets = nil
}

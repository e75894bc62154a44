package gateway

import (
	"context"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-polar/caddy-polar/cache"
	"github.com/caddy-polar/caddy-polar/polar"
)

// connect makes the client that asks Polar. It does not talk to it yet.
func (g *Gateway) connect(c *Config) error {
	if c.AccessToken == "" {
		return nil
	}
	g.limiter = c.Limiter
	var err error
	g.client, err = polar.NewClient(polar.ClientConfig{
		BaseURL: c.Server, Token: c.AccessToken, Version: c.APIVersion,
		Limiter: c.Limiter, Logger: g.logger, Now: g.local, Sleep: g.sleep,
		OnCall: func(call polar.Call) {
			if offset, known := g.client.Offset(); known {
				g.store.Keep(keptOffset, offset) // for the next configuration
			}
			g.heard.call(call, g.local())
			if c.OnCall != nil {
				c.OnCall(call)
			}
		},
		OnVersionGone: func(used string) {
			g.heard.versionGone.Store(true)
			g.logger.Error("Polar no longer serves the API version: going on without one; set a newer api_version, or update",
				zap.String("api_version", c.APIVersion), zap.String("used", used))
			if c.OnVersionGone != nil {
				c.OnVersionGone()
			}
		},
	})
	if err != nil {
		return fmt.Errorf("access_token: %w", err)
	}
	return nil
}

// CanAsk says whether the gateway has an access token.
func (g *Gateway) CanAsk() bool { return g.client != nil }

// ask is the client, or why there is none.
func (g *Gateway) ask() (*polar.Client, error) {
	if g.client == nil {
		return nil, fmt.Errorf("access_token: %w", ErrNotConfigured)
	}
	return g.client, nil
}

const (
	// blur is what can be wrong about an offset: Polar's Date has whole
	// seconds, and an answer takes time. A clock that is right stays right.
	blur = 2 * time.Second
	// keptOffset is under which name the store keeps the offset over reloads.
	keptOffset = "offset"
	// skewed is when a clock is worth a word.
	skewed = 30 * time.Second
)

// offset is how far Polar's clock is ahead of ours. If that is set back, what is over
// must not begin again: then it is more, before Polar says so.
func (g *Gateway) offset(local time.Time) time.Duration {
	if g.client == nil {
		return 0
	}
	offset, known := g.client.Offset()
	if !known {
		offset, known = g.store.Kept(keptOffset).(time.Duration)
	}
	if back := g.client.SetBack(local); back > blur {
		offset += back
	}
	if !known || offset > -blur && offset < blur {
		return 0
	}
	if (offset > skewed || offset < -skewed) && g.warnedSkew.CompareAndSwap(false, true) {
		g.logger.Warn("this machine's clock is off: Polar's is taken for periods and webhooks, tokens go by ours; set the clock",
			zap.Duration("polar_is_ahead_by", offset))
	}
	return offset
}

// hearClock asks Polar for no more than its time, unless that was heard lately. Our
// clock may have jumped since by more than a webhook's timestamp can be off.
func (g *Gateway) hearClock(ctx context.Context, client *polar.Client) error {
	if client.ClockHeard(polar.Tolerance) {
		return nil
	}
	_, err := client.ListSubscriptions(ctx, polar.SubscriptionFilter{}, polar.Paging{Limit: 1})
	return err
}

// errUnreadable says that an answer of Polar's has an object in it of which no
// fact can be made.
var errUnreadable = fmt.Errorf("%w: an object that cannot be read", polar.ErrUnexpected)

// learn makes what was read from Polar durable and in force. After an object
// that could not be read the others are in force, and the error says so.
func (g *Gateway) learn(ctx context.Context, asOf time.Time, read ...func(*reader) error) error {
	facts, unreadable, err := g.facts(asOf, read...)
	if err != nil {
		return err
	}
	applied, err := g.write(ctx, facts)
	switch {
	case err != nil:
		return err
	case applied.Foreign:
		return errForeign
	case unreadable > 0:
		return errUnreadable
	}
	return nil
}

// facts collects what the readers read. What cannot be read is logged, counted
// and left out: one bad object must not keep the others away.
func (g *Gateway) facts(asOf time.Time, read ...func(*reader) error) (_ *cache.Facts, unreadable int, _ error) {
	keys, err := g.claim()
	if err != nil {
		return nil, 0, err
	}
	facts := &cache.Facts{}
	r := g.newReader(keys, asOf, facts)
	for _, do := range read {
		if err := do(&r); err != nil {
			unreadable++
			g.logger.Error("Polar answered with an object that cannot be read: whom it concerns cannot be confirmed", zap.Error(err))
		}
	}
	return facts, unreadable, nil
}

func (g *Gateway) newReader(keys *cache.Keys, asOf time.Time, facts *cache.Facts) reader {
	r := reader{
		asOf: asOf, latest: g.Now().Add(farFuture), facts: facts,
		user: func(m polar.Metadata) string { return markedUser(keys.Marks, m[MarkField]) },
	}
	if g.linkEmail {
		r.digest = func(address string) cache.EmailDigest { return emailDigest(keys, address) }
	}
	return r
}

// each reads all items of a page.
func each[T any](items []T, read func(*reader, T) error) []func(*reader) error {
	all := make([]func(*reader) error, len(items))
	for i := range items {
		all[i] = func(r *reader) error { return read(r, items[i]) }
	}
	return all
}

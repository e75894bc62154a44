package gateway

import (
	"context"

	"github.com/caddy-polar/caddy-polar/cache"
	"github.com/caddy-polar/caddy-polar/entitlement"
)

// News tells of a subscription that is new, or other than it was, and of what
// its user has now.
type News struct {
	cache.SubscriptionChange
	// Decision is that for any plan. Of nobody's subscription it is empty.
	Decision entitlement.Decision
}

// maxNews is how much news can wait for who is told of it.
const maxNews = 1024

// write makes facts durable and in force, and then lets those be told who want
// to know. What fills an empty store is no news.
func (g *Gateway) write(ctx context.Context, facts *cache.Facts) (cache.Applied, error) {
	g.stamp(facts)
	var changes []cache.SubscriptionChange
	if g.onNews != nil && !facts.Filling {
		facts.Changes = &changes
	}
	applied, err := g.store.Apply(ctx, facts)
	if err != nil {
		return applied, err
	}
	if g.sender != nil && applied.New > 0 {
		g.notifier.changed()
	}
	for _, change := range changes {
		select {
		case g.news <- change:
		default:
			g.logger.Warn("too many subscriptions change at once: no event tells of some")
			return applied, nil
		}
	}
	return applied, nil
}

// stamp says of facts where they come from, and for how long the journal tells of
// them.
func (g *Gateway) stamp(facts *cache.Facts) {
	facts.At, facts.Audit, facts.Filling = g.Now(), g.journalFor(), facts.Sweep && g.filling()
	if g.sender != nil {
		facts.Unread = g.notifier.unread()
	}
	switch {
	case facts.Source != cache.Source{}:
	case facts.Sweep:
		facts.Source.Kind = cache.SourceSync
	default:
		facts.Source.Kind = cache.SourceRead
	}
}

// tellNews tells until the context ends. Who listens holds up nobody else.
func (g *Gateway) tellNews(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case change := <-g.news:
			g.onNews(News{change, g.decisionFor(change.User)})
		}
	}
}

// decisionFor is what a user has of any plan.
func (g *Gateway) decisionFor(user string) entitlement.Decision {
	if user == "" {
		return entitlement.Decision{}
	}
	account, err := g.Account(user)
	if err != nil {
		return entitlement.Unavailable()
	}
	return entitlement.Decide(account, entitlement.Requirement{}, g.Rules(), g.Now())
}

package caddypolar

import (
	"context"
	"sync"
	"time"

	"github.com/caddy-polar/caddy-polar/gateway"
	"github.com/caddy-polar/caddy-polar/identity/jwks"
)

// keyUse is the use that a jwt block makes of a set of keys.
type keyUse struct {
	set        *jwks.Set
	algorithms []string // none stands for all
}

// siteNotes are what doctor has to know of the sites' handlers, which are provisioned
// one by one, and before anybody asks.
type siteNotes struct {
	routes []string // the paths of webhook routes
	allow  bool     // some gate has on_unavailable allow
	dry    []string // gates that refuse nobody
}

// gate takes note of what a gate lets through on purpose.
func (n *siteNotes) gate(g *Gate) {
	n.allow = n.allow || g.OnUnavailable == policyAllow
	if g.DryRun {
		n.dry = append(n.dry, g.rule)
	}
}

// surroundings are what the gateway's doctor cannot know by itself.
func (g *Gateway) surroundings(ctx context.Context) gateway.Surroundings {
	s := gateway.Surroundings{
		Nobody: len(g.identifiers) == 0, Literal: g.literal,
		AllowUnavailable: g.OnUnavailable == policyAllow || g.sites.allow, Risks: g.risks(),
	}
	s.KeySets = make([]gateway.KeySet, len(g.keyUses))
	var asking sync.WaitGroup
	for i, use := range g.keyUses {
		asking.Go(func() { s.KeySets[i] = use.ask(ctx) })
	}
	for _, way := range g.identifiers {
		if app, ok := way.(*sessions); ok {
			asking.Go(func() { s.Session = &gateway.SessionEndpoint{Place: app.asker.Place(), Err: app.asker.Probe(ctx)} })
		}
	}
	asking.Wait()
	return s
}

func (u keyUse) ask(ctx context.Context) gateway.KeySet {
	p := u.set.Probe(ctx, time.Now())
	k := gateway.KeySet{Place: p.Place, Err: p.Err, Keys: len(p.Keys), Left: p.Left, Held: p.Held, Fetched: p.Fetched}
	for _, key := range p.Keys {
		if key.Verifies(u.algorithms) {
			k.Fitting++
		}
	}
	return k
}

// risks are settings that let in, or do, more or less than one may remember.
func (g *Gateway) risks() (list []string) {
	for i := range g.JWT {
		j := &g.JWT[i]
		for _, waived := range []struct {
			name   string
			values []string
		}{{"audience", j.Audience}, {"issuer", j.Issuer}} {
			if j.JWKS != "" && len(waived.values) == 1 && waived.values[0] == "any" {
				list = append(list, "jwt: jwks with "+waived.name+" any: tokens that were made for another app count too")
			}
		}
	}
	if g.Link == linkEmail && len(g.JWT) == 0 && g.Session == nil {
		list = append(list, "link email does nothing without jwt or session")
	}
	if g.Assertion != nil && len(g.sites.routes) == 0 {
		list = append(list, "assertion: no site has polar, which publishes the keys: no app can verify it")
	}
	for _, rule := range g.sites.dry {
		list = append(list, "polar_require "+rule+" has dry_run: it refuses nobody")
	}
	return list
}

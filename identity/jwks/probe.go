package jwks

import (
	"context"
	"time"

	"github.com/caddy-polar/caddy-polar/identity"
)

// Probe is what a URL publishes now, beside what is held of it.
type Probe struct {
	Place string // the URL, without what can be secret in it
	Err   error  // why nothing came
	Keys  []identity.Key
	Left  []string // which keys cannot be used, and why
	// Held is how many keys are believed meanwhile, since Fetched.
	Held    int
	Fetched time.Time
}

// Probe asks for the keys once, and changes nothing of what is held.
func (s *Set) Probe(ctx context.Context, now time.Time) Probe {
	p := Probe{Place: s.feed.place()}
	doc, _, err := s.feed.fetch(ctx)
	p.Err, p.Left = err, doc.left
	for _, k := range doc.keys {
		p.Keys = append(p.Keys, k.Key)
	}
	if snap := s.usable(now); snap != nil {
		p.Held, p.Fetched = len(snap.keys), snap.fetched
	}
	return p
}

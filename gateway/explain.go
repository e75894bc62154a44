package gateway

import (
	"time"

	"github.com/caddy-polar/caddy-polar/cache"
	"github.com/caddy-polar/caddy-polar/entitlement"
)

// Explanation says why a user is let through or refused.
type Explanation struct {
	entitlement.Explanation
	User  string
	Known bool // something of theirs is held
	At    time.Time
	// AsksPolar says that a gate would ask Polar before it refuses: the
	// decision may rest on what has not been heard yet.
	AsksPolar bool
	// EmailTaken is a customer with the user's verified e-mail that is another
	// user's, empty if none is known: e-mails are not kept.
	EmailTaken string
	// Demanded are the plans of which one is needed, none: any.
	Demanded []string
	// Told is where the facts come from.
	Told map[cache.Object]cache.Told
}

// Explain decides as a gate does that demands one of the plans, or any if none
// is given, and says why. at is the moment to decide for, zero being now.
func (g *Gateway) Explain(user string, at time.Time, plans ...string) (Explanation, error) {
	if err := checkUser(user); err != nil {
		return Explanation{}, err
	}
	return g.explain(Visitor{User: user, Person: user}, at, plans...)
}

// explain is Explain for somebody for whom another may pay, or nobody.
func (g *Gateway) explain(v Visitor, at time.Time, plans ...string) (Explanation, error) {
	rules := g.Rules()
	q, err := rules.Require(plans...)
	if err != nil {
		return Explanation{}, err
	}
	account, err := g.AccountOf(v)
	if err != nil {
		return Explanation{}, err
	}
	links, err := g.store.Links(v.User)
	if err != nil {
		return Explanation{}, err
	}
	told, err := g.store.Told(heldObjects(account), 0)
	if err != nil {
		return Explanation{}, err
	}
	e := Explanation{Demanded: plans, Told: told, User: v.User, Known: account.Known(), At: at, EmailTaken: g.contested.of(v.User)}
	if at.IsZero() {
		e.At = g.Now()
	}
	e.Explanation = entitlement.Explain(account, q, rules, links, e.At)
	e.AsksPolar = at.IsZero() && g.client != nil && !e.Decision.Allowed && g.doubts(account, &e.Decision) != (doubt{})
	return e, nil
}

package gateway

import (
	"cmp"
	"slices"

	"github.com/caddy-polar/caddy-polar/cache"
	"github.com/caddy-polar/caddy-polar/entitlement"
)

// How much is told of what has changed.
const (
	historyOfObject = 20
	historyOfUser   = 100
)

// heldObjects are all of Polar's that an account has.
func heldObjects(a *entitlement.Account) (list []cache.Object) {
	add := func(kind, id string) { list = append(list, cache.Object{Kind: kind, ID: id}) }
	for i := range a.Customers {
		add("customer", a.Customers[i].ID)
	}
	for i := range a.Subscriptions {
		add("subscription", a.Subscriptions[i].ID)
	}
	for i := range a.Orders {
		add("order", a.Orders[i].ID)
	}
	for i := range a.Grants {
		add("grant", a.Grants[i].ID)
	}
	for i := range a.Refunds {
		add("refund", a.Refunds[i].ID)
	}
	for i := range a.Members {
		add("member", a.Members[i].ID)
	}
	for i := range a.Seats {
		add("seat", a.Seats[i].ID)
	}
	return list
}

// history is what has changed of an account's objects, the latest first, as far back
// as it is kept and not endlessly.
func (g *Gateway) history(told map[cache.Object]cache.Told) []cache.Entry {
	var list []cache.Entry
	since := g.Now().Add(-g.audit)
	for _, t := range told {
		for _, e := range t.History {
			if !e.At.Before(since) {
				list = append(list, e)
			}
		}
	}
	slices.SortFunc(list, func(a, b cache.Entry) int { return cmp.Compare(b.Number, a.Number) })
	return list[:min(len(list), historyOfUser)]
}

package entitlement_test

import (
	"fmt"
	"testing"

	ent "github.com/caddy-polar/caddy-polar/entitlement"
)

// typical has one active subscription with a benefit, the orders that paid for
// it, and an older grant.
func typical() *ent.Account {
	ofSubscription := func(id string) func(*ent.Order) {
		return func(o *ent.Order) { o.ID, o.SubscriptionID = id, "sub" }
	}
	return ent.NewAccount("ann", facts(
		sub("active"),
		order("paid", ofSubscription("ord1")), order("paid", ofSubscription("ord2")),
		grant(grantID("a"), ofSub("sub")), grant(grantID("b"), ofSub("gone"), revoked(start)),
	))
}

func twoPlans() *ent.Rules {
	r := rules()
	r.Plans = r.Plans[:2]
	return r
}

func BenchmarkDecide(b *testing.B) {
	a, r := typical(), twoPlans()
	now := start.Add(day)
	for _, c := range []struct {
		name  string
		plans []string
	}{{"allowed", []string{"pro"}}, {"any", nil}, {"refused", []string{"team"}}} {
		b.Run(c.name, func(b *testing.B) {
			q := require(b, r, c.plans...)
			b.ReportAllocs()
			for b.Loop() {
				ent.Decide(a, q, r, now)
			}
		})
	}
}

func many() ent.Facts {
	f := facts()
	for i := range 200 {
		s := sub("canceled", subID(fmt.Sprintf("sub%03d", i)), endedAt(start))
		if i == 199 {
			s.Status = ent.StatusActive
		}
		f.Subscriptions = append(f.Subscriptions, s)
	}
	return f
}

func BenchmarkDecide200Subscriptions(b *testing.B) {
	a, r := ent.NewAccount("ann", many()), twoPlans()
	q, now := require(b, r, "pro"), start.Add(day)
	if d := ent.Decide(a, q, r, now); !d.Allowed {
		b.Fatalf("%+v", d)
	}
	b.ReportAllocs()
	for b.Loop() {
		ent.Decide(a, q, r, now)
	}
}

func BenchmarkNewAccount200Subscriptions(b *testing.B) {
	f := many()
	b.ReportAllocs()
	for b.Loop() {
		ent.NewAccount("ann", f)
	}
}

package entitlement_test

import (
	"fmt"
	"testing"
	"time"

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

// fourPlans have three products and two benefits each.
func fourPlans() *ent.Rules {
	r := &ent.Rules{CanConfirm: true, ConfirmedAt: end.Add(99 * day)}
	for i := range 4 {
		p := ent.Plan{Name: fmt.Sprint("plan", i), Grace: ent.DefaultGrace()}
		for n := range 3 {
			p.Products = append(p.Products, fmt.Sprintf("b7a5c1ce-product-%d-%d", i, n))
		}
		for n := range 2 {
			p.Benefits = append(p.Benefits, fmt.Sprintf("b7a5c1ce-benefit-%d-%d", i, n))
		}
		r.Plans = append(r.Plans, p)
	}
	return r
}

// mixed has 200 subscriptions in all statuses to all products of the four plans,
// each with a grant.
func mixed() ent.Facts {
	r := fourPlans()
	var f ent.Facts
	for i := range 200 {
		p := r.Plans[i%4]
		at := start.Add(time.Duration(i*7%200) * time.Hour)
		s := sub(statuses[i%len(statuses)], subID(fmt.Sprintf("sub%03d", i)), product(p.Products[i%3]), endedAt(at), pastDueAt(at), pausedAt(at), periodEnd(at.Add(30*day)))
		f.Subscriptions = append(f.Subscriptions, s)
		g := grant(grantID(fmt.Sprintf("grant%03d", i)), ofSub(s.ID), benefit(p.Benefits[i%2]))
		if s.Status.Ended() {
			g = grant(grantID(g.ID), ofSub(s.ID), benefit(g.BenefitID), revoked(s.EndedAt))
		}
		f.Grants = append(f.Grants, g)
	}
	return f
}

func BenchmarkDecideMixed200(b *testing.B) {
	a, r := ent.NewAccount("ann", mixed()), fourPlans()
	for _, c := range []struct {
		name  string
		plans []string
		now   time.Time
	}{{"allowed", nil, start.Add(day)}, {"refused", nil, end.Add(30 * day)}, {"one plan refused", []string{"plan2"}, end.Add(30 * day)}} {
		b.Run(c.name, func(b *testing.B) {
			q := require(b, r, c.plans...)
			b.ReportAllocs()
			for b.Loop() {
				ent.Decide(a, q, r, c.now)
			}
		})
	}
}

func BenchmarkNewAccountMixed200(b *testing.B) {
	f := mixed()
	b.ReportAllocs()
	for b.Loop() {
		ent.NewAccount("ann", f)
	}
}

func BenchmarkNewAccountTypical(b *testing.B) {
	f := typical().Facts
	b.ReportAllocs()
	for b.Loop() {
		ent.NewAccount("ann", f)
	}
}

func BenchmarkNewAccount200Subscriptions(b *testing.B) {
	f := many()
	b.ReportAllocs()
	for b.Loop() {
		ent.NewAccount("ann", f)
	}
}

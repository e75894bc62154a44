package entitlement_test

import (
	"slices"
	"testing"
	"time"

	ent "github.com/caddy-polar/caddy-polar/entitlement"
)

func TestCurrent(t *testing.T) {
	now := start.Add(10 * day)
	reasonOf := func(d ent.Decision) string { return d.Plan + " " + string(d.Reason) }
	for _, c := range []struct {
		name   string
		things []any
		id     string // empty: none
		want   string // plan and reason
		open   bool
	}{
		{"nothing", nil, "", "", false},
		{"an order is no subscription", []any{order("paid")}, "", "", false},
		{"canceled", []any{sub("canceled", endedAt(start))}, "", "", false},
		{"canceled in grace", []any{sub("canceled", endedAt(now))}, "", "", false},
		{"unpaid", []any{sub("unpaid", endedAt(now))}, "", "", false},
		{"incomplete_expired", []any{sub("incomplete_expired")}, "", "", false},
		{"a deleted customer's", []any{held("cus", start), sub("active")}, "", "", false},
		{"active", []any{sub("active")}, "sub", "pro active", true},
		{"trialing", []any{sub("trialing", trialEnd(end))}, "sub", "pro trialing", true},
		{"canceling", []any{sub("active", cancels(end))}, "sub", "pro canceling", true},
		{"past due in grace", []any{sub("past_due", pastDueAt(now))}, "sub", "pro past_due_grace", true},
		{"past due", []any{sub("past_due")}, "sub", "pro past_due", false},
		{"paused", []any{sub("paused")}, "sub", "pro paused", false},
		{"of the second plan", []any{sub("active", product(prodTeam))}, "sub", "team active", true},
		{"of no plan", []any{sub("active", product(prodOther))}, "sub", " plan_required", false},
		{"a pass does not make it open", []any{sub("past_due"), pass(end)}, "sub", "pro past_due", false},
		{"open before closed", []any{sub("past_due", subID("a")), sub("active", subID("b")), sub("paused", subID("c"))}, "b", "pro active", true},
		{"current before ended", []any{sub("canceled", subID("a"), endedAt(start)), sub("paused", subID("b"))}, "b", "pro paused", false},
		{"longest", []any{sub("active", subID("a")), sub("active", subID("b"), periodEnd(end.Add(tick))), sub("active", subID("c"))}, "b", "pro active", true},
		{"of a plan before of none", []any{sub("active", subID("a"), product(prodOther)), sub("paused", subID("b"))}, "b", "pro paused", false},
		{"of a plan before of none, other way round", []any{sub("paused", subID("a")), sub("active", subID("b"), product(prodOther))}, "a", "pro paused", false},
		{"seats give nothing by themselves", []any{sub("active", subSeats)}, "sub", "pro no_subscription", false},
		{"another before seats", []any{sub("active", subSeats, subID("a")), sub("paused", subID("b"))}, "b", "pro paused", false},
		{"a later customer's", []any{held("cus", start), held("cus2", never), sub("active", subID("a")), sub("active", subID("b"), customer("cus2"))}, "b", "pro active", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := rules(canceledFor(day), unpaidFor(day))
			s, d, ok := ent.NewAccount("ann", facts(c.things...)).Current(r, now)
			if !ok {
				if c.id != "" || s != nil || d != (ent.Decision{}) {
					t.Errorf("none: %v %+v", s, d)
				}
				return
			}
			if s.ID != c.id || reasonOf(d) != c.want || d.Allowed != c.open {
				t.Errorf("got %s %+v", s.ID, d)
			}
			if d.Allowed != (d.HTTPStatus == 200) || d.Status != string(s.Status) {
				t.Errorf("got %+v", d)
			}
		})
	}
}

func TestCurrentDecision(t *testing.T) {
	a := ent.NewAccount("ann", facts(sub("past_due", pastDueAt(start))))
	r := rules()
	_, d, _ := a.Current(r, start)
	if want := grace("past_due_grace", "past_due", start.Add(7*day)); d != want {
		t.Errorf("\n got %+v\nwant %+v", d, want)
	}
	_, d, _ = a.Current(r, start.Add(7*day))
	if want := no("past_due", "past_due", start.Add(7*day)); d != want {
		t.Errorf("\n got %+v\nwant %+v", d, want)
	}
}

func TestOpen(t *testing.T) {
	now := start.Add(10 * day)
	p := func(ids ...string) []string { return ids }
	year := func(o *ent.Order) { o.ProductID = prodYear }
	for _, c := range []struct {
		name               string
		things             []any
		now                time.Time
		products, benefits []string
	}{
		{"nothing", nil, now, nil, nil},
		{"subscription", []any{sub("active")}, now, p(prodPro), nil},
		{"subscription just before its end", []any{sub("active", cancels(end))}, end.Add(-tick), p(prodPro), nil},
		{"subscription at its end", []any{sub("active", cancels(end))}, end, nil, nil},
		{"subscription in grace", []any{sub("past_due", pastDueAt(now))}, now, p(prodPro), nil},
		{"subscription past due", []any{sub("past_due")}, now, nil, nil},
		{"order", []any{order("paid", year)}, now, p(prodYear), nil},
		{"order refunded", []any{order("refunded", year)}, now, nil, nil},
		{"benefit", []any{grant()}, now, nil, p(benPro)},
		{"benefit revoked", []any{grant(revoked(start))}, now, nil, nil},
		{"benefit in its parent's grace", []any{sub("past_due", pastDueAt(now), product(prodOther)), grant(ofSub("sub"), revoked(now))}, now, nil, p(benPro)},
		{"benefit of a parent that ended", []any{sub("canceled", endedAt(start)), grant(ofSub("sub"))}, now, nil, nil},
		{"outside the plans", []any{sub("active", product(prodOther)), grant(benefit(benOther), ofSub("sub"))}, now, nil, nil},
		{"each once", []any{sub("active", subID("a")), sub("active", subID("b")), order("paid"), grant(grantID("a")), grant(grantID("b"))}, now, p(prodPro), p(benPro)},
		{"order of the plans", []any{
			sub("active", subID("a"), product(prodTeam)), sub("active", subID("b")),
			grant(grantID("a"), benefit(benExtra)), grant(grantID("b")),
		}, now, p(prodPro, prodTeam), p(benPro, benExtra)},
		// "In the order of the configuration": pro lists prod_pro first.
		{"order of the products within a plan", []any{sub("active", subID("a"), product(prodYear)), sub("active", subID("b"))}, now, p(prodPro, prodYear), nil},
		{"a deleted customer's", []any{held("cus", start), sub("active"), order("paid"), grant()}, now, nil, nil},
		{"a pass opens no product", []any{pass(end)}, now, nil, nil},
		{"seats", []any{sub("active", subSeats), grant(ofSub("sub"))}, now, nil, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			products, benefits := ent.NewAccount("ann", facts(c.things...)).Open(rules(), c.now)
			if !slices.Equal(products, c.products) || !slices.Equal(benefits, c.benefits) {
				t.Errorf("got %v %v, want %v %v", products, benefits, c.products, c.benefits)
			}
		})
	}
	t.Run("a product of two plans, each with its own grace", func(t *testing.T) {
		r := rules()
		r.Plans[0].Grace = ent.Grace{}
		r.Plans[1].Products = []string{prodPro}
		products, _ := ent.NewAccount("ann", facts(sub("past_due"))).Open(r, start.Add(day))
		if !slices.Equal(products, p(prodPro)) {
			t.Errorf("got %v", products)
		}
	})
}

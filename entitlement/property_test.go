package entitlement_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	ent "github.com/caddy-polar/caddy-polar/entitlement"
	"pgregory.net/rapid"
)

// propertyNow is the moment around which random facts lie.
var propertyNow = start.Add(15 * day)

// drawTime is within 40 days of now; half days, so that dates coincide, and a
// tick beside them.
func drawTime(t *rapid.T, label string) time.Time {
	return propertyNow.Add(time.Duration(rapid.IntRange(-80, 80).Draw(t, label))*12*time.Hour +
		time.Duration(rapid.IntRange(-1, 1).Draw(t, label+" tick"))*tick)
}

func drawTimeOrZero(t *rapid.T, label string) time.Time {
	if rapid.Bool().Draw(t, label+" set") {
		return drawTime(t, label)
	}
	return time.Time{}
}

var (
	products  = []string{prodPro, prodYear, prodTeam, prodOther}
	benefits  = []string{benPro, benExtra, benOther}
	customers = []string{"cus", "cus2"}
	statuses  = []ent.Status{
		"active", "active", "trialing", "past_due", "past_due", "unpaid", "canceled", "paused",
		"incomplete", "incomplete_expired", "hibernating",
	}
	orderStatuses = []ent.OrderStatus{"paid", "paid", "partially_refunded", "refunded", "pending", "draft", "void"}
)

func seldom(t *rapid.T, label string) bool { return rapid.IntRange(0, 5).Draw(t, label) == 0 }

func drawSubscription(t *rapid.T, id string) ent.Subscription {
	begin := drawTime(t, "period start")
	s := ent.Subscription{
		Version: ent.Version{Row: begin, AsOf: drawTime(t, "as of")}, ID: id,
		CustomerID: rapid.SampledFrom(customers).Draw(t, "customer"),
		ProductID:  rapid.SampledFrom(products).Draw(t, "product"),
		Status:     rapid.SampledFrom(statuses).Draw(t, "status"),

		PeriodStart: begin, PeriodEnd: begin.Add(time.Duration(rapid.IntRange(1, 60).Draw(t, "period")) * 12 * time.Hour),
		TrialEnd: drawTimeOrZero(t, "trial end"), CanceledAt: drawTimeOrZero(t, "canceled at"),
		EndsAt: drawTimeOrZero(t, "ends at"), EndedAt: drawTimeOrZero(t, "ended at"),
		PastDueAt: drawTimeOrZero(t, "past due at"), PausedAt: drawTimeOrZero(t, "paused at"),
		CancelAtPeriodEnd: seldom(t, "cancels"), PauseAtPeriodEnd: seldom(t, "pauses"), Seats: seldom(t, "seats"),
	}
	return s
}

func drawFacts(t *rapid.T) ent.Facts {
	var f ent.Facts
	for _, id := range customers {
		c := held(id, never)
		if seldom(t, "deleted") {
			c.DeletedAt = drawTime(t, "deleted at")
		}
		f.Customers = append(f.Customers, c)
	}
	for i := range rapid.IntRange(0, 4).Draw(t, "subscriptions") {
		f.Subscriptions = append(f.Subscriptions, drawSubscription(t, fmt.Sprint("sub", i)))
	}
	for i := range rapid.IntRange(0, 3).Draw(t, "orders") {
		o := ent.Order{
			Version: ent.Version{Row: drawTime(t, "ordered")}, ID: fmt.Sprint("ord", i),
			CustomerID: rapid.SampledFrom(customers).Draw(t, "customer"),
			ProductID:  rapid.SampledFrom(products).Draw(t, "product"),
			Status:     rapid.SampledFrom(orderStatuses).Draw(t, "order status"), Seats: seldom(t, "seats"),
		}
		if rapid.Bool().Draw(t, "of a subscription") {
			o.SubscriptionID = fmt.Sprint("sub", rapid.IntRange(0, 4).Draw(t, "subscription"))
		}
		f.Orders = append(f.Orders, o)
	}
	for i := range rapid.IntRange(0, 4).Draw(t, "grants") {
		g := ent.Grant{
			ID: fmt.Sprint("gr", i), CustomerID: rapid.SampledFrom(customers).Draw(t, "customer"),
			BenefitID: rapid.SampledFrom(benefits).Draw(t, "benefit"),
		}
		switch rapid.IntRange(0, 3).Draw(t, "parent") {
		case 0:
			g.OrderID = fmt.Sprint("ord", rapid.IntRange(0, 3).Draw(t, "order"))
		case 1, 2:
			g.SubscriptionID = fmt.Sprint("sub", rapid.IntRange(0, 4).Draw(t, "subscription"))
		}
		switch rapid.IntRange(0, 4).Draw(t, "grant state") {
		case 0, 1:
			g.Granted = true
		case 2, 3:
			g.Revoked, g.RevokedAt = true, drawTime(t, "revoked")
		}
		f.Grants = append(f.Grants, g)
	}
	drawTeam(t, &f)
	for i := range rapid.IntRange(0, 2).Draw(t, "refunds") {
		r := ent.Refund{
			Version: ent.Version{Row: drawTime(t, "refunded")}, ID: fmt.Sprint("ref", i), CustomerID: "cus",
			OrderID:   fmt.Sprint("ord", rapid.IntRange(0, 3).Draw(t, "order")),
			Succeeded: rapid.Bool().Draw(t, "succeeded"), RevokeBenefits: rapid.Bool().Draw(t, "revokes"),
		}
		r.DisputeLost = seldom(t, "lost")
		r.Disputed = r.DisputeLost || seldom(t, "disputed")
		if rapid.Bool().Draw(t, "of a subscription") {
			r.SubscriptionID = fmt.Sprint("sub", rapid.IntRange(0, 4).Draw(t, "subscription"))
		}
		f.Refunds = append(f.Refunds, r)
	}
	for i := range rapid.IntRange(0, 2).Draw(t, "passes") {
		f.Passes = append(f.Passes, ent.Pass{
			ID: fmt.Sprint("pass", i), User: "ann",
			Plan:  rapid.SampledFrom([]string{"pro", "team", "extra", "gone"}).Draw(t, "plan"),
			Until: drawTimeOrZero(t, "until"),
		})
	}
	return f
}

// drawTeam makes the user a member of customers, with seats and grants, and some
// of what the account holds somebody else's.
func drawTeam(t *rapid.T, f *ent.Facts) {
	for i := range rapid.IntRange(0, 2).Draw(t, "members") {
		f.Members = append(f.Members, ent.Member{
			ID: fmt.Sprint("mem", i), CustomerID: rapid.SampledFrom(customers).Draw(t, "customer"), Deleted: seldom(t, "deleted"),
		})
	}
	member := func() string { return fmt.Sprint("mem", rapid.IntRange(0, 2).Draw(t, "member")) }
	for i := range rapid.IntRange(0, 4).Draw(t, "seats") {
		s := ent.Seat{ID: fmt.Sprint("seat", i), MemberID: member()}
		if rapid.IntRange(0, 2).Draw(t, "parent") == 0 {
			s.OrderID = fmt.Sprint("ord", rapid.IntRange(0, 3).Draw(t, "order"))
		} else {
			s.SubscriptionID = fmt.Sprint("sub", rapid.IntRange(0, 4).Draw(t, "subscription"))
		}
		switch rapid.IntRange(0, 4).Draw(t, "seat state") {
		case 0, 1:
			s.Claimed = true
		case 2, 3:
			s.Revoked, s.RevokedAt = true, drawTime(t, "revoked")
		}
		f.Seats = append(f.Seats, s)
	}
	for i := range f.Grants {
		if seldom(t, "a member's") {
			f.Grants[i].MemberID, f.Grants[i].ForMember = member(), true
		}
	}
	for i := range f.Subscriptions {
		if seldom(t, "foreign") {
			f.Foreign = append(f.Foreign, f.Subscriptions[i].ID)
		}
	}
	for i := range f.Orders {
		if seldom(t, "foreign") {
			f.Foreign = append(f.Foreign, f.Orders[i].ID)
		}
	}
}

func clone(f ent.Facts) ent.Facts {
	return ent.Facts{
		Customers: slices.Clone(f.Customers), Subscriptions: slices.Clone(f.Subscriptions),
		Orders: slices.Clone(f.Orders), Grants: slices.Clone(f.Grants),
		Refunds: slices.Clone(f.Refunds), Passes: slices.Clone(f.Passes),
		Seats: slices.Clone(f.Seats), Members: slices.Clone(f.Members), Foreign: slices.Clone(f.Foreign),
	}
}

func account(f ent.Facts) *ent.Account { return ent.NewAccount("ann", clone(f)) }

func drawGrace(t *rapid.T) ent.Grace {
	d := func(label string) time.Duration {
		return time.Duration(rapid.IntRange(0, 20).Draw(t, label)) * 12 * time.Hour
	}
	return ent.Grace{
		PastDue:      ent.PastDueGrace{For: d("past due"), Polar: seldom(t, "polar")},
		TrialPastDue: ent.PastDueGrace{For: d("trial past due"), Polar: seldom(t, "trial polar")},
		Renewal:      d("renewal"), Unpaid: d("unpaid"), Canceled: d("canceled"),
	}
}

func drawRules(t *rapid.T) *ent.Rules {
	r := rules()
	for i := range r.Plans {
		r.Plans[i].Grace = drawGrace(t)
	}
	r.CanConfirm = rapid.Bool().Draw(t, "can confirm")
	r.ConfirmedAt = drawTimeOrZero(t, "confirmed at")
	return r
}

func drawRequirement(t *rapid.T, r *ent.Rules) ent.Requirement {
	names := rapid.SampledFrom([][]string{nil, {"pro"}, {"team"}, {"extra"}, {"team", "pro"}, {"extra", "team"}}).Draw(t, "required")
	q, err := r.Require(names...)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

func drawNow(t *rapid.T) time.Time { return drawTime(t, "now") }

func TestPropertyOrderOfFacts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f, r := drawFacts(t), drawRules(t)
		q, now := drawRequirement(t, r), drawNow(t)
		want := ent.Decide(account(f), q, r, now)
		g := ent.Facts{
			Customers:     rapid.Permutation(f.Customers).Draw(t, "customers"),
			Subscriptions: rapid.Permutation(f.Subscriptions).Draw(t, "subscriptions"),
			Orders:        rapid.Permutation(f.Orders).Draw(t, "orders"),
			Grants:        rapid.Permutation(f.Grants).Draw(t, "grants"),
			Refunds:       rapid.Permutation(f.Refunds).Draw(t, "refunds"),
			Passes:        rapid.Permutation(f.Passes).Draw(t, "passes"),
			Seats:         rapid.Permutation(f.Seats).Draw(t, "seats"),
			Members:       rapid.Permutation(f.Members).Draw(t, "members"),
			Foreign:       rapid.Permutation(f.Foreign).Draw(t, "foreign"),
		}
		if got := ent.Decide(account(g), q, r, now); got != want {
			t.Fatalf("\n got %+v\nwant %+v", got, want)
		}
	})
}

func TestPropertyMonotoneInGrace(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f, r := drawFacts(t), drawRules(t)
		q, now := drawRequirement(t, r), drawNow(t)
		before := ent.Decide(account(f), q, r, now)
		for i := range r.Plans {
			more, g := drawGrace(t), &r.Plans[i].Grace
			g.PastDue.For += more.PastDue.For
			g.TrialPastDue.For += more.TrialPastDue.For
			g.Renewal += more.Renewal
			g.Unpaid += more.Unpaid
			g.Canceled += more.Canceled
		}
		if after := ent.Decide(account(f), q, r, now); before.Allowed && !after.Allowed {
			t.Fatalf("%+v\nbecame %+v", before, after)
		}
	})
}

func TestPropertyOutsideThePlans(t *testing.T) {
	r := rules()
	for _, plan := range [][]string{nil, {"pro"}, {"extra"}} {
		want := nothing()
		if slices.Equal(plan, []string{"extra"}) {
			want.NextStep = ent.StepContact // it has benefits only: nothing is for sale
		}
		if d := ent.Decide(ent.NewAccount("ann", ent.Facts{}), require(t, r, plan...), r, start); d != want {
			t.Errorf("empty: %+v", d)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		f, r := drawFacts(t), drawRules(t)
		for i := range f.Subscriptions {
			f.Subscriptions[i].ProductID = prodOther
		}
		for i := range f.Orders {
			f.Orders[i].ProductID = prodOther
		}
		for i := range f.Grants {
			f.Grants[i].BenefitID = benOther
		}
		for i := range f.Passes {
			f.Passes[i].Plan = "gone"
		}
		d := ent.Decide(account(f), drawRequirement(t, r), r, drawNow(t))
		want := nothing()
		if d.NextStep == ent.StepContact { // where only benefits are asked for
			want.NextStep = ent.StepContact
		}
		if d != want {
			t.Fatalf("%+v", d)
		}
	})
}

// TestPropertyHalfOpen has one purchase at a time: what it opens ends exactly
// at the Until that was told, unless grace follows.
func TestPropertyHalfOpen(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f, r := facts(), rules()
		g := drawGrace(t)
		for i := range r.Plans {
			r.Plans[i].Grace = g
		}
		switch rapid.IntRange(0, 3).Draw(t, "kind") {
		case 0:
			f.Passes = []ent.Pass{pass(drawTime(t, "until"))}
		case 1:
			s := drawSubscription(t, "sub")
			s.CustomerID, s.ProductID = "cus", prodPro
			f.Subscriptions = []ent.Subscription{s}
		default:
			s := drawSubscription(t, "sub")
			s.CustomerID, s.ProductID = "cus", prodOther
			f.Subscriptions = []ent.Subscription{s}
			f.Grants = []ent.Grant{grant(ofSub("sub"))}
		}
		a, q := account(f), ent.Requirement{}
		now := drawNow(t)
		if len(f.Subscriptions) > 0 && rapid.Bool().Draw(t, "near a boundary") {
			s := &f.Subscriptions[0]
			near := rapid.SampledFrom([]time.Time{s.PeriodEnd, s.TrialEnd, s.PastDueAt, s.End()}).Draw(t, "boundary")
			now = near.Add(time.Duration(rapid.IntRange(-2, 6).Draw(t, "beside")) * 12 * time.Hour)
		}
		d := ent.Decide(a, q, r, now)
		if !d.Allowed || d.Until.IsZero() {
			return
		}
		if !now.Before(d.Until) {
			t.Fatalf("at %s until %s", now, d.Until)
		}
		if just := ent.Decide(a, q, r, d.Until.Add(-tick)); just != d {
			t.Fatalf("just before: %+v, was %+v", just, d)
		}
		after := ent.Decide(a, q, r, d.Until)
		switch d.Reason {
		case "active", "trialing":
			if after.Allowed != (g.Renewal > 0) || after.Allowed && (after.Reason != "renewal_grace" || !after.Grace) {
				t.Fatalf("at the end: %+v, was %+v", after, d)
			}
		default:
			if after.Allowed {
				t.Fatalf("at the end: %+v, was %+v", after, d)
			}
			if after.HTTPStatus == 402 && !after.Until.Equal(d.Until) {
				t.Fatalf("access ended at %s, told %+v", d.Until, after)
			}
		}
	})
}

// TestPropertyTimeOnlyCloses: with the same facts, access lasts at least until
// the Until that was told, and what is refused stays refused.
func TestPropertyTimeOnlyCloses(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f, r := drawFacts(t), drawRules(t)
		a, q, now := account(f), drawRequirement(t, r), drawNow(t)
		d := ent.Decide(a, q, r, now)
		if !d.Allowed {
			later := now.Add(time.Duration(rapid.IntRange(1, 200).Draw(t, "later")) * 6 * time.Hour)
			if e := ent.Decide(a, q, r, later); e.Allowed {
				t.Fatalf("%+v\nbecame %+v", d, e)
			}
			return
		}
		if d.Until.IsZero() {
			if e := ent.Decide(a, q, r, now.Add(9999*day)); !e.Allowed {
				t.Fatalf("%+v\nbecame %+v", d, e)
			}
			return
		}
		if e := ent.Decide(a, q, r, d.Until.Add(-tick)); !e.Allowed {
			t.Fatalf("%+v\nbecame %+v", d, e)
		}
	})
}

func TestPropertyRefundsOnlyClose(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f, r := drawFacts(t), drawRules(t)
		q, now := drawRequirement(t, r), drawNow(t)
		before := ent.Decide(account(f), q, r, now)
		if !before.Allowed || len(f.Refunds) == 0 {
			return
		}
		g := clone(f)
		i := rapid.IntRange(0, len(g.Refunds)-1).Draw(t, "removed")
		if rapid.Bool().Draw(t, "only the dispute") {
			g.Refunds[i].Disputed, g.Refunds[i].DisputeLost = false, false
		} else {
			g.Refunds = slices.Delete(g.Refunds, i, i+1)
		}
		if after := ent.Decide(account(g), q, r, now); !after.Allowed {
			t.Fatalf("%+v\nbecame %+v", before, after)
		}
	})
}

// TestPropertyMoreNeverCloses: another subscription, order or pass never takes
// away what is open.
func TestPropertyMoreNeverCloses(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f, r := drawFacts(t), drawRules(t)
		q, now := drawRequirement(t, r), drawNow(t)
		before := ent.Decide(account(f), q, r, now)
		g := clone(f)
		g.Subscriptions = append(g.Subscriptions, drawSubscription(t, "another"))
		another := order(rapid.SampledFrom(orderStatuses).Draw(t, "order status"))
		another.ID, another.ProductID = "another", rapid.SampledFrom(products).Draw(t, "product")
		g.Orders = append(g.Orders, another)
		g.Passes = append(g.Passes, ent.Pass{ID: "another", Plan: "pro", Until: drawTimeOrZero(t, "until")})
		if after := ent.Decide(account(g), q, r, now); before.Allowed && !after.Allowed {
			t.Fatalf("%+v\nbecame %+v", before, after)
		}
	})
}

// TestPropertyFirstPlan: a requirement of several plans is that of the first
// one that opens by itself.
func TestPropertyFirstPlan(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f, r := drawFacts(t), drawRules(t)
		a, q, now := account(f), drawRequirement(t, r), drawNow(t)
		d := ent.Decide(a, q, r, now)
		for _, name := range r.Names(q) {
			one, err := r.Require(name)
			if err != nil {
				t.Fatal(err)
			}
			if e := ent.Decide(a, one, r, now); e.Allowed {
				if d != e {
					t.Fatalf("\n got %+v\nwant %+v", d, e)
				}
				return
			}
		}
		if d.Allowed {
			t.Fatalf("no plan opens by itself: %+v", d)
		}
	})
}

func TestPropertyWellFormed(t *testing.T) {
	steps := []ent.NextStep{ent.StepLogin, ent.StepCheckout, ent.StepChange, ent.StepPortal, ent.StepWait, ent.StepContact}
	rapid.Check(t, func(t *rapid.T) {
		f, r := drawFacts(t), drawRules(t)
		q, now := drawRequirement(t, r), drawNow(t)
		d := ent.Decide(account(f), q, r, now)
		if d.Allowed != (d.HTTPStatus == 200) {
			t.Fatalf("%+v", d)
		}
		if d.Allowed {
			if d.NextStep != "" || d.Status == "" || d.Reason == "" || !slices.Contains(r.Names(q), d.Plan) {
				t.Fatalf("%+v", d)
			}
			if _, refusal := answers[d.Reason]; refusal {
				t.Fatalf("%+v", d)
			}
			if !d.Until.IsZero() && !now.Before(d.Until) {
				t.Fatalf("%+v at %s", d, now)
			}
			isGrace := slices.Contains([]ent.Reason{"renewal_grace", "past_due_grace", "unpaid_grace", "canceled_grace"}, d.Reason)
			if d.Grace != isGrace || d.Grace && d.Until.IsZero() {
				t.Fatalf("%+v", d)
			}
			return
		}
		answer, refusal := answers[d.Reason]
		if !refusal || d.Grace || !slices.Contains(steps, d.NextStep) || d.Status == "" {
			t.Fatalf("%+v", d)
		}
		if d.HTTPStatus != answer.http && !(d.Reason == "pass_expired" && d.Plan == "extra" && d.HTTPStatus == 403) {
			t.Fatalf("%+v", d)
		}
		if d.Plan != "" && !slices.Contains(r.Names(q), d.Plan) {
			t.Fatalf("%+v", d)
		}
	})
}

func TestPropertyDeletedCustomer(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f, r := drawFacts(t), drawRules(t)
		q, now := drawRequirement(t, r), drawNow(t)
		for i := range f.Customers {
			f.Customers[i].DeletedAt = drawTime(t, "deleted at")
		}
		got := ent.Decide(account(f), q, r, now)
		if got.Allowed && got.Reason != "pass" {
			t.Fatalf("%+v", got)
		}
		only := ent.Decide(account(ent.Facts{Passes: f.Passes}), q, r, now)
		if got.Allowed != only.Allowed || got.Allowed && got != only {
			t.Fatalf("\n got %+v\nwant %+v", got, only)
		}
	})
}

// TestPropertyViews: what is open in a plan without a pass is open for a
// product or benefit, and the other way round.
func TestPropertyViews(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f, r := drawFacts(t), drawRules(t)
		f.Passes = nil
		a, now := account(f), drawNow(t)
		products, benefits := a.Open(r, now)
		d := ent.Decide(a, ent.Requirement{}, r, now)
		if d.Allowed != (len(products)+len(benefits) > 0) {
			t.Fatalf("%+v, open %v %v", d, products, benefits)
		}
		for i := range r.Plans {
			p := &r.Plans[i]
			one, _ := r.Require(p.Name)
			var opens bool
			for _, id := range products {
				opens = opens || slices.Contains(p.Products, id)
			}
			for _, id := range benefits {
				opens = opens || slices.Contains(p.Benefits, id)
			}
			if e := ent.Decide(a, one, r, now); e.Allowed != opens {
				t.Fatalf("%s: %+v, open %v %v", p.Name, e, products, benefits)
			}
		}
		s, current, ok := a.Current(r, now)
		if ok && (s.Status.Ended() || current.Allowed && !d.Allowed) {
			t.Fatalf("current %s %+v, decided %+v", s.ID, current, d)
		}
	})
}

// TestPropertyDecideEach: all plans at once are each of them alone.
func TestPropertyDecideEach(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f, r := drawFacts(t), drawRules(t)
		a, now := account(f), drawNow(t)
		all := ent.DecideEach(a, r, now)
		if len(all) != len(r.Plans) {
			t.Fatalf("%d decisions", len(all))
		}
		for i := range r.Plans {
			if want := ent.Decide(a, r.Only(i), r, now); all[i] != want {
				t.Fatalf("%s:\n got %+v\nwant %+v", r.Plans[i].Name, all[i], want)
			}
			if all[i].Allowed != a.Opens(i, r, now) {
				t.Fatalf("%s: %+v, Opens says otherwise", r.Plans[i].Name, all[i])
			}
		}
	})
}

// TestPropertyForeign: what others have bought is nobody's to see or act upon
// but theirs, and takes nothing from what the user has.
func TestPropertyForeign(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f, r := drawFacts(t), drawRules(t)
		a, now := account(f), drawNow(t)
		if s, _, ok := a.Current(r, now); ok && slices.Contains(f.Foreign, s.ID) {
			t.Fatalf("%s is current", s.ID)
		}
		for _, id := range f.Foreign {
			if _, _, ok := a.CurrentByID(id, r, now); ok {
				t.Fatalf("%s is current by its id", id)
			}
		}
		for s := range a.CurrentSubscriptions() {
			if slices.Contains(f.Foreign, s.ID) {
				t.Fatalf("%s is among the current", s.ID)
			}
		}
		if s := a.Upgradable(f.Foreign); s != nil {
			t.Fatalf("%s is upgradable", s.ID)
		}
		e := ent.Explain(a, ent.Requirement{}, r, nil, now)
		for _, p := range e.Plans {
			for _, w := range p.Facts {
				if (w.Kind == ent.KindSubscription || w.Kind == ent.KindOrder) && slices.Contains(f.Foreign, w.ID) {
					t.Fatalf("explained: %+v", w)
				}
			}
		}
		own := clone(f)
		own.Foreign = nil
		own.Subscriptions = slices.DeleteFunc(own.Subscriptions, func(s ent.Subscription) bool { return slices.Contains(f.Foreign, s.ID) })
		own.Orders = slices.DeleteFunc(own.Orders, func(o ent.Order) bool { return slices.Contains(f.Foreign, o.ID) })
		own.Grants = slices.DeleteFunc(own.Grants, func(g ent.Grant) bool { return slices.Contains(f.Foreign, g.SubscriptionID+g.OrderID) })
		own.Seats = slices.DeleteFunc(own.Seats, func(s ent.Seat) bool { return slices.Contains(f.Foreign, s.SubscriptionID+s.OrderID) })
		if before, after := ent.Decide(account(own), ent.Requirement{}, r, now), ent.Decide(a, ent.Requirement{}, r, now); before.Allowed && !after.Allowed {
			t.Fatalf("%+v\nbecame %+v", before, after)
		}
	})
}

func TestDecideDoesNotAllocate(t *testing.T) {
	r := twoPlans()
	confirming(r, never)
	for name, a := range map[string]*ent.Account{
		"typical": typical(),
		"nothing": ent.NewAccount("ann", ent.Facts{}),
		"many":    ent.NewAccount("ann", many()),
		"mixed":   ent.NewAccount("ann", mixed()),
		"team":    ent.NewAccount("ann", team(sub("past_due", subSeats), seat(seatRevoked(start)), grant(ofSub("sub"), ofMember))),
		"passes":  ent.NewAccount("ann", facts(pass(start), order("refunded"), sub("hibernating"), grant(ofOrder("ord")))),
	} {
		for _, plans := range [][]string{nil, {"pro"}, {"team"}} {
			q := require(t, r, plans...)
			for _, now := range []time.Time{start.Add(day), end, end.Add(9 * day)} {
				if n := testing.AllocsPerRun(100, func() { ent.Decide(a, q, r, now) }); n != 0 {
					t.Errorf("%s %v: %v allocations", name, plans, n)
				}
			}
		}
	}
}

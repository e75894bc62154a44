package entitlement_test

import (
	"slices"
	"testing"
	"time"

	ent "github.com/caddy-polar/caddy-polar/entitlement"
)

type seatMod = func(*ent.Seat)

// seat is one that the user has claimed, of somebody else's subscription.
func seat(mods ...seatMod) ent.Seat {
	s := ent.Seat{
		Version: ent.Version{Row: start, AsOf: start}, ID: "seat", SubscriptionID: "sub", MemberID: "mem", Claimed: true,
	}
	for _, m := range mods {
		m(&s)
	}
	return s
}

func seatID(id string) seatMod { return func(s *ent.Seat) { s.ID = id } }
func seatOf(id string) seatMod { return func(s *ent.Seat) { s.SubscriptionID = id } }
func ofTheOrder(s *ent.Seat)   { s.SubscriptionID, s.OrderID = "", "ord" }
func invited(s *ent.Seat)      { s.Claimed = false }
func seatRevoked(t time.Time) seatMod {
	return func(s *ent.Seat) { s.Claimed, s.Revoked, s.RevokedAt = false, true, t }
}

func ofMember(g *ent.Grant)   { g.MemberID, g.ForMember = "mem", true }
func orderSeats(o *ent.Order) { o.Seats = true }

// team is what a holder's account has: what stands under the customer "cus" is
// somebody else's.
func team(things ...any) ent.Facts {
	f := ent.Facts{
		Customers: []ent.HeldCustomer{{Customer: ent.Customer{ID: "cus"}}},
		Members:   []ent.Member{{ID: "mem", CustomerID: "cus", ExternalID: "ann"}},
		Foreign:   []string{"cus"},
	}
	for _, thing := range things {
		switch x := thing.(type) {
		case ent.Subscription:
			f.Subscriptions = append(f.Subscriptions, x)
			if x.CustomerID == "cus" {
				f.Foreign = append(f.Foreign, x.ID)
			}
		case ent.Order:
			f.Orders = append(f.Orders, x)
			if x.CustomerID == "cus" {
				f.Foreign = append(f.Foreign, x.ID)
			}
		case ent.Seat:
			f.Seats = append(f.Seats, x)
		case ent.Grant:
			f.Grants = append(f.Grants, x)
		case ent.Refund:
			f.Refunds = append(f.Refunds, x)
		case ent.HeldCustomer:
			f.Customers = append(f.Customers, x)
		case func(*ent.Facts):
			x(&f)
		}
	}
	return f
}

func gone(at time.Time) func(*ent.Facts) {
	return func(f *ent.Facts) { f.Customers[0].DeletedAt = at }
}

func memberDeleted(f *ent.Facts) { f.Members[0].Deleted = true }

// asksOwner is a refusal that only the buyer can do something about.
func asksOwner(d ent.Decision) ent.Decision {
	d.NextStep = ent.StepContact
	return d
}

func TestDecideSeats(t *testing.T) {
	failed, over := start.Add(2*time.Hour), start.Add(10*day)
	week, late := failed.Add(7*day), end.Add(3*day)
	dunning := failed.Add(21*day + time.Minute)
	of := func(status ent.Status, mods ...subMod) ent.Subscription {
		return sub(status, append([]subMod{subSeats}, mods...)...)
	}
	taken := no("seat_revoked", "active", over)
	taken.HTTPStatus, taken.NextStep = 403, ent.StepContact
	as := func(d ent.Decision, status string, at time.Time) ent.Decision {
		d.Status, d.Until = status, at
		return d
	}
	rows := []row{
		{"active", team(of("active"), seat()), nil, []moment{
			{end.Add(-tick), yes("active", "active", end)},
			{end, grace("renewal_grace", "active", late)},
			{late, no("period_ended", "active", late)},
		}},
		{"trialing", team(of("trialing", trialEnd(over)), seat()), nil, []moment{
			{over.Add(-tick), yes("trialing", "trialing", over)},
			{over, grace("renewal_grace", "trialing", over.Add(3*day))},
			{over.Add(3 * day), no("trial_ended", "trialing", over.Add(3*day))},
		}},
		{"canceling", team(of("active", cancels(end)), seat()), nil, []moment{
			{end.Add(-tick), yes("canceling", "active", end)}, {end, no("canceled", "active", end)},
		}},
		{"pausing", team(of("active", pauses), seat()), nil, []moment{
			{end.Add(-tick), yes("pausing", "active", end)}, {end, asksOwner(no("paused", "active", end))},
		}},
		{"not confirmed", team(of("active"), seat()), confirming(rules(), never), []moment{{late, no("unavailable", "active", never)}}},
		{"past due", team(of("past_due", pastDueAt(failed)), seat()), nil, []moment{
			{week.Add(-tick), grace("past_due_grace", "past_due", week)},
			{week, asksOwner(no("past_due", "past_due", week))},
		}},
		{"past due, off", team(of("past_due", pastDueAt(failed)), seat()), rules(pastDueFor(0)), []moment{
			{failed, asksOwner(no("past_due", "past_due", failed))},
		}},
		{"past due, polar, still claimed", team(of("past_due", pastDueAt(failed)), seat()), rules(pastDuePolar), []moment{
			{dunning.Add(-tick), grace("past_due_grace", "past_due", dunning)},
			{dunning, asksOwner(no("past_due", "past_due", dunning))},
		}},
		{"past due, polar, revoked with it", team(of("past_due", pastDueAt(failed)), seat(seatRevoked(failed))), rules(pastDuePolar), []moment{
			{failed, asksOwner(no("past_due", "past_due", failed))},
		}},
		{"past due, revoked with it", team(of("past_due", pastDueAt(failed)), seat(seatRevoked(failed))), nil, []moment{
			{failed, grace("past_due_grace", "past_due", week)},
			{week.Add(-tick), grace("past_due_grace", "past_due", week)},
			{week, asksOwner(no("past_due", "past_due", week))},
		}},
		{"past due, revoked before", team(of("past_due", pastDueAt(failed)), seat(seatRevoked(failed.Add(-tick)))), nil, []moment{
			{failed, as(taken, "past_due", failed.Add(-tick))},
			{week, as(taken, "past_due", failed.Add(-tick))}, // the money of others gives nothing back
		}},
		{"past due, first after a trial, revoked with it", team(of("past_due", pastDueAt(failed), trialEnd(start)), seat(seatRevoked(failed))), rules(trialPastDueFor(day)), []moment{
			{failed.Add(day - tick), grace("past_due_grace", "past_due", failed.Add(day))},
			{failed.Add(day), asksOwner(no("past_due", "past_due", failed.Add(day)))},
		}},
		{"unpaid", team(of("unpaid", endedAt(over)), seat()), rules(unpaidFor(9 * day)), []moment{
			{over, asksOwner(no("unpaid", "unpaid", over))},
			{over.Add(20 * day), asksOwner(no("unpaid", "unpaid", over))},
		}},
		{"canceled", team(of("canceled", endedAt(over)), seat()), rules(canceledFor(9 * day)), []moment{
			{over, no("canceled", "canceled", over)},
			{over.Add(20 * day), no("canceled", "canceled", over)}, // grace after the end is not for children
		}},
		{"canceled, revoked with it", team(of("canceled", endedAt(over)), seat(seatRevoked(over))), nil, []moment{{end, no("canceled", "canceled", over)}}},
		{"canceled, revoked before", team(of("canceled", endedAt(over)), seat(seatRevoked(over.Add(-day)))), nil, []moment{
			{end, as(taken, "canceled", over.Add(-day))},
		}},
		{"paused", team(of("paused", pausedAt(over)), seat(seatRevoked(over))), nil, []moment{{end, asksOwner(no("paused", "paused", over))}}},
		{"incomplete", team(of("incomplete"), seat()), nil, []moment{{start, no("incomplete", "incomplete", never)}}},
		{"of unknown status", team(of("hibernating"), seat()), nil, []moment{{start, no("unknown_status", "hibernating", never)}}},
		{"a deleted customer's", team(of("active"), seat(), gone(over)), nil, []moment{{over, no("customer_deleted", "active", over)}}},
		{"revoked while active", team(of("active"), seat(seatRevoked(over))), nil, []moment{{over, taken}}},
		{"invited", team(of("active"), seat(invited)), nil, []moment{{start, nothing()}}},
		{"invited, past due", team(of("past_due", pastDueAt(failed)), seat(invited)), nil, []moment{{failed, nothing()}, {week, nothing()}}},
		{"a deleted member", team(of("active"), seat(), memberDeleted), nil, []moment{{start, as(taken, "active", never)}}},
		{"parent not held", team(seat()), nil, []moment{{start, nothing()}}},
		{"of no plan", team(of("active", product(prodOther)), seat()), nil, []moment{{start, nothing()}}},

		{"order", team(order("paid", orderSeats), seat(ofTheOrder)), nil, []moment{{end, yes("purchased", "order", never)}}},
		{"order of nothing to pay", team(order("paid", orderSeats), seat(ofTheOrder)), nil, []moment{{end.Add(999 * day), yes("purchased", "order", never)}}},
		{"order, revoked", team(order("paid", orderSeats), seat(ofTheOrder, seatRevoked(over))), nil, []moment{{end, as(taken, "order", over)}}},
		{"order refunded", team(order("refunded", orderSeats, orderChanged(over)), seat(ofTheOrder)), nil, []moment{{end, no("refunded", "order", over)}}},
		{"order refunded in part", team(order("partially_refunded", orderSeats), refund(over), seat(ofTheOrder)), nil, []moment{{end, yes("purchased", "order", never)}}},
		{"order refunded in part with revoke_benefits", team(order("partially_refunded", orderSeats), refund(over, revoking), seat(ofTheOrder)), nil, []moment{
			{end, no("refunded", "order", over)},
		}},
		{"order disputed", team(order("paid", orderSeats), refund(over, lost), seat(ofTheOrder)), nil, []moment{{end, no("disputed", "order", over)}}},
		{"order pending", team(order("pending", orderSeats), seat(ofTheOrder)), nil, []moment{{end, nothing()}}},
		{"order of a deleted customer", team(order("paid", orderSeats), seat(ofTheOrder), gone(over)), nil, []moment{{end, no("customer_deleted", "order", over)}}},

		{"the buyer", facts(of("active")), nil, []moment{{start, nothing()}}},
		{"a buyer with a seat", with(facts(of("active")), seat()), nil, []moment{{start, yes("active", "active", end)}}},
		{"a buyer with a seat, past due", with(facts(of("past_due", pastDueAt(failed))), seat(seatRevoked(failed))), nil, []moment{
			{failed, grace("past_due_grace", "past_due", week)}, {week, no("past_due", "past_due", week)},
		}},
		{"several teams: the longest", team(
			of("active", subID("a"), periodEnd(over)), of("active", subID("b")), of("past_due", subID("c"), pastDueAt(failed)),
			seat(seatID("1"), seatOf("a")), seat(seatID("2"), seatOf("b")), seat(seatID("3"), seatOf("c")),
		), nil, []moment{{start, yes("active", "active", end)}}},
		{"several teams: the one that goes on", team(
			of("canceled", subID("a"), endedAt(over)), of("active", subID("b")), seat(seatID("1"), seatOf("a")), seat(seatID("2"), seatOf("b")),
		), nil, []moment{{over, yes("active", "active", end)}}},
		{"a seat that lasts longer than the own subscription", team(
			of("active"), sub("active", subID("own"), customer("me"), periodEnd(over)), seat(),
		), nil, []moment{{start, yes("active", "active", end)}}},
		{"an own subscription that lasts longer than the seat", team(
			of("active", periodEnd(over)), sub("trialing", subID("own"), customer("me"), trialEnd(end)), seat(),
		), nil, []moment{{start, yes("trialing", "trialing", end)}}},
		{"as long: the own subscription", team(
			of("past_due", pastDueAt(end.Add(-4*day))), sub("active", subID("own"), customer("me")), seat(),
		), nil, []moment{{end.Add(-day), yes("active", "active", end)}}},
	}
	for _, c := range rows {
		t.Run(c.name, c.run)
	}
}

func with(f ent.Facts, seats ...ent.Seat) ent.Facts {
	f.Seats = append(f.Seats, seats...)
	return f
}

func TestDecideMembersGrants(t *testing.T) {
	failed, over := start.Add(2*time.Hour), start.Add(10*day)
	week := failed.Add(7 * day)
	// The benefit alone can open.
	of := func(status ent.Status, mods ...subMod) ent.Subscription {
		return sub(status, append([]subMod{subSeats, product(prodOther)}, mods...)...)
	}
	mine := grant(ofSub("sub"), ofMember)
	back := func(at time.Time) ent.Grant { return grant(ofSub("sub"), ofMember, revoked(at)) }
	rows := []row{
		{"a member's", team(of("active"), mine), nil, []moment{
			{end.Add(-tick), yes("active", "active", end)}, {end.Add(3 * day), no("period_ended", "active", end.Add(3*day))},
		}},
		{"the buyer's", facts(of("active"), grant(ofSub("sub"))), nil, []moment{{start, nothing()}}},
		{"the buyer's as a member", facts(of("active"), grant(ofSub("sub"), func(g *ent.Grant) { g.MemberID = "owner" })), nil, []moment{
			{start, yes("active", "active", end)},
		}},
		{"revoked", team(of("active"), back(over)), nil, []moment{{over, no("benefit_revoked", "active", over)}}},
		{"past due, revoked with it", team(of("past_due", pastDueAt(failed)), back(failed), seat(seatRevoked(failed))), nil, []moment{
			{failed, grace("past_due_grace", "past_due", week)}, {week, asksOwner(no("past_due", "past_due", week))},
		}},
		{"past due, polar, revoked with it", team(of("past_due", pastDueAt(failed)), back(failed), seat(seatRevoked(failed))), rules(pastDuePolar), []moment{
			{failed, asksOwner(no("past_due", "past_due", failed))},
		}},
		{"canceled, still granted", team(of("canceled", endedAt(over)), mine), rules(canceledFor(9 * day)), []moment{
			{over, no("canceled", "canceled", over)}, {over.Add(20 * day), no("canceled", "canceled", over)},
		}},
		{"a deleted member's", team(of("active"), mine, memberDeleted), nil, []moment{{start, nothing()}}},
		{"a deleted customer's", team(of("active"), mine, gone(over)), nil, []moment{{end, no("customer_deleted", "none", over)}}},
		{"of an order", team(order("paid", orderSeats, func(o *ent.Order) { o.ProductID = prodOther }), grant(ofOrder("ord"), ofMember)), nil, []moment{
			{end, yes("purchased", "order", never)},
		}},
		{"parent not held", team(mine), nil, []moment{{start, yes("benefit", "none", never)}}},
	}
	for _, c := range rows {
		t.Run(c.name, c.run)
	}
}

// TestSeatElsewhere: a seat of another plan is told, and is nothing to change.
func TestSeatElsewhere(t *testing.T) {
	r := rules()
	a := ent.NewAccount("ann", team(sub("active", subSeats, product(prodTeam)), seat()))
	if got, want := ent.Decide(a, require(t, r, "pro"), r, start), elsewhere("active", ent.StepCheckout); got != want {
		t.Errorf("\n got %+v\nwant %+v", got, want)
	}
	if products, _ := a.Open(r, start); !slices.Equal(products, []string{prodTeam}) {
		t.Errorf("open: %v", products)
	}
}

// TestSeatsAreNotControl: nothing of what others have bought is shown as the
// holder's, stands against what they buy, or can be acted upon.
func TestSeatsAreNotControl(t *testing.T) {
	r := rules()
	for _, status := range []ent.Status{"active", "trialing", "past_due", "paused"} {
		free := func(s *ent.Subscription) { s.Free = true }
		a := ent.NewAccount("ann", team(sub(status, subSeats, free, trialEnd(end)), order("paid", orderSeats), seat(), seat(seatID("2"), ofTheOrder)))
		if s, _, ok := a.Current(r, start); ok {
			t.Errorf("%s: current %+v", status, s)
		}
		if _, _, ok := a.CurrentByID("sub", r, start); ok {
			t.Errorf("%s: current by its id", status)
		}
		for s := range a.CurrentSubscriptions() {
			t.Errorf("%s: among the current: %+v", status, s)
		}
		if n := len(slices.Collect(a.RunningSubscriptions())); n != 1 {
			t.Errorf("%s: %d run", status, n)
		}
		if o, step, _ := a.Obstacle(&ent.Sale{Products: []string{prodPro}, Anyway: true}, r, start); o != "" || step != "" {
			t.Errorf("%s: obstacle %s, %s", status, o, step)
		}
		if a.Upgradable([]string{"sub"}) != nil || a.OwnCustomer() != "" || a.BuysElsewhere() {
			t.Errorf("%s: upgradable %v, customer %q, buys elsewhere %t", status, a.Upgradable([]string{"sub"}), a.OwnCustomer(), a.BuysElsewhere())
		}
		if !a.Known() {
			t.Errorf("%s: not known", status)
		}
	}
	own := ent.NewAccount("ann", team(sub("active", subSeats), sub("active", subID("own"), customer("me")), seat(), held("me", never)))
	if s, _, ok := own.Current(r, start); !ok || s.ID != "own" || own.OwnCustomer() != "me" || !own.BuysElsewhere() {
		t.Errorf("besides a seat: %+v, %q", s, own.OwnCustomer())
	}
	if o, _, _ := own.Obstacle(&ent.Sale{Products: []string{prodPro}}, r, start); o != ent.ObstacleSubscribed {
		t.Errorf("besides a seat: obstacle %q", o)
	}
}

func TestUnconfirmedSeats(t *testing.T) {
	r := confirming(rules(), never)
	heard := start.Add(time.Hour)
	for _, c := range []struct {
		name  string
		facts ent.Facts
		heard time.Time
		now   time.Time
		want  bool
	}{
		{"parent not held", team(seat()), never, start, true},
		{"parent not held, asked since", team(seat()), heard, heard, false},
		{"parent not held, invited", team(seat(invited)), never, start, false},
		{"parent not held, revoked", team(seat(seatRevoked(start))), never, start, false},
		{"parent held", team(sub("active", subSeats), seat()), never, start, false},
		{"parent an order", team(order("paid", orderSeats), seat(ofTheOrder)), never, start, false},
		{"the parent's period is over", team(sub("active", subSeats), seat()), never, end, true},
		{"the parent's grace is over", team(sub("past_due", subSeats, told(end)), seat()), end.Add(7*day - tick), start.Add(7 * day), false},
		{"a member's grant without its parent", team(grant(ofSub("sub"), ofMember)), never, start, true},
	} {
		if got := ent.NewAccount("ann", c.facts).Unconfirmed(r, c.heard, c.now); got != c.want {
			t.Errorf("%s: %t", c.name, got)
		}
	}
}

func TestExplainSeats(t *testing.T) {
	r, over := rules(), start.Add(10*day)
	weighed := func(at time.Time, things ...any) ent.Weighed {
		t.Helper()
		e := ent.Explain(ent.NewAccount("ann", team(things...)), require(t, r, "pro"), r, nil, at)
		if len(e.Plans[0].Facts) != 1 || len(e.Outside) != 0 {
			t.Fatalf("explains %+v, outside %+v", e.Plans[0].Facts, e.Outside)
		}
		return e.Plans[0].Facts[0]
	}
	say := func(t time.Time) string { return t.UTC().Format(time.RFC3339) }
	v := weighed(start, sub("active", subSeats), seat())
	if v.Kind != ent.KindSeat || v.ID != "seat" || v.Item != prodPro || v.Parent != "sub" || v.Source != ent.SourceMember || v.Status != "claimed" || !v.Counts || !v.Decides {
		t.Errorf("%+v", v)
	}
	if got, want := v.String(), "active until current_period_end "+say(end)+", then renewal_grace until current_period_end + renewal 3d "+say(end.Add(3*day))+", then refused: period_ended"; got != want {
		t.Errorf("\n got %s\nwant %s", got, want)
	}
	v = weighed(over, sub("past_due", subSeats, pastDueAt(over)), seat(seatRevoked(over)))
	if got, want := v.String(), "past_due_grace until past_due_at + past_due 7d "+say(over.Add(7*day))+", then refused: past_due"; got != want || v.Status != "revoked" {
		t.Errorf("\n got %s\nwant %s", got, want)
	}
	v = weighed(end.Add(-day), sub("active", subSeats), seat(seatRevoked(over))) // the payment was made after all
	if got, want := v.String(), "refused: seat_revoked since revoked_at "+say(over)+"; "+v.Advice; got != want || v.Advice == "" {
		t.Errorf("\n got %s\nwant %s", got, want)
	}
	if v = weighed(start, sub("active", subSeats), seat(invited)); v.Counts || v.Status != "pending" {
		t.Errorf("%+v", v)
	}
	if v = weighed(start, sub("active", subSeats, product(prodOther)), grant(ofSub("sub"), ofMember)); v.Source != ent.SourceMember || !v.Decides {
		t.Errorf("%+v", v)
	}
	e := ent.Explain(ent.NewAccount("ann", team(sub("active", subSeats, product(prodOther)), seat())), require(t, r, "pro"), r, nil, start)
	if len(e.Outside) != 1 || e.Outside[0].Kind != ent.KindSeat || e.Outside[0].Item != prodOther {
		t.Errorf("outside the plans: %+v", e.Outside)
	}
}

// TestExplainOnce: a product that a plan names twice is explained once.
func TestExplainOnce(t *testing.T) {
	r := rules()
	r.Plans[0].Products = []string{prodPro, prodPro}
	e := ent.Explain(ent.NewAccount("ann", team(sub("active", subSeats), seat())), require(t, r, "pro"), r, nil, start)
	if len(e.Plans[0].Facts) != 1 || !e.Plans[0].Facts[0].Decides {
		t.Errorf("%+v", e.Plans[0].Facts)
	}
}

// TestSeenByShares: what was bought without seats is shared whichever member Polar
// has given its benefits to; what may have come with a seat is not.
func TestSeenByShares(t *testing.T) {
	r := rules()
	bob := ent.NewAccount("bob", ent.Facts{})
	owners := func(g *ent.Grant) { g.MemberID = "m" }
	for _, c := range []struct {
		name  string
		facts ent.Facts
		want  bool
	}{
		{"a member's, without seats", facts(sub("active", product(prodOther)), grant(ofMember, ofSub("sub"))), true},
		{"a member's, with seats", facts(sub("active", product(prodOther), subSeats), grant(ofMember, ofSub("sub"))), false},
		{"the owner's, with seats", facts(sub("active", product(prodOther), subSeats), grant(owners, ofSub("sub"))), false},
		{"the owner's, of what is not held", facts(grant(owners, ofSub("unheard"))), false},
		{"nobody's, of what is not held", facts(grant(ofSub("unheard"))), true},
	} {
		org := ent.NewAccount("org", c.facts)
		if d := ent.Decide(org.SeenBy(bob), require(t, r, "pro"), r, start); d.Allowed != c.want {
			t.Errorf("%s: %+v", c.name, d)
		}
	}
}

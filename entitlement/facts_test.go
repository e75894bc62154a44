package entitlement_test

import (
	"testing"
	"time"

	ent "github.com/caddy-polar/caddy-polar/entitlement"
)

func TestOwner(t *testing.T) {
	for _, c := range []struct{ link, metadata, external, byEmail, want string }{
		{"l", "m", "e", "x", "l"},
		{"l", "", "e", "", "l"},
		{"", "m", "e", "x", "m"},
		{"", "", "e", "x", "e"},
		{"", "m", "", "x", "m"},
		{"l", "", "", "x", "l"},
		{"", "", "", "x", "x"},
		{"", "", "", "", ""},
	} {
		if got := ent.Owner(c.link, c.metadata, c.external, c.byEmail); got != c.want {
			t.Errorf("%+v: %q", c, got)
		}
	}
}

func TestVersionNewer(t *testing.T) {
	v := func(row, asOf time.Duration) ent.Version {
		return ent.Version{Row: start.Add(row), AsOf: start.Add(asOf)}
	}
	for _, c := range []struct {
		name string
		v, w ent.Version
		want bool
	}{
		{"newer row", v(tick, 0), v(0, 0), true},
		{"newer row told earlier", v(tick, -day), v(0, day), true},
		{"older row", v(-tick, 0), v(0, 0), false},
		{"older row told later", v(-tick, day), v(0, 0), false},
		{"same row told later", v(0, tick), v(0, 0), true},
		{"same row told earlier", v(0, -tick), v(0, 0), false},
		{"equal", v(0, 0), v(0, 0), false},
		{"anything replaces nothing", v(0, 0), ent.Version{}, true},
	} {
		if got := c.v.Newer(c.w); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
	local := ent.Version{Row: start.In(time.FixedZone("x", 3600)), AsOf: start}
	if local.Newer(v(0, 0)) || v(0, 0).Newer(local) {
		t.Error("the zone matters")
	}
}

func TestStatus(t *testing.T) {
	for status, want := range map[ent.Status][2]bool{ // known, ended
		"active": {true, false}, "trialing": {true, false}, "past_due": {true, false}, "unpaid": {true, true},
		"canceled": {true, true}, "paused": {true, false}, "incomplete": {true, false},
		"incomplete_expired": {true, true}, "hibernating": {false, false}, "": {false, false},
	} {
		if got := [2]bool{status.Known(), status.Ended()}; got != want {
			t.Errorf("%q: %v", status, got)
		}
	}
}

func TestKnownAndOwnCustomer(t *testing.T) {
	mine := held("cus", never)
	stranger := held("cus", never)
	stranger.Own = false
	shared := held("cus", never)
	shared.Shared = true
	for _, c := range []struct {
		name  string
		facts ent.Facts
		known bool
		own   string
	}{
		{"nothing", ent.Facts{}, false, ""},
		{"own", ent.Facts{Customers: []ent.HeldCustomer{mine}}, true, "cus"},
		{"not own", ent.Facts{Customers: []ent.HeldCustomer{stranger}}, true, ""},
		{"shared", ent.Facts{Customers: []ent.HeldCustomer{shared}}, true, ""},
		{"deleted", ent.Facts{Customers: []ent.HeldCustomer{held("cus", start)}}, true, ""},
		{"deleted, and a later one", ent.Facts{Customers: []ent.HeldCustomer{held("cus", start), held("new", never)}}, true, "new"},
		{"shared, and another", ent.Facts{Customers: []ent.HeldCustomer{shared, held("new", never)}}, true, "new"},
		{"a subscription", ent.Facts{Subscriptions: []ent.Subscription{sub("active")}}, true, ""},
		{"an order", ent.Facts{Orders: []ent.Order{order("paid")}}, true, ""},
		{"a grant", ent.Facts{Grants: []ent.Grant{grant()}}, true, ""},
		{"a pass", ent.Facts{Passes: []ent.Pass{pass(end)}}, true, ""},
	} {
		a := ent.NewAccount("ann", c.facts)
		if a.Known() != c.known || a.OwnCustomer() != c.own {
			t.Errorf("%s: %v %q", c.name, a.Known(), a.OwnCustomer())
		}
	}
}

func TestDefaultGrace(t *testing.T) {
	want := ent.Grace{
		PastDue: ent.PastDueGrace{For: 7 * day}, TrialPastDue: ent.PastDueGrace{For: 7 * day}, Renewal: 3 * day,
	}
	if got := ent.DefaultGrace(); got != want {
		t.Errorf("%+v", got)
	}
}

package gateway

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-polar/caddy-polar/entitlement"
	"github.com/caddy-polar/caddy-polar/polar"
	"github.com/caddy-polar/caddy-polar/polar/box"
)

// sellsTeams lets some customers buy a team past the gateway, with one seat that
// is taken by usr_t0, usr_t1 and so on.
func (x *teams) sellsTeams(n, seats int) (subs []string) {
	x.t.Helper()
	for i := range n {
		c := must(x.box.CreateCheckout(box.Checkout{
			ProductIDs: []string{x.team.ID}, CustomerEmail: fmt.Sprintf("boss%d@example.com", i), Seats: seats, SuccessURL: siteSuccess,
		}))
		sub := must(x.box.Confirm(c.ID, box.Payment{})).SubscriptionID
		for j := range seats {
			x.seatsQuietly(sub, fmt.Sprintf("usr_t%d_%d", i, j))
		}
		subs = append(subs, sub)
	}
	x.box.Settle()
	return subs
}

func (x *teams) seatsQuietly(sub, user string) {
	x.t.Helper()
	s, _ := x.box.Subscription(sub)
	m := must(x.box.AddMember(box.Member{CustomerID: s.CustomerID, Email: user + "@example.com", ExternalID: user}))
	must(x.box.AssignSeat(box.SeatAssignment{SubscriptionID: sub, MemberID: m.ID, Immediate: true}))
}

// Nobody can be asked about one person's seats: before the first sync of a shop
// that sells some is whole, a stranger is not told to pay.
func TestStrangerOfTeam(t *testing.T) {
	x := newTeams(t, box.Options{})
	x.sellsTeams(2, 2)
	for range 3 { // also when the look-up's answer is remembered
		x.confirms("usr_t1_1", "team", false, entitlement.ReasonUnavailable)
		x.confirms("usr_nobody", "team", false, entitlement.ReasonUnavailable)
	}
	if d := x.comes(verified("usr_x", "nobody@example.com"), "team"); d.HTTPStatus != http.StatusServiceUnavailable {
		t.Errorf("%d %s", d.HTTPStatus, d.Reason)
	}
	if r := x.sync(); r.Teams != 2 || !r.Seats {
		t.Errorf("%+v", r)
	}
	x.confirms("usr_t1_1", "team", true, entitlement.ReasonActive)
	x.confirms("usr_nobody", "team", false, entitlement.ReasonNoSubscription)
}

// The same where the team's product is of no plan, and its benefit is.
func TestStrangerWithBenefitOfTeam(t *testing.T) {
	x := newTeams(t, box.Options{}, func(c *Config) { c.Plans = c.Plans[len(c.Plans)-1:] })
	x.sellsTeams(1, 1)
	x.confirms("usr_t0_0", "suite", false, entitlement.ReasonUnavailable)
	x.sync()
	x.confirms("usr_t0_0", "suite", true, entitlement.ReasonActive)
}

// An interruption among the teams: the next start goes on with the team that
// comes next, and reads the members of its customer.
func TestFirstSyncGoesOnAmongTeams(t *testing.T) {
	x := newTeams(t, box.Options{AllowMultiple: true})
	subs := x.sellsTeams(3, 2)
	s, _ := x.box.Subscription(subs[0])
	extra := must(x.box.CreateCheckout(box.Checkout{ // one customer with two teams
		ProductIDs: []string{x.team.ID}, CustomerID: s.CustomerID, Seats: 2, SuccessURL: siteSuccess,
	}))
	x.seatsQuietly(must(x.box.Confirm(extra.ID, box.Payment{})).SubscriptionID, "usr_extra")
	x.box.Settle()
	for stop := range 4 {
		t.Run(fmt.Sprint(stop, " teams read"), func(t *testing.T) {
			shop := newShopAt(t, x.box, func(c *Config) { c.Plans = x.config.Plans })
			first, err := shop.g.beginSync(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for read := 0; read < stop || syncSteps[first.step].name != "seats"; {
				if syncSteps[first.step].name == "seats" {
					read++
				}
				facts, next, done, err := syncSteps[first.step].read(shop.g, t.Context(), first)
				if err != nil {
					t.Fatal(err)
				}
				if err := shop.g.takePage(t.Context(), first, facts, next, done); err != nil {
					t.Fatal(err)
				}
			}
			var calls []string
			shop.g.Stop()
			shop.g.Close()
			c := shop.config
			c.OnCall = func(call polar.Call) { calls = append(calls, call.Path) }
			g, err := New(c)
			if err != nil {
				t.Fatal(err)
			}
			shop.g = g
			again, err := g.beginSync(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if stop > 0 && again.Cursor.Place != first.Cursor.Place {
				t.Errorf("goes on at %q, was at %q", again.Cursor.Place, first.Cursor.Place)
			}
			calls = nil
			if err := g.runSync(t.Context(), again); err != nil {
				t.Fatal(err)
			}
			if n := strings.Count(strings.Join(calls, " "), "customer-seats"); n != 4-stop {
				t.Errorf("asks for %d teams: %q", n, calls)
			}
			for _, user := range []string{"usr_t0_0", "usr_t1_1", "usr_t2_1", "usr_extra"} {
				shop.is(user, "team", true, entitlement.ReasonActive)
			}
		})
	}
}

// Lost webhooks of teams are mended by one sync, and counted.
func TestSyncMendsTeams(t *testing.T) {
	x := newTeams(t, box.Options{})
	x.connect()
	sub := x.buysSeats(adaVisits(), x.team, 5)
	x.seats(sub, grace)
	seat := x.seats(sub, mary)
	x.sync()
	customer := x.customer(ada).ID
	for _, tt := range []struct {
		name    string
		happens func()
		user    string
		reason  entitlement.Reason
	}{
		{"customer_seat.revoked", func() { must(x.box.RevokeSeat(seat.ID)) }, mary, entitlement.ReasonSeatRevoked},
		{"member.deleted", func() { mustDo(x.box.RemoveMember(x.member(customer, grace).ID)) }, grace, entitlement.ReasonSeatRevoked},
		{"customer_seat.claimed", func() { x.seatsQuietly(sub, linus) }, linus, entitlement.ReasonActive},
		{"subscription.past_due", func() {
			mustDo(x.box.SetCard(customer, false))
			x.box.Advance(32 * day)
		}, linus, entitlement.ReasonPastDueGrace},
	} {
		x.box.Advance(2 * time.Hour)
		x.sync()
		x.box.SetNetwork(box.Network{Lose: true})
		tt.happens()
		x.box.Advance(2 * time.Hour)
		x.box.Settle()
		x.box.SetNetwork(box.Network{})
		r := x.sync()
		if r.Missing+r.Wrong+r.Extra == 0 {
			t.Errorf("%s: no drift", tt.name)
		}
		x.is(tt.user, "team", tt.reason == entitlement.ReasonActive || tt.reason == entitlement.ReasonPastDueGrace, tt.reason)
		if r := x.sync(); r.Missing+r.Wrong+r.Extra > 0 {
			t.Errorf("%s: not at rest: %+v", tt.name, r)
		}
	}
	// Who is no longer listed is gone, though the store knows them from elsewhere.
	held, err := x.g.store.MembersOf(customer)
	if err != nil {
		t.Fatal(err)
	}
	living := 0
	for _, m := range held {
		if !m.Deleted {
			living++
		}
	}
	if n := len(x.box.Members(customer)); living != n {
		t.Errorf("%d members live here, %d at Polar: %+v", living, n, held)
	}
}

// Without the scopes for teams the rest is read, and it is said once what is not.
func TestSyncOfTeamsWithoutScopes(t *testing.T) {
	for lacks, more := range map[string][]string{"seats": nil, "members": {"customer_seats:read"}} {
		t.Run(lacks, func(t *testing.T) {
			x := newTeams(t, box.Options{})
			x.sellsTeams(2, 1)
			x.config.AccessToken = x.box.NewToken(append([]string{
				"subscriptions:read", "customers:read", "orders:read", "refunds:read", "disputes:read", "benefits:read", "products:read",
				"organizations:read",
			}, more...)...)
			g, err := New(x.config)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(g.Close)
			x.g = g
			for range 3 {
				x.sync()
			}
			if n := x.logs.FilterFieldKey("what").FilterMessageSnippet("lacks a scope").FilterField(zap.String("what", lacks)).Len(); n != 1 {
				t.Errorf("%d warnings: %v", n, x.logs.FilterMessageSnippet("scope").All())
			}
			if lacks == "members" { // the seats tell of those who have them
				x.is("usr_t1_0", "team", true, entitlement.ReasonActive)
			} else {
				x.is("usr_t1_0", "team", false, entitlement.ReasonPlanRequired) // suite is open: grants can be read
			}
			x.confirms("usr_nobody", "team", false, entitlement.ReasonNoSubscription)
		})
	}
}

// A Polar that fails among the teams ends the sync, which is tried again. What
// was known goes on counting.
func TestTroubleAmongTeams(t *testing.T) {
	for name, trouble := range map[string]box.Trouble{"500": {HTML: true}, "429": {Limit: 30}} {
		t.Run(name, func(t *testing.T) {
			var x *teams
			var fails atomic.Bool
			x = newTeams(t, box.Options{}, func(c *Config) {
				c.OnCall = func(call polar.Call) {
					if fails.Load() && strings.Contains(call.Path, "customer-seats") {
						x.box.SetTrouble(trouble)
					}
				}
			})
			subs := x.sellsTeams(3, 1)
			x.sync()
			must(x.box.RevokeSeat(x.box.Seats(subs[2])[0].ID))
			x.box.Settle()
			fails.Store(true)
			if _, err := x.g.Sync(t.Context()); err == nil || !strings.Contains(err.Error(), "sync: seats") {
				t.Errorf("%v", err)
			}
			x.all("team", true, entitlement.ReasonActive, "usr_t0_0", "usr_t1_0")
			if !x.g.synced() {
				t.Error("not in sync for that")
			}
			fails.Store(false)
			x.box.SetTrouble(box.Trouble{})
			x.sync()
			x.is("usr_t2_0", "team", false, entitlement.ReasonSeatRevoked)
		})
	}
}

// The time between syncs grows with the teams, which are two questions each; a
// glance asks none of them.
func TestPaceOfTeams(t *testing.T) {
	var calls []string
	x := newTeams(t, box.Options{}, func(c *Config) {
		c.OnCall = func(call polar.Call) { calls = append(calls, call.Path) }
		c.Syncing = Syncing{Every: 15 * time.Minute, Budget: 10}
	})
	x.sellsTeams(120, 1)
	r := x.sync()
	if r.Teams != 120 {
		t.Fatalf("%d teams", r.Teams)
	}
	if n := strings.Count(strings.Join(calls, " "), "customer-seats"); n != 120 {
		t.Errorf("%d questions for seats", n)
	}
	if n := len(calls); n > 260 {
		t.Errorf("%d calls", n)
	}
	if got := x.g.SyncPeriod(r.weight()); got < 24*time.Minute || got > 26*time.Minute {
		t.Errorf("a sync of 240 questions and more, ten a minute, every %s", got)
	}
	if due := x.g.untilSync(); due < 23*time.Minute {
		t.Errorf("due in %s", due)
	}
	calls = nil
	x.g.glance(t.Context())
	if all := strings.Join(calls, " "); strings.Contains(all, "seats") || strings.Contains(all, "members") {
		t.Errorf("a glance asks %q", calls)
	}
}

// A store of a version that did not read seats is in sync only after one that does.
func TestUpgradeReadsSeats(t *testing.T) {
	x := newTeams(t, box.Options{})
	x.sellsTeams(1, 1)
	r := x.sync()
	r.Seats = false
	mustDo(x.g.noteSync(t.Context(), &r))
	g := x.restarted()
	if g.synced() || g.untilSync() != 0 {
		t.Error("does not sync at once")
	}
	r.Seats = true
	mustDo(x.g.noteSync(t.Context(), &r))
	if g := x.restarted(); !g.synced() {
		t.Error("syncs for nothing")
	}
}

// Who has lost a seat and has another one now is found by a look-up, once the
// answer hangs on one: it reads the seats of what they have seats of.
func TestLookUpOfSeats(t *testing.T) {
	x := newTeams(t, box.Options{})
	x.connect()
	sub := x.buysSeats(adaVisits(), x.team, 2)
	seat := x.seats(sub, grace)
	x.sync()
	x.box.SetNetwork(box.Network{Lose: true})
	x.unseats(seat)
	x.is(grace, "team", true, entitlement.ReasonActive) // nobody has told
	if err := x.g.LookUp(t.Context(), grace); err != nil {
		t.Fatal(err)
	}
	// What Polar has granted with the seat is told with those of the whole team, by
	// a sync.
	x.is(grace, "team", false, entitlement.ReasonPlanRequired)
	x.seats(sub, grace)
	if err := x.g.LookUp(t.Context(), grace); err != nil {
		t.Fatal(err)
	}
	x.is(grace, "team", true, entitlement.ReasonActive)
	// A period that is over without a word from Polar: the gate asks, and holds on.
	x.box.Advance(31*day + 3*day + time.Hour)
	x.confirms(grace, "team", true, entitlement.ReasonActive)
}

// One team whose seats Polar does not tell keeps no other from being read.
func TestOneTeamThatPolarDoesNotTell(t *testing.T) {
	x := newTeams(t, box.Options{})
	x.sync()
	x.deaf = true
	x.seats(x.buysSeats(adaVisits(), x.team, 2), grace)
	proxy := proxyTo(t, x.config.Server)
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.Contains(r.URL.Path, "customer-seats") {
			proxy.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusForbidden)
		_, _ = w.Write([]byte(`{"error":"FeatureNotEnabled","detail":"Seat-based pricing is not enabled"}`))
	}))
	t.Cleanup(front.Close)
	x.g.client.Close()
	x.g.client = must(polar.NewClient(polar.ClientConfig{
		BaseURL: front.URL, Token: x.config.AccessToken, Logger: x.g.logger, Now: x.g.local, Sleep: x.g.sleep,
	}))
	if _, err := x.g.Sync(t.Context()); err != nil {
		t.Error(err)
	}
	if a := must(x.g.Account(ada)); len(a.Subscriptions) != 1 {
		t.Error("what the team has bought is not held")
	}
}

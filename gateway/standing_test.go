package gateway

import (
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/caddy-polar/caddy-polar/cache"
	"github.com/caddy-polar/caddy-polar/entitlement"
)

// recollections are the standings that visitors were last given. All that the tests
// of this package ask for is asked for of these too: what still holds must be what
// the account says now.
type recollections struct {
	mu   sync.Mutex
	of   *Gateway // whose tokens they came with
	last map[Visitor]*Standing
}

func (r *recollections) agree(t testing.TB, g *Gateway, v Visitor, q entitlement.Requirement, want entitlement.Decision) {
	t.Helper()
	now, rules := g.Now(), g.Rules()
	check := func(how string, s *Standing) {
		t.Helper()
		open := s.Meets(q)
		if (open != nil) != want.Allowed || open != nil && open.Decision != want {
			t.Errorf("%s, %s: %+v, the account says %+v", v.User, how, open, want)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.of != g {
		r.of, r.last = g, nil
	}
	if last := r.last[v]; last != nil && last.Holds(rules, now) {
		check("with the token", last)
	}
	if s := g.recallStanding(&v, rules, now); s != nil {
		check("as a note", s)
	}
	fresh, _, err := g.StandingOf(&v, now)
	if err != nil {
		t.Errorf("%s: %v", v.User, err)
		return
	}
	check("looked up", fresh)
	if r.last == nil {
		r.last = make(map[Visitor]*Standing)
	}
	r.last[v] = fresh
}

// remembers says whether a standing outlives its request, and whether there is a note
// of it.
func (b *bench) remembers(v Visitor, withToken, asNote bool) {
	b.t.Helper()
	s, _, err := b.g.StandingOf(&v, b.now)
	if err != nil {
		b.t.Fatal(err)
	}
	if holds := s.Holds(b.g.Rules(), b.now); holds != withToken {
		b.t.Errorf("%+v: with the token %v, want %v", v, holds, withToken)
	}
	if noted := b.g.recallStanding(&v, b.g.Rules(), b.now) != nil; noted != asNote {
		b.t.Errorf("%+v: as a note %v, want %v", v, noted, asNote)
	}
}

func TestStandingIsRemembered(t *testing.T) {
	b := newBench(t)
	me, stranger := Visitor{User: ada}, Visitor{User: "nobody"}
	b.remembers(me, true, false)
	b.take(sample(t, "subscription.active.json"))
	b.remembers(me, true, true)
	b.remembers(stranger, true, false) // of whom there can be any number

	last, _, _ := b.g.StandingOf(&me, b.now)
	again, account, _ := b.g.StandingOf(&me, b.now)
	if account != nil || again.Customer != last.Customer || again.Open != "pro" || !again.Known {
		t.Errorf("%+v, and the account was read: %v", again, account != nil)
	}
	other, _, _ := b.g.StandingOf(&stranger, b.now)
	if other.Known || other.Open != "" {
		t.Errorf("a stranger: %+v", other)
	}

	b.take(edited(t, "subscription.active.json", "data.modified_at", bought.Add(time.Hour)))
	if last.Holds(b.g.Rules(), b.now) || b.g.recallStanding(&me, b.g.Rules(), b.now) != nil {
		t.Error("it outlives a fact")
	}
}

// What rests on time ends with it, and what is open does not with a sync.
func TestStandingEndsByItself(t *testing.T) {
	b := newBench(t)
	b.take(sample(t, "subscription.active.json"))
	me := Visitor{User: ada}
	s, _, err := b.g.StandingOf(&me, b.now)
	if err != nil {
		t.Fatal(err)
	}
	end := s.Meets(entitlement.Requirement{}).Until
	rules := b.g.Rules()
	for at, holds := range map[time.Time]bool{b.now: true, end.Add(-1): true, end: false, b.now.Add(-1): false} {
		if s.Holds(rules, at) != holds || (b.g.recallStanding(&me, rules, at) != nil) != holds {
			t.Errorf("at %s it holds: %v, want %v", at, s.Holds(rules, at), holds)
		}
	}
	confirmed := *rules
	confirmed.ConfirmedAt = b.now
	if !s.Holds(&confirmed, b.now) || b.g.recallStanding(&me, &confirmed, b.now) == nil {
		t.Error("it ends with a sync")
	}
}

// A configuration with other plans believes no note of this one.
func TestNotesAreOfPlans(t *testing.T) {
	store := openStore(t, filepath.Join(t.TempDir(), "polar.db"))
	b := newBench(t, withStore(store))
	b.take(sample(t, "subscription.active.json"))
	b.remembers(Visitor{User: ada}, true, true)
	again := newBench(t, withStore(store))
	if again.g.recallStanding(&Visitor{User: ada}, again.g.Rules(), b.now) == nil {
		t.Error("the same plans after a reload: no note")
	}
	others := plans()
	others[0], others[1] = others[1], others[0]
	again = newBench(t, withStore(store), withPlans(others))
	if s := again.g.recallStanding(&Visitor{User: ada}, again.g.Rules(), b.now); s != nil {
		t.Errorf("a note of other plans: %+v", s)
	}
}

// Whose e-mail may still link more is looked at each time.
func TestStandingOfProvers(t *testing.T) {
	b := newBench(t, linkingEmail)
	b.remembers(verified("nobody", "nobody@example.com"), false, false)
	b.remembers(Visitor{User: "nobody"}, true, false)
	if _, err := b.store.Apply(t.Context(), &cache.Facts{Passes: []entitlement.Pass{{ID: "p", User: "guest", Plan: "pro"}}}); err != nil {
		t.Fatal(err)
	}
	// A pass opens, and makes nobody a customer.
	b.remembers(verified("guest", "guest@example.com"), false, false)
	b.remembers(Visitor{User: "guest"}, true, true)
	b.remembers(verified("guest", "guest@example.com"), false, false)
	b.take(sample(t, "subscription.active.json"))
	b.remembers(verified(ada, "ada@example.com"), true, true)
}

// Who asks for a paying party comes to what both accounts say.
func TestStandingOfAParty(t *testing.T) {
	b := newBench(t)
	b.take(sample(t, "subscription.active.json"))
	v := Visitor{User: ada, Person: "grace"}
	b.remembers(v, true, false)
	s, _, err := b.g.StandingOf(&v, b.now)
	if err != nil || s.Open != "pro" {
		t.Fatal(s, err)
	}
	for _, user := range []string{"grace", ada} {
		b.remembers(v, true, false)
		s, _, _ = b.g.StandingOf(&v, b.now)
		pass := entitlement.Pass{ID: fmt.Sprint("p-", user), User: user, Plan: "team"}
		if _, err := b.store.Apply(t.Context(), &cache.Facts{Passes: []entitlement.Pass{pass}}); err != nil {
			t.Fatal(err)
		}
		if s.Holds(b.g.Rules(), b.now) {
			t.Errorf("it outlives a fact about %s", user)
		}
	}
	b.remembers(Visitor{Person: "grace"}, true, false)
}

// A person's e-mail can link seats to them as long as they are no member who has
// something, whatever the party has.
func TestStandingOfAProverInAParty(t *testing.T) {
	b := newBench(t, linkingEmail)
	b.take(sample(t, "subscription.active.json"))
	v := Visitor{User: ada, Person: "grace", Email: "grace@example.com", EmailVerified: true}
	unproven := v
	unproven.EmailVerified = false
	until := b.now.Add(time.Hour)
	for _, facts := range []*cache.Facts{
		{},
		{Passes: []entitlement.Pass{{ID: "p", User: "grace", Plan: "team", Until: until}}},
		{Members: []entitlement.Member{{Version: entitlement.Version{Row: b.now}, ID: "m", CustomerID: "elsewhere", ExternalID: "grace"}}},
	} {
		b.remembers(v, false, false)
		b.remembers(unproven, true, false)
		if _, err := b.store.Apply(t.Context(), facts); err != nil {
			t.Fatal(err)
		}
	}
	b.remembers(v, true, false)
	s, _, err := b.g.StandingOf(&v, b.now)
	if err != nil {
		t.Fatal(err)
	}
	if rules := b.g.Rules(); !s.Holds(rules, until.Add(-1)) || s.Holds(rules, until) || !s.Standing.Holds(rules, until) {
		t.Error("it does not end with what the person has")
	}
	member := entitlement.Member{Version: entitlement.Version{Row: b.now}, ID: "m2", CustomerID: "elsewhere", ExternalID: "hopper"}
	if _, err := b.store.Apply(t.Context(), &cache.Facts{Members: []entitlement.Member{member}}); err != nil {
		t.Fatal(err)
	}
	v.Person = "hopper" // a member of something that opens nothing
	b.remembers(v, false, false)
}

package gateway

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/caddy-polar/caddy-polar/entitlement"
)

// TestRefusals: the last ones are remembered, however many strangers come between, and
// the next configuration knows them.
func TestRefusals(t *testing.T) {
	b := newBench(t)
	known := func(id string) bool {
		t.Helper()
		r, _, err := b.g.ExplainRequest(id)
		if err != nil && !errors.Is(err, ErrNoRefusal) {
			t.Fatal(err)
		}
		return err == nil && r.RequestID == id && r.At.Equal(b.now)
	}
	b.g.Refused(Refusal{User: "ada", Payer: "ada"}) // without an id nobody can ask
	for i := range refusalsKept + 10 {
		b.g.Refused(Refusal{RequestID: fmt.Sprint("u", i), User: "ada", Payer: "ada", Plans: []string{"pro"}, Code: "canceled"})
	}
	for i := range 3 * refusalsKept {
		b.g.Refused(Refusal{RequestID: fmt.Sprint("s", i), Code: "token_missing"})
	}
	for id, want := range map[string]bool{
		"": false, "u9": false, "u10": true, fmt.Sprint("u", refusalsKept+9): true,
		fmt.Sprint("s", 2*refusalsKept-1): false, fmt.Sprint("s", 2*refusalsKept): true,
	} {
		if known(id) != want {
			t.Errorf("%q is known: %v", id, !want)
		}
	}
	// Two gates in one request: the later one counts, and does not bring the other back.
	for range 2 {
		b.g.Refused(Refusal{RequestID: "twice", User: "ada", Payer: "ada", Code: "canceled"})
	}
	for i := range refusalsKept - 1 {
		b.g.Refused(Refusal{RequestID: fmt.Sprint("v", i), User: "ada", Payer: "ada"})
	}
	if !known("twice") {
		t.Error("it is lost with its first half")
	}
	b.g.Refused(Refusal{RequestID: "w", User: "ada", Payer: "ada"})
	if known("twice") || !known("w") || len(b.g.refusals.users.where) > refusalsKept {
		t.Error(len(b.g.refusals.users.where))
	}
	b = newBench(t, withStore(b.store))
	if !known("w") {
		t.Error("a reload forgets")
	}
	// Of a plan that is no more, and of somebody for whom another pays.
	b.take(edited(t, "subscription.active.json"))
	b.g.Refused(Refusal{RequestID: "gone", User: "eve", Payer: ada, Plans: []string{"gone"}, Code: "plan_required"})
	r, e, err := b.g.ExplainRequest("gone")
	if err != nil || e.User != ada || !e.Decision.Allowed || r.User != "eve" {
		t.Error(r, e, err)
	}
	for status, step := range map[int]entitlement.NextStep{401: entitlement.StepLogin, 503: entitlement.StepWait} {
		b.g.Refused(Refusal{RequestID: "stranger", Code: "code", Status: status})
		if _, e, err = b.g.ExplainRequest("stranger"); err != nil || e.Decision.Reason != "code" || e.Decision.NextStep != step || e.Decision.HTTPStatus != status {
			t.Error(status, e, err)
		}
	}
	// Who is forgotten is, here too, and the room is used again.
	if _, err := b.g.Forget(t.Context(), "eve"); err != nil || known("gone") || !known("w") {
		t.Error(err)
	}
	for i := range 2 * refusalsKept {
		b.g.Refused(Refusal{RequestID: fmt.Sprint("x", i), User: "ada", Payer: "ada"})
	}
	if !known(fmt.Sprint("x", refusalsKept)) || len(b.g.refusals.users.where) != refusalsKept {
		t.Error(len(b.g.refusals.users.where))
	}
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for j := range 1000 {
				b.g.Refused(Refusal{RequestID: fmt.Sprint(i, j), Code: "token_missing"})
				_, _, _ = b.g.ExplainRequest(fmt.Sprint(i, j/2))
			}
		})
	}
	all.Wait()
}

// TestWhyAPartyIsRefused: somebody for whom an organization pays is judged as the gate
// judges them, and so is somebody for whom nobody does.
func TestWhyAPartyIsRefused(t *testing.T) {
	b := newBench(t)
	b.take(edited(t, "subscription.active.json"))
	for _, test := range []struct {
		payer   string
		allowed bool
	}{{ada, true}, {"", false}, {"org_nobody", false}} {
		b.g.Refused(Refusal{RequestID: "r", User: "bob", Payer: test.payer, Plans: []string{"pro"}, Code: "x"})
		_, e, err := b.g.ExplainRequest("r")
		if err != nil || e.Decision.Allowed != test.allowed || e.User != test.payer {
			t.Errorf("%q pays: %+v %v", test.payer, e.Decision, err)
		}
	}
	seats := edited(t, "subscription.active.seats.json")
	b.take(seats)
	account, err := b.g.AccountOf(Visitor{User: ada, Person: "bob"})
	if err != nil {
		t.Fatal(err)
	}
	q, err := b.g.Rules().Require("seats")
	if err != nil {
		t.Fatal(err)
	}
	gate := entitlement.Decide(account, q, b.g.Rules(), b.now)
	b.g.Refused(Refusal{RequestID: "seat", User: "bob", Payer: ada, Plans: []string{"seats"}, Code: string(gate.Reason)})
	if _, e, err := b.g.ExplainRequest("seat"); err != nil || e.Decision != gate || gate.Allowed {
		t.Errorf("the gate says %+v, the explanation %+v %v", gate, e.Decision, err)
	}
}

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
	_, e, err = b.g.ExplainRequest(fmt.Sprint("s", 3*refusalsKept-1))
	if err != nil || e.Decision.Reason != "token_missing" || e.Decision.NextStep != entitlement.StepLogin || e.Decision.HTTPStatus != 401 {
		t.Error(e, err)
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

package gateway

import (
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/caddy-polar/caddy-polar/entitlement"
)

// ErrNoRefusal says that no refusal of this request is remembered.
var ErrNoRefusal = errors.New("no refusal of this request is remembered")

// refusalsKept is how many refusals of each sort are remembered: of users, and of
// strangers, who are many.
const refusalsKept = 1000

// Refusal is a request that a gate has refused, as it was then.
type Refusal struct {
	RequestID string
	At        time.Time
	User      string   // who asked, empty for a stranger
	Payer     string   // who pays for them; mostly the user
	Plans     []string // of which one was demanded
	Code      string   // what the answer said
	Status    int      // of the answer
	// Decision is empty for a stranger.
	Decision entitlement.Decision
}

// refusals are the last ones, in memory. They outlive configurations and no
// restart.
type refusals struct {
	mu               sync.Mutex
	users, strangers ring
}

// ring has the last of many, by request.
type ring struct {
	list  []Refusal
	next  int // to be replaced, once the list is full
	where map[string]int
}

func (r *ring) add(refusal Refusal) {
	if r.where == nil {
		r.where = make(map[string]int)
	}
	at := r.next
	if len(r.list) < refusalsKept {
		at, r.list = len(r.list), append(r.list, refusal)
	} else {
		if old := r.list[at].RequestID; old != "" && r.where[old] == at { // of two gates the later one has the request
			delete(r.where, old)
		}
		r.list[at], r.next = refusal, (at+1)%refusalsKept
	}
	r.where[refusal.RequestID] = at
}

func (r *ring) find(request string) (Refusal, bool) {
	at, ok := r.where[request]
	if !ok {
		return Refusal{}, false
	}
	return r.list[at], true
}

const keptRefusals = "refusals"

// rememberedRefusals are those of this process, on this store.
func (g *Gateway) rememberedRefusals() *refusals {
	return g.store.KeepFirst(keptRefusals, new(refusals)).(*refusals)
}

// Refused remembers a refusal, for who asks why.
func (g *Gateway) Refused(r Refusal) {
	if r.RequestID == "" {
		return
	}
	r.At = g.Now()
	kept := g.refusals
	kept.mu.Lock()
	defer kept.mu.Unlock()
	if r.User == "" {
		kept.strangers.add(r)
		return
	}
	kept.users.add(r)
}

// ExplainRequest says why a request was refused, and what the same user would get
// now. Of a stranger there is nothing more to tell than the refusal.
func (g *Gateway) ExplainRequest(request string) (Refusal, Explanation, error) {
	kept := g.refusals
	kept.mu.Lock()
	r, ok := kept.users.find(request)
	if !ok {
		r, ok = kept.strangers.find(request)
	}
	kept.mu.Unlock()
	switch {
	case !ok:
		return r, Explanation{}, fmt.Errorf("%w: the last %d are, since the start", ErrNoRefusal, refusalsKept)
	case r.User == "":
		e := Explanation{At: g.Now()}
		e.Decision = entitlement.Decision{Reason: entitlement.Reason(r.Code), HTTPStatus: r.Status, NextStep: entitlement.StepLogin}
		if r.Status != http.StatusUnauthorized {
			e.Decision.NextStep = entitlement.StepWait
		}
		return r, e, nil
	}
	// Without the e-mail of the token, which is not kept.
	visitor := Visitor{User: r.Payer, Person: r.User}
	e, err := g.explain(visitor, time.Time{}, r.Plans...)
	if errors.Is(err, entitlement.ErrUnknownPlan) { // another configuration runs since
		e, err = g.explain(visitor, time.Time{})
	}
	return r, e, err
}

// forget takes the refusals of a user out.
func (r *refusals) forget(user string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.users.list {
		if held := &r.users.list[i]; held.User == user || held.Payer == user {
			delete(r.users.where, held.RequestID)
			*held = Refusal{}
		}
	}
}

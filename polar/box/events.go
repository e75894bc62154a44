package box

import (
	"encoding/json"
	"time"
)

// Event is one of Polar's events, whether an endpoint wants it or not.
type Event struct {
	Type      string
	Timestamp time.Time
	Data      json.RawMessage
	subject   string // the id of the object
	extra     string // more fields of the envelope, as JSON
}

// Envelope is the body of the event's webhook, for an endpoint with an API
// version.
func (e *Event) Envelope(version string) string {
	return `{"type":"` + e.Type + `","timestamp":"` + stamp(e.Timestamp) + `","api_version":"` + version + `"` + e.extra + `,"data":` + string(e.Data) + `}`
}

// maxJournal bounds the memory of a box that runs for long.
const maxJournal = 1 << 16

// Events returns what has happened so far, oldest first.
func (b *Box) Events() []Event {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]Event(nil), b.journal...)
}

// emit renders events now, inside of the transaction: what happens later does
// not change their body.
func (t *tx) emit(kind string, data obj) { t.emitAll("", []string{kind}, data) }

// emitAll sends several events with the same data, rendered once.
func (t *tx) emitAll(prefix string, kinds []string, data obj) {
	body, err := encode(data)
	if err != nil {
		panic("box: " + prefix + kinds[0] + ": " + err.Error()) // metadata that JSON cannot hold
	}
	id, _ := data["id"].(string)
	for _, kind := range kinds {
		t.events = append(t.events, Event{prefix + kind, t.b.clock.tick(), body, id, ""})
	}
}

// commit stores the events of a transaction and hands them to the endpoints.
func (b *Box) commit(t *tx) {
	if len(b.journal)+len(t.events) > maxJournal {
		b.journal = append([]Event(nil), b.journal[len(b.journal)/2:]...)
	}
	b.journal = append(b.journal, t.events...)
	for _, e := range t.events {
		b.enqueue(e, t.visible)
	}
}

func (t *tx) emitSubscription(s *Subscription, kinds ...string) {
	t.emitAll("subscription.", kinds, t.b.subscriptionJSON(s))
	t.b.stateChanged(s.CustomerID)
}

func (t *tx) emitOrder(o *Order, kinds ...string) {
	t.emitAll("order.", kinds, t.b.orderJSON(o))
}

func (t *tx) emitCheckout(c *Checkout) {
	kind := "checkout.updated"
	if c.Status == "expired" {
		kind = "checkout.expired"
	}
	t.emit(kind, t.b.checkoutJSON(c))
}

// Polar debounces customer.state_changed: a second after the last cause, five
// seconds after the first.
const (
	stateDelay = time.Second
	stateMax   = 5 * time.Second
	jobDelay   = 100 * time.Millisecond
)

type stateJob struct {
	deadline time.Time
	turn     int
	pending  bool
	cached   json.RawMessage // what GET …/state answers until an hour is over
	cachedAt time.Time
}

func (b *Box) stateJob(customerID string) *stateJob {
	j := b.states[customerID]
	if j == nil {
		j = &stateJob{}
		b.states[customerID] = j
	}
	return j
}

func (b *Box) stateChanged(customerID string) {
	now, j := b.Now(), b.stateJob(customerID)
	if !j.pending {
		j.pending, j.deadline = true, now.Add(stateMax)
	}
	j.turn++
	turn, at := j.turn, now.Add(stateDelay)
	if at.After(j.deadline) {
		at = j.deadline
	}
	b.job(at, true, func(t *tx) {
		if j.turn != turn {
			return // a later cause moved it
		}
		j.pending = false
		t.emitState(customerID)
	})
}

func (t *tx) emitState(customerID string) {
	c, ok := t.b.customers.get(customerID)
	if !ok {
		return
	}
	t.emit("customer.state_changed", t.b.stateJSON(&c, time.Time{}))
	j := t.b.stateJob(customerID)
	j.cached, j.cachedAt = t.events[len(t.events)-1].Data, t.b.Now()
}

// customerJob sends customer.created, updated or deleted. It is a background
// job: the body is the row at the time of the job.
func (b *Box) customerJob(customerID, kind string) {
	b.job(b.Now().Add(jobDelay), true, func(t *tx) {
		if c, ok := b.customers.get(customerID); ok {
			t.emit("customer."+kind, b.customerJSON(&c))
			b.stateChanged(customerID)
		}
	})
}

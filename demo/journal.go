package demo

import (
	"slices"
	"sync"
	"time"
)

// entry is a line of what has happened.
type entry struct {
	At    time.Time // on the box's clock
	Kind  string    // webhook, decision or action
	Good  bool
	Title string
	Text  string
}

// access is what the gateway has decided for one plan.
type access struct {
	Allowed bool       `json:"allowed"`
	Reason  string     `json:"reason"`
	Until   *time.Time `json:"until"`
}

// journal keeps what the panel shows, and wakes those who show it.
type journal struct {
	mu        sync.Mutex
	entries   []entry                      // oldest first
	decisions map[string]map[string]access // by person and plan
	network   string
	changed   chan struct{} // closed at the next change
}

// kept is how many entries are shown.
const kept = 80

func newJournal() *journal {
	return &journal{decisions: make(map[string]map[string]access), network: networkOn, changed: make(chan struct{})}
}

// change runs do, and wakes those who wait.
func (j *journal) change(do func()) {
	j.mu.Lock()
	defer j.mu.Unlock()
	do()
	close(j.changed)
	j.changed = make(chan struct{})
}

func (j *journal) add(e entry) {
	j.change(func() { j.append(e) })
}

func (j *journal) append(e entry) {
	j.entries = append(j.entries, e)
	if len(j.entries) > kept {
		j.entries = slices.Delete(j.entries, 0, len(j.entries)-kept)
	}
}

// decided notes what the gateway says about a person. Only what is new is told,
// and at first only what is open.
func (j *journal) decided(at time.Time, p person, plans map[string]access) {
	j.change(func() {
		before, known := j.decisions[p.ID]
		j.decisions[p.ID] = plans
		for _, plan := range Plans {
			now, ok := plans[plan]
			if was := before[plan]; !ok || was.Allowed == now.Allowed && was.Reason == now.Reason || !known && !now.Allowed {
				continue
			}
			j.append(entry{At: at, Kind: "decision", Good: now.Allowed, Title: p.Name + ", " + plan + ": " + now.Word(), Text: now.Why()})
		}
	})
}

// Word says it in one word.
func (a access) Word() string {
	if a.Allowed {
		return "open"
	}
	return "closed"
}

// Why is the reason, and when it ends or has ended.
func (a access) Why() string {
	switch {
	case a.Until == nil:
		return a.Reason
	case a.Allowed:
		return a.Reason + " until " + a.Until.UTC().Format(untilFormat)
	}
	return a.Reason + " since " + a.Until.UTC().Format(untilFormat)
}

const untilFormat = "2 Jan 2006 15:04 UTC"

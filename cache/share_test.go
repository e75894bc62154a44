package cache

import (
	"testing"
	"time"

	"github.com/caddy-polar/caddy-polar/cache/kv"
)

// sharing makes others share an engine.
type sharing struct{ kv.Engine }

func (sharing) Shared() bool { return true }

// TestLeaseOfTheDead: who leads and says nothing any more leads no longer before another
// one does, which takes no half minute.
func TestLeaseOfTheDead(t *testing.T) {
	var stores []*Store
	engine := testStore(t).engine
	for i := range 2 {
		s := NewStore(sharing{engine})
		t.Cleanup(s.memory.close)
		s.news.id[0] = byte(i + 1)
		stores = append(stores, s)
	}
	dead, other := stores[0], stores[1]
	now := time.Now()
	dead.lead(now)
	if !dead.Leads() {
		t.Fatal("nobody leads")
	}
	end := dead.news.start.Add(time.Duration(dead.news.until.Load()))
	for at := now; !other.Leads(); at = at.Add(time.Second) {
		other.lead(at)
		switch took := at.Sub(now); {
		case other.Leads() && !at.After(end):
			t.Fatalf("two lead after %s", took)
		case took > 30*time.Second:
			t.Fatal("nobody takes the lease")
		}
	}
	dead.lead(now.Add(30 * time.Second))
	if dead.Leads() {
		t.Error("who comes back leads beside the other")
	}
}

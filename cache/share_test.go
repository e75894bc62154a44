package cache

import (
	"bytes"
	"fmt"
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

// TestLeaseOfTheOld: who cannot read any more what a newer version writes leads no longer,
// and leaves the lease alone.
func TestLeaseOfTheOld(t *testing.T) {
	s := NewStore(sharing{testStore(t).engine})
	t.Cleanup(s.memory.close)
	s.claimed.Store(&Owner{Gateway: testOwner.Gateway, Server: testOwner.Server, MarkKey: randomOf(t, s)})
	now := time.Now()
	s.lead(now)
	if !s.Leads() {
		t.Fatal("nobody leads")
	}
	held := s.news.lease
	if err := s.engine.Transact(true, func(tx kv.Tx) (bool, error) {
		return true, tx.Bucket(bucketMeta).Put(keySchema, []byte{schema + 1})
	}); err != nil {
		t.Fatal(err)
	}
	if s.lead(now.Add(leaseRenewed)); s.Leads() || !bytes.Equal(s.news.lease, held) {
		t.Error("it leads on")
	}
}

func randomOf(t *testing.T, s *Store) (key []byte) {
	t.Helper()
	if err := s.engine.Transact(false, func(tx kv.Tx) (bool, error) {
		key = bytes.Clone(tx.Bucket(bucketMeta).Get(keyRandom))
		return false, nil
	}); err != nil {
		t.Fatal(err)
	}
	return key
}

// TestManyNews: who has much to hear hears it in parts, and all of it.
func TestManyNews(t *testing.T) {
	writer := NewStore(sharing{testStore(t).engine})
	reader := NewStore(sharing{writer.engine})
	t.Cleanup(reader.memory.close)
	t.Cleanup(writer.memory.close)
	if err := writer.engine.Transact(true, func(tx kv.Tx) (bool, error) {
		_, err := tx.Create(bucketNews) // files have none
		return true, err
	}); err != nil {
		t.Fatal(err)
	}
	if err := reader.hear(); err != nil {
		t.Fatal(err)
	}
	users := make(map[string]struct{})
	for n := range mostNews / 4 {
		users[fmt.Sprint("u", n)] = struct{}{}
	}
	revision, after := reader.Revision("u7"), reader.news.heard
	tell := func(users map[string]struct{}) (mark []byte) {
		t.Helper()
		if err := writer.engine.Transact(true, func(tx kv.Tx) (_ bool, err error) {
			mark, err = tellNews(tx, users)
			return true, err
		}); err != nil {
			t.Fatal(err)
		}
		return mark
	}
	for range 5 {
		tell(users)
	}
	last := tell(map[string]struct{}{"u7": {}})
	history := reader.memory.begin()
	if err := reader.hear(); err != nil || revision.Holds() || !bytes.Equal(reader.news.heard.Mark, last) || reader.memory.begin() != history {
		t.Errorf("it has heard up to %+v (%v)", reader.news.heard, err)
	}
	for parts := 0; ; parts++ {
		some, upTo, missed, err := writer.News(after)
		if err != nil || missed || parts > 4 {
			t.Fatal(parts, missed, err)
		}
		if after = upTo; len(some) == 0 {
			break
		}
	}
	if !bytes.Equal(after.Mark, last) {
		t.Error("the news end too early")
	}
	for n := range mostNews {
		users[fmt.Sprint("v", n)] = struct{}{}
	}
	tell(users) // too many at once
	last = tell(nil)
	if err := reader.hear(); err != nil || !bytes.Equal(reader.news.heard.Mark, last) || reader.memory.begin() == history {
		t.Errorf("after too many it has heard up to %+v (%v)", reader.news.heard, err)
	}
}

package cache

import (
	"fmt"
	"maps"
	"os"
	"testing"
	"time"
)

func TestStats(t *testing.T) {
	s := testStore(t)
	crowd(t, s, 30)
	apply(t, s, linked("c9", "l"))
	read := func(from, to int) {
		for i := from; i < to; i++ {
			_ = account(t, s, fmt.Sprintf("u%d", i))
		}
	}
	read(0, 30)
	_ = account(t, s, "l")
	_ = account(t, s, "nobody")
	got, err := s.Stats()
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]int{
		"customers": 30, "subscriptions": 30, "orders": 30, "grants": 30, "refunds": 0, "checkouts": 0, "links": 1, "email_links": 0, "passes": 0,
		"members": 0, "seats": 0,
	}
	if !maps.Equal(got.Objects, want) {
		t.Errorf("objects %v, want %v", got.Objects, want)
	}
	if got.Accounts != 32 || got.FileSize != must(os.Stat(s.Path())).Size() || got.FreePages == 0 || time.Since(got.CountedAt) > time.Minute {
		t.Errorf("%+v", got)
	}
	crowd(t, s, 40)
	read(30, 40)
	if again := must(s.Stats()); !maps.Equal(again.Objects, want) || again.Accounts <= got.Accounts || !again.CountedAt.Equal(got.CountedAt) {
		t.Errorf("counted again within a minute: %+v", again)
	}
	s.counts.at = s.counts.at.Add(-countAgain)
	if again := must(s.Stats()); again.Objects["orders"] != 40 || got.Objects["orders"] != 30 {
		t.Errorf("a minute later %+v", again)
	}
}

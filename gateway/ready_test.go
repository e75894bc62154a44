package gateway

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/caddy-polar/caddy-polar/polar/box"
)

func (s *shop) isReady(want Unready, says string) {
	s.t.Helper()
	r := s.g.Ready(s.t.Context())
	if r.Reason != want || (want == "") != (r.Error == nil) || want != "" && !strings.Contains(r.Error.Error(), says) {
		s.t.Errorf("%q %v, want %q with %q", r.Reason, r.Error, want, says)
	}
}

// Whoever was filled once decides from its store, whatever becomes of Polar.
func TestReadyWithoutPolar(t *testing.T) {
	s := newShop(t, box.Options{})
	s.sleeps = func(time.Duration) error { return nil }
	s.isReady(UnreadyFilling, "the first sync is not done")
	s.box.SetTrouble(box.Trouble{HTML: true})
	s.tries()
	s.isReady(UnreadyFilling, "not done: polar: ") // and why
	s.box.SetTrouble(box.Trouble{})
	s.box.Advance(breakMost)
	s.pays(s.opens(adaVisits(), s.pro.ID), "")
	s.sync()
	s.isReady("", "")

	s.box.SetTrouble(box.Trouble{HTML: true})
	for range 3 {
		s.box.Advance(10 * day)
		s.isReady("", "") // also before it is known that Polar is down
		s.tries()
		s.isReady("", "")
	}
	s.g.rememberSync() // as Stop does
	s.reopens(s.g.store.Path())
	s.isReady("", "")
}

// A store that was left alone for long is mended before somebody is sent there,
// unless Polar cannot be asked.
func TestReadyWithAnOldStore(t *testing.T) {
	s := newShop(t, box.Options{})
	s.sleeps = func(time.Duration) error { return nil }
	s.pays(s.opens(adaVisits(), s.pro.ID), "")
	s.sync()
	limit := oldAfter * s.g.SyncPeriod(0)
	s.box.Advance(limit)
	s.reopens(s.g.store.Path()) // as after a crash
	s.isReady("", "")
	s.box.Advance(time.Second)
	s.isReady(UnreadyOld, "the store is of ")
	s.sync()
	s.isReady("", "")

	s.box.Advance(limit + time.Hour)
	s.reopens(s.g.store.Path())
	s.isReady(UnreadyOld, "the store is of ")
	s.box.SetTrouble(box.Trouble{HTML: true})
	s.tries()
	s.isReady("", "")
}

func TestReadyByTheStoreAlone(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"sync off": func(c *Config) { c.Syncing.Off = true },
		"no token": func(c *Config) { c.AccessToken = "" },
	} {
		t.Run(name, func(t *testing.T) { newShop(t, box.Options{}, change).isReady("", "") })
	}
	s := newShop(t, box.Options{}, func(c *Config) { c.Syncing.Off = true })
	s.isReady("", "")
	if err := os.Truncate(s.g.store.Path(), 0); err != nil {
		t.Fatal(err)
	}
	s.isReady(UnreadyStore, s.g.store.Path())
}

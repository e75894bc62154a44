package cache

import (
	"sync"

	"github.com/caddy-polar/caddy-polar/entitlement"
)

// watchers are those who wait for news about users.
type watchers struct {
	mu   sync.Mutex
	user map[string]map[chan struct{}]struct{}
}

// Watch tells of commits that concern a user: news can be received from the
// channel after each, and one piece of news can stand for several. stop ends
// it.
func (s *Store) Watch(user string) (news <-chan struct{}, stop func()) {
	w := &s.watchers
	c := make(chan struct{}, 1)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.user == nil {
		w.user = make(map[string]map[chan struct{}]struct{})
	}
	if w.user[user] == nil {
		w.user[user] = make(map[chan struct{}]struct{}, 1)
	}
	w.user[user][c] = struct{}{}
	return c, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.user[user], c)
		if len(w.user[user]) == 0 {
			delete(w.user, user)
		}
	}
}

// tellAll wakes all.
func (w *watchers) tellAll() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, those := range w.user {
		for c := range those {
			select {
			case c <- struct{}{}:
			default:
			}
		}
	}
}

// tell wakes those who watch one of the accounts. It never waits for them.
func (w *watchers) tell(accounts map[string]*entitlement.Account) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.user) == 0 {
		return
	}
	for user := range accounts {
		for c := range w.user[user] {
			select {
			case c <- struct{}{}:
			default: // the news before is still waiting
			}
		}
	}
}

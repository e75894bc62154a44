package integration

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"sync"
	"testing"
)

// often is how many times something is done: as often as a machine of CI can in a few
// seconds, or with FAULTS=full as often as docs/operations.md says.
func often(few, full int) int {
	if os.Getenv("FAULTS") == "full" {
		return full
	}
	return few
}

// ledger is what Polar was told: 200 for a webhook says that it is kept for ever.
type ledger struct {
	mu     sync.Mutex
	users  []string
	stands map[string]standing
}

// standing is what a user must get.
type standing int

const (
	unknown standing = iota // a webhook is on its way, or was not acknowledged
	paid
	ended
)

func newLedger() *ledger { return &ledger{stands: make(map[string]standing)} }

func (l *ledger) note(user string, s standing) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, known := l.stands[user]; !known {
		l.users = append(l.users, user)
	}
	l.stands[user] = s
}

func (l *ledger) size() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.users)
}

// acknowledged counts those of whom all that was sent was answered with 200. Tries that
// reached nobody are no proof of anything.
func (l *ledger) acknowledged() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.stands {
		if s != unknown {
			n++
		}
	}
	return n
}

// sell sends a webhook of a new user's purchase, and now and then of its end, and notes
// what was acknowledged. It says whether all was.
func (l *ledger) sell(t *testing.T, s *server) bool {
	u := newSubscriber(productPro)
	events := []struct {
		body []byte
		then standing
	}{{u.active(t), paid}}
	if rand.IntN(3) == 0 {
		ends := wire(now.Add(-day))
		events = append(events, struct {
			body []byte
			then standing
		}{u.event(t, "subscription.revoked", object{"canceled_at": ends, "ends_at": ends, "ended_at": ends}), ended})
	}
	for _, e := range events {
		l.note(u.user, unknown)
		r, err := s.try(http.MethodPost, "http://"+s.sites["app"]+webhookPath, signed(s.key, e.body))
		if err != nil || r.status != http.StatusOK {
			return false
		}
		l.note(u.user, e.then)
	}
	return true
}

// check asks for the last users, or all, whether they get what was acknowledged, and
// nobody of whom nothing was anything else than an answer.
func (l *ledger) check(t *testing.T, s *server, last int) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	users := l.users[max(0, len(l.users)-last):]
	const askers = 4
	errs := make([]error, askers)
	var asking sync.WaitGroup
	for n := range askers {
		asking.Go(func() {
			for i := n; i < len(users) && errs[n] == nil; i += askers {
				errs[n] = l.stands[users[i]].check(s, users[i])
			}
		})
	}
	asking.Wait()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func (want standing) check(s *server, user string) error {
	r, err := s.try(http.MethodGet, "http://"+s.sites["app"]+"/pro/x", as(user))
	switch {
	case err != nil:
		return err
	case r.status == http.StatusOK && want != ended, r.status == http.StatusPaymentRequired && want != paid:
		return nil
	}
	return fmt.Errorf("%s, who stands at %d, got %v", user, want, r)
}

// selling has some senders tell of purchases until the end.
func (l *ledger) selling(t *testing.T, s *server, senders int) (end func()) {
	return repeating(senders, func(<-chan struct{}) {
		if !l.sell(t, s) {
			pause()
		}
	})
}

// repeating has several do something again and again until the end, of which they are
// told.
func repeating(n int, do func(stop <-chan struct{})) (end func()) {
	stop := make(chan struct{})
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					do(stop)
				}
			}
		})
	}
	return sync.OnceFunc(func() { close(stop); all.Wait() })
}

package gateway

import (
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/caddy-polar/caddy-polar/polar"
)

const (
	// breakAfter is how many failures in a row open the circuit.
	breakAfter = 3
	breakFirst = 5 * time.Second
	breakMost  = 5 * time.Minute
)

// breaker keeps work that nobody waits for from hammering a Polar that is down.
// While it is open one call goes through each time that it is due: a probe.
type breaker struct {
	mu       sync.Mutex
	failures int
	due      time.Time
}

// allows says whether a call may go now.
func (b *breaker) allows(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.failures < breakAfter {
		return true
	}
	if now.Before(b.due) {
		return false
	}
	b.due = now.Add(breakFirst) // others wait for the probe
	return true
}

// wait is how long until a call may go.
func (b *breaker) wait(now time.Time) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.failures < breakAfter {
		return 0
	}
	return max(0, b.due.Sub(now))
}

// note counts how a call ended. Only what says that Polar is down counts: a
// refusal is an answer.
func (b *breaker) note(err error, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var failure *polar.APIError
	_ = errors.As(err, &failure)
	switch {
	case ownLimit(err):
		return
	case errors.Is(err, polar.ErrUnavailable), errors.Is(err, polar.ErrTimeout), errors.Is(err, polar.ErrRateLimited):
	case err == nil || failure != nil && failure.Status != 0:
		b.failures = 0
		return
	default:
		return
	}
	b.failures++
	if b.failures < breakAfter {
		return
	}
	pause := min(breakFirst<<min(b.failures-breakAfter, 10), breakMost)
	pause = pause/2 + rand.N(pause/2+1) // not all gateways at once
	if failure != nil && failure.RetryAfter > pause {
		pause = failure.RetryAfter
	}
	b.due = now.Add(pause)
}

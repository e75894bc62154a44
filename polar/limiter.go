package polar

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	// forgetsToken is after how much silence Polar counts a token's requests
	// against a bucket of 60 a minute until it has seen that the token is valid.
	forgetsToken = 5 * time.Minute
	// probeEvery keeps calls under that bucket while it is not known whether
	// Polar knows the token.
	probeEvery = time.Second
	// askAgain is the pace at which waiting calls look whether that has changed.
	askAgain = 50 * time.Millisecond
	// maxPause bounds what a Retry-After can do to us.
	maxPause = 5 * time.Minute
)

// Limiter keeps the calls of one organization under Polar's limit, which all
// its tokens share: 500 a minute in production, 100 in the sandbox
// (https://polar.sh/docs/api-reference/2026-10/introduction). Share one between the
// clients of one organization.
//
// Calls that a user waits for may use all of it, in the order they come.
// Background calls have a budget of their own, and go only while a quarter of
// the whole is free, so that they never stand in a user's way.
type Limiter struct {
	mu         sync.Mutex
	all        *rate.Limiter
	background *rate.Limiter
	reserve    float64
	paused     time.Time // Polar said: not before
	accepted   time.Time // when Polar last took the token
	tried      time.Time // when the last call went
}

// NewLimiter takes requests per minute: Polar's limit, and the part of it that
// background calls may use.
func NewLimiter(perMinute, backgroundPerMinute int) *Limiter {
	perMinute = max(perMinute, 1)
	backgroundPerMinute = min(max(backgroundPerMinute, 1), perMinute)
	// Polar counts in windows. A burst of a tenth on top of a steady flow stays
	// close to the limit; 429 corrects the rest.
	burst := max(perMinute/10, 1)
	return &Limiter{
		all:        rate.NewLimiter(rate.Limit(float64(perMinute)/60), burst),
		background: rate.NewLimiter(rate.Limit(float64(backgroundPerMinute)/60), max(backgroundPerMinute/10, 1)),
		reserve:    float64(burst) / 4,
	}
}

// SetBackground changes what background calls may use, in requests a minute.
func (l *Limiter) SetBackground(perMinute int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	perMinute = max(perMinute, 1)
	l.background.SetLimit(rate.Limit(float64(perMinute) / 60))
	l.background.SetBurst(max(perMinute/10, 1))
}

// turn is a place in the queue: when wait is over the call may go, or, if it
// has no reservation, ask again.
type turn struct {
	wait        time.Duration
	reservation *rate.Reservation
}

// giveBack returns a place that is not used.
func (t turn) giveBack(now time.Time) {
	if t.reservation != nil {
		t.reservation.CancelAt(now)
	}
}

// ask is one call's request to go now.
func (l *Limiter) ask(now time.Time, background bool) turn {
	l.mu.Lock()
	defer l.mu.Unlock()
	if wait := l.paused.Sub(now); wait > 0 {
		return turn{wait: wait}
	}
	if now.Sub(l.accepted) >= forgetsToken {
		if wait := l.tried.Add(probeEvery).Sub(now); wait > 0 {
			return turn{wait: min(wait, askAgain)}
		}
	}
	if background {
		// No place in the queue: whoever waits for a user comes first each time.
		wait := max(untilHas(l.all, now, l.reserve+1), untilHas(l.background, now, 1))
		if wait > 0 {
			return turn{wait: wait}
		}
		l.background.ReserveN(now, 1)
	}
	reservation := l.all.ReserveN(now, 1)
	l.tried = now
	return turn{wait: reservation.DelayFrom(now), reservation: reservation}
}

// untilHas is how long a bucket takes to hold n tokens.
func untilHas(bucket *rate.Limiter, now time.Time, n float64) time.Duration {
	missing := min(n, float64(bucket.Burst())) - bucket.TokensAt(now)
	if missing <= 1e-9 {
		return 0
	}
	// Rounded up, so that asking again then is not a hair too early.
	return time.Duration(missing/float64(bucket.Limit())*float64(time.Second)) + time.Millisecond
}

// accept notes that Polar took the token.
func (l *Limiter) accept(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.accepted = now
}

// pause holds everything back: Polar said so.
func (l *Limiter) pause(until time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if until.After(l.paused) {
		l.paused = until
	}
}

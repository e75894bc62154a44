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
	// maxPause is how long a call waits at most.
	maxPause = 5 * time.Minute
	// maxHold bounds how long a Retry-After can hold all calls back, and someHold
	// is for a 429 that says nothing.
	maxHold  = time.Hour
	someHold = 5 * time.Second
)

// Limiter keeps the calls of one organization under Polar's limit, which all
// its tokens share: 500 a minute in production, 100 in the sandbox
// (https://polar.sh/docs/api-reference/2026-10/introduction). Share one between the
// clients of one organization.
//
// Calls that a user waits for may use all of it, in the order they come.
// Background calls have a budget of their own, and go only while a quarter of
// the whole is free, so that they never stand in a user's way. Among them the
// prompt ones go first, find half of the budget's burst free, and leave a third
// of the budget to the others.
type Limiter struct {
	mu         sync.Mutex
	all        *rate.Limiter
	background *rate.Limiter
	share      *rate.Limiter // of the background that prompt calls may use
	reserve    float64
	prompt     int       // prompt calls that wait
	paused     time.Time // Polar said: not before
	accepted   time.Time // when Polar last took the token
	tried      time.Time // when the last call went
}

// rank says who goes first.
type rank int8

const (
	rankUser   rank = iota // a user waits for it
	rankPrompt             // background, but somebody may wait
	rankBackground
)

// NewLimiter takes requests per minute: Polar's limit, and the part of it that
// background calls may use.
func NewLimiter(perMinute, backgroundPerMinute int) *Limiter {
	perMinute = max(perMinute, 1)
	backgroundPerMinute = min(max(backgroundPerMinute, 1), perMinute)
	l := &Limiter{
		all:        rate.NewLimiter(bucket(perMinute)),
		background: rate.NewLimiter(bucket(backgroundPerMinute)),
		share:      rate.NewLimiter(bucket(promptShare(backgroundPerMinute))),
	}
	l.reserve = float64(l.all.Burst()) / 4
	return l
}

func promptShare(perMinute int) int { return max(perMinute*2/3, 1) }

// bucket is a bucket that lets no more than so many through in any minute: a
// tenth at once, the others in a steady flow.
func bucket(perMinute int) (rate.Limit, int) {
	burst := max(perMinute/10, 1)
	return rate.Limit(max(perMinute-burst, 1)) / 60, burst
}

// SetBackground changes what background calls may use, in requests a minute.
func (l *Limiter) SetBackground(perMinute int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	perMinute = max(perMinute, 1)
	set := func(b *rate.Limiter, limit rate.Limit, burst int) {
		b.SetLimit(limit)
		b.SetBurst(burst)
	}
	limit, burst := bucket(perMinute)
	set(l.background, limit, burst)
	limit, burst = bucket(promptShare(perMinute))
	set(l.share, limit, burst)
}

// Crowded says whether prompt calls wait for a limit: whoever waits for one of
// them waits for us, and not for Polar.
func (l *Limiter) Crowded() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.prompt > 0
}

// LimiterState is how much a Limiter lets through at a moment.
type LimiterState struct {
	// Free calls of Most can go at once.
	Free, Most int
	// Paused is for how long Polar wants to be left alone.
	Paused time.Duration
}

// State says how much goes through now.
func (l *Limiter) State(now time.Time) LimiterState {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := LimiterState{Most: l.all.Burst(), Paused: max(l.paused.Sub(now), 0)}
	if s.Paused == 0 {
		s.Free = max(int(l.all.TokensAt(now)), 0)
	}
	return s
}

// queue counts a prompt call that begins (1) or ends (-1) to wait.
func (l *Limiter) queue(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.prompt += n
}

// turn is a place in the queue: when wait is over the call may go, or, if it
// has no reservation, ask again.
type turn struct {
	wait        time.Duration
	paused      bool // Polar has said that it was too much
	probing     bool // it waits for Polar's answer to another call, not for a limit
	reservation *rate.Reservation
}

// giveBack returns a place that is not used.
func (t turn) giveBack(now time.Time) {
	if t.reservation != nil {
		t.reservation.CancelAt(now)
	}
}

// ask is one call's request to go now.
func (l *Limiter) ask(now time.Time, r rank) turn {
	l.mu.Lock()
	defer l.mu.Unlock()
	if wait := l.paused.Sub(now); wait > 0 {
		return turn{wait: wait, paused: true}
	}
	if now.Sub(l.accepted) >= forgetsToken {
		if wait := l.tried.Add(probeEvery).Sub(now); wait > 0 {
			return turn{wait: min(wait, askAgain), probing: true}
		}
	}
	if r != rankUser {
		// No place in the queue: whoever waits for a user comes first each time.
		if wait := max(untilHas(l.all, now, l.reserve+1), l.untilBackground(now, r)); wait > 0 {
			return turn{wait: wait}
		}
		l.background.ReserveN(now, 1)
		if r == rankPrompt {
			l.share.ReserveN(now, 1)
		}
	}
	reservation := l.all.ReserveN(now, 1)
	l.tried = now
	return turn{wait: reservation.DelayFrom(now), reservation: reservation}
}

// untilBackground is how long the budget makes a call wait.
func (l *Limiter) untilBackground(now time.Time, r rank) time.Duration {
	share := untilHas(l.share, now, 1)
	if r == rankPrompt {
		return max(share, untilHas(l.background, now, 1))
	}
	if l.prompt > 0 && share == 0 {
		return askAgain // they go first
	}
	return untilHas(l.background, now, 1+float64(l.background.Burst()/2))
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

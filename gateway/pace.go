package gateway

import (
	"fmt"
	"sync"
	"time"
)

// startsPerMinute is how many checkouts and portal sessions a user can start
// in any minute. Each costs several of Polar's requests.
const startsPerMinute = 10

// TooManyError says that a user must wait.
type TooManyError struct{ RetryAfter time.Duration }

// Error implements error.
func (e *TooManyError) Error() string {
	return fmt.Sprintf("too many at once: again in %s", e.RetryAfter)
}

// pace lets each user do something so often in any span of time.
type pace struct {
	most int
	span time.Duration

	mu    sync.Mutex
	users map[string][]time.Time // the last ones, oldest first
	swept time.Time
}

// take counts one more, unless it is too many.
func (p *pace) take(user string, now time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now.Sub(p.swept) > p.span || now.Before(p.swept) {
		p.sweep(now)
	}
	last := p.users[user]
	if len(last) < p.most {
		p.users[user] = append(last, now)
		return nil
	}
	if wait := last[0].Add(p.span).Sub(now); wait > 0 && wait <= p.span {
		return &TooManyError{RetryAfter: wait}
	}
	p.users[user] = append(append(last[:0], last[1:]...), now)
	return nil
}

// sweep forgets who has rested.
func (p *pace) sweep(now time.Time) {
	p.swept = now
	if p.users == nil {
		p.users = make(map[string][]time.Time)
	}
	for user, last := range p.users {
		if since := now.Sub(last[len(last)-1]); since > p.span || since < 0 {
			delete(p.users, user)
		}
	}
}

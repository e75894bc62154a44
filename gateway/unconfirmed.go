package gateway

import (
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-polar/caddy-polar/entitlement"
)

// toldAtMost bounds the users of whom one day's log tells.
const toldAtMost = 10_000

// tellings are the users of whom the log has told today.
type tellings struct {
	mu    sync.Mutex
	day   time.Time
	users map[string]struct{}
}

// first says whether a user is told of for the first time today.
func (t *tellings) first(user string, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if day := now.UTC().Truncate(24 * time.Hour); t.users == nil || !day.Equal(t.day) {
		t.day, t.users = day, make(map[string]struct{})
	}
	if _, told := t.users[user]; told || len(t.users) >= toldAtMost {
		return false
	}
	t.users[user] = struct{}{}
	return true
}

// Unconfirmed says whether an answer rests on what Polar has not confirmed: a
// renewal of which nothing was heard yet, a state that cannot be had, or what memory has
// while nothing can be heard of a shared store. The log tells of each user once a day, but
// of the last, which it says by itself.
func (g *Gateway) Unconfirmed(user string, allowed bool, reason entitlement.Reason) bool {
	switch reason {
	case entitlement.ReasonRenewalGrace, entitlement.ReasonUnavailable:
	default:
		behind, _ := g.store.Behind()
		return behind >= followLate
	}
	hash := g.HashUser(user)
	if g.unconfirmed.first(hash, g.local()) {
		g.logger.Warn("an answer rests on what Polar has not confirmed",
			zap.String("user_hash", hash), zap.Bool("allowed", allowed), zap.String("reason", string(reason)))
	}
	return true
}

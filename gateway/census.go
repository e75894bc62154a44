package gateway

import (
	"context"
	"sync"
	"time"

	"github.com/caddy-polar/caddy-polar/entitlement"
)

// StatusOther stands for a status that Statuses does not have.
const StatusOther = "other"

// Statuses are those that users are counted by: Polar's, and what else can open a
// plan.
var Statuses = []string{
	string(entitlement.StatusActive), string(entitlement.StatusTrialing), string(entitlement.StatusPastDue),
	string(entitlement.StatusUnpaid), string(entitlement.StatusCanceled), string(entitlement.StatusPaused),
	string(entitlement.StatusIncomplete), string(entitlement.StatusIncompleteExpired),
	"order", "pass", "none", StatusOther,
}

const (
	// Counting takes at most one part in so many of the time.
	censusShare = 100
	// censusPatience is how long who asks waits for a count.
	censusPatience = 50 * time.Millisecond
)

// census is the last count of users, made when somebody asks and not while they wait.
type census struct {
	mu      sync.Mutex
	users   map[string]int // by status; nil: not counted yet
	next    time.Time      // when it may be counted again
	running chan struct{}  // closed when the count under way has ended; nil: there is none
}

// wait is for the count under way.
func (c *census) wait() {
	c.mu.Lock()
	running := c.running
	c.mu.Unlock()
	if running != nil {
		<-running
	}
}

// Census is how many users have what status, as of the last count: nil before the
// first. It has them counted again if the last count is old enough for what it took,
// and waits a moment for that.
func (g *Gateway) Census() map[string]int {
	if !g.store.Leads() {
		return nil // of those who share a store one counts: each reads all of it
	}
	c := &g.census
	c.mu.Lock()
	if c.running == nil && g.life.Err() == nil && !g.local().Before(c.next) {
		c.running = make(chan struct{})
		go g.countUsers()
	}
	running := c.running
	c.mu.Unlock()
	if running != nil {
		patience := time.NewTimer(censusPatience)
		defer patience.Stop()
		select {
		case <-running:
		case <-patience.C:
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.users
}

func (g *Gateway) countUsers() {
	began := g.local()
	users, err := g.countByStatus(g.life)
	ended := g.local()
	c := &g.census
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.next = ended.Add(censusShare * ended.Sub(began)); err == nil { // else the store's trouble is told elsewhere
		c.users = users
	}
	close(c.running)
	c.running = nil
}

func (g *Gateway) countByStatus(ctx context.Context) (map[string]int, error) {
	users := make(map[string]int, len(Statuses))
	for _, status := range Statuses {
		users[status] = 0
	}
	rules, now := g.Rules(), g.Now()
	err := g.store.EachAccount(ctx, "", func(a *entitlement.Account) error {
		if !a.Known() {
			return nil
		}
		status := entitlement.Decide(a, entitlement.Requirement{}, rules, now).Status
		if _, ok := users[status]; !ok {
			status = StatusOther
		}
		users[status]++
		return nil
	})
	return users, err
}

package gateway

import (
	"errors"
	"maps"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddy-polar/caddy-polar/cache"
	"github.com/caddy-polar/caddy-polar/polar"
)

// heard is what the gateway has heard from Polar since it began.
type heard struct {
	versionGone atomic.Bool

	mu       sync.Mutex
	webhooks map[string]time.Time // the last of each documented type
	limited  time.Time            // when Polar said last that it is too much
	limits   int                  // how often
	writes   map[string]bool      // scopes that only writing proves: whether they are there
}

// writeScopes are the scopes that reading does not prove, by the calls that do.
var writeScopes = map[string]string{
	"POST /v1/checkouts/":                 "checkouts:write",
	"POST /v1/customer-sessions/":         "customer_sessions:write",
	"POST /v1/customers/":                 "customers:write",
	"PATCH /v1/customers/{id}":            "customers:write",
	"POST /v1/customer-seats":             "customer_seats:write",
	"DELETE /v1/customer-seats/{seat_id}": "customer_seats:write",
}

// call notes what a call has shown besides what it was for.
func (h *heard) call(c polar.Call, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if c.Status == http.StatusTooManyRequests {
		h.limited = now
		h.limits++
	}
	scope, ok := writeScopes[c.Method+" "+c.Path]
	if may, known := permits(c.Err); ok && known {
		if h.writes == nil {
			h.writes = make(map[string]bool)
		}
		h.writes[scope] = may
	}
}

// permits says whether a call's end shows that the access token has its scope, if it
// shows that at all.
func permits(err error) (may, known bool) {
	switch {
	case err == nil:
		return true, true
	case errors.Is(err, polar.ErrScope):
		return false, true
	}
	// In Polar's own words: it looks at scopes before the input and the object.
	failure, ok := errors.AsType[*polar.APIError](err)
	return true, ok && failure.Code != "" && failure.Status/100 == 4 &&
		failure.Status != http.StatusUnauthorized && failure.Status != http.StatusTooManyRequests
}

func (h *heard) webhook(kind string, at time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.webhooks == nil {
		h.webhooks = make(map[string]time.Time)
	}
	h.webhooks[kind] = at
}

// Status is how a gateway is doing. It holds no secret.
type Status struct {
	Name   string
	Server string
	Plans  []PlanStatus

	StorePath string
	Store     cache.Stats
	// Shared says that other gateways can use the store, Leads that this one does what is
	// to be done once, and Behind for how long it could not hear what the others write.
	Shared, Leads bool
	Behind        time.Duration
	// StoreError is why the store cannot be used.
	StoreError error

	// Accounts are how many users there are of each status, as of a count that is
	// made while nobody waits for it; nil before the first.
	Accounts map[string]int

	Sync SyncStatus

	CanAsk bool // there is an access token
	// Reachable is false while Polar is taken for down.
	Reachable   bool
	VersionGone bool // Polar no longer serves the configured api_version
	// Offset is how far Polar's clock is ahead of ours, if that is known.
	Offset      time.Duration
	OffsetKnown bool

	// Budget is how many calls a minute the gateway may make of itself, Calls how many
	// of all can go at once, nil without a limit.
	Budget int
	Calls  *polar.LimiterState

	// TakesWebhooks says that there is a webhook secret. Webhooks are the last
	// of each type since the gateway began, by Polar's clock.
	TakesWebhooks bool
	Webhooks      map[string]time.Time
	Endpoint      EndpointHealth

	Notify *NotifyStatus // nil: the app is not told
}

// PlanStatus is one plan of a gateway.
type PlanStatus struct {
	Name               string
	Products, Benefits int
	// Dead: Polar knows none of its products.
	Dead bool
}

// SyncStatus is how far a gateway's syncs are.
type SyncStatus struct {
	Off      bool
	Last     SyncReport    // the last whole one; zero Began: none yet
	Every    time.Duration // between two, for so many objects
	NextDue  time.Time     // zero: there is none, or it is tried as soon as it can be
	Step     string        // of the one under way, empty if there is none
	StepOf   [2]int        // which step of how many
	Began    time.Time     // of the one under way
	Objects  int           // that the one under way has read
	Failures int
	Error    error // why the last one failed, nil if it did not
}

// Status says how the gateway is doing.
func (g *Gateway) Status() Status {
	s := Status{
		Name: g.name, Server: g.owner.Server, StorePath: g.store.Path(), Sync: g.syncStatus(),
		CanAsk: g.client != nil, VersionGone: g.heard.versionGone.Load(), TakesWebhooks: g.verifier != nil,
		Reachable: g.client != nil && !g.breaker.open(), Endpoint: g.Endpoint(), Notify: g.notifyStatus(),
	}
	for i := range g.plans {
		p := &g.plans[i]
		s.Plans = append(s.Plans, PlanStatus{p.Name, len(p.Products), len(p.Benefits), g.catalog.isDead(p.Name)})
	}
	if _, s.StoreError = g.claim(); s.StoreError == nil {
		s.Store, s.StoreError = g.store.Stats()
	}
	s.Shared, s.Leads, s.Behind = g.Sharing()
	s.Accounts = g.Census()
	if g.client != nil && g.limiter != nil {
		s.Budget, s.Calls = g.syncing.Budget, new(g.limiter.State(g.local()))
	}
	if g.client != nil {
		s.Offset, s.OffsetKnown = g.client.Offset()
	}
	g.heard.mu.Lock()
	defer g.heard.mu.Unlock()
	s.Webhooks = maps.Clone(g.heard.webhooks)
	return s
}

// open says whether Polar is taken for down.
func (b *breaker) open() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.failures >= breakAfter
}

func (g *Gateway) syncStatus() SyncStatus {
	s := &g.sync
	s.mu.Lock()
	defer s.mu.Unlock()
	out := SyncStatus{
		Off: g.syncing.Off || g.client == nil, Last: s.last, Every: g.SyncPeriod(s.last.weight()),
		Failures: s.failures, Error: s.failed,
	}
	if run := s.progress; run != nil {
		out.Began, out.Step = run.Began, "what is gone" // after the lists
		if run.step < len(syncSteps) {
			out.Step = syncSteps[run.step].name
		}
		out.StepOf = [2]int{min(run.step, len(syncSteps)) + 1, len(syncSteps) + 1}
		out.Objects = run.Objects
	}
	if !out.Off && out.Failures == 0 && !s.last.Began.IsZero() {
		out.NextDue = s.last.Ended.Add(out.Every)
	}
	return out
}

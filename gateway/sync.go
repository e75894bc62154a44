package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/singleflight"

	"github.com/caddy-polar/caddy-polar/cache"
	"github.com/caddy-polar/caddy-polar/polar"
)

// Syncing is how the gateway keeps itself in sync with Polar.
type Syncing struct {
	// Off leaves everything to webhooks, returning buyers and look-ups: nothing
	// is read on schedule, and who was never heard of is not looked up.
	Off bool
	// Every is the shortest time between two whole syncs.
	Every time.Duration
	// Budget is how many requests a minute all background work may use.
	Budget int
}

// The defaults of Syncing.
const (
	DefaultSyncEvery  = 15 * time.Minute
	DefaultSyncBudget = 120
)

// SyncReport tells of one whole sync.
type SyncReport struct {
	Began   time.Time     `json:"began"` // by Polar's clock
	Ended   time.Time     `json:"ended"`
	Took    time.Duration `json:"took"`
	Objects int           `json:"objects"`
	// Missing, Wrong and Extra are what it had to mend: objects that were not
	// held, were held in an older state, and that Polar does not have.
	Missing int `json:"missing"`
	Wrong   int `json:"wrong"`
	Extra   int `json:"extra"`
	// Unreadable objects are none of these: nothing is known of them. After
	// such a sync nobody is told that something ended unless Polar says so of
	// that very user.
	Unreadable int `json:"unreadable"`
	// Partial: it was interrupted, and read the rest after a restart. What
	// happened meanwhile is read by the next one, at once.
	Partial bool `json:"partial,omitempty"`
	// Teams is how many purchases with seats there are.
	Teams int `json:"teams,omitempty"`
	// Benefits, Emails, Seats and Grace say what it has read for: grants,
	// customers' e-mails, seats, and what has ended within the longest grace.
	Benefits bool          `json:"benefits"`
	Seats    bool          `json:"seats"`
	Emails   bool          `json:"emails"`
	Grace    time.Duration `json:"grace"`
}

// Names of notes in the store.
const (
	noteSynced  = "synced"  // the last whole sync
	noteSyncing = "syncing" // how far the first one has got
	noteWanted  = "wanted"  // somebody who does not sync wants one
)

// syncer is what a gateway knows of its syncs.
type syncer struct {
	running chan struct{} // has a place for the one that runs
	wanted  chan struct{} // has a place for the wish for one
	whole   atomic.Bool   // all that Polar has was read, and its news since
	shared  singleflight.Group

	mu       sync.Mutex
	glanced  time.Time  // when the last glance was, by this machine's clock
	heard    time.Time  // when it was last written that webhooks are heard, by this machine's clock
	overdue  int        // the page of periods that are over that it was at
	hurried  time.Time  // when a wish was last granted, by this machine's clock
	last     SyncReport // the last whole one; zero Began: none yet
	ended    time.Time  // the last whole one of before
	filled   time.Time  // until when the store had all, whoever has filled it; zero: it never had
	progress *syncRun   // nil: none is running
	failed   error      // why the last one failed, nil if it did not
	failures int
	again    time.Time // when to try again after a failure
}

// syncRun is one sync on its way.
type syncRun struct {
	Began   time.Time  `json:"began"`
	Next    string     `json:"step"` // the name of the step that is next
	Cursor  syncCursor `json:"cursor"`
	Objects int        `json:"objects"`

	step    int // of syncSteps
	page    int // objects of the page that was read last
	first   bool
	resumed bool // what was seen before the restart is not known
	local   time.Time
	seen    seenIDs
	known   int             // objects that were held before
	skipped map[string]bool // steps that the token may not read
	teams   []team          // nil: not listed yet
	report  SyncReport
}

// syncCursor is a place in a list: a page, of what comes after a moment.
type syncCursor struct {
	After time.Time `json:"after,omitzero"`
	Page  int       `json:"page,omitempty"`
	Total int       `json:"total,omitempty"`
	Backs int       `json:"backs,omitempty"`
	Place string    `json:"place,omitempty"` // of the last team
}

// syncStep reads one page of one list. done ends the step.
type syncStep struct {
	name string
	// optional: the access token need not have the scope for it.
	optional bool
	read     func(*Gateway, context.Context, *syncRun) (facts *cache.Facts, next syncCursor, done bool, err error)
}

var syncSteps = []syncStep{
	{"products", true, (*Gateway).syncProducts},
	{"customers", false, (*Gateway).syncCustomers},
	{"subscriptions", false, (*Gateway).syncSubscriptions},
	{"ended subscriptions", false, (*Gateway).syncEnded},
	{"orders", true, (*Gateway).syncOrders},
	{"refunds", true, (*Gateway).syncRefunds},
	{"disputes", true, (*Gateway).syncDisputes},
	{"benefit grants", true, (*Gateway).syncGrants},
	{"seats", true, (*Gateway).syncTeams},
}

// keepInSync runs until the context ends: the first sync at once, the others on
// schedule or when one is wanted, and between them a glance at what changes
// most.
func (g *Gateway) keepInSync(ctx context.Context) {
	if g.store.Shared() { // others have synced
		_ = g.recallSync()
	}
	for {
		g.stillHears()
		due := g.untilSync()
		timer := time.NewTimer(min(due, glanceEvery))
		select {
		case <-ctx.Done():
			timer.Stop()
			g.rememberSync()
			return
		case <-g.sync.wanted:
			timer.Stop()
			if g.mayHurry() {
				_, _ = g.Sync(ctx) // it is logged, and tried again
			}
		case <-timer.C:
			if !g.filling() {
				g.glanceWhenDue(ctx) // before a sync too: it can take long
			}
			if due <= glanceEvery {
				_, _ = g.Sync(ctx)
			}
		}
	}
}

// glanceWhenDue is called between whatever else is read.
func (g *Gateway) glanceWhenDue(ctx context.Context) {
	g.stillHears()
	s := &g.sync
	s.mu.Lock()
	now := g.local()
	due := !within(s.glanced, now, glanceEvery) && g.breaker.allows(now)
	if due {
		s.glanced = now
	}
	s.mu.Unlock()
	if due {
		g.glance(ctx)
	}
}

// wantSync asks for a sync before its time: something was told that could not
// be understood.
func (g *Gateway) wantSync() {
	select {
	case g.sync.wanted <- struct{}{}:
	default: // one is wanted already
	}
}

// mayHurry grants one wish in the time between two syncs: whoever signs
// webhooks must not be able to use up the budget.
func (g *Gateway) mayHurry() bool {
	s := &g.sync
	s.mu.Lock()
	defer s.mu.Unlock()
	now := g.local()
	if within(s.hurried, now, g.SyncPeriod(s.last.weight())) || !g.breaker.allows(now) {
		return false
	}
	s.hurried = now
	return true
}

// survive turns a panic of work in the background into an error: it must not
// take the server with it, which goes on with what is known.
func (g *Gateway) survive(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("panic: %v", p)
		g.logger.Error("a defect of this gateway: please report it", zap.Error(*err), zap.Stack("stack"))
	}
}

// syncMemory is what the store remembers of syncs.
type syncMemory struct {
	SyncReport
	// Stopped is when the gateway ended: until then it heard webhooks.
	Stopped time.Time `json:"stopped,omitzero"`
}

// maxDeaf is how long a gateway can be away and have missed nothing: Polar
// sends a webhook again for at least 17 minutes.
const maxDeaf = 15 * time.Minute

// rememberSync writes when the last sync was, at the end of the gateway: a sync
// that mends nothing writes nothing by itself.
func (g *Gateway) rememberSync() {
	g.sync.mu.Lock()
	last := g.sync.last
	g.sync.mu.Unlock()
	if last.Began.IsZero() || !g.store.Leads() { // another gateway's is newer
		return
	}
	raw, err := json.Marshal(syncMemory{last, g.Now()})
	if err == nil {
		err = g.Keep(noteSynced, raw)
	}
	if err != nil {
		g.logger.Warn("the time of the last sync could not be written", zap.Error(err))
	}
}

// LastSync is when the last whole sync ended, zero if there never was one.
func (g *Gateway) LastSync() time.Time {
	g.sync.mu.Lock()
	defer g.sync.mu.Unlock()
	return latest(g.sync.ended, g.sync.last.Ended)
}

// Syncs says whether the gateway syncs at all.
func (g *Gateway) Syncs() bool { return g.client != nil && !g.syncing.Off }

// recallSync reads what the store remembers of earlier syncs.
func (g *Gateway) recallSync() error {
	if _, err := g.claim(); err != nil {
		return err
	}
	raw, err := g.store.Note(noteSynced)
	if err != nil {
		return err
	}
	var m syncMemory
	if raw != nil && json.Unmarshal(raw, &m) != nil {
		m = syncMemory{} // an older version wrote it: sync anew
	}
	last, deaf := m.SyncReport, g.Now().Sub(latest(m.Ended, m.Stopped))
	g.sync.mu.Lock()
	defer g.sync.mu.Unlock()
	if kept, ok := g.store.Kept(noteSynced).(SyncReport); ok && !g.store.Shared() { // by the configuration before
		last, deaf = kept, 0
	}
	g.sync.ended = last.Ended
	if !last.Partial {
		g.sync.filled = latest(last.Ended, m.Stopped)
	}
	last.Emails = last.Emails && g.linkEmail // else they are about to be forgotten
	if !last.Seats || g.usesBenefits() && !last.Benefits || g.linkEmail && !last.Emails || g.longestGrace() > last.Grace {
		return nil // this configuration needs more than was read
	}
	g.sync.last = last
	g.confirmed(&last)
	if deaf > maxDeaf {
		g.sync.whole.Store(false) // who has bought meanwhile is not known
	}
	return nil
}

// confirmed notes that Polar has told everything there was when a sync began.
func (g *Gateway) confirmed(r *SyncReport) {
	if r.Began.IsZero() {
		return
	}
	g.sync.whole.Store(true)
	if r.Unreadable > 0 || r.Partial {
		return // nearly everything
	}
	g.confirmedAt(r.Began)
}

func (g *Gateway) confirmedAt(at time.Time) {
	rules := *g.Rules()
	rules.ConfirmedAt = at
	g.rules.Store(&rules)
}

// untilSync is how long until the next whole sync is due. Large organizations
// are read less often: a sync must not take longer than the time to the next.
func (g *Gateway) untilSync() time.Duration {
	s := &g.sync
	s.mu.Lock()
	defer s.mu.Unlock()
	now := g.local()
	if s.failures > 0 {
		return max(g.breaker.wait(now), s.again.Sub(now))
	}
	if s.last.Began.IsZero() || s.last.Partial || !s.whole.Load() {
		return 0
	}
	return s.last.Ended.Add(g.SyncPeriod(s.last.weight())).Sub(g.Now())
}

// SyncPeriod is the time between two syncs of so many objects, in full pages.
func (g *Gateway) SyncPeriod(objects int) time.Duration {
	pages := time.Duration(objects) * time.Minute
	return max(g.syncing.Every, pages/time.Duration(100*max(g.syncing.Budget, 1)))
}

// Sync reads everything that can matter from Polar and mends the store.
func (g *Gateway) Sync(ctx context.Context) (SyncReport, error) {
	report, err := g.syncNext(ctx)
	if err == nil && g.store.Shared() {
		g.rememberSync() // others go by it
	}
	return report, err
}

// syncNext syncs once no other sync of this gateway runs.
func (g *Gateway) syncNext(ctx context.Context) (SyncReport, error) {
	if _, err := g.ask(); err != nil {
		return SyncReport{}, err
	}
	s := &g.sync
	select {
	case s.running <- struct{}{}:
		defer func() { <-s.running }()
	case <-ctx.Done():
		return SyncReport{}, ctx.Err()
	}
	run, err := g.syncOnce(ctx)
	g.breaker.note(err, g.local())
	s.mu.Lock()
	defer s.mu.Unlock()
	s.progress, s.failed = nil, err
	if err != nil {
		if ctx.Err() == nil {
			s.failures++
			pause := min(time.Second<<min(s.failures, 9), 5*time.Minute)
			s.again = g.local().Add(pause/2 + rand.N(pause/2))
			g.logger.Error("sync failed: what is known goes on counting, and it is tried again", zap.Error(err))
			if g.onSyncFailed != nil {
				g.onSyncFailed(err)
			}
		}
		return SyncReport{}, err
	}
	s.failures, s.last, s.filled = 0, run.report, run.report.Ended
	g.store.Keep(noteSynced, run.report)
	return run.report, nil
}

func (g *Gateway) syncOnce(ctx context.Context) (run *syncRun, err error) {
	defer g.survive(&err)
	if run, err = g.beginSync(ctx); err == nil {
		err = g.runSync(ctx, run)
	}
	if err == nil && run.resumed {
		// What happened while it was interrupted is read by a whole one.
		if err = g.endPartial(ctx, run); err == nil {
			run, err = g.newRun(ctx)
		}
		if err == nil {
			err = g.runSync(ctx, run)
		}
	}
	return run, err
}

// beginSync begins a sync, or goes on with a first one that was interrupted.
func (g *Gateway) beginSync(ctx context.Context) (*syncRun, error) {
	run, err := g.newRun(ctx)
	if err != nil {
		return nil, err
	}
	if run.first {
		raw, err := g.store.Note(noteSyncing)
		if err != nil {
			return nil, err
		}
		var earlier syncRun
		if raw == nil || json.Unmarshal(raw, &earlier) != nil || g.Now().Sub(earlier.Began) >= 24*time.Hour {
			return run, nil
		}
		step := slices.IndexFunc(syncSteps, func(s syncStep) bool { return s.name == earlier.Next })
		if step < 0 {
			return run, nil // another version's
		}
		run.Began, run.step, run.Cursor, run.Objects, run.resumed = earlier.Began, step, earlier.Cursor, earlier.Objects, true
		g.logger.Info("the first sync goes on where it was interrupted",
			zap.String("step", earlier.Next), zap.Int("objects", run.Objects))
	}
	return run, nil
}

// newRun begins from the beginning. When it begins is told by Polar's clock,
// which is heard first.
func (g *Gateway) newRun(ctx context.Context) (*syncRun, error) {
	if _, err := g.claim(); err != nil {
		return nil, err
	}
	if err := g.hearClock(ctx, g.background()); err != nil {
		return nil, err
	}
	return &syncRun{Began: g.Now(), local: g.local(), first: g.filling(), seen: seenIDs{}, skipped: map[string]bool{}}, nil
}

// filling says that the first sync is not done yet.
func (g *Gateway) filling() bool {
	g.sync.mu.Lock()
	defer g.sync.mu.Unlock()
	return g.sync.last.Began.IsZero() || g.sync.last.Partial
}

func (g *Gateway) runSync(ctx context.Context, run *syncRun) error {
	g.sync.mu.Lock()
	g.sync.progress = run
	g.sync.mu.Unlock()
	for run.step < len(syncSteps) {
		step := &syncSteps[run.step]
		facts, next, done, err := step.read(g, ctx, run)
		if step.optional && errors.Is(err, polar.ErrScope) {
			g.warnScope(step.name)
			run.skipped[step.name] = true
			facts, next, done, err = nil, syncCursor{}, true, nil
		}
		if err == nil {
			err = g.takePage(ctx, run, facts, next, done)
		}
		if err != nil {
			return fmt.Errorf("sync: %s: %w", step.name, err)
		}
		g.breaker.note(nil, g.local())
		if g.local().Sub(run.local) >= glanceEvery {
			g.glanceWhenDue(ctx) // who has just bought stands at the end of a list
		}
	}
	if run.resumed {
		return nil // what was seen is not known
	}
	if run.known == 0 { // nothing proves that this is our organization
		if err := g.proveOurs(ctx, run.Began); err != nil {
			return fmt.Errorf("sync: %w", err)
		}
	} else if err := g.askForGone(ctx, run); err != nil {
		return fmt.Errorf("sync: asking for what is gone: %w", err)
	}
	if err := g.askForParents(ctx, run); err != nil {
		return fmt.Errorf("sync: asking for what grants belong to: %w", err)
	}
	return g.endSync(ctx, run)
}

// takePage makes a page durable together with the place where the next begins.
func (g *Gateway) takePage(ctx context.Context, run *syncRun, facts *cache.Facts, next syncCursor, done bool) error {
	g.sync.mu.Lock()
	run.Cursor = next
	run.Objects, run.page = run.Objects+run.page, 0
	if done {
		run.step, run.Cursor = run.step+1, syncCursor{}
	}
	if run.Next = ""; run.step < len(syncSteps) {
		run.Next = syncSteps[run.step].name
	}
	g.sync.mu.Unlock()
	if g.onProgress != nil {
		g.onProgress(run.Objects)
	}
	if facts == nil {
		return nil
	}
	facts.Sweep, facts.Expired = true, g.expired()
	if run.first {
		raw, err := json.Marshal(run)
		if err != nil {
			return err
		}
		facts.Notes = map[string][]byte{noteSyncing: raw}
	}
	applied, err := g.write(ctx, facts)
	if err != nil {
		return err
	}
	if applied.Foreign {
		return errForeign
	}
	run.report.Missing += applied.Missing
	run.report.Wrong += applied.Wrong
	run.known += applied.Same + applied.Stale + applied.Wrong
	if done && run.first {
		g.logger.Info("first sync", zap.String("read", syncSteps[run.step-1].name), zap.Int("objects", run.Objects))
	}
	return nil
}

// errStrange says that Polar knows nothing of all that is held.
var errStrange = errors.New("nothing of what is held here is known to Polar: check access_token, and whether it is of production or sandbox; the store may be another organization's")

// errForeign says that Polar answers for another organization than the store's.
var errForeign = errors.New("another organization's facts: check access_token and organization_id")

// complete fills in what a sync's report tells at its end.
func (g *Gateway) complete(run *syncRun) {
	r := &run.report
	r.Began, r.Ended, r.Objects = run.Began, g.Now(), run.Objects
	r.Took = g.local().Sub(run.local)
	r.Benefits, r.Emails, r.Seats, r.Grace = g.usesBenefits(), g.linkEmail, true, g.longestGrace()
}

// noteSync writes a report down, and that nothing is under way.
func (g *Gateway) noteSync(ctx context.Context, r *SyncReport) error {
	raw, err := json.Marshal(r)
	if err != nil {
		return err
	}
	_, err = g.store.Apply(ctx, &cache.Facts{Notes: map[string][]byte{noteSynced: raw, noteSyncing: nil}})
	return err
}

// endPartial notes that all was read once, in parts: strangers are strangers.
func (g *Gateway) endPartial(ctx context.Context, run *syncRun) error {
	g.complete(run)
	r := run.report
	r.Partial = true
	if err := g.noteSync(ctx, &r); err != nil {
		return err
	}
	g.sync.mu.Lock()
	g.sync.last = r
	g.sync.mu.Unlock()
	g.confirmed(&r)
	g.logger.Info("all was read once, with an interruption: a whole sync follows", zap.Int("objects", r.Objects))
	return nil
}

// endSync notes a whole sync: from now on what Polar did not tell is not so.
func (g *Gateway) endSync(ctx context.Context, run *syncRun) error {
	g.complete(run)
	r := &run.report
	drift := r.Missing + r.Wrong + r.Extra
	if run.first || drift > 0 {
		if err := g.noteSync(ctx, r); err != nil {
			return err
		}
	}
	g.confirmed(r)
	if r.Unreadable > 0 {
		g.logger.Error("objects of Polar's could not be read: until they can, users whose time is over are asked about one by one",
			zap.Int("unreadable", r.Unreadable))
	}
	if run.first {
		g.logger.Info("the first sync is done", zap.Int("objects", r.Objects), zap.Duration("took", r.Took))
		r.Missing, r.Wrong, r.Extra = 0, 0, 0 // filling is not mending
	} else if drift > 0 {
		g.logger.Warn("sync has mended the store: webhooks were missed",
			zap.Int("missing", r.Missing), zap.Int("wrong", r.Wrong), zap.Int("extra", r.Extra))
	}
	if g.onSync != nil {
		g.onSync(*r)
	}
	if err := g.checkEndpoint(ctx); err != nil && ctx.Err() == nil {
		g.logger.Warn("the webhook endpoint at Polar could not be looked at", zap.Error(err))
	}
	if _, err := g.store.Expire(ctx, g.expired()); err != nil && ctx.Err() == nil {
		g.logger.Warn("what is long over could not be removed", zap.Error(err))
	}
	g.forgetEmails(ctx) // the configuration before may have gone on for a moment
	return nil
}

// expired is the moment from which the store reckons what is long over.
func (g *Gateway) expired() time.Time { return g.Now().Add(-g.longestGrace()) }

// background is the client for work that nobody waits for.
func (g *Gateway) background() *polar.Client { return g.client.Background() }

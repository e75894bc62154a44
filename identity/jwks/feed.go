package jwks

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/caddy-polar/caddy-polar/identity"
)

const (
	// cooldown is the time from one fetch to the next that a request can cause.
	cooldown = 30 * time.Second
	// patience is for how long after its beginning a fetch is waited for, and
	// maxWaiting by how many requests.
	patience   = 2 * time.Second
	maxWaiting = 64

	firstRetry = 5 * time.Second
	lastRetry  = 5 * time.Minute
	// lookAgain bounds how long nobody looks at the clock, which may jump.
	lookAgain = time.Minute
)

// Feed fetches the keys of one URL and keeps the last good ones. It outlives
// configurations, each of which uses it through a Set of its own. It is safe for
// concurrent use.
type Feed struct {
	url    *url.URL
	client *http.Client
	now    func() time.Time
	life   context.Context // of the feed, which no request's is
	end    context.CancelFunc

	working  sync.WaitGroup
	restored sync.Once
	current  atomic.Pointer[snapshot] // nil: nothing yet

	mu      sync.Mutex
	flight  *flight       // the fetch under way, nil if there is none
	tried   time.Time     // when the last one began
	due     time.Time     // when the next one is
	failing bool          // the last one failed
	moved   chan struct{} // closed when one has ended
	pace    backoff.ExponentialBackOff

	report report // belongs to the flight
}

// snapshot is what is known of the set. It is never changed.
type snapshot struct {
	keys []key
	// byID has the keys of each id, and all of them under "".
	byID       map[string][]identity.Key
	generation uint64    // see identity.KeySource
	fetched    time.Time // by the wall clock: it has to be comparable after a restart
}

// flight is a fetch under way.
type flight struct {
	over    context.Context // when it need not be waited for any longer
	land    context.CancelFunc
	waiting atomic.Int32
	landed  bool // its answer is known
}

// Options are for tests.
type Options struct {
	Transport http.RoundTripper // default: one like http.DefaultTransport
	Now       func() time.Time  // default: time.Now
}

// NewFeed makes a Feed. It asks for nothing before it is used.
func NewFeed(address string, o Options) (*Feed, error) {
	u, err := ParseURL(address)
	if err != nil {
		return nil, err
	}
	f := &Feed{
		url: u, client: newClient(o.Transport), now: o.Now, moved: make(chan struct{}),
		pace: backoff.ExponentialBackOff{
			InitialInterval: firstRetry, MaxInterval: lastRetry, Multiplier: 2, RandomizationFactor: 0.25,
		},
	}
	if f.now == nil {
		f.now = time.Now
	}
	f.life, f.end = context.WithCancel(context.Background())
	return f, nil
}

// Close ends what is under way. Keys that are known can still be asked for.
func (f *Feed) Close() {
	f.mu.Lock()
	f.end() // under the lock, so that nothing begins after it
	f.mu.Unlock()
	f.working.Wait()
	f.client.CloseIdleConnections()
}

// await waits for a fetch that may bring what is missing, if there is one, or may be.
func (f *Feed) await(ctx context.Context, s *Set, now time.Time) {
	f.mu.Lock()
	fl := f.flight
	if since := now.Sub(f.tried); fl == nil && (since < 0 || since >= cooldown) {
		fl = f.begin(s, now)
	}
	f.mu.Unlock()
	if fl == nil || fl.waiting.Add(1) > maxWaiting {
		return
	}
	select {
	case <-fl.over.Done():
	case <-ctx.Done():
	}
}

// unsure says that there may be keys that are not known: they cannot be fetched, or
// are not yet.
func (f *Feed) unsure() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.failing || f.flight != nil && !f.flight.landed
}

// next begins a fetch if one is due, and says when to look again: after a while, or
// when the fetch under way has ended.
func (f *Feed) next(s *Set) (time.Duration, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now, due := f.now(), f.due
	if snap := f.current.Load(); snap != nil && !f.failing {
		// In time, so that one failure does not make the keys too old.
		if half := snap.fetched.Add(s.maxStale / 2); half.Before(due) {
			due = half
		}
	}
	if f.flight == nil && !now.Before(due) {
		f.begin(s, now)
	}
	if f.flight != nil || f.life.Err() != nil {
		return lookAgain, f.moved
	}
	return min(due.Sub(now), lookAgain), f.moved
}

// begin starts a fetch, which goes on although nobody waits for it. The lock is held,
// and there is no other one.
func (f *Feed) begin(s *Set, now time.Time) *flight {
	if f.life.Err() != nil {
		return nil
	}
	f.tried = now // before it is under way: a failure counts like a success
	fl := new(flight)
	fl.over, fl.land = context.WithTimeout(f.life, patience)
	f.flight = fl
	f.working.Go(func() { f.fly(s, fl) })
	return fl
}

func (f *Feed) fly(s *Set, fl *flight) {
	defer fl.land()
	doc, fresh, err := f.fetch(f.life)
	if f.life.Err() != nil {
		return
	}
	now := f.now()
	old := f.current.Load()
	if err == nil {
		f.publish(doc, now)
	}
	f.mu.Lock()
	f.failing, fl.landed = err != nil, true
	f.mu.Unlock()
	fl.land() // before anything is written to disk
	f.report.tell(s, f, old, doc.left, now, err)

	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failing {
		fresh = f.pace.NextBackOff()
	} else {
		f.pace.Reset()
	}
	f.due, f.flight = now.Add(fresh), nil
	close(f.moved)
	f.moved = make(chan struct{})
}

// publish makes a set the current one.
func (f *Feed) publish(doc document, fetched time.Time) {
	next := &snapshot{keys: doc.keys, byID: make(map[string][]identity.Key), generation: 1, fetched: fetched.Round(0)}
	for _, k := range doc.keys {
		next.byID[""] = append(next.byID[""], k.Key)
		if id := k.jwk.KeyID; id != "" {
			next.byID[id] = append(next.byID[id], k.Key)
		}
	}
	if old := f.current.Load(); old != nil {
		next.generation = old.generation
		if len(old.without(next)) > 0 {
			next.generation++
		}
	}
	f.current.Store(next)
}

// without returns the ids of the keys that the other one does not have.
func (s *snapshot) without(other *snapshot) []string {
	var ids []string
	if s == nil {
		return nil
	}
	for _, k := range s.keys {
		if other == nil || !slices.ContainsFunc(other.keys, func(o key) bool { return o.print == k.print }) {
			ids = append(ids, k.jwk.KeyID[:min(len(k.jwk.KeyID), maxShown)])
		}
	}
	return ids
}

// place is the URL as a log may show it.
func (f *Feed) place() string { return f.url.Scheme + "://" + f.url.Host + f.url.EscapedPath() }

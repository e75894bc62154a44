// Package jwks fetches the public keys that an issuer publishes at a URL (a JSON Web
// Key Set, RFC 7517), keeps the last good ones, and gives them to package identity.
//
// It knows neither Caddy nor Polar.
package jwks

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-polar/caddy-polar/identity"
)

const (
	// DefaultMaxStale is for how long keys are believed after the last fetch that
	// went well, if a configuration does not say otherwise.
	DefaultMaxStale = 24 * time.Hour
	// MinMaxStale is the least that a configuration may say.
	MinMaxStale = 5 * time.Minute

	// saveEvery is how often the time of the last fetch is written down while the
	// keys stay the same.
	saveEvery = time.Hour
)

// ErrMaxStale means that keys would be too old before they could be fetched again.
var ErrMaxStale = errors.New("max_stale is out of range")

// Result is how a fetch has ended.
type Result string

// The results of a fetch.
const (
	ResultOK          Result = "ok"
	ResultUnreachable Result = "unreachable" // no answer, or not in time
	ResultRefused     Result = "refused"     // another status than 200
	ResultUnusable    Result = "unusable"    // no set of keys, or too long
)

// Results are all of them.
var Results = []Result{ResultOK, ResultUnreachable, ResultRefused, ResultUnusable}

func resultOf(err error) Result {
	switch {
	case err == nil:
		return ResultOK
	case errors.Is(err, ErrRefused):
		return ResultRefused
	case errors.Is(err, ErrUnusable):
		return ResultUnusable
	}
	return ResultUnreachable
}

// Config is what a configuration wants of a Feed. All but MaxStale may be left out.
type Config struct {
	// MaxStale is for how long keys are believed after the last fetch that went well.
	// Default: 24h. At least 5m.
	MaxStale time.Duration
	// Load returns what Save was given last, nil if it never was. It is called once,
	// before the first fetch.
	Load func() ([]byte, error)
	// Save writes the public keys down: when they have changed, else once an hour.
	Save func([]byte) error
	// OnFetch is told how each fetch has ended.
	OnFetch func(Result)
	Logger  *zap.Logger
}

// Set is the use that one configuration makes of a Feed. It is safe for concurrent use.
type Set struct {
	feed     *Feed
	maxStale time.Duration
	load     func() ([]byte, error)
	save     func([]byte) error
	onFetch  func(Result)
	logger   *zap.Logger

	ctx     context.Context
	stop    context.CancelFunc
	keeping sync.WaitGroup
}

// New makes a Set. It asks for nothing before it is started or a key is asked for.
func New(feed *Feed, c Config) (*Set, error) {
	if c.MaxStale == 0 {
		c.MaxStale = DefaultMaxStale
	}
	if c.MaxStale < MinMaxStale {
		return nil, fmt.Errorf("%w: at least %v", ErrMaxStale, MinMaxStale)
	}
	s := &Set{feed: feed, maxStale: c.MaxStale, load: c.Load, save: c.Save, onFetch: c.OnFetch, logger: c.Logger}
	if s.load == nil {
		s.load = func() ([]byte, error) { return nil, nil }
	}
	if s.save == nil {
		s.save = func([]byte) error { return nil }
	}
	if s.onFetch == nil {
		s.onFetch = func(Result) {}
	}
	if s.logger == nil {
		s.logger = zap.NewNop()
	}
	s.ctx, s.stop = context.WithCancel(context.Background())
	return s, nil
}

// Start begins to keep the keys current: at once if the Feed has never been asked,
// else when they are due. It waits for no answer.
func (s *Set) Start() {
	s.restore()
	s.keeping.Go(func() {
		for {
			wait, moved := s.feed.next(s)
			timer := time.NewTimer(wait)
			select {
			case <-timer.C:
			case <-moved:
			case <-s.ctx.Done():
				timer.Stop()
				return
			}
			timer.Stop()
		}
	})
}

// Stop ends that. Keys can still be asked for.
func (s *Set) Stop() {
	s.stop()
	s.keeping.Wait()
}

// Keys implements identity.KeySource. For a key id that is not known it waits for the
// fetch under way, or begins one unless the last has just been.
func (s *Set) Keys(ctx context.Context, kid string, now time.Time) ([]identity.Key, uint64, error) {
	snap := s.usable(now)
	if snap == nil || snap.byID[kid] == nil {
		s.restore()
		if snap = s.usable(now); snap == nil || snap.byID[kid] == nil {
			s.feed.await(ctx, s, now)
			snap = s.usable(now)
		}
	}
	if snap == nil || snap.byID[kid] == nil && s.feed.unsure() {
		return nil, 0, identity.ErrUnavailable
	}
	return snap.byID[kid], snap.generation, nil
}

// Refresh implements identity.KeySource.
func (s *Set) Refresh(ctx context.Context, now time.Time) bool {
	before := s.feed.current.Load()
	s.feed.await(ctx, s, now)
	return s.feed.current.Load() != before
}

// Generation implements identity.KeySource.
func (s *Set) Generation(now time.Time) (uint64, bool) {
	snap := s.usable(now)
	if snap == nil {
		return 0, false
	}
	return snap.generation, true
}

// usable is the snapshot, or nil if there is none that can still be believed.
func (s *Set) usable(now time.Time) *snapshot {
	snap := s.feed.current.Load()
	if snap == nil || now.Sub(snap.fetched) >= s.maxStale {
		return nil
	}
	return snap
}

// restore brings back the keys from before a restart, once.
func (s *Set) restore() {
	f := s.feed
	f.restored.Do(func() {
		raw, err := s.load()
		if err == nil && raw == nil {
			return
		}
		var doc document
		var fetched time.Time
		if err == nil {
			doc, fetched, err = readRecord(raw)
		}
		if err != nil {
			s.logger.Warn("the keys of a JWKS URL from before the restart cannot be read", zap.String("url", f.place()), zap.Error(err))
			return
		}
		if now := f.now(); fetched.After(now) { // the clock was set back: they are no fresher than now
			fetched = now
		}
		f.publish(doc, fetched)
		f.report.saved = fetched
	})
}

// report tells of fetches, and of the same thing once.
type report struct {
	said  string    // what is wrong
	left  []string  // which keys are left out
	saved time.Time // when the time of a fetch was written down
}

const (
	saidKept = "the keys of a JWKS URL cannot be fetched: the last ones are kept"
	saidNone = "the keys of a JWKS URL cannot be fetched, and there are none that could be used: its users get 503"
)

// tell tells of a fetch that ended, and has the keys written down. old is what was
// known before it.
func (r *report) tell(s *Set, f *Feed, old *snapshot, left []string, now time.Time, err error) {
	s.onFetch(resultOf(err))
	place := zap.String("url", f.place())
	if err != nil {
		r.failed(s, now, place, left, err)
		return
	}
	if r.said != "" {
		s.logger.Info("the keys of a JWKS URL can be fetched again", place)
		r.said = ""
	}
	if !slices.Equal(left, r.left) {
		if r.left = left; len(left) > 0 {
			s.logger.Warn("keys of a JWKS URL are left out", place, zap.Strings("keys", left))
		}
	}
	snap := f.current.Load()
	added, removed := snap.without(old), old.without(snap)
	if len(added)+len(removed) > 0 {
		s.logger.Info("the keys of a JWKS URL have changed", place, zap.Strings("added", added), zap.Strings("removed", removed))
	}
	if since := now.Sub(r.saved); len(added)+len(removed) == 0 && since >= 0 && since < saveEvery {
		return
	}
	raw, err := snap.record()
	if err == nil {
		err = s.save(raw)
	}
	if err != nil {
		s.logger.Warn("the keys of a JWKS URL cannot be written down: a restart would not know them", place, zap.Error(err))
		return
	}
	r.saved = now
}

func (r *report) failed(s *Set, now time.Time, place zap.Field, left []string, err error) {
	level, say := zap.WarnLevel, saidKept
	if s.usable(now) == nil {
		level, say = zap.ErrorLevel, saidNone
	}
	if say == r.said {
		level = zap.DebugLevel
	}
	r.said = say
	// The error may tell what the answer said, which is text of strangers.
	fields := []zap.Field{place, zap.String("error", strings.ToValidUTF8(err.Error(), "?"))}
	if len(left) > 0 {
		fields = append(fields, zap.Strings("left_out", left))
	}
	s.logger.Log(level, say, fields...)
}

// Interface guard
var _ identity.KeySource = (*Set)(nil)

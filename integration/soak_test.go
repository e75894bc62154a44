package integration

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-polar/caddy-polar/polar/box"
)

// soaking is for how long TestSoak runs: SOAK=30m is what docs/operations.md shows.
func soaking(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv("SOAK")
	if text == "" {
		return 6 * time.Second
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// sample is what the process has of what can leak.
type sample struct {
	after                   time.Duration
	anonymous, file         int64 // bytes
	goroutines, descriptors int
	requests                int64
}

// soak is a mixed load, in which each user is one worker's, so that it is known at each
// moment what they must be answered.
type soak struct {
	*shop
	t        *testing.T
	requests atomic.Int64
	events   atomic.Int64
	wrong    atomic.Int64
}

// soaker is a user with what was last acknowledged about them.
type soaker struct {
	*subscriber
	open bool
	last []byte
}

// TestSoak: under visitors, webhooks, strangers, forgers, reloads and a Polar in trouble,
// nobody is let in or kept out wrongly, and nothing grows.
func TestSoak(t *testing.T) {
	whole := soaking(t)
	s := &soak{shop: newShop(t), t: t}
	site := s.paywall(t, "app")
	configs := []string{s.caddyfile(syncing, site), s.caddyfile(strings.Replace(syncing, "return_to", "memory 200\n\t\treturn_to", 1), site)}
	s.start(t, configs[0])

	ctx, cancel := context.WithTimeout(t.Context(), whole)
	defer cancel()
	var load sync.WaitGroup
	for range 12 {
		load.Go(func() { s.work(ctx) })
	}
	load.Go(func() { s.wait(ctx) })
	load.Go(func() { s.trouble(ctx) })
	load.Go(func() {
		for n := 1; sleep(ctx, whole/20+time.Second); n++ {
			s.load(t, configs[n%2])
		}
	})
	load.Go(func() { // the box has a clock of its own, which goes when it is moved
		for sleep(ctx, time.Second) {
			s.box.AdvanceTo(time.Now())
		}
	})
	samples := s.watch(ctx, whole)
	load.Wait()
	s.box.SetTrouble(box.Trouble{})

	for _, x := range samples {
		t.Logf("| %s | %d | %.1f | %d | %d | %.1f |", x.after.Round(time.Second), x.requests, float64(x.anonymous)/(1<<20), x.goroutines, x.descriptors, float64(x.file)/(1<<20))
	}
	t.Logf("%d requests, %d webhooks, %d answered wrongly", s.requests.Load(), s.events.Load(), s.wrong.Load())
	if s.requests.Load() < 200 || s.events.Load() < 20 {
		t.Error("there was no load")
	}
	if whole >= time.Minute {
		checkFlat(t, samples)
	}
	if log := s.logs(); strings.Contains(log, "panic") || strings.Contains(log, `"level":"fatal"`) {
		t.Error("the log tells of a panic")
	}
}

// checkFlat compares the last third with the one before it: the first is for warming up.
func checkFlat(t *testing.T, samples []sample) {
	t.Helper()
	third := len(samples) / 3
	if third < 3 {
		t.Fatalf("only %d samples", len(samples))
	}
	for name, of := range map[string]func(sample) float64{
		"anonymous memory": func(x sample) float64 { return float64(x.anonymous) / (1 << 20) },
		"goroutines":       func(x sample) float64 { return float64(x.goroutines) },
		"descriptors":      func(x sample) float64 { return float64(x.descriptors) },
		"the file":         func(x sample) float64 { return float64(x.file) / (1 << 20) },
	} {
		median := func(list []sample) float64 {
			values := make([]float64, len(list))
			for i, x := range list {
				values[i] = of(x)
			}
			slices.Sort(values)
			return values[len(values)/2]
		}
		before, after := median(samples[third:2*third]), median(samples[2*third:])
		if after > before*1.15+16 {
			t.Errorf("%s grew from %.1f to %.1f", name, before, after)
		}
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// watch takes samples until the end.
func (s *soak) watch(ctx context.Context, whole time.Duration) (samples []sample) {
	began := time.Now()
	anonymous := regexp.MustCompile(`RssAnon:\s+(\d+) kB`)
	for sleep(ctx, max(whole/60, 200*time.Millisecond)) {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
		if err != nil {
			s.t.Error(err)
			return samples
		}
		x := sample{after: time.Since(began), descriptors: s.openFiles(s.t), requests: s.requests.Load()}
		if m := anonymous.FindSubmatch(status); m != nil {
			kB, _ := strconv.ParseInt(string(m[1]), 10, 64)
			x.anonymous = kB << 10
		}
		if info, err := os.Stat(s.store()); err == nil {
			x.file = info.Size()
		}
		x.goroutines, _ = s.goroutines(s.t)
		samples = append(samples, x)
	}
	return samples
}

// trouble is Polar's.
func (s *soak) trouble(ctx context.Context) {
	for sleep(ctx, time.Duration(500+rand.IntN(2000))*time.Millisecond) {
		s.box.SetTrouble([]box.Trouble{{HTML: true}, {Refuse: true}, {Hang: true}, {Limit: 1}, {Lag: time.Minute}}[rand.IntN(5)])
		sleep(ctx, time.Duration(200+rand.IntN(1500))*time.Millisecond)
		s.box.SetTrouble(box.Trouble{})
	}
}

// ask asks, and once more where a reload has broken the connection. ok is false at the
// end, or if nothing was answered.
func (s *soak) ask(ctx context.Context, method, path string, options ...option) (r *reply, ok bool) {
	for range 6 {
		r, err := s.try(method, s.origin()+path, append(options, func(r *http.Request) { *r = *r.WithContext(ctx) })...)
		if err == nil {
			s.requests.Add(1)
			return r, true
		}
		if ctx.Err() != nil || errors.Is(err, context.DeadlineExceeded) {
			return nil, false
		}
	}
	s.fail("no answer to %s %s", method, path)
	return nil, false
}

func (s *soak) fail(format string, args ...any) {
	if s.wrong.Add(1) < 10 {
		s.t.Errorf(format, args...)
	}
}

// work is one worker with users of its own.
func (s *soak) work(ctx context.Context) {
	users := make([]*soaker, 20)
	for i := range users {
		users[i] = &soaker{subscriber: newSubscriber(s.pro.ID)}
	}
	ended := object{"status": "canceled", "ended_at": wire(now.Add(-time.Minute)), "ends_at": wire(now.Add(-time.Minute)), "canceled_at": wire(now.Add(-time.Hour))}
	for sleep(ctx, 10*time.Millisecond) { // for half an hour, beside other things
		u := users[rand.IntN(len(users))]
		switch n := rand.IntN(100); {
		case n < 10 || u.last == nil:
			body, open := u.active(s.t), true
			if u.open {
				body, open = u.event(s.t, "subscription.revoked", ended), false
			}
			if r, ok := s.ask(ctx, http.MethodPost, webhookPath, signed(s.key, body)); ok && r.status == http.StatusOK {
				s.events.Add(1)
				u.open, u.last = open, body
			} else if ok {
				s.fail("a webhook got %v", r)
				u.last = nil // taken or not
			} else {
				return // it may be taken or not
			}
		case n < 15: // the last one once more
			s.expect(ctx, "a webhook that comes twice", []int{200}, http.MethodPost, webhookPath, signed(s.key, u.last))
		case n < 70:
			s.visit(ctx, u, "/pro/x", as(u.user))
		case n < 78:
			s.visit(ctx, u, "/pro/x", cookie(u.user), browser)
		case n < 90:
			s.expect(ctx, "a bad token", []int{401}, http.MethodGet, "/pro/x", bearer(userToken(u.user)+"x"))
		case n < 96:
			s.expect(ctx, "a forged webhook", []int{400}, http.MethodPost, webhookPath, signed([]byte("another secret of 32 bytes or more"), u.last))
		default:
			s.expect(ctx, "what is open", []int{200}, http.MethodGet, "/auth/polar/entitlements", as(u.user))
		}
	}
}

// wait is what may have to wait for Polar: strangers, and pages that show its catalog.
func (s *soak) wait(ctx context.Context) {
	for ctx.Err() == nil {
		s.expect(ctx, "the plans", []int{200, 503, 504}, http.MethodGet, "/auth/polar/pricing", browser)
		for range 10 {
			s.expect(ctx, "a stranger", []int{402, 503}, http.MethodGet, "/pro/x", as("stranger-"+newID()))
		}
		s.expect(ctx, "the account of a stranger", []int{200, 503}, http.MethodGet, "/auth/polar/account", cookie("stranger-"+newID()), browser)
	}
}

func (s *soak) expect(ctx context.Context, what string, statuses []int, method, path string, options ...option) {
	if r, ok := s.ask(ctx, method, path, options...); ok && !slices.Contains(statuses, r.status) {
		s.fail("%s got %v", what, r)
	}
}

// visit checks that somebody is in if, and only if, they have paid. That it cannot be
// told now is right for who is out.
func (s *soak) visit(ctx context.Context, u *soaker, path string, options ...option) {
	statuses := []int{http.StatusPaymentRequired, http.StatusServiceUnavailable}
	if u.open {
		statuses = []int{http.StatusOK}
	}
	s.expect(ctx, fmt.Sprintf("a visitor who has paid: %v", u.open), statuses, http.MethodGet, path, options...)
}

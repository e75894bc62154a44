package polar_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/caddy-polar/caddy-polar/polar"
)

// warm makes a client whose token Polar has just accepted.
func warm(t *testing.T, local *clock, limiter *polar.Limiter) *polar.Client {
	t.Helper()
	server, _ := serve(t, reply{body: aSubscription})
	c := newClient(t, polar.ClientConfig{BaseURL: server.URL, Now: local.now, Sleep: local.sleep, Limiter: limiter})
	ask(t, c)
	return c
}

func ask(t *testing.T, c *polar.Client) {
	t.Helper()
	if _, err := c.GetSubscription(t.Context(), anID); err != nil {
		t.Fatal(err)
	}
}

// TestLimiterKeepsToTheLimit: no minute has more calls than it may, the first
// one included, and nearly as many.
func TestLimiterKeepsToTheLimit(t *testing.T) {
	for _, limit := range []int{1, 9, 10, 100, 120, 500} {
		user, background := newClock(), newClock()
		for who, at := range map[*clock]*polar.Client{
			user:       warm(t, user, polar.NewLimiter(limit, 1)),
			background: warm(t, background, polar.NewLimiter(1_000_000, limit)).Background(),
		} {
			var calls []time.Time
			for range 4 * limit {
				ask(t, at)
				calls = append(calls, who.now())
			}
			for i := limit; i < len(calls); i++ {
				if span := calls[i].Sub(calls[i-limit]); span < time.Minute {
					t.Fatalf("%d: %d calls in %s", limit, limit+1, span)
				}
			}
			if took := calls[len(calls)-1].Sub(calls[0]); took > 5*time.Minute {
				t.Errorf("%d: %d calls took %s", limit, len(calls), took)
			}
		}
	}
}

// TestLimiterPromptFirst: what somebody may wait for finds a place although
// background calls use all they can get, and goes before those that wait.
func TestLimiterPromptFirst(t *testing.T) {
	local := newClock()
	limiter := polar.NewLimiter(500, 120) // a burst of 12
	c := warm(t, local, limiter).Background()
	for range 100 {
		ask(t, c)
	}
	before := local.now()
	for range 6 {
		ask(t, c.Prompt())
	}
	if waited := local.now().Sub(before); waited != 0 {
		t.Errorf("prompt calls waited %s", waited)
	}
	server, _ := serve(t, reply{body: aSubscription})
	asked := make(chan struct{})
	waits := newClient(t, polar.ClientConfig{
		BaseURL: server.URL, Now: local.now, Limiter: limiter,
		Sleep: func(ctx context.Context, _ time.Duration) error {
			asked <- struct{}{}
			<-ctx.Done()
			return ctx.Err()
		},
	}).Prompt()
	if limiter.Crowded() {
		t.Error("crowded by nobody")
	}
	ctx, cancel := context.WithCancel(t.Context())
	var prompt sync.WaitGroup
	prompt.Go(func() { _, _ = waits.GetSubscription(ctx, anID) })
	<-asked
	if !limiter.Crowded() {
		t.Error("nobody waits")
	}
	_ = local.sleep(ctx, time.Minute) // now there are places
	short, stop := context.WithTimeout(ctx, 10*time.Millisecond)
	defer stop()
	_, err := c.GetSubscription(short, anID)
	wantKinds(t, err, polar.ErrRateLimited)
	cancel()
	prompt.Wait()
	if limiter.Crowded() {
		t.Error("crowded by who has left")
	}
	ask(t, c)
}

// TestLimiterUsersFirst: background calls leave a reserve, so that a user's
// call does not wait for them, and wait while users use everything.
func TestLimiterUsersFirst(t *testing.T) {
	local := newClock()
	c := warm(t, local, polar.NewLimiter(60, 60)) // a burst of six
	background := c.Background()
	for range 20 {
		ask(t, background)
		before := local.now()
		ask(t, c)
		if waited := local.now().Sub(before); waited != 0 {
			t.Fatalf("a user waited %s behind background calls", waited)
		}
	}
	for range 20 {
		ask(t, c)
	}
	before := local.now()
	ask(t, background)
	if waited := local.now().Sub(before); waited < 2*time.Second {
		t.Errorf("a background call waited only %s behind users", waited)
	}
}

// TestLimiterSaysSo: who has no time to wait for a turn is told at once how
// long it would have been, and its place is given back.
func TestLimiterSaysSo(t *testing.T) {
	local := newClock()
	c := warm(t, local, polar.NewLimiter(6, 1)) // one each twelve seconds
	for range 50 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		_, err := c.GetSubscription(ctx, anID)
		cancel()
		wantKinds(t, err, polar.ErrRateLimited)
		if e := apiError(t, err); e.Status != 0 || e.RetryAfter < 11*time.Second || e.RetryAfter > 12*time.Second {
			t.Fatalf("status %d, again in %s", e.Status, e.RetryAfter)
		}
	}
	if len(local.waits()) != 0 {
		t.Errorf("waited %v", local.waits())
	}
}

// TestLimiterPause: a 429 of one call holds all others back as well, as long as
// Polar says, and so does a 503 that says so.
func TestLimiterPause(t *testing.T) {
	for _, said := range []struct {
		status int
		after  string
		want   time.Duration
	}{
		{429, "20", 20 * time.Second},
		{429, "900", 15 * time.Minute},
		{429, "", 5 * time.Second},
		{429, "999999", time.Hour},
		{503, "30", 30 * time.Second},
		{503, "", 0},
	} {
		local := newClock()
		limiter := polar.NewLimiter(500, 120)
		c := warm(t, local, limiter)
		header := map[string]string{}
		if said.after != "" {
			header["Retry-After"] = said.after
		}
		server, _ := serve(t, reply{said.status, header, ""})
		limited := newClient(t, polar.ClientConfig{BaseURL: server.URL, Now: local.now, Sleep: local.sleep, Limiter: limiter})
		if _, err := limited.CreateCheckout(t.Context(), polar.CheckoutCreate{}); err == nil {
			t.Fatal("no error")
		}
		before := local.now()
		if _, err := c.Portal("polar_cst_x").GetSubscription(t.Context(), anID); err != nil || local.now() != before {
			t.Errorf("a customer's own limit is another: %v", err)
		}
		_, err := c.GetSubscription(t.Context(), anID)
		switch waited := local.now().Sub(before); {
		case said.want <= 5*time.Minute && (err != nil || waited != said.want):
			t.Errorf("%d with %q: waited %s, %v", said.status, said.after, waited, err)
		case said.want > 5*time.Minute:
			// Nobody waits so long; they are told how long it is.
			wantKinds(t, err, polar.ErrRateLimited)
			if e := apiError(t, err); e.RetryAfter != said.want || waited != 0 {
				t.Errorf("%d with %q: again in %s, waited %s", said.status, said.after, e.RetryAfter, waited)
			}
		}
	}
}

// TestLimiterFirstCallAlone: after five idle minutes one call goes first, and
// the rest when Polar has taken the token, or one a second.
func TestLimiterFirstCallAlone(t *testing.T) {
	local := newClock()
	var mu sync.Mutex
	inFlight, most := 0, 0
	arrived, release := make(chan struct{}, 100), make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		mu.Lock()
		inFlight++
		most = max(most, inFlight)
		mu.Unlock()
		arrived <- struct{}{}
		<-release
		mu.Lock()
		inFlight--
		mu.Unlock()
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(aSubscription))
	}))
	defer server.Close()
	// Waiting callers sleep for real here, so that fake time stands still.
	polls := make(chan struct{}, 1)
	sleep := func(ctx context.Context, _ time.Duration) error {
		select {
		case polls <- struct{}{}:
		default:
		}
		time.Sleep(time.Millisecond)
		return ctx.Err()
	}
	c := newClient(t, polar.ClientConfig{BaseURL: server.URL, Now: local.now, Sleep: sleep, Limiter: polar.NewLimiter(6000, 60)})
	var wg sync.WaitGroup
	burst := func() {
		for range 20 {
			wg.Go(func() { _, _ = c.GetSubscription(t.Context(), anID) })
		}
	}
	burst()
	<-arrived
	for range 50 {
		<-polls // the others keep asking for their turn
	}
	mu.Lock()
	if most != 1 {
		t.Errorf("%d calls were on their way before Polar took the token", most)
	}
	mu.Unlock()
	_ = local.sleep(t.Context(), time.Second) // a slow first call does not hold all others
	<-arrived
	close(release)
	wg.Wait()
	if len(arrived) != 18 {
		t.Errorf("%d calls followed, want 18", len(arrived))
	}
}

func TestLimiterState(t *testing.T) {
	local, limiter := newClock(), polar.NewLimiter(100, 50)
	if s := limiter.State(local.now()); s != (polar.LimiterState{Free: 10, Most: 10}) {
		t.Errorf("at rest: %+v", s)
	}
	server, _ := serve(t, reply{body: aSubscription}, reply{429, map[string]string{"Retry-After": "30"}, ""})
	c := newClient(t, polar.ClientConfig{BaseURL: server.URL, Now: local.now, Limiter: limiter, Sleep: func(context.Context, time.Duration) error {
		return context.DeadlineExceeded
	}})
	ask(t, c)
	if _, err := c.GetSubscription(t.Context(), anID); err == nil {
		t.Fatal("a 429 is no error")
	}
	if s := limiter.State(local.now()); s.Free != 0 || s.Paused != 30*time.Second {
		t.Errorf("after a 429: %+v", s)
	}
}

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

func TestLimiterKeepsToTheLimit(t *testing.T) {
	local := newClock()
	c := warm(t, local, polar.NewLimiter(500, 120))
	start := local.now()
	for range 1000 {
		ask(t, c)
	}
	if took := local.now().Sub(start); took < 113*time.Second || took > 121*time.Second {
		t.Errorf("1000 calls took %s, want about two minutes", took)
	}
}

func TestLimiterBackgroundBudget(t *testing.T) {
	local := newClock()
	c := warm(t, local, polar.NewLimiter(500, 120)).Background()
	start := local.now()
	for range 240 {
		ask(t, c)
	}
	if took := local.now().Sub(start); took < 113*time.Second || took > 122*time.Second {
		t.Errorf("240 background calls took %s, want about two minutes", took)
	}
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
	c := warm(t, local, polar.NewLimiter(6, 1)) // one each ten seconds
	for range 50 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		_, err := c.GetSubscription(ctx, anID)
		cancel()
		wantKinds(t, err, polar.ErrRateLimited)
		if e := apiError(t, err); e.Status != 0 || e.RetryAfter < 9*time.Second || e.RetryAfter > 10*time.Second {
			t.Fatalf("status %d, again in %s", e.Status, e.RetryAfter)
		}
	}
	if len(local.waits()) != 0 {
		t.Errorf("waited %v", local.waits())
	}
}

// TestLimiterPause: a 429 of one call holds all others back as well.
func TestLimiterPause(t *testing.T) {
	local := newClock()
	limiter := polar.NewLimiter(500, 120)
	c := warm(t, local, limiter)
	server, _ := serve(t, reply{429, map[string]string{"Retry-After": "20"}, ""})
	limited := newClient(t, polar.ClientConfig{BaseURL: server.URL, Now: local.now, Sleep: local.sleep, Limiter: limiter})
	_, err := limited.CreateCheckout(t.Context(), polar.CheckoutCreate{})
	wantKinds(t, err, polar.ErrRateLimited)
	before := local.now()
	if _, err := c.Portal("polar_cst_x").GetSubscription(t.Context(), anID); err != nil || local.now() != before {
		t.Errorf("a customer's own limit is another: %v", err)
	}
	ask(t, c)
	if waited := local.now().Sub(before); waited != 20*time.Second {
		t.Errorf("waited %s", waited)
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

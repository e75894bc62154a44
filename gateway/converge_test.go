package gateway

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-polar/caddy-polar/entitlement"
	"github.com/caddy-polar/caddy-polar/polar"
	"github.com/caddy-polar/caddy-polar/polar/box"
)

// chaos is a walk in which everything goes wrong at once, at random: webhooks
// are lost, doubled, shuffled and late, transactions become visible late, the
// replica lags, Polar answers 500 and 429, and the gateway restarts.
type chaos struct {
	*walk
	budget int
	// payers are those whom the gateway knew to have paid, and who still have.
	payers map[[2]string]bool

	mu         sync.Mutex
	background bool
	calls      []time.Time // that nobody waited for
}

func newChaos(t *testing.T, seed uint64) *chaos {
	c := &chaos{budget: 30 + 10*int(seed%10), payers: map[[2]string]bool{}}
	c.walk = newWalk(t, 100+seed, func(g *Config) {
		g.Limiter = polar.NewLimiter(500, c.budget)
		g.OnCall = func(call polar.Call) {
			c.mu.Lock()
			defer c.mu.Unlock()
			if c.background {
				c.calls = append(c.calls, c.box.Now().Add(-call.Took))
			}
		}
	})
	c.syncs, c.watch = true, c.forget
	c.sleeps = func(d time.Duration) error {
		c.box.Advance(d) // lives go on while the gateway waits for its turn
		return nil
	}
	return c
}

// asks does something that calls Polar in the background.
func (c *chaos) asks(do func()) {
	set := func(to bool) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.background = to
	}
	set(true)
	defer set(false)
	do()
}

// step lets things happen, some of them unheard, and time pass.
func (c *chaos) step(t *testing.T) {
	lag := box.Trouble{Lag: time.Duration(c.rng.IntN(120)) * time.Second}
	c.box.SetTrouble([]box.Trouble{{}, {}, {HTML: true}, {Limit: 1}, lag}[c.rng.IntN(5)])
	c.box.SetNetwork(box.Network{
		Lose: c.rng.IntN(2) == 0, Double: c.rng.IntN(2) == 0, Shuffle: c.rng.IntN(2) == 0,
		Delay: time.Duration(c.rng.IntN(3)) * 20 * time.Second,
	})
	c.box.CommitLate(time.Duration(c.rng.IntN(2)*c.rng.IntN(90)) * time.Second)
	for range 1 + c.rng.IntN(4) {
		c.act()
	}
	c.box.Settle()
	switch c.rng.IntN(8) {
	case 0, 1:
		c.asks(func() { _, _ = c.g.Sync(t.Context()) }) // may fail
	case 2, 3:
		c.asks(func() { c.g.glance(t.Context()) })
	case 4:
		c.restart()
	}
	c.forget()
	c.box.Advance(time.Hour + time.Duration(c.rng.IntN(40))*time.Hour)
	c.forget()
	c.noPayerIsRefused(t)
}

// forget forgets the payers who no longer have what they paid for.
func (c *chaos) forget() {
	for key := range c.payers {
		if open, _ := c.truth(key[0], c.plan(key[1])); !open {
			delete(c.payers, key)
		}
	}
}

func (c *chaos) plan(name string) *entitlement.Plan {
	for i := range c.g.plans {
		if c.g.plans[i].Name == name {
			return &c.g.plans[i]
		}
	}
	panic(name)
}

// noPayerIsRefused asks as a gate does. Whom the gateway once knew to have paid
// is let in, or gets 503 while Polar cannot be asked; nothing else.
func (c *chaos) noPayerIsRefused(t *testing.T) {
	t.Helper()
	for _, user := range c.users {
		for i := range c.g.plans {
			p := &c.g.plans[i]
			var d entitlement.Decision
			c.asks(func() { d = c.confirm(user, p.Name) })
			open, why := c.truth(user, p)
			key := [2]string{user, p.Name}
			if open && d.Allowed {
				c.payers[key] = true
			}
			if open && c.payers[key] && !d.Allowed && d.HTTPStatus != http.StatusServiceUnavailable {
				t.Errorf("%s: %s on %s has paid and gets %d %s: %s",
					c.box.Now().Format(time.RFC3339), user, p.Name, d.HTTPStatus, d.Reason, why)
			}
		}
	}
}

// budgetIsKept looks at every minute. Calls that go at once are seen up to a
// sleep of another one later than they went.
func (c *chaos) budgetIsKept(t *testing.T) {
	t.Helper()
	slices.SortFunc(c.calls, time.Time.Compare)
	most := c.budget + 2
	for i := most; i < len(c.calls); i++ {
		if span := c.calls[i].Sub(c.calls[i-most]); span < time.Minute {
			t.Fatalf("%d calls in %s, of %d", most+1, span, len(c.calls))
		}
	}
}

// Once it is quiet, one sync makes all of it right. Until then nobody is
// refused who is known to have paid, and the budget is kept.
func TestConverges(t *testing.T) {
	const walks = 40
	var events atomic.Int64
	var mu sync.Mutex
	total := map[string]int{}
	t.Run("walks", func(t *testing.T) {
		for seed := range uint64(walks) {
			t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
				t.Parallel()
				c := newChaos(t, seed)
				for range 25 {
					c.step(t)
					if t.Failed() {
						t.Fatalf("after %v", c.steps)
					}
				}
				c.box.SetTrouble(box.Trouble{})
				c.box.SetNetwork(box.Network{})
				c.box.CommitLate(0)
				c.box.Advance(2 * time.Hour)
				c.box.Settle()
				c.asks(func() { c.sync() })
				c.checkAll("the last sync")
				if t.Failed() {
					t.Fatalf("after %v", c.steps)
				}
				c.budgetIsKept(t)
				events.Add(int64(len(c.box.Attempts())))
				mu.Lock()
				defer mu.Unlock()
				for name, n := range c.done {
					total[name] += n
				}
			})
		}
	})
	t.Logf("%d webhooks", events.Load())
	if events.Load() < 10_000 {
		t.Error("fewer than 10,000 webhooks")
	}
	wantAll(t, total, true)
}

// restart lets a new gateway go on with the store.
func (w *walk) restart() {
	w.t.Helper()
	old := w.g
	g, err := New(w.config)
	if err != nil {
		w.t.Fatal(err)
	}
	g.plans = old.plans
	g.rules.Store(&entitlement.Rules{Plans: old.plans, CanConfirm: true})
	if err := g.recallSync(); err != nil {
		w.t.Fatal(err)
	}
	old.Close()
	w.t.Cleanup(g.Close)
	w.g = g
}

// confirm is a decision as a gate makes it.
func (s *shop) confirm(user, plan string) entitlement.Decision {
	s.t.Helper()
	a, err := s.g.Account(user)
	if err != nil {
		s.t.Fatal(err)
	}
	q, err := s.g.Rules().Require(plan)
	if err != nil {
		s.t.Fatal(err)
	}
	d := entitlement.Decide(a, q, s.g.Rules(), s.g.Now())
	s.seen.agree(s.t, s.g, Visitor{User: user}, q, d)
	_, d, _ = s.g.Confirm(context.Background(), a, q, d)
	return d
}

package integration

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestKills: the process is killed at any moment, also of its start, under webhooks.
// Whatever was acknowledged by then is in force afterwards.
func TestKills(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	config := s.caddyfile(usual, s.paywall(t, "app"))
	l := newLedger()
	rounds := often(8, 1000)
	for round := range rounds {
		s.launch(t, config)
		end := l.selling(t, s, 4)
		time.Sleep(rand.N(400 * time.Millisecond))
		s.kill()
		end()
		if round%10 == 9 || round == rounds-1 {
			last := 1000
			if round%100 == 99 || round == rounds-1 {
				last = l.size()
			}
			s.start(t, config)
			l.check(t, s, last)
			s.kill()
		}
	}
	if l.acknowledged() < rounds {
		t.Errorf("only %d acknowledged in %d rounds", l.acknowledged(), rounds)
	}
	t.Logf("%d kills, %d users acknowledged, %d tries that were not", rounds, l.acknowledged(), l.size()-l.acknowledged())
}

// TestReloadStorm: many reloads at once, of which some fail, under webhooks and
// visitors, and a kill in the end.
func TestReloadStorm(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	site := s.paywall(t, "app")
	good := s.caddyfile(usual, site)
	configs := []string{
		good,
		s.caddyfile(strings.Replace(usual, "polar {", "polar {\ngrace {\npast_due 2d\n}", 1), site),
		s.caddyfile(strings.Replace(usual, "{env.JWT_SECRET}", "{env.NOT_SET}", 1), site),
	}
	s.start(t, good)
	l := newLedger()
	u := s.subscribe(t, "app", productPro)
	end := l.selling(t, s, 2)
	defer end()
	over := make(chan struct{})
	var visits int
	var visitor sync.WaitGroup
	visitor.Go(func() {
		for {
			select {
			case <-over:
				return
			default:
			}
			// A connection that has just come in, Caddy may break.
			if r, err := s.try(http.MethodGet, "http://"+s.sites["app"]+"/pro/x", as(u.user)); err == nil {
				if visits++; r.status != http.StatusOK {
					t.Errorf("who has paid got %v", r)
				}
			}
		}
	})
	var operators sync.WaitGroup
	for n := range 4 {
		operators.Go(func() {
			for i := range often(10, 250) {
				config := configs[(n+i)%len(configs)]
				r, err := s.try(http.MethodPost, "http://"+s.admin+"/load", text(config),
					header("Content-Type", "text/caddyfile"), header("Cache-Control", "must-revalidate")) // also if it is the same
				if err == nil && (r.status == http.StatusOK) == (config == configs[2]) {
					t.Errorf("reload: %v", r)
				}
			}
		})
	}
	operators.Wait()
	close(over)
	visitor.Wait()
	waitFor(t, "webhooks", func() bool { return l.acknowledged() > 50 })
	end()
	l.check(t, s, l.size())
	s.kill()
	s.start(t, good)
	l.check(t, s, l.size())
	if visits == 0 {
		t.Error("nobody came")
	}
	t.Logf("%d reloads, %d users acknowledged, %d visits", 4*often(10, 250), l.acknowledged(), visits)
}

// unready checks that the gateway says that its store is not as it should be.
func (s *server) unready(t *testing.T, says string) {
	t.Helper()
	r := s.ask(t, http.MethodGet, "/polar/health/ready").wants(t, http.StatusServiceUnavailable)
	if !strings.Contains(r.body, `"reason":"store"`) || !strings.Contains(r.body, says) {
		t.Errorf("unready: %v", r)
	}
}

// refuses sends a webhook that cannot be kept: it must not be acknowledged.
func (s *server) refuses(t *testing.T, body []byte) {
	t.Helper()
	p := s.webhook(t, "app", body).problem(t, http.StatusServiceUnavailable, "unavailable")
	if strings.Contains(fmt.Sprint(p), s.dir) {
		t.Errorf("Polar is told where the store lies: %v", p)
	}
}

// said counts the lines of the log with some words in them.
func (s *server) said(words string) int {
	n := 0
	for line := range strings.Lines(s.logs()) {
		if strings.Contains(line, words) {
			n++
		}
	}
	return n
}

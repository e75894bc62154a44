package integration

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// openFiles counts the descriptors of the server's process.
func (s *server) openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// goroutines counts those of the server's process.
func (s *server) goroutines(t *testing.T) (count int, profile string) {
	t.Helper()
	r := s.ask(t, http.MethodGet, "/debug/pprof/goroutine?debug=1").wants(t, http.StatusOK)
	if _, err := fmt.Sscanf(r.body, "goroutine profile: total %d", &count); err != nil {
		t.Fatalf("%v: %s", err, tail(r.body, 3))
	}
	return count, r.body
}

// TestReload changes the configuration under load, again and again.
func TestReload(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	explicit := fmt.Sprintf("polar {\n\t\tstore bolt {\n\t\t\tpath %s\n\t\t}\n\t\tgrace {\n\t\t\tpast_due 2d\n\t\t}", s.store())
	site := s.site(t, "app", `
		polar
		polar_require /pro/* pro
		reverse_proxy {upstream} {
			transport http {
				keepalive off # Caddy forgets kept connections at each reload
			}
		}`)
	configs := []string{
		s.caddyfile(usual, site),
		// Everything else may change, the file stays the same.
		s.caddyfile(strings.Replace(usual, "polar {", explicit, 1), site, s.site(t, "extra", "respond hello")),
	}
	s.start(t, configs[0])
	paid := s.subscribe(t, "app", productPro)
	asPaid := as(paid.user)

	var served, failed atomic.Int64
	var firstFailure atomic.Value
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	// At a reload Caddy, with or without us, breaks connections that have just
	// come in, so a visitor tries again. What is answered must be right.
	visit := func() error {
		for tries := 0; ; tries++ {
			r, err := s.try(http.MethodGet, "http://"+s.sites["app"]+"/pro/x", asPaid)
			switch {
			case err == nil && r.status == http.StatusOK:
				return nil
			case err == nil:
				return fmt.Errorf("got %v", r)
			case tries == 5:
				return err
			}
		}
	}
	var load sync.WaitGroup
	for range 3 {
		load.Go(func() {
			for ctx.Err() == nil {
				if err := visit(); err != nil {
					failed.Add(1)
					firstFailure.CompareAndSwap(nil, err.Error())
				}
				served.Add(1)
				pause()
			}
		})
	}
	reload := func(i int) {
		t.Helper()
		before := served.Load()
		waitFor(t, "requests between reloads", func() bool { return served.Load() >= before+5 })
		if r := s.load(t, configs[i%len(configs)]); r.status != http.StatusOK {
			t.Fatalf("reload %d: %v", i, r)
		}
		if i%10 == 0 {
			u := s.subscribe(t, "app", productPro)
			s.get(t, "app", "/pro/x", as(u.user)).wants(t, http.StatusOK)
		}
	}
	const warmUp = 6
	for i := range warmUp {
		reload(i)
	}
	files := s.openFiles(t)
	goroutines, _ := s.goroutines(t)
	for i := range 50 {
		reload(warmUp + i)
	}
	cancel()
	load.Wait()
	if failed.Load() > 0 {
		t.Errorf("%d of %d requests failed during the reloads, first: %v", failed.Load(), served.Load(), firstFailure.Load())
	}
	// What belongs to connections comes and goes; a leak would be 50 or more.
	const slack = 8
	s.client.CloseIdleConnections()
	waitFor(t, fmt.Sprintf("as many open files as before, %d", files), func() bool { return s.openFiles(t) <= files+slack })
	var profile string
	deadline := time.Now().Add(patience)
	for n := goroutines + slack + 1; n > goroutines+slack; pause() {
		if n, profile = s.goroutines(t); time.Now().After(deadline) {
			t.Fatalf("there were %d goroutines and are %d: %s", goroutines, n, profile)
		}
	}

	t.Run("grace follows the configuration", func(t *testing.T) {
		u := newSubscriber(productPro)
		s.deliver(t, "app", u.event(t, "subscription.past_due", object{"past_due_at": wire(now.Add(-3 * day))}))
		s.load(t, configs[0]).wants(t, http.StatusOK)
		s.get(t, "app", "/pro/x", as(u.user)).wants(t, http.StatusOK)
		s.load(t, configs[1]).wants(t, http.StatusOK)
		s.get(t, "app", "/pro/x", as(u.user)).problem(t, http.StatusPaymentRequired, "past_due")
	})
	t.Run("another file and back", func(t *testing.T) {
		other := strings.Replace(configs[1], "default.db", "another.db", 1)
		s.load(t, other).wants(t, http.StatusOK)
		s.get(t, "app", "/pro/x", asPaid).problem(t, http.StatusPaymentRequired, "no_subscription")
		s.deliver(t, "app", newSubscriber(productPro).active(t))
		s.load(t, configs[0]).wants(t, http.StatusOK)
		s.get(t, "app", "/pro/x", asPaid).wants(t, http.StatusOK)
	})
	s.deliver(t, "app", newSubscriber(productPro).active(t))
}

// TestFailedReload checks that a configuration that cannot be loaded takes
// nothing away from the one that runs.
func TestFailedReload(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	good := s.caddyfile(usual, s.paywall(t, "app"))
	s.start(t, good)
	paid := s.subscribe(t, "app", productPro)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for name, bad := range map[string]string{
		"no Caddyfile":             "{",
		"unset secret":             strings.Replace(good, "POLAR_WEBHOOK_SECRET", "NOT_SET", 1),
		"unset product":            strings.Replace(good, "PRODUCT_PRO", "NOT_SET", 1),
		"bad second gateway":       s.caddyfile(usual+"\npolar zz {\njwt secret short\nplan pro x\n}", s.paywall(t, "app")),
		"a port that is taken":     good + "\nhttp://" + taken.Addr().String() + " {\nrespond x\n}",
		"another gateway's store":  s.caddyfile(strings.Replace(usual, "polar {", "polar other {\nstore bolt {\npath "+s.store()+"\n}", 1), strings.Replace(s.paywall(t, "app"), "polar\n", "polar other\n", 1)),
		"a store in no directory":  strings.Replace(good, "polar {", "polar {\nstore bolt {\npath /proc/nowhere/x.db\n}", 1),
		"a handler of bad options": strings.Replace(good, "polar_require /pro/* pro", "polar_require /pro/* pro {\nrefuse redirect https://%zz\n}", 1),
	} {
		t.Run(name, func(t *testing.T) {
			for range 2 {
				r := s.load(t, bad)
				if r.status == http.StatusOK {
					t.Fatal("it was loaded")
				}
				if strings.Contains(r.body, webhookSecret) || strings.Contains(r.body, jwtSecret) {
					t.Errorf("a secret is in %v", r)
				}
				s.get(t, "app", "/pro/x", as(paid.user)).wants(t, http.StatusOK)
				u := s.subscribe(t, "app", productPro)
				s.get(t, "app", "/pro/x", as(u.user)).wants(t, http.StatusOK)
			}
		})
	}
	s.load(t, good).wants(t, http.StatusOK)
	s.get(t, "app", "/pro/x", as(paid.user)).wants(t, http.StatusOK)
}

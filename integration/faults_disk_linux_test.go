package integration

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

const notStored = "webhook not stored"

// TestFailingDisk: what cannot be kept is not acknowledged, for whatever reason. Who is
// known stays in, and nobody else comes in.
func TestFailingDisk(t *testing.T) {
	t.Parallel()
	for fault, f := range faults {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			s := newServer(t)
			config := s.caddyfile(usual, s.paywall(t, "app"))
			s.start(t, config)
			old := s.subscribe(t, "app", productPro)
			s.stop(t)

			s.fault = fault
			s.start(t, config)
			fresh := newSubscriber(productPro)
			bought := fresh.active(t)
			for range 20 {
				s.refuses(t, bought)
				s.get(t, "app", "/pro/x", as(old.user)).wants(t, http.StatusOK)
				s.get(t, "app", "/pro/x", as(fresh.user)).problem(t, http.StatusPaymentRequired, "no_subscription")
			}
			s.unready(t, f.errno.Error())
			s.tells(t, "status")
			if n := s.said(notStored); n != 1 {
				t.Errorf("the log says %d times that webhooks are not stored", n)
			}
			s.kill()

			s.fault = ""
			s.start(t, config)
			s.get(t, "app", "/pro/x", as(old.user)).wants(t, http.StatusOK)
			s.deliver(t, "app", bought)
			s.get(t, "app", "/pro/x", as(fresh.user)).wants(t, http.StatusOK)
			s.ask(t, http.MethodGet, "/polar/health/ready").wants(t, http.StatusOK)
		})
	}
}

// fill leaves no room on a disk.
func fill(t *testing.T, dir string) (ballast string) {
	t.Helper()
	file, err := os.Create(filepath.Join(dir, "ballast"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for block := make([]byte, 4096); ; {
		if _, err := file.Write(block); err != nil {
			return file.Name()
		}
	}
}

// TestDiskFull: a disk that is full under webhooks, is full at a start, and has room
// again.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	dir := s.smallDisk(t, "4m")
	config := s.caddyfile(usual, s.paywall(t, "app"))

	ballast := fill(t, dir)
	for range 4 { // also if some pages of a store find room
		if err := s.tryStart(t, config); err == nil {
			t.Fatal("it starts without a store")
		}
		if last := tail(s.logs(), 1); !strings.Contains(last, "no space left on device") || !strings.Contains(last, "make room") {
			t.Errorf("it says: %s", last)
		}
		info, err := os.Stat(ballast)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(ballast, info.Size()-int64(os.Getpagesize())); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	s.start(t, config) // nothing is left over of the first try

	l := newLedger()
	for range 20 {
		l.sell(t, s)
	}
	ballast = fill(t, dir)
	waitFor(t, "a full disk", func() bool { return !l.sell(t, s) })
	for range 20 {
		l.sell(t, s)
	}
	s.refuses(t, newSubscriber(productPro).active(t))
	s.unready(t, "no space left on device")
	l.check(t, s, l.size())
	if n := s.said(notStored); n != 1 {
		t.Errorf("the log says %d times that webhooks are not stored", n)
	}

	s.kill()
	s.start(t, config)
	l.check(t, s, l.size())
	s.refuses(t, newSubscriber(productPro).active(t))

	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "room", func() bool { return l.sell(t, s) })
	waitFor(t, "the gateway to be ready", func() bool {
		return s.ask(t, http.MethodGet, "/polar/health/ready").status == http.StatusOK
	})
	s.kill()
	s.start(t, config)
	l.check(t, s, l.size())
}

// TestReadOnlyDisk: Caddy does not start on a store that it cannot write, says why,
// and changes nothing.
func TestReadOnlyDisk(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	dir := s.smallDisk(t, "64m")
	config := s.caddyfile(usual, s.paywall(t, "app"))
	s.start(t, config)
	u := s.subscribe(t, "app", productPro)
	s.stop(t)
	remount(t, dir, syscall.MS_RDONLY)
	if err := s.tryStart(t, config); err == nil {
		t.Fatal("it starts on a disk that it cannot write")
	}
	for _, words := range []string{s.store(), "read-only file system", "let Caddy's user write the file and its directory"} {
		if s.said(words) == 0 {
			t.Errorf("it does not say %q: %s", words, tail(notable(s.logs()), 3))
		}
	}
	remount(t, dir, 0)
	s.start(t, config)
	s.get(t, "app", "/pro/x", as(u.user)).wants(t, http.StatusOK)
}

// TestNoDescriptors: a process that can open nothing goes on with what it has open, and
// with everything once it can again.
func TestNoDescriptors(t *testing.T) {
	t.Parallel()
	s := startPaywall(t)
	l := newLedger()
	for range 5 {
		l.sell(t, s)
	}
	l.check(t, s, l.size())
	lines := strings.Count(s.logs(), "\n")
	s.limitFiles(t, uint64(s.openFiles(t)))
	fresh := newServer(t).client // with no connection yet
	for range 3 {
		for range 20 {
			if !l.sell(t, s) {
				t.Error("a webhook is refused on a connection that is there")
			}
		}
		r, err := fresh.Get("http://" + s.sites["app"] + "/free")
		if err == nil {
			r.Body.Close()
		}
	}
	if n := strings.Count(s.logs(), "\n") - lines; n > 500 {
		t.Errorf("%d lines of log", n)
	}
	s.limitFiles(t, 10000)
	waitFor(t, "new connections", func() bool {
		s.client.CloseIdleConnections()
		return l.sell(t, s)
	})
	l.check(t, s, l.size())
	s.kill()
	s.start(t, s.caddyfile(usual, s.paywall(t, "app")))
	l.check(t, s, l.size())
}

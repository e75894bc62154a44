package integration

import (
	"net/http"
	"os"
	"path/filepath"
	"strconv"
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
		if !l.sell(t, s) {
			t.Fatal("a webhook is refused while there is room")
		}
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

// TestDamagedStore: what becomes of a store that is cut, exchanged, or damaged under a
// running process or before it starts, and the two ways back: a new one is filled from
// Polar, and a backup has passes too.
func TestDamagedStore(t *testing.T) {
	t.Parallel()
	cut := func(size int64) func(*testing.T, string) {
		return func(t *testing.T, store string) {
			if err := os.Truncate(store, size); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, damage := range map[string]func(t *testing.T, store string){
		"cut to nothing":  cut(0),
		"cut to a page":   cut(4096),
		"cut in the half": cut(40 << 10),
		"another file's pages": func(t *testing.T, store string) {
			raw, err := os.ReadFile(store)
			if err != nil {
				t.Fatal(err)
			}
			for page := 2; page < len(raw)/4096; page++ {
				copy(raw[page*4096:], "no page of a store any more")
			}
			if err := os.WriteFile(store, raw, 0o600); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newShop(t)
			config := s.caddyfile(syncing, s.paywall(t, "app"))
			s.start(t, config)
			s.connect()
			s.buy(t, "ada", "pro")
			s.tells(t, "pass", "bob", "pro")
			s.subscribers(t, 40)
			backup := filepath.Join(s.dir, "backup.db")
			s.tells(t, "backup", backup)
			s.buy(t, "eve", "pro")
			s.get(t, "app", "/pro/x", as("ada")).wants(t, http.StatusOK)

			damage(t, s.store())
			troubles := s.said(`"level":"error"`) + s.said(`"level":"warn"`)
			fresh := newSubscriber(s.pro.ID)
			for range 20 {
				s.neverWrong(t, "ada", "eve", "bob", "usr_3")
				s.neverIn(t, "mallory", fresh.user)
				if r := s.webhook(t, "app", fresh.active(t)); r.status != http.StatusServiceUnavailable {
					t.Fatalf("a webhook: %v", r)
				}
			}
			s.unready(t, s.store())
			_, _, _ = s.polar("status") // which may fail, but has to end
			if n := s.said(`"level":"error"`) + s.said(`"level":"warn"`) - troubles; n == 0 || n > 10 {
				t.Errorf("%d lines of log about it", n)
			}
			s.stop(t)

			err := s.tryStart(t, config)
			if name == "cut to nothing" { // that is a new one
				if err != nil {
					t.Fatal(err)
				}
				s.kill()
			} else {
				last := tail(s.logs(), 1)
				for _, words := range []string{s.store(), "damaged", "move it away or restore a backup; a new one is filled from Polar"} {
					if err == nil || !strings.Contains(last, words) {
						t.Fatalf("%v: it does not say %q: %s", err, words, last)
					}
				}
			}
			if name != "cut in the half" && often(0, 1) == 0 {
				return // the ways back are the same
			}
			if err := os.Rename(s.store(), s.store()+".damaged"); err != nil {
				t.Fatal(err)
			}
			s.start(t, config)
			for _, user := range []string{"ada", "eve"} {
				waitFor(t, "the first sync", func() bool { return s.get(t, "app", "/pro/x", as(user)).status == http.StatusOK })
			}
			waitFor(t, "its end", func() bool { // of passes Polar knows nothing
				return s.get(t, "app", "/pro/x", as("bob")).status == http.StatusPaymentRequired
			})
			s.stop(t)

			if err := os.Remove(s.store()); err != nil {
				t.Fatal(err)
			}
			if said, err := s.command("polar", "restore", backup, "--to", s.store(), "--server", s.box.URL); err != nil {
				t.Fatal(err, said)
			}
			s.start(t, config)
			s.get(t, "app", "/pro/x", as("bob")).wants(t, http.StatusOK)
			s.tells(t, "sync")
			s.get(t, "app", "/pro/x", as("eve")).wants(t, http.StatusOK)
		})
	}
}

// subscribers have some of Polar's customers in the store.
func (s *shop) subscribers(t *testing.T, n int) {
	t.Helper()
	for i := range n {
		if _, err := s.box.Buy("usr_"+strconv.Itoa(i), "usr_"+strconv.Itoa(i)+"@example.com", s.pro.ID); err != nil {
			t.Fatal(err)
		}
	}
	s.box.Settle()
}

// neverWrong checks that who has paid is let in, or told that nobody can say.
func (s *server) neverWrong(t *testing.T, users ...string) {
	t.Helper()
	for _, user := range users {
		if r := s.get(t, "app", "/pro/x", as(user)); r.status != http.StatusOK && r.status != http.StatusServiceUnavailable {
			t.Fatalf("%s, who has paid, got %v", user, r)
		}
	}
}

func (s *server) neverIn(t *testing.T, users ...string) {
	t.Helper()
	for _, user := range users {
		if r := s.get(t, "app", "/pro/x", as(user)); r.status == http.StatusOK {
			t.Fatalf("%s, who has not paid, is let in", user)
		}
	}
}

package integration

import (
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

// TestBackupWhileWebhooksCome: the backup is a store, and has whatever was
// acknowledged before it began.
func TestBackupWhileWebhooksCome(t *testing.T) {
	t.Parallel()
	s := startPaywall(t)
	var mu sync.Mutex
	var taken []string // users whose webhook was answered with 200
	acknowledged := func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(taken)
	}
	stop := make(chan struct{})
	var polars sync.WaitGroup
	for range 4 {
		polars.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				u := newSubscriber(productPro)
				r, err := s.try(http.MethodPost, "http://"+s.sites["app"]+webhookPath, signed(s.key, u.active(t)))
				if err != nil || r.status != http.StatusOK {
					t.Errorf("a webhook during a backup: %v %v", r, err)
					return
				}
				mu.Lock()
				taken = append(taken, u.user)
				mu.Unlock()
			}
		})
	}
	ended := sync.OnceFunc(func() { close(stop); polars.Wait() })
	defer ended()
	waitFor(t, "webhooks", func() bool { return len(acknowledged()) >= 50 || t.Failed() })
	before := acknowledged()
	file := filepath.Join(s.dir, "backup.db")
	v := s.tellsJSON(t, "backup", file)
	during := len(acknowledged())
	waitFor(t, "more webhooks", func() bool { return len(acknowledged()) > during || t.Failed() })
	ended()
	n := int(v["objects"].(object)["subscriptions"].(float64))
	if v["gateway"] != "default" || n < len(before) || n > len(acknowledged()) {
		t.Errorf("%d before, %d after: %v", len(before), len(acknowledged()), v)
	}
	s.fails(t, []string{"backup", file}, "is there already")

	said, err := s.command("polar", "restore", file, "--to", s.store())
	if err == nil || !strings.Contains(said, "stop that Caddy") {
		t.Errorf("over a store in use: %v %s", err, said)
	}
	config := s.caddyfile(usual, s.paywall(t, "app"))
	s.stop(t)
	if said, err := s.command("polar", "restore", file, "--to", s.store()); err == nil || !strings.Contains(said, "is there already") {
		t.Errorf("over a store: %v %s", err, said)
	}
	if err := os.Rename(s.store(), s.store()+".before"); err != nil {
		t.Fatal(err)
	}
	if said, err := s.command("polar", "restore", file, "--to", s.store()); err != nil {
		t.Fatal(err, said)
	}
	s.start(t, config)
	for _, user := range before {
		s.get(t, "app", "/pro/x", as(user)).wants(t, http.StatusOK)
	}
	if lines := strings.Count(s.tells(t, "export"), "\n"); lines != n {
		t.Errorf("%d users, and %d subscriptions", lines, n)
	}
	if lines := strings.Count(s.tells(t, "export", "--format", "csv"), ",active,"); lines != n {
		t.Errorf("%d lines, and %d subscriptions", lines, n)
	}
	s.subscribe(t, "app", productPro) // it can be written
	entries, err := os.ReadDir(filepath.Dir(s.store()))
	if err != nil || len(entries) != 2 {
		t.Errorf("%v: besides the stores there is something: %v", err, entries)
	}
}

// TestGoldenCopies: what the commands say that write files, to the letter.
func TestGoldenCopies(t *testing.T) {
	t.Parallel()
	s := startPaywall(t)
	u := s.subscribe(t, "app", productPro)
	s.tells(t, "pass", u.user, "basic", "--until", told(now.Add(day)), "--reason", "=1+1")
	sized := regexp.MustCompile(`(?m)^(bytes +)\d+$`)
	golden(t, "backup", sized.ReplaceAllString(s.tells(t, "backup", "backup.db"), "$1<SIZE>"))
	golden(t, "export-csv", s.tells(t, "export", "--format", "csv"))
	golden(t, "export-out", s.tells(t, "export", "--out", "users.jsonl"))
	s.write(t, "text", "no store")
	for name, args := range map[string][]string{
		"backup-there":   {"backup", "text", "--address", s.admin},
		"export-format":  {"export", "--format", "xml", "--address", s.admin},
		"restore-in-use": {"restore", "backup.db", "--to", s.store()},
		"restore-text":   {"restore", "text", "--to", "new.db"},
		"restore-server": {"restore", "backup.db", "--to", "new.db", "--server", "sandbox"},
		"restore-dir":    {"restore", "backup.db", "--to", "none/new.db"},
	} {
		said, err := s.command(append([]string{"polar"}, args...)...)
		if err == nil {
			t.Errorf("caddy polar %v succeeds: %s", args, said)
		}
		golden(t, name, said)
	}
	said, err := s.command("polar", "restore", "backup.db", "--to", "new.db")
	if err != nil {
		t.Error(err)
	}
	golden(t, "restore", sized.ReplaceAllString(said, "$1<SIZE>"))
}

// TestHealth is asked as an orchestrator does.
func TestHealth(t *testing.T) {
	t.Parallel()
	s := startServer(t, "polar {\nhealth\n}\nrespond app")
	s.ask(t, http.MethodGet, "/polar/health/live").wants(t, http.StatusOK)
	if v := s.ask(t, http.MethodGet, "/polar/health/ready").wants(t, http.StatusOK).json(t); v["ready"] != true {
		t.Error(v)
	}
	for _, path := range []string{"/auth/polar/health/live", "/auth/polar/health/ready"} {
		for _, method := range []string{http.MethodGet, http.MethodHead} {
			if r := s.do(t, method, "app", path).wants(t, http.StatusOK); r.body != "" || r.header.Get("Cache-Control") != "no-store" {
				t.Errorf("%s %s: %v", method, path, r)
			}
		}
	}
	s.load(t, s.caddyfile(usual, s.site(t, "app", "polar\nrespond app"))).wants(t, http.StatusOK)
	s.get(t, "app", "/auth/polar/health/ready").wants(t, http.StatusNotFound)
}

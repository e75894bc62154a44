package integration

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// hook is an app that is told of changes, and verifies what it hears with the public
// library.
type hook struct {
	url string

	mu     sync.Mutex
	down   bool
	heard  []string // user and status, in order
	ids    map[string]int
	forged int
}

const (
	newNotifySecret = "whsec_bmV3LW5ldy1uZXctbmV3LW5ldy1uZXctbmV3LW5ldyE="
	oldNotifySecret = "whsec_b2xkLW9sZC1vbGQtb2xkLW9sZC1vbGQtb2xkLW9sZCE="
)

func newHook(t *testing.T) *hook {
	t.Helper()
	verifier, err := standardwebhooks.NewWebhook(oldNotifySecret)
	if err != nil {
		t.Fatal(err)
	}
	h := &hook{ids: make(map[string]int)}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		h.mu.Lock()
		defer h.mu.Unlock()
		if verifier.Verify(body, r.Header) != nil {
			h.forged++
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		if h.down {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		var said struct {
			Type string
			Data struct{ User, Status string }
		}
		if json.Unmarshal(body, &said) != nil || said.Type != "subscription.changed" {
			h.forged++
		}
		if h.ids[r.Header.Get("Webhook-Id")]++; h.ids[r.Header.Get("Webhook-Id")] == 1 {
			h.heard = append(h.heard, said.Data.User+" "+said.Data.Status)
		}
	}))
	t.Cleanup(server.Close)
	h.url = server.URL + "/hooks/polar?key=CANARY-hook"
	return h
}

func (h *hook) has(lines ...string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.forged == 0 && slices.Equal(h.heard, lines)
}

func (h *hook) goDown(down bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.down = down
}

// TestNotifyAfterACrash: what was answered with 200 is told to the app, in order, however
// often the process is killed before it could be, and while a secret is changed.
func TestNotifyAfterACrash(t *testing.T) {
	t.Parallel()
	s, app := newServer(t), newHook(t)
	s.env["NOTIFY_URL"], s.env["NOTIFY_OLD"], s.env["NOTIFY_NEW"] = app.url, oldNotifySecret, newNotifySecret
	config := s.caddyfile(strings.Replace(usual, "polar {", "polar {\n\t\tnotify {env.NOTIFY_URL} {env.NOTIFY_NEW} {env.NOTIFY_OLD}", 1), s.paywall(t, "app"))
	s.start(t, config)
	u := newSubscriber(productPro)
	s.deliver(t, "app", u.active(t))
	waitFor(t, "the first message", func() bool { return app.has(u.user + " active") })

	app.goDown(true)
	var told []string
	for _, status := range []string{"past_due", "active", "past_due"} {
		body := u.event(t, "subscription."+status, object{"past_due_at": wire(now.Add(-day))})
		if status == "active" {
			body = u.active(t)
		}
		r := s.webhook(t, "app", body)
		s.kill()
		r.wants(t, http.StatusOK)
		told = append(told, u.user+" "+status)
		s.start(t, config)
	}
	waitFor(t, "status to tell of what waits", func() bool {
		out, err := s.command("polar", "status", "--address", s.admin)
		return err == nil && strings.Contains(out, "waiting") && strings.Contains(out, "the app answered 500") && !strings.Contains(out, "CANARY")
	})
	app.goDown(false)
	if out, err := s.command("polar", "notify", "resend", "--address", s.admin); err != nil || !strings.Contains(out, "to be sent now") {
		t.Error(out, err)
	}
	waitFor(t, "all messages", func() bool { return app.has(append([]string{u.user + " active"}, told...)...) })
	if log := s.logs(); strings.Contains(log, "CANARY") || strings.Contains(log, "whsec_") {
		t.Error("the log tells what is secret")
	}
}

package caddypolar

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-polar/caddy-polar/identity"
)

// sessionEndpoint is a stand-in for an app's: it names the user in the cookie s.
func sessionEndpoint(t testing.TB) (url string, asked *atomic.Int64) {
	t.Helper()
	asked = new(atomic.Int64)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		w.Header().Set("Content-Type", "application/json")
		if c, err := r.Cookie("s"); err == nil && c.Value != "gone" {
			_, _ = fmt.Fprintf(w, `{"user":{"id":%q}}`, c.Value)
			return
		}
		_, _ = fmt.Fprint(w, "null")
	}))
	t.Cleanup(server.Close)
	return server.URL, asked
}

func withCookie(t testing.TB, cookie string) *http.Request {
	t.Helper()
	r := mustRequest(t, "http://localhost/x")
	r.Header.Set("Cookie", cookie)
	return r
}

// TestSessionIsAskedOnce: several handlers ask about one request, and the app is
// asked once, also about a stranger whom a gate refuses.
func TestSessionIsAskedOnce(t *testing.T) {
	url, asked := sessionEndpoint(t)
	_, ctx := provisioned(t, "plan pro "+testProduct+"\nsession "+url+" {\ncookies s\n}")
	for cookie, want := range map[string]int{"s=ada": http.StatusPaymentRequired, "s=gone": http.StatusUnauthorized} {
		before := asked.Load()
		seen, w, err := chain(t, ctx, withCookie(t, cookie), &Handler{}, &Gate{Plans: []string{"pro"}})
		if code := w.(*httptest.ResponseRecorder).Code; err != nil || seen != nil || code != want {
			t.Errorf("%s: %v, %d, want %d", cookie, err, code, want)
		}
		if n := asked.Load() - before; n != 1 {
			t.Errorf("%s: the app was asked %d times", cookie, n)
		}
	}
	// What was found out about a stranger on another request is enough to pass, and
	// not enough to refuse.
	before := asked.Load()
	if _, _, err := chain(t, ctx, withCookie(t, "s=gone"), &Handler{}); err != nil || asked.Load() != before {
		t.Errorf("%v, the app was asked %d times", err, asked.Load()-before)
	}
	if _, _, err := chain(t, ctx, withCookie(t, "s=gone"), &Handler{}, &Gate{Plans: []string{"pro"}}); err != nil || asked.Load() != before+1 {
		t.Errorf("%v, the app was asked %d times", err, asked.Load()-before)
	}
}

// TestNoRefusalRestsOnNoAnswer: a page that goes without the app's answer for a moment
// does not make a gate behind it refuse.
func TestNoRefusalRestsOnNoAnswer(t *testing.T) {
	var down atomic.Bool
	down.Store(true)
	var asked atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		if down.Load() {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprint(w, `{"user":{"id":"ada"}}`)
	}))
	t.Cleanup(server.Close)
	_, ctx := provisioned(t, "plan pro "+testProduct+"\nsession "+server.URL+" {\ncookies s\n}")
	steps := []struct {
		gate      bool
		code      int
		questions int64
	}{
		{false, 0, 1}, {false, 0, 0}, {true, http.StatusServiceUnavailable, 1}, {false, 0, 0}, {true, http.StatusPaymentRequired, 1},
	}
	for i, step := range steps {
		down.Store(i < len(steps)-1)
		before, handlers := asked.Load(), []caddyhttp.MiddlewareHandler{&Handler{}}
		if step.gate {
			handlers = append(handlers, &Gate{Plans: []string{"pro"}})
		}
		seen, w, err := chain(t, ctx, withCookie(t, "s=ada"), handlers...)
		if code := w.(*httptest.ResponseRecorder).Code; err != nil || (seen == nil) != step.gate || step.gate && code != step.code {
			t.Errorf("step %d: %v, %d, want %d", i, err, code, step.code)
		}
		if n := asked.Load() - before; n != step.questions {
			t.Errorf("step %d: the app was asked %d times, want %d", i, n, step.questions)
		}
	}
}

// TestUserIsNotOurs: what we make known as {http.auth.user.id} ourselves is no other
// module's word, and goes on being known.
func TestUserIsNotOurs(t *testing.T) {
	r := prepared(mustRequest(t, "http://localhost/x"), newRecorder())
	s := stateOf(r)
	s.last = &visit{identified: true, identity: &identity.Identity{User: "ours"}}
	repl := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	id, err := authenticated("http.auth.user.id").identify(r, r.Header, time.Now(), true)
	if !errors.Is(err, identity.ErrMissing) {
		t.Errorf("%+v, %v", id, err)
	}
	if user, _ := repl.GetString("http.auth.user.id"); user != "ours" {
		t.Errorf("then it is %q", user)
	}
	repl.Set("http.auth.user.id", "theirs")
	if id, err = authenticated("http.auth.user.id").identify(r, r.Header, time.Now(), true); err != nil || id.User != "theirs" {
		t.Errorf("%+v, %v", id, err)
	}
}

// BenchmarkSession is what a remembered session costs, all told.
func BenchmarkSession(b *testing.B) {
	url, _ := sessionEndpoint(b)
	app, _ := provisioned(b, "session "+url+" {\ncookies s __Secure-s\n}")
	r := prepared(withCookie(b, "theme=dark; _ga=GA1.1.1234567890.1234567890; s=ada; lang=fr"), newRecorder())
	way := app.Gateways["default"].identifiers[1]
	now := time.Now()
	b.ReportAllocs()
	for b.Loop() {
		if id, err := way.identify(r, r.Header, now, true); err != nil || id.User != "ada" {
			b.Fatal(id, err)
		}
	}
}

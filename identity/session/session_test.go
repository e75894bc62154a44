package session

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/caddy-polar/caddy-polar/identity"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var now = time.Date(2026, 10, 1, 12, 0, 0, 0, time.UTC)

// app is a stand-in for an app: its sessions, and what it was asked.
type app struct {
	*httptest.Server
	asked atomic.Int64

	mu       sync.Mutex
	sessions map[string]string // the user's id by cookie s
	serve    http.HandlerFunc  // in place of all that, if set
	last     http.Header
}

func newApp(t testing.TB) *app {
	t.Helper()
	a := &app{sessions: make(map[string]string)}
	a.Server = httptest.NewServer(a)
	t.Cleanup(a.Close)
	return a
}

func (a *app) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.asked.Add(1)
	a.mu.Lock()
	a.last = r.Header.Clone()
	serve := a.serve
	user := ""
	if c, err := r.Cookie("s"); err == nil {
		user = a.sessions[c.Value]
	}
	a.mu.Unlock()
	if serve != nil {
		serve(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if user == "" {
		_, _ = io.WriteString(w, "null")
		return
	}
	_, _ = fmt.Fprintf(w, `{"session":{},"user":{"id":%q,"email":"%s@example.org","emailVerified":true}}`, user, user)
}

// sign signs a user in, or out with "".
func (a *app) sign(cookie, user string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.sessions[cookie] = user
}

// answers makes the app answer every question in one way.
func (a *app) answers(serve http.HandlerFunc) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.serve = serve
}

func (a *app) heard() http.Header {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.last
}

// wants waits until the app has been asked n times in all, and not once more.
func (a *app) wants(t *testing.T, n int64) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); a.asked.Load() < n && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	if got := a.asked.Load(); got != n {
		t.Fatalf("the app was asked %d times, want %d", got, n)
	}
}

func newAsker(t testing.TB, c Config) *Asker {
	t.Helper()
	if c.Cookies == nil {
		c.Cookies = []string{"s"}
	}
	a, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	return a
}

// request is one with some cookies, some time after now.
func request(cookies string, after time.Duration) Request {
	return Request{Header: http.Header{"Cookie": {cookies}}, Scheme: "https", Host: "app.example", Now: now.Add(after)}
}

func sure(r Request) Request {
	r.Sure = true
	return r
}

// want checks who is found: a user, or an error.
func want(t *testing.T, a *Asker, r Request, user string, wanted error) identity.Identity {
	t.Helper()
	id, err := a.Identify(context.Background(), r)
	if id.User != user || !errors.Is(err, wanted) {
		t.Fatalf("got %q, %v, want %q, %v", id.User, err, user, wanted)
	}
	if err != nil && id != (identity.Identity{}) {
		t.Fatalf("an error comes with %+v", id)
	}
	return id
}

// settled waits until no question is under way.
func (a *Asker) settled(t *testing.T) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); len(a.strangers.places)+len(a.familiar.places) > 0; {
		if time.Now().After(deadline) {
			t.Fatal("questions do not end")
		}
		time.Sleep(time.Millisecond)
	}
	time.Sleep(2 * time.Millisecond) // the last one remembers what it heard
}

func TestQuestion(t *testing.T) {
	app := newApp(t)
	app.sign("one", "ada")
	a := newAsker(t, Config{URL: app.URL + "/me?disableRefresh=true", Cookies: []string{"s", "auth.token*"}})
	r := request("theme=dark; s=one;auth.token.0=x ; s2=two; auth.toke=y; auth.token.1=\"z\"", 0)
	r.Header.Add("Cookie", "lang=fr; auth.token.2=")
	r.Header.Set("Authorization", "Basic dTpw")
	r.Header.Set("X-Secret", "x")
	id := want(t, a, r, "ada", nil)
	if id.Source.Cookie == "" || id.Email != "ada@example.org" || !id.EmailVerified {
		t.Errorf("found %+v", id)
	}
	for name, wanted := range map[string]string{
		"Cookie": `s=one; auth.token.0=x; auth.token.1="z"`, "Accept": "application/json", "Authorization": "", "X-Secret": "",
		"X-Forwarded-Host": "app.example", "X-Forwarded-Proto": "https", "Accept-Encoding": "",
	} {
		if got := app.heard().Get(name); got != wanted {
			t.Errorf("%s: the app was sent %q, want %q", name, got, wanted)
		}
	}
	if len(app.heard()) != 6 {
		t.Errorf("the app was sent more than it needs: %v", app.heard())
	}
	if question, ours := Marked(app.heard()); !question || !ours {
		t.Error("the question is not marked")
	}
	if question, _ := Marked(http.Header{}); question {
		t.Error("every request counts as a question")
	}
	for _, forged := range []http.Header{
		{MarkHeader: {}}, {MarkHeader: {""}}, {MarkHeader: {"x"}}, {MarkHeader: {mark, mark}}, {MarkHeader: {mark[1:]}}, {MarkHeader: {mark + " "}},
	} {
		if question, ours := Marked(forged); !question || ours {
			t.Errorf("%v: a question: %v, and ours: %v", forged, question, ours)
		}
	}
}

func TestNoQuestion(t *testing.T) {
	app := newApp(t)
	a := newAsker(t, Config{URL: app.URL, Cookies: []string{"s", "auth*"}})
	many := ""
	for i := range maxCookies + 1 {
		many += fmt.Sprintf("auth%d=x; ", i)
	}
	for cookies, wanted := range map[string]error{
		"": identity.ErrMissing, "other=1": identity.ErrMissing, "s": identity.ErrMissing, "s=": identity.ErrMissing,
		`s=""`: identity.ErrMissing, "S=one": identity.ErrMissing, "=s": identity.ErrMissing, "s1=1": identity.ErrMissing,
		"s=one; s=two": identity.ErrInvalid, "s=one; s =two": identity.ErrInvalid,
		"s=" + strings.Repeat("x", maxCookieBytes): identity.ErrInvalid, many: identity.ErrInvalid,
	} {
		want(t, a, request(cookies, 0), "", wanted)
	}
	app.wants(t, 0)
}

func TestAnswers(t *testing.T) {
	app := newApp(t)
	var reported atomic.Value
	c := Config{URL: app.URL, Timeout: time.Second, UserPrefix: "app:", Report: func(err error) { reported.Store(err.Error()) }}
	answer := func(status int, kind, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", kind)
			w.Header().Set("Location", "/login")
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		}
	}
	const kind = "application/json"
	release := make(chan struct{})
	for name, test := range map[string]struct {
		serve  http.HandlerFunc
		user   string
		err    error
		report string // in what is reported
	}{
		"a user":               {answer(200, kind, `{"user":{"id":"ada"}}`), "app:ada", nil, ""},
		"with a charset":       {answer(200, kind+"; charset=utf-8", ` {"user":{"id":"ada"}} `), "app:ada", nil, ""},
		"another JSON":         {answer(200, "application/problem+json", `{"user":{"id":"ada"}}`), "app:ada", nil, ""},
		"an integer":           {answer(200, kind, `{"user":{"id":9007199254740993}}`), "app:9007199254740993", nil, ""},
		"null":                 {answer(200, kind, "null"), "", identity.ErrMissing, ""},
		"an empty object":      {answer(200, kind, "{}"), "", identity.ErrMissing, ""},
		"a null user":          {answer(200, kind, `{"user":null}`), "", identity.ErrMissing, ""},
		"an empty user":        {answer(200, kind, `{"user":{}}`), "", identity.ErrMissing, ""},
		"a null user and more": {answer(200, kind, `{"user":null,"error":null,"errors":[],"x":1}`), "", identity.ErrMissing, ""},
		"no error":             {answer(200, kind, `{"user":null,"error":false}`), "", identity.ErrMissing, ""},
		"a user and an error":  {answer(200, kind, `{"user":{"id":"ada"},"error":"x"}`), "app:ada", nil, ""},
		"a whole path":         {answer(200, kind, `{"user.id":null}`), "", identity.ErrMissing, ""},
		"an error":             {answer(200, kind, `{"error":"ada"}`), "", identity.ErrUnavailable, "tells of an error"},
		"an error beside it":   {answer(200, kind, `{"user":null,"error":{"code":"ada"}}`), "", identity.ErrUnavailable, "tells of an error"},
		"a true error":         {answer(200, kind, `{"user":null,"error":true}`), "", identity.ErrUnavailable, "tells of an error"},
		"errors":               {answer(200, kind, `{"user":null,"errors":[{"message":"ada"}]}`), "", identity.ErrUnavailable, "tells of an error"},
		"something else":       {answer(200, kind, `{"message":"ada","code":500}`), "", identity.ErrUnavailable, "tells of an error"},
		"a user without an id": {answer(200, kind, `{"user":{"name":"Ada"},"expires":"x"}`), "", identity.ErrMissing, "user_path"},
		"a null id":            {answer(200, kind, `{"user":{"id":null,"name":"Ada"}}`), "", identity.ErrMissing, "user_path"},
		"no content":           {answer(204, kind, ""), "", identity.ErrMissing, ""},
		"401":                  {answer(401, "text/html", "<html>"), "", identity.ErrMissing, ""},
		"403":                  {answer(403, kind, "{}"), "", identity.ErrMissing, ""},
		"to the login, 302":    {answer(302, "text/html", ""), "", identity.ErrMissing, ""},
		"to the login, 303":    {answer(303, "text/html", ""), "", identity.ErrMissing, ""},
		"to the login, 307":    {answer(307, "text/html", ""), "", identity.ErrMissing, ""},
		"moved, 301":           {answer(301, "text/html", ""), "", identity.ErrUnavailable, "moved"},
		"moved, 308":           {answer(308, "text/html", ""), "", identity.ErrUnavailable, "moved"},
		"an empty id":          {answer(200, kind, `{"user":{"id":""}}`), "", identity.ErrInvalid, ""},
		"an object":            {answer(200, kind, `{"user":{"id":{"a":1}}}`), "", identity.ErrInvalid, ""},
		"a fraction":           {answer(200, kind, `{"user":{"id":1.5}}`), "", identity.ErrInvalid, ""},
		"a control character":  {answer(200, kind, `{"user":{"id":"a\nb"}}`), "", identity.ErrInvalid, ""},
		"not UTF-8":            {answer(200, kind, "{\"user\":{\"id\":\"a\xff\"}}"), "", identity.ErrInvalid, ""},
		"too long a user":      {answer(200, kind, `{"user":{"id":"`+strings.Repeat("u", 252)+`"}}`), "", identity.ErrInvalid, ""},
		"an error page":        {answer(200, "text/html", "<html>"), "", identity.ErrUnavailable, "not JSON"},
		"a page that lies":     {answer(200, kind, "<html>"), "", identity.ErrUnavailable, "not JSON"},
		"JSON with no type":    {answer(200, "", `{"user":{"id":"ada"}}`), "", identity.ErrUnavailable, "not JSON"},
		"JSON and more":        {answer(200, kind, `{"user":{"id":"ada"}}{}`), "", identity.ErrUnavailable, "not JSON"},
		"half of it":           {answer(200, kind, `{"user":{"id":"ada"`), "", identity.ErrUnavailable, "not JSON"},
		"nothing":              {answer(200, kind, ""), "", identity.ErrUnavailable, "not JSON"},
		"a list":               {answer(200, kind, `["ada"]`), "", identity.ErrUnavailable, "neither"},
		"false":                {answer(200, kind, `false`), "", identity.ErrUnavailable, "neither"},
		"huge":                 {answer(200, kind, `{"user":{"id":"ada"},"x":"`+strings.Repeat("x", maxAnswer)+`"}`), "", identity.ErrUnavailable, "256"},
		"404":                  {answer(404, kind, "{}"), "", identity.ErrUnavailable, "404"},
		"429":                  {answer(429, kind, "{}"), "", identity.ErrUnavailable, "429"},
		"500":                  {answer(500, kind, "{}"), "", identity.ErrUnavailable, "500"},
		"503":                  {answer(503, "text/html", ""), "", identity.ErrUnavailable, "503"},
		"hangs": {func(_ http.ResponseWriter, r *http.Request) {
			select {
			case <-release:
			case <-r.Context().Done():
			}
		}, "", identity.ErrUnavailable, "in time"},
		"hangs in the middle": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", kind)
			_, _ = io.WriteString(w, `{"user":{"id":"ada"`)
			_ = http.NewResponseController(w).Flush()
			select {
			case <-release:
			case <-r.Context().Done():
			}
		}, "", identity.ErrUnavailable, "in time"},
		"endless": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", kind)
			for err := error(nil); err == nil; {
				_, err = io.WriteString(w, strings.Repeat(" ", 32<<10))
			}
		}, "", identity.ErrUnavailable, "256"},
		"breaks off": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "", identity.ErrUnavailable, "breaks off"},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAsker(t, c)
			app.answers(test.serve)
			reported.Store("")
			started := time.Now()
			want(t, a, request("s=one", 0), test.user, test.err)
			if time.Since(started) > 5*time.Second {
				t.Error("the time-out does not hold")
			}
			told := fmt.Sprint(reported.Load())
			if (told == "") != (test.report == "") || !strings.Contains(told, test.report) {
				t.Errorf("reported %q, want %q", told, test.report)
			}
			if strings.Contains(told, "ada") || strings.Contains(told, "one") {
				t.Errorf("the report tells of the visitor: %q", told)
			}
		})
	}
	close(release)
}

func TestNobodyListens(t *testing.T) {
	app := newApp(t)
	a := newAsker(t, Config{URL: app.URL})
	app.Close()
	want(t, a, request("s=one", 0), "", identity.ErrUnavailable)
}

func TestRemembered(t *testing.T) {
	app := newApp(t)
	app.sign("one", "ada")
	a := newAsker(t, Config{URL: app.URL})
	for _, after := range []time.Duration{0, time.Second, 29 * time.Second, -10 * time.Second} {
		want(t, a, sure(request("s=one", after)), "ada", nil)
	}
	app.wants(t, 1)
	// What else is in the request does not matter, what we ask with does.
	want(t, a, request("x=y; s=one", 0), "ada", nil)
	app.wants(t, 1)
	other := request("s=one", 0)
	other.Host = "other.example"
	want(t, a, other, "ada", nil)
	app.wants(t, 2)
	// The clock was set back: nobody knows how old the answer is.
	want(t, a, request("s=one", -time.Hour), "ada", nil)
	app.wants(t, 3)
}

// TestSwapped checks that nobody becomes somebody else, however cookies are mixed.
func TestSwapped(t *testing.T) {
	app := newApp(t)
	app.answers(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		one, _ := r.Cookie("s.0")
		two, _ := r.Cookie("s.1")
		_, _ = fmt.Fprintf(w, `{"user":{"id":"%s+%s"}}`, one.Value, two.Value)
	})
	a := newAsker(t, Config{URL: app.URL, Cookies: []string{"s.*"}})
	var all sync.WaitGroup
	for i := range 400 {
		all.Go(func() {
			one, two := fmt.Sprint(i%5), fmt.Sprint(i/5%5)
			after := time.Duration(i%7) * 10 * time.Second
			id, err := a.Identify(context.Background(), request("s.0="+one+"; s.1="+two, after))
			if err != nil || id.User != one+"+"+two {
				t.Errorf("%s, %s: %q, %v", one, two, id.User, err)
			}
		})
	}
	all.Wait()
	a.settled(t)
}

func TestStaleWhileRevalidating(t *testing.T) {
	app := newApp(t)
	app.sign("one", "ada")
	a := newAsker(t, Config{URL: app.URL})
	want(t, a, request("s=one", 0), "ada", nil)

	// Many come at once, and one question is asked, for which nobody waits.
	release := make(chan struct{})
	app.answers(func(http.ResponseWriter, *http.Request) { <-release })
	for range 50 {
		want(t, a, request("s=one", 30*time.Second), "ada", nil)
	}
	app.wants(t, 2)
	app.answers(nil)
	close(release) // that one ends without an answer
	a.settled(t)
	for range 50 {
		want(t, a, request("s=one", 31*time.Second), "ada", nil)
	}
	app.wants(t, 2) // not before the time-out is over
	want(t, a, request("s=one", 32*time.Second), "ada", nil)
	app.wants(t, 3)
	a.settled(t)
	want(t, a, request("s=one", 61*time.Second), "ada", nil) // as fresh as 32 s
	app.wants(t, 3)
}

func TestSignOut(t *testing.T) {
	app := newApp(t)
	app.sign("one", "ada")
	a := newAsker(t, Config{URL: app.URL, Cache: time.Minute})
	want(t, a, request("s=one", 0), "ada", nil)
	app.sign("one", "")
	want(t, a, request("s=one", 59*time.Second), "ada", nil)
	want(t, a, request("s=one", 60*time.Second), "ada", nil) // and is asked about
	app.wants(t, 2)
	a.settled(t)
	want(t, a, request("s=one", 60*time.Second), "", identity.ErrMissing)
	app.wants(t, 2)

	// Nobody came in between: then never longer than twice the time.
	app.sign("two", "bob")
	want(t, a, request("s=two", 0), "bob", nil)
	app.sign("two", "")
	want(t, a, request("s=two", 2*time.Minute), "", identity.ErrMissing)
	want(t, a, request("s=two", 2*time.Minute), "", identity.ErrMissing)
	app.wants(t, 4)
}

func TestAppIsDown(t *testing.T) {
	app := newApp(t)
	app.sign("one", "ada")
	a := newAsker(t, Config{URL: app.URL})
	want(t, a, request("s=one", 0), "ada", nil)
	app.answers(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
	for after := range 60 {
		want(t, a, request("s=one", time.Duration(after)*time.Second), "ada", nil)
		a.settled(t)
	}
	app.wants(t, 16) // once each two seconds
	want(t, a, request("s=one", time.Minute), "", identity.ErrUnavailable)
	want(t, a, request("s=one", time.Hour), "", identity.ErrUnavailable)
	app.answers(nil)
	want(t, a, sure(request("s=one", time.Hour+1)), "ada", nil)
}

// TestFirewall: a 403 is a stranger's, and takes nothing from who was known.
func TestFirewall(t *testing.T) {
	app := newApp(t)
	app.sign("one", "ada")
	a := newAsker(t, Config{URL: app.URL})
	want(t, a, request("s=one", 0), "ada", nil)
	app.answers(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) })
	for _, after := range []time.Duration{30, 31, 40, 59} {
		want(t, a, sure(request("s=one", after*time.Second)), "ada", nil)
		a.settled(t)
	}
	app.wants(t, 4)
	want(t, a, sure(request("s=one", time.Minute)), "", identity.ErrMissing)
	want(t, a, sure(request("s=two", 0)), "", identity.ErrMissing)
}

// bubble is an Asker whose app answers within the process, so that it can run in
// synctest's time.
func bubble(t *testing.T, c Config, app http.Handler) *Asker {
	t.Helper()
	c.URL = "http://app.example/me"
	a := newAsker(t, c)
	a.transport.RegisterProtocol("http", roundTripper(func(r *http.Request) (*http.Response, error) {
		w := httptest.NewRecorder()
		app.ServeHTTP(w, r)
		return w.Result(), r.Context().Err()
	}))
	return a
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// slowApp names everybody after some time.
func slowApp(after time.Duration) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-time.After(after):
		case <-r.Context().Done():
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"user":{"id":"ada"}}`)
	}
}

// crowd asks about n sessions at once. It says how many are known, and are not.
func crowd(t *testing.T, a *Asker, n int) (known, unknown int64) {
	t.Helper()
	var all sync.WaitGroup
	var k, u atomic.Int64
	for i := range n {
		all.Go(func() {
			r := request(fmt.Sprint("s=", i), 0)
			switch _, err := a.Identify(t.Context(), sure(r)); {
			case err == nil:
				k.Add(1)
			case errors.Is(err, identity.ErrUnavailable):
				u.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	all.Wait()
	return k.Load(), u.Load()
}

// TestCrowd: many signed-in visitors come at once, as after a reload, and wait for
// their turn.
func TestCrowd(t *testing.T) {
	for name, test := range map[string]struct {
		visitors, known int64
		after, took     time.Duration
	}{
		"after a reload":      {300, 300, 100 * time.Millisecond, 500 * time.Millisecond},
		"one alone":           {1, 1, 1900 * time.Millisecond, 1900 * time.Millisecond},
		"twice as many":       {2 * maxQuestions, 2 * maxQuestions, 1900 * time.Millisecond, 3800 * time.Millisecond},
		"too late for a turn": {3 * maxQuestions, 2 * maxQuestions, 1500 * time.Millisecond, 3 * time.Second},
		"too many":            {maxQuestions + maxWaiting + 100, maxQuestions + maxWaiting, 10 * time.Millisecond, 650 * time.Millisecond},
		"no answer":           {maxQuestions + 1, 0, time.Hour, 4 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := bubble(t, Config{}, slowApp(test.after))
				began := time.Now()
				known, unknown := crowd(t, a, int(test.visitors))
				if known != test.known || unknown != test.visitors-test.known {
					t.Errorf("%d are known, %d are not, want %d of %d", known, unknown, test.known, test.visitors)
				}
				if took := time.Since(began); took > test.took {
					t.Errorf("it took %v, want at most %v", took, test.took)
				}
				if len(a.strangers.places)+len(a.strangers.waiting) != 0 {
					t.Error("places are not given back")
				}
			})
		})
	}
}

// TestNoAnswerIsRemembered: pages without a gate wait once for an app that hangs, and
// no refusal rests on that.
func TestNoAnswerIsRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		hangs := true
		a := bubble(t, Config{}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked.Add(1)
			if hangs {
				<-r.Context().Done()
				return
			}
			slowApp(0)(w, r)
		}))
		began := time.Now()
		ask := func(how func(Request) Request, user string, wanted error, took time.Duration, questions int64) {
			t.Helper()
			before, from := asked.Load(), time.Now()
			r := how(request("s=one", 0))
			r.Now = now.Add(from.Sub(began))
			want(t, a, r, user, wanted)
			if got := time.Since(from); got != took || asked.Load()-before != questions {
				t.Errorf("%v, %d questions, want %v and %d", got, asked.Load()-before, took, questions)
			}
		}
		page := func(r Request) Request { return r }
		ask(page, "", identity.ErrUnavailable, 2*time.Second, 1)
		for range 4 {
			ask(page, "", identity.ErrUnavailable, 0, 0)
			time.Sleep(499 * time.Millisecond)
		}
		ask(sure, "", identity.ErrUnavailable, 2*time.Second, 1)
		time.Sleep(failedCache)
		ask(page, "", identity.ErrUnavailable, 2*time.Second, 1)
		// For the same request it is not asked again.
		r := request("s=two", 0)
		want(t, a, r, "", identity.ErrUnavailable)
		before := asked.Load()
		want(t, a, sure(r), "", identity.ErrUnavailable)
		if asked.Load() != before {
			t.Error("one request asks twice")
		}
		// The app is back: whoever would be refused asks, and all know it.
		hangs = false
		ask(sure, "ada", nil, 0, 1)
		ask(page, "ada", nil, 0, 0)
	})
}

// TestKnownAgain: what was remembered of a stranger does not outlive what came after.
func TestKnownAgain(t *testing.T) {
	app := newApp(t)
	a := newAsker(t, Config{URL: app.URL, Cache: time.Second})
	want(t, a, request("s=one", 0), "", identity.ErrMissing)
	app.sign("one", "ada")
	want(t, a, sure(request("s=one", time.Second)), "ada", nil)
	want(t, a, request("s=one", 4*time.Second), "ada", nil)
}

// TestErrorsQuoteNothing: what goes wrong is told by its kind, and never in the words
// of what came.
func TestErrorsQuoteNothing(t *testing.T) {
	listen := func(serve func(net.Conn)) string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		var all sync.WaitGroup
		all.Go(func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				all.Go(func() {
					defer c.Close()
					serve(c)
				})
			}
		})
		t.Cleanup(func() {
			l.Close()
			all.Wait()
		})
		return l.Addr().String()
	}
	says := func(answer string) string {
		return "http://" + listen(func(c net.Conn) {
			if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
				_, _ = io.WriteString(c, answer)
			}
		})
	}
	const ok = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
	selfSigned := httptest.NewUnstartedServer(http.NotFoundHandler())
	selfSigned.Config.ErrorLog = log.New(io.Discard, "", 0)
	selfSigned.StartTLS()
	t.Cleanup(selfSigned.Close)
	for name, test := range map[string]struct {
		url  string
		want error
	}{
		"a cookie's line":         {says("HTTP/1.1 200 OK\r\nSet-Cookie session=SECRET\r\n\r\n"), errNotHTTP},
		"another line":            {says("HTTP/1.1 200 OK\r\nX-User ada@example.com SECRET\r\n\r\n"), errNotHTTP},
		"no HTTP":                 {says("SECRET ada@example.com\r\n\r\n"), errNotHTTP},
		"a length":                {says("HTTP/1.1 200 OK\r\nContent-Length: SECRET\r\n\r\n"), errNotHTTP},
		"an encoding":             {says("HTTP/1.1 200 OK\r\nTransfer-Encoding: SECRET\r\n\r\n"), errNotHTTP},
		"a status":                {says("HTTP/1.1 SECRET\r\n\r\n"), errNotHTTP},
		"chunks":                  {says(ok + "Transfer-Encoding: chunked\r\n\r\nSECRET\r\n"), errNotHTTP},
		"too short":               {says(ok + "Content-Length: 100\r\n\r\n{SECRET"), errBroken},
		"nothing":                 {says(""), errBroken},
		"refused":                 {"http://" + freeAddress(t), errRefused},
		"no such name":            {"http://SECRET.invalid/", errDNS},
		"an untrusted TLS":        {selfSigned.URL, errTLS},
		"no TLS":                  {strings.Replace(says("HTTP/1.1 200 SECRET\r\n\r\n"), "http", "https", 1), nil},
		"clear text to TLS alone": {strings.Replace(selfSigned.URL, "https", "http", 1), nil},
	} {
		t.Run(name, func(t *testing.T) {
			var reported error
			a := newAsker(t, Config{URL: test.url, Report: func(err error) { reported = err }})
			_, err := a.Identify(t.Context(), request("s=one", 0))
			if !errors.Is(err, identity.ErrUnavailable) || reported != err || test.want != nil && err != test.want {
				t.Errorf("%v, reported %v, want %v", err, reported, test.want)
			}
			if text := strings.ToLower(fmt.Sprint(err)); strings.Contains(text, "secret") || strings.Contains(text, "ada") {
				t.Errorf("the error quotes what came: %v", err)
			}
		})
	}
}

// freeAddress is one at which nobody listens.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestNobodyIsSignedIn(t *testing.T) {
	app := newApp(t)
	a := newAsker(t, Config{URL: app.URL})
	for _, after := range []time.Duration{0, time.Second, 4 * time.Second} {
		want(t, a, request("s=one", after), "", identity.ErrMissing)
	}
	app.wants(t, 1)
	want(t, a, request("s=one", 5*time.Second), "", identity.ErrMissing)
	app.wants(t, 2)
	// This request has just been asked about.
	want(t, a, sure(request("s=one", 5*time.Second)), "", identity.ErrMissing)
	app.wants(t, 2)
	// The user signs in, and the cookie stays: no refusal rests on what was before.
	app.sign("one", "ada")
	want(t, a, request("s=one", 6*time.Second), "", identity.ErrMissing)
	want(t, a, sure(request("s=one", 6*time.Second)), "ada", nil)
	want(t, a, request("s=one", 7*time.Second), "ada", nil)
	app.wants(t, 3)
}

func TestOneFlight(t *testing.T) {
	app := newApp(t)
	release := make(chan struct{})
	app.answers(func(w http.ResponseWriter, _ *http.Request) {
		<-release
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"user":{"id":"ada"}}`)
	})
	a := newAsker(t, Config{URL: app.URL})
	// Who asked first may leave.
	ctx, leave := context.WithCancel(context.Background())
	var all sync.WaitGroup
	all.Go(func() {
		if _, err := a.Identify(ctx, request("s=one", 0)); !errors.Is(err, identity.ErrUnavailable) {
			t.Errorf("who left was told %v", err)
		}
	})
	app.wants(t, 1)
	for range 100 {
		all.Go(func() {
			if id, err := a.Identify(context.Background(), request("s=one", 0)); id.User != "ada" {
				t.Errorf("%q, %v", id.User, err)
			}
		})
	}
	leave()
	time.Sleep(10 * time.Millisecond)
	close(release)
	all.Wait()
	app.wants(t, 1)
}

// TestFlood checks that strangers with random cookies can neither hammer the app
// nor keep those out who are known.
func TestFlood(t *testing.T) {
	app := newApp(t)
	app.sign("good", "ada")
	var reported atomic.Int64
	a := newAsker(t, Config{URL: app.URL, Timeout: 5 * time.Second, Report: func(error) { reported.Add(1) }})
	want(t, a, request("s=good", 0), "ada", nil)

	var open, most atomic.Int64
	release := make(chan struct{})
	app.answers(func(w http.ResponseWriter, r *http.Request) {
		if c, err := r.Cookie("s"); err == nil && c.Value == "good" {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, `{"user":{"id":"ada"}}`)
			return
		}
		n := open.Add(1)
		defer open.Add(-1)
		for {
			old := most.Load()
			if n <= old || most.CompareAndSwap(old, n) {
				break
			}
		}
		<-release
		w.WriteHeader(http.StatusUnauthorized)
	})
	var all sync.WaitGroup
	var busy atomic.Int64
	for i := range 2000 {
		all.Go(func() {
			_, err := a.Identify(context.Background(), request(fmt.Sprintf("s=random%d", i), 0))
			switch {
			case errors.Is(err, identity.ErrUnavailable):
				busy.Add(1)
			case !errors.Is(err, identity.ErrMissing):
				t.Errorf("a stranger is %v", err)
			}
		})
	}
	for deadline := time.Now().Add(5 * time.Second); len(a.strangers.waiting)+int(open.Load()) < 2000 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	// All lanes for strangers are taken, and who is known is asked about at once.
	want(t, a, request("s=good", time.Minute), "ada", nil)
	close(release)
	all.Wait()
	if busy.Load() != 0 || most.Load() != maxQuestions || reported.Load() != 0 {
		t.Errorf("%d were turned away, %d questions at once, %d reports", busy.Load(), most.Load(), reported.Load())
	}
	// Ten times as many as can be remembered come by, and the good one stays.
	asked := app.asked.Load()
	for i := range 10 * maxNobody / entryOverhead {
		a.memory.remember(digest{byte(i), byte(i >> 8), byte(i >> 16), 1}, answer{err: identity.ErrMissing, asked: now}, time.Second)
	}
	a.memory.nobody.CleanUp()
	if n := a.memory.nobody.EstimatedSize(); n > maxNobody/entryOverhead {
		t.Errorf("%d strangers are remembered", n)
	}
	want(t, a, request("s=good", time.Minute), "ada", nil)
	app.wants(t, asked)
}

func TestConfig(t *testing.T) {
	good := Config{URL: "http://localhost:3000/me", Cookies: []string{"s"}}
	if err := good.Check(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Config){
		"no address":         func(c *Config) { c.URL = "" },
		"relative":           func(c *Config) { c.URL = "/api/me" },
		"another scheme":     func(c *Config) { c.URL = "unix:///x" },
		"a password":         func(c *Config) { c.URL = "http://u:p@localhost/" },
		"a fragment":         func(c *Config) { c.URL = "http://localhost/#x" },
		"no cookies":         func(c *Config) { c.Cookies = nil },
		"all cookies":        func(c *Config) { c.Cookies = []string{"*"} },
		"a star within":      func(c *Config) { c.Cookies = []string{"a*b"} },
		"two cookies in one": func(c *Config) { c.Cookies = []string{"a; b"} },
		"cache too short":    func(c *Config) { c.Cache = time.Millisecond },
		"cache too long":     func(c *Config) { c.Cache = time.Hour },
		"time-out too short": func(c *Config) { c.Timeout = 1 },
		"time-out too long":  func(c *Config) { c.Timeout = time.Minute },
		"an empty step":      func(c *Config) { c.UserPath = "user..id" },
		"a step before":      func(c *Config) { c.EmailPath = ".id" },
		"a bad prefix":       func(c *Config) { c.UserPrefix = "a\nb" },
	} {
		c := good
		change(&c)
		if err := c.Check(); !errors.Is(err, ErrConfig) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := New(c); !errors.Is(err, ErrConfig) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, body := range []string{
		`null`, `{}`, `[]`, `{"user":null}`, `{"user":{"id":"ada","email":"ada@example.org","emailVerified":true}}`,
		`{"user":{"id":42}}`, `{"user":{"id":1e3}}`, `{"user.id":"x"}`, `{"user":{"id":"a\u0000"}}`, `{"user":{"id":"`, "\xff", `{"user":[{"id":"x"}]}`,
	} {
		f.Add([]byte(body))
	}
	a, err := New(Config{URL: "http://localhost", Cookies: []string{"s"}, UserPrefix: "p:"})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(a.Close)
	f.Fuzz(func(t *testing.T, body []byte) {
		id, err := a.parse(body)
		kinds := 0
		for _, kind := range []error{identity.ErrMissing, identity.ErrInvalid, identity.ErrUnavailable} {
			if errors.Is(err, kind) {
				kinds++
			}
		}
		switch {
		case err == nil && (!identity.Usable(id.User) || len(id.User) <= 2 || !strings.HasPrefix(id.User, "p:") || id.Source.Cookie != "s"):
			t.Errorf("%+v", id)
		case err != nil && (kinds != 1 || id != (identity.Identity{})):
			t.Errorf("%v with %+v", err, id)
		}
	})
}

func FuzzCookies(f *testing.F) {
	f.Add("a=b; s=one; s.0=x", "s=two")
	f.Add(` s="one" ;;=;s`, "\x00s=\xff")
	a, err := New(Config{URL: "http://localhost", Cookies: []string{"s", "t*"}})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(a.Close)
	f.Fuzz(func(t *testing.T, one, two string) {
		d := newDigester([]byte("k"))
		r := Request{Header: http.Header{"Cookie": {one, two}}}
		if d.read(a.cookies, &r) != nil {
			return
		}
		asked := d.question(&r).cookies
		if len(asked) > maxCookieBytes+2*maxCookies {
			t.Error("too long")
		}
		// What is asked with holds the named cookies and nothing else, and is the same
		// when it is read again.
		again := Request{Header: http.Header{"Cookie": {asked}}}
		key := d.sum()
		if err := d.read(a.cookies, &again); err != nil || d.question(&again).cookies != asked || d.sum() != key {
			t.Errorf("%q is read as %q, %v", asked, d.question(&again).cookies, err)
		}
		for pair := range strings.SplitSeq(asked, "; ") {
			name, value, _ := strings.Cut(pair, "=")
			if name = strings.TrimRight(name, " \t"); value == "" || name != "s" && !strings.HasPrefix(name, "t") {
				t.Errorf("%q is asked with", pair)
			}
		}
	})
}

func BenchmarkIdentify(b *testing.B) {
	app := newApp(b)
	app.sign("one", "ada")
	a := newAsker(b, Config{URL: app.URL, Cookies: []string{"s", "__Secure-s"}})
	r := request("theme=dark; _ga=GA1.1.1234567890.1234567890; __Secure-s="+strings.Repeat("x", 100)+"; s=one; lang=fr", 0)
	b.ReportAllocs()
	for b.Loop() {
		if id, err := a.Identify(context.Background(), r); err != nil || id.User != "ada" {
			b.Fatal(id, err)
		}
	}
	if app.asked.Load() != 1 {
		b.Fatalf("asked %d times", app.asked.Load())
	}
}

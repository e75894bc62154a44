package integration

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// sessionApp is a stand-in for an app with sessions of its own. A cookie's value is
// the user's id, or says what goes wrong.
type sessionApp struct {
	*httptest.Server
	asked atomic.Int64
}

func newSessionApp(t *testing.T) *sessionApp {
	t.Helper()
	a := new(sessionApp)
	a.Server = httptest.NewServer(a)
	t.Cleanup(a.Close)
	return a
}

// ServeHTTP answers as better-auth does, and with /authjs as Auth.js does: that
// knows its secure cookie on HTTPS only, and splits what is long.
func (a *sessionApp) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.asked.Add(1)
	name, nobody, answer := "better-auth.session_token", "null", `{"session":{"token":"x"},"user":{"id":%q,"email":"e@example.org","emailVerified":true}}`
	if r.URL.Path == "/authjs" {
		name, nobody, answer = "__Secure-authjs.session-token.1", "{}", `{"user":{"name":"x","id":%q},"expires":"2999-01-01T00:00:00Z"}`
		if r.Header.Get("X-Forwarded-Proto") != "https" || r.Header.Get("X-Forwarded-Host") == "" {
			name = "authjs.session-token.1"
		}
	}
	user := ""
	if c, err := r.Cookie(name); err == nil {
		user = c.Value
	}
	w.Header().Set("Content-Type", "application/json")
	switch user {
	case "hang":
		<-r.Context().Done()
	case "page":
		w.Header().Set("Content-Type", "text/html")
		_, _ = io.WriteString(w, "<html>Something went wrong</html>")
	case "broken":
		w.WriteHeader(http.StatusInternalServerError)
	case "", "gone":
		_, _ = io.WriteString(w, nobody)
	default:
		_, _ = fmt.Fprintf(w, answer, user)
	}
}

const sessionCookie = "better-auth.session_token"

// signedIn asks with a session's cookie, among others.
func signedIn(user string) option {
	return header("Cookie", "theme=dark; "+sessionCookie+"="+user+"; lang=fr")
}

func TestSession(t *testing.T) {
	t.Parallel()
	s, app := newServer(t), newSessionApp(t)
	s.env["SESSION_URL"] = app.URL + "/api/auth/get-session?disableRefresh=true"
	const block = `
	polar {
		webhook_secret {env.POLAR_WEBHOOK_SECRET}
		jwt secret {env.JWT_SECRET}
		session {env.SESSION_URL} {
			cookies better-auth.session_token
			cookies __Secure-better-auth.session_token
			timeout 1s
		}
		plan pro {env.PRODUCT_PRO}
		plan basic {env.PRODUCT_BASIC}
	}
	polar authjs {
		webhook_secret {env.POLAR_WEBHOOK_SECRET}
		session ` + "{env.AUTHJS_URL}" + ` {
			cookies authjs.session-token* __Secure-authjs.session-token*
			user_prefix authjs:
		}
		plan pro {env.PRODUCT_PRO}
	}
	servers {
		trusted_proxies static 127.0.0.1/32
	}`
	s.env["AUTHJS_URL"] = app.URL + "/authjs"
	s.start(t, s.caddyfile(block, s.paywall(t, "app"), s.site(t, "authjs", "polar authjs\npolar_require /pro/* pro\nreverse_proxy {upstream}")))
	u, v := s.subscribe(t, "app", productPro), newSubscriber(productBasic)
	s.deliver(t, "app", v.active(t))

	r := s.get(t, "app", "/pro/x", signedIn(u.user))
	if got := r.seen(t); got.ours()["user"] != u.user || got.Header.Get("Cookie") == "" {
		t.Errorf("the upstream was told %v", got.Header)
	}
	if !varies(r, "Cookie") || !strings.Contains(r.header.Get("Cache-Control"), "private") {
		t.Errorf("the answer goes into shared caches: %v", r.header)
	}
	// Two users in turn, each with what is theirs.
	for range 20 {
		s.get(t, "app", "/pro/x", signedIn(u.user)).wants(t, 200)
		s.get(t, "app", "/pro/x", signedIn(v.user)).problem(t, 402, "plan_required")
		s.get(t, "app", "/basic/x", signedIn(v.user)).wants(t, 200)
		wantUser(t, s.get(t, "app", whoami, signedIn(v.user)), v.user)
	}
	if n := app.asked.Load(); n != 2 {
		t.Errorf("the app was asked %d times about two sessions", n)
	}

	// Nobody.
	for name, o := range map[string]option{
		"no cookie": header("X", "y"), "another cookie": header("Cookie", "theme=dark"), "a session that is over": signedIn("gone"),
	} {
		if p := s.get(t, "app", "/pro/x", o).problem(t, 401, "token_missing"); p["nextStep"] != "login" {
			t.Errorf("%s: the next step is %v", name, p["nextStep"])
		}
		if got := s.get(t, "app", "/free", o).seen(t).ours(); len(got) != 0 {
			t.Errorf("%s: the upstream was told %v", name, got)
		}
	}
	s.get(t, "app", "/pro/x", header("Cookie", sessionCookie+"=a; "+sessionCookie+"=b")).problem(t, 401, "token_invalid")

	// Unknown is not anonymous.
	for _, trouble := range []string{"hang", "page", "broken"} {
		started := time.Now()
		p := s.get(t, "app", "/pro/x", signedIn(trouble)).problem(t, 503, "unavailable")
		if p["nextStep"] != "wait" || time.Since(started) > 5*time.Second {
			t.Errorf("%s: %v after %v", trouble, p, time.Since(started))
		}
		s.get(t, "app", whoami, signedIn(trouble)).problem(t, 503, "unavailable")
		if got := s.get(t, "app", "/free", signedIn(trouble)).seen(t).ours(); len(got) != 0 {
			t.Errorf("%s: the upstream was told %v", trouble, got)
		}
	}

	// Whoever shows a token is judged by it.
	wantUser(t, s.get(t, "app", whoami, signedIn(u.user), as("ada")), "ada")
	s.get(t, "app", "/pro/x", signedIn(u.user), bearer("no.good.token")).problem(t, 401, "token_invalid")

	// What browsers send by themselves is not theirs to use.
	const checkout = "/auth/polar/checkout"
	s.do(t, "POST", "app", checkout, signedIn(u.user), header("Sec-Fetch-Site", "cross-site")).problem(t, 403, "cross_origin")
	s.get(t, "app", checkout+"?plan=pro", signedIn(u.user), header("Sec-Fetch-Dest", "image")).problem(t, 403, "not_a_navigation")
	s.do(t, "POST", "app", checkout, signedIn(u.user), header("Sec-Fetch-Site", "same-origin")).problem(t, 400, "bad_body")

	// Auth.js, over HTTPS before us.
	chunks := header("Cookie", "__Secure-authjs.session-token.0=x; __Secure-authjs.session-token.1=ada; authjs.csrf-token=y")
	wantUser(t, s.get(t, "authjs", whoami, chunks, header("X-Forwarded-Proto", "https")), "authjs:ada")
	s.get(t, "authjs", whoami, chunks).problem(t, 401, "token_missing")

	log := s.logs()
	for _, word := range []string{"better-auth.session_token=", "e@example.org", "disableRefresh", "__Secure-authjs"} {
		if strings.Contains(notable(log), word) {
			t.Errorf("the log holds %q", word)
		}
	}
	if !strings.Contains(log, "the app does not say who is signed in: check session") {
		t.Error("the log does not tell of the trouble")
	}
}

// TestSessionBehindTheGateway has the endpoint on the very site that asks it.
func TestSessionBehindTheGateway(t *testing.T) {
	t.Parallel()
	s, app := newServer(t), newSessionApp(t)
	backend := strings.TrimPrefix(app.URL, "http://")
	block := func(name string) string {
		return fmt.Sprintf(`polar %s {
			session {env.URL_%s} {
				cookies better-auth.session_token
			}
			plan pro {env.PRODUCT_PRO}
		}
		`, name, name)
	}
	me := "\nreverse_proxy /me " + backend + "\nreverse_proxy {upstream}"
	open := s.site(t, "open", "polar open\npolar_require /pro/* pro"+me)
	gated := s.site(t, "gated", "polar gated\npolar_require pro"+me)
	// Each of these two asks the other, and far does so by way of a third.
	one := s.site(t, "one", "polar one"+me)
	two := s.site(t, "two", "polar two"+me)
	far := s.site(t, "far", "polar far\nreverse_proxy /me "+s.sites["one"]+"\nreverse_proxy {upstream}")
	for name, asked := range map[string]string{"open": "open", "gated": "gated", "one": "two", "two": "one", "far": "far"} {
		s.env["URL_"+name] = "http://" + s.sites[asked] + "/me"
	}
	s.start(t, s.caddyfile(block("open")+block("gated")+block("one")+block("two")+block("far"), open, gated, one, two, far))

	questions := func(n int64, f func()) {
		t.Helper()
		before, started := app.asked.Load(), time.Now()
		f()
		if got := app.asked.Load() - before; got != n || time.Since(started) >= 2*time.Second {
			t.Errorf("%d questions came to the app, in %v", got, time.Since(started))
		}
	}
	questions(1, func() { wantUser(t, s.get(t, "open", whoami, signedIn("ada")), "ada") })
	questions(0, func() { s.get(t, "open", "/pro/x", signedIn("ada")).problem(t, 402, "no_subscription") })
	questions(1, func() { wantUser(t, s.get(t, "one", whoami, signedIn("bob")), "bob") })
	questions(1, func() { wantUser(t, s.get(t, "two", whoami, signedIn("cay")), "cay") })
	questions(1, func() { wantUser(t, s.get(t, "far", whoami, signedIn("dan")), "dan") })
	questions(0, func() { s.get(t, "gated", "/x", signedIn("ada")).problem(t, 401, "token_missing") })

	// Who makes the mark up is a stranger, and tells the log nothing of a loop.
	forged := header("Caddy-Polar-Session-Check", "forged")
	questions(0, func() {
		if got := s.get(t, "open", "/free", signedIn("eve"), forged).seen(t).ours(); len(got) != 0 {
			t.Errorf("the upstream was told %v", got)
		}
		s.get(t, "open", "/pro/x", signedIn("ada"), forged).problem(t, 401, "token_missing")
	})
	if n := strings.Count(s.logs(), "the session endpoint lies behind this gateway"); n != 5 {
		t.Errorf("the loops of five gateways are told %d times", n)
	}
}

// TestSessionsOfAFleet: two processes, of which each asks by way of the other.
func TestSessionsOfAFleet(t *testing.T) {
	t.Parallel()
	app, a, b := newSessionApp(t), newServer(t), newServer(t)
	const block = `polar {
		session {env.SESSION_URL} {
			cookies better-auth.session_token
		}
		plan pro {env.PRODUCT_PRO}
	}`
	body := "polar\npolar_require /pro/* pro\nreverse_proxy /me " + strings.TrimPrefix(app.URL, "http://") + "\nreverse_proxy {upstream}"
	one, two := a.site(t, "app", body), b.site(t, "app", body)
	a.env["SESSION_URL"], b.env["SESSION_URL"] = "http://"+b.sites["app"]+"/me", "http://"+a.sites["app"]+"/me"
	a.start(t, a.caddyfile(block, one))
	b.start(t, b.caddyfile(block, two))
	for _, s := range []*server{a, b} {
		s.get(t, "app", "/pro/x", signedIn("ada")).problem(t, 402, "no_subscription")
		wantUser(t, s.get(t, "app", whoami, signedIn("ada")), "ada")
		if !strings.Contains(s.logs(), "a question of another gateway's to its session endpoint came by") && s == b {
			t.Error("the log does not tell of the other's question")
		}
	}
	if n := app.asked.Load(); n != 2 {
		t.Errorf("the app was asked %d times", n)
	}
}

// passwordHash is of open-sesame.
const passwordHash = "$2a$04$iw6/vyBJOwUSUtQ4VHVhr.jnmlHdRPAjl3QZL2wdsCq3e1m3xQmIu"

func basic(user, password string) option {
	return func(r *http.Request) { r.SetBasicAuth(user, password) }
}

// userRecipes are the routes that the reference gives for user, before our upstream.
func userRecipes(t *testing.T) []string {
	t.Helper()
	doc, err := os.ReadFile("../docs/reference.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(doc), "\n### user\n")
	section, _, _ = strings.Cut(section, "\n##") // whatever comes next
	var routes []string
	for i, block := range strings.Split(section, "```") {
		if i%2 == 0 {
			continue
		}
		block = strings.TrimSpace(strings.TrimPrefix(block, "caddyfile"))
		if body, ok := strings.CutPrefix(block, "app.example.com {"); ok {
			block = strings.TrimSpace(strings.TrimSuffix(body, "}"))
		}
		routes = append(routes, strings.Replace(block, "localhost:3000", "{upstream}", 1))
	}
	if len(routes) != 2 {
		t.Fatalf("the reference has %d routes for user: %q", len(routes), routes)
	}
	return routes
}

func TestUserOfAnotherModule(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	verifier := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c, err := r.Cookie("sso"); err == nil {
			if c.Value != "guest" { // lets in, and names nobody
				w.Header().Set("Remote-User", c.Value)
			}
			return
		}
		w.WriteHeader(http.StatusUnauthorized)
	}))
	t.Cleanup(verifier.Close)
	const block = `polar {
		webhook_secret {env.POLAR_WEBHOOK_SECRET}
		user {http.auth.user.id}
		plan pro {env.PRODUCT_PRO}
	}
	polar tokens {
		webhook_secret {env.POLAR_WEBHOOK_SECRET}
		jwt secret {env.JWT_SECRET}
		plan pro {env.PRODUCT_PRO}
	}
	polar named {
		user {http.auth.user.name}
		plan pro {env.PRODUCT_PRO}
	}`
	people := ""
	u := newSubscriber(productPro)
	for _, user := range []string{u.user, "bob", strings.Repeat("u", 256)} {
		people += user + " " + passwordHash + "\n"
	}
	routes := userRecipes(t)
	s.start(t, s.caddyfile(block,
		s.site(t, "early", "polar\nbasic_auth /pro/* {\n"+people+"}\npolar_require /pro/* pro\npolar_require /open/* pro\nreverse_proxy {upstream}"),
		s.site(t, "late", strings.Replace(routes[0], "ada $2a$14$...", people, 1)),
		s.site(t, "forward", strings.Replace(routes[1], "localhost:9091", strings.TrimPrefix(verifier.URL, "http://"), 1)),
		s.site(t, "both", "polar tokens\npolar_require /pro/* pro {\ngateway default\n}\npolar_require /named/* pro {\ngateway named\n}\nreverse_proxy {upstream}"),
	))
	s.deliver(t, "late", u.active(t))
	const good = "open-sesame"

	// polar stands before basic_auth: the gate looks again.
	r := s.get(t, "early", "/pro/x", basic(u.user, good))
	if got := r.seen(t).ours()["user"]; got != u.user {
		t.Errorf("the upstream was told of %q", got)
	}
	if !varies(r, "Cookie") || !varies(r, "Authorization") {
		t.Errorf("Vary is %q", r.header.Values("Vary"))
	}
	s.get(t, "early", "/pro/x", basic("bob", good)).problem(t, 402, "no_subscription")
	s.get(t, "early", "/pro/x", basic(strings.Repeat("u", 256), good)).problem(t, 401, "token_invalid")
	s.get(t, "early", "/pro/x", basic("bob", "wrong")).wants(t, 401)
	s.get(t, "early", "/open/x", basic(u.user, good)).problem(t, 401, "token_missing") // nobody checks it there
	if got := s.get(t, "early", "/free", basic(u.user, good), header("X-Polar-User", "root")).seen(t).ours(); len(got) != 0 {
		t.Errorf("the upstream was told %v", got)
	}

	// polar stands behind it: the routes know the user too.
	wantUser(t, s.get(t, "late", whoami, basic(u.user, good)), u.user)
	s.get(t, "late", whoami).wants(t, 401)
	s.get(t, "late", "/pro/x", basic(u.user, good)).wants(t, 200)
	if got := s.get(t, "late", "/free", basic("bob", good)).seen(t).ours()["user"]; got != "bob" {
		t.Errorf("the upstream was told of %q", got)
	}
	// Browsers send it by themselves.
	const checkout = "/auth/polar/checkout"
	s.do(t, "POST", "late", checkout, basic("bob", good), header("Sec-Fetch-Site", "cross-site")).problem(t, 403, "cross_origin")
	s.get(t, "late", checkout+"?plan=pro", basic("bob", good), header("Sec-Fetch-Dest", "image")).problem(t, 403, "not_a_navigation")
	s.do(t, "POST", "late", checkout, basic("bob", good), header("Sec-Fetch-Site", "same-origin")).problem(t, 400, "bad_body")

	// What forward_auth copies is the verifier's word and nobody else's.
	forged := header("Remote-User", u.user)
	s.get(t, "forward", "/pro/x", header("Cookie", "sso="+u.user)).wants(t, 200)
	s.get(t, "forward", "/pro/x", header("Cookie", "sso=bob"), forged).problem(t, 402, "no_subscription")
	s.get(t, "forward", "/pro/x", header("Cookie", "sso=guest"), forged).problem(t, 401, "token_missing")
	s.get(t, "forward", "/pro/x", forged).wants(t, 401)
	s.deliver(t, "forward", newSubscriber(productPro).active(t))

	// Nothing that Caddy takes for the webhook gets past the authentication.
	for _, path := range []string{
		"/free", "/auth/polar/webhook", "/AUTH/polar/webhook", "/auth/polar/webhooK", "//auth/polar/webhook", "/auth//polar/webhook",
		"/auth/polar/webhook/", "/auth/polar/./webhook", "/admin/../auth/polar/webhook", "/admin/..%2f..%2fauth/polar/webhook",
		"/admin/%2e%2e/auth/polar/webhook", "/%61uth/polar/webhook", "/auth%2fpolar%2fwebhook", "/pro/..%2f..%2fauth/polar/webhook",
		"/AUTH/polar/webhook/../../../pro/x", "/auth/polar/webhook/../../../admin", "/auth/polar/webhook/x", "/auth/polar/webhook%00",
	} {
		for _, site := range []string{"late", "forward"} {
			for _, method := range []string{"GET", "POST"} {
				request := method + " " + path + " HTTP/1.1\r\nHost: {host}\r\nRemote-User: " + u.user + "\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
				var r *reply
				if n := s.upstream.reached(func() { r = s.raw(t, site, request) }); n != 0 || r.status/100 != 4 {
					t.Errorf("%s: %s %s: %v, and reaches the app %d times", site, method, path, r, n)
				}
			}
		}
	}

	// What one gateway of ours has found out is not another module's word.
	wantUser(t, s.get(t, "both", whoami, as(u.user)), u.user)
	s.get(t, "both", "/pro/x", as(u.user)).problem(t, 401, "token_missing")
	s.get(t, "both", "/named/x", as(u.user)).problem(t, 401, "token_missing")
}

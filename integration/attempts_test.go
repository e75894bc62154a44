package integration

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// The attacks of this file were tried against the whole program: docs/security.md
// tells how each came out.

// talk sends bytes as they are, the last of which ask for the connection's end, and
// reads all that is answered.
func (s *server) talk(t *testing.T, site, request string) (answers string) {
	t.Helper()
	conn, err := net.Dial("tcp", s.sites[site])
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(conn, strings.ReplaceAll(request, "{host}", s.sites[site])); err != nil {
		t.Fatal(err)
	}
	all, _ := io.ReadAll(conn) // what ends a connection that is wrong is no matter
	return string(all)
}

// lines is an application that notes all lines that have reached it, as they are,
// and never closes a connection by itself: whatever a gate lets slip into one is seen.
type lines struct {
	address string
	mu      sync.Mutex
	noted   []string
}

func newLines(t *testing.T) *lines {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &lines{address: listener.Addr().String()}
	var serving sync.WaitGroup
	serve := func(conn net.Conn) {
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(patience))
		for scan := bufio.NewScanner(conn); scan.Scan(); {
			l.mu.Lock()
			l.noted = append(l.noted, scan.Text())
			l.mu.Unlock()
			if scan.Text() == "" {
				_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
			}
		}
	}
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { serve(conn) })
		}
	})
	t.Cleanup(func() { listener.Close() })
	return l
}

// saw says whether a text was in a line that could be the beginning of a request.
func (l *lines) saw(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range l.noted {
		if strings.HasSuffix(line, " HTTP/1.1") && strings.Contains(line, text) {
			return true
		}
	}
	return false
}

// TestSmuggledRequests hides a request for a closed page inside one for an open page,
// in the ways by which servers are made to disagree about where a request ends.
func TestSmuggledRequests(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	app := newLines(t)
	s.upstream.address = app.address
	s.start(t, s.caddyfile(usual, s.paywall(t, "app"), s.site(t, "gate", `
		polar_require /pro/* pro
		reverse_proxy {upstream}`)))
	inner := "GET /pro/smuggled HTTP/1.1\r\nHost: {host}\r\nX-Polar-User: root\r\n\r\n"
	last := "GET /free/last HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
	n := len(strings.ReplaceAll(inner, "{host}", s.sites["app"]))
	for name, head := range map[string]string{
		"both lengths":             fmt.Sprintf("Content-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", n+5),
		"both, other order":        fmt.Sprintf("Transfer-Encoding: chunked\r\nContent-Length: %d\r\n\r\n0\r\n\r\n", n+5),
		"two lengths":              fmt.Sprintf("Content-Length: 0\r\nContent-Length: %d\r\n\r\n", n),
		"a list of lengths":        fmt.Sprintf("Content-Length: 0, %d\r\n\r\n", n),
		"a signed length":          fmt.Sprintf("Content-Length: +%d\r\n\r\n", n),
		"a length in hex":          fmt.Sprintf("Content-Length: 0x%x\r\n\r\n", n),
		"a length with a blank":    fmt.Sprintf("Content-Length : %d\r\n\r\n", n),
		"a length with underscore": fmt.Sprintf("Content_Length: %d\r\n\r\n", n),
		"a folded encoding":        "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
		"an unknown encoding":      "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
		"two encodings":            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
		"a list of encodings":      "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
		"an encoding with a blank": "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
		"an encoding with a tab":   "Transfer-Encoding:\tchunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
		"a quoted encoding":        "Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n",
		"an encoding behind VT":    "Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
		"an extension with LF":     "Transfer-Encoding: chunked\r\n\r\n0;\n\r\n\r\n",
		"a chunk of minus":         "Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n",
		"a huge chunk":             "Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\n\r\n",
		"bare LF":                  "X: y\n\n",
		"bare CR":                  "X: y\r\r",
		"a header with NUL":        "X: y\x00\r\n\r\n",
		"upgrade":                  "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
		"upgrade to HTTP/1.1":      "Connection: Upgrade\r\nUpgrade: HTTP/1.1\r\n\r\n",
		"upgrade to h2c":           "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n",
	} {
		for _, method := range []string{"POST", "GET", "OPTIONS", "HEAD"} {
			answers := s.talk(t, "app", method+" /free HTTP/1.1\r\nHost: {host}\r\n"+head+inner+last)
			if app.saw("/pro/smuggled") {
				t.Fatalf("%s by %s: the request has reached the upstream; the answers are %s", name, method, answers)
			}
		}
	}
	// A proxy sends the body of CONNECT on bare, so that it is a request.
	chunked := fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", n, inner)
	for _, target := range []string{"{host}", "/free", "/pro/x"} {
		for _, site := range []string{"app", "gate"} {
			answers := s.talk(t, site, "CONNECT "+target+" HTTP/1.1\r\nHost: {host}\r\n"+chunked+last)
			if app.saw("/pro/smuggled") || !strings.HasPrefix(answers, "HTTP/1.1 405 ") {
				t.Fatalf("%s: what came of CONNECT %s and its body: %s", site, target, answers)
			}
		}
	}
	// It would be seen.
	s.talk(t, "app", "GET /free HTTP/1.1\r\nHost: {host}\r\n\r\n"+last)
	if !app.saw("/free/last") {
		t.Errorf("a second request on a connection does not count: %q", app.noted)
	}
}

// TestForgeriesByHTTP2 does in HTTP/2 what is tested in HTTP/1.1: headers and trailers in
// our name, paths in other spellings, and methods that are none.
func TestForgeriesByHTTP2(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.start(t, s.caddyfile(usual+"\n\tservers {\n\t\tprotocols h1 h2c\n\t}", s.paywall(t, "app")))
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	s.client.Transport = transport
	forge := func(r *http.Request) {
		r.Body, r.ContentLength = io.NopCloser(strings.NewReader("x")), -1
		r.Trailer = http.Header{}
		for _, name := range []string{"X-Polar-User", "x-polar-plan", "x_polar_plans", "x.polar.status", "X-Polar-Assertion"} {
			r.Header[name], r.Trailer[name] = []string{"forged"}, []string{"forged"}
		}
	}
	u := s.subscribe(t, "app", productPro)
	for _, path := range []string{"/pro/x", "/PRO/x", "/%70ro/x", "//pro/x", "/free/../pro/x", "/free/..;/pro/x", "http:pro/x"} {
		for _, method := range []string{"GET", "POST", "HEAD", "CONNECT", "PRI", "get"} {
			if n := s.upstream.reached(func() {
				r, err := s.try(method, "http://"+s.sites["app"], forge, func(r *http.Request) { r.URL.Opaque = path })
				if err == nil && r.status < 400 {
					t.Errorf("%s %s: got %v", method, path, r)
				}
			}); n != 0 {
				t.Errorf("%s %s has reached the upstream", method, path)
			}
		}
	}
	if got := s.do(t, "POST", "app", "/free", forge).seen(t).ours(); len(got) != 0 {
		t.Errorf("of a stranger the upstream was told %v", got)
	}
	if got := s.do(t, "POST", "app", "/pro/x", forge, as(u.user)).seen(t).ours(); got["user"] != u.user || strings.Contains(fmt.Sprint(got), "forged") {
		t.Errorf("of a subscriber the upstream was told %v", got)
	}
}

// TestTokensThatBringTheirKey sends tokens that name, or are, the key that they are
// signed with, or play with the words of their head.
func TestTokensThatBringTheirKey(t *testing.T) {
	t.Parallel()
	s := startPaywall(t)
	u := s.subscribe(t, "app", productPro)
	own := []byte("the attacker's own secret, of at least thirty-two bytes")
	jwk := object{"kty": "oct", "alg": "HS256", "k": "dGhlIGF0dGFja2VyJ3Mgb3duIHNlY3JldCwgb2YgYXQgbGVhc3QgdGhpcnR5LXR3byBieXRlcw"}
	for name, head := range map[string]object{
		"jwk": {"jwk": jwk}, "jku": {"jku": "http://" + s.upstream.address + "/jwks.json"}, "x5u": {"x5u": "http://" + s.upstream.address},
		"x5c": {"x5c": []string{"MAo="}}, "kid path": {"kid": "../../../../dev/null"}, "kid sql": {"kid": "' union select ''"},
		"kid number": {"kid": 7}, "kid null": {"kid": nil}, "zip": {"zip": "DEF"}, "cty": {"cty": "JWT"}, "b64": {"b64": false},
		"typ": {"typ": "none"}, "alg case": {"alg": "hs256"}, "alg list": {"alg": []string{"HS256"}}, "alg none": {"alg": "nOnE"},
	} {
		token := jwt.NewWithClaims(jwt.SigningMethodHS256, claims(u.user, nil))
		for key, value := range head {
			token.Header[key] = value
		}
		signed, err := token.SignedString(own)
		if err != nil {
			t.Fatal(err)
		}
		if n := s.upstream.reached(func() { s.get(t, "app", "/pro/x", bearer(signed)).problem(t, 401, "token_invalid") }); n != 0 {
			t.Errorf("%s: the upstream was asked", name)
		}
	}
}

// TestGatedAnswersOfEveryKind asks a file server behind a gate for parts, for what has
// changed, and for heads: nothing of it is for a stranger, or for a shared cache.
func TestGatedAnswersOfEveryKind(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.write(t, "paper.txt", "what was paid for")
	s.start(t, s.caddyfile(usual, s.site(t, "app", `
		root * `+s.dir+`
		polar
		polar_require pro
		header Cache-Control "public, max-age=600"
		file_server`)))
	u := s.subscribe(t, "app", productPro)
	etag := s.get(t, "app", "/paper.txt", as(u.user)).wants(t, 200).header.Get("ETag")
	for _, c := range []struct {
		method string
		status int
		option option
	}{
		{"GET", 206, header("Range", "bytes=0-3")},
		{"GET", 206, header("Range", "bytes=0-3,5-6")},
		{"GET", 416, header("Range", "bytes=99-")},
		{"GET", 304, header("If-None-Match", etag)},
		{"GET", 412, header("If-Match", `"other"`)},
		{"HEAD", 200, header("X", "y")},
		{"GET", 404, func(r *http.Request) { r.URL.Path = "/none.txt" }},
	} {
		if r := s.do(t, c.method, "app", "/paper.txt", c.option); r.status != 401 || strings.Contains(r.body, "paid") || r.header.Get("ETag") != "" {
			t.Errorf("%s for a stranger: got %v", c.method, r)
		}
		r := s.do(t, c.method, "app", "/paper.txt", c.option, as(u.user)).wants(t, c.status)
		if policy := r.header.Get("Cache-Control"); !strings.HasPrefix(policy, "private") || strings.Contains(policy, "public") ||
			!strings.Contains(strings.Join(r.header["Vary"], ","), "Authorization") {
			t.Errorf("%s %d: Cache-Control %q, Vary %q", c.method, c.status, policy, r.header["Vary"])
		}
	}
}

// TestAdminIsForNoPage asks the admin API as a page of another site would make a
// browser do, by its own name and by one that was bent to this machine.
func TestAdminIsForNoPage(t *testing.T) {
	t.Parallel()
	s := startPaywall(t)
	rebound := func(r *http.Request) { r.Host = "evil.example" }
	for _, page := range []option{rebound, header("Origin", "https://evil.example"), header("Origin", "null")} {
		if r := s.ask(t, "GET", "/polar/users", page); r.status != 403 && r.status != 400 {
			t.Errorf("a page reads the users: %v", r)
		}
		s.ask(t, "POST", "/polar/users/ada/passes", page, text(`{"plan":"pro"}`))
	}
	for _, method := range []string{"GET", "HEAD", "OPTIONS"} {
		if r := s.ask(t, method, "/polar/users/ada/passes", text(`{"plan":"pro"}`)); r.status == http.StatusOK {
			t.Errorf("%s gives a pass: %v", method, r)
		}
	}
	s.get(t, "app", "/pro/x", as("ada")).wants(t, http.StatusPaymentRequired)
}

// TestRaceForCheckouts starts many at once: no more than ten get through.
func TestRaceForCheckouts(t *testing.T) {
	t.Parallel()
	s := startShop(t)
	var started sync.WaitGroup
	var mu sync.Mutex
	count := make(map[int]int)
	for i := range 60 {
		started.Go(func() {
			method, path, body := "POST", "/auth/polar/checkout", `{"plan":"pro"}`
			if i%2 == 1 {
				method, path, body = "GET", "/auth/polar/checkout?plan=pro", ""
			}
			r, err := s.try(method, s.origin()+path, as("ada"), text(body))
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				count[r.status]++
			}
		})
	}
	started.Wait()
	if opened := count[200] + count[303]; opened != 10 || count[429] != 50 {
		t.Errorf("of 60 at once: %v", count)
	}
}

// TestFormsAtOnce sends a cancellation and changes at the same moment, many times: Polar
// and the gateway agree about what came of it.
func TestFormsAtOnce(t *testing.T) {
	t.Parallel()
	s := startShop(t).connect()
	s.buy(t, "ada", "pro")
	var sent sync.WaitGroup
	for i := range 12 {
		form := []string{"do=cancel", "do=keep", "do=change&product=" + s.basic.ID, "do=change&product=" + s.pro.ID}[i%4]
		sent.Go(func() {
			r, err := s.try("POST", s.origin()+"/auth/polar/account", cookie("ada"), browser, text(form),
				header("Content-Type", "application/x-www-form-urlencoded"), header("Origin", s.origin()), header("Sec-Fetch-Site", "same-origin"))
			if err != nil || r.status >= 500 && r.status != 503 {
				t.Errorf("%s: got %v, %v", form, r, err)
			}
		})
	}
	sent.Wait()
	s.box.Settle()
	told := s.get(t, "app", "/auth/polar/subscription", as("ada")).wants(t, 200).json(t)["subscription"].(object)
	truth, ok := s.box.Subscription(fmt.Sprint(told["id"]))
	if !ok || told["productId"] != truth.ProductID || told["cancelAtPeriodEnd"] != truth.CancelAtPeriodEnd {
		t.Errorf("the gateway says %v, Polar %+v", told, truth)
	}
}

// TestManyProducts asks for checkouts of more than anybody buys.
func TestManyProducts(t *testing.T) {
	t.Parallel()
	s := startShop(t)
	id := `"` + s.pro.ID + `",`
	for name, body := range map[string]string{
		"the same":   `{"products":[` + strings.Repeat(id, 1500) + `"` + s.pro.ID + `"]}`,
		"made up":    `{"products":[` + strings.Repeat(`"..",`, 1500) + `"."]}`,
		"of no plan": `{"products":["` + s.other.ID + `","` + s.pro.ID + `"]}`,
		"seats":      `{"plan":"pro","seats":99999999999999999999}`,
		"below zero": `{"plan":"pro","seats":-1}`,
		"twice":      `{"plan":"none","plan":"pro","productId":"` + s.other.ID + `"}`,
	} {
		if r := s.post(t, "/auth/polar/checkout", body, as("ada")); r.status < 400 || r.status >= 500 {
			t.Errorf("%s: got %v", name, r)
		}
	}
}

// TestWebhooksThatPlayWithTheirHeaders signs and sends in ways that verifiers have
// taken for good: nothing but the exact signature counts.
func TestWebhooksThatPlayWithTheirHeaders(t *testing.T) {
	t.Parallel()
	s := startPaywall(t)
	u := newSubscriber(productPro)
	body := u.active(t)
	good := func(change func(h http.Header, signature string)) option {
		return func(r *http.Request) {
			signed(s.key, body)(r)
			change(r.Header, strings.TrimPrefix(r.Header.Get("Webhook-Signature"), "v1,"))
		}
	}
	set := func(value func(signature string) string) option {
		return good(func(h http.Header, signature string) { h.Set("Webhook-Signature", value(signature)) })
	}
	for name, o := range map[string]option{
		"another version":   set(func(sig string) string { return "v2," + sig }),
		"public key":        set(func(sig string) string { return "v1a," + sig }),
		"no version":        set(func(sig string) string { return sig }),
		"upper version":     set(func(sig string) string { return "V1," + sig }),
		"empty":             set(func(string) string { return "v1," }),
		"no padding":        set(func(sig string) string { return "v1," + strings.TrimRight(sig, "=") + "A" }),
		"first half":        set(func(sig string) string { return "v1," + sig[:len(sig)/2] }),
		"a thousand":        set(func(string) string { return strings.Repeat("v1,AAAA ", 1000) }),
		"another id":        good(func(h http.Header, _ string) { h.Set("Webhook-Id", newID()) }),
		"dots in the id":    good(func(h http.Header, _ string) { h.Set("Webhook-Id", h.Get("Webhook-Id")+"."+h.Get("Webhook-Timestamp")) }),
		"two ids":           good(func(h http.Header, _ string) { h.Add("Webhook-Id", newID()); h["Webhook-Id"][0] = newID() }),
		"later":             good(func(h http.Header, _ string) { h.Set("Webhook-Timestamp", fmt.Sprint(time.Now().Unix()+2)) }),
		"time with sign":    good(func(h http.Header, _ string) { h.Set("Webhook-Timestamp", "+"+h.Get("Webhook-Timestamp")) }),
		"time as a float":   good(func(h http.Header, _ string) { h.Set("Webhook-Timestamp", h.Get("Webhook-Timestamp")+".0") }),
		"time as exponent":  good(func(h http.Header, _ string) { h.Set("Webhook-Timestamp", "1e9") }),
		"body with a blank": good(func(http.Header, string) {}),
	} {
		if name == "body with a blank" {
			signs := o
			o = func(r *http.Request) { signs(r); text(string(body) + " ")(r) }
		}
		if r := s.send(t, "POST", "http://"+s.sites["app"]+webhookPath, o); r.status != http.StatusBadRequest {
			t.Errorf("%s: got %v", name, r)
		}
	}
	s.get(t, "app", "/pro/x", as(u.user)).problem(t, http.StatusPaymentRequired, "no_subscription")
	// A good one among others counts.
	s.send(t, "POST", "http://"+s.sites["app"]+webhookPath, set(func(sig string) string { return "v1,AAAA v9,x v1," + sig })).wants(t, 200)
	s.get(t, "app", "/pro/x", as(u.user)).wants(t, 200)
}

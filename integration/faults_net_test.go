package integration

import (
	"bufio"
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/caddy-polar/caddy-polar/polar/box"
)

// forgedHead is a webhook's head, of now, whose signature is nobody's.
func forgedHead(host string, length int) string {
	return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: %s\r\nWebhook-Id: x\r\nWebhook-Timestamp: %d\r\nWebhook-Signature: v1,%s\r\nContent-Length: %d\r\n\r\n",
		webhookPath, host, time.Now().Unix(), base64.StdEncoding.EncodeToString(make([]byte, 32)), length)
}

// dial opens that many connections to the paywall.
func dial(t *testing.T, s *server, n int) []net.Conn {
	t.Helper()
	conns := make([]net.Conn, n)
	for i := range conns {
		var err error
		if conns[i], err = net.Dial("tcp", s.sites["app"]); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conns[i].Close() })
		_ = conns[i].SetDeadline(time.Now().Add(2 * time.Minute))
	}
	return conns
}

// memory is how many MiB the server's process has, without its files.
func (s *server) memory(t *testing.T) (mib int) {
	t.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(raw), "RssAnon:")
	if _, err := fmt.Sscan(after, &mib); err != nil {
		t.Fatal(err)
	}
	return mib >> 10
}

// TestBadSignatures: strangers come all at once. None is believed, Polar's webhooks are
// still taken, who has paid is still let in, and the log says it once.
func TestBadSignatures(t *testing.T) {
	t.Parallel()
	s := startPaywall(t)
	u := s.subscribe(t, "app", productPro)
	lines := strings.Count(s.logs(), "\n")
	strangers := dial(t, s, often(500, 10000))
	body := strings.Repeat("x", 4096)
	l := newLedger()
	end := l.selling(t, s, 2)
	defer end()
	var wrong, busy atomic.Int64
	var flood sync.WaitGroup
	before, began := l.acknowledged(), time.Now()
	for _, conn := range strangers {
		flood.Go(func() {
			_, err := io.WriteString(conn, forgedHead(s.sites["app"], len(body))+body)
			var r *http.Response
			if err == nil {
				r, err = http.ReadResponse(bufio.NewReader(conn), nil)
			}
			switch {
			case err != nil:
				t.Errorf("a stranger got %v", err)
			case r.StatusCode == http.StatusBadRequest:
				wrong.Add(1)
			case r.StatusCode == http.StatusServiceUnavailable:
				busy.Add(1)
			default:
				t.Errorf("a stranger got %d", r.StatusCode)
			}
		})
	}
	answered := make(chan struct{})
	go func() { flood.Wait(); close(answered) }()
	for flooded := true; flooded; {
		select {
		case <-answered:
			flooded = false
		default:
			s.get(t, "app", "/pro/x", as(u.user)).wants(t, http.StatusOK)
		}
	}
	took, meanwhile := time.Since(began), l.acknowledged()-before
	waitFor(t, "webhooks", func() bool { return l.acknowledged() > 10 })
	end()
	l.check(t, s, l.size())
	if n := s.said("webhook refused"); n == 0 || n > 4 {
		t.Errorf("the log says %d times that webhooks are refused", n)
	}
	t.Logf("%d strangers in %s: %d refused, %d told that it is busy; %d users acknowledged meanwhile, %d MiB of memory, %d lines of log",
		len(strangers), took.Round(time.Millisecond), wrong.Load(), busy.Load(), meanwhile, s.memory(t), strings.Count(s.logs(), "\n")-lines)
}

// slowHeads begin the bodies that strangers send slowly: to the webhook, and as a customer
// to the routes that read one.
func slowHeads(s *server, user string) (heads []string) {
	host := s.sites["app"]
	for _, line := range []string{
		"POST /auth/polar/checkout HTTP/1.1\r\nContent-Type: application/json", "PATCH /auth/polar/subscription HTTP/1.1\r\nContent-Type: application/json",
		"POST /auth/polar/account HTTP/1.1\r\nContent-Type: application/x-www-form-urlencoded",
	} {
		heads = append(heads, fmt.Sprintf("%s\r\nHost: %s\r\nOrigin: http://%s\r\nAuthorization: Bearer %s\r\nContent-Length: 10000\r\n\r\n",
			line, host, host, userToken(user)))
	}
	return append(heads, forgedHead(host, 10000))
}

// TestSlowBodies: strangers send webhooks, and customers forms and JSON, a byte at a time.
// They keep nobody out, and are gone after 15 seconds.
func TestSlowBodies(t *testing.T) {
	t.Parallel()
	s := startPaywall(t)
	u := s.subscribe(t, "app", productPro)
	goroutines, _ := s.goroutines(t)
	slow, heads := dial(t, s, often(200, 5000)), slowHeads(s, u.user)
	began := time.Now()
	var early atomic.Int64
	var sending sync.WaitGroup
	for i, conn := range slow {
		sending.Go(func() {
			_, _ = io.WriteString(conn, heads[i%len(heads)])
			for { // until the server no longer listens
				if _, err := conn.Write([]byte("x")); err != nil {
					return
				}
				_ = conn.SetReadDeadline(time.Now().Add(time.Second))
				if _, err := http.ReadResponse(bufio.NewReader(conn), nil); err == nil {
					if time.Since(began) < 14*time.Second { // it was not the body that was waited for
						early.Add(1)
					}
					return
				}
			}
		})
	}
	gone := make(chan struct{})
	go func() { sending.Wait(); close(gone) }()
	slowest := time.Duration(0)
	for going := true; going; pause() {
		one := time.Now()
		s.subscribe(t, "app", productPro)
		s.get(t, "app", "/pro/x", as(u.user)).wants(t, http.StatusOK)
		slowest = max(slowest, time.Since(one))
		select {
		case <-gone:
			going = false
		default:
		}
	}
	if took := time.Since(began); took < 14*time.Second || took > 25*time.Second {
		t.Errorf("the slow ones are gone after %s", took)
	}
	if n := early.Load(); n > 0 {
		t.Errorf("%d were answered before their body was waited for", n)
	}
	for _, conn := range slow {
		_ = conn.Close()
	}
	waitFor(t, "as many goroutines as before", func() bool { n, _ := s.goroutines(t); return n < goroutines+10 })
	t.Logf("%d slow ones; the slowest webhook and visit took %s", len(slow), slowest.Round(time.Millisecond))
}

// TestHugeHeaders: whatever is large in a head is refused at once or does not matter,
// also if a site lets in more than Caddy's 16 kB.
func TestHugeHeaders(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.start(t, s.caddyfile("servers {\nmax_header_size 1MB\n}"+usual, s.paywall(t, "app")))
	u := s.subscribe(t, "app", productPro)
	lines := strings.Count(s.logs(), "\n")
	huge := strings.Repeat("A", 900<<10)
	good := "Authorization: Bearer " + userToken(u.user) + "\r\n"
	many := func(line string) string { return strings.Repeat(line, 900<<10/len(line)) }
	for name, c := range map[string]struct {
		head   string
		status []int
	}{
		"a token":             {"Authorization: Bearer " + huge + "\r\n", []int{401}},
		"a token with dots":   {"Authorization: Bearer " + many("A.") + "\r\n", []int{401}},
		"many tokens":         {many("Authorization: Bearer AAAA\r\n"), []int{401}},
		"more than a server":  {"X: " + huge + huge + "\r\n", []int{431}},
		"cookies":             {good + "Cookie: " + many("a=b; ") + "\r\n", []int{200, 431}},
		"names of ours":       {good + many("X-Polar-User: eve\r\n"), []int{200}},
		"other names of ours": {good + many("X_Polar.User: eve\r\n"), []int{200}},
		"accept":              {"Accept: " + many("text/html;q=0.1,") + "\r\n", []int{401}},
		"a request id":        {"X-Request-Id: " + huge + "\r\n", []int{401}},
		"languages":           {"Accept: text/html\r\nSec-Fetch-Mode: navigate\r\nAccept-Language: " + many("de-DE;q=0.1,") + "\r\n", []int{401}},
		"forwarded":           {many("X-Forwarded-For: 1.2.3.4\r\n"), []int{401}},
	} {
		began := time.Now()
		r := s.raw(t, "app", "GET /pro/x HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n"+c.head+"\r\n")
		if !strings.Contains(fmt.Sprint(c.status), fmt.Sprint(r.status)) {
			t.Errorf("%s: %v", name, r)
		}
		if r.status == http.StatusOK && r.seen(t).ours()["user"] != u.user {
			t.Errorf("%s: the app hears of %q", name, r.seen(t).ours()["user"])
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("%s took %s", name, took)
		}
	}
	for name, head := range map[string]string{
		"an id":           "Webhook-Id: " + huge + "\r\nWebhook-Timestamp: 1\r\nWebhook-Signature: v1,x\r\n",
		"a timestamp":     "Webhook-Id: x\r\nWebhook-Timestamp: " + strings.Repeat("9", 900<<10) + "\r\nWebhook-Signature: v1,x\r\n",
		"many signatures": "Webhook-Id: x\r\nWebhook-Timestamp: 1\r\nWebhook-Signature: " + many("v1,"+base64.StdEncoding.EncodeToString(make([]byte, 32))+" ") + "\r\n",
		"many ids":        many("Webhook-Id: x\r\n"),
	} {
		r := s.raw(t, "app", "POST "+webhookPath+" HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: 2\r\n"+head+"\r\n{}")
		if r.status != http.StatusBadRequest {
			t.Errorf("webhook with %s: %v", name, r)
		}
	}
	s.get(t, "app", "/pro/x", as(u.user)).wants(t, http.StatusOK)
	if logs := s.logs(); strings.Contains(logs, huge[:1000]) || strings.Count(logs, "\n")-lines > 100 {
		t.Errorf("the log grows by %d lines", strings.Count(logs, "\n")-lines)
	}
	if mib := s.memory(t); mib > 300 {
		t.Errorf("%d MiB of memory", mib)
	}
}

// TestPolarAnswersGarbage: with 200 and something that is no answer of Polar's, or none
// to that question, nobody is let in, nobody who has paid is sent away, and nothing that
// is known is forgotten.
func TestPolarAnswersGarbage(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	to, err := url.Parse(s.box.URL)
	if err != nil {
		t.Fatal(err)
	}
	var garbage atomic.Pointer[string]
	proxy := httputil.NewSingleHostReverseProxy(to)
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if g := garbage.Load(); g != nil {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, *g)
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(func() { s.kill(); front.Close() })
	s.env["POLAR_SERVER"] = front.URL
	config := s.caddyfile(syncing, s.paywall(t, "app"))
	s.start(t, config)
	s.connect()
	s.buy(t, "ada", "pro")
	synced := func() bool { _, _, err := s.polar("sync"); return err == nil }
	waitFor(t, "a sync", synced)
	s.get(t, "app", "/pro/x", as("ada")).wants(t, http.StatusOK)
	// Bob and Carol have paid, and nobody has told the gateway; she has bought here.
	s.box.SetNetwork(box.Network{Lose: true})
	s.buy(t, "carol", "pro")
	if _, err := s.box.Buy("bob", "bob@example.com", s.pro.ID); err != nil {
		t.Fatal(err)
	}
	answers := [][2]string{
		{"somebody else's item", `{"items":[{"id":"00000000-0000-4000-8000-000000000001","status":"active"}],"pagination":{"total_count":1,"max_page":1}}`},
		{"more pages than it is", `{"items":[],"pagination":{"total_count":1000000,"max_page":1000000000}}`},
		{"a page", "<!doctype html><title>Just a moment</title>"},
		{"no fields", "{}"},
		{"null for items", `{"items":null,"pagination":null}`},
		{"nothing", ""},
		{"null", "null"},
		{"a list", "[]"},
		{"a text", `"ok"`},
		{"half of it", `{"items":[{"id":"`},
		{"items that are none", `{"items":[null,{},{"id":7}],"pagination":{"total_count":3,"max_page":1}}`},
		{"something deep", strings.Repeat("[", 100000)},
		{"something long", `{"items":["` + strings.Repeat("x", 40<<20) + `"]}`},
		{"binary", "\x00\xff\xfe"},
	}
	for _, answer := range answers[:often(3, len(answers))] {
		name, g := answer[0], answer[1]
		garbage.Store(&g)
		if out, said, err := s.polar("sync"); err == nil {
			if !strings.Contains(out, "unreadable") || !strings.Contains(out, "missing 0, wrong 0, extra 0") {
				t.Errorf("%s: the sync is fine: %s %s", name, out, said)
			}
		}
		s.get(t, "app", "/pro/x", as("ada")).wants(t, http.StatusOK)
		if r := s.get(t, "app", "/pro/x", as("bob")); r.status == http.StatusOK {
			t.Errorf("%s: bob is let in", name)
		}
		s.get(t, "app", "/pro/x", as("carol")).problem(t, http.StatusServiceUnavailable, "unavailable")
		if r := s.post(t, "/auth/polar/checkout", `{"plan":"basic"}`, as("eve-"+name)); r.status < 500 {
			t.Errorf("%s: a checkout: %v", name, r)
		}
		s.tells(t, "status")
	}
	lines := strings.Count(notable(s.logs()), "\n")
	if lines > 1000 {
		t.Errorf("%d lines of log", lines)
	}
	s.kill()
	s.start(t, config)
	s.get(t, "app", "/pro/x", as("ada")).wants(t, http.StatusOK)
	garbage.Store(nil)
	waitFor(t, "a sync", synced)
	s.get(t, "app", "/pro/x", as("bob")).wants(t, http.StatusOK)
	s.get(t, "app", "/pro/x", as("carol")).wants(t, http.StatusOK)
	s.get(t, "app", "/pro/x", as("ada")).wants(t, http.StatusOK)
}

// TestKeysSwapped: the issuer exchanges its keys under load, again and again, also while
// they are being fetched. Tokens of a key that was never published get nobody in, and
// those of a published one are not refused for longer than the reference says.
func TestKeysSwapped(t *testing.T) {
	t.Parallel()
	type key struct {
		id      string
		public  ed25519.PublicKey
		private ed25519.PrivateKey
	}
	newKey := func(i int) *key {
		public, private, err := ed25519.GenerateKey(nil)
		if err != nil {
			t.Fatal(err)
		}
		return &key{fmt.Sprint("k", i), public, private}
	}
	var published atomic.Pointer[key]
	published.Store(newKey(0))
	never := newKey(0) // has the id of one that is
	var slow atomic.Bool
	issuer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		k := published.Load()
		if slow.Load() {
			time.Sleep(100 * time.Millisecond) // the key may be another one by now
		}
		fmt.Fprintf(w, `{"keys":[{"kty":"OKP","crv":"Ed25519","kid":%q,"use":"sig","x":%q}]}`, k.id, base64.RawURLEncoding.EncodeToString(k.public))
	}))
	t.Cleanup(issuer.Close)
	s := newServer(t)
	s.env["JWKS_URL"] = issuer.URL
	s.start(t, s.caddyfile(`polar {
		webhook_secret {env.POLAR_WEBHOOK_SECRET}
		jwt {
			jwks {env.JWKS_URL}
			issuer https://id.example
			audience app
		}
		plan pro {env.PRODUCT_PRO}
		plan basic {env.PRODUCT_BASIC}
	}`, s.paywall(t, "app")))
	u := s.subscribe(t, "app", productPro)
	token := func(k *key, n int) option {
		token := jwt.NewWithClaims(jwt.SigningMethodEdDSA, claims(u.user, object{"iss": "https://id.example", "aud": "app", "n": n}))
		token.Header["kid"] = k.id
		signed, err := token.SignedString(k.private)
		if err != nil {
			panic(err)
		}
		return bearer(signed)
	}
	visit := func(k *key, n int) int { return s.get(t, "app", "/pro/x", token(k, n)).status }
	waitFor(t, "the first key", func() bool { return visit(published.Load(), 0) == http.StatusOK })

	stop := make(chan struct{})
	var load sync.WaitGroup
	for range 2 { // somebody who has made a key of their own, all the time
		load.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				r, err := s.try(http.MethodGet, "http://"+s.sites["app"]+"/pro/x", token(never, n))
				if err == nil && r.status == http.StatusOK {
					t.Error("a key that was never published gets in")
					return
				}
				pause()
			}
		})
	}
	defer load.Wait()
	defer close(stop)
	old := published.Swap(newKey(1))
	for n := range 20 {
		if status := visit(old, -2-n); status != http.StatusOK { // as long as nobody has asked again
			t.Fatalf("the last key that was fetched gets %d", status)
		}
	}
	if status := visit(newKey(1), -1); status == http.StatusOK {
		t.Error("a key that is not published yet gets in")
	}
	for i := range often(0, 5) { // each takes the 30 seconds of the reference
		slow.Store(i%2 == 1)
		old, next := published.Load(), newKey(i+1)
		published.Store(next)
		began := time.Now()
		for n := 0; visit(next, n) != http.StatusOK; n++ {
			if time.Since(began) > 35*time.Second {
				t.Fatal("a new key does not work")
			}
			time.Sleep(50 * time.Millisecond)
		}
		t.Logf("key %d works after %s", i+1, time.Since(began).Round(time.Millisecond))
		if status := visit(old, -1); status != http.StatusUnauthorized {
			t.Errorf("a key that is gone gets %d", status)
		}
	}
}

package integration

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/quic-go/quic-go/http3"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// secureSite is a site over TLS, and so over HTTP/3 too, with a certificate of its own.
func (s *server) secureSite(t *testing.T, name, body string) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(day),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"a.test", "b.test"},
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	pair := "tls " + s.write(t, "cert.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}))) +
		" " + s.write(t, "key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))) + "\n"
	return strings.Replace(s.site(t, name, pair+body), "http://", "https://", 1)
}

// anyCertificate is for a client of a secureSite.
func anyCertificate() *tls.Config {
	return &tls.Config{InsecureSkipVerify: true} //nolint:gosec // its own
}

// byHTTP3 makes the server's client speak HTTP/3.
func (s *server) byHTTP3(t *testing.T) *http3.Transport {
	t.Helper()
	transport := &http3.Transport{TLSClientConfig: anyCertificate(), DisableCompression: true}
	s.client.Transport = transport
	t.Cleanup(func() { transport.Close() })
	return transport
}

// TestForgeriesByHTTP3 does in HTTP/3 what is tested in HTTP/1.1 and 2: headers and
// trailers in our name, paths in other spellings, tunnels, and requests in their bodies.
func TestForgeriesByHTTP3(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	app := newLines(t)
	wall := "polar\npolar_require /pro/* pro\nreverse_proxy "
	s.start(t, s.caddyfile(usual, s.secureSite(t, "app", wall+"{upstream}"), s.secureSite(t, "lines", wall+app.address), s.paywall(t, "plain")))
	u := s.subscribe(t, "plain", productPro)
	s.byHTTP3(t)
	forge := func(r *http.Request) {
		r.Body, r.ContentLength, r.Trailer = io.NopCloser(strings.NewReader("x")), -1, http.Header{}
		for _, line := range forgeries {
			name, value, _ := strings.Cut(line, ": ")
			r.Header[name], r.Trailer[name] = []string{value}, []string{value}
		}
		r.Header["Host"] = []string{"admin.test"}
	}
	tunnel := func(protocol string) option {
		return func(r *http.Request) {
			inner := "GET /pro/smuggled HTTP/1.1\r\nHost: x\r\nX-Polar-User: root\r\n\r\n"
			r.Proto, r.Body, r.ContentLength = protocol, io.NopCloser(strings.NewReader(inner)), -1
		}
	}
	ask := func(site, method, path string, options ...option) (*reply, error) {
		return s.try(method, "https://"+s.sites[site], append(options, func(r *http.Request) {
			if r.URL.Opaque = path; strings.HasPrefix(path, "//") {
				r.URL.Opaque, r.URL.Path = "", path
			}
		})...)
	}
	gated := []string{
		"/pro/x", "/PRO/x", "/%70ro/x", "/%2570ro/x", "//pro/x", "/free/../pro/x", "/free/..;/pro/x", "/free/..%2fpro/x", "/%5cpro/x",
		"/pro;a=b/x", "/index.php/pro/x", "/pro/x#/free", "//x/pro/x", "/pro?/free",
	}
	if n := s.upstream.reached(func() {
		for _, path := range gated {
			for _, method := range []string{"GET", "HEAD", "OPTIONS", "CONNECT", "PRI", "get", "QUERY"} {
				if r, err := ask("app", method, path, forge); err == nil && r.status < 400 {
					t.Errorf("%s %s: got %v", method, path, r)
				}
			}
			if r, err := ask("app", "CONNECT", path, tunnel("websocket")); err != nil || r.status != 401 {
				t.Errorf("a WebSocket at %s: got %v, %v", path, r, err)
			}
		}
	}); n != 0 {
		t.Errorf("%d requests have reached the upstream", n)
	}
	for _, site := range []string{"app", "lines"} {
		if _, err := ask(site, "GET", "/free"); err != nil { // so that the client knows what the server can do
			t.Fatal(err)
		}
		for protocol, status := range map[string]int{"websocket": 200, "WebSocket": 405, "connect-udp": 405, "webtransport": 405} {
			if r, err := ask(site, "CONNECT", "/free", tunnel(protocol)); err != nil || r.status != status {
				t.Errorf("a tunnel for %s at %s: got %v, %v", protocol, site, r, err)
			}
		}
	}
	if app.saw("/pro/smuggled") {
		t.Error("what a tunnel carries has reached the app")
	}
	if r, err := ask("app", "POST", "/free", forge); err != nil {
		t.Errorf("%v", err)
	} else if got := r.seen(t).ours(); len(got) != 0 {
		t.Errorf("of a stranger the upstream was told %v", got)
	}
	if r, err := ask("app", "POST", "/pro/x", forge, as(u.user)); err != nil {
		t.Error(err)
	} else if got := r.seen(t).ours(); got["user"] != u.user || got["plan"] != "pro" || strings.Contains(fmt.Sprint(got), "forged") || strings.Contains(fmt.Sprint(got), "root") {
		t.Errorf("of a subscriber the upstream was told %v", got)
	}
}

// frames speaks raw HTTP/2: it sends what write writes, and returns the statuses of all
// that is answered until the server closes the connection or has answered want times.
func (s *server) frames(t *testing.T, site string, want int, write func(f *http2.Framer, block func(fields ...string) []byte)) (statuses []string) {
	t.Helper()
	conn, err := net.Dial("tcp", s.sites[site])
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	_, _ = io.WriteString(conn, http2.ClientPreface)
	f := http2.NewFramer(conn, conn)
	f.AllowIllegalWrites = true
	f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	var buf bytes.Buffer
	encoder := hpack.NewEncoder(&buf)
	_ = f.WriteSettings()
	var writing sync.WaitGroup
	writing.Go(func() {
		write(f, func(fields ...string) []byte {
			buf.Reset()
			for i := 0; i < len(fields); i += 2 {
				_ = encoder.WriteField(hpack.HeaderField{Name: fields[i], Value: strings.ReplaceAll(fields[i+1], "{host}", s.sites[site])})
			}
			return slices.Clone(buf.Bytes())
		})
	})
	defer writing.Wait()
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return statuses
		}
		switch frame := frame.(type) {
		case *http2.MetaHeadersFrame:
			statuses = append(statuses, frame.PseudoValue("status"))
		case *http2.RSTStreamFrame:
			statuses = append(statuses, "reset")
		case *http2.GoAwayFrame:
			return append(statuses, "go away")
		default:
			continue
		}
		if len(statuses) == want {
			return statuses
		}
	}
}

// TestFramesOfHTTP2 sends frames that no client sends: nothing of them is taken for a
// request to a closed page, or for what we say ourselves.
func TestFramesOfHTTP2(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	app := new(readers)
	srv := httptest.NewServer(app)
	t.Cleanup(srv.Close)
	s.upstream.address = srv.Listener.Addr().String()
	s.start(t, s.caddyfile(usual+"\n\tservers {\n\t\tprotocols h1 h2c\n\t}", s.paywall(t, "app")))
	get := []string{":method", "POST", ":scheme", "http", ":authority", "{host}", ":path", "/free"}
	with := func(more ...string) []string { return append(slices.Clone(get), more...) }
	path := func(p string) []string { return append(slices.Clone(get[:6]), ":path", p) }
	inner := "GET /pro/smuggled HTTP/1.1\r\nHost: x\r\nX-Polar-User: root\r\n\r\n"
	for name, fields := range map[string][]string{
		"two paths":          with(":path", "/pro/x"),
		"two paths, turned":  append(path("/pro/x"), ":path", "/free"),
		"two methods":        with(":method", "CONNECT"),
		"two authorities":    with(":authority", "admin.test"),
		"another host":       with("host", "admin.test"),
		"two hosts":          with("host", "{host}", "host", "admin.test"),
		"a path behind":      with("x", "y", ":path", "/pro/x"),
		"unknown pseudo":     with(":user", "root"),
		"a protocol":         with(":protocol", "websocket"),
		"upper case":         with("X-Polar-User", "root"),
		"a blank in a name":  with("x-polar-user ", "root"),
		"a colon in a name":  with("x-polar-user:", "root"),
		"a line in a value":  with("x", "y\r\nX-Polar-User: root"),
		"a line in a name":   with("x: y\r\nx-polar-user", "root"),
		"connection":         with("connection", "x-polar-user"),
		"an encoding":        with("transfer-encoding", "chunked"),
		"upgrade":            with("upgrade", "h2c"),
		"te":                 with("te", "gzip"),
		"a length too short": with("content-length", "0"),
		"a length too long":  with("content-length", "9999"),
		"two lengths":        with("content-length", "0", "content-length", fmt.Sprint(len(inner))),
		"a signed length":    with("content-length", "+0"),
		"absolute":           path("http://{host}/pro/x"),
		"without a slash":    path("pro/x"),
		"opaque":             path("http:pro/x"),
		"star":               path("*"),
		"empty":              path(""),
		"a fragment":         path("/free#/../pro/x"),
		"NUL":                path("/free\x00/../pro/x"),
		"a line":             path("/free HTTP/1.1\r\nX-Polar-User: root\r\n\r\nGET /pro/smuggled"),
		"a blank":            path("/pro/x /free"),
		"no path":            get[:6],
		"method with line":   append([]string{":method", "GET /pro/smuggled HTTP/1.1\r\n\r\nGET"}, get[2:]...),
		"lower-case method":  append([]string{":method", "connect"}, get[2:]...),
		"no method":          get[2:],
		"scheme with a host": append([]string{":method", "GET", ":scheme", "http://admin.test/pro/x?", ":authority", "{host}"}, get[6:]...),
	} {
		got := s.frames(t, "app", 1, func(f *http2.Framer, block func(...string) []byte) {
			// Split in two, and announced to end later.
			b := block(fields...)
			_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: b[:len(b)/2]})
			_ = f.WriteContinuation(1, true, b[len(b)/2:])
			_ = f.WriteData(1, false, []byte(inner))
			_ = f.WriteHeaders(http2.HeadersFrameParam{
				StreamID: 1, BlockFragment: block("x-polar-user", "root", ":path", "/pro/x"), EndHeaders: true, EndStream: true,
			})
		})
		if len(got) != 1 || app.saw("/pro/") || app.saw("x-polar-") {
			t.Fatalf("%s: %v, the upstream has seen %q", name, got, app.noted)
		}
	}
	// Trailers that nobody has announced, and a header that never ends.
	s.frames(t, "app", 1, func(f *http2.Framer, block func(...string) []byte) {
		_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block(with("trailer", "x-polar-plan")...), EndHeaders: true})
		_ = f.WriteHeaders(http2.HeadersFrameParam{
			StreamID: 1, BlockFragment: block("x-polar-user", "root", "x-polar-plan", "pro"), EndHeaders: true, EndStream: true,
		})
	})
	got := s.frames(t, "app", -1, func(f *http2.Framer, block func(...string) []byte) {
		_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block(get...)})
		for range 1 << 16 {
			if f.WriteContinuation(1, false, block("x-polar-user", strings.Repeat("r", 1000))) != nil {
				return
			}
		}
	})
	if len(got) > 1 || app.saw("x-polar-") {
		t.Errorf("a header without end: %v, the upstream has seen %q", got, app.noted)
	}
	// A thousand that are taken back at once.
	s.frames(t, "app", -1, func(f *http2.Framer, block func(...string) []byte) {
		for i := range uint32(1000) {
			_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 2*i + 1, BlockFragment: block(path("/pro/reset")...), EndHeaders: true, EndStream: true})
			_ = f.WriteRSTStream(2*i+1, http2.ErrCodeCancel)
		}
		_ = f.WriteGoAway(0, http2.ErrCodeNo, nil)
	})
	if app.saw("/pro/") {
		t.Errorf("the upstream has seen %q", app.noted)
	}
	s.talk(t, "app", "GET /free/last HTTP/1.1\r\nHost: {host}\r\nX-Sign: yes\r\nConnection: close\r\n\r\n")
	if !app.saw("/free/last") || !app.saw("x-sign") {
		t.Errorf("a good request is not seen: %q", app.noted)
	}
}

// readers is an application that notes each request as a server of repute reads it.
type readers struct {
	mu    sync.Mutex
	noted []string
}

func (app *readers) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body) // the trailers come behind it
	app.mu.Lock()
	defer app.mu.Unlock()
	app.noted = append(app.noted, strings.ToLower(fmt.Sprint(r.RequestURI, " ", r.Header, r.Trailer)))
}

// saw says whether a text was in a request.
func (app *readers) saw(text string) bool {
	app.mu.Lock()
	defer app.mu.Unlock()
	return slices.ContainsFunc(app.noted, func(request string) bool { return strings.Contains(request, text) })
}

// TestOddClaims has an issuer sign what it should not: whoever is named twice, for ever,
// or by something that is no name, is nobody.
func TestOddClaims(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	blocks := strings.Replace(usual, "jwt secret {env.JWT_SECRET}", `jwt {
			secret {env.JWT_SECRET}
			audience app
			from header Authorization
			from cookie session
		}`, 1)
	s.start(t, s.caddyfile(blocks, s.paywall(t, "app")))
	raw := func(head, claims string) string {
		signing := base64.RawURLEncoding.EncodeToString([]byte(head)) + "." + base64.RawURLEncoding.EncodeToString([]byte(claims))
		sum, err := jwt.SigningMethodHS256.Sign(signing, []byte(jwtSecret))
		if err != nil {
			t.Fatal(err)
		}
		return signing + "." + base64.RawURLEncoding.EncodeToString(sum)
	}
	const head = `{"alg":"HS256","typ":"JWT"}`
	later := fmt.Sprint(time.Now().Add(time.Hour).Unix())
	of := func(sub, exp, aud, more string) string {
		return raw(head, `{"sub":`+sub+`,"exp":`+exp+`,"aud":`+aud+more+`}`)
	}
	good := of(`"ada"`, later, `"app"`, "")
	for name, token := range map[string]string{
		"exp text": of(`"ada"`, `"`+later+`"`, `"app"`, ""), "exp huge": of(`"ada"`, "1e400", `"app"`, ""), "exp milliseconds": of(`"ada"`, later+"000", `"app"`, ""),
		"exp negative": of(`"ada"`, "-"+later, `"app"`, ""), "exp list": of(`"ada"`, "["+later+"]", `"app"`, ""), "exp null": of(`"ada"`, "null", `"app"`, ""),
		"exp true": of(`"ada"`, "true", `"app"`, ""), "exp nested": of(`"ada"`, `{"exp":`+later+`}`, `"app"`, ""),
		"exp twice": of(`"ada"`, later, `"app"`, `,"exp":1`), "exp in capitals": raw(head, `{"sub":"ada","aud":"app","EXP":`+later+`}`),
		"aud number": of(`"ada"`, later, `["app",1]`, ""), "aud nested": of(`"ada"`, later, `[["app"]]`, ""), "aud object": of(`"ada"`, later, `{"app":1}`, ""),
		"aud capitals": of(`"ada"`, later, `"APP"`, ""), "aud blank": of(`"ada"`, later, `"app "`, ""), "aud list text": of(`"ada"`, later, `"[\"app\"]"`, ""),
		"nbf": of(`"ada"`, later, `"app"`, `,"nbf":`+later), "nbf text": of(`"ada"`, later, `"app"`, `,"nbf":"1"`), "nbf null": of(`"ada"`, later, `"app"`, `,"nbf":null`),
		"sub list": of(`["ada"]`, later, `"app"`, ""), "sub empty": of(`""`, later, `"app"`, ""), "sub null": of("null", later, `"app"`, ""), "sub true": of("true", later, `"app"`, ""),
		"sub NUL": of(`"ada\u0000"`, later, `"app"`, ""), "sub line": of(`"ada\r\nX-Polar-Plan: pro"`, later, `"app"`, ""), "sub long": of(`"`+strings.Repeat("a", 256)+`"`, later, `"app"`, ""),
		"sub zeros": of("007", later, `"app"`, ""), "sub float": of("7.0", later, `"app"`, ""), "sub exponent": of("7e0", later, `"app"`, ""), "sub half a pair": of(`"ada\ud800"`, later, `"app"`, ""),
		"sub not UTF-8": of("\"ada\xff\"", later, `"app"`, ""), "sub object": of(`{"sub":"ada"}`, later, `"app"`, ""), "deep": of(strings.Repeat("[", 3000)+strings.Repeat("]", 3000), later, `"app"`, ""),
		"two heads": raw(`{"alg":"HS256","alg":"none"}`, `{"sub":"ada","aud":"app","exp":`+later+`}`), "a list": raw(head, `[{"sub":"ada","aud":"app","exp":`+later+`}]`), "crit": raw(`{"alg":"HS256","crit":["exp"],"exp":1}`, `{"sub":"ada","aud":"app","exp":`+later+`}`),
		"padded": good + "=", "dot behind": good + ".", "part behind": good + ".e30", "blank within": strings.Replace(good, ".", ". ", 1), "standard alphabet": strings.Replace(good, ".", "+/.", 1),
	} {
		s.get(t, "app", whoami, bearer(good)).wants(t, 200) // remembered
		if r := s.get(t, "app", whoami, bearer(token)); r.status != 401 {
			t.Errorf("%s: got %v", name, r)
		}
		if r := s.get(t, "app", whoami, header("Cookie", "session="+token)); r.status != 401 {
			t.Errorf("%s in a cookie: got %v", name, r)
		}
	}
	// The last bits of a signature mean nothing: one token has one spelling.
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	last := strings.IndexByte(alphabet, good[len(good)-1])
	for bits := 1; bits < 4; bits++ {
		s.get(t, "app", whoami, bearer(good[:len(good)-1]+string(alphabet[last^bits]))).wants(t, 401)
	}
	// Users that only look alike are others.
	paid := s.subscribe(t, "app", productPro)
	for _, user := range []string{
		strings.ToUpper(paid.user), paid.user + " ", " " + paid.user, paid.user + "\u200b", strings.Replace(paid.user, "s", "\u0455", 1), strings.Replace(paid.user, "_", "\uff3f", 1),
		paid.user + "%00", paid.user + "/", paid.user + "\u0301", strings.Replace(paid.user, "_", "%5f", 1), "\ufeff" + paid.user,
	} {
		quoted, err := json.Marshal(user)
		if err != nil {
			t.Fatal(err)
		}
		if r := s.get(t, "app", "/pro/x", bearer(of(string(quoted), later, `["other","app"]`, ""))); r.status != 402 {
			t.Errorf("%q: got %v", user, r)
		}
	}
	token := of(`"`+paid.user+`"`, later, `"app"`, "")
	for name, c := range map[string]struct {
		status int
		option option
	}{
		"two headers":       {401, header("Authorization", "Bearer "+token, "Bearer "+token)},
		"a list":            {401, header("Authorization", "Bearer "+token+", Bearer "+token)},
		"lower case":        {200, header("Authorization", "bearer  \t"+token+" ")},
		"no blank":          {401, header("Authorization", "Bearer"+token)},
		"a colon":           {401, header("Authorization", "Bearer: "+token)},
		"twice":             {401, header("Authorization", "Bearer Bearer "+token)},
		"quoted":            {401, header("Authorization", `Bearer "`+token+`"`)},
		"bad beside a good": {401, func(r *http.Request) { bearer("x.y.z")(r); header("Cookie", "session="+token)(r) }},
		"basic beside it":   {200, func(r *http.Request) { r.SetBasicAuth("a", "b"); header("Cookie", "session="+token)(r) }},
		"proxy's header":    {401, header("Proxy-Authorization", "Bearer "+token)},
		"in the query": {401, func(r *http.Request) {
			r.URL.RawQuery = "access_token=" + token + "&token=" + token + "&session=" + token
		}},
		"a cookie's case":   {401, header("Cookie", "Session="+token)},
		"a cookie's prefix": {401, header("Cookie", "__Host-session="+token)},
	} {
		if r := s.get(t, "app", "/pro/x", c.option); r.status != c.status {
			t.Errorf("%s: got %v, want %d", name, r, c.status)
		}
	}
}

// sharedCache is one that stands before Caddy, and keeps to RFC 9111 where it forbids.
// Where it leaves a choice it keeps everything.
type sharedCache struct {
	s    *server
	kept map[string][]keptAnswer
}

type keptAnswer struct {
	asked http.Header
	reply *reply
}

func (c *sharedCache) get(t *testing.T, path string, options ...option) *reply {
	t.Helper()
	request, err := http.NewRequest(http.MethodGet, "http://x"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range options {
		o(request)
	}
	asked := request.Header
	for _, k := range c.kept[path] {
		if !slices.ContainsFunc(strings.Split(strings.Join(k.reply.header["Vary"], ","), ","), func(name string) bool {
			name = http.CanonicalHeaderKey(strings.TrimSpace(name))
			return name == "*" || strings.Join(k.asked[name], "|") != strings.Join(asked[name], "|")
		}) {
			return k.reply
		}
	}
	r := c.s.get(t, "app", path, options...)
	policy := strings.ToLower(strings.Join(r.header["Cache-Control"], ","))
	if strings.Contains(policy, "no-store") || strings.Contains(policy, "private") || strings.Contains(policy, "no-cache") ||
		asked.Get("Authorization") != "" && !strings.Contains(policy, "public") && !strings.Contains(policy, "s-maxage") && !strings.Contains(policy, "must-revalidate") {
		return r
	}
	c.kept[path] = append(c.kept[path], keptAnswer{asked, r})
	return r
}

// TestSharedCache puts a cache before Caddy: nobody gets from it what was another's.
func TestSharedCache(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.write(t, "paper.txt", "what was paid for")
	blocks := strings.Replace(usual, "jwt secret {env.JWT_SECRET}", `jwt {
			secret {env.JWT_SECRET}
			from header Authorization
			from cookie session
		}`, 1)
	s.start(t, s.caddyfile(blocks, s.site(t, "app", `
		root * `+s.dir+`
		polar
		header /pro/* Cache-Control "public, s-maxage=600"
		polar_require /pro/* pro
		polar_require /away/* pro {
			refuse redirect /signin?to={return_to}
		}
		polar_require /error/* pro {
			refuse error
		}
		@paid polar pro
		handle /paper.txt {
			handle @paid {
				file_server
			}
			respond "buy it"
		}
		handle {
			reverse_proxy {upstream}
		}
		handle_errors {
			respond "{err.status_code}"
		}`)))
	payer, other := s.subscribe(t, "app", productPro).user, "stranger"
	how := map[string]func(user string) option{
		"header": as, "cookie": cookie, "browser": func(user string) option {
			return func(r *http.Request) { cookie(user)(r); browser(r) }
		},
	}
	nobody := func(string) option { return func(*http.Request) {} }
	for _, path := range []string{"/pro/x", "/away/x", "/error/x", "/paper.txt", whoami, "/auth/polar/subscription", "/auth/polar/account", "/auth/polar/none"} {
		for way, as := range how {
			for _, order := range [][]string{{payer, other, ""}, {"", other, payer}, {other, payer, ""}} {
				cache := sharedCache{s, make(map[string][]keptAnswer)}
				for _, user := range order {
					as := as
					if user == "" {
						as = nobody
					}
					want, got := s.get(t, "app", path, as(user)), cache.get(t, path, as(user))
					if got.status != want.status || path == "/paper.txt" && got.body != want.body || user != payer && strings.Contains(got.body, payer) {
						t.Errorf("%s by %s, %q of %q: got %v, want %v", path, way, user, order, got, want)
					}
				}
			}
		}
	}
}

// TestTwoGatewaysOnOnePort has two sites that a Host alone tells apart, each with a
// gateway and an issuer of its own.
func TestTwoGatewaysOnOnePort(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.env["OTHER_SECRET"] = "another secret, also of more than thirty-two bytes"
	s.site(t, "app", "")
	_, port, err := net.SplitHostPort(s.sites["app"])
	if err != nil {
		t.Fatal(err)
	}
	second := strings.NewReplacer("polar {", "polar second {", "JWT_SECRET", "OTHER_SECRET").Replace(selling)
	site := func(host, gateway string) string {
		return "http://" + host + ":" + port + " {\nbind 127.0.0.1\npolar " + gateway + "\npolar_require /pro/* pro\nreverse_proxy " + s.upstream.address + "\n}"
	}
	config := s.caddyfile(selling+second, site("a.test", ""), site("b.test", "second"))
	s.start(t, config)
	at := func(host string) option { return func(r *http.Request) { r.Host = host + ":" + port } }
	elsewhere := sign(jwt.SigningMethodHS256, []byte(s.env["OTHER_SECRET"]), claims("ada", nil))
	opened := s.post(t, "/auth/polar/checkout", `{"plan":"pro","successUrl":"/pro/x"}`, mailed("ada"), at("a.test")).wants(t, 200).json(t)
	back := s.pay(t, fmt.Sprint(opened["id"]), "")
	back = back[strings.Index(back, "/auth/"):]
	// What was opened at one comes to nothing at the other.
	if r := s.get(t, "app", back, at("b.test")).wants(t, http.StatusSeeOther); r.header.Get("Location") != "/" {
		t.Errorf("the other takes the state: %v", r.header)
	}
	s.get(t, "app", back, at("a.test")).wants(t, 200)
	for _, c := range []struct {
		host   string
		status int
		option option
	}{
		{"a.test", 200, as("ada")},
		{"b.test", 401, as("ada")},
		{"b.test", 402, bearer(elsewhere)},
		{"a.test", 401, bearer(elsewhere)},
		{"b.test", 401, cookie("ada")},
		{"A.TEST", 200, as("ada")},
		{"B.test", 401, as("ada")},
		{"b.test", 401, func(r *http.Request) {
			as("ada")(r)
			header("X-Forwarded-Host", "a.test")(r)
			header("Forwarded", "host=a.test")(r)
		}},
	} {
		if r := s.get(t, "app", "/pro/x", c.option, at(c.host)); r.status != c.status {
			t.Errorf("%s: got %v, want %d", c.host, r, c.status)
		}
	}
	for target, host := range map[string]string{"http://b.test:" + port + "/pro/x": "a.test:" + port, "http://a.test:" + port + "/pro/x": "b.test:" + port} {
		r := s.raw(t, "app", "GET "+target+" HTTP/1.1\r\nHost: "+host+"\r\nAuthorization: Bearer "+userToken("ada")+"\r\nConnection: close\r\n\r\n")
		if want := map[bool]int{true: 200, false: 401}[strings.Contains(target, "a.test")]; r.status != want {
			t.Errorf("%s with Host %s: got %v, want %d", target, host, r, want)
		}
	}
	// One file cannot be both's.
	shared := strings.Replace(config, "polar second {", "polar second {\nstore bolt {\npath "+s.store()+"\n}", 1)
	if r := s.load(t, shared); r.status == 200 {
		t.Errorf("two gateways share a store: %v", r)
	}
}

// TestHeadersThatTakeLong sends what takes long to read, if it is read badly.
func TestHeadersThatTakeLong(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.start(t, s.caddyfile(usual+"\n\tservers {\n\t\tmax_header_size 2MB\n\t}", s.paywall(t, "app")))
	const size = 900 << 10
	many := func(line string) string { return strings.Repeat(line, size/len(line)) }
	for name, c := range map[string]struct{ target, head string }{
		"languages":        {"/pro/x", "Accept: text/html\r\nAccept-Language: " + many("de-DE-x-a;q=0.5,") + "en\r\n"},
		"dashes":           {"/auth/polar/account", "Accept: text/html\r\nAccept-Language: " + many("a-") + "\r\n"},
		"cookies":          {"/pro/x", "Cookie: " + many("session=a;") + "\r\n"},
		"quotes":           {"/pro/x", "Accept: text/html\r\nCookie: " + many(`polar_loop="1; `) + "\r\n"},
		"paths":            {"/free", many("X-Original-URL: /a/../%2e/;x/p\r\n")},
		"options":          {"/free", "Connection: " + many("X-Polar-User, a,") + "\r\n"},
		"spellings":        {"/free", many("X~Polar~User: root\r\n")},
		"a path":           {"/" + many("%252e/..;/"), ""},
		"a query":          {"/auth/polar/checkout?" + many("products=a,b,&"), "Authorization: Bearer " + userToken("ada") + "\r\n"},
		"a token":          {"/pro/x", "Authorization: Bearer " + many("a.") + "\r\n"},
		"a return address": {"/auth/polar/account?return_to=/" + many("%2e%2e/"), "Authorization: Bearer " + userToken("ada") + "\r\n"},
	} {
		began := time.Now()
		r := s.raw(t, "app", "GET "+c.target+" HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n"+c.head+"\r\n")
		if took := time.Since(began); took > 5*time.Second || r.status >= 500 || len(s.logs()) > 40<<20 {
			t.Errorf("%s: %d after %s, with a log of %d bytes", name, r.status, took, len(s.logs()))
		}
	}
}

// TestOddWebhooks signs bodies that Polar does not send: each is taken, and what comes
// later counts all the same.
func TestOddWebhooks(t *testing.T) {
	t.Parallel()
	s := startPaywall(t)
	quoted := func(v any) string {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	whole := func(body string) func(*subscriber, string) string {
		return func(*subscriber, string) string { return body }
	}
	instead := func(old func(u *subscriber) string, odd string) func(*subscriber, string) string {
		return func(u *subscriber, body string) string { return strings.ReplaceAll(body, old(u), odd) }
	}
	user := func(u *subscriber) string { return quoted(u.user) }
	id := func(u *subscriber) string { return quoted(u.subscription) }
	product := func(u *subscriber) string { return quoted(u.product) }
	end := func(*subscriber) string { return quoted(wire(now.Add(29 * day))) }
	field := func(name string) func(*subscriber) string {
		return func(*subscriber) string { return quoted(name) + ":" }
	}
	for name, odd := range map[string]func(u *subscriber, body string) string{
		"nothing": whole(""), "null": whole("null"), "a list": whole("[]"), "a number": whole("1e999999"), "a word": whole(`"subscription.active"`), "not UTF-8": whole("{\"type\":\"\xff\"}"),
		"no data": whole(`{"type":"subscription.active"}`), "data of text": whole(`{"type":"subscription.active","timestamp":"2026-01-01T00:00:00Z","data":"x"}`),
		"deep":      whole(`{"type":"subscription.active","data":` + strings.Repeat(`{"a":`, 100000) + "1" + strings.Repeat("}", 100000) + "}"),
		"type long": whole(`{"type":"` + strings.Repeat("a", 1<<20) + `","timestamp":"2026-01-01T00:00:00Z","data":{}}`),
		"user long": instead(user, quoted(strings.Repeat("u", 10<<10))), "user huge": instead(user, quoted(strings.Repeat("u", 1<<20))),
		"user with NUL": instead(user, `"a\u0000b"`), "user with a line": instead(user, `"a\nb"`), "user a number": instead(user, "7"), "user a list": instead(user, "[7]"),
		"user not UTF-8": instead(user, "\"a\xffb\""), "user empty": instead(user, `""`),
		"id no UUID": instead(id, `"../../x"`), "id long": instead(id, quoted(strings.Repeat("i", 1<<20))), "id a number": instead(id, "1e400"),
		"product no UUID": instead(product, `"*"`), "end of time": instead(end, `"9999-12-31T23:59:59Z"`), "year 10000": instead(end, `"10000-01-01T00:00:00Z"`),
		"before time": instead(end, `"0000-00-00T00:00:00Z"`), "from the future": instead(field("modified_at"), `"modified_at":"2999-01-01T00:00:00Z","was":`),
		"stamped in the future": instead(field("timestamp"), `"timestamp":"2999-01-01T00:00:00Z","was":`), "twice": instead(field("status"), `"status":"canceled","status":`),
		"seats": instead(field("seats"), `"seats":-99999999999999999999,"was":`), "amount": instead(field("amount"), `"amount":1e999,"was":`),
	} {
		u := newSubscriber(productPro)
		if r := s.webhook(t, "app", []byte(odd(u, string(u.active(t))))); r.status != 200 {
			t.Errorf("%s: got %v", name, r)
		}
		if strings.HasPrefix(name, "user ") {
			u = newSubscriber(productPro) // a customer keeps the first name that Polar tells
		}
		s.deliver(t, "app", u.active(t))
		if r := s.get(t, "app", "/pro/x", as(u.user)); r.status != 200 {
			t.Errorf("after %s: got %v", name, r)
		}
	}
	if log := s.logs(); len(log) > 1<<20 {
		t.Errorf("a log of %d bytes", len(log))
	}
}

// TestAnothersPurchases has somebody act on what others have bought, and the buyer ask for
// what nobody sells, also at once.
func TestAnothersPurchases(t *testing.T) {
	t.Parallel()
	s := startTeam(t)
	patch := func(body, user string) *reply {
		return s.do(t, http.MethodPatch, "app", "/auth/polar/subscription", as(user), text(body))
	}
	mine := s.box.Seats(s.purchase)[0].ID
	truth := func() string {
		bought, _ := s.box.Subscription(s.purchase)
		return fmt.Sprint(bought, s.box.Seats(s.purchase))
	}
	before := truth()
	for i, body := range []string{
		`{"cancelAtPeriodEnd":true,"id":"` + s.purchase + `"}`, `{"seats":1,"id":"` + s.purchase + `"}`, `{"productId":"` + s.basic.ID + `","id":"` + s.purchase + `"}`,
		`{"cancelAtPeriodEnd":true,"id":"../` + s.purchase + `"}`,
	} {
		if r := patch(body, fmt.Sprint("eve", i)); r.status != 404 {
			t.Errorf("a stranger's %s: got %v", body, r)
		}
	}
	for i, c := range [][3]string{
		{"GET", "?id=" + s.purchase, ""},
		{"POST", "", `{"email":"eve@example.com","id":"` + s.purchase + `"}`},
		{"DELETE", "/" + mine, ""},
		{"POST", "/" + mine, ""},
		{"DELETE", "/..%2f" + mine, ""},
		{"DELETE", "/" + strings.ToUpper(mine), ""},
	} {
		if r := s.do(t, c[0], "app", seatsPath+c[1], mailed(fmt.Sprint("mallory", i)), text(c[2])); r.status != 404 {
			t.Errorf("a stranger's %s %s: got %v", c[0], c[1], r)
		}
	}
	s.get(t, "app", "/auth/polar/portal", as("eve")).problem(t, 404, "no_customer")
	for _, body := range []string{
		`{"seats":-1}`, `{"seats":0}`, `{"seats":99999999999999999999}`, `{"seats":1.5}`, `{"seats":"2"}`,
		`{"productId":"` + s.other.ID + `"}`, `{"productId":"` + newID() + `"}`, `{"productId":"*"}`, `{"seats":2,"cancelAtPeriodEnd":true}`,
	} {
		if r := patch(body, "ada"); r.status < 400 || r.status >= 500 {
			t.Errorf("the buyer's %s: got %v", body, r)
		}
	}
	if after := truth(); after != before {
		t.Errorf("the purchase has changed:\n%s\n%s", before, after)
	}
	// Two seats are free: eight invitations at once fill no more.
	var sent sync.WaitGroup
	for i := range 8 {
		sent.Go(func() {
			_, _ = s.try("POST", s.origin()+seatsPath, as("grace"), text(`{"email":"a@example.com"}`))
			_, _ = s.try("POST", s.origin()+seatsPath, as("ada"), text(fmt.Sprintf(`{"email":"guest%d@example.com"}`, i%4)))
		})
	}
	sent.Wait()
	if seats := s.box.Seats(s.purchase); len(seats) > 3 {
		t.Errorf("three were sold: %v", seats)
	}
}

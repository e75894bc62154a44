package integration

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
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

// TestEarlyRequests sends what would act before the handshake of a resumed connection is
// complete, when it could be somebody else's copy: nothing comes of it, until it is.
func TestEarlyRequests(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.start(t, s.caddyfile(selling, s.secureSite(t, "app", "polar\nreverse_proxy {upstream}")))
	config := anyCertificate()
	config.NextProtos, config.ClientSessionCache = []string{http3.NextProtoH3}, tls.NewLRUClientSessionCache(1)
	connect := func() (*quic.Conn, *http3.ClientConn) {
		t.Helper()
		conn, err := quic.DialAddrEarly(t.Context(), s.sites["app"], config, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.CloseWithError(0, "") })
		return conn, new(http3.Transport).NewClientConn(conn)
	}
	ask := func(user, method, path, body string) *http.Request {
		r, err := http.NewRequestWithContext(t.Context(), method, "https://"+s.sites["app"]+"/auth/polar"+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		as(user)(r)
		return r
	}
	waitFor(t, "a ticket to resume with", func() bool {
		conn, client := connect()
		resp, err := client.RoundTrip(ask("ada", "GET", "/products", ""))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return conn.ConnectionState().TLS.DidResume
	})
	for _, c := range []struct {
		method, path, body string
		early, later       int
	}{
		{"POST", "/checkout", `{"plan":"pro"}`, 425, 200},
		{"GET", "/checkout?plan=pro", "", 425, 303},
		{"GET", "/portal", "", 425, 404},
		{"PATCH", "/subscription", `{"cancelAtPeriodEnd":true}`, 425, 404},
		{"POST", "/account", "do=cancel", 425, 400},
		{"POST", "/seats", `{"email":"a@example.com"}`, 425, 404},
		{"DELETE", "/seats/" + newID(), "", 425, 404},
		{"GET", "/entitlements", "", 200, 200}, // to read does no harm
	} {
		// Now and then the handshake is complete by the time the request is looked at.
		waitFor(t, fmt.Sprint(c.early, " to an early ", c.method, " ", c.path), func() bool {
			user := newID()
			conn, client := connect()
			stream, err := client.OpenRequestStream(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			_ = stream.SendRequestHeader(ask(user, c.method, c.path, ""))
			_, _ = stream.Write([]byte(c.body))
			stream.Close()
			early, err := stream.ReadResponse()
			if err != nil {
				t.Fatal(err)
			}
			later, err := client.RoundTrip(ask(user, c.method, c.path, c.body))
			if err != nil {
				t.Fatal(err)
			}
			later.Body.Close()
			if later.StatusCode != c.later {
				t.Fatalf("%s %s: %s once the connection stands", c.method, c.path, later.Status)
			}
			return conn.ConnectionState().Used0RTT && early.StatusCode == c.early
		})
	}
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

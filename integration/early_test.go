//go:build !race

// quic-go's client, which this needs, races with itself while a handshake is under way.

package integration

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

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

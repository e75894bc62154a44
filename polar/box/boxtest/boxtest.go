// Package boxtest starts a Polar in a box for a test.
package boxtest

import (
	"net/http/httptest"
	"testing"

	"github.com/caddy-polar/caddy-polar/polar/box"
	"github.com/caddy-polar/caddy-polar/polar/box/internal/contract"
)

// Server is a box that listens on loopback.
type Server struct {
	*box.Box
	// URL is the base of the API, as https://api.polar.sh is.
	URL string
}

// Start starts a box and stops it at the end of the test. The test fails if the
// box has said anything that Polar's own document does not allow.
func Start(t testing.TB, o box.Options) *Server {
	t.Helper()
	b, c := box.New(o), contract.New(t)
	s := httptest.NewServer(c.Handler(b))
	t.Cleanup(func() {
		s.Close()
		events := b.Events()
		c.Webhooks(len(events), func(i int) string { return events[i].Envelope(box.Version) })
	})
	b.SetBaseURL(s.URL)
	return &Server{b, s.URL}
}

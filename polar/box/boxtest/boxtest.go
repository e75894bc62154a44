// Package boxtest starts a Polar in a box for a test.
package boxtest

import (
	"net/http/httptest"
	"testing"

	"github.com/caddy-polar/caddy-polar/polar/box"
)

// Server is a box that listens on loopback.
type Server struct {
	*box.Box
	// URL is the base of the API, as https://api.polar.sh is.
	URL string
}

// Start starts a box and stops it at the end of the test.
func Start(t testing.TB, o box.Options) *Server {
	t.Helper()
	b := box.New(o)
	s := httptest.NewServer(b)
	t.Cleanup(s.Close)
	b.SetBaseURL(s.URL)
	return &Server{b, s.URL}
}

package boxtest

import (
	"net/http"
	"testing"

	"github.com/caddy-polar/caddy-polar/polar/box"
)

// deaf is a test that notes whether it has failed, and cleans up when told.
type deaf struct {
	testing.TB
	failed   bool
	cleanups []func()
}

func (d *deaf) Errorf(string, ...any) { d.failed = true }
func (d *deaf) Cleanup(f func())      { d.cleanups = append(d.cleanups, f) }

func (d *deaf) end() {
	for len(d.cleanups) > 0 {
		f := d.cleanups[len(d.cleanups)-1]
		d.cleanups = d.cleanups[:len(d.cleanups)-1]
		f()
	}
}

func TestWhatPolarWouldNotSayFailsTheTest(t *testing.T) {
	for name, wrong := range map[string]struct {
		do   func(s *Server)
		fail bool
	}{
		"nothing": {func(s *Server) { s.AddProduct(box.Product{Name: "Pro", Interval: "month"}) }, false},
		"event":   {func(s *Server) { s.AddProduct(box.Product{Name: "Pro", Interval: "fortnight"}) }, true},
		"answer": {func(s *Server) {
			res, err := http.Get(s.URL + "/v1/meters/")
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
		}, true},
	} {
		d := &deaf{TB: t}
		wrong.do(Start(d, box.Options{}))
		d.end()
		if d.failed != wrong.fail {
			t.Errorf("%s: failed is %t", name, d.failed)
		}
	}
}

package session

import (
	"errors"
	"fmt"
	"net/http"
	"testing"

	"github.com/caddy-polar/caddy-polar/identity"
)

// TestProbe: the app is asked without a session, and has to say that nobody is there.
func TestProbe(t *testing.T) {
	app := newApp(t)
	a := newAsker(t, Config{URL: app.URL + "/session?key=hidden"})
	if err := a.Probe(t.Context()); err != nil {
		t.Error(err)
	}
	if c := app.heard().Get("Cookie"); c != probeCookie {
		t.Errorf("asked with %q", c)
	}
	if a.Place() != app.URL+"/session" {
		t.Error(a.Place())
	}
	answers := func(status int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(status)
			fmt.Fprint(w, body)
		}
	}
	for body, want := range map[string]error{
		"{}": nil, `{"user":null}`: nil, `{"user":{"id":"u"}}`: ErrAnybody, `{"user":{"id":["u"]}}`: ErrAnybody, `{"error":"x"}`: identity.ErrUnavailable,
	} {
		app.answers(answers(200, body))
		if err := a.Probe(t.Context()); !errors.Is(err, want) || (err == nil) != (want == nil) {
			t.Errorf("%s: %v, want %v", body, err, want)
		}
	}
	for status, want := range map[int]error{401: nil, 403: nil, 302: nil, 404: identity.ErrUnavailable, 500: identity.ErrUnavailable} {
		app.answers(answers(status, ""))
		if err := a.Probe(t.Context()); !errors.Is(err, want) || (err == nil) != (want == nil) {
			t.Errorf("%d: %v, want %v", status, err, want)
		}
	}
	app.Close()
	if err := a.Probe(t.Context()); !errors.Is(err, identity.ErrUnavailable) {
		t.Errorf("nobody listens: %v", err)
	}
}

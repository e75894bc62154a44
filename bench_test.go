package caddypolar

import (
	"net/http"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// BenchmarkGate is the gate's own cost for a known token and user, with a next
// handler that does nothing. Resetting the request is taken off by "reset".
func BenchmarkGate(b *testing.B) { benchGate(b, "") }

// BenchmarkGateAsserts is the same with what it tells the upstream signed.
func BenchmarkGateAsserts(b *testing.B) { benchGate(b, "\nassertion {\naudience app\n}") }

func benchGate(b *testing.B, more string) {
	app, ctx := provisioned(b, "plan pro "+testProduct+more)
	take(b, app.Gateways["default"], activeNow(b))
	bearer := "Bearer " + token(b, testUser, nil)

	gate := &Gate{Plans: []string{"pro"}}
	gated := &Gate{Plans: []string{"pro"}, Paths: []string{"/pro/*"}}
	handler := &Handler{}
	for _, p := range []caddy.Provisioner{gate, gated, handler} {
		if err := p.Provision(ctx); err != nil {
			b.Fatal(err)
		}
	}
	both := handlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		return handler.ServeHTTP(w, r, handlerFunc(func(w http.ResponseWriter, r *http.Request) error {
			return gated.ServeHTTP(w, r, handlerFunc(noop))
		}))
	})
	for _, bench := range []struct {
		name  string
		serve caddyhttp.HandlerFunc
	}{
		{"reset", noop},
		{"polar_require", func(w http.ResponseWriter, r *http.Request) error { return gate.ServeHTTP(w, r, handlerFunc(noop)) }},
		{"path", func(w http.ResponseWriter, r *http.Request) error { return gated.ServeHTTP(w, r, handlerFunc(noop)) }},
		{"polar+path", both},
	} {
		b.Run(bench.name, func(b *testing.B) {
			b.ReportAllocs()
			w := newRecorder()
			r := prepared(mustRequest(b, "http://localhost/pro/page"), w)
			vars := r.Context().Value(caddyhttp.VarsCtxKey).(map[string]any)
			repl := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
			untouched := *repl
			for b.Loop() {
				clear(r.Header)
				r.Header["Authorization"] = []string{bearer}
				r.Header["Accept"] = []string{"*/*"}
				r.Header["User-Agent"] = []string{"bench"}
				delete(vars, requestVar)
				clear(w.Header())
				*repl = untouched
				if err := bench.serve(w, r); err != nil {
					b.Fatal(err)
				}
			}
			if bench.name != "reset" && r.Header.Get("X-Polar-User") != testUser {
				b.Fatalf("not let through: %v", w.Header())
			}
		})
	}
}

func mustRequest(t testing.TB, url string) *http.Request {
	t.Helper()
	r, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

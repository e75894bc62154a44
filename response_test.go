package caddypolar

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-polar/caddy-polar/entitlement"
	"github.com/caddy-polar/caddy-polar/pages"
)

func TestPrivate(t *testing.T) {
	for in, want := range map[string]string{
		"": "private", "public": "private", "public, max-age=60": "private, max-age=60",
		"private, max-age=5": "private, max-age=5", "no-store": "private, no-store", "no-cache, no-store": "private, no-cache, no-store",
		"Public, S-MaxAge=9, max-age=3": "private, max-age=3", "no-cache": "private, no-cache",
		"must-understand, no-store, public": "private, no-store", `no-cache="a\"b, public, c", max-age=1`: `private, no-cache="a\"b, public, c", max-age=1`,
		`private="a, b", max-age=3`: "private, max-age=3", `no-cache="x,y", public`: `private, no-cache="x,y"`,
	} {
		var lines []string
		if in != "" {
			lines = []string{in}
		}
		if got := private(lines); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestGatedAnswer(t *testing.T) {
	g, gate := proGate(t, "")
	g.vary = "Authorization, Cookie"
	take(t, g, activeNow(t))
	bearer := "Bearer " + token(t, testUser, nil)
	for name, serve := range map[string]func(http.ResponseWriter){
		"header":    func(w http.ResponseWriter) { w.WriteHeader(http.StatusTeapot) },
		"body":      func(w http.ResponseWriter) { _, _ = w.Write([]byte("x")) },
		"empty":     func(http.ResponseWriter) {},
		"read from": func(w http.ResponseWriter) { _, _ = w.(*gatedWriter).ReadFrom(strings.NewReader("x")) },
		"flush":     func(w http.ResponseWriter) { _ = http.NewResponseController(w).Flush() },
		"old flush": func(w http.ResponseWriter) { w.(http.Flusher).Flush() },
		"late": func(w http.ResponseWriter) {
			w.WriteHeader(http.StatusOK)
			w.Header().Set("Cache-Control", "public") // a trailer at most
			_, _ = w.Write([]byte("x"))
		},
		"hint": func(w http.ResponseWriter) { w.WriteHeader(http.StatusEarlyHints); w.WriteHeader(http.StatusOK) },
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Cache-Control", "public, max-age=60")
				w.Header().Set("Surrogate-Control", "max-age=60")
				w.Header().Set("Cloudflare-CDN-Cache-Control", "max-age=60")
				w.Header().Set("Vary", "Accept-Encoding, X-Authorization")
				r.Header.Set("Authorization", bearer)
				if err := gate.ServeHTTP(w, prepared(r, w), handlerFunc(func(w http.ResponseWriter, _ *http.Request) error {
					serve(w)
					return nil
				})); err != nil {
					t.Error(err)
				}
			}))
			defer server.Close()
			res, err := server.Client().Get(server.URL)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			if got := res.Header.Get("Cache-Control"); got != "private, max-age=60" {
				t.Errorf("Cache-Control: %q", got)
			}
			if got := strings.Join(res.Header["Vary"], ", "); got != "Accept-Encoding, X-Authorization, Authorization, Cookie" {
				t.Errorf("Vary: %q", got)
			}
			for _, name := range []string{"Surrogate-Control", "Cloudflare-CDN-Cache-Control"} {
				if got := res.Header.Get(name); got != "" {
					t.Errorf("%s: %q", name, got)
				}
			}
		})
	}
}

// TestDocumented: each code has words of its own and an entry in the docs.
func TestDocumented(t *testing.T) {
	docs, err := os.ReadFile("docs/codes.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, reason := range entitlement.RefusedReasons {
		if _, _, ok := pages.Message(string(reason)); !ok {
			t.Errorf("%s has no words", reason)
		}
	}
	for _, code := range pages.Codes() {
		if title, detail, _ := pages.Message(code); title == "" || detail == "" {
			t.Errorf("%s has no words", code)
		}
		if !strings.Contains(string(docs), "\n### "+code+"\n") {
			t.Errorf("%s has no entry in docs/codes.md", code)
		}
	}
	for _, reason := range entitlement.AllowedReasons {
		if !strings.Contains(string(docs), fmt.Sprintf("| `%s` |", reason)) {
			t.Errorf("%s is not in the table of docs/codes.md", reason)
		}
	}
}

func TestNavigation(t *testing.T) {
	for _, test := range []struct {
		method string
		header http.Header
		want   bool
	}{
		{"GET", http.Header{"Accept": {"text/html,*/*"}}, true},
		{"HEAD", http.Header{"Accept": {"text/html"}}, true},
		{"POST", http.Header{"Accept": {"text/html"}, "Sec-Fetch-Mode": {"navigate"}}, false},
		{"GET", http.Header{"Accept": {"text/html"}, "Sec-Fetch-Mode": {"cors"}}, false},
		{"GET", http.Header{"Accept": {"*/*"}}, false},
		{"GET", http.Header{"Sec-Fetch-Mode": {"navigate"}}, true},
	} {
		r := mustRequest(t, "http://localhost/")
		r.Method, r.Header = test.method, test.header
		if got := isNavigation(r); got != test.want {
			t.Errorf("%s %v: %v", test.method, test.header, got)
		}
	}
}

// TestRefuseError: the error is Caddy's own kind, unwrapped, and says nothing
// that a visitor must not read.
func TestRefuseError(t *testing.T) {
	_, ctx := provisioned(t, "plan pro "+testProduct)
	gate := &Gate{Plans: []string{"pro"}, Refuse: refuseError}
	if err := gate.Provision(ctx); err != nil {
		t.Fatal(err)
	}
	w := newRecorder()
	r := mustRequest(t, "http://localhost/x")
	r.Header.Set("Authorization", "Bearer "+token(t, "nobody", nil))
	err := gate.ServeHTTP(w, prepared(r, w), handlerFunc(noop))
	he, ok := err.(caddyhttp.HandlerError) //nolint:errorlint // Caddy asserts the type in the same way
	if !ok || he.StatusCode != http.StatusPaymentRequired || !errors.Is(err, he.Err) {
		t.Fatalf("%T %v", err, err)
	}
	if he.Err.Error() != "no_subscription: A subscription is required" {
		t.Error(he.Err)
	}
}

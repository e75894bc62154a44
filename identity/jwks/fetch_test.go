package jwks

import (
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestParseURL(t *testing.T) {
	for address, says := range map[string]string{
		"https://id.example/keys":             "",
		"https://id.example:8443/keys?k=v":    "",
		"http://localhost:3000/api/auth/jwks": "",
		"http://127.0.0.1/jwks":               "",
		"http://[::1]:1/jwks":                 "",
		"http://id.example/keys":              "https",
		"http://127.0.0.1.example/keys":       "https",
		"http://localhost.example/keys":       "https",
		"ftp://id.example/secret":             "https",
		"file:///secret":                      "form",
		"https:id.example/secret":             "form",
		"//id.example/secret":                 "https",
		"id.example/secret":                   "form",
		"https://":                            "form",
		"https://:443/secret":                 "form",
		"":                                    "form",
		"https://u:secret@id.example/keys":    "password",
		"https://secret@id.example/keys":      "password",
		"https://id.example/keys#secret":      "fragment",
		"https://id.example/%zzsecret":        "form",
	} {
		_, err := ParseURL(address)
		if says == "" {
			if err != nil {
				t.Errorf("%s: %v", address, err)
			}
			continue
		}
		if !errors.Is(err, ErrURL) || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v, want %q", address, err, says)
		}
	}
}

func TestAge(t *testing.T) {
	for _, test := range []struct {
		control, age string
		want         time.Duration
	}{
		{"", "", defaultAge},
		{"", "3600", defaultAge},
		{"public", "", defaultAge},
		{"max-age=3600", "", time.Hour},
		{"public, MAX-AGE=3600 , must-revalidate", "", time.Hour},
		{`max-age="3600"`, "", time.Hour},
		{"max-age=3600", "1800", 30 * time.Minute},
		{"max-age=3600", "7200", time.Minute},
		{"max-age=3600", "-5", time.Hour},
		{"max-age=3600", "soon", time.Hour},
		{"max-age=59", "", time.Minute},
		{"max-age=0", "", time.Minute},
		{"max-age=-1", "", time.Minute},
		{"max-age=", "", time.Minute},
		{"max-age=soon", "", time.Minute},
		{"max-age=86401", "", 24 * time.Hour},
		{"max-age=99999999999999999999999", "", 24 * time.Hour},
		{"max-age=18446744073709551615", "1", 24 * time.Hour},
		{"no-cache, max-age=3600", "", time.Minute},
		{"max-age=3600, no-store", "", time.Minute},
		{"s-maxage=3600", "", defaultAge},
	} {
		h := http.Header{"Cache-Control": {test.control}, "Age": {test.age}}
		if got := age(h); got != test.want {
			t.Errorf("%q, Age %q: %v, want %v", test.control, test.age, got, test.want)
		}
	}
}

// TestFetch is with a real server and TLS.
func TestFetch(t *testing.T) {
	elsewhere := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, ids(7)) }))
	defer elsewhere.Close()
	plain := httptest.NewServer(elsewhere.Config.Handler)
	defer plain.Close()
	mux := http.NewServeMux()
	server := httptest.NewUnstartedServer(mux)
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	defer server.Close()
	to := func(path, where string) {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, where, http.StatusFound) })
	}
	mux.HandleFunc("/keys", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html") // as some do
		w.Header().Set("Cache-Control", "max-age=120")
		if r.Header.Get("Cookie")+r.Header.Get("Authorization") != "" || !strings.Contains(r.Header.Get("Accept"), "json") {
			t.Errorf("asked with %v", r.Header)
		}
		fmt.Fprint(w, ids(1))
	})
	mux.HandleFunc("/huge", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"keys":[`)
		for range 1 << 12 {
			if _, err := fmt.Fprint(w, strings.Repeat(" ", 1<<10)); err != nil {
				return
			}
		}
	})
	mux.HandleFunc("/cut", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "5000")
		fmt.Fprint(w, ids(1))
	})
	mux.HandleFunc("/header", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Huge", strings.Repeat("x", 1<<18))
		fmt.Fprint(w, ids(1))
	})
	to("/near", "/keys")
	to("/loop", "/loop")
	to("/far", elsewhere.URL+"/keys")
	to("/down", plain.URL+"/keys")
	to("/plain", strings.Replace(server.URL, "https", "http", 1)+"/keys")
	to("/user", strings.Replace(server.URL, "https://", "https://u:p@", 1)+"/keys")
	to("/broken", "http://[hidden")

	trusting := newClient(nil).Transport.(*http.Transport)
	trusting.TLSClientConfig = server.Client().Transport.(*http.Transport).TLSClientConfig
	for path, want := range map[string]error{
		"/keys": nil, "/near": nil, "/far": errRedirect, "/down": errRedirect, "/plain": errRedirect, "/user": errRedirect,
		"/loop": errRedirect, "/broken": ErrUnreachable, "/missing": ErrRefused, "/huge": errTooLarge, "/cut": ErrUnreachable, "/header": ErrUnreachable,
	} {
		feed := must(NewFeed(server.URL+path+"?apikey=hidden", Options{Transport: trusting}))
		doc, fresh, err := feed.fetch(t.Context())
		if !errors.Is(err, want) || (want == nil) != (err == nil) {
			t.Errorf("%s: %v, want %v", path, err, want)
		}
		if err == nil && (len(doc.keys) != 1 || fresh != 2*time.Minute) {
			t.Errorf("%s: %d keys, current for %v", path, len(doc.keys), fresh)
		}
		if err != nil && strings.Contains(err.Error(), "apikey=hidden") {
			t.Errorf("%s: the error shows the query: %v", path, err)
		}
		feed.Close()
	}
	feed := must(NewFeed(server.URL+"/keys", Options{})) // which does not know the server's certificate
	defer feed.Close()
	if _, _, err := feed.fetch(t.Context()); !errors.Is(err, ErrUnreachable) {
		t.Errorf("a certificate that nobody trusts: %v", err)
	}
}

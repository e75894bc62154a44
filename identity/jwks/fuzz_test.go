package jwks

import (
	"net/http"
	"net/url"
	"testing"
)

// FuzzAge: whatever an issuer says of its answer, the keys are asked for again within
// our bounds.
func FuzzAge(f *testing.F) {
	for _, s := range []string{"", "max-age=60", "no-store, max-age=1", `MAX-AGE="3600"`, "max-age=99999999999999999999", "max-age=-1", "max-age=", "s-maxage=1,max-age=600, max-age=0"} {
		f.Add(s, "10")
	}
	f.Add("max-age=600", "99999999999999999999")
	f.Fuzz(func(t *testing.T, control, passed string) {
		if got := age(http.Header{"Cache-Control": {control, control}, "Age": {passed}}); got < minAge || got > maxAge {
			t.Fatalf("%q, %q: %s", control, passed, got)
		}
	})
}

// FuzzParseURL: keys come over HTTPS or from this machine, and no error shows the URL.
func FuzzParseURL(f *testing.F) {
	for _, s := range []string{"https://id.example/jwks", "http://localhost:1/", "http://127.0.0.1.evil.example/", "http://[::1]/", "https://u:p@id.example", "//id.example", "https:id.example", "http://localhost@evil.example/", "https://id.example/#x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, address string) {
		u, err := ParseURL(address)
		if err != nil {
			return
		}
		again, err := url.Parse(u.String())
		if err != nil || again.Host != u.Host || again.Scheme != u.Scheme {
			t.Fatalf("%q became %v, %v", address, again, err)
		}
		if u.User != nil || u.Hostname() == "" || u.Scheme != "https" && (u.Scheme != "http" || !isLoopback(again.Hostname())) {
			t.Fatalf("%q is asked for keys", address)
		}
	})
}

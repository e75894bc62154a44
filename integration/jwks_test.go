package integration

import (
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/golang-jwt/jwt/v5"
)

// TestJWKS runs a server whose users come from a JWKS URL: it starts without the keys,
// gets them, keeps them over a reload and a crash, and asks nobody to validate.
func TestJWKS(t *testing.T) {
	t.Parallel()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	var up atomic.Bool
	var asked atomic.Int64
	issuer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		if !up.Load() {
			http.Error(w, "<h1>down</h1>", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintf(w, `{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"k","use":"sig","x":%q}]}`, base64.RawURLEncoding.EncodeToString(public))
	}))
	defer issuer.Close()

	s := newServer(t)
	s.env["JWKS_URL"] = issuer.URL + "/jwks?apikey=very-secret"
	block := func(more string) string {
		return "polar {\njwt {\njwks {env.JWKS_URL}\nissuer https://id.example\naudience app\n}\nplan pro {env.PRODUCT_PRO}\nplan basic {env.PRODUCT_BASIC}\n" + more + "\n}"
	}
	config := s.caddyfile(block(""), s.paywall(t, "app"))
	if out, err := s.command("validate", "--adapter", "caddyfile", "--config", s.write(t, "Caddyfile", config)); err != nil || asked.Load() != 0 {
		t.Fatalf("%d requests, %v: %s", asked.Load(), err, out)
	}

	token := func(kid, iss string) string {
		token := jwt.NewWithClaims(jwt.SigningMethodEdDSA, claims("ada", object{"iss": iss, "aud": "app"}))
		token.Header["kid"] = kid
		signed, err := token.SignedString(private)
		if err != nil {
			t.Fatal(err)
		}
		return signed
	}
	good := token("k", "https://id.example")
	s.start(t, config)
	r := s.get(t, "app", "/pro/x", bearer(good))
	r.problem(t, 503, "unavailable")
	if r.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	s.get(t, "app", "/pro/x", bearer(token("k", "https://evil.example"))).problem(t, 401, "token_invalid")
	s.get(t, "app", "/free").wants(t, 200)
	up.Store(true)
	waitFor(t, "the keys", func() bool { return s.get(t, "app", "/pro/x", bearer(good)).status == 402 })
	wantUser(t, s.get(t, "app", whoami, bearer(good)), "ada")
	s.get(t, "app", "/pro/x", bearer(flip(good, 2))).problem(t, 401, "token_invalid")
	waitFor(t, "the keys asked again for one that is not there", func() bool {
		return s.get(t, "app", "/pro/x", bearer(token("other", "https://id.example"))).status == 401
	})

	before := asked.Load()
	s.load(t, s.caddyfile(block("headers X-Gate-"), s.paywall(t, "app"))).wants(t, 200)
	s.get(t, "app", "/pro/x", bearer(good)).problem(t, 402, "no_subscription")
	if asked.Load() != before {
		t.Error("a reload has fetched the keys")
	}

	up.Store(false)
	s.kill()
	s.start(t, config)
	s.get(t, "app", "/pro/x", bearer(good)).problem(t, 402, "no_subscription")
	if logs := s.logs(); strings.Contains(logs, "very-secret") || strings.Contains(logs, good) {
		t.Error("the log shows a secret")
	}
}

package jwks

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/caddy-polar/caddy-polar/identity"
)

// BenchmarkRemembered compares a remembered token of a set of keys with one of a
// secret that is as long.
func BenchmarkRemembered(b *testing.B) {
	secret := []byte(strings.Repeat("s", 32))
	feed := must(NewFeed(address, Options{Transport: newIssuer(set(jwk(ecKey(), "ec", nil), jwk(rsaKey(), "rsa", nil)))}))
	defer feed.Close()
	keys := must(New(feed, Config{}))
	v := must(identity.New([]identity.Block{
		{Keys: keys, Issuers: []string{"iss"}, Audiences: []string{"app"}},
		{Secret: secret, Issuers: []string{"iss"}, Audiences: []string{"app"}},
	}))
	defer v.Close()
	now := time.Now()
	sign := func(method jwt.SigningMethod, key any, kid, pad string) string {
		token := jwt.NewWithClaims(method, jwt.MapClaims{"iss": "iss", "aud": "app", "sub": "alice", "exp": now.Add(time.Hour).Unix(), "pad": pad})
		token.Header["kid"] = kid
		return must(token.SignedString(key))
	}
	for _, other := range []string{
		sign(jwt.SigningMethodES256, ecKey(), "ec", ""), sign(jwt.SigningMethodRS256, rsaKey(), "rsa", ""),
	} {
		same := sign(jwt.SigningMethodHS256, secret, "k", "")
		for n := 1; len(same) < len(other); n++ {
			same = sign(jwt.SigningMethodHS256, secret, "k", strings.Repeat("x", n))
		}
		for _, bench := range []struct{ name, token string }{{"secret", same}, {"jwks", other}} {
			b.Run(fmt.Sprintf("%s/%d", bench.name, len(bench.token)), func(b *testing.B) {
				h := http.Header{"Authorization": {"Bearer " + bench.token}}
				must(v.Identify(context.Background(), h, now))
				b.ReportAllocs()
				for b.Loop() {
					if _, err := v.Identify(context.Background(), h, now); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

package main

import (
	"testing"

	"github.com/golang-jwt/jwt/v5"
)

func TestMint(t *testing.T) {
	const secret, issuer = "0123456789abcdef0123456789abcdef", "http://127.0.0.1:1"
	m, seen := newMint(secret, issuer), map[string]bool{}
	for serial := range uint64(3) {
		for _, forged := range []bool{false, true} {
			token := string(m.token([]byte("Bearer "), "usr_7", serial, forged))[len("Bearer "):]
			if seen[token] {
				t.Error("twice the same token")
			}
			seen[token] = true
			var claims jwt.RegisteredClaims
			_, err := jwt.ParseWithClaims(token, &claims, func(*jwt.Token) (any, error) { return []byte(secret), nil },
				jwt.WithValidMethods([]string{"HS256"}), jwt.WithIssuer(issuer), jwt.WithAudience(audience), jwt.WithExpirationRequired())
			if (err != nil) != forged || claims.Subject != "usr_7" {
				t.Errorf("forged %v: %v, %+v", forged, err, claims)
			}
		}
	}
}

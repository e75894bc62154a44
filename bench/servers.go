package main

import (
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"log"
	"math/big"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// serve runs one of our own servers, as a process of its own so that its CPU
// can be told from the gateway's.
func serve(name string, args []string) {
	var handler http.Handler
	switch name {
	case "flooder":
		if err := serveFlooder(args[0]); err != nil {
			log.Fatal(err)
		}
		return
	case "upstream":
		handler = upstream()
	case "auth":
		users, err := strconv.Atoi(args[1])
		if err != nil {
			log.Fatal(err)
		}
		pem, err := os.ReadFile(args[2])
		if err != nil {
			log.Fatal(err)
		}
		key, err := jwt.ParseRSAPublicKeyFromPEM(pem)
		if err != nil {
			log.Fatal(err)
		}
		handler = authoriser("http://"+args[0], os.Getenv("BENCH_JWT_SECRET"), users, key)
	default:
		log.Fatalf("there is no server %q", name)
	}
	server := &http.Server{Addr: args[0], Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	log.Fatal(server.ListenAndServe())
}

// upstream is the app behind the gateway.
func upstream() http.Handler {
	body := []byte(strings.Repeat("0123456789abcdef", bodySize["proxy"]/16))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		_, _ = w.Write(body)
	})
}

// authoriser is what one would write for forward_auth and auth_request: the
// token, then the user in a map. For oauth2-proxy it publishes a key too.
func authoriser(issuer, secret string, users int, key *rsa.PublicKey) http.Handler {
	var mu sync.RWMutex
	plans := make(map[string]string, users)
	for i := range users {
		plans[userID(i)] = "pro"
	}
	parser := jwt.NewParser(jwt.WithValidMethods([]string{"HS256"}), jwt.WithIssuer(issuer), jwt.WithAudience(audience), jwt.WithExpirationRequired())
	keyFunc := func(*jwt.Token) (any, error) { return []byte(secret), nil }

	mux := http.NewServeMux()
	mux.HandleFunc("/check", func(w http.ResponseWriter, r *http.Request) {
		token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		var claims jwt.RegisteredClaims
		if ok {
			_, err := parser.ParseWithClaims(token, &claims, keyFunc)
			ok = err == nil
		}
		if !ok {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		mu.RLock()
		plan := plans[claims.Subject]
		mu.RUnlock()
		if plan == "" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		w.Header().Set("X-User", claims.Subject)
		w.Header().Set("X-Plan", plan)
	})
	publish := func(path string, document map[string]any) {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(document)
		})
	}
	publish("/.well-known/openid-configuration", map[string]any{
		"issuer": issuer, "authorization_endpoint": issuer + "/authorize", "token_endpoint": issuer + "/token", "jwks_uri": issuer + "/keys",
		"response_types_supported": []string{"code"}, "subject_types_supported": []string{"public"}, "id_token_signing_alg_values_supported": []string{"RS256"},
	})
	publish("/keys", map[string]any{"keys": []map[string]string{{
		"kty": "RSA", "use": "sig", "alg": "RS256", "n": base64.RawURLEncoding.EncodeToString(key.N.Bytes()),
		"e": base64.RawURLEncoding.EncodeToString(big.NewInt(int64(key.E)).Bytes()),
	}}})
	return mux
}

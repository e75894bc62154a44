package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/golang-jwt/jwt/v5"
)

// A flooder sends no token twice, keeps to its rate and its count, and says how
// it was answered.
func TestFlooder(t *testing.T) {
	const secret = "0123456789abcdef0123456789abcdef"
	var (
		mu    sync.Mutex
		seen  map[string]int
		users map[string]int
	)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		var claims jwt.RegisteredClaims
		_, err := jwt.ParseWithClaims(token, &claims, func(*jwt.Token) (any, error) { return []byte(secret), nil })
		mu.Lock()
		defer mu.Unlock()
		seen[token]++
		users[claims.Subject]++
		if err != nil {
			http.Error(w, "no", http.StatusUnauthorized)
		}
	}))
	defer server.Close()
	for name, test := range map[string]struct {
		flooding
		status, users, requests int
	}{
		"forged":    {flooding{Forged: true, Users: 5, Count: 200}, 401, 5, 200},
		"in turn":   {flooding{InTurn: true, Users: 50, Count: 50}, 200, 50, 50},
		"strangers": {flooding{Strangers: true, Count: 100}, 200, 100, 100},
		"paced":     {flooding{Users: 3, Rate: 500, Seconds: 0.4}, 200, 3, 200},
	} {
		seen, users = map[string]int{}, map[string]int{}
		f := test.flooding
		f.Addr, f.Connections, f.First = strings.TrimPrefix(server.URL, "http://"), 4, 1000
		if f.Seconds == 0 {
			f.Seconds = 30
		}
		got, err := f.run(t.Context(), secret)
		if err != nil {
			t.Fatal(name, err)
		}
		few := 0
		if f.Rate > 0 {
			few = 3 * burst * f.Connections // a slow machine
		}
		if got.Requests > test.requests+burst || got.Requests < test.requests-few || got.Status[test.status] != got.Requests || got.Failed != 0 {
			t.Errorf("%s: %+v", name, got)
		}
		if len(seen) != got.Requests || len(users) != test.users {
			t.Errorf("%s: %d tokens of %d users in %d requests", name, len(seen), len(users), got.Requests)
		}
	}
}

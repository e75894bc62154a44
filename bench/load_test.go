package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// Our own client sends each token in turn, and counts what is not 2xx.
func TestOwnLoad(t *testing.T) {
	var tokens [2]atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") == "Bearer good" {
			tokens[0].Add(1)
			return
		}
		tokens[1].Add(1)
		http.Error(w, "no", http.StatusForbidden)
	}))
	defer server.Close()
	result, err := ownLoad(t.Context(), strings.TrimPrefix(server.URL, "http://"), []string{"good", "bad"}, 3, 50*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	good, bad := int(tokens[0].Load()), int(tokens[1].Load())
	if result.requests != good+bad || result.errors != bad || good == 0 || bad == 0 || result.p99 < result.p50 {
		t.Errorf("%+v; the server saw %d good and %d bad", result, good, bad)
	}
}

package caddypolar

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-polar/caddy-polar/polar/box"
	"github.com/caddy-polar/caddy-polar/polar/box/boxtest"
)

// TestHealthOfASite: without health it is not there; with it, it tells by the
// status, and nothing else.
func TestHealthOfASite(t *testing.T) {
	app, ctx := provisioned(t, "plan pro "+testProduct)
	ask := func(directive, method, path string) *httptest.ResponseRecorder {
		t.Helper()
		h := new(Handler)
		if err := h.UnmarshalCaddyfile(caddyfile.NewTestDispenser(directive)); err != nil {
			t.Fatal(err)
		}
		if err := h.Provision(ctx); err != nil {
			t.Fatal(err)
		}
		w := newRecorder()
		r := httptest.NewRequest(method, path, nil)
		if err := h.ServeHTTP(w, prepared(r, w), handlerFunc(func(w http.ResponseWriter, _ *http.Request) error {
			w.WriteHeader(http.StatusTeapot) // the app
			return nil
		})); err != nil {
			t.Fatal(err)
		}
		return w
	}
	const with, elsewhere = "polar {\nhealth\n}", "polar {\npath /p\nhealth\n}"
	for _, tt := range []struct {
		directive, method, path string
		status                  int
	}{
		{with, "GET", "/auth/polar/health/live", 200},
		{with, "HEAD", "/auth/polar/health/live", 200},
		{with, "GET", "/auth/polar/health/ready", 200},
		{with, "HEAD", "/auth/polar/health/ready", 200},
		{with, "OPTIONS", "/auth/polar/health/ready", 204},
		{with, "POST", "/auth/polar/health/ready", 405},
		{elsewhere, "GET", "/p/health/ready", 200},
		{elsewhere, "GET", "/auth/polar/health/ready", 418},
	} {
		w := ask(tt.directive, tt.method, tt.path)
		if w.Code != tt.status || w.Body.Len() > 0 {
			t.Errorf("%s %s: %d %s, want %d", tt.method, tt.path, w.Code, w.Body, tt.status)
		}
		if h := w.Header(); tt.status != 418 && h.Get("Cache-Control") != "no-store" || (h.Get("Allow") != "") != (tt.status == 204 || tt.status == 405) {
			t.Errorf("%s %s: %v", tt.method, tt.path, h)
		}
	}
	for _, path := range []string{"/auth/polar/health/live", "/auth/polar/health/ready"} {
		if w := ask("polar", "GET", path); w.Code != 404 {
			t.Errorf("%s without the word: %d", path, w.Code)
		}
	}
	for _, path := range []string{"/auth/polar/health", "/auth/polar/health/", "/auth/polar/health/ready/", "/auth/polar/health/x"} {
		if w := ask(with, "GET", path); w.Code != 404 {
			t.Errorf("%s: %d", path, w.Code)
		}
	}

	if err := os.Truncate(app.Gateways["default"].mirror.Path(), 0); err != nil {
		t.Fatal(err)
	}
	if w := ask(with, "GET", "/auth/polar/health/ready"); w.Code != 503 || w.Body.Len() > 0 {
		t.Errorf("without a store: %d %s", w.Code, w.Body)
	}
	if w := ask(with, "GET", "/auth/polar/health/live"); w.Code != 200 {
		t.Errorf("without a store it still lives: %d", w.Code)
	}
	if err := new(Handler).UnmarshalCaddyfile(caddyfile.NewTestDispenser("polar {\nhealth on\n}")); err == nil || !strings.Contains(err.Error(), "health takes no argument") {
		t.Error(err)
	}
}

// TestAdminReady: one gateway that is not ready keeps all from being it, and says
// why; it can be asked about alone.
func TestAdminReady(t *testing.T) {
	b := boxtest.Start(t, box.Options{Start: time.Now(), SigningClock: time.Now})
	b.SetTrouble(box.Trouble{HTML: true})
	app, _ := provisioned(t, fmt.Sprintf("plan pro %s\n}\npolar filling {\nserver %s\naccess_token %s\njwt secret %s\nplan pro %s",
		testProduct, b.URL, b.NewToken(), testJWTSecret, testProduct))
	a := newAdminAPI(t, app)
	status, v, _ := a.do("GET", "/polar/health/ready", "")
	list := v["gateways"].([]any)
	fine, filling := list[0].(map[string]any), list[1].(map[string]any)
	if status != 503 || v["ready"] != false || len(list) != 2 || filling["gateway"] != "filling" || filling["ready"] != false ||
		filling["reason"] != "first_sync" || !strings.Contains(filling["error"].(string), "first sync is not done") ||
		fine["gateway"] != "default" || fine["ready"] != true || fine["reason"] != "" || fine["error"] != "" {
		t.Error(status, v)
	}
	if status, v, _ := a.do("GET", "/polar/health/ready?gateway=filling", ""); status != 503 || len(v["gateways"].([]any)) != 1 {
		t.Error(status, v)
	}
	if v := a.ok("GET", "/polar/health/ready?gateway=default", ""); v["ready"] != true || len(v["gateways"].([]any)) != 1 {
		t.Error(v)
	}
	if v := newAdminAPI(t, new(App)).ok("GET", "/polar/health/ready", ""); v["ready"] != true {
		t.Error(v) // nothing is missing
	}
}

// TestHealthWithoutApp: a Caddy without gateways lives, and is not ready.
func TestHealthWithoutApp(t *testing.T) {
	admin := &Admin{app: func() (*App, error) { return loadApp(caddy.Context{}) }}
	w := newRecorder()
	if err := admin.serve(w, httptest.NewRequest(http.MethodGet, "/polar/health/live", nil)); err != nil || w.Code != 200 {
		t.Error(err, w.Code)
	}
	err := admin.serve(newRecorder(), httptest.NewRequest(http.MethodGet, "/polar/health/ready", nil))
	if failure, ok := errors.AsType[caddy.APIError](err); !ok || failure.HTTPStatus != 409 {
		t.Error(err)
	}
}

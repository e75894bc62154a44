package caddypolar

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
)

// TestPageIsChecked: what cannot be used is told when it is loaded, with the word it
// stands behind.
func TestPageIsChecked(t *testing.T) {
	dir := t.TempDir()
	texts := filepath.Join(dir, "texts.json")
	if err := os.WriteFile(texts, []byte(`{"en": {"no.such": "text"}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for config, want := range map[string]string{
		"page {\nlogo " + filepath.Join(dir, "none.svg") + "\n}": "page: the brand cannot be used: logo: ",
		"page {\nlogo " + texts + "\n}":                          "is no SVG, PNG",
		"page {\ntexts " + texts + "\n}":                         `there is no text "no.such"`,
		"page {\ncolor {env.NO_SUCH_COLOR}\n}":                   "page: color: {env.NO_SUCH_COLOR} is empty",
		"login_url {env.NO_SUCH_LOGIN}":                          "login_url: {env.NO_SUCH_LOGIN} is empty",
		"login_url {env.HOME_OF_LOGIN}/in?back={return_to}":      `login_url: "javascript:/in?back={return_to}" is no address`,
		"upgrade_url /plans?{no.such.placeholder}":               "upgrade_url: a placeholder in it is unknown or empty",
	} {
		t.Setenv("HOME_OF_LOGIN", "javascript:")
		adapted, err := adapt(globals(t, config))
		if err != nil {
			t.Fatal(err)
		}
		cfg := new(caddy.Config)
		if err := json.Unmarshal(adapted, cfg); err != nil {
			t.Fatal(err)
		}
		if _, err = caddy.ProvisionContext(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, not %q", config, err, want)
		}
	}
}

func TestAwayAddressesAreResolved(t *testing.T) {
	t.Setenv("LOGIN_HOST", "https://id.example.com")
	app, _ := provisioned(t, "login_url {env.LOGIN_HOST}/in?back={return_to}\nupgrade_url /plans?why={reason}&to={return_to}")
	g := app.Gateways["default"]
	if g.loginURL != "https://id.example.com/in?back={return_to}" || g.upgradeURL != "/plans?why={reason}&to={return_to}" {
		t.Errorf("%q, %q", g.loginURL, g.upgradeURL)
	}
}

func TestIsHere(t *testing.T) {
	r := mustRequest(t, "http://shop.example/login?x=1")
	for address, want := range map[string]bool{
		"/login": true, "/login?return_to=a": false, "/login/": true, "/x/../login": true, "http://shop.example/login": true, "HTTP://SHOP.example:80/login#a": true,
		"/login?y={return_to}": false, "/login?x=2": true, "/": false, "/login2": false, "https://shop.example/login": false, "http://id.example/login": false, "://": true,
	} {
		if got := isHere(prepared(r, newRecorder()), address); got != want {
			t.Errorf("%s: %v", address, got)
		}
	}
}

// TestRedirectsAreCounted: what a browser sends as the count is taken only if we can
// have sent it.
func TestRedirectsAreCounted(t *testing.T) {
	for value, want := range map[string]int{"": 0, "1": 1, "5": 5, "6": 0, "-1": 0, "99999999999999999999": 0, "x": 0} {
		r := mustRequest(t, "http://shop.example/")
		r.AddCookie(&http.Cookie{Name: loopCookie, Value: value})
		if got := redirects(r); got != want {
			t.Errorf("%q: %d", value, got)
		}
	}
}

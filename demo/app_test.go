package demo

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/caddy-polar/caddy-polar/identity"
)

func (d *Demo) at(path string) string { return "http://" + d.Upstream + path }

func claimsOf(token string) map[string]any {
	parts := strings.Split(token, ".")
	raw, _ := base64.RawURLEncoding.DecodeString(parts[1])
	var claims map[string]any
	_ = json.Unmarshal(raw, &claims)
	return claims
}

func TestSignIn(t *testing.T) {
	d := start(t, "http://localhost:1")
	v, err := identity.New([]identity.Block{{Secret: []byte(d.JWTSecret)}})
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	for _, p := range people {
		r := get(t, d.at("/login?as="+p.ID)).wants(t, http.StatusSeeOther)
		if r.Header.Get("Location") != "/" || len(r.Cookies()) != 1 {
			t.Fatal(r.Header)
		}
		c := r.Cookies()[0]
		if c.Name != "session" || !c.HttpOnly || c.SameSite != http.SameSiteStrictMode || c.Path != "/" || c.Domain != "" || c.MaxAge < 3600 {
			t.Errorf("cookie: %s", r.Header.Get("Set-Cookie"))
		}
		who, err := v.Identify(t.Context(), http.Header{"Authorization": {"Bearer " + c.Value}}, time.Now())
		if err != nil || who.User != p.ID || who.Email != p.Email {
			t.Errorf("the gateway sees %+v: %v", who, err)
		}
		if claims := claimsOf(c.Value); claims["email_verified"] != true || claims["name"] != p.Name {
			t.Errorf("claims: %v", claims)
		}
	}
	get(t, d.at("/login?as=eve")).wants(t, http.StatusNotFound)
}

// TestSignInComesBack: to where the visitor came from, and to no other site.
func TestSignInComesBack(t *testing.T) {
	const site = "http://localhost:1"
	d := start(t, site)
	get(t, d.at("/login?return_to="+url.QueryEscape(site+"/pro/?a=b"))).wants(t, http.StatusOK, "Ada Lovelace", `href="/login?as=ada&amp;return_to=%2fpro%2f%3fa%3db"`)
	for back, want := range map[string]string{
		"": "/", "/pro/": "/pro/", site + "/pro/?a=%2F": "/pro/?a=%2F", "https://evil.example/pro/": "/", "//evil.example/": "/",
		site + "//evil.example/": "/", "/\\evil.example": "/", "javascript:alert(1)": "/", site + "@evil.example/": "/",
	} {
		if got := get(t, d.at("/login?as=ada&return_to="+url.QueryEscape(back))).wants(t, http.StatusSeeOther).Header.Get("Location"); got != want {
			t.Errorf("from %q to %q, not %q", back, got, want)
		}
	}
}

func TestSignOut(t *testing.T) {
	d := start(t, "http://localhost:1")
	r := send(t, http.MethodPost, d.at("/logout"), url.Values{}).wants(t, http.StatusSeeOther)
	if c := r.Cookies(); len(c) != 1 || c[0].MaxAge >= 0 || c[0].Name != "session" {
		t.Error(r.Header)
	}
	send(t, http.MethodPost, d.at("/logout"), url.Values{}, "Sec-Fetch-Site", "cross-site").wants(t, http.StatusForbidden)
}

func TestHome(t *testing.T) {
	d := start(t, "http://localhost:1")
	get(t, d.at("/")).wants(t, http.StatusOK, "Ada Lovelace", "Grace Hopper", "Linus Pauling", "/login?as=ada", "/pro/", "/api/team/hello", d.Panel).
		lacks(t, "/auth/polar/account")
	get(t, d.at("/"), "X-Polar-User", "ada", "X-Polar-Reason", "no_subscription").
		wants(t, http.StatusOK, "Welcome, <strong>Ada Lovelace", "no_subscription", "Sign out",
			"/auth/polar/checkout?plan=pro&amp;return_to=/pro/", "/auth/polar/checkout?plan=team", "/auth/polar/account", "/auth/polar/pricing").
		lacks(t, "/login?as=")
	get(t, d.at("/"), "X-Polar-User", "ada", "X-Polar-Plans", "pro,team", "X-Polar-Until", "2026-12-21T00:00:00Z").
		wants(t, http.StatusOK, "2026-12-21T00:00:00Z").lacks(t, "/auth/polar/checkout", "closed")
	get(t, d.at("/nothing")).wants(t, http.StatusNotFound)
}

// TestHomeFromAnotherSite: a strict cookie does not come along from there.
func TestHomeFromAnotherSite(t *testing.T) {
	d := start(t, "http://localhost:1")
	get(t, d.at("/"), "Sec-Fetch-Site", "cross-site").wants(t, http.StatusOK, `http-equiv="refresh" content="0; url=/"`).lacks(t, "Sign in")
	for _, from := range []string{"same-origin", "none", ""} {
		get(t, d.at("/"), "Sec-Fetch-Site", from).wants(t, http.StatusOK, "Sign in").lacks(t, "http-equiv")
	}
	get(t, d.at("/"), "Sec-Fetch-Site", "cross-site", "X-Polar-User", "ada").wants(t, http.StatusOK, "Welcome").lacks(t, "http-equiv")
}

func TestProPage(t *testing.T) {
	d := start(t, "http://localhost:1")
	get(t, d.at("/pro/"), "X-Polar-User", "grace", "X-Polar-Plan", "pro", "X-Polar-Reason", "active").
		wants(t, http.StatusOK, "You are in, <strong>Grace Hopper", "X-Polar-Plan", "active")
	get(t, d.at("/pro/else")).wants(t, http.StatusNotFound)
}

func TestTeamAPI(t *testing.T) {
	d := start(t, "http://localhost:1")
	r := get(t, d.at("/api/team/hello"), "X-Polar-User", "linus", "X-Polar-Plan", "team", "X-Polar-Reason", "trialing", "X-Polar-Until", "2026-12-21T00:00:00Z")
	var v map[string]string
	if err := json.Unmarshal([]byte(r.wants(t, http.StatusOK).body), &v); err != nil {
		t.Fatal(err)
	}
	if v["hello"] != "Linus Pauling" || v["plan"] != "team" || v["reason"] != "trialing" || v["until"] != "2026-12-21T00:00:00Z" {
		t.Error(v)
	}
}

func TestAppEscapes(t *testing.T) {
	d := start(t, "http://localhost:1")
	get(t, d.at("/"), "X-Polar-User", "ada", "X-Polar-Reason", "<script>alert(1)</script>").wants(t, http.StatusOK, "&lt;script&gt;").lacks(t, "<script>")
}

// TestPagesAreStrict: nothing inline and nothing from elsewhere.
func TestPagesAreStrict(t *testing.T) {
	d := start(t, "http://localhost:1")
	for _, address := range []string{d.at("/"), d.at("/pro/"), d.Panel} {
		r := get(t, address).wants(t, http.StatusOK).lacks(t, "<style", "style=", "onclick", "<script>", "//cdn", "https://")
		csp := r.Header.Get("Content-Security-Policy")
		if !strings.Contains(csp, "default-src 'none'") || !strings.Contains(csp, "frame-ancestors 'none'") || strings.Contains(csp, "unsafe") {
			t.Errorf("%s: %q", address, csp)
		}
		if r.Header.Get("Cache-Control") != "no-store" || r.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: %v", address, r.Header)
		}
	}
	for address, kind := range map[string]string{
		d.at("/demo.css"): "text/css", d.Panel + "demo.css": "text/css", d.Panel + "panel.js": "text/javascript",
	} {
		if got := get(t, address).wants(t, http.StatusOK).Header.Get("Content-Type"); !strings.HasPrefix(got, kind) {
			t.Errorf("%s is %s", address, got)
		}
	}
}

package caddypolar

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestControlRoutes: of all that the routes do, this and no more is for those who may
// act for the paying party.
func TestControlRoutes(t *testing.T) {
	_, s := siteServer(t, "jwt {\nsecret "+testJWTSecret+"\nfrom header X-Member\nmanage_claim role owner\n}\nplan pro "+testProduct)
	control := map[string]bool{
		"GET /checkout": true, "POST /checkout": true, "PATCH /subscription": true, "GET /portal": true, "POST /portal": true,
		"POST /account": true, "GET /seats": true, "HEAD /seats": true, "POST /seats": true, "POST /seats/some": true, "DELETE /seats/some": true,
	}
	for path, rt := range routes {
		if strings.HasSuffix(path, "/") {
			path += "some"
		}
		for method := range strings.SplitSeq(rt.allow, ", ") {
			for role, manages := range map[string]bool{"owner": true, "member": false} {
				r, err := http.NewRequestWithContext(t.Context(), method, s.URL+"/auth/polar"+path, http.NoBody)
				if err != nil {
					t.Fatal(err)
				}
				r.Header.Set("X-Member", token(t, testUser, map[string]any{"role": role}))
				resp, err := http.DefaultTransport.RoundTrip(r)
				if err != nil {
					t.Fatal(err)
				}
				resp.Body.Close()
				refused := control[method+" "+path] && !manages
				if (resp.StatusCode == http.StatusForbidden) != refused {
					t.Errorf("%s %s of %s: %s", method, path, role, resp.Status)
				}
			}
		}
	}
}

// TestSessionOfOrganizations: the app's own answer names the organization, too.
func TestSessionOfOrganizations(t *testing.T) {
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		c, _ := r.Cookie("s")
		_, _ = fmt.Fprintf(w, `{"user":{"id":"ada"},"session":{"activeOrganizationId":%s,"role":"owner"}}`, c.Value)
	}))
	t.Cleanup(app.Close)
	gw, ctx := provisioned(t, "plan pro "+testProduct+"\nsession "+app.URL+
		" {\ncookies s\nuser_prefix p:\ncustomer_path session.activeOrganizationId\nmanage_path session.role owner\n}")
	for answer, want := range map[string]string{"7": "p:7", "null": ""} {
		seen, w, err := chain(t, ctx, withCookie(t, "s="+answer), &Handler{})
		if err != nil || seen == nil {
			t.Fatal(w, err)
		}
		if got := seen.Header.Get("X-Polar-External-Customer"); got != want || seen.Header.Get("X-Polar-User") != "p:ada" {
			t.Errorf("%s: %v", answer, seen.Header)
		}
		v := stateOf(seen).visitOf(gw.Gateways["default"], seen)
		if v.identity.Manages != (want != "") {
			t.Errorf("%s: manages: %v", answer, v.identity.Manages)
		}
	}
	seen, _, err := chain(t, ctx, withCookie(t, "s=[]"), &Handler{})
	if err != nil || seen.Header.Get("X-Polar-User") != "" {
		t.Errorf("somebody of an organization that cannot be named: %v", seen.Header)
	}
}

// TestNoSecondName: without organizations, the app is told of users alone.
func TestNoSecondName(t *testing.T) {
	_, ctx := provisioned(t, "plan pro "+testProduct)
	r := mustRequest(t, "http://localhost/x")
	r.Header.Set("Authorization", "Bearer "+token(t, testUser, map[string]any{"org_id": "acme"}))
	r.Header.Set("X-Polar-External-Customer", "forged")
	seen, _, err := chain(t, ctx, r, &Handler{})
	if err != nil || seen == nil {
		t.Fatal(err)
	}
	if _, told := seen.Header["X-Polar-External-Customer"]; told || seen.Header.Get("X-Polar-User") != testUser {
		t.Error(seen.Header)
	}
}

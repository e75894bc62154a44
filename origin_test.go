package caddypolar

import (
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

func TestReturnAddress(t *testing.T) {
	trusted, err := makeOrigins([]string{"www.example.com", "Shop.Example.com:8443", "localhost:3000"})
	if err != nil {
		t.Fatal(err)
	}
	g := &Gateway{origins: trusted}
	for _, test := range []struct {
		raw, want string
		ok        bool
	}{
		{"", "", true},
		{"/", "https://app.example.com/", true},
		{"/pro/x?a=b&c=%2F#d", "https://app.example.com/pro/x?a=b&c=%2F#d", true},
		{"https://app.example.com/pro", "https://app.example.com/pro", true},
		{"https://APP.example.com:443/pro", "https://APP.example.com:443/pro", true},
		{"https://www.example.com", "https://www.example.com", true},
		{"https://shop.example.com:8443/x", "https://shop.example.com:8443/x", true},
		{"http://localhost:3000/x", "http://localhost:3000/x", true},
		{"https://localhost:3000/x", "https://localhost:3000/x", true},

		{"http://app.example.com/", "", false}, // out of TLS
		{"http://www.example.com/", "", false},
		{"https://shop.example.com/", "", false},
		{"http://localhost:3001/", "", false},
		{"https://example.com/", "", false},
		{"https://evil.example/", "", false},
		{"https://www.example.com.evil.example/", "", false},
		{"https://www.example.com@evil.example/", "", false},
		{"https://user@www.example.com/", "", false},
		{"//evil.example/", "", false},
		{"///evil.example/", "", false},
		{`/\evil.example/`, "", false},
		{`\\evil.example/`, "", false},
		{"/\t/evil.example", "", false},
		{" /pro", "", false},
		{"/pro\n", "", false},
		{"pro/", "", false},
		{"?a", "", false},
		{"https:/pro", "", false},
		{"https:pro", "", false},
		{"https:///pro", "", false},
		{"javascript:alert(1)", "", false},
		{"javascript://www.example.com/%0aalert(1)", "", false},
		{"ftp://www.example.com/", "", false},
		{"data:text/html,x", "", false},
		{"https://[::1", "", false},
		{"https://app.examp\u0130e.com/", "", false}, // lowered, it looks like another
		{"https://\u0130app.example.com/", "", false},
		{"https://app.example%C4%B0.com/", "", false},
		{"https://w%C5%BFw.example.com/", "", false},
	} {
		r := prepared(httptest.NewRequest(http.MethodGet, "https://app.example.com/auth/polar/checkout", nil), newRecorder())
		got, ok := g.returnAddress(r, test.raw)
		if ok != test.ok || ok && got != test.want {
			t.Errorf("%q: %q %v", test.raw, got, ok)
		}
	}
}

func TestOriginOf(t *testing.T) {
	for _, test := range []struct {
		tls, trusted bool
		proto, want  string
	}{
		{false, false, "", "http://app.example.com"},
		{true, false, "", "https://app.example.com"},
		{false, false, "https", "http://app.example.com"}, // anybody can say so
		{false, true, "https", "https://app.example.com"},
		{true, true, "http", "https://app.example.com"},
	} {
		r := httptest.NewRequest(http.MethodGet, "http://app.example.com/x", nil)
		if test.tls {
			r.TLS = new(tls.ConnectionState)
		}
		if test.proto != "" {
			r.Header.Set("X-Forwarded-Proto", test.proto)
		}
		r = prepared(r, newRecorder())
		caddyhttp.SetVar(r.Context(), caddyhttp.TrustedProxyVarKey, test.trusted)
		if got := originOf(r); got != test.want {
			t.Errorf("%+v: %s", test, got)
		}
	}
}

func TestFieldNames(t *testing.T) {
	for theirs, ours := range map[string]string{
		"body.customer_email": "customerEmail", "body.products.0": "products.0", "body": "body", "": "",
		"body.customer_billing_address.postal_code": "customerBillingAddress.postalCode", "body._x": "X",
	} {
		if got := ourField(theirs); got != ours {
			t.Errorf("%q: %q, want %q", theirs, got, ours)
		}
	}
}

package caddypolar

import (
	"bytes"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/caddy-polar/caddy-polar/entitlement"
)

func TestStrip(t *testing.T) {
	n := makeHeaderNames("X-Polar-")
	for name, stripped := range map[string]bool{
		"X-Polar-User": true, "x-polar-user": true, "X_Polar_User": true, "X.Polar.Plan": true,
		"X-POLAR-": true, "x_polar.whatever": true, "X!Polar~User": true, "X+polar|plan": true, "X-Polar-Assertion": true,
		"X-Polar": false, "X-Polaris": false, "X-Pola-User": false, "Authorization": false, "XX-Polar-User": false,
	} {
		h := http.Header{name: {"forged"}, "Accept": {"*/*"}}
		n.stripFrom(h)
		if _, left := h[name]; left == stripped {
			t.Errorf("%s: left %v", name, left)
		}
		if len(h["Accept"]) != 1 {
			t.Errorf("%s: took Accept along", name)
		}
	}
}

func TestStripFoldsLikeOurs(t *testing.T) {
	n := makeHeaderNames("X-Polar-")
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.StringMatching("[xX][-_.!#$%&'*+^`|~][pP][oO][lL][aA][rR][-_.!#$%&'*+^`|~][A-Za-z_.-]{0,9}").Draw(t, "name")
		if !n.ours(name) {
			t.Fatalf("%s is not ours", name)
		}
	})
}

func TestStripConnection(t *testing.T) {
	n := makeHeaderNames("X-Polar-")
	for _, test := range []struct{ lines, want []string }{
		{[]string{"X-Polar-User"}, nil},
		{[]string{"close, x_polar_plan"}, []string{"close"}},
		{[]string{"Upgrade", "X-Polar-User, Keep-Alive"}, []string{"Upgrade, Keep-Alive"}},
		{[]string{"keep-alive"}, []string{"keep-alive"}},
	} {
		h := http.Header{"Connection": test.lines}
		n.stripConnection(h)
		if got := h["Connection"]; strings.Join(got, "|") != strings.Join(test.want, "|") {
			t.Errorf("%q became %q, want %q", test.lines, got, test.want)
		}
	}
}

func TestStripTrailers(t *testing.T) {
	n := makeHeaderNames("X-Polar-")
	r := mustRequest(t, "http://localhost/")
	r.ContentLength = -1
	r.Trailer = http.Header{"X-Polar-User": nil, "Checksum": nil}
	r.Body = io.NopCloser(bytes.NewReader([]byte("body")))
	n.stripTrailer(r)
	if _, announced := r.Trailer["X-Polar-User"]; announced {
		t.Error("an announced trailer is left")
	}
	// As the server does when the body has been read.
	r.Trailer["X_Polar_Plan"] = []string{"pro"}
	r.Trailer["Checksum"] = []string{"1"}
	if body, err := io.ReadAll(r.Body); err != nil || string(body) != "body" {
		t.Fatal(string(body), err)
	}
	if len(r.Trailer) != 1 || r.Trailer.Get("Checksum") != "1" {
		t.Errorf("trailers: %v", r.Trailer)
	}
}

func TestEncodeHeader(t *testing.T) {
	for in, want := range map[string]string{
		"usr_1": "usr_1", "a b": "a b", " a": "%20a", "a ": "a%20", "100%": "100%25", "é": "%C3%A9",
		"a@b.example": "a@b.example", "": "", "\x7f": "%7F",
	} {
		if got := encodeHeader(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

// TestHeaderValuesAreFresh: Caddy's header directives write into the slices in
// place, which must touch no other header and no other request.
func TestHeaderValuesAreFresh(t *testing.T) {
	n := makeHeaderNames("X-Polar-")
	v := headersOf("u", "", &entitlement.Standing{Open: "pro"}, &entitlement.Decision{Allowed: true, Reason: "active", Plan: "pro", Status: "active"}, "", true)
	one, other := http.Header{}, http.Header{}
	n.set(one, &v, new(headerValues), found)
	n.set(other, &v, new(headerValues), found)
	one["X-Polar-User"][0] = "changed"
	one["X-Polar-User"] = append(one["X-Polar-User"], "more")
	if one.Get("X-Polar-Plan") != "pro" || other.Get("X-Polar-User") != "u" {
		t.Error(one, other)
	}
}

// TestHeadersSetAgain: what stands as we have set it stays, and whatever else was
// done to it meanwhile is mended.
func TestHeadersSetAgain(t *testing.T) {
	n := makeHeaderNames("X-Polar-")
	d := entitlement.Decision{Allowed: true, Reason: "active", Plan: "pro", Status: "active"}
	h, own := http.Header{}, new(headerValues)
	first := headersOf("u", "", &entitlement.Standing{Open: "pro"}, &d, "", false)
	n.set(h, &first, own, found)
	h["X-Polar-User"][0] = "changed in place"
	h["X-Polar-Status"] = []string{"another"}
	h["X-Polar-Reason"] = append(h["X-Polar-Reason"], "more")
	h["X-Polar-Until"] = []string{"added"}
	delete(h, "X-Polar-Plans")
	again := headersOf("u", "", &entitlement.Standing{Open: "pro"}, &d, "", true)
	n.set(h, &again, own, ours)
	want := http.Header{
		"X-Polar-User": {"u"}, "X-Polar-Plan": {"pro"}, "X-Polar-Plans": {"pro"}, "X-Polar-Status": {"active"}, "X-Polar-Reason": {"active"},
	}
	if !reflect.DeepEqual(h, want) {
		t.Errorf("%v, want %v", h, want)
	}
}

func TestHeadersOf(t *testing.T) {
	until := time.Date(2026, 12, 1, 0, 0, 0, 5000, time.UTC)
	d := entitlement.Decision{Allowed: true, Reason: entitlement.ReasonPastDueGrace, Plan: "pro", Status: "past_due", Until: until, Grace: true}
	n := makeHeaderNames("X-Gate-")
	h := http.Header{"X-Gate-Grace-Until": {"old"}, "X-Gate-Plans": {"old"}}
	v := headersOf("u", "acme", &entitlement.Standing{Customer: "c1"}, &d, "", true)
	n.set(h, &v, new(headerValues), found)
	for name, want := range map[string]string{
		"X-Gate-User": "u", "X-Gate-External-Customer": "acme", "X-Gate-Plan": "pro", "X-Gate-Status": "past_due", "X-Gate-Reason": "past_due_grace",
		"X-Gate-Until": "2026-12-01T00:00:00Z", "X-Gate-Grace-Until": "2026-12-01T00:00:00Z", "X-Gate-Customer": "c1", "X-Gate-Plans": "",
	} {
		if got := h.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

// TestChosenHeaders: of the headers only those that are named are sent, whatever stood
// there before, and a client's copies of the others go all the same.
func TestChosenHeaders(t *testing.T) {
	d := entitlement.Decision{Allowed: true, Reason: entitlement.ReasonActive, Plan: "pro", Status: "active"}
	v := headersOf("u", "", &entitlement.Standing{Customer: "c1", Open: "pro"}, &d, "", true)
	n := makeHeaderNames("X-Polar-", "user", "Plan")
	for _, there := range []present{found, absent, ours} {
		h := http.Header{"Accept": {"*/*"}}
		if there == found { // of another gateway with this prefix
			h.Set("X-Polar-Status", "active")
		}
		own := new(headerValues)
		for range 2 { // `polar`, then the gate
			n.set(h, &v, own, there)
		}
		if len(h) != 3 || h.Get("X-Polar-User") != "u" || h.Get("X-Polar-Plan") != "pro" {
			t.Error(there, h)
		}
	}
}

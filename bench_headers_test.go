package caddypolar

import (
	"net/http"
	"testing"
)

// BenchmarkHeadersStrip is what each request costs that a browser sends, and
// one whose client tries to say who it is.
func BenchmarkHeadersStrip(b *testing.B) {
	n := makeHeaderNames("X-Polar-")
	usual := http.Header{
		"Accept": {"*/*"}, "Accept-Encoding": {"gzip"}, "Accept-Language": {"en"}, "Authorization": {"Bearer token"}, "Cookie": {"a=b"},
		"Referer": {"https://example.com/"}, "Sec-Fetch-Mode": {"navigate"}, "Sec-Fetch-Site": {"same-origin"}, "User-Agent": {"bench"},
		"X-Forwarded-For": {"192.0.2.1"}, "X-Requested-With": {"fetch"}, "Connection": {"keep-alive"},
	}
	s := new(requestState)
	b.Run("nothing to strip", func(b *testing.B) {
		r := mustRequest(b, "http://localhost/")
		r.Header = usual.Clone()
		b.ReportAllocs()
		for b.Loop() {
			s.sift(r.Header, &n)
		}
	})
	b.Run("two to strip", func(b *testing.B) {
		r := mustRequest(b, "http://localhost/")
		r.Header = usual.Clone()
		forged := []string{"someone"}
		b.ReportAllocs()
		for b.Loop() {
			r.Header["X-Polar-User"], r.Header["X_polar_plan"] = forged, forged
			s.sift(r.Header, &n)
		}
		if len(r.Header) != len(usual) {
			b.Fatal(r.Header)
		}
	})
}

// BenchmarkHeadersSet tells the upstream who asks: the first time in a request,
// and the same again, as when polar and polar_require both stand in its way.
func BenchmarkHeadersSet(b *testing.B) {
	n := makeHeaderNames("X-Polar-")
	values := headerValues{
		headerUser: testUser, headerPlan: "pro", headerPlans: "pro", headerStatus: "active", headerReason: "active",
		headerUntil: "2026-12-03T14:21:08Z", headerCustomer: "c3f7a6c2-6d5f-4d5b-9e0b-3d0a1f6b7c8d", headerExternalCustomer: testUser,
	}
	for name, there := range map[string]present{"first": absent, "again": ours} {
		b.Run(name, func(b *testing.B) {
			h, own := http.Header{"Accept": {"*/*"}}, headerValues{}
			n.set(h, &values, &own, absent)
			b.ReportAllocs()
			for b.Loop() {
				if there == absent {
					clear(h)
				}
				n.set(h, &values, &own, there)
			}
			if h.Get("X-Polar-User") != testUser {
				b.Fatal(h)
			}
		})
	}
}

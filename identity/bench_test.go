package identity

import (
	"context"
	"errors"
	"net/http"
	"testing"
)

// A token hit is BenchmarkIdentifyRemembered; the verification alone is
// BenchmarkIdentifyCold.

// BenchmarkTokenMiss is a good token that is not remembered, from the header to
// being remembered.
func BenchmarkTokenMiss(b *testing.B) {
	eachKind(b, func(b *testing.B, v *Verifier, h http.Header) {
		token := must(v.sources[0].source.find(h))
		for b.Loop() {
			v.sources[0].memory.cache.Invalidate(token)
			if _, err := v.Identify(context.Background(), h, now); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkTokenForged is a token whose signature is wrong: what each request
// of a flood of them costs.
func BenchmarkTokenForged(b *testing.B) {
	eachKind(b, func(b *testing.B, v *Verifier, h http.Header) {
		token := must(v.sources[0].source.find(h))
		last := byte('A')
		if token[len(token)-20] == last {
			last = 'B'
		}
		forged := bearerHeader(token[:len(token)-20] + string(last) + token[len(token)-19:])
		for b.Loop() {
			if _, err := v.Identify(context.Background(), forged, now); !errors.Is(err, ErrInvalid) {
				b.Fatal(err)
			}
		}
	})
}

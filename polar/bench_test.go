package polar_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/caddy-polar/caddy-polar/polar"
)

// BenchmarkWebhookVerify reads the headers of a webhook and checks its
// signature: one of Polar's, a big one, and a forged one, which must not cost more.
func BenchmarkWebhookVerify(b *testing.B) {
	usual, now := mustFile(b, "subscription.active.json"), time.Now()
	v := mustVerifier(b, "polar_whs_"+strings.Repeat("s", 32))
	forger := mustVerifier(b, "polar_whs_"+strings.Repeat("f", 32))
	for _, bench := range []struct {
		name   string
		signer *polar.WebhookVerifier
		body   []byte
	}{
		{"usual", v, usual},
		{"forged", forger, usual},
		{"64KiB", v, []byte(strings.Repeat("x", 64<<10))},
	} {
		b.Run(fmt.Sprintf("%s/%dB", bench.name, len(bench.body)), func(b *testing.B) {
			h := bench.signer.Sign("evt_1", now, bench.body)
			good := bench.signer == v
			b.ReportAllocs()
			for b.Loop() {
				if err := take(v, h, bench.body, now); (err == nil) != good {
					b.Fatal(err)
				}
			}
		})
	}
}

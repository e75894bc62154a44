package cache

import (
	"fmt"
	"testing"
)

// BenchmarkFold is one webhook's facts in a transaction of their own, without
// fsync: what a commit costs besides the disk. For a team see BenchmarkTeamFold.
func BenchmarkFold(b *testing.B) {
	const users = 5000
	for _, bench := range []struct {
		name string
		of   func(n int) *Facts
	}{
		{"new customer and subscription", func(n int) *Facts { return purchase(fmt.Sprint("new", n), n) }},
		{"newer subscription", func(n int) *Facts {
			f := purchase(fmt.Sprint(n*7919%users), n)
			f.Customers = nil
			return f
		}},
	} {
		b.Run(bench.name, func(b *testing.B) {
			s := fastStore(b, b.TempDir())
			b.Cleanup(func() { _ = s.Close() })
			var all []*change
			for i := range users {
				all = append(all, &change{facts: purchase(fmt.Sprint(i), 0)})
			}
			s.commit(all)
			b.ReportAllocs()
			for n := 1; b.Loop(); n++ {
				event := &change{facts: bench.of(n)}
				s.commit([]*change{event})
				if event.err != nil || event.applied.New == 0 {
					b.Fatal(event.err, event.applied)
				}
			}
		})
	}
}

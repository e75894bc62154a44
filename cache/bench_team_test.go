package cache

import (
	"fmt"
	"testing"

	"github.com/caddy-polar/caddy-polar/cache/kv"
)

// benchTeam is a subscription with 1,000 claimed seats, each of a member with a
// grant, and all accounts in memory. Without fsync.
func benchTeam(b *testing.B) (*Store, []string) {
	b.Helper()
	const size = 1000
	s := fastStore(b, b.TempDir())
	b.Cleanup(func() { _ = s.Close() })
	f := customer(1, "c1", "buyer")
	for _, more := range []*Facts{bySeats(1, "s1", "c1"), ordered(1, "o1", "c1", "s1", "", "")} {
		merge(f, more)
	}
	var users []string
	for i := range size {
		user := fmt.Sprintf("user%04d", i)
		users = append(users, user)
		merge(f, membered(1, "m-"+user, "c1", user, "member"))
		merge(f, seated(1, "p-"+user, "s1", "", "c1", "m-"+user))
		merge(f, memberGranted(1, "g-"+user, "c1", "s1", "", "m-"+user))
	}
	c := &change{facts: f}
	s.commit([]*change{c})
	if c.err != nil {
		b.Fatal(c.err)
	}
	return s, users
}

func BenchmarkTeamFold(b *testing.B) {
	for _, c := range []struct {
		name string
		of   func(n int) *Facts
	}{
		{"seat", func(n int) *Facts { return seated(n, "p-user0007", "s1", "", "c1", "m-user0007") }},
		{"member", func(n int) *Facts { return membered(n, "m-user0007", "c1", "user0007", "member") }},
		{"grant", func(n int) *Facts { return memberGranted(n, "g-user0007", "c1", "s1", "", "m-user0007") }},
		{"subscription", func(n int) *Facts { return bySeats(n, "s1", "c1") }},
		{"customer", func(n int) *Facts { return customer(n, "c1", "buyer") }},
		{"customer deleted and back", func(n int) *Facts {
			if n%2 == 0 {
				return customer(n, "c1", "buyer")
			}
			return deleted(n, "c1", "buyer")
		}},
		{"refund", func(n int) *Facts { return refunded(n, "r1", "o1", "s1") }},
	} {
		b.Run(c.name, func(b *testing.B) {
			s, users := benchTeam(b)
			b.ReportAllocs()
			for n := 2; b.Loop(); n++ {
				b.StopTimer()
				for _, user := range users {
					_ = account(b, s, user)
				}
				b.StartTimer()
				event := &change{facts: c.of(n)}
				s.commit([]*change{event})
				if event.err != nil || event.applied.New != 1 {
					b.Fatal(event.err, event.applied)
				}
			}
		})
	}
}

func BenchmarkTeamGather(b *testing.B) {
	s, users := benchTeam(b)
	for _, user := range []string{"buyer", users[7]} {
		b.Run(user, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := s.read(func(tx kv.Tx) error {
					_, err := gather(tx, user)
					return err
				}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkBigAccountFold is one event for a user with 200 subscriptions.
func BenchmarkBigAccountFold(b *testing.B) {
	s := fastStore(b, b.TempDir())
	b.Cleanup(func() { _ = s.Close() })
	f := customer(1, "c1", "u")
	for i := range 200 {
		id := fmt.Sprintf("s%03d", i)
		merge(f, subscribed(1, id, "c1", "", ""))
		merge(f, granted(1, "g"+id, "c1", id, ""))
	}
	s.commit([]*change{{facts: f}})
	_ = account(b, s, "u")
	b.ReportAllocs()
	for n := 2; b.Loop(); n++ {
		c := &change{facts: subscribed(n, "s007", "c1", "", "")}
		s.commit([]*change{c})
		if c.err != nil || c.applied.New != 1 {
			b.Fatal(c.err, c.applied)
		}
	}
}

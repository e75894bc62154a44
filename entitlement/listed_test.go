package entitlement

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestPropertyNothingIsLeftOut: what a decision does not look at would not have
// led. Explain looks at everything, so the two must find the same way.
func TestPropertyNothingIsLeftOut(t *testing.T) {
	origin := time.Date(2026, 10, 1, 0, 0, 0, 0, time.UTC)
	rapid.Check(t, func(t *rapid.T) {
		at := func(label string) time.Time {
			return origin.Add(time.Duration(rapid.IntRange(0, 40).Draw(t, label)) * 24 * time.Hour)
		}
		sometimes := func(label string) time.Time {
			if rapid.Bool().Draw(t, label+" set") {
				return at(label)
			}
			return time.Time{}
		}
		seldom := func(label string) bool { return rapid.IntRange(0, 4).Draw(t, label) == 0 }
		pick := func(of ...string) string { return rapid.SampledFrom(of).Draw(t, "pick") }
		// Few statuses at a time, so that there is something to tell apart.
		statuses := rapid.SliceOfN(rapid.SampledFrom([]string{
			"active", "active", "trialing", "past_due", "past_due", "unpaid", "canceled", "canceled", "paused", "incomplete", "incomplete_expired", "new",
		}), 1, 3).Draw(t, "statuses")
		f := Facts{Customers: []HeldCustomer{
			{Customer: Customer{ID: "c"}}, {Customer: Customer{ID: "gone", DeletedAt: at("deleted")}},
		}}
		for i := range rapid.IntRange(0, 12).Draw(t, "subscriptions") {
			f.Subscriptions = append(f.Subscriptions, Subscription{
				ID: fmt.Sprint("s", i), CustomerID: pick("c", "c", "c", "gone"), ProductID: pick("p", "q", "r"),
				Status:      Status(pick(statuses...)),
				Version:     Version{AsOf: at("as of")},
				PeriodStart: at("start"), PeriodEnd: at("end"), TrialEnd: sometimes("trial"), PastDueAt: sometimes("past due"),
				EndsAt: sometimes("ends"), EndedAt: sometimes("ended"), PausedAt: sometimes("paused"),
				CancelAtPeriodEnd: seldom("cancels"), PauseAtPeriodEnd: seldom("pauses"), Seats: seldom("seats"),
			})
			if seldom("foreign") {
				f.Foreign = append(f.Foreign, fmt.Sprint("s", i))
			}
		}
		for i := range rapid.IntRange(0, 2).Draw(t, "orders") {
			f.Orders = append(f.Orders, Order{
				ID: fmt.Sprint("o", i), CustomerID: "c", ProductID: pick("p", "q"), Status: OrderStatus(pick("paid", "refunded", "refunded", "void")),
				Version: Version{Row: at("ordered")},
			})
		}
		parent := func() (subscription, order string) {
			if seldom("of an order") {
				return "", fmt.Sprint("o", rapid.IntRange(0, 2).Draw(t, "order"))
			}
			return fmt.Sprint("s", rapid.IntRange(0, 12).Draw(t, "subscription")), ""
		}
		for i := range rapid.IntRange(0, 8).Draw(t, "grants") {
			g := Grant{ID: fmt.Sprint("g", i), CustomerID: pick("c", "c", "c", "gone"), BenefitID: pick("b", "c"), MemberID: pick("", "m", "out")}
			g.SubscriptionID, g.OrderID = parent()
			g.Granted, g.Revoked, g.RevokedAt = seldom("granted"), seldom("revoked"), at("revoked")
			f.Grants = append(f.Grants, g)
		}
		for i := range rapid.IntRange(0, 6).Draw(t, "seats") {
			s := Seat{ID: fmt.Sprint("p", i), MemberID: pick("m", "out"), RevokedAt: at("revoked")}
			s.SubscriptionID, s.OrderID = parent()
			s.Revoked = rapid.Bool().Draw(t, "revoked")
			s.Claimed = !s.Revoked && !seldom("pending")
			f.Seats = append(f.Seats, s)
		}
		f.Members = []Member{{ID: "m"}, {ID: "out", Deleted: true}}
		for i := range rapid.IntRange(0, 2).Draw(t, "refunds") {
			f.Refunds = append(f.Refunds, Refund{
				ID: fmt.Sprint("r", i), OrderID: fmt.Sprint("o", i), SubscriptionID: fmt.Sprint("s", i),
				Succeeded: true, RevokeBenefits: seldom("revokes"), Disputed: seldom("disputed"), Version: Version{Row: at("refunded")},
			})
		}
		d := func(label string) time.Duration {
			return time.Duration(rapid.IntRange(0, 6).Draw(t, label)) * 24 * time.Hour
		}
		r := &Rules{CanConfirm: rapid.Bool().Draw(t, "can confirm"), ConfirmedAt: sometimes("confirmed")}
		p := Plan{Name: "pro", Products: []string{"p", "q"}, Benefits: []string{"b"}, Grace: Grace{
			PastDue:      PastDueGrace{For: d("past due"), Polar: seldom("polar")},
			TrialPastDue: PastDueGrace{For: d("trial past due"), Polar: seldom("trial polar")},
			Renewal:      d("renewal"), Unpaid: d("unpaid"), Canceled: d("canceled"),
		}}
		r.Plans = []Plan{p}
		a := NewAccount("u", f)
		for days := range 50 {
			now := origin.Add(time.Duration(days) * 24 * time.Hour)
			all := newContest()
			all.told = func(Kind, int, way, bool) {}
			a.compete(&all, &p, r, now)
			if got := a.best(&p, r, now); got != all.best {
				t.Fatalf("day %d\n   got %+v\nof all %+v", days, got, all.best)
			}
		}
	})
}

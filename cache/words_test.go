package cache

import (
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/caddy-polar/caddy-polar/entitlement"
)

// TestEntryRoundTrip: an entry is read as it was written, whatever texts it has, and not
// if it is cut short.
func TestEntryRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.OneOf(
			rapid.SampledFrom(words), rapid.String(), drawnUUID,
			rapid.Map(drawnTime, timeText), rapid.Map(drawnTime, func(at time.Time) string { return at.Format(time.RFC3339Nano) }),
		)
		e := Entry{
			At: drawnTime.Draw(t, "at"), Source: Source{SourceWebhook, drawnUUID.Draw(t, "source")}, Kind: "order", ID: drawnUUID.Draw(t, "id"),
			Status: text.Draw(t, "status"), before: rapid.Uint64().Draw(t, "before"),
		}
		e.Changes = rapid.SliceOf(rapid.Custom(func(t *rapid.T) Change {
			return Change{text.Draw(t, "field"), text.Draw(t, "before"), text.Draw(t, "after")}
		})).Draw(t, "changes")
		if e.New = len(e.Changes) == 0; e.New {
			e.Changes = nil
		}
		raw := encode(entryFields, e)
		if got, err := decode(entryFields, raw); err != nil || !reflect.DeepEqual(got, e) {
			t.Errorf("%+v came back as %+v, %v", e, got, err)
		}
		for n := range raw {
			_, _ = decode(entryFields, raw[:n]) // whatever it says, it ends
		}
	})
	for _, raw := range []string{"\x00\x00\x00\x00o\x00\x7f", "\x00\x00\x00\x00o\x00\x00\x7f", "\x00\x00\x00\x00o\x00\x01\x80"} {
		if e, err := decode(entryFields, []byte(raw)); err == nil {
			t.Errorf("%q is read as %+v", raw, e)
		}
	}
}

// TestWords: what the journal tells often is written in a byte, and stays what it is.
func TestWords(t *testing.T) {
	var d diff
	customerDiff(&d, &entitlement.Customer{}, &entitlement.Customer{ExternalID: "u", DeletedAt: at(1)})
	subscriptionDiff(&d, &entitlement.Subscription{}, &entitlement.Subscription{
		Status: entitlement.StatusActive, ProductID: "p", PeriodEnd: at(1), TrialEnd: at(1), CancelAtPeriodEnd: true, PauseAtPeriodEnd: true,
		CanceledAt: at(1), EndsAt: at(1), EndedAt: at(1), PastDueAt: at(1), PausedAt: at(1), ResumesAt: at(1), SeatCount: 1,
		PendingProductID: "p", PendingSeats: 1, PendingAt: at(1),
	})
	orderDiff(&d, &entitlement.Order{}, &entitlement.Order{Status: entitlement.OrderPaid, ProductID: "p"})
	grantDiff(&d, &entitlement.Grant{}, &entitlement.Grant{BenefitID: "b", Granted: true, Revoked: true, RevokedAt: at(1)})
	refundDiff(&d, &entitlement.Refund{}, &entitlement.Refund{Succeeded: true, RevokeBenefits: true, Disputed: true, DisputeLost: true})
	memberDiff(&d, &entitlement.Member{}, &entitlement.Member{ExternalID: "u", Role: "r", Deleted: true})
	seatDiff(&d, &entitlement.Seat{}, &entitlement.Seat{Claimed: true, Revoked: true, MemberID: "m"})
	if len(d.changes) != 34 {
		t.Errorf("%d fields", len(d.changes))
	}
	for _, c := range d.changes {
		if !slices.Contains(words, c.Field) {
			t.Errorf("%s is no word", c.Field)
		}
	}
	for text, want := range map[string]string{
		"": "\x02", "true": "\x04", "past_due": "\x09", "status": "\x13", "member_id": "\x31",
		"usd": "\x00\x03usd", "2026-05-01T12:00:00Z": "\x01\x80\xd7\xa4\x9f\x0d", "2026-05-01T12:00:00+00:00": "\x00\x192026-05-01T12:00:00+00:00",
	} {
		var c codec
		if c.text(&text); string(c.buf) != want {
			t.Errorf("%q is written as %q, not %q", text, c.buf, want)
		}
	}
}

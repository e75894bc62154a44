package cache

import (
	"encoding/binary"
	"slices"
	"time"
)

// words are texts that many entries have. Each is written as its place here, so new
// ones go to the end.
var words = []string{
	"", "false", "true",
	"incomplete", "incomplete_expired", "trialing", "active", "past_due", "canceled", "unpaid", "paused",
	"draft", "pending", "paid", "refunded", "partially_refunded", "void",
	"status", "product_id", "current_period_end", "trial_end", "cancel_at_period_end", "pause_at_period_end",
	"canceled_at", "ends_at", "ended_at", "past_due_at", "paused_at", "resumes_at", "seats",
	"pending_update.product_id", "pending_update.seats", "pending_update.applies_at",
	"external_id", "deleted_at", "benefit_id", "is_granted", "is_revoked", "revoked_at",
	"succeeded", "revoke_benefits", "disputed", "dispute_lost", "role", "deleted", "claimed", "revoked", "member_id",
}

// What a text begins with, if it is no word: a word's place comes behind these.
const (
	textFollows = iota
	momentFollows
	firstWord
)

// text keeps a text of an entry: a word or a moment in some bytes.
func (c *codec) text(s *string) {
	if !c.reading {
		if at := slices.Index(words, *s); at >= 0 {
			c.buf = binary.AppendUvarint(c.buf, uint64(firstWord+at))
		} else if t, err := time.Parse(time.RFC3339, *s); err == nil && timeText(t) == *s {
			c.buf = binary.AppendVarint(append(c.buf, momentFollows), t.Unix())
		} else {
			c.buf = append(c.buf, textFollows)
			c.string(s)
		}
		return
	}
	switch n := c.uvarint(); {
	case n == textFollows:
		c.string(s)
	case n == momentFollows:
		unix, size := binary.Varint(c.buf)
		if size <= 0 {
			c.fail()
			return
		}
		c.buf = c.buf[size:]
		*s = timeText(time.Unix(unix, 0))
	case n-firstWord < uint64(len(words)):
		*s = words[n-firstWord]
	default:
		c.fail()
	}
}

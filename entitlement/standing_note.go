package entitlement

import (
	"encoding/binary"
	"net/http"
	"slices"
	"time"
)

// AppendNote appends the standing to b in some sixty bytes, to be read again by
// ReadNote with rules that have the same plans.
func (s *Standing) AppendNote(b []byte) []byte {
	b = appendTime(b, s.from)
	b = appendBool(b, s.Known)
	b = appendString(b, s.Customer)
	for i := range s.plans {
		p := &s.plans[i]
		b = binary.AppendUvarint(b, uint64(p.plan))
		b = append(b, byte(slices.Index(AllowedReasons, p.Reason)))
		b = appendString(b, p.Status)
		b = appendTime(b, p.Until)
		b = appendBool(b, p.Grace)
	}
	return b
}

// ReadNote reads what AppendNote has written. ok is false for what holds no longer,
// and for what makes no sense.
func ReadNote(b []byte, r *Rules, now time.Time) (s *Standing, ok bool) {
	in := noteReader{b: b}
	s = &Standing{rules: r}
	s.from, s.Known, s.Customer = in.time(), in.bool(), in.string()
	for len(in.b) > 0 && !in.bad {
		plan, reason := in.uvarint(), in.uvarint()
		d := Decision{Allowed: true, HTTPStatus: http.StatusOK, Status: in.string(), Until: in.time(), Grace: in.bool()}
		if in.bad || plan >= uint64(len(r.Plans)) || reason >= uint64(len(AllowedReasons)) {
			return nil, false
		}
		d.Plan, d.Reason = r.Plans[plan].Name, AllowedReasons[reason]
		s.add(int(plan), d)
	}
	s.name()
	return s, !in.bad && s.Holds(r, now)
}

func appendBool(b []byte, v bool) []byte {
	if v {
		return append(b, 1)
	}
	return append(b, 0)
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// appendTime writes nanoseconds, as decisions are told with what Polar told. The
// zero time is apart.
func appendTime(b []byte, t time.Time) []byte {
	if t.IsZero() {
		return append(b, 0)
	}
	b = binary.AppendVarint(append(b, 1), t.Unix())
	return binary.AppendUvarint(b, uint64(t.Nanosecond()))
}

// noteReader reads from the front of b. Once something was bad all else is zero.
type noteReader struct {
	b   []byte
	bad bool
}

func (n *noteReader) uvarint() uint64 {
	v, size := binary.Uvarint(n.b)
	n.skip(size)
	return v
}

func (n *noteReader) varint() int64 {
	v, size := binary.Varint(n.b)
	n.skip(size)
	return v
}

func (n *noteReader) skip(size int) {
	if size <= 0 || size > len(n.b) {
		n.bad, n.b = true, nil
		return
	}
	n.b = n.b[size:]
}

func (n *noteReader) bool() bool { return n.uvarint() == 1 }

func (n *noteReader) string() string {
	size := n.uvarint()
	if size == 0 || n.bad {
		return ""
	}
	if size > uint64(len(n.b)) {
		n.skip(-1)
		return ""
	}
	s := string(n.b[:size])
	n.skip(int(size))
	return s
}

func (n *noteReader) time() time.Time {
	if !n.bool() {
		return time.Time{}
	}
	return time.Unix(n.varint(), int64(n.uvarint())).UTC()
}

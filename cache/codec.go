package cache

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"time"

	"github.com/google/uuid"

	"github.com/caddy-polar/caddy-polar/entitlement"
)

var errShortRecord = errors.New("record ends early")

// codec writes or reads the fields of a record, so that one function per kind
// says what a record holds and in which order. New fields go to the end: a
// record that ends before them leaves them zero.
type codec struct {
	buf     []byte
	reading bool
	// timeless leaves out the version.
	timeless bool
	// key is under which an object's record stands, which says its id.
	key string
	err error
}

func encode[T any](fields func(*codec, *T), v T) []byte {
	c := codec{buf: make([]byte, 0, 256)}
	fields(&c, &v)
	return c.buf
}

// sameContent says whether two states of an object differ in nothing but their
// versions.
func sameContent[T any](fields func(*codec, *T), v, w T) bool {
	a := codec{buf: make([]byte, 0, 256), timeless: true}
	b := codec{buf: make([]byte, 0, 256), timeless: true}
	fields(&a, &v)
	fields(&b, &w)
	return bytes.Equal(a.buf, b.buf)
}

func decode[T any](fields func(*codec, *T), b []byte) (T, error) {
	var v T
	c := codec{buf: b, reading: true}
	fields(&c, &v)
	return v, c.err
}

// id keeps an object's own id, which is empty where the key says it.
func (c *codec) id(s *string) {
	if !c.reading && *s == c.key {
		c.buf = append(c.buf, 0)
		return
	}
	if c.string(s); c.reading && *s == "" {
		*s = c.key
	}
}

// string keeps a UUID in 16 bytes instead of 36, as Polar's ids are: behind a
// length that is no other string's, zero written in two bytes.
func (c *codec) string(s *string) {
	if !c.reading {
		if id, ok := parseUUID(*s); ok {
			c.buf = append(append(c.buf, uuidFollows...), id[:]...)
			return
		}
		c.buf = binary.AppendUvarint(c.buf, uint64(len(*s)))
		c.buf = append(c.buf, *s...)
		return
	}
	if rest, ok := bytes.CutPrefix(c.buf, uuidFollows); ok {
		if len(rest) < 16 {
			c.fail()
			return
		}
		*s, c.buf = uuid.UUID(rest).String(), rest[16:]
		return
	}
	n := c.uvarint()
	if c.err != nil || n > uint64(len(c.buf)) {
		c.fail()
		return
	}
	*s, c.buf = string(c.buf[:n]), c.buf[n:]
}

var uuidFollows = []byte{0x80, 0}

// parseUUID reads a UUID that is written as it will be read again: in lower case.
func parseUUID(s string) (id uuid.UUID, ok bool) {
	if len(s) != 36 {
		return id, false
	}
	id, err := uuid.Parse(s)
	return id, err == nil && id.String() == s
}

// time keeps microseconds, which is what Polar has. The zero time is 0.
func (c *codec) time(t *time.Time) {
	if !c.reading {
		var n int64
		if !t.IsZero() {
			n = t.UnixMicro()
		}
		c.buf = binary.AppendVarint(c.buf, n)
		return
	}
	if len(c.buf) == 0 {
		return
	}
	n, size := binary.Varint(c.buf)
	if size <= 0 {
		c.fail()
		return
	}
	c.buf = c.buf[size:]
	if n != 0 {
		*t = time.UnixMicro(n).UTC()
	}
}

func (c *codec) bool(b *bool) {
	if !c.reading {
		var n byte
		if *b {
			n = 1
		}
		c.buf = append(c.buf, n)
		return
	}
	if len(c.buf) > 0 {
		*b, c.buf = c.buf[0] == 1, c.buf[1:]
	}
}

// count keeps a number that is not negative.
func (c *codec) count(n *int) {
	if !c.reading {
		c.buf = binary.AppendUvarint(c.buf, uint64(max(*n, 0)))
		return
	}
	v := c.uvarint()
	if v > math.MaxInt32 {
		c.fail()
		return
	}
	*n = int(v)
}

// number keeps a number of any size.
func (c *codec) number(n *uint64) {
	if !c.reading {
		c.buf = binary.AppendUvarint(c.buf, *n)
		return
	}
	*n = c.uvarint()
}

// source keeps where a fact comes from.
func (c *codec) source(s *Source) {
	n := uint64(s.Kind)
	c.number(&n)
	s.Kind = SourceKind(n)
	c.string(&s.ID)
}

func (c *codec) uvarint() uint64 {
	if len(c.buf) == 0 {
		return 0
	}
	n, size := binary.Uvarint(c.buf)
	if size <= 0 {
		c.fail()
		return 0
	}
	c.buf = c.buf[size:]
	return n
}

func (c *codec) fail() { c.err, c.buf = errShortRecord, nil }

func (c *codec) version(v *entitlement.Version) {
	if c.timeless {
		return
	}
	c.time(&v.Row)
	c.time(&v.AsOf)
}

func customerFields(c *codec, v *entitlement.Customer) {
	c.version(&v.Version)
	c.id(&v.ID)
	c.string(&v.ExternalID)
	c.time(&v.DeletedAt)
}

func subscriptionFields(c *codec, v *entitlement.Subscription) {
	c.version(&v.Version)
	c.id(&v.ID)
	for _, s := range []*string{
		&v.CustomerID, &v.ProductID, &v.CheckoutID,
		(*string)(&v.Status), &v.MetadataUser, &v.PendingProductID,
	} {
		c.string(s)
	}
	for _, t := range []*time.Time{
		&v.PeriodStart, &v.PeriodEnd, &v.TrialEnd, &v.CanceledAt, &v.EndsAt,
		&v.EndedAt, &v.PastDueAt, &v.PausedAt, &v.ResumesAt, &v.PendingAt,
	} {
		c.time(t)
	}
	c.bool(&v.CancelAtPeriodEnd)
	c.bool(&v.PauseAtPeriodEnd)
	c.bool(&v.Seats)
	c.bool(&v.Free)
	c.count(&v.SeatCount)
	c.count(&v.PendingSeats)
}

func orderFields(c *codec, v *entitlement.Order) {
	c.version(&v.Version)
	c.id(&v.ID)
	for _, s := range []*string{
		&v.CustomerID, &v.ProductID, &v.SubscriptionID, &v.CheckoutID,
		(*string)(&v.Status), &v.MetadataUser,
	} {
		c.string(s)
	}
	c.bool(&v.Seats)
}

func grantFields(c *codec, v *entitlement.Grant) {
	c.version(&v.Version)
	c.id(&v.ID)
	for _, s := range []*string{&v.CustomerID, &v.BenefitID, &v.SubscriptionID, &v.OrderID} {
		c.string(s)
	}
	for _, b := range []*bool{&v.ForMember, &v.Granted, &v.Revoked} {
		c.bool(b)
	}
	c.time(&v.RevokedAt)
	c.string(&v.MemberID)
}

func refundFields(c *codec, v *entitlement.Refund) {
	c.version(&v.Version)
	c.id(&v.ID)
	for _, s := range []*string{&v.CustomerID, &v.OrderID, &v.SubscriptionID} {
		c.string(s)
	}
	for _, b := range []*bool{&v.Succeeded, &v.RevokeBenefits, &v.Disputed, &v.DisputeLost} {
		c.bool(b)
	}
}

func checkoutFields(c *codec, v *Checkout) {
	c.string(&v.ID)
	c.string(&v.CustomerID)
	c.string(&v.User)
	c.time(&v.OpenedAt)
	c.bool(&v.Used)
}

func passFields(c *codec, v *entitlement.Pass) {
	c.string(&v.ID)
	c.string(&v.User)
	c.string(&v.Plan)
	c.time(&v.Until)
	c.string(&v.Reason)
}

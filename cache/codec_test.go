package cache

import (
	"bytes"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/caddy-polar/caddy-polar/entitlement"
)

var drawnTime = rapid.Custom(func(t *rapid.T) time.Time {
	n := rapid.OneOf(
		rapid.Just[int64](0),
		rapid.Int64Range(-62_135_596_800_000_000+1, 253_402_300_799_999_999),
		rapid.Int64Range(1_700_000_000_000_000, 1_900_000_000_000_000),
	).Draw(t, "µs")
	if n == 0 {
		return time.Time{}
	}
	return time.UnixMicro(n).UTC()
})

// drawnUUID is a UUID, or nearly one.
var drawnUUID = rapid.Custom(func(t *rapid.T) string {
	id := []byte(rapid.StringMatching(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`).Draw(t, "id"))
	if at := rapid.IntRange(0, 2*len(id)).Draw(t, "at"); at < len(id) {
		id[at] = rapid.Byte().Draw(t, "byte")
	}
	return string(id)
})

// drawn fills a record of any kind, whatever fields it has.
func drawn[T any]() *rapid.Generator[T] {
	return rapid.Custom(func(t *rapid.T) T {
		var v T
		draw(t, reflect.ValueOf(&v).Elem())
		return v
	})
}

func draw(t *rapid.T, v reflect.Value) {
	for i := range v.NumField() {
		switch f := v.Field(i); f.Interface().(type) {
		case time.Time:
			f.Set(reflect.ValueOf(drawnTime.Draw(t, "time")))
		case bool:
			f.SetBool(rapid.Bool().Draw(t, "bool"))
		case int:
			f.SetInt(int64(rapid.IntRange(0, math.MaxInt32).Draw(t, "number")))
		case entitlement.Version:
			draw(t, f)
		default:
			f.SetString(rapid.OneOf(rapid.String(), rapid.StringN(120, 140, -1), drawnUUID).Draw(t, "string")) // panics if it is none
		}
	}
}

// eachKind runs a check for every kind of record.
func eachKind(t *testing.T, check func(t *rapid.T, k recordKind)) {
	for _, k := range recordKinds {
		t.Run(k.name, func(t *testing.T) { rapid.Check(t, func(t *rapid.T) { check(t, k) }) })
	}
}

type recordKind struct {
	name   string
	draw   func(t *rapid.T) any
	encode func(v any) []byte
	decode func(b []byte) (any, error)
}

func kindOf[T any](fields func(*codec, *T)) recordKind {
	return recordKind{
		name:   strings.ToLower(reflect.TypeFor[T]().Name()),
		draw:   func(t *rapid.T) any { return drawn[T]().Draw(t, "record") },
		encode: func(v any) []byte { return encode(fields, v.(T)) },
		decode: func(b []byte) (any, error) { return readRecord("", fields, b) },
	}
}

var recordKinds = []recordKind{
	kindOf(customerFields), kindOf(subscriptionFields), kindOf(orderFields), kindOf(grantFields),
	kindOf(refundFields), kindOf(checkoutFields), kindOf(passFields), kindOf(emailFields), kindOf(memberFields), kindOf(seatFields),
}

func TestRecordRoundTrip(t *testing.T) {
	eachKind(t, func(t *rapid.T, k recordKind) {
		v := k.draw(t)
		b := k.encode(v)
		got, err := k.decode(b)
		if err != nil || !reflect.DeepEqual(got, v) {
			t.Errorf("%+v came back as %+v, %v", v, got, err)
		}
		// A later version's record has more at its end.
		got, err = k.decode(append(b, 1, 2, 3))
		if err != nil || !reflect.DeepEqual(got, v) {
			t.Errorf("%+v with more fields came back as %+v, %v", v, got, err)
		}
	})
}

// TestRecordCutShort: a record that ends early leaves its last fields zero, or
// is refused; it never says something else.
func TestRecordCutShort(t *testing.T) {
	eachKind(t, func(t *rapid.T, k recordKind) {
		v := k.draw(t)
		b := k.encode(v)
		refused := 0
		for n := range b {
			got, err := k.decode(b[:n])
			if err != nil {
				refused++
				continue
			}
			onlyZeroed(t, reflect.ValueOf(v), reflect.ValueOf(got))
		}
		if first, err := k.decode(nil); err != nil || !reflect.ValueOf(first).IsZero() {
			t.Errorf("nothing is read as %+v, %v", first, err)
		}
		if id := reflect.ValueOf(v).FieldByName("ID").String(); len(id) > 0 && refused == 0 {
			t.Errorf("a string cut in two was accepted: %q", b)
		}
	})
}

func onlyZeroed(t *rapid.T, full, cut reflect.Value) {
	for i := range full.NumField() {
		c, f := cut.Field(i), full.Field(i)
		if _, ok := f.Interface().(entitlement.Version); ok {
			onlyZeroed(t, f, c)
		} else if !c.IsZero() && !reflect.DeepEqual(c.Interface(), f.Interface()) {
			t.Errorf("%s is %v, was %v", full.Type().Field(i).Name, c, f)
		}
	}
}

// TestRecordsOfTheFirstSchema pins the bytes: files of this schema exist.
func TestRecordsOfTheFirstSchema(t *testing.T) {
	v := entitlement.Version{Row: time.UnixMicro(1).UTC(), AsOf: time.UnixMicro(-64).UTC()}
	for _, c := range []struct {
		kind recordKind
		v    any
		want string
	}{
		{recordKinds[0], entitlement.Customer{Version: v, ID: "c", ExternalID: "ab", DeletedAt: time.UnixMicro(2).UTC()}, "\x02\x7f\x01c\x02ab\x04"},
		{
			recordKinds[1],
			entitlement.Subscription{
				Version: v, ID: "a", CustomerID: "b", ProductID: "c", CheckoutID: "d", Status: "e", MetadataUser: "f", PendingProductID: "g",
				PeriodStart: time.UnixMicro(1).UTC(), PeriodEnd: time.UnixMicro(2).UTC(), TrialEnd: time.UnixMicro(3).UTC(),
				CanceledAt: time.UnixMicro(4).UTC(), EndsAt: time.UnixMicro(5).UTC(), EndedAt: time.UnixMicro(6).UTC(),
				PastDueAt: time.UnixMicro(7).UTC(), PausedAt: time.UnixMicro(8).UTC(), ResumesAt: time.UnixMicro(9).UTC(),
				PendingAt: time.UnixMicro(10).UTC(), CancelAtPeriodEnd: true, Seats: true,
			},
			"\x02\x7f\x01a\x01b\x01c\x01d\x01e\x01f\x01g\x02\x04\x06\x08\x0a\x0c\x0e\x10\x12\x14\x01\x00\x01\x00\x00\x00",
		},
		{
			recordKinds[2],
			entitlement.Order{Version: v, ID: "a", CustomerID: "b", ProductID: "c", SubscriptionID: "d", CheckoutID: "e", Status: "f", MetadataUser: "g", Seats: true},
			"\x02\x7f\x01a\x01b\x01c\x01d\x01e\x01f\x01g\x01",
		},
		{
			recordKinds[3],
			entitlement.Grant{Version: v, ID: "a", CustomerID: "b", BenefitID: "c", SubscriptionID: "d", OrderID: "e", Granted: true, RevokedAt: time.UnixMicro(1).UTC()},
			"\x02\x7f\x01a\x01b\x01c\x01d\x01e\x00\x01\x00\x02\x00",
		},
		{
			recordKinds[4],
			entitlement.Refund{Version: v, ID: "a", CustomerID: "b", OrderID: "c", SubscriptionID: "d", Succeeded: true, DisputeLost: true},
			"\x02\x7f\x01a\x01b\x01c\x01d\x01\x00\x00\x01",
		},
		{recordKinds[5], Checkout{ID: "a", CustomerID: "b", User: "c", OpenedAt: time.UnixMicro(1).UTC(), Used: true}, "\x01a\x01b\x01c\x02\x01"},
		{recordKinds[7], emailRecord{ID: "a", Row: time.UnixMicro(1).UTC(), Digest: "b"}, "\x01a\x02\x01b"},
		{recordKinds[8], entitlement.Member{Version: v, ID: "a", CustomerID: "b", ExternalID: "c", Role: "d", Deleted: true}, "\x02\x7f\x01a\x01b\x01c\x01d\x01"},
		{
			recordKinds[9],
			entitlement.Seat{Version: v, ID: "a", SubscriptionID: "b", OrderID: "c", CustomerID: "d", MemberID: "e", Claimed: true, RevokedAt: time.UnixMicro(1).UTC(), ClaimedIn: v},
			"\x02\x7f\x01a\x01b\x01c\x01d\x01e\x01\x00\x02\x02\x7f",
		},
		{recordKinds[6], entitlement.Pass{ID: "a", User: "b", Plan: "c", Reason: "d"}, "\x01a\x01b\x01c\x00\x01d"},
	} {
		if got := c.kind.encode(c.v); string(got) != c.want {
			t.Errorf("%s is %q, was %q", c.kind.name, got, c.want)
		}
		if got, err := c.kind.decode([]byte(c.want)); err != nil || !reflect.DeepEqual(got, c.v) {
			t.Errorf("%s is read as %+v, %v", c.kind.name, got, err)
		}
	}
	// As it was before there were more fields.
	if got, err := decode(checkoutFields, []byte("\x01a\x01b\x01c")); err != nil || got != (Checkout{ID: "a", CustomerID: "b", User: "c"}) {
		t.Errorf("an old checkout is read as %+v, %v", got, err)
	}
}

// TestRecordUnderItsID: what a key says does not stand in the record, and nothing is
// lost by it, also of a record that was written before it was so.
func TestRecordUnderItsID(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := drawn[entitlement.Order]().Draw(t, "order")
		v.ID = drawnUUID.Draw(t, "id")
		o := origin{Source{SourceWebhook, drawnUUID.Draw(t, "source")}, rapid.Uint64().Draw(t, "entry")}
		raw := record(o, v.ID, orderFields, v)
		if whole := record(o, "", orderFields, v); len(whole)-len(raw) < 17 {
			t.Errorf("%q is no shorter than %q", raw, whole)
		} else if got, err := readRecord(v.ID, orderFields, whole); err != nil || got != v {
			t.Errorf("%+v came back as %+v, %v", v, got, err)
		}
		if got, err := readRecord(v.ID, orderFields, raw); err != nil || got != v {
			t.Errorf("%+v came back as %+v, %v", v, got, err)
		}
		if got, err := readRecord("other", orderFields, record(o, "other", orderFields, v)); err != nil || got != v {
			t.Errorf("%+v came back as %+v, %v", v, got, err)
		}
		if got, rest, err := cutOrigin(raw); err != nil || got != o || bytes.HasPrefix(rest, originFollows) {
			t.Errorf("%+v came back as %+v, %v", o, got, err)
		}
	})
}

// TestUUIDs: a UUID takes 18 bytes, if it is written as it will be read again, and
// is read in both forms.
func TestUUIDs(t *testing.T) {
	const text, bytes = "0123abcd-ef45-6789-abcd-ef0123456789", "\x01\x23\xab\xcd\xef\x45\x67\x89\xab\xcd\xef\x01\x23\x45\x67\x89"
	for s, want := range map[string]string{
		text:                        "\x80\x00" + bytes,
		strings.ToUpper(text):       "\x24" + strings.ToUpper(text),
		text[:35]:                   "\x23" + text[:35],
		text + "0":                  "\x25" + text + "0",
		"g" + text[1:]:              "\x24g" + text[1:],
		text[:35] + "\xff":          "\x24" + text[:35] + "\xff",
		text[:23] + "_" + text[24:]: "\x24" + text[:23] + "_" + text[24:],
		bytes:                       "\x10" + bytes,
	} {
		for _, held := range []string{want, string(rune(len(s))) + s} { // all are shorter than 128 bytes
			var got string
			c := codec{buf: []byte(held), reading: true}
			if c.string(&got); got != s || c.err != nil || len(c.buf) > 0 {
				t.Errorf("%q is read as %q, %v", held, got, c.err)
			}
		}
		var c codec
		if c.string(&s); string(c.buf) != want {
			t.Errorf("%q is written as %q, not %q", s, c.buf, want)
		}
	}
}

// FuzzDecodeRecord: no bytes make a panic, and what can be read can be written
// and read again.
func FuzzDecodeRecord(f *testing.F) {
	for _, k := range recordKinds {
		f.Add(k.encode(reflect.Zero(reflect.TypeOf(must(k.decode(nil)))).Interface()))
	}
	f.Add(encode(customerFields, entitlement.Customer{Version: rev(1), ID: "c", ExternalID: "u", DeletedAt: at(1)}))
	f.Add(encode(subscriptionFields, entitlement.Subscription{Version: rev(1), ID: "s", Status: "active", PeriodEnd: at(9)}))
	f.Add(bytes.Repeat([]byte{0xff}, 20))
	f.Fuzz(func(t *testing.T, b []byte) {
		kept := bytes.Clone(b)
		for _, k := range recordKinds {
			v, err := k.decode(b)
			if !bytes.Equal(b, kept) {
				t.Fatalf("%s: decoding has changed the bytes", k.name)
			}
			if err != nil {
				continue
			}
			again, err := k.decode(k.encode(v))
			if err != nil || fmt.Sprintf("%+v", again) != fmt.Sprintf("%+v", v) {
				t.Errorf("%s: %+v, then %+v, %v", k.name, v, again, err)
			}
		}
	})
}

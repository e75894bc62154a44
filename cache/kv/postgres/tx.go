package postgres

import (
	"bytes"
	"iter"
	"strings"

	"github.com/tidwall/btree"

	"github.com/caddy-polar/caddy-polar/cache/kv"
)

// tx is one run of a transaction's body. What the body asks for and nobody has read from
// the database yet is noted as missing, and the body goes on as if it were not there: it
// runs again once all that it missed was read at once. So it takes as many round trips as
// one thing follows from another, however many things there are.
type tx struct {
	known    *known
	sequence uint64
	written  map[string]*written // of this run, by bucket
	missing  bool
}

// known is what was read from the database, for all runs.
type known struct {
	buckets map[string]*read
}

// read is what was read of one bucket.
type read struct {
	values map[string][]byte // nil: there is no such key
	ranges map[span][]entry
	// What is missing.
	wantKeys   map[string]struct{}
	wantRanges map[span]struct{}
}

// span is what Range is asked for.
type span struct {
	from, prefix string
	limit        int
}

type entry struct{ key, value []byte }

// written is what a run has written to a bucket: a nil value is a deletion.
type written struct {
	values btree.Map[string, []byte]
}

func newKnown() *known { return &known{buckets: make(map[string]*read)} }

func (k *known) of(bucket string) *read {
	r := k.buckets[bucket]
	if r == nil {
		r = &read{
			values: make(map[string][]byte), ranges: make(map[span][]entry),
			wantKeys: make(map[string]struct{}), wantRanges: make(map[span]struct{}),
		}
		k.buckets[bucket] = r
	}
	return r
}

func newTx(k *known, sequence uint64) *tx {
	return &tx{known: k, sequence: sequence, written: make(map[string]*written)}
}

// Sequence implements kv.Tx.
func (t *tx) Sequence() uint64 { return t.sequence }

// Bucket implements kv.Tx: all buckets are there from the beginning.
func (t *tx) Bucket(name []byte) kv.Bucket {
	return &bucket{tx: t, name: string(name), read: t.known.of(string(name))}
}

// Create implements kv.Tx.
func (t *tx) Create(name []byte) (kv.Bucket, error) { return t.Bucket(name), nil }

// bucket is one of a run.
type bucket struct {
	tx   *tx
	name string
	read *read
}

// Get implements kv.Bucket.
func (b *bucket) Get(key string) []byte {
	if w := b.tx.written[b.name]; w != nil {
		if value, ok := w.values.Get(key); ok {
			return value
		}
	}
	value, ok := b.read.values[key]
	if !ok {
		b.read.wantKeys[key] = struct{}{}
		b.tx.missing = true
	}
	return value
}

// Put implements kv.Bucket.
func (b *bucket) Put(key string, value []byte) error {
	if key == "" {
		return errNoKey
	}
	if value == nil {
		value = []byte{}
	}
	b.write(key, value)
	return nil
}

// Delete implements kv.Bucket.
func (b *bucket) Delete(key string) error {
	b.write(key, nil)
	return nil
}

func (b *bucket) write(key string, value []byte) {
	w := b.tx.written[b.name]
	if w == nil {
		w = new(written)
		b.tx.written[b.name] = w
	}
	w.values.Set(key, value)
}

// in goes through what was written to a range.
func (w *written) in(s span, each func(key string, value []byte)) {
	w.values.Ascend(s.from, func(key string, value []byte) bool {
		if !strings.HasPrefix(key, s.prefix) {
			return false
		}
		each(key, value)
		return true
	})
}

// gone counts what was deleted of a range.
func (w *written) gone(s span) (n int) {
	w.in(s, func(_ string, value []byte) {
		if value == nil {
			n++
		}
	})
	return n
}

// Range implements kv.Bucket.
func (b *bucket) Range(from, prefix string, limit int) iter.Seq2[[]byte, []byte] {
	w := b.tx.written[b.name]
	s := span{max(from, prefix), prefix, limit}
	if w != nil && limit > 0 {
		s.limit += w.gone(s) // that many more may be needed
	}
	held, ok := b.read.ranges[s]
	if !ok {
		b.read.wantRanges[s] = struct{}{}
		b.tx.missing = true
	}
	if w != nil {
		held = w.merge(held, s)
	}
	return func(yield func(key, value []byte) bool) {
		for i, e := range held {
			if limit > 0 && i == limit || !yield(e.key, e.value) {
				return
			}
		}
	}
}

// merge is what a range has, with what was written since.
func (w *written) merge(held []entry, s span) []entry {
	var merged []entry
	w.in(s, func(key string, value []byte) {
		for len(held) > 0 && string(held[0].key) < key {
			merged, held = append(merged, held[0]), held[1:]
		}
		if len(held) > 0 && string(held[0].key) == key {
			held = held[1:]
		}
		if value != nil {
			merged = append(merged, entry{[]byte(key), value})
		}
	})
	if merged == nil {
		return held
	}
	return append(merged, held...)
}

// numbers is the bucket of what NextNumber has given: bucket → number.
const numbers = "numbers"

// NextNumber implements kv.Bucket.
func (b *bucket) NextNumber() (uint64, error) {
	next := b.Number() + 1
	return next, b.SetNumber(next)
}

// SetNumber implements kv.Bucket.
func (b *bucket) SetNumber(n uint64) error {
	return (&bucket{b.tx, numbers, b.tx.known.of(numbers)}).Put(b.name, appendNumber(nil, n))
}

// Number implements kv.Bucket.
func (b *bucket) Number() uint64 {
	return readNumber((&bucket{b.tx, numbers, b.tx.known.of(numbers)}).Get(b.name))
}

// upper is the first key after all that begin with a prefix; after all keys if there is
// none. No key begins with so many of these bytes.
func upper(prefix string) []byte {
	end := []byte(prefix)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i] < 0xff {
			end[i]++
			return end[:i+1]
		}
	}
	return bytes.Repeat([]byte{0xff}, 32)
}

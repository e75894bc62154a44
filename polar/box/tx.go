package box

import (
	"cmp"
	"time"
)

// tx is one of Polar's database transactions. It stamps rows and renders events
// while it runs; all of it becomes visible at its end, or later.
type tx struct {
	b        *Box
	visible  time.Time
	modified time.Time // the flush: one value for all rows that it changes
	created  map[string]bool
	events   []Event
}

// transact runs a transaction; mu is held. Whatever can be refused must be
// refused before the first write: nothing is rolled back.
func (b *Box) transact(do func(*tx)) {
	t := &tx{b: b, created: map[string]bool{}}
	t.visible = b.clock.tick().Add(b.late)
	do(t)
	b.commit(t)
}

func (t *tx) flush() time.Time {
	if t.modified.IsZero() {
		t.modified = t.b.clock.tick()
	}
	return t.modified
}

type entity[T any] interface {
	*T
	meta() *Row
}

func insert[T any, P entity[T]](t *tx, into *table[T], row P) {
	m := row.meta()
	if m.CreatedAt.IsZero() {
		made := t.b.newRow()
		m.ID, m.CreatedAt = cmp.Or(m.ID, made.ID), made.CreatedAt
	}
	t.created[m.ID] = true
	into.put(m.ID, t.visible, *row)
}

// update writes a changed row. The modified_at of a row that the transaction
// created stays null, as it was flushed once.
func update[T any, P entity[T]](t *tx, into *table[T], row P) {
	if m := row.meta(); !t.created[m.ID] {
		at := t.flush()
		m.ModifiedAt = &at
	}
	into.put(row.meta().ID, t.visible, *row)
}

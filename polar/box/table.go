package box

import (
	"slices"
	"time"
)

// keep is how long old versions of a row can be read, which bounds the lag.
const keep = time.Hour

type version[T any] struct {
	at  time.Time // when it became visible
	row T
}

// writes counts what was written to all tables of a box.
type writes struct {
	n    int
	last time.Time // when the last of it is visible
}

// table keeps the versions of rows, so that a read can see the past as a
// lagging replica does. Rows are values: whoever reads one owns it.
type table[T any] struct {
	writes *writes
	owner  func(*T) string
	ids    []string
	rows   map[string][]version[T]
	owners map[string][]string
	shown  view[T]
}

func newTable[T any](w *writes, owner func(*T) string) table[T] {
	return table[T]{writes: w, owner: owner, rows: map[string][]version[T]{}, owners: map[string][]string{}}
}

func (t *table[T]) put(id string, visible time.Time, row T) {
	versions, exists := t.rows[id]
	if !exists {
		t.ids = append(t.ids, id)
	}
	if o := t.owner(&row); !exists || t.owner(&versions[len(versions)-1].row) != o && !slices.Contains(t.owners[o], id) {
		t.owners[o] = append(t.owners[o], id)
	}
	if n := len(versions); n > 0 && versions[n-1].at.After(visible) {
		visible = versions[n-1].at // it waited for the lock of a slow transaction
	}
	for len(versions) > 1 && versions[1].at.Before(visible.Add(-keep)) {
		versions = versions[1:]
	}
	t.rows[id] = append(versions, version[T]{visible, row})
	t.writes.n++
	if visible.After(t.writes.last) {
		t.writes.last = visible
	}
}

// get returns the newest version, visible or not: writers lock rows.
func (t *table[T]) get(id string) (T, bool) {
	versions := t.rows[id]
	if len(versions) == 0 {
		var zero T
		return zero, false
	}
	return versions[len(versions)-1].row, true
}

// seen returns the version that was visible at a time.
func (t *table[T]) seen(id string, at time.Time) (T, bool) {
	if row := t.look(id, at); row != nil {
		return *row, true
	}
	var zero T
	return zero, false
}

// look is seen without a copy, for who only reads. Versions are never changed.
func (t *table[T]) look(id string, at time.Time) *T {
	versions := t.rows[id]
	for i := len(versions) - 1; i >= 0; i-- {
		if !versions[i].at.After(at) {
			return &versions[i].row
		}
	}
	return nil
}

// all returns the newest versions, oldest row first.
func (t *table[T]) all() []T {
	out := make([]T, 0, len(t.ids))
	for _, id := range t.ids {
		row, _ := t.get(id)
		out = append(out, row)
	}
	return out
}

// allSeen returns what was visible at a time, to be read only.
func (t *table[T]) allSeen(at time.Time) []*T {
	out := make([]*T, 0, len(t.ids))
	for _, id := range t.ids {
		if row := t.look(id, at); row != nil {
			out = append(out, row)
		}
	}
	return out
}

// of returns the newest versions that belong to an owner.
func (t *table[T]) of(owner string) []T {
	var out []T
	for _, id := range t.owners[owner] {
		if row, _ := t.get(id); t.owner(&row) == owner {
			out = append(out, row)
		}
	}
	return out
}

func (t *table[T]) ofSeen(owner string, at time.Time) []T {
	var out []T
	for _, id := range t.owners[owner] {
		if row, ok := t.seen(id, at); ok && t.owner(&row) == owner {
			out = append(out, row)
		}
	}
	return out
}

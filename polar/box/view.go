package box

import "time"

// view is what a list has shown last: the rows that pass its filters, in order.
// Reading a long list page by page sorts it once.
type view[T any] struct {
	query   string
	writes  int
	at      time.Time
	rows    []*T
	columns map[string][]time.Time
}

// column returns a moment of each row, or zero where there is none: one after
// the other, as each page of a long list looks through all of them.
func (v *view[T]) column(name string, of func(*T) *time.Time) []time.Time {
	column := v.columns[name]
	if column == nil {
		column = make([]time.Time, len(v.rows))
		for i, row := range v.rows {
			if t := of(row); t != nil {
				column[i] = *t
			}
		}
		if v.columns == nil {
			v.columns = map[string][]time.Time{}
		}
		v.columns[name] = column
	}
	return column
}

// show returns what a list shows at a time. It is made anew after any write, as
// a list can filter and sort by other tables, and while not all is visible.
func (t *table[T]) show(query string, at time.Time, arrange func([]*T) ([]*T, error)) (*view[T], error) {
	v, w := &t.shown, t.writes
	settled := !v.at.Before(w.last) && !at.Before(w.last)
	if v.query == query && v.writes == w.n && (settled || v.at.Equal(at)) {
		return v, nil
	}
	rows, err := arrange(t.allSeen(at))
	if err != nil {
		return nil, err
	}
	*v = view[T]{query: query, writes: w.n, at: at, rows: rows}
	return v, nil
}

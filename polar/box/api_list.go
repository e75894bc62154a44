package box

import (
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

func itoa(n int) string { return strconv.Itoa(n) }

// listing is a list of Polar's, before it is filtered and cut into pages.
// Filters and sorts work on rows: rendering is for one page only.
type listing[T any] struct {
	of      *table[T]     // whose rows are listed, or
	rows    []T           // these few
	where   func(*T) bool // which of them; nil: all
	filters map[string]func(*T) string
	matches map[string]func(row *T, value string) bool // filters that are not equality
	after   map[string]func(*T) *time.Time             // filters by a moment: later ones
	before  map[string]func(*T) *time.Time             // and earlier ones
	sorts   map[string]func(*T) string                 // values that sort as strings
	order   string                                     // the default
	meta    func(*T) map[string]any
	render  func(*T) obj
}

func byCreation[T any, P entity[T]](v *T) string { return sortable(&P(v).meta().CreatedAt) }

func sortable(t *time.Time) string {
	if t == nil {
		return ""
	}
	return t.UTC().Format("2006-01-02T15:04:05.000000")
}

func list[T any](c *call, l listing[T]) (any, error) {
	q := c.r.URL.Query()
	page, limit, err := pageOf(q)
	if err != nil {
		return nil, err
	}
	if l.matches == nil {
		l.matches = map[string]func(*T, string) bool{}
	}
	l.matches["organization_id"] = func(_ *T, id string) bool { return id == c.b.org.ID } // of all lists
	shown, err := l.arranged(c, q)
	if err != nil {
		return nil, err
	}
	passes, err := l.moments(q, shown)
	if err != nil {
		return nil, err
	}
	total, from := 0, (page-1)*limit
	items := []any{}
	for i, row := range shown.rows {
		if !passes(i) {
			continue
		}
		if total >= from && total < from+limit {
			items = append(items, l.render(row))
		}
		total++
	}
	return obj{"items": items, "pagination": obj{"total_count": total, "max_page": (total + limit - 1) / limit}}, nil
}

func pageOf(q url.Values) (page, limit int, err error) {
	page, limit = 1, 10
	for name, to := range map[string]*int{"page": &page, "limit": &limit} {
		if !q.Has(name) {
			continue
		}
		n, bad := strconv.Atoi(q.Get(name))
		if bad != nil {
			return 0, 0, requestError("int_parsing", "Input should be a valid integer, unable to parse string as an integer", q.Get(name), "query", name)
		}
		if n < 1 {
			return 0, 0, requestError("greater_than", "Input should be greater than 0", q.Get(name), "query", name)
		}
		*to = n
	}
	return min(page, 1<<30), min(limit, 100), nil
}

// arranged returns all pages, without regard to moments: who reads a long list
// says from which moment on each time, and its table is to remember it.
func (l *listing[T]) arranged(c *call, q url.Values) (*view[T], error) {
	arrange := func(rows []*T) ([]*T, error) {
		rows, err := l.filter(q, rows)
		if err != nil {
			return nil, err
		}
		return rows, l.sort(q, rows)
	}
	if l.of != nil {
		rest := maps.Clone(q)
		maps.DeleteFunc(rest, func(name string, _ []string) bool {
			return name == "page" || name == "limit" || l.after[name] != nil || l.before[name] != nil
		})
		return l.of.show(c.r.URL.Path+"?"+rest.Encode(), c.at, arrange)
	}
	rows := make([]*T, len(l.rows))
	for i := range l.rows {
		rows[i] = &l.rows[i]
	}
	rows, err := arrange(rows)
	return &view[T]{rows: rows}, err
}

func (l *listing[T]) filter(q url.Values, rows []*T) ([]*T, error) {
	if l.where != nil {
		rows = slices.DeleteFunc(rows, func(row *T) bool { return !l.where(row) })
	}
	for name, values := range q {
		of := l.filters[name]
		if key, ok := strings.CutPrefix(name, "metadata["); ok && l.meta != nil {
			key = strings.TrimSuffix(key, "]")
			of = func(row *T) string {
				if v, ok := l.meta(row)[key]; ok {
					return fmt.Sprint(v)
				}
				return ""
			}
		}
		matches := l.matches[name]
		if of != nil {
			matches = func(row *T, v string) bool { return of(row) == v }
		}
		if matches == nil {
			continue // FastAPI ignores what it does not know
		}
		for _, v := range values {
			if (strings.HasSuffix(name, "_id") || name == "id") && !strings.HasPrefix(name, "external") && !isUUID(v) {
				return nil, requestError("uuid_parsing", "Input should be a valid UUID", v, "query", name)
			}
		}
		rows = slices.DeleteFunc(rows, func(row *T) bool {
			return !slices.ContainsFunc(values, func(v string) bool { return matches(row, v) })
		})
	}
	return rows, nil
}

func (l *listing[T]) sort(q url.Values, rows []*T) error {
	orders := q["sorting"]
	if len(orders) == 0 {
		orders = []string{l.order}
	}
	for _, o := range slices.Backward(orders) {
		name, down := strings.CutPrefix(o, "-")
		of := l.sorts[name]
		if of == nil {
			return requestError("enum", "Input should be one of the sort properties", o, "query", "sorting")
		}
		sortBy(rows, of, down)
	}
	return nil
}

// contains is how Polar searches: a part of a text, in any case of letters.
func contains(part string, texts ...string) bool {
	return slices.ContainsFunc(texts, func(s string) bool { return strings.Contains(strings.ToLower(s), strings.ToLower(part)) })
}

// money sorts amounts as strings.
func money(n int) string { return fmt.Sprintf("%012d", n) }

// sortBy makes each key once.
func sortBy[T any](rows []*T, of func(*T) string, down bool) {
	type place struct {
		key  string
		from int
		row  *T
	}
	order := make([]place, len(rows))
	for i, row := range rows {
		order[i] = place{of(row), i, row}
	}
	slices.SortFunc(order, func(a, b place) int {
		x := cmp.Compare(a.key, b.key)
		if down {
			x = -x
		}
		return cmp.Or(x, a.from-b.from) // equal rows stay as they were
	})
	for i := range order {
		rows[i] = order[i].row
	}
}

// moments tells which rows are on the right side of the moments asked for.
func (l *listing[T]) moments(q url.Values, shown *view[T]) (passes func(i int) bool, err error) {
	type side struct {
		of    []time.Time
		at    time.Time
		after bool
	}
	var sides []side
	for after, filters := range map[bool]map[string]func(*T) *time.Time{true: l.after, false: l.before} {
		for name, of := range filters {
			if !q.Has(name) {
				continue
			}
			at, err := time.Parse(time.RFC3339Nano, q.Get(name))
			if err != nil {
				return nil, requestError("datetime_parsing", "Input should be a valid datetime", q.Get(name), "query", name)
			}
			sides = append(sides, side{shown.column(name, of), at, after})
		}
	}
	return func(i int) bool {
		return !slices.ContainsFunc(sides, func(s side) bool { return s.of[i].IsZero() || s.of[i].After(s.at) != s.after })
	}, nil
}

// one answers with a row as the replica sees it.
func one[T any](c *call, t func(*Box) *table[T], render func(*Box, *T) obj) (int, any, error) {
	return c.read(func(b *Box) (any, error) {
		row, ok := t(b).seen(c.params["id"], c.at)
		if !ok {
			return nil, notFound()
		}
		return render(b, &row), nil
	})
}

func created(v any, err error) (int, any, error) { return http.StatusCreated, v, err }

package postgres

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// insert is the statement that writes records, with the values of its columns, each as
// an array.
func (c Columns) insert(table string, keys, values [][]byte) (statement string, arrays []any) {
	names, types, sets := []string{"key", "value"}, []string{"$1::bytea[]", "$2::bytea[]"}, []string{"value = excluded.value"}
	for _, column := range c.List {
		name := pgx.Identifier{column.Name}.Sanitize()
		names, sets = append(names, name), append(sets, name+" = excluded."+name)
		types = append(types, fmt.Sprintf("$%d::%s[]", len(types)+1, column.Type))
		arrays = append(arrays, newArray(column.Type, len(keys)))
	}
	if c.Of != nil {
		for row := range keys {
			for i, value := range c.Of(string(keys[row]), values[row]) {
				set(arrays[i], row, value)
			}
		}
	}
	return "INSERT INTO " + table + " (" + strings.Join(names, ", ") + ") SELECT * FROM unnest(" + strings.Join(types, ", ") + ")" +
		" ON CONFLICT (key) DO UPDATE SET " + strings.Join(sets, ", "), arrays
}

func newArray(kind string, n int) any {
	switch kind {
	case "timestamptz":
		return make([]*time.Time, n)
	case "boolean":
		return make([]*bool, n)
	case "bigint":
		return make([]*int64, n)
	}
	return make([]*string, n)
}

// set puts a value into an array, if it is of its type. A text cannot have all that a
// key can.
func set(array any, i int, value any) {
	switch v := value.(type) {
	case string:
		v = strings.ReplaceAll(strings.ToValidUTF8(v, "\ufffd"), "\x00", "\ufffd")
		array.([]*string)[i] = &v
	case time.Time:
		array.([]*time.Time)[i] = &v
	case bool:
		array.([]*bool)[i] = &v
	case int64:
		array.([]*int64)[i] = &v
	}
}

// columnSteps are the statements that make the columns and the views.
func (e *Engine) columnSteps() (steps []string) {
	for _, bucket := range slices.Sorted(maps.Keys(e.columns)) {
		table := e.table(bucket)
		for _, c := range e.columns[bucket].List {
			name := pgx.Identifier{c.Name}.Sanitize()
			steps = append(steps, "ALTER TABLE "+table+" ADD COLUMN IF NOT EXISTS "+name+" "+c.Type)
			if c.Indexed {
				index := pgx.Identifier{"store_" + bucket + "_" + c.Name}.Sanitize()
				steps = append(steps, "CREATE INDEX IF NOT EXISTS "+index+" ON "+table+" ("+name+")")
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(e.views)) {
		query := e.views[name]
		for _, bucket := range e.buckets {
			query = strings.ReplaceAll(query, "{"+bucket+"}", e.table(bucket))
		}
		steps = append(steps, "CREATE OR REPLACE VIEW "+e.schema+"."+pgx.Identifier{name}.Sanitize()+" AS "+query)
	}
	return steps
}

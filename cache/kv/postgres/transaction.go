package postgres

import (
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"

	"github.com/jackc/pgx/v5"
)

// transaction is one on the server.
type transaction struct {
	engine   *Engine
	db       *database
	conn     *pgx.Conn
	known    *known
	sequence uint64
	open     bool
}

// begin begins a transaction, numbers it, and reads what is missing by now. A writing one
// has the lock of the number from here on: what it reads nobody else changes.
func (t *transaction) begin(ctx context.Context, write bool) error {
	batch := new(pgx.Batch)
	head := t.engine.table("head")
	if write {
		batch.Queue("BEGIN ISOLATION LEVEL READ COMMITTED") // what comes after the lock sees what was before it
		batch.Queue(t.db.set)
		batch.Queue("UPDATE " + head + " SET sequence = sequence + 1 RETURNING sequence, oldest")
	} else {
		batch.Queue("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
		batch.Queue(t.db.set)
		batch.Queue("SELECT sequence, oldest FROM " + head)
	}
	before := batch.Len() - 1
	wanted := t.want(batch)
	t.open = true
	results := t.conn.SendBatch(ctx, batch)
	for range before {
		if _, err := results.Exec(); err != nil {
			return closing(results, err)
		}
	}
	var sequence, oldest int64
	if err := results.QueryRow().Scan(&sequence, &oldest); err != nil {
		return closing(results, err)
	}
	if oldest > layout { // a newer gateway beside this one has changed them
		return closing(results, newer(oldest))
	}
	t.sequence = uint64(sequence)
	if err := t.take(results, wanted); err != nil {
		return closing(results, err)
	}
	return results.Close()
}

// closing ends a batch that has failed, which says so again.
func closing(results pgx.BatchResults, err error) error {
	_ = results.Close()
	return err
}

// fetch reads what is missing.
func (t *transaction) fetch(ctx context.Context) error {
	batch := new(pgx.Batch)
	wanted := t.want(batch)
	results := t.conn.SendBatch(ctx, batch)
	if err := t.take(results, wanted); err != nil {
		return closing(results, err)
	}
	return results.Close()
}

// wanted is a query for keys of a bucket, or for ranges.
type wanted struct {
	read   *read
	keys   []string
	ranges []span
}

// want puts queries for all that is missing into a batch.
func (t *transaction) want(batch *pgx.Batch) (list []wanted) {
	for _, name := range slices.Sorted(maps.Keys(t.known.buckets)) {
		r := t.known.buckets[name]
		table := t.engine.table(name)
		if len(r.wantKeys) > 0 {
			keys := slices.Collect(maps.Keys(r.wantKeys))
			batch.Queue("SELECT key, value FROM "+table+" WHERE key = ANY($1::bytea[])", asBytes(keys))
			list = append(list, wanted{read: r, keys: keys})
			clear(r.wantKeys)
		}
		if len(r.wantRanges) > 0 {
			list = append(list, wantRanges(batch, table, r, slices.Collect(maps.Keys(r.wantRanges)))...)
			clear(r.wantRanges)
		}
	}
	return list
}

// fewRanges are asked for one by one: the server plans that several times as fast as all
// in one.
const fewRanges = 4

// wantRanges puts queries for ranges of a bucket into a batch.
func wantRanges(batch *pgx.Batch, table string, r *read, ranges []span) (list []wanted) {
	from, to, limits := make([][]byte, len(ranges)), make([][]byte, len(ranges)), make([]*int64, len(ranges))
	for i, s := range ranges {
		from[i], to[i] = []byte(s.from), upper(s.prefix)
		if s.limit > 0 {
			limit := int64(s.limit)
			limits[i] = &limit
		}
	}
	if len(ranges) > fewRanges {
		batch.Queue("SELECT w.place, r.key, r.value FROM unnest($1::bytea[], $2::bytea[], $3::bigint[]) WITH ORDINALITY AS w (lower, upper, most, place)"+
			" CROSS JOIN LATERAL (SELECT key, value FROM "+table+" WHERE key >= w.lower AND key < w.upper ORDER BY key LIMIT w.most) AS r"+
			" ORDER BY w.place, r.key", from, to, limits)
		return []wanted{{read: r, ranges: ranges}}
	}
	for i := range ranges {
		batch.Queue("SELECT 1::bigint, key, value FROM "+table+" WHERE key >= $1 AND key < $2 ORDER BY key LIMIT $3", from[i], to[i], limits[i])
		list = append(list, wanted{read: r, ranges: ranges[i : i+1]})
	}
	return list
}

// take reads what want has asked for.
func (t *transaction) take(results pgx.BatchResults, list []wanted) error {
	for _, w := range list {
		rows, err := results.Query()
		if err != nil {
			return err
		}
		for _, key := range w.keys {
			w.read.values[key] = nil
		}
		for _, s := range w.ranges {
			w.read.ranges[s] = nil
		}
		for rows.Next() {
			var e entry
			var place int64
			if w.keys != nil {
				err = rows.Scan(&e.key, &e.value)
				w.read.values[string(e.key)] = e.value
			} else if err = rows.Scan(&place, &e.key, &e.value); err == nil {
				s := w.ranges[place-1]
				w.read.ranges[s] = append(w.read.ranges[s], e)
			}
			if err != nil {
				rows.Close()
				return err
			}
		}
		if err := rows.Err(); err != nil {
			return err
		}
	}
	return nil
}

// commit writes what a run has written.
func (t *transaction) commit(ctx context.Context, run *tx) error {
	batch := new(pgx.Batch)
	for _, name := range slices.Sorted(maps.Keys(run.written)) {
		w, table := run.written[name], t.engine.table(name)
		var keys, values, gone [][]byte
		w.values.Scan(func(key string, value []byte) bool {
			if value == nil {
				gone = append(gone, []byte(key))
			} else {
				keys, values = append(keys, []byte(key)), append(values, value)
			}
			return true
		})
		if len(gone) > 0 {
			batch.Queue("DELETE FROM "+table+" WHERE key = ANY($1::bytea[])", gone)
		}
		if len(keys) > 0 {
			statement, columns := t.engine.columns[name].insert(table, keys, values)
			batch.Queue(statement, append([]any{keys, values}, columns...)...)
		}
	}
	batch.Queue("COMMIT")
	if err := t.conn.SendBatch(ctx, batch).Close(); err != nil {
		return fmt.Errorf("committing: %w", err)
	}
	t.open = false
	return nil
}

// end gives up a transaction that was not committed. If that fails too the connection is
// closed, and the server ends it.
func (t *transaction) end(ctx context.Context) {
	if !t.open {
		return
	}
	if _, err := t.conn.Exec(ctx, "ROLLBACK"); err != nil {
		_ = t.conn.Close(ctx)
	}
}

func asBytes(keys []string) [][]byte {
	out := make([][]byte, len(keys))
	for i, key := range keys {
		out[i] = []byte(key)
	}
	return out
}

func appendNumber(b []byte, n uint64) []byte { return binary.BigEndian.AppendUint64(b, n) }

func readNumber(b []byte) uint64 {
	if len(b) != 8 {
		return 0
	}
	return binary.BigEndian.Uint64(b)
}

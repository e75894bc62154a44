package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// layout is the version of the tables. Each has the steps that lead to it from the one
// before. A gateway of an older version goes on beside a newer one as long as that only
// adds: what it must not use raises the oldest version that may.
const layout = 1

// migrate makes the tables, or brings them to this version, once: others wait for it.
func (e *Engine) migrate(ctx context.Context, pool *pgxpool.Pool) error {
	var encoding string
	if err := pool.QueryRow(ctx, "SHOW server_encoding", unremembered).Scan(&encoding); err != nil {
		return err
	}
	if encoding != "UTF8" && encoding != "SQL_ASCII" { // which takes any bytes
		return fmt.Errorf("%w, but %s", ErrEncoding, encoding)
	}
	switch version, oldest, err := e.version(ctx, pool); {
	case err != nil:
		return err
	case oldest > layout:
		return newer(oldest)
	case version >= layout:
		return nil
	}
	return pgx.BeginTxFunc(ctx, pool, pgx.TxOptions{IsoLevel: pgx.ReadCommitted}, func(t pgx.Tx) error {
		// Two that begin at once would both find nothing.
		if _, err := t.Exec(ctx, "SELECT pg_advisory_xact_lock(7308332152)"); err != nil {
			return err
		}
		var there bool // who may not make schemas can be given one
		if err := t.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)", unremembered, e.name).Scan(&there); err != nil {
			return err
		}
		steps := e.steps()
		if !there {
			steps = append([]string{"CREATE SCHEMA " + e.schema}, steps...)
		}
		for _, step := range steps {
			if _, err := t.Exec(ctx, step); err != nil {
				return err
			}
		}
		return nil
	})
}

func newer(oldest int64) error {
	return fmt.Errorf("%w: only version %d of them or later may use them, this one is %d", ErrNewer, oldest, layout)
}

// version is that of the tables, 0 if there are none, and the oldest that may use them.
func (e *Engine) version(ctx context.Context, pool *pgxpool.Pool) (version, oldest int64, err error) {
	err = pool.QueryRow(ctx, "SELECT version, oldest FROM "+e.table("head"), unremembered).Scan(&version, &oldest)
	if failure, ok := errors.AsType[*pgconn.PgError](err); ok && (failure.Code == undefinedTable || failure.Code == undefinedSchema) {
		return 0, 0, nil
	}
	return version, oldest, err
}

// steps are the statements that make the tables, each of which may have been done.
func (e *Engine) steps() []string {
	list := []string{
		"CREATE TABLE IF NOT EXISTS " + e.table("head") +
			" (one boolean PRIMARY KEY DEFAULT true CHECK (one), version integer NOT NULL, oldest integer NOT NULL, sequence bigint NOT NULL)",
	}
	for _, name := range append([]string{numbers}, e.buckets...) {
		list = append(list, "CREATE TABLE IF NOT EXISTS "+e.table(name)+" (key bytea PRIMARY KEY, value bytea NOT NULL)")
	}
	list = append(list, e.columnSteps()...)
	return append(list, fmt.Sprintf("INSERT INTO %s (version, oldest, sequence) VALUES (%d, %[2]d, 0) ON CONFLICT (one) DO UPDATE SET version = greatest(head.version, excluded.version)",
		e.table("head")+" AS head", layout))
}

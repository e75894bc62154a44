// Package postgres keeps the buckets of a store in a PostgreSQL database, which several
// processes can share. Each bucket is a table. Writers come one by one, by the lock of
// one row, which numbers the commits: so all processes see the same commits in the same
// order, whatever stands between them and the database.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/caddy-polar/caddy-polar/cache/kv"
)

const (
	// readTime and writeTime are how long a transaction may take. Polar waits ten seconds
	// for the answer to a webhook.
	readTime  = 2 * time.Second
	writeTime = 6 * time.Second
	// connectTime is how long the server may take to answer a new connection.
	connectTime = 2 * time.Second
	// again is how long a database that cannot be used is left alone.
	again = time.Second
	// closeTime is how long taking leave of the server may take.
	closeTime = time.Second
	// fullPause is between two tries of a server that takes no more connections, while this
	// process has some.
	fullPause = 2 * time.Millisecond
	// keptStatements is how many a connection remembers: more than there are.
	keptStatements = 256
	// tries is how often a transaction is tried that the server has given up for another
	// one, as CockroachDB does, or that never reached it, on a connection that had died.
	tries = 8
)

// Options say where the buckets are.
type Options struct {
	// DSN is a connection string or URL of libpq's. It is secret.
	DSN string
	// Schema has the tables. Default: polar.
	Schema string
	// Buckets are those that there will be.
	Buckets []string
	// Columns are what tables have beside keys and values, for people to look at.
	Columns map[string]Columns
	// Views are what people look at: name → query, in which {bucket} is a table.
	Views map[string]string
}

// Columns are those of one table.
type Columns struct {
	List []Column
	// Of are their values, nil where there is none: a string, time.Time, bool or int64,
	// as the types say.
	Of func(key string, value []byte) []any
}

// Column is one of them.
type Column struct {
	Name    string
	Type    string // text, timestamptz, boolean or bigint
	Indexed bool
}

// Engine is a database. It implements kv.Engine.
type Engine struct {
	config  *pgxpool.Config
	path    string
	name    string // of the schema
	schema  string // the same, quoted
	buckets []string
	columns map[string]Columns
	views   map[string]string

	db   atomic.Pointer[database]
	gone atomic.Bool // somebody has dropped the tables
	// forgetful says that connections do not remember statements: see remember.
	forgetful atomic.Bool
	mu        sync.Mutex // opening and closing
	closed    bool
	reads     health
	writes    health          // a database can be read that cannot be written
	life      context.Context // of what is under way
	end       context.CancelFunc
	wires     context.Context // of connections, also of those that are being closed
	cut       context.CancelFunc
}

// New makes an engine, which will connect on first use. Close it.
func New(o Options) (*Engine, error) {
	config, err := pgxpool.ParseConfig(o.DSN)
	if err != nil {
		return nil, fmt.Errorf("%w: it must be like postgres://user:password@host:5432/database", ErrDSN)
	}
	c := config.ConnConfig
	if c.ConnectTimeout == 0 {
		c.ConnectTimeout = connectTime
	}
	if c.RuntimeParams["application_name"] == "" {
		c.RuntimeParams["application_name"] = "caddy-polar"
	}
	c.RuntimeParams["client_encoding"] = "UTF8"
	schema := o.Schema
	if schema == "" {
		schema = "polar"
	}
	e := &Engine{
		config: config, name: schema, schema: pgx.Identifier{schema}.Sanitize(), buckets: o.Buckets, columns: o.Columns, views: o.Views,
		path: "postgres " + net.JoinHostPort(c.Host, strconv.Itoa(int(c.Port))) + "/" + c.Database + " schema " + schema,
	}
	e.life, e.end = context.WithCancel(context.Background())
	e.wires, e.cut = context.WithCancel(context.Background())
	config.BeforeConnect, c.DialFunc = e.remember, e.dial(c.DialFunc)
	return e, nil
}

// Path implements kv.Engine.
func (e *Engine) Path() string { return e.path }

// Reopened implements kv.Engine. Others can put another store in its place at any time,
// so the store looks at that with each transaction.
func (e *Engine) Reopened(func(kv.Tx) error) {}

// Retry implements kv.Engine.
func (e *Engine) Retry() {
	if e.gone.Swap(false) { // who begins makes them anew
		e.mu.Lock()
		if db := e.db.Swap(nil); db != nil {
			db.Close()
		}
		e.mu.Unlock()
	}
	e.reads.retry()
	e.writes.retry()
}

// Reset implements kv.Engine. Connections that fail are let go one by one, so there is
// nothing to do.
func (e *Engine) Reset() error { return nil }

// Close implements kv.Engine.
func (e *Engine) Close() error {
	e.end()
	defer time.AfterFunc(closeTime, e.cut).Stop()
	defer e.cut()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closed = true
	if db := e.db.Swap(nil); db != nil {
		db.Close()
	}
	return nil
}

// database is one that is open.
type database struct {
	*pgxpool.Pool
	set string // the statement that sets what holds for a transaction
}

// open returns the connections, after the tables are what they have to be.
func (e *Engine) open() (*database, error) {
	if db := e.db.Load(); db != nil {
		return db, nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	switch db := e.db.Load(); {
	case e.closed:
		return nil, kv.ErrClosed
	case db != nil:
		return db, nil
	}
	db, err := e.openLocked()
	if err == nil {
		e.db.Store(db)
	}
	return db, err
}

func (e *Engine) openLocked() (*database, error) {
	pool, err := pgxpool.NewWithConfig(e.life, e.config)
	if err != nil {
		return nil, explain(err)
	}
	ctx, cancel := context.WithTimeout(e.life, writeTime)
	defer cancel()
	db := &database{Pool: pool}
	if err = e.migrate(ctx, pool); err == nil {
		db.set, err = setting(ctx, pool)
	}
	if err != nil {
		pool.Close()
		return nil, explain(err)
	}
	return db, nil
}

// settings hold for each transaction, on servers that know them.
var settings = map[string]string{
	// A process that stops in the middle must not keep the others from writing.
	"idle_in_transaction_session_timeout": "3s",
	"lock_timeout":                        "4s",
	// All queries are for keys, which the index has. A table without statistics looks empty,
	// or so dear that the server would compile the query; and it would plan them each time.
	"enable_seqscan": "off", "jit": "off", "plan_cache_mode": "force_generic_plan",
}

// setting is the statement that sets them, of a server.
func setting(ctx context.Context, pool *pgxpool.Pool) (string, error) {
	rows, err := pool.Query(ctx, "SELECT name FROM pg_settings WHERE name = ANY($1)", unremembered, slices.Collect(maps.Keys(settings)))
	if err != nil {
		return "", err
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	calls := make([]string, len(names))
	for i, name := range names {
		calls[i] = "set_config('" + name + "', '" + settings[name] + "', true)"
	}
	return "SELECT " + strings.Join(calls, ", "), err
}

// Transact implements kv.Engine.
func (e *Engine) Transact(write bool, body func(kv.Tx) (commit bool, err error)) error {
	if e.life.Err() != nil {
		return kv.ErrClosed
	}
	h := &e.reads
	if write {
		h = &e.writes
	}
	return h.use(func() error { return e.try(write, body) })
}

// try is Transact, whatever came of others.
func (e *Engine) try(write bool, body func(kv.Tx) (commit bool, err error)) error {
	limit := readTime
	if write {
		limit = writeTime
	}
	ctx, cancel := context.WithTimeout(e.life, limit)
	defer cancel()
	for try := 1; ; try++ {
		db, err := e.open()
		if err != nil {
			return err
		}
		inDoubt, err := e.transact(ctx, db, write, body)
		var of *kv.BodyError
		switch {
		case err == nil, errors.As(err, &of):
			return err
		case e.life.Err() != nil:
			return kv.ErrClosed
		case isGone(err):
			e.gone.Store(true)
			return explain(err)
		case isUnwritable(err):
			return &kv.BodyError{Err: explain(err)}
		case ctx.Err() != nil || try == tries || inDoubt:
			return explain(err)
		case isFull(err) && db.Stat().TotalConns() > 0: // one of ours will be free
			e.pause(ctx)
			try--
		case isForgotten(err):
			e.forgetful.Store(true)
			db.Reset() // its connections
		case isPlanned(err):
			db.Reset()
		case !isConflict(err) && !isBroken(err) && !pgconn.SafeToRetry(err):
			return explain(err)
		}
	}
}

// pause waits a moment.
func (e *Engine) pause(ctx context.Context) {
	select {
	case <-time.After(fullPause):
	case <-ctx.Done():
	}
}

// unremembered is how a statement is sent that comes once.
const unremembered = pgx.QueryExecModeExec

// remember has a new connection remember statements, unless it has turned out that it
// does not: a pooler in between may give the next transaction another one.
func (e *Engine) remember(_ context.Context, c *pgx.ConnConfig) error {
	c.DefaultQueryExecMode, c.StatementCacheCapacity = pgx.QueryExecModeCacheStatement, keptStatements
	if e.forgetful.Load() {
		c.DefaultQueryExecMode, c.StatementCacheCapacity = unremembered, 0
	}
	return nil
}

// transact runs a transaction once on the server, and its body as often as it takes. If it
// fails and is inDoubt, it may have been committed all the same.
func (e *Engine) transact(ctx context.Context, db *database, write bool, body func(kv.Tx) (commit bool, err error)) (inDoubt bool, err error) {
	k := newKnown()
	first := newTx(k, 0)
	_, _ = body(first) // only to learn what it asks for first
	conn, err := db.Acquire(ctx)
	if err != nil {
		return false, err
	}
	defer conn.Release()
	t := transaction{engine: e, db: db, conn: conn.Conn(), known: k}
	defer t.end(ctx)
	if err := t.begin(ctx, write); err != nil {
		return false, err
	}
	for {
		run := newTx(k, t.sequence)
		commit, err := body(run)
		switch {
		case run.missing:
			if err := t.fetch(ctx); err != nil {
				return false, err
			}
			continue
		case err != nil:
			return false, &kv.BodyError{Err: err}
		case !commit:
			return false, nil
		}
		err = t.commit(ctx, run)
		return err != nil && !refused(err), err
	}
}

// Count implements kv.Engine.
func (e *Engine) Count() (map[string]int, error) {
	db, err := e.open()
	if err != nil {
		return nil, err
	}
	records := make(map[string]int, len(e.buckets))
	for _, name := range e.buckets {
		var n int
		if err := db.QueryRow(e.life, "SELECT count(*) FROM "+e.table(name), unremembered).Scan(&n); err != nil {
			return nil, explain(err)
		}
		records[name] = n
	}
	return records, nil
}

// Size implements kv.Engine: of all tables with their indexes. Nobody knows what of it
// is free.
func (e *Engine) Size() (bytes int64, freePages int, err error) {
	db, err := e.open()
	if err != nil {
		return 0, 0, err
	}
	ctx, cancel := context.WithTimeout(e.life, readTime)
	defer cancel()
	for _, name := range e.buckets {
		var n int64
		if err := db.QueryRow(ctx, "SELECT pg_total_relation_size($1)", unremembered, e.table(name)).Scan(&n); err != nil {
			return 0, 0, explain(err)
		}
		bytes += n
	}
	return bytes, 0, nil
}

// table is a bucket's, quoted.
func (e *Engine) table(bucket string) string {
	return e.schema + "." + pgx.Identifier{"store_" + bucket}.Sanitize()
}

// Hurry implements kv.Engine.
func (e *Engine) Hurry() {
	e.end()
	e.cut()
}

// dial dials connections that can be cut: to take leave on one that swallows everything
// takes many seconds.
func (e *Engine) dial(dial pgconn.DialFunc) pgconn.DialFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &wire{conn, context.AfterFunc(e.wires, func() { _ = conn.Close() })}, nil
	}
}

// wire is a connection that can be cut.
type wire struct {
	net.Conn
	forget func() bool
}

func (w *wire) Close() error {
	w.forget()
	return w.Conn.Close()
}

// Shared implements kv.Engine.
func (e *Engine) Shared() bool { return true }

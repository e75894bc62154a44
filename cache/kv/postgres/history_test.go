package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/caddy-polar/caddy-polar/cache"
	"github.com/caddy-polar/caddy-polar/cache/kv"
	"github.com/caddy-polar/caddy-polar/cache/kv/postgres"
	"github.com/caddy-polar/caddy-polar/entitlement"
)

// cutOff is an engine whose network can be cut.
type cutOff struct {
	*postgres.Engine
	cut          atomic.Bool
	deaf         atomic.Bool // it can write
	transactions atomic.Int64
}

func (e *cutOff) Transact(write bool, body func(kv.Tx) (bool, error)) error {
	e.transactions.Add(1)
	if e.cut.Load() || e.deaf.Load() && !write {
		return kv.ErrUnreachable
	}
	return e.Engine.Transact(write, body)
}

// openCutOff is open with such an engine.
func openCutOff(t *testing.T, schema string) (*cache.Store, *cutOff) {
	t.Helper()
	e := &cutOff{Engine: newEngine(t, server.DSN(), schema)}
	s := cache.NewStore(e)
	t.Cleanup(func() { _ = s.Close() })
	if _, err := s.Claim(owner); err != nil {
		t.Fatal(err)
	}
	return s, e
}

// keep keeps the state of a database, and says what brings it back.
func keep(t *testing.T, schema string) (back []string) {
	t.Helper()
	keep, back := []string{"BEGIN ISOLATION LEVEL REPEATABLE READ"}, []string{"BEGIN"}
	for _, name := range append(cache.Buckets(), "head", "numbers") {
		keep = append(keep, fmt.Sprintf("CREATE TABLE %[1]s.backup_%[2]s AS SELECT * FROM %[1]s.store_%[2]s", schema, name))
		back = append(back, fmt.Sprintf("DELETE FROM %s.store_%s", schema, name), fmt.Sprintf("INSERT INTO %[1]s.store_%[2]s SELECT * FROM %[1]s.backup_%[2]s", schema, name))
	}
	admin(t, append(keep, "COMMIT")...)
	return append(back, "COMMIT")
}

// TestRestoredHistory: an older state of the database comes back and is written to, past
// the number that a gateway has heard of, before that can see it.
func TestRestoredHistory(t *testing.T) {
	t.Parallel()
	schema := newSchema()
	b := open(t, server.DSN(), schema)
	a, network := openCutOff(t, schema)
	apply(t, b, purchase("ada", 1, entitlement.StatusActive))
	back := keep(t, schema)
	apply(t, b, purchase("ada", 2, entitlement.StatusPastDue))
	unheard := a.Revision("z4")
	for i := range 5 { // so that what is written anew gets a number that was heard of
		apply(t, b, purchase(fmt.Sprint("z", i), 1, entitlement.StatusActive))
	}
	until(t, 5*time.Second, "heard", func() bool { return !unheard.Holds() && status(t, a, "ada") == "past_due" })
	network.cut.Store(true)
	admin(t, back...)
	apply(t, b, purchase("ada", 3, entitlement.StatusCanceled))
	for i := range 12 {
		apply(t, b, purchase(fmt.Sprint("x", i), 1, entitlement.StatusActive))
	}
	network.cut.Store(false)
	for name, s := range map[string]*cache.Store{"who was away": a, "who was there": b} {
		until(t, 5*time.Second, name+" knows what is written", func() bool { return status(t, s, "ada") == "canceled" })
	}
}

// TestReadsBesideALock: who holds the writers' lock keeps nobody from reading.
func TestReadsBesideALock(t *testing.T) {
	t.Parallel()
	schema := newSchema()
	s := open(t, server.DSN(), schema)
	conn, err := pgx.Connect(t.Context(), server.DSN())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	for _, statement := range []string{"BEGIN", "SELECT * FROM " + schema + ".store_head FOR UPDATE"} {
		if _, err := conn.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	written := make(chan error)
	go func() { _, err := s.Apply(t.Context(), purchase("ada", 1, entitlement.StatusActive)); written <- err }()
	for i := 0; ; i++ {
		if _, err := s.Account(fmt.Sprint("stranger", i)); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-written:
			if err == nil || errors.Is(err, postgres.ErrUnreachable) {
				t.Error(err)
			}
			return
		default:
		}
	}
}

// TestAnotherStoreInItsPlace: a gateway does not go on with what it has not claimed.
func TestAnotherStoreInItsPlace(t *testing.T) {
	t.Parallel()
	one, two := newSchema(), newSchema()
	a := open(t, server.DSN(), one)
	apply(t, a, purchase("ada", 1, entitlement.StatusActive))
	b := cache.NewStore(newEngine(t, server.DSN(), two))
	if _, err := b.Claim(cache.Owner{Gateway: "default", Server: "https://sandbox-api.polar.sh"}); err != nil {
		t.Fatal(err)
	}
	apply(t, b, purchase("thief", 1, entitlement.StatusActive))
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	admin(t, "BEGIN", "ALTER SCHEMA "+one+" RENAME TO gone_"+one, "ALTER SCHEMA "+two+" RENAME TO "+one, "COMMIT")
	if account, err := a.Account("thief"); !errors.Is(err, cache.ErrOtherOwner) {
		t.Error(account, err)
	}
	if _, err := a.Apply(t.Context(), purchase("bob", 1, entitlement.StatusActive)); !errors.Is(err, cache.ErrOtherOwner) {
		t.Error(err)
	}
}

// TestNewerRecords: what a newer version has written is not taken for something older.
func TestNewerRecords(t *testing.T) {
	t.Parallel()
	schema := newSchema()
	s := cache.NewStore(newEngine(t, server.DSN(), schema))
	if _, err := s.Claim(owner); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	admin(t, "UPDATE "+schema+`.store_meta SET value = '\x63' WHERE key = 'schema'`)
	again := cache.NewStore(newEngine(t, server.DSN(), schema))
	defer again.Close()
	if _, err := again.Claim(owner); !errors.Is(err, cache.ErrNewerSchema) {
		t.Error(err)
	}
}

// TestMoveOverARunningStore: a store that others use is nobody's to overwrite, even if it
// once was a copy.
func TestMoveOverARunningStore(t *testing.T) {
	t.Parallel()
	schema := newSchema()
	file := cache.New(filepath.Join(t.TempDir(), "a.db"))
	defer file.Close()
	if _, err := file.Claim(owner); err != nil {
		t.Fatal(err)
	}
	apply(t, file, purchase("ada", 1, entitlement.StatusActive))
	move := func() error {
		to := cache.NewStore(newEngine(t, server.DSN(), schema))
		defer to.Close()
		_, err := file.MoveTo(t.Context(), to, -time.Second)
		return err
	}
	for range 2 {
		if err := move(); err != nil {
			t.Fatal(err)
		}
	}
	b := open(t, server.DSN(), schema)
	until(t, 5*time.Second, "used", b.Leads)
	apply(t, b, purchase("bob", 1, entitlement.StatusActive))
	if err := move(); !errors.Is(err, cache.ErrOccupied) {
		t.Error(err)
	}
	if got := status(t, b, "bob"); got != "active" {
		t.Errorf("bob has %q", got)
	}
}

// TestFullServer: a server that takes no more connections, or is not up yet, is waited for.
func TestFullServer(t *testing.T) {
	t.Parallel()
	admin(t, "CREATE ROLE crowd LOGIN CONNECTION LIMIT 0")
	s := cache.NewStore(newEngine(t, as("crowd", "postgres"), newSchema()))
	defer s.Close()
	if _, err := s.Claim(owner); !errors.Is(err, cache.ErrUnreachable) {
		t.Error(err)
	}
}

// TestNewerVersionBesideThis: a newer version that only adds to the tables keeps nobody from
// going on; after one that changes them, or the records, this one reads and writes nothing
// more, and goes on with whom it knows.
func TestNewerVersionBesideThis(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		changes string
		is      error
	}{
		"tables":  {"UPDATE %[1]s.store_head SET oldest = 99", postgres.ErrNewer},
		"records": {`UPDATE %[1]s.store_meta SET value = '\x63' WHERE key = 'schema'`, cache.ErrNewerSchema},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			schema := newSchema()
			a := open(t, server.DSN(), schema)
			apply(t, a, purchase("ada", 1, entitlement.StatusActive))
			admin(
				t, "ALTER TABLE "+schema+".store_subscriptions ADD COLUMN later text", "CREATE TABLE "+schema+".store_later (key bytea PRIMARY KEY)",
				"UPDATE "+schema+".store_head SET version = 99",
			)
			b := open(t, server.DSN(), schema)
			apply(t, b, purchase("ada", 2, entitlement.StatusPastDue))
			until(t, 5*time.Second, "heard beside a newer version", func() bool { return status(t, a, "ada") == "past_due" })
			admin(t, fmt.Sprintf(c.changes, schema))
			if _, err := a.Account("bob"); !errors.Is(err, c.is) {
				t.Errorf("bob is read: %v", err)
			}
			if _, err := a.Apply(t.Context(), purchase("bob", 1, entitlement.StatusActive)); !errors.Is(err, c.is) {
				t.Errorf("bob is written: %v", err)
			}
			if got := status(t, a, "ada"); got != "past_due" {
				t.Errorf("ada is told %q", got)
			}
		})
	}
}

// TestOwnCommitIsLost: a fail-over loses what a gateway has written a moment ago, and not
// heard of yet; another one perhaps writes something else under its number.
func TestOwnCommitIsLost(t *testing.T) {
	t.Parallel()
	for _, reused := range []bool{true, false} {
		t.Run(fmt.Sprint(reused), func(t *testing.T) {
			t.Parallel()
			schema := newSchema()
			a, network := openCutOff(t, schema)
			b, _ := openCutOff(t, schema)
			for _, user := range []string{"ada", "bob"} {
				apply(t, a, purchase(user, 1, entitlement.StatusActive))
				until(t, 5*time.Second, user, func() bool { return status(t, a, user) == "active" && status(t, b, user) == "active" })
			}
			time.Sleep(time.Second) // all is heard
			back := keep(t, schema)
			network.deaf.Store(true)
			time.Sleep(300 * time.Millisecond) // no hearing is under way
			apply(t, a, purchase("ada", 2, entitlement.StatusPastDue))
			admin(t, back...)
			if reused {
				apply(t, b, purchase("bob", 3, entitlement.StatusCanceled))
			}
			network.deaf.Store(false)
			until(t, 5*time.Second, "all tell what is written", func() bool {
				return status(t, a, "ada") == "active" && status(t, b, "ada") == "active" && status(t, a, "bob") == status(t, b, "bob") &&
					(status(t, a, "bob") == "canceled") == reused
			})
			// What is read from now on is held, though its commits have lower numbers.
			until(t, 5*time.Second, "held", func() bool {
				before := network.transactions.Load()
				for range 20 {
					_ = status(t, a, "ada")
				}
				return network.transactions.Load() < before+10
			})
		})
	}
}

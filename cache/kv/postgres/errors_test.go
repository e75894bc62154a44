package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/caddy-polar/caddy-polar/cache"
	"github.com/caddy-polar/caddy-polar/cache/kv"
	"github.com/caddy-polar/caddy-polar/cache/kv/postgres"
	"github.com/caddy-polar/caddy-polar/entitlement"
)

// admin runs statements as the server's superuser.
func admin(t *testing.T, statements ...string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), server.DSN())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	for _, s := range statements {
		if _, err := conn.Exec(t.Context(), s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

const password = "canary-7e1b"

// as is the server's connection string for another user, or another database.
func as(user, database string) string {
	return "postgres://" + user + ":" + password + "@127.0.0.1:" + server.Port + "/" + database
}

// TestRefusals: each has a sentence that says what to do, and none the password. Nothing
// is tried all the time.
func TestRefusals(t *testing.T) {
	t.Parallel()
	schema := newSchema()
	newer, older := newSchema(), newSchema()
	_ = open(t, server.DSN(), newer)
	_ = open(t, server.DSN(), older)
	admin(
		t, "CREATE ROLE guest LOGIN PASSWORD '"+password+"'", "CREATE ROLE reader LOGIN PASSWORD '"+password+"'",
		"ALTER ROLE reader SET default_transaction_read_only = on", "GRANT CREATE ON DATABASE postgres TO reader",
		"UPDATE "+newer+".store_head SET version = 99, oldest = 99",
		"UPDATE "+older+".store_head SET version = 99", // which lets this version in
		"CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'",
	)
	for name, c := range map[string]struct {
		dsn, schema string
		is          error
		says        string
	}{
		"nobody listens":       {"postgres://ada:" + password + "@127.0.0.1:1/postgres", schema, postgres.ErrUnreachable, "is it running"},
		"no such host":         {"postgres://ada:" + password + "@nowhere.invalid/postgres", schema, postgres.ErrUnreachable, "has no address"},
		"no TLS":               {server.DSN() + "?sslmode=require", schema, postgres.ErrUnreachable, "sslmode"},
		"no such user":         {as("eve", "postgres"), schema, postgres.ErrRefused, "check user and password"},
		"no such database":     {as("guest", "nothing"), schema, postgres.ErrRefused, "create it"},
		"no rights":            {as("guest", "postgres"), schema, postgres.ErrRights, "AUTHORIZATION"},
		"it is only for reads": {as("reader", "postgres"), schema, postgres.ErrReadOnly, "name the primary"},
		"another encoding":     {as("postgres", "latin"), schema, postgres.ErrEncoding, "UTF8"},
		"a newer version":      {server.DSN(), newer, postgres.ErrNewer, "run the newer version"},
	} {
		s := cache.NewStore(newEngine(t, c.dsn, c.schema))
		_, err := s.Claim(owner)
		if err == nil || !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), password) ||
			!strings.Contains(err.Error(), "schema "+c.schema) || strings.Count(err.Error(), c.schema) != 1 {
			t.Errorf("%s: %v", name, err)
		}
		from := time.Now()
		for range 1000 {
			if _, again := s.Account("ada"); again == nil {
				t.Errorf("%s: ada is known", name)
			}
		}
		if took := time.Since(from); took > 3*time.Second {
			t.Errorf("%s: a thousand requests waited for %s", name, took)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	_ = open(t, server.DSN(), older)
}

// TestWrongDSN: it is refused before anything is connected to, and not shown.
func TestWrongDSN(t *testing.T) {
	t.Parallel()
	for _, dsn := range []string{"postgres://ada:" + password + "@host:port/x", "host=" + password + " x", "mysql://" + password} {
		if _, err := postgres.New(postgres.Options{DSN: dsn}); !errors.Is(err, postgres.ErrDSN) || strings.Contains(err.Error(), password) {
			t.Errorf("%s: %v", dsn, err)
		}
	}
}

// TestOtherOwner: another organization's store is refused.
func TestOtherOwner(t *testing.T) {
	t.Parallel()
	schema := newSchema()
	_ = open(t, server.DSN(), schema)
	s := cache.NewStore(newEngine(t, server.DSN(), schema))
	defer s.Close()
	if _, err := s.Claim(cache.Owner{Gateway: "default", Server: owner.Server, Organization: "other"}); !errors.Is(err, cache.ErrOtherOwner) {
		t.Error(err)
	}
}

// TestManyBegin: several that find no tables make them once.
func TestManyBegin(t *testing.T) {
	t.Parallel()
	schema := newSchema()
	errs := make(chan error)
	for range 8 {
		go func() {
			s := cache.NewStore(newEngine(t, server.DSN(), schema))
			_, err := s.Claim(owner)
			errs <- errors.Join(err, s.Close())
		}()
	}
	for range 8 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}

// TestStoppedWriter: one that stops in the middle of a transaction, with the lock, keeps
// the others from writing for some seconds only.
func TestStoppedWriter(t *testing.T) {
	t.Parallel()
	schema := newSchema()
	s := open(t, server.DSN(), schema)
	stopped := newEngine(t, server.DSN(), schema)
	defer stopped.Close()
	locked, goOn, ended := make(chan struct{}), make(chan struct{}), make(chan error)
	go func() {
		ended <- stopped.Transact(true, func(tx kv.Tx) (bool, error) {
			if tx.Sequence() == 0 {
				return false, nil // the first run is before the lock
			}
			close(locked)
			<-goOn
			return true, tx.Bucket([]byte("notes")).Put("x", []byte("y"))
		})
	}()
	<-locked
	from := time.Now()
	apply(t, s, purchase("ada", 1, entitlement.StatusActive))
	if took := time.Since(from); took > 7*time.Second {
		t.Errorf("the others waited for %s", took)
	}
	close(goOn)
	if err := <-ended; err == nil {
		t.Error("what was stopped was written after all")
	}
	if note, err := s.Note("x"); err != nil || note != nil {
		t.Errorf("%q, %v", note, err)
	}
}

// TestFewConnections: a server that lets in fewer connections than are wanted makes them
// wait for each other, and one that ends connections has them made anew.
func TestFewConnections(t *testing.T) {
	t.Parallel()
	schema := newSchema()
	admin(t, "CREATE ROLE few LOGIN PASSWORD '"+password+"' CONNECTION LIMIT 2", "CREATE SCHEMA "+schema+" AUTHORIZATION few")
	s := open(t, as("few", "postgres"), schema)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for n := range 100 {
				if _, err := s.ReadAccounts([]string{fmt.Sprint("u", n)}); err != nil {
					t.Error(err)
					return
				}
				if n == 50 {
					admin(t, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'few'")
				}
			}
		})
	}
	all.Wait()
}

package postgres_test

import (
	"errors"
	"testing"
	"time"

	"github.com/caddy-polar/caddy-polar/cache/kv/postgres"
	"github.com/caddy-polar/caddy-polar/entitlement"
)

// TestReadOnly: a database that can be read and not written, as a replica or one whose disk
// is full, is noticed though nobody writes, and keeps nobody out.
func TestReadOnly(t *testing.T) {
	t.Parallel()
	schema := newSchema()
	first := open(t, server.DSN(), schema)
	apply(t, first, purchase("ada", 1, entitlement.StatusActive))
	if err := first.Unwritten(); err != nil {
		t.Error(err)
	}
	s := open(t, server.DSN()+"?default_transaction_read_only=on", schema)
	until(t, 5*time.Second, "noticed", func() bool { return errors.Is(s.Unwritten(), postgres.ErrReadOnly) })
	if _, err := s.Stats(); !errors.Is(err, postgres.ErrReadOnly) {
		t.Errorf("nobody is told: %v", err)
	}
	for range 100 {
		if _, err := s.Apply(t.Context(), purchase("bob", 1, entitlement.StatusActive)); !errors.Is(err, postgres.ErrReadOnly) {
			t.Fatalf("it was written: %v", err)
		}
		accounts, err := s.ReadAccounts([]string{"ada"})
		if err != nil || len(accounts[0].Subscriptions) != 1 {
			t.Fatalf("who has paid is not known: %v", err)
		}
	}
}

// TestDropped: tables that were dropped are made anew when a configuration is loaded, and
// not before.
func TestDropped(t *testing.T) {
	t.Parallel()
	schema := newSchema()
	s := open(t, server.DSN(), schema)
	admin(t, "DROP SCHEMA "+schema+" CASCADE")
	if _, err := s.Account("ada"); !errors.Is(err, postgres.ErrGone) {
		t.Errorf("it is read: %v", err)
	}
	if _, err := s.Claim(owner); err != nil {
		t.Fatal(err)
	}
	apply(t, s, purchase("ada", 1, entitlement.StatusActive))
	if got := status(t, s, "ada"); got != "active" {
		t.Errorf("ada is told %q", got)
	}
}

package cache

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	bolt "go.etcd.io/bbolt"
)

// TestDamagedPages: a page that is not what it was is an error, or does not
// matter, wherever it lies; it never ends the process.
func TestDamagedPages(t *testing.T) {
	dir := t.TempDir()
	s := fastStore(t, dir)
	all := new(Facts)
	for i := range 100 {
		one := purchase(fmt.Sprintf("user-%d", i), 1)
		all.Customers = append(all.Customers, one.Customers...)
		all.Names = append(all.Names, one.Names...)
		all.Subscriptions = append(all.Subscriptions, one.Subscriptions...)
	}
	apply(t, s, all)
	path := s.Path()
	var used int
	if err := s.db.Load().View(func(tx *bolt.Tx) error {
		used = int(tx.Size())
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	whole = whole[:used]
	page := os.Getpagesize()
	failed := 0
	for n := 2; n < len(whole)/page; n++ {
		for name, fill := range map[string]byte{"zero": 0, "noise": 0xa5} {
			damaged := append([]byte(nil), whole...)
			for i := range page {
				damaged[n*page+i] = fill * byte(i|1)
			}
			path := filepath.Join(dir, fmt.Sprintf("%d-%s.db", n, name))
			if err := os.WriteFile(path, damaged, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := useAll(New(path)); err != nil {
				failed++
				if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrOtherOwner) {
					t.Errorf("page %d, %s: %v", n, name, err)
				}
			}
			_ = os.Remove(path)
		}
	}
	if failed == 0 {
		t.Error("no damage was noticed")
	}
}

// useAll claims, reads and writes a store, and gives back the first error.
func useAll(s *Store) error {
	defer func() { _ = s.Close() }()
	if _, err := s.Claim(testOwner); err != nil {
		return err
	}
	for i := range 100 {
		if _, err := s.Account(fmt.Sprintf("user-%d", i)); err != nil {
			return err
		}
	}
	_, err := s.Apply(context.Background(), purchase("another", 1))
	return err
}

// TestTruncatedWhileOpen: a file that loses its pages under the server, as when
// a backup is copied over it, ends in errors. Nothing hangs, and the store can
// be closed.
func TestTruncatedWhileOpen(t *testing.T) {
	for name, first := range map[string]func(*Store) error{
		"write first": func(s *Store) error {
			_, err := s.Apply(t.Context(), purchase("more", 1))
			return err
		},
		"read first": func(s *Store) error {
			_, err := s.Account("nobody held this one")
			return err
		},
		"claim first": func(s *Store) error {
			_, err := s.Claim(testOwner)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := fastStore(t, t.TempDir())
			apply(t, s, purchase("user", 1))
			if err := os.Truncate(s.Path(), 0); err != nil {
				t.Fatal(err)
			}
			if err := first(s); !errors.Is(err, ErrCorrupt) {
				t.Errorf("first: %v", err)
			}
			for range 2 {
				if _, err := s.Apply(t.Context(), purchase("again", 1)); !errors.Is(err, ErrCorrupt) {
					t.Errorf("writing: %v", err)
				}
				if _, err := s.Account("somebody else"); !errors.Is(err, ErrCorrupt) {
					t.Errorf("reading: %v", err)
				}
			}
			if _, err := s.Account("user"); err != nil && !errors.Is(err, ErrCorrupt) {
				t.Error(err)
			}
			if err := s.Close(); err != nil {
				t.Errorf("closing: %v", err)
			}
		})
	}
}

// TestAnotherFileComesBack: a file that is opened again must be the one that
// was claimed.
func TestAnotherFileComesBack(t *testing.T) {
	for name, put := range map[string]func(path string) error{
		"emptied": func(path string) error { return os.Truncate(path, 0) },
		"another owner's": func(path string) error {
			other := New(path + ".other")
			defer func() { _ = other.Close() }()
			if _, err := other.Claim(Owner{Gateway: "other", Server: testOwner.Server}); err != nil {
				return err
			}
			return os.Rename(path+".other", path)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := testStore(t)
			if err := s.letGo(); err != nil {
				t.Fatal(err)
			}
			if err := put(s.Path()); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Account("user"); !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrOtherOwner) {
				t.Errorf("taken: %v", err)
			}
		})
	}
}

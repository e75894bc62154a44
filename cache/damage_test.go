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

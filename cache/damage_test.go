package cache

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
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
	if err := s.file().db.Load().View(func(tx *bolt.Tx) error {
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
			if err := s.file().Reset(); err != nil {
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

// goesRound makes the branches of a store's file lead back to themselves.
func goesRound(t *testing.T, path string) {
	t.Helper()
	file := must(os.OpenFile(path, os.O_RDWR, 0))
	defer file.Close()
	page := make([]byte, os.Getpagesize())
	changed := 0
	for id := int64(2); ; id++ {
		if _, err := file.ReadAt(page, id*int64(len(page))); err != nil {
			break
		}
		if binary.NativeEndian.Uint16(page[8:]) == branchPage && binary.NativeEndian.Uint64(page) == uint64(id) {
			_ = must(file.WriteAt(page[:8], id*int64(len(page))+pageHeader+8))
			changed++
		}
	}
	if changed == 0 {
		t.Fatal("there is no branch: fill it more")
	}
}

// TestDamageAtOpen: a file is looked through before it is used, and a large one while it
// is. What was read of it before counts until then.
func TestDamageAtOpen(t *testing.T) {
	for name, damage := range map[string]func(t *testing.T, path string){
		"it goes round": goesRound,
		"a page of the middle is of another place": func(t *testing.T, path string) {
			raw, size := must(os.ReadFile(path)), os.Getpagesize()
			for id := 2; id < len(raw)/size; id++ {
				if page := raw[id*size:][:size]; binary.NativeEndian.Uint64(page) == uint64(id) && binary.NativeEndian.Uint16(page[8:]) == leafPage {
					copy(page, raw[(id+1)*size:][:size])
				}
			}
			if err := os.WriteFile(path, raw, 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"keys change places": func(t *testing.T, path string) {
			raw := must(os.ReadFile(path))
			raw = bytes.ReplaceAll(raw, []byte("s-u7-7"), []byte("s-a7-7"))
			if err := os.WriteFile(path, raw, 0o600); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "polar.db")
			filled(t, path)
			damage(t, path)
			refused(t, path, testOwner, ErrCorrupt, adviceCorrupt)

			if name == "it goes round" {
				return // used before it is looked through, that would end the process
			}
			large := New(path)
			large.file().atOnce = 0
			defer large.Close()
			if _, err := large.Claim(testOwner); errors.Is(err, ErrCorrupt) {
				return // bbolt has noticed by itself
			} else if err != nil {
				t.Fatal(err)
			}
			for i := 0; ; i++ {
				_, err := large.Account(fmt.Sprint("nobody-", i))
				if errors.Is(err, errBroken) && strings.Contains(err.Error(), adviceBroken) {
					break
				}
				if err != nil && !errors.Is(err, ErrCorrupt) {
					t.Fatal(err)
				}
				runtime.Gosched()
			}
			if _, err := large.Apply(t.Context(), purchase("x", 1)); !errors.Is(err, ErrCorrupt) {
				t.Error(err)
			}
			if err := large.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

const adviceBroken = "move the file away or restore a backup"

// TestCountingGoesRoundNothing: who asks how much there is in a file that was damaged
// while it is open gets an error, and the process goes on.
func TestCountingGoesRoundNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "polar.db")
	filled(t, path)
	s := claimed(t, path)
	defer s.Close()
	goesRound(t, path)
	if _, err := s.Stats(); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), path) {
		t.Error(err)
	}
}

// TestReplacedWhileOpen: what is written is never acknowledged if the file at the
// store's path is not the one that it goes to. Who could be told before can be still.
func TestReplacedWhileOpen(t *testing.T) {
	aside := func(path string) error { return os.Rename(path, path+".aside") }
	back := func(path string) error { return os.Rename(path+".aside", path) }
	older := func(path string) error { return os.WriteFile(path, must(os.ReadFile(path+".older")), 0o600) }
	for name, c := range map[string]struct {
		replace, mend func(path string) error
		says          string
		unreadable    bool
	}{
		"moved away": {replace: aside, mend: back, says: "it is gone"},
		"removed":    {replace: os.Remove, says: "it is gone"},
		"a backup is moved over it": {
			replace: func(path string) error { return errors.Join(aside(path), os.Rename(path+".older", path)) },
			mend:    back,
			says:    "it is another one",
		},
		"a backup is written over it": {replace: older, says: "it is older than the last commit", unreadable: true},
		"its end is cut": {
			replace: func(path string) error { return os.Truncate(path, int64(6*os.Getpagesize())) },
			says:    fmt.Sprintf("it has %d of", 6*os.Getpagesize()), unreadable: true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := fastStore(t, t.TempDir())
			defer s.Close()
			apply(t, s, purchase("early", 1))
			if err := os.WriteFile(s.Path()+".older", must(os.ReadFile(s.Path())), 0o600); err != nil {
				t.Fatal(err)
			}
			for i := range 100 {
				apply(t, s, purchase(fmt.Sprint("user-", i), 1))
			}
			if err := c.replace(s.Path()); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				_, err := s.Apply(t.Context(), purchase("late", 1))
				if !errors.Is(err, ErrReplaced) || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), "put it back, or restart Caddy") {
					t.Errorf("writing: %v", err)
				}
				if err := s.Check(t.Context()); !errors.Is(err, ErrReplaced) && !errors.Is(err, ErrCorrupt) {
					t.Errorf("ready all the same: %v", err)
				}
			}
			if a, err := s.Account("user-50"); err != nil && !c.unreadable || err == nil && !a.Known() {
				t.Errorf("reading: %+v %v", a, err)
			}
			if c.mend == nil {
				return
			}
			if err := c.mend(s.Path()); err != nil {
				t.Fatal(err)
			}
			apply(t, s, purchase("late", 1))
			if err := s.Check(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

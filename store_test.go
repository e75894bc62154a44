package caddypolar

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/caddy-polar/caddy-polar/cache"
)

// TestStorePool: the path alone decides which file is shared, through links
// too, and letting go of what was never taken takes nothing from others.
func TestStorePool(t *testing.T) {
	dir := t.TempDir()
	real := filepath.Join(dir, "real")
	if err := os.Mkdir(real, 0o700); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(real, link); err != nil {
		t.Fatal(err)
	}
	one := &BoltStore{Path: filepath.Join(real, "a.db")}
	other := &BoltStore{Path: filepath.Join(link, ".", "a.db")}
	first, err := one.Open("", nil)
	if err != nil {
		t.Fatal(err)
	}
	second, err := other.Open("", nil)
	if err != nil {
		t.Fatal(err)
	}
	if first != second {
		t.Error("one file has two stores")
	}
	if _, err := first.Claim(cache.Owner{Gateway: "default"}); err != nil {
		t.Fatal(err)
	}

	failed := &BoltStore{Path: one.Path}
	if err := failed.Release(); err != nil { // never opened
		t.Fatal(err)
	}
	for range 2 { // twice, as after a failed load
		if err := other.Release(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := first.Account("u"); err != nil {
		t.Errorf("the store went away with another configuration: %v", err)
	}
	if err := one.Release(); err != nil {
		t.Fatal(err)
	}
	if _, err := first.Account("u"); err == nil {
		t.Error("the store is open although nobody uses it")
	}
}

// TestStorePathBehindLinks: the key of a file is the same before and after it
// and its directories exist, or a reload would open it a second time.
func TestStorePathBehindLinks(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "real"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("real", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "link", "data", "polar", "a.db")
	before := realPath(path)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if after := realPath(path); before != after {
		t.Errorf("%s, and later %s", before, after)
	}
}

// TestValidateOpensNothing: a configuration can be checked beside a running
// server.
func TestValidateOpensNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sub", "a.db")
	config, err := adapt("{\nadmin off\npolar {\nstore bolt {\npath " + path + "\n}\n}\n}\n")
	if err != nil {
		t.Fatal(err)
	}
	if err := validate(t, config); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Dir(path)); !os.IsNotExist(err) {
		t.Errorf("validate has left %v", err)
	}
}

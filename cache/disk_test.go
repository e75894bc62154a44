package cache

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestDisk: the disk is tried, and nothing is left behind.
func TestDisk(t *testing.T) {
	dir := t.TempDir()
	s := claimed(t, filepath.Join(dir, "polar.db"))
	t.Cleanup(func() { _ = s.Close() })
	d := s.Disk()
	if d.WriteError != nil || d.Sync <= 0 || d.Sync > time.Minute || d.Free > d.Total {
		t.Errorf("%+v", d)
	}
	if files := must(os.ReadDir(dir)); len(files) != 1 {
		t.Errorf("left behind: %v", files)
	}
	gone := New(filepath.Join(dir, "nowhere", "polar.db")).Disk()
	if !errors.Is(gone.WriteError, os.ErrNotExist) || gone.Sync != 0 || gone.Free != 0 {
		t.Errorf("a directory that is not there: %+v", gone)
	}
}

func TestOrganization(t *testing.T) {
	s := New(filepath.Join(t.TempDir(), "polar.db"))
	t.Cleanup(func() { _ = s.Close() })
	if _, err := s.Organization(); err == nil {
		t.Error("a store that nobody has claimed has no organization to tell")
	}
	if _, err := s.Claim(Owner{Gateway: "default", Server: testOwner.Server}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"", "acme"} {
		apply(t, s, &Facts{Organization: want})
		if id, err := s.Organization(); id != want || err != nil {
			t.Errorf("%q %v, want %q", id, err, want)
		}
	}
}

package cache

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	bolt "go.etcd.io/bbolt"
)

// TestBackup: a copy made while others write is a store of one moment.
func TestBackup(t *testing.T) {
	s := testStore(t)
	crowd(t, s, 200)
	want := dump(t, s)
	path := filepath.Join(t.TempDir(), "copy.db")
	file := must(os.Create(path))
	writes := writerFunc(func(b []byte) (int, error) {
		apply(t, s, purchase("meanwhile", len(b)))
		return file.Write(b)
	})
	if err := s.Backup(writes); err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	restored := claimed(t, path)
	defer restored.Close()
	if diff := differences(want, dump(t, restored)); diff != "" {
		t.Errorf("the copy is not the store:\n%s", diff)
	}
	consistent(t, restored, "00001")
	full := writerFunc(func([]byte) (int, error) { return 0, errors.New("disk full") })
	if err := s.Backup(full); err == nil || !strings.Contains(err.Error(), "disk full") { // bbolt does not wrap it
		t.Errorf("to a full disk: %v", err)
	}
	unclaimed := New(filepath.Join(t.TempDir(), "x.db"))
	defer unclaimed.Close()
	if err := unclaimed.Backup(io.Discard); !errors.Is(err, errUnclaimed) {
		t.Errorf("of no store: %v", err)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// TestCopy: a copy is whole, of its moment, its owner's alone, and gone once it is
// closed.
func TestCopy(t *testing.T) {
	s := testStore(t)
	crowd(t, s, 50)
	want := dump(t, s)
	c := must(s.Copy(t.Context()))
	apply(t, s, purchase("later", 1))
	if mode := must(c.file.Stat()).Mode(); mode != 0o600 {
		t.Errorf("the copy's mode is %v", mode)
	}
	raw := must(io.ReadAll(c))
	if sum := sha256.Sum256(raw); int64(len(raw)) != c.Size || !slices.Equal(sum[:], c.SHA256) {
		t.Errorf("%d bytes of %d, sum %x, want %x", len(raw), c.Size, sum, c.SHA256)
	}
	path := filepath.Join(t.TempDir(), "copy.db")
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	sum := must(Inspect(path, &testOwner))
	if sum.Owner.Gateway != testOwner.Gateway || sum.Owner.Server != testOwner.Server || sum.Owner.Organization != testOwner.Organization ||
		sum.Schema != schema || sum.Bytes != c.Size || !maps.Equal(sum.Objects, must(s.Stats()).Objects) && sum.Objects["customers"] != 50 {
		t.Errorf("%+v", sum)
	}
	restored := claimed(t, path)
	defer restored.Close()
	if diff := differences(want, dump(t, restored)); diff != "" {
		t.Errorf("the copy is not the store:\n%s", diff)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}

	hungUp, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Copy(hungUp); !errors.Is(err, context.Canceled) {
		t.Errorf("for nobody: %v", err)
	}
	unclaimed := New(filepath.Join(filepath.Dir(s.Path()), "unclaimed.db"))
	defer unclaimed.Close()
	if _, err := unclaimed.Copy(t.Context()); !errors.Is(err, errUnclaimed) {
		t.Errorf("of no store: %v", err)
	}
	for _, entry := range must(os.ReadDir(filepath.Dir(s.Path()))) {
		if strings.Contains(entry.Name(), "copy") {
			t.Errorf("%s is left behind", entry.Name())
		}
	}
}

// TestInspectRefuses whatever is no whole store of the owner's, and changes
// nothing.
func TestInspectRefuses(t *testing.T) {
	dir := t.TempDir()
	whole := filepath.Join(dir, "whole.db")
	used := filled(t, whole)
	content := must(os.ReadFile(whole))
	bolted := func(t *testing.T, path string, edit func(*bolt.Tx) error) {
		db := must(bolt.Open(path, 0o600, nil))
		if err := errors.Join(db.Update(edit), db.Close()); err != nil {
			t.Fatal(err)
		}
	}
	for name, tt := range map[string]struct {
		make func(t *testing.T, path string)
		is   error
		says string
	}{
		"nothing":   {func(*testing.T, string) {}, fs.ErrNotExist, "does not exist"},
		"directory": {func(_ *testing.T, path string) { _ = os.Mkdir(path, 0o700) }, ErrCorrupt, "no file"},
		"empty":     {func(_ *testing.T, path string) { _ = os.WriteFile(path, nil, 0o600) }, ErrCorrupt, "empty"},
		"a text": {func(_ *testing.T, path string) {
			_ = os.WriteFile(path, []byte(strings.Repeat("no store ", 2000)), 0o600)
		}, ErrCorrupt, "no store at all"},
		"cut short": {func(_ *testing.T, path string) { _ = os.WriteFile(path, content[:used-1], 0o600) }, ErrCorrupt, fmt.Sprintf("%d of %d bytes", used-1, used)},
		"another program's": {func(t *testing.T, path string) {
			bolted(t, path, func(tx *bolt.Tx) error { _, err := tx.CreateBucket([]byte("other")); return err })
		}, ErrCorrupt, "something else"},
		"without anything": {func(t *testing.T, path string) {
			bolted(t, path, func(*bolt.Tx) error { return nil })
		}, ErrCorrupt, "nothing was ever written"},
		"newer": {func(t *testing.T, path string) {
			_ = os.WriteFile(path, content, 0o600)
			bolted(t, path, func(tx *bolt.Tx) error { return tx.Bucket(bucketMeta).Put([]byte(keySchema), []byte{schema + 1}) })
		}, ErrNewerSchema, fmt.Sprintf("schema %d", schema+1)},
		"another gateway's": {func(t *testing.T, path string) {
			_ = os.WriteFile(path, content, 0o600)
			bolted(t, path, func(tx *bolt.Tx) error { return tx.Bucket(bucketMeta).Put([]byte(keyGateway), []byte("shop")) })
		}, ErrOtherOwner, `"shop", not "default"`},
		"damaged": {func(_ *testing.T, path string) {
			damaged := slices.Clone(content)
			for i := 2 * os.Getpagesize(); i < int(used); i++ {
				damaged[i] = 0xa5
			}
			_ = os.WriteFile(path, damaged, 0o600)
		}, ErrCorrupt, "damaged"},
		"open": {func(t *testing.T, path string) {
			s := claimed(t, path)
			t.Cleanup(func() { _ = s.Close() })
		}, ErrLocked, "open"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(dir, strings.ReplaceAll(name, " ", "_"))
			tt.make(t, path)
			before, _ := os.ReadFile(path)
			_, err := Inspect(path, &testOwner)
			if !errors.Is(err, tt.is) || !strings.Contains(err.Error(), tt.says) || !strings.HasPrefix(err.Error(), path+": ") {
				t.Errorf("%v, want %v with %q", err, tt.is, tt.says)
			}
			if after, _ := os.ReadFile(path); !slices.Equal(before, after) {
				t.Error("the file has changed")
			}
		})
	}
	if sum, err := Inspect(whole, nil); err != nil || sum.Objects["subscriptions"] != 400 || sum.Objects["links"] != 0 {
		t.Errorf("%+v, %v", sum, err)
	}
}

package cache

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// TestDamagedFreelist: a list of free pages that is none is found before bbolt believes
// it; a long one is as good as a short one.
func TestDamagedFreelist(t *testing.T) {
	s := testStore(t)
	crowd(t, s, 2000)
	if _, err := s.Expire(t.Context(), testOrigin.AddDate(9, 0, 0)); err != nil {
		t.Fatal(err)
	}
	for i := range 50 {
		apply(t, s, purchase("more", i))
	}
	var copied bytes.Buffer
	if err := s.Backup(&copied); err != nil {
		t.Fatal(err)
	}
	whole := copied.Bytes()
	page := int(binary.NativeEndian.Uint64(whole[pageHeader+32:])) * os.Getpagesize()
	dir := t.TempDir()
	inspect := func(name string, change func(page []byte)) error {
		damaged := bytes.Clone(whole)
		change(damaged[page:])
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Inspect(path, &testOwner)
		return err
	}
	if err := inspect("whole", func([]byte) {}); err != nil || binary.NativeEndian.Uint16(whole[page+10:]) < 2 {
		t.Fatalf("page at %d: %v", page, err)
	}
	for name, change := range map[string]func(page []byte){
		"another page":    func(p []byte) { p[0]++ },
		"no list":         func(p []byte) { p[8] = leafPage },
		"too many":        func(p []byte) { p[10], p[11] = 0xf0, 0xff },
		"far too many":    func(p []byte) { p[10], p[11], p[16+7] = 0xff, 0xff, 0xff },
		"over its end":    func(p []byte) { p[15] = 0xb9 },
		"out of the file": func(p []byte) { p[16+5] = 1 },
		"a meta page":     func(p []byte) { binary.NativeEndian.PutUint64(p[16:], 1) },
		"twice":           func(p []byte) { copy(p[24:32], p[16:24]) },
	} {
		if err := inspect(name, change); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}

	// Of more than 65,534 pages the number stands elsewhere.
	const size, n = 4096, manyFree + 10
	long := make([]byte, 3*size+(n+3)*8/size*size)
	head := long[2*size:]
	head[0], head[8], head[10], head[11], head[12] = 2, freelistPage, 0xff, 0xff, byte(len(head)/size-1)
	binary.NativeEndian.PutUint64(head[pageHeader:], n)
	for i := range uint64(n) {
		binary.NativeEndian.PutUint64(head[pageHeader+8*(i+1):], 1000+i)
	}
	if err := checkFree(bytes.NewReader(long), 2, size, 1000+n); err != nil {
		t.Error(err)
	}
	if err := checkFree(bytes.NewReader(long), 2, size, 1000+n-1); !errors.Is(err, ErrCorrupt) {
		t.Errorf("one page too many: %v", err)
	}
}

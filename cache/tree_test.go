package cache

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

// TestInspectGoesRoundNothing: a file whose pages lead back to themselves is told
// from a whole one, and does not keep anybody going.
func TestInspectGoesRoundNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "polar.db")
	filled(t, path)
	if _, err := Inspect(path, nil); err != nil {
		t.Fatal(err)
	}
	whole := must(os.ReadFile(path))
	size := os.Getpagesize()
	write := func(change func(page []byte)) (changed int) {
		raw := append([]byte(nil), whole...)
		for id := 2; id < len(raw)/size; id++ {
			page := raw[id*size : (id+1)*size]
			if binary.NativeEndian.Uint16(page[8:]) == branchPage && binary.NativeEndian.Uint64(page) == uint64(id) {
				change(page)
				changed++
			}
		}
		if err := os.WriteFile(path, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		return changed
	}
	for name, change := range map[string]func([]byte){
		"to itself":  func(page []byte) { copy(page[pageHeader+8:], page[:8]) },
		"past all":   func(page []byte) { binary.NativeEndian.PutUint64(page[pageHeader+8:], 1<<40) },
		"no page":    func(page []byte) { binary.NativeEndian.PutUint16(page[8:], 0x40) },
		"too many":   func(page []byte) { binary.NativeEndian.PutUint16(page[10:], 0xffff) },
		"too large":  func(page []byte) { binary.NativeEndian.PutUint32(page[12:], 1<<20) },
		"the others": func(page []byte) { copy(page[pageHeader+8:], page[pageHeader+pageElement+8:][:8]) },
	} {
		if write(change) == 0 {
			t.Fatal("there is no branch: fill it more")
		}
		if _, err := Inspect(path, nil); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for i := range uint64(200) { // whatever is damaged: an answer
		random := rand.New(rand.NewPCG(i, 0))
		raw := append([]byte(nil), whole...)
		for range 1 + random.IntN(8) {
			raw[2*size+random.IntN(len(raw)-2*size)] = byte(random.Uint32())
		}
		if err := os.WriteFile(path, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		_, _ = Inspect(path, nil)
	}
}

// TestOneCopyAtATime: each copy takes as much room as the store.
func TestOneCopyAtATime(t *testing.T) {
	s := testStore(t)
	apply(t, s, purchase("ada", 1))
	first, err := s.Copy(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Copy(t.Context()); !errors.Is(err, ErrCopying) {
		t.Error(err)
	}
	for range 2 {
		_ = first.Close()
	}
	for range 2 {
		c, err := s.Copy(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}

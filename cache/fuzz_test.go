package cache

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

// FuzzDecodeEntry: no bytes make a panic or much memory, and what can be read of the
// journal can be written and read again.
func FuzzDecodeEntry(f *testing.F) {
	f.Add(encode(entryFields, Entry{}))
	f.Add(encode(entryFields, Entry{
		At: at(1), Source: Source{SourceWebhook, "evt_1"}, Kind: "subscription", ID: "s", Status: "active", before: 7,
		Changes: []Change{{"status", "trialing", "active"}, {"current_period_end", timeText(at(1)), "?"}},
	}))
	f.Add(binary.AppendUvarint([]byte{0, 0, 0, 0, 's', 0, 2}, 1<<31-1))
	f.Fuzz(func(t *testing.T, raw []byte) {
		kept := bytes.Clone(raw)
		e, err := decode(entryFields, raw)
		if !bytes.Equal(raw, kept) {
			t.Fatal("decoding has changed the bytes")
		}
		if err != nil {
			return
		}
		if len(e.Changes) > len(raw) || e.New != (len(e.Changes) == 0) {
			t.Fatalf("%d bytes have %d changes", len(raw), len(e.Changes))
		}
		if _, told := kindNamed(e.Kind); !told { // nobody writes such a one
			return
		}
		if again, err := decode(entryFields, encode(entryFields, e)); err != nil || !reflect.DeepEqual(again, e) {
			t.Fatalf("%+v, then %+v, %v", e, again, err)
		}
	})
}

// FuzzDamage changes bytes of a store's file, or cuts it. Looking through it ends with a
// summary or an error that says so, and never ends the process; what passes can be used.
func FuzzDamage(f *testing.F) {
	s := claimed(f, filepath.Join(f.TempDir(), "whole.db"))
	all := new(Facts)
	for i := range 20 {
		one := purchase("user-"+string(rune('a'+i)), 1)
		all.Customers = append(all.Customers, one.Customers...)
		all.Names = append(all.Names, one.Names...)
		all.Subscriptions = append(all.Subscriptions, one.Subscriptions...)
	}
	_ = must(s.Apply(f.Context(), all))
	var whole bytes.Buffer
	if err := errors.Join(s.Backup(&whole), s.Close()); err != nil {
		f.Fatal(err)
	}
	page := uint32(os.Getpagesize())
	for _, at := range []uint32{0, 8, 16, 80, page, page + 16, 2 * page, 3*page + 8, 4*page + 10, 7*page + 100} {
		for _, patch := range [][]byte{{0xff}, {0, 0, 0, 0, 0, 0, 0, 0}, {1, 0, 0, 0}, bytes.Repeat([]byte{0xa5}, 64)} {
			f.Add(at, patch, uint32(0))
		}
	}
	f.Add(uint32(0), []byte{}, uint32(1))
	f.Add(uint32(0), []byte{}, page*3)
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, at uint32, patch []byte, cut uint32) {
		damaged := bytes.Clone(whole.Bytes())
		copy(damaged[at%uint32(len(damaged)):], patch)
		damaged = damaged[:uint32(len(damaged))-cut%uint32(len(damaged))]
		// What bbolt gave up stays locked, so each has a file of its own.
		path := filepath.Join(dir, fmt.Sprint(storeNumber.Add(1)))
		if err := os.WriteFile(path, damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Inspect(path, &testOwner)
		if err == nil {
			err = useAll(New(path))
		}
		if err != nil && !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrOtherOwner) && !errors.Is(err, ErrNewerSchema) {
			t.Fatal(err)
		}
		_ = os.Remove(path)
	})
}

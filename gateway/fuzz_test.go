package gateway

import (
	"bytes"
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/caddy-polar/caddy-polar/cache"
)

// FuzzReadState: only a state that was made here leads anywhere, and to whom and where
// it was made for.
func FuzzReadState(f *testing.F) {
	for _, user := range oddUsers {
		f.Add("", user, "https://app.example.com/pro/", uint16(len(user)), byte('A'))
	}
	f.Add(mark([]byte("a key"), ada), ada, "https://evil.example", uint16(0), byte(0))
	f.Add(strings.Repeat("A", 200), "a\x00b", "\xff", uint16(3), byte('\n'))
	b := newBench(f)
	keys, err := b.g.claim()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, state, user, to string, at uint16, other byte) {
		if !utf8.ValidString(user) { // which no token and no session names
			return
		}
		sealed, err := sealState(keys, Return{User: user, To: to}, b.now)
		if err != nil {
			t.Fatal(err)
		}
		r, err := b.g.ReadState(sealed)
		if (err == nil) != cache.ValidUser(user) || err == nil && (r.User != user || utf8.ValidString(to) && r.To != to) {
			t.Fatalf("%q, %q come back as %+v, %v", user, to, r, err)
		}
		changed := []byte(sealed)
		changed[int(at)%len(changed)] = other
		for _, forged := range []string{state, string(changed)} {
			was, _ := base64.RawURLEncoding.DecodeString(sealed)
			if is, err := base64.RawURLEncoding.DecodeString(forged); err == nil && bytes.Equal(is, was) {
				continue // the same in another spelling
			}
			if r, err := b.g.ReadState(forged); !errors.Is(err, ErrState) {
				t.Fatalf("%q leads %+v, %v", forged, r, err)
			}
		}
	})
}

// FuzzNotes: a store can be another's work, such as a backup that somebody has changed.
// Whatever stands in its notes, the gateway starts on it, and tells how it is.
func FuzzNotes(f *testing.F) {
	for _, note := range []string{"", "null", "{}", "[]", `{"began":"x"}`, `{"user":"ada","subscription":"s"}`, "\x00\x01", `{"Began":"9999-12-31T23:59:59Z","Objects":-1}`, `{"emails":1}`} {
		f.Add([]byte(note))
	}
	store := openStore(f, f.TempDir()+"/polar.db")
	f.Fuzz(func(t *testing.T, note []byte) {
		b := newBench(t, withStore(store), func(c *Config) { c.Logger = nil })
		for _, key := range []string{noteSynced, noteSyncing, noteNotified, noteWaiting + "00000001", keptOffset} {
			if err := b.g.Keep(key, note); err != nil {
				t.Fatal(err)
			}
		}
		again := newBench(t, withStore(store), func(c *Config) { c.Logger = nil })
		_ = again.g.Status()
		again.takes(sample(t, "subscription.active.json"), ResultApplied)
		again.open("pro", "active")
		if _, err := again.g.Forget(t.Context(), ada); err != nil {
			t.Fatal(err)
		}
	})
}

package entitlement_test

import (
	"testing"

	"pgregory.net/rapid"

	ent "github.com/caddy-polar/caddy-polar/entitlement"
)

// What is read from a note answers as what was written, for as long as that holds, and
// is nothing before and after.
func TestPropertyStandingNote(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, r := ent.NewAccount("u", drawFacts(t)), drawRules(t)
		written := a.Standing(r, drawNow(t))
		note := written.AppendNote([]byte("before"))[len("before"):]
		for range 4 {
			now := drawNow(t)
			read, ok := ent.ReadNote(note, r, now)
			if ok != written.Holds(r, now) {
				t.Fatalf("at %s: read %v, and the standing holds: %v", now, ok, !ok)
			}
			if !ok {
				continue
			}
			if read.Open != written.Open || read.Customer != written.Customer || read.Known != written.Known || !read.Holds(r, now) {
				t.Fatalf("%+v, was %+v", read, written)
			}
			for _, q := range requirements(t, r) {
				got, want := read.Meets(q), written.Meets(q)
				if (got == nil) != (want == nil) || got != nil && (got.Decision != want.Decision || got.UntilText != want.UntilText) {
					t.Fatalf("%+v, was %+v", got, want)
				}
			}
		}
	})
}

// Notes come from our own memory. Whatever stands there, nothing panics, and nothing
// that makes no sense opens a plan.
func FuzzReadNote(f *testing.F) {
	r := rules()
	a := ent.NewAccount("ann", facts(sub("active")))
	whole := a.Standing(r, start).AppendNote(nil)
	f.Add(whole)
	f.Add(whole[:len(whole)-1])
	f.Add([]byte{})
	f.Add([]byte{0, 0, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, note []byte) {
		s, ok := ent.ReadNote(note, r, start)
		if !ok {
			return
		}
		if open := s.Meets(ent.Requirement{}); open != nil && (open.Plan == "" || open.Reason == "" || !open.Allowed) {
			t.Errorf("%+v", open)
		}
		if again, ok := ent.ReadNote(s.AppendNote(nil), r, start); !ok || again.Open != s.Open {
			t.Errorf("%+v became %+v", s, again)
		}
	})
}

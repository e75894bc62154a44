package assertion

import (
	"bytes"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"pgregory.net/rapid"
)

const day = 24 * time.Hour

// ids names the keys: the one that signs, and all that are published.
func ids(k Keys) (signing string, published []string) {
	for _, key := range k.Published {
		published = append(published, key.ID())
	}
	return k.Signing.ID(), published
}

// TestTurns goes through the life of three keys.
func TestTurns(t *testing.T) {
	var r Ring
	if !r.Due(noon) {
		t.Fatal("no keys, and none is due")
	}
	var known []string
	for _, step := range []struct {
		at        time.Duration
		signing   int // by the order in which they were made
		published []int
	}{
		{0, 0, []int{0}},
		{period - 1, 0, []int{0}},
		{period, 0, []int{0, 1}},
		{period + margin - 1, 0, []int{0, 1}},
		{period + margin, 1, []int{0, 1}},
		{2*period - 1, 1, []int{0, 1}},
		{2 * period, 1, []int{1, 2}},
		{2*period + margin, 2, []int{1, 2}},
		{9 * period, 2, []int{2, 3}}, // nobody was there for long
		{9*period + margin, 3, []int{2, 3}},
	} {
		now := noon.Add(step.at)
		r = r.Turn(now)
		signing, published := ids(r.Keys(now))
		for _, id := range published {
			if !slices.Contains(known, id) {
				known = append(known, id)
			}
		}
		var want []string
		for _, i := range step.published {
			want = append(want, known[i])
		}
		if !slices.Equal(published, want) || signing != known[step.signing] {
			t.Errorf("after %v: %s of %v signs, want %d of %v", step.at, signing, published, step.signing, step.published)
		}
	}
}

// TestNoTokenFails: an app that has fetched the keys within half a period, by whatever
// plan, verifies all that is signed, and for as long as it is told; also across restarts,
// and pauses of the server.
func TestNoTokenFails(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := noon
		var ring Ring
		var set jose.JSONWebKeySet
		var fetched time.Time
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.Int64Range(0, int64(20*day)).Draw(t, "step")))
			if rapid.Bool().Draw(t, "restart") {
				var err error
				if ring, err = ReadRing(ring.Bytes()); err != nil {
					t.Fatal(err)
				}
			}
			before := ring
			ring = ring.Turn(now)
			keys := ring.Keys(now)
			if now.Sub(fetched) >= margin || rapid.Bool().Draw(t, "fetch") {
				set, fetched = fetch(t, keys), now
			}
			payload := []byte(`{"iss":"iss","aud":"app"}`)
			verify(t, keys.Signing.sign(payload), set, now)
			// What was signed just before the keys have changed is verified just after.
			if len(before) > 0 {
				verify(t, before.Keys(now).Signing.sign(payload), fetch(t, keys), now)
			}
			if n := len(keys.Published); n > 2 {
				t.Fatalf("%d keys are published", n)
			}
		}
	})
}

// TestClockMoves: whichever way the clock jumps, what signs is published, and was before
// the jump if anything was.
func TestClockMoves(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := noon
		ring := Ring(nil).Turn(now)
		for range 20 {
			old := now
			now = now.Add(time.Duration(rapid.Int64Range(-int64(400*day), int64(400*day)).Draw(t, "jump")))
			set := fetch(t, ring.Keys(old))
			ring = ring.Turn(now)
			token := ring.Keys(now).Signing.sign([]byte(`{"iss":"iss","aud":"app"}`))
			verify(t, token, set, now)
			verify(t, token, fetch(t, ring.Keys(now)), now)
		}
	})
}

func TestKeptRing(t *testing.T) {
	ring := Ring(nil).Turn(noon).Turn(noon.Add(period))
	raw := ring.Bytes()
	read, err := ReadRing(raw)
	if err != nil || !bytes.Equal(read.Bytes(), raw) {
		t.Fatal(err)
	}
	for _, at := range []time.Duration{0, period, period + margin} {
		want, all := ids(ring.Keys(noon.Add(at)))
		got, read := ids(read.Keys(noon.Add(at)))
		if got != want || !slices.Equal(read, all) {
			t.Errorf("after %v: %s of %v, want %s of %v", at, got, read, want, all)
		}
	}
	if r, err := ReadRing(nil); err != nil || len(r) != 0 {
		t.Error(r, err)
	}
	for _, damaged := range [][]byte{raw[1:], raw[:len(raw)-1], append(slices.Clone(raw), raw...), {0}} {
		if r, err := ReadRing(damaged); !errors.Is(err, ErrRing) || r != nil {
			t.Errorf("%d bytes: %v, %v", len(damaged), r, err)
		}
	}
}

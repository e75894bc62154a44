package identity

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// remembered returns how many tokens the verifier remembers, after all tidying up.
func remembered(v *Verifier) int {
	v.sources[0].memory.cache.CleanUp()
	return v.sources[0].memory.cache.EstimatedSize()
}

func TestRememberedTokenExpires(t *testing.T) {
	v := verifier(t, Block{Secret: secretA})
	token := signA("exp", now.Add(time.Minute).Unix())
	steps := []struct {
		after time.Duration
		err   error
	}{
		{0, nil},
		{59 * time.Second, nil},
		{60 * time.Second, nil},
		{89 * time.Second, nil}, // on the leeway
		{90 * time.Second, ErrExpired},
		{time.Hour, ErrExpired},
		{0, nil},
	}
	for _, step := range steps {
		id, err := v.Identify(context.Background(), bearerHeader(token), now.Add(step.after))
		if step.err != nil {
			check(t, id, err, "", step.err)
		} else {
			check(t, id, err, "alice", nil)
		}
	}
	if v.sources[0].memory.recall(token, now.Add(59*time.Second)) == nil {
		t.Error("the token is not remembered before exp")
	}
	if v.sources[0].memory.recall(token, now.Add(60*time.Second)) != nil {
		t.Error("the memory serves a token at exp")
	}
}

func TestMutatedRememberedToken(t *testing.T) {
	v := verifier(t, Block{Secret: secretA})
	token := signA()
	must(v.Identify(context.Background(), bearerHeader(token), now))
	for i := range token {
		c := byte('A')
		if token[i] == c {
			c = 'B'
		}
		id, err := v.Identify(context.Background(), bearerHeader(token[:i]+string(c)+token[i+1:]), now)
		check(t, id, err, "", ErrInvalid)
		id, err = v.Identify(context.Background(), bearerHeader(token[:i]), now)
		if i > 0 {
			check(t, id, err, "", ErrInvalid)
		}
	}
	if n := remembered(v); n != 1 {
		t.Errorf("%d tokens are remembered, want 1", n)
	}
}

// TestMemoryIsOfASource shows that a token remembered from one source is no key to another.
func TestMemoryIsOfASource(t *testing.T) {
	v := verifier(t,
		Block{Secret: secretA},
		Block{Secret: secretB, Sources: []Source{{Cookie: "session"}}},
	)
	must(v.Identify(context.Background(), bearerHeader(signA()), now))
	id, err := v.Identify(context.Background(), http.Header{"Cookie": {"session=" + signA()}}, now)
	check(t, id, err, "", ErrInvalid)
}

func TestMemoryIsOfAVerifier(t *testing.T) {
	must(verifier(t, Block{Secret: secretA}).Identify(context.Background(), bearerHeader(signA()), now))
	id, err := verifier(t, Block{Secret: secretB}).Identify(context.Background(), bearerHeader(signA()), now)
	check(t, id, err, "", ErrInvalid)
}

func TestMemoryIsBounded(t *testing.T) {
	const bound = 64 << 10
	v := must(newVerifier([]Block{{Secret: secretA}}, bound))
	t.Cleanup(v.Close)
	for i := range 2000 {
		id, err := v.Identify(context.Background(), bearerHeader(signA("sub", fmt.Sprint("user", i))), now)
		check(t, id, err, fmt.Sprint("user", i), nil)
	}
	n := remembered(v)
	if weight := v.sources[0].memory.cache.WeightedSize(); weight > bound || n == 0 || n > bound/entryOverhead {
		t.Errorf("%d tokens weigh %d, want at most %d", n, weight, bound)
	}
	if v.sources[0].memory.cache.GetMaximum() != bound || must(newMemory(maxMemory)).cache.GetMaximum() != 64<<20 {
		t.Error("the memory has another bound")
	}
}

func TestFailuresAreNotRemembered(t *testing.T) {
	v := verifier(t, Block{Secret: secretA, Issuers: []string{"a"}})
	good := signA("iss", "a")
	for i := range 500 {
		for _, token := range []string{
			signB("iss", "a", "sub", i),
			signA("iss", "b", "sub", i),
			signA("iss", "a", "exp", i),
			signA("iss", "a", "nbf", now.Unix()+1000, "sub", i),
			fmt.Sprint("a.b.", i),
			good[:len(good)-1-i%20],
			strings.Repeat("x", i),
		} {
			if id, err := v.Identify(context.Background(), bearerHeader(token), now); err == nil {
				t.Fatalf("%+v is accepted", id)
			}
		}
	}
	must(v.Identify(context.Background(), bearerHeader(signA("iss", "a", "exp", now.Unix()-1)), now)) // on its leeway
	if n := remembered(v); n != 0 {
		t.Errorf("%d tokens are remembered, want none", n)
	}
	must(v.Identify(context.Background(), bearerHeader(good), now))
	if n := remembered(v); n != 1 {
		t.Errorf("%d tokens are remembered, want 1", n)
	}
	v.Close()
	if n := remembered(v); n != 0 {
		t.Errorf("%d tokens are remembered after Close, want none", n)
	}
}

func TestRecallDoesNotAllocate(t *testing.T) {
	v := verifier(t, Block{Secret: secretA, Sources: []Source{{Header: "Authorization"}, {Cookie: "session"}}})
	for _, h := range []http.Header{bearerHeader(signA()), {"Cookie": {"a=b; session=" + signA()}}} {
		must(v.Identify(context.Background(), h, now))
		// The cache now and then tidies up on a goroutine of its own; that averages out.
		if n := testing.AllocsPerRun(1000, func() { must(v.Identify(context.Background(), h, now)) }); n > 1 {
			t.Errorf("%v allocations, want at most 1", n)
		}
	}
}

package identity

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// published is a KeySource that the test changes.
type published struct {
	mu         sync.Mutex
	keys       map[string][]Key // "" has all of them
	generation uint64
	until      time.Time // when the keys are too old
	asked      []string
	refreshed  int
	next       func() // what a refresh brings
	ctx        context.Context
}

func (p *published) Keys(ctx context.Context, kid string, now time.Time) ([]Key, uint64, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked, p.ctx = append(p.asked, kid), ctx
	if !now.Before(p.until) {
		return nil, 0, fmt.Errorf("%w: because", ErrUnavailable)
	}
	return p.keys[kid], p.generation, nil
}

func (p *published) Refresh(context.Context, time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refreshed++
	if p.next == nil {
		return false
	}
	p.next()
	p.next = nil
	return true
}

func (p *published) Generation(now time.Time) (uint64, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.generation, now.Before(p.until)
}

// add publishes a key.
func (p *published) add(kid, algorithm string, key crypto.Signer) *published {
	k := must(NewKey(key.Public(), algorithm))
	if p.keys[""] = append(p.keys[""], k); kid != "" {
		p.keys[kid] = append(p.keys[kid], k)
	}
	return p
}

func newPublished() *published {
	return &published{keys: make(map[string][]Key), generation: 1, until: now.Add(24 * time.Hour)}
}

func source(p *published, change func(*Block)) Block {
	b := Block{Keys: p, Issuers: []string{"iss"}, Audiences: []string{"app"}}
	if change != nil {
		change(&b)
	}
	return b
}

// signKey signs for the block of source, with a key id if it is not nil.
func signKey(kid any, method jwt.SigningMethod, key any, changes ...any) string {
	token := jwt.NewWithClaims(method, claims(append([]any{"iss", "iss", "aud", "app"}, changes...)...))
	if kid != nil {
		token.Header["kid"] = kid
	}
	return must(token.SignedString(key))
}

func TestKeySource(t *testing.T) {
	p := newPublished().
		add("rsa", "", rsaKey()).add("narrow", "PS256", rsaKey()).add("p256", "", p256Key()).add("p384", "", p384Key()).
		add("ed", "", edKey()).add("twice", "", p384Key()).add("twice", "", p256Key())
	v := verifier(t, source(p, nil))
	only := verifier(t, source(p, func(b *Block) { b.Algorithms = []string{"EdDSA"} }))
	der := pemOf(rsaKey())
	for name, test := range map[string]struct {
		token string
		want  error
	}{
		"RSA":                         {signKey("rsa", jwt.SigningMethodRS256, rsaKey()), nil},
		"RSA, PS512":                  {signKey("rsa", jwt.SigningMethodPS512, rsaKey()), nil},
		"the key's own algorithm":     {signKey("narrow", jwt.SigningMethodPS256, rsaKey()), nil},
		"another than the key's own":  {signKey("narrow", jwt.SigningMethodRS256, rsaKey()), errSignature},
		"P-256":                       {signKey("p256", jwt.SigningMethodES256, p256Key()), nil},
		"P-384":                       {signKey("p384", jwt.SigningMethodES384, p384Key()), nil},
		"Ed25519":                     {signKey("ed", jwt.SigningMethodEdDSA, edKey()), nil},
		"one id, two keys":            {signKey("twice", jwt.SigningMethodES256, p256Key()), nil},
		"no id":                       {signKey(nil, jwt.SigningMethodES384, p384Key()), nil},
		"empty id":                    {signKey("", jwt.SigningMethodRS256, rsaKey()), nil},
		"id of another key":           {signKey("p384", jwt.SigningMethodES256, p256Key()), errSignature},
		"id of another type":          {signKey("ed", jwt.SigningMethodRS256, rsaKey()), errSignature},
		"unknown id":                  {signKey("gone", jwt.SigningMethodRS256, rsaKey()), errSignature},
		"id is no string":             {signKey(5, jwt.SigningMethodRS256, rsaKey()), errSignature},
		"id is null":                  {signKey(map[string]any(nil), jwt.SigningMethodRS256, rsaKey()), errSignature},
		"unknown key":                 {signKey("p256", jwt.SigningMethodES256, anotherKey()), errSignature},
		"HS256 with the public key":   {signKey("rsa", jwt.SigningMethodHS256, der), errSignature},
		"none":                        {signKey("rsa", jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType), errMalformed},
		"another issuer":              {signKey("rsa", jwt.SigningMethodRS256, rsaKey(), "iss", "x"), errIssuer},
		"another audience":            {signKey("rsa", jwt.SigningMethodRS256, rsaKey(), "aud", "x"), errAudience},
		"no audience":                 {signKey("rsa", jwt.SigningMethodRS256, rsaKey(), "aud", nil), errAudience},
		"expired":                     {signKey("rsa", jwt.SigningMethodRS256, rsaKey(), "exp", now.Unix()-60), ErrExpired},
		"expired, with a forged name": {forged(signKey("rsa", jwt.SigningMethodRS256, rsaKey(), "exp", now.Unix()-60)), errSignature},
	} {
		t.Run(name, func(t *testing.T) {
			for range 2 { // once verified, once remembered
				id, err := v.Identify(t.Context(), bearerHeader(test.token), now)
				if test.want != nil {
					check(t, id, err, "", test.want)
				} else {
					check(t, id, err, "alice", nil)
				}
			}
			id, err := only.Identify(t.Context(), bearerHeader(test.token), now)
			if name == "Ed25519" {
				check(t, id, err, "alice", nil)
			} else if err == nil {
				t.Error("algorithms does not narrow down")
			}
		})
	}
}

// forged is a token with another signature of the same length.
func forged(token string) string {
	i := strings.LastIndex(token, ".") + 1
	c := byte('A')
	if token[i] == c {
		c = 'B'
	}
	return token[:i] + string(c) + token[i+1:]
}

// TestKeySourceIsAskedForGoodClaims: a token that would be refused anyway causes no
// fetch and no wait, such as those of the other blocks' issuers.
func TestKeySourceIsAskedForGoodClaims(t *testing.T) {
	p := newPublished().add("k", "", p256Key())
	v := verifier(t, source(p, nil))
	for _, change := range [][]any{
		{"iss", "other"},
		{"iss", nil},
		{"aud", "other"},
		{"exp", nil},
		{"exp", "soon"},
		{"nbf", now.Unix() + 3600},
		{"sub", ""},
		{"sub", "a\nb"},
	} {
		if _, err := v.Identify(t.Context(), bearerHeader(signKey("x", jwt.SigningMethodES256, p256Key(), change...)), now); !errors.Is(err, ErrInvalid) {
			t.Errorf("%v: %v", change, err)
		}
	}
	for _, token := range []string{signA("iss", "iss", "aud", "app"), "a.b.c", "x"} {
		if _, err := v.Identify(t.Context(), bearerHeader(token), now); !errors.Is(err, ErrInvalid) {
			t.Errorf("%v", err)
		}
	}
	if len(p.asked) != 0 {
		t.Errorf("asked for %q", p.asked)
	}
	type name struct{}
	ctx := context.WithValue(t.Context(), name{}, "request")
	must(v.Identify(ctx, bearerHeader(signKey("k", jwt.SigningMethodES256, p256Key())), now))
	if len(p.asked) != 1 || p.asked[0] != "k" || p.ctx.Value(name{}) != "request" {
		t.Errorf("asked for %q", p.asked)
	}
}

// TestTriedKeysAreFew: a token without an id is not tried with a hundred keys.
func TestTriedKeysAreFew(t *testing.T) {
	p := newPublished()
	for range maxTried {
		p.add("", "", anotherKey())
	}
	p.add("", "", p384Key()).add("last", "", p256Key())
	v := verifier(t, source(p, nil))
	id, err := v.Identify(t.Context(), bearerHeader(signKey(nil, jwt.SigningMethodES256, p256Key())), now)
	check(t, id, err, "", errSignature)
	id, err = v.Identify(t.Context(), bearerHeader(signKey(nil, jwt.SigningMethodES384, p384Key())), now)
	check(t, id, err, "alice", nil) // those of another type do not count
	id, err = v.Identify(t.Context(), bearerHeader(signKey("last", jwt.SigningMethodES256, p256Key())), now)
	check(t, id, err, "alice", nil)
}

// TestRemovedKey: the tokens that a removed key has signed end at once, remembered or
// not; those of other keys go on, and those of other blocks are not even verified again.
func TestRemovedKey(t *testing.T) {
	p, other := newPublished().add("old", "", p256Key()).add("new", "", edKey()), newPublished().add("k", "", p256Key())
	v := verifier(t,
		source(p, nil),
		Block{Secret: secretA, Issuers: []string{"iss"}},
		source(other, func(b *Block) { b.Sources = []Source{{Cookie: "session"}} }))
	old, fresh := signKey("old", jwt.SigningMethodES256, p256Key()), signKey("new", jwt.SigningMethodEdDSA, edKey())
	unnamed := signKey(nil, jwt.SigningMethodES256, p256Key())
	elsewhere := http.Header{"Cookie": {"session=" + signKey("k", jwt.SigningMethodES256, p256Key())}}
	hmac := bearerHeader(signA("iss", "iss"))
	for _, h := range []http.Header{bearerHeader(old), bearerHeader(fresh), bearerHeader(unnamed), elsewhere, hmac} {
		for range 2 {
			id, err := v.Identify(t.Context(), h, now)
			check(t, id, err, "alice", nil)
		}
	}
	if len(p.asked) != 3 || len(other.asked) != 1 {
		t.Fatalf("remembered tokens are verified again: %q, %q", p.asked, other.asked)
	}

	p.keys = newPublished().add("new", "", edKey()).keys
	p.generation++
	for range 2 {
		for _, token := range []string{old, unnamed} {
			id, err := v.Identify(t.Context(), bearerHeader(token), now)
			check(t, id, err, "", errSignature)
		}
		for _, h := range []http.Header{bearerHeader(fresh), elsewhere, hmac} {
			id, err := v.Identify(t.Context(), h, now)
			check(t, id, err, "alice", nil)
		}
	}
	if len(other.asked) != 1 {
		t.Error("the tokens of another block were forgotten")
	}
}

// swapping takes its key away while a token is being verified.
type swapping struct{ *published }

func (s swapping) Keys(ctx context.Context, kid string, now time.Time) ([]Key, uint64, error) {
	keys, generation, err := s.published.Keys(ctx, kid, now)
	s.keys, s.published.generation = map[string][]Key{}, generation+1
	return keys, generation, err
}

func TestKeyRemovedWhileVerifying(t *testing.T) {
	p := newPublished().add("k", "", p256Key())
	b := source(p, nil)
	b.Keys = swapping{p}
	v := verifier(t, b)
	h := bearerHeader(signKey("k", jwt.SigningMethodES256, p256Key()))
	id, err := v.Identify(t.Context(), h, now)
	check(t, id, err, "alice", nil)
	id, err = v.Identify(t.Context(), h, now)
	check(t, id, err, "", errSignature)
}

// TestKeysTooOld: nobody can tell, of remembered tokens neither.
func TestKeysTooOld(t *testing.T) {
	p := newPublished().add("k", "", p256Key())
	v := verifier(t, source(p, nil), Block{Secret: secretA, Issuers: []string{"iss"}})
	exp := p.until.Add(time.Hour).Unix()
	known := bearerHeader(signKey("k", jwt.SigningMethodES256, p256Key(), "exp", exp))
	id, err := v.Identify(t.Context(), known, p.until.Add(-1))
	check(t, id, err, "alice", nil)
	for name, test := range map[string]struct {
		h    http.Header
		want error
	}{
		"remembered":              {known, ErrUnavailable},
		"unknown":                 {bearerHeader(signKey("x", jwt.SigningMethodRS256, rsaKey(), "exp", exp)), ErrUnavailable},
		"of another issuer":       {bearerHeader(signKey("k", jwt.SigningMethodES256, p256Key(), "exp", exp, "iss", "x")), errIssuer},
		"garbage":                 {bearerHeader("a.b.c"), errSignature},
		"expired":                 {bearerHeader(signKey("k", jwt.SigningMethodES256, p256Key())), ErrUnavailable},
		"expired, of the secret":  {bearerHeader(signA("iss", "iss", "exp", 1)), ErrExpired},
		"not of the public keys":  {bearerHeader(signB("iss", "iss")), errSignature},
		"none at all":             {http.Header{}, ErrMissing},
		"good, of another secret": {bearerHeader(signA("iss", "iss", "exp", exp)), nil},
	} {
		id, err := v.Identify(t.Context(), test.h, p.until)
		if test.want == nil {
			check(t, id, err, "alice", nil)
			continue
		}
		if !errors.Is(err, test.want) || *id != (Identity{}) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
	}
	p.until = p.until.Add(time.Hour)
	id, err = v.Identify(t.Context(), known, p.until.Add(-time.Minute*30))
	check(t, id, err, "alice", nil)
}

func TestKeySourceMistakes(t *testing.T) {
	p, other := newPublished(), newPublished()
	for name, test := range map[string]struct {
		blocks []Block
		want   error
		says   string
	}{
		"no issuer":          {[]Block{source(p, func(b *Block) { b.Issuers = nil })}, ErrTrust, "issuer <iss>"},
		"no audience":        {[]Block{source(p, func(b *Block) { b.Audiences = nil })}, ErrTrust, "audience <aud>"},
		"neither":            {[]Block{{Keys: p}}, ErrTrust, "any waives one"},
		"and a secret":       {[]Block{source(p, func(b *Block) { b.Secret = secretA })}, ErrKey, "either"},
		"and a public key":   {[]Block{source(p, func(b *Block) { b.PublicKey = pemOf(edKey()) })}, ErrKey, "either"},
		"a secret's alg":     {[]Block{source(p, func(b *Block) { b.Algorithms = []string{"HS256"} })}, ErrAlgorithm, "does not fit"},
		"none":               {[]Block{source(p, func(b *Block) { b.Algorithms = []string{"none"} })}, ErrAlgorithm, "none"},
		"two issuers":        {[]Block{source(p, nil), source(p, func(b *Block) { b.Issuers = []string{"x"} })}, ErrPrefixNeeded, ""},
		"two, of any issuer": {[]Block{source(p, anyIssuer), source(other, anyIssuer)}, ErrPrefixNeeded, ""},
		"and any secret":     {[]Block{source(p, anyIssuer), {Secret: secretA}}, ErrPrefixNeeded, ""},
	} {
		_, err := New(test.blocks)
		if !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %v, want %v, %q", name, err, test.want, test.says)
		}
	}
	for name, blocks := range map[string][]Block{
		"any issuer":                 {source(p, anyIssuer)},
		"any audience":               {source(p, func(b *Block) { b.Audiences = []string{"any"} })},
		"one issuer, two sources":    {source(p, nil), source(other, nil)},
		"one issuer, and its secret": {source(p, nil), {Secret: secretA, Issuers: []string{"iss"}}},
		"any issuer, one source":     {source(p, anyIssuer), source(p, anyIssuer)},
		"any issuers, with prefixes": {source(p, prefixed("a:")), source(other, prefixed("b:"))},
	} {
		v, err := New(blocks)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		v.Close()
	}
}

func anyIssuer(b *Block) { b.Issuers = []string{"any"} }

func prefixed(prefix string) func(*Block) {
	return func(b *Block) { anyIssuer(b); b.UserPrefix = prefix }
}

func anotherKey() *ecdsa.PrivateKey { return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)) }

func TestNewKeyMistakes(t *testing.T) {
	for name, make := range map[string]func() (Key, error){
		"a secret":        func() (Key, error) { return NewKey(secretA, "") },
		"a private key":   func() (Key, error) { return NewKey(p256Key(), "") },
		"nil":             func() (Key, error) { return NewKey(nil, "") },
		"another's alg":   func() (Key, error) { return NewKey(p256Key().Public(), "RS256") },
		"an unknown alg":  func() (Key, error) { return NewKey(rsaKey().Public(), "RS1") },
		"none":            func() (Key, error) { return NewKey(rsaKey().Public(), "none") },
		"encryption only": func() (Key, error) { return NewKey(rsaKey().Public(), "RSA-OAEP") },
	} {
		if _, err := make(); !errors.Is(err, ErrKey) && !errors.Is(err, ErrAlgorithm) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestReplacedKey: a key that was replaced under its own id, or has none, is asked for
// when none that is known fits; a token that would be refused anyway asks for nothing.
func TestReplacedKey(t *testing.T) {
	for _, kid := range []any{"default", nil} {
		p := newPublished().add("default", "", p384Key())
		v := verifier(t, source(p, nil))
		good := signKey(kid, jwt.SigningMethodES256, p256Key())
		p.next = func() {
			p.keys = map[string][]Key{}
			p.add("default", "", p256Key())
			p.generation++
		}
		for _, refused := range []string{
			signKey(kid, jwt.SigningMethodES256, p256Key(), "iss", "another"), signKey(kid, jwt.SigningMethodES256, p256Key(), "aud", "another"),
		} {
			if _, err := v.Identify(t.Context(), bearerHeader(refused), now); err == nil || p.refreshed != 0 {
				t.Errorf("%v, %d refreshes", err, p.refreshed)
			}
		}
		if id, err := v.Identify(t.Context(), bearerHeader(good), now); err != nil || id.User == "" {
			t.Errorf("kid %v: %v", kid, err)
		}
		if _, err := v.Identify(t.Context(), bearerHeader(signKey(kid, jwt.SigningMethodES256, anotherKey())), now); !errors.Is(err, ErrInvalid) {
			t.Errorf("kid %v: %v", kid, err)
		}
		if p.refreshed != 2 {
			t.Errorf("kid %v: %d refreshes", kid, p.refreshed)
		}
	}
}

func TestEditableClaims(t *testing.T) {
	for claim, want := range map[string]error{
		"user_metadata.id": ErrEditable, "unsafe_metadata.id": ErrEditable, "data.user_metadata.id": ErrEditable,
		"app_metadata.id": nil, "https://example.com/user_metadata": nil, "my_user_metadata": nil,
	} {
		for _, b := range []Block{{Secret: secretA, UserClaim: claim}, {Secret: secretA, EmailClaim: claim}} {
			v, err := New([]Block{b})
			if !errors.Is(err, want) || want == nil && err != nil {
				t.Errorf("%s: %v", claim, err)
			}
			if err == nil {
				v.Close()
			}
		}
	}
}

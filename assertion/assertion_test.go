package assertion

import (
	"bytes"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var noon = time.Date(2027, 1, 1, 12, 0, 0, 0, time.UTC)

// fetch is what an app gets that asks for the keys.
func fetch(t require, keys Keys) jose.JSONWebKeySet {
	t.Helper()
	raw, err := json.Marshal(keys)
	if err != nil {
		t.Fatal(err)
	}
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(raw, &set); err != nil {
		t.Fatal(err)
	}
	for _, k := range set.Keys {
		if !k.IsPublic() || !k.Valid() || k.Use != "sig" || k.Algorithm != "EdDSA" || k.KeyID == "" {
			t.Fatalf("published: %s", raw)
		}
	}
	return set
}

// require is what tests and properties have in common.
type require interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
}

// verify reads a token as an app does, without any leeway, by the keys it has.
func verify(t require, token string, set jose.JSONWebKeySet, now time.Time) map[string]any {
	t.Helper()
	parsed, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.EdDSA})
	if err != nil {
		t.Fatalf("%s: %v", token, err)
	}
	var registered jwt.Claims
	var all map[string]any
	if err := parsed.Claims(set, &registered, &all); err != nil {
		t.Fatalf("kid %s of %d keys: %v", parsed.Headers[0].KeyID, len(set.Keys), err)
	}
	if err := registered.ValidateWithLeeway(jwt.Expected{Issuer: "iss", AnyAudience: jwt.Audience{"app"}, Time: now}, 0); err != nil {
		t.Fatalf("at %v: %v", now, err)
	}
	return all
}

func signer(t testing.TB, keys func(time.Time) (Keys, error)) *Signer {
	t.Helper()
	s, err := NewSigner("iss", "app", "default", keys)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// always is a key that does not change.
func always() func(time.Time) (Keys, error) {
	k := NewKey(make([]byte, ed25519.SeedSize))
	return func(time.Time) (Keys, error) { return Keys{k, []*Key{k}}, nil }
}

func TestClaims(t *testing.T) {
	s := signer(t, always())
	keys, _ := s.Keys(noon)
	for _, test := range []struct {
		claims Claims
		want   string
	}{
		{
			Claims{User: "ada", Plan: "pro", Plans: "pro,team", Status: "active", Reason: "active", Until: "2027-02-01T00:00:00Z", Customer: "c1", ExternalCustomer: "acme"},
			`{"sub":"ada","plan":"pro","plans":["pro","team"],"status":"active","reason":"active","until":"2027-02-01T00:00:00Z","customer":"c1","external_customer":"acme"`,
		},
		{Claims{User: "ada", Status: "none", Reason: "no_subscription"}, `{"sub":"ada","plans":[],"status":"none","reason":"no_subscription"`},
		{Claims{User: "zoë <\"\\>\u2028 %41"}, `{"sub":"zoë <\"\\>\u2028 %41","plans":[]`},
	} {
		token, err := s.Sign(&test.claims, time.Time{}, noon)
		if err != nil {
			t.Fatal(err)
		}
		got := verify(t, token, fetch(t, keys), noon)
		var want map[string]any
		all := test.want + fmt.Sprintf(`,"iss":"iss","aud":"app","gateway":"default","iat":%d,"exp":%d}`, noon.Unix(), noon.Unix()+60)
		if err := json.Unmarshal([]byte(all), &want); err != nil {
			t.Fatal(err)
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("got  %v\nwant %v", got, want)
		}
	}
}

// TestHeaderOfTokens: a kid is RFC 7638's thumbprint, so that a key has the same name
// wherever it is published.
func TestHeaderOfTokens(t *testing.T) {
	s := signer(t, always())
	keys, _ := s.Keys(noon)
	token, err := s.Sign(&Claims{User: "ada"}, time.Time{}, noon)
	if err != nil {
		t.Fatal(err)
	}
	head, err := base64.RawURLEncoding.DecodeString(token[:strings.IndexByte(token, '.')])
	if err != nil {
		t.Fatal(err)
	}
	print, err := fetch(t, keys).Keys[0].Thumbprint(crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"alg":"EdDSA","kid":"` + base64.RawURLEncoding.EncodeToString(print) + `","typ":"JWT"}`
	if string(head) != want {
		t.Errorf("%s, want %s", head, want)
	}
}

// TestReuse: a token is told again for as long as it has half its life left, and for
// nothing but what it says.
func TestReuse(t *testing.T) {
	s := signer(t, always())
	sign := func(c Claims, ends, now time.Time) string {
		t.Helper()
		token, err := s.Sign(&c, ends, now)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	c := Claims{User: "ada", Plans: "pro"}
	first := sign(c, time.Time{}, noon)
	for after, again := range map[time.Duration]bool{
		0: true, 29 * time.Second: true, 30 * time.Second: false, time.Hour: false,
		-time.Second: false, -time.Hour: false, // it would come from the future
	} {
		s.memory.InvalidateAll()
		sign(c, time.Time{}, noon)
		if got := sign(c, time.Time{}, noon.Add(after)); (got == first) != again {
			t.Errorf("after %v: told again %v, want %v", after, got == first, again)
		}
	}
	s.memory.InvalidateAll()
	first = sign(c, time.Time{}, noon)
	for name, other := range map[string]Claims{
		"user": {User: "bob", Plans: "pro"}, "payer": {User: "ada", Plans: "pro", ExternalCustomer: "a"},
		"customer": {User: "ada", Plans: "pro", Customer: "a"}, "plan": {User: "ada", Plans: "pro", Plan: "pro"},
		"plans": {User: "ada"}, "status": {User: "ada", Plans: "pro", Status: "a"}, "reason": {User: "ada", Plans: "pro", Reason: "a"},
		"until": {User: "ada", Plans: "pro", Until: "a"},
	} {
		if sign(other, time.Time{}, noon) == first {
			t.Errorf("another %s is told with the same token", name)
		}
	}
	// The end came nearer, though it is written alike.
	if sign(c, noon.Add(40*time.Second), noon.Add(time.Second)) == first {
		t.Error("a token outlives what it says")
	}
}

// TestLifeOfTokens: whatever the clock does, a token verifies where it is told, says what
// was asked for, and ends with that; else it has half a minute left.
func TestLifeOfTokens(t *testing.T) {
	s := signer(t, always())
	keys, _ := s.Keys(noon)
	set := fetch(t, keys)
	rapid.Check(t, func(t *rapid.T) {
		s.memory.InvalidateAll()
		now, ends := noon, time.Time{}
		if rapid.Bool().Draw(t, "it ends") {
			ends = noon.Add(time.Duration(rapid.Int64Range(1, int64(3*time.Minute)).Draw(t, "end")))
		}
		for range rapid.IntRange(1, 20).Draw(t, "requests") {
			now = now.Add(time.Duration(rapid.Int64Range(-int64(20*time.Second), int64(40*time.Second)).Draw(t, "step")))
			if !ends.IsZero() && now.Unix() >= ends.Unix() {
				continue // it is over, or has less than a second
			}
			user := rapid.SampledFrom([]string{"ada", "bob"}).Draw(t, "user")
			token, err := s.Sign(&Claims{User: user}, ends, now)
			if err != nil {
				t.Fatal(err)
			}
			got := verify(t, token, set, now)
			exp := int64(got["exp"].(float64))
			switch left := exp - now.Unix(); {
			case got["sub"] != user:
				t.Fatalf("%s was told of %v", user, got["sub"])
			case !ends.IsZero() && exp > ends.Unix():
				t.Fatalf("it lives for %d s longer than what it says", exp-ends.Unix())
			case left > 60, left <= 30 && exp != ends.Unix():
				t.Fatalf("it has %d s left", left)
			}
		}
	})
}

func TestNoKeys(t *testing.T) {
	gone := errors.New("gone")
	s := signer(t, func(time.Time) (Keys, error) { return Keys{}, gone })
	if token, err := s.Sign(&Claims{User: "ada"}, time.Time{}, noon); token != "" || !errors.Is(err, gone) {
		t.Error(token, err)
	}
}

func pemOf(t *testing.T, kind string, key any) string {
	t.Helper()
	var der []byte
	var err error
	if kind == "PUBLIC KEY" {
		der, err = x509.MarshalPKIXPublicKey(key)
	} else {
		der, err = x509.MarshalPKCS8PrivateKey(key)
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

func TestParseKey(t *testing.T) {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	good := pemOf(t, "PRIVATE KEY", private)
	for _, text := range []string{good, "\n" + good + "\r\n\n"} {
		key, err := ParseKey([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if !fetch(t, Keys{key, []*Key{key}}).Keys[0].Key.(ed25519.PublicKey).Equal(public) {
			t.Error("another key")
		}
	}

	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	xKey, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	renamed := func(kind string) string { return strings.ReplaceAll(good, "PRIVATE KEY", kind) }
	for name, c := range map[string]struct{ text, says string }{
		"nothing":            {"", "openssl genpkey -algorithm ed25519"},
		"no PEM":             {"a secret", "one PEM block"},
		"two keys":           {good + good, "one PEM block"},
		"something before":   {"a\n" + good, "one PEM block"},
		"the public half":    {pemOf(t, "PUBLIC KEY", public), "give the private key"},
		"a certificate":      {renamed("CERTIFICATE"), "give the private key"},
		"encrypted":          {renamed("ENCRYPTED PRIVATE KEY"), "encrypted"},
		"PKCS#1":             {renamed("RSA PRIVATE KEY"), "RSA PRIVATE KEY"},
		"SEC 1":              {renamed("EC PRIVATE KEY"), "EC PRIVATE KEY"},
		"OpenSSH's":          {renamed("OPENSSH PRIVATE KEY"), "OPENSSH PRIVATE KEY"},
		"something else":     {renamed("PARAMETERS"), "PARAMETERS"},
		"RSA":                {pemOf(t, "PRIVATE KEY", rsaKey), "it is RSA"},
		"ECDSA":              {pemOf(t, "PRIVATE KEY", ecKey), "another kind"},
		"not for signing":    {pemOf(t, "PRIVATE KEY", xKey), "another kind"},
		"damaged":            {strings.Replace(good, "MC4C", "MC4D", 1), "damaged"},
		"a public key in it": {strings.ReplaceAll(pemOf(t, "PUBLIC KEY", public), "PUBLIC", "PRIVATE"), "damaged"},
	} {
		_, err := ParseKey([]byte(c.text))
		if !errors.Is(err, ErrKey) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q", name, err, c.says)
			continue
		}
		for line := range strings.Lines(c.text) {
			if line = strings.TrimSpace(line); len(line) > 30 && strings.Contains(err.Error(), line) {
				t.Errorf("%s: the error has the key: %v", name, err)
			}
		}
	}
}

// FuzzParseKey: whatever stands in the file of a key, it signs what verifies, or the error
// says what to do and nothing of the file.
func FuzzParseKey(f *testing.F) {
	private := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		f.Fatal(err)
	}
	good := string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	for _, text := range []string{good, good + good, strings.ReplaceAll(good, "PRIVATE", "PUBLIC"), strings.ReplaceAll(good, "PRIVATE", "RSA PRIVATE"), good[:60], "x"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		key, err := ParseKey(text)
		if err != nil {
			if key != nil || !errors.Is(err, ErrKey) || len(err.Error()) > 300 {
				t.Fatal(key, err)
			}
			return
		}
		s := signer(t, func(time.Time) (Keys, error) { return Keys{key, []*Key{key}}, nil })
		token, err := s.Sign(&Claims{User: "ada"}, time.Time{}, noon)
		if err != nil {
			t.Fatal(err)
		}
		verify(t, token, fetch(t, Keys{key, []*Key{key}}), noon)
	})
}

// FuzzReadRing: whatever stands in the store, it is a ring that is kept as it was, or none.
func FuzzReadRing(f *testing.F) {
	one := Ring(nil).Turn(noon)
	f.Add(one.Bytes())
	f.Add(one.Turn(noon.Add(period)).Bytes())
	f.Add([]byte("x"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := ReadRing(raw)
		if err != nil {
			if r != nil || !errors.Is(err, ErrRing) {
				t.Fatal(r, err)
			}
			return
		}
		if !bytes.Equal(r.Bytes(), raw) {
			t.Fatalf("%x was kept, and is %x", raw, r.Bytes())
		}
		if now := noon.Add(time.Duration(len(raw)) * time.Hour); len(r.Turn(now)) > ringSize || len(r.Turn(now).Keys(now).Published) == 0 {
			t.Fatal("a ring without keys, or with too many")
		}
	})
}

func BenchmarkSign(b *testing.B) {
	s := signer(b, always())
	c := Claims{User: "usr_7f3c1a9e", Plan: "pro", Plans: "pro", Status: "active", Reason: "active", Until: "2027-02-01T00:00:00Z", Customer: "c3f7a6c2-6d5f-4d5b-9e0b-3d0a1f6b7c8d"}
	for name, step := range map[string]time.Duration{"remembered": 0, "signed": time.Minute} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for now := noon; b.Loop(); now = now.Add(step) {
				if _, err := s.Sign(&c, time.Time{}, now); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

package identity

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// now is the time of every test.
var now = time.Unix(1_800_000_000, 0)

var (
	secretA = []byte("secret-a-secret-a-secret-a-secret-a")
	secretB = []byte("secret-b-secret-b-secret-b-secret-b")

	rsaKey   = sync.OnceValue(func() *rsa.PrivateKey { return must(rsa.GenerateKey(rand.Reader, 2048)) })
	p256Key  = sync.OnceValue(func() *ecdsa.PrivateKey { return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)) })
	p384Key  = sync.OnceValue(func() *ecdsa.PrivateKey { return must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader)) })
	p521Key  = sync.OnceValue(func() *ecdsa.PrivateKey { return must(ecdsa.GenerateKey(elliptic.P521(), rand.Reader)) })
	edKey    = sync.OnceValue(func() ed25519.PrivateKey { _, key, err := ed25519.GenerateKey(rand.Reader); return must(key, err) })
	allCases = sync.OnceValue(func() []algorithmCase {
		var cases []algorithmCase
		add := func(key any, block Block, methods ...jwt.SigningMethod) {
			for _, m := range methods {
				cases = append(cases, algorithmCase{m.Alg(), m, key, block})
			}
		}
		add(secretA, Block{Secret: secretA}, jwt.SigningMethodHS256, jwt.SigningMethodHS384, jwt.SigningMethodHS512)
		add(rsaKey(), public(rsaKey()), jwt.SigningMethodRS256, jwt.SigningMethodRS384, jwt.SigningMethodRS512,
			jwt.SigningMethodPS256, jwt.SigningMethodPS384, jwt.SigningMethodPS512)
		add(p256Key(), public(p256Key()), jwt.SigningMethodES256)
		add(p384Key(), public(p384Key()), jwt.SigningMethodES384)
		add(p521Key(), public(p521Key()), jwt.SigningMethodES512)
		add(edKey(), public(edKey()), jwt.SigningMethodEdDSA)
		return cases
	})
)

type algorithmCase struct {
	name   string
	method jwt.SigningMethod
	key    any // the signing key
	block  Block
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func public(key crypto.Signer) Block { return Block{PublicKey: pemOf(key)} }

func pemOf(key crypto.Signer) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: must(x509.MarshalPKIXPublicKey(key.Public()))})
}

// claims are good claims changed as given; a nil value removes a claim.
func claims(changes ...any) jwt.MapClaims {
	c := jwt.MapClaims{"sub": "alice", "exp": now.Add(time.Hour).Unix()}
	for i := 0; i < len(changes); i += 2 {
		c[changes[i].(string)] = changes[i+1]
		if changes[i+1] == nil {
			delete(c, changes[i].(string))
		}
	}
	return c
}

func sign(method jwt.SigningMethod, key any, c jwt.MapClaims) string {
	return must(jwt.NewWithClaims(method, c).SignedString(key))
}

// signA signs with the secret that most tests trust.
func signA(changes ...any) string { return sign(jwt.SigningMethodHS256, secretA, claims(changes...)) }

func signB(changes ...any) string { return sign(jwt.SigningMethodHS256, secretB, claims(changes...)) }

// raw signs a payload, and a header if given, that encoding/json would not write.
func raw(payload string, header ...string) string {
	head := append(header, `{"alg":"HS256"}`)[0]
	text := base64.RawURLEncoding.EncodeToString([]byte(head)) + "." + base64.RawURLEncoding.EncodeToString([]byte(payload))
	sig := must(jwt.SigningMethodHS256.Sign(text, secretA))
	return text + "." + base64.RawURLEncoding.EncodeToString(sig)
}

func verifier(t testing.TB, blocks ...Block) *Verifier {
	t.Helper()
	v, err := New(blocks)
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	t.Cleanup(v.Close)
	return v
}

func bearerHeader(token string) http.Header {
	return http.Header{"Authorization": {"Bearer " + token}}
}

// check compares an answer with the wanted user or error.
func check(t *testing.T, id *Identity, err error, user string, wantErr error) {
	t.Helper()
	if !errors.Is(err, wantErr) || (wantErr == nil) != (err == nil) {
		t.Fatalf("error is %v, want %v", err, wantErr)
	}
	if id.User != user {
		t.Fatalf("user is %q, want %q", id.User, user)
	}
	if err != nil && *id != (Identity{}) {
		t.Fatalf("identity %+v comes with an error", *id)
	}
}

func TestEveryAlgorithm(t *testing.T) {
	cases := allCases()
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			narrow := c.block
			narrow.Algorithms = []string{c.name}
			for _, block := range []Block{c.block, narrow} {
				id, err := verifier(t, block).Identify(context.Background(), bearerHeader(sign(c.method, c.key, claims())), now)
				check(t, id, err, "alice", nil)
				if !id.Expires.Equal(now.Add(time.Hour)) || id.Source != (Source{Header: "Authorization"}) || id.StripToken {
					t.Fatalf("identity is %+v", id)
				}
			}
			for _, other := range cases {
				id, err := verifier(t, narrow).Identify(context.Background(), bearerHeader(sign(other.method, other.key, claims())), now)
				if other.name == c.name {
					check(t, id, err, "alice", nil)
				} else {
					check(t, id, err, "", ErrInvalid)
				}
			}
		})
	}
}

func TestForgedAlgorithm(t *testing.T) {
	key := pemOf(rsaKey())
	der := must(x509.MarshalPKIXPublicKey(rsaKey().Public()))
	forged := map[string]string{
		"PEM as secret":         sign(jwt.SigningMethodHS256, key, claims()),
		"trimmed PEM as secret": sign(jwt.SigningMethodHS256, []byte(strings.TrimSpace(string(key))), claims()),
		"DER as secret":         sign(jwt.SigningMethodHS256, der, claims()),
		"PKCS1 as secret":       sign(jwt.SigningMethodHS512, x509.MarshalPKCS1PublicKey(&rsaKey().PublicKey), claims()),
		"signed none":           sign(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, claims()),
	}
	for _, alg := range []string{"none", "None", "NONE", "nOnE", "", "RS256 ", "rs256", "HS257"} {
		head := base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, `{"alg":%q}`, alg))
		payload := strings.Split(signA(), ".")[1]
		forged["alg "+alg] = head + "." + payload + "."
		forged["signed alg "+alg] = head + "." + payload + "." + strings.Split(signA(), ".")[2]
	}
	v, hmac := verifier(t, Block{PublicKey: key}), verifier(t, Block{Secret: secretA})
	for name, token := range forged {
		t.Run(name, func(t *testing.T) {
			id, err := v.Identify(context.Background(), bearerHeader(token), now)
			check(t, id, err, "", ErrInvalid)
			id, err = hmac.Identify(context.Background(), bearerHeader(token), now)
			check(t, id, err, "", ErrInvalid)
		})
	}
}

func TestMalformedToken(t *testing.T) {
	good := signA()
	parts := strings.Split(good, ".")
	swapLast := func(s string) string { // sets padding bits that must be zero
		const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
		last := strings.IndexByte(alphabet, s[len(s)-1])
		return s[:len(s)-1] + string(alphabet[last^1])
	}
	tokens := map[string]string{
		"one segment":       "abc",
		"two segments":      parts[0] + "." + parts[1],
		"four segments":     good + "." + parts[2],
		"no signature":      parts[0] + "." + parts[1] + ".",
		"no payload":        parts[0] + ".." + parts[2],
		"no header":         "." + parts[1] + "." + parts[2],
		"dots":              "..",
		"many dots":         strings.Repeat(".", 10_000),
		"garbage base64":    "a!b.c!d.e!f",
		"not JSON":          "aaaa.aaaa.aaaa",
		"padding":           good + "=",
		"line break":        parts[0] + "." + parts[1] + ".\n" + parts[2],
		"second in list":    good + ", Bearer " + good,
		"loose bits":        swapLast(good),
		"other signature":   parts[0] + "." + parts[1] + "." + strings.Split(signB(), ".")[2],
		"other payload":     parts[0] + "." + strings.Split(signA("sub", "bob"), ".")[1] + "." + parts[2],
		"critical header":   raw(`{"sub":"alice","exp":1800003600}`, `{"alg":"HS256","crit":["b64"],"b64":false}`),
		"null payload":      raw(`null`),
		"array payload":     raw(`[]`),
		"huge":              "a." + strings.Repeat("a", maxToken) + ".a",
		"huge and signed":   signA("pad", strings.Repeat("x", maxToken)),
		"deep":              raw(strings.Repeat(`{"a":`, 2000)),
		"missing algorithm": raw(`{"sub":"alice","exp":1800003600}`, `{}`),
	}
	v := verifier(t, Block{Secret: secretA})
	for name, token := range tokens {
		t.Run(name, func(t *testing.T) {
			id, err := v.Identify(context.Background(), bearerHeader(token), now)
			check(t, id, err, "", ErrInvalid)
		})
	}
	id, err := v.Identify(context.Background(), bearerHeader(good), now)
	check(t, id, err, "alice", nil)
	id, err = v.Identify(context.Background(), bearerHeader(signA("pad", strings.Repeat("x", 11_000))), now)
	check(t, id, err, "alice", nil)
}

func TestRotation(t *testing.T) {
	v := verifier(t, Block{Secret: secretB}, Block{Secret: secretA})
	for _, token := range []string{signA(), signB()} {
		id, err := v.Identify(context.Background(), bearerHeader(token), now)
		check(t, id, err, "alice", nil)
	}
	id, err := v.Identify(context.Background(), bearerHeader(sign(jwt.SigningMethodHS256, slices.Concat(secretA, secretB), claims())), now)
	check(t, id, err, "", ErrInvalid)
}

// TestSeveralFailures pins which of several blocks' failures is told.
func TestSeveralFailures(t *testing.T) {
	v := verifier(t,
		Block{Secret: secretA, Audiences: []string{"web"}},
		Block{Secret: secretA, Audiences: []string{"app"}},
		Block{Secret: secretB},
	)
	tests := map[string]struct {
		token string
		want  error
	}{
		"expired in the second":  {signA("aud", "app", "exp", now.Add(-time.Hour).Unix()), ErrExpired},
		"expired in the third":   {signB("exp", now.Add(-time.Hour).Unix()), ErrExpired},
		"expired, wrong in both": {signA("exp", now.Add(-time.Hour).Unix()), errAudience},
		"claim before signature": {signA("aud", "other"), errAudience},
		"no key at all":          {sign(jwt.SigningMethodHS384, []byte("x"), claims()), errSignature},
		"expired, forged": {
			sign(jwt.SigningMethodHS256, []byte("x"), claims("exp", now.Add(-time.Hour).Unix())), errSignature,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			id, err := v.Identify(context.Background(), bearerHeader(test.token), now)
			check(t, id, err, "", test.want)
			if errors.Is(err, ErrExpired) && errors.Is(err, ErrInvalid) {
				t.Fatal("expired and invalid at once")
			}
		})
	}
}

func TestBlocksAndSources(t *testing.T) {
	session := Source{Cookie: "session"}
	v := verifier(t,
		Block{Secret: secretA, UserPrefix: "a:", Issuers: []string{"a"}, Sources: []Source{{Header: "authorization"}, session}, StripToken: true},
		Block{Secret: secretB, UserPrefix: "b:", Issuers: []string{"b"}, Sources: []Source{session, {Header: "x-token"}}},
	)
	want := []Source{{Header: "Authorization"}, session, {Header: "X-Token"}}
	if got := v.Sources(); !slices.Equal(got, want) {
		t.Fatalf("sources are %v, want %v", got, want)
	}
	a, b := signA("iss", "a"), signB("iss", "b")
	tests := map[string]struct {
		header http.Header
		user   string
		source Source
		err    error
	}{
		"first block":                 {bearerHeader(a), "a:alice", want[0], nil},
		"source of another block":     {bearerHeader(b), "", Source{}, ErrInvalid},
		"shared source, first block":  {http.Header{"Cookie": {"session=" + a}}, "a:alice", session, nil},
		"shared source, second block": {http.Header{"Cookie": {"session=" + b}}, "b:alice", session, nil},
		"header of the second":        {http.Header{"X-Token": {b}}, "b:alice", want[2], nil},
		"header of the second, first": {http.Header{"X-Token": {a}}, "", Source{}, ErrInvalid},
		"nothing":                     {http.Header{}, "", Source{}, ErrMissing},
	}
	for range 2 { // once verified, once remembered
		for name, test := range tests {
			id, err := v.Identify(context.Background(), test.header, now)
			t.Run(name, func(t *testing.T) {
				check(t, id, err, test.user, test.err)
				if id.Source != test.source || id.StripToken != strings.HasPrefix(id.User, "a:") {
					t.Fatalf("identity is %+v", id)
				}
			})
		}
	}
}

// TestNoSecretsInErrors collects errors of all kinds and looks for what must not be in them.
func TestNoSecretsInErrors(t *testing.T) {
	private := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: must(x509.MarshalPKCS8PrivateKey(p256Key()))})
	texts := map[string][]byte{
		"secret": secretA[:20], "private": private, "public": pemOf(p256Key()),
		"both": slices.Concat(pemOf(p256Key()), private), "garbage": []byte("-----BEGIN secret-a-secret-a"),
		"cut": pemOf(rsaKey())[:200],
	}
	var told []string
	for _, text := range texts {
		for _, block := range []Block{{PublicKey: text}, {Secret: text}, {PublicKey: text, Secret: text}} {
			for _, block.Algorithms = range [][]string{nil, {"none"}} {
				if _, err := New([]Block{block}); err != nil {
					told = append(told, err.Error())
				}
			}
		}
	}
	token := sign(jwt.SigningMethodHS256, secretB, claims("iss", "secret-a-issuer"))
	v := verifier(t, Block{Secret: secretA, Issuers: []string{"x"}})
	for _, token := range []string{token, signA("sub", "secret-a\n"), token + ".x", "secret-a", raw("{", `{"alg":"secret-a"}`), raw(`{"secret-a":`)} {
		_, err := v.Identify(context.Background(), bearerHeader(token), now)
		told = append(told, err.Error())
	}
	var leaks []string
	for _, text := range maps.All(texts) {
		leaks = append(leaks, strings.Split(string(text), "\n")...)
	}
	leaks = append(leaks, strings.Split(token, ".")...)
	leaks = append(leaks, "secret-a")
	for _, text := range told {
		for _, leak := range leaks {
			if len(leak) > 7 && !strings.HasPrefix(leak, "-----") && strings.Contains(text, leak) {
				t.Errorf("error %q holds %q", text, leak)
			}
		}
	}
	if len(told) < 20 {
		t.Errorf("only %d errors looked at", len(told))
	}
}

func TestConcurrentUse(t *testing.T) {
	v := verifier(t, Block{Secret: secretA})
	tokens := make([]string, 20)
	for i := range tokens {
		tokens[i] = signA("sub", fmt.Sprint("user", i))
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 200 {
				id, err := v.Identify(context.Background(), bearerHeader(tokens[i%len(tokens)]), now)
				if want := fmt.Sprint("user", i%len(tokens)); err != nil || id.User != want {
					t.Errorf("user is %q, %v, want %q", id.User, err, want)
				}
			}
		})
	}
	wg.Wait()
	v.Close()
	id, err := v.Identify(context.Background(), bearerHeader(tokens[0]), now)
	check(t, id, err, "user0", nil)
}

func FuzzIdentify(f *testing.F) {
	signed := []string{signA(), signA("sub", "bob", "email", "b@example.com"), sign(jwt.SigningMethodES256, p256Key(), claims())}
	for _, token := range append(signed, signB(), signA("exp", 1), raw("null"), "a.b.c", "") {
		f.Add("Bearer "+token, "session="+token)
		f.Add("Basic "+token, "a=b; session=\""+token+"\"; session="+token)
		f.Add("", "session="+token+";")
	}
	blocks := []Block{{Secret: secretA}, public(p256Key())}
	for i := range blocks {
		blocks[i].Sources = []Source{{Header: "Authorization"}, {Cookie: "session"}, {Header: "X-Token"}}
	}
	v := verifier(f, blocks...)
	f.Fuzz(func(t *testing.T, auth, cookie string) {
		for _, h := range []http.Header{
			{"Authorization": {auth}, "Cookie": {cookie}},
			{"X-Token": {auth}},
			{"Cookie": {cookie, auth}},
		} {
			id, err := v.Identify(context.Background(), h, now)
			if err != nil {
				continue
			}
			found, err := id.Source.find(h)
			if err != nil || !slices.Contains(signed, found) {
				t.Fatalf("%+v from a token nobody signed: %q %q", id, auth, cookie)
			}
			id.Source.Strip(h)
			if rest, err := id.Source.find(h); rest != "" || err != nil {
				t.Fatalf("Strip left %q, %v", rest, err)
			}
		}
	})
}

func BenchmarkIdentifyRemembered(b *testing.B) {
	eachKind(b, func(b *testing.B, v *Verifier, h http.Header) {
		for b.Loop() {
			if _, err := v.Identify(context.Background(), h, now); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkIdentifyCold(b *testing.B) {
	eachKind(b, func(b *testing.B, v *Verifier, h http.Header) {
		token := must(v.sources[0].source.find(h))
		for b.Loop() {
			if _, err := v.sources[0].verify(context.Background(), token, now); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// eachKind runs a benchmark for one algorithm of each kind of key.
func eachKind(b *testing.B, run func(*testing.B, *Verifier, http.Header)) {
	for _, c := range allCases() {
		if !slices.Contains([]string{"HS256", "RS256", "ES256", "EdDSA"}, c.name) {
			continue
		}
		b.Run(c.name, func(b *testing.B) {
			v := verifier(b, c.block)
			h := bearerHeader(sign(c.method, c.key, claims("email", "alice@example.com", "email_verified", true, "iss", "https://issuer.example.com")))
			must(v.Identify(context.Background(), h, now))
			b.ReportAllocs()
			run(b, v, h)
		})
	}
}

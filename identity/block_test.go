//lint:file-ignore SA1019 keys of a kind that must be refused

package identity

import (
	"context"
	"crypto"
	"crypto/dsa" //nolint:staticcheck // a key type that must be refused
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

func pemText(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func certificate(key crypto.Signer) []byte {
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "issuer"}}
	return must(x509.CreateCertificate(rand.Reader, template, template, key.Public(), key))
}

func TestPublicKeyForms(t *testing.T) {
	text := string(pemOf(rsaKey()))
	forms := map[string][]byte{
		"PKIX":        []byte(text),
		"PKCS1":       pemText("RSA PUBLIC KEY", x509.MarshalPKCS1PublicKey(&rsaKey().PublicKey)),
		"certificate": pemText("CERTIFICATE", certificate(rsaKey())),
		"spaces":      []byte("\n  " + text + "\n\n"),
		"CRLF":        []byte(strings.ReplaceAll(text, "\n", "\r\n")),
	}
	for name, form := range forms {
		t.Run(name, func(t *testing.T) {
			id, err := verifier(t, Block{PublicKey: form}).Identify(context.Background(), bearerHeader(sign(jwt.SigningMethodPS384, rsaKey(), claims())), now)
			check(t, id, err, "alice", nil)
		})
	}
	token := sign(jwt.SigningMethodEdDSA, edKey(), claims())
	id, err := verifier(t, Block{PublicKey: pemText("CERTIFICATE", certificate(edKey()))}).Identify(context.Background(), bearerHeader(token), now)
	check(t, id, err, "alice", nil)
}

func TestKeyMistakes(t *testing.T) {
	good := pemOf(p256Key())
	small := must(rsa.GenerateKey(rand.Reader, 1024))
	p224 := must(ecdsa.GenerateKey(elliptic.P224(), rand.Reader))
	pkcs8 := pemText("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(p256Key())))
	tests := map[string]struct {
		block Block
		want  error
		says  string
	}{
		"no key":             {Block{}, ErrKey, "give a secret or a public_key"},
		"empty key":          {Block{Secret: []byte{}, PublicKey: []byte{}}, ErrKey, "not empty"},
		"two keys":           {Block{Secret: secretA, PublicKey: good}, ErrKey, "either"},
		"short secret":       {Block{Secret: secretA[:31]}, ErrKey, "at least 32"},
		"public as secret":   {Block{Secret: good}, ErrKey, "as public_key"},
		"one line as secret": {Block{Secret: []byte(strings.ReplaceAll(string(good), "\n", `\n`))}, ErrKey, "as public_key"},
		"private as secret":  {Block{Secret: pkcs8}, ErrKey, "as public_key"},
		"secret as public":   {Block{PublicKey: secretA}, ErrKey, "one PEM block"},
		"text before":        {Block{PublicKey: slices.Concat([]byte("key:\n"), good)}, ErrKey, "one PEM block"},
		"text after":         {Block{PublicKey: slices.Concat(good, []byte("x"))}, ErrKey, "one PEM block"},
		"two public":         {Block{PublicKey: slices.Concat(good, good)}, ErrKey, "one PEM block"},
		"cut":                {Block{PublicKey: good[:len(good)-40]}, ErrKey, "one PEM block"},
		"damaged":            {Block{PublicKey: pemText("PUBLIC KEY", []byte("x"))}, ErrKey, "damaged"},
		"damaged PKCS1":      {Block{PublicKey: pemText("RSA PUBLIC KEY", []byte("x"))}, ErrKey, "damaged"},
		"damaged cert":       {Block{PublicKey: pemText("CERTIFICATE", []byte("x"))}, ErrKey, "damaged"},
		"request":            {Block{PublicKey: pemText("CERTIFICATE REQUEST", []byte("x"))}, ErrKey, "must be a PUBLIC KEY"},
		"PKCS8":              {Block{PublicKey: pkcs8}, ErrPrivateKey, "public key alone"},
		"PKCS1 private":      {Block{PublicKey: pemText("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey()))}, ErrPrivateKey, "public key alone"},
		"SEC1 private":       {Block{PublicKey: pemText("EC PRIVATE KEY", must(x509.MarshalECPrivateKey(p256Key())))}, ErrPrivateKey, "public key alone"},
		"encrypted private":  {Block{PublicKey: pemText("ENCRYPTED PRIVATE KEY", []byte("x"))}, ErrPrivateKey, "public key alone"},
		"public and private": {Block{PublicKey: slices.Concat(good, pkcs8)}, ErrPrivateKey, "public key alone"},
		"RSA 1024":           {Block{PublicKey: pemOf(small)}, ErrKey, "2048"},
		"P-224":              {Block{PublicKey: pemOf(p224)}, ErrKey, "P-256"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) { checkMistake(t, []Block{test.block}, test.want, test.says) })
	}
	checkMistake(t, nil, ErrKey, "at least one")
	if _, err := keyAlgorithms(&dsa.PublicKey{}); !errors.Is(err, ErrKey) {
		t.Errorf("DSA gives %v", err)
	}
}

func checkMistake(t *testing.T, blocks []Block, want error, says string) {
	t.Helper()
	v, err := New(blocks)
	if v != nil || !errors.Is(err, want) || !strings.Contains(err.Error(), says) {
		t.Fatalf("error is %v, want %v with %q", err, want, says)
	}
}

func TestOtherMistakes(t *testing.T) {
	tests := map[string]struct {
		change func(*Block)
		want   error
		says   string
	}{
		"none":               {func(b *Block) { b.Algorithms = []string{"HS256", "none"} }, ErrAlgorithm, "remove it"},
		"None":               {func(b *Block) { b.Algorithms = []string{"NonE"} }, ErrAlgorithm, "remove it"},
		"other kind":         {func(b *Block) { b.Algorithms = []string{"RS256"} }, ErrAlgorithm, "HS256, HS384, HS512"},
		"lower case":         {func(b *Block) { b.Algorithms = []string{"hs256"} }, ErrAlgorithm, "HS256"},
		"empty algorithm":    {func(b *Block) { b.Algorithms = []string{""} }, ErrAlgorithm, "HS256"},
		"negative leeway":    {func(b *Block) { b.Leeway = new(-time.Nanosecond) }, ErrLeeway, "from 0 to 5m"},
		"large leeway":       {func(b *Block) { b.Leeway = new(5*time.Minute + 1) }, ErrLeeway, "from 0 to 5m"},
		"any and issuer":     {func(b *Block) { b.Issuers = []string{"a", "any"} }, ErrTrust, "issuer any"},
		"any and audience":   {func(b *Block) { b.Audiences = []string{"any", "any"} }, ErrTrust, "audience any"},
		"empty issuer":       {func(b *Block) { b.Issuers = []string{""} }, ErrTrust, "issuer is empty"},
		"empty audience":     {func(b *Block) { b.Audiences = []string{"a", ""} }, ErrTrust, "audience is empty"},
		"no place":           {func(b *Block) { b.Sources = []Source{{}} }, ErrSource, "one header or one cookie"},
		"two places":         {func(b *Block) { b.Sources = []Source{{Header: "A", Cookie: "b"}} }, ErrSource, "one header or one cookie"},
		"header with space":  {func(b *Block) { b.Sources = []Source{{Header: "X Token"}} }, ErrSource, "letters"},
		"header with colon":  {func(b *Block) { b.Sources = []Source{{Header: "X:"}} }, ErrSource, "letters"},
		"cookie with equals": {func(b *Block) { b.Sources = []Source{{Cookie: "a=b"}} }, ErrSource, "letters"},
		"cookie not ASCII":   {func(b *Block) { b.Sources = []Source{{Cookie: "é"}} }, ErrSource, "letters"},
		"header Cookie":      {func(b *Block) { b.Sources = []Source{{Header: "cookie"}} }, ErrSource, "name the cookie"},
		"prefix control":     {func(b *Block) { b.UserPrefix = "a\n" }, ErrPrefix, "control"},
		"prefix bytes":       {func(b *Block) { b.UserPrefix = "a\xff" }, ErrPrefix, "UTF-8"},
		"prefix too long":    {func(b *Block) { b.UserPrefix = strings.Repeat("a", 255) }, ErrPrefix, "255"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			bad := Block{Secret: secretA}
			test.change(&bad)
			checkMistake(t, []Block{{Secret: secretB}, bad}, test.want, test.says)
			checkMistake(t, []Block{{Secret: secretB}, bad}, test.want, "jwt block 2: ")
		})
	}
}

func TestPrefixNeeded(t *testing.T) {
	type trust struct {
		issuers string
		prefix  string
	}
	tests := map[string]struct {
		blocks []trust
		ok     bool
	}{
		"one block":                  {[]trust{{"a", ""}}, true},
		"same issuer":                {[]trust{{"a", ""}, {"a", ""}}, true},
		"same issuers, other order":  {[]trust{{"a b", ""}, {"b a a", ""}}, true},
		"unchecked twice":            {[]trust{{"", ""}, {"", ""}}, true},
		"unchecked and any":          {[]trust{{"", ""}, {"any", ""}}, true},
		"same issuer, two prefixes":  {[]trust{{"a", "x"}, {"a", ""}}, true},
		"different issuers":          {[]trust{{"a", ""}, {"b", ""}}, false},
		"subset":                     {[]trust{{"a", ""}, {"a b", ""}}, false},
		"any and one":                {[]trust{{"any", ""}, {"a", ""}}, false},
		"unchecked and one":          {[]trust{{"", ""}, {"a", "x"}}, false},
		"one without prefix":         {[]trust{{"a", "x"}, {"b", ""}}, false},
		"two prefixes":               {[]trust{{"a", "x:"}, {"b", "y:"}}, true},
		"equal prefixes":             {[]trust{{"a", "x:"}, {"b", "x:"}}, false},
		"prefix of a prefix":         {[]trust{{"a", "x"}, {"b", "xy"}}, false},
		"prefix of a prefix, turned": {[]trust{{"a", "xy"}, {"b", "x"}}, false},
		"third against first":        {[]trust{{"a", "x:"}, {"b", "y:"}, {"c", "x:y"}}, false},
		"same issuer nested":         {[]trust{{"a", "x"}, {"a", "xy"}, {"b", "z"}}, true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var blocks []Block
			for _, b := range test.blocks {
				blocks = append(blocks, Block{Secret: secretA, Issuers: strings.Fields(b.issuers), UserPrefix: b.prefix})
			}
			if !test.ok {
				checkMistake(t, blocks, ErrPrefixNeeded, "give both a user_prefix")
				return
			}
			verifier(t, blocks...)
		})
	}
}

// TestBlockIsCopied shows that a caller may wipe what it gave.
func TestBlockIsCopied(t *testing.T) {
	b := Block{
		Secret: slices.Clone(secretA), Algorithms: []string{"HS256"}, Issuers: []string{"a"}, Audiences: []string{"b"},
		Sources: []Source{{Cookie: "session"}},
	}
	v := verifier(t, b)
	clear(b.Secret)
	clear(b.Algorithms)
	clear(b.Issuers)
	clear(b.Audiences)
	clear(b.Sources)
	clear(v.Sources())
	id, err := v.Identify(context.Background(), map[string][]string{"Cookie": {"session=" + signA("iss", "a", "aud", "b")}}, now)
	check(t, id, err, "alice", nil)
}

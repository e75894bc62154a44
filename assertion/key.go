// Package assertion signs what the gateway tells the app: JSON Web Tokens that live
// for a minute, by keys that the app can fetch. Whoever reaches the app around the
// gateway can make none.
//
// It knows neither Caddy nor Polar nor the store, and has no clock and no logger. No
// error holds key material.
package assertion

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
)

// ErrKey is wrapped by every refusal of an operator's key.
var ErrKey = errors.New("assertion key cannot be used")

// howTo makes a key that can be used.
const howTo = "make one with `openssl genpkey -algorithm ed25519 -out assertion.pem`"

// Key is a private key with its name.
type Key struct {
	private ed25519.PrivateKey
	id      string // RFC 7638: it follows from the key
	head    string // of its tokens, with the dot
}

// NewKey makes a key from its seed, of 32 bytes.
func NewKey(seed []byte) *Key { return newKey(ed25519.NewKeyFromSeed(seed)) }

func newKey(private ed25519.PrivateKey) *Key {
	k := &Key{private: private}
	sum := sha256.Sum256([]byte(`{"crv":"Ed25519","kty":"OKP","x":"` + k.public() + `"}`))
	k.id = encode(sum[:])
	k.head = encode([]byte(`{"alg":"EdDSA","kid":"`+k.id+`","typ":"JWT"}`)) + "."
	return k
}

// ID is the key's name, kid.
func (k *Key) ID() string { return k.id }

// public is the public half as JWK has it.
func (k *Key) public() string { return encode(k.private.Public().(ed25519.PublicKey)) }

// sign makes a token of claims.
func (k *Key) sign(claims []byte) string {
	token := append(make([]byte, 0, len(k.head)+2*len(claims)+96), k.head...)
	token = base64.RawURLEncoding.AppendEncode(token, claims)
	signature := ed25519.Sign(k.private, token)
	return string(base64.RawURLEncoding.AppendEncode(append(token, '.'), signature))
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// ParseKey reads a PEM text with an Ed25519 private key, as PKCS#8.
func ParseKey(text []byte) (*Key, error) {
	text = bytes.TrimSpace(text)
	block, rest := pem.Decode(text)
	switch {
	case block == nil || !bytes.HasPrefix(text, []byte("-----BEGIN ")) || len(bytes.TrimSpace(rest)) > 0:
		return nil, fmt.Errorf("%w: it must be one PEM block with nothing before or after it: %s", ErrKey, howTo)
	case block.Type == "PUBLIC KEY" || block.Type == "CERTIFICATE":
		return nil, fmt.Errorf("%w: it is the public half: give the private key, which signs", ErrKey)
	case block.Type == "ENCRYPTED PRIVATE KEY":
		return nil, fmt.Errorf("%w: it is encrypted: write it without a password with `openssl pkey`", ErrKey)
	case strings.HasSuffix(block.Type, " PRIVATE KEY"): // of another format, for one kind of key
		return nil, fmt.Errorf("%w: it is an %.40s and must be a PRIVATE KEY of Ed25519: %s", ErrKey, block.Type, howTo)
	case block.Type != "PRIVATE KEY":
		return nil, fmt.Errorf("%w: it is a %.40s and must be a PRIVATE KEY of Ed25519: %s", ErrKey, block.Type, howTo)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%w: it is damaged: export it again", ErrKey)
	}
	private, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%w: it is %s and must be Ed25519: %s", ErrKey, kindOf(parsed), howTo)
	}
	return newKey(private), nil
}

func kindOf(key crypto.PrivateKey) string {
	if _, ok := key.(*rsa.PrivateKey); ok {
		return "RSA"
	}
	return "of another kind"
}

// Keys are those that count at one moment.
type Keys struct {
	// Signing makes the tokens.
	Signing *Key
	// Published are all by which tokens can be verified.
	Published []*Key
}

// jwk is the public half of a key, as RFC 8037 has it.
type jwk struct {
	Type      string `json:"kty"`
	Curve     string `json:"crv"`
	X         string `json:"x"`
	ID        string `json:"kid"`
	Algorithm string `json:"alg"`
	Use       string `json:"use"`
}

// MarshalJSON tells the published keys as a JSON Web Key Set, and nothing private.
func (k Keys) MarshalJSON() ([]byte, error) {
	set := struct {
		Keys []jwk `json:"keys"`
	}{Keys: make([]jwk, len(k.Published))}
	for i, key := range k.Published {
		set.Keys[i] = jwk{"OKP", "Ed25519", key.public(), key.id, "EdDSA", "sig"}
	}
	return json.Marshal(set)
}

package jwks

import (
	"crypto"
	_ "crypto/sha256" // for thumbprints
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/go-jose/go-jose/v4"
	strict "github.com/go-jose/go-jose/v4/json"

	"github.com/caddy-polar/caddy-polar/identity"
)

const (
	maxKeys   = 100
	maxShown  = 64 // bytes of a key id in the log
	maxReason = 200
)

// Why a whole answer cannot be used.
var (
	errFormat = fmt.Errorf("%w: it is not a JSON Web Key Set", ErrUnusable)
	errEmpty  = fmt.Errorf("%w: it holds no key that can be used", ErrUnusable)
)

// Why a single key is left out.
var (
	errDamaged   = errors.New("it cannot be read, or is of an unknown type")
	errSymmetric = errors.New("it is symmetric: everybody who can read the set could sign with it")
	errPrivate   = errors.New("it is a private key: everybody who can read the set can sign with it, replace it")
	errUse       = errors.New("its use or key_ops is not to verify signatures")
	errTooMany   = fmt.Errorf("the set has more than %d keys", maxKeys)
)

// key is one that can be used.
type key struct {
	identity.Key
	jwk jose.JSONWebKey // its public half, to be written down
	// print tells keys apart that differ in any way that matters.
	print string
}

// document is a set as it was published.
type document struct {
	keys []key
	left []string // which keys were left out, and why
}

// parse reads a set. A key that cannot be used is left out; a set without any other
// is an error.
func parse(body []byte) (document, error) {
	var raw struct {
		Keys []json.RawMessage `json:"keys"`
	}
	// The standard library's decoder bounds how deep a document can be.
	if err := json.Unmarshal(body, &raw); err != nil {
		return document{}, errFormat
	}
	var doc document
	for i, text := range raw.Keys {
		if i == maxKeys {
			doc.leave("", errTooMany)
			break
		}
		k, kid, err := parseKey(text)
		switch {
		case err != nil:
			doc.leave(kid, err)
		case !slices.ContainsFunc(doc.keys, func(other key) bool { return other.print == k.print }):
			doc.keys = append(doc.keys, k)
		}
	}
	if len(doc.keys) == 0 {
		return doc, errEmpty
	}
	return doc, nil
}

func (d *document) leave(kid string, why error) {
	d.left = append(d.left, fmt.Sprintf("%q: %.*s", kid[:min(len(kid), maxShown)], maxReason, why))
}

// members are those of a JWK that we look at. Certificates are not: like those of a
// public_key they are only a wrapping.
type members struct {
	Kty string `json:"kty,omitempty"`
	Crv string `json:"crv,omitempty"`
	X   string `json:"x,omitempty"`
	Y   string `json:"y,omitempty"`
	N   string `json:"n,omitempty"`
	E   string `json:"e,omitempty"`

	Kid string   `json:"kid,omitempty"`
	Use string   `json:"use,omitempty"`
	Alg string   `json:"alg,omitempty"`
	Ops []string `json:"key_ops,omitempty"`

	// What only private and symmetric keys have.
	K  strict.RawMessage `json:"k,omitempty"`
	D  strict.RawMessage `json:"d,omitempty"`
	P  strict.RawMessage `json:"p,omitempty"`
	Q  strict.RawMessage `json:"q,omitempty"`
	DP strict.RawMessage `json:"dp,omitempty"`
	DQ strict.RawMessage `json:"dq,omitempty"`
	QI strict.RawMessage `json:"qi,omitempty"`
}

// parseKey reads one key, and its id for whoever tells that it was left out.
func parseKey(text []byte) (k key, kid string, err error) {
	var m members
	// go-jose's decoder knows no other spelling of a member, and no member twice.
	if err := strict.Unmarshal(text, &m); err != nil {
		return key{}, m.Kid, errDamaged
	}
	switch {
	case m.Kty == "oct" || m.K != nil:
		return key{}, m.Kid, errSymmetric
	case m.D != nil || m.P != nil || m.Q != nil || m.DP != nil || m.DQ != nil || m.QI != nil:
		return key{}, m.Kid, errPrivate
	case m.Use != "" && m.Use != "sig", m.Ops != nil && !slices.Contains(m.Ops, "verify"):
		return key{}, m.Kid, errUse
	}
	text, err = json.Marshal(members{Kty: m.Kty, Crv: m.Crv, X: m.X, Y: m.Y, N: m.N, E: m.E})
	if err != nil || k.jwk.UnmarshalJSON(text) != nil {
		return key{}, m.Kid, errDamaged
	}
	k.jwk.KeyID, k.jwk.Algorithm, k.jwk.Use = m.Kid, m.Alg, "sig"
	if m.Alg == "Ed25519" { // RFC 9864's name of what tokens call EdDSA
		k.jwk.Algorithm = "EdDSA"
	}
	if k.Key, err = identity.NewKey(k.jwk.Key, k.jwk.Algorithm); err != nil {
		return key{}, m.Kid, err
	}
	thumb, err := k.jwk.Thumbprint(crypto.SHA256)
	if err != nil {
		return key{}, m.Kid, errDamaged
	}
	k.print = string(thumb) + k.jwk.Algorithm + " " + m.Kid
	return k, m.Kid, nil
}

// record is a set as it is written down.
type record struct {
	Fetched time.Time         `json:"fetched"`
	Keys    []jose.JSONWebKey `json:"keys"`
}

func (s *snapshot) record() ([]byte, error) {
	r := record{Fetched: s.fetched}
	for _, k := range s.keys {
		r.Keys = append(r.Keys, k.jwk)
	}
	return json.Marshal(r)
}

// readRecord reads what record has written.
func readRecord(raw []byte) (document, time.Time, error) {
	var r struct {
		Fetched time.Time `json:"fetched"`
	}
	if err := json.Unmarshal(raw, &r); err != nil {
		return document{}, time.Time{}, errFormat
	}
	doc, err := parse(raw)
	return doc, r.Fetched, err
}

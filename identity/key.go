package identity

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// maxTried bounds how many keys are tried on one token. Key ids are usually distinct,
// so this is for sets without them, and for strangers who leave the key id out.
const maxTried = 8

// Key is a public key with the algorithms that it may verify.
type Key struct {
	public     crypto.PublicKey
	algorithms []string
}

// NewKey makes a Key of an RSA (2048 bits or more), ECDSA or Ed25519 key. A given
// algorithm narrows down what the key's type allows.
func NewKey(public crypto.PublicKey, algorithm string) (Key, error) {
	allowed, err := keyAlgorithms(public)
	if err != nil {
		return Key{}, err
	}
	if algorithm != "" {
		if allowed, err = chooseAlgorithms([]string{algorithm}, allowed); err != nil {
			return Key{}, err
		}
	}
	return Key{public, allowed}, nil
}

// Verifies says whether the key may verify any of some algorithms; none stands for all.
func (k Key) Verifies(algorithms []string) bool {
	return len(algorithms) == 0 ||
		slices.ContainsFunc(algorithms, func(a string) bool { return slices.Contains(k.algorithms, a) })
}

// KeySource knows public keys that change, such as those of a JWKS URL. It is safe
// for concurrent use.
type KeySource interface {
	// Keys returns the keys that may have signed a token, and their generation. kid is
	// the token's key id, empty if it has none. No keys means that none is known by
	// that id. The error is ErrUnavailable: what keys there are cannot be told. It may
	// wait for a moment, or until ctx is done, for what is not known yet.
	Keys(ctx context.Context, kid string, now time.Time) (keys []Key, generation uint64, err error)
	// Refresh fetches the keys, unless that has just been, and says whether they are
	// others now. It waits as Keys does.
	Refresh(ctx context.Context, now time.Time) bool
	// Generation changes when a key is taken away or replaced: tokens that were
	// verified in another one have to be verified again. It is false if the keys are
	// too old to be believed.
	Generation(now time.Time) (generation uint64, current bool)
}

// sourceAlgorithms are those that the keys of a KeySource can have.
var sourceAlgorithms = []string{
	"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
}

// keyAlgorithms returns the algorithms that a public key of this type may verify.
func keyAlgorithms(key crypto.PublicKey) ([]string, error) {
	switch key := key.(type) {
	case *rsa.PublicKey:
		if key.N.BitLen() < minRSABits {
			return nil, fmt.Errorf("%w: RSA keys need at least %d bits, make a longer one", ErrKey, minRSABits)
		}
		return []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}, nil
	case *ecdsa.PublicKey:
		switch key.Curve.Params().Name {
		case "P-256":
			return []string{"ES256"}, nil
		case "P-384":
			return []string{"ES384"}, nil
		case "P-521":
			return []string{"ES512"}, nil
		}
	case ed25519.PublicKey:
		return []string{"EdDSA"}, nil
	}
	return nil, fmt.Errorf("%w: public keys must be RSA, ECDSA on P-256, P-384 or P-521, or Ed25519", ErrKey)
}

// candidates asks the block's source for the keys that may have signed the token.
func (b *block) candidates(ctx context.Context, token *jwt.Token, claims jwt.MapClaims, now time.Time) (jwt.VerificationKeySet, uint64, error) {
	var tried jwt.VerificationKeySet
	// Nobody is to wait, and no key is to be fetched, for a token that would be refused
	// anyway, such as one of another block's issuer.
	if _, err := b.read(claims, now); err != nil && !errors.Is(err, ErrExpired) {
		return tried, 0, err
	}
	kid := ""
	if value, ok := token.Header["kid"]; ok {
		if kid, ok = value.(string); !ok {
			return tried, 0, errSignature
		}
	}
	keys, generation, err := b.source.Keys(ctx, kid, now)
	if err != nil {
		return tried, 0, ErrUnavailable
	}
	for _, key := range keys {
		// The key says what it may verify: the token only says which of that it wants.
		if slices.Contains(key.algorithms, token.Method.Alg()) && len(tried.Keys) < maxTried {
			tried.Keys = append(tried.Keys, key.public)
		}
	}
	if len(tried.Keys) == 0 {
		return tried, 0, errSignature
	}
	return tried, generation, nil
}

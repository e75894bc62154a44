package identity

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// Configuration mistakes that New reports, each wrapped in a sentence that says what to do.
var (
	// ErrKey means that a block has no key, two keys, or one that cannot be used.
	ErrKey = errors.New("jwt key cannot be used")
	// ErrPrivateKey means that a private key stands where a public key belongs.
	ErrPrivateKey = errors.New("public_key holds a private key")
	// ErrAlgorithm means that a block lists an algorithm that its key does not allow.
	ErrAlgorithm = errors.New("jwt algorithm is not allowed")
	// ErrTrust means that a block's list of issuers or audiences cannot be meant.
	ErrTrust = errors.New("issuers or audiences cannot be used")
	// ErrLeeway means that a block's leeway is negative or too large.
	ErrLeeway = errors.New("leeway is out of range")
	// ErrSource means that a token source is neither one header nor one cookie.
	ErrSource = errors.New("token source cannot be used")
	// ErrPrefix means that no user id could begin with the block's user_prefix.
	ErrPrefix = errors.New("user_prefix cannot be used")
	// ErrEditable means that a claim comes from where users write themselves.
	ErrEditable = errors.New("users can write this claim themselves")
	// ErrPayer means that customer_claim or manage_claim lacks what it needs.
	ErrPayer = errors.New("customer_claim or manage_claim cannot be used")
	// ErrPrefixNeeded means that users of one issuer could be named like those of another.
	ErrPrefixNeeded = errors.New("user_prefix is needed")
)

const (
	// DefaultLeeway is the clock skew allowed if a block does not say otherwise.
	DefaultLeeway = 30 * time.Second
	// MaxLeeway is the largest leeway a block may ask for.
	MaxLeeway = 5 * time.Minute

	// anyValue waives the check of issuers or audiences on purpose.
	anyValue = "any"

	minSecret  = 32
	minRSABits = 2048
)

// Block is one `jwt` block of the configuration, with its secrets resolved.
type Block struct {
	// Secret is the HMAC key, at least 32 bytes. Exactly one of Secret, PublicKey and
	// Keys is set.
	Secret []byte
	// PublicKey is a PEM text: PUBLIC KEY, RSA PUBLIC KEY or CERTIFICATE. RSA keys have
	// at least 2048 bits; ECDSA keys are on P-256, P-384 or P-521; Ed25519 works too.
	PublicKey []byte
	// Keys knows public keys that change. Issuers and Audiences must then be given.
	Keys KeySource
	// Algorithms narrows down what the key type allows. Default: all of that.
	Algorithms []string
	// Issuers are the accepted values of iss. Empty or the sole entry "any": not checked.
	Issuers []string
	// Audiences are the accepted values of aud. Empty or the sole entry "any": not checked.
	Audiences []string
	// Leeway is the clock skew allowed for exp and nbf, at most 5m. Nil: 30s.
	Leeway *time.Duration
	// Sources are the places that may hold a token, in order. Default: the Authorization header.
	Sources []Source
	// UserClaim is the path of the claim that names the user. Default: "sub".
	UserClaim string
	// UserPrefix is put before the user claim, and before the customer claim. It is needed
	// if blocks trust different issuers.
	UserPrefix string
	// CustomerClaims are the paths of the claims that name the paying party; the first that
	// a token has counts. Default: everyone pays for themselves.
	CustomerClaims []string
	// Manage says who may act for the paying party. Default: who pays for themselves.
	Manage Manage
	// EmailClaim is the path of the e-mail claim; the claim of that name with "_verified"
	// says whether it is verified. Default: "email".
	EmailClaim string
	// StripToken asks to keep the token from the upstream.
	StripToken bool
}

// block is a Block that has been checked, in the form that verification needs.
type block struct {
	key           any       // what the algorithms of parser expect
	source        KeySource // of the keys, in place of key; may be nil
	parser        *jwt.Parser
	issuers       []string // sorted; nil: not checked
	audiences     []string // sorted; nil: not checked
	leeway        time.Duration
	sources       []Source
	user          path
	prefix        string
	payer         payer
	email         path
	emailVerified path
	strip         bool
}

// compile checks the block and readies its key.
func (b Block) compile() (*block, error) {
	key, allowed, err := b.parseKey()
	if err != nil {
		return nil, err
	}
	algorithms, err := chooseAlgorithms(b.Algorithms, allowed)
	if err != nil {
		return nil, err
	}
	issuers, err := trusted("issuer", b.Issuers)
	if err != nil {
		return nil, err
	}
	audiences, err := trusted("audience", b.Audiences)
	if err != nil {
		return nil, err
	}
	leeway, err := chooseLeeway(b.Leeway)
	if err != nil {
		return nil, err
	}
	sources, err := chooseSources(b.Sources)
	if err != nil {
		return nil, err
	}
	if err := checkClaims(b.UserClaim, b.EmailClaim); err != nil {
		return nil, err
	}
	if b.UserPrefix != "" && !usable(b.UserPrefix, maxUser-1) {
		return nil, fmt.Errorf("%w: keep it under %d bytes of valid UTF-8 without control characters", ErrPrefix, maxUser)
	}
	payer, err := newPayer(b.CustomerClaims, b.Manage)
	if err != nil {
		return nil, err
	}
	email := orDefault(b.EmailClaim, "email")
	return &block{
		key:           key,
		source:        b.Keys,
		parser:        newParser(algorithms),
		issuers:       issuers,
		audiences:     audiences,
		leeway:        leeway,
		sources:       sources,
		user:          newPath(orDefault(b.UserClaim, "sub")),
		prefix:        b.UserPrefix,
		payer:         payer,
		email:         newPath(email),
		emailVerified: newPath(email + "_verified"),
		strip:         b.StripToken,
	}, nil
}

// checkClaims refuses claims out of what sign-in services let users write: Supabase's
// and Auth0's user_metadata, Clerk's unsafe_metadata. Anybody could be anybody.
func checkClaims(claims ...string) error {
	for _, claim := range claims {
		for _, part := range strings.Split(claim, ".") {
			if part == "user_metadata" || part == "unsafe_metadata" {
				return fmt.Errorf("%w: %s: take one that only the issuer sets, such as sub, or app_metadata", ErrEditable, claim)
			}
		}
	}
	return nil
}

// newParser makes a parser that verifies signatures and leaves the claims to us: the
// library reads the wall clock and takes a single issuer. The algorithms come from
// the key, so what a token says of itself never chooses how the key is used.
func newParser(algorithms []string) *jwt.Parser {
	return jwt.NewParser(
		jwt.WithValidMethods(algorithms),
		jwt.WithJSONNumber(),
		jwt.WithStrictDecoding(),
		jwt.WithoutClaimsValidation(),
	)
}

// parseKey returns the block's key, if it does not change, and the algorithms that
// its type allows.
func (b Block) parseKey() (key any, allowed []string, err error) {
	given := 0
	for _, is := range []bool{len(b.Secret) > 0, len(b.PublicKey) > 0, b.Keys != nil} {
		if is {
			given++
		}
	}
	switch {
	case given > 1:
		return nil, nil, fmt.Errorf("%w: give either secret or public_key or jwks, and a second jwt block for the other", ErrKey)
	case len(b.Secret) > 0:
		return parseSecret(b.Secret)
	case len(b.PublicKey) > 0:
		return parsePublicKey(b.PublicKey)
	case b.Keys != nil:
		// Who publishes keys may sign for many apps and many tenants with them.
		if len(b.Issuers) == 0 || len(b.Audiences) == 0 {
			return nil, nil, fmt.Errorf("%w: jwks needs both: jwt { jwks <url> issuer <iss> audience <aud> }, each on a line of its own; any waives one on purpose, as in audience any", ErrTrust)
		}
		return nil, sourceAlgorithms, nil
	default:
		return nil, nil, fmt.Errorf("%w: give a secret or a public_key or a jwks that is not empty", ErrKey)
	}
}

func parseSecret(secret []byte) (any, []string, error) {
	// A public key is no secret: everyone who has it could sign tokens with it.
	if bytes.Contains(secret, []byte("-----BEGIN ")) {
		return nil, nil, fmt.Errorf("%w: secret is a PEM text, give a public key as public_key", ErrKey)
	}
	if len(secret) < minSecret {
		return nil, nil, fmt.Errorf("%w: secret is too short, use at least %d random bytes", ErrKey, minSecret)
	}
	return slices.Clone(secret), []string{"HS256", "HS384", "HS512"}, nil
}

func parsePublicKey(text []byte) (any, []string, error) {
	if bytes.Contains(text, []byte("PRIVATE KEY-----")) {
		return nil, nil, fmt.Errorf("%w: give the public key alone and keep the private one with the issuer", ErrPrivateKey)
	}
	text = bytes.TrimSpace(text)
	der, rest := pem.Decode(text)
	if der == nil || !bytes.HasPrefix(text, []byte("-----BEGIN ")) || len(bytes.TrimSpace(rest)) > 0 {
		return nil, nil, fmt.Errorf("%w: public_key must be one PEM block with nothing before or after it", ErrKey)
	}
	key, err := parseDER(der)
	if err != nil {
		return nil, nil, err
	}
	allowed, err := keyAlgorithms(key)
	if err != nil {
		return nil, nil, err
	}
	return key, allowed, nil
}

func parseDER(der *pem.Block) (key any, err error) {
	switch der.Type {
	case "PUBLIC KEY":
		key, err = x509.ParsePKIXPublicKey(der.Bytes)
	case "RSA PUBLIC KEY":
		key, err = x509.ParsePKCS1PublicKey(der.Bytes)
	case "CERTIFICATE":
		// The certificate is only a wrapping of the key: its dates and its issuer
		// say nothing of the tokens.
		var cert *x509.Certificate
		if cert, err = x509.ParseCertificate(der.Bytes); err == nil {
			key = cert.PublicKey
		}
	default:
		return nil, fmt.Errorf("%w: public_key must be a PUBLIC KEY, RSA PUBLIC KEY or CERTIFICATE", ErrKey)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: public_key is damaged, export it again: %w", ErrKey, err)
	}
	return key, nil
}

func chooseAlgorithms(wanted, allowed []string) ([]string, error) {
	if len(wanted) == 0 {
		return allowed, nil
	}
	for _, alg := range wanted {
		if strings.EqualFold(alg, "none") {
			return nil, fmt.Errorf("%w: none would accept tokens that nobody signed, remove it", ErrAlgorithm)
		}
		if !slices.Contains(allowed, alg) {
			return nil, fmt.Errorf("%w: %q does not fit the key, which allows %s", ErrAlgorithm, alg, strings.Join(allowed, ", "))
		}
	}
	return slices.Clone(wanted), nil
}

// trusted returns a list of issuers or audiences as a sorted set, nil if nothing is to be checked.
func trusted(what string, values []string) ([]string, error) {
	if len(values) == 0 || len(values) == 1 && values[0] == anyValue {
		return nil, nil
	}
	if slices.Contains(values, anyValue) {
		return nil, fmt.Errorf("%w: %s any waives the check, so it must stand alone", ErrTrust, what)
	}
	if slices.Contains(values, "") {
		return nil, fmt.Errorf("%w: an %s is empty, fill it in or write any", ErrTrust, what)
	}
	return slices.Compact(slices.Sorted(slices.Values(values))), nil
}

func chooseLeeway(leeway *time.Duration) (time.Duration, error) {
	if leeway == nil {
		return DefaultLeeway, nil
	}
	if *leeway < 0 || *leeway > MaxLeeway {
		return 0, fmt.Errorf("%w: choose from 0 to %v", ErrLeeway, MaxLeeway)
	}
	return *leeway, nil
}

func chooseSources(sources []Source) ([]Source, error) {
	if len(sources) == 0 {
		return []Source{{Header: authorization}}, nil
	}
	var chosen []Source
	for _, s := range sources {
		s, err := s.normalize()
		if err != nil {
			return nil, err
		}
		if !slices.Contains(chosen, s) {
			chosen = append(chosen, s)
		}
	}
	return chosen, nil
}

// checkPrefixes makes sure that no issuer can name its users like those of another.
// Where issuers are not checked, those of one source of keys count as one.
// Prefixes that begin with one another are not enough: "a" with user "b1" is "ab"
// with user "1".
func checkPrefixes(blocks []*block) error {
	for i, a := range blocks {
		for j, b := range blocks[:i] {
			if slices.Equal(a.issuers, b.issuers) && (a.issuers != nil || a.source == b.source) {
				continue
			}
			// An empty prefix is a prefix of everything.
			if strings.HasPrefix(a.prefix, b.prefix) || strings.HasPrefix(b.prefix, a.prefix) {
				return fmt.Errorf("%w: jwt blocks %d and %d trust different issuers, give both a user_prefix and let neither begin with the other", ErrPrefixNeeded, j+1, i+1)
			}
		}
	}
	return nil
}

// verify checks the token's signature with the block's keys and reads its claims. A
// key can be replaced under its own id, or have none: when none of those that are
// known fits, they are fetched once more.
func (b *block) verify(ctx context.Context, token string, now time.Time) (verified, error) {
	v, tried, err := b.verifyOnce(ctx, token, now)
	if tried && errors.Is(err, errSignature) && b.source.Refresh(ctx, now) {
		v, _, err = b.verifyOnce(ctx, token, now)
	}
	return v, err
}

// verifyOnce also says whether a source was asked for its keys.
func (b *block) verifyOnce(ctx context.Context, token string, now time.Time) (_ verified, tried bool, _ error) {
	claims := jwt.MapClaims{}
	v, failure := verified{source: b.source}, errSignature
	parsed, err := b.parser.ParseWithClaims(token, claims, func(t *jwt.Token) (any, error) {
		if b.source == nil {
			return b.key, nil
		}
		var keys jwt.VerificationKeySet
		var err error
		if keys, v.generation, err = b.candidates(ctx, t, claims, now); err != nil {
			failure = err
		}
		tried = err == nil || errors.Is(err, errSignature)
		return keys, err
	})
	if err != nil {
		// The library's errors can quote the token, so they end here.
		return verified{}, tried, failure
	}
	// RFC 7515 4.1.11: who does not understand a critical header must refuse the token.
	if _, critical := parsed.Header["crit"]; critical {
		return verified{}, tried, errCritical
	}
	v.Identity, err = b.read(claims, now)
	return v, tried, err
}

func orDefault(value, fallback string) string {
	if value == "" {
		return fallback
	}
	return value
}

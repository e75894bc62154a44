// Package identity says who asks: it finds the token of a request, verifies it
// and reads the user from its claims.
//
// It knows neither Caddy nor Polar, has no clock and no logger, and no error it
// returns holds key material or any part of a token. Keys that change it is given
// as a KeySource; package jwks has one.
package identity

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// What Identify refuses with. They exclude one another.
var (
	// ErrMissing means that no source holds a token: the request is anonymous.
	ErrMissing = errors.New("token is missing")
	// ErrInvalid means that the request holds a token that no block accepts.
	ErrInvalid = errors.New("token is invalid")
	// ErrExpired means that the token was good and only its time is over.
	ErrExpired = errors.New("token has expired: sign in again")
	// ErrUnavailable means that nobody can tell whether the credential is good: where
	// that is known cannot be reached. It says nothing about the client.
	ErrUnavailable = errors.New("who asks cannot be found out now")
)

// The reasons behind ErrInvalid. They are made once and say nothing of what the
// client sent, so they are free of cost and safe to log.
var (
	errTooLong   = fmt.Errorf("%w: it is longer than 16 KiB", ErrInvalid)
	errMalformed = fmt.Errorf("%w: it is not three base64url segments", ErrInvalid)
	errAmbiguous = fmt.Errorf("%w: its source holds two values, send one", ErrInvalid)
	errSignature = fmt.Errorf("%w: no jwt block has an algorithm and a key that verify it", ErrInvalid)
	errCritical  = fmt.Errorf("%w: its crit header asks for an extension that is not supported", ErrInvalid)
	errIssuer    = fmt.Errorf("%w: its iss claim is not an issuer of the jwt block", ErrInvalid)
	errAudience  = fmt.Errorf("%w: its aud claim names no audience of the jwt block", ErrInvalid)
	errExpiry    = fmt.Errorf("%w: its exp claim is missing or not a time in seconds", ErrInvalid)
	errNotBefore = fmt.Errorf("%w: its nbf claim is in the future or not a time in seconds", ErrInvalid)
	errUser      = fmt.Errorf("%w: its user claim is not a usable string or integer", ErrInvalid)
)

// ErrCustomer is ErrInvalid where the paying party has a name that cannot be used.
var ErrCustomer = fmt.Errorf("%w: its customer claim is not a usable string or integer", ErrInvalid)

// maxToken bounds what a stranger can make us parse.
const maxToken = 16 << 10

// Identity is who a verified token speaks for.
type Identity struct {
	// User is the block's prefix followed by the user claim.
	User string
	// Customer is the paying party: that of the customer claim, with the block's prefix, or
	// else the user. Empty if the block has such a claim and the token names none.
	Customer string
	// Manages says that the user may act for the paying party: buy, change, cancel.
	Manages bool
	// Email is the e-mail claim; empty if the token has none that can be used.
	Email string
	// EmailVerified is true only if the token says so with the JSON value true.
	EmailVerified bool
	// Expires is the token's exp.
	Expires time.Time
	// Source is where the token was found.
	Source Source
	// StripToken says that the token is to be kept from the upstream; see Source.Strip.
	StripToken bool
	// Note is for whoever uses the identity. Nil if it is not remembered.
	Note *Note
}

// Verifier identifies requests. It is safe for concurrent use.
type Verifier struct {
	sources []lookup
}

// lookup is a source with the blocks that accept tokens from it, and what it
// remembers of them: other blocks, with other users, may read another source.
type lookup struct {
	source Source
	blocks []*block
	memory *memory
}

// New checks the blocks and makes a Verifier of them. It touches neither disk nor
// network. A mistake is reported as one of the package's configuration errors.
func New(blocks []Block) (*Verifier, error) {
	return newVerifier(blocks, maxMemory)
}

func newVerifier(blocks []Block, memoryWeight uint64) (*Verifier, error) {
	if len(blocks) == 0 {
		return nil, fmt.Errorf("%w: give at least one jwt block", ErrKey)
	}
	compiled := make([]*block, len(blocks))
	for i, b := range blocks {
		var err error
		if compiled[i], err = b.compile(); err != nil {
			return nil, fmt.Errorf("jwt block %d: %w", i+1, err)
		}
	}
	if err := checkPrefixes(compiled); err != nil {
		return nil, err
	}
	v := &Verifier{sources: lookups(compiled)}
	for i := range v.sources {
		var err error
		if v.sources[i].memory, err = newMemory(memoryWeight / uint64(len(v.sources))); err != nil {
			return nil, err
		}
	}
	return v, nil
}

// lookups turns blocks with sources into sources with blocks; both keep their order.
func lookups(blocks []*block) []lookup {
	var found []lookup
	for _, b := range blocks {
		for _, s := range b.sources {
			i := slices.IndexFunc(found, func(l lookup) bool { return l.source == s })
			if i < 0 {
				i = len(found)
				found = append(found, lookup{source: s})
			}
			found[i].blocks = append(found[i].blocks, b)
		}
	}
	return found
}

// Identify finds the request's token and verifies it as of now. The first source
// that holds a token decides, also if that token is bad: a client must not become
// someone else because one of its credentials ran out.
//
// The error is ErrMissing, ErrInvalid, ErrExpired or ErrUnavailable, to be tested with
// errors.Is. The context ends a wait for keys, if there is any. The identity is shared
// by all who show the token: do not change it. With an error it is nobody's.
func (v *Verifier) Identify(ctx context.Context, h http.Header, now time.Time) (*Identity, error) {
	for i := range v.sources {
		token, err := v.sources[i].source.find(h)
		if err != nil {
			return &nobody, err
		}
		if token != "" {
			return v.sources[i].identify(ctx, token, now)
		}
	}
	return &nobody, ErrMissing
}

// nobody is whom no token speaks for.
var nobody Identity

// identify answers for a token of the source, from memory if possible.
func (l *lookup) identify(ctx context.Context, token string, now time.Time) (*Identity, error) {
	if len(token) > maxToken {
		return &nobody, errTooLong
	}
	if id := l.memory.recall(token, now); id != nil {
		return id, nil
	}
	good, err := l.verify(ctx, token, now)
	if err != nil {
		return &nobody, err
	}
	l.memory.remember(token, &good, now)
	return &good.Identity, nil
}

// verify tries the token with every block of the source; the first success wins.
// Of several failures it reports the one that tells most.
func (l *lookup) verify(ctx context.Context, token string, now time.Time) (verified, error) {
	if !wellFormed(token) {
		return verified{}, errMalformed
	}
	failure := errSignature
	for _, b := range l.blocks {
		good, err := b.verify(ctx, token, now)
		if err == nil {
			good.Source = l.source
			return good, nil
		}
		if tells(err) > tells(failure) {
			failure = err
		}
	}
	return verified{}, failure
}

// tells ranks failures: an expiry before anything else, as all else was well with
// that token; then that nobody can tell; and a bad claim before a key that does not
// match.
func tells(failure error) int {
	switch {
	case errors.Is(failure, ErrExpired):
		return 3
	case errors.Is(failure, ErrUnavailable):
		return 2
	case errors.Is(failure, errSignature):
		return 0
	}
	return 1
}

// wellFormed reports whether token is three non-empty segments of the base64url
// alphabet. Go's decoder skips line breaks, so without this check one token could
// be written in many ways, each remembered on its own.
func wellFormed(token string) bool {
	dots := 0
	for i := range len(token) {
		c := token[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
		case c == '.':
			dots++
		default:
			return false
		}
	}
	return dots == 2 && token[0] != '.' && token[len(token)-1] != '.' && !strings.Contains(token, "..")
}

// Sources returns the distinct places that are searched for a token, in order. An
// answer that depends on the user varies with the headers they stand in.
func (v *Verifier) Sources() []Source {
	sources := make([]Source, len(v.sources))
	for i, l := range v.sources {
		sources[i] = l.source
	}
	return sources
}

// Close forgets all tokens and stops what keeps them in order. A request that is
// still under way may go on using the Verifier.
func (v *Verifier) Close() {
	for i := range v.sources {
		v.sources[i].memory.close()
	}
}

package assertion

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/maypok86/otter/v2"
)

const (
	// lifetime is how long a token lives, unless what it says ends before.
	lifetime = 60 // seconds
	// reuse is for how long it is told again: whoever gets it has as long again.
	reuse = 30 // seconds

	// maxMemory bounds the memory of tokens, in bytes: some 20,000 of usual size, of
	// which each is needed for half a minute.
	maxMemory = 32 << 20
	// entryOverhead is about what one takes beside its strings.
	entryOverhead = 512
)

// Claims are what a token says of one request's user. Equal ones share a token.
type Claims struct {
	User             string
	ExternalCustomer string
	Customer         string
	Plan             string // behind a gate
	Plans            string // comma separated
	Status           string
	Reason           string
	Until            string // RFC 3339
}

// Signer signs claims, and remembers for a moment what it has signed: a signature takes
// twenty times as long as all else that is done for a request.
type Signer struct {
	issuer, audience, gateway string
	// keys are those of a moment. It waits for nothing, if it can be helped.
	keys   func(now time.Time) (Keys, error)
	memory *otter.Cache[Claims, *signed]
}

// signed is a token, and its life in Unix seconds.
type signed struct {
	token     string
	at, until int64
}

// NewSigner makes a signer of tokens for an audience. Close it.
func NewSigner(issuer, audience, gateway string, keys func(now time.Time) (Keys, error)) (*Signer, error) {
	memory, err := otter.New(&otter.Options[Claims, *signed]{
		MaximumWeight: maxMemory,
		Weigher: func(c Claims, s *signed) uint32 {
			return uint32(entryOverhead + len(s.token) + len(c.User) + len(c.ExternalCustomer) + len(c.Plans))
		},
	})
	if err != nil {
		return nil, fmt.Errorf("make the memory of assertions: %w", err)
	}
	return &Signer{issuer, audience, gateway, keys, memory}, nil
}

// Close forgets all tokens.
func (s *Signer) Close() {
	s.memory.InvalidateAll()
	s.memory.StopAllGoroutines()
}

// Keys are those by which tokens can be verified now.
func (s *Signer) Keys(now time.Time) (Keys, error) { return s.keys(now) }

// Sign returns a token that says the claims. It lives for a minute, and no longer than
// what it says: until ends, which is zero if that has no end. By wall clocks: so go those
// of the app.
func (s *Signer) Sign(c *Claims, ends, now time.Time) (string, error) {
	at, last := now.Unix(), int64(0)
	if last = at + lifetime; !ends.IsZero() {
		last = min(last, ends.Unix())
	}
	if held, ok := s.memory.GetIfPresent(*c); ok && held.at <= at && at < held.at+reuse && held.until <= last {
		return held.token, nil
	}
	keys, err := s.keys(now)
	if err != nil {
		return "", err
	}
	text, err := json.Marshal(s.payload(c, at, last))
	if err != nil {
		return "", err
	}
	fresh := &signed{keys.Signing.sign(text), at, last}
	s.memory.Set(*c, fresh)
	return fresh.token, nil
}

// payload is a token's.
type payload struct {
	Issuer           string   `json:"iss"`
	Audience         string   `json:"aud"`
	Subject          string   `json:"sub"`
	IssuedAt         int64    `json:"iat"`
	Expires          int64    `json:"exp"`
	Gateway          string   `json:"gateway"`
	Plan             string   `json:"plan,omitempty"`
	Plans            []string `json:"plans"`
	Status           string   `json:"status,omitempty"`
	Reason           string   `json:"reason,omitempty"`
	Until            string   `json:"until,omitempty"`
	Customer         string   `json:"customer,omitempty"`
	ExternalCustomer string   `json:"external_customer,omitempty"`
}

func (s *Signer) payload(c *Claims, at, last int64) payload {
	plans := []string{}
	if c.Plans != "" {
		plans = strings.Split(c.Plans, ",")
	}
	return payload{
		s.issuer, s.audience, c.User, at, last, s.gateway,
		c.Plan, plans, c.Status, c.Reason, c.Until, c.Customer, c.ExternalCustomer,
	}
}

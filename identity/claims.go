package identity

import (
	"encoding/json"
	"math"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

const (
	// maxUser bounds a user id, its prefix included: it becomes a key and a header.
	maxUser = 255
	// maxEmail is the longest address that SMTP can carry: 64 @ 255.
	maxEmail = 320
	// maxSeconds is the end of the year 9999. A token that lives longer has an exp in
	// milliseconds, and would never expire if it were believed.
	maxSeconds = 253402300799
)

// path leads to a claim.
type path struct {
	name  string
	steps []string
}

func newPath(name string) path {
	return path{name: name, steps: strings.Split(name, ".")}
}

// in returns the claim at the path. A claim of that very name comes first, since
// namespaced claims such as https://example.com/id have dots of their own; otherwise
// the dots reach into objects.
func (p path) in(claims map[string]any) (any, bool) {
	if value, ok := claims[p.name]; ok {
		return value, true
	}
	last := len(p.steps) - 1
	for _, step := range p.steps[:last] {
		object, ok := claims[step].(map[string]any)
		if !ok {
			return nil, false
		}
		claims = object
	}
	value, ok := claims[p.steps[last]]
	return value, ok
}

// read turns the claims of a token with a good signature into an identity. The
// expiry is looked at last, so that ErrExpired means that all else was well.
func (b *block) read(claims map[string]any, now time.Time) (Identity, error) {
	if b.issuers != nil && !names(b.issuers, claims["iss"]) {
		return Identity{}, errIssuer
	}
	if b.audiences != nil && !namesAny(b.audiences, claims["aud"]) {
		return Identity{}, errAudience
	}
	if nbf, ok := claims["nbf"]; ok {
		from, ok := seconds(nbf)
		if !ok || now.Before(from.Add(-b.leeway)) {
			return Identity{}, errNotBefore
		}
	}
	expires, ok := seconds(claims["exp"])
	if !ok {
		return Identity{}, errExpiry
	}
	id := Identity{Expires: expires, StripToken: b.strip}
	if err := b.readNames(claims, &id); err != nil {
		return Identity{}, err
	}
	if !now.Before(expires.Add(b.leeway)) {
		return Identity{}, ErrExpired
	}
	id.Email, id.EmailVerified = b.readEmail(claims)
	return id, nil
}

// readNames reads who asks, who pays for them, and whether they may act for who pays.
func (b *block) readNames(claims map[string]any, id *Identity) error {
	value, _ := b.user.in(claims)
	user, ok := b.readID(value)
	if !ok {
		return errUser
	}
	id.User, id.Customer = user, user
	if value, named := b.payer.in(claims); named {
		id.Customer = ""
		if value != nil {
			name, _ := value.(string)
			if id.Customer, ok = b.readID(value); !ok || strings.TrimSpace(name) != name {
				return ErrCustomer // with blanks around it, it is some other name by mistake
			}
		}
	}
	id.Manages = b.payer.managedBy(id, claims)
	return nil
}

// readID returns an id with its prefix.
func (b *block) readID(value any) (string, bool) {
	var name string
	switch value := value.(type) {
	case string:
		name = value
	case json.Number:
		// 1e3 and 1000.0 are integers too, but two spellings of one user would be two users.
		if strings.ContainsAny(value.String(), ".eE") {
			return "", false
		}
		name = value.String()
	}
	if name == "" {
		return "", false
	}
	id := b.prefix + name
	return id, usable(id, maxUser)
}

// readEmail returns the e-mail claim and whether it is verified. An address is only
// a help, so one that cannot be used is left out and does not spoil the token.
func (b *block) readEmail(claims map[string]any) (email string, verified bool) {
	value, _ := b.email.in(claims)
	email, _ = value.(string)
	if email == "" || !usable(email, maxEmail) {
		return "", false
	}
	flag, _ := b.emailVerified.in(claims)
	verified, _ = flag.(bool)
	return email, verified
}

// usable reports whether s is short and clean enough to name someone. U+FFFD is
// refused because the JSON decoder puts it in place of whatever is not UTF-8: users
// that differ only there would become one.
func usable(s string, limit int) bool {
	return len(s) <= limit && utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool {
		return unicode.IsControl(r) || r == utf8.RuneError
	})
}

// names reports whether the claim is a string of the sorted set.
func names(set []string, claim any) bool {
	value, ok := claim.(string)
	if !ok {
		return false
	}
	_, found := slices.BinarySearch(set, value)
	return found
}

// namesAny reports whether the claim is a string of the set, or an array of strings
// of which one is.
func namesAny(set []string, claim any) bool {
	values, ok := claim.([]any)
	if !ok {
		return names(set, claim)
	}
	found := false
	for _, value := range values {
		if _, ok := value.(string); !ok {
			return false
		}
		found = found || names(set, value)
	}
	return found
}

// seconds reads a NumericDate of RFC 7519: seconds since 1970, perhaps with a fraction.
func seconds(claim any) (time.Time, bool) {
	number, ok := claim.(json.Number)
	if !ok {
		return time.Time{}, false
	}
	f, err := number.Float64()
	if err != nil || f < 0 || f > maxSeconds {
		return time.Time{}, false
	}
	whole, fraction := math.Modf(f)
	return time.Unix(int64(whole), int64(fraction*1e9)), true
}

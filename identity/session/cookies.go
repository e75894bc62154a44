package session

import (
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"hash"
	"strings"

	"github.com/caddy-polar/caddy-polar/identity"
)

const (
	// maxCookies and maxCookieBytes bound what a stranger can make us ask with.
	maxCookies     = 32
	maxCookieBytes = 16 << 10
)

// They are made once and say nothing of what the client sent.
var (
	errAmbiguous = fmt.Errorf("%w: two of its session cookies have one name and two values", identity.ErrInvalid)
	errTooLong   = fmt.Errorf("%w: its session cookies are more than %d or longer than 16 KiB", identity.ErrInvalid, maxCookies)
)

// pattern is the name of a cookie, or how the names of some begin.
type pattern struct {
	name   string
	prefix bool
}

func patterns(names []string) ([]pattern, error) {
	if len(names) == 0 {
		return nil, fmt.Errorf("%w: name the cookies to ask with, like better-auth.session_token", ErrConfig)
	}
	var all []pattern
	for _, name := range names {
		stem, prefix := strings.CutSuffix(name, "*")
		if stem == "" || strings.ContainsFunc(stem, func(r rune) bool {
			return r <= ' ' || r >= 0x7f || strings.ContainsRune("\"(),/:;<=>?@[\\]{}*", r)
		}) {
			return nil, fmt.Errorf("%w: %q is no name of a cookie, nor the beginning of one before a *", ErrConfig, name)
		}
		all = append(all, pattern{stem, prefix})
	}
	return all, nil
}

func (p pattern) matches(name string) bool {
	return name == p.name || p.prefix && strings.HasPrefix(name, p.name)
}

// digest stands for a question, in place of the cookies that are in it.
type digest [sha256.Size]byte

// question is all that the app is asked with.
type question struct{ cookies, scheme, host string }

// digester picks a request's cookies and makes the digest of the question. It is
// used again for other requests.
type digester struct {
	mac     hash.Hash
	buf     []byte // what is asked: scheme, host, cookies
	cookies int    // where they begin in buf
	out     digest
}

func newDigester(key []byte) *digester { return &digester{mac: hmac.New(sha256.New, key)} }

// read picks the cookies. The error is ErrMissing or ErrInvalid.
func (d *digester) read(names []pattern, r *Request) error {
	// Neither of the two can hold a line break, nor can a cookie.
	d.buf = append(append(append(append(d.buf[:0], r.Scheme...), '\n'), r.Host...), '\n')
	d.cookies = len(d.buf)
	var space [maxCookies]string
	picked := space[:0]
	for _, line := range r.Header["Cookie"] {
		for line != "" {
			var pair string
			pair, line, _ = strings.Cut(line, ";")
			pair = strings.Trim(pair, " \t")
			name, value, _ := strings.Cut(pair, "=")
			name = strings.TrimRight(name, " \t")
			if strings.Trim(value, " \t\"") == "" || !matchesAny(names, name) {
				continue
			}
			// A sibling domain can set a cookie of the same name, and the endpoint and
			// the app could each believe another one.
			for _, other := range picked {
				if theirs, _, _ := strings.Cut(other, "="); strings.TrimRight(theirs, " \t") == name && other != pair {
					return errAmbiguous
				}
			}
			if len(picked) == maxCookies || len(d.buf)-d.cookies+len(pair) > maxCookieBytes {
				return errTooLong
			}
			if len(picked) > 0 {
				d.buf = append(d.buf, "; "...)
			}
			picked = append(picked, pair)
			d.buf = append(d.buf, pair...)
		}
	}
	if len(picked) == 0 {
		return identity.ErrMissing
	}
	return nil
}

func matchesAny(names []pattern, name string) bool {
	for i := range names {
		if names[i].matches(name) {
			return true
		}
	}
	return false
}

// sum is the digest of what was read. It is keyed, so that who sees the memory
// cannot try out cookies.
func (d *digester) sum() digest {
	d.mac.Reset()
	_, _ = d.mac.Write(d.buf)
	d.mac.Sum(d.out[:0])
	return d.out
}

// question is what was read, for asking.
func (d *digester) question(r *Request) question {
	return question{cookies: string(d.buf[d.cookies:]), scheme: r.Scheme, host: r.Host}
}

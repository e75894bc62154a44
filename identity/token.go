package identity

import (
	"fmt"
	"net/http"
	"net/textproto"
	"strings"
)

const authorization = "Authorization"

// Source is a place in a request that may hold a token: a header or a cookie.
// Exactly one of the two is set.
type Source struct {
	// Header is the name of a header. Authorization holds the token after the scheme
	// Bearer, any other header holds the bare token.
	Header string
	// Cookie is the name of a cookie that holds the bare token.
	Cookie string
}

// normalize checks the source and returns it with its header name canonicalized.
func (s Source) normalize() (Source, error) {
	if (s.Header == "") == (s.Cookie == "") {
		return s, fmt.Errorf("%w: name one header or one cookie", ErrSource)
	}
	if !isName(s.Header + s.Cookie) {
		return s, fmt.Errorf("%w: names are letters, digits and dashes", ErrSource)
	}
	s.Header = textproto.CanonicalMIMEHeaderKey(s.Header)
	if s.Header == "Cookie" {
		return s, fmt.Errorf("%w: name the cookie instead of the Cookie header", ErrSource)
	}
	return s, nil
}

// isName reports whether s is a token of RFC 9110, as header and cookie names are.
func isName(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || strings.ContainsRune("\"(),/:;<=>?@[\\]{}", r)
	})
}

// find returns the token that the source holds, "" if it holds none.
func (s Source) find(h http.Header) (string, error) {
	if s.Cookie != "" {
		return findCookie(h["Cookie"], s.Cookie)
	}
	values := h[s.Header]
	switch {
	case len(values) == 0:
		return "", nil
	case len(values) > 1:
		// We and the upstream could each believe another one.
		return "", errAmbiguous
	case s.Header == authorization:
		return bearer(values[0]), nil
	default:
		return strings.Trim(values[0], " \t"), nil
	}
}

// bearer returns the token of a Bearer credential. Another scheme speaks to someone
// else, such as basic authentication before the upstream; and "Bearer" with nothing
// after it is what a script sends whose variable is empty. Both are no token, so
// that the next source gets its turn.
func bearer(credential string) string {
	const scheme = "Bearer"
	credential = strings.Trim(credential, " \t")
	if len(credential) <= len(scheme) || !strings.EqualFold(credential[:len(scheme)], scheme) {
		return ""
	}
	token := strings.TrimLeft(credential[len(scheme):], " \t")
	if len(token) == len(credential)-len(scheme) {
		return "" // no space after the letters: a scheme of another name
	}
	return token
}

// findCookie returns the value of the named cookie. It reads the header in place,
// because http.Request.Cookie allocates for every cookie of the request. Values that
// differ are refused: a sibling domain can set a cookie of the same name, and we and
// the upstream could each believe another one.
func findCookie(headers []string, name string) (string, error) {
	token, seen := "", false
	for _, header := range headers {
		for header != "" {
			var pair string
			pair, header, _ = strings.Cut(header, ";")
			key, value := cutCookie(pair)
			if key != name {
				continue
			}
			if seen && value != token {
				return "", errAmbiguous
			}
			token, seen = value, true
		}
	}
	return token, nil
}

// cutCookie splits one name=value pair; like net/http it takes the quotes off a value.
func cutCookie(pair string) (name, value string) {
	name, value, _ = strings.Cut(strings.Trim(pair, " \t"), "=")
	if len(value) > 1 && value[0] == '"' && value[len(value)-1] == '"' {
		value = value[1 : len(value)-1]
	}
	return strings.Trim(name, " \t"), value
}

// Strip removes the token from the headers: the whole header, or all cookies of the
// source's name. Other cookies stay as they are.
func (s Source) Strip(h http.Header) {
	if s.Cookie == "" {
		h.Del(s.Header)
		return
	}
	// The slice is made anew: the old one may be shared with a copy of the request.
	var kept []string
	for _, header := range h["Cookie"] {
		if rest, left := stripCookie(header, s.Cookie); left {
			kept = append(kept, rest)
		}
	}
	if len(kept) == 0 {
		delete(h, "Cookie")
		return
	}
	h["Cookie"] = kept
}

// stripCookie returns header without the named cookie, and whether anything is left.
func stripCookie(header, name string) (rest string, left bool) {
	pairs := strings.Split(header, ";")
	kept := make([]string, 0, len(pairs))
	for _, pair := range pairs {
		if key, _ := cutCookie(pair); key != name {
			kept = append(kept, pair)
		}
	}
	if len(kept) == len(pairs) {
		return header, true
	}
	rest = strings.TrimLeft(strings.Join(kept, ";"), " \t")
	return rest, rest != ""
}

package caddypolar

import (
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/caddy-polar/caddy-polar/entitlement"
	"github.com/caddy-polar/caddy-polar/identity"
)

// headerNames are the names of one gateway's headers to the upstream.
type headerNames struct {
	folded string // the prefix in the one spelling that all spellings fold to
	names  [headerCount]string
	sent   [headerCount]bool
}

// The headers, by their places in headerNames and headerValues.
const (
	headerUser = iota
	headerPlan
	headerPlans
	headerStatus
	headerReason
	headerUntil
	headerGraceUntil
	headerCustomer
	headerExternalCustomer
	headerAssertion
)

// headerWords are what comes after the prefix.
var headerWords = [headerCount]string{
	headerUser: "User", headerPlan: "Plan", headerPlans: "Plans", headerStatus: "Status", headerReason: "Reason",
	headerUntil: "Until", headerGraceUntil: "Grace-Until", headerCustomer: "Customer", headerExternalCustomer: "External-Customer",
	headerAssertion: "Assertion",
}

// makeHeaderNames makes the names of the headers, of which those of words are sent, or
// all.
func makeHeaderNames(prefix string, words ...string) headerNames {
	n := headerNames{folded: strings.ToLower(prefix)}
	for i, word := range headerWords {
		n.names[i] = http.CanonicalHeaderKey(prefix + word)
		n.sent[i] = len(words) == 0 || slices.ContainsFunc(words, func(w string) bool { return strings.EqualFold(w, word) })
	}
	return n
}

// foldByte writes a byte of a header's name as those servers read it that take
// letters of either case for the same, and whatever is no letter or digit for -. PHP
// does so with _ and ., lighttpd with all that a name can hold, for whoever it calls by
// CGI or FastCGI.
func foldByte(c byte) byte {
	switch {
	case 'a' <= c && c <= 'z' || '0' <= c && c <= '9':
		return c
	case 'A' <= c && c <= 'Z':
		return c + 'a' - 'A'
	}
	return '-'
}

// plainName is a header's name as such servers read it, if it could be one of those
// that override something: they begin with X.
func plainName(name string) string {
	if name == "" || name[0] != 'X' {
		return name
	}
	for i := range len(name) {
		if c := name[i]; c != '-' && foldByte(c) == '-' {
			folded := []byte(name)
			for i, c := range folded {
				folded[i] = foldByte(c)
			}
			return http.CanonicalHeaderKey(string(folded))
		}
	}
	return name
}

// ours says whether a client's header falls into our namespace, in whatever
// spelling.
func (n *headerNames) ours(name string) bool {
	if len(name) < len(n.folded) {
		return false
	}
	for i := range len(n.folded) {
		if foldByte(name[i]) != n.folded[i] {
			return false
		}
	}
	return true
}

// stripTrailer removes from the trailers what a client must not say.
func (n *headerNames) stripTrailer(r *http.Request) {
	n.stripFrom(r.Trailer)
	if r.Body != nil && (r.Trailer != nil || r.ContentLength < 0) {
		// Trailers come after the body, announced or not.
		r.Body = &trailerStripper{ReadCloser: r.Body, request: r, names: n}
	}
}

func (n *headerNames) stripFrom(h http.Header) {
	for name := range h {
		if n.ours(name) {
			delete(h, name)
		}
	}
}

// stripConnection removes our names from Connection, by which a client could make the
// proxy drop the headers that we set.
func (n *headerNames) stripConnection(h http.Header) {
	lines := h["Connection"]
	if !slices.ContainsFunc(lines, n.oursInList) {
		return
	}
	var kept []string
	for _, line := range lines {
		for option := range strings.SplitSeq(line, ",") {
			if option = strings.TrimSpace(option); option != "" && !n.ours(option) {
				kept = append(kept, option)
			}
		}
	}
	if len(kept) == 0 {
		delete(h, "Connection")
		return
	}
	h["Connection"] = []string{strings.Join(kept, ", ")}
}

// oursInList says whether a list of names has one of ours.
func (n *headerNames) oursInList(list string) bool {
	for name := range strings.SplitSeq(list, ",") {
		if n.ours(strings.TrimSpace(name)) {
			return true
		}
	}
	return false
}

// trailerStripper strips the trailers once they have arrived.
type trailerStripper struct {
	io.ReadCloser
	request *http.Request
	names   *headerNames
}

func (t *trailerStripper) Read(p []byte) (int, error) {
	n, err := t.ReadCloser.Read(p)
	if err != nil {
		t.names.stripFrom(t.request.Trailer)
	}
	return n, err
}

// headerCount is how many headers we send.
const headerCount = 10

// headerValues are the values of our headers, as strings that a header can
// hold, in the order of headerNames. Empty ones are not sent.
type headerValues [headerCount]string

// headersOf are the headers for a user, whoever else pays for them, and a
// decision, whose end is known as a text already or is not. Without a plan to tell,
// none stands behind a gate.
func headersOf(user, payer string, s *entitlement.Standing, d *entitlement.Decision, until string, gated bool) (v headerValues) {
	v[headerUser], v[headerExternalCustomer], v[headerPlans] = encodeHeader(user), encodeHeader(payer), s.Open
	v[headerStatus], v[headerReason], v[headerCustomer] = encodeHeader(d.Status), string(d.Reason), s.Customer
	if !d.Allowed {
		return v
	}
	if gated {
		v[headerPlan] = d.Plan
	}
	if !d.Until.IsZero() {
		if until == "" {
			until = formatTime(d.Until)
		}
		v[headerUntil] = until
	}
	if d.Grace {
		v[headerGraceUntil] = v[headerUntil]
	}
	return v
}

// present is what there can be of our headers in a request that is about to get them.
type present uint8

const (
	found  present = iota // whatever others have set, such as the site's own authentication
	absent                // nothing: they were stripped just now
	ours                  // what we have set, and what others have made of it
)

// set tells the upstream who asks and why it may. It deletes what is not told. own
// is this request's: Caddy's header directives write into the slices of a header in
// place. What stands as we have set it stays.
func (n *headerNames) set(h http.Header, v, own *headerValues, there present) {
	if there == absent {
		*own = *v
		for i, value := range own {
			if value != "" && n.sent[i] {
				h[n.names[i]] = own[i : i+1 : i+1]
			}
		}
		return
	}
	for i := range n.names {
		name, value := n.names[i], v[i]
		held, stands := h[name]
		if there == ours && len(held) == 1 && &held[0] == &own[i] && own[i] == value {
			continue
		}
		own[i] = value
		if value != "" && n.sent[i] {
			h[name] = own[i : i+1 : i+1]
		} else if stands {
			delete(h, name)
		}
	}
}

// formatTime is RFC 3339 in UTC with seconds.
func formatTime(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// encodeHeader percent-encodes what does not belong into a header's value, and
// the percent sign itself. Blanks at the ends would be lost on the way, and
// another user would arrive.
func encodeHeader(s string) string {
	const hex = "0123456789ABCDEF"
	plain := func(i int) bool {
		c := s[i]
		return c > ' ' && c < 0x7f && c != '%' || c == ' ' && i > 0 && i < len(s)-1
	}
	clean := true
	for i := range len(s) {
		clean = clean && plain(i)
	}
	if clean {
		return s
	}
	var b strings.Builder
	for i := range len(s) {
		if plain(i) {
			b.WriteByte(s[i])
		} else {
			b.WriteByte('%')
			b.WriteByte(hex[s[i]>>4])
			b.WriteByte(hex[s[i]&15])
		}
	}
	return b.String()
}

// varyOf names the request headers in which tokens are looked for.
func varyOf(sources []identity.Source) string {
	var names []string
	for _, s := range sources {
		name := s.Header
		if s.Cookie != "" {
			name = "Cookie"
		}
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return strings.Join(names, ", ")
}

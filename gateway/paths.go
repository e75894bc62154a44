package gateway

import (
	"bytes"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

var (
	// ErrPathRule is wrapped by every refusal of an operator's path rule.
	ErrPathRule = errors.New("bad path rule")

	// ErrBadPath is wrapped when a request path cannot be judged: control
	// bytes, an escape that does not decode, or more readings than an honest
	// path has.
	ErrBadPath = errors.New("bad path")
)

const (
	// maxDecodings is how often an upstream may decode a path.
	maxDecodings = 2

	// maxReadings and maxReadingBytes bound the work on one request's paths
	// together. Honest ones have about ten readings at most; what has hundreds
	// is an attack, and refusing it is safer than judging it by some of its
	// readings.
	maxReadings     = 256
	maxReadingBytes = 1 << 18
)

// PathRules is a compiled set of path rules. "/pro/*" covers /pro and
// everything below it, "/pro" covers just /pro and /pro/, "/*" everything.
// The zero value covers nothing.
type PathRules struct {
	rules []pathRule
}

// pathRule is one spelling of one rule, folded and without its "/*".
type pathRule struct {
	base  string // "" for "/*" and "/"
	below bool
}

// ParsePathRules compiles the patterns an operator wrote. Errors wrap
// ErrPathRule, name the pattern and say what to write instead.
func ParsePathRules(patterns []string) (PathRules, error) {
	var p PathRules
	for _, pattern := range patterns {
		for _, r := range patternRefusals {
			if r.bad(pattern) {
				return PathRules{}, fmt.Errorf("%w %q: %s; write %s", ErrPathRule, pattern, r.why, r.instead(pattern))
			}
		}
		base, below := strings.CutSuffix(pattern, "/*")
		base = strings.TrimSuffix(base, "/")
		for _, spelling := range ruleSpellings(base) {
			p.rules = append(p.rules, pathRule{spelling, below})
		}
	}
	return p, nil
}

// Empty reports whether there are no rules.
func (p PathRules) Empty() bool { return len(p.rules) == 0 }

// CoversAny reports whether some reading falls under some rule: the question
// of a gate.
func (p PathRules) CoversAny(rs Readings) bool {
	return rs.first != "" && (p.covers(rs.first) || slices.ContainsFunc(rs.rest, p.covers))
}

// CoversAll reports whether there are readings and each falls under some rule:
// the question of an exemption.
func (p PathRules) CoversAll(rs Readings) bool {
	if rs.first == "" || !p.covers(rs.first) {
		return false
	}
	for _, s := range rs.rest {
		if !p.covers(s) {
			return false
		}
	}
	return true
}

// covers reports whether one reading falls under some rule.
func (p PathRules) covers(reading string) bool {
	for _, r := range p.rules {
		rest, ok := strings.CutPrefix(reading, r.base)
		if ok && (rest == "" || rest == "/" || r.below && rest[0] == '/') {
			return true
		}
	}
	return false
}

// ruleSpellings returns what a rule's base looks like to an upstream that
// decodes, and to one that does not. Without the second, `public /café/*`
// would exempt nothing, because /caf%C3%A9 is also a reading of its requests.
func ruleSpellings(base string) []string {
	spellings := []string{foldPath(base)}
	for _, s := range []string{base, foldPath(base)} {
		s = foldPath((&url.URL{Path: s}).EscapedPath())
		if !slices.Contains(spellings, s) {
			spellings = append(spellings, s)
		}
	}
	return spellings
}

// patternRefusals are the kinds of patterns that are refused, first match
// wins. What is left is the same under every reading step, so that a rule
// means one thing only.
var patternRefusals = []struct {
	bad     func(pattern string) bool
	why     string
	instead func(pattern string) string
}{
	{
		func(p string) bool { return !utf8.ValidString(p) || hasControl(p) },
		"it holds control characters or is not UTF-8", constant("the path in plain UTF-8 text"),
	},
	{
		func(p string) bool { return strings.ContainsAny(p, "{}") },
		"placeholders are not expanded in path rules", constant("the path itself"),
	},
	{
		func(p string) bool { return !strings.HasPrefix(p, "/") },
		"it does not start with /", func(p string) string { return "/" + p },
	},
	{
		func(p string) bool { return strings.ContainsAny(p, "?#") },
		"rules are tested on the path only, without query and fragment", cutTail,
	},
	{
		func(p string) bool { return strings.Contains(p, "%") },
		"rules are written unescaped", constant("the character itself instead of its % escape"),
	},
	{
		func(p string) bool { return strings.Contains(p, ";") },
		"rules are tested without ;parameters too", dropParams,
	},
	{
		func(p string) bool { return strings.Contains(p, `\`) },
		"a backslash is read as a slash too", turnBackslashes,
	},
	{
		func(p string) bool { return toASCII(p) != p },
		"some upstreams read fullwidth characters as their ASCII form", toASCII,
	},
	{
		func(p string) bool { return mergeSlashes(p) != p },
		"repeated slashes are merged", mergeSlashes,
	},
	{
		func(p string) bool { return resolveDots(p) != p },
		"dot segments are resolved", resolveDots,
	},
	{
		func(p string) bool { return trimSegments(p) != p },
		"a segment starts with a blank or ends in a dot or blank, which some upstreams drop", func(p string) string { return mergeSlashes(trimDotSegments(p)) },
	},
	{
		func(p string) bool { return strings.Contains(strings.TrimSuffix(p, "/*"), "*") },
		"a * stands only at the end, as /*", insteadOfStar,
	},
}

func constant(s string) func(string) string { return func(string) string { return s } }

// insteadOfStar names the rule that covers at least what a misplaced * meant:
// "/pro/*" for "/pro*" and for "/pro/*/x".
func insteadOfStar(pattern string) string {
	base, _, _ := strings.Cut(pattern, "*")
	if base = strings.TrimSuffix(base, "/"); base == "" {
		return "/* (covers everything)"
	}
	return base + "/* (covers " + base + " too)"
}

// Readings are the different paths that upstreams may see in one request,
// each with a leading slash and folded case. The zero value holds none.
type Readings struct {
	first string   // apart, so that a plain path needs no slice
	rest  []string // never one twice
}

// All returns every reading, for tests and explanations.
func (rs Readings) All() []string {
	if rs.first == "" {
		return nil
	}
	return append([]string{rs.first}, rs.rest...)
}

// ReadPaths returns every reading of the given raw, still escaped paths
// (http.Request's URL.EscapedPath, not URL.Path). A reading is whatever some
// chain of these steps gives, in any order, because upstreams differ in the
// order too:
//
//   - decoding up to two times, of everything or of all but slashes;
//   - backslashes as slashes, ;parameters dropped, repeated slashes merged,
//     dot segments resolved, dots and blanks around segments trimmed, a ?, a #
//     or a leading //host taken for what it is in a URL, overlong and
//     fullwidth characters taken for ASCII, a script before the path dropped.
//
// The path as it came is a reading as well. Letter case is folded in all.
// Errors wrap ErrBadPath and hold nothing of the path.
func ReadPaths(rawPaths ...string) (Readings, error) {
	var rs Readings
	for i, raw := range rawPaths {
		if i > 0 && raw == rawPaths[i-1] {
			continue // the usual case: nothing rewrote the path
		}
		if !plainPath(raw) {
			return readUgly(rawPaths)
		}
		s := foldPath(raw)
		switch {
		case rs.first == "":
			rs.first = s
		case rs.first == s || slices.Contains(rs.rest, s):
		case len(rs.rest)+1 >= maxReadings:
			return Readings{}, errTooMany
		default:
			rs.rest = append(rs.rest, s)
		}
	}
	return rs, nil
}

// plainPath reports whether no reading step changes anything but letter case
// in raw. It is the fast path of nearly every request.
func plainPath(raw string) bool {
	if raw == "" || raw[0] != '/' || raw[len(raw)-1] == '.' {
		return false
	}
	for i := 1; i < len(raw); i++ {
		switch c := raw[i]; {
		case c == '/':
			if raw[i-1] == '/' || raw[i-1] == '.' || i >= 4 && strings.EqualFold(raw[i-4:i], ".php") {
				return false
			}
		case c <= ' ' || c >= 0x7f || c == '%' || c == ';' || c == '\\' || c == '?' || c == '#':
			return false
		}
	}
	return true
}

var (
	errTooMany = fmt.Errorf("%w: it can be read in too many ways", ErrBadPath)
	errControl = fmt.Errorf("%w: it holds control bytes", ErrBadPath)
	errEscape  = fmt.Errorf("%w: it holds a %% that starts no escape", ErrBadPath)
)

// readingSteps are what an upstream may do to a path besides decoding it.
// Each returns its argument when it has nothing to do, and none makes a path
// longer.
var readingSteps = []func(string) string{
	turnBackslashes, dropParams, mergeSlashes, resolveDots, trimSegments,
	trimDotSegments, cutTail, dropHost, dropScript, toASCII,
}

// readUgly closes the raw paths under all reading steps, then decodes and
// closes again, so that every order of the steps is among the results.
func readUgly(rawPaths []string) (Readings, error) {
	c := collector{seen: make(map[string]struct{}, 8)}
	for _, raw := range rawPaths {
		if !validEscapes(raw) {
			return Readings{}, errEscape
		}
		c.add(raw)
	}
	done := 0
	for decoded := 0; ; decoded++ {
		for ; done < len(c.list) && c.err == nil; done++ {
			for _, step := range readingSteps {
				if s := step(c.list[done]); s != c.list[done] {
					c.add(s)
				}
			}
		}
		if decoded == maxDecodings || c.err != nil {
			break
		}
		for _, s := range c.list[:done] {
			if strings.IndexByte(s, '%') >= 0 {
				c.add(unescape(s, false))
				c.add(unescape(s, true))
			}
		}
	}
	if c.err != nil {
		return Readings{}, c.err
	}
	return Readings{first: c.list[0], rest: c.list[1:]}, nil
}

// collector gathers distinct readings up to the limits. After an error it
// takes no more.
type collector struct {
	list  []string
	seen  map[string]struct{}
	bytes int
	err   error
}

func (c *collector) add(s string) {
	if c.err != nil {
		return
	}
	if s == "" || s[0] != '/' {
		s = "/" + s
	}
	// Folding at every step is folding at the end: no step looks at case. It
	// only makes fewer readings.
	s = foldPath(s)
	if _, ok := c.seen[s]; ok {
		return
	}
	c.bytes += len(s)
	switch {
	case hasControl(s):
		c.err = errControl
	case len(c.list) >= maxReadings || c.bytes > maxReadingBytes:
		c.err = errTooMany
	default:
		c.seen[s] = struct{}{}
		c.list = append(c.list, s)
	}
}

// OverridePath returns the raw path in the value of an X-Original-URL or
// X-Rewrite-URL header: an absolute URL, or a path with or without a query and
// fragment. It is meant for ReadPaths.
func OverridePath(value string) string {
	s := cutTail(strings.TrimSpace(value))
	if rest, ok := cutScheme(s); ok {
		s = rest
		// Browsers' URL parsers take \\ for //, so a host may follow either.
		if len(s) > 1 && isSlash(s[1]) {
			s = s[2:]
			i := strings.IndexAny(s, `/\`)
			if i < 0 {
				return "/"
			}
			s = s[i:]
		}
	}
	if s == "" {
		return "/"
	}
	return s
}

// cutScheme takes "scheme:" off a URL in which a slash follows it. Anything
// else, such as "/a:b" or "a:b", is a path.
func cutScheme(s string) (rest string, ok bool) {
	scheme, rest, ok := strings.Cut(s, ":")
	if !ok || scheme == "" || rest == "" || !isSlash(rest[0]) || strings.ContainsAny(scheme, `/\`) {
		return s, false
	}
	return rest, true
}

func isSlash(c byte) bool { return c == '/' || c == '\\' }

// foldPath folds letter case so that two spellings that differ only in case
// (Unicode simple folding) become the same string. ASCII letters become lower
// case, and so do ſ, the Kelvin sign and Turkish i's, which some case mapping
// takes to ASCII. Bytes that are not UTF-8 stay.
func foldPath(s string) string {
	i := 0
	for i < len(s) && s[i] < utf8.RuneSelf && (s[i] < 'A' || s[i] > 'Z') {
		i++
	}
	if i == len(s) {
		return s
	}
	out := append(make([]byte, 0, len(s)), s[:i]...)
	for i < len(s) {
		r, size := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && size == 1 {
			out = append(out, s[i])
		} else {
			out = utf8.AppendRune(out, foldRune(r))
		}
		i += size
	}
	return string(out)
}

// foldRune returns the smallest rune that differs from r only in case, and
// lower case for ASCII. The smallest is never longer in UTF-8.
func foldRune(r rune) rune {
	if r == 'İ' || r == 'ı' {
		return 'i' // simple folding keeps them apart, lower and upper case do not
	}
	least := r
	if r >= utf8.RuneSelf {
		for f := unicode.SimpleFold(r); f != r; f = unicode.SimpleFold(f) {
			least = min(least, f)
		}
	}
	if 'A' <= least && least <= 'Z' {
		least += 'a' - 'A'
	}
	return least
}

// hasControl reports whether s holds NUL or another ASCII control byte. Bytes
// from 0x80 on are parts of UTF-8 or of an older encoding, never controls.
func hasControl(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] == 0x7f {
			return true
		}
	}
	return false
}

// validEscapes reports whether each % starts an escape.
func validEscapes(s string) bool {
	for {
		i := strings.IndexByte(s, '%')
		if i < 0 {
			return true
		}
		if _, ok := escapedByte(s[i:]); !ok {
			return false
		}
		s = s[i+3:]
	}
}

// unescape decodes once and leaves invalid escapes as they are, as lenient
// decoders do. With keepSlashes it leaves encoded slashes too, as upstreams do
// that split a path before they decode it.
func unescape(s string, keepSlashes bool) string {
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); {
		b, ok := escapedByte(s[i:])
		if !ok || keepSlashes && isSlash(b) {
			out = append(out, s[i])
			i++
			continue
		}
		out = append(out, b)
		i += 3
	}
	return string(out)
}

// escapedByte decodes the escape that s starts with.
func escapedByte(s string) (byte, bool) {
	if len(s) < 3 || s[0] != '%' {
		return 0, false
	}
	hi, lo := unhex(s[1]), unhex(s[2])
	return hi<<4 | lo, hi < 16 && lo < 16
}

// unhex returns the value of a hexadecimal digit, and 255 for other bytes.
func unhex(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10
	}
	return 255
}

// turnBackslashes reads backslashes as slashes (Windows, browsers' URL
// parsers).
func turnBackslashes(s string) string { return strings.ReplaceAll(s, `\`, "/") }

// dropParams drops ";…" from each segment (servlet containers).
func dropParams(s string) string {
	if strings.IndexByte(s, ';') < 0 {
		return s
	}
	return mapSegments(s, func(segment string) string {
		segment, _, _ = strings.Cut(segment, ";")
		return segment
	})
}

// mergeSlashes makes one slash of several.
func mergeSlashes(s string) string {
	if !strings.Contains(s, "//") {
		return s
	}
	out := make([]byte, 0, len(s))
	for i := range len(s) {
		if s[i] != '/' || i == 0 || s[i-1] != '/' {
			out = append(out, s[i])
		}
	}
	return string(out)
}

// resolveDots removes dot segments as RFC 3986 5.2.4 does, never above the
// root. It merges no slashes: some upstreams let /a//../b climb out of the
// empty segment only, and mergeSlashes is a step of its own.
func resolveDots(s string) string {
	if !strings.Contains(s, "/.") {
		return s
	}
	out := make([]byte, 0, len(s))
	for rest, more := strings.TrimPrefix(s, "/"), true; more; {
		var segment string
		segment, rest, more = strings.Cut(rest, "/")
		switch segment {
		case ".":
		case "..":
			out = out[:max(0, bytes.LastIndexByte(out, '/'))]
		default:
			out = append(append(out, '/'), segment...)
			continue
		}
		if !more {
			out = append(out, '/')
		}
	}
	return string(out)
}

// trimSegments drops blanks before and dots and blanks after each segment
// (Windows). A segment of nothing else still climbs when it has two dots,
// which is how ".. " and "..." are read by some.
func trimSegments(s string) string {
	return mapSegments(s, func(segment string) string {
		trimmed := trimSegment(segment)
		if trimmed == "" && strings.Count(segment, ".") > 1 {
			return ".."
		}
		return trimmed
	})
}

// trimDotSegments is trimSegments for upstreams that drop a segment of dots.
func trimDotSegments(s string) string { return mapSegments(s, trimSegment) }

func trimSegment(segment string) string {
	return strings.TrimRight(strings.TrimLeft(segment, " "), ". ")
}

// cutTail cuts at ? or #, for upstreams that parse a decoded path as a URL
// again.
func cutTail(s string) string {
	if i := strings.IndexAny(s, "?#"); i >= 0 {
		return s[:i]
	}
	return s
}

// dropHost reads //host/path as a reference to another host, as new URL(path,
// base) does in JavaScript servers.
func dropHost(s string) string {
	if !strings.HasPrefix(s, "//") {
		return s
	}
	_, path, _ := strings.Cut(strings.TrimLeft(s, "/"), "/")
	return "/" + path
}

// dropScript reads /index.php/path as /path: PHP hands a script what comes after it, and
// frameworks route by that.
func dropScript(s string) string {
	if i := strings.Index(s, script); i >= 0 {
		return s[i+len(script)-1:]
	}
	return s
}

const script = ".php/"

// toASCII reads overlong UTF-8 (C0 AF for a slash) as what it encodes, and
// fullwidth characters as the ASCII ones that compatibility normalization and
// Windows' best-fit tables make of them.
func toASCII(s string) string {
	i := strings.IndexFunc(s, func(r rune) bool { return r == utf8.RuneError || isFullwidth(r) })
	if i < 0 {
		return s
	}
	out := append(make([]byte, 0, len(s)), s[:i]...)
	for i < len(s) {
		b, size := asciiAt(s[i:])
		out = append(out, b)
		i += size
	}
	return string(out)
}

// asciiAt returns the ASCII byte that s starts with in an overlong or
// fullwidth form, else its first byte.
func asciiAt(s string) (b byte, size int) {
	switch r, n := utf8.DecodeRuneInString(s); {
	case isFullwidth(r):
		return byte(r - '！' + '!'), n
	case len(s) > 1 && s[0]&^1 == 0xc0 && isContinuation(s[1]):
		return s[0]&1<<6 | s[1]&0x3f, 2
	case len(s) > 2 && s[0] == 0xe0 && s[1]&^1 == 0x80 && isContinuation(s[2]):
		return s[1]&1<<6 | s[2]&0x3f, 3
	case len(s) > 3 && s[0] == 0xf0 && s[1] == 0x80 && s[2]&^1 == 0x80 && isContinuation(s[3]):
		return s[2]&1<<6 | s[3]&0x3f, 4
	}
	return s[0], 1
}

func isFullwidth(r rune) bool { return '！' <= r && r <= '～' }

func isContinuation(c byte) bool { return c&0xc0 == 0x80 }

// mapSegments applies f to what stands between slashes. It allocates only when
// something changes.
func mapSegments(s string, f func(segment string) string) string {
	var out []byte
	for start, end := 0, 0; start <= len(s); start = end + 1 {
		if end = strings.IndexByte(s[start:], '/') + start; end < start {
			end = len(s)
		}
		segment := f(s[start:end])
		if out == nil && len(segment) != end-start {
			out = append(make([]byte, 0, len(s)), s[:start]...)
		}
		if out != nil {
			out = append(out, segment...)
			out = append(out, s[end:min(end+1, len(s))]...)
		}
	}
	if out == nil {
		return s
	}
	return string(out)
}

package caddypolar

import (
	"bufio"
	"errors"
	"net/http"
	"path"
	"strconv"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-polar/caddy-polar/gateway"
)

// upstreamStyles are five kinds of apps by how they read the path that the
// proxy sends them: each returns what it would serve. They are written from how
// such servers behave, and share nothing with the readings that they judge.
var upstreamStyles = map[string]func(sent string) string{
	// As it stands.
	"raw": func(sent string) string { return sent },
	// Servlet containers drop ;parameters before they decode.
	"servlet": func(sent string) string {
		segments := strings.Split(sent, "/")
		for i := range segments {
			segments[i], _, _ = strings.Cut(segments[i], ";")
		}
		return resolved(decodedOnce(strings.Join(segments, "/")))
	},
	// A server that decodes before a framework that decodes again.
	"double decoding": func(sent string) string { return resolved(decodedOnce(decodedOnce(sent))) },
	// Case means nothing, in whatever script.
	"case folding": func(sent string) string { return caseless(resolved(decodedOnce(sent))) },
	// IIS: backslashes are slashes, dots and blanks at a name's end are nothing.
	"backslash": func(sent string) string {
		segments := strings.Split(strings.ReplaceAll(decodedOnce(sent), `\`, "/"), "/")
		for i, s := range segments {
			if s != ".." {
				segments[i] = strings.TrimRight(s, ". ")
			}
		}
		return caseless(resolved(strings.Join(segments, "/")))
	},
}

func resolved(s string) string { return path.Clean("/" + s) }

func caseless(s string) string { return strings.ToLower(strings.ToUpper(s)) }

func decodedOnce(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+3], 16, 8); err == nil {
				b.WriteByte(byte(c))
				i += 2
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// fenced is a gate, and the same in two other tongues: as a question about what
// an app would serve, and as path matchers of Caddy's. The names have k, i and
// s in them, which are the letters with relatives outside of ASCII.
type fenced struct {
	paths, public []string
	gated         func(served string) bool
	caddy, exempt caddyhttp.MatchPath // what the gate stands before, and what not

	gate Gate
}

func fences(t testing.TB) []*fenced {
	t.Helper()
	list := []*fenced{
		{
			paths: []string{"/kiosk/*"},
			gated: func(served string) bool { return below(served, "/kiosk") },
			caddy: caddyhttp.MatchPath{"/kiosk", "/kiosk/*"},
		},
		{
			paths: []string{"/kiosk"},
			gated: func(served string) bool { return strings.TrimSuffix(served, "/") == "/kiosk" },
			caddy: caddyhttp.MatchPath{"/kiosk", "/kiosk/"},
		},
		{
			public: []string{"/", "/task/*"},
			gated:  func(served string) bool { return served != "/" && !below(served, "/task") },
			caddy:  caddyhttp.MatchPath{"*"},
			exempt: caddyhttp.MatchPath{".", "/", "/task", "/task/*"}, // "." is no path at all, which is sent as /
		},
		{
			paths:  []string{"/kiosk/*", "/desk"},
			public: []string{"/kiosk/task/*"},
			gated: func(served string) bool {
				return strings.TrimSuffix(served, "/") == "/desk" || below(served, "/kiosk") && !below(served, "/kiosk/task")
			},
			caddy:  caddyhttp.MatchPath{"/kiosk", "/kiosk/*", "/desk", "/desk/"},
			exempt: caddyhttp.MatchPath{"/kiosk/task", "/kiosk/task/*"},
		},
	}
	for _, f := range list {
		f.gate = Gate{Paths: f.paths, Public: f.public}
		if err := f.gate.compilePaths(); err != nil {
			t.Fatal(err)
		}
		for _, m := range []caddyhttp.MatchPath{f.caddy, f.exempt} {
			if err := m.Provision(caddy.Context{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	return list
}

func below(served, dir string) bool {
	rest, ok := strings.CutPrefix(served, dir)
	return ok && (rest == "" || rest[0] == '/')
}

// parsed is a request as Go's server makes it of the target, and Caddy of that.
// Nil stands for what they refuse.
func parsed(target string) *http.Request {
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader("GET " + target + " HTTP/1.1\r\nHost: localhost\r\n\r\n")))
	if err != nil {
		return nil
	}
	return prepared(r, newRecorder())
}

// checkFences fails when Caddy or some app takes the target for something that
// is gated, and the gate lets it pass.
func checkFences(t testing.TB, list []*fenced, target string) {
	t.Helper()
	r := parsed(target)
	if r == nil {
		return
	}
	state := stateOf(r)
	sent, _, _ := strings.Cut(r.URL.RequestURI(), "?")
	served := make(map[string]string, len(upstreamStyles))
	for name, style := range upstreamStyles {
		served[name] = caseless(style(sent))
	}
	for _, f := range list {
		covered, err := f.gate.covers(state, r)
		if err != nil && !errors.Is(err, gateway.ErrBadPath) {
			t.Fatalf("%q: %v", target, err)
		}
		if covered || err != nil {
			continue
		}
		if f.caddy.Match(r) && !f.exempt.Match(r) {
			t.Fatalf("%q passes the gate of %q and %q, and Caddy's own matcher stops it", target, f.paths, f.public)
		}
		for name, served := range served {
			if f.gated(served) {
				t.Fatalf("%q passes the gate of %q and %q, and an app of the style %s serves %q", target, f.paths, f.public, name, served)
			}
		}
	}
}

// confusion is what paths that are read in two ways are made of.
var confusion = []string{
	"/", "//", "/../", "/./", "/..;/", "..", ".", ";", ";a=b", `\`, " ", "kiosk", "task", "desk", "a", "?", "#", "http:", "//localhost",
	"%2f", "%5c", "%2e", "%20", "%3b", "%3f", "%23", "%25", "%252f", "%255c", "%252e", "%253b", "%2525",
	"%6b", "%256b", "KIOSK", "kıosk", "kİosk", "kio\u017fk", "\u212aiosk", "%c4%b1", "%c4%b0", "%c5%bf", "%e2%84%aa",
	"%c0%af", "%c0%ae", "%ef%bc%8f", "%00", "%0a", "/task/", "/kiosk/task/", "...", ".%20", "%E9", "é",
}

// FuzzGate looks for a target that an app serves from behind the gate and the
// gate lets pass. Bytes pick words of confusion; the rest stands as it is.
func FuzzGate(f *testing.F) {
	list := fences(f)
	for _, target := range []string{
		"/kiosk", "/KIOSK/a", "/kiosk;v=1/a", "/task/..;/kiosk/a", `/task/..\kiosk`, "/%6biosk/", "/%256biosk", "//kiosk./a",
		"/task/%2e%2e/kiosk", "/task/..%252fkiosk", "/kiosk%2f..%2ftask/x", "/kiosk/task/../x", "/kiosk/task/%2e%2e%2fx", "/task/a?/kiosk",
		"/k%C4%B1osk", "/kio%C5%BFk", "/%E2%84%AAiosk", "http://localhost/kiosk", "http:kiosk", "A:", "*", "/kiosk%20/x", "/task%5c..%5ckiosk",
		"/%64esk", "/desk/", "/desk;a", "/desk%2e", "/kiosk/%74ask/x", "/task;/../kiosk", "/a%2f..%2fkiosk", "/kiosk%00", "/kiosk#a",
	} {
		f.Add([]byte{}, target)
	}
	f.Add([]byte{0, 12, 4, 11}, "A:")
	f.Fuzz(func(t *testing.T, words []byte, rest string) {
		var b strings.Builder
		for _, w := range words {
			b.WriteString(confusion[int(w)%len(confusion)])
		}
		b.WriteString(rest)
		checkFences(t, list, b.String())
		checkFences(t, list, "/"+b.String())
	})
}

package gateway

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"pgregory.net/rapid"
)

func TestGateCatchesEverySpelling(t *testing.T) {
	gate := mustRules(t, "/premium/*")
	for _, raw := range []string{
		// What Caddy's own path matcher catches, and what it does not.
		"/PREMIUM/a", "/%70remium/a", "/premium%2Fa", "/x/../premium/a",
		"/x/..%2fpremium/a", "/.%2fpremium/a", "//premium/a", "///premium//a",
		"/premium;v=1/a", "/premium./a", "/public/..;/premium/a", "/premium%20/a",
		"/premium%252Fa", `/\premium/a`,

		"/premium", "/premium/", "/premium/a/b", "premium/a", "%2fpremium", `\premium`,
		"/premium%2e/a", "/premium. ./a", "/premium;", "/premium%3bv=1/a", "/premium%253b/a",
		"/x/.. /premium/a", "/x/..%20/premium", "/x/.../premium", "/x/. ./premium", "/x/%20../premium",
		"/%20premium/a", "/x/..%5cpremium", "/x%5c..%5cpremium", "/x/..%255cpremium",
		"/%2570remium/a", "/public/..%252fpremium", "/public/..;a=b/premium", "/public/..%3b/premium",
		"/prem%C5%BFium/../premium", "/p%72emium", "/premium%3fx", "/premium%23x", "/premium#x",
		"//host/premium/a", `/\host/premium`, "/%2fhost/premium",
		"/x/%c0%ae%c0%ae/premium", "/x/..%c0%afpremium", "/x/..%e0%80%afpremium", "/x/..%f0%80%80%afpremium", "/%f0%80%81%b0remium/a", "/x/..%ef%bc%8fpremium", "/ｐremium/a",

		// A script before the path, as PHP reads it.
		"/index.php/premium/a", "/INDEX.PHP/premium", "/blog/index.php/premium", "/index.php%2fpremium", "/index.php//premium",
		"/index.ph%70/premium", "/app.php/x/../premium", "/index.php;/premium",

		// The order of the steps matters: an upstream may drop parameters,
		// split or resolve before it decodes.
		"/%70remium;%2f..%2fpublic", "/x%2fy/../%70remium", "/x%2fy/%2e%2e/%70remium",
		"/x%2fy/..%3b/%70remium", "/x%2fy/%2e%2e/%2570remium", "/x%2fy/%252e%252e/%70remium",
		"/a//../premium/../../premium", "/premium/../x", "/premium%2f..%2fx",
	} {
		if rs := mustRead(t, raw); !gate.CoversAny(rs) {
			t.Errorf("%q passes the gate; its readings are %q", raw, rs.All())
		}
	}
	for _, raw := range []string{
		"/premiumX", "/premiumX/a", "/premium-a", "/", "", "*", "/x/premium", "/prem/ium",
		"/index.php", "/premium.php", "/index.php/x/premium", "/index.phpx/premium",
		"/premium.html", "/premium%2ehtml", "/x%20/premium", "/public;/premium/..;", "/x?/premium",
	} {
		if rs := mustRead(t, raw); gate.CoversAny(rs) {
			t.Errorf("%q is gated; its readings are %q", raw, rs.All())
		}
	}
}

func TestCaseFolding(t *testing.T) {
	for _, tc := range []struct{ rule, raw string }{
		{"/basic/*", "/ba%C5%BFic/x"},    // long s
		{"/basic/*", "/baſic/x"},         //
		{"/kit/*", "/%E2%84%AAit"},       // Kelvin sign
		{"/kit/*", "/K%C4%B0T"},          // dotted capital i
		{"/kit/*", "/k%C4%B1t/x"},        // dotless small i
		{"/baſic/*", "/BASIC"},           // the rule is folded too
		{"/Straße/*", "/STRA%E1%BA%9EE"}, // capital sharp s
		{"/Ω/*", "/%E2%84%A6/x"},         // Ohm sign
		{"/Ünter/*", "/%C3%BCnter"},
	} {
		if rs := mustRead(t, tc.raw); !mustRules(t, tc.rule).CoversAny(rs) {
			t.Errorf("%q is not under %q; its readings are %q", tc.raw, tc.rule, rs.All())
		}
	}
}

// TestCaseFoldingOfEveryLetter: whichever way an app folds case, a letter and its
// relatives are one to a rule.
func TestCaseFoldingOfEveryLetter(t *testing.T) {
	for r := rune(0); r <= unicode.MaxRune; r++ {
		want := foldPath(string(r))
		for _, other := range []rune{unicode.ToLower(r), unicode.ToUpper(r), unicode.ToTitle(r), unicode.SimpleFold(r)} {
			if got := foldPath(string(other)); got != want {
				t.Errorf("%U is %q and its relative %U is %q", r, want, other, got)
			}
		}
		if len(want) > len(string(r)) {
			t.Errorf("%U becomes longer", r)
		}
	}
}

func TestRuleShapes(t *testing.T) {
	for _, tc := range []struct {
		rule, raw string
		want      bool
	}{
		{"/pro/*", "/pro", true},
		{"/pro/*", "/pro/", true},
		{"/pro/*", "/pro/a", true},
		{"/pro/*", "/prox", false},
		{"/pro", "/pro", true},
		{"/pro", "/pro/", true},
		{"/pro", "/pro/a", false},
		{"/pro/", "/pro", true},
		{"/Pro/*", "/pRO/a", true},
		{"/", "/", true},
		{"/", "", true},
		{"/", "/a", false},
		{"/*", "/", true},
		{"/*", "/a/b", true},
		{"/*", "*", true},
		{"/a b/*", "/a%20b/c", true},
		{"/.well-known/*", "/.well-known/x", true},
	} {
		rs, rules := mustRead(t, tc.raw), mustRules(t, tc.rule)
		if rules.CoversAny(rs) != tc.want || rules.CoversAll(rs) != tc.want {
			t.Errorf("%q under %q: any %v, all %v, want %v", tc.raw, tc.rule, rules.CoversAny(rs), rules.CoversAll(rs), tc.want)
		}
	}
}

func TestReadingsUnderTwoRules(t *testing.T) {
	rs := mustRead(t, "/basic/..;/pro/x")
	for _, rule := range []string{"/basic/*", "/pro/*"} {
		if !mustRules(t, rule).CoversAny(rs) {
			t.Errorf("not under %q: %q", rule, rs.All())
		}
	}
}

func TestPublicIsNotFooled(t *testing.T) {
	public := mustRules(t, "/pricing", "/public/*", "/café/*")
	for _, raw := range []string{
		"/pricing", "/pricing/", "/public", "/public/a", "/PUBLIC/a", "/public/a%20b", "/public//a",
		"/public/./a", "/public/a/../b", "/public/a;v=1", "/public/a%2Fb", "/public/100%25", "/public/%E9t%E9",
		"/public/a%3fb", "/public/日本語（１）", "/public/a.", "/public/.hidden", "/caf%C3%A9/x", "/caf%c3%a9", "/café/x",
	} {
		if rs := mustRead(t, raw); !public.CoversAll(rs) {
			t.Errorf("%q should be public; its readings are %q", raw, rs.All())
		}
	}
	for _, raw := range []string{
		"/public/index.php/premium", "/public/..;/premium/a", "/public/%2e%2e/premium", "/public/..%252fpremium", "/public/../premium",
		`/public/..\premium`, "/public/..%5cpremium", "/x/../public/a", "//public/a", "/public/.../premium",
		"/public/.. /premium", "/%70ublic/a", "/publicX", "/pricing/a", "/public/..%3fx/../a", "/public/..", "/public/..%3fx", "/public%2f../premium",
		"/premium;/../public", "/premium%3f/../public/a", "/public/../x", "/public.", "/public;x",
	} {
		if rs := mustRead(t, raw); public.CoversAll(rs) {
			t.Errorf("%q is exempt; its readings are %q", raw, rs.All())
		}
	}
}

func TestSeveralPaths(t *testing.T) {
	gate, public := mustRules(t, "/pro/*"), mustRules(t, "/public/*")
	rs := mustRead(t, "/public/a", OverridePath("https://example.com/pro/x?y"), "/public/a")
	if len(rs.All()) != 2 || !gate.CoversAny(rs) || public.CoversAll(rs) {
		t.Errorf("an overriding path is not judged: %q", rs.All())
	}
	// The second path is what the first becomes when decoded, and must be
	// decoded twice itself all the same.
	if rs := mustRead(t, "/%252570ro", "/%2570ro"); !gate.CoversAny(rs) {
		t.Errorf("the second path is decoded too seldom: %q", rs.All())
	}
	if _, err := ReadPaths("/ok", "/%zz"); !errors.Is(err, ErrBadPath) {
		t.Errorf("bad second path: %v", err)
	}
	many := make([]string, maxReadings+1)
	for i := range many {
		many[i] = fmt.Sprintf("/%d", i)
	}
	if _, err := ReadPaths(many...); !errors.Is(err, ErrBadPath) {
		t.Errorf("too many paths: %v", err)
	}
}

func TestNothingToJudge(t *testing.T) {
	rs := mustRead(t)
	if p := mustRules(t, "/*"); p.CoversAny(rs) || p.CoversAll(rs) || p.Empty() || rs.All() != nil {
		t.Error("no readings must fall under no rule")
	}
	if p := mustRules(t); p.CoversAny(mustRead(t, "/")) || p.CoversAll(mustRead(t, "/")) || !p.Empty() {
		t.Error("no rules must cover nothing")
	}
}

func TestBadPaths(t *testing.T) {
	for _, raw := range []string{
		"/premium%00/a", "/a\x00", "/a\tb", "/a\x7f", "/%0a", "/%7F", "/%2500", "/%250d", "/%25%30%30",
		"/%", "/%2", "/%zz", "/a%u002f", "/%c0%80", "/a;%00/b", "/a?%00",
	} {
		rs, err := ReadPaths(raw)
		if !errors.Is(err, ErrBadPath) || rs.All() != nil {
			t.Errorf("%q: %v, readings %q", raw, err, rs.All())
		}
	}
	for _, raw := range []string{"/100%25", "/100%25zz", "/%25", "/%E9", "/%80%85", "/%FF%FE", "/é", "/\xe9", "/%25252500"} {
		mustRead(t, raw)
	}
}

func TestHonestPathsHaveFewReadings(t *testing.T) {
	for raw, want := range map[string]int{
		"/":                                   1,
		"/Assets/app.min.js":                  1,
		"/.well-known/acme":                   1,
		"/@scope/a+b,c=d:e!$&'()*~":           1,
		"/wiki/C%2B%2B":                       2,
		"/a%20b/c%20d":                        2,
		"/caf%C3%A9":                          2,
		"/100%25":                             2,
		"/files/a%2Fb%20c":                    3,
		"/cart;jsessionid=1A":                 2,
		"/cart;jsessionid=1A/a%20b%2520c%2Fd": 10,
	} {
		if rs := mustRead(t, raw); len(rs.All()) > want {
			t.Errorf("%q has %d readings, want at most %d: %q", raw, len(rs.All()), want, rs.All())
		}
	}
}

func TestRefusedPatterns(t *testing.T) {
	for pattern, want := range map[string]string{
		"":           "it does not start with /; write /",
		"pro/*":      "it does not start with /; write /pro/*",
		"*":          "it does not start with /; write /*",
		"/pro*":      "a * stands only at the end, as /*; write /pro/* (covers /pro too)",
		"/a/*/b":     "a * stands only at the end, as /*; write /a/* (covers /a too)",
		"/*/b":       "a * stands only at the end, as /*; write /* (covers everything)",
		"/*.js":      "a * stands only at the end, as /*; write /* (covers everything)",
		"/pro/*/*":   "a * stands only at the end, as /*; write /pro/* (covers /pro too)",
		"/a%20b":     "rules are written unescaped; write the character itself instead of its % escape",
		"/pro;v=1/*": "rules are tested without ;parameters too; write /pro/*",
		`/pro\x`:     "a backslash is read as a slash too; write /pro/x",
		"//pro":      "repeated slashes are merged; write /pro",
		"/pro//*":    "repeated slashes are merged; write /pro/*",
		"/./pro":     "dot segments are resolved; write /pro",
		"/a/../pro":  "dot segments are resolved; write /pro",
		"/pro/..":    "dot segments are resolved; write /",
		"/pro./*":    "some upstreams drop; write /pro/*",
		"/pro /*":    "some upstreams drop; write /pro/*",
		"/pro/ a":    "some upstreams drop; write /pro/a",
		"/a/.../b":   "some upstreams drop; write /a/b",
		"/pro\x00":   "write the path in plain UTF-8 text",
		"/pro\n":     "write the path in plain UTF-8 text",
		"/\xe9":      "write the path in plain UTF-8 text",
		"/pro?x=1":   "without query and fragment; write /pro",
		"/pro#x":     "without query and fragment; write /pro",
		"{env.PATH}": "placeholders are not expanded in path rules; write the path itself",
		"/a}":        "placeholders are not expanded in path rules; write the path itself",
		"/ｐro":       "some upstreams read fullwidth characters as their ASCII form; write /pro",
	} {
		_, err := ParsePathRules([]string{"/fine/*", pattern})
		if !errors.Is(err, ErrPathRule) {
			t.Errorf("%q is not refused: %v", pattern, err)
			continue
		}
		if msg := err.Error(); !strings.Contains(msg, fmt.Sprintf("%q", pattern)) || !strings.HasSuffix(msg, want) {
			t.Errorf("%q: message %q, want the pattern and %q", pattern, msg, want)
		}
	}
}

func TestOverridePath(t *testing.T) {
	for value, want := range map[string]string{
		"/pro/x":                       "/pro/x",
		" /pro/x?a=b#c ":               "/pro/x",
		"/pro#c?d":                     "/pro",
		"https://example.com/pro/x?y":  "/pro/x",
		"HTTP://u@example.com:80/p%2f": "/p%2f",
		"https://example.com":          "/",
		"https://example.com?x=/y":     "/",
		"https:///pro":                 "/pro",
		`http:\\example.com\pro`:       `\pro`,
		"http:/pro":                    "/pro",
		"//example.com/pro":            "//example.com/pro",
		"pro":                          "pro",
		"a:b/c":                        "a:b/c",
		"/a:/b":                        "/a:/b",
		"":                             "/",
		"?x":                           "/",
	} {
		if got := OverridePath(value); got != want {
			t.Errorf("%q gives %q, want %q", value, got, want)
		}
	}
}

// TestPlainPathsNeedNoClosure holds the fast path to what the slow one says.
func TestPlainPathsNeedNoClosure(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		raw := "/" + rapid.StringMatching(`([a-cA-C%./;\\ @*?#ſ:]|\.[pP]hp/){0,8}`).Draw(t, "path")
		if !plainPath(raw) {
			return
		}
		slow, err := readUgly([]string{raw})
		if fast := mustRead(t, raw); err != nil || !slices.Equal(fast.All(), slow.All()) {
			t.Fatalf("%q: fast %q, slow %q, %v", raw, fast.All(), slow.All(), err)
		}
	})
}

func TestAllImpliesAny(t *testing.T) {
	rules := mustRules(t, "/public/*", "/a", "/ä/*")
	rapid.Check(t, func(t *rapid.T) {
		rs, err := ReadPaths(rapid.SliceOfN(hostilePath(), 0, 3).Draw(t, "paths")...)
		if err == nil && rules.CoversAll(rs) && !rules.CoversAny(rs) {
			t.Fatalf("all but not any of %q", rs.All())
		}
	})
}

// TestObfuscationStaysUnderTheRule disguises a gated path step by step, each
// step such that some upstream undoes it.
func TestObfuscationStaysUnderTheRule(t *testing.T) {
	gate := mustRules(t, "/kiosk/*")
	rapid.Check(t, func(t *rapid.T) {
		raw := "/kiosk" + rapid.SampledFrom([]string{"", "/", "/a", "/a/b.c"}).Draw(t, "tail")
		for range rapid.IntRange(1, 3).Draw(t, "steps") {
			raw = obfuscate(t, raw)
		}
		raw = encodeSome(t, raw)
		rs, err := ReadPaths(raw)
		if errors.Is(err, errTooMany) {
			return // refused with 400, so not let through
		}
		if err != nil || !gate.CoversAny(rs) {
			t.Fatalf("%q passes: %v, readings %q", raw, err, rs.All())
		}
	})
}

// obfuscate hides a path behind one trick that needs no decoding.
func obfuscate(t *rapid.T, path string) string {
	segments := strings.Split(path, "/")
	if len(segments) == 1 {
		return path + ";x=1" // every slash is a backslash already
	}
	i := rapid.IntRange(1, len(segments)-1).Draw(t, "segment")
	switch rapid.SampledFrom([]string{"case", "param", "slash", "dot", "climb", "back", "trail"}).Draw(t, "trick") {
	case "case":
		segments[i] = strings.NewReplacer("i", "I", "f", "F", "k", "\u212a", "s", "ſ").Replace(segments[i])
	case "param":
		segments[i] += ";x=1"
	case "slash":
		segments[i] = "/" + segments[i]
	case "dot":
		segments[i] = "./" + segments[i]
	case "climb":
		segments[i] = "foo/../" + segments[i]
	case "back":
		return strings.Join(segments[:i], "/") + `\` + strings.Join(segments[i:], "/")
	case "trail":
		if strings.Trim(segments[i], ". ") == "" && !strings.HasPrefix(segments[i], "..") {
			break // a dot after a dot is no disguise, it climbs
		}
		segments[i] += rapid.SampledFrom([]string{".", " ", ". ", " ."}).Draw(t, "trail")
	}
	return strings.Join(segments, "/")
}

// encodeSome escapes any bytes once or twice.
func encodeSome(t *rapid.T, path string) string {
	var b strings.Builder
	for i := range len(path) {
		switch rapid.IntRange(0, 9).Draw(t, "encoding") {
		case 8:
			fmt.Fprintf(&b, "%%%02X", path[i])
		case 9:
			fmt.Fprintf(&b, "%%25%02x", path[i])
		default:
			b.WriteByte(path[i])
		}
	}
	return b.String()
}

// models are small upstreams, each with its own idea of a path. They share no
// code with what they test.
var models = map[string]func(raw string) string{
	"raw":     func(raw string) string { return raw },
	"servlet": func(raw string) string { return clean(decodeModel(withoutParams(raw))) },
	"twice":   func(raw string) string { return clean(decodeModel(decodeModel(raw))) },
	"folding": func(raw string) string { return strings.ToLower(clean(decodeModel(raw))) },
	"windows": func(raw string) string { return clean(strings.ReplaceAll(decodeModel(raw), `\`, "/")) },
}

func decodeModel(s string) string {
	if d, err := url.PathUnescape(s); err == nil {
		return d
	}
	return s
}

func withoutParams(s string) string {
	segments := strings.Split(s, "/")
	for i := range segments {
		segments[i], _, _ = strings.Cut(segments[i], ";")
	}
	return strings.Join(segments, "/")
}

// clean resolves segment by segment with a stack.
func clean(s string) string {
	var stack []string
	for segment := range strings.SplitSeq(s, "/") {
		switch segment {
		case "", ".":
		case "..":
			stack = stack[:max(0, len(stack)-1)]
		default:
			stack = append(stack, segment)
		}
	}
	return "/" + strings.Join(stack, "/")
}

// inside reports whether a model's path lies below a first segment. Rules
// ignore case by definition.
func inside(path, segment string) bool {
	first, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	return strings.EqualFold(first, segment)
}

type failer interface {
	Helper()
	Fatalf(format string, args ...any)
}

// checkAgainstModels fails when an upstream reads raw as inside the gate or
// outside the exemption and the rules disagree.
func checkAgainstModels(t failer, gate, public PathRules, raw string) {
	t.Helper()
	rs, err := ReadPaths(raw)
	if err != nil {
		if !errors.Is(err, ErrBadPath) {
			t.Fatalf("%q: %v", raw, err)
		}
		return
	}
	for name, model := range models {
		path := model(raw)
		if inside(path, "premium") && !gate.CoversAny(rs) {
			t.Fatalf("%s reads %q as %q, ungated; readings %q", name, raw, path, rs.All())
		}
		if !inside(path, "public") && public.CoversAll(rs) {
			t.Fatalf("%s reads %q as %q, exempt; readings %q", name, raw, path, rs.All())
		}
	}
}

// hostilePath draws paths from the words that path confusion is made of.
func hostilePath() *rapid.Generator[string] {
	words := rapid.SampledFrom([]string{
		"/", "/", "/", "public", "premium", "Premium", "..", ".", ";", ";a=b", `\`, "%2f", "%2F", "%5c", "%2e", "%252e",
		"%252f", "%255c", "%3b", "%253b", "%20", " ", "%70remium", "%2570ublic", "//", "%3f", "%23", "a", "é", "%E9", "%25",
	})
	return rapid.Map(rapid.SliceOfN(words, 0, 10), func(s []string) string { return "/" + strings.Join(s, "") })
}

func TestRulesAgreeWithModels(t *testing.T) {
	gate, public := mustRules(t, "/premium/*"), mustRules(t, "/public/*")
	rapid.Check(t, func(t *rapid.T) {
		checkAgainstModels(t, gate, public, hostilePath().Draw(t, "path"))
	})
}

// TestAnyOrderOfSteps builds upstreams at random: up to two decodings with
// other steps before, between and after them.
func TestAnyOrderOfSteps(t *testing.T) {
	gate, public := mustRules(t, "/premium/*"), mustRules(t, "/public/*")
	steps := map[string]func(string) string{
		"params":    withoutParams,
		"clean":     clean,
		"backslash": func(s string) string { return strings.ReplaceAll(s, `\`, "/") },
		"lower":     strings.ToLower,
	}
	names := rapid.SliceOfN(rapid.SampledFrom([]string{"params", "clean", "backslash", "lower"}), 0, 3)
	rapid.Check(t, func(t *rapid.T) {
		raw := hostilePath().Draw(t, "path")
		rs, err := ReadPaths(raw)
		if err != nil {
			return
		}
		path := raw
		for decoded := range rapid.IntRange(1, 3).Draw(t, "rounds") {
			if decoded > 0 {
				path = decodeModel(path)
			}
			for _, name := range names.Draw(t, "steps") {
				path = steps[name](path)
			}
		}
		if inside(path, "premium") && !gate.CoversAny(rs) || !inside(path, "public") && public.CoversAll(rs) {
			t.Fatalf("%q is read as %q; readings %q", raw, path, rs.All())
		}
	})
}

func FuzzReadings(f *testing.F) {
	gate, public := mustRules(f, "/premium/*"), mustRules(f, "/public/*")
	for _, raw := range []string{
		"/public/a", "/public/..;/premium/a", "/public/..%252fpremium", `/public/..\premium`, "/%70remium;%2f..%2fpublic",
		"//premium./a", "/public/%c0%ae%c0%ae/premium", "/prem%C5%BFium", "/public/100%25", "/x%2fy/%2e%2e/%70remium",
	} {
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		checkAgainstModels(t, gate, public, raw)
		rs, err := ReadPaths(raw)
		for _, s := range rs.All() {
			if s[0] != '/' || err != nil {
				t.Fatalf("%q: reading %q, error %v", raw, s, err)
			}
		}
	})
}

// hostilePaths are 64 KiB long and made to multiply.
func hostilePaths() map[string]string {
	fill := func(unit string) string { return "/" + strings.Repeat(unit, 1<<16/len(unit)) }
	return map[string]string{
		"mixed":    fill(`a%2f..;x\%252e. //%c0%af%255c `),
		"hosts":    fill("//a"),
		"percent":  "/%" + strings.Repeat("25", 1<<15),
		"params":   fill(";/"),
		"climbing": fill("a/../"),
		"climbs":   fill("../"),
		"dots":     fill(". "),
		"escapes":  fill("%41"),
		"unicode":  fill("ſ"),
		"wide":     fill("／"),
		"short":    "/" + strings.Repeat(`a%2f..;x\%252e. //%c0%af%255c?`, 20),
	}
}

func TestHostilePathsAreCheap(t *testing.T) {
	for name, raw := range hostilePaths() {
		start := time.Now()
		rs, err := ReadPaths(raw)
		// Milliseconds in truth; the rest is for slow machines and the race detector.
		if took := time.Since(start); took > time.Second {
			t.Errorf("%s took %v", name, took)
		}
		total := 0
		for _, s := range rs.All() {
			total += len(s)
		}
		if len(rs.All()) > maxReadings || total > maxReadingBytes {
			t.Errorf("%s has %d readings of %d bytes, %v", name, len(rs.All()), total, err)
		}
	}
}

func BenchmarkReadPaths(b *testing.B) {
	paths := map[string]string{
		"plain": "/assets/js/app.min.js", "upper": "/Assets/App.js", "escaped": "/files/a%20b.pdf", "ugly": "/public/..;/%70remium//a%2fb",
	}
	for name, raw := range hostilePaths() {
		paths["hostile-"+name] = raw
	}
	for name, raw := range paths {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				rs, _ := ReadPaths(raw, raw)
				n = len(rs.All())
			}
			b.ReportMetric(float64(n), "readings")
		})
	}
}

func TestPlainPathsDoNotAllocate(t *testing.T) {
	gate, public := mustRules(t, "/pro/*"), mustRules(t, "/public/*")
	raw := "/assets/js/app.min.js"
	if n := testing.AllocsPerRun(100, func() {
		rs, err := ReadPaths(raw, raw)
		if err != nil || gate.CoversAny(rs) || public.CoversAll(rs) {
			t.Error("misjudged")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func mustRules(t failer, patterns ...string) PathRules {
	t.Helper()
	p, err := ParsePathRules(patterns)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return p
}

func mustRead(t failer, raw ...string) Readings {
	t.Helper()
	rs, err := ReadPaths(raw...)
	if err != nil {
		t.Fatalf("%.100q: %v", raw, err)
	}
	return rs
}

package caddypolar

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// Every word that some block takes stands in the one table, with its block, and
// the table has no others.
func TestEveryWordIsInTheTable(t *testing.T) {
	told := make(map[string][]string) // block → words
	cell := regexp.MustCompile("^\\| `([a-z_]+)` \\| ([^|]+) \\|")
	page, err := os.ReadFile("docs/words.md")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(page)) {
		m := cell.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		for block := range strings.SplitSeq(m[2], ", ") {
			block = strings.ReplaceAll(block, "`", "")
			told[block] = append(told[block], m[1])
		}
	}
	delete(told, "global options")
	delete(told, "a site")

	const bad = "no_such_word"
	for block, text := range map[string]string{
		"polar":          "polar {\n" + bad + "\n}",
		"store":          "polar {\nstore bolt {\n" + bad + "\n}\n}",
		"jwt":            "polar {\njwt {\n" + bad + "\n}\n}",
		"session":        "polar {\nsession http://localhost {\n" + bad + "\n}\n}",
		"plan":           "polar {\nplan pro {\n" + bad + "\n}\n}",
		"grace":          "polar {\ngrace {\n" + bad + "\n}\n}",
		"checkout":       "polar {\ncheckout {\n" + bad + "\n}\n}",
		"assertion":      "polar {\nassertion {\n" + bad + "\n}\n}",
		"page":           "polar {\npage {\n" + bad + "\n}\n}",
		"sync":           "polar {\nsync {\n" + bad + "\n}\n}",
		"a site's polar": "polar {\n" + bad + "\n}",
		"polar_require":  "polar_require {\n" + bad + "\n}",
	} {
		d := caddyfile.NewTestDispenser(text)
		switch block {
		case "a site's polar":
			err = new(Handler).UnmarshalCaddyfile(d)
		case "polar_require":
			err = new(Gate).UnmarshalCaddyfile(d)
		default:
			_, err = parseGlobal(d, nil)
		}
		if err == nil {
			t.Fatalf("%s takes any word", block)
		}
		_, list, ok := strings.Cut(err.Error(), "expected one of ")
		list, _, _ = strings.Cut(list, ", at ")
		want := strings.Split(list, ", ")
		got := slices.Sorted(slices.Values(told[block]))
		if slices.Sort(want); !ok || !slices.Equal(got, want) {
			t.Errorf("%s takes %q, and the table has %q: %v", block, want, got, err)
		}
		delete(told, block)
	}
	if len(told) > 0 {
		t.Errorf("the table has blocks that are none: %q", slices.Sorted(maps.Keys(told)))
	}
}

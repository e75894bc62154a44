package caddypolar

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestSecurityDocumentNamesTests: what docs/security.md names as the proof of
// something is there: each line of its table names tests, each behind its file.
func TestSecurityDocumentNamesTests(t *testing.T) {
	document, err := os.ReadFile("docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(document), "\n|---|---|---|\n")
	quoted := regexp.MustCompile("`([^`]+)`")
	named := 0
	for line := range strings.Lines(table) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), " | ")
		if len(cells) != 3 {
			t.Fatalf("no three cells: %s", line)
		}
		file, code, before := "no file", "", named
		for _, match := range quoted.FindAllStringSubmatch(cells[2], -1) {
			name := match[1]
			if strings.HasSuffix(name, "_test.go") {
				file = name
				content, err := os.ReadFile(file)
				if err != nil {
					t.Error(err)
				}
				code = string(content)
				continue
			}
			named++
			if !strings.Contains(code, "\nfunc "+name+"(t *testing.T)") && !strings.Contains(code, "\nfunc "+name+"(f *testing.F)") {
				t.Errorf("%s has no %s", file, name)
			}
		}
		if named == before {
			t.Errorf("no test is named: %s", line)
		}
	}
	if named < 80 {
		t.Errorf("only %d tests are named: is the table read?", named)
	}
}

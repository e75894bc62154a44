package caddypolar

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestSecurityDocumentNamesTests: what docs/security.md names as the proof of
// something is there: each line of its tables names tests, each behind its file. Of
// the attempts some name none, and say so.
func TestSecurityDocumentNamesTests(t *testing.T) {
	document, err := os.ReadFile("docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	reports, attempts, ok := strings.Cut(string(document), "\n## Attempts\n")
	if !ok {
		t.Fatal("where are the attempts?")
	}
	const rule = "\n|---|---|---|\n"
	_, table, _ := strings.Cut(reports, rule)
	_, attempts, _ = strings.Cut(attempts, rule)
	table = strings.TrimSpace(table) + "\n" + attempts
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
		if named == before && !strings.HasPrefix(strings.TrimSpace(cells[2]), "none: ") {
			t.Errorf("no test is named: %s", line)
		}
	}
	if named < 80 {
		t.Errorf("only %d tests are named: is the table read?", named)
	}
}

// TestSecurityDocumentListsFuzzTargets: the table of what comes in from outside has
// every fuzz target, and no other.
func TestSecurityDocumentListsFuzzTargets(t *testing.T) {
	document, err := os.ReadFile("docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(document), "| what | targets |")
	table, _, _ = strings.Cut(table, "\n## ")
	var listed, there []string
	folder := ""
	for _, match := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(table, -1) {
		switch name := match[1]; {
		case strings.HasPrefix(name, "Fuzz"):
			listed = append(listed, folder+" "+name)
		case strings.ToLower(name) == name: // a package
			folder = name
		}
	}
	target := regexp.MustCompile(`(?m)^func (Fuzz\w+)\(f \*testing\.F\)`)
	err = filepath.WalkDir(".", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		code, err := os.ReadFile(path)
		for _, match := range target.FindAllStringSubmatch(string(code), -1) {
			there = append(there, filepath.ToSlash(filepath.Dir(path))+" "+match[1])
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(listed)
	slices.Sort(there)
	if !slices.Equal(listed, there) || len(there) < 25 {
		t.Errorf("listed are\n%s\nand there are\n%s", strings.Join(listed, "\n"), strings.Join(there, "\n"))
	}
}

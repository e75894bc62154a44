package caddypolar

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// licenceWords are how we know a licence.
var licenceWords = map[string]string{
	"Apache-2.0":   "Apache License Version 2.0",
	"BSD-3-Clause": "Neither the name of",
	"MIT":          "Permission is hereby granted, free of charge",
	"MPL-2.0":      "Mozilla Public License Version 2.0",
}

// TestDependenciesDocument: docs/dependencies.md lists what go.mod requires directly,
// says what for, and under the licence that each has.
func TestDependenciesDocument(t *testing.T) {
	document, err := os.ReadFile("docs/dependencies.md")
	if err != nil {
		t.Fatal(err)
	}
	listed := make(map[string]string) // path → licence
	for line := range strings.Lines(string(document)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "| "), " | ")
		path, ok := strings.CutPrefix(cells[0], "`")
		if len(cells) != 4 || !ok {
			continue
		}
		listed[strings.TrimSuffix(path, "`")] = cells[2]
		if cells[1] == "" || cells[3] == "" {
			t.Errorf("something is empty: %s", line)
		}
	}
	raw, err := exec.Command("go", "mod", "edit", "-json").Output()
	if err != nil {
		t.Fatal(err)
	}
	var mod struct {
		Require []struct {
			Path     string
			Indirect bool
		}
	}
	if err := json.Unmarshal(raw, &mod); err != nil {
		t.Fatal(err)
	}
	required := 0
	for _, r := range mod.Require {
		if r.Indirect {
			continue
		}
		required++
		words, known := licenceWords[listed[r.Path]]
		if !known {
			t.Errorf("%s is not listed, or under no licence we know: %q", r.Path, listed[r.Path])
			continue
		}
		if text := licenceOf(t, r.Path); !strings.Contains(text, words) {
			t.Errorf("%s is not under %s: %.200s", r.Path, listed[r.Path], text)
		}
	}
	if required != len(listed) || required == 0 {
		t.Errorf("%d are required directly, and %d listed", required, len(listed))
	}
}

// licenceOf is the text of a module's licence, in one line.
func licenceOf(t *testing.T, module string) string {
	t.Helper()
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", module).Output()
	if err != nil {
		t.Fatal(module, err)
	}
	files, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(dir)), "LICENSE*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%s has no licence: %v", module, err)
	}
	slices.Sort(files)
	text, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(strings.Fields(string(text)), " ")
}

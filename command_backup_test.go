package caddypolar

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/caddy-polar/caddy-polar/cache"
	"github.com/caddy-polar/caddy-polar/entitlement"
)

// adminSite is a gateway whose admin API listens on a socket.
type adminSite struct {
	t      *testing.T
	app    *App
	dir    string
	before func(http.Handler) http.Handler // what stands before it
}

func newAdminSite(t *testing.T) *adminSite {
	t.Helper()
	s := &adminSite{t: t, dir: t.TempDir(), before: func(h http.Handler) http.Handler { return h }}
	s.app, _ = provisioned(t, "plan pro "+testProduct)
	take(t, s.app.Gateways["default"], activeNow(t))
	listener, err := net.Listen("unix", filepath.Join(s.dir, "a.sock"))
	if err != nil {
		t.Fatal(err)
	}
	a := newAdminAPI(t, s.app)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.before(a.http).ServeHTTP(w, r) }))
	server.Listener = listener
	server.Start()
	t.Cleanup(server.Close)
	return s
}

// runs is a command that talks to the site.
func (s *adminSite) runs(cmd *cobra.Command, args ...string) (out string, err error) {
	return run(s.t, cmd, append(args, "--address", "unix/"+filepath.Join(s.dir, "a.sock"))...)
}

func run(t *testing.T, cmd *cobra.Command, args ...string) (out string, err error) {
	var b bytes.Buffer
	cmd.SetArgs(args)
	cmd.SetOut(&b)
	cmd.SetErr(&b)
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	err = cmd.ExecuteContext(t.Context())
	return b.String(), err
}

// wantRefusal wants an error of one line that says some words.
func wantRefusal(t *testing.T, name string, err error, says ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("%s: it succeeds", name)
		return
	}
	for _, word := range says {
		if !strings.Contains(err.Error(), word) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %q, without %q", name, err, word)
		}
	}
}

// wantFiles wants no other files in a directory.
func wantFiles(t *testing.T, dir string, names ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if fmt.Sprint(got) != fmt.Sprint(names) {
		t.Errorf("there are %q, want %q", got, names)
	}
}

// TestBackupAndRestore takes a store to another place.
func TestBackupAndRestore(t *testing.T) {
	s := newAdminSite(t)
	file := filepath.Join(s.dir, "b.db")
	said, err := s.runs(backupCommand(), file)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(file)
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("%v, mode %v", err, info.Mode())
	}
	wantSaid(t, said, "file             "+file, "gateway          default", "server           https://api.polar.sh",
		"bytes            "+strconv.FormatInt(info.Size(), 10), "objects          2", "  customers      1", "  subscriptions  1")
	wantFiles(t, filepath.Dir(s.app.Gateways["default"].mirror.Path()), "polar.db")

	said, err = s.runs(backupCommand(), filepath.Join(s.dir, "c.db"), "--json")
	var told copiedView
	if err != nil || json.Unmarshal([]byte(said), &told) != nil || told.Objects["subscriptions"] != 1 || told.Bytes != info.Size() {
		t.Errorf("%v: %s", err, said)
	}
	wantFiles(t, s.dir, "a.sock", "b.db", "c.db")

	store := filepath.Join(t.TempDir(), "polar.db")
	said, err = run(t, restoreCommand(), file, "--to", store, "--organization", told.Organization)
	if err != nil {
		t.Fatal(err)
	}
	wantSaid(t, said, "file             "+store, "gateway          default", "objects          2")
	restored, original := cache.New(store), s.app.Gateways["default"].mirror
	defer restored.Close()
	if _, err := restored.Claim(cache.Owner{Gateway: "default", Server: serverProduction}); err != nil {
		t.Fatal(err)
	}
	for _, of := range []*cache.Store{restored, original} {
		if a, err := of.Account(testUser); err != nil || len(a.Subscriptions) != 1 {
			t.Errorf("%s: %v, %v", of.Path(), a, err)
		}
	}
	if info, err := os.Stat(store); err != nil || info.Mode() != 0o600 {
		t.Errorf("%v, mode %v", err, info.Mode())
	}
}

// TestBackupRefuses: nothing is overwritten, and what is not whole is no backup.
func TestBackupRefuses(t *testing.T) {
	s := newAdminSite(t)
	fine := s.before
	answers := func(edit func(h http.Header, body []byte) []byte) func(http.Handler) http.Handler {
		return func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				rec := newRecorder()
				next.ServeHTTP(rec, r)
				body := edit(rec.Header(), rec.Body.Bytes())
				for name, values := range rec.Header() {
					w.Header()[name] = values
				}
				_, _ = w.Write(body)
			})
		}
	}
	if err := os.WriteFile(filepath.Join(s.dir, "mine"), []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		file   string
		before func(http.Handler) http.Handler
		says   []string
	}{
		"a file is there":      {"mine", fine, []string{"mine is there already", "move it away"}},
		"a directory is there": {".", fine, []string{"is there already"}},
		"no directory":         {"none/b.db", fine, []string{"there is no directory", "make it first"}},
		"cut short":            {"b", answers(func(_ http.Header, b []byte) []byte { return b[:len(b)/2] }), []string{"broke off", "run it again"}},
		"altered": {"b", answers(func(_ http.Header, b []byte) []byte {
			b[len(b)/2] ^= 1
			return b
		}), []string{"altered on its way", "run it again"}},
		"no store": {"b", answers(func(h http.Header, _ []byte) []byte {
			h.Set("Content-Length", "0")
			h.Set("Content-Digest", "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:")
			return nil
		}), []string{"cannot be restored", "it is empty"}},
		"something else": {"b", answers(func(h http.Header, b []byte) []byte { h.Del("Content-Digest"); return b }), []string{"not as expected"}},
	} {
		s.before = tt.before
		_, err := s.runs(backupCommand(), filepath.Join(s.dir, tt.file))
		wantRefusal(t, name, err, tt.says...)
	}
	s.before = fine
	_, err := s.runs(backupCommand(), filepath.Join(s.dir, "b"), "--gateway", "nope")
	wantRefusal(t, "no such gateway", err, `"nope"`)
	wantFiles(t, s.dir, "a.sock", "mine")
	if b, err := os.ReadFile(filepath.Join(s.dir, "mine")); err != nil || string(b) != "mine" {
		t.Errorf("%v, %s", err, b)
	}
}

// TestRestoreRefuses: each wrong input is one line, and nothing is made of it.
func TestRestoreRefuses(t *testing.T) {
	s := newAdminSite(t)
	backup := filepath.Join(s.dir, "b.db")
	if _, err := s.runs(backupCommand(), backup); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(backup)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name string, content []byte) string {
		path := filepath.Join(s.dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	running := s.app.Gateways["default"].mirror.Path()
	target := t.TempDir()
	there := filepath.Join(target, "there.db")
	if err := os.WriteFile(there, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(target, "polar.db")
	for name, tt := range map[string]struct {
		args []string
		says []string
	}{
		"no file":              {[]string{filepath.Join(s.dir, "none"), "--to", to}, []string{"none: ", "does not exist", "path of a backup"}},
		"not a store":          {[]string{write("text", bytes.Repeat([]byte("text"), 9000)), "--to", to}, []string{"no store at all", "take another"}},
		"empty":                {[]string{write("empty", nil), "--to", to}, []string{"it is empty"}},
		"truncated":            {[]string{write("cut", whole[:len(whole)-1]), "--to", to}, []string{"it has", "take another"}},
		"another gateway":      {[]string{backup, "--to", to, "--gateway", "shop"}, []string{`"default", not "shop"`, "--gateway"}},
		"another server":       {[]string{backup, "--to", to, "--server", "sandbox"}, []string{"https://api.polar.sh, not https://sandbox-api.polar.sh", "--server"}},
		"another organization": {[]string{backup, "--to", to, "--organization", "nope"}, []string{"not nope", "--organization"}},
		"no server":            {[]string{backup, "--to", to, "--server", "moon"}, []string{"--server", "neither production, sandbox nor"}},
		"target exists":        {[]string{backup, "--to", there}, []string{"there.db is there already", "move it away"}},
		"target in use":        {[]string{backup, "--to", running}, []string{"another process has the store open", "stop that Caddy"}},
		"no directory":         {[]string{backup, "--to", filepath.Join(target, "none", "polar.db")}, []string{"there is no directory", "make it first"}},
		"a store in use":       {[]string{running, "--to", to}, []string{"open", "caddy polar backup"}},
		"no target":            {[]string{backup}, []string{`"to" not set`}},
	} {
		_, err := run(t, restoreCommand(), tt.args...)
		wantRefusal(t, name, err, tt.says...)
	}
	wantFiles(t, target, "there.db")
	if b, _ := os.ReadFile(there); string(b) != "mine" {
		t.Errorf("it was overwritten: %s", b)
	}
	if now, _ := os.ReadFile(backup); !bytes.Equal(now, whole) {
		t.Error("the backup has changed")
	}
}

// TestWriteNewIsWhole: who comes first keeps the name, and nothing is left behind.
func TestWriteNewIsWhole(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	err := writeNew(t.Context(), path, func(_ context.Context, f *os.File) error {
		if info, err := f.Stat(); err != nil || info.Mode() != 0o600 {
			t.Errorf("%v %v", info.Mode(), err)
		}
		if _, err := os.Stat(path); err == nil {
			t.Error("it is there before it is whole")
		}
		return os.WriteFile(path, []byte("another's"), 0o600)
	})
	wantRefusal(t, "somebody else was first", err, "is there already")
	if b, _ := os.ReadFile(path); string(b) != "another's" {
		t.Errorf("%s", b)
	}
	if err := writeNew(t.Context(), filepath.Join(dir, "g"), func(context.Context, *os.File) error { return fs.ErrInvalid }); err != fs.ErrInvalid {
		t.Error(err)
	}
	err = writeNew(t.Context(), filepath.Join(dir, "h"), func(ctx context.Context, _ *os.File) error {
		if err := syscall.Kill(os.Getpid(), syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
		<-ctx.Done()
		return context.Cause(ctx)
	})
	wantRefusal(t, "Ctrl-C", err, "interrupt")
	wantFiles(t, dir, "f")
}

// TestExport: all that is held, as JSON lines and as CSV that no spreadsheet takes
// for formulas.
func TestExport(t *testing.T) {
	s := newAdminSite(t)
	const evil = `=HYPERLINK("http://evil.example.com")`
	g := s.app.Gateways["default"].core
	if _, err := g.GivePass(t.Context(), evil, "pro", time.Date(2099, 1, 2, 0, 0, 0, 0, time.UTC), "-1+1"); err != nil {
		t.Fatal(err)
	}
	var many cache.Facts // more than a page
	for i := range exportAtMost {
		many.Passes = append(many.Passes, entitlement.Pass{ID: fmt.Sprint("p", i), User: fmt.Sprintf("u%04d", i), Plan: "pro"})
	}
	if _, err := s.app.Gateways["default"].mirror.Apply(t.Context(), &many); err != nil {
		t.Fatal(err)
	}
	out, err := s.runs(exportCommand())
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for line := range strings.Lines(out) {
		var h holdingView
		d := json.NewDecoder(strings.NewReader(line))
		d.DisallowUnknownFields()
		if err := d.Decode(&h); err != nil || h.User == "" || seen[h.User] {
			t.Fatalf("%v: %s", err, line)
		}
		seen[h.User] = true
		if len(seen) <= 2 {
			shown, err := s.runs(showCommand(), h.User, "--json")
			var compact bytes.Buffer
			if err != nil || json.Compact(&compact, []byte(shown)) != nil || compact.String() != strings.TrimSpace(line) {
				t.Errorf("%v: show says\n%sexport\n%s", err, shown, line)
			}
		}
	}
	if len(seen) != exportAtMost+2 || !seen[testUser] || !seen[evil] {
		t.Errorf("%d users", len(seen))
	}

	file := filepath.Join(s.dir, "users.csv")
	said, err := s.runs(exportCommand(), "--format", "csv", "--out", file)
	if err != nil {
		t.Fatal(err)
	}
	wantSaid(t, said, "file   "+file, "users  "+strconv.Itoa(exportAtMost+2))
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	table, err := csv.NewReader(f).ReadAll()
	if err != nil || len(table) != exportAtMost+3 {
		t.Fatalf("%v: %d lines", err, len(table))
	}
	cell := func(line int, column string) string {
		for i, name := range table[0] {
			if name == column {
				return table[line][i]
			}
		}
		t.Fatalf("there is no column %s", column)
		return ""
	}
	for column, want := range map[string]string{
		"user": "'" + evil, "kind": "pass", "plan": "pro", "until": "2099-01-02T00:00:00Z", "reason": "'-1+1", "status": "", "productId": "",
	} {
		if got := cell(1, column); got != want {
			t.Errorf("%s is %q, want %q", column, got, want)
		}
	}
	for column, want := range map[string]string{"user": testUser, "kind": "subscription", "status": "active", "cancelAtPeriodEnd": "false", "plan": ""} {
		if got := cell(len(table)-1, column); got != want {
			t.Errorf("%s is %q, want %q", column, got, want)
		}
	}
	if strings.Contains(out, "@example.org") || strings.Contains(fmt.Sprint(table), "@example.org") {
		t.Error("there are e-mails in it")
	}

	_, err = s.runs(exportCommand(), "--format", "csv", "--out", file)
	wantRefusal(t, "a file is there", err, "is there already")
	_, err = s.runs(exportCommand(), "--format", "xml")
	wantRefusal(t, "no format", err, "jsonl or csv")
	_, err = s.runs(exportCommand(), "--format", "csv", "--json")
	wantRefusal(t, "two formats", err, "--json")
	wantFiles(t, s.dir, "a.sock", "users.csv")
}

func TestUnformula(t *testing.T) {
	for cell, want := range map[string]string{
		"": "", "ada": "ada", "=1": "'=1", "+1": "'+1", "-1": "'-1", "@SUM": "'@SUM", "a;=1": "a;'=1", " =1": "' =1", "\ufeff=1": "'\ufeff=1", "＝1": "'＝1", "a=1": "a=1", "'=1": "'=1", "ada@example.com": "ada@example.com",
	} {
		if got := unformula(cell); got != want {
			t.Errorf("%q becomes %q, want %q", cell, got, want)
		}
	}
}

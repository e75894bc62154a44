package main

import (
	"bytes"
	"context"
	"debug/buildinfo"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// The peers, in the versions that the rows are about.
const (
	caddyJWT      = "github.com/ggicci/caddy-jwt@v1.1.1"
	caddySecurity = "github.com/greenpau/caddy-security@v1.1.64"
	oauth2Proxy   = "github.com/oauth2-proxy/oauth2-proxy/v7@v7.15.3"
)

// build makes what the rows need. What cannot be had is noted, with the reason.
func (l *lab) build(ctx context.Context, rows []*row) {
	needed := map[string]bool{}
	for _, r := range rows {
		needed[r.server] = true
	}
	for _, b := range []struct {
		server string
		build  func(ctx context.Context, bin string) error
	}{
		{"plain", func(ctx context.Context, bin string) error { return l.buildCaddy(ctx, bin, "") }},
		{"ours", func(ctx context.Context, bin string) error {
			return l.run(ctx, "..", "go", "build", "-trimpath", "-ldflags=-s -w", "-o", bin, "./cmd/caddy")
		}},
		{"caddy-jwt", func(ctx context.Context, bin string) error { return l.buildCaddy(ctx, bin, caddyJWT) }},
		{"caddy-security", func(ctx context.Context, bin string) error { return l.buildCaddy(ctx, bin, caddySecurity) }},
		{"oauth2-proxy", l.buildOAuth2Proxy},
		{"nginx", func(ctx context.Context, bin string) error {
			found, err := exec.LookPath("nginx")
			if err != nil {
				return errors.New("nginx is not installed")
			}
			return os.Symlink(found, bin)
		}},
	} {
		if !needed[b.server] {
			continue
		}
		if err := b.build(ctx, l.bin(b.server)); err != nil {
			l.absent[b.server] = "not available here: " + err.Error()
			fmt.Printf("  %s: %s\n", b.server, l.absent[b.server])
			continue
		}
		l.versions[b.server] = l.version(ctx, b.server)
		fmt.Printf("  %s: %s\n", b.server, l.versions[b.server])
	}
}

func (l *lab) bin(server string) string { return filepath.Join(l.dir, server) }

// buildCaddy builds Caddy with a module, or with none, as xcaddy does. It begins
// with our own go.mod, so that all else is in the same versions in all of them.
func (l *lab) buildCaddy(ctx context.Context, bin, module string) error {
	src := bin + ".src"
	if err := os.MkdirAll(src, 0o755); err != nil {
		return err
	}
	for _, name := range []string{"go.mod", "go.sum"} {
		raw, err := os.ReadFile(filepath.Join("..", name))
		if err == nil {
			err = os.WriteFile(filepath.Join(src, name), raw, 0o644)
		}
		if err != nil {
			return err
		}
	}
	imports := "\t_ \"github.com/caddyserver/caddy/v2/modules/standard\"\n"
	if path, _, ok := strings.Cut(module, "@"); ok {
		imports += fmt.Sprintf("\t_ %q\n", path)
	}
	main := "package main\n\nimport (\n\tcaddycmd \"github.com/caddyserver/caddy/v2/cmd\"\n" + imports + ")\n\nfunc main() { caddycmd.Main() }\n"
	if err := os.WriteFile(filepath.Join(src, "main.go"), []byte(main), 0o644); err != nil {
		return err
	}
	steps := [][]string{{"go", "mod", "edit", "-module=bench.invalid/caddy"}}
	if module != "" {
		steps = append(steps, []string{"go", "get", module})
	}
	steps = append(steps, []string{"go", "build", "-mod=mod", "-trimpath", "-ldflags=-s -w", "-o", bin, "."})
	return l.runAll(ctx, src, steps)
}

// buildOAuth2Proxy builds it in the versions of its own go.mod.
func (l *lab) buildOAuth2Proxy(ctx context.Context, bin string) error {
	src := bin + ".src"
	if err := os.MkdirAll(src, 0o755); err != nil {
		return err
	}
	path, _, _ := strings.Cut(oauth2Proxy, "@")
	return l.runAll(ctx, src, [][]string{
		{"go", "mod", "init", "bench.invalid/oauth2-proxy"},
		{"go", "get", oauth2Proxy},
		{"go", "build", "-mod=mod", "-trimpath", "-ldflags=-s -w", "-o", bin, path},
	})
}

func (l *lab) runAll(ctx context.Context, dir string, commands [][]string) error {
	for _, command := range commands {
		if err := l.run(ctx, dir, command...); err != nil {
			return err
		}
	}
	return nil
}

// readingRE is what the go command says at length when it cannot download.
var readingRE = regexp.MustCompile(`reading https?://\S+ |server response: `)

// run runs a command. Its error is what the command said last.
func (l *lab) run(ctx context.Context, dir string, command ...string) error {
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "GOWORK=off")
	out, err := cmd.CombinedOutput()
	if err != nil {
		said := readingRE.ReplaceAllString(string(out), "")
		return fmt.Errorf("%s: %s", strings.Join(command[:min(2, len(command))], " "), reason(said, err))
	}
	return nil
}

// reason shortens what a failed command said to what is worth a cell of a table.
func reason(said string, err error) string {
	said = strings.Join(strings.Fields(strings.ReplaceAll(said, "|", "/")), " ")
	if said == "" {
		return err.Error()
	}
	const most = 160
	if len(said) > most {
		return "…" + strings.ToValidUTF8(said[len(said)-most:], "")
	}
	return said
}

var nginxVersionRE = regexp.MustCompile(`nginx/[0-9.]+`)

// version says what was built, from the binary itself.
func (l *lab) version(ctx context.Context, server string) string {
	if server == "nginx" {
		out, _ := exec.CommandContext(ctx, l.bin(server), "-v").CombinedOutput()
		return string(nginxVersionRE.Find(out))
	}
	info, err := buildinfo.ReadFile(l.bin(server))
	if err != nil {
		return err.Error()
	}
	var parts []string
	shown := []string{
		"github.com/caddyserver/caddy/v2", "github.com/ggicci/caddy-jwt", "github.com/greenpau/caddy-security",
		"github.com/oauth2-proxy/oauth2-proxy/v7",
	}
	for _, module := range append(info.Deps, &info.Main) {
		if slices.Contains(shown, module.Path) {
			parts = append(parts, strings.TrimPrefix(module.Path, "github.com/")+" "+module.Version)
		}
	}
	if server == "ours" {
		out, err := exec.CommandContext(ctx, "git", "-C", "..", "describe", "--always", "--dirty").Output()
		if err == nil {
			parts = append(parts, "caddy-polar "+string(bytes.TrimSpace(out)))
		}
	}
	return strings.Join(append(parts, info.GoVersion), ", ")
}

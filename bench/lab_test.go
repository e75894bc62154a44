package main

import (
	"os"
	"path"
	"regexp"
	"strings"
	"testing"
)

// Each configuration can be written, and has the sites of all rows.
func TestConfigurations(t *testing.T) {
	l, err := newLab(t.TempDir(), &options{users: 2})
	if err != nil {
		t.Fatal(err)
	}
	written := map[string]string{}
	for _, name := range []string{"plain.caddyfile", "ours.caddyfile", "caddy-jwt.caddyfile", "caddy-security.caddyfile", "nginx.conf"} {
		file, err := l.config(name)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		written[strings.TrimSuffix(name, path.Ext(name))] = string(raw)
	}
	for _, r := range allRows() {
		config, ok := written[r.server]
		if port := regexp.MustCompile(`:\d+`).FindString(l.addr(r.site)); ok && !strings.Contains(config, port) {
			t.Errorf("%s: %s has no site %s", r.Name, r.server, r.site)
		}
	}
	if strings.Contains(written["ours"], l.secret) || strings.Contains(written["ours"], l.webhook) {
		t.Error("a secret stands in our configuration, which is warned about")
	}
	for name := range l.held {
		_ = l.held[name].Close()
	}
}

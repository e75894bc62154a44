package postgres

import (
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

const secret = "canary-3f9a"

func parse(text string) (*Store, error) {
	s := new(Store)
	err := s.UnmarshalCaddyfile(caddyfile.NewTestDispenser(text))
	return s, err
}

func TestCaddyfile(t *testing.T) {
	s, err := parse("postgres {\ndsn {env.DATABASE_URL}\nschema shop\n}")
	if err != nil || s.DSN != "{env.DATABASE_URL}" || s.Schema != "shop" {
		t.Errorf("%+v, %v", s, err)
	}
	for _, c := range [][2]string{
		{"postgres", "needs a dsn"},
		{"postgres x {\n}", "argument"},
		{"postgres {\nschema x\n}", "needs a dsn"},
		{"postgres {\ndsn\n}", "exactly one"},
		{"postgres {\ndsn " + secret + "\ndsn x\n}", "twice"},
		{"postgres {\ndsn x\npath " + secret + "\n}", "expected one of dsn, schema"},
		{"postgres {\ndsn host=x user=" + secret + "}", "exactly one"},
	} {
		text, says := c[0], c[1]
		if _, err := parse(text); err == nil || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), ":1") && !strings.Contains(err.Error(), ":2") && !strings.Contains(err.Error(), ":3") || strings.Contains(err.Error(), secret) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// TestOpen: one database has one store in a process, which goes with the last that uses
// it. What is wrong is said without what is secret.
func TestOpen(t *testing.T) {
	t.Setenv("TEST_DSN", "postgres://ada:"+secret+"@127.0.0.1:1/x")
	core, logs := observer.New(zap.WarnLevel)
	of := func(dsn, schema string) *Store { return &Store{DSN: dsn, Schema: schema, logger: zap.New(core)} }
	one, same, other := of("{env.TEST_DSN}", ""), of("{env.TEST_DSN}", ""), of("{env.TEST_DSN}", "shop")
	a, err := one.Open("", nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := same.Open("", nil)
	if err != nil || a != b {
		t.Error("one database has two stores", err)
	}
	c, err := other.Open("", nil)
	if err != nil || a == c {
		t.Error("two schemas have one store", err)
	}
	if logs.Len() > 0 {
		t.Error(logs.All())
	}
	for _, s := range []*Store{one, other} {
		if err := s.Release(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := a.Account("ada"); err == nil || strings.Contains(err.Error(), "closed") {
		t.Errorf("the store went away with another configuration: %v", err)
	}
	for range 2 {
		if err := same.Release(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := a.Account("ada"); err == nil || !strings.Contains(err.Error(), "closed") {
		t.Errorf("the store is there although nobody uses it: %v", err)
	}
	for _, c := range []struct{ dsn, schema, says string }{
		{"", "", "needs a dsn"},
		{"{env.NOTHING_HERE}", "", "placeholder"},
		{"postgres://ada:" + secret + "@host:port/x", "", "cannot be read"},
		{"{env.TEST_DSN}", "Shop; DROP", "lower-case"},
	} {
		if _, err := of(c.dsn, c.schema).Open("", nil); err == nil || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), secret) {
			t.Errorf("%+v: %v", c, err)
		}
	}
	if logs.FilterMessageSnippet("literally").Len() != 1 || strings.Contains(logs.All()[0].Message, secret) {
		t.Error("a literal password is not warned of")
	}
}

// TestLiteralSecrets: a password that is not a placeholder is found, however it is written.
func TestLiteralSecrets(t *testing.T) {
	for dsn, literal := range map[string]bool{
		"{env.DATABASE_URL}":                                   false,
		"{file./run/secrets/dsn}":                              false,
		"postgres://ada@host/db":                               false,
		"postgres://ada:{env.PASSWORD}@host/db":                false,
		"postgres://ada:{file./run/password}@host/db":          false,
		"host=h user=ada password={env.PASSWORD}":              false,
		"postgres://ada:" + secret + "@host/db":                true,
		"postgres://ada:" + secret + "@{env.HOST}/db":          true,
		"postgresql://ada:x{env.PASSWORD}@host/db":             true,
		"postgres://host/db?user=ada&password=" + secret:       true,
		"host=h user=ada password=" + secret:                   true,
		"host=h user=ada PASSWORD = '" + secret + "' dbname=x": true,
	} {
		if got := (&Store{DSN: dsn}).LiteralSecrets(); (len(got) > 0) != literal {
			t.Errorf("%s: %v", dsn, got)
		}
	}
}

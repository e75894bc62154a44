// Package postgres is the Caddy module `store postgres`: the mirror in a PostgreSQL
// database, which several gateways share. Importing it puts it into a build.
package postgres

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"go.uber.org/zap"

	"github.com/caddy-polar/caddy-polar/cache"
	"github.com/caddy-polar/caddy-polar/cache/kv/postgres"
)

func init() {
	caddy.RegisterModule(Store{})
}

// stores are those of the process, by connection string and schema: every configuration
// that names the same shares one.
var stores = caddy.NewUsagePool()

type pooled struct{ *cache.Store }

func (p pooled) Destruct() error { return p.Close() }

// Store keeps the mirror in a PostgreSQL database. Several gateways can share it: each
// has its own memory, and hears within a second of what the others have written.
type Store struct {
	// DSN is the connection string or URL, with user and password: write
	// {env.DATABASE_URL} or {file./path}. Needed. Parameters of libpq and pool_max_conns
	// count.
	DSN string `json:"dsn,omitempty"`

	// Schema has the tables, one for each gateway with an organization of its own.
	// Default: polar.
	Schema string `json:"schema,omitempty"`

	key      string
	acquired bool
	logger   *zap.Logger
}

// CaddyModule returns the Caddy module information.
func (Store) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "polar.stores.postgres",
		New: func() caddy.Module { return new(Store) },
	}
}

// Provision readies the logger.
func (s *Store) Provision(ctx caddy.Context) error {
	s.logger = ctx.Logger()
	return nil
}

// literalDSN is how the doctor calls a password in the configuration.
const literalDSN = "store: dsn"

var (
	// passwordREs find what a connection string has for a password.
	passwordREs = []*regexp.Regexp{
		regexp.MustCompile(`^[a-z]+://[^/:@]*:([^/]*)@`), regexp.MustCompile(`(?i)[?&]password=([^&]*)`), regexp.MustCompile(`(?i)(?:^|\s)password\s*=\s*('[^']*'|\S*)`),
	}
	placeholderRE = regexp.MustCompile(`\{[^{}]+\}`)
)

// LiteralSecrets says which secrets stand in the configuration itself, where others see
// them: a password, or a part of it, that is no placeholder.
func (s *Store) LiteralSecrets() []string {
	for _, re := range passwordREs {
		if m := re.FindStringSubmatch(s.DSN); m != nil && placeholderRE.ReplaceAllString(m[1], "") != "" {
			return []string{literalDSN}
		}
	}
	return nil
}

var schemaRE = regexp.MustCompile(`^[a-z_][a-z0-9_]{0,62}$`)

// Open returns the store. Nothing is connected to before it is used.
func (s *Store) Open(_ string, observe func(cache.Op, time.Duration, error)) (*cache.Store, error) {
	if s.DSN == "" {
		return nil, errors.New("postgres: it needs a dsn: add `dsn {env.DATABASE_URL}`")
	}
	dsn, err := caddy.NewReplacer().ReplaceOrErr(s.DSN, true, true)
	if err != nil || strings.TrimSpace(dsn) == "" {
		return nil, errors.New("postgres: dsn: a placeholder in it is unknown or empty") // the rest may be secret
	}
	if len(s.LiteralSecrets()) > 0 {
		s.logger.Warn("a secret stands literally in the configuration: write {env.NAME} or {file./path}", zap.String("subdirective", literalDSN))
	}
	if s.Schema != "" && !schemaRE.MatchString(s.Schema) {
		return nil, fmt.Errorf("postgres: schema: %q must be of lower-case letters, digits and _", s.Schema)
	}
	key := dsn + "\n" + s.Schema
	v, _, err := stores.LoadOrNew(key, func() (caddy.Destructor, error) {
		engine, err := postgres.New(postgres.Options{DSN: dsn, Schema: s.Schema, Buckets: cache.Buckets(), Columns: columns, Views: views})
		if err != nil {
			return nil, err
		}
		store := cache.NewStore(engine)
		store.Observe(observe)
		return pooled{store}, nil
	})
	if err != nil {
		return nil, fmt.Errorf("postgres: dsn: %w", err)
	}
	s.key, s.acquired = key, true
	return v.(pooled).Store, nil
}

// Release lets go of what Open took, if it took anything.
func (s *Store) Release() error {
	if !s.acquired {
		return nil
	}
	s.acquired = false
	_, err := stores.Delete(s.key)
	return err
}

// UnmarshalCaddyfile sets up the store from its words:
//
//	store postgres {
//		dsn    <connection string>
//		schema <name>
//	}
func (s *Store) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the module's name
	if d.NextArg() {
		return d.ArgErr()
	}
	words := map[string]*string{"dsn": &s.DSN, "schema": &s.Schema}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		word := d.Val()
		to, ok := words[word]
		switch args := d.RemainingArgs(); {
		case !ok:
			return d.Errf("unknown subdirective %q: expected one of dsn, schema", word)
		case *to != "":
			return d.Errf("%s is given twice", word)
		case len(args) != 1 || args[0] == "":
			return d.Errf("%s takes exactly one argument, which is not empty", word)
		default:
			*to = args[0]
		}
	}
	if s.DSN == "" {
		return d.Err("store postgres needs a dsn: add `dsn {env.DATABASE_URL}`")
	}
	return nil
}

// Interface guards
var (
	_ caddy.Provisioner     = (*Store)(nil)
	_ caddyfile.Unmarshaler = (*Store)(nil)
)

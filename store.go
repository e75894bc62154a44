package caddypolar

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-polar/caddy-polar/cache"
)

func init() {
	caddy.RegisterModule(BoltStore{})
}

// StoreModule is a module of the namespace polar.stores: where a gateway keeps
// its mirror of Polar's objects.
type StoreModule interface {
	// Open returns the store. byDefault is the file to use when none is
	// configured. Nothing is read or written before the store is used, of which observe
	// is told: see cache.Store.Observe.
	Open(byDefault string, observe func(cache.Op, time.Duration, error)) (*cache.Store, error)
	// Release lets go of what Open took, if it took anything.
	Release() error
	// A module with secrets also has LiteralSecrets() []string: which of them stand in the
	// configuration itself.
}

// stores holds the open files of the process, by path alone: a bbolt file can
// be opened once, so every configuration that names it shares it, whatever
// else it says.
var stores = caddy.NewUsagePool()

type pooledStore struct{ *cache.Store }

func (p pooledStore) Destruct() error { return p.Close() }

// BoltStore keeps the mirror in one embedded bbolt file, which belongs to one
// process at a time and survives reloads.
type BoltStore struct {
	// Path is the file. Default: polar/<gateway>.db in Caddy's data directory.
	Path string `json:"path,omitempty"`

	key      string
	acquired bool
}

// CaddyModule returns the Caddy module information.
func (BoltStore) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "polar.stores.bolt",
		New: func() caddy.Module { return new(BoltStore) },
	}
}

// Open implements StoreModule.
func (b *BoltStore) Open(byDefault string, observe func(cache.Op, time.Duration, error)) (*cache.Store, error) {
	path, err := expand("path", orDefault(b.Path, byDefault))
	if err != nil {
		return nil, fmt.Errorf("bolt: %w", err)
	}
	if path, err = filepath.Abs(path); err != nil {
		return nil, fmt.Errorf("bolt: path: %w", err)
	}
	b.key = realPath(path)
	v, _, err := stores.LoadOrNew(b.key, func() (caddy.Destructor, error) {
		store := cache.New(b.key)
		store.Observe(observe)
		return pooledStore{store}, nil
	})
	if err != nil {
		return nil, fmt.Errorf("bolt: %w", err)
	}
	b.acquired = true
	return v.(pooledStore).Store, nil
}

// realPath resolves the links in a path of which the end may not exist yet, so
// that it is the same once it does.
func realPath(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real
	}
	if target, err := os.Readlink(path); err == nil { // to what does not exist yet
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(path), target)
		}
		if target != path {
			return realPath(target)
		}
	}
	dir := filepath.Dir(path)
	if dir == path {
		return path
	}
	return filepath.Join(realPath(dir), filepath.Base(path))
}

// Release implements StoreModule.
func (b *BoltStore) Release() error {
	if !b.acquired {
		return nil // a failed load must not take the running one's file away
	}
	b.acquired = false
	_, err := stores.Delete(b.key)
	return err
}

// UnmarshalCaddyfile sets up the store from its words:
//
//	store bolt {
//		path <file>
//	}
func (b *BoltStore) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the module's name
	if d.NextArg() {
		return d.ArgErr()
	}
	return subdirectives(d, map[string]func(*caddyfile.Dispenser) error{"path": one(&b.Path)})
}

// Interface guards
var (
	_ StoreModule           = (*BoltStore)(nil)
	_ caddyfile.Unmarshaler = (*BoltStore)(nil)
)

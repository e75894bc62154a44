package caddypolar

import (
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-polar/caddy-polar/identity"
)

// errUserAlone is a second way to find out who asks, beside another module's.
var errUserAlone = errors.New("user cannot stand beside jwt or session: " +
	"either another module of Caddy's finds out who asks, or this one does")

// userRE is what Caddy's authentication handler sets once a provider has vouched
// for it, and what an operator's vars can set: that is theirs to answer for. {http.auth.candidate.*} is whom it refused.
var userRE = regexp.MustCompile(`^\{(http\.auth\.user\.[A-Za-z0-9_.-]+)\}$`)

// parseUserPlaceholder is the name in a placeholder that holds the user.
func parseUserPlaceholder(value string) (string, error) {
	if m := userRE.FindStringSubmatch(value); m != nil {
		return m[1], nil
	}
	why := "user takes one placeholder"
	for _, forgeable := range []string{"http.request.", "{header.", "{cookie.", "{query.", "http.vars.", "http.regexp."} {
		if strings.Contains(value, forgeable) {
			why = "clients can forge that user"
		}
	}
	return "", fmt.Errorf("user: %q: %s: name what an authentication module of Caddy's has found out, like {http.auth.user.id}", value, why)
}

// parseUser reads where another module leaves the user:
//
//	user {http.auth.user.id}
func (g *Gateway) parseUser(d *caddyfile.Dispenser) error {
	if err := one(&g.User)(d); err != nil {
		return err
	}
	if _, err := parseUserPlaceholder(g.User); err != nil {
		return d.WrapErr(err)
	}
	return nil
}

func (g *Gateway) provisionUser() error {
	name, err := parseUserPlaceholder(g.User)
	if err != nil {
		return err
	}
	g.identifyBy(authenticated(name))
	return nil
}

// authenticated identifies by what another module of Caddy's has found out: it is
// the name of its placeholder.
type authenticated string

var errAuthenticated = fmt.Errorf("%w: the authenticated user is too long or has control characters", identity.ErrInvalid)

func (a authenticated) identify(r *http.Request, _ http.Header, now time.Time, _ bool) (*identity.Identity, error) {
	repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	if !ok {
		return &stranger, identity.ErrMissing
	}
	// What we, or another gateway, make known under the same name is not another
	// module's word.
	s := stateOf(r)
	s.silent = true
	user, _ := repl.GetString(string(a))
	s.silent = false
	switch {
	case user == "":
		return &stranger, identity.ErrMissing
	case !identity.Usable(user):
		return &stranger, errAuthenticated
	}
	// Nobody knows how it was found out: it counts as what browsers send by
	// themselves, since there is no source.
	return &identity.Identity{User: user, Customer: user, Manages: true, Expires: now.Add(foundFor)}, nil
}

// sources are what authentication modules go by.
func (a authenticated) sources() []identity.Source {
	return []identity.Source{{Header: "Authorization"}, {Cookie: "*"}}
}

func (a authenticated) close() {}

// Interface guard
var _ identifier = authenticated("")

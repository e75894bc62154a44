package caddypolar

import (
	"errors"
	"net/http"
	"time"

	"github.com/caddy-polar/caddy-polar/entitlement"
	"github.com/caddy-polar/caddy-polar/identity"
)

// identifier is one way to find out who asks: by tokens, by the app's own
// sessions, or by what another module of Caddy's has found out.
type identifier interface {
	// identify looks into a request, whose credentials stand in from. sure says
	// that whoever is not known will be refused. The error is one of identity's, and
	// whoever it is then is nobody; ErrMissing gives the next way its turn.
	identify(r *http.Request, from http.Header, now time.Time, sure bool) (*identity.Identity, error)
	// sources are the headers and cookies it looks at: answers vary with them.
	sources() []identity.Source
	close()
}

// identify finds out who asks. Whoever shows a credential is judged by it: a
// client must not become someone else because one of them ran out.
func (g *Gateway) identify(r *http.Request, from http.Header, now time.Time, sure bool) (*identity.Identity, error) {
	for _, way := range g.identifiers {
		id, err := way.identify(r, from, now, sure)
		if !errors.Is(err, identity.ErrMissing) {
			return id, err
		}
	}
	return &stranger, identity.ErrMissing
}

// stranger is who asks before anybody has found out.
var stranger identity.Identity

// identifyBy adds a way to find out who asks.
func (g *Gateway) identifyBy(way identifier) {
	g.identifiers = append(g.identifiers, way)
	var all []identity.Source
	for _, way := range g.identifiers {
		all = append(all, way.sources()...)
	}
	g.vary = varyOf(all)
}

// provisionWays readies the ways to find out who asks: tokens go before sessions.
func (g *Gateway) provisionWays() error {
	switch {
	case g.User != "" && (len(g.JWT) > 0 || g.Session != nil):
		return errUserAlone
	case g.User != "":
		return g.provisionUser()
	case len(g.JWT) == 0 && g.Session == nil:
		g.logger.Warn("neither jwt, session nor user: nobody can be known, so nobody is let in; add `jwt secret {env.NAME}` or another of them")
		return nil
	}
	if len(g.JWT) > 0 {
		if err := g.provisionTokens(); err != nil {
			return err
		}
	}
	if g.Session != nil {
		g.warnNames()
		return g.provisionSession()
	}
	return nil
}

// warnNames tells that users of tokens and of sessions may have the same names. It is
// no mistake where both are one app's.
func (g *Gateway) warnNames() {
	for i := range g.JWT {
		j := &g.JWT[i]
		if (j.JWKS != "" || len(j.Issuer) > 0) && j.UserPrefix == g.Session.UserPrefix {
			g.logger.Warn("a user of the session endpoint and one of a jwt block are the same if their ids are: unless both are of one app, give one of them a user_prefix")
			return
		}
	}
}

// notePayers takes note that others than who asks can pay, and tells if none of those
// who ask can act for them.
func (g *Gateway) notePayers(customer, manage string, paths []string, m *Manage) {
	if len(paths) == 0 {
		return
	}
	g.payers = true
	if m == nil {
		g.logger.Warn(customer + " without " + manage + ": nobody may buy, change a subscription or see the portal " +
			"for a paying party that is not they themselves; add `" + manage + " <path> <value>...`")
	}
}

// tokens identifies by JSON Web Tokens.
type tokens struct{ *identity.Verifier }

func (t tokens) identify(r *http.Request, from http.Header, now time.Time, _ bool) (*identity.Identity, error) {
	return t.Identify(r.Context(), from, now)
}

func (t tokens) sources() []identity.Source { return t.Sources() }
func (t tokens) close()                     { t.Close() }

// identityCode is why nobody is known.
func identityCode(err error) string {
	switch {
	case errors.Is(err, identity.ErrMissing):
		return codeTokenMissing
	case errors.Is(err, identity.ErrExpired):
		return codeTokenExpired
	case errors.Is(err, identity.ErrUnavailable):
		return string(entitlement.ReasonUnavailable)
	}
	return codeTokenInvalid
}

// loginRefusal is the answer to a request whose user is not known.
func loginRefusal(err error) *problem {
	code := identityCode(err)
	if errors.Is(err, identity.ErrUnavailable) {
		p := newProblem(http.StatusServiceUnavailable, code).with("Who is signed in cannot be checked right now. Try again in a moment.")
		p.Reason, p.NextStep = code, entitlement.StepWait
		return p
	}
	p := newProblem(http.StatusUnauthorized, code)
	p.Reason, p.NextStep = code, entitlement.StepLogin
	return p
}

// Interface guard
var _ identifier = tokens{}

package session

import (
	"context"
	"errors"
	"net/url"

	"github.com/caddy-polar/caddy-polar/identity"
)

// ErrAnybody means that the session endpoint names a user for who has no session.
var ErrAnybody = errors.New("the session endpoint names a user for a request without a session")

// probeCookie is none of the app's.
const probeCookie = "caddy_polar_doctor=1"

// Probe asks the app who is signed in, without a session of anybody's. Nil: it says
// that nobody is, as it should. Nothing is remembered.
func (a *Asker) Probe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	u, err := url.Parse(a.url)
	if err != nil {
		return errNoWay
	}
	_, err = a.fetch(ctx, question{cookies: probeCookie, scheme: u.Scheme, host: u.Host})
	switch {
	case err == nil, errors.Is(err, identity.ErrInvalid):
		return ErrAnybody
	case errors.Is(err, identity.ErrUnavailable):
		return err
	}
	return nil
}

// Place is the address without what can be secret in it.
func (a *Asker) Place() string {
	u, err := url.Parse(a.url)
	if err != nil {
		return ""
	}
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}

package caddypolar

import (
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"go.uber.org/zap"

	"github.com/caddy-polar/caddy-polar/identity"
	"github.com/caddy-polar/caddy-polar/identity/session"
)

// Session says where the app tells who is signed in, for apps whose sessions are
// no JSON Web Tokens.
type Session struct {
	// URL is the app's own session endpoint, like
	// http://localhost:3000/api/auth/get-session. It is asked with the visitor's
	// cookies, directly and not through this gateway, and answers with JSON.
	URL string `json:"url,omitempty"`

	// Cookies are the names of the app's session cookies, at least one. Only these
	// are sent to the endpoint. A name may end in * and stands for all that begin so.
	Cookies []string `json:"cookies,omitempty"`

	// UserPath leads to the user's id in the answer, with dots into objects. Without
	// a value there, nobody is signed in. Default: user.id.
	UserPath string `json:"user_path,omitempty"`

	// EmailPath leads to the user's e-mail. Default: user.email.
	EmailPath string `json:"email_path,omitempty"`

	// EmailVerifiedPath leads to whether the e-mail is verified; only the JSON value
	// true says so. Default: user.emailVerified.
	EmailVerifiedPath string `json:"email_verified_path,omitempty"`

	// UserPrefix is put before the user, and before the paying party.
	UserPrefix string `json:"user_prefix,omitempty"`

	// CustomerPath lists where the answer has who pays, such as
	// session.activeOrganizationId: everybody whose answer names the same
	// organization shares what it has bought. The first value counts; who has none
	// has bought nothing. With the user's own path as the last one they pay for
	// themselves. Default: everybody does.
	CustomerPath []string `json:"customer_path,omitempty"`

	// ManagePath says who may buy, change and cancel for the paying party, and see
	// its portal. Default: only who pays for themselves.
	ManagePath *Manage `json:"manage_path,omitempty"`

	// Cache is for how long an answer counts, from 1s to 10m. It is served for as
	// long again while the app is asked in the background, so a session that ends at
	// the app ends here within twice this time. Default: 30s.
	Cache *caddy.Duration `json:"cache,omitempty"`

	// Timeout is for how long the app's answer is waited for, from 50ms to 10s.
	// Default: 2s.
	Timeout *caddy.Duration `json:"timeout,omitempty"`
}

// foundFor is for how long a stream goes on as that of a user whose sign-in has no
// end that we know. The client comes back by itself, and is asked for again.
const foundFor = 5 * time.Minute

// parseSession reads where the app tells who is signed in:
//
//	session <url> {
//		cookies             <name>...
//		user_path           <path>
//		email_path          <path>
//		email_verified_path <path>
//		user_prefix         <prefix>
//		customer_path       <path>...
//		manage_path         <path> <value>...
//		cache               <duration>
//		timeout             <duration>
//	}
func (g *Gateway) parseSession(d *caddyfile.Dispenser) error {
	args := d.RemainingArgs()
	if len(args) != 1 || args[0] == "" {
		return d.Err("session takes the address of the app's session endpoint, and a block")
	}
	s := &Session{URL: args[0]}
	err := subdirectives(d, map[string]func(*caddyfile.Dispenser) error{
		"cookies":             some(&s.Cookies),
		"user_path":           one(&s.UserPath),
		"email_path":          one(&s.EmailPath),
		"email_verified_path": one(&s.EmailVerifiedPath),
		"user_prefix":         one(&s.UserPrefix),
		"customer_path":       some(&s.CustomerPath),
		"manage_path":         manage(&s.ManagePath),
		"cache":               duration(&s.Cache),
		"timeout":             duration(&s.Timeout),
	}, "cookies")
	if err != nil {
		return err
	}
	if len(s.Cookies) == 0 {
		return d.Err("session: name the app's session cookies: cookies better-auth.session_token __Secure-better-auth.session_token")
	}
	c := s.config()
	if strings.Contains(c.URL, "{") {
		c.URL = "http://localhost" // known when the configuration is loaded
	}
	if err := c.Check(); err != nil {
		return d.WrapErr(err)
	}
	g.Session = s
	return nil
}

// config is the same as the asker wants it, the address unresolved.
func (s *Session) config() session.Config {
	c := session.Config{
		URL: s.URL, Cookies: s.Cookies, UserPrefix: s.UserPrefix,
		UserPath: s.UserPath, EmailPath: s.EmailPath, EmailVerifiedPath: s.EmailVerifiedPath,
		CustomerPaths: s.CustomerPath, Manage: s.ManagePath.identity(),
	}
	// Zero is not the default when it was said.
	if s.Cache != nil {
		c.Cache = max(time.Duration(*s.Cache), 1)
	}
	if s.Timeout != nil {
		c.Timeout = max(time.Duration(*s.Timeout), 1)
	}
	return c
}

func (g *Gateway) provisionSession() error {
	c := g.Session.config()
	var err error
	if c.URL, err = expand("session", c.URL); err != nil {
		return err
	}
	s := &sessions{logger: g.logger}
	c.Report = s.report
	if s.asker, err = session.New(c); err != nil {
		return err
	}
	g.notePayers("customer_path", "manage_path", g.Session.CustomerPath, g.Session.ManagePath)
	g.identifyBy(s)
	return nil
}

// sessions identifies by the app's own sessions.
type sessions struct {
	asker  *session.Asker
	logger *zap.Logger

	warnedAnswer onceAMinute
	warnedLoop   atomic.Bool
	toldOthers   atomic.Bool
}

func (s *sessions) identify(r *http.Request, from http.Header, now time.Time, sure bool) (*identity.Identity, error) {
	if state := stateOf(r); state.question {
		// To ask who asks the endpoint would be to ask it again, and again.
		if !state.ours {
			if s.toldOthers.CompareAndSwap(false, true) {
				s.logger.Info("a question of another gateway's to its session endpoint came by, or somebody forges one: it counts as a stranger's")
			}
		} else if s.warnedLoop.CompareAndSwap(false, true) {
			s.logger.Warn("the session endpoint lies behind this gateway, which takes its own questions for a stranger's: " +
				"give session an address at which the app answers directly; if it must be this one, put no gate before it")
		}
		return &stranger, identity.ErrMissing
	}
	scheme, host, _ := strings.Cut(originOf(r), "://")
	id, err := s.asker.Identify(r.Context(), session.Request{Header: from, Scheme: scheme, Host: host, Now: now, Sure: sure})
	if err == nil {
		id.Expires = now.Add(foundFor)
	}
	return &id, err
}

// report logs why the app did not say who is signed in.
func (s *sessions) report(err error) {
	if s.warnedAnswer.now(time.Now()) {
		s.logger.Error("the app does not say who is signed in: check session", zap.Error(err))
	}
}

func (s *sessions) sources() []identity.Source { return []identity.Source{s.asker.Source()} }
func (s *sessions) close()                     { s.asker.Close() }

// Interface guard
var _ identifier = (*sessions)(nil)

// Package session finds out who asks from an app whose sessions are no JSON Web
// Tokens: it asks the app's own session endpoint with the request's cookies, and
// remembers the answer.
//
// It knows neither Caddy nor Polar, has no logger, takes the time of day from its
// caller, and no error it returns holds a cookie or any part of an answer.
package session

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/caddy-polar/caddy-polar/identity"
)

const (
	// The time for which an answer counts. After it the answer is served for as long
	// again, while the app is asked in the background.
	defaultCache, minCache, maxCache = 30 * time.Second, time.Second, 10 * time.Minute

	defaultTimeout, minTimeout, maxTimeout = 2 * time.Second, 50 * time.Millisecond, 10 * time.Second

	// nobodyCache is for how long it is remembered that nobody is signed in. Whoever
	// would refuse because of it asks again: see Request.Sure.
	nobodyCache = 5 * time.Second

	// maxQuestions bounds the questions under way about cookies never heard of, and
	// by itself that of those about known ones, so that a flood of the former cannot
	// keep the latter from being confirmed.
	maxQuestions = 64
	// maxWaiting bounds, for each of the two, the questions that wait for their turn.
	maxWaiting = 4096

	// failedCache is for how long pages without a gate do not ask again where the app
	// did not answer.
	failedCache = 2 * time.Second
)

// ErrConfig means that the configuration cannot work.
var ErrConfig = errors.New("session")

// Config says whom to ask, and how.
type Config struct {
	// URL is the app's session endpoint.
	URL string
	// Cookies are the names of the cookies to ask with. A name may end in * and then
	// stands for all that begin so.
	Cookies []string
	// The paths of values in the answer. Defaults: user.id, user.email,
	// user.emailVerified.
	UserPath, EmailPath, EmailVerifiedPath string
	// CustomerPaths lead to the paying party; the first that has a value counts.
	// Default: everyone pays for themselves.
	CustomerPaths []string
	// Manage says who may act for the paying party.
	Manage identity.Manage
	// UserPrefix is put before the user and the paying party.
	UserPrefix string
	// Cache is for how long an answer counts. Default: 30s.
	Cache time.Duration
	// Timeout is for how long an answer is waited for. Default: 2s.
	Timeout time.Duration
	// Report is told why a question had no answer, or one that names nobody who is
	// there. It may be called at the same time from several goroutines.
	Report func(error)
}

// Asker asks the app. It is safe for concurrent use.
type Asker struct {
	url            string
	userPath       string
	cookies        []pattern
	source         identity.Source
	reader         *identity.Reader
	cache, timeout time.Duration
	report         func(error)
	transport      *http.Transport

	digests             sync.Pool // of *digester
	memory              *memory
	flights             singleflight.Group
	strangers, familiar *lane
}

// Check reports what is wrong with the configuration.
func (c Config) Check() error {
	_, err := c.compile()
	return err
}

// New checks the configuration and makes an Asker. It asks nobody yet.
func New(c Config) (*Asker, error) {
	a, err := c.compile()
	if err != nil {
		return nil, err
	}
	key := make([]byte, 32)
	_, _ = rand.Read(key) // it never fails
	a.digests.New = func() any { return newDigester(key) }
	if a.memory, err = newMemory(maxKnown, maxNobody); err != nil {
		return nil, err
	}
	a.strangers, a.familiar = newLane(), newLane()
	a.transport = newTransport(a.timeout)
	return a, nil
}

// compile is an Asker that has all but what has to be closed.
func (c Config) compile() (*Asker, error) {
	if err := checkURL(c.URL); err != nil {
		return nil, err
	}
	a := &Asker{url: c.URL, report: c.Report}
	var err error
	if a.cookies, err = patterns(c.Cookies); err != nil {
		return nil, err
	}
	a.source = identity.Source{Cookie: c.Cookies[0]}
	if a.cache, err = within("cache", c.Cache, defaultCache, minCache, maxCache); err != nil {
		return nil, err
	}
	if a.timeout, err = within("timeout", c.Timeout, defaultTimeout, minTimeout, maxTimeout); err != nil {
		return nil, err
	}
	a.userPath = orDefault(c.UserPath, defaultUserPath)
	a.reader, err = c.reader()
	return a, err
}

func checkURL(raw string) error {
	u, err := url.Parse(raw)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		return fmt.Errorf("%w: the address must be absolute, like http://localhost:3000/api/auth/get-session", ErrConfig)
	case u.User != nil || u.Fragment != "":
		return fmt.Errorf("%w: the address can have neither a user nor a fragment", ErrConfig)
	}
	return nil
}

func within(what string, value, byDefault, least, most time.Duration) (time.Duration, error) {
	if value == 0 {
		return byDefault, nil
	}
	if value < least || value > most {
		return 0, fmt.Errorf("%w: %s: from %v to %v", ErrConfig, what, least, most)
	}
	return value, nil
}

const defaultUserPath = "user.id"

func orDefault(value, byDefault string) string {
	if value == "" {
		return byDefault
	}
	return value
}

func (c Config) reader() (*identity.Reader, error) {
	paths := identity.Paths{
		User: orDefault(c.UserPath, defaultUserPath), Email: orDefault(c.EmailPath, "user.email"),
		EmailVerified: orDefault(c.EmailVerifiedPath, "user.emailVerified"),
		Customer:      c.CustomerPaths, Manage: c.Manage,
	}
	all := append([]string{paths.User, paths.Email, paths.EmailVerified}, paths.Customer...)
	if paths.Manage.Path != "" {
		all = append(all, paths.Manage.Path)
	}
	for _, p := range all {
		if strings.Contains("."+p+".", "..") {
			return nil, fmt.Errorf("%w: the path %q has an empty step: write names with dots between them, like user.id", ErrConfig, p)
		}
	}
	reader, err := identity.NewReader(paths, c.UserPrefix)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	return reader, nil
}

// newTransport makes connections to the app: few enough, straight there, and none
// that outlive what is waited for.
func newTransport(timeout time.Duration) *http.Transport {
	return &http.Transport{
		DialContext:            (&net.Dialer{Timeout: timeout, KeepAlive: 30 * time.Second}).DialContext,
		TLSHandshakeTimeout:    timeout,
		IdleConnTimeout:        30 * time.Second,
		MaxIdleConns:           maxQuestions,
		MaxIdleConnsPerHost:    maxQuestions,
		MaxResponseHeaderBytes: 64 << 10,
		DisableCompression:     true,
		ForceAttemptHTTP2:      true,
	}
}

// Request is what to find out about.
type Request struct {
	// Header holds the cookies.
	Header http.Header
	// Scheme and Host are those by which the visitor knows the site. Libraries like
	// Auth.js choose by them which cookie they believe.
	Scheme, Host string
	// Now is when the request came.
	Now time.Time
	// Sure says that a stranger will be refused. That nobody is signed in is then not
	// believed if it was found out before this request: they may have signed in since.
	Sure bool
}

// Identify finds out who is signed in with the cookies of a request.
//
// The error is ErrMissing, ErrInvalid or ErrUnavailable of package identity.
func (a *Asker) Identify(ctx context.Context, r Request) (identity.Identity, error) {
	d := a.digests.Get().(*digester)
	defer a.digests.Put(d)
	if err := d.read(a.cookies, &r); err != nil {
		return identity.Identity{}, err
	}
	key := d.sum()
	old := a.memory.recall(key)
	if old != nil {
		age := r.Now.Sub(old.asked)
		if age < a.cache && age > -a.cache { // further back only if the clock was set
			return old.identity, nil
		}
		if age > 0 && age < 2*a.cache {
			if old.claim(r.Now, a.timeout) {
				a.ask(key, d.question(&r), a.familiar, r.Now)
			}
			return old.identity, nil
		}
	}
	if err := a.memory.refusal(key, &r); err != nil {
		return identity.Identity{}, err
	}
	lane := a.strangers
	if old != nil {
		lane = a.familiar
	}
	select {
	case result := <-a.ask(key, d.question(&r), lane, r.Now):
		id, _ := result.Val.(identity.Identity)
		return id, result.Err
	case <-ctx.Done():
		return identity.Identity{}, fmt.Errorf("%w: the visitor did not wait", identity.ErrUnavailable)
	}
}

var errBusy = fmt.Errorf("%w: too many questions to the session endpoint are under way", identity.ErrUnavailable)

// lane bounds the questions under way, and those that wait to be.
type lane struct {
	places  chan struct{}
	waiting chan struct{}
}

func newLane() *lane {
	return &lane{make(chan struct{}, maxQuestions), make(chan struct{}, maxWaiting)}
}

// enter takes a place, for which it waits: many visitors come at once after a reload,
// when nobody is remembered. Who came first is first.
func (l *lane) enter(patience time.Duration) bool {
	select {
	case l.places <- struct{}{}:
		return true
	default:
	}
	select {
	case l.waiting <- struct{}{}:
		defer func() { <-l.waiting }()
	default:
		return false
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case l.places <- struct{}{}:
		return true
	case <-timer.C:
		return false
	}
}

func (l *lane) leave() { <-l.places }

// ask asks the app, once at a time for the same cookies, and remembers the answer.
// Whoever asked first may leave: others wait for the same answer.
func (a *Asker) ask(key digest, q question, lane *lane, now time.Time) <-chan singleflight.Result {
	return a.flights.DoChan(string(key[:]), func() (any, error) {
		began := time.Now()
		id, err := identity.Identity{}, errBusy
		if lane.enter(a.timeout) {
			// The wait takes nothing from the time for the answer: else a long queue
			// would end in questions that all come too late.
			ctx, cancel := context.WithTimeout(context.Background(), a.timeout)
			id, err = a.fetch(ctx, q)
			cancel()
			defer lane.leave() // once the answer is remembered
		}
		a.memory.remember(key, answer{id, err, now, time.Since(began)}, a.cache)
		if a.report != nil && (errors.Is(err, identity.ErrUnavailable) || errors.Is(err, identity.ErrNameless)) {
			a.report(err)
		}
		return id, err
	})
}

// Source is the place that an identity comes from: of the cookies, the first.
func (a *Asker) Source() identity.Source { return a.source }

// Close forgets all answers and stops what keeps them in order. A request that is
// still under way may go on using the Asker, and questions end by their time-out.
func (a *Asker) Close() {
	a.memory.close()
	a.transport.CloseIdleConnections()
}

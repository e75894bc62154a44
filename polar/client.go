package polar

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
	"go.uber.org/zap"
)

const (
	// DefaultVersion is the version of Polar's API that this client is written
	// for (https://polar.sh/docs/api-reference/2026-10/versioning).
	DefaultVersion = "2026-10"

	connectTimeout = 5 * time.Second
	defaultTimeout = 15 * time.Second
	maxAttempts    = 4
	maxBody        = 64 << 20 // the seats of a big team come in one piece
	maxErrorBody   = 64 << 10
)

// ErrConfig says that a client cannot be made of a configuration.
var ErrConfig = errors.New("polar client")

// ClientConfig makes a Client. Only Token has no default.
type ClientConfig struct {
	BaseURL string // default https://api.polar.sh
	Token   string
	// Version is sent as Polar-Version. Empty sends none: Polar then uses its
	// current version, which changes every quarter.
	Version string
	// OnVersionGone, when set, lets the client go on without a version once
	// Polar has proved that it no longer serves this one. It is called once,
	// with the version that Polar then used, if it said so. When nil, calls fail
	// with ErrVersionGone.
	OnVersionGone func(used string)
	// Limiter is shared by all clients of one organization. Nil: no limit.
	Limiter *Limiter
	// Timeout is for one attempt, its answer included. Default 15s. The whole
	// call, with its waits, is bound by the caller's context.
	Timeout   time.Duration
	Transport http.RoundTripper
	Logger    *zap.Logger
	// OnCall is told of each attempt, for metrics.
	OnCall func(Call)
	Now    func() time.Time
	Sleep  func(context.Context, time.Duration) error
}

// Call is one attempt, as it may be logged and counted.
type Call struct {
	Method string
	Path   string // the template, never an id
	Status int    // zero without an answer
	Took   time.Duration
	Err    error
}

// Client calls Polar's API with one access token. It is safe for concurrent
// use.
type Client struct {
	base, token, version string
	rank                 rank
	transport            http.RoundTripper
	timeout              time.Duration
	limiter              *Limiter
	log                  *zap.Logger
	onCall               func(Call)
	onVersionGone        func(string)
	now                  func() time.Time
	sleep                func(context.Context, time.Duration) error
	state                *clientState // shared with the Background view
}

type clientState struct {
	unversioned atomic.Bool
	clock       atomic.Pointer[clock]
	sandbox     atomic.Pointer[bool]
}

// clock is Polar's, as it was heard last.
type clock struct {
	offset time.Duration // from ours
	at     time.Time     // when, by ours
}

// NewClient makes a client. It does not talk to Polar.
func NewClient(config ClientConfig) (*Client, error) {
	if config.BaseURL == "" {
		config.BaseURL = "https://api.polar.sh"
	}
	base, err := url.Parse(config.BaseURL)
	if err != nil || base.Host == "" || base.User != nil || base.RawQuery != "" || base.Fragment != "" ||
		base.Scheme != "https" && base.Scheme != "http" {
		return nil, fmt.Errorf("%w: the server address must look like https://api.polar.sh", ErrConfig)
	}
	if !isToken(config.Token) {
		return nil, fmt.Errorf("%w: the access token is empty or holds blanks or control characters", ErrConfig)
	}
	c := &Client{
		base: strings.TrimRight(config.BaseURL, "/"), token: config.Token, version: config.Version,
		timeout: config.Timeout, limiter: config.Limiter, log: config.Logger, onCall: config.OnCall,
		onVersionGone: config.OnVersionGone, now: config.Now, sleep: config.Sleep, state: &clientState{},
		transport: config.Transport,
	}
	if c.timeout <= 0 {
		c.timeout = defaultTimeout
	}
	if c.log == nil {
		c.log = zap.NewNop()
	}
	if c.now == nil {
		c.now = time.Now
	}
	if c.sleep == nil {
		c.sleep = sleep
	}
	if c.transport == nil {
		c.transport = newTransport()
	}
	return c, nil
}

func newTransport() *http.Transport {
	return &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: connectTimeout, KeepAlive: 30 * time.Second}).DialContext,
		TLSHandshakeTimeout:   connectTimeout,
		ForceAttemptHTTP2:     true,
		MaxIdleConnsPerHost:   8,
		IdleConnTimeout:       90 * time.Second,
		ExpectContinueTimeout: time.Second,
	}
}

func isToken(s string) bool {
	return s != "" && strings.IndexFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) < 0
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Background is the same client for calls that nobody waits for: they use the
// limiter's background budget and let all others go first.
func (c *Client) Background() *Client {
	view := *c
	view.rank = rankBackground
	return &view
}

// Prompt is the same client for background calls that somebody may wait for:
// they use the background budget too, and go before the others.
func (c *Client) Prompt() *Client {
	view := *c
	view.rank = rankPrompt
	return &view
}

// Offset is how far Polar's clock is ahead of ours, as last seen. It is false
// before the first answer.
func (c *Client) Offset() (time.Duration, bool) {
	if heard := c.state.clock.Load(); heard != nil {
		return heard.offset, true
	}
	return 0, false
}

// ClockHeard says whether Polar's time was heard within a span of our clock's. If that
// has jumped since, it was not.
func (c *Client) ClockHeard(within time.Duration) bool {
	heard := c.state.clock.Load()
	return heard != nil && heard.since(c.now()).Abs() <= within
}

// SetBack is how far our clock was set back since Polar's time was heard.
func (c *Client) SetBack(now time.Time) time.Duration {
	heard := c.state.clock.Load()
	if heard == nil {
		return 0
	}
	return max(0, max(0, now.Sub(heard.at))-heard.since(now))
}

// since is what the hands of our clock have moved since. Times of this process know
// better how much time went by, and tell that in Sub.
func (c *clock) since(now time.Time) time.Duration { return now.Round(0).Sub(c.at.Round(0)) }

// Sandbox says whether the last answer was of Polar's sandbox, which marks its own
// with X-Polar-Sandbox. It is false before the first answer.
func (c *Client) Sandbox() (sandbox, known bool) {
	if told := c.state.sandbox.Load(); told != nil {
		return *told, true
	}
	return false, false
}

// Version is the API version that is asked for.
func (c *Client) Version() string { return c.version }

// Close gives up idle connections.
func (c *Client) Close() {
	if t, ok := c.transport.(interface{ CloseIdleConnections() }); ok {
		t.CloseIdleConnections()
	}
}

// String keeps the token out of formatted output.
func (c *Client) String() string { return "polar client of " + c.base }

// GoString keeps the token out of formatted output.
func (c *Client) GoString() string { return c.String() }

// request is one call. Its path is a template, which is what logs and errors
// show: ids and filters can be e-mails.
type request struct {
	method string
	path   string
	id     string // takes the place of the path's {…}
	query  url.Values
	body   any
	portal bool // token is a customer's, not ours
	silent bool // a success has no body to read

	token   string
	version string
}

// answer is a success.
type answer struct {
	header http.Header
	status int
	body   []byte
	asOf   time.Time
}

// call makes a request and decodes what comes back.
func call[T any](ctx context.Context, c *Client, r request) (Answer[T], error) {
	if !r.portal {
		r.token = c.token
	}
	if !isToken(r.token) {
		return Answer[T]{}, r.fail(ErrUnauthorized, "the customer session has no token")
	}
	a, failure := c.do(ctx, &r)
	if failure != nil {
		return Answer[T]{}, failure
	}
	out := Answer[T]{AsOf: a.asOf}
	if r.silent {
		return out, nil
	}
	err := json.Unmarshal(a.body, &out.Item)
	if err != nil {
		err = decodeError("the answer", err)
	} else if w, ok := any(&out.Item).(interface{ whole() bool }); ok && !w.whole() {
		// "{}" must not pass for a customer without subscriptions.
		err = fmt.Errorf("%w the answer: id or items are missing", ErrDecode)
	}
	if err != nil {
		e := r.fail(ErrUnexpected, "the answer does not have Polar's shape: check the server address and api_version")
		e.Status, e.cause = a.status, err
		return Answer[T]{}, e
	}
	return out, nil
}

// do repeats reads that met a lost connection, a 429 or a 5xx. Writes are never
// repeated: Polar has no idempotency keys.
func (c *Client) do(ctx context.Context, r *request) (*answer, *APIError) {
	pace := backoff.ExponentialBackOff{
		InitialInterval: 500 * time.Millisecond, RandomizationFactor: 0.5, Multiplier: 2, MaxInterval: 10 * time.Second,
	}
	for attempt := 1; ; attempt++ {
		a, failure := c.sendVersioned(ctx, r)
		if failure == nil || attempt == maxAttempts || !r.repeatable(failure) {
			return a, failure
		}
		wait := pace.NextBackOff()
		if failure.RetryAfter > 0 {
			wait = failure.RetryAfter
		}
		if !fits(ctx, wait) {
			return nil, failure
		}
		if c.sleep(ctx, wait) != nil {
			return nil, r.ended(ctx)
		}
	}
}

func (r *request) repeatable(e *APIError) bool {
	if r.method != http.MethodGet || e.cause != nil {
		return false
	}
	switch e.kind {
	case ErrUnavailable, ErrTimeout:
		return true
	case ErrRateLimited:
		return e.Status != 0 // our own limiter has waited as long as it may
	}
	return false
}

// fits says whether there is time for a wait. A wait that is bound to end in
// nothing is not begun.
func fits(ctx context.Context, wait time.Duration) bool {
	if deadline, ok := ctx.Deadline(); ok && wait >= time.Until(deadline) {
		return false
	}
	return wait <= maxPause
}

// sendVersioned goes on without a version when Polar has removed ours, if the
// caller wants that. This is safe for writes too: Polar refuses an unknown
// version before it looks at the path. Only an answer in Polar's own words
// proves that it was the version: a wrong address gives the same 404.
func (c *Client) sendVersioned(ctx context.Context, r *request) (*answer, *APIError) {
	r.version = c.version
	if c.state.unversioned.Load() {
		r.version = ""
	}
	a, failure := c.send(ctx, r)
	if failure == nil || failure.kind != ErrVersionGone || c.onVersionGone == nil {
		return a, failure
	}
	r.version = ""
	a, failure = c.send(ctx, r)
	used := ""
	if failure == nil {
		used = a.header.Get("Polar-Version")
	}
	if (failure == nil || failure.Code != "") && c.state.unversioned.CompareAndSwap(false, true) {
		c.onVersionGone(used)
	}
	return a, failure
}

// send is one attempt, in its turn, noted.
func (c *Client) send(ctx context.Context, r *request) (*answer, *APIError) {
	if failure := c.awaitTurn(ctx, r); failure != nil {
		return nil, failure
	}
	start := c.now()
	a, failure := c.exchange(ctx, r)
	now := c.now()
	done := Call{Method: r.method, Path: r.path, Took: now.Sub(start)}
	if failure != nil {
		done.Status, done.Err = failure.Status, failure
	} else {
		done.Status = a.status
	}
	if c.limiter != nil && !r.portal {
		switch s := done.Status; {
		case s == http.StatusTooManyRequests:
			c.limiter.pause(now.Add(min(cmp.Or(failure.RetryAfter, someHold), maxHold)))
		case s == http.StatusServiceUnavailable && failure.RetryAfter > 0:
			c.limiter.pause(now.Add(min(failure.RetryAfter, maxHold)))
		case s >= 200 && s < 500 && s != http.StatusUnauthorized:
			c.limiter.accept(now)
		}
	}
	c.note(done, failure)
	return a, failure
}

func (c *Client) note(done Call, failure *APIError) {
	if c.onCall != nil {
		c.onCall(done)
	}
	fields := []zap.Field{
		zap.String("method", done.Method), zap.String("path", done.Path),
		zap.Int("status", done.Status), zap.Duration("took", done.Took),
	}
	switch {
	case failure == nil:
		c.log.Debug("called polar", fields...)
		return
	case failure.kind == nil, failure.kind == ErrNotFound, failure.kind == ErrInvalid,
		failure.kind == ErrConflict, failure.kind == ErrPayment, failure.kind == ErrForbidden:
		// Answers to this one call. Whoever made it says what they mean.
		c.log.Debug("called polar", append(fields, zap.Error(failure))...)
		return
	}
	c.log.Warn("a call to polar failed", append(fields, zap.Error(failure))...)
}

// awaitTurn waits for the limiter. A customer's token has a limit of its own.
func (c *Client) awaitTurn(ctx context.Context, r *request) *APIError {
	if c.limiter == nil || r.portal {
		if ctx.Err() != nil {
			return r.ended(ctx)
		}
		return nil
	}
	queued := false
	defer func() {
		if queued {
			c.limiter.queue(-1)
		}
	}()
	for {
		if ctx.Err() != nil {
			return r.ended(ctx)
		}
		t := c.limiter.ask(c.now(), c.rank)
		if t.wait <= 0 {
			return nil
		}
		if c.rank == rankPrompt && !t.probing && !queued {
			queued = true
			c.limiter.queue(1)
		}
		if !fits(ctx, t.wait) {
			t.giveBack(c.now())
			hint := "our own share of Polar's request limit is used up"
			if t.paused {
				hint = "Polar has said that it is too much, and wants to be left alone"
			}
			e := r.fail(ErrRateLimited, hint)
			e.RetryAfter = t.wait
			return e
		}
		if c.sleep(ctx, t.wait) != nil {
			t.giveBack(c.now())
			return r.ended(ctx)
		}
		if t.reservation != nil {
			return nil
		}
	}
}

// exchange sends the request and reads the whole answer.
func (c *Client) exchange(ctx context.Context, r *request) (*answer, *APIError) {
	limited, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	req, err := r.build(limited, c.base)
	if err != nil {
		return nil, r.fail(ErrInvalid, "the request cannot be written: check the ids and values")
	}
	start := c.now()
	// Not through an http.Client: a redirect would carry the token to wherever
	// it points.
	resp, err := c.transport.RoundTrip(req)
	if err != nil {
		return nil, r.noAnswer(ctx, err)
	}
	defer resp.Body.Close()
	headers := c.now()
	success := resp.StatusCode/100 == 2
	polars := resp.StatusCode < 500 && isJSON(resp.Header)
	if polars {
		c.state.sandbox.Store(new(resp.Header.Get("X-Polar-Sandbox") == "1"))
	}
	asOf := c.observe(start, headers, resp.Header, polars)
	limit := int64(maxErrorBody)
	if success {
		limit = maxBody
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err != nil && success {
		return nil, r.noAnswer(ctx, err)
	}
	if !success {
		// An error counts by its status, even when its body cannot be read.
		e := r.readError(resp.StatusCode, resp.Header, body)
		if e.kind == ErrRateLimited || e.kind == ErrUnavailable {
			e.RetryAfter = retryAfter(resp.Header, asOf.Add(headers.Sub(start)))
		}
		return nil, e
	}
	e := r.fail(ErrUnexpected, "")
	e.Status = resp.StatusCode
	switch {
	case len(body) > maxBody:
		e.hint = "the answer is larger than " + strconv.Itoa(maxBody>>20) + " MiB"
		return nil, e
	case !r.silent && !isJSON(resp.Header):
		e.hint = "the answer is not JSON: check the server address and what stands in between"
		return nil, e
	}
	return &answer{header: resp.Header, status: resp.StatusCode, body: body, asOf: asOf}, nil
}

// build writes the request. The body is a bytes.Reader, so that Content-Length
// is sent: Polar answers 411 to chunks.
func (r *request) build(ctx context.Context, base string) (*http.Request, error) {
	path := r.path
	if i, j := strings.IndexByte(path, '{'), strings.IndexByte(path, '}'); i >= 0 && j > i {
		if r.id == "" || r.id == "." || r.id == ".." {
			return nil, ErrInvalid // would name another path
		}
		path = path[:i] + url.PathEscape(r.id) + path[j+1:]
	}
	if len(r.query) > 0 {
		path += "?" + r.query.Encode()
	}
	var body io.Reader
	if r.body != nil {
		encoded, err := json.Marshal(r.body)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(encoded)
	}
	req, err := http.NewRequestWithContext(ctx, r.method, base+path, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+r.token)
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "caddy-polar")
	if r.body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if r.version != "" {
		req.Header.Set("Polar-Version", r.version)
	}
	return req, nil
}

// observe gives the start of a request in Polar's time: the answer's Date less
// the time it took. Date has whole seconds, cut off, so this is never later
// than the truth, which is the safe side for what orders facts.
//
// Only an answer of Polar's own tells its time: what stands in between, and
// caches, have their own clocks.
func (c *Client) observe(start, headers time.Time, h http.Header, polars bool) time.Time {
	date, err := http.ParseTime(h.Get("Date"))
	if err != nil || !polars || h.Get("Age") != "" {
		offset, _ := c.Offset()
		return start.Add(offset).UTC()
	}
	offset := date.Sub(headers)
	c.state.clock.Store(&clock{offset, headers})
	return start.Add(offset).UTC()
}

// retryAfter reads Retry-After, in seconds or as a date, which is in Polar's
// time. Zero: not said.
//
// Source: https://www.rfc-editor.org/rfc/rfc9110#field.retry-after
func retryAfter(h http.Header, now time.Time) time.Duration {
	value := h.Get("Retry-After")
	if seconds, err := strconv.ParseInt(value, 10, 64); err == nil {
		return time.Duration(min(max(seconds, 0), 1<<31)) * time.Second
	}
	if date, err := http.ParseTime(value); err == nil {
		if said, err := http.ParseTime(h.Get("Date")); err == nil {
			now = said // by the clock of whoever asks us to wait
		}
		return max(date.Sub(now), 0)
	}
	return 0
}

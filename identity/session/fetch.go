package session

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"strings"

	"github.com/caddy-polar/caddy-polar/identity"
)

// maxAnswer bounds the body of an answer.
const maxAnswer = 256 << 10

// What is wrong with an answer. None of them says anything about the visitor.
var (
	errTime     = fmt.Errorf("%w: the session endpoint does not answer in time", identity.ErrUnavailable)
	errMoved    = fmt.Errorf("%w: the session endpoint has moved for good: give the address that it redirects to", identity.ErrUnavailable)
	errNotJSON  = fmt.Errorf("%w: the session endpoint's answer is not JSON", identity.ErrUnavailable)
	errNoObject = fmt.Errorf("%w: the session endpoint's answer is neither an object nor null", identity.ErrUnavailable)
	errTooLarge = fmt.Errorf("%w: the session endpoint's answer is larger than 256 KiB", identity.ErrUnavailable)

	errUser = fmt.Errorf("%w: the session endpoint's user is not a usable string or integer", identity.ErrInvalid)
)

// MarkHeader marks our questions, so that they are told from visitors' requests
// where the endpoint lies behind this very gateway.
const MarkHeader = "Caddy-Polar-Session-Check"

// mark is this process's: nobody else can make it.
var mark = rand.Text()

// Marked reports whether a request is a question of this process's.
func Marked(h http.Header) bool {
	values := h[MarkHeader]
	return len(values) == 1 && subtle.ConstantTimeCompare([]byte(values[0]), []byte(mark)) == 1
}

// fetch asks the app. It follows no redirect: the cookies are for this address.
func (a *Asker) fetch(ctx context.Context, q question) (identity.Identity, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, a.url, nil)
	if err != nil {
		return identity.Identity{}, fmt.Errorf("%w: %w", identity.ErrUnavailable, err)
	}
	r.Header = http.Header{
		"Accept":            {"application/json"},
		"Cookie":            {q.cookies},
		"User-Agent":        {"caddy-polar"},
		"X-Forwarded-Host":  {q.host},
		"X-Forwarded-Proto": {q.scheme},
		MarkHeader:          {mark},
	}
	resp, err := a.transport.RoundTrip(r)
	if err != nil {
		return identity.Identity{}, unreachable(ctx, err)
	}
	defer resp.Body.Close()
	if err := judge(resp); err != nil {
		_, _ = io.CopyN(io.Discard, resp.Body, 4<<10) // so that the connection can be used again
		return identity.Identity{}, err
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return identity.Identity{}, unreachable(ctx, err)
	case len(body) > maxAnswer:
		return identity.Identity{}, errTooLarge
	}
	return a.parse(body)
}

func unreachable(ctx context.Context, err error) error {
	var e net.Error
	if ctx.Err() != nil || errors.As(err, &e) && e.Timeout() {
		return errTime
	}
	return fmt.Errorf("%w: the session endpoint cannot be reached: %w", identity.ErrUnavailable, err)
}

// judge reports whether an answer's body is worth reading.
func judge(resp *http.Response) error {
	switch code := resp.StatusCode; code {
	case http.StatusOK:
	case http.StatusNoContent, http.StatusUnauthorized, http.StatusForbidden,
		http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect: // to the login page
		return identity.ErrMissing
	case http.StatusMovedPermanently, http.StatusPermanentRedirect:
		return errMoved
	default:
		return fmt.Errorf("%w: the session endpoint answers %d", identity.ErrUnavailable, code)
	}
	kind, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if err != nil || kind != "application/json" && !strings.HasSuffix(kind, "+json") {
		return errNotJSON
	}
	return nil
}

// parse reads an answer. null, and an object without a user, mean that nobody is
// signed in.
func (a *Asker) parse(body []byte) (identity.Identity, error) {
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.UseNumber()
	var answer any
	if err := decoder.Decode(&answer); err != nil {
		return identity.Identity{}, errNotJSON
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return identity.Identity{}, errNotJSON
	}
	if answer == nil {
		return identity.Identity{}, identity.ErrMissing
	}
	object, ok := answer.(map[string]any)
	if !ok {
		return identity.Identity{}, errNoObject
	}
	id, err := a.reader.Read(object)
	switch {
	case errors.Is(err, identity.ErrInvalid):
		return identity.Identity{}, errUser
	case err != nil:
		return identity.Identity{}, err
	}
	id.Source = a.source
	return id, nil
}

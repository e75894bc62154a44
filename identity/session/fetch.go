package session

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"strings"
	"syscall"

	"github.com/caddy-polar/caddy-polar/identity"
)

// maxAnswer bounds the body of an answer.
const maxAnswer = 256 << 10

// What is wrong with an answer. None of them says anything about the visitor.
var (
	errTime      = fmt.Errorf("%w: the session endpoint does not answer in time", identity.ErrUnavailable)
	errRefused   = fmt.Errorf("%w: the session endpoint cannot be reached: nobody listens there", identity.ErrUnavailable)
	errDNS       = fmt.Errorf("%w: the session endpoint cannot be reached: its name cannot be looked up", identity.ErrUnavailable)
	errTLS       = fmt.Errorf("%w: the session endpoint cannot be reached: no TLS, or a certificate that is not trusted", identity.ErrUnavailable)
	errNoWay     = fmt.Errorf("%w: the session endpoint cannot be reached", identity.ErrUnavailable)
	errBroken    = fmt.Errorf("%w: the session endpoint breaks off", identity.ErrUnavailable)
	errNotHTTP   = fmt.Errorf("%w: the session endpoint's answer is no HTTP", identity.ErrUnavailable)
	errMoved     = fmt.Errorf("%w: the session endpoint has moved for good: give the address that it redirects to", identity.ErrUnavailable)
	errNotJSON   = fmt.Errorf("%w: the session endpoint's answer is not JSON", identity.ErrUnavailable)
	errNoObject  = fmt.Errorf("%w: the session endpoint's answer is neither an object nor null", identity.ErrUnavailable)
	errTooLarge  = fmt.Errorf("%w: the session endpoint's answer is larger than 256 KiB", identity.ErrUnavailable)
	errErrorPage = fmt.Errorf("%w: the session endpoint's answer tells of an error, or not who is signed in: check user_path", identity.ErrUnavailable)

	// Not only apps answer 403 to strangers, also firewalls do to anybody.
	errForbidden = fmt.Errorf("%w: the session endpoint answers 403", identity.ErrMissing)

	errUser     = fmt.Errorf("%w: the session endpoint's user is not a usable string or integer", identity.ErrInvalid)
	errCustomer = fmt.Errorf("%w: the session endpoint's customer is not a usable string or integer", identity.ErrInvalid)
)

// ErrEarlier is ErrUnavailable where the app was not asked, since it did not answer
// another request a moment ago. It comes only if the request is not Sure.
var ErrEarlier = fmt.Errorf("%w: the session endpoint has not answered a moment ago", identity.ErrUnavailable)

// MarkHeader marks questions, so that they are told from visitors' requests where the
// endpoint lies behind this very gateway, or another one.
const MarkHeader = "Caddy-Polar-Session-Check"

// mark is this process's: nobody else can make it.
var mark = rand.Text()

// Marked reports whether a request is a question, and whether it is one of this
// process's. Any mark will do: another process's leads round in circles just as well,
// and who makes one up is only taken for a stranger.
func Marked(h http.Header) (question, ours bool) {
	values, question := h[MarkHeader]
	return question, len(values) == 1 && subtle.ConstantTimeCompare([]byte(values[0]), []byte(mark)) == 1
}

// fetch asks the app. It follows no redirect: the cookies are for this address.
func (a *Asker) fetch(ctx context.Context, q question) (identity.Identity, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, a.url, nil)
	if err != nil {
		return identity.Identity{}, errNoWay
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

// unreachable is the kind of an error alone: its text may quote the answer.
func unreachable(ctx context.Context, err error) error {
	var (
		timed       net.Error
		name        *net.DNSError
		op          *net.OpError
		certificate *tls.CertificateVerificationError
		record      tls.RecordHeaderError
		alert       tls.AlertError
	)
	switch {
	case ctx.Err() != nil || errors.As(err, &timed) && timed.Timeout():
		return errTime
	case errors.As(err, &name):
		return errDNS
	case errors.Is(err, syscall.ECONNREFUSED):
		return errRefused
	case errors.As(err, &certificate), errors.As(err, &record), errors.As(err, &alert):
		return errTLS
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		return errBroken
	case errors.As(err, &op):
		return errNoWay
	}
	return errNotHTTP
}

// judge reports whether an answer's body is worth reading.
func judge(resp *http.Response) error {
	switch code := resp.StatusCode; code {
	case http.StatusOK:
	case http.StatusForbidden:
		return errForbidden
	case http.StatusNoContent, http.StatusUnauthorized,
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

// parse reads an answer. null, an empty object, and one whose user is null, mean that
// nobody is signed in. Any other object without a user is an error page in JSON.
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
	case errors.Is(err, identity.ErrCustomer):
		return identity.Identity{}, errCustomer
	case errors.Is(err, identity.ErrInvalid):
		return identity.Identity{}, errUser
	case err != nil && a.errorPage(object):
		return identity.Identity{}, errErrorPage
	case err != nil:
		return identity.Identity{}, err
	}
	id.Source = a.source
	return id, nil
}

// errorPage reports whether an object that names nobody says nothing of who is signed
// in: it tells of an error, or has not even the beginning of user_path.
func (a *Asker) errorPage(object map[string]any) bool {
	if len(object) == 0 {
		return false
	}
	for _, name := range [...]string{"error", "errors"} {
		switch trouble := object[name].(type) {
		case nil:
		case bool:
			if trouble {
				return true
			}
		case []any:
			if len(trouble) > 0 {
				return true
			}
		default:
			return true
		}
	}
	first, _, _ := strings.Cut(a.userPath, ".")
	_, begun := object[first]
	_, whole := object[a.userPath]
	return !begun && !whole
}

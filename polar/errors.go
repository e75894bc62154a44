package polar

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// What a call to Polar can fail with, for errors.Is. The details are in the
// *APIError that carries it. A call whose context was cancelled matches none of
// them, only context.Canceled.
var (
	// ErrNotFound: Polar knows no such object. Only Polar's own answer counts,
	// never a path or version that is unknown.
	ErrNotFound = errors.New("polar: not found")
	// ErrUnauthorized: the access token is not valid.
	ErrUnauthorized = errors.New("polar: access token refused")
	// ErrForbidden: not allowed, by the token or by the object's state.
	ErrForbidden = errors.New("polar: forbidden")
	// ErrScope: forbidden because the token lacks a scope. Is ErrForbidden too.
	ErrScope = errors.New("polar: access token lacks a scope")
	// ErrInvalid: Polar does not accept the input. APIError.Fields says why.
	ErrInvalid = errors.New("polar: invalid input")
	// ErrPayment: the charge that the change needs has failed.
	ErrPayment = errors.New("polar: payment failed")
	// ErrConflict: the object's state, or an update under way, does not allow it.
	ErrConflict = errors.New("polar: conflict")
	// ErrNoSeat: what was bought has no free seat, or is not paid any more.
	ErrNoSeat = errors.New("polar: no free seat")
	// ErrSeatTaken: who should get the seat has one already.
	ErrSeatTaken = errors.New("polar: has a seat already")
	// ErrRateLimited: Polar's limit, or our own towards it (then Status is 0).
	ErrRateLimited = errors.New("polar: rate limited")
	// ErrUnavailable: Polar cannot be reached or answers 5xx.
	ErrUnavailable = errors.New("polar: unavailable")
	// ErrTimeout: no answer in time. A write may or may not have happened.
	ErrTimeout = errors.New("polar: no answer in time")
	// ErrVersionGone: Polar does not serve the API version that was asked for.
	ErrVersionGone = errors.New("polar: API version is gone")
	// ErrRedirect: a redirect, which is never followed: the token stays here.
	ErrRedirect = errors.New("polar: redirected")
	// ErrUnexpected: an answer outside Polar's contract.
	ErrUnexpected = errors.New("polar: unexpected answer")
)

// APIError is why a call has failed. Its string holds nothing that the other
// side wrote except error classes and names of fields: texts can quote e-mails.
type APIError struct {
	Method string
	Path   string // the template, e.g. /v1/subscriptions/{id}
	Status int    // zero when there was no answer
	Code   string // Polar's error class, e.g. AlreadyCanceledSubscription
	// Detail is Polar's sentence. It is for who asked, not for logs.
	Detail string
	// Fields are Polar's complaints about the input.
	Fields []FieldError
	// RetryAfter is how long to wait before the next attempt, if that is known.
	RetryAfter time.Duration

	kind  error  // one of the above
	cause error  // only errors of our own and of the context
	hint  string // what to check
}

// FieldError is one complaint about the input.
type FieldError struct {
	Field   string // e.g. body.customer_email
	Message string // Polar's sentence, fit for who filled the field in
	Type    string // e.g. value_error
}

// Error implements error.
func (e *APIError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "polar: %s %s: ", e.Method, e.Path)
	if e.Status != 0 {
		b.WriteString(strconv.Itoa(e.Status) + " ")
	}
	if plainName.MatchString(e.Code) {
		b.WriteString(e.Code + " ")
	}
	if names := e.fieldNames(); names != "" {
		b.WriteString("(" + names + ") ")
	}
	out := strings.TrimSuffix(strings.TrimSuffix(b.String(), " "), ":") + ": " + e.hint
	if e.RetryAfter > 0 {
		out += " (again in " + e.RetryAfter.Round(time.Second).String() + ")"
	}
	return out
}

// Unwrap gives errors.Is the sentinels.
func (e *APIError) Unwrap() []error {
	out := make([]error, 0, 3)
	if e.kind != nil {
		out = append(out, e.kind)
	}
	if e.kind == ErrScope {
		out = append(out, ErrForbidden)
	}
	if e.cause != nil {
		out = append(out, e.cause)
	}
	return out
}

// plainName is what an error class or the name of a field looks like. Anything
// else could be something a person has typed.
var plainName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.]{0,63}$`)

func (e *APIError) fieldNames() string {
	var names []string
	for _, f := range e.Fields {
		if plainName.MatchString(f.Field) && !slices.Contains(names, f.Field) {
			names = append(names, f.Field)
		}
	}
	return strings.Join(names, ", ")
}

// errorBody is the union of Polar's shapes: {"error","detail"} of domain and
// validation errors, {"error","error_description"} of OAuth, and {"detail"} of
// a path or version that does not exist.
//
// Source: https://polar.sh/docs/api-reference/2026-10/introduction
type errorBody struct {
	Error       any             `json:"error"`
	Detail      json.RawMessage `json:"detail"`
	Description string          `json:"error_description"`
}

const maxFields = 32

// readError makes an error of an answer that is no success. The token is taken
// out of everything that is kept, should the other side ever echo it.
func (r *request) readError(status int, h http.Header, body []byte) *APIError {
	e := r.fail(nil, "")
	e.Status = status
	scrub := strings.NewReplacer(r.token, "[token]").Replace
	var shape errorBody
	polarJSON := isJSON(h) && json.Unmarshal(body, &shape) == nil
	if polarJSON {
		code, _ := shape.Error.(string)
		e.Code = scrub(code)
		e.Detail = scrub(shape.Description)
		var text string
		if json.Unmarshal(shape.Detail, &text) == nil && text != "" {
			e.Detail = scrub(text)
		}
		e.Fields = readFields(shape.Detail, scrub)
	}
	e.hint, e.kind = classify(status, e.Code)
	switch {
	case polarJSON && status == http.StatusNotFound && shape.Error == nil && e.Detail != "" && r.version != "":
		e.kind = ErrVersionGone
		e.hint = "Polar no longer serves API version " + r.version + ", or the server address is wrong: set a newer api_version"
	case (status == http.StatusUnauthorized || status == http.StatusForbidden) && e.Code == "":
		e.hint = "refused, not in Polar's words: check the server address and what stands in between"
	}
	return e
}

// classify says what a status means and what to check.
func classify(status int, code string) (hint string, kind error) {
	switch {
	case status >= 300 && status < 400:
		return "redirects are not followed: check the server address", ErrRedirect
	case status == http.StatusUnauthorized:
		return "check the access token: it may be revoked, expired or made for the other of production and sandbox", ErrUnauthorized
	case status == http.StatusForbidden && code == "insufficient_scope":
		return "add the scope to the access token in Polar's settings", ErrScope
	case status == http.StatusForbidden:
		return "Polar does not allow this for this object", ErrForbidden
	case status == http.StatusPaymentRequired:
		return "the payment failed: the customer should check the payment method", ErrPayment
	case status == http.StatusNotFound && code != "":
		return "Polar knows no such object: check the id and whether it belongs to this organization", ErrNotFound
	case status == http.StatusConflict || status == http.StatusGone:
		return "the object's state does not allow this now", ErrConflict
	case status == http.StatusBadRequest && code == "SeatNotAvailable":
		return "all seats are given away, or the purchase is over", ErrNoSeat
	case status == http.StatusBadRequest && code == "SeatAlreadyAssigned":
		return "a seat is given once to each person", ErrSeatTaken
	case status == http.StatusBadRequest && code == "SeatNotPending":
		return "only an invitation can be sent again", ErrConflict
	case status == http.StatusBadRequest || status == http.StatusUnprocessableEntity:
		return "check the named fields", ErrInvalid
	case status == http.StatusTooManyRequests:
		return "too many requests for this token or organization", ErrRateLimited
	case status >= 500:
		return "Polar has trouble: see https://status.polar.sh", ErrUnavailable
	}
	return "this is not what Polar answers: check the server address", ErrUnexpected
}

func readFields(detail json.RawMessage, scrub func(string) string) []FieldError {
	var items []struct {
		Loc  []any  `json:"loc"`
		Msg  string `json:"msg"`
		Type string `json:"type"`
	}
	if json.Unmarshal(detail, &items) != nil {
		return nil
	}
	var fields []FieldError
	for _, item := range items[:min(len(items), maxFields)] {
		parts := make([]string, len(item.Loc))
		for i, part := range item.Loc {
			parts[i] = fmt.Sprint(part)
		}
		fields = append(fields, FieldError{
			Field: scrub(strings.Join(parts, ".")), Message: scrub(item.Msg), Type: scrub(item.Type),
		})
	}
	return fields
}

// fail is an error without an answer.
func (r *request) fail(kind error, hint string) *APIError {
	return &APIError{Method: r.method, Path: r.path, kind: kind, hint: hint}
}

// noAnswer sorts what went wrong on the way. The original error is not kept:
// it quotes the address, which holds ids and filters, or the bytes that came.
func (r *request) noAnswer(ctx context.Context, err error) *APIError {
	if ctx.Err() != nil {
		return r.ended(ctx)
	}
	var timeout net.Error
	if errors.Is(err, context.DeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout() {
		return r.fail(ErrTimeout, "no answer in time: check the network, or see https://status.polar.sh")
	}
	reason := "the connection broke"
	var dns *net.DNSError
	var op *net.OpError
	var cert *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	switch {
	case errors.As(err, &dns):
		reason = dns.Error()
	case errors.As(err, &cert):
		reason = cert.Error()
	case errors.As(err, &op):
		reason = op.Error()
	case errors.As(err, &record):
		reason = "the server does not speak TLS"
	}
	return r.fail(ErrUnavailable, reason+": check the server address and the network")
}

// ended is the end of the caller's own patience.
func (r *request) ended(ctx context.Context) *APIError {
	e := r.fail(nil, "given up by the caller")
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		e = r.fail(ErrTimeout, "no answer within the time the caller had")
	}
	e.cause = ctx.Err()
	return e
}

func isJSON(h http.Header) bool {
	kind, _, err := mime.ParseMediaType(h.Get("Content-Type"))
	return err == nil && kind == "application/json"
}

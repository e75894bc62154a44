package box

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// maxBody is Polar's limit of a request's body.
const maxBody = 10 << 20

// call is a request of the API.
type call struct {
	b       *Box
	r       *http.Request
	params  map[string]string
	body    map[string]json.RawMessage
	at      time.Time // what a read sees: now, or the past of a lagging replica
	session *session
}

type handler func(*call) (int, any, error)

// route is an endpoint. Its scopes are any-of; none means that a customer
// session is wanted instead, and anyone that nothing is.
type route struct {
	method  string
	pattern []string
	scopes  []string
	handle  handler
}

const anyone = "anyone"

func on(method, pattern, scopes string, handle handler) route {
	return route{method, strings.Split(pattern, "/"), strings.Fields(scopes), handle}
}

// match compares decoded segments, as Starlette does: an id with a slash
// cannot be addressed.
func (r *route) match(path []string) (map[string]string, bool) {
	if len(path) != len(r.pattern) {
		return nil, false
	}
	params := map[string]string{}
	for i, want := range r.pattern {
		if strings.HasPrefix(want, "{") {
			if path[i] == "" {
				return nil, false
			}
			params[strings.Trim(want, "{}")] = path[i]
		} else if want != path[i] {
			return nil, false
		}
	}
	return params, true
}

// find returns the route of a request, and whether the path exists at all.
func (b *Box) find(method, path string) (r *route, params map[string]string, exists bool) {
	segments := strings.Split(path, "/")
	for i := range routes {
		p, ok := routes[i].match(segments)
		if !ok {
			continue
		}
		exists = true
		if routes[i].method == method {
			return &routes[i], p, true
		}
	}
	return nil, nil, exists
}

// ServeHTTP implements http.Handler: the API, the hosted checkout and the
// portal.
func (b *Box) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Date", b.Now().Format(http.TimeFormat))
	if b.fault(w, r) {
		return
	}
	if !strings.HasPrefix(r.URL.Path, "/v1/") {
		b.servePage(w, r)
		return
	}
	version := r.Header.Get("Polar-Version")
	if version == "" {
		version = Version
	}
	if !slices.Contains(versions, version) {
		answer(w, http.StatusNotFound, obj{"detail": "Not Found"})
		return
	}
	w.Header().Set("Polar-Version", version)
	status, body := b.serve(w, r)
	answer(w, status, body)
}

func answer(w http.ResponseWriter, status int, body any) {
	if body == nil {
		w.WriteHeader(status)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	raw, _ := encode(body)
	_, _ = w.Write(append(raw, '\n'))
}

func (b *Box) serve(w http.ResponseWriter, r *http.Request) (int, any) {
	if retry := b.limited(r); retry > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(retry))
		return http.StatusTooManyRequests, nil
	}
	if status, body := checkLength(r); status != 0 {
		return status, body
	}
	rt, params, exists := b.find(r.Method, r.URL.Path)
	if rt == nil {
		return b.noRoute(w, r, exists)
	}
	c := &call{b: b, r: r, params: params, at: b.replica()}
	if status, body := b.authorize(w, c, rt); status != 0 {
		return status, body
	}
	if err := c.check(); err != nil {
		return failure(err)
	}
	status, body, err := rt.handle(c)
	if err != nil {
		return failure(err)
	}
	return status, body
}

func checkLength(r *http.Request) (int, any) {
	switch r.Method {
	case http.MethodPost, http.MethodPut, http.MethodPatch:
	default:
		return 0, nil
	}
	if r.ContentLength < 0 || len(r.TransferEncoding) > 0 {
		return http.StatusLengthRequired, obj{"error": "LengthRequired", "detail": "Content-Length header is required."}
	}
	if r.ContentLength > maxBody {
		return http.StatusRequestEntityTooLarge, obj{"error": "RequestEntityTooLarge", "detail": "The request body is too large."}
	}
	return 0, nil
}

// noRoute redirects to the path with the other trailing slash if that exists,
// as FastAPI does.
func (b *Box) noRoute(w http.ResponseWriter, r *http.Request, exists bool) (int, any) {
	if exists {
		return http.StatusMethodNotAllowed, obj{"detail": "Method Not Allowed"}
	}
	other := r.URL.Path + "/"
	if cut, ok := strings.CutSuffix(r.URL.Path, "/"); ok {
		other = cut
	}
	if _, _, ok := b.find(r.Method, other); ok {
		to := *r.URL
		to.Scheme, to.Host, to.Path, to.RawPath = "http", r.Host, other, ""
		w.Header().Set("Location", to.String())
		return http.StatusTemporaryRedirect, nil
	}
	return http.StatusNotFound, obj{"detail": "Not Found"}
}

func failure(err error) (int, any) {
	var e *Error
	if !errors.As(err, &e) {
		return http.StatusInternalServerError, obj{"error": "InternalServerError", "detail": "Internal Server Error"}
	}
	if len(e.Issues) > 0 {
		return e.Status, obj{"error": e.Code, "detail": e.Issues}
	}
	return e.Status, obj{"error": e.Code, "detail": e.Detail}
}

// check reads the body, and validates the ids of the path.
func (c *call) check() error {
	for name, value := range c.params {
		if strings.HasSuffix(name, "id") && !strings.HasPrefix(name, "external") && !isUUID(value) {
			return requestError("uuid_parsing", "Input should be a valid UUID", value, "path", name)
		}
	}
	if c.r.Method != http.MethodPost && c.r.Method != http.MethodPatch {
		return nil
	}
	raw, err := io.ReadAll(io.LimitReader(c.r.Body, maxBody))
	if err != nil {
		return requestError("json_invalid", "JSON decode error", nil, "body")
	}
	if len(raw) == 0 {
		return nil
	}
	if json.Unmarshal(raw, &c.body) != nil {
		return requestError("model_attributes_type", "Input should be a valid dictionary or object to extract fields from", nil, "body")
	}
	return nil
}

func requestError(kind, msg string, input any, loc ...any) *Error {
	return &Error{Status: http.StatusUnprocessableEntity, Code: "RequestValidationError", Issues: []Issue{{kind, loc, msg, input}}}
}

func isUUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i, r := range s {
		dash := i == 8 || i == 13 || i == 18 || i == 23
		if dash != (r == '-') || !dash && !strings.ContainsRune("0123456789abcdefABCDEF", r) {
			return false
		}
	}
	return true
}

// field reads a field of the body; null and absent leave the zero value.
func field[T any](c *call, name string) (T, error) {
	var v T
	raw, ok := c.body[name]
	if !ok {
		return v, nil
	}
	if json.Unmarshal(raw, &v) != nil {
		return v, requestError("type_error", "Input has the wrong type", json.RawMessage(raw), "body", name)
	}
	return v, nil
}

// fields reads several fields of the body of one type.
func readFields[T any](c *call, into map[string]*T) error {
	for name, to := range into {
		v, err := field[T](c, name)
		if err != nil {
			return err
		}
		*to = v
	}
	return nil
}

// only refuses fields that the body must not have.
func (c *call) only(names ...string) error {
	for name, raw := range c.body {
		if !slices.Contains(names, name) {
			return requestError("extra_forbidden", "Extra inputs are not permitted", raw, "body", name)
		}
	}
	return nil
}

func (c *call) needs(names ...string) error {
	for _, name := range names {
		if _, ok := c.body[name]; !ok {
			return requestError("missing", "Field required", nil, "body", name)
		}
	}
	return nil
}

// read runs a read under the lock.
func (c *call) read(do func(b *Box) (any, error)) (int, any, error) {
	c.b.mu.Lock()
	defer c.b.mu.Unlock()
	v, err := do(c.b)
	return http.StatusOK, v, err
}

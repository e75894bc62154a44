package contract

import (
	"bytes"
	"cmp"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
)

// Checker complains to a test about what Polar would not have said.
type Checker struct {
	doc      *openapi3.T
	complain func(format string, args ...any)

	mu      sync.Mutex
	checked int
	said    map[string]*openapi3.Schema // bodies that were checked already
}

// New makes a checker. Without the document the test fails.
func New(t testing.TB) *Checker {
	t.Helper()
	doc, err := document()
	if err != nil {
		t.Fatal("Polar's OpenAPI document:", err)
	}
	return &Checker{doc: doc, complain: t.Errorf, said: map[string]*openapi3.Schema{}}
}

// Checked returns how many answers and webhooks were held against the document.
func (c *Checker) Checked() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.checked
}

func (c *Checker) count() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.checked++
}

// most bounds the time that a test takes which raises very many events.
const most = 2000

// Webhooks checks the bodies of n webhooks, or of so many of them, evenly
// spaced, that it does not take long.
func (c *Checker) Webhooks(n int, body func(i int) string) {
	for i := 0; i < n; i += max(1, n/most) {
		c.Webhook([]byte(body(i)))
	}
}

// Webhook checks the body of a webhook.
func (c *Checker) Webhook(body []byte) {
	c.count()
	var event struct{ Type string }
	var value any
	if json.Unmarshal(body, &event) != nil || json.Unmarshal(body, &value) != nil {
		c.complain("webhook: no JSON object: %.200s", body)
		return
	}
	hook := c.doc.Webhooks[event.Type]
	if hook == nil {
		c.complain("webhook %s is not in the document", event.Type)
		return
	}
	for _, why := range mismatches(hook.Post.RequestBody.Value.Content.Get("application/json").Schema.Value, value) {
		c.complain("webhook %s: %s", event.Type, why)
	}
}

// Handler passes everything on, and checks the answers of the API.
func (c *Checker) Handler(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec := &recorder{ResponseWriter: w}
		h.ServeHTTP(rec, r)
		if strings.HasPrefix(r.URL.Path, "/v1/") && r.Context().Err() == nil {
			c.answer(r, rec)
		}
	})
}

// recorder keeps a copy of what is written.
type recorder struct {
	http.ResponseWriter
	status int
	body   bytes.Buffer
}

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(p []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	r.body.Write(p)
	return r.ResponseWriter.Write(p)
}

func (c *Checker) answer(r *http.Request, rec *recorder) {
	c.count()
	where := r.Method + " " + r.URL.Path + ": " + strconv.Itoa(rec.status)
	if got, want := rec.Header().Get("Polar-Version"), cmp.Or(r.Header.Get("Polar-Version"), "2026-10"); got != want && rec.status < 429 && !unversioned(r) {
		c.complain("%s: Polar-Version %q, want %q", where, got, want)
	}
	op := c.find(r.Method, r.URL.Path)
	if documented := response(op, rec.status); documented != nil && !unversioned(r) && !also(rec) {
		c.body(where, documented, rec)
		return
	}
	if why := undocumented(r, op != nil, rec); why != "" {
		c.complain("%s: %s", where, why)
	}
}

// also says that a status which the document lists has another reason, too:
// tokens are refused by all operations, and some refusals are in no list.
func also(rec *recorder) bool {
	var body struct{ Error string }
	if rec.status < 400 || json.Unmarshal(rec.body.Bytes(), &body) != nil {
		return false
	}
	return body.Error == "invalid_token" || body.Error == "insufficient_scope" || refusals[body.Error] == rec.status
}

// body checks a body whose schema the document has.
func (c *Checker) body(where string, want *openapi3.Response, rec *recorder) {
	media := want.Content.Get("application/json")
	if media != nil && media.Schema != nil && media.Schema.Value.Always != nil && rec.body.Len() == 0 {
		return // "anything" is nothing, too
	}
	if media == nil || media.Schema == nil || media.Schema.Value.Type.Is(openapi3.TypeNull) {
		if rec.body.Len() > 0 {
			c.complain("%s: a body, where Polar has none: %.200s", where, rec.body.Bytes())
		}
		return
	}
	if got := rec.Header().Get("Content-Type"); got != "application/json" {
		c.complain("%s: Content-Type %q", where, got)
	}
	if c.again(media.Schema.Value, rec.body.String()) {
		return
	}
	var value any
	if err := json.Unmarshal(rec.body.Bytes(), &value); err != nil {
		c.complain("%s: %v in %.200s", where, err, rec.body.Bytes())
		return
	}
	for _, why := range mismatches(media.Schema.Value, value) {
		c.complain("%s: %s", where, why)
	}
}

// again says that the same body was checked before: some tests ask a thousand
// times.
func (c *Checker) again(schema *openapi3.Schema, body string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.said[body] == schema {
		return true
	}
	c.said[body] = schema
	return false
}

// response is what the document says of a status. Of some refusals it says no
// more than that they exist.
func response(op *openapi3.Operation, status int) *openapi3.Response {
	if op == nil {
		return nil
	}
	ref := op.Responses.Value(strconv.Itoa(status))
	if ref == nil || status >= 400 && len(ref.Value.Content) == 0 {
		return nil
	}
	return ref.Value
}

// Request returns the schema of a request's body, or nothing.
func (c *Checker) Request(method, path string) *openapi3.Schema {
	op := c.find(method, path)
	if op == nil || op.RequestBody == nil {
		return nil
	}
	return op.RequestBody.Value.Content.Get("application/json").Schema.Value
}

// find looks the operation of a request up. Slashes and letters are taken at
// their word, and fixed segments before parameters.
func (c *Checker) find(method, path string) *openapi3.Operation {
	got := strings.Split(path, "/")
	var best *openapi3.Operation
	fewest := len(got)
	for template, item := range c.doc.Paths.Map() {
		op := item.GetOperation(method)
		if n, ok := match(strings.Split(template, "/"), got); ok && op != nil && n < fewest {
			best, fewest = op, n
		}
	}
	return best
}

func match(template, got []string) (params int, ok bool) {
	if len(template) != len(got) {
		return 0, false
	}
	for i, part := range template {
		switch {
		case strings.HasPrefix(part, "{") && got[i] != "":
			params++
		case part != got[i]:
			return 0, false
		}
	}
	return params, true
}

package contract

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// versions are those that Polar answers in November 2026.
var versions = []string{"", "2026-04", "2026-10", "2027-01"}

func unversioned(r *http.Request) bool {
	return !slices.Contains(versions, r.Header.Get("Polar-Version"))
}

// shapes are the bodies of refusals that the document does not list: their keys
// and what their error says. Nil means one of the classes in refusals.
var shapes = []struct {
	statuses []int
	keys     []string
	codes    []string
}{
	{[]int{400, 401, 402, 403, 404, 409, 410, 411, 413}, []string{"detail", "error"}, nil}, // Polar's own
	{[]int{401}, []string{"error", "error_description"}, []string{"invalid_token"}},        // OAuth's: no detail
	{[]int{403}, []string{"error", "error_description"}, []string{"insufficient_scope"}},
	{[]int{404, 405}, []string{"detail"}, []string{""}}, // FastAPI's, of its router
}

// undocumented says what is wrong with an answer whose status the document does
// not list for its operation.
func undocumented(r *http.Request, known bool, rec *recorder) string {
	h := rec.Header()
	switch {
	case rec.status >= 500:
		return "" // of the edge, with any body
	case rec.status == http.StatusTooManyRequests:
		return limited(h, rec.body.Bytes())
	case unversioned(r):
		return exactly(rec, http.StatusNotFound, `{"detail":"Not Found"}`)
	case rec.status == http.StatusTemporaryRedirect:
		if known || rec.body.Len() > 0 || h.Get("Location") == "" {
			return "a redirect of a path that exists, or without a target, or with a body"
		}
		return ""
	case rec.status < 400:
		return "Polar has no such success"
	case rec.status == http.StatusUnauthorized && h.Get("WWW-Authenticate") == "":
		return "no WWW-Authenticate"
	}
	return shapeOf(rec, known)
}

// shapeOf says what is wrong with the body of a refusal.
func shapeOf(rec *recorder, known bool) string {
	var body map[string]any
	if err := json.Unmarshal(rec.body.Bytes(), &body); err != nil || len(body) == 0 {
		return "no JSON object: " + rec.body.String()
	}
	keys := slices.Sorted(maps.Keys(body))
	code, _ := body["error"].(string)
	if rec.status == http.StatusNotFound && known == (code == "") {
		return "Polar has this operation, and the box does not, or the other way round"
	}
	detail, _ := body[keys[0]].(string)
	for _, s := range shapes {
		if !slices.Contains(s.statuses, rec.status) || !slices.Equal(s.keys, keys) || detail == "" {
			continue
		}
		if slices.Contains(s.codes, code) || s.codes == nil && refusals[code] == rec.status {
			return ""
		}
	}
	return fmt.Sprintf("none of the shapes of refusals: %s", rec.body.Bytes())
}

func exactly(rec *recorder, status int, body string) string {
	if rec.status == status && string(bytes.TrimSpace(rec.body.Bytes())) == body {
		return ""
	}
	return fmt.Sprintf("%s, want %d %s", rec.body.Bytes(), status, body)
}

func limited(h http.Header, body []byte) string {
	if seconds, err := strconv.Atoi(h.Get("Retry-After")); err != nil || seconds < 1 {
		return "Retry-After: " + h.Get("Retry-After")
	}
	for name := range h {
		if strings.HasPrefix(name, "X-Ratelimit") {
			return name + " is not sent by Polar"
		}
	}
	if len(body) > 0 {
		return fmt.Sprintf("a body: %s", body)
	}
	return ""
}

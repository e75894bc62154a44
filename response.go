package caddypolar

import (
	"io"
	"net/http"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// gatedWriter keeps shared caches from handing a gated answer to others.
type gatedWriter struct {
	caddyhttp.ResponseWriterWrapper
	vary string
	done bool
	own  [2]string // the header values of this answer
}

// protect sets the headers, before the first byte of the answer goes out.
func (w *gatedWriter) protect() {
	if w.done {
		return
	}
	w.done = true
	h := w.Header()
	w.own = [2]string{private(h["Cache-Control"]), w.vary}
	h["Cache-Control"] = w.own[0:1:1]
	for name := range h {
		if outranksCacheControl(name) {
			delete(h, name)
		}
	}
	if _, varies := h["Vary"]; varies || w.vary == "" {
		addVary(h, w.vary)
	} else {
		h["Vary"] = w.own[1:2:2]
	}
}

// outranksCacheControl names what some shared caches believe rather than
// Cache-Control.
func outranksCacheControl(name string) bool {
	switch name {
	case "Surrogate-Control", "Edge-Control", "X-Accel-Expires":
		return true
	}
	return strings.HasSuffix(name, "-Cache-Control")
}

// private makes a cache policy private. What is stricter in it stays.
func private(policy []string) string {
	if len(policy) == 0 {
		return "private"
	}
	kept := []string{"private"}
	for _, directive := range splitDirectives(strings.Join(policy, ",")) {
		name, _, _ := strings.Cut(strings.ToLower(directive), "=")
		switch name {
		case "public", "private", "s-maxage", "must-understand": // the last lets caches ignore no-store
		default:
			kept = append(kept, directive)
		}
	}
	return strings.Join(kept, ", ")
}

// splitDirectives splits at commas that do not stand in quotes.
func splitDirectives(s string) (list []string) {
	quoted, escaped := false, false
	for part := range strings.FieldsFuncSeq(s, func(r rune) bool {
		quoted = quoted != (r == '"' && !escaped)
		escaped = quoted && r == '\\' && !escaped
		return r == ',' && !quoted
	}) {
		if part = strings.TrimSpace(part); part != "" {
			list = append(list, part)
		}
	}
	return list
}

// WriteHeader implements http.ResponseWriter. Informational answers pass.
func (w *gatedWriter) WriteHeader(status int) {
	if status >= 200 || status == http.StatusSwitchingProtocols {
		w.protect()
	}
	w.ResponseWriterWrapper.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (w *gatedWriter) Write(p []byte) (int, error) {
	w.protect()
	return w.ResponseWriterWrapper.Write(p)
}

// ReadFrom implements io.ReaderFrom.
func (w *gatedWriter) ReadFrom(r io.Reader) (int64, error) {
	w.protect()
	return w.ResponseWriterWrapper.ReadFrom(r)
}

// FlushError is what http.ResponseController looks for: a flush can be what
// sends the headers.
func (w *gatedWriter) FlushError() error {
	w.protect()
	return http.NewResponseController(w.ResponseWriterWrapper.ResponseWriter).Flush()
}

// Interface guards
var (
	_ http.ResponseWriter             = (*gatedWriter)(nil)
	_ io.ReaderFrom                   = (*gatedWriter)(nil)
	_ interface{ FlushError() error } = (*gatedWriter)(nil)
)

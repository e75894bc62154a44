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
	// These outrank Cache-Control at some shared caches.
	delete(h, "Cdn-Cache-Control")
	delete(h, "Surrogate-Control")
	if _, varies := h["Vary"]; varies || w.vary == "" {
		addVary(h, w.vary)
	} else {
		h["Vary"] = w.own[1:2:2]
	}
}

// private makes a cache policy private, unless it is stricter.
func private(policy []string) string {
	if len(policy) == 0 {
		return "private"
	}
	var kept []string
	for _, line := range policy {
		for directive := range strings.SplitSeq(line, ",") {
			directive = strings.TrimSpace(directive)
			name, _, _ := strings.Cut(strings.ToLower(directive), "=")
			switch name {
			case "", "public", "private", "s-maxage":
			default:
				kept = append(kept, directive)
			}
			if name == "no-store" {
				return strings.Join(policy, ", ")
			}
		}
	}
	return strings.Join(append([]string{"private"}, kept...), ", ")
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

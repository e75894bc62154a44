package caddypolar

import (
	"bufio"
	"context"
	"io"
	"math"
	"net"
	"net/http"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// pieceSize is how much is written between two looks whether the answer may go
// on. Caddy itself writes in pieces of this size.
const pieceSize = 64 << 10

// gatedWriter keeps shared caches from handing a gated answer to others, and
// fails when the answer was ended.
type gatedWriter struct {
	caddyhttp.ResponseWriterWrapper
	stream gatedStream
	done   bool
	wrote  bool      // a piece
	failed bool      // something was not written
	own    [2]string // the header values of this answer
}

// serve lets the handler answer. The request stays the same one, as Caddy's
// placeholders read it.
func (w *gatedWriter) serve(r *http.Request, next caddyhttp.Handler) error {
	setContext(r, &w.stream)
	defer w.leave(r) // reverse_proxy leaves by panic
	return next.ServeHTTP(w, r)
}

func (w *gatedWriter) leave(r *http.Request) {
	setContext(r, w.stream.Context)
	w.stream.leave()
}

// setContext gives a request another context in place. It is a function of its own so
// that the copies it makes are not on the stack of what comes next.
//
//go:noinline
func setContext(r *http.Request, ctx context.Context) { *r = *r.WithContext(ctx) }

// protect sets the headers, before the first byte of the answer goes out.
func (w *gatedWriter) protect() {
	if w.done {
		return
	}
	w.done = true
	h := w.Header()
	for name := range h { // there are none often, before ours
		if outranksCacheControl(name) {
			delete(h, name)
		}
	}
	vary := w.stream.gateway().vary
	w.own = [2]string{private(h["Cache-Control"]), vary}
	h["Cache-Control"] = w.own[0:1:1]
	if _, varies := h["Vary"]; varies || vary == "" {
		addVary(h, vary)
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

// WriteHeader implements http.ResponseWriter. Informational answers pass. An
// answer that was ended before it began is left to the gate.
func (w *gatedWriter) WriteHeader(status int) {
	if status >= 200 || status == http.StatusSwitchingProtocols {
		if w.stream.over.Load() {
			return
		}
		w.protect()
	}
	w.ResponseWriterWrapper.WriteHeader(status)
}

// piece comes before each piece of the answer. With the second the answer is
// one that goes on.
func (w *gatedWriter) piece() error {
	if w.stream.over.Load() {
		w.failed = true
		return errEnded
	}
	w.protect()
	if w.wrote {
		w.stream.continues()
	}
	w.wrote = true
	return nil
}

// Write implements http.ResponseWriter.
func (w *gatedWriter) Write(p []byte) (n int, err error) {
	for {
		if err := w.piece(); err != nil {
			return n, err
		}
		m, err := w.ResponseWriterWrapper.Write(p[n:min(len(p), n+pieceSize)])
		if n += m; err != nil || n >= len(p) {
			return n, err
		}
	}
}

// ReadFrom implements io.ReaderFrom. It looks into a limit, as the one who
// writes does, which can then send a file without reading it.
func (w *gatedWriter) ReadFrom(r io.Reader) (n int64, err error) {
	whole := &io.LimitedReader{R: r, N: math.MaxInt64}
	if limited, ok := r.(*io.LimitedReader); ok {
		whole = limited
	}
	w.wrote = w.wrote || whole.N > pieceSize
	for {
		if err := w.piece(); err != nil {
			return n, err
		}
		piece := io.LimitedReader{R: whole.R, N: min(whole.N, pieceSize)}
		m, err := w.ResponseWriterWrapper.ReadFrom(&piece)
		n += m
		whole.N -= m
		if err != nil || piece.N > 0 || whole.N <= 0 {
			return n, err
		}
	}
}

// FlushError is what http.ResponseController looks for: a flush can be what
// sends the headers.
func (w *gatedWriter) FlushError() error {
	if w.stream.over.Load() {
		return errEnded
	}
	w.protect()
	w.stream.continues()
	return http.NewResponseController(w.ResponseWriterWrapper.ResponseWriter).Flush()
}

// Flush implements http.Flusher.
func (w *gatedWriter) Flush() { _ = w.FlushError() }

// Hijack implements http.Hijacker. The connection is closed when the access has
// ended, as long as the handler has not returned.
func (w *gatedWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if w.stream.over.Load() {
		return nil, nil, errEnded
	}
	conn, buffered, err := http.NewResponseController(w.ResponseWriterWrapper.ResponseWriter).Hijack()
	if err == nil {
		w.done = true
		w.stream.hijacked(conn)
	}
	return conn, buffered, err
}

// Interface guards
var (
	_ http.ResponseWriter             = (*gatedWriter)(nil)
	_ http.Flusher                    = (*gatedWriter)(nil)
	_ http.Hijacker                   = (*gatedWriter)(nil)
	_ io.ReaderFrom                   = (*gatedWriter)(nil)
	_ interface{ FlushError() error } = (*gatedWriter)(nil)
)

package postgres

import (
	"errors"
	"sync/atomic"
	"time"

	"github.com/caddy-polar/caddy-polar/cache/kv"
)

// health keeps many from waiting for a database that does not answer: once one has
// failed, one at a time tries, and the others are told at once.
type health struct {
	failure atomic.Pointer[failure] // nil: all is well
	trying  atomic.Bool
}

type failure struct {
	error
	at time.Time
}

// use uses the database, or says why that has failed for others.
func (h *health) use(use func() error) error {
	f := h.failure.Load()
	if f == nil {
		return h.note(use())
	}
	if time.Since(f.at) < again || !h.trying.CompareAndSwap(false, true) {
		return f.error
	}
	defer h.trying.Store(false)
	return h.note(use())
}

// note takes down what has come of a use. What the body has to say is no failure.
func (h *health) note(err error) error {
	var body *kv.BodyError
	switch {
	case err == nil, errors.As(err, &body):
		h.failure.Store(nil)
	case errors.Is(err, ErrUnreachable), errors.Is(err, ErrRefused), errors.Is(err, ErrRights), errors.Is(err, ErrReadOnly), errors.Is(err, ErrNewer), errors.Is(err, ErrEncoding), errors.Is(err, ErrGone):
		h.failure.Store(&failure{err, time.Now()})
	}
	return err
}

// retry makes the next use try at once.
func (h *health) retry() {
	if f := h.failure.Load(); f != nil {
		h.failure.CompareAndSwap(f, &failure{f.error, time.Time{}})
	}
}

package box

import (
	"net/http"
	"time"
)

// Trouble is what is wrong with the API.
type Trouble struct {
	Refuse bool          // connections break without an answer, which needs an http.Server
	HTML   bool          // 500 from the edge, in HTML
	Hang   bool          // no answer until the caller gives up
	Lag    time.Duration // how old the replica is that reads are served from
	Limit  int           // every call gets 429 with this Retry-After, in seconds
}

// SetTrouble sets what is wrong with the API from now on.
func (b *Box) SetTrouble(t Trouble) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.trouble = t
}

// replica returns the time that a read sees.
func (b *Box) replica() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Now().Add(-b.trouble.Lag)
}

func (b *Box) fault(w http.ResponseWriter, r *http.Request) bool {
	b.mu.Lock()
	t := b.trouble
	b.mu.Unlock()
	switch {
	case t.Refuse:
		panic(http.ErrAbortHandler) // the server closes the connection
	case t.Hang:
		<-r.Context().Done()
	case t.HTML:
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.WriteHeader(http.StatusInternalServerError)
		_, _ = w.Write([]byte("<!doctype html><title>500</title><h1>Internal Server Error</h1>"))
	case t.Limit > 0:
		w.Header().Set("Retry-After", itoa(t.Limit))
		w.WriteHeader(http.StatusTooManyRequests)
	default:
		return false
	}
	return true
}

package caddypolar

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"sync"
	"time"

	"github.com/caddy-polar/caddy-polar/entitlement"
	"github.com/caddy-polar/caddy-polar/gateway"
)

const (
	// heartbeat keeps a quiet stream open, and notices that the other side is
	// gone.
	heartbeat = 20 * time.Second
	// maxStreams is how many streams a user can have open.
	maxStreams = 10
	// writeTime is how long a client may take for a piece of news.
	writeTime = 30 * time.Second
)

// streams are the open streams of a gateway.
type streams struct {
	mu      sync.Mutex
	users   map[string]int
	servers map[*http.Server]chan struct{}
}

// enter counts one more stream of a user, unless it is too many.
func (s *streams) enter(user string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.users[user] >= maxStreams {
		return false
	}
	if s.users == nil {
		s.users = make(map[string]int)
	}
	s.users[user]++
	return true
}

func (s *streams) leave(user string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.users[user]--; s.users[user] == 0 {
		delete(s.users, user)
	}
}

// ending tells when a request's server begins to shut down: a stream must
// not keep Caddy from stopping or reloading. HTTP/3 has no such hook; known is
// false there.
func (s *streams) ending(ctx context.Context) (ending <-chan struct{}, known bool) {
	server, ok := ctx.Value(http.ServerContextKey).(*http.Server)
	if !ok {
		return nil, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if c, ok := s.servers[server]; ok {
		return c, true
	}
	if s.servers == nil {
		s.servers = make(map[*http.Server]chan struct{})
	}
	c := make(chan struct{})
	s.servers[server] = c
	server.RegisterOnShutdown(sync.OnceFunc(func() { close(c) }))
	return c, true
}

// serveEvents streams a user's entitlement: as it is, and whenever it changes.
func (g *Gateway) serveEvents(w http.ResponseWriter, r *http.Request, v *visit) error {
	user := v.identity.User
	if !g.streams.enter(user) {
		return newProblem(http.StatusTooManyRequests, codeTooMany).
			with("There are ten streams of this user already.").after(heartbeat).answer(w, r, v)
	}
	defer g.streams.leave(user)
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("X-Accel-Buffering", "no") // for a proxy before us
	h.Set("X-Content-Type-Options", "nosniff")
	news, stop := g.core.Watch(v.identity.Customer)
	defer stop()
	var seats <-chan struct{} // are a person's, whoever pays for the rest
	if user != v.identity.Customer {
		var stop func()
		seats, stop = g.core.Watch(user)
		defer stop()
	}
	ending, known := g.streams.ending(r.Context())
	s := stream{w: w, control: http.NewResponseController(w), g: g, user: user, who: v.claims()}
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	expires := time.NewTimer(time.Until(v.identity.Expires))
	defer expires.Stop()
	boundary := time.NewTimer(s.tell())
	defer boundary.Stop()
	for s.err == nil {
		select {
		case <-news:
			boundary.Reset(s.tell())
		case <-seats:
			boundary.Reset(s.tell())
		case <-boundary.C:
			boundary.Reset(s.tell())
		case <-beat.C:
			if !known {
				return nil // the client comes back by itself
			}
			boundary.Reset(s.tell())
			s.write([]byte(":\n\n"))
		case <-expires.C:
			return nil
		case <-ending:
			return nil
		case <-r.Context().Done():
			return nil
		}
	}
	return nil
}

// stream is one open stream.
type stream struct {
	w       http.ResponseWriter
	control *http.ResponseController
	g       *Gateway
	user    string
	who     gateway.Visitor // whose account it tells of
	last    []byte
	err     error
}

// tell sends the user's entitlement if it is another one than before, and says
// in how long time alone may change it.
func (s *stream) tell() (next time.Duration) {
	next = time.Hour
	account, err := s.g.core.AccountOf(s.who)
	if err != nil {
		return heartbeat // unknown is no news
	}
	now := s.g.core.Now()
	view := viewEntitlements(s.user, account, s.g.core.Rules(), now)
	for _, until := range view.boundaries {
		if wait := until.Sub(now); wait > 0 {
			next = min(next, wait+time.Millisecond)
		}
	}
	body, err := json.Marshal(view)
	if err != nil || bytes.Equal(body, s.last) {
		return next
	}
	s.last = body
	s.write([]byte("data: " + string(body) + "\n\n"))
	return next
}

func (s *stream) write(p []byte) {
	if s.err != nil {
		return
	}
	_ = s.control.SetWriteDeadline(time.Now().Add(writeTime)) // not every connection has one
	if _, s.err = s.w.Write(p); s.err == nil {
		s.err = s.control.Flush()
	}
}

// entitlementsView is what is open for a user, plan by plan.
type entitlementsView struct {
	User     string                `json:"user"`
	Plans    map[string]accessView `json:"plans"`
	Products []string              `json:"products"`
	Benefits []string              `json:"benefits"`

	boundaries []time.Time // when plans that are open end, or go on for another reason
}

func viewEntitlements(user string, a *entitlement.Account, rules *entitlement.Rules, now time.Time) *entitlementsView {
	view := &entitlementsView{User: user, Plans: make(map[string]accessView, len(rules.Plans)), Products: []string{}, Benefits: []string{}}
	for i, d := range entitlement.DecideEach(a, rules, now) {
		view.Plans[rules.Plans[i].Name] = viewAccess(&d)
		if d.Allowed && !d.Until.IsZero() {
			view.boundaries = append(view.boundaries, d.Until)
		}
	}
	products, benefits := a.Open(rules, now)
	view.Products = append(view.Products, products...)
	view.Benefits = append(view.Benefits, benefits...)
	return view
}

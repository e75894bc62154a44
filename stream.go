package caddypolar

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/caddy-polar/caddy-polar/entitlement"
)

const (
	// defaultRecheck is how soon an answer that goes on ends after the access.
	defaultRecheck = 30 * time.Second
	minRecheck     = time.Second
	// streamAge is how long an answer goes on before it is a stream, which does
	// not keep Caddy from stopping.
	streamAge = time.Second
	// cutAfter is how long a handler has to notice that its stream has ended.
	cutAfter = time.Second
	// exitPoll is how often it is looked whether the process is exiting.
	exitPoll = 200 * time.Millisecond
)

// Why streams end, besides the reasons of a refusal.
const (
	// endReconfigured: the configuration that runs now does not know the
	// gateway, or the plan.
	endReconfigured entitlement.Reason = "reconfigured"
	endShutdown     entitlement.Reason = "shutdown"
)

// errEnded is what a handler gets that goes on writing.
var errEnded = errors.New("polar_require: the answer was ended")

// checkRecheck checks a duration of recheck, 0 being the default.
func checkRecheck(d caddy.Duration) error {
	if d != 0 && time.Duration(d) < minRecheck {
		return fmt.Errorf("recheck: it is %v, and must be at least %v", time.Duration(d), minRecheck)
	}
	return nil
}

// gatedStream watches over one answer that a gate has let through, for as long
// as it goes on. It is the context of the request meanwhile. Most answers are
// short: they cost neither a timer nor a context that can be canceled, which are
// made when somebody waits for the context or the answer goes on.
type gatedStream struct {
	context.Context // the request's before

	gate   *Gate
	visit  *visit                // whose account decides
	opened *entitlement.Decision // what let it through

	waited atomic.Pointer[cancelable]
	over   atomic.Bool // the answer must go on no longer
	goesOn atomic.Bool // more than one piece of the answer has been written
	http1  bool

	left  bool // the handler has returned
	mu    sync.Mutex
	watch *watch // nil while there is nothing to watch
}

// watch is what only an answer that goes on, or is waited for, needs. It is under
// the stream's lock.
type watch struct {
	timer  *time.Timer // nil if the handler had left by then
	listed bool        // in the gateway's list
	began  time.Time   // when goesOn was set
	conn   net.Conn    // hijacked, or to be cut
	// Why the answer was ended, to refuse it if nothing has been sent yet.
	account  *entitlement.Account
	decision *entitlement.Decision
}

// cancelable is a context with what cancels it.
type cancelable struct {
	context.Context
	cancel context.CancelFunc
}

// Done implements context.Context: who waits can wait for long.
func (s *gatedStream) Done() <-chan struct{} {
	if c := s.waited.Load(); c != nil {
		return c.Done()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watched()
	return s.wait().Done()
}

// Err implements context.Context.
func (s *gatedStream) Err() error {
	if c := s.waited.Load(); c != nil {
		return c.Err()
	}
	return s.Context.Err()
}

// Value implements context.Context. Contexts made of this one find through it
// what cancels them.
func (s *gatedStream) Value(key any) any {
	if c := s.waited.Load(); c != nil {
		return c.Value(key)
	}
	return s.Context.Value(key)
}

// wait makes the context that can be canceled. It has no cause of its own:
// reverse_proxy would take that for a failure of the upstream.
func (s *gatedStream) wait() *cancelable {
	c := s.waited.Load()
	if c == nil {
		c = new(cancelable)
		c.Context, c.cancel = context.WithCancel(s.Context)
		if s.left {
			c.cancel()
		}
		s.waited.Store(c)
	}
	return c
}

// watched begins to watch, once.
func (s *gatedStream) watched() *watch {
	if s.watch == nil {
		s.watch = new(watch)
		if !s.left {
			s.watch.timer = time.AfterFunc(min(streamAge, s.gate.nextLook(s.opened.Until, s.gateway().core.Now())), s.look)
		}
	}
	return s.watch
}

// gateway is the one whose plans let it through.
func (s *gatedStream) gateway() *Gateway { return s.visit.gateway }

// continues notes that the answer goes on.
func (s *gatedStream) continues() {
	if s.goesOn.Load() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.goesOn.Swap(true) {
		s.watched().began = time.Now()
	}
}

// hijacked takes note of a connection that is the handler's from now on.
func (s *gatedStream) hijacked(conn net.Conn) {
	s.continues()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.watched().conn = conn; s.over.Load() {
		_ = conn.Close()
	}
}

// look asks again what the gate asked. Only a refusal ends the answer: what is
// unknown is not unpaid. Nor does the end of the token: whose answer goes on
// cannot show a new one.
func (s *gatedStream) look() {
	account, decision, now := s.decide()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.left || s.over.Load() {
		return
	}
	w := s.watch
	if !w.listed { // also what ends now: its handler can be blocked when Caddy stops
		w.listed = true
		s.gateway().open.enter(s)
	}
	switch {
	case !decision.Allowed && decision.HTTPStatus != http.StatusServiceUnavailable:
		w.account, w.decision = account, &decision
		s.end(decision.Reason)
	case account == nil: // nobody is left to decide
		w.account, w.decision = new(entitlement.Account), &decision
		s.end(endReconfigured)
	default:
		w.timer.Reset(s.gate.nextLook(decision.Until, now))
	}
}

// decide answers as the configuration that runs now would. Without an account
// there is none that can.
func (s *gatedStream) decide() (*entitlement.Account, entitlement.Decision, time.Time) {
	g, q, err := s.gate.inForce(s.gateway())
	if err != nil {
		if caddy.Exiting() { // no configuration runs any more: it goes unchanged
			return new(entitlement.Account), entitlement.Unavailable(), time.Time{}
		}
		return nil, entitlement.Unavailable(), time.Time{}
	}
	now := g.core.Now()
	account, err := g.core.AccountOf(s.visit.claims())
	if err != nil {
		return new(entitlement.Account), entitlement.Unavailable(), now
	}
	decision := entitlement.Decide(account, q, g.core.Rules(), now)
	if !decision.Allowed {
		account, decision, _ = g.core.ConfirmOf(s, s.visit.claims(), account, q, decision)
	}
	return account, decision, now
}

// inForce is the gateway, and what the gate requires of it, in the
// configuration that runs now: answers outlive the one they began under.
func (g *Gate) inForce(gw *Gateway) (*Gateway, entitlement.Requirement, error) {
	if g.life.Err() == nil {
		return gw, g.byGateway[gw].requirement, nil
	}
	app, err := loadApp(caddy.ActiveContext())
	if err != nil {
		return nil, entitlement.Requirement{}, err
	}
	if gw, err = app.gateway(gw.name); err != nil {
		return nil, entitlement.Requirement{}, err
	}
	q, err := gw.core.Rules().Require(g.Plans...)
	return gw, q, err
}

// nextLook is in how long to look again, if the decision's reason ends at until.
func (g *Gate) nextLook(until, now time.Time) time.Duration {
	if left := until.Sub(now); left > 0 {
		return min(g.recheck, left+time.Millisecond)
	}
	return g.recheck
}

// end ends the answer: who waits is told, who writes fails, and who notices
// neither is cut off.
func (s *gatedStream) end(reason entitlement.Reason) {
	s.over.Store(true)
	s.wait().cancel()
	w := s.watch
	w.timer.Stop()
	g := s.gateway()
	streamsEndedTotal.WithLabelValues(g.name, string(reason)).Inc()
	if c := g.logger.Check(zap.DebugLevel, "an answer that went on was ended"); c != nil {
		c.Write(zap.String("reason", string(reason)), zap.String("external_customer", s.visit.identity.Customer))
	}
	if w.conn != nil {
		_ = w.conn.Close() // hijacked: nobody else will
		return
	}
	if s.http1 || reason == endShutdown { // else other answers share it
		w.conn, _ = s.Context.Value(connKey{}).(net.Conn)
	}
	w.timer = time.AfterFunc(cutAfter, s.cut)
}

// cut closes the connection, which is this answer's as long as the handler has
// not returned: it is blocked, writing to a client that does not read.
func (s *gatedStream) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.watch.conn != nil && !s.left {
		_ = s.watch.conn.Close()
	}
}

// endAtExit ends what is a stream by now. Whatever has not begun to answer is a
// request as any other, for which Caddy waits. What was ended before has had its
// time: if it still holds a connection that others share, they lose it too.
func (s *gatedStream) endAtExit() {
	s.mu.Lock()
	defer s.mu.Unlock()
	over, w := s.over.Load(), s.watch
	if s.left || !over && (!s.goesOn.Load() || time.Since(w.began) < streamAge) {
		return
	}
	if s.gate.ending != nil {
		select {
		case <-s.gate.ending:
		default:
			return // shutdown_delay: the server goes on for a while
		}
	}
	if !over {
		s.end(endShutdown)
	} else if w.conn == nil {
		if w.conn, _ = s.Context.Value(connKey{}).(net.Conn); w.conn != nil {
			w.timer.Reset(cutAfter)
		}
	}
}

// leave ends the watch, as the handler has returned.
func (s *gatedStream) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.left = true
	if w := s.watch; w != nil {
		if w.timer != nil {
			w.timer.Stop()
		}
		if w.listed {
			s.gateway().open.leave(s)
		}
	}
	if c := s.waited.Load(); c != nil {
		c.cancel()
	}
}

// openStreams are a gateway's answers that go on. Caddy tells nobody in time
// that the process exits: for open HTTP/3 connections it has no hook, and for
// answers that began under an earlier configuration the hooks have been.
type openStreams struct {
	mu   sync.Mutex
	list map[*gatedStream]struct{}
	poll *time.Timer
}

func (o *openStreams) enter(s *gatedStream) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.list == nil {
		o.list = make(map[*gatedStream]struct{})
		o.poll = time.AfterFunc(exitPoll, o.look)
	} else if len(o.list) == 0 {
		o.poll.Reset(exitPoll)
	}
	o.list[s] = struct{}{}
}

func (o *openStreams) leave(s *gatedStream) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.list, s)
}

func (o *openStreams) look() {
	var open []*gatedStream
	o.mu.Lock()
	if len(o.list) > 0 {
		o.poll.Reset(exitPoll)
	}
	if caddy.Exiting() {
		for s := range o.list {
			open = append(open, s)
		}
	}
	o.mu.Unlock()
	for _, s := range open {
		s.endAtExit()
	}
}

// connKey is where a request's context has its connection.
type connKey struct{}

// watchServer makes the server in whose routes we stand tell connections, and
// when it begins to shut down. That must be asked for before it starts: hooks that
// come when it shuts down are not called. Both go with the configuration.
func (g *Gate) watchServer(ctx caddy.Context) {
	server, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	if !ok {
		return
	}
	ending := make(chan struct{})
	g.ending = ending
	server.RegisterOnShutdown(sync.OnceFunc(func() { close(ending) }))
	server.RegisterConnContext(func(ctx context.Context, c net.Conn) context.Context {
		if ctx.Value(connKey{}) != nil {
			return ctx // another gate has done it
		}
		return context.WithValue(ctx, connKey{}, c)
	})
}

// Interface guards
var _ context.Context = (*gatedStream)(nil)

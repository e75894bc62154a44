package caddypolar

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
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
	// youth is after how long, at most, an answer that is waited for gets a timer of
	// its own.
	youth = streamAge / 2
	// youngPlaces is for how many such answers at a time one timer does.
	youngPlaces = 4096
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
// short: they cost neither a context that can be canceled, which is made when
// somebody waits for it, nor a timer, which is made when the answer goes on or has
// been waited for some time.
type gatedStream struct {
	context.Context // the request's before

	gate   *Gate
	visit  *visit                // whose account decides
	opened *entitlement.Decision // what let it through

	waiting context.Context // what others wait for, once waited says that it is there
	cancel  context.CancelFunc
	waited  atomic.Bool
	over    atomic.Bool // the answer must go on no longer
	goesOn  atomic.Bool // more than one piece of the answer has been written
	http1   bool

	left  bool // the handler has returned
	mu    sync.Mutex
	place uint32 // among the young, from 1
	watch *watch // nil while there is nothing to watch
}

// watch is what only an answer needs that goes on, or is waited for. It is under the
// stream's lock.
type watch struct {
	timer  *time.Timer // nil if the handler had left by then
	listed bool        // in the gateway's list
	began  time.Time   // when goesOn was set
	conn   net.Conn    // hijacked, or to be cut
	// Why the answer was ended, to refuse it if nothing has been sent yet.
	account  *entitlement.Account
	decision *entitlement.Decision
}

// Done implements context.Context: who waits can wait for long.
func (s *gatedStream) Done() <-chan struct{} {
	if !s.waited.Load() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.wait()
		s.enter()
	}
	return s.waiting.Done()
}

// Err implements context.Context.
func (s *gatedStream) Err() error {
	if s.waited.Load() {
		return s.waiting.Err()
	}
	return s.Context.Err()
}

// Value implements context.Context. Contexts made of this one find through it
// what cancels them.
func (s *gatedStream) Value(key any) any {
	if s.waited.Load() {
		return s.waiting.Value(key)
	}
	return s.Context.Value(key)
}

// wait makes the context that can be canceled. It has no cause of its own:
// reverse_proxy would take that for a failure of the upstream.
func (s *gatedStream) wait() {
	if s.waited.Load() {
		return
	}
	s.waiting, s.cancel = context.WithCancel(s.Context)
	if s.left {
		s.cancel()
	}
	s.waited.Store(true)
}

// enter makes sure that it will be looked after an answer that is waited for.
func (s *gatedStream) enter() {
	if s.left || s.watch != nil || s.place != 0 {
		return
	}
	if until := s.opened.Until; until.IsZero() || until.Sub(s.visit.now) > streamAge {
		if s.place = s.gateway().young.enter(s); s.place != 0 {
			return
		}
	}
	s.watched(streamAge)
}

// grow gives an answer that was waited for since its youth a timer of its own.
func (s *gatedStream) grow() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.place = 0; !s.left {
		s.watched(streamAge - youth)
	}
}

// watched begins to watch, once, and to look within a time.
func (s *gatedStream) watched(within time.Duration) *watch {
	if s.watch == nil {
		s.watch = new(watch)
		if !s.left {
			s.watch.timer = time.AfterFunc(min(within, s.gate.nextLook(s.opened.Until, s.gateway().core.Now())), s.look)
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
		s.watched(streamAge).began = time.Now()
	}
}

// hijacked takes note of a connection that is the handler's from now on.
func (s *gatedStream) hijacked(conn net.Conn) {
	s.continues()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.watched(streamAge).conn = conn; s.over.Load() {
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
	s.wait()
	s.cancel()
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
	if s.place != 0 {
		s.gateway().young.leave(s)
	}
	if s.waited.Load() {
		s.cancel()
	}
}

// young are answers that somebody waits for and that can still be short, as most are
// that a proxy brings. One timer does for all of them: whoever is still here when it
// fires gets one of its own.
type young struct {
	places [youngPlaces]atomic.Pointer[gatedStream]
	due    atomic.Bool // the timer will fire
}

// enter says in which place, from 1, the answer is. There is none if that which was
// drawn is taken.
func (y *young) enter(s *gatedStream) (place uint32) {
	place = 1 + rand.Uint32N(youngPlaces)
	if !y.places[place-1].CompareAndSwap(nil, s) {
		return 0
	}
	if !y.due.Load() && !y.due.Swap(true) {
		time.AfterFunc(youth, y.look)
	}
	return place
}

func (y *young) leave(s *gatedStream) { y.places[s.place-1].CompareAndSwap(s, nil) }

func (y *young) look() {
	y.due.Store(false) // first: who comes from now on is seen below, or asks again
	for i := range y.places {
		if y.places[i].Load() == nil {
			continue
		}
		if s := y.places[i].Swap(nil); s != nil {
			s.grow()
		}
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

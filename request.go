package caddypolar

import (
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/caddy-polar/caddy-polar/entitlement"
	"github.com/caddy-polar/caddy-polar/gateway"
	"github.com/caddy-polar/caddy-polar/identity"
	"github.com/caddy-polar/caddy-polar/identity/session"
)

// requestVar is the request variable under which we keep what was found out.
const requestVar = "polar_request"

// requestState is what all of our handlers share about one request. There is one for
// each request, so that its size counts.
type requestState struct {
	// overrides are the paths in X-Original-URL and X-Rewrite-URL. Nil if there are
	// none, as nearly always: a pointer is smaller.
	overrides *[]string
	// credentials are the headers before a token was stripped, for whoever
	// looks for one later. Nil while nothing was stripped.
	credentials http.Header
	site        *visit // that of the site's `polar`, nil where there is none
	last        *visit // that of the handler that came last, for placeholders
	first       visit  // most requests know one gateway

	// question says that the request is one to a session endpoint, and ours that it
	// is this process's.
	question, ours bool
	// silent keeps our own {http.auth.user.id} back while that of others is read.
	silent bool
}

// String keeps the state out of {http.vars.polar_request}.
func (*requestState) String() string { return "" }

// visit is what has been found out about a request on behalf of one gateway.
// Whoever asks first computes it, once.
type visit struct {
	state   *requestState
	gateway *Gateway
	next    *visit        // of another gateway
	now     time.Time     // by Polar's clock, by which periods end
	ahead   time.Duration // of this machine's clock, by which tokens expire

	handler *Handler // which serves the gateway's routes on this site; nil: nothing does

	identity  *identity.Identity // shared: nobody changes it
	anonymous error              // why there is no identity

	standing *entitlement.Standing // shared; nil before gather
	account  *entitlement.Account  // nil before load

	// decision is the last gate's, else that for any plan. It is shared: nobody
	// changes it. until is when it ends, as headers write it, or not known yet.
	decision *entitlement.Decision
	until    string

	refused *problem // nil while nobody was

	own headerValues // in the request's header

	waited time.Duration // for what was not remembered

	there      present // of our headers
	identified bool
	unreadable bool // neither standing nor account can be had
	// limits says that on_unavailable does not apply: what keeps the user out is
	// our own limits, or a refusal that could not be confirmed.
	limits bool
}

// routes is the path at which this site serves the gateway's routes, or empty.
func (v *visit) routes() string {
	if v.handler == nil {
		return ""
	}
	return v.handler.path
}

// stateOf finds the state of a request, or begins it.
func stateOf(r *http.Request) *requestState {
	ctx := r.Context()
	vars, _ := ctx.Value(caddyhttp.VarsCtxKey).(map[string]any)
	if s, ok := vars[requestVar].(*requestState); ok {
		return s
	}
	s := new(requestState)
	if vars != nil {
		vars[requestVar] = s
	}
	if repl, ok := ctx.Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok {
		repl.Map(s.placeholder)
	}
	return s
}

// sift takes out of the headers, in one pass, what clients must not say: what is in
// a gateway's namespace, and what makes others read another request than we do.
func (s *requestState) sift(h http.Header, n *headerNames) {
	for name, values := range h {
		switch plainName(name) {
		case originalURL1, originalURL2:
			s.takeOverrides(values)
			delete(h, name)
		case methodOverride1, methodOverride2, methodOverride3:
			delete(h, name)
		case "Upgrade":
			dropH2C(h)
		case "Connection":
			n.stripConnection(h)
		case session.MarkHeader:
			s.question, s.ours = session.Marked(h)
		}
		if n.ours(name) {
			delete(h, name)
		}
	}
}

// takeOverrides remembers the paths of a header that overrides that of the request.
func (s *requestState) takeOverrides(values []string) {
	if s.overrides == nil {
		s.overrides = new([]string)
	}
	for _, value := range values {
		if value == "" {
			continue
		}
		path := gateway.OverridePath(value)
		*s.overrides = append(*s.overrides, path)
		if _, rest, ok := strings.Cut(path, ":"); ok {
			*s.overrides = append(*s.overrides, "/"+rest) // http:pro/x
		}
	}
}

// dropH2C removes a wish to go on in clear-text HTTP/2: what comes through such a
// tunnel to the app passes no gate.
func dropH2C(h http.Header) {
	for _, value := range h["Upgrade"] {
		for _, protocol := range strings.Split(value, ",") {
			if strings.EqualFold(strings.TrimSpace(protocol), "h2c") {
				delete(h, "Upgrade")
				delete(h, "Http2-Settings")
				return
			}
		}
	}
}

// isTunnel says whether a request asks for a tunnel, and not for one of those in which
// HTTP/2 and 3 carry WebSockets. Such a body ends nowhere: the proxy sends it on bare,
// and an upstream takes it for more requests, which no gate has seen.
func isTunnel(r *http.Request) bool {
	if r.Method != http.MethodConnect {
		return false
	}
	switch r.ProtoMajor {
	case 2:
		return r.Header.Get(":protocol") != "websocket"
	case 3:
		return r.Proto != "websocket"
	}
	return true
}

// refuseTunnel answers such a request.
func (v *visit) refuseTunnel(w http.ResponseWriter, r *http.Request) error {
	w.Header().Set("Allow", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")
	return newProblem(http.StatusMethodNotAllowed, codeWrongMethod).answer(w, r, v)
}

// Headers that make some upstreams serve another path, or method, than the
// request's own.
const (
	originalURL1    = "X-Original-Url"
	originalURL2    = "X-Rewrite-Url"
	methodOverride1 = "X-Http-Method-Override"
	methodOverride2 = "X-Http-Method"
	methodOverride3 = "X-Method-Override"
)

// visitOf begins, or goes on with, what one gateway does for a request. It
// strips the client's copies of our headers, once.
func (s *requestState) visitOf(g *Gateway, r *http.Request) *visit {
	stripped := false
	for v := &s.first; v != nil && v.gateway != nil; v = v.next {
		if v.gateway == g {
			if v.there == absent {
				v.there = found // others have had the request since
			}
			s.last = v
			return v
		}
		stripped = stripped || v.gateway.names.folded == g.names.folded
	}
	v := &s.first
	switch {
	case v.gateway == nil:
		s.sift(r.Header, &g.names)
		g.names.stripTrailer(r)
	case !stripped: // what else the site has set since is its own
		g.names.stripFrom(r.Header)
		g.names.stripConnection(r.Header)
		g.names.stripTrailer(r)
	}
	if v.gateway != nil {
		v = &visit{next: s.first.next}
		s.first.next = v
	}
	v.state, v.gateway, v.decision, v.identity = s, g, &undecided, &stranger
	local := g.core.Local()
	v.now = g.core.At(local)
	v.ahead = v.now.Sub(local)
	if !stripped {
		v.there = absent
	}
	s.last = v
	return v
}

// identify finds out who asks, for whoever refuses strangers.
func (v *visit) identify(r *http.Request) error { return v.look(r, true) }

// notice finds out who asks, where strangers may pass.
func (v *visit) notice(r *http.Request) error { return v.look(r, false) }

// look finds out who asks. The error is one of identity's. Where there was
// no token it looks again: the site's own authentication may have put one there
// since. Nor does a refusal rest on what an app did not answer to another request.
func (v *visit) look(r *http.Request, sure bool) error {
	again, before := v.identified, v.anonymous
	if again && !errors.Is(before, identity.ErrMissing) && !(sure && errors.Is(before, session.ErrEarlier)) {
		return before
	}
	s := v.state
	from := r.Header
	if s.credentials != nil {
		from = s.credentials
	}
	v.identified = true
	g := v.gateway
	v.identity, v.anonymous = g.identify(r, from, v.now.Add(-v.ahead), sure)
	if v.anonymous != nil {
		if code := identityCode(v.anonymous); !again || code != identityCode(before) {
			g.metrics.tokens[code].Inc()
		}
		return v.anonymous
	}
	g.metrics.valid.Inc()
	if v.identity.StripToken {
		if s.credentials == nil {
			s.credentials = r.Header.Clone()
		}
		v.identity.Source.Strip(r.Header)
	}
	return nil
}

// gather finds out what the user, who is known by now, comes to, if that can be had.
func (v *visit) gather() bool {
	if v.standing != nil {
		return v.standing != &noStanding
	}
	core := v.gateway.core
	if known, ok := v.identity.Note.Load().(*gateway.Standing); ok && known.Holds(core.Rules(), v.now) {
		v.standing = known.Standing
		return true
	}
	defer v.wait(time.Now())
	who := v.claims()
	found, account, err := core.StandingOf(&who, v.now)
	if err != nil {
		v.standing = &noStanding
		return v.unread(err)
	}
	if found.Count() <= maxKept {
		v.identity.Note.Store(found)
	}
	v.standing, v.account = found.Standing, account
	return true
}

// maxKept is with how many open plans a standing is kept with its token, for which
// the memory of tokens has room.
const maxKept = 4

// noStanding is that of somebody of whom nothing can be told.
var noStanding entitlement.Standing

// load reads the whole account of who pays for the user, if that can be had.
func (v *visit) load() bool {
	if v.account != nil || v.unreadable {
		return !v.unreadable
	}
	defer v.wait(time.Now())
	account, err := v.gateway.core.AccountOf(v.claims())
	if err != nil {
		return v.unread(err)
	}
	v.account = account
	return true
}

// wait counts the time since a decision began to wait.
func (v *visit) wait(began time.Time) { v.waited += time.Since(began) }

func (v *visit) unread(err error) bool {
	v.unreadable = true
	if g := v.gateway; g.warnedStore.now(v.now) {
		g.logger.Error("the store cannot be read: nobody can be told from a stranger", zap.Error(err))
	}
	return false
}

// take goes on with another account than the one that was read.
func (v *visit) take(account *entitlement.Account, now time.Time) {
	v.account, v.standing = account, account.Standing(v.gateway.core.Rules(), now)
}

// hashes stand in the log for who asks and, if that is another, who pays: it is the
// payer of whom everything else in the log tells.
func (v *visit) hashes() []zap.Field {
	core := v.gateway.core
	fields := []zap.Field{zap.String("user_hash", core.HashUser(v.identity.User))}
	if payer := v.identity.Customer; payer != "" && payer != v.identity.User {
		fields = append(fields, zap.String("external_customer_hash", core.HashUser(payer)))
	}
	return fields
}

// claims is what the token says about who asks.
func (v *visit) claims() gateway.Visitor {
	return gateway.Visitor{User: v.identity.Customer, Person: v.identity.User, Email: v.identity.Email, EmailVerified: v.identity.EmailVerified}
}

// decide answers for a requirement. That the store cannot be read is an answer
// too.
func (v *visit) decide(q entitlement.Requirement) *entitlement.Decision {
	if !v.gather() {
		return v.answer(entitlement.Unavailable())
	}
	if open := v.standing.Meets(q); open != nil {
		v.decision, v.until = &open.Decision, open.UntilText
		return v.decision
	}
	rules := v.gateway.core.Rules()
	if v.account == nil && !v.standing.Known {
		return v.answer(entitlement.Decide(&noAccount, q, rules, v.now))
	}
	if !v.load() {
		return v.answer(entitlement.Unavailable())
	}
	return v.answer(entitlement.Decide(v.account, q, rules, v.now))
}

// noAccount is that of somebody whom nobody knows.
var noAccount entitlement.Account

// answer takes a decision that was made for this request.
func (v *visit) answer(d entitlement.Decision) *entitlement.Decision {
	v.decision, v.until = &d, ""
	return v.decision
}

// undecided is the decision before there is one.
var undecided entitlement.Decision

// confirm asks Polar before a refusal that may be wrong.
func (v *visit) confirm(r *http.Request, q entitlement.Requirement) *entitlement.Decision {
	if v.decision.Allowed && v.account == nil {
		return v.decision // it was looked at when the standing was made
	}
	if !v.load() {
		return v.answer(entitlement.Unavailable())
	}
	defer v.wait(time.Now())
	before := v.decision.HTTPStatus
	account, decision, limits := v.gateway.core.ConfirmOf(r.Context(), v.claims(), v.account, q, *v.decision)
	if account != v.account {
		v.take(account, v.now)
	}
	v.answer(decision)
	// Neither our own limits, nor that Polar could not be asked about who was
	// refused for good, is a way in.
	v.limits = limits || decision.HTTPStatus == http.StatusServiceUnavailable && before != http.StatusServiceUnavailable
	return v.decision
}

// decided counts the decision, which a gate has carried out.
func (v *visit) decided(allowed bool) {
	g := v.gateway
	g.metrics.decided(allowed, v.decision.Reason)
	if v.waited > 0 {
		g.metrics.waited.Observe(v.waited.Seconds())
		v.waited = 0
	}
	if g.core.Unconfirmed(v.identity.Customer, allowed, v.decision.Reason) {
		g.metrics.unconfirmed[allowed].Inc()
	}
}

// expose tells the upstream what is known about the user of the last decision.
func (v *visit) expose(r *http.Request, gated bool) {
	payer := ""
	if v.gateway.payers {
		payer = v.identity.Customer
	}
	values := headersOf(v.identity.User, payer, v.standing, v.decision, v.until, gated)
	if v.gateway.assertion != nil {
		values[headerAssertion] = v.assert(&values, payer)
	}
	v.gateway.names.set(r.Header, &values, &v.own, v.there)
	v.there = ours
}

// placeholder implements {http.polar.*} and {http.auth.user.id}.
func (s *requestState) placeholder(key string) (any, bool) {
	v := s.last
	if v == nil {
		return nil, false
	}
	known := v.identified && v.anonymous == nil
	if key == "http.auth.user.id" {
		return v.identity.User, known && !s.silent
	}
	name, ok := strings.CutPrefix(key, "http.polar.")
	if !ok {
		return nil, false
	}
	d := v.decision
	switch name {
	case "user":
		return v.identity.User, true
	case "external_customer":
		return v.identity.Customer, true
	case "customer":
		if v.standing == nil {
			return "", true
		}
		return v.standing.Customer, true
	case "plan":
		return d.Plan, true
	case "plans":
		if v.standing == nil {
			return "", true
		}
		return v.standing.Open, true
	case "status":
		return d.Status, true
	case "reason":
		if v.identified && !known {
			return identityCode(v.anonymous), true
		}
		return string(d.Reason), true
	case "until":
		if d.Until.IsZero() {
			return "", true
		}
		return formatTime(d.Until), true
	case "allowed":
		return strconv.FormatBool(d.Allowed), true
	case "checkout_url":
		if v.refused == nil {
			return "", true
		}
		return v.refused.CheckoutURL, true
	}
	return nil, false
}

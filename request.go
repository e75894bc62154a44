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

// requestState is what all of our handlers share about one request.
type requestState struct {
	// overrides are the paths in X-Original-URL and X-Rewrite-URL.
	overrides []string
	// credentials are the headers before a token was stripped, for whoever
	// looks for one later. Nil while nothing was stripped.
	credentials http.Header
	site        *visit // that of the site's `polar`, nil where there is none
	sitePath    string // where it serves the routes
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
	next    *visit    // of another gateway
	local   time.Time // this machine's clock, by which tokens expire
	now     time.Time // Polar's, by which periods end

	identified bool
	identity   *identity.Identity // shared: nobody changes it
	anonymous  error              // why there is no identity

	gathered   bool
	account    *entitlement.Account
	unreadable error // why there is no account
	plans      string

	// decision is the last gate's, else that for any plan. It is shared: nobody
	// changes it. until is when it ends, as headers write it, or not known yet.
	decision *entitlement.Decision
	until    string

	// limits says that on_unavailable does not apply: what keeps the user out is
	// our own limits, or a refusal that could not be confirmed.
	limits bool

	// checkout is where the user can buy what they were refused, if they can.
	checkout string

	exposed bool
	own     headerValues // in the request's header
}

// stateOf finds the state of a request, or begins it.
func stateOf(r *http.Request) *requestState {
	ctx := r.Context()
	vars, _ := ctx.Value(caddyhttp.VarsCtxKey).(map[string]any)
	if s, ok := vars[requestVar].(*requestState); ok {
		return s
	}
	s := new(requestState)
	s.takeOverrides(r.Header)
	dropH2C(r.Header)
	s.readMark(r.Header)
	if vars != nil {
		vars[requestVar] = s
	}
	if repl, ok := ctx.Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok {
		repl.Map(s.placeholder)
	}
	return s
}

// takeOverrides removes the headers that override path and method, and
// remembers the paths.
func (s *requestState) takeOverrides(h http.Header) {
	for _, name := range overrideHeaders {
		values, ok := h[name]
		if !ok {
			continue
		}
		for _, value := range values {
			if value == "" {
				continue
			}
			path := gateway.OverridePath(value)
			s.overrides = append(s.overrides, path)
			if _, rest, ok := strings.Cut(path, ":"); ok {
				s.overrides = append(s.overrides, "/"+rest) // http:pro/x
			}
		}
		delete(h, name)
	}
	delete(h, methodOverride)
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

// Headers that make some upstreams serve another path, or method, than the
// request's own.
var overrideHeaders = [...]string{"X-Original-Url", "X-Rewrite-Url"}

const methodOverride = "X-Http-Method-Override"

// visitOf begins, or goes on with, what one gateway does for a request. It
// strips the client's copies of our headers, once.
func (s *requestState) visitOf(g *Gateway, r *http.Request) *visit {
	stripped := false
	for v := &s.first; v != nil && v.gateway != nil; v = v.next {
		if v.gateway == g {
			s.last = v
			return v
		}
		stripped = stripped || v.gateway.names.folded == g.names.folded
	}
	if !stripped {
		g.names.strip(r)
	}
	v := &s.first
	if v.gateway != nil {
		v = &visit{next: s.first.next}
		s.first.next = v
	}
	v.state, v.gateway, v.local, v.decision = s, g, g.core.Local(), &undecided
	v.identity = &stranger
	v.now = g.core.At(v.local)
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
	v.identity, v.anonymous = g.identify(r, from, v.local, sure)
	if v.anonymous != nil {
		if code := identityCode(v.anonymous); !again || code != identityCode(before) {
			g.metrics.tokens[code].Inc()
		}
		return v.anonymous
	}
	g.metrics.tokens[tokenValid].Inc()
	if v.identity.StripToken {
		if s.credentials == nil {
			s.credentials = r.Header.Clone()
		}
		v.identity.Source.Strip(r.Header)
	}
	return nil
}

// gather reads the account of who pays for the user, who is known by now.
func (v *visit) gather() error {
	if v.gathered {
		return v.unreadable
	}
	v.gathered = true
	g := v.gateway
	v.account, v.unreadable = g.core.AccountOf(v.claims())
	if v.unreadable != nil {
		if g.warnedStore.now(v.now) {
			g.logger.Error("the store cannot be read: nobody can be told from a stranger", zap.Error(v.unreadable))
		}
		return v.unreadable
	}
	v.plans = v.account.Standing(g.core.Rules(), v.now).Open
	return nil
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
	if v.gather() != nil {
		return v.answer(entitlement.Unavailable())
	}
	rules := v.gateway.core.Rules()
	if open := v.account.Standing(rules, v.now).Meets(q); open != nil {
		v.decision, v.until = &open.Decision, open.UntilText
		return v.decision
	}
	return v.answer(entitlement.Decide(v.account, q, rules, v.now))
}

// answer takes a decision that was made for this request.
func (v *visit) answer(d entitlement.Decision) *entitlement.Decision {
	v.decision, v.until = &d, ""
	return v.decision
}

// undecided is the decision before there is one.
var undecided entitlement.Decision

// confirm asks Polar before a refusal that may be wrong.
func (v *visit) confirm(r *http.Request, q entitlement.Requirement) *entitlement.Decision {
	if v.unreadable != nil {
		return v.decision
	}
	before := v.decision.HTTPStatus
	account, decision, limits := v.gateway.core.ConfirmOf(r.Context(), v.claims(), v.account, q, *v.decision)
	if account != v.account {
		v.account, v.plans = account, account.Standing(v.gateway.core.Rules(), v.now).Open
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
	values := headersOf(v.identity.User, payer, v.account, v.decision, v.until, v.plans, gated)
	v.gateway.names.set(r.Header, &values, &v.own, v.exposed)
	v.exposed = true
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
		if v.account == nil {
			return "", true
		}
		return v.account.OwnCustomer(), true
	case "plan":
		return d.Plan, true
	case "plans":
		return v.plans, true
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
		return v.checkout, true
	}
	return nil, false
}

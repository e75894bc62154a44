package caddypolar

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/caddy-polar/caddy-polar/entitlement"
	"github.com/caddy-polar/caddy-polar/gateway"
	"github.com/caddy-polar/caddy-polar/identity"
)

func init() {
	caddy.RegisterModule(Handler{})
	caddy.RegisterModule(Gate{})
}

// defaultPath is where the routes are served.
const defaultPath = "/auth/polar"

// Handler is `polar`: it serves the gateway's routes, and on every request of
// the site removes what clients must not say and tells the upstream who asks.
type Handler struct {
	// Gateway is the gateway's name. Default: default.
	Gateway string `json:"gateway,omitempty"`

	// Path is the prefix of the routes. Default: /auth/polar.
	Path string `json:"path,omitempty"`

	// Health serves /health/live and /health/ready below the path, to anybody:
	// status 200 or 503, and nothing else. Default: neither is there.
	Health bool `json:"health,omitempty"`

	app     *App
	gateway *Gateway
	path    string
}

// CaddyModule returns the Caddy module information.
func (Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.polar",
		New: func() caddy.Module { return new(Handler) },
	}
}

// Provision finds the gateway.
func (h *Handler) Provision(ctx caddy.Context) error {
	app, err := loadApp(ctx)
	if err != nil {
		return err
	}
	if err := checkPath(h.Path); err != nil {
		return err
	}
	h.app, h.path = app, orDefault(h.Path, defaultPath)
	if h.gateway, err = app.gateway(h.Gateway); err != nil {
		return err
	}
	h.gateway.sites.routes = append(h.gateway.sites.routes, h.path+"/webhook")
	return nil
}

func checkPath(path string) error {
	if path == "" || strings.HasPrefix(path, "/") && len(path) > 1 && !strings.HasSuffix(path, "/") &&
		!strings.ContainsAny(path, "*{}?#%;\\") && !strings.Contains(path, "//") {
		return nil
	}
	return fmt.Errorf("path: %q must start with /, not end with it, and be plain", path)
}

// ServeHTTP implements caddyhttp.MiddlewareHandler. What comes before the next handler
// is done by functions that have returned by then: each stack that gets deeper than
// 8 kB has to be grown again after every garbage collection.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if answered, err := h.serve(w, r); answered {
		return err
	}
	return next.ServeHTTP(w, r)
}

// serve answers the gateway's routes. Of any other request it tells the upstream who
// asks.
func (h *Handler) serve(w http.ResponseWriter, r *http.Request) (answered bool, err error) {
	s := stateOf(r)
	v := s.visitOf(h.gateway, r)
	if v.handler == nil {
		v.handler = h
	}
	if s.site == nil {
		s.site = v
	}
	if s.site != v && s.site.routes() == h.path {
		return true, caddyhttp.Error(http.StatusInternalServerError,
			fmt.Errorf("polar: the gateways %s and %s are both served at %s: give one another path",
				s.site.gateway.name, h.gateway.name, h.path))
	}
	if isTunnel(r) {
		return true, v.refuseTunnel(w, r)
	}
	if route, ok := strings.CutPrefix(r.URL.Path, h.path); ok && (route == "" || route[0] == '/') {
		if h.Health && (route == routeLive || route == routeReady) {
			h.serveHealth(w, r, route)
			return true, nil
		}
		return true, h.gateway.serveRoute(w, r, v, route)
	}
	if h.app.matched {
		caddyhttp.SetVar(r.Context(), answerVar, answerHeader(w.Header()))
	}
	v.introduce(r)
	return false, nil
}

// introduce tells the upstream who asks, where anybody may pass.
func (v *visit) introduce(r *http.Request) {
	if v.notice(r) == nil {
		v.decide(entitlement.Requirement{})
		v.expose(r, false)
	}
}

// What a gate does with CORS preflights.
const (
	preflightPass   = "pass"
	preflightRefuse = "refuse"
)

// Gate is `polar_require`: it lets a request through only if its user has one
// of some plans now.
type Gate struct {
	// Gateway is the gateway's name. Default: that of the site's polar
	// handler, else "default".
	Gateway string `json:"gateway,omitempty"`

	// Plans of which one is required. None, or "any": any plan.
	Plans []string `json:"plans,omitempty"`

	// Paths that the gate stands before: /pro/* covers /pro and everything
	// below, /pro just itself. They are tested on every reading of the path
	// that some upstream might apply. None: every path.
	Paths []string `json:"paths,omitempty"`

	// Public paths are exempt, if every reading of the path is inside.
	Public []string `json:"public,omitempty"`

	// Refuse is "auto" (default: a page for browsers, or the gateway's login_url and
	// upgrade_url; else JSON), "json" or "page" for everybody, "error" (a Caddy error
	// for handle_errors) or "redirect".
	Refuse string `json:"refuse,omitempty"`

	// RefuseURL is where "redirect" sends browsers. {return_to} in it becomes
	// the escaped address that was asked for, {reason} the code of the refusal.
	RefuseURL string `json:"refuse_url,omitempty"`

	// OnUnavailable is "refuse" or "allow". Default: the gateway's.
	OnUnavailable string `json:"on_unavailable,omitempty"`

	// DryRun decides, logs, counts and sets headers, and lets everything
	// through: to see what a gate would do before it does it.
	DryRun bool `json:"dry_run,omitempty"`

	// Preflight is "pass" (default) or "refuse": CORS preflights carry no
	// credentials.
	Preflight string `json:"preflight,omitempty"`

	// Recheck is how soon an answer that goes on, like server-sent events, a
	// WebSocket or a long download, ends after the access. Default: 30s, at
	// least 1s.
	Recheck caddy.Duration `json:"recheck,omitempty"`

	recheck       time.Duration
	life          context.Context // of the configuration
	ending        <-chan struct{} // closed when the server begins to shut down; nil: unknown
	rule          string          // as it is told in the log and counted
	paths, public gateway.PathRules
	byGateway     map[*Gateway]demand
	fallback      *Gateway // nil: only the site's polar can tell
}

// demand is the requirement in terms of one gateway.
type demand struct {
	requirement entitlement.Requirement
	plans       []string
}

// CaddyModule returns the Caddy module information.
func (Gate) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.polar_require",
		New: func() caddy.Module { return new(Gate) },
	}
}

// Provision finds the gateway and compiles the rules.
func (g *Gate) Provision(ctx caddy.Context) error {
	app, err := loadApp(ctx)
	if err != nil {
		return err
	}
	g.rule = strings.Join(append(slices.Clone(g.Paths), g.Plans...), " ")
	if err := g.compilePaths(); err != nil {
		return err
	}
	if err := g.checkWords(); err != nil {
		return err
	}
	g.life, g.recheck = ctx, cmp.Or(time.Duration(g.Recheck), defaultRecheck)
	g.watchServer(ctx)
	if g.Gateway != "" || app.Gateways[defaultGateway] != nil {
		if g.fallback, err = app.gateway(g.Gateway); err != nil {
			return err
		}
	}
	if err := g.compilePlans(app); err != nil {
		return err
	}
	if g.fallback != nil {
		g.fallback.sites.gate(g)
	}
	return nil
}

func (g *Gate) compilePaths() (err error) {
	if g.paths, err = gateway.ParsePathRules(g.Paths); err != nil {
		return err
	}
	if g.public, err = gateway.ParsePathRules(g.Public); err != nil {
		return fmt.Errorf("public: %w", err)
	}
	return nil
}

func (g *Gate) checkWords() error {
	switch g.Refuse {
	case "", refuseAuto, refuseJSON, refusePage, refuseError:
	case refuseRedirect:
		if err := checkAway("refuse redirect", g.RefuseURL); err != nil {
			return err
		}
	default:
		return fmt.Errorf("refuse: %q is none of auto, json, page, error, redirect", g.Refuse)
	}
	switch g.Preflight {
	case "", preflightPass, preflightRefuse:
	default:
		return fmt.Errorf("preflight: %q is neither pass nor refuse", g.Preflight)
	}
	if err := checkRecheck(g.Recheck); err != nil {
		return err
	}
	return checkPolicy("on_unavailable", g.OnUnavailable)
}

// compilePlans makes the requirement for each gateway that the gate can belong
// to. Which one it is can depend on the site that the gate stands in.
func (g *Gate) compilePlans(app *App) error {
	g.byGateway = make(map[*Gateway]demand)
	var last error
	for name, gw := range app.Gateways {
		if g.Gateway != "" && g.Gateway != name {
			continue
		}
		rules := gw.core.Rules()
		q, err := rules.Require(g.Plans...)
		if err != nil {
			last = fmt.Errorf("gateway %s: %w", name, err)
			continue
		}
		g.byGateway[gw] = demand{q, rules.Names(q)}
	}
	if len(g.byGateway) == 0 {
		return fmt.Errorf("polar_require: no gateway can tell what it demands: %w", last)
	}
	return nil
}

// errNoGateway closes a gate of which nobody can tell what it demands here.
var errNoGateway = caddyhttp.Error(http.StatusInternalServerError,
	errors.New("polar_require: the site's gateway has no such plan: name the gateway in the block"))

// ServeHTTP implements caddyhttp.MiddlewareHandler. It is short for the same reason as
// Handler's.
func (g *Gate) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	open, gated, err := g.judge(w, r)
	switch {
	case !open:
		return err
	case gated == nil:
		return next.ServeHTTP(w, r)
	}
	return g.finish(gated, r, gated.serve(r, next))
}

// judge opens the gate for a request, or answers it. If its answer may go on only as
// long as the access does, it is to be written by gated.
func (g *Gate) judge(w http.ResponseWriter, r *http.Request) (open bool, gated *gatedWriter, err error) {
	s := stateOf(r)
	gw, v, err := g.visit(s, r)
	if err != nil {
		return false, nil, err
	}
	if isTunnel(r) {
		return false, nil, v.refuseTunnel(w, r)
	}
	covered, err := g.covers(s, r)
	if err != nil {
		return g.turnAway(w, r, v, newProblem(http.StatusBadRequest, codeBadPath))
	}
	if !covered || g.Preflight != preflightRefuse && isPreflight(r) {
		if s.site == nil && v.there != ours {
			v.introduce(r)
		}
		return true, nil, nil
	}
	d, ok := g.byGateway[gw]
	if !ok {
		return false, nil, errNoGateway
	}
	if err := v.identify(r); err != nil {
		return g.turnAway(w, r, v, g.refuseStranger(r, v, d, err))
	}
	decision := v.decide(d.requirement)
	if !decision.Allowed || decision.Reason == entitlement.ReasonBenefit {
		decision = v.confirm(r, d.requirement)
	}
	if !decision.Allowed && !g.allowsUnavailable(v) {
		return g.turnAway(w, r, v, g.refuseUser(r, v, d))
	}
	return true, g.pass(w, r, v), nil
}

// visit goes to the gateway whose plans are meant here.
func (g *Gate) visit(s *requestState, r *http.Request) (*Gateway, *visit, error) {
	gw := g.fallback
	if g.Gateway == "" && s.site != nil {
		gw = s.site.gateway
	}
	if gw == nil {
		return nil, nil, errNoGateway
	}
	return gw, s.visitOf(gw, r), nil
}

// covers says whether the gate stands before this request.
func (g *Gate) covers(s *requestState, r *http.Request) (bool, error) {
	if g.paths.Empty() && g.public.Empty() {
		return true, nil
	}
	paths := append(make([]string, 0, 4), r.URL.EscapedPath())
	opaque := r.URL.Opaque != ""
	if original, ok := r.Context().Value(caddyhttp.OriginalRequestCtxKey).(http.Request); ok && original.URL != nil {
		opaque = opaque || original.URL.Opaque != ""
		if p := original.URL.EscapedPath(); p != paths[0] {
			paths = append(paths, p)
		}
	}
	if opaque {
		// Of a target like http:pro/x the parser sees no path, and the
		// upstream gets pro/x.
		return false, gateway.ErrBadPath
	}
	if s.overrides != nil {
		paths = append(paths, *s.overrides...)
	}
	readings, err := gateway.ReadPaths(paths...)
	if err != nil {
		return false, err
	}
	if !g.paths.Empty() && !g.paths.CoversAny(readings) {
		return false, nil
	}
	return !g.public.CoversAll(readings), nil
}

func isPreflight(r *http.Request) bool {
	return r.Method == http.MethodOptions && r.Header.Get("Origin") != "" &&
		r.Header.Get("Access-Control-Request-Method") != ""
}

// allowsUnavailable says whether a request whose state cannot be had is let
// through: for anybody with a valid token while the store cannot be read, else
// for users whom the store knows.
func (g *Gate) allowsUnavailable(v *visit) bool {
	if orDefault(g.OnUnavailable, v.gateway.OnUnavailable) != policyAllow {
		return false
	}
	switch v.decision.Reason {
	case entitlement.ReasonUnavailable, entitlement.ReasonUnknownStatus:
		if v.limits {
			return false
		}
		return v.unreadable || v.account.Known()
	}
	return false
}

// pass lets a request through, and its answer go on while the access lasts; in a dry
// run for as long as it likes.
func (g *Gate) pass(w http.ResponseWriter, r *http.Request, v *visit) *gatedWriter {
	if !g.DryRun {
		v.decided(true)
	}
	if v.gateway.debug {
		v.gateway.logger.Debug("allowed", zap.String("user", v.identity.User), zap.String("reason", string(v.decision.Reason)))
	}
	v.expose(r, true)
	if g.DryRun {
		return nil
	}
	return &gatedWriter{
		ResponseWriterWrapper: caddyhttp.ResponseWriterWrapper{ResponseWriter: w},
		stream:                gatedStream{Context: r.Context(), gate: g, visit: v, opened: v.decision, http1: r.ProtoMajor == 1},
	}
}

// finish comes after the handler, which returned err. If the access ended before the
// answer began, the request is refused after all.
func (g *Gate) finish(gated *gatedWriter, r *http.Request, err error) error {
	if ended := &gated.stream; ended.over.Load() {
		if v := ended.visit; !gated.done {
			v.take(ended.watch.account, v.gateway.core.Now())
			v.answer(*ended.watch.decision)
			return g.refuse(gated.ResponseWriter, r, v, g.refuseUser(r, v, g.byGateway[v.gateway]))
		}
		if gated.failed {
			panic(http.ErrAbortHandler) // what was sent must not look whole
		}
	}
	gated.protect() // an empty answer, or an error that others will answer
	return err
}

// turnAway refuses a request. In a dry run it says that it would, and lets the
// request through.
func (g *Gate) turnAway(w http.ResponseWriter, r *http.Request, v *visit, p *problem) (open bool, _ *gatedWriter, err error) {
	if !g.DryRun {
		return false, nil, g.refuse(w, r, v, p)
	}
	dryRunTotal.WithLabelValues(v.gateway.name, g.rule, p.Code).Inc()
	v.gateway.logger.Info("dry run: would be refused", zap.String("rule", g.rule), zap.String("code", p.Code))
	return true, nil, nil
}

func (g *Gate) refuseStranger(r *http.Request, v *visit, d demand, err error) *problem {
	p := loginRefusal(err)
	p.Plans = d.plans
	if g.DryRun {
		return p
	}
	v.gateway.core.Refused(gateway.Refusal{RequestID: requestID(r), Plans: d.plans, Code: p.Code, Status: p.Status})
	v.gateway.metrics.decided(false, entitlement.Reason(p.Code))
	if !errors.Is(err, identity.ErrMissing) {
		v.gateway.logger.Info("refused", zap.String("reason", p.Code), zap.NamedError("why", err))
	}
	return p
}

func (g *Gate) refuseUser(r *http.Request, v *visit, d demand) *problem {
	if !g.DryRun {
		v.decided(false)
		v.gateway.logger.Info("refused", append(v.hashes(), zap.String("reason", string(v.decision.Reason)))...)
	}
	v.expose(r, false)
	p := refusalOf(v.decision, d.plans)
	if v.refused = p; !g.DryRun {
		v.gateway.core.Refused(gateway.Refusal{
			RequestID: requestID(r), User: v.identity.User, Payer: v.identity.Customer, Plans: d.plans, Code: p.Code, Status: p.Status, Decision: *v.decision,
		})
	}
	v.guide(r, d.plans, p)
	return p
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
	_ caddyfile.Unmarshaler       = (*Handler)(nil)
	_ caddy.Provisioner           = (*Gate)(nil)
	_ caddyhttp.MiddlewareHandler = (*Gate)(nil)
	_ caddyfile.Unmarshaler       = (*Gate)(nil)
)

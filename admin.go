package caddypolar

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-polar/caddy-polar/cache"
	"github.com/caddy-polar/caddy-polar/entitlement"
	"github.com/caddy-polar/caddy-polar/gateway"
	"github.com/caddy-polar/caddy-polar/polar"
)

func init() {
	caddy.RegisterModule(Admin{})
}

const adminPath = "/polar/"

// Admin serves the gateways' part of Caddy's admin API, under /polar/. Caddy
// protects it as it does the rest.
type Admin struct {
	// app finds the running app. It is asked at each request, as the API
	// outlives configurations.
	app func() (*App, error)
}

// CaddyModule returns the Caddy module information.
func (Admin) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "admin.api.polar",
		New: func() caddy.Module { return &Admin{app: runningApp} },
	}
}

func runningApp() (*App, error) { return loadApp(caddy.ActiveContext()) }

// Routes implements caddy.AdminRouter.
func (a *Admin) Routes() []caddy.AdminRoute {
	return []caddy.AdminRoute{{Pattern: adminPath, Handler: caddy.AdminHandlerFunc(a.serve)}}
}

// adminCall is one request of an operator. args are the parts of the path that
// stand for something, decoded.
type adminCall struct {
	*http.Request
	app     func() (*App, error)
	module  *Gateway         // the one that is meant; nil for health, as below
	gateway *gateway.Gateway // the module's
	args    []string
	query   url.Values
}

// verb is one thing to do. A part of the path that is * stands for anything.
type verb struct {
	method, path string
	query        []string // the parameters it takes, besides gateway
	do           func(*adminCall) (any, error)
}

// ofGateway says that the verb is about one gateway.
func (v *verb) ofGateway() bool { return !strings.HasPrefix(v.path, "health/") }

var verbs = []verb{
	{http.MethodGet, "status", nil, adminStatus},
	{http.MethodGet, "users", []string{"plan", "status", "after", "limit"}, adminUsers},
	{http.MethodGet, "users/*", nil, adminShow},
	{http.MethodDelete, "users/*", nil, adminForget},
	{http.MethodGet, "explain", []string{"user", "plan", "at", "request"}, adminExplain},
	{http.MethodPost, "sync", []string{"user"}, adminSync},
	{http.MethodPost, "users/*/passes", nil, adminPass},
	{http.MethodDelete, "users/*/passes/*", nil, adminRevokePass},
	{http.MethodPut, "users/*/links/*", []string{"polar", "dry_run"}, adminLink},
	{http.MethodPost, "webhook/setup", nil, adminWebhookSetup},
	{http.MethodPost, "notify/resend", nil, adminResend},
	{http.MethodPost, "doctor", nil, adminDoctor},
	{http.MethodGet, "revenue", []string{"from", "to", "interval"}, adminRevenue},
	{http.MethodGet, "backup", nil, adminBackup},
	{http.MethodPost, "migrate", []string{"from"}, adminMigrate},
	{http.MethodGet, "export", []string{"after", "limit"}, adminExport},
	{http.MethodGet, "health/live", nil, adminLive},
	{http.MethodGet, "health/ready", nil, adminReady},
}

// adminAnswer is an answer that is not just JSON with status 200.
type adminAnswer interface {
	answer(http.ResponseWriter) error
}

// serve answers one request.
func (a *Admin) serve(w http.ResponseWriter, r *http.Request) error {
	w.Header().Set("Cache-Control", noStore)
	v, args, err := findVerb(w.Header(), r)
	if err != nil {
		return err
	}
	query, err := readQuery(r.URL.RawQuery, v.query)
	if err != nil {
		return err
	}
	c := &adminCall{Request: r, app: a.app, args: args, query: query}
	if v.ofGateway() {
		g, err := c.chosen()
		if err != nil {
			return err
		}
		c.module, c.gateway = g, g.core
	}
	answer, err := v.do(c)
	if err != nil {
		return adminFailure(w.Header(), err)
	}
	if own, ok := answer.(adminAnswer); ok {
		return own.answer(w)
	}
	return answerJSON(w, http.StatusOK, answer)
}

// chosen is the gateway that is meant.
func (c *adminCall) chosen() (*Gateway, error) {
	app, err := c.app()
	if err != nil {
		return nil, adminError(http.StatusConflict, err)
	}
	g, err := app.chosen(c.query.Get("gateway"))
	if err != nil {
		return nil, adminError(http.StatusNotFound, err)
	}
	return g, nil
}

func answerJSON(w http.ResponseWriter, status int, answer any) error {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	return json.NewEncoder(w).Encode(answer)
}

// chosen is the gateway of a name; without one the default one, or the only one.
func (a *App) chosen(name string) (*Gateway, error) {
	if name == "" && a.Gateways[defaultGateway] == nil && len(a.Gateways) == 1 {
		for _, g := range a.Gateways {
			return g, nil
		}
	}
	if g, ok := a.Gateways[orDefault(name, defaultGateway)]; ok {
		return g, nil
	}
	return nil, fmt.Errorf("there is no gateway %q: gateway is one of %s", orDefault(name, defaultGateway), strings.Join(sortedKeys(a.Gateways), ", "))
}

// findVerb reads the path as it was sent: a user's id can have slashes in it,
// which are percent-encoded.
func findVerb(h http.Header, r *http.Request) (*verb, []string, error) {
	parts := strings.Split(strings.TrimPrefix(r.URL.EscapedPath(), adminPath), "/")
	var allow []string
	for i := range verbs {
		args, ok := verbs[i].matches(parts)
		if !ok {
			continue
		}
		if r.Method == verbs[i].method {
			return &verbs[i], args, nil
		}
		allow = append(allow, verbs[i].method)
	}
	if len(allow) > 0 {
		h.Set("Allow", strings.Join(allow, ", "))
		return nil, nil, adminError(http.StatusMethodNotAllowed, fmt.Errorf("this takes %s", strings.Join(allow, " or ")))
	}
	return nil, nil, adminError(http.StatusNotFound, errors.New("there is nothing of this name: see docs/admin-openapi.yaml"))
}

func (v *verb) matches(parts []string) (args []string, ok bool) {
	path := strings.Split(v.path, "/")
	if len(path) != len(parts) {
		return nil, false
	}
	for i, part := range path {
		if part != "*" {
			if part != parts[i] {
				return nil, false
			}
			continue
		}
		arg, err := url.PathUnescape(parts[i])
		if err != nil || arg == "" {
			return nil, false
		}
		args = append(args, arg)
	}
	return args, true
}

// readQuery reads the parameters, and refuses those that nobody would heed.
func readQuery(raw string, known []string) (url.Values, error) {
	query, err := url.ParseQuery(raw)
	if err != nil {
		return nil, adminError(http.StatusBadRequest, errors.New("the query cannot be read"))
	}
	known = append([]string{"gateway"}, known...)
	for _, name := range sortedKeys(query) {
		switch {
		case !slices.Contains(known, name):
			return nil, badInput("there is no parameter %q: expected %s", name, strings.Join(known, ", "))
		case len(query[name]) > 1:
			return nil, badInput("%s is given twice", name)
		}
	}
	return query, nil
}

func adminError(status int, err error) error {
	return caddy.APIError{HTTPStatus: status, Err: err}
}

func badInput(format string, args ...any) error {
	return adminError(http.StatusBadRequest, fmt.Errorf(format, args...))
}

// adminFailure is how what went wrong is told.
func adminFailure(h http.Header, err error) error {
	if told, ok := errors.AsType[caddy.APIError](err); ok {
		return told
	}
	_, input := errors.AsType[gateway.InputError](err)
	failure, asked := errors.AsType[*polar.APIError](err)
	status := http.StatusInternalServerError
	switch {
	case input, errors.Is(err, entitlement.ErrUnknownPlan):
		status = http.StatusBadRequest
	case errors.Is(err, gateway.ErrNoPass), errors.Is(err, gateway.ErrNoRefusal), errors.Is(err, gateway.ErrNotCustomer):
		status = http.StatusNotFound
	case errors.Is(err, gateway.ErrNotConfigured), errors.Is(err, cache.ErrCopying):
		status = http.StatusConflict
	case errors.Is(err, polar.ErrTimeout):
		status = http.StatusGatewayTimeout
	case errors.Is(err, polar.ErrUnavailable), errors.Is(err, polar.ErrRateLimited):
		status = http.StatusServiceUnavailable
		if asked && failure.RetryAfter > 0 {
			h.Set("Retry-After", strconv.Itoa(int(failure.RetryAfter.Seconds())+1))
		}
	case asked:
		status = http.StatusBadGateway
	}
	return adminError(status, err)
}

func adminStatus(c *adminCall) (any, error) {
	return viewStatus(c.gateway.Status(), c.gateway.Now()), nil
}

const (
	usersByDefault = 100
	usersAtMost    = 1000
)

func adminUsers(c *adminCall) (any, error) {
	f := gateway.UserFilter{
		Plan: c.query.Get("plan"), Status: c.query.Get("status"), After: c.query.Get("after"),
	}
	limit, err := c.limit(usersByDefault, usersAtMost)
	if err != nil {
		return nil, err
	}
	f.Limit = limit
	list, more, err := c.gateway.Users(c.Context(), f)
	if err != nil {
		return nil, err
	}
	return viewUsers(list, more), nil
}

// limit reads how many are asked for.
func (c *adminCall) limit(byDefault, atMost int) (int, error) {
	text := c.query.Get("limit")
	if text == "" {
		return byDefault, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > atMost {
		return 0, badInput("limit: %q is not a number from 1 to %d", text, atMost)
	}
	return n, nil
}

func adminShow(c *adminCall) (any, error) {
	h, err := c.gateway.Show(c.args[0])
	if err != nil {
		return nil, err
	}
	return viewHolding(h), nil
}

func adminForget(c *adminCall) (any, error) {
	removed, err := c.gateway.Forget(c.Context(), c.args[0])
	if err != nil {
		return nil, err
	}
	return forgottenView{User: c.args[0], Removed: removed}, nil
}

func adminExplain(c *adminCall) (any, error) {
	if request := c.query.Get("request"); request != "" {
		if c.query.Has("user") || c.query.Has("plan") || c.query.Has("at") {
			return nil, badInput("request stands alone: it knows its user and plan")
		}
		refusal, e, err := c.gateway.ExplainRequest(request)
		if err != nil {
			return nil, err
		}
		v := viewExplanation(&e)
		v.Refusal = viewRefusal(&refusal)
		return v, nil
	}
	var at time.Time
	if text := c.query.Get("at"); text != "" {
		var err error
		if at, err = time.Parse(time.RFC3339, text); err != nil || at.Year() < 2000 || at.Year() > 9000 {
			return nil, badInput("at: %q is not a time like 2027-01-31T00:00:00Z", text)
		}
	}
	if c.query.Get("user") == "" {
		return nil, badInput("user is missing: whose decision?")
	}
	var plans []string
	if plan := c.query.Get("plan"); plan != "" {
		plans = append(plans, plan)
	}
	e, err := c.gateway.Explain(c.query.Get("user"), at, plans...)
	if err != nil {
		return nil, err
	}
	return viewExplanation(&e), nil
}

// adminSyncTime bounds a look-up of one user. A whole sync takes its time.
const adminSyncTime = 30 * time.Second

func adminSync(c *adminCall) (any, error) {
	if user, ok := c.query["user"]; ok {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(c.Context()), adminSyncTime)
		defer cancel()
		if err := c.gateway.AskAbout(ctx, user[0]); err != nil {
			return nil, err
		}
		h, err := c.gateway.Show(user[0])
		if err != nil {
			return nil, err
		}
		return viewHolding(h), nil
	}
	report, err := c.gateway.SyncNow(c.Context())
	if err != nil {
		return nil, err
	}
	return viewReport(&report), nil
}

func adminPass(c *adminCall) (any, error) {
	var body struct {
		Plan   string `json:"plan"`
		Until  string `json:"until"`
		Reason string `json:"reason"`
	}
	if !c.read(&body) {
		return nil, badInput(`the body must be {"plan": …, "until": …, "reason": …}, of which the last two can be left out`)
	}
	var until time.Time
	if body.Until != "" {
		var err error
		if until, err = time.Parse(time.RFC3339, body.Until); err != nil {
			return nil, badInput("until: %q is not a time like 2027-01-31T00:00:00Z", body.Until)
		}
	}
	p, err := c.gateway.GivePass(c.Context(), c.args[0], body.Plan, until, body.Reason)
	if err != nil {
		return nil, err
	}
	return viewPass(&p), nil
}

// read reads the JSON of a body, and nothing else than what is expected.
func (c *adminCall) read(into any) bool {
	d := json.NewDecoder(io.LimitReader(c.Body, maxBody))
	d.DisallowUnknownFields()
	return d.Decode(into) == nil && !d.More()
}

func adminRevokePass(c *adminCall) (any, error) {
	if err := c.gateway.RevokePass(c.Context(), c.args[0], c.args[1]); err != nil {
		return nil, err
	}
	return revokedView{User: c.args[0], ID: c.args[1], Revoked: true}, nil
}

func adminLink(c *adminCall) (any, error) {
	var o gateway.LinkOptions
	for name, set := range map[string]func(bool){
		"polar":   func(v bool) { o.NoPolar = !v },
		"dry_run": func(v bool) { o.DryRun = v },
	} {
		switch text := c.query.Get(name); text {
		case "true", "false":
			set(text == "true")
		case "":
		default:
			return nil, badInput("%s: %q is neither true nor false", name, text)
		}
	}
	became, err := c.gateway.Link(c.Context(), c.args[0], c.args[1], o)
	switch {
	case err != nil && became != "":
		return nil, fmt.Errorf("the customer is linked, but what they have bought could not be read: the next sync will: %w", err)
	case err != nil:
		return nil, err
	}
	return linkView{User: c.args[0], Customer: c.args[1], ExternalID: string(became), DryRun: o.DryRun}, nil
}

// adminSetupTime bounds setting up: a few calls of Polar's API, and a webhook.
const adminSetupTime = time.Minute

func adminWebhookSetup(c *adminCall) (any, error) {
	var body struct {
		URL string `json:"url"`
	}
	if !c.read(&body) {
		return nil, badInput(`the body must be {"url": …}`)
	}
	ctx, cancel := context.WithTimeout(c.Context(), adminSetupTime)
	defer cancel()
	s, err := c.gateway.SetUpEndpoint(ctx, body.URL)
	if err != nil {
		return nil, err
	}
	return viewSetup(&s), nil
}

func adminResend(c *adminCall) (any, error) {
	n, err := c.gateway.Resend(c.Context())
	return resentView{n}, err
}

// adminDoctor takes less than a minute: the gateway sees to that.
func adminDoctor(c *adminCall) (any, error) {
	d := c.gateway.Doctor(c.Context(), c.module.surroundings, c.module.sites.routes...)
	return viewDiagnosis(c.gateway.Name(), &d), nil
}

// Interface guards
var (
	_ caddy.Module      = (*Admin)(nil)
	_ caddy.AdminRouter = (*Admin)(nil)
)

package caddypolar

import (
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types/ref"
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-polar/caddy-polar/entitlement"
	"github.com/caddy-polar/caddy-polar/identity"
)

func init() {
	caddy.RegisterModule(MatchPolar{})
}

// MatchPolar matches the requests of users who have one of some plans now. It
// lets nobody in or out by itself. A state that cannot be had is an error, and
// not a mismatch.
type MatchPolar struct {
	// Plans of which the user has one, each with its gateway before it if that
	// is not the site's: pro, sandbox:pro. "any" is any plan.
	Plans []string `json:"plans,omitempty"`

	asked []*Gate // one for each gateway
}

// CaddyModule returns the Caddy module information.
func (MatchPolar) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.matchers.polar",
		New: func() caddy.Module { return new(MatchPolar) },
	}
}

// UnmarshalCaddyfile reads
//
//	polar [<gateway>:]<plan>...
func (m *MatchPolar) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	for d.Next() {
		plans := d.RemainingArgs()
		if len(plans) == 0 || slices.Contains(plans, "") {
			return d.Err("polar takes one or more plans, or any")
		}
		m.Plans = append(m.Plans, plans...)
		if err := noBlock(d, "polar"); err != nil {
			return err
		}
	}
	return nil
}

// Provision finds the gateways and their plans.
func (m *MatchPolar) Provision(ctx caddy.Context) error {
	if len(m.Plans) == 0 {
		return errors.New("polar: a matcher takes one or more plans, or any")
	}
	app, err := loadApp(ctx)
	if err != nil {
		return fmt.Errorf("matcher: %w", err)
	}
	app.matched = true
	for _, word := range m.Plans {
		name, plan, named := strings.Cut(word, ":")
		if !named {
			name, plan = "", word
		}
		i := slices.IndexFunc(m.asked, func(g *Gate) bool { return g.Gateway == name })
		if i < 0 {
			i = len(m.asked)
			m.asked = append(m.asked, &Gate{Gateway: name})
		}
		m.asked[i].Plans = append(m.asked[i].Plans, plan)
	}
	for _, g := range m.asked {
		if err := g.Provision(ctx); err != nil {
			return fmt.Errorf("matcher: %w", err)
		}
	}
	return nil
}

// MatchWithError implements caddyhttp.RequestMatcherWithError.
func (m *MatchPolar) MatchWithError(r *http.Request) (bool, error) {
	for _, g := range m.asked {
		if has, err := g.matches(r); has || err != nil {
			return has, err
		}
	}
	return false, nil
}

// answerVar is the request variable under which `polar` keeps the answer's header for
// matchers, which do not see the answer.
const answerVar = "polar_answer"

type answerHeader http.Header

// String keeps the header out of {http.vars.polar_answer}.
func (answerHeader) String() string { return "" }

// tellCaches says that the answer depends on who asks, and is theirs alone if they have
// what the matcher asks for.
func tellCaches(r *http.Request, gw *Gateway, has bool) {
	h, ok := caddyhttp.GetVar(r.Context(), answerVar).(answerHeader)
	if !ok {
		return
	}
	addVary(http.Header(h), gw.vary)
	if has {
		h["Cache-Control"] = []string{private(h["Cache-Control"])}
	}
}

// matches says whether the user has what the gate requires, without telling
// the upstream of it.
func (g *Gate) matches(r *http.Request) (has bool, err error) {
	s := stateOf(r)
	before := s.last
	gw, v, err := g.visit(s, r)
	if before != nil {
		s.last = before // placeholders go on to tell of the last handler
	}
	if err != nil {
		return false, err
	}
	d, ok := g.byGateway[gw]
	if !ok {
		return false, errNoGateway
	}
	defer func() { tellCaches(r, gw, has) }()
	switch err := v.identify(r); {
	case errors.Is(err, identity.ErrUnavailable):
		return false, caddyhttp.Error(http.StatusServiceUnavailable, fmt.Errorf("matcher polar: %w", err))
	case err != nil:
		return false, nil // nobody has nothing
	}
	told, until, limits := v.decision, v.until, v.limits
	decision := v.decide(d.requirement)
	if !decision.Allowed {
		decision = v.confirm(r, d.requirement)
	}
	v.decision, v.until, v.limits = told, until, limits
	if decision.HTTPStatus == http.StatusServiceUnavailable {
		return false, caddyhttp.Error(http.StatusServiceUnavailable,
			fmt.Errorf("matcher polar: %s: what the user has cannot be told now", entitlement.ReasonUnavailable))
	}
	return decision.Allowed, nil
}

// CELLibrary makes polar('pro') an expression.
func (MatchPolar) CELLibrary(ctx caddy.Context) (cel.Library, error) {
	return caddyhttp.CELMatcherImpl(
		"polar", "polar_match_request_list", []*cel.Type{cel.ListType(cel.StringType)},
		func(plans ref.Val) (caddyhttp.RequestMatcherWithError, error) {
			list, err := plans.ConvertToNative(reflect.TypeFor[[]string]())
			if err != nil {
				return nil, err
			}
			m := &MatchPolar{Plans: list.([]string)}
			return m, m.Provision(ctx)
		},
	)
}

// Interface guards
var (
	_ caddy.Provisioner                 = (*MatchPolar)(nil)
	_ caddyfile.Unmarshaler             = (*MatchPolar)(nil)
	_ caddyhttp.RequestMatcherWithError = (*MatchPolar)(nil)
	_ caddyhttp.CELLibraryProducer      = (*MatchPolar)(nil)
)

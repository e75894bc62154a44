package caddypolar

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
)

func init() {
	// Nothing of the site, be it a rewrite, a redirect or a login, may stand
	// between Polar and the webhook.
	httpcaddyfile.RegisterDirective("polar", parsePolar)
	httpcaddyfile.RegisterDirectiveOrder("polar", httpcaddyfile.Before, "redir")

	// The gate comes behind authentication. It is no handler directive: a
	// first argument that starts with / would become a matcher of Caddy's,
	// which knows one reading of a path only.
	httpcaddyfile.RegisterDirective("polar_require", parseRequire)
	httpcaddyfile.RegisterDirectiveOrder("polar_require", httpcaddyfile.After, "forward_auth")
}

// parsePolar reads the site directive:
//
//	polar [<gateway>] {
//		path <prefix>
//		health
//	}
func parsePolar(h httpcaddyfile.Helper) ([]httpcaddyfile.ConfigValue, error) {
	handler := new(Handler)
	if err := handler.UnmarshalCaddyfile(h.Dispenser); err != nil {
		return nil, err
	}
	if _, err := configured(h, orDefault(handler.Gateway, defaultGateway)); err != nil {
		return nil, err
	}
	return h.NewRoute(nil, handler), nil
}

// UnmarshalCaddyfile reads the directive without Caddy's helper.
func (h *Handler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the directive's name
	if d.NextArg() {
		h.Gateway = d.Val()
		if strings.ContainsAny(h.Gateway[:min(1, len(h.Gateway))], "/@*") {
			return d.Errf("unexpected %q: polar takes no matcher; it must see every request of the site", h.Gateway)
		}
	}
	if d.NextArg() {
		return d.Errf("unexpected %q: polar takes one argument, the gateway's name", d.Val())
	}
	err := subdirectives(d, map[string]func(*caddyfile.Dispenser) error{"path": one(&h.Path), "health": flag(&h.Health)})
	if err == nil {
		if err = checkPath(h.Path); err != nil {
			err = d.WrapErr(err)
		}
	}
	return err
}

// parseRequire reads the gate:
//
//	polar_require [@matcher] [<path>...] [<plan>...] {
//		gateway        <name>
//		public         <path>...
//		refuse         auto|json|page|error|redirect <url>
//		on_unavailable refuse|allow
//		dry_run
//		preflight      pass|refuse
//		recheck        <duration>
//	}
func parseRequire(h httpcaddyfile.Helper) ([]httpcaddyfile.ConfigValue, error) {
	matchers, err := namedMatcher(h)
	if err != nil {
		return nil, err
	}
	gate := new(Gate)
	if err := gate.UnmarshalCaddyfile(h.Dispenser); err != nil {
		return nil, err
	}
	app, err := configured(h, gate.Gateway)
	if err != nil {
		return nil, err
	}
	for _, plan := range gate.Plans {
		if plan != "any" && !app.hasPlan(gate.Gateway, plan) {
			return nil, h.Errf("polar_require: no gateway has a plan %q: add `plan %s <product id>` to the polar block, or mend the name", plan, plan)
		}
	}
	return h.NewRoute(matchers, gate), nil
}

// namedMatcher takes a first argument that names a matcher, and leaves every
// other one alone.
func namedMatcher(h httpcaddyfile.Helper) (caddy.ModuleMap, error) {
	d := h.Dispenser
	d.Next() // the directive's name
	named := d.NextArg() && strings.HasPrefix(d.Val(), "@")
	d.Reset()
	if !named {
		return nil, nil
	}
	d.Next()
	matchers, err := h.ExtractMatcherSet()
	if err != nil {
		return nil, h.WrapErr(err)
	}
	return matchers, nil
}

// UnmarshalCaddyfile reads the directive without Caddy's helper.
func (g *Gate) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the directive's name
	for d.NextArg() {
		switch word := d.Val(); {
		case strings.HasPrefix(word, "@"):
			return d.Errf("unexpected %q: a matcher comes first, and only one", word)
		case strings.HasPrefix(word, "/"):
			g.Paths = append(g.Paths, word)
		case word == "*":
			return d.Err(`unexpected "*": leave it out, polar_require stands before every request of the site`)
		case nameRE.MatchString(word):
			g.Plans = append(g.Plans, word)
		default:
			return d.Errf("unexpected %q: polar_require takes @matcher, paths that start with /, and plans (a-z, 0-9, _ and -)", word)
		}
	}
	err := subdirectives(d, map[string]func(*caddyfile.Dispenser) error{
		"gateway":        one(&g.Gateway),
		"public":         some(&g.Public),
		"refuse":         g.parseRefuse,
		"on_unavailable": oneOf(&g.OnUnavailable, policyRefuse, policyAllow),
		"dry_run":        flag(&g.DryRun),
		"preflight":      oneOf(&g.Preflight, preflightPass, preflightRefuse),
		"recheck":        g.parseRecheck,
	}, "public")
	if err != nil {
		return err
	}
	if err := g.compilePaths(); err != nil {
		return d.WrapErr(err)
	}
	if err := g.checkWords(); err != nil {
		return d.WrapErr(err)
	}
	return nil
}

func (g *Gate) parseRefuse(d *caddyfile.Dispenser) error {
	args := d.RemainingArgs()
	switch {
	case len(args) == 1 && slices.Contains([]string{refuseAuto, refuseJSON, refusePage, refuseError}, args[0]):
		g.Refuse = args[0]
	case len(args) == 2 && args[0] == refuseRedirect:
		g.Refuse, g.RefuseURL = args[0], args[1]
	default:
		return d.Err("refuse takes one of auto, json, page, error, or redirect <url>")
	}
	return noBlock(d, "refuse")
}

func (g *Gate) parseRecheck(d *caddyfile.Dispenser) error {
	var recheck *caddy.Duration
	if err := duration(&recheck)(d); err != nil {
		return err
	}
	if g.Recheck = *recheck; g.Recheck == 0 {
		return d.Errf("recheck: it must be at least %v", minRecheck)
	}
	if err := checkRecheck(g.Recheck); err != nil {
		return d.WrapErr(err)
	}
	return nil
}

// configured is the app as the global options describe it.
func configured(h httpcaddyfile.Helper, gateway string) (*App, error) {
	option, ok := h.Option(appName).(httpcaddyfile.App)
	if !ok {
		return nil, h.Errf("polar is not configured: add a `polar { … }` block to the global options")
	}
	app := new(App)
	if err := json.Unmarshal(option.Value, app); err != nil {
		return nil, h.WrapErr(err)
	}
	if gateway != "" {
		if _, err := app.gateway(gateway); err != nil {
			return nil, h.WrapErr(err)
		}
	}
	return app, nil
}

// hasPlan says whether the gateway has the plan, or any gateway if none is
// named: which one a gate belongs to is then the site's choice.
func (a *App) hasPlan(gateway, plan string) bool {
	for name, g := range a.Gateways {
		if (gateway == "" || gateway == name) &&
			slices.ContainsFunc(g.Plans, func(p Plan) bool { return p.Name == plan }) {
			return true
		}
	}
	return false
}

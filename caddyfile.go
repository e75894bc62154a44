package caddypolar

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"

	"github.com/caddy-polar/caddy-polar/pages"
)

func init() {
	httpcaddyfile.RegisterGlobalOption(appName, parseGlobal)
}

// parseGlobal reads one gateway and adds it to those of earlier blocks:
//
//	polar [<name>] {
//		access_token    <token>
//		webhook_secret  <secret>...
//		server          production|sandbox|<base url>
//		api_version     <YYYY-MM>
//		organization_id <id>
//		store           <module> { ... }
//		jwt             secret|public_key|jwks <value>
//		jwt             { ... }
//		session         <url> { ... }
//		user            <placeholder>
//		link            email
//		plan            <name> <product id>...
//		plan            <name> { ... }
//		grace           { ... }
//		checkout        { ... }
//		sync            off
//		sync            { ... }
//		on_unavailable  refuse|allow
//		login_url       <url>
//		upgrade_url     <url>
//		page            { ... }
//		return_to       <host>...
//		headers         <prefix> [<name>...]
//		assertion       { ... }
//		notify          <url> <secret> [<secret>]
//		memory          <n>
//		audit           <duration>|off
//	}
func parseGlobal(d *caddyfile.Dispenser, existing any) (any, error) {
	app := &App{Gateways: make(map[string]*Gateway)}
	if earlier, ok := existing.(httpcaddyfile.App); ok {
		if err := json.Unmarshal(earlier.Value, app); err != nil {
			return nil, d.WrapErr(err)
		}
	}
	d.Next() // the option's name
	name := defaultGateway
	if d.NextArg() {
		name = d.Val()
	}
	if d.NextArg() {
		return nil, d.Errf("unexpected %q: polar takes one name, of the gateway", d.Val())
	}
	if !nameRE.MatchString(name) {
		return nil, d.Errf("the gateway's name %q must be made of a-z, 0-9, _ and -", name)
	}
	if app.Gateways[name] != nil {
		return nil, d.Errf("there are two polar blocks for the gateway %q: merge them or name one", name)
	}
	g := new(Gateway)
	if err := g.UnmarshalCaddyfile(d); err != nil {
		return nil, err
	}
	app.Gateways[name] = g
	return httpcaddyfile.App{Name: appName, Value: caddyconfig.JSON(app, nil)}, nil
}

// subdirectives runs the parser of each word in a block, and refuses unknown
// words and what is given twice. Words in several may come again.
func subdirectives(d *caddyfile.Dispenser, parsers map[string]func(*caddyfile.Dispenser) error, several ...string) error {
	seen := make(map[string]bool)
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		word := d.Val()
		parse, ok := parsers[word]
		if !ok {
			return d.Errf("unknown subdirective %q: expected one of %s", word, strings.Join(sortedKeys(parsers), ", "))
		}
		if seen[word] && !slices.Contains(several, word) {
			return d.Errf("%s is given twice", word)
		}
		seen[word] = true
		if err := parse(d); err != nil {
			return err
		}
	}
	return nil
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// UnmarshalCaddyfile reads the inside of a polar block.
func (g *Gateway) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	return subdirectives(d, map[string]func(*caddyfile.Dispenser) error{
		"access_token":   one(&g.AccessToken),
		"webhook_secret": some(&g.WebhookSecret),
		"server": checked(&g.Server, func(v string) error {
			_, err := parseServer(v)
			return err
		}),
		"api_version":     checked(&g.APIVersion, checkAPIVersion),
		"organization_id": one(&g.OrganizationID),
		"store":           g.parseStore,
		"jwt":             g.parseWay(g.parseJWT),
		"session":         g.parseWay(g.parseSession),
		"user":            g.parseWay(g.parseUser),
		"link":            oneOf(&g.Link, linkEmail),
		"plan":            g.parsePlan,
		"grace": func(d *caddyfile.Dispenser) (err error) {
			g.Grace, err = parseGrace(d)
			return err
		},
		"checkout":       g.parseCheckout,
		"sync":           g.parseSync,
		"on_unavailable": oneOf(&g.OnUnavailable, policyRefuse, policyAllow),
		"login_url":      parseAway(&g.LoginURL),
		"upgrade_url":    parseAway(&g.UpgradeURL),
		"page":           g.parsePage,
		"return_to":      g.parseReturnTo,
		"headers":        g.parseHeaders,
		"assertion":      g.parseAssertion,
		"notify":         g.parseNotify,
		"memory":         g.parseMemory,
		"audit":          g.parseAudit,
	}, "jwt", "plan", "webhook_secret", "return_to")
}

// parseWay parses one of the ways to find out who asks.
func (g *Gateway) parseWay(parse func(*caddyfile.Dispenser) error) func(*caddyfile.Dispenser) error {
	return func(d *caddyfile.Dispenser) error {
		if err := parse(d); err != nil {
			return err
		}
		if g.User != "" && (len(g.JWT) > 0 || g.Session != nil) {
			return d.WrapErr(errUserAlone)
		}
		return nil
	}
}

// one reads exactly one argument.
func one(to *string) func(*caddyfile.Dispenser) error {
	return func(d *caddyfile.Dispenser) error {
		word := d.Val()
		args := d.RemainingArgs()
		if len(args) != 1 || args[0] == "" {
			return d.Errf("%s takes exactly one argument, which is not empty", word)
		}
		*to = args[0]
		return noBlock(d, word)
	}
}

// checked reads exactly one argument, and checks it unless it is a placeholder.
func checked(to *string, check func(string) error) func(*caddyfile.Dispenser) error {
	return func(d *caddyfile.Dispenser) error {
		if err := one(to)(d); err != nil {
			return err
		}
		if strings.Contains(*to, "{") {
			return nil
		}
		if err := check(*to); err != nil {
			return d.WrapErr(err)
		}
		return nil
	}
}

// oneOf reads exactly one argument, out of a few.
func oneOf(to *string, allowed ...string) func(*caddyfile.Dispenser) error {
	return func(d *caddyfile.Dispenser) error {
		word := d.Val()
		args := d.RemainingArgs()
		if len(args) != 1 || !slices.Contains(allowed, args[0]) {
			return d.Errf("%s takes one of %s", word, strings.Join(allowed, ", "))
		}
		*to = args[0]
		return noBlock(d, word)
	}
}

// some reads one or more arguments, adding to those of earlier lines.
func some(to *[]string) func(*caddyfile.Dispenser) error {
	return func(d *caddyfile.Dispenser) error {
		word := d.Val()
		args := d.RemainingArgs()
		if len(args) == 0 || slices.Contains(args, "") {
			return d.Errf("%s takes one or more arguments, none of them empty", word)
		}
		*to = append(*to, args...)
		return noBlock(d, word)
	}
}

// flag reads a word that stands alone.
func flag(to *bool) func(*caddyfile.Dispenser) error {
	return func(d *caddyfile.Dispenser) error {
		word := d.Val()
		if d.NextArg() {
			return d.Errf("unexpected %q: %s takes no argument", d.Val(), word)
		}
		*to = true
		return noBlock(d, word)
	}
}

// noBlock refuses a block where none belongs.
func noBlock(d *caddyfile.Dispenser, word string) error {
	if d.NextBlock(d.Nesting()) {
		return d.Errf("%s takes no block", word)
	}
	return nil
}

func duration(to **caddy.Duration) func(*caddyfile.Dispenser) error {
	return func(d *caddyfile.Dispenser) error {
		var value string
		word := d.Val()
		if err := one(&value)(d); err != nil {
			return err
		}
		v, err := caddy.ParseDuration(value)
		if err != nil || v < 0 {
			return d.Errf("%s: %q is not a duration, like 30s or 7d", word, value)
		}
		*to = new(caddy.Duration(v))
		return nil
	}
}

func (g *Gateway) parseReturnTo(d *caddyfile.Dispenser) error {
	if err := some(&g.ReturnTo)(d); err != nil {
		return err
	}
	for _, host := range g.ReturnTo {
		if err := checkHost(host); err != nil {
			return d.WrapErr(err)
		}
	}
	return nil
}

// parsePage reads how our pages look:
//
//	page {
//		name  <name>
//		logo  <file>
//		color <rrggbb>
//		texts <file>
//	}
func (g *Gateway) parsePage(d *caddyfile.Dispenser) error {
	if d.NextArg() {
		return d.Errf("unexpected %q: page takes a block", d.Val())
	}
	g.Page = new(Page)
	return subdirectives(d, map[string]func(*caddyfile.Dispenser) error{
		"name":  one(&g.Page.Name),
		"logo":  one(&g.Page.Logo),
		"color": g.parseColor,
		"texts": one(&g.Page.Texts),
	})
}

// parseColor reads a colour. What begins with # is a comment in a Caddyfile.
func (g *Gateway) parseColor(d *caddyfile.Dispenser) error {
	if d.CountRemainingArgs() == 0 {
		return d.Err("color takes one argument, like 1f4fd8: without #, which begins a comment, or in quotes")
	}
	return checked(&g.Page.Color, pages.CheckColor)(d)
}

func (g *Gateway) parseStore(d *caddyfile.Dispenser) error {
	if !d.NextArg() {
		return d.Err("store takes a module, like bolt")
	}
	module := d.Val()
	unm, err := caddyfile.UnmarshalModule(d, "polar.stores."+module)
	if err != nil {
		return err
	}
	g.StoreRaw = caddyconfig.JSONModuleObject(unm, "module", module, nil)
	return nil
}

// parseCheckout reads what the checkout route allows.
func (g *Gateway) parseCheckout(d *caddyfile.Dispenser) error {
	if d.NextArg() {
		return d.Errf("unexpected %q: checkout takes a block", d.Val())
	}
	var several, email string
	err := subdirectives(d, map[string]func(*caddyfile.Dispenser) error{
		"multiple_subscriptions": oneOf(&several, "on", "off"),
		"email_from_body":        oneOf(&email, "on", "off"),
	})
	g.Checkout = &Checkout{MultipleSubscriptions: several == "on"}
	if email != "" {
		g.Checkout.EmailFromBody = new(email == "on")
	}
	return err
}

// parseHeaders reads how the headers to the app begin, and which are sent:
//
//	headers <prefix> [<name>...]
func (g *Gateway) parseHeaders(d *caddyfile.Dispenser) error {
	var words []string
	if err := some(&words)(d); err != nil {
		return err
	}
	if g.Headers = words[0]; !strings.Contains(g.Headers, "{") {
		if err := checkPrefix(g.Headers); err != nil {
			return d.WrapErr(err)
		}
	}
	if len(words) > 1 {
		g.HeaderNames = words[1:]
	}
	if err := checkHeaderNames(g.HeaderNames); err != nil {
		return d.WrapErr(err)
	}
	return nil
}

// parseMemory reads how many accounts are held in memory:
//
//	memory <n>
func (g *Gateway) parseMemory(d *caddyfile.Dispenser) error {
	var value string
	if err := one(&value)(d); err != nil {
		return err
	}
	n, err := strconv.Atoi(value)
	if err == nil {
		err = checkMemory(n)
	}
	if err != nil || n == 0 {
		return d.Errf("memory: %q: it is a number of accounts, from %d to %d", value, minMemory, maxMemory)
	}
	g.Memory = n
	return nil
}

// parseAudit reads how long changes are kept:
//
//	audit <duration>|off
func (g *Gateway) parseAudit(d *caddyfile.Dispenser) error {
	var value string
	if err := one(&value)(d); err != nil {
		return err
	}
	var kept time.Duration
	if value != "off" {
		var err error
		if kept, err = caddy.ParseDuration(value); err != nil || kept == 0 || checkAudit(kept) != nil {
			return d.Errf("audit: %q: it is off, or a duration like 30d, of an hour at least and 10 years at most", value)
		}
	}
	g.Audit = new(caddy.Duration(kept))
	return nil
}

// parseSync reads how everything is read from Polar.
func (g *Gateway) parseSync(d *caddyfile.Dispenser) error {
	g.Sync = new(Sync)
	if d.NextArg() {
		if d.Val() != "off" {
			return d.Errf("unexpected %q: sync takes off, or a block", d.Val())
		}
		g.Sync.Off = true
		if d.NextArg() {
			return d.ArgErr()
		}
		return noBlock(d, "sync off")
	}
	var every *caddy.Duration
	err := subdirectives(d, map[string]func(*caddyfile.Dispenser) error{
		"every":  duration(&every),
		"budget": g.Sync.parseBudget,
	})
	if err == nil && every != nil {
		g.Sync.Every = *every
	}
	if err == nil {
		if _, err = g.Sync.syncing(); err != nil {
			err = d.WrapErr(err)
		}
	}
	return err
}

func (s *Sync) parseBudget(d *caddyfile.Dispenser) error {
	var value string
	if err := one(&value)(d); err != nil {
		return err
	}
	number, ok := strings.CutSuffix(value, "/m")
	n, err := strconv.Atoi(number)
	if !ok || err != nil || n < 1 {
		return d.Errf("budget: %q is not a number of requests a minute, like 120/m", value)
	}
	s.Budget = n
	return nil
}

func (g *Gateway) parseJWT(d *caddyfile.Dispenser) error {
	var j JWT
	parsers := map[string]func(*caddyfile.Dispenser) error{
		"secret":         one(&j.Secret),
		"public_key":     one(&j.PublicKey),
		"jwks":           checked(&j.JWKS, checkJWKS),
		"max_stale":      j.parseMaxStale,
		"algorithms":     some(&j.Algorithms),
		"issuer":         some(&j.Issuer),
		"audience":       some(&j.Audience),
		"leeway":         duration(&j.Leeway),
		"from":           j.parseFrom,
		"user_claim":     one(&j.UserClaim),
		"user_prefix":    one(&j.UserPrefix),
		"customer_claim": some(&j.CustomerClaim),
		"manage_claim":   manage(&j.ManageClaim),
		"email_claim":    one(&j.EmailClaim),
		"strip_token":    flag(&j.StripToken),
	}
	if d.NextArg() { // in one line
		word := d.Val()
		if word != "secret" && word != "public_key" && word != "jwks" {
			return d.Errf("unexpected %q: jwt takes secret <value>, public_key <PEM or file>, jwks <url>, or a block", word)
		}
		if err := parsers[word](d); err != nil {
			return err
		}
	} else if err := subdirectives(d, parsers, "from"); err != nil {
		return err
	}
	keys := slices.DeleteFunc([]string{j.Secret, j.PublicKey, j.JWKS}, func(key string) bool { return key == "" })
	if len(keys) != 1 {
		return d.Err("jwt takes exactly one of secret, public_key and jwks; write a second jwt for a second key")
	}
	if j.MaxStale != nil && j.JWKS == "" {
		return d.Err("max_stale goes with jwks")
	}
	g.JWT = append(g.JWT, j)
	return nil
}

// manage reads who may act for the paying party: a path and the values that say so.
func manage(to **Manage) func(*caddyfile.Dispenser) error {
	return func(d *caddyfile.Dispenser) error {
		word := d.Val()
		args := d.RemainingArgs()
		if len(args) < 2 || slices.Contains(args, "") {
			return d.Errf("%s takes a path and one or more values, none of them empty", word)
		}
		*to = &Manage{Path: args[0], Values: args[1:]}
		return noBlock(d, word)
	}
}

func (j *JWT) parseMaxStale(d *caddyfile.Dispenser) error {
	if err := duration(&j.MaxStale)(d); err != nil {
		return err
	}
	if err := checkMaxStale(time.Duration(*j.MaxStale)); err != nil {
		return d.WrapErr(err)
	}
	return nil
}

func (j *JWT) parseFrom(d *caddyfile.Dispenser) error {
	args := d.RemainingArgs()
	if len(args) != 2 || args[1] == "" {
		return d.Err("from takes header <name> or cookie <name>")
	}
	switch args[0] {
	case "header":
		j.From = append(j.From, TokenSource{Header: args[1]})
	case "cookie":
		j.From = append(j.From, TokenSource{Cookie: args[1]})
	default:
		return d.Errf("unexpected %q: from takes header <name> or cookie <name>", args[0])
	}
	return noBlock(d, "from")
}

func (g *Gateway) parsePlan(d *caddyfile.Dispenser) error {
	args := d.RemainingArgs()
	if len(args) == 0 {
		return d.Err("plan takes a name, and product ids or a block")
	}
	p := Plan{Name: args[0], Products: args[1:]}
	if !nameRE.MatchString(p.Name) || p.Name == "any" {
		return d.Errf("the plan's name %q must be made of a-z, 0-9, _ and -, and not be any", p.Name)
	}
	if slices.ContainsFunc(g.Plans, func(q Plan) bool { return q.Name == p.Name }) {
		return d.Errf("there are two plans named %s", p.Name)
	}
	var seat string
	err := subdirectives(d, map[string]func(*caddyfile.Dispenser) error{
		"products":   some(&p.Products),
		"benefits":   some(&p.Benefits),
		"buyer_seat": oneOf(&seat, "on", "off"),
		"grace": func(d *caddyfile.Dispenser) (err error) {
			p.Grace, err = parseGrace(d)
			return err
		},
	}, "products", "benefits")
	if err != nil {
		return err
	}
	if seat != "" {
		p.BuyerSeat = new(seat == "on")
	}
	if len(p.Products)+len(p.Benefits) == 0 || slices.Contains(p.Products, "") {
		return d.Errf("plan %s needs at least one product id or benefit id, and none may be empty", p.Name)
	}
	g.Plans = append(g.Plans, p)
	return nil
}

func parseGrace(d *caddyfile.Dispenser) (*Grace, error) {
	if d.NextArg() {
		return nil, d.Errf("unexpected %q: grace takes a block", d.Val())
	}
	g := new(Grace)
	err := subdirectives(d, map[string]func(*caddyfile.Dispenser) error{
		"past_due":       pastDue(&g.PastDue),
		"trial_past_due": pastDue(&g.TrialPastDue),
		"renewal":        duration(&g.Renewal),
		"unpaid":         duration(&g.Unpaid),
		"canceled":       duration(&g.Canceled),
	})
	return g, err
}

func pastDue(to *string) func(*caddyfile.Dispenser) error {
	return func(d *caddyfile.Dispenser) error {
		word := d.Val()
		if err := one(to)(d); err != nil {
			return err
		}
		if _, err := parsePastDue(word, *to); err != nil {
			return d.WrapErr(err)
		}
		return nil
	}
}

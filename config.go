package caddypolar

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"
	"go.uber.org/zap"

	"github.com/caddy-polar/caddy-polar/assertion"
	"github.com/caddy-polar/caddy-polar/cache"
	"github.com/caddy-polar/caddy-polar/entitlement"
	"github.com/caddy-polar/caddy-polar/gateway"
	"github.com/caddy-polar/caddy-polar/identity"
	"github.com/caddy-polar/caddy-polar/notify"
	"github.com/caddy-polar/caddy-polar/pages"
	"github.com/caddy-polar/caddy-polar/polar"
)

const (
	defaultGateway = "default"
	defaultHeaders = "X-Polar-"

	serverProduction = "https://api.polar.sh"
	serverSandbox    = "https://sandbox-api.polar.sh"

	linkEmail = "email"

	policyRefuse = "refuse"
	policyAllow  = "allow"
)

// Gateway is one Polar organization in one environment.
type Gateway struct {
	// AccessToken is the organization access token (polar_oat_…), best as
	// {env.NAME} or {file./path}. Without one the gateway verifies webhooks
	// and decides, and cannot ask Polar anything.
	AccessToken string `json:"access_token,omitempty"`

	// WebhookSecret is the endpoint's secret, of any kind that Polar has ever
	// made. Several are accepted side by side, so that a secret can be
	// rotated. Without one the webhook route answers 503.
	WebhookSecret []string `json:"webhook_secret,omitempty"`

	// Server is "production" (default), "sandbox" or a base URL.
	Server string `json:"server,omitempty"`

	// APIVersion is the Polar-Version to ask for, as YYYY-MM. Default: 2026-10.
	APIVersion string `json:"api_version,omitempty"`

	// OrganizationID is the organization whose facts are accepted. Default:
	// that of the first webhook.
	OrganizationID string `json:"organization_id,omitempty"`

	// StoreRaw is where the mirror of Polar's objects lives. Default: the
	// module "bolt" with a file named after the gateway in Caddy's data
	// directory.
	StoreRaw json.RawMessage `json:"store,omitempty" caddy:"namespace=polar.stores inline_key=module"`

	// JWT says whose tokens name users.
	JWT []JWT `json:"jwt,omitempty"`

	// Session asks the app who is signed in, where there is no token.
	Session *Session `json:"session,omitempty"`

	// User is a placeholder under http.auth.user., like {http.auth.user.id}, with
	// the user that another module of Caddy's has authenticated. It replaces JWT
	// and Session. Empty or unresolved, nobody is known.
	User string `json:"user,omitempty"`

	// Link is "email" to also take a customer without external id for the user
	// whose token has its e-mail, verified. Default: off.
	Link string `json:"link,omitempty"`

	// Plans in the order in which they are tried: the first that opens wins.
	Plans []Plan `json:"plans,omitempty"`

	// Grace is for how long access goes on although the payment or the
	// confirmation is missing.
	Grace *Grace `json:"grace,omitempty"`

	// Checkout is what the checkout route allows.
	Checkout *Checkout `json:"checkout,omitempty"`

	// Sync is how the gateway reads everything from Polar, on schedule, and looks
	// users up before it refuses them. Default: at least every 15 minutes, with
	// at most 120 requests a minute.
	Sync *Sync `json:"sync,omitempty"`

	// OnUnavailable is "refuse" (default: 503) or "allow", for when the store
	// cannot be read or a user who had access cannot be confirmed.
	OnUnavailable string `json:"on_unavailable,omitempty"`

	// LoginURL is where a browser without a valid token is sent. {return_to} in it
	// becomes the escaped address that was asked for. Default: a page says to sign in.
	LoginURL string `json:"login_url,omitempty"`

	// UpgradeURL is where a browser without access is sent instead of being shown our
	// page, with {return_to} likewise and {reason}, the code of the refusal. Default:
	// our page.
	UpgradeURL string `json:"upgrade_url,omitempty"`

	// Page is how the gateway's own pages look.
	Page *Page `json:"page,omitempty"`

	// ReturnTo lists hosts, besides the request's own, that visitors may be
	// sent back to and whose pages may call the routes with cookies.
	ReturnTo []string `json:"return_to,omitempty"`

	// Notify posts each change of a known user's subscription to the app.
	Notify *Notify `json:"notify,omitempty"`

	// Memory is of how many users it is held in memory what is open for them, from
	// 100. One takes less than 200 bytes, and there is always room for 32 MiB of
	// them; the others are read from the store when they come, which takes some
	// microseconds. Default: 100000.
	Memory int `json:"memory,omitempty"`

	// Audit is for how long it is kept what has changed about each user, and by
	// which webhook or sync, which `caddy polar show` tells. 0s keeps nothing.
	// Default: 30 days.
	Audit *caddy.Duration `json:"audit,omitempty"`

	// Headers is the prefix of the headers sent upstream. It ends in "-".
	// Default: X-Polar-.
	Headers string `json:"headers,omitempty"`

	// HeaderNames are which headers are sent, as their names go on after the prefix,
	// like User and Plan: each costs a proxy more than a microsecond. Default: all.
	HeaderNames []string `json:"header_names,omitempty"`

	// Assertion has the headers signed as well, in one more. Default: none is.
	Assertion *Assertion `json:"assertion,omitempty"`

	name   string
	logger *zap.Logger
	debug  bool // it writes what is for debugging; asking it costs more than a look here
	store  StoreModule
	mirror *cache.Store // what store has opened
	core   *gateway.Gateway
	// identifiers are the ways to find out who asks, in order.
	identifiers []identifier
	keySets     []keySet // of the jwt blocks with jwks
	names       headerNames
	metrics     gatewayMetrics
	isMeasured  bool // its series are in use
	vary        string
	payers      bool   // who pays can be another than who asks
	limiter     string // its key in the pool
	budget      int    // of background requests a minute
	shared      *polar.Limiter
	origins     *origins
	notify      *notify.Sender    // nil: the app is not told
	assertion   *assertion.Signer // nil: nothing is signed for the app
	streams     streams
	open        openStreams
	young       young
	events      *caddyevents.App
	ctx         caddy.Context
	literal     []string // subdirectives whose secrets stand in the configuration itself
	keyUses     []keyUse
	sites       siteNotes
	pages       *pages.Site
	// loginURL and upgradeURL are resolved, but for our own holes.
	loginURL, upgradeURL string

	short, long atomic.Int64 // bytes of unverified webhook bodies: see maxInFlight

	warnedSignature, warnedBusy, warnedStore, warnedUnstored, warnedLoop, warnedAssertion onceAMinute
}

// JWT says whose tokens name users, and where to look for them. Exactly one of
// Secret, PublicKey and JWKS is needed.
type JWT struct {
	// Secret verifies HS256, HS384 and HS512. At least 32 bytes.
	Secret string `json:"secret,omitempty"`

	// PublicKey verifies RSA (2048 bits or more), ECDSA or Ed25519 signatures:
	// a PEM text, or the path of a file with one.
	PublicKey string `json:"public_key,omitempty"`

	// JWKS is the URL at which the issuer publishes its public keys, like
	// https://id.example.com/.well-known/jwks.json. HTTP is for loopback only.
	// Issuer and Audience are then needed.
	JWKS string `json:"jwks,omitempty"`

	// MaxStale is for how long the keys of JWKS are believed after the last
	// fetch that went well; after that 503. Default: 24h. At least 5m.
	MaxStale *caddy.Duration `json:"max_stale,omitempty"`

	// Algorithms narrows down what the key's type allows.
	Algorithms []string `json:"algorithms,omitempty"`

	// Issuer lists accepted values of iss. Default, and "any": not checked.
	// With JWKS there is no default.
	Issuer []string `json:"issuer,omitempty"`

	// Audience lists accepted values of aud. Default, and "any": not checked.
	// With JWKS there is no default.
	Audience []string `json:"audience,omitempty"`

	// Leeway is the clock skew allowed for exp and nbf. Default: 30s.
	Leeway *caddy.Duration `json:"leeway,omitempty"`

	// From lists where to look for a token. Default: the Authorization header
	// with the Bearer scheme.
	From []TokenSource `json:"from,omitempty"`

	// UserClaim is the path of the claim that names the user. Default: sub.
	UserClaim string `json:"user_claim,omitempty"`

	// UserPrefix is put before the user, and before the paying party. Needed when
	// blocks trust different issuers.
	UserPrefix string `json:"user_prefix,omitempty"`

	// CustomerClaim lists the paths of claims that name who pays, such as org_id:
	// everybody whose token names the same organization shares what it has bought.
	// The first claim that a token has counts; whose token has none has bought
	// nothing. With sub as the last one they pay for themselves. Default: everybody
	// does.
	CustomerClaim []string `json:"customer_claim,omitempty"`

	// ManageClaim says who may buy, change and cancel for the paying party, and see
	// its portal. Default: only who pays for themselves.
	ManageClaim *Manage `json:"manage_claim,omitempty"`

	// EmailClaim is the path of the e-mail's claim. The claim of the same name
	// with "_verified" tells whether it is verified. Default: email.
	EmailClaim string `json:"email_claim,omitempty"`

	// StripToken keeps the token from the upstream.
	StripToken bool `json:"strip_token,omitempty"`
}

// Manage says who may act for the paying party.
type Manage struct {
	// Path leads to a string, or a list of strings, such as org_role.
	Path string `json:"path,omitempty"`
	// Values are those of which one is needed, such as org:admin.
	Values []string `json:"values,omitempty"`
}

// identity is the same as those want it who find out who asks.
func (m *Manage) identity() identity.Manage {
	if m == nil {
		return identity.Manage{}
	}
	return identity.Manage(*m)
}

// TokenSource is a place that can hold a token: a header or a cookie.
type TokenSource struct {
	// Header is a header's name. Authorization wants the Bearer scheme, any
	// other holds the bare token.
	Header string `json:"header,omitempty"`
	// Cookie is a cookie's name.
	Cookie string `json:"cookie,omitempty"`
}

// Plan is the operator's name for products and benefits of Polar.
type Plan struct {
	// Name is made of a-z, 0-9, _ and -, and is not "any".
	Name string `json:"name,omitempty"`
	// Products are the ids of products that open the plan.
	Products []string `json:"products,omitempty"`
	// Benefits are the ids of benefits that open the plan.
	Benefits []string `json:"benefits,omitempty"`
	// BuyerSeat is false when the buyer of seats must not be given one of them
	// when they come back from the checkout. Default: true.
	BuyerSeat *bool `json:"buyer_seat,omitempty"`
	// Grace replaces the gateway's, value by value.
	Grace *Grace `json:"grace,omitempty"`
}

// Grace is for how long access goes on although the payment or the
// confirmation is missing.
type Grace struct {
	// PastDue is a duration, "polar" (Polar's own revocation of benefits
	// decides) or "off". Default: 7d.
	PastDue string `json:"past_due,omitempty"`
	// TrialPastDue holds when the first payment after a trial fails. Default:
	// as past_due.
	TrialPastDue string `json:"trial_past_due,omitempty"`
	// Renewal is how late Polar may be at the end of a period. Default: 3d.
	Renewal *caddy.Duration `json:"renewal,omitempty"`
	// Unpaid is how long access goes on after Polar gave up. Default: 0.
	Unpaid *caddy.Duration `json:"unpaid,omitempty"`
	// Canceled is how long access goes on after the end. Default: 0.
	Canceled *caddy.Duration `json:"canceled,omitempty"`
}

// Checkout is what the checkout route allows.
type Checkout struct {
	// MultipleSubscriptions lets a user buy a second subscription beside one
	// that is billed. The organization's settings at Polar must allow it too.
	// Default: false.
	MultipleSubscriptions bool `json:"multiple_subscriptions,omitempty"`

	// EmailFromBody is false when an e-mail in the request must not be filled
	// in for the buyer. One that the token verifies always goes first.
	// Default: true.
	EmailFromBody *bool `json:"email_from_body,omitempty"`
}

// Sync is how the gateway reads everything from Polar, on schedule.
type Sync struct {
	// Off leaves everything to webhooks and returning buyers.
	Off bool `json:"off,omitempty"`

	// Every is the time between two whole syncs; large organizations are read
	// less often. Default: 15m.
	Every caddy.Duration `json:"every,omitempty"`

	// Budget is how many of Polar's requests a minute syncs and look-ups may
	// use. Default: 120, at most 500.
	Budget int `json:"budget,omitempty"`
}

// syncing is the same as the gateway wants it.
func (s *Sync) syncing() (gateway.Syncing, error) {
	if s == nil {
		return gateway.Syncing{}, nil
	}
	if s.Every < 0 || s.Every != 0 && time.Duration(s.Every) < time.Minute {
		return gateway.Syncing{}, fmt.Errorf("sync: every: at least 1m")
	}
	if s.Budget < 0 || s.Budget > limitProduction {
		return gateway.Syncing{}, fmt.Errorf("sync: budget: from 1/m to %d/m, which is what Polar allows", limitProduction)
	}
	return gateway.Syncing{Off: s.Off, Every: time.Duration(s.Every), Budget: s.Budget}, nil
}

// sales is the same as the gateway wants it, with the defaults.
func (c *Checkout) sales() gateway.Sales {
	if c == nil {
		return gateway.Sales{}
	}
	return gateway.Sales{
		Several: c.MultipleSubscriptions, NoBodyEmail: c.EmailFromBody != nil && !*c.EmailFromBody,
	}
}

func (g *Gateway) provision(ctx caddy.Context, name string) error {
	g.name, g.logger = name, ctx.Logger().With(zap.String("gateway", name))
	g.debug = g.logger.Core().Enabled(zap.DebugLevel)
	if !nameRE.MatchString(name) {
		return fmt.Errorf("its name must be made of a-z, 0-9, _ and -")
	}
	g.names = makeHeaderNames(orDefault(g.Headers, defaultHeaders), g.HeaderNames...)
	if err := g.measure(); err != nil {
		return err
	}
	events, err := ctx.App("events")
	if err != nil {
		return err
	}
	g.events, g.ctx = events.(*caddyevents.App), ctx
	core, err := g.coreConfig()
	if err != nil {
		return err
	}
	if core.Store, err = g.openStore(ctx); err != nil {
		return err
	}
	g.mirror = core.Store
	if err := g.provisionWays(); err != nil {
		return err
	}
	if err := g.takeLimiter(&core); err != nil {
		return err
	}
	if g.core, err = gateway.New(core); err != nil {
		return err
	}
	if core.AccessToken == "" {
		g.logger.Warn("no access_token: the gateway knows what webhooks tell it; it cannot ask Polar to confirm anything, and the routes checkout, portal, products, seats and changing a subscription answer 503")
	}
	if g.Link == linkEmail && len(g.JWT) == 0 && g.Session == nil {
		g.logger.Warn("link email does nothing: only a token or a session tells a verified e-mail, and there is neither jwt nor session")
	}
	if len(core.WebhookSecrets) == 0 {
		g.logger.Warn("no webhook_secret: the webhook route answers 503")
	}
	return nil
}

// endpointChanged tells metrics, and whoever listens to Caddy's events, how the
// webhook endpoint at Polar is doing.
func (g *Gateway) endpointChanged(h gateway.EndpointHealth) {
	g.metrics.endpoint(h)
	if h.Problem == gateway.EndpointDisabled {
		g.events.Emit(g.ctx, "polar_webhook_endpoint_disabled", map[string]any{"gateway": g.name, "url": h.URL})
	}
}

// subscriptionChanged tells whoever listens to Caddy's events. user, customer
// and until can be empty.
func (g *Gateway) subscriptionChanged(n gateway.News) {
	until := ""
	if !n.Decision.Until.IsZero() {
		until = n.Decision.Until.UTC().Format(time.RFC3339)
	}
	g.events.Emit(g.ctx, "polar_subscription_changed", map[string]any{
		"gateway": g.name, "user": n.User, "customer": n.CustomerID, "subscription": n.ID, "product": n.ProductID,
		"status": string(n.Status), "previous_status": string(n.Before),
		"allowed": n.Decision.Allowed, "reason": string(n.Decision.Reason), "until": until,
	})
}

// syncFailed tells metrics, and whoever listens to Caddy's events.
func (g *Gateway) syncFailed(err error) {
	g.metrics.syncFailed()
	g.events.Emit(g.ctx, "polar_sync_failed", map[string]any{"gateway": g.name, "error": err.Error()})
}

func (g *Gateway) cleanup() error {
	for _, way := range g.identifiers {
		way.close()
	}
	g.dropKeys()
	if g.core != nil {
		g.core.Close()
	}
	if g.notify != nil {
		g.notify.Close()
	}
	if g.assertion != nil {
		g.assertion.Close()
	}
	g.dropLimiter()
	err := g.dropMetrics()
	if g.store != nil {
		err = errors.Join(err, g.store.Release())
	}
	return err
}

// coreConfig checks the configuration and resolves what is secret in it.
func (g *Gateway) coreConfig() (gateway.Config, error) {
	c := gateway.Config{
		Name: g.name, Logger: g.logger, Sales: g.Checkout.sales(), LinkEmail: g.Link == linkEmail, Memory: g.Memory, Audit: g.auditTime(),
		APIVersion: orDefault(g.APIVersion, polar.DefaultVersion),
		OnCall:     g.metrics.called, OnVersionGone: g.metrics.versionGone,
		OnSync: g.metrics.synced, OnGlance: g.metrics.drifted, OnProgress: g.metrics.syncing,
		OnEndpoint: g.endpointChanged, OnDeadPlans: g.metrics.plansWithoutProduct, OnSyncFailed: g.syncFailed, OnNews: g.subscriptionChanged,
	}
	var err error
	if c.Syncing, err = g.Sync.syncing(); err != nil {
		return gateway.Config{}, err
	}
	steps := []func(*gateway.Config) error{
		g.checkWords, g.resolveServer, g.resolveToken, g.resolveWebhookSecrets, g.resolvePlans, g.resolveNotify, g.resolveAssertion, g.resolvePages, g.resolveAway,
	}
	for _, step := range steps {
		if err := step(&c); err != nil {
			return gateway.Config{}, err
		}
	}
	return c, nil
}

var (
	nameRE       = regexp.MustCompile(`^[a-z0-9_-]+$`)
	apiVersionRE = regexp.MustCompile(`^20\d\d-(0[1-9]|1[0-2])$`)
	prefixRE     = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9-]*-$`)
	hostRE       = regexp.MustCompile(`^[A-Za-z0-9.-]+(:\d+)?$|^\[[0-9a-fA-F:]+\](:\d+)?$`)
)

func (g *Gateway) checkWords(c *gateway.Config) error {
	if err := checkMemory(g.Memory); err != nil {
		return err
	}
	if err := checkAudit(g.auditTime()); err != nil {
		return err
	}
	if err := checkAPIVersion(orDefault(g.APIVersion, polar.DefaultVersion)); err != nil {
		return err
	}
	if err := checkPrefix(orDefault(g.Headers, defaultHeaders)); err != nil {
		return err
	}
	if err := checkHeaderNames(g.HeaderNames); err != nil {
		return err
	}
	if err := checkPolicy("on_unavailable", g.OnUnavailable); err != nil {
		return err
	}
	if g.Link != "" && g.Link != linkEmail {
		return fmt.Errorf("link: %q is not email, which is all that there is", g.Link)
	}
	var err error
	if g.origins, err = makeOrigins(g.ReturnTo); err != nil {
		return err
	}
	if g.OrganizationID == "" {
		return nil
	}
	c.Organization, err = expand("organization_id", g.OrganizationID)
	return err
}

func checkAPIVersion(v string) error {
	if !apiVersionRE.MatchString(v) {
		return fmt.Errorf("api_version: %q is not of the form YYYY-MM", v)
	}
	return nil
}

// What memory takes: fewer make no sense, more fit no machine.
const (
	minMemory = 100
	maxMemory = 1_000_000_000
)

func checkMemory(n int) error {
	if n != 0 && (n < minMemory || n > maxMemory) {
		return fmt.Errorf("memory: %d: it is a number of accounts, from %d to %d", n, minMemory, maxMemory)
	}
	return nil
}

// How long changes are kept.
const (
	defaultAudit = 30 * 24 * time.Hour
	maxAudit     = 10 * 365 * 24 * time.Hour
)

func (g *Gateway) auditTime() time.Duration {
	if g.Audit == nil {
		return defaultAudit
	}
	return time.Duration(*g.Audit)
}

func checkAudit(d time.Duration) error {
	if d != 0 && (d < time.Hour || d > maxAudit) {
		return fmt.Errorf("audit: %v: it is off, or a duration like 30d, of an hour at least and 10 years at most", d)
	}
	return nil
}

func checkPrefix(p string) error {
	if !prefixRE.MatchString(p) {
		return fmt.Errorf("headers: the prefix %q must be letters, digits and dashes, like X-Polar-, and end in -", p)
	}
	names := makeHeaderNames(p)
	for _, name := range []string{
		"Accept-Encoding", "Access-Control-Request-Method", "Cache-Control", "CF-Connecting-IP", "Content-Length",
		"If-None-Match", "Proxy-Authorization", "Sec-Fetch-Mode", "Transfer-Encoding", "User-Agent", "Webhook-Id",
		"X-Forwarded-For", "X-Real-IP", "X-Requested-With",
	} {
		if names.ours(name) {
			return fmt.Errorf("headers: the prefix %q would take away %s and the like: choose one of your own", p, name)
		}
	}
	return nil
}

func checkHeaderNames(names []string) error {
	for i, name := range names {
		same := func(other string) bool { return strings.EqualFold(name, other) }
		if !slices.ContainsFunc(headerWords[:], same) {
			return fmt.Errorf("headers: %q is none of %s", name, strings.Join(headerWords[:], ", "))
		}
		if slices.ContainsFunc(names[:i], same) {
			return fmt.Errorf("headers: %s is given twice", name)
		}
	}
	return nil
}

func checkHost(host string) error {
	if !hostRE.MatchString(host) {
		return fmt.Errorf("return_to: %q is not a host, like www.example.com or localhost:3000", host)
	}
	return nil
}

func checkPolicy(what, value string) error {
	switch value {
	case "", policyRefuse, policyAllow:
		return nil
	}
	return fmt.Errorf("%s: %q is neither refuse nor allow", what, value)
}

func (g *Gateway) resolveServer(c *gateway.Config) error {
	value, err := expand("server", orDefault(g.Server, "production"))
	if err != nil {
		return err
	}
	c.Server, err = parseServer(value)
	return err
}

// parseServer is the base URL that a word or URL stands for.
func parseServer(value string) (string, error) {
	switch value {
	case "production":
		return serverProduction, nil
	case "sandbox":
		return serverSandbox, nil
	}
	u, err := url.Parse(value)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		if strings.ContainsAny(value, "@?") { // there may be a password in it
			value = "that"
		} else {
			value = fmt.Sprintf("%q", value)
		}
		return "", fmt.Errorf("server: %s is neither production, sandbox nor a base URL, which has no user and no query", value)
	}
	if u.Scheme != "https" && (u.Scheme != "http" || !isLoopback(u.Hostname())) {
		return "", fmt.Errorf("server: %q needs https (http is for loopback only)", value)
	}
	return strings.TrimRight(u.String(), "/"), nil
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func (g *Gateway) resolveToken(c *gateway.Config) error {
	if g.AccessToken == "" {
		return nil
	}
	token, err := g.secret("access_token", g.AccessToken)
	if err != nil {
		return err
	}
	for prefix, kind := range map[string]string{
		"polar_cst_": "a customer session token",
		"polar_mst_": "a member session token",
		"polar_c_":   "a checkout's client secret",
		"whsec_":     "a webhook secret",
	} {
		if strings.HasPrefix(token, prefix) {
			return fmt.Errorf("access_token: %sthis is %s; an organization access token (polar_oat_…) is needed, made in Polar under Settings, Developers",
				shown(g.AccessToken), kind)
		}
	}
	c.AccessToken = token
	return nil
}

func (g *Gateway) resolveWebhookSecrets(c *gateway.Config) error {
	for _, raw := range g.WebhookSecret {
		secret, err := g.secret("webhook_secret", raw)
		if err != nil {
			return err
		}
		if c.Server == serverProduction && polar.IsListenSecret(secret) {
			return fmt.Errorf("webhook_secret: %sthis looks like the secret of `polar listen`, which is public: "+
				"it is taken only with `server sandbox` or a base URL", shown(raw))
		}
		c.WebhookSecrets = append(c.WebhookSecrets, secret)
	}
	return nil
}

func (g *Gateway) resolvePlans(c *gateway.Config) error {
	grace := g.Grace.over(new(Grace))
	if _, err := grace.resolve(); err != nil {
		return fmt.Errorf("grace: %w", err)
	}
	seen := make(map[string]bool)
	for _, p := range g.Plans {
		switch {
		case !nameRE.MatchString(p.Name) || p.Name == "any":
			return fmt.Errorf("plan: the name %q must be made of a-z, 0-9, _ and -, and not be any", p.Name)
		case seen[p.Name]:
			return fmt.Errorf("plan %s: there are two of that name", p.Name)
		case len(p.Products)+len(p.Benefits) == 0:
			return fmt.Errorf("plan %s: it needs at least one product or benefit", p.Name)
		}
		seen[p.Name] = true
		plan := entitlement.Plan{Name: p.Name}
		var err error
		if plan.Products, err = expandAll("plan "+p.Name, p.Products); err != nil {
			return err
		}
		if plan.Benefits, err = expandAll("plan "+p.Name, p.Benefits); err != nil {
			return err
		}
		if plan.Grace, err = p.Grace.over(grace).resolve(); err != nil {
			return fmt.Errorf("plan %s: grace: %w", p.Name, err)
		}
		c.Plans = append(c.Plans, plan)
		if p.BuyerSeat != nil && !*p.BuyerSeat {
			c.Sales.NoBuyerSeat = append(c.Sales.NoBuyerSeat, p.Name)
		}
	}
	if len(c.Plans) == 0 {
		g.logger.Warn("no plan: nothing that is sold opens anything; add `plan <name> <product id>…`")
	}
	return nil
}

// over is g with what it leaves open taken from another.
func (g *Grace) over(base *Grace) *Grace {
	if g == nil {
		return base
	}
	return &Grace{
		PastDue:      orDefault(g.PastDue, base.PastDue),
		TrialPastDue: orDefault(g.TrialPastDue, base.TrialPastDue),
		Renewal:      cmp.Or(g.Renewal, base.Renewal),
		Unpaid:       cmp.Or(g.Unpaid, base.Unpaid),
		Canceled:     cmp.Or(g.Canceled, base.Canceled),
	}
}

// resolve is the grace as the rules want it, with the defaults.
func (g *Grace) resolve() (entitlement.Grace, error) {
	to := entitlement.DefaultGrace()
	if g.PastDue != "" {
		v, err := parsePastDue("past_due", g.PastDue)
		if err != nil {
			return to, err
		}
		to.PastDue, to.TrialPastDue = v, v
	}
	if g.TrialPastDue != "" {
		v, err := parsePastDue("trial_past_due", g.TrialPastDue)
		if err != nil {
			return to, err
		}
		to.TrialPastDue = v
	}
	for _, d := range []struct {
		what string
		from *caddy.Duration
		to   *time.Duration
	}{{"renewal", g.Renewal, &to.Renewal}, {"unpaid", g.Unpaid, &to.Unpaid}, {"canceled", g.Canceled, &to.Canceled}} {
		if d.from == nil {
			continue
		}
		if *d.from < 0 {
			return to, fmt.Errorf("%s: a duration cannot be negative", d.what)
		}
		*d.to = time.Duration(*d.from)
	}
	return to, nil
}

func parsePastDue(what, value string) (entitlement.PastDueGrace, error) {
	switch value {
	case "polar":
		return entitlement.PastDueGrace{Polar: true}, nil
	case "off":
		return entitlement.PastDueGrace{}, nil
	}
	d, err := caddy.ParseDuration(value)
	if err != nil || d < 0 {
		return entitlement.PastDueGrace{}, fmt.Errorf("%s: %q is neither a duration like 7d, nor polar, nor off", what, value)
	}
	return entitlement.PastDueGrace{For: d}, nil
}

func (g *Gateway) provisionTokens() error {
	var blocks []identity.Block
	for i := range g.JWT {
		j := &g.JWT[i]
		b, err := j.block(g)
		if err != nil {
			return err
		}
		g.notePayers("customer_claim", "manage_claim", j.CustomerClaim, j.ManageClaim)
		blocks = append(blocks, b)
	}
	v, err := identity.New(blocks)
	if err != nil {
		return fmt.Errorf("jwt: %s%w", g.shownKey(blocks), err)
	}
	for _, source := range v.Sources() {
		if g.names.ours(source.Header) || source.Header == originalURL1 || source.Header == originalURL2 {
			v.Close()
			return fmt.Errorf("jwt: from header %s: the gateway takes this header away from every request", source.Header)
		}
	}
	g.identifyBy(tokens{v})
	return nil
}

// shownKey names the key of the first block that cannot stand by itself, for
// the error about it.
func (g *Gateway) shownKey(blocks []identity.Block) string {
	for i := range blocks {
		v, err := identity.New(blocks[i : i+1])
		if err != nil {
			return shown(g.JWT[i].Secret) + shown(g.JWT[i].PublicKey) + shown(g.JWT[i].JWKS)
		}
		v.Close()
	}
	return ""
}

func (j *JWT) block(g *Gateway) (identity.Block, error) {
	b := identity.Block{
		Algorithms: j.Algorithms, UserClaim: j.UserClaim, UserPrefix: j.UserPrefix,
		EmailClaim: j.EmailClaim, StripToken: j.StripToken,
		CustomerClaims: j.CustomerClaim, Manage: j.ManageClaim.identity(),
	}
	if j.Leeway != nil {
		b.Leeway = new(time.Duration(*j.Leeway))
	}
	var err error
	if b.Issuers, err = expandAll("jwt: issuer", j.Issuer); err != nil {
		return b, err
	}
	if b.Audiences, err = expandAll("jwt: audience", j.Audience); err != nil {
		return b, err
	}
	for _, s := range j.From {
		b.Sources = append(b.Sources, identity.Source{Header: http.CanonicalHeaderKey(s.Header), Cookie: s.Cookie})
	}
	if j.Secret != "" {
		secret, err := g.secret("jwt: secret", j.Secret)
		if err != nil {
			return b, err
		}
		b.Secret = []byte(secret)
	}
	if j.PublicKey != "" {
		if b.PublicKey, err = g.publicKey(j.PublicKey); err != nil {
			return b, err
		}
	}
	if j.JWKS == "" {
		if j.MaxStale != nil {
			return b, fmt.Errorf("jwt: max_stale goes with jwks")
		}
		return b, nil
	}
	set, err := g.takeKeys(j)
	if err != nil {
		return b, err
	}
	b.Keys = set
	g.keyUses = append(g.keyUses, keyUse{set, j.Algorithms})
	return b, nil
}

// publicKey is a PEM text, or that of a file.
func (g *Gateway) publicKey(raw string) ([]byte, error) {
	value, err := expand("jwt: public_key", raw)
	if err != nil {
		return nil, err
	}
	if strings.Contains(value, "-----BEGIN") {
		return []byte(strings.TrimSpace(value)), nil
	}
	pem, err := os.ReadFile(value)
	if err != nil {
		return nil, fmt.Errorf("jwt: public_key: %sneither a PEM text nor a readable file: %w", shown(raw), err)
	}
	return []byte(strings.TrimSpace(string(pem))), nil
}

// usualFile is the store of a gateway that says nothing of it.
func (g *Gateway) usualFile() string { return filepath.Join(caddy.AppDataDir(), "polar", g.name+".db") }

func (g *Gateway) openStore(ctx caddy.Context) (*cache.Store, error) {
	if g.StoreRaw == nil {
		g.store = &BoltStore{}
	} else {
		v, err := ctx.LoadModule(g, "StoreRaw")
		if err != nil {
			return nil, fmt.Errorf("store: %w", err)
		}
		g.store = v.(StoreModule)
	}
	if of, ok := g.store.(interface{ LiteralSecrets() []string }); ok {
		g.literal = append(g.literal, of.LiteralSecrets()...)
	}
	s, err := g.store.Open(g.usualFile(), storeUsed)
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	return s, nil
}

// secret expands a value that must not be seen, and warns if it stands in the
// configuration itself, where GET /config/ and autosave.json show it.
func (g *Gateway) secret(what, raw string) (string, error) {
	value, err := expand(what, raw)
	if err == nil && value == raw {
		g.logger.Warn("a secret stands literally in the configuration: write {env.NAME} or {file./path}",
			zap.String("subdirective", what))
		if !slices.Contains(g.literal, what) {
			g.literal = append(g.literal, what)
		}
	}
	return value, err
}

// expand resolves placeholders. Neither they nor the whole may be empty.
func expand(what, raw string) (string, error) {
	if raw == "" {
		return "", fmt.Errorf("%s is empty", what)
	}
	if !strings.Contains(raw, "{") {
		return raw, nil
	}
	value, err := caddy.NewReplacer().ReplaceOrErr(raw, true, true)
	if err == nil && strings.TrimSpace(value) != "" {
		return value, nil
	}
	switch {
	case strings.HasPrefix(raw, "{file.") && placeholderRE.MatchString(raw):
		return "", fmt.Errorf("%s: %s is empty or cannot be read", what, raw)
	case placeholderRE.MatchString(raw):
		return "", fmt.Errorf("%s: %s is empty", what, raw)
	}
	// The rest of the value may be secret: do not repeat it.
	return "", fmt.Errorf("%s: a placeholder in it is unknown or empty", what)
}

func expandAll(what string, raw []string) ([]string, error) {
	var values []string
	for _, r := range raw {
		v, err := expand(what, r)
		if err != nil {
			return nil, err
		}
		values = append(values, v)
	}
	return values, nil
}

var placeholderRE = regexp.MustCompile(`^\{(env|file)\.[^{}]+\}$`)

// shown is a value as an error may show it: the placeholder, followed by a
// colon, or nothing when it is anything else.
func shown(raw string) string {
	if placeholderRE.MatchString(raw) {
		return raw + ": "
	}
	return ""
}

func orDefault(value, byDefault string) string {
	if value == "" {
		return byDefault
	}
	return value
}

// onceAMinute keeps what anybody can cause, or every request meets, from
// filling the log.
type onceAMinute struct{ last atomic.Int64 }

func (o *onceAMinute) now(now time.Time) bool {
	seconds, last := now.Unix(), o.last.Load()
	due := seconds-last >= 60 || seconds < last // the clock was set back
	return due && o.last.CompareAndSwap(last, seconds)
}

package gateway

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"

	"go.uber.org/zap"

	"github.com/caddy-polar/caddy-polar/polar"
)

// WebhookPath is where the webhook route is, unless the site's path says
// otherwise.
const WebhookPath = "/auth/polar/webhook"

// newestEvent came in September 2026: an endpoint that is older cannot have it.
const newestEvent = "subscription.migrated"

// EndpointSetup tells what the webhook endpoint at Polar has become, and
// whether webhooks arrive.
type EndpointSetup struct {
	URL       string
	PathAdded bool // the address had no path and got WebhookPath
	State     SetupState
	ID        string // Polar's, of the endpoint; empty if there is none
	// Wrong are the fields that were wrong, or still are.
	Wrong []string
	// Lacked are the event types that were missing, URLBefore where the
	// endpoint led to.
	Lacked    []string
	URLBefore string
	// Scopes are those that the access token lacks for the rest.
	Scopes []string
	// Secret is the endpoint's, if the gateway does not have it yet.
	Secret polar.Secret
	Check  EndpointCheck
}

// SetupState is what an endpoint has become.
type SetupState string

// The states.
const (
	SetupCreated SetupState = "created"
	SetupMended  SetupState = "mended"
	SetupFine    SetupState = "fine" // nothing was wrong
	// SetupMissing and SetupWrong: the access token may look and not write.
	SetupMissing SetupState = "missing"
	SetupWrong   SetupState = "wrong"
	// SetupUnread: it may not look either.
	SetupUnread SetupState = "unread"
)

// The scopes that setting up needs.
const (
	scopeReadWebhooks  = "webhooks:read"
	scopeWriteWebhooks = "webhooks:write"
)

// endpointSetup is the work on the endpoint at Polar.
type endpointSetup struct {
	one    sync.Mutex // at a time, or there would be two endpoints
	checks checks     // under way
}

// SetUpEndpoint makes the webhook endpoint at Polar one that sends to an
// address all that the gateway needs: it creates or mends it. Then it checks
// that the address is this gateway's. It deletes nothing.
func (g *Gateway) SetUpEndpoint(ctx context.Context, address string) (EndpointSetup, error) {
	u, err := endpointURL(address)
	if err != nil {
		return EndpointSetup{}, err
	}
	client, err := g.ask()
	if err != nil {
		return EndpointSetup{}, err
	}
	var s EndpointSetup
	if s.PathAdded = u.Path == "" || u.Path == "/"; s.PathAdded {
		u.Path = WebhookPath
	}
	s.URL = u.String()
	g.setup.one.Lock()
	defer g.setup.one.Unlock()
	if err := g.arrangeEndpoint(ctx, client, &s); err != nil {
		return EndpointSetup{}, refusedURL(err)
	}
	if s.Check, err = g.checkWebhook(ctx, u); err != nil {
		return EndpointSetup{}, err
	}
	if err := g.checkEndpoint(ctx); err != nil {
		g.logger.Debug("the webhook endpoint could not be looked at again", zap.Error(err)) // it will be, in minutes
	}
	return s, nil
}

// endpointURL reads an address, in the spelling by which two are compared.
func endpointURL(address string) (*url.URL, error) {
	u, err := url.Parse(address)
	switch {
	case err != nil || u.Hostname() == "" || u.Opaque != "": // err repeats it, with a password that may be in it
		return nil, badInput("url: it must be a whole address, like https://app.example.com%s", WebhookPath)
	case u.User != nil:
		return nil, badInput("url: leave out the name and password: whoever sees the endpoint at Polar sees them")
	case strings.Contains(address, "#"):
		return nil, badInput("url: leave out what begins with #: it is never sent")
	case u.Scheme != "https" && (u.Scheme != "http" || !isLoopback(strings.ToLower(u.Hostname()))):
		return nil, badInput("url: it must begin with https://, as Polar sends to nothing else (http is for loopback only)")
	case len(address) > 2000:
		return nil, badInput("url: it is too long for Polar, which takes about 2000 bytes")
	}
	u.Host = strings.ToLower(u.Host)
	if port := u.Port(); port == "" || u.Scheme == "https" && port == "443" || u.Scheme == "http" && port == "80" {
		u.Host = strings.TrimSuffix(u.Host, ":"+port)
	}
	return u, nil
}

func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

func sameURL(a, b string) bool {
	if a == b {
		return true
	}
	u, err := endpointURL(a)
	return err == nil && u.String() == b
}

// arrangeEndpoint creates or mends the endpoint, as far as the access token
// may.
func (g *Gateway) arrangeEndpoint(ctx context.Context, client *polar.Client, s *EndpointSetup) error {
	e, err := g.findEndpoint(ctx, client, s.URL)
	switch {
	case errors.Is(err, polar.ErrScope):
		s.State, s.Scopes = SetupUnread, []string{scopeReadWebhooks, scopeWriteWebhooks}
		return nil
	case err != nil:
		return err
	case e == nil:
		e, err = g.createEndpoint(ctx, client, s)
	default:
		e, err = g.mendEndpoint(ctx, client, s, e)
	}
	if errors.Is(err, polar.ErrScope) {
		s.Scopes, err = []string{scopeWriteWebhooks}, nil
	}
	if err != nil || e == nil {
		return err
	}
	if s.ID = e.ID; !g.ourSecret(string(e.Secret)) {
		s.Secret = e.Secret
	}
	return nil
}

// findEndpoint finds our endpoint: one with a secret of ours, best one that has
// the address too, else one with the address. Nil: there is none.
func (g *Gateway) findEndpoint(ctx context.Context, client *polar.Client, address string) (found *polar.WebhookEndpoint, err error) {
	endpoints, err := listEndpoints(ctx, client)
	best := 0
	for i := range endpoints {
		e, fits := &endpoints[i], 0
		if g.ourSecret(string(e.Secret)) {
			fits += 2
		}
		if sameURL(e.URL, address) {
			fits++
		}
		if fits > best {
			found, best = e, fits
		}
	}
	return found, err
}

// createEndpoint leaves the secret to Polar, which tells it with its answer.
func (g *Gateway) createEndpoint(ctx context.Context, client *polar.Client, s *EndpointSetup) (*polar.WebhookEndpoint, error) {
	s.State = SetupMissing
	a, err := withEvents(wantedEvents(), func(events []string) (polar.Answer[polar.WebhookEndpoint], error) {
		return client.CreateWebhookEndpoint(ctx, polar.WebhookEndpointCreate{
			URL: s.URL, Name: "caddy-polar " + g.name, Format: "raw", Events: events,
		})
	})
	if err != nil {
		return nil, err
	}
	s.State = SetupCreated
	g.logger.Info("a webhook endpoint was created at Polar", zap.String("endpoint", a.Item.ID), zap.String("url", s.URL))
	return &a.Item, nil
}

// mendEndpoint changes what is wrong and nothing else. The owner's own event
// types and name stay.
func (g *Gateway) mendEndpoint(
	ctx context.Context, client *polar.Client, s *EndpointSetup, e *polar.WebhookEndpoint,
) (*polar.WebhookEndpoint, error) {
	var change polar.WebhookEndpointUpdate
	if !sameURL(e.URL, s.URL) {
		s.Wrong, s.URLBefore, change.URL = append(s.Wrong, "url"), e.URL, s.URL
	}
	if e.Format != "raw" {
		s.Wrong, change.Format = append(s.Wrong, "format"), "raw"
	}
	lacking := slices.DeleteFunc(wantedEvents(), func(kind string) bool { return slices.Contains(e.Events, kind) })
	s.Lacked = slices.DeleteFunc(slices.Clone(lacking), func(kind string) bool { return kind == newestEvent })
	if len(s.Lacked) > 0 {
		s.Wrong, change.Events = append(s.Wrong, "events"), slices.Concat(e.Events, lacking)
	}
	if !e.Enabled {
		s.Wrong, change.Enabled = append(s.Wrong, "enabled"), new(true)
	}
	if len(s.Wrong) == 0 {
		s.State = SetupFine
		return e, nil
	}
	s.State = SetupWrong
	a, err := withEvents(change.Events, func(events []string) (polar.Answer[polar.WebhookEndpoint], error) {
		change.Events = events
		return client.UpdateWebhookEndpoint(ctx, e.ID, change)
	})
	if err != nil {
		return e, err
	}
	s.State = SetupMended
	g.logger.Info("the webhook endpoint at Polar was mended", zap.String("endpoint", e.ID), zap.String("url", s.URL),
		zap.Strings("changed", s.Wrong), zap.Strings("events_added", s.Lacked))
	return &a.Item, nil
}

// wantedEvents are the types that the gateway has a use for: those that decide,
// those that change what is sold, and those of teams.
func wantedEvents() []string {
	var kinds []string
	for _, kind := range slices.Sorted(maps.Keys(eventKinds)) {
		group, _, _ := strings.Cut(kind, ".")
		if eventKinds[kind] != nil || slices.Contains([]string{"product", "benefit"}, group) {
			kinds = append(kinds, kind)
		}
	}
	return kinds
}

// withEvents makes a call that names event types, and once more without the
// newest where Polar does not take it.
func withEvents(
	events []string, send func([]string) (polar.Answer[polar.WebhookEndpoint], error),
) (polar.Answer[polar.WebhookEndpoint], error) {
	a, err := send(events)
	if errors.Is(err, polar.ErrInvalid) && complaint(err, "body.events") != "" && slices.Contains(events, newestEvent) {
		return send(slices.DeleteFunc(slices.Clone(events), func(kind string) bool { return kind == newestEvent }))
	}
	return a, err
}

// complaint is what Polar says about a field of the input.
func complaint(err error, field string) string {
	if failure, ok := errors.AsType[*polar.APIError](err); ok {
		for _, f := range failure.Fields {
			if f.Field == field || strings.HasPrefix(f.Field, field+".") {
				return f.Message
			}
		}
	}
	return ""
}

// refusedURL tells an address that Polar does not take from other trouble.
func refusedURL(err error) error {
	if said := complaint(err, "body.url"); said != "" && errors.Is(err, polar.ErrInvalid) {
		return badInput("url: Polar does not take it: %s", said)
	}
	return err
}

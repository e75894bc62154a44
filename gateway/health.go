package gateway

import (
	"context"
	"crypto/subtle"
	"errors"
	"maps"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-polar/caddy-polar/polar"
)

// EndpointProblem is what is wrong with the webhook endpoint at Polar.
type EndpointProblem string

// The problems, the worst first.
const (
	// EndpointFine: nothing is wrong.
	EndpointFine EndpointProblem = ""
	// EndpointMissing: no endpoint there has one of our secrets.
	EndpointMissing EndpointProblem = "missing"
	// EndpointDisabled: Polar sends nothing, and stores nothing to send later.
	EndpointDisabled EndpointProblem = "disabled"
	// EndpointFormat: it sends messages for people and not facts.
	EndpointFormat EndpointProblem = "format"
	// EndpointEvents: it does not send every type that decides.
	EndpointEvents EndpointProblem = "events"
	// EndpointFailing: events have not arrived lately.
	EndpointFailing EndpointProblem = "failing"
)

// EndpointProblems are all problems.
var EndpointProblems = []EndpointProblem{
	EndpointMissing, EndpointDisabled, EndpointFormat, EndpointEvents, EndpointFailing,
}

// EndpointHealth is how the webhook endpoint at Polar is doing.
type EndpointHealth struct {
	Checked time.Time // by Polar's clock; zero: not yet, or the token may not ask
	URL     string
	Problem EndpointProblem
	// Lacking are the event types that it should send and does not.
	Lacking []string
	// Failed counts events of the last hour whose last delivery failed.
	Failed int
}

const (
	// healthEvery is how often the endpoint is looked at.
	healthEvery = 5 * time.Minute
	// failingSince is how far back failed deliveries count.
	failingSince = time.Hour
)

// checkEndpoint asks Polar how our endpoint is doing, and tells when that has
// changed. A quiet shop is no alarm: only what Polar says counts.
func (g *Gateway) checkEndpoint(ctx context.Context) error {
	if g.verifier == nil {
		return nil
	}
	now, err := g.readEndpoint(ctx)
	if errors.Is(err, polar.ErrScope) {
		g.warnScope("webhook endpoints")
		return nil
	}
	if err != nil {
		return err
	}
	g.endpoint.mu.Lock()
	before := g.endpoint.last
	g.endpoint.last = now
	g.endpoint.mu.Unlock()
	if before.Problem == now.Problem && !before.Checked.IsZero() {
		return nil
	}
	told := []zap.Field{zap.String("url", now.URL), zap.Strings("lacking", now.Lacking), zap.Int("failed", now.Failed)}
	switch now.Problem {
	case EndpointFine:
		if before.Problem != EndpointFine {
			g.logger.Info("the webhook endpoint at Polar is fine again", told...)
		}
	case EndpointMissing:
		g.logger.Warn("no webhook endpoint at Polar has one of the webhook_secret: add one, or copy its secret")
	case EndpointDisabled:
		g.logger.Error("Polar has disabled the webhook endpoint: enable it in Polar's settings; syncs mend what was missed", told...)
	case EndpointFormat:
		g.logger.Error("the webhook endpoint's format must be Raw: change it in Polar's settings", told...)
	case EndpointEvents:
		g.logger.Warn("the webhook endpoint lacks event types: add them in Polar's settings", told...)
	case EndpointFailing:
		g.logger.Warn("deliveries of webhooks have failed: see the endpoint's deliveries in Polar's settings for what was answered", told...)
	}
	if g.onEndpoint != nil {
		g.onEndpoint(now)
	}
	return nil
}

func (g *Gateway) readEndpoint(ctx context.Context) (EndpointHealth, error) {
	h := EndpointHealth{Checked: g.Now(), Problem: EndpointMissing}
	client := g.background()
	endpoints, err := listEndpoints(ctx, client)
	if err != nil {
		return h, err
	}
	e := g.ourEndpoint(endpoints)
	if e == nil {
		return h, nil
	}
	failed, err := failedDeliveries(ctx, client, e.ID, h.Checked.Add(-failingSince))
	if err != nil {
		return h, err
	}
	h.URL, h.Lacking, h.Failed = e.URL, lackingEvents(e), len(failed.events)
	h.Problem = h.judge(e)
	return h, nil
}

func listEndpoints(ctx context.Context, client *polar.Client) (all []polar.WebhookEndpoint, err error) {
	list := func(ctx context.Context, _ struct{}, p polar.Paging) (polar.Page[polar.WebhookEndpoint], error) {
		return client.ListWebhookEndpoints(ctx, p)
	}
	for page, err := range polar.Pages(ctx, list, struct{}{}, polar.Paging{}) {
		if err != nil {
			return nil, err
		}
		all = append(all, page.Items...)
	}
	return all, nil
}

// ourEndpoint is the one that has a secret of ours, nil if none has. Of several, one
// that is enabled is the one that counts.
func (g *Gateway) ourEndpoint(endpoints []polar.WebhookEndpoint) (best *polar.WebhookEndpoint) {
	for i := range endpoints {
		if e := &endpoints[i]; g.ourSecret(string(e.Secret)) && (best == nil || e.Enabled && !best.Enabled) {
			best = e
		}
	}
	return best
}

// lackingEvents are the types that decide and that an endpoint does not send.
func lackingEvents(e *polar.WebhookEndpoint) (lacking []string) {
	for _, kind := range slices.Sorted(maps.Keys(eventKinds)) {
		if eventKinds[kind] != nil && !slices.Contains(e.Events, kind) && kind != newestEvent {
			lacking = append(lacking, kind) // older endpoints cannot have the newest type
		}
	}
	return lacking
}

// deliveries is how the latest deliveries to an endpoint went.
type deliveries struct {
	events []polar.WebhookDelivery // the last try of each event that has not arrived, the latest first
	latest *polar.WebhookDelivery  // nil: there was none
}

// failedDeliveries finds events that have not arrived. Polar tries again: one that
// has arrived at last is fine.
func failedDeliveries(ctx context.Context, client *polar.Client, endpoint string, since time.Time) (d deliveries, err error) {
	page, err := client.ListDeliveries(ctx, polar.DeliveryFilter{EndpointID: endpoint, Start: since}, polar.Paging{Limit: pageSize})
	if err != nil {
		return d, err
	}
	tried := make(map[string]bool)
	for i := range page.Items { // the newest first
		item := &page.Items[i]
		if d.latest == nil {
			d.latest = item
		}
		if !tried[item.Event.ID] && !item.Succeeded {
			d.events = append(d.events, *item)
		}
		tried[item.Event.ID] = true
	}
	return d, nil
}

// judge says what is wrong with our endpoint.
func (h *EndpointHealth) judge(e *polar.WebhookEndpoint) EndpointProblem {
	switch {
	case !e.Enabled:
		return EndpointDisabled
	case e.Format != "raw":
		return EndpointFormat
	case len(h.Lacking) > 0:
		return EndpointEvents
	case h.Failed > 0:
		return EndpointFailing
	}
	return EndpointFine
}

func (g *Gateway) ourSecret(secret string) bool {
	ours := false
	for _, s := range g.secrets {
		if subtle.ConstantTimeCompare([]byte(s), []byte(secret)) == 1 {
			ours = true
		}
	}
	return ours
}

// Endpoint is how the webhook endpoint was doing when Polar was asked last.
func (g *Gateway) Endpoint() EndpointHealth {
	g.endpoint.mu.Lock()
	defer g.endpoint.mu.Unlock()
	return g.endpoint.last
}

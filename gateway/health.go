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
	list := func(ctx context.Context, _ struct{}, p polar.Paging) (polar.Page[polar.WebhookEndpoint], error) {
		return g.background().ListWebhookEndpoints(ctx, p)
	}
	var best *polar.WebhookEndpoint
	for page, err := range polar.Pages(ctx, list, struct{}{}, polar.Paging{}) {
		if err != nil {
			return h, err
		}
		for i := range page.Items {
			// Of several, one that is enabled is the one that counts.
			if e := &page.Items[i]; g.ourSecret(string(e.Secret)) && (best == nil || e.Enabled && !best.Enabled) {
				best = e
			}
		}
	}
	if best == nil {
		return h, nil
	}
	h.URL = best.URL
	return h, g.judge(ctx, &h, best)
}

// judge says what is wrong with our endpoint.
func (g *Gateway) judge(ctx context.Context, h *EndpointHealth, e *polar.WebhookEndpoint) error {
	for _, kind := range slices.Sorted(maps.Keys(eventKinds)) {
		if eventKinds[kind] != nil && !slices.Contains(e.Events, kind) && kind != newestEvent {
			h.Lacking = append(h.Lacking, kind) // older endpoints cannot have the newest type
		}
	}
	deliveries, err := g.background().ListDeliveries(ctx, polar.DeliveryFilter{
		EndpointID: e.ID, Start: h.Checked.Add(-failingSince),
	}, polar.Paging{Limit: pageSize})
	if err != nil {
		return err
	}
	// Newest first. Polar tries again: an event that has arrived is fine.
	tried := make(map[string]bool)
	for i := range deliveries.Items {
		d := &deliveries.Items[i]
		if !tried[d.Event.ID] && !d.Succeeded {
			h.Failed++
		}
		tried[d.Event.ID] = true
	}
	switch {
	case !e.Enabled:
		h.Problem = EndpointDisabled
	case e.Format != "raw":
		h.Problem = EndpointFormat
	case len(h.Lacking) > 0:
		h.Problem = EndpointEvents
	case h.Failed > 0:
		h.Problem = EndpointFailing
	default:
		h.Problem = EndpointFine
	}
	return nil
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

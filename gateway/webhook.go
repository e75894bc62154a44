package gateway

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-polar/caddy-polar/cache"
	"github.com/caddy-polar/caddy-polar/polar"
)

// Result is what has become of a verified webhook.
type Result string

// The results.
const (
	ResultApplied     Result = "applied"     // something was news
	ResultKnown       Result = "known"       // all of it was known in this version or a newer one
	ResultIgnored     Result = "ignored"     // carries nothing that decides
	ResultUnknown     Result = "unknown"     // an event type this version does not know
	ResultForeign     Result = "foreign"     // of another organization
	ResultUndecodable Result = "undecodable" // not what Polar's contract promises
)

// UnknownType stands for all event types that this version does not know.
const UnknownType = "unknown"

// farFuture is how much newer than its arrival an object may be.
const farFuture = 24 * time.Hour

// Receipt tells what a webhook was and what has become of it.
type Receipt struct {
	Type   string // a documented event type, or UnknownType
	Result Result
	// Age is the time from the event to now, when it is in force.
	Age time.Duration
}

// ReadDelivery checks the headers of a webhook, before its body is read. When
// it seems to be of another time and Polar's was not heard lately, it may be our
// clock that is wrong, or has jumped: then Polar is asked.
func (g *Gateway) ReadDelivery(h http.Header) (polar.Delivery, error) {
	if g.verifier == nil {
		return polar.Delivery{}, fmt.Errorf("webhook_secret: %w", ErrNotConfigured)
	}
	d, err := polar.ReadDelivery(h, g.Now())
	if !errors.Is(err, polar.ErrTimestamp) || g.client == nil || g.clockAsked.take("", g.local()) != nil {
		return d, err // nobody has signed yet: strangers must not make us ask often
	}
	ctx, cancel := context.WithTimeout(g.life, lookUpPatience)
	defer cancel()
	_ = g.hearClock(ctx, g.client.Prompt()) // also a refusal tells the time
	return polar.ReadDelivery(h, g.Now())
}

// TakeWebhook verifies a webhook and makes its facts durable and enforced.
//
// Once the signature is right the only error is that the store cannot be
// written. Polar disables an endpoint after ten failed events, so nothing
// else, neither a stranger nor a body that makes no sense, may look like a
// failure to it.
func (g *Gateway) TakeWebhook(ctx context.Context, d polar.Delivery, body []byte) (Receipt, error) {
	if g.verifier == nil {
		return Receipt{Type: UnknownType}, fmt.Errorf("webhook_secret: %w", ErrNotConfigured)
	}
	if err := g.verifier.Verify(d, body); err != nil {
		return Receipt{Type: UnknownType}, err
	}
	keys, err := g.claim()
	if err != nil {
		return Receipt{Type: UnknownType}, err
	}
	receipt := Receipt{Type: UnknownType}
	event, err := polar.DecodeEvent(body)
	if err != nil {
		return g.undecodable(d, receipt, err), nil
	}
	if event.Type == checkEvent {
		g.setup.checks.hear(event)
		receipt.Result = ResultIgnored
		return receipt, nil
	}
	read, known := eventKinds[event.Type]
	if !known {
		g.logger.Warn("webhook of an unknown type",
			zap.String("webhook_id", d.ID), zap.String("type", bounded(event.Type)))
		receipt.Result = ResultUnknown
		return receipt, nil
	}
	receipt.Type = event.Type
	g.heard.webhook(event.Type, g.Now())
	g.catalog.changed(event.Type)
	if read == nil {
		receipt.Result = ResultIgnored
		return receipt, nil
	}
	facts := &cache.Facts{Source: cache.Source{Kind: cache.SourceWebhook, ID: bounded(d.ID)}}
	r := g.newReader(keys, event.Timestamp, facts)
	if event.Timestamp.After(r.latest) {
		return g.undecodable(d, receipt, fmt.Errorf("%w: timestamp is out of range", errMalformed)), nil
	}
	if err := read(&r, event); err != nil {
		return g.undecodable(d, receipt, err), nil
	}
	applied, err := g.write(ctx, facts)
	if err != nil {
		return receipt, err
	}
	receipt.Result = g.resultOf(d, applied)
	g.warnUnknownStatus(d, receipt, facts)
	if event.Timestamp.Year() >= 2000 {
		receipt.Age = g.Now().Sub(event.Timestamp)
	}
	return receipt, nil
}

// warnUnknownStatus tells of a status that came after this version: its user
// gets 503 and not 402.
func (g *Gateway) warnUnknownStatus(d polar.Delivery, receipt Receipt, facts *cache.Facts) {
	if receipt.Result != ResultApplied {
		return
	}
	for _, s := range facts.Subscriptions {
		if !s.Status.Known() {
			g.logger.Warn("subscription in a status that this version does not know: update the gateway",
				zap.String("webhook_id", d.ID), zap.String("status", string(s.Status)))
		}
	}
}

func (g *Gateway) resultOf(d polar.Delivery, applied cache.Applied) Result {
	switch {
	case applied.Foreign:
		g.logger.Warn("webhook of another organization dropped: check organization_id and the endpoint's secret",
			zap.String("webhook_id", d.ID))
		return ResultForeign
	case applied.New > 0:
		return ResultApplied
	}
	return ResultKnown
}

func (g *Gateway) undecodable(d polar.Delivery, receipt Receipt, err error) Receipt {
	g.logger.Error("webhook cannot be decoded: its facts are not in force, and a sync asks Polar for them",
		zap.String("webhook_id", d.ID), zap.String("type", receipt.Type), zap.Error(err))
	receipt.Result = ResultUndecodable
	g.wantSync()
	return receipt
}

// bounded keeps a foreign string fit for a log.
func bounded(s string) string {
	if len(s) > 64 {
		return s[:64]
	}
	return s
}

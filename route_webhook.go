package caddypolar

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-polar/caddy-polar/entitlement"
	"github.com/caddy-polar/caddy-polar/gateway"
	"github.com/caddy-polar/caddy-polar/polar"
)

const (
	// maxWebhook is the largest webhook body. Polar sets no limit.
	maxWebhook = 16 << 20
	// maxInFlight bounds the memory that unverified bodies can take: once for
	// the beginnings of bodies, which is all there is of nearly every webhook,
	// and once for what is longer. So few long bodies cannot keep short ones
	// out.
	maxInFlight = 64 << 20
	beginning   = 64 << 10
	// bodyTime is how long a body may take to arrive. Polar gives up after 10 s.
	bodyTime = 15 * time.Second
)

// serveWebhook takes a webhook: headers, then body, then signature, then all
// the rest. It answers 200 once the facts are durable.
func (g *Gateway) serveWebhook(w http.ResponseWriter, r *http.Request, _ *visit) error {
	delivery, err := g.core.ReadDelivery(r.Header)
	if err != nil {
		return g.refuseWebhook(w, r, err)
	}
	body, release, err := g.readWebhook(w, r)
	defer release()
	if err != nil {
		return g.refuseWebhook(w, r, err)
	}
	receipt, err := g.core.TakeWebhook(r.Context(), delivery, body)
	if err != nil {
		return g.refuseWebhook(w, r, err)
	}
	g.metrics.received(receipt)
	return writeJSON(w, http.StatusOK, "application/json", map[string]bool{"received": true})
}

var (
	errBusy = errors.New("too many bytes of webhooks in flight")
	errBody = errors.New("the body could not be read")
)

// readWebhook reads the body, counting its bytes against what may be in flight
// as they come: a claimed length costs nothing.
func (g *Gateway) readWebhook(w http.ResponseWriter, r *http.Request) (body []byte, release func(), err error) {
	var short, long int64 // bytes counted
	release = func() {
		g.short.Add(-short)
		g.long.Add(-long)
	}
	arrived := hurry(w)
	var buf bytes.Buffer
	chunk := make([]byte, 8<<10)
	limited := http.MaxBytesReader(w, r.Body, maxWebhook)
	for {
		n, err := limited.Read(chunk)
		counter, counted := &g.short, &short
		if buf.Len() >= beginning {
			counter, counted = &g.long, &long
		}
		*counted += int64(n)
		if counter.Add(int64(n)) > maxInFlight {
			return nil, release, errBusy
		}
		buf.Write(chunk[:n])
		var tooLarge *http.MaxBytesError
		switch {
		case errors.Is(err, io.EOF):
			arrived()
			return buf.Bytes(), release, nil
		case errors.As(err, &tooLarge):
			return nil, release, err
		case err != nil:
			return nil, release, errBody
		}
	}
}

// refuseWebhook says why a delivery was not taken. Polar shows the answer to
// the merchant, so it names what to check and nothing that is secret.
func (g *Gateway) refuseWebhook(w http.ResponseWriter, r *http.Request, err error) error {
	var p *problem
	var tooLarge *http.MaxBytesError
	switch {
	case errors.Is(err, gateway.ErrNotConfigured):
		p = newProblem(http.StatusServiceUnavailable, codeNotConfigured).with("The gateway has no webhook_secret.")
	case errors.Is(err, polar.ErrHeaders), errors.Is(err, polar.ErrTimestamp), errors.Is(err, polar.ErrSignature):
		if g.warnedSignature.now(g.core.Now()) {
			g.logger.Warn("webhook refused: check webhook_secret, and the clock", zap.Error(err))
		}
		p = newProblem(http.StatusBadRequest, codeBadSignature).with(err.Error())
	case errors.As(err, &tooLarge):
		p = newProblem(http.StatusRequestEntityTooLarge, codeBodyTooLarge)
	case errors.Is(err, errBusy):
		if g.warnedBusy.now(g.core.Now()) {
			g.logger.Warn("webhook refused: too many bytes of webhooks are being received at once")
		}
		p = newProblem(http.StatusServiceUnavailable, codeBusy)
	case errors.Is(err, errBody):
		p = newProblem(http.StatusBadRequest, codeBadBody)
	default:
		if g.warnedUnstored.now(g.core.Now()) { // or the log would fill the disk that is full
			g.logger.Error("webhook not stored: Polar will send it again", zap.Error(err))
		}
		p = newProblem(http.StatusServiceUnavailable, string(entitlement.ReasonUnavailable)).
			with("The webhook could not be stored. Send it again later.")
	}
	g.metrics.webhook(gateway.UnknownType, p.Code)
	p.cache = noStore
	return p.write(w, r)
}

package caddypolar

import (
	"errors"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/caddy-polar/caddy-polar/entitlement"
	"github.com/caddy-polar/caddy-polar/gateway"
)

// The collectors outlive configurations, so that their values survive reloads.
// Each configuration brings a new registry into which they are put again.
var (
	decisionsTotal = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "caddy_polar_decisions_total",
		Help: "Decisions of polar_require, by reason.",
	}, []string{"gateway", "allowed", "reason"})

	webhooksTotal = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "caddy_polar_webhooks_total",
		Help: "Webhook deliveries, by event type and result.",
	}, []string{"gateway", "type", "result"})

	webhookAgeSeconds = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "caddy_polar_webhook_age_seconds",
		Help:    "Time from a webhook's event to its being in force.",
		Buckets: []float64{.1, .5, 1, 2, 5, 15, 60, 300, 1800, 7200, 86400},
	}, []string{"gateway"})

	tokensTotal = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "caddy_polar_tokens_total",
		Help: "Tokens looked for in requests, by result.",
	}, []string{"result"})
)

func registerMetrics(registry *prometheus.Registry) error {
	if registry == nil {
		return nil
	}
	for _, c := range []prometheus.Collector{decisionsTotal, webhooksTotal, webhookAgeSeconds, tokensTotal} {
		var already prometheus.AlreadyRegisteredError
		if err := registry.Register(c); err != nil && !errors.As(err, &already) {
			return err
		}
	}
	return nil
}

// gatewayMetrics is what one gateway counts.
type gatewayMetrics struct {
	gateway string
	age     prometheus.Observer
	tokens  map[string]prometheus.Counter
}

func newGatewayMetrics(name string) gatewayMetrics {
	m := gatewayMetrics{gateway: name, age: webhookAgeSeconds.WithLabelValues(name), tokens: make(map[string]prometheus.Counter)}
	for _, result := range []string{"valid", codeTokenMissing, codeTokenInvalid, codeTokenExpired} {
		m.tokens[result] = tokensTotal.WithLabelValues(result)
	}
	return m
}

func (m *gatewayMetrics) decided(allowed bool, reason entitlement.Reason) {
	decisionsTotal.WithLabelValues(m.gateway, strconv.FormatBool(allowed), string(reason)).Inc()
}

func (m *gatewayMetrics) webhook(eventType, result string) {
	webhooksTotal.WithLabelValues(m.gateway, eventType, result).Inc()
}

func (m *gatewayMetrics) received(r gateway.Receipt) {
	m.webhook(r.Type, string(r.Result))
	if r.Age > 0 {
		m.age.Observe(float64(r.Age) / float64(time.Second))
	}
}

package caddypolar

import (
	"strconv"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/caddy-polar/caddy-polar/cache"
	"github.com/caddy-polar/caddy-polar/entitlement"
	"github.com/caddy-polar/caddy-polar/gateway"
	"github.com/caddy-polar/caddy-polar/identity/jwks"
	"github.com/caddy-polar/caddy-polar/polar"
)

// The collectors outlive configurations, so that their values survive reloads.
// Each configuration brings a new registry into which they are put again.
var (
	decisionsTotal = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "caddy_polar_decisions_total",
		Help: "Decisions of polar_require, by reason.",
	}, []string{"gateway", "allowed", "reason"})

	decisionSeconds = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "caddy_polar_decision_seconds",
		Help:    "Time that decisions of polar_require wait for what is known of a user, and for Polar. Those that are remembered with the token wait for nothing, and are left out.",
		Buckets: []float64{.000005, .00002, .0001, .0005, .002, .01, .05, .2, 1, 5},
	}, []string{"gateway"})

	webhooksTotal = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "caddy_polar_webhooks_total",
		Help: "Webhook deliveries, by event type and result.",
	}, []string{"gateway", "type", "result"})

	webhookAgeSeconds = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "caddy_polar_webhook_age_seconds",
		Help:    "Time from a webhook's event to its being in force.",
		Buckets: []float64{.1, .5, 1, 2, 5, 15, 60, 300, 1800, 7200, 86400},
	}, []string{"gateway"})

	apiRequestsTotal = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "caddy_polar_api_requests_total",
		Help: "Requests to Polar's API, by endpoint and status (0: no answer).",
	}, []string{"gateway", "endpoint", "status"})

	apiVersionGone = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "caddy_polar_api_version_gone",
		Help: "1 once Polar no longer serves the configured api_version.",
	}, []string{"gateway"})

	syncSeconds = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "caddy_polar_sync_seconds",
		Help:    "Time that a whole sync takes.",
		Buckets: []float64{.1, .5, 1, 5, 15, 60, 300, 1800, 7200},
	}, []string{"gateway"})

	syncLastSuccess = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "caddy_polar_sync_last_success_timestamp_seconds",
		Help: "When the last whole sync ended.",
	}, []string{"gateway"})

	syncFailuresTotal = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "caddy_polar_sync_failures_total",
		Help: "Attempts at a sync that failed.",
	}, []string{"gateway"})

	syncObjects = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "caddy_polar_sync_objects",
		Help: "Objects that the sync under way has read so far, or the last one.",
	}, []string{"gateway"})

	driftTotal = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "caddy_polar_drift_total",
		Help: "What syncs had to mend: objects that were missing, wrong or extra.",
	}, []string{"gateway", "kind"})

	endpointProblem = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "caddy_polar_webhook_endpoint_problem",
		Help: "1 for what is wrong with the webhook endpoint at Polar.",
	}, []string{"gateway", "problem"})

	planWithoutProduct = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "caddy_polar_plan_without_product",
		Help: "1 for a plan of which Polar knows no product, so that nobody can have it.",
	}, []string{"gateway", "plan"})

	streamsEndedTotal = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "caddy_polar_streams_ended_total",
		Help: "Answers that went on and were ended, by reason.",
	}, []string{"gateway", "reason"})

	unconfirmedTotal = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "caddy_polar_unconfirmed_total",
		Help: "Decisions that rest on what Polar has not confirmed.",
	}, []string{"gateway", "allowed"})

	dryRunTotal = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "caddy_polar_dry_run_total",
		Help: "Requests that a gate with dry_run would have refused.",
	}, []string{"gateway", "rule", "reason"})

	tokensTotal = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "caddy_polar_tokens_total",
		Help: "Tokens looked for in requests, by result.",
	}, []string{"result"})

	jwksFetchesTotal = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "caddy_polar_jwks_fetches_total",
		Help: "Fetches of the keys that issuers publish, by result.",
	}, []string{"gateway", "result"})

	notificationsTotal = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "caddy_polar_notifications_total",
		Help: "Messages of notify to the app, by result: delivered, or failed and to be tried again.",
	}, []string{"gateway", "result"})

	storeSeconds = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "caddy_polar_store_seconds",
		Help:    "Time that uses of the store's file take, by operation. A commit is of all changes that waited, with its sync to disk.",
		Buckets: []float64{.00001, .00005, .0002, .001, .005, .02, .1, .5, 2, 10},
	}, []string{"op"})

	storeErrorsTotal = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "caddy_polar_store_errors_total",
		Help: "Uses of the store's file that failed, by operation.",
	}, []string{"op"})
)

// vector is a collector of which series can be removed.
type vector interface {
	prometheus.Collector
	DeletePartialMatch(prometheus.Labels) int
}

// vectors are all of our collectors that outlive configurations.
var vectors = []vector{
	decisionsTotal, decisionSeconds, webhooksTotal, webhookAgeSeconds, apiRequestsTotal, apiVersionGone,
	syncSeconds, syncFailuresTotal, syncObjects, syncLastSuccess, driftTotal, endpointProblem, planWithoutProduct, streamsEndedTotal,
	unconfirmedTotal, dryRunTotal, tokensTotal, jwksFetchesTotal, notificationsTotal, storeSeconds, storeErrorsTotal,
}

func registerMetrics(registry *prometheus.Registry) error {
	if registry == nil {
		return nil
	}
	for _, a := range askedOf(runningApp) {
		if err := registry.Register(a); err != nil {
			return err
		}
	}
	for _, v := range vectors {
		if err := registry.Register(v); err != nil {
			return err
		}
	}
	for _, op := range cache.Ops {
		storeErrorsTotal.WithLabelValues(string(op)) // or the first error would look like none
	}
	return nil
}

// measured are the names of the gateways that some configuration has. The series of
// one that none has any more are removed.
var measured = caddy.NewUsagePool()

type series string

func (name series) Destruct() error {
	for _, v := range vectors {
		v.DeletePartialMatch(prometheus.Labels{"gateway": string(name)})
	}
	return nil
}

// measure makes what the gateway counts with.
func (g *Gateway) measure() error {
	_, _, err := measured.LoadOrNew(g.name, func() (caddy.Destructor, error) { return series(g.name), nil })
	if err != nil {
		return err
	}
	g.isMeasured = true
	g.metrics = newGatewayMetrics(g.name)
	return nil
}

func (g *Gateway) dropMetrics() error {
	if !g.isMeasured {
		return nil
	}
	g.isMeasured = false
	_, err := measured.Delete(g.name)
	return err
}

// asked is a metric that the running app's gateways are asked for at each scrape, as
// Caddy also serves the registry of a configuration that failed to load.
type asked struct {
	app  func() (*App, error)
	desc *prometheus.Desc
	// of tells the values of a gateway, with those of the labels beside its name.
	of func(g *gateway.Gateway, tell func(value float64, labels ...string))
}

func askedOf(app func() (*App, error)) []prometheus.Collector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, append([]string{"gateway"}, labels...), nil)
	}
	return []prometheus.Collector{
		asked{
			app, desc("caddy_polar_accounts", "Users of whom something is held, by Polar's status, or order, pass, none. As of a count that is made while nobody waits for it.", "status"),
			func(g *gateway.Gateway, tell func(float64, ...string)) {
				for status, n := range g.Census() {
					tell(float64(n), status)
				}
			},
		},
		asked{
			app, desc("caddy_polar_store_leads", "Whether this one of the gateways that share a store does what is done once: syncs, and telling the app."),
			func(g *gateway.Gateway, tell func(float64, ...string)) {
				switch shared, leads, _ := g.Sharing(); {
				case shared && leads:
					tell(1)
				case shared:
					tell(0)
				}
			},
		},
		asked{
			app, desc("caddy_polar_store_behind_seconds", "For how long what others write to a shared store could not be heard. What was known then goes on to count."),
			func(g *gateway.Gateway, tell func(float64, ...string)) {
				if shared, _, behind := g.Sharing(); shared {
					tell(behind.Seconds())
				}
			},
		},
	}
}

// Describe implements prometheus.Collector.
func (a asked) Describe(to chan<- *prometheus.Desc) { to <- a.desc }

// Collect implements prometheus.Collector.
func (a asked) Collect(to chan<- prometheus.Metric) {
	app, err := a.app()
	if err != nil {
		return // Caddy is starting, or runs without us
	}
	for name, g := range app.Gateways {
		a.of(g.core, func(value float64, labels ...string) {
			to <- prometheus.MustNewConstMetric(a.desc, prometheus.GaugeValue, value, append([]string{name}, labels...)...)
		})
	}
}

// storeUsed is told of each use of a store's file.
func storeUsed(op cache.Op, took time.Duration, err error) {
	storeSeconds.WithLabelValues(string(op)).Observe(took.Seconds())
	if err != nil {
		storeErrorsTotal.WithLabelValues(string(op)).Inc()
	}
}

// tokenValid is the result of a token that named a user.
const tokenValid = "valid"

// gatewayMetrics is what one gateway counts. Requests find their counters in
// maps that are never written to again.
type gatewayMetrics struct {
	gateway string
	age     prometheus.Observer
	waited  prometheus.Observer           // of decisions
	valid   prometheus.Counter            // tokens that named a user
	tokens  map[string]prometheus.Counter // that did not, by why
	allowed map[entitlement.Reason]prometheus.Counter
	refused map[entitlement.Reason]prometheus.Counter
	// unconfirmed answers, by whether they let somebody in.
	unconfirmed map[bool]prometheus.Counter
}

func newGatewayMetrics(name string) gatewayMetrics {
	m := gatewayMetrics{
		gateway: name,
		age:     webhookAgeSeconds.WithLabelValues(name),
		waited:  decisionSeconds.WithLabelValues(name),
		tokens:  make(map[string]prometheus.Counter),
		allowed: make(map[entitlement.Reason]prometheus.Counter),
		refused: make(map[entitlement.Reason]prometheus.Counter),
	}
	m.unconfirmed = map[bool]prometheus.Counter{
		true:  unconfirmedTotal.WithLabelValues(name, "true"),
		false: unconfirmedTotal.WithLabelValues(name, "false"),
	}
	apiVersionGone.WithLabelValues(name).Set(0)
	syncFailuresTotal.WithLabelValues(name) // or the first failure would look like none
	m.valid = tokensTotal.WithLabelValues(tokenValid)
	for _, code := range []string{codeTokenMissing, codeTokenInvalid, codeTokenExpired, string(entitlement.ReasonUnavailable)} {
		m.tokens[code] = tokensTotal.WithLabelValues(code)
		m.refused[entitlement.Reason(code)] = decisionsTotal.WithLabelValues(name, "false", code)
	}
	for _, reason := range entitlement.RefusedReasons {
		m.refused[reason] = decisionsTotal.WithLabelValues(name, "false", string(reason))
	}
	// With on_unavailable allow, two reasons of refusals let people in.
	for _, reason := range append([]entitlement.Reason{entitlement.ReasonUnavailable, entitlement.ReasonUnknownStatus},
		entitlement.AllowedReasons...) {
		m.allowed[reason] = decisionsTotal.WithLabelValues(name, "true", string(reason))
	}
	return m
}

func (m *gatewayMetrics) decided(allowed bool, reason entitlement.Reason) {
	if allowed {
		m.allowed[reason].Inc()
	} else {
		m.refused[reason].Inc()
	}
}

func (m *gatewayMetrics) webhook(eventType, result string) {
	webhooksTotal.WithLabelValues(m.gateway, eventType, result).Inc()
}

func (m *gatewayMetrics) received(r gateway.Receipt) {
	m.webhook(r.Type, string(r.Result))
	if r.Age > 0 {
		m.age.Observe(r.Age.Seconds())
	}
}

// called counts a call of Polar's API. The endpoint is a template without ids.
func (m *gatewayMetrics) called(c polar.Call) {
	apiRequestsTotal.WithLabelValues(m.gateway, c.Method+" "+c.Path, strconv.Itoa(c.Status)).Inc()
}

func (m *gatewayMetrics) versionGone() {
	apiVersionGone.WithLabelValues(m.gateway).Set(1)
}

// fetchedKeys counts a fetch of the keys of an issuer.
func (m *gatewayMetrics) fetchedKeys(r jwks.Result) {
	jwksFetchesTotal.WithLabelValues(m.gateway, string(r)).Inc()
}

// notified counts messages to the app.
func (m *gatewayMetrics) notified(arrived bool) {
	result := "failed"
	if arrived {
		result = "delivered"
	}
	notificationsTotal.WithLabelValues(m.gateway, result).Inc()
}

// syncing tells how far a sync has got.
func (m *gatewayMetrics) syncing(objects int) {
	syncObjects.WithLabelValues(m.gateway).Set(float64(objects))
}

func (m *gatewayMetrics) syncFailed() { syncFailuresTotal.WithLabelValues(m.gateway).Inc() }

// syncedLast tells when the last whole sync was, of whichever process; before the first
// one, since when there should have been one.
func (m *gatewayMetrics) syncedLast(at time.Time) {
	syncLastSuccess.WithLabelValues(m.gateway).Set(float64(at.Unix()))
}

// synced counts a whole sync and what it had to mend.
func (m *gatewayMetrics) synced(r gateway.SyncReport) {
	syncSeconds.WithLabelValues(m.gateway).Observe(r.Took.Seconds())
	syncLastSuccess.WithLabelValues(m.gateway).Set(float64(r.Ended.Unix()))
	m.drifted(r)
}

func (m *gatewayMetrics) drifted(r gateway.SyncReport) {
	for kind, n := range map[string]int{"missing": r.Missing, "wrong": r.Wrong, "extra": r.Extra} {
		driftTotal.WithLabelValues(m.gateway, kind).Add(float64(n))
	}
}

// plansWithoutProduct tells which plans nobody can have.
func (m *gatewayMetrics) plansWithoutProduct(dead []string) {
	planWithoutProduct.DeletePartialMatch(prometheus.Labels{"gateway": m.gateway})
	for _, plan := range dead {
		planWithoutProduct.WithLabelValues(m.gateway, plan).Set(1)
	}
}

// endpoint tells what is wrong with the webhook endpoint, if anything is.
func (m *gatewayMetrics) endpoint(h gateway.EndpointHealth) {
	for _, problem := range gateway.EndpointProblems {
		value := 0.0
		if h.Problem == problem {
			value = 1
		}
		endpointProblem.WithLabelValues(m.gateway, string(problem)).Set(value)
	}
}

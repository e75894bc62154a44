package caddypolar

import (
	"fmt"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/caddy-polar/caddy-polar/cache"
)

// descRE reads what a description says of itself, as it has no methods for it.
var descRE = regexp.MustCompile(`fqName: "([a-z_]+)".*variableLabels: \{([a-z_,]*)\}`)

// ourMetrics are the labels of each of our metrics, by name.
func ourMetrics(t *testing.T) map[string][]string {
	t.Helper()
	all := make(map[string][]string)
	descs := make(chan *prometheus.Desc, 1)
	for _, c := range append(askedOf(nil), collectors()...) {
		c.Describe(descs)
		m := descRE.FindStringSubmatch((<-descs).String())
		if m == nil {
			t.Fatal("a description cannot be read")
		}
		all[m[1]] = strings.FieldsFunc(m[2], func(r rune) bool { return r == ',' })
	}
	return all
}

func collectors() (all []prometheus.Collector) {
	for _, v := range vectors {
		all = append(all, v)
	}
	return all
}

// TestMetricsLint: names, types and helps are as Prometheus wants them, and each
// metric is documented with its labels.
func TestMetricsLint(t *testing.T) {
	app, _ := provisioned(t, "plan pro "+testProduct)
	take(t, app.Gateways[defaultGateway], activeNow(t))
	const nowhere = "lint"
	defer func() { _ = series(nowhere).Destruct() }()
	for i, c := range collectors() {
		labels := slices.Repeat([]string{nowhere}, len(ourMetrics(t)[nameOf(t, c)]))
		var err error
		switch v := vectors[i].(type) {
		case *prometheus.CounterVec:
			_, err = v.GetMetricWithLabelValues(labels...)
		case *prometheus.GaugeVec:
			_, err = v.GetMetricWithLabelValues(labels...)
		case *prometheus.HistogramVec:
			_, err = v.GetMetricWithLabelValues(labels...)
		}
		if err != nil {
			t.Error(err)
		}
	}
	text := scrape(t, append(collectors(), askedOf(func() (*App, error) { return app, nil })...)...)
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	if err != nil || len(problems) > 0 {
		t.Error(err, problems)
	}
	if n := strings.Count(text, "# TYPE "); n != len(vectors)+1 {
		t.Errorf("%d metrics of %d were looked at", n, len(vectors)+1)
	}
	page, err := os.ReadFile("docs/reference.md")
	if err != nil {
		t.Fatal(err)
	}
	for name, labels := range ourMetrics(t) {
		line := regexp.MustCompile("(?m)^\\| (`[a-z_]+`, )*`" + name + "`.*$").FindString(string(page))
		if line == "" {
			t.Errorf("docs/reference.md does not tell of %s", name)
		}
		for _, label := range labels {
			if !strings.Contains(line, "`"+label+"`") {
				t.Errorf("docs/reference.md does not tell of label %s of %s: %s", label, name, line)
			}
		}
	}
}

func nameOf(t *testing.T, c prometheus.Collector) string {
	t.Helper()
	descs := make(chan *prometheus.Desc, 1)
	c.Describe(descs)
	return descRE.FindStringSubmatch((<-descs).String())[1]
}

// TestSeriesOfAGatewayThatIsGone: counts survive as long as some configuration has
// the gateway, and no longer.
func TestSeriesOfAGatewayThatIsGone(t *testing.T) {
	before, after := &Gateway{name: "moving"}, &Gateway{name: "moving"}
	const decisions = `caddy_polar_decisions_total{allowed="true",gateway="moving",reason="active"}`
	for _, g := range []*Gateway{before, after} {
		if err := g.measure(); err != nil {
			t.Fatal(err)
		}
		g.metrics.decided(true, "active")
	}
	for range 2 { // twice does nothing more
		if err := before.dropMetrics(); err != nil {
			t.Fatal(err)
		}
	}
	if n := sample(t, decisionsTotal, decisions); n != 2 {
		t.Errorf("after a reload there were %v decisions", n)
	}
	if err := after.dropMetrics(); err != nil {
		t.Fatal(err)
	}
	if text := scrape(t, collectors()...); strings.Contains(text, `"moving"`) {
		t.Errorf("something is still there: %s", text)
	}
}

// scrape is what Prometheus gets of collectors.
func scrape(t *testing.T, from ...prometheus.Collector) string {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(from...)
	w := newRecorder()
	promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP(w, mustRequest(t, "http://localhost/metrics"))
	if w.Code != http.StatusOK {
		t.Fatal(w.Code, w.Body)
	}
	return w.Body.String()
}

// sample is the value of one series of a collector, zero if there is none.
func sample(t *testing.T, from prometheus.Collector, series string) (value float64) {
	t.Helper()
	for line := range strings.Lines(scrape(t, from)) {
		if text, ok := strings.CutPrefix(line, series+" "); ok {
			if _, err := fmt.Sscan(text, &value); err != nil {
				t.Fatal(err)
			}
		}
	}
	return value
}

// TestDecisionsThatWait: only what is not remembered with the token is timed.
func TestDecisionsThatWait(t *testing.T) {
	app, ctx := provisioned(t, "plan pro "+testProduct)
	g := app.Gateways[defaultGateway]
	take(t, g, activeNow(t))
	gate := &Gate{Plans: []string{"pro"}}
	if err := gate.Provision(ctx); err != nil {
		t.Fatal(err)
	}
	visit := func(user string) {
		t.Helper()
		w := newRecorder()
		r := prepared(mustRequest(t, "http://localhost/"), w)
		r.Header.Set("Authorization", "Bearer "+token(t, user, map[string]any{"jti": t.Name()}))
		if err := gate.ServeHTTP(w, r, handlerFunc(noop)); err != nil {
			t.Fatal(err)
		}
	}
	timed := func() float64 {
		return sample(t, decisionSeconds, `caddy_polar_decision_seconds_count{gateway="default"}`)
	}
	before := timed()
	for i, want := range []float64{1, 1, 1} { // the first is not remembered
		if visit(testUser); timed()-before != want {
			t.Errorf("visit %d: %v decisions were timed", i, timed()-before)
		}
	}
	if visit("stranger"); timed()-before != 2 {
		t.Errorf("a stranger's was not timed: %v", timed()-before)
	}
}

func TestAccountsAreCounted(t *testing.T) {
	app, _ := provisioned(t, "plan pro "+testProduct)
	take(t, app.Gateways[defaultGateway], activeNow(t))
	text := scrape(t, askedOf(func() (*App, error) { return app, nil })...)
	for _, want := range []string{`{gateway="default",status="active"} 1`, `{gateway="default",status="order"} 0`} {
		if !strings.Contains(text, "caddy_polar_accounts"+want) {
			t.Errorf("there is no %s: %s", want, text)
		}
	}
}

func TestStoreIsMeasured(t *testing.T) {
	const commits = `caddy_polar_store_seconds_count{op="commit"}`
	before := sample(t, storeSeconds, commits)
	app, _ := provisioned(t, "plan pro "+testProduct)
	take(t, app.Gateways[defaultGateway], activeNow(t))
	if n := sample(t, storeSeconds, commits) - before; n == 0 {
		t.Error("no commit was timed")
	}
	const errors = `caddy_polar_store_errors_total{op="read"}`
	failed := sample(t, storeErrorsTotal, errors)
	storeUsed(cache.OpRead, 0, nil)
	storeUsed(cache.OpRead, 0, cache.ErrCorrupt)
	if n := sample(t, storeErrorsTotal, errors) - failed; n != 1 {
		t.Errorf("%v errors", n)
	}
}

// TestMissingSyncIsSeen: also where no sync ever succeeds, an alert has a moment to
// reckon from.
func TestMissingSyncIsSeen(t *testing.T) {
	before := time.Now()
	app, _ := provisioned(t, "access_token obviously_fake\nserver http://127.0.0.1:1\nplan pro "+testProduct)
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(syncLastSuccess)
	families, err := registry.Gather()
	if err != nil || len(families) != 1 {
		t.Fatal(families, err)
	}
	if at := families[0].GetMetric()[0].GetGauge().GetValue(); at < float64(before.Add(-time.Minute).Unix()) || at > float64(time.Now().Add(time.Minute).Unix()) {
		t.Errorf("it is %v", at)
	}
	if last := app.Gateways["default"].core.LastSync(); !last.IsZero() {
		t.Error(last)
	}
}

package caddypolar

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-polar/caddy-polar/cache"
	"github.com/caddy-polar/caddy-polar/entitlement"
	"github.com/caddy-polar/caddy-polar/gateway"
)

var (
	// selectorRE is one of our metrics with what stands in its braces.
	selectorRE = regexp.MustCompile(`\b(caddy_polar_[a-z_]+)(?:\{([^}]*)\})?`)
	matcherRE  = regexp.MustCompile(`([a-z_]+)\s*(=~|!=|!~|=)\s*"([^"]*)"`)
	groupingRE = regexp.MustCompile(`\bby \(([a-z_, ]*)\)`)
	seriesRE   = regexp.MustCompile(`_(bucket|sum|count)$`)
)

// knownValues are all values of labels that have few.
func knownValues() map[string][]string {
	known := map[string][]string{
		"allowed": {"true", "false"},
		"problem": texts(gateway.EndpointProblems),
		"op":      texts(cache.Ops),
		"kind":    {"missing", "wrong", "extra"},
		"reason":  append(texts(entitlement.RefusedReasons), texts(entitlement.AllowedReasons)...),
	}
	known["reason"] = append(known["reason"], string(entitlement.ReasonUnavailable), codeTokenMissing, codeTokenInvalid, codeTokenExpired)
	return known
}

func texts[T ~string](values []T) (all []string) {
	for _, v := range values {
		all = append(all, string(v))
	}
	return all
}

// checkExpression says what is wrong with an expression, if something is: a metric,
// label or value that we do not have, or brackets that do not match.
func checkExpression(expr string, metrics map[string][]string) error {
	if err := checkBrackets(expr); err != nil {
		return err
	}
	known := knownValues()
	labels := []string{"le", "job", "instance"}
	found := selectorRE.FindAllStringSubmatch(expr, -1)
	if len(found) == 0 {
		return fmt.Errorf("it is of none of our metrics")
	}
	for _, m := range found {
		own, ok := metrics[m[1]]
		if !ok {
			own, ok = metrics[seriesRE.ReplaceAllString(m[1], "")]
		}
		if !ok {
			return fmt.Errorf("there is no metric %s", m[1])
		}
		labels = append(labels, own...)
		for _, label := range matcherRE.FindAllStringSubmatch(m[2], -1) {
			if !slices.Contains(own, label[1]) {
				return fmt.Errorf("%s has no label %s", m[1], label[1])
			}
			values, bounded := known[label[1]]
			for value := range strings.SplitSeq(label[3], "|") {
				if bounded && !slices.Contains(values, value) {
					return fmt.Errorf("%s is never %q", label[1], value)
				}
			}
		}
	}
	for _, m := range groupingRE.FindAllStringSubmatch(expr, -1) {
		for label := range strings.SplitSeq(m[1], ",") {
			if label = strings.TrimSpace(label); !slices.Contains(labels, label) {
				return fmt.Errorf("there is no label %s", label)
			}
		}
	}
	return nil
}

func checkBrackets(expr string) error {
	var open []rune
	quoted := false
	for _, c := range expr {
		switch {
		case c == '"':
			quoted = !quoted
		case quoted:
		case strings.ContainsRune("([{", c):
			open = append(open, c)
		case strings.ContainsRune(")]}", c):
			if len(open) == 0 || !strings.Contains("() [] {}", string(open[len(open)-1])+string(c)) {
				return fmt.Errorf("%c closes nothing", c)
			}
			open = open[:len(open)-1]
		}
	}
	if quoted || len(open) > 0 {
		return fmt.Errorf("something is left open")
	}
	return nil
}

func TestCheckExpression(t *testing.T) {
	metrics := ourMetrics(t)
	for expr, ok := range map[string]bool{
		`sum by (gateway, le) (rate(caddy_polar_webhook_age_seconds_bucket[5m]))`: true,
		`caddy_polar_decisions_total{reason="unavailable"} > 0`:                   true,
		`caddy_polar_webhook_endpoint_problem{problem=~"disabled|missing"}`:       true,
		`caddy_polar_webhook_endpoint_problem{problem=~"disabled|gone"}`:          false,
		`caddy_polar_decisions_total{reasons="unavailable"}`:                      false,
		`sum by (user) (caddy_polar_decisions_total)`:                             false,
		`caddy_polar_decision_total`:                                              false,
		`up == 0`:                                                                 false,
		`sum(rate(caddy_polar_decisions_total[5m])`:                               false,
		`sum(rate(caddy_polar_decisions_total[5m)])`:                              false,
		`caddy_polar_decisions_total{reason="active}`:                             false,
	} {
		if err := checkExpression(expr, metrics); (err == nil) != ok {
			t.Errorf("%s: %v", expr, err)
		}
	}
}

// TestDashboard: docs/grafana.json asks for what there is, and shows all of it.
func TestDashboard(t *testing.T) {
	raw, err := os.ReadFile("docs/grafana.json")
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			ID      int
			Type    string
			Title   string
			GridPos struct{ X, Y, W, H int }
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(raw, &dashboard); err != nil {
		t.Fatal(err)
	}
	metrics := ourMetrics(t)
	unseen := maps.Clone(metrics)
	ids := make(map[int]bool)
	for _, p := range dashboard.Panels {
		if ids[p.ID] || p.Title == "" || p.GridPos.X+p.GridPos.W > 24 || (len(p.Targets) == 0) != (p.Type == "row") {
			t.Errorf("panel %d, %s, has the id of another, no title, no room or nothing to show", p.ID, p.Title)
		}
		ids[p.ID] = true
		for _, target := range p.Targets {
			if err := checkExpression(target.Expr, metrics); err != nil {
				t.Errorf("%s: %v: %s", p.Title, err, target.Expr)
			}
			for _, m := range selectorRE.FindAllStringSubmatch(target.Expr, -1) {
				delete(unseen, m[1])
				delete(unseen, seriesRE.ReplaceAllString(m[1], ""))
			}
		}
	}
	if len(unseen) > 0 {
		t.Errorf("no panel shows %v", sortedKeys(unseen))
	}
}

// TestAlerts: the rules of docs/alerts.yaml ask for what there is, and say what to do.
func TestAlerts(t *testing.T) {
	raw, err := os.ReadFile("docs/alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	metrics := ourMetrics(t)
	alerts := strings.Split(string(raw), "- alert: ")[1:]
	names := make(map[string]bool)
	line := func(alert, key string) string {
		_, rest, _ := strings.Cut(alert, "\n"+key+": ")
		text, _, _ := strings.Cut(rest, "\n")
		return text
	}
	for _, alert := range alerts {
		name, _, _ := strings.Cut(alert, "\n")
		alert = regexp.MustCompile(`(?m)^ +`).ReplaceAllString(alert, "")
		expr := line(alert, "expr")
		if err := checkExpression(expr, metrics); err != nil {
			t.Errorf("%s: %v: %s", name, err, expr)
		}
		if names[name] || !strings.HasPrefix(name, "Polar") {
			t.Errorf("%s is the name of two, or not ours", name)
		}
		names[name] = true
		if !regexp.MustCompile(`^\{severity: (critical|warning)\}$`).MatchString(line(alert, "labels")) {
			t.Errorf("%s is of no severity", name)
		}
		if line(alert, "summary") == "" || len(line(alert, "description")) < 80 {
			t.Errorf("%s does not say what to do", name)
		}
		for _, m := range regexp.MustCompile(`\$labels\.([a-z]+)`).FindAllStringSubmatch(alert, -1) {
			if !regexp.MustCompile(`\bby \([a-z, ]*\b` + m[1] + `\b`).MatchString(expr) {
				t.Errorf("%s tells label %s, which its expression does not keep", name, m[1])
			}
		}
	}
	if len(alerts) < 10 {
		t.Errorf("%d alerts were read", len(alerts))
	}
}

package gateway

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/caddy-polar/caddy-polar/polar"
)

// What Polar calls the numbers of Revenue. Those of money are in hundredths of a
// currency that Polar does not name; ChurnRate is a fraction of 1.
const (
	MetricRevenue   = "revenue"
	MetricOrders    = "orders"
	MetricMRR       = "monthly_recurring_revenue"
	MetricActive    = "active_subscriptions"
	MetricNew       = "new_subscriptions"
	MetricChurned   = "churned_subscriptions"
	MetricChurnRate = "churn_rate"
)

var revenueMetrics = []string{
	MetricRevenue, MetricOrders, MetricMRR, MetricActive, MetricNew, MetricChurned, MetricChurnRate,
}

// RevenueSpan is a span of time in periods.
type RevenueSpan struct {
	From, To time.Time // days, both included; zero: chosen by the interval
	Interval string    // day, week, month or year; empty: month
}

// Revenue is what the organization earns, by period.
type Revenue struct {
	RevenueSpan
	Periods []polar.MetricPeriod
	// Totals are the sums of what flows, and the last of what stands.
	Totals polar.Numbers
}

// revenueInterval is one kind of period.
type revenueInterval struct {
	name string
	// most is how many days Polar lets lie between the first and the last.
	most int
	// first is the first day of so many periods as one looks at together.
	first func(last time.Time) time.Time
}

// Polar tells its limits at /v1/metrics/limits; which are these.
var revenueIntervals = []revenueInterval{
	{"day", 366, func(t time.Time) time.Time { return t.AddDate(0, 0, -29) }},
	{"week", 7 * 53, func(t time.Time) time.Time { return t.AddDate(0, 0, -7*11) }},
	{"month", 4 * 365, func(t time.Time) time.Time { return t.AddDate(0, -11, 1-t.Day()) }},
	{"year", 10 * 365, func(t time.Time) time.Time { return time.Date(t.Year()-4, 1, 1, 0, 0, 0, 0, time.UTC) }},
}

// complete fills in what was not said, and checks the rest.
func (s *RevenueSpan) complete(now time.Time) error {
	if s.Interval == "" {
		s.Interval = "month"
	}
	i := slices.IndexFunc(revenueIntervals, func(i revenueInterval) bool { return i.name == s.Interval })
	if i < 0 {
		return badInput("interval: %q is none of day, week, month and year", s.Interval)
	}
	interval := &revenueIntervals[i]
	if s.To.IsZero() {
		s.To = now.UTC().Truncate(24 * time.Hour)
	}
	if s.From.IsZero() {
		s.From = interval.first(s.To)
	}
	days := int(s.To.Sub(s.From).Hours() / 24)
	switch {
	case days < 0:
		return badInput("from: %s is after %s, where it ends: give an earlier from, or a later to",
			s.From.Format(time.DateOnly), s.To.Format(time.DateOnly))
	case days > interval.most:
		return badInput("from: Polar tells at most %d days by %s, and these are %d: give a later from, or a longer interval",
			interval.most, interval.name, days)
	}
	return nil
}

// Revenue asks Polar what the organization earns.
func (g *Gateway) Revenue(ctx context.Context, span RevenueSpan) (Revenue, error) {
	if err := span.complete(g.Now()); err != nil {
		return Revenue{}, err
	}
	client, err := g.ask()
	if err != nil {
		return Revenue{}, err
	}
	a, err := client.GetMetrics(ctx, polar.MetricsQuery{
		Start: span.From, End: span.To, Interval: span.Interval, Metrics: revenueMetrics,
	})
	switch {
	case errors.Is(err, polar.ErrScope):
		return Revenue{}, fmt.Errorf("the access token lacks the scope metrics:read: %w", err)
	case errors.Is(err, polar.ErrInvalid) && complaint(err, "query") != "":
		return Revenue{}, badInput("Polar does not tell that: %s", complaint(err, "query"))
	case err != nil:
		return Revenue{}, err
	}
	return Revenue{span, a.Item.Periods, a.Item.Totals}, nil
}

package caddypolar

import (
	"context"
	"encoding/json"
	"time"

	"github.com/caddy-polar/caddy-polar/gateway"
	"github.com/caddy-polar/caddy-polar/polar"
)

// adminRevenueTime bounds asking Polar for its numbers, which it has to add up.
const adminRevenueTime = 30 * time.Second

type revenueView struct {
	From     string              `json:"from"`
	To       string              `json:"to"`
	Interval string              `json:"interval"`
	Periods  []revenuePeriodView `json:"periods"`
	Totals   revenueNumbers      `json:"totals"`
}

type revenuePeriodView struct {
	Start string `json:"start"`
	revenueNumbers
}

// revenueNumbers are null where Polar tells none. Money is in hundredths of a
// currency that Polar does not name.
type revenueNumbers struct {
	Revenue   *json.Number `json:"revenue"`
	Orders    *json.Number `json:"orders"`
	MRR       *json.Number `json:"monthlyRecurringRevenue"`
	Active    *json.Number `json:"activeSubscriptions"`
	New       *json.Number `json:"newSubscriptions"`
	Churned   *json.Number `json:"churnedSubscriptions"`
	ChurnRate *json.Number `json:"churnRate"` // of 1
}

func viewNumbers(n polar.Numbers) revenueNumbers {
	number := func(name string) *json.Number {
		if v, ok := n[name]; ok {
			return &v
		}
		return nil
	}
	return revenueNumbers{
		number(gateway.MetricRevenue), number(gateway.MetricOrders), number(gateway.MetricMRR), number(gateway.MetricActive),
		number(gateway.MetricNew), number(gateway.MetricChurned), number(gateway.MetricChurnRate),
	}
}

func viewRevenue(r *gateway.Revenue) revenueView {
	v := revenueView{
		r.From.Format(time.DateOnly), r.To.Format(time.DateOnly), r.Interval, []revenuePeriodView{}, viewNumbers(r.Totals),
	}
	for _, p := range r.Periods {
		v.Periods = append(v.Periods, revenuePeriodView{p.Timestamp.UTC().Format(time.DateOnly), viewNumbers(p.Values)})
	}
	return v
}

func adminRevenue(c *adminCall) (any, error) {
	span := gateway.RevenueSpan{Interval: c.query.Get("interval")}
	for name, into := range map[string]*time.Time{"from": &span.From, "to": &span.To} {
		text := c.query.Get(name)
		if text == "" {
			continue
		}
		var err error
		if *into, err = time.Parse(time.DateOnly, text); err != nil || into.Year() < 2000 {
			return nil, badInput("%s: %q is not a day like 2026-01-31", name, text)
		}
	}
	ctx, cancel := context.WithTimeout(c.Context(), adminRevenueTime)
	defer cancel()
	r, err := c.gateway.Revenue(ctx, span)
	if err != nil {
		return nil, err
	}
	return viewRevenue(&r), nil
}

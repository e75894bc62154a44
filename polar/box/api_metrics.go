package box

import (
	"slices"
	"time"
)

// metricTypes are the metrics that the box knows: fewer than Polar does.
var metricTypes = map[string]string{
	"orders": "scalar", "revenue": "currency", "cumulative_revenue": "currency", "active_subscriptions": "scalar",
	"monthly_recurring_revenue": "currency", "new_subscriptions": "scalar", "canceled_subscriptions": "scalar",
	"checkouts": "scalar", "succeeded_checkouts": "scalar", "churned_subscriptions": "scalar", "churn_rate": "percentage",
}

// maxDays is how many days can lie between the first and the last.
var maxDays = map[string]int{"hour": 7, "day": 366, "week": 7 * 53, "month": 4 * 365, "year": 10 * 365}

func getMetrics(c *call) (int, any, error) {
	q := c.r.URL.Query()
	unit := q.Get("interval")
	if maxDays[unit] == 0 {
		return 0, nil, requestError("enum", "Input should be 'year', 'month', 'week', 'day' or 'hour'", unit, "query", "interval")
	}
	var bounds [2]time.Time
	for i, name := range []string{"start_date", "end_date"} {
		at, err := time.Parse(time.DateOnly, q.Get(name))
		if err != nil {
			return 0, nil, requestError("date_from_datetime_parsing", "Input should be a valid date", q.Get(name), "query", name)
		}
		bounds[i] = at
	}
	if days := int(bounds[1].Sub(bounds[0]).Hours() / 24); days < 0 || days > maxDays[unit] {
		return 0, nil, requestError("value_error", "The interval is too big, or ends before it begins.", q.Get("end_date"), "query")
	}
	bounds[1] = bounds[1].AddDate(0, 0, 1)
	wanted := q["metrics"]
	return c.read(func(b *Box) (any, error) {
		periods, totals, names := []any{}, obj{}, obj{}
		for name, kind := range metricTypes {
			if len(wanted) == 0 || slices.Contains(wanted, name) {
				totals[name], names[name] = 0.0, obj{"slug": name, "display_name": name, "type": kind}
			}
		}
		for from := startOf(bounds[0], unit); from.Before(bounds[1]); {
			next := from.Add(time.Hour)
			if unit != "hour" {
				next = interval(from, unit, 1)
			}
			period := obj{"timestamp": stamp(from)}
			for name, v := range b.measure(c.at, later(from, bounds[0]), next, q["product_id"], q["customer_id"]) {
				if _, ok := totals[name]; !ok {
					continue
				}
				period[name] = v
				switch name {
				case "active_subscriptions", "monthly_recurring_revenue", "cumulative_revenue", "churn_rate":
					totals[name] = v // not a flow: the last one counts
				default:
					totals[name] = totals[name].(float64) + v
				}
			}
			periods = append(periods, period)
			from = next
		}
		return obj{"periods": periods, "totals": totals, "metrics": names}, nil
	})
}

func startOf(t time.Time, unit string) time.Time {
	switch unit {
	case "year":
		return time.Date(t.Year(), 1, 1, 0, 0, 0, 0, time.UTC)
	case "month":
		return time.Date(t.Year(), t.Month(), 1, 0, 0, 0, 0, time.UTC)
	case "week":
		return t.AddDate(0, 0, -(int(t.Weekday())+6)%7)
	}
	return t
}

func (b *Box) measure(seen, from, to time.Time, products, customers []string) map[string]float64 {
	out := map[string]float64{}
	in := func(t *time.Time) bool { return t != nil && !t.Before(from) && t.Before(to) }
	skip := func(product, customer string) bool {
		return len(products) > 0 && !slices.Contains(products, product) || len(customers) > 0 && !slices.Contains(customers, customer)
	}
	for _, o := range b.orders.allSeen(seen) {
		if !o.paid() || skip(o.ProductID, o.CustomerID) || !o.CreatedAt.Before(to) {
			continue
		}
		out["cumulative_revenue"] += float64(o.Amount)
		if in(&o.CreatedAt) {
			out["orders"]++
			out["revenue"] += float64(o.Amount)
		}
	}
	for _, s := range b.subs.allSeen(seen) {
		if skip(s.ProductID, s.CustomerID) {
			continue
		}
		if in(s.StartedAt) {
			out["new_subscriptions"]++
		}
		if in(s.CanceledAt) {
			out["canceled_subscriptions"]++
		}
		if in(s.EndedAt) {
			out["churned_subscriptions"]++
		}
		if s.StartedAt != nil && s.StartedAt.Before(to) && (s.EndedAt == nil || !s.EndedAt.Before(to)) && s.Status != "paused" {
			out["active_subscriptions"]++
			out["monthly_recurring_revenue"] += float64(monthly(s))
		}
	}
	for _, x := range b.checkouts.allSeen(seen) {
		if skip(x.ProductIDs[0], x.CustomerID) || !in(&x.CreatedAt) {
			continue
		}
		out["checkouts"]++
		if x.Status == "succeeded" {
			out["succeeded_checkouts"]++
		}
	}
	if before := out["active_subscriptions"] - out["new_subscriptions"] + out["churned_subscriptions"]; before > 0 {
		out["churn_rate"] = out["canceled_subscriptions"] / before
	}
	for name := range metricTypes {
		out[name] += 0
	}
	return out
}

func monthly(s *Subscription) int {
	n := max(1, s.IntervalCount)
	switch s.Interval {
	case "year":
		return s.Amount / 12 / n
	case "week":
		return s.Amount * 52 / 12 / n
	case "day":
		return s.Amount * 365 / 12 / n
	}
	return s.Amount / n
}

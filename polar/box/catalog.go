package box

import "time"

// AddBenefit adds a benefit, a feature_flag unless a type is given.
func (b *Box) AddBenefit(x Benefit) Benefit {
	b.mu.Lock()
	defer b.mu.Unlock()
	if x.Type == "" {
		x.Type = "feature_flag"
	}
	if x.Type == "custom" && x.Properties == nil {
		x.Properties = map[string]any{"note": nil}
	}
	b.transact(func(t *tx) {
		insert(t, &b.benefits, &x)
		t.emit("benefit.created", b.benefitJSON(&x))
	})
	return x
}

// AddProduct adds a product. The currency is usd, and the interval counts are
// one, and the id is new, unless given.
func (b *Box) AddProduct(p Product) Product {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p.Interval != "" {
		p.IntervalCount = max(1, p.IntervalCount)
	}
	if p.TrialInterval != "" {
		p.TrialCount = max(1, p.TrialCount)
	}
	if p.Price.Currency == "" {
		p.Price.Currency = "usd"
	}
	if p.Visibility == "" {
		p.Visibility = "public"
	}
	p.Price.Row = b.newRow()
	b.transact(func(t *tx) {
		insert(t, &b.products, &p)
		t.emit("product.created", b.productJSON(&p))
	})
	return p
}

// interval adds Polar's intervals to a time: a month that is too short ends on
// its last day.
func interval(from time.Time, unit string, n int) time.Time {
	switch unit {
	case "day":
		return from.AddDate(0, 0, n)
	case "week":
		return from.AddDate(0, 0, 7*n)
	case "year":
		n *= 12
	}
	first := time.Date(from.Year(), from.Month(), 1, from.Hour(), from.Minute(), from.Second(), from.Nanosecond(), time.UTC).AddDate(0, n, 0)
	last := first.AddDate(0, 1, -1).Day()
	return first.AddDate(0, 0, min(from.Day(), last)-1)
}

// taxOf is the box's only tax: 20 %.
func taxOf(amount int) int { return amount / 5 }

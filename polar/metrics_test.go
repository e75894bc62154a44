package polar_test

import (
	"encoding/json"
	"maps"
	"testing"

	"github.com/caddy-polar/caddy-polar/polar"
)

func TestMetricsAreExact(t *testing.T) {
	const body = `{"timestamp":"2026-11-01T00:00:00Z","revenue":9007199254740993,"orders":3,"net_revenue":14900.0,
		"costs":-0.30,"churn_rate":5e-05,"sub_cent":1.23e2,"nothing":0e9,"tiny":1e-999999999,"ltv":null,
		"huge":1e99,"text":"12","list":[1],"odd":true}`
	var p polar.MetricPeriod
	if err := json.Unmarshal([]byte(body), &p); err != nil {
		t.Fatal(err)
	}
	want := polar.Numbers{
		"revenue": "9007199254740993", // no float64 holds it
		"orders":  "3", "net_revenue": "14900", "costs": "-0.3", "churn_rate": "0.00005", "sub_cent": "123",
		"nothing": "0", "tiny": "0",
	}
	if !maps.Equal(p.Values, want) {
		t.Errorf("%v, want %v", p.Values, want)
	}
	if p.Timestamp.Format("2006-01-02") != "2026-11-01" {
		t.Error(p.Timestamp)
	}
}

func FuzzNumbers(f *testing.F) {
	for _, text := range []string{"0", "-1", "1.5", "1e5", "1e-5", "-0.0", "1e400", "null", `"1"`} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var n polar.Numbers
		if json.Unmarshal([]byte(`{"x":`+text+`}`), &n) != nil {
			return
		}
		for _, number := range n {
			if again := (polar.Numbers{}); json.Unmarshal([]byte(`{"x":`+string(number)+`}`), &again) != nil || again["x"] != number {
				t.Errorf("%q became %q, and that %q", text, number, again["x"])
			}
		}
	})
}

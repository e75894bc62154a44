package polar

import (
	"encoding/json"
	"math"
	"math/big"
	"strconv"
	"strings"
	"time"
)

// MetricsQuery asks for metrics. Interval is year, month, week, day or hour.
type MetricsQuery struct {
	Start, End  time.Time // days
	Interval    string
	Timezone    string
	ProductID   []string
	CustomerID  string
	BillingType string
	Metrics     []string // none: all
}

// Metrics are numbers by period. Money is in hundredths of a currency that Polar
// does not name.
type Metrics struct {
	Periods []MetricPeriod         `json:"periods"`
	Totals  Numbers                `json:"totals"`
	Info    map[string]*MetricInfo `json:"metrics"` // nil for what was not asked
}

func (m *Metrics) whole() bool { return m.Periods != nil }

// MetricInfo says what a metric is.
type MetricInfo struct {
	DisplayName string `json:"display_name"`
	Type        string `json:"type"` // scalar, currency, currency_sub_cent, percentage
}

// MetricPeriod are the numbers of one period.
type MetricPeriod struct {
	Timestamp time.Time
	Values    Numbers
}

// UnmarshalJSON implements json.Unmarshaler.
func (p *MetricPeriod) UnmarshalJSON(b []byte) error {
	var head struct {
		Timestamp time.Time `json:"timestamp"`
	}
	if err := json.Unmarshal(b, &head); err != nil {
		return err
	}
	p.Timestamp = head.Timestamp
	return json.Unmarshal(b, &p.Values)
}

// Numbers are metrics by name, as decimals without an exponent: what is whole is
// written so, and money stays exact. What is no number is left out.
type Numbers map[string]json.Number

// UnmarshalJSON implements json.Unmarshaler.
func (n *Numbers) UnmarshalJSON(b []byte) error {
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(b, &raw); err != nil {
		return err
	}
	*n = make(Numbers, len(raw))
	for name, value := range raw {
		if number, ok := decimal(string(value)); ok {
			(*n)[name] = number
		}
	}
	return nil
}

const (
	// Nothing that Polar counts is as large. What is larger is no number to us.
	maxNumber = 1e18
	// decimals are kept of a fraction.
	decimals = 12
)

// decimal reads a value of JSON. The float only keeps out what is too large to be
// written as a decimal.
func decimal(text string) (json.Number, bool) {
	size, err := strconv.ParseFloat(text, 64)
	if err != nil || math.Abs(size) > maxNumber {
		return "", false
	}
	if math.Abs(size) < math.Pow10(-decimals) {
		return "0", true
	}
	exact, ok := new(big.Rat).SetString(text)
	if !ok {
		return "", false
	}
	out := strings.TrimRight(exact.FloatString(decimals), "0")
	return json.Number(strings.TrimSuffix(out, ".")), true
}

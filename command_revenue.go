package caddypolar

import (
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/url"
	"strings"

	"github.com/spf13/cobra"
)

func revenueCommand() *cobra.Command {
	var o operator
	var from, to, interval string
	cmd := o.flags(&cobra.Command{
		Use:   "revenue [--from <day>] [--to <day>] [--interval day|week|month|year]",
		Short: "Tells what Polar says the organization earns, by period",
		Long: `
Polar is asked, with the gateway's access token, which needs the scope metrics:read.
Days are of UTC. Amounts have two decimals, of a currency that Polar does not name.`,
		Example: `  caddy polar revenue
  caddy polar revenue --interval day
  caddy polar revenue --from 2026-01-01 --to 2026-06-30 --interval week`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			q := url.Values{}
			for name, value := range map[string]string{"from": from, "to": to, "interval": interval} {
				if value != "" {
					q.Set(name, value)
				}
			}
			var v revenueView
			if err := o.ask(cmd.Context(), http.MethodGet, []string{"revenue"}, q, nil, &v); err != nil {
				return err
			}
			return o.tell(cmd, v, v.table)
		},
	})
	f := cmd.Flags()
	f.StringVar(&from, "from", "", "the first `day`, like 2026-01-31 (default: 12 months, 30 days, 12 weeks or 5 years in all)")
	f.StringVar(&to, "to", "", "the last `day` (default today)")
	f.StringVar(&interval, "interval", "", "`length` of a period: day, week, month or year (default month)")
	return cmd
}

// revenueColumns are the numbers of a period as a table tells them.
var revenueColumns = []struct {
	name, head string // name is Polar's
	value      func(*revenueNumbers) *json.Number
	text       func(json.Number) string
}{
	{"Revenue", "REVENUE", func(n *revenueNumbers) *json.Number { return n.Revenue }, cents},
	{"Orders", "ORDERS", func(n *revenueNumbers) *json.Number { return n.Orders }, json.Number.String},
	{"Monthly Recurring Revenue", "MRR", func(n *revenueNumbers) *json.Number { return n.MRR }, cents},
	{"Active Subscriptions", "ACTIVE", func(n *revenueNumbers) *json.Number { return n.Active }, json.Number.String},
	{"New Subscriptions", "NEW", func(n *revenueNumbers) *json.Number { return n.New }, json.Number.String},
	{"Churned Subscriptions", "CHURNED", func(n *revenueNumbers) *json.Number { return n.Churned }, json.Number.String},
	{"Churn Rate", "CHURN RATE", func(n *revenueNumbers) *json.Number { return n.ChurnRate }, percent},
}

func (v *revenueView) table(w io.Writer) {
	row(w, v.From+" – "+v.To, "TOTAL", "BY "+strings.ToUpper(v.Interval))
	heads := []any{"PERIOD"}
	for _, c := range revenueColumns {
		values := make([]*json.Number, len(v.Periods))
		for i := range v.Periods {
			values[i] = c.value(&v.Periods[i].revenueNumbers)
		}
		row(w, c.name, told(c.value(&v.Totals), c.text), bars(values))
		heads = append(heads, c.head)
	}
	fmt.Fprintln(w)
	row(w, heads...)
	for i := range v.Periods {
		cells := []any{v.Periods[i].Start}
		for _, c := range revenueColumns {
			cells = append(cells, told(c.value(&v.Periods[i].revenueNumbers), c.text))
		}
		row(w, cells...)
	}
}

// told is a number in words, empty for one that Polar does not tell.
func told(n *json.Number, text func(json.Number) string) string {
	if n == nil {
		return ""
	}
	return text(*n)
}

// cents is an amount in hundredths, in whole units. It is no float on the way:
// money is exact, and parts of a hundredth are told too.
func cents(n json.Number) string {
	r := scaled(n, big.NewRat(1, 100))
	exact, _ := r.FloatPrec()
	return r.FloatString(max(2, exact))
}

// percent is a fraction of 1 in hundredths.
func percent(n json.Number) string { return scaled(n, big.NewRat(100, 1)).FloatString(1) + " %" }

func scaled(n json.Number, by *big.Rat) *big.Rat {
	r := new(big.Rat)
	if _, ok := r.SetString(n.String()); !ok {
		return new(big.Rat)
	}
	return r.Mul(r, by)
}

const barHeights = "▁▂▃▄▅▆▇█"

// bars draws numbers beside each other, from nothing to the largest. One that
// Polar does not tell is a gap.
func bars(values []*json.Number) string {
	heights := []rune(barHeights)
	sizes := make([]float64, len(values))
	most := 0.0
	for i, n := range values {
		if n != nil {
			sizes[i], _ = n.Float64()
			most = max(most, sizes[i])
		}
	}
	var b strings.Builder
	for i, n := range values {
		switch {
		case n == nil:
			b.WriteByte(' ')
		case sizes[i] <= 0:
			b.WriteRune(heights[0])
		default:
			b.WriteRune(heights[int(sizes[i]/most*float64(len(heights)-1)+0.5)])
		}
	}
	return b.String()
}

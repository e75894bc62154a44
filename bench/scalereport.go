package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// scaleReport is results.json of the stores.
type scaleReport struct {
	report
	Stores []*storeSize
	Base   int // accounts of the store that the others are compared with
	Memory int // accounts held in memory at most
}

func (r *scaleReport) write(dir string) error {
	raw, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	files := map[string]string{"results.json": string(raw) + "\n", "table.md": r.table(), "scale-start.svg": r.startPlot()}
	for _, group := range r.groups() {
		files["scale-"+group+"-ratio.svg"] = r.plotOf(group, "throughput, as a ratio to that of "+count(r.Base), func(s *summary) spread { return s.Ratio })
		files["scale-"+group+"-p99.svg"] = r.plotOf(group, "p99, as a ratio to that of "+count(r.Base), func(s *summary) spread { return s.P99Ratio })
	}
	if err := writeFiles(dir, files); err != nil {
		return err
	}
	fmt.Printf("\n%s\nwritten to %s\n", r.table(), dir)
	return nil
}

// count is a number of accounts for people.
func count(n int) string {
	switch {
	case n%1_000_000 == 0:
		return fmt.Sprintf("%dM", n/1_000_000)
	case n%1000 == 0:
		return fmt.Sprintf("%dk", n/1000)
	}
	return fmt.Sprint(n)
}

// table is table.md of the stores.
func (r *scaleReport) table() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Measured %s: %d rounds of %gs, %d connections, `memory %d`, GOGC=%d, load by %s.\n",
		r.Date.Format(time.DateOnly), r.Rounds, r.Seconds, r.Connections, r.Memory, r.GOGC, r.Client)
	if r.Rounds < enough {
		fmt.Fprintf(&b, "\n**Fewer than %d rounds: this shows that it works, and measures nothing.**\n", enough)
	}
	b.WriteString("\n## Stores\n\n| accounts | file MiB | B each | told in | start ms (min–max) | RssAnon MiB at start | after the load | live heap after it | in memory: live B each | RssAnon B each |\n")
	b.WriteString("|---|---|---|---|---|---|---|---|---|---|\n")
	for _, s := range r.Stores {
		var times []float64
		for _, t := range s.Starts {
			times = append(times, milliseconds(t))
		}
		start := spreadOf(times)
		fmt.Fprintf(&b, "| %s | %s | %d | %s | %.0f (%.0f–%.0f) | %s | %s | %s | %.0f | %.0f |\n", count(s.Accounts), megabytes(s.File), s.File/int64(s.Accounts),
			s.Fill.Round(time.Second), start.Median, start.Min, start.Max, megabytes(s.RSSStart), megabytes(s.RSSLoad), megabytes(s.HeapLoad), s.HeapAccount, s.RSSAccount)
	}
	fmt.Fprintf(&b, "\n*told in*: by signed webhooks, %d at a time, the senders on the same machine. *start*: from the start of the process to the first user let in,\n"+
		"with a warm page cache. *in memory*: of a gateway that holds all of them, what each adds to the live heap after a collection, and to the\n"+
		"process, with the garbage beside it.\n", senders)
	for _, group := range r.groups() {
		fmt.Fprintf(&b, "\n## %s\n\n", group)
		fmt.Fprintf(&b, "| users-accounts | runs | req/s (min–max) | to %s (min–max) | p50 ms | p99 ms | p99 to %s (min–max) | CPU µs | noisy |\n|---|---|---|---|---|---|---|---|---|\n", count(r.Base), count(r.Base))
		names, rows := r.of(group)
		for i, s := range rows {
			if s.Absent != "" {
				fmt.Fprintf(&b, "| %s | | %s | | | | | | |\n", names[i], s.Absent)
				continue
			}
			fmt.Fprintf(&b, "| %s | %d | %.0f (%.0f–%.0f) | %.2f (%.2f–%.2f) | %.2f | %.2f | %.2f (%.2f–%.2f) | %.1f | %s |\n", names[i], s.Runs,
				s.RPS.Median, s.RPS.Min, s.RPS.Max, s.Ratio.Median, s.Ratio.Min, s.Ratio.Max, s.P50, s.P99,
				s.P99Ratio.Median, s.P99Ratio.Min, s.P99Ratio.Max, s.Gateway, unlessZero(float64(s.Noisy), "%.0f"))
		}
	}
	fmt.Fprintf(&b, "\n*known*: the same %d users and tokens at all sizes. *random*: in each run %d tokens that were never seen, of users from the whole store, by our own client.\n"+
		"Ratios are medians of the ratios within a round; CPU is the gateway's, for each request.\n", r.Users, freshTokens)
	b.WriteString(r.Machine.table())
	return b.String()
}

func (r *scaleReport) plotOf(group, what string, of func(*summary) spread) string {
	p := plot{title: group + ": " + what, format: "%.2f", line: 1}
	names, rows := r.report.of(group)
	for i, s := range rows {
		if v := of(s); s.Absent == "" {
			p.bars = append(p.bars, bar{label: names[i], parts: []float64{v.Median}, low: v.Min, high: v.Max, ours: s.Row != s.Base})
		}
	}
	return p.svg()
}

func (r *scaleReport) startPlot() string {
	p := plot{title: "from the start of the process to the first user let in, ms", format: "%.0f"}
	for _, s := range r.Stores {
		p.bars = append(p.bars, bar{label: count(s.Accounts) + " accounts", parts: []float64{milliseconds(s.Start)}, ours: true})
	}
	return p.svg()
}

package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// floodReport is results.json of the floods.
type floodReport struct {
	Date        time.Time
	Machine     machine
	Client      string
	Rounds      int
	Seconds     float64
	Connections int
	Users       int
	Accounts    int // held in memory at most
	GOGC        int
	Share       float64 // of the machine that a flood was to take
	Floods      []*floodSummary
	Samples     []*floodSample
	Costs       []*floodCost
	Memory      []*floodMemory
}

// floodSummary is a kind of flood. Requests a second are the known user's.
type floodSummary struct {
	Kind, What, Answered      string
	Rounds, Noisy             int
	Rate, ControlRate         float64 // the floods', a second
	Cost, ControlCost         float64 // CPU of the gateway for a request of it, µs
	Alone, Expected           spread
	Seen, Control             spread
	SeenOver, ControlOver     spread // seen / expected
	P99, P99Flood, P99Control float64
	Sent                      int // requests with a new token each
	Before, Half, End, Bound  int64
	HeapBefore, HeapEnd       int64
}

const (
	// What the documents promise: of the memory of tokens, of that of whole
	// accounts, and of what is held of the others, which is outside of the heap.
	tokenMemory   = 64 << 20
	accountMemory = 32 << 20
	noteSize      = 200
	leastNotes    = 32 << 20
	// jitter is how far a gateway's memory is from itself at another time: the
	// collector's pace, and the flooder's connections.
	jitter = 24 << 20
)

func (f *floodLab) report(kinds []*floodKind) *floodReport {
	r := &floodReport{
		Date: time.Now().UTC().Truncate(time.Second), Machine: f.machine(), Client: f.client, Rounds: f.o.rounds, Seconds: f.o.seconds,
		Connections: f.o.connections, Users: f.o.users, Accounts: f.o.memory, GOGC: f.o.gogc, Share: f.o.share,
		Samples: f.samples, Costs: f.costs, Memory: f.memory,
	}
	for _, k := range kinds {
		s := summariseFlood(k, f.samples, f.costs)
		s.Sent = f.sent[k.Name]
		s.remembers(k, f.memory, f.o)
		r.Floods = append(r.Floods, s)
	}
	return r
}

// remembers fills in the memory, and its bound: what it had before, and what may
// be remembered, with as much garbage beside it as the collector lets grow.
func (s *floodSummary) remembers(k *floodKind, memory []*floodMemory, o *options) {
	for _, m := range memory {
		switch {
		case m.Kind != k.Name:
		case m.Round < 0:
			s.Before, s.HeapBefore = m.RSS, m.Heap
		case m.Round == o.rounds:
			s.End, s.HeapEnd = m.RSS, m.Heap
		case m.Round == (o.rounds-1)/2:
			s.Half = m.RSS
		}
	}
	s.Bound = s.Before + jitter
	if !k.forged {
		s.Bound += (tokenMemory+accountMemory)*int64(100+o.gogc)/100 + max(leastNotes, int64(o.memory)*noteSize)
	}
}

// summariseFlood compares the runs of a round with one another: what the known
// user got beside the flood with what the flood's CPU leaves.
func summariseFlood(k *floodKind, samples []*floodSample, costs []*floodCost) *floodSummary {
	s := &floodSummary{Kind: k.Name, What: k.What}
	type round struct {
		runs map[string]*floodSample
		cost map[string]float64
	}
	rounds := map[int]*round{}
	of := func(n int) *round {
		if rounds[n] == nil {
			rounds[n] = &round{map[string]*floodSample{}, map[string]float64{}}
		}
		return rounds[n]
	}
	for _, sample := range samples {
		if sample.Kind == k.Name {
			of(sample.Round).runs[sample.Run] = sample
		}
	}
	for _, c := range costs {
		if c.Kind == k.Name {
			of(c.Round).cost[c.Run] = c.Gateway
		}
	}
	var alone, expected, seen, control, over, controlOver, p99, p99Flood, p99Control, rate, controlRate, cost, controlCost []float64
	for _, r := range rounds {
		a, f, c := r.runs["alone"], r.runs["flood"], r.runs["control"]
		if a == nil || f == nil || c == nil {
			continue
		}
		s.Noisy += btoi(a.Noisy || f.Noisy || c.Noisy)
		left, controlLeft := expectedBeside(a, f, r.cost["flood"]), expectedBeside(a, c, r.cost["control"])
		alone, expected, seen, control = append(alone, a.RPS), append(expected, left), append(seen, f.RPS), append(control, c.RPS)
		over, controlOver = append(over, f.RPS/left), append(controlOver, c.RPS/controlLeft)
		p99, p99Flood, p99Control = append(p99, a.P99), append(p99Flood, f.P99), append(p99Control, c.P99)
		rate, controlRate = append(rate, f.Rate), append(controlRate, c.Rate)
		cost, controlCost = append(cost, r.cost["flood"]), append(controlCost, r.cost["control"])
		s.Answered = strings.Split(f.Answered, " ")[0]
	}
	s.Rounds = len(alone)
	s.Alone, s.Expected, s.Seen, s.Control = spreadOf(alone), spreadOf(expected), spreadOf(seen), spreadOf(control)
	s.SeenOver, s.ControlOver = spreadOf(over), spreadOf(controlOver)
	s.P99, s.P99Flood, s.P99Control = median(p99), median(p99Flood), median(p99Control)
	s.Rate, s.ControlRate, s.Cost, s.ControlCost = median(rate), median(controlRate), median(cost), median(controlCost)
	return s
}

// expectedBeside is what the known user gets of the CPU that is in use without
// the flood, less what the flooder and its requests take: cost is of the
// gateway, µs for each.
func expectedBeside(alone, beside *floodSample, cost float64) float64 {
	return alone.RPS * (1 - (beside.Flooder+beside.Rate*cost/1e6)/alone.busy())
}

func (r *floodReport) write(dir string) error {
	raw, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	files := map[string]string{
		"results.json": string(raw) + "\n", "table.md": r.table(), "flood-throughput.svg": r.throughputPlot(), "flood-memory.svg": r.memoryPlot(),
	}
	if err := writeFiles(dir, files); err != nil {
		return err
	}
	fmt.Printf("\n%s\nwritten to %s\n", r.table(), dir)
	return nil
}

// table is table.md of the floods.
func (r *floodReport) table() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Measured %s: %d rounds of %gs, `respond`, the known user on %d connections (%s), a flood of %.0f %% of the machine on as many, %d users, `memory %d`, GOGC=%d.\n",
		r.Date.Format(time.DateOnly), r.Rounds, r.Seconds, r.Connections, r.Client, 100*r.Share, r.Users, r.Accounts, r.GOGC)
	if r.Rounds < enough {
		fmt.Fprintf(&b, "\n**Fewer than %d rounds: this shows that it works, and measures nothing.**\n", enough)
	}
	b.WriteString("\n## What a known user loses\n\n")
	b.WriteString("| flood | answered | flood/s | CPU each | known alone, req/s | beside it: expected | seen | seen/expected (min–max) | p99 ms alone | beside it | noisy |\n")
	b.WriteString("|---|---|---|---|---|---|---|---|---|---|---|\n")
	for _, s := range r.Floods {
		fmt.Fprintf(&b, "| %s | %s | %.0f | %.1f | %.0f | %.0f | %.0f | %.2f (%.2f–%.2f) | %.1f | %.1f | %s |\n", s.Kind, s.Answered, s.Rate, s.Cost,
			s.Alone.Median, s.Expected.Median, s.Seen.Median, s.SeenOver.Median, s.SeenOver.Min, s.SeenOver.Max, s.P99, s.P99Flood, unlessZero(float64(s.Noisy), "%.0f"))
		fmt.Fprintf(&b, "| … the same to a site without a gate | 200 | %.0f | %.1f | | | %.0f | %.2f (%.2f–%.2f) | | %.1f | |\n",
			s.ControlRate, s.ControlCost, s.Control.Median, s.ControlOver.Median, s.ControlOver.Min, s.ControlOver.Max, s.P99Control)
	}
	b.WriteString("\n*CPU each*: of the gateway for a request of the flood, µs, measured in each round with the flood alone, at saturation.\n" +
		"*expected*: what is left of the CPU that is in use without a flood, after the gateway's for the flood's requests and the flooder's own.\n" +
		"The flood without a gate has the rate at which it takes the same CPU. Where others took more than 4 % of the machine it is *noisy*.\n")
	b.WriteString("\n## What the gateway remembers of it\n\n")
	b.WriteString("| flood | new tokens sent | MiB before | after half | at the end | bound | live heap before | at the end |\n|---|---|---|---|---|---|---|---|\n")
	for _, s := range r.Floods {
		fmt.Fprintf(&b, "| %s | %d | %s | %s | %s | %s | %s | %s |\n", s.Kind, s.Sent, megabytes(s.Before), megabytes(s.Half), megabytes(s.End), megabytes(s.Bound), megabytes(s.HeapBefore), megabytes(s.HeapEnd))
	}
	fmt.Fprintf(&b, "\nRssAnon of the process. *bound*: as before, %d MiB for the collector's pace and the flooder's connections, and, but for forged tokens, of which\n"+
		"nothing is remembered, %d MiB of tokens and whole accounts, times %g for garbage, and 32 MiB or %d times %d bytes. *live heap*: after a collection.\n",
		jitter>>20, (tokenMemory+accountMemory)>>20, float64(100+r.GOGC)/100, r.Accounts, noteSize)
	b.WriteString("\n| flood | |\n|---|---|\n")
	for _, s := range r.Floods {
		fmt.Fprintf(&b, "| %s | %s |\n", s.Kind, s.What)
	}
	b.WriteString(r.Machine.table())
	return b.String()
}

// megabytes are MiB.
func megabytes(n int64) string { return fmt.Sprintf("%.0f", float64(n)/(1<<20)) }

func (r *floodReport) throughputPlot() string {
	p := plot{title: "a known user's throughput beside a flood, as a ratio to what its CPU leaves", format: "%.2f", line: 1}
	for _, s := range r.Floods {
		p.bars = append(p.bars,
			bar{label: s.Kind, parts: []float64{s.SeenOver.Median}, low: s.SeenOver.Min, high: s.SeenOver.Max, ours: true},
			bar{label: "… without a gate", parts: []float64{s.ControlOver.Median}, low: s.ControlOver.Min, high: s.ControlOver.Max})
	}
	return p.svg()
}

func (r *floodReport) memoryPlot() string {
	p := plot{title: "memory of the gateway, MiB", format: "%.0f"}
	for _, s := range r.Floods {
		for _, m := range []struct {
			when string
			size int64
		}{{"before", s.Before}, {"after half", s.Half}, {"at the end", s.End}, {"bound", s.Bound}} {
			p.bars = append(p.bars, bar{label: s.Kind + " " + m.when, parts: []float64{float64(m.size) / (1 << 20)}, ours: m.when != "bound"})
		}
	}
	return p.svg()
}

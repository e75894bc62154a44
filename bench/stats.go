package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// sample is one run of one row. CPU is in µs for each request.
type sample struct {
	Row                     string
	Round, Attempt          int
	Requests, Errors        int
	RPS, P50, P99           float64
	Gateway, Auth, Upstream float64
	Others                  float64 // the share of the machine that other processes took
	Noisy                   bool
	// Beside is the run of the base right before this one or after it, with the same
	// token. Nil if the row is its own base.
	Beside *sample `json:",omitempty"`
}

// spread is a median, and what it is the median of.
type spread struct{ Median, Min, Max float64 }

// summary is a line of the table.
type summary struct {
	Row, What, Base string
	Absent          string `json:",omitempty"`
	Runs, Noisy     int
	RPS             spread
	Ratio           spread // of throughput, to the base's beside it
	Plain           spread // the same, to plain Caddy
	P50, P99        float64
	P99Ratio        spread // to the base's beside it
	Gateway, Auth   float64
	Upstream        float64
	Extra           float64 // CPU of gateway and authoriser, over the base's
}

func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	values = slices.Sorted(slices.Values(values))
	middle := len(values) / 2
	if len(values)%2 == 1 {
		return values[middle]
	}
	return (values[middle-1] + values[middle]) / 2
}

func spreadOf(values []float64) spread {
	if len(values) == 0 {
		return spread{}
	}
	return spread{median(values), slices.Min(values), slices.Max(values)}
}

// summarise makes the table of the samples.
func summarise(rows []*row, samples []*sample) []*summary {
	byRow := map[string][]*sample{}
	for _, s := range samples {
		byRow[s.Row] = append(byRow[s.Row], s)
	}
	var table []*summary
	for _, r := range rows {
		table = append(table, summariseRow(r, byRow))
	}
	return table
}

func summariseRow(r *row, byRow map[string][]*sample) *summary {
	sum := &summary{Row: r.Name, What: r.What, Base: r.Base, Absent: r.Absent}
	mine := byRow[r.Name]
	requests, errors := 0, 0
	for _, s := range mine {
		requests += s.Requests
		errors += s.Errors
		sum.Noisy += btoi(s.Noisy)
	}
	switch {
	case sum.Absent != "":
		return sum
	case errors > 0:
		sum.Absent = fmt.Sprintf("void: %d of %d requests failed", errors, requests)
		return sum
	}
	pick := func(of func(*sample) float64) []float64 {
		var values []float64
		for _, s := range calmOf(mine) {
			values = append(values, of(s))
		}
		return values
	}
	sum.Runs = len(calmOf(mine))
	sum.RPS = spreadOf(pick(func(s *sample) float64 { return s.RPS }))
	sum.P50 = median(pick(func(s *sample) float64 { return s.P50 }))
	sum.P99 = median(pick(func(s *sample) float64 { return s.P99 }))
	sum.Gateway = median(pick(func(s *sample) float64 { return s.Gateway }))
	sum.Auth = median(pick(func(s *sample) float64 { return s.Auth }))
	sum.Upstream = median(pick(func(s *sample) float64 { return s.Upstream }))

	beside := func(s *sample) *sample { return cmp.Or(s.Beside, s) }
	sum.Ratio = spreadOf(paired(mine, beside, func(s, b *sample) float64 { return s.RPS / b.RPS }))
	sum.P99Ratio = spreadOf(paired(mine, beside, func(s, b *sample) float64 { return s.P99 / b.P99 }))
	sum.Extra = median(paired(mine, beside, func(s, b *sample) float64 { return s.Gateway + s.Auth - b.Gateway - b.Auth }))
	if !r.many { // the client has other work to do there
		group, _, _ := strings.Cut(r.Name, "/")
		sum.Plain = spreadOf(paired(mine, sameRound(byRow[group+"/plain"]), func(s, b *sample) float64 { return s.RPS / b.RPS }))
	}
	return sum
}

// calmOf leaves the noisy runs out if enough are left.
func calmOf(samples []*sample) []*sample {
	quiet := slices.DeleteFunc(slices.Clone(samples), func(s *sample) bool { return s.Noisy })
	if len(quiet) >= enough {
		return quiet
	}
	return samples
}

// sameRound finds the sample of the same round.
func sameRound(samples []*sample) func(*sample) *sample {
	return func(s *sample) *sample {
		if i := slices.IndexFunc(samples, func(o *sample) bool { return o.Round == s.Round }); i >= 0 {
			return samples[i]
		}
		return nil
	}
}

// paired compares each sample with another, if there is one. Pairs with a noisy half
// are left out if enough are left.
func paired(samples []*sample, with func(*sample) *sample, of func(a, b *sample) float64) []float64 {
	var all, quiet []float64
	for _, s := range samples {
		o := with(s)
		if o == nil {
			continue
		}
		value := of(s, o)
		all = append(all, value)
		if !s.Noisy && !o.Noisy {
			quiet = append(quiet, value)
		}
	}
	if len(quiet) >= enough {
		return quiet
	}
	return all
}

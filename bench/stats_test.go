package main

import (
	"math"
	"strings"
	"testing"
)

func TestMedian(t *testing.T) {
	for _, test := range []struct {
		values []float64
		want   float64
	}{
		{nil, 0},
		{[]float64{3}, 3},
		{[]float64{9, 1, 2}, 2},
		{[]float64{4, 1, 3, 2}, 2.5},
	} {
		if got := median(test.values); got != test.want {
			t.Errorf("median(%v) = %v, want %v", test.values, got, test.want)
		}
	}
}

// The machine halves its speed from round to round, and within each; the ratios to
// what was measured beside do not change.
func TestRatiosArePaired(t *testing.T) {
	rows := []*row{{Name: "g/plain", Base: "g/plain"}, {Name: "g/ours", Base: "g/plain"}}
	var samples []*sample
	for round, speed := range []float64{8000, 4000, 2000} {
		samples = append(samples,
			&sample{
				Row: "g/ours", Round: round, RPS: speed * 0.9, Gateway: 12, Requests: 1,
				Beside: &sample{Row: "g/plain", Round: round, RPS: speed, Gateway: 10},
			},
			&sample{Row: "g/plain", Round: round, RPS: 2 * speed, Gateway: 5, Requests: 1})
	}
	table := summarise(rows, samples)
	ours := table[1]
	for want, s := range map[float64]spread{0.9: ours.Ratio, 0.45: ours.Plain, 1: table[0].Ratio} {
		for _, v := range []float64{s.Median, s.Min, s.Max} {
			if math.Abs(v-want) > 1e-9 {
				t.Errorf("ratio: %+v, want %v throughout", s, want)
			}
		}
	}
	if ours.Extra != 2 || ours.Runs != 3 || ours.RPS != (spread{3600, 1800, 7200}) {
		t.Errorf("%+v", ours)
	}
}

func TestNoisyRunsAreLeftOutWhereEnoughAreCalm(t *testing.T) {
	rows := []*row{{Name: "g/plain", Base: "g/plain"}}
	samples := []*sample{{Row: "g/plain", Round: 99, RPS: 1, Noisy: true}}
	for round := range enough - 1 {
		samples = append(samples, &sample{Row: "g/plain", Round: round, RPS: 100})
	}
	if s := summarise(rows, samples)[0]; s.Runs != enough || s.RPS.Min != 1 || s.Noisy != 1 {
		t.Errorf("too few calm runs, and one was left out: %+v", s)
	}
	samples = append(samples, &sample{Row: "g/plain", Round: enough, RPS: 100})
	if s := summarise(rows, samples)[0]; s.Runs != enough || s.RPS.Min != 100 || s.Noisy != 1 {
		t.Errorf("the noisy run counts: %+v", s)
	}
}

func TestFailedRequestsVoidTheRow(t *testing.T) {
	rows := []*row{{Name: "g/plain", Base: "g/plain"}}
	s := summarise(rows, []*sample{{Row: "g/plain", Requests: 10, Errors: 3, RPS: 5}})[0]
	if !strings.HasPrefix(s.Absent, "void: 3 of 10") || s.RPS.Median != 0 {
		t.Errorf("%+v", s)
	}
}

// Each row is compared with one that exists, and no two have one name.
func TestRows(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range allRows() {
		if seen[r.Name] {
			t.Errorf("%s: twice", r.Name)
		}
		seen[r.Name] = true
	}
	for _, r := range allRows() {
		if !seen[r.Base] {
			t.Errorf("%s: no row %s", r.Name, r.Base)
		}
	}
	rows, err := choose(allRows(), "respond/ours-HS256")
	if err != nil || len(rows) != 4 {
		t.Errorf("%d rows, %v; want it, its base, plain and its twin", len(rows), err)
	}
	if _, err := choose(allRows(), "proxy/rabbit"); err == nil {
		t.Error("an unknown row is taken")
	}
}

func TestParseStat(t *testing.T) {
	p, ok := parseStat([]byte("42 (a (b) c) S 7 42 42 0 -1 4194304 100 0 0 0 150 50 30 20 20 0 9 0 100 0 0\n"))
	if !ok || p != (process{parent: 7, own: 200 * tick, children: 50 * tick}) {
		t.Errorf("%+v, %v", p, ok)
	}
}

package main

import (
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-polar/caddy-polar/polar/box"
)

func TestParseSizes(t *testing.T) {
	for text, want := range map[string][]int{"10000,100000,1000000": {10_000, 100_000, 1_000_000}, " 500,100,500": {100, 500}, "300": {300}} {
		sizes, base, err := parseSizes(text)
		if err != nil || !slices.Equal(sizes, want) || base != want[(len(want)-1)/2] {
			t.Errorf("%q: %v, %d, %v", text, sizes, base, err)
		}
	}
	for _, text := range []string{"", "1e6", "50", "1000,"} {
		if _, _, err := parseSizes(text); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
}

func TestParseRSS(t *testing.T) {
	if got := parseRSS([]byte("Name:\tcaddy\nVmRSS:\t  9000 kB\nRssAnon:\t   1234 kB\nRssFile:\t  99 kB\n")); got != 1234<<10 {
		t.Errorf("%d", got)
	}
	if got := parseRSS([]byte("Name:\tcaddy\n")); got != 0 {
		t.Errorf("%d of nothing", got)
	}
}

func TestHeapIsRead(t *testing.T) {
	if m := heapRE.FindStringSubmatch("heap profile: 1: 2 [3: 4]\n# runtime.MemStats\n# Alloc = 5\n# HeapAlloc = 678\n# HeapSys = 9\n"); len(m) != 2 || m[1] != "678" {
		t.Errorf("%q", m)
	}
}

// A sale to another user has another user and other ids throughout, and
// nothing else is different.
func TestSaleToAnother(t *testing.T) {
	sample, err := box.Sample("subscription.active", box.SampleOptions{User: userID(0), ProductID: product})
	if err != nil {
		t.Fatal(err)
	}
	s := newSale(sample.Webhook)
	one, other := s.to(17), s.to(18)
	uuid := regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f-]{27}`)
	first, second := uuid.FindAllString(one.Body, -1), uuid.FindAllString(other.Body, -1)
	if len(first) < 3 || len(first) != len(second) || one.ID == other.ID {
		t.Fatalf("%d and %d ids, %s and %s", len(first), len(second), one.ID, other.ID)
	}
	for _, w := range []string{one.ID, other.ID} { // Polar's are of that length, and stand in the file
		if uuid.FindString(w) != w {
			t.Errorf("the webhook's id is %s", w)
		}
	}
	for i := range first {
		if same := first[i] == second[i]; same != (first[i] == box.SampleOrganization) {
			t.Errorf("%s and %s", first[i], second[i])
		}
	}
	if strings.Contains(one.Body, `"usr_0"`) || !strings.Contains(one.Body, `"usr_17"`) {
		t.Error("it is not the other user's")
	}
	blank := func(body string) string {
		return uuid.ReplaceAllString(regexp.MustCompile(`usr_\d+`).ReplaceAllString(body, "usr"), "id")
	}
	if blank(one.Body) != blank(sample.Body) {
		t.Error("something else is different")
	}
}

// The configuration of a gateway holds all its sites, and no secret.
func TestGatewayConfiguration(t *testing.T) {
	l, err := newLab(t.TempDir(), &options{users: 2})
	if err != nil {
		t.Fatal(err)
	}
	g := l.newGateway("store-7", 12345)
	command, err := g.command()
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(command[len(command)-1])
	if err != nil {
		t.Fatal(err)
	}
	config := string(raw)
	for _, port := range l.portsOf(g.Name) {
		if !strings.Contains(config, regexp.MustCompile(`:\d+`).FindString(l.addr(port))) {
			t.Errorf("there is no %s", port)
		}
	}
	if len(l.portsOf(g.Name)) != 5 || !strings.Contains(config, "memory 12345\n") || !strings.Contains(config, filepath.Base(g.Store())) {
		t.Error(config)
	}
	if strings.Contains(config, l.secret) || strings.Contains(config, l.webhook) {
		t.Error("a secret stands in it")
	}
	for _, r := range g.scaleRows(100, 100) {
		if r.fresh == nil {
			continue
		}
		if one, other := r.fresh(), r.fresh(); len(one) != freshTokens || one[0] == other[0] || one[0] == one[1] {
			t.Errorf("%s: its tokens are not fresh", r.Name)
		}
		break
	}
	for name := range l.held {
		_ = l.held[name].Close()
	}
}

// A flood that takes a quarter of the CPU leaves three quarters of the
// throughput, whatever the machine's speed in that round.
func TestFloodIsComparedWithTheCPUItTakes(t *testing.T) {
	k := floodKinds()[0]
	var samples []*floodSample
	var costs []*floodCost
	for round, speed := range []float64{1, 0.5, 0.25} {
		sample := func(run string, rps, flooder, rate float64) {
			samples = append(samples, &floodSample{
				Kind: k.Name, Run: run, Round: round, RPS: rps * speed, P99: 1 / speed, Gateway: 1.2, Client: 0.8 - flooder, Flooder: flooder,
				Rate: rate * speed, Answered: "401 ×5",
			})
			costs = append(costs, &floodCost{Kind: k.Name, Run: run, Round: round, Gateway: 40 / speed})
		}
		sample("alone", 40_000, 0, 0)
		sample("flood", 27_000, 0.1, 10_000) // 0.1 + 0.4 of 2 cores: 30,000 are left
		sample("control", 30_000, 0.1, 10_000)
	}
	s := summariseFlood(k, append(samples, &floodSample{Kind: "other", Run: "alone"}), costs)
	if s.Rounds != 3 || s.Expected.Max != 30_000 || s.Answered != "401" || s.P99Flood != 2 {
		t.Errorf("%+v", s)
	}
	for _, v := range []float64{s.SeenOver.Min, s.SeenOver.Max, s.ControlOver.Median - 0.1} {
		if math.Abs(v-0.9) > 1e-9 {
			t.Errorf("%+v %+v, want 0.9 and 1", s.SeenOver, s.ControlOver)
		}
	}
}

// What is remembered has a bound, and of forged tokens nothing is.
func TestFloodMemoryBound(t *testing.T) {
	o := &options{rounds: 4, memory: 1000, gogc: 100}
	var memory []*floodMemory
	for round := -1; round <= 4; round++ {
		memory = append(memory, &floodMemory{Kind: "forged", Round: round, RSS: int64(100+round) << 20, Heap: 7}, &floodMemory{Kind: "valid", Round: round, RSS: 10 << 20})
	}
	var forged, valid floodSummary
	forged.remembers(floodKinds()[0], memory, o)
	valid.remembers(floodKinds()[1], memory, o)
	if forged.Before != 99<<20 || forged.Half != 101<<20 || forged.End != 104<<20 || forged.Bound != forged.Before+jitter {
		t.Errorf("%+v", forged)
	}
	if want := int64(10<<20 + jitter + 2*(64<<20+32<<20) + 32<<20); valid.Bound != want {
		t.Errorf("%d, want %d", valid.Bound, want)
	}
}

// The tables and plots can be made, also of little.
func TestScaleAndFloodReports(t *testing.T) {
	rows := []*row{{Name: "respond/known-1000", Base: "respond/known-1000", many: true}, {Name: "respond/known-2000", Base: "respond/known-1000", many: true}}
	var runs []*sample
	for _, r := range rows {
		runs = append(runs, &sample{Row: r.Name, Requests: 10, RPS: 100, P99: 2})
	}
	dir := t.TempDir()
	stores := &scaleReport{
		report: report{Rows: summarise(rows, runs), Runs: runs, Rounds: 1},
		Stores: []*storeSize{{Accounts: 1000, File: 1 << 20, Starts: []time.Duration{time.Second}, Start: time.Second}}, Base: 1000,
	}
	floods := (&floodLab{lab: &lab{o: &options{rounds: 1, memory: 100, gogc: 100}}}).report(floodKinds())
	for _, err := range []error{stores.write(dir), floods.write(dir)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, table := range []string{stores.table(), floods.table()} {
		if strings.Contains(table, "NaN") || strings.Contains(table, "%!") {
			t.Error(table)
		}
	}
	if !strings.Contains(stores.table(), "| known-2000 | 1 | 100 (100–100) | 1.00 (1.00–1.00) |") {
		t.Error(stores.table())
	}
}

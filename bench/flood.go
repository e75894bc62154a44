package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"
)

// floodKind is a flood of requests, each with a token that was never seen.
type floodKind struct {
	Name, What        string
	forged, strangers bool
	status            []int // how it may be answered
}

func floodKinds() []*floodKind {
	return []*floodKind{
		{Name: "forged", What: "tokens with a wrong signature", forged: true, status: []int{401}},
		{Name: "valid", What: "valid tokens of users in the store, of whom not all are held in memory", status: []int{200}},
		{Name: "strangers", What: "valid tokens, each of another user whom nobody knows", strangers: true, status: []int{402, 403, 503}},
	}
}

// floodSample is one run: the known user alone, or beside a flood.
type floodSample struct {
	Kind, Run     string // alone, flood or control
	Round         int
	RPS, P50, P99 float64
	Errors        int
	// CPU in cores.
	Gateway, Client, Flooder float64
	Rate                     float64 // of the flood, a second
	Answered                 string  `json:",omitempty"`
	Others                   float64
	Noisy                    bool
}

// busy is the CPU of all three.
func (s *floodSample) busy() float64 { return s.Gateway + s.Client + s.Flooder }

// floodCost is what a request of a flood costs at saturation, in µs.
type floodCost struct {
	Kind, Run        string // flood or control
	Round            int
	Gateway, Flooder float64
	Requests         int
	RPS              float64
}

// floodMemory is a gateway's memory at a moment, in bytes.
type floodMemory struct {
	Kind  string
	Round int // -1: before the first
	RSS   int64
	Heap  int64 `json:",omitempty"` // after a collection
}

// floodLab is a lab with a gateway for each kind of flood, so that each keeps
// in memory only what its own has brought.
type floodLab struct {
	*lab
	gateways map[string]*gateway
	serial   uint64
	rates    map[string]float64 // by kind and run, requests a second
	samples  []*floodSample
	costs    []*floodCost
	memory   []*floodMemory
	sent     map[string]int
}

// floods measures what known users lose while somebody floods the gateway.
func floods(ctx context.Context, l *lab) error {
	if l.o.share <= 0 || l.o.share >= 1 || l.o.memory < 100 {
		return errors.New("-share is between 0 and 1, and -memory at least 100")
	}
	if err := l.buildOurs(ctx); err != nil {
		return err
	}
	f := &floodLab{lab: l, gateways: map[string]*gateway{}, rates: map[string]float64{}, sent: map[string]int{}}
	kinds := floodKinds()
	if err := f.prepare(ctx, kinds); err != nil {
		return err
	}
	fmt.Printf("measure: %d rounds of %d floods, some %s\n", l.o.rounds, len(kinds),
		time.Duration(float64(l.o.rounds*len(kinds))*(4*l.o.seconds+2)*float64(time.Second)).Round(time.Second))
	for round := range l.o.rounds {
		for i := range kinds {
			if err := f.round(ctx, kinds[(i+round)%len(kinds)], round); err != nil {
				return err
			}
		}
	}
	for _, k := range kinds {
		g := f.gateways[k.Name]
		rss := g.rss()
		heap, err := g.heap(ctx)
		if err != nil {
			return err
		}
		f.memory = append(f.memory, &floodMemory{Kind: k.Name, Round: l.o.rounds, RSS: rss, Heap: heap})
	}
	return f.report(kinds).write(l.o.out)
}

// prepare fills one gateway, gives the others copies, and finds out which rates
// take the share of the machine that was asked for.
func (f *floodLab) prepare(ctx context.Context, kinds []*floodKind) error {
	var first *gateway
	for _, k := range kinds {
		g := f.newGateway("flood-"+k.Name, f.o.memory)
		f.gateways[k.Name] = g
		if first == nil {
			fmt.Printf("sell to %d users\n", f.o.users)
			first = g
			if err := g.fill(ctx, f.o.users); err != nil {
				return err
			}
		} else if err := copyFile(first.Store(), g.Store()); err != nil {
			return err
		}
	}
	for _, k := range kinds {
		g := f.gateways[k.Name]
		if _, err := g.start(ctx); err != nil {
			return err
		}
		if _, err := f.known(ctx, k, 1); err != nil {
			return err
		}
		rss := g.rss()
		heap, err := g.heap(ctx)
		if err != nil {
			return err
		}
		f.memory = append(f.memory, &floodMemory{Kind: k.Name, Round: -1, RSS: rss, Heap: heap})
		for _, run := range []string{"flood", "control"} {
			cost, err := f.cost(ctx, k, run, -1)
			if err != nil {
				return err
			}
			f.rates[k.Name+run] = f.o.share * float64(runtime.NumCPU()) * 1e6 / (cost.Gateway + cost.Flooder)
		}
	}
	return nil
}

// round measures one kind of flood, in an order that differs from round to
// round.
func (f *floodLab) round(ctx context.Context, k *floodKind, round int) error {
	runs := []string{"alone", "flood", "control"}
	for i := range runs {
		run := runs[(i+round)%len(runs)]
		if run != "alone" {
			cost, err := f.cost(ctx, k, run, round)
			if err != nil {
				return err
			}
			f.costs = append(f.costs, cost)
		}
		var best *floodSample
		for range 1 + repeats {
			s, err := f.sample(ctx, k, run)
			if err != nil {
				return err
			}
			if best == nil || s.Others < best.Others {
				best = s
			}
			if s.Others <= calm || f.o.rounds == 1 {
				break
			}
		}
		best.Round, best.Noisy = round, best.Others > calm
		f.samples = append(f.samples, best)
		fmt.Printf("  %2d/%d %-10s %-8s %8.0f req/s  p99 %7.2f ms  flood %6.0f/s %s\n", round+1, f.o.rounds, k.Name, run, best.RPS, best.P99, best.Rate, best.Answered)
	}
	f.memory = append(f.memory, &floodMemory{Kind: k.Name, Round: round, RSS: f.gateways[k.Name].rss()})
	return nil
}

// flooding is an order for a flooder; the control's goes to a site without a
// gate.
func (f *floodLab) flooding(k *floodKind, run string, seconds float64) *flooding {
	site := "respond"
	if run == "control" {
		site = "respond-open"
	}
	f.serial += 1 << 32 // no serial number comes twice
	return &flooding{
		Addr: f.addr(f.gateways[k.Name].Site(site)), Issuer: f.Issuer(), Users: f.o.users, Forged: k.forged, Strangers: k.strangers,
		First: f.serial, Connections: f.o.connections, Seconds: seconds,
	}
}

// row is the site of the known user, whose one token wrk sends.
func (f *floodLab) row(k *floodKind) *row {
	name := f.gateways[k.Name].Name
	return &row{Name: "flood/" + k.Name, server: name, site: name + "-respond", gated: true}
}

func (f *floodLab) known(ctx context.Context, k *floodKind, seconds float64) (*loaded, error) {
	result, err := f.load(ctx, f.row(k), []string{f.tokens["HS256"]}, seconds)
	if err == nil && result.errors > 0 {
		err = fmt.Errorf("%s: the known user was refused %d times of %d", k.Name, result.errors, result.requests)
	}
	return result, err
}

// answered checks that a flood was answered as it is to be: one that is let in,
// or is not, for another reason measures something else.
func (f *floodLab) answered(k *floodKind, run string, result *flooded) error {
	may := k.status
	if run == "control" {
		may = []int{200}
	} else {
		f.sent[k.Name] += result.Requests
	}
	for status := range result.Status {
		if !slices.Contains(may, status) {
			return fmt.Errorf("%s: a flood is answered %s", k.Name, result)
		}
	}
	if result.Failed > 0 {
		return fmt.Errorf("%s: %d connections of a flood broke", k.Name, result.Failed)
	}
	return nil
}

// cost floods as fast as it goes, with nobody else there.
func (f *floodLab) cost(ctx context.Context, k *floodKind, run string, round int) (*floodCost, error) {
	row := f.row(k)
	before := f.cpu(row)
	_, wait, err := f.flood(ctx, f.flooding(k, run, f.o.seconds/2))
	if err != nil {
		return nil, err
	}
	result, err := wait()
	if err == nil {
		err = f.answered(k, run, result)
	}
	if err != nil {
		return nil, err
	}
	n := float64(result.Requests)
	return &floodCost{
		Kind: k.Name, Run: run, Round: round, Requests: result.Requests, RPS: n / result.Elapsed.Seconds(),
		Gateway: float64(f.cpu(row).since(before).gateway.Microseconds()) / n, Flooder: float64(result.CPU.Microseconds()) / n,
	}, nil
}

// sample is the known user's load, with a flood beside it or without one.
func (f *floodLab) sample(ctx context.Context, k *floodKind, run string) (*floodSample, error) {
	const ahead = 0.5 // the flood is there before and after what is measured
	pid, wait := 0, func() (*flooded, error) { return nil, nil }
	if run != "alone" {
		order := f.flooding(k, run, math.Ceil(f.o.seconds)+2*ahead)
		order.Rate = f.rates[k.Name+run]
		var err error
		if pid, wait, err = f.flood(ctx, order); err != nil {
			return nil, err
		}
		time.Sleep(time.Duration(ahead * float64(time.Second)))
	}
	row := f.row(k)
	before, flooder := f.cpu(row), processes()[pid].own
	loaded, err1 := f.known(ctx, k, f.o.seconds)
	used, flooder := f.cpu(row).since(before), processes()[pid].own-flooder
	flood, err2 := wait()
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	cores := func(cpu time.Duration) float64 { return float64(cpu) / float64(loaded.elapsed) }
	s := &floodSample{
		Kind: k.Name, Run: run, RPS: float64(loaded.requests) / loaded.elapsed.Seconds(), P50: milliseconds(loaded.p50), P99: milliseconds(loaded.p99),
		Errors: loaded.errors, Gateway: cores(used.gateway), Client: cores(loaded.cpu), Flooder: cores(flooder), Others: used.others,
	}
	if flood != nil {
		s.Rate, s.Answered = float64(flood.Requests)/flood.Elapsed.Seconds(), flood.String()
		return s, f.answered(k, run, flood)
	}
	return s, nil
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if err := errors.Join(err, out.Close()); err != nil {
		return fmt.Errorf("copy %s: %w", filepath.Base(from), err)
	}
	return nil
}

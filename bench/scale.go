package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// storeSize is what one number of accounts came to. Sizes are in bytes.
type storeSize struct {
	Accounts    int
	Fill        time.Duration // by webhooks
	File        int64
	Starts      []time.Duration // from the process's start to the first user let in
	Start       time.Duration   // their median
	RSSStart    int64
	RSSLoad     int64 // after all rounds
	HeapLoad    int64 // the same, after a collection
	RSSAccount  float64
	HeapAccount float64 // live bytes of an account in memory
}

const (
	// starts is how often the time to start is measured.
	starts = 5
	// freshTokens is how many tokens a run with random users has.
	freshTokens = 100_000
	// fillTokens fill the memory of tokens, which holds some 40,000.
	fillTokens = 100_000
)

// parseSizes reads numbers of accounts, and says which is compared with: the
// middle one.
func parseSizes(text string) (sizes []int, base int, err error) {
	for part := range strings.SplitSeq(text, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(part))
		if err != nil || n < 100 {
			return nil, 0, fmt.Errorf("-sizes %s: numbers from 100 on", text)
		}
		sizes = append(sizes, n)
	}
	slices.Sort(sizes)
	sizes = slices.Compact(sizes)
	return sizes, sizes[(len(sizes)-1)/2], nil
}

// scale measures stores of several sizes beside one another.
func scale(ctx context.Context, l *lab) error {
	sizes, base, err := parseSizes(l.o.sizes)
	if err != nil {
		return err
	}
	if l.o.users > sizes[0] || l.o.memory < 100 {
		return errors.New("-users, the working set, fits into the smallest of -sizes, and -memory is at least 100")
	}
	if err := l.buildOurs(ctx); err != nil {
		return err
	}
	var stores []*storeSize
	gateways := map[int]*gateway{}
	for _, n := range sizes {
		s := &storeSize{Accounts: n}
		g := l.newGateway("store-"+strconv.Itoa(n), l.o.memory)
		begun := time.Now()
		if err := g.fill(ctx, n); err != nil {
			return err
		}
		s.Fill = time.Since(begun)
		info, err := os.Stat(g.Store())
		if err != nil {
			return err
		}
		s.File = info.Size()
		stores, gateways[n] = append(stores, s), g
		fmt.Printf("  %d accounts told of in %s: %s MiB, %d B each\n", n, s.Fill.Round(time.Second), megabytes(s.File), s.File/int64(n))
	}
	if err := measureStarts(ctx, stores, gateways); err != nil {
		return err
	}
	for _, s := range stores {
		if err := gateways[s.Accounts].measureAccount(ctx, s); err != nil {
			return err
		}
	}
	report, err := l.measureStores(ctx, stores, gateways, base)
	if err != nil {
		return err
	}
	return report.write(l.o.out)
}

// measureStarts starts each several times, in turn.
func measureStarts(ctx context.Context, stores []*storeSize, gateways map[int]*gateway) error {
	for range starts {
		for _, s := range stores {
			g := gateways[s.Accounts]
			took, err := g.start(ctx)
			if err != nil {
				return err
			}
			s.Starts = append(s.Starts, took)
			time.Sleep(500 * time.Millisecond) // what goes on after it
			s.RSSStart = g.rss()
			g.end(g.Name)
		}
	}
	for _, s := range stores {
		s.Start = slices.Sorted(slices.Values(s.Starts))[len(s.Starts)/2]
		fmt.Printf("  %d accounts: starts in %s\n", s.Accounts, s.Start.Round(time.Millisecond))
	}
	return nil
}

// measureAccount finds out what an account in memory takes: each is asked for
// once, by a gateway that may hold all of them. Tokens take memory too, up to a
// bound, so one user's fill it beforehand, and the difference is the accounts'.
func (g *gateway) measureAccount(ctx context.Context, s *storeSize) error {
	bounded := g.Memory
	defer func() { g.Memory = bounded }()
	g.Memory = s.Accounts + s.Accounts/10
	if _, err := g.start(ctx); err != nil {
		return err
	}
	defer g.end(g.Name)
	measure := func(f flooding) (heap, rss int64, err error) {
		f.Addr, f.Issuer, f.Connections, f.Seconds = g.addr(g.Site("respond")), g.Issuer(), 64, 3600
		_, wait, err := g.flood(ctx, &f)
		if err != nil {
			return 0, 0, err
		}
		result, err := wait()
		if err == nil && (result.Status[200] != int(f.Count) || result.Failed > 0) {
			err = fmt.Errorf("%d users were let in as %s", f.Count, result)
		}
		if err != nil {
			return 0, 0, err
		}
		heap, err = g.heap(ctx)
		return heap, g.settled(ctx), err
	}
	heap, rss, err := measure(flooding{Users: 1, InTurn: true, Count: fillTokens})
	if err != nil {
		return err
	}
	heapAll, rssAll, err := measure(flooding{Users: s.Accounts, InTurn: true, Count: uint64(s.Accounts), First: 1 << 32})
	if err != nil {
		return err
	}
	s.HeapAccount = float64(heapAll-heap) / float64(s.Accounts)
	s.RSSAccount = float64(rssAll-rss) / float64(s.Accounts)
	fmt.Printf("  %d accounts in memory: %.0f B each, of the process %.0f B\n", s.Accounts, s.HeapAccount, s.RSSAccount)
	return nil
}

// measureStores loads all of them in rounds, as the comparison does.
func (l *lab) measureStores(ctx context.Context, stores []*storeSize, gateways map[int]*gateway, base int) (*scaleReport, error) {
	l.start(ctx, nil) // the upstream
	var rows []*row
	for _, s := range stores {
		g := gateways[s.Accounts]
		if _, err := g.start(ctx); err != nil {
			return nil, err
		}
		rows = append(rows, g.scaleRows(s.Accounts, base)...)
	}
	slices.SortStableFunc(rows, func(a, b *row) int { // the table's order
		return strings.Compare(strings.TrimRight(a.Name, "0123456789"), strings.TrimRight(b.Name, "0123456789"))
	})
	for _, r := range rows {
		if err := l.check(ctx, r); err != nil {
			return nil, fmt.Errorf("%s: %w", r.Name, err)
		}
	}
	runs, err := l.measure(ctx, rows)
	if err != nil {
		return nil, err
	}
	for _, s := range stores {
		g := gateways[s.Accounts]
		s.RSSLoad = g.rss()
		if s.HeapLoad, err = g.heap(ctx); err != nil {
			return nil, err
		}
	}
	return &scaleReport{
		Stores: stores, Base: base, Memory: l.o.memory,
		report: report{
			Machine: l.machine(), Date: time.Now().UTC().Truncate(time.Second), Rounds: l.o.rounds, Seconds: l.o.seconds,
			Connections: l.o.connections, Users: l.o.users, GOGC: l.o.gogc, Client: l.client, Rows: summarise(rows, runs), Runs: runs,
		},
	}, nil
}

// scaleRows are those of one store: the same users at all sizes, with tokens
// that are remembered, and in each run other users of the whole store, with
// tokens that were never seen.
func (g *gateway) scaleRows(accounts, base int) (rows []*row) {
	m, serial := newMint(g.secret, g.Issuer()), uint64(accounts)<<32
	for _, group := range []string{"respond", "proxy"} {
		for _, which := range []string{"known", "random"} {
			r := &row{
				Name: fmt.Sprintf("%s/%s-%d", group, which, accounts), Base: fmt.Sprintf("%s/%s-%d", group, which, base),
				server: g.Name, site: g.Site(group), gated: true, many: true, // which also says that plain Caddy is no measure
			}
			if which == "random" {
				r.fresh = func() []string {
					tokens := make([]string, freshTokens)
					for i := range tokens {
						serial++
						tokens[i] = string(m.token(nil, userID(rand.IntN(accounts)), serial, false))
					}
					return tokens
				}
			}
			rows = append(rows, r)
		}
	}
	return rows
}

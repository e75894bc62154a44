// Command bench measures what the gateway costs, beside plain Caddy and beside
// what anyone can install in its place: go run . (see README.md).
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// options are the flags.
type options struct {
	rounds      int
	seconds     float64
	rows        string
	out         string
	users       int
	connections int
	gogc        int
	ownClient   bool
	memory      int     // accounts that floods' and stores' gateways hold
	sizes       string  // of the stores
	share       float64 // of the machine, that a flood takes
}

const (
	// calm is the share of the machine that others may take during a run; above
	// it the run is repeated, so often at most.
	calm    = 0.04
	repeats = 2
	// enough calm runs of a row, and the others no longer count.
	enough = 5
)

func main() {
	if len(os.Args) > 2 && os.Args[1] == "serve" {
		serve(os.Args[2], os.Args[3:])
		return
	}
	var o options
	quick := flag.Bool("quick", false, "one round of half a second for each row: shows that all works, and measures nothing")
	flag.IntVar(&o.rounds, "rounds", 8, "how often each row is measured")
	flag.Float64Var(&o.seconds, "seconds", 4, "how long each time")
	flag.StringVar(&o.rows, "rows", "", "only these rows, by name or pattern, and those they are compared with: proxy/ours*,respond/*")
	flag.StringVar(&o.out, "out", filepath.Join("results", "latest"), "`directory` for the results")
	flag.IntVar(&o.users, "users", 0, "users in the gateway's store (default 10000, and with -floods 200000), and tokens of the rows with many")
	flag.IntVar(&o.connections, "connections", 64, "connections of the load generator")
	flag.IntVar(&o.gogc, "gogc", 100, "GOGC of all Go processes")
	flag.BoolVar(&o.ownClient, "own-client", false, "generate the load with our own client also where wrk is installed")
	flag.IntVar(&o.memory, "memory", 100_000, "with -floods and -scale: accounts that a gateway holds in memory")
	flag.Float64Var(&o.share, "share", 0.25, "with -floods: the share of the machine that a flood takes")
	flag.StringVar(&o.sizes, "sizes", "10000,100000,1000000", "with -scale: the accounts of the stores")
	withScale := flag.Bool("scale", false, "what the number of accounts in the store costs")
	withFloods := flag.Bool("floods", false, "what known users lose while somebody floods the gateway")
	list := flag.Bool("list", false, "list the rows")
	flag.Parse()
	if *quick {
		o.rounds, o.seconds = 1, 0.5
	}
	if *list {
		for _, r := range allRows() {
			fmt.Printf("%-36s %s\n", r.Name, r.What)
		}
		return
	}
	mode := compare
	if *withFloods {
		mode = floods
	} else if *withScale {
		mode = scale
	}
	if o.users == 0 {
		if o.users = 10_000; *withFloods {
			o.users = 200_000
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, &o, mode); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// run makes a lab, lets a mode measure in it, and cleans up.
func run(ctx context.Context, o *options, mode func(context.Context, *lab) error) (err error) {
	if o.rounds < 1 || o.seconds <= 0 || o.users < 1 || o.connections < 1 {
		return errors.New("-rounds, -seconds, -users and -connections: more than nothing, please")
	}
	if _, err := os.Stat(filepath.Join("..", "cmd", "caddy")); err != nil {
		return errors.New("run it in the directory bench of the repository: it builds what is around it")
	}
	dir, err := os.MkdirTemp("", "caddy-polar-bench-*")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := os.Chmod(dir, 0o755); err != nil { // nginx's workers may be somebody else
		return err
	}
	l, err := newLab(dir, o)
	if err != nil {
		return err
	}
	defer l.stop()
	return mode(ctx, l)
}

// compare measures the rows, beside one another.
func compare(ctx context.Context, l *lab) error {
	o := l.o
	rows, err := choose(allRows(), o.rows)
	if err != nil {
		return err
	}
	fmt.Println("build")
	l.build(ctx, rows)
	if ctx.Err() != nil {
		return ctx.Err()
	}

	fmt.Println("start")
	l.start(ctx, rows)
	for _, r := range rows {
		r.Absent = l.absent[r.server]
		if r.Absent == "" {
			if err := l.check(ctx, r); err != nil {
				r.Absent = "void: " + err.Error()
				fmt.Printf("  %s: %s\n", r.Name, r.Absent)
			}
		}
	}
	for _, r := range rows { // what has no base cannot be compared
		if r.Absent == "" && r.Name != r.Base && !slices.ContainsFunc(rows, func(b *row) bool { return b.Name == r.Base && b.Absent == "" }) {
			r.Absent = "void: " + r.Base + " is missing, which it is compared with"
		}
	}
	running := slices.DeleteFunc(slices.Clone(rows), func(r *row) bool { return r.Absent != "" })
	if len(running) == 0 {
		return errors.New("there is no row that can be measured here")
	}
	if err := ctx.Err(); err != nil {
		return err
	}

	fmt.Printf("measure: %d rows, %d rounds of %gs, some %s\n", len(running), o.rounds, o.seconds,
		time.Duration(float64(len(running)*o.rounds)*(o.seconds+0.3)*float64(time.Second)).Round(time.Second))
	runs, err := l.measure(ctx, running)
	if err != nil {
		return err
	}

	report := &report{
		Machine: l.machine(), Date: time.Now().UTC().Truncate(time.Second),
		Rounds: o.rounds, Seconds: o.seconds, Connections: o.connections, Users: o.users, GOGC: o.gogc, Client: l.client,
		Rows: summarise(rows, runs), Runs: runs,
	}
	if err := report.write(o.out); err != nil {
		return err
	}
	fmt.Printf("\n%s\nwritten to %s\n", report.table(), o.out)
	return nil
}

// measure runs all rows once in each round, each time in another order.
func (l *lab) measure(ctx context.Context, rows []*row) ([]*sample, error) {
	for _, r := range rows { // connections, caches, heaps
		if _, err := l.load(ctx, r, l.tokensOf(r), min(1, l.o.seconds)); err != nil {
			return nil, fmt.Errorf("%s: %w", r.Name, err)
		}
	}
	var samples []*sample
	for round := range l.o.rounds {
		for i, r := range shuffled(rows, uint64(round)) {
			s, err := l.sampleBeside(ctx, r, baseOf(r, rows), round, (round+i)%2 == 0)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", r.Name, err)
			}
			samples = append(samples, s)
			compared := ""
			if s.Beside != nil {
				compared = fmt.Sprintf("  %5.2f %+6.1f µs", s.RPS/s.Beside.RPS, s.Gateway+s.Auth-s.Beside.Gateway-s.Beside.Auth)
			}
			fmt.Printf("  %2d/%d %-36s %8.0f req/s  p50 %6.2f ms  p99 %7.2f ms  %6.1f µs%s%s\n", round+1, l.o.rounds, r.Name,
				s.RPS, s.P50, s.P99, s.Gateway, compared, strings.Repeat("  noisy", btoi(s.Noisy)))
		}
	}
	return samples, nil
}

// sampleBeside is a run of a row with one of its base right before it or after it:
// a virtual machine's speed changes within a minute.
func (l *lab) sampleBeside(ctx context.Context, r, base *row, round int, baseFirst bool) (s *sample, err error) {
	var beside *sample
	if base != nil && baseFirst {
		if beside, err = l.calmest(ctx, base, round); err != nil {
			return nil, err
		}
	}
	if s, err = l.calmest(ctx, r, round); err != nil {
		return nil, err
	}
	if base != nil && !baseFirst {
		if beside, err = l.calmest(ctx, base, round); err != nil {
			return nil, err
		}
	}
	s.Beside = beside
	return s, nil
}

// calmest repeats a run during which others were busy.
func (l *lab) calmest(ctx context.Context, r *row, round int) (best *sample, err error) {
	for attempt := range 1 + repeats {
		s, err := l.sample(ctx, r)
		if err != nil {
			return nil, err
		}
		s.Round, s.Attempt = round, attempt
		if best == nil || s.Others < best.Others {
			best = s
		}
		if s.Others <= calm || l.o.rounds == 1 {
			break
		}
	}
	best.Noisy = best.Others > calm
	return best, nil
}

// baseOf is the base of a row with the row's own token, or nil if that is the row
// itself.
func baseOf(r *row, rows []*row) *row {
	i := slices.IndexFunc(rows, func(b *row) bool { return b.Name == r.Base })
	if r.Name == r.Base || i < 0 {
		return nil
	}
	base := *rows[i]
	base.alg, base.many = r.alg, r.many
	return &base
}

// sample is one run of one row.
func (l *lab) sample(ctx context.Context, r *row) (*sample, error) {
	tokens := l.tokensOf(r)
	before := l.cpu(r)
	loaded, err := l.load(ctx, r, tokens, l.o.seconds)
	if err != nil {
		return nil, err
	}
	used := l.cpu(r).since(before)
	perRequest := func(cpu time.Duration) float64 {
		return float64(cpu.Microseconds()) / float64(max(1, loaded.requests))
	}
	return &sample{
		Row: r.Name, Requests: loaded.requests, Errors: loaded.errors,
		RPS: float64(loaded.requests) / loaded.elapsed.Seconds(),
		P50: milliseconds(loaded.p50), P99: milliseconds(loaded.p99),
		Gateway: perRequest(used.gateway), Auth: perRequest(used.auth), Upstream: perRequest(used.upstream),
		Others: used.others,
	}, nil
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

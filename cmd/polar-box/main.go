// Command polar-box runs a Polar in a box as a process: Polar's API, its
// checkout and portal pages and its webhooks, on this machine, with a clock
// that can be moved. Point any app that speaks to Polar at it.
package main

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/caddy-polar/caddy-polar/polar/box"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "polar-box:", err)
		os.Exit(1)
	}
}

// products are given as name=price, name=price/interval or name=price/interval/trial days.
type products []box.Product

func (p *products) String() string { return "" }

func (p *products) Set(s string) error {
	name, rest, ok := strings.Cut(s, "=")
	parts := strings.Split(rest, "/")
	amount, err := strconv.Atoi(parts[0])
	if !ok || name == "" || err != nil || amount < 0 || len(parts) > 3 {
		return fmt.Errorf("want name=<minor units>[/day|week|month|year[/<trial days>]]")
	}
	product := box.Product{Name: name, Price: box.Price{Amount: amount, Currency: "usd"}}
	if len(parts) > 1 {
		switch parts[1] {
		case "day", "week", "month", "year":
			product.Interval = parts[1]
		default:
			return fmt.Errorf("%q is no interval", parts[1])
		}
	}
	if len(parts) > 2 {
		if product.TrialCount, err = strconv.Atoi(parts[2]); err != nil || product.TrialCount < 1 {
			return fmt.Errorf("%q is no number of days", parts[2])
		}
		product.TrialInterval = "day"
	}
	*p = append(*p, product)
	return nil
}

func run(ctx context.Context, args []string) error {
	var sold products
	flags := flag.NewFlagSet("polar-box", flag.ContinueOnError)
	listen := flags.String("listen", "localhost:8403", "where to serve, on this machine")
	webhook := flags.String("webhook", "", "`URL` to which webhooks are sent")
	secret := flags.String("webhook-secret-env", "", "environment `variable` with the webhook secret; default: a new one")
	customers := flags.Uint("customers", 0, "how many customers there are at the start, each with a subscription of the first product: usr_0, usr_1 and so on")
	flags.Var(&sold, "product", "`name=<minor units>[/interval[/trial days]]`, may be given several times (default Pro=1000/month)")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if len(sold) == 0 {
		sold = products{{Name: "Pro", Interval: "month", Price: box.Price{Amount: 1000, Currency: "usd"}}}
	}
	host, _, err := net.SplitHostPort(*listen)
	if ip := net.ParseIP(host); err != nil || host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return fmt.Errorf("--listen %s: it must be a host and a port on this machine, like localhost:8403", *listen)
	}
	l, err := net.Listen("tcp", *listen)
	if err != nil {
		return fmt.Errorf("%w: choose another address with --listen", err)
	}
	var seed [8]byte
	_, _ = rand.Read(seed[:])
	b := box.New(box.Options{
		Start: time.Now(), Realtime: true, Seed: binary.NativeEndian.Uint64(seed[:]), SigningClock: time.Now,
	})
	b.SetBaseURL("http://" + *listen)
	fmt.Printf("POLAR_SERVER=http://%s\nPOLAR_ACCESS_TOKEN=%s\n", *listen, b.NewToken())
	if *webhook != "" {
		e := b.AddEndpoint(box.Endpoint{URL: *webhook, Secret: os.Getenv(*secret)})
		fmt.Printf("POLAR_WEBHOOK_SECRET=%s\n", e.Secret)
	}
	for i, p := range sold {
		p = b.AddProduct(p)
		if i == 0 && *customers > 0 {
			if err := b.Populate(int(*customers), p.ID); err != nil {
				return fmt.Errorf("--customers: %w", err)
			}
		}
		fmt.Printf("# %s\nPRODUCT=%s\n", p.Name, p.ID)
	}
	fmt.Printf("# Move the clock: curl -d '{\"by\":\"24h\"}' http://%s/box/advance\n", *listen)
	return serve(ctx, l, b)
}

func serve(ctx context.Context, l net.Listener, b *box.Box) error {
	mux := http.NewServeMux()
	mux.Handle("/box/", http.StripPrefix("/box", b.Control()))
	mux.Handle("/", b)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go b.Run(ctx)
	context.AfterFunc(ctx, func() { _ = server.Close() })
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

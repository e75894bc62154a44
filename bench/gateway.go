package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// gateway is one of several of our Caddies that run side by side, each with a
// store of its own.
type gateway struct {
	*lab
	Name   string
	Memory int // how many accounts it holds
}

func (l *lab) newGateway(name string, memory int) *gateway {
	g := &gateway{lab: l, Name: name, Memory: memory}
	for _, site := range []string{"admin", "webhooks", "respond", "respond-open", "proxy"} {
		l.Port(g.Site(site))
	}
	return g
}

// buildOurs builds nothing but our own Caddy.
func (l *lab) buildOurs(ctx context.Context) error {
	fmt.Println("build")
	l.build(ctx, []*row{{server: "ours"}})
	if absent := l.absent["ours"]; absent != "" {
		return errors.New(absent)
	}
	return ctx.Err()
}

// Site is the name of one of its ports.
func (g *gateway) Site(name string) string { return g.Name + "-" + name }

// Store is its file.
func (g *gateway) Store() string { return filepath.Join(g.dir, g.Name+".db") }

func (g *gateway) command() ([]string, error) {
	config, err := g.configOf(g, "gateway.caddyfile", g.Name+".caddyfile")
	return []string{g.bin("ours"), "run", "--adapter", "caddyfile", "--config", config}, err
}

// fill sells something to so many users, and ends it: it is started next with a
// warm page cache and nothing in memory.
func (g *gateway) fill(ctx context.Context, users int) error {
	command, err := g.command()
	if err == nil {
		err = g.spawn(ctx, g.Name, command)
	}
	if err != nil {
		return err
	}
	defer g.end(g.Name)
	if err := g.sell(ctx, g.Site("webhooks"), users); err != nil {
		return fmt.Errorf("the webhooks were not taken: %w", err)
	}
	return nil
}

// start starts it once it is filled, and says how long it took until a user was
// let in.
func (g *gateway) start(ctx context.Context) (time.Duration, error) {
	command, err := g.command()
	begun := time.Now()
	if err == nil {
		err = g.begin(ctx, g.Name, command)
	}
	if err != nil {
		return 0, err
	}
	err = g.until(ctx, g.Name, time.Millisecond, func() bool {
		status, err := g.ask(ctx, "respond", g.tokens["HS256"])
		return err == nil && status == http.StatusOK
	})
	return time.Since(begun), err
}

// ask asks once and gives the status.
func (g *gateway) ask(ctx context.Context, site, token string) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+g.addr(g.Site(site))+"/", nil)
	if err != nil {
		return 0, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return 0, err
	}
	_, err = io.Copy(io.Discard, res.Body)
	return res.StatusCode, errors.Join(err, res.Body.Close())
}

// rss is the memory of its own that it has, in bytes: pages of the file do not
// count, as the kernel takes them back when it needs them.
func (g *gateway) rss() int64 {
	raw, _ := os.ReadFile(filepath.Join("/proc", strconv.Itoa(g.procs[g.Name].Process.Pid), "status"))
	return parseRSS(raw)
}

// parseRSS reads RssAnon out of /proc/PID/status, 0 if it does not stand there.
func parseRSS(status []byte) int64 {
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "RssAnon:"); ok {
			kB, _ := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			return kB << 10
		}
	}
	return 0
}

var heapRE = regexp.MustCompile(`(?m)^# HeapAlloc = (\d+)$`)

// settled is rss once it no longer changes.
func (g *gateway) settled(ctx context.Context) int64 {
	last := g.rss()
	for calm, tries := 0, 0; calm < 3 && tries < 40 && ctx.Err() == nil; tries++ {
		time.Sleep(500 * time.Millisecond)
		now := g.rss()
		if calm++; max(now, last)-min(now, last) > 256<<10 {
			calm = 0
		}
		last = now
	}
	return last
}

// heap collects garbage and gives what is left, in bytes.
func (g *gateway) heap(ctx context.Context) (int64, error) {
	var least []int64
	for range 3 { // what a finalizer lets go is collected by the next
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+g.addr(g.Site("admin"))+"/debug/pprof/heap?gc=1&debug=1", nil)
		if err != nil {
			return 0, err
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return 0, err
		}
		raw, err := io.ReadAll(res.Body)
		if err := errors.Join(err, res.Body.Close()); err != nil {
			return 0, err
		}
		found := heapRE.FindSubmatch(raw)
		if found == nil {
			return 0, fmt.Errorf("the heap cannot be read: %s: %.100s", res.Status, raw)
		}
		n, _ := strconv.ParseInt(string(found[1]), 10, 64)
		least = append(least, n)
	}
	return slices.Min(least), nil
}

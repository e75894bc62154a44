package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// loaded is what a load generator has seen.
type loaded struct {
	requests, errors int // an answer that is not 2xx is an error
	elapsed          time.Duration
	p50, p99         time.Duration
	cpu              time.Duration // its own
}

// chooseClient takes wrk if it is installed, else our own.
func (l *lab) chooseClient() error {
	l.client = "our own Go client"
	if l.o.ownClient {
		return nil
	}
	if _, err := exec.LookPath("wrk"); err != nil {
		return nil
	}
	out, _ := exec.Command("wrk", "-v").CombinedOutput() // it fails, having said it
	line, _, _ := strings.Cut(string(out), "\n")
	line, _, _ = strings.Cut(line, " Copyright")
	l.client = line
	for _, name := range []string{"report.lua", "many.lua"} {
		script, err := configs.ReadFile("config/" + name)
		if err := errors.Join(err, os.WriteFile(filepath.Join(l.dir, name), script, 0o600)); err != nil {
			return err
		}
	}
	return nil
}

// tokensOf are what a row's requests show in turn.
func (l *lab) tokensOf(r *row) []string {
	switch {
	case r.fresh != nil:
		return r.fresh()
	case r.many:
		return l.many
	}
	return []string{l.tokens[r.algorithm()]}
}

// load keeps all connections of a row busy for so long. Fresh tokens are too
// many for wrk: its Lua takes minutes for requests that are so much alike.
func (l *lab) load(ctx context.Context, r *row, tokens []string, seconds float64) (*loaded, error) {
	var result *loaded
	var err error
	if strings.HasPrefix(l.client, "wrk") && r.fresh == nil {
		result, err = l.wrk(ctx, r, tokens[0], seconds)
	} else {
		result, err = ownLoad(ctx, l.addr(r.site), tokens, l.o.connections, time.Duration(seconds*float64(time.Second)))
	}
	if err == nil && result.requests == 0 {
		err = errors.New("no request was answered")
	}
	return result, errors.Join(err, ctx.Err())
}

func (l *lab) wrk(ctx context.Context, r *row, token string, seconds float64) (*loaded, error) {
	args := []string{
		"-t" + strconv.Itoa(min(2, runtime.NumCPU(), l.o.connections)), "-c" + strconv.Itoa(l.o.connections),
		"-d" + strconv.Itoa(int(math.Ceil(seconds))), // it knows whole seconds only
	}
	if r.many {
		args = append(args, "-s", filepath.Join(l.dir, "many.lua"), l.url(r), "--", l.tokenFile())
	} else {
		args = append(args, "-s", filepath.Join(l.dir, "report.lua"), "-H", "Authorization: Bearer "+token, l.url(r))
	}
	cmd := exec.CommandContext(ctx, "wrk", args...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("wrk: %s", reason(string(out), err))
	}
	_, said, ok := bytes.Cut(out, []byte("BENCH "))
	if !ok {
		return nil, fmt.Errorf("wrk: %s", reason(string(out), errors.New("without a word")))
	}
	var duration, p50, p99 int64
	result := loaded{cpu: cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()}
	if _, err := fmt.Sscan(string(said), &result.requests, &duration, &result.errors, &p50, &p99); err != nil {
		return nil, fmt.Errorf("wrk: %w", err)
	}
	result.elapsed = time.Duration(duration) * time.Microsecond
	result.p50, result.p99 = time.Duration(p50)*time.Microsecond, time.Duration(p99)*time.Microsecond
	return &result, nil
}

// ownLoad is a closed loop over keep-alive connections: it writes a request
// made beforehand and reads no more of the answer than it must.
func ownLoad(ctx context.Context, addr string, tokens []string, connections int, d time.Duration) (*loaded, error) {
	requests := make([][]byte, len(tokens))
	for i, token := range tokens {
		requests[i] = fmt.Appendf(nil, "GET / HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\n\r\n", addr, token)
	}
	var (
		mu     sync.Mutex
		all    []time.Duration
		failed []error
		wg     sync.WaitGroup
		start  = time.Now()
		before = ownCPU()
		end    = start.Add(d)
		result loaded
	)
	for c := range connections {
		wg.Go(func() {
			latencies := make([]time.Duration, 0, 1<<14)
			bad, err := keepAsking(ctx, addr, requests, c*len(requests)/connections, end, &latencies)
			mu.Lock()
			defer mu.Unlock()
			all = append(all, latencies...)
			result.errors += bad
			if err != nil {
				failed = append(failed, err)
			}
		})
	}
	wg.Wait()
	result.elapsed, result.cpu = time.Since(start), ownCPU()-before
	result.requests = len(all)
	result.errors += len(failed)
	if len(all) == 0 {
		return nil, errors.Join(failed...)
	}
	slices.Sort(all)
	result.p50, result.p99 = all[len(all)/2], all[len(all)*99/100]
	return &result, nil
}

// keepAsking asks over one connection until the end. An error ends it.
func keepAsking(ctx context.Context, addr string, requests [][]byte, i int, end time.Time, latencies *[]time.Duration) (bad int, err error) {
	conn, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(end.Add(10 * time.Second)); err != nil {
		return 0, err
	}
	in := bufio.NewReaderSize(conn, 8<<10)
	for begun := time.Now(); begun.Before(end) && ctx.Err() == nil; i++ {
		if _, err := conn.Write(requests[i%len(requests)]); err != nil {
			return bad, err
		}
		status, err := readAnswer(in)
		if err != nil {
			return bad, err
		}
		if status/100 != 2 {
			bad++
		}
		now := time.Now()
		*latencies = append(*latencies, now.Sub(begun))
		begun = now
	}
	return bad, nil
}

// readAnswer reads an answer of known length: all rows give such.
func readAnswer(in *bufio.Reader) (status int, err error) {
	line, err := in.ReadSlice('\n')
	if err != nil {
		return 0, err
	}
	if len(line) < len("HTTP/1.1 200") {
		return 0, fmt.Errorf("no HTTP: %q", line)
	}
	if status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return 0, err
	}
	length := -1
	for {
		if line, err = in.ReadSlice('\n'); err != nil {
			return 0, err
		}
		if len(line) <= len("\r\n") {
			break
		}
		const name = "content-length:"
		if len(line) > len(name) && bytes.EqualFold(line[:len(name)], []byte(name)) {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(line[len(name):]))); err != nil {
				return 0, err
			}
		}
	}
	if length < 0 {
		return 0, errors.New("an answer without Content-Length")
	}
	if _, err = in.Discard(length); err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return status, err
}

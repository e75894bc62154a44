package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// flooding is what a flooder does. It is a process of its own, so that its CPU
// can be told from all others'.
type flooding struct {
	Addr, Issuer string
	Users        int     // whose tokens: one of so many that are known
	InTurn       bool    // …one after the other
	Strangers    bool    // …or one that nobody knows, another each time
	Forged       bool    // with a wrong signature
	First        uint64  // serial number: no token comes twice
	Rate         float64 // a second, over all connections; 0: as fast as it is answered
	Count        uint64  // stop after so many; 0: do not
	Connections  int
	Seconds      float64
}

// flooded is what came of it.
type flooded struct {
	Requests int
	Status   map[int]int
	Failed   int // connections that broke
	Elapsed  time.Duration
	CPU      time.Duration `json:"-"`
}

// flood starts a flooder. wait waits for its end.
func (l *lab) flood(ctx context.Context, f *flooding) (pid int, wait func() (*flooded, error), err error) {
	order, err := json.Marshal(f)
	if err != nil {
		return 0, nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return 0, nil, err
	}
	var out, said bytes.Buffer
	cmd := exec.CommandContext(ctx, self, "serve", "flooder", string(order))
	cmd.Env = append(environment(), "BENCH_JWT_SECRET="+l.secret, "GOGC=400")
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Start(); err != nil {
		return 0, nil, err
	}
	return cmd.Process.Pid, func() (*flooded, error) {
		if err := cmd.Wait(); err != nil {
			return nil, fmt.Errorf("flooder: %s", reason(said.String(), err))
		}
		var result flooded
		if err := json.Unmarshal(out.Bytes(), &result); err != nil {
			return nil, fmt.Errorf("flooder: %w", err)
		}
		result.CPU = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
		return &result, nil
	}, nil
}

// serveFlooder is the process.
func serveFlooder(order string) error {
	var f flooding
	if err := json.Unmarshal([]byte(order), &f); err != nil {
		return err
	}
	result, err := f.run(context.Background(), os.Getenv("BENCH_JWT_SECRET"))
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(result)
}

// run keeps to the rate over all connections, or goes as fast as it is answered
// if there is none. What it is late with it makes up for.
func (f *flooding) run(ctx context.Context, secret string) (*flooded, error) {
	var (
		mu     sync.Mutex
		wg     sync.WaitGroup
		next   atomic.Uint64
		begun  = time.Now()
		end    = begun.Add(time.Duration(f.Seconds * float64(time.Second)))
		result = flooded{Status: map[int]int{}}
		failed error
	)
	for range f.Connections {
		wg.Go(func() {
			status, err := f.connection(ctx, newMint(secret, f.Issuer), &next, begun, end)
			mu.Lock()
			defer mu.Unlock()
			for code, n := range status {
				result.Status[code] += n
				result.Requests += n
			}
			if err != nil {
				result.Failed++
				failed = err
			}
		})
	}
	wg.Wait()
	result.Elapsed = time.Since(begun)
	if result.Requests == 0 {
		return nil, errors.Join(errors.New("no request was answered"), failed)
	}
	return &result, nil
}

// burst is how many requests a connection sends between two looks at the clock.
const burst = 8

func (f *flooding) connection(ctx context.Context, m *mint, next *atomic.Uint64, begun, end time.Time) (map[int]int, error) {
	status := map[int]int{}
	conn, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "tcp", f.Addr)
	if err != nil {
		return status, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(end.Add(10 * time.Second)); err != nil {
		return status, err
	}
	in := bufio.NewReaderSize(conn, 8<<10)
	head := fmt.Appendf(nil, "GET / HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer ", f.Addr)
	var request []byte
	for ctx.Err() == nil {
		n := next.Add(burst) - burst
		if f.Rate > 0 {
			due := begun.Add(time.Duration(float64(n) / f.Rate * float64(time.Second)))
			if due.After(end) {
				break
			}
			time.Sleep(time.Until(due))
		}
		for i := range uint64(burst) {
			if f.Count > 0 && n+i >= f.Count || !time.Now().Before(end) {
				return status, nil
			}
			request = m.token(append(request[:0], head...), f.user(n+i), f.First+n+i, f.Forged)
			request = append(request, "\r\n\r\n"...)
			if _, err := conn.Write(request); err != nil {
				return status, err
			}
			code, err := readAnswer(in)
			if err != nil {
				return status, err
			}
			status[code]++
		}
	}
	return status, nil
}

func (f *flooding) user(n uint64) string {
	switch {
	case f.Strangers:
		return "stranger_" + strconv.FormatUint(f.First+n, 10)
	case f.InTurn:
		return userID(int(n % uint64(f.Users)))
	}
	return userID(rand.IntN(f.Users))
}

// String is how it was answered, the likes of 402 ×1000.
func (f *flooded) String() string {
	var parts []string
	for _, code := range slices.Sorted(maps.Keys(f.Status)) {
		parts = append(parts, fmt.Sprintf("%d ×%d", code, f.Status[code]))
	}
	return strings.Join(parts, ", ")
}

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// process is a line of /proc: who it is, and the CPU that it and its dead
// children have used.
type process struct {
	parent        int
	own, children time.Duration
}

// tick is Linux's USER_HZ, on every machine that Go runs on.
const tick = time.Second / 100

// processes reads /proc. Linux only: elsewhere there is none, and no CPU.
func processes() map[int]process {
	all := map[int]process{}
	files, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		pid, _ := strconv.Atoi(strings.Split(file, "/")[2])
		if p, ok := parseStat(raw); ok {
			all[pid] = p
		}
	}
	return all
}

// parseStat reads what proc_pid_stat(5) describes. The name may hold blanks
// and brackets.
func parseStat(raw []byte) (process, bool) {
	if len(raw) == 0 {
		return process{}, false
	}
	fields := bytes.Fields(raw[bytes.LastIndexByte(raw, ')')+1:])
	if len(fields) < 15 {
		return process{}, false
	}
	number := func(i int) time.Duration {
		n, _ := strconv.Atoi(string(fields[i-3])) // counted as the manual does
		return time.Duration(n)
	}
	return process{
		parent: int(number(4)),
		own:    (number(14) + number(15)) * tick, children: (number(16) + number(17)) * tick,
	}, true
}

// ownCPU is what this process has used so far.
func ownCPU() time.Duration {
	raw, _ := os.ReadFile("/proc/self/stat")
	p, _ := parseStat(raw)
	return p.own
}

// family says whether a process is another one or descends from it.
func family(all map[int]process, pid, ancestor int) bool {
	for range 64 {
		if pid == ancestor {
			return true
		}
		p, ok := all[pid]
		if !ok {
			return false
		}
		pid = p.parent
	}
	return false
}

// cpu is who has used how much so far.
type cpu struct {
	at                      time.Time
	gateway, auth, upstream time.Duration
	other                   time.Duration
	others                  float64 // of a difference: the share of the machine
}

func (l *lab) cpu(r *row) cpu {
	all := processes()
	c := cpu{at: time.Now()}
	of := func(server string) (sum time.Duration) {
		cmd := l.procs[server]
		if cmd == nil {
			return 0
		}
		for pid, p := range all {
			if family(all, pid, cmd.Process.Pid) {
				sum += p.own
			}
		}
		return sum
	}
	c.auth, c.upstream = of("auth"), of("upstream")
	if r.server != "upstream" {
		c.gateway = of(r.server)
	}
	const kernel = 2 // kthreadd
	for pid, p := range all {
		if !family(all, pid, os.Getpid()) && pid != kernel && p.parent != kernel {
			c.other += p.own + p.children // who ended meanwhile is in the parent's
		}
	}
	return c
}

func (c cpu) since(before cpu) cpu {
	elapsed := c.at.Sub(before.at) * time.Duration(runtime.NumCPU())
	return cpu{
		gateway: c.gateway - before.gateway, auth: c.auth - before.auth, upstream: c.upstream - before.upstream,
		others: max(0, float64(c.other-before.other)/float64(elapsed)),
	}
}

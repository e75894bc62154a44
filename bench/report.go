package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// report is results.json.
type report struct {
	Date        time.Time
	Machine     machine
	Client      string
	Rounds      int
	Seconds     float64
	Connections int
	Users       int
	GOGC        int
	Rows        []*summary
	Runs        []*sample
}

type machine struct {
	CPU, Memory, Kernel, System, Go string
	Cores                           int
	Versions                        map[string]string
}

func (l *lab) machine() machine {
	kernel, _ := exec.Command("uname", "-sr").Output()
	return machine{
		CPU: lineOf("/proc/cpuinfo", "model name"), Memory: lineOf("/proc/meminfo", "MemTotal"),
		Kernel: strings.TrimSpace(string(kernel)), System: strings.Trim(lineOf("/etc/os-release", "PRETTY_NAME"), `"`),
		Go: runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH, Cores: runtime.NumCPU(), Versions: l.versions,
	}
}

// lineOf is the value of the first line of a file that begins so.
func lineOf(file, name string) string {
	raw, _ := os.ReadFile(file)
	for line := range strings.Lines(string(raw)) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			return strings.TrimSpace(strings.TrimLeft(rest, " \t:="))
		}
	}
	return "unknown"
}

func (r *report) write(dir string) error {
	raw, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	files := map[string]string{"results.json": string(raw) + "\n", "table.md": r.table()}
	for _, group := range r.groups() {
		files[group+"-ratio.svg"] = r.ratioPlot(group)
		files[group+"-cpu.svg"] = r.cpuPlot(group)
		files[group+"-latency.svg"] = r.latencyPlot(group)
	}
	return writeFiles(dir, files)
}

func writeFiles(dir string, files map[string]string) error {
	err := os.MkdirAll(dir, 0o755)
	for name, text := range files {
		err = errors.Join(err, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
	}
	return err
}

func (r *report) groups() []string {
	var groups []string
	for _, s := range r.Rows {
		group, _, _ := strings.Cut(s.Row, "/")
		if len(groups) == 0 || groups[len(groups)-1] != group {
			groups = append(groups, group)
		}
	}
	return groups
}

// of are the rows of a group, with their short names.
func (r *report) of(group string) (names []string, rows []*summary) {
	for _, s := range r.Rows {
		if name, ok := strings.CutPrefix(s.Row, group+"/"); ok {
			names, rows = append(names, name), append(rows, s)
		}
	}
	return names, rows
}

// table is table.md.
func (r *report) table() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Measured %s: %d rounds of %gs, %d connections, %d users, GOGC=%d, load by %s.\n",
		r.Date.Format(time.DateOnly), r.Rounds, r.Seconds, r.Connections, r.Users, r.GOGC, r.Client)
	if r.Rounds < enough {
		fmt.Fprintf(&b, "\n**Fewer than %d rounds: this shows that it works, and measures nothing.**\n", enough)
	}
	for _, group := range r.groups() {
		fmt.Fprintf(&b, "\n## %s\n\n", group)
		b.WriteString("| row | runs | req/s (min–max) | to its base (min–max) | to plain | p50 ms | p99 ms | CPU gateway | auth | upstream | extra | noisy |\n")
		b.WriteString("|---|---|---|---|---|---|---|---|---|---|---|---|\n")
		names, rows := r.of(group)
		for i, s := range rows {
			if s.Absent != "" {
				fmt.Fprintf(&b, "| %s | | %s | | | | | | | | | |\n", names[i], s.Absent)
				continue
			}
			fmt.Fprintf(&b, "| %s | %d | %.0f (%.0f–%.0f) | %.2f (%.2f–%.2f) | %s | %.2f | %.2f | %s | %s | %s | %+.1f | %s |\n",
				names[i], s.Runs, s.RPS.Median, s.RPS.Min, s.RPS.Max, s.Ratio.Median, s.Ratio.Min, s.Ratio.Max, unlessZero(s.Plain.Median, "%.2f"),
				s.P50, s.P99, unlessZero(s.Gateway, "%.1f"), unlessZero(s.Auth, "%.1f"), unlessZero(s.Upstream, "%.1f"), s.Extra,
				unlessZero(float64(s.Noisy), "%.0f"))
		}
	}
	b.WriteString("\nCPU is in µs for each request; *extra* is that of gateway and authoriser, over the base's. Ratios and *extra* are medians of comparisons with\n" +
		"a run of the base right beside, with the same token; *to plain* is within a round. *noisy*: runs during which other processes took more than 4 % of the machine, each of three times.\n")
	b.WriteString("\n## Rows\n\n| row | base | |\n|---|---|---|\n")
	for _, s := range r.Rows {
		_, base, _ := strings.Cut(s.Base, "/")
		fmt.Fprintf(&b, "| %s | %s | %s |\n", s.Row, base, s.What)
	}
	b.WriteString(r.Machine.table())
	return b.String()
}

func (m *machine) table() string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n## Machine\n\n| | |\n|---|---|\n| CPU | %s, %d cores |\n| memory | %s |\n| system | %s, %s |\n| Go | %s |\n",
		m.CPU, m.Cores, m.Memory, m.System, m.Kernel, m.Go)
	for _, server := range []string{"plain", "ours", "caddy-jwt", "caddy-security", "oauth2-proxy", "nginx"} {
		if version := m.Versions[server]; version != "" {
			fmt.Fprintf(&b, "| %s | %s |\n", server, version)
		}
	}
	return b.String()
}

func unlessZero(value float64, format string) string {
	if value == 0 {
		return ""
	}
	return fmt.Sprintf(format, value)
}

func (r *report) ratioPlot(group string) string {
	p := plot{title: group + ": throughput, as a ratio to plain Caddy's", format: "%.2f", line: 1}
	names, rows := r.of(group)
	for i, s := range rows {
		// No gate stands in these two, and they would dwarf all others.
		if s.Absent == "" && s.Plain.Median > 0 && names[i] != "direct" && names[i] != "nginx" {
			p.bars = append(p.bars, bar{label: names[i], parts: []float64{s.Plain.Median}, low: s.Plain.Min, high: s.Plain.Max, ours: strings.HasPrefix(names[i], "ours")})
		}
	}
	return p.svg()
}

func (r *report) cpuPlot(group string) string {
	p := plot{title: group + ": CPU for each request, µs", format: "%.1f", legend: []string{"gateway", "authoriser"}}
	names, rows := r.of(group)
	for i, s := range rows {
		if s.Absent == "" && s.Gateway > 0 {
			p.bars = append(p.bars, bar{label: names[i], parts: []float64{s.Gateway, s.Auth}, ours: strings.HasPrefix(names[i], "ours")})
		}
	}
	return p.svg()
}

func (r *report) latencyPlot(group string) string {
	p := plot{
		title:  fmt.Sprintf("%s: latency at saturation, %d connections, ms", group, r.Connections),
		format: "%.1f", legend: []string{"p50", "p99"},
	}
	names, rows := r.of(group)
	for i, s := range rows {
		if s.Absent == "" {
			p.bars = append(p.bars, bar{label: names[i], parts: []float64{s.P50, s.P99 - s.P50}, ours: strings.HasPrefix(names[i], "ours")})
		}
	}
	return p.svg()
}

// Package integration runs the program that users run, cmd/caddy, as a process
// before a real upstream, and looks at it from outside: over HTTP, over its
// admin API, in its logs, and through crashes and restarts.
package integration

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	// The tests build the program; with this, cached results know of changes.
	_ "github.com/caddy-polar/caddy-polar"
)

// patience is how long anything may take before a test gives up on it.
const patience = 20 * time.Second

// binary is the program under test, built once for all tests.
var binary string

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "caddy-polar-*")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "caddy")
	build := exec.Command("go", "build", "-o", binary, "./cmd/caddy")
	build.Dir = ".."
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building Caddy: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

type object = map[string]any

// server is one Caddy: a directory, a configuration, and most of the time a
// process.
type server struct {
	dir      string
	env      map[string]string
	key      []byte // what its webhooks are signed with
	upstream *upstream
	client   *http.Client

	admin string // host:port
	sites map[string]string

	fault  string // which system call fails for the process, and how: see failing
	cmd    *exec.Cmd
	exited chan struct{} // closed when the process has ended
	exit   error
}

// newServer makes a server that is not running yet. It has the usual secrets.
func newServer(t *testing.T) *server {
	t.Helper()
	s := &server{
		dir: t.TempDir(),
		env: map[string]string{
			"POLAR_WEBHOOK_SECRET": webhookSecret,
			"JWT_SECRET":           jwtSecret,
			"PRODUCT_PRO":          productPro,
			"PRODUCT_BASIC":        productBasic,
		},
		key:      []byte(webhookSecret),
		upstream: newUpstream(t),
		admin:    freeAddress(t),
		sites:    make(map[string]string),
		client: &http.Client{
			Timeout:       patience,
			Transport:     &http.Transport{DisableCompression: true},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
	t.Cleanup(func() {
		s.kill()
		s.client.CloseIdleConnections()
		if t.Failed() {
			t.Logf("Caddy's log, without what is for debugging, ends with:\n%s", tail(notable(s.logs()), 12))
		}
	})
	return s
}

// usual is the polar block of a server with the plans pro and basic.
const usual = `
	polar {
		webhook_secret {env.POLAR_WEBHOOK_SECRET}
		jwt secret {env.JWT_SECRET}
		plan pro {env.PRODUCT_PRO}
		plan basic {env.PRODUCT_BASIC}
	}`

// caddyfile is a whole configuration: global options, and sites as made by site.
func (s *server) caddyfile(global string, sites ...string) string {
	return fmt.Sprintf(`{
	admin %s
	auto_https off
	persist_config off
	grace_period 2s
	storage file_system %s
	log default {
		format json
		level DEBUG
	}
	%s
}
%s`, s.admin, filepath.Join(s.dir, "storage"), global, strings.Join(sites, "\n"))
}

// site is a site of the configuration, with an address of its own. {upstream}
// in its body is the address of the upstream.
func (s *server) site(t *testing.T, name, body string) string {
	t.Helper()
	if s.sites[name] == "" {
		s.sites[name] = freeAddress(t)
	}
	return fmt.Sprintf("http://%s {\n%s\n}", s.sites[name], strings.ReplaceAll(body, "{upstream}", s.upstream.address))
}

// paywall is a site with /pro/* and /basic/* behind the plans of that name.
func (s *server) paywall(t *testing.T, name string) string {
	t.Helper()
	return s.site(t, name, `
		polar
		polar_require /pro/* pro
		polar_require /basic/* basic
		reverse_proxy {upstream}`)
}

// startServer runs a server with the usual polar block and one site, app.
func startServer(t *testing.T, body string) *server {
	t.Helper()
	s := newServer(t)
	s.start(t, s.caddyfile(usual, s.site(t, "app", body)))
	return s
}

// startPaywall runs a server with the usual polar block and a paywall, app.
func startPaywall(t *testing.T) *server {
	t.Helper()
	s := newServer(t)
	s.start(t, s.caddyfile(usual, s.paywall(t, "app")))
	return s
}

// environ is a clean environment: nothing of the developer's is read or written.
func (s *server) environ() []string {
	env := []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + s.dir,
		"XDG_DATA_HOME=" + filepath.Join(s.dir, "data"), "XDG_CONFIG_HOME=" + filepath.Join(s.dir, "config"),
	}
	for _, name := range slices.Sorted(maps.Keys(s.env)) {
		env = append(env, name+"="+s.env[name])
	}
	return env
}

// store is the default gateway's file.
func (s *server) store() string { return filepath.Join(s.dir, "data", "caddy", "polar", "default.db") }

func (s *server) logFile() string { return filepath.Join(s.dir, "caddy.log") }

// logs is all that the processes of this server have written.
func (s *server) logs() string {
	b, _ := os.ReadFile(s.logFile())
	return string(b)
}

// start runs the server and waits until it serves.
func (s *server) start(t *testing.T, config string) {
	t.Helper()
	if err := s.tryStart(t, config); err != nil {
		t.Fatal(err)
	}
}

// tryStart is start for servers that may fail to.
func (s *server) tryStart(t *testing.T, config string) error {
	t.Helper()
	s.launch(t, config)
	for deadline := time.Now().Add(patience); ; pause() {
		select {
		case <-s.exited:
			return fmt.Errorf("Caddy ended at its start: %w", s.exit)
		default:
		}
		// The admin API answers this once a configuration has been loaded.
		if resp, err := s.client.Get("http://" + s.admin + "/config/"); err == nil {
			body, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err == nil && resp.StatusCode == http.StatusOK && strings.TrimSpace(string(body)) != "null" {
				return nil
			}
		}
		if time.Now().After(deadline) {
			return errors.New("Caddy is not ready in time")
		}
	}
}

// launch begins a process and waits for nothing.
func (s *server) launch(t *testing.T, config string) {
	t.Helper()
	file := s.write(t, "Caddyfile", config)
	log, err := os.OpenFile(s.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(binary, "run", "--config", file, "--adapter", "caddyfile")
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = s.dir, s.environ(), log, log
	if s.fault != "" {
		failing(t, cmd, s.fault)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan struct{})
	s.cmd, s.exited = cmd, exited
	go func() {
		s.exit = cmd.Wait()
		close(exited)
	}()
}

// pause is between two looks at something that is waited for.
func pause() { time.Sleep(5 * time.Millisecond) }

// waitFor waits until ok says so.
func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); pause() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// stop ends the process as an operator would.
func (s *server) stop(t *testing.T) {
	t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-s.exited:
	case <-time.After(patience):
		t.Fatal("Caddy does not stop on SIGTERM")
	}
	s.client.CloseIdleConnections()
}

// kill ends the process, if there is one, without a warning.
func (s *server) kill() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill()
	<-s.exited
	s.client.CloseIdleConnections()
}

// write puts a file into the server's directory.
func (s *server) write(t *testing.T, name, content string) string {
	t.Helper()
	file := filepath.Join(s.dir, name)
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// command runs another command of the program beside the server.
func (s *server) command(args ...string) (output string, err error) {
	cmd := exec.Command(binary, args...)
	cmd.Dir, cmd.Env = s.dir, s.environ()
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// load gives the running server a new configuration.
func (s *server) load(t *testing.T, config string) *reply {
	t.Helper()
	return s.ask(t, http.MethodPost, "/load", text(config), header("Content-Type", "text/caddyfile"))
}

// ask asks the admin API. Caddy replaces that listener too at each reload, and
// resets a connection that comes while it does: such a request is made again.
func (s *server) ask(t *testing.T, method, path string, options ...option) *reply {
	t.Helper()
	for deadline := time.Now().Add(patience); ; pause() {
		r, err := s.try(method, "http://"+s.admin+path, options...)
		if err == nil {
			return r
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// option changes a request before it is sent.
type option func(*http.Request)

func header(name string, values ...string) option {
	return func(r *http.Request) { r.Header[http.CanonicalHeaderKey(name)] = values }
}

func bearer(token string) option { return header("Authorization", "Bearer "+token) }

// as asks as a user who is signed in.
func as(user string) option { return bearer(userToken(user)) }

// browser asks as a browser does that goes to a page.
func browser(r *http.Request) {
	r.Header.Set("Accept", "text/html,application/xhtml+xml,*/*;q=0.8")
	r.Header.Set("Sec-Fetch-Mode", "navigate")
	r.Header.Set("Sec-Fetch-Dest", "document")
}

func text(body string) option {
	return func(r *http.Request) {
		r.Body, r.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
	}
}

func (s *server) get(t *testing.T, site, path string, options ...option) *reply {
	t.Helper()
	return s.do(t, http.MethodGet, site, path, options...)
}

func (s *server) do(t *testing.T, method, site, path string, options ...option) *reply {
	t.Helper()
	return s.send(t, method, "http://"+s.sites[site]+path, options...)
}

func (s *server) send(t *testing.T, method, url string, options ...option) *reply {
	t.Helper()
	r, err := s.try(method, url, options...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// try is send for those who expect errors, and for other goroutines.
func (s *server) try(method, url string, options ...option) (*reply, error) {
	r, err := http.NewRequest(method, url, nil)
	if err != nil {
		return nil, err
	}
	for _, o := range options {
		o(r)
	}
	resp, err := s.client.Do(r)
	if err != nil {
		return nil, err
	}
	return readReply(resp)
}

// raw sends bytes as they are and reads one answer. {host} in them is the
// site's address.
func (s *server) raw(t *testing.T, site, request string) *reply {
	t.Helper()
	conn, err := net.Dial("tcp", s.sites[site])
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(conn, strings.ReplaceAll(request, "{host}", s.sites[site])); err != nil {
		t.Fatal(err)
	}
	method, _, _ := strings.Cut(request, " ") // the answer to HEAD has no body
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		t.Fatalf("no answer to %q: %v", request, err)
	}
	r, err := readReply(resp)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// reply is an answer, read to its end.
type reply struct {
	status int
	header http.Header
	body   string
}

func readReply(resp *http.Response) (*reply, error) {
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	return &reply{resp.StatusCode, resp.Header, string(body)}, nil
}

func (r *reply) String() string { return fmt.Sprintf("%d %s", r.status, tail(r.body, 10)) }

// wants checks the status.
func (r *reply) wants(t *testing.T, status int) *reply {
	t.Helper()
	if r.status != status {
		t.Fatalf("got %v, want %d", r, status)
	}
	return r
}

// json reads the body as a JSON object.
func (r *reply) json(t *testing.T) object {
	t.Helper()
	var v object
	if err := json.Unmarshal([]byte(r.body), &v); err != nil {
		t.Fatalf("no JSON object: %v: %s", err, r)
	}
	return v
}

// problem checks that this is a refusal with that status and code, and reads it.
func (r *reply) problem(t *testing.T, status int, code string) object {
	t.Helper()
	r.wants(t, status)
	if got := r.header.Get("Content-Type"); got != "application/problem+json" {
		t.Errorf("Content-Type is %q", got)
	}
	p := r.json(t)
	if p["code"] != code || p["status"] != float64(status) {
		t.Fatalf("got %s, want code %s and status %d", r.body, code, status)
	}
	for _, key := range []string{"type", "title", "detail", "error"} {
		if s, _ := p[key].(string); s == "" {
			t.Errorf("%s is missing in %s", key, r.body)
		}
	}
	return p
}

// seen is the request as the upstream saw it, which answered with it.
func (r *reply) seen(t *testing.T) *seen {
	t.Helper()
	r.wants(t, http.StatusOK)
	v := new(seen)
	if err := json.Unmarshal([]byte(r.body), v); err != nil {
		t.Fatalf("the upstream did not answer this: %s", r)
	}
	return v
}

// seen is a request as it has reached the upstream.
type seen struct {
	Method, URI     string
	Header, Trailer http.Header
	Body            string
}

// notPlain is what some server or other takes for a dash in a header's name.
var notPlain = regexp.MustCompile(`[^a-z0-9]`)

// ours are the headers in our namespace, in whatever spelling, without prefix.
func (v *seen) ours() map[string]string {
	found := make(map[string]string)
	for _, h := range []http.Header{v.Header, v.Trailer} {
		for name, values := range h {
			folded := notPlain.ReplaceAllString(strings.ToLower(name), "-")
			if rest, ok := strings.CutPrefix(folded, "x-polar-"); ok {
				found[rest] += strings.Join(values, "|")
			}
		}
	}
	return found
}

// upstream is an application behind Caddy. It answers each request with what
// it has seen of it.
type upstream struct {
	address string
	hits    atomic.Int64
}

func newUpstream(t *testing.T) *upstream {
	t.Helper()
	u := new(upstream)
	srv := httptest.NewServer(u)
	t.Cleanup(srv.Close)
	u.address = srv.Listener.Addr().String()
	return u
}

func (u *upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	u.hits.Add(1)
	body, _ := io.ReadAll(r.Body)
	if policy := r.Header.Get("Test-Cache-Control"); policy != "" {
		w.Header().Set("Cache-Control", policy)
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(seen{r.Method, r.RequestURI, r.Header, r.Trailer, string(body)})
}

// reached says how many requests came to the upstream while f ran.
func (u *upstream) reached(f func()) int64 {
	before := u.hits.Load()
	f()
	return u.hits.Load() - before
}

// bluntUpstream is an application that reads nothing but lines, so that it
// takes requests whose paths a better one would refuse.
//
// It answers with the request's first line.
func bluntUpstream(t *testing.T) (address string, hits *atomic.Int64) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	hits = new(atomic.Int64)
	var serving sync.WaitGroup
	serve := func(conn net.Conn) {
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(patience))
		first := ""
		for lines := bufio.NewScanner(conn); lines.Scan(); {
			if first == "" {
				first = lines.Text()
			}
			if lines.Text() == "" {
				hits.Add(1)
				_, _ = fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", len(first), first)
				return
			}
		}
	}
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { serve(conn) })
		}
	})
	t.Cleanup(func() {
		listener.Close()
		serving.Wait()
	})
	return listener.Addr().String(), hits
}

var (
	portsMu sync.Mutex
	ports   = make(map[int]bool)
)

// freeAddress is a loopback address that nobody listens on. It lies below the
// ports that kernels hand out by themselves, so that nobody gets it by chance
// before, or between two runs of, the server that it is for.
func freeAddress(t *testing.T) string {
	t.Helper()
	portsMu.Lock()
	defer portsMu.Unlock()
	for range 1000 {
		port := 20000 + rand.IntN(12000)
		if ports[port] {
			continue
		}
		address := fmt.Sprintf("127.0.0.1:%d", port)
		if l, err := net.Listen("tcp", address); err == nil {
			l.Close()
			ports[port] = true
			return address
		}
	}
	t.Fatal("no free port")
	return ""
}

// tail is the end of a text.
func tail(s string, lines int) string {
	all := bytes.Split(bytes.TrimRight([]byte(s), "\n"), []byte("\n"))
	var b strings.Builder
	for _, line := range all[max(0, len(all)-lines):] {
		b.Write(line[:min(len(line), 600)])
		b.WriteByte('\n')
	}
	return b.String()
}

// notable is a log without the lines of level DEBUG.
func notable(log string) string {
	var kept []string
	for line := range strings.Lines(log) {
		if !strings.HasPrefix(line, `{"level":"debug"`) {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "")
}

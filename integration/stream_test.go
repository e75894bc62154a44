package integration

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// streamer is an application behind Caddy whose answers do not end.
type streamer struct {
	address string
	open    atomic.Int64
	release chan struct{} // lets /pro/wait answer
}

func newStreamer(t *testing.T) *streamer {
	t.Helper()
	u := &streamer{release: make(chan struct{})}
	srv := httptest.NewServer(u)
	t.Cleanup(srv.Close)
	t.Cleanup(srv.CloseClientConnections)
	u.address = srv.Listener.Addr().String()
	return u
}

func (u *streamer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	u.open.Add(1)
	defer u.open.Add(-1)
	switch r.URL.Path {
	case "/pro/wait":
		select {
		case <-u.release:
			_, _ = io.WriteString(w, "done")
		case <-r.Context().Done():
		}
	case "/pro/ws":
		conn, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		_, _ = io.Copy(conn, buffered)
	case "/pro/download":
		w.Header().Set("Content-Length", fmt.Sprint(int64(1)<<40))
		for piece := make([]byte, 32<<10); ; {
			if _, err := w.Write(piece); err != nil {
				return
			}
		}
	default:
		w.Header().Set("Content-Type", "text/event-stream")
		for {
			_, err := io.WriteString(w, "data: x\n\n")
			if err := errors.Join(err, http.NewResponseController(w).Flush()); err != nil {
				return
			}
			select {
			case <-r.Context().Done():
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
	}
}

// streamSite is a site whose gate looks each second, over HTTP/1.1 and HTTP/2
// without TLS.
func (s *server) streamSite(t *testing.T, app *streamer) string {
	t.Helper()
	files := filepath.Join(s.dir, "files", "pro", "files")
	if err := os.MkdirAll(files, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(files, "big"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(filepath.Join(files, "big"), 1<<36); err != nil {
		t.Fatal(err)
	}
	return s.site(t, "app", `
		polar
		polar_require /pro/* pro {
			recheck 1s
		}
		handle /pro/files/* {
			root `+filepath.Join(s.dir, "files")+`
			file_server
		}
		handle {
			reverse_proxy `+app.address+` {
				flush_interval -1
				stream_close_delay 1h
			}
		}`)
}

const streamOptions = usual + `
	servers {
		protocols h1 h2c
	}`

// newStreamServer is a server to which eternal grace applies, as by default.
func newStreamServer(t *testing.T) (*server, *streamer, string) {
	t.Helper()
	s, app := newServer(t), newStreamer(t)
	s.env["GODEBUG"] = "http2xconnect=1" // WebSockets over HTTP/2
	return s, app, strings.Replace(s.caddyfile(streamOptions, s.streamSite(t, app)), "grace_period 2s", "", 1)
}

// flow is an open answer.
type flow struct {
	name string
	io.Reader
	close func()
	// more asks for something, where the other side only answers.
	more func() error
}

// next reads a piece.
func (f *flow) next() error {
	if err := f.more(); err != nil {
		return err
	}
	_, err := io.ReadFull(f, make([]byte, 4))
	return err
}

// flows opens one answer of each kind.
func (s *server) flows(t *testing.T, user string) []*flow {
	t.Helper()
	h2 := &http.Transport{Protocols: new(http.Protocols)}
	h2.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(h2.CloseIdleConnections)
	h1 := &http.Transport{DisableCompression: true}
	t.Cleanup(h1.CloseIdleConnections)
	all := []*flow{s.webSocket(t, user), s.webSocketH2(t, user)}
	for name, via := range map[string]*http.Transport{"h1": h1, "h2": h2} {
		for _, path := range []string{"/pro/events", "/pro/download", "/pro/files/big"} {
			all = append(all, s.flow(t, name, via, path, user))
		}
	}
	return all
}

func (s *server) flow(t *testing.T, name string, via http.RoundTripper, path, user string) *flow {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.sites["app"]+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	as(user)(r)
	resp, err := via.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Cache-Control") != "private" {
		t.Fatalf("%s %s: %s %v", name, path, resp.Status, resp.Header)
	}
	return &flow{name + " " + path, resp.Body, func() { cancel(); resp.Body.Close() }, func() error { return nil }}
}

// webSocket is a WebSocket whose other side says what it hears.
func (s *server) webSocket(t *testing.T, user string) *flow {
	t.Helper()
	conn, err := net.Dial("tcp", s.sites["app"])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_, _ = fmt.Fprintf(conn, "GET /pro/ws HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nAuthorization: Bearer %s\r\n\r\n", s.sites["app"], userToken(user))
	answer := bufio.NewReader(conn)
	resp, err := http.ReadResponse(answer, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatal(resp, err)
	}
	return &flow{"h1 WebSocket", answer, func() { conn.Close() }, func() error {
		_, err := io.WriteString(conn, "ping")
		return err
	}}
}

// webSocketH2 opens a WebSocket as RFC 8441 says.
func (s *server) webSocketH2(t *testing.T, user string) *flow {
	t.Helper()
	conn, err := net.Dial("tcp", s.sites["app"])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_, _ = io.WriteString(conn, http2.ClientPreface)
	f := http2.NewFramer(conn, conn)
	f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for _, field := range [][2]string{
		{":method", "CONNECT"},
		{":protocol", "websocket"},
		{":scheme", "http"},
		{":path", "/pro/ws"},
		{":authority", s.sites["app"]},
		{"sec-websocket-version", "13"},
		{"authorization", "Bearer " + userToken(user)},
	} {
		_ = encoder.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]})
	}
	if err := errors.Join(f.WriteSettings(), f.WriteHeaders(http2.HeadersFrameParam{
		StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true,
	})); err != nil {
		t.Fatal(err)
	}
	in, out := io.Pipe()
	opened := make(chan string, 1)
	var writing sync.Mutex
	go func() {
		for {
			frame, err := f.ReadFrame()
			if err != nil {
				_ = out.CloseWithError(err)
				return
			}
			writing.Lock()
			switch frame := frame.(type) {
			case *http2.SettingsFrame:
				if !frame.IsAck() {
					_ = f.WriteSettingsAck()
				}
			case *http2.MetaHeadersFrame:
				opened <- frame.PseudoValue("status")
			case *http2.DataFrame:
				_, _ = out.Write(frame.Data())
				if frame.StreamEnded() {
					_ = out.CloseWithError(io.EOF)
				}
			case *http2.RSTStreamFrame:
				_ = out.CloseWithError(fmt.Errorf("reset: %v", frame.ErrCode))
			}
			writing.Unlock()
		}
	}()
	select {
	case status := <-opened:
		if status != "200" {
			t.Fatal(status)
		}
	case <-time.After(patience):
		t.Fatal("no answer to CONNECT")
	}
	return &flow{"h2 WebSocket", in, func() { conn.Close() }, func() error {
		writing.Lock()
		defer writing.Unlock()
		return f.WriteData(1, false, []byte("ping"))
	}}
}

// goOn reads from all of them for a while.
func goOn(t *testing.T, flows []*flow, until time.Time) {
	t.Helper()
	for once := true; once || time.Now().Before(until); once = false {
		for _, f := range flows {
			if err := f.next(); err != nil {
				t.Fatalf("%s: %v", f.name, err)
			}
		}
	}
}

// end reads all of them to their ends, which nothing may make look whole.
func end(t *testing.T, flows []*flow) {
	t.Helper()
	began := time.Now()
	var reading sync.WaitGroup
	for _, f := range flows {
		timeout := time.AfterFunc(patience, f.close)
		reading.Go(func() {
			_, err := io.Copy(io.Discard, f)
			if !timeout.Stop() {
				t.Errorf("%s goes on", f.name)
			}
			if err == nil && (strings.Contains(f.name, "download") || strings.Contains(f.name, "big")) {
				t.Errorf("%s looks whole", f.name)
			}
			// a second, one more for what is slow, and for this machine
			if took := time.Since(began); took > 6*time.Second {
				t.Errorf("%s took %v to end", f.name, took)
			}
		})
	}
	reading.Wait()
}

func (s *server) revoke(t *testing.T, u *subscriber) {
	t.Helper()
	s.deliver(t, "app", u.event(t, "subscription.revoked", object{
		"canceled_at": wire(now), "ends_at": wire(now), "ended_at": wire(now),
	}))
}

// TestStreams: answers that go on do so over a renewal, and end soon after the
// access, also for a client that does not read.
func TestStreams(t *testing.T) {
	t.Parallel()
	s, app, config := newStreamServer(t)
	s.start(t, config)
	before, _ := s.goroutines(t)
	u := newSubscriber(productPro)
	ends := time.Now().Add(2 * time.Second)
	s.deliver(t, "app", u.event(t, "subscription.active", object{"current_period_end": wire(ends)}))
	flows := s.flows(t, u.user)
	goOn(t, flows, time.Time{})
	s.deliver(t, "app", u.active(t)) // the renewal
	goOn(t, flows, ends.Add(1500*time.Millisecond))
	stalled := []*flow{
		s.flow(t, "stalled", &http.Transport{}, "/pro/download", u.user),
		s.flow(t, "stalled", &http.Transport{}, "/pro/files/big", u.user),
	}

	s.revoke(t, u)
	end(t, flows)
	waitFor(t, "the application to be left alone", func() bool { return app.open.Load() == 0 })
	waitFor(t, "the handlers to have returned", func() bool {
		_, profile := s.goroutines(t)
		return !strings.Contains(profile, "gatedWriter")
	})
	for _, f := range stalled {
		f.close()
	}
	waitFor(t, "as many ends as streams", func() bool {
		return s.metric(t, `caddy_polar_streams_ended_total{gateway="default",reason="canceled"}`) == float64(len(flows)+len(stalled))
	})
	s.get(t, "app", "/pro/events", as(u.user)).problem(t, http.StatusPaymentRequired, "canceled")
	s.client.CloseIdleConnections()
	waitFor(t, "as many goroutines as before", func() bool {
		n, _ := s.goroutines(t)
		return n <= before+8
	})
	if strings.Contains(s.logs(), "panic") {
		t.Error("something has panicked")
	}
}

// TestStreamsOfClientsThatLeave checks that they take nothing with them.
func TestStreamsOfClientsThatLeave(t *testing.T) {
	t.Parallel()
	s, app, config := newStreamServer(t)
	s.start(t, config)
	before, _ := s.goroutines(t)
	u := s.subscribe(t, "app", productPro)
	for range 3 {
		flows := s.flows(t, u.user)
		goOn(t, flows, time.Now().Add(1500*time.Millisecond)) // so that they are watched
		for _, f := range flows {
			f.close()
		}
	}
	waitFor(t, "the application to be left alone", func() bool { return app.open.Load() == 0 })
	// Also when nothing is being written.
	ctx, leave := context.WithCancel(t.Context())
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.sites["app"]+"/pro/wait", nil)
	if err != nil {
		t.Fatal(err)
	}
	as(u.user)(r)
	left := make(chan error, 1)
	go func() {
		resp, err := s.client.Do(r)
		if err == nil {
			resp.Body.Close()
		}
		left <- err
	}()
	waitFor(t, "the request to arrive", func() bool { return app.open.Load() == 1 })
	leave()
	<-left
	waitFor(t, "the application to be left alone", func() bool { return app.open.Load() == 0 })
	s.client.CloseIdleConnections()
	waitFor(t, "as many goroutines as before", func() bool {
		n, _ := s.goroutines(t)
		return n <= before+8
	})
}

// TestStreamsOverReload: they go on, and heed what the new configuration knows.
func TestStreamsOverReload(t *testing.T) {
	t.Parallel()
	s, _, config := newStreamServer(t)
	s.start(t, config)
	paid, revoked, ending := s.subscribe(t, "app", productPro), s.subscribe(t, "app", productPro), newSubscriber(productPro)
	ends := time.Now().Add(4 * time.Second)
	s.deliver(t, "app", ending.event(t, "subscription.active", object{"current_period_end": wire(ends)}))
	flows, toRevoke, toEnd := s.flows(t, paid.user), s.flows(t, revoked.user), s.flows(t, ending.user)
	all := append(append(append([]*flow{}, flows...), toRevoke...), toEnd...)
	goOn(t, all, time.Time{})
	reloaded := strings.Replace(config, "recheck 1s", "recheck 2s", 1)
	reloaded = strings.Replace(reloaded, "polar {", "polar {\n\t\tgrace {\n\t\t\trenewal 0s\n\t\t}", 1)
	s.load(t, reloaded).wants(t, http.StatusOK)
	goOn(t, all, time.Time{})
	s.revoke(t, revoked)
	end(t, toRevoke)
	end(t, toEnd) // by the new configuration's grace
	goOn(t, flows, ends.Add(time.Second))

	s.load(t, strings.ReplaceAll(reloaded, " pro {", " other {")).wants(t, http.StatusOK)
	end(t, flows) // nobody can tell any more what they were let through for
	if got := s.metric(t, `caddy_polar_streams_ended_total{gateway="default",reason="reconfigured"}`); got != float64(len(flows)) {
		t.Error(got)
	}
}

// TestStopWithStreams: streams do not keep Caddy from stopping, neither those
// of this configuration nor those of an earlier one, while a request that has
// not been answered yet is answered.
func TestStopWithStreams(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ reload, own bool }{{false, false}, {false, true}, {true, false}, {true, true}} {
		t.Run(fmt.Sprintf("reload %v, own events %v", c.reload, c.own), func(t *testing.T) {
			t.Parallel()
			s, app, config := newStreamServer(t)
			s.start(t, config)
			u := s.subscribe(t, "app", productPro)
			flows := append(s.flows(t, u.user), s.flow(t, "h1", &http.Transport{}, "/pro/events", u.user))
			gated := len(flows)
			if c.own {
				flows = append(flows, s.ownEvents(t, u.user))
			}
			for range 3 { // and clients that do not read
				for _, path := range []string{"/pro/download", "/pro/files/big"} {
					s.flow(t, "stalled", &http.Transport{}, path, u.user)
				}
			}
			answered := make(chan error, 1)
			opened := app.open.Load()
			go func() {
				r, err := s.try(http.MethodGet, "http://"+s.sites["app"]+"/pro/wait", as(u.user))
				if err == nil && (r.status != http.StatusOK || r.body != "done") {
					err = errors.New(r.String())
				}
				answered <- err
			}()
			waitFor(t, "the request to arrive", func() bool { return app.open.Load() > opened })
			goOn(t, flows[:gated], time.Time{})
			if c.reload {
				s.load(t, config+"\nhttp://"+freeAddress(t)+" {\n}").wants(t, http.StatusOK)
				goOn(t, flows[:gated], time.Time{})
			}
			flows = append(flows, s.flow(t, "young", &http.Transport{}, "/pro/events", u.user))
			if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			stopping := time.Now()
			end(t, flows)
			waitFor(t, "the gate to look again meanwhile", func() bool { return time.Since(stopping) > 2500*time.Millisecond })
			close(app.release)
			if err := <-answered; err != nil {
				t.Errorf("the request: %v", err)
			}
			select {
			case <-s.exited:
			case <-time.After(4 * time.Second):
				t.Fatal("Caddy does not stop")
			}
		})
	}
}

// TestStopWithOneStream: nor does one alone, with nothing else that would tell the
// gateway in time that the server shuts down; nor one that the gate has ended, and
// whose client does not notice.
func TestStopWithOneStream(t *testing.T) {
	t.Parallel()
	for name, open := range map[string]func(*testing.T, *server, *subscriber){
		"young": func(t *testing.T, s *server, u *subscriber) {
			goOn(t, []*flow{s.flow(t, "h1", &http.Transport{}, "/pro/events", u.user)}, time.Time{})
		},
		"old": func(t *testing.T, s *server, u *subscriber) {
			goOn(t, []*flow{s.flow(t, "h1", &http.Transport{}, "/pro/events", u.user)}, time.Now().Add(1500*time.Millisecond))
		},
		"stalled": func(t *testing.T, s *server, u *subscriber) { s.stalledH2(t, "/pro/files/big", u.user) },
		"stalled and ended": func(t *testing.T, s *server, u *subscriber) {
			s.stalledH2(t, "/pro/files/big", u.user)
			s.revoke(t, u)
			waitFor(t, "the end of the stream", func() bool {
				return s.metric(t, `caddy_polar_streams_ended_total{gateway="default",reason="canceled"}`) == 1
			})
			if _, profile := s.goroutines(t); !strings.Contains(profile, "gatedWriter") {
				t.Fatal("its handler is not blocked")
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, _, config := newStreamServer(t)
			s.start(t, config)
			open(t, s, s.subscribe(t, "app", productPro))
			if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			select {
			case <-s.exited:
			case <-time.After(10 * time.Second): // a second each to be a stream and to be cut, and for this machine
				t.Fatal("Caddy does not stop")
			}
		})
	}
}

// stalledH2 asks over HTTP/2, and reads for as long as the server may send.
func (s *server) stalledH2(t *testing.T, path, user string) {
	t.Helper()
	conn, err := net.Dial("tcp", s.sites["app"])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	_, _ = io.WriteString(conn, http2.ClientPreface)
	f := http2.NewFramer(conn, conn)
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for _, field := range [][2]string{
		{":method", "GET"},
		{":scheme", "http"},
		{":path", path},
		{":authority", s.sites["app"]},
		{"authorization", "Bearer " + userToken(user)},
	} {
		_ = encoder.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]})
	}
	if err := errors.Join(f.WriteSettings(), f.WriteHeaders(http2.HeadersFrameParam{
		StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: true,
	})); err != nil {
		t.Fatal(err)
	}
	const window = 1<<16 - 1 // as it is at first
	for got := 0; got < window; {
		frame, err := f.ReadFrame()
		if err != nil {
			t.Fatalf("after %d bytes: %v", got, err)
		}
		switch frame := frame.(type) {
		case *http2.SettingsFrame:
			if !frame.IsAck() {
				_ = f.WriteSettingsAck()
			}
		case *http2.DataFrame:
			got += len(frame.Data())
		}
	}
}

// ownEvents is the gateway's own stream.
func (s *server) ownEvents(t *testing.T, user string) *flow {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.sites["app"]+"/auth/polar/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	as(user)(r)
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatal(resp, err)
	}
	return &flow{"/auth/polar/events", resp.Body, func() { resp.Body.Close() }, func() error { return nil }}
}

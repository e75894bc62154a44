package caddypolar

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-polar/caddy-polar/entitlement"
	"github.com/caddy-polar/caddy-polar/identity"
)

// bubble runs a test on a clock of its own, in the years of Polar's bodies.
func bubble(t *testing.T, test func(*testing.T)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)))
		test(t)
	})
}

// subscribed is the test user's subscription, whose period ends then.
func subscribed(t testing.TB, event string, end time.Time) []byte {
	change := map[string]any{
		"created_at": end.Add(-time.Hour), "current_period_start": end.Add(-time.Hour), "current_period_end": end,
		"modified_at": time.Now(),
	}
	if event == "subscription.revoked" {
		change["status"], change["ended_at"] = "canceled", time.Now()
	}
	return payload(t, event, change)
}

// proGate is a gate before the plan pro.
func proGate(t testing.TB, polar string) (*Gateway, *Gate) {
	t.Helper()
	app, ctx := provisioned(t, polar+"\nplan pro "+testProduct)
	gate := &Gate{Plans: []string{"pro"}}
	if err := gate.Provision(ctx); err != nil {
		t.Fatal(err)
	}
	return app.Gateways["default"], gate
}

// ask asks as the test user, and panics as the handler does.
func ask(t testing.TB, gate *Gate, next handlerFunc) (*httptest.ResponseRecorder, error) {
	t.Helper()
	w := newRecorder()
	r := mustRequest(t, "http://localhost/pro").WithContext(t.Context())
	r.Header.Set("Authorization", "Bearer "+token(t, testUser, map[string]any{"exp": time.Now().Add(time.Minute).Unix()}))
	return w, gate.ServeHTTP(w, prepared(r, w), next)
}

// An answer ends when the access does, to the moment where that is known
// before, and not when its token does.
func TestAnswerEndsWithItsPeriod(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g, gate := proGate(t, "grace {\nrenewal 0s\n}")
		take(t, g, subscribed(t, "subscription.active", time.Now().Add(10*time.Minute+7*time.Second)))
		began := time.Now()
		_, err := ask(t, gate, func(w http.ResponseWriter, r *http.Request) error {
			_, _ = io.WriteString(w, "data: 1\n\n")
			<-r.Context().Done()
			if cause := context.Cause(r.Context()); cause != context.Canceled { //nolint:errorlint // reverse_proxy counts others as failures of the upstream
				t.Error(cause)
			}
			return nil
		})
		if took := time.Since(began).Round(10 * time.Millisecond); err != nil || took != 10*time.Minute+7*time.Second {
			t.Errorf("it ended after %v: %v", took, err)
		}
	})
}

func TestAnswerEndsWithinRecheck(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g, gate := proGate(t, "")
		end := time.Now().Add(24 * time.Hour)
		take(t, g, subscribed(t, "subscription.active", end))
		var revoked time.Time
		time.AfterFunc(5*time.Minute+11*time.Second, func() {
			revoked = time.Now()
			take(t, g, subscribed(t, "subscription.revoked", end))
		})
		_, _ = ask(t, gate, func(_ http.ResponseWriter, r *http.Request) error {
			<-r.Context().Done()
			return nil
		})
		if took := time.Since(revoked); revoked.IsZero() || took > defaultRecheck {
			t.Errorf("it ended %v after", took)
		}
	})
}

// A renewal in time, or the grace that follows a period, goes unnoticed.
func TestAnswerGoesOnWhileTheAccessLasts(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g, gate := proGate(t, "grace {\nrenewal 1h\n}")
		began := time.Now()
		take(t, g, subscribed(t, "subscription.active", began.Add(10*time.Minute)))
		time.AfterFunc(time.Hour, func() { take(t, g, subscribed(t, "subscription.active", began.Add(3*time.Hour))) })
		w, err := ask(t, gate, func(w http.ResponseWriter, r *http.Request) error {
			for time.Since(began) < 3*time.Hour+30*time.Minute {
				if _, err := io.WriteString(w, "."); err != nil {
					return err
				}
				select {
				case <-r.Context().Done():
					return fmt.Errorf("ended after %v", time.Since(began))
				case <-time.After(5 * time.Minute):
				}
			}
			return nil
		})
		if err != nil || w.Body.Len() != 42 {
			t.Error(w.Body, err)
		}
	})
}

// Unknown is not unpaid.
func TestAnswerGoesOnWhilePolarIsAway(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g, gate := proGate(t, "access_token obviously_fake\nserver http://127.0.0.1:1\nsync off\ngrace {\nrenewal 0s\n}")
		end := time.Now().Add(10 * time.Minute)
		take(t, g, subscribed(t, "subscription.active", end))
		time.AfterFunc(time.Hour, func() {
			if _, err := ask(t, gate, noop); err != nil {
				t.Error(err)
			}
			take(t, g, subscribed(t, "subscription.revoked", end))
		})
		began := time.Now()
		_, _ = ask(t, gate, func(_ http.ResponseWriter, r *http.Request) error {
			<-r.Context().Done()
			return nil
		})
		if took := time.Since(began); took < time.Hour || took > time.Hour+defaultRecheck {
			t.Errorf("it ended after %v", took)
		}
	})
}

// What has waited for so long that the access has ended is refused as any
// other, whatever its handler has to say.
func TestEndBeforeTheAnswer(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g, gate := proGate(t, "grace {\nrenewal 0s\n}")
		take(t, g, subscribed(t, "subscription.active", time.Now().Add(time.Minute)))
		w, err := ask(t, gate, func(w http.ResponseWriter, r *http.Request) error {
			<-r.Context().Done()
			w.WriteHeader(499)
			_, err := io.WriteString(w, "nothing")
			return err
		})
		if err != nil || w.Code != http.StatusPaymentRequired || !strings.Contains(w.Body.String(), "period_ended") {
			t.Error(w.Code, w.Body, err)
		}
	})
}

// Whatever a handler does with the writer fails once the access has ended, and
// what was cut short does not look whole.
func TestWriterFails(t *testing.T) {
	for name, write := range map[string]func(w http.ResponseWriter) error{
		"write": func(w http.ResponseWriter) error { _, err := w.Write([]byte("x")); return err },
		"read from": func(w http.ResponseWriter) error {
			_, err := w.(io.ReaderFrom).ReadFrom(strings.NewReader("x"))
			return err
		},
		"copy":       func(w http.ResponseWriter) error { _, err := io.Copy(w, zeros{}); return err },
		"flush":      func(w http.ResponseWriter) error { return http.NewResponseController(w).Flush() },
		"hijack":     func(w http.ResponseWriter) error { _, _, err := http.NewResponseController(w).Hijack(); return err },
		"huge write": func(w http.ResponseWriter) error { _, err := w.Write(make([]byte, 1<<20)); return err },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				g, gate := proGate(t, "grace {\nrenewal 0s\n}")
				take(t, g, subscribed(t, "subscription.active", time.Now().Add(time.Minute)))
				aborted := false
				func() {
					defer func() { aborted = recover() == http.ErrAbortHandler }() //nolint:errorlint // as net/http does
					_, _ = ask(t, gate, func(w http.ResponseWriter, r *http.Request) error {
						_, _ = w.Write([]byte("begun"))
						<-r.Context().Done()
						if err := write(w); !errors.Is(err, errEnded) {
							t.Error(err)
						}
						return nil
					})
				}()
				if want := name != "flush" && name != "hijack"; aborted != want {
					t.Errorf("aborted: %v, want %v", aborted, want)
				}
			})
		})
	}
}

// zeros is a source that never ends. Each piece takes a second.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { time.Sleep(time.Second); clear(p); return len(p), nil }

// Neither a long answer in one piece, nor a long copy, is out of sight.
func TestLongPieces(t *testing.T) {
	for name, write := range map[string]func(w http.ResponseWriter) error{
		"write": func(w http.ResponseWriter) error { _, err := w.Write(make([]byte, 100<<20)); return err },
		"copy":  func(w http.ResponseWriter) error { _, err := io.Copy(w, zeros{}); return err },
		"limited": func(w http.ResponseWriter) error {
			_, err := io.CopyN(w, zeros{}, 100<<20)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				g, gate := proGate(t, "grace {\nrenewal 0s\n}")
				take(t, g, subscribed(t, "subscription.active", time.Now().Add(time.Minute)))
				began := time.Now()
				defer func() {
					took := time.Since(began)
					if recover() == nil || took < time.Minute || took > time.Minute+5*time.Second {
						t.Errorf("it ended after %v", took)
					}
				}()
				r := mustRequest(t, "http://localhost/pro").WithContext(t.Context())
				r.Header.Set("Authorization", "Bearer "+token(t, testUser, nil))
				w := slowWriter{newRecorder()}
				_ = gate.ServeHTTP(w, prepared(r, w), handlerFunc(func(w http.ResponseWriter, _ *http.Request) error { return write(w) }))
			})
		})
	}
}

// slowWriter takes a second for 64 kB.
type slowWriter struct{ *httptest.ResponseRecorder }

func (w slowWriter) Write(p []byte) (int, error) {
	time.Sleep(time.Duration(len(p)) * time.Second >> 16)
	return len(p), nil
}

func (w slowWriter) ReadFrom(r io.Reader) (int64, error) { return io.Copy(io.Discard, r) }

// An answer in one piece costs no timer and no context.
func TestShortAnswersAreNotWatched(t *testing.T) {
	g, gate := proGate(t, "")
	take(t, g, activeNow(t))
	for name, write := range map[string]handlerFunc{
		"empty": noop,
		"write": func(w http.ResponseWriter, _ *http.Request) error { _, err := w.Write(make([]byte, 1000)); return err },
		"file": func(w http.ResponseWriter, _ *http.Request) error {
			_, err := io.CopyN(w, strings.NewReader("0123456789"), 10)
			return err
		},
	} {
		var s *gatedStream
		_, err := ask(t, gate, func(w http.ResponseWriter, r *http.Request) error {
			s = &w.(*gatedWriter).stream
			return write(w, r)
		})
		if err != nil || s.watch != nil || s.waited.Load() {
			t.Error(name, err, s.watch, s.waited.Load())
		}
	}
	_, err := ask(t, gate, func(w http.ResponseWriter, _ *http.Request) error {
		_, err := w.(io.ReaderFrom).ReadFrom(strings.NewReader("who knows how much"))
		if w.(*gatedWriter).stream.watch == nil {
			t.Error("a source of unknown length is not watched")
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// However a handler leaves, nothing of the watch stays behind.
func TestNothingStaysBehind(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g, gate := proGate(t, "")
		take(t, g, activeNow(t))
		w := newRecorder()
		r := mustRequest(t, "http://localhost/pro").WithContext(t.Context())
		r.Header.Set("Authorization", "Bearer "+token(t, testUser, nil))
		r = prepared(r, w)
		before := r.Context()
		var during context.Context
		listed := func() int {
			g.open.mu.Lock()
			defer g.open.mu.Unlock()
			return len(g.open.list)
		}
		func() {
			defer func() { _ = recover() }()
			_ = gate.ServeHTTP(w, r, handlerFunc(func(w http.ResponseWriter, r *http.Request) error {
				during = r.Context()
				_ = during.Done()
				time.Sleep(2 * time.Second)
				if listed() != 1 {
					t.Error("it is not in the list")
				}
				panic(http.ErrAbortHandler)
			}))
		}()
		if listed() != 0 || r.Context() != before || during.Err() == nil || during.(*gatedStream).watch.timer.Stop() {
			t.Error("something stays behind")
		}
	}) // which waits for all goroutines, and so for timers that run on
}

// Contexts that are made of a gated request's take no goroutine each, and tell
// what it holds.
func TestContextOfAStream(t *testing.T) {
	g, gate := proGate(t, "")
	take(t, g, activeNow(t))
	_, err := ask(t, gate, func(_ http.ResponseWriter, r *http.Request) error {
		if r.Context().Err() != nil || r.Context().Value(caddy.ReplacerCtxKey) == nil {
			t.Error("before anybody waits")
		}
		before := runtime.NumGoroutine()
		for range 100 {
			ctx, cancel := context.WithTimeout(r.Context(), time.Hour)
			defer cancel()
			if ctx.Value(caddy.ReplacerCtxKey) == nil || ctx.Err() != nil {
				t.Error("while somebody waits")
			}
		}
		if n := runtime.NumGoroutine() - before; n > 10 {
			t.Errorf("%d goroutines", n)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// A hijacked connection is closed, as nobody else would.
func TestHijackedConnectionEnds(t *testing.T) {
	g, gate := proGate(t, "grace {\nrenewal 0s\n}")
	take(t, g, subscribed(t, "subscription.active", time.Now().Add(500*time.Millisecond)))
	left := make(chan error, 1)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = gate.ServeHTTP(w, prepared(r, w), handlerFunc(func(w http.ResponseWriter, _ *http.Request) error {
			conn, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				return err
			}
			_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\n\r\n")
			_, err = io.Copy(conn, conn)
			left <- err
			return nil
		}))
	}))
	defer s.Close()
	conn, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = fmt.Fprintf(conn, "GET /pro HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n", token(t, testUser, nil))
	answer := bufio.NewReader(conn)
	if line, err := answer.ReadString('\n'); !strings.Contains(line, "101") {
		t.Fatal(line, err)
	}
	_, _ = io.ReadAll(answer)
	if err := <-left; !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}

// What the gate has ended, over HTTP/2 and with a client that does not read, leaves
// the connection to others, until Caddy stops.
func TestEndedStreamAtExit(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g, gate := proGate(t, "")
		ending := make(chan struct{})
		gate.ending = ending
		ours, theirs := net.Pipe()
		defer theirs.Close()
		s := &gatedStream{
			Context: context.WithValue(t.Context(), connKey{}, net.Conn(ours)),
			gate:    gate, opened: &undecided, visit: &visit{gateway: g, identity: &identity.Identity{User: "nobody", Customer: "nobody"}},
		}
		defer s.leave()
		closed := func(within time.Duration) bool {
			_ = theirs.SetReadDeadline(time.Now().Add(within))
			_, err := theirs.Read(make([]byte, 1))
			return errors.Is(err, io.EOF)
		}
		s.continues()
		if closed(time.Minute) || !s.over.Load() {
			t.Fatal("it is not over, or others have lost the connection")
		}
		g.open.mu.Lock()
		_, listed := g.open.list[s]
		g.open.mu.Unlock()
		if !listed {
			t.Fatal("nobody would find it when Caddy stops")
		}
		if s.endAtExit(); closed(time.Minute) {
			t.Fatal("the connection is closed before the server shuts down")
		}
		close(ending)
		for range 2 * cutAfter / exitPoll { // as often as it is looked
			s.endAtExit()
			if closed(exitPoll) {
				return
			}
		}
		t.Error("the connection stays open")
	})
}

// A stream ends at exit once it is one, and its server shuts down.
func TestStreamAtExit(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g, gate := proGate(t, "")
		take(t, g, activeNow(t))
		ending := make(chan struct{})
		gate.ending = ending
		s := &gatedStream{Context: t.Context(), gate: gate, opened: &undecided, visit: &visit{gateway: g, identity: &identity.Identity{User: testUser, Customer: testUser}}}
		defer s.leave()
		s.continues()
		time.Sleep(streamAge + time.Millisecond)
		if s.endAtExit(); s.over.Load() {
			t.Error("it ends during shutdown_delay")
		}
		close(ending)
		young := &gatedStream{Context: t.Context(), gate: gate, opened: &undecided, visit: &visit{gateway: g, identity: &identity.Identity{User: testUser, Customer: testUser}}}
		defer young.leave()
		if young.endAtExit(); young.over.Load() {
			t.Error("what has not begun is ended")
		}
		young.continues()
		if young.endAtExit(); young.over.Load() {
			t.Error("what is no stream yet is ended")
		}
		time.Sleep(streamAge)
		s.endAtExit()
		young.endAtExit()
		if !s.over.Load() || !young.over.Load() {
			t.Error("they go on")
		}
	})
}

func TestEndsAreCounted(t *testing.T) {
	for _, reason := range append([]entitlement.Reason{endReconfigured, endShutdown}, entitlement.RefusedReasons...) {
		if _, err := streamsEndedTotal.GetMetricWithLabelValues("default", string(reason)); err != nil {
			t.Error(err)
		}
	}
}

// BenchmarkOpenStreams holds 10,000 answers open, behind a gate and without
// one, and tells what each of them takes.
func BenchmarkOpenStreams(b *testing.B) {
	const count = 10_000
	g, gate := proGate(b, "")
	take(b, g, activeNow(b))
	bearer := "Bearer " + token(b, testUser, nil)
	for name, serve := range map[string]handlerFunc{
		"bare": func(w http.ResponseWriter, r *http.Request) error { <-r.Context().Done(); return nil },
		"gated": func(w http.ResponseWriter, r *http.Request) error {
			return gate.ServeHTTP(w, r, handlerFunc(func(w http.ResponseWriter, r *http.Request) error {
				_ = http.NewResponseController(w).Flush()
				<-r.Context().Done()
				return nil
			}))
		},
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				var before, during runtime.MemStats
				runtime.GC()
				runtime.ReadMemStats(&before)
				goroutines := runtime.NumGoroutine()
				ctx, cancel := context.WithCancel(b.Context())
				var open sync.WaitGroup
				for range count {
					open.Go(func() {
						w := newRecorder()
						r := mustRequest(b, "http://localhost/pro").WithContext(ctx)
						r.Header.Set("Authorization", bearer)
						_ = serve(w, prepared(r, w))
					})
				}
				time.Sleep(3 * time.Second) // past the first look
				runtime.GC()
				runtime.ReadMemStats(&during)
				b.ReportMetric(float64(during.HeapAlloc+during.StackInuse-before.HeapAlloc-before.StackInuse)/count, "B/stream")
				b.ReportMetric(float64(runtime.NumGoroutine()-goroutines)/count, "goroutines/stream")
				cancel()
				open.Wait()
			}
		})
	}
}

// TestYoungAnswersAreWatchedLater: an answer that is waited for has a timer of its own
// only if it is still there after its youth, and no place once it is over.
func TestYoungAnswersAreWatchedLater(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g, gate := proGate(t, "")
		take(t, g, activeNow(t))
		watched := func(s *gatedStream) bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.watch != nil && s.watch.timer != nil
		}
		taken := func() (n int) {
			for i := range g.young.places {
				if g.young.places[i].Load() != nil {
					n++
				}
			}
			return n
		}
		for name, test := range map[string]struct {
			takes time.Duration
			own   bool
		}{"short": {0, false}, "long": {youth, true}} {
			_, err := ask(t, gate, func(w http.ResponseWriter, r *http.Request) error {
				s := &w.(*gatedWriter).stream
				if r.Context().Done() == nil || r.Context().Done() != s.waiting.Done() || taken() != 1 || watched(s) {
					t.Error(name, "is not young:", taken())
				}
				time.Sleep(test.takes)
				synctest.Wait()
				if own := watched(s); own != test.own || own == (taken() == 1) {
					t.Error(name, own, taken())
				}
				return nil
			})
			if err != nil || taken() != 0 {
				t.Error(name, err, taken())
			}
		}
	})
}

// TestYoungAnswersFindNoPlace: where all places are taken an answer is watched at once.
func TestYoungAnswersFindNoPlace(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g, gate := proGate(t, "grace {\nrenewal 0s\n}")
		end := time.Now().Add(10 * time.Second)
		take(t, g, subscribed(t, "subscription.active", end))
		gone := &gatedStream{left: true}
		for i := range g.young.places {
			g.young.places[i].Store(gone)
		}
		_, _ = ask(t, gate, func(w http.ResponseWriter, r *http.Request) error {
			<-r.Context().Done()
			return nil
		})
		if late := time.Since(end); late < 0 || late > 10*time.Millisecond {
			t.Errorf("it ended %v after its period", late)
		}
	})
}

// TestAnswerEndsSoonAfterItBegan: in the last second of a period it is looked to the
// moment, as ever.
func TestAnswerEndsSoonAfterItBegan(t *testing.T) {
	for _, left := range []time.Duration{300 * time.Millisecond, streamAge, 1400 * time.Millisecond} {
		bubble(t, func(t *testing.T) {
			g, gate := proGate(t, "grace {\nrenewal 0s\n}")
			end := time.Now().Add(left)
			take(t, g, subscribed(t, "subscription.active", end))
			_, _ = ask(t, gate, func(w http.ResponseWriter, r *http.Request) error {
				<-r.Context().Done()
				return nil
			})
			if late := time.Since(end); late < 0 || late > 10*time.Millisecond {
				t.Errorf("with %v left it ended %v after", left, late)
			}
		})
	}
}

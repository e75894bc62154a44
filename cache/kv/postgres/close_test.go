package postgres_test

import (
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-polar/caddy-polar/cache"
	"github.com/caddy-polar/caddy-polar/entitlement"
)

// TestCloseWithoutNetwork: a store is closed soon, though the network swallows whatever is
// sent and nobody is told, and a writer waits.
func TestCloseWithoutNetwork(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var cut atomic.Bool
	carry := func(to, from net.Conn) {
		defer to.Close()
		buf := make([]byte, 32<<10)
		for {
			n, err := from.Read(buf)
			if err != nil {
				return
			}
			if cut.Load() {
				_, _ = io.Copy(io.Discard, from) // until the other side goes away
				return
			}
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			to, err := net.Dial("tcp", "127.0.0.1:"+server.Port)
			if err != nil {
				_ = conn.Close()
				return
			}
			go carry(to, conn)
			go carry(conn, to)
		}
	}()
	s := cache.NewStore(newEngine(t, "postgres://postgres@"+l.Addr().String()+"/postgres", newSchema()))
	if _, err := s.Claim(owner); err != nil {
		t.Fatal(err)
	}
	apply(t, s, purchase("ada", 1, entitlement.StatusActive))
	cut.Store(true)
	written := make(chan error)
	go func() {
		_, err := s.Apply(t.Context(), purchase("ada", 2, entitlement.StatusCanceled))
		written <- err
	}()
	until(t, 10*time.Second, "noticed", func() bool { return behind(s) > 0 })
	from := time.Now()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if took := time.Since(from); took > 5*time.Second {
		t.Errorf("it took %s", took)
	}
	if err := <-written; err == nil {
		t.Error("it was written")
	}
}

package pgtest

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// ErrNoBouncer says that there is no PgBouncer on this machine.
var ErrNoBouncer = errors.New("PgBouncer is not installed: install the package pgbouncer, or put it into PATH")

// Bouncer is a pooler in transaction mode before a server: each transaction can have
// another connection, of very few.
type Bouncer struct {
	Port string
	dir  string
	cmd  *exec.Cmd
}

// Bounce starts a pooler before the server. Stop it before that.
func (s *Server) Bounce() (*Bouncer, error) {
	program, err := exec.LookPath("pgbouncer")
	if err != nil {
		if program, err = exec.LookPath("/usr/sbin/pgbouncer"); err != nil {
			return nil, ErrNoBouncer
		}
	}
	b := new(Bouncer)
	if b.dir, err = os.MkdirTemp("", "polar-pgbouncer-"); err != nil {
		return nil, err
	}
	if b.Port, err = freePort(); err != nil {
		return nil, err
	}
	config := filepath.Join(b.dir, "pgbouncer.ini")
	if err := os.WriteFile(config, fmt.Appendf(nil, `[databases]
* = host=127.0.0.1 port=%s user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %s
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 3
`, s.Port, b.Port), 0o644); err != nil {
		return nil, err
	}
	if err := os.Chmod(b.dir, 0o755); err != nil { // another user reads it
		return nil, err
	}
	b.cmd = exec.Command(program, "-q", config)
	b.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.as}
	if err := b.cmd.Start(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(b.dir))
	}
	for range 200 {
		if conn, err := net.Dial("tcp", "127.0.0.1:"+b.Port); err == nil {
			return b, conn.Close()
		}
		time.Sleep(50 * time.Millisecond)
	}
	return nil, errors.Join(errors.New("the pooler does not answer"), b.Stop())
}

// Stop ends the pooler.
func (b *Bouncer) Stop() error {
	_ = b.cmd.Process.Kill()
	_ = b.cmd.Wait()
	return os.RemoveAll(b.dir)
}

// DSN is the connection string of the database through the pooler.
func (b *Bouncer) DSN() string { return "postgres://postgres@127.0.0.1:" + b.Port + "/postgres" }

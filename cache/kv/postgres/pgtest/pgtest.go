// Package pgtest runs a PostgreSQL server for tests: a cluster of its own in a temporary
// directory, on loopback, as an ordinary user. It needs PostgreSQL's programs: Debian's
// package postgresql, or any that are in PATH.
package pgtest

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// ErrNone says that there is no PostgreSQL on this machine.
var ErrNone = errors.New("PostgreSQL is not installed: install the package postgresql, or put initdb into PATH")

// Server is a running server.
type Server struct {
	Dir, Port string
	bin       string
	as        *syscall.Credential // nil: who runs the tests
	cmd       *exec.Cmd
}

// nobody is a user who owns nothing: PostgreSQL does not run as root.
const nobody = 65534

// Start makes a cluster and starts its server.
func Start() (*Server, error) {
	bin, err := programs()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "polar-postgres-")
	if err != nil {
		return nil, err
	}
	s := &Server{Dir: dir, bin: bin}
	if os.Geteuid() == 0 {
		s.as = &syscall.Credential{Uid: nobody, Gid: nobody}
		if err := os.Chown(dir, nobody, nobody); err != nil {
			return nil, err
		}
	}
	if s.Port, err = freePort(); err != nil {
		return nil, err
	}
	init := s.program("initdb", "-D", s.data(), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
	if out, err := init.CombinedOutput(); err != nil {
		return nil, errors.Join(fmt.Errorf("initdb: %w\n%s", err, out), os.RemoveAll(dir))
	}
	if err := s.Run(); err != nil {
		return nil, errors.Join(err, s.Stop())
	}
	return s, nil
}

// programs is the directory of PostgreSQL's programs, of the newest version.
func programs() (string, error) {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if len(found) > 0 {
		return filepath.Dir(found[len(found)-1]), nil
	}
	if path, err := exec.LookPath("initdb"); err == nil {
		return filepath.Dir(path), nil
	}
	return "", ErrNone
}

func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port), nil
}

func (s *Server) data() string { return filepath.Join(s.Dir, "data") }

func (s *Server) program(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(s.bin, name), args...)
	cmd.Dir = s.Dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.as}
	return cmd
}

// Run starts the server, which does not run, and waits until it answers.
func (s *Server) Run() error {
	s.cmd = s.program("postgres", "-D", s.data(), "-p", s.Port, "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=",
		"-c", "fsync=off", "-c", "max_connections=200", "-c", "log_min_messages=fatal")
	if err := s.cmd.Start(); err != nil {
		return err
	}
	for range 600 {
		if s.program("pg_isready", "-q", "-h", "127.0.0.1", "-p", s.Port).Run() == nil {
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return errors.New("the server does not answer")
}

// Crash ends the server as if the power had failed.
func (s *Server) Crash() {
	_ = s.cmd.Process.Signal(syscall.SIGQUIT)
	_ = s.cmd.Wait()
}

// Stop ends the server and removes the cluster.
func (s *Server) Stop() error {
	if s.cmd != nil && s.cmd.Process != nil {
		s.Crash()
	}
	return os.RemoveAll(s.Dir)
}

// DSN is the connection string of a database for whom the tests run.
func (s *Server) DSN() string { return "postgres://postgres@127.0.0.1:" + s.Port + "/postgres" }

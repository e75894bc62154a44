package integration

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"
)

// faultEnv has this program become another one, for which a system call fails. It
// needs no rights, and the other program is the real one, as it is shipped.
const faultEnv = "INTEGRATION_FAULT"

// faults are what can be asked of failing: which call fails, and with which error.
var faults = map[string]struct {
	call  uintptr
	errno syscall.Errno
}{
	"fsync fails":            {syscall.SYS_FDATASYNC, syscall.EIO},
	"writing fails":          {syscall.SYS_PWRITE64, syscall.EIO},
	"the disk is read-only":  {syscall.SYS_PWRITE64, syscall.EROFS},
	"the disk quota is used": {syscall.SYS_PWRITE64, syscall.EDQUOT},
}

// failing has a command run with a fault.
func failing(t *testing.T, cmd *exec.Cmd, fault string) {
	t.Helper()
	if _, ok := faults[fault]; !ok {
		t.Fatalf("there is no fault %q", fault)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Env = append(cmd.Env, faultEnv+"="+fault+"\n"+cmd.Path)
	cmd.Path = self
}

func init() {
	if v := os.Getenv(faultEnv); v != "" {
		fault, program, _ := strings.Cut(v, "\n")
		fmt.Fprintln(os.Stderr, become(program, fault))
		os.Exit(1)
	}
}

// become runs a program in place of this one, with a seccomp filter that answers the
// call of the fault without making it.
func become(program, fault string) error {
	const (
		noNewPrivileges, setSeccomp, filterMode = 38, 22, 2
		load, equal, answer                     = 0x20, 0x15, 0x06
		allow, fail                             = 0x7fff0000, 0x00050000
	)
	f := faults[fault]
	filter := []syscall.SockFilter{
		{Code: load}, // the call's number
		{Code: equal, K: uint32(f.call), Jf: 1},
		{Code: answer, K: fail | uint32(f.errno)},
		{Code: answer, K: allow},
	}
	rules := syscall.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	runtime.LockOSThread() // the filter is this thread's, and the program's that it becomes
	if _, _, err := syscall.RawSyscall6(syscall.SYS_PRCTL, noNewPrivileges, 1, 0, 0, 0, 0); err != 0 {
		return fmt.Errorf("no filter of system calls: %w", err)
	}
	if _, _, err := syscall.RawSyscall(syscall.SYS_PRCTL, setSeccomp, filterMode, uintptr(unsafe.Pointer(&rules))); err != 0 {
		return fmt.Errorf("no filter of system calls: %w", err)
	}
	if err := os.Unsetenv(faultEnv); err != nil {
		return err
	}
	return syscall.Exec(program, os.Args, os.Environ())
}

// smallDisk mounts an empty disk of that size at a directory of the server's store.
func (s *server) smallDisk(t *testing.T, size string) (dir string) {
	t.Helper()
	dir = s.store()[:strings.LastIndexByte(s.store(), '/')]
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Fatalf("a small disk cannot be mounted: %v: run this test as root, as CI does, or under `unshare -rm`", err)
	}
	t.Cleanup(func() {
		s.kill()
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// remount makes the small disk read-only, or writable again.
func remount(t *testing.T, dir string, flags uintptr) {
	t.Helper()
	if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT|flags, ""); err != nil {
		t.Fatal(err)
	}
}

// limitFiles says how many descriptors the server's process can have from now on.
func (s *server) limitFiles(t *testing.T, most uint64) {
	t.Helper()
	limit := syscall.Rlimit{Cur: most, Max: 20000}
	if _, _, err := syscall.RawSyscall6(syscall.SYS_PRLIMIT64, uintptr(s.cmd.Process.Pid), syscall.RLIMIT_NOFILE,
		uintptr(unsafe.Pointer(&limit)), 0, 0, 0); err != 0 {
		t.Fatal(err)
	}
}

package cache

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/caddy-polar/caddy-polar/entitlement"
)

// asNobody runs do on a thread whose file accesses are nobody's, if this user
// could otherwise do everything. The thread ends with it.
func asNobody(do func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		if os.Geteuid() == 0 {
			runtime.LockOSThread() // for ever: the thread is not used again
			_ = syscall.Setfsuid(65534)
		}
		do()
	}()
	<-done
}

func TestNotWritable(t *testing.T) {
	open := func(t *testing.T) string {
		dir := t.TempDir()
		for d := dir; d != filepath.Clean(os.TempDir()) && d != "/"; d = filepath.Dir(d) {
			if err := os.Chmod(d, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		return dir
	}
	for _, c := range []struct {
		name      string
		file, dir os.FileMode
	}{
		{"read-only file", 0o444, 0o755},
		{"unreadable file", 0o000, 0o755},
		{"closed directory", 0o644, 0o000},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := filepath.Join(open(t), "d")
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, "polar.db")
			filled(t, path)
			before := must(os.ReadFile(path))
			if err := errors.Join(os.Chmod(path, c.file), os.Chmod(dir, c.dir)); err != nil {
				t.Fatal(err)
			}
			asNobody(func() { notWritable(t, path) })
			if err := errors.Join(os.Chmod(dir, 0o755), os.Chmod(path, 0o644)); err != nil {
				t.Fatal(err)
			}
			if string(must(os.ReadFile(path))) != string(before) {
				t.Error("the file has changed")
			}
		})
	}
	for name, sub := range map[string]string{"no file, read-only directory": "", "no directory": "e"} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(open(t), "d")
			if err := os.Mkdir(dir, 0o555); err != nil {
				t.Fatal(err)
			}
			asNobody(func() { notWritable(t, filepath.Join(dir, sub, "polar.db")) })
			if entries := must(os.ReadDir(dir)); len(entries) > 0 {
				t.Errorf("something was made: %v", entries)
			}
		})
	}
}

func notWritable(t *testing.T, path string) {
	s := New(path)
	defer s.Close()
	_, err := s.Claim(testOwner)
	if !errors.Is(err, ErrNotWritable) || errors.Is(err, ErrCorrupt) || errors.Is(err, ErrLocked) {
		t.Errorf("claiming: %v", err)
		return
	}
	if !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "let Caddy's user write the file and its directory") {
		t.Errorf("%q does not name %s or say what to do", err, path)
	}
}

// breakWrites makes every write to the store's open file fail, as a disk does
// that has gone read-only: reads go on.
func breakWrites(t *testing.T, s *Store) {
	t.Helper()
	readOnly := must(os.Open(s.Path()))
	defer readOnly.Close()
	for _, e := range must(os.ReadDir("/proc/self/fd")) {
		var fd int
		if _, err := fmt.Sscan(e.Name(), &fd); err != nil || fd == int(readOnly.Fd()) {
			continue
		}
		if name, _ := os.Readlink("/proc/self/fd/" + e.Name()); name == s.Path() {
			if err := syscall.Dup3(int(readOnly.Fd()), fd, syscall.O_CLOEXEC); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatal("the store's file is not open")
}

// TestFailedCommit: what the disk refused is told to all who waited for it,
// is not in force, and does not keep the store from going on.
func TestFailedCommit(t *testing.T) {
	s := testStore(t)
	apply(t, s, purchase("u", 1))
	_ = account(t, s, "u")
	before := dump(t, s)
	old, seq := readAt(t, s, "u")
	breakWrites(t, s)
	batch := []*change{{facts: purchase("u", 2)}, {facts: purchase("v", 1)}}
	s.commit(batch)
	for _, c := range batch {
		if !errors.Is(c.err, syscall.EBADF) || c.applied != (Applied{}) {
			t.Errorf("%+v, %v", c.applied, c.err)
		}
	}
	// The disk may have kept the commit after all: only the file knows.
	s.memory.install("u", old, seq)
	if _, ok := s.memory.get("u"); ok {
		t.Error("memory still answers from before the failed commit")
	}
	if diff := differences(before, dump(t, s)); diff != "" {
		t.Errorf("refused by the disk and yet there:\n%s", diff)
	}
	for range 2 { // from the file, from memory
		if a := account(t, s, "u"); !a.Subscriptions[0].Version.Row.Equal(at(1)) || account(t, s, "v").Known() {
			t.Error("refused by the disk and yet in force")
		}
	}
	if a := apply(t, s, purchase("u", 2)); a != (Applied{New: 2, Wrong: 2}) {
		t.Errorf("after the failure: %+v", a)
	}
	if !account(t, s, "u").Subscriptions[0].Version.Row.Equal(at(2)) {
		t.Error("what was written is not in force")
	}
	consistent(t, s, "u", "v")
}

// TestCloseDuringFailedCommit: a disk that fails while the process stops must
// not keep it from stopping.
func TestCloseDuringFailedCommit(t *testing.T) {
	if os.Getenv("CACHE_TEST_CLOSE") == "" { // in another process, as it may never end
		cmd := exec.Command(must(os.Executable()), "-test.run=^TestCloseDuringFailedCommit$", "-test.timeout=15s")
		cmd.Env = append(os.Environ(), "CACHE_TEST_CLOSE=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("Close and the commit loop wait for each other: %v\n%s", err, out)
		}
		return
	}
	s := fastStore(t, t.TempDir())
	apply(t, s, purchase("bad", 1))
	apply(t, s, purchase("known", 1))
	if err := s.file().db.Load().Update(func(tx *bolt.Tx) error {
		return tx.Bucket(bucketSubscriptions).Put([]byte("s-bad"), []byte("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"))
	}); err != nil {
		t.Fatal(err)
	}
	db := s.file().db.Load()
	// The loop stands before facts that are known. Four changes wait behind it,
	// one of which cannot be folded: they share a batch, which then falls apart
	// into commits of their own. From here on the disk fails, and a reader holds
	// the file open, so that the loop has to wait when it lets go of it.
	reader := must(db.Begin(false))
	tx := must(db.Begin(true))
	results := make(chan error, 5)
	send := func(f *Facts) { _, err := s.Apply(t.Context(), f); results <- err }
	go send(purchase("known", 1))
	parked(1, "(*Store).write", "sync.Mutex.Lock")
	for i := range 3 {
		go send(purchase(fmt.Sprint(i), 1))
	}
	go send(&Facts{Subscriptions: []entitlement.Subscription{{Version: rev(9), ID: "s-bad", CustomerID: "c-bad"}}})
	parked(5, "(*Store).Apply", "select")
	breakWrites(t, s)
	_ = tx.Rollback()
	parked(1, "(*file).Reset", "sync.RWMutex.Lock")

	closed := make(chan error, 1)
	go func() { closed <- s.Close() }()
	parked(1, "(*Store).Close", "chan receive") // Close has begun
	_ = reader.Rollback()
	if err := <-closed; err != nil {
		t.Errorf("closing: %v", err)
	}
	for range 5 {
		<-results
	}
}

// TestCheck: a store that could not be written says so until it can be again.
func TestCheck(t *testing.T) {
	s := testStore(t)
	apply(t, s, purchase("u", 1))
	check := func() error { return s.Check(t.Context()) }
	if err := check(); err != nil {
		t.Fatal(err)
	}
	fails := func(name string) {
		t.Helper()
		breakWrites(t, s)
		if _, err := s.Apply(t.Context(), purchase(name, 1)); err == nil {
			t.Fatal("it was written all the same")
		}
	}
	ago := func() { s.unwritten.Load().at = s.unwritten.Load().at.Add(-openAgain) }
	fails("lost")
	_ = account(t, s, "another") // opens the file
	before := lastCommit(s)
	for range 2 { // nor is it tried all the time
		if err := check(); err == nil || !strings.Contains(err.Error(), "writing store "+s.Path()) || lastCommit(s) != before {
			t.Errorf("right after a failure: %v", err)
		}
	}
	apply(t, s, purchase("u", 1)) // known: nothing is written
	if err := check(); err == nil {
		t.Error("what was not written has mended it")
	}
	ago()
	if err := check(); err != nil || s.unwritten.Load() != nil || lastCommit(s) != before+1 {
		t.Errorf("tried again: %v", err)
	}
	fails("lost again")
	ago()
	_ = account(t, s, "a third")
	breakWrites(t, s)
	if err := check(); err == nil || time.Since(s.unwritten.Load().at) > time.Second {
		t.Errorf("tried again in vain: %v", err)
	}
	apply(t, s, purchase("v", 1))
	if err := check(); err != nil {
		t.Errorf("after a write: %v", err)
	}
	unclaimed := New(filepath.Join(t.TempDir(), "x.db"))
	defer unclaimed.Close()
	if err := unclaimed.Check(t.Context()); !errors.Is(err, errUnclaimed) {
		t.Error(err)
	}
}

// TestDiskOfADirectory that cannot be written says so, and nothing of the store.
func TestDiskOfADirectory(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o555); err != nil {
		t.Fatal(err)
	}
	var d Disk
	asNobody(func() { d = New(filepath.Join(dir, "polar.db")).Disk() })
	if !errors.Is(d.WriteError, os.ErrPermission) || errors.Is(d.WriteError, ErrReadOnly) {
		t.Errorf("%+v", d)
	}
	if err := unwritable(&os.PathError{Op: "open", Path: "x", Err: syscall.EROFS}); !errors.Is(err, ErrReadOnly) {
		t.Error(err)
	}
}

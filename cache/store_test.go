package cache

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/caddy-polar/caddy-polar/cache/kv"
	"github.com/caddy-polar/caddy-polar/entitlement"
)

// help is what the test binary does as another process.
func help(mode, path string) int {
	s := New(path)
	if _, err := s.Claim(testOwner); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	switch mode {
	case "hold":
		fmt.Println("held")
		_, _ = io.Copy(io.Discard, os.Stdin) // until the parent lets go
		_ = s.Close()
	case "write":
		round := os.Getenv("CACHE_TEST_ROUND")
		for writer := range 4 {
			go func() {
				for n := 0; ; n++ {
					id := fmt.Sprintf("%s-%d-%d", round, writer, n)
					if _, err := s.Apply(context.Background(), purchase(id, 1)); err != nil {
						fmt.Fprintln(os.Stderr, err)
						os.Exit(1)
					}
					fmt.Println(id)
				}
			}()
		}
		select {}
	}
	return 0
}

// purchase is a subscription of a user that both have the same id.
func purchase(id string, n int) *Facts {
	return &Facts{
		Customers: []entitlement.Customer{{Version: rev(n), ID: "c-" + id, ExternalID: id}},
		Subscriptions: []entitlement.Subscription{{
			Version: rev(n), ID: "s-" + id, CustomerID: "c-" + id, ProductID: "p", Status: entitlement.StatusActive, PeriodEnd: at(n + 1000),
		}},
	}
}

func helper(t *testing.T, mode, path string, env ...string) (*exec.Cmd, io.WriteCloser, *bufio.Scanner, *bytes.Buffer) {
	t.Helper()
	cmd := exec.Command(must(os.Executable()))
	cmd.Env = append(append(os.Environ(), helperMode+"="+mode, "CACHE_TEST_PATH="+path), env...)
	in, out := must(cmd.StdinPipe()), must(cmd.StdoutPipe())
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, in, bufio.NewScanner(out), &stderr
}

// filled makes a store with something in it, closed, and says how many bytes
// of the file are in use.
func filled(t *testing.T, path string) (used int64) {
	t.Helper()
	s := fastStore(t, filepath.Dir(path))
	for i := range 20 {
		var f Facts
		for j := range 20 {
			merge(&f, purchase(fmt.Sprintf("u%d-%d", i, j), 1))
		}
		apply(t, s, &f)
	}
	_ = s.file().db.Load().View(func(tx *bolt.Tx) error { used = tx.Size(); return nil })
	if err := s.file().db.Load().Sync(); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(s.Path(), path); err != nil {
		t.Fatal(err)
	}
	return used
}

// refused checks that a store cannot be had, for which reason, in a sentence
// that names the file and says what to do, and that the file is left alone.
func refused(t *testing.T, path string, o Owner, reason error, advice string) {
	t.Helper()
	before, readErr := os.ReadFile(path)
	s := New(path)
	_, err := s.Claim(o)
	if !errors.Is(err, reason) {
		t.Errorf("claiming: %v, want %v", err, reason)
	}
	for _, sentinel := range []error{ErrLocked, ErrNotWritable, ErrCorrupt, ErrNewerSchema, ErrOtherOwner, ErrClosed} {
		if sentinel != reason && errors.Is(err, sentinel) {
			t.Errorf("%v is also %v", err, sentinel)
		}
	}
	if err != nil && (!strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), advice)) {
		t.Errorf("%q does not name %s and say %q", err, path, advice)
	}
	if reason != ErrOtherOwner { // the owner is asked by Claim alone
		if _, err := s.Account("u"); !errors.Is(err, reason) {
			t.Errorf("an account: %v, want %v", err, reason)
		}
		if _, err := s.Apply(t.Context(), purchase("u", 1)); !errors.Is(err, reason) {
			t.Errorf("applying: %v, want %v", err, reason)
		}
	}
	if err := s.Close(); err != nil {
		t.Errorf("closing: %v", err)
	}
	after, err := os.ReadFile(path)
	if (err == nil) != (readErr == nil) || !bytes.Equal(before, after) {
		t.Errorf("the file has changed: %d bytes, before %d", len(after), len(before))
	}
}

const (
	adviceLocked  = "stop the other one"
	adviceCorrupt = "move it away or restore a backup"
	adviceNewer   = "run the newer version"
	adviceOwner   = "give each gateway a store of its own"
)

func TestLockedByAnotherProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "polar.db")
	filled(t, path)
	cmd, in, out, stderr := helper(t, "hold", path)
	if !out.Scan() || out.Text() != "held" {
		t.Fatalf("the helper says %q %s", out.Text(), stderr)
	}
	refused(t, path, testOwner, ErrLocked, adviceLocked)
	_ = in.Close()
	if err := cmd.Wait(); err != nil {
		t.Fatal(err, stderr)
	}
	s := claimed(t, path) // the other one has let go
	defer s.Close()
	if !account(t, s, "u1-1").Known() {
		t.Error("what the file held is gone")
	}
}

func TestLockedByAnotherStore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "polar.db")
	filled(t, path)
	db := must(bolt.Open(path, 0o600, nil))
	defer db.Close()
	refused(t, path, testOwner, ErrLocked, adviceLocked)
}

func TestTruncated(t *testing.T) {
	dir := t.TempDir()
	whole := filepath.Join(dir, "whole.db")
	used := filled(t, whole)
	content := must(os.ReadFile(whole))
	if used < 20*4096 || int64(len(content)) < used {
		t.Fatalf("%d bytes used of %d: too small to be cut", used, len(content))
	}
	half := used / 2 / 4096 * 4096
	for _, size := range []int64{
		1, 15, 16, 80, 512, 1000, 4095, 4096, 4097, 6000, 8191, 8192, 8193, 12288, 16384, 20000,
		half - 1, half, half + 1, half + 2048, used - 4096, used - 100, used - 1,
	} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
			path := filepath.Join(dir, fmt.Sprintf("cut%d.db", size))
			if err := os.WriteFile(path, content[:size], 0o600); err != nil {
				t.Fatal(err)
			}
			refused(t, path, testOwner, ErrCorrupt, adviceCorrupt)
		})
	}
	for _, size := range []int64{used, used + 1, (used + int64(len(content))) / 2} {
		t.Run(fmt.Sprintf("unused end cut at %d", size), func(t *testing.T) {
			path := filepath.Join(dir, fmt.Sprintf("cut%d.db", size))
			if err := os.WriteFile(path, content[:min(size, int64(len(content)))], 0o600); err != nil {
				t.Fatal(err)
			}
			s := fastPath(t, path)
			defer s.Close()
			apply(t, s, purchase("new", 1))
			for _, user := range []string{"u0-0", "u19-19", "new"} {
				if len(account(t, s, user).Subscriptions) != 1 {
					t.Errorf("%s has lost the subscription", user)
				}
			}
		})
	}
}

// fastPath claims a file without fsync.
func fastPath(t tester, path string) *Store {
	t.Helper()
	s := claimed(t, path)
	s.file().db.Load().NoSync = true
	return s
}

func TestGarbage(t *testing.T) {
	for name, content := range map[string][]byte{
		"text":         []byte("this is no store\n"),
		"a page":       bytes.Repeat([]byte{0xab}, 4096),
		"many pages":   bytes.Repeat([]byte("garbage!"), 10_000),
		"zeroes":       make([]byte, 65536),
		"a few zeroes": make([]byte, 100),
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "polar.db")
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
			refused(t, path, testOwner, ErrCorrupt, adviceCorrupt)
		})
	}
}

func TestBboltFileOfSomethingElse(t *testing.T) {
	for _, bucket := range []string{"acme", "meta", "zzz"} {
		t.Run(bucket, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "polar.db")
			db := must(bolt.Open(path, 0o600, nil))
			if err := db.Update(func(tx *bolt.Tx) error {
				return must(tx.CreateBucket([]byte(bucket))).Put([]byte("k"), []byte("v"))
			}); err != nil {
				t.Fatal(err)
			}
			_ = db.Close()
			refused(t, path, testOwner, ErrCorrupt, adviceCorrupt)
		})
	}
}

func TestNewerSchema(t *testing.T) {
	path := filepath.Join(t.TempDir(), "polar.db")
	filled(t, path)
	db := must(bolt.Open(path, 0o600, nil))
	if err := db.Update(func(tx *bolt.Tx) error {
		return tx.Bucket(bucketMeta).Put([]byte(keySchema), binary.AppendUvarint(nil, schema+1))
	}); err != nil {
		t.Fatal(err)
	}
	_ = db.Close()
	refused(t, path, testOwner, ErrNewerSchema, adviceNewer)
}

// TestOlderSchema: a file of the first schema is read as ever, and not by a
// version that knows no other any more, which would take it for something else.
func TestOlderSchema(t *testing.T) {
	const id = "0123abcd-ef45-6789-abcd-ef0123456789"
	path := filepath.Join(t.TempDir(), "polar.db")
	filled(t, path)
	db := must(bolt.Open(path, 0o600, nil))
	if err := db.Update(func(tx *bolt.Tx) error {
		return errors.Join(
			tx.Bucket(bucketMeta).Put([]byte(keySchema), []byte{1}),
			tx.Bucket(bucketCustomers).Put([]byte(id), []byte("\x02\x7f\x24"+id+"\x01u")),
			tx.Bucket(bucketByUser).Put([]byte(indexKey("u", kindCustomer, id)), nil),
		)
	}); err != nil {
		t.Fatal(err)
	}
	_ = db.Close()
	s := claimed(t, path)
	defer s.Close()
	apply(t, s, subscribed(1, "s", id, "", ""))
	if got := holds(account(t, s, "u")); got != id+"+own s ="+id {
		t.Errorf("u holds %q", got)
	}
	_ = s.view(func(tx kv.Tx) error {
		if h := readHeader(tx); h.schema != schema {
			t.Errorf("it is of schema %d still", h.schema)
		}
		return nil
	})
}

func TestOtherOwner(t *testing.T) {
	path := filepath.Join(t.TempDir(), "polar.db")
	filled(t, path)
	for name, change := range map[string]func(*Owner){
		"gateway":      func(o *Owner) { o.Gateway = "other" },
		"server":       func(o *Owner) { o.Server = "https://sandbox-api.polar.sh" },
		"organization": func(o *Owner) { o.Organization = "other" },
	} {
		t.Run(name, func(t *testing.T) {
			o := testOwner
			change(&o)
			o.MarkKey = []byte("must not be remembered")
			refused(t, path, o, ErrOtherOwner, adviceOwner)
		})
	}
	s := New(path)
	defer s.Close()
	o := testOwner
	o.Organization = "" // not known yet is not another
	if _, err := s.Claim(o); err != nil {
		t.Errorf("the same owner without organization: %v", err)
	}
}

func TestNewFile(t *testing.T) {
	for name, prepare := range map[string]func(path string) error{
		"no directory": func(string) error { return nil },
		"no file":      func(path string) error { return os.MkdirAll(filepath.Dir(path), 0o700) },
		"zero bytes": func(path string) error {
			return errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, nil, 0o600))
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "a", "b", "polar.db")
			if err := prepare(path); err != nil {
				t.Fatal(err)
			}
			s := claimed(t, path)
			defer s.Close()
			apply(t, s, purchase("u", 1))
			for p, want := range map[string]fs.FileMode{
				path: 0o600, filepath.Dir(path): 0o700, filepath.Dir(filepath.Dir(path)): 0o700,
			} {
				if got := must(os.Stat(p)).Mode().Perm(); got != want {
					t.Errorf("%s has mode %o, want %o", p, got, want)
				}
			}
		})
	}
}

// TestNewTouchesNothing: a configuration is checked beside a running server.
func TestNewTouchesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "polar.db")
	s := New(path)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Dir(path)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a store that was never used has made something: %v", err)
	}
	if s.Path() != path {
		t.Errorf("path %s, want %s", s.Path(), path)
	}
}

func TestUnclaimed(t *testing.T) {
	s := New(filepath.Join(t.TempDir(), "polar.db"))
	defer s.Close()
	if _, err := s.Apply(t.Context(), purchase("u", 1)); !errors.Is(err, errUnclaimed) {
		t.Errorf("applying: %v", err)
	}
	if _, err := s.Account("u"); !errors.Is(err, errUnclaimed) {
		t.Errorf("an account: %v", err)
	}
	if _, err := s.Claim(testOwner); err != nil {
		t.Fatal(err)
	}
	apply(t, s, purchase("u", 1))
	if !account(t, s, "u").Known() {
		t.Error("nothing is known after the claim")
	}
}

func TestOrganizationIsLearned(t *testing.T) {
	path := filepath.Join(t.TempDir(), "polar.db")
	s := New(path)
	defer s.Close()
	o := testOwner
	o.Organization = ""
	if _, err := s.Claim(o); err != nil {
		t.Fatal(err)
	}
	without := purchase("nobody's", 1)
	if a := apply(t, s, without); a != (Applied{New: 2, Missing: 2}) {
		t.Errorf("without organization: %+v", a)
	}
	first := purchase("first", 1)
	first.Organization = "acme"
	if a := apply(t, s, first); a != (Applied{New: 2, Missing: 2}) {
		t.Errorf("the first: %+v", a)
	}
	before := dump(t, s)
	foreign := purchase("foreign", 1)
	foreign.Organization = "other"
	if a := apply(t, s, foreign); a != (Applied{Foreign: true}) {
		t.Errorf("of another: %+v", a)
	}
	if diff := differences(before, dump(t, s)); diff != "" || account(t, s, "foreign").Known() {
		t.Errorf("facts of another organization were kept:\n%s", diff)
	}
	if _, err := s.Claim(o); err != nil {
		t.Errorf("claiming again, still without knowing: %v", err)
	}
	o.Organization = "acme"
	if _, err := s.Claim(o); err != nil {
		t.Errorf("claiming for the learned organization: %v", err)
	}
	o.Organization = "other"
	if _, err := s.Claim(o); !errors.Is(err, ErrOtherOwner) {
		t.Errorf("claiming for another organization: %v", err)
	}
	// In one batch, the first decides and the other is dropped.
	s2 := New(filepath.Join(t.TempDir(), "polar.db"))
	defer s2.Close()
	o.Organization = ""
	_ = must(s2.Claim(o))
	batch := []*change{{facts: first}, {facts: foreign}}
	s2.commit(batch)
	if batch[0].err != nil || batch[1].err != nil || batch[0].applied.Foreign || !batch[1].applied.Foreign {
		t.Errorf("in one batch: %+v %+v", batch[0], batch[1])
	}
}

func TestClaimKnownLater(t *testing.T) {
	s := New(filepath.Join(t.TempDir(), "polar.db"))
	defer s.Close()
	o := testOwner
	o.Organization = ""
	_ = must(s.Claim(o))
	_ = must(s.Claim(testOwner)) // the configuration names it now
	f := purchase("u", 1)
	f.Organization = "other"
	if a := apply(t, s, f); !a.Foreign {
		t.Errorf("%+v, but the organization was claimed", a)
	}
}

func TestKeys(t *testing.T) {
	path := filepath.Join(t.TempDir(), "polar.db")
	s := New(path)
	o := testOwner
	first := must(s.Claim(o))
	o.MarkKey = []byte("one")
	_ = must(s.Claim(o))
	o.MarkKey = []byte("two")
	_ = must(s.Claim(o))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = New(path)
	defer s.Close()
	o.MarkKey = nil
	k := must(s.Claim(o))
	if len(k.Random) != 32 || !bytes.Equal(k.Random, first.Random) {
		t.Errorf("random key %x, before %x", k.Random, first.Random)
	}
	if len(k.Marks) != 3 || string(k.Marks[0]) != "one" || string(k.Marks[1]) != "two" || !bytes.Equal(k.Marks[2], k.Random) {
		t.Errorf("mark keys %q", k.Marks)
	}
	other := must(claimedKeys(t))
	if bytes.Equal(other.Random, k.Random) {
		t.Error("two files have the same random key")
	}
}

func claimedKeys(t *testing.T) (Keys, error) {
	s := New(filepath.Join(t.TempDir(), "polar.db"))
	defer s.Close()
	return s.Claim(testOwner)
}

func TestReopenKeepsEverything(t *testing.T) {
	path := filepath.Join(t.TempDir(), "polar.db")
	s := claimed(t, path)
	f := purchase("u", 1)
	f.Orders = []entitlement.Order{{Version: rev(1), ID: "o", CustomerID: "c-u", Status: entitlement.OrderPaid}}
	f.Grants = []entitlement.Grant{{Version: rev(1), ID: "g", CustomerID: "c-u", SubscriptionID: "s-u", Granted: true}}
	f.Refunds = []entitlement.Refund{{Version: rev(1), ID: "r", OrderID: "o", Succeeded: true}}
	f.Passes = []entitlement.Pass{{ID: "p", User: "u", Plan: "pro", Until: at(9), Reason: "friend"}}
	f.Links = []Link{{Customer: "c9", User: "u"}}
	f.Checkouts = []Checkout{{ID: "k", CustomerID: "c-u", User: "u"}}
	apply(t, s, f)
	want, content := view(account(t, s, "u")), dump(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = claimed(t, path)
	defer s.Close()
	if got := view(account(t, s, "u")); got != want {
		t.Errorf("reopened:\n%s\nbefore:\n%s", got, want)
	}
	if diff := differences(content, dump(t, s)); diff != "" {
		t.Error(diff)
	}
	if a := apply(t, s, &Facts{Subscriptions: f.Subscriptions}); a != (Applied{Stale: 1}) {
		t.Errorf("known before: %+v", a)
	}
}

// TestKilled: what Apply has acknowledged outlives a kill -9.
func TestKilled(t *testing.T) {
	path := filepath.Join(t.TempDir(), "polar.db")
	var acknowledged []string
	for round := range 20 {
		cmd, _, out, stderr := helper(t, "write", path, fmt.Sprintf("CACHE_TEST_ROUND=%d", round))
		for n := 0; out.Scan(); n++ {
			acknowledged = append(acknowledged, out.Text())
			if n == 3+round*7%40 {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := cmd.Wait(); err == nil || stderr.Len() > 0 {
			t.Fatalf("the helper was not killed: %v %s", err, stderr)
		}
		s := claimed(t, path)
		for _, id := range acknowledged {
			if a := account(t, s, id); len(a.Subscriptions) != 1 || a.OwnCustomer() != "c-"+id {
				t.Fatalf("round %d: acknowledged %s is gone", round, id)
			}
		}
		consistent(t, s)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if len(acknowledged) < 100 {
		t.Errorf("only %d were acknowledged", len(acknowledged))
	}
}

// TestCanceledApply: a caller that gives up gets the reason at once, whether
// its facts are in the commit under way or wait for the next.
func TestCanceledApply(t *testing.T) {
	s := testStore(t)
	tx := must(s.file().db.Load().Begin(true)) // the loop's commit cannot begin
	cause := errors.New("the client went away")
	under, cancelUnder := context.WithCancelCause(t.Context())
	waiting, cancelWaiting := context.WithCancelCause(t.Context())
	errs := make(chan error, 2)
	go func() { _, err := s.Apply(under, purchase("under way", 1)); errs <- err }()
	go func() { _, err := s.Apply(waiting, purchase("waiting", 1)); errs <- err }()
	cancelUnder(cause)
	cancelWaiting(cause)
	for range 2 {
		if err := <-errs; !errors.Is(err, cause) {
			t.Errorf("given up: %v", err)
		}
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	apply(t, s, purchase("after", 1))
	if !account(t, s, "after").Known() {
		t.Error("the loop has stopped")
	}
	consistent(t, s, "under way", "waiting", "after")

	gone, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	if _, err := s.Apply(gone, purchase("gone", 1)); err != nil && !errors.Is(err, cause) {
		t.Errorf("given up before: %v", err)
	}
}

func TestClosed(t *testing.T) {
	s := claimed(t, filepath.Join(t.TempDir(), "polar.db"))
	apply(t, s, purchase("u", 1))
	_ = account(t, s, "u")
	for range 2 {
		if err := s.Close(); err != nil {
			t.Fatalf("closing: %v", err)
		}
	}
	if _, err := s.Apply(t.Context(), purchase("v", 1)); !errors.Is(err, ErrClosed) {
		t.Errorf("applying: %v", err)
	}
	for _, user := range []string{"u", "v"} {
		if _, err := s.Account(user); !errors.Is(err, ErrClosed) {
			t.Errorf("account of %s: %v", user, err)
		}
	}
	if _, err := s.Claim(testOwner); !errors.Is(err, ErrClosed) {
		t.Errorf("claiming: %v", err)
	}
}

// TestCloseWhileWriting: nothing acknowledged is lost, and who is too late is
// told so.
func TestCloseWhileWriting(t *testing.T) {
	for round := range 5 {
		path := filepath.Join(t.TempDir(), "polar.db")
		s := claimed(t, path)
		var mu sync.Mutex
		var acknowledged []string
		var wg sync.WaitGroup
		enough := make(chan struct{})
		var once sync.Once
		for writer := range 8 {
			wg.Go(func() {
				for n := 0; ; n++ {
					id := fmt.Sprintf("%d-%d", writer, n)
					if _, err := s.Apply(t.Context(), purchase(id, 1)); err != nil {
						if !errors.Is(err, ErrClosed) {
							t.Errorf("applying: %v", err)
						}
						return
					}
					mu.Lock()
					acknowledged = append(acknowledged, id)
					if len(acknowledged) > 30+round {
						once.Do(func() { close(enough) })
					}
					mu.Unlock()
				}
			})
		}
		<-enough
		if err := s.Close(); err != nil {
			t.Errorf("closing: %v", err)
		}
		wg.Wait()
		s = claimed(t, path)
		for _, id := range acknowledged {
			if !account(t, s, id).Known() {
				t.Errorf("%s was acknowledged and is gone", id)
			}
		}
		_ = s.Close()
	}
}

// TestFileClosedBeneath: a failure of the file reaches the callers, and the
// next of them finds it open again.
func TestFileClosedBeneath(t *testing.T) {
	s := testStore(t)
	apply(t, s, purchase("u", 1))
	if err := s.file().db.Load().Close(); err != nil {
		t.Fatal(err)
	}
	batch := []*change{{facts: purchase("v", 1)}, {facts: purchase("u", 2)}}
	s.commit(batch)
	for _, c := range batch {
		if c.err == nil || !errors.Is(c.err, bolterrors.ErrDatabaseNotOpen) || !strings.Contains(c.err.Error(), s.Path()) || c.applied != (Applied{}) {
			t.Errorf("%+v, error %v", c.applied, c.err)
		}
	}
	if got := account(t, s, "u"); !got.Subscriptions[0].Version.Row.Equal(at(1)) {
		t.Errorf("what could not be written is in force: %+v", got.Subscriptions)
	}
	if a := apply(t, s, purchase("u", 2)); a != (Applied{New: 2, Wrong: 2}) {
		t.Errorf("after the failure: %+v", a)
	}
	sameAsStore(t, s, "u", "v")
	if !account(t, s, "u").Subscriptions[0].Version.Row.Equal(at(2)) {
		t.Error("what was written is not in force")
	}
	// Memory works again, too.
	if _, ok := s.memory.get("u"); !ok {
		t.Error("the account is not held in memory")
	}
}

// TestCorruptRecord: one bad record fails what touches it, and nothing else.
func TestCorruptRecord(t *testing.T) {
	garbage := bytes.Repeat([]byte{0xff}, 12)
	for _, kind := range []struct {
		bucket  []byte
		key     string
		touches *Facts
	}{
		{bucketCustomers, "c-u", &Facts{Customers: []entitlement.Customer{{Version: rev(5), ID: "c-u"}}}},
		{bucketCustomers, "c-u", &Facts{Names: []Name{{"c-u", "v"}}}},
		{bucketSubscriptions, "s-u", &Facts{Subscriptions: []entitlement.Subscription{{Version: rev(5), ID: "s-u", CustomerID: "c-u"}}}},
		{bucketSubscriptions, "s-u", &Facts{Links: []Link{{"c-u", "v"}}}},
		{bucketSubscriptions, "s-u", &Facts{Grants: []entitlement.Grant{{Version: rev(5), ID: "g-u", CustomerID: "c-u", SubscriptionID: "s-u"}}}},
		{bucketOrders, "o-u", &Facts{Orders: []entitlement.Order{{Version: rev(5), ID: "o-u", CustomerID: "c-u"}}}},
		{bucketOrders, "o-u", &Facts{Refunds: []entitlement.Refund{{Version: rev(5), ID: "r-v", OrderID: "o-u"}}}},
		{bucketGrants, "g-u", &Facts{Grants: []entitlement.Grant{{Version: rev(5), ID: "g-u", CustomerID: "c-u", SubscriptionID: "s-u"}}}},
		{bucketRefunds, "r-u", &Facts{Refunds: []entitlement.Refund{{Version: rev(5), ID: "r-u", OrderID: "o-u"}}}},
		{bucketCheckouts, "k-u", &Facts{Checkouts: []Checkout{{ID: "k-u", CustomerID: "c"}}}},
		{bucketPasses, "u\x00p", &Facts{Subscriptions: []entitlement.Subscription{{Version: rev(5), ID: "s-u", CustomerID: "c-u"}}}},
	} {
		t.Run(fmt.Sprintf("%s/%+v", kind.bucket, kind.key), func(t *testing.T) {
			s := testStore(t)
			f := purchase("u", 1)
			f.Orders = []entitlement.Order{{Version: rev(1), ID: "o-u", CustomerID: "c-u"}}
			f.Grants = []entitlement.Grant{{Version: rev(1), ID: "g-u", CustomerID: "c-u", SubscriptionID: "s-u"}}
			f.Refunds = []entitlement.Refund{{Version: rev(1), ID: "r-u", OrderID: "o-u"}}
			f.Checkouts = []Checkout{{ID: "k-u", User: "u"}}
			f.Passes = []entitlement.Pass{{ID: "p", User: "u"}}
			apply(t, s, f)
			_ = account(t, s, "u") // who is held is read anew
			if err := s.file().db.Load().Update(func(tx *bolt.Tx) error {
				b := tx.Bucket(kind.bucket)
				if b.Get([]byte(kind.key)) == nil {
					t.Fatalf("no record %q", kind.key)
				}
				return b.Put([]byte(kind.key), garbage)
			}); err != nil {
				t.Fatal(err)
			}
			before := dump(t, s)
			batch := []*change{{facts: purchase("before", 1)}, {facts: kind.touches}, {facts: purchase("after", 1)}}
			s.commit(batch)
			if err := batch[1].err; !errors.Is(err, errShortRecord) || !strings.Contains(err.Error(), s.Path()) || batch[1].applied != (Applied{}) {
				t.Errorf("what touches the record: %+v, %v", batch[1].applied, err)
			}
			for _, i := range []int{0, 2} {
				if batch[i].err != nil || batch[i].applied != (Applied{New: 2, Missing: 2}) {
					t.Errorf("what does not touch it: %+v, %v", batch[i].applied, batch[i].err)
				}
			}
			for _, user := range []string{"before", "after"} {
				if len(account(t, s, user).Subscriptions) != 1 {
					t.Errorf("%s has no subscription", user)
				}
			}
			after := dump(t, s)
			for k, v := range before {
				if after[k] != v {
					t.Errorf("%s is %s, was %s", k, after[k], v)
				}
			}
			apply(t, s, purchase("alone", 1))
		})
	}
}

// TestCorruptRecordIsNoAnswer: an account that cannot be read is not empty.
func TestCorruptRecordIsNoAnswer(t *testing.T) {
	s := testStore(t)
	apply(t, s, purchase("u", 1))
	if err := s.file().db.Load().Update(func(tx *bolt.Tx) error {
		return tx.Bucket(bucketSubscriptions).Put([]byte("s-u"), bytes.Repeat([]byte{0xff}, 12))
	}); err != nil {
		t.Fatal(err)
	}
	s.memory.accounts.InvalidateAll()
	if a, err := s.Account("u"); !errors.Is(err, errShortRecord) || a != nil || !strings.Contains(err.Error(), s.Path()) {
		t.Errorf("account %v, error %v", a, err)
	}
}

func TestStaleWritesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "polar.db")
	s := claimed(t, path)
	defer s.Close()
	f := purchase("u", 3)
	f.Orders = []entitlement.Order{{Version: rev(3), ID: "o", CustomerID: "c-u", SubscriptionID: "s-u"}}
	f.Grants = []entitlement.Grant{{Version: rev(3), ID: "g", CustomerID: "c-u", SubscriptionID: "s-u"}}
	f.Refunds = []entitlement.Refund{{Version: rev(3), ID: "r", OrderID: "o"}}
	f.Checkouts = []Checkout{{ID: "k", CustomerID: "c-u", User: "u"}}
	f.Names = []Name{{"c-u", "u"}}
	apply(t, s, f)
	txID := func() (id int) {
		_ = s.file().db.Load().View(func(tx *bolt.Tx) error { id = tx.ID(); return nil })
		return id
	}
	before, content, held := txID(), must(os.ReadFile(path)), account(t, s, "u")
	stat := must(os.Stat(path))
	old := purchase("u", 2)
	old.Names = []Name{{"c-u", "someone else"}}
	old.Checkouts = []Checkout{{ID: "k"}}
	foreign := purchase("x", 1)
	foreign.Organization = "other"
	for _, again := range []*Facts{f, old, {}, foreign} {
		if a := apply(t, s, again); a.New != 0 {
			t.Errorf("%+v", a)
		}
	}
	if after := txID(); after != before {
		t.Errorf("transaction %d, before %d", after, before)
	}
	if now := must(os.Stat(path)); !now.ModTime().Equal(stat.ModTime()) || !bytes.Equal(content, must(os.ReadFile(path))) {
		t.Error("the file was written")
	}
	if account(t, s, "u") != held {
		t.Error("memory was replaced")
	}
}

// TestApplyIsAllOrNothing: facts of which one cannot be written leave no trace.
func TestApplyIsAllOrNothing(t *testing.T) {
	s := testStore(t)
	before := dump(t, s)
	f := purchase("u", 1)
	f.Refunds = []entitlement.Refund{{Version: rev(1), ID: ""}} // bbolt has no empty key
	if _, err := s.Apply(t.Context(), f); err == nil {
		t.Error("a refund without id was written")
	}
	if diff := differences(before, dump(t, s)); diff != "" {
		t.Error(diff)
	}
	if account(t, s, "u").Known() {
		t.Error("half of the facts are in force")
	}
}

// TestGroupCommit: what waits while a commit is under way shares the next.
func TestGroupCommit(t *testing.T) {
	s := testStore(t)
	tx := must(s.file().db.Load().Begin(true))
	id := tx.ID()
	const writers = 100
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			if _, err := s.Apply(t.Context(), purchase(fmt.Sprint(i), 1)); err != nil {
				t.Errorf("applying: %v", err)
			}
		})
	}
	parked(writers-1, "(*Store).Apply", "select")
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	_ = s.file().db.Load().View(func(tx *bolt.Tx) error {
		if commits := tx.ID() - id + 1; commits > 10 {
			t.Errorf("%d commits for %d changes", commits, writers)
		}
		return nil
	})
	for i := range writers {
		if !account(t, s, fmt.Sprint(i)).Known() {
			t.Errorf("%d is gone", i)
		}
	}
}

// TestSerialApplyDoesNotWait: nothing waits for a timer.
func TestSerialApplyDoesNotWait(t *testing.T) {
	s := testStore(t)
	begin := time.Now()
	for n := range 200 {
		apply(t, s, purchase("u", n))
	}
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("200 changes without fsync took %s", took)
	}
}

// TestFailureIsRemembered: requests do not queue up to learn again that the
// file cannot be opened, but a claim tries now, and so does a later request.
func TestFailureIsRemembered(t *testing.T) {
	path := filepath.Join(t.TempDir(), "polar.db")
	filled(t, path)
	other := must(bolt.Open(path, 0o600, nil))
	s := New(path)
	defer s.Close()
	if _, err := s.Claim(testOwner); !errors.Is(err, ErrLocked) {
		t.Fatalf("claiming: %v", err)
	}
	_ = other.Close()
	failed := func(at time.Time) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.file().failedAt = at
	}
	failed(time.Now().Add(time.Hour)) // a moment ago, however slow the machine
	if _, err := s.Account("u0-0"); !errors.Is(err, ErrLocked) {
		t.Errorf("right after: %v", err)
	}
	if _, err := s.Apply(t.Context(), purchase("u", 1)); !errors.Is(err, ErrLocked) {
		t.Errorf("right after: %v", err)
	}
	failed(time.Now().Add(-openAgain))
	if !account(t, s, "u0-0").Known() {
		t.Error("later the account is not known")
	}

	again := New(path)
	defer again.Close()
	if _, err := again.Claim(testOwner); !errors.Is(err, ErrLocked) {
		t.Fatalf("claiming: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	again.mu.Lock()
	again.file().failedAt = time.Now().Add(time.Hour)
	again.mu.Unlock()
	if _, err := again.Claim(testOwner); err != nil {
		t.Errorf("claiming does not try again: %v", err)
	}
}

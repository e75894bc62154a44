package cache

import (
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-polar/caddy-polar/cache/kv/postgres/pgtest"
)

// ofFiles are the tests of what only a file has: pages, locks, copies, layouts of earlier
// versions. All others are the suite that every engine has to pass.
var ofFiles = []string{
	"TestBackup", "TestCopy", "TestInspectRefuses", "TestDamagedPages",
	"TestTruncatedWhileOpen", "TestAnotherFileComesBack", "TestDamageAtOpen", "TestCountingGoesRoundNothing",
	"TestReplacedWhileOpen", "TestForgetUser", "TestDamagedFreelist", "TestForgottenIsInNoBucket",
	"TestStats", "TestNotWritable", "TestFailedCommit", "TestCloseDuringFailedCommit",
	"TestCheck", "TestLockedByAnotherProcess", "TestLockedByAnotherStore", "TestTruncated",
	"TestNewerSchema", "TestOlderSchema", "TestOtherOwner", "TestCanceledApply",
	"TestFileClosedBeneath", "TestCorruptRecord", "TestCorruptRecordIsNoAnswer", "TestGroupCommit",
	"TestFailureIsRemembered", "TestFileFromBeforeNotes", "TestNotes", "TestInspectGoesRoundNothing", "TestOneCopyAtATime",
	"TestChunks", "TestWalkStops", "TestWalkWhileWriting",
}

// TestOnPostgres runs the suite in a database.
func TestOnPostgres(t *testing.T) {
	if os.Getenv(postgresMode) != "" {
		return // it is what runs
	}
	server, err := pgtest.Start()
	if errors.Is(err, pgtest.ErrNone) && os.Getenv("CI") == "" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
	}()
	cmd := exec.Command(must(os.Executable()), "-test.skip=^("+strings.Join(ofFiles, "|")+")$", "-rapid.checks=5", "-test.v", "-test.parallel=4")
	cmd.Env = append(os.Environ(), postgresMode+"="+server.DSN())
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	passed := strings.Count(string(out), "\n--- PASS: Test")
	if passed < 80 || strings.Contains(string(out), "--- SKIP") {
		t.Errorf("%d tests have passed\n%s", passed, out)
	}
	t.Logf("%d tests", passed)
}

// TestOfFilesAreThere: the list names tests that there are.
func TestOfFilesAreThere(t *testing.T) {
	out, err := exec.Command(must(os.Executable()), "-test.list=.").Output()
	if err != nil {
		t.Fatal(err)
	}
	all := strings.Fields(string(out))
	for _, name := range ofFiles {
		if !slices.Contains(all, name) {
			t.Errorf("there is no %s", name)
		}
	}
}

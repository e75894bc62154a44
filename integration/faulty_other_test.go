//go:build !linux

package integration

import (
	"os/exec"
	"testing"
)

// failing needs a way to have system calls of another program fail.
func failing(t *testing.T, _ *exec.Cmd, _ string) {
	t.Helper()
	t.Fatal("system calls can be made to fail on Linux only: run this there")
}

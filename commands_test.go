package caddypolar

import (
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// TestHelp: each command says in one line what it does, and shows how it is used.
func TestHelp(t *testing.T) {
	var check func(path string, cmd *cobra.Command)
	check = func(path string, cmd *cobra.Command) {
		path += " " + cmd.Name()
		if cmd.Short == "" || strings.Contains(cmd.Short, "\n") || strings.HasSuffix(cmd.Short, ".") {
			t.Errorf("%s: its short help is %q", path, cmd.Short)
		}
		for _, sub := range cmd.Commands() {
			check(path, sub)
		}
		if cmd.HasSubCommands() {
			return
		}
		if cmd.Example == "" {
			t.Errorf("%s has no example", path)
		}
		for line := range strings.Lines(cmd.Example) {
			if !strings.Contains(line, path) && !strings.HasPrefix(strings.TrimSpace(line), "#") && !strings.HasPrefix(line, "    ") {
				t.Errorf("%s: its example is %q", path, line)
			}
		}
	}
	for _, command := range subcommands {
		check("caddy polar", command())
	}
}

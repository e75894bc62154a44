package caddypolar

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"github.com/caddy-polar/caddy-polar/cache"
)

// restoring is what is asked for. Of the operator it has gateway and json.
type restoring struct {
	operator
	to, server, organization string
}

func restoreCommand() *cobra.Command {
	var r restoring
	cmd := &cobra.Command{
		Use:   "restore <file> --to <store> [--gateway <name>] [--server <server>]",
		Short: "Makes a store of a backup, while no Caddy runs on it",
		Long: `
<store> is the path of the store in the configuration, by default polar/<gateway>.db in
Caddy's data directory. Nothing is overwritten: stop Caddy, move the old file away, and
run this as Caddy's user. The backup must be of this gateway, server and organization.`,
		Example: `  caddy polar restore polar-2026-11-22.db --to /var/lib/caddy/.local/share/caddy/polar/default.db`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			sum, err := r.restore(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			v := viewCopied(r.to, &sum)
			return r.tell(cmd, v, v.table)
		},
	}
	f := cmd.Flags()
	f.StringVar(&r.to, "to", "", "the `store`'s path, where no file is yet")
	f.StringVar(&r.gateway, "gateway", defaultGateway, "`name` of the gateway that it must be of")
	f.StringVar(&r.server, "server", "production", "`server` that it must mirror: production, sandbox or a base URL")
	f.StringVar(&r.organization, "organization", "", "`id` of the organization that it must mirror (default: any)")
	f.BoolVar(&r.json, "json", false, "print the answer as JSON")
	_ = cmd.MarkFlagRequired("to") // it is there
	return cmd
}

func (r *restoring) restore(ctx context.Context, from string) (cache.Summary, error) {
	server, err := parseServer(r.server)
	if err != nil {
		return cache.Summary{}, fmt.Errorf("--%w", err)
	}
	if _, err := cache.Inspect(r.to, nil); errors.Is(err, cache.ErrLocked) {
		return cache.Summary{}, fmt.Errorf("--to: %w: stop that Caddy, and move the file away", err)
	}
	owner := cache.Owner{Gateway: r.gateway, Server: server, Organization: r.organization}
	sum, err := cache.Inspect(from, &owner)
	if err != nil {
		return sum, adviseRestore(err)
	}
	err = writeNew(ctx, r.to, func(ctx context.Context, f *os.File) error {
		in, err := os.Open(from)
		if err != nil {
			return err
		}
		defer in.Close()
		if _, err := io.Copy(f, in); err != nil {
			return fmt.Errorf("copying %s: %w", from, err)
		}
		if ended := context.Cause(ctx); ended != nil {
			return ended
		}
		_, err = cache.Inspect(f.Name(), &owner)
		return err
	})
	return sum, err
}

// adviseRestore adds what to do about a backup that cannot be restored.
func adviseRestore(err error) error {
	for _, advice := range []struct {
		is   error
		says string
	}{
		{cache.ErrLocked, "that is a store in use: make a backup of it with caddy polar backup"},
		{cache.ErrNewerSchema, "restore it with the version that has made it, or a newer one"},
		{cache.ErrOtherOwner, "give --gateway, --server and --organization as its configuration has them"},
		{cache.ErrCorrupt, "take another backup"},
		{fs.ErrNotExist, "give the path of a backup"},
	} {
		if errors.Is(err, advice.is) {
			return fmt.Errorf("%w: %s", err, advice.says)
		}
	}
	return err
}

package caddypolar

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/caddy-polar/caddy-polar/cache"
)

// copiedView tells of a store's file that was written.
type copiedView struct {
	File         string         `json:"file"`
	Gateway      string         `json:"gateway"`
	Server       string         `json:"server"`
	Organization string         `json:"organization"` // empty: not known yet
	Bytes        int64          `json:"bytes"`
	Objects      map[string]int `json:"objects"`
}

func viewCopied(file string, s *cache.Summary) copiedView {
	return copiedView{file, s.Owner.Gateway, s.Owner.Server, s.Owner.Organization, s.Bytes, s.Objects}
}

func (v *copiedView) table(w io.Writer) {
	all := 0
	for _, n := range v.Objects {
		all += n
	}
	row(w, "file", v.File)
	row(w, "gateway", v.Gateway)
	row(w, "server", v.Server)
	row(w, "organization", v.Organization)
	row(w, "bytes", v.Bytes)
	row(w, "objects", all)
	for _, kind := range sortedKeys(v.Objects) {
		row(w, "  "+kind, v.Objects[kind])
	}
}

func backupCommand() *cobra.Command {
	var o operator
	return o.flags(&cobra.Command{
		Use:   "backup <file>",
		Short: "Writes a copy of a running gateway's store to a new file, here",
		Long: `
The copy is of one moment, while the gateway goes on: what was acknowledged before is
in it. It holds the store's keys too, so keep it as you keep the store. What comes
out is whole, or there is no file. caddy polar restore makes a store of it again.`,
		Example: `  caddy polar backup polar-$(date +%F).db`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var sum cache.Summary
			err := writeNew(cmd.Context(), args[0], func(ctx context.Context, f *os.File) (err error) {
				if err := o.fetch(ctx, f); err != nil {
					return err
				}
				if sum, err = cache.Inspect(f.Name(), nil); err != nil {
					return fmt.Errorf("what has arrived cannot be restored: %w", err)
				}
				return nil
			})
			if err != nil {
				return err
			}
			v := viewCopied(args[0], &sum)
			return o.tell(cmd, v, v.table)
		},
	})
}

// fetch writes a copy of the store as the admin API sends it, if it arrives whole.
func (o *operator) fetch(ctx context.Context, to io.Writer) error {
	res, err := o.send(ctx, http.MethodGet, []string{"backup"}, nil, nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	want := res.Header.Get(digestHeader)
	if want == "" || res.ContentLength < 0 {
		return o.unexpected()
	}
	sum := sha256.New()
	if n, err := io.Copy(io.MultiWriter(to, sum), res.Body); err != nil {
		if errors.Is(err, syscall.ENOSPC) {
			return errors.New("there is no room for the copy on this disk: make some, or give a file on another")
		}
		return fmt.Errorf("the copy broke off after %d of %d bytes: run it again: %w", n, res.ContentLength, err)
	}
	if digest(sum.Sum(nil)) != want {
		return fmt.Errorf("%s: the copy was altered on its way: run it again", o.where())
	}
	return nil
}

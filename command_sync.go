package caddypolar

import (
	"net/http"
	"net/url"

	"github.com/spf13/cobra"
)

func syncCommand() *cobra.Command {
	var o operator
	return o.flags(&cobra.Command{
		Use:   "sync [<user>]",
		Short: "Makes a running gateway read everything from Polar, or all about one user",
		Long: `
Waits for the sync, and says what it had to mend. A sync that is begun goes on
when this command is ended. With a user: Polar is asked about this user alone.`,
		Example: `  caddy polar sync
  caddy polar sync usr_7f3c1a9e`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				var r reportView
				if err := o.ask(cmd.Context(), http.MethodPost, []string{"sync"}, nil, nil, &r); err != nil {
					return err
				}
				return o.tell(cmd, r, r.table)
			}
			var h holdingView
			if err := o.ask(cmd.Context(), http.MethodPost, []string{"sync"}, url.Values{"user": args}, nil, &h); err != nil {
				return err
			}
			return o.tell(cmd, h, h.table)
		},
	})
}

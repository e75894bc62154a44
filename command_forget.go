package caddypolar

import (
	"io"
	"net/http"

	"github.com/spf13/cobra"
)

func forgetCommand() *cobra.Command {
	var o operator
	return o.flags(&cobra.Command{
		Use:   "forget <user>",
		Short: "Removes all that a running gateway holds about a user",
		Long: `
Removes purchases, customers, links, passes and checkouts of the user. Polar's next
word of what it still has comes in as ever, so delete the customer there first.`,
		Example: `  caddy polar forget usr_7f3c1a9e`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var v forgottenView
			if err := o.ask(cmd.Context(), http.MethodDelete, []string{"users", args[0]}, nil, nil, &v); err != nil {
				return err
			}
			return o.tell(cmd, v, func(w io.Writer) { row(w, "records removed", v.Removed) })
		},
	})
}

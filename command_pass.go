package caddypolar

import (
	"io"
	"net/http"

	"github.com/spf13/cobra"
)

func passCommand() *cobra.Command {
	var o operator
	body := make(map[string]string)
	var until, reason string
	cmd := o.flags(&cobra.Command{
		Use:   "pass <user> <plan> [--until <time>] [--reason <text>]",
		Short: "Opens a plan for a user, outside Polar, at once",
		Example: `  caddy polar pass usr_7f3c1a9e pro
  caddy polar pass usr_7f3c1a9e pro --until 2027-01-31T00:00:00Z --reason press`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			body["plan"] = args[1]
			for name, value := range map[string]string{"until": until, "reason": reason} {
				if value != "" {
					body[name] = value
				}
			}
			var p passView
			if err := o.ask(cmd.Context(), http.MethodPost, []string{"users", args[0], "passes"}, nil, body, &p); err != nil {
				return err
			}
			return o.tell(cmd, p, func(w io.Writer) {
				row(w, "pass", p.ID)
				row(w, "user", p.User)
				row(w, "plan", p.Plan)
				row(w, "holds", p.more())
			})
		},
	})
	cmd.Flags().StringVar(&until, "until", "", "the `time` of its end, like 2027-01-31T00:00:00Z (default: without end)")
	cmd.Flags().StringVar(&reason, "reason", "", "why, for those who look at it later")
	return cmd
}

func revokePassCommand() *cobra.Command {
	var o operator
	return o.flags(&cobra.Command{
		Use:     "revoke-pass <user> <pass>",
		Short:   "Takes a pass back, at once",
		Example: `  caddy polar revoke-pass usr_7f3c1a9e pass_xn6l74tjwvsstveypab22mdy72`,
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			var v revokedView
			if err := o.ask(cmd.Context(), http.MethodDelete, []string{"users", args[0], "passes", args[1]}, nil, nil, &v); err != nil {
				return err
			}
			return o.tell(cmd, v, func(w io.Writer) { row(w, "taken back", v.ID) })
		},
	})
}

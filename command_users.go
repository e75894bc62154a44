package caddypolar

import (
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
)

func usersCommand() *cobra.Command {
	var o operator
	var plan, status string
	cmd := o.flags(&cobra.Command{
		Use:   "users [--plan <plan>] [--status <status>]",
		Short: "Lists the users of a running gateway with what they have",
		Example: `  caddy polar users --status past_due
  caddy polar users --plan pro --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			all := usersView{Users: []userView{}}
			for after := ""; ; {
				q := url.Values{"limit": {strconv.Itoa(usersAtMost)}}
				for name, value := range map[string]string{"plan": plan, "status": status, "after": after} {
					if value != "" {
						q.Set(name, value)
					}
				}
				var page usersView
				if err := o.ask(cmd.Context(), http.MethodGet, []string{"users"}, q, nil, &page); err != nil {
					return err
				}
				all.Users = append(all.Users, page.Users...)
				if page.Next == nil || *page.Next <= after {
					return o.tell(cmd, all, all.table)
				}
				after = *page.Next
			}
		},
	})
	cmd.Flags().StringVar(&plan, "plan", "", "only those who have or had something of this `plan`")
	cmd.Flags().StringVar(&status, "status", "", "only those in this `status`: one of Polar's, or order, pass, none")
	return cmd
}

func (v *usersView) table(w io.Writer) {
	row(w, "USER", "ALLOWED", "REASON", "STATUS", "UNTIL", "PLANS")
	for _, u := range v.Users {
		row(w, u.User, yes(u.Allowed), u.Reason, u.Status, u.Until, strings.Join(u.Plans, ","))
	}
}

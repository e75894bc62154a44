package caddypolar

import (
	"cmp"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/spf13/cobra"
)

func explainCommand() *cobra.Command {
	var o operator
	var plan, at string
	cmd := o.flags(&cobra.Command{
		Use:   "explain <user> [--plan <plan>] [--at <time>]",
		Short: "Says why a user is let through or refused, now or at another time",
		Long: `
Decides as a gate would, with all that the running gateway holds about the user,
and says for each plan what was compared, which of it decides (*), until when, and
what follows by time alone. --at asks for another time with what is known now.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			q := url.Values{"user": {args[0]}}
			for name, value := range map[string]string{"plan": plan, "at": at} {
				if value != "" {
					q.Set(name, value)
				}
			}
			var e explanationView
			if err := o.ask(cmd.Context(), http.MethodGet, []string{"explain"}, q, nil, &e); err != nil {
				return err
			}
			return o.tell(cmd, e, e.table)
		},
	})
	cmd.Flags().StringVar(&plan, "plan", "", "the `plan` that is demanded (default: any)")
	cmd.Flags().StringVar(&at, "at", "", "the `time` to decide for, like 2027-01-31T00:00:00Z (default: now)")
	return cmd
}

func (d *decisionView) String() string {
	text := "refused: " + d.Reason
	if d.Allowed {
		text = "allowed: " + d.Reason
	}
	switch {
	case d.Until.IsZero():
	case d.Allowed:
		text += " until " + formatTime(d.Until.Time)
	default:
		text += ", access ended " + formatTime(d.Until.Time)
	}
	if !d.Allowed {
		text += fmt.Sprintf(" (%d, next step: %s)", d.HTTP, d.NextStep)
	}
	return text
}

func (e *explanationView) table(w io.Writer) {
	row(w, fmt.Sprintf("%s at %s", e.User, formatTime(e.At.Time)))
	row(w, e.Decision.String())
	if e.AsksPolar {
		row(w, "A gate would ask Polar before it refuses.")
	}
	if e.EmailTaken != "" {
		row(w, "Customer "+e.EmailTaken+" has this user's verified e-mail, and is another user's: the first link stands.")
	}
	if !e.Known {
		row(w, "Nothing of Polar's, and no pass, is held about this user.")
	}
	for _, p := range e.Plans {
		fmt.Fprintln(w)
		row(w, "plan "+p.Plan+": "+p.Decision.String())
		for _, f := range p.Facts {
			f.table(w)
		}
		if p.Next != nil {
			row(w, "  at "+formatTime(p.Next.At.Time)+" by time alone: "+p.Next.Decision.String())
		}
	}
	if len(e.Outside) > 0 {
		fmt.Fprintln(w)
		row(w, "of no plan:")
		for _, f := range e.Outside {
			f.table(w)
		}
	}
}

func (f *weighedView) table(w io.Writer) {
	mark := "  "
	if f.Decides {
		mark = "* "
	}
	row(w, fmt.Sprintf("  %s%s %s, %s", mark, f.Kind, f.ID, f.Status))
	row(w, "      "+f.Rule)
	of := ""
	if f.Item != "" {
		of = "of " + f.Item + ", "
	}
	row(w, "      "+of+"the user's by "+cmp.Or(map[string]string{
		"link": "link", "metadata": "the checkout", "externalId": "external_id", "email": "e-mail", "operator": "the operator's gift",
	}[f.Source], f.Source))
	if !f.Version.Row.IsZero() {
		row(w, "      modified "+formatTime(f.Version.Row.Time)+", told "+formatTime(f.Version.AsOf.Time))
	}
}

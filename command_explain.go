package caddypolar

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"github.com/caddy-polar/caddy-polar/pages"
)

func explainCommand() *cobra.Command {
	var o operator
	var plan, at, request string
	cmd := o.flags(&cobra.Command{
		Use:   "explain <user> [--plan <plan>] [--at <time>] | explain --request <id>",
		Short: "Says why a user is let through or refused, now or at another time",
		Long: `
Decides as a gate would, with all that the running gateway holds about the user,
and says for each plan what was compared, which of it decides (*), until when, and
what follows by time alone. --at asks for another time with what is known now.

--request explains a refusal by the request's id, which the visitor has seen: the
last thousand are remembered, while the process runs.`,
		Example: `  caddy polar explain ada --plan pro
  caddy polar explain ada --at 2027-02-01T00:00:00Z
  caddy polar explain --request 5d0c1c8e-7c5e-4b52-9fd1-6a2a5d2f8f0e`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			q := url.Values{}
			if len(args) > 0 {
				q.Set("user", args[0])
			}
			switch {
			case request == "" && len(args) == 0:
				return errors.New("say whose decision: explain <user>, or explain --request <id>")
			case request != "" && len(args) > 0:
				return errors.New("--request stands alone: it knows its user")
			}
			for name, value := range map[string]string{"plan": plan, "at": at, "request": request} {
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
	cmd.Flags().StringVar(&request, "request", "", "the `id` of a refused request, as its answer told it")
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

// oneOfPlans names what a gate demands.
func oneOfPlans(plans []string) string {
	if len(plans) == 0 {
		return "any plan"
	}
	return strings.Join(plans, " or ")
}

func (r *refusalView) table(w io.Writer) {
	who := "a stranger"
	if r.User != "" {
		who = r.User
		if r.Payer != r.User {
			who += ", for whom " + r.Payer + " pays"
		}
	}
	row(w, fmt.Sprintf("request %s at %s: %s wanted %s", r.RequestID, formatTime(r.At.Time), who, oneOfPlans(r.Plans)))
	if r.Decision == nil {
		_, detail, _ := pages.Message(r.Code)
		row(w, "refused: "+r.Code+": "+detail)
		return
	}
	row(w, r.Decision.String())
	fmt.Fprintln(w)
	row(w, "What the user would get now:")
}

func (e *explanationView) table(w io.Writer) {
	if e.Refusal != nil {
		if e.Refusal.table(w); e.Refusal.Decision == nil {
			return
		}
	}
	row(w, fmt.Sprintf("%s at %s, %s demanded", e.User, formatTime(e.At.Time), oneOfPlans(e.Demanded)))
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
		told := "      modified " + formatTime(f.Version.Row.Time) + ", told " + formatTime(f.Version.AsOf.Time)
		if by := f.Told.String(); by != "" {
			told += " by " + by
		}
		row(w, told)
	}
}

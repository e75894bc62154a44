package caddypolar

import (
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"github.com/caddy-polar/caddy-polar/gateway"
)

func doctorCommand() *cobra.Command {
	var o operator
	return o.flags(&cobra.Command{
		Use:   "doctor",
		Short: "Finds what is wrong with a running gateway's setup, and says what to do",
		Long: `
Looks at everything that can be wrong: the access token, its scopes and environment,
the organization, plans, the webhook endpoint at Polar and the way from there to
here, clock, API version, store and disk, syncs, who asks, and risky settings. Polar
is asked by reading alone; to its own address the gateway sends a signed webhook that
says nothing. It takes a minute at most.

What cannot be checked is unknown, with what to do. Fails if there is an error; a
warning is none.`,
		Example: `  caddy polar doctor
  caddy polar doctor --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var d diagnosisView
			if err := o.ask(cmd.Context(), http.MethodPost, []string{"doctor"}, nil, nil, &d); err != nil {
				return err
			}
			if err := o.tell(cmd, d, d.table); err != nil {
				return err
			}
			return d.failure()
		},
	})
}

// of are the findings of one severity.
func (d *diagnosisView) of(s gateway.Severity) (list []findingView) {
	for _, f := range d.Findings {
		if f.Severity == string(s) {
			list = append(list, f)
		}
	}
	return list
}

func (d *diagnosisView) table(w io.Writer) {
	counts := make([]string, len(gateway.Severities))
	for i, s := range gateway.Severities {
		counts[i] = fmt.Sprintf("%s %d", s, len(d.of(s)))
	}
	row(w, fmt.Sprintf("gateway %s at %s: %s", d.Gateway, formatTime(d.At.Time), strings.Join(counts, ", ")))
	for _, s := range gateway.Severities {
		list := d.of(s)
		if len(list) == 0 {
			continue
		}
		fmt.Fprintln(w)
		row(w, strings.ToUpper(string(s)))
		for i := range list {
			list[i].table(w)
		}
	}
}

// table tells of what is fine in one line.
func (f *findingView) table(w io.Writer) {
	if f.Severity == string(gateway.SeverityOK) {
		var details []string
		for _, name := range sortedKeys(f.Details) {
			details = append(details, name+" "+f.Details[name])
		}
		what := f.What
		if len(details) > 0 {
			what += " (" + strings.Join(details, ", ") + ")"
		}
		row(w, "  "+f.ID, what)
		return
	}
	row(w, "  "+f.ID, f.What)
	row(w, "    why", f.Why)
	row(w, "    do", f.Do)
	for _, name := range sortedKeys(f.Details) {
		row(w, "    "+name, f.Details[name])
	}
}

// failure names the errors.
func (d *diagnosisView) failure() error {
	var ids []string
	for _, f := range d.of(gateway.SeverityError) {
		ids = append(ids, f.ID)
	}
	if len(ids) == 0 {
		return nil
	}
	return fmt.Errorf("doctor has found what has to be mended: %s", strings.Join(ids, ", "))
}

package caddypolar

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strconv"

	"github.com/spf13/cobra"
)

// exporting is what is asked for.
type exporting struct {
	operator
	format, out string
}

type exportedView struct {
	File  string `json:"file"`
	Users int    `json:"users"`
}

const (
	formatJSONL = "jsonl"
	formatCSV   = "csv"
)

func exportCommand() *cobra.Command {
	var e exporting
	cmd := e.flags(&cobra.Command{
		Use:   "export [--format jsonl|csv] [--out <file>]",
		Short: "Writes all users of a running gateway with what they have",
		Long: `
JSON lines have what caddy polar show --json tells of each user. CSV has a line for
each subscription, order and pass, below a line with the names of the columns; what
a spreadsheet would take for a formula has a ' before it.

What changes meanwhile may be in it or not.`,
		Example: `  caddy polar export | jq -r 'select(any(.subscriptions[]; .status == "past_due")).user'
  caddy polar export --format csv --out users.csv`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if e.format != formatJSONL && e.format != formatCSV {
				return errors.New("--format: it is jsonl or csv")
			}
			if e.out == "" {
				if e.json && e.format == formatCSV {
					return errors.New("--json: leave it out, or --format csv, or write to a file with --out")
				}
				_, err := e.write(cmd.Context(), cmd.OutOrStdout())
				return err
			}
			v := exportedView{File: e.out}
			err := writeNew(cmd.Context(), e.out, func(ctx context.Context, f *os.File) (err error) {
				v.Users, err = e.write(ctx, f)
				return err
			})
			if err != nil {
				return err
			}
			return e.tell(cmd, v, func(w io.Writer) {
				row(w, "file", v.File)
				row(w, "users", v.Users)
			})
		},
	})
	cmd.Flags().StringVar(&e.format, "format", formatJSONL, "`format`: jsonl or csv")
	cmd.Flags().StringVar(&e.out, "out", "", "a new `file`, in the place of standard output")
	return cmd
}

// write writes all users, page by page, and says how many there are.
func (e *exporting) write(ctx context.Context, to io.Writer) (users int, err error) {
	lines, table := json.NewEncoder(to), csv.NewWriter(to)
	lines.SetEscapeHTML(false)
	if e.format == formatCSV {
		_ = table.Write(csvColumns) // what went wrong is known when it is flushed
	}
	for after := ""; ; {
		q := url.Values{"limit": {strconv.Itoa(exportAtMost)}}
		if after != "" {
			q.Set("after", after)
		}
		var page exportView
		if err := e.ask(ctx, http.MethodGet, []string{"export"}, q, nil, &page); err != nil {
			return users, err
		}
		for i := range page.Users {
			h := &page.Users[i]
			if e.format == formatCSV {
				_ = table.WriteAll(h.csvLines())
			} else if err := lines.Encode(h); err != nil {
				return users, err
			}
		}
		users += len(page.Users)
		table.Flush()
		if err := table.Error(); err != nil {
			return users, err
		}
		if page.Next == nil || *page.Next <= after {
			return users, nil
		}
		after = *page.Next
	}
}

// csvColumns are those of the export as CSV, by the names that show has for them.
var csvColumns = []string{
	"user", "kind", "id", "customer", "productId", "subscription", "plan", "status", "seats", "foreign",
	"currentPeriodStart", "currentPeriodEnd", "trialEnd", "cancelAtPeriodEnd", "pauseAtPeriodEnd", "canceledAt", "endsAt", "endedAt",
	"pastDueAt", "pausedAt", "resumesAt", "until", "reason", "modifiedAt",
}

// csvLines are what somebody holds, a line for each subscription, order and pass.
func (h *holdingView) csvLines() (lines [][]string) {
	add := func(kind string, cells map[string]string) {
		cells["user"], cells["kind"] = h.User, kind
		line := make([]string, len(csvColumns))
		for i, name := range csvColumns {
			line[i] = unformula(cells[name])
		}
		lines = append(lines, line)
	}
	for i := range h.Subscriptions {
		s := &h.Subscriptions[i]
		add("subscription", map[string]string{
			"id": s.ID, "customer": s.Customer, "productId": s.ProductID, "status": s.Status,
			"seats": strconv.FormatBool(s.Seats), "foreign": strconv.FormatBool(s.Foreign),
			"currentPeriodStart": s.CurrentPeriodStart.text(), "currentPeriodEnd": s.CurrentPeriodEnd.text(), "trialEnd": s.TrialEnd.text(),
			"cancelAtPeriodEnd": strconv.FormatBool(s.CancelAtPeriodEnd), "pauseAtPeriodEnd": strconv.FormatBool(s.PauseAtPeriodEnd),
			"canceledAt": s.CanceledAt.text(), "endsAt": s.EndsAt.text(), "endedAt": s.EndedAt.text(), "pastDueAt": s.PastDueAt.text(),
			"pausedAt": s.PausedAt.text(), "resumesAt": s.ResumesAt.text(), "modifiedAt": s.Version.Row.text(),
		})
	}
	for i := range h.Orders {
		o := &h.Orders[i]
		add("order", map[string]string{
			"id": o.ID, "customer": o.Customer, "productId": o.ProductID, "subscription": o.Subscription, "status": o.Status,
			"seats": strconv.FormatBool(o.Seats), "foreign": strconv.FormatBool(o.Foreign), "modifiedAt": o.Version.Row.text(),
		})
	}
	for i := range h.Passes {
		p := &h.Passes[i]
		add("pass", map[string]string{"id": p.ID, "plan": p.Plan, "until": p.Until.text(), "reason": p.Reason})
	}
	return lines
}

// text is a time in a cell, empty when there is none.
func (m moment) text() string {
	if m.IsZero() {
		return ""
	}
	return formatTime(m.Time)
}

// formulaRE finds where a spreadsheet would take a text for a formula: at its beginning,
// blanks or not, in either width, and behind what some take for the end of a cell.
var formulaRE = regexp.MustCompile(`(^|;)([\s\v\x{85}\p{Z}\x{feff}]*[=+\-@＝＋－＠])`)

// unformula keeps a spreadsheet from taking a text for a formula.
func unformula(cell string) string { return formulaRE.ReplaceAllString(cell, "$1'$2") }

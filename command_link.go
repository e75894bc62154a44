package caddypolar

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/caddy-polar/caddy-polar/cache"
)

// linking is what is asked for.
type linking struct {
	operator
	from            string
	dryRun, noPolar bool
}

// linkLine is one link: a line of a file, or the arguments.
type linkLine struct {
	Line       int    `json:"line,omitempty"`
	User       string `json:"user"`
	Customer   string `json:"customer"`
	ExternalID string `json:"externalId,omitempty"`
	Error      string `json:"error,omitempty"`
}

type linksView struct {
	Lines  []linkLine `json:"lines"`
	Bad    int        `json:"bad"`
	DryRun bool       `json:"dryRun"`
}

func linkCommand() *cobra.Command {
	var l linking
	cmd := l.flags(&cobra.Command{
		Use:   "link <user> <customer> | link --from <csv> [--dry-run]",
		Short: "Says that a Polar customer is a user, at once; also for a whole file",
		Long: `
What the customer has bought is the user's from then on. Where Polar's customer has
no external_id, it gets the user's id; one that is set stays, and the link counts
here alone. --no-polar leaves Polar alone. In the place of a customer the id of a
member of a team can stand: then their seats are the user's, and Polar is not told.

A file has lines of user,customer. All are checked first, and nothing is changed if
one of them is bad.`,
		Example: `  caddy polar link usr_7f3c1a9e 992fae2a-2a17-4b7a-8d9e-e287cf90131b
  caddy polar link --from customers.csv --dry-run`,
		Args: func(_ *cobra.Command, args []string) error {
			if l.from == "" && len(args) != 2 || l.from != "" && len(args) != 0 {
				return errors.New("give a user and a customer, or --from <csv>")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if l.from != "" {
				return l.file(cmd)
			}
			line := linkLine{User: args[0], Customer: args[1]}
			v, err := l.link(cmd.Context(), &line, l.dryRun)
			if err != nil {
				return err
			}
			return l.tell(cmd, v, func(w io.Writer) {
				row(w, "user", v.User)
				row(w, "customer", v.Customer)
				row(w, "external_id at Polar", strings.ReplaceAll(v.ExternalID, "_", " "))
				row(w, "dry run", yes(v.DryRun))
			})
		},
	})
	f := cmd.Flags()
	f.StringVar(&l.from, "from", "", "a `file` of lines user,customer; - is standard input")
	f.BoolVar(&l.dryRun, "dry-run", false, "check, and change nothing")
	f.BoolVar(&l.noPolar, "no-polar", false, "neither ask Polar nor write external_id there")
	return cmd
}

func (l *linking) link(ctx context.Context, line *linkLine, dry bool) (linkView, error) {
	q := url.Values{}
	if dry {
		q.Set("dry_run", "true")
	}
	if l.noPolar {
		q.Set("polar", "false")
	}
	var v linkView
	err := l.ask(ctx, http.MethodPut, []string{"users", line.User, "links", line.Customer}, q, nil, &v)
	return v, err
}

// file links all lines of a file, or none.
func (l *linking) file(cmd *cobra.Command) error {
	in := cmd.InOrStdin()
	if l.from != "-" {
		f, err := os.Open(l.from)
		if err != nil {
			return fmt.Errorf("--from: %w", err)
		}
		defer f.Close()
		in = f
	}
	lines, err := readLinks(in)
	if err != nil {
		return fmt.Errorf("--from: %w", err)
	}
	if len(lines) == 0 {
		return errors.New("--from: there is no line in it")
	}
	v := linksView{Lines: lines, DryRun: l.dryRun}
	if err := l.all(cmd.Context(), &v, true); err != nil {
		return fmt.Errorf("nothing was changed: %w", err)
	}
	if v.Bad == 0 && !l.dryRun {
		if err := l.all(cmd.Context(), &v, false); err != nil {
			return fmt.Errorf("the lines before are linked, and doing it again does no harm: %w", err)
		}
	}
	if err := l.tell(cmd, v, v.table); err != nil || v.Bad == 0 {
		return err
	}
	return fmt.Errorf("--from: bad lines: %d of %d; nothing was changed", v.Bad, len(lines))
}

// all links the lines, or checks them. What is wrong with a line is noted; an
// error is about something else.
func (l *linking) all(ctx context.Context, v *linksView, dry bool) error {
	v.Bad = 0
	for i := range v.Lines {
		line := &v.Lines[i]
		if line.Error == "" {
			done, err := l.link(ctx, line, dry)
			refusal, refused := errors.AsType[*adminRefusal](err)
			switch {
			case err == nil:
				line.ExternalID = done.ExternalID
			case dry && refused && lineIsBad(refusal):
				line.Error = refusal.text
			default:
				return fmt.Errorf("line %d: %w", line.Line, err)
			}
		}
		if line.Error != "" {
			v.Bad++
		}
	}
	return nil
}

// lineIsBad tells what is wrong with one line from what is wrong with all.
func lineIsBad(r *adminRefusal) bool {
	return (r.status == http.StatusBadRequest || r.status == http.StatusNotFound) && !strings.HasPrefix(r.text, "there is no gateway")
}

// readLinks reads the lines of a file, and says of each what is wrong with it
// by itself.
func readLinks(in io.Reader) ([]linkLine, error) {
	r := csv.NewReader(in)
	r.FieldsPerRecord, r.TrimLeadingSpace, r.Comment = -1, true, '#'
	var lines []linkLine
	users := make(map[string]int) // customer → index of the line
	for {
		record, err := r.Read()
		if errors.Is(err, io.EOF) {
			return lines, nil
		}
		if err != nil {
			return nil, err // it names the line
		}
		number, _ := r.FieldPos(0)
		line := linkLine{Line: number, User: strings.TrimSpace(record[0])}
		if len(record) > 1 {
			line.Customer = strings.TrimSpace(record[1])
		}
		if len(lines) == 0 && line.User == "user" && line.Customer == "customer" {
			continue // a heading
		}
		other, twice := users[line.Customer]
		switch {
		case len(record) != 2:
			line.Error = "a line is user,customer"
		case !cache.ValidUser(line.User):
			line.Error = cache.ErrUser.Error()
		case line.Customer == "":
			line.Error = "the customer is missing"
		case twice && lines[other].User != line.User:
			line.Error = fmt.Sprintf("line %d gives this customer to another user", lines[other].Line)
		}
		if !twice {
			users[line.Customer] = len(lines)
		}
		lines = append(lines, line)
	}
}

func (v *linksView) table(w io.Writer) {
	row(w, "LINE", "USER", "CUSTOMER", "EXTERNAL_ID", "ERROR")
	for _, l := range v.Lines {
		if v.Bad == 0 || l.Error != "" {
			row(w, l.Line, l.User, l.Customer, strings.ReplaceAll(l.ExternalID, "_", " "), l.Error)
		}
	}
}

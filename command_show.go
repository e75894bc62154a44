package caddypolar

import (
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/spf13/cobra"
)

func showCommand() *cobra.Command {
	var o operator
	return o.flags(&cobra.Command{
		Use:   "show <user>",
		Short: "Shows all that a running gateway holds about a user",
		Example: `  caddy polar show usr_7f3c1a9e
  caddy polar show usr_7f3c1a9e --json | jq .history`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var h holdingView
			if err := o.ask(cmd.Context(), http.MethodGet, []string{"users", args[0]}, nil, nil, &h); err != nil {
				return err
			}
			if !h.Known && !o.json {
				return fmt.Errorf("nothing of Polar's, and no pass, is held about %s: check the id, or ask Polar with caddy polar sync <user>", h.User)
			}
			return o.tell(cmd, h, h.table)
		},
	})
}

func (h *holdingView) table(w io.Writer) {
	row(w, "WHAT", "ID", "STATUS", "OF", "MODIFIED", "TOLD", "MORE")
	line := func(what, id, status, of string, v versionView, more string) {
		row(w, what, id, status, of, v.Row, v.AsOf, more)
	}
	for _, c := range h.Customers {
		own := yes(c.Own)
		if c.ByEmail {
			own += ", by e-mail"
		}
		more := []string{"own: " + own, "shared: " + yes(c.Shared)}
		if c.Foreign {
			more = []string{"behind a seat"}
		}
		if !c.DeletedAt.IsZero() {
			more = append(more, "deleted at "+formatTime(c.DeletedAt.Time))
		}
		line("customer", c.ID, "", c.ExternalID, c.Version, strings.Join(more, ", "))
	}
	for _, s := range h.Subscriptions {
		line("subscription", s.ID, s.Status, s.ProductID, s.Version, s.more())
	}
	for _, x := range h.Orders {
		more := ""
		if x.Foreign {
			more = "behind a seat"
		}
		line("order", x.ID, x.Status, x.ProductID, x.Version, more)
	}
	for _, g := range h.Grants {
		status := "granted"
		if g.Revoked || !g.Granted {
			status = "not granted"
		}
		line("grant", g.ID, status, g.BenefitID, g.Version, "of "+g.Subscription+g.Order)
	}
	for _, r := range h.Refunds {
		line("refund", r.ID, "", r.Order, r.Version, "benefits taken back: "+yes(r.RevokeBenefits)+", dispute lost: "+yes(r.DisputeLost))
	}
	for _, s := range h.Seats {
		status, more := "invited", "of "+s.Subscription+s.Order
		switch {
		case s.Revoked:
			status, more = "revoked", more+", since "+formatTime(s.RevokedAt.Time)
		case s.Claimed:
			status = "claimed"
		}
		line("seat", s.ID, status, s.Member, s.Version, more)
	}
	for _, m := range h.Members {
		status := m.Role
		if m.Deleted {
			status = "deleted"
		}
		line("member", m.ID, status, m.ExternalID, m.Version, "of "+m.Customer)
	}
	for _, p := range h.Passes {
		row(w, "pass", p.ID, "", p.Plan, "", "", p.more())
	}
	for _, c := range h.Links {
		row(w, "link", c, "", h.User, "", "", "")
	}
	if len(h.History) > 0 {
		row(w)
		row(w, "CHANGED", "WHAT", "ID", "HOW", "TOLD BY")
	}
	for _, e := range h.History {
		row(w, e.At, e.Kind, e.ID, e.how(), e.Told)
	}
}

func (e *entryView) how() string {
	var changes []string
	if e.New {
		changes = append(changes, strings.TrimSpace("new "+e.Status))
	}
	for _, c := range e.Changes {
		text := c.Field + " " + c.Before + " → " + orDefault(c.After, "none")
		if c.Before == "" {
			text = c.Field + " " + c.After
		}
		changes = append(changes, text)
	}
	return strings.Join(changes, ", ")
}

func (s *subscriptionFact) more() string {
	more := []string{"period ends " + formatTime(s.CurrentPeriodEnd.Time)}
	if s.Foreign {
		more = append(more, "behind a seat")
	}
	for _, t := range []struct {
		name string
		at   moment
	}{
		{"trial ends", s.TrialEnd},
		{"canceled", s.CanceledAt},
		{"ends", s.EndsAt},
		{"ended", s.EndedAt},
		{"past due since", s.PastDueAt},
		{"paused", s.PausedAt},
		{"resumes", s.ResumesAt},
	} {
		if !t.at.IsZero() {
			more = append(more, t.name+" "+formatTime(t.at.Time))
		}
	}
	return strings.Join(more, ", ")
}

func (p *passView) more() string {
	text := "without end"
	if !p.Until.IsZero() {
		text = "until " + formatTime(p.Until.Time)
	}
	if p.Reason != "" {
		text += ": " + p.Reason
	}
	return text
}

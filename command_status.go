package caddypolar

import (
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/spf13/cobra"
)

func statusCommand() *cobra.Command {
	var o operator
	return o.flags(&cobra.Command{
		Use:   "status",
		Short: "Says how a running gateway is doing: store, sync, Polar, webhooks",
		Example: `  caddy polar status
  caddy polar status --json | jq .sync.last.ended`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var s statusView
			if err := o.ask(cmd.Context(), http.MethodGet, []string{"status"}, nil, nil, &s); err != nil {
				return err
			}
			return o.tell(cmd, s, s.table)
		},
	})
}

func (s *statusView) table(w io.Writer) {
	row(w, "gateway", s.Gateway)
	row(w, "server", s.Server)
	for _, p := range s.Plans {
		row(w, "plan", fmt.Sprintf("%s: products %d, benefits %d", p.Name, p.Products, p.Benefits))
		if p.Dead {
			row(w, "  error", "Polar knows none of its products: check their ids, and whether they are of production or sandbox")
		}
	}
	for _, status := range sortedKeys(s.Accounts) {
		if n := s.Accounts[status]; n > 0 {
			row(w, "users "+status, n)
		}
	}
	row(w, "store", fmt.Sprintf("%s, %d bytes, %d accounts in memory", s.Store.Path, s.Store.Bytes, s.Store.Accounts))
	if shared := s.Store.Shared; shared != nil {
		row(w, "  shared", shared.text())
	}
	for _, kind := range sortedKeys(s.Store.Objects) {
		row(w, "  "+kind, s.Store.Objects[kind])
	}
	row(w, "  counted", s.Store.CountedAt)
	if s.Store.Error != "" {
		row(w, "  error", s.Store.Error)
	}
	s.Polar.table(w)
	s.Sync.table(w)
	if !s.Webhooks.Taken {
		row(w, "webhooks", "none are taken: there is no webhook_secret")
	} else if len(s.Webhooks.Last) == 0 {
		row(w, "webhooks", "none since the start")
	}
	for _, kind := range sortedKeys(s.Webhooks.Last) {
		row(w, "webhook "+kind, s.Webhooks.Last[kind])
	}
	s.Webhooks.Endpoint.table(w)
	if s.Notify != nil {
		s.Notify.table(w)
	}
}

func (n *notifyView) table(w io.Writer) {
	row(w, "notify", n.To)
	row(w, "  waiting", n.Waiting)
	if n.Waiting > 0 {
		row(w, "  the oldest of", n.Oldest)
	}
	if n.Unread > 0 {
		row(w, "  changes not looked at yet", n.Unread)
	}
	if n.Error != "" {
		row(w, "  error", n.Error)
	}
	if n.GivenUp > 0 {
		row(w, "  given up", fmt.Sprintf("%d: caddy polar notify resend tries them again", n.GivenUp))
	}
}

func (e *endpointView) table(w io.Writer) {
	if e.Checked.IsZero() {
		return
	}
	row(w, "webhook endpoint", orDefault(e.URL, "none"))
	row(w, "  checked", e.Checked)
	row(w, "  problem", orDefault(e.Problem, "none"))
	if len(e.Lacking) > 0 {
		row(w, "  lacks", strings.Join(e.Lacking, ", "))
	}
	if e.Failed > 0 {
		row(w, "  failed within an hour", e.Failed)
	}
}

func (p *polarView) table(w io.Writer) {
	switch {
	case !p.CanAsk:
		row(w, "polar", "cannot be asked: there is no access_token")
	case p.Reachable:
		row(w, "polar", "reachable")
	default:
		row(w, "polar", "not reachable: tried again by itself")
	}
	if b := p.Budget; b != nil {
		row(w, "  budget", fmt.Sprintf("%d calls a minute of itself; %d of %d can go at once", b.PerMinute, b.Free, b.Most))
		if b.Paused > 0 {
			row(w, "  paused by Polar for", b.Paused)
		}
	}
	if p.VersionGone {
		row(w, "api_version", "no longer served by Polar: set a newer one, or update")
	}
	if p.Ahead != nil {
		row(w, "polar's clock is ahead by", *p.Ahead)
	}
}

func (s *syncView) table(w io.Writer) {
	switch {
	case s.Off:
		row(w, "sync", "off")
	case s.Last == nil:
		row(w, "sync", "none was whole yet")
	default:
		row(w, "last sync", s.Last.Ended)
		s.Last.table(w)
		row(w, "  next", s.NextDue)
	}
	if s.Running != nil {
		row(w, "sync under way", fmt.Sprintf("%s, step %d of %d, %d objects", s.Running.Step, s.Running.At, s.Running.Of, s.Running.Objects))
	}
	if s.Error != "" {
		row(w, "sync failed", s.Error)
	}
}

func (r *reportView) table(w io.Writer) {
	row(w, "  took", r.Took)
	row(w, "  objects", r.Objects)
	if r.Unreadable > 0 {
		row(w, "  unreadable", r.Unreadable)
	}
	row(w, "  mended", fmt.Sprintf("missing %d, wrong %d, extra %d", r.Missing, r.Wrong, r.Extra))
}

func (s *sharedView) text() string {
	told := "another gateway syncs and tells the app"
	if s.Leads {
		told = "this gateway syncs and tells the app"
	}
	if s.Behind > 0 {
		told += fmt.Sprintf("; for %.0f s it could not hear what the others write, and goes by what it knows", s.Behind)
	}
	return told
}

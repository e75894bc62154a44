package gateway

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-polar/caddy-polar/polar"
)

// glanceEvery is how often the newest of each list is read between syncs.
const glanceEvery = time.Minute

// glance reads what changes most and costs little: one page each of what began,
// ended, fails to be paid, is about to be renewed, was bought, given back and
// disputed last.
func (g *Gateway) glance(ctx context.Context) {
	run := &syncRun{Began: g.Now()}
	err := g.glanceAt(ctx, run)
	if err == nil && g.Now().Sub(g.Endpoint().Checked) >= healthEvery {
		err = g.checkEndpoint(ctx)
	}
	g.breaker.note(err, g.local())
	if err != nil && ctx.Err() == nil {
		g.logger.Debug("glance failed", zap.Error(err))
	}
	if g.filling() {
		return // that is no mending
	}
	if r := &run.report; r.Missing+r.Wrong > 0 {
		g.logger.Warn("a glance at Polar has mended the store: webhooks are missed or late",
			zap.Int("missing", r.Missing), zap.Int("wrong", r.Wrong))
	}
	if g.onGlance != nil {
		g.onGlance(run.report)
	}
}

func (g *Gateway) glanceAt(ctx context.Context, run *syncRun) (err error) {
	defer g.survive(&err)
	client := g.background()
	overdue := g.overduePage()
	for _, look := range []struct {
		filter  polar.SubscriptionFilter
		sorting string
		page    int
	}{
		{polar.SubscriptionFilter{Status: current}, "-started_at", 1},
		{polar.SubscriptionFilter{Status: []string{"canceled", "unpaid"}}, "-ended_at", 1},
		{polar.SubscriptionFilter{Status: []string{"past_due"}}, "-started_at", 1},
		{polar.SubscriptionFilter{Status: []string{"active", "trialing"}}, "current_period_end", overdue},
	} {
		p, err := client.ListSubscriptions(ctx, look.filter, paging(look.page, look.sorting))
		if err != nil {
			return err
		}
		if look.sorting == "current_period_end" {
			g.overdueFrom(overdue, &p)
		}
		lately := endedSince(p.Items, g.Now().Add(-g.longestGrace()-endedTold))
		if err := g.mend(ctx, run, p.AsOf, each(lately, (*reader).subscription)...); err != nil {
			return err
		}
	}
	for _, look := range []func() error{
		func() error {
			p, err := client.ListOrders(ctx, polar.OrderFilter{BillingType: "one_time"}, paging(1, "-created_at"))
			return g.glanced(ctx, run, p.AsOf, err, each(p.Items, (*reader).order))
		},
		func() error {
			p, err := client.ListRefunds(ctx, polar.RefundFilter{}, paging(1, "-created_at"))
			return g.glanced(ctx, run, p.AsOf, err, each(p.Items, (*reader).refund))
		},
		func() error {
			p, err := client.ListDisputes(ctx, polar.DisputeFilter{}, paging(1, "-created_at"))
			return g.glanced(ctx, run, p.AsOf, err, each(p.Items, (*reader).dispute))
		},
	} {
		if err := look(); err != nil {
			return err
		}
	}
	return nil
}

// overduePage is the page of the subscriptions that are due, the longest due
// first. Some can be due for ever: page by page, they do not hide the others.
func (g *Gateway) overduePage() int {
	g.sync.mu.Lock()
	defer g.sync.mu.Unlock()
	return g.sync.overdue + 1
}

// overdueFrom goes on to the next page while all of this one are due.
func (g *Gateway) overdueFrom(page int, p *polar.Page[polar.Subscription]) {
	g.sync.mu.Lock()
	defer g.sync.mu.Unlock()
	g.sync.overdue = 0
	if n := len(p.Items); n == pageSize && page < p.MaxPage && p.Items[n-1].CurrentPeriodEnd.Before(g.Now()) {
		g.sync.overdue = page
	}
}

// glanced takes a page, if the access token may read it.
func (g *Gateway) glanced(ctx context.Context, run *syncRun, asOf time.Time, err error, read []func(*reader) error) error {
	if errors.Is(err, polar.ErrScope) {
		return nil // the sync has told
	}
	if err != nil {
		return err
	}
	return g.mend(ctx, run, asOf, read...)
}

// warnScope tells once what cannot be read.
func (g *Gateway) warnScope(what string) {
	if _, told := g.warnedScopes.LoadOrStore(what, true); !told {
		g.logger.Warn("the access token lacks a scope: what depends on it is known from webhooks only; add it in Polar's settings",
			zap.String("what", what))
	}
}

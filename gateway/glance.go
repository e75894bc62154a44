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
	for _, look := range []struct {
		filter  polar.SubscriptionFilter
		sorting string
	}{
		{polar.SubscriptionFilter{Status: current}, "-started_at"},
		{polar.SubscriptionFilter{Status: []string{"canceled", "unpaid"}}, "-ended_at"},
		{polar.SubscriptionFilter{Status: []string{"past_due"}}, "-started_at"},
		{polar.SubscriptionFilter{Status: []string{"active", "trialing"}}, "current_period_end"},
	} {
		p, err := client.ListSubscriptions(ctx, look.filter, paging(1, look.sorting))
		if err != nil {
			return err
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

package gateway

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/caddy-polar/caddy-polar/cache"
	"github.com/caddy-polar/caddy-polar/entitlement"
	"github.com/caddy-polar/caddy-polar/polar"
)

// maxBacks is how often a sync steps a page back because a list has become
// shorter. A list that does so for ever is left to the next sync.
const maxBacks = 20

// errShort says that a list is shorter than Polar says it is.
var errShort = errors.New("an empty page of a list that is not empty")

// pageSize is the largest that Polar serves.
const pageSize = 100

// The lists are read so that nothing is missed although Polar's pages are
// offsets: by the time of creation, where what is new comes at the end; and
// where objects leave a list, from a moment on and never from a page.

// syncProducts looks whether there is anything to have at all.
func (g *Gateway) syncProducts(ctx context.Context, _ *syncRun) (*cache.Facts, syncCursor, bool, error) {
	return nil, syncCursor{}, true, g.checkPlans(ctx, g.background())
}

func (g *Gateway) syncCustomers(ctx context.Context, run *syncRun) (*cache.Facts, syncCursor, bool, error) {
	page := max(run.Cursor.Page, 1)
	p, err := g.background().ListCustomers(ctx, polar.CustomerFilter{}, paging(page, "created_at"))
	if err != nil {
		return nil, run.Cursor, false, err
	}
	if err := run.count(len(p.Items), p.TotalCount, page); err != nil {
		return nil, run.Cursor, false, err
	}
	for i := range p.Items {
		run.seen.add(p.Items[i].ID)
	}
	facts, err := run.facts(g, p.AsOf, each(p.Items, func(r *reader, c polar.CustomerProfile) error { return r.customer(c.Customer) })...)
	next := syncCursor{Page: page + 1, Total: p.TotalCount, Backs: run.Cursor.Backs}
	if gone := run.Cursor.Total - p.TotalCount; gone > 0 && next.Backs < maxBacks {
		// Some were deleted, and those behind them moved up as many places.
		next.Page, next.Backs = max(page-(gone+pageSize-1)/pageSize, 1), next.Backs+1
		return facts, next, false, err
	}
	return facts, next, page >= p.MaxPage, err
}

// current are the statuses of subscriptions that can open something.
var current = []string{"active", "trialing", "past_due", "paused", "incomplete"}

func (g *Gateway) syncSubscriptions(ctx context.Context, run *syncRun) (*cache.Facts, syncCursor, bool, error) {
	page := max(run.Cursor.Page, 1)
	p, err := g.background().ListSubscriptions(ctx,
		polar.SubscriptionFilter{Status: current, StartedAfter: run.Cursor.After}, paging(page, "started_at"))
	if err != nil {
		return nil, run.Cursor, false, err
	}
	if err := run.count(len(p.Items), p.TotalCount, page); err != nil {
		return nil, run.Cursor, false, err
	}
	var last time.Time
	for i := range p.Items {
		run.seen.add(p.Items[i].ID)
		if at := p.Items[i].StartedAt; at != nil {
			last = *at
		}
	}
	facts, err := run.facts(g, p.AsOf, each(p.Items, (*reader).subscription)...)
	return facts, run.Cursor.after(last), page >= p.MaxPage, err
}

// syncEnded reads what has ended lately: it can be in its grace, and tells why
// somebody is refused.
func (g *Gateway) syncEnded(ctx context.Context, run *syncRun) (*cache.Facts, syncCursor, bool, error) {
	page := max(run.Cursor.Page, 1)
	p, err := g.background().ListSubscriptions(ctx,
		polar.SubscriptionFilter{Status: []string{"canceled", "unpaid"}}, paging(page, "-ended_at"))
	if err != nil {
		return nil, run.Cursor, false, err
	}
	if err := run.count(len(p.Items), p.TotalCount, page); err != nil {
		return nil, run.Cursor, false, err
	}
	oldest := g.Now().Add(-g.longestGrace() - endedTold)
	done := page >= p.MaxPage
	for i := range p.Items {
		run.seen.add(p.Items[i].ID)
	}
	lately := endedSince(p.Items, oldest)
	done = done || len(lately) < len(p.Items)
	facts, err := run.facts(g, p.AsOf, each(lately, (*reader).subscription)...)
	return facts, syncCursor{Page: page + 1}, done, err
}

// endedSince leaves out what has ended before: the store forgets it.
func endedSince(all []polar.Subscription, oldest time.Time) (lately []polar.Subscription) {
	for i := range all {
		if at := all[i].EndedAt; at == nil || !at.Before(oldest) {
			lately = append(lately, all[i])
		}
	}
	return lately
}

// endedTold is for how long after the end a user is told what has ended.
const endedTold = 30 * 24 * time.Hour

func (g *Gateway) longestGrace() (longest time.Duration) {
	for i := range g.plans {
		longest = max(longest, g.plans[i].Grace.Canceled, g.plans[i].Grace.Unpaid)
	}
	return longest
}

func (g *Gateway) syncOrders(ctx context.Context, run *syncRun) (*cache.Facts, syncCursor, bool, error) {
	page := max(run.Cursor.Page, 1)
	p, err := g.background().ListOrders(ctx,
		polar.OrderFilter{BillingType: "one_time", CreatedAfter: run.Cursor.After}, paging(page, "created_at"))
	if err != nil {
		return nil, run.Cursor, false, err
	}
	if err := run.count(len(p.Items), p.TotalCount, page); err != nil {
		return nil, run.Cursor, false, err
	}
	var last time.Time
	for i := range p.Items {
		run.seen.add(p.Items[i].ID)
		last = p.Items[i].CreatedAt
	}
	facts, err := run.facts(g, p.AsOf, each(p.Items, (*reader).order)...)
	return facts, run.Cursor.after(last), page >= p.MaxPage, err
}

func (g *Gateway) syncRefunds(ctx context.Context, run *syncRun) (*cache.Facts, syncCursor, bool, error) {
	return readPage(g, run, (*reader).refund, func(p polar.Paging) (polar.Page[polar.Refund], error) {
		return g.background().ListRefunds(ctx, polar.RefundFilter{}, p)
	})
}

func (g *Gateway) syncDisputes(ctx context.Context, run *syncRun) (*cache.Facts, syncCursor, bool, error) {
	return readPage(g, run, (*reader).dispute, func(p polar.Paging) (polar.Page[polar.OrderDispute], error) {
		return g.background().ListDisputes(ctx, polar.DisputeFilter{}, p)
	})
}

func (g *Gateway) syncGrants(ctx context.Context, run *syncRun) (*cache.Facts, syncCursor, bool, error) {
	if !g.usesBenefits() {
		return nil, syncCursor{}, true, nil
	}
	read := func(r *reader, grant polar.BenefitGrant) error {
		run.seen.add(grant.ID)
		return r.grant(grant)
	}
	return readPage(g, run, read, func(p polar.Paging) (polar.Page[polar.BenefitGrant], error) {
		return g.background().ListBenefitGrants(ctx, polar.BenefitGrantFilter{}, p)
	})
}

// readPage reads a page of a list that only grows at its end.
func readPage[T any](
	g *Gateway, run *syncRun, read func(*reader, T) error, list func(polar.Paging) (polar.Page[T], error),
) (*cache.Facts, syncCursor, bool, error) {
	page := max(run.Cursor.Page, 1)
	p, err := list(paging(page, "created_at"))
	if err == nil {
		err = run.count(len(p.Items), p.TotalCount, page)
	}
	if err != nil {
		return nil, run.Cursor, false, err
	}
	facts, err := run.facts(g, p.AsOf, each(p.Items, read)...)
	return facts, syncCursor{Page: page + 1}, page >= p.MaxPage, err
}

// count counts a page. Nothing is believed to be gone because of an empty page
// of a list that is not empty.
func (r *syncRun) count(n, total, page int) error {
	r.page = n
	if n == 0 && page == 1 && total > 0 {
		return errShort
	}
	return nil
}

// facts reads for this sync.
func (r *syncRun) facts(g *Gateway, asOf time.Time, read ...func(*reader) error) (*cache.Facts, error) {
	facts, unreadable, err := g.facts(asOf, read...)
	r.report.Unreadable += unreadable
	return facts, err
}

func paging(page int, sorting string) polar.Paging {
	return polar.Paging{Page: page, Limit: pageSize, Sorting: []string{sorting}}
}

// after is where the next page begins: a hair before the last one's end, for
// others can have the same moment. When a whole page has it, the next page does.
func (c syncCursor) after(last time.Time) syncCursor {
	next := last.Add(-time.Microsecond)
	if last.IsZero() || !next.After(c.After) {
		return syncCursor{After: c.After, Page: max(c.Page, 1) + 1}
	}
	return syncCursor{After: next}
}

// replicaLag is how far Polar's lists may be behind: what is newer and missing
// from them may still come.
const replicaLag = time.Hour

// askForGone asks by id for what is held as current and was in no list. Nothing
// is closed because a list lacks it.
func (g *Gateway) askForGone(ctx context.Context, run *syncRun) error {
	missing := func(v entitlement.Version, id string) bool {
		return !v.AsOf.After(run.Began) && !run.seen.has(id)
	}
	err := g.store.EachSubscription(ctx, func(s *entitlement.Subscription) error {
		if s.Status.Ended() || !missing(s.Version, s.ID) {
			return nil
		}
		a, err := g.background().GetSubscription(ctx, s.ID)
		if err == nil {
			return g.mend(ctx, run, a.AsOf, func(r *reader) error { return r.subscription(a.Item) })
		}
		return g.gone(ctx, run, err, s.Version, func(f *cache.Facts, v entitlement.Version) {
			closed := *s
			closed.Version, closed.Status, closed.EndedAt = v, entitlement.StatusCanceled, v.AsOf
			f.Subscriptions = append(f.Subscriptions, closed)
		})
	})
	if err != nil {
		return err
	}
	err = g.store.EachOrder(ctx, func(o *entitlement.Order) error {
		if run.skipped["orders"] || o.SubscriptionID != "" || o.Status == entitlement.OrderRefunded || !missing(o.Version, o.ID) {
			return nil
		}
		a, err := g.background().GetOrder(ctx, o.ID)
		if err == nil {
			return g.mend(ctx, run, a.AsOf, func(r *reader) error { return r.order(a.Item) })
		}
		return g.gone(ctx, run, err, o.Version, func(f *cache.Facts, v entitlement.Version) {
			closed := *o
			closed.Version, closed.Status = v, "void"
			f.Orders = append(f.Orders, closed)
		})
	})
	if err != nil {
		return err
	}
	return g.askForGoneOthers(ctx, run, missing)
}

// fewProofs is how many objects are asked for by id, at most, to see whether
// the organization is the one of the store.
const fewProofs = 3

// absent says that there is no such object: none of the id, or the id can be
// none of Polar's.
func absent(err error) bool {
	return errors.Is(err, polar.ErrNotFound) || errors.Is(err, polar.ErrInvalid)
}

// proveOurs asks for some of what is held, as the lists had none of it. Without
// a proof nothing that Polar does not tell is believed.
func (g *Gateway) proveOurs(ctx context.Context, began time.Time) error {
	asked := 0
	ask := func(v entitlement.Version, get func() error) error {
		if began.Sub(v.AsOf) < replicaLag {
			return nil // Polar's replica may not have it yet
		}
		err := get()
		if asked++; err != nil && !absent(err) {
			return err
		}
		if err == nil || asked == fewProofs {
			return cmp.Or(err, errEnough)
		}
		return nil
	}
	err := g.store.EachSubscription(ctx, func(s *entitlement.Subscription) error {
		return ask(s.Version, func() error { _, err := g.background().GetSubscription(ctx, s.ID); return err })
	})
	if err == nil {
		err = g.store.EachCustomer(ctx, func(c *entitlement.Customer) error {
			return ask(c.Version, func() error { _, err := g.background().GetCustomer(ctx, c.ID); return err })
		})
	}
	switch {
	case errors.Is(err, errEnough):
		return nil // one of them is known
	case err != nil && absent(err), err == nil && asked > 0:
		return errStrange
	}
	return err
}

// askForParents asks by id for what live grants belong to and is not held, as
// the lists have nothing of what ended long ago. A grant without its parent
// opens by itself.
func (g *Gateway) askForParents(ctx context.Context, run *syncRun) error {
	if !g.usesBenefits() {
		return nil
	}
	return g.store.EachGrant(ctx, func(grant *entitlement.Grant) error {
		if !grant.Granted || grant.Revoked || grant.SubscriptionID+grant.OrderID == "" {
			return nil
		}
		if held, err := g.store.HoldsParent(grant.SubscriptionID, grant.OrderID); held || err != nil {
			return err
		}
		read, asOf, err := parentOf(ctx, g.background(), grant.SubscriptionID, grant.OrderID)
		switch {
		case err != nil && (absent(err) || errors.Is(err, polar.ErrScope)):
			return nil
		case err != nil:
			return err
		}
		return g.mend(ctx, run, asOf, read)
	})
}

// parentOf reads what a grant or seat belongs to.
func parentOf(
	ctx context.Context, client *polar.Client, subscription, order string,
) (read func(*reader) error, asOf time.Time, err error) {
	if subscription != "" {
		a, err := client.GetSubscription(ctx, subscription)
		return func(r *reader) error { return r.subscription(a.Item) }, a.AsOf, err
	}
	a, err := client.GetOrder(ctx, order)
	return func(r *reader) error { return r.order(a.Item) }, a.AsOf, err
}

func (g *Gateway) askForGoneOthers(ctx context.Context, run *syncRun, missing func(entitlement.Version, string) bool) error {
	err := g.store.EachCustomer(ctx, func(c *entitlement.Customer) error {
		if !c.DeletedAt.IsZero() || c.Version.Row.IsZero() || !missing(c.Version, c.ID) {
			return nil
		}
		a, err := g.background().GetCustomer(ctx, c.ID)
		if err == nil {
			return g.mend(ctx, run, a.AsOf, func(r *reader) error { return r.customer(a.Item.Customer) })
		}
		return g.gone(ctx, run, err, c.Version, func(f *cache.Facts, v entitlement.Version) {
			closed := *c
			closed.Version, closed.DeletedAt = v, v.AsOf
			f.Customers = append(f.Customers, closed)
		})
	})
	if err != nil || !g.usesBenefits() || run.skipped["benefit grants"] {
		return err
	}
	asked := make(map[string]seenIDs)
	return g.store.EachGrant(ctx, func(grant *entitlement.Grant) error {
		if !grant.Granted || grant.Revoked || !missing(grant.Version, grant.ID) {
			return nil
		}
		if asked[grant.CustomerID] == nil {
			found, err := g.grantsOf(ctx, run, grant.CustomerID)
			if err != nil {
				return err
			}
			asked[grant.CustomerID] = found
		}
		if asked[grant.CustomerID].has(grant.ID) {
			return nil
		}
		return g.gone(ctx, run, polar.ErrNotFound, grant.Version, func(f *cache.Facts, v entitlement.Version) {
			closed := *grant
			closed.Version, closed.Granted, closed.Revoked, closed.RevokedAt = v, false, true, v.AsOf
			f.Grants = append(f.Grants, closed)
		})
	})
}

// grantsOf reads a customer's grants and tells which there are.
func (g *Gateway) grantsOf(ctx context.Context, run *syncRun, customer string) (seenIDs, error) {
	found := seenIDs{}
	filter := polar.BenefitGrantFilter{CustomerID: customer}
	for page, err := range polar.Pages(ctx, g.background().ListBenefitGrants, filter, polar.Paging{}) {
		if err != nil {
			return nil, err
		}
		for i := range page.Items {
			found.add(page.Items[i].ID)
		}
		if err := g.mend(ctx, run, page.AsOf, each(page.Items, (*reader).grant)...); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// mend takes what was asked for by id.
func (g *Gateway) mend(ctx context.Context, run *syncRun, asOf time.Time, read ...func(*reader) error) error {
	facts, err := run.facts(g, asOf, read...)
	if err != nil {
		return err
	}
	return g.applySweep(ctx, run, facts)
}

func (g *Gateway) applySweep(ctx context.Context, run *syncRun, facts *cache.Facts) error {
	facts.Sweep, facts.Expired = true, g.expired()
	applied, err := g.write(ctx, facts)
	if err != nil {
		return err
	}
	if applied.Foreign {
		return errForeign
	}
	run.report.Missing += applied.Missing
	run.report.Wrong += applied.Wrong
	return nil
}

// gone closes an object that Polar does not know, once it is old enough to be
// in every list. Any other error is the caller's.
func (g *Gateway) gone(ctx context.Context, run *syncRun, err error, v entitlement.Version, closing func(*cache.Facts, entitlement.Version)) error {
	if !absent(err) {
		return err
	}
	if run.Began.Sub(v.AsOf) < replicaLag {
		return nil
	}
	facts := &cache.Facts{Source: cache.Source{Kind: cache.SourceSync}}
	closing(facts, entitlement.Version{Row: v.Row, AsOf: run.Began})
	run.report.Extra++
	_, err = g.write(ctx, facts)
	return err
}

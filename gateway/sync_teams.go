package gateway

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"

	"go.uber.org/zap"

	"github.com/caddy-polar/caddy-polar/cache"
	"github.com/caddy-polar/caddy-polar/entitlement"
	"github.com/caddy-polar/caddy-polar/polar"
)

// Polar lists seats of one purchase at a time, and members of one customer. A
// sync asks for those of each purchase that has seats.

// team is a purchase with seats, and whose it is.
type team struct{ customer, subscription, order string }

// place orders teams so that a sync can go on where it was interrupted.
func (t *team) place() string { return t.customer + " " + t.subscription + t.order }

// syncTeams reads the seats of one purchase, and the members of its customer
// with the first of the customer's purchases.
func (g *Gateway) syncTeams(ctx context.Context, run *syncRun) (*cache.Facts, syncCursor, bool, error) {
	if run.teams == nil {
		teams, err := g.listTeams(ctx)
		if err != nil {
			return nil, run.Cursor, false, err
		}
		run.teams = teams
		run.report.Teams = len(teams)
	}
	i := slices.IndexFunc(run.teams, func(t team) bool { return t.place() > run.Cursor.Place })
	if i < 0 {
		return nil, syncCursor{}, true, nil
	}
	t := &run.teams[i]
	facts, err := g.readTeam(ctx, run, t, i == 0 || run.teams[i-1].customer != t.customer)
	if err != nil {
		return nil, run.Cursor, false, err
	}
	return facts, syncCursor{Place: t.place()}, i == len(run.teams)-1, nil
}

// listTeams lists what is held of purchases with seats that can open something.
func (g *Gateway) listTeams(ctx context.Context) ([]team, error) {
	teams := []team{}
	err := g.store.EachSubscription(ctx, func(s *entitlement.Subscription) error {
		if s.Seats && !s.Status.Ended() {
			teams = append(teams, team{customer: s.CustomerID, subscription: s.ID})
		}
		return nil
	})
	if err == nil {
		err = g.store.EachOrder(ctx, func(o *entitlement.Order) error {
			if o.Seats && o.SubscriptionID == "" && o.Status != entitlement.OrderRefunded {
				teams = append(teams, team{customer: o.CustomerID, order: o.ID})
			}
			return nil
		})
	}
	slices.SortFunc(teams, func(a, b team) int { return cmp.Compare(a.place(), b.place()) })
	return teams, err
}

// readTeam reads a purchase's seats, and a customer's members. What Polar no
// longer lists is gone: these lists are whole.
func (g *Gateway) readTeam(ctx context.Context, run *syncRun, t *team, withMembers bool) (*cache.Facts, error) {
	client := g.background()
	seats, err := client.ListSeats(ctx, polar.SeatFilter{SubscriptionID: t.subscription, OrderID: t.order})
	if absent(err) {
		return &cache.Facts{}, nil // the purchase is gone: whoever looks for it closes it
	}
	if errors.Is(err, polar.ErrForbidden) && !errors.Is(err, polar.ErrScope) || errors.Is(err, polar.ErrUnexpected) {
		// One team must not end the sync of all others.
		g.logger.Warn("the seats of a purchase cannot be read: they are known from webhooks only",
			zap.String("purchase", t.subscription+t.order), zap.Error(err))
		return &cache.Facts{}, nil
	}
	if err != nil {
		return nil, err
	}
	read := each(seats.Item.Seats, (*reader).seat)
	seen := seenIDs{}
	for i := range seats.Item.Seats {
		seen.add(seats.Item.Seats[i].ID)
	}
	asOf, known := seats.AsOf, !withMembers
	if withMembers && !run.skipped["members"] {
		members, err := g.readMembers(ctx, client, t.customer)
		switch {
		case errors.Is(err, polar.ErrScope):
			g.warnScope("members")
			run.skipped["members"] = true
		case err != nil:
			return nil, err
		default:
			known = true
			for i := range members {
				seen.add(members[i].ID)
			}
			read = append(read, each(members, (*reader).member)...)
		}
	}
	run.page = len(read)
	facts, err := run.facts(g, asOf, read...)
	if err != nil {
		return nil, err
	}
	return facts, g.closeGone(run, t, seen, withMembers && known, facts)
}

func (g *Gateway) readMembers(ctx context.Context, client *polar.Client, customer string) (all []polar.Member, err error) {
	filter := polar.MemberFilter{CustomerID: customer}
	for page, err := range polar.Pages(ctx, client.ListMembers, filter, polar.Paging{Sorting: []string{"created_at"}}) {
		if err != nil {
			return nil, err
		}
		all = append(all, page.Items...)
	}
	return all, nil
}

// closeGone closes the seats and members that are held and not listed, once they
// are old enough to be in every list.
func (g *Gateway) closeGone(run *syncRun, t *team, seen seenIDs, members bool, facts *cache.Facts) error {
	missing := func(v entitlement.Version, id string) bool {
		// A member that only other objects have told of has no AsOf.
		return run.Began.Sub(latest(v.AsOf, v.Row)) >= replicaLag && !seen.has(id)
	}
	seats, err := g.store.SeatsOf(t.subscription + t.order)
	if err != nil {
		return err
	}
	for _, s := range seats {
		if !s.Revoked && missing(s.Version, s.ID) {
			s.Version.AsOf, s.Claimed, s.Revoked, s.RevokedAt = run.Began, false, true, run.Began
			facts.Seats = append(facts.Seats, s)
			run.report.Extra++
		}
	}
	if !members {
		return nil
	}
	held, err := g.store.MembersOf(t.customer)
	if err != nil {
		return err
	}
	for _, m := range held {
		if !m.Deleted && missing(m.Version, m.ID) {
			m.Version.AsOf, m.Deleted = run.Began, true
			facts.Members = append(facts.Members, m)
			run.report.Extra++
		}
	}
	return nil
}

// readSeats reads the seats of one purchase, for a user who has one of them.
func (g *Gateway) readSeats(ctx context.Context, f polar.SeatFilter) error {
	seats, err := g.client.Prompt().ListSeats(ctx, f)
	if err != nil && (absent(err) || errors.Is(err, polar.ErrScope)) {
		return nil
	}
	if err != nil {
		return err
	}
	return g.learn(ctx, seats.AsOf, each(seats.Item.Seats, (*reader).seat)...)
}

// sellsSeats says whether something may be sold by seats: it is not so only once
// Polar has told what there is.
func (s *shelf) sellsSeats() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seats || s.dead == nil
}

// asked says whether Polar has told of the plans' products.
func (s *shelf) asked() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dead != nil
}

// readSales reads whether anything is sold by seats, as far as the access token
// may.
func (g *Gateway) readSales(ctx context.Context) error {
	err := g.checkPlans(ctx, g.client.Prompt())
	if errors.Is(err, polar.ErrScope) {
		return nil
	}
	return err
}

// bySeats says whether a product is sold by seats.
func bySeats(p *polar.Product) bool {
	return slices.ContainsFunc(p.Prices, func(price polar.Price) bool {
		return !price.IsArchived && strings.HasPrefix(price.AmountType, "seat")
	})
}

// weight is what a sync costs, in objects of full pages: seats and members are
// two questions for each team.
func (r *SyncReport) weight() int { return r.Objects + 2*pageSize*r.Teams }

// unsure says that a stranger can have a seat: nobody can be asked by whose it is.
func (g *Gateway) unsure(why doubt) bool { return why.stranger && g.catalog.sellsSeats() }

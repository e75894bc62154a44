package gateway

import (
	"context"
	"errors"
	"slices"

	"go.uber.org/zap"

	"github.com/caddy-polar/caddy-polar/entitlement"
	"github.com/caddy-polar/caddy-polar/polar"
)

// Polar gives a buyer of seats one of them, but only on its own success page. As
// buyers come back to the gateway's, the gateway does it: once for a purchase, so
// that who gives their seat away does not get it back.

// seatsBuyer says whether the buyer of a product is to have a seat of it.
func (g *Gateway) seatsBuyer(product string) bool {
	return slices.ContainsFunc(g.plansOf(product), func(plan string) bool { return !slices.Contains(g.sales.NoBuyerSeat, plan) })
}

// owesSeat says whether the buyer of a product may lack a seat of it although the
// plan is open: by somebody else's team, say.
func (g *Gateway) owesSeat(a *entitlement.Account, product string) bool {
	if !g.seatsBuyer(product) || !g.catalog.hasSeats(product) {
		return false
	}
	sold := make(map[string]string, len(a.Subscriptions)+len(a.Orders))
	for i := range a.Subscriptions {
		sold[a.Subscriptions[i].ID] = a.Subscriptions[i].ProductID
	}
	for i := range a.Orders {
		sold[a.Orders[i].ID] = a.Orders[i].ProductID
	}
	return !slices.ContainsFunc(a.Seats, func(s entitlement.Seat) bool {
		purchase := s.SubscriptionID + s.OrderID
		return s.Claimed && sold[purchase] == product && !slices.Contains(a.Foreign, purchase)
	})
}

// hasSeats says whether a product is known to be sold by seats.
func (s *shelf) hasSeats(product string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.offers, func(o Offer) bool { return o.ID == product && bySeats(&o.Product) })
}

// seatBuyer gives the buyer their seats in what they have just bought. It is
// done, too, when they are to have none.
func (g *Gateway) seatBuyer(ctx context.Context, p *purchase) (done bool, err error) {
	if p.shared || !g.seatsBuyer(p.paid.ProductID) {
		return true, nil
	}
	done = true
	for i := range p.teams {
		t := &p.teams[i]
		if !t.seated {
			t.seated, err = g.giveSeat(ctx, p, t.of)
			done = done && t.seated
		}
		if errors.Is(err, polar.ErrScope) {
			g.warnScope("seats, which needs customer_seats:write: buyers are not given one")
			return true, nil
		}
		if err != nil {
			return false, err
		}
	}
	return done, nil
}

// giveSeat gives the buyer a seat of a purchase in which they never had one. The
// note outlives the seat: a place that was given back can be somebody else's by
// now. done is false while Polar's replica is behind.
func (g *Gateway) giveSeat(ctx context.Context, p *purchase, of polar.SeatFilter) (done bool, err error) {
	key := "seat of the buyer of " + of.SubscriptionID + of.OrderID
	if note, err := g.Note(key); err != nil || note != nil {
		return true, err
	}
	seats, err := g.client.ListSeats(ctx, of)
	if errors.Is(err, polar.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if err := g.learn(ctx, seats.AsOf, each(seats.Item.Seats, (*reader).seat)...); err != nil {
		return false, err
	}
	body := polar.SeatAssign{SubscriptionID: of.SubscriptionID, OrderID: of.OrderID, ImmediateClaim: true}
	body.MemberID, err = g.ownerOf(ctx, p.paid.CustomerID)
	switch {
	case errors.Is(err, polar.ErrScope):
		body.ExternalMemberID = p.user // right if the customer is the user's own
	case err != nil:
		return false, err
	case body.MemberID == "":
		return false, nil
	}
	had := func(s polar.Seat) bool {
		return s.Status == "revoked" || s.MemberID != "" && s.MemberID == body.MemberID
	}
	if !slices.ContainsFunc(seats.Item.Seats, had) {
		if err := g.assignSeat(ctx, of, body); err != nil {
			return false, err
		}
	}
	return true, g.Keep(key, []byte{1})
}

func (g *Gateway) assignSeat(ctx context.Context, of polar.SeatFilter, body polar.SeatAssign) error {
	seat, err := g.client.AssignSeat(ctx, body)
	switch {
	case err == nil:
		return g.learnSeat(ctx, seat)
	case errors.Is(err, polar.ErrSeatTaken): // meanwhile
		return g.readSeats(ctx, of)
	case errors.Is(err, polar.ErrScope):
		return err
	case errors.Is(err, polar.ErrNoSeat), errors.Is(err, polar.ErrNotFound), errors.Is(err, polar.ErrForbidden), errors.Is(err, polar.ErrInvalid):
		g.logger.Warn("a buyer of seats was given none: they can take one in Polar's portal", zap.Error(err))
		return nil
	}
	return err
}

package gateway

import (
	"context"
	"errors"
	"slices"

	"github.com/caddy-polar/caddy-polar/entitlement"
	"github.com/caddy-polar/caddy-polar/polar"
)

// Seats are managed by whoever has bought them, and by the billing managers of
// the customer. The gateway acts as the member that they are there, in Polar's
// own portal, so that Polar's policy holds.

var (
	// ErrNoSeats says that the user manages nothing that has seats, or nothing
	// of this id.
	ErrNoSeats = errors.New("there is no purchase with seats")
	// ErrNotManager says that the user has a seat in a team, and no say in it.
	ErrNotManager = errors.New("the user does not manage this team")
	// ErrUnknownSeat says that no purchase of the user's has such a seat.
	ErrUnknownSeat = errors.New("there is no such seat")
	// ErrBadEmail says that an e-mail is none, or can be read in several ways.
	ErrBadEmail = errors.New("not an e-mail address")
	// ErrSelfInvited says that the user has invited themselves.
	ErrSelfInvited = errors.New("the invitation is to the user's own e-mail")
)

// SeatPurchase is a subscription or order that has seats.
type SeatPurchase struct {
	SubscriptionID, OrderID string // one of the two
	ProductID               string

	as manager
}

// ID is that of the subscription or order.
func (p *SeatPurchase) ID() string { return p.SubscriptionID + p.OrderID }

// SeatList is what a purchase has of seats.
type SeatList struct {
	polar.Seats
	Of SeatPurchase
	// All are the purchases that the user manages, Of among them.
	All []SeatPurchase
}

// manager is what a user is at Polar: a member of a customer, or the customer.
type manager struct{ customer, member string }

const (
	// looksPerMinute is how often a user can list seats: it costs as much as to
	// change them, but a page does it by itself.
	looksPerMinute = 30
	// maxTeams is for how many customers besides their own a user can act.
	maxTeams = 10
)

// Seats lists the seats of a purchase: of the one that is named, else of the
// first.
func (g *Gateway) Seats(ctx context.Context, user, id string) (*SeatList, error) {
	if _, err := g.ask(); err != nil {
		return nil, err
	}
	if err := g.looks.take(user, g.local()); err != nil {
		return nil, err
	}
	all, err := g.seatPurchases(ctx, user)
	if err != nil {
		return nil, err
	}
	meant := meantOf(all, id)
	if len(meant) == 0 {
		return nil, g.whyNoSeats(user, id)
	}
	for i := range meant {
		list := &SeatList{Of: meant[i], All: all}
		if err = g.listSeats(ctx, user, list); !errors.Is(err, ErrNotManager) {
			return list, err
		}
	}
	return nil, err
}

// listSeats asks as what the user is there.
func (g *Gateway) listSeats(ctx context.Context, user string, list *SeatList) error {
	portal, err := g.portalAs(ctx, user, list.Of.as)
	if err != nil {
		return err
	}
	seats, err := portal.ListSeats(ctx, polar.SeatFilter{SubscriptionID: list.Of.SubscriptionID, OrderID: list.Of.OrderID})
	if err != nil {
		return seatFailure(err, ErrNoSeats)
	}
	list.Seats = seats.Item
	return g.learn(ctx, seats.AsOf, each(seats.Item.Seats, (*reader).seat)...)
}

// InviteToSeat invites somebody else to a free seat of a purchase, which may be
// left open when there is only one.
func (g *Gateway) InviteToSeat(ctx context.Context, v Visitor, email, id string) (*polar.Seat, error) {
	if _, err := g.ask(); err != nil {
		return nil, err
	}
	if _, ok := foldEmail(email); !ok {
		return nil, ErrBadEmail // and Polar might find another one in it
	}
	if err := g.starts.take(v.User, g.local()); err != nil {
		return nil, err
	}
	all, err := g.seatPurchases(ctx, v.User)
	if err != nil {
		return nil, err
	}
	meant := meantOf(all, id)
	switch len(meant) {
	case 0:
		return nil, g.whyNoSeats(v.User, id)
	case 1:
	default:
		return nil, ErrSeveral
	}
	of := &meant[0]
	portal, err := g.portalAs(ctx, v.User, of.as)
	if err != nil {
		return nil, err
	}
	// Polar would invite them, and the link in the e-mail would be theirs.
	self, err := portal.GetUser(ctx)
	switch {
	case err != nil:
		return nil, seatFailure(err, ErrNoSeats)
	case sameEmail(email, self.Item.Email), v.self() && sameEmail(email, v.Email):
		return nil, ErrSelfInvited
	}
	body := polar.SeatInvite{SubscriptionID: of.SubscriptionID, OrderID: of.OrderID, Email: email}
	seat, err := portal.InviteToSeat(ctx, body)
	if err != nil {
		return nil, seatFailure(err, ErrNoSeats)
	}
	return &seat.Item, g.learnSeat(ctx, seat)
}

// RevokeSeat takes a seat away. Who had it is out when this returns.
func (g *Gateway) RevokeSeat(ctx context.Context, user, seat string) (*polar.Seat, error) {
	return g.changeSeat(ctx, user, seat, (*polar.Portal).RevokeSeat)
}

// ResendInvitation sends the invitation to a seat again.
func (g *Gateway) ResendInvitation(ctx context.Context, user, seat string) (*polar.Seat, error) {
	return g.changeSeat(ctx, user, seat, (*polar.Portal).ResendInvitation)
}

// changeSeat changes a seat for each of those whom the user can be, until one of
// them has it: Polar knows whose it is.
func (g *Gateway) changeSeat(
	ctx context.Context, user, id string,
	change func(*polar.Portal, context.Context, string) (polar.Answer[polar.Seat], error),
) (*polar.Seat, error) {
	if _, err := g.ask(); err != nil {
		return nil, err
	}
	if !isUUID(id) {
		return nil, ErrUnknownSeat
	}
	if err := g.starts.take(user, g.local()); err != nil {
		return nil, err
	}
	all, err := g.seatPurchases(ctx, user)
	if err != nil {
		return nil, err
	}
	if len(all) == 0 {
		if err := g.whyNoSeats(user, ""); !errors.Is(err, ErrNoSeats) {
			return nil, err
		}
	}
	var tried []manager
	outcome := ErrUnknownSeat
	for i := range all {
		as := all[i].as
		if slices.Contains(tried, as) {
			continue
		}
		tried = append(tried, as)
		portal, err := g.portalAs(ctx, user, as)
		var seat polar.Answer[polar.Seat]
		if err == nil {
			if seat, err = change(portal, ctx, id); err == nil {
				return &seat.Item, g.learnSeat(ctx, seat)
			}
			err = seatFailure(err, ErrUnknownSeat)
		}
		switch {
		case errors.Is(err, ErrNotManager):
			outcome = err // of this team, and perhaps of none: go on
		case !errors.Is(err, ErrUnknownSeat):
			return nil, err
		}
	}
	return nil, outcome
}

// learnSeat keeps what Polar answers to a change: it is a whole fact.
func (g *Gateway) learnSeat(ctx context.Context, a polar.Answer[polar.Seat]) error {
	return g.learn(ctx, a.AsOf, func(r *reader) error { return r.seat(a.Item) })
}

// seatFailure says what it means that Polar's portal refuses something about
// seats.
func seatFailure(err, unknown error) error {
	switch {
	case errors.Is(err, polar.ErrNotFound):
		return unknown
	case errors.Is(err, polar.ErrForbidden) && !errors.Is(err, polar.ErrScope):
		return ErrNotManager // no longer, and we had not heard
	}
	return err
}

// seatPurchases lists what has seats that the user manages, their own first,
// which is read from Polar before. Of others' teams it is what is held: they can
// be many, and whoever has one can make anybody its manager.
func (g *Gateway) seatPurchases(ctx context.Context, user string) ([]SeatPurchase, error) {
	own, err := g.ownCustomer(ctx, user)
	if err != nil && !errors.Is(err, ErrNoCustomer) && !errors.Is(err, ErrNotLinked) {
		return nil, err
	}
	account, err := g.Account(user)
	if err != nil {
		return nil, err
	}
	var all []SeatPurchase
	if own != "" {
		if all, err = g.purchasesOf(manager{customer: own}); err != nil {
			return nil, err
		}
	}
	teams := 0
	for i := range account.Members {
		m := &account.Members[i]
		if !m.Manages() || isOwn(account, m.CustomerID) || teams == maxTeams {
			continue
		}
		teams++
		more, err := g.purchasesOf(manager{m.CustomerID, m.ID})
		if err != nil {
			return nil, err
		}
		all = append(all, more...)
	}
	return all, nil
}

// isOwn says whether a customer is a user's own, if not theirs alone: then nobody
// has control of it, whatever they are in it.
func isOwn(a *entitlement.Account, customer string) bool {
	return slices.ContainsFunc(a.Customers, func(c entitlement.HeldCustomer) bool { return c.Own && c.ID == customer })
}

// purchasesOf lists what is held of a customer's purchases that have seats.
func (g *Gateway) purchasesOf(as manager) (list []SeatPurchase, err error) {
	subscriptions, orders, err := g.store.PurchasesOf(as.customer)
	for i := range subscriptions {
		if s := &subscriptions[i]; s.Seats && !s.Status.Ended() {
			list = append(list, SeatPurchase{SubscriptionID: s.ID, ProductID: s.ProductID, as: as})
		}
	}
	for i := range orders {
		if o := &orders[i]; hasOwnSeats(o) {
			list = append(list, SeatPurchase{OrderID: o.ID, ProductID: o.ProductID, as: as})
		}
	}
	return list, err
}

// hasOwnSeats says whether an order has seats of its own, and not those of its
// subscription.
func hasOwnSeats(o *entitlement.Order) bool {
	return o.Seats && o.SubscriptionID == "" && o.Status != entitlement.OrderRefunded
}

// meantOf are the purchases that an id can mean. None means what is the user's
// own, if there is any: others can make anybody a manager of theirs.
func meantOf(all []SeatPurchase, id string) (meant []SeatPurchase) {
	for i := range all {
		if p := &all[i]; id == p.ID() || id == "" && p.as.member == "" {
			meant = append(meant, *p)
		}
	}
	if id == "" && len(meant) == 0 {
		return all
	}
	return meant
}

// whyNoSeats says why a user manages nothing of this id, or nothing at all.
func (g *Gateway) whyNoSeats(user, id string) error {
	account, err := g.Account(user)
	if err != nil {
		return err
	}
	bought := func(purchase string) bool {
		return (id == "" || id == purchase) && !slices.Contains(account.Foreign, purchase)
	}
	for s := range account.CurrentSubscriptions() {
		if s.Seats && bought(s.ID) {
			return ErrNotLinked
		}
	}
	for i := range account.Orders {
		if o := &account.Orders[i]; hasOwnSeats(o) && bought(o.ID) {
			return ErrNotLinked
		}
	}
	seated := func(s entitlement.Seat) bool {
		return s.Claimed && (id == "" || id == s.SubscriptionID+s.OrderID)
	}
	member := func(m entitlement.Member) bool { return !m.Deleted && !m.Manages() && id == "" }
	if slices.ContainsFunc(account.Seats, seated) || slices.ContainsFunc(account.Members, member) {
		return ErrNotManager
	}
	return ErrNoSeats
}

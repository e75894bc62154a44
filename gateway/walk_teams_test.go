package gateway

import (
	"fmt"
	"slices"
	"time"

	"github.com/caddy-polar/caddy-polar/entitlement"
	"github.com/caddy-polar/caddy-polar/polar/box"
	"github.com/caddy-polar/caddy-polar/polar/box/boxtest"
)

// people are what a walk knows of teams, and of what the operator gives away.
type people struct {
	team, onceTeam box.Product
	suite          box.Benefit // of both
	gift           box.Discount
	// invited are people who buy nothing.
	invited []string
	// holders are the members who claimed each seat last. The box forgets them
	// with a seat that is revoked, as Polar does.
	holders map[string]string
	given   []pass
}

// pass is one that the operator has given.
type pass struct {
	entitlement.Pass
	revoked bool
}

func newPeople(b *boxtest.Server) people {
	x := people{holders: map[string]string{}, invited: []string{"usr_3", "usr_4"}}
	x.suite = b.AddBenefit(box.Benefit{Type: "feature_flag", Description: "suite"})
	x.gift = b.AddDiscount(box.Discount{Name: "Gift", BasisPoints: 10000, Duration: "once"})
	seats := box.Price{Currency: "usd", Tiers: []box.SeatTier{{Min: 1, PerSeat: 1000}}}
	x.team = b.AddProduct(box.Product{Name: "Team", Interval: "month", Price: seats, BenefitIDs: []string{x.suite.ID}})
	x.onceTeam = b.AddProduct(box.Product{Name: "Team for ever", Price: seats, BenefitIDs: []string{x.suite.ID}})
	return x
}

func (w *walk) everybody() []string { return slices.Concat(w.users, w.invited) }

// somebody can be given something. Where webhooks are lost, those who pay are
// not: that they are let in must hang on what they have paid.
func (w *walk) somebody() string {
	all := w.everybody()
	if w.syncs {
		all = w.invited
	}
	return all[w.rng.IntN(len(all))]
}

// moreActions are what can happen to teams, refunds, disputes and passes.
var moreActions = []action{
	{name: "buy seats", do: (*walk).buySeats},
	{name: "buy seats again", do: (*walk).buySeats},
	{name: "buy for nothing", do: (*walk).buyForNothing},
	{name: "assign a seat", do: onTeam((*walk).assign)},
	{name: "assign another seat", do: onTeam((*walk).assign)},
	{name: "claim a seat", do: onCustomer((*walk).claim)},
	{name: "revoke a seat", do: onTeam(func(w *walk, parent, _ string) error {
		seats := w.box.Seats(parent)
		if len(seats) == 0 {
			return errNotNow
		}
		_, err := w.box.RevokeSeat(seats[w.rng.IntN(len(seats))].ID)
		return err
	})},
	{name: "another number of seats", do: onTeam(func(w *walk, parent, _ string) error {
		_, err := w.box.ChangeSeats(parent, 1+w.rng.IntN(5), []string{"prorate", "next_period"}[w.rng.IntN(2)])
		return err
	})},
	{name: "remove a member", do: onMember(func(w *walk, m box.Member) error { return w.box.RemoveMember(m.ID) })},
	{name: "hand the team over", do: onMember(func(w *walk, m box.Member) error {
		_, err := w.box.UpdateMember(m.ID, box.MemberUpdate{Role: new("owner")})
		return err
	})},
	{name: "begin a refund", do: onOrder(func(w *walk, o box.Order) error {
		_, err := w.box.Refund(box.Refund{
			OrderID: o.ID, Amount: w.rng.IntN(2), Status: "pending", RevokeBenefits: o.SubscriptionID == "" && w.rng.IntN(2) == 0,
		})
		return err
	})},
	{name: "end a refund", do: onCustomer(func(w *walk, customer string) error {
		for _, r := range w.box.Refunds(customer) {
			if r.Status == "pending" {
				_, err := w.box.SettleRefund(r.ID, w.rng.IntN(2) == 0)
				return err
			}
		}
		return errNotNow
	})},
	{name: "lose a dispute", untold: true, do: onOrder(func(w *walk, o box.Order) error {
		return w.rarely(func() error { return w.box.LoseDispute(o.ID) })
	})},
	{name: "open a dispute", untold: true, do: onOrder(func(w *walk, o box.Order) error {
		_, err := w.box.OpenDispute(o.ID)
		return err
	})},
	{name: "settle a dispute", untold: true, do: onOrder(func(w *walk, o box.Order) error {
		for _, d := range w.box.Disputes(o.ID) {
			if d.Status == "needs_response" {
				return w.box.SettleDispute(d.ID, w.rng.IntN(3) > 0)
			}
		}
		return errNotNow
	})},
	{name: "give a pass", do: func(w *walk, _ string) bool {
		plan := w.g.plans[w.rng.IntN(len(w.g.plans))].Name
		given, err := w.g.GivePass(w.t.Context(), w.somebody(), plan, w.g.Now().Add(time.Duration(1+w.rng.IntN(20))*day), "")
		w.given = append(w.given, pass{Pass: given})
		return err == nil
	}},
	{name: "revoke a pass", do: func(w *walk, _ string) bool {
		i := slices.IndexFunc(w.given, func(p pass) bool { return !p.revoked })
		if i < 0 {
			return false
		}
		w.given[i].revoked = true
		return w.g.RevokePass(w.t.Context(), w.given[i].User, w.given[i].ID) == nil
	}},
}

func (w *walk) buySeats(user string) bool {
	p := w.purchase([]string{w.team.ID, w.onceTeam.ID}[w.rng.IntN(2)])
	p.Seats = 1 + w.rng.IntN(4)
	c, err := w.g.OpenCheckout(w.t.Context(), Visitor{User: user}, p)
	if err != nil {
		return false
	}
	_, err = w.box.Confirm(c.ID, box.Payment{Email: user + "@example.com"})
	return err == nil
}

// buyForNothing is a purchase past the gateway with a discount of everything.
func (w *walk) buyForNothing(user string) bool {
	c, err := w.box.CreateCheckout(box.Checkout{
		ProductIDs: []string{w.lifetime.ID}, ExternalCustomerID: user, CustomerEmail: user + "@example.com", DiscountID: w.gift.ID,
	})
	if err != nil {
		return false
	}
	_, err = w.box.Confirm(c.ID, box.Payment{})
	return err == nil
}

// teamsOf are the ids of a customer's purchases with seats.
func (w *walk) teamsOf(customer string) (parents []string) {
	for _, s := range w.box.Subscriptions(customer) {
		if s.Seats > 0 {
			parents = append(parents, s.ID)
		}
	}
	for _, o := range w.box.Orders(customer) {
		if o.Seats > 0 && o.SubscriptionID == "" {
			parents = append(parents, o.ID)
		}
	}
	return parents
}

func onTeam(do func(w *walk, parent, customer string) error) func(*walk, string) bool {
	return onCustomer(func(w *walk, customer string) error {
		parents := w.teamsOf(customer)
		if len(parents) == 0 {
			return errNotNow
		}
		return do(w, parents[w.rng.IntN(len(parents))], customer)
	})
}

func onMember(do func(*walk, box.Member) error) func(*walk, string) bool {
	return onCustomer(func(w *walk, customer string) error {
		members := w.box.Members(customer)
		if len(members) < 2 {
			return errNotNow
		}
		return do(w, members[w.rng.IntN(len(members))])
	})
}

// assign gives a seat to somebody, who has it at once or is invited.
func (w *walk) assign(parent, customer string) error {
	user := w.somebody()
	m, err := w.box.AddMember(box.Member{CustomerID: customer, Email: user + "@example.com", ExternalID: user})
	if err != nil {
		return err
	}
	a := box.SeatAssignment{OrderID: parent, MemberID: m.ID, Immediate: w.rng.IntN(2) == 0}
	if _, ok := w.box.Subscription(parent); ok {
		a.SubscriptionID, a.OrderID = parent, ""
	}
	seat, err := w.box.AssignSeat(a)
	if err != nil {
		return err
	}
	delete(w.holders, seat.ID)
	if a.Immediate {
		w.holders[seat.ID] = m.ID
	}
	return nil
}

func (w *walk) claim(customer string) error {
	for _, parent := range w.teamsOf(customer) {
		for _, s := range w.box.Seats(parent) {
			token, ok := w.box.Invitation(s.ID)
			if !ok {
				continue
			}
			if seat, err := w.box.ClaimSeat(token); err == nil {
				w.holders[seat.ID] = seat.MemberID
				return nil
			}
		}
	}
	return errNotNow
}

// seated is the truth about what a user has as a member of somebody's team. What
// Polar took back because a payment failed counts until the grace is over.
func (w *walk) seated(user string, p *entitlement.Plan) (open bool, why string) {
	for _, c := range w.box.Customers() {
		is := map[string]bool{}
		for _, m := range w.box.Members(c.ID) {
			is[m.ID] = m.ExternalID == user
		}
		for _, parent := range w.teamsOf(c.ID) {
			alive, productID, failed := w.lends(c.ID, parent)
			back := func(revoked *time.Time) bool { return failed != nil && revoked != nil && !revoked.Before(*failed) }
			if slices.Contains(p.Products, productID) {
				for _, s := range w.box.Seats(parent) {
					if s.Status != "pending" && is[w.holders[s.ID]] {
						why += fmt.Sprintf(" seat of %s %s;", c.ExternalID, s.Status)
						open = open || alive && (s.Status == "claimed" || back(s.RevokedAt))
					}
				}
			}
			for _, g := range w.box.Grants(c.ID) {
				if g.SubscriptionID+g.OrderID == parent && slices.Contains(p.Benefits, g.BenefitID) && is[g.MemberID] {
					why += fmt.Sprintf(" benefit of a seat of %s;", c.ExternalID)
					open = open || alive && (g.GrantedAt != nil || back(g.RevokedAt))
				}
			}
		}
	}
	return open, why
}

// lends says whether a purchase with seats is open, what it is of, and since when
// its payment fails.
func (w *walk) lends(customer, parent string) (alive bool, product string, failed *time.Time) {
	if s, ok := w.box.Subscription(parent); ok {
		if s.Status == "past_due" {
			failed = s.PastDueAt
		}
		return w.alive(&s), s.ProductID, failed
	}
	orders := w.box.Orders(customer)
	o := orders[slices.IndexFunc(orders, func(o box.Order) bool { return o.ID == parent })]
	return w.kept(&o), o.ProductID, nil
}

// untellable says that webhooks are lost, and that Polar has taken seats back for
// a payment that fails: it no longer says whose they were.
func (w *walk) untellable(p *entitlement.Plan) bool {
	if !w.syncs || !slices.Contains(p.Products, w.team.ID) {
		return false
	}
	return slices.ContainsFunc(w.box.Customers(), func(c box.Customer) bool {
		return slices.ContainsFunc(w.box.Subscriptions(c.ID), func(s box.Subscription) bool { return s.Seats > 0 && s.Status == "past_due" })
	})
}

// passed is the truth about the operator's passes.
func (w *walk) passed(user string, p *entitlement.Plan) (open bool, why string) {
	for i := range w.given {
		if x := &w.given[i]; x.User == user && x.Plan == p.Name && !x.revoked {
			why += fmt.Sprintf(" pass until %s;", x.Until.Format(time.RFC3339))
			open = open || w.box.Now().Before(x.Until)
		}
	}
	return open, why
}

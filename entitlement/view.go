package entitlement

import (
	"iter"
	"slices"
	"time"
)

// Current is the subscription that its buyer would call theirs, with the plan
// it is for (empty when it is for none) and what it opens by itself. Ended
// subscriptions are not current. ok is false when there is none.
func (a *Account) Current(r *Rules, now time.Time) (s *Subscription, d Decision, ok bool) {
	var best way
	var plan *Plan
	for i := range a.Subscriptions {
		if !a.current(i) {
			continue
		}
		w, p := a.subscriptionAlone(i, r, now)
		if s == nil || (p != nil && plan == nil) || ((p == nil) == (plan == nil) && w.beats(&best, w.class(), best.class())) {
			s, best, plan = &a.Subscriptions[i], w, p
		}
	}
	if s == nil {
		return nil, Decision{}, false
	}
	return s, best.decision(plan, true), true
}

// CurrentByID is like Current for one of several subscriptions.
func (a *Account) CurrentByID(id string, r *Rules, now time.Time) (s *Subscription, d Decision, ok bool) {
	i := a.subscriptionIndex(id)
	if i < 0 || !a.current(i) {
		return nil, Decision{}, false
	}
	w, plan := a.subscriptionAlone(i, r, now)
	return &a.Subscriptions[i], w.decision(plan, true), true
}

// With is the account with one subscription changed. The account itself stays.
func (a *Account) With(id string, change func(*Subscription)) *Account {
	f := Facts{
		Customers: slices.Clone(a.Customers), Subscriptions: slices.Clone(a.Subscriptions), Orders: slices.Clone(a.Orders),
		Grants: slices.Clone(a.Grants), Refunds: slices.Clone(a.Refunds), Passes: slices.Clone(a.Passes),
		Seats: slices.Clone(a.Seats), Members: slices.Clone(a.Members), Foreign: slices.Clone(a.Foreign), CheckoutAt: a.CheckoutAt,
	}
	if i := a.subscriptionIndex(id); i >= 0 {
		change(&f.Subscriptions[i])
	}
	return NewAccount(a.User, f)
}

// SeenBy is the account of a paying party of several people as one of them has
// it: what was bought is shared, a seat is one person's. Nothing else of the
// person's own account counts. Neither account changes.
func (a *Account) SeenBy(person *Account) *Account {
	f := Facts{
		Customers: slices.Clone(a.Customers), Subscriptions: slices.Clone(a.Subscriptions), Orders: slices.Clone(a.Orders),
		Refunds: slices.Clone(a.Refunds), Passes: slices.Clone(a.Passes), Members: slices.Clone(a.Members), CheckoutAt: a.CheckoutAt,
	}
	for i := range a.Grants {
		g, n := &a.Grants[i], &a.grants[i]
		held := n.subscription >= 0 || n.order >= 0
		if held && !a.sellsSeats(n) || !held && g.MemberID == "" {
			f.Grants = append(f.Grants, *g)
		}
	}
	if len(f.Grants) == len(a.Grants) && len(a.Seats) == 0 && len(person.Seats) == 0 && len(person.Members) == 0 {
		return a
	}
	person.lend(&f)
	return NewAccount(a.User, f)
}

// lend adds the seats that an account has as a member of teams, with what they
// are of. An owner is the buyer, and no single person, unless linked to one.
func (a *Account) lend(f *Facts) {
	var members []string
	for i := range a.Members {
		if m := &a.Members[i]; m.Role != RoleOwner || m.ExternalID != "" && m.ExternalID != a.User {
			members = append(members, m.ID)
			f.Members = append(f.Members, *m)
		}
	}
	for i := range a.Seats {
		if s := &a.Seats[i]; slices.Contains(members, s.MemberID) {
			f.Seats = append(f.Seats, *s)
			a.lendParent(f, &a.seats[i])
		}
	}
	for i := range a.Grants {
		if g := &a.Grants[i]; g.ForMember && slices.Contains(members, g.MemberID) {
			f.Grants = append(f.Grants, *g)
			a.lendParent(f, &a.grants[i])
		}
	}
}

// lendParent adds what a seat or grant is of, once, with what counts of it.
func (a *Account) lendParent(f *Facts, n *childNotes) {
	var id, customer string
	switch {
	case n.subscription >= 0:
		s := a.Subscriptions[n.subscription]
		if id, customer = s.ID, s.CustomerID; slices.ContainsFunc(f.Subscriptions, func(t Subscription) bool { return t.ID == id }) {
			return
		}
		f.Subscriptions = append(f.Subscriptions, s)
	case n.order >= 0:
		o := a.Orders[n.order]
		if id, customer = o.ID, o.CustomerID; slices.ContainsFunc(f.Orders, func(p Order) bool { return p.ID == id }) {
			return
		}
		f.Orders = append(f.Orders, o)
	default:
		return
	}
	f.Foreign = append(f.Foreign, id)
	for i := range a.Refunds {
		if r := &a.Refunds[i]; r.SubscriptionID == id || r.OrderID == id {
			f.Refunds = append(f.Refunds, *r)
		}
	}
	if !slices.ContainsFunc(f.Customers, func(c HeldCustomer) bool { return c.ID == customer }) {
		f.Customers = append(f.Customers, HeldCustomer{Customer: Customer{ID: customer, DeletedAt: a.deletedAt(customer)}})
		f.Foreign = append(f.Foreign, customer)
	}
}

// CurrentSubscriptions are those that are neither over nor a deleted
// customer's.
func (a *Account) CurrentSubscriptions() iter.Seq[*Subscription] {
	return func(yield func(*Subscription) bool) {
		for i := range a.Subscriptions {
			if a.current(i) && !yield(&a.Subscriptions[i]) {
				return
			}
		}
	}
}

// ManagesSeats says whether something with seats is held that the user has bought, or
// a team in which they may manage what was.
func (a *Account) ManagesSeats() bool {
	for s := range a.CurrentSubscriptions() {
		if s.Seats {
			return true
		}
	}
	for i := range a.Orders {
		if o := &a.Orders[i]; o.Seats && o.SubscriptionID == "" && o.Status != OrderRefunded && !a.orders[i].foreign {
			return true
		}
	}
	return slices.ContainsFunc(a.Members, func(m Member) bool {
		own := slices.ContainsFunc(a.Customers, func(c HeldCustomer) bool { return c.Own && c.ID == m.CustomerID })
		return m.Manages() && !own
	})
}

// RunningSubscriptions are those that are neither over nor a deleted
// customer's, with those of others in which the user has a seat.
func (a *Account) RunningSubscriptions() iter.Seq[*Subscription] {
	return func(yield func(*Subscription) bool) {
		for i := range a.Subscriptions {
			if a.running(i) && !yield(&a.Subscriptions[i]) {
				return
			}
		}
	}
}

// subscriptionAlone is the way of one subscription in the first plan that
// sells its product.
func (a *Account) subscriptionAlone(i int, r *Rules, now time.Time) (w way, p *Plan) {
	s := &a.Subscriptions[i]
	for n := range r.Plans {
		p := &r.Plans[n]
		if !slices.Contains(p.Products, s.ProductID) {
			continue
		}
		a.subscriptionWay(&w, i, &p.Grace, r, now)
		if !w.held { // seats: nothing for the buyer by itself
			w = way{reason: ReasonNoSubscription, status: string(s.Status)}
		}
		return w, p
	}
	return way{reason: ReasonPlanRequired, status: string(s.Status), subscribed: true}, nil
}

// Open lists the products and benefits of the plans that are open now, each
// once and in the order of the configuration.
func (a *Account) Open(r *Rules, now time.Time) (products, benefits []string) {
	for n := range r.Plans {
		p := &r.Plans[n]
		for _, id := range p.Products {
			if a.itemOpen(id, p, r, now, listSubscriptions, listOrders, listSeats) && !slices.Contains(products, id) {
				products = append(products, id)
			}
		}
		for _, id := range p.Benefits {
			if a.itemOpen(id, p, r, now, listGrants) && !slices.Contains(benefits, id) {
				benefits = append(benefits, id)
			}
		}
	}
	return products, benefits
}

// itemOpen says whether one of the listed facts of an item is open in a plan.
func (a *Account) itemOpen(item string, p *Plan, r *Rules, now time.Time, lists ...int) bool {
	var w way
	for _, list := range lists {
		for _, f := range of(a.listed[list], item) {
			if a.way(&w, list, f.index, &p.Grace, r, now); w.open {
				return true
			}
		}
	}
	return false
}

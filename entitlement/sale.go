package entitlement

import (
	"slices"
	"time"
)

// Obstacle is why a sale would fail at Polar, or would make someone pay twice.
type Obstacle string

// The obstacles, in the order in which they are told.
const (
	// ObstaclePaymentDue: a subscription waits for its money.
	ObstaclePaymentDue Obstacle = "payment_due"
	// ObstacleSubscribed: the plan is there already, or another subscription
	// is billed, besides which Polar sells no second one.
	ObstacleSubscribed Obstacle = "already_subscribed"
	// ObstaclePaused: a subscription waits to be resumed.
	ObstaclePaused Obstacle = "paused"
	// ObstacleSeat and ObstaclePass: a seat in what others have bought, or a pass,
	// gives it already. These two are warnings: who wants to pay all the same can.
	ObstacleSeat Obstacle = "has_seat"
	ObstaclePass Obstacle = "has_pass"
)

// Warning says that the obstacle is gone once Sale.Anyway is set.
func (o Obstacle) Warning() bool { return o == ObstacleSeat || o == ObstaclePass }

// Sale is what somebody wants to buy.
type Sale struct {
	Products []string
	// OneTime says that no product of it is a subscription.
	OneTime bool
	// Several says that a customer may have several subscriptions.
	Several bool
	// Anyway says that a warning has been read.
	Anyway bool
}

// Obstacle says what stands against a sale to this user, or nothing, and what
// they can do about it. until is when a pass or seat that they have ends; zero:
// never.
//
// Source: https://polar.sh/docs/features/products (one subscription for each
// customer, unless the organization allows several)
func (a *Account) Obstacle(sale *Sale, r *Rules, now time.Time) (o Obstacle, step NextStep, until time.Time) {
	var billed, changes, paused bool
	var free []string // who has a subscription that this would upgrade
	for s := range a.CurrentSubscriptions() {
		switch s.Status {
		case StatusPastDue:
			return ObstaclePaymentDue, StepPortal, until
		case StatusPaused:
			paused = true
		case StatusActive, StatusTrialing:
			if s.upgradable() && !slices.Contains(free, s.CustomerID) {
				free = append(free, s.CustomerID)
				continue
			}
			billed = true
			changes = changes || !s.CancelAtPeriodEnd // Polar changes no plan of one that is canceled
		}
	}
	held, until := a.holds(sale.Products, r, now)
	switch {
	case held == heldBought:
		return ObstacleSubscribed, StepPortal, time.Time{}
	case sale.Several || sale.OneTime:
	case changes:
		return ObstacleSubscribed, StepChange, time.Time{}
	case billed:
		return ObstacleSubscribed, StepPortal, time.Time{}
	case paused:
		return ObstaclePaused, StepPortal, time.Time{}
	}
	switch {
	case sale.Anyway:
	case held == heldBySeat:
		return ObstacleSeat, StepCheckout, until
	case held == heldByPass:
		return ObstaclePass, StepCheckout, until
	}
	return "", "", time.Time{}
}

// Upgradable is the free subscription that a checkout turns into a paid one,
// among those that Polar bills to the buyer, or nil.
//
// Source: https://polar.sh/docs/api-reference/2026-10/checkouts/create-checkout-session
// (subscription_id)
func (a *Account) Upgradable(billed []string) *Subscription {
	for s := range a.CurrentSubscriptions() {
		if s.upgradable() && slices.Contains(billed, s.ID) {
			return s
		}
	}
	return nil
}

// upgradable says that a subscription is free and goes on: one that is canceled
// would take what is paid for it along to its end. Free seats are in use by
// others, who would lose them.
func (s *Subscription) upgradable() bool {
	return s.Free && !s.Seats && s.Status == StatusActive && !s.CancelAtPeriodEnd && !s.PauseAtPeriodEnd
}

// WithoutFree is what of the products the user does not have for free already,
// or all if there is nothing else: a plan can sell what its free tier is, too.
func (a *Account) WithoutFree(products []string) []string {
	rest := slices.DeleteFunc(slices.Clone(products), func(id string) bool {
		for s := range a.CurrentSubscriptions() {
			if s.upgradable() && s.ProductID == id {
				return true
			}
		}
		return false
	})
	if len(rest) == 0 {
		return products
	}
	return rest
}

// holding is how much of what somebody wants to buy they have already.
type holding int8

const (
	heldNot holding = iota
	heldByPass
	heldBySeat // in what somebody else has bought
	heldBought
)

// holds says how much of a sale is there already: of several products the one
// that is there most.
func (a *Account) holds(products []string, r *Rules, now time.Time) (most holding, until time.Time) {
	for _, id := range products {
		if h, end := a.holdsProduct(id, r, now); h > most {
			most, until = h, end
		}
	}
	return most, until
}

// holdsProduct looks at the plans that a product opens. As long as one of them
// is not open, the product is worth buying.
func (a *Account) holdsProduct(id string, r *Rules, now time.Time) (least holding, until time.Time) {
	sold := false
	for i := range r.Plans {
		p := &r.Plans[i]
		if !slices.Contains(p.Products, id) {
			continue
		}
		if h, end := a.holdsPlan(p, id, r, now); !sold || h < least {
			least, until = h, end
		}
		sold = true
	}
	return least, until
}

// holdsPlan says whether a plan is open already by something that goes on, or
// by a pass or somebody else's seat that nothing outlasts. What is over and lives
// on by grace, and what the product would upgrade, are no reason not to buy.
func (a *Account) holdsPlan(p *Plan, product string, r *Rules, now time.Time) (holding, time.Time) {
	bought := false
	c := newContest()
	c.told = func(k Kind, i int, w way, _ bool) {
		bought = bought || w.open && !w.lent && w.goesOn() && !a.upgradedBy(product, k, i)
	}
	a.compete(&c, p, r, now)
	switch best := &c.best; {
	case bought:
		return heldBought, time.Time{}
	case best.open && best.lent && best.goesOn():
		return heldBySeat, best.until
	case best.open && best.reason == ReasonPass:
		return heldByPass, best.until
	}
	return heldNot, time.Time{}
}

// goesOn says that an open way is neither a pass nor grace, but that in which
// Polar may be late.
func (w *way) goesOn() bool {
	return w.reason != ReasonPass && (!w.grace || w.reason == ReasonRenewalGrace)
}

// upgradedBy says whether what opens a plan is a free subscription, or a
// benefit of it, that makes way for the product.
func (a *Account) upgradedBy(product string, k Kind, i int) bool {
	from := -1
	switch k {
	case KindSubscription:
		from = i
	case KindGrant:
		from = a.grants[i].subscription
	}
	return from >= 0 && a.Subscriptions[from].upgradable() && a.Subscriptions[from].ProductID != product
}

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
)

// Sale is what somebody wants to buy.
type Sale struct {
	Products []string
	// OneTime says that no product of it is a subscription.
	OneTime bool
	// Several says that a customer may have several subscriptions.
	Several bool
}

// Obstacle says what stands against a sale to this user, or nothing, and what
// they can do about it.
//
// Source: https://polar.sh/docs/features/products (one subscription for each
// customer, unless the organization allows several)
func (a *Account) Obstacle(sale *Sale, r *Rules, now time.Time) (Obstacle, NextStep) {
	var billed, paused bool
	for s := range a.CurrentSubscriptions() {
		switch s.Status {
		case StatusPastDue:
			return ObstaclePaymentDue, StepPortal
		case StatusPaused:
			paused = true
		case StatusActive, StatusTrialing:
			billed = billed || !s.upgradable()
		}
	}
	if a.has(sale, r, now) {
		return ObstacleSubscribed, StepPortal
	}
	if sale.Several || sale.OneTime {
		return "", ""
	}
	switch {
	case billed:
		return ObstacleSubscribed, StepChange
	case paused:
		return ObstaclePaused, StepPortal
	}
	return "", ""
}

// Upgradable is the free subscription that a checkout turns into a paid one, or
// nil.
func (a *Account) Upgradable() *Subscription {
	for s := range a.CurrentSubscriptions() {
		if s.upgradable() {
			return s
		}
	}
	return nil
}

// upgradable says that a subscription is free and goes on: one that is canceled
// would take what is paid for it along to its end.
func (s *Subscription) upgradable() bool {
	return s.Free && s.Status == StatusActive && !s.CancelAtPeriodEnd && !s.PauseAtPeriodEnd
}

// has says whether a plan of the sale is open already by something that goes
// on. What is over and lives on by grace, and passes, are no reason not to buy.
func (a *Account) has(sale *Sale, r *Rules, now time.Time) bool {
	for i := range r.Plans {
		p := &r.Plans[i]
		if !slices.ContainsFunc(p.Products, func(id string) bool { return slices.Contains(sale.Products, id) }) {
			continue
		}
		switch best := a.best(p, r, now); best.reason {
		case ReasonActive, ReasonCanceling, ReasonPausing, ReasonTrialing, ReasonRenewalGrace,
			ReasonPurchased, ReasonBenefit:
			return true
		}
	}
	return false
}

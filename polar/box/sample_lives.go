package box

import (
	"errors"
	"fmt"
	"time"
)

// stage is where the life of a sample is played.
type stage struct {
	*Box
	o  *SampleOptions
	at time.Time // when it comes to the point, but for the time that jobs take

	benefit  Benefit
	product  Product
	customer Customer
	sub      Subscription
	order    Order
	member   Member
	seat     Seat
	refund   Refund
	discount Discount
}

// life leads to an event: when it begins, and what happens.
type life struct {
	begins func(at time.Time) time.Time
	steps  []func(*stage) error
}

func born(begins func(time.Time) time.Time, steps ...func(*stage) error) life {
	return life{begins, steps}
}

func thatMoment(at time.Time) time.Time { return at }
func aDayAgo(at time.Time) time.Time    { return at.Add(-checkoutTTL) }
func tenDaysAgo(at time.Time) time.Time { return at.AddDate(0, 0, -10) }
func aMonthAgo(at time.Time) time.Time  { return interval(at, "month", -1) }

var lives = map[string]life{
	"checkout.created": born(thatMoment, (*stage).openCheckout),
	"checkout.updated": born(thatMoment, (*stage).subscribe),
	"checkout.expired": born(aDayAgo, (*stage).openCheckout, (*stage).wait, (*stage).expire),

	"customer.created":       born(thatMoment, (*stage).register),
	"customer.updated":       born(tenDaysAgo, (*stage).register, (*stage).wait, (*stage).rename),
	"customer.deleted":       born(tenDaysAgo, (*stage).register, (*stage).wait, (*stage).deleteCustomer),
	"customer.state_changed": born(thatMoment, (*stage).subscribe),

	"customer_seat.assigned": born(thatMoment, (*stage).buySeats, (*stage).assign),
	"customer_seat.claimed":  born(thatMoment, (*stage).buySeats, (*stage).assign, (*stage).claim),
	"customer_seat.revoked":  born(tenDaysAgo, (*stage).buySeats, (*stage).assign, (*stage).claim, (*stage).wait, (*stage).revokeSeat),
	"member.created":         born(thatMoment, (*stage).buySeats, (*stage).join),
	"member.updated":         born(tenDaysAgo, (*stage).buySeats, (*stage).join, (*stage).wait, (*stage).renameMember),
	"member.deleted":         born(tenDaysAgo, (*stage).buySeats, (*stage).join, (*stage).wait, (*stage).leave),

	// Of one-time products: those orders open something by themselves.
	"order.created":  born(thatMoment, (*stage).buyOnce),
	"order.updated":  born(thatMoment, (*stage).buyOnce),
	"order.paid":     born(thatMoment, (*stage).buyOnce),
	"order.refunded": born(tenDaysAgo, (*stage).buyOnce, (*stage).wait, (*stage).giveBack),
	"refund.created": born(tenDaysAgo, (*stage).buyOnce, (*stage).wait, (*stage).giveBack),
	"refund.updated": born(tenDaysAgo, (*stage).buyOnce, (*stage).beginRefund, (*stage).wait, (*stage).settleRefund),

	"subscription.created":    born(thatMoment, (*stage).subscribe),
	"subscription.active":     born(thatMoment, (*stage).subscribe),
	"subscription.updated":    born(tenDaysAgo, (*stage).subscribe, (*stage).wait, (*stage).annotate),
	"subscription.canceled":   born(tenDaysAgo, (*stage).subscribe, (*stage).wait, (*stage).cancel),
	"subscription.uncanceled": born(tenDaysAgo, (*stage).subscribe, (*stage).cancel, (*stage).wait, (*stage).uncancel),
	"subscription.revoked":    born(tenDaysAgo, (*stage).subscribe, (*stage).wait, (*stage).revoke),
	"subscription.cycled":     born(aMonthAgo, (*stage).subscribe, (*stage).periodEnds, (*stage).wait),
	"subscription.past_due":   born(aMonthAgo, (*stage).subscribe, (*stage).cardFails, (*stage).periodEnds, (*stage).wait),
	"subscription.paused":     born(aMonthAgo, (*stage).subscribe, (*stage).pauseAtEnd, (*stage).periodEnds, (*stage).wait),
	"subscription.resumed":    born(aMonthAgo, (*stage).subscribe, (*stage).pauseEarly, (*stage).wait, (*stage).resume),
	"subscription.migrated":   born(thatMoment, (*stage).migrate),

	"product.created":  born(thatMoment, (*stage).sell),
	"product.updated":  born(tenDaysAgo, (*stage).sell, (*stage).wait, (*stage).describe),
	"discount.created": born(thatMoment, (*stage).offer),
	"discount.updated": born(tenDaysAgo, (*stage).offer, (*stage).wait, (*stage).changeOffer),
	"discount.deleted": born(tenDaysAgo, (*stage).offer, (*stage).wait, (*stage).endOffer),
	"benefit.created":  born(thatMoment, (*stage).sell),
	"benefit.updated":  born(tenDaysAgo, (*stage).sell, (*stage).wait, (*stage).editBenefit),

	"benefit_grant.created": born(thatMoment, (*stage).subscribe),
	"benefit_grant.cycled":  born(aMonthAgo, (*stage).subscribe, (*stage).periodEnds, (*stage).wait),
	"benefit_grant.updated": born(tenDaysAgo, (*stage).subscribe, (*stage).wait, (*stage).editBenefit),
	"benefit_grant.revoked": born(tenDaysAgo, (*stage).subscribe, (*stage).wait, (*stage).revoke),

	"organization.updated": born(tenDaysAgo, (*stage).wait, (*stage).renameOrganization),
}

// play plays a life and returns the last event of a type.
func (l life) play(event string, o *SampleOptions, seed uint64, at time.Time) (*stage, Event, error) {
	s := &stage{Box: New(Options{Start: l.begins(at), Seed: seed}), o: o, at: at}
	s.org.ID = o.OrganizationID
	s.SetBaseURL("https://sandbox.polar.sh")
	for _, step := range l.steps {
		if err := step(s); err != nil {
			return nil, Event{}, err
		}
		s.Settle()
	}
	events := s.Events()
	for i := len(events) - 1; i >= 0; i-- {
		if events[i].Type == event {
			return s, events[i], nil
		}
	}
	return nil, Event{}, errors.New("nothing tells of it")
}

func (s *stage) wait() error {
	s.AdvanceTo(s.at)
	return nil
}

func (s *stage) expire() error {
	s.Advance(time.Second)
	return nil
}

func (s *stage) add(p Product) {
	s.benefit = s.AddBenefit(Benefit{Type: "custom", Description: "Pro features", Metadata: map[string]any{"feature": "pro"}})
	p.ID, p.BenefitIDs = s.o.ProductID, []string{s.benefit.ID}
	s.product = s.AddProduct(p)
}

func (s *stage) sell() error {
	s.add(Product{Name: "Pro", Interval: "month", Price: Price{Amount: 1900}})
	return nil
}

func (s *stage) checkout() (Checkout, error) {
	return s.CreateCheckout(Checkout{
		ProductIDs: []string{s.product.ID}, ExternalCustomerID: s.o.User, CustomerEmail: s.o.Email, CustomerName: "Sam Sample",
		SuccessURL: "https://app.example.com/welcome?checkout_id={CHECKOUT_ID}",
	})
}

func (s *stage) openCheckout() error {
	_ = s.sell()
	_, err := s.checkout()
	return err
}

func (s *stage) pay() error {
	c, err := s.checkout()
	if err != nil {
		return err
	}
	if c, err = s.Confirm(c.ID, Payment{}); err != nil {
		return err
	}
	s.customer, _ = s.Customer(c.CustomerID)
	s.sub, _ = s.Subscription(c.SubscriptionID)
	s.order = s.Orders(c.CustomerID)[0]
	return nil
}

func (s *stage) subscribe() error {
	_ = s.sell()
	return s.pay()
}

func (s *stage) buyOnce() error {
	s.add(Product{Name: "Lifetime", Price: Price{Amount: 14900}})
	return s.pay()
}

// buySeats is somebody else's purchase: the user is who gets a seat.
func (s *stage) buySeats() error {
	s.add(Product{Name: "Team", Interval: "month", Price: Price{Tiers: []SeatTier{{Min: 1, PerSeat: 1200}}}})
	s.mu.Lock()
	buyer := fmt.Sprintf("billing-%x@acme.example", s.bytes(4))
	s.mu.Unlock()
	c, err := s.CreateCheckout(Checkout{
		ProductIDs: []string{s.product.ID}, CustomerEmail: buyer, CustomerName: "Acme Corp", Seats: 3,
		SuccessURL: "https://app.example.com/welcome",
	})
	if err != nil {
		return err
	}
	if c, err = s.Confirm(c.ID, Payment{}); err != nil {
		return err
	}
	s.customer, _ = s.Customer(c.CustomerID)
	s.sub, _ = s.Subscription(c.SubscriptionID)
	return nil
}

func (s *stage) register() (err error) {
	s.customer, err = s.CreateCustomer(Customer{ExternalID: s.o.User, Email: s.o.Email, Name: "Sam Sample"})
	return err
}

var newName = "Samantha Sample"

func (s *stage) rename() error {
	_, err := s.UpdateCustomer(s.customer.ID, CustomerUpdate{Name: &newName})
	return err
}

func (s *stage) deleteCustomer() error { return s.DeleteCustomer(s.customer.ID) }

func (s *stage) assign() (err error) {
	s.seat, err = s.AssignSeat(SeatAssignment{SubscriptionID: s.sub.ID, Email: s.o.Email, ExternalMemberID: s.o.User})
	return err
}

func (s *stage) claim() error {
	token, _ := s.Invitation(s.seat.ID)
	_, err := s.ClaimSeat(token)
	return err
}

func (s *stage) revokeSeat() error {
	_, err := s.RevokeSeat(s.seat.ID)
	return err
}

func (s *stage) join() (err error) {
	s.member, err = s.AddMember(Member{CustomerID: s.customer.ID, Email: s.o.Email, Name: "Sam Sample", ExternalID: s.o.User})
	return err
}

func (s *stage) renameMember() error {
	_, err := s.UpdateMember(s.member.ID, MemberUpdate{Name: &newName})
	return err
}

func (s *stage) leave() error { return s.RemoveMember(s.member.ID) }

func (s *stage) giveBack() error {
	_, err := s.Refund(Refund{OrderID: s.order.ID, RevokeBenefits: true})
	return err
}

func (s *stage) beginRefund() (err error) {
	s.refund, err = s.Refund(Refund{OrderID: s.order.ID, RevokeBenefits: true, Status: "pending"})
	return err
}

func (s *stage) settleRefund() error {
	_, err := s.SettleRefund(s.refund.ID, true)
	return err
}

func (s *stage) annotate() error {
	_, err := s.SetMetadata(s.sub.ID, map[string]any{"note": "edited"})
	return err
}

func (s *stage) cancel() error {
	_, err := s.Cancel(s.sub.ID, "too_expensive", "")
	return err
}

func (s *stage) uncancel() error {
	_, err := s.Uncancel(s.sub.ID)
	return err
}

func (s *stage) revoke() error {
	_, err := s.Revoke(s.sub.ID)
	return err
}

// periodEnds makes the period end to the point: months differ in length.
func (s *stage) periodEnds() error {
	_, err := s.EndPeriodAt(s.sub.ID, s.at)
	return err
}

func (s *stage) cardFails() error { return s.SetCard(s.customer.ID, false) }

func (s *stage) pauseAtEnd() error {
	_, err := s.Pause(s.sub.ID, nil)
	return err
}

func (s *stage) pauseEarly() error {
	if err := s.pauseAtEnd(); err != nil {
		return err
	}
	_, err := s.EndPeriodAt(s.sub.ID, tenDaysAgo(s.at))
	return err
}

func (s *stage) resume() error {
	_, err := s.Resume(s.sub.ID)
	return err
}

func (s *stage) migrate() error {
	_ = s.sell()
	if err := s.register(); err != nil {
		return err
	}
	_, err := s.MigrateSubscription(Migration{
		CustomerID: s.customer.ID, ProductID: s.product.ID, Provider: "stripe", ProviderSubscriptionID: "sub_1QInventedForASample",
		PeriodStart: tenDaysAgo(s.at),
	})
	return err
}

func (s *stage) describe() error {
	text := "Everything, and more."
	_, err := s.UpdateProduct(s.product.ID, ProductUpdate{Description: &text})
	return err
}

func (s *stage) editBenefit() error {
	_, err := s.UpdateBenefit(s.benefit.ID, BenefitUpdate{Properties: map[string]any{"note": "Welcome."}})
	return err
}

func (s *stage) offer() error {
	_ = s.sell()
	s.discount = s.AddDiscount(Discount{Name: "Launch", Code: "LAUNCH", BasisPoints: 2000, ProductIDs: []string{s.product.ID}})
	return nil
}

func (s *stage) changeOffer() error {
	name := "Launch week"
	_, err := s.UpdateDiscount(s.discount.ID, DiscountUpdate{Name: &name})
	return err
}

func (s *stage) endOffer() error { return s.DeleteDiscount(s.discount.ID) }

func (s *stage) renameOrganization() error {
	name := "Acme Corp"
	s.UpdateOrganization(OrganizationUpdate{Name: &name})
	return nil
}

package box

import (
	"cmp"
	"fmt"
	"net/http"
	"time"
)

// Seat is a place in a subscription or an order that is sold by seats. It is
// pending until somebody claims it.
type Seat struct {
	Row
	SubscriptionID, OrderID         string // one of them
	Status                          string // pending, claimed or revoked
	CustomerID, MemberID, Email     string // the customer is the buyer
	ExpiresAt, ClaimedAt, RevokedAt *time.Time
	Metadata                        map[string]any
	token                           string
}

// SeatAssignment says who gets a seat of what: somebody with an e-mail, who
// becomes a member, or somebody who is a member already.
type SeatAssignment struct {
	SubscriptionID, OrderID string // one of them
	Email                   string
	MemberID                string
	ExternalMemberID        string
	Metadata                map[string]any
	Immediate               bool // claimed at once, without an invitation
}

// invitationTTL is how long an invitation can be claimed.
const invitationTTL = 24 * time.Hour

// seatSource is what has seats: a subscription or an order.
type seatSource struct {
	id, subscriptionID, orderID string
	customerID, productID       string
	seats                       int
	open                        bool // seats can be given away
}

func (b *Box) seatSource(subscriptionID, orderID string) (seatSource, bool) {
	if s, ok := b.subs.get(subscriptionID); ok {
		return seatSource{s.ID, s.ID, "", s.CustomerID, s.ProductID, s.Seats, s.Billable()}, true
	}
	if o, ok := b.orders.get(orderID); ok {
		return seatSource{o.ID, "", o.ID, o.CustomerID, o.ProductID, o.Seats, o.paid() && o.Status != "refunded"}, true
	}
	return seatSource{}, false
}

// assigned counts the seats of a subscription or order that are not free.
func (b *Box) assigned(id string) int {
	n := 0
	for _, s := range b.seats.of(id) {
		if s.Status != "revoked" {
			n++
		}
	}
	return n
}

func seatError(code, detail string) *Error {
	return &Error{Status: http.StatusBadRequest, Code: code, Detail: detail}
}

// AssignSeat gives a seat away: it is pending until the invitation is claimed.
func (b *Box) AssignSeat(a SeatAssignment) (Seat, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	from, ok := b.seatSource(a.SubscriptionID, a.OrderID)
	if !ok {
		return Seat{}, notFound()
	}
	if !from.open || from.seats-b.assigned(from.id) <= 0 {
		return Seat{}, seatError("SeatNotAvailable", "No available seats for "+from.id)
	}
	m, err := b.seatMember(&from, a)
	if err != nil {
		return Seat{}, err
	}
	for _, s := range b.seats.of(from.id) {
		if s.Status != "revoked" && foldEmail(s.Email) == foldEmail(m.Email) {
			return Seat{}, seatError("SeatAlreadyAssigned", "Seat already assigned to customer "+m.Email)
		}
	}
	var out Seat
	b.transact(func(t *tx) {
		if m.ID == "" {
			t.addMember(&m)
		}
		out = t.assignSeat(&from, &m, a)
	})
	return out, nil
}

// seatMember finds who gets the seat. A member without an id is to be made.
func (b *Box) seatMember(from *seatSource, a SeatAssignment) (Member, error) {
	var found Member
	for _, m := range b.liveMembers(from.customerID) {
		switch {
		case a.MemberID != "" && m.ID == a.MemberID,
			a.MemberID == "" && a.ExternalMemberID != "" && m.ExternalID == a.ExternalMemberID,
			a.MemberID == "" && a.ExternalMemberID == "" && foldEmail(m.Email) == foldEmail(a.Email):
			found = m
		}
	}
	switch {
	case a.Email == "" && a.MemberID == "" && a.ExternalMemberID == "":
		return found, seatError("InvalidSeatAssignmentRequest", "One of email, member_id or external_member_id must be provided.")
	case found.ID != "" && a.Email != "" && foldEmail(found.Email) != foldEmail(a.Email):
		return found, seatError("InvalidSeatAssignmentRequest", "The member has another email address.")
	case found.ID != "":
		return found, nil
	case a.Email == "" || a.MemberID != "":
		return found, notFound()
	}
	made := Member{CustomerID: from.customerID, Email: a.Email, ExternalID: a.ExternalMemberID, Role: "member"}
	return made, b.checkMember(&made)
}

// assignSeat takes a seat that was revoked before it makes a new one.
func (t *tx) assignSeat(from *seatSource, m *Member, a SeatAssignment) Seat {
	b := t.b
	s := Seat{SubscriptionID: from.subscriptionID, OrderID: from.orderID}
	for _, old := range b.seats.of(from.id) {
		if old.Status == "revoked" {
			s = old
			break
		}
	}
	made := s.ID == ""
	if made {
		s.Row = b.newRow()
	}
	now := b.clock.tick()
	expires := now.Add(invitationTTL)
	s.Status, s.CustomerID, s.MemberID, s.Email, s.Metadata = "pending", from.customerID, m.ID, m.Email, object(a.Metadata)
	s.ClaimedAt, s.RevokedAt, s.ExpiresAt = nil, nil, &expires
	if a.Immediate {
		s.Status, s.ClaimedAt, s.ExpiresAt = "claimed", &now, nil
	} else {
		s.token = b.newToken("")
		b.invites[s.token] = s.ID
	}
	if made {
		insert(t, &b.seats, &s)
	} else {
		update(t, &b.seats, &s)
	}
	if a.Immediate { // and then there is no event of the assignment
		t.emit("customer_seat.claimed", b.seatJSON(&s))
		b.seatGrantJob(s.ID)
		return s
	}
	t.emit("customer_seat.assigned", b.seatJSON(&s))
	return s
}

// claimForBuyer gives the buyer a seat. Polar does so on its own success page
// only.
func (t *tx) claimForBuyer(buyer *Customer, o *Order) {
	from, _ := t.b.seatSource(o.SubscriptionID, o.ID)
	if m, ok := t.b.owner(buyer.ID); ok {
		t.assignSeat(&from, &m, SeatAssignment{Immediate: true})
	}
}

// Invitation returns the token of a pending seat, which Polar sends by e-mail.
func (b *Box) Invitation(seatID string) (token string, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s, ok := b.seats.get(seatID)
	return s.token, ok && s.Status == "pending"
}

// invited finds the pending seat of a token that can still be claimed.
func (b *Box) invited(token string) (Seat, bool) {
	s, ok := b.seats.get(b.invites[token])
	return s, ok && s.Status == "pending" && s.token == token && s.ExpiresAt.After(b.Now())
}

// ClaimSeat is the invited person who follows the link.
func (b *Box) ClaimSeat(token string) (Seat, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s, ok := b.invited(token)
	if !ok {
		return Seat{}, seatError("InvalidInvitationToken", "Invalid or expired invitation token")
	}
	delete(b.invites, token)
	b.transact(func(t *tx) {
		now := t.flush()
		s.Status, s.ClaimedAt, s.token = "claimed", &now, ""
		update(t, &b.seats, &s)
		t.emit("customer_seat.claimed", b.seatJSON(&s))
		b.seatGrantJob(s.ID)
	})
	return s, nil
}

// RevokeSeat takes a seat away. It can then be given to somebody else.
func (b *Box) RevokeSeat(id string) (Seat, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s, ok := b.seats.get(id)
	if !ok {
		return s, notFound()
	}
	b.transact(func(t *tx) { t.revokeSeat(&s, true) })
	return s, nil
}

// revokeSeats takes away all seats of a subscription or order, or those of one
// member.
func (t *tx) revokeSeats(parent, memberID string) {
	for _, s := range t.b.seats.of(parent) {
		if s.Status != "revoked" && (memberID == "" || s.MemberID == memberID) {
			t.revokeSeat(&s, false)
		}
	}
}

// revokeSeat empties a seat before its event is rendered. Polar does not load
// the member anew when the seat alone is revoked, so that event may carry the
// member still: stale says so.
func (t *tx) revokeSeat(s *Seat, stale bool) {
	b, now := t.b, t.flush()
	delete(b.invites, s.token)
	had := *s
	s.Status, s.RevokedAt, s.token = "revoked", &now, ""
	s.CustomerID, s.MemberID, s.Email = "", "", ""
	update(t, &b.seats, s)
	body := b.seatJSON(s)
	if m, ok := b.members.get(had.MemberID); ok && stale && had.Status == "claimed" {
		body["member"], body["customer_email"] = memberJSON(&m), m.Email
	}
	t.emit("customer_seat.revoked", body)
	if had.Status == "claimed" {
		like := Grant{SubscriptionID: had.SubscriptionID, OrderID: had.OrderID, CustomerID: had.CustomerID, MemberID: had.MemberID}
		b.job(b.Now().Add(grantDelay), true, func(t *tx) { t.setGrants(like, nil) })
	}
}

// seatGrantJob grants to the member of a claimed seat what the buyer bought.
func (b *Box) seatGrantJob(seatID string) {
	b.job(b.Now().Add(grantDelay), true, func(t *tx) {
		s, _ := b.seats.get(seatID)
		from, ok := b.seatSource(s.SubscriptionID, s.OrderID)
		if !ok || s.Status != "claimed" || !from.open {
			return
		}
		p, _ := b.products.get(from.productID)
		t.setGrants(Grant{SubscriptionID: s.SubscriptionID, OrderID: s.OrderID, CustomerID: s.CustomerID, MemberID: s.MemberID}, p.BenefitIDs)
	})
}

// Seats returns the seats of a subscription or an order, revoked ones too.
func (b *Box) Seats(parentID string) []Seat {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.seats.of(parentID)
}

// ChangeSeats changes the number of seats of a subscription, as ChangePlan
// changes the plan. It cannot go below the seats that are given away.
func (b *Box) ChangeSeats(id string, seats int, proration string) (Subscription, error) {
	return b.change(id, func(t *tx, s *Subscription) error {
		p, _ := b.products.get(s.ProductID)
		switch {
		case !s.Billable() || s.CancelAtPeriodEnd:
			return alreadyCanceled()
		case s.Seats == 0:
			return seatError("NotASeatBasedSubscription", "This subscription does not support seat-based pricing.")
		}
		if err := b.checkSeats(s, &p, seats); err != nil {
			return err
		}
		proration := cmp.Or(proration, b.options.Proration)
		switch {
		case seats == s.Seats:
			if s.Pending != nil && s.Pending.ProductID == "" {
				s.Pending = nil // saying the number again takes a scheduled one back
			} else if s.Pending != nil {
				pending := *s.Pending
				pending.Seats = 0
				s.Pending = &pending
			}
			t.save(s)
			return nil
		case proration == "next_period":
			pending := PendingUpdate{Row: b.newRow(), AppliesAt: s.CurrentPeriodEnd}
			if s.Pending != nil {
				pending = *s.Pending
			}
			pending.Seats = seats
			s.Pending = &pending
			t.save(s)
			return nil
		}
		return t.changeNow(s, &p, seats, proration)
	})
}

// checkSeats says whether a subscription can have so many seats of a product.
func (b *Box) checkSeats(s *Subscription, p *Product, seats int) error {
	if least := p.Price.minSeats(); seats < least {
		return seatError("BelowMinimumSeats", fmt.Sprintf("Minimum %d seats required.", least))
	}
	if most := p.Price.maxSeats(); most > 0 && seats > most {
		return seatError("AboveMaximumSeats", fmt.Sprintf("Maximum %d seats allowed.", most))
	}
	if n := b.assigned(s.ID); seats < n {
		return seatError("SeatsAlreadyAssigned", fmt.Sprintf("Cannot decrease seats to %d. Currently %d seats are assigned. Revoke seats first.", seats, n))
	}
	return nil
}

package box

import "net/http"

const scopeSeats = "customer_seats:read customer_seats:write"

// listSeats lists the seats of one subscription or order. There are no pages.
func listSeats(c *call) (int, any, error) {
	return c.seatList("")
}

func (c *call) seatList(customerID string) (int, any, error) {
	q := c.r.URL.Query()
	subscriptionID, orderID := q.Get("subscription_id"), q.Get("order_id")
	for name, id := range map[string]string{"subscription_id": subscriptionID, "order_id": orderID} {
		if id != "" && !isUUID(id) {
			return 0, nil, requestError("uuid_parsing", "Input should be a valid UUID", id, "query", name)
		}
	}
	if subscriptionID+orderID == "" {
		return 0, nil, seatError("BadRequest", "Either subscription_id or order_id must be provided")
	}
	return c.read(func(b *Box) (any, error) {
		parent, owner, total := "", "", 0
		if s, ok := b.subs.seen(subscriptionID, c.at); ok {
			parent, owner, total = s.ID, s.CustomerID, s.Seats
		} else if o, ok := b.orders.seen(orderID, c.at); ok && subscriptionID == "" {
			parent, owner, total = o.ID, o.CustomerID, o.Seats
		}
		if parent == "" || customerID != "" && owner != customerID {
			return nil, notFound()
		}
		seats, free := []any{}, total
		for _, s := range b.seats.ofSeen(parent, c.at) {
			seats = append(seats, b.seatJSON(&s))
			if s.Status != "revoked" {
				free--
			}
		}
		return obj{"seats": seats, "available_seats": max(0, free), "total_seats": total}, nil
	})
}

func assignSeat(c *call) (int, any, error) {
	a, err := c.assignment("")
	if err != nil {
		return 0, nil, err
	}
	return c.seat(c.b.AssignSeat(a))
}

// assignment reads who gets a seat of what. Only the portal knows checkouts.
func (c *call) assignment(customerID string) (a SeatAssignment, err error) {
	var checkoutID, legacyID, legacyExternal string
	if err = readFields(c, map[string]*string{
		"subscription_id": &a.SubscriptionID, "order_id": &a.OrderID, "email": &a.Email, "member_id": &a.MemberID,
		"external_member_id": &a.ExternalMemberID, "checkout_id": &checkoutID, "customer_id": &legacyID, "external_customer_id": &legacyExternal,
	}); err != nil {
		return a, err
	}
	if a.Metadata, err = field[map[string]any](c, "metadata"); err != nil {
		return a, err
	}
	if len(a.Metadata) > 10 {
		return a, requestError("value_error", "Metadata can have at most 10 keys", a.Metadata, "body", "metadata")
	}
	if a.Immediate, err = field[bool](c, "immediate_claim"); err != nil {
		return a, err
	}
	if a.Email != "" {
		if err = checkEmail(a.Email, "email"); err != nil {
			return a, err
		}
	}
	if legacyID+legacyExternal != "" {
		return a, seatError("InvalidSeatAssignmentRequest", "customer_id and external_customer_id are not allowed when customers have members.")
	}
	return a, c.seatParent(&a, customerID, checkoutID)
}

// seatParent finds what has the seats. With a customer, only the customer's.
func (c *call) seatParent(a *SeatAssignment, customerID, checkoutID string) error {
	b := c.b
	b.mu.Lock()
	defer b.mu.Unlock()
	if x, ok := b.checkouts.get(checkoutID); ok && customerID != "" && a.SubscriptionID+a.OrderID == "" {
		a.SubscriptionID = x.SubscriptionID
		for _, o := range b.orders.of(x.CustomerID) {
			if o.CheckoutID == x.ID && o.SubscriptionID == "" {
				a.OrderID = o.ID
			}
		}
	}
	if a.SubscriptionID+a.OrderID == "" {
		return seatError("BadRequest", "Either subscription_id or order_id must be provided")
	}
	if from, ok := b.seatSource(a.SubscriptionID, a.OrderID); !ok || customerID != "" && from.customerID != customerID {
		return notFound()
	}
	return nil
}

func (c *call) seat(s Seat, err error) (int, any, error) {
	if err != nil {
		return 0, nil, err
	}
	return c.read(func(b *Box) (any, error) { return b.seatJSON(&s), nil })
}

func revokeSeat(c *call) (int, any, error) { return c.seat(c.b.RevokeSeat(c.params["seat_id"])) }

// resendSeat would send the e-mail again: the invitation stays the same.
func resendSeat(c *call) (int, any, error) {
	c.b.mu.Lock()
	s, ok := c.b.seats.get(c.params["seat_id"])
	c.b.mu.Unlock()
	switch {
	case !ok:
		return 0, nil, notFound()
	case s.Status != "pending":
		return 0, nil, seatError("SeatNotPending", "Seat is not in pending status")
	}
	return c.seat(s, nil)
}

// claimInfo is for the page behind the invitation's link. It changes nothing.
func claimInfo(c *call) (int, any, error) {
	return c.read(func(b *Box) (any, error) {
		s, ok := b.invited(c.params["invitation_token"])
		if !ok {
			return nil, notFound()
		}
		from, _ := b.seatSource(s.SubscriptionID, s.OrderID)
		p, _ := b.products.get(from.productID)
		return obj{
			"product_name": p.Name, "product_id": p.ID, "organization_name": b.org.Name, "organization_slug": b.org.Slug,
			"customer_email": s.Email, "can_claim": true,
		}, nil
	})
}

func claimSeat(c *call) (int, any, error) {
	if err := c.needs("invitation_token"); err != nil {
		return 0, nil, err
	}
	token, err := field[string](c, "invitation_token")
	if err != nil {
		return 0, nil, err
	}
	s, err := c.b.ClaimSeat(token)
	if err != nil {
		return 0, nil, err
	}
	return c.read(func(b *Box) (any, error) {
		return obj{"seat": b.seatJSON(&s), "customer_session_token": b.newMemberSession(s.CustomerID, s.MemberID, "").token}, nil
	})
}

// seatJSON is a seat with the person who has it. Polar tells who that is once
// it is claimed.
func (b *Box) seatJSON(s *Seat) obj {
	memberID, member := any(nil), any(nil)
	if m, ok := b.members.get(s.MemberID); ok && s.Status == "claimed" {
		memberID, member = m.ID, memberJSON(&m)
	}
	return with(s.Row.json(), obj{
		"subscription_id": text(s.SubscriptionID), "order_id": text(s.OrderID), "status": s.Status, "customer_id": text(s.CustomerID),
		"member_id": memberID, "member": member, "email": text(s.Email), "customer_email": text(s.Email),
		"invitation_token_expires_at": maybe(s.ExpiresAt), "claimed_at": maybe(s.ClaimedAt), "revoked_at": maybe(s.RevokedAt),
		"seat_metadata": object(s.Metadata),
	})
}

func portalSeats(c *call) (int, any, error) {
	if err := c.pays(); err != nil {
		return 0, nil, err
	}
	return c.seatList(c.session.customerID)
}

func (c *call) pays() error {
	c.b.mu.Lock()
	defer c.b.mu.Unlock()
	return c.b.mayPay(c.session)
}

func portalAssignSeat(c *call) (int, any, error) {
	if err := c.pays(); err != nil {
		return 0, nil, err
	}
	a, err := c.assignment(c.session.customerID)
	if err != nil {
		return 0, nil, err
	}
	a.Immediate = false // only the merchant can
	return c.seat(c.b.AssignSeat(a))
}

// ownSeat finds a seat of what the session's customer has bought.
func (c *call) ownSeat() error {
	if err := c.pays(); err != nil {
		return err
	}
	c.b.mu.Lock()
	defer c.b.mu.Unlock()
	s, _ := c.b.seats.get(c.params["seat_id"])
	if from, ok := c.b.seatSource(s.SubscriptionID, s.OrderID); !ok || from.customerID != c.session.customerID {
		return notFound()
	}
	return nil
}

func portalRevokeSeat(c *call) (int, any, error) {
	if err := c.ownSeat(); err != nil {
		return 0, nil, err
	}
	return revokeSeat(c)
}

func portalResendSeat(c *call) (int, any, error) {
	if err := c.ownSeat(); err != nil {
		return 0, nil, err
	}
	return resendSeat(c)
}

// portalSeated lists the subscriptions in which the session's member has
// claimed a seat.
func portalSeated(c *call) (int, any, error) {
	return c.read(func(b *Box) (any, error) {
		var rows []Subscription
		for _, s := range b.subs.ofSeen(c.session.customerID, c.at) {
			for _, seat := range b.seats.ofSeen(s.ID, c.at) {
				if seat.Status == "claimed" && seat.MemberID == c.session.memberID {
					rows = append(rows, s)
				}
			}
		}
		return list(c, listing[Subscription]{rows: rows, order: "-started_at", sorts: b.subscriptionSorts(), render: b.portalSubscription})
	})
}

func seatRoutes() []route {
	const get, post, del = http.MethodGet, http.MethodPost, http.MethodDelete
	const seats = "/v1/customer-seats"
	return []route{
		on(get, seats, scopeSeats, listSeats),
		on(post, seats, "customer_seats:write", assignSeat),
		on(post, seats+"/claim", anyone, claimSeat),
		on(get, seats+"/claim/{invitation_token}", anyone, claimInfo),
		on(del, seats+"/{seat_id}", "customer_seats:write", revokeSeat),
		on(post, seats+"/{seat_id}/resend", "customer_seats:write", resendSeat),
		on(get, "/v1/customer-portal/seats", "", portalSeats),
		on(post, "/v1/customer-portal/seats", "", portalAssignSeat),
		on(get, "/v1/customer-portal/seats/subscriptions", "", portalSeated),
		on(del, "/v1/customer-portal/seats/{seat_id}", "", portalRevokeSeat),
		on(post, "/v1/customer-portal/seats/{seat_id}/resend", "", portalResendSeat),
	}
}

package box

import (
	"net/http"
	"strconv"
)

func portalScope(c *call) (Subscription, error) {
	c.b.mu.Lock()
	defer c.b.mu.Unlock()
	s, ok := c.b.subs.seen(c.params["id"], c.at)
	if !ok || s.CustomerID != c.session.customerID {
		return s, notFound() // another customer's is not there
	}
	return s, nil
}

func portalList(c *call) (int, any, error) {
	return c.read(func(b *Box) (any, error) {
		return list(c, listing[Subscription]{
			rows: b.subs.ofSeen(c.session.customerID, c.at), order: "-started_at",
			matches: map[string]func(*Subscription, string) bool{
				"query": func(s *Subscription, q string) bool {
					p, _ := b.products.get(s.ProductID)
					return contains(q, p.Name, b.org.Name)
				},
			},
			filters: map[string]func(*Subscription) string{
				"product_id": func(s *Subscription) string { return s.ProductID },
				"active":     func(s *Subscription) string { return strconv.FormatBool(s.Active()) },
			},
			sorts: b.subscriptionSorts(), render: b.portalSubscription,
		})
	})
}

func portalGet(c *call) (int, any, error) {
	s, err := portalScope(c)
	return c.portal(s, err)
}

func (c *call) portal(s Subscription, err error) (int, any, error) {
	if err != nil {
		return 0, nil, err
	}
	return c.read(func(b *Box) (any, error) { return b.portalSubscription(&s), nil })
}

func portalCancel(c *call) (int, any, error) {
	s, err := portalScope(c)
	if err == nil {
		err = c.pays()
	}
	if err == nil {
		s, err = c.b.Cancel(s.ID, "", "")
	}
	return c.portal(s, err)
}

// portalPatch takes the bodies that a customer may send.
func portalPatch(c *call) (int, any, error) {
	s, err := portalScope(c)
	if err == nil {
		err = c.pays()
	}
	if err != nil {
		return 0, nil, err
	}
	has := func(name string) bool { _, ok := c.body[name]; return ok }
	switch {
	case has("product_id"):
		err = c.portalProduct(s.ID)
	case has("seats"):
		err = c.portalSeats(s.ID)
	case has("cancel_at_period_end"), has("cancellation_reason"), has("cancellation_comment"):
		_, _, err = c.patchCancel(s.ID, "cancellation_reason", "cancellation_comment")
	case has("pause_at_period_end"):
		_, _, err = c.patchPause(s.ID)
	case has("resume"):
		_, _, err = c.patchResume(s.ID)
	case has("pending_update"):
		_, _, err = c.patchPending(s.ID)
	default:
		err = c.only("product_id")
	}
	if err != nil {
		return 0, nil, err
	}
	s, _ = c.b.Subscription(s.ID)
	return c.portal(s, nil)
}

func (c *call) portalProduct(id string) error {
	if err := c.only("product_id"); err != nil {
		return err
	}
	product, err := field[string](c, "product_id")
	if err != nil {
		return err
	}
	if !isUUID(product) {
		return requestError("uuid_parsing", "Input should be a valid UUID", product, "body", "product_id")
	}
	return c.b.portalPlan(c.session.customerID, id, product)
}

// portalPlan changes the plan as the organization lets its customers: to public
// products only. Who came without paying has no card yet.
func (b *Box) portalPlan(customerID, id, productID string) error {
	b.mu.Lock()
	forbids := b.options.NoPlanChanges
	x, _ := b.customers.get(customerID)
	p, known := b.products.get(productID)
	b.mu.Unlock()
	switch {
	case forbids:
		return forbidden("UpdateSubscriptionPlanNotAllowed", "Updating subscription plan is not allowed.")
	case known && p.Visibility != "public":
		return invalid("Product visibility is not allowed.", productID, "product_id")
	case known && !p.Archived && p.Interval != "" && !p.Price.free() && x.PaymentMethodID == "":
		return conflict("PaymentMethodRequired", "A payment method is required to change to this product.")
	}
	_, err := b.ChangePlan(id, productID, "")
	return err
}

func (c *call) portalSeats(id string) error {
	c.b.mu.Lock()
	forbids := c.b.options.NoSeatChanges
	c.b.mu.Unlock()
	if forbids {
		return forbidden("UpdateSubscriptionSeatsNotAllowed", "Updating subscription seats is not allowed.")
	}
	_, _, err := c.patchSeats(id)
	return err
}

// teamMember is a member as the team sees it.
func teamMember(m *Member) obj {
	out := memberJSON(m)
	delete(out, "customer_id")
	delete(out, "external_id")
	return out
}

func portalMembers(c *call) (int, any, error) {
	if err := c.manages(); err != nil {
		return 0, nil, err
	}
	return c.read(func(b *Box) (any, error) {
		var rows []Member
		for _, m := range b.members.ofSeen(c.session.customerID, c.at) {
			if !m.deleted {
				rows = append(rows, m)
			}
		}
		return list(c, listing[Member]{rows: rows, order: "created_at", sorts: map[string]func(*Member) string{"created_at": byCreation[Member]}, render: teamMember})
	})
}

func portalAddMember(c *call) (int, any, error) {
	if err := c.manages(); err != nil {
		return 0, nil, err
	}
	m, err := c.newMember("email", "name", "role")
	if err == nil {
		err = checkRole(m.Role, "owner", "billing_manager", "member")
	}
	if err != nil {
		return 0, nil, err
	}
	if m.Role == "owner" {
		return 0, nil, seatError("BadRequest", "There must be exactly one owner.")
	}
	m.CustomerID = c.session.customerID
	if m, err = c.b.AddMember(m); err != nil {
		return 0, nil, err
	}
	return created(teamMember(&m), nil)
}

// colleague finds another member of the session's team.
func (c *call) colleague() (Member, error) {
	if err := c.manages(); err != nil {
		return Member{}, err
	}
	c.b.mu.Lock()
	defer c.b.mu.Unlock()
	m, ok := c.b.members.get(c.params["id"])
	if !ok || m.deleted || m.CustomerID != c.session.customerID {
		return m, notFound()
	}
	return m, nil
}

func portalUpdateMember(c *call) (int, any, error) {
	u, err := c.changedMember("name", "role")
	if err != nil {
		return 0, nil, err
	}
	m, err := c.colleague()
	if err != nil {
		return 0, nil, err
	}
	if u.Role != nil && *u.Role != m.Role && (m.ID == c.session.memberID || m.Role == "owner") {
		return 0, nil, seatError("BadRequest", "This role cannot be changed.") // nobody's own, and not the only owner's
	}
	if m, err = c.b.UpdateMember(m.ID, u); err != nil {
		return 0, nil, err
	}
	return http.StatusOK, teamMember(&m), nil
}

func portalRemoveMember(c *call) (int, any, error) {
	m, err := c.colleague()
	if err != nil {
		return 0, nil, err
	}
	if m.ID == c.session.memberID || m.Role == "owner" {
		return 0, nil, seatError("BadRequest", "Cannot remove yourself, or the only owner.")
	}
	return http.StatusNoContent, nil, c.b.RemoveMember(m.ID)
}

func portalRoutes() []route {
	const get, post, patch, del = http.MethodGet, http.MethodPost, http.MethodPatch, http.MethodDelete
	return []route{
		on(get, "/v1/customer-portal/subscriptions/", "", portalList),
		on(get, "/v1/customer-portal/subscriptions/{id}", "", portalGet),
		on(patch, "/v1/customer-portal/subscriptions/{id}", "", portalPatch),
		on(del, "/v1/customer-portal/subscriptions/{id}", "", portalCancel),
		on(get, "/v1/customer-portal/customer-session/introspect", "", introspectSession),
		on(get, "/v1/customer-portal/customer-session/user", "", sessionUser),
		on(get, "/v1/customer-portal/members", "", portalMembers),
		on(post, "/v1/customer-portal/members", "", portalAddMember),
		on(patch, "/v1/customer-portal/members/{id}", "", portalUpdateMember),
		on(del, "/v1/customer-portal/members/{id}", "", portalRemoveMember),
	}
}

package box

import "net/http"

// createSession opens the portal. As this organization has members, it is
// always the session of one: of the owner, when a customer has nobody else.
func createSession(c *call) (int, any, error) {
	var id, external, back, memberID, externalMember string
	if err := readFields(c, map[string]*string{
		"customer_id": &id, "external_customer_id": &external, "return_url": &back, "member_id": &memberID, "external_member_id": &externalMember,
	}); err != nil {
		return 0, nil, err
	}
	b := c.b
	b.mu.Lock()
	defer b.mu.Unlock()
	name, given := "customer_id", id
	if id == "" {
		name, given = "external_customer_id", external
		id = b.externals[external]
	}
	x, ok := b.customers.get(id)
	if !ok || x.DeletedAt != nil {
		return 0, nil, invalid("Customer does not exist.", given, name) // 422, not 404
	}
	m, err := b.sessionMember(&x, memberID, externalMember)
	if err != nil {
		return 0, nil, err
	}
	s := b.newMemberSession(id, m.ID, back)
	return http.StatusCreated, with(s.Row.json(), obj{
		"token": s.token, "expires_at": stamp(s.expires), "return_url": text(back),
		"customer_portal_url": b.portalURL(s.token), "customer_id": id, "customer": b.customerJSON(&x),
	}), nil
}

// sessionMember finds whose session it is. A team has to say it.
func (b *Box) sessionMember(x *Customer, id, external string) (Member, error) {
	name, given := "member_id", id
	if id == "" {
		name, given = "external_member_id", external
	}
	if given == "" {
		if x.Type == "team" {
			return Member{}, invalid("member_id is required for team customers.", nil, "member_id")
		}
		m, _ := b.owner(x.ID)
		return m, nil
	}
	for _, m := range b.liveMembers(x.ID) {
		if id != "" && m.ID == id || id == "" && m.ExternalID == external {
			return m, nil
		}
	}
	return Member{}, invalid("Member does not exist for this customer.", given, name)
}

func (b *Box) portalURL(token string) string {
	return b.base + "/" + b.org.Slug + "/portal?customer_session_token=" + token
}

// mayPay refuses members who only use what others pay for.
func (b *Box) mayPay(s *session) error {
	if m, ok := b.members.get(s.memberID); ok && m.Role == "member" {
		return forbidden("NotPermitted", "Only owners and billing managers can do this.")
	}
	return nil
}

// manages is for what a session may only do for a team.
func (c *call) manages() error {
	c.b.mu.Lock()
	defer c.b.mu.Unlock()
	if x, _ := c.b.customers.get(c.session.customerID); x.Type != "team" {
		return forbidden("NotPermitted", "Only team customers have members.")
	}
	return c.b.mayPay(c.session)
}

func introspectSession(c *call) (int, any, error) {
	return c.read(func(*Box) (any, error) {
		return obj{"expires_at": stamp(c.session.expires), "return_url": text(c.session.returnURL)}, nil
	})
}

func sessionUser(c *call) (int, any, error) {
	return c.read(func(b *Box) (any, error) {
		if m, ok := b.members.get(c.session.memberID); ok {
			return obj{
				"type": "member", "name": text(m.Name), "email": m.Email, "customer_id": m.CustomerID, "member_id": m.ID, "role": m.Role,
			}, nil
		}
		x, _ := b.customers.get(c.session.customerID)
		return obj{"type": "customer", "name": text(x.Name), "email": x.Email, "customer_id": x.ID, "member_id": nil, "role": nil}, nil
	})
}

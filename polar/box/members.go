package box

import "time"

// liveMembers are the people of a customer, oldest first.
func (b *Box) liveMembers(customerID string) []Member {
	var out []Member
	for _, m := range b.members.of(customerID) {
		if !m.deleted {
			out = append(out, m)
		}
	}
	return out
}

func (b *Box) owner(customerID string) (Member, bool) {
	for _, m := range b.liveMembers(customerID) {
		if m.Role == "owner" {
			return m, true
		}
	}
	return Member{}, false
}

func (t *tx) addMember(m *Member) {
	insert(t, &t.b.members, m)
	t.emit("member.created", memberJSON(m))
}

func (t *tx) saveMember(m *Member) {
	update(t, &t.b.members, m)
	t.emit("member.updated", memberJSON(m))
}

func (t *tx) dropMember(m *Member) {
	m.deleted = true
	update(t, &t.b.members, m)
	t.emit("member.deleted", memberJSON(m))
}

// checkMember says whether a customer can have a member: its external id is
// its own within the customer, and may be another customer's too.
func (b *Box) checkMember(m *Member) error {
	for _, other := range b.liveMembers(m.CustomerID) {
		if m.ExternalID != "" && other.ID != m.ID && other.ExternalID == m.ExternalID {
			return invalid("A member with this external ID already exists for this customer.", m.ExternalID, "external_id")
		}
	}
	return nil
}

// Members returns the people of a customer.
func (b *Box) Members(customerID string) []Member {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.liveMembers(customerID)
}

// makeTeam is what buying seats does to a customer.
func (t *tx) makeTeam(c *Customer) {
	if c.Type == "team" {
		return
	}
	c.Type = "team"
	update(t, &t.b.customers, c)
	t.b.customerJob(c.ID, "updated")
}

// AddMember adds a person to a team. Somebody with this e-mail who is there
// already stays as they are.
func (b *Box) AddMember(m Member) (Member, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	c, ok := b.customers.get(m.CustomerID)
	if !ok || c.DeletedAt != nil {
		return m, notFound()
	}
	if c.Type != "team" {
		return m, forbidden("NotPermitted", "Only team customers can have several members.")
	}
	if m.Role == "" {
		m.Role = "member"
	}
	if m.Role == "owner" {
		return m, invalid("There must be exactly one owner.", m.Role, "role")
	}
	for _, known := range b.liveMembers(c.ID) {
		if foldEmail(known.Email) == foldEmail(m.Email) {
			return known, nil
		}
	}
	if err := b.checkMember(&m); err != nil {
		return m, err
	}
	b.transact(func(t *tx) { t.addMember(&m) })
	return m, nil
}

// MemberUpdate is what can change of a member; nil leaves a field alone.
type MemberUpdate struct{ Name, Email, Role *string }

// UpdateMember changes a member. Who becomes the owner takes it from the one
// before, who keeps the billing.
func (b *Box) UpdateMember(id string, u MemberUpdate) (Member, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	m, ok := b.members.get(id)
	if !ok || m.deleted {
		return m, notFound()
	}
	wasOwner := m.Role == "owner"
	set(&m.Name, u.Name)
	set(&m.Email, u.Email)
	set(&m.Role, u.Role)
	if wasOwner && m.Role != "owner" {
		return m, invalid("There must be exactly one owner.", m.Role, "role")
	}
	for _, other := range b.liveMembers(m.CustomerID) {
		if other.ID != m.ID && foldEmail(other.Email) == foldEmail(m.Email) {
			return m, invalid("A member with this email address already exists.", m.Email, "email")
		}
	}
	b.transact(func(t *tx) {
		if old, ok := b.owner(m.CustomerID); ok && m.Role == "owner" && !wasOwner {
			old.Role = "billing_manager"
			t.saveMember(&old)
		}
		t.saveMember(&m)
	})
	return m, nil
}

// RemoveMember takes a person out of a team, and away from their seats. The
// owner stays.
func (b *Box) RemoveMember(id string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	m, ok := b.members.get(id)
	if !ok || m.deleted {
		return notFound()
	}
	if m.Role == "owner" {
		return invalid("Cannot remove the only owner.", id, "role")
	}
	b.transact(func(t *tx) {
		t.dropMember(&m)
		for _, parent := range b.seatParents(m.CustomerID, time.Time{}) {
			t.revokeSeats(parent, m.ID)
		}
	})
	return nil
}

// seatParents are the subscriptions and orders of a customer that have seats,
// of now or as they were seen at a time. An order of a subscription has its
// seats there.
func (b *Box) seatParents(customerID string, at time.Time) []string {
	subs, orders := b.subs.of(customerID), b.orders.of(customerID)
	if !at.IsZero() {
		subs, orders = b.subs.ofSeen(customerID, at), b.orders.ofSeen(customerID, at)
	}
	var out []string
	for _, s := range subs {
		if s.Seats > 0 {
			out = append(out, s.ID)
		}
	}
	for _, o := range orders {
		if o.Seats > 0 && o.SubscriptionID == "" {
			out = append(out, o.ID)
		}
	}
	return out
}

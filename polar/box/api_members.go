package box

import (
	"net/http"
	"net/mail"
	"slices"
	"time"
)

func listMembers(c *call) (int, any, error) {
	return c.read(func(b *Box) (any, error) {
		return list(c, listing[Member]{
			of: &b.members, order: "-created_at",
			where: func(m *Member) bool { return !m.deleted },
			filters: map[string]func(*Member) string{
				"customer_id":          func(m *Member) string { return m.CustomerID },
				"external_customer_id": func(m *Member) string { return b.externalOf(m.CustomerID) },
				"role":                 func(m *Member) string { return m.Role },
			},
			sorts:  map[string]func(*Member) string{"created_at": byCreation[Member]},
			render: memberJSON,
		})
	})
}

// member finds the member of the path: by Polar's ids, or by the merchant's,
// which are its own within one customer.
func (c *call) member(at time.Time) (Member, error) {
	c.b.mu.Lock()
	defer c.b.mu.Unlock()
	owner, err := c.customer(at)
	if err != nil {
		return Member{}, err
	}
	for _, m := range c.b.members.ofSeen(owner.ID, at) {
		if !m.deleted && (m.ID == c.params["member_id"] || m.ExternalID != "" && m.ExternalID == c.params["external_member_id"]) {
			return m, nil
		}
	}
	return Member{}, notFound()
}

func getMember(c *call) (int, any, error) {
	m, err := c.member(c.at)
	if err != nil {
		return 0, nil, err
	}
	return http.StatusOK, memberJSON(&m), nil
}

// longestName is Polar's limit, in characters.
const longestName = 256

func checkEmail(s, name string) error {
	if a, err := mail.ParseAddress(s); err != nil || a.Address != s {
		return requestError("value_error", "value is not a valid email address", s, "body", name)
	}
	return nil
}

func checkName(s string) error {
	if len([]rune(s)) > longestName {
		return requestError("string_too_long", "String should have at most 256 characters", s, "body", "name")
	}
	return nil
}

func checkRole(role string, roles ...string) error {
	if !slices.Contains(roles, role) {
		return requestError("literal_error", "Input should be a role of members", role, "body", "role")
	}
	return nil
}

// newMember reads the body of somebody new.
func (c *call) newMember(names ...string) (Member, error) {
	m := Member{Role: "member"}
	if err := c.only(names...); err != nil {
		return m, err
	}
	if err := c.needs("email"); err != nil {
		return m, err
	}
	role := ""
	if err := readFields(c, map[string]*string{"email": &m.Email, "name": &m.Name, "external_id": &m.ExternalID, "role": &role}); err != nil {
		return m, err
	}
	if role != "" {
		m.Role = role
	}
	if err := checkName(m.Name); err != nil {
		return m, err
	}
	return m, checkEmail(m.Email, "email")
}

func createMember(c *call) (int, any, error) {
	m, err := c.newMember("email", "name", "external_id", "role")
	if err == nil {
		err = checkRole(m.Role, "member", "billing_manager")
	}
	if err != nil {
		return 0, nil, err
	}
	owner, err := c.current()
	if err != nil {
		return 0, nil, err
	}
	m.CustomerID = owner.ID
	if m, err = c.b.AddMember(m); err != nil {
		return 0, nil, err
	}
	return created(memberJSON(&m), nil)
}

// changedMember reads the body of a change.
func (c *call) changedMember(names ...string) (u MemberUpdate, err error) {
	if err = c.only(names...); err != nil {
		return u, err
	}
	for name, to := range map[string]**string{"name": &u.Name, "email": &u.Email, "role": &u.Role} {
		if *to, err = field[*string](c, name); err != nil {
			return u, err
		}
	}
	if u.Name != nil {
		err = checkName(*u.Name)
	}
	if u.Email != nil && err == nil {
		err = checkEmail(*u.Email, "email")
	}
	if u.Role != nil && err == nil {
		err = checkRole(*u.Role, "owner", "billing_manager", "member")
	}
	return u, err
}

func updateMember(c *call) (int, any, error) {
	u, err := c.changedMember("name", "email", "role")
	if err != nil {
		return 0, nil, err
	}
	m, err := c.member(c.b.Now())
	if err != nil {
		return 0, nil, err
	}
	if m, err = c.b.UpdateMember(m.ID, u); err != nil {
		return 0, nil, err
	}
	return http.StatusOK, memberJSON(&m), nil
}

func deleteMember(c *call) (int, any, error) {
	m, err := c.member(c.b.Now())
	if err == nil {
		err = c.b.RemoveMember(m.ID)
	}
	return http.StatusNoContent, nil, err
}

// owner reads what a new customer's owner has of its own.
func (c *call) owner() (Member, error) {
	type owner struct {
		Email, Name string
		ExternalID  string `json:"external_id"`
	}
	o, err := field[*owner](c, "owner")
	if err != nil || o == nil {
		return Member{}, err
	}
	if err := checkEmail(o.Email, "owner"); err != nil {
		return Member{}, err
	}
	return Member{Email: o.Email, Name: o.Name, ExternalID: o.ExternalID}, nil
}

package gateway

import (
	"context"
	"errors"

	"github.com/caddy-polar/caddy-polar/entitlement"
	"github.com/caddy-polar/caddy-polar/polar"
)

// A team is a customer that is several people. Who acts for it, acts as one of
// its members.

// ErrSeveralTeams says that the user is in several teams, and it cannot be told
// which is meant.
var ErrSeveralTeams = errors.New("the user is in several teams")

// portalAs lets a user act in Polar's portal as what they are there.
func (g *Gateway) portalAs(ctx context.Context, user string, as manager) (*polar.Portal, error) {
	var session polar.CustomerSession
	var err error
	if as.member == "" {
		session, err = g.session(ctx, user, as.customer, "")
	} else {
		session, err = g.memberSession(ctx, as, "")
	}
	if err != nil {
		return nil, err
	}
	return g.client.Portal(session.Token), nil
}

// memberSession opens the session of a member.
func (g *Gateway) memberSession(ctx context.Context, as manager, back string) (polar.CustomerSession, error) {
	a, err := g.client.CreateCustomerSession(ctx, polar.CustomerSessionCreate{
		CustomerID: as.customer, MemberID: as.member, ReturnURL: back,
	})
	if refuses(err, "member_id") || refuses(err, "customer_id") {
		return a.Item, ErrNotManager // no longer, and we had not heard
	}
	return a.Item, err
}

// ownSession opens the session of a team's own user: by the external id, or,
// where Polar has none, by the member's.
func (g *Gateway) ownSession(ctx context.Context, user, customer, back string) (polar.CustomerSession, error) {
	a, err := g.client.CreateCustomerSession(ctx, polar.CustomerSessionCreate{
		CustomerID: customer, ExternalMemberID: user, ReturnURL: back,
	})
	if !refuses(err, "external_member_id") {
		return a.Item, err
	}
	member, err := g.ownMember(ctx, user, customer)
	if err != nil {
		return polar.CustomerSession{}, err
	}
	return g.memberSession(ctx, manager{customer, member}, back)
}

// ownMember finds the member that a user is in their own team: one that is known
// as theirs, or the owner. An owner to whom the team was handed over is not the
// customer any more: they have an id or an e-mail that is not the customer's.
func (g *Gateway) ownMember(ctx context.Context, user, customer string) (string, error) {
	account, err := g.Account(user)
	if err != nil {
		return "", err
	}
	for i := range account.Members {
		m := &account.Members[i]
		if m.CustomerID == customer && !m.Deleted && (m.ExternalID == user || m.Role != entitlement.RoleOwner) {
			return m.ID, nil
		}
	}
	members, err := g.client.ListMembers(ctx, polar.MemberFilter{CustomerID: customer, Role: entitlement.RoleOwner}, polar.Paging{})
	if err != nil {
		return "", err
	}
	c, err := g.client.GetCustomer(ctx, customer)
	if err != nil {
		return "", err
	}
	for i := range members.Items {
		m := &members.Items[i]
		nameless := c.Item.Email == "" && c.Item.ExternalID == "" // and the user's by a link
		if m.ExternalID == user || m.ExternalID == "" && (nameless || sameEmail(m.Email, c.Item.Email)) {
			return m.ID, nil
		}
	}
	return "", ErrNotLinked
}

// learnMembers reads members.
func (g *Gateway) learnMembers(ctx context.Context, f polar.MemberFilter) error {
	for page, err := range polar.Pages(ctx, g.client.ListMembers, f, polar.Paging{}) {
		if errors.Is(err, polar.ErrScope) {
			g.warnScope("members")
		}
		if err != nil {
			return err
		}
		if err := g.learn(ctx, page.AsOf, each(page.Items, (*reader).member)...); err != nil {
			return err
		}
	}
	return nil
}

// teamOf is the team of a user who has no customer of their own: the only one,
// or the only one that they manage.
func (g *Gateway) teamOf(user string) (manager, error) {
	account, err := g.Account(user)
	if err != nil {
		return manager{}, err
	}
	var teams, managed []manager
	for i := range account.Members {
		m := &account.Members[i]
		// Anybody can make anybody with an e-mail a manager of theirs, and hope for
		// their card.
		if m.Deleted || m.Manages() && m.ExternalID != user {
			continue
		}
		teams = append(teams, manager{m.CustomerID, m.ID})
		if m.Manages() {
			managed = append(managed, manager{m.CustomerID, m.ID})
		}
	}
	switch {
	case len(teams) == 0:
		return manager{}, ErrNoCustomer
	case len(teams) == 1:
		return teams[0], nil
	case len(managed) == 1:
		return managed[0], nil
	}
	return manager{}, ErrSeveralTeams
}

// teamPortal opens the portal of a user's team, as the member that they are.
func (g *Gateway) teamPortal(ctx context.Context, user, back string) (polar.CustomerSession, error) {
	as, err := g.teamOf(user)
	if err != nil {
		return polar.CustomerSession{}, err
	}
	session, err := g.memberSession(ctx, as, back)
	if errors.Is(err, ErrNotManager) {
		err = ErrNoCustomer // in no team any more
	}
	return session, err
}

// ownerOf is the member to whom what a customer has bought belongs, or empty
// while that is not known.
func (g *Gateway) ownerOf(ctx context.Context, customer string) (string, error) {
	for asked := false; ; asked = true {
		members, err := g.store.MembersOf(customer)
		if err != nil {
			return "", err
		}
		for i := range members {
			if m := &members[i]; m.Role == entitlement.RoleOwner && !m.Deleted {
				return m.ID, nil
			}
		}
		if asked {
			return "", nil
		}
		err = g.learnMembers(ctx, polar.MemberFilter{CustomerID: customer, Role: entitlement.RoleOwner})
		if err != nil {
			return "", err
		}
	}
}

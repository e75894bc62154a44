package cache

import (
	"cmp"
	"fmt"
	"slices"

	"pgregory.net/rapid"

	"github.com/caddy-polar/caddy-polar/entitlement"
)

// What the tests about teams are made of.
func membered(n int, id, customer, external, role string) *Facts {
	return &Facts{Members: []entitlement.Member{{Version: rev(n), ID: id, CustomerID: customer, ExternalID: external, Role: role}}}
}

func memberEmailed(n int, member, email string) *Facts {
	return &Facts{Emails: []Email{{ID: member, Member: true, Digest: digested(email), Row: at(n)}}}
}

// seated is a seat that a member has claimed, or the sole holder if there is
// none.
func seated(n int, id, subscription, order, customer, member string) *Facts {
	return &Facts{Seats: []entitlement.Seat{{
		Version: rev(n), ID: id, SubscriptionID: subscription, OrderID: order, CustomerID: customer, MemberID: member,
		Claimed: true, ClaimedIn: rev(n),
	}}}
}

func offered(n int, id, subscription, order string) *Facts {
	return &Facts{Seats: []entitlement.Seat{{Version: rev(n), ID: id, SubscriptionID: subscription, OrderID: order}}}
}

// unseated is a seat as Polar tells of it when it is revoked: without holder.
func unseated(n int, id, subscription, order string) *Facts {
	f := offered(n, id, subscription, order)
	f.Seats[0].Revoked, f.Seats[0].RevokedAt = true, at(n)
	return f
}

func bySeats(n int, id, customer string) *Facts {
	f := subscribed(n, id, customer, "", "")
	f.Subscriptions[0].Seats = true
	return f
}

func memberGranted(n int, id, customer, subscription, order, member string) *Facts {
	f := granted(n, id, customer, subscription, order)
	f.Grants[0].MemberID, f.Grants[0].ForMember = member, true
	return f
}

// memberIs works out who a member is, for what hangs on a purchase.
func (m *mirror) memberIs(id, subscription, order string) string {
	v, held := m.members[id]
	if !held {
		return ""
	}
	link, metadata, external, email := m.links[id], "", v.ExternalID, m.emailLinks[id]
	c := m.customers[v.CustomerID]
	if v.Role == "owner" && email == "" && (external == "" || external == c.ExternalID) { // else it was handed over
		if s, held := m.subscriptions[subscription]; held {
			metadata = cmp.Or(s.MetadataUser, m.checkouts[s.CheckoutID].User)
		} else if o, held := m.orders[order]; held {
			metadata = cmp.Or(o.MetadataUser, m.checkouts[o.CheckoutID].User)
		}
		link = cmp.Or(link, m.links[v.CustomerID])
		external, email = c.ExternalID, m.emailLinks[v.CustomerID]
	}
	return userOrNobody(cmp.Or(link, metadata, external, email))
}

func (m *mirror) seatIs(s entitlement.Seat) string {
	switch {
	case !s.Claimed && !s.Revoked, s.MemberID+s.CustomerID == "":
		return ""
	case s.MemberID == "":
		return m.whose(s.CustomerID, "", "")
	}
	return m.memberIs(s.MemberID, s.SubscriptionID, s.OrderID)
}

// teamIndexes are the entries of members, seats and members' grants.
func (m *mirror) teamIndexes(out map[string]string, add func(bucket, holder, kind, id string)) {
	apart := func(parent, kind, id, user string) {
		if parent != "" {
			out[fmt.Sprintf("by_parent/%q", parent+"\x00"+kind+id)] = fmt.Sprintf("%q", "\x01"+user)
		}
	}
	for id, v := range m.members {
		add("by_user", m.memberIs(id, "", ""), "m", id)
		add("by_customer", v.CustomerID, "m", id)
	}
	for id, s := range m.seats {
		user := m.seatIs(s)
		add("by_user", user, "p", id)
		add("by_member", s.MemberID, "p", id)
		if s.MemberID == "" {
			add("by_customer", s.CustomerID, "p", id)
		}
		apart(s.SubscriptionID, "p", id, user)
		apart(s.OrderID, "p", id, user)
	}
	for id, g := range m.grants {
		if !g.ForMember {
			continue
		}
		user := m.memberIs(g.MemberID, g.SubscriptionID, g.OrderID)
		add("by_user", user, "g", id)
		add("by_member", g.MemberID, "g", id)
		apart(g.SubscriptionID, "g", id, user)
		apart(g.OrderID, "g", id, user)
	}
}

// teamOf adds to what a user has what is theirs as a member.
func (m *mirror) teamOf(user string, f *entitlement.Facts) {
	lent := make(map[string]bool)
	var orphans []string // customers of grants without their parents
	for id, v := range m.members {
		if m.memberIs(id, "", "") == user {
			f.Members = append(f.Members, v)
		}
	}
	for _, s := range m.seats {
		if m.seatIs(s) == user {
			f.Seats = append(f.Seats, s)
			lent[s.SubscriptionID], lent[s.OrderID] = true, true
		}
	}
	for _, g := range m.grants {
		s, sHeld := m.subscriptions[g.SubscriptionID]
		o, oHeld := m.orders[g.OrderID]
		buyers := sHeld && !s.Seats || oHeld && !o.Seats // without seats it is
		if g.ForMember && !buyers && m.memberIs(g.MemberID, g.SubscriptionID, g.OrderID) == user {
			if !sHeld && !oHeld {
				orphans = append(orphans, g.CustomerID)
			}
			f.Grants = append(f.Grants, g)
			lent[g.SubscriptionID], lent[g.OrderID] = true, true
		}
	}
	foreign := func(id, customer string) {
		if id != "" {
			f.Foreign = append(f.Foreign, id)
		}
		if !slices.ContainsFunc(f.Customers, func(c entitlement.HeldCustomer) bool { return c.ID == customer }) {
			f.Foreign = append(f.Foreign, customer)
			f.Customers = append(f.Customers, entitlement.HeldCustomer{
				Customer: entitlement.Customer{ID: customer, DeletedAt: m.customers[customer].DeletedAt},
			})
		}
	}
	for id := range lent {
		s, held := m.subscriptions[id]
		if held && !slices.ContainsFunc(f.Subscriptions, func(v entitlement.Subscription) bool { return v.ID == id }) {
			s.MetadataUser = ""
			f.Subscriptions = append(f.Subscriptions, s)
			foreign(id, s.CustomerID)
			for _, r := range m.refunds {
				if m.subscriptionOf(r) == id {
					r.SubscriptionID = id
					f.Refunds = append(f.Refunds, r)
				}
			}
		}
		o, held := m.orders[id]
		if held && !slices.ContainsFunc(f.Orders, func(v entitlement.Order) bool { return v.ID == id }) {
			o.MetadataUser = ""
			f.Orders = append(f.Orders, o)
			foreign(id, o.CustomerID)
			for _, r := range m.refunds {
				if r.OrderID == id {
					f.Refunds = append(f.Refunds, r)
				}
			}
		}
	}
	for _, customer := range orphans {
		foreign("", customer)
	}
}

// drawMember is any state of one of three members.
func drawMember(t *rapid.T, n int, users []string) *Facts {
	id := rapid.SampledFrom([]string{"m1", "m2", "m3"}).Draw(t, "member")
	f := membered(
		n, id, map[string]string{"m1": "c", "m2": "c", "m3": "c1"}[id], rapid.SampledFrom(users).Draw(t, "user"),
		rapid.SampledFrom([]string{"owner", "member", "billing_manager"}).Draw(t, "role"),
	)
	f.Members[0].Deleted = rapid.IntRange(0, 4).Draw(t, "deleted") == 0
	if rapid.IntRange(0, 3).Draw(t, "only if held") == 0 {
		f.Members, f.Owners = nil, f.Members
	}
	return f
}

func drawParent(t *rapid.T) (subscription, order string) {
	parent := rapid.SampledFrom([]string{"s1", "s2", "o1", "o3"}).Draw(t, "parent")
	if parent[0] == 'o' {
		return "", parent
	}
	return parent, ""
}

// drawSeat is any state of a seat. Its id says what it is of.
func drawSeat(t *rapid.T, n int) *Facts {
	subscription, order := drawParent(t)
	id := "p-" + subscription + order + rapid.SampledFrom([]string{"1", "2"}).Draw(t, "seat")
	switch rapid.IntRange(0, 4).Draw(t, "state") {
	case 0:
		return offered(n, id, subscription, order)
	case 1:
		return unseated(n, id, subscription, order)
	}
	return seated(
		n, id, subscription, order,
		rapid.SampledFrom([]string{"c", "c1"}).Draw(t, "customer"), rapid.SampledFrom([]string{"", "m1", "m2", "m3"}).Draw(t, "member"),
	)
}

func drawMembersGrant(t *rapid.T, n int) *Facts {
	subscription, order := drawParent(t)
	member := rapid.SampledFrom([]string{"m1", "m2", "m3"}).Draw(t, "member")
	customer := map[string]string{"m1": "c", "m2": "c", "m3": "c1"}[member] // a grant is of its member's customer
	f := memberGranted(n, "gm-"+customer+subscription+order, customer, subscription, order, member)
	f.Grants[0].ForMember = rapid.IntRange(0, 3).Draw(t, "the buyer's") > 0
	return f
}

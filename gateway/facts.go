package gateway

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/caddy-polar/caddy-polar/cache"
	"github.com/caddy-polar/caddy-polar/entitlement"
	"github.com/caddy-polar/caddy-polar/polar"
)

// This is the one file in which Polar's wire types become facts.

// maxWord is the longest status that is kept.
const maxWord = 64

// statusUnreadable stands for a state that could not be read, and decides as
// any that this version does not know.
const statusUnreadable entitlement.Status = "unreadable"

// errMalformed says that an object lacks what every object of Polar has.
var errMalformed = errors.New("malformed object")

// reader turns one event, or one item read from Polar, into facts.
type reader struct {
	asOf time.Time
	// latest is the newest time that a version may have: one from far in the
	// future would shut out everything that comes after it.
	latest time.Time
	// user tells whom authentic metadata names, or "".
	user func(polar.Metadata) string
	// digest stands for an e-mail. Nil: nothing of e-mails is kept.
	digest func(string) cache.EmailDigest
	facts  *cache.Facts
}

// readers of one item, be it the data of an event or read from a list.
var (
	readCustomer     = decoded((*reader).customer)
	readSubscription = decoded((*reader).subscription)
	readOrder        = decoded((*reader).order)
	readRefund       = decoded((*reader).refund)
	readGrant        = decoded((*reader).grant)
	readCheckout     = decoded((*reader).checkout)
	readSeat         = decoded((*reader).seat)
	readMember       = decoded((*reader).toldMember)
	readGoneMember   = decoded((*reader).goneMember)
)

// decoded takes the data of an event for what a reader wants.
func decoded[T any](read func(*reader, T) error) func(*reader, polar.Event) error {
	return func(r *reader, e polar.Event) error {
		v, err := polar.Decode[T](e.Data)
		if err != nil {
			return err
		}
		return read(r, v)
	}
}

// eventKinds says what the data of each documented event is. Events that carry
// nothing that decides are listed all the same, so that they count by name.
var eventKinds = map[string]func(*reader, polar.Event) error{
	"checkout.created": readCheckout, "checkout.updated": readCheckout, "checkout.expired": readCheckout,

	"customer.created": readCustomer, "customer.updated": readCustomer, "customer.deleted": readCustomer,
	// Of a state only the customer's own fields are taken: its lists lack
	// past_due, pauses and seats, and can be an hour old.
	"customer.state_changed": readCustomer,

	"subscription.created": readSubscription, "subscription.updated": readSubscription,
	"subscription.active": readSubscription, "subscription.canceled": readSubscription,
	"subscription.uncanceled": readSubscription, "subscription.cycled": readSubscription,
	"subscription.revoked": readSubscription, "subscription.past_due": readSubscription,
	"subscription.paused": readSubscription, "subscription.resumed": readSubscription,
	"subscription.migrated": readSubscription,

	"order.created": readOrder, "order.updated": readOrder,
	"order.paid": readOrder, "order.refunded": readOrder,

	"refund.created": readRefund, "refund.updated": readRefund,

	"benefit_grant.created": readGrant, "benefit_grant.cycled": readGrant,
	"benefit_grant.updated": readGrant, "benefit_grant.revoked": readGrant,

	"customer_seat.assigned": readSeat, "customer_seat.claimed": readSeat, "customer_seat.revoked": readSeat,

	"member.created": readMember, "member.updated": readMember, "member.deleted": readGoneMember,

	"product.created": nil, "product.updated": nil,
	"discount.created": nil, "discount.updated": nil, "discount.deleted": nil,
	"benefit.created": nil, "benefit.updated": nil,
	"organization.updated": nil,
}

// version checks what every object has and makes its version.
func (r *reader) version(what string, row polar.Row) (entitlement.Version, error) {
	if err := checkIDs(what, row.ID); err != nil {
		return entitlement.Version{}, err
	}
	at, ok := r.rowTime(row)
	if !ok {
		return entitlement.Version{}, fmt.Errorf("%w: %s: created_at or modified_at is missing or out of range", errMalformed, what)
	}
	return entitlement.Version{Row: at, AsOf: moment(r.asOf)}, nil
}

func (r *reader) rowTime(row polar.Row) (at time.Time, ok bool) {
	at = row.CreatedAt
	if row.ModifiedAt != nil {
		at = *row.ModifiedAt
	}
	return moment(at), at.Year() >= 2000 && !at.After(r.latest)
}

// checkIDs wants ids that can be keys: Polar's are UUIDs.
func checkIDs(what string, ids ...string) error {
	if slices.Contains(ids, "") {
		return fmt.Errorf("%w: %s: an id is missing", errMalformed, what)
	}
	return checkOptionalIDs(what, ids...)
}

func checkOptionalIDs(what string, ids ...string) error {
	for _, id := range ids {
		if len(id) > 64 || strings.ContainsFunc(id, func(c rune) bool { return c <= ' ' || c > '~' }) {
			return fmt.Errorf("%w: %s: an id is malformed", errMalformed, what)
		}
	}
	return nil
}

// checkDates wants times that a clock can reach. Null is fine.
func checkDates(what string, times ...*time.Time) error {
	for _, t := range times {
		if t != nil && (t.Year() < 2000 || t.Year() > 9000) {
			return fmt.Errorf("%w: %s: a time is out of range", errMalformed, what)
		}
	}
	return nil
}

// moment is a time as it is stored: UTC, in microseconds.
func moment(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return t.UTC().Truncate(time.Microsecond)
}

func optional(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return moment(*t)
}

// nested takes from a customer inside another object what can be believed:
// which external id it has, or else which e-mail it had at the time of its row.
func (r *reader) nested(c *polar.Nested) {
	if c == nil {
		return
	}
	r.organization(c.OrganizationID)
	if c.DeletedAt != nil || checkIDs("", c.ID) != nil {
		return
	}
	if c.ExternalID != "" {
		r.facts.Names = append(r.facts.Names, cache.Name{Customer: c.ID, ExternalID: c.ExternalID})
	} else if at, ok := r.rowTime(c.Row); ok {
		r.email(cache.Email{ID: c.ID, Row: at}, c.Email)
	}
}

// email takes the e-mail of a customer or member that has no external id.
func (r *reader) email(whose cache.Email, address string) {
	if r.digest != nil {
		whose.Digest = r.digest(address)
		r.facts.Emails = append(r.facts.Emails, whose)
	}
}

func (r *reader) organization(id string) {
	if id != "" && id != polar.NoOrganization {
		r.facts.Organization = id
	}
}

func (r *reader) customer(c polar.Customer) error {
	v, err := r.version("customer", c.Row)
	if err != nil {
		return err
	}
	if err := checkDates("customer", c.DeletedAt); err != nil {
		return err
	}
	r.organization(c.OrganizationID)
	r.facts.Customers = append(r.facts.Customers, entitlement.Customer{
		Version: v, ID: c.ID, ExternalID: c.ExternalID, DeletedAt: optional(c.DeletedAt),
	})
	if c.ExternalID == "" && c.DeletedAt == nil {
		r.email(cache.Email{ID: c.ID, Row: v.Row}, c.Email)
	}
	return nil
}

func (r *reader) subscription(s polar.Subscription) error {
	v, err := r.version("subscription", s.Row)
	if err != nil {
		return err
	}
	if err := checkIDs("subscription", s.CustomerID, s.ProductID); err != nil {
		return err
	}
	if err := checkOptionalIDs("subscription", s.CheckoutID); err != nil {
		return err
	}
	fact := entitlement.Subscription{
		Version: v, ID: s.ID, CustomerID: s.CustomerID, ProductID: s.ProductID, CheckoutID: s.CheckoutID,
		MetadataUser: r.user(s.Metadata),
	}
	r.nested(s.Customer)
	if err := checkSubscription(&s); err != nil {
		// That there is something is known: its user is not told to pay.
		fact.Status = statusUnreadable
		r.facts.Subscriptions = append(r.facts.Subscriptions, fact)
		return err
	}
	fact.Status, fact.Seats, fact.Free = entitlement.Status(s.Status), s.Seats != nil, s.Free()
	fact.SeatCount = seatCount(s.Seats)
	fact.PeriodStart, fact.PeriodEnd = moment(s.CurrentPeriodStart), moment(s.CurrentPeriodEnd)
	fact.TrialEnd, fact.CanceledAt = optional(s.TrialEnd), optional(s.CanceledAt)
	fact.EndsAt, fact.EndedAt = optional(s.EndsAt), optional(s.EndedAt)
	fact.PastDueAt, fact.PausedAt, fact.ResumesAt = optional(s.PastDueAt), optional(s.PausedAt), optional(s.ResumesAt)
	fact.CancelAtPeriodEnd, fact.PauseAtPeriodEnd = s.CancelAtPeriodEnd, s.PauseAtPeriodEnd
	if p := s.PendingUpdate; p != nil {
		fact.PendingProductID, fact.PendingSeats, fact.PendingAt = p.ProductID, seatCount(p.Seats), moment(p.AppliesAt)
	}
	r.facts.Subscriptions = append(r.facts.Subscriptions, fact)
	return nil
}

// seatCount is a number of seats as it is stored: it is shown, and decides nothing.
func seatCount(n *int) int {
	if n == nil {
		return 0
	}
	return min(max(*n, 0), math.MaxInt32)
}

// checkSubscription checks what a decision rests on.
func checkSubscription(s *polar.Subscription) error {
	if s.Status == "" || len(s.Status) > maxWord || s.CurrentPeriodEnd.IsZero() {
		return fmt.Errorf("%w: subscription: status or current_period_end is missing or malformed", errMalformed)
	}
	dates := []*time.Time{
		&s.CurrentPeriodEnd, s.TrialEnd, s.CanceledAt, s.EndsAt, s.EndedAt, s.PastDueAt, s.PausedAt, s.ResumesAt,
	}
	if p := s.PendingUpdate; p != nil {
		dates = append(dates, &p.AppliesAt)
	}
	if !s.CurrentPeriodStart.IsZero() {
		dates = append(dates, &s.CurrentPeriodStart)
	}
	return checkDates("subscription", dates...)
}

func (r *reader) order(o polar.Order) error {
	v, err := r.version("order", o.Row)
	if err != nil {
		return err
	}
	if err := checkIDs("order", o.CustomerID); err != nil {
		return err
	}
	if err := checkOptionalIDs("order", o.ProductID, o.SubscriptionID, o.CheckoutID); err != nil {
		return err
	}
	if o.Status == "" || len(o.Status) > maxWord {
		return fmt.Errorf("%w: order: status is missing or malformed", errMalformed)
	}
	r.nested(o.Customer)
	r.facts.Orders = append(r.facts.Orders, entitlement.Order{
		Version: v, ID: o.ID, CustomerID: o.CustomerID, ProductID: o.ProductID,
		SubscriptionID: o.SubscriptionID, CheckoutID: o.CheckoutID,
		Status: entitlement.OrderStatus(o.Status), MetadataUser: r.user(o.Metadata), Seats: o.Seats != nil,
	})
	return nil
}

func (r *reader) grant(g polar.BenefitGrant) error {
	v, err := r.version("benefit grant", g.Row)
	if err != nil {
		return err
	}
	if err := checkIDs("benefit grant", g.CustomerID, g.BenefitID); err != nil {
		return err
	}
	if err := checkOptionalIDs("benefit grant", g.SubscriptionID, g.OrderID, g.MemberID); err != nil {
		return err
	}
	fact := entitlement.Grant{
		Version: v, ID: g.ID, CustomerID: g.CustomerID, BenefitID: g.BenefitID,
		SubscriptionID: g.SubscriptionID, OrderID: g.OrderID,
		MemberID: g.MemberID, ForMember: g.MemberID != "" && !isBuyer(g.Member, g.Customer),
		Granted: g.IsGranted, Revoked: g.IsRevoked, RevokedAt: optional(g.RevokedAt),
	}
	if err := checkDates("benefit grant", g.RevokedAt); err != nil {
		return err
	}
	r.nested(g.Customer)
	if fact.ForMember {
		r.nestedMember(g.Member)
	}
	r.facts.Grants = append(r.facts.Grants, fact)
	return nil
}

// isBuyer says whether a member is the customer by another name, as the owner of
// each customer is. One to whom a team was handed over has an id or an e-mail
// that is not the customer's.
func isBuyer(m *polar.Member, c *polar.Nested) bool {
	return m != nil && c != nil && m.Role == entitlement.RoleOwner &&
		(m.ExternalID == "" || c.ExternalID == "" || m.ExternalID == c.ExternalID) && sameEmail(m.Email, c.Email)
}

func (r *reader) seat(s polar.Seat) error {
	v, err := r.version("seat", s.Row)
	if err != nil {
		return err
	}
	if err := checkIDs("seat", s.SubscriptionID+s.OrderID); err != nil {
		return err
	}
	if err := checkOptionalIDs("seat", s.CustomerID, s.MemberID); err != nil {
		return err
	}
	if err := checkDates("seat", s.RevokedAt); err != nil {
		return err
	}
	if s.Status == "" || len(s.Status) > maxWord {
		return fmt.Errorf("%w: seat: status is missing or malformed", errMalformed)
	}
	fact := entitlement.Seat{
		Version: v, ID: s.ID, SubscriptionID: s.SubscriptionID, OrderID: s.OrderID,
		Claimed: s.Status == "claimed", Revoked: s.Status == "revoked", RevokedAt: optional(s.RevokedAt),
	}
	if !fact.Revoked {
		fact.ClaimedIn = v // an invitation tells that nobody has it any more
	}
	if fact.Claimed {
		fact.CustomerID, fact.MemberID = s.CustomerID, s.MemberID
	}
	r.nestedMember(s.Member)
	r.facts.Seats = append(r.facts.Seats, fact)
	return nil
}

// toldMember is for events. Each customer has an owner, who matters only where
// there are seats: there the seats tell of them, and a sync does.
func (r *reader) toldMember(m polar.Member) error {
	if m.Role != entitlement.RoleOwner {
		return r.member(m)
	}
	into := r.facts.Members
	r.facts.Members = nil
	err := r.member(m)
	r.facts.Owners, r.facts.Members = append(r.facts.Owners, r.facts.Members...), into
	return err
}

// goneMember is for the event alone: a member does not say that it is deleted.
func (r *reader) goneMember(m polar.Member) error { return r.memberNow(m, true) }

func (r *reader) member(m polar.Member) error { return r.memberNow(m, false) }

func (r *reader) memberNow(m polar.Member, deleted bool) error {
	v, err := r.version("member", m.Row)
	if err != nil {
		return err
	}
	if err := checkIDs("member", m.CustomerID); err != nil {
		return err
	}
	if len(m.Role) > maxWord {
		return fmt.Errorf("%w: member: role is malformed", errMalformed)
	}
	r.facts.Members = append(r.facts.Members, entitlement.Member{
		Version: v, ID: m.ID, CustomerID: m.CustomerID, ExternalID: m.ExternalID, Role: m.Role, Deleted: deleted,
	})
	if m.ExternalID == "" && !deleted && m.Role != entitlement.RoleOwner { // an owner's is the customer's
		r.email(cache.Email{ID: m.ID, Member: true, Row: v.Row}, m.Email)
	}
	return nil
}

// nestedMember takes a member inside another object for what it was when its row
// was written. It can be old, so that any other word of the same row goes first.
func (r *reader) nestedMember(m *polar.Member) {
	if m == nil {
		return
	}
	old := *r
	old.asOf = time.Time{}
	_ = old.memberNow(*m, false) // what is malformed is left to its own event
}

func (r *reader) refund(f polar.Refund) error {
	v, err := r.version("refund", f.Row)
	if err != nil {
		return err
	}
	if err := checkIDs("refund", f.OrderID); err != nil {
		return err
	}
	if err := checkOptionalIDs("refund", f.CustomerID, f.SubscriptionID); err != nil {
		return err
	}
	r.organization(f.OrganizationID)
	r.facts.Refunds = append(r.facts.Refunds, entitlement.Refund{
		Version: v, ID: f.ID, CustomerID: f.CustomerID, OrderID: f.OrderID, SubscriptionID: f.SubscriptionID,
		Succeeded: f.Status == "succeeded", RevokeBenefits: f.RevokeBenefits,
		Disputed:    f.Reason == "dispute_prevention" || f.Dispute != nil && f.Dispute.Status != "won",
		DisputeLost: f.Dispute != nil && f.Dispute.Status == "lost",
	})
	return nil
}

// dispute is kept as the refund that it can become: its id differs from that of
// any refund.
func (r *reader) dispute(d polar.OrderDispute) error {
	v, err := r.version("dispute", d.Row)
	if err != nil {
		return err
	}
	if err := checkIDs("dispute", d.OrderID); err != nil {
		return err
	}
	r.nested(d.Customer)
	r.facts.Refunds = append(r.facts.Refunds, entitlement.Refund{
		Version: v, ID: d.ID, OrderID: d.OrderID,
		Disputed: d.Status != "won", DisputeLost: d.Status == "lost",
	})
	return nil
}

func (r *reader) checkout(c polar.Checkout) error {
	if err := checkIDs("checkout", c.ID); err != nil {
		return err
	}
	if err := checkOptionalIDs("checkout", c.CustomerID); err != nil {
		return err
	}
	r.organization(c.OrganizationID)
	if c.CustomerID != "" {
		r.facts.Checkouts = append(r.facts.Checkouts, cache.Checkout{ID: c.ID, CustomerID: c.CustomerID})
	}
	return nil
}

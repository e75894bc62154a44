package pages

import (
	"cmp"
	"html/template"
	"time"
)

// Account is what a visitor has.
type Account struct {
	// Done is what they have just done: cancel, keep, change, scheduled, unschedule,
	// invite, revoke or resend. Empty: nothing.
	Done string
	// Problem is why that did not work.
	Problem *Refusal
	// Post is where the forms go, Back where the visitor came from, if they did.
	Post, Back string
	// Changing says that they came to change their plan.
	Changing      bool
	Subscriptions []Subscription
	// Others are the plans that are open by something else.
	Others []Holding
	// Pricing and Portal are addresses, if there is something.
	Pricing, Portal string
	// Manages says that the visitor may change what there is.
	Manages bool
	// Seats are those of one purchase, if the visitor manages such.
	Seats *Seats
}

func (*Account) template() string { return "account" }
func (*Account) policy() string   { return "; form-action 'self'" }

// Holding is something that opens a plan, or did.
type Holding struct {
	Name, Plan string
	// Status is Polar's, Reason and Until are those of the decision.
	Status, Reason string
	Allowed        bool
	Until          time.Time
	// Elsewhere says that the visitor cannot pay for it: somebody else does, or nobody
	// can tell that it is them.
	Elsewhere bool
}

// Subscription is one that is not over.
type Subscription struct {
	ID string
	Holding
	// PeriodEnd is when it renews, ResumesAt when it goes on if it is paused.
	PeriodEnd, ResumesAt time.Time
	// DueSince is when its payment failed, LastChance when that is no longer tried.
	DueSince, LastChance time.Time
	// ForSeats says that it opens for whoever has a seat of it, Unlinked that its
	// customer is not the visitor's alone.
	ForSeats, Unlinked bool
	Pending            *Pending
	// Changes are what it can be changed to. Product is their Next's URL.
	Changes                           []Change
	CanCancel, CanKeep, CanUnschedule bool
	// Trouble is where a payment is mended, if one is due.
	Trouble *Link
}

// Pending is a change that is only scheduled.
type Pending struct {
	Other bool   // it is another product
	Name  string // of that, if it is known
	Seats int    // zero: they stay
	At    time.Time
}

// Change is a product that a subscription can be changed to.
type Change struct {
	Product string
	Offer
}

// Seats are those of one purchase.
type Seats struct {
	ID, Name  string
	Asked     string // by which id, if by one
	Unknown   bool   // they could not be asked for
	Total     int
	Available int
	List      []Seat
	More      bool   // than are listed
	Others    []Link // of other purchases
}

// Seat is one that somebody has or is invited to.
type Seat struct {
	ID, Who string
	Pending bool
}

// Used is how many seats are taken.
func (s *Seats) Used() int { return max(s.Total-s.Available, 0) }

// HoldingName is what a plan is called.
func (s *scene) HoldingName(h *Holding) string {
	return cmp.Or(s.Title(&Offer{Name: h.Name, Plan: h.Plan}), s.say["account.subscription"])
}

// Badge is the key of the one word about it, and how good that is: good, soon or
// bad.
func (h *Holding) Badge() string {
	switch h.Reason {
	case "active", "purchased", "benefit", "pass", "trialing":
		if h.Reason == "trialing" {
			return "trialing"
		}
		return "active"
	case "canceling":
		return "canceled"
	case "pausing":
		return "pausing"
	case "canceled_grace":
		return "ending"
	case "due", "past_due", "past_due_grace", "unpaid", "unpaid_grace":
		return "due"
	case "paused":
		return "paused"
	case "renewal_grace", "unavailable", "unknown_status":
		return "waiting"
	}
	return "closed"
}

// Tone is how good the badge is.
func (h *Holding) Tone() string {
	switch h.Badge() {
	case "active", "trialing":
		return "good"
	case "due", "closed":
		return "bad"
	}
	return "soon"
}

// What is what happens next with something that opens a plan, and when.
func (s *scene) What(h *Holding) template.HTML {
	other := s.say[h.Reason+".other"]
	switch {
	case !h.Allowed && h.Elsewhere && other != "":
		return fill(other)
	case h.Allowed && h.Elsewhere && h.Reason == "past_due_grace":
		return s.Say("is.past_due_other", "date", s.Date(h.Until))
	case !h.Allowed:
		if dated := s.say[h.Reason+".dated"]; dated != "" && !h.Until.IsZero() {
			return fill(dated, "date", s.Date(h.Until))
		}
		return s.Say(h.Reason + ".detail")
	case h.Reason == "past_due_grace" && s.daysLeft(h.Until) < 2:
		return s.Say("is.past_due_grace_last", "date", s.Date(h.Until))
	case h.Reason == "pass" && h.Until.IsZero():
		return s.Say("is.pass_open")
	case h.Until.IsZero() && s.say["is."+h.Reason+"_undated"] != "":
		return s.Say("is." + h.Reason + "_undated")
	case h.Until.IsZero():
		return s.Say("is." + h.Reason)
	}
	return s.Say("is."+h.Reason, "date", s.Date(h.Until), "days", s.days(h.Until))
}

// Story is the same about a subscription.
func (s *scene) Story(sub *Subscription) template.HTML {
	switch {
	case sub.Status == "paused" && !sub.ResumesAt.IsZero():
		return s.Say("is.paused_until", "date", s.Date(sub.ResumesAt))
	case sub.Reason == "due" && sub.Elsewhere:
		return s.Say("is.due_other")
	case sub.Reason == "due" && !sub.LastChance.IsZero():
		return s.Say("is.due", "date", s.Date(sub.DueSince), "last", s.Date(sub.LastChance))
	case sub.Reason == "due":
		return s.Say("is.due_open")
	case sub.ForSeats && sub.Reason == "active" && !sub.Until.IsZero():
		return s.Say("is.seats", "date", s.Date(sub.Until))
	}
	return s.What(&sub.Holding)
}

// ChangesID is an anchor that only the first subscription has of those that can be
// changed.
func (a *Account) ChangesID(sub *Subscription) string {
	for i := range a.Subscriptions {
		if len(a.Subscriptions[i].Changes) > 0 {
			if a.Subscriptions[i].ID == sub.ID {
				return "change"
			}
			break
		}
	}
	return "change-" + sub.ID
}

// NoChange says that the visitor came to change what cannot be changed.
func (a *Account) NoChange() bool {
	for i := range a.Subscriptions {
		if len(a.Subscriptions[i].Changes) > 0 {
			return false
		}
	}
	return a.Changing
}

// PendingText is what is scheduled.
func (s *scene) PendingText(p *Pending) template.HTML {
	if !p.Other {
		return s.Say("account.pending_seats", "seats", s.Count("seats", p.Seats), "date", s.Date(p.At))
	}
	return s.Say("account.pending", "name", s.named(cmp.Or(p.Name, s.say["account.other"])), "date", s.Date(p.At))
}

// CancelText is what canceling means.
func (s *scene) CancelText(sub *Subscription) template.HTML {
	if end := sub.PeriodEnd; end.After(s.now) {
		return s.Say("account.cancel_lead", "date", s.Date(end))
	}
	return s.Say("account.cancel_lead_undated")
}

// SeatsUsed is how many seats of how many are taken.
func (s *scene) SeatsUsed(seats *Seats) template.HTML {
	return s.Say("account.seats_used", "used", seats.Used(), "n", seats.Total)
}

// SeatOf says whose a seat is, for those who do not see the line it stands in.
func (s *scene) SeatOf(who string) template.HTML {
	return s.Say("account.seat_who", "name", clean(who, maxLine))
}

// SwitchTo is what the button of a change says.
func (s *scene) SwitchTo(c *Change) template.HTML {
	return s.Say("pricing.switch", "name", s.named(s.Title(&c.Offer)))
}

package entitlement

import (
	"slices"
	"strings"
	"time"
)

// Kind is what a fact that can open a plan is.
type Kind string

// The kinds.
const (
	KindSubscription Kind = "subscription"
	KindOrder        Kind = "order"
	KindGrant        Kind = "grant"
	KindSeat         Kind = "seat"
	KindPass         Kind = "pass"
)

// Source is why a fact is the user's.
type Source string

// The sources, in the order of Owner, and the operator's own gifts.
const (
	SourceLink       Source = "link"
	SourceMetadata   Source = "metadata"
	SourceExternalID Source = "externalId"
	SourceEmail      Source = "email"
	SourceMember     Source = "member" // of the customer who has bought it
	SourceOperator   Source = "operator"
)

// Explanation says why one decision is as it is.
type Explanation struct {
	Decision Decision
	Plans    []PlanExplanation
	// Outside are facts that belong to no plan of the rules.
	Outside []Weighed
}

// PlanExplanation is the decision for one plan, with all that was compared.
type PlanExplanation struct {
	Plan     string
	Decision Decision
	Facts    []Weighed
	// Next is what time alone makes of the decision, nil if nothing.
	Next *Next
}

// Next is the decision that follows at a moment, if Polar says nothing new.
type Next struct {
	At       time.Time
	Decision Decision
}

// Weighed is a fact with what it opens.
type Weighed struct {
	Kind Kind
	ID   string
	// Item is the product, or of a grant the benefit. A pass has none.
	Item     string
	Parent   string // of a grant or seat: its subscription or order
	Customer string
	Source   Source
	Status   string
	Version  Version

	// Counts is false for what opens nothing by its kind: seats that were
	// bought, a member's grant, the order of a subscription, a draft.
	Counts bool
	// Decides says that the plan's own answer rests on this fact.
	Decides bool
	// Course is what the fact opens at the moment, and what it will open after
	// that by time alone.
	Course []Stage
	// Advice is what the operator or the buyer can do, if there is something.
	Advice string
}

// Stage is a time with one reason.
type Stage struct {
	Allowed bool
	Reason  Reason
	// Until is when it ends; of a refusal, when access ended. Boundary names
	// what of the fact that is, in Polar's words.
	Until    time.Time
	Boundary string
}

// Explain says why Decide answers as it does. links are the customers that the
// operator has linked to the user.
func Explain(a *Account, q Requirement, r *Rules, links []string, now time.Time) Explanation {
	e := Explanation{Decision: Decide(a, q, r, now)}
	seen := make(map[fact]bool)
	for i := range r.Plans {
		var plan PlanExplanation
		best := -1
		x := explainer{a: a, r: r, plan: &r.Plans[i], links: links, now: now}
		c := newContest()
		here := make(map[fact]bool)
		c.told = func(k Kind, n int, w way, leads bool) {
			if here[fact{k, n}] {
				return // the plan names its item twice
			}
			seen[fact{k, n}], here[fact{k, n}] = true, true
			if leads {
				best = len(plan.Facts)
			}
			plan.Facts = append(plan.Facts, x.weigh(fact{k, n}, w))
		}
		a.compete(&c, x.plan, r, now)
		if !q.includes(i) {
			continue
		}
		if best >= 0 {
			plan.Facts[best].Decides = true
		}
		plan.Plan, plan.Decision = x.plan.Name, Decide(a, r.Only(i), r, now)
		plan.Next = a.next(r.Only(i), &plan.Decision, r)
		e.Plans = append(e.Plans, plan)
	}
	x := explainer{a: a, r: r, links: links, now: now}
	for _, f := range a.openers() {
		if !seen[f] {
			e.Outside = append(e.Outside, x.describe(f))
		}
	}
	return e
}

// next is what the decision becomes when its reason ends.
func (a *Account) next(q Requirement, d *Decision, r *Rules) *Next {
	if !d.Allowed || d.Until.IsZero() {
		return nil
	}
	return &Next{At: d.Until, Decision: Decide(a, q, r, d.Until)}
}

// fact is the place of a fact in its account.
type fact struct {
	kind  Kind
	index int
}

// openers lists the facts that could open something.
func (a *Account) openers() (all []fact) {
	for i := range a.Subscriptions {
		if !a.subscriptions[i].foreign {
			all = append(all, fact{KindSubscription, i})
		}
	}
	for i := range a.Orders {
		if a.Orders[i].SubscriptionID == "" && !a.orders[i].foreign {
			all = append(all, fact{KindOrder, i})
		}
	}
	for i := range a.Grants {
		all = append(all, fact{KindGrant, i})
	}
	for i := range a.Seats {
		all = append(all, fact{KindSeat, i})
	}
	for i := range a.Passes {
		all = append(all, fact{KindPass, i})
	}
	return all
}

// explainer explains the facts of an account in the light of one plan.
type explainer struct {
	a     *Account
	r     *Rules
	plan  *Plan
	links []string
	now   time.Time
}

func (x *explainer) weigh(f fact, w way) Weighed {
	v := x.describe(f)
	v.Counts = w.held
	if !w.held {
		return v
	}
	// Each stage is what the engine says at the end of the one before.
	const most = 8 // it ends by itself; this bounds a mistake
	for range most {
		v.Course = append(v.Course, Stage{w.open, w.reason, w.until, x.boundary(f, &w)})
		if !w.open || w.until.IsZero() {
			break
		}
		x.way(&w, f, w.until)
	}
	if now := &v.Course[0]; now.Reason == ReasonSeatRevoked {
		v.Advice = adviceAssign
	}
	return v
}

// adviceAssign is for a seat that is revoked while what it is of goes on. Polar
// revokes all seats when a payment fails, and gives none back when it is made.
const adviceAssign = "assign again: Polar does not give a revoked seat back, also not after a failed payment was made"

// way is what a fact opens at some moment.
func (x *explainer) way(w *way, f fact, at time.Time) {
	if f.kind == KindPass {
		passWay(w, &x.a.Passes[f.index], at)
		return
	}
	x.a.way(w, slices.Index(listKinds[:], f.kind), f.index, &x.plan.Grace, x.r, at)
}

// describe says what a fact is.
func (x *explainer) describe(f fact) Weighed {
	a := x.a
	switch f.kind {
	case KindSubscription:
		s := &a.Subscriptions[f.index]
		return Weighed{
			Kind: f.kind, ID: s.ID, Item: s.ProductID, Customer: s.CustomerID, Status: string(s.Status),
			Version: s.Version, Source: x.source(s.CustomerID, s.MetadataUser),
		}
	case KindOrder:
		o := &a.Orders[f.index]
		return Weighed{
			Kind: f.kind, ID: o.ID, Item: o.ProductID, Customer: o.CustomerID, Status: string(o.Status),
			Version: o.Version, Source: x.source(o.CustomerID, o.MetadataUser),
		}
	case KindGrant:
		g := &a.Grants[f.index]
		v := Weighed{
			Kind: f.kind, ID: g.ID, Item: g.BenefitID, Customer: g.CustomerID, Status: "pending", Version: g.Version,
			Parent: g.SubscriptionID + g.OrderID, Source: x.source(g.CustomerID, ""),
		}
		switch n := &a.grants[f.index]; { // a grant is whose its parent is, or its member's
		case g.ForMember:
			v.Source = SourceMember
		case n.subscription >= 0:
			v.Source = x.describe(fact{KindSubscription, n.subscription}).Source
		case n.order >= 0:
			v.Source = x.describe(fact{KindOrder, n.order}).Source
		}
		if g.Revoked {
			v.Status = "revoked"
		} else if g.Granted {
			v.Status = "granted"
		}
		return v
	}
	if f.kind == KindSeat {
		return x.describeSeat(f)
	}
	p := &a.Passes[f.index]
	return Weighed{Kind: f.kind, ID: p.ID, Status: statusPass, Source: SourceOperator}
}

func (x *explainer) describeSeat(f fact) Weighed {
	s := &x.a.Seats[f.index]
	v := Weighed{
		Kind: f.kind, ID: s.ID, Item: x.a.seatProduct(f.index), Customer: s.CustomerID, Status: "pending",
		Version: s.Version, Parent: s.SubscriptionID + s.OrderID, Source: SourceMember,
	}
	switch {
	case s.Revoked:
		v.Status = "revoked"
	case s.Claimed:
		v.Status = "claimed"
	}
	return v
}

// source is why Owner says that a purchase is the user's.
func (x *explainer) source(customer, metadata string) Source {
	switch {
	case slices.Contains(x.links, customer):
		return SourceLink
	case metadata == x.a.User:
		return SourceMetadata
	case slices.ContainsFunc(x.a.Customers, func(c HeldCustomer) bool { return c.ID == customer && c.ByEmail }):
		return SourceEmail
	}
	return SourceExternalID
}

// boundary names the moment at which a way ends or has ended. It is a name for
// what the engine has found, and empty where that has none.
func (x *explainer) boundary(f fact, w *way) string {
	if w.until.IsZero() {
		return ""
	}
	switch w.reason {
	case ReasonPass, ReasonPassExpired:
		return "until"
	case ReasonCustomerDeleted:
		return "deleted_at"
	case ReasonRefunded, ReasonDisputed:
		return "refunded_at"
	case ReasonBenefitRevoked, ReasonSeatRevoked:
		return "revoked_at"
	}
	i := f.index
	switch f.kind {
	case KindGrant:
		i = x.a.grants[f.index].subscription
	case KindSeat:
		i = x.a.seats[f.index].subscription
	}
	if i < 0 {
		return ""
	}
	name := boundaryOf(&x.a.Subscriptions[i], &x.a.subscriptions[i], &x.plan.Grace, w)
	if name == "" && w.until.Equal(x.now) {
		return "now" // grace is off
	}
	return name
}

// named is a time or a duration with the name that Polar or the operator knows
// it by.
type named struct {
	name string
	at   time.Time
}

func boundaryOf(s *Subscription, notes *subscriptionNotes, g *Grace, w *way) string {
	for _, from := range boundaryTimes(s, notes, w.reason) {
		if from.at.IsZero() {
			continue
		}
		if from.at.Equal(w.until) {
			return from.name
		}
		for _, grace := range boundaryGraces(g, w.reason) {
			if from.at.Add(grace.d).Equal(w.until) {
				return from.name + " + " + grace.name + " " + days(grace.d)
			}
		}
	}
	return ""
}

// boundaryTimes are the times from which a reason can be counted, in the order
// in which the engine takes them.
func boundaryTimes(s *Subscription, notes *subscriptionNotes, reason Reason) []named {
	end := named{"current_period_end", s.PeriodEnd}
	switch reason {
	case ReasonCanceling:
		return []named{{"ends_at", s.EndsAt}, end}
	case ReasonCanceled, ReasonCanceledGrace, ReasonUnpaid, ReasonUnpaidGrace:
		if !s.Status.Ended() {
			return []named{{"ends_at", s.EndsAt}, end}
		}
		return []named{{"ended_at", s.EndedAt}, {"ends_at", s.EndsAt}, {"canceled_at", s.CanceledAt}, end}
	case ReasonPastDue, ReasonPastDueGrace:
		return []named{
			{"ends_at", s.EndsAt},
			{"past_due_at", s.PastDueAt},
			{"current_period_start", s.PeriodStart},
			{"revoked_at of what it gave", notes.revokedAt},
		}
	case ReasonPaused:
		if s.Status == StatusPaused {
			return []named{{"paused_at", s.PausedAt}}
		}
		return []named{end}
	}
	if s.Status == StatusTrialing && !s.PauseAtPeriodEnd {
		return []named{{"trial_end", s.TrialEnd}, end}
	}
	return []named{end}
}

// length is a grace by the operator's name for it.
type length struct {
	name string
	d    time.Duration
}

// boundaryGraces are those that can follow the time of a reason.
func boundaryGraces(g *Grace, reason Reason) []length {
	switch reason {
	case ReasonRenewalGrace, ReasonPeriodEnded, ReasonTrialEnded:
		return []length{{"renewal", g.Renewal}}
	case ReasonCanceled, ReasonCanceledGrace:
		return []length{{"canceled", g.Canceled}}
	case ReasonUnpaid, ReasonUnpaidGrace:
		return []length{{"unpaid", g.Unpaid}}
	case ReasonPastDue, ReasonPastDueGrace:
		return []length{
			{"past_due", g.PastDue.For},
			{"trial_past_due", g.TrialPastDue.For},
			{"Polar's last attempt", dunningEnds},
		}
	}
	return nil
}

// days writes a duration as the configuration does.
func days(d time.Duration) string {
	const day = 24 * time.Hour
	if d >= day && d%day == 0 {
		return strings.TrimSuffix((d/24).String(), "h0m0s") + "d"
	}
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// String says it in a sentence.
func (v *Weighed) String() string {
	if !v.Counts {
		return "opens nothing by itself"
	}
	stages := make([]string, len(v.Course))
	for i := range v.Course {
		stages[i] = v.Course[i].sentence(i > 0)
	}
	said := strings.Join(stages, ", then ")
	if v.Advice != "" {
		said += "; " + v.Advice
	}
	return said
}

func (s *Stage) sentence(later bool) string {
	text, at := string(s.Reason), ""
	if !s.Until.IsZero() {
		at = strings.TrimSpace(s.Boundary + " " + s.Until.UTC().Format(time.RFC3339))
	}
	switch {
	case s.Allowed && at == "":
		return text + ", without end"
	case s.Allowed:
		return text + " until " + at
	case at == "" || later: // what was said before tells when
		return "refused: " + text
	}
	return "refused: " + text + " since " + at
}

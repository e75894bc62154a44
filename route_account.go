package caddypolar

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/caddy-polar/caddy-polar/entitlement"
	"github.com/caddy-polar/caddy-polar/gateway"
	"github.com/caddy-polar/caddy-polar/pages"
	"github.com/caddy-polar/caddy-polar/polar"
)

// pageTime is how long a page waits for what it can do without.
const pageTime = 3 * time.Second

// accountForm does what a form of the page says. later says that it is only scheduled.
type accountForm func(ctx context.Context, g *Gateway, v *visit, r *http.Request) (later bool, err error)

// doneLater is what was done when a change is only scheduled.
const doneLater = "scheduled"

// accountForms are the forms, by the name of their button.
var accountForms = map[string]accountForm{
	"cancel":     changing(func(*http.Request) gateway.Change { return gateway.Change{Cancel: new(true)} }),
	"keep":       changing(func(*http.Request) gateway.Change { return gateway.Change{Cancel: new(false)} }),
	"unschedule": changing(func(*http.Request) gateway.Change { return gateway.Change{ClearPending: true} }),
	"change": changing(func(r *http.Request) gateway.Change {
		return gateway.Change{ProductID: r.PostForm.Get("product")}
	}),
	"invite": func(ctx context.Context, g *Gateway, v *visit, r *http.Request) (bool, error) {
		_, err := g.core.InviteToSeat(ctx, v.visitor(r), r.PostForm.Get("email"), r.PostForm.Get("id"))
		return false, err
	},
	"revoke": func(ctx context.Context, g *Gateway, v *visit, r *http.Request) (bool, error) {
		_, err := g.core.RevokeSeat(ctx, v.identity.Customer, r.PostForm.Get("seat"))
		return false, err
	},
	"resend": func(ctx context.Context, g *Gateway, v *visit, r *http.Request) (bool, error) {
		_, err := g.core.ResendInvitation(ctx, v.identity.Customer, r.PostForm.Get("seat"))
		return false, err
	},
}

func changing(read func(*http.Request) gateway.Change) accountForm {
	return func(ctx context.Context, g *Gateway, v *visit, r *http.Request) (later bool, err error) {
		c := read(r)
		c.Subscription = r.PostForm.Get("id")
		account, id, err := g.core.ChangeSubscription(ctx, v.identity.Customer, c)
		if err != nil {
			return false, err
		}
		s, _, ok := account.CurrentByID(id, g.core.Rules(), g.core.Now())
		return ok && c.ProductID != "" && !s.PendingAt.IsZero(), nil
	}
}

// doneCookie says, to the page that is loaded next, what a form has done.
const doneCookie = "polar_done"

// serveAccount shows a user what they have, or does what a form of that page says.
func (g *Gateway) serveAccount(w http.ResponseWriter, r *http.Request, v *visit) error {
	if r.Method == http.MethodPost {
		return g.submitAccount(w, r, v)
	}
	back, ok := g.returnAddress(r, r.URL.Query().Get("return_to"))
	if !ok {
		return badReturn("return_to").page(w, r, v)
	}
	page := v.accountPage(r, back)
	if _, err := r.Cookie(againCookie); err == nil {
		http.SetCookie(w, &http.Cookie{Name: againCookie, Path: v.routes(), MaxAge: -1})
	}
	if done, err := r.Cookie(doneCookie); err == nil && isVisit(r) && r.Method == http.MethodGet {
		v.setDone(w, r, "")
		if accountForms[done.Value] != nil || done.Value == doneLater {
			page.Done = done.Value
		}
	}
	return v.show(w, r, http.StatusOK, page)
}

// setDone leaves word for the next page, or takes it away.
func (v *visit) setDone(w http.ResponseWriter, r *http.Request, done string) {
	c := &http.Cookie{
		Name: doneCookie, Value: done, Path: v.routes() + "/account", MaxAge: 30,
		HttpOnly: true, SameSite: http.SameSiteStrictMode, Secure: isSecure(r),
	}
	if done == "" {
		c.MaxAge = -1
	}
	http.SetCookie(w, c)
}

// submitAccount does what a form says. The browser is then sent back to the page, so
// that to load it again does nothing again.
func (g *Gateway) submitAccount(w http.ResponseWriter, r *http.Request, v *visit) error {
	arrived := hurry(w)
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	if err := r.ParseForm(); err != nil {
		if tooLarge := new(http.MaxBytesError); errors.As(err, &tooLarge) {
			return newProblem(http.StatusRequestEntityTooLarge, codeBodyTooLarge).page(w, r, v)
		}
		return newProblem(http.StatusBadRequest, codeBadBody).page(w, r, v)
	}
	arrived()
	what := r.PostForm.Get("do")
	do, ok := accountForms[what]
	if !ok {
		return newProblem(http.StatusBadRequest, codeBadBody).page(w, r, v)
	}
	back, ok := g.returnAddress(r, r.PostForm.Get("return_to"))
	if !ok {
		return badReturn("return_to").page(w, r, v)
	}
	ctx, cancel := context.WithTimeout(r.Context(), providerTime)
	defer cancel()
	later, err := do(ctx, g, v, r)
	if err != nil {
		p := g.providerProblem(r, v, err)
		p.cache = noStore
		p.head(w.Header())
		page := v.accountPage(r, back)
		page.Problem = v.refusalPage(r, p)
		return v.show(w, r, p.Status, page)
	}
	if later {
		what = doneLater
	}
	v.setDone(w, r, what)
	query := make(url.Values)
	for name, value := range map[string]string{"return_to": back, "seats": r.PostForm.Get("seats")} {
		if value != "" {
			query.Set(name, value)
		}
	}
	address := url.URL{Path: v.routes() + "/account", RawQuery: query.Encode()}
	return redirect(w, r, address.String())
}

// accountPage is what a user has.
func (v *visit) accountPage(r *http.Request, back string) *pages.Account {
	core, base := v.gateway.core, v.routes()
	b := accountBuilder{visit: v, own: v.account.OwnCustomer(), portal: withReturn(base+"/portal", withReturn(base+"/account", back))}
	page := &pages.Account{Post: base + "/account", Back: here(r, back), Manages: v.identity.Manages, Changing: r.URL.Query().Get("change") != ""}
	if core.CanAsk() {
		ctx, cancel := context.WithTimeout(r.Context(), pageTime)
		b.offers, _ = core.Products(ctx) // without them plans go by their own names
		cancel()
		b.may = v.identity.Manages && b.own != ""
		if page.Pricing = base + "/pricing"; !v.identity.Manages {
			page.Pricing = ""
		}
		if b.may {
			page.Portal = b.portal
		}
		if v.identity.Manages && v.account.ManagesSeats() {
			page.Seats = b.seats(r)
		}
	}
	for s := range v.account.CurrentSubscriptions() {
		page.Subscriptions = append(page.Subscriptions, b.subscription(s))
	}
	slices.SortStableFunc(page.Subscriptions, func(x, y pages.Subscription) int {
		switch {
		case x.Allowed == y.Allowed:
			return 0
		case x.Allowed:
			return -1
		}
		return 1
	})
	page.Others = b.others(page.Subscriptions)
	return page
}

type accountBuilder struct {
	*visit
	offers []gateway.Offer
	own    string // the customer that is this user and nobody else
	portal string
	may    bool // what there is may be changed here
}

func (b *accountBuilder) offer(product string) *gateway.Offer {
	i := slices.IndexFunc(b.offers, func(o gateway.Offer) bool { return o.ID == product })
	if i < 0 {
		return nil
	}
	return &b.offers[i]
}

// name is what a product is called, and by which plan's name it may go instead.
func (b *accountBuilder) name(product, plan string) (name, called string) {
	o := b.offer(product)
	if o == nil {
		return plan, plan
	}
	return o.Name, soleName(b.offers, o)
}

func (b *accountBuilder) subscription(s *entitlement.Subscription) pages.Subscription {
	_, d, _ := b.account.CurrentByID(s.ID, b.gateway.core.Rules(), b.now)
	page := pages.Subscription{
		ID: s.ID, PeriodEnd: s.PeriodEnd, ResumesAt: s.ResumesAt, ForSeats: s.Seats,
		Holding: pages.Holding{Status: string(s.Status), Reason: string(d.Reason), Allowed: d.Allowed, Until: d.Until},
	}
	if d.Plan == "" || s.Seats {
		b.bare(&page, s)
	}
	page.Name, page.Plan = b.name(s.ProductID, d.Plan)
	if !s.PendingAt.IsZero() && !s.CancelAtPeriodEnd {
		page.Pending = &pages.Pending{Seats: s.PendingSeats, At: s.PendingAt}
		if s.PendingProductID != "" {
			page.Pending.Other = true
			page.Pending.Name, _ = b.name(s.PendingProductID, "")
		}
	}
	if !b.may || s.CustomerID != b.own {
		page.Elsewhere = true
		page.Unlinked = b.identity.Manages && b.gateway.core.CanAsk()
		return page
	}
	running := s.Status == entitlement.StatusActive || s.Status == entitlement.StatusTrialing
	if s.Status == entitlement.StatusPastDue || s.Status == entitlement.StatusPaused {
		page.Trouble = &pages.Link{Label: portalLabel(string(s.Status)), URL: b.portal}
	}
	page.CanUnschedule = page.Pending != nil
	page.CanKeep = s.CancelAtPeriodEnd && (running || s.Status == entitlement.StatusPastDue)
	page.CanCancel = !s.CancelAtPeriodEnd && running // what becomes of a payment that is due, Polar's portal tells
	if running && !s.CancelAtPeriodEnd && !s.Free && page.Pending == nil {
		page.Changes = b.changes(s)
	}
	return page
}

// bare tells of a subscription what it is at Polar: it opens no plan by itself, so
// that there is no decision about it.
func (b *accountBuilder) bare(page *pages.Subscription, s *entitlement.Subscription) {
	h := &page.Holding
	h.Until, h.Allowed = s.PeriodEnd, true
	switch {
	case s.Status == entitlement.StatusPastDue:
		h.Reason, page.DueSince, page.LastChance = "due", s.PastDueAt, s.LastChance()
	case s.Status == entitlement.StatusPaused:
		h.Reason, h.Allowed, h.Until = string(entitlement.ReasonPaused), false, s.PausedAt
	case s.Status == entitlement.StatusIncomplete:
		h.Reason, h.Allowed, h.Until = string(entitlement.ReasonIncomplete), false, time.Time{}
	case s.CancelAtPeriodEnd:
		h.Reason = string(entitlement.ReasonCanceling)
	case s.PauseAtPeriodEnd:
		h.Reason = string(entitlement.ReasonPausing)
	case s.Status == entitlement.StatusTrialing:
		h.Reason = string(entitlement.ReasonTrialing)
	case s.Status == entitlement.StatusActive:
		h.Reason = string(entitlement.ReasonActive)
	default:
		h.Reason, h.Allowed, h.Until = string(entitlement.ReasonUnknownStatus), false, time.Time{}
	}
}

// changes are the products that a subscription can be changed to.
func (b *accountBuilder) changes(s *entitlement.Subscription) (list []pages.Change) {
	for i := range b.offers {
		o := &b.offers[i]
		if o.ID == s.ProductID || !o.IsRecurring || !o.Public() || bySeats(o) != s.Seats {
			continue
		}
		c := pages.Change{Product: o.ID, Offer: offerPage(o)}
		c.Plan = soleName(b.offers, o)
		list = append(list, c)
	}
	return list
}

func bySeats(o *gateway.Offer) bool {
	return slices.ContainsFunc(o.Prices, func(p polar.Price) bool { return p.AmountType == pages.PriceSeats && !p.IsArchived })
}

// others are the plans that are open by something else than a subscription, and those
// that were.
func (b *accountBuilder) others(subscriptions []pages.Subscription) (list []pages.Holding) {
	rules := b.gateway.core.Rules()
	for i, d := range entitlement.DecideEach(b.account, rules, b.now) {
		plan := &rules.Plans[i]
		over := !d.Allowed && !d.Until.IsZero() && len(subscriptions) == 0 && d.Reason != entitlement.ReasonPlanRequired
		if !d.Allowed && !over || b.isTold(plan, &d) {
			continue
		}
		list = append(list, pages.Holding{
			Name: b.planName(plan), Plan: plan.Name, Status: d.Status, Reason: string(d.Reason), Allowed: d.Allowed, Until: d.Until,
			Elsewhere: !b.may,
		})
	}
	return list
}

// isTold says whether a subscription that is on the page tells of a plan already: it is
// open and sells the plan's product or gives its benefit, or the plan is closed as it is.
func (b *accountBuilder) isTold(plan *entitlement.Plan, d *entitlement.Decision) bool {
	for s := range b.account.CurrentSubscriptions() {
		sells := slices.Contains(plan.Products, s.ProductID) && !s.Seats
		gives := slices.ContainsFunc(b.account.Grants, func(g entitlement.Grant) bool {
			return g.SubscriptionID == s.ID && slices.Contains(plan.Benefits, g.BenefitID)
		})
		_, own, _ := b.account.CurrentByID(s.ID, b.gateway.core.Rules(), b.now)
		if d.Allowed && gives && d.Status == string(s.Status) || sells && (own.Allowed || !d.Allowed) {
			return true
		}
	}
	return false
}

// planName is what a plan is called that sells one thing, or its own name.
func (b *accountBuilder) planName(p *entitlement.Plan) string {
	name := ""
	for _, product := range p.Products {
		if o := b.offer(product); o != nil {
			if name != "" {
				return p.Name
			}
			name = o.Name
		}
	}
	return orDefault(name, p.Name)
}

// maxSeats is how many seats are on the page.
const maxSeats = 40

// seats are those of the purchase that the visitor looks at.
func (b *accountBuilder) seats(r *http.Request) *pages.Seats {
	ctx, cancel := context.WithTimeout(r.Context(), pageTime)
	defer cancel()
	list, err := b.gateway.core.Seats(ctx, b.identity.Customer, r.URL.Query().Get("seats"))
	switch {
	case errors.Is(err, gateway.ErrNoSeats), errors.Is(err, gateway.ErrNotManager), errors.Is(err, gateway.ErrNotLinked):
		return nil
	case err != nil:
		return &pages.Seats{Unknown: true}
	}
	page := &pages.Seats{ID: list.Of.ID(), Total: list.Total, Available: list.Available}
	page.Name, _ = b.name(list.Of.ProductID, "")
	page.Asked = r.URL.Query().Get("seats")
	for i := range list.Seats.Seats {
		if s := &list.Seats.Seats[i]; s.Status != "revoked" {
			if len(page.List) == maxSeats {
				page.More = true
				break
			}
			page.List = append(page.List, pages.Seat{ID: s.ID, Who: s.Email, Pending: s.Status == "pending"})
		}
	}
	for i := range list.All {
		if p := &list.All[i]; p.ID() != page.ID {
			name, _ := b.name(p.ProductID, "")
			page.Others = append(page.Others, pages.Link{Name: name, URL: b.routes() + "/account?seats=" + url.QueryEscape(p.ID()) + "#seats"})
		}
	}
	return page
}

package gateway

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/singleflight"

	"github.com/caddy-polar/caddy-polar/entitlement"
	"github.com/caddy-polar/caddy-polar/polar"
)

const (
	// lookUpPatience is how long a request waits for a look-up, lookUpTime how
	// long the look-up itself may take.
	lookUpPatience = time.Second
	lookUpTime     = 10 * time.Second
	// lookUpPause is how long the answer of a look-up stands.
	lookUpPause = time.Minute
	// lookUpsAtOnce bounds those under way: a few that end are worth more than
	// many that share the budget and time out together.
	lookUpsAtOnce = 3
	// strangersPerMinute bounds the look-ups of users whom the store does not
	// know: anybody can be one.
	strangersPerMinute = 30
	// checkoutDoubt is for how long after opening a checkout a user may have
	// paid without our knowing.
	checkoutDoubt = time.Hour
)

// errCrowded says that too many look-ups are under way.
var errCrowded = errors.New("too many users are being looked up")

// lookUps keeps the look-ups of users.
type lookUps struct {
	flight    singleflight.Group
	strangers pace
	places    chan struct{} // of those under way

	mu    sync.Mutex
	last  map[string]lookUp
	swept time.Time
	under map[string]struct{} // way: who has a place
}

func (l *lookUps) enter(user string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.under == nil {
		l.under = make(map[string]struct{}, lookUpsAtOnce)
	}
	l.under[user] = struct{}{}
}

func (l *lookUps) leave(user string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.under, user)
	<-l.places
}

// has says whether a user's look-up is under way, and does not wait for others.
func (l *lookUps) has(user string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, ok := l.under[user]
	return ok
}

// lookUp is the last one of a user.
type lookUp struct {
	at    time.Time // by this machine's clock
	heard time.Time // by Polar's; zero: it failed
}

func (l *lookUps) of(user string) lookUp {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last[user]
}

func (l *lookUps) note(user string, done lookUp) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.last == nil || done.at.Sub(l.swept) > lookUpPause || done.at.Before(l.swept) {
		kept := make(map[string]lookUp)
		for other, x := range l.last {
			if within(x.at, done.at, lookUpPause) {
				kept[other] = x
			}
		}
		l.last, l.swept = kept, done.at
	}
	l.last[user] = done
}

// Confirm asks Polar before a refusal that may rest on what we have missed: of
// somebody who opened a checkout lately, whose period, trial or grace is over
// without a word from Polar, or whom the first sync has not reached yet. What
// cannot be had in time is unavailable, which is no word about paying; limits
// says that it was for our own limits, and not for Polar.
func (g *Gateway) Confirm(ctx context.Context, a *entitlement.Account, q entitlement.Requirement, d entitlement.Decision) (fresh *entitlement.Account, _ entitlement.Decision, limits bool) {
	return g.ConfirmOf(ctx, Visitor{User: a.User}, a, q, d)
}

// ConfirmOf is Confirm for somebody whose token was verified: see AccountOf.
func (g *Gateway) ConfirmOf(ctx context.Context, v Visitor, a *entitlement.Account, q entitlement.Requirement, d entitlement.Decision) (fresh *entitlement.Account, _ entitlement.Decision, limits bool) {
	if g.client == nil {
		return a, d, false
	}
	if !d.Allowed {
		// Something of theirs may be open, and a team have invited them all the same.
		if linked, err := g.linkAgain(&v, a); err == nil && linked != a {
			a, d = linked, entitlement.Decide(linked, q, g.Rules(), g.Now())
		}
	}
	if v.User == "" {
		return g.confirmSeats(ctx, v, a, q, d)
	}
	why := g.doubts(a, &d)
	if d.Allowed || why == (doubt{}) {
		if why.over && d.Reason == entitlement.ReasonBenefit && !within(g.lookUps.of(a.User).at, g.local(), lookUpPause) {
			g.beginLookUp(a, why) // what the grant belongs to: nobody waits for that
		}
		return a, d, false
	}
	if why.stranger && g.proves(&v) {
		why.email = v.Email
	}
	unknown := entitlement.Unavailable()
	if d.HTTPStatus == unknown.HTTPStatus {
		unknown = d // it says so itself, and why
	}
	last := g.lookUps.of(a.User)
	if within(last.at, g.local(), lookUpPause) {
		if last.heard.IsZero() || g.unsure(why) {
			return a, unknown, false
		}
		return a, d, false
	}
	if err := g.awaitLookUp(ctx, a, why); err != nil {
		return a, unknown, ownLimit(err)
	}
	fresh, err := g.AccountOf(v)
	if err != nil {
		return a, unknown, false
	}
	rules := g.Rules()
	confirmed := *rules
	confirmed.ConfirmedAt = latest(rules.ConfirmedAt, g.lookUps.of(a.User).heard)
	if d = entitlement.Decide(fresh, q, &confirmed, g.Now()); !d.Allowed && g.unsure(why) {
		d = unknown
	}
	return fresh, d, false
}

// confirmSeats is ConfirmOf for a person for whom nobody pays: there is nothing to
// ask for but the seats that they are known to have.
func (g *Gateway) confirmSeats(ctx context.Context, v Visitor, a *entitlement.Account, q entitlement.Requirement, d entitlement.Decision) (*entitlement.Account, entitlement.Decision, bool) {
	if v.self() || len(a.Seats) == 0 || d.Allowed {
		return a, d, false
	}
	person, err := g.Account(v.Person)
	if err != nil {
		return a, d, false
	}
	_, asked, limits := g.Confirm(ctx, person, q, d)
	if asked.HTTPStatus == http.StatusServiceUnavailable {
		return a, asked, limits
	}
	if a, err = g.AccountOf(v); err != nil {
		return a, entitlement.Unavailable(), false
	}
	rules := *g.Rules()
	rules.ConfirmedAt = latest(rules.ConfirmedAt, g.lookUps.of(v.Person).heard)
	return a, entitlement.Decide(a, q, &rules, g.Now()), false
}

// awaitLookUp looks a user up, once for all requests of the user, and waits for
// it as long as a request may wait. The look-up itself goes on.
func (g *Gateway) awaitLookUp(ctx context.Context, a *entitlement.Account, why doubt) error {
	asked := g.beginLookUp(a, why)
	patience := time.NewTimer(lookUpPatience)
	defer patience.Stop()
	select {
	case done := <-asked:
		return done.Err
	case <-ctx.Done():
		return ctx.Err()
	case <-patience.C:
	}
	if !g.lookUps.has(a.User) || g.limiter != nil && g.limiter.Crowded() {
		return errCrowded
	}
	return polar.ErrTimeout
}

func (g *Gateway) beginLookUp(a *entitlement.Account, why doubt) <-chan singleflight.Result {
	return g.lookUps.flight.DoChan(a.User, func() (_ any, err error) {
		defer g.survive(&err)
		return nil, g.lookUpInTurn(a, why)
	})
}

// lookUpInTurn looks a user up when there is a place for it.
func (g *Gateway) lookUpInTurn(a *entitlement.Account, why doubt) error {
	ctx, cancel := context.WithTimeout(g.life, lookUpTime)
	defer cancel()
	if !g.breaker.allows(g.local()) {
		return polar.ErrUnavailable
	}
	if !a.Known() {
		if err := g.lookUps.strangers.take("", g.local()); err != nil {
			return err
		}
	}
	select {
	case g.lookUps.places <- struct{}{}:
		defer g.lookUps.leave(a.User)
		g.lookUps.enter(a.User)
	case <-ctx.Done():
		return errCrowded
	}
	ctx, cancel = context.WithTimeout(g.life, lookUpTime) // waiting does not count
	defer cancel()
	return g.lookUp(ctx, a, why)
}

// ownLimit says whether it was we who did not let a call go.
func ownLimit(err error) bool {
	var failure *polar.APIError
	var tooMany *TooManyError
	return errors.Is(err, errCrowded) || errors.As(err, &tooMany) ||
		errors.As(err, &failure) && failure.Status == 0 && errors.Is(err, polar.ErrRateLimited)
}

// doubt is what may be wrong about a refusal, and so what to ask for.
type doubt struct {
	stranger bool // nothing was read of anybody yet: ask for everything
	bought   bool // a checkout was opened lately: ask for what carries our mark
	over     bool // a period, trial or grace is over: ask for what we hold
	// email is a stranger's verified e-mail, which can make customers theirs.
	email string
}

// doubts says whether a refusal is worth asking Polar about. Free users who
// were never near a checkout are not: they cost nothing.
func (g *Gateway) doubts(a *entitlement.Account, d *entitlement.Decision) doubt {
	switch d.Reason {
	case entitlement.ReasonCustomerDeleted, entitlement.ReasonDisputed:
		return doubt{}
	}
	now := g.Now()
	return doubt{
		stranger: !g.syncing.Off && !g.synced(),
		bought:   !a.CheckoutAt.IsZero() && now.Sub(a.CheckoutAt) < checkoutDoubt,
		over:     a.Unconfirmed(g.Rules(), g.lookUps.of(a.User).heard, now),
	}
}

// synced says whether all that Polar has was read once.
func (g *Gateway) synced() bool { return g.sync.whole.Load() }

// LookUp asks Polar for all that concerns one user and makes it in force.
func (g *Gateway) LookUp(ctx context.Context, user string) error {
	if _, err := g.ask(); err != nil {
		return err
	}
	account, err := g.Account(user)
	if err != nil {
		return err
	}
	return g.lookUp(ctx, account, doubt{stranger: true, over: true})
}

func (g *Gateway) lookUp(ctx context.Context, a *entitlement.Account, why doubt) error {
	began := g.local()
	err := g.readUser(ctx, a, why)
	g.breaker.note(err, g.local())
	if err != nil {
		if !ownLimit(err) { // who only met our limit may try again at once
			g.lookUps.note(a.User, lookUp{at: began})
		}
		if ctx.Err() == nil {
			g.logger.Warn("a user could not be looked up", zap.String("user_hash", g.HashUser(a.User)), zap.Error(err))
		}
		return err
	}
	g.lookUps.note(a.User, lookUp{at: began, heard: g.At(began)})
	return nil
}

// readUser reads what a user has: by external id, by our mark, and by the ids
// of what we hold.
func (g *Gateway) readUser(ctx context.Context, a *entitlement.Account, why doubt) error {
	group, inner := errgroup.WithContext(ctx)
	read := func(s polar.SubscriptionFilter, o polar.OrderFilter) {
		o.BillingType = "one_time"
		group.Go(func() error { return g.readSubscriptions(inner, s) })
		if !g.catalog.onlyRecurring() {
			group.Go(func() error { return g.readOneTime(inner, o) })
		}
	}
	if why.stranger || why.over {
		read(polar.SubscriptionFilter{ExternalCustomerID: a.User}, polar.OrderFilter{ExternalCustomerID: a.User})
	}
	if why.stranger || why.bought {
		for _, key := range g.markKeys() {
			marked := map[string]string{MarkField: mark(key, a.User)}
			read(polar.SubscriptionFilter{Metadata: marked}, polar.OrderFilter{Metadata: marked})
		}
	}
	if why.stranger && !g.catalog.asked() {
		group.Go(func() error { return g.readSales(inner) })
	}
	if why.email != "" {
		group.Go(func() error { return g.readByEmail(inner, why.email) })
	}
	if why.over {
		g.readHeld(inner, group, a)
	}
	if g.usesBenefits() {
		for i := range a.Customers {
			// Of a whole team's grants those of one holder come by themselves.
			if c := &a.Customers[i]; c.DeletedAt.IsZero() && !a.IsForeign(c.ID) {
				group.Go(func() error { return g.readGrants(inner, polar.BenefitGrantFilter{CustomerID: c.ID}) })
			}
		}
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return g.readOwnSeats(ctx, a.User)
}

// readOwnSeats reads the seats of what a user has bought, as far as they have none:
// they may have been given one, and nobody told.
func (g *Gateway) readOwnSeats(ctx context.Context, user string) error {
	a, err := g.Account(user)
	if err != nil {
		return err
	}
	seated := func(id string) bool {
		return slices.ContainsFunc(a.Seats, func(s entitlement.Seat) bool { return s.Claimed && s.SubscriptionID+s.OrderID == id })
	}
	for s := range a.CurrentSubscriptions() {
		if s.Seats && !seated(s.ID) {
			if err := g.readSeats(ctx, polar.SeatFilter{SubscriptionID: s.ID}); err != nil {
				return err
			}
		}
	}
	for i := range a.Orders {
		if o := &a.Orders[i]; hasOwnSeats(o) && !a.IsForeign(o.ID) && !seated(o.ID) {
			if err := g.readSeats(ctx, polar.SeatFilter{OrderID: o.ID}); err != nil {
				return err
			}
		}
	}
	return nil
}

// readHeld reads what the user is known to have by the ids of it.
func (g *Gateway) readHeld(ctx context.Context, group *errgroup.Group, a *entitlement.Account) {
	for s := range a.RunningSubscriptions() {
		// That Polar does not know it is no answer about the user: a sync
		// finds out what it means.
		group.Go(func() error { return g.readSubscription(ctx, s.ID) })
	}
	for i := range a.Grants {
		if a.Orphan(i) {
			group.Go(func() error { return g.readParent(ctx, a.Grants[i].SubscriptionID, a.Grants[i].OrderID) })
		}
	}
	asked := map[polar.SeatFilter]bool{}
	for i := range a.Seats {
		of := polar.SeatFilter{SubscriptionID: a.Seats[i].SubscriptionID, OrderID: a.Seats[i].OrderID}
		if asked[of] {
			continue
		}
		asked[of] = true
		group.Go(func() error { return g.readSeats(ctx, of) })
		if a.OrphanSeat(i) {
			group.Go(func() error { return g.readParent(ctx, of.SubscriptionID, of.OrderID) })
		}
	}
}

// maxMarkKeys bounds what a look-up asks for: two requests for each.
const maxMarkKeys = 4

// markKeys are the keys that can have marked a checkout that is under way: that
// of the access token, and those of tokens before it.
func (g *Gateway) markKeys() [][]byte {
	keys := [][]byte{g.owner.MarkKey}
	claimed, err := g.claim()
	if err != nil {
		return keys
	}
	for _, key := range claimed.Marks {
		if len(keys) < maxMarkKeys && !bytes.Equal(key, g.owner.MarkKey) && !bytes.Equal(key, claimed.Random) {
			keys = append(keys, key)
		}
	}
	return keys
}

func (g *Gateway) usesBenefits() bool {
	for i := range g.plans {
		if len(g.plans[i].Benefits) > 0 {
			return true
		}
	}
	return false
}

func (g *Gateway) readSubscription(ctx context.Context, id string) error {
	a, err := g.client.Prompt().GetSubscription(ctx, id)
	if err != nil {
		return err
	}
	return g.learn(ctx, a.AsOf, func(r *reader) error { return r.subscription(a.Item) })
}

// readParent reads what a grant or seat belongs to. That Polar does not know it
// is no answer about the user.
func (g *Gateway) readParent(ctx context.Context, subscription, order string) error {
	read, asOf, err := parentOf(ctx, g.client.Prompt(), subscription, order)
	if err != nil && (absent(err) || errors.Is(err, polar.ErrScope)) {
		return nil
	}
	if err != nil {
		return err
	}
	return g.learn(ctx, asOf, read)
}

func (g *Gateway) readSubscriptions(ctx context.Context, f polar.SubscriptionFilter) error {
	for page, err := range polar.Pages(ctx, g.client.Prompt().ListSubscriptions, f, polar.Paging{}) {
		if err != nil {
			return err
		}
		if err := g.learn(ctx, page.AsOf, each(page.Items, (*reader).subscription)...); err != nil {
			return err
		}
	}
	return nil
}

// readOneTime reads one-time orders, and the refunds that can end them, as far
// as the access token may.
func (g *Gateway) readOneTime(ctx context.Context, f polar.OrderFilter) error {
	for page, err := range polar.Pages(ctx, g.client.Prompt().ListOrders, f, polar.Paging{}) {
		if errors.Is(err, polar.ErrScope) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := g.learn(ctx, page.AsOf, each(page.Items, (*reader).order)...); err != nil {
			return err
		}
		for i := range page.Items {
			refunds, err := g.client.Prompt().ListRefunds(ctx, polar.RefundFilter{OrderID: page.Items[i].ID}, polar.Paging{Limit: 100})
			if errors.Is(err, polar.ErrScope) {
				break
			}
			if err != nil {
				return err
			}
			if err := g.learn(ctx, refunds.AsOf, each(refunds.Items, (*reader).refund)...); err != nil {
				return err
			}
		}
	}
	return nil
}

func (g *Gateway) readGrants(ctx context.Context, f polar.BenefitGrantFilter) error {
	for page, err := range polar.Pages(ctx, g.client.Prompt().ListBenefitGrants, f, polar.Paging{}) {
		if errors.Is(err, polar.ErrScope) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := g.learn(ctx, page.AsOf, each(page.Items, (*reader).grant)...); err != nil {
			return err
		}
	}
	return nil
}

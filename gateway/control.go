package gateway

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/caddy-polar/caddy-polar/entitlement"
	"github.com/caddy-polar/caddy-polar/polar"
)

var (
	// ErrNoSubscription says that the user has no such subscription, or none
	// at all.
	ErrNoSubscription = errors.New("there is no such subscription")
	// ErrSeveral says that it must be told which subscription is meant.
	ErrSeveral = errors.New("there are several subscriptions")
)

// OpenPortal opens a session in which a user is their own customer at Polar.
func (g *Gateway) OpenPortal(ctx context.Context, user, back string) (polar.Secret, error) {
	if _, err := g.ask(); err != nil {
		return "", err
	}
	if err := g.starts.take(user, g.local()); err != nil {
		return "", err
	}
	for again := false; ; again = true {
		customer, err := g.ownCustomer(ctx, user)
		var session polar.CustomerSession
		switch {
		case err == nil:
			session, err = g.session(ctx, user, customer, back)
		case errors.Is(err, ErrNoCustomer):
			session, err = g.teamPortal(ctx, user, back)
		}
		switch {
		case err == nil && !isWeb(string(session.PortalURL)):
			return "", fmt.Errorf("%w: a session without an address", polar.ErrUnexpected)
		case err == nil:
			return session.PortalURL, nil
		case again || !refuses(err, "customer_id"):
			return "", err
		}
		if err := g.checkCustomer(ctx, user, customer); err != nil {
			return "", err // deleted, and we had not heard
		}
	}
}

// session opens a customer session. A team customer's is a member's.
func (g *Gateway) session(ctx context.Context, user, customer, back string) (polar.CustomerSession, error) {
	a, err := g.client.CreateCustomerSession(ctx, polar.CustomerSessionCreate{CustomerID: customer, ReturnURL: back})
	if refuses(err, "member_id") {
		return g.ownSession(ctx, user, customer, back)
	}
	return a.Item, err
}

// refuses says whether Polar complains about one field.
func refuses(err error, field string) bool {
	var failure *polar.APIError
	return errors.Is(err, polar.ErrInvalid) && errors.As(err, &failure) &&
		slices.ContainsFunc(failure.Fields, func(f polar.FieldError) bool { return strings.HasSuffix(f.Field, "."+field) })
}

// Change is what a user wants done to their subscription: one of these.
type Change struct {
	Subscription string // may be empty when there is only one
	ProductID    string
	Seats        *int
	Cancel       *bool // at the period's end; false takes that back
	ClearPending bool  // takes a scheduled change back
}

// asIs says whether a subscription is what the change would make of it. To buy
// the same once more is nothing that Polar should charge for.
func (c *Change) asIs(s *entitlement.Subscription) bool {
	return c.ProductID != "" && c.ProductID == s.ProductID && s.PendingAt.IsZero() && !s.CancelAtPeriodEnd
}

// ChangeSubscription changes a user's own subscription as they could in
// Polar's portal, and no further. It returns the user's account with the
// subscription as it is now, and its id.
func (g *Gateway) ChangeSubscription(ctx context.Context, user string, c Change) (*entitlement.Account, string, error) {
	client, err := g.ask()
	if err != nil {
		return nil, "", err
	}
	change, err := g.portalChange(&c)
	if err != nil {
		return nil, "", err
	}
	if err := g.starts.take(user, g.local()); err != nil {
		return nil, "", err
	}
	customer, err := g.ownCustomer(ctx, user)
	if err != nil && !errors.Is(err, ErrNotLinked) && !errors.Is(err, ErrNoCustomer) {
		return nil, "", err
	}
	s, found := g.currentSubscription(user, c.Subscription)
	switch {
	case found != nil:
		return nil, "", found
	case err != nil:
		return nil, "", err
	case s.CustomerID != customer:
		return nil, "", ErrNotLinked
	case c.asIs(s):
		account, err := g.Account(user)
		return account, s.ID, err
	}
	session, err := g.session(ctx, user, customer, "")
	if err != nil {
		return nil, "", err
	}
	changed, err := client.Portal(session.Token).UpdateSubscription(ctx, s.ID, change)
	if err != nil {
		return nil, "", err
	}
	account, err := g.awaitChange(ctx, user, &changed.Item)
	return account, s.ID, err
}

func (g *Gateway) portalChange(c *Change) (polar.PortalChange, error) {
	switch {
	case c.Cancel != nil:
		return polar.PortalChangeCancel{AtPeriodEnd: *c.Cancel}, nil
	case c.Seats != nil:
		return polar.PortalChangeSeats{Seats: *c.Seats}, nil
	case c.ClearPending:
		return polar.ChangeClearPending{}, nil
	}
	if err := g.checkProducts([]string{c.ProductID}); err != nil {
		return nil, err
	}
	return polar.PortalChangeProduct{ProductID: c.ProductID}, nil
}

// currentSubscription is the one that is meant, among the user's own.
func (g *Gateway) currentSubscription(user, id string) (*entitlement.Subscription, error) {
	account, err := g.Account(user)
	if err != nil {
		return nil, err
	}
	var meant []*entitlement.Subscription
	for s := range account.CurrentSubscriptions() {
		if id == "" || s.ID == id {
			meant = append(meant, s)
		}
	}
	switch len(meant) {
	case 0:
		return nil, ErrNoSubscription
	case 1:
		return meant[0], nil
	}
	return nil, ErrSeveral
}

// changeTries is how often the changed subscription is read.
const changeTries = 3

// awaitChange reads the subscription that was changed. What the portal answers
// is no whole fact, so it is not kept; but while Polar's replica is behind, it
// is what the user is told.
func (g *Gateway) awaitChange(ctx context.Context, user string, changed *polar.PortalSubscription) (*entitlement.Account, error) {
	behind := true
	for try := range changeTries {
		a, err := g.client.GetSubscription(ctx, changed.ID)
		if err != nil {
			break // it was changed all the same
		}
		if err := g.learn(ctx, a.AsOf, func(r *reader) error { return r.subscription(a.Item) }); err != nil {
			return nil, err
		}
		if behind = older(a.Item.Row, changed.Row); !behind || g.sleep(ctx, arrivalPause<<try) != nil {
			break
		}
	}
	account, err := g.Account(user)
	if err != nil || !behind {
		return account, err
	}
	return account.With(changed.ID, func(s *entitlement.Subscription) {
		s.Status, s.ProductID = entitlement.Status(changed.Status), changed.ProductID
		s.PeriodEnd, s.CancelAtPeriodEnd, s.EndsAt = moment(changed.CurrentPeriodEnd), changed.CancelAtPeriodEnd, optional(changed.EndsAt)
		s.SeatCount = seatCount(changed.Seats)
		s.PendingProductID, s.PendingSeats, s.PendingAt = "", 0, time.Time{}
		if p := changed.PendingUpdate; p != nil {
			s.PendingProductID, s.PendingSeats, s.PendingAt = p.ProductID, seatCount(p.Seats), moment(p.AppliesAt)
		}
	}), nil
}

func older(a, b polar.Row) bool {
	return b.ModifiedAt != nil && (a.ModifiedAt == nil || a.ModifiedAt.Before(*b.ModifiedAt))
}

// Watch tells when something that concerns a user has changed. stop ends it.
func (g *Gateway) Watch(user string) (news <-chan struct{}, stop func()) { return g.store.Watch(user) }

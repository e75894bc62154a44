package gateway

import (
	"context"
	"errors"
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
	customer, err := g.ownCustomer(ctx, user)
	if err != nil {
		return "", err
	}
	session, err := g.session(ctx, user, customer, back)
	return session.PortalURL, err
}

// session opens a customer session. A team customer's is a member's.
func (g *Gateway) session(ctx context.Context, user, customer, back string) (polar.CustomerSession, error) {
	body := polar.CustomerSessionCreate{CustomerID: customer, ReturnURL: back}
	a, err := g.client.CreateCustomerSession(ctx, body)
	if refuses(err, "member_id") {
		body.ExternalMemberID = user
		a, err = g.client.CreateCustomerSession(ctx, body)
	}
	if refuses(err, "customer_id") {
		return polar.CustomerSession{}, ErrNoCustomer // deleted, and we have not heard
	}
	return a.Item, err
}

// refuses says whether Polar complains about one field.
func refuses(err error, field string) bool {
	var failure *polar.APIError
	return errors.Is(err, polar.ErrInvalid) && errors.As(err, &failure) &&
		slices.ContainsFunc(failure.Fields, func(f polar.FieldError) bool { return strings.HasSuffix(f.Field, "."+field) })
}

// Change is what a user wants done to their subscription: one of the two.
type Change struct {
	Subscription string // may be empty when there is only one
	ProductID    string
	Cancel       *bool
}

// ChangeSubscription changes a user's own subscription as they could in
// Polar's portal, and no further. It tells which one it was.
func (g *Gateway) ChangeSubscription(ctx context.Context, user string, c Change) (id string, err error) {
	client, err := g.ask()
	if err != nil {
		return "", err
	}
	var change polar.PortalChange
	if c.Cancel != nil {
		change = polar.PortalChangeCancel{AtPeriodEnd: *c.Cancel}
	} else {
		if err := g.checkProducts([]string{c.ProductID}); err != nil {
			return "", err
		}
		change = polar.PortalChangeProduct{ProductID: c.ProductID}
	}
	if err := g.starts.take(user, g.local()); err != nil {
		return "", err
	}
	customer, err := g.ownCustomer(ctx, user)
	if err != nil && !errors.Is(err, ErrNotLinked) && !errors.Is(err, ErrNoCustomer) {
		return "", err
	}
	s, found := g.currentSubscription(user, c.Subscription)
	switch {
	case found != nil:
		return "", found
	case err != nil:
		return "", err
	case s.CustomerID != customer:
		return "", ErrNotLinked
	}
	session, err := g.session(ctx, user, customer, "")
	if err != nil {
		return "", err
	}
	changed, err := client.Portal(session.Token).UpdateSubscription(ctx, s.ID, change)
	if err != nil {
		return "", err
	}
	return s.ID, g.awaitChange(ctx, &changed.Item)
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

// awaitChange reads the subscription that was changed. What the portal answers
// is no whole fact, and the reading may come from a replica that is behind.
func (g *Gateway) awaitChange(ctx context.Context, changed *polar.PortalSubscription) error {
	ctx, cancel := context.WithTimeout(ctx, arrivalWait)
	defer cancel()
	for {
		a, err := g.client.GetSubscription(ctx, changed.ID)
		if err != nil {
			return nil //nolint:nilerr // it was changed; the webhook will tell
		}
		err = g.learn(ctx, a.AsOf, func(r *reader) error { return r.subscription(a.Item) })
		if err != nil {
			return err
		}
		if !older(a.Item.Row, changed.Row) {
			return nil
		}
		select {
		case <-time.After(arrivalPause):
		case <-ctx.Done():
			return nil
		}
	}
}

func older(a, b polar.Row) bool {
	return b.ModifiedAt != nil && (a.ModifiedAt == nil || a.ModifiedAt.Before(*b.ModifiedAt))
}

// Watch tells when something that concerns a user has changed. stop ends it.
func (g *Gateway) Watch(user string) (news <-chan struct{}, stop func()) { return g.store.Watch(user) }

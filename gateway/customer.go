package gateway

import (
	"context"
	"errors"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/caddy-polar/caddy-polar/entitlement"
	"github.com/caddy-polar/caddy-polar/polar"
)

var (
	// ErrNoCustomer says that Polar knows no customer of this user.
	ErrNoCustomer = errors.New("there is no customer of this user at Polar")
	// ErrNotLinked says that what the user has bought stands under a customer
	// that may be somebody else, or that somebody else's purchases stand under
	// theirs.
	ErrNotLinked = errors.New("the Polar customer is not this user's alone")
)

// Visitor is who asks, as their token and connection say.
type Visitor struct {
	User          string
	Email         string
	EmailVerified bool
	IP            string
}

// ownCustomer finds the customer that is this user and nobody else: the one
// that may be shown to them and acted upon for them. What stands under it is
// read anew first, for it may have changed whose it is.
func (g *Gateway) ownCustomer(ctx context.Context, user string) (string, error) {
	account, err := g.Account(user)
	if err != nil {
		return "", err
	}
	id := account.OwnCustomer()
	if id == "" {
		found, err := g.findCustomer(ctx, user)
		if errors.Is(err, polar.ErrNotFound) {
			if slices.ContainsFunc(account.Customers, func(c entitlement.HeldCustomer) bool { return c.DeletedAt.IsZero() }) {
				return "", ErrNotLinked
			}
			return "", ErrNoCustomer
		}
		if err != nil {
			return "", err
		}
		id = found.ID
	}
	if _, err := g.readPurchases(ctx, id); err != nil {
		return "", err
	}
	if account, err = g.Account(user); err != nil {
		return "", err
	}
	if account.OwnCustomer() == "" {
		return "", ErrNotLinked
	}
	return account.OwnCustomer(), nil
}

// findCustomer asks Polar for the customer with the user's external id.
func (g *Gateway) findCustomer(ctx context.Context, user string) (polar.CustomerProfile, error) {
	client, err := g.ask()
	if err != nil {
		return polar.CustomerProfile{}, err
	}
	a, err := client.GetCustomerByExternalID(ctx, user)
	if err != nil {
		return polar.CustomerProfile{}, err
	}
	return a.Item, g.learnCustomer(ctx, a)
}

func (g *Gateway) learnCustomer(ctx context.Context, a polar.Answer[polar.CustomerProfile]) error {
	return g.learn(ctx, a.AsOf, func(r *reader) error { return r.customer(a.Item.Customer) })
}

// readPurchases reads the subscriptions and orders of a customer, and tells
// which of the subscriptions cost nothing.
func (g *Gateway) readPurchases(ctx context.Context, customer string) (free []string, err error) {
	client, err := g.ask()
	if err != nil {
		return nil, err
	}
	var subscriptions polar.Page[polar.Subscription]
	var orders polar.Page[polar.Order]
	both, ctx2 := errgroup.WithContext(ctx)
	both.Go(func() (err error) {
		subscriptions, err = client.ListSubscriptions(ctx2, polar.SubscriptionFilter{CustomerID: customer},
			polar.Paging{Limit: 100, Sorting: []string{"-started_at"}})
		return err
	})
	both.Go(func() (err error) {
		orders, err = client.ListOrders(ctx2, polar.OrderFilter{CustomerID: customer},
			polar.Paging{Limit: 100, Sorting: []string{"-created_at"}})
		return err
	})
	if err := both.Wait(); err != nil {
		return nil, err
	}
	for i := range subscriptions.Items {
		if s := &subscriptions.Items[i]; s.Free() && s.Status == string(entitlement.StatusActive) {
			free = append(free, s.ID)
		}
	}
	if err := g.learn(ctx, subscriptions.AsOf, each(subscriptions.Items, (*reader).subscription)...); err != nil {
		return nil, err
	}
	return free, g.learn(ctx, orders.AsOf, each(orders.Items, (*reader).order)...)
}

// buyer finds the customer to sell to, and makes or completes one for a
// verified e-mail: then the purchase cannot end up under somebody else's
// customer. Empty: Polar makes one with whatever e-mail the buyer types.
func (g *Gateway) buyer(ctx context.Context, v *Visitor) (id string, isNew bool, err error) {
	account, err := g.Account(v.User)
	if err != nil {
		return "", false, err
	}
	for i := range account.Customers {
		if c := &account.Customers[i]; c.Own && c.DeletedAt.IsZero() {
			return c.ID, false, nil
		}
	}
	found, err := g.findCustomer(ctx, v.User)
	switch {
	case err == nil:
		return found.ID, false, nil
	case !errors.Is(err, polar.ErrNotFound):
		return "", false, err
	case v.Email == "" || !v.EmailVerified:
		return "", false, nil
	}
	made, err := g.client.CreateCustomer(ctx, polar.CustomerCreate{Email: v.Email, ExternalID: v.User})
	switch {
	case err == nil:
		return made.Item.ID, true, g.learnCustomer(ctx, made)
	case errors.Is(err, polar.ErrInvalid):
		id, err = g.completeCustomer(ctx, v)
		return id, false, err
	}
	return "", false, err
}

// completeCustomer gives the customer with the verified e-mail the user's id,
// unless it has one: that cannot be changed.
func (g *Gateway) completeCustomer(ctx context.Context, v *Visitor) (string, error) {
	page, err := g.client.ListCustomers(ctx, polar.CustomerFilter{Email: v.Email}, polar.Paging{Limit: 10})
	if err != nil {
		return "", err
	}
	for i := range page.Items {
		c := &page.Items[i]
		switch {
		case c.DeletedAt != nil || !strings.EqualFold(c.Email, v.Email):
		case c.ExternalID == v.User: // made at the same moment by another request
			return c.ID, g.learnCustomer(ctx, polar.Answer[polar.CustomerProfile]{Item: *c, AsOf: page.AsOf})
		case c.ExternalID == "":
			a, err := g.client.UpdateCustomer(ctx, c.ID, polar.CustomerUpdate{ExternalID: v.User})
			if err != nil {
				return "", err
			}
			return c.ID, g.learnCustomer(ctx, a)
		}
	}
	return "", nil
}

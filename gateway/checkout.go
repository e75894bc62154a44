package gateway

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/caddy-polar/caddy-polar/cache"
	"github.com/caddy-polar/caddy-polar/entitlement"
	"github.com/caddy-polar/caddy-polar/polar"
)

// ObstacleError says why a checkout was not opened, and what to do instead.
type ObstacleError struct {
	Obstacle entitlement.Obstacle
	NextStep entitlement.NextStep
}

// Error implements error.
func (e *ObstacleError) Error() string { return "no checkout: " + string(e.Obstacle) }

// Purchase is what somebody wants to buy, and the way back.
type Purchase struct {
	Products []string // the first one is preselected
	Email    string   // from the request; a verified one of the token goes first
	Locale   string
	Seats    int
	// Success is the address of our success route, which sends the buyer on to
	// ReturnTo. Back is where Polar's page leads to who gives up.
	Success, ReturnTo, Back string
}

// Checkout is an open checkout. Its URL holds a secret.
type Checkout struct {
	ID  string
	URL polar.Secret
}

// OpenCheckout opens a checkout at Polar for a user. The user is written into
// the purchase in three ways, and the checkout is remembered durably before
// anybody gets its URL: whatever happens next, it is known whose money comes.
func (g *Gateway) OpenCheckout(ctx context.Context, v Visitor, p Purchase) (Checkout, error) {
	client, err := g.ask()
	if err != nil {
		return Checkout{}, err
	}
	if err := g.checkProducts(p.Products); err != nil {
		return Checkout{}, err
	}
	keys, err := g.claim()
	if err != nil {
		return Checkout{}, err
	}
	if err := g.starts.take(v.User, g.local()); err != nil {
		return Checkout{}, err
	}
	body := polar.CheckoutCreate{
		Products: p.Products, CustomerIPAddress: v.IP, Locale: p.Locale, Seats: p.Seats, ReturnURL: p.Back,
		Metadata: polar.Metadata{MarkField: mark(g.owner.MarkKey, v.User)},
	}
	if err := g.addBuyer(ctx, &v, &p, &body); err != nil {
		return Checkout{}, err
	}
	state, err := sealState(keys, Return{User: v.User, To: p.ReturnTo}, g.Now())
	if err != nil {
		return Checkout{}, err
	}
	// Polar replaces the braces, which must not be escaped.
	body.SuccessURL = p.Success + "?state=" + url.QueryEscape(state) + "&checkout_id={CHECKOUT_ID}"
	a, err := client.CreateCheckout(ctx, body)
	if err != nil {
		return Checkout{}, refusedUpgrade(err, &body)
	}
	facts := &cache.Facts{Checkouts: []cache.Checkout{{ID: a.Item.ID, User: v.User}}}
	if _, err := g.store.Apply(ctx, facts); err != nil {
		return Checkout{}, err
	}
	return Checkout{ID: a.Item.ID, URL: a.Item.URL}, nil
}

// checkProducts wants products of plans: the gateway sells nothing else.
func (g *Gateway) checkProducts(products []string) error {
	if len(products) == 0 {
		return ErrUnknownProduct
	}
	for _, id := range products {
		if g.plansOf(id) == nil {
			return fmt.Errorf("%w: %s", ErrUnknownProduct, bounded(id))
		}
	}
	return nil
}

// addBuyer says who buys, unless something stands against it.
func (g *Gateway) addBuyer(ctx context.Context, v *Visitor, p *Purchase, body *polar.CheckoutCreate) error {
	customer, isNew, err := g.buyer(ctx, v)
	if err != nil {
		return err
	}
	sale := entitlement.Sale{Products: p.Products, Several: g.sales.Several}
	if customer != "" && !isNew {
		// What the store holds may be old, and so stand in the way or not.
		if sale.Free, err = g.readPurchases(ctx, customer); err != nil {
			return err
		}
	}
	if err := g.obstacle(ctx, v.User, &sale); err != nil {
		return err
	}
	switch {
	case customer != "":
		body.CustomerID = customer
	case !v.EmailVerified && !g.sales.NoBodyEmail:
		body.CustomerEmail = p.Email
		fallthrough
	default:
		body.ExternalCustomerID = v.User
	}
	if len(sale.Free) > 0 && !sale.Several && !g.oneTime(ctx, p.Products) {
		body.SubscriptionID = sale.Free[0]
	}
	return nil
}

// Blocked says whether something stands against selling one of the products to
// a user, as far as the store knows and without asking Polar, and what the
// user can do about it.
func (g *Gateway) Blocked(a *entitlement.Account, products []string) (step entitlement.NextStep, blocked bool) {
	sale := entitlement.Sale{Products: products, Several: g.sales.Several}
	found, step := a.Obstacle(&sale, g.Rules(), g.Now())
	return step, found != ""
}

// obstacle says what stands against a sale, as far as the store knows.
func (g *Gateway) obstacle(ctx context.Context, user string, sale *entitlement.Sale) error {
	account, err := g.Account(user)
	if err != nil {
		return err
	}
	found, step := account.Obstacle(sale, g.Rules(), g.Now())
	if found == "" {
		return nil
	}
	if !sale.OneTime && g.oneTime(ctx, sale.Products) {
		sale.OneTime = true // besides a subscription, Polar sells these
		found, step = account.Obstacle(sale, g.Rules(), g.Now())
	}
	if found == "" {
		return nil
	}
	return &ObstacleError{Obstacle: found, NextStep: step}
}

// refusedUpgrade tells a subscription that Polar does not take for free from
// other mistakes.
func refusedUpgrade(err error, body *polar.CheckoutCreate) error {
	var failure *polar.APIError
	if body.SubscriptionID == "" || !errors.Is(err, polar.ErrInvalid) || !errors.As(err, &failure) {
		return err
	}
	if slices.ContainsFunc(failure.Fields, func(f polar.FieldError) bool { return strings.HasSuffix(f.Field, "subscription_id") }) {
		return &ObstacleError{Obstacle: entitlement.ObstacleSubscribed, NextStep: entitlement.StepChange}
	}
	return err
}

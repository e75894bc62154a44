package gateway

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/caddy-polar/caddy-polar/cache"
	"github.com/caddy-polar/caddy-polar/entitlement"
	"github.com/caddy-polar/caddy-polar/polar"
)

// ObstacleError says why a checkout was not opened, and what to do instead.
type ObstacleError struct {
	Obstacle entitlement.Obstacle
	NextStep entitlement.NextStep
	Until    time.Time // when a pass ends; zero: never
}

// Error implements error.
func (e *ObstacleError) Error() string { return "no checkout: " + string(e.Obstacle) }

// Purchase is what somebody wants to buy, and the way back.
type Purchase struct {
	Products []string // the first one is preselected
	Email    string   // from the request; the buyer's own verified one goes first
	Locale   string
	Seats    int
	Anyway   bool // the buyer knows of their pass
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
	if _, err := g.ask(); err != nil {
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
	state, err := sealState(keys, Return{User: v.User, To: p.ReturnTo, Products: p.Products, Shared: !v.self()}, g.Now())
	if err != nil {
		return Checkout{}, err
	}
	body := polar.CheckoutCreate{
		Products: p.Products, CustomerIPAddress: v.IP, Locale: p.Locale, Seats: p.Seats, ReturnURL: p.Back,
		Metadata: polar.Metadata{MarkField: mark(g.owner.MarkKey, v.User)},
		// Polar replaces the braces, which must not be escaped.
		SuccessURL: p.Success + "?state=" + url.QueryEscape(state) + "&checkout_id={CHECKOUT_ID}",
	}
	a, err := g.createCheckout(ctx, &v, &p, body)
	if err != nil {
		return Checkout{}, err
	}
	facts := &cache.Facts{Checkouts: []cache.Checkout{{ID: a.ID, User: v.User, OpenedAt: g.Now()}}}
	if _, err := g.store.Apply(ctx, facts); err != nil {
		return Checkout{}, err
	}
	return Checkout{ID: a.ID, URL: a.URL}, nil
}

// createCheckout asks Polar for a checkout. The customer may be gone without
// our having heard: then once more for whoever is there now.
func (g *Gateway) createCheckout(ctx context.Context, v *Visitor, p *Purchase, body polar.CheckoutCreate) (*polar.CheckoutSession, error) {
	for again := false; ; again = true {
		body := body
		if err := g.addBuyer(ctx, v, p, &body); err != nil {
			return nil, err
		}
		a, err := g.client.CreateCheckout(ctx, body)
		switch {
		case err == nil && (!isUUID(a.Item.ID) || !isWeb(string(a.Item.URL))):
			return nil, fmt.Errorf("%w: a checkout without an id or address", polar.ErrUnexpected)
		case err == nil:
			return &a.Item, nil
		case again || body.CustomerID == "" || !refuses(err, "customer_id"):
			return nil, refusedUpgrade(err, &body)
		}
		if err := g.checkCustomer(ctx, v.User, body.CustomerID); err != nil {
			return nil, err
		}
	}
}

// isWeb says whether a browser may be sent to an address of Polar's.
func isWeb(address string) bool {
	u, err := url.Parse(address)
	return err == nil && u.Host != "" && (u.Scheme == "https" || u.Scheme == "http")
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
	email := p.Email
	if g.sales.NoBodyEmail {
		email = ""
	}
	customer, isNew, err := g.buyer(ctx, v, email)
	if err != nil {
		return err
	}
	// What the store holds may be old, and so stand in the way or not.
	var billed []string
	if customer != "" && !isNew {
		if billed, err = g.readPurchases(ctx, customer); err != nil {
			return err
		}
	}
	if opened, err := g.Account(v.User); err != nil {
		return err
	} else if !opened.CheckoutAt.IsZero() { // and may have paid, as anybody's customer
		if err := g.readMarked(ctx, v.User); err != nil {
			return err
		}
	}
	sale := entitlement.Sale{Products: p.Products, Several: g.sales.Several, Anyway: p.Anyway}
	account, err := g.obstacle(ctx, v.User, &sale)
	if err != nil {
		return err
	}
	body.Products = sale.Products
	recurring := !sale.Several && g.oneTime(ctx, sale.Products) == 0
	if recurring && !ownsAll(account, billed) {
		// Somebody else's subscription stands under this customer, and Polar
		// sells it no second one.
		return ErrNotLinked
	}
	switch {
	case customer != "":
		body.CustomerID = customer
	case !v.EmailVerified || !v.self():
		body.CustomerEmail = email
		fallthrough
	default:
		body.ExternalCustomerID = v.User
	}
	if free := account.Upgradable(billed); free != nil && recurring {
		body.SubscriptionID = free.ID
	}
	return nil
}

// ownsAll says whether all of the subscriptions are the user's.
func ownsAll(a *entitlement.Account, ids []string) bool {
	return !slices.ContainsFunc(ids, func(id string) bool {
		return !slices.ContainsFunc(a.Subscriptions, func(s entitlement.Subscription) bool { return s.ID == id })
	})
}

// Blocked says whether something stands against selling one of the products to
// a user, as far as is known without asking Polar, and what the user can do
// about it. A pass does not: who is refused has none that helps.
func (g *Gateway) Blocked(a *entitlement.Account, products []string) (step entitlement.NextStep, blocked bool) {
	products = a.WithoutFree(products)
	sale := entitlement.Sale{
		Products: products, Several: g.sales.Several, OneTime: g.knownOneTime(products) == len(products), Anyway: true,
	}
	found, step, _ := a.Obstacle(&sale, g.Rules(), g.Now())
	return step, found != ""
}

// obstacle says what stands against a sale to a user, and leaves out of it what
// they have for free.
func (g *Gateway) obstacle(ctx context.Context, user string, sale *entitlement.Sale) (*entitlement.Account, error) {
	account, err := g.Account(user)
	if err != nil {
		return nil, err
	}
	sale.Products = account.WithoutFree(sale.Products)
	found, step, until := account.Obstacle(sale, g.Rules(), g.Now())
	if found != "" && g.oneTime(ctx, sale.Products) == len(sale.Products) {
		sale.OneTime = true // besides a subscription, Polar sells these
		found, step, until = account.Obstacle(sale, g.Rules(), g.Now())
	}
	if found != "" {
		return nil, &ObstacleError{Obstacle: found, NextStep: step, Until: until}
	}
	return account, nil
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

package gateway

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/caddy-polar/caddy-polar/cache"
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
	// ErrEmailTaken says that Polar would put what an organization buys under
	// somebody else, who has the e-mail that it was to be bought with.
	ErrEmailTaken = errors.New("another customer has this e-mail")
)

// Visitor is who asks, as their token and connection say.
type Visitor struct {
	// User is the paying party, by whose id Polar knows what was bought. It is empty
	// if there is none.
	User string
	// Person is who asks, where that need not be the paying party. Empty: it is.
	Person string
	// The person's.
	Email         string
	EmailVerified bool
	IP            string
}

// self says whether somebody asks for themselves. Only then does their e-mail say
// anything about whose a customer is.
func (v *Visitor) self() bool { return v.Person == "" || v.Person == v.User }

// alone is the person, asking for nobody else.
func (v *Visitor) alone() Visitor {
	return Visitor{User: v.Person, Email: v.Email, EmailVerified: v.EmailVerified}
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
			if account.BuysElsewhere() {
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

// maxPurchases is how many purchases of one customer are read. Whoever has more
// is no person, and gets no control of it.
const maxPurchases = 1000

// readPurchases reads the subscriptions and orders of a customer, and tells
// which subscriptions there are that stand in the way of another.
func (g *Gateway) readPurchases(ctx context.Context, customer string) (billed []string, err error) {
	return g.readBought(ctx, polar.SubscriptionFilter{CustomerID: customer}, polar.OrderFilter{CustomerID: customer})
}

// readMarked reads what carries the user's mark, under whatever customer.
func (g *Gateway) readMarked(ctx context.Context, user string) error {
	marked := map[string]string{MarkField: mark(g.owner.MarkKey, user)}
	_, err := g.readBought(ctx, polar.SubscriptionFilter{Metadata: marked}, polar.OrderFilter{Metadata: marked, BillingType: "one_time"})
	return err
}

func (g *Gateway) readBought(ctx context.Context, s polar.SubscriptionFilter, o polar.OrderFilter) (billed []string, err error) {
	client, err := g.ask()
	if err != nil {
		return nil, err
	}
	both, inner := errgroup.WithContext(ctx)
	both.Go(func() error {
		list := func(ctx context.Context, p polar.Paging) (polar.Page[polar.Subscription], error) {
			return client.ListSubscriptions(ctx, s, p)
		}
		return readAll(inner, g, list, "-started_at", func(r *reader, s polar.Subscription) error {
			if entitlement.Status(s.Status).Billed() {
				billed = append(billed, s.ID)
			}
			return r.subscription(s)
		})
	})
	both.Go(func() error {
		list := func(ctx context.Context, p polar.Paging) (polar.Page[polar.Order], error) {
			return client.ListOrders(ctx, o, p)
		}
		err := readAll(inner, g, list, "-created_at", (*reader).order)
		if errors.Is(err, polar.ErrScope) {
			g.warnScope("orders")
			return nil // webhooks tell of them
		}
		return err
	})
	err = both.Wait() // by itself: what it waits for is written meanwhile
	return billed, err
}

// readAll reads a list to its end and makes it in force.
func readAll[T any](
	ctx context.Context, g *Gateway, list func(context.Context, polar.Paging) (polar.Page[T], error),
	sorting string, read func(*reader, T) error,
) error {
	paging := polar.Paging{Page: 1, Limit: 100, Sorting: []string{sorting}}
	for count := 0; ; paging.Page++ {
		page, err := list(ctx, paging)
		if err != nil {
			return err
		}
		if err := g.learn(ctx, page.AsOf, each(page.Items, read)...); err != nil {
			return err
		}
		count += len(page.Items)
		switch {
		case len(page.Items) == 0 || paging.Page >= page.MaxPage:
			return nil
		case count >= maxPurchases:
			return ErrNotLinked
		}
	}
}

// buyer finds the customer to sell to, and makes or completes one for a
// verified e-mail: then the purchase cannot end up under somebody else's
// customer. Empty: Polar makes one with whatever e-mail the buyer types.
func (g *Gateway) buyer(ctx context.Context, v *Visitor, email string) (id string, isNew bool, err error) {
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
	case !v.self():
		return g.buyerForParty(ctx, v, email)
	case v.Email == "" || !v.EmailVerified:
		return "", false, nil
	}
	made, err := g.client.CreateCustomer(ctx, polar.CustomerCreate{Email: v.Email, ExternalID: v.User})
	switch {
	case err == nil:
		return made.Item.ID, true, g.learnCustomer(ctx, made)
	case errors.Is(err, polar.ErrInvalid):
		id, err = g.completeCustomer(ctx, v)
		return id, false, g.withoutScope(err)
	}
	return "", false, g.withoutScope(err)
}

// buyerForParty is buyer for somebody who buys for others. Polar has one customer
// by an e-mail: what is bought with that of a person would be the person's.
func (g *Gateway) buyerForParty(ctx context.Context, v *Visitor, email string) (id string, isNew bool, err error) {
	address := email
	if address == "" && v.EmailVerified {
		address = v.Email
	}
	if address == "" {
		return "", false, nil
	}
	page, err := g.client.ListCustomers(ctx, polar.CustomerFilter{Email: address}, polar.Paging{Limit: 10})
	if err != nil {
		return "", false, g.withoutScope(err)
	}
	for i := range page.Items {
		if c := &page.Items[i]; c.DeletedAt == nil && c.ExternalID != v.User && sameEmail(c.Email, address) {
			return "", false, ErrEmailTaken
		}
	}
	if email != "" {
		return "", false, nil // Polar makes it, once they have paid
	}
	made, err := g.client.CreateCustomer(ctx, polar.CustomerCreate{Email: address, ExternalID: v.User})
	if errors.Is(err, polar.ErrInvalid) {
		return "", false, nil
	}
	if err != nil {
		return "", false, g.withoutScope(err)
	}
	return made.Item.ID, true, g.learnCustomer(ctx, made)
}

// withoutScope lets a checkout go on when the access token may not make
// customers: Polar makes them then, with whatever e-mail the buyer types.
func (g *Gateway) withoutScope(err error) error {
	if errors.Is(err, polar.ErrScope) {
		g.warnScope("writing customers")
		return nil
	}
	return err
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
		case c.DeletedAt != nil || !sameEmail(c.Email, v.Email):
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

// checkCustomer asks what has become of a customer that Polar refuses to know,
// and remembers that it is gone.
func (g *Gateway) checkCustomer(ctx context.Context, user, id string) error {
	a, err := g.client.GetCustomer(ctx, id)
	if err == nil {
		return g.learnCustomer(ctx, a)
	}
	if !errors.Is(err, polar.ErrNotFound) {
		return err
	}
	account, err := g.Account(user)
	if err != nil {
		return err
	}
	facts := &cache.Facts{}
	for _, c := range account.Customers {
		if c.ID == id && c.DeletedAt.IsZero() {
			gone := c.Customer
			gone.DeletedAt = g.Now()
			gone.Version.AsOf = latest(gone.DeletedAt, gone.Version.AsOf.Add(time.Microsecond))
			facts.Customers = append(facts.Customers, gone)
		}
	}
	_, err = g.write(ctx, facts)
	return err
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

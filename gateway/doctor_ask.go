package gateway

import (
	"cmp"
	"context"
	"errors"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/caddy-polar/caddy-polar/polar"
)

// The scopes that reading needs.
const (
	scopeSubscriptions = "subscriptions:read"
	scopeProducts      = "products:read"
	scopeCustomers     = "customers:read"
	scopeCheckouts     = "checkouts:write"
	scopeOrders        = "orders:read"
	scopeRefunds       = "refunds:read"
	scopeDisputes      = "disputes:read"
	scopeBenefits      = "benefits:read"
	scopeSeats         = "customer_seats:read"
	scopeMembers       = "members:read"
)

const (
	// firstTime is how long Polar is waited for before all else is left.
	firstTime = 15 * time.Second
	// askedAtOnce is how many questions are under way, so that users' calls get through.
	askedAtOnce = 4
	// deliveriesSince is how far back deliveries are looked at.
	deliveriesSince = 24 * time.Hour
	// candidatesAtMost is how many endpoints that have no secret of ours are tried.
	candidatesAtMost = 3
)

// polarFacts are what Polar has answered. An answer that there is not stands as an
// error.
type polarFacts struct {
	first error            // of the call before all others
	reads map[string]error // by the scope that they needed

	products map[string]polar.Product
	benefits map[string]bool // those of the plans that Polar has
	// organization is the token's, empty if nothing has told it.
	organization string

	endpoints  []polar.WebhookEndpoint
	endpoint   *polar.WebhookEndpoint // the one that leads to us, nil if none is known to
	check      EndpointCheck          // of its address
	checkErr   error
	deliveries deliveries
	failure    error // to read these

	mu sync.Mutex
}

// errUnasked stands for what was not asked, as what comes before it failed.
var errUnasked = errors.New("not asked")

// read notes how a read has ended.
func (f *polarFacts) read(scope string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reads[scope] = err
}

// of notes whose objects they are.
func (f *polarFacts) of(organization string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if organization != polar.NoOrganization {
		f.organization = cmp.Or(organization, f.organization)
	}
}

// why is how the read of a scope has ended.
func (f *polarFacts) why(scope string) error {
	if err, asked := f.reads[scope]; asked {
		return err
	}
	return errUnasked
}

// askForDoctor asks Polar all that can be known by reading, before what syncs ask, as
// an operator waits for it.
func (g *Gateway) askForDoctor(ctx context.Context, routes []string) *polarFacts {
	f := &polarFacts{first: errUnasked, reads: make(map[string]error), checkErr: errUnasked, failure: errUnasked}
	c := g.client
	if c == nil {
		return f
	}
	first, cancel := context.WithTimeout(ctx, firstTime)
	defer cancel()
	_, f.first = c.ListSubscriptions(first, polar.SubscriptionFilter{}, polar.Paging{Limit: 1})
	if _, told := permits(f.first); !told {
		return f
	}
	f.read(scopeSubscriptions, f.first)
	questions := []func(){
		func() { g.askWebhooks(ctx, c, f, routes) },
		func() { g.askPlans(ctx, c, f) },
		func() {
			p, err := c.ListCustomers(ctx, polar.CustomerFilter{}, polar.Paging{Limit: 1})
			f.read(scopeCustomers, err)
			for i := range p.Items {
				f.of(p.Items[i].OrganizationID)
			}
		},
		func() {
			_, err := c.GetCheckout(ctx, nobody) // there is none
			f.read(scopeCheckouts, err)
		},
		func() {
			_, err := c.ListOrders(ctx, polar.OrderFilter{}, polar.Paging{Limit: 1})
			f.read(scopeOrders, err)
		},
		func() {
			_, err := c.ListRefunds(ctx, polar.RefundFilter{}, polar.Paging{Limit: 1})
			f.read(scopeRefunds, err)
		},
		func() {
			_, err := c.ListDisputes(ctx, polar.DisputeFilter{}, polar.Paging{Limit: 1})
			f.read(scopeDisputes, err)
		},
	}
	var work sync.WaitGroup
	places := make(chan struct{}, askedAtOnce)
	for _, question := range questions {
		places <- struct{}{}
		work.Go(func() {
			defer func() { <-places }()
			question()
		})
	}
	work.Wait()
	return f
}

// nobody is an id that no object has.
const nobody = "00000000-0000-4000-8000-000000000000"

// askPlans reads what the plans are made of, and where seats are sold what that needs.
func (g *Gateway) askPlans(ctx context.Context, c *polar.Client, f *polarFacts) {
	products, err := g.askProducts(ctx, c)
	if len(products) == 0 && err == nil { // nothing was asked, or these are none of its
		var p polar.Page[polar.Product]
		p, err = c.ListProducts(ctx, polar.ProductFilter{}, polar.Paging{Limit: 1})
		for i := range p.Items {
			f.of(p.Items[i].OrganizationID)
		}
	}
	f.products = products
	f.read(scopeProducts, err)
	seats := false
	for _, p := range products {
		f.of(p.OrganizationID)
		seats = seats || bySeats(&p)
	}
	if g.usesBenefits() {
		f.benefits, err = g.askBenefits(ctx, c)
		f.read(scopeBenefits, err)
	}
	if seats {
		_, err = c.ListSeats(ctx, polar.SeatFilter{SubscriptionID: nobody})
		f.read(scopeSeats, err)
		_, err = c.ListMembers(ctx, polar.MemberFilter{}, polar.Paging{Limit: 1})
		f.read(scopeMembers, err)
	}
}

// askBenefits finds out which benefits of the plans there are.
func (g *Gateway) askBenefits(ctx context.Context, c *polar.Client) (map[string]bool, error) {
	there := make(map[string]bool)
	var ids []string
	for i := range g.plans {
		for _, id := range g.plans[i].Benefits {
			if isUUID(id) && !slices.Contains(ids, id) {
				ids = append(ids, id)
			}
		}
	}
	if len(ids) == 0 {
		_, err := c.ListBenefits(ctx, polar.BenefitFilter{}, polar.Paging{Limit: 1})
		return there, err
	}
	for page, err := range polar.Pages(ctx, c.ListBenefits, polar.BenefitFilter{ID: ids}, polar.Paging{}) {
		if err != nil {
			return nil, err
		}
		for i := range page.Items {
			there[page.Items[i].ID] = true
		}
	}
	return there, nil
}

// askWebhooks finds our endpoint, how deliveries to it went, and whether its address
// leads here.
func (g *Gateway) askWebhooks(ctx context.Context, c *polar.Client, f *polarFacts, routes []string) {
	endpoints, err := listEndpoints(ctx, c)
	f.read(scopeReadWebhooks, err)
	for i := range endpoints {
		f.of(endpoints[i].OrganizationID)
	}
	f.endpoints = endpoints
	if g.verifier == nil {
		return
	}
	if f.endpoint = g.ourEndpoint(endpoints); f.endpoint != nil {
		f.check, f.checkErr = g.tryAddress(ctx, f.endpoint.URL)
	} else {
		g.findByAddress(ctx, f, routes)
	}
	if f.endpoint != nil {
		f.deliveries, f.failure = failedDeliveries(ctx, c, f.endpoint.ID, g.Now().Add(-deliveriesSince))
	}
}

// findByAddress finds an endpoint that leads here although it has no secret of ours.
// Those of other apps are left alone.
func (g *Gateway) findByAddress(ctx context.Context, f *polarFacts, routes []string) {
	if len(routes) == 0 {
		routes = []string{WebhookPath}
	}
	tried := 0
	for i := range f.endpoints {
		e := &f.endpoints[i]
		if u, err := url.Parse(e.URL); err != nil || !slices.Contains(routes, u.Path) || tried == candidatesAtMost {
			continue
		}
		tried++
		if check, err := g.tryAddress(ctx, e.URL); err == nil && (check.Problem == CheckFine || check.Problem == CheckAltered) {
			f.endpoint, f.check, f.checkErr = e, check, nil
			return
		}
	}
}

func (g *Gateway) tryAddress(ctx context.Context, address string) (EndpointCheck, error) {
	u, err := url.Parse(address)
	if err != nil {
		return EndpointCheck{}, badInput("the address of the endpoint cannot be read")
	}
	check, err := g.checkWebhook(ctx, u)
	if ctx.Err() != nil { // it is our own time that was up
		return EndpointCheck{}, ctx.Err()
	}
	return check, err
}

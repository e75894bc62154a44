package gateway

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/singleflight"

	"github.com/caddy-polar/caddy-polar/entitlement"
	"github.com/caddy-polar/caddy-polar/polar"
)

// What is asked for by names that no plan has.
var (
	ErrUnknownProduct = errors.New("no plan sells this product")
	ErrUnknownPlan    = errors.New("there is no such plan")
)

// Offer is a product with the plans that it opens.
type Offer struct {
	polar.Product
	Plans []string
}

// Public says whether anybody may see a product.
//
// Source: https://polar.sh/docs/features/products (visibility)
func (o *Offer) Public() bool { return o.Visibility == "" || o.Visibility == "public" }

const (
	// shelfLife is how old the catalog may be. A webhook about a product ends
	// it earlier.
	shelfLife = 5 * time.Minute
	// catalogPause keeps a Polar that fails from being asked by every visitor.
	catalogPause = 10 * time.Second
	// catalogWait bounds one reading of the catalog.
	catalogWait = 8 * time.Second
)

// shelf keeps the catalog.
type shelf struct {
	flight singleflight.Group

	mu      sync.Mutex
	offers  []Offer
	changes int       // counts what may have changed the catalog
	read    time.Time // when it was read; zero: never, or it has changed since
	failed  time.Time
	failure error
	dead    []string // plans of which Polar knows no product; nil: not asked yet
	// recurring: nothing but subscriptions opens a plan.
	recurring bool
	seats     bool // some product is known to be sold by seats
}

// isDead says whether Polar knew none of a plan's products when it was asked.
func (s *shelf) isDead(plan string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Contains(s.dead, plan)
}

// onlyRecurring says whether it is known that orders open nothing.
func (s *shelf) onlyRecurring() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.recurring
}

// changed notes that an event may have changed the catalog.
func (s *shelf) changed(event string) {
	if !strings.HasPrefix(event, "product.") && !strings.HasPrefix(event, "benefit.") {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changes++
	s.read = time.Time{}
}

// Products is what the plans sell, in the configuration's order, from a copy
// that is at most five minutes old while Polar answers. The caller must not
// change it.
func (g *Gateway) Products(ctx context.Context) ([]Offer, error) {
	client, err := g.ask()
	if err != nil {
		return nil, err
	}
	s := &g.catalog
	s.mu.Lock()
	offers, fresh, failure := s.offers, within(s.read, g.local(), shelfLife), s.failure
	paused := within(s.failed, g.local(), catalogPause)
	s.mu.Unlock()
	switch {
	case fresh || paused && offers != nil:
		return offers, nil
	case paused:
		return nil, failure
	}
	select {
	case r := <-g.renewCatalog(client):
		if r.Err != nil {
			return nil, r.Err
		}
		return r.Val.([]Offer), nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// Shelf is the copy that is there, without waiting: however old, and nil if there is
// none yet. An old one is read anew for whoever comes next. The caller must not change
// it.
func (g *Gateway) Shelf() []Offer {
	client, err := g.ask()
	if err != nil {
		return nil
	}
	s := &g.catalog
	s.mu.Lock()
	offers := s.offers
	due := !within(s.read, g.local(), shelfLife) && !within(s.failed, g.local(), catalogPause)
	s.mu.Unlock()
	if due {
		g.renewCatalog(client)
	}
	return offers
}

// renewCatalog reads the catalog, once for all who want that at a time.
func (g *Gateway) renewCatalog(client *polar.Client) <-chan singleflight.Result {
	return g.catalog.flight.DoChan("", func() (any, error) {
		ctx, cancel := context.WithTimeout(g.life, catalogWait)
		defer cancel()
		return g.readCatalog(ctx, client)
	})
}

func within(since, now time.Time, span time.Duration) bool {
	return !since.IsZero() && !now.Before(since) && now.Sub(since) < span
}

// readCatalog asks Polar. When that fails the last copy goes on.
func (g *Gateway) readCatalog(ctx context.Context, client *polar.Client) ([]Offer, error) {
	s := &g.catalog
	s.mu.Lock()
	changes := s.changes
	s.mu.Unlock()
	offers, err := g.askCatalog(ctx, client)
	s.mu.Lock()
	defer s.mu.Unlock()
	now := g.local()
	if err != nil {
		s.failed, s.failure = now, err
		if s.offers == nil {
			return nil, err
		}
		g.logger.Warn("the catalog cannot be read: the last copy goes on", zap.Error(err))
		return s.offers, nil
	}
	s.offers, s.failed, s.failure = offers, time.Time{}, nil
	if s.changes == changes {
		s.read = now
	}
	return offers, nil
}

// askProducts reads what Polar knows of the plans' products. Where a plan has
// benefits, any product can give them, and all are read.
func (g *Gateway) askProducts(ctx context.Context, client *polar.Client) (map[string]polar.Product, error) {
	found := make(map[string]polar.Product)
	filter, paging := polar.ProductFilter{ID: g.productIDs()}, polar.Paging{}
	switch {
	case g.usesBenefits():
		filter, paging = polar.ProductFilter{}, polar.Paging{Limit: pageSize}
	case len(filter.ID) == 0:
		return found, nil
	}
	for page, err := range polar.Pages(ctx, client.ListProducts, filter, paging) {
		if err != nil {
			return nil, err
		}
		for _, p := range page.Items {
			found[p.ID] = p
		}
	}
	return found, nil
}

func (g *Gateway) askCatalog(ctx context.Context, client *polar.Client) ([]Offer, error) {
	found, err := g.askProducts(ctx, client)
	if err != nil {
		return nil, err
	}
	for _, id := range g.productIDs() {
		if _, ok := found[id]; !ok {
			g.logger.Warn("a plan names a product that Polar does not know: check its id, and whether it is of production or sandbox",
				zap.String("product", id))
		}
	}
	return g.offersAmong(found), nil
}

// offersAmong are the products that the plans sell, in the configuration's order.
func (g *Gateway) offersAmong(found map[string]polar.Product) []Offer {
	offers := []Offer{}
	for _, id := range g.productIDs() {
		if p, ok := found[id]; ok && !p.IsArchived {
			offers = append(offers, Offer{Product: p, Plans: g.plansOf(id)})
		}
	}
	return offers
}

// checkPlans tells of plans that nobody can have because Polar knows none of
// their products, when that has changed.
func (g *Gateway) checkPlans(ctx context.Context, client *polar.Client) error {
	found, err := g.askProducts(ctx, client)
	if err != nil {
		return err
	}
	dead, recurring, seats := []string{}, !g.usesBenefits(), false
	for _, product := range found {
		seats = seats || bySeats(&product)
	}
	for i := range g.plans {
		p := &g.plans[i]
		recurring = recurring && !slices.ContainsFunc(p.Products, func(id string) bool { return !found[id].IsRecurring })
		known := slices.ContainsFunc(p.Products, func(id string) bool { return found[id].ID != "" })
		if len(p.Products) > 0 && !known {
			dead = append(dead, p.Name)
		}
	}
	g.catalog.mu.Lock()
	before := g.catalog.dead
	if g.catalog.offers == nil {
		g.catalog.offers = g.offersAmong(found) // for pages that cannot wait
	}
	g.catalog.dead, g.catalog.recurring, g.catalog.seats = dead, recurring, seats
	g.catalog.mu.Unlock()
	if before != nil && slices.Equal(before, dead) {
		return nil
	}
	for _, plan := range dead {
		g.logger.Error("Polar knows none of the products of a plan, so nobody can have it: check their ids, and whether they are of production or sandbox",
			zap.String("plan", plan))
	}
	if g.onDeadPlans != nil {
		g.onDeadPlans(dead)
	}
	return nil
}

// productIDs are the products of all plans, each once. Polar refuses a filter
// with anything but UUIDs in it.
func (g *Gateway) productIDs() (ids []string) {
	for i := range g.plans {
		for _, id := range g.plans[i].Products {
			if isUUID(id) && !slices.Contains(ids, id) {
				ids = append(ids, id)
			}
		}
	}
	return ids
}

func (g *Gateway) plansOf(product string) (names []string) {
	for i := range g.plans {
		if slices.Contains(g.plans[i].Products, product) {
			names = append(names, g.plans[i].Name)
		}
	}
	return names
}

// PlanProducts are the products that a plan sells. What the catalog does not have is
// left out, as nobody can buy it, and what is not public, if something else is. Where
// nothing is left of them by an old copy, that is read anew, and they are all told.
func (g *Gateway) PlanProducts(plan string) ([]string, error) {
	i := slices.IndexFunc(g.plans, func(p entitlement.Plan) bool { return p.Name == plan })
	if i < 0 {
		return nil, ErrUnknownPlan
	}
	products := g.plans[i].Products
	offers := g.Shelf()
	sold := func(fits func(*Offer) bool) (list []string) {
		for _, id := range products {
			if slices.ContainsFunc(offers, func(o Offer) bool { return o.ID == id && fits(&o) }) {
				list = append(list, id)
			}
		}
		return list
	}
	public, all := sold((*Offer).Public), sold(func(*Offer) bool { return true })
	switch {
	case len(public) > 0:
		return public, nil
	case len(all) > 0:
		return all, nil
	case len(products) == 0 || offers != nil && g.isFresh():
		return nil, fmt.Errorf("plan %s: %w", plan, ErrUnknownProduct)
	}
	return products, nil
}

// isFresh says whether the copy is young enough to be believed.
func (g *Gateway) isFresh() bool {
	g.catalog.mu.Lock()
	defer g.catalog.mu.Unlock()
	return within(g.catalog.read, g.local(), shelfLife)
}

// oneTime counts the products that are no subscriptions. What the catalog does
// not know is taken for one.
func (g *Gateway) oneTime(ctx context.Context, products []string) int {
	if _, err := g.Products(ctx); err != nil {
		return 0
	}
	return g.knownOneTime(products)
}

// knownOneTime is the same from the copy that is there.
func (g *Gateway) knownOneTime(products []string) (n int) {
	g.catalog.mu.Lock()
	offers := g.catalog.offers
	g.catalog.mu.Unlock()
	for _, id := range products {
		if slices.ContainsFunc(offers, func(o Offer) bool { return o.ID == id && !o.IsRecurring }) {
			n++
		}
	}
	return n
}

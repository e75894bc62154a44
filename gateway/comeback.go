package gateway

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/singleflight"

	"github.com/caddy-polar/caddy-polar/cache"
	"github.com/caddy-polar/caddy-polar/entitlement"
	"github.com/caddy-polar/caddy-polar/polar"
)

// ErrState says that a state was not made here, or too long ago.
var ErrState = errors.New("the state is forged or has expired")

// stateLife is how long a buyer may take. Polar's checkouts live as long.
const stateLife = 24 * time.Hour

// Return is what the gateway tells itself across a checkout: who bought, and
// where they want to go.
type Return struct {
	User     string   `json:"u"`
	To       string   `json:"r"`
	Products []string `json:"p,omitempty"` // what was for sale
	// Shared says that whoever pays is several people: none of them is the one to
	// have the buyer's seat.
	Shared bool      `json:"s,omitempty"`
	Ends   time.Time `json:"x"`
}

// sealState makes a Return into something that only this gateway can read or
// make: user ids can be e-mail addresses, and Polar's pages and access logs
// see it.
func sealState(keys *cache.Keys, r Return, now time.Time) (string, error) {
	r.Ends = now.Add(stateLife).UTC().Truncate(time.Second)
	text, err := json.Marshal(r)
	if err != nil {
		return "", err
	}
	box, err := stateBox(keys)
	if err != nil {
		return "", err
	}
	return base64.RawURLEncoding.EncodeToString(box.Seal(nil, nil, text, nil)), nil
}

// ReadState opens a state.
func (g *Gateway) ReadState(state string) (Return, error) {
	keys, err := g.claim()
	if err != nil {
		return Return{}, err
	}
	box, err := stateBox(keys)
	if err != nil {
		return Return{}, err
	}
	sealed, err := base64.RawURLEncoding.DecodeString(state)
	if err != nil {
		return Return{}, ErrState
	}
	text, err := box.Open(nil, nil, sealed, nil)
	if err != nil {
		return Return{}, ErrState
	}
	var r Return
	if json.Unmarshal(text, &r) != nil || !cache.ValidUser(r.User) || !g.Now().Before(r.Ends) {
		return Return{}, ErrState
	}
	return r, nil
}

func stateBox(keys *cache.Keys) (cipher.AEAD, error) {
	mac := hmac.New(sha256.New, keys.Random)
	mac.Write([]byte("caddy-polar state"))
	block, err := aes.NewCipher(mac.Sum(nil))
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// Arrival is what has become of a purchase when its buyer comes back.
type Arrival int

// The arrivals.
const (
	// ArrivedNothing: there is nothing to wait for.
	ArrivedNothing Arrival = iota
	// ArrivedPending: paid, or about to be, and not open yet.
	ArrivedPending
	// ArrivedOpen: what was bought is open.
	ArrivedOpen
)

const (
	// arrivalWait is how long a buyer is kept waiting. Polar may take longer to
	// be asked: what is learned then counts when the page asks again.
	arrivalWait = 2 * time.Second
	arrivalTime = 10 * time.Second
	// arrivalPause is the time between the first two questions. It doubles.
	arrivalPause = 150 * time.Millisecond
	// arrivalsPerMinute bounds what reloading the page costs.
	arrivalsPerMinute = 30
)

// arrivals keeps buyers who come back.
type arrivals struct {
	flight singleflight.Group
	pace   pace
}

// Arrive asks Polar what has become of a buyer's checkout, so that what was
// paid is open even though no webhook has come. It takes two seconds at most.
func (g *Gateway) Arrive(ctx context.Context, r Return, checkout string) Arrival {
	if _, err := g.ask(); err != nil || !isUUID(checkout) {
		return ArrivedNothing
	}
	for _, product := range r.Products {
		if open, err := g.opens(r.User, product); err != nil || !open {
			continue
		}
		if a, err := g.Account(r.User); err == nil && (r.Shared || !g.owesSeat(a, product)) {
			return ArrivedOpen // the webhook was faster
		}
	}
	if g.returns.pace.take(r.User, g.local()) != nil {
		return ArrivedPending
	}
	asked := g.returns.flight.DoChan(checkout+"\x00"+r.User, func() (any, error) {
		ctx, cancel := context.WithTimeout(g.life, arrivalTime)
		defer cancel()
		return g.awaitPurchase(ctx, &purchase{user: r.User, checkout: checkout, shared: r.Shared}), nil
	})
	patience := time.NewTimer(arrivalWait)
	defer patience.Stop()
	select {
	case a := <-asked:
		return a.Val.(Arrival)
	case <-patience.C:
		return ArrivedPending
	case <-ctx.Done():
		return ArrivedPending
	}
}

// isUUID keeps what a client made up out of the paths of Polar's API.
func isUUID(id string) bool {
	return len(id) == 36 && strings.Trim(id, "0123456789abcdef-") == "" && strings.Count(id, "-") == 4 &&
		id[8] == '-' && id[13] == '-' && id[18] == '-' && id[23] == '-'
}

// purchase is what is known of a purchase while its buyer waits.
type purchase struct {
	user, checkout string
	shared         bool
	paid           *polar.CheckoutSession // nil until Polar says so
	orders         bool                   // they were read
	teams          []boughtTeam
	subscriptions  []string
}

// boughtTeam is what has seats.
type boughtTeam struct {
	of     polar.SeatFilter
	seated bool // the buyer has a seat, or is to have none
}

func (p *purchase) addTeam(of polar.SeatFilter) {
	if !slices.ContainsFunc(p.teams, func(t boughtTeam) bool { return t.of == of }) {
		p.teams = append(p.teams, boughtTeam{of: of})
	}
}

// awaitPurchase asks until the purchase is in force, or time is up. Polar reads
// from a replica, which can be behind. What is known is not asked again.
func (g *Gateway) awaitPurchase(ctx context.Context, p *purchase) Arrival {
	for pause := arrivalPause; ; pause *= 2 {
		a, err := g.readPurchase(ctx, p)
		switch {
		case ctx.Err() != nil:
			return ArrivedPending
		case err != nil:
			g.logger.Warn("a buyer came back and Polar cannot be asked: the webhook will tell", zap.Error(err))
			return ArrivedPending
		case a != ArrivedPending:
			return a
		}
		if g.sleep(ctx, pause) != nil {
			return ArrivedPending
		}
	}
}

func (g *Gateway) readPurchase(ctx context.Context, p *purchase) (Arrival, error) {
	if p.paid == nil {
		if a, err := g.readCheckout(ctx, p); p.paid == nil || err != nil {
			return a, err
		}
	}
	if !p.orders {
		if err := g.readOrders(ctx, p); err != nil {
			return ArrivedPending, err
		}
	}
	over := p.orders
	for _, id := range p.subscriptions {
		s, err := g.client.GetSubscription(ctx, id)
		if errors.Is(err, polar.ErrNotFound) {
			return ArrivedPending, nil // the replica
		}
		if err != nil {
			return ArrivedPending, err
		}
		if err := g.learn(ctx, s.AsOf, func(r *reader) error { return r.subscription(s.Item) }); err != nil {
			return ArrivedPending, err
		}
		if s.Item.Seats != nil {
			p.addTeam(polar.SeatFilter{SubscriptionID: id})
		}
		over = over && entitlement.Status(s.Item.Status).Ended()
	}
	if seated, err := g.seatBuyer(ctx, p); err != nil || !seated {
		return ArrivedPending, err
	}
	open, err := g.opens(p.user, p.paid.ProductID)
	switch {
	case err != nil:
		return ArrivedPending, err
	case open:
		return ArrivedOpen, nil
	case len(p.teams) > 0 || over: // seats open by being claimed; it was over before
		return ArrivedNothing, nil
	}
	return ArrivedPending, nil
}

// readCheckout asks whether the checkout was paid. One that we opened ourselves
// is there, and Polar sends back only who has paid: whatever else a replica
// says is old.
func (g *Gateway) readCheckout(ctx context.Context, p *purchase) (Arrival, error) {
	held, err := g.store.Checkout(p.checkout)
	if err != nil {
		return ArrivedPending, err
	}
	unsure := ArrivedNothing
	if held.User == p.user {
		unsure = ArrivedPending
	}
	a, err := g.client.GetCheckout(ctx, p.checkout)
	if errors.Is(err, polar.ErrNotFound) {
		return unsure, nil
	}
	if err != nil {
		return ArrivedPending, err
	}
	c := &a.Item
	if whose, err := g.checkoutUser(&held, c); err != nil || whose != p.user {
		return ArrivedNothing, err
	}
	switch c.Status {
	case "succeeded":
	case "confirmed":
		return ArrivedPending, nil // the payment is on its way
	case "open":
		return unsure, nil
	default:
		return ArrivedNothing, nil
	}
	if g.plansOf(c.ProductID) == nil {
		return ArrivedNothing, nil
	}
	p.paid = c
	if c.SubscriptionID != "" {
		p.subscriptions = append(p.subscriptions, c.SubscriptionID)
	}
	return ArrivedPending, nil
}

// checkoutUser is whose a checkout is: as remembered, else as it proves.
func (g *Gateway) checkoutUser(held *cache.Checkout, c *polar.CheckoutSession) (string, error) {
	keys, err := g.claim()
	if err != nil {
		return "", err
	}
	return entitlement.Owner(held.User, markedUser(keys.Marks, c.Metadata[MarkField]), c.ExternalCustomerID, ""), nil
}

// readOrders reads what a checkout has sold.
func (g *Gateway) readOrders(ctx context.Context, p *purchase) error {
	orders, err := g.client.ListOrders(ctx, polar.OrderFilter{CheckoutID: p.checkout}, polar.Paging{})
	if errors.Is(err, polar.ErrScope) {
		// The customer's subscriptions tell of those; one-time purchases are
		// left to the webhook.
		_, err = g.readPurchases(ctx, p.paid.CustomerID)
		return err
	}
	if err != nil {
		return err
	}
	for i := range orders.Items {
		o := &orders.Items[i]
		p.orders = true
		if o.Seats != nil && o.SubscriptionID == "" {
			p.addTeam(polar.SeatFilter{OrderID: o.ID})
		}
		if o.SubscriptionID != "" && !slices.Contains(p.subscriptions, o.SubscriptionID) {
			p.subscriptions = append(p.subscriptions, o.SubscriptionID)
		}
	}
	return g.learn(ctx, orders.AsOf, each(orders.Items, (*reader).order)...)
}

// opens says whether all plans that sell the product are open for the user: one
// alone may have been open before.
func (g *Gateway) opens(user, product string) (bool, error) {
	account, err := g.Account(user)
	if err != nil {
		return false, err
	}
	rules, now, sold := g.Rules(), g.Now(), false
	for i := range rules.Plans {
		if !slices.Contains(rules.Plans[i].Products, product) {
			continue
		}
		if sold = account.Opens(i, rules, now); !sold {
			break
		}
	}
	return sold, nil
}

package gateway

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"go.uber.org/zap"

	"github.com/caddy-polar/caddy-polar/cache"
	"github.com/caddy-polar/caddy-polar/entitlement"
	"github.com/caddy-polar/caddy-polar/polar"
)

// What an operator does by hand.

var (
	// ErrNoPass says that a user has no such pass.
	ErrNoPass = errors.New("this user has no such pass")
	// ErrNotCustomer says that Polar has no such customer.
	ErrNotCustomer = errors.New("customer: Polar has no customer of this id, or has deleted it")
)

// InputError says what cannot be taken of what an operator gave.
type InputError string

// Error implements error.
func (e InputError) Error() string { return string(e) }

func badInput(format string, args ...any) error { return InputError(fmt.Sprintf(format, args...)) }

func checkUser(user string) error {
	if !cache.ValidUser(user) {
		return badInput("user: %v", cache.ErrUser)
	}
	return nil
}

// maxReason is the longest reason of a pass, in bytes.
const maxReason = 200

// GivePass opens a plan for a user, outside Polar. A zero until is without end.
func (g *Gateway) GivePass(ctx context.Context, user, plan string, until time.Time, reason string) (entitlement.Pass, error) {
	switch err := checkUser(user); {
	case err != nil:
		return entitlement.Pass{}, err
	case !slices.ContainsFunc(g.plans, func(p entitlement.Plan) bool { return p.Name == plan }):
		return entitlement.Pass{}, badInput("plan: %q is none of %s", plan, strings.Join(g.Rules().AllNames(), ", "))
	case !until.IsZero() && !until.After(g.Now()):
		return entitlement.Pass{}, badInput("until: %s is over", until.UTC().Format(time.RFC3339))
	case until.Year() > 9000:
		return entitlement.Pass{}, badInput("until: leave it out for a pass without end")
	case len(reason) > maxReason || !utf8.ValidString(reason) || strings.ContainsFunc(reason, unicode.IsControl):
		return entitlement.Pass{}, badInput("reason: at most %d bytes in one line", maxReason)
	}
	p := entitlement.Pass{ID: "pass_" + strings.ToLower(rand.Text()), User: user, Plan: plan, Until: moment(until), Reason: reason}
	if err := g.apply(ctx, &cache.Facts{Passes: []entitlement.Pass{p}}); err != nil {
		return entitlement.Pass{}, err
	}
	g.logger.Info("pass given", zap.String("user_hash", g.HashUser(user)), zap.String("plan", plan), zap.String("pass", p.ID))
	return p, nil
}

// RevokePass takes a pass back.
func (g *Gateway) RevokePass(ctx context.Context, user, id string) error {
	if err := checkUser(user); err != nil {
		return err
	}
	account, err := g.Account(user)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(account.Passes, func(p entitlement.Pass) bool { return p.ID == id })
	if i < 0 {
		return ErrNoPass
	}
	if err := g.apply(ctx, &cache.Facts{RemovePasses: account.Passes[i : i+1 : i+1]}); err != nil {
		return err
	}
	g.logger.Info("pass taken back", zap.String("user_hash", g.HashUser(user)), zap.String("pass", id))
	return nil
}

func (g *Gateway) apply(ctx context.Context, facts *cache.Facts) error {
	if _, err := g.claim(); err != nil {
		return err
	}
	_, err := g.store.Apply(ctx, facts)
	return err
}

// ExternalID is what a link makes of a customer's external_id at Polar.
type ExternalID string

// What can become of it. Polar never changes one that is set.
const (
	ExternalNotAsked ExternalID = "not_asked" // Polar was left alone
	ExternalPresent  ExternalID = "present"   // it is the user's already
	ExternalWritten  ExternalID = "written"   // it was null
	ExternalOther    ExternalID = "other"     // it is another user's: the link counts here alone
	ExternalTaken    ExternalID = "taken"     // another customer has the user's: likewise
)

// LinkOptions say how far a link goes.
type LinkOptions struct {
	NoPolar bool // Polar is neither asked nor told
	DryRun  bool // nothing is changed, here or there
}

// Link says that a Polar customer, or a member of one, is a user. What the
// customer has bought, and what seats the member has, is the user's from then on,
// whatever Polar says. Polar is told of customers only: a member's external_id is
// for the app to set.
func (g *Gateway) Link(ctx context.Context, user, customer string, o LinkOptions) (ExternalID, error) {
	if err := checkUser(user); err != nil {
		return "", err
	}
	if checkIDs("", customer) != nil {
		return "", badInput("customer: it must be Polar's id of the customer")
	}
	if _, err := g.claim(); err != nil {
		return "", err
	}
	member, err := g.store.HoldsMember(customer)
	if err != nil {
		return "", err
	}
	became := ExternalNotAsked
	if g.client != nil && !o.NoPolar && !member {
		if became, err = g.linkAtPolar(ctx, user, customer, o.DryRun); err != nil {
			return "", err
		}
	}
	if o.DryRun {
		return became, nil
	}
	if err := g.apply(ctx, &cache.Facts{Links: []cache.Link{{Customer: customer, User: user}}}); err != nil {
		return "", err
	}
	g.logger.Info("customer linked", zap.String("user_hash", g.HashUser(user)), zap.String("customer", customer),
		zap.String("external_id", string(became)))
	if became == ExternalNotAsked {
		return became, nil
	}
	return became, g.readCustomer(ctx, customer)
}

// linkAtPolar gives a customer its user's id where it has none.
func (g *Gateway) linkAtPolar(ctx context.Context, user, customer string, dry bool) (ExternalID, error) {
	client := g.background()
	a, err := client.GetCustomer(ctx, customer)
	switch {
	case errors.Is(err, polar.ErrNotFound), errors.Is(err, polar.ErrInvalid), err == nil && a.Item.DeletedAt != nil:
		return "", ErrNotCustomer
	case err != nil:
		return "", err
	case a.Item.ExternalID == user:
		return ExternalPresent, nil
	case a.Item.ExternalID != "":
		return ExternalOther, nil
	}
	// No two customers can have one external_id, and a person can be two.
	switch _, err := client.GetCustomerByExternalID(ctx, user); {
	case err == nil:
		return ExternalTaken, nil
	case !errors.Is(err, polar.ErrNotFound):
		return "", err
	case dry:
		return ExternalWritten, nil
	}
	if a, err = client.UpdateCustomer(ctx, customer, polar.CustomerUpdate{ExternalID: user}); err != nil {
		return "", err
	}
	return ExternalWritten, g.learnCustomer(ctx, a)
}

// readCustomer reads what a customer has bought, so that a link opens at once.
func (g *Gateway) readCustomer(ctx context.Context, customer string) error {
	if err := g.readSubscriptions(ctx, polar.SubscriptionFilter{CustomerID: customer}); err != nil {
		return err
	}
	if err := g.readOneTime(ctx, polar.OrderFilter{CustomerID: customer, BillingType: "one_time"}); err != nil {
		return err
	}
	if !g.usesBenefits() {
		return nil
	}
	return g.readGrants(ctx, polar.BenefitGrantFilter{CustomerID: customer})
}

// Forget removes all that is held about a user. It says how many records that
// were.
func (g *Gateway) Forget(ctx context.Context, user string) (removed int, err error) {
	if err := checkUser(user); err != nil {
		return 0, err
	}
	if _, err := g.claim(); err != nil {
		return 0, err
	}
	if removed, err = g.store.Forget(ctx, user); err != nil {
		return 0, err
	}
	if err := g.forgetNotifications(ctx, user); err != nil {
		return 0, err
	}
	g.refusals.forget(user)
	g.contested.clear(user)
	g.logger.Info("user forgotten", zap.String("user_hash", g.HashUser(user)), zap.Int("records", removed))
	return removed, nil
}

// Holding is all that is held about a user.
type Holding struct {
	*entitlement.Account
	Links []string // customers that the operator has linked
	// History is what has changed of it lately, the latest first.
	History []cache.Entry
}

// Show is all that is held about a user.
func (g *Gateway) Show(user string) (Holding, error) {
	if err := checkUser(user); err != nil {
		return Holding{}, err
	}
	account, err := g.Account(user)
	if err != nil {
		return Holding{}, err
	}
	return g.holding(account)
}

func (g *Gateway) holding(account *entitlement.Account) (Holding, error) {
	links, err := g.store.Links(account.User)
	if err != nil {
		return Holding{}, err
	}
	told, err := g.store.Told(heldObjects(account), historyOfObject)
	return Holding{Account: account, Links: links, History: g.history(told)}, err
}

// SyncNow is Sync for somebody who waits, one for all who ask meanwhile. It goes
// on without them, and ends with the gateway.
func (g *Gateway) SyncNow(ctx context.Context) (SyncReport, error) {
	done := g.sync.shared.DoChan("", func() (any, error) { return g.Sync(g.life) })
	select {
	case r := <-done:
		return r.Val.(SyncReport), r.Err
	case <-ctx.Done():
		return SyncReport{}, context.Cause(ctx)
	}
}

// AskAbout is LookUp for an operator.
func (g *Gateway) AskAbout(ctx context.Context, user string) error {
	if err := checkUser(user); err != nil {
		return err
	}
	if _, err := g.ask(); err != nil {
		return err
	}
	return g.LookUp(ctx, user)
}

// UserFilter says which users are meant.
type UserFilter struct {
	Plan   string // who has or had something of it
	Status string // as a decision tells it
	After  string // only those with a later id
	Limit  int
}

// UserLine is a user with what they have.
type UserLine struct {
	User     string
	Decision entitlement.Decision
	Open     []string // plans
}

// openPlans are the plans that are open for somebody, never nil.
func openPlans(a *entitlement.Account, rules *entitlement.Rules, now time.Time) []string {
	open := []string{}
	for i := range rules.Plans {
		if a.Opens(i, rules, now) {
			open = append(open, rules.Plans[i].Name)
		}
	}
	return open
}

// errEnough ends a walk.
var errEnough = errors.New("enough")

// Users lists users with what they have, by id. more says that there are more.
func (g *Gateway) Users(ctx context.Context, f UserFilter) (list []UserLine, more bool, err error) {
	rules, now := g.Rules(), g.Now()
	var plans []string
	if f.Plan != "" {
		plans = append(plans, f.Plan)
	}
	q, err := rules.Require(plans...)
	if err != nil {
		return nil, false, err
	}
	if _, err := g.claim(); err != nil {
		return nil, false, err
	}
	err = g.store.EachUser(ctx, f.After, func(user string) error {
		account, err := g.store.Account(user)
		if err != nil {
			return err
		}
		line := UserLine{User: user, Decision: entitlement.Decide(account, q, rules, now)}
		d := &line.Decision
		if !account.Known() || f.Status != "" && d.Status != f.Status || f.Plan != "" &&
			(d.Reason == entitlement.ReasonNoSubscription || d.Reason == entitlement.ReasonPlanRequired) {
			return nil
		}
		if len(list) == f.Limit {
			more = true
			return errEnough
		}
		line.Open = openPlans(account, rules, now)
		list = append(list, line)
		return nil
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	return list, more, err
}

// Package gateway is what the product does, without Caddy: it takes Polar's
// webhooks, decides for users, sells to them, and acts at Polar for them.
package gateway

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-polar/caddy-polar/cache"
	"github.com/caddy-polar/caddy-polar/entitlement"
	"github.com/caddy-polar/caddy-polar/polar"
)

// ErrNotConfigured says that the gateway lacks what the call needs.
var ErrNotConfigured = errors.New("not configured: set it in the polar block")

// Config is what one gateway is made of. Secrets in it are resolved.
type Config struct {
	Name           string
	Server         string // Polar's base URL
	APIVersion     string // Polar-Version
	Organization   string // empty: learned from the first fact
	AccessToken    string // empty: Polar cannot be asked anything
	WebhookSecrets []string
	Plans          []entitlement.Plan
	Sales          Sales
	Syncing        Syncing
	LinkEmail      bool // a verified e-mail makes a customer a user's
	Store          *cache.Store
	// Memory is how many accounts the store holds in memory. Default:
	// cache.DefaultMemory.
	Memory int
	// Audit is how long it is kept what has changed, and by which webhook or read.
	// Zero: nothing of that is kept.
	Audit  time.Duration
	Logger *zap.Logger
	// Limiter is shared by all gateways with the same access token.
	Limiter *polar.Limiter
	// OnCall is told of each call of Polar's API, OnVersionGone when Polar no
	// longer serves APIVersion. Both may be nil.
	OnCall        func(polar.Call)
	OnVersionGone func()
	// OnSync is told of each whole sync, OnGlance of each look between two.
	// Both may be nil.
	OnSync, OnGlance func(SyncReport)
	// OnNews is told of each subscription that is new or has changed, but for
	// what the first sync reads.
	OnNews func(News)
	// OnSyncFailed is told when a sync has failed, again and again.
	OnSyncFailed func(error)
	// OnProgress is told how many objects the sync under way has read.
	OnProgress func(objects int)
	// OnEndpoint is told when the webhook endpoint's health has changed.
	OnEndpoint func(EndpointHealth)
	// OnDeadPlans is told which plans have only products that Polar does not
	// know, when that has changed.
	OnDeadPlans func(plans []string)
	// Notify posts what changes of subscriptions to the app. Nil: nothing does.
	// OnNotified is told of each try, and whether it has arrived.
	Notify     Sender
	OnNotified func(arrived bool)
	// Now is this machine's clock, time.Now if nil.
	Now func() time.Time
	// Sleep waits between two questions to Polar. Default: a timer.
	Sleep func(context.Context, time.Duration) error
}

// Sales is what the operator lets the checkout do.
type Sales struct {
	// Several lets a customer have several subscriptions. It has to be allowed
	// at Polar too.
	Several bool
	// NoBodyEmail ignores an e-mail in the request.
	NoBodyEmail bool
	// NoBuyerSeat are the plans whose buyers are given no seat of what they buy.
	NoBuyerSeat []string
}

// Gateway is one Polar organization in one environment.
type Gateway struct {
	name   string
	owner  cache.Owner
	store  *cache.Store
	disk   func() cache.Disk // tries the one under it
	memory int               // accounts to be held in it
	audit  time.Duration
	// sender posts what the notifier has to the app, nil if nobody is told.
	sender        Sender
	notifier      *notifier
	onNotified    func(arrived bool)
	warnedProject atomic.Bool  // that stages cannot be written
	part          atomic.Int64 // of the budget, in a shared store
	keyring       *keyring     // of assertions
	plans         []entitlement.Plan
	// plansDigest stands for the plans.
	plansDigest [8]byte
	rules       atomic.Pointer[entitlement.Rules] // replaced when a sync confirms
	verifier    *polar.WebhookVerifier            // nil: no webhook secret
	client      *polar.Client                     // nil: no access token
	limiter     *polar.Limiter                    // of its calls; may be nil
	sales       Sales
	// linkEmail says that a verified e-mail makes a customer a user's.
	linkEmail bool
	contested contests

	logger *zap.Logger
	local  func() time.Time
	sleep  func(context.Context, time.Duration) error
	// life ends with the gateway, and with it what goes on although nobody
	// waits for it.
	life context.Context
	end  context.CancelFunc
	// followed takes the place of Polar's clock as told by its answers.
	followed atomic.Pointer[func() time.Time]

	starts     pace     // of checkouts and portal sessions
	looks      pace     // at seats
	catalog    shelf    // what is sold
	returns    arrivals // of buyers
	lookUps    lookUps  // of users
	clockAsked pace     // Polar's, for webhooks

	unconfirmed tellings  // of answers
	refusals    *refusals // shared with the configurations before
	breaker     breaker   // of work that nobody waits for
	heard       heard     // from Polar
	census      census    // of users

	syncing          Syncing
	sync             syncer
	onSync, onGlance func(SyncReport)
	onEndpoint       func(EndpointHealth)
	onProgress       func(int)
	onSyncFailed     func(error)
	onNews           func(News)
	news             chan cache.SubscriptionChange
	onDeadPlans      func([]string)
	secrets          []string // of webhooks
	endpoint         struct {
		mu   sync.Mutex
		last EndpointHealth
	}
	setup   endpointSetup      // of the webhook endpoint at Polar
	stop    context.CancelFunc // ends the work in the background
	working sync.WaitGroup

	tokenKind    TokenKind
	warnedSkew   atomic.Bool
	warnedScopes sync.Map

	keys atomic.Pointer[cache.Keys] // nil until the store is claimed
}

// New makes a gateway. It opens nothing: the store is claimed by Start, or by
// whatever needs it first.
func New(c Config) (*Gateway, error) {
	g := &Gateway{
		name: c.Name,
		owner: cache.Owner{
			Gateway: c.Name, Server: c.Server, Organization: c.Organization,
			MarkKey: markKey(c.Name, c.AccessToken),
		},
		store:        c.Store,
		disk:         c.Store.Disk,
		memory:       cmp.Or(c.Memory, cache.DefaultMemory),
		audit:        c.Audit,
		onNotified:   c.OnNotified,
		plans:        c.Plans,
		plansDigest:  digestPlans(c.Plans),
		sales:        c.Sales,
		linkEmail:    c.LinkEmail,
		syncing:      c.Syncing,
		onSync:       c.OnSync,
		onGlance:     c.OnGlance,
		onEndpoint:   c.OnEndpoint,
		onProgress:   c.OnProgress,
		onSyncFailed: c.OnSyncFailed,
		onNews:       c.OnNews,
		news:         make(chan cache.SubscriptionChange, maxNews),
		onDeadPlans:  c.OnDeadPlans,
		secrets:      c.WebhookSecrets,
		tokenKind:    kindOfToken(c.AccessToken),
		sync:         syncer{running: make(chan struct{}, 1), wanted: make(chan struct{}, 1)},
		lookUps:      lookUps{strangers: pace{most: strangersPerMinute, span: time.Minute}, places: make(chan struct{}, lookUpsAtOnce)},
		logger:       c.Logger,
		local:        c.Now,
		starts:       pace{most: startsPerMinute, span: time.Minute},
		looks:        pace{most: looksPerMinute, span: time.Minute},
		clockAsked:   pace{most: 1, span: time.Minute},
		returns:      arrivals{pace: pace{most: arrivalsPerMinute, span: time.Minute}},
	}
	g.refusals = g.rememberedRefusals()
	g.life, g.end = context.WithCancel(context.Background())
	g.rules.Store(&entitlement.Rules{Plans: c.Plans, CanConfirm: c.AccessToken != ""})
	if g.sleep = c.Sleep; g.sleep == nil {
		g.sleep = sleep
	}
	if g.local == nil {
		g.local = time.Now
	}
	g.syncing.Every = cmp.Or(g.syncing.Every, DefaultSyncEvery)
	g.syncing.Budget = cmp.Or(g.syncing.Budget, DefaultSyncBudget)
	if g.logger == nil {
		g.logger = zap.NewNop()
	}
	g.sender, g.notifier = c.Notify, g.sharedNotifier()
	g.keyring = g.sharedKeyring()
	if len(c.WebhookSecrets) > 0 {
		v, err := polar.NewWebhookVerifier(c.WebhookSecrets...)
		if err != nil {
			return nil, fmt.Errorf("webhook_secret: %w", err)
		}
		g.verifier = v
	}
	if err := g.connect(&c); err != nil {
		return nil, err
	}
	return g, nil
}

// Close ends what is under way and lets go of connections to Polar.
func (g *Gateway) Close() {
	g.end()
	g.working.Wait()
	g.census.wait()
	if g.client != nil {
		g.client.Close()
	}
}

// Start claims the store, so that a server that cannot use it fails loudly,
// and begins to keep it in sync. For a database that does not answer it waits: visitors
// are told that nothing can be told, and webhooks to come again.
func (g *Gateway) Start() error {
	ctx, stop := context.WithCancel(g.life)
	g.stop = stop
	_, err := g.claim()
	switch {
	case errors.Is(err, cache.ErrUnreachable):
		g.logger.Error("the store's database does not answer: nobody can be told from a stranger until it does", zap.Error(err))
		g.working.Go(func() {
			for ; err != nil; _, err = g.claim() {
				if g.sleep(ctx, claimAgain) != nil {
					return
				}
			}
			g.logger.Info("the store's database answers")
			if err := g.begin(ctx); err != nil {
				g.logger.Error("what the store remembers of syncs cannot be read: reload the configuration", zap.Error(err))
			}
		})
		return nil
	case err != nil:
		return err
	}
	return g.begin(ctx)
}

// claimAgain is how often it is tried to claim a store whose database does not answer.
const claimAgain = 2 * time.Second

// begin begins what is done in the background with a store that is claimed.
func (g *Gateway) begin(ctx context.Context) error {
	g.store.SetMemory(g.memory) // the store outlives configurations
	g.working.Go(func() { g.forgetEmails(ctx) })
	if g.onNews != nil {
		g.working.Go(func() { g.tellNews(ctx) })
	}
	if g.sender != nil {
		g.working.Go(func() { g.leading(ctx, g.notify) })
	}
	if g.store.Shared() {
		g.working.Go(func() { g.leading(ctx, g.project) })
		g.working.Go(func() { g.hearOthers(ctx) })
	}
	if g.client == nil || g.syncing.Off {
		return nil
	}
	if err := g.recallSync(); err != nil {
		return fmt.Errorf("gateway %s: %w", g.name, err)
	}
	g.working.Go(func() { g.leading(ctx, g.keepInSync) })
	return nil
}

// Stop ends the work in the background. Requests go on.
func (g *Gateway) Stop() {
	if g.stop != nil {
		g.stop()
		g.working.Wait()
	}
}

func (g *Gateway) claim() (*cache.Keys, error) {
	if k := g.keys.Load(); k != nil {
		return k, nil
	}
	k, err := g.store.Claim(g.owner)
	if err != nil {
		return nil, fmt.Errorf("gateway %s: %w", g.name, err)
	}
	g.keys.Store(&k)
	return &k, nil
}

// Name is the gateway's name.
func (g *Gateway) Name() string { return g.name }

// Local is the time of this machine's clock, by which tokens expire.
func (g *Gateway) Local() time.Time { return g.local() }

// Now is Polar's time, by which periods end.
func (g *Gateway) Now() time.Time { return g.At(g.local()) }

// At is Polar's time at a moment of this machine's clock.
func (g *Gateway) At(local time.Time) time.Time {
	if clock := g.followed.Load(); clock != nil {
		return (*clock)()
	}
	return local.Add(g.offset(local))
}

// Follow makes the gateway go by a clock that can be moved, as that of a Polar
// in a box.
func (g *Gateway) Follow(clock func() time.Time) { g.followed.Store(&clock) }

// Rules are the plans and what decides about them. Do not change them.
func (g *Gateway) Rules() *entitlement.Rules { return g.rules.Load() }

// Account is all that is known about a user; about nobody, that is nothing. An
// error means that the store cannot be read, which says nothing about the user.
func (g *Gateway) Account(user string) (*entitlement.Account, error) {
	if user == "" {
		return new(entitlement.Account), nil
	}
	if _, err := g.claim(); err != nil {
		return nil, err
	}
	return g.store.Account(user)
}

// HashUser stands for a user where an id must not stand: user ids can be
// e-mail addresses. It is the same as long as the store is.
func (g *Gateway) HashUser(user string) string {
	keys, err := g.claim()
	if err != nil {
		return ""
	}
	mac := hmac.New(sha256.New, keys.Random)
	mac.Write([]byte(user))
	return hex.EncodeToString(mac.Sum(nil)[:8])
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

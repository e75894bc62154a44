package gateway

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/caddy-polar/caddy-polar/cache"
)

// Severity is how bad a finding is.
type Severity string

// The severities, the worst first.
const (
	SeverityError   Severity = "error"
	SeverityWarning Severity = "warning"
	// SeverityUnknown: it could not be checked, which says neither good nor bad.
	SeverityUnknown Severity = "unknown"
	SeverityOK      Severity = "ok"
)

// Severities are all of them, the worst first.
var Severities = []Severity{SeverityError, SeverityWarning, SeverityUnknown, SeverityOK}

// Finding is what came of one check. None of it is secret.
type Finding struct {
	ID       string
	Severity Severity
	What     string // was found
	Why      string // it matters
	Do       string // what to do; empty when nothing is
	Details  map[string]string
}

// Diagnosis is all that was found, the worst first.
type Diagnosis struct {
	At       time.Time // by Polar's clock
	Took     time.Duration
	Findings []Finding
}

// What findings are about.
const (
	aboutToken             = "access_token"
	aboutPolar             = "polar"
	aboutEnvironment       = "environment"
	aboutClock             = "clock"
	aboutAPIVersion        = "api_version"
	aboutScopes            = "scopes"
	aboutWriteScopes       = "write_scopes"
	aboutOrganization      = "organization"
	aboutRateLimit         = "rate_limit"
	aboutPlans             = "plans"
	aboutWebhookSecret     = "webhook_secret"
	aboutWebhookEndpoint   = "webhook_endpoint"
	aboutWebhookEnabled    = "webhook_enabled"
	aboutWebhookFormat     = "webhook_format"
	aboutWebhookEvents     = "webhook_events"
	aboutWebhookURL        = "webhook_url"
	aboutWebhookDeliveries = "webhook_deliveries"
	aboutSync              = "sync"
	aboutStore             = "store"
	aboutStoreSize         = "store_size"
	aboutDiskWrite         = "disk_write"
	aboutDiskSpace         = "disk_space"
	aboutNotify            = "notify"
	aboutIdentity          = "identity"
	aboutJWKS              = "jwks"
	aboutSession           = "session"
	aboutSecrets           = "secrets"
	aboutUnavailable       = "on_unavailable"
	aboutSettings          = "settings"
)

// whys are why each check matters.
var whys = map[string]string{
	aboutToken:             "Without a token of the organization nothing can be asked of Polar: no checkout, no sync, no look-up.",
	aboutPolar:             "Checkouts, portal and syncs need Polar. Who is let through is decided from the store meanwhile.",
	aboutEnvironment:       "Production and sandbox share nothing: tokens, products, customers and webhooks of one mean nothing in the other.",
	aboutClock:             "Tokens expire by this machine's clock, and webhooks are held against it, to five minutes, until Polar has told its own.",
	aboutAPIVersion:        "Polar removes a version some months after the next one has come, and answers of others can have another shape.",
	aboutScopes:            "What the token may not read is known from webhooks only, or not at all.",
	aboutWriteScopes:       "Checkouts, the portal, the buyer's customer and seats are written at Polar with these scopes.",
	aboutOrganization:      "Facts of another organization are dropped, so nobody who pays would be let in.",
	aboutRateLimit:         "Past Polar's limit checkouts, portal and syncs wait or fail.",
	aboutPlans:             "Nobody can have a plan of which Polar knows no product and no benefit.",
	aboutWebhookSecret:     "A webhook that is signed with another secret is refused, and Polar disables an endpoint that refuses ten events.",
	aboutWebhookEndpoint:   "Without an endpoint Polar tells nothing: what changes is known at the next sync only.",
	aboutWebhookEnabled:    "To a disabled endpoint Polar sends nothing, and stores nothing to send later.",
	aboutWebhookFormat:     "Other formats than raw are messages for people, which hold no facts.",
	aboutWebhookEvents:     "What is not sent is known at the next sync only.",
	aboutWebhookURL:        "Polar sends to this address, waits ten seconds, and follows no redirect.",
	aboutWebhookDeliveries: "Polar gives up on an event after about half an hour, and disables the endpoint after ten of them.",
	aboutSync:              "Syncs fill the store and mend what webhooks have missed.",
	aboutStore:             "Who may come in is read from the store, and a webhook is taken once it is written there.",
	aboutStoreSize:         "A file that is mostly free pages takes room, and makes backups larger.",
	aboutDiskWrite:         "Each webhook is answered once it is safe on disk.",
	aboutDiskSpace:         "On a full disk no webhook can be taken.",
	aboutNotify:            "The app acts on what it was told last.",
	aboutIdentity:          "Who is not known is let in nowhere.",
	aboutJWKS:              "Without a key that fits, tokens of this issuer are refused.",
	aboutSession:           "Who is signed in at the app is known from its session endpoint.",
	aboutSecrets:           "Who sees the configuration, in Caddy's admin API, its autosave or a repository, sees what stands in it.",
	aboutUnavailable:       "It decides whether people are let in of whom it is not known that they have paid.",
	aboutSettings:          "What is allowed on purpose can be forgotten.",
}

// found makes a finding.
func found(id string, severity Severity, what, do string) Finding {
	return Finding{ID: id, Severity: severity, What: what, Why: whys[id], Do: do, Details: map[string]string{}}
}

func fine(id, what string) Finding { return found(id, SeverityOK, what, "") }

// with adds a detail, unless it is empty.
func (f Finding) with(name, value string) Finding {
	if value != "" {
		f.Details[name] = value
	}
	return f
}

// Surroundings are what the gateway itself does not know of its configuration.
type Surroundings struct {
	Nobody  bool // there is no way to find out who asks
	KeySets []KeySet
	Session *SessionEndpoint // nil: none is asked
	// Literal are the subdirectives whose secrets stand in the configuration itself.
	Literal []string
	// AllowUnavailable: on_unavailable allow, for the gateway.
	AllowUnavailable bool
	// Risks are other settings that can be meant, and forgotten.
	Risks []string
}

// KeySet is what a JWKS URL publishes, and what is held of it.
type KeySet struct {
	Place   string
	Err     error    // why nothing came
	Keys    int      // that can be used
	Fitting int      // of them those that the jwt block lets verify
	Left    []string // which cannot be used, and why
	Held    int      // that are believed meanwhile
	Fetched time.Time
}

// SessionEndpoint is what the app answers without a session.
type SessionEndpoint struct {
	Place string
	Err   error // nil: nobody is signed in
}

// doctorTime bounds an examination, so that its answer comes within a minute.
const doctorTime = 50 * time.Second

// Doctor looks for everything that can be wrong with the setup. It reads from Polar,
// writes nothing there, and sends itself a webhook that says nothing. around tells,
// within the same time, what surrounds the gateway; routes are the paths of its
// webhook routes, WebhookPath if there are none.
func (g *Gateway) Doctor(ctx context.Context, around func(context.Context) Surroundings, routes ...string) Diagnosis {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, doctorTime)
	defer cancel()
	var site Surroundings
	var asked *polarFacts
	var store storeFacts
	var work sync.WaitGroup
	work.Go(func() { site = around(ctx) })
	work.Go(func() { asked = g.askForDoctor(ctx, routes) })
	work.Go(func() { store = g.lookAtStore(ctx) })
	work.Wait()
	all := slices.Concat(
		g.polarFindings(asked), []Finding{g.planFinding(asked)}, g.webhookFindings(asked),
		[]Finding{g.syncFinding()}, store.findings(), g.notifyFindings(), site.findings(),
	)
	slices.SortStableFunc(all, func(a, b Finding) int {
		return cmp.Compare(slices.Index(Severities, a.Severity), slices.Index(Severities, b.Severity))
	})
	return Diagnosis{At: g.Now(), Took: time.Since(began), Findings: all}
}

// storeFacts are how the store is doing.
type storeFacts struct {
	path  string
	err   error
	stats cache.Stats
	disk  cache.Disk
	late  bool // the disk did not answer in time
	// shared says that the store is in a database, whose disk is not ours to look at.
	shared bool
}

// lookAtStore does not wait longer for a disk than for Polar.
func (g *Gateway) lookAtStore(ctx context.Context) storeFacts {
	done := make(chan storeFacts, 1)
	go func() {
		s := storeFacts{path: g.store.Path(), shared: g.store.Shared()}
		if _, s.err = g.claim(); s.err == nil {
			s.stats, s.err = g.store.Stats()
		}
		if !s.shared {
			s.disk = g.disk()
		}
		done <- s
	}()
	select {
	case s := <-done:
		return s
	case <-ctx.Done():
		return storeFacts{path: g.store.Path(), late: true, shared: g.store.Shared()}
	}
}

package caddypolar

import (
	"maps"
	"strings"
	"time"

	"github.com/caddy-polar/caddy-polar/cache"
	"github.com/caddy-polar/caddy-polar/entitlement"
	"github.com/caddy-polar/caddy-polar/gateway"
)

// What the admin API answers.

// moment is a time in JSON: null when there is none.
type moment struct{ time.Time }

// MarshalJSON implements json.Marshaler.
func (m moment) MarshalJSON() ([]byte, error) {
	if m.IsZero() {
		return []byte("null"), nil
	}
	return m.UTC().MarshalJSON()
}

// UnmarshalJSON implements json.Unmarshaler.
func (m *moment) UnmarshalJSON(b []byte) error { return m.Time.UnmarshalJSON(b) }

func at(t time.Time) moment { return moment{t} }

type statusView struct {
	Gateway string     `json:"gateway"`
	Server  string     `json:"server"`
	Now     moment     `json:"now"` // by Polar's clock
	Plans   []planView `json:"plans"`
	// Accounts are how many users there are of each status: one of Polar's, or order,
	// pass, none. Empty before they were counted.
	Accounts map[string]int `json:"accounts"`
	Store    storeView      `json:"store"`
	Sync     syncView       `json:"sync"`
	Polar    polarView      `json:"polar"`
	Webhooks webhookView    `json:"webhooks"`
	Notify   *notifyView    `json:"notify"` // null: the app is not told
}

// notifyView is how telling the app goes.
type notifyView struct {
	To      string `json:"to"` // without path and query
	Waiting int    `json:"waiting"`
	Unread  int    `json:"unread"` // changes that nobody has looked at yet
	GivenUp int    `json:"givenUp"`
	Oldest  moment `json:"oldest"` // change that waits
	Error   string `json:"error"`  // empty: none
}

type resentView struct {
	Messages int `json:"messages"`
}

type planView struct {
	Name     string `json:"name"`
	Products int    `json:"products"`
	Benefits int    `json:"benefits"`
	// Dead: Polar knows none of its products.
	Dead bool `json:"dead"`
}

type storeView struct {
	Path      string         `json:"path"`
	Bytes     int64          `json:"bytes"`
	Objects   map[string]int `json:"objects"`
	CountedAt moment         `json:"countedAt"`
	Accounts  int            `json:"accountsInMemory"`
	Shared    *sharedView    `json:"shared"` // null: by nobody
	Error     string         `json:"error,omitempty"`
}

// sharedView is how a gateway is doing that shares its store with others.
type sharedView struct {
	Leads  bool    `json:"leads"`  // it syncs, and tells the app
	Behind float64 `json:"behind"` // for how many seconds it could not hear what the others write
}

type syncView struct {
	Off      bool          `json:"off"`
	Every    float64       `json:"every"` // seconds, as is took
	Last     *reportView   `json:"last"`
	NextDue  moment        `json:"nextDue"`
	Running  *progressView `json:"running"`
	Failures int           `json:"failures"`
	Error    string        `json:"error,omitempty"`
}

type progressView struct {
	Began moment `json:"began"`
	Step  string `json:"step"`
	At    int    `json:"at"`
	Of    int    `json:"of"`

	Objects int `json:"objects"` // read so far
}

type reportView struct {
	Began   moment  `json:"began"`
	Ended   moment  `json:"ended"`
	Took    float64 `json:"took"`
	Objects int     `json:"objects"`
	Missing int     `json:"missing"`
	Wrong   int     `json:"wrong"`
	Extra   int     `json:"extra"`

	Unreadable int `json:"unreadable"`
}

type polarView struct {
	CanAsk      bool     `json:"canAsk"`
	Reachable   bool     `json:"reachable"`
	VersionGone bool     `json:"apiVersionGone"`
	Ahead       *float64 `json:"clockAhead"` // seconds

	Budget *budgetView `json:"budget"` // null: Polar is not asked, or without a limit
}

// budgetView is how often Polar can be asked.
type budgetView struct {
	PerMinute int     `json:"perMinute"` // of what the gateway does by itself
	Free      int     `json:"free"`      // calls of Most that can go at once
	Most      int     `json:"most"`
	Paused    float64 `json:"paused"` // seconds for which Polar wants to be left alone
}

type webhookView struct {
	Taken    bool              `json:"taken"`
	Last     map[string]moment `json:"last"`
	Endpoint endpointView      `json:"endpoint"`
}

// endpointView is the webhook endpoint at Polar.
type endpointView struct {
	Checked moment   `json:"checked"` // null: not yet, or the token may not ask
	URL     string   `json:"url"`
	Problem string   `json:"problem"` // empty: none
	Lacking []string `json:"lacking"` // event types
	Failed  int      `json:"failed"`  // events of the last hour that have not arrived
}

func viewNotify(s *gateway.NotifyStatus) *notifyView {
	if s == nil {
		return nil
	}
	return &notifyView{s.To, s.Waiting, s.Unread, s.GivenUp, at(s.Oldest), s.Error}
}

func viewShared(s *gateway.Status) *sharedView {
	if !s.Shared {
		return nil
	}
	return &sharedView{s.Leads, s.Behind.Seconds()}
}

func viewStatus(s gateway.Status, now time.Time) statusView {
	v := statusView{
		Gateway: s.Name, Server: s.Server, Now: at(now), Plans: []planView{}, Accounts: map[string]int{},
		Store: storeView{
			Path: s.StorePath, Bytes: s.Store.FileSize, Objects: s.Store.Objects,
			CountedAt: at(s.Store.CountedAt), Accounts: s.Store.Accounts, Shared: viewShared(&s), Error: sentenceOf(s.StoreError),
		},
		Sync: syncView{
			Off: s.Sync.Off, Every: s.Sync.Every.Seconds(), NextDue: at(s.Sync.NextDue),
			Failures: s.Sync.Failures, Error: sentenceOf(s.Sync.Error),
		},
		Polar:    polarView{CanAsk: s.CanAsk, Reachable: s.Reachable, VersionGone: s.VersionGone},
		Webhooks: webhookView{Taken: s.TakesWebhooks, Last: make(map[string]moment), Endpoint: viewEndpoint(&s.Endpoint)},
		Notify:   viewNotify(s.Notify),
	}
	maps.Copy(v.Accounts, s.Accounts)
	for _, p := range s.Plans {
		v.Plans = append(v.Plans, planView(p))
	}
	if v.Store.Objects == nil {
		v.Store.Objects = map[string]int{}
	}
	if !s.Sync.Last.Began.IsZero() {
		v.Sync.Last = new(viewReport(&s.Sync.Last))
	}
	if s.Sync.Step != "" {
		v.Sync.Running = &progressView{at(s.Sync.Began), s.Sync.Step, s.Sync.StepOf[0], s.Sync.StepOf[1], s.Sync.Objects}
	}
	if c := s.Calls; c != nil {
		v.Polar.Budget = &budgetView{s.Budget, c.Free, c.Most, c.Paused.Seconds()}
	}
	if s.OffsetKnown {
		v.Polar.Ahead = new(s.Offset.Seconds())
	}
	for kind, t := range s.Webhooks {
		v.Webhooks.Last[kind] = at(t)
	}
	return v
}

func viewEndpoint(h *gateway.EndpointHealth) endpointView {
	return endpointView{at(h.Checked), h.URL, string(h.Problem), append([]string{}, h.Lacking...), h.Failed}
}

func sentenceOf(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func viewReport(r *gateway.SyncReport) reportView {
	return reportView{at(r.Began), at(r.Ended), r.Took.Seconds(), r.Objects, r.Missing, r.Wrong, r.Extra, r.Unreadable}
}

type decisionView struct {
	Allowed  bool   `json:"allowed"`
	Reason   string `json:"reason"`
	Plan     string `json:"plan"`
	Status   string `json:"status"`
	Until    moment `json:"until"`
	Grace    bool   `json:"grace"`
	HTTP     int    `json:"httpStatus"`
	NextStep string `json:"nextStep"`
}

func viewDecision(d *entitlement.Decision) decisionView {
	return decisionView{
		d.Allowed, string(d.Reason), d.Plan, d.Status, at(d.Until), d.Grace, d.HTTPStatus, string(d.NextStep),
	}
}

type usersView struct {
	Users []userView `json:"users"`
	// Next is the value of after for those that follow, null at the end.
	Next *string `json:"next"`
}

type userView struct {
	User    string   `json:"user"`
	Allowed bool     `json:"allowed"`
	Reason  string   `json:"reason"`
	Plan    string   `json:"plan"`
	Status  string   `json:"status"`
	Until   moment   `json:"until"`
	Plans   []string `json:"plans"` // open now
}

func viewUsers(list []gateway.UserLine, more bool) usersView {
	v := usersView{Users: []userView{}}
	for _, l := range list {
		d := &l.Decision
		v.Users = append(v.Users, userView{
			l.User, d.Allowed, string(d.Reason), d.Plan, d.Status, at(d.Until), append([]string{}, l.Open...),
		})
	}
	if more {
		v.Next = &list[len(list)-1].User
	}
	return v
}

type versionView struct {
	Row  moment `json:"row"`
	AsOf moment `json:"asOf"`
}

func viewVersion(v entitlement.Version) versionView { return versionView{at(v.Row), at(v.AsOf)} }

type holdingView struct {
	User          string             `json:"user"`
	Known         bool               `json:"known"`
	CheckoutAt    moment             `json:"checkoutAt"`
	Customers     []customerView     `json:"customers"`
	Subscriptions []subscriptionFact `json:"subscriptions"`
	Orders        []orderFact        `json:"orders"`
	Grants        []grantFact        `json:"grants"`
	Refunds       []refundFact       `json:"refunds"`
	Seats         []seatFact         `json:"seats"`
	Members       []memberFact       `json:"members"`
	Passes        []passView         `json:"passes"`
	Links         []string           `json:"links"` // customers and members
	History       []entryView        `json:"history"`
}

// entryView is one change of one object.
type entryView struct {
	At      moment       `json:"at"`
	Kind    string       `json:"kind"`
	ID      string       `json:"id"`
	New     bool         `json:"new"`    // it was not held before: there are no changes
	Status  string       `json:"status"` // of a subscription or order, after the change
	Changes []changeView `json:"changes"`
	Told    toldView     `json:"told"`
}

type changeView struct {
	Field  string `json:"field"`
	Before string `json:"before"` // empty: it said nothing, as below
	After  string `json:"after"`
}

// toldView is by which way a state came.
type toldView struct {
	By        string `json:"by"`        // webhook, sync or read; empty: it was not kept
	WebhookID string `json:"webhookId"` // empty unless by is webhook
}

func viewTold(s cache.Source) toldView {
	return toldView{map[cache.SourceKind]string{
		cache.SourceWebhook: "webhook", cache.SourceSync: "sync", cache.SourceRead: "read",
	}[s.Kind], s.ID}
}

func (t toldView) String() string {
	switch t.By {
	case "webhook":
		return "webhook " + t.WebhookID
	case "sync":
		return "a sync"
	case "read":
		return "Polar, asked about it"
	}
	return ""
}

func viewEntry(e *cache.Entry) entryView {
	return entryView{at(e.At), e.Kind, e.ID, e.New, e.Status, mapped(e.Changes, func(c *cache.Change) changeView {
		return changeView{c.Field, c.Before, c.After}
	}), viewTold(e.Source)}
}

type customerView struct {
	ID         string      `json:"id"`
	ExternalID string      `json:"externalId"`
	Own        bool        `json:"own"`
	ByEmail    bool        `json:"byEmail"` // own by a verified e-mail
	Shared     bool        `json:"shared"`
	Foreign    bool        `json:"foreign"`
	DeletedAt  moment      `json:"deletedAt"`
	Version    versionView `json:"version"`
}

type subscriptionFact struct {
	ID                 string      `json:"id"`
	Customer           string      `json:"customer"`
	ProductID          string      `json:"productId"`
	Status             string      `json:"status"`
	MetadataUser       string      `json:"metadataUser"`
	CurrentPeriodStart moment      `json:"currentPeriodStart"`
	CurrentPeriodEnd   moment      `json:"currentPeriodEnd"`
	TrialEnd           moment      `json:"trialEnd"`
	CanceledAt         moment      `json:"canceledAt"`
	EndsAt             moment      `json:"endsAt"`
	EndedAt            moment      `json:"endedAt"`
	PastDueAt          moment      `json:"pastDueAt"`
	PausedAt           moment      `json:"pausedAt"`
	ResumesAt          moment      `json:"resumesAt"`
	CancelAtPeriodEnd  bool        `json:"cancelAtPeriodEnd"`
	PauseAtPeriodEnd   bool        `json:"pauseAtPeriodEnd"`
	Seats              bool        `json:"seats"`
	Foreign            bool        `json:"foreign"` // somebody else's: the user has a seat in it
	Version            versionView `json:"version"`
}

type orderFact struct {
	ID           string      `json:"id"`
	Customer     string      `json:"customer"`
	ProductID    string      `json:"productId"`
	Subscription string      `json:"subscription"`
	Status       string      `json:"status"`
	MetadataUser string      `json:"metadataUser"`
	Seats        bool        `json:"seats"`
	Foreign      bool        `json:"foreign"`
	Version      versionView `json:"version"`
}

type grantFact struct {
	ID           string      `json:"id"`
	Customer     string      `json:"customer"`
	BenefitID    string      `json:"benefitId"`
	Subscription string      `json:"subscription"`
	Order        string      `json:"order"`
	Member       string      `json:"member"`
	ForMember    bool        `json:"forMember"`
	Granted      bool        `json:"granted"`
	Revoked      bool        `json:"revoked"`
	RevokedAt    moment      `json:"revokedAt"`
	Version      versionView `json:"version"`
}

type refundFact struct {
	ID             string      `json:"id"`
	Order          string      `json:"order"`
	Subscription   string      `json:"subscription"`
	Succeeded      bool        `json:"succeeded"`
	RevokeBenefits bool        `json:"revokeBenefits"`
	Disputed       bool        `json:"disputed"`
	DisputeLost    bool        `json:"disputeLost"`
	Version        versionView `json:"version"`
}

type seatFact struct {
	ID           string      `json:"id"`
	Subscription string      `json:"subscription"`
	Order        string      `json:"order"`
	Member       string      `json:"member"`
	Claimed      bool        `json:"claimed"`
	Revoked      bool        `json:"revoked"`
	RevokedAt    moment      `json:"revokedAt"`
	Version      versionView `json:"version"`
}

type memberFact struct {
	ID         string      `json:"id"`
	Customer   string      `json:"customer"`
	ExternalID string      `json:"externalId"`
	Role       string      `json:"role"`
	Deleted    bool        `json:"deleted"`
	Version    versionView `json:"version"`
}

type passView struct {
	ID     string `json:"id"`
	User   string `json:"user"`
	Plan   string `json:"plan"`
	Until  moment `json:"until"`
	Reason string `json:"reason"`
}

func viewPass(p *entitlement.Pass) passView {
	return passView{p.ID, p.User, p.Plan, at(p.Until), p.Reason}
}

// mapped is never null.
func mapped[T, V any](list []T, view func(*T) V) []V {
	out := make([]V, len(list))
	for i := range list {
		out[i] = view(&list[i])
	}
	return out
}

func viewHolding(h gateway.Holding) holdingView {
	return holdingView{
		User: h.User, Known: h.Known(), CheckoutAt: at(h.CheckoutAt), Links: append([]string{}, h.Links...),
		Customers: mapped(h.Customers, func(c *entitlement.HeldCustomer) customerView {
			return customerView{c.ID, c.ExternalID, c.Own, c.ByEmail, c.Shared, h.IsForeign(c.ID), at(c.DeletedAt), viewVersion(c.Version)}
		}),
		Subscriptions: mapped(h.Subscriptions, func(s *entitlement.Subscription) subscriptionFact {
			return subscriptionFact{
				s.ID, s.CustomerID, s.ProductID, string(s.Status), s.MetadataUser,
				at(s.PeriodStart), at(s.PeriodEnd), at(s.TrialEnd), at(s.CanceledAt), at(s.EndsAt), at(s.EndedAt),
				at(s.PastDueAt), at(s.PausedAt), at(s.ResumesAt),
				s.CancelAtPeriodEnd, s.PauseAtPeriodEnd, s.Seats, h.IsForeign(s.ID), viewVersion(s.Version),
			}
		}),
		Orders: mapped(h.Orders, func(o *entitlement.Order) orderFact {
			return orderFact{
				o.ID, o.CustomerID, o.ProductID, o.SubscriptionID, string(o.Status), o.MetadataUser, o.Seats, h.IsForeign(o.ID), viewVersion(o.Version),
			}
		}),
		Grants: mapped(h.Grants, func(g *entitlement.Grant) grantFact {
			return grantFact{
				g.ID, g.CustomerID, g.BenefitID, g.SubscriptionID, g.OrderID, g.MemberID, g.ForMember, g.Granted, g.Revoked,
				at(g.RevokedAt), viewVersion(g.Version),
			}
		}),
		Refunds: mapped(h.Refunds, func(r *entitlement.Refund) refundFact {
			return refundFact{
				r.ID, r.OrderID, r.SubscriptionID, r.Succeeded, r.RevokeBenefits, r.Disputed, r.DisputeLost, viewVersion(r.Version),
			}
		}),
		Seats: mapped(h.Seats, func(s *entitlement.Seat) seatFact {
			return seatFact{s.ID, s.SubscriptionID, s.OrderID, s.MemberID, s.Claimed, s.Revoked, at(s.RevokedAt), viewVersion(s.Version)}
		}),
		Members: mapped(h.Members, func(m *entitlement.Member) memberFact {
			return memberFact{m.ID, m.CustomerID, m.ExternalID, m.Role, m.Deleted, viewVersion(m.Version)}
		}),
		Passes:  mapped(h.Passes, viewPass),
		History: mapped(h.History, viewEntry),
	}
}

type explanationView struct {
	User      string       `json:"user"`
	Known     bool         `json:"known"`
	At        moment       `json:"at"`
	Decision  decisionView `json:"decision"`
	AsksPolar bool         `json:"asksPolar"`
	// EmailTaken is a customer with the user's e-mail that is another user's.
	EmailTaken string        `json:"emailTaken"`
	Demanded   []string      `json:"demanded"` // plans of which one is needed; none: any
	Plans      []planReasons `json:"plans"`
	Outside    []weighedView `json:"outside"` // of no plan
	Refusal    *refusalView  `json:"refusal"` // of the request that was asked about
}

// refusalView is a request that was refused, as it was then.
type refusalView struct {
	RequestID string        `json:"requestId"`
	At        moment        `json:"at"`
	User      string        `json:"user"` // empty: a stranger
	Payer     string        `json:"payer"`
	Plans     []string      `json:"plans"`
	Code      string        `json:"code"`
	Decision  *decisionView `json:"decision"` // null for a stranger
}

func viewRefusal(r *gateway.Refusal) *refusalView {
	v := &refusalView{RequestID: r.RequestID, At: at(r.At), User: r.User, Payer: r.Payer, Plans: append([]string{}, r.Plans...), Code: r.Code}
	if r.User != "" {
		v.Decision = new(viewDecision(&r.Decision))
	}
	return v
}

type planReasons struct {
	Plan     string        `json:"plan"`
	Decision decisionView  `json:"decision"`
	Next     *nextView     `json:"next"` // what time alone makes of it
	Facts    []weighedView `json:"facts"`
}

type nextView struct {
	At       moment       `json:"at"`
	Decision decisionView `json:"decision"`
}

type weighedView struct {
	Kind     string      `json:"kind"`
	ID       string      `json:"id"`
	Item     string      `json:"item"` // product or benefit
	Parent   string      `json:"parent"`
	Customer string      `json:"customer"`
	Source   string      `json:"source"`
	Status   string      `json:"status"`
	Version  versionView `json:"version"`
	Told     toldView    `json:"told"`
	Decides  bool        `json:"decides"`
	Rule     string      `json:"rule"`
	Course   []stageView `json:"course"`
}

type stageView struct {
	Allowed  bool   `json:"allowed"`
	Reason   string `json:"reason"`
	Until    moment `json:"until"`
	Boundary string `json:"boundary"`
}

func viewExplanation(e *gateway.Explanation) explanationView {
	weighed := func(w *entitlement.Weighed) weighedView {
		v := viewWeighed(w)
		v.Told = viewTold(e.Told[cache.Object{Kind: v.Kind, ID: v.ID}].Source)
		return v
	}
	return explanationView{
		User: e.User, Known: e.Known, At: at(e.At), Decision: viewDecision(&e.Decision), AsksPolar: e.AsksPolar, EmailTaken: e.EmailTaken, Demanded: append([]string{}, e.Demanded...),
		Plans: mapped(e.Plans, func(p *entitlement.PlanExplanation) planReasons {
			v := planReasons{Plan: p.Plan, Decision: viewDecision(&p.Decision), Facts: mapped(p.Facts, weighed)}
			if p.Next != nil {
				v.Next = &nextView{at(p.Next.At), viewDecision(&p.Next.Decision)}
			}
			return v
		}),
		Outside: mapped(e.Outside, func(w *entitlement.Weighed) weighedView {
			v := weighed(w)
			v.Rule = "belongs to no plan"
			return v
		}),
	}
}

func viewWeighed(w *entitlement.Weighed) weighedView {
	return weighedView{
		string(w.Kind), w.ID, w.Item, w.Parent, w.Customer, string(w.Source), w.Status, viewVersion(w.Version),
		toldView{},
		w.Decides, strings.TrimSpace(w.String()),
		mapped(w.Course, func(s *entitlement.Stage) stageView {
			return stageView{s.Allowed, string(s.Reason), at(s.Until), s.Boundary}
		}),
	}
}

type forgottenView struct {
	User    string `json:"user"`
	Removed int    `json:"removed"` // records
}

type revokedView struct {
	User    string `json:"user"`
	ID      string `json:"id"`
	Revoked bool   `json:"revoked"`
}

type linkView struct {
	User       string `json:"user"`
	Customer   string `json:"customer"`
	ExternalID string `json:"externalId"` // what became of it at Polar
	DryRun     bool   `json:"dryRun"`
}

type setupView struct {
	URL       string   `json:"url"`
	PathAdded bool     `json:"pathAdded"`
	State     string   `json:"state"`
	ID        string   `json:"id"` // of the endpoint
	Wrong     []string `json:"wrong"`
	Lacked    []string `json:"lackedEvents"`
	URLBefore string   `json:"urlBefore"`
	Scopes    []string `json:"lackingScopes"`
	// Secret is told only while the gateway does not have it: it is the
	// operator's own, to be put into the configuration.
	Secret string    `json:"secret,omitempty"`
	Check  checkView `json:"check"`
}

type checkView struct {
	OK      bool   `json:"ok"`
	Problem string `json:"problem"`
	HTTP    int    `json:"httpStatus"` // zero without an answer
	Says    string `json:"says"`
}

func viewSetup(s *gateway.EndpointSetup) setupView {
	return setupView{
		URL: s.URL, PathAdded: s.PathAdded, State: string(s.State), ID: s.ID, Wrong: append([]string{}, s.Wrong...),
		Lacked: append([]string{}, s.Lacked...), URLBefore: s.URLBefore, Scopes: append([]string{}, s.Scopes...),
		Secret: string(s.Secret),
		Check:  checkView{s.Check.Problem == gateway.CheckFine, string(s.Check.Problem), s.Check.Status, s.Check.Says},
	}
}

type diagnosisView struct {
	Gateway  string        `json:"gateway"`
	At       moment        `json:"at"` // by Polar's clock
	Took     float64       `json:"took"`
	Findings []findingView `json:"findings"` // the worst first
}

type findingView struct {
	ID       string            `json:"id"`
	Severity string            `json:"severity"`
	What     string            `json:"what"`
	Why      string            `json:"why"`
	Do       string            `json:"do"` // empty: nothing
	Details  map[string]string `json:"details"`
}

func viewDiagnosis(name string, d *gateway.Diagnosis) diagnosisView {
	return diagnosisView{name, at(d.At), d.Took.Seconds(), mapped(d.Findings, func(f *gateway.Finding) findingView {
		return findingView{f.ID, string(f.Severity), f.What, f.Why, f.Do, f.Details}
	})}
}

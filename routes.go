package caddypolar

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-polar/caddy-polar/entitlement"
	"github.com/caddy-polar/caddy-polar/gateway"
	"github.com/caddy-polar/caddy-polar/polar"
)

const (
	// maxWebhook is the largest webhook body. Polar sets no limit.
	maxWebhook = 16 << 20
	// maxInFlight bounds the memory that unverified bodies can take: once for
	// the beginnings of bodies, which is all there is of nearly every webhook,
	// and once for what is longer. So few long bodies cannot keep short ones
	// out.
	maxInFlight = 64 << 20
	beginning   = 64 << 10
	// bodyTime is how long a webhook body may take. Polar gives up after 10 s.
	bodyTime = 15 * time.Second
)

// route is one of the addresses under the prefix.
type route struct {
	allow string
	serve func(*Gateway, http.ResponseWriter, *http.Request, *visit) error
}

var routes = map[string]route{
	"/webhook":      {"POST, OPTIONS", (*Gateway).serveWebhook},
	"/subscription": {"GET, HEAD, OPTIONS", (*Gateway).serveSubscription},
	"/entitlements": {"GET, HEAD, OPTIONS", (*Gateway).serveEntitlements},
}

func (g *Gateway) serveRoute(w http.ResponseWriter, r *http.Request, v *visit, path string) error {
	h := w.Header()
	h.Set("Cache-Control", noStore)
	h.Set("Referrer-Policy", "no-referrer")
	rt, ok := routes[path]
	switch {
	case !ok:
		return newProblem(http.StatusNotFound, codeNotFound).answer(w, r)
	case r.Method == http.MethodOptions:
		h.Set("Allow", rt.allow)
		w.WriteHeader(http.StatusNoContent)
		return nil
	case !allows(rt.allow, r.Method):
		h.Set("Allow", rt.allow)
		return newProblem(http.StatusMethodNotAllowed, codeWrongMethod).answer(w, r)
	}
	return rt.serve(g, w, r, v)
}

// noStore is the Cache-Control of all that the routes answer.
const noStore = "no-store"

// answer is the problem as a route tells it.
func (p *problem) answer(w http.ResponseWriter, r *http.Request) error {
	p.cache = noStore
	return p.write(w, r)
}

func allows(list, method string) bool {
	for allowed := range strings.SplitSeq(list, ", ") {
		if allowed == method {
			return true
		}
	}
	return false
}

// serveWebhook takes a webhook: headers, then body, then signature, then all
// the rest. It answers 200 once the facts are durable.
func (g *Gateway) serveWebhook(w http.ResponseWriter, r *http.Request, _ *visit) error {
	delivery, err := g.core.ReadDelivery(r.Header)
	if err != nil {
		return g.refuseWebhook(w, r, err)
	}
	body, release, err := g.readWebhook(w, r)
	defer release()
	if err != nil {
		return g.refuseWebhook(w, r, err)
	}
	receipt, err := g.core.TakeWebhook(r.Context(), delivery, body)
	if err != nil {
		return g.refuseWebhook(w, r, err)
	}
	g.metrics.received(receipt)
	return writeJSON(w, http.StatusOK, "application/json", map[string]bool{"received": true})
}

var (
	errBusy = errors.New("too many bytes of webhooks in flight")
	errBody = errors.New("the body could not be read")
)

// readWebhook reads the body, counting its bytes against what may be in flight
// as they come: a claimed length costs nothing.
func (g *Gateway) readWebhook(w http.ResponseWriter, r *http.Request) (body []byte, release func(), err error) {
	var short, long int64 // bytes counted
	release = func() {
		g.short.Add(-short)
		g.long.Add(-long)
	}
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(bodyTime)) // not every connection has one
	var buf bytes.Buffer
	chunk := make([]byte, 8<<10)
	limited := http.MaxBytesReader(w, r.Body, maxWebhook)
	for {
		n, err := limited.Read(chunk)
		counter, counted := &g.short, &short
		if buf.Len() >= beginning {
			counter, counted = &g.long, &long
		}
		*counted += int64(n)
		if counter.Add(int64(n)) > maxInFlight {
			return nil, release, errBusy
		}
		buf.Write(chunk[:n])
		var tooLarge *http.MaxBytesError
		switch {
		case errors.Is(err, io.EOF):
			_ = control.SetReadDeadline(time.Time{}) // for what comes next on the connection
			return buf.Bytes(), release, nil
		case errors.As(err, &tooLarge):
			return nil, release, err
		case err != nil:
			return nil, release, errBody
		}
	}
}

// refuseWebhook says why a delivery was not taken. Polar shows the answer to
// the merchant, so it names what to check and nothing that is secret.
func (g *Gateway) refuseWebhook(w http.ResponseWriter, r *http.Request, err error) error {
	var p *problem
	var tooLarge *http.MaxBytesError
	switch {
	case errors.Is(err, gateway.ErrNotConfigured):
		p = newProblem(http.StatusServiceUnavailable, codeNotConfigured).with("The gateway has no webhook_secret.")
	case errors.Is(err, polar.ErrHeaders), errors.Is(err, polar.ErrTimestamp), errors.Is(err, polar.ErrSignature):
		if g.warnedSignature.now(g.core.Now()) {
			g.logger.Warn("webhook refused: check webhook_secret, and the clock", zap.Error(err))
		}
		p = newProblem(http.StatusBadRequest, codeBadSignature).with(err.Error())
	case errors.As(err, &tooLarge):
		p = newProblem(http.StatusRequestEntityTooLarge, codeBodyTooLarge)
	case errors.Is(err, errBusy):
		if g.warnedBusy.now(g.core.Now()) {
			g.logger.Warn("webhook refused: too many bytes of webhooks are being received at once")
		}
		p = newProblem(http.StatusServiceUnavailable, codeBusy)
	case errors.Is(err, errBody):
		p = newProblem(http.StatusBadRequest, codeBadBody)
	default:
		g.logger.Error("webhook not stored: Polar will send it again", zap.Error(err))
		p = newProblem(http.StatusServiceUnavailable, string(entitlement.ReasonUnavailable)).
			with("The webhook could not be stored. Send it again later.")
	}
	g.metrics.webhook(gateway.UnknownType, p.Code)
	return p.answer(w, r)
}

// user finds out who asks, for the routes that need to know.
func (g *Gateway) user(w http.ResponseWriter, r *http.Request, v *visit) (ok bool, err error) {
	addVary(w.Header(), g.vary)
	if err := v.identify(r); err != nil {
		return false, loginRefusal(err).answer(w, r)
	}
	if v.gather() != nil {
		d := entitlement.Unavailable()
		return false, refusalOf(&d, nil).answer(w, r)
	}
	return true, nil
}

// accessView is a decision as the routes tell it.
type accessView struct {
	Allowed bool    `json:"allowed"`
	Reason  string  `json:"reason"`
	Until   *string `json:"until"`
}

func viewAccess(d *entitlement.Decision) accessView {
	return accessView{d.Allowed, string(d.Reason), viewTime(d.Until)}
}

// viewTime is null for what has not happened or never will.
func viewTime(t time.Time) *string {
	if t.IsZero() {
		return nil
	}
	return new(formatTime(t))
}

func viewString(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

type subscriptionView struct {
	ID                string             `json:"id"`
	Status            string             `json:"status"`
	ProductID         string             `json:"productId"`
	Plan              *string            `json:"plan"`
	CurrentPeriodEnd  *string            `json:"currentPeriodEnd"`
	CancelAtPeriodEnd bool               `json:"cancelAtPeriodEnd"`
	TrialEnd          *string            `json:"trialEnd"`
	EndsAt            *string            `json:"endsAt"`
	PastDueAt         *string            `json:"pastDueAt"`
	PausedAt          *string            `json:"pausedAt"`
	ResumesAt         *string            `json:"resumesAt"`
	PendingUpdate     *pendingUpdateView `json:"pendingUpdate"`
	Access            accessView         `json:"access"`
}

type pendingUpdateView struct {
	ProductID *string `json:"productId"`
	AppliesAt *string `json:"appliesAt"`
}

// serveSubscription tells a user's current subscription.
func (g *Gateway) serveSubscription(w http.ResponseWriter, r *http.Request, v *visit) error {
	if ok, err := g.user(w, r, v); !ok {
		return err
	}
	var answer struct {
		Subscription *subscriptionView `json:"subscription"`
	}
	if s, d, ok := v.account.Current(g.core.Rules(), v.now); ok {
		answer.Subscription = &subscriptionView{
			ID: s.ID, Status: string(s.Status), ProductID: s.ProductID, Plan: viewString(d.Plan),
			CurrentPeriodEnd: viewTime(s.PeriodEnd), CancelAtPeriodEnd: s.CancelAtPeriodEnd,
			TrialEnd: viewTime(s.TrialEnd), EndsAt: viewTime(s.EndsAt), PastDueAt: viewTime(s.PastDueAt),
			PausedAt: viewTime(s.PausedAt), ResumesAt: viewTime(s.ResumesAt), Access: viewAccess(&d),
		}
		if !s.PendingAt.IsZero() {
			answer.Subscription.PendingUpdate = &pendingUpdateView{viewString(s.PendingProductID), viewTime(s.PendingAt)}
		}
	}
	return writeJSON(w, http.StatusOK, "application/json", answer)
}

// serveEntitlements tells what is open for a user, plan by plan.
func (g *Gateway) serveEntitlements(w http.ResponseWriter, r *http.Request, v *visit) error {
	if ok, err := g.user(w, r, v); !ok {
		return err
	}
	rules := g.core.Rules()
	answer := struct {
		User     string                `json:"user"`
		Plans    map[string]accessView `json:"plans"`
		Products []string              `json:"products"`
		Benefits []string              `json:"benefits"`
	}{User: v.identity.User, Plans: make(map[string]accessView), Products: []string{}, Benefits: []string{}}
	for i := range rules.Plans {
		d := entitlement.Decide(v.account, rules.Only(i), rules, v.now)
		answer.Plans[rules.Plans[i].Name] = viewAccess(&d)
	}
	products, benefits := v.account.Open(rules, v.now)
	answer.Products = append(answer.Products, products...)
	answer.Benefits = append(answer.Benefits, benefits...)
	return writeJSON(w, http.StatusOK, "application/json", answer)
}

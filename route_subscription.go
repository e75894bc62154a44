package caddypolar

import (
	"context"
	"net/http"
	"time"

	"github.com/caddy-polar/caddy-polar/entitlement"
	"github.com/caddy-polar/caddy-polar/gateway"
)

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

// serveSubscription tells a user's current subscription, or changes it.
func (g *Gateway) serveSubscription(w http.ResponseWriter, r *http.Request, v *visit) error {
	if r.Method == http.MethodPatch {
		return g.changeSubscription(w, r, v)
	}
	s, d, ok := v.account.Current(g.core.Rules(), v.now)
	return writeSubscription(w, s, &d, ok)
}

func writeSubscription(w http.ResponseWriter, s *entitlement.Subscription, d *entitlement.Decision, ok bool) error {
	var answer struct {
		Subscription *subscriptionView `json:"subscription"`
	}
	if ok {
		answer.Subscription = viewSubscription(s, d)
	}
	return writeJSON(w, http.StatusOK, "application/json", answer)
}

func viewSubscription(s *entitlement.Subscription, d *entitlement.Decision) *subscriptionView {
	view := &subscriptionView{
		ID: s.ID, Status: string(s.Status), ProductID: s.ProductID, Plan: viewString(d.Plan),
		CurrentPeriodEnd: viewTime(s.PeriodEnd), CancelAtPeriodEnd: s.CancelAtPeriodEnd,
		TrialEnd: viewTime(s.TrialEnd), EndsAt: viewTime(s.EndsAt), PastDueAt: viewTime(s.PastDueAt),
		PausedAt: viewTime(s.PausedAt), ResumesAt: viewTime(s.ResumesAt), Access: viewAccess(d),
	}
	if !s.PendingAt.IsZero() {
		view.PendingUpdate = &pendingUpdateView{viewString(s.PendingProductID), viewTime(s.PendingAt)}
	}
	return view
}

// changeSubscription does what the user could do in Polar's portal.
func (g *Gateway) changeSubscription(w http.ResponseWriter, r *http.Request, v *visit) error {
	var body struct {
		ID                string `json:"id"`
		ProductID         string `json:"productId"`
		CancelAtPeriodEnd *bool  `json:"cancelAtPeriodEnd"`
	}
	if p := readBody(w, r, &body); p != nil {
		return p.answer(w, r)
	}
	if (body.ProductID != "") == (body.CancelAtPeriodEnd != nil) {
		return newProblem(http.StatusBadRequest, codeBadBody).
			with("Say what to change: either productId or cancelAtPeriodEnd.").answer(w, r)
	}
	ctx, cancel := context.WithTimeout(r.Context(), providerTime)
	defer cancel()
	account, id, err := g.core.ChangeSubscription(ctx, v.identity.Customer, gateway.Change{
		Subscription: body.ID, ProductID: body.ProductID, Cancel: body.CancelAtPeriodEnd,
	})
	if err != nil {
		return g.providerProblem(r, v, err).answer(w, r)
	}
	s, d, ok := account.CurrentByID(id, g.core.Rules(), g.core.Now())
	return writeSubscription(w, s, &d, ok)
}

// serveEntitlements tells what is open for a user, plan by plan.
func (g *Gateway) serveEntitlements(w http.ResponseWriter, _ *http.Request, v *visit) error {
	return writeJSON(w, http.StatusOK, "application/json",
		viewEntitlements(v.identity.User, v.account, g.core.Rules(), v.now))
}

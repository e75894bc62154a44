package caddypolar

import (
	"context"
	"encoding/json"
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

func viewSeats(n int) *int {
	if n == 0 {
		return nil
	}
	return &n
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
	Seats             *int               `json:"seats,omitempty"` // if it is sold by seats
	PendingUpdate     *pendingUpdateView `json:"pendingUpdate"`
	Access            accessView         `json:"access"`
}

type pendingUpdateView struct {
	ProductID *string `json:"productId"`
	Seats     *int    `json:"seats,omitempty"` // if it changes them
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
		PausedAt: viewTime(s.PausedAt), ResumesAt: viewTime(s.ResumesAt), Seats: viewSeats(s.SeatCount), Access: viewAccess(d),
	}
	if !s.PendingAt.IsZero() {
		view.PendingUpdate = &pendingUpdateView{viewString(s.PendingProductID), viewSeats(s.PendingSeats), viewTime(s.PendingAt)}
	}
	return view
}

// changeSubscription does what the user could do in Polar's portal.
func (g *Gateway) changeSubscription(w http.ResponseWriter, r *http.Request, v *visit) error {
	change, p := readChange(w, r)
	if p != nil {
		return p.answer(w, r, v)
	}
	ctx, cancel := context.WithTimeout(r.Context(), providerTime)
	defer cancel()
	account, id, err := g.core.ChangeSubscription(ctx, v.identity.Customer, change)
	if err != nil {
		return g.providerProblem(r, v, err).answer(w, r, v)
	}
	s, d, ok := account.CurrentByID(id, g.core.Rules(), g.core.Now())
	return writeSubscription(w, s, &d, ok)
}

// readChange takes exactly one change, as Polar does.
func readChange(w http.ResponseWriter, r *http.Request) (gateway.Change, *problem) {
	var body struct {
		ID                string          `json:"id"`
		ProductID         string          `json:"productId"`
		CancelAtPeriodEnd *bool           `json:"cancelAtPeriodEnd"`
		Seats             *int            `json:"seats"`
		PendingUpdate     json.RawMessage `json:"pendingUpdate"` // there as null
	}
	if p := readBody(w, r, &body); p != nil {
		return gateway.Change{}, p
	}
	named := 0
	for _, given := range []bool{body.ProductID != "", body.CancelAtPeriodEnd != nil, body.Seats != nil, body.PendingUpdate != nil} {
		if given {
			named++
		}
	}
	switch {
	case named != 1:
		return gateway.Change{}, newProblem(http.StatusBadRequest, codeBadBody).
			with("Say one thing to change: productId, cancelAtPeriodEnd, seats or pendingUpdate.")
	case body.PendingUpdate != nil && string(body.PendingUpdate) != "null":
		return gateway.Change{}, newProblem(http.StatusBadRequest, codeBadBody).
			with("pendingUpdate can only be null, which takes a scheduled change back.")
	}
	return gateway.Change{
		Subscription: body.ID, ProductID: body.ProductID, Cancel: body.CancelAtPeriodEnd, Seats: body.Seats,
		ClearPending: body.PendingUpdate != nil,
	}, nil
}

// serveEntitlements tells what is open for a user, plan by plan.
func (g *Gateway) serveEntitlements(w http.ResponseWriter, _ *http.Request, v *visit) error {
	return writeJSON(w, http.StatusOK, "application/json",
		viewEntitlements(v.identity.User, v.account, g.core.Rules(), v.now))
}

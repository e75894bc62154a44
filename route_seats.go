package caddypolar

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/caddy-polar/caddy-polar/entitlement"
	"github.com/caddy-polar/caddy-polar/gateway"
	"github.com/caddy-polar/caddy-polar/polar"
)

// seatView is a seat that somebody has, or is invited to.
type seatView struct {
	ID             string  `json:"id"`
	Status         string  `json:"status"` // pending, claimed, revoked
	Email          *string `json:"email"`
	Name           *string `json:"name"`
	Role           *string `json:"role"` // once it is claimed
	SubscriptionID *string `json:"subscriptionId"`
	OrderID        *string `json:"orderId"`
	ExpiresAt      *string `json:"expiresAt"` // of the invitation
	ClaimedAt      *string `json:"claimedAt"`
	RevokedAt      *string `json:"revokedAt"`
}

func viewSeat(s *polar.Seat) seatView {
	v := seatView{
		ID: s.ID, Status: s.Status, Email: viewString(s.Email),
		SubscriptionID: viewString(s.SubscriptionID), OrderID: viewString(s.OrderID),
		ExpiresAt: viewMoment(s.ExpiresAt), ClaimedAt: viewMoment(s.ClaimedAt), RevokedAt: viewMoment(s.RevokedAt),
	}
	if s.Member != nil && s.Status == "claimed" { // Polar names the last one after that
		v.Name, v.Role = viewString(s.Member.Name), viewString(s.Member.Role)
	}
	return v
}

func viewMoment(t *time.Time) *string {
	if t == nil {
		return nil
	}
	return viewTime(*t)
}

// seatPurchaseView is a subscription or order that has seats.
type seatPurchaseView struct {
	ID             string  `json:"id"`
	SubscriptionID *string `json:"subscriptionId"`
	OrderID        *string `json:"orderId"`
	ProductID      string  `json:"productId"`
}

func viewSeatPurchase(p *gateway.SeatPurchase) seatPurchaseView {
	return seatPurchaseView{p.ID(), viewString(p.SubscriptionID), viewString(p.OrderID), p.ProductID}
}

// seatListView is a purchase with its seats, and which others there are.
type seatListView struct {
	seatPurchaseView
	Total     int                `json:"total"`
	Available int                `json:"available"`
	Seats     []seatView         `json:"seats"`
	Purchases []seatPurchaseView `json:"purchases"`
}

// serveSeats lists the seats of what a user manages, or invites somebody to one.
func (g *Gateway) serveSeats(w http.ResponseWriter, r *http.Request, v *visit) error {
	if r.Method == http.MethodPost {
		return g.inviteToSeat(w, r, v)
	}
	ctx, cancel := context.WithTimeout(r.Context(), providerTime)
	defer cancel()
	list, err := g.core.Seats(ctx, v.identity.Customer, r.URL.Query().Get("id"))
	if err != nil {
		return g.providerProblem(r, v, err).answer(w, r, v)
	}
	answer := seatListView{
		seatPurchaseView: viewSeatPurchase(&list.Of), Total: list.Total, Available: list.Available,
		Seats: []seatView{}, Purchases: make([]seatPurchaseView, len(list.All)),
	}
	for i := range list.Seats.Seats {
		if s := &list.Seats.Seats[i]; s.Status != "revoked" {
			answer.Seats = append(answer.Seats, viewSeat(s))
		}
	}
	for i := range list.All {
		answer.Purchases[i] = viewSeatPurchase(&list.All[i])
	}
	return writeJSON(w, http.StatusOK, "application/json", answer)
}

func (g *Gateway) inviteToSeat(w http.ResponseWriter, r *http.Request, v *visit) error {
	var body struct {
		ID    string `json:"id"`
		Email string `json:"email"`
	}
	if p := readBody(w, r, &body); p != nil {
		return p.answer(w, r, v)
	}
	if body.Email == "" {
		return newProblem(http.StatusBadRequest, codeBadBody).
			with("Say whom to invite: email.").naming("email is required").answer(w, r, v)
	}
	ctx, cancel := context.WithTimeout(r.Context(), providerTime)
	defer cancel()
	seat, err := g.core.InviteToSeat(ctx, v.visitor(r), body.Email, body.ID)
	if err != nil {
		return g.providerProblem(r, v, err).answer(w, r, v)
	}
	return writeJSON(w, http.StatusCreated, "application/json", viewSeat(seat))
}

// serveSeat takes a seat away, or sends its invitation again.
func (g *Gateway) serveSeat(w http.ResponseWriter, r *http.Request, v *visit) error {
	change := g.core.RevokeSeat
	if r.Method == http.MethodPost {
		change = g.core.ResendInvitation
	}
	ctx, cancel := context.WithTimeout(r.Context(), providerTime)
	defer cancel()
	seat, err := change(ctx, v.identity.Customer, r.PathValue(routeID))
	if err != nil {
		return g.providerProblem(r, v, err).answer(w, r, v)
	}
	return writeJSON(w, http.StatusOK, "application/json", viewSeat(seat))
}

// seatProblem is what stands against a change of seats, or nil.
func seatProblem(err error) *problem {
	switch {
	case errors.Is(err, gateway.ErrNoSeats):
		return newProblem(http.StatusNotFound, codeNoSeats)
	case errors.Is(err, gateway.ErrUnknownSeat):
		return newProblem(http.StatusNotFound, codeUnknownSeat)
	case errors.Is(err, gateway.ErrNotManager):
		p := newProblem(http.StatusForbidden, codeNotManager)
		p.NextStep = entitlement.StepContact
		return p
	case errors.Is(err, gateway.ErrBadEmail):
		p := newProblem(http.StatusUnprocessableEntity, codeInvalidInput)
		p.Fields = []fieldView{{"email", "This is not an e-mail address."}}
		return p
	case errors.Is(err, gateway.ErrSelfInvited):
		return newProblem(http.StatusConflict, codeSelfInvited)
	case errors.Is(err, polar.ErrNoSeat):
		return newProblem(http.StatusConflict, codeNoFreeSeats)
	case errors.Is(err, polar.ErrSeatTaken):
		return newProblem(http.StatusConflict, codeSeatTaken)
	}
	return nil
}

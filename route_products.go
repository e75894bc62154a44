package caddypolar

import (
	"context"
	"net/http"

	"github.com/caddy-polar/caddy-polar/gateway"
	"github.com/caddy-polar/caddy-polar/polar"
)

// productView is a product as the route tells it. Amounts are integers in the
// currency's minor unit.
type productView struct {
	ID                     string        `json:"id"`
	Name                   string        `json:"name"`
	Description            *string       `json:"description"`
	Plans                  []string      `json:"plans"`
	IsRecurring            bool          `json:"isRecurring"`
	RecurringInterval      *string       `json:"recurringInterval"`
	RecurringIntervalCount *int          `json:"recurringIntervalCount"`
	TrialInterval          *string       `json:"trialInterval"`
	TrialIntervalCount     *int          `json:"trialIntervalCount"`
	Prices                 []priceView   `json:"prices"`
	Benefits               []benefitView `json:"benefits"`
}

type priceView struct {
	ID            string     `json:"id"`
	AmountType    string     `json:"amountType"`
	Currency      string     `json:"currency"`
	Amount        *int64     `json:"amount,omitempty"`
	MinimumAmount *int64     `json:"minimumAmount,omitempty"`
	MaximumAmount *int64     `json:"maximumAmount,omitempty"`
	PresetAmount  *int64     `json:"presetAmount,omitempty"`
	UnitAmount    string     `json:"unitAmount,omitempty"` // a decimal, in minor units
	SeatTiers     []tierView `json:"seatTiers,omitempty"`
}

type tierView struct {
	MinSeats     int   `json:"minSeats"`
	MaxSeats     *int  `json:"maxSeats"`
	PricePerSeat int64 `json:"pricePerSeat"`
}

type benefitView struct {
	ID          string `json:"id"`
	Type        string `json:"type"`
	Description string `json:"description"`
}

// serveProducts tells what the plans sell.
func (g *Gateway) serveProducts(w http.ResponseWriter, r *http.Request, v *visit) error {
	ctx, cancel := context.WithTimeout(r.Context(), providerTime)
	defer cancel()
	offers, err := g.core.Products(ctx)
	if err != nil {
		return g.providerProblem(r, v, err).answer(w, r, v)
	}
	products := make([]productView, len(offers))
	for i := range offers {
		products[i] = viewProduct(&offers[i])
	}
	return writeJSON(w, http.StatusOK, "application/json", map[string]any{"products": products})
}

func viewProduct(o *gateway.Offer) productView {
	p := productView{
		ID: o.ID, Name: o.Name, Description: viewString(o.Description), Plans: o.Plans, IsRecurring: o.IsRecurring,
		RecurringInterval: viewString(o.RecurringInterval), RecurringIntervalCount: viewCount(o.RecurringIntervalCount),
		TrialInterval: viewString(o.TrialInterval), TrialIntervalCount: viewCount(o.TrialIntervalCount),
		Prices: []priceView{}, Benefits: []benefitView{},
	}
	for i := range o.Prices {
		if price := &o.Prices[i]; !price.IsArchived {
			p.Prices = append(p.Prices, viewPrice(price))
		}
	}
	for _, b := range o.Benefits {
		p.Benefits = append(p.Benefits, benefitView(b))
	}
	return p
}

func viewPrice(p *polar.Price) priceView {
	view := priceView{
		ID: p.ID, AmountType: p.AmountType, Currency: p.Currency, Amount: p.Amount,
		MinimumAmount: p.MinimumAmount, MaximumAmount: p.MaximumAmount, PresetAmount: p.PresetAmount,
		UnitAmount: p.UnitAmount,
	}
	if p.SeatTiers != nil {
		for _, t := range p.SeatTiers.Tiers {
			view.SeatTiers = append(view.SeatTiers, tierView(t))
		}
	}
	return view
}

func viewCount(n int) *int {
	if n == 0 {
		return nil
	}
	return &n
}

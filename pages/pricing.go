package pages

import (
	"html/template"
	"strings"
)

// Interval is a length of time as Polar tells it: so many of a unit, which is day,
// week, month or year. Zero is none.
type Interval struct {
	Unit  string
	Count int
}

// The kinds of prices, in Polar's words.
const (
	PriceFixed  = "fixed"
	PriceCustom = "custom"
	PriceSeats  = "seat_based"
	PriceUnit   = "metered_unit"
)

// Price is one price of a product. Amounts are integers in minor units.
type Price struct {
	Kind, Currency string
	Amount         int64 // of PriceFixed; the least of PriceCustom
	Unit           string
	Seats          []int64 // of PriceSeats: what one costs, by how many there are
}

// Offer is a product as it is for sale.
type Offer struct {
	Name, Description string
	Plan              string // the first of the operator's plans that it opens
	Every             Interval
	Trial             Interval
	Prices            []Price
	Benefits          []string
	// Yours says that the visitor has it.
	Yours bool
	// Next is where it can be had. Nil: nowhere.
	Next *Link
}

// Pricing is what is for sale.
type Pricing struct {
	Offers []Offer
	// Due is where a payment that failed is mended, if one has.
	Due *Link
	// Account is the address of the visitor's own page. Empty: nobody is known.
	Account string
}

func (*Pricing) template() string { return "pricing" }
func (*Pricing) policy() string   { return noForms }

// maxBenefits is how many of an offer's benefits are told.
const maxBenefits = 10

// Included are the benefits, as many as are told.
func (o *Offer) Included() []string { return o.Benefits[:min(len(o.Benefits), maxBenefits)] }

// Title is the name that an owner has given the plan, or that of the product.
func (s *scene) Title(o *Offer) string {
	if name := s.say[planKey+o.Plan]; o.Plan != "" && name != "" {
		return name
	}
	return clean(o.Name, maxLine)
}

// About is the description.
func (s *scene) About(o *Offer) string { return clean(o.Description, maxPara) }

// currencyOf is the one to tell prices in: the visitor's own if the offer has it.
func (s *scene) currencyOf(o *Offer) string {
	for i := range o.Prices {
		if strings.EqualFold(o.Prices[i].Currency, s.Currency) {
			return o.Prices[i].Currency
		}
	}
	if len(o.Prices) == 0 {
		return ""
	}
	return o.Prices[0].Currency
}

// Amount is the price in short, and for how long one pays. What comes on top of it is
// told by OnTop.
func (s *scene) Amount(o *Offer) template.HTML {
	all := s.amounts(o)
	if len(all) == 0 {
		return ""
	}
	if per := s.per(o); per != "" {
		return all[0] + ` <span class="small">` + per + "</span>"
	}
	return all[0]
}

// OnTop are the other prices of the same product, like those of what is metered.
func (s *scene) OnTop(o *Offer) (list []template.HTML) {
	for _, more := range s.amounts(o)[min(1, len(s.amounts(o))):] {
		list = append(list, s.Say("price.plus", "price", more))
	}
	return list
}

// amounts are the prices in the visitor's currency.
func (s *scene) amounts(o *Offer) (list []template.HTML) {
	chosen := s.currencyOf(o)
	for i := range o.Prices {
		if p := &o.Prices[i]; p.Currency == chosen {
			if text := s.price(p); text != "" {
				list = append(list, text)
			}
		}
	}
	return list
}

func (s *scene) price(p *Price) template.HTML {
	if !isCode(p.Currency) {
		return ""
	}
	strong := func(text template.HTML) template.HTML { return "<strong>" + text + "</strong>" }
	money := func(amount int64) template.HTML { return strong(isolated(s.Money(amount, p.Currency))) }
	switch p.Kind {
	case PriceFixed:
		if p.Amount == 0 {
			return strong(s.Say("price.free"))
		}
		return money(p.Amount)
	case PriceCustom:
		if p.Amount > 0 {
			return s.Say("price.custom_from", "price", money(p.Amount))
		}
		return s.Say("price.custom")
	case PriceSeats:
		least, differ := int64(-1), false
		for _, price := range p.Seats {
			differ = differ || least >= 0 && price != least
			if least < 0 || price < least {
				least = price
			}
		}
		switch {
		case least < 0:
			return ""
		case differ:
			return s.Say("price.seat_from", "price", money(least))
		}
		return s.Say("price.seat", "price", money(least))
	case PriceUnit:
		if amount := s.UnitPrice(p.Unit, p.Currency); amount != "" {
			return s.Say("price.unit", "price", strong(isolated(amount)))
		}
	}
	return "" // of a kind that this version does not know: the checkout tells it
}

// per is for how long one pays, and nothing of what is free.
func (s *scene) per(o *Offer) template.HTML {
	free := true
	for i := range o.Prices {
		free = free && o.Prices[i].Kind == PriceFixed && o.Prices[i].Amount == 0
	}
	switch {
	case free:
		return ""
	case o.Every.Unit == "":
		return s.Say("price.once")
	case o.Every.Count <= 1:
		return s.Say("per." + o.Every.Unit)
	}
	return s.Count("every."+o.Every.Unit, o.Every.Count)
}

// FreeTrial is how long it can be tried.
func (s *scene) FreeTrial(o *Offer) template.HTML {
	if o.Trial.Unit == "" || o.Trial.Count < 1 {
		return ""
	}
	return s.Count("trial."+o.Trial.Unit, o.Trial.Count)
}

// maxAlso is in how many other currencies a price is told.
const maxAlso = 4

// AlsoIn is the price in other currencies.
func (s *scene) AlsoIn(o *Offer) template.HTML {
	seen := map[string]bool{s.currencyOf(o): true}
	var list []string
	for i := range o.Prices {
		p := &o.Prices[i]
		if text := s.price(p); text != "" && !seen[p.Currency] && len(list) < maxAlso {
			seen[p.Currency] = true
			list = append(list, string(text))
		}
	}
	if len(list) == 0 {
		return ""
	}
	return s.Say("price.also", "price", template.HTML(strings.Join(list, ", ")))
}

package box

// SeatTier is the price of each seat of a range.
type SeatTier struct {
	Min, Max int // a Max of 0 is no end
	PerSeat  int
}

func (p *Price) seated() bool { return len(p.Tiers) > 0 }

func (p *Price) minSeats() int {
	if !p.seated() {
		return 0
	}
	return p.Tiers[0].Min
}

// maxSeats is 0 when there is no limit.
func (p *Price) maxSeats() int {
	if !p.seated() {
		return 0
	}
	return p.Tiers[len(p.Tiers)-1].Max
}

// amount is what so many seats cost, or the fixed price.
func (p *Price) amount(seats int) int {
	if !p.seated() {
		return p.Amount
	}
	total := 0
	for _, t := range p.Tiers {
		in := seats >= t.Min && (t.Max == 0 || seats <= t.Max)
		if !p.Graduated && in {
			return seats * t.PerSeat
		}
		if last := seats; p.Graduated && seats >= t.Min {
			if t.Max > 0 {
				last = min(seats, t.Max)
			}
			total += (last - t.Min + 1) * t.PerSeat
		}
	}
	return total
}

// free says that nobody ever pays for it.
func (p *Price) free() bool {
	for _, t := range p.Tiers {
		if t.PerSeat > 0 {
			return false
		}
	}
	return p.Amount == 0
}

func (p *Price) tiersJSON() obj {
	tiers := []any{}
	for _, t := range p.Tiers {
		tiers = append(tiers, obj{"min_seats": t.Min, "max_seats": count(t.Max), "price_per_seat": t.PerSeat})
	}
	kind := "volume"
	if p.Graduated {
		kind = "graduated"
	}
	return obj{"seat_tier_type": kind, "tiers": tiers, "minimum_seats": p.minSeats(), "maximum_seats": count(p.maxSeats())}
}

// most is Polar's limit of seats.
const mostSeats = 10000

// seatCheckout fills in the seats of a checkout, and checks them. Products with
// another price have none, whatever was asked for.
func (b *Box) seatCheckout(c *Checkout) error {
	p, _ := b.products.get(c.ProductIDs[0])
	if !p.Price.seated() {
		c.Seats = 0
		return nil
	}
	least, most := max(p.Price.minSeats(), c.MinSeats, 1), mostSeats
	for _, limit := range []int{p.Price.maxSeats(), c.MaxSeats} {
		if limit > 0 {
			most = min(most, limit)
		}
	}
	if c.Seats == 0 {
		c.Seats = least
	}
	if c.Seats < least || c.Seats > most {
		return invalid("The number of seats is not allowed for this checkout.", c.Seats, "seats")
	}
	return nil
}

// checkoutNet is what a checkout costs, without tax.
func (b *Box) checkoutNet(c *Checkout, p *Product) int {
	amount := p.Price.amount(c.Seats)
	return amount - b.discountOf(c.DiscountID, amount)
}

func (p *Price) kind() string {
	if p.seated() {
		return "seat_based"
	}
	return "fixed"
}

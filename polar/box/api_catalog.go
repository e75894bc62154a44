package box

import (
	"slices"
	"strconv"
)

func listProducts(c *call) (int, any, error) {
	return c.read(func(b *Box) (any, error) {
		l := listing[Product]{
			of: &b.products, order: "-created_at",
			filters: map[string]func(*Product) string{
				"id":           func(p *Product) string { return p.ID },
				"visibility":   func(p *Product) string { return p.Visibility },
				"is_archived":  func(p *Product) string { return strconv.FormatBool(p.Archived) },
				"is_recurring": func(p *Product) string { return strconv.FormatBool(p.Interval != "") },
			},
			matches: map[string]func(*Product, string) bool{
				"query":      func(p *Product, q string) bool { return contains(q, p.Name) },
				"benefit_id": func(p *Product, id string) bool { return slices.Contains(p.BenefitIDs, id) },
			},
			sorts: map[string]func(*Product) string{
				"created_at": byCreation[Product], "name": func(p *Product) string { return p.Name },
				"price_amount":      func(p *Product) string { return money(p.Price.amount(p.Price.minSeats())) },
				"price_amount_type": func(p *Product) string { return p.Price.kind() },
			},
			meta: func(p *Product) map[string]any { return p.Metadata }, render: b.productJSON,
		}
		return list(c, l)
	})
}

func getProduct(c *call) (int, any, error) {
	return one(c, func(b *Box) *table[Product] { return &b.products }, (*Box).productJSON)
}

func listBenefits(c *call) (int, any, error) {
	return c.read(func(b *Box) (any, error) {
		not := c.r.URL.Query()["exclude_id"]
		return list(c, listing[Benefit]{
			of: &b.benefits, order: "-created_at",
			where: func(x *Benefit) bool { return !slices.Contains(not, x.ID) },
			filters: map[string]func(*Benefit) string{
				"id":   func(x *Benefit) string { return x.ID },
				"type": func(x *Benefit) string { return x.Type },
			},
			matches: map[string]func(*Benefit, string) bool{
				"query":      func(x *Benefit, q string) bool { return contains(q, x.Description) },
				"exclude_id": func(*Benefit, string) bool { return true }, // they are gone already
			},
			sorts: map[string]func(*Benefit) string{
				"created_at": byCreation[Benefit], "description": func(x *Benefit) string { return x.Description },
				"type": func(x *Benefit) string { return x.Type },
			},
			meta: func(x *Benefit) map[string]any { return x.Metadata }, render: b.benefitJSON,
		})
	})
}

func getBenefit(c *call) (int, any, error) {
	return one(c, func(b *Box) *table[Benefit] { return &b.benefits }, (*Box).benefitJSON)
}

func (b *Box) externalOf(customerID string) string {
	c, _ := b.customers.get(customerID)
	return c.ExternalID
}

// listGrants serves the grants of the organization and those of one benefit.
func listGrants(c *call) (int, any, error) {
	return c.read(func(b *Box) (any, error) {
		benefit, ofOne := c.params["id"]
		if _, known := b.benefits.get(benefit); ofOne && !known {
			return nil, notFound()
		}
		return list(c, listing[Grant]{
			of: &b.grants, order: "-created_at",
			where: func(g *Grant) bool { return !ofOne || g.BenefitID == benefit },
			filters: map[string]func(*Grant) string{
				"customer_id":          func(g *Grant) string { return g.CustomerID },
				"external_customer_id": func(g *Grant) string { return b.externalOf(g.CustomerID) },
				"member_id":            func(g *Grant) string { return g.MemberID },
				"is_granted": func(g *Grant) string {
					if g.Error != nil {
						return "" // neither granted nor revoked
					}
					return strconv.FormatBool(g.GrantedAt != nil)
				},
			},
			sorts: map[string]func(*Grant) string{
				"created_at": byCreation[Grant], "granted_at": func(g *Grant) string { return sortable(g.GrantedAt) },
				"revoked_at": func(g *Grant) string { return sortable(g.RevokedAt) },
			},
			render: func(g *Grant) obj {
				out := b.grantJSON(g)
				delete(out, "previous_properties") // webhooks only
				return out
			},
		})
	})
}

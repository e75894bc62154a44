package box

import "strconv"

func listProducts(c *call) (int, any, error) {
	return c.read(func(b *Box) (any, error) {
		l := listing[Product]{
			rows: b.products.allSeen(c.at), order: "-created_at",
			filters: map[string]func(*Product) string{
				"id":           func(p *Product) string { return p.ID },
				"query":        func(p *Product) string { return p.Name },
				"is_archived":  func(p *Product) string { return strconv.FormatBool(p.Archived) },
				"is_recurring": func(p *Product) string { return strconv.FormatBool(p.Interval != "") },
			},
			sorts: map[string]func(*Product) string{
				"created_at": byCreation[Product], "name": func(p *Product) string { return p.Name },
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
		return list(c, listing[Benefit]{
			rows: b.benefits.allSeen(c.at), order: "-created_at",
			filters: map[string]func(*Benefit) string{
				"id":    func(x *Benefit) string { return x.ID },
				"type":  func(x *Benefit) string { return x.Type },
				"query": func(x *Benefit) string { return x.Description },
			},
			sorts: map[string]func(*Benefit) string{
				"created_at": byCreation[Benefit], "description": func(x *Benefit) string { return x.Description },
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
		rows := b.grants.allSeen(c.at)
		if id, ok := c.params["id"]; ok {
			if _, known := b.benefits.get(id); !known {
				return nil, notFound()
			}
			var of []Grant
			for _, g := range rows {
				if g.BenefitID == id {
					of = append(of, g)
				}
			}
			rows = of
		}
		return list(c, listing[Grant]{
			rows: rows, order: "-created_at",
			filters: map[string]func(*Grant) string{
				"customer_id":          func(g *Grant) string { return g.CustomerID },
				"external_customer_id": func(g *Grant) string { return b.externalOf(g.CustomerID) },
				"member_id":            func(g *Grant) string { return g.MemberID },
				"is_granted":           func(g *Grant) string { return strconv.FormatBool(g.GrantedAt != nil) },
			},
			sorts: map[string]func(*Grant) string{
				"created_at": byCreation[Grant], "granted_at": func(g *Grant) string { return sortable(g.GrantedAt) },
			},
			render: b.grantJSON,
		})
	})
}

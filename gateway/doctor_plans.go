package gateway

import (
	"maps"
	"slices"
	"strings"

	"github.com/caddy-polar/caddy-polar/entitlement"
	"github.com/caddy-polar/caddy-polar/polar"
)

// planFinding is about what the plans are made of.
func (g *Gateway) planFinding(f *polarFacts) Finding {
	if len(g.plans) == 0 {
		return found(aboutPlans, SeverityWarning, "there is no plan: nothing that is sold opens anything", "add one: plan <name> <product id>…")
	}
	if err := f.why(scopeProducts); err != nil {
		return untold(aboutPlans, g.tokenKind, f, err, scopeProducts)
	}
	benefits := f.why(scopeBenefits)
	p := planJudge{products: f.products, benefits: f.benefits, unread: benefits != nil, details: make(map[string]string)}
	for i := range g.plans {
		p.judge(&g.plans[i])
	}
	out := fine(aboutPlans, "Polar has all products and benefits of the plans")
	switch {
	case len(p.unknown) > 0:
		out = found(aboutPlans, SeverityError, "Polar does not know "+strings.Join(p.unknown, ", "),
			"check these ids, and whether they are of production or sandbox: each has ids of its own")
	case len(p.closed) > 0:
		out = found(aboutPlans, SeverityWarning, "nobody can buy "+strings.Join(p.closed, ", "), "take the product out of Polar's archive, give the benefit to a product, or name one that is sold")
	case p.unread && g.usesBenefits():
		out = untold(aboutPlans, g.tokenKind, f, benefits, scopeBenefits)
	}
	maps.Copy(out.Details, p.details)
	return out
}

// planJudge holds plans against what Polar has.
type planJudge struct {
	products map[string]polar.Product
	benefits map[string]bool
	unread   bool // the benefits

	unknown []string // what Polar does not know
	closed  []string // plans that nobody can buy
	details map[string]string
}

func (j *planJudge) judge(p *entitlement.Plan) {
	var said []string
	sold := false
	for _, id := range p.Products {
		switch product, there := j.products[id]; {
		case !there:
			j.unknown, said = append(j.unknown, "product "+id), append(said, "unknown product "+id)
		case product.IsArchived:
			said = append(said, "archived product "+id)
		default:
			sold = true
		}
	}
	for _, id := range p.Benefits {
		given := slices.ContainsFunc(slices.Collect(maps.Values(j.products)), func(product polar.Product) bool {
			return !product.IsArchived && slices.ContainsFunc(product.Benefits, func(b polar.Benefit) bool { return b.ID == id })
		})
		switch {
		case given:
			sold = true
		case j.unread:
			sold = true // or not: it is not told
		case !j.benefits[id]:
			j.unknown, said = append(j.unknown, "benefit "+id), append(said, "unknown benefit "+id)
		default:
			said = append(said, "no product gives benefit "+id)
		}
	}
	if !sold {
		j.closed = append(j.closed, "plan "+p.Name)
	}
	if len(said) > 0 {
		j.details["plan "+p.Name] = strings.Join(said, "; ")
	}
}

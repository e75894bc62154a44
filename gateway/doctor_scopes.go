package gateway

import (
	"maps"
	"slices"
	"strings"
)

// needs are the scopes that reading can prove, what for, and whether nothing works
// without them. Those that the configuration has no use for were not asked for.
var needs = []struct {
	scope, what string
	must        bool
}{
	{scopeSubscriptions, "syncs, look-ups, buyers who return", true},
	{scopeCustomers, "syncs, the portal", true},
	{scopeProducts, "plans, prices", true},
	{scopeCheckouts, "checkouts, buyers who return", true},
	{scopeOrders, "one-time purchases", false},
	{scopeRefunds, "refunds", false},
	{scopeDisputes, "disputes", false},
	{scopeBenefits, "plans with benefits", false},
	{scopeSeats, "seats", false},
	{scopeMembers, "members of teams", false},
	{scopeReadWebhooks, "the health of the webhook endpoint", false},
}

func (g *Gateway) scopeFinding(f *polarFacts) Finding {
	if _, told := permits(f.first); !told {
		return untold(aboutScopes, g.tokenKind, f, f.first, "")
	}
	var lacking, unknown []string
	severity, details := SeverityWarning, make(map[string]string)
	var why error
	for _, n := range needs {
		err, asked := f.reads[n.scope]
		if !asked {
			continue
		}
		switch may, known := permits(err); {
		case !known:
			unknown, details[n.scope], why = append(unknown, n.scope), "not known, for "+n.what, err
		case !may:
			lacking, details[n.scope] = append(lacking, n.scope), "missing, for "+n.what
			if n.must {
				severity = SeverityError
			}
		}
	}
	var out Finding
	switch {
	case len(lacking) > 0:
		out = found(aboutScopes, severity, "the access token lacks "+strings.Join(lacking, ", "), "add them to the token in Polar's settings, Developers")
	case len(unknown) > 0:
		out = untold(aboutScopes, g.tokenKind, f, why, "")
	default:
		out = fine(aboutScopes, "the access token may read all that the gateway needs")
	}
	maps.Copy(out.Details, details)
	return out
}

// writeFinding goes by what the gateway has written since it began: nothing is written
// to find out.
func (g *Gateway) writeFinding(f *polarFacts) Finding {
	if g.client == nil {
		return untold(aboutWriteScopes, g.tokenKind, f, f.first, "")
	}
	must := []string{"checkouts:write", "customer_sessions:write"}
	wanted := append(must, "customers:write")
	if _, seats := f.reads[scopeSeats]; seats {
		wanted = append(wanted, "customer_seats:write")
	}
	g.heard.mu.Lock()
	proven := maps.Clone(g.heard.writes)
	g.heard.mu.Unlock()
	var lacking, unknown []string
	severity := SeverityWarning
	for _, scope := range wanted {
		switch may, known := proven[scope]; {
		case !known:
			unknown = append(unknown, scope)
		case !may:
			lacking = append(lacking, scope)
			if slices.Contains(must, scope) {
				severity = SeverityError
			}
		}
	}
	switch {
	case len(lacking) > 0:
		return found(aboutWriteScopes, severity, "Polar has refused to write, as the access token lacks "+strings.Join(lacking, ", "),
			"add them to the token in Polar's settings, Developers")
	case len(unknown) > 0:
		return found(aboutWriteScopes, SeverityUnknown, "reading does not tell whether the access token has "+strings.Join(unknown, ", "),
			"see in Polar's settings, Developers, that the token has them; each is known here once it was used")
	}
	return fine(aboutWriteScopes, "the access token may write what the gateway needs, as it has done")
}

package integration

import (
	"net/http"
	"strings"
	"testing"
)

// TestWhyRefused finds out why somebody was refused, by the id that they have seen, and
// what has changed of what they have bought.
func TestWhyRefused(t *testing.T) {
	t.Parallel()
	s := startPaywall(t)
	u := s.subscribe(t, "app", productPro)
	ended := object{"canceled_at": wire(now.Add(-day)), "ends_at": wire(now.Add(-day)), "ended_at": wire(now.Add(-day))}

	other := s.get(t, "app", "/basic/x", as(u.user)).problem(t, http.StatusPaymentRequired, "plan_required")["requestId"].(string)
	s.deliver(t, "app", u.event(t, "subscription.revoked", ended))
	refused := s.get(t, "app", "/pro/x", as(u.user)).problem(t, http.StatusPaymentRequired, "canceled")["requestId"].(string)
	unknown := s.get(t, "app", "/pro/x").problem(t, http.StatusUnauthorized, "token_missing")["requestId"].(string)
	page := s.get(t, "app", "/pro/x", as(u.user), browser).wants(t, http.StatusPaymentRequired).body

	wants(t, s.tells(t, "explain", "--request", other), u.user+" wanted basic", "refused: plan_required", "What the user would get now", "refused: no_subscription")
	wants(t, s.tells(t, "explain", "--request", refused), u.user+" wanted pro", "refused: canceled", u.subscription, "by webhook ")
	wants(t, s.tells(t, "explain", "--request", unknown), "a stranger wanted pro", "token_missing", "Sign in")
	v := s.tellsJSON(t, "explain", "--request", refused)
	if r := v["refusal"].(object); r["requestId"] != refused || r["code"] != "canceled" || r["decision"].(object)["allowed"] != false || v["user"] != u.user {
		t.Error(v)
	}
	_, id, _ := strings.Cut(page, "Reference: canceled · ") // a visitor reads it from the page
	id, _, _ = strings.Cut(id, "<")
	wants(t, s.tells(t, "explain", "--request", id), u.user+" wanted pro", "refused: canceled")

	shown := s.tells(t, "show", u.user)
	wants(t, shown, "CHANGED", "status active → canceled", "new active", "  webhook ")
	if h := s.tellsJSON(t, "show", u.user)["history"].([]any); len(h) != 2 || h[0].(object)["told"].(object)["by"] != "webhook" {
		t.Error(h)
	}

	// What was refused before a reload is still known, and nothing is after a restart.
	s.load(t, s.caddyfile(strings.Replace(usual, "polar {", "polar {\n\t\taudit 7d", 1), s.paywall(t, "app"))).wants(t, http.StatusOK)
	wants(t, s.tells(t, "explain", "--request", refused), u.user)
	s.fails(t, []string{"explain", "--request", "no-such-id"}, "no refusal", "1000")
	s.fails(t, []string{"explain"}, "explain <user>", "--request")
	s.fails(t, []string{"explain", u.user, "--request", refused}, "stands alone")
	s.fails(t, []string{"explain", "--request", refused, "--plan", "pro"}, "stands alone")
	s.ask(t, http.MethodGet, "/polar/explain").wants(t, http.StatusBadRequest)
}

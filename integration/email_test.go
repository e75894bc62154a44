package integration

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"

	"github.com/caddy-polar/caddy-polar/polar/box"
)

// writes is a token with claims about an e-mail.
func writes(user string, email, verified any) option {
	return bearer(sign(jwt.SigningMethodHS256, []byte(jwtSecret), claims(user, object{"email": email, "email_verified": verified})))
}

// linking is the polar block of a shop that links by e-mail.
var linking = strings.Replace(quickly, "return_to", "link email\n\t\treturn_to", 1)

// quickly is the block without it.
var quickly = strings.Replace(syncing, "return_to", "sync {\n\t\t\tbudget 500/m\n\t\t}\n\t\treturn_to", 1)

// TestLinkEmail: who bought past the gateway, under a verified e-mail, is let in
// and has control, over restarts and syncs, until it is switched off.
func TestLinkEmail(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	wall := s.paywall(t, "app")
	s.start(t, s.caddyfile(linking, wall))
	s.connect()
	s.tells(t, "sync")
	x, err := s.box.Buy("", "Ada@Example.com", s.pro.ID)
	if err != nil {
		t.Fatal(err)
	}
	s.box.Settle()
	guest := x.CustomerID
	s.box.SetTrouble(box.Trouble{Refuse: true}) // it is not needed
	for _, verified := range []any{"true", 1, "1", nil, false, []bool{true}, object{"email": true}} {
		s.get(t, "app", "/pro/x", writes("ada", "ada@example.com", verified)).wants(t, http.StatusPaymentRequired)
	}
	for _, email := range []any{
		"eve@example.com", "ada@example.com@evil.example", "evil@evil.example@example.com", "ada@example.com ", "a.da@example.com",
		"ada+1@example.com", "", nil,
		[]string{"ada@example.com"},
		object{"email": "ada@example.com"},
		"ada@example.com\x00", "ada@example.com,eve@example.com",
	} {
		s.get(t, "app", "/pro/x", writes("ada", email, true)).wants(t, http.StatusPaymentRequired)
	}
	ada := writes("ada", "ADA@example.COM", true)
	if got := s.get(t, "app", "/pro/x", ada).wants(t, http.StatusOK).seen(t).ours(); got["customer"] != guest {
		t.Errorf("the app is told %v", got)
	}
	s.box.SetTrouble(box.Trouble{})
	s.get(t, "app", "/auth/polar/portal", ada, browser).wants(t, http.StatusSeeOther)
	s.get(t, "app", "/pro/x", writes("eve", "ada@example.com", true)).wants(t, http.StatusPaymentRequired)
	wants(t, s.tells(t, "explain", "eve"), guest, "the first link stands")
	wants(t, s.tells(t, "explain", "ada"), "the user's by e-mail")
	wants(t, s.tells(t, "show", "ada"), guest, "by e-mail")

	s.tells(t, "sync")
	s.stop(t)
	s.start(t, s.caddyfile(linking, wall))
	s.get(t, "app", "/pro/x", as("ada")).wants(t, http.StatusOK) // once is enough
	s.get(t, "app", "/pro/x", writes("eve", "ada@example.com", true)).wants(t, http.StatusPaymentRequired)

	s.load(t, s.caddyfile(quickly, wall)).wants(t, http.StatusOK)
	waitFor(t, "nothing of e-mails to be left", func() bool {
		return s.get(t, "app", "/pro/x", ada).status == http.StatusPaymentRequired
	})
	s.load(t, s.caddyfile(linking, wall)).wants(t, http.StatusOK)
	s.tells(t, "sync")
	s.get(t, "app", "/pro/x", ada).wants(t, http.StatusOK)
	s.tells(t, "forget", "ada")
	s.get(t, "app", "/pro/x", as("ada")).wants(t, http.StatusPaymentRequired)
	s.tells(t, "sync")
	s.get(t, "app", "/auth/polar/entitlements", writes("eve", "ada@example.com", true)).wants(t, http.StatusOK)
	s.get(t, "app", "/pro/x", as("eve")).wants(t, http.StatusOK) // any of our routes links, too

	if _, err := s.box.UpdateCustomer(guest, box.CustomerUpdate{ExternalID: new("grace")}); err != nil {
		t.Fatal(err)
	}
	s.box.Settle()
	s.get(t, "app", "/pro/x", as("grace")).wants(t, http.StatusOK)
	s.get(t, "app", "/pro/x", writes("eve", "ada@example.com", true)).wants(t, http.StatusPaymentRequired)

	s.stop(t)
	file, err := os.ReadFile(s.store())
	if err != nil {
		t.Fatal(err)
	}
	if told := strings.ToLower(fmt.Sprintf("%s %s", file, s.logs())); strings.Contains(told, "ada@example.com") {
		t.Error("an e-mail is in the store or the log")
	}
}

package integration

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-polar/caddy-polar/polar/box"
)

// teamShop sells seats: of the plan team, and of the plan club, whose buyers
// get none.
type teamShop struct {
	*shop
	purchase string // Ada's
	member   box.Member
}

const seatsPath = "/auth/polar/seats"

// startTeam runs a shop in which Ada has bought three seats.
func startTeam(t *testing.T) *teamShop {
	t.Helper()
	s := &teamShop{shop: newShop(t)}
	perSeat := box.Price{Currency: "usd", Tiers: []box.SeatTier{{Min: 1, PerSeat: 1000}}}
	team := s.box.AddProduct(box.Product{Name: "Team", Interval: "month", Price: perSeat})
	club := s.box.AddProduct(box.Product{Name: "Club", Price: perSeat})
	s.env["PRODUCT_TEAM"], s.env["PRODUCT_CLUB"] = team.ID, club.ID
	s.start(t, s.caddyfile(strings.Replace(selling, "\t\tsync off", `
		plan team {env.PRODUCT_TEAM} {
			buyer_seat on
		}
		plan club {
			products {env.PRODUCT_CLUB}
			buyer_seat off
		}
		sync off`, 1), s.site(t, "app", `
		polar
		polar_require /team/* team
		polar_require /club/* club
		reverse_proxy {upstream}`)))
	s.connect()
	s.get(t, "app", s.buySeats(t, "ada", "team", 3)).wants(t, http.StatusOK)
	customer, _ := s.box.CustomerByExternalID("ada")
	s.purchase = s.box.Subscriptions(customer.ID)[0].ID
	var err error
	s.member, err = s.box.AddMember(box.Member{CustomerID: customer.ID, Email: "grace@example.com", ExternalID: "grace"})
	if err != nil {
		t.Fatal(err)
	}
	s.box.Settle()
	return s
}

func (s *teamShop) buySeats(t *testing.T, user, plan string, seats int) (success string) {
	t.Helper()
	body := fmt.Sprintf(`{"plan":%q,"seats":%d,"successUrl":"/team/"}`, plan, seats)
	id := s.post(t, "/auth/polar/checkout", body, mailed(user)).wants(t, http.StatusOK).json(t)["id"].(string)
	return s.pay(t, id, "")
}

func (s *teamShop) claims(t *testing.T, seat string) {
	t.Helper()
	token, ok := s.box.Invitation(seat)
	if !ok {
		t.Fatal("no invitation")
	}
	if _, err := s.box.ClaimSeat(token); err != nil {
		t.Fatal(err)
	}
	s.box.Settle()
}

// unchanged checks that what is done changes no seat at Polar.
func (s *teamShop) unchanged(t *testing.T, do func()) {
	t.Helper()
	tell := func() string { return fmt.Sprint(s.box.Seats(s.purchase)) }
	before := tell()
	do()
	if after := tell(); after != before {
		t.Errorf("the seats have changed:\n%s\n%s", before, after)
	}
}

func TestSeatsRoute(t *testing.T) {
	t.Parallel()
	s := startTeam(t)
	s.get(t, "app", "/team/", as("ada")).wants(t, http.StatusOK) // the buyer's seat

	list := s.get(t, "app", seatsPath, as("ada")).wants(t, http.StatusOK).json(t)
	mine := s.box.Seats(s.purchase)[0]
	about := object{"id": s.purchase, "subscriptionId": s.purchase, "orderId": nil, "productId": s.env["PRODUCT_TEAM"]}
	want := maps.Clone(about)
	maps.Copy(want, object{"total": 3, "available": 2, "purchases": []any{about}, "seats": []any{object{
		"id": mine.ID, "status": "claimed", "email": "ada@example.com", "name": nil, "role": "owner",
		"subscriptionId": s.purchase, "orderId": nil, "expiresAt": nil, "claimedAt": told(*mine.ClaimedAt), "revokedAt": nil,
	}}})
	wantJSON(t, s.get(t, "app", seatsPath+"?id="+s.purchase, as("ada")), want)
	if fmt.Sprint(list["total"], list["available"], len(list["seats"].([]any))) != "3 2 1" {
		t.Errorf("%v", list)
	}

	// Grace is invited, which is seen at once and opens nothing; then she comes.
	r := s.post(t, seatsPath, `{"email":"grace@example.com"}`, as("ada")).wants(t, http.StatusCreated)
	if r.header.Get("Cache-Control") != "no-store" || r.header.Get("Content-Type") != "application/json" {
		t.Errorf("headers %v", r.header)
	}
	seat := r.json(t)
	id := seat["id"].(string)
	if seat["status"] != "pending" || seat["email"] != "grace@example.com" || seat["subscriptionId"] != s.purchase || seat["claimedAt"] != nil {
		t.Errorf("%v", seat)
	}
	if _, err := time.Parse(time.RFC3339, fmt.Sprint(seat["expiresAt"])); err != nil {
		t.Error(err)
	}
	if again := s.post(t, seatsPath+"/"+id, "", as("ada")).wants(t, http.StatusOK).json(t); again["id"] != id {
		t.Errorf("%v", again)
	}
	list = s.get(t, "app", seatsPath, as("ada")).wants(t, http.StatusOK).json(t)
	if fmt.Sprint(list["available"], len(list["seats"].([]any))) != "1 2" {
		t.Errorf("%v", list)
	}
	s.get(t, "app", "/team/", as("grace")).problem(t, http.StatusPaymentRequired, "no_subscription")
	s.claims(t, id)
	s.get(t, "app", "/team/", as("grace")).wants(t, http.StatusOK)
	s.post(t, seatsPath+"/"+id, "", as("ada")).problem(t, http.StatusConflict, "conflict")

	// And is out, although no webhook says so.
	s.box.SetNetwork(box.Network{Lose: true})
	gone := s.do(t, http.MethodDelete, "app", seatsPath+"/"+id, as("ada")).wants(t, http.StatusOK).json(t)
	if gone["id"] != id || gone["status"] != "revoked" || gone["email"] != nil || gone["revokedAt"] == nil || gone["role"] != nil {
		t.Errorf("%v", gone)
	}
	s.get(t, "app", "/team/", as("grace")).problem(t, http.StatusForbidden, "seat_revoked")
	list = s.get(t, "app", seatsPath, as("ada")).wants(t, http.StatusOK).json(t)
	if fmt.Sprint(list["available"], len(list["seats"].([]any))) != "2 1" {
		t.Errorf("%v", list)
	}
}

func TestWrongSeats(t *testing.T) {
	t.Parallel()
	s := startTeam(t)
	s.get(t, "app", s.buySeats(t, "eve", "team", 1)).wants(t, http.StatusOK)
	eves, _ := s.box.CustomerByExternalID("eve")
	theirs := s.box.Subscriptions(eves.ID)[0].ID
	foreign := s.box.Seats(theirs)[0].ID
	mine := s.box.Seats(s.purchase)[0].ID
	invited := s.post(t, seatsPath, `{"email":"linus@example.com"}`, as("ada")).wants(t, http.StatusCreated).json(t)["id"].(string)

	type ask struct {
		who          option
		method, path string
		body         string
	}
	invites := func(user, body string) ask { return ask{as(user), http.MethodPost, "", body} }
	for _, test := range []struct {
		name   string
		ask    ask
		status int
		code   string
		says   string
	}{
		{"taken", invites("ada", `{"email":"Linus@Example.com"}`), 409, "seat_taken", "invitation"},
		{"oneself", invites("ada", `{"email":"ada@example.com"}`), 409, "own_invitation", "somebody else"},
		{"oneself by the token", ask{mailed("eve"), "POST", "", `{"email":"EVE@example.com"}`}, 409, "own_invitation", ""},
		{"no free seats", invites("eve", `{"email":"x@example.com"}`), 409, "no_free_seats", "given away"},
		{"another's purchase", invites("eve", `{"email":"x@example.com","id":"`+s.purchase+`"}`), 404, "no_seats", ""},
		{"a plain member", invites("grace", `{"email":"x@example.com"}`), 403, "not_manager", "manage"},
		{"a stranger", invites("stranger", `{"email":"x@example.com"}`), 404, "no_seats", ""},
		{"a broken e-mail", invites("ada", `{"email":"nobody"}`), 422, "invalid_input", ""},
		{"no e-mail", invites("ada", `{}`), 400, "bad_body", "email"},
		{"an e-mail of a wrong type", invites("ada", `{"email":["x@example.com"]}`), 400, "bad_body", "email"},
		{"no object", invites("eve", `[]`), 400, "bad_body", "JSON object"},
		{"too long", invites("eve", `{"email":"`+strings.Repeat("x", 70000)+`"}`), 413, "body_too_large", ""},
		{"no token", ask{func(*http.Request) {}, "POST", "", `{"email":"x@example.com"}`}, 401, "token_missing", ""},
		{"no token to read", ask{func(*http.Request) {}, "GET", "", ""}, 401, "token_missing", ""},

		{"a foreign seat", ask{as("ada"), "DELETE", "/" + foreign, ""}, 404, "unknown_seat", ""},
		{"an unknown seat", ask{as("ada"), "DELETE", "/" + s.purchase, ""}, 404, "unknown_seat", ""},
		{"a malformed seat", ask{as("ada"), "DELETE", "/nonsense", ""}, 404, "unknown_seat", ""},
		{"a path of another kind", ask{as("ada"), "DELETE", "/..%2Fmembers", ""}, 404, "not_found", ""},
		{"a seat by a member", ask{as("grace"), "DELETE", "/" + mine, ""}, 403, "not_manager", ""},
		{"a seat by a stranger", ask{as("stranger"), "DELETE", "/" + mine, ""}, 404, "unknown_seat", ""},
		{"a seat without a token", ask{func(*http.Request) {}, "DELETE", "/" + mine, ""}, 401, "token_missing", ""},
		{"a claimed one again", ask{as("eve"), "POST", "/" + foreign, ""}, 409, "conflict", ""},
		{"a foreign one again", ask{as("eve"), "POST", "/" + invited, ""}, 404, "unknown_seat", ""},

		{"the list of a member", ask{as("grace"), "GET", "", ""}, 403, "not_manager", ""},
		{"the list of a stranger", ask{as("stranger"), "GET", "", ""}, 404, "no_seats", ""},
		{"the list of another", ask{as("eve"), "GET", "?id=" + s.purchase, ""}, 404, "no_seats", ""},
		{"the list of nonsense", ask{as("eve"), "GET", "?id=../x", ""}, 404, "no_seats", ""},

		{"wrong method", ask{as("ada"), "PUT", "", ""}, 405, "method_not_allowed", ""},
		{"wrong method for one", ask{as("ada"), "GET", "/" + mine, ""}, 405, "method_not_allowed", ""},
		{"a slash at the end", ask{as("ada"), "GET", "/", ""}, 404, "not_found", ""},
		{"below a seat", ask{as("ada"), "DELETE", "/" + mine + "/x", ""}, 404, "not_found", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			s.unchanged(t, func() {
				p := s.do(t, test.ask.method, "app", seatsPath+test.ask.path, test.ask.who, text(test.ask.body)).problem(t, test.status, test.code)
				if !strings.Contains(fmt.Sprint(p["detail"], p["error"]), test.says) {
					t.Errorf("%v", p)
				}
				if test.code == "invalid_input" && p["fields"].([]any)[0].(object)["field"] != "email" {
					t.Errorf("fields: %v", p["fields"])
				}
			})
		})
	}
	if got := s.box.Seats(theirs); len(got) != 1 || got[0].Status != "claimed" {
		t.Errorf("Eve's: %v", got)
	}
	for path, allow := range map[string]string{"": "GET, HEAD, POST, OPTIONS", "/" + mine: "DELETE, POST, OPTIONS"} {
		if r := s.do(t, http.MethodOptions, "app", seatsPath+path).wants(t, http.StatusNoContent); r.header.Get("Allow") != allow {
			t.Errorf("%s: Allow is %q", path, r.header.Get("Allow"))
		}
		r := s.do(t, http.MethodPatch, "app", seatsPath+path, as("ada"))
		r.problem(t, http.StatusMethodNotAllowed, "method_not_allowed")
		if r.header.Get("Allow") != allow {
			t.Errorf("%s: Allow is %q", path, r.header.Get("Allow"))
		}
	}
	for _, secret := range []string{"linus@example.com", "polar_mst_", "polar_cst_"} {
		if strings.Contains(s.logs(), secret) {
			t.Errorf("the log holds %s", secret)
		}
	}
}

// Another site's page does nothing with the visitor's cookie.
func TestSeatsFromElsewhere(t *testing.T) {
	t.Parallel()
	s := startTeam(t)
	id := s.box.Seats(s.purchase)[0].ID
	evil := func(r *http.Request) {
		r.Header.Set("Sec-Fetch-Site", "cross-site")
		r.Header.Set("Origin", "https://evil.example")
	}
	s.unchanged(t, func() {
		s.post(t, seatsPath, `{"email":"x@example.com"}`, cookie("ada"), evil).problem(t, http.StatusForbidden, "cross_origin")
		s.post(t, seatsPath+"/"+id, "", cookie("ada"), evil).problem(t, http.StatusForbidden, "cross_origin")
		s.do(t, http.MethodDelete, "app", seatsPath+"/"+id, cookie("ada"), evil).problem(t, http.StatusForbidden, "cross_origin")
		s.get(t, "app", seatsPath, cookie("ada"), evil).problem(t, http.StatusForbidden, "cross_origin")
	})
	own := header("Sec-Fetch-Site", "same-origin")
	s.get(t, "app", seatsPath, cookie("ada"), own).wants(t, http.StatusOK)
	friend := header("Origin", "https://www.example.com")
	r := s.post(t, seatsPath, `{"email":"x@example.com"}`, cookie("ada"), header("Sec-Fetch-Site", "cross-site"), friend).wants(t, http.StatusCreated)
	if r.header.Get("Access-Control-Allow-Origin") != "https://www.example.com" {
		t.Errorf("%v", r.header)
	}
	r = s.do(t, http.MethodOptions, "app", seatsPath+"/"+id, friend, header("Access-Control-Request-Method", "DELETE")).wants(t, http.StatusNoContent)
	if !strings.Contains(r.header.Get("Access-Control-Allow-Methods"), "DELETE") {
		t.Errorf("%v", r.header)
	}
}

// Buyers of the club want no seat of it, and say which of two purchases is meant.
func TestSeveralSeatPurchases(t *testing.T) {
	t.Parallel()
	s := startTeam(t)
	s.get(t, "app", s.buySeats(t, "ada", "club", 2)).wants(t, http.StatusOK)
	s.get(t, "app", "/club/", as("ada")).problem(t, http.StatusPaymentRequired, "plan_required")
	list := s.get(t, "app", seatsPath, as("ada")).wants(t, http.StatusOK).json(t)
	var ids []string
	for _, p := range list["purchases"].([]any) {
		ids = append(ids, p.(object)["id"].(string))
	}
	if len(ids) != 2 || !slices.Contains(ids, s.purchase) || !slices.Contains(ids, fmt.Sprint(list["id"])) {
		t.Fatalf("%v", list)
	}
	s.unchanged(t, func() {
		p := s.post(t, seatsPath, `{"email":"x@example.com"}`, as("ada")).problem(t, http.StatusBadRequest, "several_subscriptions")
		if !strings.Contains(fmt.Sprint(p["detail"]), "id") {
			t.Errorf("%v", p)
		}
	})
	for _, id := range ids {
		seat := s.post(t, seatsPath, `{"email":"x@example.com","id":"`+id+`"}`, as("ada")).wants(t, http.StatusCreated).json(t)
		if seat["subscriptionId"] != id && seat["orderId"] != id {
			t.Errorf("%s: %v", id, seat)
		}
	}
}

func TestPortalOfATeam(t *testing.T) {
	t.Parallel()
	s := startTeam(t)
	for _, user := range []string{"ada", "grace"} {
		s.post(t, "/auth/polar/portal", "", as(user)).wants(t, http.StatusOK)
	}
	s.get(t, "app", s.buySeats(t, "eve", "team", 1)).wants(t, http.StatusOK)
	customer, _ := s.box.CustomerByExternalID("eve")
	if _, err := s.box.AddMember(box.Member{CustomerID: customer.ID, Email: "grace@work.example", ExternalID: "grace"}); err != nil {
		t.Fatal(err)
	}
	s.box.Settle()
	s.post(t, "/auth/polar/portal", "", as("grace")).problem(t, http.StatusConflict, "several_teams")
}

// The seat that the gateway gave does not come back by itself.
func TestBuyersSeatOnce(t *testing.T) {
	t.Parallel()
	s := startTeam(t)
	success := s.buySeats(t, "eve", "team", 2)
	for range 3 {
		s.get(t, "app", success).wants(t, http.StatusOK)
	}
	customer, _ := s.box.CustomerByExternalID("eve")
	seats := s.box.Seats(s.box.Subscriptions(customer.ID)[0].ID)
	if len(seats) != 1 || seats[0].Status != "claimed" {
		t.Fatalf("%v", seats)
	}
	s.get(t, "app", "/team/", as("eve")).wants(t, http.StatusOK)
	s.do(t, http.MethodDelete, "app", seatsPath+"/"+seats[0].ID, as("eve")).wants(t, http.StatusOK)
	s.get(t, "app", "/team/", as("eve")).problem(t, http.StatusForbidden, "seat_revoked")
	for range 3 {
		s.get(t, "app", success).wants(t, http.StatusOK)
	}
	s.get(t, "app", "/team/", as("eve")).problem(t, http.StatusForbidden, "seat_revoked")
}

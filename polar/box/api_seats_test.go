package box

import (
	"strings"
	"testing"
)

func TestSeatsOverTheAPI(t *testing.T) {
	s := newShop(t, Options{})
	sub, acme := s.buySeats(s.team(), 2)
	other, _ := s.buy(s.pro)
	c := s.client()
	const path = "/v1/customer-seats"
	of := path + "?subscription_id=" + sub.ID
	list := func(free float64) []any {
		t.Helper()
		got := c.get(of)
		if got["total_seats"] != 2.0 || got["available_seats"] != free {
			t.Error(got["total_seats"], got["available_seats"])
		}
		return got["seats"].([]any)
	}
	list(2)
	c.refused(400, "BadRequest", "GET", path, "")
	c.refused(404, "ResourceNotFound", "GET", path+"?order_id="+sub.ID, "")
	c.refused(422, "RequestValidationError", "GET", path+"?order_id=nonsense", "")
	if got := c.get(path + "?subscription_id=" + other.ID); got["total_seats"] != 0.0 || got["available_seats"] != 0.0 {
		t.Error(got)
	}
	if res, _ := c.raw("GET", path+"/", nil); res.StatusCode != 307 {
		t.Error("the path has no slash at its end:", res.StatusCode)
	}

	in := `{"subscription_id":"` + sub.ID + `",`
	for body, want := range map[string]struct {
		status int
		code   string
	}{
		`{"email":"a@b.example"}`:                                  {400, "BadRequest"},
		in + `"email":"nonsense"}`:                                 {422, "RequestValidationError"},
		in + `"customer_id":"` + acme.ID + `"}`:                    {400, "InvalidSeatAssignmentRequest"},
		in + `"external_customer_id":"org_acme"}`:                  {400, "InvalidSeatAssignmentRequest"},
		in + `"immediate_claim":"perhaps"}`:                        {422, "RequestValidationError"},
		in + `"member_id":"` + s.org.ID + `"}`:                     {404, "ResourceNotFound"},
		`{"order_id":"` + sub.ID + `","email":"a@b.example"}`:      {404, "ResourceNotFound"},
		`{"subscription_id":"` + s.org.ID + `","email":"a@b.org"}`: {404, "ResourceNotFound"},
	} {
		c.refused(want.status, want.code, "POST", path, body)
	}
	seat := c.do(200, "POST", path, in+`"email":"grace@acme.example","metadata":{"team":"research"}}`)
	id := seat["id"].(string)
	if seat["status"] != "pending" || seat["seat_metadata"].(map[string]any)["team"] != "research" || len(list(1)) != 1 {
		t.Error(seat)
	}
	if again := c.do(200, "POST", path+"/"+id+"/resend", ""); again["id"] != id {
		t.Error(again)
	}

	token, _ := s.Invitation(id)
	admin := c.token
	c.token = "" // whoever has the link
	if info := c.get(path + "/claim/" + token); info["can_claim"] != true || info["customer_email"] != "grace@acme.example" || info["product_name"] != "Team" {
		t.Error(info)
	}
	c.refused(404, "ResourceNotFound", "GET", path+"/claim/nonsense", "")
	c.refused(400, "InvalidInvitationToken", "POST", path+"/claim", `{"invitation_token":"nonsense"}`)
	c.refused(422, "RequestValidationError", "POST", path+"/claim", `{}`)
	claimed := c.do(200, "POST", path+"/claim", `{"invitation_token":"`+token+`"}`)
	if !strings.HasPrefix(claimed["customer_session_token"].(string), "polar_mst_") || claimed["seat"].(map[string]any)["status"] != "claimed" {
		t.Error(claimed)
	}
	c.refused(404, "ResourceNotFound", "GET", path+"/claim/"+token, "")
	c.refused(401, "Unauthorized", "GET", of, "")
	c.token = admin
	c.refused(400, "SeatNotPending", "POST", path+"/"+id+"/resend", "")
	if gone := c.do(200, "DELETE", path+"/"+id, ""); gone["status"] != "revoked" || gone["customer_id"] != nil {
		t.Error(gone)
	}
	list(2)
	c.refused(404, "ResourceNotFound", "DELETE", path+"/"+s.org.ID, "")
	c.token = s.NewToken("customer_seats:read")
	list(2)
	c.do(403, "DELETE", path+"/"+id, "")
}

func TestNumberOfSeatsOverTheAPI(t *testing.T) {
	s := newShop(t, Options{})
	sub, _ := s.buySeats(s.team(), 2)
	plain, _ := s.buy(s.pro)
	must[Seat](t)(s.AssignSeat(SeatAssignment{SubscriptionID: sub.ID, Email: "a@acme.example"}))
	must[Seat](t)(s.AssignSeat(SeatAssignment{SubscriptionID: sub.ID, Email: "b@acme.example"}))
	c := s.client()
	path := "/v1/subscriptions/" + sub.ID
	if got := c.do(200, "PATCH", path, `{"seats":5,"proration_behavior":"prorate"}`); got["seats"] != 5.0 || got["amount"] != 6000.0 {
		t.Error(got["seats"], got["amount"])
	}
	if got := c.do(200, "PATCH", path, `{"seats":3,"proration_behavior":"next_period"}`); got["pending_update"].(map[string]any)["seats"] != 3.0 {
		t.Error(got["pending_update"])
	}
	c.refused(400, "SeatsAlreadyAssigned", "PATCH", path, `{"seats":1}`)
	c.refused(400, "NotASeatBasedSubscription", "PATCH", "/v1/subscriptions/"+plain.ID, `{"seats":1}`)
	for _, body := range []string{
		`{"seats":"many"}`, `{"seats":null}`, `{"seats":3,"product_id":"` + s.maxi.ID + `"}`, `{"seats":3,"proration_behavior":"sometimes"}`,
		`{"units":3,"seats":2}`, `{"units":"many"}`,
	} {
		c.refused(422, "RequestValidationError", "PATCH", path, body)
	}
	c.refused(422, "PolarRequestValidationError", "PATCH", path, `{"units":3,"proration_behavior":"invoice"}`)
	c.refused(404, "ResourceNotFound", "PATCH", "/v1/subscriptions/"+s.org.ID, `{"units":3}`)
}

func TestSeatsAtTheCheckout(t *testing.T) {
	s := newShop(t, Options{})
	team := s.team(SeatTier{Min: 2, Max: 20, PerSeat: 1000})
	c := s.client()
	open := func(more string) string { return `{"products":["` + team.ID + `"]` + more + `}` }
	for more, want := range map[string][3]any{
		``:                             {2.0, 2000.0, nil},
		`,"seats":3`:                   {3.0, 3000.0, nil},
		`,"min_seats":5,"max_seats":9`: {5.0, 5000.0, 9.0},
	} {
		got := c.do(201, "POST", "/v1/checkouts/", open(more))
		if got["seats"] != want[0] || got["net_amount"] != want[1] || got["max_seats"] != want[2] {
			t.Error(more, got["seats"], got["net_amount"], got["max_seats"])
		}
	}
	for _, more := range []string{`,"seats":1`, `,"seats":21`, `,"seats":10,"max_seats":9`} {
		c.refused(422, "PolarRequestValidationError", "POST", "/v1/checkouts/", open(more))
	}
	for _, more := range []string{`,"seats":0`, `,"seats":10001`, `,"min_seats":"few"`} {
		c.refused(422, "RequestValidationError", "POST", "/v1/checkouts/", open(more))
	}
	if got := c.do(201, "POST", "/v1/checkouts/", `{"products":["`+s.pro.ID+`"],"seats":3}`); got["seats"] != nil || got["net_amount"] != 1900.0 {
		t.Error(got["seats"], got["net_amount"])
	}
	x := s.checkout(team, "ops@acme.example")
	_, err := s.Confirm(x.ID, Payment{Seats: 21})
	refusal(t, err, 422, "PolarRequestValidationError")
	x = must[Checkout](t)(s.Confirm(x.ID, Payment{Seats: 4}))
	if sub := s.sub(x.SubscriptionID); sub.Seats != 4 || sub.Amount != 4000 {
		t.Errorf("%+v", sub)
	}
}

func TestSeatsInThePortal(t *testing.T) {
	s := newShop(t, Options{})
	sub, acme := s.buySeats(s.team(), 3)
	other, buyer := s.buy(s.pro)
	c := s.client()
	const path = "/v1/customer-portal/seats"
	admin := c.token
	enter := func(body string) {
		t.Helper()
		c.token = admin
		c.token = c.do(201, "POST", "/v1/customer-sessions/", body)["token"].(string)
	}
	owner := `{"external_customer_id":"org_acme","member_id":"` + s.Members(acme.ID)[0].ID + `"}`
	enter(owner)
	if got := c.get(path + "?subscription_id=" + sub.ID); got["available_seats"] != 3.0 {
		t.Error(got)
	}
	c.refused(404, "ResourceNotFound", "GET", path+"?subscription_id="+other.ID, "")
	c.refused(404, "ResourceNotFound", "POST", path, `{"subscription_id":"`+other.ID+`","email":"a@b.example"}`)
	seat := c.do(200, "POST", path, `{"checkout_id":"`+sub.CheckoutID+`","email":"grace@acme.example","immediate_claim":true}`)
	id := seat["id"].(string)
	if seat["subscription_id"] != sub.ID || seat["status"] != "pending" { // only the merchant spares people the invitation
		t.Error(seat)
	}
	c.do(200, "POST", path+"/"+id+"/resend", "")
	token, _ := s.Invitation(id)
	session := c.do(200, "POST", "/v1/customer-seats/claim", `{"invitation_token":"`+token+`"}`)["customer_session_token"].(string)
	if n := total(c.get(path + "/subscriptions")); n != 0 {
		t.Error("the owner has no seat:", n)
	}
	if got := c.do(200, "PATCH", "/v1/customer-portal/subscriptions/"+sub.ID, `{"seats":4}`); got["seats"] != 4.0 {
		t.Error(got["seats"])
	}
	c.refused(422, "RequestValidationError", "PATCH", "/v1/customer-portal/subscriptions/"+sub.ID, `{"seats":4,"proration_behavior":"invoice"}`)

	c.token = session // who has a seat sees the subscription, and changes nothing
	if n := total(c.get(path + "/subscriptions")); n != 1 {
		t.Error(n)
	}
	c.get("/v1/customer-portal/subscriptions/" + sub.ID)
	c.refused(403, "NotPermitted", "PATCH", "/v1/customer-portal/subscriptions/"+sub.ID, `{"seats":5}`)
	c.refused(403, "NotPermitted", "DELETE", "/v1/customer-portal/subscriptions/"+sub.ID, "")
	c.refused(403, "NotPermitted", "GET", path+"?subscription_id="+sub.ID, "")
	c.refused(403, "NotPermitted", "POST", path, `{"subscription_id":"`+sub.ID+`","email":"a@b.example"}`)
	c.refused(403, "NotPermitted", "DELETE", path+"/"+id, "")

	enter(`{"customer_id":"` + buyer.ID + `"}`)
	c.refused(404, "ResourceNotFound", "DELETE", path+"/"+id, "")
	c.refused(404, "ResourceNotFound", "POST", path+"/"+id+"/resend", "")
	enter(owner)
	if got := c.do(200, "DELETE", path+"/"+id, ""); got["status"] != "revoked" {
		t.Error(got)
	}
}

package box

import (
	"strings"
	"testing"
)

// acme is a team with an owner.
func (s *shop) acme() Customer {
	s.t.Helper()
	return must[Customer](s.t)(s.CreateCustomer(Customer{
		Type: "team", Name: "Acme Corp", ExternalID: "org_acme", Owner: Member{Email: "ops@acme.example", ExternalID: "usr_o"},
	}))
}

func TestTeamsOverTheAPI(t *testing.T) {
	s := newShop(t, Options{})
	c := s.client()
	made := c.do(201, "POST", "/v1/customers/", `{"type":"team","external_id":"org_1","owner":{"email":"ops@acme.example","external_id":"usr_o"}}`)
	if made["type"] != "team" || made["email"] != nil {
		t.Error(made)
	}
	if owner := s.Members(made["id"].(string))[0]; owner.Role != "owner" || owner.Email != "ops@acme.example" || owner.ExternalID != "usr_o" {
		t.Errorf("%+v", owner)
	}
	c.do(201, "POST", "/v1/customers/", `{"type":"team","email":"billing@b.example"}`)
	c.do(201, "POST", "/v1/customers/", `{"type":"team","owner":{"email":"x@c.example"}}`) // two without e-mail
	if nobody := c.do(201, "POST", "/v1/customers/", `{"type":"team"}`); len(s.Members(nobody["id"].(string))) != 0 {
		t.Error("who is that?")
	}
	for _, body := range []string{
		`{"type":"crowd","email":"a@b.example"}`, `{"type":"team","owner":{"email":"nonsense"}}`,
		`{"type":"individual","owner":{"email":"a@b.example"}}`,
	} {
		c.refused(422, "RequestValidationError", "POST", "/v1/customers/", body)
	}
	one := must[Customer](t)(s.CreateCustomer(Customer{Email: "ada@example.org"}))
	if got := c.do(200, "PATCH", "/v1/customers/"+one.ID, `{"type":"team"}`); got["type"] != "team" {
		t.Error(got["type"])
	}
	c.refused(422, "PolarRequestValidationError", "PATCH", "/v1/customers/"+one.ID, `{"type":"individual"}`)
}

func TestMembersOverTheAPI(t *testing.T) {
	s := newShop(t, Options{})
	acme := s.acme()
	one := must[Customer](t)(s.CreateCustomer(Customer{Email: "ada@example.org", ExternalID: "usr_1"}))
	other := must[Customer](t)(s.CreateCustomer(Customer{Type: "team", Email: "b@b.example", ExternalID: "org_b"}))
	s.Settle()
	s.news()
	c := s.client()
	path, external := "/v1/customers/"+acme.ID+"/members", "/v1/customers/external/org_acme/members"
	m := c.do(201, "POST", path, `{"email":"grace@acme.example","name":"Grace","external_id":"usr_g"}`)
	if m["role"] != "member" || m["customer_id"] != acme.ID {
		t.Error(m)
	}
	id := m["id"].(string)
	if again := c.do(201, "POST", path, `{"email":"GRACE@acme.example"}`); again["id"] != id {
		t.Error("who is there already stays:", again)
	}
	boss := c.do(201, "POST", external, `{"email":"alan@acme.example","role":"billing_manager"}`)
	c.do(201, "POST", "/v1/customers/"+other.ID+"/members", `{"email":"grace@acme.example","external_id":"usr_g"}`) // its own within a customer
	s.expect("member.created", "member.created", "member.created")
	c.refused(422, "PolarRequestValidationError", "POST", path, `{"email":"x@acme.example","external_id":"usr_g"}`)
	c.refused(403, "NotPermitted", "POST", "/v1/customers/"+one.ID+"/members", `{"email":"x@acme.example"}`)
	c.refused(404, "ResourceNotFound", "POST", "/v1/customers/external/nobody/members", `{"email":"x@acme.example"}`)
	for _, body := range []string{
		`{}`, `{"email":"nonsense"}`, `{"email":"a@b.example","role":"owner"}`, `{"email":"a@b.example","extra":1}`,
		`{"email":"a@b.example","name":"` + strings.Repeat("x", 257) + `"}`,
	} {
		c.refused(422, "RequestValidationError", "POST", path, body)
	}

	if got := c.get(external + "/usr_g"); got["id"] != id {
		t.Error(got)
	}
	c.refused(404, "ResourceNotFound", "GET", external+"/nobody", "")
	c.refused(404, "ResourceNotFound", "GET", "/v1/customers/"+other.ID+"/members/"+id, "")
	if got := c.do(200, "PATCH", external+"/usr_g", `{"name":"G. Hopper"}`); got["name"] != "G. Hopper" || got["modified_at"] == nil {
		t.Error(got)
	}
	s.expect("member.updated")
	c.refused(422, "PolarRequestValidationError", "PATCH", path+"/"+id, `{"email":"alan@acme.example"}`)
	c.refused(422, "RequestValidationError", "PATCH", path+"/"+id, `{"external_id":"usr_x"}`)
	c.refused(422, "RequestValidationError", "PATCH", path+"/"+id, `{"role":"king"}`)
	owner := s.Members(acme.ID)[0]
	c.refused(422, "PolarRequestValidationError", "PATCH", path+"/"+owner.ID, `{"role":"member"}`)
	c.refused(422, "PolarRequestValidationError", "DELETE", path+"/"+owner.ID, "")

	c.do(200, "PATCH", path+"/"+id, `{"role":"owner"}`) // and the owner before keeps the billing
	s.expect("member.updated", "member.updated")
	for query, want := range map[string]int{"role=owner": 1, "role=billing_manager": 2, "role=member": 0, "": 3} {
		if n := total(c.get("/v1/members/?external_customer_id=org_acme&" + query)); n != want {
			t.Error(query, n)
		}
	}
	c.do(204, "DELETE", path+"/"+boss["id"].(string), "")
	s.expect("member.deleted")
	c.refused(404, "ResourceNotFound", "GET", path+"/"+boss["id"].(string), "")
	c.refused(422, "PolarRequestValidationError", "DELETE", external+"/usr_g", "")
	c.do(204, "DELETE", external+"/usr_o", "")
	c.token = s.NewToken("members:read")
	c.do(403, "PATCH", path+"/"+id, `{"name":"x"}`)
}

func TestWhoLeavesLosesTheSeat(t *testing.T) {
	s := newShop(t, Options{})
	sub, acme := s.buySeats(s.team(), 2)
	seat := s.claimed(SeatAssignment{SubscriptionID: sub.ID, Email: "grace@acme.example"})
	s.claimed(SeatAssignment{SubscriptionID: sub.ID, Email: "alan@acme.example"})
	s.news()
	if err := s.RemoveMember(seat.MemberID); err != nil {
		t.Fatal(err)
	}
	s.Settle()
	events := s.expect("member.deleted", "customer_seat.revoked", "benefit_grant.revoked")
	if f := fields(t, events[1]); f["member"] != nil || f["customer_email"] != nil {
		t.Error(f)
	}
	if s.granted(acme.ID) != 1 {
		t.Error(s.granted(acme.ID))
	}
}

func TestSessionsOfTeams(t *testing.T) {
	s := newShop(t, Options{})
	sub, acme := s.buySeats(s.team(), 2)
	_, buyer := s.buy(s.pro)
	boss := must[Member](t)(s.AddMember(Member{CustomerID: acme.ID, Email: "alan@acme.example", ExternalID: "usr_a", Role: "billing_manager"}))
	c := s.client()
	admin := c.token
	const path = "/v1/customer-sessions/"
	for _, body := range []string{
		`{"external_customer_id":"org_acme"}`,
		`{"customer_id":"` + acme.ID + `"}`,
		`{"customer_id":"` + acme.ID + `","member_id":"` + s.Members(buyer.ID)[0].ID + `"}`, // another's
		`{"external_customer_id":"org_acme","external_member_id":"nobody"}`,
	} {
		c.refused(422, "PolarRequestValidationError", "POST", path, body)
	}
	for who, body := range map[string]string{
		"alan@acme.example": `{"external_customer_id":"org_acme","external_member_id":"usr_a"}`,
		"ops@acme.example":  `{"customer_id":"` + acme.ID + `","member_id":"` + s.Members(acme.ID)[0].ID + `","return_url":"https://app.example/"}`,
		"ada@example.org":   `{"external_customer_id":"usr_1"}`,
	} {
		c.token = admin
		made := c.do(201, "POST", path, body)
		c.token = made["token"].(string)
		if !strings.HasPrefix(c.token, "polar_mst_") {
			t.Error(who, c.token[:10])
		}
		if got := c.get("/v1/customer-portal/customer-session/user"); got["email"] != who || got["type"] != "member" {
			t.Error(who, got)
		}
		if n := total(c.get("/v1/customer-portal/subscriptions/")); n != 1 {
			t.Error(who, n)
		}
		if got := c.get("/v1/customer-portal/customer-session/introspect"); got["expires_at"] != made["expires_at"] || got["return_url"] != made["return_url"] {
			t.Error(who, got)
		}
		if res, page := submit(t, made["customer_portal_url"].(string), nil); res.StatusCode != 200 || !strings.Contains(page, "active") {
			t.Error(who, res.StatusCode)
		}
	}
	c.token = admin
	c.token = c.do(201, "POST", path, `{"external_customer_id":"org_acme","external_member_id":"usr_a"}`)["token"].(string)
	if got := c.do(200, "PATCH", "/v1/customer-portal/subscriptions/"+sub.ID, `{"cancel_at_period_end":true}`); got["cancel_at_period_end"] != true {
		t.Error("a billing manager may")
	}
	if err := s.RemoveMember(boss.ID); err != nil {
		t.Fatal(err)
	}
	c.refused(401, "invalid_token", "GET", "/v1/customer-portal/subscriptions/", "")
}

func TestTeamInThePortal(t *testing.T) {
	s := newShop(t, Options{})
	acme := s.acme()
	must[Member](t)(s.AddMember(Member{CustomerID: acme.ID, Email: "alan@acme.example", ExternalID: "usr_a"}))
	_, buyer := s.buy(s.pro)
	c := s.client()
	admin := c.token
	enter := func(body string) {
		t.Helper()
		c.token = admin
		c.token = c.do(201, "POST", "/v1/customer-sessions/", body)["token"].(string)
	}
	const path = "/v1/customer-portal/members"
	owner := s.Members(acme.ID)[0]
	enter(`{"external_customer_id":"org_acme","external_member_id":"usr_o"}`)
	if n := total(c.get(path)); n != 2 {
		t.Error(n)
	}
	m := c.do(201, "POST", path, `{"email":"grace@acme.example","role":"member"}`)
	id := m["id"].(string)
	c.refused(400, "BadRequest", "POST", path, `{"email":"x@acme.example","role":"owner"}`)
	c.refused(422, "RequestValidationError", "POST", path, `{"email":"x@acme.example","external_id":"x"}`)
	if got := c.do(200, "PATCH", path+"/"+id, `{"role":"billing_manager","name":"Grace"}`); got["role"] != "billing_manager" {
		t.Error(got)
	}
	c.refused(400, "BadRequest", "PATCH", path+"/"+owner.ID, `{"role":"member"}`)
	c.refused(400, "BadRequest", "DELETE", path+"/"+owner.ID, "")
	c.refused(404, "ResourceNotFound", "DELETE", path+"/"+s.Members(buyer.ID)[0].ID, "")
	c.do(204, "DELETE", path+"/"+id, "")
	enter(`{"external_customer_id":"org_acme","external_member_id":"usr_a"}`)
	c.refused(403, "NotPermitted", "GET", path, "")
	enter(`{"external_customer_id":"usr_1"}`)
	c.refused(403, "NotPermitted", "GET", path, "")
}

// A page of the portal is open to those who pay for nothing; its buttons are
// not.
func TestMembersPressNoButtons(t *testing.T) {
	s := newShop(t, Options{})
	sub, acme := s.buySeats(s.team(), 1)
	seat := s.claimed(SeatAssignment{SubscriptionID: sub.ID, Email: "grace@acme.example"})
	c := s.client()
	address := c.do(201, "POST", "/v1/customer-sessions/", `{"customer_id":"`+acme.ID+`","member_id":"`+seat.MemberID+`"}`)["customer_portal_url"].(string)
	for _, action := range []string{"cancel", "bad_card"} {
		if res, _ := submit(t, address, map[string][]string{"subscription": {sub.ID}, "action": {action}}); res.StatusCode != 403 {
			t.Error(action, res.StatusCode)
		}
	}
	if s.sub(sub.ID).CancelAtPeriodEnd {
		t.Error("cancelled")
	}
}

package box

import (
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"
)

// success is a call that succeeds. Its ids go into the path, in order; a query
// or a body may follow.
type success struct {
	method, pattern, ids, more string
	status                     int
}

func (x *success) path() string {
	ids := strings.Fields(x.ids)
	return regexp.MustCompile(`\{\w+\}`).ReplaceAllStringFunc(x.pattern, func(string) string {
		id := ids[0]
		ids = ids[1:]
		return id
	})
}

// visited is a shop that has one of everything.
type visited struct {
	*shop
	sub, later, gone     Subscription
	buyer, other, leaver Customer
	order                string
}

func (s *shop) visit() *visited {
	v := &visited{shop: s}
	v.sub, v.buyer = s.buy(s.trial)
	s.Advance(15 * day) // the trial has ended, and a renewal is paid
	v.order = s.Orders(v.buyer.ID)[1].ID
	must[Refund](s.t)(s.PreventDispute(v.order))
	v.other = must[Customer](s.t)(s.CreateCustomer(Customer{Email: "grace@example.org", ExternalID: "usr_2", Address: &Address{Country: "US"}}))
	v.leaver = must[Customer](s.t)(s.CreateCustomer(Customer{Email: "alan@example.org", ExternalID: "usr_3"}))
	subscribe := func(id, email string) Subscription {
		return s.sub(must[Checkout](s.t)(s.Buy(id, email, s.pro.ID)).SubscriptionID)
	}
	v.later, v.gone = subscribe("usr_4", "d@example.org"), subscribe("usr_5", "e@example.org")
	s.Settle()
	return v
}

// successes has each endpoint of the box.
func (v *visited) successes(hook, old Endpoint, event string) []success {
	const get, post, patch, del = http.MethodGet, http.MethodPost, http.MethodPatch, http.MethodDelete
	sub := "/v1/subscriptions/{id}"
	return []success{
		{get, "/v1/organizations/{id}", v.org.ID, "", 200},
		{get, "/v1/products/", "", "?limit=100&is_archived=false", 200},
		{get, "/v1/products/{id}", v.once.ID, "", 200},
		{get, "/v1/benefits/", "", "", 200},
		{get, "/v1/benefits/{id}", v.pro.BenefitIDs[0], "", 200},
		{get, "/v1/benefits/{id}/grants", v.pro.BenefitIDs[0], "", 200},
		{get, "/v1/benefit-grants/", "", "?is_granted=true", 200},
		{get, "/v1/customers/", "", "?email=ada@example.org", 200},
		{post, "/v1/customers/", "", `{"email":"new@example.org","external_id":"new","metadata":{"a":1,"b":true}}`, 201},
		{get, "/v1/customers/external/{external_id}", "usr_1", "", 200},
		{patch, "/v1/customers/external/{external_id}", "usr_2", `{"name":"Grace"}`, 200},
		{del, "/v1/customers/external/{external_id}", "usr_2", "", 204},
		{get, "/v1/customers/external/{external_id}/state", "usr_1", "", 200},
		{get, "/v1/customers/{id}", v.buyer.ID, "", 200},
		{patch, "/v1/customers/{id}", v.buyer.ID, `{"metadata":{"a":"b"}}`, 200},
		{del, "/v1/customers/{id}", v.leaver.ID, "", 204},
		{get, "/v1/customers/{id}/state", v.buyer.ID, "", 200},
		{get, "/v1/customers/{id}/members/{member_id}", v.buyer.ID + " " + v.members.of(v.buyer.ID)[0].ID, "", 200},
		{get, "/v1/members/", "", "", 200},
		{post, "/v1/checkouts/", "", `{"products":["` + v.pro.ID + `","` + v.once.ID + `"]}`, 201},
		{get, "/v1/checkouts/{id}", v.sub.CheckoutID, "", 200},
		{get, "/v1/subscriptions/", "", "?limit=100", 200},
		{get, sub, v.sub.ID, "", 200},
		{patch, sub, v.later.ID, `{"product_id":"` + v.maxi.ID + `","proration_behavior":"next_period"}`, 200},
		{patch, sub, v.later.ID, `{"cancel_at_period_end":true,"customer_cancellation_reason":"unused","customer_cancellation_comment":"Bye"}`, 200},
		{patch, sub, v.later.ID, `{"cancel_at_period_end":false}`, 200},
		{patch, sub, v.later.ID, `{"pause_at_period_end":true,"resumes_at":"` + stamp(v.Now().Add(90*day)) + `"}`, 200},
		{del, sub, v.gone.ID, "", 200},
		{get, "/v1/orders/", "", "?limit=100", 200},
		{get, "/v1/orders/{id}", v.order, "", 200},
		{get, "/v1/refunds/", "", "", 200},
		{post, "/v1/refunds/", "", `{"order_id":"` + v.Orders(v.gone.CustomerID)[0].ID + `","reason":"other","amount":5}`, 201},
		{get, "/v1/disputes/", "", "", 200},
		{get, "/v1/disputes/{id}", v.disputes.ids[0], "", 200},
		{get, "/v1/metrics/", "", "?interval=week&start_date=2026-10-01&end_date=2026-11-30", 200},
		{post, "/v1/customer-sessions/", "", `{"customer_id":"` + v.buyer.ID + `","return_url":"https://app.example/"}`, 201},
		{get, "/v1/customer-portal/subscriptions/", "", "", 200},
		{get, "/v1/customer-portal/subscriptions/{id}", v.sub.ID, "", 200},
		{patch, "/v1/customer-portal/subscriptions/{id}", v.sub.ID, `{"product_id":"` + v.maxi.ID + `"}`, 200},
		{del, "/v1/customer-portal/subscriptions/{id}", v.sub.ID, "", 200},
		{get, "/v1/webhooks/endpoints", "", "", 200},
		{post, "/v1/webhooks/endpoints", "", `{"url":"https://app.example/hook","format":"raw","events":["order.paid"],"name":"app"}`, 201},
		{get, "/v1/webhooks/endpoints/{id}", hook.ID, "", 200},
		{patch, "/v1/webhooks/endpoints/{id}", hook.ID, `{"name":"other"}`, 200},
		{del, "/v1/webhooks/endpoints/{id}", old.ID, "", 204},
		{patch, "/v1/webhooks/endpoints/{id}/secret", hook.ID, "", 200},
		{get, "/v1/webhooks/deliveries", "", "?limit=100", 200},
		{post, "/v1/webhooks/events/{id}/redeliver", event, "", 202},
	}
}

// crewed is a team with seats, and what a merchant sets up.
type crewed struct {
	*shop
	team                          Customer
	sub                           Subscription
	owner, member, leaver, outer  Member
	assigned, pending, gone, mine Seat
	invitations                   [2]string
	discount, dropped             Discount
	open                          Checkout
	free                          Product
}

func (s *shop) crew() *crewed {
	v := &crewed{shop: s}
	v.sub, v.team = s.buySeats(s.AddProduct(Product{Name: "Crew", Interval: "month", Price: Price{Tiers: []SeatTier{{Min: 1, PerSeat: 1200}}}}), 9)
	add := func(email, external string) Member {
		return must[Member](s.t)(s.AddMember(Member{CustomerID: v.team.ID, Email: email, ExternalID: external}))
	}
	v.owner, v.member, v.leaver, v.outer = s.Members(v.team.ID)[0], add("a@acme.example", "a"), add("b@acme.example", "b"), add("c@acme.example", "c")
	seat := func(email string) Seat {
		return must[Seat](s.t)(s.AssignSeat(SeatAssignment{SubscriptionID: v.sub.ID, Email: email}))
	}
	v.assigned, v.pending, v.gone, v.mine = seat("d@acme.example"), seat("e@acme.example"), seat("f@acme.example"), seat("g@acme.example")
	v.invitations[0], _ = s.Invitation(v.assigned.ID)
	v.invitations[1], _ = s.Invitation(v.pending.ID)
	v.discount = s.AddDiscount(Discount{Name: "Ten", Code: "TEN", BasisPoints: 1000, Duration: "once"})
	v.dropped = s.AddDiscount(Discount{Name: "Five", Amount: 500, Currency: "usd", Duration: "forever"})
	v.open = must[Checkout](s.t)(s.CreateCheckout(Checkout{ProductIDs: []string{s.pro.ID}}))
	v.free = s.AddProduct(Product{Name: "Free", Interval: "month"})
	s.Settle()
	return v
}

func (v *crewed) successes() []success {
	const get, post, patch, del = http.MethodGet, http.MethodPost, http.MethodPatch, http.MethodDelete
	const members, byExternal = "/v1/customers/{id}/members/{member_id}", "/v1/customers/external/{external_id}/members/{external_member_id}"
	const portal = "/v1/customer-portal"
	seat := `{"subscription_id":"` + v.sub.ID + `","email":"%@acme.example"}`
	return []success{
		{patch, "/v1/organizations/{id}", v.org.ID, `{"name":"Acme Inc"}`, 200},
		{post, "/v1/products/", "", `{"name":"Plan","recurring_interval":"month","prices":[{"amount_type":"fixed","price_amount":900}]}`, 201},
		{patch, "/v1/products/{id}", v.once.ID, `{"name":"For ever"}`, 200},
		{post, "/v1/products/{id}/benefits", v.once.ID, `{"benefits":["` + v.pro.BenefitIDs[0] + `"]}`, 200},
		{post, "/v1/benefits/", "", `{"type":"custom","description":"A note","properties":{"note":"Hello"}}`, 201},
		{patch, "/v1/benefits/{id}", v.pro.BenefitIDs[0], `{"type":"feature_flag","description":"More features"}`, 200},
		{post, "/v1/customers/{id}/members", v.team.ID, `{"email":"h@acme.example","external_id":"h"}`, 201},
		{patch, members, v.team.ID + " " + v.member.ID, `{"name":"A"}`, 200},
		{del, members, v.team.ID + " " + v.leaver.ID, "", 204},
		{post, "/v1/customers/external/{external_id}/members", v.team.ExternalID, `{"email":"i@acme.example"}`, 201},
		{get, byExternal, v.team.ExternalID + " a", "", 200},
		{patch, byExternal, v.team.ExternalID + " a", `{"role":"billing_manager"}`, 200},
		{del, byExternal, v.team.ExternalID + " h", "", 204},
		{get, "/v1/checkouts/", "", "?limit=100", 200},
		{patch, "/v1/checkouts/{id}", v.open.ID, `{"customer_email":"j@example.org"}`, 200},
		{post, "/v1/subscriptions/", "", `{"product_id":"` + v.free.ID + `","external_customer_id":"usr_2"}`, 201},
		{get, "/v1/customer-seats", "", "?subscription_id=" + v.sub.ID, 200},
		{post, "/v1/customer-seats", "", strings.Replace(seat, "%", "k", 1), 200},
		{get, "/v1/customer-seats/claim/{invitation_token}", v.invitations[0], "", 200},
		{post, "/v1/customer-seats/claim", "", `{"invitation_token":"` + v.invitations[0] + `"}`, 200},
		{post, "/v1/customer-seats/{seat_id}/resend", v.pending.ID, "", 200},
		{del, "/v1/customer-seats/{seat_id}", v.gone.ID, "", 200},
		{get, "/v1/discounts/", "", "", 200},
		{post, "/v1/discounts/", "", `{"name":"Half","type":"percentage","duration":"repeating","duration_in_months":3,"basis_points":5000}`, 201},
		{get, "/v1/discounts/{id}", v.discount.ID, "", 200},
		{patch, "/v1/discounts/{id}", v.discount.ID, `{"name":"A tenth"}`, 200},
		{del, "/v1/discounts/{id}", v.dropped.ID, "", 204},
		{get, portal + "/customer-session/introspect", "", "", 200},
		{get, portal + "/customer-session/user", "", "", 200},
		{get, portal + "/members", "", "", 200},
		{post, portal + "/members", "", `{"email":"l@acme.example"}`, 201},
		{patch, portal + "/members/{id}", v.outer.ID, `{"name":"C"}`, 200},
		{del, portal + "/members/{id}", v.outer.ID, "", 204},
		{get, portal + "/seats", "", "?subscription_id=" + v.sub.ID, 200},
		{post, portal + "/seats", "", strings.Replace(seat, "%", "m", 1), 200},
		{get, portal + "/seats/subscriptions", "", "", 200},
		{post, portal + "/seats/{seat_id}/resend", v.mine.ID, "", 200},
		{del, portal + "/seats/{seat_id}", v.mine.ID, "", 200},
	}
}

// TestEveryRouteSucceeds asks each endpoint of the box for a success. What it
// says is held against Polar's document, as everything is in these tests.
func TestEveryRouteSucceeds(t *testing.T) {
	s := newShop(t, Options{})
	r, hook := s.receive(Endpoint{Events: []string{"customer.created", "order.paid"}})
	r.answer(500)
	_, old := s.receive(Endpoint{Events: []string{"order.created"}})
	v := s.visit()
	c := s.client()
	admin := c.token
	called, calls := map[string]bool{}, s.crew().successes()
	own := len(calls) // then the portal is another customer's
	calls = append(calls, v.successes(hook, old, s.eventFor(hook.ID))...)
	team, _ := s.CustomerByExternalID("org_acme")
	checked := s.contract.Checked()
	for i, x := range calls {
		switch {
		case !strings.Contains(x.pattern, "/customer-portal/"):
			c.token = admin
		case i < own:
			c.token = s.ownerToken(team.ID)
		default:
			c.token = s.ownerToken(v.buyer.ID)
		}
		path, body := x.path(), x.more
		if strings.HasPrefix(body, "?") {
			path, body = path+body, ""
		}
		c.do(x.status, x.method, path, body)
		called[x.method+" "+x.pattern] = true
	}
	for _, r := range routes {
		if name := r.method + " " + strings.Join(r.pattern, "/"); !called[name] {
			t.Error("no call of", name)
		}
	}
	if n := s.contract.Checked() - checked; n != len(calls) {
		t.Errorf("%d answers were checked, want %d", n, len(calls))
	}
}

func (s *shop) eventFor(endpointID string) string {
	s.t.Helper()
	for _, a := range s.Attempts() {
		if a.EndpointID == endpointID {
			return a.EventID
		}
	}
	s.t.Fatal("nothing was sent")
	return ""
}

// Each event that the box can tell of is told here, and checked at the end.
func TestEveryEventIsTold(t *testing.T) {
	last := everything(t)
	for _, kind := range []string{
		"checkout.created", "checkout.updated", "customer.created", "customer.updated", "customer.deleted", "customer.state_changed",
		"member.created", "member.deleted", "order.created", "order.updated", "order.paid", "order.refunded", "subscription.created",
		"subscription.updated", "subscription.active", "subscription.canceled", "subscription.uncanceled", "subscription.cycled",
		"subscription.revoked", "subscription.past_due", "subscription.paused", "subscription.resumed", "refund.created",
		"product.created", "benefit.created", "benefit_grant.created", "benefit_grant.cycled", "benefit_grant.revoked",
	} {
		if _, ok := last[kind]; !ok {
			t.Error("never:", kind)
		}
	}
}

// The types of benefits and prices have schemas of their own.
func TestOtherBenefitsAndPrices(t *testing.T) {
	s := newShop(t, Options{})
	var ids []string
	for _, kind := range []string{"custom", "feature_flag"} {
		ids = append(ids, s.AddBenefit(Benefit{Type: kind, Description: kind}).ID)
	}
	free := s.AddProduct(Product{Name: "Free", Interval: "year", BenefitIDs: ids})
	s.buy(free)
	c := s.client()
	for _, list := range []string{"products", "benefits", "benefit-grants", "subscriptions", "orders"} {
		c.get("/v1/" + list + "/")
	}
}

// What is wrong with the API is said in Polar's words, too.
func TestTroublesAreInShape(t *testing.T) {
	s := newShop(t, Options{})
	h := s.contract.Handler(s)
	for _, trouble := range []Trouble{{HTML: true}, {Limit: 7}} {
		s.SetTrouble(trouble)
		before := s.contract.Checked()
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/v1/products/", nil))
		if s.contract.Checked() != before+1 {
			t.Error("not checked")
		}
	}
	s.SetTrouble(Trouble{})
	s.Advance(time.Second)
}

package box

import (
	"strings"
	"testing"
	"time"
)

func TestProductsOverTheAPI(t *testing.T) {
	s := newShop(t, Options{})
	c := s.client()
	s.news()
	const path = "/v1/products/"
	made := c.do(201, "POST", path, `{"name":"Solo","recurring_interval":"month","prices":[{"amount_type":"fixed","price_amount":900}],
		"trial_interval":"day","trial_interval_count":7,"metadata":{"tier":"solo"},"description":"For one"}`)
	id := made["id"].(string)
	price := made["prices"].([]any)[0].(map[string]any)
	if price["price_amount"] != 900.0 || price["price_currency"] != "usd" || made["visibility"] != "public" || made["trial_interval_count"] != 7.0 {
		t.Error(made)
	}
	team := c.do(201, "POST", path, `{"name":"Team","recurring_interval":"year","visibility":"draft","prices":[{"amount_type":"seat_based","seat_tiers":{
		"seat_tier_type":"graduated","tiers":[{"min_seats":2,"max_seats":4,"price_per_seat":1000},{"min_seats":5,"price_per_seat":800}]}}]}`)
	tiers := team["prices"].([]any)[0].(map[string]any)["seat_tiers"].(map[string]any)
	if tiers["seat_tier_type"] != "graduated" || tiers["minimum_seats"] != 2.0 || tiers["maximum_seats"] != nil || len(tiers["tiers"].([]any)) != 2 {
		t.Error(tiers)
	}
	s.expect("product.created", "product.created")
	fixed := `"prices":[{"amount_type":"fixed","price_amount":900}]`
	for _, body := range []string{
		`{}`, `{"name":"No price"}`, `{"name":"xx",` + fixed + `}`, `{"name":"Solo","prices":[]}`, `{"name":"Solo","prices":null}`,
		`{"name":"Solo","prices":[{"amount_type":"fixed"}]}`, `{"name":"Solo","prices":[{"amount_type":"fixed","price_amount":-1}]}`,
		`{"name":"Solo","prices":[{"amount_type":"seat_based"}]}`, `{"name":"Solo",` + fixed + `,"recurring_interval":"century"}`,
		`{"name":"Solo",` + fixed + `,"visibility":"secret"}`, `{"name":"Solo",` + fixed + `,"extra":1}`,
		`{"name":"Solo","prices":[{"amount_type":"seat_based","seat_tiers":{"tiers":[{"min_seats":1,"max_seats":2,"price_per_seat":1},{"min_seats":4,"price_per_seat":1}]}}]}`,
		`{"name":"` + strings.Repeat("x", 65) + `",` + fixed + `}`, `{"name":"Solo","prices":[{"amount_type":"custom"}]}`,
	} {
		c.refused(422, "RequestValidationError", "POST", path, body)
	}

	sub := must[Checkout](t)(s.Buy("usr_1", "ada@example.org", id)).SubscriptionID
	s.Settle()
	s.news()
	got := c.do(200, "PATCH", path+id, `{"name":"Single","is_archived":true,"visibility":"private","prices":[{"amount_type":"fixed","price_amount":1000}]}`)
	if got["name"] != "Single" || got["is_archived"] != true || got["visibility"] != "private" || got["modified_at"] == nil {
		t.Error(got)
	}
	if p := got["prices"].([]any)[0].(map[string]any); p["price_amount"] != 1000.0 || p["id"] == price["id"] {
		t.Error(p)
	}
	if s.sub(sub).Amount != 900 {
		t.Error("who has bought pays the old price")
	}
	same := got["prices"].([]any)[0].(map[string]any)["id"].(string)
	if got := c.do(200, "PATCH", path+id, `{"prices":[{"id":"`+same+`"}]}`); got["prices"].([]any)[0].(map[string]any)["id"] != same {
		t.Error("the price was to be kept")
	}
	s.expect("product.updated", "product.updated")
	c.refused(422, "PolarRequestValidationError", "POST", "/v1/checkouts/", `{"products":["`+id+`"]}`)
	c.refused(422, "RequestValidationError", "PATCH", path+id, `{"extra":1}`)
	c.refused(422, "RequestValidationError", "PATCH", path+id, `{"name":"xx"}`)
	c.refused(404, "ResourceNotFound", "PATCH", path+s.org.ID, `{"name":"Other"}`)
}

func TestProductGetsOtherBenefits(t *testing.T) {
	s := newShop(t, Options{})
	_, ada := s.buy(s.pro)
	sub, acme := s.buySeats(s.team(), 1)
	s.claimed(SeatAssignment{SubscriptionID: sub.ID, Email: "grace@acme.example"})
	c := s.client()
	s.news()
	old, other := s.pro.BenefitIDs[0], s.maxi.BenefitIDs[0]
	got := c.do(200, "POST", "/v1/products/"+s.pro.ID+"/benefits", `{"benefits":["`+old+`","`+other+`"]}`)
	if len(got["benefits"].([]any)) != 2 {
		t.Error(got["benefits"])
	}
	s.Settle()
	s.expect("product.updated", "benefit_grant.created")
	c.do(200, "POST", "/v1/products/"+s.pro.ID+"/benefits", `{"benefits":["`+other+`"]}`)
	s.Settle()
	s.expect("product.updated", "benefit_grant.revoked")
	if s.granted(ada.ID) != 1 {
		t.Error(s.granted(ada.ID))
	}
	c.do(200, "POST", "/v1/products/"+sub.ProductID+"/benefits", `{"benefits":["`+other+`"]}`)
	s.Settle()
	s.expect("product.updated", "benefit_grant.revoked", "benefit_grant.created")
	if g := s.Grants(acme.ID); s.granted(acme.ID) != 1 || g[1].MemberID != g[0].MemberID {
		t.Errorf("%+v", g)
	}
	c.refused(422, "PolarRequestValidationError", "POST", "/v1/products/"+s.pro.ID+"/benefits", `{"benefits":["`+s.org.ID+`"]}`)
	c.refused(404, "ResourceNotFound", "POST", "/v1/products/"+s.org.ID+"/benefits", `{"benefits":[]}`)
}

func TestBenefitsOverTheAPI(t *testing.T) {
	s := newShop(t, Options{})
	c := s.client()
	s.news()
	const path = "/v1/benefits/"
	made := c.do(201, "POST", path, `{"type":"custom","description":"A note","properties":{"note":"Hello"},"metadata":{"a":"b"}}`)
	id := made["id"].(string)
	flag := c.do(201, "POST", path, `{"type":"feature_flag","description":"A flag","properties":{}}`)
	if made["properties"].(map[string]any)["note"] != "Hello" || flag["type"] != "feature_flag" {
		t.Error(made, flag)
	}
	c.do(200, "PATCH", path+id, `{"type":"custom","description":"Another"}`)
	if got := c.do(200, "PATCH", path+id, `{"type":"custom","properties":{"note":null}}`); got["description"] != "Another" || got["properties"].(map[string]any)["note"] != nil {
		t.Error(got)
	}
	s.expect("benefit.created", "benefit.created", "benefit.updated", "benefit.updated")
	for _, body := range []string{
		`{}`, `{"type":"custom","description":"x","properties":{}}`, `{"type":"custom","description":"A note"}`, `{"type":"magic","description":"Magic","properties":{}}`,
		`{"type":"custom","description":"A note","properties":{"extra":1}}`, `{"type":"custom","description":"A note","properties":{"note":1}}`,
		`{"type":"custom","description":"A note","properties":{},"extra":1}`, `{"type":"discord","description":"Discord","properties":{}}`,
	} {
		c.refused(422, "RequestValidationError", "POST", path, body)
	}
	c.refused(422, "RequestValidationError", "PATCH", path+id, `{"description":"No type"}`)
	c.refused(422, "PolarRequestValidationError", "PATCH", path+id, `{"type":"feature_flag"}`)
	c.refused(404, "ResourceNotFound", "PATCH", path+s.org.ID, `{"type":"custom"}`)
}

func TestFreeSubscriptionOverTheAPI(t *testing.T) {
	s := newShop(t, Options{})
	free := s.AddProduct(Product{Name: "Free", Interval: "month", BenefitIDs: s.pro.BenefitIDs})
	one := must[Customer](t)(s.CreateCustomer(Customer{Email: "ada@example.org", ExternalID: "usr_1"}))
	s.Settle()
	s.news()
	c := s.client()
	const path = "/v1/subscriptions/"
	got := c.do(201, "POST", path, `{"product_id":"`+free.ID+`","external_customer_id":"usr_1","metadata":{"a":"b"}}`)
	s.Settle()
	s.expect("subscription.created", "subscription.active", "subscription.updated", "benefit_grant.created")
	if got["status"] != "active" || got["checkout_id"] != nil || got["metadata"].(map[string]any)["a"] != "b" || len(s.Orders(one.ID)) != 0 {
		t.Error(got)
	}
	c.do(201, "POST", path, `{"product_id":"`+free.ID+`","customer_id":"`+one.ID+`"}`)
	for body, code := range map[string]string{
		`{"customer_id":"` + one.ID + `"}`:                                                 "RequestValidationError",
		`{"product_id":"` + free.ID + `"}`:                                                 "RequestValidationError",
		`{"product_id":"` + free.ID + `","customer_id":"` + one.ID + `","extra":1}`:        "RequestValidationError",
		`{"product_id":"` + free.ID + `","customer_id":"` + s.org.ID + `"}`:                "PolarRequestValidationError",
		`{"product_id":"` + free.ID + `","external_customer_id":"nobody"}`:                 "PolarRequestValidationError",
		`{"product_id":"` + s.org.ID + `","customer_id":"` + one.ID + `"}`:                 "PolarRequestValidationError",
		`{"product_id":"` + s.pro.ID + `","customer_id":"` + one.ID + `"}`:                 "PolarRequestValidationError", // not free
		`{"product_id":"` + s.once.ID + `","customer_id":"` + one.ID + `"}`:                "PolarRequestValidationError",
		`{"product_id":"` + s.team().ID + `","customer_id":"` + one.ID + `","metadata":1}`: "RequestValidationError",
	} {
		c.refused(422, code, "POST", path, body)
	}
}

func TestCheckoutIsChanged(t *testing.T) {
	s := newShop(t, Options{})
	c := s.client()
	team := s.team()
	made := c.do(201, "POST", "/v1/checkouts/", `{"products":["`+s.pro.ID+`","`+team.ID+`"],"external_customer_id":"usr_1"}`)
	path := "/v1/checkouts/" + made["id"].(string)
	s.news()
	got := c.do(200, "PATCH", path, `{"product_id":"`+team.ID+`","seats":3,"customer_email":"ops@acme.example","metadata":{"a":"b"},
		"success_url":"https://app.example/ok?id={CHECKOUT_ID}","allow_trial":false}`)
	s.expect("checkout.updated")
	if got["product_id"] != team.ID || got["seats"] != 3.0 || got["net_amount"] != 3600.0 || got["success_url"] != "https://app.example/ok?id="+made["id"].(string) {
		t.Error(got)
	}
	for body, code := range map[string]string{
		`{"product_id":"` + s.maxi.ID + `"}`: "PolarRequestValidationError",
		`{"seats":0}`:                        "RequestValidationError",
		`{"extra":1}`:                        "RequestValidationError",
		`{"customer_email":"nonsense"}`:      "RequestValidationError",
		`{"success_url":"/rel"}`:             "RequestValidationError",
		`{"discount_id":"` + s.org.ID + `"}`: "PolarRequestValidationError",
		`{"amount":5}`:                       "RequestValidationError",
	} {
		c.refused(422, code, "PATCH", path, body)
	}
	c.refused(404, "ResourceNotFound", "PATCH", "/v1/checkouts/"+s.org.ID, `{}`)
	must[Checkout](t)(s.Confirm(made["id"].(string), Payment{}))
	s.Settle()
	c.refused(403, "NotOpenCheckout", "PATCH", path, `{"seats":4}`)
	if x, _ := s.Checkout(made["id"].(string)); len(s.Seats(x.SubscriptionID)) != 0 {
		t.Error("the merchant has a success URL by now, and so nobody claims unasked")
	}
	again := c.do(201, "POST", "/v1/checkouts/", `{"products":["`+s.pro.ID+`"]}`)
	c.refused(403, "AlreadyActiveSubscriptionError", "PATCH", "/v1/checkouts/"+again["id"].(string), `{"customer_email":"ops@acme.example"}`)
}

func TestOrganizationIsChanged(t *testing.T) {
	s := newShop(t, Options{})
	c := s.client()
	path := "/v1/organizations/" + s.org.ID
	s.news()
	got := c.do(200, "PATCH", path, `{"name":"Acme & Sons","subscription_settings":{"allow_multiple_subscriptions":true,"proration_behavior":"prorate",
		"benefit_revocation_grace_period":7,"prevent_trial_abuse":false,"allow_customer_updates":true}}`)
	if got["name"] != "Acme & Sons" || got["subscription_settings"].(map[string]any)["benefit_revocation_grace_period"] != 7.0 {
		t.Error(got)
	}
	s.expect("organization.updated")
	c.refused(422, "RequestValidationError", "PATCH", path, `{"name":"x"}`)
	c.refused(422, "RequestValidationError", "PATCH", path, `{"extra":1}`)
	c.refused(404, "ResourceNotFound", "PATCH", "/v1/organizations/"+s.pro.ID, `{}`)
	sub, customer := s.buy(s.pro)
	s.SetCard(customer.ID, false)
	s.AdvanceTo(sub.CurrentPeriodEnd.Add(time.Minute))
	if s.granted(customer.ID) != 1 {
		t.Error("the grace is not the new one")
	}
}

func TestPortalWithoutACard(t *testing.T) {
	s := newShop(t, Options{})
	free := s.AddProduct(Product{Name: "Free", Interval: "month"})
	one := must[Customer](t)(s.CreateCustomer(Customer{Email: "ada@example.org", ExternalID: "usr_1"}))
	sub := must[Subscription](t)(s.CreateSubscription(one.ID, free.ID, nil))
	c := s.client()
	c.token = c.do(201, "POST", "/v1/customer-sessions/", `{"external_customer_id":"usr_1"}`)["token"].(string)
	path := "/v1/customer-portal/subscriptions/" + sub.ID
	c.refused(409, "PaymentMethodRequired", "PATCH", path, `{"product_id":"`+s.pro.ID+`"}`)
	c.refused(422, "RequestValidationError", "PATCH", path, `{"product_id":"nonsense"}`)
	c.refused(422, "PolarRequestValidationError", "PATCH", path, `{"product_id":"`+s.org.ID+`"}`)
	if err := s.UpdateCard(one.ID, true); err != nil {
		t.Fatal(err)
	}
	if got := c.do(200, "PATCH", path, `{"product_id":"`+s.pro.ID+`"}`); got["product_id"] != s.pro.ID {
		t.Error(got["product_id"])
	}
}

// Each body that a customer may send, and what follows.
func TestPortalBodies(t *testing.T) {
	s := newShop(t, Options{})
	sub, _ := s.buy(s.pro)
	c := s.client()
	c.token = c.do(201, "POST", "/v1/customer-sessions/", `{"external_customer_id":"usr_1"}`)["token"].(string)
	path := "/v1/customer-portal/subscriptions/" + sub.ID
	patch := func(body string) map[string]any { t.Helper(); return c.do(200, "PATCH", path, body) }
	if n := total(c.get("/v1/customer-portal/subscriptions/?active=true&query=pr&product_id=" + s.pro.ID)); n != 1 {
		t.Error(n)
	}
	if n := total(c.get("/v1/customer-portal/subscriptions/?query=nothing")); n != 0 {
		t.Error(n)
	}
	must[Subscription](t)(s.ChangePlan(sub.ID, s.maxi.ID, "next_period"))
	if got := patch(`{"pending_update":null}`); got["pending_update"] != nil {
		t.Error(got["pending_update"])
	}
	resumes := stamp(s.sub(sub.ID).CurrentPeriodEnd.Add(10 * day))
	if got := patch(`{"pause_at_period_end":true,"resumes_at":"` + resumes + `"}`); got["pause_at_period_end"] != true || got["resumes_at"] != resumes {
		t.Error(got["resumes_at"])
	}
	s.AdvanceTo(s.sub(sub.ID).CurrentPeriodEnd.Add(time.Minute))
	c.token = s.ownerToken(sub.CustomerID)
	if got := patch(`{"resume":true}`); got["status"] != "active" {
		t.Error(got["status"])
	}
	s.Settle()
	if got := patch(`{"cancel_at_period_end":true,"cancellation_reason":"other","cancellation_comment":"Bye"}`); got["customer_cancellation_comment"] != "Bye" {
		t.Error(got)
	}
	c.refused(403, "AlreadyCanceledSubscription", "DELETE", path, "")
	for _, body := range []string{
		`{"cancel_at_period_end":true,"seats":1}`, `{"revoke":true}`, `{"metadata":{}}`, `{"product_id":"` + s.maxi.ID + `","proration_behavior":"reset"}`,
		`{"resume":false}`, `{"pending_update":1}`, `{"seats":"x"}`,
	} {
		c.refused(422, "RequestValidationError", "PATCH", path, body)
	}
}

// What the organization has set decides when a customer's change applies, and
// whether customers may change anything. The merchant always may.
func TestPortalPolicy(t *testing.T) {
	s := newShop(t, Options{})
	sub, _ := s.buy(s.pro)
	hidden := s.AddProduct(Product{Name: "Hidden", Interval: "month", Visibility: "private", Price: Price{Amount: 5000}})
	old := s.AddProduct(Product{Name: "Old", Interval: "month", Price: Price{Amount: 5000}})
	must[Product](t)(s.UpdateProduct(old.ID, ProductUpdate{Archived: new(true)}))
	c := s.client()
	admin := c.token
	customer := c.do(201, "POST", "/v1/customer-sessions/", `{"external_customer_id":"usr_1"}`)["token"].(string)
	settle := func(body string) map[string]any {
		t.Helper()
		c.token = admin
		defer func() { c.token = customer }()
		return c.do(200, "PATCH", "/v1/organizations/"+s.org.ID, body)
	}
	const settings = `"benefit_revocation_grace_period":0,"prevent_trial_abuse":false,"allow_customer_updates":true,"allow_multiple_subscriptions":false`
	path := "/v1/customer-portal/subscriptions/" + sub.ID
	toMax := `{"product_id":"` + s.maxi.ID + `"}`

	got := settle(`{"subscription_settings":{"proration_behavior":"next_period",` + settings + `}}`)
	if got["subscription_settings"].(map[string]any)["proration_behavior"] != "next_period" {
		t.Error(got["subscription_settings"])
	}
	if got := c.do(200, "PATCH", path, toMax); got["product_id"] != s.pro.ID || got["pending_update"] == nil {
		t.Error(got["product_id"], got["pending_update"])
	}
	c.do(200, "PATCH", path, `{"pending_update":null}`)
	c.refused(422, "PolarRequestValidationError", "PATCH", path, `{"pending_update":null}`)
	for _, id := range []string{hidden.ID, old.ID, s.once.ID} {
		c.refused(422, "PolarRequestValidationError", "PATCH", path, `{"product_id":"`+id+`"}`)
	}

	settle(`{"customer_portal_settings":{"usage":{"show":true},"subscription":{"update_plan":false,"update_seats":false}}}`)
	c.refused(403, "UpdateSubscriptionPlanNotAllowed", "PATCH", path, toMax)
	c.refused(403, "UpdateSubscriptionSeatsNotAllowed", "PATCH", path, `{"seats":3}`)
	c.do(200, "PATCH", path, `{"cancel_at_period_end":true}`)
	c.do(200, "PATCH", path, `{"cancel_at_period_end":false}`)
	c.token = admin
	got = c.do(200, "PATCH", "/v1/subscriptions/"+sub.ID, `{"product_id":"`+s.maxi.ID+`","proration_behavior":"invoice"}`)
	if got["product_id"] != s.maxi.ID {
		t.Error(got["product_id"])
	}
	c.refused(422, "RequestValidationError", "PATCH", "/v1/organizations/"+s.org.ID, `{"subscription_settings":{"proration_behavior":"reset"}}`)
}

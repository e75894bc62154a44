package integration

import (
	"cmp"
	"fmt"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/caddy-polar/caddy-polar/polar/box"
)

const subscriptionPath = "/auth/polar/subscription"

// changing is a shop with teams, whose subscriptions are changed.
type changing struct {
	*shop
	team box.Product
}

func startChanging(t *testing.T) *changing {
	t.Helper()
	s := &changing{shop: newShop(t)}
	s.team = s.box.AddProduct(box.Product{Name: "Team", Interval: "month", Price: box.Price{
		Currency: "usd", Tiers: []box.SeatTier{{Min: 2, Max: 9, PerSeat: 1000}},
	}})
	s.env["PRODUCT_TEAM"] = s.team.ID
	global := strings.Replace(selling, "plan life", "plan team {env.PRODUCT_TEAM}\n\t\tplan life", 1)
	s.start(t, s.caddyfile(global, s.paywall(t, "app")))
	return s
}

// has buys a product, and returns the subscription.
func (s *changing) has(t *testing.T, user, product string) box.Subscription {
	t.Helper()
	id := s.post(t, "/auth/polar/checkout", `{"productId":"`+product+`","seats":3}`, mailed(user)).
		wants(t, http.StatusOK).json(t)["id"].(string)
	s.get(t, "app", s.pay(t, id, "")).wants(t, http.StatusOK)
	return s.sub(t, user)
}

func (s *changing) sub(t *testing.T, user string) box.Subscription {
	t.Helper()
	customer, _ := s.box.CustomerByExternalID(user)
	subs := s.box.Subscriptions(customer.ID)
	if len(subs) == 0 {
		t.Fatalf("%s has nothing", user)
	}
	return subs[0]
}

func (s *changing) patch(t *testing.T, user, body string) *reply {
	t.Helper()
	return s.do(t, http.MethodPatch, "app", subscriptionPath, text(body), mailed(user))
}

// Each refusal of Polar's has its code, status and next step, and has changed
// nothing.
func TestRefusedChanges(t *testing.T) {
	t.Parallel()
	type setup = func(*changing, *testing.T)
	settings := func(u box.OrganizationUpdate) setup {
		return func(s *changing, _ *testing.T) { s.box.UpdateOrganization(u) }
	}
	cancel := func(s *changing, t *testing.T) {
		s.patch(t, "ada", `{"cancelAtPeriodEnd":true}`).wants(t, http.StatusOK)
	}
	lock := func(s *changing, t *testing.T) { s.box.LockSubscription(s.sub(t, "ada").ID, true) }
	end := func(s *changing, t *testing.T) { _, _ = s.box.Revoke(s.sub(t, "ada").ID) }
	behind := func(s *changing, _ *testing.T) { s.box.SetTrouble(box.Trouble{Lag: time.Hour}) }
	endUnseen := func(s *changing, t *testing.T) {
		s.box.Advance(time.Hour)
		s.box.SetTrouble(box.Trouble{Lag: time.Minute})
		end(s, t)
	}
	decline := func(s *changing, t *testing.T) {
		s.box.UpdateOrganization(box.OrganizationUpdate{Proration: new("invoice")})
		_ = s.box.SetCard(s.sub(t, "ada").CustomerID, false)
	}
	for name, tt := range map[string]struct {
		product string // default: pro
		start   setup
		body    string // default: to basic
		status  int
		code    string
		step    string
		field   string
	}{
		"charge":            {product: "basic", start: decline, body: `{"productId":"PRO"}`, status: 402, code: "payment_failed", step: "portal"},
		"card":              {product: "free", status: 409, code: "payment_method_required", step: "portal"},
		"canceled":          {start: cancel, status: 409, code: "already_canceled", step: "portal"},
		"canceled twice":    {start: cancel, body: `{"cancelAtPeriodEnd":true}`, status: 409, code: "already_canceled", step: "portal"},
		"not canceled":      {body: `{"cancelAtPeriodEnd":false}`, status: 409, code: "not_canceled"},
		"locked":            {start: lock, status: 409, code: "subscription_locked", step: "wait"},
		"once":              {body: `{"productId":"LIFE"}`, status: 422, code: "invalid_input", field: "productId"},
		"nothing scheduled": {body: `{"pendingUpdate":null}`, status: 422, code: "invalid_input", field: "pendingUpdate"},
		"of no plan":        {body: `{"productId":"OTHER"}`, status: 404, code: "unknown_product"},
		"over":              {start: end, body: `{"cancelAtPeriodEnd":false}`, status: 404, code: "unknown_subscription"},
		"over unseen":       {start: endUnseen, body: `{"cancelAtPeriodEnd":false}`, status: 404, code: "unknown_subscription"}, // Polar's 410
		"unseen":            {start: behind, status: 404, code: "unknown_subscription"},                                         // Polar's 404
		"policy":            {start: settings(box.OrganizationUpdate{NoPlanChanges: new(true)}), status: 403, code: "change_refused", step: "contact"},
		"policy of seats": {
			product: "team", start: settings(box.OrganizationUpdate{NoSeatChanges: new(true)}), body: `{"seats":4}`,
			status: 403, code: "change_refused", step: "contact",
		},
		"member":         {product: "team", start: (*changing).demote, body: `{"seats":4}`, status: 403, code: "not_manager", step: "contact"},
		"no seats":       {body: `{"seats":4}`, status: 409, code: "not_seat_based"},
		"seats in use":   {product: "team", start: (*changing).crowd, body: `{"seats":2}`, status: 409, code: "seats_assigned", step: "portal", field: "seats"},
		"too few seats":  {product: "team", body: `{"seats":0}`, status: 422, code: "seats_out_of_range", field: "seats"},
		"too many seats": {product: "team", body: `{"seats":10}`, status: 422, code: "seats_out_of_range", field: "seats"},
		"seats to none":  {product: "team", status: 422, code: "invalid_input", field: "productId"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startChanging(t)
			s.starts(t, cmp.Or(tt.product, "pro"))
			if tt.start != nil {
				tt.start(s, t)
			}
			before := s.sub(t, "ada")
			body := strings.NewReplacer("PRO", s.pro.ID, "BASIC", s.basic.ID, "LIFE", s.life.ID, "OTHER", s.other.ID).
				Replace(cmp.Or(tt.body, `{"productId":"BASIC"}`))
			p := s.patch(t, "ada", body).problem(t, tt.status, tt.code)
			if step, _ := p["nextStep"].(string); step != tt.step {
				t.Errorf("next step %q, want %q", step, tt.step)
			}
			if portal := s.origin() + "/auth/polar/portal"; (p["portalUrl"] == portal) != (tt.step == "portal") {
				t.Errorf("portalUrl %v", p["portalUrl"])
			}
			fields, _ := p["fields"].([]any)
			if (len(fields) == 1) != (tt.field != "") || tt.field != "" && fields[0].(object)["field"] != tt.field {
				t.Errorf("fields %v", p["fields"])
			}
			after := s.sub(t, "ada")
			before.Row, after.Row = box.Row{}, box.Row{}
			if !reflect.DeepEqual(before, after) {
				t.Errorf("refused, and all the same\nfrom %+v\n  to %+v", before, after)
			}
		})
	}
}

// starts gives Ada a product: the free one as who never paid has it.
func (s *changing) starts(t *testing.T, product string) {
	t.Helper()
	if product != "free" {
		s.has(t, "ada", map[string]string{"pro": s.pro.ID, "basic": s.basic.ID, "team": s.team.ID}[product])
		return
	}
	customer, err := s.box.CreateCustomer(box.Customer{Email: "ada@example.com", ExternalID: "ada"})
	if err == nil {
		_, err = s.box.CreateSubscription(customer.ID, s.free.ID, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// crowd gives all seats away: one is Ada's.
func (s *changing) crowd(t *testing.T) {
	for _, email := range []string{"x@example.com", "y@example.com"} {
		if _, err := s.box.AssignSeat(box.SeatAssignment{SubscriptionID: s.sub(t, "ada").ID, Email: email, Immediate: true}); err != nil {
			t.Fatal(err)
		}
	}
}

// demote makes Ada one member of her team among others.
func (s *changing) demote(t *testing.T) {
	team := s.sub(t, "ada").CustomerID
	boss, err := s.box.AddMember(box.Member{CustomerID: team, Email: "boss@example.com"})
	if err == nil {
		_, err = s.box.UpdateMember(boss.ID, box.MemberUpdate{Role: new("owner")})
	}
	for _, m := range s.box.Members(team) {
		if m.ExternalID == "ada" && err == nil {
			_, err = s.box.UpdateMember(m.ID, box.MemberUpdate{Role: new("member")})
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestChangeBodies(t *testing.T) {
	t.Parallel()
	s := startChanging(t)
	for body, says := range map[string]string{
		`{}`:               "one thing",
		`{"productId":""}`: "one thing",
		`{"productId":null,"seats":null,"cancelAtPeriodEnd":null}`: "one thing",
		`{"productId":"` + s.pro.ID + `","seats":3}`:               "one thing",
		`{"seats":3,"pendingUpdate":null}`:                         "one thing",
		`{"cancelAtPeriodEnd":false,"pendingUpdate":null}`:         "one thing",
		`{"pendingUpdate":{}}`:                                     "only be null",
		`{"pendingUpdate":{"productId":"` + s.pro.ID + `"}}`:       "only be null",
		`{"pendingUpdate":false}`:                                  "only be null",
		`{"seats":"3"}`:                                            "seats",
		`{"seats":1.5}`:                                            "seats",
	} {
		p := s.patch(t, "ada", body).problem(t, http.StatusBadRequest, "bad_body")
		if !strings.Contains(fmt.Sprint(p["detail"]), says) {
			t.Errorf("%s: %v", body, p["detail"])
		}
	}
}

// A scheduled change is told, taken back, and seats are changed.
func TestScheduledChange(t *testing.T) {
	t.Parallel()
	s := startChanging(t)
	sub := s.has(t, "ada", s.pro.ID)
	end := sub.CurrentPeriodEnd
	changed := func(body string) object {
		t.Helper()
		return s.patch(t, "ada", body).wants(t, http.StatusOK).json(t)["subscription"].(object)
	}
	if got := changed(`{"productId":"` + s.pro.ID + `"}`); got["productId"] != s.pro.ID || got["pendingUpdate"] != nil {
		t.Errorf("the same: %v", got)
	}
	s.box.UpdateOrganization(box.OrganizationUpdate{Proration: new("next_period")})
	got := changed(`{"productId":"` + s.basic.ID + `"}`)
	pending, _ := got["pendingUpdate"].(object)
	at, err := time.Parse(time.RFC3339, fmt.Sprint(pending["appliesAt"]))
	if got["productId"] != s.pro.ID || pending["productId"] != s.basic.ID || err != nil || !at.Equal(end.Truncate(time.Second)) {
		t.Errorf("%v, at %s", got, end)
	}
	s.get(t, "app", "/pro/", mailed("ada")).wants(t, http.StatusOK)
	s.get(t, "app", "/basic/", mailed("ada")).problem(t, http.StatusPaymentRequired, "plan_required")
	if got := changed(`{"pendingUpdate":null}`); got["pendingUpdate"] != nil {
		t.Errorf("taken back: %v", got)
	}
	if got, _ := s.box.Subscription(sub.ID); got.Pending != nil {
		t.Errorf("taken back: %+v", got.Pending)
	}
	s.box.UpdateOrganization(box.OrganizationUpdate{Proration: new("prorate")})
	changed(`{"productId":"` + s.basic.ID + `","id":"` + sub.ID + `"}`)
	s.get(t, "app", "/basic/", mailed("ada")).wants(t, http.StatusOK)
	s.get(t, "app", "/pro/", mailed("ada")).problem(t, http.StatusPaymentRequired, "plan_required")

	s.has(t, "grace", s.team.ID)
	told := s.patch(t, "grace", `{"seats":5}`).wants(t, http.StatusOK).json(t)["subscription"].(object)
	if got := s.sub(t, "grace"); got.Seats != 5 || told["seats"] != 5.0 {
		t.Errorf("told %v, there is %+v", told["seats"], got)
	}
	s.box.UpdateOrganization(box.OrganizationUpdate{Proration: new("next_period")})
	told = s.patch(t, "grace", `{"seats":4}`).wants(t, http.StatusOK).json(t)["subscription"].(object)
	if pending, _ := told["pendingUpdate"].(object); told["seats"] != 5.0 || pending["seats"] != 4.0 {
		t.Errorf("scheduled: %v", told)
	}
}

// A pass is told before somebody pays for what it gives, and they can go on.
func TestPassBeforePaying(t *testing.T) {
	t.Parallel()
	s := startShop(t)
	const checkout = "/auth/polar/checkout"
	until := time.Now().Add(48 * time.Hour).UTC().Truncate(time.Second)
	s.ask(t, http.MethodPost, "/polar/users/ada/passes", text(`{"plan":"pro","until":"`+until.Format(time.RFC3339)+`"}`), header("Content-Type", "application/json")).
		wants(t, http.StatusOK)
	s.ask(t, http.MethodPost, "/polar/users/ada/passes", text(`{"plan":"life"}`), header("Content-Type", "application/json")).wants(t, http.StatusOK)
	s.get(t, "app", "/pro/", mailed("ada")).wants(t, http.StatusOK)

	for body, query := range map[string]url.Values{
		`{"plan":"pro","successUrl":"/pro/x?y=1&z=2"}`:               {"plan": {"pro"}, "return_to": {"/pro/x?y=1&z=2"}},
		`{"productId":"` + s.pro.ID + `","locale":"de"}`:             {"productId": {s.pro.ID}, "locale": {"de"}},
		`{"products":["` + s.basic.ID + `","` + s.pro.ID + `"]}`:     {"products": {s.basic.ID + "," + s.pro.ID}},
		`{"plan":"pro","successUrl":"https://www.example.com/x"}`:    {"plan": {"pro"}, "return_to": {"https://www.example.com/x"}},
		`{"plan":"pro","seats":2,"customerEmail":"ada@example.com"}`: {"plan": {"pro"}, "seats": {"2"}},
	} {
		p := s.post(t, checkout, body, mailed("ada")).problem(t, http.StatusConflict, "has_pass")
		query.Set("anyway", "1")
		if want := s.origin() + checkout + "?" + query.Encode(); p["checkoutUrl"] != want || p["nextStep"] != "checkout" || p["portalUrl"] != nil {
			t.Errorf("%s: %v, want %s", body, p, want)
		}
		if p["until"] != until.Format(time.RFC3339) {
			t.Errorf("until %v", p["until"])
		}
	}
	if p := s.post(t, checkout, `{"plan":"life"}`, mailed("ada")).problem(t, http.StatusConflict, "has_pass"); p["until"] != nil {
		t.Errorf("a pass without end ends %v", p["until"])
	}

	// The same as a page, whose link goes on.
	page := s.get(t, "app", checkout+"?plan=pro&return_to=/pro/", cookie("ada"), browser).wants(t, http.StatusConflict)
	for _, want := range []string{
		until.Format("2 January 2006, 15:04 UTC"), "Buy it all the same", "has_pass",
		`href="` + checkout + `?anyway=1&amp;plan=pro&amp;return_to=%2Fpro%2F"`,
	} {
		if !strings.Contains(string(page.body), want) {
			t.Errorf("the page lacks %s: %s", want, page.body)
		}
	}
	s.get(t, "app", checkout+"?plan=pro", mailed("ada")).problem(t, http.StatusConflict, "has_pass")
	s.get(t, "app", checkout+"?plan=pro&anyway=0", mailed("ada")).problem(t, http.StatusConflict, "has_pass")
	to := s.get(t, "app", checkout+"?anyway=1&plan=pro&return_to=%2Fpro%2F", cookie("grace"), browser).
		wants(t, http.StatusSeeOther).header.Get("Location") // who has none is not disturbed
	if !strings.HasPrefix(to, s.box.URL+"/checkout/") {
		t.Errorf("sent to %s", to)
	}
}

func TestPassAndPayingAllTheSame(t *testing.T) {
	t.Parallel()
	s := startShop(t)
	const checkout = "/auth/polar/checkout"
	s.ask(t, http.MethodPost, "/polar/users/ada/passes", text(`{"plan":"pro"}`), header("Content-Type", "application/json")).wants(t, http.StatusOK)
	to := s.get(t, "app", checkout+"?anyway=1&plan=pro&return_to=%2Fpro%2F", cookie("ada"), browser).wants(t, http.StatusSeeOther).header.Get("Location")
	if !strings.HasPrefix(to, s.box.URL+"/checkout/") {
		t.Errorf("sent to %s", to)
	}
	id := s.post(t, checkout+"?anyway=1", `{"plan":"pro"}`, mailed("ada")).wants(t, http.StatusOK).json(t)["id"].(string)
	s.pay(t, id, "")
	s.post(t, checkout, `{"plan":"pro"}`, mailed("ada")).problem(t, http.StatusConflict, "already_subscribed")
	s.post(t, checkout+"?anyway=1", `{"plan":"pro"}`, mailed("ada")).problem(t, http.StatusConflict, "already_subscribed")
	// A refusal is about what the pass does not open.
	p := s.get(t, "app", "/basic/", as("eve")).problem(t, http.StatusPaymentRequired, "no_subscription")
	if p["checkoutUrl"] != s.origin()+checkout+"?plan=basic" {
		t.Errorf("%v", p["checkoutUrl"])
	}
}

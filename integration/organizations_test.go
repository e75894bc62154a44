package integration

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// shared is the polar block of a shop that sells to organizations.
func shared(words string) string {
	return strings.Replace(selling, "from cookie session", "from cookie session\n\t\t\t"+words, 1)
}

// member is somebody who is signed in for an organization, or for none, with a role.
func member(user, organization, role string) option {
	more := object{"email": user + "@example.com", "email_verified": true}
	if organization != "" {
		more["org_id"] = organization
	}
	if role != "" {
		more["org_role"] = role
	}
	return bearer(sign(jwt.SigningMethodHS256, []byte(jwtSecret), claims(user, more)))
}

// startOrganizations runs such a shop, without webhooks.
func startOrganizations(t *testing.T, words string) *shop {
	t.Helper()
	s := newShop(t)
	s.start(t, s.caddyfile(shared(words), s.site(t, "app", `
		polar
		@pro {
			path /matched
			polar pro
		}
		respond @pro "{http.polar.user} of {http.polar.external_customer} has it"
		respond /matched "no"
		polar_require /pro/* pro
		polar_require /basic/* basic
		reverse_proxy {upstream}`)))
	return s
}

// reason is why the plan pro is open to somebody, or not.
func reason(v object) string { return v["plans"].(object)["pro"].(object)["reason"].(string) }

// TestOrganizations: what one member has bought is open to all of the organization,
// to nobody for any other, and follows the token and not the person.
func TestOrganizations(t *testing.T) {
	t.Parallel()
	s := startOrganizations(t, "customer_claim org_id\n\t\t\tmanage_claim org_role org:admin")
	ada := func(organization string) option { return member("ada", organization, "org:admin") }
	bob := member("bob", "acme", "org:member")
	began := time.Now()
	news, end := s.eventsOf(t, bob)
	defer end()
	if v := news(); v["user"] != "bob" || reason(v) != "no_subscription" {
		t.Errorf("at first: %v", v)
	}
	id := s.post(t, "/auth/polar/checkout", `{"plan":"pro"}`, ada("acme")).wants(t, http.StatusOK).json(t)["id"].(string)
	success := s.pay(t, id, "")
	// She has switched to another organization meanwhile.
	s.get(t, "app", success, ada("umbrella"), browser).wants(t, http.StatusOK)
	if v := news(); reason(v) != "active" || time.Since(began) > 15*time.Second { // a heartbeat comes after 20
		t.Errorf("after the purchase, and %v: %v", time.Since(began), v)
	}
	customer, ok := s.box.CustomerByExternalID("acme")
	if _, other := s.box.CustomerByExternalID("ada"); !ok || other || len(s.box.Customers()) != 1 {
		t.Errorf("customers: %+v", s.box.Customers())
	}
	want := map[string]string{"user": "bob", "external-customer": "acme", "customer": customer.ID, "plan": "pro"}
	got := s.get(t, "app", "/pro/", bob, header("X-Polar-External-Customer", "umbrella")).seen(t).ours()
	for name, value := range want {
		if got[name] != value {
			t.Errorf("%s is %q, want %q", name, got[name], value)
		}
	}
	for range 2 { // nothing of one token is remembered for the next
		for organization, allowed := range map[string]bool{"acme": true, "umbrella": false, "": false, "ada": false} {
			s.sees(t, organization, ada(organization), allowed)
		}
	}
	s.post(t, "/auth/polar/checkout", `{"plan":"pro"}`, ada("acme")).problem(t, http.StatusConflict, "already_subscribed")
	s.get(t, "app", "/auth/polar/portal", ada("acme")).wants(t, http.StatusSeeOther)
	s.get(t, "app", "/auth/polar/portal", ada("umbrella")).problem(t, http.StatusNotFound, "no_customer")
	if strings.Contains(s.logs(), "without manage_claim") {
		t.Error("a warning for nothing")
	}
}

// sees checks what Ada has when her token names an organization, wherever she looks.
func (s *shop) sees(t *testing.T, organization string, ada option, allowed bool) {
	t.Helper()
	status, why, matched := http.StatusPaymentRequired, "no_subscription", "no"
	if allowed {
		status, why, matched = http.StatusOK, "active", "ada of "+organization+" has it"
	}
	s.get(t, "app", "/pro/", ada).wants(t, status)
	if got := s.get(t, "app", "/matched", ada).body; got != matched {
		t.Errorf("%q: the matcher: %s", organization, got)
	}
	if v := s.get(t, "app", "/auth/polar/entitlements", ada).wants(t, http.StatusOK).json(t); v["user"] != "ada" || reason(v) != why {
		t.Errorf("%q: entitlements: %v", organization, v)
	}
	if v := s.get(t, "app", "/auth/polar/subscription", ada).wants(t, http.StatusOK).json(t); (v["subscription"] != nil) != allowed {
		t.Errorf("%q: subscription: %v", organization, v)
	}
	next, end := s.eventsOf(t, ada)
	defer end()
	if v := next(); v["user"] != "ada" || reason(v) != why {
		t.Errorf("%q: events: %v", organization, v)
	}
	ours := s.get(t, "app", "/free", ada, header("X-Polar-External-Customer", "acme")).seen(t).ours()
	if ours["user"] != "ada" || ours["external-customer"] != organization || (ours["plans"] == "pro") != allowed {
		t.Errorf("%q: the app is told %v", organization, ours)
	}
}

// TestManagers: who may not act for the organization is told to ask, and is kept from
// all that acts for it.
func TestManagers(t *testing.T) {
	t.Parallel()
	s := startOrganizations(t, "customer_claim org_id\n\t\t\tmanage_claim org_role org:admin org:billing")
	success := s.pay(t, s.post(t, "/auth/polar/checkout", `{"plan":"pro"}`, member("ada", "acme", "org:admin")).
		wants(t, http.StatusOK).json(t)["id"].(string), "")
	s.get(t, "app", success).wants(t, http.StatusOK)
	for _, test := range []struct {
		organization, role, path string
		code, step, address      string
	}{
		{"acme", "org:billing", "/basic/", "plan_required", "change", "changeUrl"},
		{"acme", "org:member", "/basic/", "plan_required", "contact", ""},
		{"umbrella", "org:admin", "/pro/", "no_subscription", "checkout", "checkoutUrl"},
		{"umbrella", "", "/pro/", "no_subscription", "contact", ""},
		{"", "org:admin", "/pro/", "no_subscription", "contact", ""},
	} {
		p := s.get(t, "app", test.path, member("bob", test.organization, test.role)).problem(t, http.StatusPaymentRequired, test.code)
		if p["nextStep"] != test.step {
			t.Errorf("%+v: %v", test, p)
		}
		for _, name := range []string{"checkoutUrl", "changeUrl", "portalUrl"} {
			if (p[name] != nil) != (name == test.address) {
				t.Errorf("%+v: %s is %v", test, name, p[name])
			}
		}
	}
	for name, who := range map[string]option{
		"a member": member("bob", "acme", "org:member"), "no role": member("bob", "acme", ""), "no organization": member("bob", "", "org:admin"),
	} {
		for _, try := range []*reply{
			s.post(t, "/auth/polar/checkout", `{"plan":"pro"}`, who), s.get(t, "app", "/auth/polar/checkout?plan=pro", who),
			s.post(t, "/auth/polar/portal", "", who), s.get(t, "app", "/auth/polar/portal", who),
			s.do(t, http.MethodPatch, "app", "/auth/polar/subscription", who, text(`{"cancelAtPeriodEnd":true}`)),
		} {
			if p := try.problem(t, http.StatusForbidden, "not_manager"); p["nextStep"] != "contact" {
				t.Errorf("%s: %v", name, p)
			}
		}
	}
	if sub := s.box.Subscriptions(s.box.Customers()[0].ID)[0]; sub.CancelAtPeriodEnd {
		t.Error("it was canceled")
	}
	s.do(t, http.MethodPatch, "app", "/auth/polar/subscription", member("cy", "acme", "org:billing"), text(`{"cancelAtPeriodEnd":true}`)).
		wants(t, http.StatusOK)
	// One member with many tabs takes no streams from the others.
	for range 10 {
		_, end := s.eventsOf(t, member("bob", "acme", ""))
		defer end()
	}
	s.get(t, "app", "/auth/polar/events", member("bob", "acme", "")).problem(t, http.StatusTooManyRequests, "too_many_requests")
	_, end := s.eventsOf(t, member("eve", "acme", ""))
	end()
	s.get(t, "app", "/pro/", member("bob", fmt.Sprint("ac", "\n", "me"), "")).problem(t, http.StatusUnauthorized, "token_invalid")
	if !strings.Contains(s.logs(), "its customer claim is not a usable string or integer") {
		t.Error("the log does not name the claim")
	}
}

// TestOrganizationElsePerson: who has no organization pays for themselves and needs no
// role for it; without manage_claim nobody acts for an organization, and that is told.
func TestOrganizationElsePerson(t *testing.T) {
	t.Parallel()
	s := startOrganizations(t, "customer_claim org_id sub")
	wants(t, s.logs(), "customer_claim without manage_claim")
	s.post(t, "/auth/polar/checkout", `{"plan":"pro"}`, member("ada", "acme", "org:admin")).problem(t, http.StatusForbidden, "not_manager")
	success := s.pay(t, s.post(t, "/auth/polar/checkout", `{"plan":"pro"}`, member("ada", "", "")).
		wants(t, http.StatusOK).json(t)["id"].(string), "")
	s.get(t, "app", success).wants(t, http.StatusOK)
	ours := s.get(t, "app", "/pro/", member("ada", "", "")).seen(t).ours()
	if ours["user"] != "ada" || ours["external-customer"] != "ada" {
		t.Errorf("the app is told %v", ours)
	}
	s.get(t, "app", "/pro/", member("ada", "acme", "")).problem(t, http.StatusPaymentRequired, "no_subscription")
}

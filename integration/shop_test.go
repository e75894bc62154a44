package integration

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/caddy-polar/caddy-polar/polar/box"
	"github.com/caddy-polar/caddy-polar/polar/box/boxtest"
)

// shop is a server with a Polar in a box.
type shop struct {
	*server
	box               *boxtest.Server
	pro, basic, other box.Product // other is of no plan
	free, life        box.Product
}

// selling is the polar block of a shop that lives by webhooks, unlike syncing.
const selling = `
	polar {
		access_token {env.POLAR_ACCESS_TOKEN}
		server {env.POLAR_SERVER}
		webhook_secret {env.POLAR_WEBHOOK_SECRET}
		jwt {
			secret {env.JWT_SECRET}
			from header Authorization
			from cookie session
		}
		plan pro {env.PRODUCT_PRO}
		plan basic {env.PRODUCT_BASIC}
		plan starter {env.PRODUCT_FREE}
		plan life {env.PRODUCT_LIFE}
		return_to www.example.com localhost:3999
		sync off
	}`

// syncing is the same as shops have it who say nothing of sync.
var syncing = strings.Replace(selling, "\n\t\tsync off", "", 1)

func newShop(t *testing.T) *shop {
	t.Helper()
	s := &shop{server: newServer(t)}
	s.box = boxtest.Start(t, box.Options{Start: time.Now(), SigningClock: time.Now})
	s.pro = s.box.AddProduct(box.Product{Name: "Pro", Interval: "month", Price: box.Price{Amount: 1000, Currency: "usd"}})
	s.basic = s.box.AddProduct(box.Product{Name: "Basic", Interval: "month", Price: box.Price{Amount: 500, Currency: "usd"}})
	s.other = s.box.AddProduct(box.Product{Name: "Other", Interval: "month", Price: box.Price{Amount: 700, Currency: "usd"}})
	s.env["POLAR_SERVER"], s.env["POLAR_ACCESS_TOKEN"] = s.box.URL, s.box.NewToken()
	s.free = s.box.AddProduct(box.Product{Name: "Starter", Interval: "month", Price: box.Price{Currency: "usd"}})
	s.life = s.box.AddProduct(box.Product{Name: "Life", Price: box.Price{Amount: 9900, Currency: "usd"}})
	s.env["PRODUCT_PRO"], s.env["PRODUCT_BASIC"] = s.pro.ID, s.basic.ID
	s.env["PRODUCT_FREE"], s.env["PRODUCT_LIFE"] = s.free.ID, s.life.ID
	return s
}

// startShop runs a shop with a paywall, without webhooks.
func startShop(t *testing.T) *shop {
	t.Helper()
	s := newShop(t)
	s.start(t, s.caddyfile(selling, s.paywall(t, "app")))
	return s
}

// connect lets the box's webhooks reach the server.
func (s *shop) connect() *shop {
	s.box.AddEndpoint(box.Endpoint{
		URL: "http://" + s.sites["app"] + "/auth/polar/webhook", Secret: webhookSecret, Enabled: true,
	})
	return s
}

func (s *shop) origin() string { return "http://" + s.sites["app"] }

// post sends JSON.
func (s *shop) post(t *testing.T, path, body string, options ...option) *reply {
	t.Helper()
	return s.do(t, http.MethodPost, "app", path, append(options, text(body), header("Content-Type", "application/json"))...)
}

// cookie asks with the token in a cookie, as a browser does.
func cookie(user string) option {
	return func(r *http.Request) { r.AddCookie(&http.Cookie{Name: "session", Value: userToken(user)}) }
}

// mailed is a token with a verified e-mail.
func mailed(user string) option {
	return bearer(sign(jwt.SigningMethodHS256, []byte(jwtSecret), claims(user, object{
		"email": user + "@example.com", "email_verified": true,
	})))
}

// pay pays a checkout and returns where Polar sends the buyer.
func (s *shop) pay(t *testing.T, id, email string) string {
	t.Helper()
	c, err := s.box.Confirm(id, box.Payment{Email: email})
	if err != nil {
		t.Fatal(err)
	}
	s.box.Settle()
	return strings.TrimPrefix(c.SuccessURL, s.origin())
}

// buy is a whole purchase, up to where Polar sends the buyer.
func (s *shop) buy(t *testing.T, user, plan string) (success string) {
	t.Helper()
	id := s.post(t, "/auth/polar/checkout", `{"plan":"`+plan+`","successUrl":"/pro/x?y=1"}`, mailed(user)).
		wants(t, http.StatusOK).json(t)["id"].(string)
	return s.pay(t, id, "")
}

func TestBuying(t *testing.T) {
	t.Parallel()
	for name, webhooks := range map[string]bool{"webhooks": true, "no webhooks": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startShop(t)
			if webhooks {
				s.connect()
			}
			refused := s.get(t, "app", "/pro/x?y=1", mailed("ada"), browser).wants(t, http.StatusPaymentRequired)
			link := regexp.MustCompile(`href="(/auth/polar/checkout[^"]+)"`).FindStringSubmatch(string(refused.body))
			if link == nil {
				t.Fatalf("no link to the checkout: %s", refused.body)
			}
			path := strings.ReplaceAll(link[1], "&amp;", "&")
			to := s.get(t, "app", path, mailed("ada"), browser).wants(t, http.StatusSeeOther).header.Get("Location")
			if !strings.HasPrefix(to, s.box.URL+"/checkout/") {
				t.Fatalf("sent to %s", to)
			}
			resp, err := s.client.PostForm(to, url.Values{"card": {"good"}})
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			back := resp.Header.Get("Location")
			if resp.StatusCode != http.StatusSeeOther || !strings.HasPrefix(back, s.origin()+"/auth/polar/success?") ||
				!strings.Contains(back, "customer_session_token=") {
				t.Fatalf("the box sends the buyer to %d %s", resp.StatusCode, back)
			}
			if !webhooks { // nobody has been told yet
				plans := s.get(t, "app", "/auth/polar/entitlements", mailed("ada")).wants(t, http.StatusOK).json(t)["plans"].(object)
				if plans["pro"].(object)["allowed"] != false {
					t.Errorf("%v", plans)
				}
			}
			// Polar's redirect comes without the cookie, and without any token.
			page := s.get(t, "app", strings.TrimPrefix(back, s.origin()), browser).wants(t, http.StatusOK)
			if want := `<meta http-equiv="refresh" content="0;url=` + s.origin() + `/pro/x?y=1">`; !strings.Contains(string(page.body), want) {
				t.Errorf("the page does not go on: %s", page.body)
			}
			if strings.Contains(string(page.body), "customer_session_token") || page.header.Get("Referrer-Policy") != "no-referrer" {
				t.Error("Polar's token goes on")
			}
			s.get(t, "app", "/pro/x?y=1", mailed("ada")).wants(t, http.StatusOK)
			s.get(t, "app", "/basic/", mailed("ada")).problem(t, http.StatusPaymentRequired, "plan_required")
		})
	}
}

func TestCheckoutRoute(t *testing.T) {
	t.Parallel()
	s := startShop(t)
	const path = "/auth/polar/checkout"
	n := 0
	user := func() option { n++; return as(fmt.Sprint("buyer-", n)) }

	for body, checkout := range map[string]box.Checkout{
		`{"productId":"` + s.pro.ID + `"}`:                            {ProductIDs: []string{s.pro.ID}},
		`{"plan":"basic","locale":"de","seats":0}`:                    {ProductIDs: []string{s.basic.ID}},
		`{"products":["` + s.basic.ID + `","` + s.pro.ID + `"]}`:      {ProductIDs: []string{s.basic.ID, s.pro.ID}},
		`{"plan":"pro","customerEmail":"typed@example.com"}`:          {ProductIDs: []string{s.pro.ID}, CustomerEmail: "typed@example.com"},
		`{"plan":"pro","successUrl":"https://www.example.com/x"}`:     {ProductIDs: []string{s.pro.ID}},
		`{"plan":"pro","successUrl":"http://localhost:3999/"}`:        {ProductIDs: []string{s.pro.ID}},
		`{"plan":"pro","metadata":{"a":"b"},"discountId":"anything"}`: {ProductIDs: []string{s.pro.ID}},
	} {
		answer := s.post(t, path, body, user()).wants(t, http.StatusOK).json(t)
		got, ok := s.box.Checkout(answer["id"].(string))
		if !ok || answer["url"] != got.URL || len(answer) != 2 {
			t.Errorf("%s: %v", body, answer)
		}
		if fmt.Sprint(got.ProductIDs) != fmt.Sprint(checkout.ProductIDs) || got.CustomerEmail != checkout.CustomerEmail {
			t.Errorf("%s: %+v", body, got)
		}
		if got.ExternalCustomerID != fmt.Sprint("buyer-", n) || got.CustomerIP != "127.0.0.1" || len(got.Metadata) != 1 {
			t.Errorf("%s: buyer %q from %q with %v", body, got.ExternalCustomerID, got.CustomerIP, got.Metadata)
		}
	}

	for body, want := range map[string]struct {
		status int
		code   string
		says   string
	}{
		``:                                     {400, "bad_body", "productId"},
		`{}`:                                   {400, "bad_body", "productId"},
		`[]`:                                   {400, "bad_body", "JSON object"},
		`{"plan":`:                             {400, "bad_body", "JSON object"},
		`{"plan":7}`:                           {400, "bad_body", "plan"},
		`{"products":"` + s.pro.ID + `"}`:      {400, "bad_body", "products"},
		`{"plan":"pro","productId":"x"}`:       {400, "bad_body", "one way"},
		`{"plan":"gold"}`:                      {404, "unknown_plan", ""},
		`{"productId":"` + s.other.ID + `"}`:   {404, "unknown_product", ""},
		`{"productId":"nonsense"}`:             {404, "unknown_product", ""},
		`{"products":["` + s.pro.ID + `",""]}`: {404, "unknown_product", ""},
		`{"plan":"pro","successUrl":"https://evil.example/"}`:                  {400, "bad_return_to", "successUrl"},
		`{"plan":"pro","successUrl":"//evil.example/"}`:                        {400, "bad_return_to", "successUrl"},
		`{"plan":"pro","successUrl":"/\\evil.example/"}`:                       {400, "bad_return_to", "successUrl"},
		`{"plan":"pro","successUrl":"http://www.example.com/"}`:                {400, "bad_return_to", "successUrl"},
		`{"plan":"pro","successUrl":"https://www.example.com@evil.example/"}`:  {400, "bad_return_to", "successUrl"},
		`{"plan":"pro","successUrl":"javascript:alert(1)"}`:                    {400, "bad_return_to", "successUrl"},
		`{"plan":"pro","successUrl":"pro/"}`:                                   {400, "bad_return_to", "successUrl"},
		`{"plan":"pro","returnUrl":"https://evil.example/"}`:                   {400, "bad_return_to", "returnUrl"},
		`{"plan":"pro","customerEmail":"no address"}`:                          {422, "invalid_input", ""},
		`{"plan":"pro","customerEmail":"` + strings.Repeat("x", 70000) + `"}`:  {413, "body_too_large", ""},
		`{"plan":"pro","successUrl":"https://app.example.com.evil.example/x"}`: {400, "bad_return_to", ""},
	} {
		p := s.post(t, path, body, user()).problem(t, want.status, want.code)
		if !strings.Contains(fmt.Sprint(p["detail"], p["error"]), want.says) {
			t.Errorf("%.60s: %v", body, p)
		}
		if want.code == "invalid_input" && p["fields"].([]any)[0].(object)["field"] != "customerEmail" {
			t.Errorf("fields: %v", p["fields"])
		}
	}
	s.post(t, path, `{"plan":"pro"}`).problem(t, http.StatusUnauthorized, "token_missing")
}

func TestElevenCheckouts(t *testing.T) {
	t.Parallel()
	s := startShop(t)
	for range 10 {
		s.post(t, "/auth/polar/checkout", `{"plan":"pro"}`, as("eager")).wants(t, http.StatusOK)
	}
	r := s.post(t, "/auth/polar/checkout", `{"plan":"pro"}`, as("eager"))
	r.problem(t, http.StatusTooManyRequests, "too_many_requests")
	if after := r.header.Get("Retry-After"); after == "" || after == "0" {
		t.Errorf("Retry-After is %q", after)
	}
	s.get(t, "app", "/auth/polar/portal", as("eager")).problem(t, http.StatusTooManyRequests, "too_many_requests")
	s.post(t, "/auth/polar/checkout", `{"plan":"pro"}`, as("other")).wants(t, http.StatusOK)
}

func TestAlreadySubscribed(t *testing.T) {
	t.Parallel()
	s := startShop(t).connect()
	s.buy(t, "ada", "pro")
	for plan, step := range map[string]string{"pro": "portal", "basic": "change"} {
		p := s.post(t, "/auth/polar/checkout", `{"plan":"`+plan+`"}`, mailed("ada")).problem(t, http.StatusConflict, "already_subscribed")
		if p["portalUrl"] != s.origin()+"/auth/polar/portal" || p["nextStep"] != step {
			t.Errorf("%s: %v", plan, p)
		}
	}
	r := s.get(t, "app", "/auth/polar/checkout?plan=pro&return_to=/pro/", mailed("ada")).wants(t, http.StatusSeeOther)
	if to := r.header.Get("Location"); to != s.origin()+"/auth/polar/portal?return_to="+url.QueryEscape(s.origin()+"/pro/") {
		t.Errorf("sent to %s", to)
	}
	// The refusal of another plan leads to a change, not to a second purchase.
	p := s.get(t, "app", "/basic/", mailed("ada")).problem(t, http.StatusPaymentRequired, "plan_required")
	if p["nextStep"] != "change" || p["checkoutUrl"] != nil || p["changeUrl"] != s.origin()+"/auth/polar/portal" {
		t.Errorf("%v", p)
	}
}

// The next step is one that works, whatever the user has.
func TestNextSteps(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.start(t, s.caddyfile(selling, s.site(t, "app", `
		polar
		polar_require /pro/* pro
		polar_require /life/* life
		handle_errors {
			respond "{http.polar.checkout_url}"
		}
		polar_require /mine/* pro {
			refuse error
		}
		reverse_proxy {upstream}`)))
	s.connect()
	s.get(t, "app", "/auth/polar/products").wants(t, http.StatusOK) // the catalog is known
	s.buy(t, "free", "starter")
	s.buy(t, "paid", "basic")
	for _, test := range []struct{ user, path, step, address string }{
		{"nobody", "/pro/", "checkout", "/auth/polar/checkout?plan=pro"},
		{"free", "/pro/", "checkout", "/auth/polar/checkout?plan=pro"}, // it is upgraded
		{"paid", "/pro/", "change", "/auth/polar/portal"},
		{"paid", "/life/", "checkout", "/auth/polar/checkout?plan=life"}, // once, besides the subscription
	} {
		p := s.get(t, "app", test.path, mailed(test.user)).wants(t, http.StatusPaymentRequired).json(t)
		if p["nextStep"] != test.step || p[test.step+"Url"] != s.origin()+test.address {
			t.Errorf("%s at %s: %v", test.user, test.path, p)
		}
		if test.step == "checkout" {
			s.get(t, "app", test.address, mailed(test.user)).wants(t, http.StatusSeeOther)
		}
	}
	if r := s.get(t, "app", "/mine/", mailed("nobody")); string(r.body) != s.origin()+"/auth/polar/checkout?plan=pro" {
		t.Errorf("the placeholder: %s", r)
	}
}

func TestPortalRoute(t *testing.T) {
	t.Parallel()
	s := startShop(t).connect()
	const path = "/auth/polar/portal"
	s.get(t, "app", path, as("stranger")).problem(t, http.StatusNotFound, "no_customer")
	s.get(t, "app", path).problem(t, http.StatusUnauthorized, "token_missing")
	s.buy(t, "ada", "pro")
	if to := s.post(t, path, "", mailed("ada")).wants(t, http.StatusOK).json(t)["url"].(string); !strings.HasPrefix(to, s.box.URL+"/acme/portal?") {
		t.Errorf("url is %s", to)
	}
	r := s.get(t, "app", path+"?return_to=/pro/", mailed("ada")).wants(t, http.StatusSeeOther)
	resp, err := s.client.Get(r.header.Get("Location"))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusOK || !strings.Contains(string(body), s.origin()+"/pro/") {
		t.Errorf("the portal: %d %s", resp.StatusCode, body)
	}
	s.get(t, "app", path+"?return_to=https://evil.example/", mailed("ada")).problem(t, http.StatusBadRequest, "bad_return_to")

	// Somebody else's purchase under Ada's customer closes it, for both.
	id := s.post(t, "/auth/polar/checkout", `{"plan":"basic"}`, as("mallory")).wants(t, http.StatusOK).json(t)["id"].(string)
	if _, err := s.box.Confirm(id, box.Payment{Email: "ada@example.com"}); err == nil {
		t.Fatal("the box sells a second subscription to one customer")
	}
	customer, _ := s.box.CustomerByExternalID("ada")
	if _, err := s.box.Revoke(s.box.Subscriptions(customer.ID)[0].ID); err != nil {
		t.Fatal(err)
	}
	s.pay(t, id, "ada@example.com")
	for _, user := range []string{"ada", "mallory"} {
		s.get(t, "app", path, as(user)).problem(t, http.StatusConflict, "customer_not_linked")
		if v := s.get(t, "app", "/free", as(user)).seen(t); v.ours()["user"] != user || v.ours()["customer"] != "" {
			t.Errorf("%s is told a customer: %v", user, v.ours())
		}
	}
	s.get(t, "app", "/basic/", as("mallory")).wants(t, http.StatusOK)
	// Settling took the box's clock a little ahead of ours.
	waitFor(t, "the end", func() bool { return s.get(t, "app", "/pro/", as("ada")).status == http.StatusPaymentRequired })
	s.get(t, "app", "/basic/", as("ada")).problem(t, http.StatusPaymentRequired, "no_subscription")
}

func TestChangingASubscription(t *testing.T) {
	t.Parallel()
	s := startShop(t)
	const path = "/auth/polar/subscription"
	patch := func(body string, who option) *reply {
		t.Helper()
		return s.do(t, http.MethodPatch, "app", path, text(body), who)
	}
	patch(`{"cancelAtPeriodEnd":true}`, as("stranger")).problem(t, http.StatusNotFound, "unknown_subscription")
	s.get(t, "app", s.buy(t, "ada", "pro")).wants(t, http.StatusOK)
	s.get(t, "app", s.buy(t, "grace", "pro")).wants(t, http.StatusOK)
	customer, _ := s.box.CustomerByExternalID("grace")
	graces := s.box.Subscriptions(customer.ID)[0].ID

	for body, want := range map[string]struct {
		status int
		code   string
	}{
		`{}`: {400, "bad_body"},
		`{"productId":"` + s.basic.ID + `","cancelAtPeriodEnd":true}`: {400, "bad_body"},
		`{"cancelAtPeriodEnd":"yes"}`:                                 {400, "bad_body"},
		`{"productId":"` + s.other.ID + `"}`:                          {404, "unknown_product"},
		`{"id":"` + graces + `","cancelAtPeriodEnd":true}`:            {404, "unknown_subscription"},
	} {
		patch(body, mailed("ada")).problem(t, want.status, want.code)
	}
	for _, step := range []struct{ body, field, want, reason string }{
		{`{"cancelAtPeriodEnd":true}`, "cancelAtPeriodEnd", "true", "canceling"},
		{`{"cancelAtPeriodEnd":false}`, "cancelAtPeriodEnd", "false", "active"},
		{`{"productId":"` + s.basic.ID + `"}`, "plan", "basic", "active"},
	} {
		sub := patch(step.body, mailed("ada")).wants(t, http.StatusOK).json(t)["subscription"].(object)
		if fmt.Sprint(sub[step.field]) != step.want || sub["access"].(object)["reason"] != step.reason {
			t.Errorf("%s: %v", step.body, sub)
		}
	}
	s.get(t, "app", "/basic/", mailed("ada")).wants(t, http.StatusOK)
	s.get(t, "app", "/pro/", mailed("ada")).problem(t, http.StatusPaymentRequired, "plan_required")
	if sub, _ := s.box.Subscription(graces); sub.CancelAtPeriodEnd {
		t.Error("a foreign subscription was canceled")
	}
}

func TestProductsRoute(t *testing.T) {
	t.Parallel()
	s := startShop(t)
	var names []string
	for _, p := range s.get(t, "app", "/auth/polar/products").wants(t, http.StatusOK).json(t)["products"].([]any) {
		p := p.(object)
		price := p["prices"].([]any)[0].(object)
		names = append(names, fmt.Sprint(p["name"], p["plans"], p["recurringInterval"], price["amount"], price["currency"], price["amountType"]))
	}
	if got := strings.Join(names, " "); got != "Pro[pro]month1000usdfixed Basic[basic]month500usdfixed Starter[starter]month0usdfixed Life[life] <nil> 9900usdfixed" {
		t.Error(got)
	}
	s.box.SetTrouble(box.Trouble{HTML: true})
	s.get(t, "app", "/auth/polar/products").wants(t, http.StatusOK)
}

func TestStatesThatAreNotOurs(t *testing.T) {
	t.Parallel()
	s := startShop(t)
	success := s.buy(t, "ada", "pro")
	q, err := url.ParseQuery(success[strings.IndexByte(success, '?')+1:])
	if err != nil {
		t.Fatal(err)
	}
	for _, state := range []string{"", "nonsense", q.Get("state")[1:], q.Get("state") + "AAAA"} {
		to := url.Values{"state": {state}, "checkout_id": q["checkout_id"]}
		r := s.get(t, "app", "/auth/polar/success?"+to.Encode(), browser).wants(t, http.StatusSeeOther)
		if r.header.Get("Location") != "/" {
			t.Errorf("sent to %s", r.header.Get("Location"))
		}
	}
	closed := func(user string) {
		t.Helper() // not through a gate, which would ask Polar
		plans := s.get(t, "app", "/auth/polar/entitlements", as(user)).wants(t, http.StatusOK).json(t)["plans"].(object)
		if plans["pro"].(object)["allowed"] != false {
			t.Errorf("open to %s", user)
		}
	}
	closed("ada")
	// A checkout that is not Ada's opens nothing, for nobody.
	theirs, err := s.box.Buy("grace", "grace@example.com", s.pro.ID)
	if err != nil {
		t.Fatal(err)
	}
	q.Set("checkout_id", theirs.ID)
	s.get(t, "app", "/auth/polar/success?"+q.Encode(), browser).wants(t, http.StatusOK)
	closed("ada")
	closed("grace")
	// Only a gate asks Polar: this one was at a checkout, and has paid.
	s.get(t, "app", "/pro/", as("ada")).wants(t, http.StatusOK)
	s.get(t, "app", "/pro/", as("grace")).problem(t, http.StatusPaymentRequired, "no_subscription")
}

func TestOtherSites(t *testing.T) {
	t.Parallel()
	s := startShop(t)
	const checkout = "/auth/polar/checkout"
	cross := header("Sec-Fetch-Site", "cross-site")
	evil := header("Origin", "https://evil.example")
	for name, options := range map[string][]option{
		"cross-site": {cross}, "another origin": {evil}, "same-site": {header("Sec-Fetch-Site", "same-site")},
		"trusted host, plain http": {cross, header("Origin", "http://www.example.com")},
	} {
		options = append(options, cookie("ada"))
		s.post(t, checkout, `{"plan":"pro"}`, options...).problem(t, http.StatusForbidden, "cross_origin")
		s.post(t, "/auth/polar/portal", ``, options...).problem(t, http.StatusForbidden, "cross_origin")
		r := s.do(t, http.MethodPatch, "app", "/auth/polar/subscription", append(options, text(`{"cancelAtPeriodEnd":true}`))...)
		if r.status != http.StatusForbidden {
			t.Errorf("%s: PATCH got %s", name, r)
		}
	}
	for name, options := range map[string][]option{
		"same origin": {header("Sec-Fetch-Site", "same-origin"), header("Origin", s.origin())},
		"trusted":     {cross, header("Origin", "https://www.example.com")},
		"no browser":  {},
	} {
		r := s.post(t, checkout, `{"plan":"pro"}`, append(options, cookie("ada"))...)
		if r.status != http.StatusOK {
			t.Errorf("%s: %s", name, r)
		}
		if name == "trusted" && (r.header.Get("Access-Control-Allow-Origin") != "https://www.example.com" ||
			r.header.Get("Access-Control-Allow-Credentials") != "true" || !varies(r, "Origin")) {
			t.Errorf("CORS: %v", r.header)
		}
	}
	// A token in a header was put there on purpose.
	r := s.post(t, checkout, `{"plan":"pro"}`, cross, evil, as("ada")).wants(t, http.StatusOK)
	if r.header.Get("Access-Control-Allow-Origin") != "" {
		t.Error("another site may read the answer")
	}
	for _, path := range []string{checkout + "?plan=pro", "/auth/polar/portal"} {
		for _, no := range []option{
			header("Sec-Purpose", "prefetch"), header("Purpose", "prefetch"), header("X-Moz", "prefetch"),
			header("Sec-Fetch-Mode", "no-cors"), header("Sec-Fetch-Mode", "cors"), header("Sec-Fetch-Dest", "iframe"),
			header("Accept", "image/avif,image/webp,*/*;q=0.8"),
		} {
			s.get(t, "app", path, cookie("ada"), no).problem(t, http.StatusForbidden, "not_a_navigation")
		}
	}
	s.get(t, "app", checkout+"?plan=pro", cookie("ada"), browser, cross).wants(t, http.StatusSeeOther)
	s.get(t, "app", checkout+"?plan=pro", cookie("ada")).wants(t, http.StatusSeeOther)

	r = s.do(t, http.MethodOptions, "app", checkout, header("Origin", "http://localhost:3999"), header("Access-Control-Request-Method", "POST")).
		wants(t, http.StatusNoContent)
	if r.header.Get("Access-Control-Allow-Methods") == "" || r.header.Get("Access-Control-Allow-Headers") == "" {
		t.Errorf("preflight: %v", r.header)
	}
}

func TestPolarInTrouble(t *testing.T) {
	t.Parallel()
	s := startShop(t)
	checkout := func(user string) *reply {
		return s.post(t, "/auth/polar/checkout", `{"plan":"pro"}`, as(user))
	}
	s.box.SetTrouble(box.Trouble{HTML: true})
	if r := checkout("a"); r.problem(t, http.StatusServiceUnavailable, "provider_unavailable") != nil && r.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	s.box.SetTrouble(box.Trouble{Limit: 120})
	if r := checkout("b"); r.problem(t, http.StatusServiceUnavailable, "provider_unavailable") != nil && r.header.Get("Retry-After") != "120" {
		t.Errorf("Retry-After is %q", r.header.Get("Retry-After"))
	}
	s.box.SetTrouble(box.Trouble{})
}

func TestPolarRefusesTheGateway(t *testing.T) {
	t.Parallel()
	for name, token := range map[string]func(*shop) string{
		"revoked": func(s *shop) string { token := s.box.NewToken(); s.box.RevokeToken(token); return token },
		"scopes":  func(s *shop) string { return s.box.NewToken("products:read") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newShop(t)
			s.env["POLAR_ACCESS_TOKEN"] = token(s)
			s.start(t, s.caddyfile(selling, s.paywall(t, "app")))
			r := s.post(t, "/auth/polar/checkout", `{"plan":"pro"}`, as("ada"))
			r.problem(t, http.StatusBadGateway, "provider_rejected")
			if !strings.Contains(s.logs(), "check access_token") {
				t.Error("the log does not say what to check")
			}
			if strings.Contains(s.logs(), s.env["POLAR_ACCESS_TOKEN"]) || strings.Contains(string(r.body), "polar_oat") {
				t.Error("the token can be seen")
			}
		})
	}
}

func TestWithoutAccessToken(t *testing.T) {
	t.Parallel()
	s := startPaywall(t)
	for path, method := range map[string]string{
		"/auth/polar/checkout?plan=pro": "GET", "/auth/polar/portal": "GET", "/auth/polar/products": "GET",
	} {
		s.do(t, method, "app", path, as("ada")).problem(t, http.StatusServiceUnavailable, "not_configured")
	}
	s.do(t, http.MethodPatch, "app", "/auth/polar/subscription", as("ada"), text(`{"cancelAtPeriodEnd":true}`)).
		problem(t, http.StatusServiceUnavailable, "not_configured")
	if p := s.get(t, "app", "/pro/", as("ada")).problem(t, http.StatusPaymentRequired, "no_subscription"); p["checkoutUrl"] != nil {
		t.Error("a checkout is offered that cannot succeed")
	}
	if !strings.Contains(s.logs(), "no access_token") {
		t.Error("nobody was told at load")
	}
}

// events reads a stream of events, one data line at a time.
func (s *shop) events(t *testing.T, user string) (next func() object, end func()) {
	t.Helper()
	return s.eventsOf(t, as(user))
}

func (s *shop) eventsOf(t *testing.T, who option) (next func() object, end func()) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.origin()+"/auth/polar/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	who(req)
	resp, err := s.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("events: %d %v", resp.StatusCode, resp.Header)
	}
	lines := bufio.NewScanner(resp.Body)
	return func() object {
			for lines.Scan() {
				if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
					var v object
					if err := json.Unmarshal([]byte(data), &v); err != nil {
						t.Error(err)
					}
					return v
				}
			}
			return nil
		}, func() {
			cancel()
			resp.Body.Close()
		}
}

func TestEventsRoute(t *testing.T) {
	t.Parallel()
	s := startShop(t).connect()
	s.get(t, "app", "/auth/polar/events").problem(t, http.StatusUnauthorized, "token_missing")
	next, end := s.events(t, "ada")
	defer end()
	reason := func() string {
		v := next()
		if v == nil {
			t.Fatal("the stream has ended")
		}
		if v["user"] != "ada" {
			t.Errorf("events of %v", v["user"])
		}
		return v["plans"].(object)["pro"].(object)["reason"].(string)
	}
	if got := reason(); got != "no_subscription" {
		t.Errorf("at first: %s", got)
	}
	s.buy(t, "grace", "pro") // nobody else's
	s.buy(t, "ada", "pro")
	if got := reason(); got != "active" {
		t.Errorf("after the purchase: %s", got)
	}
	customer, _ := s.box.CustomerByExternalID("ada")
	if _, err := s.box.Cancel(s.box.Subscriptions(customer.ID)[0].ID, "", ""); err != nil {
		t.Fatal(err)
	}
	s.box.Settle()
	if got := reason(); got != "canceling" {
		t.Errorf("after the cancellation: %s", got)
	}
	cross := header("Sec-Fetch-Site", "cross-site")
	s.get(t, "app", "/auth/polar/events", cookie("ada"), cross).problem(t, http.StatusForbidden, "cross_origin")
	for range 9 {
		_, end := s.events(t, "ada")
		defer end()
	}
	s.get(t, "app", "/auth/polar/events", as("ada")).problem(t, http.StatusTooManyRequests, "too_many_requests")
	_, endOther := s.events(t, "grace")
	endOther()
}

// Open streams keep Caddy neither from loading a configuration nor from
// stopping.
func TestStreamsEnd(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	// Without a grace period Caddy waits for open requests for ever.
	config := strings.Replace(s.caddyfile(selling, s.paywall(t, "app")), "grace_period 2s", "grace_period 1h", 1)
	s.start(t, config)
	next, end := s.events(t, "ada")
	defer end()
	next()
	s.load(t, strings.Replace(config, "plan basic", "plan basis", 1)+"\n").wants(t, http.StatusBadRequest) // the gate wants basic
	s.load(t, strings.Replace(config, "format json", "format console", 1)).wants(t, http.StatusOK)
	if next() != nil {
		t.Error("the stream goes on after the reload")
	}
	next, end = s.events(t, "ada")
	defer end()
	next()
	began := time.Now()
	s.stop(t)
	if next() != nil || time.Since(began) > 10*time.Second {
		t.Errorf("the stop took %s", time.Since(began))
	}
}

// With sync the gateway is right without any webhook.
func TestSync(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	if _, err := s.box.Buy("early", "early@example.com", s.pro.ID); err != nil {
		t.Fatal(err)
	}
	s.box.Settle()
	s.start(t, s.caddyfile(syncing, s.paywall(t, "app")))
	s.get(t, "app", "/pro/", as("early")).wants(t, http.StatusOK) // by the first sync, or looked up before it
	waitFor(t, "the first sync", func() bool { return strings.Contains(s.logs(), "the first sync is done") })
	s.get(t, "app", "/pro/", as("nobody")).problem(t, http.StatusPaymentRequired, "no_subscription")
	// Somebody who was at a checkout is looked up, though no webhook has come.
	s.buy(t, "ada", "pro")
	s.get(t, "app", "/pro/", mailed("ada")).wants(t, http.StatusOK)
	metrics := string(s.ask(t, http.MethodGet, "/metrics").wants(t, http.StatusOK).body)
	for _, want := range []string{
		`caddy_polar_sync_last_success_timestamp_seconds{gateway="default"}`, `caddy_polar_sync_seconds_count{gateway="default"} 1`,
		`caddy_polar_sync_objects{gateway="default"} `,
		`caddy_polar_api_requests_total{endpoint="GET /v1/subscriptions/",gateway="default",status="200"}`,
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
	began := time.Now()
	s.stop(t)
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("stopping took %s", took)
	}
}

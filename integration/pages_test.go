package integration

import (
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/caddy-polar/caddy-polar/polar/box"
)

// framed is a shop with pages of its own look, that sends browsers to sign in.
func framed(more string) string {
	return strings.Replace(selling, "\n\t\tsync off", "\n\t\tsync off\n\t\tpage {\n\t\t\tname \"Field Notes\"\n\t\t}\n"+more, 1)
}

func startFramed(t *testing.T, more, site string) *shop {
	t.Helper()
	s := newShop(t)
	s.start(t, s.caddyfile(framed(more), s.site(t, "app", site)))
	return s
}

const walled = `
	polar
	polar_require /pro/* pro
	polar_require /page/* pro {
		refuse page
	}
	polar_require /json/* pro {
		refuse json
	}
	polar_require /login pro
	reverse_proxy {upstream}`

// goes checks where a browser is sent.
func (r *reply) goes(t *testing.T, to string) {
	t.Helper()
	r.wants(t, http.StatusSeeOther)
	if got := r.header.Get("Location"); got != to {
		t.Errorf("sent to %s, not %s", got, to)
	}
	if !strings.Contains(r.header.Get("Cache-Control"), "no-store") {
		t.Errorf("a redirect that caches may keep: %s", r.header.Get("Cache-Control"))
	}
}

// shows checks that it is one of our pages, with some texts.
func (r *reply) shows(t *testing.T, status int, texts ...string) *reply {
	t.Helper()
	r.wants(t, status)
	if !strings.HasPrefix(r.header.Get("Content-Type"), "text/html") || !strings.Contains(r.header.Get("Content-Security-Policy"), "default-src 'none'") {
		t.Errorf("no page: %v", r.header)
	}
	for _, text := range texts {
		if !strings.Contains(r.body, text) {
			_, body, _ := strings.Cut(r.body, "<title>")
			t.Errorf("the page lacks %q: %s", text, body)
		}
	}
	return r
}

func TestLoginURL(t *testing.T) {
	t.Parallel()
	s := startFramed(t, "login_url /login?next={return_to}", walled)
	login := func(path string) string { return "/login?next=" + url.QueryEscape(s.origin()+path) }

	for _, path := range []string{"/pro/", "/pro/x?a=b&c=%2F%26", "/auth/polar/account", "/auth/polar/checkout?plan=pro&return_to=/pro/x"} {
		s.get(t, "app", path, browser).goes(t, login(path))
		s.do(t, http.MethodHead, "app", strings.Replace(path, "/auth/polar/checkout", "/pro", 1), browser).goes(t, login(strings.Replace(path, "/auth/polar/checkout", "/pro", 1)))
	}
	s.get(t, "app", "/pro/", browser, bearer("a.b.c")).goes(t, login("/pro/"))
	s.get(t, "app", "/pro/").problem(t, http.StatusUnauthorized, "token_missing")
	s.do(t, http.MethodPost, "app", "/pro/", browser).problem(t, http.StatusUnauthorized, "token_missing")
	s.get(t, "app", "/json/", browser).problem(t, http.StatusUnauthorized, "token_missing")
	s.post(t, "/auth/polar/checkout", `{}`).problem(t, http.StatusUnauthorized, "token_missing")
	s.get(t, "app", "/page/", browser).shows(t, http.StatusUnauthorized, "Please sign in", `href="`+login("/page/")+`"`, "Field Notes")
	s.get(t, "app", "/page/").shows(t, http.StatusUnauthorized, "Please sign in") // whoever asks
	s.get(t, "app", "/pro/", browser, cookie("nobody")).shows(t, http.StatusPaymentRequired, "A subscription is required")
}

// TestRedirectLoops: who is sent in a circle is shown a page, at once if the login
// page itself is behind the gate.
func TestRedirectLoops(t *testing.T) {
	t.Parallel()
	s := startFramed(t, "login_url /login?next={return_to}\nupgrade_url /pro/plans", walled)
	s.get(t, "app", "/login?next=x", browser).shows(t, http.StatusUnauthorized, "Please sign in")
	s.get(t, "app", "/pro/plans", browser, cookie("nobody")).shows(t, http.StatusPaymentRequired, "A subscription is required")

	counted := regexp.MustCompile(`^polar_redirects=(\d); Path=/; Max-Age=10; HttpOnly; SameSite=Lax$`)
	for path, visitor := range map[string]option{"/pro/": browser, "/pro/x": cookie("nobody")} {
		count := ""
		for n := range 8 {
			r := s.get(t, "app", path, browser, visitor, func(r *http.Request) {
				if count != "" {
					r.AddCookie(&http.Cookie{Name: "polar_redirects", Value: count})
				}
			})
			if n >= 5 {
				status, text := http.StatusUnauthorized, "Signing in did not work"
				if path == "/pro/x" {
					status, text = http.StatusPaymentRequired, "A subscription is required"
				}
				r.shows(t, status, text)
				if r.header.Get("Set-Cookie") != "" {
					t.Error("the count goes on")
				}
				continue
			}
			r.wants(t, http.StatusSeeOther)
			found := counted.FindStringSubmatch(r.header.Get("Set-Cookie"))
			if found == nil {
				t.Fatalf("the cookie is %q", r.header.Get("Set-Cookie"))
			}
			count = found[1]
		}
	}
	waitFor(t, "a word to the operator", func() bool { return strings.Contains(s.logs(), "a browser is sent in a circle") })
}

func TestUpgradeURL(t *testing.T) {
	t.Parallel()
	s := startFramed(t, "upgrade_url https://www.example.com/plans?why={reason}&to={return_to}", walled)
	s.get(t, "app", "/pro/x", browser, cookie("nobody")).
		goes(t, "https://www.example.com/plans?why=no_subscription&to="+url.QueryEscape(s.origin()+"/pro/x"))
	s.get(t, "app", "/pro/x", as("nobody")).problem(t, http.StatusPaymentRequired, "no_subscription")
	s.get(t, "app", "/page/x", browser, cookie("nobody")).shows(t, http.StatusPaymentRequired, "A subscription is required")
	s.get(t, "app", "/pro/x", browser).shows(t, http.StatusUnauthorized, "Please sign in")

	s = newShop(t)
	s.box.SetTrouble(box.Trouble{HTML: true}) // nobody can be asked about strangers
	s.start(t, s.caddyfile(strings.Replace(syncing, "return_to", "upgrade_url https://www.example.com/plans\n\t\treturn_to", 1), s.site(t, "app", walled)))
	s.get(t, "app", "/pro/x", browser, cookie("another")).shows(t, http.StatusServiceUnavailable, "cannot be checked right now", "Try again", `href=""`)
}

func TestPricingPage(t *testing.T) {
	t.Parallel()
	s := startShop(t)
	const page = "/auth/polar/pricing"
	checkout := func(p box.Product, back string) string {
		if back != "" {
			back = "&amp;return_to=" + url.QueryEscape(back)
		}
		return `href="/auth/polar/checkout?products=` + p.ID + back + `"`
	}
	s.get(t, "app", page).shows(t, http.StatusOK, "<strong><bdi>$10.00</bdi></strong>", "per month", "one-time payment", "<strong>Free</strong>",
		checkout(s.pro, ""), checkout(s.life, "")).lacks(t, "Your plan", "Other<", "/auth/polar/account")
	s.get(t, "app", page+"?return_to=/pro/x%3Fa%3Db").shows(t, http.StatusOK, checkout(s.pro, s.origin()+"/pro/x?a=b"))
	s.get(t, "app", page+"?return_to=https://evil.example/").shows(t, http.StatusBadRequest, "Bad return address")
	s.get(t, "app", page, header("Accept-Language", "de-DE")).shows(t, http.StatusOK, "10,00\u00a0$</bdi>")
	s.get(t, "app", page, cookie("ada")).shows(t, http.StatusOK, checkout(s.pro, ""), "/auth/polar/account")

	s.get(t, "app", s.buy(t, "ada", "basic"), browser).wants(t, http.StatusOK)
	s.get(t, "app", page, cookie("ada")).shows(t, http.StatusOK, "Your plan", "/auth/polar/account?change=1#change", checkout(s.life, "")).
		lacks(t, checkout(s.pro, ""), checkout(s.basic, ""))
	if head := s.do(t, http.MethodHead, "app", page); head.status != http.StatusOK || head.body != "" {
		t.Errorf("HEAD: %v", head)
	}
	s.do(t, http.MethodPost, "app", page).wants(t, http.StatusMethodNotAllowed)
}

// lacks checks that a page does not have texts.
func (r *reply) lacks(t *testing.T, texts ...string) *reply {
	t.Helper()
	for _, text := range texts {
		if strings.Contains(r.body, text) {
			_, body, _ := strings.Cut(r.body, "<title>")
			t.Errorf("the page has %q: %s", text, body)
		}
	}
	return r
}

func TestPricingPageWithoutPolar(t *testing.T) {
	t.Parallel()
	startPaywall(t).get(t, "app", "/auth/polar/pricing").shows(t, http.StatusServiceUnavailable, "not_configured")
	s := startShop(t)
	s.box.SetTrouble(box.Trouble{HTML: true})
	r := s.get(t, "app", "/auth/polar/pricing").shows(t, http.StatusServiceUnavailable, "provider_unavailable")
	if r.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
}

// submit sends a form of the account page, as a browser does.
func (s *shop) submit(t *testing.T, user string, fields ...string) *reply {
	t.Helper()
	form := url.Values{}
	for i := 0; i < len(fields); i += 2 {
		form.Set(fields[i], fields[i+1])
	}
	return s.do(t, http.MethodPost, "app", "/auth/polar/account", cookie(user), text(form.Encode()), browser,
		header("Content-Type", "application/x-www-form-urlencoded"), header("Origin", s.origin()), header("Sec-Fetch-Site", "same-origin"))
}

// did checks that a form has done something, and that the next page says so.
func (r *reply) did(t *testing.T, what string) {
	t.Helper()
	r.goes(t, "/auth/polar/account")
	if want := "polar_done=" + what + "; Path=/auth/polar/account; Max-Age=30; HttpOnly; SameSite=Strict"; r.header.Get("Set-Cookie") != want {
		t.Errorf("the cookie is %s", r.header.Get("Set-Cookie"))
	}
}

// account is the page, as the user sees it.
func (s *shop) account(t *testing.T, user string) *reply {
	t.Helper()
	return s.get(t, "app", "/auth/polar/account", browser, cookie(user))
}

func TestAccountForms(t *testing.T) {
	t.Parallel()
	s := startShop(t)
	s.account(t, "ada").shows(t, http.StatusOK, "You have not bought anything yet.", "/auth/polar/pricing").lacks(t, "/auth/polar/portal")
	s.get(t, "app", s.buy(t, "ada", "basic"), browser).wants(t, http.StatusOK)
	id := s.get(t, "app", "/auth/polar/subscription", as("ada")).json(t)["subscription"].(object)["id"].(string)
	s.account(t, "ada").shows(t, http.StatusOK, "Basic", "Renews on", "Cancel subscription", "Change plan", `value="`+s.pro.ID+`"`, "/auth/polar/portal").
		lacks(t, `value="`+s.basic.ID+`"`, `value="`+s.other.ID+`"`, `value="`+s.life.ID+`"`)

	s.submit(t, "ada", "do", "cancel", "id", id).did(t, "cancel")
	s.get(t, "app", "/auth/polar/account", browser, cookie("ada"), func(r *http.Request) { r.AddCookie(&http.Cookie{Name: "polar_done", Value: "cancel"}) }).
		shows(t, http.StatusOK, "The subscription is canceled", "Canceled. Open until", "Keep subscription").lacks(t, "Cancel subscription", "Change plan")
	s.submit(t, "ada", "do", "keep", "id", id).did(t, "keep")
	s.account(t, "ada").shows(t, http.StatusOK, "Renews on").lacks(t, "Keep subscription")
	s.submit(t, "ada", "do", "change", "id", id, "product", s.pro.ID).did(t, "change")
	s.account(t, "ada").shows(t, http.StatusOK, "<bdi>Pro</bdi>", "Renews on")
	s.get(t, "app", "/pro/x", as("ada")).wants(t, http.StatusOK)

	// What is wrong is said on the page, and changes nothing.
	s.submit(t, "ada", "do", "change", "id", id, "product", s.other.ID).shows(t, http.StatusNotFound, `role="alert"`, "No such product", "Renews on")
	s.submit(t, "ada", "do", "cancel", "id", "11111111-1111-4111-8111-111111111111").shows(t, http.StatusNotFound, "No such subscription")
	s.submit(t, "bob", "do", "cancel", "id", id).shows(t, http.StatusNotFound, "No such subscription")
	s.submit(t, "ada", "do", "delete", "id", id).shows(t, http.StatusBadRequest, "bad_body")
	s.submit(t, "ada", "do", "cancel", "id", strings.Repeat("x", 70_000)).shows(t, http.StatusRequestEntityTooLarge, "body_too_large")
	s.account(t, "ada").shows(t, http.StatusOK, "Renews on")
	s.get(t, "app", "/auth/polar/account", browser, cookie("ada"), func(r *http.Request) { r.AddCookie(&http.Cookie{Name: "polar_done", Value: "nonsense"}) }).
		lacks(t, `role="status"`)

	// Nor can another site do it, or somebody who is not signed in.
	for _, from := range []option{header("Sec-Fetch-Site", "cross-site"), header("Origin", "https://evil.example")} {
		r := s.do(t, http.MethodPost, "app", "/auth/polar/account", cookie("ada"), text("do=cancel&id="+id), from, header("Content-Type", "application/x-www-form-urlencoded"))
		r.shows(t, http.StatusForbidden, "cross_origin")
	}
	s.do(t, http.MethodPost, "app", "/auth/polar/account", text("do=cancel"), header("Content-Type", "application/x-www-form-urlencoded")).shows(t, http.StatusUnauthorized, "Please sign in")
	s.account(t, "ada").shows(t, http.StatusOK, "Renews on")
}

// TestAccountOfThePastDue: what a customer in trouble meets leads to the payment.
func TestAccountOfThePastDue(t *testing.T) {
	t.Parallel()
	s := startShop(t)
	u, now := newSubscriber(s.pro.ID), time.Now().UTC()
	s.deliver(t, "app", u.event(t, "subscription.past_due", object{"past_due_at": wire(now.Add(-2 * day)), "modified_at": wire(now.Add(-2 * day))}))
	portal := `href="/auth/polar/portal?return_to=%2Fauth%2Fpolar%2Faccount"`
	s.account(t, u.user).shows(t, http.StatusOK, "The last payment failed.", "<bdi>5</bdi> days left", ">Payment failed<", "Update your payment method", portal).lacks(t, "Change plan")
	s.deliver(t, "app", u.event(t, "subscription.past_due", object{"past_due_at": wire(now.Add(-9 * day)), "modified_at": wire(now.Add(-day))}))
	s.account(t, u.user).shows(t, http.StatusOK, "access ended on", portal)
	s.get(t, "app", "/pro/", browser, cookie(u.user)).shows(t, http.StatusPaymentRequired, "A payment has failed", "access ended on", "<bdi>12</bdi> days left", "Update your payment method",
		"/auth/polar/portal?return_to="+url.QueryEscape(s.origin()+"/pro/"))
	s.deliver(t, "app", u.active(t))
	s.account(t, u.user).shows(t, http.StatusOK, "Renews on").lacks(t, ">Payment failed<")
}

func TestAccountWithSeats(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	team := s.box.AddProduct(box.Product{Name: "Team", Interval: "month", Price: box.Price{Currency: "usd", Tiers: []box.SeatTier{{Min: 1, PerSeat: 500}}}})
	s.env["PRODUCT_PRO"] = team.ID
	s.start(t, s.caddyfile(selling, s.paywall(t, "app")))
	s.connect()
	id := s.post(t, "/auth/polar/checkout", `{"plan":"pro","seats":3}`, mailed("ada")).wants(t, http.StatusOK).json(t)["id"].(string)
	s.get(t, "app", s.pay(t, id, ""), browser).wants(t, http.StatusOK)
	page := s.account(t, "ada").shows(t, http.StatusOK, "Seats", "1 of 3 in use", "ada@example.com", "E-mail of the person")
	purchase := regexp.MustCompile(`class="invite".*name="id" value="([^"]+)"`).FindStringSubmatch(page.body)
	if purchase == nil {
		t.Fatal("nobody can be invited")
	}
	s.submit(t, "ada", "do", "invite", "id", purchase[1], "email", "not an address").shows(t, http.StatusUnprocessableEntity, "This is not an e-mail address.")
	s.submit(t, "ada", "do", "invite", "id", purchase[1], "email", "grace@example.com").did(t, "invite")
	page = s.account(t, "ada").shows(t, http.StatusOK, "2 of 3 in use", "grace@example.com", "invited", "Send again")
	seat := regexp.MustCompile(`grace@example.com.*\n.*name="seat" value="([^"]+)"`).FindStringSubmatch(page.body)
	if seat == nil {
		t.Fatal("the seat cannot be taken back")
	}
	s.submit(t, "bob", "do", "revoke", "seat", seat[1]).shows(t, http.StatusNotFound, "No such seat")
	s.submit(t, "ada", "do", "resend", "seat", seat[1]).did(t, "resend")
	s.submit(t, "ada", "do", "revoke", "seat", seat[1]).did(t, "revoke")
	s.account(t, "ada").shows(t, http.StatusOK, "1 of 3 in use").lacks(t, "grace@example.com")
	s.box.SetTrouble(box.Trouble{HTML: true})
	s.account(t, "ada").shows(t, http.StatusOK, "The seats cannot be shown right now.")
}

// TestRefusalPageSells: what would open it is on the page, with its price, as soon as
// the catalog was read once.
func TestRefusalPageSells(t *testing.T) {
	t.Parallel()
	s := startShop(t)
	waitFor(t, "the catalog", func() bool {
		return strings.Contains(s.get(t, "app", "/pro/x", browser, cookie("nobody")).wants(t, http.StatusPaymentRequired).body, "<strong><bdi>$10.00</bdi></strong>")
	})
	s.get(t, "app", "/pro/x", browser, cookie("nobody")).shows(t, http.StatusPaymentRequired, "Get <bdi>Pro</bdi>",
		"/auth/polar/checkout?plan=pro&amp;return_to="+url.QueryEscape(s.origin()+"/pro/x"), "/auth/polar/pricing?return_to="+url.QueryEscape(s.origin()+"/pro/x"))
}

// TestTwoGatewaysHaveTheirOwnPages: what a page leads to is its own gateway's.
func TestTwoGatewaysHaveTheirOwnPages(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	second := strings.NewReplacer("polar {", "polar other {", "plan pro", "plan gold", "PRODUCT_PRO", "PRODUCT_OTHER").Replace(selling)
	s.env["PRODUCT_OTHER"] = s.other.ID
	s.start(t, s.caddyfile(selling+second, s.site(t, "app", `
		polar
		polar other {
			path /auth/other
		}
		polar_require /pro/* pro
		polar_require /gold/* gold {
			gateway other
		}
		reverse_proxy {upstream}`)))
	s.get(t, "app", "/auth/other/pricing").shows(t, http.StatusOK, `href="/auth/other/checkout?products=`+s.other.ID).lacks(t, "/auth/polar/", s.pro.ID)
	s.get(t, "app", "/auth/polar/pricing").shows(t, http.StatusOK, `href="/auth/polar/checkout?products=`+s.pro.ID).lacks(t, "/auth/other/", s.other.ID)
	s.get(t, "app", "/auth/other/account", browser, cookie("ada")).shows(t, http.StatusOK, "/auth/other/pricing").lacks(t, "/auth/polar/")
	s.get(t, "app", "/gold/", browser, cookie("ada")).shows(t, http.StatusPaymentRequired, `href="/auth/other/checkout?plan=gold`).lacks(t, "/auth/polar/")
	id := s.post(t, "/auth/other/checkout", `{"plan":"gold","successUrl":"/gold/x"}`, mailed("ada")).wants(t, http.StatusOK).json(t)["id"].(string)
	back := s.pay(t, id, "")
	if !strings.HasPrefix(back, "/auth/other/success?") {
		t.Fatalf("the buyer comes back to %s", back)
	}
	s.get(t, "app", back, browser).shows(t, http.StatusOK, "Thank you")
	s.get(t, "app", "/gold/x", as("ada")).wants(t, http.StatusOK)
	s.get(t, "app", "/auth/other/account", browser, cookie("ada")).shows(t, http.StatusOK, "Other", `action="/auth/other/account"`).lacks(t, "/auth/polar/")
}

// TestWhatIsNotForSaleIsNotOffered: an archived product kills no checkout, and the
// button of a refusal sells what stands beside it.
func TestWhatIsNotForSaleIsNotOffered(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	old := s.box.AddProduct(box.Product{Name: "Grandfathered", Interval: "month", Archived: true, Price: box.Price{Amount: 100, Currency: "usd"}})
	hidden := s.box.AddProduct(box.Product{Name: "Hidden", Interval: "month", Visibility: "private", Price: box.Price{Amount: 9000, Currency: "usd"}})
	s.env["PRODUCT_PRO"], s.env["PRODUCT_BASIC"] = s.pro.ID+" "+old.ID, hidden.ID
	config := strings.NewReplacer("{env.PRODUCT_PRO}", s.env["PRODUCT_PRO"]).Replace(selling)
	s.start(t, s.caddyfile(config, s.site(t, "app", `
		polar
		polar_require /pro/* pro
		polar_require /two/* basic life
		reverse_proxy {upstream}`)))
	s.get(t, "app", "/auth/polar/pricing").shows(t, http.StatusOK, s.pro.ID).lacks(t, old.ID, hidden.ID)
	s.get(t, "app", "/auth/polar/checkout?plan=pro", browser, cookie("ada")).wants(t, http.StatusSeeOther)
	s.get(t, "app", "/two/", browser, cookie("ada")).shows(t, http.StatusPaymentRequired, "Go to the checkout", "checkout?plan=basic").lacks(t, "Get ", "$99.00")
	s.get(t, "app", "/pro/", browser, cookie("ada")).shows(t, http.StatusPaymentRequired, "Get <bdi>Pro</bdi>")
}

// TestOneSubscriptionIsToldOnce: also when its product is in two plans, and a pass is
// told beside a subscription that is closed.
func TestOneSubscriptionIsToldOnce(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.start(t, s.caddyfile(strings.Replace(selling, "plan basic {env.PRODUCT_BASIC}", "plan basic {env.PRODUCT_BASIC} {env.PRODUCT_PRO}", 1), s.paywall(t, "app")))
	u, now := newSubscriber(s.pro.ID), time.Now().UTC()
	s.deliver(t, "app", u.active(t))
	if n := strings.Count(s.account(t, u.user).shows(t, http.StatusOK, "Renews on").body, "<section"); n != 1 {
		t.Errorf("one subscription is told %d times", n)
	}
	s.deliver(t, "app", u.event(t, "subscription.past_due", object{"past_due_at": wire(now.Add(-9 * day))}))
	s.ask(t, http.MethodPost, "/polar/users/"+u.user+"/passes", text(`{"plan":"pro"}`), header("Content-Type", "application/json")).wants(t, http.StatusOK)
	page := s.account(t, u.user).shows(t, http.StatusOK, "access ended on", "Given to you.")
	if n := strings.Count(page.body, "<section"); n != 2 {
		t.Errorf("a closed subscription and a pass are told %d times", n)
	}
}

// TestWhoCannotPayIsNotToldTo: the purchase is somebody else's customer's.
func TestWhoCannotPayIsNotToldTo(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.start(t, s.caddyfile(strings.Replace(selling, "from cookie session", "from cookie session\n\t\t\tcustomer_claim org\n\t\t\tmanage_claim role owner", 1), s.paywall(t, "app")))
	u, now := newSubscriber(s.pro.ID), time.Now().UTC()
	s.deliver(t, "app", u.event(t, "subscription.past_due", object{"past_due_at": wire(now.Add(-2 * day))}))
	member := func(r *http.Request) {
		r.AddCookie(&http.Cookie{Name: "session", Value: sign(jwt.SigningMethodHS256, []byte(jwtSecret), claims("some-member", object{"org": u.user, "role": "member"}))})
	}
	s.get(t, "app", "/auth/polar/account", browser, member).shows(t, http.StatusOK, "ask whoever pays for it", "Somebody else pays for this.").
		lacks(t, "Update your payment method", "Cancel subscription", "/auth/polar/portal")
	s.deliver(t, "app", u.event(t, "subscription.past_due", object{"past_due_at": wire(now.Add(-9 * day))}))
	s.get(t, "app", "/pro/", browser, member).shows(t, http.StatusPaymentRequired, "Ask whoever pays for it").lacks(t, "Update your payment method", "/auth/polar/portal")
}

// TestBackslashInAnAddress: browsers leave it as it is, and the buyer comes back all the
// same.
func TestBackslashInAnAddress(t *testing.T) {
	t.Parallel()
	s := startShop(t)
	page := s.raw(t, "app", "GET /pro/?path=C:\\x HTTP/1.1\r\nHost: "+s.sites["app"]+"\r\nAccept: text/html\r\nAuthorization: Bearer "+userToken("ada")+"\r\nConnection: close\r\n\r\n").
		shows(t, http.StatusPaymentRequired, "%255Cx")
	link := regexp.MustCompile(`href="(/auth/polar/checkout[^"]+)"`).FindStringSubmatch(page.body)
	if link == nil {
		t.Fatal("no way to the checkout")
	}
	s.get(t, "app", strings.ReplaceAll(link[1], "&amp;", "&"), browser, cookie("ada")).wants(t, http.StatusSeeOther)
}

// TestFromPolarsPortal: a strict cookie does not come along from there, so the account
// page loads itself once more, and only once.
func TestFromPolarsPortal(t *testing.T) {
	t.Parallel()
	s := startFramed(t, "login_url /login?next={return_to}", walled)
	from := header("Sec-Fetch-Site", "cross-site")
	r := s.get(t, "app", "/auth/polar/account", browser, from).shows(t, http.StatusUnauthorized, `<meta http-equiv="refresh" content="0">`, `href=""`)
	if got := r.header.Get("Set-Cookie"); got != "polar_again=1; Path=/auth/polar; Max-Age=10; HttpOnly; SameSite=Lax" {
		t.Errorf("the cookie is %s", got)
	}
	again := func(r *http.Request) { r.AddCookie(&http.Cookie{Name: "polar_again", Value: "1"}) }
	s.get(t, "app", "/auth/polar/account", browser, from, again).wants(t, http.StatusSeeOther)
	// Not where a visit can do something, or at the app.
	for _, path := range []string{"/auth/polar/checkout?plan=pro", "/auth/polar/portal", "/pro/"} {
		s.get(t, "app", path, browser, from).wants(t, http.StatusSeeOther)
	}
}

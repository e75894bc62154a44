package browsertest

import (
	"archive/tar"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-polar/caddy-polar/pages"
)

// now is the time in the gallery.
var now = time.Date(2026, 11, 22, 9, 30, 0, 0, time.UTC)

func days(n int) time.Time { return now.AddDate(0, 0, n) }

var month, year = pages.Interval{Unit: "month", Count: 1}, pages.Interval{Unit: "year", Count: 1}

func usd(amount int64) pages.Price {
	return pages.Price{Kind: pages.PriceFixed, Currency: "usd", Amount: amount}
}

// offers are a shop's.
func offers() []pages.Offer {
	buy := func(name string) *pages.Link { return &pages.Link{Label: "buy", Name: name, URL: "/checkout"} }
	return []pages.Offer{
		{
			Name: "Reader", Description: "For whoever drops in now and then.", Every: month, Prices: []pages.Price{usd(0)},
			Benefits: []string{"Five articles a month"}, Next: buy("Reader"),
		},
		{
			Name: "Pro", Description: "For readers who want it all, wherever they are.", Every: month, Trial: pages.Interval{Unit: "day", Count: 14},
			Prices:   []pages.Price{usd(1000), {Kind: pages.PriceFixed, Currency: "eur", Amount: 900}},
			Benefits: []string{"Every article, and the archive", "The letter on Sundays", "Listen to what you have no time to read"}, Next: buy("Pro"),
		},
		{
			Name: "Pro, by the year", Description: "The same, and two months for nothing.", Every: year, Prices: []pages.Price{usd(10000)},
			Benefits: []string{"Every article, and the archive", "The letter on Sundays"}, Next: buy("Pro, by the year"),
		},
		{
			Name: "Team", Description: "For those who build on it together.", Every: month,
			Prices: []pages.Price{
				{Kind: pages.PriceSeats, Currency: "usd", Seats: []int64{800, 600}},
				{Kind: pages.PriceUnit, Currency: "usd", Unit: "0.5"},
			},
			Benefits: []string{"All of Pro, for each seat", "The API"}, Next: buy("Team"),
		},
		{
			Name: "The collection", Description: "All volumes, yours for good.", Prices: []pages.Price{{Kind: pages.PriceCustom, Currency: "usd", Amount: 2500}},
			Benefits: []string{"Twelve volumes as EPUB"}, Next: buy("The collection"),
		},
	}
}

const request = "0b7c9d84-6c1a-4f0f-9f57-8d1a3f9f1c5e"

// refusal is one as the gateway makes it.
func refusal(code string, until time.Time, next *pages.Link) *pages.Refusal {
	title, detail, _ := pages.Message(code)
	r := &pages.Refusal{Code: code, Title: title, Detail: detail, Until: until, Next: next, RequestID: request}
	if next == nil || next.Label != "login" && next.Label != "retry" {
		r.Others = []pages.Link{{Label: "account", URL: "/account"}, {Label: "plans", URL: "/pricing"}}
	}
	return r
}

// exhibit is a page in the gallery.
type exhibit struct {
	name     string
	status   int
	language string
	page     pages.Page
}

func gallery() []exhibit {
	buy, portal := &pages.Link{Label: "buy", Name: "Pro", URL: "/checkout"}, &pages.Link{Label: "payment", URL: "/portal"}
	pay := &pages.Link{Label: "checkout", URL: "/checkout"}
	none := refusal("no_subscription", time.Time{}, buy)
	none.Offers = offers()[1:2]
	several := refusal("plan_required", time.Time{}, pay)
	several.Offers = offers()[1:4]
	due := refusal("past_due", days(-2), portal)
	due.LastChance = days(12)
	mine := offers()
	dueToo := &pages.Pricing{Offers: mine, Account: "/account", Due: portal}
	mine[1].Yours, mine[1].Next = true, &pages.Link{Label: "account", URL: "/account"}
	loop := refusal("token_missing", time.Time{}, &pages.Link{Label: "login", URL: "/login"})
	loop.Text = "loop.login"
	return append([]exhibit{
		{"sign-in", 401, "en", refusal("token_missing", time.Time{}, &pages.Link{Label: "login", URL: "/login"})},
		{"sign-in-again-and-again", 401, "en", loop},
		{"no-subscription", 402, "en", none},
		{"other-plan", 402, "en", several},
		{"trial-ended", 402, "en", refusal("trial_ended", days(-3), pay)},
		{"payment-failed", 402, "en", due},
		{"payment-failed-german", 402, "de", due},
		{"paused", 402, "en", refusal("paused", days(-9), &pages.Link{Label: "resume", URL: "/portal"})},
		{"canceled", 402, "en-GB", refusal("canceled", days(-20), pay)},
		{"refunded", 402, "en", refusal("refunded", days(-1), pay)},
		{"disputed", 403, "en", refusal("disputed", days(-5), nil)},
		{"seat-revoked", 403, "en", refusal("seat_revoked", days(-1), nil)},
		{"unavailable", 503, "en", refusal("unavailable", time.Time{}, &pages.Link{Label: "retry", URL: "/pro/"})},
		{"pricing", 200, "en", &pages.Pricing{Offers: offers()}},
		{"pricing-yours", 200, "de-DE,de;q=0.9", &pages.Pricing{Offers: mine, Account: "/account"}},
		{"pricing-payment-failed", 200, "en", dueToo},
		{"pricing-empty", 200, "en", &pages.Pricing{}},
		{"waiting", 200, "en", &pages.Waiting{To: "/in", Pending: true, Again: "/success", Last: "/success?last", Events: "/events"}},
		{"waiting-long", 200, "en", &pages.Waiting{To: "/pro/", Pending: true}},
		{"hostile", 402, "en", hostileRefusal()},
		{"hostile-pricing", 200, "en", hostilePricing()},
	}, accounts()...)
}

func accountToCancel() *pages.Account {
	pro := pages.Holding{Name: "Pro", Status: "active", Reason: "active", Allowed: true, Until: days(17)}
	return &pages.Account{Post: "/account", Manages: true, Subscriptions: []pages.Subscription{{ID: "s1", Holding: pro, PeriodEnd: days(17), CanCancel: true}}}
}

func accounts() []exhibit {
	pro := pages.Holding{Name: "Pro", Status: "active", Reason: "active", Allowed: true, Until: days(17)}
	with := func(h pages.Holding, change func(*pages.Subscription)) *pages.Account {
		s := pages.Subscription{ID: "s1", Holding: h, PeriodEnd: days(17)}
		change(&s)
		return &pages.Account{Post: "/account", Manages: true, Pricing: "/pricing", Portal: "/portal", Subscriptions: []pages.Subscription{s}}
	}
	active := with(pro, func(s *pages.Subscription) {
		s.CanCancel = true
		s.Changes = []pages.Change{{Product: "p2", Offer: offers()[2]}, {Product: "p3", Offer: offers()[3]}}
	})
	canceling := pro
	canceling.Reason = "canceling"
	done := with(canceling, func(s *pages.Subscription) { s.CanKeep = true })
	done.Done = "cancel"
	grace := pages.Holding{Name: "Pro", Status: "past_due", Reason: "past_due_grace", Allowed: true, Until: days(5)}
	due := with(grace, func(s *pages.Subscription) {
		s.Trouble = &pages.Link{Label: "payment", URL: "/portal"}
	})
	trial := pages.Holding{Name: "Pro", Status: "trialing", Reason: "trialing", Allowed: true, Until: now.Add(30 * time.Hour)}
	team := with(pages.Holding{Name: "Team", Status: "active", Reason: "active", Allowed: true, Until: days(17)}, func(s *pages.Subscription) {
		s.ForSeats, s.CanCancel, s.CanUnschedule, s.Pending = true, true, true, &pages.Pending{Seats: 12, At: days(17)}
	})
	team.Others = []pages.Holding{{Name: "The collection", Status: "order", Reason: "purchased", Allowed: true}, {Name: "Beta", Status: "pass", Reason: "pass", Allowed: true, Until: days(40)}}
	team.Seats = &pages.Seats{ID: "s1", Name: "Team", Total: 5, Available: 3, List: []pages.Seat{
		{ID: "a", Who: "grace@example.com"}, {ID: "b", Who: "a.person.with.a.very.long.address.indeed@department.of.an.example.com", Pending: true},
	}}
	changing := with(pro, func(s *pages.Subscription) {
		s.Changes = []pages.Change{{Product: "p2", Offer: offers()[2]}, {Product: "p3", Offer: offers()[3]}}
	})
	changing.Changing, changing.Back = true, "/pro/"
	seats := with(pages.Holding{Name: "Team", Status: "past_due", Reason: "due", Allowed: true}, func(s *pages.Subscription) {
		s.ForSeats, s.DueSince, s.LastChance, s.Trouble = true, days(-3), days(18), &pages.Link{Label: "payment", URL: "/portal"}
	})
	other := refusal("past_due", days(-2), nil)
	other.Elsewhere = true
	failed := with(pro, func(s *pages.Subscription) { s.CanCancel = true })
	failed.Problem = refusal("payment_failed", time.Time{}, &pages.Link{Label: "payment", URL: "/portal"})
	return []exhibit{
		{"account", 200, "en", active},
		{"account-canceling", 200, "en", done},
		{"account-payment-failed", 200, "fr", due},
		{"account-trial", 200, "en", with(trial, func(s *pages.Subscription) { s.CanCancel = true })},
		{"account-team", 200, "en", team},
		{"account-changing", 200, "en", changing},
		{"account-team-payment-failed", 200, "en", seats},
		{"payment-failed-elsewhere", 402, "en", other},
		{"account-refused", 402, "en", failed},
		{"account-empty", 200, "en", &pages.Account{Post: "/account", Manages: true, Pricing: "/pricing"}},
	}
}

var hostileName = "<script>alert(1)</script>\u202e\u2066</title></style>\"'><img src=x onerror=alert(1)>\x00" + strings.Repeat("W", 10_000)

func hostileRefusal() *pages.Refusal {
	r := refusal("no_subscription", time.Time{}, &pages.Link{Label: "buy", Name: hostileName, URL: "/checkout?" + hostileName[:60]})
	r.Detail = hostileName
	r.Offers = hostilePricing().Offers
	r.Fields = []pages.Field{{Name: hostileName, Message: hostileName}}
	return r
}

func hostilePricing() *pages.Pricing {
	o := pages.Offer{
		Name: hostileName, Description: hostileName, Every: pages.Interval{Unit: hostileName, Count: 1}, Trial: pages.Interval{Unit: hostileName, Count: 3},
		Prices: []pages.Price{{Kind: pages.PriceFixed, Currency: hostileName, Amount: 1 << 62}, {Kind: hostileName, Currency: hostileName}},
		Next:   &pages.Link{Label: "buy", Name: hostileName, URL: "javascript:alert(1)"},
	}
	for range 40 {
		o.Benefits = append(o.Benefits, hostileName)
	}
	return &pages.Pricing{Offers: []pages.Offer{o, o}}
}

// startGallery serves the pages as the gateway does, and what they lead to.
func startGallery(t *testing.T, exhibits []exhibit) (address string) {
	t.Helper()
	site, err := pages.New(pages.Brand{Name: "Field Notes", Logo: "testdata/logo.svg", Color: "1d6b52"})
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	for _, e := range exhibits {
		mux.HandleFunc("/"+e.name, func(w http.ResponseWriter, r *http.Request) {
			r.Header.Set("Accept-Language", e.language)
			body := httptest.NewRecorder()
			if err := site.Write(body, r, e.status, now, e.page); err != nil {
				t.Errorf("%s: %v", e.name, err)
			}
			for name, values := range body.Header() {
				w.Header()[name] = values
			}
			w.WriteHeader(body.Code)
			_, _ = w.Write(body.Body.Bytes())
		})
	}
	asked := 0 // only one browser comes at a time
	mux.HandleFunc("/success", func(w http.ResponseWriter, r *http.Request) {
		p := &pages.Waiting{To: "/in"}
		if asked++; asked < 3 && r.Header.Get("Sec-Fetch-Mode") == "cors" {
			p = &pages.Waiting{To: "/in", Pending: true, Again: "/success", Last: "/success?last", Events: "/events"}
		}
		if err := site.Write(w, r, http.StatusOK, now, p); err != nil {
			t.Error(err)
		}
	})
	mux.HandleFunc("/in", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = io.WriteString(w, "<p>Thank you. You are in.</p>")
	})
	mux.HandleFunc("/events", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	s := httptest.NewServer(mux)
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
	})
	return s.URL
}

// axe is the checker of accessibility, https://github.com/dequelabs/axe-core. It
// is fetched for the test, and is what it was when this was written.
const (
	axeVersion = "4.14.1"
	axeDigest  = "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c"
)

func axe(t *testing.T) string {
	t.Helper()
	file := os.Getenv("AXE")
	if file == "" {
		file = fetchAxe(t)
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if sum := sha256.Sum256(raw); hex.EncodeToString(sum[:]) != axeDigest {
		t.Fatalf("%s is not axe-core %s", file, axeVersion)
	}
	return string(raw)
}

func fetchAxe(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	pack := exec.Command("npm", "pack", "--silent", "axe-core@"+axeVersion)
	pack.Dir = dir
	if out, err := pack.CombinedOutput(); err != nil {
		t.Fatalf("this test needs axe-core: install npm, or name its axe.min.js in AXE: %v\n%s", err, out)
	}
	f, err := os.Open(filepath.Join(dir, "axe-core-"+axeVersion+".tgz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	unzipped, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	for archive := tar.NewReader(unzipped); ; {
		h, err := archive.Next()
		if err != nil {
			t.Fatalf("no axe.min.js in the package: %v", err)
		}
		if h.Name != "package/axe.min.js" {
			continue
		}
		raw, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(dir, "axe.min.js")
		if err := os.WriteFile(file, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
}

// TestGallery looks at every page in both colour schemes and two sizes: it passes
// axe, fits the window, is small, and can be used with the keyboard alone. With
// PICTURES it keeps what it sees in that folder.
func TestGallery(t *testing.T) {
	exhibits := gallery()
	address := startGallery(t, exhibits)
	checker := axe(t)
	b := startBrowser(t)
	for _, e := range exhibits {
		checkSize(t, address+"/"+e.name)
		for _, size := range []string{"phone", "desktop"} {
			for _, scheme := range []string{"light", "dark"} {
				b.seesAs(size, scheme)
				b.goTo(address + "/" + e.name)
				name := e.name + "-" + size + "-" + scheme
				b.picture(name)
				b.evaluate(`document.querySelectorAll('details').forEach(d => d.open = true); 'open'`)
				b.passes(name, checker)
				if wide := b.evaluate(`String(document.documentElement.scrollWidth - document.documentElement.clientWidth)`); wide != "0" {
					t.Errorf("%s is %s pixels wider than its window", name, wide)
				}
			}
		}
		b.tabsThrough(e.name)
	}
}

func checkSize(t *testing.T, address string) {
	t.Helper()
	r, err := http.Get(address)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil || len(body) >= 30_000 {
		t.Errorf("%s has %d bytes: %v", address, len(body), err)
	}
	for _, bad := range []string{"<script>alert", "onerror=alert(1)>", "\u202e", `"javascript:`, " style=", `src="http`, `href="http`} {
		if strings.Contains(string(body), bad) {
			t.Errorf("%s contains %s", address, bad)
		}
	}
}

// passes runs axe on the page.
func (b *browser) passes(name, checker string) {
	b.t.Helper()
	b.evaluate(checker + "; 'loaded'")
	raw := b.await(`axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice']})
		.then(r => JSON.stringify({passed: r.passes.length, found: r.violations.map(v => v.id + ': ' + v.nodes.map(n => n.html + ' ' + n.failureSummary).join(' | '))}))`)
	var result struct {
		Passed int
		Found  []string
	}
	if err := json.Unmarshal([]byte(raw), &result); err != nil || result.Passed < 10 {
		b.t.Fatalf("%s: axe has not looked: %v %q", name, err, raw)
	}
	for _, found := range result.Found {
		b.t.Errorf("%s: %s", name, found)
	}
}

// tabsThrough reaches all that can be used with the Tab key, and sees where it is.
func (b *browser) tabsThrough(name string) {
	b.t.Helper()
	all := b.evaluate(`String([...document.querySelectorAll('a[href], button, summary, input:not([type=hidden])')].filter(e => e.checkVisibility()).length)`)
	seen := []string{}
	for range 60 {
		b.press("\t")
		at := b.evaluate(`(() => { const e = document.activeElement; if (e === document.body) return ''; const s = getComputedStyle(e);
			return [...document.querySelectorAll('*')].indexOf(e) + ' ' + s.outlineStyle + ' ' + s.outlineWidth })()`)
		if at == "" || slices.Contains(seen, at) {
			break
		}
		if !strings.HasSuffix(at, " solid 3px") {
			b.t.Errorf("%s: the focus is not seen: %s", name, at)
		}
		seen = append(seen, at)
	}
	if fmt.Sprint(len(seen)) != all {
		b.t.Errorf("%s: %d of %s are reached with the keyboard", name, len(seen), all)
	}
}

// TestGalleryWithoutScripts: what scripts add is not missed.
func TestGalleryWithoutScripts(t *testing.T) {
	exhibits := gallery()
	address := startGallery(t, exhibits)
	b := startBrowser(t)
	b.withoutScripts()
	for _, e := range exhibits {
		if e.name == "waiting" {
			continue // it goes on by itself: see below
		}
		for _, size := range []string{"phone", "desktop"} {
			for _, scheme := range []string{"light", "dark"} {
				b.seesAs(size, scheme)
				b.goTo(address + "/" + e.name)
				b.picture(e.name + "-" + size + "-" + scheme + "-no-script")
			}
		}
		b.reads("Field Notes")
	}
	b.goTo(address + "/payment-failed-german")
	b.reads("A payment has failed", "20. November 2026", "4. Dezember 2026", "12 days left")
	b.goTo(address + "/account-trial")
	b.reads("November 23, 2026, 3:30 pm UTC")
	b.goTo(address + "/account")
	b.click("#change > summary")
	b.reads("Pro, by the year", "$100.00", "from $6.00 per seat")
	b.click("#change > details:last-of-type > summary")
	b.reads("plus $0.005 per unit", "Switch to Team")
	b.goTo(address + "/canceled")
	b.reads("2 November 2026")
	b.goTo(address + "/pricing-yours")
	b.reads("9,00\u00a0€", "also 10,00\u00a0$", "14 days free", "Your plan", "0,005\u00a0$ per unit", "You name the price, from 25,00\u00a0$", "from 6,00\u00a0$ per seat")
	b.goTo(address + "/waiting")
	b.reads(address+"/in", "You are in") // it has gone on by itself
}

// TestWaitingGoesOn: with script the page stays as it is until it goes on, so that
// nobody loses their place on it.
func TestWaitingGoesOn(t *testing.T) {
	address := startGallery(t, gallery())
	b := startBrowser(t)
	b.goTo(address + "/waiting")
	b.reads("Your purchase is being confirmed")
	b.evaluate(`window.same = 'the same page'; ''`)
	b.sees(func() string {
		return b.evaluate(`String(performance.getEntriesByType('resource').filter(e => e.name.endsWith('/success')).length) + window.same`)
	}, "2the same page")
	b.reads(address+"/in", "You are in")
}

// TestFormsOnAnyHost: browsers that do not say where a form comes from send its origin,
// and not null.
func TestFormsOnAnyHost(t *testing.T) {
	origins := make(chan string, 1)
	site, err := pages.New(pages.Brand{})
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			origins <- r.Header.Get("Origin") + " " + r.Header.Get("Sec-Fetch-Site")
		}
		_ = site.Write(w, r, http.StatusOK, now, accountToCancel())
	}))
	t.Cleanup(s.Close)
	_, port, _ := strings.Cut(strings.TrimPrefix(s.URL, "http://"), ":")
	b := startBrowser(t, "host-resolver-rules=MAP app.test 127.0.0.1")
	b.goTo("http://app.test:" + port + "/account")
	b.click("details summary")
	b.click(`button[value="cancel"]`)
	if got := <-origins; got != "http://app.test:"+port+" " {
		t.Errorf("the form says it comes from %q", got)
	}
}

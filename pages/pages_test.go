package pages

import (
	"encoding/base64"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/text/language"
	"pgregory.net/rapid"
)

var now = time.Date(2026, 11, 22, 9, 30, 0, 0, time.UTC)

func write(t testing.TB, b Brand, language string, p Page) *httptest.ResponseRecorder {
	t.Helper()
	s, err := New(b)
	if err != nil {
		t.Fatal(err)
	}
	return writeTo(t, s, language, p)
}

func writeTo(t testing.TB, s *Site, language string, p Page) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, "http://shop.example/pro/", nil)
	r.Header.Set("Accept-Language", language)
	w := httptest.NewRecorder()
	if err := s.Write(w, r, http.StatusPaymentRequired, now, p); err != nil {
		t.Fatal(err)
	}
	return w
}

func wants(t *testing.T, body string, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if !strings.Contains(body, text) {
			t.Errorf("it lacks %q:\n%s", text, body[max(strings.Index(body, "<title>"), 0):])
		}
	}
}

func TestMoney(t *testing.T) {
	texts, err := newTexts(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		language, currency string
		minor              int64
		want               string
	}{
		{"en", "usd", 1000, "$10.00"},
		{"", "usd", 123456789, "$1,234,567.89"},
		{"en-GB", "gbp", 950, "£9.50"},
		{"en-AU,en;q=0.5", "usd", 1000, "US$10.00"},
		{"fa-IR", "usd", 1000, "$10.00"}, // not in Arabic, which is another language
		{"de", "eur", 123450, "1.234,50\u00a0€"},
		{"de-AT", "eur", 1000, "€\u00a010,00"},
		{"fr-FR", "eur", 123450, "1\u00a0234,50\u00a0€"},
		{"nl", "eur", 1000, "€\u00a010,00"},
		{"pt-BR", "brl", 1990, "R$\u00a019,90"},
		{"ja", "jpy", 1200, "￥1,200"},
		{"en", "jpy", 1200, "¥1,200"},
		{"en", "krw", 5000, "₩5,000"},
		{"en", "isk", 5000, "ISK\u00a050.00"}, // of two decimals for Polar, whatever CLDR says
		{"en", "cop", 500000, "COP\u00a05,000.00"},
		{"en", "xcg", 100, "XCG\u00a01.00"}, // too new for the table of symbols
		{"en", "usd", 1, "$0.01"},
		{"en", "usd", 99, "$0.99"},
		{"en", "usd", 0, "$0.00"},
	} {
		if got := texts.locale(test.language).Money(test.minor, test.currency); got != test.want {
			t.Errorf("%d %s in %q: %q, not %q", test.minor, test.currency, test.language, got, test.want)
		}
	}
	en := texts.locale("en")
	for minor, want := range map[string]string{
		"0.5": "$0.005", "12": "$0.12", "150.25": "$1.5025", "": "", "x": "", "1e400": "", "1/3": "", strings.Repeat("9", 50): "",
	} {
		if got := en.UnitPrice(minor, "usd"); got != want {
			t.Errorf("%q a unit: %q, not %q", minor, got, want)
		}
	}
}

// TestMoneyIsExact: whatever the language, the digits are those of the amount.
func TestMoneyIsExact(t *testing.T) {
	texts, err := newTexts(nil)
	if err != nil {
		t.Fatal(err)
	}
	digits := func(text string) string {
		return strings.TrimLeft(strings.Map(func(c rune) rune {
			if c >= '0' && c <= '9' {
				return c
			}
			return -1
		}, text), "0")
	}
	rapid.Check(t, func(t *rapid.T) {
		l := texts.locale(rapid.SampledFrom([]string{"en", "de", "fr", "sv", "ja", "pl", "pt-BR", "nl"}).Draw(t, "language"))
		minor := rapid.Int64Range(0, 99_999_999_99).Draw(t, "minor")
		code := rapid.SampledFrom([]string{"usd", "eur", "jpy", "krw", "isk", "huf", "clp"}).Draw(t, "currency")
		want := ""
		for n := minor; n > 0; n /= 10 {
			want = string(rune('0'+n%10)) + want
		}
		if got := digits(l.Money(minor, code)); got != want {
			t.Fatalf("%d: %q", minor, l.Money(minor, code))
		}
	})
}

func TestDates(t *testing.T) {
	texts, err := newTexts(nil)
	if err != nil {
		t.Fatal(err)
	}
	christmas := time.Date(2026, 12, 24, 17, 5, 0, 0, time.FixedZone("", 3600))
	for language, want := range map[string]string{
		"":                        `<time datetime="2026-12-24T16:05:00Z" dir="auto">December 24, 2026</time>`,
		"en":                      `>December 24, 2026<`,
		"en-GB":                   ` lang="en-GB" dir="auto">24 December 2026<`,
		"de-AT":                   ` lang="de-AT" dir="auto">24. Dezember 2026<`,
		"fr":                      `>24 décembre 2026<`,
		"ja":                      `>2026年12月24日<`,
		"xx":                      `>December 24, 2026<`,
		"en-GB-;;q=x,":            `>December 24, 2026<`,
		strings.Repeat("de,", 99): `>December 24, 2026<`,
	} {
		if got := string(texts.locale(language).date(christmas, now)); !strings.Contains(got, want) {
			t.Errorf("%q: %s, not %s", language, got, want)
		}
	}
	got := string(texts.locale("en").date(now.Add(3*time.Hour), now))
	if want := `<time datetime="2026-11-22T12:30:00Z" data-near dir="auto">November 22, 2026, 12:30 pm UTC</time>`; got != want {
		t.Errorf("what is near has no hour: %s", got)
	}
}

func TestRefusalLines(t *testing.T) {
	due := &Refusal{Code: "past_due", Until: now.AddDate(0, 0, -2), LastChance: now.Add(30 * time.Hour)}
	wants(t, write(t, Brand{}, "en", due).Body.String(), "<h1>A payment has failed</h1>", "access ended on <time", "<bdi>2</bdi> days left", "After that the subscription ends.")
	due.LastChance = now.Add(2 * time.Hour)
	wants(t, write(t, Brand{}, "en", due).Body.String(), "<bdi>1</bdi> day left")
	due.LastChance = now.Add(-time.Hour)
	if body := write(t, Brand{}, "en", due).Body.String(); strings.Contains(body, "days left") {
		t.Error("a chance that is over is told")
	}
	due.Elsewhere = true
	wants(t, write(t, Brand{}, "en", due).Body.String(), "Ask whoever pays for it")
	own := &Refusal{Code: "bad_body", Title: "T", Detail: "seats must be a number."}
	wants(t, write(t, Brand{}, "en", own).Body.String(), "seats must be a number.")
	unknown := &Refusal{Code: "new_code", Title: "Something new", Detail: "It happened."}
	wants(t, write(t, Brand{}, "en", unknown).Body.String(), "<h1>Something new</h1>", "It happened.", "new_code")
}

// TestEveryReasonHasItsOwnWords: no two say the same.
func TestEveryReasonHasItsOwnWords(t *testing.T) {
	said := make(map[string]string)
	for _, code := range Codes() {
		title, detail, _ := Message(code)
		body := write(t, Brand{}, "en", &Refusal{Code: code, Title: title, Detail: detail}).Body.String()
		_, text, _ := strings.Cut(body, "<h1>")
		text, _, _ = strings.Cut(text, `<p class="reference`)
		if other := said[text]; other != "" {
			t.Errorf("%s and %s say the same: %s", code, other, text)
		}
		said[text] = code
	}
}

func TestHeaders(t *testing.T) {
	for name, p := range map[string]Page{
		"refusal": &Refusal{Code: "canceled"}, "pricing": &Pricing{}, "account": &Account{Post: "/account"}, "waiting": &Waiting{To: "/", Pending: true, Again: "/a"},
	} {
		w := write(t, Brand{Color: "abc"}, "en", p)
		h, body := w.Header(), w.Body.String()
		policy := h.Get("Content-Security-Policy")
		for _, want := range []string{"default-src 'none'", "base-uri 'none'", "frame-ancestors 'none'", "form-action 'none'", "script-src 'sha256-", "style-src 'sha256-"} {
			if name == "account" && strings.HasPrefix(want, "form-action") {
				want = "form-action 'self'"
			}
			if !strings.Contains(policy, want) {
				t.Errorf("%s: no %s: %s", name, want, policy)
			}
		}
		for _, tag := range []string{"style", "script"} {
			_, inner, _ := strings.Cut(body, "<"+tag+">")
			inner, _, _ = strings.Cut(inner, "</"+tag+">")
			if inner == "" || !strings.Contains(policy, digest(inner)) {
				t.Errorf("%s: the policy does not let its %s in", name, tag)
			}
		}
		if strings.Contains(policy, "unsafe") || h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Referrer-Policy") != "no-referrer" ||
			h.Get("X-Frame-Options") != "DENY" || h.Get("Content-Language") != "en" || !strings.HasPrefix(h.Get("Content-Type"), "text/html") {
			t.Errorf("%s: %v", name, h)
		}
		if strings.Contains(body, " style=") || strings.Contains(body, " onclick") {
			t.Errorf("%s has what its policy forbids", name)
		}
	}
}

func TestBrand(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	svg := file("logo.svg", `<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>`)
	png := file("logo.png", "\x89PNG\r\n\x1a\n0000")
	body := write(t, Brand{Name: "Field\u202e <Notes>", Logo: svg, Color: "#ffe000"}, "en", &Pricing{}).Body.String()
	wants(t, body, "<bdi>Field &lt;Notes&gt;</bdi>", "--brand:#ffe000;--on-brand:#000",
		`src="data:image/svg&#43;xml;base64,`+strings.ReplaceAll(base64.StdEncoding.EncodeToString([]byte(`<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>`)), "+", "&#43;"))
	wants(t, write(t, Brand{Logo: png}, "en", &Pricing{}).Body.String(), `src="data:image/png;base64,`, "<bdi>shop.example</bdi>", "--on-brand:#fff")
	for _, b := range []Brand{
		{Logo: filepath.Join(dir, "none.png")},
		{Logo: file("a.txt", "a logo")},
		{Logo: file("large.svg", "<svg>"+strings.Repeat(" ", maxLogo))},
		{Logo: dir},
		{Color: "red"},
		{Color: "12345"},
		{Color: "fff;}body{"},
	} {
		if _, err := New(b); !errors.Is(err, ErrBrand) {
			t.Errorf("%+v: %v", b, err)
		}
	}
}

// TestInkIsRead: whatever the colour, the text on it has a contrast of 4.5.
func TestInkIsRead(t *testing.T) {
	for r := 0; r < 256; r += 15 {
		for g := 0; g < 256; g += 5 {
			for b := 0; b < 256; b += 15 {
				hex := string([]byte{hexDigit(r >> 4), hexDigit(r), hexDigit(g >> 4), hexDigit(g), hexDigit(b >> 4), hexDigit(b)})
				dark := luminance(hex)
				contrast := 1.05 / (dark + 0.05)
				if inkOn(hex) == "#000" {
					contrast = (dark + 0.05) / 0.05
				}
				if contrast < 4.5 {
					t.Fatalf("%s has %s on it: %.2f", hex, inkOn(hex), contrast)
				}
			}
		}
	}
	if inkOn("fff") != "#000" || inkOn("000") != "#fff" {
		t.Error("black on black")
	}
}

func hexDigit(n int) byte { return "0123456789abcdef"[n&15] }

func TestTexts(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "texts.json")
	use := func(content string) (*Site, error) {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return New(Brand{Texts: path})
	}
	s, err := use(`{"en": {"canceled.title": "Come back", "plan.pro": "Field Notes Pro"},
		"de": {"canceled.dated": "Dein Abo lief bis {date} <b>.", "days.one": "{n} Tag", "days.other": "{n} Tage"},
		"pl": {"days.few": "{n} dni"}, "ar": {"next.plans": "كل الخطط"}}`)
	if err != nil {
		t.Fatal(err)
	}
	over := &Refusal{Code: "canceled", Until: now.AddDate(0, 0, -9), Others: []Link{{Label: "plans", URL: "/pricing"}}}
	wants(t, writeTo(t, s, "en-US", over).Body.String(), `<html lang="en" dir="ltr">`, "<h1>Come back</h1>")
	wants(t, writeTo(t, s, "de-CH", over).Body.String(), `<html lang="de" dir="ltr">`, "Dein Abo lief bis <time", "</time> &lt;b&gt;.", "<h1>Come back</h1>", `lang="de-CH" dir="auto">13. November 2026<`)
	wants(t, writeTo(t, s, "ar", over).Body.String(), `<html lang="ar" dir="rtl">`, "كل الخطط")
	wants(t, writeTo(t, s, "ja", over).Body.String(), `<html lang="en" dir="ltr">`)
	wants(t, writeTo(t, s, "en", &Pricing{Offers: []Offer{{Name: "Pro (EU)", Plan: "pro"}}}).Body.String(), "<bdi>Field Notes Pro</bdi>")
	if got := string(s.texts.locale("pl").count("days", 3)); got != "<bdi>3</bdi> dni" {
		t.Error(got)
	}

	for content, want := range map[string]string{
		`{"en": {"canceled.titel": "x"}}`:            `there is no text "canceled.titel"`,
		`{"en": {"canceled.dated": "until {data}"}}`: "{data}",
		`{"en": {"canceled.title": " "}}`:            "is empty",
		`{"und": {}}`:                                `"und" is no language`,
		`{"x-klingon": {}}`:                          `"x-klingon" is no language`,
		`{"en": {}, "EN": {}}`:                       "en stands there twice",
		`{"de-DE": {}, "de-de": {}}`:                 "de-DE stands there twice",
		`{"e n": {}}`:                                `"e n" is no language`,
		"{\n\"en\": {\n\"canceled.title\": 7\n}}":    path + ":3",
		"{\n\"en\": {\n":                             path + ":",
		`{"en": {"canceled.title": "` + strings.Repeat("x", 2001) + `"}}`: "more than 2000",
		strings.Repeat(" ", maxTexts+1):                                   "more than",
	} {
		if _, err := use(content); !errors.Is(err, ErrTexts) || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60s: %v", content, err)
		}
	}
	if _, err := New(Brand{Texts: filepath.Join(dir, "none.json")}); !errors.Is(err, ErrTexts) {
		t.Error(err)
	}
}

// TestOursAreWhole: what we say ourselves passes the test that owners' words pass.
func TestOursAreWhole(t *testing.T) {
	if err := checkTexts("en", english); err != nil {
		t.Error(err)
	}
	if language.English.String() != "en" || len(english) < 200 {
		t.Error("our texts are not English")
	}
	for _, f := range formats {
		tag, err := language.Parse(f.tag)
		if err != nil || f.dates.FmtDateLong(now) == "" || f.dates.FmtTimeShort(now) == "" || tag.String() != f.tag {
			t.Errorf("%s: %v", f.tag, err)
		}
	}
}

func TestPrices(t *testing.T) {
	fixed := func(amount int64, code string) Price { return Price{Kind: PriceFixed, Currency: code, Amount: amount} }
	for name, test := range map[string]struct {
		offer    Offer
		language string
		want     string
	}{
		"month":      {Offer{Every: Interval{"month", 1}, Prices: []Price{fixed(1000, "usd")}}, "en", `<strong><bdi>$10.00</bdi></strong> <span class="small">per month</span>`},
		"quarter":    {Offer{Every: Interval{"month", 3}, Prices: []Price{fixed(1000, "usd")}}, "en", `every <bdi>3</bdi> months`},
		"once":       {Offer{Prices: []Price{fixed(1000, "usd")}}, "en", `one-time payment`},
		"free":       {Offer{Every: Interval{"month", 1}, Prices: []Price{fixed(0, "usd")}}, "en", `<p class="price"><strong>Free</strong></p>`},
		"own":        {Offer{Prices: []Price{fixed(1000, "usd"), fixed(900, "eur")}}, "de-DE", "9,00\u00a0€"},
		"also":       {Offer{Prices: []Price{fixed(1000, "usd"), fixed(900, "eur")}}, "de-DE", "also <strong><bdi>10,00\u00a0$</bdi></strong>"},
		"not own":    {Offer{Prices: []Price{fixed(1000, "usd"), fixed(900, "eur")}}, "ja-JP", "$10.00"},
		"no region":  {Offer{Prices: []Price{fixed(1000, "usd"), fixed(900, "eur")}}, "de", "10,00\u00a0$"},
		"custom":     {Offer{Prices: []Price{{Kind: PriceCustom, Currency: "usd"}}}, "en", "You name the price"},
		"seats":      {Offer{Prices: []Price{{Kind: PriceSeats, Currency: "usd", Seats: []int64{500}}}}, "en", "<strong><bdi>$5.00</bdi></strong> per seat"},
		"metered":    {Offer{Prices: []Price{fixed(1000, "usd"), {Kind: PriceUnit, Currency: "usd", Unit: "0.5"}}}, "en", "plus <strong><bdi>$0.005</bdi></strong> per unit"},
		"unknown":    {Offer{Name: "X", Prices: []Price{{Kind: "barter", Currency: "usd"}}}, "en", "<bdi>X</bdi>"},
		"trial":      {Offer{Trial: Interval{"week", 1}}, "en", "<bdi>1</bdi> week free"},
		"two trials": {Offer{Trial: Interval{"week", 2}}, "en", "<bdi>2</bdi> weeks free"},
	} {
		body := write(t, Brand{}, test.language, &Pricing{Offers: []Offer{test.offer}}).Body.String()
		if !strings.Contains(body, test.want) {
			t.Errorf("%s: no %q:\n%s", name, test.want, body[strings.Index(body, "<ul"):])
		}
	}
}

func TestStories(t *testing.T) {
	later := now.AddDate(0, 0, 5)
	for name, test := range map[string]struct {
		sub  Subscription
		want []string
	}{
		"active":    {Subscription{Holding: Holding{Status: "active", Reason: "active", Allowed: true, Until: later, Plan: "pro"}}, []string{"Renews on", "Active"}},
		"canceling": {Subscription{Holding: Holding{Status: "active", Reason: "canceling", Allowed: true, Until: later}}, []string{"Canceled. Open until", ">Canceled<"}},
		"trial":     {Subscription{Holding: Holding{Status: "trialing", Reason: "trialing", Allowed: true, Until: later}}, []string{"Trial until", ">Trial<"}},
		"grace":     {Subscription{Holding: Holding{Status: "past_due", Reason: "past_due_grace", Allowed: true, Until: later}}, []string{"<bdi>5</bdi> days left", "Payment failed"}},
		"last day":  {Subscription{Holding: Holding{Status: "past_due", Reason: "past_due_grace", Allowed: true, Until: now.Add(time.Hour)}}, []string{"You have access until <time"}},
		"over":      {Subscription{Holding: Holding{Status: "past_due", Reason: "past_due", Until: now.AddDate(0, 0, -1)}}, []string{"access ended on", "Payment failed"}},
		"paused":    {Subscription{Holding: Holding{Status: "paused", Reason: "paused", Until: now.AddDate(0, 0, -1)}}, []string{"has been paused since", "Paused"}},
		"resumes":   {Subscription{Holding: Holding{Status: "paused", Reason: "paused"}, ResumesAt: later}, []string{"It goes on by itself on"}},
		"renewal":   {Subscription{Holding: Holding{Status: "active", Reason: "renewal_grace", Allowed: true, Until: later}}, []string{"being confirmed"}},
		"seats":     {Subscription{Holding: Holding{Status: "active", Reason: "active", Allowed: true, Until: later}, ForSeats: true}, []string{"Its seats open for whoever has one", "Active"}},
		"due":       {Subscription{Holding: Holding{Status: "past_due", Reason: "due", Allowed: true}, DueSince: now.AddDate(0, 0, -3), LastChance: later}, []string{"A payment failed on <time", "ends on <time", "Payment failed"}},
		"due, open": {Subscription{Holding: Holding{Status: "past_due", Reason: "due", Allowed: true}}, []string{"A payment failed. Update"}},
		"pausing":   {Subscription{Holding: Holding{Status: "active", Reason: "pausing", Allowed: true, Until: later}}, []string{"Pauses on", ">Pausing<"}},
		"unlinked":  {Subscription{Holding: Holding{Status: "active", Reason: "active", Allowed: true, Until: later}, Unlinked: true}, []string{"may not be yours alone"}},
		"pending":   {Subscription{Holding: Holding{Status: "active", Reason: "active", Allowed: true, Until: later}, Pending: &Pending{Other: true, Name: "Team", At: later}}, []string{"Changes to <bdi>Team</bdi> on"}},
		"unnamed":   {Subscription{Holding: Holding{Status: "active", Reason: "active", Allowed: true, Until: later}, Pending: &Pending{Other: true, At: later}}, []string{"Changes to <bdi>another plan</bdi> on", "<bdi>Subscription</bdi>"}},
		"fewer":     {Subscription{Holding: Holding{Status: "active", Reason: "active", Allowed: true, Until: later}, Pending: &Pending{Seats: 1, At: later}}, []string{"Changes to <bdi>1</bdi> seat on"}},
	} {
		body := write(t, Brand{}, "en", &Account{Post: "/account", Manages: true, Subscriptions: []Subscription{test.sub}}).Body.String()
		for _, want := range test.want {
			if !strings.Contains(body, want) {
				t.Errorf("%s: no %q:\n%s", name, want, body[strings.Index(body, "<section"):])
			}
		}
	}
	for reason, want := range map[string]string{"purchased": "Yours for good.", "pass": "Given to you.", "benefit": "Given to you by the seller."} {
		body := write(t, Brand{}, "en", &Account{Others: []Holding{{Name: "pro", Reason: reason, Allowed: true}}}).Body.String()
		wants(t, body, want, "Active")
	}
}

func TestClean(t *testing.T) {
	for text, want := range map[string]string{
		"  a \n\t b  ":           "a b",
		"a\u202eb\u2066c\u200fd": "abcd",
		"a\x00b\x1bc\ufeff":      "abc",
		"👩\u200d💻":               "👩\u200d💻",
		strings.Repeat("x", 99):  strings.Repeat("x", 10) + "…",
		"":                       "",
	} {
		if got := clean(text, 10); got != want {
			t.Errorf("%q: %q, not %q", text, got, want)
		}
	}
}

// FuzzPages: whatever a name is, it is text, and bounded.
func FuzzPages(f *testing.F) {
	f.Add("<script>alert(1)</script>", "en", "usd")
	f.Add("\u202e{date}{name}", "de-AT;q=0.4, *", "\x00")
	f.Add("javascript:alert(1)", "ar,he", "jpy")
	s, err := New(Brand{})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text, languages, code string) {
		if !utf8.ValidString(languages) {
			languages = "en"
		}
		link := &Link{Label: "buy", Name: text, URL: text}
		o := Offer{
			Name: text, Description: text, Plan: text, Every: Interval{text, 2}, Trial: Interval{text, 2}, Benefits: []string{text}, Next: link,
			Prices: []Price{{Kind: PriceFixed, Currency: code, Amount: int64(len(text))}, {Kind: PriceUnit, Currency: code, Unit: text}},
		}
		h := Holding{Name: text, Plan: text, Status: text, Reason: text, Until: now}
		for _, p := range []Page{
			&Refusal{Code: text, Text: text, Title: text, Detail: text, RequestID: text, Next: link, Offers: []Offer{o}, Fields: []Field{{text, text}}},
			&Pricing{Offers: []Offer{o}, Account: text},
			&Account{Done: text, Post: "/account", Subscriptions: []Subscription{{ID: "1", Holding: h, Pending: &Pending{Name: text}}}, Others: []Holding{h}},
			&Waiting{To: "/pro/", Pending: true, Again: "/again", Events: "/events"},
		} {
			body := writeTo(t, s, languages, p).Body.String()
			if strings.Count(body, "<script") != 1 || strings.Count(body, "<style") != 1 || strings.ContainsAny(body, "\u202e\u2066") {
				t.Fatalf("%T of %q: %s", p, text, body)
			}
		}
	})
}

func BenchmarkPages(b *testing.B) {
	s, err := New(Brand{})
	if err != nil {
		b.Fatal(err)
	}
	offer := Offer{Name: "Pro", Every: Interval{"month", 1}, Prices: []Price{{Kind: PriceFixed, Currency: "usd", Amount: 1000}}, Next: &Link{Label: "buy", Name: "Pro", URL: "/checkout"}}
	for name, p := range map[string]Page{
		"refusal": &Refusal{Code: "canceled", Until: now.AddDate(0, 0, -3), Next: &Link{Label: "checkout", URL: "/checkout"}, Offers: []Offer{offer}, RequestID: "1"},
		"pricing": &Pricing{Offers: []Offer{offer, offer, offer}},
		"account": &Account{Post: "/account", Subscriptions: []Subscription{{ID: "1", Holding: Holding{Name: "Pro", Reason: "active", Allowed: true, Until: now.AddDate(0, 0, 3)}}}},
	} {
		b.Run(name, func(b *testing.B) {
			r := httptest.NewRequest(http.MethodGet, "http://shop.example/pro/", nil)
			r.Header.Set("Accept-Language", "de-DE,de;q=0.9,en-US;q=0.8,en;q=0.7")
			b.ReportAllocs()
			for b.Loop() {
				if err := s.Write(httptest.NewRecorder(), r, http.StatusPaymentRequired, now, p); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

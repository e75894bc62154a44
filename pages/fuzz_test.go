package pages

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzTexts: whatever an owner's file of words holds, it is refused with a reason, or
// every page can be said in it, to whatever visitor, as text.
func FuzzTexts(f *testing.F) {
	for _, file := range []string{
		"", "null", "{}", `{"en":null}`, `{"de":{"account.title":"<b>Dein Konto</b>"}}`, `{"EN":{"account.title":"a"},"en":{"account.title":"b"}}`, `{"x-klingon":{}}`,
		`{"pt-BR":{"account.title":"{name}{{.}}{"}}`, `{"ar":{"plan.pro":"\u202eorp"}}`, `{"de":{"account.title":"` + strings.Repeat("x", 2001) + `"}}`, `{"en":{"nothing":"x"}}`, "{\n\n\"en\":1}",
	} {
		f.Add([]byte(file), "de-AT, ar;q=0.5, *;q=0")
	}
	f.Add([]byte("{}"), strings.Repeat("de,", 100))
	f.Add([]byte(`{"`+strings.Repeat("\xa4", 4000)+`":{}}`), "de") // told whole it fills the log
	f.Add([]byte("{}"), "en-\x00;q=NaN")
	path := filepath.Join(f.TempDir(), "texts.json")
	f.Fuzz(func(t *testing.T, file []byte, languages string) {
		if err := os.WriteFile(path, file, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := New(Brand{Texts: path})
		if err != nil {
			if !errors.Is(err, ErrTexts) || len(err.Error()) > 10_000 {
				t.Fatal(err)
			}
			return
		}
		if !utf8.ValidString(languages) {
			languages = "*"
		}
		for _, p := range []Page{
			&Refusal{Code: "canceled", Until: now, Next: &Link{Label: "checkout", URL: "/checkout"}},
			&Pricing{Offers: []Offer{{Name: "Pro", Plan: "pro", Prices: []Price{{Kind: PriceFixed, Currency: "usd", Amount: 100}}}}},
			&Account{Post: "/account", Subscriptions: []Subscription{{ID: "1", Holding: Holding{Name: "Pro", Plan: "pro", Reason: "active", Until: now}, Pending: &Pending{Seats: 3, At: now}}}},
			&Waiting{To: "/pro/", Pending: true, Again: "/again"},
		} {
			body := writeTo(t, s, languages, p).Body.String()
			if strings.Count(body, "<script") != 1 || strings.Count(body, "<style") != 1 {
				t.Fatalf("%T of %q: %s", p, file, body)
			}
		}
	})
}

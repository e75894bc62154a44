package pages

import (
	"fmt"
	"html/template"
	"strings"
	"time"

	"github.com/go-playground/locales"
	"github.com/go-playground/locales/ar"
	"github.com/go-playground/locales/cs"
	"github.com/go-playground/locales/da"
	"github.com/go-playground/locales/de"
	"github.com/go-playground/locales/el"
	"github.com/go-playground/locales/en"
	"github.com/go-playground/locales/en_CA"
	"github.com/go-playground/locales/en_GB"
	"github.com/go-playground/locales/es"
	"github.com/go-playground/locales/fi"
	"github.com/go-playground/locales/fr"
	"github.com/go-playground/locales/fr_CA"
	"github.com/go-playground/locales/he"
	"github.com/go-playground/locales/hi"
	"github.com/go-playground/locales/hu"
	"github.com/go-playground/locales/id"
	"github.com/go-playground/locales/it"
	"github.com/go-playground/locales/ja"
	"github.com/go-playground/locales/ko"
	"github.com/go-playground/locales/nb"
	"github.com/go-playground/locales/nl"
	"github.com/go-playground/locales/pl"
	"github.com/go-playground/locales/pt"
	"github.com/go-playground/locales/ro"
	"github.com/go-playground/locales/ru"
	"github.com/go-playground/locales/sv"
	"github.com/go-playground/locales/th"
	"github.com/go-playground/locales/tr"
	"github.com/go-playground/locales/uk"
	"github.com/go-playground/locales/vi"
	"github.com/go-playground/locales/zh"
	"github.com/go-playground/locales/zh_Hant"
	"golang.org/x/text/currency"
	"golang.org/x/text/feature/plural"
	"golang.org/x/text/language"
	"golang.org/x/text/message"
)

// Where a currency's symbol stands.
type symbolPlace byte

const (
	symbolBefore symbolPlace = iota // $10.00
	symbolApart                     // € 10,00
	symbolAfter                     // 10,00 €
)

// formats are how dates and money are written, by language. Whoever has none of
// them gets the first.
//
// Source: the Unicode CLDR; dates by way of the locales library
var formats = []struct {
	tag    string
	dates  locales.Translator
	symbol symbolPlace
}{
	{"en", en.New(), symbolBefore},
	{"en-GB", en_GB.New(), symbolBefore}, // and all the English that is not America's
	{"en-CA", en_CA.New(), symbolBefore},
	{"ar", ar.New(), symbolAfter},
	{"cs", cs.New(), symbolAfter},
	{"da", da.New(), symbolAfter},
	{"de", de.New(), symbolAfter},
	{"de-AT", de.New(), symbolApart},
	{"de-CH", de.New(), symbolApart},
	{"el", el.New(), symbolAfter},
	{"es", es.New(), symbolAfter},
	{"es-419", es.New(), symbolBefore},
	{"fi", fi.New(), symbolAfter},
	{"fr", fr.New(), symbolAfter},
	{"fr-CA", fr_CA.New(), symbolAfter},
	{"he", he.New(), symbolAfter},
	{"hi", hi.New(), symbolBefore},
	{"hu", hu.New(), symbolAfter},
	{"id", id.New(), symbolApart},
	{"it", it.New(), symbolAfter},
	{"ja", ja.New(), symbolBefore},
	{"ko", ko.New(), symbolBefore},
	{"nb", nb.New(), symbolAfter},
	{"nl", nl.New(), symbolApart},
	{"pl", pl.New(), symbolAfter},
	{"pt", pt.New(), symbolApart},
	{"pt-PT", pt.New(), symbolAfter},
	{"ro", ro.New(), symbolAfter},
	{"ru", ru.New(), symbolAfter},
	{"sv", sv.New(), symbolAfter},
	{"th", th.New(), symbolBefore},
	{"tr", tr.New(), symbolBefore},
	{"uk", uk.New(), symbolAfter},
	{"vi", vi.New(), symbolAfter},
	{"zh", zh.New(), symbolBefore},
	{"zh-Hant", zh_Hant.New(), symbolBefore},
}

var formatTags, formatLanguages = func() (tags []language.Tag, m language.Matcher) {
	for _, f := range formats {
		tags = append(tags, language.MustParse(f.tag))
	}
	return tags, language.NewMatcher(tags)
}()

// Locale is how a visitor writes dates and money, and in which words they are
// spoken to.
type Locale struct {
	// Lang is the language of the words, and Dir its direction.
	Lang, Dir string
	// Currency is that of the visitor's country, in capitals, or empty.
	Currency string

	say    map[string]string
	tongue language.Tag // of the words
	dates  locales.Translator
	format string // the language of dates
	symbol symbolPlace
	print  *message.Printer
}

// maxLanguages is how many characters of Accept-Language are read.
const maxLanguages = 200

// locale is that of a visitor, by their browser's Accept-Language.
func (t *Texts) locale(acceptLanguage string) *Locale {
	var wanted []language.Tag
	if len(acceptLanguage) <= maxLanguages {
		wanted, _, _ = language.ParseAcceptLanguage(acceptLanguage) // a broken one wants nothing
	}
	_, words, _ := t.languages.Match(wanted...)
	tongue := t.tags[words]
	if len(wanted) == 0 {
		wanted = []language.Tag{tongue}
	}
	_, i, sure := formatLanguages.Match(wanted...)
	if sure < language.High { // of another language, and not to be read by this visitor
		_, i, _ = formatLanguages.Match(tongue)
	}
	l := &Locale{
		Lang: tongue.String(), Dir: "ltr", say: t.say[words], tongue: tongue,
		dates: formats[i].dates, format: formats[i].tag, symbol: formats[i].symbol, print: message.NewPrinter(formatTags[i]),
	}
	switch script, _ := tongue.Script(); script.String() {
	case "Arab", "Hebr", "Syrc", "Thaa", "Nkoo", "Adlm":
		l.Dir = "rtl"
	}
	if region, sure := wanted[0].Region(); sure > language.No { // de alone is Germany
		if unit, ok := currency.FromRegion(region); ok {
			l.Currency = unit.String()
		}
	}
	return l
}

// soon is how near a moment has to be for its hour to matter.
const soon = 48 * time.Hour

// date is a moment as an element whose text is the visitor's. The page's script
// changes it to their time zone.
func (l *Locale) date(t, now time.Time) template.HTML {
	t = t.UTC()
	text, near := l.dates.FmtDateLong(t), ""
	if d := t.Sub(now); -soon < d && d < soon {
		text += ", " + l.dates.FmtTimeShort(t) + " UTC"
		near = " data-near"
	}
	lang := ""
	if l.format != l.Lang {
		lang = ` lang="` + l.format + `"`
	}
	return template.HTML(`<time datetime="` + t.Format(time.RFC3339) + `"` + lang + near + ` dir="auto">` + template.HTMLEscapeString(text) + `</time>`)
}

// count is a text about a number, in the form that the language has for it:
// key.one, key.few, …, else key.other. {n} is the number.
func (l *Locale) count(key string, n int) template.HTML {
	text, ok := l.say[key+"."+pluralForm(l.tongue, n)]
	if !ok {
		text = l.say[key+".other"]
	}
	return fill(text, "n", isolated(l.print.Sprint(n)))
}

// isolated is a text whose direction is its own, whatever stands around it.
func isolated(text string) template.HTML {
	return "<bdi>" + template.HTML(template.HTMLEscapeString(text)) + "</bdi>"
}

func pluralForm(tongue language.Tag, n int) string {
	switch plural.Cardinal.MatchPlural(tongue, n, 0, 0, 0, 0) {
	case plural.Zero:
		return "zero"
	case plural.One:
		return "one"
	case plural.Two:
		return "two"
	case plural.Few:
		return "few"
	case plural.Many:
		return "many"
	}
	return "other"
}

// fill puts values, by name, into the holes of a text. All is escaped but what is
// HTML already.
func fill(text string, values ...any) template.HTML {
	pairs := make([]string, 0, len(values))
	for i := 0; i+1 < len(values); i += 2 {
		var value string
		switch v := values[i+1].(type) {
		case template.HTML:
			value = string(v)
		default:
			value = template.HTMLEscapeString(fmt.Sprint(v))
		}
		pairs = append(pairs, "{"+values[i].(string)+"}", value)
	}
	return template.HTML(strings.NewReplacer(pairs...).Replace(template.HTMLEscapeString(text)))
}

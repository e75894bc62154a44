package pages

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/language"
)

//go:embed texts/en.json
var englishFile []byte

// english is what the pages say by themselves.
var english = func() map[string]string {
	var all map[string]map[string]string
	if err := json.Unmarshal(englishFile, &all); err != nil {
		panic(err) // it is embedded
	}
	return all["en"]
}()

// Message is what people read about a code: a sentence, and what to do. ok is
// false for what is no code.
func Message(code string) (title, detail string, ok bool) {
	title, ok = english[code+".title"]
	return title, english[code+".detail"], ok
}

// Codes lists the codes that people read something about.
func Codes() (codes []string) {
	for key := range english {
		if code, ok := strings.CutSuffix(key, ".detail"); ok && !strings.Contains(code, ".") {
			codes = append(codes, code)
		}
	}
	slices.Sort(codes)
	return codes
}

// ErrTexts says that a file of texts cannot be used.
var ErrTexts = errors.New("the texts cannot be used")

const (
	maxTexts = 1 << 20 // bytes of a file
	maxText  = 2000    // characters of one text
)

// Texts are words for the pages, by language and key.
type Texts struct {
	tags []language.Tag // the first is what is spoken to whoever speaks none of them
	say  []map[string]string
	// languages chooses among tags.
	languages language.Matcher
}

// newTexts is English, with an owner's words before it. A text that they leave
// out is said in their English, and that in ours.
func newTexts(own map[string]map[string]string) (*Texts, error) {
	t := &Texts{tags: []language.Tag{language.English}, say: []map[string]string{english}}
	others := make(map[string]map[string]string)
	for name, texts := range own {
		tag, err := language.Parse(name)
		if _, sure := tag.Base(); err != nil || tag.IsRoot() || sure == language.No {
			return nil, fmt.Errorf("%w: %.40q is no language, like en, de or pt-BR", ErrTexts, name)
		}
		if err := checkTexts(name, texts); err != nil {
			return nil, err
		}
		switch written := tag.String(); {
		case others[written] != nil || written == "en" && name != "en" && own["en"] != nil:
			return nil, fmt.Errorf("%w: %s stands there twice", ErrTexts, written)
		case written == "en":
			t.say[0] = over(texts, english)
		default:
			others[written] = texts
		}
	}
	for _, name := range slices.Sorted(maps.Keys(others)) {
		t.tags, t.say = append(t.tags, language.MustParse(name)), append(t.say, over(others[name], t.say[0]))
	}
	t.languages = language.NewMatcher(t.tags)
	return t, nil
}

func over(mine, base map[string]string) map[string]string {
	all := maps.Clone(base)
	maps.Copy(all, mine)
	return all
}

// ReadTexts reads an owner's words: a JSON object of languages, each an object
// of texts by their keys.
func ReadTexts(path string) (map[string]map[string]string, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrTexts, err)
	}
	if len(raw) > maxTexts {
		return nil, fmt.Errorf("%w: %s has more than %d bytes", ErrTexts, path, maxTexts)
	}
	var own map[string]map[string]string
	if err := json.Unmarshal(raw, &own); err != nil {
		return nil, fmt.Errorf(`%w: %s%s: %w: it is to be like {"en": {"account.title": "Your account"}}`, ErrTexts, path, lineOf(raw, err), err)
	}
	return own, nil
}

// lineOf is where in a file an error of JSON is.
func lineOf(raw []byte, err error) string {
	var syntax *json.SyntaxError
	var wrongType *json.UnmarshalTypeError
	offset := int64(-1)
	switch {
	case errors.As(err, &syntax):
		offset = syntax.Offset
	case errors.As(err, &wrongType):
		offset = wrongType.Offset
	}
	if offset < 0 || offset > int64(len(raw)) {
		return ""
	}
	return fmt.Sprintf(":%d", 1+bytes.Count(raw[:offset], []byte("\n")))
}

// planKey begins the keys by which an owner names their plans.
const planKey = "plan."

// ourText is what we say instead. A language can have forms of a count that English
// has not.
func ourText(key string) (string, bool) {
	text, ok := english[key]
	if base, form, _ := cutLast(key); !ok && slices.Contains([]string{"zero", "one", "two", "few", "many"}, form) {
		text, ok = english[base+".other"]
	}
	return text, ok
}

func cutLast(key string) (base, last string, ok bool) {
	i := strings.LastIndexByte(key, '.')
	if i < 0 {
		return key, "", false
	}
	return key[:i], key[i+1:], true
}

var hole = regexp.MustCompile(`\{[a-z]+\}`)

func checkTexts(tongue string, own map[string]string) error {
	for _, key := range slices.Sorted(maps.Keys(own)) {
		text := own[key]
		ours, ok := ourText(key)
		switch {
		case !ok && !strings.HasPrefix(key, planKey):
			return fmt.Errorf("%w: %s: there is no text %.60q: pages/texts/en.json of this project has them all", ErrTexts, tongue, key)
		case utf8.RuneCountInString(text) > maxText:
			return fmt.Errorf("%w: %s: %s has more than %d characters", ErrTexts, tongue, key, maxText)
		case strings.TrimSpace(text) == "":
			return fmt.Errorf("%w: %s: %s is empty: leave it out to have ours", ErrTexts, tongue, key)
		}
		for _, name := range hole.FindAllString(text, -1) {
			if !strings.Contains(ours, name) {
				return fmt.Errorf("%w: %s: %s: nothing takes the place of %.60s there; ours is %q", ErrTexts, tongue, key, name, ours)
			}
		}
	}
	return nil
}

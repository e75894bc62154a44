// Package pages is what people see of the gateway: why they are refused, what is
// for sale, what they have, and that their purchase is on its way. It renders
// what it is told, and knows neither Caddy nor Polar nor who asks.
//
// Pages load nothing, run no script but their own, and work without it.
package pages

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"errors"
	"fmt"
	"html/template"
	"math"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"
)

//go:embed *.html style.css script.js
var files embed.FS

// ErrBrand says that a name, logo or colour cannot be used.
var ErrBrand = errors.New("the brand cannot be used")

// Brand is how an owner has their pages look. All of it may be empty.
type Brand struct {
	// Name of the site. Default: the host that the visitor asked.
	Name string
	// Logo is the path of an SVG, PNG, JPEG, GIF or WebP file of at most 6 KiB: it
	// stands in each page.
	Logo string
	// Color of buttons, as rgb or rrggbb, with or without #.
	Color string
	// Texts is the path of a file with words of the owner's own.
	Texts string
}

// Site renders the pages of one owner.
type Site struct {
	name  string
	logo  template.URL
	texts *Texts
	style template.CSS
	// policy is the Content-Security-Policy that all pages have.
	policy string
	pages  *template.Template
}

const (
	maxLogo = 6 << 10
	maxName = 60

	defaultColor = "1f4fd8"
)

// New makes the pages of a brand. An error names what of it cannot be used, and
// is ErrBrand or ErrTexts.
func New(b Brand) (*Site, error) {
	s := &Site{name: clean(b.Name, maxName)}
	var own map[string]map[string]string
	var err error
	if b.Texts != "" {
		if own, err = ReadTexts(b.Texts); err != nil {
			return nil, err
		}
	}
	if s.texts, err = newTexts(own); err != nil {
		return nil, err
	}
	if b.Logo != "" {
		if s.logo, err = readLogo(b.Logo); err != nil {
			return nil, err
		}
	}
	color := b.Color
	if color == "" {
		color = defaultColor
	}
	if err := CheckColor(color); err != nil {
		return nil, err
	}
	color = strings.TrimPrefix(color, "#")
	s.style = template.CSS(fmt.Sprintf(":root{--brand:#%s;--on-brand:%s}\n", color, inkOn(color)) + file("style.css"))
	script := template.JS(file("script.js"))
	s.policy = "default-src 'none'; style-src " + digest(string(s.style)) + "; script-src " + digest(string(script)) +
		"; img-src data:; base-uri 'none'; frame-ancestors 'none'"
	s.pages, err = template.New("").Funcs(template.FuncMap{
		"style":  func() template.CSS { return s.style },
		"script": func() template.JS { return script },
		"clean":  func(text string) string { return clean(text, maxLine) },
	}).ParseFS(files, "*.html")
	return s, err
}

func file(name string) string {
	raw, err := files.ReadFile(name)
	if err != nil {
		panic(err) // it is embedded
	}
	return string(raw)
}

// digest is how a policy names what it lets in.
func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

// readLogo is a logo as it stands in a page: pages load nothing.
func readLogo(path string) (template.URL, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("%w: logo: %w: it is the path of a file, which stands in each page", ErrBrand, err)
	}
	if len(raw) > maxLogo {
		return "", fmt.Errorf("%w: logo: %s has %d bytes: at most %d, as it stands in each page; an SVG is smallest", ErrBrand, path, len(raw), maxLogo)
	}
	kind := http.DetectContentType(raw)
	if head := string(raw[:min(len(raw), 512)]); strings.Contains(head, "<svg") {
		kind = "image/svg+xml"
	}
	switch kind {
	case "image/svg+xml", "image/png", "image/jpeg", "image/gif", "image/webp":
		return template.URL("data:" + kind + ";base64," + base64.StdEncoding.EncodeToString(raw)), nil
	}
	return "", fmt.Errorf("%w: logo: %s is no SVG, PNG, JPEG, GIF or WebP", ErrBrand, path)
}

var colorRE = regexp.MustCompile(`^#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6})$`)

// CheckColor says whether a colour can be used.
func CheckColor(color string) error {
	if !colorRE.MatchString(color) {
		return fmt.Errorf("%w: color: %q is not of the form 1f4fd8", ErrBrand, color)
	}
	return nil
}

// inkOn is black or white, whichever is read better on a colour. One of them has a
// contrast of 4.58 at least, and 4.5 is what WCAG's AA asks for.
func inkOn(hex string) string {
	if l := luminance(hex); 1.05/(l+0.05) < (l+0.05)/0.05 {
		return "#000"
	}
	return "#fff"
}

// luminance is WCAG's relative one, of a colour as rgb or rrggbb.
func luminance(hex string) float64 {
	if len(hex) == 3 {
		hex = string([]byte{hex[0], hex[0], hex[1], hex[1], hex[2], hex[2]})
	}
	linear := func(from int) float64 {
		n, _ := strconv.ParseUint(hex[from:from+2], 16, 8)
		c := float64(n) / 255
		if c <= 0.04045 {
			return c / 12.92
		}
		return math.Pow((c+0.055)/1.055, 2.4)
	}
	return 0.2126*linear(0) + 0.7152*linear(2) + 0.0722*linear(4)
}

// Page is one of Refusal, Pricing, Account, Waiting and Again.
type Page interface {
	template() string
	// policy is what the page may do besides.
	policy() string
}

// scene is what templates see.
type scene struct {
	*Site
	*Locale
	Host string
	now  time.Time
	Page any
}

// Write answers with a page in the visitor's language.
func (s *Site) Write(w http.ResponseWriter, r *http.Request, status int, now time.Time, p Page) error {
	at := &scene{s, s.texts.locale(r.Header.Get("Accept-Language")), r.Host, now, p}
	var body bytes.Buffer
	if err := s.pages.ExecuteTemplate(&body, p.template()+".html", at); err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Language", at.Lang)
	h.Set("Content-Length", strconv.Itoa(body.Len()))
	h.Set("Content-Security-Policy", s.policy+p.policy())
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY") // for browsers that know no frame-ancestors
	h.Set("Referrer-Policy", "no-referrer")
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body.Bytes()) // the visitor may be gone
	}
	return nil
}

const noForms = "; form-action 'none'"

// Brand is the site's name.
func (s *scene) Brand() string {
	if s.name != "" {
		return s.name
	}
	return clean(s.Host, maxName)
}

// Logo is the logo's data, or empty.
func (s *scene) Logo() template.URL { return s.logo }

// Say is a text, with values in its holes by name.
func (s *scene) Say(key string, values ...any) template.HTML { return fill(s.say[key], values...) }

// Date is a moment.
func (s *scene) Date(t time.Time) template.HTML { return s.date(t, s.now) }

// Count is a text about a number.
func (s *scene) Count(key string, n int) template.HTML { return s.count(key, n) }

// daysLeft are the days until a moment, begun ones counted.
func (s *scene) daysLeft(t time.Time) int { return int(math.Ceil(t.Sub(s.now).Hours() / 24)) }

// days are those left until a moment, in words.
func (s *scene) days(t time.Time) template.HTML { return s.count("days", max(s.daysLeft(t), 1)) }

const (
	maxLine = 120 // characters of a name
	maxPara = 500 // of a description
)

// clean makes a text fit for a page, whoever wrote it: without control characters
// and those that turn the direction of what follows, in one line, and bounded.
func clean(text string, most int) string {
	if len(text) > most*16 {
		text = text[:most*16] // what is cut off here would be below as well
	}
	var b strings.Builder
	n, blank := 0, false
	for _, c := range text {
		switch {
		case unicode.IsSpace(c):
			blank = true
			continue
		case unicode.IsControl(c) || unicode.In(c, unicode.Bidi_Control) || c == unicode.ReplacementChar || c == '\ufeff':
			continue
		}
		if n++; n > most {
			return strings.TrimSpace(b.String()) + "…"
		}
		if blank && b.Len() > 0 {
			b.WriteByte(' ')
			n++
		}
		blank = false
		b.WriteRune(c)
	}
	return b.String()
}

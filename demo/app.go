package demo

import (
	"embed"
	"encoding/json"
	"html/template"
	"net/http"
	"net/url"
	"strings"
	"time"
)

//go:embed pages
var files embed.FS

var pages = template.Must(template.New("").Funcs(template.FuncMap{
	"clock": func(t time.Time) string { return t.UTC().Format("Mon 2 Jan 2006 15:04:05 UTC") },
	"brief": func(t time.Time) string { return t.UTC().Format("2 Jan 15:04:05") },
}).ParseFS(files, "pages/*.html"))

// sessionCookie holds the JWT. It is SameSite=Strict, the hardest case.
const sessionCookie = "session"

// told are the headers by which the gateway tells the app who asks and what is
// open. The app reads nothing else: it knows no Polar and no secret of it.
var told = []string{
	"X-Polar-User", "X-Polar-Plan", "X-Polar-Plans", "X-Polar-Status",
	"X-Polar-Reason", "X-Polar-Until", "X-Polar-Grace-Until", "X-Polar-Customer",
}

// app is the app behind the gateway.
func (d *Demo) app() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", d.home)
	mux.HandleFunc("GET /pro/{$}", func(w http.ResponseWriter, r *http.Request) { d.showApp(w, r, "pro.html") })
	mux.HandleFunc("GET /api/team/hello", hello)
	mux.HandleFunc("GET /login", d.login)
	mux.HandleFunc("POST /logout", logout)
	mux.HandleFunc("GET /demo.css", serveFile("demo.css"))
	return secured(http.NewCrossOriginProtection().Handler(mux))
}

// secured sets the headers that all of our pages have.
func secured(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "+
			"img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
		h.Set("Cache-Control", "no-store")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("X-Content-Type-Options", "nosniff")
		next.ServeHTTP(w, r)
	})
}

func serveFile(name string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { http.ServeFileFS(w, r, files, "pages/"+name) }
}

func show(w http.ResponseWriter, name string, data any) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_ = pages.ExecuteTemplate(w, name, data) // the visitor may be gone
}

// home is the page for everybody. Whoever comes from another site, such as the
// panel or the portal, comes without the session's cookie; a page that loads
// this one once more brings it along.
func (d *Demo) home(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Sec-Fetch-Site") == "cross-site" && r.Header.Get("X-Polar-User") == "" {
		show(w, "again.html", nil)
		return
	}
	d.showApp(w, r, "home.html")
}

type header struct{ Name, Value string }

func (d *Demo) showApp(w http.ResponseWriter, r *http.Request, page string) {
	data := struct {
		Person person
		Known  bool
		People []person
		Told   []header
		Plans  map[string]bool
		Panel  string
	}{People: people, Panel: d.Panel, Plans: make(map[string]bool)}
	data.Person, data.Known = personByID(r.Header.Get("X-Polar-User"))
	for _, name := range told {
		if value := r.Header.Get(name); value != "" {
			data.Told = append(data.Told, header{name, value})
		}
	}
	for plan := range strings.SplitSeq(r.Header.Get("X-Polar-Plans"), ",") {
		data.Plans[plan] = true
	}
	show(w, page, data)
}

// hello is the API for teams.
func hello(w http.ResponseWriter, r *http.Request) {
	p, _ := personByID(r.Header.Get("X-Polar-User"))
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]string{
		"hello": p.Name, "plan": r.Header.Get("X-Polar-Plan"),
		"reason": r.Header.Get("X-Polar-Reason"), "until": r.Header.Get("X-Polar-Until"),
	})
}

// login asks who signs in, and sends them back to where they came from.
func (d *Demo) login(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	back := d.path(q.Get("return_to"))
	if !q.Has("as") {
		show(w, "login.html", struct {
			People []person
			Back   string
		}{people, back})
		return
	}
	p, ok := personByID(q.Get("as"))
	if !ok {
		http.Error(w, "There is nobody of that name here.", http.StatusNotFound)
		return
	}
	setSession(w, d.token(p), int(tokenLife.Seconds()))
	http.Redirect(w, r, back, http.StatusSeeOther)
}

// path is an address as one on this site, and / for any other site's.
func (d *Demo) path(address string) string {
	u, err := url.Parse(address)
	if err != nil || u.Host != "" && u.Scheme+"://"+u.Host != d.Site || !strings.HasPrefix(u.Path, "/") ||
		strings.HasPrefix(u.Path, "//") || strings.Contains(u.Path, "\\") {
		return "/"
	}
	return (&url.URL{Path: u.Path, RawQuery: u.RawQuery}).String()
}

func logout(w http.ResponseWriter, r *http.Request) {
	setSession(w, "", -1)
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

func setSession(w http.ResponseWriter, token string, maxAge int) {
	http.SetCookie(w, &http.Cookie{
		Name: sessionCookie, Value: token, Path: "/", MaxAge: maxAge, HttpOnly: true, SameSite: http.SameSiteStrictMode,
	})
}

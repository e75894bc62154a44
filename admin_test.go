package caddypolar

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"

	"github.com/caddy-polar/caddy-polar/polar/box"
	"github.com/caddy-polar/caddy-polar/polar/box/boxtest"
)

// adminDocument describes the admin API.
var adminDocument = sync.OnceValues(func() (*openapi3.T, error) {
	doc, err := openapi3.NewLoader().LoadFromFile("docs/admin-openapi.yaml")
	if err != nil {
		return nil, err
	}
	return doc, doc.Validate(openapi3.NewLoader().Context)
})

// adminAPI serves the admin routes of an app as Caddy does, and holds each
// answer against the document.
type adminAPI struct {
	t    *testing.T
	http http.Handler
	seen map[string]bool // operations that were answered with 200
}

func newAdminAPI(t *testing.T, app *App) *adminAPI {
	t.Helper()
	mux := http.NewServeMux()
	for _, route := range (&Admin{app: func() (*App, error) { return app, nil }}).Routes() {
		mux.HandleFunc(route.Pattern, func(w http.ResponseWriter, r *http.Request) {
			var failure caddy.APIError
			if err := route.Handler.ServeHTTP(w, r); errors.As(err, &failure) { // as in caddy's admin.go
				failure.Message = failure.Err.Error()
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(failure.HTTPStatus)
				_ = json.NewEncoder(w).Encode(failure)
			} else if err != nil {
				t.Errorf("%s %s: not as Caddy wants it: %v", r.Method, r.URL, err)
			}
		})
	}
	return &adminAPI{t: t, http: mux, seen: make(map[string]bool)}
}

func (a *adminAPI) do(method, target, body string) (status int, answer map[string]any, header http.Header) {
	a.t.Helper()
	w := a.send(method, target, body)
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
		a.t.Fatalf("%s %s: %d, no JSON: %s", method, target, w.Code, w.Body)
	}
	return w.Code, answer, w.Header()
}

// send is do for what need not answer with JSON.
func (a *adminAPI) send(method, target, body string) *httptest.ResponseRecorder {
	a.t.Helper()
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	w := newRecorder()
	a.http.ServeHTTP(w, r)
	a.check(r, w)
	return w
}

// ok is do for what must succeed.
func (a *adminAPI) ok(method, target, body string) map[string]any {
	a.t.Helper()
	status, answer, _ := a.do(method, target, body)
	if status != http.StatusOK {
		a.t.Fatalf("%s %s: %d %v", method, target, status, answer)
	}
	return answer
}

// check holds an answer against the document.
func (a *adminAPI) check(r *http.Request, w *httptest.ResponseRecorder) {
	a.t.Helper()
	doc, err := adminDocument()
	if err != nil {
		a.t.Fatal(err)
	}
	got := strings.Split(r.URL.EscapedPath(), "/")
	for path, item := range doc.Paths.Map() {
		op := item.GetOperation(r.Method)
		if op == nil || !fits(strings.Split(path, "/"), got) {
			continue
		}
		in := &openapi3filter.ResponseValidationInput{
			RequestValidationInput: &openapi3filter.RequestValidationInput{
				Request: r, Route: &routers.Route{Spec: doc, Path: path, PathItem: item, Method: r.Method, Operation: op},
			},
			Status: w.Code, Header: w.Header(), Body: io.NopCloser(bytes.NewReader(w.Body.Bytes())),
			Options: &openapi3filter.Options{IncludeResponseStatus: true},
		}
		if err := openapi3filter.ValidateResponse(r.Context(), in); err != nil {
			a.t.Errorf("%s %s: %v\n%s", r.Method, r.URL, err, w.Body)
		}
		if w.Code == http.StatusOK {
			a.seen[op.OperationID] = true
		}
	}
}

func fits(template, got []string) bool {
	if len(template) != len(got) {
		return false
	}
	for i, part := range template {
		if part != got[i] && (!strings.HasPrefix(part, "{") || got[i] == "") {
			return false
		}
	}
	return true
}

// fakeNotifySecret is of 32 bytes, as openssl would make it.
const fakeNotifySecret = "whsec_ZmFrZWZha2VmYWtlZmFrZWZha2VmYWtlZmFrZWZha2U="

// tendedApp is an app with a Polar in a box, and one customer who has paid.
func tendedApp(t *testing.T) (*App, *boxtest.Server, box.Product) {
	t.Helper()
	b := boxtest.Start(t, box.Options{Start: time.Now(), SigningClock: time.Now})
	pro := b.AddProduct(box.Product{Name: "Pro", Interval: "month", Price: box.Price{Amount: 1000, Currency: "usd"}})
	if _, err := b.Buy("ada", "ada@example.com", pro.ID); err != nil {
		t.Fatal(err)
	}
	b.Settle()
	app, _ := provisioned(t, "server "+b.URL+"\naccess_token "+b.NewToken()+"\nsync off\nnotify http://127.0.0.1:1/hook "+fakeNotifySecret+"\nplan pro "+pro.ID+"\nplan team "+testProduct)
	return app, b, pro
}

// TestAdminAPI plays an operator's day, and every verb of the document.
func TestAdminAPI(t *testing.T) {
	app, b, pro := tendedApp(t)
	a := newAdminAPI(t, app)
	if r := a.ok("POST", "/polar/sync", ""); r["objects"].(float64) < 2 {
		t.Error(r)
	}
	if s := a.ok("GET", "/polar/status", ""); s["gateway"] != "default" || s["sync"].(map[string]any)["last"] == nil || s["accounts"].(map[string]any)["active"] != 1.0 {
		t.Error(s)
	}
	held := a.ok("GET", "/polar/users/ada", "")
	if s := held["subscriptions"].([]any)[0].(map[string]any); s["productId"] != pro.ID || s["trialEnd"] != nil || s["version"].(map[string]any)["row"] == nil {
		t.Error(held)
	}
	if again := a.ok("POST", "/polar/sync?user=ada", ""); again["user"] != "ada" {
		t.Error(again)
	}
	e := a.ok("GET", "/polar/explain?user=ada", "")
	if d := e["decision"].(map[string]any); d["allowed"] != true || d["reason"] != "active" || len(e["plans"].([]any)) != 2 {
		t.Error(e)
	}
	e = a.ok("GET", "/polar/explain?user=ada&plan=team&at="+url.QueryEscape("2026-01-01T00:00:00+02:00"), "")
	if d := e["decision"].(map[string]any); d["allowed"] != false || e["at"] != "2025-12-31T22:00:00Z" || len(e["plans"].([]any)) != 1 {
		t.Error(e)
	}

	// A user's id can be anything.
	odd := "a/../b c?#%2F+ü@example.com"
	user := "/polar/users/" + url.PathEscape(odd)
	p := a.ok("POST", user+"/passes", `{"plan":"team","until":"2099-01-01T00:00:00+01:00","reason":"press"}`)
	if p["user"] != odd || p["until"] != "2098-12-31T23:00:00Z" || !decideOf(t, app, odd, "team") {
		t.Error(p)
	}
	if list := a.ok("GET", user, "")["passes"].([]any); len(list) != 1 || list[0].(map[string]any)["id"] != p["id"] {
		t.Error(list)
	}
	if r := a.ok("DELETE", user+"/passes/"+p["id"].(string), ""); r["revoked"] != true || decideOf(t, app, odd, "team") {
		t.Error(r)
	}
	customer, err := b.CreateCustomer(box.Customer{Email: "lin@example.com"})
	if err != nil {
		t.Fatal(err)
	}
	link := user + "/links/" + customer.ID
	if l := a.ok("PUT", link+"?dry_run=true", ""); l["externalId"] != "written" || l["dryRun"] != true {
		t.Error(l)
	}
	if l := a.ok("PUT", link+"?polar=false", ""); l["externalId"] != "not_asked" {
		t.Error(l)
	}
	if l := a.ok("GET", user, "")["links"].([]any); len(l) != 1 || l[0] != customer.ID {
		t.Error(l)
	}
	for after, want := range map[string]any{"": "ada", "ada": nil} {
		users := a.ok("GET", "/polar/users?limit=1&status=active&plan=pro&after="+after, "")["users"].([]any)
		if len(users) > 0 != (want != nil) || want != nil && users[0].(map[string]any)["user"] != want {
			t.Error(after, users)
		}
	}
	for after, next := range map[string]any{"": odd, url.QueryEscape(odd): nil} {
		if x := a.ok("GET", "/polar/export?limit=1&after="+after, ""); len(x["users"].([]any)) != 1 || x["next"] != next {
			t.Error(x)
		}
	}
	if w := a.send("GET", "/polar/backup", ""); w.Code != 200 || strconv.Itoa(w.Body.Len()) != w.Header().Get("Content-Length") {
		t.Error(w.Code, w.Body.Len(), w.Header())
	}
	if v := a.ok("GET", "/polar/health/live", ""); v["live"] != true {
		t.Error(v)
	}
	if v := a.ok("GET", "/polar/health/ready", ""); v["ready"] != true || v["gateways"].([]any)[0].(map[string]any)["gateway"] != "default" {
		t.Error(v)
	}
	if r := a.ok("DELETE", "/polar/users/ada", ""); r["removed"].(float64) < 2 || decideOf(t, app, "ada", "pro") {
		t.Error(r)
	}
	if s := a.ok("POST", "/polar/webhook/setup", `{"url":"`+b.URL+`"}`); s["state"] != "created" || s["secret"] == nil ||
		s["pathAdded"] != true || s["check"].(map[string]any)["problem"] != "path" {
		t.Error(s)
	}
	if r := a.ok("POST", "/polar/notify/resend", ""); r["messages"] != 0.0 {
		t.Error(r)
	}
	if r := a.ok("GET", "/polar/revenue", ""); r["totals"].(map[string]any)["revenue"] != 1000.0 || len(r["periods"].([]any)) != 12 {
		t.Error(r)
	}
	if d := a.ok("POST", "/polar/doctor", ""); d["gateway"] != "default" || len(d["findings"].([]any)) < 25 {
		t.Error(d)
	}
	place, err := json.Marshal(map[string]string{"module": "bolt", "path": filepath.Join(t.TempDir(), "new.db")})
	if err != nil {
		t.Fatal(err)
	}
	if m := a.ok("POST", "/polar/migrate", string(place)); m["from"] == m["to"] || m["objects"].(map[string]any)["links"] != 1.0 {
		t.Error(m)
	}
	doc, err := adminDocument()
	if err != nil {
		t.Fatal(err)
	}
	for path, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			if !a.seen[op.OperationID] {
				t.Errorf("%s %s is in the document and was not asked", method, path)
			}
		}
	}
	if len(a.seen) != len(verbs) {
		t.Errorf("%d verbs, and %d in the document", len(verbs), len(a.seen))
	}
}

func decideOf(t *testing.T, app *App, user, plan string) bool {
	t.Helper()
	e, err := app.Gateways["default"].core.Explain(user, time.Time{}, plan)
	if err != nil {
		t.Fatal(err)
	}
	return e.Decision.Allowed
}

func TestAdminRefusals(t *testing.T) {
	app, b, _ := tendedApp(t)
	a := newAdminAPI(t, app)
	pass := a.ok("POST", "/polar/users/ada/passes", `{"plan":"team"}`)["id"].(string)
	before := a.ok("GET", "/polar/users", "")
	long := strings.Repeat("a", 256)
	for _, tt := range []struct {
		method, target, body string
		status               int
		says                 string
	}{
		{"GET", "/polar/", "", 404, "nothing of this name"},
		{"GET", "/polar/Status", "", 404, "nothing of this name"},
		{"GET", "/polar/users/", "", 404, "nothing of this name"},
		{"GET", "/polar/users/a/b", "", 404, "nothing of this name"},
		{"POST", "/polar/status", "", 405, "GET"},
		{"GET", "/polar/sync", "", 405, "POST"},
		{"GET", "/polar/users/ada/passes", "", 405, "POST"},
		{"GET", "/polar/users/ada/passes/" + pass, "", 405, "DELETE"},
		{"GET", "/polar/users/ada/links/x", "", 405, "PUT"},
		{"POST", "/polar/users/ada", "", 405, "GET or DELETE"},
		{"GET", "/polar/status?gateway=nope", "", 404, "default"},
		{"GET", "/polar/status?gatway=x", "", 400, "gateway"},
		{"GET", "/polar/users?plan=a&plan=b", "", 400, "twice"},
		{"GET", "/polar/users?%zz", "", 400, "query"},
		{"GET", "/polar/users?plan=gold", "", 400, "gold"},
		{"GET", "/polar/users?limit=0", "", 400, "1000"},
		{"GET", "/polar/users?limit=1001", "", 400, "1000"},
		{"GET", "/polar/users?limit=x", "", 400, "1000"},
		{"POST", "/polar/migrate", "", 400, "module"},
		{"POST", "/polar/migrate", `"bolt"`, 400, "module"},
		{"POST", "/polar/migrate", `{"module":"nothing"}`, 400, "nothing"},
		{"POST", "/polar/migrate", `{"module":"bolt","dsn":"canary"}`, 400, "dsn"},
		{"POST", "/polar/migrate", `{"module":"bolt","path":"{env.NOT_THERE_AT_ALL}"}`, 400, "NOT_THERE"},
		{"GET", "/polar/users/" + long, "", 400, "255"},
		{"GET", "/polar/users/%00", "", 400, "control"},
		{"DELETE", "/polar/users/%0a", "", 400, "control"},
		{"GET", "/polar/explain", "", 400, "user"},
		{"GET", "/polar/explain?user=%0a", "", 400, "control"},
		{"GET", "/polar/explain?user=ada&plan=gold", "", 400, "gold"},
		{"GET", "/polar/explain?user=ada&at=tomorrow", "", 400, "2027-01-31"},
		{"GET", "/polar/explain?user=ada&at=9999-12-31T23:59:59-10:00", "", 400, "2027-01-31"},
		{"POST", "/polar/sync?user=", "", 400, "user"},
		{"POST", "/polar/users/ada/passes", "", 400, `{"plan"`},
		{"POST", "/polar/users/ada/passes", "[]", 400, `{"plan"`},
		{"POST", "/polar/users/ada/passes", "{}", 400, "pro, team"},
		{"POST", "/polar/users/ada/passes", `{"plan":"gold"}`, 400, "pro, team"},
		{"POST", "/polar/users/ada/passes", `{"plan":"pro","utnil":"x"}`, 400, "until"},
		{"POST", "/polar/users/ada/passes", `{"plan":"pro"}{}`, 400, `{"plan"`},
		{"POST", "/polar/users/ada/passes", `{"plan":"pro","until":"tomorrow"}`, 400, "2027-01-31"},
		{"POST", "/polar/users/ada/passes", `{"plan":"pro","until":"2020-01-01T00:00:00Z"}`, 400, "is over"},
		{"POST", "/polar/users/ada/passes", `{"plan":"pro","reason":"a\nb"}`, 400, "reason"},
		{"POST", "/polar/users/" + long + "/passes", `{"plan":"pro"}`, 400, "255"},
		{"DELETE", "/polar/users/ada/passes/nope", "", 404, "no such pass"},
		{"DELETE", "/polar/users/grace/passes/" + pass, "", 404, "no such pass"},
		{"PUT", "/polar/users/ada/links/a%20b", "", 400, "customer"},
		{"PUT", "/polar/users/ada/links/nope", "", 404, "no customer"},
		{"PUT", "/polar/users/ada/links/x?dry_run=maybe", "", 400, "true nor false"},
		{"PUT", "/polar/users/ada/links/x?polar=no", "", 400, "true nor false"},
		{"PUT", "/polar/users/%7f/links/x", "", 400, "control"},
		{"POST", "/polar/backup", "", 405, "GET"},
		{"GET", "/polar/backup?gateway=nope", "", 404, "default"},
		{"GET", "/polar/export?limit=501", "", 400, "500"},
		{"GET", "/polar/health", "", 404, "nothing of this name"},
		{"HEAD", "/polar/health/x", "", 404, "nothing of this name"},
		{"POST", "/polar/health/live", "", 405, "GET"},
		{"GET", "/polar/health/live?gateway=default", "", 400, "leave it out"},
		{"GET", "/polar/health/ready?gateway=nope", "", 404, "default"},
		{"GET", "/polar/revenue?from=2026-02-30", "", 400, "2026-01-31"},
		{"GET", "/polar/revenue?to=today", "", 400, "2026-01-31"},
		{"GET", "/polar/revenue?interval=hour", "", 400, "day, week, month and year"},
		{"GET", "/polar/revenue?from=2026-02-01&to=2026-01-01", "", 400, "earlier from"},
		{"GET", "/polar/revenue?from=2020-02-01&to=2026-01-01&interval=day", "", 400, "at most 366 days"},
		{"POST", "/polar/revenue", "", 405, "GET"},
		{"GET", "/polar/webhook/setup", "", 405, "POST"},
		{"GET", "/polar/doctor", "", 405, "POST"},
		{"POST", "/polar/webhook/setup", "", 400, `{"url"`},
		{"POST", "/polar/webhook/setup", `{"uri":"https://app.example.com"}`, 400, `{"url"`},
		{"POST", "/polar/webhook/setup", `{"url":"http://app.example.com"}`, 400, "https://"},
	} {
		status, answer, header := a.do(tt.method, tt.target, tt.body)
		if said, _ := answer["error"].(string); status != tt.status || !strings.Contains(said, tt.says) {
			t.Errorf("%s %s %s: %d %q, want %d and %q", tt.method, tt.target, tt.body, status, said, tt.status, tt.says)
		}
		if (status == 405) != (header.Get("Allow") != "") {
			t.Errorf("%s %s: Allow is %q", tt.method, tt.target, header.Get("Allow"))
		}
	}
	b.SetTrouble(box.Trouble{HTML: true})
	for _, target := range []string{"/polar/sync", "/polar/sync?user=ada"} {
		if testing.Short() {
			break // it tries for a while
		}
		if status, answer, _ := a.do("POST", target, ""); status != 503 {
			t.Errorf("Polar is down: %d %v", status, answer)
		}
	}
	raw, _ := json.Marshal(before)
	after, _ := json.Marshal(a.ok("GET", "/polar/users", ""))
	if !bytes.Equal(raw, after) {
		t.Errorf("something has changed: %s, was %s", after, raw)
	}
}

func TestAdminWithoutToken(t *testing.T) {
	app, _ := provisioned(t, "plan pro "+testProduct)
	a := newAdminAPI(t, app)
	for _, target := range []string{"/polar/sync", "/polar/sync?user=ada"} {
		if status, answer, _ := a.do("POST", target, ""); status != 409 || !strings.Contains(answer["error"].(string), "access_token") {
			t.Error(status, answer)
		}
	}
	if status, answer, _ := a.do("POST", "/polar/webhook/setup", `{"url":"https://app.example.com"}`); status != 409 ||
		!strings.Contains(answer["error"].(string), "access_token") {
		t.Error(status, answer)
	}
	if status, answer, _ := a.do("GET", "/polar/revenue", ""); status != 409 || !strings.Contains(answer["error"].(string), "access_token") {
		t.Error(status, answer)
	}
	if l := a.ok("PUT", "/polar/users/ada/links/c1", ""); l["externalId"] != "not_asked" {
		t.Error(l)
	}
	s := a.ok("GET", "/polar/status", "")
	if s["polar"].(map[string]any)["canAsk"] != false || s["sync"].(map[string]any)["off"] != true {
		t.Error(s)
	}
	for name, want := range map[string]bool{"": true, "default": true, "Default": false} {
		if g, err := app.chosen(name); (err == nil) != want || want && g != app.Gateways["default"] {
			t.Error(name, err)
		}
	}
	app.Gateways["only"] = app.Gateways["default"]
	delete(app.Gateways, "default")
	defer func() { app.Gateways["default"] = app.Gateways["only"] }()
	if g, err := app.chosen(""); err != nil || g != app.Gateways["only"] {
		t.Error("the only one is not the default:", err)
	}
}

// TestAdminWithoutApp: a Caddy without gateways says so.
func TestAdminWithoutApp(t *testing.T) {
	admin := &Admin{app: func() (*App, error) { return loadApp(caddy.Context{}) }}
	err := admin.serve(newRecorder(), httptest.NewRequest(http.MethodGet, "/polar/status", nil))
	if failure, ok := errors.AsType[caddy.APIError](err); !ok || failure.HTTPStatus != 409 || !strings.Contains(failure.Err.Error(), "polar is not configured") {
		t.Error(err)
	}
}

// TestOperatorOverASocket: the admin API can listen on one, and then Caddy takes
// no origin.
func TestOperatorOverASocket(t *testing.T) {
	app, _ := provisioned(t, "plan pro "+testProduct)
	path := filepath.Join(t.TempDir(), "a.sock")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	a := newAdminAPI(t, app)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Origin") != "" || r.Host != "127.0.0.1" {
			t.Errorf("origin %q, host %q", r.Header.Get("Origin"), r.Host)
		}
		a.http.ServeHTTP(w, r)
	}))
	s.Listener = listener
	s.Start()
	defer s.Close()
	for _, suffix := range []string{"", "|0600"} {
		var out bytes.Buffer
		cmd := statusCommand()
		cmd.SetArgs([]string{"--address", "unix/" + path + suffix})
		cmd.SetOut(&out)
		if err := cmd.ExecuteContext(t.Context()); err != nil || !strings.Contains(out.String(), "default") {
			t.Errorf("%v: %s", err, out.String())
		}
	}
}

package caddypolar

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/caddy-polar/caddy-polar/entitlement"
)

// route is one of the addresses under the prefix.
type route struct {
	allow string
	serve func(*Gateway, http.ResponseWriter, *http.Request, *visit) error
	// user says that a valid token is needed.
	user bool
	// control are the methods that act for the paying party: only who manages that
	// may use them.
	control string
	// opens says that even a GET starts something at Polar.
	opens bool
	// holds says that a GET uses up what a user has only a few of.
	holds bool
	// page says that whoever asks is answered with pages.
	page bool
	// machine says that no browser has business there.
	machine bool
}

var routes = map[string]route{
	"/webhook":      {allow: "POST, OPTIONS", serve: (*Gateway).serveWebhook, machine: true},
	"/checkout":     {allow: "GET, POST, OPTIONS", serve: (*Gateway).serveCheckout, user: true, control: "GET, POST", opens: true},
	"/success":      {allow: "GET, HEAD, OPTIONS", serve: (*Gateway).serveSuccess},
	"/subscription": {allow: "GET, HEAD, PATCH, OPTIONS", serve: (*Gateway).serveSubscription, user: true, control: "PATCH"},
	"/entitlements": {allow: "GET, HEAD, OPTIONS", serve: (*Gateway).serveEntitlements, user: true},
	"/portal":       {allow: "GET, POST, OPTIONS", serve: (*Gateway).servePortal, user: true, control: "GET, POST", opens: true},
	"/jwks.json":    {allow: "GET, HEAD, OPTIONS", serve: (*Gateway).serveKeys, machine: true},
	"/products":     {allow: "GET, HEAD, OPTIONS", serve: (*Gateway).serveProducts},
	"/pricing":      {allow: "GET, HEAD, OPTIONS", serve: (*Gateway).servePricing, page: true},
	"/account":      {allow: "GET, HEAD, POST, OPTIONS", serve: (*Gateway).serveAccount, user: true, control: "POST", page: true},
	"/events":       {allow: "GET, OPTIONS", serve: (*Gateway).serveEvents, user: true, holds: true},
	"/seats":        {allow: "GET, HEAD, POST, OPTIONS", serve: (*Gateway).serveSeats, user: true, control: "GET, HEAD, POST", holds: true},
	"/seats/":       {allow: "DELETE, POST, OPTIONS", serve: (*Gateway).serveSeat, user: true, control: "DELETE, POST"},
}

// routeID is the name under which a request carries the id in its path.
const routeID = "id"

// findRoute finds the route of a path. One that ends in a slash is for what has
// an id, which comes after it.
func findRoute(path string) (rt route, id string, ok bool) {
	if below := strings.LastIndexByte(path, '/') + 1; below > 1 {
		path, id = path[:below], path[below:]
		rt, ok = routes[path]
		return rt, id, ok && id != ""
	}
	rt, ok = routes[path]
	return rt, "", ok
}

func (g *Gateway) serveRoute(w http.ResponseWriter, r *http.Request, v *visit, path string) error {
	h := w.Header()
	h.Set("Cache-Control", noStore)
	h.Set("Referrer-Policy", "no-referrer")
	rt, id, ok := findRoute(path)
	if !ok {
		return newProblem(http.StatusNotFound, codeNotFound).answer(w, r, v)
	}
	r.SetPathValue(routeID, id)
	if !rt.machine {
		g.allowOrigin(h, r, rt.allow)
	}
	switch {
	case r.Method == http.MethodOptions:
		h.Set("Allow", rt.allow)
		w.WriteHeader(http.StatusNoContent)
		return nil
	case !allows(rt.allow, r.Method):
		h.Set("Allow", rt.allow)
		return newProblem(http.StatusMethodNotAllowed, codeWrongMethod).answer(w, r, v)
	}
	if rt.user {
		if p := g.checkRoute(h, r, v, &rt); p != nil {
			return g.turnBack(w, r, v, &rt, p)
		}
	}
	return rt.serve(g, w, r, v)
}

// checkRoute says what keeps a request from a route that is for users, or nil.
func (g *Gateway) checkRoute(h http.Header, r *http.Request, v *visit, rt *route) *problem {
	if allows(rt.control, r.Method) && isEarly(r) {
		return newProblem(http.StatusTooEarly, codeTooEarly)
	}
	if p := g.checkUser(h, r, v); p != nil {
		return p
	}
	if p := g.checkOrigin(r, v, rt.opens, rt.holds); p != nil {
		return p
	}
	if allows(rt.control, r.Method) && !v.identity.Manages {
		p := newProblem(http.StatusForbidden, codeNotManager)
		p.NextStep = entitlement.StepContact
		return p
	}
	return nil
}

// isEarly says whether a request came in the first packets of a resumed connection
// (0-RTT). Whoever has heard them can send them again, and not come to anything later:
// such a request may have been made by somebody else (RFC 8470).
func isEarly(r *http.Request) bool { return r.TLS != nil && !r.TLS.HandshakeComplete }

// turnBack answers who may not use a route: a browser without a valid token is sent
// to sign in, and comes back to the route.
func (g *Gateway) turnBack(w http.ResponseWriter, r *http.Request, v *visit, rt *route, p *problem) error {
	if rt.page && v.asksAgain(r, p) {
		return p.again(w, r, v)
	}
	if g.loginURL != "" && p.Status == http.StatusUnauthorized && isNavigation(r) && v.sendAway(w, r, p, g.loginURL) {
		return nil
	}
	if p.cache = noStore; rt.page {
		return p.page(w, r, v)
	}
	return p.answer(w, r, v)
}

// noStore is the Cache-Control of all that the routes answer.
const noStore = "no-store"

// answer is the problem as a route tells it: a page where a browser shows it.
func (p *problem) answer(w http.ResponseWriter, r *http.Request, v *visit) error {
	p.cache = noStore
	if isNavigation(r) {
		return p.page(w, r, v)
	}
	return p.write(w, r)
}

func allows(list, method string) bool {
	for allowed := range strings.SplitSeq(list, ", ") {
		if allowed == method {
			return true
		}
	}
	return false
}

// checkUser finds out who asks, for the routes that need to know.
func (g *Gateway) checkUser(h http.Header, r *http.Request, v *visit) *problem {
	addVary(h, g.vary)
	if err := v.identify(r); err != nil {
		return loginRefusal(err)
	}
	if !v.gather() || !v.load() {
		d := entitlement.Unavailable()
		return refusalOf(&d, nil)
	}
	return nil
}

const (
	// maxBody is the largest body that the routes for browsers read.
	maxBody = 64 << 10
	// providerTime is how long a visitor waits for Polar at most.
	providerTime = 10 * time.Second
)

// hurry bounds how long a client may take to send its body. After it, call arrived, for
// what comes next on the connection; not if the body was given up.
func hurry(w http.ResponseWriter) (arrived func()) {
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(bodyTime)) // not every connection has one
	return func() { _ = control.SetReadDeadline(time.Time{}) }
}

// readBody reads a JSON object. No body at all is an empty one.
func readBody(w http.ResponseWriter, r *http.Request, into any) *problem {
	arrived := hurry(w)
	raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err == nil {
		arrived()
	}
	var tooLarge *http.MaxBytesError
	var wrongType *json.UnmarshalTypeError
	switch {
	case errors.As(err, &tooLarge):
		return newProblem(http.StatusRequestEntityTooLarge, codeBodyTooLarge)
	case err != nil:
		return newProblem(http.StatusBadRequest, codeBadBody)
	case len(raw) == 0:
		return nil
	}
	err = json.Unmarshal(raw, into)
	switch {
	case errors.As(err, &wrongType) && wrongType.Field != "":
		return newProblem(http.StatusBadRequest, codeBadBody).with("The field " + wrongType.Field + " has the wrong type.")
	case err != nil:
		return newProblem(http.StatusBadRequest, codeBadBody).with("The body must be a JSON object.")
	}
	return nil
}

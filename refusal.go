package caddypolar

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-polar/caddy-polar/entitlement"
	"github.com/caddy-polar/caddy-polar/pages"
)

// The codes that are no reasons of a decision.
const (
	codeTokenMissing  = "token_missing"
	codeTokenInvalid  = "token_invalid"
	codeTokenExpired  = "token_expired"
	codeBadPath       = "bad_path"
	codeBadSignature  = "bad_signature"
	codeBadBody       = "bad_body"
	codeBodyTooLarge  = "body_too_large"
	codeBusy          = "busy"
	codeNotConfigured = "not_configured"
	codeNotFound      = "not_found"
	codeWrongMethod   = "method_not_allowed"

	codeCrossOrigin   = "cross_origin"
	codeNotNavigation = "not_a_navigation"
	codeBadReturn     = "bad_return_to"
	codeTooMany       = "too_many_requests"
	codeTooEarly      = "too_early"
	codeNotManager    = "not_manager"

	codeUnknownProduct      = "unknown_product"
	codeUnknownPlan         = "unknown_plan"
	codeUnknownSubscription = "unknown_subscription"
	codeSeveral             = "several_subscriptions"
	codeNoCustomer          = "no_customer"
	codeNotLinked           = "customer_not_linked"
	codeEmailTaken          = "email_taken"
	codeNoSeats             = "no_seats"
	codeUnknownSeat         = "unknown_seat"
	codeNoFreeSeats         = "no_free_seats"
	codeSeatTaken           = "seat_taken"
	codeSelfInvited         = "own_invitation"
	codeSeveralTeams        = "several_teams"
	codePaymentDue          = string(entitlement.ObstaclePaymentDue)
	codeSubscribed          = string(entitlement.ObstacleSubscribed)
	codeHasPass             = string(entitlement.ObstaclePass)
	codeHasSeat             = string(entitlement.ObstacleSeat)

	codeInvalidInput        = "invalid_input"
	codePaymentFailed       = "payment_failed"
	codeConflict            = "conflict"
	codeChangeRefused       = "change_refused"
	codeAlreadyCanceled     = "already_canceled"
	codeNotCanceled         = "not_canceled"
	codePaymentMethod       = "payment_method_required"
	codeLocked              = "subscription_locked"
	codeNotBySeats          = "not_seat_based"
	codeSeatsAssigned       = "seats_assigned"
	codeSeatsRange          = "seats_out_of_range"
	codeProviderRejected    = "provider_rejected"
	codeProviderUnavailable = "provider_unavailable"
	codeProviderTimeout     = "provider_timeout"
)

// docsURL is where each code has its entry.
const docsURL = "https://github.com/caddy-polar/caddy-polar/blob/main/docs/codes.md#"

// retryAfter is how long a client should wait for what is not to be had now.
const retryAfter = 10 * time.Second

// problem is an answer that is not what was asked for: RFC 9457, with our own
// fields. Each has a stable code with an entry in the documentation.
type problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	// Error repeats the sentence for clients that read only that.
	Error string `json:"error"`
	Code  string `json:"code"`

	// Of a refusal only.
	Plans     []string             `json:"plans,omitempty"`
	Reason    string               `json:"reason,omitempty"`
	Until     *string              `json:"until,omitempty"`
	NextStep  entitlement.NextStep `json:"nextStep,omitempty"`
	RequestID string               `json:"requestId,omitempty"`

	// The address of the next step, where it can succeed.
	CheckoutURL string `json:"checkoutUrl,omitempty"`
	PortalURL   string `json:"portalUrl,omitempty"`
	ChangeURL   string `json:"changeUrl,omitempty"`

	// Fields are Polar's complaints about the input.
	Fields []fieldView `json:"fields,omitempty"`

	cache string        // the answer's Cache-Control
	retry time.Duration // Retry-After
	ended time.Time     // Until, for the page
	text  string        // what the page says, if not what it says of the code

	offered string // the plan that CheckoutURL sells
	changes bool   // the account page may have what to change to
}

type fieldView struct {
	Field   string `json:"field"`
	Message string `json:"message"`
}

func newProblem(status int, code string) *problem {
	title, detail, _ := pages.Message(code)
	return &problem{
		Type: docsURL + code, Title: title, Status: status, Detail: detail, Error: title, Code: code,
		cache: "private, no-store",
	}
}

// with says more about this one case. The text must be fit for anybody.
func (p *problem) with(detail string) *problem {
	p.Detail = detail
	return p
}

// naming says which field is wrong in the sentence that every client reads.
func (p *problem) naming(text string) *problem {
	p.Error = text
	return p
}

// after says when to try again.
func (p *problem) after(wait time.Duration) *problem {
	p.retry = wait
	return p
}

// refusalOf is the answer to a refused decision.
func refusalOf(d *entitlement.Decision, plans []string) *problem {
	p := newProblem(d.HTTPStatus, string(d.Reason))
	p.Reason, p.Plans, p.NextStep = string(d.Reason), plans, d.NextStep
	if !d.Until.IsZero() {
		p.Until, p.ended = new(formatTime(d.Until)), d.Until
	}
	return p
}

// head sets the headers that go with a problem. They survive Caddy's error
// routes.
func (p *problem) head(h http.Header) {
	h.Set("Cache-Control", p.cache)
	switch p.Status {
	case http.StatusUnauthorized:
		challenge := "Bearer"
		if p.Code != codeTokenMissing {
			challenge = `Bearer error="invalid_token"`
		}
		h.Set("WWW-Authenticate", challenge)
	case http.StatusServiceUnavailable, http.StatusTooManyRequests:
		wait := cmp.Or(p.retry, retryAfter)
		h.Set("Retry-After", strconv.Itoa(int((wait+time.Second-1)/time.Second)))
	}
}

// write answers with problem+json.
func (p *problem) write(w http.ResponseWriter, r *http.Request) error {
	p.head(w.Header())
	p.RequestID = requestID(r)
	return writeJSON(w, p.Status, "application/problem+json", p)
}

func writeJSON(w http.ResponseWriter, status int, contentType string, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Content-Length", strconv.Itoa(len(body)+1))
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n')) // the client may be gone
	return nil
}

func requestID(r *http.Request) string {
	repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	if !ok {
		return ""
	}
	id, _ := repl.GetString("http.request.uuid")
	return id
}

// How a gate refuses.
const (
	refuseAuto     = "auto"
	refuseJSON     = "json"
	refusePage     = "page"
	refuseError    = "error"
	refuseRedirect = "redirect"
)

// refuse answers a refused request in the way that the gate is configured.
func (g *Gate) refuse(w http.ResponseWriter, r *http.Request, v *visit, p *problem) error {
	addVary(w.Header(), v.gateway.vary)
	switch g.Refuse {
	case refuseError:
		p.head(w.Header())
		return caddyhttp.Error(p.Status, fmt.Errorf("%s: %s", p.Code, p.Title))
	case refuseJSON:
		return p.write(w, r)
	case refusePage:
		return p.page(w, r, v)
	}
	addVary(w.Header(), "Accept, Sec-Fetch-Mode")
	if !isNavigation(r) {
		return p.write(w, r)
	}
	if address := g.elsewhere(v, p); address != "" && v.sendAway(w, r, p, address) {
		return nil
	}
	return p.page(w, r, v)
}

// isNavigation says whether a browser asks for a page to show.
func isNavigation(r *http.Request) bool {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return false
	}
	if mode := r.Header.Get("Sec-Fetch-Mode"); mode != "" {
		return mode == "navigate"
	}
	return strings.Contains(r.Header.Get("Accept"), "text/html")
}

// addVary adds names to Vary that are not there yet.
func addVary(h http.Header, names string) {
	for name := range strings.SplitSeq(names, ", ") {
		if name != "" && !varies(h, name) {
			h.Add("Vary", name)
		}
	}
}

func varies(h http.Header, name string) bool {
	for _, line := range h["Vary"] {
		for have := range strings.SplitSeq(line, ",") {
			if have = strings.TrimSpace(have); have == "*" || strings.EqualFold(have, name) {
				return true
			}
		}
	}
	return false
}

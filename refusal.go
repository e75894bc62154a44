package caddypolar

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-polar/caddy-polar/entitlement"
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

// message is what people read about a code: a sentence, and what to do.
type message struct{ title, detail string }

var messages = map[string]message{
	codeTokenMissing:  {"Authentication required", "Sign in to go on."},
	codeTokenInvalid:  {"Authentication required", "The token is not valid here. Sign in again."},
	codeTokenExpired:  {"Authentication required", "The token has expired. Sign in again."},
	codeBadPath:       {"Bad request path", "The path holds control characters, cannot be decoded, or can be read in too many ways."},
	codeBadSignature:  {"Bad webhook signature", "The webhook was not accepted."},
	codeBadBody:       {"The body could not be read", "Send it again."},
	codeBodyTooLarge:  {"The body is too large", "Send less."},
	codeBusy:          {"Too many webhooks at once", "Send it again later."},
	codeNotConfigured: {"Not configured", "The gateway lacks the setting that this route needs."},
	codeNotFound:      {"No such route", "There is nothing at this address."},
	codeWrongMethod:   {"Method not allowed", "See the Allow header."},

	codeCrossOrigin:   {"Cross-origin request refused", "Another site may not use your login here. Its host has to stand in return_to."},
	codeNotNavigation: {"Not a navigation", "This address is to be followed as a link, or called with POST."},
	codeBadReturn:     {"Bad return address", "The address to return to must be on this site or on a host that return_to allows."},
	codeTooMany:       {"Too many requests", "Try again in a moment."},
	codeNotManager:    {"Not yours to manage", "Ask whoever manages your organization or team."},

	codeUnknownProduct:      {"No such product", "No plan sells this product."},
	codeUnknownPlan:         {"No such plan", "There is no plan of this name."},
	codeUnknownSubscription: {"No such subscription", "You have no current subscription of this id."},
	codeSeveral:             {"Which subscription?", "There are several: name one by its id."},
	codeEmailTaken:          {"This e-mail is another customer's", "Buy for your organization with an e-mail of its own: customerEmail."},
	codeNoSeats:             {"No seats", "There is nothing with seats that you manage, or nothing of this id."},
	codeUnknownSeat:         {"No such seat", "There is no seat of this id in what you manage."},
	codeNoFreeSeats:         {"No free seats", "All seats are given away, or the purchase is over. Take a seat back, or buy more."},
	codeSeatTaken:           {"A seat is there already", "This person has a seat, or an invitation to one."},
	codeSelfInvited:         {"This is your own e-mail", "An invitation is for somebody else. A buyer's own seat comes with the purchase, or from the portal; an organization's needs another e-mail."},
	codeSeveralTeams:        {"You are in several teams", "It cannot be told whose portal you mean. Ask whoever manages the team."},
	codeNoCustomer:          {"No customer yet", "There is nothing bought in your name yet."},
	codeNotLinked:           {"The customer account is not linked", "Your purchase stands under a customer account that may not be yours alone. Contact the seller."},
	codePaymentDue:          {"A payment is due", "Your subscription waits for its payment. Update the payment method to go on."},
	codeSubscribed:          {"Already subscribed", "You have this, or another subscription that is billed. Change it instead of buying a second one."},

	codeHasSeat: {"You have this already", "A seat in your team gives you this. You can buy it all the same."},
	codeHasPass: {"You have this already", "A pass gives you this. You can buy it all the same."},

	codeInvalidInput:        {"Invalid input", "Polar does not accept this: see fields."},
	codePaymentFailed:       {"The payment failed", "Check the payment method and try again."},
	codeConflict:            {"Not possible now", "The state of the subscription or seat does not allow this."},
	codeChangeRefused:       {"The change was refused", "The seller does not let customers change this by themselves."},
	codeAlreadyCanceled:     {"The subscription is canceled", "Take the cancellation back first, if it has not ended yet."},
	codeNotCanceled:         {"The subscription is not canceled", "There is no cancellation to take back."},
	codePaymentMethod:       {"A payment method is required", "Add a payment method, then try again."},
	codeLocked:              {"Another change is under way", "Try again in a moment."},
	codeNotBySeats:          {"The subscription has no seats", "It is not sold by seats."},
	codeSeatsAssigned:       {"More seats are in use", "Take seats back before you have fewer of them."},
	codeSeatsRange:          {"So many seats are not for sale", "See fields for the limit."},
	codeProviderRejected:    {"The payment provider refused", "This is a mistake in the configuration of this site. Its operator finds the cause in the log."},
	codeProviderUnavailable: {"The payment provider cannot be reached", "Try again in a moment."},
	codeProviderTimeout:     {"The payment provider did not answer in time", "Try again in a moment."},

	string(entitlement.ReasonNoSubscription):  {"A subscription is required", "This needs a subscription or purchase that you do not have."},
	string(entitlement.ReasonPlanRequired):    {"Another plan is required", "Your plan does not include this."},
	string(entitlement.ReasonTrialEnded):      {"The trial has ended", "Subscribe to go on."},
	string(entitlement.ReasonPeriodEnded):     {"The subscription has ended", "The paid period is over and was not renewed."},
	string(entitlement.ReasonCanceled):        {"The subscription was canceled", "Subscribe again to go on."},
	string(entitlement.ReasonPastDue):         {"A payment has failed", "Update the payment method to go on."},
	string(entitlement.ReasonUnpaid):          {"The subscription is unpaid", "Pay the open invoice to go on."},
	string(entitlement.ReasonPaused):          {"The subscription is paused", "Resume it to go on."},
	string(entitlement.ReasonIncomplete):      {"The purchase was not completed", "Start it again."},
	string(entitlement.ReasonRefunded):        {"The purchase was refunded", "Buy it again to go on."},
	string(entitlement.ReasonDisputed):        {"The payment was disputed", "Contact the seller."},
	string(entitlement.ReasonBenefitRevoked):  {"The benefit was taken back", "Subscribe again, or contact the seller."},
	string(entitlement.ReasonSeatRevoked):     {"The seat was taken back", "Ask whoever manages your team to assign you a seat again."},
	string(entitlement.ReasonPassExpired):     {"The pass has expired", "The access that you were given is over."},
	string(entitlement.ReasonCustomerDeleted): {"The customer was deleted", "Contact the seller."},
	string(entitlement.ReasonUnknownStatus):   {"The subscription is in an unknown state", "Try again later."},
	string(entitlement.ReasonUnavailable):     {"The subscription cannot be checked right now", "Try again in a moment."},
}

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
}

type fieldView struct {
	Field   string `json:"field"`
	Message string `json:"message"`
}

func newProblem(status int, code string) *problem {
	m := messages[code]
	return &problem{
		Type: docsURL + code, Title: m.title, Status: status, Detail: m.detail, Error: m.title, Code: code,
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
		p.Until = new(formatTime(d.Until))
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
	refuseError    = "error"
	refuseRedirect = "redirect"
)

// refuse answers a refused request in the way that the gate is configured.
func (g *Gate) refuse(w http.ResponseWriter, r *http.Request, v *visit, p *problem) error {
	addVary(w.Header(), v.gateway.vary)
	if g.Refuse != refuseJSON && g.Refuse != refuseError {
		addVary(w.Header(), "Accept, Sec-Fetch-Mode")
	}
	navigation := isNavigation(r)
	switch {
	case g.Refuse == refuseError:
		p.head(w.Header())
		return caddyhttp.Error(p.Status, fmt.Errorf("%s: %s", p.Code, p.Title))
	case g.Refuse == refuseRedirect && navigation:
		w.Header().Set("Cache-Control", "private, no-store")
		target := strings.ReplaceAll(g.RefuseURL, returnTo, url.QueryEscape(originalURL(r)))
		http.Redirect(w, r, target, http.StatusSeeOther)
		return nil
	case g.Refuse != refuseJSON && navigation:
		return p.page(w, r)
	}
	return p.write(w, r)
}

// returnTo is what the address that was asked for takes the place of.
const returnTo = "{return_to}"

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

package box

import (
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"
)

// session is a session of the portal: of a customer, or of a member.
type session struct {
	Row
	token, customerID, returnURL string
	memberID                     string // none is the customer as a whole
	expires                      time.Time
}

// sessionTTL is how long a customer session lives.
const sessionTTL = time.Hour

// access is who may call, and how often.
type access struct {
	tokens   map[string][]string // of the organization, with scopes; none means all
	sessions map[string]*session
	windows  map[string]*window
	known    map[string]*known
}

type window struct {
	start time.Time
	count int
}

// known is a token that was valid lately.
type known struct{ from, last time.Time }

func newAccess() access {
	return access{map[string][]string{}, map[string]*session{}, map[string]*window{}, map[string]*known{}}
}

// NewToken makes an organization access token. Without scopes it may do
// everything.
func (b *Box) NewToken(scopes ...string) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	token := b.newToken("polar_oat_")
	b.access.tokens[token] = scopes
	return token
}

// RevokeToken takes a token back.
func (b *Box) RevokeToken(token string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.access.tokens, token)
}

// newSession makes a session of a customer; mu is held.
func (b *Box) newSession(customerID, returnURL string) *session {
	return b.newMemberSession(customerID, "", returnURL)
}

// newMemberSession makes a session of a member of a customer; mu is held.
func (b *Box) newMemberSession(customerID, memberID, returnURL string) *session {
	prefix := "polar_cst_"
	if memberID != "" {
		prefix = "polar_mst_"
	}
	s := &session{Row: b.newRow(), token: b.newToken(prefix), customerID: customerID, memberID: memberID, returnURL: returnURL}
	s.expires = s.CreatedAt.Add(sessionTTL)
	b.access.sessions[s.token] = s
	return s
}

// liveSession returns the session of a token; mu is held.
func (b *Box) liveSession(token string) *session {
	s := b.access.sessions[token]
	if s == nil || !s.expires.After(b.Now()) {
		return nil
	}
	if c, ok := b.customers.get(s.customerID); !ok || c.DeletedAt != nil {
		return nil
	}
	if m, ok := b.members.get(s.memberID); s.memberID != "" && (!ok || m.deleted) {
		return nil
	}
	return s
}

func bearer(r *http.Request) string {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "bearer") {
		return ""
	}
	return token
}

// authorize answers with the shapes that Polar has: one of its own, and two of
// OAuth.
func (b *Box) authorize(w http.ResponseWriter, c *call, rt *route) (int, any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if slices.Contains(rt.scopes, anyone) {
		return 0, nil
	}
	token := bearer(c.r)
	if token == "" {
		w.Header().Set("WWW-Authenticate", "Bearer")
		return http.StatusUnauthorized, obj{"error": "Unauthorized", "detail": "Unauthorized"}
	}
	scopes, ok := b.access.tokens[token]
	c.session = b.liveSession(token)
	if !ok && c.session == nil {
		w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
		return http.StatusUnauthorized, obj{"error": "invalid_token", "error_description": "The access token provided is expired, revoked, malformed, or invalid for other reasons."}
	}
	b.seen(token)
	if (len(rt.scopes) == 0) != (c.session != nil) {
		w.Header().Set("WWW-Authenticate", "Bearer")
		return http.StatusUnauthorized, obj{"error": "Unauthorized", "detail": "Unauthorized"}
	}
	if c.session != nil || len(scopes) == 0 || slices.ContainsFunc(rt.scopes, func(s string) bool { return slices.Contains(scopes, s) }) {
		return 0, nil
	}
	return http.StatusForbidden, obj{"error": "insufficient_scope", "error_description": "The request requires higher privileges than provided by the access token."}
}

// Polar's rate limits.
const (
	limitDefault = 500 // a minute, of all tokens of the organization
	limitPending = 60  // a minute, of a token not seen as valid lately
	knownFor     = 300 * time.Second
	knownAfter   = time.Second
)

// limited returns the seconds to wait, or 0. A token that was idle for five
// minutes counts against the small bucket until a moment after its first call.
func (b *Box) limited(r *http.Request) int {
	if !b.options.RateLimits {
		return 0
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	now, token := b.Now(), bearer(r)
	key, limit := "pending:"+token, limitPending
	if k := b.access.known[token]; k != nil && now.Sub(k.last) < knownFor && !now.Before(k.from) {
		key, limit = "organization", limitDefault
		if s := b.access.sessions[token]; s != nil {
			key = "customer:" + s.customerID
		}
	}
	win := b.access.windows[key]
	if win == nil || now.Sub(win.start) >= time.Minute {
		maps.DeleteFunc(b.access.windows, func(_ string, w *window) bool { return now.Sub(w.start) >= time.Minute })
		win = &window{start: now}
		b.access.windows[key] = win
	}
	if win.count++; win.count <= limit {
		return 0
	}
	return int((time.Minute - now.Sub(win.start) + time.Second - 1) / time.Second)
}

func (b *Box) seen(token string) {
	now := b.Now()
	k := b.access.known[token]
	if k == nil || now.Sub(k.last) >= knownFor {
		k = &known{from: now.Add(knownAfter)}
		b.access.known[token] = k
	}
	k.last = now
}

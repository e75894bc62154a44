package caddypolar

import (
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// This is who may call the routes with cookies, and where visitors may be sent.

// origins are those of the return_to hosts.
type origins struct {
	trusted    map[string]bool // in lower case
	protection *http.CrossOriginProtection
}

// makeOrigins trusts the pages of the return_to hosts.
func makeOrigins(hosts []string) (*origins, error) {
	o := &origins{trusted: make(map[string]bool), protection: http.NewCrossOriginProtection()}
	for _, host := range hosts {
		if err := checkHost(host); err != nil {
			return nil, err
		}
		for _, origin := range originsOf(host) {
			o.trusted[origin] = true
			if err := o.protection.AddTrustedOrigin(origin); err != nil {
				return nil, fmt.Errorf("return_to: %w", err)
			}
		}
	}
	return o, nil
}

// originsOf lists the origins of a host. Plain HTTP is for this machine only.
func originsOf(host string) []string {
	host = strings.ToLower(host)
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	if isLoopback(strings.Trim(name, "[]")) {
		return []string{"https://" + host, "http://" + host}
	}
	return []string{"https://" + host}
}

// trusts says whether an origin is that of a return_to host.
func (o *origins) trusts(origin string) bool { return o.trusted[strings.ToLower(origin)] }

// allowOrigin lets pages of the return_to hosts read the answers.
func (g *Gateway) allowOrigin(h http.Header, r *http.Request, methods string) {
	if len(g.origins.trusted) == 0 {
		return
	}
	addVary(h, "Origin")
	origin := r.Header.Get("Origin")
	if !g.origins.trusts(origin) {
		return
	}
	h.Set("Access-Control-Allow-Origin", origin)
	h.Set("Access-Control-Allow-Credentials", "true")
	if isPreflight(r) {
		h.Set("Access-Control-Allow-Methods", methods)
		h.Set("Access-Control-Allow-Headers", "Authorization, Content-Type")
		h.Set("Access-Control-Max-Age", "600")
	}
}

// checkOrigin keeps other sites from using a visitor's cookies, and whatever else
// browsers send by themselves. A token in a header was put there by whoever may
// have it.
func (g *Gateway) checkOrigin(r *http.Request, v *visit, opens, holds bool) *problem {
	if v.identity.Source.Header != "" {
		return nil
	}
	asked := r
	if holds {
		asked = r.Clone(r.Context())
		asked.Method = http.MethodPost // a GET that holds something counts too
	}
	if g.origins.protection.Check(asked) != nil {
		return newProblem(http.StatusForbidden, codeCrossOrigin)
	}
	if opens && r.Method == http.MethodGet && !isVisit(r) {
		return newProblem(http.StatusForbidden, codeNotNavigation)
	}
	return nil
}

// isVisit says whether a GET can be a person who follows a link, and not an
// image, a frame, a script or a page that is fetched ahead.
func isVisit(r *http.Request) bool {
	h := r.Header
	for _, name := range []string{"Sec-Purpose", "Purpose", "X-Purpose", "X-Moz"} {
		if value := strings.ToLower(h.Get(name)); strings.Contains(value, "prefetch") || strings.Contains(value, "preview") {
			return false
		}
	}
	if dest := h.Get("Sec-Fetch-Dest"); dest != "" && dest != "document" {
		return false
	}
	if mode := h.Get("Sec-Fetch-Mode"); mode != "" {
		return mode == "navigate"
	}
	// An old browser, or none: images and the like do not ask for pages.
	accept := h.Get("Accept")
	return accept == "" || accept == "*/*" || strings.Contains(accept, "text/html")
}

// originOf is the scheme and host by which the visitor knows this site.
func originOf(r *http.Request) string {
	scheme := "http"
	trusted, _ := caddyhttp.GetVar(r.Context(), caddyhttp.TrustedProxyVarKey).(bool)
	if r.TLS != nil || trusted && r.Header.Get("X-Forwarded-Proto") == "https" {
		scheme = "https"
	}
	return scheme + "://" + r.Host
}

// originalURL is the address that the visitor asked for.
func originalURL(r *http.Request) string {
	original, ok := r.Context().Value(caddyhttp.OriginalRequestCtxKey).(http.Request)
	if !ok {
		original = *r
	}
	target := original.URL.RequestURI()
	if !strings.HasPrefix(target, "/") { // no path, and behind our host a longer one's name
		target = "/"
	}
	// Browsers leave a backslash in a query as it is, and take one elsewhere for a slash.
	return originOf(r) + strings.ReplaceAll(target, `\`, "%5C")
}

// returnAddress is where a visitor may be sent: an absolute address on this
// site's own host or a return_to host. ok is false for any other. Empty stays
// empty.
func (g *Gateway) returnAddress(r *http.Request, raw string) (address string, ok bool) {
	if raw == "" {
		return "", true
	}
	// Browsers drop some control characters and take \ for /.
	if strings.ContainsFunc(raw, func(c rune) bool { return c <= ' ' || c == '\\' || c == 0x7f }) {
		return "", false
	}
	u, err := url.Parse(raw)
	if err != nil || u.User != nil || u.Opaque != "" || !isASCII(u.Host) {
		return "", false
	}
	own := originOf(r)
	if u.Scheme == "" && u.Host == "" {
		if !strings.HasPrefix(raw, "/") || strings.HasPrefix(raw, "//") {
			return "", false
		}
		return own + u.String(), true
	}
	origin := plainOrigin(u)
	if base, err := url.Parse(own); err == nil {
		if origin == plainOrigin(base) {
			return u.String(), true
		}
		base.Scheme = "https"
		if origin == plainOrigin(base) {
			return u.String(), true
		}
	}
	return u.String(), g.origins.trusts(origin)
}

// isASCII keeps hosts out that browsers write in another way than we compare
// them.
func isASCII(host string) bool {
	return strings.IndexFunc(host, func(c rune) bool { return c > '~' }) < 0
}

// plainOrigin is an address's origin in one spelling, without a default port.
func plainOrigin(u *url.URL) string {
	scheme, host := strings.ToLower(u.Scheme), strings.ToLower(u.Host)
	switch scheme {
	case "https":
		host = strings.TrimSuffix(host, ":443")
	case "http":
		host = strings.TrimSuffix(host, ":80")
	}
	return scheme + "://" + host
}

// clientIP is the visitor's address, as Caddy's trusted_proxies tell it.
func clientIP(r *http.Request) string {
	ip, _ := caddyhttp.GetVar(r.Context(), caddyhttp.ClientIPVarKey).(string)
	if addr := net.ParseIP(ip); addr != nil {
		return addr.String()
	}
	return ""
}

package caddypolar

import (
	"fmt"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"go.uber.org/zap"

	"github.com/caddy-polar/caddy-polar/gateway"
	"github.com/caddy-polar/caddy-polar/pages"
)

// Browsers that navigate can be sent elsewhere instead of being shown our page: to
// sign in, to the operator's own pricing page, or wherever a gate says.

// What stands in an operator's address for something of the request.
const (
	returnTo   = "{return_to}" // the address that was asked for, escaped
	reasonHole = "{reason}"    // the code of the refusal
)

// parseAway reads an address that browsers are sent to:
//
//	login_url   <url>
//	upgrade_url <url>
func parseAway(to *string) func(*caddyfile.Dispenser) error {
	return func(d *caddyfile.Dispenser) error {
		word := d.Val()
		if err := one(to)(d); err != nil {
			return err
		}
		if strings.Contains(withoutHoles(*to), "{") {
			return nil // a placeholder: it is looked at when it is loaded
		}
		if err := checkAway(word, *to); err != nil {
			return d.WrapErr(err)
		}
		return nil
	}
}

func withoutHoles(address string) string {
	return strings.NewReplacer(returnTo, "", reasonHole, "").Replace(address)
}

// checkAway wants a path of the site, or an address on the web.
func checkAway(what, address string) error {
	bare := withoutHoles(address)
	u, err := url.Parse(bare)
	ok := err == nil && u.User == nil && u.Opaque == "" && !strings.ContainsFunc(bare, func(c rune) bool { return c <= ' ' || c == '\\' || c == 0x7f })
	switch {
	case ok && u.Host != "" && (u.Scheme == "https" || u.Scheme == "http"):
		return nil
	case ok && u.Scheme == "" && u.Host == "" && strings.HasPrefix(u.Path, "/") && !strings.HasPrefix(bare, "//"):
		return nil
	}
	return fmt.Errorf("%s: %q is no address to redirect to, like /login?next={return_to} or https://id.example.com/", what, address)
}

// resolveAway resolves the two addresses, in which our own holes stay.
func (g *Gateway) resolveAway(*gateway.Config) error {
	for _, word := range []struct {
		what, from string
		to         *string
	}{{"login_url", g.LoginURL, &g.loginURL}, {"upgrade_url", g.UpgradeURL, &g.upgradeURL}} {
		if word.from == "" {
			continue
		}
		const back, why = "\x01", "\x02"
		value, err := expand(word.what, strings.NewReplacer(returnTo, back, reasonHole, why).Replace(word.from))
		if err != nil {
			return err
		}
		*word.to = strings.NewReplacer(back, returnTo, why, reasonHole).Replace(value)
		if err := checkAway(word.what, *word.to); err != nil {
			return err
		}
	}
	return nil
}

// elsewhere is where a gate sends browsers instead of showing them a page. Nothing
// can be bought or signed in to while something is broken.
func (g *Gate) elsewhere(v *visit, p *problem) string {
	switch {
	case p.Status >= http.StatusInternalServerError || p.Status == http.StatusBadRequest:
		return ""
	case g.Refuse == refuseRedirect:
		return g.RefuseURL
	case p.Status == http.StatusUnauthorized:
		return v.gateway.loginURL
	}
	return v.gateway.upgradeURL
}

// againCookie says that a browser was just asked to load the account page once more.
const againCookie = "polar_again"

// asksAgain says whether a browser that came without a token may have one after all:
// from another site's link, such as that of Polar's portal, cookies with SameSite=Strict
// do not come along. If it asks once more, from a page of ours, they do. That is for our
// own page alone: an app has such cookies so that they do not come along.
func (v *visit) asksAgain(r *http.Request, p *problem) bool {
	_, err := r.Cookie(againCookie)
	return err != nil && p.Code == codeTokenMissing && isNavigation(r) && r.Header.Get("Sec-Fetch-Site") == "cross-site" &&
		strings.Contains(v.gateway.vary, "Cookie")
}

// again lets a browser ask once more.
func (p *problem) again(w http.ResponseWriter, r *http.Request, v *visit) error {
	p.head(w.Header())
	http.SetCookie(w, &http.Cookie{
		Name: againCookie, Value: "1", Path: v.routes(), MaxAge: loopTime, HttpOnly: true, SameSite: http.SameSiteLaxMode, Secure: isSecure(r),
	})
	return v.show(w, r, p.Status, new(pages.Again))
}

const (
	// loopCookie counts how often a browser was sent away within loopTime of the
	// time before.
	loopCookie = "polar_redirects"
	loopTime   = 10 // seconds
	// maxRedirects is how often that may be: people who click do not come that far.
	maxRedirects = 5
)

// sendAway sends a browser elsewhere, unless that has led back here again and again,
// or is here.
func (v *visit) sendAway(w http.ResponseWriter, r *http.Request, p *problem, address string) (sent bool) {
	target := fillAddress(address, r, p)
	if n := redirects(r); n >= maxRedirects || isHere(r, target) {
		if g := v.gateway; g.warnedLoop.now(v.now) {
			g.logger.Warn("a browser is sent in a circle, so it is shown a page: what it is sent to must be public, and must set a token that jwt or session accepts",
				zap.String("to", withoutHoles(address)), zap.String("reason", p.Code))
		}
		if p.Status == http.StatusUnauthorized && n >= maxRedirects {
			p.text = textLoginLoop
		}
		return false
	}
	w.Header().Set("Cache-Control", "private, no-store")
	if isVisit(r) { // what is fetched ahead goes round in no circle
		http.SetCookie(w, &http.Cookie{
			Name: loopCookie, Value: strconv.Itoa(redirects(r) + 1), Path: "/", MaxAge: loopTime,
			HttpOnly: true, SameSite: http.SameSiteLaxMode, Secure: isSecure(r),
		})
	}
	http.Redirect(w, r, target, http.StatusSeeOther)
	return true
}

// textLoginLoop is what somebody reads who was sent to sign in again and again.
const textLoginLoop = "loop.login"

// redirects is how often the browser was sent away just now.
func redirects(r *http.Request) int {
	c, err := r.Cookie(loopCookie)
	if err != nil {
		return 0
	}
	n, err := strconv.Atoi(c.Value)
	if err != nil || n < 0 || n > maxRedirects {
		return 0
	}
	return n
}

func isSecure(r *http.Request) bool { return strings.HasPrefix(originOf(r), "https:") }

// isHere says whether an address is the page that is asked for, with whatever more in
// its query.
func isHere(r *http.Request, address string) bool {
	to, err := url.Parse(address)
	if err != nil {
		return true
	}
	here, err := url.Parse(originalURL(r))
	if err != nil {
		return false
	}
	if to.Host != "" && plainOrigin(to) != plainOrigin(here) {
		return false
	}
	asked := here.Query()
	for name := range to.Query() {
		if !asked.Has(name) {
			return false
		}
	}
	return path.Clean("/"+to.Path) == path.Clean("/"+here.Path)
}

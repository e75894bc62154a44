package gateway

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/caddy-polar/caddy-polar/polar"
)

// TokenKind is what an access token is by its prefix.
type TokenKind string

// The kinds.
const (
	TokenNone         TokenKind = "none"
	TokenOrganization TokenKind = "organization"
	TokenPersonal     TokenKind = "personal"
	TokenOAuth        TokenKind = "oauth"
	TokenUnknown      TokenKind = "unknown"
)

// kindOfToken tells a token by Polar's prefixes. Those of customers and the like are
// refused when the configuration is loaded.
func kindOfToken(token string) TokenKind {
	switch {
	case token == "":
		return TokenNone
	case strings.HasPrefix(token, "polar_oat_"):
		return TokenOrganization
	case strings.HasPrefix(token, "polar_pat_"):
		return TokenPersonal
	case strings.HasPrefix(token, "polar_at_"):
		return TokenOAuth
	}
	return TokenUnknown
}

// newToken says where a token is made.
const newToken = "make an organization access token (polar_oat_…) in Polar's settings, Developers"

func (g *Gateway) polarFindings(f *polarFacts) []Finding {
	offset, known := time.Duration(0), false
	if g.client != nil {
		offset, known = g.client.Offset()
	}
	return []Finding{
		tokenFinding(g.tokenKind), reachFinding(g.tokenKind, f.first), g.environmentFinding(f), clockFinding(offset, known),
		g.versionFinding(), g.scopeFinding(f), g.writeFinding(f), g.organizationFinding(f), g.rateFinding(),
	}
}

func tokenFinding(kind TokenKind) Finding {
	switch kind {
	case TokenOrganization:
		return fine(aboutToken, "the access token is an organization's")
	case TokenNone:
		return found(aboutToken, SeverityWarning, "there is no access_token: the gateway knows only what webhooks tell it", newToken)
	case TokenPersonal:
		return found(aboutToken, SeverityWarning, "the access token is a person's, whose rights it has and with whom it goes", newToken)
	case TokenOAuth:
		return found(aboutToken, SeverityWarning, "the access token is of an OAuth client, and expires", newToken)
	}
	return found(aboutToken, SeverityUnknown, "the access token is of no kind that is known here", "if it is none of Polar's: "+newToken)
}

const noToken = "there is no access_token"

// untold says why something cannot be checked, and what to do about that.
func untold(id string, kind TokenKind, f *polarFacts, err error, scope string) Finding {
	switch {
	case kind == TokenNone:
		return found(id, SeverityUnknown, "not checked: "+noToken, newToken)
	case errors.Is(err, polar.ErrScope):
		return found(id, SeverityUnknown, "not checked: the access token lacks "+scope, "add the scope "+scope+" to the token in Polar's settings, and run this again")
	}
	if _, told := permits(f.first); !told {
		return found(id, SeverityUnknown, "not checked: Polar has not answered what is asked first", "see the findings polar and environment, and run this again")
	}
	return found(id, SeverityUnknown, "not checked: "+err.Error(), "run this again; see https://status.polar.sh")
}

func reachFinding(kind TokenKind, first error) Finding {
	failure, _ := errors.AsType[*polar.APIError](first)
	switch {
	case kind == TokenNone:
		return found(aboutPolar, SeverityUnknown, "not asked: "+noToken, newToken)
	case errors.Is(first, polar.ErrUnauthorized) && failure.Code == "", errors.Is(first, polar.ErrForbidden) && failure.Code == "",
		errors.Is(first, polar.ErrRedirect), errors.Is(first, polar.ErrUnexpected), errors.Is(first, polar.ErrVersionGone):
		return found(aboutPolar, SeverityError, "what answers is not Polar's API: "+first.Error(), "check server, and what stands between this machine and Polar")
	case errors.Is(first, polar.ErrUnavailable), errors.Is(first, polar.ErrTimeout):
		return found(aboutPolar, SeverityError, "Polar cannot be reached: "+first.Error(), "check the network, DNS and firewalls of this machine, and https://status.polar.sh")
	case errors.Is(first, polar.ErrRateLimited):
		return found(aboutPolar, SeverityUnknown, "Polar lets no call through now: "+first.Error(), "wait, and run this again; see the finding rate_limit")
	case first == nil, failure != nil && failure.Status != 0:
		return fine(aboutPolar, "Polar answers")
	}
	return found(aboutPolar, SeverityUnknown, "Polar was not asked to the end: "+first.Error(), "run this again")
}

// Polar's own servers.
const (
	serverProduction = "https://api.polar.sh"
	serverSandbox    = "https://sandbox-api.polar.sh"
)

func (g *Gateway) environmentFinding(f *polarFacts) Finding {
	sandbox, known := false, false
	if g.client != nil {
		sandbox, known = g.client.Sandbox()
	}
	_, taken := permits(f.first)
	failure, _ := errors.AsType[*polar.APIError](f.first)
	name := map[string]string{serverProduction: "production", serverSandbox: "the sandbox"}[g.owner.Server]
	switch {
	case errors.Is(f.first, polar.ErrUnauthorized) && failure.Code != "":
		return found(aboutEnvironment, SeverityError, "the server does not take the access token: it was revoked, has expired, or is of the other of production and sandbox",
			"see in which of the two the token was made, and set server to it, or make a new one there").with("server", g.owner.Server)
	case !taken || !known:
		return untold(aboutEnvironment, g.tokenKind, f, f.first, "")
	case sandbox && g.owner.Server == serverProduction:
		return found(aboutEnvironment, SeverityError, "server is production, and the sandbox answers", "check what stands between this machine and Polar").with("server", g.owner.Server)
	case name == "" && sandbox:
		name = "a way to the sandbox"
	case name == "":
		name = "neither of Polar's own two"
	}
	return fine(aboutEnvironment, "the access token belongs to the server, which is "+name).with("server", g.owner.Server)
}

const (
	clockWarning = time.Minute
	clockError   = 5 * time.Minute
)

// clockFinding is about how far Polar's clock is ahead of ours.
func clockFinding(offset time.Duration, known bool) Finding {
	if !known {
		return found(aboutClock, SeverityUnknown, "not checked: Polar has not told its time", "see the finding polar, and run this again")
	}
	severity, size, side := SeverityOK, offset.Abs().Round(time.Second), "behind"
	if offset < 0 {
		side = "ahead of"
	}
	switch {
	case offset.Abs() > clockError:
		severity = SeverityError
	case offset.Abs() > clockWarning:
		severity = SeverityWarning
	default:
		return fine(aboutClock, "this machine's clock goes with Polar's").with("offBy", size.String())
	}
	return found(aboutClock, severity, fmt.Sprintf("this machine's clock is %v %s Polar's", size, side),
		"set the clock, and have it kept: timedatectl set-ntp true, or chrony").with("offBy", size.String())
}

const (
	// versionMonths is how long a version lives after it has become current: one
	// quarter as that, and one as deprecated. A quarter without a new one prolongs it.
	versionMonths = 6
	// versionSoon is when an end is worth a word.
	versionSoon = 30 * 24 * time.Hour
)

func (g *Gateway) versionFinding() Finding {
	if g.client == nil {
		return found(aboutAPIVersion, SeverityUnknown, "not checked: "+noToken, newToken)
	}
	version := g.client.Version()
	if g.heard.versionGone.Load() {
		return found(aboutAPIVersion, SeverityError, "Polar no longer serves version "+version+": the gateway goes on with whatever is current there",
			"update caddy-polar, or set api_version to one that Polar serves").with("version", version)
	}
	if _, known := g.client.Sandbox(); !known {
		return found(aboutAPIVersion, SeverityUnknown, "not checked: Polar has not answered", "see the finding polar, and run this again").with("version", version)
	}
	return lifeFinding(version, g.Now())
}

// lifeFinding tells how long a version that is served will be, as far as can be known.
func lifeFinding(version string, now time.Time) Finding {
	began, err := time.Parse("2006-01", version)
	if err != nil {
		return fine(aboutAPIVersion, "Polar's current version is used")
	}
	end := began.AddDate(0, versionMonths, 0)
	f := fine(aboutAPIVersion, "Polar serves version "+version).with("version", version).with("servedUntil", end.Format(time.DateOnly))
	if left := end.Sub(now); left < versionSoon {
		f.Severity = SeverityWarning
		f.What = fmt.Sprintf("Polar serves version %s still, and can remove it from %s on", version, end.Format(time.DateOnly))
		f.Do = "update caddy-polar, or set a newer api_version after a look at Polar's changelog"
	}
	return f
}

func (g *Gateway) organizationFinding(f *polarFacts) Finding {
	wanted, by := g.owner.Organization, "organization_id"
	if wanted == "" {
		by = "the store"
		wanted, _ = g.store.Organization() // what is wrong with it is another finding
	}
	switch _, told := permits(f.first); {
	case !told:
		return untold(aboutOrganization, g.tokenKind, f, f.first, "")
	case f.organization == "":
		return found(aboutOrganization, SeverityUnknown, "nothing at Polar tells yet whose the access token is", "make a product there, and run this again")
	case wanted != "" && wanted != f.organization:
		return found(aboutOrganization, SeverityError, "the access token is of another organization than "+by,
			"use a token of that organization, or correct organization_id; a store of another organization has to be moved away").
			with("token", f.organization).with("expected", wanted)
	case wanted == "":
		return fine(aboutOrganization, "the access token's organization will be that of the store").with("token", f.organization)
	}
	return fine(aboutOrganization, "the access token is of the organization of "+by).with("token", f.organization)
}

// limitedSince is how long it is told that Polar has said it was too much.
const limitedSince = time.Hour

func (g *Gateway) rateFinding() Finding {
	if g.client == nil {
		return found(aboutRateLimit, SeverityUnknown, "not checked: "+noToken, newToken)
	}
	g.heard.mu.Lock()
	last, times := g.heard.limited, g.heard.limits
	g.heard.mu.Unlock()
	now := g.local()
	var state polar.LimiterState
	if g.limiter != nil {
		state = g.limiter.State(now)
	}
	f := fine(aboutRateLimit, "Polar has not said lately that it is too much")
	if since := now.Sub(last); state.Paused > 0 || times > 0 && since < limitedSince {
		f = found(aboutRateLimit, SeverityWarning, "Polar has said lately that it is too much",
			"lower the budget of sync, and see what else calls Polar for this organization: all its tokens share one limit")
		f = f.with("last", g.At(last).UTC().Format(time.RFC3339)).with("times", strconv.Itoa(times))
	}
	if state.Paused > 0 {
		f = f.with("pausedFor", state.Paused.Round(time.Second).String())
	}
	if g.limiter != nil {
		f = f.with("atOnce", fmt.Sprintf("%d of %d calls can go now", state.Free, state.Most))
	}
	return f
}

package gateway

import (
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/caddy-polar/caddy-polar/polar"
)

// setUpByCommand is what mends most of it.
const setUpByCommand = "run caddy polar webhook setup --url <address of the site>"

// webhookFindings are about the endpoint at Polar, the way from there to here, and
// what has come on it.
func (g *Gateway) webhookFindings(f *polarFacts) []Finding {
	rest := []string{aboutWebhookEnabled, aboutWebhookFormat, aboutWebhookEvents, aboutWebhookURL, aboutWebhookDeliveries}
	all := []Finding{g.secretFinding(f), g.endpointFinding(f)}
	if f.endpoint == nil {
		for _, id := range rest {
			all = append(all, g.withoutEndpoint(id, f))
		}
		return all
	}
	e := f.endpoint
	address := shownURL(e.URL)
	return append(
		all,
		judged(aboutWebhookEnabled, e.Enabled, "the endpoint is enabled", "Polar has disabled the endpoint, or somebody has",
			setUpByCommand+", or enable it in Polar's settings, Webhooks; see also the findings webhook_url and webhook_deliveries"),
		judged(aboutWebhookFormat, e.Format == "raw", "the endpoint's format is raw", "the endpoint's format is "+printable(e.Format, 20)+", and not raw",
			setUpByCommand+", or change it in Polar's settings, Webhooks"),
		eventsFinding(e),
		urlFinding(f).with("url", address),
		g.deliveryFinding(f),
	)
}

// judged is a finding that is fine or an error.
func judged(id string, ok bool, good, bad, do string) Finding {
	if ok {
		return fine(id, good)
	}
	return found(id, SeverityError, bad, do)
}

// withoutEndpoint is what is not known as there is no endpoint to look at.
func (g *Gateway) withoutEndpoint(id string, f *polarFacts) Finding {
	if err := f.why(scopeReadWebhooks); err != nil {
		return untold(id, g.tokenKind, f, err, scopeReadWebhooks)
	}
	return found(id, SeverityUnknown, "not checked: no endpoint at Polar is known to be this gateway's", "see the findings webhook_secret and webhook_endpoint")
}

func (g *Gateway) secretFinding(f *polarFacts) Finding {
	err := f.why(scopeReadWebhooks)
	switch {
	case g.verifier == nil:
		return found(aboutWebhookSecret, SeverityWarning, "there is no webhook_secret: the webhook route answers 503", setUpByCommand+", which tells the secret, and set webhook_secret to it")
	case err != nil:
		return untold(aboutWebhookSecret, g.tokenKind, f, err, scopeReadWebhooks)
	case f.endpoint == nil:
		return g.withoutEndpoint(aboutWebhookSecret, f)
	case !g.ourSecret(string(f.endpoint.Secret)):
		return found(aboutWebhookSecret, SeverityError, "an endpoint at Polar leads to this gateway, and its secret is none of webhook_secret",
			"copy the endpoint's secret from Polar's settings, Webhooks, into what webhook_secret names, and restart Caddy").with("url", shownURL(f.endpoint.URL))
	}
	return fine(aboutWebhookSecret, "the gateway has the endpoint's secret")
}

func (g *Gateway) endpointFinding(f *polarFacts) Finding {
	err := f.why(scopeReadWebhooks)
	switch {
	case err != nil:
		return untold(aboutWebhookEndpoint, g.tokenKind, f, err, scopeReadWebhooks)
	case f.endpoint != nil:
		return fine(aboutWebhookEndpoint, "Polar has an endpoint for this gateway").with("url", shownURL(f.endpoint.URL)).with("apiVersion", f.endpoint.APIVersion)
	case g.verifier == nil:
		return found(aboutWebhookEndpoint, SeverityUnknown, "without a webhook_secret no endpoint can be known as this gateway's", setUpByCommand)
	}
	var others []string // of other apps: their path can be their secret
	for i := range f.endpoints {
		e := &f.endpoints[i]
		others = append(others, shownHost(e.URL)+" ("+printable(e.Format, 20)+")")
	}
	return found(aboutWebhookEndpoint, SeverityError, "no endpoint at Polar has one of webhook_secret, and none leads to this gateway",
		setUpByCommand+"; if one of those that are there is meant to be this gateway's, copy its secret into what webhook_secret names").
		with("others", strings.Join(others, ", "))
}

func eventsFinding(e *polar.WebhookEndpoint) Finding {
	if lacking := lackingEvents(e); len(lacking) > 0 {
		return found(aboutWebhookEvents, SeverityError, fmt.Sprintf("types of events that decide are not sent: %d", len(lacking)),
			setUpByCommand+", or choose all events in Polar's settings, Webhooks").with("missing", strings.Join(lacking, ", "))
	}
	lacking := slices.DeleteFunc(wantedEvents(), func(kind string) bool { return kind == newestEvent || slices.Contains(e.Events, kind) })
	if len(lacking) > 0 {
		return found(aboutWebhookEvents, SeverityWarning, fmt.Sprintf("types of events that tell what is sold are not sent: %d", len(lacking)),
			setUpByCommand+", or choose all events in Polar's settings, Webhooks").with("missing", strings.Join(lacking, ", "))
	}
	return fine(aboutWebhookEvents, "the endpoint sends all types of events that the gateway uses")
}

// seenFromHere are the problems that Polar may not have: this machine may not reach
// its own public address.
var seenFromHere = []CheckProblem{CheckDNS, CheckTLS, CheckRefused, CheckTimeout, CheckUnreachable}

// changedSince says whether the endpoint is not as it was at a delivery.
func (f *polarFacts) changedSince(d *polar.WebhookDelivery) bool {
	return f.endpoint.ModifiedAt != nil && d.CreatedAt.Before(*f.endpoint.ModifiedAt)
}

// urlFinding is about whether the address leads here.
func urlFinding(f *polarFacts) Finding {
	if f.checkErr != nil {
		return found(aboutWebhookURL, SeverityUnknown, "not checked: the address could not be tried", "run this again")
	}
	c := &f.check
	if c.Problem == CheckFine {
		return fine(aboutWebhookURL, "a signed webhook to the address has reached this gateway")
	}
	out := found(aboutWebhookURL, SeverityError, "webhooks to the address do not arrive: "+c.Says, setUpByCommand+" once that is mended, or with the right address")
	switch {
	case c.Peer:
		out.Severity, out.What, out.Do = SeverityWarning, c.Says, "nothing, if several Caddys stand behind the address"
	case slices.Contains(seenFromHere, c.Problem) && f.deliveries.latest != nil && f.deliveries.latest.Succeeded && !f.changedSince(f.deliveries.latest):
		out.Severity, out.What = SeverityUnknown, "not known: this machine cannot reach the address, but Polar's latest delivery has arrived: "+c.Says
		out.Do = "nothing, if this machine is not to reach its own public address"
	}
	if c.Status != 0 {
		out = out.with("status", strconv.Itoa(c.Status))
	}
	return out.with("problem", string(c.Problem))
}

// excerptLength is how much is told of what was answered to Polar, in characters.
const excerptLength = 160

func (g *Gateway) deliveryFinding(f *polarFacts) Finding {
	d := &f.deliveries
	switch {
	case f.failure != nil:
		return untold(aboutWebhookDeliveries, g.tokenKind, f, f.failure, scopeReadWebhooks)
	case d.latest == nil:
		return fine(aboutWebhookDeliveries, "Polar had nothing to deliver within a day")
	case len(d.events) == 0:
		return fine(aboutWebhookDeliveries, "all events of the last day that were tried have arrived").with("latest", d.latest.CreatedAt.UTC().Format(time.RFC3339))
	}
	last := &d.events[0]
	out := found(aboutWebhookDeliveries, SeverityError, fmt.Sprintf("events of the last day that have not arrived: %d", len(d.events)),
		"mend what the answer tells; a sync mends what was missed: caddy polar sync")
	switch {
	case d.latest.Succeeded:
		out.Severity, out.What = SeverityWarning, out.What+", while later ones have"
	case f.changedSince(d.latest):
		out.Severity, out.What = SeverityWarning, out.What+", all before the endpoint was changed"
	}
	status := "no answer"
	if last.HTTPCode != 0 {
		status = strconv.Itoa(last.HTTPCode)
	}
	return out.with("lastFailed", last.CreatedAt.UTC().Format(time.RFC3339)).with("status", status).
		with("event", printable(last.Event.Type, 60)).with("answer", g.excerpt(last.Response))
}

// revealing is what must not be repeated of a stranger's text: addresses of people,
// Polar's tokens and secrets, JSON Web Tokens and what else is long and random.
var revealing = regexp.MustCompile(`[^\s"'<>(),;:=]+@[^\s"'<>(),;:=]+|(?:polar_[a-z]+_|whsec_)[A-Za-z0-9+/=_-]*|[A-Za-z0-9+/=_-]{32,}`)

// excerpt is the beginning of an answer, fit to be shown.
func (g *Gateway) excerpt(text string) string {
	for _, secret := range g.secrets {
		text = strings.ReplaceAll(text, secret, "…")
	}
	return printable(revealing.ReplaceAllString(printable(text, 4*excerptLength), "…"), excerptLength)
}

// printable is a text in one line, of so many characters at most.
func printable(text string, most int) string {
	text = strings.Join(strings.FieldsFunc(text, func(r rune) bool {
		return !unicode.IsPrint(r) || unicode.IsSpace(r) || r == unicode.ReplacementChar
	}), " ")
	if runes := []rune(text); len(runes) > most {
		return string(runes[:most]) + "…"
	}
	return text
}

// shownHost is where an address leads, without what can be secret in it or in its path.
func shownHost(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return "an address that cannot be read"
	}
	return (&url.URL{Scheme: u.Scheme, Host: u.Host}).String()
}

// shownURL is an address of this gateway's own without what can be secret in it.
func shownURL(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return "an address that cannot be read"
	}
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}

package gateway

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/caddy-polar/caddy-polar/polar"
)

// checkEvent is the type of a webhook that says nothing. Polar sends none.
const checkEvent = "caddy_polar.check"

const (
	// checkTime and checkAnswer are Polar's: how long it waits for an answer,
	// and how much of one it keeps.
	checkTime   = 10 * time.Second
	checkAnswer = 2048
)

// EndpointCheck tells what came of a webhook that the gateway has sent to
// itself by way of its public address.
type EndpointCheck struct {
	Problem CheckProblem
	Status  int    // of the answer; zero without one
	Says    string // what is wrong and what to do, empty when nothing is
	Peer    bool   // another gateway that has the same secret took it
}

// CheckProblem is why webhooks do not arrive.
type CheckProblem string

// The problems.
const (
	CheckFine     CheckProblem = ""
	CheckNoSecret CheckProblem = "no_secret" // it may arrive, and cannot be taken yet
	// Without an answer.
	CheckDNS         CheckProblem = "dns"
	CheckTLS         CheckProblem = "tls"
	CheckRefused     CheckProblem = "connection_refused"
	CheckTimeout     CheckProblem = "timeout"
	CheckUnreachable CheckProblem = "unreachable"
	// With one.
	CheckRedirect  CheckProblem = "redirect"
	CheckForbidden CheckProblem = "forbidden"
	CheckPath      CheckProblem = "path"
	CheckSignature CheckProblem = "signature"
	CheckTooLarge  CheckProblem = "too_large"
	CheckNotReady  CheckProblem = "not_ready"
	CheckStatus    CheckProblem = "status"  // any other that is no success
	CheckUnheard   CheckProblem = "unheard" // a success, and not ours
	CheckAltered   CheckProblem = "altered" // taken here, and told otherwise there
)

// checks are the nonces of checks under way, and whether they were heard.
type checks struct {
	mu    sync.Mutex
	heard map[string]bool
}

func (c *checks) begin(nonce string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.heard == nil {
		c.heard = make(map[string]bool)
	}
	c.heard[nonce] = false
}

// hear notes the nonce of a verified webhook. Old and foreign ones are nothing.
func (c *checks) hear(e polar.Event) {
	said, err := polar.Decode[checkData](e.Data)
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ours := c.heard[said.Nonce]; err == nil && ours {
		c.heard[said.Nonce] = true
	}
}

func (c *checks) end(nonce string) (heard bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	heard = c.heard[nonce]
	delete(c.heard, nonce)
	return heard
}

type checkData struct {
	Nonce string `json:"nonce"`
}

// checkWebhook sends a signed webhook that says nothing to an address, as Polar
// would, and finds out whether it was this gateway that took it.
func (g *Gateway) checkWebhook(ctx context.Context, to *url.URL) (EndpointCheck, error) {
	nonce, now := rand.Text(), g.Now()
	body, err := json.Marshal(struct {
		Type      string    `json:"type"`
		Timestamp time.Time `json:"timestamp"`
		Data      checkData `json:"data"`
	}{checkEvent, now.UTC(), checkData{nonce}})
	if err != nil {
		return EndpointCheck{}, err
	}
	signer := g.verifier
	if signer == nil { // whether the way is free can be seen all the same
		if signer, err = polar.NewWebhookVerifier(rand.Text()); err != nil {
			return EndpointCheck{}, err
		}
	}
	within, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	req, err := http.NewRequestWithContext(within, http.MethodPost, to.String(), bytes.NewReader(body))
	if err != nil {
		return EndpointCheck{}, badInput("url: it must be a whole address, like https://app.example.com%s", WebhookPath)
	}
	req.Header = signer.Sign("check_"+rand.Text(), now, body)
	req.Header.Set("User-Agent", "caddy-polar webhook check")
	g.setup.checks.begin(nonce)
	res, err := checkClient().Do(req)
	if err != nil {
		g.setup.checks.end(nonce)
		if errors.Is(ctx.Err(), context.Canceled) {
			return EndpointCheck{}, ctx.Err()
		}
		return unanswered(to, err), nil
	}
	defer res.Body.Close()
	said, _ := io.ReadAll(io.LimitReader(res.Body, checkAnswer)) // the status decides
	return g.answered(to, res, said, g.setup.checks.end(nonce)), nil
}

// checkClient follows no redirect, as Polar does not.
func checkClient() *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true, MaxResponseHeaderBytes: 64 << 10,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// unanswered says what to do when there was no answer. It is told from this
// machine, which can be another view than Polar's.
func unanswered(to *url.URL, err error) EndpointCheck {
	dns, noHost := errors.AsType[*net.DNSError](err)
	cert, untrusted := errors.AsType[*tls.CertificateVerificationError](err)
	_, noTLS := errors.AsType[tls.RecordHeaderError](err)
	op, isOp := errors.AsType[*net.OpError](err)
	timeout, isNet := errors.AsType[net.Error](err)
	finding := func(p CheckProblem, format string, args ...any) EndpointCheck {
		return EndpointCheck{Problem: p, Says: fmt.Sprintf(format, args...)}
	}
	switch {
	case noHost && dns.IsNotFound:
		return finding(CheckDNS, "the name %s is not known: check the address, or set its DNS record", to.Hostname())
	case noHost:
		return finding(CheckDNS, "the name %s could not be looked up from this machine: check its resolver", to.Hostname())
	case untrusted:
		return finding(CheckTLS, "%v: Polar needs a certificate that everybody trusts for %s", cert, to.Hostname())
	case isOp && op.Op == "remote error": // an alert of TLS
		return finding(CheckTLS, "%v: what answers at %s has no certificate for this name: check the address, and Caddy's log", op.Err, to.Host)
	case noTLS, errors.Is(err, http.ErrSchemeMismatch):
		return finding(CheckTLS, "what answers at %s does not speak TLS: check the port", to.Host)
	case errors.Is(err, syscall.ECONNREFUSED):
		return finding(CheckRefused, "the connection to %s is refused: check the address and its port, and whether Caddy listens there", to.Host)
	case errors.Is(err, context.DeadlineExceeded) || isNet && timeout.Timeout():
		return finding(CheckTimeout, "no answer from %s within %s, after which Polar gives up too: check firewalls, and whether this machine may reach its own public address", to.Host, checkTime)
	}
	return finding(CheckUnreachable, "%s cannot be reached, or breaks the connection: check the address, the network and what stands before Caddy", to.Host)
}

// answered says what an answer means, and what to do about it.
func (g *Gateway) answered(to *url.URL, res *http.Response, said []byte, heard bool) EndpointCheck {
	status := res.StatusCode
	finding := func(p CheckProblem, format string, args ...any) EndpointCheck {
		return EndpointCheck{Problem: p, Status: status, Says: fmt.Sprintf(format, args...)}
	}
	success := status/100 == 2
	switch {
	case heard && success:
		return EndpointCheck{Status: status}
	case heard:
		return finding(CheckAltered, "this gateway took it, but %d came back, which is a failure to Polar: something between changes its answers", status)
	case success && strings.TrimSpace(string(said)) == `{"received":true}`:
		c := finding(CheckUnheard, "another gateway with the same secret took it: fine behind a load balancer, else check where the address leads")
		c.Peer = true
		return c
	case success && strings.HasPrefix(res.Header.Get("Content-Type"), "text/html"):
		return finding(CheckUnheard, "a web page answers there, perhaps a login, and not this gateway: check the address, and that its site has polar before all that answers")
	case success:
		return finding(CheckUnheard, "something else than this gateway answers there: check the address, and that its site has polar before all that answers")
	}
	switch status {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		return finding(CheckRedirect, "it is redirected to %s, and Polar follows no redirect: give the address at its end; if that is a login, let POST %s through without one",
			destination(res), to.Path)
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusProxyAuthRequired:
		return finding(CheckForbidden, "%d: something before the gateway wants a login, or keeps machines out: let POST %s through", status, to.Path)
	case http.StatusNotFound, http.StatusMethodNotAllowed:
		return finding(CheckPath, "%d: there is no webhook route at %s: check the path, and that the site has polar", status, to.Path)
	case http.StatusBadRequest:
		return finding(CheckSignature, "400: what answers there does not take this gateway's signature: it is another gateway, or another app; check the address, and which gateway the site's polar names")
	case http.StatusRequestEntityTooLarge:
		return finding(CheckTooLarge, "413 for a few bytes: something limits bodies: leave webhooks one megabyte")
	case http.StatusServiceUnavailable:
		return g.notReady(finding)
	}
	return finding(CheckStatus, "%d, and Polar wants 200: see the log of what answers there", status)
}

func (g *Gateway) notReady(finding func(CheckProblem, string, ...any) EndpointCheck) EndpointCheck {
	if g.verifier == nil {
		return finding(CheckNoSecret, "503: no webhook can be taken before there is a webhook_secret")
	}
	if _, err := g.claim(); err != nil {
		return finding(CheckNotReady, "503: the gateway's store cannot be used: %v", err)
	}
	return finding(CheckNotReady, "503: what answers there is not ready: see its log, and that of what stands before it")
}

// destination is where a redirect leads, without what only concerns who is
// redirected.
func destination(res *http.Response) string {
	u, err := res.Location()
	if err != nil {
		return "nowhere"
	}
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}

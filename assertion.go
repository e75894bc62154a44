package caddypolar

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"go.uber.org/zap"

	"github.com/caddy-polar/caddy-polar/assertion"
	"github.com/caddy-polar/caddy-polar/entitlement"
	"github.com/caddy-polar/caddy-polar/gateway"
)

// Assertion has what the app is told signed as well, in one more header: a JSON Web
// Token of a minute. An app that verifies it needs not trust the way by which a request
// has come. The keys are published at jwks.json below the path of the site's `polar`.
type Assertion struct {
	// Audience is aud, by which the app knows that a token is meant for it.
	Audience string `json:"audience,omitempty"`

	// Issuer is iss. Default: caddy-polar.
	Issuer string `json:"issuer,omitempty"`

	// Key is "auto" (default: the gateway makes its keys, keeps them in the store and
	// changes them each month), or files with Ed25519 private keys as PKCS#8 PEM. The
	// first one signs, all are published.
	Key []string `json:"key,omitempty"`
}

const (
	// defaultIssuer is the same on every site: nothing of it comes from a client.
	defaultIssuer = "caddy-polar"

	keyAuto = "auto"

	// maxAssertionKeys is how many are published at a time.
	maxAssertionKeys = 4
	// keysMaxAge is for how many seconds whoever fetches the keys can keep them.
	keysMaxAge = 300
)

// parseAssertion reads how the app is told, signed:
//
//	assertion {
//		audience <aud>
//		issuer   <iss>
//		key      auto|<file>
//	}
func (g *Gateway) parseAssertion(d *caddyfile.Dispenser) error {
	if d.NextArg() {
		return d.Errf("unexpected %q: assertion takes a block", d.Val())
	}
	a := new(Assertion)
	err := subdirectives(d, map[string]func(*caddyfile.Dispenser) error{
		"audience": one(&a.Audience),
		"issuer":   one(&a.Issuer),
		"key":      some(&a.Key),
	}, "key")
	if err != nil {
		return err
	}
	if err := a.check(); err != nil {
		return d.WrapErr(err)
	}
	g.Assertion = a
	return nil
}

// check checks what can be seen without a look at the keys.
func (a *Assertion) check() error {
	switch {
	case a.Audience == "":
		return errors.New("assertion: it needs an audience, by which the app knows that it is meant: add `audience <name of the app>`")
	case len(a.Key) > 1 && slices.Contains(a.Key, keyAuto):
		return errors.New("assertion: key auto stands alone: either the gateway makes the keys, or you do")
	case slices.ContainsFunc(a.Key, func(key string) bool { return strings.Contains(key, "-----BEGIN") }):
		return errors.New("assertion: key: a private key stands in the configuration, which others can see: name its file, or write {env.NAME} or {file./path}")
	case len(a.Key) > maxAssertionKeys:
		return fmt.Errorf("assertion: there are %d keys, and no more than %d can be published: take the oldest away", len(a.Key), maxAssertionKeys)
	}
	return nil
}

// resolveAssertion readies what signs.
func (g *Gateway) resolveAssertion(*gateway.Config) error {
	named := slices.ContainsFunc(g.HeaderNames, func(name string) bool {
		return strings.EqualFold(name, headerWords[headerAssertion])
	})
	switch a := g.Assertion; {
	case a == nil && named:
		return errors.New("headers: Assertion goes with an assertion block: add `assertion { audience <name of the app> }`, or take the name away")
	case a == nil:
		return nil
	case len(g.HeaderNames) > 0 && !named:
		return errors.New("assertion: headers names which are sent, and not this one: add Assertion to them")
	}
	if err := g.Assertion.check(); err != nil {
		return err
	}
	audience, err := expand("assertion: audience", g.Assertion.Audience)
	if err != nil {
		return err
	}
	issuer, err := expand("assertion: issuer", orDefault(g.Assertion.Issuer, defaultIssuer))
	if err != nil {
		return err
	}
	keys, err := g.assertionKeys()
	if err != nil {
		return err
	}
	g.assertion, err = assertion.NewSigner(issuer, audience, g.name, keys)
	return err
}

// assertionKeys are the operator's, or the gateway's own.
func (g *Gateway) assertionKeys() (func(time.Time) (assertion.Keys, error), error) {
	files := g.Assertion.Key
	if len(files) == 0 || files[0] == keyAuto {
		return func(now time.Time) (assertion.Keys, error) { return g.core.AssertionKeys(now) }, nil
	}
	var keys assertion.Keys
	for _, raw := range files {
		text, err := g.assertionKey(raw)
		if err != nil {
			return nil, err
		}
		key, err := assertion.ParseKey(text)
		if err != nil {
			return nil, fmt.Errorf("assertion: key: %s%w", shownFile(raw), err)
		}
		if slices.ContainsFunc(keys.Published, func(k *assertion.Key) bool { return k.ID() == key.ID() }) {
			return nil, fmt.Errorf("assertion: key: %sit is given twice", shownFile(raw))
		}
		keys.Published = append(keys.Published, key)
	}
	keys.Signing = keys.Published[0]
	return func(time.Time) (assertion.Keys, error) { return keys, nil }, nil
}

// assertionKey is a PEM text: that of a file, or the value itself of a placeholder.
func (g *Gateway) assertionKey(raw string) ([]byte, error) {
	value, err := expand("assertion: key", raw)
	if err != nil {
		return nil, err
	}
	if strings.Contains(value, "-----BEGIN") {
		return []byte(value), nil
	}
	text, err := os.ReadFile(value)
	if err != nil {
		var path *fs.PathError // which quotes what may be a key
		if errors.As(err, &path) {
			err = path.Err
		}
		return nil, fmt.Errorf("assertion: key: %sneither auto nor a file that can be read: %w", shownFile(raw), err)
	}
	if info, err := os.Stat(value); err == nil && info.Mode().Perm()&0o004 != 0 {
		g.logger.Warn("everybody on this machine can read the assertion key, and sign with it: let only Caddy's user", zap.String("file", value))
	}
	return text, nil
}

// shownFile is the place of a key as an error may show it.
func shownFile(raw string) string {
	if strings.Contains(raw, "{") {
		return shown(raw)
	}
	return raw + ": "
}

// startAssertion has the keys made before the first request needs them.
func (g *Gateway) startAssertion() {
	if g.assertion != nil {
		_, _ = g.assertion.Keys(g.core.Local()) // the core logs why it cannot; requests try again
	}
}

// assert is what the headers tell, signed. Without keys it is nothing, and an app that
// wants it refuses.
func (v *visit) assert(told *headerValues, payer string) string {
	claims := assertion.Claims{
		User: v.identity.User, ExternalCustomer: payer, Customer: told[headerCustomer],
		Plan: told[headerPlan], Plans: told[headerPlans], Status: v.decision.Status, Reason: told[headerReason], Until: told[headerUntil],
	}
	var ends time.Time
	if v.decision.Allowed && !v.decision.Until.IsZero() {
		ends = v.decision.Until.Add(-v.ahead) // by the clock that the app's is like
	}
	g := v.gateway
	token, err := g.assertion.Sign(&claims, ends, v.now.Add(-v.ahead))
	if err != nil && g.warnedAssertion.now(v.now) {
		g.logger.Error("nothing can be asserted to the app", zap.Error(err))
	}
	return token
}

// serveKeys tells the public keys by which assertions are verified.
func (g *Gateway) serveKeys(w http.ResponseWriter, r *http.Request, v *visit) error {
	if g.assertion == nil {
		return newProblem(http.StatusNotFound, codeNotFound).answer(w, r, v)
	}
	keys, err := g.assertion.Keys(v.now.Add(-v.ahead))
	if err != nil {
		return newProblem(http.StatusServiceUnavailable, string(entitlement.ReasonUnavailable)).answer(w, r, v)
	}
	w.Header().Set("Cache-Control", "public, max-age="+strconv.Itoa(keysMaxAge))
	return writeJSON(w, http.StatusOK, "application/json", keys)
}

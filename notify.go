package caddypolar

import (
	"fmt"
	"strings"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-polar/caddy-polar/gateway"
	"github.com/caddy-polar/caddy-polar/notify"
)

// Notify says where changes of subscriptions are posted, as signed Standard
// Webhooks.
type Notify struct {
	// URL is the app's address. http is for an app beside us.
	URL string `json:"url,omitempty"`

	// Secrets sign the messages, each of them: whsec_ and the base64 of 24 to 64
	// bytes. Two while one takes the place of the other.
	Secrets []string `json:"secrets,omitempty"`
}

// maxNotifySecrets is how many secrets sign at a time.
const maxNotifySecrets = 2

// parseNotify reads where the app is told of changes:
//
//	notify <url> <secret> [<secret>]
func (g *Gateway) parseNotify(d *caddyfile.Dispenser) error {
	var words []string
	if err := some(&words)(d); err != nil {
		return err
	}
	if len(words) < 2 || len(words) > 1+maxNotifySecrets {
		return d.Err("notify takes an address and one secret, or two while one takes the place of the other")
	}
	g.Notify = &Notify{URL: words[0], Secrets: words[1:]}
	if strings.Contains(g.Notify.URL, "{") {
		return nil
	}
	if err := notify.CheckAddress(g.Notify.URL); err != nil {
		return d.WrapErr(err)
	}
	return nil
}

// resolveNotify makes what posts the messages.
func (g *Gateway) resolveNotify(c *gateway.Config) error {
	if g.Notify == nil {
		return nil
	}
	address, err := expand("notify", g.Notify.URL)
	if err != nil {
		return err
	}
	if n := len(g.Notify.Secrets); n == 0 || n > maxNotifySecrets {
		return fmt.Errorf("notify: it needs one secret, or two while one takes the place of the other, and has %d", n)
	}
	secrets := make([]string, len(g.Notify.Secrets))
	for i, raw := range g.Notify.Secrets {
		if secrets[i], err = g.secret("notify", raw); err != nil {
			return err
		}
	}
	sender, err := notify.New(address, secrets...)
	if err != nil {
		return err
	}
	g.notify, c.Notify, c.OnNotified = sender, sender, g.metrics.notified
	return nil
}

package browsertest

import (
	"testing"
	"time"

	"github.com/chromedp/cdproto/network"
)

// soon is how long a buyer may wait from the click on Pay. It is meant to be
// within a second; busy machines get more.
const soon = 5 * time.Second

func TestFromRefusedToUnlockedToOut(t *testing.T) {
	d := startDemo(t)
	b := startBrowser(t)
	b.signIn(d)
	b.isRefused(d)
	b.buys(d)

	b.click("#portal")
	b.reads("Your subscriptions", "Renews on")
	b.click(`button[value="cancel"]`)
	b.reads("Ends on")
	b.click("#back")
	b.reads(d.app+"/\n", "Welcome, Ada Lovelace") // although the link is another site's
	b.click("#pro")
	b.reads("You are in, Ada Lovelace", "canceling")

	b.goTo(d.panel)
	b.readsIn("#person-ada", "open pro canceling until")
	b.click("#end-ada")
	b.readsIn("#person-ada", "closed pro canceled since")
	b.readsIn("#log", "subscription.revoked", "Ada Lovelace, pro: closed")

	b.goTo(d.app + "/")
	b.reads("Welcome, Ada Lovelace")
	b.click("#pro")
	b.reads(d.app+"/pro/\n", "The subscription was canceled")
}

// TestWebhooksLost: the way back from the checkout must unlock by itself.
func TestWebhooksLost(t *testing.T) {
	d := startDemo(t)
	b := startBrowser(t)
	b.goTo(d.panel)
	b.click(`button[value="are lost"]`)
	b.readsIn("#network", "They are lost.")
	b.signIn(d)
	b.isRefused(d)
	b.buys(d)
	b.goTo(d.panel)
	b.readsIn("#log", "subscription.created", "lost on its way", "Ada Lovelace, pro: open")
}

func TestWithoutScripts(t *testing.T) {
	d := startDemo(t)
	b := startBrowser(t)
	b.withoutScripts()
	b.signIn(d)
	b.isRefused(d)
	b.buys(d)
	b.goTo(d.panel)
	b.readsIn("#person-ada", "open pro active until")
	b.click("#bad-ada")
	b.reads("Ada Lovelace's next payment will fail.")
	b.click("#end-ada")
	b.readsIn("#person-ada", "past_due_grace")
}

// refused is what the gateway's own page says.
const refused = "A subscription is required"

func (b *browser) signIn(d *demo) {
	b.t.Helper()
	b.goTo(d.app + "/")
	b.reads("A page for everybody", "Sign in to see them")
	b.click("#as-ada")
	b.reads("Welcome, Ada Lovelace", "no_subscription")
	cookies := b.cookies()
	if len(cookies) != 1 {
		b.t.Fatalf("there are %d cookies", len(cookies))
	}
	if c := cookies[0]; c.Name != "session" || c.SameSite != network.CookieSameSiteStrict || !c.HTTPOnly {
		b.t.Errorf("the cookie is %+v", c)
	}
}

func (b *browser) isRefused(d *demo) {
	b.t.Helper()
	b.click("#pro")
	b.reads(d.app+"/pro/\n", refused)
}

// buys is one click on the page that refuses, and one on Pay.
func (b *browser) buys(d *demo) {
	b.t.Helper()
	b.click(`a[href*="/auth/polar/checkout"]`)
	b.reads("/checkout/", "Pro", "10.00 USD", "Pay")
	start := time.Now()
	b.click("#pay")
	b.reads(d.app+"/pro/\n", "You are in, Ada Lovelace", "active")
	took := time.Since(start)
	b.t.Logf("from the click on Pay to the page: %s", took.Round(time.Millisecond))
	if took > soon {
		b.t.Errorf("the buyer waits %s", took)
	}
}

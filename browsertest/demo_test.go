package browsertest

import (
	"testing"
	"time"

	"github.com/chromedp/cdproto/network"
)

// soon is how long a buyer may wait from the click on Pay. It is meant to be
// within a second; busy machines get more.
const soon = 5 * time.Second

// TestFromRefusedToUnlockedToOut is the walk through the demo that the README shows.
// PICTURES keeps its pictures.
func TestFromRefusedToUnlockedToOut(t *testing.T) {
	d := startDemo(t)
	b := startBrowser(t)
	b.seesAs("walk", "light")
	b.goTo(d.app + "/")
	b.reads("A page for everybody", "Sign in to see them")
	b.click("#pro")
	b.reads(d.app+"/login?return_to=", "Sign in")
	b.picture("walk-1-sign-in")
	b.click("#as-ada")
	b.reads(d.app+"/pro/\n", refused, "$10.00 per month", "$100.00 per year", "See all plans")
	b.picture("walk-2-refused")
	b.click(`a[href*="/auth/polar/pricing"]`)
	b.reads("Plans", "For readers who want it all.", "$10.00", "per month", "Every article, and the archive")
	b.picture("walk-3-pricing")
	b.click(`a[href*="/auth/polar/checkout"]`)
	b.pays(d)
	b.picture("walk-4-in")

	b.click("#account")
	b.reads(d.app+"/auth/polar/account\n", "Pro", "Active", "Renews on")
	b.picture("walk-5-account")
	b.click("section > details:last-of-type > summary")
	b.click(`button[value="cancel"]`)
	b.reads("The subscription is canceled.", "Canceled. Open until", "does not renew")
	b.picture("walk-6-canceled")
	b.goTo(d.app + "/pro/")
	b.reads("You are in, Ada Lovelace", "canceling")

	b.goTo(d.panel)
	b.readsIn("#person-ada", "open pro canceling until")
	b.picture("walk-7-panel")
	b.click("#end-ada")
	b.readsIn("#person-ada", "closed pro canceled since")
	b.readsIn("#log", "subscription.revoked", "Ada Lovelace, pro: closed")

	b.goTo(d.app + "/")
	b.reads("Welcome, Ada Lovelace")
	b.click("#pro")
	b.reads(d.app+"/pro/\n", "The subscription was canceled", "Your subscription ended on")
	b.picture("walk-8-canceled")
}

// TestPortalAndBack: the link back is another site's, so the strict cookie does not
// come along at first.
func TestPortalAndBack(t *testing.T) {
	d := startDemo(t)
	b := startBrowser(t)
	b.signIn(d)
	b.isRefused(d)
	b.buys(d)
	b.click("#account")
	b.reads("Renews on")
	b.click(`a[href*="/auth/polar/portal"]`)
	b.reads("Your subscriptions", "Renews on")
	b.click(`button[value="cancel"]`)
	b.reads("Ends on")
	b.click("#back")
	b.reads(d.app+"/auth/polar/account\n", "Canceled. Open until", "Keep subscription")
	b.click(`button[value="keep"]`)
	b.reads("The cancellation is taken back", "Renews on")
}

// TestPagesFollowThePayments: what becomes of a payment is seen on the pages.
func TestPagesFollowThePayments(t *testing.T) {
	d := startDemo(t)
	b := startBrowser(t)
	b.signIn(d)
	b.isRefused(d)
	b.buys(d)
	b.goTo(d.panel)
	b.click("#bad-ada")
	b.readsIn("#log", "Ada Lovelace's next payment will fail.")
	b.click("#end-ada")
	b.readsIn("#person-ada", "past_due_grace")

	b.goTo(d.app + "/auth/polar/account")
	b.reads("Payment failed", "You have access until", "7 days left", "Update your payment method")
	b.goTo(d.app + "/pro/")
	b.reads("You are in, Ada Lovelace", "past_due_grace")

	b.goTo(d.panel)
	for range 8 {
		const today = `document.querySelector("#now time").dateTime.slice(0, 10)`
		before := b.evaluate(today)
		b.click("#day")
		b.sees(func() string {
			if b.evaluate(today) == before {
				return ""
			}
			return "the next day"
		}, "the next day")
	}
	b.readsIn("#person-ada", "closed pro past_due since")
	b.goTo(d.app + "/pro/")
	b.reads("A payment has failed", "access ended on", "days left", "Update your payment method")
	b.goTo(d.app + "/auth/polar/account")
	b.reads("Payment failed", "access ended on")

	b.goTo(d.panel)
	b.click("#good-ada")
	b.readsIn("#person-ada", "open pro active until")
	b.goTo(d.app + "/pro/")
	b.reads("You are in, Ada Lovelace", "active")
	b.goTo(d.app + "/auth/polar/account")
	b.reads("Active", "Renews on")
}

// TestReturnAddressSurvives: from a link that needs a login, through the login and the
// checkout, to where the link wanted to go.
func TestReturnAddressSurvives(t *testing.T) {
	d := startDemo(t)
	b := startBrowser(t)
	b.goTo(d.app + "/auth/polar/pricing?return_to=/pro/")
	b.reads("Plans", "Team")
	b.click(`a[href*="/auth/polar/checkout"]`)
	b.reads(d.app+"/login?return_to=", "Sign in")
	b.click("#as-grace")
	b.reads("/checkout/", "Pro", "10.00 USD", "Pay")
	b.click("#pay")
	b.reads(d.app+"/pro/\n", "You are in, Grace Hopper")
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
	b.pays(d)
}

// pays is one click in the checkout.
func (b *browser) pays(d *demo) {
	b.t.Helper()
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

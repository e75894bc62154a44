package gateway

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-polar/caddy-polar/cache"
	"github.com/caddy-polar/caddy-polar/entitlement"
	"github.com/caddy-polar/caddy-polar/polar"
	"github.com/caddy-polar/caddy-polar/polar/box"
)

// practice is a gateway whose setup is as it should be: whoever finds something has
// broken it.
type practice struct {
	*site
	endpoint box.Endpoint
	around   Surroundings
}

func newPractice(t *testing.T, change ...func(*Config)) *practice {
	t.Helper()
	p := &practice{}
	p.site = newSite(t, append([]func(*Config){func(c *Config) {
		c.APIVersion, c.Limiter = "2026-10", polar.NewLimiter(1e6, 1e6)
		c.Plans = slices.DeleteFunc(c.Plans, func(p entitlement.Plan) bool { return p.Name == "feature" })
	}}, change...)...)
	p.g.disk = func() cache.Disk { return cache.Disk{Sync: time.Millisecond, Free: 10 << 30, Total: 100 << 30} } // whatever it is like here
	p.endpoint = p.add(box.Endpoint{URL: p.url, Secret: testSecret})
	if p.g.client != nil {
		if _, err := p.g.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	p.changed()
	return p
}

// examine is what is not ok, by its severity.
func (p *practice) examine() (bad map[string]Severity, all Diagnosis) {
	p.t.Helper()
	all = p.g.Doctor(p.t.Context(), func(context.Context) Surroundings { return p.around })
	bad = make(map[string]Severity)
	for _, f := range all.Findings {
		if f.Severity != SeverityOK {
			bad[f.ID] = f.Severity
		}
		if f.What == "" || f.Why == "" || (f.Do == "") != (f.Severity == SeverityOK) {
			p.t.Errorf("a finding says too little or too much: %+v", f)
		}
	}
	if wrote := p.changed(); len(wrote) > 0 {
		p.t.Errorf("doctor has written: %v", wrote)
	}
	return bad, all
}

// update changes the endpoint at Polar.
func (p *practice) update(u box.EndpointUpdate) {
	p.t.Helper()
	if _, err := p.box.UpdateEndpoint(p.endpoint.ID, u); err != nil {
		p.t.Fatal(err)
	}
}

// token makes the gateway's access token one with some scopes.
func (p *practice) token(token string) {
	p.t.Helper()
	c, err := polar.NewClient(polar.ClientConfig{
		BaseURL: p.config.Server, Token: token, Version: p.config.APIVersion, Now: p.g.local, Sleep: p.g.sleep, Logger: p.g.logger,
	})
	if err != nil {
		p.t.Fatal(err)
	}
	p.g.client.Close()
	p.g.client = c
}

var allScopes = []string{
	"subscriptions:read", "products:read", "customers:read", "checkouts:write", "orders:read", "refunds:read", "disputes:read",
	"benefits:read", "customer_seats:read", "members:read", "webhooks:read",
}

func without(scopes ...string) []string {
	return slices.DeleteFunc(slices.Clone(allScopes), func(s string) bool { return slices.Contains(scopes, s) })
}

// all makes one severity of several findings.
func all(s Severity, ids ...string) map[string]Severity {
	m := make(map[string]Severity)
	for _, id := range ids {
		m[id] = s
	}
	return m
}

func also(ms ...map[string]Severity) map[string]Severity {
	out := make(map[string]Severity)
	for _, m := range ms {
		maps.Copy(out, m)
	}
	return out
}

var (
	// unproven is what a gateway that has written nothing yet cannot know.
	unproven = all(SeverityUnknown, aboutWriteScopes)
	// endpointLess are what is not known without an endpoint.
	endpointLess = all(SeverityUnknown, aboutWebhookEnabled, aboutWebhookFormat, aboutWebhookEvents, aboutWebhookURL, aboutWebhookDeliveries)
	// asksPolar are what is not known without Polar.
	asksPolar = also(unproven, endpointLess, all(SeverityUnknown,
		aboutScopes, aboutOrganization, aboutPlans, aboutWebhookSecret, aboutWebhookEndpoint))
)

// faults are what can be wrong with a setup, one at a time.
var faults = []struct {
	name   string
	config func(*Config)
	harm   func(*practice)
	want   map[string]Severity
	says   string // somewhere in the findings that are not ok
}{
	{name: "nothing"},
	// Polar's own list.
	{
		name: "another secret", want: all(SeverityError, aboutWebhookSecret), says: "is none of webhook_secret",
		harm: func(p *practice) {
			p.must(p.box.DeleteEndpoint(p.endpoint.ID))
			p.endpoint = p.add(box.Endpoint{URL: p.url, Secret: "another-secret-of-at-least-32-characters"})
		},
	},
	{
		name: "a redirect", want: all(SeverityError, aboutWebhookURL), says: "follows no redirect",
		harm: func(p *practice) {
			p.update(box.EndpointUpdate{URL: new(p.serve(http.RedirectHandler("https://www.example.com/", http.StatusMovedPermanently)) + WebhookPath)})
		},
	},
	{
		name: "another Caddy behind the address", want: all(SeverityWarning, aboutWebhookURL), says: "fine behind a load balancer",
		harm: func(p *practice) {
			peer := p.serve(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, `{"received":true}`) }))
			p.update(box.EndpointUpdate{URL: new(peer + WebhookPath)})
		},
	},
	{
		name: "the wrong path", want: all(SeverityError, aboutWebhookURL), says: "no webhook route at /nowhere",
		harm: func(p *practice) {
			p.update(box.EndpointUpdate{URL: new(strings.Replace(p.url, WebhookPath, "/nowhere", 1))})
		},
	},
	{
		name: "nobody there", want: all(SeverityError, aboutWebhookURL), says: "is refused",
		harm: func(p *practice) { p.update(box.EndpointUpdate{URL: new(p.closed() + WebhookPath)}) },
	},
	{
		name: "not reached from here", want: all(SeverityUnknown, aboutWebhookURL), says: "Polar's latest delivery has arrived",
		harm: func(p *practice) {
			server := p.listen()
			p.update(box.EndpointUpdate{URL: new(server.URL + WebhookPath)})
			p.buys()
			server.Close()
		},
	},
	{
		name: "an address that is new, and wrong", want: all(SeverityError, aboutWebhookURL), says: "is refused",
		harm: func(p *practice) {
			p.buys()
			p.box.Advance(time.Second)
			p.update(box.EndpointUpdate{URL: new(p.closed() + WebhookPath)})
		},
	},
	{
		name: "an address that is new, and right", want: all(SeverityWarning, aboutWebhookDeliveries), says: "before the endpoint was changed",
		harm: func(p *practice) {
			p.update(box.EndpointUpdate{URL: new(p.serve(refusing) + WebhookPath)})
			p.buys()
			p.box.Advance(time.Second)
			p.update(box.EndpointUpdate{URL: new(p.url), Enabled: new(true)})
		},
	},
	{name: "disabled", want: all(SeverityError, aboutWebhookEnabled), harm: func(p *practice) { p.update(box.EndpointUpdate{Enabled: new(false)}) }},
	{name: "slack", want: all(SeverityError, aboutWebhookFormat), says: "slack", harm: func(p *practice) { p.update(box.EndpointUpdate{Format: new("slack")}) }},
	{
		name: "events", want: all(SeverityError, aboutWebhookEvents), says: "subscription.revoked",
		harm: func(p *practice) {
			p.update(box.EndpointUpdate{Events: slices.DeleteFunc(wantedEvents(), func(k string) bool { return k == "subscription.revoked" })})
		},
	},
	{
		name: "events of products", want: all(SeverityWarning, aboutWebhookEvents), says: "product.updated",
		harm: func(p *practice) {
			p.update(box.EndpointUpdate{Events: slices.DeleteFunc(wantedEvents(), func(k string) bool { return k == "product.updated" })})
		},
	},
	{
		name: "a token of the other environment", want: also(asksPolar, all(SeverityError, aboutEnvironment)), says: "the other of production and sandbox",
		harm: func(p *practice) { p.token("polar_oat_ofanotherserver") },
	},
	{
		name: "the sandbox in the place of production", want: all(SeverityError, aboutEnvironment), says: "the sandbox answers",
		harm: func(p *practice) {
			between := p.serve(&httputil.ReverseProxy{
				Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(mustURL(p.t.(*testing.T), p.box.URL)) },
				ModifyResponse: func(r *http.Response) error {
					r.Header.Set("X-Polar-Sandbox", "1")
					return nil
				},
				Transport: &http.Transport{DisableKeepAlives: true},
			})
			p.config.Server, p.g.owner.Server = between, serverProduction
			p.token(p.config.AccessToken)
		},
	},
	{
		name: "products of the other environment", want: all(SeverityError, aboutPlans), says: "production or sandbox",
		harm: func(p *practice) { p.g.plans[1].Products = []string{proProduct} },
	},
	// And more.
	{
		name: "no endpoint", want: also(endpointLess, all(SeverityUnknown, aboutWebhookSecret), all(SeverityError, aboutWebhookEndpoint)),
		harm: func(p *practice) { p.must(p.box.DeleteEndpoint(p.endpoint.ID)) },
	},
	{
		name: "deliveries that fail", want: all(SeverityError, aboutWebhookURL, aboutWebhookDeliveries), says: "403",
		harm: func(p *practice) {
			p.update(box.EndpointUpdate{URL: new(p.serve(refusing) + WebhookPath)})
			p.buys()
		},
	},
	{
		name: "deliveries that failed", want: all(SeverityWarning, aboutWebhookDeliveries), says: "while later ones have",
		harm: func(p *practice) {
			p.update(box.EndpointUpdate{URL: new(p.serve(refusing) + WebhookPath)})
			p.buys()
			p.update(box.EndpointUpdate{URL: new(p.url)})
			p.buys()
		},
	},
	{name: "no webhook secret", config: func(c *Config) { c.WebhookSecrets = nil }, want: also(
		endpointLess, all(SeverityWarning, aboutWebhookSecret), all(SeverityUnknown, aboutWebhookEndpoint))},
	{name: "no access token", config: withToken(""), want: also(asksPolar,
		all(SeverityWarning, aboutToken), all(SeverityUnknown, aboutPolar, aboutEnvironment, aboutClock, aboutAPIVersion, aboutRateLimit, aboutSync))},
	{name: "a person's token", want: all(SeverityWarning, aboutToken), harm: func(p *practice) { p.g.tokenKind = TokenPersonal }},
	{
		name: "no scope for subscriptions", want: all(SeverityError, aboutScopes), says: "lacks subscriptions:read",
		harm: func(p *practice) { p.token(p.box.NewToken(without("subscriptions:read")...)) },
	},
	{
		name: "no scope for checkouts", want: all(SeverityError, aboutScopes), says: "lacks checkouts:write",
		harm: func(p *practice) { p.token(p.box.NewToken(without("checkouts:write")...)) },
	},
	{
		name: "no scope for orders", want: all(SeverityWarning, aboutScopes), says: "orders:read",
		harm: func(p *practice) { p.token(p.box.NewToken(without("orders:read", "refunds:read")...)) },
	},
	{
		name: "no scope for seats", want: all(SeverityWarning, aboutScopes), says: "lacks customer_seats:read, members:read",
		harm: func(p *practice) {
			p.seats()
			p.token(p.box.NewToken(without("customer_seats:read", "members:read")...))
		},
	},
	{name: "seats", says: "customer_seats:write", harm: func(p *practice) {
		p.seats()
		p.token(p.box.NewToken(allScopes...))
	}},
	{
		name: "no scope for benefits", want: also(all(SeverityWarning, aboutScopes), all(SeverityUnknown, aboutPlans)), says: "benefits:read",
		harm: func(p *practice) {
			p.g.plans[1].Benefits = []string{featureBenefit}
			p.token(p.box.NewToken(without("benefits:read")...))
		},
	},
	{
		name: "no scope for products", want: also(all(SeverityError, aboutScopes), all(SeverityUnknown, aboutPlans)),
		harm: func(p *practice) { p.token(p.box.NewToken(without("products:read")...)) },
	},
	{
		name: "no scope for webhooks", want: also(endpointLess, all(SeverityWarning, aboutScopes), all(SeverityUnknown, aboutWebhookSecret, aboutWebhookEndpoint)),
		harm: func(p *practice) { p.token(p.box.NewToken(without("webhooks:read")...)) },
	},
	{name: "another organization", want: all(SeverityError, aboutOrganization), harm: func(p *practice) { p.g.owner.Organization = acme }},
	{name: "a store of another organization", want: all(SeverityError, aboutOrganization), says: "than the store", harm: func(p *practice) {
		other := openStore(p.t, filepath.Join(p.t.TempDir(), "other.db"))
		_, err := other.Claim(cache.Owner{Gateway: "default", Server: p.config.Server})
		p.must(err)
		_, err = other.Apply(p.t.Context(), &cache.Facts{Organization: acme})
		p.must(err)
		p.g.store = other
	}},
	{
		name: "a clock that is somewhat off", want: all(SeverityWarning, aboutClock), says: "2m0s ahead of",
		harm: func(p *practice) { p.skew(2 * time.Minute) },
	},
	{name: "a clock that is off", want: all(SeverityError, aboutClock), says: "behind", harm: func(p *practice) { p.skew(-6 * time.Minute) }},
	{name: "a version that is gone", config: func(c *Config) { c.APIVersion = "2025-10" }, want: all(SeverityError, aboutAPIVersion), says: "2025-10"},
	{name: "a version that is old", config: func(c *Config) { c.APIVersion = "2026-04" }, want: all(SeverityWarning, aboutAPIVersion), says: "2026-10-01"},
	{
		name: "Polar is down", want: also(asksPolar, all(SeverityError, aboutPolar), all(SeverityUnknown, aboutEnvironment)),
		harm: func(p *practice) {
			p.sleeps = func(time.Duration) error { return nil }
			p.box.SetTrouble(box.Trouble{HTML: true})
		},
	},
	{
		name: "something else in Polar's place", want: also(asksPolar, all(SeverityError, aboutPolar), all(SeverityUnknown, aboutEnvironment, aboutClock, aboutAPIVersion)),
		says: "not Polar's API",
		harm: func(p *practice) {
			p.config.Server = p.serve(http.RedirectHandler("https://www.example.com/", http.StatusMovedPermanently))
			p.token(p.config.AccessToken)
		},
	},
	{
		name: "Polar says it is too much", want: also(asksPolar, all(SeverityWarning, aboutRateLimit), all(SeverityUnknown, aboutPolar, aboutEnvironment)),
		harm: func(p *practice) { p.box.SetTrouble(box.Trouble{Limit: 30}) },
	},
	{
		name: "an archived product", want: all(SeverityWarning, aboutPlans), says: "plan max",
		harm: func(p *practice) { p.archive(p.max.ID) },
	},
	{name: "an archived product beside another", harm: func(p *practice) { p.archive(p.trial.ID) }},
	{
		name: "a benefit that Polar does not know", want: all(SeverityError, aboutPlans), says: featureBenefit,
		harm: func(p *practice) { p.g.plans[1].Benefits = []string{featureBenefit} },
	},
	{
		name: "a benefit that nothing gives", want: all(SeverityWarning, aboutPlans), says: "no product gives",
		harm: func(p *practice) {
			b := p.box.AddBenefit(box.Benefit{Description: "Feature"})
			p.g.plans[1].Products, p.g.plans[1].Benefits = nil, []string{b.ID}
		},
	},
	{name: "a benefit that a product gives", harm: func(p *practice) {
		b := p.box.AddBenefit(box.Benefit{Description: "Feature"})
		p.box.AddProduct(box.Product{Name: "Feature", Interval: "month", BenefitIDs: []string{b.ID}, Price: box.Price{Amount: 100}})
		p.g.plans[1].Products, p.g.plans[1].Benefits = nil, []string{b.ID}
	}},
	{name: "no plan", want: all(SeverityWarning, aboutPlans), harm: func(p *practice) { p.g.plans = nil }},
	{name: "no sync for long", want: all(SeverityError, aboutSync), says: "2 days ago", harm: func(p *practice) { p.box.Advance(2 * day) }},
	{name: "sync off", want: all(SeverityWarning, aboutSync), harm: func(p *practice) { p.g.syncing.Off = true }},
	{name: "syncs that fail", want: all(SeverityWarning, aboutSync), says: errDown.Error(), harm: func(p *practice) {
		p.g.sync.failures, p.g.sync.failed = 3, errDown
	}},
	{name: "a store that is gone", want: also(all(SeverityError, aboutStore, aboutWebhookURL), all(SeverityUnknown, aboutStoreSize)), says: "closed", harm: func(p *practice) {
		p.must(p.g.store.Close())
		p.g.keys.Store(nil)
	}},
	{name: "nobody can be known", want: all(SeverityError, aboutIdentity), harm: func(p *practice) { p.around.Nobody = true }},
	{
		name: "keys that cannot be fetched", want: all(SeverityError, aboutJWKS), says: "404",
		harm: func(p *practice) { p.around.KeySets = []KeySet{{Place: "https://id.example", Err: errors.New("404")}} },
	},
	{
		name: "keys that are kept", want: all(SeverityWarning, aboutJWKS),
		harm: func(p *practice) { p.around.KeySets = []KeySet{{Err: errors.New("404"), Held: 2, Fetched: p.g.Now()}} },
	},
	{
		name: "keys that do not fit", want: all(SeverityError, aboutJWKS), says: "algorithms",
		harm: func(p *practice) { p.around.KeySets = []KeySet{{Keys: 2}} },
	},
	{name: "keys that fit", harm: func(p *practice) { p.around.KeySets = []KeySet{{Keys: 2, Fitting: 1}} }},
	{
		name: "a session endpoint that is away", want: all(SeverityError, aboutSession), says: "nobody listens",
		harm: func(p *practice) { p.around.Session = &SessionEndpoint{Err: errors.New("nobody listens")} },
	},
	{name: "a session endpoint", harm: func(p *practice) { p.around.Session = &SessionEndpoint{Place: "http://localhost"} }},
	{name: "literal secrets", want: all(SeverityWarning, aboutSecrets), says: "jwt: secret", harm: func(p *practice) { p.around.Literal = []string{"jwt: secret"} }},
	{name: "on_unavailable allow", want: all(SeverityWarning, aboutUnavailable), harm: func(p *practice) { p.around.AllowUnavailable = true }},
	{name: "a risk", want: all(SeverityWarning, aboutSettings), says: "any audience", harm: func(p *practice) { p.around.Risks = []string{"any audience"} }},
}

// refusing answers with what must not be repeated.
var refusing = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
	http.Error(w, "no: ada@example.com\x00 polar_oat_abc "+testSecret, http.StatusForbidden)
})

// serve is the address of a server.
func (p *practice) serve(h http.Handler) string {
	server := httptest.NewServer(h)
	p.t.Cleanup(server.Close)
	return server.URL
}

// closed is an address at which nobody listens any more.
func (p *practice) closed() string {
	server := httptest.NewServer(refusing)
	server.Close()
	return server.URL
}

// TestDoctor breaks one thing at a time: doctor finds that, and nothing else.
func TestDoctor(t *testing.T) {
	for _, tt := range faults {
		t.Run(tt.name, func(t *testing.T) {
			change := []func(*Config){}
			if tt.config != nil {
				change = append(change, tt.config)
			}
			p := newPractice(t, change...)
			if tt.harm != nil {
				tt.harm(p)
			}
			bad, d := p.examine()
			if want := also(unproven, tt.want); !maps.Equal(bad, want) {
				t.Errorf("%v\nwant %v", bad, want)
			}
			said := fmt.Sprintf("%+v", d)
			if tt.says != "" && !strings.Contains(said, tt.says) {
				t.Errorf("%q is missing in %s", tt.says, said)
			}
			for _, secret := range []string{testSecret, p.config.AccessToken, "another-secret", "polar_oat_", "@example.com", "\x00"} {
				if strings.Contains(strings.ReplaceAll(said, "(polar_oat_…)", ""), secret) && secret != "" {
					t.Errorf("%q shows in %s", secret, said)
				}
			}
			p.silent(testSecret, p.config.AccessToken)
		})
	}
}

func (p *practice) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

// seats makes a plan of what is sold by seats.
func (p *practice) seats() {
	p.t.Helper()
	team := p.box.AddProduct(box.Product{Name: "Team", Interval: "month", Price: box.Price{Tiers: []box.SeatTier{{Min: 1, PerSeat: 1000}}}})
	p.g.plans[1].Products = []string{team.ID}
}

// buys makes Polar deliver something.
func (p *practice) buys() {
	p.t.Helper()
	n := len(p.box.Customers())
	_, err := p.box.Buy(fmt.Sprintf("usr_%d", n), fmt.Sprintf("usr_%d@example.com", n), p.pro.ID)
	p.must(err)
	p.box.Settle()
}

func (p *practice) archive(id string) {
	p.t.Helper()
	_, err := p.box.UpdateProduct(id, box.ProductUpdate{Archived: new(true)})
	p.must(err)
}

// skew puts this machine's clock ahead of Polar's.
func (p *practice) skew(by time.Duration) {
	p.g.local = func() time.Time { return p.box.Now().Add(by) }
	p.token(p.config.AccessToken)
}

// TestDoctorOrder: the worst comes first, and what was written before proves scopes.
func TestDoctorOrder(t *testing.T) {
	p := newPractice(t)
	p.opens(adaVisits(), p.pro.ID)
	p.changed()
	if bad, _ := p.examine(); bad[aboutWriteScopes] != SeverityUnknown {
		t.Error("no portal session was opened yet: ", bad)
	}
	p.g.heard.call(polar.Call{Method: "POST", Path: "/v1/customer-sessions/", Status: 201}, p.g.local())
	if bad, _ := p.examine(); len(bad) > 0 {
		t.Error(bad)
	}
	for _, tt := range []struct {
		path string
		want Severity
	}{{"/v1/customers/", SeverityWarning}, {"/v1/checkouts/", SeverityError}} {
		p.g.heard.call(polar.Call{Method: "POST", Path: tt.path, Status: 403, Err: polar.ErrScope}, p.g.local())
		if bad, _ := p.examine(); bad[aboutWriteScopes] != tt.want {
			t.Errorf("%s: %v", tt.path, bad)
		}
	}
	p.around.Literal, p.around.Nobody = []string{"access_token"}, true
	_, d := p.examine()
	var order []string
	for _, f := range d.Findings[:4] {
		order = append(order, string(f.Severity)+" "+f.ID)
	}
	if want := []string{"error write_scopes", "error identity", "warning secrets", "ok access_token"}; !slices.Equal(order, want) {
		t.Errorf("%q, want %q", order, want)
	}
}

// TestDoctorEndsInTime: neither Polar, nor a disk, nor surroundings that hang can hold it.
func TestDoctorEndsInTime(t *testing.T) {
	p := newPractice(t)
	over := make(chan struct{})
	defer close(over)
	p.g.disk = func() cache.Disk { <-over; return cache.Disk{} }
	p.box.SetTrouble(box.Trouble{Hang: true})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	d := p.g.Doctor(ctx, func(ctx context.Context) Surroundings {
		<-ctx.Done()
		return Surroundings{}
	})
	if len(d.Findings) < 25 || d.Took > 5*time.Second || d.Findings[0].ID != aboutPolar {
		t.Errorf("%v after %v", d.Findings[0], d.Took)
	}
}

// TestDoctorOutOfTime: what was not asked in time is not known, and no fault.
func TestDoctorOutOfTime(t *testing.T) {
	p := newPractice(t)
	ctx, cancel := context.WithDeadline(t.Context(), time.Unix(1, 0))
	defer cancel()
	if _, err := p.g.tryAddress(ctx, p.url); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	if f := urlFinding(&polarFacts{checkErr: ctx.Err()}); f.Severity != SeverityUnknown {
		t.Errorf("%+v", f)
	}
}

func TestStoreFindings(t *testing.T) {
	good := func() storeFacts {
		return storeFacts{
			stats: cache.Stats{FileSize: 1 << 30},
			disk:  cache.Disk{Sync: time.Millisecond, Free: 10 << 30, Total: 100 << 30},
		}
	}
	for name, tt := range map[string]struct {
		harm func(*storeFacts)
		want map[string]Severity
	}{
		"nothing":     {func(*storeFacts) {}, all(SeverityOK)},
		"hollow":      {func(s *storeFacts) { s.stats.FreePages = (600 << 20) / os.Getpagesize() }, all(SeverityWarning, aboutStoreSize)},
		"small":       {func(s *storeFacts) { s.stats.FileSize, s.stats.FreePages = 1<<20, 250 }, all(SeverityOK)},
		"read-only":   {func(s *storeFacts) { s.disk = cache.Disk{WriteError: cache.ErrReadOnly, Free: 1 << 40, Total: 1 << 40} }, all(SeverityError, aboutDiskWrite)},
		"not ours":    {func(s *storeFacts) { s.disk.WriteError = os.ErrPermission }, all(SeverityUnknown, aboutDiskWrite)},
		"broken":      {func(s *storeFacts) { s.disk.WriteError = errDown }, all(SeverityError, aboutDiskWrite)},
		"slow":        {func(s *storeFacts) { s.disk.Sync = time.Second }, all(SeverityWarning, aboutDiskWrite)},
		"nearly full": {func(s *storeFacts) { s.disk.Free = 200 << 20 }, all(SeverityWarning, aboutDiskSpace)},
		"less than a quarter of the store": {func(s *storeFacts) {
			s.stats.FileSize, s.disk.Free = 8<<30, 1<<30
		}, all(SeverityWarning, aboutDiskSpace)},
		"full":      {func(s *storeFacts) { s.disk.Free = 1 << 20 }, all(SeverityError, aboutDiskSpace)},
		"not known": {func(s *storeFacts) { s.disk.Free, s.disk.Total = 0, 0 }, all(SeverityUnknown, aboutDiskSpace)},
		"no store":  {func(s *storeFacts) { s.err = errDown }, also(all(SeverityError, aboutStore), all(SeverityUnknown, aboutStoreSize))},
		"no answer": {func(s *storeFacts) { s.late = true }, also(all(SeverityError, aboutStore), all(SeverityUnknown, aboutStoreSize, aboutDiskWrite, aboutDiskSpace))},
	} {
		s := good()
		tt.harm(&s)
		bad := make(map[string]Severity)
		for _, f := range s.findings() {
			if f.Severity != SeverityOK {
				bad[f.ID] = f.Severity
			}
		}
		if !maps.Equal(bad, tt.want) {
			t.Errorf("%s: %v, want %v", name, bad, tt.want)
		}
	}
}

func TestSyncFinding(t *testing.T) {
	now := bought
	whole := func(ago time.Duration) SyncStatus {
		return SyncStatus{Every: 15 * time.Minute, Last: SyncReport{Began: now.Add(-ago - time.Second), Ended: now.Add(-ago)}}
	}
	with := func(s SyncStatus, change func(*SyncStatus)) SyncStatus { change(&s); return s }
	failed := func(s *SyncStatus) { s.Failures, s.Error = 2, errDown }
	running := func(s *SyncStatus) { s.Step, s.StepOf = "orders", [2]int{5, 10} }
	for name, tt := range map[string]struct {
		status SyncStatus
		want   Severity
		says   string
	}{
		"whole":                  {whole(10 * time.Minute), SeverityOK, "10 min ago"},
		"late":                   {whole(time.Hour), SeverityError, "60 min ago"},
		"late and under way":     {with(whole(time.Hour), running), SeverityOK, "60 min ago"},
		"failed since":           {with(whole(20*time.Minute), failed), SeverityWarning, errDown.Error()},
		"failed for long":        {with(whole(day), failed), SeverityError, "24 hours ago, and it has failed since"},
		"never":                  {SyncStatus{}, SeverityUnknown, "caddy polar sync"},
		"never, and failed":      {with(SyncStatus{}, failed), SeverityError, errDown.Error()},
		"the first is under way": {with(SyncStatus{}, running), SeverityUnknown, "step 5 of 10"},
		"off":                    {SyncStatus{Off: true}, SeverityWarning, "sync off"},
		"unreadable":             {with(whole(time.Minute), func(s *SyncStatus) { s.Last.Unreadable = 3 }), SeverityWarning, "3"},
	} {
		f := syncFinding(tt.status, true, now)
		if f.Severity != tt.want || !strings.Contains(f.What+f.Do, tt.says) || (f.Details["last"] == "") != tt.status.Last.Began.IsZero() {
			t.Errorf("%s: %+v", name, f)
		}
	}
}

func TestRateFinding(t *testing.T) {
	p := newPractice(t)
	p.g.heard.call(polar.Call{Status: http.StatusTooManyRequests}, p.g.local())
	for after, want := range map[time.Duration]Severity{time.Minute: SeverityWarning, 2 * time.Hour: SeverityOK} {
		p.g.local = func() time.Time { return p.box.Now().Add(after) }
		if f := p.g.rateFinding(); f.Severity != want || (f.Details["times"] == "1") != (want != SeverityOK) {
			t.Errorf("after %v: %+v", after, f)
		}
	}
}

// TestDoctorLeavesOthersAlone: of the endpoints that have no secret of ours, few are
// tried, and only those that could be a gateway's.
func TestDoctorLeavesOthersAlone(t *testing.T) {
	p := newPractice(t)
	p.must(p.box.DeleteEndpoint(p.endpoint.ID))
	var asked, others atomic.Int32
	address := p.serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1); r.URL.Path != WebhookPath {
			others.Add(1)
		}
		w.WriteHeader(http.StatusBadRequest)
	}))
	for range 2 * candidatesAtMost {
		p.add(box.Endpoint{URL: address + WebhookPath})
		p.add(box.Endpoint{URL: address + "/hook"})
	}
	bad, d := p.examine()
	if asked.Load() != candidatesAtMost || others.Load() > 0 {
		t.Errorf("%d were asked, of them %d other apps'", asked.Load(), others.Load())
	}
	if told := d.Findings[0].Details["others"]; bad[aboutWebhookEndpoint] != SeverityError || !strings.Contains(told, address+" (raw)") || strings.Contains(told, "/hook") {
		t.Errorf("%+v", d.Findings[0])
	}
	p.g.Doctor(t.Context(), func(context.Context) Surroundings { return p.around }, "/hook")
	if asked.Load() != 2*candidatesAtMost || others.Load() != candidatesAtMost {
		t.Errorf("of a site with another path: %d were asked in all, of them %d at it", asked.Load(), others.Load())
	}
}

func TestNotifyFinding(t *testing.T) {
	now := bought
	for name, tt := range map[string]struct {
		status NotifyStatus
		want   Severity
	}{
		"nothing waits":   {NotifyStatus{Known: true}, SeverityOK},
		"on its way":      {NotifyStatus{Known: true, Waiting: 3, Oldest: now.Add(-time.Minute)}, SeverityOK},
		"waits for long":  {NotifyStatus{Known: true, Waiting: 3, Oldest: now.Add(-time.Hour), Error: "the app answered 500"}, SeverityWarning},
		"given up":        {NotifyStatus{Known: true, GivenUp: 1}, SeverityError},
		"both":            {NotifyStatus{Known: true, GivenUp: 1, Waiting: 1, Oldest: now.Add(-time.Hour)}, SeverityError},
		"not read so far": {NotifyStatus{}, SeverityUnknown},
	} {
		tt.status.To = "http://app.test/hook"
		f := notifyFinding(&tt.status, now)
		if f.Severity != tt.want || f.Details["to"] == "" || (tt.status.Waiting > 0) != (f.Details["waiting"] != "") {
			t.Errorf("%s: %+v", name, f)
		}
	}
}

// TestDoctorTellsOfNotify: what waits is told from the outbox, and nothing is sent.
func TestDoctorTellsOfNotify(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		a := &app{answer: down}
		b := telling(t, a)
		defer b.g.Close()
		b.moves("ada", "active")
		for _, want := range []struct {
			after    time.Duration
			severity Severity
		}{{time.Minute, SeverityOK}, {time.Hour, SeverityWarning}, {2 * day, SeverityError}} {
			time.Sleep(want.after)
			synctest.Wait()
			a.mu.Lock()
			tries := a.tries
			a.mu.Unlock()
			got := b.g.notifyFindings()
			if len(got) != 1 || got[0].Severity != want.severity || want.severity == SeverityWarning && got[0].Details["error"] != errDown.Error() {
				t.Errorf("after %v: %+v", want.after, got)
			}
			synctest.Wait()
			if a.mu.Lock(); a.tries != tries {
				t.Error("something was sent")
			}
			a.mu.Unlock()
		}
	})
}

func TestExcerpt(t *testing.T) {
	g := &Gateway{secrets: []string{"short-secret"}}
	for text, want := range map[string]string{
		"":                                "",
		"Not\n\tFound\x1b[31m":            "Not Found [31m",
		"who is ada@example.com, please?": "who is …, please?",
		"the secret short-secret here":    "the secret … here",
		"polar_oat_x and whsec_abc":       "… and …",
		"token " + strings.Repeat("aB3", 20) + ".": "token ….",
		strings.Repeat("word ", 100):               strings.Repeat("word ", 32) + "…",
		"bad \xff\xfe utf-8":                       "bad utf-8",
	} {
		if got := g.excerpt(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

// TestPermits: only Polar's own words show that a scope is there.
func TestPermits(t *testing.T) {
	for name, tt := range map[string]struct {
		err        error
		may, known bool
	}{
		"a success":      {nil, true, true},
		"no scope":       {fmt.Errorf("x: %w", polar.ErrScope), false, true},
		"not found":      {&polar.APIError{Status: 404, Code: "ResourceNotFound"}, true, true},
		"bad input":      {&polar.APIError{Status: 422, Code: "RequestValidationError"}, true, true},
		"not permitted":  {&polar.APIError{Status: 403, Code: "NotPermitted"}, true, true},
		"a firewall":     {&polar.APIError{Status: 403}, true, false},
		"a wrong path":   {&polar.APIError{Status: 404}, true, false},
		"a bad token":    {&polar.APIError{Status: 401, Code: "invalid_token"}, true, false},
		"too much":       {&polar.APIError{Status: 429}, true, false},
		"Polar's fault":  {&polar.APIError{Status: 500, Code: "InternalServerError"}, true, false},
		"no answer":      {&polar.APIError{}, true, false},
		"something else": {errDown, true, false},
	} {
		if may, known := permits(tt.err); known != tt.known || known && may != tt.may {
			t.Errorf("%s: %v %v", name, may, known)
		}
	}
}

func TestLifeFinding(t *testing.T) {
	for at, want := range map[string]Severity{
		"2026-10-01T00:00:00Z": SeverityOK, "2027-03-01T00:00:00Z": SeverityOK,
		"2027-03-05T00:00:00Z": SeverityWarning, "2028-01-01T00:00:00Z": SeverityWarning,
	} {
		if f := lifeFinding("2026-10", mustTime(at)); f.Severity != want || f.Details["servedUntil"] != "2027-04-01" {
			t.Errorf("%s: %+v", at, f)
		}
	}
	if f := lifeFinding("", bought); f.Severity != SeverityOK {
		t.Error(f)
	}
}

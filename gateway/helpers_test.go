package gateway

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddy-polar/caddy-polar/cache"
	"github.com/caddy-polar/caddy-polar/entitlement"
)

// seeds is how many random stories are told: half as many under the race detector, which
// takes ten times as long for each.
func seeds(all uint64) uint64 {
	if raceDetector {
		return all / 2
	}
	return all
}

// proxyTo is a proxy to a server, with connections of its own: those of others can be to a
// server that had the same port.
func proxyTo(t testing.TB, address string) *httputil.ReverseProxy {
	t.Helper()
	to, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	transport := new(http.Transport)
	t.Cleanup(transport.CloseIdleConnections)
	proxy := httputil.NewSingleHostReverseProxy(to)
	proxy.Transport = transport
	return proxy
}

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	dataDir    = "../testdata/polar"
	testSecret = "my-own-secret-of-at-least-32-characters"
	testToken  = "polar_oat_test"
	server     = "https://api.polar.sh"

	ada      = "usr_7f3c1a9e"
	customer = "1509bb0a-9bf1-4331-8a11-8783593942a4"
	subID    = "627bf322-5fac-4cb6-a34a-cb115ee347dd"
	acme     = "47eaa099-2cb6-416d-86dc-283cf0480ff9" // the organization

	proProduct      = "59ba1b0d-5c90-4158-a909-406c2e416788"
	teamProduct     = "68b4aef7-3eaa-4e17-9d8a-4eace693ae2d"
	lifetimeProduct = "9a1e40b4-5815-4a99-99e2-d15364c7a500"
	seatProduct     = "5d32fe61-985f-44e7-aa09-5ee82bb29976"
	featureBenefit  = "6e704245-a4ff-41e3-a794-9b80dcb0b82e"
	licenceBenefit  = "de1b1471-320a-48ea-b7a7-88d106762832"

	day = 24 * time.Hour
)

var bought = mustTime("2026-10-03T14:21:07.318204Z") // when the samples begin

func mustTime(s string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		panic(err)
	}
	return t
}

func plans(change ...func(*entitlement.Grace)) []entitlement.Plan {
	grace := entitlement.DefaultGrace()
	for _, c := range change {
		c(&grace)
	}
	return []entitlement.Plan{
		{Name: "pro", Products: []string{proProduct}, Grace: grace},
		{Name: "team", Products: []string{teamProduct}, Grace: grace},
		{Name: "lifetime", Products: []string{lifetimeProduct}, Grace: grace},
		{Name: "seats", Products: []string{seatProduct}, Grace: grace},
		{Name: "feature", Benefits: []string{featureBenefit}, Grace: grace},
		{Name: "licence", Benefits: []string{licenceBenefit}, Grace: grace},
	}
}

// bench is a gateway on a store of its own, with a clock that stands still
// until it is moved.
type bench struct {
	t     testing.TB
	g     *Gateway
	store *cache.Store
	now   time.Time
	logs  *observer.ObservedLogs
	taken int
	seen  recollections
}

func newBench(t testing.TB, change ...func(*Config)) *bench {
	t.Helper()
	b := &bench{t: t, now: bought}
	core, logs := observer.New(zapcore.DebugLevel)
	b.logs = logs
	c := Config{
		Name: "default", Server: server, WebhookSecrets: []string{testSecret}, AccessToken: testToken,
		Plans: plans(), Logger: zap.New(core), Now: func() time.Time { return b.now },
		Syncing: Syncing{Off: true}, // nothing leaves this machine
	}
	for _, do := range change {
		do(&c)
	}
	if c.Store == nil {
		c.Store = cache.New(filepath.Join(t.TempDir(), "polar.db"))
		t.Cleanup(func() {
			if err := c.Store.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	b.store = c.Store
	g, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	b.g = g
	return b
}

func withStore(s *cache.Store) func(*Config) { return func(c *Config) { c.Store = s } }
func withToken(token string) func(*Config)   { return func(c *Config) { c.AccessToken = token } }

func withOrganization(id string) func(*Config)     { return func(c *Config) { c.Organization = id } }
func withPlans(p []entitlement.Plan) func(*Config) { return func(c *Config) { c.Plans = p } }

// openStore makes a store on a path, to be closed by the test or at its end.
func openStore(t testing.TB, path string) *cache.Store {
	s := cache.New(path)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func signed(id string, at time.Time, body []byte) http.Header {
	timestamp := strconv.FormatInt(at.Unix(), 10)
	mac := hmac.New(sha256.New, []byte(testSecret))
	fmt.Fprintf(mac, "%s.%s.", id, timestamp)
	mac.Write(body)
	h := http.Header{}
	h.Set("Webhook-Id", id)
	h.Set("Webhook-Timestamp", timestamp)
	h.Set("Webhook-Signature", "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	return h
}

func (b *bench) try(body []byte) (Receipt, error) {
	b.t.Helper()
	b.taken++
	d, err := b.g.ReadDelivery(signed(fmt.Sprintf("msg-%d", b.taken), b.now, body))
	if err != nil {
		b.t.Fatal(err)
	}
	return b.g.TakeWebhook(context.Background(), d, body)
}

// take delivers a body whose taking must not fail.
func (b *bench) take(body []byte) Receipt {
	b.t.Helper()
	r, err := b.try(body)
	if err != nil {
		b.t.Fatalf("take: %v", err)
	}
	return r
}

func (b *bench) takes(body []byte, want Result) Receipt {
	b.t.Helper()
	r := b.take(body)
	if r.Result != want {
		b.t.Errorf("result %s, want %s", r.Result, want)
	}
	return r
}

func (b *bench) account(user string) *entitlement.Account {
	b.t.Helper()
	a, err := b.g.Account(user)
	if err != nil {
		b.t.Fatal(err)
	}
	return a
}

func (b *bench) decide(user, plan string) entitlement.Decision {
	b.t.Helper()
	q, err := b.g.Rules().Require(plan)
	if err != nil {
		b.t.Fatal(err)
	}
	d := entitlement.Decide(b.account(user), q, b.g.Rules(), b.now)
	b.seen.agree(b.t, b.g, Visitor{User: user}, q, d)
	return d
}

func (b *bench) is(user, plan string, allowed bool, reason entitlement.Reason) {
	b.t.Helper()
	if d := b.decide(user, plan); d.Allowed != allowed || d.Reason != reason {
		b.t.Errorf("%s: %s on %s: %v %s, want %v %s", b.now.Format(time.RFC3339Nano), plan, user, d.Allowed, d.Reason, allowed, reason)
	}
}

func (b *bench) open(plan string, reason entitlement.Reason) {
	b.t.Helper()
	b.is(ada, plan, true, reason)
}

func (b *bench) closed(plan string, reason entitlement.Reason) {
	b.t.Helper()
	b.is(ada, plan, false, reason)
}

func (b *bench) owns(user, want string) {
	b.t.Helper()
	if got := b.account(user).OwnCustomer(); got != want {
		b.t.Errorf("own customer of %s is %q, want %q", user, got, want)
	}
}

// file is the store's two meta pages, one of which each commit writes: equal
// ones mean that nothing was committed.
func (b *bench) file() []byte {
	b.t.Helper()
	f, err := os.Open(b.store.Path())
	if err != nil {
		b.t.Fatal(err)
	}
	defer f.Close()
	pages := make([]byte, 2*os.Getpagesize())
	if _, err := io.ReadFull(f, pages); err != nil {
		b.t.Fatal(err)
	}
	return pages
}

// unchanged asserts that do commits nothing.
func (b *bench) unchanged(do func()) {
	b.t.Helper()
	if err := b.g.Start(); err != nil {
		b.t.Fatal(err)
	}
	before := b.file()
	do()
	if !bytes.Equal(before, b.file()) {
		b.t.Error("the store has changed")
	}
}

// object is some JSON, edited without knowing what it is.
type object = map[string]any

func sample(t testing.TB, name string) []byte {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(dataDir, name))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func event(t testing.TB, name string) object {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(sample(t, name)))
	d.UseNumber()
	var o object
	if err := d.Decode(&o); err != nil {
		t.Fatal(err)
	}
	return o
}

// gone is the value that takes a field away.
type gone struct{}

// set changes a field by its path. The field must be there, so that no edit
// misses what it means.
func set(t testing.TB, o object, path string, value any) {
	t.Helper()
	names := strings.Split(path, ".")
	for i, name := range names {
		old, there := o[name]
		if !there {
			t.Fatalf("no %s in %s", name, path)
		}
		if i < len(names)-1 {
			o = old.(object)
			continue
		}
		switch v := value.(type) {
		case gone:
			delete(o, name)
		case time.Time:
			o[name] = stamp(v)
		default:
			o[name] = v
		}
	}
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.999999Z") }

// edits are paths and values in turn.
func edited(t testing.TB, name string, edits ...any) []byte {
	t.Helper()
	o := event(t, name)
	edit(t, o, edits...)
	return body(t, o)
}

func edit(t testing.TB, o object, edits ...any) {
	t.Helper()
	for i := 0; i < len(edits); i += 2 {
		set(t, o, edits[i].(string), edits[i+1])
	}
}

func body(t testing.TB, o object) []byte {
	t.Helper()
	raw, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

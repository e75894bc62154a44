package gateway

import (
	"bytes"
	"encoding/base64"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/caddy-polar/caddy-polar/cache"
	"github.com/caddy-polar/caddy-polar/polar"
)

var oddUsers = []string{
	"usr_1", "ada@example.org", "a.b", "a b", "v1", ".", "..", "ümlaut", "用户", "🙂", `"quoted"`, "a/b?c#d", "a|b", "<b>", "%00",
	"\u00a0", "{http.request.host}", strings.Repeat("x", cache.MaxUser),
}

func TestMarkRoundTrip(t *testing.T) {
	key, other := []byte("a key"), []byte("another key")
	for _, user := range oddUsers {
		value := mark(key, user)
		if got := markedUser([][]byte{key}, value); got != user {
			t.Errorf("%q comes back as %q", user, got)
		}
		if got := markedUser([][]byte{other, key, other}, value); got != user {
			t.Errorf("%q among other keys comes back as %q", user, got)
		}
		if got := markedUser([][]byte{other}, value); got != "" {
			t.Errorf("another key gives %q", got)
		}
		if got := markedUser(nil, value); got != "" {
			t.Errorf("no key gives %q", got)
		}
		if len(value) > 500 {
			t.Errorf("%d characters, Polar takes 500", len(value))
		}
		if parts := strings.Split(value, "."); len(parts) != 3 || parts[0] != "v1" || parts[1] != base64.RawURLEncoding.EncodeToString([]byte(user)) {
			t.Errorf("value %q", value)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		key, user := rapid.SliceOfN(rapid.Byte(), 1, 40).Draw(t, "key"), rapid.String().Draw(t, "user")
		want := user
		if !cache.ValidUser(user) {
			want = ""
		}
		if got := markedUser([][]byte{key}, mark(key, user)); got != want {
			t.Fatalf("%q comes back as %q", user, got)
		}
	})
	for _, user := range []string{"", "a\x00b", "a\nb", "\x7f", "\xff", "\u0085", strings.Repeat("x", cache.MaxUser+1)} {
		if got := markedUser([][]byte{key}, mark(key, user)); got != "" {
			t.Errorf("%q is a user", got)
		}
	}
}

func TestForgedMarks(t *testing.T) {
	key := []byte("a key")
	good := mark(key, "ada")
	parts := strings.Split(good, ".")
	b64 := base64.RawURLEncoding.EncodeToString
	for _, value := range []string{
		"", "ada", ".", "..", "...", "v1", "v1.", "v1..", "v1.ada", "v1.ada.", good + ".", "." + good, good + "." + parts[2],
		parts[1] + "." + parts[2], "v1." + parts[1], "v1." + parts[1] + ".", "v2." + parts[1] + "." + parts[2], "V1." + parts[1] + "." + parts[2],
		"v1." + b64([]byte("eve")) + "." + parts[2], "v1." + parts[1] + "." + b64(make([]byte, 32)), "v1." + parts[1] + "=." + parts[2],
		"v1." + parts[1] + "." + parts[2] + "=", "v1." + parts[1] + "." + parts[2][:42], "v1." + parts[1] + "." + parts[2] + "A",
		"v1." + parts[1] + "." + b64(markMAC(key, parts[1])), "v1." + parts[1] + "." + b64(markMAC(nil, "v1."+parts[1])),
		"v1.***." + b64(markMAC(key, "v1.***")), "v1.a.b." + b64(markMAC(key, "v1.a.b")), "v2." + parts[1] + "." + b64(markMAC(key, "v2."+parts[1])),
		"v1.." + b64(markMAC(key, "v1.")), " " + good, strings.ToUpper(good),
	} {
		if got := markedUser([][]byte{key}, value); got != "" {
			t.Errorf("%q gives %q", value, got)
		}
	}
	for i := range good[:len(good)-1] { // the last character holds bits that mean nothing
		forged := []byte(good)
		forged[i] ^= 1
		if got := markedUser([][]byte{key}, string(forged)); got != "" {
			t.Errorf("byte %d may change: %q", i, got)
		}
	}
}

func TestMarkKey(t *testing.T) {
	if markKey("default", "") != nil {
		t.Error("a key that everybody knows")
	}
	a := markKey("default", "polar_oat_a")
	if len(a) != 32 || !bytes.Equal(a, markKey("default", "polar_oat_a")) {
		t.Error("not the same each time")
	}
	for _, other := range [][]byte{markKey("default", "polar_oat_b"), markKey("other", "polar_oat_a")} {
		if bytes.Equal(a, other) {
			t.Error("the same for another token or gateway")
		}
	}
}

func FuzzMarkedUser(f *testing.F) {
	key := []byte("a key")
	for _, user := range oddUsers {
		f.Add(mark(key, user), user)
	}
	f.Add("v1..", "")
	f.Add("v1.YQ.YQ", "a")
	f.Fuzz(func(t *testing.T, value, user string) {
		if got := markedUser([][]byte{[]byte("other"), key}, value); got != "" {
			ours := mark(key, got)
			i, j := strings.LastIndex(value, "."), strings.LastIndex(ours, ".")
			raw, err := base64.RawURLEncoding.DecodeString(value[i+1:])
			if want, _ := base64.RawURLEncoding.DecodeString(ours[j+1:]); value[:i] != ours[:j] || err != nil || !bytes.Equal(raw, want) || !cache.ValidUser(got) {
				t.Fatalf("%q gives %q", value, got)
			}
		}
		if got := markedUser([][]byte{key}, mark(key, user)); got != user && cache.ValidUser(user) {
			t.Fatalf("%q comes back as %q", user, got)
		}
	})
}

func marked(t testing.TB, value any) []byte {
	return edited(t, "subscription.active.json", "data.metadata", object{MarkField: value, "user_id": ada})
}

// takesMark says whose the purchase is by the mark: eve or nobody.
func (b *bench) takesMark(value string, authentic bool) {
	b.t.Helper()
	b.takes(marked(b.t, value), ResultApplied)
	if authentic {
		b.is("eve", "pro", true, "active")
		b.is(ada, "pro", false, "no_subscription")
		return
	}
	b.is("eve", "pro", false, "no_subscription")
	b.is(ada, "pro", true, "active")
}

func TestMarkGivesAccessButNoCustomer(t *testing.T) {
	// Eve bought, with Ada's e-mail address: access is Eve's, and the customer
	// is nobody's to show.
	b := newBench(t)
	b.takesMark(mark(markKey("default", testToken), "eve"), true)
	b.owns("eve", "")
	b.owns(ada, "")
	// Not even when Ada buys something herself.
	b.now = bought.Add(3 * day)
	b.takes(sample(t, "order.paid.one_time.json"), ResultApplied)
	b.open("lifetime", "purchased")
	b.is("eve", "lifetime", false, "plan_required")
	b.owns("eve", "")
	b.owns(ada, "")

	// An order's mark counts as well.
	b = newBench(t)
	b.now = bought.Add(3 * day)
	b.takes(edited(t, "order.paid.one_time.json", "data.metadata", object{MarkField: mark(markKey("default", testToken), "eve")}), ResultApplied)
	b.is("eve", "lifetime", true, "purchased")
	b.closed("lifetime", "no_subscription")
	b.owns(ada, "")

	// A mark of the customer's own user takes nothing away.
	b = newBench(t)
	b.takes(marked(t, mark(markKey("default", testToken), ada)), ResultApplied)
	b.open("pro", "active")
	b.owns(ada, customer)
}

func TestMerchantMetadataProvesNothing(t *testing.T) {
	for _, metadata := range []any{
		object{"user_id": "eve"},
		object{"external_id": "eve", "referenceId": "eve", "customer_external_id": "eve"},
		object{MarkField: "eve"},
		object{MarkField: object{"user": "eve"}},
		object{MarkField: []any{"eve"}},
		object{"Polar_Gateway": mark(markKey("default", testToken), "eve")},
		object{"polar_gateway ": mark(markKey("default", testToken), "eve")},
		object{MarkField: mark([]byte("eve's key"), "eve")},
		object{MarkField: mark([]byte(testSecret), "eve")},
		object{MarkField: mark([]byte(testToken), "eve")},
		object{MarkField: mark(nil, "eve")},
	} {
		b := newBench(t)
		b.takes(edited(t, "subscription.active.json", "data.metadata", metadata), ResultApplied)
		if b.account("eve").Known() {
			t.Errorf("%v proves something", metadata)
		}
		b.open("pro", "active")
		b.owns(ada, customer)
	}
	// Nor does a mark that stands elsewhere.
	mine := object{MarkField: mark(markKey("default", testToken), "eve")}
	b := newBench(t)
	b.now = bought.Add(3 * day)
	b.takes(edited(t, "subscription.active.json", "data.customer.metadata", mine, "data.product.metadata", mine, "data.custom_field_data", mine), ResultApplied)
	b.takes(edited(t, "customer.created.json", "data.metadata", mine), ResultApplied)
	b.take(edited(t, "checkout.updated.json", "data.metadata", mine))
	b.takes(edited(t, "order.paid.one_time.json", "data.customer.metadata", mine), ResultApplied)
	if b.account("eve").Known() {
		t.Error("a mark on something else proves something")
	}
}

func TestMarksOutliveTokensAndStores(t *testing.T) {
	path := filepath.Join(t.TempDir(), "polar.db")
	of := func(path, token string) (*bench, *cache.Store) {
		s := openStore(t, path)
		return newBench(t, withStore(s), withToken(token)), s
	}
	old, now := mark(markKey("default", "polar_oat_old"), "eve"), mark(markKey("default", "polar_oat_new"), "eve")

	b, s := of(path, "polar_oat_old")
	if err := b.g.Start(); err != nil {
		t.Fatal(err)
	}
	keys, err := s.Claim(b.g.owner)
	if err != nil {
		t.Fatal(err)
	}
	random := mark(keys.Random, "eve")
	b.takesMark(now, false) // not made yet
	_ = s.Close()

	// The token was rotated, more than once: the store knows its old keys.
	for _, token := range []string{"polar_oat_new", "polar_oat_newer", ""} {
		b, s = of(path, token)
		b.take(sample(t, "subscription.created.json")) // known
		for i, value := range []string{old, now, random} {
			b.taken += i
			raw := edited(t, "subscription.active.json", "data.id", token+"-sub-"+string(rune('a'+i)), "data.metadata", object{MarkField: value})
			b.takes(raw, ResultApplied)
		}
		if n := len(b.account("eve").Subscriptions); n == 0 || n%3 != 0 {
			t.Errorf("token %q: eve has %d", token, n)
		}
		_ = s.Close()
	}

	// The store was lost: the same token still knows its own marks, and no others.
	for _, tc := range []struct {
		token, value string
		want         bool
	}{{"polar_oat_new", now, true}, {"polar_oat_new", old, false}, {"polar_oat_new", random, false}, {"", now, false}} {
		b, s = of(filepath.Join(t.TempDir(), "polar.db"), tc.token)
		b.takesMark(tc.value, tc.want)
		_ = s.Close()
	}
	// Another gateway of the same token has other keys.
	b = newBench(t, func(c *Config) { c.Name, c.AccessToken = "other", "polar_oat_new" })
	b.takesMark(now, false)
}

func TestNew(t *testing.T) {
	store := openStore(t, filepath.Join(t.TempDir(), "polar.db"))
	for _, secrets := range [][]string{{""}, {testSecret, ""}} {
		g, err := New(Config{Store: store, WebhookSecrets: secrets})
		if g != nil || !errors.Is(err, polar.ErrNoSecret) || !strings.HasPrefix(err.Error(), "webhook_secret: ") || strings.Contains(err.Error(), testSecret) {
			t.Errorf("%v", err)
		}
	}
	g, err := New(Config{Name: "eu", Store: store, Plans: plans()})
	if err != nil {
		t.Fatal(err)
	}
	if g.Name() != "eu" || g.Rules().CanConfirm || len(g.Rules().Plans) != 6 || g.Now().IsZero() {
		t.Errorf("%+v", g)
	}
	if g, _ = New(Config{Store: store, AccessToken: testToken}); !g.Rules().CanConfirm {
		t.Error("has a token and cannot ask")
	}
	if _, err := filepath.Glob(store.Path()); err != nil {
		t.Error(err)
	}
	if found, _ := filepath.Glob(store.Path()); len(found) != 0 {
		t.Error("New opens the store")
	}
}

func TestStartRefusesAnothersStore(t *testing.T) {
	store := openStore(t, filepath.Join(t.TempDir(), "polar.db"))
	mine := newBench(t, withStore(store), withOrganization(acme))
	if err := mine.g.Start(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Config){
		"gateway":      func(c *Config) { c.Name = "other" },
		"server":       func(c *Config) { c.Server = "https://sandbox-api.polar.sh" },
		"organization": func(c *Config) { c.Organization = "other" },
	} {
		b := newBench(t, withStore(store), change)
		if err := b.g.Start(); !errors.Is(err, cache.ErrOtherOwner) || !strings.Contains(err.Error(), store.Path()) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := b.try(sample(t, "customer.created.json")); !errors.Is(err, cache.ErrOtherOwner) {
			t.Errorf("%s: takes a webhook: %v", name, err)
		}
		if _, err := b.g.Account(ada); !errors.Is(err, cache.ErrOtherOwner) {
			t.Errorf("%s: reads an account: %v", name, err)
		}
		if b.g.HashUser(ada) != "" {
			t.Errorf("%s: hashes", name)
		}
	}
}

func TestHashUser(t *testing.T) {
	path := filepath.Join(t.TempDir(), "polar.db")
	store := openStore(t, path)
	b := newBench(t, withStore(store))
	h := b.g.HashUser("ada@example.org")
	if len(h) != 16 || strings.Contains(h, "ada") || h == b.g.HashUser("ada@example.orf") {
		t.Errorf("hash %q", h)
	}
	_ = store.Close()
	again := newBench(t, withStore(openStore(t, path)), withToken("another"))
	if got := again.g.HashUser("ada@example.org"); got != h {
		t.Errorf("%q, was %q", got, h)
	}
	if newBench(t).g.HashUser("ada@example.org") == h {
		t.Error("another store has the same key")
	}
}

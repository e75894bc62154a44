package integration

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/golang-jwt/jwt/v5"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// keyring is all secrets of one age.
type keyring struct {
	webhook  []byte
	shared   []byte
	private  ed25519.PrivateKey
	verifier *standardwebhooks.Webhook
}

// makeKeyring makes secrets, puts them into the environment and files under a name, and
// returns them.
func makeKeyring(t *testing.T, s *shop, name string) *keyring {
	t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	notify := oldNotifySecret
	if name == "NEW" {
		notify = newNotifySecret
	}
	verifier, err := standardwebhooks.NewWebhook(notify)
	if err != nil {
		t.Fatal(err)
	}
	k := &keyring{[]byte("polar_whs_" + name + "_secret_of_the_webhooks_of_43_characters"), []byte(name + " secret of tokens, of more than thirty-two bytes"), private, verifier}
	s.env["WEBHOOK_"+name], s.env["SHARED_"+name], s.env["NOTIFY_"+name] = string(k.webhook), string(k.shared), notify
	s.env["PUBLIC_"+name] = s.write(t, name+".pem", string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})))
	s.env["TOKEN_"+name] = s.box.NewToken()
	return k
}

// ages is the configuration that accepts the secrets of some ages, the first of which
// is used where there is one.
func (s *shop) ages(site string, names ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "polar {\n\t\tserver {env.POLAR_SERVER}\n\t\tsync off\n\t\taccess_token {env.TOKEN_%s}\n\t\tnotify {env.NOTIFY_URL}", names[0])
	for _, name := range names {
		fmt.Fprintf(&b, " {env.NOTIFY_%s}", name)
	}
	b.WriteString("\n\t\twebhook_secret")
	for _, name := range names {
		fmt.Fprintf(&b, " {env.WEBHOOK_%s}", name)
	}
	for _, name := range names {
		fmt.Fprintf(&b, "\n\t\tjwt secret {env.SHARED_%s}\n\t\tjwt public_key {env.PUBLIC_%s}", name, name)
	}
	b.WriteString("\n\t\tplan pro {env.PRODUCT_PRO}\n\t}")
	return s.caddyfile(b.String(), site)
}

// TestRotation changes the webhook secret, both kinds of JWT keys, the access token and
// the secret of notify, to and fro, while webhooks come, visitors visit and buyers buy:
// nobody gets a wrong answer. That of jwks is TestJWKS.
func TestRotation(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	rings := map[string]*keyring{"OLD": makeKeyring(t, s, "OLD"), "NEW": makeKeyring(t, s, "NEW")}
	var using atomic.Pointer[keyring] // what Polar, the issuer and the app use now
	using.Store(rings["OLD"])

	var heard, forged atomic.Int64
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if using.Load().verifier.Verify(body, r.Header) != nil {
			forged.Add(1)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		heard.Add(1)
	}))
	t.Cleanup(app.Close)
	s.env["NOTIFY_URL"] = app.URL

	site := s.site(t, "app", `
		polar
		polar_require /pro/* pro
		reverse_proxy {upstream} {
			transport http {
				keepalive off # Caddy forgets kept connections at each reload
			}
		}`)
	s.start(t, s.ages(site, "OLD"))
	s.key = rings["OLD"].webhook
	paid := s.subscribe(t, "app", s.pro.ID)

	var wrong atomic.Pointer[string]
	// ask sends a request, again if a reload has broken the connection, and each time
	// with what is used then.
	ask := func(what, method, path string, status int, how func(*keyring) []option) {
		for tries := 0; ; tries++ {
			r, err := s.try(method, s.origin()+path, how(using.Load())...)
			switch {
			case err == nil && r.status != status:
				wrong.CompareAndSwap(nil, new(fmt.Sprintf("%s: %v", what, r)))
				return
			case err == nil:
				return
			case tries == 10:
				wrong.CompareAndSwap(nil, new(fmt.Sprintf("%s: %v", what, err)))
				return
			}
		}
	}
	hmac := func(k *keyring, user string) option {
		return bearer(sign(jwt.SigningMethodHS256, k.shared, claims(user, nil)))
	}
	rounds := make([]atomic.Int64, 4)
	works := []func(){
		func() {
			u := newSubscriber(s.pro.ID)
			body := u.active(t)
			ask("a webhook", http.MethodPost, webhookPath, http.StatusOK, func(k *keyring) []option { return []option{signed(k.webhook, body)} })
		},
		func() {
			ask("a token with a shared secret", http.MethodGet, "/pro/x", http.StatusOK, func(k *keyring) []option { return []option{hmac(k, paid.user)} })
		},
		func() {
			ask("a token with a private key", http.MethodGet, "/pro/x", http.StatusOK, func(k *keyring) []option {
				return []option{bearer(sign(jwt.SigningMethodEdDSA, k.private, claims(paid.user, nil)))}
			})
		},
		func() {
			buyer := "buyer_" + newID()
			ask("a checkout", http.MethodPost, "/auth/polar/checkout", http.StatusOK, func(k *keyring) []option {
				return []option{hmac(k, buyer), text(`{"plan":"pro"}`), header("Content-Type", "application/json")}
			})
		},
	}
	stop := make(chan struct{})
	var load sync.WaitGroup
	for i, work := range works {
		load.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					work()
					rounds[i].Add(1)
					pause()
				}
			}
		})
	}
	// Two rounds of each: what was under way before has ended then.
	settle := func() {
		t.Helper()
		before := make([]int64, len(rounds))
		for i := range rounds {
			before[i] = rounds[i].Load()
		}
		told := heard.Load()
		waitFor(t, "all to go on", func() bool {
			for i := range rounds {
				if rounds[i].Load() < before[i]+2 {
					return false
				}
			}
			return heard.Load() > told || forged.Load() > 0
		})
	}
	for _, step := range [][2]string{{"OLD", "NEW"}, {"NEW", "OLD"}, {"OLD", "NEW"}} {
		from, to := step[0], step[1]
		s.load(t, s.ages(site, to, from)).wants(t, http.StatusOK)
		settle()
		using.Store(rings[to])
		settle()
		s.load(t, s.ages(site, to)).wants(t, http.StatusOK)
		settle()
	}
	s.box.RevokeToken(s.env["TOKEN_OLD"])
	settle()
	close(stop)
	load.Wait()
	if said := wrong.Load(); said != nil {
		t.Error(*said)
	}
	if n := forged.Load(); n > 0 {
		t.Errorf("the app could not verify %d of %d messages", n, n+heard.Load())
	}
	// What is gone counts no more.
	s.send(t, http.MethodPost, s.origin()+webhookPath, signed(rings["OLD"].webhook, paid.active(t))).wants(t, http.StatusBadRequest)
	s.get(t, "app", "/pro/x", hmac(rings["OLD"], paid.user)).wants(t, http.StatusUnauthorized)
}

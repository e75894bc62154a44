package integration

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// The recipes of docs/logins.md are read from there and run as they are, but for the
// addresses that are asked. What signs or answers is made like the real ones.

const (
	logins  = "../docs/logins.md"
	tenLine = "jwt secret {env.JWT_SECRET}" // what a recipe stands in place of
	fence   = "```caddyfile\n"
)

// fenced are the Caddyfiles under a heading.
func fenced(t *testing.T, file, heading string) []string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(b), "\n## "+heading+"\n")
	if !found {
		t.Fatalf("%s has no section %q", file, heading)
	}
	section, _, _ = strings.Cut(section, "\n## ")
	var blocks []string
	for _, text := range strings.Split(section, fence)[1:] {
		block, _, closed := strings.Cut(text, "\n```")
		if !closed {
			t.Fatalf("%s: a block of %q has no end", file, heading)
		}
		blocks = append(blocks, block)
	}
	return blocks
}

var askedAddress = regexp.MustCompile(`(?m)^(\s*(?:jwks|session)\s+)https?://[^/\s]+`)

// asking is a recipe that asks a stand-in.
func asking(t *testing.T, standIn, recipe string) string {
	t.Helper()
	if !askedAddress.MatchString(recipe) {
		t.Fatalf("the recipe asks nobody:\n%s", recipe)
	}
	return askedAddress.ReplaceAllString(recipe, "${1}"+standIn)
}

// login is a server with the README's ten lines and a recipe in them, and somebody
// who has paid.
type login struct {
	*server
	payer string
}

// newLogin runs recipes. The user is one such as the product names them.
func newLogin(t *testing.T, user string, recipes ...string) *login {
	t.Helper()
	l := &login{newServer(t), user}
	l.env["POLAR_PRO_PRODUCT"], l.env["SUPABASE_JWT_SECRET"], l.env["SESSION_SECRET"] = productPro, jwtSecret, jwtSecret
	lines := fenced(t, "../README.md", "Ten lines")[0]
	if strings.Count(lines, tenLine) != 1 {
		t.Fatalf("the ten lines have no %q", tenLine)
	}
	lines = strings.Replace(lines, tenLine, strings.Join(recipes, "\n")+"\nlink email", 1)
	lines = strings.Replace(lines, "access_token {env.POLAR_ACCESS_TOKEN}", "", 1) // there is nobody to ask
	global, site, ok := strings.Cut(strings.TrimPrefix(lines, "{\n"), "\n}\napp.example.com {\n")
	if !ok {
		t.Fatalf("the ten lines have another form:\n%s", lines)
	}
	site = strings.Replace(strings.TrimSuffix(site, "\n}"), "localhost:3000", "{upstream}", 1)
	l.start(t, l.caddyfile(global+"\nservers {\ntrusted_proxies static 127.0.0.1/32\n}", l.site(t, "app", site)))
	l.pays(t, user, "payer@example.org")
	return l
}

// pays makes a customer with an active subscription; "" is who has bought as a guest.
func (l *login) pays(t *testing.T, user, email string) {
	t.Helper()
	u := newSubscriber(productPro)
	var event object
	if err := json.Unmarshal(u.active(t), &event); err != nil {
		t.Fatal(err)
	}
	customer := event["data"].(object)["customer"].(object)
	customer["email"], customer["external_id"] = email, user
	if user == "" {
		customer["external_id"] = nil
	}
	body, err := json.Marshal(event)
	if err != nil {
		t.Fatal(err)
	}
	l.deliver(t, "app", body)
}

// passes checks that this is the payer. The first time it waits for the keys.
func (l *login) passes(t *testing.T, o ...option) {
	t.Helper()
	waitFor(t, "the keys", func() bool { return l.get(t, "app", "/pro/x", o...).status != http.StatusServiceUnavailable })
	if got := l.get(t, "app", "/pro/x", o...).seen(t).ours(); got["user"] != l.payer || got["plan"] != "pro" {
		t.Errorf("the app is told %v", got)
	}
}

// pauper checks that this is somebody who has paid nothing.
func (l *login) pauper(t *testing.T, user string, o ...option) {
	t.Helper()
	l.get(t, "app", "/pro/x", o...).problem(t, http.StatusPaymentRequired, "no_subscription")
	wantUser(t, l.get(t, "app", whoami, o...), user)
}

// nobody checks that each of them is refused with a code, and not known to the app.
func (l *login) nobody(t *testing.T, code string, attempts map[string]option) {
	t.Helper()
	for name, o := range attempts {
		t.Run(name, func(t *testing.T) {
			l.get(t, "app", "/pro/x", o).problem(t, http.StatusUnauthorized, code)
			if got := l.get(t, "app", "/free", o).seen(t).ours(); len(got) != 0 {
				t.Errorf("the app is told %v", got)
			}
		})
	}
}

// proves checks whose e-mail is verified: a guest's purchase becomes theirs.
func (l *login) proves(t *testing.T, verified option, unproven map[string]option) {
	t.Helper()
	l.pays(t, "", guestEmail)
	for name, o := range unproven {
		t.Run(name, func(t *testing.T) {
			l.get(t, "app", "/pro/x", o).problem(t, http.StatusPaymentRequired, "no_subscription")
		})
	}
	if verified != nil {
		l.get(t, "app", "/pro/x", verified).wants(t, http.StatusOK)
	}
}

const guestEmail = "guest@example.org"

func cookies(pairs ...string) option { return header("Cookie", strings.Join(pairs, "; ")) }

// both are options of one request.
func both(a, b option) option {
	return func(r *http.Request) {
		a(r)
		b(r)
	}
}

// signer is a key of an issuer's.
type signer struct {
	kid    string
	method jwt.SigningMethod
	key    crypto.Signer
}

// mints makes a token. Changes are claims; nil takes one away.
func (k signer) mints(t *testing.T, base, changes object) option {
	t.Helper()
	c := jwt.MapClaims{}
	for _, set := range []object{base, changes} {
		for name, value := range set {
			if c[name] = value; value == nil {
				delete(c, name)
			}
		}
	}
	token := jwt.NewWithClaims(k.method, c)
	token.Header["kid"] = k.kid
	signed, err := token.SignedString(k.key)
	if err != nil {
		t.Fatal(err)
	}
	return bearer(signed)
}

// inCookie is the same token in a cookie.
func inCookie(name string, token option) option {
	r := &http.Request{Header: make(http.Header)}
	token(r)
	return cookies("theme=dark", name+"="+strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
}

// rsaKeys are made once: of an issuer, of a stranger, and for encryption.
var rsaKeys = sync.OnceValue(func() (keys [3]*rsa.PrivateKey) {
	for i := range keys {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			panic(err)
		}
		keys[i] = key
	}
	return keys
})

func rs256(kid string, n int) signer {
	return signer{kid, jwt.SigningMethodRS256, rsaKeys()[n]}
}

func es256(t *testing.T, kid string) signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return signer{kid, jwt.SigningMethodES256, key}
}

func eddsa(t *testing.T, kid string) signer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return signer{kid, jwt.SigningMethodEdDSA, key}
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// jwk is the public key with those other members that an issuer publishes.
func (k signer) jwk(t *testing.T, more object) object {
	t.Helper()
	j := object{"kid": k.kid}
	switch public := k.key.Public().(type) {
	case *rsa.PublicKey:
		j["kty"], j["n"], j["e"] = "RSA", b64(public.N.Bytes()), b64(big.NewInt(int64(public.E)).Bytes())
	case *ecdsa.PublicKey:
		point, err := public.Bytes() // 4, x, y
		if err != nil {
			t.Fatal(err)
		}
		j["kty"], j["crv"], j["x"], j["y"] = "EC", "P-256", b64(point[1:33]), b64(point[33:])
	case ed25519.PublicKey:
		j["kty"], j["crv"], j["x"] = "OKP", "Ed25519", b64(public)
	}
	for name, value := range more {
		j[name] = value
	}
	return j
}

// certified are the members that tell of the key's certificate.
func (k signer) certified(t *testing.T, more object) object {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "issuer"}, NotAfter: now.Add(3650 * day)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.key.Public(), k.key)
	if err != nil {
		t.Fatal(err)
	}
	s1, s256 := sha1.Sum(der), sha256.Sum256(der)
	more["x5c"], more["x5t"], more["x5t#S256"] = []string{base64.StdEncoding.EncodeToString(der)}, b64(s1[:]), b64(s256[:])
	return more
}

// publishes is an issuer's server, which has its keys at one path.
func publishes(t *testing.T, path string, keys ...object) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != path {
			t.Errorf("%s was asked for", r.URL.Path)
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(object{"keys": keys})
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// within are the times of a token that was just made.
func within(life time.Duration) object {
	at := time.Now().Add(-10 * time.Second)
	return object{"iat": at.Unix(), "exp": at.Add(life).Unix()}
}

// over are the times of one that has ended.
func over(life time.Duration) object {
	end := time.Now().Add(-31 * time.Second) // beyond the leeway
	return object{"iat": end.Add(-life).Unix(), "exp": end.Unix()}
}

// merged is an object with the members of several, of which the later ones win.
func merged(all ...object) object {
	m := object{}
	for _, o := range all {
		for name, value := range o {
			m[name] = value
		}
	}
	return m
}

func TestLoginClerk(t *testing.T) {
	t.Parallel()
	const payer, other = "user_2fZ8kq3cVbQw1nT0yR5mXe7LaPd", "user_2fZ9zz1aBcDeFgHiJkLmNoPqRsT"
	instance := rs256("ins_2c5wq4SL2Rjc7AyN9dFDbE0v1Ux", 0)
	standIn := publishes(t, "/.well-known/jwks.json", instance.jwk(t, object{"use": "sig", "alg": "RS256"}))
	recipe := asking(t, standIn, fenced(t, logins, "Clerk")[0])
	l := newLogin(t, payer, recipe)

	session := merged(within(time.Minute), object{
		"iss": "https://clerk.example.com", "sub": payer, "azp": "https://app.example.com", "sid": "sess_2fZ8kq9",
		"nbf": time.Now().Add(-20 * time.Second).Unix(), "jti": "0d6a", "fva": []int{7, -1}, "sts": "active", "v": 2, "pla": "u:free",
	})
	token := func(changes object) option { return instance.mints(t, session, changes) }
	l.passes(t, token(nil))
	l.passes(t, inCookie("__session", token(nil)))
	l.pauper(t, other, token(object{"sub": other}))
	l.passes(t, both(inCookie("__session", token(over(time.Minute))), token(nil))) // a fetch brings a fresh one
	l.nobody(t, "token_missing", map[string]option{
		"no token":              header("X", "y"),
		"another app's cookie":  cookies("__session_AbCdEfGh=x", "__client_uat=1700000000"),
		"a key of Clerk's, raw": header("Authorization", "sk_live_x"),
	})
	l.nobody(t, "token_expired", map[string]option{
		"a minute ago": token(over(time.Minute)), "an old cookie": inCookie("__session", token(over(time.Minute))),
	})
	l.nobody(t, "token_invalid", map[string]option{
		"another instance":              rs256("ins_2other", 1).mints(t, session, object{"iss": "https://clerk.other.com"}),
		"another instance, our name":    rs256("ins_2other", 1).mints(t, session, nil),
		"another instance, our key's":   rs256(instance.kid, 1).mints(t, session, nil),
		"our development instance":      token(object{"iss": "https://example.clerk.accounts.dev"}),
		"the issuer with a slash":       token(object{"iss": "https://clerk.example.com/"}),
		"a machine's opaque token":      bearer("mt_0123456789abcdef"),
		"a token that names nobody":     token(object{"sub": nil}),
		"a template with a list as sub": token(object{"sub": []string{payer}}),
	})
	edits := object{"sub": other, "unsafe_metadata": object{"sub": payer, "email": guestEmail, "email_verified": true}, "username": payer}
	l.pauper(t, other, token(edits))
	claimed := func(verified any) option {
		return token(object{"sub": other, "email": guestEmail, "email_verified": verified})
	}
	l.proves(t, claimed(true), map[string]option{
		"by default": token(object{"sub": other}), "edited": token(edits), "a string": claimed("true"),
		"the template, not filled in": claimed("{{user.email_verified}}"), "no": claimed(false), "one": claimed(1),
	})

	// With an audience, tokens for other services are out.
	strict := newLogin(t, payer, strings.Replace(recipe, "audience any", "audience app", 1))
	strict.passes(t, token(object{"aud": "app"}))
	strict.nobody(t, "token_invalid", map[string]option{
		"no audience": token(nil), "a template's": token(object{"aud": "convex"}),
	})
}

func TestLoginAuth0(t *testing.T) {
	t.Parallel()
	const payer, other = "auth0|65f0a1b2c3d4e5f60718293a", "google-oauth2|103547991597142817347"
	const client, tenant, space = "kq3cVbQw1nT0yR5mXe7LaPd8Zf2uHs4J", "https://example.eu.auth0.com/", "https://example.com/"
	current, next := rs256("x9Yk3lRz0bQ1cVn5", 0), rs256("nextNextNextNext", 2)
	standIn := publishes(t, "/.well-known/jwks.json",
		current.jwk(t, current.certified(t, object{"use": "sig", "alg": "RS256"})),
		next.jwk(t, next.certified(t, object{"use": "sig", "alg": "RS256"})))
	l := newLogin(t, payer, asking(t, standIn, fenced(t, logins, "Auth0")[0]))

	access := merged(within(day), object{
		"iss": tenant, "sub": payer, "azp": client, "scope": "openid profile email",
		"aud": []string{"https://api.example.com", tenant + "userinfo"},
	})
	token := func(changes object) option { return current.mints(t, access, changes) }
	l.passes(t, token(nil))
	l.passes(t, token(object{"aud": "https://api.example.com", "scope": nil}))
	l.passes(t, next.mints(t, access, nil))
	l.pauper(t, other, token(object{"sub": other}))
	l.pauper(t, client+"@clients", token(object{"sub": client + "@clients", "gty": "client-credentials", "aud": "https://api.example.com"}))
	id := object{
		"aud": client, "sid": "s", "nonce": "n", "name": "Ada", "nickname": "ada", "email": "payer@example.org", "email_verified": true,
		"picture": "https://s.gravatar.com/x", "updated_at": "2026-10-03T14:17:07.618Z", "azp": nil, "scope": nil,
	}
	l.nobody(t, "token_missing", map[string]option{"no token": header("X", "y"), "in a cookie": inCookie("token", token(nil))})
	l.nobody(t, "token_expired", map[string]option{"yesterday's": token(over(day))})
	l.nobody(t, "token_invalid", map[string]option{
		"an ID token":              token(id),
		"another API":              token(object{"aud": []string{"https://other.example.com", tenant + "userinfo"}}),
		"the management API":       token(object{"aud": tenant + "api/v2/"}),
		"an audience in a string":  token(object{"aud": "https://api.example.com " + tenant + "userinfo"}),
		"another tenant":           rs256("other", 1).mints(t, access, object{"iss": "https://other.eu.auth0.com/"}),
		"another tenant's key":     rs256(current.kid, 1).mints(t, access, nil),
		"the issuer without slash": token(object{"iss": strings.TrimSuffix(tenant, "/")}),
		"an opaque access token":   bearer("Yk3lRz0bQ1cVn5x9Yk3lRz0bQ1cVn5x9"),
		"an encrypted one":         bearer("eyJhbGciOiJkaXIiLCJlbmMiOiJBMjU2R0NNIn0..aaaa.bbbb.cccc"),
	})
	edits := object{"sub": other, "nickname": payer, space + "user_metadata": object{"email": guestEmail, "email_verified": true}, "email": guestEmail, "email_verified": true}
	l.pauper(t, other, token(edits))
	claimed := func(verified any) option {
		return token(object{"sub": other, space + "email": guestEmail, space + "email_verified": verified})
	}
	l.proves(t, claimed(true), map[string]option{
		"without an Action": token(object{"sub": other}), "edited": token(edits), "no": claimed(false), "a string": claimed("true"), "half an Action": claimed(nil),
	})
}

func TestLoginSupabase(t *testing.T) {
	t.Parallel()
	payer, other := newID(), newID()
	const project = "https://abcdefghijklmnopqrst.supabase.co/auth/v1"
	current := es256(t, "b1f4c2a0-8b1e-4f0e-9a34-5b1f6a2f9d01")
	standIn := publishes(t, "/auth/v1/.well-known/jwks.json",
		current.jwk(t, object{"use": "sig", "alg": "ES256", "ext": true, "key_ops": []string{"verify"}}))
	recipes := fenced(t, logins, "Supabase")
	recipes[0] = asking(t, standIn, recipes[0])

	access := merged(within(time.Hour), object{
		"iss": project, "sub": payer, "aud": "authenticated", "role": "authenticated", "aal": "aal1", "session_id": newID(),
		"email": "payer@example.org", "phone": "", "is_anonymous": false, "amr": []object{{"method": "password", "timestamp": 1}},
		"app_metadata":  object{"provider": "email", "providers": []string{"email"}},
		"user_metadata": object{"email": "payer@example.org", "email_verified": true, "phone_verified": false, "sub": payer},
	})
	modern := func(changes object) option { return current.mints(t, access, changes) }
	hs256 := func(c object) option {
		return bearer(sign(jwt.SigningMethodHS256, []byte(jwtSecret), jwt.MapClaims(c)))
	}
	legacy := func(changes object) option { return hs256(merged(access, changes)) }
	apiKey := func(role string) object {
		return object{"iss": "supabase", "ref": "abcdefghijklmnopqrst", "role": role, "iat": now.Add(-30 * day).Unix(), "exp": now.Add(3620 * day).Unix()}
	}
	someoneElse := object{
		"sub": other, "email": guestEmail, "role": "authenticated", "user_metadata": object{
			"sub": payer, "id": payer, "email": guestEmail, "email_verified": true, "role": "service_role",
		},
	}
	keys := map[string]option{
		"the anon key": hs256(apiKey("anon")), "the service key": hs256(apiKey("service_role")),
		"the anon key of new signing keys":    current.mints(t, apiKey("anon"), nil),
		"the service key of new signing keys": current.mints(t, apiKey("service_role"), nil),
		"the anon key with an audience":       hs256(merged(apiKey("anon"), object{"aud": "authenticated"})),
		"the service key as a user":           hs256(merged(apiKey("service_role"), object{"aud": "authenticated", "sub": payer})),
		"a publishable key":                   bearer("sb_publishable_0123456789abcdef_01234567"),
		"a secret key":                        bearer("sb_secret_0123456789abcdef_01234567"),
	}

	for name, run := range map[string]struct {
		recipes []string
		takes   []func(object) option
		not     option
	}{
		"signing keys":  {recipes[:1], []func(object) option{modern}, legacy(nil)},
		"legacy secret": {recipes[1:], []func(object) option{legacy}, modern(nil)},
		"both":          {recipes, []func(object) option{modern, legacy}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLogin(t, payer, run.recipes...)
			for _, token := range run.takes {
				l.passes(t, token(nil))
				l.pauper(t, other, token(someoneElse))
				l.pauper(t, other, token(merged(someoneElse, object{"is_anonymous": true, "email": ""})))
				l.nobody(t, "token_expired", map[string]option{"an hour ago": token(over(time.Hour))})
				l.nobody(t, "token_invalid", map[string]option{
					"another project":        token(object{"iss": "https://zzzzzzzzzzzzzzzzzzzz.supabase.co/auth/v1"}),
					"the audience of nobody": token(object{"aud": "anon"}),
					"an ID token":            token(object{"aud": newID(), "email_verified": true, "role": nil}),
				})
			}
			l.nobody(t, "token_invalid", keys)
			l.nobody(t, "token_invalid", map[string]option{
				"another project's key":    es256(t, current.kid).mints(t, access, nil),
				"another project's secret": bearer(sign(jwt.SigningMethodHS256, []byte(strings.Repeat("x", 40)), jwt.MapClaims(access))),
			})
			if run.not != nil {
				l.nobody(t, "token_invalid", map[string]option{"the other way to sign": run.not})
			}
			l.nobody(t, "token_missing", map[string]option{
				"its own cookie": cookies("sb-abcdefghijklmnopqrst-auth-token.0=base64-eyJhY2Nlc3NfdG9rZW4iOiJ4In0"),
				"only apikey":    header("apikey", "sb_publishable_x"),
			})
			l.proves(t, run.takes[0](merged(someoneElse, object{"email_verified": true})), map[string]option{
				"edited": run.takes[0](someoneElse), "a hook's string": run.takes[0](merged(someoneElse, object{"email_verified": "true"})),
			})
		})
	}

	// Even where neither issuer nor audience is asked for.
	bare := newLogin(t, payer, "jwt secret {env.SUPABASE_JWT_SECRET}")
	bare.nobody(t, "token_invalid", map[string]option{"the anon key": keys["the anon key"], "the service key": keys["the service key"]})
}

// asksApp is an app with a session endpoint at one address.
func asksApp(t *testing.T, address string, answers http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet || r.RequestURI != address {
			t.Errorf("%s %s was asked", r.Method, r.RequestURI)
		}
		if r.Header.Get("Authorization") != "" || strings.Contains(r.Header.Get("Cookie"), "theme") {
			t.Error("the app was told more than its cookie")
		}
		w.Header().Set("Content-Type", "application/json")
		answers(w, r)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func TestLoginBetterAuthSessions(t *testing.T) {
	t.Parallel()
	const payer, other = "iO8PZYiiwR6e0o9XDtqyAmUemv1Pc8tc", "aB3dE5fG7hJ9kL1mN3pQ5rS7tU9vW1xY"
	user := func(id, email string, verified any) object {
		return object{
			"id": id, "name": payer, "image": nil, "email": email, "emailVerified": verified, "userId": payer, // fields that users edit
			"createdAt": "2026-10-03T14:17:07.618Z", "updatedAt": "2026-10-03T14:17:07.618Z",
		}
	}
	signedIn := map[string]object{
		"tokenPayer": user(payer, "payer@example.org", true), "tokenOther": user(other, "other@example.org", true),
		"tokenGuest": user("guest", guestEmail, true), "tokenUnproven": user("u1", guestEmail, false), "tokenString": user("u2", guestEmail, "true"),
	}
	standIn := asksApp(t, "/api/auth/get-session?disableRefresh=true", func(w http.ResponseWriter, r *http.Request) {
		for _, c := range r.Cookies() {
			name := strings.TrimPrefix(c.Name, "__Secure-")
			if name != "better-auth.session_token" {
				t.Errorf("the app was asked with %s", c.Name)
			}
			// The token and its signature, as a component of an address.
			value, _ := url.QueryUnescape(c.Value)
			token, signature, _ := strings.Cut(value, ".")
			if u, ok := signedIn[token]; ok && signature == "c2ln+/c2ln=" {
				_ = json.NewEncoder(w).Encode(object{"user": u, "session": object{
					"id": "s", "userId": u["id"], "token": token, "expiresAt": "2999-01-01T00:00:00.000Z", "ipAddress": "", "userAgent": "x",
				}})
				return
			}
		}
		fmt.Fprint(w, "null")
	})
	l := newLogin(t, payer, asking(t, standIn, fenced(t, logins, "better-auth, sessions")[0]))
	cookie := func(token string) option {
		return cookies("theme=dark", "better-auth.session_token="+token+"."+url.QueryEscape("c2ln+/c2ln="))
	}
	secure := func(token string) option {
		return cookies("__Secure-better-auth.session_token=" + token + "." + url.QueryEscape("c2ln+/c2ln="))
	}
	for _, with := range []func(string) option{cookie, secure} {
		l.passes(t, with("tokenPayer"))
		l.pauper(t, other, with("tokenOther"))
		l.nobody(t, "token_missing", map[string]option{"ended": with("tokenGone")})
	}
	l.nobody(t, "token_missing", map[string]option{
		"no cookie": header("X", "y"), "signed out": cookies("theme=dark"), "only the copy": cookies("better-auth.session_data=eyJzZXNzaW9uIjp7fX0"),
		"the copy, and an ended session": cookies("better-auth.session_token=tokenGone.x", "better-auth.session_data=eyJzZXNzaW9uIjp7fX0"),
		"a bad signature":                cookies("better-auth.session_token=tokenPayer.x"),
		"a bearer of the session":        header("Authorization", "Bearer tokenPayer"),
	})
	l.proves(t, cookie("tokenGuest"), map[string]option{"not verified": cookie("tokenUnproven"), "a string": cookie("tokenString")})
}

func TestLoginBetterAuthJWT(t *testing.T) {
	t.Parallel()
	const payer, other, base = "iO8PZYiiwR6e0o9XDtqyAmUemv1Pc8tc", "aB3dE5fG7hJ9kL1mN3pQ5rS7tU9vW1xY", "https://app.example.com"
	current := eddsa(t, "c5c7995d-0037-4553-8aee-b5b620b89b23")
	recipe := fenced(t, logins, "better-auth, JWT plugin")[0]
	l := newLogin(t, payer, asking(t, publishes(t, "/api/auth/jwks", current.jwk(t, object{"alg": "EdDSA"})), recipe))

	whole := merged(within(15*time.Minute), object{
		"iss": base, "aud": base, "sub": payer, "id": payer, "name": "Ada", "image": nil, "email": "payer@example.org", "emailVerified": true,
		"createdAt": "2026-10-03T14:17:07.618Z", "updatedAt": "2026-10-03T14:17:07.618Z",
	})
	token := func(changes object) option { return current.mints(t, whole, changes) }
	l.passes(t, token(nil))
	edited := object{"sub": other, "id": other, "name": payer, "image": payer, "userId": payer, "email": guestEmail}
	l.pauper(t, other, token(edited))
	l.nobody(t, "token_missing", map[string]option{"no token": header("X", "y"), "the session's cookie": cookies("better-auth.session_token=x.y")})
	l.nobody(t, "token_expired", map[string]option{"a quarter of an hour ago": token(over(15 * time.Minute))})
	l.nobody(t, "token_invalid", map[string]option{
		"another app":           eddsa(t, "other").mints(t, whole, object{"iss": "https://other.example.com"}),
		"another app's key":     eddsa(t, current.kid).mints(t, whole, nil),
		"another audience":      token(object{"aud": "https://api.example.com"}),
		"another issuer":        token(object{"iss": base + "/api/auth"}),
		"the session's token":   bearer("tokenPayer.c2ln"),
		"the copy of a session": bearer(sign(jwt.SigningMethodHS256, []byte(jwtSecret), jwt.MapClaims(whole))),
	})
	l.proves(t, token(merged(edited, object{"email_verified": true})), map[string]option{
		"the database's name": token(edited), "a string": token(merged(edited, object{"email_verified": "true"})),
	})

	// Beside its sessions.
	sessions := asksApp(t, "/api/auth/get-session?disableRefresh=true", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"session":{},"user":{"id":%q}}`, payer)
	})
	issuer := publishes(t, "/api/auth/jwks", current.jwk(t, nil))
	l = newLogin(t, payer, asking(t, issuer, recipe), asking(t, sessions, fenced(t, logins, "better-auth, sessions")[0]))
	session := cookies("better-auth.session_token=x.y")
	l.passes(t, session)
	l.passes(t, token(nil))
	l.pauper(t, other, both(session, token(edited)))
	l.nobody(t, "token_expired", map[string]option{"an old token beside a session": both(session, token(over(15*time.Minute)))})
}

func TestLoginAuthJS(t *testing.T) {
	t.Parallel()
	const payer, other = "clx0a1b2c3d4e5f60718293a", "103547991597142817347"
	profile := func(more object) object {
		return merged(object{"name": payer, "email": "payer@example.org", "image": "https://example.org/x.png"}, more)
	}
	long := strings.Repeat("x", 200)
	signedIn := map[string]object{
		"payer" + long: profile(object{"id": payer}), "other" + long: profile(object{"id": other}), "nameless" + long: profile(nil),
		"null" + long:  profile(object{"id": nil}),
		"guest" + long: profile(object{"id": "g", "email": guestEmail}),
	}
	standIn := asksApp(t, "/api/auth/session", func(w http.ResponseWriter, r *http.Request) {
		name := "authjs.session-token"
		if r.Header.Get("X-Forwarded-Proto") == "https" {
			name = "__Secure-authjs.session-token"
		}
		value := ""
		if c, err := r.Cookie(name); err == nil {
			value = c.Value
		}
		for n := range 3 { // what is long is split
			if c, err := r.Cookie(fmt.Sprint(name, ".", n)); err == nil {
				value += c.Value
			}
		}
		u, ok := signedIn[value]
		if !ok {
			fmt.Fprint(w, "null")
			return
		}
		http.SetCookie(w, &http.Cookie{Name: name, Value: "extended", HttpOnly: true, Path: "/"}) // each time
		_ = json.NewEncoder(w).Encode(object{"user": u, "expires": "2999-01-01T00:00:00.000Z"})
	})
	l := newLogin(t, payer, asking(t, standIn, fenced(t, logins, "Auth.js")[0]))
	whole := func(who string) option { return cookies("theme=dark", "authjs.session-token="+who+long) }
	split := func(who string) option {
		return cookies("authjs.csrf-token=x", "authjs.session-token.0="+who+long[:100], "authjs.session-token.1="+long[100:])
	}
	tls := header("X-Forwarded-Proto", "https")
	secure := func(who string) option { return both(tls, cookies("__Secure-authjs.session-token="+who+long)) }
	for _, with := range []func(string) option{whole, split, secure} {
		l.passes(t, with("payer"))
		l.pauper(t, other, with("other"))
		if r := l.get(t, "app", "/pro/x", with("payer")); r.header.Get("Set-Cookie") != "" {
			t.Error("the visitor gets what the app has set")
		}
		l.nobody(t, "token_missing", map[string]option{
			"ended": with("gone"), "a session without an id": with("nameless"), "an id that is null": with("null"),
		})
	}
	l.nobody(t, "token_missing", map[string]option{
		"no cookie": header("X", "y"), "other cookies": cookies("authjs.csrf-token=x", "authjs.callback-url=y"),
		"a cookie of HTTPS, without": cookies("__Secure-authjs.session-token=payer" + long),
	})
	l.proves(t, nil, map[string]option{"an e-mail of whoever": whole("guest")})
	if !strings.Contains(l.logs(), "check user_path") {
		t.Error("the log does not tell of sessions without an id")
	}
}

func TestLoginKeycloak(t *testing.T) {
	t.Parallel()
	payer, other := newID(), newID()
	const realm = "https://id.example.com/realms/shop"
	current := rs256("Pk8hQq0sS3cVbQw1nT0yR5mXe7LaPd8Zf2uHs4JkL0o", 0)
	forSecrets := rs256("7yR5mXe7LaPd8Zf2uHs4JkL0oPk8hQq0sS3cVbQw1nT", 2)
	plain := signer{"older", jwt.SigningMethodRS256, forSecrets.key} // of a version that did not say for which algorithm
	standIn := publishes(t, "/realms/shop/protocol/openid-connect/certs",
		plain.jwk(t, object{"use": "enc"}),
		forSecrets.jwk(t, forSecrets.certified(t, object{"use": "enc", "alg": "RSA-OAEP"})),
		current.jwk(t, current.certified(t, object{"use": "sig", "alg": "RS256"})))
	l := newLogin(t, payer, asking(t, standIn, fenced(t, logins, "Keycloak")[0]))

	access := merged(within(5*time.Minute), object{
		"jti": "onrtac:" + newID(), "iss": realm, "aud": []string{"shop-api", "account"}, "sub": payer, "typ": "Bearer", "azp": "web", "sid": newID(),
		"acr": "1", "allowed-origins": []string{"https://app.example.com"}, "scope": "openid email profile",
		"realm_access":    object{"roles": []string{"offline_access", "uma_authorization"}},
		"resource_access": object{"account": object{"roles": []string{"manage-account"}}},
		"name":            "Ada Martin", "preferred_username": "ada", "given_name": "Ada", "email": "payer@example.org", "email_verified": true,
	})
	token := func(changes object) option { return current.mints(t, access, changes) }
	l.passes(t, token(nil))
	l.passes(t, token(object{"aud": "shop-api"}))
	edited := object{"sub": other, "preferred_username": payer, "name": payer, "given_name": payer, "email": "other@example.org"}
	l.pauper(t, other, token(edited))
	l.nobody(t, "token_missing", map[string]option{"no token": header("X", "y"), "its own cookie": cookies("KEYCLOAK_IDENTITY=x")})
	l.nobody(t, "token_expired", map[string]option{"five minutes ago": token(over(5 * time.Minute))})
	l.nobody(t, "token_invalid", map[string]option{
		"an ID token":              token(object{"typ": "ID", "aud": "web", "at_hash": "x"}),
		"another client's":         token(object{"aud": "account", "azp": "other"}),
		"a token without audience": token(object{"aud": nil}),
		"another realm":            token(object{"iss": "https://id.example.com/realms/master"}),
		"another realm's key":      rs256(current.kid, 1).mints(t, access, nil),
		"the key for encryption":   forSecrets.mints(t, access, nil),
		"that of older versions":   plain.mints(t, access, nil),
		"that under another id":    rs256(current.kid, 2).mints(t, access, nil),
		"no basic scope, no sub":   token(object{"sub": nil}),
		"a refresh token":          bearer(sign(jwt.SigningMethodHS512, []byte(strings.Repeat("k", 64)), jwt.MapClaims(merged(access, object{"typ": "Refresh", "aud": realm})))),
	})
	claimed := func(verified any) option {
		return token(merged(edited, object{"email": guestEmail, "email_verified": verified}))
	}
	l.proves(t, claimed(true), map[string]option{"not verified": claimed(false), "a mapper's string": claimed("true"), "without the scope": claimed(nil)})
}

func TestLoginKavachOS(t *testing.T) {
	t.Parallel()
	payer, other := newID(), newID()
	recipes := fenced(t, logins, "KavachOS")
	hs256 := func(c object) option {
		return bearer(sign(jwt.SigningMethodHS256, []byte(jwtSecret), jwt.MapClaims(c)))
	}
	// The cookie's token is signed like the others, and names the session.
	sessionCookie := merged(within(7*day), object{"sub": payer})

	t.Run("provider", func(t *testing.T) {
		t.Parallel()
		const issuer, client = "https://auth.example.com", "3f9c0a1b7d5e4862a0c1d2e3f4051627"
		current := rs256("kavach-oidc-1", 0)
		l := newLogin(t, payer, asking(t, publishes(t, "/.well-known/jwks.json", current.jwk(t, object{"alg": "RS256", "use": "sig"})), recipes[0]))
		access := merged(within(time.Hour), object{
			"iss": issuer, "sub": payer, "aud": client, "jti": newID(), "scope": "openid profile email", "client_id": client,
		})
		token := func(changes object) option { return current.mints(t, access, changes) }
		l.passes(t, token(nil))
		l.pauper(t, other, token(object{"sub": other}))
		id := object{"jti": nil, "scope": nil, "client_id": nil, "azp": client, "at_hash": "x", "name": payer, "email": guestEmail, "emailVerified": true}
		l.passes(t, token(id))
		l.pauper(t, other, token(merged(id, object{"sub": other})))
		l.nobody(t, "token_missing", map[string]option{"no token": header("X", "y")})
		l.nobody(t, "token_expired", map[string]option{"an hour ago": token(over(time.Hour))})
		l.nobody(t, "token_invalid", map[string]option{
			// Everybody's key has this id.
			"another provider": rs256("kavach-oidc-1", 1).mints(t, access, nil),
			"another client":   token(object{"aud": strings.Repeat("0", 32)}),
			"another issuer":   token(object{"iss": "https://auth.other.com"}),
			"an agent":         bearer("kv_0123456789abcdef"),
			"a session":        hs256(sessionCookie),
		})
		l.proves(t, nil, map[string]option{"the ID token's name": token(merged(id, object{"sub": other}))})
	})

	t.Run("JWT sessions", func(t *testing.T) {
		t.Parallel()
		l := newLogin(t, payer, recipes[1])
		access := merged(within(15*time.Minute), object{
			"iss": "https://app.example.com", "aud": "app", "sub": payer, "email": "payer@example.org", "name": "Ada",
		})
		l.passes(t, hs256(access))
		refreshed := merged(access)
		delete(refreshed, "email")
		delete(refreshed, "name")
		l.passes(t, hs256(refreshed))
		edited := merged(access, object{"sub": other, "name": payer, "email": guestEmail})
		l.pauper(t, other, hs256(edited))
		l.nobody(t, "token_expired", map[string]option{"a quarter of an hour ago": hs256(merged(access, over(15*time.Minute)))})
		l.nobody(t, "token_invalid", map[string]option{
			"a session's cookie":   hs256(sessionCookie),
			"a refresh token":      bearer(strings.Repeat("0a", 32)),
			"another audience":     hs256(merged(access, object{"aud": "other"})),
			"another app":          hs256(merged(access, object{"iss": "https://other.example.com"})),
			"another app's secret": bearer(sign(jwt.SigningMethodHS256, []byte(strings.Repeat("x", 40)), jwt.MapClaims(access))),
		})
		l.nobody(t, "token_missing", map[string]option{"no token": header("X", "y"), "the cookie": inCookie("kavach_session", hs256(sessionCookie))})
		l.proves(t, nil, map[string]option{"an e-mail": hs256(edited)})
	})

	t.Run("cookie sessions", func(t *testing.T) {
		t.Parallel()
		sessions := map[string]string{"session-1": payer, "session-2": other}
		standIn := asksApp(t, "/api/session", func(w http.ResponseWriter, r *http.Request) {
			c, err := r.Cookie("kavach_session")
			if err != nil {
				t.Error("no cookie")
				return
			}
			named := jwt.MapClaims{}
			_, err = jwt.ParseWithClaims(c.Value, named, func(*jwt.Token) (any, error) { return []byte(jwtSecret), nil })
			id, _ := named["sub"].(string)
			if user := sessions[id]; err == nil && user != "" {
				_ = json.NewEncoder(w).Encode(object{
					"id": id, "userId": user, "expiresAt": "2999-01-01T00:00:00.000Z", "createdAt": "2026-10-03T14:17:07.618Z",
					"metadata": object{"custom": object{"userId": payer, "email": guestEmail}},
				})
				return
			}
			fmt.Fprint(w, "null")
		})
		l := newLogin(t, payer, asking(t, standIn, recipes[2]))
		cookie := func(id string) option {
			return inCookie("kavach_session", hs256(merged(within(7*day), object{"sub": id})))
		}
		l.passes(t, cookie("session-1"))
		l.pauper(t, other, cookie("session-2"))
		l.nobody(t, "token_missing", map[string]option{
			"no cookie": header("X", "y"), "revoked": cookie("session-3"), "a user for a session": cookie(payer),
			"an old cookie": inCookie("kavach_session", hs256(merged(over(7*day), object{"sub": "session-1"}))),
			"an agent":      bearer("kv_0123456789abcdef"),
		})
	})
}

func TestLoginOwnTokens(t *testing.T) {
	t.Parallel()
	const payer, other = "42", "43"
	l := newLogin(t, payer, fenced(t, logins, "Tokens of your own")[0])
	own := merged(within(time.Hour), object{"iss": "https://app.example.com", "aud": "app", "sub": payer})
	token := func(changes object) option {
		return bearer(sign(jwt.SigningMethodHS256, []byte(jwtSecret), jwt.MapClaims(merged(own, changes))))
	}
	l.passes(t, token(nil))
	l.passes(t, inCookie("token", token(nil)))
	l.passes(t, token(object{"sub": 42}))
	l.pauper(t, other, token(object{"sub": other, "name": payer, "user_id": payer}))
	l.nobody(t, "token_missing", map[string]option{"no token": header("X", "y")})
	l.nobody(t, "token_expired", map[string]option{"an hour ago": token(over(time.Hour)), "an old cookie": inCookie("token", token(over(time.Hour)))})
	endless := merged(own)
	delete(endless, "exp")
	l.nobody(t, "token_invalid", map[string]option{
		"another secret":     bearer(sign(jwt.SigningMethodHS256, []byte(strings.Repeat("x", 40)), jwt.MapClaims(own))),
		"a link's":           token(object{"aud": "password-reset"}),
		"another app's":      token(object{"iss": "https://other.example.com"}),
		"one without end":    bearer(sign(jwt.SigningMethodHS256, []byte(jwtSecret), jwt.MapClaims(endless))),
		"one without a name": token(object{"sub": ""}),
		"one nobody signed":  bearer(segment(object{"alg": "none", "typ": "JWT"}) + "." + segment(own) + "."),
		"a public key's":     rs256("k", 0).mints(t, own, nil),
	})
	claimed := func(verified any) option {
		return token(object{"sub": other, "email": guestEmail, "email_verified": verified})
	}
	l.proves(t, claimed(true), map[string]option{"no": claimed(false), "a string": claimed("true"), "one": claimed(1), "nothing": claimed(nil)})
}

func TestLoginOrganizations(t *testing.T) {
	t.Parallel()
	const user, payer, other = "user_2fZ8kq3cVbQw1nT0yR5mXe7LaPd", "org_2fZ8kqAcme", "org_2fZ8kqUmbrella"
	key := rs256("k", 0)
	for i, c := range []struct {
		path, issuer string
		claims       func(organization, role string) object
	}{
		{"/.well-known/jwks.json", "https://clerk.example.com", func(o, role string) object {
			return object{"v": 2, "o": object{"id": o, "slg": payer, "rol": role, "per": "read"}}
		}},
		{"/sso/jwks/client_01HXYZ0123456789ABCDEFGHJK", "https://api.workos.com", func(o, role string) object {
			return object{"org_id": o, "role": role, "roles": []string{role}, "permissions": []string{"admin"}}
		}},
	} {
		t.Run(c.issuer, func(t *testing.T) {
			t.Parallel()
			standIn := publishes(t, c.path, key.jwk(t, object{"use": "sig", "alg": "RS256"}))
			l := newLogin(t, payer, asking(t, standIn, fenced(t, logins, "Organizations")[i]))
			base := merged(within(time.Minute), object{"iss": c.issuer, "sub": user})
			token := func(o, role string) option { return key.mints(t, base, c.claims(o, role)) }
			waitFor(t, "the keys", func() bool {
				return l.get(t, "app", "/pro/x", token(payer, "member")).status != http.StatusServiceUnavailable
			})
			got := l.get(t, "app", "/pro/x", token(payer, "member")).seen(t).ours()
			if got["user"] != user || got["external-customer"] != payer {
				t.Errorf("the app is told %v", got)
			}
			l.pauper(t, user, token(other, "admin"))
			l.pauper(t, user, key.mints(t, base, nil))
			l.pauper(t, user, key.mints(t, merged(base, object{"sub": user, "slug": payer}), nil))
			const portal = "/auth/polar/portal"
			l.get(t, "app", portal, token(payer, "member")).problem(t, http.StatusForbidden, "not_manager")
			l.get(t, "app", portal, key.mints(t, base, nil)).problem(t, http.StatusForbidden, "not_manager")
			l.get(t, "app", portal, token(payer, "admin")).problem(t, http.StatusServiceUnavailable, "not_configured")
		})
	}
}

// TestEachLoginIsRun: there is no recipe in docs/logins.md that no test runs.
func TestEachLoginIsRun(t *testing.T) {
	t.Parallel()
	doc, err := os.ReadFile(logins)
	if err != nil {
		t.Fatal(err)
	}
	run := 0
	for heading, blocks := range map[string]int{
		"Clerk": 1, "Auth0": 1, "Supabase": 2, "better-auth, sessions": 1, "better-auth, JWT plugin": 1,
		"Auth.js": 1, "Keycloak": 1, "KavachOS": 3, "Organizations": 2, "Tokens of your own": 1,
	} {
		run += blocks
		if got := len(fenced(t, logins, heading)); got != blocks {
			t.Errorf("%s has %d recipes, of which %d are run", heading, got, blocks)
		}
	}
	if all := strings.Count(string(doc), fence); all != run {
		t.Errorf("there are %d recipes, of which %d are run", all, run)
	}
}

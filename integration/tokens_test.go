package integration

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// issuer is a key pair, its public half in a file, and what it can sign with.
type issuer struct {
	name    string
	private any
	public  []byte // PEM
	methods []jwt.SigningMethod
}

func issuers(t *testing.T) []issuer {
	t.Helper()
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ec := func(curve elliptic.Curve) *ecdsa.PrivateKey {
		key, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	list := []issuer{
		{name: "RSA", private: rsaKey, methods: []jwt.SigningMethod{
			jwt.SigningMethodRS256, jwt.SigningMethodRS384, jwt.SigningMethodRS512,
			jwt.SigningMethodPS256, jwt.SigningMethodPS384, jwt.SigningMethodPS512,
		}},
		{name: "P256", private: ec(elliptic.P256()), methods: []jwt.SigningMethod{jwt.SigningMethodES256}},
		{name: "P384", private: ec(elliptic.P384()), methods: []jwt.SigningMethod{jwt.SigningMethodES384}},
		{name: "P521", private: ec(elliptic.P521()), methods: []jwt.SigningMethod{jwt.SigningMethodES512}},
		{name: "Ed25519", private: edKey, methods: []jwt.SigningMethod{jwt.SigningMethodEdDSA}},
	}
	for i := range list {
		der, err := x509.MarshalPKIXPublicKey(list[i].private.(crypto.Signer).Public())
		if err != nil {
			t.Fatal(err)
		}
		list[i].public = pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	}
	return list
}

const whoami = "/auth/polar/entitlements"

// wantUser checks that the request is that of the user.
func wantUser(t *testing.T, r *reply, user string) {
	t.Helper()
	if got := r.wants(t, http.StatusOK).json(t)["user"]; got != user {
		t.Errorf("the user is %v, want %s", got, user)
	}
}

func TestTokens(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	keys := issuers(t)
	rsaIssuer := keys[0]
	var blocks strings.Builder
	for _, k := range keys {
		s.env["PEM_"+k.name] = string(k.public)
		fmt.Fprintf(&blocks, "jwt public_key %s\n", s.write(t, k.name+".pem", string(k.public)))
	}
	gateway := func(name, body string) string {
		return fmt.Sprintf("polar %s {\n%s\nplan pro {env.PRODUCT_PRO}\n}\n", name, body)
	}
	site := func(name string) string {
		return s.site(t, name, "polar "+name+"\npolar_require /pro/* pro\nreverse_proxy {upstream}")
	}
	s.start(t, s.caddyfile(
		// Caddy's own limit, of 16 KB for all headers, would hide ours.
		"servers {\nmax_header_size 128KB\n}\n"+
			gateway("all", "jwt secret {env.JWT_SECRET}\n"+blocks.String())+
			gateway("pem", "jwt public_key {env.PEM_RSA}")+
			gateway("narrow", "jwt {\nsecret {env.JWT_SECRET}\nalgorithms HS512\n}")+
			gateway("strict", "jwt {\nsecret {env.JWT_SECRET}\nissuer https://id.example https://other.example\naudience app\n}")+
			gateway("sources", "jwt {\nsecret {env.JWT_SECRET}\nfrom header X-Token\nfrom cookie session\nfrom header Authorization\n}")+
			gateway("named", "jwt {\nsecret {env.JWT_SECRET}\nuser_claim app.user.id\nuser_prefix acme:\nstrip_token\nleeway 0s\n}"),
		site("all"), site("pem"), site("narrow"), site("strict"), site("sources"), site("named")))

	hs := []jwt.SigningMethod{jwt.SigningMethodHS256, jwt.SigningMethodHS384, jwt.SigningMethodHS512}

	t.Run("every algorithm", func(t *testing.T) {
		all := append([]issuer{{name: "HMAC", private: []byte(jwtSecret), methods: hs}}, keys...)
		for _, k := range all {
			for _, m := range k.methods {
				user := "user of " + m.Alg()
				token := sign(m, k.private, claims(user, nil))
				for range 2 { // the second time it is remembered
					wantUser(t, s.get(t, "all", whoami, bearer(token)), user)
				}
				s.get(t, "all", "/pro/x", bearer(token)).problem(t, 402, "no_subscription")
				// One bit of the signature, and one of the claims.
				s.get(t, "all", "/pro/x", bearer(flip(token, 2))).problem(t, 401, "token_invalid")
				s.get(t, "all", "/pro/x", bearer(flip(token, 1))).problem(t, 401, "token_invalid")
				onlyRSA := k.name == "RSA"
				if r := s.get(t, "pem", whoami, bearer(token)); (r.status == 200) != onlyRSA {
					t.Errorf("%s before a gateway that knows an RSA key: %v", m.Alg(), r)
				}
			}
		}
	})

	t.Run("narrowed algorithms", func(t *testing.T) {
		for _, m := range hs {
			want := map[bool]int{true: 200, false: 401}[m.Alg() == "HS512"]
			s.get(t, "narrow", whoami, bearer(sign(m, []byte(jwtSecret), claims("u", nil)))).wants(t, want)
		}
	})

	t.Run("issuer and audience", func(t *testing.T) {
		for _, c := range []struct {
			claims object
			ok     bool
		}{
			{object{"iss": "https://id.example", "aud": "app"}, true},
			{object{"iss": "https://other.example", "aud": []string{"another", "app"}}, true},
			{object{"iss": "https://evil.example", "aud": "app"}, false},
			{object{"iss": "https://id.example/", "aud": "app"}, false},
			{object{"iss": []string{"https://id.example"}, "aud": "app"}, false},
			{object{"iss": "https://id.example", "aud": "another"}, false},
			{object{"iss": "https://id.example", "aud": []string{}}, false},
			{object{"iss": "https://id.example"}, false},
			{object{"aud": "app"}, false},
			{nil, false},
		} {
			token := sign(jwt.SigningMethodHS256, []byte(jwtSecret), claims("u", c.claims))
			r := s.get(t, "strict", "/pro/x", bearer(token))
			if c.ok {
				r.problem(t, 402, "no_subscription")
			} else {
				r.problem(t, 401, "token_invalid")
			}
		}
	})

	t.Run("sources", func(t *testing.T) {
		cookie := func(value string) option { return header("Cookie", "theme=dark; session="+value+"; lang=fr") }
		a, b, bad := userToken("a"), userToken("b"), "no.good.token"
		wantUser(t, s.get(t, "sources", whoami, header("X-Token", a)), "a")
		wantUser(t, s.get(t, "sources", whoami, cookie(a)), "a")
		wantUser(t, s.get(t, "sources", whoami, bearer(a)), "a")
		wantUser(t, s.get(t, "sources", whoami, header("X-Token", a), cookie(b)), "a")
		wantUser(t, s.get(t, "sources", whoami, cookie(a), bearer(b)), "a")
		// The first source that holds a token decides, also if it is bad.
		s.get(t, "sources", "/pro/x", header("X-Token", bad), cookie(a)).problem(t, 401, "token_invalid")
		s.get(t, "sources", "/pro/x", cookie(bad), bearer(a)).problem(t, 401, "token_invalid")
		// Another scheme speaks to somebody else.
		wantUser(t, s.get(t, "sources", whoami, header("Authorization", "Basic dTpw"), cookie(a)), "a")
		s.get(t, "sources", "/pro/x", header("Authorization", "Basic dTpw")).problem(t, 401, "token_missing")
		s.get(t, "sources", "/pro/x", header("X-Token", a, b)).problem(t, 401, "token_invalid")
		r := s.get(t, "sources", "/pro/x", cookie(a)).wants(t, 402)
		for _, name := range []string{"X-Token", "Cookie", "Authorization"} {
			if !varies(r, name) {
				t.Errorf("Vary is %q", r.header.Values("Vary"))
			}
		}
	})

	t.Run("claims", func(t *testing.T) {
		token := sign(jwt.SigningMethodHS256, []byte(jwtSecret), claims("other", object{"app": object{"user": object{"id": 42}}}))
		wantUser(t, s.get(t, "named", whoami, bearer(token)), "acme:42")
		v := s.get(t, "named", "/free", bearer(token)).seen(t)
		if v.Header.Get("Authorization") != "" || v.Header.Get("X-Polar-User") != "acme:42" {
			t.Errorf("with strip_token the upstream saw %v", v.Header)
		}
		if s.get(t, "all", "/free", bearer(userToken("u"))).seen(t).Header.Get("Authorization") == "" {
			t.Error("the token was kept from the upstream")
		}
		for _, user := range []any{7, 0, int64(9007199254740993), "x", "ada@example.org", strings.Repeat("é", 127)} {
			wantUser(t, s.get(t, "all", whoami, bearer(userToken(user))), fmt.Sprint(user))
		}
	})

	t.Run("refused", func(t *testing.T) {
		secret := []byte(jwtSecret)
		hmac := func(changes object) string { return sign(jwt.SigningMethodHS256, secret, claims("u", changes)) }
		none := sign(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, claims("u", nil))
		good := hmac(nil)
		for name, token := range map[string]string{
			"none":                        none,
			"none, in capitals":           strings.Replace(none, segment(object{"alg": "none", "typ": "JWT"}), segment(object{"alg": "NONE", "typ": "JWT"}), 1),
			"none, with a signature":      none + good[strings.LastIndex(good, ".")+1:],
			"no algorithm":                segment(object{"typ": "JWT"}) + good[strings.Index(good, "."):],
			"HS256 with the RSA key":      sign(jwt.SigningMethodHS256, rsaIssuer.public, claims("u", nil)),
			"HS256 with the key, trimmed": sign(jwt.SigningMethodHS256, []byte(strings.TrimSpace(string(rsaIssuer.public))), claims("u", nil)),
			"another secret":              sign(jwt.SigningMethodHS256, []byte("x"+jwtSecret), claims("u", nil)),
			"no exp":                      hmac(object{"exp": nil}),
			"exp is a string":             hmac(object{"exp": fmt.Sprint(time.Now().Add(time.Hour).Unix())}),
			"exp in milliseconds":         hmac(object{"exp": time.Now().Add(time.Hour).UnixMilli() * 1000}),
			"not yet":                     hmac(object{"nbf": time.Now().Add(time.Hour).Unix()}),
			"control character":           hmac(object{"sub": "a\nb"}),
			"NUL":                         hmac(object{"sub": "a\x00"}),
			"C1 control character":        hmac(object{"sub": "a\u0085"}),
			"user is an object":           hmac(object{"sub": object{"id": "u"}}),
			"user is an array":            hmac(object{"sub": []string{"u"}}),
			"user is true":                hmac(object{"sub": true}),
			"user is null":                sign(jwt.SigningMethodHS256, secret, jwt.MapClaims{"sub": nil, "exp": time.Now().Add(time.Hour).Unix()}),
			"user is a fraction":          hmac(object{"sub": 1.5}),
			"user is empty":               hmac(object{"sub": ""}),
			"user is missing":             hmac(object{"sub": nil}),
			"user is too long":            hmac(object{"sub": strings.Repeat("u", 256)}),
			"huge":                        hmac(object{"filler": strings.Repeat("x", 20<<10)}),
			"one dot":                     "abc.def",
			"four parts":                  good + ".x",
			"no token":                    "?",
			"a critical extension":        critical(secret),
		} {
			for _, site := range []string{"all", "pem"} {
				r := s.get(t, site, "/pro/x", bearer(token))
				if r.status != 401 || r.json(t)["code"] != "token_invalid" {
					t.Errorf("%s, %s: got %v", name, site, r)
				}
				if got := r.header.Get("WWW-Authenticate"); !strings.HasPrefix(got, "Bearer") {
					t.Errorf("%s: WWW-Authenticate is %q", name, got)
				}
				s.get(t, site, whoami, bearer(token)).problem(t, 401, "token_invalid")
			}
		}
		expired := hmac(object{"exp": time.Now().Add(-time.Minute).Unix()})
		s.get(t, "all", "/pro/x", bearer(expired)).problem(t, 401, "token_expired")
		// 30 seconds of leeway, and none.
		fresh := sign(jwt.SigningMethodHS256, secret, claims("u", object{
			"exp": time.Now().Add(-10 * time.Second).Unix(), "app": object{"user": object{"id": "u"}},
		}))
		s.get(t, "all", "/pro/x", bearer(fresh)).problem(t, 402, "no_subscription")
		s.get(t, "named", "/pro/x", bearer(fresh)).problem(t, 401, "token_expired")

		s.get(t, "all", "/pro/x", header("Authorization", "Bearer "+good, "Bearer "+good)).problem(t, 401, "token_invalid")
		s.get(t, "all", "/pro/x", header("Authorization", "Bearer "+good, "Basic dTpw")).problem(t, 401, "token_invalid")
		s.get(t, "all", "/pro/x", header("Authorization", "Bearer ")).problem(t, 401, "token_missing")
		s.get(t, "all", "/pro/x", header("Authorization", "")).problem(t, 401, "token_missing")
		s.get(t, "all", "/pro/x?token="+good).problem(t, 401, "token_missing")
		s.get(t, "all", "/pro/x", header("Authorization", "bearer "+good)).problem(t, 402, "no_subscription")
	})
}

// flip changes a character in the middle of one of the token's segments.
func flip(token string, segment int) string {
	parts := strings.Split(token, ".")
	b := []byte(parts[segment])
	i := len(b) / 2
	if b[i] == 'A' {
		b[i] = 'B'
	} else {
		b[i] = 'A'
	}
	parts[segment] = string(b)
	return strings.Join(parts, ".")
}

// segment is a segment of a token, made without the library's help.
func segment(v object) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

// critical is a token that asks for an extension nobody knows.
func critical(secret []byte) string {
	token := jwt.NewWithClaims(jwt.SigningMethodHS256, claims("u", nil))
	token.Header["crit"], token.Header["exotic"] = []string{"exotic"}, true
	s, err := token.SignedString(secret)
	if err != nil {
		panic(err)
	}
	return s
}

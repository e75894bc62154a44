package integration

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/caddy-polar/caddy-polar/cache"
)

// TestSecrecy lets a server with recognizable secrets do all that it can do,
// and then looks for them wherever it shows something.
func TestSecrecy(t *testing.T) {
	t.Parallel()
	const canary = "CANARY"
	s := newServer(t)
	s.env["POLAR_ACCESS_TOKEN"] = "polar_oat_" + canary + "accesstoken"
	s.env["POLAR_WEBHOOK_SECRET"] = "polar_whs_" + canary + "webhooksecret_of_fortythree_chars"
	s.env["NOTIFY_URL"] = "http://" + freeAddress(t) + "/hook?key=" + canary + "notify"
	s.env["NOTIFY_SECRET"] = "whsec_" + base64.StdEncoding.EncodeToString([]byte(canary+"-notify-secret-of-more-than-24-bytes"))
	s.env["DATABASE_URL"] = "postgres://ada:" + canary + "-password@" + freeAddress(t) + "/polar"
	s.env["JWT_SECRET"] = canary + "-jwt-secret-of-more-than-thirty-two-bytes"
	s.key = []byte(s.env["POLAR_WEBHOOK_SECRET"])
	key, err := os.ReadFile(s.newKeyFile(t, "assertion.pem"))
	if err != nil {
		t.Fatal(err)
	}
	s.env["ASSERTION_KEY"] = string(key)
	token := func(user string, changes object) string {
		return sign(jwt.SigningMethodHS256, []byte(s.env["JWT_SECRET"]), claims(user, changes))
	}
	down := freeAddress(t) // nobody answers for Polar
	polar := strings.NewReplacer(
		"polar {", "polar elsewhere {\n\t\tstore postgres {\n\t\t\tdsn {env.DATABASE_URL}\n\t\t}\n\t}\n\tpolar operated {\n\t\tassertion {\n\t\t\taudience app\n\t\t\tkey {env.ASSERTION_KEY}\n\t\t}\n\t}\n\tpolar {\n\t\tassertion {\n\t\t\taudience app\n\t\t\tkey auto\n\t\t}\n\t\tnotify {env.NOTIFY_URL} {env.NOTIFY_SECRET}\n\t\taccess_token {env.POLAR_ACCESS_TOKEN}\n\t\tserver http://"+down,
		"jwt secret {env.JWT_SECRET}", "jwt {\n\t\t\tsecret {env.JWT_SECRET}\n\t\t\tfrom header Authorization\n\t\t\tfrom cookie session\n\t\t}",
	).Replace(usual)
	config := s.caddyfile(polar, s.site(t, "app", `
		log
		polar
		polar_require /pro/* pro
		polar_require /mine/* pro {
			refuse error
		}
		reverse_proxy {upstream}
		handle_errors {
			respond "{err.message} {http.polar.reason}"
		}`))
	s.start(t, config)

	const email = "secret.address@example.org"
	u := newSubscriber(productPro)
	u.user = "usr_of_the_secrecy_test"
	s.deliver(t, "app", []byte(strings.ReplaceAll(string(u.active(t)), "ada@example.org", email)))
	good := token(u.user, object{"email": email, "email_verified": true})
	expired := token(u.user, object{"exp": time.Now().Add(-time.Hour).Unix()})
	foreign := sign(jwt.SigningMethodHS256, []byte("another secret, of more than thirty-two bytes"), claims(u.user, nil))
	nobody := token("nobody_of_the_secrecy_test", nil)
	tokens := []string{good, expired, foreign, nobody}
	var answers strings.Builder
	var assertions []string
	for _, tok := range tokens {
		for _, path := range []string{"/pro/x", "/mine/x", "/auth/polar/subscription", "/auth/polar/entitlements", "/auth/polar/nothing"} {
			for _, how := range []option{bearer(tok), header("Cookie", "session="+tok)} {
				r := s.get(t, "app", path, how)
				if r.header.Get("Via") == "" { // else it is the upstream's
					answers.WriteString(r.String())
				} else if token := r.seen(t).Header.Get("X-Polar-Assertion"); token != "" {
					assertions = append(assertions, token)
				}
			}
		}
	}
	for _, how := range []option{
		signed([]byte("wrong"), []byte("{}")), signedAt(s.key, []byte("{}"), time.Now().Add(-time.Hour)),
		signed(s.key, []byte("no JSON")), text("{}"), signed(s.key, []byte(`{"type":"subscription.active","data":{"email":"`+email+`"}}`)),
	} {
		answers.WriteString(s.do(t, http.MethodPost, "app", webhookPath, how).String())
	}
	answers.WriteString(s.get(t, "app", "/auth/polar/jwks.json").wants(t, http.StatusOK).body)
	s.load(t, strings.Replace(config, "POLAR_WEBHOOK_SECRET", "NOT_SET", 1))
	s.load(t, strings.Replace(config, "ASSERTION_KEY", "JWT_SECRET", 1))
	s.load(t, config+"\n# changed").wants(t, http.StatusOK)

	shown := map[string]string{
		"the answers": answers.String(),
		"/config/":    s.ask(t, http.MethodGet, "/config/").wants(t, http.StatusOK).body,
		"/metrics":    s.ask(t, http.MethodGet, "/metrics").wants(t, http.StatusOK).body,
		"goroutines":  s.ask(t, http.MethodGet, "/debug/pprof/goroutine?debug=2").wants(t, http.StatusOK).body,
		"readiness":   s.ask(t, http.MethodGet, "/polar/health/ready").body,
		"export":      s.tells(t, "export") + s.tells(t, "export", "--format", "csv"),
		"backup":      s.tells(t, "backup", filepath.Join(s.dir, "backup.db")),
		"the command": strings.Join(s.cmd.Args, " "),
	}
	for _, args := range [][]string{
		{"status"},
		{"status", "--json"},
		{"users"},
		{"users", "--json"},
		{"show", u.user},
		{"show", u.user, "--json"},
		{"explain", u.user},
		{"explain", u.user, "--json"},
		{"notify", "resend"},
		{"doctor"},
		{"status", "--gateway", "elsewhere"},
		{"doctor", "--gateway", "elsewhere"},
		{"users", "--gateway", "elsewhere"},
		{"sync"},
		{"revenue"}, // the last wait for Polar
	} {
		out, said, _ := s.polar(args...)
		shown["caddy polar "+strings.Join(args, " ")] = out + said
	}
	s.stop(t)
	seeds := assertionSeeds(t, s.store())
	copied, err := os.ReadFile(filepath.Join(s.dir, "backup.db"))
	if err != nil {
		t.Fatal(err)
	}
	shown["the backup's bytes"] = string(copied)
	shown["the log"] = s.logs()
	wantsSecrecy(t, shown, append([]string{canary, email, strings.TrimPrefix(s.env["NOTIFY_SECRET"], "whsec_")}, tokens...)...)
	for where, text := range shown {
		for _, tok := range tokens { // nor a part of one
			if strings.Contains(text, tok[strings.LastIndex(tok, ".")+1:]) {
				t.Errorf("%s shows a token's signature", where)
			}
		}
	}

	// Of assertions Caddy's own log for debugging tells, as of all that it sends to the app.
	if len(assertions) == 0 {
		t.Error("nothing was asserted")
	}
	shown["the log"] = linesWithout(shown["the log"], `"logger":"http.handlers.reverse_proxy"`)
	delete(shown, "the backup's bytes") // which has the store's keys
	keyLines := strings.Split(strings.TrimSpace(string(key)), "\n")
	for where, text := range shown {
		for _, secret := range append(append(seeds, keyLines[1]), assertions...) {
			if strings.Contains(text, secret) {
				t.Errorf("%s shows an assertion, or its key", where)
			}
		}
	}

	// The user is in our log by hash alone, but for what is there for debugging.
	refused := 0
	for line := range strings.Lines(notable(s.logs())) {
		var entry struct{ Logger, Msg string }
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			t.Errorf("no JSON in the log: %s", line)
			continue
		}
		if entry.Logger == "polar" && entry.Msg == "refused" {
			refused++
		}
		if !strings.HasPrefix(entry.Logger, "http.log.access") && entry.Logger != "admin.api" && strings.Contains(line, "_of_the_secrecy_test") {
			t.Errorf("the user stands in the log: %s", line)
		}
	}
	if refused == 0 {
		t.Error("refusals are not in the log at INFO")
	}

	for _, metric := range []string{
		`caddy_polar_decisions_total{allowed="true",gateway="default",reason="active"}`,
		`caddy_polar_decisions_total{allowed="false",gateway="default",reason="token_expired"}`,
		`caddy_polar_webhooks_total{gateway="default",result="applied",type="subscription.active"}`,
		`caddy_polar_tokens_total{result="token_invalid"}`,
		`caddy_polar_webhook_age_seconds_count{gateway="default"}`,
	} {
		if !strings.Contains(shown["/metrics"], metric) {
			t.Errorf("/metrics has no %s", metric)
		}
	}
}

// assertionSeeds are the private keys in a store that nobody has open, in every way
// that they could be shown.
func assertionSeeds(t *testing.T, store string) (shown []string) {
	t.Helper()
	file := cache.New(store)
	defer file.Close()
	raw, err := file.Note("assertion keys")
	if err != nil || len(raw) != 8+ed25519.SeedSize {
		t.Fatalf("%d bytes of keys: %v", len(raw), err)
	}
	for _, secret := range [][]byte{raw[8:], raw} {
		shown = append(shown, string(secret), hex.EncodeToString(secret), fmt.Sprint(secret),
			strings.TrimRight(base64.StdEncoding.EncodeToString(secret), "="), base64.RawURLEncoding.EncodeToString(secret))
	}
	return shown
}

func linesWithout(text, word string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if !strings.Contains(line, word) {
			b.WriteString(line)
		}
	}
	return b.String()
}

// wantsSecrecy looks for secrets in what was shown, by where.
func wantsSecrecy(t *testing.T, shown map[string]string, secrets ...string) {
	t.Helper()
	for where, text := range shown {
		for _, secret := range secrets {
			if i := strings.Index(text, secret); i >= 0 {
				t.Errorf("%s shows %q: …%s…", where, secret, text[max(0, i-300):i])
			}
		}
	}
}

// TestSecrecyOfEveryKind is TestSecrecy for the other kinds of secrets: each kind of
// webhook secret, the addresses of keys and of sessions, cookies of an app, and what
// browsers are shown; and what the process says of itself when it crashes.
func TestSecrecyOfEveryKind(t *testing.T) {
	t.Parallel()
	const canary, email = "CANARY", "e@example.org" // which sessionApp tells of everybody
	s, app := newServer(t), newSessionApp(t)
	key := es256(t, "k")
	standIn := publishes(t, "/jwks", key.jwk(t, object{"use": "sig", "alg": "ES256"}))
	s.env["JWKS_URL"] = standIn + "/jwks?apikey=" + canary + "jwks"
	s.env["SESSION_URL"] = app.URL + "/api/auth/get-session?secret=" + canary + "session"
	s.env["UNREACHABLE_URL"] = "http://" + freeAddress(t) + "/session?secret=" + canary + "unreachable"
	s.env["POLAR_ACCESS_TOKEN"] = "polar_oat_" + canary
	secrets, words := []string{canary, email}, ""
	for i, v := range secretVectors(t) {
		if v.Name == "" || strings.Contains(v.Name, "listen") {
			continue // which is no secret
		}
		name := fmt.Sprint("WEBHOOK_", i)
		s.env[name] = v.Secret
		words += " {env." + name + "}"
		secrets = append(secrets, v.Secret, strings.TrimPrefix(v.Secret, "whsec_"))
	}
	browserSees := "\nlogin_url /login?next={return_to}\nupgrade_url /buy?from={return_to}&why={reason}\npage {\nname \"The Shop\"\ncolor aa3300\n}"
	global := "polar {\nserver http://" + freeAddress(t) + "\naccess_token {env.POLAR_ACCESS_TOKEN}\nwebhook_secret" + words +
		"\njwt {\njwks {env.JWKS_URL}\nissuer https://id.example\naudience app\nfrom header Authorization\nfrom cookie session\n}\nlink email\nplan pro {env.PRODUCT_PRO}" + browserSees + "\n}\n" +
		"polar people {\nwebhook_secret" + words + "\nsession {env.SESSION_URL} {\ncookies " + sessionCookie + " trusted\n}\nlink email\nplan pro {env.PRODUCT_PRO}" + browserSees + "\n}\n" +
		"polar lost {\nsession {env.UNREACHABLE_URL} {\ncookies " + sessionCookie + " trusted\n}\nplan pro {env.PRODUCT_PRO}\n}"
	var sites []string
	for name, gateway := range map[string]string{"app": "", "people": " people", "lost": " lost"} {
		sites = append(sites, s.site(t, name, "log\npolar"+gateway+"\npolar_require /pro/* pro\nreverse_proxy {upstream}"))
	}
	config := s.caddyfile(global, sites...)
	s.start(t, config)

	mints := func(changes object) string {
		r, err := http.NewRequest(http.MethodGet, "/", nil)
		if err != nil {
			t.Fatal(err)
		}
		key.mints(t, object{"sub": "ada", "iss": "https://id.example", "aud": "app", "exp": time.Now().Add(time.Hour).Unix(), "email": email, "email_verified": true}, changes)(r)
		return strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	}
	good, foreign := mints(nil), mints(object{"aud": "another"})
	session := "usr_of_the_app; trusted=" + canary + "-cookie"
	secrets = append(secrets, good, foreign)
	for _, v := range secretVectors(t) {
		if strings.Contains(v.Name, "listen") {
			continue
		}
		s.key = v.key(t)
		u := newSubscriber(productPro)
		u.user = "ada"
		s.deliver(t, "app", u.active(t))
	}
	waitFor(t, "the keys", func() bool { return s.get(t, "app", "/pro/x", bearer(good)).status == http.StatusOK })
	var answers strings.Builder
	for _, site := range []string{"app", "people", "lost"} {
		for _, path := range []string{"/pro/x", "/auth/polar/account", "/auth/polar/pricing", "/auth/polar/entitlements", "/auth/polar/checkout?plan=pro", "/auth/polar/success?state=x&customer_session_token=" + canary} {
			for _, how := range [][]option{
				{bearer(good)}, {bearer(foreign), browser}, {header("Cookie", "session="+good), browser}, {signedIn(session), browser}, {signedIn("broken")}, {signedIn("page")}, {browser},
			} {
				if strings.Contains(path, canary) && site != "app" { // the address is in Caddy's access log, which is not ours
					continue
				}
				if r := s.get(t, site, path, how...); r.header.Get("Via") == "" {
					answers.WriteString(strings.ReplaceAll(fmt.Sprint(r, r.header), "/auth/polar/success?state=x&customer_session_token="+canary, ""))
				}
			}
		}
	}
	s.load(t, config+"\n# changed").wants(t, http.StatusOK)
	shown := map[string]string{
		"the answers": answers.String(),
		"/config/":    s.ask(t, http.MethodGet, "/config/").body,
		"/metrics":    s.ask(t, http.MethodGet, "/metrics").body,
		"goroutines":  s.ask(t, http.MethodGet, "/debug/pprof/goroutine?debug=2").body,
		"variables":   s.ask(t, http.MethodGet, "/debug/vars").body,
	}
	for _, args := range [][]string{{"status"}, {"users"}, {"export"}, {"show", "ada"}} {
		for _, gateway := range []string{"default", "people", "lost"} {
			out, said, _ := s.polar(append(args, "--gateway", gateway, "--json")...)
			shown["caddy polar "+args[0]+" of "+gateway] = out + said
		}
	}
	out, said, _ := s.polar("doctor", "--gateway", "people")
	shown["caddy polar doctor"] = out + said
	if err := s.cmd.Process.Signal(syscall.SIGABRT); err != nil { // it ends as by a panic, telling all stacks
		t.Fatal(err)
	}
	<-s.exited
	log := s.logs()
	if !strings.Contains(log, "SIGABRT: abort") || !strings.Contains(log, "goroutine ") {
		t.Error("it has told no stacks")
	}
	shown["the log"] = withoutAccess(log)
	wantsSecrecy(t, shown, secrets...)
}

// withoutAccess is a log without Caddy's own lines about requests, which have addresses
// and headers.
func withoutAccess(log string) string {
	var b strings.Builder
	for line := range strings.Lines(log) {
		if !strings.Contains(line, `"logger":"http.`) && !strings.Contains(line, `"logger":"admin.api"`) {
			b.WriteString(line)
		}
	}
	return b.String()
}

// TestLiteralSecret checks that a secret in the configuration itself is warned
// about.
func TestLiteralSecret(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.start(t, s.caddyfile(strings.Replace(usual, "{env.JWT_SECRET}", "{$JWT_SECRET}", 1), s.paywall(t, "app")))
	log := notable(s.logs())
	if !strings.Contains(log, "a secret stands literally in the configuration") || strings.Contains(log, jwtSecret) {
		t.Errorf("no warning, or the secret: %s", tail(log, 10))
	}
}

// TestLoadErrorsTellNoSecret: what is wrong with a secret is told, and not the secret,
// whether it comes from the environment or stands in the configuration.
func TestLoadErrorsTellNoSecret(t *testing.T) {
	t.Parallel()
	const canary = "CANARY"
	s := newServer(t)
	site := s.site(t, "app", "polar\npolar_require /pro/* pro\nrespond hello")
	s.start(t, s.caddyfile(usual, site))
	for name, bad := range map[string]struct{ words, value string }{
		"a short JWT secret":         {"jwt secret %s", canary + "-short"},
		"no public key":              {"jwt public_key %s", "-----BEGIN PUBLIC KEY-----" + canary + "-----END PUBLIC KEY-----"},
		"a password in jwks":         {"jwt {\njwks %s\nissuer any\naudience any\n}", "https://user:" + canary + "@id.example/jwks"},
		"jwks without TLS":           {"jwt {\njwks %s\nissuer any\naudience any\n}", "http://id.example/jwks?key=" + canary},
		"no jwks address":            {"jwt {\njwks %s\nissuer any\naudience any\n}", canary + "%zz"},
		"a password in session":      {"session %s {\ncookies s\n}", "https://user:" + canary + "@app.example/session"},
		"no session address":         {"session %s {\ncookies s\n}", "ftp://app.example/?key=" + canary},
		"blanks in the access token": {"access_token %s", `"polar_oat_` + canary + ` x"`},
		"a customer's token":         {"access_token %s", "polar_cst_" + canary},
		"a short notify secret":      {"notify http://localhost:1/hook %s", "whsec_" + canary},
		"no notify secret":           {"notify http://localhost:1/hook %s", canary + "-of-more-than-thirty-two-characters!"},
		"notify without TLS":         {"notify %s whsec_bmV3LW5ldy1uZXctbmV3LW5ldy1uZXctbmV3LW5ldyE=", "ftp://app.example/?key=" + canary},
		"a password in notify":       {"notify %s whsec_bmV3LW5ldy1uZXctbmV3LW5ldy1uZXctbmV3LW5ldyE=", "https://user:" + canary + "@app.example/"},
		"a password in server":       {"access_token {env.POLAR_WEBHOOK_SECRET}\nserver %s", "https://user:" + canary + "@api.example"},
	} {
		name, bad := name, bad
		for _, from := range []string{"the environment", "the configuration", "the Caddyfile's own environment"} {
			value := map[string]string{"the environment": "{file." + s.write(t, "secret", strings.Trim(bad.value, `"`)) + "}", "the configuration": bad.value}[from]
			if value == "" {
				s.env["BAD"], value = bad.value, "{$BAD}"
			}
			block := "polar {\nwebhook_secret {env.POLAR_WEBHOOK_SECRET}\nplan pro x\n" + strings.Replace(bad.words, "%s", value, 1) + "\n}"
			config := s.caddyfile(block, site)
			said := ""
			if value == "{$BAD}" { // which the running server's environment has not
				out, err := s.command("validate", "--adapter", "caddyfile", "--config", s.write(t, "Bad", config))
				if said = out; err == nil {
					t.Errorf("%s from %s is valid", name, from)
				}
			} else {
				r := s.load(t, config)
				if said = r.body; r.status == http.StatusOK {
					t.Errorf("%s from %s was loaded", name, from)
				}
			}
			if strings.Contains(said, canary) {
				t.Errorf("%s from %s: %s", name, from, said)
			}
		}
	}
	if log := s.logs(); strings.Contains(log, canary) {
		i := strings.Index(log, canary)
		t.Errorf("the log tells: %s", log[max(0, i-500):i+len(canary)])
	}
}

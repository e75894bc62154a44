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
		"polar {", "polar operated {\n\t\tassertion {\n\t\t\taudience app\n\t\t\tkey {env.ASSERTION_KEY}\n\t\t}\n\t}\n\tpolar {\n\t\tassertion {\n\t\t\taudience app\n\t\t\tkey auto\n\t\t}\n\t\tnotify {env.NOTIFY_URL} {env.NOTIFY_SECRET}\n\t\taccess_token {env.POLAR_ACCESS_TOKEN}\n\t\tserver http://"+down,
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
	for where, text := range shown {
		for _, secret := range append([]string{canary, email, strings.TrimPrefix(s.env["NOTIFY_SECRET"], "whsec_")}, tokens...) {
			if i := strings.Index(text, secret); i >= 0 {
				t.Errorf("%s shows %q: …%s…", where, secret, text[max(0, i-300):i])
			}
		}
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

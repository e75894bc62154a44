package integration

import (
	"encoding/json"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/caddy-polar/caddy-polar/polar/box"
)

// polar runs `caddy polar …` against the server.
func (s *server) polar(args ...string) (out, said string, err error) {
	cmd := exec.Command(binary, append(append([]string{"polar"}, args...), "--address", s.admin)...)
	var stdout, stderr strings.Builder
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = s.dir, s.environ(), &stdout, &stderr
	err = cmd.Run()
	return stdout.String(), stderr.String(), err
}

// tells is polar for what must succeed.
func (s *server) tells(t *testing.T, args ...string) string {
	t.Helper()
	out, said, err := s.polar(args...)
	if err != nil {
		t.Fatalf("caddy polar %v: %v: %s", args, err, said)
	}
	return out
}

func (s *server) tellsJSON(t *testing.T, args ...string) object {
	t.Helper()
	var v object
	if out := s.tells(t, append(args, "--json")...); json.Unmarshal([]byte(out), &v) != nil {
		t.Fatalf("caddy polar %v: no JSON: %s", args, out)
	}
	return v
}

// fails is polar for what must fail, in one line that says some words.
func (s *server) fails(t *testing.T, args []string, words ...string) {
	t.Helper()
	out, said, err := s.polar(args...)
	if err == nil {
		t.Errorf("caddy polar %v succeeds: %s", args, out)
		return
	}
	if strings.Count(strings.TrimSpace(said), "\n") > 0 {
		t.Errorf("caddy polar %v says more than a line: %s", args, said)
	}
	for _, word := range words {
		if !strings.Contains(said, word) {
			t.Errorf("caddy polar %v says %q, without %q", args, said, word)
		}
	}
}

func wants(t *testing.T, text string, words ...string) {
	t.Helper()
	for _, word := range words {
		if !strings.Contains(text, word) {
			t.Errorf("%q is missing in:\n%s", word, text)
		}
	}
}

// TestOperator tends a running gateway by its commands.
func TestOperator(t *testing.T) {
	t.Parallel()
	s := startPaywall(t)
	u := s.subscribe(t, "app", productPro)
	const stranger = "o'brien/../c d@example.com"

	wants(t, s.tells(t, "status"), "gateway", "default", "pro: products 1", s.store(), "no access_token", "subscription.active")
	if v := s.tellsJSON(t, "status"); v["gateway"] != "default" || v["polar"].(object)["canAsk"] != false {
		t.Error(v)
	}
	wants(t, s.tells(t, "show", u.user), u.subscription, u.customer, productPro, "period ends "+told(now.Add(29*day)))
	wants(t, s.tells(t, "explain", u.user), "allowed: active", "* subscription "+u.subscription, "current_period_end", "plan basic: refused: plan_required")
	wants(t, s.tells(t, "explain", u.user, "--plan", "pro", "--at", told(now.Add(31*day))), "renewal_grace until current_period_end + renewal 3d")
	if v := s.tellsJSON(t, "explain", u.user, "--plan", "basic"); v["decision"].(object)["reason"] != "plan_required" {
		t.Error(v)
	}

	s.get(t, "app", "/basic/x", as(stranger)).wants(t, http.StatusPaymentRequired)
	pass := s.tellsJSON(t, "pass", stranger, "basic", "--until", told(now.Add(day)), "--reason", "press")
	s.get(t, "app", "/basic/x", as(stranger)).wants(t, http.StatusOK)
	wants(t, s.tells(t, "users"), u.user, stranger, "pass")
	if v := s.tellsJSON(t, "users", "--status", "pass"); len(v["users"].([]any)) != 1 {
		t.Error(v)
	}
	s.tells(t, "revoke-pass", stranger, pass["id"].(string))
	for _, user := range []string{".", "..", "a//b", "%2e", "?x#y", "ü"} { // what a path could take for something else
		if p := s.tellsJSON(t, "pass", user, "basic"); p["user"] != user {
			t.Error(p)
		}
		s.get(t, "app", "/basic/x", as(user)).wants(t, http.StatusOK)
	}
	s.get(t, "app", "/basic/x", as(stranger)).wants(t, http.StatusPaymentRequired)

	s.get(t, "app", "/pro/x", as(stranger)).wants(t, http.StatusPaymentRequired)
	s.tells(t, "link", stranger, u.customer)
	s.get(t, "app", "/pro/x", as(stranger)).wants(t, http.StatusOK)
	s.get(t, "app", "/pro/x", as(u.user)).wants(t, http.StatusPaymentRequired)
	s.tells(t, "forget", stranger)
	s.get(t, "app", "/pro/x", as(stranger)).wants(t, http.StatusPaymentRequired)

	// Caddy goes on to protect its admin API.
	s.ask(t, http.MethodGet, "/polar/status", header("Origin", "https://evil.example.com"), header("Sec-Fetch-Mode", "cors")).wants(t, http.StatusForbidden)
	r := s.ask(t, http.MethodGet, "/polar/users/"+u.user+"/passes").wants(t, http.StatusMethodNotAllowed)
	if r.header.Get("Allow") != "POST" || r.json(t)["error"] == "" {
		t.Error(r)
	}
	for line := range strings.Lines(s.logs()) {
		if strings.Contains(line, stranger) && !strings.Contains(line, `"admin.api"`) && !strings.HasPrefix(line, `{"level":"debug"`) {
			t.Errorf("the user is in the log: %s", line)
		}
	}
	if strings.Contains(s.logs()+s.tells(t, "status"), webhookSecret) {
		t.Error("a secret is told")
	}
}

func TestOperatorMistakes(t *testing.T) {
	t.Parallel()
	s := startPaywall(t)
	u := s.subscribe(t, "app", productPro)
	s.fails(t, []string{"pass", u.user, "gold"}, "plan", "pro, basic")
	s.fails(t, []string{"pass", u.user, "pro", "--until", "2020-01-01T00:00:00Z"}, "is over")
	s.fails(t, []string{"pass", u.user, "pro", "--until", "tomorrow"}, "2027-01-31T00:00:00Z")
	s.fails(t, []string{"revoke-pass", u.user, "nope"}, "no such pass")
	s.fails(t, []string{"explain", u.user, "--at", "x"}, "at:")
	s.fails(t, []string{"sync"}, "access_token")
	s.fails(t, []string{"status", "--gateway", "other"}, `"other"`, "default")
	s.fails(t, []string{"link", u.user}, "--from")
	s.fails(t, []string{"users", "--plan", "gold"}, "gold")

	for _, command := range []string{"status", "sync", "users"} {
		out, err := s.command("polar", command, "--address", freeAddress(t))
		if err == nil || !strings.Contains(out, "no Caddy answers there") || !strings.Contains(out, "--address") {
			t.Errorf("%s without a server: %v %s", command, err, out)
		}
	}
	if out, err := s.command("polar", "status", "--address", s.upstream.address); err == nil || !strings.Contains(out, "not as expected") {
		t.Errorf("another server: %v %s", err, out)
	}
	s.load(t, s.caddyfile("", s.site(t, "app", "respond ok"))).wants(t, http.StatusOK)
	s.fails(t, []string{"status"}, "polar is not configured")
}

// TestLinkFile links the lines of a file: all of them, or none.
func TestLinkFile(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	fast := strings.Replace(syncing, "return_to", "sync {\nbudget 500/m\n}\nreturn_to", 1)
	s.start(t, s.caddyfile(fast, s.paywall(t, "app")))
	var ids []string
	for _, email := range []string{"a@example.com", "b@example.com"} {
		c, err := s.box.CreateCustomer(box.Customer{Email: email})
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, c.ID)
	}
	linked := func(user string) int { return len(s.tellsJSON(t, "show", user)["links"].([]any)) }
	external := func(id string) string {
		for _, c := range s.box.Customers() {
			if c.ID == id {
				return c.ExternalID
			}
		}
		return ""
	}
	good := "user,customer\n# a comment\n\"usr,1\"," + ids[0] + "\nusr_2, " + ids[1] + "\n"
	for name, bad := range map[string]struct{ line, says string }{
		"one field":         {"usr_3\n", "5"},
		"three fields":      {"usr_3,x,y\n", "5"},
		"no user":           {"," + ids[0] + "\n", "5"},
		"no customer":       {"usr_3,\n", "5"},
		"unknown at Polar":  {"usr_3,0f4a2c0e-93b7-4f0e-8a51-6a2d0d5f9c11\n", "5"},
		"two users":         {"usr_3," + ids[0] + "\n", "line 3"},
		"a quote left open": {"\"usr_3," + ids[0] + "\n", "line 5"},
	} {
		file := s.write(t, "bad.csv", good+bad.line)
		out, said, err := s.polar("link", "--from", file)
		if err == nil || !strings.Contains(out+said, bad.says) || !strings.Contains(said, "nothing was changed") && name != "a quote left open" {
			t.Errorf("%s: %v\n%s%s", name, err, out, said)
		}
	}
	file := s.write(t, "good.csv", good)
	if v := s.tellsJSON(t, "link", "--from", file, "--dry-run"); v["dryRun"] != true || v["bad"] != 0.0 {
		t.Error(v)
	}
	if linked("usr,1")+linked("usr_2") != 0 || external(ids[0])+external(ids[1]) != "" {
		t.Fatal("a bad file or a dry run has changed something")
	}
	wants(t, s.tells(t, "link", "--from", file), "written", "usr,1", ids[1])
	if linked("usr,1") != 1 || linked("usr_2") != 1 || external(ids[0]) != "usr,1" || external(ids[1]) != "usr_2" {
		t.Errorf("external ids %q %q", external(ids[0]), external(ids[1]))
	}
	wants(t, s.tells(t, "link", "--from", file), "present")
	wants(t, s.tells(t, "sync"), "objects", "mended")
	wants(t, s.tells(t, "sync", "usr_2"), ids[1])
	if linked("usr_2") != 1 {
		t.Error("a sync takes a link away")
	}
	before := time.Now()
	s.fails(t, []string{"link", "--from", file + "x"}, "no such file")
	if time.Since(before) > patience {
		t.Error("it waits")
	}
}

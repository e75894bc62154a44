package integration

import (
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write testdata/golden anew; read the difference before it is committed")

// What differs from run to run, and takes its name in the golden files instead.
var (
	uuidRE  = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)
	userRE  = regexp.MustCompile(`usr_[0-9a-f]{8}`)
	passRE  = regexp.MustCompile(`pass_[a-z0-9]{26}`)
	timeRE  = regexp.MustCompile(`20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z`)
	bytesRE = regexp.MustCompile(`\d+ bytes`)
	pathRE  = regexp.MustCompile(`/[^ ]*/polar/default\.db`)
	gapRE   = regexp.MustCompile(` {2,}`)
)

// steady gives what differs from run to run a name, the same to the same, and columns
// two blanks: their widths follow from the values.
func steady(text string) string {
	for _, v := range []struct {
		re   *regexp.Regexp
		name string
	}{{pathRE, "STORE"}, {uuidRE, "ID"}, {userRE, "USER"}, {passRE, "PASS"}, {timeRE, "TIME"}, {bytesRE, "SIZE"}} {
		seen := map[string]string{}
		text = v.re.ReplaceAllStringFunc(text, func(found string) string {
			if v.name == "TIME" || v.name == "SIZE" || v.name == "STORE" {
				return "<" + v.name + ">"
			}
			if seen[found] == "" {
				seen[found] = fmt.Sprintf("<%s%d>", v.name, len(seen)+1)
			}
			return seen[found]
		})
	}
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		indent := len(line) - len(strings.TrimLeft(line, " "))
		lines[i] = strings.TrimRight(line[:indent]+gapRE.ReplaceAllString(line[indent:], "  "), " ")
	}
	return strings.Join(lines, "\n")
}

// golden compares what a command prints with what it is known to print.
func golden(t *testing.T, name, text string) {
	t.Helper()
	text = steady(text)
	file := filepath.Join("testdata", "golden", name+".txt")
	if *update {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if text != string(want) {
		t.Errorf("%s is\n%s\nand was\n%s", name, text, want)
	}
}

// TestGolden: what each command prints about a running gateway, to the letter.
func TestGolden(t *testing.T) {
	t.Parallel()
	s, app := newServer(t), newHook(t)
	s.env["NOTIFY_URL"], s.env["NOTIFY_SECRET"] = "http://app.test/hooks/polar", oldNotifySecret
	app.goDown(true)
	s.start(t, s.caddyfile(strings.Replace(usual, "polar {", "polar {\n\t\tnotify {env.NOTIFY_URL} {env.NOTIFY_SECRET}", 1), s.paywall(t, "app")))
	golden(t, "users-none", s.tells(t, "users"))
	u := s.subscribe(t, "app", productPro)
	golden(t, "explain-allowed", s.tells(t, "explain", u.user))
	golden(t, "explain-plan-at", s.tells(t, "explain", u.user, "--plan", "pro", "--at", told(now.Add(31*day))))
	golden(t, "explain-unknown", s.tells(t, "explain", "nobody"))
	pass := s.tells(t, "pass", u.user, "basic", "--until", told(now.Add(day)), "--reason", "press")
	golden(t, "pass", pass)
	golden(t, "revoke-pass", s.tells(t, "revoke-pass", u.user, passRE.FindString(pass)))
	s.deliver(t, "app", u.event(t, "subscription.past_due", object{"past_due_at": wire(now.Add(-day))}))
	s.deliver(t, "app", u.event(t, "subscription.revoked", object{
		"canceled_at": wire(now.Add(-day)), "ends_at": wire(now.Add(-day)), "ended_at": wire(now.Add(-day)),
	}))
	request := s.get(t, "app", "/pro/x", as(u.user)).problem(t, http.StatusPaymentRequired, "canceled")["requestId"].(string)
	golden(t, "explain-request", s.tells(t, "explain", "--request", request))
	golden(t, "show", s.tells(t, "show", u.user))
	golden(t, "users", s.tells(t, "users"))
	golden(t, "link", s.tells(t, "link", "usr_00000000", u.customer))
	golden(t, "forget", s.tells(t, "forget", "usr_00000000"))
	golden(t, "notify-resend", s.tells(t, "notify", "resend"))
	for name, args := range map[string][]string{
		"wrong-user":    {"show", "nobody"},
		"wrong-plan":    {"explain", "nobody", "--plan", "gold"},
		"wrong-time":    {"explain", "nobody", "--at", "tomorrow"},
		"wrong-request": {"explain", "--request", "x"},
		"wrong-gateway": {"status", "--gateway", "other"},
		"wrong-word":    {"explian", "nobody"},
		"no-token":      {"sync"},
	} {
		out, said, err := s.polar(args...)
		if err == nil || out != "" {
			t.Errorf("caddy polar %v succeeds: %s", args, out)
		}
		golden(t, name, said)
	}
}

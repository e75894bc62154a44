package caddypolar

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"go.uber.org/goleak"
)

// demoPatience is how long anything in a demo may take.
const demoPatience = 20 * time.Second

// runningTestDemo is `caddy polar demo` in this process, and a browser.
type runningTestDemo struct {
	t          *testing.T
	app, panel string
	stop       func() error
	client     *http.Client
}

// startDemo runs the command on a free port and waits until it says where to
// click.
func startDemo(t *testing.T) *runningTestDemo {
	t.Helper()
	t.Setenv("TMPDIR", t.TempDir())
	t.Setenv("XDG_DATA_HOME", t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	out, in := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		cmd := demoCommand()
		cmd.SetArgs([]string{"--listen", "localhost:0"})
		cmd.SetOut(in)
		cmd.SilenceErrors = true
		err := cmd.ExecuteContext(ctx)
		in.CloseWithError(io.EOF)
		ended <- err
	}()
	said := readUntil(t, out, "Ctrl-C")
	go func() { _, _ = io.Copy(io.Discard, out) }()
	find := func(what string) string {
		found := regexp.MustCompile(what + ` +(http\S+)`).FindStringSubmatch(said)
		if found == nil {
			t.Fatalf("it does not say where %s is: %s: %v", what, said, <-ended)
		}
		return found[1]
	}
	d := &runningTestDemo{t: t, app: find("The app"), panel: find("The panel")}
	d.stop = sync.OnceValue(func() error {
		cancel()
		select {
		case err := <-ended:
			return err
		case <-time.After(demoPatience):
			t.Fatal("it does not end")
			return nil
		}
	})
	jar, _ := cookiejar.New(nil)
	d.client = &http.Client{
		Jar: jar, Timeout: demoPatience, Transport: &http.Transport{},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	t.Cleanup(func() {
		d.client.CloseIdleConnections()
		if err := d.stop(); err != nil {
			t.Error(err)
		}
	})
	return d
}

func readUntil(t *testing.T, r io.Reader, end string) string {
	t.Helper()
	var said bytes.Buffer
	for chunk := make([]byte, 1024); !strings.Contains(said.String(), end); {
		n, err := r.Read(chunk)
		said.Write(chunk[:n])
		if err != nil {
			break
		}
	}
	return said.String()
}

// answer is one of the demo's pages.
type demoPage struct {
	status   int
	location string
	body     string
}

// visit goes to a page as a browser does that was there before.
func (d *runningTestDemo) visit(address string) demoPage {
	d.t.Helper()
	return d.request(http.MethodGet, address, nil)
}

func (d *runningTestDemo) submit(address string, form url.Values) demoPage {
	d.t.Helper()
	return d.request(http.MethodPost, address, form)
}

func (d *runningTestDemo) request(method, address string, form url.Values) demoPage {
	d.t.Helper()
	r, err := http.NewRequest(method, address, strings.NewReader(form.Encode()))
	if err != nil {
		d.t.Fatal(err)
	}
	r.Header.Set("Accept", "text/html")
	r.Header.Set("Sec-Fetch-Mode", "navigate")
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	res, err := d.client.Do(r)
	if err != nil {
		d.t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	location := ""
	if to, err := res.Location(); err == nil {
		location = to.String()
	}
	return demoPage{res.StatusCode, location, string(body)}
}

func (p demoPage) wants(t *testing.T, status int, texts ...string) demoPage {
	t.Helper()
	if p.status != status {
		t.Fatalf("got %d %s %s, want %d", p.status, p.location, p.body, status)
	}
	for _, text := range texts {
		if !strings.Contains(p.body, text) {
			t.Fatalf("the page lacks %q: %s", text, p.body)
		}
	}
	return p
}

// buy follows the address of a checkout to its end, and returns where the buyer
// is sent.
func (d *runningTestDemo) buy(path string) {
	d.t.Helper()
	checkout := d.visit(d.app+path).wants(d.t, http.StatusSeeOther).location
	if !strings.HasPrefix(checkout, strings.TrimSuffix(d.panel, "/panel/")+"/checkout/") {
		d.t.Fatalf("the checkout is at %s", checkout)
	}
	d.visit(checkout).wants(d.t, http.StatusOK, "ada@example.com", "Pay")
	back := d.submit(checkout, url.Values{"card": {"ok"}}).wants(d.t, http.StatusSeeOther).location
	if !strings.HasPrefix(back, d.app+"/auth/polar/success?") {
		d.t.Fatalf("the buyer is sent to %s", back)
	}
	d.visit(back).wants(d.t, http.StatusOK, `/pro/`)
}

// panelShows waits until the panel shows something.
func (d *runningTestDemo) panelShows(text string) {
	d.t.Helper()
	for deadline := time.Now().Add(demoPatience); ; time.Sleep(10 * time.Millisecond) {
		page := d.visit(d.panel).wants(d.t, http.StatusOK).body
		if strings.Contains(page, text) {
			return
		}
		if time.Now().After(deadline) {
			d.t.Fatalf("the panel never shows %q: %s", text, page)
		}
	}
}

func (d *runningTestDemo) press(form string, fields ...string) {
	d.t.Helper()
	values := url.Values{}
	for i := 0; i < len(fields); i += 2 {
		values.Set(fields[i], fields[i+1])
	}
	d.submit(d.panel+form, values).wants(d.t, http.StatusSeeOther)
}

func (d *runningTestDemo) signIn(person string) {
	d.t.Helper()
	d.visit(d.app+"/login?as="+person).wants(d.t, http.StatusSeeOther)
}

const buyPro = "/auth/polar/checkout?plan=pro&return_to=/pro/"

func TestDemoFromRefusedToUnlockedToOut(t *testing.T) {
	d := startDemo(t)
	d.visit(d.app+"/").wants(t, http.StatusOK, "Sign in")
	login := d.visit(d.app+"/pro/").wants(t, http.StatusSeeOther).location
	d.visit(login).wants(t, http.StatusOK, "Sign in", "Ada Lovelace", "return_to=%2fpro%2f")
	if back := d.visit(login+"&as=ada").wants(t, http.StatusSeeOther).location; back != d.app+"/pro/" {
		t.Errorf("who signs in comes to %s", back)
	}
	d.visit(d.app+"/").wants(t, http.StatusOK, "Welcome, <strong>Ada Lovelace")
	d.visit(d.app+"/pro/").wants(t, http.StatusPaymentRequired, "no_subscription")
	d.buy(buyPro)
	d.visit(d.app+"/pro/").wants(t, http.StatusOK, "You are in, <strong>Ada Lovelace", "active")
	d.visit(d.app+"/api/team/hello").wants(t, http.StatusPaymentRequired)
	d.panelShows(`Ada Lovelace, pro: open`)

	portal := d.visit(d.app+"/auth/polar/portal?return_to=/").wants(t, http.StatusSeeOther).location
	page := d.visit(portal).wants(t, http.StatusOK, "Pro", d.app+"/").body
	subscription := regexp.MustCompile(`name="subscription" value="([^"]+)"`).FindStringSubmatch(page)
	if subscription == nil {
		t.Fatal("no subscription in the portal: ", page)
	}
	d.submit(portal, url.Values{"subscription": {subscription[1]}, "action": {"cancel"}}).wants(t, http.StatusSeeOther)
	d.panelShows("<small>canceling until")
	d.visit(d.app+"/pro/").wants(t, http.StatusOK, "canceling")

	d.press("clock", "to", "end", "person", "ada")
	d.visit(d.app+"/pro/").wants(t, http.StatusPaymentRequired, "canceled")
	d.panelShows("Ada Lovelace, pro: closed")
	d.visit(d.app+"/").wants(t, http.StatusOK, "Welcome, <strong>Ada Lovelace") // still signed in
}

// TestDemoWithoutWebhooks: the success route asks Polar itself.
func TestDemoWithoutWebhooks(t *testing.T) {
	d := startDemo(t)
	d.press("webhooks", "mode", "are lost")
	d.signIn("ada")
	d.visit(d.app+"/pro/").wants(t, http.StatusPaymentRequired)
	d.buy(buyPro)
	d.visit(d.app+"/pro/").wants(t, http.StatusOK, "You are in")
	d.panelShows("lost on its way")
}

func TestDemoFailedPayment(t *testing.T) {
	d := startDemo(t)
	d.signIn("ada")
	d.buy(buyPro)
	d.press("card", "person", "ada", "card", "bad")
	d.press("clock", "to", "end", "person", "ada")
	d.visit(d.app+"/pro/").wants(t, http.StatusOK, "past_due_grace")
	for range 8 {
		d.press("clock", "to", "day")
	}
	d.visit(d.app+"/pro/").wants(t, http.StatusPaymentRequired, "past_due")
	d.panelShows("<small>past_due since")
	d.press("card", "person", "ada", "card", "good")
	d.panelShows("<small>active until")
	d.visit(d.app+"/pro/").wants(t, http.StatusOK, "active")
}

func TestDemoLeavesNothing(t *testing.T) {
	startDemo(t).stop() // what Caddy keeps for the life of the process
	before := goleak.IgnoreCurrent()
	d := startDemo(t)
	tmp, data := os.Getenv("TMPDIR"), os.Getenv("XDG_DATA_HOME")
	if left, _ := filepath.Glob(filepath.Join(tmp, "*", "*")); len(left) == 0 {
		t.Error("the demo keeps its files somewhere else")
	}
	d.visit(d.app+"/").wants(t, http.StatusOK)
	d.visit(d.panel).wants(t, http.StatusOK)
	d.client.CloseIdleConnections()
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}
	for _, address := range []string{d.app, d.panel} {
		u, _ := url.Parse(address)
		for deadline := time.Now().Add(demoPatience); ; time.Sleep(time.Millisecond) { // Caddy does not wait for its servers
			c, err := net.Dial("tcp", u.Host)
			if err != nil {
				break
			}
			c.Close()
			if time.Now().After(deadline) {
				t.Fatalf("%s still listens", u.Host)
			}
		}
	}
	for _, dir := range []string{tmp, data} {
		if left, _ := os.ReadDir(dir); len(left) > 0 {
			t.Errorf("%s is left in %s", left, dir)
		}
	}
	goleak.VerifyNone(t, before)
}

func TestDemoEndsWithOpenStreams(t *testing.T) {
	d := startDemo(t)
	d.signIn("ada")
	for _, address := range []string{d.app + "/auth/polar/events", d.panel + "feed"} {
		res, err := d.client.Get(address)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if res.StatusCode != http.StatusOK {
			t.Fatal(address, res.Status)
		}
	}
	defer d.dawdle().Close()
	start := time.Now()
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("it took %s to end", took)
	}
}

// dawdle begins a request of which the body never comes.
func (d *runningTestDemo) dawdle() net.Conn {
	d.t.Helper()
	u, _ := url.Parse(d.app)
	c, err := net.Dial("tcp", u.Host)
	if err != nil {
		d.t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(demoPatience))
	fmt.Fprintf(c, "POST /auth/polar/webhook HTTP/1.1\r\nHost: %s\r\nWebhook-Id: evt_1\r\nWebhook-Timestamp: %d\r\n"+
		"Webhook-Signature: v1,%s\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n", u.Host, time.Now().Unix(), strings.Repeat("A", 43)+"=")
	line, err := bufio.NewReader(c).ReadString('\n')
	if !strings.Contains(line, "100 Continue") {
		d.t.Fatalf("the body is not wanted: %s %v", line, err)
	}
	return c
}

// TestDemoOnEachAddress: a browser may take any that localhost stands for.
func TestDemoOnEachAddress(t *testing.T) {
	d := startDemo(t)
	u, _ := url.Parse(d.app)
	for _, address := range []string{"127.0.0.1", "::1"} {
		if l, err := net.Listen("tcp", net.JoinHostPort(address, "0")); err != nil {
			continue // no IPv6 here
		} else {
			l.Close()
		}
		c, err := net.Dial("tcp", net.JoinHostPort(address, u.Port()))
		if err != nil {
			t.Error(err)
			continue
		}
		c.Close()
	}
}

func TestDemoTakenPort(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		l, err := net.Listen("tcp", address)
		if err != nil && strings.HasPrefix(address, "[") {
			continue // no IPv6 here
		}
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		_, port, _ := net.SplitHostPort(l.Addr().String())
		err = demoError(t, "--listen", "localhost:"+port)
		for _, want := range []string{"port " + port, "localhost", "taken", "--listen localhost:"} {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%v, which does not say %q", err, want)
			}
		}
	}
}

// TestDemoTakenByCaddy: Caddy would share the port with another Caddy.
func TestDemoTakenByCaddy(t *testing.T) {
	d := startDemo(t)
	u, _ := url.Parse(d.app)
	if err := demoError(t, "--listen", u.Host); err == nil || !strings.Contains(err.Error(), "port "+u.Port()) {
		t.Error(err)
	}
}

func TestDemoRefusesAddresses(t *testing.T) {
	for _, listen := range []string{"", "8402", ":8402", "0.0.0.0:8402", "example.com:80", "localhost", "localhost:x", "localhost:70000"} {
		if err := demoError(t, "--listen", listen); err == nil || !strings.Contains(err.Error(), "localhost:8402") {
			t.Errorf("%q: %v", listen, err)
		}
	}
	if err := demoError(t, "more"); err == nil {
		t.Error("an argument is taken")
	}
}

// demoError runs the command, which is to fail.
func demoError(t *testing.T, args ...string) error {
	t.Helper()
	t.Setenv("TMPDIR", t.TempDir())
	ctx, cancel := context.WithTimeout(t.Context(), demoPatience)
	defer cancel()
	cmd := demoCommand()
	cmd.SetArgs(args)
	cmd.SetOut(io.Discard)
	cmd.SetErr(io.Discard)
	err := cmd.ExecuteContext(ctx)
	if left, _ := os.ReadDir(os.Getenv("TMPDIR")); len(left) > 0 {
		t.Errorf("it leaves %s", left)
	}
	return err
}

func TestDemoPrintsAConfiguration(t *testing.T) {
	for name, value := range map[string]string{
		"POLAR_ACCESS_TOKEN": "polar_oat_fake", "POLAR_WEBHOOK_SECRET": testWebhookSecret, "JWT_SECRET": testJWTSecret,
		"POLAR_PRO_PRODUCT": "a", "POLAR_PRO_YEARLY_PRODUCT": "b", "POLAR_TEAM_PRODUCT": "c", "XDG_DATA_HOME": t.TempDir(),
	} {
		t.Setenv(name, value)
	}
	var out bytes.Buffer
	cmd := demoCommand()
	cmd.SetArgs([]string{"--print-config", "--listen", "localhost:18402"})
	cmd.SetOut(&out)
	if err := cmd.Execute(); err != nil {
		t.Fatal(err)
	}
	printed := out.String()
	if formatted := string(caddyfile.Format([]byte(printed))); formatted != printed {
		t.Errorf("caddy fmt would write:\n%s", formatted)
	}
	for _, want := range []string{"http://localhost:18402", "polar_require /pro/* pro", "polar_require /api/team/* team", "{env.POLAR_ACCESS_TOKEN}"} {
		if !strings.Contains(printed, want) {
			t.Errorf("no %q in\n%s", want, printed)
		}
	}
	adapted, err := adapt(printed)
	if err != nil {
		t.Fatal(err)
	}
	cfg := new(caddy.Config)
	if err := json.Unmarshal(adapted, cfg); err != nil {
		t.Fatal(err)
	}
	if err := caddy.Validate(cfg); err != nil {
		t.Fatal(err)
	}
}

// TestDemoKeepsSecretsInFiles: what Caddy is told can be seen by its modules.
func TestDemoKeepsSecretsInFiles(t *testing.T) {
	startDemo(t)
	files, _ := filepath.Glob(filepath.Join(os.Getenv("TMPDIR"), "*", "secret-*"))
	if len(files) != 3 {
		t.Fatalf("secrets are in %s", files)
	}
	app, err := loadApp(caddy.ActiveContext())
	if err != nil {
		t.Fatal(err)
	}
	config, err := json.Marshal(app)
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		info, err := os.Stat(file)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Error(file, info.Mode(), err)
		}
		secret, _ := os.ReadFile(file)
		if len(secret) < 32 || bytes.Contains(config, secret) {
			t.Errorf("%s is in the configuration", file)
		}
	}
}

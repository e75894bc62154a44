package caddypolar

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/caddy-polar/caddy-polar/entitlement"
	"github.com/caddy-polar/caddy-polar/polar"
	"github.com/caddy-polar/caddy-polar/polar/box"
)

// triggered runs `caddy polar trigger`.
func triggered(ctx context.Context, stdin string, args ...string) (said string, err error) {
	var out bytes.Buffer
	cmd := triggerCommand()
	cmd.SetArgs(args)
	cmd.SetIn(strings.NewReader(stdin))
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	err = cmd.ExecuteContext(ctx)
	return out.String(), err
}

// triggerGateway is a gateway's webhook route that listens.
func triggerGateway(t *testing.T) (g *Gateway, url string) {
	t.Helper()
	app, ctx := provisioned(t, "plan pro "+testProduct)
	h := &Handler{}
	if err := h.Provision(ctx); err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := h.ServeHTTP(w, prepared(r, w), handlerFunc(noop)); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(s.Close)
	g, err := app.gateway("")
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(triggerSecretEnv, testWebhookSecret)
	return g, s.URL + "/auth/polar/webhook"
}

func decide(t *testing.T, g *Gateway, user string) entitlement.Decision {
	t.Helper()
	a, err := g.core.Account(user)
	if err != nil {
		t.Fatal(err)
	}
	pro, err := g.core.Rules().Require("pro")
	if err != nil {
		t.Fatal(err)
	}
	return entitlement.Decide(a, pro, g.core.Rules(), g.core.Now())
}

// TestTriggerDecides sends events of one subscription or order after another.
func TestTriggerDecides(t *testing.T) {
	g, url := triggerGateway(t)
	send := func(args ...string) map[string]any {
		t.Helper()
		said, err := triggered(t.Context(), "", append(args, "--url", url, "--product", testProduct, "--json")...)
		if err != nil {
			t.Fatal(args, err)
		}
		var result map[string]any
		if err := json.Unmarshal([]byte(said), &result); err != nil {
			t.Fatal(said, err)
		}
		if result["status"] != 200.0 || result["answer"] != `{"received":true}` || result["event"] != args[0] || result["url"] != url ||
			result["productId"] != testProduct || result["organizationId"] != box.SampleOrganization || result["webhookId"] == "" {
			t.Fatal(said)
		}
		return result
	}
	is := func(user string, allowed bool, reason entitlement.Reason) {
		t.Helper()
		if d := decide(t, g, user); d.Allowed != allowed || d.Reason != reason {
			t.Fatalf("%s: %t %s, want %t %s", user, d.Allowed, d.Reason, allowed, reason)
		}
	}
	is("ada", false, "no_subscription")
	id := send("subscription.active", "--user", "ada")["id"].(string)
	is("ada", true, "active")
	is("usr_demo", false, "no_subscription")
	send("subscription.revoked", "--user", "ada") // of another subscription
	is("ada", true, "active")
	for _, step := range []struct {
		event   string
		allowed bool
		reason  entitlement.Reason
		set     string
	}{
		{"subscription.past_due", true, "past_due_grace", ""},
		{"subscription.active", true, "active", ""},
		{"subscription.canceled", true, "canceling", ""},
		{"subscription.uncanceled", true, "active", ""},
		{"subscription.paused", false, "paused", ""},
		{"subscription.resumed", true, "active", ""},
		{"subscription.cycled", true, "active", ""},
		{"subscription.updated", false, "past_due", "status=past_due"},
		{"subscription.created", true, "active", ""},
		{"subscription.revoked", false, "canceled", ""},
	} {
		args := []string{step.event, "--user", "ada", "--set", "id=" + id}
		if step.set != "" {
			args = append(args, "--set", step.set)
		}
		if got := send(args...)["id"]; got != id {
			t.Fatal(got)
		}
		is("ada", step.allowed, step.reason)
	}
	order := send("order.paid", "--user", "grace")
	if order["user"] != "grace" {
		t.Error(order)
	}
	is("grace", true, "purchased")
	send("order.refunded", "--user", "grace", "--set", "id="+order["id"].(string))
	is("grace", false, "refunded")
	send("subscription.migrated") // of the user that is nobody in particular
	is("usr_demo", true, "active")
}

// TestTriggerOfEachEvent: a gateway understands all of them, signed with all
// kinds of secrets.
func TestTriggerOfEachEvent(t *testing.T) {
	g, url := triggerGateway(t)
	var verifiers []*polar.WebhookVerifier
	secrets := []string{
		testWebhookSecret, "polar_whs_" + strings.Repeat("a", 43), "whsec_" + strings.Repeat("a", 43),
		"whsec_" + base64.StdEncoding.EncodeToString([]byte("obviously-a-fake-secret-of-32-b!")), "0123456789ab4def8123456789abcdef",
	}
	for _, secret := range secrets {
		v, err := polar.NewWebhookVerifier(secret)
		if err != nil {
			t.Fatal(err)
		}
		verifiers = append(verifiers, v)
	}
	for _, event := range box.EventTypes() {
		for i, secret := range secrets {
			var header http.Header
			var body []byte
			r := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				header = r.Header.Clone()
				body, _ = io.ReadAll(r.Body)
			}))
			if _, err := triggered(t.Context(), secret+"\n", event, "--url", r.URL, "--secret-stdin", "--product", testProduct); err != nil {
				t.Fatal(event, err)
			}
			r.Close()
			d, err := polar.ReadDelivery(header, time.Now())
			if err != nil || len(d.ID) != 36 || d.APIVersion != box.Version || header.Get("User-Agent") != "polar.sh webhooks" || header.Get("Content-Type") != "application/json" {
				t.Fatal(event, header, err)
			}
			for j, v := range verifiers {
				if err := v.Verify(d, body); (err == nil) != (i == j) {
					t.Errorf("%s, signed with secret %d: %d says %v", event, i, j, err)
				}
			}
			if i > 0 {
				continue
			}
			receipt, err := g.core.TakeWebhook(t.Context(), d, body)
			open := strings.HasPrefix(event, "checkout.") && receipt.Result == "known" // of no customer yet
			if err != nil || receipt.Type != event || !open && receipt.Result != "applied" && receipt.Result != "ignored" {
				t.Error(event, receipt, err)
			}
		}
		if _, err := triggered(t.Context(), "", event, "--url", url, "--user", "ada", "--product", testProduct); err != nil {
			t.Error(event, err)
		}
	}
}

// TestTriggerSignsAsTold: --legacy takes the whole of a secret that Polar would
// decode.
func TestTriggerSignsAsTold(t *testing.T) {
	key := "obviously-a-fake-secret-of-32-b!"
	secret := "whsec_" + base64.StdEncoding.EncodeToString([]byte(key))
	for flag, want := range map[string]string{"--legacy=false": key, "--legacy": secret} {
		var got, right string
		s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			mac := hmac.New(sha256.New, []byte(want))
			_, _ = io.WriteString(mac, r.Header.Get("Webhook-Id")+"."+r.Header.Get("Webhook-Timestamp")+".")
			_, _ = io.Copy(mac, r.Body)
			got, right = r.Header.Get("Webhook-Signature"), "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil))
		}))
		_, err := triggered(t.Context(), secret, "order.paid", "--url", s.URL, "--secret-stdin", flag)
		s.Close()
		if err != nil || got != right {
			t.Error(flag, got, right, err)
		}
	}
}

// badReceivers are all the answers that are none.
func badReceivers(t *testing.T, secret string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/400", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusBadRequest)
		_, _ = fmt.Fprintf(w, `{"title":"Bad","error":"webhook signature does not match\nreally","code":%q}`, secret)
	})
	mux.HandleFunc("/problem", func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, `{"title":"Bad","error":"Bad signature","detail":"check the secret","message":1}`, http.StatusForbidden)
	})
	mux.HandleFunc("/plain", func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "\n\x1b[31mno: "+secret+"\r\nsecond line", http.StatusUnauthorized)
	})
	mux.HandleFunc("/html", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		w.WriteHeader(http.StatusInternalServerError)
		_, _ = io.WriteString(w, "<!doctype html>\n<html><body>"+strings.Repeat("x", 1<<20))
	})
	mux.HandleFunc("/empty", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
	mux.HandleFunc("/moved", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/taken", http.StatusPermanentRedirect)
	})
	mux.HandleFunc("/taken", func(http.ResponseWriter, *http.Request) { t.Error("it followed a redirect") })
	mux.HandleFunc("/slow", func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	})
	mux.HandleFunc("/cut", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	return mux
}

func TestTriggerFails(t *testing.T) {
	secret := "obviously-a-secret-that-nobody-may-see"
	t.Setenv("TRIGGER_TEST_SECRET", secret)
	t.Setenv(triggerSecretEnv, "")
	mux := badReceivers(t, secret)
	s := httptest.NewServer(mux)
	defer s.Close()
	untrusted := httptest.NewTLSServer(mux)
	defer untrusted.Close()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refusing := "http://" + closed.Addr().String() + "/hook"
	_ = closed.Close()

	with := func(url string, more ...string) []string {
		return append([]string{"order.paid", "--secret-env", "TRIGGER_TEST_SECRET", "--url", url}, more...)
	}
	for name, c := range map[string]struct {
		args  []string
		stdin string
		want  []string
	}{
		"no event":             {nil, "", []string{"which event?", "--list"}},
		"two events":           {[]string{"order.paid", "order.created"}, "", []string{"at most 1 arg"}},
		"unknown event":        {[]string{"subscription.cancelled"}, "", []string{"did you mean subscription.canceled?", "--list"}},
		"unknown event, far":   {[]string{"banana"}, "", []string{`"banana"`, "--list"}},
		"set without value":    {with(s.URL, "--set", "status"), "", []string{"--set", "key=value"}},
		"set of nothing":       {with(s.URL, "--set", "sattus=x"), "", []string{"sattus", "did you mean status?"}},
		"no secret":            {[]string{"order.paid"}, "", []string{"no webhook secret", "POLAR_WEBHOOK_SECRET", "--secret-env", "--secret-stdin"}},
		"no other secret":      {[]string{"order.paid", "--secret-env", "NOT_SET_AT_ALL"}, "", []string{"NOT_SET_AT_ALL"}},
		"a secret for a name":  {[]string{"order.paid", "--secret-env", secret}, "", []string{"the name of an environment variable"}},
		"nothing on stdin":     {[]string{"order.paid", "--secret-stdin"}, "\n", []string{"standard input"}},
		"two secrets":          {with(s.URL, "--secret-stdin"), "x", []string{"secret-env", "secret-stdin"}},
		"no scheme":            {with("localhost:8080/hook"), "", []string{"--url", triggerURL}},
		"no address":           {with("http://user:" + secret + "@:8080 /"), "", []string{"--url", triggerURL}},
		"refused":              {with(refusing), "", []string{refusing, "connection refused", "is Caddy running", "--url"}},
		"no such host":         {with("http://polar.invalid/hook"), "", []string{"http://polar.invalid/hook", "--url"}},
		"password not shown":   {with("http://ada:" + secret + "@" + closed.Addr().String()), "", []string{"ada:xxxxx@"}},
		"untrusted":            {with(untrusted.URL + "/400"), "", []string{"certificate is not trusted", "caddy trust"}},
		"cut":                  {with(s.URL + "/cut"), "", []string{s.URL + "/cut", "EOF"}},
		"400":                  {with(s.URL + "/400"), "", []string{s.URL + "/400 answered 400 Bad Request: webhook signature does not match"}},
		"problem":              {with(s.URL + "/problem"), "", []string{"answered 403 Forbidden: check the secret"}},
		"plain text":           {with(s.URL + "/plain"), "", []string{"answered 401 Unauthorized: [31mno: REDACTED"}},
		"HTML":                 {with(s.URL + "/html"), "", []string{"answered 500 Internal Server Error: <!doctype html>"}},
		"empty":                {with(s.URL + "/empty"), "", []string{"answered 503 Service Unavailable: no more was said"}},
		"moved":                {with(s.URL + "/moved"), "", []string{"answered 308 Permanent Redirect, to /taken", "follows no redirect"}},
		"not there":            {with(s.URL + "/nowhere"), "", []string{"answered 404 Not Found: check the path of --url"}},
		"failure with --json":  {with(s.URL+"/400", "--json"), "", []string{"answered 400"}},
		"not even for --print": {[]string{"order.paid", "--print", "--set", "x"}, "", []string{"--set"}},
	} {
		said, err := triggered(t.Context(), c.stdin, c.args...)
		if err == nil || said != "" {
			t.Errorf("%s: %v, and it says %q", name, err, said)
			continue
		}
		for _, want := range c.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %q lacks %q", name, err, want)
			}
		}
		if text := err.Error(); strings.Contains(text, secret) || strings.ContainsAny(text, "\n\r\x1b") || len(text) > 600 {
			t.Errorf("%s: %q", name, text)
		}
	}
	if triggerClient().Timeout != 10*time.Second {
		t.Error("it does not wait as long as Polar")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := triggered(ctx, "", with(s.URL+"/slow")...); err == nil || !strings.Contains(err.Error(), "no answer within 10s") {
		t.Error(err)
	}
}

func TestTriggerPrints(t *testing.T) {
	secret := "obviously-a-secret-that-nobody-may-see"
	t.Setenv(triggerSecretEnv, secret)
	said, err := triggered(t.Context(), "", "subscription.active", "--print", "--user", "ada", "--product", testProduct, "--set", "customer.name=<b>")
	if err != nil {
		t.Fatal(err)
	}
	head, body, _ := strings.Cut(said, "\n\n")
	if !strings.HasPrefix(head, "POST "+triggerURL+"\ncontent-type: application/json\nuser-agent: polar.sh webhooks\nwebhook-api-version: "+box.Version+"\nwebhook-id: ") {
		t.Error(head)
	}
	event, err := polar.DecodeEvent([]byte(body))
	if err != nil || event.Type != "subscription.active" {
		t.Fatal(event, err)
	}
	sub, err := polar.Decode[polar.Subscription](event.Data)
	if err != nil || sub.ProductID != testProduct || sub.Customer.ExternalID != "ada" {
		t.Error(sub, err)
	}
	asJSON, err := triggered(t.Context(), "", "order.paid", "--print", "--json")
	var printed struct {
		URL     string            `json:"url"`
		Headers map[string]string `json:"headers"`
		Body    struct{ Type string }
	}
	if err != nil || json.Unmarshal([]byte(asJSON), &printed) != nil || printed.Body.Type != "order.paid" || printed.URL != triggerURL || len(printed.Headers) != 5 {
		t.Error(asJSON, err)
	}
	for _, text := range []string{said, asJSON} {
		if strings.Contains(text, secret) || strings.Contains(strings.ToLower(text), "webhook-signature") {
			t.Error(text)
		}
	}
	for args, want := range map[string]string{"--list": "checkout.created\n", "--list --json": `"organization.updated"`} {
		if list, err := triggered(t.Context(), "", strings.Fields(args)...); err != nil || !strings.Contains(list, want) || strings.Count(list, "\n") < 42 {
			t.Error(list, err)
		}
	}
}

// TestTriggerSays what is needed for the event that follows.
func TestTriggerSays(t *testing.T) {
	_, url := triggerGateway(t)
	said, err := triggered(t.Context(), "", "subscription.active", "--user", "ada", "--url", url, "--set", "id=2b0f5c1e-7d0e-4f6a-9a3c-1f0d2e3c4b5a")
	for _, want := range []string{
		"subscription.active sent to " + url, `200 {"received":true}`, "ada", "id            2b0f5c1e-7d0e-4f6a-9a3c-1f0d2e3c4b5a", box.SampleOrganization,
	} {
		if err != nil || !strings.Contains(said, want) {
			t.Error(want, said, err)
		}
	}
	if strings.Contains(said, testWebhookSecret) {
		t.Error(said)
	}
	// Caddy answers 200 where it has nothing to say.
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer s.Close()
	if said, err := triggered(t.Context(), "", "order.paid", "--url", s.URL); err != nil || !strings.Contains(said, "is it the right address?") {
		t.Error(said, err)
	}
}

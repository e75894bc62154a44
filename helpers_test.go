package caddypolar

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	_ "github.com/caddyserver/caddy/v2/modules/standard"
	"github.com/golang-jwt/jwt/v5"
)

const (
	testJWTSecret     = "obviously-a-fake-jwt-secret-of-more-than-32-bytes"
	testWebhookSecret = "obviously-a-fake-webhook-secret-of-32-bytes"
	testProduct       = "59ba1b0d-5c90-4158-a909-406c2e416788"
	testUser          = "usr_7f3c1a9e"
)

// token makes a HS256 token for a user, with claims changed or removed (nil).
func token(t testing.TB, user any, change map[string]any) string {
	t.Helper()
	claims := jwt.MapClaims{"sub": user, "exp": time.Now().Add(time.Hour).Unix()}
	for k, v := range change {
		claims[k] = v
		if v == nil {
			delete(claims, k)
		}
	}
	s, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString([]byte(testJWTSecret))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// payload reads one of Polar's bodies and changes fields of its data.
func payload(t testing.TB, name string, change map[string]any) []byte {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("testdata", "polar", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	var event map[string]any
	if err := json.Unmarshal(raw, &event); err != nil {
		t.Fatal(err)
	}
	data := event["data"].(map[string]any)
	for k, v := range change {
		data[k] = v
	}
	body, err := json.Marshal(event)
	if err != nil {
		t.Fatal(err)
	}
	return body
}

// activeNow is a subscription.active whose period holds now.
func activeNow(t testing.TB) []byte {
	now := time.Now().UTC()
	return payload(t, "subscription.active", map[string]any{
		"created_at":           now.Add(-time.Hour),
		"current_period_start": now.Add(-time.Hour),
		"current_period_end":   now.Add(30 * 24 * time.Hour),
	})
}

// signed makes a webhook request as Polar does.
func signed(t testing.TB, url string, body []byte) *http.Request {
	t.Helper()
	sent := strconv.FormatInt(time.Now().Unix(), 10)
	id := fmt.Sprintf("evt_%x", sha256.Sum256(body))[:40]
	mac := hmac.New(sha256.New, []byte(testWebhookSecret))
	mac.Write([]byte(id + "." + sent + "."))
	mac.Write(body)
	r, err := http.NewRequest(http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Webhook-Id", id)
	r.Header.Set("Webhook-Timestamp", sent)
	r.Header.Set("Webhook-Signature", "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	return r
}

// adapt turns a Caddyfile into JSON.
func adapt(config string) ([]byte, error) {
	body, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(config), map[string]any{"filename": "Caddyfile"})
	return body, err
}

// globals are global options around a polar block.
func globals(t testing.TB, polar string) string {
	return fmt.Sprintf(`{
	admin off
	auto_https off
	persist_config off
	storage file_system %s
	polar {
		webhook_secret %s
		jwt secret %s
		store bolt {
			path %s
		}
		%s
	}
}
`, t.TempDir(), testWebhookSecret, testJWTSecret, filepath.Join(t.TempDir(), "polar.db"), polar)
}

// provisioned is the app of a polar block, without a server.
func provisioned(t testing.TB, polar string) (*App, caddy.Context) {
	t.Helper()
	return provisionedFrom(t, globals(t, polar))
}

// provisionedFrom is the app of a whole Caddyfile.
func provisionedFrom(t testing.TB, caddyfile string) (*App, caddy.Context) {
	t.Helper()
	t.Setenv("XDG_DATA_HOME", t.TempDir())
	config, err := adapt(caddyfile)
	if err != nil {
		t.Fatal(err)
	}
	cfg := new(caddy.Config)
	if err := json.Unmarshal(config, cfg); err != nil {
		t.Fatal(err)
	}
	ctx, err := caddy.ProvisionContext(cfg)
	if err != nil {
		t.Fatal(err)
	}
	app, err := loadApp(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := app.Cleanup(); err != nil {
			t.Error(err)
		}
	})
	if err := app.Start(); err != nil {
		t.Fatal(err)
	}
	return app, ctx
}

// prepared is a request as Caddy's server hands it to a handler.
func prepared(r *http.Request, w http.ResponseWriter) *http.Request {
	return caddyhttp.PrepareRequest(r, caddy.NewReplacer(), w, nil)
}

// take gives the gateway a webhook.
func take(t testing.TB, g *Gateway, body []byte) {
	t.Helper()
	r := signed(t, "http://localhost/auth/polar/webhook", body)
	delivery, err := g.core.ReadDelivery(r.Header)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := g.core.TakeWebhook(context.Background(), delivery, body); err != nil {
		t.Fatal(err)
	}
}

type handlerFunc = caddyhttp.HandlerFunc

func noop(http.ResponseWriter, *http.Request) error { return nil }

func newRecorder() *httptest.ResponseRecorder { return httptest.NewRecorder() }

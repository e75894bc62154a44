package caddypolar

import (
	"context"
	"errors"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"

	"github.com/caddy-polar/caddy-polar/gateway"
)

// listener is told of Caddy's events.
type listener chan caddy.Event

func (l listener) Handle(_ context.Context, e caddy.Event) error {
	l <- e
	return nil
}

func TestEvents(t *testing.T) {
	heard := make(listener, 10)
	app, ctx := provisioned(t, "webhook_secret "+testWebhookSecret+"\nplan pro "+testProduct)
	events, err := ctx.App("events")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"polar_subscription_changed", "polar_webhook_endpoint_disabled", "polar_sync_failed"} {
		if err := events.(*caddyevents.App).On(name, heard); err != nil {
			t.Fatal(err)
		}
	}
	g := app.Gateways[defaultGateway]
	take(t, g, activeNow(t))
	e := <-heard
	if e.Name() != "polar_subscription_changed" {
		t.Errorf("heard %s", e.Name())
	}
	for key, want := range map[string]any{
		"gateway": "default", "user": testUser, "product": testProduct, "status": "active", "previous_status": "",
		"allowed": true, "reason": "active",
	} {
		if got := e.Data[key]; got != want {
			t.Errorf("%s is %v, want %v", key, got, want)
		}
	}
	if e.Data["customer"] == "" || e.Data["subscription"] == "" || e.Data["until"] == "" {
		t.Errorf("%v", e.Data)
	}
	g.endpointChanged(gateway.EndpointHealth{Problem: gateway.EndpointDisabled, URL: "https://app.example.com/x"})
	if e := <-heard; e.Name() != "polar_webhook_endpoint_disabled" || e.Data["url"] != "https://app.example.com/x" {
		t.Errorf("heard %s %v", e.Name(), e.Data)
	}
	g.syncFailed(errors.New("no answer"))
	if e := <-heard; e.Name() != "polar_sync_failed" || e.Data["error"] != "no answer" {
		t.Errorf("heard %s %v", e.Name(), e.Data)
	}
}

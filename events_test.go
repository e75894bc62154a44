package caddypolar

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"

	"github.com/caddy-polar/caddy-polar/gateway"
)

func init() {
	caddy.RegisterModule(new(listener))
}

// listener is a handler of events, as an operator would subscribe it:
//
//	events {
//		on polar_subscription_changed polar_test
//	}
type listener struct {
	heard chan caddy.Event
	hold  chan struct{} // each event waits here, unless it is nil
}

// CaddyModule returns the Caddy module information.
func (*listener) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "events.handlers.polar_test",
		New: func() caddy.Module { return &listener{heard: make(chan caddy.Event, 100)} },
	}
}

// Handle implements caddyevents.Handler.
func (l *listener) Handle(_ context.Context, e caddy.Event) error {
	if l.hold != nil {
		<-l.hold
	}
	l.heard <- e
	return nil
}

// UnmarshalCaddyfile takes no words.
func (l *listener) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	return nil
}

// listening is a gateway with somebody subscribed to all events.
func listening(t *testing.T) (*Gateway, *listener) {
	t.Helper()
	app, ctx := provisionedFrom(t, strings.Replace(globals(t, "plan pro "+testProduct), "{", `{
	events {
		on polar_subscription_changed polar_test
		on polar_webhook_endpoint_disabled polar_test
		on polar_sync_failed polar_test
	}`, 1))
	loaded, err := ctx.App("events")
	if err != nil {
		t.Fatal(err)
	}
	events := loaded.(*caddyevents.App)
	if err := events.Start(); err != nil {
		t.Fatal(err)
	}
	// There is one handler for each subscription: let them speak with one voice.
	first := events.Subscriptions[0].Handlers[0].(*listener)
	for _, s := range events.Subscriptions[1:] {
		s.Handlers[0].(*listener).heard = first.heard
	}
	return app.Gateways[defaultGateway], first
}

// is compares the next event with what was expected of it.
func (l *listener) is(t *testing.T, name string, data map[string]any, keys ...string) {
	t.Helper()
	e := <-l.heard
	if e.Name() != name {
		t.Errorf("heard %s, want %s", e.Name(), name)
	}
	for key, want := range data {
		if got := e.Data[key]; got != want {
			t.Errorf("%s: %s is %v, want %v", name, key, got, want)
		}
		keys = append(keys, key)
	}
	for key, value := range e.Data {
		if !slices.Contains(keys, key) || value == nil {
			t.Errorf("%s: %s is %v, and was not expected", name, key, value)
		}
	}
	if len(e.Data) != len(keys) {
		t.Errorf("%s has %d of %d data", name, len(e.Data), len(keys))
	}
}

func TestEvents(t *testing.T) {
	g, l := listening(t)
	began := time.Now().UTC().Truncate(time.Second)
	subscription := func(status, before string, allowed bool, reason string, until any) map[string]any {
		return map[string]any{
			"gateway": "default", "user": testUser, "customer": "1509bb0a-9bf1-4331-8a11-8783593942a4",
			"subscription": "627bf322-5fac-4cb6-a34a-cb115ee347dd", "product": testProduct,
			"status": status, "previous_status": before, "allowed": allowed, "reason": reason, "until": until,
		}
	}
	changed := func(change map[string]any) []byte {
		all := map[string]any{
			"created_at": began.Add(-time.Hour), "current_period_start": began.Add(-time.Hour), "current_period_end": began.Add(time.Hour),
		}
		for key, value := range change {
			all[key] = value
		}
		return payload(t, "subscription.active", all)
	}
	take(t, g, changed(nil))
	l.is(t, "polar_subscription_changed", subscription("active", "", true, "active", began.Add(time.Hour).Format(time.RFC3339)))
	take(t, g, changed(nil)) // nothing new
	ended := began.Add(-time.Minute)
	take(t, g, changed(map[string]any{"status": "canceled", "modified_at": began, "ended_at": ended}))
	l.is(t, "polar_subscription_changed", subscription("canceled", "active", false, "canceled", ended.Format(time.RFC3339)))
	g.endpointChanged(gateway.EndpointHealth{Problem: gateway.EndpointDisabled, URL: "https://app.example.com/x"})
	g.endpointChanged(gateway.EndpointHealth{URL: "https://app.example.com/x"}) // fine again
	l.is(t, "polar_webhook_endpoint_disabled", map[string]any{"gateway": "default", "url": "https://app.example.com/x"})
	g.syncFailed(errors.New("no answer"))
	l.is(t, "polar_sync_failed", map[string]any{"gateway": "default", "error": "no answer"})
	if len(l.heard) != 0 {
		t.Errorf("heard more: %v", (<-l.heard).Data)
	}
}

// TestEventsHoldUpNoWebhook: whoever listens may take as long as they want.
func TestEventsHoldUpNoWebhook(t *testing.T) {
	g, l := listening(t)
	l.hold = make(chan struct{})
	const webhooks = 20
	taken := make(chan struct{})
	go func() {
		defer close(taken)
		for i := range webhooks {
			take(t, g, payload(t, "subscription.active", map[string]any{"id": fmt.Sprint("s", i), "created_at": time.Now().UTC()}))
		}
	}()
	select {
	case <-taken:
	case <-time.After(time.Minute):
		t.Error("webhooks wait for the handler of an event")
	}
	if len(l.heard) != 0 {
		t.Error("the handler did not wait")
	}
	close(l.hold)
	for range webhooks {
		<-l.heard
	}
}

// Interface guards
var (
	_ caddyevents.Handler   = (*listener)(nil)
	_ caddyfile.Unmarshaler = (*listener)(nil)
)

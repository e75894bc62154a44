package integration

import (
	"strings"
	"testing"

	"github.com/caddy-polar/caddy-polar/polar/box"
)

// TestDoctor: a shop that is set up well has nothing to mend, and one that was broken
// at Polar has just that.
func TestDoctor(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.start(t, s.caddyfile(syncing, s.paywall(t, "app")))
	endpoint := s.box.AddEndpoint(box.Endpoint{URL: s.origin() + "/auth/polar/webhook", Secret: webhookSecret})
	s.tells(t, "sync")
	healthy := s.tells(t, "doctor")
	wants(t, healthy, "error 0, ", "write_scopes", "a signed webhook to the address has reached this gateway")
	s.buy(t, "ada", "pro")
	wants(t, s.tells(t, "doctor"), "whether the access token has customer_sessions:write\n", "all events of the last day that were tried have arrived")

	v := s.tellsJSON(t, "doctor")
	for _, f := range v["findings"].([]any) {
		f := f.(object)
		id := f["id"].(string)
		if f["severity"] != "ok" && id != "write_scopes" && !strings.HasPrefix(id, "disk_") { // whatever the disk is like here
			t.Error(f)
		}
	}
	if _, err := s.box.UpdateEndpoint(endpoint.ID, box.EndpointUpdate{Enabled: new(bool)}); err != nil {
		t.Fatal(err)
	}
	out, said, err := s.polar("doctor")
	if err == nil || !strings.HasSuffix(strings.TrimSpace(said), ": webhook_enabled") {
		t.Errorf("%v: %s", err, said)
	}
	wants(t, out, "error 1, ", "ERROR\n  webhook_enabled  Polar has disabled the endpoint")
	for _, secret := range []string{webhookSecret, jwtSecret, s.env["POLAR_ACCESS_TOKEN"], "@example.com"} {
		if strings.Contains(healthy+out+said, secret) {
			t.Errorf("%q is told", secret)
		}
	}
}

package caddypolar

import (
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/caddy-polar/caddy-polar/gateway"
)

// seatedOrganization is an organization with seats. claims and loses tell of one of
// its people.
type seatedOrganization struct {
	t        *testing.T
	g        *Gateway
	gate     *Gate
	now, end time.Time
}

const (
	seatsSub = "7c1d1f0e-0000-4000-8000-000000000001"
	seatsCus = "7c1d1f0e-0000-4000-8000-000000000002"
)

func newSeatedOrganization(t *testing.T) *seatedOrganization {
	g, gate := proGate(t, "jwt {\nsecret "+testJWTSecret+"\nfrom header X-Member\ncustomer_claim org_id\n}")
	o := &seatedOrganization{t, g, gate, time.Now(), time.Now().Add(24 * time.Hour)}
	take(t, g, payload(t, "subscription.active", map[string]any{
		"id": seatsSub, "customer_id": seatsCus, "seats": 3, "created_at": o.now, "modified_at": o.now, "metadata": map[string]any{},
		"customer":             map[string]any{"id": seatsCus, "created_at": o.now, "modified_at": o.now, "external_id": "acme", "email": "boss@example.com"},
		"current_period_start": o.now, "current_period_end": o.end,
	}))
	return o
}

func (o *seatedOrganization) tell(event, n, user, role string, at time.Time) {
	o.t.Helper()
	member := "7c1d1f0e-0000-4000-8000-00000000010" + n
	take(o.t, o.g, payload(o.t, event, map[string]any{
		"id": "7c1d1f0e-0000-4000-8000-00000000020" + n, "subscription_id": seatsSub, "order_id": nil, "customer_id": seatsCus,
		"member_id": member, "created_at": o.now, "modified_at": at, "revoked_at": at,
		"member": map[string]any{
			"id": member, "created_at": o.now, "modified_at": o.now, "customer_id": seatsCus,
			"email": user + "@example.com", "external_id": user, "role": role,
		},
	}))
}

// ask lets ann ask, in the name of the organization.
func (o *seatedOrganization) ask(next handlerFunc) {
	o.t.Helper()
	w := newRecorder()
	r := mustRequest(o.t, "http://localhost/pro").WithContext(o.t.Context())
	r.Header.Set("X-Member", token(o.t, "ann", map[string]any{"org_id": "acme", "exp": time.Now().Add(time.Minute).Unix()}))
	_ = o.gate.ServeHTTP(w, prepared(r, w), next)
}

// The answer of somebody with a seat goes on as long as the seat is theirs, whoever
// has bought it and whatever seat the organization's own is.
func TestStreamOfASeat(t *testing.T) {
	bubble(t, func(t *testing.T) {
		o := newSeatedOrganization(t)
		o.tell("customer_seat.claimed", "1", "acme", "owner", o.now)
		o.ask(func(http.ResponseWriter, *http.Request) error { t.Error("let in without a seat"); return nil })
		o.tell("customer_seat.claimed", "2", "ann", "member", o.now)
		asked := false
		o.ask(func(w http.ResponseWriter, r *http.Request) error {
			asked = true
			_, _ = io.WriteString(w, "data: 1\n\n")
			select {
			case <-r.Context().Done():
				t.Error("ended while the seat was hers")
			case <-time.After(time.Hour):
			}
			o.tell("customer_seat.revoked", "2", "ann", "member", time.Now())
			select {
			case <-r.Context().Done():
			case <-time.After(time.Hour):
				t.Error("went on without the seat")
			}
			return nil
		})
		if !asked {
			t.Error("kept out with a seat")
		}
		o.ask(func(http.ResponseWriter, *http.Request) error { t.Error("let in after it"); return nil })
	})
}

// What is told of events is what the gate says.
func TestEventsOfASeat(t *testing.T) {
	o := newSeatedOrganization(t)
	o.tell("customer_seat.claimed", "1", "acme", "owner", o.now)
	for person, want := range map[string]bool{"ann": true, "bob": false} {
		if person == "ann" {
			o.tell("customer_seat.claimed", "2", "ann", "member", o.now)
		}
		w := newRecorder()
		s := stream{w: w, control: http.NewResponseController(w), g: o.g, user: person, who: gateway.Visitor{User: "acme", Person: person}}
		s.tell()
		a, err := o.g.core.AccountOf(s.who)
		if err != nil {
			t.Fatal(err)
		}
		if got := viewEntitlements(person, a, o.g.core.Rules(), o.now).Plans["pro"].Allowed; got != want || s.last == nil {
			t.Errorf("%s: %v, told %s", person, got, s.last)
		}
	}
}

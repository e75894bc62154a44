package jwks

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestProbe: what is published now is told beside what is held, and replaces nothing.
func TestProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		from := newIssuer(ids(1))
		s, _ := started(t, from, Config{})
		sleep(time.Second)
		before := generation(t, s)
		from.answers(http.StatusOK, set(jwk(edKeys()[2], "2", nil), jwk(rsaKey(), "enc", object{"use": "enc"})))
		p := s.Probe(t.Context(), time.Now())
		if p.Err != nil || len(p.Keys) != 1 || !p.Keys[0].Verifies([]string{"RS256", "EdDSA"}) || p.Keys[0].Verifies([]string{"RS256"}) ||
			!p.Keys[0].Verifies(nil) || len(p.Left) != 1 || p.Held != 1 || p.Fetched.IsZero() {
			t.Errorf("%+v", p)
		}
		if strings.Contains(p.Place, "apikey") || !strings.HasPrefix(p.Place, "https://id.example/keys") {
			t.Error(p.Place)
		}
		from.answers(http.StatusNotFound, "")
		if p := s.Probe(t.Context(), time.Now()); !errors.Is(p.Err, ErrRefused) || len(p.Keys) != 0 || p.Held != 1 {
			t.Errorf("%+v", p)
		}
		if generation(t, s) != before {
			t.Error("a probe has changed the keys")
		}
	})
}

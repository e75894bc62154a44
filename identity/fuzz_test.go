package identity

import (
	"context"
	"errors"
	"testing"
	"time"
)

// FuzzClaims: whatever an issuer has signed, who it names can be named, in time, and by
// a customer of their own or one that is as usable.
func FuzzClaims(f *testing.F) {
	for _, payload := range []string{
		`null`, `{}`, `[]`, `{"sub":"ada","exp":1e12}`, `{"sub":42,"exp":4102444800}`, `{"sub":"a\u0000","exp":4102444800}`, `{"sub":"ada","exp":4102444800,"exp":0}`,
		`{"sub":"ada","exp":4102444800,"email":"a@b","email_verified":"true","org":{"id":"o1","role":["admin"]}}`, `{"sub":"ada","exp":-1,"nbf":"x"}`,
		`{"sub":"ada","exp":253402300800}`, `{"sub":"ada","exp":4102444800.5,"org":{"id":null}}`, "\xff", `{"sub":"\ud800","exp":4102444800}`,
	} {
		f.Add(payload)
	}
	v := verifier(f, Block{Secret: secretA, CustomerClaims: []string{"org.id"}})
	f.Fuzz(func(t *testing.T, payload string) {
		id, err := v.Identify(context.Background(), bearerHeader(raw(payload)), now)
		if err != nil {
			if !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrExpired) && !errors.Is(err, ErrCustomer) {
				t.Fatalf("%q: %v", payload, err)
			}
			return
		}
		if id.User == "" || !Usable(id.User) || id.Customer != "" && !Usable(id.Customer) {
			t.Fatalf("%q names %+v", payload, id)
		}
		if !id.Expires.After(now.Add(-time.Hour)) || id.Expires.Year() > 9999 || id.EmailVerified && id.Email == "" {
			t.Fatalf("%q is %+v", payload, id)
		}
	})
}

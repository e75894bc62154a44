package jwks

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
)

func TestParse(t *testing.T) {
	good := jwk(edKeys()[0], "good", nil)
	small := must(rsa.GenerateKey(rand.Reader, 1024))
	private := func(key any) object {
		var o object
		if err := json.Unmarshal(must(json.Marshal(jose.JSONWebKey{Key: key, KeyID: "k"})), &o); err != nil {
			t.Fatal(err)
		}
		return o
	}
	for name, test := range map[string]struct {
		key  object
		left string // why it is left out, "" if it is not
	}{
		"RSA":                       {jwk(rsaKey(), "k", nil), ""},
		"EC":                        {jwk(ecKey(), "k", nil), ""},
		"P-384":                     {jwk(must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader)), "k", nil), ""},
		"P-521":                     {jwk(must(ecdsa.GenerateKey(elliptic.P521(), rand.Reader)), "k", nil), ""},
		"Ed25519":                   {jwk(edKeys()[1], "k", nil), ""},
		"alg EdDSA":                 {jwk(edKeys()[1], "k", object{"alg": "EdDSA"}), ""},
		"alg Ed25519":               {jwk(edKeys()[1], "k", object{"alg": "Ed25519"}), ""},
		"no id":                     {jwk(edKeys()[1], "", nil), ""},
		"use and key_ops":           {jwk(rsaKey(), "k", object{"use": "sig", "key_ops": []string{"verify"}, "alg": "PS256"}), ""},
		"a certificate we ignore":   {jwk(rsaKey(), "k", object{"x5c": []string{"bm8gY2VydA=="}, "x5t": "x", "x5u": ":"}), ""},
		"unknown members":           {jwk(rsaKey(), "k", object{"ext": true, "nbf": 5}), ""},
		"use enc":                   {jwk(rsaKey(), "k", object{"use": "enc"}), "use"},
		"use SIG":                   {jwk(rsaKey(), "k", object{"use": "SIG"}), "use"},
		"key_ops without verify":    {jwk(rsaKey(), "k", object{"key_ops": []string{"encrypt", "sign"}}), "use"},
		"no key_ops":                {jwk(rsaKey(), "k", object{"key_ops": []string{}}), "use"},
		"symmetric":                 {object{"kty": "oct", "kid": "k", "k": "c2VjcmV0"}, "symmetric"},
		"with a secret":             {jwk(edKeys()[1], "k", object{"k": "c2VjcmV0"}), "symmetric"},
		"private RSA":               {private(rsaKey()), "private"},
		"private EC":                {private(ecKey()), "private"},
		"private Ed25519":           {private(edKeys()[1]), "private"},
		"a prime":                   {jwk(rsaKey(), "k", object{"p": "AQAB"}), "private"},
		"a private null":            {jwk(edKeys()[1], "k", object{"d": ""}), "private"},
		"small RSA":                 {jwk(small, "k", nil), "2048"},
		"huge RSA":                  {jwk(rsaKey(), "k", object{"n": base64.RawURLEncoding.EncodeToString(make255(2048))}), "read"},
		"alg of another type":       {jwk(rsaKey(), "k", object{"alg": "ES256"}), "does not fit"},
		"alg none":                  {jwk(rsaKey(), "k", object{"alg": "none"}), "none"},
		"alg HS256":                 {jwk(rsaKey(), "k", object{"alg": "HS256"}), "does not fit"},
		"alg of another curve":      {jwk(ecKey(), "k", object{"alg": "ES384"}), "does not fit"},
		"alg for encryption":        {jwk(rsaKey(), "k", object{"alg": "RSA-OAEP"}), "does not fit"},
		"long alg":                  {jwk(rsaKey(), "k", object{"alg": strings.Repeat("x", 10_000)}), "not allowed"},
		"alg is no string":          {jwk(rsaKey(), "k", object{"alg": 5}), "read"},
		"id is no string":           {jwk(rsaKey(), "k", object{"kid": 5}), "read"},
		"not on the curve":          {jwk(ecKey(), "k", object{"y": jwk(ecKey(), "", nil)["x"]}), "read"},
		"secp256k1":                 {jwk(ecKey(), "k", object{"crv": "secp256k1"}), "read"},
		"X25519":                    {jwk(edKeys()[1], "k", object{"crv": "X25519"}), "read"},
		"short Ed25519":             {jwk(edKeys()[1], "k", object{"x": "AAAA"}), "read"},
		"unknown type":              {object{"kty": "AKP", "kid": "k", "pub": "AAAA"}, "read"},
		"no type":                   {jwk(rsaKey(), "k", object{"kty": nil}), "read"},
		"no modulus":                {jwk(rsaKey(), "k", object{"n": nil}), "read"},
		"no base64":                 {jwk(rsaKey(), "k", object{"n": "!!"}), "read"},
		"null":                      {nil, "read"},
		"a long id that is refused": {jwk(rsaKey(), strings.Repeat("k", 10_000), object{"use": "enc"}), "use"},
	} {
		t.Run(name, func(t *testing.T) {
			doc, err := parse([]byte(set(test.key, good)))
			if err != nil {
				t.Fatal(err)
			}
			n := 2
			if test.left != "" {
				n = 1
				if len(doc.left) != 1 || !strings.Contains(doc.left[0], test.left) || len(doc.left[0]) > maxShown+maxReason+10 {
					t.Errorf("left out: %q, want %q", doc.left, test.left)
				}
				if kid, _ := test.key["kid"].(string); !strings.Contains(fmt.Sprint(doc.left), kid[:min(len(kid), maxShown)]) {
					t.Errorf("%q does not name %q", doc.left, kid)
				}
			}
			if len(doc.keys) != n || doc.keys[n-1].jwk.KeyID != "good" {
				t.Errorf("%d keys, want %d; left out: %q", len(doc.keys), n, doc.left)
			}
			for _, secret := range []string{"c2VjcmV0", "AQAB"} {
				if strings.Contains(fmt.Sprint(doc.left), secret) {
					t.Error("the reason shows key material")
				}
			}
		})
	}
}

func make255(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = 255
	}
	return b
}

func TestParseDuplicates(t *testing.T) {
	one, two := jwk(edKeys()[1], "k", nil), jwk(edKeys()[2], "k", nil)
	doc := must(parse([]byte(set(one, two, one, jwk(edKeys()[1], "other", nil)))))
	if len(doc.keys) != 3 || len(doc.left) != 0 {
		t.Errorf("%d keys, left out: %q", len(doc.keys), doc.left)
	}
	// One member twice is nothing we choose from.
	text := strings.Replace(set(one), `"kid":"k"`, `"use":"enc","use":"sig","kid":"k"`, 1)
	if _, err := parse([]byte(text)); !errors.Is(err, errEmpty) {
		t.Errorf("a member that is there twice: %v", err)
	}
}

func TestParseMany(t *testing.T) {
	var keys []object
	for i := range maxKeys + 50 {
		keys = append(keys, jwk(edKeys()[0], fmt.Sprint(i), nil))
	}
	doc := must(parse([]byte(set(keys...))))
	if len(doc.keys) != maxKeys || len(doc.left) != 1 {
		t.Errorf("%d keys, left out: %q", len(doc.keys), doc.left)
	}
}

func TestRecord(t *testing.T) {
	doc := must(parse([]byte(set(jwk(rsaKey(), "a", object{"alg": "RS256"}), jwk(edKeys()[0], "", object{"alg": "Ed25519"}), jwk(ecKey(), "<b>\x00", nil)))))
	again, _, err := readRecord(must((&snapshot{keys: doc.keys}).record()))
	if err != nil || len(again.keys) != 3 {
		t.Fatalf("%d keys, %v, %v", len(again.keys), again.left, err)
	}
	for i, k := range again.keys {
		if k.print != doc.keys[i].print {
			t.Errorf("key %d is another one after it was written down", i)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(ids(0, 1)))
	f.Add([]byte(set(jwk(rsaKey(), "a", object{"alg": "RS256", "use": "sig"}), jwk(ecKey(), "b", object{"key_ops": []string{"verify"}}))))
	f.Add([]byte(`{"keys":[{"kty":"oct","k":"AAAA"},{"kty":"RSA","n":"AQ","e":"AQAB","d":""},null,5,"x",[]]}`))
	f.Add([]byte(`{"keys":[{"kty":"EC","crv":"P-256","x":"","y":""},{"kty":"OKP","crv":"Ed25519","x":null}]}`))
	f.Add([]byte(`<html>`))
	f.Fuzz(func(t *testing.T, body []byte) {
		doc, err := parse(body)
		if err != nil {
			if !errors.Is(err, ErrUnusable) {
				t.Fatal(err)
			}
			return
		}
		if len(doc.keys) == 0 || len(doc.keys) > maxKeys {
			t.Fatalf("%d keys", len(doc.keys))
		}
		for _, k := range doc.keys {
			if !k.jwk.IsPublic() || !k.jwk.Valid() {
				t.Fatalf("a key of %T", k.jwk.Key)
			}
		}
		// What is written down is read again.
		again, _, err := readRecord(must((&snapshot{keys: doc.keys}).record()))
		if err != nil || len(again.keys) != len(doc.keys) || len(again.left) != 0 {
			t.Fatalf("%d keys became %d: %v, %v", len(doc.keys), len(again.keys), err, again.left)
		}
	})
}

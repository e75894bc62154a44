package demo

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"time"
)

// person is somebody who can sign in, without a password.
type person struct{ ID, Name, Email string }

var people = []person{
	{"ada", "Ada Lovelace", "ada@example.com"},
	{"grace", "Grace Hopper", "grace@example.com"},
	{"linus", "Linus Pauling", "linus@example.com"},
}

func personByID(id string) (person, bool) {
	for _, p := range people {
		if p.ID == id {
			return p, true
		}
	}
	return person{}, false
}

// tokenLife is for how long a person stays signed in, on the real clock: the
// demo's own can be moved by years.
const tokenLife = 12 * time.Hour

// token makes the JWT that names a person, as any app would.
func (d *Demo) token(p person) string {
	now := time.Now()
	header, _ := json.Marshal(map[string]string{"alg": "HS256", "typ": "JWT"})
	claims, _ := json.Marshal(map[string]any{
		"sub": p.ID, "name": p.Name, "email": p.Email, "email_verified": true,
		"iat": now.Unix(), "exp": now.Add(tokenLife).Unix(),
	})
	encode := base64.RawURLEncoding.EncodeToString
	signed := encode(header) + "." + encode(claims)
	mac := hmac.New(sha256.New, []byte(d.JWTSecret))
	mac.Write([]byte(signed))
	return signed + "." + encode(mac.Sum(nil))
}

package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"hash"
	"time"
)

// mint makes HS256 tokens by the thousand, each another one and all of about
// the length of the others here. It is not safe for concurrent use.
type mint struct {
	issuer string
	expire int64
	mac    hash.Hash
}

func newMint(secret, issuer string) *mint {
	return &mint{issuer: issuer, expire: time.Now().Add(24 * time.Hour).Unix(), mac: hmac.New(sha256.New, []byte(secret))}
}

var mintHeader = base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"HS256","typ":"JWT"}`))

// token appends a user's token with a serial number. A forged one has a
// signature that looks as good as any.
func (m *mint) token(to []byte, user string, serial uint64, forged bool) []byte {
	begin := len(to)
	to = append(append(to, mintHeader...), '.')
	to = base64.RawURLEncoding.AppendEncode(to, fmt.Appendf(nil,
		`{"iss":%q,"sub":%q,"aud":%q,"iat":%d,"exp":%d,"email":"%s@example.com","email_verified":true,"roles":["authp/user"],"sid":"session-%016d"}`,
		m.issuer, user, audience, m.expire-86400, m.expire, user, serial))
	m.mac.Reset()
	m.mac.Write(to[begin:])
	if forged {
		m.mac.Write([]byte("forged"))
	}
	return base64.RawURLEncoding.AppendEncode(append(to, '.'), m.mac.Sum(nil))
}

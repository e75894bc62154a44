package gateway

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"strings"

	"github.com/caddy-polar/caddy-polar/cache"
)

// MarkField is the metadata key by which a purchase names its user. Metadata
// from anywhere else proves nothing: Polar's own adapters let browsers write
// it. So the value carries our MAC.
const MarkField = "polar_gateway"

const markVersion = "v1"

// mark is the value that names a user: v1.<base64url user>.<MAC>.
func mark(key []byte, user string) string {
	head := markVersion + "." + base64.RawURLEncoding.EncodeToString([]byte(user))
	return head + "." + base64.RawURLEncoding.EncodeToString(markMAC(key, head))
}

// markedUser is whom the value names, or "" if no key of ours has made it.
func markedUser(keys [][]byte, value string) string {
	head, encoded, ok := cutLast(value, ".")
	if !ok {
		return ""
	}
	version, name, ok := strings.Cut(head, ".")
	if !ok || version != markVersion {
		return ""
	}
	mac, err := base64.RawURLEncoding.DecodeString(encoded)
	if err != nil {
		return ""
	}
	authentic := false
	for _, key := range keys {
		if hmac.Equal(mac, markMAC(key, head)) {
			authentic = true
		}
	}
	user, err := base64.RawURLEncoding.DecodeString(name)
	if !authentic || err != nil || !cache.ValidUser(string(user)) {
		return ""
	}
	return string(user)
}

func markMAC(key []byte, head string) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(head))
	return mac.Sum(nil)
}

// markKey derives the key from the access token, so that a gateway whose store
// was lost still knows its own metadata. The store keeps the keys of earlier
// tokens.
func markKey(gateway, accessToken string) []byte {
	if accessToken == "" {
		return nil
	}
	mac := hmac.New(sha256.New, []byte(accessToken))
	mac.Write([]byte("caddy-polar metadata " + gateway))
	return mac.Sum(nil)
}

func cutLast(s, sep string) (before, after string, ok bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

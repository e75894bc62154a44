package box

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// key is the HMAC key of a secret.
func (k SecretKind) key(secret string) []byte {
	if k == SecretStandard {
		if key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_")); err == nil {
			return key
		}
	}
	return []byte(secret)
}

// KindOf tells from a secret's shape how Polar signs with it. A merchant may
// have chosen one that only looks as if Polar had made it; the shape does not
// tell.
func KindOf(secret string) SecretKind {
	encoded, ok := strings.CutPrefix(secret, "whsec_")
	key, err := base64.StdEncoding.DecodeString(encoded)
	if ok && err == nil && len(encoded) == base64.StdEncoding.EncodedLen(32) && len(key) == 32 {
		return SecretStandard
	}
	return SecretMerchant
}

// Webhook is an event as it is posted to an endpoint.
type Webhook struct {
	ID         string // the same on every attempt
	APIVersion string
	Body       string
}

// Header is what Polar sends along, all but the signature.
func (w *Webhook) Header(sent time.Time) http.Header {
	h := http.Header{}
	h.Set("Content-Type", "application/json")
	h.Set("User-Agent", "polar.sh webhooks")
	h.Set("Webhook-Id", w.ID)
	h.Set("Webhook-Timestamp", strconv.FormatInt(sent.Unix(), 10))
	h.Set("Webhook-Api-Version", w.APIVersion)
	return h
}

// Signed is Header with the signature.
func (w *Webhook) Signed(secret string, kind SecretKind, sent time.Time) http.Header {
	h := w.Header(sent)
	mac := hmac.New(sha256.New, kind.key(secret))
	io.WriteString(mac, w.ID+"."+h.Get("Webhook-Timestamp")+"."+w.Body)
	h.Set("Webhook-Signature", "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	return h
}

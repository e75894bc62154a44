// Package polar speaks Polar: it verifies webhooks and knows the shapes of
// Polar's JSON. It has no storage and makes no decisions.
package polar

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Why a webhook is refused. Each sentence is fit for the sender to read: the
// merchant sees it in Polar's dashboard.
var (
	ErrHeaders   = errors.New("webhook signature headers are missing or malformed")
	ErrTimestamp = errors.New("webhook signature timestamp is too far from the current time")
	ErrSignature = errors.New("webhook signature does not match")
	ErrNoSecret  = errors.New("no webhook secret")
)

// Tolerance is how far a delivery's timestamp may be from the current time, as
// in Polar's own SDKs. Each attempt is signed anew, so retries are never old.
const Tolerance = 5 * time.Minute

// maxSignatures bounds the work that one request can ask for. Polar sends one.
const maxSignatures = 8

// Delivery is what the headers of a webhook say. It is not to be trusted
// before Verify.
type Delivery struct {
	ID         string // same on every retry and redelivery of one event
	Sent       time.Time
	APIVersion string

	timestamp  string
	signatures [][]byte
}

// ReadDelivery reads the headers of a webhook and checks them against the
// current time. It comes before the body is read.
//
// Source: https://polar.sh/docs/integrate/webhooks/delivery and the Standard
// Webhooks specification that it follows.
func ReadDelivery(h http.Header, now time.Time) (Delivery, error) {
	id, ok1 := single(h, "Webhook-Id")
	timestamp, ok2 := single(h, "Webhook-Timestamp")
	signature, ok3 := single(h, "Webhook-Signature")
	if !ok1 || !ok2 || !ok3 || len(id) > 255 {
		return Delivery{}, fmt.Errorf("%w: send webhook-id, webhook-timestamp and webhook-signature", ErrHeaders)
	}
	seconds, err := strconv.ParseInt(timestamp, 10, 64)
	if err != nil || seconds < 0 || seconds > 1<<40 {
		return Delivery{}, fmt.Errorf("%w: webhook-timestamp is not a number of seconds", ErrHeaders)
	}
	d := Delivery{ID: id, Sent: time.Unix(seconds, 0).UTC(), APIVersion: h.Get("Webhook-Api-Version"), timestamp: timestamp}
	for part := range strings.FieldsSeq(signature) {
		if len(d.signatures) == maxSignatures {
			break
		}
		encoded, ok := strings.CutPrefix(part, "v1,")
		if !ok {
			continue // another scheme, made for somebody else
		}
		if raw, err := base64.StdEncoding.DecodeString(encoded); err == nil && len(raw) == sha256.Size {
			d.signatures = append(d.signatures, raw)
		}
	}
	if len(d.signatures) == 0 {
		return Delivery{}, fmt.Errorf("%w: webhook-signature holds no v1 signature", ErrHeaders)
	}
	if off := now.Sub(d.Sent).Abs(); off > Tolerance {
		return Delivery{}, fmt.Errorf("%w (off by %s): check the clocks", ErrTimestamp, off.Round(time.Second))
	}
	return d, nil
}

func single(h http.Header, name string) (string, bool) {
	values := h[name]
	return h.Get(name), len(values) == 1 && values[0] != ""
}

// WebhookVerifier knows the keys of one endpoint's secrets.
type WebhookVerifier struct {
	keys [][]byte
}

// NewWebhookVerifier takes every kind of secret that Polar has ever made, and
// several of them, so that a secret can be rotated.
//
// Polar signs with the bytes of the whole secret, prefix included, or, for
// secrets it made on or after 2026-09-08, with the base64 decoded part after
// "whsec_". The string does not tell which, so both keys are tried
// (https://github.com/polarsource/polar/pull/14117).
func NewWebhookVerifier(secrets ...string) (*WebhookVerifier, error) {
	v := &WebhookVerifier{}
	for _, secret := range secrets {
		if secret == "" {
			return nil, fmt.Errorf("%w: it is empty", ErrNoSecret)
		}
		v.keys = append(v.keys, []byte(secret))
		if encoded, ok := strings.CutPrefix(secret, "whsec_"); ok {
			if key, err := base64.StdEncoding.DecodeString(encoded); err == nil && len(key) > 0 {
				v.keys = append(v.keys, key)
			}
		}
	}
	if len(v.keys) == 0 {
		return nil, ErrNoSecret
	}
	return v, nil
}

// Verify checks the signature over the raw body. It always does all of the
// work, so that its time tells nothing about the keys.
func (v *WebhookVerifier) Verify(d Delivery, body []byte) error {
	matched := false
	for _, key := range v.keys {
		sum := d.sum(key, body)
		for _, signature := range d.signatures {
			if hmac.Equal(sum, signature) {
				matched = true
			}
		}
	}
	if !matched {
		return fmt.Errorf("%w: check the webhook secret", ErrSignature)
	}
	return nil
}

// Sign makes the headers of a webhook that v takes, as Polar makes them, with
// the first of the secrets.
func (v *WebhookVerifier) Sign(id string, sent time.Time, body []byte) http.Header {
	d := Delivery{ID: id, timestamp: strconv.FormatInt(sent.Unix(), 10)}
	h := http.Header{}
	h.Set("Content-Type", "application/json")
	h.Set("Webhook-Id", d.ID)
	h.Set("Webhook-Timestamp", d.timestamp)
	h.Set("Webhook-Signature", "v1,"+base64.StdEncoding.EncodeToString(d.sum(v.keys[0], body)))
	return h
}

func (d Delivery) sum(key, body []byte) []byte {
	mac := hmac.New(sha256.New, key)
	var head bytes.Buffer
	head.WriteString(d.ID)
	head.WriteByte('.')
	head.WriteString(d.timestamp)
	head.WriteByte('.')
	mac.Write(head.Bytes())
	mac.Write(body)
	return mac.Sum(nil)
}

// IsListenSecret says whether a secret has the shape of the one that `polar
// listen` signs with: the organization's id without dashes, which is public.
func IsListenSecret(secret string) bool {
	if len(secret) != 32 || secret[12] != '4' || !strings.ContainsRune("89ab", rune(secret[16])) {
		return false
	}
	return strings.Trim(secret, "0123456789abcdef") == ""
}

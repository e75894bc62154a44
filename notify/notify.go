// Package notify posts signed messages to an app, by the rules of
// https://www.standardwebhooks.com.
package notify

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// ErrConfig says that a Sender cannot be made of a configuration.
var ErrConfig = errors.New("notify")

// How long a secret's key must be, in bytes, as Standard Webhooks has it.
const (
	minKey = 24
	maxKey = 64
)

const (
	// timeout bounds one delivery.
	timeout = 15 * time.Second
	// enough of an answer is read for its connection to be used again.
	enough = 64 << 10
)

// Sender posts messages to one address. It is safe for concurrent use.
type Sender struct {
	url     string
	signers []*standardwebhooks.Webhook
	client  *http.Client
}

// New makes a Sender. A message is signed with each secret, so that a secret can be
// rotated: the app may know either. A secret is whsec_ and the base64 of 24 to 64
// bytes.
func New(address string, secrets ...string) (*Sender, error) {
	if err := CheckAddress(address); err != nil {
		return nil, err
	}
	if len(secrets) == 0 {
		return nil, fmt.Errorf("%w: a secret is missing", ErrConfig)
	}
	s := &Sender{url: address, client: &http.Client{
		Timeout:       timeout,
		Transport:     &http.Transport{Proxy: http.ProxyFromEnvironment, MaxIdleConnsPerHost: 8, IdleConnTimeout: 90 * time.Second},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	for _, secret := range secrets {
		key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
		if err != nil || len(key) < minKey || len(key) > maxKey {
			return nil, fmt.Errorf("%w: a secret must be whsec_ and the base64 of %d to %d bytes: make one with: echo whsec_$(openssl rand -base64 32)",
				ErrConfig, minKey, maxKey)
		}
		signer, err := standardwebhooks.NewWebhookRaw(key)
		if err != nil {
			return nil, fmt.Errorf("%w: a secret cannot be used", ErrConfig)
		}
		s.signers = append(s.signers, signer)
	}
	return s, nil
}

// CheckAddress says what is wrong with an address, and nothing of the address itself,
// in which something can be secret.
func CheckAddress(address string) error {
	u, err := url.Parse(address)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		return fmt.Errorf("%w: the address must be whole, like http://localhost:3000/hooks/polar", ErrConfig)
	case u.User != nil:
		return fmt.Errorf("%w: leave the name and password out of the address: messages are signed", ErrConfig)
	}
	return nil
}

// Close gives up idle connections.
func (s *Sender) Close() { s.client.CloseIdleConnections() }

// String is where the address leads, without what can be secret in it or in its path.
func (s *Sender) String() string {
	u, err := url.Parse(s.url)
	if err != nil {
		return ""
	}
	return (&url.URL{Scheme: u.Scheme, Host: u.Host}).String()
}

// Failure is why a message did not arrive. It can be shown.
type Failure struct {
	Status int // of the answer, zero without one
	cause  error
}

// Error says what came back.
func (f *Failure) Error() string {
	if f.Status != 0 {
		return "the app answered " + strconv.Itoa(f.Status)
	}
	return "the app did not answer: " + f.cause.Error()
}

// Unwrap gives what happened on the way.
func (f *Failure) Unwrap() error { return f.cause }

// Send posts a message, once. Its id is the same each time. Any answer but 2xx is a
// *Failure.
func (s *Sender) Send(ctx context.Context, id string, now time.Time, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url, bytes.NewReader(body))
	if err != nil {
		return &Failure{cause: errors.New("the request cannot be made")}
	}
	var signatures []string
	for _, signer := range s.signers {
		signature, err := signer.Sign(id, now, body)
		if err != nil {
			return &Failure{cause: err}
		}
		signatures = append(signatures, signature)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "caddy-polar")
	req.Header.Set("Webhook-Id", id)
	req.Header.Set("Webhook-Timestamp", strconv.FormatInt(now.Unix(), 10))
	req.Header.Set("Webhook-Signature", strings.Join(signatures, " "))
	res, err := s.client.Do(req)
	if err != nil {
		if wrapped, ok := errors.AsType[*url.Error](err); ok { // which repeats the address
			err = wrapped.Err
		}
		return &Failure{cause: err}
	}
	_, _ = io.CopyN(io.Discard, res.Body, enough)
	_ = res.Body.Close()
	if res.StatusCode/100 != 2 {
		return &Failure{Status: res.StatusCode}
	}
	return nil
}

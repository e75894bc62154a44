package notify

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func secretOf(letter string) string {
	return "whsec_" + base64.StdEncoding.EncodeToString([]byte(strings.Repeat(letter, 32)))
}

// receive answers with a status, and gives what came.
func receive(t *testing.T, status int) (address string, came func() (http.Header, []byte)) {
	t.Helper()
	var header http.Header
	var body []byte
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header = r.Header.Clone()
		body, _ = io.ReadAll(r.Body)
		if status == http.StatusFound {
			w.Header().Set("Location", "/elsewhere")
		}
		w.WriteHeader(status)
	}))
	t.Cleanup(s.Close)
	return s.URL + "/hook?key=hidden", func() (http.Header, []byte) { return header, body }
}

func sender(t *testing.T, address string, secrets ...string) *Sender {
	t.Helper()
	s, err := New(address, secrets...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// TestSend: whoever knows one of the secrets verifies a message with the public
// library, and nobody else.
func TestSend(t *testing.T) {
	address, came := receive(t, http.StatusNoContent)
	s := sender(t, address, secretOf("a"), secretOf("b"))
	const body = `{"type":"subscription.changed"}`
	if err := s.Send(t.Context(), "msg_1", time.Now(), []byte(body)); err != nil {
		t.Fatal(err)
	}
	header, got := came()
	if string(got) != body || header.Get("Webhook-Id") != "msg_1" || header.Get("Content-Type") != "application/json" {
		t.Errorf("%q %v", got, header)
	}
	for secret, knows := range map[string]bool{secretOf("a"): true, secretOf("b"): true, secretOf("c"): false} {
		verifier, err := standardwebhooks.NewWebhook(secret)
		if err != nil {
			t.Fatal(err)
		}
		if err := verifier.Verify(got, header); (err == nil) != knows {
			t.Error(secret[:8], err)
		}
		if err := verifier.Verify([]byte(body+" "), header); err == nil {
			t.Error("another body verifies")
		}
	}
}

// TestSendFails: whatever is no 2xx has not arrived, and nothing tells what is hidden in
// the address.
func TestSendFails(t *testing.T) {
	for _, status := range []int{http.StatusFound, http.StatusBadRequest, http.StatusGone, http.StatusInternalServerError} {
		address, _ := receive(t, status)
		err := sender(t, address, secretOf("a")).Send(t.Context(), "msg_1", time.Now(), []byte("{}"))
		failure, ok := errors.AsType[*Failure](err)
		if !ok || failure.Status != status || err.Error() != fmt.Sprint("the app answered ", status) {
			t.Error(status, err)
		}
	}
	gone := httptest.NewServer(nil)
	gone.Close()
	s := sender(t, gone.URL+"/hook?key=hidden", secretOf("a"))
	err := s.Send(t.Context(), "msg_1", time.Now(), []byte("{}"))
	if failure, ok := errors.AsType[*Failure](err); !ok || failure.Status != 0 || !strings.Contains(err.Error(), "did not answer") {
		t.Error(err)
	}
	ended, end := context.WithCancel(t.Context())
	end()
	canceled := s.Send(ended, "msg_1", time.Now(), []byte("{}"))
	if !errors.Is(canceled, context.Canceled) {
		t.Error(canceled)
	}
	for _, told := range []string{err.Error(), canceled.Error(), s.String()} {
		if strings.Contains(told, "hidden") || strings.Contains(told, "whsec_") {
			t.Errorf("it tells %q", told)
		}
	}
	if s.String() != gone.URL {
		t.Error(s)
	}
}

func TestNew(t *testing.T) {
	short := "whsec_" + base64.StdEncoding.EncodeToString(make([]byte, 23))
	long := "whsec_" + base64.StdEncoding.EncodeToString(make([]byte, 65))
	for _, test := range []struct {
		address string
		secrets []string
		want    string
	}{
		{"localhost:3000", []string{secretOf("a")}, "must be whole"},
		{"ftp://localhost", []string{secretOf("a")}, "must be whole"},
		{"http:///path", []string{secretOf("a")}, "must be whole"},
		{"http://me:hunter2@localhost", []string{secretOf("a")}, "name and password"},
		{"http://localhost:%zz/hunter2", []string{secretOf("a")}, "must be whole"},
		{"http://localhost", nil, "a secret is missing"},
		{"http://localhost", []string{"hunter2"}, "openssl rand -base64 32"},
		{"http://localhost", []string{"whsec_hunter2!"}, "24 to 64 bytes"},
		{"http://localhost", []string{short}, "24 to 64 bytes"},
		{"http://localhost", []string{secretOf("a"), long}, "24 to 64 bytes"},
	} {
		_, err := New(test.address, test.secrets...)
		if !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", test.address, err)
		}
	}
	if _, err := New("https://app.example.com/hook", strings.TrimPrefix(secretOf("a"), "whsec_")); err != nil {
		t.Error(err) // the prefix may be left out, as the libraries have it
	}
}

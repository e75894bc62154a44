package polar_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/caddy-polar/caddy-polar/polar"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// canary must never be seen outside a request.
const canary = "polar_oat_CANARYcanary0123456789"

func newClient(t testing.TB, config polar.ClientConfig) *polar.Client {
	t.Helper()
	if config.Token == "" {
		config.Token = canary
	}
	if config.Version == "" {
		config.Version = polar.DefaultVersion
	}
	c, err := polar.NewClient(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// clock is time that passes only when somebody sleeps.
type clock struct {
	mu    sync.Mutex
	at    time.Time
	slept []time.Duration
}

func newClock() *clock {
	return &clock{at: time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)}
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) sleep(ctx context.Context, d time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
	c.slept = append(c.slept, d)
	return ctx.Err()
}

func (c *clock) waits() []time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.slept)
}

// reply is one prepared answer.
type reply struct {
	status int
	header map[string]string
	body   string
}

const (
	aSubscription = `{"id":"` + anID + `","status":"active"}`
	noSuchPath    = `{"detail":"Not Found"}`
)

// serve answers with the replies in turn, the last one for ever, and checks
// what is true of every request.
func serve(t testing.TB, replies ...reply) (*httptest.Server, *atomic.Int32) {
	t.Helper()
	var asked atomic.Int32
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength < 0 || len(r.TransferEncoding) > 0 {
			t.Errorf("%s %s was sent in chunks", r.Method, r.URL.Path)
		}
		if r.Method != http.MethodGet && r.Method != http.MethodDelete && r.Header.Get("Content-Length") == "" {
			t.Errorf("%s %s has no Content-Length", r.Method, r.URL.Path)
		}
		_, _ = io.Copy(io.Discard, r.Body)
		n := int(asked.Add(1))
		a := replies[min(n, len(replies))-1]
		w.Header().Set("Content-Type", "application/json")
		for name, value := range a.header {
			w.Header().Set(name, value)
		}
		if a.status == 0 {
			a.status = http.StatusOK
		}
		w.WriteHeader(a.status)
		_, _ = io.WriteString(w, a.body)
	}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.Start()
	t.Cleanup(server.Close)
	return server, &asked
}

func apiError(t testing.TB, err error) *polar.APIError {
	t.Helper()
	var e *polar.APIError
	if !errors.As(err, &e) {
		t.Fatalf("got %v, want an APIError", err)
	}
	return e
}

var sentinels = []error{
	polar.ErrNotFound, polar.ErrUnauthorized, polar.ErrForbidden, polar.ErrScope, polar.ErrInvalid, polar.ErrPayment,
	polar.ErrConflict, polar.ErrRateLimited, polar.ErrUnavailable, polar.ErrTimeout, polar.ErrVersionGone,
	polar.ErrRedirect, polar.ErrUnexpected, polar.ErrNoSeat, polar.ErrSeatTaken,
}

// wantKinds checks that an error is all of these and none of the others.
func wantKinds(t testing.TB, err error, want ...error) {
	t.Helper()
	for _, sentinel := range sentinels {
		if errors.Is(err, sentinel) != slices.Contains(want, sentinel) {
			t.Errorf("errors.Is(%q, %q) is %t", err, sentinel, errors.Is(err, sentinel))
		}
	}
}

// TestErrorShapes: each shape of Polar's errors, and what is none, becomes what
// it means, and what it quotes stays out of its string.
func TestErrorShapes(t *testing.T) {
	html := map[string]string{"Content-Type": "text/html; charset=utf-8"}
	const secretText = "someone@example.com"
	for name, test := range map[string]struct {
		reply
		want   []error
		code   string
		detail string
		says   string
	}{
		"no subject":      {reply{401, nil, `{"error":"Unauthorized","detail":"` + secretText + `"}`}, []error{polar.ErrUnauthorized}, "Unauthorized", secretText, "check the access token"},
		"bad token":       {reply{401, nil, `{"error":"invalid_token","error_description":"` + secretText + `"}`}, []error{polar.ErrUnauthorized}, "invalid_token", secretText, "check the access token"},
		"scope":           {reply{403, nil, `{"error":"insufficient_scope","error_description":"` + secretText + `"}`}, []error{polar.ErrForbidden, polar.ErrScope}, "insufficient_scope", secretText, "scope"},
		"domain":          {reply{403, nil, `{"error":"AlreadyCanceledSubscription","detail":"` + secretText + `"}`}, []error{polar.ErrForbidden}, "AlreadyCanceledSubscription", secretText, "AlreadyCanceledSubscription"},
		"edge":            {reply{403, html, `<h1>` + secretText + `</h1>`}, []error{polar.ErrForbidden}, "", "", "not in Polar's words"},
		"payment":         {reply{402, nil, `{"error":"PaymentFailed","detail":"x"}`}, []error{polar.ErrPayment}, "PaymentFailed", "x", "payment"},
		"not found":       {reply{404, nil, `{"error":"ResourceNotFound","detail":"Not found"}`}, []error{polar.ErrNotFound}, "ResourceNotFound", "Not found", "check the id"},
		"version":         {reply{404, nil, noSuchPath}, []error{polar.ErrVersionGone}, "", "Not Found", "api_version"},
		"html 404":        {reply{404, html, noSuchPath}, []error{polar.ErrUnexpected}, "", "", "check the server address"},
		"empty 404":       {reply{404, nil, ``}, []error{polar.ErrUnexpected}, "", "", "check the server address"},
		"locked":          {reply{409, nil, `{"error":"SubscriptionLocked","detail":"x"}`}, []error{polar.ErrConflict}, "SubscriptionLocked", "x", "state"},
		"gone":            {reply{410, nil, `{"error":"ExpiredCheckoutError","detail":"x"}`}, []error{polar.ErrConflict}, "ExpiredCheckoutError", "x", "state"},
		"chunked":         {reply{411, nil, `{"error":"LengthRequired","detail":"x"}`}, []error{polar.ErrUnexpected}, "LengthRequired", "x", "check"},
		"odd code":        {reply{400, nil, `{"error":"` + secretText + `","detail":[]}`}, []error{polar.ErrInvalid}, secretText, "", "check the named fields"},
		"code no text":    {reply{409, nil, `{"error":{"a":1},"detail":7}`}, []error{polar.ErrConflict}, "", "", "state"},
		"no seat":         {reply{400, nil, `{"error":"SeatNotAvailable","detail":"x"}`}, []error{polar.ErrNoSeat}, "SeatNotAvailable", "x", "given away"},
		"seat taken":      {reply{400, nil, `{"error":"SeatAlreadyAssigned","detail":"` + secretText + `"}`}, []error{polar.ErrSeatTaken}, "SeatAlreadyAssigned", secretText, "each person"},
		"no invitation":   {reply{400, nil, `{"error":"SeatNotPending","detail":"x"}`}, []error{polar.ErrConflict}, "SeatNotPending", "x", "invitation"},
		"empty 429":       {reply{429, map[string]string{"Retry-After": "0"}, ``}, []error{polar.ErrRateLimited}, "", "", "too many requests"},
		"html 500":        {reply{500, html, `<h1>` + secretText + `</h1>`}, []error{polar.ErrUnavailable}, "", "", "status.polar.sh"},
		"json 503":        {reply{503, nil, `{"error":"ServiceUnavailable","detail":"x"}`}, []error{polar.ErrUnavailable}, "ServiceUnavailable", "x", "status.polar.sh"},
		"broken json 500": {reply{500, nil, `{"error":`}, []error{polar.ErrUnavailable}, "", "", "status.polar.sh"},
		"redirect":        {reply{307, map[string]string{"Location": "https://" + secretText + "/"}, ``}, []error{polar.ErrRedirect}, "", "", "check the server address"},
		"html 200":        {reply{200, html, `<h1>` + secretText + `</h1>`}, []error{polar.ErrUnexpected}, "", "", "not JSON"},
		"no content":      {reply{204, nil, ``}, []error{polar.ErrUnexpected}, "", "", "shape"},
		"null":            {reply{200, nil, `null`}, []error{polar.ErrUnexpected}, "", "", "shape"},
		"no id":           {reply{200, nil, `{}`}, []error{polar.ErrUnexpected}, "", "", "shape"},
		"wrong type":      {reply{200, nil, `{"id":"` + anID + `","status":["` + secretText + `"]}`}, []error{polar.ErrUnexpected}, "", "", "shape"},
		"cut":             {reply{200, nil, `{"id":"` + secretText}, []error{polar.ErrUnexpected}, "", "", "shape"},
	} {
		t.Run(name, func(t *testing.T) {
			local := newClock()
			server, _ := serve(t, test.reply)
			c := newClient(t, polar.ClientConfig{BaseURL: server.URL, Now: local.now, Sleep: local.sleep})
			_, err := c.GetSubscription(t.Context(), "id-of-"+"somebody")
			e := apiError(t, err)
			wantKinds(t, err, test.want...)
			if e.Status != test.status || e.Code != test.code || e.Detail != test.detail {
				t.Errorf("got %d %q %q, want %d %q %q", e.Status, e.Code, e.Detail, test.status, test.code, test.detail)
			}
			for _, wrong := range []string{secretText, "somebody", canary} {
				if strings.Contains(err.Error(), wrong) {
					t.Errorf("%q holds %q", err, wrong)
				}
			}
			if !strings.Contains(err.Error(), test.says) || !strings.Contains(err.Error(), "/v1/subscriptions/{id}") {
				t.Errorf("%q does not say %q", err, test.says)
			}
			if errors.Is(err, polar.ErrDecode) != (test.says == "shape") {
				t.Errorf("errors.Is(%q, ErrDecode) is wrong", err)
			}
		})
	}
}

func TestFieldErrors(t *testing.T) {
	server, _ := serve(t, reply{422, nil, `{"error":"PolarRequestValidationError","detail":[
		{"type":"value_error","loc":["body","customer_email"],"msg":"x@y.invalid is not valid","input":"x@y.invalid"},
		{"type":"missing","loc":["body","products",0],"msg":"Field required"},
		{"type":"extra","loc":["body","metadata","x@y.invalid"],"msg":"no"}]}`})
	_, err := newClient(t, polar.ClientConfig{BaseURL: server.URL}).CreateCheckout(t.Context(), polar.CheckoutCreate{})
	wantKinds(t, err, polar.ErrInvalid)
	want := []polar.FieldError{
		{Field: "body.customer_email", Message: "x@y.invalid is not valid", Type: "value_error"},
		{Field: "body.products.0", Message: "Field required", Type: "missing"},
		{Field: "body.metadata.x@y.invalid", Message: "no", Type: "extra"},
	}
	if e := apiError(t, err); !slices.Equal(e.Fields, want) {
		t.Errorf("got %v, want %v", e.Fields, want)
	}
	const says = "polar: POST /v1/checkouts/: 422 PolarRequestValidationError (body.customer_email, body.products.0): check the named fields"
	if err.Error() != says {
		t.Errorf("got  %q\nwant %q", err, says)
	}
}

// TestEmptyListIsNotNothing: what is no list must not pass for "nobody pays".
func TestEmptyListIsNotNothing(t *testing.T) {
	for _, body := range []string{`{}`, `{"items":null,"pagination":{}}`, `{"items":[{}],"pagination":{}}`, `[]`, `"x"`} {
		server, _ := serve(t, reply{body: body})
		_, err := newClient(t, polar.ClientConfig{BaseURL: server.URL}).
			ListSubscriptions(t.Context(), polar.SubscriptionFilter{}, polar.Paging{})
		wantKinds(t, err, polar.ErrUnexpected)
	}
	server, _ := serve(t, reply{body: `{"items":[],"pagination":{"total_count":0,"max_page":0}}`})
	p, err := newClient(t, polar.ClientConfig{BaseURL: server.URL}).
		ListSubscriptions(t.Context(), polar.SubscriptionFilter{}, polar.Paging{})
	if err != nil || len(p.Items) != 0 {
		t.Errorf("got %v, %v", p, err)
	}
}

func TestRetriesOfReads(t *testing.T) {
	local := newClock()
	server, asked := serve(t, reply{status: 500}, reply{status: 503}, reply{status: 429}, reply{body: aSubscription})
	c := newClient(t, polar.ClientConfig{BaseURL: server.URL, Now: local.now, Sleep: local.sleep})
	if _, err := c.GetSubscription(t.Context(), anID); err != nil {
		t.Fatal(err)
	}
	waits := local.waits()
	if asked.Load() != 4 || len(waits) != 3 {
		t.Fatalf("asked %d times, waited %v", asked.Load(), waits)
	}
	for i, wait := range waits { // doubling, with a jitter of a half
		middle := 500 * time.Millisecond << i
		if wait < middle/2 || wait > middle*3/2+1 {
			t.Errorf("wait %d is %s, want %s ± 50%%", i, wait, middle)
		}
	}
}

func TestRetriesEnd(t *testing.T) {
	local := newClock()
	server, asked := serve(t, reply{status: 502})
	c := newClient(t, polar.ClientConfig{BaseURL: server.URL, Now: local.now, Sleep: local.sleep})
	_, err := c.GetSubscription(t.Context(), anID)
	wantKinds(t, err, polar.ErrUnavailable)
	if asked.Load() != 4 || len(local.waits()) != 3 {
		t.Errorf("asked %d times, waited %v", asked.Load(), local.waits())
	}
}

func TestWritesAreNeverRepeated(t *testing.T) {
	writes := map[string]func(*polar.Client) error{
		"checkout": func(c *polar.Client) error {
			_, err := c.CreateCheckout(t.Context(), polar.CheckoutCreate{})
			return err
		},
		"patch": func(c *polar.Client) error {
			_, err := c.UpdateSubscription(t.Context(), anID, polar.ChangeResume{})
			return err
		},
		"delete":    func(c *polar.Client) error { _, err := c.RevokeSubscription(t.Context(), anID); return err },
		"redeliver": func(c *polar.Client) error { return c.Redeliver(t.Context(), anID) },
		"portal": func(c *polar.Client) error {
			_, err := c.Portal("polar_cst_x").UpdateSubscription(t.Context(), anID, polar.PortalChangeCancel{})
			return err
		},
	}
	for name, write := range writes {
		for _, status := range []int{429, 500, 503} {
			local := newClock()
			server, asked := serve(t, reply{status: status, header: map[string]string{"Retry-After": "1"}})
			err := write(newClient(t, polar.ClientConfig{BaseURL: server.URL, Now: local.now, Sleep: local.sleep}))
			if err == nil || asked.Load() != 1 || len(local.waits()) != 0 {
				t.Errorf("%s after %d: asked %d times, waited %v, %v", name, status, asked.Load(), local.waits(), err)
			}
		}
	}
}

func TestRetryAfter(t *testing.T) {
	polarNow := time.Date(2026, 11, 21, 13, 0, 0, 0, time.UTC) // an hour ahead of us
	for name, test := range map[string]struct {
		value string
		want  time.Duration
	}{
		"seconds": {"7", 7 * time.Second},
		"date":    {polarNow.Add(9 * time.Second).Format(http.TimeFormat), 9 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			local := newClock()
			header := map[string]string{"Retry-After": test.value, "Date": polarNow.Format(http.TimeFormat)}
			server, asked := serve(t, reply{429, header, ""}, reply{body: aSubscription})
			c := newClient(t, polar.ClientConfig{
				BaseURL: server.URL, Now: local.now, Sleep: local.sleep, Limiter: polar.NewLimiter(500, 120),
			})
			if _, err := c.GetSubscription(t.Context(), anID); err != nil {
				t.Fatal(err)
			}
			if waits := local.waits(); len(waits) != 1 || waits[0] != test.want || asked.Load() != 2 {
				t.Errorf("waited %v, want %s", waits, test.want)
			}
		})
	}
}

// TestRetryAfterTooLong: who cannot wait that long is told at once.
func TestRetryAfterTooLong(t *testing.T) {
	for _, value := range []string{"30", "99999999999999"} {
		local := newClock()
		server, asked := serve(t, reply{429, map[string]string{"Retry-After": value}, ""})
		c := newClient(t, polar.ClientConfig{BaseURL: server.URL, Now: local.now, Sleep: local.sleep})
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		_, err := c.GetSubscription(ctx, anID)
		cancel()
		wantKinds(t, err, polar.ErrRateLimited)
		if e := apiError(t, err); e.RetryAfter < 30*time.Second || asked.Load() != 1 || len(local.waits()) != 0 {
			t.Errorf("RetryAfter %s, asked %d, waited %v", e.RetryAfter, asked.Load(), local.waits())
		}
	}
	// Nor is a wait of years begun by who has all the time.
	server, _ := serve(t, reply{503, map[string]string{"Retry-After": "99999999999999"}, ""})
	_, err := newClient(t, polar.ClientConfig{BaseURL: server.URL}).GetSubscription(t.Context(), anID)
	wantKinds(t, err, polar.ErrUnavailable)
}

func TestCancelWhileWaiting(t *testing.T) {
	server, asked := serve(t, reply{429, map[string]string{"Retry-After": "60"}, ""})
	ctx, cancel := context.WithCancel(t.Context())
	c := newClient(t, polar.ClientConfig{
		BaseURL: server.URL,
		OnCall:  func(polar.Call) { cancel() }, // while the client really sleeps
	})
	start := time.Now()
	_, err := c.GetSubscription(ctx, anID)
	if !errors.Is(err, context.Canceled) || time.Since(start) > 10*time.Second || asked.Load() != 1 {
		t.Errorf("got %v after %s", err, time.Since(start))
	}
	wantKinds(t, err)
}

func TestTimeouts(t *testing.T) {
	release := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "slow-body") {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, `{"id":`)
			_ = http.NewResponseController(w).Flush()
		}
		<-release
	}))
	defer server.Close()
	defer close(release)
	local := newClock()
	c := newClient(t, polar.ClientConfig{
		BaseURL: server.URL, Timeout: 50 * time.Millisecond, Now: local.now, Sleep: local.sleep,
	})
	for _, id := range []string{"hangs", "slow-body"} {
		_, err := c.GetSubscription(t.Context(), id)
		wantKinds(t, err, polar.ErrTimeout)
	}
	if len(local.waits()) != 6 {
		t.Errorf("reads that time out are repeated: waited %v", local.waits())
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := c.GetSubscription(ctx, "hangs")
	wantKinds(t, err, polar.ErrTimeout)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

func TestUnreachable(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	listener.Close()
	local := newClock()
	c := newClient(t, polar.ClientConfig{BaseURL: "http://" + address, Now: local.now, Sleep: local.sleep})
	_, err = c.GetSubscription(t.Context(), anID)
	wantKinds(t, err, polar.ErrUnavailable)
	if !strings.Contains(err.Error(), "connection refused") || strings.Contains(err.Error(), anID) || len(local.waits()) != 3 {
		t.Errorf("got %q after %v", err, local.waits())
	}
	// No HTTP at all, with the request echoed, as the ids in it must not be.
	echo, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer echo.Close()
	go func() {
		for {
			conn, err := echo.Accept()
			if err != nil {
				return
			}
			buffer := make([]byte, 4096)
			n, _ := conn.Read(buffer)
			_, _ = conn.Write(buffer[:n])
			conn.Close()
		}
	}()
	c = newClient(t, polar.ClientConfig{BaseURL: "http://" + echo.Addr().String(), Now: local.now, Sleep: local.sleep})
	_, err = c.GetCustomerByExternalID(t.Context(), "someone@example.com")
	wantKinds(t, err, polar.ErrUnavailable)
	if strings.Contains(err.Error(), "someone") || strings.Contains(err.Error(), canary) {
		t.Errorf("%q quotes the answer", err)
	}
}

func TestTLSTrouble(t *testing.T) {
	encrypted := httptest.NewTLSServer(http.NotFoundHandler())
	encrypted.Config.ErrorLog = log.New(io.Discard, "", 0)
	defer encrypted.Close()
	plain, _ := serve(t, reply{body: aSubscription})
	for address, says := range map[string]string{
		encrypted.URL: "failed to verify certificate",
		strings.Replace(plain.URL, "http:", "https:", 1): "does not speak TLS",
	} {
		local := newClock()
		c := newClient(t, polar.ClientConfig{BaseURL: address, Now: local.now, Sleep: local.sleep})
		_, err := c.GetSubscription(t.Context(), anID)
		wantKinds(t, err, polar.ErrUnavailable)
		if !strings.Contains(err.Error(), says) {
			t.Errorf("%q does not say %q", err, says)
		}
	}
}

func TestBodyLimit(t *testing.T) {
	pad := strings.Repeat(" ", 1<<20)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		for range 65 {
			_, _ = io.WriteString(w, pad)
		}
		_, _ = io.WriteString(w, aSubscription)
	}))
	defer server.Close()
	_, err := newClient(t, polar.ClientConfig{BaseURL: server.URL}).GetSubscription(t.Context(), anID)
	wantKinds(t, err, polar.ErrUnexpected)
	if !strings.Contains(err.Error(), "larger than 64 MiB") {
		t.Error(err)
	}
}

func TestRedirectIsNotFollowed(t *testing.T) {
	other, asked := serve(t, reply{body: aSubscription})
	for _, target := range []string{other.URL, "/v1/elsewhere", "::bad"} {
		server, here := serve(t, reply{307, map[string]string{"Location": target}, ""})
		c := newClient(t, polar.ClientConfig{BaseURL: server.URL})
		_, err := c.GetSubscription(t.Context(), anID)
		wantKinds(t, err, polar.ErrRedirect)
		_, err = c.CreateCheckout(t.Context(), polar.CheckoutCreate{})
		wantKinds(t, err, polar.ErrRedirect)
		if asked.Load() != 0 || here.Load() != 2 {
			t.Errorf("to %s: followed %d times, asked %d", target, asked.Load(), here.Load())
		}
	}
}

// TestTokenIsNeverSeen: whatever the other side echoes, the token is in no
// error, log, or formatted value.
func TestTokenIsNeverSeen(t *testing.T) {
	const session = "polar_cst_CANARYsession"
	var seen bytes.Buffer
	core := zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewDevelopmentEncoderConfig()), zapcore.AddSync(&seen), zap.DebugLevel)
	shapes := []string{
		`{"error":%[1]q,"detail":%[1]q}`, `{"error":%[1]q,"error_description":%[1]q}`, `{"detail":%[1]q}`,
		`{"error":"X","detail":[{"loc":["body",%[1]q],"msg":%[1]q,"type":%[1]q}]}`, `<html>%[1]s`,
	}
	for _, shape := range shapes {
		for _, status := range []int{200, 302, 400, 401, 403, 404, 422, 429, 500} {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
				w.Header().Set("Content-Type", "application/json")
				w.Header().Set("Location", "https://example.com/"+token)
				w.Header().Set("Retry-After", "9999999")
				w.WriteHeader(status)
				fmt.Fprintf(w, shape, token)
			}))
			c := newClient(t, polar.ClientConfig{
				BaseURL: server.URL, Logger: zap.New(core), OnCall: func(c polar.Call) { fmt.Fprintf(&seen, "%+v\n", c) },
			})
			_, err := c.CreateCheckout(t.Context(), polar.CheckoutCreate{})
			_, err2 := c.Portal(session).GetSubscription(t.Context(), anID)
			for _, err := range []error{err, err2} {
				e := apiError(t, err)
				fmt.Fprintf(&seen, "%v %+v %#v %+v\n", err, *e, *e, e.Fields)
			}
			fmt.Fprintf(&seen, "%v %+v %#v %+v %#v\n", c, c, c, c.Portal(session), c.Portal(session))
			server.Close()
		}
	}
	for _, secret := range []string{canary, session, anID} {
		if strings.Contains(seen.String(), secret) {
			t.Errorf("%s was seen", secret)
		}
	}
	if n := strings.Count(seen.String(), "a call to polar failed"); n < 40 {
		t.Errorf("only %d failures were logged", n)
	}
}

func TestSecretsOfAnswers(t *testing.T) {
	server, _ := serve(t, reply{status: 201, body: `{"id":"1","token":"polar_cst_x","customer_portal_url":"https://x/polar_cst_x"}`})
	a, err := newClient(t, polar.ClientConfig{BaseURL: server.URL}).CreateCustomerSession(t.Context(), polar.CustomerSessionCreate{})
	if err != nil {
		t.Fatal(err)
	}
	encoded, _ := json.Marshal(a)
	if s := fmt.Sprintf("%v %+v %#v %s", a, a, a, encoded); strings.Contains(s, "polar_cst_x") {
		t.Error(s)
	}
	if string(a.Item.Token) != "polar_cst_x" {
		t.Error("the token is lost")
	}
}

func TestEveryCallIsTold(t *testing.T) {
	server, _ := serve(t, reply{status: 500}, reply{404, nil, `{"error":"ResourceNotFound","detail":"x"}`})
	local := newClock()
	var calls []polar.Call
	c := newClient(t, polar.ClientConfig{
		BaseURL: server.URL, Now: local.now, Sleep: local.sleep, OnCall: func(c polar.Call) { calls = append(calls, c) },
	})
	_, err := c.GetCustomerByExternalID(t.Context(), "someone@example.com")
	wantKinds(t, err, polar.ErrNotFound)
	if len(calls) != 2 || calls[0].Status != 500 || calls[1].Status != 404 ||
		calls[1].Path != "/v1/customers/external/{external_id}" || calls[1].Method != "GET" || calls[1].Err == nil {
		t.Errorf("got %+v", calls)
	}
}

// TestVersionGone: without leave to go on the error is typed; with it, the
// client goes on without the header once Polar has proved that it is the
// version, for writes too.
func TestVersionGone(t *testing.T) {
	var asked []string
	known := true
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		version := r.Header.Get("Polar-Version")
		asked = append(asked, version)
		w.Header().Set("Content-Type", "application/json")
		if version != "" || !known {
			w.WriteHeader(http.StatusNotFound)
			_, _ = io.WriteString(w, noSuchPath)
			return
		}
		w.Header().Set("Polar-Version", "2027-07")
		_, _ = io.WriteString(w, aSubscription)
	}))
	defer server.Close()
	_, err := newClient(t, polar.ClientConfig{BaseURL: server.URL}).GetSubscription(t.Context(), anID)
	wantKinds(t, err, polar.ErrVersionGone)

	var used []string
	c := newClient(t, polar.ClientConfig{BaseURL: server.URL, OnVersionGone: func(v string) { used = append(used, v) }})
	known, asked = false, nil
	_, err = c.GetSubscription(t.Context(), anID) // a wrong address proves nothing
	wantKinds(t, err, polar.ErrUnexpected)
	known = true
	for range 2 {
		if _, err := c.Background().UpdateSubscription(t.Context(), anID, polar.ChangeResume{}); err != nil {
			t.Fatal(err)
		}
	}
	if !slices.Equal(used, []string{"2027-07"}) {
		t.Errorf("told %v", used)
	}
	if want := []string{"2026-10", "", "2026-10", "", ""}; !slices.Equal(asked, want) {
		t.Errorf("asked for versions %q, want %q", asked, want)
	}
}

// TestAsOf: the start of the request in Polar's time, and the offset.
func TestAsOf(t *testing.T) {
	local := newClock()
	date := local.now().Add(time.Hour)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = local.sleep(r.Context(), 2*time.Second) // the answer takes that long
		w.Header()["Date"] = nil
		if !strings.HasSuffix(r.URL.Path, "undated") {
			w.Header().Set("Date", date.Format(http.TimeFormat))
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, aSubscription)
	}))
	defer server.Close()
	c := newClient(t, polar.ClientConfig{BaseURL: server.URL, Now: local.now, Sleep: local.sleep})
	if _, ok := c.Offset(); ok {
		t.Error("an offset before the first answer")
	}
	a, err := c.GetSubscription(t.Context(), anID)
	if err != nil || !a.AsOf.Equal(date.Add(-2*time.Second)) {
		t.Errorf("AsOf %s, want %s, %v", a.AsOf, date.Add(-2*time.Second), err)
	}
	offset, ok := c.Background().Offset()
	if !ok || offset != time.Hour-2*time.Second {
		t.Errorf("offset %s, %t", offset, ok)
	}
	start := local.now()
	if a, err = c.GetSubscription(t.Context(), "undated"); err != nil || !a.AsOf.Equal(start.Add(offset)) {
		t.Errorf("undated: AsOf %s, %v", a.AsOf, err)
	}
}

func TestExternalIDs(t *testing.T) {
	var asked []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.RequestURI)
		w.Header().Set("Content-Type", "application/json")
		if r.URL.Path != "/v1/customers/" {
			_, _ = io.WriteString(w, `{"id":"by path"}`)
			return
		}
		_, _ = fmt.Fprintf(w, `{"items":[{"id":"near","external_id":"a/b2"},{"id":"p%s","external_id":"a/b%s"}],"pagination":{"total_count":4,"max_page":2}}`,
			r.FormValue("page"), map[string]string{"1": "x", "2": ""}[r.FormValue("page")])
	}))
	defer server.Close()
	c := newClient(t, polar.ClientConfig{BaseURL: server.URL + "/"})
	a, err := c.GetCustomerByExternalID(t.Context(), "x y?#%2F..;&=+")
	if err != nil || a.Item.ID != "by path" {
		t.Fatal(a, err)
	}
	a, err = c.GetCustomerByExternalID(t.Context(), "a/b")
	if err != nil || a.Item.ID != "p2" || a.AsOf.IsZero() {
		t.Fatal(a, err)
	}
	_, err = c.GetCustomerByExternalID(t.Context(), "a/c")
	wantKinds(t, err, polar.ErrNotFound)
	for id, want := range map[string]error{"": polar.ErrInvalid, ".": polar.ErrNotFound, "..": polar.ErrNotFound} {
		_, err = c.GetCustomerByExternalID(t.Context(), id)
		wantKinds(t, err, want)
	}
	want := []string{
		"/v1/customers/external/x%20y%3F%23%252F..%3B&=+",
		"/v1/customers/?limit=100&page=1&query=a%2Fb", "/v1/customers/?limit=100&page=2&query=a%2Fb",
		"/v1/customers/?limit=100&page=1&query=a%2Fc", "/v1/customers/?limit=100&page=2&query=a%2Fc",
	}
	if !slices.Equal(asked, want) {
		t.Errorf("asked\n%s\nwant\n%s", strings.Join(asked, "\n"), strings.Join(want, "\n"))
	}
	// An id from a client cannot reach another path.
	asked = nil
	_, _ = c.GetSubscription(t.Context(), "../customers/x?y#z")
	if len(asked) != 1 || asked[0] != "/v1/subscriptions/..%2Fcustomers%2Fx%3Fy%23z" {
		t.Errorf("asked %q", asked)
	}
}

func TestPages(t *testing.T) {
	list := func(_ context.Context, filter string, p polar.Paging) (polar.Page[int], error) {
		if p.Page == 3 && filter == "fails" {
			return polar.Page[int]{}, polar.ErrUnavailable
		}
		if p.Page == 2 && filter == "shrinks" {
			return polar.Page[int]{Items: []int{}, MaxPage: 1}, nil
		}
		return polar.Page[int]{Items: []int{p.Page, p.Limit}, MaxPage: 4}, nil
	}
	read := func(filter string, paging polar.Paging, stop int) (got []int, last error) {
		for p, err := range polar.Pages(t.Context(), list, filter, paging) {
			last = err
			if err == nil && len(p.Items) > 0 {
				got = append(got, p.Items[0])
			}
			if len(got) == stop {
				break
			}
		}
		return got, last
	}
	for _, test := range []struct {
		filter string
		paging polar.Paging
		stop   int
		want   []int
		fails  bool
	}{
		{"", polar.Paging{}, 0, []int{1, 2, 3, 4}, false},
		{"", polar.Paging{Page: 3}, 0, []int{3, 4}, false},
		{"", polar.Paging{}, 2, []int{1, 2}, false},
		{"fails", polar.Paging{}, 0, []int{1, 2}, true},
		{"shrinks", polar.Paging{}, 0, []int{1}, false},
	} {
		got, err := read(test.filter, test.paging, test.stop)
		if !slices.Equal(got, test.want) || (err != nil) != test.fails {
			t.Errorf("%+v: got %v, %v", test, got, err)
		}
	}
}

func TestNewClient(t *testing.T) {
	for _, config := range []polar.ClientConfig{
		{},
		{Token: "a b"},
		{Token: "a\n"},
		{Token: "ü"},
		{Token: canary, BaseURL: "api.polar.sh"},
		{Token: canary, BaseURL: "ftp://x"},
		{Token: canary, BaseURL: "https://u:p@x"},
		{Token: canary, BaseURL: "https://x?y"},
		{Token: canary, BaseURL: "https://"},
		{Token: canary, BaseURL: "https://%zz"},
	} {
		if c, err := polar.NewClient(config); !errors.Is(err, polar.ErrConfig) || c != nil || strings.Contains(err.Error(), canary) {
			t.Errorf("%q: %v", config.BaseURL, err)
		}
	}
	if c, err := polar.NewClient(polar.ClientConfig{Token: canary}); err != nil || !strings.Contains(c.String(), "https://api.polar.sh") {
		t.Error(c, err)
	}
	_, err := newClient(t, polar.ClientConfig{}).Portal("").GetSubscription(t.Context(), anID)
	wantKinds(t, err, polar.ErrUnauthorized)
}

// TestSandbox: Polar's sandbox marks its answers; what stands in between does not count.
func TestSandbox(t *testing.T) {
	server, _ := serve(t,
		reply{502, map[string]string{"X-Polar-Sandbox": "1", "Content-Type": "text/html"}, "<h1>"},
		reply{200, map[string]string{"X-Polar-Sandbox": "1"}, aSubscription},
		reply{body: aSubscription})
	local := newClock()
	c := newClient(t, polar.ClientConfig{BaseURL: server.URL, Version: "2026-10", Now: local.now, Sleep: func(context.Context, time.Duration) error {
		return context.DeadlineExceeded
	}})
	for i, want := range []struct{ sandbox, known bool }{{false, false}, {true, true}, {false, true}} {
		_, _ = c.GetSubscription(t.Context(), anID)
		if sandbox, known := c.Prompt().Sandbox(); sandbox != want.sandbox || known != want.known {
			t.Errorf("answer %d: %v %v, want %+v", i, sandbox, known, want)
		}
	}
	if c.Version() != "2026-10" {
		t.Error(c.Version())
	}
}

// TestSetBack: of a clock that is set back while Polar is not heard, it is known how far;
// one that goes on, or is set forward, was not.
func TestSetBack(t *testing.T) {
	now := time.Date(2026, 11, 2, 9, 0, 0, 0, time.UTC)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{}`)
	}))
	defer srv.Close()
	c, err := polar.NewClient(polar.ClientConfig{BaseURL: srv.URL, Token: "polar_oat_x", Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if c.ClockHeard(time.Hour) || c.SetBack(now) != 0 {
		t.Error("heard before the first answer")
	}
	_, _ = c.GetProduct(t.Context(), "x")
	heard := now
	for _, moved := range []time.Duration{0, time.Second, time.Hour, -time.Second, -time.Hour, 400 * 24 * time.Hour} {
		now = heard.Add(moved)
		if got, want := c.SetBack(now), max(0, -moved); got != want {
			t.Errorf("moved by %s: set back by %s", moved, got)
		}
		if got, want := c.ClockHeard(time.Minute), moved.Abs() <= time.Minute; got != want {
			t.Errorf("moved by %s: heard %t", moved, got)
		}
	}
	now = time.Now() // tells how much time has gone by, whatever hangs on the wall
	_, _ = c.GetProduct(t.Context(), "x")
	if back := c.SetBack(time.Now()); back > time.Second {
		t.Errorf("a clock that went on was set back by %s", back)
	}
}

package polar_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"pgregory.net/rapid"

	"github.com/caddy-polar/caddy-polar/polar"
)

const dataDir = "../testdata/polar"

func mustFile(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dataDir, name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// vector is one of the signature vectors that were made with the rules of each
// kind of secret.
type vector struct {
	Name    string            `json:"name"`
	Secret  string            `json:"secret"`
	KeyRule string            `json:"key_rule"`
	Headers map[string]string `json:"headers"`
}

func (v vector) header() http.Header {
	h := http.Header{}
	for name, value := range v.Headers {
		h.Set(name, value)
	}
	return h
}

func (v vector) sent(t testing.TB) time.Time {
	t.Helper()
	n, err := strconv.ParseInt(v.Headers["webhook-timestamp"], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return time.Unix(n, 0)
}

func vectors(t testing.TB) ([]vector, []byte) {
	t.Helper()
	var file struct {
		BodyFile string   `json:"body_file"`
		Vectors  []vector `json:"vectors"`
	}
	if err := json.Unmarshal(mustFile(t, "signature_vectors.json"), &file); err != nil {
		t.Fatal(err)
	}
	if len(file.Vectors) != 6 {
		t.Fatalf("%d vectors, want 6: one for each kind of secret", len(file.Vectors))
	}
	return file.Vectors, mustFile(t, file.BodyFile)
}

func mustVerifier(t testing.TB, secrets ...string) *polar.WebhookVerifier {
	t.Helper()
	v, err := polar.NewWebhookVerifier(secrets...)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// take does what a receiver does: headers, then signature.
func take(v *polar.WebhookVerifier, h http.Header, body []byte, now time.Time) error {
	d, err := polar.ReadDelivery(h, now)
	if err != nil {
		return err
	}
	return v.Verify(d, body)
}

// wantRefused asserts a refusal, and what holds for each: the word signature
// is in it and no secret is.
func wantRefused(t testing.TB, err, want error, secrets ...string) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("got %v, want %v", err, want)
		return
	}
	checkRefusal(t, err, secrets...)
}

func checkRefusal(t testing.TB, err error, secrets ...string) {
	t.Helper()
	if !strings.Contains(err.Error(), "signature") {
		t.Errorf("the error lacks the word signature: %v", err)
	}
	for _, s := range secrets {
		for _, part := range []string{s, strings.TrimPrefix(s, "whsec_"), strings.TrimPrefix(s, "polar_whs_")} {
			if strings.Contains(err.Error(), part) {
				t.Errorf("the error tells the secret: %v", err)
			}
		}
	}
}

// sum signs by hand.
func sum(key []byte, id, timestamp string, body []byte) []byte {
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "%s.%s.%s", id, timestamp, body)
	return mac.Sum(nil)
}

func v1(sum []byte) string { return "v1," + base64.StdEncoding.EncodeToString(sum) }

func headers(id, timestamp, signature string) http.Header {
	h := http.Header{}
	h.Set("Webhook-Id", id)
	h.Set("Webhook-Timestamp", timestamp)
	h.Set("Webhook-Signature", signature)
	return h
}

func TestVectors(t *testing.T) {
	all, body := vectors(t)
	var secrets []string
	for _, v := range all {
		secrets = append(secrets, v.Secret)
	}
	reversed := slices.Clone(secrets)
	slices.Reverse(reversed)
	for i, v := range all {
		t.Run(v.Name, func(t *testing.T) {
			sent := v.sent(t)
			others := slices.Delete(slices.Clone(secrets), i, i+1)
			for name, s := range map[string][]string{
				"alone": {v.Secret}, "all": secrets, "reversed": reversed, "last": append(others, v.Secret),
				"first": append([]string{v.Secret}, others...), "twice": {v.Secret, v.Secret},
			} {
				if err := take(mustVerifier(t, s...), v.header(), body, sent); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
			wantRefused(t, take(mustVerifier(t, others...), v.header(), body, sent), polar.ErrSignature, secrets...)
			for _, other := range others {
				wantRefused(t, take(mustVerifier(t, other), v.header(), body, sent), polar.ErrSignature, secrets...)
			}

			d, err := polar.ReadDelivery(v.header(), sent)
			if err != nil {
				t.Fatal(err)
			}
			if d.ID != v.Headers["webhook-id"] || !d.Sent.Equal(sent) || d.APIVersion != "2026-10" {
				t.Errorf("delivery %+v", d)
			}
		})
	}
}

func TestOneChangedByte(t *testing.T) {
	all, body := vectors(t)
	for i, v := range all {
		t.Run(v.Name, func(t *testing.T) {
			verifier, sent := mustVerifier(t, v.Secret), v.sent(t)
			step := 1
			if i > 0 {
				step = 97
			}
			d, err := polar.ReadDelivery(v.header(), sent)
			if err != nil {
				t.Fatal(err)
			}
			for at := 0; at < len(body); at += step {
				changed := bytes.Clone(body)
				changed[at] ^= 1
				if verifier.Verify(d, changed) == nil {
					t.Fatalf("byte %d of the body may change", at)
				}
			}
			for _, changed := range [][]byte{nil, {}, body[1:], body[:len(body)-1], append(bytes.Clone(body), '\n'), append([]byte{' '}, body...)} {
				wantRefused(t, verifier.Verify(d, changed), polar.ErrSignature, v.Secret)
			}
			for _, name := range []string{"webhook-id", "webhook-timestamp", "webhook-signature"} {
				value := v.Headers[name]
				for at := range value {
					if name == "webhook-signature" && at >= len(value)-2 {
						break // padding, and bits that mean nothing
					}
					h := v.header()
					b := []byte(value)
					b[at] ^= 1
					h.Set(name, string(b))
					err := take(verifier, h, body, sent)
					if err == nil {
						t.Errorf("byte %d of %s may change", at, name)
						continue
					}
					checkRefusal(t, err, v.Secret)
				}
			}
			// The timestamp is signed, too: one that is still near enough.
			h := v.header()
			h.Set("webhook-timestamp", strconv.FormatInt(sent.Unix()+1, 10))
			wantRefused(t, take(verifier, h, body, sent), polar.ErrSignature, v.Secret)
		})
	}
}

func TestTheDotsAreSigned(t *testing.T) {
	// Moving bytes from one part to the next must not keep a signature.
	const secret = "my-own-secret-of-at-least-32-characters"
	sent := time.Unix(1795000000, 0)
	signature := v1(sum([]byte(secret), "a", "1795000000", []byte("1795000000.{}")))
	wantRefused(t, take(mustVerifier(t, secret), headers("a.1795000000", "1795000000", signature), []byte("x{}"), sent), polar.ErrSignature, secret)
	if err := take(mustVerifier(t, secret), headers("a", "1795000000", signature), []byte("1795000000.{}"), sent); err != nil {
		t.Error(err)
	}
}

func TestTolerance(t *testing.T) {
	all, body := vectors(t)
	v := all[0]
	verifier, sent := mustVerifier(t, v.Secret), v.sent(t)
	for _, off := range []time.Duration{0, time.Second, 5 * time.Minute, -time.Second, -5 * time.Minute, 5*time.Minute - time.Nanosecond} {
		if err := take(verifier, v.header(), body, sent.Add(off)); err != nil {
			t.Errorf("%s off: %v", off, err)
		}
	}
	for _, off := range []time.Duration{5*time.Minute + time.Second, -5*time.Minute - time.Second, 5*time.Minute + time.Nanosecond, 999 * time.Hour, -999 * time.Hour} {
		wantRefused(t, take(verifier, v.header(), body, sent.Add(off)), polar.ErrTimestamp, v.Secret)
	}
	// As far off as the header allows.
	for _, s := range []string{"0", "1099511627776"} {
		_, err := polar.ReadDelivery(headers("id", s, v.Headers["webhook-signature"]), sent)
		wantRefused(t, err, polar.ErrTimestamp)
	}
	if polar.Tolerance != 5*time.Minute {
		t.Errorf("tolerance %s", polar.Tolerance)
	}
}

func TestHeaders(t *testing.T) {
	all, body := vectors(t)
	v := all[2]
	verifier, sent := mustVerifier(t, v.Secret), v.sent(t)
	for _, name := range []string{"Webhook-Id", "Webhook-Timestamp", "Webhook-Signature"} {
		for how, change := range map[string]func(http.Header){
			"missing":        func(h http.Header) { h.Del(name) },
			"no values":      func(h http.Header) { h[name] = nil },
			"empty":          func(h http.Header) { h.Set(name, "") },
			"doubled":        func(h http.Header) { h.Add(name, h.Get(name)) },
			"doubled, empty": func(h http.Header) { h.Add(name, "") },
		} {
			t.Run(name+" "+how, func(t *testing.T) {
				h := v.header()
				change(h)
				wantRefused(t, take(verifier, h, body, sent), polar.ErrHeaders, v.Secret)
			})
		}
	}
	_, err := polar.ReadDelivery(nil, sent)
	wantRefused(t, err, polar.ErrHeaders)

	for _, timestamp := range []string{
		"x", "-1", "1795000000.5", "1.795e9", "0x6afd1dc0", " 1795000000", "1795000000 ", "1_795_000_000",
		"99999999999999999999", "1099511627777", "2026-11-18T11:06:40Z", "NaN", "١٧٩٥",
	} {
		_, err := polar.ReadDelivery(headers("id", timestamp, v.Headers["webhook-signature"]), sent)
		wantRefused(t, err, polar.ErrHeaders)
	}

	for n, want := range map[int]error{255: nil, 256: polar.ErrHeaders} {
		id := strings.Repeat("i", n)
		key, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(v.Secret, "whsec_"))
		err := take(verifier, headers(id, "1795000000", v1(sum(key, id, "1795000000", body))), body, sent)
		if !errors.Is(err, want) {
			t.Errorf("id of %d bytes: %v", n, err)
		}
	}

	h := v.header()
	h.Del("webhook-api-version")
	if err := take(verifier, h, body, sent); err != nil {
		t.Errorf("without webhook-api-version, as before September 2026: %v", err)
	}
}

func TestSignatureHeader(t *testing.T) {
	const secret, id, timestamp = "my-own-secret-of-at-least-32-characters", "id", "1795000000"
	body := []byte(`{"type":"x"}`)
	verifier, now := mustVerifier(t, secret), time.Unix(1795000000, 0)
	right := sum([]byte(secret), id, timestamp, body)
	good := v1(right)
	wrong := func(n int) string { return v1(sum([]byte{byte(n), byte(n >> 8)}, id, timestamp, body)) }
	many := func(n, at int) string {
		var all []string
		for i := range n {
			if i == at {
				all = append(all, good)
			} else {
				all = append(all, wrong(i))
			}
		}
		return strings.Join(all, " ")
	}

	for name, tc := range map[string]struct {
		header string
		want   error
	}{
		"one":                   {good, nil},
		"right after a wrong":   {wrong(1) + " " + good, nil},
		"right before a wrong":  {good + " " + wrong(1), nil},
		"same one twice":        {good + " " + good, nil},
		"after another scheme":  {"v1a,AAAA " + good, nil},
		"after no scheme":       {"AAAA " + good, nil},
		"after malformed":       {"v1,*** " + good, nil},
		"spaces around":         {"  " + good + "  ", nil},
		"the eighth":            {many(8, 7), nil},
		"first of a hundred":    {many(100, 0), nil},
		"a hundred of another":  {strings.Repeat("v1a,AAAA ", 100) + good, nil},
		"a hundred wrong":       {many(100, -1), polar.ErrSignature},
		"after eight wrong":     {many(9, 8), polar.ErrSignature}, // the work is bounded
		"last of a hundred":     {many(100, 99), polar.ErrSignature},
		"wrong":                 {wrong(1), polar.ErrSignature},
		"all zero":              {v1(make([]byte, 32)), polar.ErrSignature},
		"v1a with our sum":      {"v1a," + good[3:], polar.ErrHeaders},
		"v2 with our sum":       {"v2," + good[3:], polar.ErrHeaders},
		"V1":                    {"V1," + good[3:], polar.ErrHeaders},
		"no scheme":             {good[3:], polar.ErrHeaders},
		"scheme alone":          {"v1,", polar.ErrHeaders},
		"no comma":              {"v1" + good[3:], polar.ErrHeaders},
		"v1=":                   {"v1=" + good[3:], polar.ErrHeaders},
		"spaces only":           {"   ", polar.ErrHeaders},
		"malformed base64":      {"v1,****", polar.ErrHeaders},
		"without padding":       {strings.TrimRight(good, "="), polar.ErrHeaders},
		"url alphabet":          {"v1," + base64.URLEncoding.EncodeToString(bytes.Repeat([]byte{0xff}, 32)), polar.ErrHeaders},
		"hex":                   {fmt.Sprintf("v1,%x", right), polar.ErrHeaders},
		"a byte short":          {v1(right[:31]), polar.ErrHeaders},
		"a byte long":           {v1(append(bytes.Clone(right), 0)), polar.ErrHeaders},
		"our sum twice, joined": {v1(append(bytes.Clone(right), right...)), polar.ErrHeaders},
		"comma separated":       {good + "," + good, polar.ErrHeaders},
	} {
		t.Run(name, func(t *testing.T) {
			err := take(verifier, headers(id, timestamp, tc.header), body, now)
			if tc.want == nil {
				if err != nil {
					t.Error(err)
				}
				return
			}
			wantRefused(t, err, tc.want, secret, good[3:])
		})
	}
}

func TestNewWebhookVerifier(t *testing.T) {
	for _, secrets := range [][]string{nil, {""}, {"a secret", ""}, {"", "a secret"}} {
		v, err := polar.NewWebhookVerifier(secrets...)
		if v != nil || !errors.Is(err, polar.ErrNoSecret) {
			t.Errorf("%q: %v %v", secrets, v, err)
		} else if strings.Contains(err.Error(), "a secret") {
			t.Errorf("the error tells the secret: %v", err)
		}
	}
	// An empty key would let everybody sign.
	for _, secret := range []string{"whsec_", "whsec_=", "whsec_===="} {
		err := take(mustVerifier(t, secret), headers("id", "1795000000", v1(sum(nil, "id", "1795000000", nil))), nil, time.Unix(1795000000, 0))
		wantRefused(t, err, polar.ErrSignature)
	}
}

// The oracle: the public library, for secrets that it understands.
func TestOracleAgrees(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		key := rapid.SliceOfN(rapid.Byte(), 24, 64).Draw(t, "key")
		secret := "whsec_" + base64.StdEncoding.EncodeToString(key)
		oracle, err := standardwebhooks.NewWebhook(secret)
		if err != nil {
			t.Fatal(err)
		}
		ours, err := polar.NewWebhookVerifier("another secret", secret)
		if err != nil {
			t.Fatal(err)
		}
		id := rapid.StringMatching(`[ -~]{1,80}`).Draw(t, "id")
		body := rapid.SliceOf(rapid.Byte()).Draw(t, "body")
		now := time.Unix(rapid.Int64Range(1, 1<<33).Draw(t, "now"), 0)
		signed, err := oracle.Sign(id, now, body)
		if err != nil {
			t.Fatal(err)
		}
		if byHand := v1(sum(key, id, strconv.FormatInt(now.Unix(), 10), body)); signed != byHand {
			t.Fatalf("oracle signs %s, by hand %s", signed, byHand)
		}
		stranger := v1(sum([]byte("stranger"), id, strconv.FormatInt(now.Unix(), 10), body))
		signature := rapid.SampledFrom([]string{signed, stranger, stranger + " " + signed, signed + " v1a,x", "v1a," + signed[3:]}).Draw(t, "signature")
		sentID, sentAt, sentBody := id, now.Unix(), body
		switch rapid.SampledFrom([]string{"nothing", "id", "time", "body", "longer"}).Draw(t, "changed") {
		case "id":
			sentID += "x"
		case "time":
			sentAt++
		case "body":
			if len(body) > 0 {
				sentBody = bytes.Clone(body)
				sentBody[rapid.IntRange(0, len(body)-1).Draw(t, "at")] ^= 0x20
			}
		case "longer":
			sentBody = append(bytes.Clone(body), 0)
		}
		h := headers(sentID, strconv.FormatInt(sentAt, 10), signature)
		us := take(ours, h, sentBody, now)
		them := oracle.VerifyIgnoringTimestamp(sentBody, h)
		if (us == nil) != (them == nil) {
			t.Fatalf("we say %v, the oracle says %v", us, them)
		}
		if untouched := sentID == id && sentAt == now.Unix() && bytes.Equal(sentBody, body) && strings.Contains(signature, signed); untouched != (us == nil) {
			t.Fatalf("untouched %v, but we say %v", untouched, us)
		}
	})
}

func TestIsListenSecret(t *testing.T) {
	for secret, want := range map[string]bool{
		"47eaa0992cb6416d86dc283cf0480ff9":                  true,
		"00000000000040008000000000000000":                  true,
		"0000000000004000b000000000000000":                  true,
		"47eaa0992cb6316d86dc283cf0480ff9":                  false, // not version 4
		"47eaa0992cb6416d76dc283cf0480ff9":                  false, // not the variant
		"47eaa0992cb6416dc6dc283cf0480ff9":                  false,
		"47EAA0992CB6416D86DC283CF0480FF9":                  false, // Polar writes lower case
		"47eaa0992cb6416d86dc283cf0480ff":                   false,
		"47eaa0992cb6416d86dc283cf0480ff90":                 false,
		"47eaa0992cb6416d86dc283cf0480ffg":                  false,
		"g7eaa0992cb6416d86dc283cf0480ff9":                  false,
		"47eaa0992cb6416d8gdc283cf0480ff9":                  false, // in the middle
		"47eaa099-2cb6-416d-86dc-283cf0480ff9":              false,
		"47eaa099-2cb6-416d-86dc-283cf048":                  false,
		"my-own-secret-of-at-least-32-char":                 false,
		"my-own-secre4-of8at-least-32-cha":                  false,
		"":                                                  false,
		"whsec_A1b2C3d4E5f6G7h8J9k0L1m2N3p4Q5r6S7t8U0Zx9Yw": false,
	} {
		if got := polar.IsListenSecret(secret); got != want {
			t.Errorf("%q: %v", secret, got)
		}
	}
	all, _ := vectors(t)
	for i, v := range all {
		if want := i == 5; polar.IsListenSecret(v.Secret) != want {
			t.Errorf("%s: want %v", v.Name, want)
		}
	}
}

// FuzzVerify: only what this test signed passes, and what it signs passes.
func FuzzVerify(f *testing.F) {
	all, body := vectors(f)
	for _, v := range all {
		f.Add(v.Headers["webhook-id"], v.Headers["webhook-timestamp"], v.Headers["webhook-signature"], body)
	}
	f.Add("", "", "", []byte(nil))
	f.Add("a.b", "+1795000000", "v1a,x v1, v1,==== v2,\t", []byte("."))
	f.Add("id", "01795000000", "v1,"+strings.Repeat("A", 43)+"=", []byte("{}"))

	secret := all[2].Secret // has two keys
	decoded, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
	if err != nil {
		f.Fatal(err)
	}
	keys := [][]byte{[]byte(secret), decoded}
	verifier := mustVerifier(f, secret)
	now := time.Unix(1795000000, 0)
	f.Fuzz(func(t *testing.T, id, timestamp, signature string, body []byte) {
		err := take(verifier, headers(id, timestamp, signature), body, now)
		if err == nil {
			signed := false
			for part := range strings.FieldsSeq(signature) {
				got, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(part, "v1,"))
				for _, key := range keys {
					signed = signed || err == nil && strings.HasPrefix(part, "v1,") && bytes.Equal(got, sum(key, id, timestamp, body))
				}
			}
			if !signed {
				t.Fatalf("%q %q %q passes", id, timestamp, signature)
			}
		} else {
			checkRefusal(t, err, secret)
		}
		n, parseErr := strconv.ParseInt(timestamp, 10, 64)
		fits := id != "" && len(id) <= 255 && parseErr == nil && n >= 1795000000-300 && n <= 1795000000+300
		for _, key := range keys {
			err := take(verifier, headers(id, timestamp, v1(sum(key, id, timestamp, body))), body, now)
			if (err == nil) != fits {
				t.Fatalf("signed %q %q: %v", id, timestamp, err)
			}
		}
	})
}

// TestSign: what is signed is taken by whoever knows the secret, of any kind.
func TestSign(t *testing.T) {
	all, body := vectors(t)
	now := time.Unix(1_790_000_000, 0)
	for _, v := range all {
		signer := mustVerifier(t, v.Secret, "another-secret-of-at-least-32-characters")
		h := signer.Sign("evt_1", now, body)
		if err := take(mustVerifier(t, v.Secret), h, body, now); err != nil {
			t.Error(err)
		}
		wantRefused(t, take(mustVerifier(t, "another-secret-of-at-least-32-characters"), h, body, now), polar.ErrSignature, v.Secret)
		wantRefused(t, take(signer, h, append(bytes.Clone(body), ' '), now), polar.ErrSignature, v.Secret)
	}
}

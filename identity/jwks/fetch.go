package jwks

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const (
	maxBody      = 1 << 20
	maxHeader    = 64 << 10
	maxRedirects = 3
	fetchTimeout = 10 * time.Second

	// How long a set stays current, if its answer does not say, and at least and at
	// most whatever it says.
	defaultAge = 15 * time.Minute
	minAge     = time.Minute
	maxAge     = 24 * time.Hour
)

// Why a set could not be fetched.
var (
	// ErrUnreachable means that there was no answer.
	ErrUnreachable = errors.New("no answer")
	// ErrRefused means that the answer was not 200, or a redirect to another place.
	ErrRefused = errors.New("the answer is not 200")
	// ErrUnusable means that the answer is no set of keys.
	ErrUnusable = errors.New("the answer cannot be used")
	// ErrURL means that keys must not, or cannot, be fetched from a URL.
	ErrURL = errors.New("URL cannot be used")
)

var (
	errRedirect = fmt.Errorf("%w: it redirects to another place, or too often: give the address of the keys themselves", ErrRefused)
	errTooLarge = fmt.Errorf("%w: it is longer than 1 MiB", ErrUnusable)
)

// ParseURL checks the URL of a set. Its errors do not show it: there may be secrets
// in it.
func ParseURL(address string) (*url.URL, error) {
	u, err := url.Parse(address)
	switch {
	case err != nil || u.Hostname() == "" || u.Opaque != "":
		return nil, fmt.Errorf("%w: it is not of the form https://host/path", ErrURL)
	case u.User != nil:
		return nil, fmt.Errorf("%w: it must not hold a user or a password", ErrURL)
	case u.Fragment != "":
		return nil, fmt.Errorf("%w: it must not hold a fragment, #…", ErrURL)
	case u.Scheme != "https" && (u.Scheme != "http" || !isLoopback(u.Hostname())):
		return nil, fmt.Errorf("%w: it needs https (http is for loopback only)", ErrURL)
	}
	return u, nil
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// newClient makes a client that goes to no other place than the first.
func newClient(transport http.RoundTripper) *http.Client {
	if transport == nil {
		t := http.DefaultTransport.(*http.Transport).Clone()
		t.DisableKeepAlives = true // the next request is minutes away
		t.MaxResponseHeaderBytes = maxHeader
		transport = t
	}
	return &http.Client{
		Transport: transport,
		CheckRedirect: func(r *http.Request, via []*http.Request) error {
			if len(via) > maxRedirects || r.URL.Scheme != via[0].URL.Scheme || r.URL.Host != via[0].URL.Host || r.URL.User != nil {
				return errRedirect
			}
			return nil
		},
	}
}

// fetch asks for the set once, and for how long it is current.
func (f *Feed) fetch(ctx context.Context) (document, time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, f.url.String(), nil)
	if err != nil {
		return document{}, 0, f.failure(err)
	}
	r.Header.Set("Accept", "application/jwk-set+json, application/json")
	r.Header.Set("User-Agent", "caddy-polar")
	answer, err := f.client.Do(r)
	if err != nil {
		return document{}, 0, f.failure(err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return document{}, 0, fmt.Errorf("%w: %d", ErrRefused, answer.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxBody+1))
	if err != nil {
		return document{}, 0, f.failure(err)
	}
	if len(body) > maxBody {
		return document{}, 0, errTooLarge
	}
	doc, err := parse(body)
	return doc, age(answer.Header), err
}

// failure is an error of the HTTP client without the URL, whose query may be secret.
func (f *Feed) failure(err error) error {
	if errors.Is(err, errRedirect) {
		return errRedirect
	}
	if outer := new(url.Error); errors.As(err, &outer) {
		err = outer.Err
	}
	text := err.Error()
	if f.url.RawQuery != "" {
		text = strings.ReplaceAll(text, f.url.RawQuery, "…")
	}
	return fmt.Errorf("%w: %s", ErrUnreachable, text)
}

// age is for how long an answer is current, within our bounds.
func age(h http.Header) time.Duration {
	fresh := defaultAge
	for directive := range strings.SplitSeq(strings.Join(h["Cache-Control"], ","), ",") {
		name, value, _ := strings.Cut(strings.ToLower(strings.TrimSpace(directive)), "=")
		switch name {
		case "no-store", "no-cache":
			return minAge
		case "max-age":
			fresh = seconds(strings.Trim(value, `"`))
			fresh -= seconds(h.Get("Age"))
		}
	}
	return min(max(fresh, minAge), maxAge)
}

// seconds reads a number of seconds, as far as it matters here.
func seconds(text string) time.Duration {
	n, err := strconv.ParseUint(text, 10, 64)
	if errors.Is(err, strconv.ErrRange) || n > uint64(2*maxAge/time.Second) {
		return 2 * maxAge
	}
	return time.Duration(n) * time.Second // 0 if it is no number
}

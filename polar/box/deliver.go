package box

import (
	"io"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Polar's rules of delivery.
const (
	maxAttempts     = 10
	backoffUnit     = 2 * time.Second
	backoffMax      = 20 * time.Minute
	guardAge        = time.Minute
	guardWait       = 300 * time.Millisecond
	failureLimit    = 10 // failed events in a row that disable an endpoint
	keptResponse    = 2048
	payloadKept     = 90 * 24 * time.Hour
	sendDelay       = 50 * time.Millisecond
	maxShuffleDelay = 20 * time.Second
)

// webhookEvent is Polar's row of an event for one endpoint.
type webhookEvent struct {
	Row
	endpoint   *Endpoint
	kind       string
	payload    string
	apiVersion string
	visible    time.Time
	tried      bool
	succeeded  *bool // null until it succeeded or failed for good
	skipped    bool
	lastCode   int
}

// Attempt is Polar's row of an attempt to deliver, which it calls a delivery.
type Attempt struct {
	Row
	EventID, EventType, EndpointID string
	Succeeded                      bool
	Code                           int // 0 when there was no answer
	Response                       string
}

type delivery struct {
	client    *http.Client
	endpoints map[string]*Endpoint
	order     []string
	events    map[string]*webhookEvent
	pending   map[string][]*webhookEvent // of an endpoint, never tried
	finished  map[string][]*webhookEvent // of an endpoint, the last ten
	checkouts map[string][]*webhookEvent // checkout.updated, by checkout
	attempts  []Attempt
	network   Network
}

func newDelivery(o Options) delivery {
	return delivery{
		client: &http.Client{
			Timeout:       o.DeliveryTimeout,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
			Transport:     &http.Transport{MaxIdleConnsPerHost: 4, IdleConnTimeout: time.Second},
		},
		endpoints: map[string]*Endpoint{}, checkouts: map[string][]*webhookEvent{}, events: map[string]*webhookEvent{},
		pending: map[string][]*webhookEvent{}, finished: map[string][]*webhookEvent{},
	}
}

// Network is what happens to webhooks on their way.
type Network struct {
	Lose    bool          // nothing arrives, and Polar believes that it did
	Refuse  bool          // attempts fail
	Double  bool          // everything arrives twice
	Shuffle bool          // first attempts arrive in any order
	Delay   time.Duration // first attempts start so much later
}

// SetNetwork sets what happens to the webhooks that follow.
func (b *Box) SetNetwork(n Network) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.delivery.network = n
}

// enqueue stores an event for each endpoint that is enabled and wants it.
func (b *Box) enqueue(e Event, visible time.Time) {
	d := &b.delivery
	for _, id := range d.order {
		endpoint := d.endpoints[id]
		if !endpoint.wants(e.Type) {
			continue
		}
		row := &webhookEvent{
			Row: Row{ID: b.newID(), CreatedAt: e.Timestamp}, endpoint: endpoint, kind: e.Type, payload: e.Envelope(endpoint.APIVersion),
			apiVersion: endpoint.APIVersion, visible: visible,
		}
		d.events[row.ID] = row
		if e.Type == "checkout.updated" {
			d.checkouts[e.subject] = append(d.checkouts[e.subject], row)
		}
		d.pending[id] = append(d.pending[id], row)
		wait := sendDelay + d.network.Delay
		if d.network.Shuffle {
			wait += time.Duration(b.rng.Uint64() % uint64(maxShuffleDelay))
		}
		b.attempt(row, 1, later(visible, b.Now()).Add(wait))
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// attempt schedules an attempt. Only first attempts are soon.
func (b *Box) attempt(e *webhookEvent, try int, at time.Time) {
	b.tasks.add(at, try == 1, func() { b.deliver(e, try) })
}

// earlier counts what the guard waits for: older events of the endpoint, of the
// last minute, that were never tried.
func (b *Box) earlier(e *webhookEvent) int {
	n, now := 0, b.Now()
	for _, other := range b.delivery.pending[e.endpoint.ID] {
		if !other.CreatedAt.Before(e.CreatedAt) {
			break // they are in the order of their creation
		}
		if now.Sub(other.CreatedAt) < guardAge && !other.visible.After(now) {
			n++
		}
	}
	return n
}

// deliver makes an attempt. It is called without the lock: the receiver may
// call the API before it answers.
func (b *Box) deliver(e *webhookEvent, try int) {
	b.mu.Lock()
	d := &b.delivery
	if e.skipped || !e.endpoint.Enabled || e.endpoint.deleted {
		b.untrack(e)
		b.mu.Unlock()
		return
	}
	if !e.tried && !d.network.Shuffle {
		if n := b.earlier(e); n > 0 {
			b.attempt(e, try, b.Now().Add(min(time.Duration(n)*guardWait, guardAge)))
			b.mu.Unlock()
			return
		}
	}
	b.untrack(e)
	endpoint, network := *e.endpoint, d.network
	b.mu.Unlock()

	code, answer := b.post(e, &endpoint, network)

	b.mu.Lock()
	defer b.mu.Unlock()
	b.record(e, try, code, answer)
}

func (b *Box) untrack(e *webhookEvent) {
	if e.tried {
		return
	}
	e.tried = true
	pending := b.delivery.pending[e.endpoint.ID]
	if i := slices.Index(pending, e); i >= 0 {
		b.delivery.pending[e.endpoint.ID] = slices.Delete(pending, i, i+1)
	}
}

func (b *Box) post(e *webhookEvent, endpoint *Endpoint, network Network) (code int, answer string) {
	switch {
	case network.Lose:
		return http.StatusOK, ""
	case network.Refuse:
		return 0, "All connection attempts failed"
	case network.Double:
		b.send(e, endpoint)
	}
	return b.send(e, endpoint)
}

func (b *Box) send(e *webhookEvent, endpoint *Endpoint) (code int, answer string) {
	req, err := http.NewRequest(http.MethodPost, endpoint.URL, strings.NewReader(e.payload))
	if err != nil {
		return 0, err.Error()
	}
	now := b.Now()
	if b.options.SigningClock != nil {
		now = b.options.SigningClock()
	}
	hook := Webhook{e.ID, e.apiVersion, e.payload}
	req.Header = hook.Signed(endpoint.Secret, endpoint.Kind, now)
	res, err := b.delivery.client.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer res.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(res.Body, keptResponse))
	return res.StatusCode, string(body)
}

func (b *Box) record(e *webhookEvent, try, code int, answer string) {
	d := &b.delivery
	ok := code >= 200 && code < 300
	d.attempts = append(d.attempts, Attempt{b.newRow(), e.ID, e.kind, e.endpoint.ID, ok, code, answer})
	e.lastCode = code
	now := b.clock.tick()
	e.ModifiedAt = &now
	switch {
	case ok:
		b.finish(e, true)
	case try < maxAttempts:
		wait := min(backoffUnit<<try, backoffMax)
		wait -= time.Duration(b.rng.Uint64() % uint64(wait/2+1)) // jitter: half of it to all of it
		b.attempt(e, try+1, b.Now().Add(wait))
	default:
		b.finish(e, false)
	}
}

// finish notes an event's end, and disables an endpoint at which everything
// fails. What is pending then is skipped for good.
func (b *Box) finish(e *webhookEvent, succeeded bool) {
	d, id := &b.delivery, e.endpoint.ID
	e.succeeded = &succeeded
	last := append(d.finished[id], e)
	if len(last) > failureLimit {
		last = last[1:]
	}
	d.finished[id] = last
	if succeeded || len(last) < failureLimit {
		return
	}
	for _, x := range last {
		if *x.succeeded {
			return
		}
	}
	e.endpoint.Enabled = false
	for _, x := range d.events {
		if x.endpoint == e.endpoint && x.succeeded == nil {
			x.skipped = true
		}
	}
}

// Redeliver sends the stored payload again, with the same id and a fresh
// signature. It does nothing while the endpoint is disabled.
func (b *Box) Redeliver(eventID string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.delivery.events[eventID]
	if e == nil || e.endpoint.deleted {
		return notFound()
	}
	if !e.endpoint.Enabled || b.archived(e) {
		return nil
	}
	e.skipped = false
	b.untrack(e)
	b.attempt(e, 1, b.Now())
	return nil
}

func (b *Box) archived(e *webhookEvent) bool { return b.Now().Sub(e.CreatedAt) > payloadKept }

// Attempts returns the attempts to deliver, oldest first.
func (b *Box) Attempts() []Attempt {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.delivery.attempts)
}

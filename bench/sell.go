package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"sync/atomic"
	"time"

	"github.com/caddy-polar/caddy-polar/polar/box"
)

// senders is how many webhooks are under way at a time. They share commits, so
// that a million of them take minutes and not hours.
const senders = 128

// sell tells a gateway of a subscription of each user, by signed webhooks as
// Polar sends them.
func (l *lab) sell(ctx context.Context, site string, users int) error {
	sample, err := box.Sample("subscription.active", box.SampleOptions{User: userID(0), ProductID: product})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: senders}}
	defer client.CloseIdleConnections()
	to, sale := "http://"+l.addr(site)+"/auth/polar/webhook", newSale(sample.Webhook)
	var next atomic.Int64
	failed := make(chan error, senders)
	for range cap(failed) {
		go func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= users {
					failed <- nil
					return
				}
				if err := l.deliver(ctx, client, to, sale.to(i)); err != nil {
					failed <- err
					return
				}
			}
		}()
	}
	for range cap(failed) {
		if e := <-failed; err == nil && e != nil {
			err = e
			cancel() // the others fail for the same reason, or for this
		}
	}
	return err
}

// sale is a webhook about the first user's subscription, cut where it is another
// one for another user.
type sale struct {
	webhook box.Webhook
	parts   []string // texts and what stands between them, in turn
}

var differsRE = regexp.MustCompile(regexp.QuoteMeta(userID(0)) + `|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)

func newSale(w box.Webhook) *sale {
	s := &sale{webhook: w}
	from := 0
	for _, at := range differsRE.FindAllStringIndex(w.Body, -1) {
		if w.Body[at[0]:at[1]] == box.SampleOrganization {
			continue
		}
		s.parts = append(s.parts, w.Body[from:at[0]], w.Body[at[0]:at[1]])
		from = at[1]
	}
	s.parts = append(s.parts, w.Body[from:])
	return s
}

// to makes it another user's. Ids begin with what differs, and in no order: as
// Polar's are random, the pages of the file fill as they would.
func (s *sale) to(i int) box.Webhook {
	const odd = 2654435761 // so that each i gives another number
	user, id := userID(i), fmt.Sprintf("%08x", uint32(i)*odd)
	w := s.webhook
	w.ID = id + w.ID[len(id):]
	var b strings.Builder
	b.Grow(len(w.Body) + 64)
	for n, part := range s.parts {
		switch {
		case n%2 == 0:
			b.WriteString(part)
		case part == userID(0):
			b.WriteString(user)
		default:
			b.WriteString(id)
			b.WriteString(part[len(id):])
		}
	}
	w.Body = b.String()
	return w
}

func (l *lab) deliver(ctx context.Context, client *http.Client, to string, w box.Webhook) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to, strings.NewReader(w.Body))
	if err != nil {
		return err
	}
	req.Header = w.Signed(l.webhook, box.KindOf(l.webhook), time.Now())
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	said, err := io.ReadAll(res.Body)
	err = errors.Join(err, res.Body.Close())
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", res.Status, said)
	}
	return err
}

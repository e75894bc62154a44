package gateway

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-polar/caddy-polar/cache"
	"github.com/caddy-polar/caddy-polar/entitlement"
)

// Sender posts one message to the app, once. The error can be shown.
type Sender interface {
	Send(ctx context.Context, id string, now time.Time, body []byte) error
}

const (
	// readAtOnce is how many entries of the journal are looked at together.
	readAtOnce = 64
	// sendAtOnce is how many messages are under way, each to another user.
	sendAtOnce = 8
	// minJournal is how long the journal is kept at least while it is read from.
	minJournal = 48 * time.Hour
)

// notifier tells the app of changes of subscriptions: each at least once, in order
// for each user. Only one tells at a time, whichever configuration it is of.
type notifier struct {
	sender Sender
	wake   chan struct{}

	mu     sync.Mutex
	outbox *outbox   // nil until it is read
	lost   int       // how often nothing has arrived, since something has
	probe  time.Time // no try before it

	// read is up to which entry the journal was read, durably. Each webhook asks.
	read atomic.Uint64
}

// keptNotifying is the turn to tell, which configurations hand on.
const keptNotifying = "notifying"

// changed lets the notifier look at the journal.
func (n *notifier) changed() {
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// unread is the first entry of the journal that has to stay: all of them, before it
// is known.
func (n *notifier) unread() uint64 { return n.read.Load() + 1 }

// journalFor is how long the journal is kept.
func (g *Gateway) journalFor() time.Duration {
	if g.notifier == nil {
		return g.audit
	}
	return max(g.audit, minJournal)
}

// notify tells the app until the context ends.
func (g *Gateway) notify(ctx context.Context) {
	turn, ok := g.store.Kept(keptNotifying).(chan struct{})
	if !ok {
		turn = make(chan struct{}, 1)
		g.store.Keep(keptNotifying, turn)
	}
	select {
	case turn <- struct{}{}:
		defer func() { <-turn }()
	case <-ctx.Done():
		return
	}
	n := g.notifier
	n.mu.Lock()
	n.outbox = nil // whose turn it was has written since
	n.mu.Unlock()
	for wait := time.Duration(0); ; {
		select {
		case <-n.wake:
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
		more, err := g.notifyOnce(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			g.logger.Error("the app cannot be told of changes: the store has to be read and written for it", zap.Error(err))
			wait = lastRetry / 15
		case more:
			wait = 0
		default:
			wait = n.untilNext(g.local())
		}
	}
}

func (n *notifier) untilNext(now time.Time) time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.outbox == nil || n.outbox.size == 0 {
		return time.Hour
	}
	next := n.outbox.next()
	if n.lost > 0 {
		next = n.probe
	}
	return max(next.Sub(now), 0)
}

// notifyOnce reads some of the journal, sends what is due, and notes what has become
// of it. more says that there is more to do at once.
func (g *Gateway) notifyOnce(ctx context.Context) (more bool, err error) {
	n := g.notifier
	if err := g.loadOutbox(ctx); err != nil {
		return false, err
	}
	n.mu.Lock()
	o := n.outbox
	room := o.size+readAtOnce <= mostWaiting
	after := o.read
	n.mu.Unlock()
	if room {
		entries, err := g.store.Journal(after, readAtOnce)
		if err != nil {
			return false, err
		}
		if len(entries) > 0 {
			if err := g.takeIn(ctx, entries); err != nil {
				return false, err
			}
			more = true
		}
	}
	n.mu.Lock()
	var due []*message
	switch now := g.local(); {
	case n.lost == 0:
		due = o.due(now, sendAtOnce)
	case !n.probe.After(now):
		due = o.stalest() // it tries for all
	}
	n.mu.Unlock()
	if len(due) == 0 {
		return more, nil
	}
	return true, g.send(ctx, due)
}

// loadOutbox reads what waits, once. Who begins to be told hears nothing of what
// was before.
func (g *Gateway) loadOutbox(ctx context.Context) error {
	n := g.notifier
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.outbox != nil {
		return nil
	}
	read, err := g.Note(noteNotified)
	if err != nil {
		return err
	}
	waiting, err := g.store.Notes(noteWaiting)
	if err != nil {
		return err
	}
	o, fresh, err := readOutbox(read, waiting)
	if err != nil {
		return err
	}
	if fresh {
		if o.read, err = g.store.LastEntry(); err != nil {
			return err
		}
		if err := g.note(ctx, o, nil); err != nil {
			return err
		}
	}
	n.outbox = o
	n.read.Store(o.read)
	return nil
}

// takeIn makes messages of entries of the journal, and has them durable before they
// are sent: from then on the journal may forget them.
func (g *Gateway) takeIn(ctx context.Context, entries []cache.Entry) error {
	var list []*message
	for i := range entries {
		e := &entries[i]
		if e.Kind != "subscription" {
			continue
		}
		user, err := g.store.SubscriptionUser(e.ID)
		if err != nil {
			return err
		}
		if user != "" {
			list = append(list, &message{Number: e.Number, User: user, Subscription: e.ID, At: e.At, New: e.New, Changes: e.Changes, Since: g.local()})
		}
	}
	n := g.notifier
	n.mu.Lock()
	defer n.mu.Unlock()
	o := n.outbox
	before := o.read
	o.read = entries[len(entries)-1].Number
	notes := make(map[string][]byte, len(list))
	for _, m := range list {
		if err := m.write(notes); err != nil {
			return err
		}
	}
	if err := g.note(ctx, o, notes); err != nil {
		o.read = before
		return err
	}
	for _, m := range list {
		o.put(m)
	}
	return nil
}

func (m *message) write(notes map[string][]byte) error {
	raw, err := json.Marshal(m)
	notes[m.note()] = raw
	return err
}

// note writes how far the journal is read, and what has become of messages.
func (g *Gateway) note(ctx context.Context, o *outbox, notes map[string][]byte) error {
	if notes == nil {
		notes = make(map[string][]byte, 1)
	}
	notes[noteNotified] = strconv.AppendUint(nil, o.read, 10)
	if _, err := g.store.Apply(ctx, &cache.Facts{Notes: notes}); err != nil {
		return err
	}
	g.notifier.read.Store(o.read)
	return nil
}

// send sends messages, each of another user, and notes what has arrived.
func (g *Gateway) send(ctx context.Context, due []*message) error {
	results := make([]error, len(due))
	var sending sync.WaitGroup
	for i, m := range due {
		sending.Go(func() { results[i] = g.sendOne(ctx, m) })
	}
	sending.Wait()
	if ctx.Err() != nil {
		return ctx.Err() // what became of them is not known: they are sent again
	}
	n := g.notifier
	n.mu.Lock()
	defer n.mu.Unlock()
	notes, now, arrived := make(map[string][]byte, len(due)), g.local(), 0
	for i, m := range due {
		if lane := n.outbox.lanes[m.User]; len(lane) == 0 || lane[0] != m {
			continue // forgotten meanwhile
		}
		if results[i] == nil {
			arrived++
			n.outbox.pop(m.User)
			notes[m.note()] = nil
			continue
		}
		m.failed(now, results[i])
		if m.GivenUp {
			n.outbox.pop(m.User)
			n.outbox.dead[m.Number] = m
			g.logger.Error("the app was not told of a change of a subscription: a day of tries has failed; caddy polar notify resend tries again",
				zap.String("user_hash", g.HashUser(m.User)), zap.String("subscription", m.Subscription), zap.Error(results[i]))
		}
		if err := m.write(notes); err != nil {
			return err
		}
	}
	g.notified(arrived, len(due)-arrived)
	return g.note(ctx, n.outbox, notes)
}

// notified tells of the app's coming and going, in the log.
func (g *Gateway) notified(arrived, failed int) {
	n := g.notifier
	switch {
	case arrived > 0 && n.lost > 0:
		n.lost, n.probe = 0, time.Time{}
		n.outbox.hurry(g.local(), false)
		g.logger.Info("the app can be told of changes again", zap.Int("waiting", n.outbox.size))
	case arrived == 0 && failed > 0:
		if n.lost++; n.lost == 1 {
			g.logger.Warn("the app cannot be told of changes: they wait, and are tried again for a day", zap.Error(n.outbox.why()))
		}
		n.probe = g.local().Add(backOff(n.lost, lastProbe))
	}
	if g.onNotified != nil {
		g.onNotified(arrived, failed)
	}
}

// why is the last failure of a message that waits.
func (o *outbox) why() error {
	for _, lane := range o.lanes {
		if lane[0].Error != "" {
			return errors.New(lane[0].Error)
		}
	}
	return nil
}

// Notification is the body of a message. Status and Changes are of the change, all
// else is what the user has at the time of sending.
type Notification struct {
	Type      string           `json:"type"`
	Timestamp time.Time        `json:"timestamp"` // of the change
	Data      NotificationData `json:"data"`
}

// NotificationData is what has changed, and what the user has now.
type NotificationData struct {
	Gateway      string     `json:"gateway"`
	User         string     `json:"user"`
	Customer     string     `json:"customer"`
	Subscription string     `json:"subscription"`
	Product      string     `json:"product"`
	Status       string     `json:"status"`
	Plan         string     `json:"plan"`
	Plans        []string   `json:"plans"`
	Allowed      bool       `json:"allowed"`
	Reason       string     `json:"reason"`
	Until        *time.Time `json:"until"`
	// Previous has what was other before, by Polar's names. A new subscription has
	// none.
	Previous map[string]string `json:"previous"`
}

// notificationType is the type of all messages.
const notificationType = "subscription.changed"

func (g *Gateway) sendOne(ctx context.Context, m *message) error {
	body, err := g.compose(m)
	if err != nil {
		return err
	}
	keys, err := g.claim()
	if err != nil {
		return err
	}
	return g.notifier.sender.Send(ctx, notificationID(keys.Random, m.Number), g.Now(), body)
}

// notificationID is the same for each try, and another after the store was made
// anew, when numbers begin again.
func notificationID(key []byte, number uint64) string {
	mac := hmac.New(sha256.New, key)
	mac.Write(binary.BigEndian.AppendUint64([]byte("notify"), number))
	return "msg_" + base64.RawURLEncoding.EncodeToString(mac.Sum(nil)[:18])
}

func (g *Gateway) compose(m *message) ([]byte, error) {
	s, err := g.store.Subscription(m.Subscription)
	if err != nil {
		return nil, err
	}
	account, err := g.Account(m.User)
	if err != nil {
		return nil, err
	}
	rules, now := g.Rules(), g.Now()
	decision := entitlement.Decide(account, entitlement.Requirement{}, rules, now)
	data := NotificationData{
		Gateway: g.name, User: m.User, Customer: s.CustomerID, Subscription: m.Subscription, Product: s.ProductID, Status: string(s.Status),
		Plan: decision.Plan, Plans: splitPlans(account.Standing(rules, now).Open), Allowed: decision.Allowed, Reason: string(decision.Reason),
		Previous: make(map[string]string, len(m.Changes)),
	}
	if !decision.Until.IsZero() {
		data.Until = new(decision.Until.UTC().Truncate(time.Second))
	}
	for _, change := range m.Changes {
		if change.Field == "status" {
			data.Status = change.After
		}
		if !m.New {
			data.Previous[change.Field] = change.Before
		}
	}
	body, err := json.Marshal(Notification{notificationType, m.At.UTC(), data})
	if err != nil {
		return nil, fmt.Errorf("the message cannot be written: %w", err)
	}
	return body, nil
}

// splitPlans splits what headers tell together.
func splitPlans(open string) []string {
	if open == "" {
		return []string{}
	}
	return strings.Split(open, ",")
}

// NotifyStatus is how telling the app goes.
type NotifyStatus struct {
	To      string    // the address, without what can be secret in it
	Waiting int       // messages that have not arrived yet
	GivenUp int       // that are not tried again by themselves
	Oldest  time.Time // since when the one waits that has waited longest
	Error   string    // why the last try of one that waits has failed
}

// notifyStatus is nil if nobody is told.
func (g *Gateway) notifyStatus() *NotifyStatus {
	n := g.notifier
	if n == nil {
		return nil
	}
	s := &NotifyStatus{To: fmt.Sprint(n.sender)}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.outbox == nil {
		return s
	}
	s.Waiting, s.GivenUp = n.outbox.size, len(n.outbox.dead)
	for _, lane := range n.outbox.lanes {
		if s.Oldest.IsZero() || lane[0].At.Before(s.Oldest) {
			s.Oldest = lane[0].At
		}
	}
	if err := n.outbox.why(); err != nil {
		s.Error = err.Error()
	}
	return s
}

// Resend tries what waits, or was given up, at once, and says how much that is.
func (g *Gateway) Resend(ctx context.Context) (messages int, err error) {
	n := g.notifier
	if n == nil {
		return 0, fmt.Errorf("notify: %w", ErrNotConfigured)
	}
	if err := g.loadOutbox(ctx); err != nil {
		return 0, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	revived := n.outbox.hurry(g.local(), true)
	n.probe = time.Time{}
	notes := make(map[string][]byte, len(revived))
	for _, m := range revived {
		if err := m.write(notes); err != nil {
			return 0, err
		}
	}
	if err := g.note(ctx, n.outbox, notes); err != nil {
		return 0, err
	}
	n.changed()
	return n.outbox.size, nil
}

// forgetNotifications takes back what the app was to be told of a user.
func (g *Gateway) forgetNotifications(ctx context.Context, user string) error {
	n := g.notifier
	if n == nil {
		return nil
	}
	if err := g.loadOutbox(ctx); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	notes := make(map[string][]byte)
	for _, m := range n.outbox.drop(user) {
		notes[m.note()] = nil
	}
	return g.note(ctx, n.outbox, notes)
}

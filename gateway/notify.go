package gateway

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strconv"
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
	// noteAgain is when it is tried again to write what could not be written.
	noteAgain = 10 * time.Second
)

// notifier is what is to be told of one store, each change at least once and in
// order for each user. All configurations that have the store share it; one at a time
// has the turn to tell.
type notifier struct {
	wake chan struct{}
	turn chan struct{}
	// read is up to which entry the journal was read, durably. Each webhook asks.
	read atomic.Uint64

	mu     sync.Mutex
	outbox *outbox   // nil until it is read
	lost   int       // how often nothing has arrived, since something has
	since  time.Time // when that began
	probe  time.Time // no try before it
	flying int
}

const keptNotifier = "notifier"

// sharedNotifier is the store's.
func (g *Gateway) sharedNotifier() *notifier {
	return g.store.KeepFirst(keptNotifier, &notifier{wake: make(chan struct{}, 1), turn: make(chan struct{}, 1)}).(*notifier)
}

// changed lets the one who tells look at the journal.
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
	if g.sender == nil {
		return g.audit
	}
	return max(g.audit, minJournal)
}

// sent is what came of a try.
type sent struct {
	*message
	err error
}

// notify tells the app until the context ends.
func (g *Gateway) notify(ctx context.Context) {
	n := g.notifier
	select {
	case n.turn <- struct{}{}:
		defer func() { <-n.turn }()
	case <-ctx.Done():
		return
	}
	if g.store.Shared() { // others have told, and changed what waits
		n.mu.Lock()
		n.outbox = nil
		n.mu.Unlock()
	}
	var senders sync.WaitGroup
	results := make(chan sent, sendAtOnce)
	defer func() { // what becomes of tries that are under way is not known: they are made again
		senders.Wait()
		n.mu.Lock()
		defer n.mu.Unlock()
		for n.flying > 0 {
			(<-results).flying = false
			n.flying--
		}
	}()
	for {
		more, err := g.readJournal(ctx)
		if err != nil && ctx.Err() == nil {
			g.logger.Error("the app cannot be told of changes: the store has to be read and written for it", zap.Error(err))
		}
		for _, m := range g.takeOff() {
			senders.Go(func() { results <- sent{m, g.sendOne(ctx, m)} })
		}
		wait := time.Duration(0)
		if err != nil {
			wait = noteAgain
		} else if !more {
			wait = n.untilNext(g.local())
		}
		if g.store.Shared() {
			wait = min(wait, leadEvery) // others write, too
		}
		timer := time.NewTimer(wait)
		select {
		case r := <-results:
			g.landed(ctx, r)
		case <-n.wake:
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
		timer.Stop()
	}
}

// takeOff are the messages to be sent now.
func (g *Gateway) takeOff() (due []*message) {
	n := g.notifier
	n.mu.Lock()
	defer n.mu.Unlock()
	now := g.local()
	switch {
	case n.outbox == nil:
	case n.lost == 0:
		due = n.outbox.due(now, sendAtOnce-n.flying)
	case n.flying == 0 && !n.probe.After(now):
		due = n.outbox.stalest() // it tries for all
	}
	for _, m := range due {
		m.flying = true
		n.flying++
	}
	return due
}

func (n *notifier) untilNext(now time.Time) time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.outbox == nil || n.flying >= sendAtOnce || n.lost > 0 && n.flying > 0 {
		return time.Hour
	}
	next := n.outbox.stalest()
	switch {
	case len(next) == 0:
		return time.Hour
	case n.lost > 0:
		return max(n.probe.Sub(now), 0)
	}
	return max(next[0].Next.Sub(now), 0)
}

// readJournal makes messages of what the journal has. more says that there is more.
func (g *Gateway) readJournal(ctx context.Context) (more bool, err error) {
	n := g.notifier
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := g.loadOutbox(ctx); err != nil {
		return false, err
	}
	o := n.outbox
	if o.size+readAtOnce > mostWaiting {
		return false, nil
	}
	entries, err := g.store.Journal(o.read, readAtOnce)
	if err != nil || len(entries) == 0 {
		return false, err
	}
	return true, g.takeIn(ctx, entries)
}

// loadOutbox reads what waits, once. Who begins to be told hears nothing of what
// was before. The lock is held.
func (g *Gateway) loadOutbox(ctx context.Context) error {
	n := g.notifier
	if n.outbox != nil {
		return nil
	}
	read, err := g.Note(noteNotified)
	if err != nil {
		return err
	}
	if read == nil {
		last, err := g.store.LastEntry()
		if err != nil {
			return err
		}
		read = strconv.AppendUint(nil, last, 10)
		if _, err := g.store.Apply(ctx, &cache.Facts{Notes: map[string][]byte{noteNotified: read}}); err != nil {
			return err
		}
	}
	waiting, err := g.store.Notes(noteWaiting)
	if err != nil {
		return err
	}
	o, damaged := readOutbox(read, waiting, g.local())
	if damaged > 0 {
		g.logger.Error("some of what the app is to be told cannot be read, and is left out", zap.Int("messages", damaged))
	}
	n.outbox = o
	n.read.Store(o.read)
	return nil
}

// takeIn makes messages of entries of the journal, and has them durable before they
// are sent: from then on the journal may forget them. The lock is held, so that
// nobody is forgotten in between.
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
			list = append(list, &message{
				Number: e.Number, User: user, Subscription: e.ID, At: e.At, New: e.New, Status: e.Status, Changes: e.Changes, Since: g.local(),
			})
		}
	}
	o := g.notifier.outbox
	before := o.read
	o.read = entries[len(entries)-1].Number
	notes := make(map[string][]byte, len(list)+1)
	for _, m := range list {
		if err := m.write(notes); err != nil {
			return err
		}
	}
	if err := g.noteOutbox(ctx, notes); err != nil {
		o.read = before
		return err
	}
	for _, m := range list {
		o.put(m)
	}
	return nil
}

// noteOutbox writes how far the journal is read, and what has become of messages.
func (g *Gateway) noteOutbox(ctx context.Context, notes map[string][]byte) error {
	n := g.notifier
	notes[noteNotified] = strconv.AppendUint(nil, n.outbox.read, 10)
	if _, err := g.store.Apply(ctx, &cache.Facts{Notes: notes}); err != nil {
		return err
	}
	n.read.Store(n.outbox.read)
	return nil
}

// landed notes what came of a try.
func (g *Gateway) landed(ctx context.Context, r sent) {
	n := g.notifier
	n.mu.Lock()
	defer n.mu.Unlock()
	m, fresh := r.message, r.Tries == 0
	m.flying = false
	n.flying--
	if ctx.Err() != nil || !n.outbox.holds(m) { // it ends, or the user was forgotten meanwhile
		return
	}
	now, notes := g.local(), make(map[string][]byte, 2)
	if r.err == nil {
		n.outbox.pop(m.User)
		notes[m.note()] = nil
	} else {
		m.failed(now, r.err)
		_ = m.write(notes) // of texts and times
		if m.GivenUp {
			if gone := n.outbox.bury(m); gone != nil {
				notes[gone.note()] = nil
			}
			g.logger.Error("the app was not told of a change of a subscription: a day of tries has failed; caddy polar notify resend tries again",
				zap.String("user_hash", g.HashUser(m.User)), zap.String("subscription", m.Subscription), zap.Error(r.err))
		}
	}
	g.reachable(now, r.err, fresh)
	if err := g.noteOutbox(ctx, notes); err != nil && ctx.Err() == nil {
		g.logger.Error("it cannot be noted what the app was told: it may hear it twice", zap.Error(err))
	}
	if g.onNotified != nil {
		g.onNotified(r.err == nil)
	}
}

// reachable notices the app's coming and going. That a message fails once more says
// nothing: it may be the only one that the app does not take.
func (g *Gateway) reachable(now time.Time, err error, fresh bool) {
	n := g.notifier
	switch {
	case err == nil && n.lost > 0:
		n.outbox.hurry(now, n.since)
		n.lost, n.probe = 0, time.Time{}
		g.logger.Info("the app can be told of changes again", zap.Int("waiting", n.outbox.size))
	case err != nil && (fresh || n.lost > 0):
		if n.lost++; n.lost == 1 {
			n.since = now
			g.logger.Warn("the app cannot be told of changes: they wait, and are tried again for a day", zap.Error(err))
		}
		n.probe = now.Add(backOff(n.lost, lastProbe))
	}
}

// Notification is the body of a message. Status and Previous are of the change, all
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
	return g.sender.Send(ctx, m.id(keys.Random), g.Now(), body)
}

// id is the same for each try, and another than that of each other message, also
// after numbers have begun again because a store was restored or made anew.
func (m *message) id(key []byte) string {
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "notify %d %s %d", m.Number, m.Subscription, m.At.UnixMicro())
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
		Gateway: g.name, User: m.User, Customer: s.CustomerID, Subscription: m.Subscription, Product: s.ProductID, Status: m.Status,
		Plan: decision.Plan, Plans: openPlans(account, rules, now), Allowed: decision.Allowed, Reason: string(decision.Reason),
		Previous: make(map[string]string, len(m.Changes)),
	}
	if !decision.Until.IsZero() {
		data.Until = new(decision.Until.UTC().Truncate(time.Second))
	}
	for _, change := range m.Changes {
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

// NotifyStatus is how telling the app goes.
type NotifyStatus struct {
	To      string    // where, without what can be secret in it
	Waiting int       // messages that have not arrived yet
	Unread  int       // entries of the journal that nobody has looked at yet
	GivenUp int       // that are not tried again by themselves
	Oldest  time.Time // since when the one waits that has waited longest
	Error   string    // why the last try of one that waits has failed
	// Known: what waits was read. It is not before it is this configuration's turn.
	Known bool
}

// notifyStatus is nil if nobody is told.
func (g *Gateway) notifyStatus() *NotifyStatus {
	n := g.notifier
	if g.sender == nil {
		return nil
	}
	s := &NotifyStatus{To: fmt.Sprint(g.sender)}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.outbox == nil {
		return s
	}
	s.Known, s.Waiting, s.GivenUp = true, n.outbox.size, len(n.outbox.dead)
	if last, err := g.store.LastEntry(); err == nil {
		s.Unread = int(last - min(last, n.outbox.read))
	}
	for _, lane := range n.outbox.lanes {
		if s.Oldest.IsZero() || lane[0].At.Before(s.Oldest) {
			s.Oldest = lane[0].At
		}
		if lane[0].Error != "" {
			s.Error = lane[0].Error
		}
	}
	return s
}

// Resend tries what waits, or was given up, at once, and says how much that is.
func (g *Gateway) Resend(ctx context.Context) (messages int, err error) {
	if g.sender == nil {
		return 0, fmt.Errorf("notify: %w", ErrNotConfigured)
	}
	n := g.notifier
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := g.loadOutbox(ctx); err != nil {
		return 0, err
	}
	notes := make(map[string][]byte)
	for _, m := range n.outbox.revive(g.local()) {
		if err := m.write(notes); err != nil {
			return 0, err
		}
	}
	n.lost, n.probe = 0, time.Time{}
	n.changed()
	return n.outbox.size, g.noteOutbox(ctx, notes)
}

// forgetNotifications takes back what the app was to be told of a user, whether it is
// told now or was once.
func (g *Gateway) forgetNotifications(ctx context.Context, user string) error {
	n := g.notifier
	n.mu.Lock()
	defer n.mu.Unlock()
	waiting, err := g.store.Notes(noteWaiting)
	if err != nil {
		return err
	}
	if notes := usersNotes(waiting, user); len(notes) > 0 {
		if _, err := g.store.Apply(ctx, &cache.Facts{Notes: notes}); err != nil {
			return err
		}
	}
	if n.outbox != nil {
		n.outbox.drop(user)
	}
	return nil
}

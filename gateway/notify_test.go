package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// app is what is told of changes.
type app struct {
	mu       sync.Mutex
	answer   func(n Notification) error // nil: it takes all
	arrived  []Notification
	ids      []string
	tries    int
	byUser   map[string]time.Time // the last that arrived
	disorder []string
}

func (a *app) String() string { return "http://app.test/hook" }

func (a *app) Send(_ context.Context, id string, _ time.Time, body []byte) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	var n Notification
	if err := json.Unmarshal(body, &n); err != nil {
		panic(err)
	}
	a.tries++
	if a.answer != nil {
		if err := a.answer(n); err != nil {
			return err
		}
	}
	if last := a.byUser[n.Data.User]; n.Timestamp.Before(last) {
		a.disorder = append(a.disorder, n.Data.User)
	}
	if a.byUser == nil {
		a.byUser = make(map[string]time.Time)
	}
	a.byUser[n.Data.User] = n.Timestamp
	a.arrived, a.ids = append(a.arrived, n), append(a.ids, id)
	return nil
}

func (a *app) answers(f func(Notification) error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.answer = f
}

// heard are the changes that have arrived since it was asked last.
func (a *app) heard() (lines []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, n := range a.arrived {
		lines = append(lines, fmt.Sprintf("%s %s %v %s", n.Data.User, n.Data.Status, n.Data.Allowed, n.Data.Reason))
	}
	a.arrived = nil
	return lines
}

var errDown = errors.New("the app answered 500")

func down(Notification) error { return errDown }

// telling is a gateway that tells an app, on the clock of a bubble.
func telling(t *testing.T, a *app, change ...func(*Config)) *bench {
	b := newBench(t, append([]func(*Config){func(c *Config) {
		c.Notify, c.Now, c.AccessToken = a, time.Now, ""
	}}, change...)...)
	b.begin()
	return b
}

func (b *bench) begin() {
	b.t.Helper()
	if err := b.g.Start(); err != nil {
		b.t.Fatal(err)
	}
	synctest.Wait()
}

// moves is a change of some user's subscription, of now.
func (b *bench) moves(user, status string) {
	b.t.Helper()
	time.Sleep(time.Second)
	b.now = time.Now()
	kind := map[string]string{"active": "subscription.active", "past_due": "subscription.past_due", "canceled": "subscription.revoked"}[status]
	e := event(b.t, kind+".json")
	e["timestamp"] = stamp(time.Now())
	ended := any(nil)
	if status == "canceled" {
		ended = stamp(time.Now())
	}
	edits := []any{
		"ended_at", ended, "ends_at", ended,
		"id", "sub-" + user, "status", status, "customer_id", "cust-" + user, "customer.id", "cust-" + user, "customer.external_id", user,
		"modified_at", stamp(time.Now()), "current_period_end", stamp(time.Now().Add(20 * day)), "metadata",
		object{},
	}
	edit(b.t, e["data"].(object), edits...)
	b.takes(body(b.t, e), ResultApplied)
	synctest.Wait()
}

func inBubble(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(bought.Add(time.Hour)))
		test(t)
	})
}

func wants(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestNotify: each change is told as it comes, with what was before and what is open
// now.
func TestNotify(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		a := &app{}
		b := telling(t, a)
		defer b.g.Close()
		b.moves("ada", "active")
		b.moves("ada", "past_due")
		a.mu.Lock()
		first, second := a.arrived[0], a.arrived[1]
		a.mu.Unlock()
		if len(first.Data.Previous) != 0 || second.Data.Previous["status"] != "active" || second.Data.Product != proProduct {
			t.Errorf("%+v\n%+v", first, second)
		}
		if second.Data.Plan != "pro" || !slices.Equal(second.Data.Plans, []string{"pro"}) || second.Data.Until == nil || second.Data.Customer != "cust-ada" ||
			second.Data.Subscription != "sub-ada" || second.Type != "subscription.changed" || second.Data.Gateway != "default" {
			t.Errorf("%+v", second)
		}
		wants(t, a.heard(), "ada active true active", "ada past_due true past_due_grace")
		b.moves("ada", "canceled")
		wants(t, a.heard(), "ada canceled false canceled")
		if b.g.Status().Notify.Waiting != 0 {
			t.Error(b.g.Status().Notify)
		}
	})
}

// TestNotifyWaitsForTheApp: an app that is down for most of a day is told everything, in
// order, soon after it is there again.
func TestNotifyWaitsForTheApp(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		a := &app{answer: down}
		b := telling(t, a)
		defer b.g.Close()
		for _, user := range []string{"ada", "bob", "eve"} {
			b.moves(user, "active")
		}
		time.Sleep(20 * time.Hour)
		b.moves("ada", "past_due")
		s := b.g.Status().Notify
		if s.Waiting != 4 || s.GivenUp != 0 || s.Error != errDown.Error() || s.To != "http://app.test/hook" || time.Since(s.Oldest) < 20*time.Hour {
			t.Errorf("%+v", s)
		}
		if a.tries > 21*60 {
			t.Errorf("%d tries", a.tries)
		}
		a.answers(nil)
		time.Sleep(lastProbe)
		synctest.Wait()
		got := a.heard()
		if first, second := slices.Index(got, "ada active true past_due_grace"), slices.Index(got, "ada past_due true past_due_grace"); len(got) != 4 || first < 0 || second < first {
			t.Errorf("%q", got)
		}
	})
}

// TestNotifyOneBadMessage: a message that the app cannot take holds up its user's and
// nobody else's, is given up after a day, and can be sent again.
func TestNotifyOneBadMessage(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		a := &app{answer: func(n Notification) error {
			if n.Data.User == "ada" && n.Data.Status == "active" {
				return errDown
			}
			return nil
		}}
		b := telling(t, a)
		defer b.g.Close()
		b.moves("ada", "active")
		b.moves("ada", "past_due")
		b.moves("bob", "active")
		time.Sleep(time.Hour)
		wants(t, a.heard(), "bob active true active")
		time.Sleep(24 * time.Hour)
		wants(t, a.heard(), "ada past_due true past_due_grace")
		if s := b.g.Status().Notify; s.Waiting != 0 || s.GivenUp != 1 {
			t.Errorf("%+v", s)
		}
		if b.logs.FilterMessageSnippet("a day of tries has failed").Len() != 1 {
			t.Error("the log does not tell of it")
		}
		a.answers(nil)
		time.Sleep(day)
		wants(t, a.heard())
		if n, err := b.g.Resend(t.Context()); n != 1 || err != nil {
			t.Error(n, err)
		}
		synctest.Wait()
		wants(t, a.heard(), "ada active true past_due_grace")
		if s := b.g.Status().Notify; s.Waiting != 0 || s.GivenUp != 0 {
			t.Errorf("%+v", s)
		}
	})
}

// TestNotifyGoesOn: what waits, was given up, or was written and not told yet, is told by
// the next configuration or process; what was told is not told again, and nothing of
// before notify was configured.
func TestNotifyGoesOn(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		a := &app{}
		b := telling(t, a, func(c *Config) { c.Notify, c.Audit = nil, 48*time.Hour })
		b.moves("early", "active")
		next := func(notify Sender) {
			b.g.Close()
			b = newBench(t, withStore(b.store), func(c *Config) {
				c.Notify, c.Now, c.AccessToken, c.Audit = notify, time.Now, "", 48*time.Hour
			})
			b.begin()
		}
		next(a)
		b.moves("ada", "active")
		a.answers(down)
		b.moves("ada", "past_due")
		next(nil)
		b.moves("bob", "active") // the journal has it
		a.answers(nil)
		next(a)
		time.Sleep(firstRetry)
		synctest.Wait()
		got := a.heard()
		slices.Sort(got)
		wants(t, got, "ada active true active", "ada past_due true past_due_grace", "bob active true active")
		next(a)
		wants(t, a.heard())
		b.g.Close()
	})
}

// TestNotifyIDs: a message has the same id with each try, and another than all others,
// also than those of a store that was restored since.
func TestNotifyIDs(t *testing.T) {
	m := message{Number: 1, Subscription: "s", At: bought}
	others := []message{m, m, m}
	others[0].Number, others[1].Subscription, others[2].At = 2, "t", bought.Add(time.Microsecond)
	id := m.id([]byte("key"))
	for _, o := range others {
		if o.id([]byte("key")) == id {
			t.Error(o)
		}
	}
	if again := m; again.id([]byte("key")) != id || m.id([]byte("other")) == id || !strings.HasPrefix(id, "msg_") {
		t.Error(id)
	}
}

// TestNotifyForgets: of who is forgotten nothing is told any more, and nothing kept.
func TestNotifyForgets(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		a := &app{answer: down}
		b := telling(t, a)
		defer b.g.Close()
		b.moves("ada", "active")
		b.moves("bob", "active")
		if _, err := b.g.Forget(t.Context(), "ada"); err != nil {
			t.Fatal(err)
		}
		notes, err := b.store.Notes(noteWaiting)
		if err != nil || len(notes) != 1 {
			t.Error(notes, err)
		}
		a.answers(nil)
		time.Sleep(time.Hour)
		wants(t, a.heard(), "bob active true active")
	})
}

// TestOutbox: who is due, when, and how it is noted.
func TestOutbox(t *testing.T) {
	now := bought
	o, _ := readOutbox([]byte("0"), nil, now)
	for i := range 5 {
		o.put(&message{Number: uint64(i + 1), User: fmt.Sprint(i % 2), Subscription: "s", Since: now})
	}
	o.put(&message{Number: 9, User: "x", GivenUp: true})
	if due := o.due(now, 8); len(due) != 2 || due[0].Number != 1 || due[1].Number != 2 || o.size != 5 {
		t.Error(due, o.size)
	}
	for tries := 1; tries < 400; tries++ {
		m := o.lanes["0"][0]
		m.failed(now, errDown)
		if wait := m.Next.Sub(now); wait < firstRetry || wait > lastRetry {
			t.Fatalf("try %d: %v", tries, wait)
		}
	}
	if due := o.due(now, 8); len(due) != 1 || !o.stalest()[0].Next.IsZero() {
		t.Error(due, o.stalest())
	}
	raw := make(map[string][]byte)
	for _, lane := range o.lanes {
		for _, m := range lane {
			if err := m.write(raw); err != nil {
				t.Fatal(err)
			}
		}
	}
	again, damaged := readOutbox([]byte("7"), raw, now)
	if damaged != 0 || again.read != 7 || again.size != 5 || again.lanes["0"][0].Number != 1 || again.lanes["0"][2].Number != 5 {
		t.Error(again, damaged)
	}
	// Damage costs what is damaged, and a clock that was ahead delays nothing for long.
	raw[noteWaiting+"x"], raw[noteWaiting+"y"] = []byte("{"), []byte("{}")
	ahead := message{Number: 8, User: "z", Subscription: "s", Next: now.Add(30 * day), Since: now.Add(30 * day)}
	if err := ahead.write(raw); err != nil {
		t.Fatal(err)
	}
	again, damaged = readOutbox([]byte("x"), raw, now)
	if z := again.lanes["z"][0]; damaged != 3 || again.size != 6 || z.Next.Sub(now) > lastRetry || z.Since.After(now) {
		t.Error(again, damaged)
	}
	// Of too many that were given up the oldest goes.
	full := outbox{lanes: map[string][]*message{}, dead: map[uint64]*message{}}
	for i := range mostWaiting {
		full.dead[uint64(i+1)] = &message{Number: uint64(i + 1)}
	}
	last := &message{Number: 99_999, User: "a"}
	full.put(last)
	if gone := full.bury(last); gone == nil || gone.Number != 1 || len(full.dead) != mostWaiting || full.size != 0 {
		t.Error(gone, len(full.dead))
	}
}

// next is another configuration on the same store, which runs beside.
func (b *bench) next(a Sender, change ...func(*Config)) *bench {
	c := newBench(b.t, append([]func(*Config){withStore(b.store), func(c *Config) {
		c.Notify, c.Now, c.AccessToken, c.Audit = a, time.Now, "", 30*day
	}}, change...)...)
	c.begin()
	return c
}

func badUsers(n Notification) error {
	if strings.HasPrefix(n.Data.User, "bad") {
		return errDown
	}
	return nil
}

// TestNotifyManyBadMessages: messages that the app does not take hold up nobody else's,
// however many they are.
func TestNotifyManyBadMessages(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		a := &app{answer: badUsers}
		b := telling(t, a)
		defer b.g.Close()
		for i := range 3 * sendAtOnce {
			b.moves(fmt.Sprint("bad", i), "active")
		}
		time.Sleep(time.Hour)
		for i := range 100 {
			b.moves(fmt.Sprint("good", i), "active")
		}
		time.Sleep(firstRetry)
		synctest.Wait()
		if got := len(a.heard()); got != 100 {
			t.Errorf("%d of 100 arrived", got)
		}
	})
}

// slow is an app that takes its time for some.
type slow struct{ app }

func (s *slow) Send(ctx context.Context, id string, now time.Time, body []byte) error {
	if strings.Contains(string(body), `"user":"bad`) {
		select {
		case <-time.After(15 * time.Second):
			return errDown
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return s.app.Send(ctx, id, now, body)
}

// TestNotifySlowMessage: one that takes long holds up nobody else's.
func TestNotifySlowMessage(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		a := &slow{}
		b := telling(t, &a.app)
		b.g.Close()
		b = b.next(a)
		defer b.g.Close()
		b.moves("good", "active")
		for i := range sendAtOnce - 1 {
			b.moves(fmt.Sprint("bad", i), "active")
		}
		b.moves("good", "past_due")
		wants(t, a.heard(), "good active true active", "good past_due true past_due_grace")
	})
}

// TestNotifyAcrossReloads: two configurations on one store tell as one: nothing waits
// for the other, comes twice or in another order, and what one is told to forget or to
// resend counts for both.
func TestNotifyAcrossReloads(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		a := &app{answer: down}
		old := telling(t, a)
		old.moves("ada", "active")
		old.moves("eve", "active")
		young := old.next(a) // waits for its turn
		for _, step := range []func(){
			func() { old.moves("ada", "past_due") },
			func() {
				if n, err := young.g.Resend(t.Context()); n < 2 || err != nil {
					t.Error(n, err)
				}
			},
			func() { young.moves("ada", "active") },
			func() {
				if _, err := young.g.Forget(t.Context(), "eve"); err != nil {
					t.Error(err)
				}
			},
		} {
			step()
		}
		time.Sleep(time.Minute) // the old one tries again, and writes
		old.g.Stop()
		old.moves("ada", "past_due") // a webhook that was under way when it was stopped
		a.answers(nil)
		time.Sleep(2 * lastProbe)
		synctest.Wait()
		wants(t, a.heard(), "ada active true past_due_grace", "ada past_due true past_due_grace", "ada active true past_due_grace", "ada past_due true past_due_grace")
		if notes, err := young.store.Notes(noteWaiting); len(notes) != 0 || err != nil || len(a.disorder) != 0 {
			t.Error(notes, err, a.disorder)
		}
		old.g.Close()
		young.g.Close()
	})
}

// TestNotifyWakesAfterAReload: what comes while nobody has the turn is told by the next
// at once.
func TestNotifyWakesAfterAReload(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		a := &app{}
		old := telling(t, a)
		young := old.next(a)
		defer young.g.Close()
		old.g.Stop()
		synctest.Wait()
		old.moves("ada", "active") // taken by the old one
		wants(t, a.heard(), "ada active true active")
		old.g.Close()
	})
}

// TestNotifyForgetsWhileOff: what waits of somebody who is forgotten goes, whether the app
// is told at the time or not, and also if it fails at first.
func TestNotifyForgetsWhileOff(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		a := &app{answer: down}
		b := telling(t, a)
		b.moves("ada", "active")
		b.moves("bob", "active")
		ended, end := context.WithCancel(t.Context())
		end()
		if err := b.g.forgetNotifications(ended, "bob"); err == nil {
			t.Error("it did not fail")
		}
		if _, err := b.g.Forget(t.Context(), "bob"); err != nil {
			t.Error(err)
		}
		b.g.Close()
		b = b.next(nil)
		if _, err := b.g.Forget(t.Context(), "ada"); err != nil {
			t.Error(err)
		}
		if notes, err := b.store.Notes(noteWaiting); len(notes) != 0 || err != nil {
			t.Errorf("%q %v", notes, err)
		}
		b.g.Close()
	})
}

// TestNotifyGivesNobodyUpSoon: who was away for a day, or slept, tries some more.
func TestNotifyGivesNobodyUpSoon(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		a := &app{answer: down}
		b := telling(t, a)
		for i := range 20 {
			b.moves(fmt.Sprint("u", i), "active")
		}
		b.g.Close()
		time.Sleep(25 * time.Hour)
		b = b.next(a)
		time.Sleep(30 * time.Minute)
		if s := b.g.Status().Notify; s.Waiting != 20 || s.GivenUp != 0 {
			t.Errorf("%+v", s)
		}
		b.g.Close()
	})
}

// TestNotifyStatusIsOfTheChange: a change that arrives late tells the status that it
// brought, also if that is the one from before.
func TestNotifyStatusIsOfTheChange(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		a := &app{answer: down}
		b := telling(t, a)
		defer b.g.Close()
		b.moves("ada", "active")
		time.Sleep(time.Hour)
		b.moves("ada", "active") // its period is another
		b.moves("ada", "canceled")
		a.answers(nil)
		time.Sleep(time.Hour)
		wants(t, a.heard(), "ada active false canceled", "ada active false canceled", "ada canceled false canceled")
	})
}

// TestOutboxTurns: who was tried least comes first, and when the app is there again only
// what has failed since it was away is tried at once.
func TestOutboxTurns(t *testing.T) {
	now := bought
	o, _ := readOutbox([]byte("0"), nil, now)
	tried, fresh := &message{Number: 1, User: "a"}, &message{Number: 2, User: "b"}
	o.put(tried)
	o.put(fresh)
	tried.failed(now.Add(-time.Hour), errDown)
	if due := o.due(now, 1); len(due) != 1 || due[0] != fresh {
		t.Error(due)
	}
	for range 12 { // each a quarter of an hour apart at last
		tried.failed(now.Add(-time.Minute), errDown)
	}
	fresh.failed(now, errDown)
	o.hurry(now, now.Add(-time.Second))
	if !tried.Next.After(now) || fresh.Next.After(now) {
		t.Error(tried.Next.Sub(now), fresh.Next.Sub(now))
	}
}

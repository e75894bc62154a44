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

// TestNotifyIDs: a message has the same id with each try, and another than all others.
func TestNotifyIDs(t *testing.T) {
	a, b := notificationID([]byte("key"), 1), notificationID([]byte("key"), 1)
	if a != b || a == notificationID([]byte("key"), 2) || a == notificationID([]byte("other"), 1) || !strings.HasPrefix(a, "msg_") {
		t.Error(a, b)
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
	o, fresh, err := readOutbox(nil, nil)
	if err != nil || !fresh {
		t.Fatal(err)
	}
	now := bought
	for i := range 5 {
		o.put(&message{Number: uint64(i + 1), User: fmt.Sprint(i % 2), Since: now})
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
	if due := o.due(now, 8); len(due) != 1 || !o.next().IsZero() {
		t.Error(due, o.next())
	}
	raw := make(map[string][]byte)
	for _, lane := range o.lanes {
		for _, m := range lane {
			if err := m.write(raw); err != nil {
				t.Fatal(err)
			}
		}
	}
	again, fresh, err := readOutbox([]byte("7"), raw)
	if err != nil || fresh || again.read != 7 || again.size != 5 || again.lanes["0"][0].Number != 1 || again.lanes["0"][2].Number != 5 {
		t.Error(again, err)
	}
	for _, bad := range []map[string][]byte{{noteWaiting + "1": []byte("{")}} {
		if _, _, err := readOutbox([]byte("1"), bad); err == nil {
			t.Error("damage goes unnoticed")
		}
	}
	if _, _, err := readOutbox([]byte("x"), nil); err == nil {
		t.Error("damage goes unnoticed")
	}
}
